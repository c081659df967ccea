//! The source of a pull on another machine: asks for content chunk by chunk, on a few streams that are used again and again.
//!
//! The answers come in the order of the request, and nothing in them is trusted: never is more written than was listed, and what
//! is written is hashed on the way. What breaks the rules, and a connection that fails, ends the run: all that is asked for
//! afterwards fails at once, and [`Source::settle`] tells why.

use super::base::{Base, DELTA_MIN, Patched, receive_delta, send_signature};
use crate::entry::{Digest, Hash};
use crate::io::channel::{Channel, ChannelError};
use crate::io::fs::Root;
use crate::io::link::{Connection, LinkError};
use crate::io::source::{Feed, Fetched, Source, SourceError, Wanted};
use crate::path::RelPath;
use crate::wire::{
    self, DigestRequest, Encoding, Failure, FailureCode, FetchRequest, FileBegin, FileData, FileEnd, FileFailed, MAX_DATA,
    Message, SmallFile, SmallFiles, Unpacker,
};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the other side may take to say anything of a file: it may have to read all of it before. A connection that is
/// gone is noticed long before.
pub const CONTENT_WAIT: Duration = Duration::from_secs(600);
/// Requests for content under way at a time, each on a stream of its own.
pub const REQUESTS: usize = 8;
/// Bytes of a request; what does not fit is asked for when this has come.
const REQUEST_BYTES: usize = 256 << 10;
/// What a wanted file takes in a request beside its path and its version.
const WANTED_BYTES: usize = 64;
/// What each event of a version takes.
const EVENT_BYTES: usize = 32;
/// Bases of a request: each is an open file until its answer has come.
const BASES: usize = 16;
/// Bytes of all bases of a request but the first: their signatures are made before it is sent.
const BASE_BYTES: u64 = 16 << 20;
/// Content that is passed over is read up to here; beyond, the stream is given up.
const PASSED_OVER: u64 = 1 << 20;

/// A root on another machine. One connection has one of these at a time.
pub struct RemoteSource {
    connection: Arc<Connection>,
    wait: Duration,
    pack: bool,
    threads: rayon::ThreadPool,
    /// Streams on which nothing is under way.
    idle: Mutex<Vec<Channel>>,
    lost: Mutex<Lost>,
}

/// Why nothing comes any more.
#[derive(Debug, Default)]
struct Lost {
    /// As it happened, for the first who asks.
    error: Option<ChannelError>,
    /// In words, for all others.
    text: Option<String>,
}

impl RemoteSource {
    /// The root that the other end of this connection has opened.
    ///
    /// # Errors
    /// Threads cannot be made.
    pub fn new(connection: Arc<Connection>) -> Result<RemoteSource, LinkError> {
        let setup =
            |error: rayon::ThreadPoolBuildError| LinkError::Setup { what: "start threads".into(), why: error.to_string() };
        let named = rayon::ThreadPoolBuilder::new().num_threads(REQUESTS).thread_name(|number| format!("fetch-{number}"));
        let threads = named.build().map_err(setup)?;
        Ok(RemoteSource { connection, wait: CONTENT_WAIT, pack: true, threads, idle: Mutex::default(), lost: Mutex::default() })
    }

    /// How long a single wait for the other side may take.
    #[must_use]
    pub fn with_wait(self, wait: Duration) -> RemoteSource {
        RemoteSource { wait, ..self }
    }

    /// May content be packed where that makes it shorter? It is unless told otherwise.
    #[must_use]
    pub fn with_packing(self, pack: bool) -> RemoteSource {
        RemoteSource { pack, ..self }
    }

    /// Fails if the connection has failed before.
    fn alive(&self) -> Result<(), SourceError> {
        match &lock(&self.lost).text {
            Some(text) => Err(ChannelError::from(LinkError::Ended(text.clone())).into()),
            None => Ok(()),
        }
    }

    /// Nothing comes any more.
    fn lose(&self, error: ChannelError) {
        let mut lost = lock(&self.lost);
        if lost.text.is_none() {
            lost.text = Some(error.to_string());
            lost.error = Some(error);
        }
    }

