//! Messages of shuffle data as LZ4 blocks, where the reader asked for it. What lies on disk stays as it was written, because a worker maps its own
//! blocks where they lie; checksums are of the blocks as they lie there, so that they cover this too.

use bytes::Bytes;
use raftwerk_proto::Wire;
use raftwerk_proto::v1::{CopiedBlocks, ShuffleBlocks};
use raftwerk_transport::MAX_MESSAGE_BYTES;

/// The message, compressed if that saves a tenth of it.
pub(super) fn pack(message: ShuffleBlocks) -> ShuffleBlocks {
    match compress(&message) {
        Some((lz4, unpacked_bytes)) => ShuffleBlocks { blocks: Vec::new(), lz4, unpacked_bytes },
        None => message,
    }
}

/// The same of a message of a second copy.
pub(super) fn pack_copied(message: CopiedBlocks) -> CopiedBlocks {
    match compress(&message) {
        Some((lz4, unpacked_bytes)) => CopiedBlocks { blocks: Vec::new(), lz4, unpacked_bytes },
        None => message,
    }
}

fn compress(message: &impl Wire) -> Option<(Bytes, u32)> {
    let plain = message.to_wire();
    let unpacked_bytes = u32::try_from(plain.len()).ok()?;
    let lz4 = lz4_flex::block::compress(&plain);
    (lz4.len() <= plain.len() / 10 * 9).then(|| (lz4.into(), unpacked_bytes))
}

/// What was packed, or the message as it is.
pub(super) fn unpack(message: ShuffleBlocks) -> Result<ShuffleBlocks, String> {
    if message.lz4.is_empty() {
        return Ok(message);
    }
    let unpacked: ShuffleBlocks = decompress(&message.lz4, message.unpacked_bytes)?;
    if unpacked.lz4.is_empty() { Ok(unpacked) } else { Err("a compressed message holds another one".into()) }
}

/// The same of a message of a second copy.
pub(super) fn unpack_copied(message: CopiedBlocks) -> Result<CopiedBlocks, String> {
    if message.lz4.is_empty() {
        return Ok(message);
    }
    let unpacked: CopiedBlocks = decompress(&message.lz4, message.unpacked_bytes)?;
    if unpacked.lz4.is_empty() { Ok(unpacked) } else { Err("a compressed message holds another one".into()) }
}

fn decompress<M: Wire>(lz4: &[u8], unpacked_bytes: u32) -> Result<M, String> {
    let bytes = unpacked_bytes as usize;
    if bytes > MAX_MESSAGE_BYTES {
        return Err(format!("a compressed message says that it has {bytes} bytes, more than any has"));
    }
    let plain = lz4_flex::block::decompress(lz4, bytes).map_err(|error| format!("a compressed message is damaged: {error}"))?;
    if plain.len() != bytes {
        return Err(format!("a compressed message is damaged: it has {} bytes, not {bytes}", plain.len()));
    }
    M::from_wire(Bytes::from(plain)).map_err(|error| format!("a compressed message is damaged: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use raftwerk_proto::v1::{CopiedBlock, ShuffleBlock};

    fn message(data: &[u8]) -> ShuffleBlocks {
        let block = |task| ShuffleBlock { task, crc32c: 7, data: data.to_vec().into(), last: true, bytes: 0 };
        ShuffleBlocks { blocks: vec![block(1), block(2)], ..ShuffleBlocks::default() }
    }

    #[test]
    fn what_was_packed_comes_back() {
        let text = message("the same words again and again, ".repeat(1000).as_bytes());
        let packed = pack(text.clone());
        assert!(packed.blocks.is_empty() && packed.encoded_len() * 10 < text.encoded_len(), "{}", packed.encoded_len());
        assert_eq!(unpack(packed).unwrap(), text);
        assert_eq!(unpack(text.clone()).unwrap(), text, "what did not ask for it reads on");
    }

    #[test]
    fn so_do_messages_of_a_second_copy() {
        let block = message(b"the same words again and again").blocks.remove(0);
        let copied = CopiedBlocks { blocks: vec![CopiedBlock { partition: 3, block: Some(block) }; 100], ..CopiedBlocks::default() };
        let packed = pack_copied(copied.clone());
        assert!(packed.blocks.is_empty() && packed.encoded_len() * 10 < copied.encoded_len());
        assert_eq!(unpack_copied(packed.clone()).unwrap(), copied);
        let cut = CopiedBlocks { lz4: packed.lz4.slice(..packed.lz4.len() - 1), ..packed };
        assert!(unpack_copied(cut).is_err());
    }

    #[test]
    fn what_gets_no_shorter_goes_as_it_is() {
        let mut random = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 56) as u8
        })
        .take(20_000)
        .collect();
        let message =
            ShuffleBlocks { blocks: vec![ShuffleBlock { data: noise.into(), ..ShuffleBlock::default() }], ..ShuffleBlocks::default() };
        assert_eq!(pack(message.clone()), message);
    }

    #[test]
    fn a_damaged_message_is_an_error_and_takes_no_memory() {
        let packed = pack(message(&[b'x'; 5000]));
        for at in 0..packed.lz4.len() {
            for bit in 0..8 {
                let mut lz4 = packed.lz4.to_vec();
                lz4[at] ^= 1 << bit;
                // An error, or other blocks, whose checksums tell.
                let _ = unpack(ShuffleBlocks { lz4: lz4.into(), ..packed.clone() });
            }
            let cut = ShuffleBlocks { lz4: packed.lz4.slice(..at), ..packed.clone() };
            assert!(at == 0 || unpack(cut).is_err());
        }
        let huge = ShuffleBlocks { unpacked_bytes: u32::MAX, ..packed.clone() };
        assert!(unpack(huge).unwrap_err().contains("more than any has"));
        let twice = ShuffleBlocks {
            blocks: Vec::new(),
            unpacked_bytes: packed.encoded_len() as u32,
            lz4: lz4_flex::block::compress(&packed.encode_to_vec()).into(),
        };
        assert!(unpack(twice).unwrap_err().contains("another one"));
    }
}
