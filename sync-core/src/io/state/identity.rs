//! Who the replica is and which events it makes: identity, counter blocks, lineage.

use super::error::{Attempt, Result, random};
use super::nodes::ROOT;
use super::tx::Tx;
use super::{State, place};
use crate::knowledge::{Event, ReplicaId};
use rusqlite::params;
use std::sync::atomic::Ordering;

/// Counters reserved at once: a crash skips at most so many, and each block costs one durable transaction.
const BLOCK: u64 = 1024;

/// Under this key a state remembers who it was before it took a new identity, once or more often since the marker in the
/// root was last written: the marker may still say any of these. Ids as text, a blank between two.
pub const FORMER: &str = "sync.former";

/// What hands out counters.
#[derive(Debug)]
pub(super) struct Ticker {
    /// Highest counter that was reserved durably.
    pub(super) reserved: u64,
    /// The nonce of this start, once it was recorded.
    pub(super) nonce: Option<u64>,
}

impl State {
    /// A new event; its counter was reserved durably before (in blocks).
    ///
    /// # Errors
    /// What SQLite reports while a block is reserved.
    pub fn tick(&self) -> Result<Event> {
        let mut ticker = self.ticker.lock().expect("no panic while the counter is held");
        let next = self.made.load(Ordering::Acquire) + 1;
        let started = match ticker.nonce {
            Some(nonce) => nonce,
            None => new_nonce()?,
        };
        if next > ticker.reserved || ticker.nonce.is_none() {
            let end = if next > ticker.reserved { next - 1 + BLOCK } else { ticker.reserved };
            self.write(true, |tx| {
                if ticker.nonce.is_none() {
                    append_lineage(tx, next, started)?;
                }
                tx.clock.reserved = end;
                Ok(())
            })?;
            ticker.reserved = end;
            ticker.nonce = Some(started);
        }
        self.made.store(next, Ordering::Release);
        Ok(Event { replica: self.id(), counter: next })
    }

    /// The random number of this start, recorded durably before its first use.
    ///
    /// # Errors
    /// What SQLite reports while it is recorded.
    pub fn nonce(&self) -> Result<u64> {
        let mut ticker = self.ticker.lock().expect("no panic while the counter is held");
        if let Some(nonce) = ticker.nonce {
            return Ok(nonce);
        }
        let nonce = new_nonce()?;
        let first = self.made.load(Ordering::Acquire) + 1;
        self.write(true, |tx| append_lineage(tx, first, nonce))?;
        ticker.nonce = Some(nonce);
        Ok(nonce)
    }

    /// Is (counter, nonce), the highest that a peer has seen of this replica, part of this state's past?
    ///
    /// It is if the start that made the nonce is in the lineage and the counter is not beyond the events that stood
    /// in the rows when the next start began. If it is not, the state was rolled back or copied: the caller takes a
    /// new identity. (0, 0), nothing seen, is always remembered.
    ///
    /// # Errors
    /// What SQLite reports.
    pub fn remembers(&self, seen: (u64, u64)) -> Result<bool> {
        let (counter, nonce) = seen;
        if seen == (0, 0) {
            return Ok(true);
        }
        let ends: Vec<Option<i64>> = self.read(|conn| {
            let sql = "SELECT (SELECT known FROM lineage l WHERE l.start > lineage.start ORDER BY l.start LIMIT 1) \
                 FROM lineage WHERE nonce = ?1";
            let mut query = conn.prepare_cached(sql).attempt("read the lineage")?;
            let rows = query.query_map([nonce as i64], |row| row.get(0)).attempt("read the lineage")?;
            rows.collect::<rusqlite::Result<_>>().attempt("read the lineage")
        })?;
        let now = self.counter();
        Ok(ends.into_iter().any(|end| counter <= end.map_or(now, |end| now.min(end as u64))))
    }

    /// Takes a new identity: the old component stays in S of the root at its present value, and the events in the
    /// rows keep their old name. The counter starts anew, the present place is recorded.
    ///
    /// # Errors
    /// What SQLite or the operating system reports; the old identity stays then.
    pub fn renew_identity(&self) -> Result<ReplicaId> {
        let place = self.file.as_deref().map(place::here).transpose()?;
        self.renewing(true, |tx, name| {
            tx.nearest(b"")?;
            // Sub of the root already holds the own component.
            let s = tx.sub(ROOT);
            tx.set_s(ROOT, (*s).clone());
            tx.touch(ROOT);
            if let Some(place) = &place {
                super::records::put_meta(tx.conn, "state.place", place)?;
            }
            take(tx, name)
        })?;
        Ok(self.id())
    }

    /// A transaction that may [`take`] a new identity; it is handed in.
    pub(super) fn renewing(&self, durable: bool, body: impl FnOnce(&mut Tx<'_>, &Name) -> Result<()>) -> Result<()> {
        let mut ticker = self.ticker.lock().expect("no panic while the counter is held");
        let name = Name { id: ReplicaId(random()?), instance: new_nonce()? };
        let taken = self.write(durable, |tx| {
            body(tx, &name)?;
            Ok(tx.id == name.id)
        })?;
        if taken {
            self.made.store(0, Ordering::Release);
            *ticker = Ticker { reserved: 0, nonce: None };
            let mut published = self.published.write().expect("no panic while the clock is held");
            published.id = name.id;
            published.instance = name.instance;
        }
        Ok(())
    }
}

/// An identity that nobody bears yet.
pub(super) struct Name {
    id: ReplicaId,
    instance: u64,
}

/// The replica bears this name from here on; its counter starts anew.
pub(super) fn take(tx: &mut Tx<'_>, name: &Name) -> Result<()> {
    let mut former = super::records::meta(tx.conn, FORMER)?.unwrap_or_default();
    if !former.is_empty() {
        former.push(b' ');
    }
    former.extend_from_slice(tx.id.to_string().as_bytes());
    super::records::put_meta(tx.conn, FORMER, &former)?;
    tx.index(name.id)?;
    tx.adopt(name.id);
    super::records::put_meta(tx.conn, "state.id", &name.id.0)?;
    super::records::put_meta(tx.conn, "state.instance", &name.instance.to_le_bytes())?;
    tx.conn.execute("DELETE FROM lineage", []).attempt("start a new lineage").map(|_| ())
}

fn new_nonce() -> Result<u64> {
    // 0 stands for "nothing seen".
    Ok(u64::from_le_bytes(random()?).max(1))
}

fn append_lineage(tx: &mut Tx<'_>, first: u64, nonce: u64) -> Result<()> {
    tx.conn
        .prepare_cached("INSERT INTO lineage (first, known, nonce) VALUES (?1, ?2, ?3)")
        .and_then(|mut insert| insert.execute(params![first as i64, tx.clock.counter as i64, nonce as i64]))
        .attempt("record this start")?;
    Ok(())
}
