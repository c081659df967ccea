//! The state of a replica in SQLite: the only SQL of the project.
//!
//! One connection writes, behind a lock; a few read, each seeing the rows as of one moment. It knows nothing of the
//! tree on the disk, of peers' messages or of decisions: it keeps the rows and the invariants of
//! [`crate::store::Change`], and refuses a change that would break them.

mod check;
mod codec;
mod commit;
mod encode;
mod entries;
mod error;
mod forget;
mod identity;
mod lock;
mod names;
mod nodes;
mod open;
mod place;
mod placements;
mod prune;
mod records;
mod removal;
mod rows;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_model;
#[cfg(test)]
mod tests_open;
mod tx;

pub use error::StateError;
pub use identity::FORMER;
pub use placements::PlaceChange;

use crate::entry::{AttrMask, Hash, Kind, Signature};
use crate::knowledge::{ReplicaId, Row, Vector};
use crate::path::{Name, RelPath};
use crate::plan::Open;
use crate::store::{Change, Filter, Listing, Store};
use error::{Attempt as _, Result};
use names::Names;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use tx::Tx;

/// Most connections for reading that are kept open while nobody reads.
const IDLE_READERS: usize = 8;

/// A replica's state. One process holds it at a time; threads may share it.
#[derive(Debug)]
pub struct State {
    writer: Mutex<Writer>,
    /// `None`: a state in memory, whose one connection reads too.
    readers: Option<Mutex<Vec<Reader>>>,
    file: Option<PathBuf>,
    names: RwLock<Names>,
    /// What the committed rows show.
    published: RwLock<Published>,
    ticker: Mutex<identity::Ticker>,
    /// Highest own counter handed out.
    made: AtomicU64,
    mask: AttrMask,
    moved: Option<String>,
    created: bool,
    // Last, so that everything else is closed before another process gets in.
    _lock: Option<lock::Lock>,
}

/// A connection for reading, and the directory in which it looked for a path last.
#[derive(Debug)]
struct Reader {
    conn: Connection,
    nearby: rows::Nearby,
}

/// The writing connection and what it keeps beside the tables.
#[derive(Debug)]
struct Writer {
    conn: Connection,
    clock: Clock,
    next_node: i64,
    /// Is `synchronous` FULL at present?
    full: bool,
    /// Was something committed that may not have reached the disk?
    loose: bool,
}

/// The one row of the clock table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Clock {
    seq: i64,
    counter: u64,
    reserved: u64,
    floor: i64,
    live: i64,
}

/// What is told without asking the tables.
#[derive(Debug, Clone, Copy)]
struct Published {
    id: ReplicaId,
    instance: u64,
    clock: Clock,
}

/// What the scan compares with: a live row of one directory.
#[derive(Debug, Clone, PartialEq)]
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
#[derive(Debug, Clone, PartialEq)]
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
#[derive(Debug, Clone, PartialEq)]
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
pub enum Decision {
    /// This root's version.
    Local,
    /// The other's.
    Remote,
    /// The one with the newer modification time.
    Newer,
    /// Both, one as a conflict copy.
    Both,
}

/// A swap about to be made, so that recovery can tell it from a user's edit.
#[derive(Debug, Clone, PartialEq)]
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

/// Why objects are kept.
pub const REASONS: [&str; 4] = ["replaced", "deleted", "lost a conflict", UNKNOWN_PATH];
/// It lay among the kept versions without a record, and its name tells only a part of where it was.
pub const UNKNOWN_PATH: &str = "of unknown path, kept";

/// An object about to be kept.
#[derive(Debug, Clone, PartialEq)]
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
    /// One of [`REASONS`].
    pub reason: &'static str,
}

/// A kept version as recorded.
#[derive(Debug, Clone, PartialEq)]
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
    /// What lies elsewhere now, or does no more.
    pub places: Vec<PlaceChange>,
}

/// The hash of a file, as somebody read it who does not keep others from changing its row meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// The file.
    pub path: RelPath,
    /// What its row told before it was read.
    pub expect: (Signature, Option<Hash>),
    /// What the file system said of what was read.
    pub signature: Signature,
    /// Of all its bytes.
    pub hash: Hash,
}

