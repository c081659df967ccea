//! Messages in a stream of bytes: each has its length before it. Without I/O: bytes in, messages out.

use super::Message;
use super::error::{Fault, Oversized, WireError};

/// Longest message, its length not counted.
pub const MAX_FRAME: usize = 1 << 20;
/// Longest message before both sides know each other.
pub const MAX_HELLO: usize = 4 << 10;
/// Bytes of the length, little-endian.
const PREFIX: usize = 4;

/// Appends a message with its length.
///
/// # Errors
/// It is longer than a peer would take; `out` is as before then.
pub fn put_frame(message: &Message, out: &mut Vec<u8>) -> Result<(), Oversized> {
    let start = out.len();
    out.extend([0; PREFIX]);
    message.encode(out);
    let len = out.len() - start - PREFIX;
    if len > MAX_FRAME {
        out.truncate(start);
        return Err(Oversized(len));
    }
    out[start..start + PREFIX].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(())
}

/// Takes a stream apart. What it holds is bounded by the longest message and by what is fed at a time.
#[derive(Debug)]
pub struct FrameReader {
    held: Vec<u8>,
    /// Bytes of `held` that were read.
    done: usize,
    limit: usize,
    failed: Option<WireError>,
}

impl FrameReader {
    /// A reader of messages up to `limit` bytes: [`MAX_HELLO`] at first, [`MAX_FRAME`] later.
    #[must_use]
    pub fn new(limit: usize) -> FrameReader {
        FrameReader { held: Vec::new(), done: 0, limit: limit.min(MAX_FRAME), failed: None }
    }

    /// Messages may have so many bytes from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(MAX_FRAME);
    }

    /// More of the stream. All messages are taken out before the next call.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.held.drain(..self.done);
        self.done = 0;
        if self.failed.is_none() {
            self.held.extend_from_slice(bytes);
        }
    }

    /// The next message, or `None` until more was fed.
    ///
    /// # Errors
    /// Bytes that are no message. Where the next one would begin is unknown then, and every further call fails.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let Some(body) = self.body()? else { return Ok(None) };
        match Message::decode(&self.held[body.clone()]) {
            Ok(message) => {
                self.done = body.end;
                Ok(Some(message))
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Is something left of a message that did not end?
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.held.len() > self.done
    }

    fn body(&mut self) -> Result<Option<std::ops::Range<usize>>, WireError> {
        let start = self.done + PREFIX;
        let Some(Ok(prefix)) = self.held.get(self.done..start).map(<[u8; PREFIX]>::try_from) else { return Ok(None) };
        let len = u32::from_le_bytes(prefix) as usize;
        let fault = match len {
            0 => Fault::Empty,
            _ if len > self.limit => Fault::Large { found: len as u64, most: self.limit as u64 },
            _ => return Ok((self.held.len() >= start + len).then(|| start..start + len)),
        };
        Err(self.fail(WireError { field: "frame.length", offset: 0, fault }))
    }

    fn fail(&mut self, error: WireError) -> WireError {
        self.held = Vec::new();
        self.done = 0;
        self.failed = Some(error.clone());
        error
    }
}
