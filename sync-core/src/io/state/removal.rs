//! The changes that take paths away: one path, a tree, what came under an ignore rule.

use super::commit::{Slot, enter, learn_own, leave_dir, old_share, raise, slot};
use super::entries::Stored;
use super::error::{Attempt, Result, StateError};
use super::tx::{Tx, invariant};
use crate::entry::Digest;
use crate::knowledge::Vector;
use crate::path::RelPath;
use rusqlite::params;
use std::sync::Arc;

pub(super) fn remove(
    tx: &mut Tx<'_>,
    path: &RelPath,
    learn: Option<&Arc<Vector>>,
    bound: &Vector,
) -> Result<()> {
    tx.witness(path, bound.get(tx.id))?;
    if path.is_root() {
        return Err(invariant(path, "the root cannot be absent"));
    }
    let old = match slot(tx, path)? {
        Some((parent, name)) => tx.stored(parent, name)?.map(|old| (parent, name, old)),
        None => None,
    };
    let Some((parent, name, old)) = old.filter(|(_, _, old)| old.live.is_some()) else {
        if let Some(learn) = learn {
            learn_own(tx, path, learn, bound)?;
        }
        return raise_above(tx, path, bound);
    };
    let node = match enter(tx, parent, path, Some(&old))? {
        Some(id) => leave_dir(tx, path, id, Some(&old))?,
        None => None,
    };
    let sub = tx.sub(node.unwrap_or(parent));
    let own = tx.learned(old.own, learn, &sub)?;
    let seq = tx.write_ghost(parent, name, node, own)?;
    removed(tx, (parent, name), (node, &old), bound, seq);
    Ok(())
}

/// Hands a removal upward.
fn removed(
    tx: &mut Tx<'_>,
    (parent, name): Slot<'_>,
    (node, old): (Option<i64>, &Stored),
    bound: &Vector,
    seq: i64,
) {
    tx.raise(node.unwrap_or(parent), bound);
    if let Some(id) = node {
        tx.node(id).touch(seq);
    }
    let gone = old_share(tx, name, Some(old));
    let up = tx.node(parent);
    up.digest = up.digest.minus(gone);
    if old.live.is_some() {
        tx.clock.live -= 1;
    }
}

/// Raises M of the nearest node above a path that has no live row.
fn raise_above(tx: &mut Tx<'_>, path: &RelPath, bound: &Vector) -> Result<()> {
    let (near, _) = tx.nearest(path.as_bytes())?;
    if !bound.within(&tx.node(near).bound) {
        tx.raise(near, bound);
        tx.touch(near);
    }
    Ok(())
}

pub(super) fn remove_tree(
    tx: &mut Tx<'_>,
    path: &RelPath,
    learn: Option<&Arc<Vector>>,
    bound: &Vector,
) -> Result<()> {
    tx.witness(path, bound.get(tx.id))?;
    if path.is_root() {
        return Err(invariant(path, "the root cannot be absent"));
    }
    let old = match slot(tx, path)? {
        Some((parent, name)) => tx.stored(parent, name)?.map(|old| (parent, name, old)),
        None => None,
    };
    let Some((parent, name, old)) = old else {
        if learn.is_some() {
            raise(tx, path, learn, &Vector::new(), false)?;
        }
        return raise_above(tx, path, bound);
    };
    let node = enter(tx, parent, path, Some(&old))?;
    let mut s = node.map_or_else(Vector::new, |id| tx.node(id).s.clone());
    learn.inspect(|learn| {
        s.join(learn);
    });
    let above = tx.sub(parent);
    let tells = !s.within(&above);
    let sub = above.joined(&s);
    let kept = match node {
        Some(id) => clear(tx, id, &sub, bound)?,
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
        let born = tx.clock.seq + 1;
        let node = tx.node(id);
        node.dir = None;
        node.born = born;
        node.dirty = true;
    }
    let own = tx.learned(old.own, None, &sub)?;
    let seq = tx.write_ghost(parent, name, node, own)?;
    removed(tx, (parent, name), (node, &old), bound, seq);
    Ok(())
}

