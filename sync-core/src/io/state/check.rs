//! Recomputes what the rows imply and compares: for tests, simulation and `doctor`.

use super::State;
use super::entries::{Stored, stored_of};
use super::error::{Attempt, Result};
use super::names::Names;
use super::nodes::{ABOVE, ROOT};
use crate::entry::{Digest, Kind};
use crate::knowledge::{Event, Vector};
use crate::path::escape;
use rusqlite::Connection;
use std::collections::BTreeMap;

/// Most findings that are listed.
const MAX_FINDINGS: usize = 100;

struct Dir {
    parent: i64,
    name: Vec<u8>,
    s: Vector,
    bound: Vector,
    digest: Digest,
    seq: i64,
    born: i64,
    sub: Option<Vector>,
    row: Option<Stored>,
    /// The sum of the shares of the live children.
    sum: Digest,
}

impl State {
    /// Recomputes digests, bounds and sequence numbers from the rows, and checks K1, K3, K4 and K7; returns what is
    /// wrong, at most a hundred findings. Reads all rows: for tests and for diagnosis.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn check(&self) -> Result<Vec<String>> {
        self.read(|conn| {
            let _snapshot = conn.unchecked_transaction().attempt("begin to read")?;
            let names = self.names.read().expect("no panic while names are held");
            Checker::load(conn, &names, self)?.run(conn, &names)
        })
    }

    /// SQLite's own check of the file's structure; empty if it is sound.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn quick_check(&self) -> Result<Vec<String>> {
        self.read(|conn| {
            let mut query = conn.prepare("PRAGMA quick_check").attempt("check the file")?;
            let rows = query.query_map([], |row| row.get(0)).attempt("check the file")?;
            let found: Vec<String> = rows.collect::<rusqlite::Result<_>>().attempt("check the file")?;
            Ok(found.into_iter().filter(|line| line != "ok").collect())
        })
    }
}

struct Checker {
    dirs: BTreeMap<i64, Dir>,
    own: Vector,
    found: Vec<String>,
    seq: i64,
    live: i64,
}

