//! Our segmentation beside the kernel's: the same super-frame, cut by both, byte for byte.
//!
//! In: the right to make a network namespace.
//! Out: super-frames written to a TAP whose ingress is redirected to a second TAP, which has no
//! offloads, so that the kernel finishes them before it hands them over.
//! Never: leaves a device behind: both TAPs die with their descriptors.
//!
//! What is compared is everything, and there is no field that may differ, and one frame that may: a
//! TCP frame called a super-frame whose payload fits one segment, but not together with its TCP
//! options. Reading the header, the kernel takes options for payload
//! (`virtio_net_hdr_to_skb`) and believes it; cutting, it finds nothing to cut and drops the frame
//! without a word. No kernel sends such a frame. We complete it. The kernel counts the
//! IPv4 identification up with each segment, DF or not, as we do; only frames that it put
//! together itself from wire frames of one identification (`SKB_GSO_TCP_FIXEDID`) keep it, and the
//! virtio-net header cannot say that of a frame, so a TAP never takes one so.

use std::time::Duration;

use control::devices::name::DeviceName;
use control::devices::netlink::Netlink;
use control::devices::netlink::filter::{Deed, Match, Rule};
use control::devices::netns::Netns;
use dataplane::buffer::{FRAME_MAX, Pool};
use dataplane::frame::checksum::sum;
use dataplane::frame::offload::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, Offload};
use dataplane::port::Port;
use dataplane::port::tap::{Queues, TapPort};
use dataplane::segment::{Cut, complete};
use dataplane::verdict::DropReason;
use etherparse::{PacketBuilder, TcpHeader};
use tokio_tun::{Tun, TunBuilder};

const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const TARGET: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

/// Longer than the kernel ever needs to hand a frame from one TAP to the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// Two TAPs of one namespace: what is written to the first is finished and read from the second.
struct Kernel {
    runtime: tokio::runtime::Runtime,
    entry: TapPort,
    exit: Tun,
    pool: Pool,
}

