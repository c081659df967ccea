//! The changes of a transaction, one by one. What takes paths away is in [`super::removal`].

use super::entries::Stored;
use super::error::{Attempt, Result};
use super::nodes::{ABOVE, ROOT, above, last};
use super::tx::{Tx, invariant};
use super::{Learned, encode, forget, removal};
use crate::entry::{AttrMask, Attrs, Content, Digest, Hash, Kind, Signature};
use crate::knowledge::{Row, Vector};
use crate::path::RelPath;
use crate::store::Change;
use rusqlite::params;
use std::sync::Arc;

/// Applies one change.
pub(super) fn apply(tx: &mut Tx<'_>, change: &Change) -> Result<()> {
    match change {
        Change::Put { path, row, signature, learn } => put(tx, path, (row, signature), learn.as_ref()),
        Change::Remove { path, learn, bound } => removal::remove(tx, path, learn.as_ref(), bound),
        Change::RemoveTree { path, learn, bound } => removal::remove_tree(tx, path, learn.as_ref(), bound),
        Change::Learn { path, learn, bound } => learn_own(tx, path, learn, bound),
        Change::Raise { path, s, bound, gaps } => raise(tx, path, s.as_ref(), bound, *gaps),
        Change::Refresh { path, signature, hash, mtime_ns } => refresh(tx, path, signature, *hash, *mtime_ns),
        Change::Forget { path } => forget::forget(tx, path),
    }
}

/// Where a row stands: its directory's node and its name.
pub(super) type Slot<'p> = (i64, &'p [u8]);

/// The slot of a path, if its directory has a node.
pub(super) fn slot<'p>(tx: &mut Tx<'_>, path: &'p RelPath) -> Result<Option<Slot<'p>>> {
    let bytes = path.as_bytes();
    if path.is_root() {
        tx.nearest(bytes)?;
        return Ok(Some((ABOVE, bytes)));
    }
    Ok(tx.exact(above(bytes))?.map(|parent| (parent, last(bytes))))
}

/// Loads the node of a row, if it has one.
pub(super) fn enter(tx: &mut Tx<'_>, parent: i64, path: &RelPath, old: Option<&Stored>) -> Result<Option<i64>> {
    let Some(row) = old else { return Ok(None) };
    if let Some(id) = row.node {
        tx.enter(id, parent, path.as_bytes(), row)?;
    }
    Ok(row.node)
}

fn put(tx: &mut Tx<'_>, path: &RelPath, (row, sig): (&Row, &Signature), learn: Option<&Arc<Vector>>) -> Result<()> {
    tx.witness(path, row.m.get(tx.id))?;
    let id = tx.id;
    row.c.iter().filter(|event| event.replica == id).try_for_each(|event| tx.witness(path, event.counter))?;
    let missing = || invariant(path, "a live path needs a live directory above it");
    let (parent, name) = slot(tx, path)?.ok_or_else(missing)?;
    // K7: a live path has a live directory as parent.
    if parent != ABOVE && tx.node(parent).dir.is_none() {
        return Err(missing());
    }
    let old = tx.stored(parent, name)?;
    let node = put_node(tx, parent, path, row, old.as_ref())?;
    if let Some(id) = node
        && parent != ABOVE
        && comes_to_life(old.as_ref(), row)
    {
        // While nothing stood there, or a leaf, nobody kept its M up.
        let bound = tx.node(parent).bound.clone();
        tx.raise(id, &bound);
    }
    let sub = tx.sub(node.unwrap_or(parent));
    let own = tx.learned(old.as_ref().map_or(0, |old| old.own), learn, &sub)?;
    // K1: m is part of what is known of the path.
    if !row.m.within(&sub) && !row.m.within(&sub.joined(&tx.knowledge(own))) {
        return Err(invariant(path, "the version is not covered by what is known of the path"));
    }
    let seq = tx.write_row((parent, name), (row, sig), (node, own))?;
    tx.raise(node.unwrap_or(parent), &row.m);
    if let Some(id) = node {
        tx.node(id).touch(seq);
    }
    if parent != ABOVE {
        let (gone, come) = (old_share(tx, name, old.as_ref()), tx.leaf_share(name, &row.object));
        let up = tx.node(parent);
        up.digest = up.digest.plus(come).minus(gone);
        if old.is_none_or(|old| old.live.is_none()) {
            tx.clock.live += 1;
        }
    }
    Ok(())
}

/// Does a path become live, or a directory?
fn comes_to_life(old: Option<&Stored>, row: &Row) -> bool {
    match old.and_then(Stored::kind) {
        None => true,
        Some(before) => before != Kind::Dir && row.object.kind() == Kind::Dir,
    }
}

