//! A write transaction: nodes in memory; digests and sequence numbers are handed upward once, at its end.

use super::encode::{self, Blob, INLINE_EVENTS};
use super::error::{Attempt, Result, StateError};
use super::names::{Added, Names, Purpose, intern_replica, intern_vector};
use super::{Clock, Writer};
use crate::entry::{AttrMask, Content, Digest, Kind, Object, Signature};
use crate::knowledge::{Event, ReplicaId, Row, Vector};
use crate::path::RelPath;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};
use std::collections::HashMap;
use std::sync::{Arc, RwLock};

/// The root directory's node.
pub(super) const ROOT: i64 = 1;
/// What stands for the parent of the root.
pub(super) const ABOVE: i64 = 0;

const INSERT: &str = "INSERT INTO entry (parent, name, kind, node, seq, m, c, o, sig, content, attrs) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
     ON CONFLICT (parent, name) DO UPDATE SET kind = ?3, node = ?4, seq = ?5, m = ?6, c = ?7, o = ?8, sig = ?9, \
     content = ?10, attrs = ?11";

/// A row of the entry table, decoded.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) node: Option<i64>,
    pub(super) own: i64,
    /// `None` for a ghost.
    pub(super) live: Option<(Row, Signature)>,
}

impl Stored {
    pub(super) fn kind(&self) -> Option<Kind> {
        self.live.as_ref().map(|(row, _)| row.object.kind())
    }
}

/// A row of the node table with what this transaction does to it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: i64,
    /// From the root; empty for the root.
    pub(super) path: Box<[u8]>,
    depth: usize,
    /// The object, if the path is a live directory.
    pub(super) dir: Option<Object>,
    /// Its share in the parent's digest when it was loaded.
    pub(super) before: Digest,
    pub(super) s: Vector,
    pub(super) bound: Vector,
    pub(super) digest: Digest,
    pub(super) seq: i64,
    /// No child has a greater name; `None`: not known.
    highest: Option<Vec<u8>>,
    /// Sub, and the generation in which it was computed.
    sub: Option<(u64, Arc<Vector>)>,
    fresh: bool,
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
    path.iter()
        .rposition(|b| *b == b'/')
        .map_or(path, |at| &path[at + 1..])
}

/// A path's bytes without the last component; empty for the root's children.
pub(super) fn above(path: &[u8]) -> &[u8] {
    path.iter()
        .rposition(|b| *b == b'/')
        .map_or(&[], |at| &path[..at])
}

/// A write transaction.
pub(super) struct Tx<'c> {
    pub(super) conn: &'c Connection,
    pub(super) id: ReplicaId,
    /// Highest own counter handed out.
    made: u64,
    mask: AttrMask,
    names: &'c RwLock<Names>,
    added: Added,
    retired: Option<(Vec<i64>, bool)>,
    committed: bool,
    pub(super) clock: Clock,
    clock_before: Clock,
    next_node: i64,
    pub(super) nodes: HashMap<i64, Node>,
    paths: HashMap<Box<[u8]>, i64>,
    /// The directory looked up last: changes come sorted.
    recent: (Vec<u8>, i64),
    /// Grows whenever some Sub may have.
    generation: u64,
    /// The knowledge interned last: one pull teaches many rows the same.
    taught: Option<(Arc<Vector>, i64)>,
    insert: CachedStatement<'c>,
}

