//! Binary form of what outlives a crash outside of the rows: intents with their changes, versions of peers.
//!
//! Self-contained: replicas stand with their full ids. Decoding trusts nothing: every length is checked.

use super::encode::{Reader, put_int, put_uint, read_signature, signature};
use super::error::{Result, StateError};
use super::{Intent, NewVersion, REASONS};
use crate::entry::{Attrs, Content, Hash, Kind, Object, Signature};
use crate::knowledge::{Creation, Event, ReplicaId, Row, Vector};
use crate::path::RelPath;
use crate::store::Change;
use std::sync::Arc;

/// First byte of every encoded value.
const VERSION: u8 = 1;

/// Encodes an intent.
pub(super) fn encode_intent(intent: &Intent) -> Result<Vec<u8>> {
    let mut out = vec![VERSION];
    bytes(&mut out, intent.path.as_bytes());
    bytes(&mut out, &intent.staged);
    option(&mut out, intent.staged_signature.as_ref(), signature);
    option(&mut out, intent.expect.as_ref(), signature);
    put_uint(&mut out, intent.changes.len() as u64);
    intent.changes.iter().for_each(|change| put_change(&mut out, change));
    match &intent.version {
        None => out.push(0),
        Some(version) => {
            out.push(1);
            put_version(&mut out, version)?;
        }
    }
    Ok(out)
}

/// Decodes an intent.
pub(super) fn decode_intent(blob: &[u8]) -> Result<Intent> {
    whole(blob, "an intent", |reader| {
        let path = path(reader)?;
        let staged = read_bytes(reader)?.to_vec();
        let staged_signature = read_option(reader, read_signature)?;
        let expect = read_option(reader, read_signature)?;
        // A change takes more than one byte: the count cannot ask for more memory than the blob bears out.
        let count = usize::try_from(reader.uint()?).ok().filter(|count| *count <= reader.len())?;
        let changes = (0..count).map(|_| read_change(reader)).collect::<Option<Vec<_>>>()?;
        let version = read_option(reader, read_version)?;
        Some(Intent { path, staged, staged_signature, expect, changes, version })
    })
}

/// Encodes a version of a path.
pub(super) fn encode_row(row: &Row) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_row(&mut out, row);
    out
}

/// Decodes a version of a path.
pub(super) fn decode_row(blob: &[u8]) -> Result<Row> {
    whole(blob, "a version", read_row)
}

/// Encodes a vector.
pub(super) fn encode_vector(vector: &Vector) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_events(&mut out, vector.iter());
    out
}

/// Decodes a vector.
pub(super) fn decode_vector(blob: &[u8]) -> Result<Vector> {
    whole(blob, "a vector", |reader| Some(read_events(reader)?.into_iter().collect()))
}

fn whole<T>(blob: &[u8], what: &'static str, read: impl FnOnce(&mut Reader<'_>) -> Option<T>) -> Result<T> {
    let mut reader = Reader::new(blob);
    let version = reader.byte().filter(|version| *version == VERSION);
    let value = version.and_then(|_| read(&mut reader));
    value.filter(|_| reader.is_empty()).ok_or(StateError::Content { what })
}

// ---- parts ----

fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    put_uint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn read_bytes<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = usize::try_from(reader.uint()?).ok()?;
    reader.bytes(len)
}

fn option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

/// The outer `None` is a broken value.
fn read_option<'a, T>(reader: &mut Reader<'a>, read: impl FnOnce(&mut Reader<'a>) -> Option<T>) -> Option<Option<T>> {
    match reader.byte()? {
        0 => Some(None),
        1 => read(reader).map(Some),
        _ => None,
    }
}

