//! What is shown of a folder and of its peers.

use super::{Joined, Shared};
use crate::scheduler::{Job, Moment};
use crate::status::{self, Behind, FolderState, LISTED, PathProblem, PathText, Problems, Watches};
use crate::works::now_ns;
use std::collections::{BTreeMap, VecDeque};
use sync_core::io::sync::{LinkReport, Live, SyncError};
use sync_core::path::RelPath;
use sync_core::peer::{Id, Mode, Name};
use sync_core::plan::{Item, Totals, Verb};

/// Counting the kept versions takes no more than one part in so many of the time.
const KEPT_SHARE: u32 = 200;

/// What is shown of a folder.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) unavailable: Option<String>,
    pub(super) live: Option<u64>,
    /// How many, and some of their paths.
    pub(super) conflicts: Option<(u64, Vec<RelPath>)>,
    /// What was brought last, the newest at the end.
    pub(super) recent: VecDeque<status::Recent>,
    /// All that was brought.
    pub(super) brought: status::BroughtStatus,
    pub(super) watches: Watches,
    /// By what they failed at: each job replaces its own.
    pub(super) problems: BTreeMap<Source, (u64, Vec<PathProblem>)>,
    pub(super) last_change: Option<status::Moment>,
    /// Kept versions as they were counted last, and when they are counted again.
    pub(super) kept: Option<status::Kept>,
    pub(super) count_kept: Moment,
    /// What was logged last of each kind, so that it is logged once.
    pub(super) said: BTreeMap<Source, String>,
}

/// What a problem comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Root,
    Watch,
    Look,
    Pull(Id),
    /// Days move.
    Archive,
    /// The cold root is there.
    Cold,
    /// What lies there is looked at.
    ColdLook,
    /// It is read again.
    Scrub,
}

/// A peer of the folder, for whoever shows it.
pub(crate) struct PeerFacts {
    pub(crate) link: Option<status::Link>,
    pub(crate) quality: Option<status::Quality>,
    pub(crate) lacking_here: Option<Behind>,
    pub(crate) lacking_there: Option<Behind>,
    pub(crate) last_sync: Option<status::Moment>,
    pub(crate) clock_offset_ms: Option<f64>,
}

impl Shared {
    /// A pull found out how much it has to bring.
    pub(crate) fn lacks(&self, peer: Id, files: u64, bytes: u64) {
        let mut inbox = self.inbox();
        let Some(joined) = inbox.members.get_mut(&peer) else { return };
        let before = joined.lacking.take();
        let since = before.as_ref().and_then(|lacking| lacking.since).or_else(|| (files > 0).then(now_ns));
        // What waited before this pull waits for longer than what it found.
        let oldest = before.and_then(|lacking| lacking.oldest).or(joined.awaited.take()).filter(|_| files > 0);
        joined.lacking = Some(Behind { files, bytes, since, oldest });
    }

    /// A pull found a path that it is to bring, before [`Shared::lacks`].
    pub(crate) fn awaits(&self, peer: Id, path: &RelPath) {
        if let Some(joined) = self.inbox().members.get_mut(&peer) {
            joined.awaited = Some(PathText::new(path.as_bytes()));
        }
    }

    /// Counts the kept versions, so seldom that it costs next to nothing however many there are.
    pub(super) fn count_kept(&self, live: &Live) -> Result<(), SyncError> {
        let begun = self.now();
        if begun < self.inbox().facts.count_kept {
            return Ok(());
        }
        let (count, bytes) = live.kept()?;
        let took = self.now().saturating_sub(begun);
        let facts = &mut self.inbox().facts;
        facts.kept = Some(status::Kept { count, bytes });
        facts.count_kept = self.now() + took * KEPT_SHARE;
        Ok(())
    }

    /// A pull has brought some of it.
    pub(crate) fn brought(&self, peer: Id, files: u64, bytes: u64) {
        let mut inbox = self.inbox();
        if let Some(lacking) = inbox.members.get_mut(&peer).and_then(|joined| joined.lacking.as_mut()) {
            lacking.files = lacking.files.saturating_sub(files);
            lacking.bytes = lacking.bytes.saturating_sub(bytes);
        }
    }

    /// A pull has come to its end, or to where it was stopped.
    pub(super) fn count_brought(&self, totals: &Totals) {
        let brought = &mut self.inbox().facts.brought;
        let sum = |counted: &mut u64, more: u64| *counted = counted.saturating_add(more);
        sum(&mut brought.created, totals.created);
        sum(&mut brought.updated, totals.updated);
        sum(&mut brought.deleted, totals.deleted);
        sum(&mut brought.moved, totals.moved);
        sum(&mut brought.conflicts, totals.conflicts);
        sum(&mut brought.bytes, totals.bytes);
    }

    /// Something was brought from a peer.
    pub(crate) fn took(&self, peer: Id, item: &Item) {
        let mut inbox = self.inbox();
        let place = PathText::new(item.path.as_bytes());
        if let Some(lacking) = inbox.members.get_mut(&peer).and_then(|joined| joined.lacking.as_mut()) {
            lacking.oldest.take_if(|oldest| *oldest == place);
        }
        let Some(from) = inbox.allowed.get(&peer).map(|(name, _)| name.clone()) else { return };
        let recent = &mut inbox.facts.recent;
        if recent.len() >= LISTED {
            recent.pop_front();
        }
        let action = word(item.verb).to_owned();
        recent.push_back(status::Recent { at: now_ns(), action, place, from });
    }

