//! A write transaction: what it holds from its beginning to its end, and the knowledge that it interns.
//!
//! Its directories are in [`super::nodes`], the rows that it reads and writes in [`super::entries`].

use super::encode::{self, Blob, INLINE_EVENTS};
use super::entries::INSERT;
use super::error::{Attempt, Result, StateError};
use super::names::{Added, Names, Purpose, intern_replica, intern_vector};
use super::nodes::{ABOVE, Node, ROOT};
use super::{Clock, Writer};
use crate::entry::AttrMask;
use crate::knowledge::{Event, ReplicaId, Vector};
use crate::path::RelPath;
use rusqlite::{CachedStatement, Connection, params};
use std::collections::HashMap;
use std::sync::{Arc, RwLock};

/// A write transaction.
pub(super) struct Tx<'c> {
    pub(super) conn: &'c Connection,
    pub(super) id: ReplicaId,
    /// Highest own counter handed out.
    made: u64,
    pub(super) mask: AttrMask,
    pub(super) names: &'c RwLock<Names>,
    added: Added,
    retired: Option<(Vec<i64>, bool)>,
    committed: bool,
    pub(super) clock: Clock,
    clock_before: Clock,
    pub(super) next_node: i64,
    pub(super) nodes: HashMap<i64, Node>,
    pub(super) paths: HashMap<Box<[u8]>, i64>,
    /// The directory looked up last: changes come sorted.
    pub(super) recent: (Vec<u8>, i64),
    /// Grows whenever some Sub may have.
    pub(super) generation: u64,
    /// The knowledge interned last: one pull teaches many rows the same.
    taught: Option<(Arc<Vector>, i64)>,
    pub(super) insert: CachedStatement<'c>,
    /// Paths whose rows were forgotten.
    pub(super) forgotten: Vec<RelPath>,
}

