//! What a router refuses, rule by rule: RFC 1812, RFC 8200 and their kin, on a dual-stack node.

use super::errors::{IN, OUT, dual, told, udp};
use super::*;
use crate::frame::checksum::checksum;

/// A packet of pod A's, by way of the gateway.
fn out(source: &str, target: &str) -> Vec<u8> {
    udp(OUT, source, target, 64, 20)
}

/// The same with IPv4 options, a multiple of four bytes.
fn with_options(mut frame: Vec<u8>, options: &[u8]) -> Vec<u8> {
    let at = 14 + 20;
    frame.splice(at..at, options.iter().copied());
    frame[14] += (options.len() / 4) as u8;
    frame[17] += options.len() as u8;
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..at + options.len()]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The same with one IPv6 extension header of eight bytes, which names no next header itself.
fn with_extension(mut frame: Vec<u8>, kind: u8, rest: [u8; 7]) -> Vec<u8> {
    let next = std::mem::replace(&mut frame[14 + 6], kind);
    frame.splice(54..54, [next].into_iter().chain(rest));
    frame[14 + 5] += 8;
    frame
}

const POD_V4: &str = "10.244.1.6";
const FAR_V4: &str = "10.244.2.7";
const POD_V6: &str = "fd00:0:0:1::6";
const FAR_V6: &str = "fd00:0:0:2::7";

#[test]
fn what_may_not_be_routed_dies_in_silence() {
    use DropReason::*;
    let rows = [
        ("RFC 1812 5.3.7", out("0.0.0.0", FAR_V4), MartianSource),
        ("RFC 1812 5.3.7", out("127.0.0.1", FAR_V4), MartianSource),
        ("RFC 1812 5.3.7", out("224.0.0.5", FAR_V4), MartianSource),
        (
            "RFC 1112 section 4",
            out("240.0.0.1", FAR_V4),
            MartianSource,
        ),
        (
            "RFC 1812 5.3.7",
            out("255.255.255.255", FAR_V4),
            MartianSource,
        ),
        ("RFC 1812 5.3.7", out("10.244.1.255", FAR_V4), MartianSource),
        ("RFC 1812 5.2.3", out(POD_V4, "0.0.0.1"), NotRoutable),
        ("CVE-2020-8558", out(POD_V4, "127.0.0.1"), NotRoutable),
        ("RFC 1812 5.2.3", out(POD_V4, "224.0.0.5"), NotRoutable),
        ("RFC 1112 section 4", out(POD_V4, "240.0.0.1"), NotRoutable),
        (
            "RFC 1812 5.3.5.1",
            out(POD_V4, "255.255.255.255"),
            NotRoutable,
        ),
        ("RFC 3927 7", out("169.254.3.4", FAR_V4), NotRoutable),
        ("RFC 2644", out(POD_V4, "10.244.1.255"), DirectedBroadcast),
        ("RFC 4291 2.5.2", out("::", FAR_V6), MartianSource),
        ("RFC 4291 2.5.3", out("::1", FAR_V6), MartianSource),
        ("RFC 4291 2.7", out("ff02::1", FAR_V6), MartianSource),
        ("RFC 6890", out("::ffff:10.0.0.1", FAR_V6), MartianSource),
        ("RFC 4291 2.5.2", out(POD_V6, "::"), NotRoutable),
        ("RFC 4291 2.5.3", out(POD_V6, "::1"), NotRoutable),
        ("RFC 4291 2.7", out(POD_V6, "ff0e::1"), NotRoutable),
        ("RFC 6890", out(POD_V6, "::ffff:10.0.0.1"), NotRoutable),
    ];
    for (rule, frame, reason) in rows {
        println!("{rule}: {reason}");
        Rig::new(&dual()).dies(A, &frame, reason);
    }
    let directed = udp(IN, FAR_V4, "10.244.1.255", 64, 20);
    Rig::new(&dual()).dies(UPLINK, &directed, DirectedBroadcast);
    let scoped = udp(IN, FAR_V6, "fe80::1", 64, 20);
    Rig::new(&dual()).dies(UPLINK, &scoped, NotRoutable);
}

