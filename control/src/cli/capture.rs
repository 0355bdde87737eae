//! `tapline capture`: the frames that the switch moves, with what became of each.
//!
//! In: a port's or a pod's name, and the daemon's socket.
//! Out: a line a frame, or pcapng with the fate as a comment on each packet.
//! Never: stops the switch: a full disk ends the capture and nothing else.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};

use super::Exit;
use crate::api::capture::{CaptureId, CaptureRequest, CaptureStarted, Seen, SeenFrame};
use crate::api::types::{ApiError, ErrorKind, SOCKET_DEFAULT};
use crate::api::{Client, ClientError};
use crate::filter::{Fault, Filter};

/// Between two readings that found nothing.
const NAP: Duration = Duration::from_millis(20);

/// Arguments of `tapline capture`.
#[derive(clap::Args, Debug)]
pub struct CaptureArgs {
    /// Only frames of this port: `host`, `uplink`, or a pod's name.
    port: Option<String>,
    /// Only frames that die, each with its reason.
    #[arg(long)]
    drops: bool,
    /// Only frames that pass this, in the words of tcpdump: host, net, port, protocols, src, dst,
    /// ether host, and, or, not, brackets; and `pod NAME`.
    #[arg(long, value_name = "EXPR", value_parser = expression)]
    filter: Option<String>,
    /// Write pcapng to a file, or to standard output for `-`.
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// End after so many frames.
    #[arg(short, long, value_name = "NUMBER")]
    count: Option<usize>,
    /// End after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Bytes of each frame that are kept.
    #[arg(short, long, value_name = "BYTES", default_value_t = 65_600)]
    snap: usize,
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
    socket: PathBuf,
}

/// Why a capture ended before its time.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("writing: {0}")]
    Write(String),
}

/// Where frames go.
enum Sink {
    Lines(io::Stdout),
    Pcapng(Box<PcapNgWriter<Box<dyn Write>>>),
}

/// A filter that is none is refused before the daemon is asked.
fn expression(text: &str) -> Result<String, Fault> {
    Filter::parse(text).map(|_| text.to_owned())
}

/// Runs `tapline capture`.
#[must_use]
pub fn run(args: &CaptureArgs) -> Exit {
    match capture(args) {
        Ok(missed) => {
            if missed > 0 {
                eprintln!(
                    "{missed} frames more were not seen: they came faster than they were read"
                );
            }
            Exit::Ok
        }
        Err(ended) => {
            eprintln!("tapline capture: {ended}");
            match ended {
                Ended::Client(ClientError::Refused(ApiError {
                    kind: ErrorKind::NotFound | ErrorKind::Invalid,
                    ..
                })) => Exit::BadInput,
                _ => Exit::CheckFailed,
            }
        }
    }
}

fn capture(args: &CaptureArgs) -> Result<u64, Ended> {
    let client = Client::new(&args.socket);
    let request = CaptureRequest {
        port: args.port.clone(),
        drops: args.drops,
        filter: args.filter.clone(),
        snap: args.snap,
    };
    // Before the file is made: a name that is none leaves nothing behind.
    let started: CaptureStarted = client.post("/v1/capture", &request)?;
    let id = CaptureId { id: started.id };
    let read = read(args, &client, id, &started.names);
    // Ignored: the daemon forgets by itself one who asks no more.
    let _ = client.post::<serde_json::Value>("/v1/capture/stop", &id);
    read
}

fn read(
    args: &CaptureArgs,
    client: &Client,
    id: CaptureId,
    names: &BTreeMap<usize, String>,
) -> Result<u64, Ended> {
    let mut sink = Sink::open(args)?;
    let end = args
        .seconds
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut left = args.count.unwrap_or(usize::MAX);
    loop {
        let seen: Seen = client.post("/v1/capture/read", &id)?;
        for frame in seen.frames.iter().take(left) {
            sink.put(frame, seen.nanos, names)?;
        }
        left -= seen.frames.len().min(left);
        if left == 0 || end.is_some_and(|end| Instant::now() >= end) {
            return Ok(seen.missed);
        }
        if seen.frames.is_empty() {
            std::thread::sleep(NAP);
        }
    }
}