/// The node that a path has once it is live: always for a directory, else only for what stays below it.
fn put_node(tx: &mut Tx<'_>, parent: i64, path: &RelPath, row: &Row, old: Option<&Stored>) -> Result<Option<i64>> {
    let node = enter(tx, parent, path, old)?;
    if row.object.kind() == Kind::Dir {
        let id = node.unwrap_or_else(|| tx.create(parent, path.as_bytes()));
        let object = Some(row.object.clone());
        let node = tx.node(id);
        node.dirty = node.dirty || node.dir != object;
        node.dir = object;
        return Ok(Some(id));
    }
    if path.is_root() {
        return Err(invariant(path, "the root is a directory"));
    }
    match node {
        Some(id) => leave_dir(tx, path, id, old),
        None => Ok(None),
    }
}

/// The path is no directory any more. Its node stays only for rows or knowledge below it.
pub(super) fn leave_dir(tx: &mut Tx<'_>, path: &RelPath, id: i64, old: Option<&Stored>) -> Result<Option<i64>> {
    if old.and_then(Stored::kind) == Some(Kind::Dir) && tx.has_live(id)? {
        return Err(invariant(path, "live paths stand below it"));
    }
    let node = tx.node(id);
    node.dirty |= node.dir.take().is_some();
    keep_or_drop(tx, id)
}

/// Keeps a node that has rows below it or whose S tells more than its parent's Sub; drops it otherwise.
fn keep_or_drop(tx: &mut Tx<'_>, id: i64) -> Result<Option<i64>> {
    let node = tx.node(id);
    let (s, parent) = (node.s.clone(), node.parent);
    if tx.has_rows(id)? || !s.within(&tx.sub(parent)) {
        return Ok(Some(id));
    }
    tx.drop_node(id)?;
    Ok(None)
}

pub(super) fn old_share(tx: &Tx<'_>, name: &[u8], old: Option<&Stored>) -> Digest {
    let live = old.and_then(|old| old.live.as_ref());
    live.map_or(Digest::default(), |(row, _)| tx.leaf_share(name, &row.object))
}

/// Sub of a path, whether it has rows or not.
fn sub_of(tx: &mut Tx<'_>, path: &RelPath) -> Result<Arc<Vector>> {
    let (near, _) = tx.nearest(path.as_bytes())?;
    Ok(tx.sub(near))
}

fn learn_own(tx: &mut Tx<'_>, path: &RelPath, learn: &Arc<Vector>, bound: &Vector) -> Result<()> {
    let sub = sub_of(tx, path)?;
    let old = match slot(tx, path)? {
        Some((parent, name)) => tx.stored(parent, name)?,
        None => None,
    };
    let own = old.as_ref().map_or(0, |old| old.own);
    if learn.within(&sub) || learn.within(&sub.joined(&tx.knowledge(own))) {
        return Ok(());
    }
    let parent = if path.is_root() { ABOVE } else { ensure_node(tx, above(path.as_bytes()))? };
    let name = last(path.as_bytes());
    let own = tx.learned(own, Some(learn), &sub)?;
    let node = enter(tx, parent, path, old.as_ref())?;
    match old {
        Some(old) => {
            let seq = tx.rewrite(parent, name, old.node, own)?;
            // Of the node only the root's is not below its row's directory.
            if parent == ABOVE {
                tx.node(ROOT).touch(seq);
            }
        }
        None => {
            tx.write_ghost(parent, name, None, own)?;
        }
    }
    tx.raise(node.unwrap_or(parent), bound);
    Ok(())
}

/// The node of a directory; ghosts and nodes are made on the way where they are missing.
pub(super) fn ensure_node(tx: &mut Tx<'_>, dir: &[u8]) -> Result<i64> {
    if let Some(id) = tx.exact(dir)? {
        return Ok(id);
    }
    let parent = ensure_node(tx, above(dir))?;
    let name = last(dir);
    let old = tx.stored(parent, name)?;
    let id = tx.create(parent, dir);
    let seq = match old {
        Some(old) => tx.rewrite(parent, name, Some(id), old.own)?,
        None => tx.write_ghost(parent, name, Some(id), 0)?,
    };
    tx.node(id).touch(seq);
    Ok(id)
}

