//! Finds separators and line ends, 64 bytes at a time.

/// Positions of separators and line ends, in order, with jumps forward over what is in quotes.
pub(super) struct Scan {
    separator: u8,
    end: usize,
    /// Where the block begins, of which `found` has one bit for each byte that was found and not yet told.
    block: usize,
    found: u64,
}

impl Scan {
    pub(super) fn new(file: &[u8], separator: u8, start: usize, end: usize) -> Scan {
        let mut scan = Scan { separator, end, block: start, found: 0 };
        scan.jump(file, start);
        scan
    }

    /// Goes on at `at`.
    pub(super) fn jump(&mut self, file: &[u8], at: usize) {
        self.block = at;
        self.found = self.look(file);
    }

    /// The next one; `None` behind the last.
    #[inline(always)]
    pub(super) fn next(&mut self, file: &[u8]) -> Option<usize> {
        while self.found == 0 {
            self.block += 64;
            if self.block >= self.end {
                return None;
            }
            self.found = self.look(file);
        }
        let at = self.block + self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        Some(at)
    }

    #[inline(always)]
    fn look(&self, file: &[u8]) -> u64 {
        if self.block + 64 <= self.end
            && let Some(block) = file.get(self.block..).and_then(|rest| rest.first_chunk::<64>())
        {
            return found(block, self.separator);
        }
        self.look_at_rest(file)
    }

    #[inline(never)]
    fn look_at_rest(&self, file: &[u8]) -> u64 {
        let rest = file.get(self.block..self.end).unwrap_or_default();
        let plain = |(at, byte): (usize, &u8)| u64::from(*byte == self.separator || *byte == b'\n') << at;
        rest.iter().take(64).enumerate().map(plain).sum()
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn found(block: &[u8; 64], separator: u8) -> u64 {
    use std::arch::x86_64::*;
    let mut found = 0;
    for (index, quarter) in block.as_chunks::<16>().0.iter().enumerate() {
        // SAFETY: SSE2 belongs to every x86-64 processor, and the unaligned load reads exactly the 16 bytes of `quarter`.
        let bits = unsafe {
            let bytes = _mm_loadu_si128(quarter.as_ptr().cast());
            let separators = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(separator as i8));
            let lines = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\n' as i8));
            _mm_movemask_epi8(_mm_or_si128(separators, lines)) as u16
        };
        found |= u64::from(bits) << (16 * index);
    }
    found
}

#[cfg(not(target_arch = "x86_64"))]
fn found(block: &[u8; 64], separator: u8) -> u64 {
    block.iter().enumerate().map(|(at, byte)| u64::from(*byte == separator || *byte == b'\n') << at).sum()
}
