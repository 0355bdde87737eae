//! What a sender is told of a frame that died here: RFC 1812 4.3 and RFC 4443, on a dual-stack
//! node.

use super::*;
use std::net::Ipv6Addr;

fn ip6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

/// kubenet with both families. The link of pod B takes 1300 bytes, the uplink 1400.
pub(super) fn dual() -> TablesSpec {
    let station = |id, mac| NextHop::Station {
        port: port(id),
        mac,
    };
    let mut spec = kubenet();
    let both = |v4: &str, v6: &str| Addresses {
        v4: Some(ip(v4)),
        v6: Some(ip6(v6)),
    };
    spec.crossing = Crossing::Routed {
        uplink: both("10.20.0.4", "2001:db8::4"),
        gateway: both("10.244.1.1", "fd00:0:0:1::1"),
    };
    spec.routes.extend([
        (net("fd00:0:0:1::6/128"), station(A, POD_A)),
        (net("fd00:0:0:1::7/128"), station(B, POD_B)),
        (net("fd00:0:0:1::1/128"), NextHop::Host),
        (net("fe80::/10"), NextHop::Host),
        (net("fd00:0:0:1::/64"), NextHop::Unreachable),
        (net("fd00:0:0:2::/64"), station(UPLINK, FABRIC)),
        (net("10.244.2.0/24"), station(UPLINK, FABRIC)),
    ]);
    spec.ports[UPLINK].mtu = 1400;
    spec.ports[B].mtu = 1300;
    spec
}

/// UDP from `source` to `target`, both of one family, with the DF bit set where there is one.
pub(super) fn udp(
    macs: (Mac, Mac),
    source: &str,
    target: &str,
    hops: u8,
    payload: usize,
) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(macs.0.octets(), macs.1.octets());
    let builder = match (source.parse(), target.parse()) {
        (Ok(std::net::IpAddr::V4(source)), Ok(std::net::IpAddr::V4(target))) => {
            builder.ipv4(source.octets(), target.octets(), hops)
        }
        _ => builder.ipv6(ip6(source).octets(), ip6(target).octets(), hops),
    };
    let mut frame = Vec::new();
    builder
        .udp(4000, 53)
        .write(&mut frame, &vec![7; payload])
        .expect("writing to a vector cannot fail");
    frame
}

/// The one answer that went back to `at`: its source and target, type and code, the word behind
/// the checksum, and what it quotes.
pub(super) struct Told {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) kind: (u8, u8),
    pub(super) word: u32,
    pub(super) quote: Vec<u8>,
}

pub(super) fn told(rig: &mut Rig, at: usize, frame: &[u8], reason: DropReason) -> Told {
    let (counts, out) = rig.put(at, frame);
    let expected = Counts {
        received: 1,
        originated: 1,
        transmitted: 1,
        dropped: Drops::one(reason),
        ..Counts::default()
    };
    assert_eq!(counts, expected);
    assert_eq!((out.len(), out[0].0), (1, at), "back where it came from");
    let seen = see(&out[0].1);
    let cause = see(frame);
    assert_eq!(seen.target, cause.source.mac());
    let (from, to, transport, message) = match seen.network {
        Network::Ipv4(p) => (p.source.to_string(), p.target.to_string(), p.transport, 34),
        Network::Ipv6(p) => (p.source.to_string(), p.target.to_string(), p.transport, 54),
        other => panic!("{other:?}"),
    };
    let Transport::Icmp { kind, code } = transport else {
        panic!("{transport:?}");
    };
    let word = out[0].1[message + 4..message + 8].try_into();
    Told {
        from,
        to,
        kind: (kind, code),
        word: u32::from_be_bytes(word.expect("four bytes")),
        quote: out[0].1[message + 8..].to_vec(),
    }
}

pub(super) const OUT: (Mac, Mac) = (POD_A, GATEWAY);
pub(super) const IN: (Mac, Mac) = (FABRIC, NIC);

#[test]
fn pods_hear_from_the_gateway_and_the_uplink_from_the_node() {
    let rows = [
        (A, OUT, "10.244.1.6", "10.244.2.7", "10.244.1.1", (11, 0)),
        (
            A,
            OUT,
            "fd00:0:0:1::6",
            "fd00:0:0:2::7",
            "fd00:0:0:1::1",
            (3, 0),
        ),
        (UPLINK, IN, "10.244.2.7", "10.244.1.6", "10.20.0.4", (11, 0)),
        (
            UPLINK,
            IN,
            "fd00:0:0:2::7",
            "fd00:0:0:1::6",
            "2001:db8::4",
            (3, 0),
        ),
    ];
    for (at, macs, source, target, speaker, kind) in rows {
        let frame = udp(macs, source, target, 1, 20);
        let told = told(&mut Rig::new(&dual()), at, &frame, DropReason::TtlExpired);
        assert_eq!((told.from.as_str(), told.to.as_str()), (speaker, source));
        assert_eq!(told.kind, kind);
        assert_eq!(told.quote, frame[14..], "quoted as it came");
    }
}

