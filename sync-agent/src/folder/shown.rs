//! What is shown of a folder and of its peers.

use super::unseen::Unseen;
use super::{Joined, Shared};
use crate::passed::Passed;
use crate::scheduler::{Job, Moment};
use crate::status::{self, Behind, FolderState, LISTED, PathProblem, PathText, Problems, Transfer, Watches};
use crate::works::now_ns;
use std::collections::{BTreeMap, VecDeque};
use sync_core::io::sync::{LinkReport, Live, SyncError};
use sync_core::path::RelPath;
use sync_core::peer::{Id, Mode, Name};
use sync_core::plan::{Item, Totals, Verb};
use sync_core::report::OnItsWay;

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
    /// When the folder's own sequence of changes passed which number.
    pub(super) passed: Passed,
    /// What could not be looked at.
    pub(super) unseen: Unseen,
    /// Peers from which nothing is pulled before somebody has decided, and what is to be decided.
    pub(super) stopped: BTreeMap<Id, String>,
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
    /// Files are read of which a pull from this peer can decide nothing before.
    Read(Id),
    /// Days move.
    Archive,
    /// Those that moved are looked after.
    Settle,
    /// The cold root is there.
    Cold,
    /// What lies there is looked at.
    ColdLook,
    /// It is read again.
    Scrub,
}

/// A peer of the folder, for whoever shows it.
#[derive(Default)]
pub(crate) struct PeerFacts {
    pub(crate) link: Option<status::Link>,
    pub(crate) quality: Option<status::Quality>,
    pub(crate) lacking_here: Option<Behind>,
    pub(crate) lacking_there: Option<Behind>,
    pub(crate) last_sync: Option<status::Moment>,
    pub(crate) clock_offset_ms: Option<f64>,
    pub(crate) transfers: Vec<Transfer>,
}

