//! Rows of directories: asked for one by one, answered by as many as may be sent ahead, in pieces. And what users decided
//! about paths.

use super::code::{Code, MAX_LIST, MAX_SIZE, Reader, ascending, fields, numbers, plain, put_number};
use super::error::{Fault, WireError};
use super::rows::{Tables, Writer, child_bytes, vector_bytes};
use crate::entry::Digest;
use crate::knowledge::{ReplicaId, Vector};
use crate::path::{Name, RelPath};
use crate::store;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A piece ends before it has more bytes than this; one row more still fits into a message.
const PIECE_BYTES: usize = 512 << 10;
/// Most rows of a piece: the first rows of a huge directory are looked at while the next ones are on their way.
const PIECE_ROWS: usize = 8 << 10;
/// Most rows of a directory. A directory is compared as a whole: this bounds what a peer can make this side hold.
pub const MAX_ROWS: usize = 1 << 24;
/// Most events in all vectors of the rows of a directory, for the same reason.
const MAX_ROW_EVENTS: usize = 1 << 26;
/// Most rows that are sent ahead.
pub const MAX_AHEAD: u32 = 1 << 16;
/// Most paths that are asked for by name in increments.
pub const MAX_ALSO: usize = 10_000;
/// Most decisions that one root tells another.
pub const MAX_DECIDED: usize = 1 << 20;
/// What all of them may take.
const MAX_DECIDED_BYTES: usize = 256 << 20;

/// Which rows of a directory are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// All.
    All,
    /// What changed after this sequence number; and the paths that [`Also`] named.
    Since(u64),
    /// These names.
    Only(Vec<Name>),
}

/// Asks for a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRequest {
    /// Which.
    pub path: RelPath,
    /// Which of its rows.
    pub filter: Filter,
    /// So many rows may be sent without being asked for, a directory counting as one besides its rows; at most [`MAX_AHEAD`].
    /// They are of the directories that follow in the order of the tree, each with the same filter: parents before
    /// children, depth first, names ascending, up to the end of the tree and not only of the directory. Left out are
    /// those that have no rows below them and those that the filter leaves out of the listing above; for
    /// [`Filter::Since`] also what is no live directory, and what is at or below a path of [`Also`]: of those all rows are
    /// asked for. The first that does not fit ends the answer. With [`Filter::Only`] nothing is sent ahead.
    pub ahead: u32,
}

/// Paths that [`Filter::Since`] lists whatever their sequence number, from now on. Told once a pull, in as many messages as it
/// takes, rather than with every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Also {
    /// Forgets those told before.
    pub first: bool,
    /// The paths, ascending.
    pub paths: Vec<RelPath>,
}

/// Rows of a directory, or some of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The directory's knowledge, the same in all its pieces, and the next of its rows.
    pub listing: store::Listing,
    /// Are these the last of its rows?
    pub last: bool,
}

/// The answer to a [`ListRequest`] is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListingEnd {
    /// Directories listed.
    pub directories: u32,
}

/// Asks for the digest of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestRequest {
    /// Which.
    pub path: RelPath,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestAnswer {
    /// D of the directory.
    pub digest: Digest,
}

/// Asks what was decided about conflicts with a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecidedRequest {
    /// Which replica.
    pub with: ReplicaId,
}

/// How a user settles a conflict, in the words of the root where that was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// That root's version.
    Local,
    /// The other's.
    Remote,
    /// The one with the newer modification time.
    Newer,
    /// Both, one as a conflict copy.
    Both,
}

/// One conflict that was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedPath {
    /// Where.
    pub path: RelPath,
    /// How.
    pub decision: Decision,
    /// The other version that it was about; empty for none.
    pub about: Vector,
}

/// Some of what was decided, by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The next ones, ascending.
    pub paths: Vec<DecidedPath>,
    /// Are these the last?
    pub last: bool,
}

impl Filter {
    /// As the store takes it; `also` is what was told by [`Also`].
    #[must_use]
    pub fn to_store(&self, also: &Arc<BTreeSet<RelPath>>) -> store::Filter {
        match self {
            Filter::All => store::Filter::All,
            Filter::Since(after) => store::Filter::Since { after: *after, also: also.clone() },
            Filter::Only(names) => store::Filter::Only(Arc::new(names.clone())),
        }
    }
}

impl From<&store::Filter> for Filter {
    fn from(filter: &store::Filter) -> Filter {
        match filter {
            store::Filter::All => Filter::All,
            // The whole range of 64 bits says "nothing but the header"; the largest number that is sent says the same.
            store::Filter::Since { after, .. } => Filter::Since((*after).min(MAX_SIZE)),
            store::Filter::Only(names) => Filter::Only(names.to_vec()),
        }
    }
}

