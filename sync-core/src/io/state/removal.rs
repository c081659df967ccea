//! The changes that take paths away: one path, a tree. What came under an ignore rule is in [`super::forget`].

use super::commit::{Slot, ensure_node, enter, leave_dir, old_share};
use super::entries::Stored;
use super::error::{Attempt, Result, StateError};
use super::nodes::{above, last};
use super::tx::{Tx, invariant};
use crate::entry::Digest;
use crate::knowledge::Vector;
use crate::path::RelPath;
use rusqlite::params;
use std::collections::HashSet;
use std::sync::Arc;

pub(super) fn remove(tx: &mut Tx<'_>, path: &RelPath, learn: Option<&Arc<Vector>>, bound: &Vector) -> Result<()> {
    tx.witness(path, bound.get(tx.id))?;
    if path.is_root() {
        return Err(invariant(path, "the root cannot be absent"));
    }
    let (parent, name) = (ensure_node(tx, above(path.as_bytes()))?, last(path.as_bytes()));
    let old = tx.stored(parent, name)?;
    let node = match enter(tx, parent, path, old.as_ref())? {
        Some(id) => leave_dir(tx, path, id, old.as_ref())?,
        None => None,
    };
    let sub = tx.sub(node.unwrap_or(parent));
    let own = tx.learned(old.as_ref().map_or(0, |old| old.own), learn, &sub)?;
    let seq = tx.write_ghost(parent, name, node, own)?;
    removed(tx, (parent, name), (node, old.as_ref()), bound, seq);
    Ok(())
}

/// Hands a removal upward.
fn removed(tx: &mut Tx<'_>, (parent, name): Slot<'_>, (node, old): (Option<i64>, Option<&Stored>), bound: &Vector, seq: i64) {
    tx.raise(node.unwrap_or(parent), bound);
    if let Some(id) = node {
        tx.node(id).touch(seq);
    }
    let gone = old_share(tx, name, old);
    let up = tx.node(parent);
    up.digest = up.digest.minus(gone);
    if old.is_some_and(|old| old.live.is_some()) {
        tx.clock.live -= 1;
    }
}

pub(super) fn remove_tree(tx: &mut Tx<'_>, path: &RelPath, learn: Option<&Arc<Vector>>, bound: &Vector) -> Result<()> {
    tx.witness(path, bound.get(tx.id))?;
    if path.is_root() {
        return Err(invariant(path, "the root cannot be absent"));
    }
    let born = tx.coming();
    let (parent, name) = (ensure_node(tx, above(path.as_bytes()))?, last(path.as_bytes()));
    let old = tx.stored(parent, name)?;
    let node = enter(tx, parent, path, old.as_ref())?;
    let mut s = node.map_or_else(Vector::new, |id| tx.node(id).s.clone());
    learn.inspect(|learn| {
        s.join(learn);
    });
    let inherited = tx.sub(parent);
    let tells = !s.within(&inherited);
    let sub = inherited.joined(&s);
    let kept = match node {
        Some(id) => clear(tx, id, &Burial { sub: &sub, bound, born })?,
        None => false,
    };
    let node = match (node, tells || kept) {
        (Some(id), false) => {
            tx.drop_node(id)?;
            None
        }
        (None, true) => Some(tx.create(parent, path.as_bytes())),
        (node, _) => node,
    };
    if let Some(id) = node {
        tx.set_s(id, s);
        let node = tx.node(id);
        node.dir = None;
        node.born = born;
        node.dirty = true;
    }
    let own = tx.learned(old.as_ref().map_or(0, |old| old.own), None, &sub)?;
    let seq = tx.write_ghost(parent, name, node, own)?;
    removed(tx, (parent, name), (node, old.as_ref()), bound, seq);
    Ok(())
}

/// What holds for all rows that a removal of a tree takes away.
struct Burial<'a> {
    /// Known of the path and of everything below it.
    sub: &'a Vector,
    bound: &'a Vector,
    born: i64,
}

/// Removes all rows below a node but those that know more than Sub of the path, and what leads to them: they stay as
/// ghosts. True if some stay.
fn clear(tx: &mut Tx<'_>, id: i64, burial: &Burial<'_>) -> Result<bool> {
    let Some(nodes) = silent_nodes(tx, id, burial.sub)? else {
        return bury(tx, id, burial);
    };
    for node in nodes {
        tx.clock.live -= live_children(tx, node)?;
        tx.conn
            .prepare_cached("DELETE FROM entry WHERE parent = ?1")
            .and_then(|mut delete| delete.execute([node]))
            .attempt("drop paths")?;
        if node != id {
            tx.discard_node(node)?;
        }
    }
    let node = tx.node(id);
    node.digest = Digest::default();
    node.dirty = true;
    tx.raise(id, burial.bound);
    Ok(false)
}

