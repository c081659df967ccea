//! Conflicts that are open. A replica that several machines spoke for has a record for each of them, and a conflict with it may stand in
//! all of these: it is one conflict, and over in all of them once the rows tell that it is.

use super::SyncError;
use super::opened::Opened;
use crate::io::speaker;
use crate::io::state::{Peer, Pending, State, StateError};
use crate::io::there::Facts;
use crate::knowledge::{ReplicaId, Vector};
use crate::path::RelPath;
use crate::plan::Open;
use crate::store::Filter;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every open conflict, under each record in which it stands.
pub(super) fn open(state: &State) -> Result<Vec<(ReplicaId, Pending)>, StateError> {
    let mut found = Vec::new();
    for (record, _) in state.peers()? {
        for open in state.pending_for(record, Open::Conflict)? {
            if !is_settled(state, &open)? {
                found.push((record, open));
            }
        }
    }
    Ok(found)
}

/// What was decided about paths that are still open stands as long as it is about the version that stands there.
pub(super) fn keep_decisions(before: &[Pending], open: &mut [Pending]) {
    let version = |open: &Pending| open.theirs.as_ref().map(|row| row.m.clone());
    let decided: BTreeMap<&RelPath, &Pending> =
        before.iter().filter(|old| old.decision.is_some()).map(|old| (&old.path, old)).collect();
    for path in open {
        let old = decided.get(&path.path).filter(|old| version(old) == version(path));
        path.decision = old.and_then(|old| old.decision);
    }
}

/// Every open conflict once, by path: of several records of a replica as the one tells it that has seen most of the replica. What was
/// decided counts wherever it stands.
pub(super) fn each(state: &State) -> Result<Vec<(ReplicaId, Pending)>, StateError> {
    let mut found: BTreeMap<(RelPath, ReplicaId), (u64, ReplicaId, Pending)> = BTreeMap::new();
    for (record, open) in open(state)? {
        let seen = state.peer(record)?.map_or(0, |peer| peer.seen.0);
        let key = (open.path.clone(), speaker::replica(state, record)?);
        let Some((most, first, known)) = found.get_mut(&key) else {
            found.insert(key, (seen, record, open));
            continue;
        };
        let decision = known.decision.or(open.decision);
        if seen > *most {
            (*most, *first, *known) = (seen, record, open);
        }
        known.decision = decision;
    }
    Ok(found.into_values().map(|(_, record, open)| (record, open)).collect())
}

/// After a pull from a replica: what other records of it have as open, and is settled by now, is not asked for under these any more,
/// and no decision about it waits. No record is believed for that: the rows here tell.
pub(super) fn forget_settled(opened: &Opened, there: &Facts, record: ReplicaId) -> Result<(), SyncError> {
    let state = &opened.state;
    for (other, peer) in state.peers()? {
        if other == record || speaker::replica(state, other)? != there.identity.replica {
            continue;
        }
        let before = state.pending(other)?;
        let mut open = Vec::new();
        for one in &before {
            if !is_settled(state, one)? {
                open.push(one.clone());
            }
        }
        if open.len() < before.len() {
            // While they were open nothing was raised: the next pull under that record looks at everything. That is remembered first, since
            // of the two the one that looks at too much must last.
            state.put_peer(other, &Peer { incorporated: 0, ..peer })?;
            state.put_pending(other, &open)?;
        }
    }
    Ok(())
}

/// Was what was left open at a path settled since? Then all that the other side knew of it then is known here. That holds of two versions
/// too that are known on both sides and differ all the same, which only digests tell: those are open until another version stands here.
fn is_settled(state: &State, open: &Pending) -> Result<bool, StateError> {
    let Some(theirs) = &open.theirs else { return Ok(false) };
    let known = own(state, &open.path)?;
    if !(open.known.within(&known) && theirs.m.within(&known)) {
        return Ok(false);
    }
    let ours = state.entry(&open.path)?.map(|entry| entry.row.m);
    Ok(ours.is_none_or(|m| m == theirs.m || !m.within(&open.known)))
}

/// All that is known of the object at a path.
fn own(state: &State, path: &RelPath) -> Result<Vector, StateError> {
    let Some((parent, name)) = path.split() else {
        return Ok(Vector::clone(&state.listing(path, &Filter::header())?.sub));
    };
    let listing = state.listing(&parent, &Filter::Only(Arc::new(vec![name])))?;
    let mut known = Vector::clone(&listing.sub);
    for child in &listing.children {
        if let Some(tree) = &child.tree {
            known.join(&tree.s);
        }
        if let Some(own) = &child.own {
            known.join(own);
        }
    }
    Ok(known)
}
