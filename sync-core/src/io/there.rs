//! The other side of a pull, wherever it is: another root on this machine, or one on another machine.

use crate::entry::Digest;
use crate::io::source::{Source, SourceError};
use crate::io::speaker::Speaker;
use crate::io::state::{Decision, State, StateError};
use crate::knowledge::{ReplicaId, Vector};
use crate::path::RelPath;
use crate::report::Monitor;
use crate::store::{Filter, Listing};
use crate::wire::Identity;

/// Who the other side is, as far as a pull must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its replica, and the newest event that it made.
    pub identity: Identity,
    /// Nothing of this run stays in that root.
    pub passing: bool,
    /// Where it is, by which it is recognised when it comes under another identity.
    pub location: Vec<u8>,
    /// Who says all this.
    pub speaker: Speaker,
    /// Its user may have decided conflicts there: it has to be asked for them.
    pub decisions: bool,
}

/// A user's decision about one conflict that is still about the version which stands at the deciding root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Where.
    pub path: RelPath,
    /// In the words of the root where it was made.
    pub decision: Decision,
    /// The other version that it was about: as long as that stands, the decision counts.
    pub about: Vector,
}

/// The source of a pull.
pub trait There: Send + Sync {
    /// Who it is.
    ///
    /// # Errors
    /// Its state cannot be read.
    fn facts(&self) -> Result<Facts, SourceError>;

    /// All that [`There::facts`] tells has reached the disk there when the call returns.
    ///
    /// # Errors
    /// Its state cannot be written.
    fn make_durable(&self) -> Result<(), SourceError>;

    /// Rows of a directory.
    ///
    /// # Errors
    /// Its state cannot be read, or the connection failed.
    fn listing(&self, path: &RelPath, filter: &Filter) -> Result<Listing, SourceError>;

    /// D of a directory.
    ///
    /// # Errors
    /// As [`There::listing`].
    fn digest(&self, dir: &RelPath) -> Result<Digest, SourceError>;

    /// Reads files whose bytes decide something, and records their hashes there. What cannot be read stays without one.
    ///
    /// # Errors
    /// As [`There::listing`].
    fn rehash(&self, paths: &[RelPath], monitor: &dyn Monitor) -> Result<(), SourceError>;

    /// Conflicts with the replica `with` that were decided there, by path.
    ///
    /// # Errors
    /// As [`There::listing`].
    fn decided(&self, with: ReplicaId) -> Result<Vec<Decided>, SourceError>;

    /// Where content comes from.
    ///
    /// # Errors
    /// What it takes to ask for content cannot be set up.
    fn source(&self) -> Result<Box<dyn Source + '_>, SourceError>;
}

/// The key under which a root remembers which version of its own a decision was about.
#[must_use]
pub fn decided_on(other: ReplicaId, path: &RelPath) -> String {
    format!("sync.decided.{other}.{}", blake3::hash(path.as_bytes()).to_hex())
}

/// The version that stands at a path, in a form to compare; empty where nothing does.
///
/// # Errors
/// The state cannot be read.
pub fn version(state: &State, path: &RelPath) -> Result<Vec<u8>, StateError> {
    let m = state.entry(path)?.map(|entry| entry.row.m).unwrap_or_default();
    Ok(m.iter().flat_map(|event| [&event.replica.0[..], &event.counter.to_le_bytes()].concat()).collect())
}

/// Conflicts that were decided in this state with the replica of the record `with`, and whose version here is still the one that
/// was decided on.
///
/// # Errors
/// The state cannot be read.
pub fn decided(state: &State, with: ReplicaId) -> Result<Vec<Decided>, StateError> {
    let mut found = Vec::new();
    for open in state.pending(with)? {
        let Some(decision) = open.decision else { continue };
        if state.meta(&decided_on(with, &open.path))? == Some(version(state, &open.path)?) {
            let about = open.theirs.map(|row| row.m).unwrap_or_default();
            found.push(Decided { path: open.path, decision, about });
        }
    }
    Ok(found)
}
