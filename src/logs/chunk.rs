//! The stored form of a piece of log: frames, each with its stream and time, packed and checked.
//!
//! A frame is `stream (1 byte), time (zigzag varint, nanoseconds since the frame before), length
//! (varint), bytes`. zstd goes over the whole where it pays. The checksum is of the packed frames.

use bytes::Bytes;

use crate::runner::{LogFrame, LogStream};
use crate::store::{NewChunk, StoredChunk};

const PLAIN: &str = "frames";
const ZSTD: &str = "frames+zstd";
/// Below this, compressing costs more than it saves.
const WORTH_COMPRESSING: usize = 512;
/// No chunk of ours comes near it; a broken one must not take all memory.
const MOST_UNPACKED: usize = 64 << 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("log chunk {seq} has encoding {encoding:?}, which this version does not know")]
    Encoding { seq: i32, encoding: String },
    #[error("log chunk {seq} does not match its checksum")]
    Checksum { seq: i32 },
    #[error("log chunk {seq} is broken")]
    Broken { seq: i32 },
}

/// Collects frames until they are written as one chunk.
#[derive(Debug, Default)]
pub struct Builder {
    packed: Vec<u8>,
    payload: usize,
    first_at: Option<i64>,
    previous_at: i64,
    last_at: i64,
}

impl Builder {
    pub fn push(&mut self, frame: &LogFrame) {
        self.packed.push(match frame.stream {
            LogStream::Stdout => 1,
            LogStream::Stderr => 2,
        });
        put_varint(&mut self.packed, zigzag(frame.at.wrapping_sub(self.previous_at)));
        put_varint(&mut self.packed, frame.bytes.len() as u64);
        self.packed.extend_from_slice(&frame.bytes);
        self.previous_at = frame.at;
        self.last_at = if self.first_at.is_none() { frame.at } else { self.last_at.max(frame.at) };
        self.first_at.get_or_insert(frame.at);
        self.payload += frame.bytes.len();
    }

    pub const fn is_empty(&self) -> bool {
        self.first_at.is_none()
    }

    /// How many bytes of log it holds.
    pub const fn payload(&self) -> usize {
        self.payload
    }

    /// The chunk, at its place in the log. Leaves the builder empty.
    pub fn take(&mut self, container: &str, seq: i32, byte_offset: i64) -> NewChunk {
        let it = std::mem::take(self);
        let crc32c = crc32c::crc32c(&it.packed);
        let compressed = (it.packed.len() >= WORTH_COMPRESSING)
            .then(|| zstd::bulk::compress(&it.packed, 1).ok())
            .flatten()
            .filter(|small| small.len() * 10 < it.packed.len() * 9);
        let (encoding, data) = match compressed {
            Some(small) => (ZSTD, small),
            None => (PLAIN, it.packed),
        };
        NewChunk {
            container: container.to_owned(),
            seq,
            byte_offset,
            byte_len: i32::try_from(it.payload).unwrap_or(i32::MAX),
            first_at: it.first_at.unwrap_or_default(),
            last_at: it.last_at,
            crc32c,
            encoding,
            data,
        }
    }
}

/// The frames of a chunk, if it is whole.
pub fn unpack(chunk: &StoredChunk) -> Result<Vec<LogFrame>, Error> {
    let seq = chunk.seq;
    let packed: Bytes = match chunk.encoding.as_str() {
        PLAIN => Bytes::copy_from_slice(&chunk.data),
        ZSTD => zstd::bulk::decompress(&chunk.data, MOST_UNPACKED)
            .map_err(|_| Error::Broken { seq })?
            .into(),
        other => return Err(Error::Encoding { seq, encoding: other.to_owned() }),
    };
    if crc32c::crc32c(&packed) != chunk.crc32c {
        return Err(Error::Checksum { seq });
    }
    let mut frames = Vec::new();
    let mut at = 0_i64;
    let mut position = 0;
    while position < packed.len() {
        let frame = read_frame(&packed, &mut position, &mut at).ok_or(Error::Broken { seq })?;
        frames.push(frame);
    }
    Ok(frames)
}