impl<'c> Tx<'c> {
    pub(super) fn begin(
        writer: &'c Writer,
        names: &'c RwLock<Names>,
        id: ReplicaId,
        made: u64,
        mask: AttrMask,
    ) -> Result<Tx<'c>> {
        let insert = writer.conn.prepare_cached(INSERT).attempt("prepare to record paths")?;
        let replicas = names.read().expect("no panic while names are held").replicas();
        Ok(Tx {
            conn: &writer.conn,
            id,
            made,
            mask,
            names,
            added: Added { replicas, vectors: Vec::new() },
            retired: None,
            committed: false,
            clock: writer.clock,
            clock_before: writer.clock,
            next_node: writer.next_node,
            nodes: HashMap::new(),
            paths: HashMap::new(),
            recent: (Vec::new(), ROOT),
            generation: 0,
            taught: None,
            insert,
            forgotten: Vec::new(),
        })
    }

    /// Writes what was collected. The SQL transaction is the caller's to commit; afterwards [`Tx::done`] keeps
    /// what was interned.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.propagate()?;
        if self.clock != self.clock_before {
            let clock = &self.clock;
            self.conn
                .prepare_cached("UPDATE clock SET seq = ?1, counter = ?2, reserved = ?3, floor = ?4, live = ?5")
                .and_then(|mut update| {
                    update.execute(params![clock.seq, clock.counter as i64, clock.reserved as i64, clock.floor, clock.live])
                })
                .attempt("record the clock")?;
        }
        Ok(())
    }

    /// The SQL transaction was committed.
    pub(super) fn done(mut self) -> (Clock, i64) {
        self.committed = true;
        if let Some((gone, swept)) = self.retired.take() {
            self.names.write().expect("no panic while names are held").retire(gone, swept);
        }
        (self.clock, self.next_node)
    }

    /// These vectors were deleted; `swept` if all that no row uses were.
    pub(super) fn retire(&mut self, gone: Vec<i64>, swept: bool) {
        self.retired = Some((gone, swept));
    }

    /// The replica is another from here on; nothing was made under its name yet.
    pub(super) fn adopt(&mut self, id: ReplicaId) {
        self.id = id;
        self.clock.counter = 0;
        self.clock.reserved = 0;
        self.generation += 1;
    }

    /// Sub of a node's path. [`ABOVE`] stands for the own component alone.
    pub(super) fn sub(&mut self, id: i64) -> Arc<Vector> {
        if id == ABOVE {
            let own = Event { replica: self.id, counter: self.clock.counter };
            return Arc::new(if own.counter == 0 { Vector::new() } else { own.into() });
        }
        let node = &self.nodes[&id];
        if let Some((generation, sub)) = &node.sub
            && *generation == self.generation
        {
            return sub.clone();
        }
        let above = self.sub(node.parent);
        let node = &self.nodes[&id];
        let sub = if node.s.within(&above) { above } else { Arc::new(above.joined(&node.s)) };
        let generation = self.generation;
        self.node(id).sub = Some((generation, sub.clone()));
        sub
    }

    /// S of a node becomes `s`.
    pub(super) fn set_s(&mut self, id: i64, s: Vector) {
        let node = self.node(id);
        if node.s != s {
            node.s = s;
            node.dirty = true;
            self.generation += 1;
        }
    }

    /// Takes note of own events that become part of the rows.
    pub(super) fn witness(&mut self, path: &RelPath, counter: u64) -> Result<()> {
        if counter > self.made {
            return Err(invariant(path, "an event of this replica that it never made"));
        }
        if counter > self.clock.counter {
            self.clock.counter = counter;
            self.generation += 1;
        }
        Ok(())
    }

    /// An interned knowledge vector; empty for 0 and for one that told nothing any more.
    pub(super) fn knowledge(&self, id: i64) -> Arc<Vector> {
        let names = self.names.read().expect("no panic while names are held");
        names.knowledge(id).cloned().unwrap_or_default()
    }

    /// The number of `own` ⊔ `learn`, or 0 where that tells no more than `sub`.
    pub(super) fn learned(&mut self, own: i64, learn: Option<&Arc<Vector>>, sub: &Vector) -> Result<i64> {
        let have = self.knowledge(own);
        let want = match learn {
            Some(learn) if !learn.within(&have) => {
                if have.is_empty() {
                    learn.clone()
                } else {
                    Arc::new(have.joined(learn))
                }
            }
            _ => have.clone(),
        };
        if want.within(sub) {
            return Ok(0);
        }
        if Arc::ptr_eq(&want, &have) {
            return Ok(own);
        }
        if let Some((taught, id)) = &self.taught
            && (Arc::ptr_eq(taught, &want) || **taught == *want)
        {
            return Ok(*id);
        }
        let id = self.intern(Purpose::Knowledge, &want)?;
        self.taught = Some((want, id));
        Ok(id)
    }

    fn intern(&mut self, purpose: Purpose, vector: &Arc<Vector>) -> Result<i64> {
        let blob = self.encode(vector.iter())?;
        let mut names = self.names.write().expect("no panic while names are held");
        intern_vector(self.conn, &mut names, &mut self.added, (purpose, vector, &blob))
    }

    /// The number that stands for a replica in the rows.
    pub(super) fn index(&self, id: ReplicaId) -> Result<u64> {
        let known = self.names.read().expect("no panic while names are held").index(id);
        match known {
            Some(ix) => Ok(ix),
            None => intern_replica(self.conn, &mut self.names.write().expect("no panic while names are held"), id),
        }
    }

    pub(super) fn encode(&self, events: impl Iterator<Item = Event>) -> Result<Blob> {
        let mut blob = Blob::new();
        for event in events {
            encode::put_uint(&mut blob, self.index(event.replica)?);
            encode::put_uint(&mut blob, event.counter);
        }
        Ok(blob)
    }

    /// Events for a row: in full where they are few, else a reference to an interned set.
    pub(super) fn events(&mut self, count: usize, events: impl Iterator<Item = Event>) -> Result<Blob> {
        if count <= INLINE_EVENTS {
            return self.encode(events);
        }
        let set: Arc<Vector> = Arc::new(events.collect());
        Ok(encode::refer(self.intern(Purpose::Events, &set)?))
    }

    pub(super) fn names(&self) -> &'c RwLock<Names> {
        self.names
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        if !self.committed {
            self.names.write().expect("no panic while names are held").undo(&self.added);
        }
    }
}

/// A refused change.
pub(super) fn invariant(path: &RelPath, rule: &'static str) -> StateError {
    StateError::Invariant { path: path.clone(), rule }
}