impl Shared {
    /// A pull found out how much it has to bring.
    pub(crate) fn lacks(&self, peer: Id, files: u64, bytes: u64) {
        let mut inbox = self.inbox();
        let Some(joined) = inbox.members.get_mut(&peer) else { return };
        joined.lacking = Some(still_lacking(joined.lacking.take(), (files, bytes), joined.awaited.take(), now_ns()));
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

    /// What is on its way from a peer now: the largest of it is shown.
    pub(crate) fn on_their_way(&self, peer: Id, files: &[OnItsWay]) {
        let mut largest: Vec<&OnItsWay> = files.iter().collect();
        largest.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.path.cmp(&b.path)));
        let shown = largest.into_iter().take(LISTED).map(|file| Transfer {
            place: PathText::new(file.path.as_bytes()),
            direction: status::Direction::In,
            bytes: file.bytes,
            total: file.total,
        });
        if let Some(joined) = self.inbox().members.get_mut(&peer) {
            joined.transfers = shown.collect();
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
        // What came from one is awaited from nobody any more.
        for lacking in inbox.members.values_mut().filter_map(|joined| joined.lacking.as_mut()) {
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
            _ => match inbox.facts.stopped.values().next() {
                Some(why) => FolderState::Stopped { why: why.clone() },
                None => FolderState::Watching,
            },
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
        let listed = facts.unseen.listed().chain(facts.problems.values().flat_map(|(_, listed)| listed));
        let listed = listed.take(LISTED).cloned().collect();
        let total = facts.problems.values().fold(facts.unseen.total(), |sum, (total, _)| sum.saturating_add(*total));
        (status.problems, status.last_change) = (Problems { total, listed }, facts.last_change);
        drop(inbox);
        status.archive = self.desk.shown();
        // Days that came straight to the cold root are there since then, and not only since somebody looked.
        if let (Some(archive), Some(live)) = (&mut status.archive, self.live()) {
            let archived = live.root().places().all().filter(|placement| placement.settled).count() as u64;
            archive.scrub.never = archive.scrub.never.saturating_add(archived.saturating_sub(archive.archived));
            archive.archived = archived;
        }
    }

    /// How it is with a peer.
    pub(crate) fn peer(&self, peer: Id) -> PeerFacts {
        let seq = self.live().and_then(|live| live.standing().ok()).map(|standing| standing.seq);
        let inbox = self.inbox();
        let Some(joined) = inbox.members.get(&peer) else {
            return PeerFacts::default();
        };
        let report = joined.member.reported();
        let lacking_there = report.filter(|_| joined.member.mode() != Mode::ReceiveOnly).and_then(|report| {
            let since = inbox.facts.passed.since(report.incorporated);
            lacking_there(report, seq, since)
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
            transfers: joined.transfers.clone(),
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

/// What a pull found to be lacking, beside what was lacking before it.
fn still_lacking(before: Option<Behind>, (files, bytes): (u64, u64), first: Option<PathText>, now: status::Moment) -> Behind {
    let (since, oldest) = before.map_or((None, None), |before| (before.since, before.oldest));
    // All that is found when nothing was lacking waits for the same time. Later, only of a path that waited then, and is found
    // again, is it known that nothing waits for longer.
    let oldest = first.filter(|first| files > 0 && (since.is_none() || oldest.as_ref() == Some(first)));
    Behind { files, bytes, since: since.or_else(|| (files > 0).then_some(now)), oldest }
}

/// What a peer lacks by its own report, where this machine's changes have the number `seq`, and there is more than the peer knew
/// `since`.
fn lacking_there(report: LinkReport, seq: Option<u64>, since: Option<status::Moment>) -> Option<Behind> {
    if seq.is_some_and(|seq| report.incorporated >= seq) {
        return Some(Behind { files: 0, bytes: 0, since: None, oldest: None });
    }
    // That there is something that it has not pulled does not tell whether it lacks any of that.
    let lacks = report.files > 0 || report.bytes > 0;
    lacks.then_some(Behind { files: report.files, bytes: report.bytes, since, oldest: None })
}

/// Why a pull from a peer failed. What an agent's user can do about it is not what the command's user can.
pub(super) fn from_peer(error: &SyncError, folder: &Name, peer: &str) -> String {
    match error {
        SyncError::Guard(text) => {
            let (what, _) = text.split_once(" If the deletions are meant").unwrap_or((text, ""));
            format!(
                "the pull from {peer} needs a decision: {what} If the deletions are meant: driftless agent sync {folder} \
                 --allow-delete. If they are not, bring back on {peer} what is missing there (driftless versions, driftless restore): \
                 it goes on by itself"
            )
        }
        SyncError::Anew(what) => format!("the pull from {peer} needs a decision: {what}"),
        other => format!("the pull from {peer} failed: {other}"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use status::Moment;

    fn path(text: &str) -> PathText {
        PathText::new(text.as_bytes())
    }

    fn behind(files: u64, since: Option<i64>, oldest: Option<&str>) -> Behind {
        Behind { files, bytes: 9 * files, since: since.map(Moment), oldest: oldest.map(path) }
    }

    #[test]
    fn a_path_waits_longest_only_where_that_is_known() {
        for (before, files, first, after) in [
            (None, 2, Some("a"), behind(2, Some(7), Some("a"))),
            (Some(behind(0, None, None)), 2, Some("a"), behind(2, Some(7), Some("a"))),
            (Some(behind(3, Some(5), Some("b"))), 2, Some("b"), behind(2, Some(5), Some("b"))),
            // It came, or went; or something else stands before it now.
            (Some(behind(3, Some(5), None)), 2, Some("b"), behind(2, Some(5), None)),
            (Some(behind(3, Some(5), Some("b"))), 2, Some("a"), behind(2, Some(5), None)),
            (Some(behind(3, Some(5), Some("b"))), 2, Some("c"), behind(2, Some(5), None)),
            (None, 0, None, behind(0, None, None)),
        ] {
            let told = still_lacking(before.clone(), (files, 9 * files), first.map(path), Moment(7));
            assert_eq!(told, after, "{before:?} {first:?}");
        }
    }

    #[test]
    fn of_a_peer_nothing_is_told_that_it_has_not_said() {
        let report = |incorporated, files| LinkReport { incorporated, files, bytes: 9 * files, ..LinkReport::default() };
        for (told, seq, after) in [
            (report(4, 0), Some(4), Some(behind(0, None, None))),
            (report(5, 3), Some(4), Some(behind(0, None, None))),
            (report(3, 0), Some(4), None),
            (report(3, 2), Some(4), Some(behind(2, Some(1), None))),
            (report(4, 0), None, None),
        ] {
            assert_eq!(lacking_there(told, seq, Some(Moment(1))), after, "{told:?} {seq:?}");
        }
    }
}