impl Sink {
    fn open(args: &CaptureArgs) -> Result<Sink, Ended> {
        let out: Box<dyn Write> = match &args.write {
            None => return Ok(Sink::Lines(io::stdout())),
            Some(path) if path.as_os_str() == "-" => Box::new(io::stdout()),
            Some(path) => {
                let why = |error| Ended::Write(format!("{}: {error}", path.display()));
                Box::new(File::create(path).map_err(why)?)
            }
        };
        let mut writer = PcapNgWriter::new(out).map_err(broken)?;
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: u32::try_from(args.snap).unwrap_or(u32::MAX),
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed("tapline")),
                // Nanoseconds.
                InterfaceDescriptionOption::IfTsResol(9),
            ],
        };
        writer.write_pcapng_block(interface).map_err(broken)?;
        Ok(Sink::Pcapng(Box::new(writer)))
    }

    fn put(
        &mut self,
        frame: &SeenFrame,
        nanos: u64,
        names: &BTreeMap<usize, String>,
    ) -> Result<(), Ended> {
        let told = told(frame, names);
        let bytes = bytes(&frame.hex);
        match self {
            Sink::Lines(out) => writeln!(out, "{told}  {}", in_words(&bytes, frame.len))
                .map_err(|error| Ended::Write(error.to_string())),
            Sink::Pcapng(writer) => {
                let packet = EnhancedPacketBlock {
                    interface_id: 0,
                    timestamp: Duration::from_nanos(nanos),
                    original_len: u32::try_from(frame.len).unwrap_or(u32::MAX),
                    data: Cow::Owned(bytes),
                    options: vec![EnhancedPacketOption::Comment(Cow::Owned(told))],
                };
                writer.write_pcapng_block(packet).map(drop).map_err(broken)
            }
        }
    }
}

/// What the system said, where it is the system.
fn broken(error: PcapError) -> Ended {
    Ended::Write(match error {
        PcapError::IoError(error) => error.to_string(),
        other => other.to_string(),
    })
}

/// Where a frame came from, where it went, and why not.
fn told(frame: &SeenFrame, names: &BTreeMap<usize, String>) -> String {
    let name = |port: Option<usize>, none: &str| match port {
        Some(port) => names
            .get(&port)
            .cloned()
            .unwrap_or_else(|| format!("port {port}")),
        None => none.to_owned(),
    };
    let from = name(frame.ingress, "switch");
    let to = match frame.fate.as_str() {
        "forwarded" | "originated" => name(frame.egress, "?"),
        "flooded" => "all".to_owned(),
        "punted" => "the switch itself".to_owned(),
        "waiting" => "waits for its next hop".to_owned(),
        _ => {
            let reason = frame.reason.as_deref().unwrap_or("?");
            match frame.egress {
                Some(_) => format!("{}: dropped: {reason}", name(frame.egress, "?")),
                None => format!("dropped: {reason}"),
            }
        }
    };
    format!("{from} -> {to}")
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| {
        hex.get(at..at + 2)
            .and_then(|two| u8::from_str_radix(two, 16).ok())
    };
    (0..hex.len()).step_by(2).map_while(digit).collect()
}

/// One frame in one line.
fn in_words(bytes: &[u8], len: usize) -> String {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(bytes) else {
        return format!("{len} bytes");
    };
    let ends = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            format!(
                "{} > {}  ttl {}",
                header.source_addr(),
                header.destination_addr(),
                header.ttl()
            )
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let (from, to) = (header.source_addr(), header.destination_addr());
            format!("{from} > {to}  hop limit {}", header.hop_limit())
        }
        _ => match bytes.get(12..14) {
            Some([8, 6]) => "arp".to_owned(),
            Some(kind) => format!("ethertype {:02x}{:02x}", kind[0], kind[1]),
            None => String::new(),
        },
    };
    let what = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            format!("tcp {} > {}", tcp.source_port(), tcp.destination_port())
        }
        Some(TransportSlice::Udp(udp)) => {
            format!("udp {} > {}", udp.source_port(), udp.destination_port())
        }
        Some(TransportSlice::Icmpv4(_)) => "icmp".to_owned(),
        Some(TransportSlice::Icmpv6(_)) => "icmp6".to_owned(),
        Some(TransportSlice::Igmp(_)) => "igmp".to_owned(),
        None => String::new(),
    };
    format!("{ends}  {what}  {len} bytes")
}
