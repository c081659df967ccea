//! The directories of a write transaction, in memory; digests and sequence numbers are handed upward once, at its end.

use super::entries::Stored;
use super::error::{Attempt, Result, StateError};
use super::tx::Tx;
use crate::entry::{AttrMask, Content, Digest, Kind, Object};
use crate::knowledge::Vector;
use rusqlite::params;
use std::sync::Arc;

/// The root directory's node.
pub(super) const ROOT: i64 = 1;
/// What stands for the parent of the root.
pub(super) const ABOVE: i64 = 0;

/// A row of the node table with what this transaction does to it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: i64,
    /// From the root; empty for the root.
    pub(super) path: Box<[u8]>,
    pub(super) depth: usize,
    /// The object, if the path is a live directory.
    pub(super) dir: Option<Object>,
    /// Its share in the parent's digest when it was loaded.
    pub(super) before: Digest,
    pub(super) s: Vector,
    pub(super) bound: Vector,
    pub(super) digest: Digest,
    pub(super) seq: i64,
    /// What was below before this sequence number may have gone without ghosts.
    pub(super) born: i64,
    /// No child has a greater name; `None`: not known.
    pub(super) highest: Option<Vec<u8>>,
    /// Sub, and the generation in which it was computed.
    pub(super) sub: Option<(u64, Arc<Vector>)>,
    pub(super) fresh: bool,
    pub(super) dirty: bool,
}

impl Node {
    pub(super) fn touch(&mut self, seq: i64) {
        self.dirty |= self.seq < seq;
        self.seq = self.seq.max(seq);
    }

    pub(super) fn name(&self) -> &[u8] {
        last(&self.path)
    }
}

/// The last component of a path's bytes.
pub(super) fn last(path: &[u8]) -> &[u8] {
    path.iter().rposition(|b| *b == b'/').map_or(path, |at| &path[at + 1..])
}

/// A path's bytes without the last component; empty for the root's children.
pub(super) fn above(path: &[u8]) -> &[u8] {
    path.iter().rposition(|b| *b == b'/').map_or(&[], |at| &path[..at])
}

