//! Buffers that finished dispatches gave back, for the next ones: making a buffer takes drivers longer than a small dispatch does.

use wgpu::{Buffer, BufferUsages};

#[derive(Default)]
pub(super) struct Pool {
    spare: Vec<Buffer>,
}

impl Pool {
    /// The smallest spare buffer that fits. One of more than twice the size is left for whoever needs it.
    pub(super) fn take(&mut self, usage: BufferUsages, bytes: u64) -> Option<Buffer> {
        let fits = |buffer: &Buffer| buffer.usage() == usage && (bytes..=bytes.saturating_mul(2).max(LEAST)).contains(&buffer.size());
        let best = self.spare.iter().enumerate().filter(|(_, buffer)| fits(buffer)).min_by_key(|(_, buffer)| buffer.size());
        let index = best.map(|(index, _)| index)?;
        Some(self.spare.swap_remove(index))
    }

    /// Keeps a buffer for later, as long as all of them together take no more than `limit` bytes; the oldest go first.
    pub(super) fn put(&mut self, buffer: Buffer, limit: u64) {
        self.spare.push(buffer);
        let mut held: u64 = self.spare.iter().map(Buffer::size).sum();
        while held > limit && !self.spare.is_empty() {
            held -= self.spare.remove(0).size();
        }
    }

    pub(super) fn clear(&mut self) {
        self.spare.clear();
    }
}

/// Smaller buffers would save nothing.
pub(super) const LEAST: u64 = 4096;

/// The size of a new buffer: a little more than asked for, so that dispatches of nearly the same size share it.
pub(super) fn size_class(bytes: u64, most: u64) -> u64 {
    let step = (bytes.checked_next_power_of_two().unwrap_or(bytes) / 8).max(LEAST);
    let rounded = bytes.next_multiple_of(step);
    // What exceeds the device's limits is asked for as it is and refused.
    if rounded <= most { rounded } else { bytes }
}

#[cfg(test)]
#[test]
fn sizes_grow_by_a_quarter_at_most_and_stay_within_the_limit() {
    assert_eq!(size_class(4, 1 << 30), 4096);
    assert_eq!(size_class(1 << 20, 1 << 30), 1 << 20);
    assert_eq!(size_class((1 << 20) + 4, 1 << 30), (1 << 20) + (1 << 18));
    assert_eq!(size_class(1000, 1000), 1000);
    assert_eq!(size_class(2000, 1000), 2000);
    for bytes in (4..100_000).step_by(52) {
        let size = size_class(bytes, 1 << 30);
        assert!(size >= bytes && size <= bytes + (bytes / 4).max(4096) && size.is_multiple_of(4), "{bytes}: {size}");
    }
}
