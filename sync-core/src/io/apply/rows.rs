//! The rows of a root as they will be when what was done is recorded: the state, overlaid with what is pending.

use crate::entry::Signature;
use crate::io::source::kind_of;
use crate::io::state::{Known, NodeId, State, StateError};
use crate::knowledge::Row;
use crate::path::RelPath;
use crate::store::Change;
use std::collections::BTreeMap;
use std::ops::Bound;

/// A live path.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) row: Row,
    pub(super) signature: Signature,
}

/// The state's rows with the pending changes over them.
pub(super) struct Rows<'a> {
    state: &'a State,
    /// `None`: absent.
    pending: BTreeMap<RelPath, Option<Live>>,
    /// Directories that went with everything below them.
    gone: Vec<RelPath>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(state: &'a State) -> Rows<'a> {
        Rows { state, pending: BTreeMap::new(), gone: Vec::new() }
    }

    /// What is live at a path.
    pub(super) fn current(&self, path: &RelPath) -> Result<Option<Live>, StateError> {
        if let Some(pending) = self.pending.get(path) {
            return Ok(pending.clone());
        }
        if self.gone.iter().any(|dir| dir.contains(path)) {
            return Ok(None);
        }
        let entry = self.state.entry(path)?;
        Ok(entry.map(|entry| Live { row: entry.row, signature: entry.signature }))
    }

    /// The live children of a directory by name ascending; `node` is its number if the caller knows it.
    pub(super) fn children(&self, dir: &RelPath, node: Option<NodeId>) -> Result<Vec<Known>, StateError> {
        let node = match node {
            Some(node) => Some(node),
            None if self.gone.iter().any(|gone| gone.contains(dir)) => None,
            None => self.state.node(dir)?,
        };
        let mut known = node.map_or(Ok(Vec::new()), |node| self.state.known(node))?;
        let below = (Bound::Excluded(dir.clone()), Bound::Unbounded);
        for (path, live) in self.pending.range(below).take_while(|(path, _)| dir.contains(path)) {
            let Some((parent, name)) = path.split() else { continue };
            if parent != *dir {
                continue;
            }
            let at = known.binary_search_by(|known| known.name.cmp(&name));
            match (live, at) {
                (None, Ok(at)) => drop(known.remove(at)),
                (None, Err(_)) => {}
                (Some(live), Ok(at)) => renew(&mut known[at], live),
                (Some(live), Err(at)) => {
                    let mut new = Known {
                        name,
                        kind: live.row.object.kind(),
                        signature: live.signature,
                        mtime_ns: live.row.object.attrs.mtime_ns,
                        hash: None,
                        node: None,
                    };
                    renew(&mut new, live);
                    known.insert(at, new);
                }
            }
        }
        Ok(known)
    }

    /// Takes changes over that are not recorded yet.
    pub(super) fn overlay(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put { path, row, signature, .. } => {
                    let live = Live { row: row.clone(), signature: *signature };
                    self.pending.insert(path.clone(), Some(live));
                }
                Change::Remove { path, .. } => drop(self.pending.insert(path.clone(), None)),
                Change::RemoveTree { path, .. } | Change::Forget { path } => {
                    self.pending.retain(|below, _| !path.contains(below));
                    self.pending.insert(path.clone(), None);
                    self.gone.push(path.clone());
                }
                Change::Refresh { path, signature, .. } => {
                    if let Some(Some(live)) = self.pending.get_mut(path) {
                        live.signature = *signature;
                    }
                }
                Change::Learn { .. } | Change::Raise { .. } => {}
            }
        }
    }

    /// What was pending is recorded.
    pub(super) fn recorded(&mut self) {
        self.pending.clear();
        self.gone.clear();
    }
}

fn renew(known: &mut Known, live: &Live) {
    if known.kind != live.row.object.kind() {
        known.node = None;
    }
    known.kind = kind_of(&live.signature).unwrap_or(live.row.object.kind());
    known.signature = live.signature;
    known.mtime_ns = live.row.object.attrs.mtime_ns;
    known.hash = super::job::hash_of(&live.row.object);
}