impl Tx<'_> {
    pub(super) fn node(&mut self, id: i64) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node is loaded before it is used")
    }

    /// The deepest node on the way to `dir`, and the number of path bytes that lead to it.
    pub(super) fn nearest(&mut self, dir: &[u8]) -> Result<(i64, usize)> {
        if dir.is_empty() {
            if !self.nodes.contains_key(&ROOT) {
                let row = self.lookup(ABOVE, b"")?.ok_or(StateError::Content { what: "a state without root" })?;
                self.enter(ROOT, ABOVE, b"", &row)?;
            }
            return Ok((ROOT, 0));
        }
        if self.recent.0 == dir && self.nodes.contains_key(&self.recent.1) {
            return Ok((self.recent.1, dir.len()));
        }
        if let Some(id) = self.paths.get(dir) {
            let id = *id;
            self.remember(dir, id);
            return Ok((id, dir.len()));
        }
        let up = above(dir);
        let (parent, used) = self.nearest(up)?;
        if used != up.len() {
            return Ok((parent, used));
        }
        match self.stored(parent, last(dir))? {
            Some(row) if row.node.is_some() => {
                let id = row.node.expect("just matched");
                self.enter(id, parent, dir, &row)?;
                self.remember(dir, id);
                Ok((id, dir.len()))
            }
            _ => Ok((parent, used)),
        }
    }

    fn remember(&mut self, dir: &[u8], id: i64) {
        self.recent.0.clear();
        self.recent.0.extend_from_slice(dir);
        self.recent.1 = id;
    }

    /// The node of a directory, if it has one.
    pub(super) fn exact(&mut self, dir: &[u8]) -> Result<Option<i64>> {
        let (id, used) = self.nearest(dir)?;
        Ok((used == dir.len()).then_some(id))
    }

    /// Loads the node of a row unless that was done.
    pub(super) fn enter(&mut self, id: i64, parent: i64, path: &[u8], row: &Stored) -> Result<()> {
        if self.nodes.contains_key(&id) {
            return Ok(());
        }
        let columns: (Option<Vec<u8>>, Vec<u8>, [u8; 16], i64, i64) = self
            .conn
            .prepare_cached("SELECT s, bound, digest, seq, born FROM node WHERE id = ?1")
            .and_then(|mut query| {
                query.query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
            })
            .attempt("read a directory")?;
        let dir = row.live.as_ref().filter(|(row, _)| row.object.kind() == Kind::Dir).map(|(row, _)| row.object.clone());
        let digest = Digest(u128::from_le_bytes(columns.2));
        let before = self.share(path, dir.as_ref(), digest);
        let names = self.names.read().expect("no panic while names are held");
        let node = Node {
            parent,
            path: path.into(),
            depth: depth(path),
            dir,
            before,
            s: columns.0.map_or(Ok(Vector::new()), |s| names.decode(&s))?,
            bound: names.decode(&columns.1)?,
            digest,
            seq: columns.3,
            born: columns.4,
            highest: None,
            sub: None,
            fresh: false,
            dirty: false,
        };
        drop(names);
        self.nodes.insert(id, node);
        self.paths.insert(path.into(), id);
        Ok(())
    }

    /// A new node at a path; M starts as that of its nearest ancestor (T5).
    pub(super) fn create(&mut self, parent: i64, path: &[u8]) -> i64 {
        let id = self.next_node;
        self.next_node += 1;
        let bound = self.node(parent).bound.clone();
        let born = self.coming();
        let node = Node {
            parent,
            path: path.into(),
            depth: depth(path),
            dir: None,
            before: Digest::default(),
            s: Vector::new(),
            bound,
            digest: Digest::default(),
            seq: 0,
            born,
            highest: Some(Vec::new()),
            sub: None,
            fresh: true,
            dirty: true,
        };
        self.nodes.insert(id, node);
        self.paths.insert(path.into(), id);
        id
    }

    /// Raises M of a node and of all above it. M of a directory covers that of every one below it, so the first that
    /// covers `bound` already ends the walk.
    pub(super) fn raise(&mut self, mut id: i64, bound: &Vector) {
        while id != ABOVE {
            let node = self.node(id);
            if !node.bound.join(bound) {
                break;
            }
            node.dirty = true;
            id = node.parent;
        }
    }

    /// S of a node, loaded or not.
    pub(super) fn s_of(&self, id: i64) -> Result<Vector> {
        if let Some(node) = self.nodes.get(&id) {
            return Ok(node.s.clone());
        }
        let s: Option<Vec<u8>> = self
            .conn
            .prepare_cached("SELECT s FROM node WHERE id = ?1")
            .and_then(|mut query| query.query_row([id], |row| row.get(0)))
            .attempt("read a directory")?;
        let names = self.names.read().expect("no panic while names are held");
        s.map_or(Ok(Vector::new()), |s| names.decode(&s))
    }

    /// Drops a node that has no rows below it.
    pub(super) fn drop_node(&mut self, id: i64) -> Result<()> {
        let node = self.nodes.remove(&id).expect("a node is loaded before it is dropped");
        self.paths.remove(&node.path);
        if !node.fresh {
            self.delete_node(id)?;
        }
        let parent = self.node(node.parent);
        parent.digest = parent.digest.minus(node.before);
        parent.dirty = true;
        Ok(())
    }

    /// Drops a node whose parent's digest is reckoned elsewhere.
    pub(super) fn discard_node(&mut self, id: i64) -> Result<()> {
        let Some(node) = self.nodes.remove(&id) else {
            return self.delete_node(id);
        };
        self.paths.remove(&node.path);
        if node.fresh { Ok(()) } else { self.delete_node(id) }
    }

    fn delete_node(&self, id: i64) -> Result<()> {
        self.conn
            .prepare_cached("DELETE FROM node WHERE id = ?1")
            .and_then(|mut delete| delete.execute([id]))
            .attempt("drop a directory")?;
        Ok(())
    }

    /// Does a row stand below a node?
    pub(super) fn has_rows(&self, id: i64) -> Result<bool> {
        self.conn
            .prepare_cached("SELECT 1 FROM entry WHERE parent = ?1 LIMIT 1")
            .and_then(|mut query| query.exists([id]))
            .attempt("look below a directory")
    }

    /// Does a live row stand below a node?
    pub(super) fn has_live(&self, id: i64) -> Result<bool> {
        self.conn
            .prepare_cached("SELECT 1 FROM entry WHERE parent = ?1 AND kind <> 0 LIMIT 1")
            .and_then(|mut query| query.exists([id]))
            .attempt("look below a directory")
    }

    fn share(&self, path: &[u8], dir: Option<&Object>, digest: Digest) -> Digest {
        match dir {
            Some(object) if !path.is_empty() => Digest::of_child(last(path), object, digest),
            _ => Digest::default(),
        }
    }

    /// The share of a leaf in its directory's digest; that of a directory is reckoned when the transaction ends.
    pub(super) fn leaf_share(&self, name: &[u8], object: &Object) -> Digest {
        match object.content {
            Content::Dir => Digest::default(),
            _ => Digest::of_child(name, object, Digest::default()),
        }
    }

    pub(super) fn mask(&self) -> AttrMask {
        self.mask
    }

    /// From the deepest node up: every node is final before its parent is reckoned.
    pub(super) fn propagate(&mut self) -> Result<()> {
        let mut order: Vec<(usize, i64)> = self.nodes.iter().map(|(id, node)| (node.depth, *id)).collect();
        order.sort_unstable_by(|a, b| b.cmp(a));
        for (_, id) in order {
            let node = &self.nodes[&id];
            if !node.dirty {
                continue;
            }
            let after = self.share(&node.path, node.dir.as_ref(), node.digest);
            let (parent, before, seq) = (node.parent, node.before, node.seq);
            self.write_node(id)?;
            if parent != ABOVE {
                let up = self.node(parent);
                if after != before {
                    up.digest = up.digest.plus(after).minus(before);
                    up.dirty = true;
                }
                up.touch(seq);
            }
        }
        Ok(())
    }

    fn write_node(&mut self, id: i64) -> Result<()> {
        let node = &self.nodes[&id];
        let (s, bound) = (self.encode(node.s.iter())?, self.encode(node.bound.iter())?);
        let node = &self.nodes[&id];
        let s = (!s.is_empty()).then_some(&s[..]);
        let digest = node.digest.0.to_le_bytes();
        if node.fresh {
            self.conn
                .prepare_cached(
                    "INSERT INTO node (id, parent, name, s, bound, digest, seq, born) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )
                .and_then(|mut insert| {
                    insert.execute(params![id, node.parent, node.name(), s, &bound[..], digest, node.seq, node.born])
                })
        } else {
            self.conn
                .prepare_cached("UPDATE node SET s = ?2, bound = ?3, digest = ?4, seq = ?5, born = ?6 WHERE id = ?1")
                .and_then(|mut update| update.execute(params![id, s, &bound[..], digest, node.seq, node.born]))
        }
        .attempt("record a directory")?;
        Ok(())
    }
}

fn depth(path: &[u8]) -> usize {
    if path.is_empty() { 0 } else { 1 + path.iter().filter(|b| **b == b'/').count() }
}