/// The bytes of stdout in a chunk that is not stored yet.
pub fn stdout_of(chunk: &NewChunk) -> Result<Vec<u8>, Error> {
    let stored = StoredChunk {
        seq: chunk.seq,
        byte_offset: chunk.byte_offset,
        byte_len: chunk.byte_len,
        last_at: chunk.last_at,
        crc32c: chunk.crc32c,
        encoding: chunk.encoding.to_owned(),
        data: chunk.data.clone(),
    };
    let frames = unpack(&stored)?;
    let stdout = frames.iter().filter(|it| it.stream == LogStream::Stdout);
    Ok(stdout.flat_map(|it| it.bytes.iter().copied()).collect())
}

fn read_frame(packed: &Bytes, position: &mut usize, at: &mut i64) -> Option<LogFrame> {
    let stream = match packed.get(*position)? {
        1 => LogStream::Stdout,
        2 => LogStream::Stderr,
        _ => return None,
    };
    *position += 1;
    *at = at.wrapping_add(unzigzag(take_varint(packed, position)?));
    let len = usize::try_from(take_varint(packed, position)?).ok()?;
    let end = position.checked_add(len).filter(|end| *end <= packed.len())?;
    let bytes = packed.slice(*position..end);
    *position = end;
    Some(LogFrame { at: *at, stream, bytes })
}

const fn zigzag(it: i64) -> u64 {
    ((it << 1) ^ (it >> 63)).cast_unsigned()
}

const fn unzigzag(it: u64) -> i64 {
    (it >> 1).cast_signed() ^ -((it & 1).cast_signed())
}

fn put_varint(to: &mut Vec<u8>, mut it: u64) {
    while it >= 0x80 {
        to.push((it & 0x7f) as u8 | 0x80);
        it >>= 7;
    }
    to.push(it as u8);
}

fn take_varint(from: &[u8], position: &mut usize) -> Option<u64> {
    let mut it = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *from.get(*position)?;
        *position += 1;
        it |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(it);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(new: NewChunk) -> StoredChunk {
        StoredChunk {
            seq: new.seq,
            byte_offset: new.byte_offset,
            byte_len: new.byte_len,
            last_at: new.last_at,
            crc32c: new.crc32c,
            encoding: new.encoding.to_owned(),
            data: new.data,
        }
    }

    fn packed(frames: &[LogFrame]) -> StoredChunk {
        let mut builder = Builder::default();
        for it in frames {
            builder.push(it);
        }
        stored(builder.take("main", 0, 0))
    }

    fn any_frame() -> impl Strategy<Value = LogFrame> {
        (any::<i64>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200)).prop_map(
            |(at, stderr, bytes)| LogFrame {
                at,
                stream: if stderr { LogStream::Stderr } else { LogStream::Stdout },
                bytes: bytes.into(),
            },
        )
    }

    proptest! {
        #[test]
        fn frames_come_back_as_they_were(frames in proptest::collection::vec(any_frame(), 0..50)) {
            let chunk = packed(&frames);
            let bytes: usize = frames.iter().map(|it| it.bytes.len()).sum();
            prop_assert_eq!(usize::try_from(chunk.byte_len).unwrap(), bytes);
            prop_assert_eq!(unpack(&chunk).unwrap(), frames);
        }

        #[test]
        fn broken_data_is_an_error_and_no_panic(
            frames in proptest::collection::vec(any_frame(), 1..20), at: usize, flip in 1_u8..,
        ) {
            let mut chunk = packed(&frames);
            let at = at % chunk.data.len();
            chunk.data[at] ^= flip;
            prop_assert!(unpack(&chunk).is_err());
        }
    }

    #[test]
    fn text_is_compressed_and_noise_is_not() {
        let frame =
            |bytes: Vec<u8>| LogFrame { at: 1, stream: LogStream::Stdout, bytes: bytes.into() };
        let text = packed(&[frame(b"the same line again\n".repeat(500))]);
        assert_eq!(text.encoding, ZSTD);
        assert!(text.data.len() < 500);
        assert_eq!(packed(&[frame(b"short\n".to_vec())]).encoding, PLAIN);
    }
}