#[test]
fn the_link_local_talk_of_a_pod_and_its_node_is_not_routed() {
    for (source, target) in [
        ("fe80::6", "fe80::1"),
        ("fe80::6", "fd00:0:0:1::1"),
        (POD_V6, "fe80::1"),
    ] {
        let seen = Rig::new(&dual()).goes(A, &udp(OUT, source, target, 255, 20), HOST);
        let Network::Ipv6(packet) = seen.network else {
            panic!("not IPv6");
        };
        assert_eq!((seen.target, packet.hop_limit), (GATEWAY, 255));
    }
}

#[test]
fn a_link_local_source_that_wants_out_hears_that_it_is_beyond_its_scope() {
    let frame = out("fe80::6", FAR_V6);
    let told = told(&mut Rig::new(&dual()), A, &frame, DropReason::BeyondScope);
    assert_eq!(told.kind, (1, 2), "RFC 4443 3.1");
}

#[test]
fn the_gateway_answers_pings_itself_in_both_families() {
    for target in ["10.244.1.1", "fd00:0:0:1::1"] {
        let source = if target.contains(':') { POD_V6 } else { POD_V4 };
        let mut rig = Rig::new(&dual());
        let seen = rig.goes(A, &udp(OUT, source, target, 1, 20), HOST);
        assert_eq!(seen.target, GATEWAY, "the kernel has it, with its last hop");
    }
}

#[test]
fn options_that_a_router_need_not_read_pass_as_they_are() {
    let record_route = [7, 7, 4, 0, 0, 0, 0, 0];
    let timestamp = [68, 8, 5, 0, 0, 0, 0, 0];
    let router_alert = [148, 4, 0, 0];
    for options in [&record_route[..], &timestamp, &router_alert, &[1, 1, 1, 0]] {
        let frame = with_options(out(POD_V4, FAR_V4), options);
        let (counts, seen) = Rig::new(&dual()).put(A, &frame);
        assert_eq!((counts.transmitted, seen[0].0), (1, UPLINK));
        assert_eq!(seen[0].1[34..], frame[34..], "options and payload");
    }
    for rest in [[0, 5, 2, 0, 0, 1, 0], [0, 0x1e, 4, 1, 2, 3, 4]] {
        let frame = with_extension(out(POD_V6, FAR_V6), 0, rest);
        let (counts, seen) = Rig::new(&dual()).put(A, &frame);
        assert_eq!((counts.transmitted, seen[0].0), (1, UPLINK));
    }
}

#[test]
fn a_source_route_is_refused() {
    for kind in [131, 137] {
        let options = [kind, 7, 4, 10, 0, 0, 1, 0];
        let frame = with_options(out(POD_V4, FAR_V4), &options);
        Rig::new(&dual()).dies(A, &frame, DropReason::SourceRouted);
        let to_kernel = with_options(out(POD_V4, "10.0.0.10"), &options);
        Rig::new(&dual()).goes(A, &to_kernel, HOST);
    }
    let frame = with_extension(out(POD_V6, FAR_V6), 43, [0, 0, 1, 0, 0, 0, 0]);
    let told = told(&mut Rig::new(&dual()), A, &frame, DropReason::SourceRouted);
    assert_eq!(
        told.kind,
        (1, 1),
        "administratively prohibited, RFC 4443 3.1"
    );
}

#[test]
fn bad_options_are_told_with_the_byte_that_is_bad() {
    let frame = with_options(out(POD_V4, FAR_V4), &[1, 7, 9, 4]);
    let malformed = DropReason::MalformedOptions;
    let v4 = told(&mut Rig::new(&dual()), A, &frame, malformed);
    assert_eq!((v4.kind, v4.word), ((12, 0), 21 << 24), "RFC 792");

    let unknown = with_extension(out(POD_V6, FAR_V6), 0, [0, 0x9e, 4, 1, 2, 3, 4]);
    let v6 = told(
        &mut Rig::new(&dual()),
        A,
        &unknown,
        DropReason::UnknownOption,
    );
    assert_eq!((v6.kind, v6.word), ((4, 2), 42), "RFC 4443 3.4");

    let silent = with_extension(out(POD_V6, FAR_V6), 0, [0, 0x5e, 4, 1, 2, 3, 4]);
    Rig::new(&dual()).dies(A, &silent, DropReason::UnknownOption);
    let cut_short = with_extension(out(POD_V6, FAR_V6), 0, [0, 0x1e, 5, 1, 2, 3, 4]);
    Rig::new(&dual()).dies(A, &cut_short, malformed);
}

