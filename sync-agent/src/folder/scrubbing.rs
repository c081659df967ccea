//! What was archived is looked at for changes, young days often and old ones seldom, and read again against its hashes, slowly.

use super::archiving::{Archivist, Damaged};
use super::repairing::Asked;
use super::shown::shown;
use super::{Shared, Source};
use crate::archive::run::Time;
use crate::log::Level;
use crate::status::{self, ArchiveDoing, LISTED, PathProblem, PathText};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use sync_core::entry::Hash;
use sync_core::io::archive::{Archive, ArchiveError, Repair, Scrub};
use sync_core::io::fs::Placement;
use sync_core::io::sync::{Live, SyncError};
use sync_core::path::RelPath;

/// Bytes that are read again a second, at the most.
pub(super) const RATE: u64 = 16 << 20;
/// After so long a day is read again.
const EVERY: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a day is left alone that could not be read again, how often it is looked which day is due, and after how long what is due does
/// not wait for looks any more.
pub(super) const LATER: Duration = Duration::from_secs(3600);
/// Days that are older are not watched, and looked at by one of so many runs.
const YOUNG: Duration = Duration::from_secs(30 * 24 * 3600);
const RUNS: u64 = 7;
/// Damaged files that are remembered.
const REMEMBERED: usize = 10_000;
/// Under these names a root remembers when its days were read again, and which files were damaged.
const READ: &str = "agent.scrubbed";
const DAMAGED: &str = "agent.damaged";

/// What is wrong with a damaged file.
const DAMAGED_IS: &str = "its bytes are not those that were written, although nobody wrote to it";

/// That a day was read again, as it is remembered. A day that was brought back and archived anew bears another stamp: what lies there
/// then was never read.
#[derive(Serialize, Deserialize)]
struct Read {
    #[serde(flatten)]
    place: PathText,
    stamp: String,
    at_ns: i64,
}

/// When days were read again, each with the stamp that it bore.
#[derive(Default)]
struct ReadAgain(BTreeMap<RelPath, (String, i64)>);

impl ReadAgain {
    /// When what lies there now was read, if it was.
    fn at(&self, placement: &Placement) -> Option<i64> {
        let (stamp, at_ns) = self.0.get(&placement.path)?;
        (*stamp == placement.stamp.to_string()).then_some(*at_ns)
    }
}

/// A damaged file as it is remembered.
#[derive(Serialize, Deserialize)]
struct Known {
    #[serde(flatten)]
    place: PathText,
    hash: String,
    since_ns: i64,
}

impl Shared {
    /// Since when a day is young, by the rule's clock, seconds since 1970.
    pub(super) fn young_since(&self) -> i64 {
        let young = i64::try_from(YOUNG.as_secs()).unwrap_or(i64::MAX);
        (self.desk.clock.time().moment.now_ns / 1_000_000_000).saturating_sub(young)
    }

    /// Days that were read again, and when.
    fn read_again(&self, live: &Live) -> Result<ReadAgain, SyncError> {
        let Some(bytes) = live.archive_note(READ)? else { return Ok(ReadAgain::default()) };
        let known: Vec<Read> = match serde_json::from_slice(&bytes) {
            Ok(known) => known,
            Err(error) => {
                // That is told once.
                live.put_archive_note(READ, b"[]")?;
                self.recalled(READ, Err(error))
            }
        };
        Ok(ReadAgain(
            known.into_iter().filter_map(|Read { place, stamp, at_ns }| Some((path_of(&place)?, (stamp, at_ns)))).collect(),
        ))
    }

