//! Dropping what tells nothing: old ghosts (T6), redundant knowledge, vectors that no row needs.

use super::State;
use super::encode;
use super::error::{Attempt, Result, StateError};
use super::names::Purpose;
use super::nodes::{ABOVE, ROOT};
use super::tx::Tx;
use crate::knowledge::Vector;
use rusqlite::{OptionalExtension as _, params};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Newest ghosts that are kept although they tell nothing: the journal that spares peers a walk.
const JOURNAL_GHOSTS: u32 = 100_000;
/// Interned vectors from which unused ones are looked for.
const SWEEP_VECTORS: usize = 1024;

impl State {
    /// Drops ghosts that tell nothing (T6) and are older than the journal keeps; raises the journal's floor.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn prune(&self) -> Result<()> {
        self.prune_to(JOURNAL_GHOSTS)
    }

    /// As [`State::prune`] with a journal of another length.
    pub(super) fn prune_to(&self, ghosts: u32) -> Result<()> {
        self.write(false, |tx| {
            let mut subs = Subs::new(tx)?;
            drop_ghosts(tx, &mut subs, ghosts)?;
            drop_redundant(tx, &mut subs)?;
            drop_vectors(tx, &mut subs)
        })
    }
}

/// Sub of nodes by number.
struct Subs {
    known: HashMap<i64, Arc<Vector>>,
}

impl Subs {
    fn new(tx: &mut Tx<'_>) -> Result<Subs> {
        tx.nearest(b"")?;
        Ok(Subs { known: HashMap::from([(ABOVE, tx.sub(ABOVE)), (ROOT, tx.sub(ROOT))]) })
    }

    fn of(&mut self, tx: &Tx<'_>, id: i64) -> Result<Arc<Vector>> {
        if let Some(sub) = self.known.get(&id) {
            return Ok(sub.clone());
        }
        let (parent, s): (i64, Option<Vec<u8>>) = tx
            .conn
            .prepare_cached("SELECT parent, s FROM node WHERE id = ?1")
            .and_then(|mut query| query.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))))
            .attempt("read a directory")?;
        let mut sub = self.of(tx, parent)?;
        if let Some(s) = s {
            sub = Arc::new(sub.joined(&decode(tx, &s)?));
        }
        self.known.insert(id, sub.clone());
        Ok(sub)
    }
}

fn decode(tx: &Tx<'_>, blob: &[u8]) -> Result<Vector> {
    tx.names().read().expect("no panic while names are held").decode(blob)
}

fn drop_ghosts(tx: &mut Tx<'_>, subs: &mut Subs, keep: u32) -> Result<()> {
    let newest_to_go: Option<i64> = tx
        .conn
        .prepare_cached("SELECT seq FROM entry WHERE kind = 0 ORDER BY seq DESC LIMIT 1 OFFSET ?1")
        .and_then(|mut query| query.query_row([keep], |row| row.get(0)).optional())
        .attempt("read the journal")?;
    let Some(cutoff) = newest_to_go else {
        return Ok(());
    };
    let candidates: Vec<(i64, Vec<u8>)> = {
        let sql = "SELECT parent, name FROM entry WHERE kind = 0 AND seq <= ?1 ORDER BY seq";
        let mut query = tx.conn.prepare_cached(sql).attempt("read the journal")?;
        let rows = query.query_map([cutoff], |row| Ok((row.get(0)?, row.get(1)?))).attempt("read the journal")?;
        rows.collect::<rusqlite::Result<_>>().attempt("read the journal")?
    };
    for candidate in candidates {
        let mut next = Some(candidate);
        // A ghost that stood above dropped ones may go after them.
        while let Some((parent, name)) = next {
            next = drop_ghost(tx, subs, (parent, &name), cutoff)?;
        }
    }
    Ok(())
}

