//! A directory that goes while something in it comes to be elsewhere, though not all of it: which directories are taken apart, so that
//! each path in them can be half of a move.

use super::SyncError;
use super::opened::Opened;
use crate::entry::{Digest, Hash, Kind};
use crate::io::apply::OFFERS;
use crate::io::state::NodeId;
use crate::path::RelPath;
use crate::store::Filter;
use std::collections::{BTreeSet, HashSet};

/// What comes to be and found no origin among what goes: as much of it as moves are looked for.
#[derive(Default)]
pub(super) struct Lone {
    files: HashSet<Hash>,
    trees: HashSet<Digest>,
}

impl Lone {
    pub(super) fn file(&mut self, hash: Hash) {
        if self.files.len() < OFFERS {
            self.files.insert(hash);
        }
    }

    pub(super) fn tree(&mut self, digest: Digest) {
        if digest != Digest::default() && self.trees.len() < OFFERS {
            self.trees.insert(digest);
        }
    }

    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.trees.is_empty()
    }
}

/// Of directories that go whole, and all that is in them: those that hold something which comes to be elsewhere. A directory in them that comes to be
/// elsewhere as it is, or of which nothing does, is none of them and goes whole.
pub(super) fn find<'p>(
    opened: &Opened,
    going: impl IntoIterator<Item = &'p RelPath>,
    lone: &Lone,
) -> Result<BTreeSet<RelPath>, SyncError> {
    let mut apart = BTreeSet::new();
    if lone.is_empty() {
        return Ok(apart);
    }
    for dir in going {
        if let Some(node) = opened.state.node(dir)? {
            look(opened, (dir, node), lone, &mut apart)?;
        }
    }
    Ok(apart)
}

/// Does a directory hold anything that comes to be elsewhere? Then it is taken apart.
fn look(opened: &Opened, (dir, node): (&RelPath, NodeId), lone: &Lone, apart: &mut BTreeSet<RelPath>) -> Result<bool, SyncError> {
    let mut holds = false;
    for known in opened.state.known(node)? {
        holds |= match (known.kind, known.node) {
            (Kind::File, _) => known.hash.is_some_and(|hash| lone.files.contains(&hash)),
            (Kind::Dir, Some(node)) => {
                let path = dir.join(&known.name);
                let digest = opened.state.listing(&path, &Filter::header())?.digest;
                lone.trees.contains(&digest) || look(opened, (&path, node), lone, apart)?
            }
            _ => false,
        };
    }
    // Without room it goes whole, and with it what is in it.
    let taken = holds && apart.len() < OFFERS;
    if taken {
        apart.insert(dir.clone());
    }
    Ok(taken)
}
