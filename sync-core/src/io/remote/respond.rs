//! Answers what the other side asks on one of its streams.

use super::content;
use super::follow::Follow;
use super::here::{Here, Told};
use crate::entry::Content;
use crate::io::channel::{Channel, ChannelError};
use crate::io::link::Stream;
use crate::io::scan;
use crate::io::state::{Decision, StateError};
use crate::io::there::There;
use crate::path::RelPath;
use crate::report::{Monitor, Problem};
use crate::wire::{
    self, Decided, DecidedPath, DigestAnswer, Failure, FailureCode, Filter, HashRequest, HashResult, Hashed, ListRequest,
    ListingEnd, Message, Piece, Refusal,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
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
pub fn respond(stream: Stream, here: &Here<'_>) -> Result<(), ChannelError> {
    let mut channel = Channel::new(stream);
    channel.set_wait(PATIENCE);
    let answered = converse(&mut channel, here);
    if let Err(error) = &answered {
        let code = match error {
            ChannelError::Wire(_) | ChannelError::Unexpected { .. } => Refusal::Request,
            _ => Refusal::Failed,
        };
        // Where the connection failed this fails as well, and is known already.
        let _ = channel.refuse(code, error.to_string());
    }
    let finished = channel.finish();
    answered.and(finished)
}

fn converse(channel: &mut Channel, here: &Here<'_>) -> Result<(), ChannelError> {
    let mut also = Arc::default();
    while let Some(question) = channel.next_or_end()? {
        match question {
            Message::Also(told) => told.add_to(Arc::make_mut(&mut also))?,
            told @ (Message::Ready(_) | Message::Report(_)) => match (told, here.heard) {
                (Message::Ready(ready), Some(heard)) => heard(Told::Ready(ready)),
                (Message::Report(report), Some(heard)) => heard(Told::Report(report)),
                (other, _) => return Err(ChannelError::unexpected(other, "a question about rows or content")),
            },
            _ if !here.may_read => return channel.refuse(Refusal::NotGranted, "this machine may not read the folder"),
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
            Message::FetchRequest(request) => content::answer(here.root, here.state, request, channel)?,
            other => return Err(ChannelError::unexpected(other, "a question about rows or content")),
        }
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
    let listing = here.state.listing(&request.path, &filter).map_err(failed)?;
    let mut left = if matches!(request.filter, Filter::Only(_)) { 0 } else { request.ahead as usize };
    let mut follow = Follow::after(here.state, &filter, &listing);
    let mut directories = 1;
    send(channel, listing)?;
    // It is looked at while the others are read.
    channel.flush()?;
    while left > 0
        && let Some(path) = follow.next().map_err(failed)?
    {
        let listing = here.state.listing(&path, &filter).map_err(failed)?;
        let Some(rest) = left.checked_sub(listing.children.len() + 1) else { break };
        left = rest;
        directories += 1;
        follow.enter(&listing);
        send(channel, listing)?;
    }
    channel.send(&Message::ListingEnd(ListingEnd { directories }))
}

fn send(channel: &mut Channel, listing: crate::store::Listing) -> Result<(), ChannelError> {
    Piece::of(listing).into_iter().try_for_each(|piece| channel.send(&Message::Listing(piece)))
}

/// Reads the files, and tells what came of each.
fn hash(channel: &mut Channel, here: &Here<'_>, request: &HashRequest) -> Result<(), ChannelError> {
    for (number, paths) in request.paths.chunks(HASHES).enumerate() {
        let first = (number * HASHES) as u32;
        let beat = Beat::new(channel, first);
        let read = scan::rehash(here.root, here.state, paths, here.granularity_ns, &beat);
        beat.finish()?;
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

/// Tells the other side, while files are read, that this goes on; and stops where nobody listens any more.
struct Beat<'a> {
    inner: Mutex<Beating<'a>>,
    first: u32,
}

struct Beating<'a> {
    channel: &'a mut Channel,
    last: Instant,
    failed: Option<ChannelError>,
}

impl<'a> Beat<'a> {
    fn new(channel: &'a mut Channel, first: u32) -> Beat<'a> {
        Beat { inner: Mutex::new(Beating { channel, last: Instant::now(), failed: None }), first }
    }

    fn finish(self) -> Result<(), ChannelError> {
        let inner = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        inner.failed.map_or(Ok(()), Err)
    }
}

impl Monitor for Beat<'_> {
    fn advance(&self, _: u64, _: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.failed.is_some() || inner.last.elapsed() < BEAT {
            return;
        }
        let nothing = Message::Hashed(Hashed { first: self.first, results: Vec::new() });
        inner.failed = inner.channel.send(&nothing).and_then(|()| inner.channel.flush()).err();
        inner.last = Instant::now();
    }

    fn problem(&self, _: &Problem) {
        // It is part of the answer.
    }

    fn cancelled(&self) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).failed.is_some()
    }
}
