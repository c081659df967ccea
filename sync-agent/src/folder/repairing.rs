//! What was damaged in the cold root is brought back from a peer that has it as it was: its bytes must have the hash that was recorded
//! when the file was read last. What nobody has stays as it is, is told, and is asked for again.

use super::archiving::Archivist;
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
use sync_core::io::archive::{Archive, ArchiveError};
use sync_core::io::fs::FsError;
use sync_core::io::sync::Member;
use sync_core::path::RelPath;
use sync_core::peer::Id;

/// After so long those are asked again that did not have a file as it was.
const AGAIN: Duration = Duration::from_secs(3600);

/// Who may have what was damaged here.
pub(super) struct Lender {
    peer: Id,
    /// Of the connection.
    number: u64,
    name: String,
    member: Arc<Member>,
}

/// When whom was asked.
#[derive(Default)]
pub(super) struct Asked {
    connections: BTreeSet<(Id, u64)>,
    again: Moment,
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
                (cost, Lender { peer: *peer, number: joined.number, name, member })
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
    pub(super) fn take(&self, path: &RelPath, hash: Hash) -> Result<File, FsError> {
        let mut whys = Vec::new();
        for Lender { name, member, .. } in &self.peers {
            let desk = &self.archivist.shared.desk;
            *desk.lender.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(member));
            // Asked for the end before this, nobody leaves for it any more.
            let taken = if self.archivist.is_over() { None } else { Some(self.archivist.live.borrow(member, path, hash)) };
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
    /// Those that are asked from now on, if damage is to be mended here.
    pub(super) fn lenders(&mut self) -> Option<Vec<Lender>> {
        if !self.rule.repair {
            return None;
        }
        let peers = self.shared.lenders();
        let connections = peers.iter().map(|lender| (lender.peer, lender.number)).collect();
        self.asked = Asked { connections, again: self.shared.now() + AGAIN };
        Some(peers)
    }

    pub(super) fn with<'a>(&'a self, peers: Vec<Lender>) -> Lenders<'a, 'b> {
        Lenders { archivist: self, peers, gave: RefCell::default() }
    }

    /// Is something damaged, and somebody there who was not asked for it lately?
    pub(super) fn may_mend(&self, now: Moment) -> bool {
        if !self.rule.repair || !self.shared.desk.has_damage() {
            return false;
        }
        let peers = self.shared.lenders();
        let new = |lender: &Lender| !self.asked.connections.contains(&(lender.peer, lender.number));
        !peers.is_empty() && (now >= self.asked.again || peers.iter().any(new))
    }

    /// Asks for what is damaged, day by day.
    pub(super) fn mend(&mut self, archive: &Archive<'_>) {
        let Some(peers) = self.lenders() else { return };
        let mut days: BTreeMap<RelPath, BTreeSet<RelPath>> = BTreeMap::new();
        let places = self.live.root().places();
        for file in self.shared.desk.damaged() {
            if let Some(day) = places.all().find(|placement| placement.path.contains(&file.path)) {
                days.entry(day.path.clone()).or_default().insert(file.path);
            }
        }
        self.doing(ArchiveDoing::Scrubbing);
        let lenders = self.with(peers);
        for (day, files) in days {
            let repair = |path: &RelPath, hash: Hash| lenders.take(path, hash);
            match archive.mend(&day, &files, &repair) {
                Ok(found) => self.shared.found(self.live, (&day, &found), &|path| lenders.gave(path)),
                Err(ArchiveError::Cancelled) => return,
                Err(error) => {
                    let text = format!("what is damaged in {day} cannot be brought back: {error}");
                    self.shared.say(Source::Scrub, Level::Warning, &text);
                }
            }
        }
        self.show_scrub();
    }
}