/// The nodes at and below one; `None` if something below it knows more than `sub`.
fn silent_nodes(tx: &Tx<'_>, top: i64, sub: &Vector) -> Result<Option<Vec<i64>>> {
    let mut nodes = vec![top];
    let mut silent = HashSet::from([0]);
    let mut at = 0;
    while let Some(id) = nodes.get(at).copied() {
        at += 1;
        let sql = "SELECT DISTINCT node, o FROM entry WHERE parent = ?1 AND (o <> 0 OR node IS NOT NULL)";
        let mut query = tx.conn.prepare_cached(sql).attempt("read paths")?;
        let mut rows = query.query([id]).attempt("read paths")?;
        while let Some(row) = rows.next().attempt("read paths")? {
            let (node, own): (Option<i64>, i64) = (row.get(0).attempt("read paths")?, row.get(1).attempt("read paths")?);
            // Many rows share few interned vectors.
            if silent.insert(own) && !tx.knowledge(own).within(sub) {
                return Ok(None);
            }
            if let Some(node) = node {
                if !tx.s_of(node)?.within(sub) {
                    return Ok(None);
                }
                nodes.push(node);
            }
        }
    }
    Ok(Some(nodes))
}

/// As [`clear`], row by row.
fn bury(tx: &mut Tx<'_>, id: i64, burial: &Burial<'_>) -> Result<bool> {
    // What stays is written anew, with a greater number.
    let newest = tx.clock.seq;
    tx.clock.live -= live_children(tx, id)?;
    let mut kept = false;
    for (name, node, own) in telling(tx, id)? {
        kept |= bury_child(tx, (id, &name), (node, own), burial)?;
    }
    tx.conn
        .prepare_cached("DELETE FROM entry WHERE parent = ?1 AND seq <= ?2")
        .and_then(|mut delete| delete.execute(params![id, newest]))
        .attempt("drop paths")?;
    // Nothing below is live: the digest is zero, and what stays has no share in it.
    let node = tx.node(id);
    node.digest = Digest::default();
    node.dirty = true;
    tx.raise(id, burial.bound);
    Ok(kept)
}

/// Name, node and o of a row.
pub(super) type Telling = (Vec<u8>, Option<i64>, i64);

/// The rows below a node that may tell something.
pub(super) fn telling(tx: &Tx<'_>, id: i64) -> Result<Vec<Telling>> {
    let sql = "SELECT name, node, o FROM entry WHERE parent = ?1 AND (o <> 0 OR node IS NOT NULL)";
    let mut query = tx.conn.prepare_cached(sql).attempt("read paths")?;
    let rows = query.query_map([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).attempt("read paths")?;
    rows.collect::<rusqlite::Result<_>>().attempt("read paths")
}

/// As [`bury`] for one child; true if its ghost stays.
fn bury_child(tx: &mut Tx<'_>, (parent, name): Slot<'_>, (node, own): (Option<i64>, i64), burial: &Burial<'_>) -> Result<bool> {
    let mut node = node;
    if let Some(id) = node {
        let path = child_path(&tx.node(parent).path, name);
        let row = tx.stored(parent, name)?.ok_or(StateError::Content { what: "a directory without row" })?;
        tx.enter(id, parent, &path, &row)?;
        let tells = !tx.node(id).s.within(burial.sub);
        if clear(tx, id, burial)? || tells {
            let node = tx.node(id);
            node.dir = None;
            node.before = Digest::default();
            node.born = burial.born;
        } else {
            tx.discard_node(id)?;
            node = None;
        }
    }
    let own = if tx.knowledge(own).within(burial.sub) { 0 } else { own };
    if node.is_none() && own == 0 {
        return Ok(false);
    }
    let seq = tx.write_ghost(parent, name, node, own)?;
    if let Some(id) = node {
        tx.node(id).touch(seq);
    }
    Ok(true)
}

pub(super) fn child_path(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Number of live rows in one directory.
pub(super) fn live_children(tx: &Tx<'_>, id: i64) -> Result<i64> {
    tx.conn
        .prepare_cached("SELECT count(*) FROM entry WHERE parent = ?1 AND kind <> 0")
        .and_then(|mut query| query.query_row([id], |row| row.get(0)))
        .attempt("count live paths")
}
