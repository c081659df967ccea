//! Content made shorter: pieces of content, each of which can be read by itself.
//!
//! What a piece unpacks to is bounded before it is unpacked: by the caller, and by [`MAX_RATIO`]. So neither a message nor a
//! file can grow beyond what it was announced to be, and no peer can make much of little.

use super::code::{Code, Reader, numbers};
use super::error::{Fault, WireError};
use std::fmt;

/// A packed piece is no shorter than this part of what it holds.
pub const MAX_RATIO: usize = 200;
/// On one core 340 MB/s of text at a ratio of 2.3: no slower than a link of 2 Gbit/s.
const LEVEL: i32 = 1;
/// Packed is only what becomes shorter by more than one part in so many.
const GAIN: usize = 10;
/// After a piece that did not become shorter, so much of the next one is tried first.
const SAMPLE: usize = 64 << 10;
/// Shorter pieces are not tried.
const SHORTEST: usize = 128;
/// Most pieces in a row that are not tried.
const SKIPPED: u32 = 15;
/// A frame of zstd that holds nothing: magic and length, both LE u32, before what is skipped.
const SKIP_MAGIC: u32 = 0x184d_2a50;
const SKIP_HEAD: usize = 8;

/// Content in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// As it is.
    Plain(Box<[u8]>),
    /// As frames of zstd.
    Packed(Box<[u8]>),
}

impl Data {
    /// Packs a piece where that makes it shorter.
    #[must_use]
    pub fn of(bytes: &[u8], packer: Option<&mut Packer>) -> Data {
        match packer.and_then(|packer| packer.pack(bytes)) {
            Some(packed) => Data::Packed(packed.into()),
            None => Data::Plain(bytes.into()),
        }
    }

    /// What it holds, which must be at most so many bytes.
    ///
    /// # Errors
    /// It is more, or nothing that was packed.
    pub fn open<'a>(&'a self, most: usize, unpacker: &'a mut Unpacker) -> Result<&'a [u8], WireError> {
        let bytes = match self {
            Data::Plain(bytes) => bytes,
            Data::Packed(packed) => unpacker.unpack(packed, most)?,
        };
        if bytes.len() > most {
            return Err(fault(Fault::Large { found: bytes.len() as u64, most: most as u64 }));
        }
        Ok(bytes)
    }

