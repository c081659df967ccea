//! Answers what the other side asks on one of its streams.

use super::content;
use super::follow::Follow;
use super::gate::Gate;
use super::here::{Here, Told};
use super::lanes::{Lanes, Parked};
use crate::entry::Content;
use crate::io::channel::{Channel, ChannelError};
use crate::io::link::Stream;
use crate::io::mutex::EndOf;
use crate::io::scan;
use crate::io::state::{Decision, StateError};
use crate::io::there::There;
use crate::path::RelPath;
use crate::report::{Monitor, Problem};
use crate::wire::{
    self, Decided, DecidedPath, DigestAnswer, Failure, FailureCode, Filter, HashRequest, HashResult, Hashed, Lane, ListRequest,
    ListingEnd, MAX_LANES, Message, Piece, Refusal,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long the other side may be busy between two questions, or before it reads the answer to one: it may be bringing large
/// files meanwhile. A connection whose other end is gone ends every wait long before.
pub const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// Files that are read before their hashes are told.
const HASHES: usize = 256;
/// While files are read, the other side hears of it as often.
const BEAT: Duration = Duration::from_secs(3);
/// Bytes of a text about a file that cannot be read: those of one message have to fit into it.
const WHY_BYTES: usize = 1024;

/// Answers all questions of one stream, until the other side ends it.
///
/// # Errors
/// The connection failed, the other side sent what is no question, or this side failed to answer. The other side was told, if it
/// could be.
///
/// A stream that says to be a lane is parked, and answers nothing by itself.
pub fn respond(stream: Stream, here: &Here<'_>, parked: &Parked) -> Result<(), ChannelError> {
    let mut channel = Channel::new(stream);
    channel.set_wait(PATIENCE);
    let first = match channel.next_or_end() {
        Ok(Some(Message::Lane(Lane { number }))) => return parked.put(number, channel),
        first => first,
    };
    let mut lanes = Lanes::new(channel);
    let answered = first.and_then(|first| converse(&mut lanes, first, here, parked));
    if let Err(error) = &answered {
        let code = match error {
            ChannelError::Wire(_) | ChannelError::Unexpected { .. } => Refusal::Request,
            _ => Refusal::Failed,
        };
        // In the midst of an answer it is the next message of it. Where the connection failed this fails as well, and is known already.
        let _ = lanes.refuse(code, &error.to_string());
    }
    let finished = lanes.finish();
    answered.and(finished)
}

fn converse(lanes: &mut Lanes, first: Option<Message>, here: &Here<'_>, parked: &Parked) -> Result<(), ChannelError> {
    let mut also = Arc::default();
    let mut next = first;
    while let Some(question) = next {
        let extra = lanes.extra();
        let channel = lanes.main();
        // What it tells of itself whoever may not ask may tell all the same.
        let told = match (question, here.heard) {
            (Message::Ready(ready), Some(heard)) => Ok((Told::Ready(ready), heard)),
            (Message::Report(report), Some(heard)) => Ok((Told::Report(report), heard)),
            (Message::Gossip(gossip), Some(heard)) => Ok((Told::Gossip(gossip), heard)),
            (Message::Changed(_), Some(heard)) => Ok((Told::Changed, heard)),
            (question, _) => Err(question),
        };
        let question = match told {
            Ok((told, heard)) => {
                heard(told);
                next = channel.next_or_end()?;
                continue;
            }
            Err(question) => question,
        };
        let asked = match here.gate.map(Gate::enter).transpose() {
            Ok(asked) => asked,
            Err(why) => return channel.refuse(Refusal::NotGranted, why),
        };
        match question {
            Message::Also(told) => told.add_to(Arc::make_mut(&mut also))?,
            Message::ListRequest(request) => list(channel, here, &request, &also)?,
            Message::DigestRequest(request) => {
                let digest = here.digest(&request.path).map_err(failed)?;
                channel.send(&Message::Digest(DigestAnswer { digest }))?;
            }
            Message::HashRequest(request) => hash(channel, here, &request)?,
            Message::DecidedRequest(request) => {
                let paths = here.decided(request.with).map_err(failed)?.into_iter().map(|decided| {
                    let decision = in_message(decided.decision);
                    DecidedPath { path: decided.path, decision, about: decided.about }
                });
                Decided::messages(paths.collect()).into_iter().try_for_each(|next| channel.send(&Message::Decided(next)))?;
            }
            Message::Widen(widen) if widen.lanes.len() + extra <= MAX_LANES => lanes.widen(parked.take(&widen.lanes)?),
            Message::FetchRequest(request) => content::answer(here.root, here.state, request, lanes)?,
            other => return Err(ChannelError::unexpected(other, "a question about rows or content")),
        }
        lanes.flush()?;
        // The answer is complete: whoever thinks about the next question asks nothing.
        drop(asked);
        next = lanes.main().next_or_end()?;
    }
    Ok(())
}

fn failed(error: impl ToString) -> ChannelError {
    ChannelError::Failed(error.to_string())
}

fn in_message(decision: Decision) -> wire::Decision {
    match decision {
        Decision::Local => wire::Decision::Local,
        Decision::Remote => wire::Decision::Remote,
        Decision::Newer => wire::Decision::Newer,
        Decision::Both => wire::Decision::Both,
    }
}

/// The directory asked for, then those that follow it, as long as there is room.
fn list(
    channel: &mut Channel,
    here: &Here<'_>,
    request: &ListRequest,
    also: &Arc<BTreeSet<RelPath>>,
) -> Result<(), ChannelError> {
    let filter = request.filter.to_store(also);
    let listing = durable(here.state.listing(&request.path, &filter), here)?;
    let mut left = if matches!(request.filter, Filter::Only(_)) { 0 } else { request.ahead as usize };
    let mut follow = Follow::after(here.state, &filter, &listing);
    let mut directories = 1;
    send(channel, listing)?;
    // It is looked at while the others are read.
    channel.flush()?;
    while left > 0
        && let Some(path) = follow.next().map_err(failed)?
    {
        let listing = durable(here.state.listing(&path, &filter), here)?;
        let Some(rest) = left.checked_sub(listing.children.len() + 1) else { break };
        left = rest;
        directories += 1;
        follow.enter(&listing);
        send(channel, listing)?;
    }
    channel.send(&Message::ListingEnd(ListingEnd { directories }))
}

/// What was read is told only once it stands after a power cut too: in a root that stays open a scan may be recording meanwhile. It
/// costs nothing where nothing was recorded since.
fn durable<T>(read: Result<T, StateError>, here: &Here<'_>) -> Result<T, ChannelError> {
    let read = read.map_err(failed)?;
    here.state.settle().map_err(failed)?;
    Ok(read)
}

fn send(channel: &mut Channel, listing: crate::store::Listing) -> Result<(), ChannelError> {
    Piece::of(listing).into_iter().try_for_each(|piece| channel.send(&Message::Listing(piece)))
}

/// Reads the files, and tells what came of each.
fn hash(channel: &mut Channel, here: &Here<'_>, request: &HashRequest) -> Result<(), ChannelError> {
    for (number, paths) in request.paths.chunks(HASHES).enumerate() {
        let first = (number * HASHES) as u32;
        let read = while_beating(channel, first, BEAT, |monitor| {
            scan::rehash(here.root, here.state, paths, here.granularity_ns, monitor)
        })?;
        let problems: BTreeMap<RelPath, String> =
            read.map_err(failed)?.into_iter().map(|problem| (problem.path, problem.error)).collect();
        let results: Result<Vec<_>, _> = paths.iter().map(|path| result(here, path, &problems)).collect();
        channel.send(&Message::Hashed(Hashed { first, results: results.map_err(failed)? }))?;
        channel.flush()?;
    }
    Ok(())
}

fn result(here: &Here<'_>, path: &RelPath, problems: &BTreeMap<RelPath, String>) -> Result<HashResult, StateError> {
    let content = here.state.entry(path)?.map(|entry| entry.row.object.content);
    let failed = |code, text: &str| {
        let text = text[..text.floor_char_boundary(WHY_BYTES)].to_owned();
        HashResult::Failed(Failure { code, text })
    };
    Ok(match (problems.get(path), content) {
        (None, Some(Content::File { hash: Some(hash), .. })) => HashResult::Hash(hash),
        (Some(why), Some(Content::File { .. })) => failed(FailureCode::Unreadable, why),
        (why, _) => failed(FailureCode::Stale, why.map_or("changed since it was looked at", String::as_str)),
    })
}

/// Tells the other side, while files are read, that this goes on: by the clock, since a single read of a slow disk may take longer than
/// the other side waits. The work hears of it when nobody listens any more.
fn while_beating<T>(
    channel: &mut Channel,
    first: u32,
    every: Duration,
    work: impl FnOnce(&dyn Monitor) -> T,
) -> Result<T, ChannelError> {
    let beat = Beat { stopped: AtomicBool::new(false), over: AtomicBool::new(false) };
    thread::scope(|scope| {
        let beating = scope.spawn(|| beat.tell(channel, first, every));
        // Should the work panic, the beat must end all the same.
        let end = EndOf { over: &beat.over, thread: beating.thread().clone() };
        let done = work(&beat);
        drop(end);
        // A panic there is a defect: it goes on in this thread.
        beating.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(|()| done)
    })
}

struct Beat {
    /// Nobody listens any more.
    stopped: AtomicBool,
    over: AtomicBool,
}

impl Beat {
    fn tell(&self, channel: &mut Channel, first: u32, every: Duration) -> Result<(), ChannelError> {
        let mut last = Instant::now();
        while !self.over.load(Ordering::Acquire) {
            thread::park_timeout(every.saturating_sub(last.elapsed()));
            if last.elapsed() < every {
                continue;
            }
            last = Instant::now();
            let nothing = Message::Hashed(Hashed { first, results: Vec::new() });
            let told = channel.send(&nothing).and_then(|()| channel.flush());
            if told.is_err() {
                self.stopped.store(true, Ordering::Release);
                return told;
            }
        }
        Ok(())
    }
}

impl Monitor for Beat {
    fn problem(&self, _: &Problem) {
        // It is part of the answer.
    }

    fn cancelled(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::link::{Connection, local_pair};
    use crate::peer::PublicKey;
    use std::sync::mpsc;

    /// A connection, and both ends of a stream of it.
    fn ends() -> ([Connection; 2], [Channel; 2]) {
        let [near, far] = local_pair([1, 2].map(|key| PublicKey::from_bytes([key; 32])), [3; 32]);
        let mut asker = Channel::new(near.open(PATIENCE).unwrap());
        // A stream is there for the other side once something was sent on it.
        asker.send(&Message::Cancel(wire::Nothing)).unwrap();
        asker.flush().unwrap();
        let mut answerer = Channel::new(far.accept(PATIENCE).unwrap());
        assert!(matches!(answerer.receive().unwrap(), Message::Cancel(_)));
        ([near, far], [asker, answerer])
    }

    #[test]
    fn work_that_tells_of_no_progress_is_told_of_by_the_clock() {
        let (_connection, [mut asker, mut answerer]) = ends();
        let (heard, enough) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..3 {
                    let Message::Hashed(hashed) = asker.receive().unwrap() else { panic!("no beat") };
                    assert!(hashed.first == 7 && hashed.results.is_empty());
                }
                heard.send(()).unwrap();
                // Whatever still comes finds the stream open.
                while let Ok(Some(_)) = asker.next_or_end() {}
            });
            let done = while_beating(&mut answerer, 7, Duration::from_millis(1), |_| enough.recv().is_ok());
            assert!(done.unwrap());
            answerer.finish().unwrap();
        });
    }

    #[test]
    fn work_stops_where_nobody_listens_any_more() {
        let (_connection, [asker, mut answerer]) = ends();
        drop(asker);
        let done = while_beating(&mut answerer, 0, Duration::from_millis(1), |monitor| {
            while !monitor.cancelled() {
                thread::yield_now();
            }
        });
        assert!(done.is_err());
    }
}
