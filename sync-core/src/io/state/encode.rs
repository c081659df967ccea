//! Compact blobs of the entry table: variable-length integers, signatures, attributes, events.

use super::error::StateError;
use crate::entry::{Attrs, Content, Hash, Kind, Object, Signature};
use smallvec::SmallVec;

/// An encoded column.
pub(super) type Blob = SmallVec<[u8; 64]>;

/// Events written out in a row; a longer set is interned and referred to.
pub(super) const INLINE_EVENTS: usize = 3;

/// Appends an unsigned integer, 7 bits a byte, the lowest first.
pub(super) fn put_uint(out: &mut impl Extend<u8>, mut value: u64) {
    while value >= 0x80 {
        out.extend([(value as u8) | 0x80]);
        value >>= 7;
    }
    out.extend([value as u8]);
}

/// Appends a signed integer, small magnitudes short.
pub(super) fn put_int(out: &mut impl Extend<u8>, value: i64) {
    put_uint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Reads what was appended; every read is `None` where the bytes end or make no sense.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(part)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    #[inline]
    pub(super) fn uint(&mut self) -> Option<u64> {
        match self.byte()? {
            // Most numbers are small.
            byte if byte < 0x80 => Some(u64::from(byte)),
            byte => self.long_uint(byte),
        }
    }

    /// The rest of an integer that began with `first`.
    fn long_uint(&mut self, first: u8) -> Option<u64> {
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return None;
            }
            value |= part << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    #[inline]
    pub(super) fn int(&mut self) -> Option<i64> {
        let value = self.uint()?;
        Some(((value >> 1) as i64) ^ -((value & 1) as i64))
    }

    pub(super) fn uint32(&mut self) -> Option<u32> {
        u32::try_from(self.uint()?).ok()
    }
}

/// If the blob of m or c refers to an interned set: its number, `Some(None)` if it cannot be read.
pub(super) fn reference(blob: &[u8]) -> Option<Option<i64>> {
    let (first, rest) = blob.split_first()?;
    (*first == 0).then(|| Reader::new(rest).uint().and_then(|id| i64::try_from(id).ok()))
}

/// The blob that refers to an interned set. No replica has the index 0.
pub(super) fn refer(id: i64) -> Blob {
    let mut blob = Blob::new();
    blob.push(0);
    put_uint(&mut blob, id as u64);
    blob
}

/// Encodes a signature: times as differences, since most of them are close to each other.
pub(super) fn signature(out: &mut impl Extend<u8>, sig: &Signature) {
    out.extend([u8::from(sig.racy)]);
    put_uint(out, sig.dev);
    put_uint(out, sig.ino);
    put_uint(out, sig.size);
    out.extend(sig.mtime_ns.to_le_bytes());
    put_int(out, sig.ctime_ns.wrapping_sub(sig.mtime_ns));
    put_int(out, sig.btime_ns.wrapping_sub(sig.ctime_ns));
    put_uint(out, u64::from(sig.mode));
    put_uint(out, u64::from(sig.uid));
    put_uint(out, u64::from(sig.gid));
}

/// Reads a signature.
pub(super) fn read_signature(reader: &mut Reader<'_>) -> Option<Signature> {
    let racy = match reader.byte()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let (dev, ino, size) = (reader.uint()?, reader.uint()?, reader.uint()?);
    let mtime_ns = i64::from_le_bytes(reader.array()?);
    let ctime_ns = mtime_ns.wrapping_add(reader.int()?);
    let btime_ns = ctime_ns.wrapping_add(reader.int()?);
    let (mode, uid, gid) = (reader.uint32()?, reader.uint32()?, reader.uint32()?);
    Some(Signature { dev, ino, size, mtime_ns, ctime_ns, btime_ns, mode, uid, gid, racy })
}

/// A signature that fills a whole column.
pub(super) fn signature_column(blob: &[u8]) -> Result<Signature, StateError> {
    let mut reader = Reader::new(blob);
    read_signature(&mut reader).filter(|_| reader.is_empty()).ok_or(StateError::Content { what: "a signature" })
}

