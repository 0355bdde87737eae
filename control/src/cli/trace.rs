//! `tapline trace`: says where a frame would go, and why.
//!
//! In: the arguments, and a frame where one is given. Out: every step on standard output.
//! Never: sends a frame, makes a device, or needs a right.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use dataplane::addr::PortId;

use super::Exit;
use super::cluster::ClusterArgs;
use crate::compile::{HOST_PORT, UPLINK_PORT};
use crate::plan;
use crate::trace::network::Network;
use crate::trace::packet::{Payload, Wanted};
use crate::trace::report::Trace;
use crate::trace::{self, Origin, Request, input, words};

const EXAMPLES: &str = "Examples:
  tapline trace --from pod-a --to pod-c                       # the seed's ping, under azure
  tapline trace --plugin kubenet --node node-0 --from pod-a --to 10.244.0.7
  tapline trace --from pod-a --to pod-c --tcp 80 --size 20000
  tapline trace --plugin kubenet --from pod-a --to pod-c --size 4000 --df
  tapline trace --node node-1 --from uplink --to 10.20.0.43 --udp 53
  tcpdump -i eth0 -c 1 -w - | tapline trace --pcap - --port pod-a
  tapline trace --node node-0 --port uplink --hex frame.txt --json

Exit status:
  0  traced, wherever the frame went
  2  the input is at fault, or no such frame would be sent; the message says why";

/// Arguments of `tapline trace`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct TraceArgs {
    #[command(flatten)]
    cluster: ClusterArgs,

    /// The node whose switch the frame meets first; a pod's own without it.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,

    /// Who sends: a pod, host (the node's kernel) or uplink (the network).
    #[arg(long, value_name = "POD|host|uplink", required_unless_present_any = ["hex", "pcap"])]
    from: Option<String>,

    /// To whom: an address, a pod or a node.
    #[arg(long, value_name = "ADDRESS|POD|NODE", requires = "from", required_unless_present_any = ["hex", "pcap"])]
    to: Option<String>,

    /// The IPv6 address of the pod or node that --to names.
    #[arg(long, short = '6', requires = "to")]
    ipv6: bool,

    /// An ICMP echo request; so it is without --tcp and --udp.
    #[arg(long, requires = "to", conflicts_with_all = ["tcp", "udp"])]
    icmp: bool,

    /// TCP to this port: a SYN, or data where --size leaves room for it.
    #[arg(long, value_name = "PORT", requires = "to", conflicts_with = "udp")]
    tcp: Option<u16>,

    /// UDP to this port.
    #[arg(long, value_name = "PORT", requires = "to")]
    udp: Option<u16>,

    /// Bytes of the IP packet. Above the MTU, TCP sends a super-frame, and all else fragments.
    #[arg(long, value_name = "BYTES", requires = "to")]
    size: Option<usize>,

    /// Set the DF bit of IPv4; TCP always does.
    #[arg(long, requires = "to")]
    df: bool,

    /// A frame in hexadecimal digits, a file of them, or - for standard input.
    #[arg(long, value_name = "HEX|FILE|-", conflicts_with_all = ["from", "pcap"], requires = "port")]
    hex: Option<String>,

    /// A frame of a pcap or pcapng file, or - for standard input.
    #[arg(
        long,
        value_name = "FILE|-",
        conflicts_with = "from",
        requires = "port"
    )]
    pcap: Option<PathBuf>,

    /// Which frame of the file, counted from 1.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "pcap", value_parser = frame_number)]
    frame: usize,

    /// Where the given frame comes in: a pod, host or uplink.
    #[arg(long, value_name = "POD|host|uplink", conflicts_with = "from")]
    port: Option<String>,

    /// Print the trace as JSON, alone, on standard output.
    #[arg(long)]
    json: bool,
}

fn frame_number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("frames are counted from 1".to_owned()),
    }
}

/// Runs `tapline trace`.
#[must_use]
pub fn run(args: &TraceArgs) -> Exit {
    match traced(args) {
        Ok(trace) => {
            let text = if args.json {
                serde_json::to_string_pretty(&trace).expect("a trace is always JSON") + "\n"
            } else {
                words::to_text(&trace)
            };
            // A reader that has gone away wants no more of it.
            let _ = io::stdout().lock().write_all(text.as_bytes());
            Exit::Ok
        }
        Err(fault) => {
            eprintln!("{}", fault.trim_end());
            Exit::BadInput
        }
    }
}

