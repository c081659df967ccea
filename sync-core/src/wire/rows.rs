//! Vectors and rows. The same few vectors stand in almost all rows of a directory: each message that has rows begins
//! with a table of replicas and one of vectors, and rows name them by their number.

use super::code::{Code, MAX_LIST, MAX_SIZE, Reader, put_bytes, put_number};
use super::error::{Fault, WireError};
use crate::entry::{Attrs, Content, Hash, Kind, Object};
use crate::knowledge::{Creation, Event, ReplicaId, Row, Tree, Vector};
use crate::path::Name;
use crate::store::Child;
use std::collections::HashMap;
use std::sync::Arc;

/// Most replicas in a vector. A row with all its vectors at this limit still fits into a message.
pub const MAX_REPLICAS: usize = 1024;
/// Events in the vectors that rows of one message hold as their own. Without a limit 64 Ki rows that all name the
/// longest vector would take a GiB.
pub(super) const MAX_EVENTS: usize = 1 << 17;
/// Longest target of a link; Linux takes 4,095 bytes.
pub const MAX_TARGET: usize = 4096;
/// Permission bits.
const MODE: u32 = 0o7777;
/// No owner and no group: to the system it means "leave as it is".
const NOBODY: u32 = u32::MAX;

const KIND: u8 = 0b11;
const OWN: u8 = 1 << 2;
const TREE: u8 = 1 << 3;
const HASHED: u8 = 1 << 4;
const BORN: u8 = 1 << 5;
const ALIKE: u8 = 1 << 6;

/// A vector on its own, outside of tables: by ascending replica.
impl Code for Vector {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, self.iter().filter(|event| event.counter > 0).count() as u64);
        for event in self.iter().filter(|event| event.counter > 0) {
            event.replica.put(out);
            put_number(out, event.counter);
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Vector, WireError> {
        events(reader, ReplicaId::get)
    }
}

fn events<'a>(
    reader: &mut Reader<'a>,
    mut replica: impl FnMut(&mut Reader<'a>) -> Result<ReplicaId, WireError>,
) -> Result<Vector, WireError> {
    let count = reader.count(MAX_REPLICAS)?;
    let mut vector = Vector::new();
    let mut before = None;
    for _ in 0..count {
        let replica = replica(reader)?;
        reader.check(before.is_none_or(|before| before < replica), Fault::Order)?;
        before = Some(replica);
        let counter = reader.at_most(MAX_SIZE)?;
        reader.check(counter > 0, Fault::Contradiction("a counter is 0"))?;
        vector.add(Event { replica, counter });
    }
    Ok(vector)
}

/// A message with tables, being written.
#[derive(Default)]
pub(super) struct Writer {
    replicas: HashMap<ReplicaId, u64>,
    replica_bytes: Vec<u8>,
    vectors: HashMap<Vector, u64>,
    vector_bytes: Vec<u8>,
    last: Attrs,
    pub(super) body: Vec<u8>,
}

impl Writer {
    /// The tables, then what refers to them.
    pub(super) fn finish(self, out: &mut Vec<u8>) {
        put_number(out, self.replicas.len() as u64);
        out.extend(self.replica_bytes);
        put_number(out, self.vectors.len() as u64);
        out.extend(self.vector_bytes);
        out.extend(self.body);
    }

    pub(super) fn vector(&mut self, vector: &Vector) {
        let number = match self.vectors.get(vector) {
            Some(number) => *number,
            None => self.new_vector(vector),
        };
        put_number(&mut self.body, number);
    }

    fn new_vector(&mut self, vector: &Vector) -> u64 {
        let number = self.vectors.len() as u64;
        let events = || vector.iter().filter(|event| event.counter > 0);
        put_number(&mut self.vector_bytes, events().count() as u64);
        for event in events() {
            let next = self.replicas.len() as u64;
            let bytes = &mut self.replica_bytes;
            let replica = *self.replicas.entry(event.replica).or_insert_with(|| {
                event.replica.put(bytes);
                next
            });
            put_number(&mut self.vector_bytes, replica);
            put_number(&mut self.vector_bytes, event.counter);
        }
        self.vectors.insert(vector.clone(), number);
        number
    }

