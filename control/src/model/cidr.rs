//! Addresses and prefixes as Go's `net` package reads them.
//!
//! In: text. Out: an address or a prefix, or nothing. Never: accepts more, or less, than Go.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// An address in dotted or colon form, without a zone.
pub(crate) fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// A prefix, its host bits kept: `172.17.0.1/16` is a prefix to Go.
pub(crate) fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || length.len() > 3 || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    IpNet::new(parse_ip(address)?, length.parse().ok()?).ok()
}

/// Whether two prefixes share an address.
pub(crate) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// The IPv4 form of a prefix, without host bits.
pub(crate) fn as_v4(net: &IpNet) -> Option<Ipv4Net> {
    match net {
        IpNet::V4(net) => Some(net.trunc()),
        IpNet::V6(_) => None,
    }
}

/// Whether Go's `time.ParseDuration` accepts a text: a sign, then numbers with units, or `0`.
pub(crate) fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let after = &rest[number..];
        let fraction = after.strip_prefix('.').unwrap_or(after);
        let decimals = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        if number == 0 && decimals.len() == fraction.len() {
            return false;
        }
        let units = ["ns", "us", "\u{b5}s", "\u{3bc}s", "ms", "s", "m", "h"];
        let Some(unit) = units.iter().find(|unit| decimals.starts_with(**unit)) else {
            return false;
        };
        rest = &decimals[unit.len()..];
    }
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_as_go_reads_them() {
        for good in [
            "172.17.0.1/16",
            "10.0.0.0/08",
            "0.0.0.0/0",
            "fc00::/8",
            "::ffff:0:0/96",
        ] {
            assert!(parse_cidr(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "010.0.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/8 ",
            "10.0.0.0/8,fc00::/8",
            "10.0.0.0/",
            "fe80::1%eth0/64",
            "::/129",
        ] {
            assert!(parse_cidr(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn durations_are_judged_as_go_judges_them() {
        for good in [
            "10s",
            "1h15m30.918s",
            "-1.5h",
            "+5s",
            "0",
            "1us",
            ".5s",
            "5.s",
        ] {
            assert!(is_duration(good), "{good}");
        }
        for bad in ["", "10", "s", "10 s", "1d", "-", "1.2.3s", ".s", "."] {
            assert!(!is_duration(bad), "{bad}");
        }
    }
}