impl State {
    /// This replica.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.published().id
    }

    /// Random number of this state.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.published().instance
    }

    /// The counter n: that of the newest own event in the rows. An event handed out by [`State::tick`] counts from
    /// the commit that records it.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.published().clock.counter
    }

    /// Newest sequence number.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.published().clock.seq as u64
    }

    /// Listings with `Filter::Since` are complete for sequence numbers from here on.
    #[must_use]
    pub fn journal_floor(&self) -> u64 {
        self.published().clock.floor as u64
    }

    /// Number of live paths, the root not counted.
    ///
    /// # Errors
    /// None at present; the count may have to be read one day.
    pub fn live(&self) -> Result<u64> {
        Ok(self.published().clock.live as u64)
    }

    /// Number of live directories, the root among them.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn directories(&self) -> Result<u64> {
        let count = "SELECT count(*) FROM entry WHERE kind = 3";
        let count: i64 = self.read(|conn| conn.query_row(count, [], |row| row.get(0)).attempt("count the directories"))?;
        Ok(count.unsigned_abs())
    }

    /// Why the state may be a copy: the machine, the file system or the file itself differ from those recorded. The
    /// caller then takes a new identity ([`State::renew_identity`]) before anything is sent or applied.
    #[must_use]
    pub fn moved(&self) -> Option<&str> {
        self.moved.as_deref()
    }

    /// Was the state made by this opening?
    #[must_use]
    pub fn created(&self) -> bool {
        self.created
    }

    /// Applies a transaction. With `durable` it has reached the disk when the call returns; else it is atomic and
    /// ordered, and the caller's next `syncfs` makes it durable. One that forgets rows takes a new identity.
    ///
    /// # Errors
    /// [`StateError::Invariant`] for a change that would break a rule of [`Change`]; nothing was changed then.
    pub fn commit(&self, batch: Batch, durable: bool) -> Result<()> {
        let forgets = batch.changes.iter().any(|change| matches!(change, Change::Forget { .. }));
        let apply = |tx: &mut Tx<'_>| {
            for change in &batch.changes {
                commit::apply(tx, change)?;
            }
            records::settle(tx.conn, &batch.settled)?;
            records::keep(tx.conn, &batch.versions)?;
            placements::change(tx.conn, &batch.places)
        };
        if !forgets {
            return self.write(durable, apply);
        }
        self.renewing(durable, |tx, name| {
            apply(tx)?;
            if tx.forgotten.is_empty() {
                return Ok(());
            }
            forget::let_go(tx)?;
            identity::take(tx, name)
        })
    }

    /// Records hashes without an event. Where a row tells of something else by now than what was read, nothing happens: whoever
    /// recorded that knows better.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn learn(&self, learned: &[Learned]) -> Result<()> {
        if learned.is_empty() {
            return Ok(());
        }
        self.write(false, |tx| learned.iter().try_for_each(|learned| commit::learn(tx, learned)))
    }

    /// Rows of one directory for a peer or for a pull.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn listing(&self, dir: &RelPath, filter: &Filter) -> Result<Listing> {
        let id = self.id();
        self.read(|conn| rows::listing(conn, &self.names, id, (dir, filter)))
    }

    /// Live rows of one directory for the scan, by name ascending.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn known(&self, dir: NodeId) -> Result<Vec<Known>> {
        self.read(|conn| rows::known(conn, dir))
    }

    /// As [`State::known`], so many of them at most, and only those whose name comes after another one.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn known_after(&self, dir: NodeId, after: Option<&Name>, most: usize) -> Result<Vec<Known>> {
        self.read(|conn| rows::known_after(conn, dir, after, most))
    }

    /// A live path.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn entry(&self, path: &RelPath) -> Result<Option<Entry>> {
        self.read_nearby(|conn, nearby| rows::entry(conn, &self.names, nearby, path))
    }

    /// Several live paths as they are at one moment: as many answers as paths.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn entries(&self, paths: &[RelPath]) -> Result<Vec<Option<Entry>>> {
        self.read_nearby(|conn, nearby| rows::entries(conn, &self.names, nearby, paths))
    }

    /// The newest sequence number at or below a directory that has rows; `None` where there are none.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn newest(&self, dir: &RelPath) -> Result<Option<u64>> {
        self.read(|conn| rows::newest_at(conn, dir))
    }

    /// The number of a live directory.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn node(&self, path: &RelPath) -> Result<Option<NodeId>> {
        self.read(|conn| rows::node(conn, path))
    }

    fn published(&self) -> Published {
        *self.published.read().expect("no panic while the clock is held")
    }

    /// Runs `body` on a connection for reading.
    fn read<T>(&self, body: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.read_nearby(|conn, _| body(conn))
    }

    /// As [`State::read`], for who looks for paths one by one.
    fn read_nearby<T>(&self, body: impl FnOnce(&Connection, &mut rows::Nearby) -> Result<T>) -> Result<T> {
        let (Some(readers), Some(file)) = (&self.readers, &self.file) else {
            return body(&self.writer.lock().expect("no panic while the state is held").conn, &mut None);
        };
        let idle = readers.lock().expect("no panic while readers are held").pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => Reader { conn: open::reader(file)?, nearby: None },
        };
        let result = body(&reader.conn, &mut reader.nearby);
        let mut idle = readers.lock().expect("no panic while readers are held");
        if idle.len() < IDLE_READERS {
            idle.push(reader);
        }
        result
    }

    /// Runs `body` in a write transaction: all of it happens, or nothing.
    fn write<T>(&self, durable: bool, body: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        let mut writer = self.writer.lock().expect("no panic while the state is held");
        if writer.full != durable {
            let mode = if durable { "FULL" } else { "NORMAL" };
            writer.conn.pragma_update(None, "synchronous", mode).attempt("set durability")?;
            writer.full = durable;
        }
        let before = writer.conn.total_changes();
        let (result, clock, next_node) = {
            let writer = &*writer;
            let sql = Transaction::new_unchecked(&writer.conn, TransactionBehavior::Immediate).attempt("begin")?;
            let made = self.made.load(Ordering::Acquire);
            let mut tx = Tx::begin(writer, &self.names, self.id(), made, self.mask)?;
            let result = body(&mut tx)?;
            tx.finish()?;
            sql.commit().attempt("commit")?;
            let (clock, next_node) = tx.done();
            (result, clock, next_node)
        };
        writer.clock = clock;
        writer.next_node = next_node;
        // A transaction that wrote nothing does not sync the log, whatever was asked for.
        if writer.conn.total_changes() != before {
            writer.loose = !durable;
        }
        self.published.write().expect("no panic while the clock is held").clock = clock;
        Ok(result)
    }
}

impl Store for State {
    type Error = StateError;

    fn id(&self) -> ReplicaId {
        State::id(self)
    }

    fn listing(&self, dir: &RelPath, filter: &Filter) -> Result<Listing> {
        State::listing(self, dir, filter)
    }
}
