//! Answers requests for content: only what the rows tell of, as they tell of it, is read, and only what stood still is vouched for.

use super::base::{receive_signatures, send_delta};
use super::lanes::Lanes;
use crate::delta::Signature;
use crate::entry::{Content, Hash};
use crate::io::channel::ChannelError;
use crate::io::fs::{Dir, FsError, Root};
use crate::io::source::{Fetched, Recorded, SourceError, read_steady, with_buffer};
use crate::io::state::{Entry, Learned, State};
use crate::path::RelPath;
use crate::wire::{
    Data, Encoding, Failure, FailureCode, FetchRequest, FileBegin, FileData, FileEnd, FileFailed, MAX_DATA, Message, Packer,
    Refusal, Refused, SmallFile, SmallFiles, Wanted, cut,
};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};

/// Sends the files of a request in their order, then records the hashes of those that nobody had read before.
///
/// # Errors
/// The conversation is over. A file that cannot be sent is told, and the others go on.
pub(super) fn answer(root: &Root, state: &State, request: FetchRequest, lanes: &mut Lanes) -> Result<(), ChannelError> {
    // All of them before anything is answered, so that the two sides never wait for each other to read.
    let bases = receive_signatures(&request.files, lanes.main())?;
    let sending = Sending { lanes, packer: Packer::of(request.packing), small: SmallFiles::default(), bytes: Vec::new() };
    let mut answering = Answering { root, state, sending, bases, learned: Vec::new() };
    let mut first = 0;
    for files in request.files.chunk_by(|one, next| one.path.parent() == next.path.parent()) {
        answering.directory(first, files)?;
        first += files.len() as u32;
    }
    let Answering { mut sending, learned, .. } = answering;
    sending.flush()?;
    if let Err(error) = state.learn(&learned) {
        let text = cut(&error.to_string()).to_owned();
        sending.send(&Message::Refused(Refused { code: Refusal::Failed, text }))?;
        sending.flush()?;
    }
    Ok(())
}

struct Answering<'a> {
    root: &'a Root,
    state: &'a State,
    sending: Sending<'a>,
    /// What the other side has of each file.
    bases: Vec<Option<Signature>>,
    /// Hashes that nobody knew.
    learned: Vec<Learned>,
}

/// Why a file is not sent to its end.
pub(super) enum Stop {
    /// The file is to blame: the other side is told, and the next one follows.
    File(SourceError),
    /// Nothing more can be sent.
    Channel(ChannelError),
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Stop {
        Stop::File(error)
    }
}

impl From<ChannelError> for Stop {
    fn from(error: ChannelError) -> Stop {
        Stop::Channel(error)
    }
}