fn flag(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.byte()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn path(reader: &mut Reader<'_>) -> Option<RelPath> {
    RelPath::parse(read_bytes(reader)?).ok()
}

fn read_hash(reader: &mut Reader<'_>) -> Option<Hash> {
    reader.array().map(Hash)
}

fn put_events(out: &mut Vec<u8>, events: impl Iterator<Item = Event>) {
    let events: Vec<Event> = events.collect();
    put_uint(out, events.len() as u64);
    for event in events {
        out.extend(event.replica.0);
        put_uint(out, event.counter);
    }
}

fn read_events(reader: &mut Reader<'_>) -> Option<Vec<Event>> {
    let count = usize::try_from(reader.uint()?).ok().filter(|count| *count <= reader.len())?;
    let event = |_| Some(Event { replica: ReplicaId(reader.array()?), counter: reader.uint()? });
    (0..count).map(event).collect()
}

fn put_row(out: &mut Vec<u8>, row: &Row) {
    match &row.object.content {
        Content::Dir => out.push(0),
        Content::File { size, hash } => {
            out.push(1);
            put_uint(out, *size);
            option(out, hash.as_ref(), |out, hash| out.extend(hash.0));
        }
        Content::Symlink(target) => {
            out.push(2);
            bytes(out, target);
        }
    }
    let attrs = &row.object.attrs;
    for value in [attrs.mode, attrs.uid, attrs.gid] {
        put_uint(out, u64::from(value));
    }
    put_int(out, attrs.mtime_ns);
    put_events(out, row.m.iter());
    put_events(out, row.c.iter());
}

fn read_row(reader: &mut Reader<'_>) -> Option<Row> {
    let content = match reader.byte()? {
        0 => Content::Dir,
        1 => Content::File { size: reader.uint()?, hash: read_option(reader, read_hash)? },
        2 => Content::Symlink(read_bytes(reader)?.into()),
        _ => return None,
    };
    let (mode, uid, gid) = (reader.uint32()?, reader.uint32()?, reader.uint32()?);
    let attrs = Attrs { mode, uid, gid, mtime_ns: reader.int()? };
    let m: Vector = read_events(reader)?.into_iter().collect();
    let c: Creation = read_events(reader)?.into_iter().collect();
    Some(Row { object: Object { content, attrs }, m, c })
}

fn put_learn(out: &mut Vec<u8>, learn: Option<&Arc<Vector>>) {
    option(out, learn, |out, learn| put_events(out, learn.iter()));
}

fn vector(reader: &mut Reader<'_>) -> Option<Arc<Vector>> {
    Some(Arc::new(read_events(reader)?.into_iter().collect()))
}

fn put_change(out: &mut Vec<u8>, change: &Change) {
    let (tag, path) = match change {
        Change::Put { path, .. } => (0, path),
        Change::Remove { path, .. } => (1, path),
        Change::RemoveTree { path, .. } => (2, path),
        Change::Learn { path, .. } => (3, path),
        Change::Raise { path, .. } => (4, path),
        Change::Refresh { path, .. } => (5, path),
        Change::Forget { path } => (6, path),
    };
    out.push(tag);
    bytes(out, path.as_bytes());
    match change {
        Change::Put { row, signature: sig, learn, .. } => {
            put_row(out, row);
            signature(out, sig);
            put_learn(out, learn.as_ref());
        }
        Change::Remove { learn, bound, .. } | Change::RemoveTree { learn, bound, .. } => {
            put_learn(out, learn.as_ref());
            put_events(out, bound.iter());
        }
        Change::Learn { learn, bound, .. } => {
            put_events(out, learn.iter());
            put_events(out, bound.iter());
        }
        Change::Raise { s, bound, gaps, .. } => {
            put_learn(out, s.as_ref());
            put_events(out, bound.iter());
            out.push(u8::from(*gaps));
        }
        Change::Refresh { signature: sig, hash, mtime_ns, .. } => {
            signature(out, sig);
            option(out, hash.as_ref(), |out, hash| out.extend(hash.0));
            option(out, *mtime_ns, put_int);
        }
        Change::Forget { .. } => {}
    }
}

fn read_change(reader: &mut Reader<'_>) -> Option<Change> {
    let tag = reader.byte()?;
    let path = path(reader)?;
    Some(match tag {
        0 => {
            let (row, signature) = (read_row(reader)?, read_signature(reader)?);
            Change::Put { path, row, signature, learn: read_option(reader, vector)? }
        }
        1 => Change::Remove { path, learn: read_option(reader, vector)?, bound: vector(reader)? },
        2 => Change::RemoveTree { path, learn: read_option(reader, vector)?, bound: vector(reader)? },
        3 => Change::Learn { path, learn: vector(reader)?, bound: vector(reader)? },
        4 => Change::Raise { path, s: read_option(reader, vector)?, bound: vector(reader)?, gaps: flag(reader)? },
        5 => {
            let signature: Signature = read_signature(reader)?;
            let hash = read_option(reader, read_hash)?;
            Change::Refresh { path, signature, hash, mtime_ns: read_option(reader, Reader::int)? }
        }
        6 => Change::Forget { path },
        _ => return None,
    })
}

fn put_version(out: &mut Vec<u8>, version: &NewVersion) -> Result<()> {
    bytes(out, &version.name);
    bytes(out, version.path.as_bytes());
    out.push(match version.kind {
        Kind::Dir => 0,
        Kind::File => 1,
        Kind::Symlink => 2,
    });
    signature(out, &version.signature);
    option(out, version.hash.as_ref(), |out, hash| out.extend(hash.0));
    put_int(out, version.kept_at_ns);
    let reason = REASONS.iter().position(|reason| *reason == version.reason);
    let rule = "a version is kept for one of the known reasons";
    put_uint(out, reason.ok_or_else(|| StateError::Invariant { path: version.path.clone(), rule })? as u64);
    Ok(())
}

fn read_version(reader: &mut Reader<'_>) -> Option<NewVersion> {
    let name = read_bytes(reader)?.to_vec();
    let path = path(reader)?;
    let kind = match reader.byte()? {
        0 => Kind::Dir,
        1 => Kind::File,
        2 => Kind::Symlink,
        _ => return None,
    };
    let signature = read_signature(reader)?;
    let hash = read_option(reader, read_hash)?;
    let kept_at_ns = reader.int()?;
    let reason = *REASONS.get(usize::try_from(reader.uint()?).ok()?)?;
    Some(NewVersion { name, path, kind, signature, hash, kept_at_ns, reason })
}
