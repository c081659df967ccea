//! A file here that is to be replaced, as the base of its new version: rsync's algorithm, with files and messages.
//!
//! It is opened once, and its signature and the new version are made through the same descriptor. Whether it is what the rows tell
//! of does not matter: the hash of the whole decides, and a new version that is not right comes again as a whole.

use super::beats::Beats;
use super::content::{Sending, Stop, unread};
use super::lanes::Lanes;
use crate::delta::{Announced, OP_BYTES, Op, Output, Patch, PatchError, ReadAt, SearchError, Shape, Signature, search};
use crate::entry::Hash;
use crate::io::channel::{Channel, ChannelError};
use crate::io::fs::Root;
use crate::io::source::{Fetched, Wanted};
use crate::path::RelPath;
use crate::wire::{self, FileData, FileEnd, FileFailed, MAX_DATA, Message, OpReader, SignaturePart, Unpacker, put_op};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;

/// Smaller files, here or there, come whole.
pub(super) const DELTA_MIN: u64 = 64 << 10;
/// Ops are sent when there are so many bytes of them.
const OPS_BYTES: usize = 64 << 10;

/// A file here, opened.
#[derive(Debug)]
pub(super) struct Base {
    file: File,
    size: u64,
}

impl Base {
    /// Opens the file that stands at a path; `None` if there is none that helps: then the new version comes whole.
    pub(super) fn open(here: &Root, path: &RelPath) -> Option<Base> {
        let (parent, name) = path.split()?;
        let (file, seen) = here.dir(&parent).ok()?.open_file_seen(name.as_bytes()).ok()?;
        (seen.size >= DELTA_MIN && Shape::of(seen.size).is_some()).then_some(Base { file, size: seen.size })
    }

    /// Its size when it was opened.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// How it is cut.
    pub(super) fn announced(&self) -> Option<Announced> {
        Some(Shape::of(self.size)?.announced())
    }

    /// How much of a request its signature takes.
    pub(super) fn signature_bytes(&self) -> Option<u64> {
        Some(Shape::of(self.size)?.signature_bytes())
    }

    /// Its signature, unless it cannot be read.
    pub(super) fn signature(&self) -> Option<Vec<u8>> {
        Signature::of(&self.file, self.size).ok().map(|signature| signature.to_bytes())
    }
}

impl ReadAt for Base {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// Sends a signature, as that of the file with this number in the request.
pub(super) fn send_signature(file: u32, signature: &[u8], channel: &mut Channel) -> Result<(), ChannelError> {
    signature
        .chunks(MAX_DATA)
        .try_for_each(|part| channel.send(&Message::SignaturePart(SignaturePart { file, bytes: part.into() })))
}

/// Receives the signatures that follow a request: that of each file with a base, in their order.
pub(super) fn receive_signatures(files: &[wire::Wanted], channel: &mut Channel) -> Result<Vec<Option<Signature>>, ChannelError> {
    let mut receive = |(wanted, number): (&wire::Wanted, u32)| {
        let Some(announced) = wanted.base else { return Ok(None) };
        let unfit = || ChannelError::Unexpected { found: "another signature", expected: "the one that was announced" };
        let whole = Shape::of(announced.base).ok_or_else(unfit)?.signature_bytes();
        let mut sums = Vec::new();
        while (sums.len() as u64) < whole {
            match channel.receive()? {
                Message::SignaturePart(SignaturePart { file, bytes }) if file == number => sums.extend_from_slice(&bytes),
                other => return Err(ChannelError::unexpected(other, "the rest of a signature")),
            }
        }
        Signature::check(announced, &sums).map(Some).map_err(|_| unfit())
    };
    files.iter().zip(0..).map(&mut receive).collect()
}

/// Sends the ops that make a file of the base with this signature.
pub(super) fn send_delta(
    file: &File,
    wanted: &wire::Wanted,
    signature: &Signature,
    sending: &mut Sending<'_>,
) -> Result<Fetched, Stop> {
    let mut reader = Hashing { inner: file.take(wanted.size), hasher: blake3::Hasher::new(), size: 0 };
    let mut ops = Ops { sending, held: Vec::new(), covered: 0, failed: None };
    let found =
        search(signature, &mut reader, |op| ops.take(&op)).map(|_| ()).and_then(|()| ops.send(false).map_err(SearchError::Sink));
    match (found, ops.failed) {
        (_, Some(error)) => Err(error.into()),
        (Ok(()), None) => Ok(Fetched { size: reader.size, hash: Hash(*reader.hasher.finalize().as_bytes()) }),
        (Err(SearchError::Read(error) | SearchError::Sink(error)), None) => Err(unread(&wanted.path, error).into()),
        (Err(error @ SearchError::Library), None) => Err(unread(&wanted.path, io::Error::other(error)).into()),
    }
}

/// Hashes what is read.
struct Hashing<R> {
    inner: R,
    hasher: blake3::Hasher,
    size: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

/// Ops on their way.
struct Ops<'a, 's> {
    sending: &'a mut Sending<'s>,
    held: Vec<u8>,
    /// Bytes of the new version that what is held stands for.
    covered: u64,
    failed: Option<ChannelError>,
}

impl Ops<'_, '_> {
    fn take(&mut self, op: &Op<'_>) -> io::Result<()> {
        put_op(op, &mut self.held);
        self.covered += op.output();
        // A file that has hardly changed takes few ops and a long time: the other side is to hear of it.
        let long = self.covered >= OP_BYTES;
        if long || self.held.len() >= OPS_BYTES { self.send(long) } else { Ok(()) }
    }

