//! Before rows of what lies in a cold root are recorded, that comes to a new generation: a copy of it from before is told from it.
//!
//! The folder there bears the number first, then the state remembers it, then the rows are recorded, each no less durable than the
//! next. Wherever a crash comes, the folder is at what the state remembers, or ahead of it by what was not recorded; nothing that was
//! recorded is ahead of the folder. So it is behind only where it is an older one.

use super::fs::{FsError, Root};
use super::kill::kill_point;
use super::state::{State, StateError};
use crate::path::RelPath;
use crate::store::Change;

/// Rows of what was found or made in cold roots are about to be recorded: those come to a new generation first, so that a copy of one
/// that is older than the rows is told from it. Returns what could not be raised, each with a path: of a cold root that may not be
/// written, or is full, all is recorded the same.
///
/// # Errors
/// The state cannot be written.
pub fn raise(root: &Root, state: &State, changes: &[Change]) -> Result<Vec<(RelPath, FsError)>, StateError> {
    let (places, mut failed, mut met) = (root.places(), Vec::new(), Vec::new());
    if places.is_empty() {
        return Ok(failed);
    }
    let told = changes.iter().filter_map(|change| match change {
        Change::Put { path, .. } | Change::Remove { path, .. } | Change::RemoveTree { path, .. } => Some(path),
        // These tell nothing of what is on the disk, or that it is what it was.
        Change::Learn { .. } | Change::Raise { .. } | Change::Refresh { .. } | Change::Forget { .. } => None,
    });
    for placement in told.filter_map(|path| places.above(path)) {
        let cold = &placement.cold;
        if met.contains(&cold.id) {
            continue;
        }
        met.push(cold.id);
        match cold.raise() {
            Ok(generation) => {
                state.put_generation(cold.id, generation)?;
                cold.generation.remember(generation);
                kill_point("cold-raise-remembered");
            }
            Err(error) => failed.push((placement.path.clone(), error)),
        }
    }
    Ok(failed)
}
