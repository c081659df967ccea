//! What is kept beside the rows: values, peers, incomplete paths, intents, kept versions.

use super::error::{Attempt, Result, StateError};
use super::{Decision, Intent, NewVersion, Peer, Pending, REASONS, State, Version, codec, encode};
use crate::knowledge::ReplicaId;
use crate::path::RelPath;
use crate::plan::Open;
use rusqlite::{Connection, OptionalExtension as _, Params, params};

/// Under this key stands how often everything was made durable at once.
const SETTLED: &str = "state.settled";

impl State {
    /// Makes all commits durable that were not asked to be: they have reached the disk when the call returns. Costs
    /// nothing if there are none.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn settle(&self) -> Result<()> {
        if self.is_settled() {
            return Ok(());
        }
        // The log is synced by a transaction that writes something.
        self.write(true, |tx| {
            let before = meta(tx.conn, SETTLED)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
            put_meta(tx.conn, SETTLED, &before.wrapping_add(1).to_le_bytes())
        })
    }

    /// Has everything reached the disk that was committed?
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.writer.lock().expect("no panic while the state is held").loose
    }

    /// A remembered value (rules' hash, generation …). Keys that begin with `state.` are the state's own.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.read(|conn| meta(conn, key))
    }

    /// Remembers a value; it has reached the disk when the call returns.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn put_meta(&self, key: &str, value: &[u8]) -> Result<()> {
        self.write(true, |tx| put_meta(tx.conn, key, value))
    }

    /// All that was committed before has reached the disk when the call returns.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn flush(&self) -> Result<()> {
        // A transaction that writes nothing is not made durable either, and nor is what came before it.
        self.write(true, |tx| tx.conn.execute("UPDATE clock SET id = id", []).attempt("flush the state").map(|_| ()))
    }

    /// What is remembered of a peer.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn peer(&self, id: ReplicaId) -> Result<Option<Peer>> {
        let found = self.read(|conn| peers(conn, "WHERE id = ?1", [id.0]))?;
        Ok(found.into_iter().next().map(|(_, peer)| peer))
    }

    /// All peers.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn peers(&self) -> Result<Vec<(ReplicaId, Peer)>> {
        self.read(|conn| peers(conn, "ORDER BY id", []))
    }

    /// Remembers a peer. Atomic and ordered after all commits before; the next durable commit, or `syncfs`, makes it
    /// durable.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn put_peer(&self, id: ReplicaId, peer: &Peer) -> Result<()> {
        self.write(false, |tx| {
            let sql = "INSERT OR REPLACE INTO peer (id, instance, incorporated, seen_counter, seen_nonce, location) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let (counter, nonce) = peer.seen;
            let numbers = [peer.instance, peer.incorporated, counter, nonce].map(|number| number as i64);
            tx.conn
                .prepare_cached(sql)
                .and_then(|mut insert| {
                    let [instance, incorporated, counter, nonce] = numbers;
                    insert.execute(params![id.0, instance, incorporated, counter, nonce, peer.location])
                })
                .attempt("remember a peer")
                .map(|_| ())
        })
    }

    /// Paths left incomplete by pulls from a peer, by path.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn pending(&self, peer: ReplicaId) -> Result<Vec<Pending>> {
        let mut pending = self.read(|conn| {
            let sql = "SELECT path, why, theirs, known, decision FROM pending WHERE peer = ?1";
            collect(conn, sql, [peer.0], pending_of)
        })?;
        pending.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(pending)
    }

    /// Those of them that were left for this reason.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn pending_for(&self, peer: ReplicaId, why: Open) -> Result<Vec<Pending>> {
        let mut pending = self.read(|conn| {
            let sql = "SELECT path, why, theirs, known, decision FROM pending WHERE peer = ?1 AND why = ?2";
            collect(conn, sql, params![peer.0, why_number(why)], pending_of)
        })?;
        pending.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(pending)
    }

    /// Has the user decided on any pending path, whatever peer it is pending with?
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn has_decisions(&self) -> Result<bool> {
        let found =
            self.read(|conn| collect(conn, "SELECT 1 FROM pending WHERE decision IS NOT NULL LIMIT 1", [], |_| Ok(())))?;
        Ok(!found.is_empty())
    }

    /// Replaces the list of incomplete paths of a peer. Ordered and made durable as [`State::put_peer`].
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn put_pending(&self, peer: ReplicaId, pending: &[Pending]) -> Result<()> {
        self.write(false, |tx| {
            tx.conn
                .prepare_cached("DELETE FROM pending WHERE peer = ?1")
                .and_then(|mut delete| delete.execute([peer.0]))
                .attempt("forget incomplete paths")?;
            let sql = "INSERT OR REPLACE INTO pending (peer, path, why, theirs, known, decision) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let mut insert = tx.conn.prepare_cached(sql).attempt("record incomplete paths")?;
            for path in pending {
                let theirs = path.theirs.as_ref().map(codec::encode_row);
                let known = codec::encode_vector(&path.known);
                let (why, decision) = (path.why.map(why_number), path.decision.map(decision_number));
                insert
                    .execute(params![peer.0, path.path.as_bytes(), why, theirs, known, decision])
                    .attempt("record incomplete paths")?;
            }
            Ok(())
        })
    }

    /// Records what the user decided on a pending path; it has reached the disk when the call returns.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn decide(&self, peer: ReplicaId, path: &RelPath, decision: Option<Decision>) -> Result<()> {
        self.write(true, |tx| {
            tx.conn
                .prepare_cached("UPDATE pending SET decision = ?3 WHERE peer = ?1 AND path = ?2")
                .and_then(|mut update| update.execute(params![peer.0, path.as_bytes(), decision.map(decision_number)]))
                .attempt("record a decision")
                .map(|_| ())
        })
    }

    /// Records intents before their swaps; returns their numbers. Same durability as [`State::commit`].
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn intend(&self, intents: &[Intent], durable: bool) -> Result<Vec<i64>> {
        self.write(durable, |tx| {
            let sql = "INSERT INTO intent (body) VALUES (?1)";
            let mut insert = tx.conn.prepare_cached(sql).attempt("record an intent")?;
            let record = |intent| insert.insert([codec::encode_intent(intent)?]).attempt("record an intent");
            intents.iter().map(record).collect()
        })
    }

    /// Intents that a crash left behind, in the order of their numbers.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn intents(&self) -> Result<Vec<(i64, Intent)>> {
        self.read(|conn| {
            let intent = |row: &rusqlite::Row<'_>| {
                let body: Vec<u8> = row.get(1).attempt("read an intent")?;
                Ok((row.get(0).attempt("read an intent")?, codec::decode_intent(&body)?))
            };
            collect(conn, "SELECT id, body FROM intent ORDER BY id", [], intent)
        })
    }

    /// Kept versions at or below a path, newest first.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn versions(&self, at: &RelPath) -> Result<Vec<Version>> {
        self.read(|conn| {
            if at.is_root() {
                return versions(conn, "ORDER BY kept_at DESC, id DESC", []);
            }
            // What is below begins with the path and a slash, and "0" is the byte after it.
            let (from, to) = ([at.as_bytes(), b"/"].concat(), [at.as_bytes(), b"0"].concat());
            let clause = "WHERE path = ?1 OR (path > ?2 AND path < ?3) ORDER BY kept_at DESC, id DESC";
            versions(conn, clause, params![at.as_bytes(), from, to])
        })
    }

    /// Kept versions older than a time, oldest first, at most `limit`: those that follow the version
    /// `after` = (time, number).
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn versions_before(&self, ns: i64, after: (i64, i64), limit: usize) -> Result<Vec<Version>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let clause = "WHERE kept_at < ?1 AND (kept_at, id) > (?2, ?3) ORDER BY kept_at, id LIMIT ?4";
        self.read(|conn| versions(conn, clause, [ns, after.0, after.1, limit]))
    }

    /// Kept versions not older than a time, newest first, at most `limit`: those that follow the version
    /// `after` = (time, number).
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn versions_since(&self, ns: i64, after: (i64, i64), limit: usize) -> Result<Vec<Version>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let clause = "WHERE kept_at >= ?1 AND (kept_at, id) < (?2, ?3) ORDER BY kept_at DESC, id DESC LIMIT ?4";
        self.read(|conn| versions(conn, clause, [ns, after.0, after.1, limit]))
    }

    /// Forgets a kept version that is gone from the disk.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn forget_version(&self, id: i64) -> Result<()> {
        self.write(false, |tx| {
            tx.conn
                .prepare_cached("DELETE FROM version WHERE id = ?1")
                .and_then(|mut delete| delete.execute([id]))
                .attempt("forget a kept version")
                .map(|_| ())
        })
    }
}

