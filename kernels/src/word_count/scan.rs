//! Finds the words of a text, 64 bytes at a time: one bit per byte says "white space", and the words' ends are where the bits change.

/// Calls `word(start, length)` for each word in order and returns the number of newlines.
pub(super) fn words(text: &[u8], mut word: impl FnMut(usize, usize)) -> u64 {
    let mut newlines = 0;
    // Start of the word that reaches into the next block.
    let mut open: Option<usize> = None;
    let (blocks, tail) = text.as_chunks::<64>();
    let mut padded = [b' '; 64];
    padded[..tail.len()].copy_from_slice(tail);
    for (index, block) in blocks.iter().chain(std::iter::once(&padded)).enumerate() {
        let base = index * 64;
        let masks = masks(block);
        newlines += u64::from(masks.newline.count_ones());
        let letters = !masks.space;
        // A set bit is the first byte of a word or the first byte after one; they take turns.
        let mut changes = letters ^ (letters << 1 | u64::from(open.is_some()));
        while changes != 0 {
            let at = base + changes.trailing_zeros() as usize;
            changes &= changes - 1;
            open = match open {
                None => Some(at),
                Some(start) => {
                    word(start, at - start);
                    None
                }
            };
        }
    }
    // The padding ends a word that reaches the end of the text, unless the tail is a whole block of letters: it is at most 63 bytes.
    debug_assert!(open.is_none());
    newlines
}

struct Masks {
    space: u64,
    newline: u64,
}

#[cfg(target_arch = "x86_64")]
fn masks(block: &[u8; 64]) -> Masks {
    use std::arch::x86_64::*;
    let mut masks = Masks { space: 0, newline: 0 };
    for (index, quarter) in block.as_chunks::<16>().0.iter().enumerate() {
        // SAFETY: SSE2 belongs to every x86-64 processor, and the unaligned load reads exactly the 16 bytes of `quarter`.
        let (space, newline) = unsafe {
            let bytes = _mm_loadu_si128(quarter.as_ptr().cast());
            // \t..=\r are five values in a row: minus 9 they are the unsigned bytes below 5, that is those which min(x, 4) leaves alone.
            let from_tab = _mm_sub_epi8(bytes, _mm_set1_epi8(9));
            let control = _mm_cmpeq_epi8(_mm_min_epu8(from_tab, _mm_set1_epi8(4)), from_tab);
            let space = _mm_or_si128(control, _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b' ' as i8)));
            let newline = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\n' as i8));
            (_mm_movemask_epi8(space) as u16, _mm_movemask_epi8(newline) as u16)
        };
        masks.space |= u64::from(space) << (16 * index);
        masks.newline |= u64::from(newline) << (16 * index);
    }
    masks
}

#[cfg(not(target_arch = "x86_64"))]
fn masks(block: &[u8; 64]) -> Masks {
    plain_masks(block)
}

/// The definition of white space, byte by byte; the quick way above is tested against it.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn plain_masks(block: &[u8; 64]) -> Masks {
    let mut masks = Masks { space: 0, newline: 0 };
    for (index, byte) in block.iter().enumerate() {
        masks.space |= u64::from(matches!(byte, b' ' | 9..=13)) << index;
        masks.newline |= u64::from(*byte == b'\n') << index;
    }
    masks
}

#[cfg(test)]
#[test]
fn both_ways_to_find_white_space_agree_on_every_byte() {
    for first in (0..256).step_by(64) {
        let block: [u8; 64] = std::array::from_fn(|index| (first + index) as u8);
        let (quick, plain) = (masks(&block), plain_masks(&block));
        assert_eq!((quick.space, quick.newline), (plain.space, plain.newline));
    }
}