impl Kernel {
    fn new() -> Kernel {
        let ns = Netns::create("segmentation").unwrap_or_else(|error| {
            panic!("this test makes a network namespace, which was refused: {error}")
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let entry = ns
            .run(|| TapPort::open("entry", Queues::Single))
            .expect("a TAP with the virtio-net header");
        let exit = ns
            .run(|| {
                let _inside = runtime.enter();
                let taps = TunBuilder::new().name("exit").tap().up().build();
                Ok(taps.expect("a TAP").remove(0))
            })
            .expect("a namespace");
        let net = Netlink::open(&ns).expect("netlink");
        let name = |text| DeviceName::new(text).expect("a name");
        net.set_up(&name("entry"), true).expect("up");
        net.ensure_clsact(&name("entry")).expect("clsact");
        let rule = Rule {
            frames: Match::Every,
            deed: Deed::Redirect(net.index(&name("exit")).expect("an index")),
        };
        net.set_rules(&name("entry"), &[rule])
            .expect("u32 and mirred");
        net.set_tx_queue_length(&name("exit"), 2000)
            .expect("a ring");
        Kernel {
            runtime,
            entry,
            exit,
            pool: Pool::new(1, FRAME_MAX),
        }
    }

    fn offer(&mut self, bytes: &[u8], offload: Offload) -> Result<(), DropReason> {
        let mut frame = self.pool.take().expect("the only slot");
        self.pool.room(&frame)[..bytes.len()].copy_from_slice(bytes);
        frame.set_len(bytes.len());
        frame.offload = offload;
        let mut flushed = Vec::new();
        let taken = self.entry.transmit(&frame, &mut self.pool);
        self.entry.flush(&mut self.pool, &mut flushed);
        self.pool.release(frame);
        flushed.pop().map_or(taken.map(drop), |late| late.outcome)
    }

    /// The next frame of ours; the kernel sends some of its own by a TAP that is up.
    fn next(&self, patience: Duration) -> Option<Vec<u8>> {
        let mut buffer = vec![0; FRAME_MAX];
        loop {
            let read = async { tokio::time::timeout(patience, self.exit.recv(&mut buffer)).await };
            let len = self.runtime.block_on(read).ok()?.expect("the TAP lives");
            if buffer[6..12] == SENDER {
                return Some(buffer[..len].to_vec());
            }
        }
    }

    fn finished(&mut self, bytes: &[u8], offload: Offload, expected: usize) -> Vec<Vec<u8>> {
        self.offer(bytes, offload).expect("the kernel takes it");
        (0..expected).map_while(|_| self.next(PATIENCE)).collect()
    }
}

/// What we make of it.
fn ours(bytes: &[u8], offload: Offload) -> Vec<Vec<u8>> {
    if offload.is_super_frame() {
        let cut = Cut::plan(bytes, offload).expect("sound");
        if cut.pieces() > 1 {
            return (0..cut.pieces())
                .map(|index| {
                    let mut room = vec![0; cut.piece_len_max()];
                    let len = cut.write(bytes, index, &mut room);
                    room.truncate(len);
                    room
                })
                .collect();
        }
    }
    let mut whole = bytes.to_vec();
    complete(&mut whole, offload).expect("sound");
    vec![whole]
}

/// One case: a packet, and what is undone about it.
#[derive(Clone, Copy, Debug)]
struct Case {
    ipv6: bool,
    tcp: bool,
    tagged: bool,
    flags: u8,
    ecn: bool,
    payload: usize,
    gso_size: u16,
}

impl Case {
    fn frame(&self) -> (Vec<u8>, Offload) {
        let payload: Vec<u8> = (0..self.payload)
            .map(|at| (at * 7 + at / 256) as u8)
            .collect();
        let ethernet = PacketBuilder::ethernet2(SENDER, TARGET);
        let id = 0xfffe;
        let mut ip = etherparse::Ipv4Header::new(
            0,
            64,
            etherparse::IpNumber::TCP,
            [10, 0, 0, 1],
            [10, 0, 0, 2],
        )
        .expect("no payload yet");
        ip.identification = id;
        let six = |at: u8| {
            let mut address = [0xfd; 16];
            address[15] = at;
            address
        };
        let packet = if self.ipv6 {
            ethernet.ipv6(six(1), six(2), 64)
        } else {
            ethernet.ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
        };
        let mut bytes = Vec::new();
        let written = if self.tcp {
            packet
                .tcp_header(self.tcp_header())
                .write(&mut bytes, &payload)
        } else {
            packet.udp(5000, 53).write(&mut bytes, &payload)
        };
        written.expect("writing to a vector cannot fail");
        self.undo(bytes)
    }

    fn tcp_header(&self) -> TcpHeader {
        let mut tcp = TcpHeader::new(4000, 80, 0xffff_f000, 4096);
        let bit = |at: u8| self.flags & (1 << at) != 0;
        (tcp.fin, tcp.psh, tcp.ack, tcp.ece, tcp.cwr) = (bit(0), bit(3), bit(4), bit(6), bit(7));
        tcp.acknowledgment_number = 77;
        tcp.set_options_raw(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8])
            .expect("timestamps");
        tcp
    }

    /// Takes the checksum out again, and puts the tag in.
    fn undo(&self, mut bytes: Vec<u8>) -> (Vec<u8>, Offload) {
        let (addresses, start) = if self.ipv6 {
            (22..54, 54)
        } else {
            (26..34, 34)
        };
        let (protocol, at) = if self.tcp { (6, 16) } else { (17, 6) };
        let len = (bytes.len() - start) as u32;
        let partial = sum(&bytes[addresses], protocol + len);
        bytes[start + at..start + at + 2].copy_from_slice(&partial.to_be_bytes());
        let mut start = start;
        if self.tagged {
            bytes.splice(12..12, [0x81, 0, 0x20, 5]);
            start += 4;
        }
        let kind = match (self.tcp, self.ipv6) {
            _ if self.gso_size == 0 => 0,
            (true, false) => GSO_TCPV4,
            (true, true) => GSO_TCPV6,
            (false, _) => GSO_UDP_L4,
        };
        let header = if self.tcp { 32 } else { 8 };
        let offload = Offload {
            flags: NEEDS_CSUM,
            gso_type: kind | if self.ecn && kind != 0 { GSO_ECN } else { 0 },
            hdr_len: (start + header) as u16,
            gso_size: self.gso_size,
            csum_start: start as u16,
            csum_offset: at as u16,
        };
        (bytes, offload)
    }
}

fn compare(kernel: &mut Kernel, case: Case) {
    let (bytes, offload) = case.frame();
    let ours = ours(&bytes, offload);
    let theirs = kernel.finished(&bytes, offload, ours.len());
    assert_eq!(theirs.len(), ours.len(), "{case:?}: pieces");
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let differs = (0..ours.len().max(theirs.len())).find(|at| ours.get(*at) != theirs.get(*at));
        assert!(
            differs.is_none(),
            "{case:?}: piece {index} differs at byte {differs:?}\nours   {:02x?}\nkernel {:02x?}",
            &ours[..ours.len().min(90)],
            &theirs[..theirs.len().min(90)]
        );
    }
}

