//! Rows of the entry table within a write transaction, and their decoding anywhere.

use super::encode::{self, Blob};
use super::error::{Attempt, Result, StateError};
use super::names::Names;
use super::nodes::ABOVE;
use super::tx::Tx;
use crate::entry::{Kind, Signature};
use crate::knowledge::Row;
use rusqlite::{OptionalExtension as _, params};

/// Writes a row over whatever stood there.
pub(super) const INSERT: &str = "INSERT INTO entry (parent, name, kind, node, seq, m, c, o, sig, content, attrs) \
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

impl Tx<'_> {
    /// Reads a row. A name beyond the highest of its directory costs no query.
    pub(super) fn stored(&mut self, parent: i64, name: &[u8]) -> Result<Option<Stored>> {
        if let Some(highest) = self.nodes.get(&parent).and_then(|node| node.highest.as_ref())
            && name > highest.as_slice()
        {
            return Ok(None);
        }
        let row = self.lookup(parent, name)?;
        if row.is_none() && parent != ABOVE && self.nodes.get(&parent).is_some_and(|node| node.highest.is_none()) {
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

    pub(super) fn lookup(&self, parent: i64, name: &[u8]) -> Result<Option<Stored>> {
        let names = self.names;
        let mut query = self
            .conn
            .prepare_cached("SELECT kind, node, o, m, c, sig, content, attrs FROM entry WHERE parent = ?1 AND name = ?2")
            .attempt("read a path")?;
        query
            .query_row(params![parent, name], |row| Ok(stored_of(row, &names.read().expect("no panic while names are held"))))
            .optional()
            .attempt("read a path")?
            .transpose()
    }

    /// The sequence number that the next change takes.
    pub(super) fn coming(&self) -> i64 {
        self.clock.seq + 1
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
        let c = if same { None } else { Some(self.events(row.c.iter().count(), row.c.iter())?) };
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
    pub(super) fn write_ghost(&mut self, parent: i64, name: &[u8], node: Option<i64>, own: i64) -> Result<i64> {
        let seq = self.next_seq();
        let none: Option<&[u8]> = None;
        self.insert
            .execute(params![parent, name, 0, node, seq, none, none, own, none, none, none])
            .attempt("record an absent path")?;
        self.written(parent, name, seq);
        Ok(seq)
    }

    /// Gives an existing row another node and o; returns its sequence number.
    pub(super) fn rewrite(&mut self, parent: i64, name: &[u8], node: Option<i64>, own: i64) -> Result<i64> {
        let seq = self.next_seq();
        self.conn
            .prepare_cached("UPDATE entry SET node = ?3, o = ?4, seq = ?5 WHERE parent = ?1 AND name = ?2")
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

/// Decodes the columns kind, node, o, m, c, sig, content, attrs.
pub(super) fn stored_of(row: &rusqlite::Row<'_>, names: &Names) -> Result<Stored> {
    let read = |error| StateError::Sqlite { action: "read a path", source: error };
    let kind = encode::kind_of(row.get(0).map_err(read)?)?;
    let live = match kind {
        None => None,
        Some(kind) => Some(live_of(row, 3, kind, names)?),
    };
    Ok(Stored { node: row.get(1).map_err(read)?, own: row.get(2).map_err(read)?, live })
}

/// Decodes the columns m, c, sig, content, attrs from the column `at` on.
pub(super) fn live_of(row: &rusqlite::Row<'_>, at: usize, kind: Kind, names: &Names) -> Result<(Row, Signature)> {
    let blob = |column: usize| {
        let value = row.get_ref(at + column).map_err(|source| StateError::Sqlite { action: "read a path", source })?;
        value.as_blob_or_null().map_err(|_| StateError::Content { what: "a column of another type" })
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
