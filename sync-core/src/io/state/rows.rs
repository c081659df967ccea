//! Reading rows: listings for a pull, known paths for the scan.

use super::entries::{Stored, live_of, stored_of};
use super::error::{Attempt, Result, StateError};
use super::names::Names;
use super::nodes::{ABOVE, ROOT};
use super::{Entry, Known, NodeId, encode};
use crate::entry::{Digest, Kind};
use crate::knowledge::{Event, ReplicaId, Tree, Vector};
use crate::path::{Name, RelPath};
use crate::store::{Child, Filter, Listing};
use rusqlite::{Connection, OptionalExtension as _, Params, params};
use std::collections::BTreeSet;
use std::sync::{Arc, RwLock, RwLockReadGuard};

const CHILD: &str = "SELECT e.name, e.kind, e.o, e.m, e.c, e.sig, e.content, e.attrs, n.s, n.bound, n.digest \
     FROM entry e LEFT JOIN node n ON n.id = e.node WHERE e.parent = ?1";

fn hold(names: &RwLock<Names>) -> RwLockReadGuard<'_, Names> {
    names.read().expect("no panic while names are held")
}

/// The rows of one directory and what covers them, read in one transaction.
pub(super) fn listing(
    conn: &Connection,
    names: &RwLock<Names>,
    id: ReplicaId,
    (dir, filter): (&RelPath, &Filter),
) -> Result<Listing> {
    let _snapshot = conn.unchecked_transaction().attempt("begin to read")?;
    let (seq, counter, floor): (i64, i64, i64) = conn
        .prepare_cached("SELECT seq, counter, floor FROM clock")
        .and_then(|mut query| query.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))))
        .attempt("read the clock")?;
    let mut sub = Vector::new();
    if counter > 0 {
        sub.add(Event { replica: id, counter: counter as u64 });
    }
    let cover = descend(conn, names, dir, &mut sub)?;
    let full = match filter {
        Filter::All => true,
        // Deletions from before the directory's birth, or from before the journal's floor, may have left no ghosts;
        // and nothing is in one that is gone.
        Filter::Since { after, .. } => cover.node.is_none() || newest(*after) < cover.born.max(floor),
        Filter::Only(_) => false,
    };
    let children = match cover.node {
        None => Vec::new(),
        Some(node) => children(conn, names, (dir, node), if full { &Filter::All } else { filter })?,
    };
    Ok(Listing {
        path: dir.clone(),
        sub: Arc::new(sub),
        bound: Arc::new(cover.bound),
        digest: cover.digest,
        seq: seq as u64,
        full,
        children,
    })
}

/// A number beyond what the table can hold is one that nothing has reached.
fn newest(after: u64) -> i64 {
    i64::try_from(after).unwrap_or(i64::MAX)
}

/// What covers a path: its own node, or the nearest above it.
struct Cover {
    /// Its own node.
    node: Option<i64>,
    bound: Vector,
    digest: Digest,
    /// Of its own node; that of a row without node is the row's number; 0 without a row.
    born: i64,
}

/// Walks down to a path, joining S of every node on the way.
fn descend(conn: &Connection, names: &RwLock<Names>, path: &RelPath, sub: &mut Vector) -> Result<Cover> {
    let mut query = conn.prepare_cached("SELECT s, bound, digest, born FROM node WHERE id = ?1").attempt("read a directory")?;
    let mut read = |id: i64, sub: &mut Vector| -> Result<(Vec<u8>, [u8; 16], i64)> {
        let (s, bound, digest, born): (Option<Vec<u8>>, Vec<u8>, [u8; 16], i64) =
            query.query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).attempt("read a directory")?;
        if let Some(s) = s {
            sub.join(&hold(names).decode(&s)?);
        }
        Ok((bound, digest, born))
    };
    let (mut bound, mut digest, mut born) = read(ROOT, sub)?;
    let mut node = Some(ROOT);
    for (depth, name) in path.components().enumerate() {
        let parent = node.expect("the walk ends at the first path without node");
        let row = child_row(conn, parent, name.as_bytes())?;
        node = row.and_then(|(node, _)| node);
        let Some(id) = node else {
            // Only the path's own row tells when the rows below it went.
            born = row.filter(|_| depth + 1 == path.depth()).map_or(0, |(_, seq)| seq);
            break;
        };
        (bound, digest, born) = read(id, sub)?;
    }
    let digest = if node.is_some() { Digest(u128::from_le_bytes(digest)) } else { Digest::default() };
    Ok(Cover { node, bound: hold(names).decode(&bound)?, digest, born })
}