    pub(super) fn child(&mut self, child: &Child) {
        let created: Option<Vector> = child.row.as_ref().map(|row| row.c.iter().collect());
        let mut flags = 0;
        let mut set = |flag: u8, on: bool| flags |= if on { flag } else { 0 };
        set(OWN, child.own.is_some());
        set(TREE, child.tree.is_some());
        if let Some(row) = &child.row {
            set(number(row.object.kind()), true);
            set(HASHED, matches!(row.object.content, Content::File { hash: Some(_), .. }));
            set(BORN, created.as_ref() == Some(&row.m));
            set(ALIKE, owned(&row.object.attrs) == owned(&self.last));
        }
        self.body.push(flags);
        child.name.put(&mut self.body);
        if let (Some(row), Some(created)) = (&child.row, &created) {
            self.object(&row.object, flags);
            self.vector(&row.m);
            if flags & BORN == 0 {
                self.vector(created);
            }
        }
        if let Some(own) = &child.own {
            self.vector(own);
        }
        if let Some(tree) = &child.tree {
            self.vector(&tree.s);
            self.vector(&tree.bound);
            tree.digest.put(&mut self.body);
        }
    }

    fn object(&mut self, object: &Object, flags: u8) {
        match &object.content {
            Content::Dir => {}
            Content::File { size, hash } => {
                put_number(&mut self.body, *size);
                if let Some(hash) = hash {
                    hash.put(&mut self.body);
                }
            }
            Content::Symlink(target) => put_bytes(&mut self.body, target),
        }
        let attrs = &object.attrs;
        if flags & ALIKE == 0 {
            [attrs.mode & MODE, attrs.uid, attrs.gid].iter().for_each(|value| value.put(&mut self.body));
        }
        attrs.mtime_ns.wrapping_sub(self.last.mtime_ns).put(&mut self.body);
        self.last = *attrs;
    }
}

/// The lowest bits of the flags; 0 is a ghost.
fn number(kind: Kind) -> u8 {
    match kind {
        Kind::Dir => 1,
        Kind::File => 2,
        Kind::Symlink => 3,
    }
}

fn owned(attrs: &Attrs) -> (u32, u32, u32) {
    (attrs.mode & MODE, attrs.uid, attrs.gid)
}

/// The tables of a message, being read.
pub(super) struct Tables {
    vectors: Vec<Arc<Vector>>,
    events_left: usize,
    last: Attrs,
}

impl Tables {
    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Tables, WireError> {
        reader.field = "table of replicas";
        let replicas: Vec<ReplicaId> = Vec::get(reader)?;
        reader.field = "table of vectors";
        let count = reader.count(MAX_LIST)?;
        let mut vectors = Vec::new();
        let mut events_left = MAX_EVENTS;
        for _ in 0..count {
            let vector = events(reader, |reader| {
                let number = reader.number()?;
                let replica = usize::try_from(number).ok().and_then(|at| replicas.get(at));
                replica.copied().ok_or_else(|| reader.error(Fault::Unknown(number)))
            })?;
            events_left = charge(reader, events_left, &vector)?;
            vectors.push(Arc::new(vector));
        }
        Ok(Tables { vectors, events_left: MAX_EVENTS, last: Attrs::default() })
    }

    pub(super) fn shared(&self, reader: &mut Reader<'_>) -> Result<Arc<Vector>, WireError> {
        let number = reader.number()?;
        let vector = usize::try_from(number).ok().and_then(|at| self.vectors.get(at));
        vector.cloned().ok_or_else(|| reader.error(Fault::Unknown(number)))
    }

    pub(super) fn vector(&mut self, reader: &mut Reader<'_>) -> Result<Vector, WireError> {
        let vector = self.shared(reader)?;
        self.events_left = charge(reader, self.events_left, &vector)?;
        Ok(Vector::clone(&vector))
    }

