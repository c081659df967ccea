//! What was damaged in the cold root is brought back from a peer that has it as it was: its bytes must have the hash that was recorded
//! when the file was read last. What nobody has stays as it is, is told, and is asked for again.

use super::archiving::{Archivist, Damaged, Desk};
use super::listeners::Steadily;
use super::scrubbing::RATE;
use super::{Shared, Source};
use crate::log::Level;
use crate::scheduler::Moment;
use crate::status::ArchiveDoing;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::sync::atomic::{self, AtomicBool};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use sync_core::entry::Hash;
use sync_core::io::archive::ArchiveError;
use sync_core::io::fs::FsError;
use sync_core::io::sync::Member;
use sync_core::path::RelPath;
use sync_core::peer::Id;
use sync_core::report::Monitor;

/// After so long those are asked again that did not have a file as it was, and twice as long each time that nothing has changed, up to the
/// longest: what was asked for may come whole before it is known to be of no use.
const AGAIN: Duration = Duration::from_secs(3600);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// And whoever else comes is asked so long after somebody was in vain, at the earliest: each time all that is damaged is read again.
const APART: Duration = Duration::from_secs(10 * 60);

/// Who may have what was damaged here.
pub(super) struct Lender {
    peer: Id,
    name: String,
    member: Arc<Member>,
}

/// When whom was asked.
#[derive(Default)]
pub(super) struct Asked {
    /// Whoever was connected then; one that comes back has nothing else.
    peers: BTreeSet<Id>,
    /// When they are asked again.
    again: Moment,
    /// How long it was until then, the last time that all of them were asked.
    wait: Duration,
    /// Nobody is asked before.
    earliest: Moment,
}

impl Asked {
    /// All of them were asked at that moment, with what was the same as before, or was not.
    fn in_vain(&mut self, at: Moment, same: bool) {
        self.wait = if same { (self.wait * 2).clamp(AGAIN, LONGEST) } else { AGAIN };
        self.again = at + self.wait;
    }

    /// Something may be damaged for which nobody was asked yet.
    pub(super) fn soon(&mut self, now: Moment) {
        self.wait = Duration::ZERO;
        self.again = self.again.min(now + AGAIN);
    }
}

impl Shared {
    /// Connected peers that may be read, the nearest first.
    fn lenders(&self) -> Vec<Lender> {
        let inbox = self.inbox();
        let there = inbox.members.iter().filter(|(_, joined)| joined.member.may_be_pulled() && !joined.member.is_over());
        let mut found: Vec<(f64, Lender)> = there
            .map(|(peer, joined)| {
                let cost = joined.quality.cost().unwrap_or(f64::INFINITY);
                let (name, member) = (inbox.name_of(*peer), Arc::clone(&joined.member));
                (cost, Lender { peer: *peer, name, member })
            })
            .collect();
        drop(inbox);
        found.sort_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(Ordering::Equal));
        found.into_iter().map(|(_, lender)| lender).collect()
    }
}

impl Desk {
    /// Whoever is asked for a file now is asked no more: the root is to be closed or paused, or the rule is another one.
    pub(super) fn give_up_lender(&self) {
        let lender = self.lender.lock().unwrap_or_else(PoisonError::into_inner).take();
        lender.iter().for_each(|member| member.leave());
    }
}

/// Listens while days are read again, at a pace, and something may be brought for them. Whoever asks for a run or does something by hand comes
/// first, but for the time that it takes to put in its place what has come from a peer: it would come once more, and perhaps in vain again.
pub(super) struct Mending<'a> {
    shared: &'a Shared,
    over: &'a AtomicBool,
    paced: Steadily<'a>,
    /// Of the rule by which it began.
    number: u64,
    /// Something has come, and nothing was read since.
    has_come: AtomicBool,
}

impl Monitor for Mending<'_> {
    fn cancelled(&self) -> bool {
        if !self.has_come.load(atomic::Ordering::Acquire) {
            return self.paced.cancelled();
        }
        let shared = self.shared;
        let ends = self.over.load(atomic::Ordering::Acquire) || shared.is_stopping() || shared.is_paused();
        ends || shared.desk.wishes().number != self.number
    }

    fn advance(&self, files: u64, bytes: u64) {
        self.has_come.store(false, atomic::Ordering::Release);
        self.paced.advance(files, bytes);
    }

    fn notice(&self, text: &str) {
        self.paced.notice(text);
    }
}

/// Peers, and what they gave.
pub(super) struct Lenders<'a, 'b> {
    archivist: &'a Archivist<'b>,
    pub(super) monitor: Mending<'a>,
    peers: Vec<Lender>,
    /// Who had which file.
    gave: RefCell<BTreeMap<RelPath, String>>,
}

impl Lenders<'_, '_> {
    /// The bytes of this file as they were.
    pub(super) fn take(&self, path: &RelPath, hash: Hash, size: u64) -> Result<File, FsError> {
        let mut whys = Vec::new();
        for Lender { name, member, .. } in &self.peers {
            let desk = &self.archivist.shared.desk;
            *desk.lender.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(member));
            // Asked for the end before this, nobody leaves for it any more.
            let over = self.monitor.cancelled();
            let taken = (!over).then(|| self.archivist.live.borrow(member, path, hash, size));
            *desk.lender.lock().unwrap_or_else(PoisonError::into_inner) = None;
            match taken {
                Some(Ok(file)) => {
                    self.gave.borrow_mut().insert(path.clone(), name.clone());
                    self.monitor.has_come.store(true, atomic::Ordering::Release);
                    return Ok(file);
                }
                Some(Err(why)) => whys.push(format!("{name}: {why}")),
                None => break,
            }
        }
        if whys.is_empty() {
            whys.push("no peer is connected that may be asked for it".into());
        }
        // Who is the nearest changes from hour to hour; that nothing else has changed must be seen.
        whys.sort_unstable();
        Err(FsError { action: "fetch", path: path.to_string().into(), source: io::Error::other(whys.join("; ")) })
    }

    /// From whom it came.
    pub(super) fn gave(&self, path: &RelPath) -> Option<String> {
        self.gave.borrow().get(path).cloned()
    }
}

