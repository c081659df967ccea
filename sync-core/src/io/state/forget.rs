//! Rows of paths that came under an ignore rule go, and with them what was known of such paths.
//!
//! S speaks of names without rows, too: "absent, and known" means deleted. A forgotten path must not look like that, so
//! the directories above it give up their S, and the replica the name under which its own events would say the same.

use super::commit::{ensure_node, enter, old_share, slot};
use super::error::{Attempt, Result};
use super::nodes::{ABOVE, last};
use super::removal::{child_path, live_children, telling};
use super::tx::{Tx, invariant};
use crate::entry::Kind;
use crate::knowledge::Vector;
use crate::path::RelPath;
use rusqlite::params;
use std::collections::BTreeSet;
use std::sync::Arc;

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
    // What was forgotten left no ghost.
    let born = tx.touch(parent);
    tx.node(parent).born = born;
    tx.forgotten.push(path.clone());
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

/// A directory above forgotten paths.
struct Dir {
    id: i64,
    /// Sub as it was.
    sub: Arc<Vector>,
    /// Own as it was.
    own: Arc<Vector>,
}

/// What is known of the directories above the forgotten paths is known of their other rows alone. All paths forgotten by a
/// transaction at once: knowledge handed to a row must not say anything of another one's forgotten paths. The caller
/// takes a new identity in the same transaction.
pub(super) fn let_go(tx: &mut Tx<'_>) -> Result<()> {
    let forgotten = std::mem::take(&mut tx.forgotten);
    let above: BTreeSet<RelPath> = forgotten.iter().flat_map(|path| path.ancestors().skip(1)).collect();
    let mut dirs = Vec::with_capacity(above.len());
    for path in &above {
        let id = ensure_node(tx, path.as_bytes())?;
        let sub = tx.sub(id);
        let parent = tx.node(id).parent;
        let own = tx.lookup(parent, last(path.as_bytes()))?.map_or(0, |row| row.own);
        let own = Arc::new(sub.joined(&tx.knowledge(own)));
        dirs.push(Dir { id, sub, own });
    }
    for dir in &dirs {
        hand_down(tx, dir, &above)?;
    }
    for dir in &dirs {
        tx.set_s(dir.id, Vector::new());
        let (parent, path) = (tx.node(dir.id).parent, tx.node(dir.id).path.clone());
        if parent != ABOVE {
            let own = tx.learned(0, Some(&dir.own), &Vector::new())?;
            set_own(tx, parent, last(&path), own)?;
        }
    }
    tx.conn.execute("UPDATE peer SET incorporated = 0", []).attempt("let what is known go").map(|_| ())
}

/// Every row of a directory learns what was known by the directory.
fn hand_down(tx: &mut Tx<'_>, dir: &Dir, above: &BTreeSet<RelPath>) -> Result<()> {
    leaves_learn(tx, dir)?;
    let names: Vec<Vec<u8>> = {
        let sql = "SELECT name FROM entry WHERE parent = ?1 AND (node IS NOT NULL OR kind = 0)";
        let mut query = tx.conn.prepare_cached(sql).attempt("read paths")?;
        let rows = query.query_map([dir.id], |row| row.get(0)).attempt("read paths")?;
        rows.collect::<rusqlite::Result<_>>().attempt("read paths")?
    };
    for name in names {
        let path = child_path(&tx.node(dir.id).path, &name);
        if RelPath::parse(&path).is_ok_and(|path| above.contains(&path)) {
            continue;
        }
        let Some(row) = tx.lookup(dir.id, &name)? else { continue };
        let id = match row.node {
            Some(id) => {
                tx.enter(id, dir.id, &path, &row)?;
                id
            }
            None => ensure_node(tx, &path)?,
        };
        if row.kind().is_some_and(|kind| kind != Kind::Dir) && !tx.has_rows(id)? {
            let known = tx.sub(id);
            let own = tx.learned(row.own, Some(&known), &Vector::new())?;
            set_own(tx, dir.id, &name, own)?;
            tx.set_s(id, Vector::new());
        } else {
            let s = tx.node(id).s.joined(&dir.sub);
            tx.set_s(id, s);
        }
    }
    Ok(())
}

/// As [`hand_down`] for the leaves without a node, which are many and share few vectors.
fn leaves_learn(tx: &mut Tx<'_>, dir: &Dir) -> Result<()> {
    let known: Vec<i64> = {
        let sql = "SELECT DISTINCT o FROM entry WHERE parent = ?1 AND node IS NULL AND kind <> 0";
        let mut query = tx.conn.prepare_cached(sql).attempt("read paths")?;
        let rows = query.query_map([dir.id], |row| row.get(0)).attempt("read paths")?;
        rows.collect::<rusqlite::Result<_>>().attempt("read paths")?
    };
    for old in known {
        // A row that was taught before is met once more at the most, and then knows it all.
        let new = tx.learned(old, Some(&dir.sub), &Vector::new())?;
        tx.conn
            .prepare_cached("UPDATE entry SET o = ?3 WHERE parent = ?1 AND node IS NULL AND kind <> 0 AND o = ?2")
            .and_then(|mut update| update.execute(params![dir.id, old, new]))
            .attempt("record what paths learned")?;
    }
    Ok(())
}

fn set_own(tx: &Tx<'_>, parent: i64, name: &[u8], own: i64) -> Result<()> {
    tx.conn
        .prepare_cached("UPDATE entry SET o = ?3 WHERE parent = ?1 AND name = ?2")
        .and_then(|mut update| update.execute(params![parent, name, own]))
        .attempt("record what a path learned")
        .map(|_| ())
}
