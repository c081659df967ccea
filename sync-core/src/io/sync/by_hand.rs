//! What a user looks at and does in one root by hand, whoever has it open: conflicts and kept versions.

use super::live::Live;
use super::{SyncError, conflicts};
use crate::entry::{Content, Kind};
use crate::io::apply;
use crate::io::fs::Root;
use crate::io::state::{Decision, State, Version};
use crate::io::there::{decided_on, version};
use crate::knowledge::Row;
use crate::path::{RelPath, escape};
use crate::report::Monitor;
use serde::{Deserialize, Serialize};

/// An open conflict of one root.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// What was decided and waits for the next run.
    pub decided: Option<Keep>,
}

/// A kept version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptVersion {
    /// Its number, unique within the root.
    pub id: i64,
    /// The path it had.
    pub path: RelPath,
    /// What it is.
    pub kind: Kind,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

impl Keep {
    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Keep::Local => "local",
            Keep::Remote => "remote",
            Keep::Newer => "newer",
            Keep::Both => "both",
        }
    }

    fn decision(self) -> Decision {
        match self {
            Keep::Local => Decision::Local,
            Keep::Remote => Decision::Remote,
            Keep::Newer => Decision::Newer,
            Keep::Both => Decision::Both,
        }
    }

    fn of(decision: Decision) -> Keep {
        match decision {
            Decision::Local => Keep::Local,
            Decision::Remote => Keep::Remote,
            Decision::Newer => Keep::Newer,
            Decision::Both => Keep::Both,
        }
    }
}

/// The same as of a [`Replica`](super::Replica), while its owner goes on: what changes anything waits for its turn.
impl Live {
    /// Open conflicts, by path.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn conflicts(&self) -> Result<Vec<OpenConflict>, SyncError> {
        conflicts(&self.opened().state)
    }

    /// Records how conflicts at these paths, or below them, are to be settled; returns their paths. Others hear of it.
    ///
    /// # Errors
    /// The state cannot be read or written, or the monitor said to stop before it was this one's turn.
    pub fn resolve(&self, at: &[RelPath], keep: Keep, monitor: &dyn Monitor) -> Result<Vec<RelPath>, SyncError> {
        let resolved = self.in_turn(monitor, |_, state| resolve(state, at, keep))?;
        if !resolved.is_empty() {
            self.tell();
        }
        Ok(resolved)
    }

    /// Kept versions at or below a path, newest first.
    ///
    /// # Errors
    /// The state or the folder of kept versions cannot be read.
    pub fn versions(&self, at: &RelPath) -> Result<Vec<KeptVersion>, SyncError> {
        versions(self.root(), &self.opened().state, at)
    }

    /// Brings a kept version back to its path (the newest, or the given one). What stands there now is kept in turn; a scan of the path
    /// is to follow.
    ///
    /// # Errors
    /// There is no such version, or it cannot be moved, or the monitor said to stop before it was this one's turn; nothing is lost then.
    pub fn restore(&self, path: &RelPath, version: Option<i64>, monitor: &dyn Monitor) -> Result<KeptVersion, SyncError> {
        self.in_turn(monitor, |root, state| restore(root, state, path, version))
    }

    /// Does this while nobody else records or makes changes here. Whoever asked may have gone while others were waited for.
    fn in_turn<T>(
        &self,
        monitor: &dyn Monitor,
        work: impl FnOnce(&Root, &State) -> Result<T, SyncError>,
    ) -> Result<T, SyncError> {
        let _work = self.opened().work();
        if monitor.cancelled() { Err(SyncError::Cancelled) } else { work(self.root(), &self.opened().state) }
    }
}

pub(super) fn conflicts(state: &State) -> Result<Vec<OpenConflict>, SyncError> {
    let mut found = Vec::new();
    for (other, open) in conflicts::each(state)? {
        let ours = state.entry(&open.path)?.map(|entry| entry.row);
        found.push(OpenConflict {
            ours_mtime_ns: ours.as_ref().map(|row| row.object.attrs.mtime_ns),
            theirs_mtime_ns: open.theirs.as_ref().map(|row| row.object.attrs.mtime_ns),
            ours_size: ours.as_ref().and_then(size),
            theirs_size: open.theirs.as_ref().and_then(size),
            other: state.peer(other)?.map_or_else(|| other.to_string(), |peer| escape(&peer.location)),
            decided: open.decision.map(Keep::of),
            path: open.path,
        });
    }
    Ok(found)
}

pub(super) fn resolve(state: &State, at: &[RelPath], keep: Keep) -> Result<Vec<RelPath>, SyncError> {
    let mut resolved = Vec::new();
    for (other, open) in conflicts::open(state)? {
        if at.iter().any(|at| at.contains(&open.path)) {
            // What is edited here after the decision was not decided on.
            let version = version(state, &open.path)?;
            state.put_meta(&decided_on(other, &open.path), &version)?;
            state.decide(other, &open.path, Some(keep.decision()))?;
            resolved.push(open.path);
        }
    }
    resolved.sort();
    resolved.dedup();
    Ok(resolved)
}

pub(super) fn versions(root: &Root, state: &State, at: &RelPath) -> Result<Vec<KeptVersion>, SyncError> {
    Ok(apply::list(root, state, at)?.into_iter().map(kept).collect())
}

pub(super) fn restore(root: &Root, state: &State, path: &RelPath, version: Option<i64>) -> Result<KeptVersion, SyncError> {
    Ok(kept(apply::restore(root, state, path, version)?))
}

fn size(row: &Row) -> Option<u64> {
    match row.object.content {
        Content::File { size, .. } => Some(size),
        Content::Dir | Content::Symlink(_) => None,
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
