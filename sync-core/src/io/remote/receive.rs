//! Answers to a request for content, in its order. Nothing in them is trusted: never is more written than was listed, and what is
//! written is hashed on the way.

use super::base::{Base, Patched, receive_delta};
use super::beats::Beats;
use super::lanes::Lanes;
use crate::entry::Hash;
use crate::io::channel::ChannelError;
use crate::io::source::{Fetched, SourceError, Wanted};
use crate::wire::{
    Encoding, Failure, FailureCode, FileBegin, FileData, FileEnd, FileFailed, MAX_DATA, Message, SmallFile, SmallFiles, Unpacker,
};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};

/// Content that is passed over is read up to here; beyond, the stream is given up.
const PASSED_OVER: u64 = 1 << 20;

/// A request under way.
pub(super) struct Asked {
    lanes: Lanes,
    /// Number in the chunk of its first file.
    first: usize,
    /// Number of the file whose answer comes next.
    next: usize,
    /// Its files, by what each may be made of.
    bases: Vec<Option<Base>>,
    unpacker: Unpacker,
    /// Files that came together.
    small: Small,
}

/// What is left of a message that holds several files.
#[derive(Default)]
struct Small {
    files: VecDeque<SmallFile>,
    /// Bytes of all its files, and how many of them were taken.
    bytes: Vec<u8>,
    taken: usize,
}

impl Small {
    fn next(&mut self) -> Option<(&[u8], Hash)> {
        let SmallFile { size, hash } = self.files.pop_front()?;
        let start = self.taken;
        self.taken += size as usize;
        Some((&self.bytes[start..self.taken], hash))
    }
}

/// What came of a file.
pub(super) enum Answer {
    Brought(Fetched),
    Failed(SourceError),
    /// What is here does not help, be it a base or a beginning; the rest of it may still be to come.
    Unfit,
    /// It cannot be written here, and the rest of it is still to come.
    Unwritten(SourceError),
}

impl Asked {
    /// The answers to a request for the files of a chunk from `first` on, which was sent on the first of `lanes`.
    pub(super) fn new(lanes: Lanes, first: usize, bases: Vec<Option<Base>>) -> Asked {
        Asked { lanes, first, next: first, bases, unpacker: Unpacker::new(), small: Small::default() }
    }

    /// Number of the file whose answer comes next.
    pub(super) fn next(&self) -> usize {
        self.next
    }

    /// Is nothing more to come?
    pub(super) fn is_over(&self) -> bool {
        self.next == self.until()
    }

    /// The streams, for the next request.
    pub(super) fn into_lanes(self) -> Lanes {
        self.lanes
    }

    /// Number after its last file.
    fn until(&self) -> usize {
        self.first + self.bases.len()
    }

    /// Can this file be come to by reading over what is before it?
    pub(super) fn is_near(&self, wanted: &[Wanted], number: usize) -> bool {
        let Some(passed) = wanted.get(self.next..number) else { return false };
        let plain = self.bases.iter().skip(self.next - self.first).take(passed.len()).all(Option::is_none);
        let bytes = passed.iter().fold(0, |sum: u64, wanted| sum.saturating_add(wanted.size));
        number < self.until() && plain && bytes <= PASSED_OVER
    }

    /// Reads the answer for the next file; without `target` it is dropped.
    pub(super) fn answer(&mut self, wanted: &Wanted, target: Option<&mut File>) -> Result<Answer, ChannelError> {
        let at = self.next - self.first;
        let file = at as u32;
        self.next += 1;
        let base = self.bases.get_mut(at).and_then(Option::take);
        if !self.small.files.is_empty() {
            return self.small(wanted, target);
        }
        match self.lanes.receive()? {
            Message::SmallFiles(small) if small.first == file && small.files.len() <= self.bases.len() - at => {
                self.unpack(small)?;
                self.small(wanted, target)
            }
            Message::FileBegin(FileBegin { file: found, size, encoding: Encoding::Raw })
                if (found, size) == (file, wanted.size) =>
            {
                let mut writing = Writing::new(wanted, target);
                match writing.go_on() {
                    Ok(()) => self.content(writing, file),
                    Err(source) => Ok(Answer::Unwritten(SourceError::Copy { path: wanted.path.clone(), source })),
                }
            }
            Message::FileBegin(FileBegin { file: found, size, encoding: Encoding::Delta })
                if (found, size) == (file, wanted.size) =>
            {
                let (Some(base), Some(target)) = (base, target) else {
                    return Err(ChannelError::Unexpected { found: "a delta", expected: "a file without a base" });
                };
                Ok(match receive_delta((&mut self.lanes, &mut self.unpacker), file, wanted, &base, target)? {
                    Patched::Whole(fetched) => Answer::Brought(fetched),
                    Patched::Unfit => Answer::Unfit,
                    Patched::Unwritten(source) => Answer::Unwritten(SourceError::Copy { path: wanted.path.clone(), source }),
                    Patched::Failed(failure) => Answer::Failed(failed(wanted, failure)),
                })
            }
            Message::FileFailed(FileFailed { file: found, failure }) if found == file => Ok(match failure.code {
                FailureCode::Base if base.is_some() => Answer::Unfit,
                _ => Answer::Failed(failed(wanted, failure)),
            }),
            other => Err(ChannelError::unexpected(other, "the answer for the next file, as it was listed,")),
        }
    }

