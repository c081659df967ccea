//! What two roots tell each other before a run, and what follows from it for this one: it goes on, takes a new identity, or stops the run.

use super::opened::Opened;
use super::{SyncError, marker, roots};
use crate::io::places;
use crate::io::remote::identity;
use crate::io::speaker;
use crate::io::state::{Peer, State};
use crate::knowledge::ReplicaId;
use crate::path::{RelPath, escape};
use crate::report::Monitor;
use crate::store::Filter;
use crate::wire::{Introduction, Refusal, Remembered};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::TryLockError;

/// Own counters that another root claims to know, and those that the state itself knows.
pub(super) struct Overclaimed {
    pub(super) claimed: u64,
    pub(super) own: u64,
}

/// What the other side, which is at `other`, must know of a replica.
pub(super) fn introduction(state: &State, location: Vec<u8>, other: &[u8]) -> Result<Introduction, SyncError> {
    let root = state.listing(&RelPath::root(), &Filter::header())?;
    let peers = state.peers()?;
    let expects = peers.iter().any(|(_, peer)| peer.location == other);
    let remembers = remembered(state, peers)?;
    Ok(Introduction { identity: Some(identity(state)?), knows: (*root.sub).clone(), remembers, location, expects })
}

/// As [`Candidate::check`](super::roots::Candidate::check) asks.
pub(super) fn overclaimed(ours: &State, there: &Introduction) -> Result<Option<Overclaimed>, SyncError> {
    let (claimed, own) = (there.knows.get(ours.id()), ours.counter());
    let same = there.identity.is_some_and(|identity| identity.replica == ours.id());
    if claimed <= own || ours.moved().is_some() || same {
        return Ok(None);
    }
    let renewed = match seen(there, ours.id()) {
        Some(seen) => !ours.remembers(seen)?,
        None => false,
    };
    Ok((!renewed).then_some(Overclaimed { claimed, own }))
}

/// May a root that stays open work with another one, by what that one knows of it? It takes a new identity where that is needed.
/// Nobody waits here for a scan or a pull that is under way: only a new identity needs its turn, and is refused until it can be had.
pub(super) fn meet(here: &Opened, there: &Introduction, monitor: &dyn Monitor) -> Result<(), SyncError> {
    let path = here.root.path();
    // One that only ever gave knows of nobody, and is the very replica that the other one remembers.
    let unknown = there.expects && here.state.peers()?.is_empty() && seen(there, here.state.id()).is_none();
    if unknown && !roots::was_begun_anew(&here.state)? {
        return Err(forgotten(path));
    }
    if let Some(claimed) = overclaimed(&here.state, there)? {
        return Err(rolled_back(path, &there.location, &claimed));
    }
    if there.identity.is_some_and(|other| other.replica == here.state.id()) {
        let before = format!(
            "{} and {} bear the same identity: one of them is a copy of the other. Nothing was changed. On the machine of the copy, ",
            path.display(),
            escape(&there.location)
        );
        return Err(SyncError::anew(before, ": it takes a new identity"));
    }
    if !is_ahead(here, there)? {
        return Ok(());
    }
    let _work = match here.work.try_lock() {
        Ok(work) => work,
        Err(TryLockError::Poisoned(left)) => left.into_inner(),
        Err(TryLockError::WouldBlock) => {
            let text = format!(
                "{} was rolled back and takes a new identity, and is being looked at or changed at present: try again later",
                path.display()
            );
            return Err(SyncError::Refuse { code: Refusal::Busy, text });
        }
    };
    check_lineage(here, there, monitor)
}

/// How far the other side has seen a replica: the highest of its counters, and the nonce of the start that made it.
pub(super) fn seen(there: &Introduction, replica: ReplicaId) -> Option<(u64, u64)> {
    let found = there.remembers.iter().find(|remembered| remembered.replica == replica);
    found.map(|remembered| (remembered.counter, remembered.nonce))
}

/// How far every replica was seen, whoever spoke for it: of a lie the replica takes a new identity and loses nothing, and a roll-back
/// that it did not hear of would cost changes.
pub(super) fn remembered(state: &State, peers: Vec<(ReplicaId, Peer)>) -> Result<Vec<Remembered>, SyncError> {
    let mut highest: BTreeMap<ReplicaId, (u64, u64)> = BTreeMap::new();
    for (record, peer) in peers {
        let seen = highest.entry(speaker::replica(state, record)?).or_default();
        *seen = peer.seen.max(*seen);
    }
    Ok(highest.into_iter().map(|(replica, (counter, nonce))| Remembered { replica, counter, nonce }).collect())
}

/// The other root's state remembers this very place as one that it was synchronised with.
pub(super) fn forgotten(path: &Path) -> SyncError {
    let before = format!(
        "the root {} was synchronised before, and now it has no marker: is its disk mounted? Nothing was changed. \
         If its state was lost, or the folder is meant to be a new one, ",
        path.display()
    );
    SyncError::anew(before, "")
}

/// Both roots bear the same identity: this one takes another.
pub(super) fn same_identity(opened: &Opened, monitor: &dyn Monitor) -> Result<(), SyncError> {
    renew(opened, "both roots bore the same identity", monitor)
}

pub(super) fn renew(opened: &Opened, reason: &str, monitor: &dyn Monitor) -> Result<(), SyncError> {
    places::remember_copied(&opened.state)?;
    opened.state.renew_identity()?;
    opened.state.record_place()?;
    places::load(&opened.root, &opened.state)?;
    marker::advance(opened)?;
    monitor.notice(&format!("{}: takes a new identity, because {reason}", opened.root.path().display()));
    Ok(())
}

pub(super) fn rolled_back(here: &Path, there: &[u8], claims: &Overclaimed) -> SyncError {
    let here = here.display();
    let before = format!(
        "{} knows {} changes made in {here}, whose own state knows {} only: one of them was brought back from a backup. \
         Nothing was changed. To go on, ",
        escape(there),
        claims.claimed,
        claims.own
    );
    SyncError::anew(before, format!(": {here} takes a new identity, equal files merge, and differing ones become conflicts"))
}

/// A replica that another remembers further ahead was rolled back: re-used counters would look already known.
pub(super) fn check_lineage(here: &Opened, there: &Introduction, monitor: &dyn Monitor) -> Result<(), SyncError> {
    if is_ahead(here, there)? {
        renew(here, "it was rolled back: others know more of it than it does itself", monitor)?;
    }
    Ok(())
}

/// Does the other side remember this replica further ahead than it is?
pub(super) fn is_ahead(here: &Opened, there: &Introduction) -> Result<bool, SyncError> {
    Ok(match seen(there, here.state.id()) {
        Some(seen) => !here.state.remembers(seen)?,
        None => false,
    })
}
