//! Why the fabric lets a frame die: one table, read by the rules, the counters and the report.
//!
//! In: nothing. Out: [`FabricDrop`], its machine name, and a sentence for an operator.
//! Never: a reason that means "something else".

use std::fmt;

macro_rules! fabric_drops {
    ($($variant:ident, $name:literal, $explanation:literal;)+) => {
        /// Why the fabric dropped a frame.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FabricDrop {
            $(#[doc = $explanation] $variant,)+
        }

        impl FabricDrop {
            /// Every reason, in the order of the table.
            pub const ALL: [FabricDrop; [$($name),+].len()] = [$(FabricDrop::$variant),+];

            /// The name that programs read: snake case, never changed once published.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(FabricDrop::$variant => $name,)+ }
            }

            /// What it means, and where to look, in one line.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self { $(FabricDrop::$variant => $explanation,)+ }
            }
        }
    };
}

fabric_drops! {
    TooShort, "too_short", "shorter than an Ethernet header";
    TooLong, "too_long", "longer than the NIC's MTU and an Ethernet header: was a super-frame sent unsegmented?";
    SenderGone, "sender_gone", "the sending NIC was removed while the frame was on its way";
    SourceMacSpoofed, "source_mac_spoofed", "the source MAC is not the NIC's: Azure accepts no other from a VM";
    VlanTagged, "vlan_tagged", "a VLAN tag: a VNet carries none";
    UnknownEthertype, "unknown_ethertype", "neither ARP, IPv4 nor IPv6: a VNet is a layer 3 network";
    ArpMalformed, "arp_malformed", "not a whole ARP packet for Ethernet and IPv4";
    LinkAddressSpoofed, "link_address_spoofed", "the sender's hardware address inside an ARP packet or neighbour solicitation is not the NIC's";
    ArpUnsolicited, "arp_unsolicited", "an ARP reply: the fabric never asks, and hands replies to nobody";
    ArpOwnAddress, "arp_own_address", "a VM asked for its own primary address: the fabric does not answer, the node's switch must";
    ArpOutsideVnet, "arp_outside_vnet", "an ARP request for an address outside the VNet: is a route on the node missing its gateway?";
    Ipv4Malformed, "ipv4_malformed", "not a whole IPv4 header and packet";
    Ipv4BadChecksum, "ipv4_bad_checksum", "the IPv4 header checksum is wrong: did a rewrite forget it?";
    Ipv6Malformed, "ipv6_malformed", "not a whole IPv6 header and packet";
    Ipv6Absent, "ipv6_absent", "IPv6 in a VNet that has no IPv6 prefix";
    NeighbourMalformed, "neighbour_malformed", "a neighbour solicitation that is cut short, was forwarded, or asks for no station";
    NeighbourOwnAddress, "neighbour_own_address", "a VM solicited its own primary IPv6 address, or looked for a duplicate: both stay unanswered";
    NeighbourOutsideVnet, "neighbour_outside_vnet", "a neighbour solicitation for an address outside the VNet";
    DhcpUnserved, "dhcp_unserved", "a DHCP request: on Azure the host answers; the lab sets addresses itself";
    GroupTarget, "group_target", "broadcast or multicast: a VNet carries neither between VMs";
    Gre, "gre", "GRE: Azure drops it in a VNet";
    IpInIp, "ip_in_ip", "IP in IP: Azure drops it in a VNet";
    UdpPortReserved, "udp_port_reserved", "UDP source port 65330 is reserved by Azure";
    SourceIpSpoofed, "source_ip_spoofed", "the source IP is no ipConfiguration of the NIC, and its enableIPForwarding flag is off";
    PlatformAddress, "platform_address", "168.63.129.16 or 169.254.169.254: Azure's own services, which the lab has none of";
    LinkLocal, "link_local", "a link-local target: in a layer 3 network nobody is on the same link";
    GatewaySilent, "gateway_silent", "the subnet's gateway address: it answers ARP and nothing else";
    AddressUnowned, "address_unowned", "routed inside the VNet, but no NIC owns the address: is the pod's route or ipConfiguration missing?";
    RouteNone, "route_none", "a system route to None: is the cluster's route table attached to the subnet?";
    UserRouteNone, "user_route_none", "a user-defined route to None";
    NextHopMissing, "next_hop_missing", "a user-defined route to a next hop that no NIC owns: was its node removed?";
    NextHopNotForwarding, "next_hop_not_forwarding", "the next hop's NIC has enableIPForwarding off, so it may not receive for others";
    Internet, "internet", "routed to the Internet: the lab has none";
    GatewayMissing, "gateway_missing", "routed to a virtual network gateway: the VNet has none";
    BeyondVnet, "beyond_vnet", "routed to a peered VNet or a service endpoint: the lab has one VNet and no services";
    TargetRefused, "target_refused", "the target's eth0 took no frame: it is down, removed, or its queue is full";
}

impl fmt::Display for FabricDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_its_own_and_in_snake_case() {
        let names: BTreeSet<_> = FabricDrop::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), FabricDrop::ALL.len());
        for name in names {
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
        }
    }

    #[test]
    fn the_table_is_in_the_order_of_the_variants() {
        for (row, reason) in FabricDrop::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, row);
        }
    }
}
