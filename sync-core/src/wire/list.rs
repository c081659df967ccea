//! Rows of directories: asked for one by one, answered by as many as may be sent ahead, in pieces.

use super::code::{Code, MAX_LIST, MAX_SIZE, Reader, ascending, fields, plain, put_number};
use super::error::{Fault, WireError};
use super::rows::{Tables, Writer, child_bytes, vector_bytes};
use crate::entry::Digest;
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
/// Most paths that are asked for by name in increments.
pub const MAX_ALSO: usize = 10_000;

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
    /// So many rows of directories below it may be sent without being asked for, parents before children.
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

/// Puts the pieces of a directory together again.
#[derive(Debug, Default)]
pub struct Gather {
    begun: Option<store::Listing>,
}

impl Gather {
    /// The next piece; the listing once it is whole.
    ///
    /// # Errors
    /// The piece does not go on where the one before ended.
    pub fn add(&mut self, piece: Piece) -> Result<Option<store::Listing>, WireError> {
        let wrong = |fault| Err(WireError { field: "Listing", offset: 0, fault });
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
        if whole.children.len() > MAX_ROWS {
            return wrong(Fault::Large { found: whole.children.len() as u64, most: MAX_ROWS as u64 });
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

fields!(ListRequest { path, filter, ahead });
fields!(Also { first, paths as ascending });
fields!(ListingEnd { directories });
fields!(DigestRequest { path });
fields!(DigestAnswer { digest });
