//! One root outside of a run: its open conflicts and its kept versions.

use super::by_hand::{self, Keep, KeptVersion, OpenConflict};
use super::live::nobody;
use super::roots::{Candidate, Found};
use super::{Options, SyncError, roots};
use crate::entry::AttrMask;
use crate::io::apply;
use crate::io::archive::{self, Archive, ArchiveError, Whose};
use crate::io::fs::Root;
use crate::io::places;
use crate::io::state::State;
use crate::path::{RelPath, escape};
use crate::report::Monitor;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One root outside of a run: its conflicts, its kept versions. Holds the root's lock.
pub struct Replica {
    root: Root,
    state: State,
    notices: Vec<String>,
}

impl Replica {
    /// Opens a root that was synchronised before.
    ///
    /// # Errors
    /// The root cannot be opened, was never synchronised, is held by another process, or its marker and its state do
    /// not belong together; nothing was changed then.
    pub fn open(root: &Path, state_dir: Option<&Path>) -> Result<Replica, SyncError> {
        let mut found = roots::find(root, state_dir)?;
        if found.marker.is_none() && !found.has_state {
            let root = found.root.path().display();
            return Err(SyncError::Root(format!("the root {root} was never synchronised: it has no state")));
        }
        roots::check_marker(&found, false)?;
        let mask = AttrMask::standard(rustix::process::geteuid().is_root());
        let state = found.open_state(mask)?;
        roots::check_unmarked(&found, Some(&state))?;
        let strange = found.marker.as_ref().map(|marker| marker.strange(&state)).transpose()?.flatten();
        let root = found.root;
        if let Some(strange) = strange {
            return Err(roots::not_of_this_tree(&root, &strange));
        }
        places::load(&root, &state)?;
        let mut notices = apply::recover(&root, &state, mask)?.notices();
        let unowned = places::own(&root, &state)?;
        notices
            .extend(unowned.iter().map(|error| format!("whose the folder in a cold root is cannot be written there: {error}")));
        Ok(Replica { root, state, notices })
    }

    /// The root and its state, for whoever moves directories to a cold root or back ([`places`]).
    #[must_use]
    pub fn parts(&self) -> (&Root, &State) {
        (&self.root, &self.state)
    }

    /// As [`Replica::open`], and begins a root that was never synchronised: it gets its marker and a state, and nothing is scanned.
    ///
    /// # Errors
    /// As [`Replica::open`], but for a root without a state.
    pub fn begin(root: &Path, state_dir: Option<&Path>, monitor: &dyn Monitor) -> Result<Replica, SyncError> {
        let found = roots::find(root, state_dir)?;
        if found.marker.is_some() || found.has_state {
            return Replica::open(root, state_dir);
        }
        let options = Options { state_dir: state_dir.map(Path::to_owned), ..Options::standard() };
        Replica::begun(found, &options, monitor)
    }

    /// As [`Replica::begin`], also for a root whose state is gone: then a new one is begun, of which others know nothing.
    ///
    /// # Errors
    /// As [`Replica::begin`].
    pub fn begin_anew(root: &Path, state_dir: Option<&Path>, monitor: &dyn Monitor) -> Result<Replica, SyncError> {
        let found = roots::find(root, state_dir)?;
        if found.has_state {
            return Replica::open(root, state_dir);
        }
        let options = Options { rejoin: true, state_dir: state_dir.map(Path::to_owned), ..Options::standard() };
        Replica::begun(found, &options, monitor)
    }

    /// Archived days that this root had before are known again.
    fn begun(found: Found, options: &Options, monitor: &dyn Monitor) -> Result<Replica, SyncError> {
        let (opened, _) = Candidate::of(found, options)?.open(&nobody(), options, monitor)?;
        opened.state.settle()?;
        let notices = roots::regain(&opened.root, &opened.state)?;
        Ok(Replica { root: opened.root, state: opened.state, notices })
    }

