//! A hash that is the same in every process, on every platform and in every version of this crate.
//!
//! By this hash, clients that don't know of each other send a key to the same pod, even while they are updated one
//! by one. So it can't be the standard library's, which may change with any release. It is XXH3 with 64 bits and no seed.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The hash of `bytes`.
#[inline]
pub(crate) fn stable_hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The hash of `bytes` by a seed.
#[inline]
pub(crate) fn seeded_hash(seed: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

/// The hash of a pair of hashes.
#[inline]
pub(crate) fn mix(one: u64, other: u64) -> u64 {
    // The finaliser of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
    let mut mixed = one ^ other.rotate_left(32);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change here sends keys elsewhere, and makes two versions of a client disagree.
    #[test]
    fn the_hash_never_changes() {
        let long: Vec<u8> = (0..=255).cycle().take(1_000).collect();
        assert_eq!(stable_hash(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(stable_hash(b"web-0"), 0xfa25_73f1_cfb8_2de5);
        assert_eq!(stable_hash(b"10.244.1.7:80"), 0x2e72_9b6c_ebaf_80d3);
        assert_eq!(stable_hash(&long), 0xd33d_d80b_46f6_0e50);
        assert_eq!(seeded_hash(0, b"web-0"), stable_hash(b"web-0"));
        assert_eq!(seeded_hash(7, b"web-0"), 0xc7b5_8077_ffcb_1596);
        assert_eq!(mix(1, 2), 0xc72c_0d73_624b_3f8e);
    }
}