    /// Bytes of it in the message.
    #[must_use]
    pub fn len(&self) -> usize {
        let (Data::Plain(bytes) | Data::Packed(bytes)) = self;
        bytes.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Data {
    fn default() -> Data {
        Data::Plain(Box::default())
    }
}

impl Code for Data {
    fn put(&self, out: &mut Vec<u8>) {
        let (Data::Plain(bytes) | Data::Packed(bytes)) = self;
        out.push(u8::from(matches!(self, Data::Packed(_))));
        out.extend_from_slice(bytes);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Data, WireError> {
        let packed = bool::get(reader)?;
        let bytes: Box<[u8]> = reader.take(reader.left())?.into();
        reader.check(!(packed && bytes.is_empty()), Fault::Empty)?;
        Ok(if packed { Data::Packed(bytes) } else { Data::Plain(bytes) })
    }
}

fn fault(fault: Fault) -> WireError {
    WireError { field: "Data", offset: 0, fault }
}

/// Is content packed?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Packing {
    /// Never.
    Off,
    /// Where it becomes shorter by a tenth; what does not is tried less and less often.
    #[default]
    Auto,
    /// Wherever it becomes shorter at all; every piece is tried.
    On,
}

numbers!(Packing { Off = 0, Auto = 1, On = 2 });

/// Makes pieces shorter; learns from those that do not become it.
pub struct Packer {
    compressor: zstd::bulk::Compressor<'static>,
    /// Did the last piece become shorter?
    gains: bool,
    /// Pieces that were not tried in a row, and pieces that are not to be tried.
    missed: u32,
    skip: u32,
    /// Nothing is learned, and every gain is taken.
    eager: bool,
}

impl Packer {
    /// A packer for the first piece.
    #[must_use]
    pub fn new() -> Packer {
        let compressor = zstd::bulk::Compressor::new(LEVEL).expect("zstd has this level");
        Packer { compressor, gains: false, missed: 0, skip: 0, eager: false }
    }

    /// As it is wished for.
    #[must_use]
    pub fn of(packing: Packing) -> Option<Packer> {
        let eager = packing == Packing::On;
        (packing != Packing::Off).then(|| Packer { eager, ..Packer::new() })
    }

    /// Forgets what it learned: other content follows.
    pub fn begin(&mut self) {
        (self.gains, self.missed, self.skip) = (false, 0, 0);
    }

    /// As [`Packer::begin`], for one piece of so many kinds of content that no sample tells of it.
    pub fn begin_mixed(&mut self) {
        (self.gains, self.missed, self.skip) = (true, 0, 0);
    }

    fn pack(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.eager {
            return self.shorter(bytes).map(|packed| padded(packed, bytes.len()));
        }
        if self.skip > 0 || bytes.len() < SHORTEST {
            self.skip = self.skip.saturating_sub(1);
            return None;
        }
        let sampled = self.gains || bytes.len() <= SAMPLE || self.shorter(&bytes[..SAMPLE]).is_some();
        let packed = sampled.then(|| self.shorter(bytes)).flatten();
        self.gains = packed.is_some();
        self.missed = if self.gains { 0 } else { (2 * self.missed + 1).min(SKIPPED) };
        self.skip = self.missed;
        packed.map(|packed| padded(packed, bytes.len()))
    }

    fn shorter(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        // What cannot be packed is sent as it is.
        let packed = self.compressor.compress(bytes).ok()?;
        let gain = if self.eager { 0 } else { bytes.len() / GAIN };
        (packed.len() < bytes.len() - gain).then_some(packed)
    }
}

impl Default for Packer {
    fn default() -> Packer {
        Packer::new()
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("gains", &self.gains).field("skip", &self.skip).finish_non_exhaustive()
    }
}

/// Makes a piece as long as [`MAX_RATIO`] demands, by a frame that holds nothing.
fn padded(mut packed: Vec<u8>, holds: usize) -> Vec<u8> {
    let least = holds.div_ceil(MAX_RATIO);
    if packed.len() < least {
        let skipped = (least - packed.len()).saturating_sub(SKIP_HEAD);
        packed.extend(SKIP_MAGIC.to_le_bytes());
        packed.extend((skipped as u32).to_le_bytes());
        packed.resize(packed.len() + skipped, 0);
    }
    packed
}

/// Reads packed pieces.
pub struct Unpacker {
    decompressor: zstd::bulk::Decompressor<'static>,
    buffer: Vec<u8>,
}

impl Unpacker {
    /// For any pieces.
    #[must_use]
    pub fn new() -> Unpacker {
        let decompressor = zstd::bulk::Decompressor::new().expect("zstd needs nothing to read");
        Unpacker { decompressor, buffer: Vec::new() }
    }

    fn unpack(&mut self, packed: &[u8], most: usize) -> Result<&[u8], WireError> {
        let most = most.min(packed.len().saturating_mul(MAX_RATIO));
        self.buffer.clear();
        self.buffer.reserve(most);
        let unpacked = self.decompressor.decompress_to_buffer(packed, &mut self.buffer);
        // There may be more room than was asked for.
        if unpacked.is_err() || self.buffer.len() > most {
            return Err(fault(Fault::Contradiction("packed content that cannot be unpacked to what it may hold")));
        }
        Ok(&self.buffer)
    }
}

impl Default for Unpacker {
    fn default() -> Unpacker {
        Unpacker::new()
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").field("held", &self.buffer.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MAX_DATA;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn text(len: usize) -> Vec<u8> {
        (0..)
            .flat_map(|line: u32| format!("line {line}, {}\n", blake3::hash(&line.to_le_bytes()).to_hex()).into_bytes())
            .take(len)
            .collect()
    }

    fn opened(data: &Data, most: usize) -> Result<Vec<u8>, WireError> {
        data.open(most, &mut Unpacker::new()).map(<[u8]>::to_vec)
    }

    #[test]
    fn a_piece_comes_back_and_is_packed_where_that_pays() {
        for (bytes, pays) in
            [(text(MAX_DATA), true), (noise(MAX_DATA), false), (vec![0; MAX_DATA], true), (text(100), false), (vec![], false)]
        {
            let data = Data::of(&bytes, Some(&mut Packer::new()));
            assert_eq!(matches!(data, Data::Packed(_)), pays, "{}", bytes.len());
            assert!(!pays || data.len() * 10 < bytes.len() * 9);
            assert!(bytes.len() <= data.len() * MAX_RATIO);
            assert_eq!(opened(&data, bytes.len()).unwrap(), bytes);
            assert!(bytes.is_empty() || opened(&data, bytes.len() - 1).is_err());
        }
    }

    #[test]
    fn packing_is_what_was_wished_for() {
        assert!(Packer::of(Packing::Off).is_none());
        // Of sixteen bytes one is the same in all: a gain of less than a tenth.
        let mut dense = noise(SAMPLE);
        dense.chunks_mut(16).for_each(|chunk| chunk[0] = 0);
        let packed = |packing| {
            let mut packer = Packer::of(packing);
            let all: Vec<bool> = (0..3).map(|_| matches!(Data::of(&dense, packer.as_mut()), Data::Packed(_))).collect();
            all
        };
        assert_eq!(packed(Packing::Off), [false; 3]);
        assert_eq!(packed(Packing::Auto), [false; 3]);
        let mut packer = Packer::of(Packing::On);
        for bytes in [&noise(SAMPLE)[..], &noise(SAMPLE), &text(SAMPLE), &vec![0; MAX_DATA], b"x", b""] {
            let data = Data::of(bytes, packer.as_mut());
            assert!(data.len() <= bytes.len() && bytes.len() <= data.len().max(1) * MAX_RATIO);
            assert_eq!(opened(&data, bytes.len()).unwrap(), bytes);
        }
        assert!(matches!(Data::of(&text(SAMPLE), packer.as_mut()), Data::Packed(_)));
    }

    #[test]
    fn what_makes_much_of_little_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 100 << 20], LEVEL).unwrap();
        assert!(opened(&Data::Packed(bomb.into()), MAX_DATA).is_err());
        let dense = zstd::bulk::compress(&vec![0; MAX_DATA], LEVEL).unwrap();
        assert!(dense.len() * MAX_RATIO < MAX_DATA);
        assert!(opened(&Data::Packed(dense.into()), MAX_DATA).is_err());
        for broken in [&b"x"[..], b"not packed at all", &[0; 1000]] {
            assert!(opened(&Data::Packed(broken.into()), MAX_DATA).is_err());
        }
    }

    #[test]
    fn content_that_does_not_become_shorter_is_tried_less_and_less_often() {
        let (mut packer, noise, text) = (Packer::new(), noise(SAMPLE), text(SAMPLE));
        let packed = |packer: &mut Packer, bytes: &[u8]| matches!(Data::of(bytes, Some(packer)), Data::Packed(_));
        (0..100).for_each(|_| assert!(!packed(&mut packer, &noise)));
        let missed = (0..).take_while(|_| !packed(&mut packer, &text)).count();
        assert!((1..=SKIPPED as usize).contains(&missed), "{missed}");
        assert!(packed(&mut packer, &text));
    }
}