    pub(super) fn child(&mut self, reader: &mut Reader<'_>) -> Result<Child, WireError> {
        reader.field = "Child.flags";
        let flags = reader.byte()?;
        let kind = [Kind::Dir, Kind::File, Kind::Symlink].into_iter().find(|kind| number(*kind) == flags & KIND);
        let allowed = match kind {
            None => OWN | TREE,
            Some(Kind::File) => KIND | OWN | TREE | HASHED | BORN | ALIKE,
            Some(_) => KIND | OWN | TREE | BORN | ALIKE,
        };
        reader.check(flags & !allowed == 0, Fault::Unknown(u64::from(flags)))?;
        let bare = kind == Some(Kind::Dir) && flags & TREE == 0;
        reader.check(!bare, Fault::Contradiction("a directory has no tree"))?;
        reader.field = "Child.name";
        let name = Name::get(reader)?;
        let row = kind.map(|kind| self.row(reader, kind, flags)).transpose()?;
        reader.field = "Child.own";
        let own = (flags & OWN != 0).then(|| self.shared(reader)).transpose()?;
        reader.field = "Child.tree";
        let tree = (flags & TREE != 0).then(|| self.tree(reader)).transpose()?;
        Ok(Child { name, row, own, tree })
    }

    fn tree(&mut self, reader: &mut Reader<'_>) -> Result<Tree, WireError> {
        Ok(Tree { s: self.vector(reader)?, bound: self.shared(reader)?, digest: Code::get(reader)? })
    }

    fn row(&mut self, reader: &mut Reader<'_>, kind: Kind, flags: u8) -> Result<Row, WireError> {
        reader.field = "Row.content";
        let content = match kind {
            Kind::Dir => Content::Dir,
            Kind::File => {
                let size = reader.at_most(MAX_SIZE)?;
                let hash = (flags & HASHED != 0).then(|| Hash::get(reader)).transpose()?;
                Content::File { size, hash }
            }
            Kind::Symlink => Content::Symlink(reader.bytes(MAX_TARGET)?.into()),
        };
        let attrs = self.attrs(reader, flags & ALIKE != 0)?;
        reader.field = "Row.m";
        let m = self.vector(reader)?;
        reader.check(!m.is_empty(), Fault::Empty)?;
        reader.field = "Row.c";
        let created = if flags & BORN == 0 { self.vector(reader)? } else { m.clone() };
        if flags & BORN != 0 {
            self.events_left = charge(reader, self.events_left, &m)?;
        }
        reader.check(!created.is_empty(), Fault::Empty)?;
        let c: Creation = created.iter().collect();
        Ok(Row { object: Object { content, attrs }, m, c })
    }

    fn attrs(&mut self, reader: &mut Reader<'_>, alike: bool) -> Result<Attrs, WireError> {
        let mut attrs = self.last;
        if !alike {
            reader.field = "Attrs.mode";
            attrs.mode = reader.at_most(u64::from(MODE))? as u32;
            reader.field = "Attrs.uid";
            attrs.uid = reader.at_most(u64::from(NOBODY - 1))? as u32;
            reader.field = "Attrs.gid";
            attrs.gid = reader.at_most(u64::from(NOBODY - 1))? as u32;
        }
        reader.field = "Attrs.mtime_ns";
        attrs.mtime_ns = self.last.mtime_ns.wrapping_add(i64::get(reader)?);
        self.last = attrs;
        Ok(attrs)
    }
}

/// One event is held in place and costs nothing.
fn charge(reader: &Reader<'_>, left: usize, vector: &Vector) -> Result<usize, WireError> {
    let cost = vector.len().saturating_sub(1);
    let large = Fault::Large { found: (MAX_EVENTS + 1) as u64, most: MAX_EVENTS as u64 };
    left.checked_sub(cost).ok_or_else(|| reader.error(large))
}

/// Bytes that a vector takes at the most, its replicas counted as if no other vector had them.
pub(super) fn vector_bytes(vector: &Vector) -> usize {
    // Id, number of the replica, counter.
    4 + vector.len() * (16 + 3 + 9)
}

/// Bytes that a child takes at the most.
pub(super) fn child_bytes(child: &Child) -> usize {
    // Flags, lengths, numbers of vectors, size, hash, attributes, digest.
    let mut bytes = 128 + child.name.as_bytes().len();
    if let Some(row) = &child.row {
        let created: Vector = row.c.iter().collect();
        bytes += vector_bytes(&row.m) + vector_bytes(&created);
        if let Content::Symlink(target) = &row.object.content {
            bytes += target.len();
        }
    }
    bytes += child.own.as_ref().map_or(0, |own| vector_bytes(own));
    bytes + child.tree.as_ref().map_or(0, |tree| vector_bytes(&tree.s) + vector_bytes(&tree.bound))
}