fn raise(tx: &mut Tx<'_>, path: &RelPath, s: Option<&Arc<Vector>>, bound: &Vector, gaps: bool) -> Result<()> {
    let (near, used) = tx.nearest(path.as_bytes())?;
    let sub = tx.sub(near);
    let new_s = s.filter(|s| !s.within(&sub));
    if new_s.is_none() && !gaps && bound.within(&tx.node(near).bound) {
        return Ok(());
    }
    let id = if used == path.as_bytes().len() { near } else { ensure_node(tx, path.as_bytes())? };
    if let Some(s) = new_s {
        let joined = tx.node(id).s.joined(s);
        tx.set_s(id, joined);
    }
    tx.raise(id, bound);
    let node = tx.node(id);
    let (parent, ghost) = (node.parent, node.dir.is_none());
    let seq = tx.touch(id);
    if gaps {
        tx.node(id).born = seq;
    }
    if ghost {
        // The journal goes by the rows of ghosts; a directory is heard of by its node.
        tx.renumber(parent, last(path.as_bytes()), seq)?;
    }
    Ok(())
}

/// Records a hash, if the row is the one that it was read for.
pub(super) fn learn(tx: &mut Tx<'_>, learned: &Learned) -> Result<()> {
    let Learned { path, expect: (signature, hash), .. } = learned;
    let Some((parent, name)) = slot(tx, path)? else { return Ok(()) };
    let stored = tx.stored(parent, name)?;
    let same = stored.and_then(|stored| stored.live).is_some_and(|(row, recorded)| {
        let same_hash = matches!(row.object.content, Content::File { hash: known, .. } if known == *hash);
        same_hash && recorded == *signature
    });
    if same { refresh(tx, path, &learned.signature, Some(learned.hash), None) } else { Ok(()) }
}

fn refresh(tx: &mut Tx<'_>, path: &RelPath, sig: &Signature, hash: Option<Hash>, mtime_ns: Option<i64>) -> Result<()> {
    let Some((parent, name)) = slot(tx, path)? else {
        return Ok(());
    };
    let Some(old) = tx.stored(parent, name)? else {
        return Ok(());
    };
    let Some((row, old_sig)) = &old.live else {
        return Ok(());
    };
    let mut new = row.clone();
    new.object.attrs = followed(&row.object.attrs, &old_sig.attrs(), &sig.attrs());
    match &mut new.object.content {
        Content::Dir => new.object.attrs.mtime_ns = mtime_ns.unwrap_or(row.object.attrs.mtime_ns),
        Content::File { hash: known, .. } => *known = hash.or(*known),
        Content::Symlink(_) => {}
    }
    if !heard_of(tx.mask(), row, &new) {
        return refresh_silently(tx, (parent, name), sig, &new);
    }
    let node = enter(tx, parent, path, Some(&old))?;
    let seq = tx.write_row((parent, name), (&new, sig), (node, old.own))?;
    if let Some(id) = node {
        let node = tx.node(id);
        if new.object.kind() == Kind::Dir {
            node.dir = Some(new.object.clone());
        }
        node.touch(seq);
    }
    if parent != ABOVE {
        let (gone, come) = (tx.leaf_share(name, &row.object), tx.leaf_share(name, &new.object));
        let up = tx.node(parent);
        up.digest = up.digest.plus(come).minus(gone);
    }
    Ok(())
}

/// Attributes that stood as the signature said follow it; one that differed (it is not replicated, or the file
/// system cannot hold it) stays.
fn followed(have: &Attrs, said: &Attrs, says: &Attrs) -> Attrs {
    Attrs {
        mode: if have.mode == said.mode { says.mode } else { have.mode },
        uid: if have.uid == said.uid { says.uid } else { have.uid },
        gid: if have.gid == said.gid { says.gid } else { have.gid },
        mtime_ns: if have.mtime_ns == said.mtime_ns { says.mtime_ns } else { have.mtime_ns },
    }
}

/// Is the difference something that other replicas are to hear of?
fn heard_of(mask: AttrMask, old: &Row, new: &Row) -> bool {
    let (a, b) = (&old.object, &new.object);
    a.content != b.content || !mask.equal(a.kind(), &a.attrs, &b.attrs) || (mask.times && a.attrs.mtime_ns != b.attrs.mtime_ns)
}

/// Renews what only this replica looks at: no sequence number, no share in a digest.
fn refresh_silently(tx: &Tx<'_>, (parent, name): Slot<'_>, sig: &Signature, row: &Row) -> Result<()> {
    let mut signature = encode::Blob::new();
    encode::signature(&mut signature, sig);
    let attrs = encode::overrides(&row.object, sig);
    tx.conn
        .prepare_cached("UPDATE entry SET sig = ?3, attrs = ?4 WHERE parent = ?1 AND name = ?2")
        .and_then(|mut update| update.execute(params![parent, name, &signature[..], attrs.as_deref()]))
        .attempt("refresh a path")?;
    Ok(())
}
