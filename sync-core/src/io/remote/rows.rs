//! Rows over a connection: the other side of a pull on another machine.
//!
//! One stream carries all questions. A question about a directory is answered with those that follow it, too, so that a walk
//! costs few round trips; the rest of such an answer is read when the walk gets there, or when something else is asked. What a
//! peer sends is checked against what it was asked for, and what is held of it is bounded ([`Limits`]).

use super::beats::Beats;
use super::fetch::RemoteSource;
use super::shelf::{Found, Limits, Shelves, walks};
use crate::entry::Digest;
use crate::io::channel::{Channel, ChannelError};
use crate::io::link::{Connection, WAIT};
use crate::io::mutex::{get_mut, lock};
use crate::io::scan::ScanError;
use crate::io::source::{Source, SourceError};
use crate::io::state::Decision;
use crate::io::there::{Decided, Facts, There};
use crate::knowledge::ReplicaId;
use crate::path::RelPath;
use crate::report::{Monitor, Problem};
use crate::store::{Filter, Listing};
use crate::wire::{
    self, Also, DecidedRequest, DigestRequest, Fault, Gather, HashRequest, HashResult, Hashed, ListRequest, ListingEnd, MAX_LIST,
    Message, Packing, Piece, Transfer, WireError,
};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};

/// Bytes of paths in one question for hashes.
const HASH_BYTES: usize = 512 << 10;

/// A root on another machine.
pub struct RemoteThere {
    connection: Arc<Connection>,
    /// And its newest sequence number, as it told last.
    facts: Mutex<(Facts, u64)>,
    talk: Mutex<Talk>,
    /// Made when content is wanted.
    source: OnceLock<RemoteSource>,
    /// May the other side hear of files here, by their signatures?
    bases: bool,
    packing: Packing,
    /// May content come over several streams at a time?
    lanes: bool,
}

impl RemoteThere {
    /// The root that the other end of the connection has opened: who it is, and its newest sequence number.
    #[must_use]
    pub fn new(connection: Arc<Connection>, facts: Facts, seq: u64) -> RemoteThere {
        RemoteThere::with_limits(connection, facts, seq, Limits::STANDARD)
    }

    pub(super) fn with_limits(connection: Arc<Connection>, facts: Facts, seq: u64, limits: Limits) -> RemoteThere {
        let talk = Talk { channel: None, also: Arc::default(), answer: None, shelves: Shelves::new(limits), questions: 0 };
        RemoteThere {
            connection,
            facts: Mutex::new((facts, seq)),
            talk: Mutex::new(talk),
            source: OnceLock::new(),
            bases: true,
            packing: Packing::Auto,
            lanes: true,
        }
    }

    /// How content comes; the limit is the connection's.
    #[must_use]
    pub fn with_transfer(mut self, transfer: &Transfer) -> RemoteThere {
        self.bases &= !transfer.whole_files;
        self.packing = transfer.packing;
        self
    }

    /// The other side may not read here.
    #[must_use]
    pub fn without_bases(mut self) -> RemoteThere {
        self.bases = false;
        self
    }

    /// It is behind a third machine that passes streams on.
    #[must_use]
    pub fn without_lanes(mut self) -> RemoteThere {
        self.lanes = false;
        self
    }

    /// What it told of itself since. Whatever was kept of its rows goes if anything of this has changed.
    pub fn learn(&self, facts: Facts, seq: u64) {
        let told = (facts, seq);
        let mut known = lock(&self.facts);
        if *known != told {
            *known = told;
            drop(known);
            lock(&self.talk).forget();
        }
    }

    /// Questions about rows that crossed the connection so far.
    #[must_use]
    pub fn questions(&self) -> u64 {
        lock(&self.talk).questions
    }