    /// What the folder is doing.
    pub(crate) fn state(&self) -> FolderState {
        let inbox = self.inbox();
        let now = self.now();
        match (&inbox.facts.unavailable, inbox.running) {
            (Some(why), _) => FolderState::Unavailable { why: why.clone() },
            _ if inbox.scheduler.is_paused() => FolderState::Paused,
            (_, Some(Job::LookAtAll)) => FolderState::Scanning,
            (_, Some(Job::Pull(peer))) if inbox.members.get(&peer).is_some_and(Joined::lacks_something) => FolderState::Syncing,
            _ if inbox.live.is_none() || !inbox.scheduler.is_looked_at(now) && inbox.facts.live.is_none() => {
                FolderState::Starting
            }
            _ => FolderState::Watching,
        }
    }

    /// Numbers of the folder.
    pub(crate) fn fill(&self, status: &mut status::FolderStatus) {
        let inbox = self.inbox();
        let facts = &inbox.facts;
        (status.paths, status.watches) = (facts.live, facts.watches);
        status.conflicts = facts.conflicts.as_ref().map(|(count, _)| *count);
        let in_conflict = facts.conflicts.iter().flat_map(|(_, paths)| paths);
        status.in_conflict = in_conflict.map(|path| PathText::new(path.as_bytes())).collect();
        (status.kept, status.brought) = (facts.kept, facts.brought);
        status.recent = facts.recent.iter().rev().cloned().collect();
        let listed = facts.problems.values().flat_map(|(_, listed)| listed).take(LISTED).cloned().collect();
        let total = facts.problems.values().map(|(total, _)| total).sum();
        (status.problems, status.last_change) = (Problems { total, listed }, facts.last_change);
        drop(inbox);
        status.archive = self.desk.shown();
    }

    /// How it is with a peer.
    pub(crate) fn peer(&self, peer: Id) -> PeerFacts {
        let seq = self.live().and_then(|live| live.standing().ok()).map(|standing| standing.seq);
        let inbox = self.inbox();
        let Some(joined) = inbox.members.get(&peer) else {
            return PeerFacts {
                link: None,
                quality: None,
                lacking_here: None,
                lacking_there: None,
                last_sync: None,
                clock_offset_ms: None,
            };
        };
        let report = joined.member.reported();
        let lacking_there = report.filter(|_| joined.member.mode() != Mode::ReceiveOnly).map(|report| {
            let all = seq.is_some_and(|seq| report.incorporated >= seq);
            let (files, bytes) = if all { (0, 0) } else { (report.files.max(1), report.bytes) };
            Behind { files, bytes, since: None, oldest: None }
        });
        let behind = joined.member.may_be_pulled() && joined.incorporated < joined.member.seq();
        let lacking_here = match &joined.lacking {
            Some(lacking) if behind && !lacking.is_any() => None,
            other => other.clone(),
        };
        let direction = if joined.called { status::Direction::Out } else { status::Direction::In };
        let link = joined.member.address().map(|address| status::Link::Connected { since: joined.since, address, direction });
        let quality = joined.shown_quality();
        PeerFacts {
            link,
            quality,
            lacking_here,
            lacking_there,
            last_sync: joined.last_sync,
            clock_offset_ms: joined.member.clock_ahead_ms(),
        }
    }
}

impl Joined {
    /// How good the path is, as measured last.
    pub(super) fn shown_quality(&self) -> Option<status::Quality> {
        let [out, back] = self.quality.loss();
        let loss = 1.0 - (1.0 - out.unwrap_or(0.0)) * (1.0 - back.unwrap_or(0.0));
        let rtt_ms = self.quality.rtt_ms()?;
        Some(status::Quality { rtt_ms, loss, goodput: self.quality.goodput(), cost: self.quality.cost() })
    }

    pub(super) fn lacks_something(&self) -> bool {
        self.lacking.as_ref().is_some_and(Behind::is_any)
    }

    pub(super) fn report(&self) -> LinkReport {
        let path = self.member.quality();
        let (files, bytes) = self.lacking.as_ref().map_or((0, 0), |lacking| (lacking.files, lacking.bytes));
        LinkReport { sent: path.sent, lost: path.lost, incorporated: self.incorporated, files, bytes, clock_ms: 0 }
    }
}

/// What an agent's user can do about it is not what the command's user can.
pub(super) fn words(error: &SyncError, folder: &Name) -> String {
    match error {
        SyncError::Guard(text) => {
            let (what, _) = text.split_once(" If the deletions are meant").unwrap_or((text, ""));
            format!("{what} If the deletions are meant: driftless agent sync {folder} --allow-delete")
        }
        other => other.to_string(),
    }
}

pub(super) fn shown(problem: &sync_core::report::Problem) -> PathProblem {
    PathProblem { place: PathText::new(problem.path.as_bytes()), step: problem.step.to_owned(), error: problem.error.clone() }
}

fn word(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "create",
        Verb::Update => "update",
        Verb::Delete => "delete",
        Verb::Move => "move",
        Verb::Meta => "meta",
        Verb::Conflict => "conflict",
    }
}