impl<'c> Tx<'c> {
    pub(super) fn begin(
        writer: &'c Writer,
        names: &'c RwLock<Names>,
        id: ReplicaId,
        made: u64,
        mask: AttrMask,
    ) -> Result<Tx<'c>> {
        let insert = writer
            .conn
            .prepare_cached(INSERT)
            .attempt("prepare to record paths")?;
        let replicas = names
            .read()
            .expect("no panic while names are held")
            .replicas();
        Ok(Tx {
            conn: &writer.conn,
            id,
            made,
            mask,
            names,
            added: Added {
                replicas,
                vectors: Vec::new(),
            },
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
        })
    }

    /// Writes what was collected. The SQL transaction is the caller's to commit; afterwards [`Tx::done`] keeps
    /// what was interned.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.propagate()?;
        if self.clock != self.clock_before {
            let clock = &self.clock;
            self.conn
                .prepare_cached(
                    "UPDATE clock SET seq = ?1, counter = ?2, reserved = ?3, floor = ?4, live = ?5",
                )
                .and_then(|mut update| {
                    update.execute(params![
                        clock.seq,
                        clock.counter as i64,
                        clock.reserved as i64,
                        clock.floor,
                        clock.live
                    ])
                })
                .attempt("record the clock")?;
        }
        Ok(())
    }

    /// The SQL transaction was committed.
    pub(super) fn done(mut self) -> (Clock, i64) {
        self.committed = true;
        if let Some((gone, swept)) = self.retired.take() {
            self.names
                .write()
                .expect("no panic while names are held")
                .retire(gone, swept);
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

    // ---- nodes ----

    pub(super) fn node(&mut self, id: i64) -> &mut Node {
        self.nodes
            .get_mut(&id)
            .expect("a node is loaded before it is used")
    }

    /// The deepest node on the way to `dir`, and the number of path bytes that lead to it.
    pub(super) fn nearest(&mut self, dir: &[u8]) -> Result<(i64, usize)> {
        if dir.is_empty() {
            if !self.nodes.contains_key(&ROOT) {
                let row = self.lookup(ABOVE, b"")?.ok_or(StateError::Content {
                    what: "a state without root",
                })?;
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
        let columns: (Option<Vec<u8>>, Vec<u8>, [u8; 16], i64) = self
            .conn
            .prepare_cached("SELECT s, bound, digest, seq FROM node WHERE id = ?1")
            .and_then(|mut query| {
                query.query_row([id], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })
            })
            .attempt("read a directory")?;
        let dir = row
            .live
            .as_ref()
            .filter(|(row, _)| row.object.kind() == Kind::Dir)
            .map(|(row, _)| row.object.clone());
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

    /// Drops a node that has no rows below it.
    pub(super) fn drop_node(&mut self, id: i64) -> Result<()> {
        let node = self
            .nodes
            .remove(&id)
            .expect("a node is loaded before it is dropped");
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
        if node.fresh {
            Ok(())
        } else {
            self.delete_node(id)
        }
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
            Some(object) if !path.is_empty() => {
                Digest::of_child(last(path), object, digest, self.mask)
            }
            _ => Digest::default(),
        }
    }

    /// The share of a leaf in its directory's digest; that of a directory is reckoned when the transaction ends.
    pub(super) fn leaf_share(&self, name: &[u8], object: &Object) -> Digest {
        match object.content {
            Content::Dir => Digest::default(),
            _ => Digest::of_child(name, object, Digest::default(), self.mask),
        }
    }

    pub(super) fn mask(&self) -> AttrMask {
        self.mask
    }

    /// From the deepest node up: every node is final before its parent is reckoned.
    fn propagate(&mut self) -> Result<()> {
        let mut order: Vec<(usize, i64)> = self
            .nodes
            .iter()
            .map(|(id, node)| (node.depth, *id))
            .collect();
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
                    "INSERT INTO node (id, parent, name, s, bound, digest, seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )
                .and_then(|mut insert| {
                    insert.execute(params![id, node.parent, node.name(), s, &bound[..], digest, node.seq])
                })
        } else {
            self.conn
                .prepare_cached("UPDATE node SET s = ?2, bound = ?3, digest = ?4, seq = ?5 WHERE id = ?1")
                .and_then(|mut update| update.execute(params![id, s, &bound[..], digest, node.seq]))
        }
        .attempt("record a directory")?;
        Ok(())
    }

    // ---- knowledge ----

    /// Sub of a node's path. [`ABOVE`] stands for the own component alone.
    pub(super) fn sub(&mut self, id: i64) -> Arc<Vector> {
        if id == ABOVE {
            let own = Event {
                replica: self.id,
                counter: self.clock.counter,
            };
            return Arc::new(if own.counter == 0 {
                Vector::new()
            } else {
                own.into()
            });
        }
        let node = &self.nodes[&id];
        if let Some((generation, sub)) = &node.sub
            && *generation == self.generation
        {
            return sub.clone();
        }
        let above = self.sub(node.parent);
        let node = &self.nodes[&id];
        let sub = if node.s.within(&above) {
            above
        } else {
            Arc::new(above.joined(&node.s))
        };
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
            return Err(invariant(
                path,
                "an event of this replica that it never made",
            ));
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
    pub(super) fn learned(
        &mut self,
        own: i64,
        learn: Option<&Arc<Vector>>,
        sub: &Vector,
    ) -> Result<i64> {
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
        intern_vector(
            self.conn,
            &mut names,
            &mut self.added,
            (purpose, vector, &blob),
        )
    }

    /// The number that stands for a replica in the rows.
    pub(super) fn index(&self, id: ReplicaId) -> Result<u64> {
        let known = self
            .names
            .read()
            .expect("no panic while names are held")
            .index(id);
        match known {
            Some(ix) => Ok(ix),
            None => intern_replica(
                self.conn,
                &mut self.names.write().expect("no panic while names are held"),
                id,
            ),
        }
    }

    fn encode(&self, events: impl Iterator<Item = Event>) -> Result<Blob> {
        let mut blob = Blob::new();
        for event in events {
            encode::put_uint(&mut blob, self.index(event.replica)?);
            encode::put_uint(&mut blob, event.counter);
        }
        Ok(blob)
    }

    /// Events for a row: in full where they are few, else a reference to an interned set.
    fn events(&mut self, count: usize, events: impl Iterator<Item = Event>) -> Result<Blob> {
        if count <= INLINE_EVENTS {
            return self.encode(events);
        }
        let set: Arc<Vector> = Arc::new(events.collect());
        Ok(encode::refer(self.intern(Purpose::Events, &set)?))
    }

    pub(super) fn names(&self) -> &'c RwLock<Names> {
        self.names
    }

    // ---- rows ----

    /// Reads a row. A name beyond the highest of its directory costs no query.
    pub(super) fn stored(&mut self, parent: i64, name: &[u8]) -> Result<Option<Stored>> {
        if let Some(highest) = self
            .nodes
            .get(&parent)
            .and_then(|node| node.highest.as_ref())
            && name > highest.as_slice()
        {
            return Ok(None);
        }
        let row = self.lookup(parent, name)?;
        if row.is_none()
            && parent != ABOVE
            && self
                .nodes
                .get(&parent)
                .is_some_and(|node| node.highest.is_none())
        {
            // A row is about to be added; more may follow in order.
            let highest: Option<Vec<u8>> = self
                .conn
                .prepare_cached("SELECT max(name) FROM entry WHERE parent = ?1")
                .and_then(|mut query| query.query_row([parent], |row| row.get(0)))
                .attempt("read the last name of a directory")?;
            self.node(parent).highest = Some(highest.unwrap_or_default());
        }
        Ok(row)
    }

    fn lookup(&self, parent: i64, name: &[u8]) -> Result<Option<Stored>> {
        let names = self.names;
        let mut query = self
            .conn
            .prepare_cached("SELECT kind, node, o, m, c, sig, content, attrs FROM entry WHERE parent = ?1 AND name = ?2")
            .attempt("read a path")?;
        query
            .query_row(params![parent, name], |row| {
                Ok(stored_of(
                    row,
                    &names.read().expect("no panic while names are held"),
                ))
            })
            .optional()
            .attempt("read a path")?
            .transpose()
    }

    fn next_seq(&mut self) -> i64 {
        self.clock.seq += 1;
        self.clock.seq
    }

    /// Writes a live row; returns its sequence number.
    pub(super) fn write_row(
        &mut self,
        (parent, name): (i64, &[u8]),
        (row, sig): (&Row, &Signature),
        (node, own): (Option<i64>, i64),
    ) -> Result<i64> {
        let m = self.events(row.m.len(), row.m.iter())?;
        let same = row.c.iter().eq(row.m.iter());
        let c = if same {
            None
        } else {
            Some(self.events(row.c.iter().count(), row.c.iter())?)
        };
        let mut signature = Blob::new();
        encode::signature(&mut signature, sig);
        let attrs = encode::overrides(&row.object, sig);
        let seq = self.next_seq();
        self.insert
            .execute(params![
                parent,
                name,
                encode::kind_number(row.object.kind()),
                node,
                seq,
                &m[..],
                c.as_deref(),
                own,
                &signature[..],
                encode::content_column(&row.object),
                attrs.as_deref(),
            ])
            .attempt("record a path")?;
        self.written(parent, name, seq);
        Ok(seq)
    }

    /// Writes a ghost; returns its sequence number.
    pub(super) fn write_ghost(
        &mut self,
        parent: i64,
        name: &[u8],
        node: Option<i64>,
        own: i64,
    ) -> Result<i64> {
        let seq = self.next_seq();
        let none: Option<&[u8]> = None;
        self.insert
            .execute(params![
                parent, name, 0, node, seq, none, none, own, none, none, none
            ])
            .attempt("record an absent path")?;
        self.written(parent, name, seq);
        Ok(seq)
    }

    /// Gives an existing row another node and o; returns its sequence number.
    pub(super) fn rewrite(
        &mut self,
        parent: i64,
        name: &[u8],
        node: Option<i64>,
        own: i64,
    ) -> Result<i64> {
        let seq = self.next_seq();
        self.conn
            .prepare_cached(
                "UPDATE entry SET node = ?3, o = ?4, seq = ?5 WHERE parent = ?1 AND name = ?2",
            )
            .and_then(|mut update| update.execute(params![parent, name, node, own, seq]))
            .attempt("record what a path learned")?;
        self.written(parent, name, seq);
        Ok(seq)
    }

    /// A change without a row of its own takes a number too, so that its directories are heard of.
    pub(super) fn touch(&mut self, node: i64) -> i64 {
        let seq = self.next_seq();
        self.node(node).touch(seq);
        seq
    }

    /// Gives a row the number that its node took.
    pub(super) fn renumber(&self, parent: i64, name: &[u8], seq: i64) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE entry SET seq = ?3 WHERE parent = ?1 AND name = ?2")
            .and_then(|mut update| update.execute(params![parent, name, seq]))
            .attempt("number a path")
            .map(|_| ())
    }

    fn written(&mut self, parent: i64, name: &[u8], seq: i64) {
        if let Some(node) = self.nodes.get_mut(&parent) {
            node.touch(seq);
            if let Some(highest) = &mut node.highest
                && name > highest.as_slice()
            {
                highest.clear();
                highest.extend_from_slice(name);
            }
        }
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        if !self.committed {
            self.names
                .write()
                .expect("no panic while names are held")
                .undo(&self.added);
        }
    }
}

