//! Files here that may already have the content of a file that is to come: those of its size. One that is equal, or nearly, is the
//! base of a delta, and only what differs crosses the link.

use crate::entry::Kind;
use crate::io::state::{NodeId, State, StateError};
use crate::path::RelPath;
use std::collections::HashMap;

/// Smaller files come as they are.
const LEAST: u64 = 64 << 10;
/// Sizes that are remembered.
const MOST: usize = 65_536;

/// One file of each size.
#[derive(Debug, Default)]
pub(super) struct Alike {
    by_size: HashMap<u64, RelPath>,
}

impl Alike {
    /// The files that stand here now. Reads all rows once.
    pub(super) fn of(state: &State) -> Result<Alike, StateError> {
        let mut alike = Alike::default();
        alike.add_below(state, &RelPath::root(), NodeId::ROOT)?;
        Ok(alike)
    }

    fn add_below(&mut self, state: &State, dir: &RelPath, node: NodeId) -> Result<(), StateError> {
        for known in state.known(node)? {
            match (known.kind, known.node) {
                (Kind::Dir, Some(node)) => self.add_below(state, &dir.join(&known.name), node)?,
                (Kind::File, _) if known.signature.size >= LEAST && self.by_size.len() < MOST => {
                    self.by_size.entry(known.signature.size).or_insert_with(|| dir.join(&known.name));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A file of this size.
    pub(super) fn find(&self, size: u64) -> Option<&RelPath> {
        self.by_size.get(&size)
    }

    /// May a file of this size be asked about?
    pub(super) fn counts(size: u64) -> bool {
        size >= LEAST
    }
}