    /// After a failure nobody knows what is still to come on the stream: the next question opens another.
    fn talk<T, E: From<ChannelError>>(&self, ask: impl FnOnce(&mut Talk) -> Result<T, E>) -> Result<T, E> {
        let mut talk = self.talk.lock().unwrap_or_else(|panicked| {
            let mut talk = panicked.into_inner();
            talk.hang_up();
            self.talk.clear_poison();
            talk
        });
        if talk.channel.is_none() {
            let stream = self.connection.open(WAIT).map_err(ChannelError::Link)?;
            talk.channel = Some(Channel::new(stream));
        }
        let answered = ask(&mut talk);
        if answered.is_err() {
            talk.hang_up();
        }
        answered
    }
}

impl Drop for RemoteThere {
    /// The other side reads an end, and not that the stream was given up, unless it is still in the midst of an answer.
    fn drop(&mut self) {
        let talk = get_mut(&mut self.talk);
        if let Some(channel) = talk.channel.take() {
            // Nobody is left to hear of a connection that failed meanwhile.
            let _ = channel.finish();
        }
    }
}

impl There for RemoteThere {
    fn facts(&self) -> Result<Facts, SourceError> {
        Ok(lock(&self.facts).0.clone())
    }

    /// What the other side tells of itself is durable there already.
    fn make_durable(&self) -> Result<(), SourceError> {
        Ok(())
    }

    fn listing(&self, path: &RelPath, filter: &Filter) -> Result<Listing, SourceError> {
        self.talk(|talk| Ok(talk.listing(path, filter)?))
    }

    fn digest(&self, dir: &RelPath) -> Result<Digest, SourceError> {
        let kept = lock(&self.talk).shelves.digest(dir);
        kept.map_or_else(|| self.talk(|talk| Ok(talk.digest(dir)?)), Ok)
    }

    fn rehash(&self, paths: &[RelPath], monitor: &dyn Monitor) -> Result<(), SourceError> {
        let mut rest = paths;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(MAX_LIST).take_while(|path| {
                bytes += path.as_bytes().len() + 4;
                bytes <= HASH_BYTES
            });
            let (next, later) = rest.split_at(fits.count().max(1));
            self.talk(|talk| talk.rehash(next, monitor))?;
            rest = later;
        }
        // The rows have hashes now.
        lock(&self.talk).forget();
        Ok(())
    }

    fn decided(&self, with: ReplicaId) -> Result<Vec<Decided>, SourceError> {
        self.talk(|talk| Ok(talk.decided(with)?))
    }

    fn source(&self) -> Result<Box<dyn Source + '_>, SourceError> {
        if let Some(source) = self.source.get() {
            return Ok(Box::new(source));
        }
        let made = RemoteSource::new(self.connection.clone()).map_err(ChannelError::from)?;
        let made = made.with_packing(self.packing);
        let made = if self.bases { made } else { made.without_bases() };
        let made = if self.lanes { made } else { made.without_lanes() };
        Ok(Box::new(self.source.get_or_init(|| made)))
    }
}

/// The conversation about rows.
struct Talk {
    channel: Option<Channel>,
    /// Told to the other side on this stream.
    also: Arc<BTreeSet<RelPath>>,
    /// Not read to its end yet.
    answer: Option<Answer>,
    shelves: Shelves,
    questions: u64,
}

impl Talk {
    fn channel(&mut self) -> Result<&mut Channel, ChannelError> {
        self.channel.as_mut().ok_or(ChannelError::Ended)
    }

    fn hang_up(&mut self) {
        self.channel = None;
        self.answer = None;
        self.also = Arc::default();
        self.shelves.forget();
    }

    /// Drops what is held of the rows, and what is on its way.
    fn forget(&mut self) {
        self.shelves.forget();
        if let Some(answer) = &mut self.answer {
            answer.wanted = false;
        }
    }

    /// Sends a question. The answer to the one before is read to its end first.
    fn ask(&mut self, question: &Message) -> Result<(), ChannelError> {
        while self.answer.is_some() {
            self.read_ahead()?;
        }
        self.questions += 1;
        self.channel()?.send(question)
    }