impl Checker {
    fn load(conn: &Connection, names: &Names, state: &State) -> Result<Checker> {
        let (seq, counter, live): (i64, i64, i64) = conn
            .query_row("SELECT seq, counter, live FROM clock", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .attempt("read the clock")?;
        let mut own = Vector::new();
        if counter > 0 {
            own.add(Event { replica: state.id(), counter: counter as u64 });
        }
        let mut dirs = BTreeMap::new();
        let mut query = conn.prepare("SELECT id, parent, name, s, bound, digest, seq, born FROM node").attempt("read")?;
        let mut rows = query.query([]).attempt("read")?;
        while let Some(row) = rows.next().attempt("read")? {
            let s: Option<Vec<u8>> = row.get(3).attempt("read")?;
            let bound: Vec<u8> = row.get(4).attempt("read")?;
            let dir = Dir {
                parent: row.get(1).attempt("read")?,
                name: row.get(2).attempt("read")?,
                s: s.map_or(Ok(Vector::new()), |s| names.decode(&s))?,
                bound: names.decode(&bound)?,
                digest: Digest(u128::from_le_bytes(row.get(5).attempt("read")?)),
                seq: row.get(6).attempt("read")?,
                born: row.get(7).attempt("read")?,
                sub: None,
                row: None,
                sum: Digest::default(),
            };
            dirs.insert(row.get(0).attempt("read")?, dir);
        }
        Ok(Checker { dirs, own, found: Vec::new(), seq, live })
    }

    fn run(mut self, conn: &Connection, names: &Names) -> Result<Vec<String>> {
        let ids: Vec<i64> = self.dirs.keys().copied().collect();
        for id in &ids {
            self.check_node(*id);
        }
        self.load_dirs(conn, names)?;
        let sql = "SELECT kind, node, o, m, c, sig, content, attrs, parent, name, seq FROM entry";
        let mut query = conn.prepare(sql).attempt("read")?;
        let mut rows = query.query([]).attempt("read")?;
        let mut live = 0;
        while let Some(row) = rows.next().attempt("read")? {
            let stored = stored_of(row, names)?;
            let (parent, seq): (i64, i64) = (row.get(8).attempt("read")?, row.get(10).attempt("read")?);
            let name: Vec<u8> = row.get(9).attempt("read")?;
            live += i64::from(stored.live.is_some() && parent != ABOVE);
            self.check_row((parent, &name), &stored, seq, names);
        }
        for id in ids {
            let dir = &self.dirs[&id];
            let (sound, rowless) = (dir.sum == dir.digest, dir.row.is_none());
            if !sound {
                self.note(id, b"", "D is not the sum over the live children");
            }
            if rowless {
                self.note(id, b"", "a directory's record without its row");
            }
        }
        if live != self.live {
            self.found.push(format!("{live} live paths are counted as {}", self.live));
        }
        self.found.truncate(MAX_FINDINGS);
        Ok(self.found)
    }

    fn load_dirs(&mut self, conn: &Connection, names: &Names) -> Result<()> {
        let sql = "SELECT kind, node, o, m, c, sig, content, attrs, parent, name FROM entry WHERE node IS NOT NULL";
        let mut query = conn.prepare(sql).attempt("read")?;
        let mut rows = query.query([]).attempt("read")?;
        while let Some(row) = rows.next().attempt("read")? {
            let stored = stored_of(row, names)?;
            let (parent, name): (i64, Vec<u8>) = (row.get(8).attempt("read")?, row.get(9).attempt("read")?);
            let id = stored.node.unwrap_or_default();
            match self.dirs.get_mut(&id) {
                Some(dir) if dir.parent == parent && dir.name == name => dir.row = Some(stored),
                _ => self.note(parent, &name, "its directory's record is missing or belongs to another path"),
            }
        }
        Ok(())
    }

    /// The record of a directory against that of its parent.
    fn check_node(&mut self, id: i64) {
        let dir = &self.dirs[&id];
        if dir.seq.max(dir.born) > self.seq {
            self.note(id, b"", "a sequence number beyond the newest");
        }
        if id == ROOT {
            return;
        }
        let dir = &self.dirs[&id];
        let Some(parent) = self.dirs.get(&dir.parent) else {
            self.note(id, b"", "a directory's record whose parent has none");
            return;
        };
        let (covered, heard) = (dir.bound.within(&parent.bound), dir.seq <= parent.seq);
        if !covered {
            self.note(id, b"", "M is not covered by the parent's (K4)");
        }
        if !heard {
            self.note(id, b"", "the parent's sequence number is older");
        }
    }

    fn check_row(&mut self, (parent, name): (i64, &[u8]), stored: &Stored, seq: i64, names: &Names) {
        if seq > self.seq {
            self.note(parent, name, "a sequence number beyond the newest");
        }
        let kind = stored.kind();
        if kind == Some(Kind::Dir) && stored.node.is_none() {
            self.note(parent, name, "a live directory without a record of its own");
        }
        if parent == ABOVE {
            return;
        }
        let Some(dir) = self.dirs.get(&parent) else {
            self.found.push(format!("{}: a row without directory", escape(name)));
            return;
        };
        if dir.seq < seq {
            self.note(parent, name, "its directory's sequence number is older");
        }
        let Some((row, _)) = &stored.live else { return };
        let parent_kind = self.dirs[&parent].row.as_ref().and_then(Stored::kind);
        if parent_kind != Some(Kind::Dir) {
            self.note(parent, name, "live below what is no live directory (K7)");
        }
        if !row.m.within(&self.dirs[&parent].bound) {
            self.note(parent, name, "its version is not covered by M above it (K4)");
        }
        if stored.node.and_then(|id| self.dirs.get(&id)).is_some_and(|dir| !row.m.within(&dir.bound)) {
            self.note(parent, name, "its version is not covered by its own M (K4)");
        }
        // K3 holds by construction: Sub of a path is reckoned from those above it.
        let mut known = self.sub(stored.node.unwrap_or(parent));
        if let Some(own) = names.knowledge(stored.own) {
            known.join(own);
        }
        if !row.m.within(&known) {
            self.note(parent, name, "its version is not known (K1)");
        }
        let below = stored.node.and_then(|id| self.dirs.get(&id)).map_or(Digest::default(), |dir| dir.digest);
        let share = Digest::of_child(name, &row.object, below);
        if let Some(dir) = self.dirs.get_mut(&parent) {
            dir.sum = dir.sum.plus(share);
        }
    }

    fn sub(&mut self, id: i64) -> Vector {
        let Some(dir) = self.dirs.get(&id) else {
            return self.own.clone();
        };
        if let Some(sub) = &dir.sub {
            return sub.clone();
        }
        let s = dir.s.clone();
        let sub = self.sub(dir.parent).joined(&s);
        if let Some(dir) = self.dirs.get_mut(&id) {
            dir.sub = Some(sub.clone());
        }
        sub
    }

    fn note(&mut self, mut id: i64, name: &[u8], what: &str) {
        let mut path = vec![escape(name)];
        // A record may be its own ancestor in a broken table.
        for _ in 0..=crate::path::MAX_DEPTH {
            let Some(dir) = self.dirs.get(&id) else { break };
            path.push(escape(&dir.name));
            id = dir.parent;
        }
        path.retain(|part| !part.is_empty());
        path.reverse();
        self.found.push(format!("{}: {what}", path.join("/")));
    }
}
