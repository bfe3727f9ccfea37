//! Frames between an agent and an executor: a little-endian `u32` length, then one message.
//!
//! ```text
//! | length: u32 le | protobuf message of that length | length | message | ..
//! ```
use raftwerk_proto::Wire;

/// A longer frame is taken for garbage. A lease of a million tasks with four tallies each reports 40 MiB at most.
pub const FRAME_BYTES_MAX: usize = 256 << 20;

/// Appends one frame; many frames go out in one write.
pub fn push(buffer: &mut Vec<u8>, message: &impl Wire) {
    let length = message.wire_bytes();
    buffer.reserve(4 + length);
    buffer.extend_from_slice(&(length as u32).to_le_bytes());
    message.append_to(buffer);
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes is longer than any message")]
    TooLong(usize),
    #[error("a frame does not hold the expected message")]
    Decode(#[from] prost::DecodeError),
}

/// Bytes received and not decoded yet.
#[derive(Default)]
pub struct Frames {
    buffer: Vec<u8>,
    start: usize,
}

impl Frames {
    /// Room for `bytes` more at the end; what was read is then announced by [`Frames::filled`].
    pub fn space(&mut self, bytes: usize) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let length = self.buffer.len();
        self.buffer.resize(length + bytes, 0);
        &mut self.buffer[length..]
    }

    /// Of the last `space` bytes only `read` were filled.
    pub fn filled(&mut self, space: usize, read: usize) {
        let length = self.buffer.len();
        self.buffer.truncate(length - space + read);
    }

    pub fn decode<M: Wire>(&mut self) -> Result<Option<M>, FrameError> {
        let bytes = &self.buffer[self.start..];
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let message = M::from_wire_slice(frame)?;
        self.start += 4 + length;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::LeaseId;

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let mut frames = Frames::default();
            frames.space(bytes.len()).copy_from_slice(&bytes);
            while let Ok(Some(_)) = frames.decode::<raftwerk_proto::v1::FromExecutor>() {}
        }
    }

    #[test]
    fn frames_survive_any_cut() {
        let sent: Vec<LeaseId> = (0..20).map(|i| LeaseId { epoch: i, index: u64::from(i) << 40, position: 7 }).collect();
        let mut bytes = Vec::new();
        sent.iter().for_each(|id| push(&mut bytes, id));
        for piece in 1..40 {
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for chunk in bytes.chunks(piece) {
                frames.space(64)[..chunk.len()].copy_from_slice(chunk);
                frames.filled(64, chunk.len());
                while let Some(id) = frames.decode::<LeaseId>().unwrap() {
                    got.push(id);
                }
            }
            assert_eq!(got, sent, "pieces of {piece}");
        }
    }
}
