//! Directories of the root that lie in a cold root.

use super::State;
use super::error::{Attempt, Result, StateError};
use super::records::{collect, meta, put_meta};
use crate::io::fs::{Claim, Cold, ColdId, Generation, Placement, Places, Rewritten};
use crate::path::RelPath;
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

/// A change of what lies elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaceChange {
    /// It lies, or is about to lie, there: recorded as a whole.
    Put(Placement),
    /// It lies there, and nothing but the link may stand at the path.
    Settle(RelPath),
    /// It does not lie there any more.
    Drop(RelPath),
}

impl State {
    /// All that lies elsewhere. Who it is that has it there [`Places::claimed`] says.
    ///
    /// # Errors
    /// What SQLite reports, or a record that cannot be read.
    pub fn places(&self) -> Result<Places> {
        self.read(|conn| {
            let colds = colds(conn)?;
            let mut placements = placements(conn, &colds)?;
            for (path, link) in rewritten(conn)? {
                let above = path.ancestors().skip(1).find(|above| placements.contains_key(above));
                let Some(placement) = above.and_then(|above| placements.get_mut(&above)) else { continue };
                if let Some(below) = path.rebase(&placement.path, &RelPath::root()) {
                    placement.rewritten.insert(below, link);
                }
            }
            let count = placements.len();
            let places = Places::new(placements.into_values(), colds);
            if places.all().count() < count {
                return Err(StateError::Content { what: "a placement in another one" });
            }
            Ok(places)
        })
    }

    /// Remembers a cold root; it has reached the disk when the call returns.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn put_cold(&self, cold: &Cold) -> Result<()> {
        self.write(true, |tx| {
            let sql = "INSERT OR REPLACE INTO cold (id, path, key) VALUES (?1, ?2, ?3)";
            let path = cold.path.as_os_str().as_bytes();
            tx.conn.execute(sql, params![cold.id.0, path, cold.key]).attempt("remember a cold root").map(drop)
        })
    }
}

impl State {
    /// Remembers how far a cold root has come: before all that is committed after it, and durably with that.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn put_generation(&self, cold: ColdId, generation: u64) -> Result<()> {
        self.write(false, |tx| put_meta(tx.conn, &generation_key(cold), &generation.to_le_bytes()))
    }
}

/// Under this key it is remembered how far a cold root has come.
fn generation_key(cold: ColdId) -> String {
    format!("cold.generation.{cold}")
}

fn generation(conn: &Connection, cold: ColdId) -> Result<Generation> {
    let Some(bytes) = meta(conn, &generation_key(cold))? else { return Ok(Generation::default()) };
    let number = <[u8; 8]>::try_from(bytes.as_slice()).map(u64::from_le_bytes);
    number.map(Generation::of).map_err(|_| StateError::Content { what: "a generation of a cold root" })
}

/// Carries out changes of one transaction.
pub(super) fn change(conn: &Connection, changes: &[PlaceChange]) -> Result<()> {
    for change in changes {
        match change {
            PlaceChange::Put(placement) => put(conn, placement)?,
            PlaceChange::Settle(path) => {
                let sql = "UPDATE placement SET settled = 1 WHERE path = ?1";
                conn.execute(sql, [path.as_bytes()]).attempt("record a placement")?;
            }
            PlaceChange::Drop(path) => {
                conn.execute("DELETE FROM placement WHERE path = ?1", [path.as_bytes()]).attempt("forget a placement")?;
                forget_rewritten(conn, path)?;
            }
        }
    }
    Ok(())
}

fn put(conn: &Connection, placement: &Placement) -> Result<()> {
    let Placement { path, cold, at, job, stamp, link, other_link, settled, rewritten } = placement;
    let sql = "INSERT OR REPLACE INTO placement (path, cold, at, job, stamp, link, other_link, settled) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let (link, other) = (&link[..], other_link.as_deref());
    conn.execute(sql, params![path.as_bytes(), cold.id.0, at.as_bytes(), job, stamp.0, link, other, settled])
        .attempt("record a placement")?;
    forget_rewritten(conn, path)?;
    let sql = "INSERT OR REPLACE INTO rewritten (path, disk, target) VALUES (?1, ?2, ?3)";
    let mut insert = conn.prepare_cached(sql).attempt("record a rewritten link")?;
    for (below, link) in rewritten {
        let Some(whole) = below.rebase(&RelPath::root(), path) else { continue };
        insert.execute(params![whole.as_bytes(), &link.disk[..], &link.target[..]]).attempt("record a rewritten link")?;
    }
    Ok(())
}

/// Those at and below a path: what begins with it and a slash, which is right before a zero.
fn forget_rewritten(conn: &Connection, path: &RelPath) -> Result<()> {
    let from = [path.as_bytes(), b"/"].concat();
    let until = [path.as_bytes(), b"0"].concat();
    let sql = "DELETE FROM rewritten WHERE path = ?1 OR (path >= ?2 AND path < ?3)";
    conn.execute(sql, params![path.as_bytes(), from, until]).attempt("forget rewritten links").map(drop)
}

fn colds(conn: &Connection) -> Result<Vec<Arc<Cold>>> {
    collect(conn, "SELECT id, path, key FROM cold ORDER BY id", [], |row| {
        let path: Vec<u8> = row.get(1).attempt("read a cold root")?;
        let id = ColdId(row.get(0).attempt("read a cold root")?);
        Ok(Arc::new(Cold {
            id,
            path: PathBuf::from(OsStr::from_bytes(&path)),
            key: row.get(2).attempt("read a cold root")?,
            claim: Claim::default(),
            generation: generation(conn, id)?,
        }))
    })
}

fn placements(conn: &Connection, colds: &[Arc<Cold>]) -> Result<BTreeMap<RelPath, Placement>> {
    let sql = "SELECT path, cold, at, job, stamp, link, other_link, settled FROM placement";
    let found = collect(conn, sql, [], |row| {
        let blob = |column| row.get::<_, Vec<u8>>(column).attempt("read a placement");
        let id = ColdId(row.get(1).attempt("read a placement")?);
        let cold = colds.iter().find(|cold| cold.id == id).cloned();
        let other: Option<Vec<u8>> = row.get(6).attempt("read a placement")?;
        let placement = Placement {
            path: path(&blob(0)?)?,
            cold: cold.ok_or(StateError::Content { what: "a placement in a cold root of which it knows nothing" })?,
            at: path(&blob(2)?)?,
            job: row.get(3).attempt("read a placement")?,
            stamp: ColdId(row.get(4).attempt("read a placement")?),
            link: blob(5)?.into(),
            other_link: other.map(Into::into),
            settled: row.get(7).attempt("read a placement")?,
            rewritten: BTreeMap::new(),
        };
        Ok((placement.path.clone(), placement))
    })?;
    Ok(found.into_iter().collect())
}

fn rewritten(conn: &Connection) -> Result<Vec<(RelPath, Rewritten)>> {
    collect(conn, "SELECT path, disk, target FROM rewritten", [], |row| {
        let blob = |column| row.get::<_, Vec<u8>>(column).attempt("read a rewritten link");
        Ok((path(&blob(0)?)?, Rewritten { disk: blob(1)?.into(), target: blob(2)?.into() }))
    })
}

fn path(bytes: &[u8]) -> Result<RelPath> {
    RelPath::parse(bytes).map_err(|_| StateError::Content { what: "a path" })
}