    fn listing(&mut self, path: &RelPath, filter: &Filter) -> Result<Listing, ChannelError> {
        let walks = walks(filter);
        if walks && let Some(listing) = self.held(path, filter)? {
            return Ok(listing);
        }
        while self.answer.is_some() {
            self.read_ahead()?;
        }
        let ahead = if walks { self.shelves.ask(filter) } else { 0 };
        if let Filter::Since { also, .. } = filter
            && *also != self.also
        {
            Also::messages(also).into_iter().try_for_each(|told| self.channel()?.send(&Message::Also(told)))?;
            self.also = also.clone();
        }
        self.ask(&Message::ListRequest(ListRequest { path: path.clone(), filter: filter.into(), ahead }))?;
        self.answer = Some(Answer::new(path, filter, ahead, self.shelves.seq()));
        let listing = self.next_listing()?.ok_or(ChannelError::Unexpected { found: "ListingEnd", expected: "Listing" })?;
        Ok(self.shelves.hand_out(filter, listing))
    }

    /// Looks among what is kept and what comes ahead.
    fn held(&mut self, path: &RelPath, filter: &Filter) -> Result<Option<Listing>, ChannelError> {
        loop {
            match self.shelves.take(filter, path) {
                Found::Listing(listing) => return Ok(Some(listing)),
                Found::Nothing => return Ok(None),
                Found::NotYet => {}
            }
            if !self.answer.as_ref().is_some_and(|answer| answer.wanted && answer.filter == *filter) {
                return Ok(None);
            }
            self.read_ahead()?;
        }
    }

    /// Reads one more directory of the answer under way, or its end.
    fn read_ahead(&mut self) -> Result<(), ChannelError> {
        let listing = self.next_listing()?;
        if let (Some(listing), Some(answer)) = (listing, &self.answer)
            && answer.wanted
        {
            self.shelves.came(&answer.filter, listing);
        }
        Ok(())
    }

    fn next_listing(&mut self) -> Result<Option<Listing>, ChannelError> {
        let (Some(answer), Some(channel)) = (&mut self.answer, &mut self.channel) else { return Ok(None) };
        loop {
            match channel.receive()? {
                Message::Listing(piece) => {
                    if let Some(listing) = answer.add(piece)? {
                        return Ok(Some(listing));
                    }
                }
                Message::ListingEnd(end) => {
                    answer.end(end)?;
                    self.answer = None;
                    return Ok(None);
                }
                other => return Err(ChannelError::unexpected(other, "rows of a directory")),
            }
        }
    }

    fn digest(&mut self, dir: &RelPath) -> Result<Digest, ChannelError> {
        self.ask(&Message::DigestRequest(DigestRequest { path: dir.clone() }))?;
        match self.channel()?.receive()? {
            Message::Digest(answer) => Ok(answer.digest),
            other => Err(ChannelError::unexpected(other, "a digest")),
        }
    }

    fn rehash(&mut self, paths: &[RelPath], monitor: &dyn Monitor) -> Result<(), SourceError> {
        self.ask(&Message::HashRequest(HashRequest { paths: paths.to_vec() }))?;
        let mut rest = paths;
        let mut beats = Beats::new();
        while !rest.is_empty() {
            if monitor.cancelled() {
                return Err(ScanError::Cancelled.into());
            }
            let Hashed { first, results } = match self.channel()?.receive()? {
                Message::Hashed(hashed) => hashed,
                other => return Err(ChannelError::unexpected(other, "hashes").into()),
            };
            let next = first as usize == paths.len() - rest.len() && results.len() <= rest.len();
            // What says nothing but that files are still being read comes every few seconds, however large they are.
            if results.is_empty() {
                beats.beat("Hashed")?
            } else {
                beats.news()
            }
            if !next {
                let fault = Fault::Contradiction("the hashes are not those that were asked for");
                return Err(ChannelError::from(WireError { field: "Hashed", offset: 0, fault }).into());
            }
            let (done, later) = rest.split_at(results.len());
            for (path, result) in done.iter().zip(results) {
                if let HashResult::Failed(failure) = result {
                    monitor.problem(&Problem { path: path.clone(), step: "read", error: failure.text });
                }
                monitor.advance(1, 0);
            }
            rest = later;
        }
        Ok(())
    }

