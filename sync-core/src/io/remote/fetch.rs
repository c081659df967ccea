//! The source of a pull on another machine: asks for content chunk by chunk, on a few streams that are used again and again.
//!
//! What breaks the rules, and a connection that fails, ends the run: all that is asked for afterwards fails at once, and
//! [`Source::settle`] tells why.

use super::base::{Base, DELTA_MIN, send_signature};
use super::lanes::Lanes;
use super::receive::{Answer, Asked};
use crate::entry::Digest;
use crate::io::channel::{Channel, ChannelError};
use crate::io::fs::Root;
use crate::io::link::{CONNECTION_WINDOW, Connection, LinkError, STREAM_WINDOW, Traffic};
use crate::io::mutex::lock;
use crate::io::source::{Feed, Fetched, Source, SourceError, Wanted};
use crate::path::RelPath;
use crate::wire::{self, DigestRequest, FetchRequest, Lane, Message, Packing, Widen};
use std::fs::File;
use std::io::{self, Seek as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long the other side may take to say anything of a file: it may have to read all of it before. A connection that is
/// gone is noticed long before.
pub const CONTENT_WAIT: Duration = Duration::from_secs(600);
/// How often the wish to stop is looked for while a stream is waited for.
const GLANCE: Duration = Duration::from_millis(200);
/// Requests for content under way at a time, each on a stream of its own.
pub const REQUESTS: usize = 8;
/// Requests for so many bytes of content and more are answered on several streams: one alone carries no more than its window in a
/// round trip.
const WIDE_BYTES: u64 = 2 << 20;
/// How many such requests there are at a time; a further one gets a single stream.
const WIDES: usize = 4;
/// Lanes of each, beside the stream of the request: together their windows are that of the connection.
pub(super) const LANES: usize = (CONNECTION_WINDOW / STREAM_WINDOW) as usize - 1;
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
    packing: Packing,
    /// May files here be the bases of deltas? Their signatures tell the other side of them.
    bases: bool,
    threads: rayon::ThreadPool,
    /// Streams on which nothing is under way, and how many lanes there are.
    idle: Mutex<Idle>,
    /// May answers go over several streams?
    lanes: bool,
    lost: Mutex<Lost>,
    stop: Arc<AtomicBool>,
}