fn traced(args: &TraceArgs) -> Result<Trace, String> {
    let cluster = &args.cluster;
    let plan = plan::load(&cluster.options(cluster.plugin)).map_err(|faults| faults.to_string())?;
    let addresses = cluster.addresses(&plan);
    let network = Network::of(&plan, &addresses, cluster.detach_route_table)
        .map_err(|error| error.to_string())?;
    if let (Some(from), Some(to)) = (&args.from, &args.to) {
        let (node, from) = origin(&network, args.node.as_deref(), from)?;
        let request = Request {
            node,
            from,
            to: target(&network, to, args.ipv6)?,
            wanted: wanted(args),
        };
        return trace::trace(&network, &request).map_err(|error| error.to_string());
    }
    let port = args.port.as_deref().unwrap_or_default();
    let (node, origin) = origin(&network, args.node.as_deref(), port)?;
    let (bytes, whole) = given(args)?;
    let port = port_of(&network, &origin);
    Ok(trace::trace_frame(&network, node, port, bytes, whole))
}

fn wanted(args: &TraceArgs) -> Wanted {
    let payload = match (args.tcp, args.udp) {
        (Some(port), _) => Payload::Tcp(port),
        (None, Some(port)) => Payload::Udp(port),
        (None, None) => Payload::Icmp,
    };
    Wanted {
        payload,
        size: args.size,
        dont_fragment: args.df,
    }
}

/// The node and what sends there, by their names.
fn origin(network: &Network, node: Option<&str>, name: &str) -> Result<(usize, Origin), String> {
    let names = || network.nodes.iter().map(|node| node.plan.name.as_str());
    let at = node.map(|wanted| {
        let same =
            |node: &plan::Node| node.name == wanted || node.hostname.as_deref() == Some(wanted);
        let at = network.nodes.iter().position(|node| same(&node.plan));
        let all = || names().collect::<Vec<_>>().join(", ");
        at.ok_or_else(|| {
            format!(
                "--node {wanted}: there is no such node; there are {}",
                all()
            )
        })
    });
    let at = at.transpose()?;
    let of = match name {
        "host" => Origin::Host,
        "uplink" => Origin::Uplink,
        pod => Origin::Pod(pod.to_owned()),
    };
    if let Origin::Pod(pod) = &of {
        let Some((home, _)) = network.pod(pod) else {
            let pods: Vec<&str> = network.pods().map(|(_, pod)| pod.name).collect();
            let pods = pods.join(", ");
            return Err(format!(
                "{pod}: there is no such pod; there are {pods}, and host and uplink"
            ));
        };
        if at.is_some_and(|at| at != home) {
            let home = &network.nodes[home].plan.name;
            return Err(format!("{pod} is on {home}, not on {}", node.unwrap_or("")));
        }
        return Ok((home, of));
    }
    let at = at.ok_or_else(|| format!("{name}: say of which node, with --node"))?;
    Ok((at, of))
}

fn port_of(network: &Network, origin: &Origin) -> PortId {
    match origin {
        Origin::Host => HOST_PORT,
        Origin::Uplink => UPLINK_PORT,
        Origin::Pod(name) => {
            let (_, pod) = network.pod(name).expect("its name was looked up before");
            pod.port.port
        }
    }
}

/// An address, or the address of a pod or node.
fn target(network: &Network, text: &str, ipv6: bool) -> Result<IpAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let addresses: Vec<IpAddr> = match network.pod(text) {
        Some((_, pod)) => pod.port.addresses.clone(),
        None => {
            let node = network.nodes.iter().find(|node| node.plan.name == text);
            let node = node.ok_or_else(|| {
                format!("--to {text}: neither an address nor a pod or node of this cluster")
            })?;
            let v6 = node.plan.primary_ip_v6.map(IpAddr::V6);
            [node.plan.primary_ip.into()]
                .into_iter()
                .chain(v6)
                .collect()
        }
    };
    let wanted = addresses.into_iter().find(|a| a.is_ipv6() == ipv6);
    let family = if ipv6 { "IPv6" } else { "IPv4" };
    wanted.ok_or_else(|| format!("--to {text}: it has no {family} address"))
}

/// The frame that was given, and how long it was when it was captured.
fn given(args: &TraceArgs) -> Result<(Vec<u8>, usize), String> {
    if let Some(path) = &args.pcap {
        let said = |error: input::BadInput| format!("{}: {error}", path.display());
        let file = open(path).map_err(|error| said(error.into()))?;
        let captured = input::from_pcap(file, args.frame).map_err(said)?;
        return Ok((captured.bytes, captured.whole));
    }
    let hex = args.hex.as_deref().unwrap_or_default();
    let path = Path::new(hex);
    let (name, text) = if hex == "-" || path.is_file() {
        let mut text = String::new();
        let read = open(path).and_then(|mut file| file.read_to_string(&mut text));
        read.map_err(|error| format!("{hex}: {error}"))?;
        (hex, text)
    } else {
        ("--hex", hex.to_owned())
    };
    let bytes = input::from_hex(&text).map_err(|error| format!("{name}: {error}"))?;
    let whole = bytes.len();
    Ok((bytes, whole))
}

fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(File::open(path)?))
}
