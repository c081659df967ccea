//! What is done to the old days of a folder: they are looked for and moved, their old copies are looked after, and days that come old
//! are placed in the cold root at once.

use super::archiving::Archivist;
use super::listeners::{Settling, Steadily, Teller};
use super::{Shared, Source};
use crate::archive::run::{self, Day, Ground, RunError};
use crate::archive::{Chooser, Decision, Order, Reason, end_ns};
use crate::config::Timezone;
use crate::doctor::counted;
use crate::log::Level;
use crate::status::{self, ArchiveDoing, ArchiveRun, DaysSeen, LISTED, PathProblem, PathText};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use sync_core::io::archive::{Archive, ArchiveError};
use sync_core::io::fs::{Choose, Cold};
use sync_core::io::sync::{Live, Member, SyncError};
use sync_core::path::RelPath;
use sync_core::peer::Id;
use sync_core::report::Monitor;

/// Under this name a root remembers up to where its peers have it.
const HOLDERS: &str = "agent.holders";

/// A root that goes on to be synchronised, as archiving sees it.
pub(super) struct Grounds<'a> {
    live: &'a Live,
    /// Up to which of its sequence numbers each peer has all of it, and the connection to it if there is one.
    peers: Vec<(u64, Option<Arc<Member>>)>,
}

/// Up to where a peer has a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    /// Whose replica told so: another one has to tell anew.
    replica: String,
    seq: u64,
}

impl Ground for Grounds<'_> {
    fn conflicts(&self) -> Result<Vec<RelPath>, SyncError> {
        Ok(self.live.in_conflict(usize::MAX)?.1)
    }

    fn placed(&self) -> Vec<RelPath> {
        self.live.root().places().all().map(|placement| placement.path.clone()).collect()
    }

    fn note(&self, name: &str) -> Result<Option<Vec<u8>>, SyncError> {
        self.live.archive_note(name)
    }

    fn put_note(&self, name: &str, value: &[u8]) -> Result<(), SyncError> {
        self.live.put_archive_note(name, value)
    }

    /// Who told that it has incorporated everything up to a number has all that changed here before that. Of whom nothing was heard
    /// since a day changed, it is not known.
    fn holders(&self, day: &RelPath, monitor: &dyn Monitor) -> Result<usize, SyncError> {
        if self.peers.is_empty() {
            return Ok(0);
        }
        // What nobody noticed yet, nobody else has.
        self.live.scan(std::slice::from_ref(day), monitor)?;
        let Some(newest) = self.live.newest(day)? else { return Ok(0) };
        let may_lack = |member: &Option<Arc<Member>>| member.as_ref().is_some_and(|member| member.may_lack(day));
        Ok(self.peers.iter().filter(|(seq, member)| *seq >= newest && !may_lack(member)).count())
    }
}

