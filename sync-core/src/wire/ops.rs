//! A delta as a stream of bytes, in pieces of any length.

use super::code::{Reader, put_bytes, put_number};
use super::error::{Fault, WireError};
use crate::delta::{LITERAL_BYTES, OP_BYTES, Op};

const COPY: u8 = 1;
const LITERAL: u8 = 2;
const ZEROS: u8 = 3;
/// Longest op but for the bytes of a literal: tag, two numbers.
const HEAD: usize = 21;

/// Appends an op.
pub fn put_op(op: &Op<'_>, out: &mut Vec<u8>) {
    match op {
        Op::Copy { offset, len } => {
            out.push(COPY);
            put_number(out, *offset);
            put_number(out, *len);
        }
        Op::Literal(bytes) => {
            out.push(LITERAL);
            put_bytes(out, bytes);
        }
        Op::Zeros(len) => {
            out.push(ZEROS);
            put_number(out, *len);
        }
    }
}

/// Takes a stream of ops apart. It holds one op at the most, and what is fed at a time.
#[derive(Debug, Default)]
pub struct OpReader {
    held: Vec<u8>,
    done: usize,
}

impl OpReader {
    /// More of the stream. All ops are taken out before the next call.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.held.drain(..self.done);
        self.done = 0;
        self.held.extend_from_slice(bytes);
    }

    /// The next op, or `None` until more was fed.
    ///
    /// # Errors
    /// Bytes that are no op; the stream is worthless from there on.
    pub fn next_op(&mut self) -> Result<Option<Op<'_>>, WireError> {
        let rest = &self.held[self.done..];
        let mut reader = Reader::new(rest);
        reader.field = "Op";
        match read(&mut reader) {
            Ok(op) => {
                self.done += rest.len() - reader.left();
                Ok(Some(op))
            }
            Err(error) if error.fault == Fault::Ends && rest.len() < HEAD + LITERAL_BYTES => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The stream is over.
    ///
    /// # Errors
    /// An op is not.
    pub fn finish(&self) -> Result<(), WireError> {
        let left = self.held.len() - self.done;
        if left == 0 { Ok(()) } else { Err(WireError { field: "Op", offset: left, fault: Fault::Ends }) }
    }
}

fn read<'a>(reader: &mut Reader<'a>) -> Result<Op<'a>, WireError> {
    let op = match reader.byte()? {
        COPY => Op::Copy { offset: reader.number()?, len: reader.at_most(OP_BYTES)? },
        LITERAL => Op::Literal(reader.bytes(LITERAL_BYTES)?),
        ZEROS => Op::Zeros(reader.at_most(OP_BYTES)?),
        other => return reader.fail(Fault::Unknown(u64::from(other))),
    };
    reader.check(op.output() > 0, Fault::Empty)?;
    Ok(op)
}