/// A remembered value.
pub(super) fn meta(conn: &Connection, key: &str) -> Result<Option<Vec<u8>>> {
    conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")
        .and_then(|mut query| query.query_row([key], |row| row.get(0)).optional())
        .attempt("read a value")
}

/// Remembers a value within a transaction.
pub(super) fn put_meta(conn: &Connection, key: &str, value: &[u8]) -> Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")
        .and_then(|mut insert| insert.execute(params![key, value]))
        .attempt("remember a value")
        .map(|_| ())
}

/// Clears intents within a transaction.
pub(super) fn settle(conn: &Connection, intents: &[i64]) -> Result<()> {
    let mut delete = conn.prepare_cached("DELETE FROM intent WHERE id = ?1").attempt("settle an intent")?;
    intents.iter().try_for_each(|id| delete.execute([id]).attempt("settle an intent").map(|_| ()))
}

/// Records kept versions within a transaction.
pub(super) fn keep(conn: &Connection, kept: &[NewVersion]) -> Result<()> {
    let sql = "INSERT INTO version (name, path, kind, sig, hash, kept_at, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut insert = conn.prepare_cached(sql).attempt("record a kept version")?;
    for version in kept {
        if !REASONS.contains(&version.reason) {
            let rule = "a version is kept for one of the known reasons";
            return Err(StateError::Invariant { path: version.path.clone(), rule });
        }
        let mut sig = encode::Blob::new();
        encode::signature(&mut sig, &version.signature);
        let hash = version.hash.as_ref().map(|hash| &hash.0[..]);
        let kind = encode::kind_number(version.kind);
        let path = version.path.as_bytes();
        insert
            .execute(params![version.name, path, kind, &sig[..], hash, version.kept_at_ns, version.reason])
            .attempt("record a kept version")?;
    }
    Ok(())
}

