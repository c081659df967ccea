//! Interned replicas and vectors: small numbers in the rows, the values in memory both ways.

use super::encode::{self, Blob, Reader};
use super::error::{Attempt, Result, StateError};
use crate::knowledge::{Event, ReplicaId, Vector};
use rusqlite::{Connection, params};
use std::collections::HashMap;
use std::sync::Arc;

/// What an interned vector is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// Knowledge (o): where it is missing it is empty.
    Knowledge = 0,
    /// A set of events (m, c): never missing.
    Events = 1,
}

/// All interned values. Whatever a committed row refers to is here before the row is.
#[derive(Debug, Default)]
pub(super) struct Names {
    replicas: Vec<ReplicaId>,
    indexes: HashMap<ReplicaId, u64>,
    vectors: HashMap<i64, Arc<Vector>>,
    ids: HashMap<(Purpose, Arc<Vector>), i64>,
    /// Deleted from the table by the last pruning; a reader that began before it may still ask for them.
    retired: Vec<i64>,
    /// Number of vectors that the last search for unused ones left.
    swept: usize,
}

impl Names {
    pub(super) fn load(conn: &Connection) -> Result<Names> {
        let mut names = Names::default();
        let mut query = conn.prepare("SELECT ix, id FROM replica ORDER BY ix").attempt("read replicas")?;
        let mut rows = query.query([]).attempt("read replicas")?;
        while let Some(row) = rows.next().attempt("read replicas")? {
            let (ix, id): (i64, [u8; 16]) = (row.get(0).attempt("read replicas")?, row.get(1).attempt("read replicas")?);
            // Indexes are given without gaps, from 1.
            if ix != names.replicas.len() as i64 + 1 {
                return Err(StateError::Content { what: "a list of replicas" });
            }
            names.insert_replica(ReplicaId(id));
        }
        let mut query = conn.prepare("SELECT id, purpose, v FROM vector").attempt("read vectors")?;
        let mut rows = query.query([]).attempt("read vectors")?;
        while let Some(row) = rows.next().attempt("read vectors")? {
            let id = row.get(0).attempt("read vectors")?;
            let purpose: i64 = row.get(1).attempt("read vectors")?;
            let purpose = if purpose == 0 { Purpose::Knowledge } else { Purpose::Events };
            let vector = names.decode(row.get_ref(2).attempt("read vectors")?.as_blob().map_err(|_| BAD_VECTOR)?)?;
            names.insert_vector(id, purpose, Arc::new(vector));
        }
        Ok(names)
    }

    fn insert_replica(&mut self, id: ReplicaId) -> u64 {
        self.replicas.push(id);
        let ix = self.replicas.len() as u64;
        self.indexes.insert(id, ix);
        ix
    }

    fn insert_vector(&mut self, id: i64, purpose: Purpose, vector: Arc<Vector>) {
        self.vectors.insert(id, vector.clone());
        self.ids.insert((purpose, vector), id);
    }

    pub(super) fn index(&self, id: ReplicaId) -> Option<u64> {
        self.indexes.get(&id).copied()
    }

    /// The vector of an id that stands in a row; a missing one tells nothing.
    pub(super) fn knowledge(&self, id: i64) -> Option<&Arc<Vector>> {
        if id == 0 { None } else { self.vectors.get(&id) }
    }

    pub(super) fn id_of(&self, purpose: Purpose, vector: &Arc<Vector>) -> Option<i64> {
        self.ids.get(&(purpose, vector.clone())).copied()
    }

    /// All interned vectors of one purpose.
    pub(super) fn all(&self, purpose: Purpose) -> Vec<(i64, Arc<Vector>)> {
        self.ids.iter().filter(|((p, _), _)| *p == purpose).map(|((_, v), id)| (*id, v.clone())).collect()
    }

    /// Number of vectors that the last search for unused ones left.
    pub(super) fn swept(&self) -> usize {
        self.swept
    }