impl<'b> Archivist<'b> {
    /// Those that may be asked, if damage is to be mended here.
    pub(super) fn lenders(&self) -> Option<Vec<Lender>> {
        self.rule.repair.then(|| self.shared.lenders())
    }

    /// They are asked for all that is damaged.
    pub(super) fn ask(&mut self, peers: &[Lender]) {
        let (now, asked) = (self.shared.now(), &mut self.asked);
        if now >= asked.again {
            asked.peers.clear();
            asked.again = now + AGAIN;
        }
        asked.peers.extend(peers.iter().map(|lender| lender.peer));
    }

    pub(super) fn with<'a>(&'a self, peers: Vec<Lender>) -> Lenders<'a, 'b> {
        let (shared, over, number, paced) = (self.shared, self.over, self.number, self.steadily(RATE));
        let monitor = Mending { shared, over, paced, number, has_come: AtomicBool::new(false) };
        Lenders { archivist: self, monitor, peers, gave: RefCell::default() }
    }

    /// Is something damaged, and somebody there who was not asked for it lately?
    pub(super) fn may_mend(&self, now: Moment) -> bool {
        if !self.rule.repair || !self.shared.desk.has_damage() || now < self.asked.earliest {
            return false;
        }
        let peers = self.shared.lenders();
        let new = |lender: &Lender| !self.asked.peers.contains(&lender.peer);
        !peers.is_empty() && (now >= self.asked.again || peers.iter().any(new))
    }

    /// Asks for what is damaged, day by day, at the pace at which days are read again.
    pub(super) fn mend(&mut self) {
        let Some(peers) = self.lenders() else { return };
        let begun = self.shared.now();
        let all = begun >= self.asked.again;
        self.ask(&peers);
        self.drop_unplaced();
        let before = by_path(self.shared.desk.damaged());
        let mut days: BTreeMap<RelPath, BTreeSet<RelPath>> = BTreeMap::new();
        let places = self.live.root().places();
        for file in self.shared.desk.damaged() {
            if let Some(day) = places.all().find(|placement| placement.path.contains(&file.path)) {
                days.entry(day.path.clone()).or_default().insert(file.path);
            }
        }
        // What was interrupted comes after all others, so that none is starved.
        let mut days: Vec<_> = days.into_iter().collect();
        days.sort_by_key(|(day, _)| self.interrupted.get(day).copied());
        self.doing(ArchiveDoing::Scrubbing);
        let mut repaired = false;
        let mut interrupted = None;
        {
            let lenders = self.with(peers);
            let repair = |path: &RelPath, hash: Hash, size: u64| lenders.take(path, hash, size);
            for (day, files) in days {
                match self.live.archive(&lenders.monitor).and_then(|archive| archive.mend(&day, &files, &repair)) {
                    Ok(found) => {
                        repaired |= found.damaged.iter().any(|damage| damage.repaired);
                        self.shared.found(self.live, (&day, &found), &|path| lenders.gave(path));
                        if found.interrupted {
                            interrupted = Some(day);
                            break;
                        }
                    }
                    Err(ArchiveError::Cancelled) => {
                        interrupted = Some(day);
                        break;
                    }
                    Err(error) => {
                        let text = format!("what is damaged in {day} cannot be brought back: {error}");
                        self.shared.say(Source::Scrub, Level::Warning, &text);
                    }
                }
            }
        }
        let now = self.shared.now();
        let was_interrupted = interrupted.is_some();
        match (interrupted, repaired) {
            // Something else goes first; then all of them are asked.
            (Some(day), _) => {
                self.interrupted.insert(day, now);
                self.asked = Asked { wait: self.asked.wait, ..Asked::default() };
            }
            (None, true) => self.asked.earliest = now,
            (None, false) => self.asked.earliest = now + APART,
        }
        if all && !was_interrupted {
            self.asked.in_vain(begun, by_path(self.shared.desk.damaged()) == before);
        }
        self.show_scrub();
    }
}

/// What is known of damaged files, in an order that does not depend on when they were read.
fn by_path(mut damaged: Vec<Damaged>) -> Vec<Damaged> {
    damaged.sort_by(|a, b| a.path.cmp(&b.path));
    damaged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_in_vain_is_asked_ever_more_seldom_but_every_day() {
        let (mut asked, mut at) = (Asked::default(), Moment::ZERO);
        let mut hours = |same: bool| {
            asked.in_vain(at, same);
            let wait = asked.again - at;
            at = asked.again;
            wait.as_secs() / 3600
        };
        assert_eq!([false, true, true, true, true, true, true].map(&mut hours), [1, 2, 4, 8, 16, 24, 24]);
        // Another reason, or other files.
        assert_eq!([false, true, true].map(&mut hours), [1, 2, 4]);
        // What may be damaged since waits no longer than at first.
        let now = at - Duration::from_secs(3 * 3600);
        asked.soon(now);
        assert_eq!(asked.again, now + AGAIN);
    }
}
