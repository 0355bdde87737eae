//! Masquerade by a node's kernel, on a real kernel.
//!
//! In: the right to make namespaces. Out: whose address a server beyond the node sees.
//! Never: touches a table of the machine's own network.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use control::devices::netlink::address::Route;
use control::devices::netlink::link::VethEnd;
use control::devices::{Netlink, masquerade};

use crate::support::{fresh, name};

const PATIENCE: Duration = Duration::from_secs(5);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Joins two namespaces by a veth, with those addresses.
fn join(one: &Netlink, other: &Netlink, label: &str, addresses: [&[&str]; 2]) {
    let end = |side: &str| VethEnd {
        name: name(&format!("{label}{side}")),
        mac: None,
    };
    let (here, there) = (end("0"), end("1"));
    one.add_veth(&here, &there, other.namespace(), 1500)
        .expect("made");
    for ((net, end), addresses) in [(one, here), (other, there)].into_iter().zip(addresses) {
        let off = control::devices::sysctl::Setting::AcceptDad(
            control::devices::sysctl::Conf::Device(&end.name),
        );
        control::devices::sysctl::set(net.namespace(), off, "0").expect("writable");
        for address in addresses {
            let address = address.parse().expect("a prefix");
            net.add_address(&end.name, address).expect("added");
        }
        net.set_up(&end.name, true).expect("up");
    }
}

/// Whom a server at `server` hears when `client` asks it; the answer comes back.
fn heard(client: (&Netlink, &str), server: (&Netlink, &str)) -> IpAddr {
    let bind = |(net, address): (&Netlink, &str)| {
        let at = SocketAddr::new(ip(address), 0);
        let socket = net.namespace().run(|| UdpSocket::bind(at)).expect("bound");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        socket
    };
    let (asking, answering) = (bind(client), bind(server));
    let target = answering.local_addr().expect("bound");
    asking.send_to(b"?", target).expect("sent");
    let mut buffer = [0; 8];
    let (_, from) = answering.recv_from(&mut buffer).expect("heard");
    answering.send_to(b"!", from).expect("sent");
    let (_, answer) = asking.recv_from(&mut buffer).expect("answered");
    assert_eq!(answer, target);
    from.ip()
}

pub(crate) fn what_a_pod_sends_beyond_its_network_bears_the_nodes_address() {
    let (pod, node, world) = (fresh("pod"), fresh("node"), fresh("world"));
    let pods = ["10.244.0.1/24", "fd00:10::1/64"];
    join(
        &node,
        &pod,
        "p",
        [&pods, &["10.244.0.5/24", "10.244.0.6/24", "fd00:10::5/64"]],
    );
    let outside = ["192.0.2.1/24", "2001:db8::1/64"];
    let world_has = ["192.0.2.9/24", "198.51.100.9/24", "2001:db8::9/64"];
    join(&node, &world, "w", [&outside, &world_has]);
    let forwarding = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
    for setting in forwarding {
        let path = format!("/proc/sys/{setting}");
        let set = node.namespace().run(|| std::fs::write(&path, "1"));
        set.expect("the namespace is ours");
    }
    let route = |to: &str, via: &str| Route {
        to: to.parse().expect("a prefix"),
        via: Some(ip(via)),
        source: None,
    };
    for (net, device, to, via) in [
        (&pod, "p1", "0.0.0.0/0", "10.244.0.1"),
        (&pod, "p1", "::/0", "fd00:10::1"),
        (&world, "w1", "10.244.0.0/24", "192.0.2.1"),
        (&world, "w1", "fd00:10::/64", "2001:db8::1"),
        (&node, "w0", "198.51.100.0/24", "192.0.2.9"),
    ] {
        net.add_route(&name(device), &route(to, via))
            .expect("added");
    }
    let from = |client: &str, server: &str| heard((&pod, client), (&world, server));
    assert_eq!(
        from("10.244.0.5", "192.0.2.9"),
        ip("10.244.0.5"),
        "nothing is set yet"
    );

    let sources = [ip("10.244.0.5"), ip("fd00:10::5")];
    let spared = ["10.244.0.0/24", "198.51.100.0/24", "fd00:10::/64"];
    let spared = spared.map(|net| net.parse().expect("a prefix"));
    for _ in 0..2 {
        masquerade::set(node.namespace(), &sources, &spared).expect("nf_tables is there");
        assert_eq!(from("10.244.0.5", "192.0.2.9"), ip("192.0.2.1"));
        assert_eq!(
            from("10.244.0.6", "192.0.2.9"),
            ip("10.244.0.6"),
            "it did not ask"
        );
        assert_eq!(
            from("10.244.0.5", "198.51.100.9"),
            ip("10.244.0.5"),
            "it is spared"
        );
        assert_eq!(from("fd00:10::5", "2001:db8::9"), ip("2001:db8::1"));
    }
    for _ in 0..2 {
        masquerade::set(node.namespace(), &[], &[]).expect("nf_tables is there");
        assert_eq!(
            from("10.244.0.5", "192.0.2.9"),
            ip("10.244.0.5"),
            "taken away"
        );
    }
}
