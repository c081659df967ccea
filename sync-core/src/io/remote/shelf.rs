//! Listings that came from the other side: those ahead of the walk, and those that were handed out, for who asks again.
//!
//! What is handed out is never older than what was handed out before: knowledge read with a directory may be raised only over
//! rows that were read then or later. So all that is kept is of one moment of the source, by its sequence number, and goes when a
//! newer listing is handed out. Nothing here knows of connections.

use crate::entry::{Content, Digest};
use crate::knowledge::{Event, Vector};
use crate::path::RelPath;
use crate::store::{Child, Filter, Listing};
use crate::wire::{MAX_AHEAD, MAX_SIZE};
use std::collections::{BTreeMap, VecDeque};

/// Filters whose listings are held at a time. A walk by increments asks for all rows where it must.
const SHELVES: usize = 3;

/// How much is asked for ahead, and how much is held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Rows ahead in the first answer.
    pub(super) first_ahead: u32,
    /// At the least, where what came was not used.
    pub(super) least_ahead: u32,
    /// At the most.
    pub(super) most_ahead: u32,
    /// Bytes of listings that wait for the walk; what came beyond is asked for again.
    pub(super) coming_bytes: usize,
    /// Bytes of listings that were handed out; further ones are asked for again.
    pub(super) kept_bytes: usize,
}

impl Limits {
    pub(super) const STANDARD: Limits =
        Limits { first_ahead: 1 << 10, least_ahead: 1 << 6, most_ahead: MAX_AHEAD, coming_bytes: 32 << 20, kept_bytes: 64 << 20 };
}

/// What is held, by filter.
#[derive(Debug)]
pub(super) struct Shelves {
    limits: Limits,
    /// The one asked for last is the last.
    shelves: Vec<Shelf>,
    /// Of the newest listing that was handed out, and of all that are kept.
    seq: u64,
    coming_bytes: usize,
    kept_bytes: usize,
}

#[derive(Debug)]
struct Shelf {
    filter: Filter,
    /// Rows asked for ahead, the last time; `None` before.
    ahead: Option<u32>,
    /// Rows that came ahead since, and how many of them were used.
    came: usize,
    used: usize,
    /// In the order of the tree.
    coming: VecDeque<Listing>,
    kept: BTreeMap<RelPath, Listing>,
}

/// What is held of a directory.
pub(super) enum Found {
    /// Its listing.
    Listing(Listing),
    /// Nothing, and it does not come any more.
    Nothing,
    /// Nothing so far.
    NotYet,
}

/// Is it a filter by which trees are walked? Others ask for a directory alone.
pub(super) fn walks(filter: &Filter) -> bool {
    match filter {
        Filter::All => true,
        Filter::Since { after, .. } => *after < MAX_SIZE,
        Filter::Only(_) => false,
    }
}

impl Shelves {
    pub(super) fn new(limits: Limits) -> Shelves {
        Shelves { limits, shelves: Vec::new(), seq: 0, coming_bytes: 0, kept_bytes: 0 }
    }

    /// The newest sequence number of what was handed out.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Drops all listings.
    pub(super) fn forget(&mut self) {
        (self.seq, self.coming_bytes, self.kept_bytes) = (0, 0, 0);
        for shelf in &mut self.shelves {
            *shelf = Shelf { ahead: shelf.ahead, ..Shelf::new(&shelf.filter) };
        }
    }

    /// Looks for a directory, and hands it out. What came ahead of it was passed over, and is dropped.
    pub(super) fn take(&mut self, filter: &Filter, path: &RelPath) -> Found {
        let seq = self.seq;
        let Some(shelf) = self.shelf(filter) else { return Found::NotYet };
        // The next look compares pointers and not ten thousand paths.
        shelf.filter = filter.clone();
        if let Some(kept) = shelf.kept.get(path) {
            return Found::Listing(kept.clone());
        }
        let mut dropped = 0;
        let mut found = Found::NotYet;
        while let Some(next) = shelf.coming.pop_front() {
            if next.path > *path {
                shelf.coming.push_front(next);
                found = Found::Nothing;
                break;
            }
            dropped += bytes_of(&next);
            if next.path == *path {
                found = Found::Nothing;
                if next.seq >= seq {
                    shelf.used += cost(&next);
                    found = Found::Listing(next);
                }
                break;
            }
        }
        self.coming_bytes -= dropped;
        match found {
            Found::Listing(listing) => Found::Listing(self.hand_out(filter, listing)),
            other => other,
        }
    }

