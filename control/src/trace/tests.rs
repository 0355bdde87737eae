//! Frames as kernels make them, and ways that the command line does not show.
//!
//! In: senders, sizes, and the built-in example. Out: facts about frames and traces.
//! Never: the words; `control/tests/trace_cli.rs` has them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane::addr::Mac;
use dataplane::frame::checksum::checksum;
use dataplane::frame::{FrameView, Network as Header};
use dataplane::segment::Cut;

use super::network::Network;
use super::packet::{Built, Payload, Refused, Sender, Wanted, build};
use super::report::Trace;
use super::*;
use crate::plan::{LoadOptions, load};

const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const TO: Mac = Mac::new([2, 0, 0, 0, 0, 2]);
const MTU: usize = 1500;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn built(v6: bool, payload: Payload, size: Option<usize>, df: bool) -> Result<Built, Refused> {
    let (from, to) = if v6 {
        ("fd00::1", "fd00::2")
    } else {
        ("10.0.0.1", "10.0.0.2")
    };
    let sender = Sender {
        mac: MAC,
        address: ip(from),
        mtu: MTU,
    };
    let wanted = Wanted {
        payload,
        size,
        dont_fragment: df,
    };
    build(&sender, TO, ip(to), &wanted)
}

#[test]
fn every_packet_is_as_long_as_asked_and_sound() {
    for v6 in [false, true] {
        for payload in [Payload::Icmp, Payload::Tcp(80), Payload::Udp(53)] {
            for size in [60, 61, 100, 576, 1499, 1500] {
                let frame = built(v6, payload, Some(size), false)
                    .expect("it fits")
                    .frame;
                assert_eq!(frame.bytes.len(), 14 + size);
                assert_eq!(frame.offload, Offload::NONE);
                let view = FrameView::parse(&frame.bytes).expect("a frame");
                match view.network() {
                    Header::Ipv4(ip) => {
                        assert_eq!(usize::from(ip.total_len), size);
                        assert_eq!(ip.dont_fragment, payload == Payload::Tcp(80));
                    }
                    Header::Ipv6(ip) => assert_eq!(usize::from(ip.payload_len), size - 40),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn tcp_above_the_mtu_is_a_super_frame_that_can_be_cut() {
    for (v6, headers) in [(false, 40), (true, 60)] {
        for size in [1501, 20_000, 65_535] {
            let built = built(v6, Payload::Tcp(80), Some(size), false).expect("it fits");
            let frame = &built.frame;
            let kind = FrameView::parse(&frame.bytes).expect("sound").kind;
            let fits = frame.offload.fits(frame.bytes.len(), kind);
            assert!(frame.offload.is_super_frame() && fits);
            let cut = Cut::plan(&frame.bytes, frame.offload).expect("the headers agree");
            assert_eq!(cut.pieces(), (size - headers).div_ceil(MTU - headers));
            assert_eq!(cut.piece_len_max(), 14 + MTU);
            assert!(built.notes[0].contains(&format!("{} segments", cut.pieces())));
        }
    }
}

#[test]
fn all_else_above_the_mtu_is_a_first_fragment_or_refused() {
    for payload in [Payload::Icmp, Payload::Udp(53)] {
        let built_v4 = built(false, payload, Some(4000), false).expect("it is cut");
        assert!(
            built_v4.notes[0].contains("3 fragments"),
            "{:?}",
            built_v4.notes
        );
        let bytes = &built_v4.frame.bytes;
        assert_eq!(checksum(&bytes[14..34]), 0, "the header's sum is mended");
        let Header::Ipv4(ip) = FrameView::parse(bytes).expect("a frame").network() else {
            panic!("no IPv4 packet");
        };
        assert!(ip.more_fragments && ip.fragment_offset == 0 && !ip.dont_fragment);
        assert_eq!((usize::from(ip.total_len), bytes.len()), (MTU, 14 + MTU));
        let bytes = built(true, payload, Some(4000), false)
            .expect("it is cut")
            .frame
            .bytes;
        // 40 of header, 8 of the fragment header, 1448 of the 3960 behind it.
        assert_eq!((bytes[14 + 6], bytes.len()), (44, 14 + 40 + 8 + 1448));
        let Header::Ipv6(ip) = FrameView::parse(&bytes).expect("a frame").network() else {
            panic!("no IPv6 packet");
        };
        assert_eq!(usize::from(ip.payload_len), 8 + 1448);
        assert_eq!(
            built(false, payload, Some(4000), true),
            Err(Refused::TooLong(4000, MTU))
        );
    }
}

#[test]
fn a_size_that_no_packet_has_is_refused() {
    for (v6, payload, size, headers) in [
        (false, Payload::Icmp, 27, 28),
        (false, Payload::Tcp(1), 39, 40),
        (true, Payload::Udp(1), 47, 48),
        (true, Payload::Icmp, 65_536, 48),
        (false, Payload::Tcp(1), usize::MAX, 40),
    ] {
        let refused = Err(Refused::Size(size, headers));
        assert_eq!(built(v6, payload, Some(size), false), refused);
    }
}

fn network(options: LoadOptions, plugin: Plugin) -> Network {
    let plugin = Some(plugin);
    let plan = load(&LoadOptions { plugin, ..options }).expect("the example holds");
    Network::of(&plan, &BTreeMap::new(), false).expect("it can be built")
}

fn traced(network: &Network, from: &str, to: IpAddr, size: Option<usize>) -> Trace {
    let (node, _) = network.pod(from).expect("the lab places it");
    let wanted = Wanted {
        payload: Payload::Tcp(80),
        size,
        dont_fragment: false,
    };
    let from = Origin::Pod(from.to_owned());
    let request = Request {
        node,
        from,
        to,
        wanted,
    };
    trace(network, &request).expect("a frame is sent")
}

/// Every pod reaches every other, in both plugins, in each family, with small and super-frames.
#[test]
fn every_pod_reaches_every_other() {
    for (network, across) in [
        (network(LoadOptions::built_in(), Plugin::Azure), 64),
        (network(LoadOptions::built_in(), Plugin::Kubenet), 62),
        (
            network(LoadOptions::built_in_dual_stack(), Plugin::Kubenet),
            62,
        ),
    ] {
        for (from_node, from) in network.pods() {
            for (to_node, to) in network.pods().filter(|(_, to)| to.name != from.name) {
                for address in &to.port.addresses {
                    for size in [None, Some(20_000)] {
                        let trace = traced(&network, from.name, *address, size);
                        let ttl = trace.end.frame.as_ref().and_then(|frame| frame.ttl);
                        let expected = if from_node == to_node { 64 } else { across };
                        assert_eq!(trace.end.outcome, "delivered", "{trace:#?}");
                        assert_eq!(
                            (trace.end.at.as_slice(), ttl),
                            (&[to.name.to_owned()][..], Some(expected))
                        );
                        let hops = if from_node == to_node { 1 } else { 3 };
                        assert_eq!(trace.hops.len(), hops);
                    }
                }
            }
        }
    }
}

#[test]
fn a_capture_that_was_cut_is_filled_up_and_a_long_tcp_frame_is_a_super_frame() {
    let network = network(LoadOptions::built_in(), Plugin::Kubenet);
    let (at, pod) = network.pod("pod-a").expect("the lab places it");
    let (_, far) = network.pod("pod-c").expect("the lab places it");
    let sender = Sender {
        mac: pod.end.mac,
        address: pod.port.addresses[0],
        mtu: 65_535,
    };
    let wanted = Wanted {
        payload: Payload::Tcp(80),
        size: Some(20_000),
        dont_fragment: false,
    };
    let router = network.nodes[at].macs.host.mac();
    let whole = build(&sender, router, far.port.addresses[0], &wanted)
        .expect("sound")
        .frame;
    let len = whole.bytes.len();
    let cut = whole.bytes[..96].to_vec();
    let trace = trace_frame(&network, at, pod.port.port, cut, len);
    assert!(
        trace.notes[0].contains("cut to 96 of 20014 bytes"),
        "{:?}",
        trace.notes
    );
    assert!(trace.notes[1].contains("14 segments"), "{:?}", trace.notes);
    assert_eq!(trace.end.outcome, "delivered", "{trace:#?}");
}