/// Removes all rows below a node but the ghosts that tell more than `sub`, which is known of everything below.
/// True if some stay.
fn clear(tx: &mut Tx<'_>, id: i64, sub: &Vector, bound: &Vector) -> Result<bool> {
    // What stays is written anew, with a greater number.
    let newest = tx.clock.seq;
    tx.clock.live -= live_children(tx, id)?;
    let mut kept = false;
    for (name, node, own) in telling(tx, id)? {
        kept |= clear_child(tx, (id, &name), (node, own), sub, bound)?;
    }
    tx.conn
        .prepare_cached("DELETE FROM entry WHERE parent = ?1 AND seq <= ?2")
        .and_then(|mut delete| delete.execute(params![id, newest]))
        .attempt("drop paths")?;
    // Nothing below is live: the digest is zero, and what stays has no share in it.
    let node = tx.node(id);
    node.digest = Digest::default();
    node.dirty = true;
    tx.raise(id, bound);
    Ok(kept)
}

/// Name, node and o of a row.
type Telling = (Vec<u8>, Option<i64>, i64);

/// The rows below a node that may tell something.
fn telling(tx: &Tx<'_>, id: i64) -> Result<Vec<Telling>> {
    let sql = "SELECT name, node, o FROM entry WHERE parent = ?1 AND (o <> 0 OR node IS NOT NULL)";
    let mut query = tx.conn.prepare_cached(sql).attempt("read paths")?;
    let rows = query
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .attempt("read paths")?;
    rows.collect::<rusqlite::Result<_>>().attempt("read paths")
}

/// As [`clear`] for one child; true if its ghost stays.
fn clear_child(
    tx: &mut Tx<'_>,
    (parent, name): Slot<'_>,
    (node, own): (Option<i64>, i64),
    sub: &Vector,
    bound: &Vector,
) -> Result<bool> {
    let mut below = sub.clone();
    let mut node = node;
    if let Some(id) = node {
        let path = child_path(&tx.node(parent).path, name);
        let row = tx.stored(parent, name)?.ok_or(StateError::Content {
            what: "a directory without row",
        })?;
        tx.enter(id, parent, &path, &row)?;
        let tells = below.join(&tx.node(id).s);
        if clear(tx, id, &below, bound)? || tells {
            let born = tx.clock.seq + 1;
            let node = tx.node(id);
            node.dir = None;
            node.born = born;
            node.before = Digest::default();
        } else {
            tx.discard_node(id)?;
            node = None;
        }
    }
    let own = if tx.knowledge(own).within(&below) {
        0
    } else {
        own
    };
    if node.is_none() && own == 0 {
        return Ok(false);
    }
    let seq = tx.write_ghost(parent, name, node, own)?;
    if let Some(id) = node {
        tx.node(id).touch(seq);
    }
    Ok(true)
}

fn child_path(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

pub(super) fn forget(tx: &mut Tx<'_>, path: &RelPath) -> Result<()> {
    if path.is_root() {
        return Err(invariant(path, "the root cannot be forgotten"));
    }
    let Some((parent, name)) = slot(tx, path)? else {
        return Ok(());
    };
    let Some(old) = tx.stored(parent, name)? else {
        return Ok(());
    };
    if let Some(id) = enter(tx, parent, path, Some(&old))? {
        forget_below(tx, id)?;
        tx.drop_node(id)?;
    }
    tx.conn
        .prepare_cached("DELETE FROM entry WHERE parent = ?1 AND name = ?2")
        .and_then(|mut delete| delete.execute(params![parent, name]))
        .attempt("drop a path")?;
    let gone = old_share(tx, name, Some(&old));
    let up = tx.node(parent);
    up.digest = up.digest.minus(gone);
    if old.live.is_some() {
        tx.clock.live -= 1;
    }
    tx.touch(parent);
    Ok(())
}

/// Drops all rows and nodes below a node, knowledge too.
fn forget_below(tx: &mut Tx<'_>, id: i64) -> Result<()> {
    for (_, node, _) in telling(tx, id)? {
        if let Some(child) = node {
            forget_below(tx, child)?;
            tx.discard_node(child)?;
        }
    }
    tx.clock.live -= live_children(tx, id)?;
    tx.conn
        .prepare_cached("DELETE FROM entry WHERE parent = ?1")
        .and_then(|mut delete| delete.execute([id]))
        .attempt("drop paths")?;
    Ok(())
}
/// Number of live rows in one directory.
fn live_children(tx: &Tx<'_>, id: i64) -> Result<i64> {
    tx.conn
        .prepare_cached("SELECT count(*) FROM entry WHERE parent = ?1 AND kind <> 0")
        .and_then(|mut query| query.query_row([id], |row| row.get(0)))
        .attempt("count live paths")
}