    /// Puts up what came ahead, after all that came before.
    pub(super) fn came(&mut self, filter: &Filter, listing: Listing) {
        let bytes = bytes_of(&listing);
        let room = self.coming_bytes + bytes <= self.limits.coming_bytes;
        let Some(shelf) = self.shelf(filter) else { return };
        shelf.came += cost(&listing);
        if room {
            shelf.coming.push_back(listing);
            self.coming_bytes += bytes;
        }
    }

    /// The listing that was asked for, or that came ahead of its time and is used now.
    pub(super) fn hand_out(&mut self, filter: &Filter, listing: Listing) -> Listing {
        if listing.seq > self.seq {
            self.seq = listing.seq;
            self.shelves.iter_mut().for_each(|shelf| shelf.kept.clear());
            self.kept_bytes = 0;
        }
        let bytes = bytes_of(&listing);
        if self.kept_bytes + bytes > self.limits.kept_bytes {
            return listing;
        }
        if let Some(shelf) = self.shelf(filter)
            && let None = shelf.kept.insert(listing.path.clone(), listing.clone())
        {
            self.kept_bytes += bytes;
        }
        listing
    }

    /// A directory with this filter is to be asked for: so many rows ahead. What is still ahead of an earlier answer goes.
    pub(super) fn ask(&mut self, filter: &Filter) -> u32 {
        let limits = self.limits;
        match self.shelves.iter().position(|shelf| shelf.filter == *filter) {
            Some(at) => {
                let shelf = self.shelves.remove(at);
                self.shelves.push(shelf);
            }
            None => self.shelves.push(Shelf::new(filter)),
        }
        if self.shelves.len() > SHELVES {
            let shelf = self.shelves.remove(0);
            self.kept_bytes -= shelf.kept.values().map(bytes_of).sum::<usize>();
            self.coming_bytes -= shelf.coming.iter().map(bytes_of).sum::<usize>();
        }
        let Some(shelf) = self.shelves.last_mut() else { return 0 };
        self.coming_bytes -= shelf.coming.drain(..).map(|listing| bytes_of(&listing)).sum::<usize>();
        let ahead = match shelf.ahead {
            None => limits.first_ahead,
            // Where nothing came at all the next directory may have been too large.
            Some(ahead) if shelf.used * 2 >= shelf.came => ahead.saturating_mul(4).min(limits.most_ahead),
            Some(ahead) => (ahead / 4).max(limits.least_ahead),
        };
        (shelf.ahead, shelf.came, shelf.used) = (Some(ahead), 0, 0);
        ahead
    }

    /// D of a directory, as kept rows tell it.
    pub(super) fn digest(&self, dir: &RelPath) -> Option<Digest> {
        let own = self.shelves.iter().find_map(|shelf| shelf.kept.get(dir));
        own.map(|listing| listing.digest).or_else(|| {
            let (above, name) = dir.split()?;
            let above = self.shelves.iter().find_map(|shelf| {
                let children = &shelf.kept.get(&above)?.children;
                let at = children.binary_search_by(|child| child.name.cmp(&name)).ok()?;
                children[at].tree.as_ref()
            });
            above.map(|tree| tree.digest)
        })
    }

    fn shelf(&mut self, filter: &Filter) -> Option<&mut Shelf> {
        self.shelves.iter_mut().find(|shelf| shelf.filter == *filter)
    }
}

impl Shelf {
    fn new(filter: &Filter) -> Shelf {
        let (coming, kept) = Default::default();
        Shelf { filter: filter.clone(), ahead: None, came: 0, used: 0, coming, kept }
    }
}

/// What a listing counts among the rows sent ahead.
fn cost(listing: &Listing) -> usize {
    listing.children.len() + 1
}

/// Bytes that a listing takes, vectors counted as if they were not shared.
fn bytes_of(listing: &Listing) -> usize {
    let header = size_of::<Listing>() + listing.path.as_bytes().len() + vector_bytes(&listing.sub) + vector_bytes(&listing.bound);
    header + listing.children.iter().map(child_bytes).sum::<usize>()
}

fn child_bytes(child: &Child) -> usize {
    let mut bytes = size_of::<Child>() + child.name.as_bytes().len();
    if let Some(row) = &child.row {
        bytes += (row.m.len() + row.c.iter().count()).saturating_sub(2) * size_of::<Event>();
        if let Content::Symlink(target) = &row.object.content {
            bytes += target.len();
        }
    }
    if let Some(tree) = &child.tree {
        bytes += tree.s.len() * size_of::<Event>() + vector_bytes(&tree.bound);
    }
    bytes + child.own.as_ref().map_or(0, |own| vector_bytes(own))
}

fn vector_bytes(vector: &Vector) -> usize {
    size_of::<Vector>() + vector.len() * size_of::<Event>()
}