impl Shared {
    /// For what needs no peers.
    pub(super) fn grounds<'a>(&self, live: &'a Live) -> Grounds<'a> {
        Grounds { live, peers: Vec::new() }
    }

    /// With what is known of the folder's peers, which is remembered: one that is away still has what it had.
    pub(super) fn grounds_with_peers<'a>(&self, live: &'a Live) -> Result<Grounds<'a>, RunError> {
        let wrong =
            |error: serde_json::Error| RunError::Note(format!("what is known of the peers cannot be remembered ({error})"));
        let known = live.archive_note(HOLDERS)?;
        let known = known.map_or(Ok(BTreeMap::new()), |bytes| serde_json::from_slice(&bytes));
        let known: BTreeMap<Id, Holder> = self.recalled(HOLDERS, known);
        let mut now = known.clone();
        let mut members = BTreeMap::new();
        {
            let inbox = self.inbox();
            now.retain(|peer, _| inbox.allowed.contains_key(peer));
            for (peer, joined) in inbox.members.iter().filter(|(_, joined)| !joined.member.is_over()) {
                let replica = joined.member.replica().to_string();
                let told = joined.member.reported().map_or(0, |report| report.incorporated);
                let holder = now.entry(*peer).or_insert_with(|| Holder { replica: replica.clone(), seq: 0 });
                let before = if holder.replica == replica { holder.seq } else { 0 };
                *holder = Holder { replica, seq: before.max(told) };
                members.insert(*peer, Arc::clone(&joined.member));
            }
        }
        if now != known {
            live.put_archive_note(HOLDERS, &serde_json::to_vec(&now).map_err(wrong)?)?;
        }
        let peers = now.into_iter().map(|(peer, holder)| (holder.seq, members.remove(&peer))).collect();
        Ok(Grounds { live, peers })
    }

    /// From now on old days are placed in a cold root when they come; `None`: they come to the hot root, and are moved later.
    pub(super) fn place_old_days(&self, live: &Live, archive: &Archive<'_>, order: &Order, cold: Option<&Arc<Cold>>) {
        let linking = cold.and_then(|cold| archive.linking(cold, order.form.clone()).ok());
        let chooser = linking.and_then(|linking| {
            // By the clock as by a run: one that jumped since the last is not believed. What stands in the way of that a run tells.
            let (time, name) = (self.desk.clock.time(), format!("archive.{}", self.name));
            let since = run::last(&self.grounds(live), time.trial).ok()?.unwrap_or(time.moment);
            Some(Arc::new(Chooser::new(order, linking, (self.desk.clock, since), name)) as Arc<dyn Choose>)
        });
        live.root().set_chooser(chooser);
    }

    /// Something is wrong: it is told once, and shown until it is over.
    pub(super) fn trouble(&self, source: Source, path: &RelPath, why: &str) {
        let problem = PathProblem { place: PathText::new(path.as_bytes()), step: "archive".into(), error: why.to_owned() };
        self.inbox().facts.problems.insert(source, (1, vec![problem]));
        self.say(source, Level::Error, why);
    }

    /// It is over.
    pub(super) fn trouble_no_more(&self, source: Source) {
        let facts = &mut self.inbox().facts;
        facts.problems.remove(&source);
        facts.said.remove(&source);
    }
}

