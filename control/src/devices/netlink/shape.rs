//! Token buckets: how fast a device may send.
//!
//! In: a rate, a burst and the length of the queue, in bytes as the wire carries them.
//! Out: `tbf` as the device's root queueing discipline, or what it is set to.
//! Never: leaves a super-frame counted as one frame: `tbf` counts the headers that its segments
//! will repeat, and cuts one that is longer than the burst.
//!
//! `struct tc_tbf_qopt` is written by hand, after `linux/pkt_sched.h`: no package knows it.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

use super::filter::qdisc;
use super::{Answer, Netlink};
use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;

const KIND: &str = "tbf";
/// Bytes of `struct tcmsg`.
const HEADER_LENGTH: usize = 20;
/// `TC_LINKLAYER_ETHERNET`: the length of a frame is what it costs, and no table is needed.
const LINK_LAYER_ETHERNET: u8 = 1;

/// Attribute numbers of `linux/rtnetlink.h` and `linux/pkt_sched.h`.
mod number {
    pub(super) const KIND: u16 = 1;
    pub(super) const OPTIONS: u16 = 2;
    pub(super) const PARAMETERS: u16 = 1;
    pub(super) const RATE64: u16 = 4;
    pub(super) const BURST: u16 = 6;
}

/// What a token bucket lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Bytes a second, Ethernet headers included.
    pub rate: u64,
    /// Bytes that may go at once after a pause. At least one frame of the device's MTU, or nothing
    /// would ever go.
    pub burst: u32,
    /// Bytes that may wait; what comes on top is dropped.
    pub queue: u32,
}

impl TokenBucket {
    /// `struct tc_tbf_qopt`: two `tc_ratespec`s, the limit, and two fields that attributes or
    /// nobody reads.
    fn parameters(&self) -> Vec<u8> {
        let low = u32::try_from(self.rate).unwrap_or(u32::MAX);
        let mut bytes = vec![0, LINK_LAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
        bytes.extend(low.to_ne_bytes());
        bytes.extend([0; 12]);
        bytes.extend(self.queue.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes
    }
}

/// The root queueing discipline of a device, as far as it is a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundBucket {
    /// Bytes a second.
    pub rate: u64,
    /// Bytes that may wait.
    pub queue: u32,
}

impl FoundBucket {
    /// True if the kernel holds that bucket. The burst is not compared: the kernel keeps it as a
    /// time, rounded. (Whoever sets a bucket makes the queue of it, so that differs as well.)
    #[must_use]
    pub fn is(&self, wanted: &TokenBucket) -> bool {
        (self.rate, self.queue) == (wanted.rate, wanted.queue)
    }

    fn read(answer: &Answer, index: u32) -> Option<FoundBucket> {
        let fixed = answer.fixed::<HEADER_LENGTH>();
        let word = |at: usize| {
            u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let found = answer.attributes(HEADER_LENGTH);
        if word(4) != index || word(12) != u32::from(TcHandle::ROOT) {
            return None;
        }
        let options = found
            .text(number::KIND)
            .filter(|kind| kind == KIND)
            .map(|_| found.inside(number::OPTIONS))?;
        let parameters = options.find(number::PARAMETERS)?;
        let low = u32::from_ne_bytes(*parameters.get(8..)?.first_chunk()?);
        let wide = options.find(number::RATE64).and_then(|b| b.first_chunk());
        Some(FoundBucket {
            rate: wide.map_or(u64::from(low), |bytes| u64::from_ne_bytes(*bytes)),
            queue: u32::from_ne_bytes(*parameters.get(24..)?.first_chunk()?),
        })
    }
}

impl Netlink {
    /// Makes the bucket the device's root queueing discipline, in the place of whatever is there.
    ///
    /// # Errors
    /// What the kernel says: `ENOENT` if it has no `tbf`.
    pub fn set_token_bucket(
        &self,
        device: &DeviceName,
        bucket: &TokenBucket,
    ) -> Result<(), DeviceError> {
        let mut message = qdisc(self.index(device)?, TcHandle::ROOT, TcHandle::UNSPEC, KIND);
        let option = |kind, value: Vec<u8>| TcOption::Other(DefaultNla::new(kind, value));
        let mut options = vec![
            option(number::PARAMETERS, bucket.parameters()),
            option(number::BURST, bucket.burst.to_ne_bytes().to_vec()),
        ];
        if bucket.rate > u64::from(u32::MAX) {
            options.push(option(number::RATE64, bucket.rate.to_ne_bytes().to_vec()));
        }
        message.attributes.push(TcAttribute::Options(options));
        let attempt = format!("limit {device} to {} bytes a second", bucket.rate);
        let message = RouteNetlinkMessage::NewQueueDiscipline(message);
        self.change(&attempt, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// The device's token bucket, if its root queueing discipline is one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn token_bucket(&self, device: &DeviceName) -> Result<Option<FoundBucket>, DeviceError> {
        let index = self.index(device)?;
        // The kernel lists those of all devices, whichever is asked for.
        let message = TcMessage::with_index(index as i32);
        let message = RouteNetlinkMessage::GetQueueDiscipline(message);
        let answers = self.list(&format!("look for a limit of {device}"), &message)?;
        Ok(answers.iter().find_map(|a| FoundBucket::read(a, index)))
    }
}