    fn decided(&mut self, with: ReplicaId) -> Result<Vec<Decided>, ChannelError> {
        self.ask(&Message::DecidedRequest(DecidedRequest { with }))?;
        let (mut told, mut bytes) = (Vec::new(), 0);
        let mut last = false;
        while !last {
            last = match self.channel()?.receive()? {
                Message::Decided(next) => next.add_to(&mut told, &mut bytes)?,
                other => return Err(ChannelError::unexpected(other, "decisions")),
            };
        }
        Ok(told.into_iter().map(|one| Decided { path: one.path, decision: meant(one.decision), about: one.about }).collect())
    }
}

fn meant(decision: wire::Decision) -> Decision {
    match decision {
        wire::Decision::Local => Decision::Local,
        wire::Decision::Remote => Decision::Remote,
        wire::Decision::Newer => Decision::Newer,
        wire::Decision::Both => Decision::Both,
    }
}

/// What may still come in answer to a question about a directory.
struct Answer {
    filter: Filter,
    /// Does anybody wait for what comes ahead?
    wanted: bool,
    /// The directory asked for, then the one that came last.
    path: RelPath,
    /// Of what came last.
    seq: u64,
    directories: u32,
    /// Rows that may come ahead.
    left: usize,
    gather: Gather,
}

impl Answer {
    fn new(path: &RelPath, filter: &Filter, ahead: u32, seq: u64) -> Answer {
        let (path, filter, gather) = (path.clone(), filter.clone(), Gather::default());
        Answer { filter, wanted: true, path, seq, directories: 0, left: ahead as usize, gather }
    }

    /// The next piece; a directory once it is whole.
    fn add(&mut self, piece: Piece) -> Result<Option<Listing>, WireError> {
        if !self.gather.is_inside() {
            self.begin(&piece.listing)?;
        }
        if self.directories > 0 {
            self.spend(piece.listing.children.len())?;
        }
        let whole = self.gather.add(piece)?;
        if let (Some(listing), Filter::Only(names)) = (&whole, &self.filter) {
            let asked = listing.children.iter().all(|child| names.binary_search(&child.name).is_ok());
            check(asked, "a row has another name than those asked for")?;
        }
        self.directories += u32::from(whole.is_some());
        Ok(whole)
    }

    /// A directory follows if it comes later in the tree, in a directory on the way to the one before it or in that itself.
    fn begin(&mut self, next: &Listing) -> Result<(), WireError> {
        if self.directories == 0 {
            check(next.path == self.path, "the directory is not the one asked for")?;
        } else {
            let follows = next.path.parent().is_some_and(|above| above.contains(&self.path));
            check(follows && next.path > self.path, "the directory does not follow the one before it")?;
            self.spend(1)?;
        }
        check(next.seq >= self.seq, "the rows are older than those before them")?;
        check(next.full || self.filter != Filter::All, "rows were left out where all were asked for")?;
        (self.path, self.seq) = (next.path.clone(), next.seq);
        Ok(())
    }

    fn spend(&mut self, rows: usize) -> Result<(), WireError> {
        let left = self.left.checked_sub(rows);
        check(left.is_some(), "more rows than were asked for came ahead")?;
        self.left = left.unwrap_or(0);
        Ok(())
    }

    fn end(&self, end: ListingEnd) -> Result<(), WireError> {
        check(!self.gather.is_inside() && end.directories == self.directories, "the answer ends in the middle")
    }
}

fn check(right: bool, what: &'static str) -> Result<(), WireError> {
    if right { Ok(()) } else { Err(WireError { field: "Listing", offset: 0, fault: Fault::Contradiction(what) }) }
}