impl Archivist<'_> {
    /// One run, from its beginning to its end.
    pub(super) fn run(&mut self, archive: &Archive<'_>, asked: Option<bool>) {
        self.doing(ArchiveDoing::Running);
        let shared = self.shared;
        let time = shared.desk.clock.time();
        let mut told = Teller::new(shared, &self.settling);
        let done = shared
            .grounds_with_peers(self.live)
            .and_then(|ground| run::run((&ground, archive), &self.order, (&time, asked == Some(true)), &mut told));
        let Teller { failed, settling, .. } = told;
        let mut last = ArchiveRun {
            at: status::Moment(time.moment.now_ns),
            moved: 0,
            files: 0,
            bytes: 0,
            copied: 0,
            held: 0,
            changed: 0,
            failed: failed.len() as u64,
            error: None,
        };
        let believed = !matches!(done, Err(RunError::Clock(_)));
        let whole = match done {
            // Whoever stopped it has it go on: it is as if it had not begun.
            Err(RunError::Archive(ArchiveError::Cancelled) | RunError::Root(SyncError::Cancelled)) => {
                if let Some(accept_clock) = asked {
                    shared.desk.ask_again(accept_clock);
                }
                return;
            }
            Ok(report) => {
                (last.moved, last.held, last.changed, last.failed) = (report.moved, report.held, report.changed, report.failed);
                (last.files, last.bytes, last.copied) = (report.total.files, report.total.bytes, report.total.copied);
                self.tell(&last, report.removed);
                self.brought(&report.late);
                self.look_at(&report.merged);
                let settling = settling.unwrap_or_default();
                self.failed(&failed, report.failed.saturating_sub(settling.failed.len() as u64));
                self.settled(settling);
                true
            }
            Err(error) => {
                let missing = self.lacks_cold(archive);
                let why = missing.clone().unwrap_or_else(|| error.to_string());
                match missing {
                    // That is told by whoever looks for it, right after this.
                    Some(_) => shared.trouble_no_more(Source::Archive),
                    None => shared.trouble(Source::Archive, &RelPath::root(), &format!("old days are not archived: {why}")),
                }
                last.error = Some(why);
                false
            }
        };
        match believed {
            true => self.choose(archive),
            // It says nothing of days that come either.
            false => shared.place_old_days(self.live, archive, &self.order, None),
        }
        (self.runs.last, self.runs.count) = (Some(last.clone()), self.runs.count + 1);
        if let Err(error) = shared.remember(self.live, &self.runs) {
            shared.trouble(
                Source::Archive,
                &RelPath::root(),
                &format!("that old days were archived cannot be remembered: {error}"),
            );
        }
        shared.desk.show(|shown| shown.last = Some(last));
        shared.desk.answer(self.answers);
        self.ended(whole);
        self.see(archive);
        self.settle_after(Some(Duration::ZERO));
        if whole {
            self.look_at_cold();
            // What came to the cold root now is read there for the first time.
            self.when.scrub = shared.now();
        }
    }

    fn tell(&self, last: &ArchiveRun, removed: u64) {
        if last.moved + last.changed + last.failed + removed > 0 {
            let ArchiveRun { bytes, changed, failed, .. } = last;
            let (days, files) = (counted(last.moved, "day", "days"), counted(last.files, "file", "files"));
            let removed = old_copies(removed);
            let text = format!(
                "archived {days} ({files}, {bytes} bytes); {changed} changed meanwhile, {failed} failed, {removed} removed"
            );
            self.shared.log(Level::Notice, &text);
        }
    }

    fn failed(&self, failed: &[(RelPath, String)], count: u64) {
        if count == 0 && failed.is_empty() {
            return self.shared.trouble_no_more(Source::Archive);
        }
        let listed = failed.iter().take(LISTED).map(shown).collect();
        self.shared.inbox().facts.problems.insert(Source::Archive, (count.max(failed.len() as u64), listed));
    }

    /// Days that had moved before were looked after: what stood in the way of that is shown until the next time.
    fn settled(&mut self, settling: Settling) {
        let listed: Vec<PathProblem> = settling.failed.iter().take(LISTED).map(shown).collect();
        {
            let facts = &mut self.shared.inbox().facts;
            facts.said.remove(&Source::Settle);
            match listed.is_empty() {
                true => drop(facts.problems.remove(&Source::Settle)),
                false => drop(facts.problems.insert(Source::Settle, (settling.failed.len() as u64, listed))),
            }
        }
        self.settling = settling;
    }

    /// Late writes came to these paths: they are changes like any other.
    fn brought(&self, paths: &[RelPath]) {
        if paths.is_empty() {
            return;
        }
        for path in paths.iter().take(LISTED) {
            self.shared.log(Level::Notice, &format!("{path} was written to after its day had moved: it was brought over"));
        }
        self.look_at(paths);
    }

    /// Something changed there.
    pub(super) fn look_at(&self, paths: &[RelPath]) {
        self.shared.look_at(paths.to_vec());
    }

    /// Days that come old are placed in the cold root, if that is there.
    fn choose(&self, archive: &Archive<'_>) {
        let cold = archive.cold(&self.order.cold).ok();
        self.shared.place_old_days(self.live, archive, &self.order, cold.as_ref());
    }

    /// Why the cold root cannot be used, if it cannot.
    fn lacks_cold(&self, archive: &Archive<'_>) -> Option<String> {
        let error = archive.check_usable(&self.order.cold).err()?;
        Some(match &error {
            // It names the cold root itself.
            ArchiveError::Fs(error) => error.unavailable().map_or_else(|| error.to_string(), ToString::to_string),
            other => other.to_string(),
        })
    }

    /// Is the cold root there? What is hot is synchronised in any case.
    pub(super) fn glance(&mut self, archive: &Archive<'_>) {
        let why = self.lacks_cold(archive);
        self.is_there = why.is_none();
        let before = {
            let mut before = None;
            self.shared.desk.show(|shown| before = std::mem::replace(&mut shown.unavailable, why.clone()));
            before
        };
        match why {
            Some(why) => {
                let text = format!("no day is archived, and what is hot goes on: {why}");
                self.shared.trouble(Source::Cold, &RelPath::root(), &text);
                self.shared.place_old_days(self.live, archive, &self.order, None);
            }
            None => {
                self.shared.trouble_no_more(Source::Cold);
                if before.is_some() {
                    self.shared.log(Level::Notice, "the cold root is there again");
                    self.choose(archive);
                    self.try_again();
                    self.look_at_missing();
                }
            }
        }
    }

    /// Looks for days, for whoever asks how it is.
    pub(super) fn survey(&mut self, archive: &Archive<'_>) {
        self.doing(ArchiveDoing::Looking);
        self.see(archive);
    }

    fn see(&mut self, archive: &Archive<'_>) {
        let time = self.shared.desk.clock.time();
        let cold = archive.cold(&self.order.cold).ok();
        let seen = self
            .shared
            .grounds_with_peers(self.live)
            .and_then(|ground| run::look((&ground, archive), &self.order, cold.as_ref(), &time));
        let kept = archive.displaced().map_or(0, |kept| kept.len() as u64);
        let days = match seen {
            Ok(days) => Some(days_seen(&days, &self.order)),
            // What was seen before is shown until it is looked for again, as soon as that can be.
            Err(RunError::Archive(ArchiveError::Cancelled) | RunError::Root(SyncError::Cancelled)) => {
                return self.survey_soon();
            }
            // A run tells it, and goes on about it.
            Err(_) => None,
        };
        let archived = self.live.root().places().all().count() as u64;
        self.shared.desk.show(|shown| {
            (shown.archived, shown.displaced) = (archived, kept);
            shown.days = days;
        });
        self.show_scrub();
    }

    /// Brings late writes over, and removes old copies whose time has come.
    pub(super) fn settle(&mut self, archive: &Archive<'_>) {
        let kept = archive.displaced().unwrap_or_default();
        if kept.is_empty() {
            self.settled(Settling::default());
            return self.settle_after(None);
        }
        if self.lacks_cold(archive).is_some() {
            // It went since that was looked at: that is told, and not each of its days.
            return self.glance(archive);
        }
        let (mut told, mut report) = (Teller::new(self.shared, &self.settling), run::Report::default());
        let time = self.shared.desk.clock.time();
        let ground = self.shared.grounds(self.live);
        let done = run::settle((&ground, archive), &time, (&mut told, &mut report));
        let settling = told.settling.unwrap_or_default();
        match done {
            Ok(()) => {
                self.brought(&report.late);
                self.settled(settling);
            }
            Err(RunError::Archive(ArchiveError::Cancelled)) => return,
            Err(error) => self.shared.say(Source::Settle, Level::Warning, &error.to_string()),
        }
        if report.removed > 0 {
            self.shared.log(Level::Notice, &format!("{} of archived days removed", old_copies(report.removed)));
        }
        let now_ns = run::Time::now(None).moment.now_ns;
        let age = |since_ns: i64| Duration::from_nanos(u64::try_from(now_ns.saturating_sub(since_ns)).unwrap_or(0));
        self.settle_after(kept.iter().map(|kept| age(kept.since_ns)).min());
        let left = archive.displaced().map_or(0, |kept| kept.len() as u64);
        self.shared.desk.show(|shown| shown.displaced = left);
    }

    /// A monitor at a pace.
    pub(super) fn steadily(&self, rate: u64) -> Steadily<'_> {
        Steadily::new(self.shared, self.over, Some(rate)).by(self.number)
    }
}

