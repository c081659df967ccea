//! Answers requests for content: only what the rows tell of, as they tell of it, is read, and only what stood still is vouched for.

use crate::entry::{Content, Hash};
use crate::io::channel::{Channel, ChannelError};
use crate::io::fs::{Dir, FsError, Root};
use crate::io::source::{Fetched, Recorded, SourceError, read_steady, with_buffer};
use crate::io::state::{Batch, Entry, State};
use crate::path::{Name, RelPath};
use crate::store::Change;
use crate::wire::{
    Encoding, Failure, FailureCode, FetchRequest, FileBegin, FileData, FileEnd, FileFailed, MAX_DATA, Message, Refusal,
    SmallFile, Wanted, cut,
};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};

/// Sends the files of a request in their order, then records the hashes of those that nobody had read before.
///
/// # Errors
/// The conversation is over. A file that cannot be sent is told, and the others go on.
pub(super) fn answer(root: &Root, state: &State, request: FetchRequest, channel: &mut Channel) -> Result<(), ChannelError> {
    let mut answering = Answering { root, state, channel, learned: Vec::new() };
    let mut first = 0;
    for files in request.files.chunk_by(|one, next| one.path.parent() == next.path.parent()) {
        answering.directory(first, files)?;
        first += files.len() as u32;
    }
    let changes = answering.learned;
    channel.flush()?;
    if !changes.is_empty()
        && let Err(error) = state.commit(Batch { changes, ..Batch::default() }, false)
    {
        channel.refuse(Refusal::Failed, error.to_string())?;
    }
    Ok(())
}

struct Answering<'a> {
    root: &'a Root,
    state: &'a State,
    channel: &'a mut Channel,
    /// Hashes that nobody knew.
    learned: Vec<Change>,
}

/// Why a file is not sent to its end.
enum Stop {
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
                    self.channel.send(&Message::FileFailed(failed))?;
                    continue;
                }
            };
            match sent {
                Ok(learned) => self.learned.extend(learned),
                Err(Stop::File(error)) => {
                    let failed = FileFailed { file: number, failure: failure(&error) };
                    self.channel.send(&Message::FileFailed(failed))?;
                }
                Err(Stop::Channel(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Their directory, and what the rows tell of each.
    fn open(&self, files: &[Wanted]) -> Result<(Dir, Vec<Option<Entry>>), Failure> {
        let split: Option<Vec<(RelPath, Name)>> = files.iter().map(|wanted| wanted.path.split()).collect();
        // The root itself is no file.
        let Some((parents, names)) = split.map(|split| split.into_iter().unzip::<_, _, Vec<_>, Vec<_>>()) else {
            return Err(failure(&SourceError::Stale(RelPath::root())));
        };
        let parent = parents.into_iter().next().unwrap_or_default();
        let opened = self.root.dir(&parent).map_err(|error| missing(error, &parent));
        let entries = self.state.entries(&parent, &names).map_err(SourceError::from);
        opened.and_then(|dir| Ok((dir, entries?))).map_err(|error| failure(&error))
    }

    fn file(&mut self, number: u32, wanted: &Wanted, dir: &Dir, entry: Option<&Entry>) -> Result<Option<Change>, Stop> {
        let path = &wanted.path;
        let stale = || SourceError::Stale(path.clone());
        let Entry { row, signature, .. } = entry.ok_or_else(stale)?;
        let Content::File { size, hash } = row.object.content else { return Err(stale().into()) };
        let other = wanted.hash.zip(hash).is_some_and(|(wanted, hash)| wanted != hash);
        if row.m != wanted.m || size != wanted.size || signature.size != size || other {
            return Err(stale().into());
        }
        let recorded = Recorded { path, signature, hash };
        match size <= MAX_DATA as u64 && wanted.offset == 0 {
            true => self.small(number, dir, &recorded),
            false => self.large(number, wanted, dir, &recorded),
        }
    }

    /// Reads a file as a whole, then sends it.
    fn small(&mut self, number: u32, dir: &Dir, recorded: &Recorded<'_>) -> Result<Option<Change>, Stop> {
        let mut bytes = Vec::new();
        let (Fetched { hash, .. }, learned) = read_steady(dir, recorded, |file| {
            let size = recorded.signature.size;
            bytes.reserve_exact(size as usize);
            file.take(size).read_to_end(&mut bytes).map_err(|source| unread(recorded.path, source))?;
            Ok::<_, Stop>(Fetched { size: bytes.len() as u64, hash: Hash(*blake3::hash(&bytes).as_bytes()) })
        })?;
        self.channel.send(&Message::SmallFile(SmallFile { file: number, hash, bytes }))?;
        Ok(learned)
    }

    /// Sends a file while it is read: what becomes of it is told at its end.
    fn large(&mut self, number: u32, wanted: &Wanted, dir: &Dir, recorded: &Recorded<'_>) -> Result<Option<Change>, Stop> {
        let channel = &mut *self.channel;
        let (Fetched { hash, .. }, learned) = read_steady(dir, recorded, |file| {
            let begin = FileBegin { file: number, size: wanted.size, encoding: Encoding::Raw };
            channel.send(&Message::FileBegin(begin))?;
            with_buffer(|buffer| send(file, wanted, buffer, channel))
        })?;
        self.channel.send(&Message::FileEnd(FileEnd { hash }))?;
        Ok(learned)
    }
}

/// Sends the bytes from the offset on; hashes all of them.
fn send(file: &File, wanted: &Wanted, buffer: &mut [u8], channel: &mut Channel) -> Result<Fetched, Stop> {
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
            channel.send(&Message::FileData(FileData { bytes: news.into() }))?;
        }
    }
}

fn unread(path: &RelPath, source: io::Error) -> SourceError {
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