    /// What reading a day again has shown: what was damaged in it before, and is not any more, is whole. If it was stopped within, nothing is
    /// said of the rest.
    pub(super) fn found(&self, live: &Live, (day, found): (&RelPath, &Scrub), gave: &dyn Fn(&RelPath) -> Option<String>) {
        let now_ns = Time::now(None).moment.now_ns;
        let mut damaged = self.desk.damaged();
        let before = damaged.clone();
        damaged.retain(|file| match found.interrupted {
            true => found.damaged.iter().all(|damage| damage.path != file.path),
            false => !day.contains(&file.path),
        });
        let mut repaired = Vec::new();
        for damage in &found.damaged {
            if damage.repaired {
                let from = gave(&damage.path).map_or(String::new(), |name| format!(" from {name}"));
                let text = "was damaged: its bytes in the cold root were not those that were written. It was brought back";
                self.log(Level::Notice, &format!("{} {text}{from}", damage.path));
                repaired.push(damage.path.clone());
                continue;
            }
            let known = before.iter().find(|file| file.path == damage.path);
            let since_ns = known.map_or(now_ns, |file| file.since_ns);
            // Whoever was about to be asked was not: what others said still counts.
            let said = known.filter(|_| found.interrupted).and_then(|file| file.why.clone());
            let why = damage.why.clone().or(said);
            damaged.push(Damaged { path: damage.path.clone(), hash: damage.hash, since_ns, why });
        }
        damaged.truncate(REMEMBERED);
        self.desk.repaired.fetch_add(repaired.len() as u64, Ordering::Relaxed);
        // Another file stands there now, with the same bytes: that is no change, and is known at once.
        self.look_at(repaired);
        for file in damaged.iter().filter(|file| before.iter().all(|known| known.path != file.path)) {
            self.log(Level::Error, &told(file));
        }
        for (path, why) in &found.unreadable {
            self.log(Level::Warning, &format!("{path} cannot be read again: {why}"));
        }
        if damaged != before {
            self.remember_damage(live, damaged);
        }
    }

    fn remember_damage(&self, live: &Live, damaged: Vec<Damaged>) {
        let known: Vec<Known> = damaged.iter().map(known).collect();
        let put = live.put_archive_note(DAMAGED, &serde_json::to_vec(&known).expect("texts and numbers"));
        if let Err(error) = put {
            self.say(Source::Scrub, Level::Warning, &format!("damaged files are not remembered: {error}"));
        }
        self.damaged_are(damaged);
    }

    fn damaged_are(&self, damaged: Vec<Damaged>) {
        let problem = |file: &Damaged| PathProblem {
            place: PathText::new(file.path.as_bytes()),
            step: "read again".into(),
            error: match &file.why {
                Some(why) => format!("{DAMAGED_IS}, and it could not be brought back yet: {why}"),
                None => DAMAGED_IS.to_owned(),
            },
        };
        let listed: Vec<PathProblem> = damaged.iter().take(LISTED).map(problem).collect();
        let facts = &mut self.inbox().facts;
        match listed.is_empty() {
            true => drop(facts.problems.remove(&Source::Scrub)),
            false => drop(facts.problems.insert(Source::Scrub, (damaged.len() as u64, listed))),
        }
        *self.desk.damaged.lock().unwrap_or_else(PoisonError::into_inner) = damaged;
    }
}

