//! The small parts that all messages consist of: numbers, texts, lists. Reading trusts nothing.

use super::error::{Fault, WireError};
use crate::entry::{Digest, Hash, Kind};
use crate::knowledge::ReplicaId;
use crate::path::{Name, RelPath};

/// Most elements of a list.
pub const MAX_LIST: usize = 1 << 16;
/// Longest text, in bytes, that is no list of rules.
pub const MAX_TEXT: usize = 4 << 10;
/// Largest size, counter or sequence number: the state keeps signed numbers.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// A value with a form of its own in a message.
pub(super) trait Code: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(reader: &mut Reader<'_>) -> Result<Self, WireError>;
}

/// The rest of a message.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
    /// What is being read, for the error.
    pub(super) field: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, len: bytes.len(), field: "message" }
    }

    pub(super) fn error(&self, fault: Fault) -> WireError {
        WireError { field: self.field, offset: self.len - self.rest.len(), fault }
    }

    pub(super) fn fail<T>(&self, fault: Fault) -> Result<T, WireError> {
        Err(self.error(fault))
    }

    pub(super) fn check(&self, right: bool, fault: Fault) -> Result<(), WireError> {
        if right { Ok(()) } else { self.fail(fault) }
    }

    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn finish(&self) -> Result<(), WireError> {
        self.check(self.rest.is_empty(), Fault::Trailing(self.rest.len()))
    }

    pub(super) fn byte(&mut self) -> Result<u8, WireError> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| self.error(Fault::Ends))?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (part, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.error(Fault::Ends))?;
        self.rest = rest;
        Ok(part)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// Seven bits a byte, the lowest first.
    pub(super) fn number(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            self.check(shift < 63 || bits <= 1, Fault::Number)?;
            value |= bits << shift;
            if byte & 0x80 == 0 {
                self.check(byte != 0 || shift == 0, Fault::Number)?;
                return Ok(value);
            }
        }
        self.fail(Fault::Number)
    }

    pub(super) fn at_most(&mut self, most: u64) -> Result<u64, WireError> {
        let found = self.number()?;
        self.check(found <= most, Fault::Large { found, most })?;
        Ok(found)
    }

    /// The length of a list. Nothing is reserved for it: every element takes a byte at least.
    pub(super) fn count(&mut self, most: usize) -> Result<usize, WireError> {
        let count = self.at_most(most as u64)? as usize;
        self.check(count <= self.left(), Fault::Ends)?;
        Ok(count)
    }

    pub(super) fn bytes(&mut self, most: usize) -> Result<&'a [u8], WireError> {
        let len = self.at_most(most as u64)? as usize;
        self.take(len)
    }

    pub(super) fn text(&mut self, most: usize) -> Result<String, WireError> {
        let bytes = self.bytes(most)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| self.error(Fault::Text))
    }
}

/// Appends a number, seven bits a byte, the lowest first.
pub(super) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A text for people, cut to what a message takes.
#[must_use]
pub fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

/// The form of a struct: its fields, one after the other. `field as how` takes the form from the module `how`.
macro_rules! fields {
    ($type:ident { $($field:ident $(as $how:ident)?),* $(,)? }) => {
        impl $crate::wire::code::Code for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let _ = &out;
                $($crate::wire::code::fields!(@put (&self.$field, out) $($how)?);)*
            }
            fn get(reader: &mut $crate::wire::code::Reader<'_>) -> Result<Self, $crate::wire::error::WireError> {
                let _ = &reader;
                $(
                    reader.field = concat!(stringify!($type), ".", stringify!($field));
                    let $field = $crate::wire::code::fields!(@get (reader) $($how)?)?;
                )*
                Ok($type { $($field),* })
            }
        }
    };
    (@put $of:tt) => { $crate::wire::code::plain::put $of };
    (@put $of:tt $how:ident) => { $how::put $of };
    (@get $of:tt) => { $crate::wire::code::plain::get $of };
    (@get $of:tt $how:ident) => { $how::get $of };
}
pub(super) use fields;

/// The form of an enumeration without fields: a byte.
macro_rules! numbers {
    ($type:ident { $($value:ident = $number:literal),* $(,)? }) => {
        impl $crate::wire::code::Code for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.push(match self { $($type::$value => $number),* });
            }
            fn get(reader: &mut $crate::wire::code::Reader<'_>) -> Result<Self, $crate::wire::error::WireError> {
                match reader.byte()? {
                    $($number => Ok($type::$value),)*
                    other => reader.fail($crate::wire::error::Fault::Unknown(u64::from(other))),
                }
            }
        }
    };
}
pub(super) use numbers;

/// A value in its own form.
pub(super) mod plain {
    use super::{Code, Reader, WireError};

    pub(in crate::wire) fn put<T: Code>(value: &T, out: &mut Vec<u8>) {
        value.put(out);
    }