#[test]
fn a_bridge_reads_no_options() {
    let frame = with_options(
        udp((POD_A, FABRIC), "10.20.0.31", "10.20.0.43", 64, 20),
        &[131, 7, 4, 10, 0, 0, 1, 0],
    );
    Rig::new(&azure()).goes(A, &frame, UPLINK);
}

#[test]
fn the_last_hop_ends_before_an_address_without_a_pod() {
    for (source, target) in [(POD_V4, "10.244.1.99"), (POD_V6, "fd00:0:0:1::99")] {
        let frame = udp(OUT, source, target, 1, 20);
        told(&mut Rig::new(&dual()), A, &frame, DropReason::TtlExpired);
    }
}

#[test]
fn a_segment_is_measured_with_all_headers_that_it_repeats() {
    // Behind eight bytes of destination options: 40 + 8 + 20 + gso_size.
    for (gso_size, reason) in [(1332, None), (1333, Some(DropReason::TooBig))] {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(POD_A.octets(), GATEWAY.octets())
            .ipv6(
                POD_V6.parse::<std::net::Ipv6Addr>().expect("one").octets(),
                FAR_V6.parse::<std::net::Ipv6Addr>().expect("one").octets(),
                64,
            )
            .tcp(1, 2, 3, 4)
            .write(&mut frame, &[7; 4000])
            .expect("a vector takes every write");
        let len = u16::from_be_bytes([frame[18], frame[19]]) + 8;
        frame[18..20].copy_from_slice(&len.to_be_bytes());
        let next = std::mem::replace(&mut frame[20], 60);
        frame.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
        let offload = Offload {
            flags: NEEDS_CSUM,
            gso_type: crate::frame::offload::GSO_TCPV6,
            hdr_len: 82,
            gso_size,
            csum_start: 62,
            csum_offset: 16,
        };
        let (counts, _) = Rig::new(&dual()).put_with(A, &frame, offload);
        let expected = reason.map_or(Drops::default(), Drops::one);
        assert_eq!(counts.dropped, expected, "{gso_size}");
    }
}

proptest::proptest! {
    /// Whatever comes in, and whatever it dies of: no answer is about an error, and none goes to
    /// nobody.
    #[test]
    fn no_error_is_answered_with_an_error(
        kind in 0u8.., code in 0u8.., hops in 0u8..3, v6: bool, options in 0u8..4,
        bytes in proptest::collection::vec(0u8.., 0..40),
    ) {
        let (source, target) = if v6 { (POD_V6, FAR_V6) } else { (POD_V4, FAR_V4) };
        let mut frame = udp(OUT, source, target, hops, 4);
        let message = [&[kind, code, 0, 0][..], &bytes].concat();
        let (protocol_at, payload_at) = if v6 { (20, 54) } else { (23, 34) };
        frame[protocol_at] = if v6 { 58 } else { 1 };
        frame.truncate(payload_at);
        frame.extend(&message);
        if v6 {
            frame[19] = message.len() as u8;
            for _ in 0..options {
                frame = with_extension(frame, 60, [0, 1, 4, 0, 0, 0, 0]);
            }
        } else {
            frame[17] = 20 + message.len() as u8;
            frame = with_options(frame, &vec![1; usize::from(options) * 4]);
        }
        let (counts, out) = Rig::new(&dual()).put(A, &frame);
        // Neighbour discovery is never routed: with fewer than 255 hops it crossed a router, and
        // dies before any hop is counted (RFC 4861 7.1). Behind an extension header it is a packet
        // like others.
        if v6 && options == 0 && matches!(kind, 135 | 136) {
            proptest::prop_assert_eq!((counts.originated, out.len()), (0, 0));
            return Ok(());
        }
        let question = if v6 { kind >= 128 && kind != 137 } else { matches!(kind, 0 | 8..=10 | 13..=18) };
        let expires = hops < 2;
        proptest::prop_assert_eq!(counts.originated, u64::from(expires && question));
        proptest::prop_assert_eq!(out.len(), usize::from(!expires || question));
    }
}
