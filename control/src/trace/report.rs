//! What a trace found: the shapes that `tapline trace --json` prints.
//!
//! In: nothing. Out: [`Trace`], which [`words`](super::words) tells to people.
//! Never: judges. Field names are an interface: other programs read them (docs/trace.md).

use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Map, Value};

/// The whole way of one frame.
#[derive(Clone, Debug, Serialize)]
pub struct Trace {
    /// `azure` or `kubenet`.
    pub plugin: String,
    /// What the sender's kernel did first, or what was assumed of a frame that was given.
    pub notes: Vec<String>,
    /// How the sender learned the hardware address; null if it needs none.
    pub asked: Option<Asked>,
    /// The frame as it was sent; null if the sender's question had no answer.
    pub frame: Option<FrameRow>,
    /// Each switch or fabric on its way, in order.
    pub hops: Vec<Hop>,
    /// Where it ended.
    pub end: End,
}

/// A question for a hardware address, by ARP or neighbour discovery.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// `arp` or `nd`.
    pub by: &'static str,
    /// Who asks.
    pub asker: String,
    /// The interface it asks on.
    pub interface: String,
    /// The address asked for.
    pub address: IpAddr,
    /// The answer.
    pub mac: Option<String>,
    /// Who answered: a node's switch, or the fabric; or why nobody did.
    pub answer: String,
}

/// A frame in short.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FrameRow {
    /// Target MAC.
    pub target_mac: String,
    /// Source MAC.
    pub source_mac: String,
    /// Bytes of the frame, without FCS.
    pub bytes: usize,
    /// What it carries: `icmp`, `tcp 80`, `arp request`.
    pub kind: String,
    /// Source address.
    pub source_ip: Option<IpAddr>,
    /// Target address.
    pub target_ip: Option<IpAddr>,
    /// TTL or hop limit.
    pub ttl: Option<u8>,
    /// Payload bytes of each segment, of a super-frame.
    pub segment_bytes: Option<u16>,
}

/// Where `tcpdump` would show the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sight {
    /// The pod or node in whose network to look.
    pub at: String,
    /// The interface.
    pub interface: String,
}

impl Sight {
    /// An interface of a pod or node.
    #[must_use]
    pub fn new(at: &str, interface: &str) -> Sight {
        Sight {
            at: at.to_owned(),
            interface: interface.to_owned(),
        }
    }
}

/// One switch, or the fabric.
#[derive(Clone, Debug, Serialize)]
pub struct Hop {
    /// A node, or `fabric`.
    pub at: String,
    /// The port it came in by: `host`, `uplink`, or a pod; of the fabric, the node.
    pub ingress: String,
    /// Interfaces that it crossed to get in.
    pub seen_in: Vec<Sight>,
    /// The frame as it came.
    pub frame: FrameRow,
    /// What was looked at, in order.
    pub steps: Vec<StepRow>,
    /// `forward`, `flood`, `answer`, `learn`, `drop`, or `kernel` where `eth0` keeps it.
    pub verdict: &'static str,
    /// The ports, or the node, that it leaves by.
    pub egress: Vec<String>,
    /// What was changed.
    pub rewrite: Vec<Edit>,
    /// The label and meaning of the drop reason.
    pub drop: Option<Death>,
    /// Interfaces that it crosses on its way out.
    pub seen_out: Vec<Sight>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct StepRow {
    /// A short name that does not change between versions.
    pub step: &'static str,
    /// A sentence for a person.
    pub text: String,
    /// What was matched.
    #[serde(flatten)]
    pub facts: Map<String, Value>,
}

/// One change to the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edit {
    /// `source_mac`, `target_mac` or `ttl`.
    pub field: &'static str,
    /// Before.
    pub from: String,
    /// After.
    pub to: String,
}

/// A drop reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Death {
    /// Its label, as counters have it.
    pub reason: &'static str,
    /// One sentence.
    pub meaning: &'static str,
}

/// Where the frame ended.
#[derive(Clone, Debug, Serialize)]
pub struct End {
    /// `delivered` to a pod, to a node's `host` kernel, `flooded`, `answered`, `consumed` by the
    /// switch, `dropped`, or `unanswered` where its sender asked in vain.
    pub outcome: &'static str,
    /// The pod, node or fabric; several if flooded.
    pub at: Vec<String>,
    /// The interface it arrived on.
    pub interface: Option<String>,
    /// The frame as it arrived.
    pub frame: Option<FrameRow>,
    /// Why it died.
    pub drop: Option<Death>,
}