pub(super) fn collect<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    decode: impl Fn(&rusqlite::Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut query = conn.prepare_cached(sql).attempt("read records")?;
    let mut rows = query.query(params).attempt("read records")?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().attempt("read records")? {
        found.push(decode(row)?);
    }
    Ok(found)
}

fn peers(conn: &Connection, clause: &str, params: impl Params) -> Result<Vec<(ReplicaId, Peer)>> {
    let sql = format!("SELECT id, instance, incorporated, seen_counter, seen_nonce, location FROM peer {clause}");
    collect(conn, &sql, params, |row| {
        let number = |column| row.get::<_, i64>(column).map(|number| number as u64).attempt("read a peer");
        let peer = Peer {
            instance: number(1)?,
            incorporated: number(2)?,
            seen: (number(3)?, number(4)?),
            location: row.get(5).attempt("read a peer")?,
        };
        Ok((ReplicaId(row.get(0).attempt("read a peer")?), peer))
    })
}

fn pending_of(row: &rusqlite::Row<'_>) -> Result<Pending> {
    let path: Vec<u8> = row.get(0).attempt("read an incomplete path")?;
    let theirs: Option<Vec<u8>> = row.get(2).attempt("read an incomplete path")?;
    let known: Vec<u8> = row.get(3).attempt("read an incomplete path")?;
    let why: Option<i64> = row.get(1).attempt("read an incomplete path")?;
    let decision: Option<i64> = row.get(4).attempt("read an incomplete path")?;
    Ok(Pending {
        path: RelPath::parse(&path).map_err(|_| StateError::Content { what: "a path" })?,
        why: why.map(why_of).transpose()?,
        theirs: theirs.as_deref().map(codec::decode_row).transpose()?,
        known: codec::decode_vector(&known)?,
        decision: decision.map(decision_of).transpose()?,
    })
}

fn versions(conn: &Connection, clause: &str, params: impl Params) -> Result<Vec<Version>> {
    let sql = format!("SELECT id, name, path, kind, sig, hash, kept_at, reason FROM version {clause}");
    collect(conn, &sql, params, |row| {
        let path: Vec<u8> = row.get(2).attempt("read a kept version")?;
        let sig: Vec<u8> = row.get(4).attempt("read a kept version")?;
        let hash: Option<Vec<u8>> = row.get(5).attempt("read a kept version")?;
        let reason: String = row.get(7).attempt("read a kept version")?;
        let kind = encode::kind_of(row.get(3).attempt("read a kept version")?)?;
        let reason = REASONS.into_iter().find(|known| *known == reason);
        let kept = NewVersion {
            name: row.get(1).attempt("read a kept version")?,
            path: RelPath::parse(&path).map_err(|_| StateError::Content { what: "a path" })?,
            kind: kind.ok_or(StateError::Content { what: "a kind" })?,
            signature: encode::signature_column(&sig)?,
            hash: hash.as_deref().map(encode::hash).transpose()?,
            kept_at_ns: row.get(6).attempt("read a kept version")?,
            reason: reason.ok_or(StateError::Content { what: "a reason" })?,
        };
        Ok(Version { id: row.get(0).attempt("read a kept version")?, kept })
    })
}

fn why_number(why: Open) -> i64 {
    match why {
        Open::Conflict => 0,
        Open::Ignored => 1,
        Open::Unread => 2,
    }
}

fn why_of(number: i64) -> Result<Open> {
    [Open::Conflict, Open::Ignored, Open::Unread]
        .into_iter()
        .find(|why| why_number(*why) == number)
        .ok_or(StateError::Content { what: "a reason" })
}

fn decision_number(decision: Decision) -> i64 {
    match decision {
        Decision::Local => 0,
        Decision::Remote => 1,
        Decision::Newer => 2,
        Decision::Both => 3,
    }
}

fn decision_of(number: i64) -> Result<Decision> {
    [Decision::Local, Decision::Remote, Decision::Newer, Decision::Both]
        .into_iter()
        .find(|decision| decision_number(*decision) == number)
        .ok_or(StateError::Content { what: "a decision" })
}