impl Answering<'_> {
    /// Files of one directory, with the number of the first one.
    fn directory(&mut self, first: u32, files: &[Wanted]) -> Result<(), ChannelError> {
        let opened = self.open(files);
        for ((wanted, at), number) in files.iter().zip(0..).zip(first..) {
            let sent = match &opened {
                Ok((dir, entries)) => self.file(number, wanted, dir, entries.get(at).and_then(Option::as_ref)),
                Err(failure) => {
                    let failed = FileFailed { file: number, failure: failure.clone() };
                    self.sending.send(&Message::FileFailed(failed))?;
                    continue;
                }
            };
            match sent {
                Ok(learned) => self.learned.extend(learned),
                Err(Stop::File(error)) => {
                    let failed = FileFailed { file: number, failure: failure(&error) };
                    self.sending.send(&Message::FileFailed(failed))?;
                }
                Err(Stop::Channel(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Their directory, and what the rows tell of each.
    fn open(&self, files: &[Wanted]) -> Result<(Dir, Vec<Option<Entry>>), Failure> {
        // The root itself is no file.
        let Some(parent) = files.first().and_then(|wanted| wanted.path.parent()) else {
            return Err(failure(&SourceError::Stale(RelPath::root())));
        };
        let paths: Vec<RelPath> = files.iter().map(|wanted| wanted.path.clone()).collect();
        let opened = self.root.dir(&parent).map_err(|error| missing(error, &parent));
        let entries = self.state.entries(&paths).map_err(SourceError::from);
        opened.and_then(|dir| Ok((dir, entries?))).map_err(|error| failure(&error))
    }

    fn file(&mut self, number: u32, wanted: &Wanted, dir: &Dir, entry: Option<&Entry>) -> Result<Option<Learned>, Stop> {
        let path = &wanted.path;
        let stale = || SourceError::Stale(path.clone());
        let Entry { row, signature, .. } = entry.ok_or_else(stale)?;
        let Content::File { size, hash } = row.object.content else { return Err(stale().into()) };
        let other = wanted.hash.zip(hash).is_some_and(|(wanted, hash)| wanted != hash);
        if row.m != wanted.m || size != wanted.size || signature.size != size || other {
            return Err(stale().into());
        }
        let recorded = Recorded { path, signature, hash };
        // Dropped when it was used: one index at a time.
        let base = self.bases.get_mut(number as usize).and_then(Option::take);
        match base {
            None if size <= MAX_DATA as u64 && wanted.offset == 0 => self.small(number, dir, &recorded),
            base => self.large((number, wanted), dir, &recorded, base.as_ref()),
        }
    }

    /// Reads a file as a whole, to be sent together with its neighbours.
    fn small(&mut self, number: u32, dir: &Dir, recorded: &Recorded<'_>) -> Result<Option<Learned>, Stop> {
        let size = recorded.signature.size;
        let bytes = self.sending.room_for(number, size as usize)?;
        let held = bytes.len();
        let read = read_steady(dir, recorded, |file| {
            file.take(size).read_to_end(bytes).map_err(|source| unread(recorded.path, source))?;
            let read = &bytes[held..];
            Ok::<_, Stop>(Fetched { size: read.len() as u64, hash: Hash(*blake3::hash(read).as_bytes()) })
        });
        match read {
            Ok((Fetched { size, hash }, learned)) => {
                self.sending.small.files.push(SmallFile { size, hash });
                Ok(learned)
            }
            Err(stop) => {
                self.sending.bytes.truncate(held);
                Err(stop)
            }
        }
    }

    /// Sends a file while it is read: what becomes of it is told at its end.
    fn large(
        &mut self,
        (number, wanted): (u32, &Wanted),
        dir: &Dir,
        recorded: &Recorded<'_>,
        base: Option<&Signature>,
    ) -> Result<Option<Learned>, Stop> {
        let sending = &mut self.sending;
        let (Fetched { hash, .. }, learned) = read_steady(dir, recorded, |file| {
            let encoding = if base.is_some() { Encoding::Delta } else { Encoding::Raw };
            sending.send(&Message::FileBegin(FileBegin { file: number, size: wanted.size, encoding }))?;
            sending.packer.iter_mut().for_each(Packer::begin);
            match base {
                Some(base) => send_delta(file, wanted, base, sending),
                None => with_buffer(|buffer| send(file, wanted, buffer, sending)),
            }
        })?;
        self.sending.send(&Message::FileEnd(FileEnd { hash }))?;
        Ok(learned)
    }
}

/// Messages on their way, in the order of the request.
pub(super) struct Sending<'a> {
    lanes: &'a mut Lanes,
    packer: Option<Packer>,
    /// Small files that wait for more.
    small: SmallFiles,
    /// Their bytes.
    bytes: Vec<u8>,
}

impl Sending<'_> {
    /// Where the bytes of the next small file go.
    fn room_for(&mut self, number: u32, size: usize) -> Result<&mut Vec<u8>, ChannelError> {
        if self.bytes.len() + size > MAX_DATA {
            self.send_small()?;
        }
        if self.small.files.is_empty() {
            self.small.first = number;
        }
        Ok(&mut self.bytes)
    }

    fn send_small(&mut self) -> Result<(), ChannelError> {
        let mut small = std::mem::take(&mut self.small);
        if small.files.is_empty() {
            return Ok(());
        }
        self.packer.iter_mut().for_each(Packer::begin_mixed);
        small.data = Data::of(&self.bytes, self.packer.as_mut());
        self.bytes.clear();
        self.lanes.send(&Message::SmallFiles(small))
    }

    /// Sends a message after the small files that wait.
    fn send(&mut self, message: &Message) -> Result<(), ChannelError> {
        self.send_small()?;
        self.lanes.send(message)
    }

    /// Sends content of the file that began last.
    pub(super) fn data(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        let data = Data::of(bytes, self.packer.as_mut());
        self.send(&Message::FileData(FileData { data }))
    }

    /// Sends all that waits to be sent.
    pub(super) fn flush(&mut self) -> Result<(), ChannelError> {
        self.send_small()?;
        self.lanes.flush()
    }
}

/// Sends the bytes from the offset on; hashes all of them.
fn send(file: &File, wanted: &Wanted, buffer: &mut [u8], sending: &mut Sending<'_>) -> Result<Fetched, Stop> {
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    let mut rest = file.take(wanted.size);
    loop {
        let read = match rest.read(buffer) {
            Ok(0) => return Ok(Fetched { size, hash: Hash(*hasher.finalize().as_bytes()) }),
            Ok(count) => &buffer[..count],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(unread(&wanted.path, error).into()),
        };
        hasher.update(read);
        // What the other side has already is hashed and not sent.
        let known = wanted.offset.saturating_sub(size).min(read.len() as u64);
        size += read.len() as u64;
        if let news @ [_, ..] = &read[known as usize..] {
            sending.data(news)?;
        }
    }
}

pub(super) fn unread(path: &RelPath, source: io::Error) -> SourceError {
    SourceError::Copy { path: path.clone(), source }
}

/// A directory that is not there any more makes what was in it stale.
fn missing(error: FsError, path: &RelPath) -> SourceError {
    match error.source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => SourceError::Stale(path.clone()),
        _ => error.into(),
    }
}

fn failure(error: &SourceError) -> Failure {
    let code = match error {
        SourceError::Stale(_) => FailureCode::Stale,
        SourceError::Changes(_) => FailureCode::Changes,
        _ => FailureCode::Unreadable,
    };
    Failure { code, text: cut(&error.to_string()).to_owned() }
}
