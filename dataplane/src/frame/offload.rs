//! The offload state of a frame: which checksum and which segmentation are still undone.
//!
//! In: the `virtio_net_hdr` that a port hands over before a frame.
//! Out: a field of the frame, written back before the frame leaves.
//! Never: trusts the header's offsets; a pod with a packet socket can write any.
//!
//! Layout and constants: `include/uapi/linux/virtio_net.h` and VIRTIO 1.2 section 5.1.6. Native
//! byte order, as a TAP uses unless told otherwise.

use super::Kind;

/// Bytes of the header without `num_buffers`.
pub const HEADER_LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum at `csum_start + csum_offset` holds only the
/// pseudo-header's sum.
pub const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`.
pub const GSO_TCPV4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV6`.
pub const GSO_TCPV6: u8 = 4;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`.
pub const GSO_UDP_L4: u8 = 5;
/// `VIRTIO_NET_HDR_GSO_ECN`, a flag beside the type.
pub const GSO_ECN: u8 = 0x80;

/// The first byte that may be layer 4: behind an Ethernet header and the shortest IP header.
const CSUM_START_MIN: u16 = 14 + 20;
/// The same in an IPv6 packet.
const CSUM_START_MIN_V6: u16 = 14 + 40;

/// Checksum and segmentation state, field for field a `virtio_net_hdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// `VIRTIO_NET_HDR_F_*`.
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`.
    pub gso_type: u8,
    /// A hint: bytes of all headers.
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// First byte that the checksum covers, from the start of the frame.
    pub csum_start: u16,
    /// Where the checksum goes, from `csum_start`.
    pub csum_offset: u16,
}

impl Offload {
    /// Nothing left to do: the frame is as it would be on a wire.
    pub const NONE: Offload = Offload {
        flags: 0,
        gso_type: 0,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// Reads the header at the start of `bytes`.
    #[inline]
    #[must_use]
    pub(crate) fn read(bytes: &[u8]) -> Option<Offload> {
        let (&[flags, gso_type, a, b, c, d, e, f, g, h], _) = bytes.split_first_chunk()?;
        Some(Offload {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([a, b]),
            gso_size: u16::from_ne_bytes([c, d]),
            csum_start: u16::from_ne_bytes([e, f]),
            csum_offset: u16::from_ne_bytes([g, h]),
        })
    }

    /// Writes the header over the first bytes of `bytes`.
    #[inline]
    pub(crate) fn write(self, bytes: &mut [u8]) {
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        bytes[2..4].copy_from_slice(&self.hdr_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.csum_start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.csum_offset.to_ne_bytes());
    }

    /// True if the frame stands for several segments.
    #[inline]
    #[must_use]
    pub const fn is_super_frame(self) -> bool {
        self.gso_type & !GSO_ECN != 0
    }

    /// True if the layer 4 checksum is still to be completed.
    #[inline]
    #[must_use]
    pub const fn needs_checksum(self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// The state of the same frame once a tag of four bytes stands behind its addresses.
    #[must_use]
    pub(crate) const fn behind_a_tag(mut self) -> Offload {
        if self.needs_checksum() {
            self.csum_start = self.csum_start.saturating_add(4);
        }
        if self.hdr_len > 0 {
            self.hdr_len = self.hdr_len.saturating_add(4);
        }
        self
    }

    /// True if every offset lies inside a frame of `len` bytes and the fields agree, as
    /// `virtio_net_hdr_to_skb` (include/linux/virtio_net.h) demands of what is written to a TAP.
    ///
    /// A checksum below the headers of Ethernet and IP does not fit either. Completing it would
    /// write over addresses by which the frame has been let in. (The kernel asks for 20 bytes of
    /// header whatever the `kind`, which leaves IPv6 addresses open.)
    #[inline]
    #[must_use]
    pub fn fits(&self, len: usize, kind: Kind) -> bool {
        let undone = self.needs_checksum() || self.is_super_frame();
        usize::from(self.hdr_len) <= len && (!undone || self.agrees(len, kind))
    }

    /// As `fits`, of what is undone.
    #[inline(never)]
    fn agrees(&self, len: usize, kind: Kind) -> bool {
        let start_min = match kind {
            Kind::Ipv6 => CSUM_START_MIN_V6,
            Kind::Ipv4 | Kind::Arp | Kind::Tagged | Kind::Other => CSUM_START_MIN,
        };
        let checksum_end = usize::from(self.csum_start) + usize::from(self.csum_offset) + 2;
        (!self.needs_checksum() || (self.csum_start >= start_min && checksum_end <= len))
            && (!self.is_super_frame() || self.gso_size > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_what_it_writes() {
        let state = Offload {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4 | GSO_ECN,
            hdr_len: 66,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
        };
        let mut bytes = [0; HEADER_LEN];
        state.write(&mut bytes);
        assert_eq!(Offload::read(&bytes), Some(state));
        assert_eq!(Offload::read(&bytes[..9]), None);
        assert!(state.is_super_frame() && state.needs_checksum());
    }

    #[test]
    fn offsets_outside_the_frame_do_not_fit() {
        let checksum = Offload {
            flags: NEEDS_CSUM,
            csum_start: 34,
            csum_offset: 16,
            ..Offload::NONE
        };
        assert!(checksum.fits(52, Kind::Ipv4) && !checksum.fits(51, Kind::Ipv4));
        let over_the_source_mac = Offload {
            csum_start: 0,
            csum_offset: 6,
            ..checksum
        };
        assert!(!over_the_source_mac.fits(60, Kind::Ipv4));
        let over_an_ipv6_address = Offload {
            csum_offset: 4,
            ..checksum
        };
        assert!(over_an_ipv6_address.fits(100, Kind::Ipv4));
        assert!(!over_an_ipv6_address.fits(100, Kind::Ipv6));
        let huge = Offload {
            csum_start: u16::MAX,
            csum_offset: u16::MAX,
            ..checksum
        };
        assert!(!huge.fits(60_000, Kind::Ipv4));
        assert!(
            !Offload {
                gso_type: GSO_TCPV4,
                ..Offload::NONE
            }
            .fits(1500, Kind::Ipv4)
        );
        assert!(
            !Offload {
                hdr_len: 100,
                ..Offload::NONE
            }
            .fits(99, Kind::Ipv4)
        );
        assert!(Offload::NONE.fits(0, Kind::Other));
    }
}