    /// Does what may find the connection broken.
    fn attempt<T>(&self, work: impl FnOnce() -> Result<T, ChannelError>) -> Result<T, SourceError> {
        self.alive()?;
        match work() {
            Ok(done) => Ok(done),
            Err(error) => {
                let text = error.to_string();
                self.lose(error);
                Err(ChannelError::from(LinkError::Ended(text)).into())
            }
        }
    }

    fn channel(&self) -> Result<Channel, ChannelError> {
        if let Some(channel) = lock(&self.idle).pop() {
            return Ok(channel);
        }
        let mut channel = Channel::new(self.connection.open(self.wait)?);
        channel.set_wait(self.wait);
        Ok(channel)
    }

    fn give_back(&self, channel: Channel) {
        let mut idle = lock(&self.idle);
        if idle.len() < REQUESTS {
            idle.push(channel);
        }
    }
}

impl Source for RemoteSource {
    fn feed<'s>(&'s self, here: &'s Root, wanted: Vec<Wanted>) -> Box<dyn Feed + 's> {
        let mut feed = RemoteFeed { source: self, here, wanted, asked: None };
        if !feed.wanted.is_empty() {
            // Whoever takes the first file hears of it.
            let _told = self.attempt(|| feed.ask(0));
        }
        Box::new(feed)
    }

    fn threads(&self) -> Option<&rayon::ThreadPool> {
        Some(&self.threads)
    }

    fn digest(&self, dir: &RelPath) -> Result<Digest, SourceError> {
        self.attempt(|| {
            let mut channel = self.channel()?;
            channel.send(&Message::DigestRequest(DigestRequest { path: dir.clone() }))?;
            match channel.receive()? {
                Message::Digest(answer) => {
                    self.give_back(channel);
                    Ok(answer.digest)
                }
                other => Err(ChannelError::unexpected(other, "a digest")),
            }
        })
    }

    fn settle(&self) -> Result<(), SourceError> {
        let first = lock(&self.lost).error.take();
        first.map_or_else(|| self.alive(), |error| Err(error.into()))
    }
}

/// The files of one chunk, asked for in as many requests as it takes.
struct RemoteFeed<'s> {
    source: &'s RemoteSource,
    here: &'s Root,
    wanted: Vec<Wanted>,
    /// The request under way.
    asked: Option<Asked>,
}

/// A request under way.
struct Asked {
    channel: Channel,
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
enum Answer {
    Brought(Fetched),
    Failed(SourceError),
    /// Its base does not help; the rest of it may still be to come.
    Unfit,
    /// It cannot be written here, and the rest of it is still to come.
    Unwritten(SourceError),
}

impl Feed for RemoteFeed<'_> {
    fn fetch(&mut self, number: usize, target: &mut File) -> Result<Fetched, SourceError> {
        let source = self.source;
        loop {
            match source.attempt(|| self.take(number, target))? {
                Answer::Brought(fetched) => return Ok(fetched),
                Answer::Failed(error) | Answer::Unwritten(error) => return Err(error),
                Answer::Unfit => {
                    // Once: without a base there is nothing that does not fit.
                    let wanted = &mut self.wanted[number];
                    wanted.base = None;
                    let emptied = target.set_len(0).and_then(|()| target.rewind());
                    emptied.map_err(|source| SourceError::Copy { path: wanted.path.clone(), source })?;
                }
            }
        }
    }
}