impl Also {
    /// The messages that name these paths.
    #[must_use]
    pub fn messages(paths: &BTreeSet<RelPath>) -> Vec<Also> {
        let mut messages = vec![Also { first: true, paths: Vec::new() }];
        let mut bytes = 0;
        for path in paths {
            let cost = path.as_bytes().len() + 4;
            if bytes + cost > PIECE_BYTES {
                messages.push(Also { first: false, paths: Vec::new() });
                bytes = 0;
            }
            bytes += cost;
            if let Some(last) = messages.last_mut() {
                last.paths.push(path.clone());
            }
        }
        messages
    }

    /// Adds what a message names to what was named before.
    ///
    /// # Errors
    /// There are more than [`MAX_ALSO`].
    pub fn add_to(self, all: &mut BTreeSet<RelPath>) -> Result<(), WireError> {
        if self.first {
            all.clear();
        }
        all.extend(self.paths);
        let fault = Fault::Large { found: all.len() as u64, most: MAX_ALSO as u64 };
        if all.len() > MAX_ALSO { Err(WireError { field: "Also.paths", offset: 0, fault }) } else { Ok(()) }
    }
}

impl Piece {
    /// Cuts a listing into pieces that fit into messages. There is one at least.
    #[must_use]
    pub fn of(mut listing: store::Listing) -> Vec<Piece> {
        let children = std::mem::take(&mut listing.children);
        let header = 128 + listing.path.as_bytes().len() + vector_bytes(&listing.sub) + vector_bytes(&listing.bound);
        let mut pieces = Vec::new();
        let mut piece = listing.clone();
        let mut bytes = header;
        for child in children {
            let cost = child_bytes(&child);
            if !piece.children.is_empty() && (bytes + cost > PIECE_BYTES || piece.children.len() == PIECE_ROWS) {
                pieces.push(Piece { listing: std::mem::replace(&mut piece, listing.clone()), last: false });
                bytes = header;
            }
            bytes += cost;
            piece.children.push(child);
        }
        pieces.push(Piece { listing: piece, last: true });
        pieces
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::default();
        let listing = &self.listing;
        listing.path.put(&mut writer.body);
        writer.vector(&listing.sub);
        writer.vector(&listing.bound);
        listing.digest.put(&mut writer.body);
        put_number(&mut writer.body, listing.seq);
        writer.body.push(u8::from(listing.full) | u8::from(self.last) << 1);
        put_number(&mut writer.body, listing.children.len() as u64);
        listing.children.iter().for_each(|child| writer.child(child));
        writer.finish(out);
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Piece, WireError> {
        let mut tables = Tables::get(reader)?;
        reader.field = "Listing.path";
        let path = RelPath::get(reader)?;
        reader.field = "Listing.sub";
        let sub = tables.shared(reader)?;
        reader.field = "Listing.bound";
        let bound = tables.shared(reader)?;
        reader.field = "Listing.digest";
        let digest = Digest::get(reader)?;
        reader.field = "Listing.seq";
        let seq = reader.at_most(MAX_SIZE)?;
        reader.field = "Listing.flags";
        let flags = reader.byte()?;
        reader.check(flags < 4, Fault::Unknown(u64::from(flags)))?;
        let (full, last) = (flags & 1 != 0, flags & 2 != 0);
        reader.field = "Listing.children";
        let count = reader.count(MAX_LIST)?;
        let mut children: Vec<store::Child> = Vec::new();
        for _ in 0..count {
            let child = tables.child(reader)?;
            reader.field = "Listing.children";
            reader.check(children.last().is_none_or(|before| before.name < child.name), Fault::Order)?;
            children.push(child);
        }
        let listing = store::Listing { path, sub, bound, digest, seq, full, children };
        Ok(Piece { listing, last })
    }
}

impl Decided {
    /// The messages that tell these decisions.
    #[must_use]
    pub fn messages(paths: Vec<DecidedPath>) -> Vec<Decided> {
        let mut messages = Vec::new();
        let mut next = Decided { paths: Vec::new(), last: true };
        let mut bytes = 0;
        for path in paths {
            let cost = path.bytes();
            if !next.paths.is_empty() && (bytes + cost > PIECE_BYTES || next.paths.len() == PIECE_ROWS) {
                messages.push(Decided { paths: std::mem::take(&mut next.paths), last: false });
                bytes = 0;
            }
            bytes += cost;
            next.paths.push(path);
        }
        messages.push(next);
        messages
    }

