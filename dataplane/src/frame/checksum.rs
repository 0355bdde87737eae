//! Internet checksums: whole (RFC 1071) and after a change of one word (RFC 1624).
//!
//! In: bytes, or a word before and after. Out: the sum to write.
//! Never: touches a frame.

/// The one's complement sum of `bytes`, folded to 16 bits, starting from `start`. Bytes count in
/// pairs in network order; a last odd byte is padded with zero.
///
/// The sum of byte-swapped words is the swapped sum (RFC 1071 2(B)), so words are added as the
/// machine reads them, four bytes wide into eight, which the compiler turns into vectors.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut words = bytes.chunks_exact(4);
    let whole: u64 = (&mut words)
        .map(|word| u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]])))
        .sum();
    let mut last = [0; 4];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    let native = folded(whole + u64::from(u32::from_ne_bytes(last)));
    folded(u64::from(u16::from_be(native)) + u64::from(start))
}

/// The sum of an IPv4 header without options: five words, no loop.
#[inline]
#[must_use]
pub(crate) fn header_sum(header: &[u8; 20]) -> u16 {
    let mut total = 0;
    for word in header.as_chunks::<4>().0 {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    u16::from_be(folded(total))
}

#[inline]
const fn folded(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The checksum to write over a header whose checksum field is zero.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    !sum(bytes, 0)
}

/// The checksum after one word of what it covers changed: `HC' = ~(~HC + ~m + m')`, RFC 1624
/// equation 3.
#[inline]
#[must_use]
pub const fn updated(checksum: u16, before: u16, after: u16) -> u16 {
    let mut total = (!checksum) as u32 + (!before) as u32 + after as u32;
    total = (total & 0xffff) + (total >> 16);
    total = (total & 0xffff) + (total >> 16);
    !(total as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071_sums_as_printed() {
        assert_eq!(
            sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0),
            0xddf2
        );
        assert_eq!(sum(&[0xab], 0), 0xab00);
        assert_eq!(sum(&[1, 2, 3], 0), 0x0102 + 0x0300);
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_one_word_after_the_other(bytes in prop::collection::vec(any::<u8>(), 0..200), start in any::<u32>()) {
            let mut total = u64::from(start);
            for pair in bytes.chunks(2) {
                total += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
            }
            prop_assert_eq!(sum(&bytes, start), folded(total));
            if let Some(header) = bytes.first_chunk() {
                prop_assert_eq!(header_sum(header), sum(header, 0));
            }
        }

        #[test]
        fn updating_equals_summing_again(mut words in prop::collection::vec(any::<u16>(), 2..40), at in any::<prop::sample::Index>(), new in any::<u16>()) {
            let bytes = |w: &[u16]| w.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
            prop_assume!(words.iter().any(|w| *w != 0));
            let before = checksum(&bytes(&words));
            let at = at.index(words.len());
            let old = std::mem::replace(&mut words[at], new);
            prop_assume!(words.iter().any(|w| *w != 0));
            // 0x0000 and 0xffff are the two zeroes of one's complement: compare what they verify.
            let updated = updated(before, old, new);
            let verifies = sum(&bytes(&words), u32::from(updated));
            prop_assert_eq!(verifies, 0xffff);
        }
    }
}