impl RemoteFeed<'_> {
    /// Asks for the files from this one on, as many as one request holds.
    fn ask(&mut self, first: usize) -> Result<(), ChannelError> {
        // A request that is not answered to its end is given up with its stream.
        self.asked = None;
        let (mut files, mut bases, mut signatures) = (Vec::new(), Vec::new(), Vec::new());
        let (mut bytes, mut base_bytes) = (0, 0);
        for wanted in &self.wanted[first..] {
            bytes += wanted.path.as_bytes().len() + WANTED_BYTES + wanted.m.len() * EVENT_BYTES;
            let base = self.base(wanted);
            base_bytes += base.as_ref().map_or(0, Base::size);
            let full = bytes > REQUEST_BYTES || signatures.len() >= BASES || (base.is_some() && base_bytes > BASE_BYTES);
            if full && !files.is_empty() {
                break;
            }
            let signature = base.as_ref().and_then(Base::signature);
            let base = base.filter(|_| signature.is_some());
            files.push(wire::Wanted {
                path: wanted.path.clone(),
                size: wanted.size,
                hash: wanted.hash,
                m: wanted.m.clone(),
                offset: 0,
                base: base.as_ref().and_then(Base::announced),
            });
            signatures.extend(signature.map(|signature| (bases.len() as u32, signature)));
            bases.push(base);
        }
        let mut channel = self.source.channel()?;
        channel.send(&Message::FetchRequest(FetchRequest { pack: self.source.pack, files }))?;
        signatures.iter().try_for_each(|(file, signature)| send_signature(*file, signature, &mut channel))?;
        channel.flush()?;
        self.asked = Some(Asked { channel, first, next: first, bases, unpacker: Unpacker::new(), small: Small::default() });
        Ok(())
    }

    /// What a file may be made of.
    fn base(&self, wanted: &Wanted) -> Option<Base> {
        let path = wanted.base.as_ref().filter(|_| wanted.size >= DELTA_MIN)?;
        Base::open(self.here, path)
    }

    fn take(&mut self, number: usize, target: &mut File) -> Result<Answer, ChannelError> {
        if !self.asked.as_ref().is_some_and(|asked| asked.is_near(&self.wanted, number)) {
            self.ask(number)?;
        }
        let Some(mut asked) = self.asked.take() else { return Err(ChannelError::Ended) };
        while asked.next < number {
            let dropped = &self.wanted[asked.next];
            asked.answer(dropped, None)?;
        }
        let answer = asked.answer(&self.wanted[number], Some(target))?;
        match answer {
            // What may follow of it is given up with its stream.
            Answer::Unfit | Answer::Unwritten(_) => {}
            Answer::Brought(_) | Answer::Failed(_) if asked.next == asked.until() => self.source.give_back(asked.channel),
            Answer::Brought(_) | Answer::Failed(_) => self.asked = Some(asked),
        }
        Ok(answer)
    }
}

impl Asked {
    /// Number after its last file.
    fn until(&self) -> usize {
        self.first + self.bases.len()
    }

    /// Can this file be come to by reading over what is before it?
    fn is_near(&self, wanted: &[Wanted], number: usize) -> bool {
        let Some(passed) = wanted.get(self.next..number) else { return false };
        let plain = self.bases.iter().skip(self.next - self.first).take(passed.len()).all(Option::is_none);
        let bytes = passed.iter().fold(0, |sum: u64, wanted| sum.saturating_add(wanted.size));
        number < self.until() && plain && bytes <= PASSED_OVER
    }

    /// Reads the answer for the next file; without `target` it is dropped.
    fn answer(&mut self, wanted: &Wanted, target: Option<&mut File>) -> Result<Answer, ChannelError> {
        let at = self.next - self.first;
        let file = at as u32;
        self.next += 1;
        let base = self.bases.get_mut(at).and_then(Option::take);
        if !self.small.files.is_empty() {
            return self.small(wanted, target);
        }
        match self.channel.receive()? {
            Message::SmallFiles(small) if small.first == file && small.files.len() <= self.bases.len() - at => {
                self.unpack(small)?;
                self.small(wanted, target)
            }
            Message::FileBegin(FileBegin { file: found, size, encoding: Encoding::Raw })
                if (found, size) == (file, wanted.size) =>
            {
                self.content(Writing::new(wanted, target), file)
            }
            Message::FileBegin(FileBegin { file: found, size, encoding: Encoding::Delta })
                if (found, size) == (file, wanted.size) =>
            {
                let (Some(base), Some(target)) = (base, target) else {
                    return Err(ChannelError::Unexpected { found: "a delta", expected: "a file without a base" });
                };
                Ok(match receive_delta((&mut self.channel, &mut self.unpacker), file, wanted, &base, target)? {
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
        loop {
            match self.channel.receive()? {
                Message::FileData(FileData { data }) => {
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

/// A thread that panicked under the lock left a complete list: every change of it is one push or one removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
