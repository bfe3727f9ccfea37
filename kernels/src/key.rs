//! Keys of shuffle records: the stable hash, the partition and the prefix that sorts fast.
//!
//! The hash decides which partition a key belongs to, and tasks of one stage may run on different versions of Raftwerk. **It never
//! changes**; golden values in the tests hold it. With `mix(a, b)` = low word xor high word of the 128-bit product:
//!
//! ```text
//! h = SEED;  for each 16 bytes of the key, the last ones padded with zeros (an empty key has one such block):
//!     a, b = the block as two little-endian u64;   h = mix(a ^ A, b ^ h)
//! hash = mix(h ^ B, length ^ A)           partition = (hash >> 32) mod partitions
//! ```
//! The construction is wyhash's inner loop (Wang Yi, github.com/wangyi-fudan/wyhash, public domain) with 16-byte steps only. It
//! resists accidents, not an attacker who chooses keys: those can slow a task down, never make its answer wrong.

const SEED: u64 = 0xa076_1d64_78bd_642f;
const A: u64 = 0xe703_7ed1_a0b4_28db;
const B: u64 = 0x8ebc_6af0_9c88_c6e3;

fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

fn step(h: u64, block: Words) -> u64 {
    mix(block.low ^ A, block.high ^ h)
}

/// Sixteen bytes as two little-endian words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) low: u64,
    pub(crate) high: u64,
}

impl Words {
    fn of(bytes: [u8; 16]) -> Words {
        let both = u128::from_le_bytes(bytes);
        Words { low: both as u64, high: (both >> 64) as u64 }
    }

    /// The first 16 bytes of `text[start..start + length]`, padded with zeros. Reads one whole block wherever the text has one, which
    /// is what makes hashing of short words quick.
    #[inline(always)]
    pub(crate) fn first(text: &[u8], start: usize, length: usize) -> Words {
        if let Some(block) = text.get(start..).and_then(|rest| rest.first_chunk::<16>()) {
            let mask = MASKS[length.min(16)];
            let words = Words::of(*block);
            return Words { low: words.low & mask.low, high: words.high & mask.high };
        }
        Words::padded(&text[start..start + length.min(16)])
    }

    fn padded(bytes: &[u8]) -> Words {
        let mut block = [0; 16];
        block[..bytes.len()].copy_from_slice(bytes);
        Words::of(block)
    }

    /// The sixteen bytes as a number that orders like the bytes do.
    pub(crate) fn sort_prefix(self) -> u128 {
        u128::from(self.low.swap_bytes()) << 64 | u128::from(self.high.swap_bytes())
    }
}

const MASKS: [Words; 17] = {
    let mut masks = [Words { low: 0, high: 0 }; 17];
    let mut length = 0;
    while length <= 16 {
        let mask = if length == 16 { u128::MAX } else { (1 << (8 * length)) - 1 };
        masks[length] = Words { low: mask as u64, high: (mask >> 64) as u64 };
        length += 1;
    }
    masks
};

/// [`hash`] of a key whose first block is at hand.
#[inline(always)]
pub(crate) fn hash_with_first(first: Words, key: &[u8]) -> u64 {
    let mut h = step(SEED, first);
    if key.len() > 16 {
        h = hash_rest(h, &key[16..]);
    }
    mix(h ^ B, key.len() as u64 ^ A)
}

#[inline(never)]
fn hash_rest(mut h: u64, rest: &[u8]) -> u64 {
    let (blocks, tail) = rest.as_chunks::<16>();
    for block in blocks {
        h = step(h, Words::of(*block));
    }
    if tail.is_empty() { h } else { step(h, Words::padded(tail)) }
}

/// The stable hash of a key.
pub fn hash(key: &[u8]) -> u64 {
    hash_with_first(Words::first(key, 0, key.len()), key)
}

/// The partition of a key, `0..partitions`. At least one partition.
pub fn partition(key: &[u8], partitions: u32) -> u32 {
    partition_of_hash((hash(key) >> 32) as u32, partitions)
}

pub(crate) fn partition_of_hash(upper_half: u32, partitions: u32) -> u32 {
    upper_half % partitions
}

/// Numbers are keys in big-endian order, so that keys sort as the numbers do.
pub fn of_u64(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// The number in a key made by [`of_u64`].
pub fn to_u64(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    /// Keys would move to other partitions if one of these changed, and a job under way would count them twice or never.
    #[test]
    fn the_hash_is_what_it_always_was() {
        let golden: [(&[u8], u64); 7] = [
            (b"", 0x96eb_be17_3ff7_2a30),
            (b"a", 0x56c4_8229_c8dc_6482),
            (b"the", 0xc728_ff30_1ab1_c2bd),
            (b"sixteen bytes ..", 0xf1d3_8657_a387_15e1),
            (b"seventeen bytes !", 0x9607_d70d_c0ec_3973),
            (b"a key of more than thirty-two bytes.", 0xa250_e03a_9481_b63a),
            (&[0, 0, 0, 0, 0, 0, 0, 42], 0x3b0b_7aa8_5975_134f),
        ];
        for (key, expected) in golden {
            assert_eq!(hash(key), expected, "{:?} now hashes to {:#018x}", String::from_utf8_lossy(key), hash(key));
        }
    }

    #[test]
    fn a_key_inside_a_text_hashes_like_the_key_alone() {
        let mut random = random("a_key_inside_a_text_hashes_like_the_key_alone");
        for length in 0..80 {
            let before = random.below(20) as usize;
            let after = random.below(20) as usize;
            let text = random.bytes(before + length + after);
            let key = &text[before..before + length];
            let first = Words::first(&text, before, length);
            assert_eq!(first, Words::first(key, 0, length));
            assert_eq!(hash_with_first(first, key), hash(key));
        }
    }

    #[test]
    fn zero_bytes_at_the_end_make_another_key() {
        assert_ne!(hash(b"a"), hash(b"a\0"));
        assert_ne!(hash(b""), hash(&[0; 16]));
    }

    #[test]
    fn the_prefix_orders_like_the_bytes() {
        let mut random = random("the_prefix_orders_like_the_bytes");
        for _ in 0..1000 {
            let mut key = || {
                let length = random.below(20) as usize;
                (0..length).map(|_| [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize]).collect::<Vec<u8>>()
            };
            let (a, b) = (key(), key());
            let prefix = |key: &[u8]| Words::first(key, 0, key.len()).sort_prefix();
            // Equal prefixes say nothing; different ones decide.
            assert!(prefix(&a) == prefix(&b) || (prefix(&a) < prefix(&b)) == (a < b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn partitions_share_the_keys_evenly() {
        let mut sizes = [0; 16];
        (0..16_000).for_each(|number| sizes[partition(&of_u64(number), 16) as usize] += 1);
        assert!(sizes.iter().all(|size| (850..1150).contains(size)), "{sizes:?}");
    }
}