    /// Number of interned vectors.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Decodes events written out in full, without a reference to an interned vector.
    pub(super) fn decode(&self, blob: &[u8]) -> Result<Vector> {
        let mut reader = Reader::new(blob);
        let first = self.event(&mut reader);
        match first {
            None => Ok(Vector::new()),
            Some(Err(error)) => Err(error),
            Some(Ok(event)) => {
                let mut vector = Vector::from(event);
                while let Some(event) = self.event(&mut reader) {
                    vector.add(event?);
                }
                Ok(vector)
            }
        }
    }

    fn event(&self, reader: &mut Reader<'_>) -> Option<Result<Event>> {
        if reader.is_empty() {
            return None;
        }
        let event = (|| {
            let ix = reader.uint()?;
            let replica = *self.replicas.get(usize::try_from(ix).ok()?.checked_sub(1)?)?;
            Some(Event { replica, counter: reader.uint()? })
        })();
        Some(event.ok_or(BAD_VECTOR))
    }

    /// Decodes m or c: events in full, or 0 and the number of an interned set.
    pub(super) fn decode_events(&self, blob: &[u8]) -> Result<Vector> {
        match encode::reference(blob) {
            None => self.decode(blob),
            Some(id) => {
                let vector = id.and_then(|id| self.vectors.get(&id)).ok_or(BAD_VECTOR)?;
                Ok(Vector::clone(vector))
            }
        }
    }

    /// Forgets the deleted vectors of the pruning before, and notes those of this one.
    pub(super) fn retire(&mut self, deleted: Vec<i64>, swept: bool) {
        for id in std::mem::replace(&mut self.retired, deleted) {
            self.vectors.remove(&id);
        }
        for id in &self.retired {
            if let Some(vector) = self.vectors.get(id) {
                for purpose in [Purpose::Knowledge, Purpose::Events] {
                    if self.ids.get(&(purpose, vector.clone())) == Some(id) {
                        self.ids.remove(&(purpose, vector.clone()));
                    }
                }
            }
        }
        if swept {
            self.swept = self.ids.len();
        }
    }

    /// Takes back what a transaction interned that did not happen.
    pub(super) fn undo(&mut self, added: &Added) {
        for id in self.replicas.split_off(added.replicas.min(self.replicas.len())) {
            self.indexes.remove(&id);
        }
        for (id, purpose) in &added.vectors {
            if let Some(vector) = self.vectors.remove(id) {
                self.ids.remove(&(*purpose, vector));
            }
        }
    }

    /// Number of replicas, to be remembered when a transaction begins.
    pub(super) fn replicas(&self) -> usize {
        self.replicas.len()
    }
}

const BAD_VECTOR: StateError = StateError::Content { what: "a vector" };

/// What a transaction has interned so far.
#[derive(Debug, Default)]
pub(super) struct Added {
    /// Number of replicas when it began.
    pub(super) replicas: usize,
    /// Vectors it added.
    pub(super) vectors: Vec<(i64, Purpose)>,
}

/// Interns a replica within a transaction.
pub(super) fn intern_replica(conn: &Connection, names: &mut Names, id: ReplicaId) -> Result<u64> {
    if let Some(ix) = names.index(id) {
        return Ok(ix);
    }
    let ix = names.insert_replica(id);
    conn.prepare_cached("INSERT INTO replica (ix, id) VALUES (?1, ?2)")
        .and_then(|mut insert| insert.execute(params![ix as i64, id.0]))
        .attempt("record a replica")?;
    Ok(ix)
}

/// Interns a vector whose encoded form is `blob` within a transaction.
pub(super) fn intern_vector(
    conn: &Connection,
    names: &mut Names,
    added: &mut Added,
    (purpose, vector, blob): (Purpose, &Arc<Vector>, &Blob),
) -> Result<i64> {
    if let Some(id) = names.id_of(purpose, vector) {
        return Ok(id);
    }
    conn.prepare_cached("INSERT INTO vector (purpose, v) VALUES (?1, ?2)")
        .and_then(|mut insert| insert.execute(params![purpose as i64, &blob[..]]))
        .attempt("record a vector")?;
    let id = conn.last_insert_rowid();
    names.insert_vector(id, purpose, vector.clone());
    added.vectors.push((id, purpose));
    Ok(id)
}