impl Archivist<'_> {
    /// All days in the cold root that are young, and one part of the others.
    pub(super) fn look_at_cold(&mut self) {
        let turn = self.runs.count % RUNS;
        self.queue(|at, young| young || at as u64 % RUNS == turn);
    }

    /// After the cold root was away: those that were missing, and all that is hot, which tells of them too.
    pub(super) fn look_at_missing(&mut self) {
        let missing = self.live.missing().unwrap_or_default();
        self.looks.extend(missing.into_iter().filter(|path| self.live.root().places().get(path).is_some()));
        let now = self.shared.now();
        let mut inbox = self.shared.inbox();
        inbox.scheduler.look_at_all(now);
        // What could not be put there is asked for again.
        let peers: Vec<_> = inbox.members.keys().copied().collect();
        peers.into_iter().for_each(|peer| inbox.scheduler.ask_again(peer, now));
        drop(inbox);
        self.shared.wake.notify_all();
    }

    /// Those that are young.
    pub(super) fn look_at_young(&mut self) {
        self.queue(|_, young| young);
    }

    fn queue(&mut self, wanted: impl Fn(usize, bool) -> bool) {
        let places = self.live.root().places();
        let since = self.shared.young_since();
        let waiting: BTreeSet<&RelPath> = self.looks.iter().collect();
        let days = places.all().enumerate().filter(|(at, placement)| {
            let young = sync_core::io::watch::is_younger(&placement.path, since);
            wanted(*at, young) && !waiting.contains(&placement.path)
        });
        let days: Vec<RelPath> = days.map(|(_, placement)| placement.path.clone()).collect();
        self.looks.extend(days);
    }

    /// Finds what changed in one of them. One that is stopped within is the next.
    pub(super) fn look(&mut self, archive: &Archive<'_>, day: &RelPath) {
        if self.live.root().places().get(day).is_none() {
            return;
        }
        self.doing(ArchiveDoing::Looking);
        match self.live.scan(std::slice::from_ref(day), archive.monitor()) {
            Ok(scanned) => {
                let listed: Vec<PathProblem> = scanned.problems.iter().take(LISTED).map(shown).collect();
                let facts = &mut self.shared.inbox().facts;
                let (total, known) = facts.problems.entry(Source::ColdLook).or_default();
                known.retain(|problem| path_of(&problem.place).is_none_or(|path| !day.contains(&path)));
                known.extend(listed);
                known.truncate(LISTED);
                // Of those that are not listed nobody knows any more whether they are over.
                *total = known.len() as u64;
            }
            Err(SyncError::Cancelled) => self.looks.push_front(day.clone()),
            Err(error) => self.shared.say(Source::ColdLook, Level::Warning, &format!("{day} cannot be looked at: {error}")),
        }
    }

    /// Reads the day again that waits for that longest, if it is due.
    pub(super) fn scrub(&mut self, archive: &Archive<'_>) {
        let now_ns = Time::now(None).moment.now_ns;
        self.when.scrub = self.shared.now() + LATER;
        self.drop_unplaced();
        let known = match self.shared.read_again(self.live) {
            Ok(known) => known,
            Err(error) => return self.shared.say(Source::Scrub, Level::Warning, &error.to_string()),
        };
        let days = self.live.root().places();
        let every = i64::try_from(EVERY.as_nanos()).unwrap_or(i64::MAX);
        let is_due = |last: i64| now_ns >= last.saturating_add(every) || last > now_ns;
        let all = days.all().map(|placement| (known.at(placement).unwrap_or(i64::MIN), placement));
        // One that cannot be read keeps no other one from it.
        let now = self.shared.now();
        self.unread.retain(|_, until| now < *until);
        let mut waiting: Vec<_> = all.filter(|(last, day)| is_due(*last) && !self.unread.contains_key(&day.path)).collect();
        // Nor does one that does not come to its end: what was interrupted comes after all others, each in its turn.
        waiting.sort_by_key(|(last, day)| (self.interrupted.get(&day.path).copied(), *last, &day.path));
        let first = waiting.into_iter().find(|(_, day)| archive.check_placed(&day.path).is_ok());
        let Some((_, placement)) = first else { return };
        let day = placement.path.clone();
        self.doing(ArchiveDoing::Scrubbing);
        let peers = self.lenders();
        // What is known to be damaged in other days they are not asked for here.
        if let Some(peers) = &peers
            && !self.shared.desk.has_damage()
        {
            self.asked = Asked::default();
            self.ask(peers);
        }
        let scrubbed = {
            let mends = peers.is_some();
            let lenders = self.with(peers.unwrap_or_default());
            let repair = |path: &RelPath, hash: Hash, size: u64| lenders.take(path, hash, size);
            let repair = mends.then_some(&repair as Repair<'_>);
            let scrubbed = self.live.archive(&lenders.monitor).and_then(|archive| archive.scrub(&day, repair));
            scrubbed.inspect(|found| self.shared.found(self.live, (&day, found), &|path| lenders.gave(path)))
        };
        let now = self.shared.now();
        if let Ok(found) = &scrubbed
            && found.damaged.iter().any(|damage| !damage.repaired)
        {
            self.asked.soon(now);
        }
        // The next one follows, whatever came of it.
        self.when.scrub = now;
        match scrubbed {
            Ok(Scrub { interrupted: true, .. }) | Err(ArchiveError::Cancelled) => {
                self.interrupted.insert(day, now);
            }
            Ok(_) => {
                self.interrupted.retain(|path, _| *path != day && days.get(path).is_some());
                let mut known = known;
                known.0.retain(|path, _| days.get(path).is_some());
                known.0.insert(day, (placement.stamp.to_string(), now_ns));
                self.remember_read(known);
            }
            Err(error) => {
                self.shared.say(Source::Scrub, Level::Warning, &format!("{day} cannot be read again: {error}"));
                self.interrupted.remove(&day);
                self.unread.insert(day, now + LATER);
            }
        }
        self.show_scrub();
    }

    fn remember_read(&self, known: ReadAgain) {
        let read = |(path, (stamp, at_ns)): (RelPath, _)| Read { place: PathText::new(path.as_bytes()), stamp, at_ns };
        let texts: Vec<Read> = known.0.into_iter().map(read).collect();
        let put = self.live.put_archive_note(READ, &serde_json::to_vec(&texts).expect("texts and numbers"));
        if let Err(error) = put {
            self.shared.say(Source::Scrub, Level::Warning, &format!("that days were read again is not remembered: {error}"));
        }
    }

    /// Days that are not archived any more nobody looks at or reads again here: what was wrong in them is told no longer.
    pub(super) fn drop_unplaced(&self) {
        let (before, places) = (self.shared.desk.damaged(), self.live.root().places());
        {
            let facts = &mut self.shared.inbox().facts;
            if let Some((total, known)) = facts.problems.get_mut(&Source::ColdLook) {
                let is_placed = |path: &RelPath| places.all().any(|placement| placement.path.contains(path));
                known.retain(|problem| path_of(&problem.place).is_none_or(|path| is_placed(&path)));
                *total = known.len() as u64;
            }
        }
        let mut damaged = before.clone();
        damaged.retain(|file| places.all().any(|placement| placement.path.contains(&file.path)));
        if damaged != before {
            self.shared.remember_damage(self.live, damaged);
        }
    }

    /// What was damaged before the agent began is damaged still.
    pub(super) fn recall_damage(&self) {
        let known: Vec<Known> = match self.live.archive_note(DAMAGED) {
            Ok(Some(bytes)) => self.shared.recalled(DAMAGED, serde_json::from_slice(&bytes)),
            Ok(None) => Vec::new(),
            Err(error) => return self.shared.say(Source::Scrub, Level::Warning, &error.to_string()),
        };
        let file = |known: Known| {
            let hash = hash_of(&known.hash)?;
            Some(Damaged { path: path_of(&known.place)?, hash, since_ns: known.since_ns, why: None })
        };
        self.shared.damaged_are(known.into_iter().filter_map(file).collect());
        self.drop_unplaced();
    }

    pub(super) fn show_scrub(&self) {
        let known = self.shared.read_again(self.live).unwrap_or_default();
        let places = self.live.root().places();
        let read: Vec<i64> = places.all().filter_map(|placement| known.at(placement)).collect();
        let (count, oldest, last) = (read.len() as u64, read.iter().min().copied(), read.iter().max().copied());
        let damaged = self.shared.desk.damaged().len() as u64;
        let repaired = self.shared.desk.repaired.load(Ordering::Relaxed);
        let never = (places.all().count() as u64).saturating_sub(count);
        self.shared.desk.show(|shown| {
            let (oldest, last) = (oldest.map(status::Moment), last.map(status::Moment));
            shown.scrub = status::ScrubStatus { never, oldest, last, damaged, repaired };
        });
    }
}

fn told(file: &Damaged) -> String {
    let tried = file
        .why
        .as_ref()
        .map_or(String::new(), |why| format!("; it could not be brought back yet, and is asked for again ({why})"));
    format!(
        "{} is damaged: its bytes in the cold root are not those that were written, although nobody wrote to it{tried}. Where another \
         copy has it, bring it back from there (driftless archive verify ROOT --repair-from COPY)",
        file.path
    )
}

fn known(file: &Damaged) -> Known {
    let hash = file.hash.to_string();
    Known { place: PathText::new(file.path.as_bytes()), hash, since_ns: file.since_ns }
}

fn hash_of(text: &str) -> Option<Hash> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(Hash(bytes))
}

fn path_of(place: &PathText) -> Option<RelPath> {
    RelPath::parse(&place.bytes()).ok()
}