/// Streams on which nothing is under way.
#[derive(Debug, Default)]
struct Idle {
    narrow: Vec<Lanes>,
    wide: Vec<Lanes>,
    /// Requests on several streams that are under way or could be.
    wides: usize,
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
            packing: Packing::Auto,
            bases: true,
            threads,
            idle: Mutex::default(),
            lanes: true,
            lost: Mutex::default(),
            stop: Arc::default(),
        })
    }

    /// How long a single wait for the other side may take.
    #[must_use]
    pub fn with_wait(self, wait: Duration) -> RemoteSource {
        RemoteSource { wait, ..self }
    }

    /// Is content packed? Where that pays, unless told otherwise.
    #[must_use]
    pub fn with_packing(self, packing: Packing) -> RemoteSource {
        RemoteSource { packing, ..self }
    }

    /// The other side may not read here: it hears nothing of what is here, signatures least of all, and content comes whole.
    #[must_use]
    pub fn without_bases(self) -> RemoteSource {
        RemoteSource { bases: false, ..self }
    }

    /// The other side is behind a third machine that passes each stream on by itself: over both of its connections an answer is under
    /// way on a single stream. A stream of several that is not read yet would use up what the others need, and they might wait for
    /// each other.
    #[must_use]
    pub fn without_lanes(self) -> RemoteSource {
        RemoteSource { lanes: false, ..self }
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

    /// Streams for a request of so many bytes of content.
    fn streams(&self, bytes: u64) -> Result<Lanes, ChannelError> {
        let widen = {
            let mut idle = lock(&self.idle);
            let large = self.lanes && bytes >= WIDE_BYTES;
            let found = if large {
                idle.wide.pop().or_else(|| (idle.wides >= WIDES).then(|| idle.narrow.pop()).flatten())
            } else {
                // What is open and idle serves before the link is asked for more.
                idle.narrow.pop().or_else(|| idle.wide.pop())
            };
            if let Some(streams) = found {
                return Ok(streams);
            }
            let widen = large && idle.wides < WIDES;
            idle.wides += usize::from(widen);
            if widen {
                // The link bounds the streams; a new one costs nothing.
                idle.narrow.clear();
            }
            widen
        };
        let made = self.open_streams(widen);
        if made.is_err() {
            lock(&self.idle).wides -= usize::from(widen);
        }
        made
    }

    fn open_streams(&self, widen: bool) -> Result<Lanes, ChannelError> {
        let mut streams = Lanes::new(self.channel()?);
        if widen {
            let mut numbers = Vec::new();
            let mut lane = || {
                let mut lane = self.channel()?;
                let number = self.connection.number();
                lane.send(&Message::Lane(Lane { number }))?;
                lane.flush()?;
                numbers.push(number);
                Ok(lane)
            };
            let lanes = (0..LANES).map(|_| lane()).collect::<Result<_, ChannelError>>()?;
            streams.main().send(&Message::Widen(Widen { lanes: numbers }))?;
            streams.widen(lanes);
        }
        Ok(streams)
    }

    fn channel(&self) -> Result<Channel, ChannelError> {
        let until = Instant::now() + self.wait;
        let stream = loop {
            if self.stop.load(Ordering::Acquire) {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the run was stopped").into());
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.connection.open(left.min(GLANCE)) {
                Err(LinkError::TooLong(_)) if left > GLANCE => {}
                opened => break opened?,
            }
        };
        let mut channel = Channel::new(stream);
        channel.set_wait(self.wait);
        channel.set_stop(self.stop.clone());
        Ok(channel)
    }

    fn give_back(&self, streams: Lanes) {
        let mut idle = lock(&self.idle);
        if streams.extra() > 0 {
            idle.wide.push(streams);
        } else if idle.narrow.len() < REQUESTS {
            idle.narrow.push(streams);
        }
    }

    /// What is still to come on them is not wanted: they end.
    fn give_up(&self, streams: Lanes) {
        lock(&self.idle).wides -= usize::from(streams.extra() > 0);
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
            let mut streams = self.streams(0)?;
            streams.main().send(&Message::DigestRequest(DigestRequest { path: dir.clone() }))?;
            match streams.main().receive()? {
                Message::Digest(answer) => {
                    self.give_back(streams);
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

impl Drop for RemoteFeed<'_> {
    fn drop(&mut self) {
        self.drop_asked();
    }
}

impl RemoteFeed<'_> {
    /// A request that is not answered to its end is given up with its streams.
    fn drop_asked(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.source.give_up(asked.into_lanes());
        }
    }

    /// Asks for the files from this one on, as many as one request holds.
    fn ask(&mut self, first: usize) -> Result<(), ChannelError> {
        self.drop_asked();
        let (mut files, mut bases, mut signatures) = (Vec::new(), Vec::new(), Vec::new());
        let (mut bytes, mut base_bytes, mut content) = (0, 0, 0u64);
        for number in first..self.wanted.len() {
            let wanted = &self.wanted[number];
            bytes += wanted.path.as_bytes().len() + WANTED_BYTES + wanted.m.len() * EVENT_BYTES;
            let base = self.base(wanted);
            base_bytes += base.as_ref().map_or(0, Base::size);
            let full = bytes > REQUEST_BYTES || signatures.len() >= BASES || (base.is_some() && base_bytes > BASE_BYTES);
            if full && !files.is_empty() {
                break;
            }
            let signature = base.as_ref().and_then(Base::signature);
            let base = base.filter(|_| signature.is_some());
            let wanted = &mut self.wanted[number];
            if base.is_some() {
                // It is made anew, and what had come of it goes.
                wanted.held = 0;
            }
            content = content.saturating_add(wanted.size - wanted.held.min(wanted.size));
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
        let mut streams = self.source.streams(content)?;
        let channel = streams.main();
        channel.send(&Message::FetchRequest(FetchRequest { packing: self.source.packing, files }))?;
        signatures.iter().try_for_each(|(file, signature)| send_signature(*file, signature, channel))?;
        channel.flush()?;
        self.asked = Some(Asked::new(streams, first, bases));
        Ok(())
    }

    /// What a file may be made of. What has come of it already is worth less, as a rule: it may have come as a delta itself, and
    /// behind it all would cross, the bytes that stand here too. Where no more is left than a signature takes, it goes on.
    fn base(&self, wanted: &Wanted) -> Option<Base> {
        let useful = self.source.bases && wanted.size >= DELTA_MIN;
        let path = wanted.base.as_ref().filter(|_| useful)?;
        let left = wanted.size.saturating_sub(wanted.held);
        Base::open(self.here, path).filter(|base| wanted.held == 0 || base.signature_bytes().is_some_and(|bytes| bytes < left))
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
            Answer::Unfit | Answer::Unwritten(_) => self.source.give_up(asked.into_lanes()),
            Answer::Brought(_) | Answer::Failed(_) if asked.is_over() => self.source.give_back(asked.into_lanes()),
            Answer::Brought(_) | Answer::Failed(_) => self.asked = Some(asked),
        }
        Ok(answer)
    }
}
