//! The source of a pull on another machine: asks for content chunk by chunk, on a few streams that are used again and again.
//!
//! What breaks the rules, and a connection that fails, ends the run: all that is asked for afterwards fails at once, and
//! [`Source::settle`] tells why.

use super::base::{Base, DELTA_MIN, send_signature};
use super::receive::{Answer, Asked};
use crate::entry::Digest;
use crate::io::channel::{Channel, ChannelError};
use crate::io::fs::Root;
use crate::io::link::{Connection, LinkError, Traffic};
use crate::io::mutex::lock;
use crate::io::source::{Feed, Fetched, Source, SourceError, Wanted};
use crate::path::RelPath;
use crate::wire::{self, DigestRequest, FetchRequest, Message};
use std::fs::File;
use std::io::Seek as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
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

/// A root on another machine. One connection has one of these at a time.
pub struct RemoteSource {
    connection: Arc<Connection>,
    wait: Duration,
    pack: bool,
    /// May files here be the bases of deltas? Their signatures tell the other side of them.
    bases: bool,
    threads: rayon::ThreadPool,
    /// Streams on which nothing is under way.
    idle: Mutex<Vec<Channel>>,
    lost: Mutex<Lost>,
    stop: Arc<AtomicBool>,
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
        Ok(RemoteSource {
            connection,
            wait: CONTENT_WAIT,
            pack: true,
            bases: true,
            threads,
            idle: Mutex::default(),
            lost: Mutex::default(),
            stop: Arc::default(),
        })
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

    /// The other side may not read here: it hears nothing of what is here, signatures least of all, and content comes whole.
    #[must_use]
    pub fn without_bases(self) -> RemoteSource {
        RemoteSource { bases: false, ..self }
    }

    /// What crossed the connection so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.connection.traffic()
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
        channel.set_stop(self.stop.clone());
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

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    fn alive(&self) -> Result<(), SourceError> {
        match &lock(&self.lost).text {
            Some(text) => Err(ChannelError::from(LinkError::Ended(text.clone())).into()),
            None => Ok(()),
        }
    }

    fn resumes(&self) -> bool {
        true
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

impl Feed for RemoteFeed<'_> {
    fn fetch(&mut self, number: usize, target: &mut File) -> Result<Fetched, SourceError> {
        let source = self.source;
        loop {
            match source.attempt(|| self.take(number, target))? {
                Answer::Brought(fetched) => return Ok(fetched),
                Answer::Failed(error) | Answer::Unwritten(error) => return Err(error),
                Answer::Unfit => {
                    // Once: without base and beginning there is nothing that does not fit.
                    let wanted = &mut self.wanted[number];
                    (wanted.base, wanted.held) = (None, 0);
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
                offset: wanted.held,
                base: base.as_ref().and_then(Base::announced),
            });
            signatures.extend(signature.map(|signature| (bases.len() as u32, signature)));
            bases.push(base);
        }
        let mut channel = self.source.channel()?;
        channel.send(&Message::FetchRequest(FetchRequest { pack: self.source.pack, files }))?;
        signatures.iter().try_for_each(|(file, signature)| send_signature(*file, signature, &mut channel))?;
        channel.flush()?;
        self.asked = Some(Asked::new(channel, first, bases));
        Ok(())
    }

    /// What a file may be made of.
    fn base(&self, wanted: &Wanted) -> Option<Base> {
        let useful = self.source.bases && wanted.size >= DELTA_MIN && wanted.held == 0;
        let path = wanted.base.as_ref().filter(|_| useful)?;
        Base::open(self.here, path)
    }

    fn take(&mut self, number: usize, target: &mut File) -> Result<Answer, ChannelError> {
        if !self.asked.as_ref().is_some_and(|asked| asked.is_near(&self.wanted, number)) {
            self.ask(number)?;
        }
        let Some(mut asked) = self.asked.take() else { return Err(ChannelError::Ended) };
        while asked.next() < number {
            let dropped = &self.wanted[asked.next()];
            asked.answer(dropped, None)?;
        }
        let answer = asked.answer(&self.wanted[number], Some(target))?;
        match answer {
            // What may follow of it is given up with its stream.
            Answer::Unfit | Answer::Unwritten(_) => {}
            Answer::Brought(_) | Answer::Failed(_) if asked.is_over() => self.source.give_back(asked.into_channel()),
            Answer::Brought(_) | Answer::Failed(_) => self.asked = Some(asked),
        }
        Ok(answer)
    }
}