#[test]
fn an_address_of_the_pod_range_without_a_pod_is_unreachable_from_everywhere() {
    let rows = [
        (A, OUT, "10.244.1.6", "10.244.1.99", (3, 1)),
        (A, OUT, "fd00:0:0:1::6", "fd00:0:0:1::99", (1, 3)),
        (UPLINK, IN, "10.244.2.7", "10.244.1.99", (3, 1)),
        (UPLINK, IN, "fd00:0:0:2::7", "fd00:0:0:1::99", (1, 3)),
    ];
    for (at, macs, source, target, kind) in rows {
        let frame = udp(macs, source, target, 64, 20);
        let told = told(&mut Rig::new(&dual()), at, &frame, DropReason::NoSuchPod);
        assert_eq!(told.kind, kind, "{source} to {target}");
    }
}

#[test]
fn no_route_is_told_in_ipv6_where_no_default_leads_to_the_host() {
    let frame = udp(OUT, "fd00:0:0:1::6", "2001:db8:9::1", 64, 20);
    let told = told(&mut Rig::new(&dual()), A, &frame, DropReason::NoRoute);
    assert_eq!(told.kind, (1, 0));
}

#[test]
fn too_big_tells_the_mtu_of_the_port_that_it_would_have_left_by() {
    let rows = [
        (A, OUT, "10.244.1.6", "10.244.2.7", 1373, (3, 4), 1400),
        (UPLINK, IN, "10.244.2.7", "10.244.1.7", 1273, (3, 4), 1300),
        (A, OUT, "fd00:0:0:1::6", "fd00:0:0:2::7", 1353, (2, 0), 1400),
        (
            UPLINK,
            IN,
            "fd00:0:0:2::7",
            "fd00:0:0:1::7",
            1253,
            (2, 0),
            1300,
        ),
    ];
    for (at, macs, source, target, payload, kind, mtu) in rows {
        let mut rig = Rig::new(&dual());
        let frame = udp(macs, source, target, 64, payload);
        let told = told(&mut rig, at, &frame, DropReason::TooBig);
        assert_eq!((told.kind, told.word), (kind, mtu), "{source} to {target}");
        let fits = udp(macs, source, target, 64, payload - 1);
        let (counts, _) = rig.put(at, &fits);
        assert_eq!((counts.transmitted, counts.dropped.total()), (1, 0));
    }
}

#[test]
fn errors_to_one_host_are_limited_and_those_not_sent_are_counted() {
    let mut rig = Rig::new(&dual());
    let frame = udp(OUT, "fd00:0:0:1::6", "fd00:0:0:2::7", 1, 20);
    let sent = |rig: &mut Rig| {
        (0..10)
            .map(|_| rig.put(A, &frame).0.originated)
            .sum::<u64>()
    };
    assert_eq!(sent(&mut rig), 6);
    assert_eq!(rig.worker.board().errors_suppressed(), 4);
    rig.now = 2000;
    assert_eq!(sent(&mut rig), 2);
    assert_eq!(rig.worker.board().errors_suppressed(), 12);
    // What is due to nobody is not suppressed either.
    rig.put(A, &udp(OUT, "127.0.0.1", "10.244.2.7", 1, 20));
    assert_eq!(rig.worker.board().errors_suppressed(), 12);
}

#[test]
fn where_the_switch_is_no_router_it_tells_nobody() {
    let frame = udp((POD_A, FABRIC), "10.20.0.31", "10.20.0.99", 1, 20);
    let mut spec = azure();
    spec.routes
        .push((net("10.20.0.99/32"), NextHop::Unreachable));
    Rig::new(&spec).dies(A, &frame, DropReason::NoSuchPod);
}

#[test]
fn the_quote_of_an_unfinished_packet_is_what_came() {
    let mut frame = udp(OUT, "10.244.1.6", "10.244.2.7", 1, 20);
    frame[40..42].copy_from_slice(&[0x12, 0x34]);
    let offload = Offload {
        flags: NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 6,
        ..Offload::NONE
    };
    let mut rig = Rig::new(&dual());
    let (_, out) = rig.put_with(A, &frame, offload);
    assert_eq!(out[0].1[42..], frame[14..], "the kernel quotes it so");
}
