//! The state of a replica in SQLite: the only SQL of the project.

use crate::entry::{AttrMask, Hash, Kind, Signature};
use crate::knowledge::{Event, ReplicaId, Row, Vector};
use crate::path::{Name, RelPath};
use crate::plan::Open;
use crate::store::{Change, Filter, Listing};
use std::path::Path;
use std::sync::Arc;

/// What can go wrong with a state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// placeholder
    #[error("state")]
    Other,
}
type Result<T> = std::result::Result<T, StateError>;

/// A replica's state. One process holds it at a time; threads may share it.
pub struct State {}

/// What the scan compares with: a live row of one directory.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its name.
    pub name: Name,
    /// Its kind.
    pub kind: Kind,
    /// What the file system said last.
    pub signature: Signature,
    /// The carried or replicated modification time, ns.
    pub mtime_ns: i64,
    /// Hash, where the bytes were read.
    pub hash: Option<Hash>,
    /// For a directory: its id, to list its children without a path look-up.
    pub node: Option<NodeId>,
}

/// A directory's number in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(pub i64);

impl NodeId {
    /// The root directory.
    pub const ROOT: NodeId = NodeId(1);
}

/// A live path with all that is kept of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its version.
    pub row: Row,
    /// o.
    pub own: Option<Arc<Vector>>,
    /// What the file system said last.
    pub signature: Signature,
}

/// What is remembered of another replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Random number of its state; it changes when the state is made anew.
    pub instance: u64,
    /// Highest of its sequence numbers that is incorporated here.
    pub incorporated: u64,
    /// Highest of its counters that was seen, and the nonce of the start that made it.
    pub seen: (u64, u64),
    /// Where it was last found (an absolute path, for a local root).
    pub location: Vec<u8>,
}

/// A path that a pull from a peer left incomplete.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Which path.
    pub path: RelPath,
    /// `None`: a step failed; else why it was left.
    pub why: Option<Open>,
    /// Its version at the peer, if it is live there: shown to the user, and what a decision is about.
    pub theirs: Option<Row>,
    /// What the peer knew of the path.
    pub known: Vector,
    /// What the user decided since.
    pub decision: Option<Decision>,
}

/// How a user settles one conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision { /// This root's version.
    Local, /// The other's.
    Remote, /// The one with the newer modification time.
    Newer, /// Both, one as a conflict copy.
    Both }

/// A swap about to be made, so that recovery can tell it from a user's edit.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The path that changes.
    pub path: RelPath,
    /// Name of the staged object in the staging folder; empty for a removal.
    pub staged: Vec<u8>,
    /// Identity of the staged object (dev, ino); recovery compares it with what stands at the path.
    pub staged_signature: Option<Signature>,
    /// What is expected to stand there before.
    pub expect: Option<Signature>,
    /// What the commit will record once the swap is done: a list, since a directory is staged whole.
    pub changes: Vec<Change>,
    /// Where the displaced object goes: id of the kept version.
    pub version: Option<NewVersion>,
}

/// An object about to be kept.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// File name in the folder of kept versions.
    pub name: Vec<u8>,
    /// The path it had.
    pub path: RelPath,
    /// Its kind.
    pub kind: Kind,
    /// Signature when it was displaced; growth afterwards means that a writer had it open.
    pub signature: Signature,
    /// Hash, if known.
    pub hash: Option<Hash>,
    /// When, ns since 1970.
    pub kept_at_ns: i64,
    /// "replaced", "deleted", "lost a conflict".
    pub reason: &'static str,
}

/// A kept version as recorded.
#[derive(Debug, Clone)]
pub struct Version {
    /// Its number.
    pub id: i64,
    /// All else.
    pub kept: NewVersion,
}

/// One transaction.
#[derive(Debug, Default)]
pub struct Batch {
    /// Changes of rows, in order.
    pub changes: Vec<Change>,
    /// Intents that are settled by it.
    pub settled: Vec<i64>,
    /// Objects that were displaced.
    pub versions: Vec<NewVersion>,
}