fn old_copies(number: u64) -> String {
    counted(number, "old copy", "old copies")
}

fn shown((path, error): &(RelPath, String)) -> PathProblem {
    PathProblem { place: PathText::new(path.as_bytes()), step: "archive".into(), error: error.clone() }
}

/// What was found, in numbers.
fn days_seen(days: &[Day], order: &Order) -> DaysSeen {
    let mut seen = DaysSeen::default();
    for day in days {
        let reason = match &day.decision {
            Decision::Stay(Reason::Archived) => continue,
            Decision::Move => {
                seen.waiting += 1;
                seen.waiting_bytes += day.contents.as_ref().map_or(0, |contents| contents.bytes);
                None
            }
            Decision::Stay(reason) => Some(reason.word()),
        };
        if let Some(word) = reason {
            *seen.staying.entry(word.to_owned()).or_default() += 1;
        }
        if seen.oldest.is_none() && !matches!(day.decision, Decision::Stay(Reason::Excluded)) {
            seen.oldest = Some(PathText::new(day.path.as_bytes()));
            let ended = match &order.zone {
                Timezone::Local => end_ns(day.period, &chrono::Local),
                Timezone::Named(name) => name.parse::<Tz>().ok().and_then(|zone| end_ns(day.period, &zone)),
            };
            seen.oldest_ended = ended.map(status::Moment);
        }
    }
    seen
}