    /// Adds what a message tells to what was told before. True if it was the last one.
    ///
    /// # Errors
    /// The paths do not ascend, or are more than [`MAX_DECIDED`]; a message that is not the last one tells nothing.
    pub fn add_to(self, all: &mut Vec<DecidedPath>, bytes: &mut usize) -> Result<bool, WireError> {
        let wrong = |fault| Err(WireError { field: "Decided.paths", offset: 0, fault });
        if self.paths.is_empty() && !self.last {
            return wrong(Fault::Empty);
        }
        if matches!((all.last(), self.paths.first()), (Some(before), Some(next)) if before.path >= next.path) {
            return wrong(Fault::Order);
        }
        *bytes += self.paths.iter().map(DecidedPath::bytes).sum::<usize>();
        all.extend(self.paths);
        for (found, most) in [(all.len(), MAX_DECIDED), (*bytes, MAX_DECIDED_BYTES)] {
            if found > most {
                return wrong(Fault::Large { found: found as u64, most: most as u64 });
            }
        }
        Ok(self.last)
    }
}

impl DecidedPath {
    fn bytes(&self) -> usize {
        8 + self.path.as_bytes().len() + vector_bytes(&self.about)
    }
}

/// Puts the pieces of a directory together again.
#[derive(Debug, Default)]
pub struct Gather {
    begun: Option<store::Listing>,
    /// In the vectors of the rows so far.
    events: usize,
}

impl Gather {
    /// The next piece; the listing once it is whole.
    ///
    /// # Errors
    /// The piece does not go on where the one before ended, or the directory is larger than any.
    pub fn add(&mut self, piece: Piece) -> Result<Option<store::Listing>, WireError> {
        let wrong = |fault| Err(WireError { field: "Listing", offset: 0, fault });
        if piece.listing.children.is_empty() && !piece.last {
            return wrong(Fault::Empty);
        }
        self.events = if self.is_inside() { self.events } else { 0 };
        self.events += piece.listing.children.iter().map(events_of).sum::<usize>();
        let whole = match self.begun.take() {
            None => piece.listing,
            Some(mut begun) => {
                let header = |listing: &store::Listing| {
                    let store::Listing { path, sub, bound, digest, seq, full, children: _ } = listing;
                    (path.clone(), sub.clone(), bound.clone(), *digest, *seq, *full)
                };
                if header(&begun) != header(&piece.listing) {
                    return wrong(Fault::Contradiction("a piece belongs to another listing"));
                }
                let names = (begun.children.last(), piece.listing.children.first());
                if matches!(names, (Some(before), Some(next)) if before.name >= next.name) {
                    return wrong(Fault::Order);
                }
                begun.children.extend(piece.listing.children);
                begun
            }
        };
        for (found, most) in [(whole.children.len(), MAX_ROWS), (self.events, MAX_ROW_EVENTS)] {
            if found > most {
                return wrong(Fault::Large { found: found as u64, most: most as u64 });
            }
        }
        if piece.last {
            return Ok(Some(whole));
        }
        self.begun = Some(whole);
        Ok(None)
    }

    /// Is a directory begun and not ended?
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.begun.is_some()
    }
}

/// Events of all vectors that a row holds or shares.
fn events_of(child: &store::Child) -> usize {
    let row = child.row.as_ref().map_or(0, |row| row.m.len() + row.c.iter().count());
    let tree = child.tree.as_ref().map_or(0, |tree| tree.s.len() + tree.bound.len());
    row + tree + child.own.as_ref().map_or(0, |own| own.len())
}

/// How many rows may be sent ahead.
mod ahead {
    use super::{MAX_AHEAD, Reader, WireError, put_number};

    pub(super) fn put(value: &u32, out: &mut Vec<u8>) {
        put_number(out, u64::from(*value));
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<u32, WireError> {
        Ok(reader.at_most(u64::from(MAX_AHEAD))? as u32)
    }
}

/// A list of decisions whose paths ascend.
mod by_path {
    use super::{DecidedPath, Fault, Reader, WireError, plain};

    pub(super) fn put(list: &Vec<DecidedPath>, out: &mut Vec<u8>) {
        plain::put(list, out);
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Vec<DecidedPath>, WireError> {
        let list: Vec<DecidedPath> = plain::get(reader)?;
        reader.check(list.is_sorted_by(|a, b| a.path < b.path), Fault::Order)?;
        Ok(list)
    }
}

impl Code for Filter {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Filter::All => out.push(0),
            Filter::Since(after) => {
                out.push(1);
                put_number(out, *after);
            }
            Filter::Only(names) => {
                out.push(2);
                plain::put(names, out);
            }
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Filter, WireError> {
        match reader.byte()? {
            0 => Ok(Filter::All),
            1 => Ok(Filter::Since(reader.at_most(MAX_SIZE)?)),
            2 => Ok(Filter::Only(ascending::get(reader)?)),
            other => reader.fail(Fault::Unknown(u64::from(other))),
        }
    }
}

numbers!(Decision { Local = 0, Remote = 1, Newer = 2, Both = 3 });
fields!(ListRequest { path, filter, ahead as ahead });
fields!(Also { first, paths as ascending });
fields!(ListingEnd { directories });
fields!(DigestRequest { path });
fields!(DigestAnswer { digest });
fields!(DecidedRequest { with });
fields!(DecidedPath { path, decision, about });
fields!(Decided { paths as by_path, last });
