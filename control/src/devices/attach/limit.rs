//! Limits of a pod's port, in each direction.
//!
//! In: rates and bursts in bits, as the CNI convention `bandwidth` gives them.
//! Out: a token bucket on the device that sends in that direction.
//! Never: on the node's own devices, or by way of an `ifb`: both directions already leave by a
//! device, because they are redirected.
//!
//! ```text
//!  pod eth0 ==veth== host end -redirect-> TAP -> switch     from the pod: the TAP sends
//!  pod eth0 ==veth== host end <-redirect- TAP <- switch     to the pod: the host end sends
//! ```
//!
//! What counts are bytes on the wire, Ethernet headers included, of the segments that super-frames
//! stand for.

use crate::devices::error::DeviceError;
use crate::devices::name::DeviceName;
use crate::devices::netlink::Netlink;
use crate::devices::netlink::shape::TokenBucket;

/// Kubernetes' bounds of a rate (`pkg/util/bandwidth`), in bits a second.
const RATE_MIN: u64 = 1_000;
const RATE_MAX: u64 = 1_000_000_000_000_000;
/// Runtimes that are given a rate only fill in a burst of this many bits or more: containerd
/// and CRI-O `u32::MAX`, the kubelet `i32::MAX`. Taken at its word it would let 256 MB pass first.
const NO_OPINION: u64 = i32::MAX as u64;
/// The burst of a limit that names none, as a time of its rate. Short beside what anyone measures,
/// long beside the delay of a timer, and from 52 Mbit/s on enough for a super-frame to go whole.
const BURST_DEFAULT_MS: u64 = 10;
/// How long a frame may wait, as the `bandwidth` plugin has it.
const WAIT_MAX_MS: u64 = 25;
/// There is always room for one super-frame to wait.
const QUEUE_MIN: u64 = 65_536;
/// What a frame has beside its MTU: the Ethernet header and a VLAN tag.
const HEADER: u64 = 18;
/// Bytes that a bucket can count.
const BYTES_MAX: u64 = 1 << 30;

/// How fast frames may go in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    bits_a_second: u64,
    burst_bits: Option<u64>,
}

/// A rate that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLimit {
    /// Below a kilobit a second.
    #[error("{0} bits a second is unreasonably small (< 1kbit)")]
    Small(u64),
    /// Above a petabit a second.
    #[error("{0} bits a second is unreasonably large (> 1Pbit)")]
    Large(u64),
    /// A burst without a rate.
    #[error("a burst of {0} bits has no rate beside it")]
    BurstAlone(u64),
}

impl Limit {
    /// A limit of `rate` bits a second that lets `burst` bits go at once after a pause. Zero is no
    /// limit and no burst.
    ///
    /// # Errors
    /// [`BadLimit`].
    pub fn new(rate: u64, burst: u64) -> Result<Option<Limit>, BadLimit> {
        match rate {
            0 if burst == 0 => Ok(None),
            0 => Err(BadLimit::BurstAlone(burst)),
            _ if rate < RATE_MIN => Err(BadLimit::Small(rate)),
            _ if rate > RATE_MAX => Err(BadLimit::Large(rate)),
            _ => Ok(Some(Limit {
                bits_a_second: rate,
                burst_bits: (1..NO_OPINION).contains(&burst).then_some(burst),
            })),
        }
    }

    /// The bucket for a device of that MTU.
    fn bucket(&self, mtu: u32) -> TokenBucket {
        let rate = self.bits_a_second / 8;
        let frame = u64::from(mtu) + HEADER;
        let burst = match self.burst_bits {
            Some(bits) => (bits / 8).max(frame),
            None => (rate * BURST_DEFAULT_MS / 1000).max(2 * frame),
        };
        let burst = burst.min(BYTES_MAX);
        let wait = (rate * WAIT_MAX_MS / 1000).clamp(QUEUE_MIN, BYTES_MAX);
        TokenBucket {
            rate,
            burst: burst as u32,
            queue: (wait + burst) as u32,
        }
    }
}

/// The limits of a pod's port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of what goes to the pod ("ingress").
    pub to_pod: Option<Limit>,
    /// Of what comes from it ("egress").
    pub from_pod: Option<Limit>,
}

impl Limits {
    /// Sets them on a port's devices in the node's namespace, and takes away those that are
    /// no more. What is there already stays, with the frames that wait in it.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] without the devices, otherwise what the kernel says.
    pub fn apply(
        &self,
        node: &Netlink,
        host_end: &DeviceName,
        tap: &DeviceName,
    ) -> Result<(), DeviceError> {
        for (device, limit) in [(host_end, self.to_pod), (tap, self.from_pod)] {
            match limit {
                Some(limit) => {
                    let bucket = limit.bucket(node.link(device)?.mtu);
                    if !node.token_bucket(device)?.is_some_and(|b| b.is(&bucket)) {
                        node.set_token_bucket(device, &bucket)?;
                    }
                }
                None if node.link(device)?.qdisc != "noqueue" => node.set_no_queue(device)?,
                None => {}
            }
        }
        Ok(())
    }

    /// True if the port's devices are set so.
    ///
    /// # Errors
    /// As [`Limits::apply`].
    pub fn hold(
        &self,
        node: &Netlink,
        host_end: &DeviceName,
        tap: &DeviceName,
    ) -> Result<bool, DeviceError> {
        for (device, limit) in [(host_end, self.to_pod), (tap, self.from_pod)] {
            let mtu = node.link(device)?.mtu;
            let found = node.token_bucket(device)?;
            let as_wanted = match limit {
                Some(limit) => found.is_some_and(|bucket| bucket.is(&limit.bucket(mtu))),
                None => found.is_none(),
            };
            if !as_wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(rate: u64, burst: u64) -> TokenBucket {
        let limit = Limit::new(rate, burst).expect("legal");
        limit.expect("a limit").bucket(1500)
    }

    #[test]
    fn a_bucket_is_made_of_bits() {
        let found = bucket(100_000_000, 800_000);
        assert_eq!(
            found,
            TokenBucket {
                rate: 12_500_000,
                burst: 100_000,
                queue: 312_500 + 100_000,
            }
        );
        // Nothing said, and nothing meant.
        for burst in [0, i32::MAX as u64, u32::MAX.into(), u64::MAX] {
            assert_eq!(bucket(100_000_000, burst).burst, 125_000, "{burst}");
        }
    }

    #[test]
    fn a_frame_always_fits_and_a_super_frame_can_always_wait() {
        for (rate, burst) in [(1_000, 0), (1_000, 8), (64_000, 800)] {
            let found = bucket(rate, burst);
            assert!(found.burst >= 1518, "{found:?}");
            assert!(found.queue >= 65_536, "{found:?}");
        }
        let huge = bucket(RATE_MAX, NO_OPINION - 1);
        assert!(u64::from(huge.queue) <= 2 * BYTES_MAX, "{huge:?}");
        assert_eq!(huge.rate, RATE_MAX / 8);
    }

    #[test]
    fn rates_are_those_that_kubernetes_takes() {
        assert_eq!(Limit::new(0, 0), Ok(None));
        let says = |rate, burst| Limit::new(rate, burst).map_err(|bad| bad.to_string());
        assert!(says(0, 8000).is_err_and(|e| e.contains("no rate beside it")));
        assert!(says(999, 0).is_err_and(|e| e.contains("unreasonably small (< 1kbit)")));
        assert!(says(RATE_MAX + 1, 0).is_err_and(|e| e.contains("unreasonably large (> 1Pbit)")));
        assert!(says(RATE_MIN, 0).is_ok() && says(RATE_MAX, 0).is_ok());
    }
}