    fn send(&mut self, now: bool) -> io::Result<()> {
        self.covered = 0;
        if self.held.is_empty() {
            return Ok(());
        }
        let sent = self.sending.data(&self.held);
        self.held.clear();
        let sent = sent.and_then(|()| if now { self.sending.flush() } else { Ok(()) });
        sent.map_err(|error| {
            let text = error.to_string();
            self.failed = Some(error);
            io::Error::other(text)
        })
    }
}

/// What came of a delta.
pub(super) enum Patched {
    /// The new version stands in the target.
    Whole(Fetched),
    /// It is another one than the other side's, or the base failed: without it, it may come. More of the answer may follow.
    Unfit,
    /// The target cannot be written; more of the answer may follow.
    Unwritten(io::Error),
    /// The other side ends it.
    Failed(wire::Failure),
}

/// Receives ops, and makes the new version of them.
pub(super) fn receive_delta(
    (lanes, unpacker): (&mut Lanes, &mut Unpacker),
    number: u32,
    wanted: &Wanted,
    base: &Base,
    target: &mut File,
) -> Result<Patched, ChannelError> {
    // What had come of it is no part of what comes now.
    if let Err(error) = target.set_len(0).and_then(|()| target.rewind()) {
        return Ok(Patched::Unwritten(error));
    }
    let mut ops = OpReader::default();
    let mut patch = Patch::new(base, base.size, wanted.size, Sparse(&*target));
    let mut beats = Beats::new();
    loop {
        match lanes.receive()? {
            Message::FileData(FileData { data }) if data.is_empty() => beats.beat("FileData")?,
            Message::FileData(FileData { data }) => {
                beats.news();
                ops.feed(data.open(MAX_DATA, unpacker)?);
                while let Some(op) = ops.next_op()? {
                    if let Err(error) = patch.apply(op) {
                        return unpatched(error);
                    }
                }
            }
            Message::FileEnd(FileEnd { hash }) => {
                ops.finish()?;
                let patched = match patch.finish() {
                    Ok(patched) => patched,
                    Err(error) => return unpatched(error),
                };
                let fetched = Fetched { size: patched.size, hash: patched.hash };
                // What ends in a hole is as long as what was written.
                return Ok(match target.set_len(wanted.size) {
                    Err(error) => Patched::Unwritten(error),
                    Ok(()) if fetched.hash != hash => Patched::Unfit,
                    Ok(()) => Patched::Whole(fetched),
                });
            }
            Message::FileFailed(FileFailed { file, failure }) if file == number => {
                return Ok(if failure.code == wire::FailureCode::Base { Patched::Unfit } else { Patched::Failed(failure) });
            }
            other => return Err(ChannelError::unexpected(other, "more of a delta, or its end,")),
        }
    }
}

/// What is the peer's fault ends the conversation.
fn unpatched(error: PatchError) -> Result<Patched, ChannelError> {
    match error {
        PatchError::Base(_) => Ok(Patched::Unfit),
        PatchError::Output(error) => Ok(Patched::Unwritten(error)),
        PatchError::OpLength(_)
        | PatchError::BeyondBase { .. }
        | PatchError::TooLong(_)
        | PatchError::TooShort { .. }
        | PatchError::TooManyOps(_) => {
            Err(ChannelError::Unexpected { found: "a delta that does not fit", expected: "one of the base" })
        }
    }
}

/// A file in which runs of zeros are holes.
struct Sparse<'a>(&'a File);

impl Output for Sparse<'_> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.0;
        file.write_all(bytes)
    }

    fn zeros(&mut self, len: u64) -> io::Result<()> {
        let len = i64::try_from(len).map_err(io::Error::other)?;
        let mut file = self.0;
        file.seek(SeekFrom::Current(len)).map(|_| ())
    }
}