    /// Moves days of this root between hot and cold. The root is not scanned, and nobody else can change it, for as long as this is held.
    ///
    /// # Errors
    /// The root's file system cannot exchange names, or the journal cannot be opened.
    pub fn archive<'a>(&'a self, monitor: &'a dyn Monitor) -> Result<Archive<'a>, ArchiveError> {
        let mask = AttrMask::standard(rustix::process::geteuid().is_root());
        Archive::open((&self.root, &self.state, mask), monitor)
    }

    /// Where days lie that are not in the root, with their cold roots, by path.
    #[must_use]
    pub fn placed(&self) -> Vec<(RelPath, PathBuf)> {
        self.root.places().all().map(|placement| (placement.path.clone(), placement.location())).collect()
    }

    /// What lies in cold roots is this root's from now on, and no other one's that used it; so is what links in the root lead to and
    /// the state knows nothing of. `named`: a cold root to which links lead by a way that is not one of this machine's. Returns the
    /// cold roots, and what a user should hear of days that were found.
    ///
    /// # Errors
    /// A cold root is not there, or cannot be written.
    pub fn claim(&self, named: Option<&Path>) -> Result<(Vec<PathBuf>, Vec<String>), SyncError> {
        let regained = archive::regain(&self.root, &self.state, Whose::Anyones(named))?;
        let places::Claimed { colds, notices, failed } = places::claim(&self.root, &self.state)?;
        let notices: Vec<String> = regained.notices(self.root.path()).into_iter().chain(notices).collect();
        if failed.is_empty() {
            return Ok((colds, notices));
        }
        let shown = |path: &PathBuf| format!("what {} holds belongs to it now", escape(path.as_os_str().as_bytes()));
        let failed = failed.iter().map(|error| format!("{error}; it was not claimed: claim again when that is mended"));
        let told: Vec<String> = notices.into_iter().chain(colds.iter().map(shown)).chain(failed).collect();
        Err(SyncError::Root(format!("{}: {}", escape(self.root.path().as_os_str().as_bytes()), told.join("\n"))))
    }

    /// What archiving remembers under a name.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn archive_note(&self, name: &str) -> Result<Option<Vec<u8>>, SyncError> {
        Ok(self.state.meta(&format!("archive.{name}"))?)
    }

    /// Remembers something for archiving; it has reached the disk when the call returns.
    ///
    /// # Errors
    /// The state cannot be written.
    pub fn put_archive_note(&self, name: &str, value: &[u8]) -> Result<(), SyncError> {
        Ok(self.state.put_meta(&format!("archive.{name}"), value)?)
    }

    /// What a user should hear of what an interrupted run had left, and of what became of it when the root was opened.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Open conflicts, by path; one with a replica that several machines spoke for comes once.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn conflicts(&self) -> Result<Vec<OpenConflict>, SyncError> {
        by_hand::conflicts(&self.state)
    }

    /// Records how conflicts at these paths, or below them, are to be settled at the next run; returns their paths.
    ///
    /// # Errors
    /// The state cannot be read or written.
    pub fn resolve(&mut self, at: &[RelPath], keep: Keep) -> Result<Vec<RelPath>, SyncError> {
        by_hand::resolve(&self.state, at, keep)
    }

    /// Kept versions at or below a path, newest first.
    ///
    /// # Errors
    /// The state or the folder of kept versions cannot be read.
    pub fn versions(&self, at: &RelPath) -> Result<Vec<KeptVersion>, SyncError> {
        by_hand::versions(&self.root, &self.state, at)
    }

    /// Brings a kept version back to its path (the newest, or the given one). What stands there now is kept in turn.
    ///
    /// # Errors
    /// There is no such version, or it cannot be moved; nothing is lost then.
    pub fn restore(&mut self, path: &RelPath, version: Option<i64>) -> Result<KeptVersion, SyncError> {
        by_hand::restore(&self.root, &self.state, path, version)
    }
}
