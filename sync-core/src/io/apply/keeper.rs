//! What others than a pull take out of a cold root: it goes to the kept versions there, and what was written to it meanwhile, or belongs
//! to a user, stands beside its path.

use super::areas::Areas;
use super::versions::{VersionError, name, now_ns, open_areas, problem_of};
use super::{Stop, late};
use crate::entry::Signature;
use crate::io::fs::{ColdId, Dir, Replace, Root};
use crate::io::source::kind_of;
use crate::io::stage::Failure;
use crate::io::state::{Batch, NewVersion, State};
use crate::path::RelPath;
use crate::report::Problem;

/// Keeps files of a cold root.
pub(crate) struct Keeper<'a> {
    root: &'a Root,
    state: &'a State,
    areas: Areas<'a>,
    cold: ColdId,
}

impl<'a> Keeper<'a> {
    /// Opens the folder of kept versions in a cold root. To be called before anything is taken from its place.
    ///
    /// # Errors
    /// The cold root cannot be used.
    pub(crate) fn open(root: &'a Root, state: &'a State, cold: ColdId) -> Result<Keeper<'a>, VersionError> {
        let keeper = Keeper { root, state, areas: open_areas(root, state)?, cold };
        keeper.areas.of_cold(cold)?;
        Ok(keeper)
    }

    /// A file of ours that stood at `path`, and was then as `signature` says, is kept as any other version: for as long as those are,
    /// and looked at for late writes before it goes. Where it has been written to already it stands beside its path: then that is told.
    ///
    /// # Errors
    /// It stays where it is, or is kept, and cannot be brought beside its path now.
    pub(crate) fn keep(
        &self,
        (from, from_name): (&Dir, &[u8]),
        path: &RelPath,
        signature: &Signature,
    ) -> Result<Option<RelPath>, VersionError> {
        self.keep_version((from, from_name), path, signature).map_err(|stop| at(path, stop))
    }

    fn keep_version(
        &self,
        (from, from_name): (&Dir, &[u8]),
        path: &RelPath,
        signature: &Signature,
    ) -> Result<Option<RelPath>, Stop> {
        let area = self.areas.of_cold(self.cold)?;
        let kind = kind_of(signature).ok_or_else(|| Failure::new("keep", "it is a device, pipe or socket"))?;
        let kept_at_ns = now_ns();
        let new_name = name(path, kept_at_ns);
        let version = NewVersion {
            name: area.kept_address(&new_name),
            path: path.clone(),
            kind,
            signature: *signature,
            hash: None,
            kept_at_ns,
            reason: "replaced",
        };
        // Recorded first: a record without an object is harmless.
        self.state.commit(Batch { versions: vec![version.clone()], ..Batch::default() }, true)?;
        from.rename(from_name, &area.kept, &new_name, Replace::Never)?;
        area.kept.sync()?;
        late::bring_back_and_forget(self.root, self.state, &self.areas, &version)
    }

    /// What a user put in the way stands beside its path then. Returns where.
    ///
    /// # Errors
    /// It stays where it is.
    pub(crate) fn beside(&self, (from, from_name): (&Dir, &[u8]), path: &RelPath) -> Result<RelPath, VersionError> {
        late::keep_beside(self.root, from, from_name, path).map_err(|stop| at(path, stop))
    }
}

fn at(path: &RelPath, stop: Stop) -> VersionError {
    match problem_of(path, stop) {
        Ok(Problem { path, step, error }) => VersionError::Path { path, step, reason: error },
        Err(error) => error,
    }
}