#[test]
fn the_kernel_cuts_every_super_frame_into_the_same_segments() {
    let mut kernel = Kernel::new();
    let mut compared = 0;
    for (ipv6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        for (payload, gso_size) in [
            (2897usize, 1448u16),
            (2896, 1448),
            (1449, 1448),
            (1430, 1448),
            (1, 1448),
            (60_001, 1400),
            (64_000, 8_948),
            (5_001, 536),
            (999, 333),
            (6_400, 51),
        ] {
            for flags in [0x10u8, 0x18, 0x19, 0xd9, 0x90] {
                for (ecn, tagged) in [(false, false), (true, false), (false, true)] {
                    let fits_udp = payload.div_ceil(usize::from(gso_size)) <= 128;
                    // UDP has no flags to vary.
                    if tcp || (flags == 0x10 && !ecn && fits_udp) {
                        compare(
                            &mut kernel,
                            Case {
                                ipv6,
                                tcp,
                                tagged,
                                flags,
                                ecn,
                                payload,
                                gso_size,
                            },
                        );
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(
        kernel.next(Duration::from_millis(50)).is_none(),
        "more pieces than ours"
    );
    assert!(compared > 300, "{compared}");
}

#[test]
fn the_kernel_completes_every_checksum_the_same_way() {
    let mut kernel = Kernel::new();
    for (ipv6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        for payload in [1, 2, 99, 1400, 1401] {
            for tagged in [false, true] {
                compare(
                    &mut kernel,
                    Case {
                        ipv6,
                        tcp,
                        tagged,
                        flags: 0x18,
                        ecn: false,
                        payload,
                        gso_size: 0,
                    },
                );
            }
        }
    }
    // Sums of zero: the last two bytes are chosen so that the sum comes out as all ones.
    for (ipv6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        let case = Case {
            ipv6,
            tcp,
            tagged: false,
            flags: 0x10,
            ecn: false,
            payload: 100,
            gso_size: 0,
        };
        let (mut bytes, offload) = case.frame();
        let end = bytes.len();
        bytes[end - 2..].fill(0);
        let rest = !sum(&bytes[offload.csum_start.into()..], 0);
        bytes[end - 2..].copy_from_slice(&rest.to_be_bytes());
        let ours = ours(&bytes, offload);
        assert_eq!(kernel.finished(&bytes, offload, 1), ours, "{case:?}");
        let at = usize::from(offload.csum_start + offload.csum_offset);
        assert_eq!(ours[0][at..at + 2], [0xff, 0xff]);
    }
}

#[test]
fn a_segment_called_a_super_frame_is_completed_here_and_lost_there() {
    let mut kernel = Kernel::new();
    for (ipv6, payload) in [(false, 1437), (false, 1448), (true, 1437), (true, 1448)] {
        let case = Case {
            ipv6,
            tcp: true,
            tagged: false,
            flags: 0x18,
            ecn: false,
            payload,
            gso_size: 1448,
        };
        let (bytes, offload) = case.frame();
        kernel.offer(&bytes, offload).expect("it seems sound");
        assert_eq!(kernel.next(Duration::from_millis(30)), None, "{case:?}");
        let plain = Case {
            gso_size: 0,
            ..case
        };
        let completed = kernel.finished(&bytes, plain.frame().1, 1);
        assert_eq!(completed, ours(&bytes, offload));
    }
}

#[test]
fn the_kernel_refuses_the_headers_that_we_refuse() {
    let mut kernel = Kernel::new();
    let case = Case {
        ipv6: false,
        tcp: false,
        tagged: false,
        flags: 0,
        ecn: false,
        payload: 3000,
        gso_size: 1000,
    };
    let (bytes, offload) = case.frame();
    let lies = [
        Offload {
            gso_size: 0,
            ..offload
        },
        Offload {
            flags: 0,
            ..offload
        },
        Offload {
            csum_offset: 16,
            ..offload
        },
        Offload {
            gso_size: 20,
            ..offload
        },
        Offload {
            gso_type: 7,
            ..offload
        },
    ];
    for lie in lies {
        assert_eq!(
            Cut::plan(&bytes, lie),
            Err(DropReason::BadOffload),
            "{lie:?}"
        );
        assert_eq!(
            kernel.offer(&bytes, lie),
            Err(DropReason::BadOffload),
            "{lie:?}"
        );
    }
}