/// Drops one ghost if it tells nothing; yields the path above it then.
fn drop_ghost(tx: &mut Tx<'_>, subs: &mut Subs, (parent, name): (i64, &[u8]), cutoff: i64) -> Result<Option<(i64, Vec<u8>)>> {
    type Ghost = (Option<i64>, i64, i64, Option<Vec<u8>>);
    let sql = "SELECT e.node, e.o, max(e.seq, ifnull(n.seq, 0)), n.s FROM entry e LEFT JOIN node n ON n.id = e.node \
         WHERE e.parent = ?1 AND e.name = ?2 AND e.kind = 0";
    let ghost: Option<Ghost> = tx
        .conn
        .prepare_cached(sql)
        .and_then(|mut query| {
            let columns = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            query.query_row(params![parent, name], columns).optional()
        })
        .attempt("read an absent path")?;
    let Some((node, own, seq, s)) = ghost else {
        return Ok(None);
    };
    let sub = subs.of(tx, parent)?;
    let s = s.map_or(Ok(Vector::new()), |s| decode(tx, &s))?;
    let rows_below = node.map_or(Ok(false), |id| tx.has_rows(id))?;
    if seq > cutoff || rows_below || !s.within(&sub) || !tx.knowledge(own).within(&sub) {
        return Ok(None);
    }
    if let Some(id) = node {
        tx.discard_node(id)?;
    }
    tx.conn
        .prepare_cached("DELETE FROM entry WHERE parent = ?1 AND name = ?2")
        .and_then(|mut delete| delete.execute(params![parent, name]))
        .attempt("drop an absent path")?;
    tx.clock.floor = tx.clock.floor.max(seq);
    tx.conn
        .prepare_cached("SELECT parent, name FROM node WHERE id = ?1")
        .and_then(|mut query| query.query_row([parent], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .attempt("read a directory")
}

/// Empties S where the path above already knows as much.
fn drop_redundant(tx: &mut Tx<'_>, subs: &mut Subs) -> Result<()> {
    let told: Vec<(i64, i64, Vec<u8>)> = {
        let sql = "SELECT id, parent, s FROM node WHERE s IS NOT NULL AND parent <> 0";
        let mut query = tx.conn.prepare_cached(sql).attempt("read knowledge")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).attempt("read knowledge")?;
        rows.collect::<rusqlite::Result<_>>().attempt("read knowledge")?
    };
    for (id, parent, s) in told {
        if decode(tx, &s)?.within(&*subs.of(tx, parent)?) {
            tx.conn
                .prepare_cached("UPDATE node SET s = NULL WHERE id = ?1")
                .and_then(|mut update| update.execute([id]))
                .attempt("drop knowledge")?;
        }
    }
    Ok(())
}

/// Deletes interned vectors that tell no more than the root knows, and, where there are many, those that no row uses.
fn drop_vectors(tx: &mut Tx<'_>, subs: &mut Subs) -> Result<()> {
    let root = subs.of(tx, ROOT)?;
    let (knowledge, events, due) = {
        let names = tx.names().read().expect("no panic while names are held");
        let due = names.len() > SWEEP_VECTORS.max(2 * names.swept());
        (names.all(Purpose::Knowledge), names.all(Purpose::Events), due)
    };
    let used = if due { Some(used_vectors(tx)?) } else { None };
    let unused = |id: &i64| used.as_ref().is_some_and(|used| !used.contains(id));
    let gone: Vec<i64> = knowledge
        .iter()
        .filter(|(id, vector)| vector.within(&root) || unused(id))
        .chain(events.iter().filter(|(id, _)| unused(id)))
        .map(|(id, _)| *id)
        .collect();
    for id in &gone {
        tx.conn
            .prepare_cached("DELETE FROM vector WHERE id = ?1")
            .and_then(|mut delete| delete.execute([id]))
            .attempt("drop a vector")?;
    }
    tx.retire(gone, due);
    Ok(())
}

/// Every interned vector that some row refers to.
fn used_vectors(tx: &Tx<'_>) -> Result<HashSet<i64>> {
    let sql = "SELECT o, m, c FROM entry WHERE o <> 0 OR substr(m, 1, 1) = x'00' OR substr(c, 1, 1) = x'00'";
    let mut query = tx.conn.prepare(sql).attempt("look for used vectors")?;
    let mut rows = query.query([]).attempt("look for used vectors")?;
    let mut used = HashSet::new();
    while let Some(row) = rows.next().attempt("look for used vectors")? {
        used.insert(row.get(0).attempt("look for used vectors")?);
        for column in [1, 2] {
            let value = row.get_ref(column).attempt("look for used vectors")?;
            let blob = value.as_blob_or_null().map_err(|_| BAD)?.unwrap_or_default();
            if let Some(id) = encode::reference(blob) {
                used.insert(id.ok_or(BAD)?);
            }
        }
    }
    Ok(used)
}

const BAD: StateError = StateError::Content { what: "a set of events" };