impl State {
    /// Opens or creates `state.db` in `dir` (the root's `.driftless`, or a folder given by the user).
    pub fn open(dir: &Path, mask: AttrMask) -> Result<State> { todo!() }
    /// A state that lives in memory.
    pub fn in_memory(id: ReplicaId, mask: AttrMask) -> Result<State> { todo!() }
    /// This replica.
    pub fn id(&self) -> ReplicaId { todo!() }
    /// Random number of this state.
    pub fn instance(&self) -> u64 { todo!() }
    /// The counter n: the latest event's.
    pub fn counter(&self) -> u64 { todo!() }
    /// A new event; its counter was reserved durably before (in blocks).
    pub fn tick(&self) -> Result<Event> { todo!() }
    /// The latest event.
    pub fn nonce(&self) -> u64 { todo!() }
    /// Is (counter, nonce) one that this replica made itself, by its lineage, and not beyond its counter?
    pub fn remembers(&self, seen: (u64, u64)) -> Result<bool> { todo!() }
    /// Takes a new identity: the old component stays in S of the root at its present value.
    pub fn renew_identity(&self) -> Result<ReplicaId> { todo!() }
    /// Rows of one directory for a peer or for a pull.
    pub fn listing(&self, dir: &RelPath, filter: &Filter) -> Result<Listing> { todo!() }
    /// Live rows of one directory for the scan, by name ascending.
    pub fn known(&self, dir: NodeId) -> Result<Vec<Known>> { todo!() }
    /// A live path.
    pub fn entry(&self, path: &RelPath) -> Result<Option<Entry>> { todo!() }
    /// A directory's number.
    pub fn node(&self, path: &RelPath) -> Result<Option<NodeId>> { todo!() }
    /// Number of live paths, the root not counted.
    pub fn live(&self) -> Result<u64> { todo!() }
    /// Applies a transaction. With `durable` it has reached the disk when the call returns; else it is atomic and
    /// ordered, and the caller's next `syncfs` makes it durable.
    pub fn commit(&self, batch: Batch, durable: bool) -> Result<()> { todo!() }
    /// Newest sequence number.
    pub fn seq(&self) -> u64 { todo!() }
    /// Records intents before their swaps; returns their numbers. Same durability as `commit`.
    pub fn intend(&self, intents: &[Intent], durable: bool) -> Result<Vec<i64>> { todo!() }
    /// Intents that a crash left behind.
    pub fn intents(&self) -> Result<Vec<(i64, Intent)>> { todo!() }
    /// What is remembered of a peer.
    pub fn peer(&self, id: ReplicaId) -> Result<Option<Peer>> { todo!() }
    /// All peers.
    pub fn peers(&self) -> Result<Vec<(ReplicaId, Peer)>> { todo!() }
    /// Remembers a peer.
    pub fn put_peer(&self, id: ReplicaId, peer: &Peer) -> Result<()> { todo!() }
    /// Paths left incomplete by pulls from a peer, by path.
    pub fn pending(&self, peer: ReplicaId) -> Result<Vec<Pending>> { todo!() }
    /// Replaces the list of incomplete paths of a peer.
    pub fn put_pending(&self, peer: ReplicaId, pending: &[Pending]) -> Result<()> { todo!() }
    /// Records what the user decided on a pending path.
    pub fn decide(&self, peer: ReplicaId, path: &RelPath, decision: Option<Decision>) -> Result<()> { todo!() }
    /// Kept versions at or below a path, newest first.
    pub fn versions(&self, at: &RelPath) -> Result<Vec<Version>> { todo!() }
    /// Kept versions older than a time, at most `limit`.
    pub fn versions_before(&self, ns: i64, limit: usize) -> Result<Vec<Version>> { todo!() }
    /// Forgets a kept version that is gone from the disk.
    pub fn forget_version(&self, id: i64) -> Result<()> { todo!() }
    /// Drops ghosts that tell nothing (T6) and are older than the journal keeps; raises the journal's floor.
    pub fn prune(&self) -> Result<()> { todo!() }
    /// Listings with `Filter::Since` are complete for sequence numbers from here on.
    pub fn journal_floor(&self) -> u64 { todo!() }
    /// A remembered value (rules' hash, generation …).
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>> { todo!() }
    /// Remembers a value.
    pub fn put_meta(&self, key: &str, value: &[u8]) -> Result<()> { todo!() }
    /// Ends reading and writing: checkpoints and truncates the log.
    pub fn close(self) -> Result<()> { todo!() }
}
