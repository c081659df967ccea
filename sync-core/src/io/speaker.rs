//! Who speaks for a replica: what is remembered of one is what a certain machine told of it.
//!
//! Anybody can say any replica id. So what is remembered of a replica (how far it was seen, what of it is incorporated, what is
//! left open with it) stands under its id for the machine that was met with it first, and under a name of its own, derived from
//! both, for every other one. No machine can alter what another one told, and none has to be refused: who reaches the same root
//! in another way, or on another machine, or under a new key, is looked at as a whole once.

use crate::io::state::{State, StateError};
use crate::knowledge::ReplicaId;
use crate::peer::Id;

/// Before the names under which a replica is remembered that came with another machine than at first.
const OTHER_CONTEXT: &str = "driftless replica of another machine 1";

/// Who speaks for a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speaker {
    /// This machine: the root is one of its own.
    Here,
    /// The machine with this key.
    Machine(Id),
    /// One that another program vouches for (ssh), by the name under which it is known there.
    Vouched(String),
}

impl Speaker {
    fn encode(&self) -> Vec<u8> {
        match self {
            Speaker::Here => vec![0],
            Speaker::Machine(id) => [&[1], &id.as_bytes()[..]].concat(),
            Speaker::Vouched(name) => [&[2], name.as_bytes()].concat(),
        }
    }
}

/// Under this key a state remembers whose replica a record of peers is about.
fn key(record: ReplicaId) -> String {
    format!("sync.met.{record}")
}

/// The id under which a state remembers what `speaker` tells of a replica. Nothing is written.
///
/// # Errors
/// The state cannot be read.
pub fn record(state: &State, replica: ReplicaId, speaker: &Speaker) -> Result<ReplicaId, StateError> {
    let wanted = [&replica.0[..], &speaker.encode()].concat();
    let mut record = replica;
    // A name that somebody else took before, by chance or of ill will, is passed over.
    while met(state, record)?.is_some_and(|met| met != wanted) {
        let named = blake3::derive_key(OTHER_CONTEXT, &[&record.0[..], &wanted].concat());
        record.0.copy_from_slice(&named[..16]);
    }
    Ok(record)
}

/// From now on what is remembered under `record` is what `speaker` tells of the replica. Durable when the call returns.
///
/// # Errors
/// The state cannot be read or written.
pub fn bind(state: &State, record: ReplicaId, replica: ReplicaId, speaker: &Speaker) -> Result<(), StateError> {
    let wanted = [&replica.0[..], &speaker.encode()].concat();
    if state.meta(&key(record))?.as_ref() == Some(&wanted) {
        return Ok(());
    }
    state.put_meta(&key(record), &wanted)
}

/// The replica that a record is about.
///
/// # Errors
/// The state cannot be read.
pub fn replica(state: &State, record: ReplicaId) -> Result<ReplicaId, StateError> {
    let bytes = state.meta(&key(record))?;
    let id = bytes.as_deref().and_then(|bytes| bytes.first_chunk());
    Ok(id.map_or(record, |id| ReplicaId(*id)))
}

/// Whose record it is: the replica's id, then who spoke.
fn met(state: &State, record: ReplicaId) -> Result<Option<Vec<u8>>, StateError> {
    if let Some(bound) = state.meta(&key(record))? {
        return Ok(Some(bound));
    }
    // Written before speakers were remembered: roots of this machine have absolute paths, and no others do.
    let local = state.peer(record)?.is_some_and(|peer| peer.location.starts_with(b"/"));
    Ok(local.then(|| [&record.0[..], &Speaker::Here.encode()].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::AttrMask;
    use crate::io::state::Peer;
    use crate::peer::PublicKey;

    fn state() -> State {
        State::in_memory(ReplicaId([9; 16]), AttrMask::standard(true)).unwrap()
    }

    fn machine(key: u8) -> Speaker {
        Speaker::Machine(PublicKey::from_bytes([key; 32]).id())
    }

    #[test]
    fn who_comes_first_has_the_id_and_everybody_else_a_record_apart() {
        let state = state();
        let id = ReplicaId([1; 16]);
        let all = [machine(1), machine(2), Speaker::Here, Speaker::Vouched("web2".into()), Speaker::Vouched("web3".into())];
        let mut records = Vec::new();
        for speaker in &all {
            let found = record(&state, id, speaker).unwrap();
            bind(&state, found, id, speaker).unwrap();
            assert_eq!(replica(&state, found).unwrap(), id);
            records.push(found);
        }
        assert_eq!(records[0], id);
        let again: Vec<_> = all.iter().map(|speaker| record(&state, id, speaker).unwrap()).collect();
        assert_eq!(again, records);
        records.sort();
        records.dedup();
        assert_eq!(records.len(), all.len());
    }

    #[test]
    fn a_name_that_was_taken_beforehand_is_of_no_use_to_who_took_it() {
        let state = state();
        let id = ReplicaId([1; 16]);
        bind(&state, id, id, &machine(1)).unwrap();
        // What a second machine would be remembered under is claimed as a replica's id by a third.
        let next = record(&state, id, &machine(2)).unwrap();
        bind(&state, next, next, &machine(3)).unwrap();
        let found = record(&state, id, &machine(2)).unwrap();
        assert!(found != next && found != id);
        assert_eq!(record(&state, next, &machine(3)).unwrap(), next);
    }

    #[test]
    fn a_root_of_this_machine_keeps_its_record_from_before_speakers_were_remembered() {
        let state = state();
        let id = ReplicaId([1; 16]);
        state.put_peer(id, &Peer { location: b"/srv/b".to_vec(), ..Peer::default() }).unwrap();
        assert_eq!(record(&state, id, &Speaker::Here).unwrap(), id);
        assert_ne!(record(&state, id, &machine(1)).unwrap(), id);
        let other = ReplicaId([2; 16]);
        state.put_peer(other, &Peer { location: b"quic://web2/x".to_vec(), ..Peer::default() }).unwrap();
        assert_eq!(record(&state, other, &machine(1)).unwrap(), other);
    }
}