/// A refused change.
pub(super) fn invariant(path: &RelPath, rule: &'static str) -> StateError {
    StateError::Invariant {
        path: path.clone(),
        rule,
    }
}

fn depth(path: &[u8]) -> usize {
    if path.is_empty() {
        0
    } else {
        1 + path.iter().filter(|b| **b == b'/').count()
    }
}

/// Decodes the columns kind, node, o, m, c, sig, content, attrs.
pub(super) fn stored_of(row: &rusqlite::Row<'_>, names: &Names) -> Result<Stored> {
    let read = |error| StateError::Sqlite {
        action: "read a path",
        source: error,
    };
    let kind = encode::kind_of(row.get(0).map_err(read)?)?;
    let live = match kind {
        None => None,
        Some(kind) => Some(live_of(row, 3, kind, names)?),
    };
    Ok(Stored {
        node: row.get(1).map_err(read)?,
        own: row.get(2).map_err(read)?,
        live,
    })
}

/// Decodes the columns m, c, sig, content, attrs from the column `at` on.
pub(super) fn live_of(
    row: &rusqlite::Row<'_>,
    at: usize,
    kind: Kind,
    names: &Names,
) -> Result<(Row, Signature)> {
    let blob = |column: usize| {
        let value = row
            .get_ref(at + column)
            .map_err(|source| StateError::Sqlite {
                action: "read a path",
                source,
            })?;
        value.as_blob_or_null().map_err(|_| StateError::Content {
            what: "a column of another type",
        })
    };
    let sig = encode::signature_column(blob(2)?.unwrap_or_default())?;
    let object = encode::object(kind, &sig, blob(3)?, blob(4)?)?;
    let m = names.decode_events(blob(0)?.unwrap_or_default())?;
    let c = match blob(1)? {
        None => m.iter().collect(),
        Some(c) => names.decode_events(c)?.iter().collect(),
    };
    Ok((Row { object, m, c }, sig))
}