/// The kind's number in the entry table; 0 is a ghost.
pub(super) fn kind_number(kind: Kind) -> i64 {
    match kind {
        Kind::File => 1,
        Kind::Symlink => 2,
        Kind::Dir => 3,
    }
}

/// The kind of a number; `None` for a ghost.
pub(super) fn kind_of(number: i64) -> Result<Option<Kind>, StateError> {
    match number {
        0 => Ok(None),
        1 => Ok(Some(Kind::File)),
        2 => Ok(Some(Kind::Symlink)),
        3 => Ok(Some(Kind::Dir)),
        _ => Err(StateError::Content { what: "a kind" }),
    }
}

const MODE: u8 = 1;
const UID: u8 = 2;
const GID: u8 = 4;
const MTIME: u8 = 8;
const SIZE: u8 = 16;

/// What of an object its signature does not imply; `None` if it implies all.
pub(super) fn overrides(object: &Object, sig: &Signature) -> Option<Blob> {
    let (have, implied) = (&object.attrs, sig.attrs());
    let size = match object.content {
        Content::File { size, .. } if size != sig.size => Some(size),
        _ => None,
    };
    let differs = |flag, differs: bool| if differs { flag } else { 0 };
    let flags = differs(MODE, have.mode != implied.mode)
        | differs(UID, have.uid != implied.uid)
        | differs(GID, have.gid != implied.gid)
        | differs(MTIME, have.mtime_ns != implied.mtime_ns)
        | differs(SIZE, size.is_some());
    if flags == 0 {
        return None;
    }
    let mut blob = Blob::new();
    blob.push(flags);
    for (flag, value) in [(MODE, have.mode), (UID, have.uid), (GID, have.gid)] {
        if flags & flag != 0 {
            put_uint(&mut blob, u64::from(value));
        }
    }
    if flags & MTIME != 0 {
        blob.extend(have.mtime_ns.to_le_bytes());
    }
    if let Some(size) = size {
        put_uint(&mut blob, size);
    }
    Some(blob)
}

/// The attributes and the size of an object from its signature and its overrides.
pub(super) fn attrs_and_size(sig: &Signature, blob: Option<&[u8]>) -> Result<(Attrs, u64), StateError> {
    let (mut attrs, mut size) = (sig.attrs(), sig.size);
    let Some(blob) = blob else {
        return Ok((attrs, size));
    };
    let mut reader = Reader::new(blob);
    let read = (|| {
        let flags = reader.byte()?;
        for (flag, field) in [(MODE, &mut attrs.mode), (UID, &mut attrs.uid), (GID, &mut attrs.gid)] {
            if flags & flag != 0 {
                *field = reader.uint32()?;
            }
        }
        if flags & MTIME != 0 {
            attrs.mtime_ns = i64::from_le_bytes(reader.array()?);
        }
        if flags & SIZE != 0 {
            size = reader.uint()?;
        }
        reader.is_empty().then_some(())
    })();
    read.map(|()| (attrs, size)).ok_or(StateError::Content { what: "attributes" })
}

/// The content column of an object: hash or link target.
pub(super) fn content_column(object: &Object) -> Option<&[u8]> {
    match &object.content {
        Content::File { hash: Some(hash), .. } => Some(&hash.0),
        Content::Symlink(target) => Some(target),
        Content::File { hash: None, .. } | Content::Dir => None,
    }
}

/// An object from its columns.
pub(super) fn object(kind: Kind, sig: &Signature, content: Option<&[u8]>, attrs: Option<&[u8]>) -> Result<Object, StateError> {
    let (attrs, size) = attrs_and_size(sig, attrs)?;
    let content = match kind {
        Kind::Dir => Content::Dir,
        Kind::File => Content::File { size, hash: content.map(hash).transpose()? },
        Kind::Symlink => Content::Symlink(content.ok_or(StateError::Content { what: "a link target" })?.into()),
    };
    Ok(Object { content, attrs })
}

/// A hash from its column.
pub(super) fn hash(bytes: &[u8]) -> Result<Hash, StateError> {
    bytes.try_into().map(Hash).map_err(|_| StateError::Content { what: "a hash" })
}