    pub(in crate::wire) fn get<T: Code>(reader: &mut Reader<'_>) -> Result<T, WireError> {
        T::get(reader)
    }
}

/// A size, counter or sequence number: at most [`MAX_SIZE`].
pub(super) mod size {
    use super::{MAX_SIZE, Reader, WireError, put_number};

    pub(in crate::wire) fn put(value: &u64, out: &mut Vec<u8>) {
        put_number(out, *value);
    }

    pub(in crate::wire) fn get(reader: &mut Reader<'_>) -> Result<u64, WireError> {
        reader.at_most(MAX_SIZE)
    }
}

/// A random number: eight bytes, little-endian.
pub(super) mod random {
    use super::{Reader, WireError};

    pub(in crate::wire) fn put(value: &u64, out: &mut Vec<u8>) {
        out.extend(value.to_le_bytes());
    }

    pub(in crate::wire) fn get(reader: &mut Reader<'_>) -> Result<u64, WireError> {
        reader.array().map(u64::from_le_bytes)
    }
}

/// A list that ascends, nothing twice.
pub(super) mod ascending {
    use super::{Code, Fault, Reader, WireError};

    pub(in crate::wire) fn put<T: Code>(list: &Vec<T>, out: &mut Vec<u8>) {
        list.put(out);
    }

    pub(in crate::wire) fn get<T: Code + Ord>(reader: &mut Reader<'_>) -> Result<Vec<T>, WireError> {
        let list = Vec::get(reader)?;
        reader.check(list.is_sorted_by(|a, b| a < b), Fault::Order)?;
        Ok(list)
    }
}

impl Code for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, *self);
    }
    fn get(reader: &mut Reader<'_>) -> Result<u64, WireError> {
        reader.number()
    }
}

impl Code for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, u64::from(*self));
    }
    fn get(reader: &mut Reader<'_>) -> Result<u32, WireError> {
        Ok(reader.at_most(u64::from(u32::MAX))? as u32)
    }
}

/// Small magnitudes short.
impl Code for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, ((self << 1) ^ (self >> 63)) as u64);
    }
    fn get(reader: &mut Reader<'_>) -> Result<i64, WireError> {
        let value = reader.number()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

impl Code for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(reader: &mut Reader<'_>) -> Result<bool, WireError> {
        match reader.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => reader.fail(Fault::Unknown(u64::from(other))),
        }
    }
}

/// A text for people: what is too long is cut rather than refused.
impl Code for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, cut(self).as_bytes());
    }
    fn get(reader: &mut Reader<'_>) -> Result<String, WireError> {
        reader.text(MAX_TEXT)
    }
}

/// Bytes up to the end of the message.
impl Code for Box<[u8]> {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Box<[u8]>, WireError> {
        let rest = reader.take(reader.left())?;
        reader.check(!rest.is_empty(), Fault::Empty)?;
        Ok(rest.into())
    }
}

impl<const N: usize> Code for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn get(reader: &mut Reader<'_>) -> Result<[u8; N], WireError> {
        reader.array()
    }
}

impl Code for Hash {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Hash, WireError> {
        reader.array().map(Hash)
    }
}

impl Code for Digest {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.0.to_le_bytes());
    }
    fn get(reader: &mut Reader<'_>) -> Result<Digest, WireError> {
        Ok(Digest(u128::from_le_bytes(reader.array()?)))
    }
}

impl Code for ReplicaId {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Result<ReplicaId, WireError> {
        reader.array().map(ReplicaId)
    }
}

impl Code for RelPath {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_bytes());
    }
    fn get(reader: &mut Reader<'_>) -> Result<RelPath, WireError> {
        let bytes = reader.bytes(super::MAX_FRAME)?;
        RelPath::parse(bytes).map_err(|error| reader.error(error.into()))
    }
}

impl Code for Name {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_bytes());
    }
    fn get(reader: &mut Reader<'_>) -> Result<Name, WireError> {
        let bytes = reader.bytes(super::MAX_FRAME)?;
        Name::parse(bytes).map_err(|error| reader.error(error.into()))
    }
}

numbers!(Kind { Dir = 0, File = 1, Symlink = 2 });

impl<T: Code> Code for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Option<T>, WireError> {
        Ok(if bool::get(reader)? { Some(T::get(reader)?) } else { None })
    }
}

impl<T: Code> Code for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, self.len() as u64);
        self.iter().for_each(|value| value.put(out));
    }
    fn get(reader: &mut Reader<'_>) -> Result<Vec<T>, WireError> {
        let count = reader.count(MAX_LIST)?;
        let field = reader.field;
        let mut list = Vec::new();
        for _ in 0..count {
            reader.field = field;
            list.push(T::get(reader)?);
        }
        reader.field = field;
        Ok(list)
    }
}
