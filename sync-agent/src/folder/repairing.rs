//! What was damaged in the cold root is brought back from a peer that has it as it was: its bytes must have the hash that was recorded
//! when the file was read last. What nobody has stays as it is, is told, and is asked for again.

use super::archiving::Archivist;
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
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use sync_core::entry::Hash;
use sync_core::io::archive::ArchiveError;
use sync_core::io::fs::FsError;
use sync_core::io::sync::Member;
use sync_core::path::RelPath;
use sync_core::peer::Id;

/// After so long those are asked again that did not have a file as it was.
const AGAIN: Duration = Duration::from_secs(3600);
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
    /// Nobody is asked before.
    earliest: Moment,
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

    /// Whoever is asked for a file now is asked no more: the root is to be closed.
    pub(super) fn give_up_lender(&self) {
        let lender = self.desk.lender.lock().unwrap_or_else(PoisonError::into_inner).take();
        lender.iter().for_each(|member| member.leave());
    }
}

/// Peers, and what they gave.
pub(super) struct Lenders<'a, 'b> {
    archivist: &'a Archivist<'b>,
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
            let over = self.archivist.is_over();
            let taken = (!over).then(|| self.archivist.live.borrow(member, path, hash, size));
            *desk.lender.lock().unwrap_or_else(PoisonError::into_inner) = None;
            match taken {
                Some(Ok(file)) => {
                    self.gave.borrow_mut().insert(path.clone(), name.clone());
                    return Ok(file);
                }
                Some(Err(why)) => whys.push(format!("{name}: {why}")),
                None => break,
            }
        }
        if whys.is_empty() {
            whys.push("no peer is connected that may be asked for it".into());
        }
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
        self.asked.peers = peers.iter().map(|lender| lender.peer).collect();
        self.asked.again = self.shared.now() + AGAIN;
    }

    pub(super) fn with<'a>(&'a self, peers: Vec<Lender>) -> Lenders<'a, 'b> {
        Lenders { archivist: self, peers, gave: RefCell::default() }
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
        self.ask(&peers);
        self.drop_unplaced();
        let mut days: BTreeMap<RelPath, BTreeSet<RelPath>> = BTreeMap::new();
        let places = self.live.root().places();
        for file in self.shared.desk.damaged() {
            if let Some(day) = places.all().find(|placement| placement.path.contains(&file.path)) {
                days.entry(day.path.clone()).or_default().insert(file.path);
            }
        }
        self.doing(ArchiveDoing::Scrubbing);
        let mut repaired = false;
        let mut cancelled = false;
        {
            let lenders = self.with(peers);
            let repair = |path: &RelPath, hash: Hash, size: u64| lenders.take(path, hash, size);
            for (day, files) in days {
                let monitor = self.steadily(RATE);
                match self.live.archive(&monitor).and_then(|archive| archive.mend(&day, &files, &repair)) {
                    Ok(found) => {
                        repaired |= found.damaged.iter().any(|damage| damage.repaired);
                        self.shared.found(self.live, (&day, &found), &|path| lenders.gave(path));
                    }
                    Err(ArchiveError::Cancelled) => {
                        cancelled = true;
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
        match (cancelled, repaired) {
            // Something else goes first; then all of them are asked.
            (true, _) => self.asked = Asked::default(),
            (false, true) => self.asked.earliest = now,
            (false, false) => self.asked.earliest = now + APART,
        }
        self.show_scrub();
    }
}
