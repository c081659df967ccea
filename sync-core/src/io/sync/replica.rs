//! One root outside of a run: its open conflicts and its kept versions.

use super::live::nobody;
use super::roots::{Candidate, Found};
use super::{Options, SyncError, conflicts, roots};
use crate::entry::{AttrMask, Content, Kind};
use crate::io::apply;
use crate::io::archive::{self, Archive, ArchiveError, Whose};
use crate::io::fs::Root;
use crate::io::places;
use crate::io::state::{Decision, State, Version};
use crate::io::there::{decided_on, version};
use crate::knowledge::Row;
use crate::path::{RelPath, escape};
use crate::report::Monitor;
use std::path::{Path, PathBuf};

/// One root outside of a run: its conflicts, its kept versions. Holds the root's lock.
pub struct Replica {
    root: Root,
    state: State,
    notices: Vec<String>,
}

/// An open conflict of one root.
#[derive(Debug, Clone)]
pub struct OpenConflict {
    /// Where.
    pub path: RelPath,
    /// Modification time here, ns; `None`: absent here.
    pub ours_mtime_ns: Option<i64>,
    /// Modification time there.
    pub theirs_mtime_ns: Option<i64>,
    /// Sizes, likewise.
    pub ours_size: Option<u64>,
    /// Size there.
    pub theirs_size: Option<u64>,
    /// Where the other replica was last found.
    pub other: String,
    /// What was decided and waits for the next run: "local", "remote", "newer", "both".
    pub decided: Option<&'static str>,
}

/// A kept version.
#[derive(Debug, Clone)]
pub struct KeptVersion {
    /// Its number, unique within the root.
    pub id: i64,
    /// The path it had.
    pub path: RelPath,
    /// "file", "dir", "symlink".
    pub kind: crate::entry::Kind,
    /// Size in bytes, for a file.
    pub size: u64,
    /// Modification time, ns.
    pub mtime_ns: i64,
    /// When it was displaced, ns.
    pub kept_at_ns: i64,
    /// "replaced", "deleted", "lost a conflict".
    pub reason: String,
}

/// How a conflict is settled by `resolve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// This root's version.
    Local,
    /// The other's.
    Remote,
    /// The newer one.
    Newer,
    /// Both.
    Both,
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
        Ok((places::claim(&self.root, &self.state)?, regained.notices(self.root.path())))
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
        let mut found = Vec::new();
        for (other, open) in conflicts::each(&self.state)? {
            let ours = self.state.entry(&open.path)?.map(|entry| entry.row);
            found.push(OpenConflict {
                ours_mtime_ns: ours.as_ref().map(|row| row.object.attrs.mtime_ns),
                theirs_mtime_ns: open.theirs.as_ref().map(|row| row.object.attrs.mtime_ns),
                ours_size: ours.as_ref().and_then(size),
                theirs_size: open.theirs.as_ref().and_then(size),
                other: self.state.peer(other)?.map_or_else(|| other.to_string(), |peer| escape(&peer.location)),
                decided: open.decision.map(word),
                path: open.path,
            });
        }
        Ok(found)
    }

    /// Records how conflicts at these paths, or below them, are to be settled at the next run; returns their paths.
    ///
    /// # Errors
    /// The state cannot be read or written.
    pub fn resolve(&mut self, at: &[RelPath], keep: Keep) -> Result<Vec<RelPath>, SyncError> {
        let decision = match keep {
            Keep::Local => Decision::Local,
            Keep::Remote => Decision::Remote,
            Keep::Newer => Decision::Newer,
            Keep::Both => Decision::Both,
        };
        let mut resolved = Vec::new();
        for (other, open) in conflicts::open(&self.state)? {
            if at.iter().any(|at| at.contains(&open.path)) {
                // What is edited here after the decision was not decided on.
                let version = version(&self.state, &open.path)?;
                self.state.put_meta(&decided_on(other, &open.path), &version)?;
                self.state.decide(other, &open.path, Some(decision))?;
                resolved.push(open.path);
            }
        }
        resolved.sort();
        resolved.dedup();
        Ok(resolved)
    }

    /// Kept versions at or below a path, newest first.
    ///
    /// # Errors
    /// The state or the folder of kept versions cannot be read.
    pub fn versions(&self, at: &RelPath) -> Result<Vec<KeptVersion>, SyncError> {
        Ok(apply::list(&self.root, &self.state, at)?.into_iter().map(kept).collect())
    }

    /// Brings a kept version back to its path (the newest, or the given one). What stands there now is kept in turn.
    ///
    /// # Errors
    /// There is no such version, or it cannot be moved; nothing is lost then.
    pub fn restore(&mut self, path: &RelPath, version: Option<i64>) -> Result<KeptVersion, SyncError> {
        Ok(kept(apply::restore(&self.root, &self.state, path, version)?))
    }
}

fn size(row: &Row) -> Option<u64> {
    match row.object.content {
        Content::File { size, .. } => Some(size),
        Content::Dir | Content::Symlink(_) => None,
    }
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Local => "local",
        Decision::Remote => "remote",
        Decision::Newer => "newer",
        Decision::Both => "both",
    }
}

fn kept(version: Version) -> KeptVersion {
    let kept = version.kept;
    KeptVersion {
        id: version.id,
        path: kept.path,
        kind: kept.kind,
        size: if kept.kind == Kind::File { kept.signature.size } else { 0 },
        mtime_ns: kept.signature.mtime_ns,
        kept_at_ns: kept.kept_at_ns,
        reason: kept.reason.to_string(),
    }
}