fn child_node(conn: &Connection, parent: i64, name: &[u8]) -> Result<Option<i64>> {
    Ok(child_row(conn, parent, name)?.and_then(|(node, _)| node))
}

/// Node and sequence number of a row.
fn child_row(conn: &Connection, parent: i64, name: &[u8]) -> Result<Option<(Option<i64>, i64)>> {
    conn.prepare_cached("SELECT node, seq FROM entry WHERE parent = ?1 AND name = ?2")
        .and_then(|mut query| query.query_row(params![parent, name], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .attempt("read a path")
}

/// The newest sequence number at or below a directory.
pub(super) fn newest_at(conn: &Connection, dir: &RelPath) -> Result<Option<u64>> {
    let (mut node, mut own) = (ROOT, 0);
    for name in dir.components() {
        let Some((Some(id), seq)) = child_row(conn, node, name.as_bytes())? else { return Ok(None) };
        (node, own) = (id, seq);
    }
    let below: i64 = conn
        .prepare_cached("SELECT seq FROM node WHERE id = ?1")
        .and_then(|mut query| query.query_row([node], |row| row.get(0)))
        .attempt("read a directory")?;
    Ok(Some(below.max(own) as u64))
}

fn children(conn: &Connection, names: &RwLock<Names>, (dir, node): (&RelPath, i64), filter: &Filter) -> Result<Vec<Child>> {
    let by_name = format!("{CHILD} AND e.name = ?2");
    let (after, also) = match filter {
        Filter::All => return select(conn, names, &format!("{CHILD} ORDER BY e.name"), [node]),
        Filter::Only(wanted) => {
            let mut found = Vec::with_capacity(wanted.len());
            for name in wanted.iter() {
                found.append(&mut select(conn, names, &by_name, params![node, name.as_bytes()])?);
            }
            return Ok(found);
        }
        Filter::Since { after, also } => (newest(*after), also),
    };
    let sql = format!("{CHILD} AND (e.seq > ?2 OR n.seq > ?2) ORDER BY e.name");
    let mut found = select(conn, names, &sql, params![node, after])?;
    for name in asked_for(dir, also) {
        if let Err(at) = found.binary_search_by(|child| child.name.cmp(&name)) {
            let asked = select(conn, names, &by_name, params![node, name.as_bytes()])?;
            found.splice(at..at, asked);
        }
    }
    Ok(found)
}

/// The names in `dir` at or below which a path is asked for.
fn asked_for(dir: &RelPath, also: &BTreeSet<RelPath>) -> BTreeSet<Name> {
    let depth = dir.depth();
    let below = also.range(dir.clone()..).take_while(|path| dir.contains(path));
    below.filter_map(|path| path.components().nth(depth)).collect()
}

fn select(conn: &Connection, names: &RwLock<Names>, sql: &str, params: impl Params) -> Result<Vec<Child>> {
    let mut query = conn.prepare_cached(sql).attempt("read a directory's paths")?;
    let mut rows = query.query(params).attempt("read a directory's paths")?;
    let names = hold(names);
    let mut children = Vec::new();
    while let Some(row) = rows.next().attempt("read a directory's paths")? {
        children.push(child(row, &names)?);
    }
    Ok(children)
}

fn child(row: &rusqlite::Row<'_>, names: &Names) -> Result<Child> {
    let blob = |column: usize| {
        let value = row.get_ref(column).attempt("read a path")?;
        value.as_blob_or_null().map_err(|_| StateError::Content { what: "a column of another type" })
    };
    let live = match encode::kind_of(row.get(1).attempt("read a path")?)? {
        None => None,
        Some(kind) => Some(live_of(row, 3, kind, names)?.0),
    };
    let tree = match blob(9)? {
        None => None,
        Some(bound) => Some(Tree {
            s: blob(8)?.map_or(Ok(Vector::new()), |s| names.decode(s))?,
            bound: Arc::new(names.decode(bound)?),
            digest: Digest(u128::from_le_bytes(row.get(10).attempt("read a path")?)),
        }),
    };
    Ok(Child { name: name(blob(0)?)?, row: live, own: names.knowledge(row.get(2).attempt("read a path")?).cloned(), tree })
}

fn name(blob: Option<&[u8]>) -> Result<Name> {
    Name::parse(blob.unwrap_or_default()).map_err(|_| StateError::Content { what: "a name" })
}

/// The live rows of one directory.
pub(super) fn known(conn: &Connection, dir: NodeId) -> Result<Vec<Known>> {
    known_after(conn, dir, None, usize::MAX)
}

/// Those after a name, so many at most.
pub(super) fn known_after(conn: &Connection, dir: NodeId, after: Option<&Name>, most: usize) -> Result<Vec<Known>> {
    let sql = "SELECT name, kind, node, sig, content, attrs FROM entry \
         WHERE parent = ?1 AND name > ?2 AND kind <> 0 ORDER BY name LIMIT ?3";
    let mut query = conn.prepare_cached(sql).attempt("read known paths")?;
    // No name is empty: all come after that.
    let (after, most) = (after.map_or(&b""[..], Name::as_bytes), i64::try_from(most).unwrap_or(i64::MAX));
    let mut rows = query.query(params![dir.0, after, most]).attempt("read known paths")?;
    let mut known = Vec::new();
    while let Some(row) = rows.next().attempt("read known paths")? {
        let blob = |column: usize| {
            let value = row.get_ref(column).attempt("read known paths")?;
            value.as_blob_or_null().map_err(|_| StateError::Content { what: "a column of another type" })
        };
        let kind = encode::kind_of(row.get(1).attempt("read known paths")?)?;
        let kind = kind.ok_or(StateError::Content { what: "a kind" })?;
        let signature = encode::signature_column(blob(3)?.unwrap_or_default())?;
        let (attrs, _) = encode::attrs_and_size(&signature, blob(5)?)?;
        let hash = match kind {
            Kind::File => blob(4)?.map(encode::hash).transpose()?,
            Kind::Dir | Kind::Symlink => None,
        };
        let node: Option<i64> = if kind == Kind::Dir { row.get(2).attempt("read known paths")? } else { None };
        known.push(Known { name: name(blob(0)?)?, kind, signature, mtime_ns: attrs.mtime_ns, hash, node: node.map(NodeId) });
    }
    Ok(known)
}

/// The directory of a path that was looked for, and its node. Remembering it needs no care: a number is never used twice,
/// and its node never stands for another path.
pub(super) type Nearby = Option<(RelPath, i64)>;

/// A live path.
pub(super) fn entry(conn: &Connection, names: &RwLock<Names>, nearby: &mut Nearby, path: &RelPath) -> Result<Option<Entry>> {
    if let Some(found) = entry_nearby(conn, names, nearby, path)? {
        return Ok(found);
    }
    let _snapshot = conn.unchecked_transaction().attempt("begin to read")?;
    entry_from_above(conn, names, nearby, path)
}

/// Several of them, as of one moment.
pub(super) fn entries(
    conn: &Connection,
    names: &RwLock<Names>,
    nearby: &mut Nearby,
    paths: &[RelPath],
) -> Result<Vec<Option<Entry>>> {
    let _snapshot = conn.unchecked_transaction().attempt("begin to read")?;
    let find = |path| match entry_nearby(conn, names, nearby, path)? {
        Some(found) => Ok(found),
        None => entry_from_above(conn, names, nearby, path),
    };
    paths.iter().map(find).collect()
}

/// Looks in the directory that was looked into before, if it is the path's; `None` if it is not, or is gone.
fn entry_nearby(conn: &Connection, names: &RwLock<Names>, nearby: &Nearby, path: &RelPath) -> Result<Option<Option<Entry>>> {
    let (Some((dir, node)), Some((parent, name))) = (nearby, path.split()) else { return Ok(None) };
    if *dir != parent {
        return Ok(None);
    }
    if let Some(found) = entry_at(conn, names, (*node, name.as_bytes()))? {
        return Ok(Some(found));
    }
    // A node that is there now was there a moment ago: nothing was recorded of the path. (A join would be prepared anew for
    // every path.)
    let there = conn
        .prepare_cached("SELECT 1 FROM node WHERE id = ?1")
        .and_then(|mut query| query.query_row([node], |_| Ok(())).optional())
        .attempt("read a directory")?;
    Ok(there.map(|()| None))
}

/// Walks down to the path, and remembers its directory.
fn entry_from_above(conn: &Connection, names: &RwLock<Names>, nearby: &mut Nearby, path: &RelPath) -> Result<Option<Entry>> {
    let Some((parent, name)) = slot(conn, path)? else {
        return Ok(None);
    };
    *nearby = path.parent().map(|dir| (dir, parent));
    Ok(entry_at(conn, names, (parent, &name))?.flatten())
}

/// What is live under a name of a directory; `None` if nothing was ever recorded of it.
fn entry_at(conn: &Connection, names: &RwLock<Names>, (parent, name): (i64, &[u8])) -> Result<Option<Option<Entry>>> {
    let stored = conn
        .prepare_cached("SELECT kind, node, o, m, c, sig, content, attrs FROM entry WHERE parent = ?1 AND name = ?2")
        .and_then(|mut query| query.query_row(params![parent, name], |row| Ok(stored_of(row, &hold(names)))).optional())
        .attempt("read a path")?
        .transpose()?;
    let Some(Stored { own, live, .. }) = stored else { return Ok(None) };
    Ok(Some(live.map(|(row, signature)| Entry { row, own: hold(names).knowledge(own).cloned(), signature })))
}

/// The number of a live directory.
pub(super) fn node(conn: &Connection, path: &RelPath) -> Result<Option<NodeId>> {
    let _snapshot = conn.unchecked_transaction().attempt("begin to read")?;
    let Some((parent, name)) = slot(conn, path)? else {
        return Ok(None);
    };
    let node: Option<Option<i64>> = conn
        .prepare_cached("SELECT node FROM entry WHERE parent = ?1 AND name = ?2 AND kind = 3")
        .and_then(|mut query| query.query_row(params![parent, name], |row| row.get(0)).optional())
        .attempt("read a path")?;
    Ok(node.flatten().map(NodeId))
}

/// The directory's node and the name of a path.
fn slot(conn: &Connection, path: &RelPath) -> Result<Option<(i64, Box<[u8]>)>> {
    let Some((dir, name)) = path.split() else {
        return Ok(Some((ABOVE, Box::default())));
    };
    Ok(descend_to(conn, &dir)?.map(|node| (node, name.as_bytes().into())))
}

/// The node of a directory.
fn descend_to(conn: &Connection, dir: &RelPath) -> Result<Option<i64>> {
    let mut node = ROOT;
    for component in dir.components() {
        match child_node(conn, node, component.as_bytes())? {
            Some(child) => node = child,
            None => return Ok(None),
        }
    }
    Ok(Some(node))
}
