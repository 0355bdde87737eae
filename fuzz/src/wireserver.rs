//! Documents in which a node's truth stands: from Azure's wireserver and metadata service, from
//! Kubernetes, from a runtime.
//!
//! In: a byte whose low two bits say which document, and the next whether the NIC's MAC is known; then
//! the document. Out: nothing, or a panic that names the promise which does not hold.
//! Never: asks anybody, or believes what no NIC could have.

use control::node::documents::{
    BadDocument, cni_configuration, instance_metadata, interface_document, node_object,
};
use control::node::{NicAddresses, PodCidrs};
use dataplane::addr::Mac;

/// The MAC in the documents of the corpus.
const NIC: Mac = Mac::new([0, 0x0d, 0x3a, 0x21, 0xaf, 0x12]);

/// Addresses of a NIC: Azure gives it 256 at most.
const ADDRESSES_MAX: usize = 256;

/// Reads one.
///
/// # Panics
/// If reading does, or not the same way twice, or refuses without a sentence, or what it says could
/// not be so.
pub fn run_wireserver(input: &[u8]) {
    let Some((choice, document)) = input.split_first() else {
        return;
    };
    let nic = (choice & 0b100 != 0).then_some(NIC);
    match choice & 0b11 {
        0 => check(
            || interface_document(document, nic),
            |found| check_nic(found, nic),
        ),
        1 => check(
            || instance_metadata(document, nic),
            |found| check_nic(found, nic),
        ),
        2 => check(|| node_object(document, "node-0"), check_cidrs),
        _ => check(|| cni_configuration(document), check_cidrs),
    }
}

fn check<T: PartialEq + std::fmt::Debug>(
    read: impl Fn() -> Result<T, BadDocument>,
    check: impl Fn(&T),
) {
    match (read(), read()) {
        (Ok(found), Ok(again)) => {
            assert_eq!(found, again);
            check(&found);
        }
        (Err(fault), Err(again)) => {
            let sentence = fault.to_string();
            assert!(!sentence.is_empty(), "refused for no reason");
            assert_eq!(sentence, again.to_string());
        }
        (one, other) => panic!("once {one:?}, once {other:?}"),
    }
}

fn check_nic(found: &NicAddresses, nic: Option<Mac>) {
    assert!(nic.is_none() || found.mac == nic, "another's: {found:?}");
    assert!(found.secondary.len() < ADDRESSES_MAX, "{found:?}");
    let mut all = found.secondary.clone();
    assert!(all.is_sorted(), "{found:?}");
    all.push(found.primary);
    let usable = |address| {
        let net = found.subnet;
        net.contains(address) && ![net.network(), net.broadcast()].contains(address)
    };
    assert!(all.iter().all(usable), "{found:?}");
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{found:?}");
}

fn check_cidrs(found: &PodCidrs) {
    assert!(found.v4.is_some() || found.v6.is_some(), "{found:?}");
    assert_eq!(found.v4.map(|net| net.trunc()), found.v4);
    assert_eq!(found.v6.map(|net| net.trunc()), found.v6);
}