    fn unpack(&mut self, small: SmallFiles) -> Result<(), ChannelError> {
        let size = small.size() as usize;
        let bytes = small.data.open(size, &mut self.unpacker)?;
        if bytes.len() < size {
            return Err(ChannelError::Unexpected { found: "less content than announced", expected: "all of it" });
        }
        self.small = Small { files: small.files.into(), bytes: bytes.to_vec(), taken: 0 };
        Ok(())
    }

    /// The next of the files that came together.
    fn small(&mut self, wanted: &Wanted, target: Option<&mut File>) -> Result<Answer, ChannelError> {
        let Some((bytes, hash)) = self.small.next() else { return Err(ChannelError::Ended) };
        let mut writing = Writing::new(wanted, target);
        writing.write(bytes)?;
        writing.finish(hash)
    }

    fn content(&mut self, mut writing: Writing<'_>, file: u32) -> Result<Answer, ChannelError> {
        let mut beats = Beats::new();
        loop {
            match self.lanes.receive()? {
                Message::FileData(FileData { data }) if data.is_empty() => beats.beat("FileData")?,
                Message::FileData(FileData { data }) => {
                    beats.news();
                    writing.write(data.open(MAX_DATA, &mut self.unpacker)?)?;
                    if let Some(error) = writing.failed.take() {
                        return Ok(Answer::Unwritten(error));
                    }
                }
                Message::FileEnd(FileEnd { hash }) => return writing.finish(hash),
                Message::FileFailed(FileFailed { file: found, failure }) if found == file => {
                    return Ok(Answer::Failed(failed(writing.wanted, failure)));
                }
                other => return Err(ChannelError::unexpected(other, "more of a file, or its end,")),
            }
        }
    }
}

/// Content on its way to a file.
struct Writing<'a> {
    wanted: &'a Wanted,
    target: Option<&'a mut File>,
    hasher: blake3::Hasher,
    written: u64,
    /// It cannot be written.
    failed: Option<SourceError>,
}

impl<'a> Writing<'a> {
    fn new(wanted: &'a Wanted, target: Option<&'a mut File>) -> Writing<'a> {
        Writing { wanted, target, hasher: blake3::Hasher::new(), written: 0, failed: None }
    }

    /// Hashes what is held already, and goes on behind it.
    fn go_on(&mut self) -> io::Result<()> {
        let held = self.wanted.held;
        self.written = held;
        let Some(target) = self.target.as_mut().filter(|_| held > 0) else { return Ok(()) };
        target.rewind()?;
        self.hasher.update_reader((&**target).take(held))?;
        if target.stream_position()? == held { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Never writes more than was listed.
    fn write(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        let len = bytes.len() as u64;
        if len > self.wanted.size - self.written {
            return Err(ChannelError::Unexpected { found: "more of a file than was listed", expected: "its end" });
        }
        self.written += len;
        if let (Some(target), None) = (&mut self.target, &self.failed) {
            self.hasher.update(bytes);
            if let Err(source) = target.write_all(bytes) {
                self.failed = Some(SourceError::Copy { path: self.wanted.path.clone(), source });
            }
        }
        Ok(())
    }

    /// The other side says that this is all, and what its hash is.
    fn finish(self, announced: Hash) -> Result<Answer, ChannelError> {
        if self.written != self.wanted.size {
            return Err(ChannelError::Unexpected { found: "the end of a file", expected: "the rest of it" });
        }
        let hash = Hash(*self.hasher.finalize().as_bytes());
        Ok(match self.failed {
            Some(error) => Answer::Failed(error),
            None if self.target.is_some() && hash != announced && self.wanted.held > 0 => Answer::Unfit,
            None if self.target.is_some() && hash != announced => Answer::Failed(SourceError::Damaged(self.wanted.path.clone())),
            None => Answer::Brought(Fetched { size: self.written, hash }),
        })
    }
}

/// What the other side says of a file that does not come.
fn failed(wanted: &Wanted, failure: Failure) -> SourceError {
    let path = wanted.path.clone();
    match failure.code {
        FailureCode::Stale => SourceError::Stale(path),
        FailureCode::Changes => SourceError::Changes(path),
        FailureCode::Unreadable | FailureCode::Base => SourceError::There { path, text: failure.text },
    }
}
