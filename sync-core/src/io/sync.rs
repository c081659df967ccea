//! One two-way synchronisation of two roots: open, look, plan, apply, report. The face of the library.

use crate::entry::AttrMask;
use crate::path::RelPath;
use crate::plan::Item;
use crate::report::{Monitor, Problem};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How conflicts are decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Left as they are on both sides.
    #[default]
    Skip,
    /// One stays under the name, the other as a conflict copy beside it.
    KeepBoth,
    /// The newer modification time wins; the other goes to the kept versions.
    Newer,
    /// The older one wins.
    Older,
    /// The given side wins.
    Side(Side),
}

/// One of the two roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The first root.
    A,
    /// The second root.
    B,
}

/// How many deletions stop a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxDelete {
    /// More than so many on one root.
    Count(u64),
    /// More than this share (0–100) of the live paths of a root.
    Percent(f64),
}

/// What a run may do.
#[derive(Debug, Clone)]
pub struct Options {
    /// How conflicts are decided.
    pub conflicts: Policy,
    /// Mirror this side: every difference is decided for it.
    pub force: Option<Side>,
    /// Only these paths and what is below; empty: everything.
    pub paths: Vec<RelPath>,
    /// Ignore rules of this run, gitignore syntax.
    pub ignore: Vec<String>,
    /// The deletion guard; `None` lifts it.
    pub max_delete: Option<MaxDelete>,
    /// Re-read every file.
    pub checksum: bool,
    /// How long replaced and deleted versions are kept; `None`: not at all.
    pub keep_versions: Option<Duration>,
    /// Replicated attributes.
    pub mask: AttrMask,
    /// Accept a root whose state or marker was lost as a new replica.
    pub rejoin: bool,
    /// Where the states are kept instead of `.driftless` in each root.
    pub state_dir: Option<PathBuf>,
    /// Nothing but looking: roots that were never synchronised get no `.driftless`.
    pub dry_run: bool,
}

/// Why a run stopped before anything was changed, or could not be finished. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// A guard stopped the run before anything was changed.
    #[error("{0}")]
    Guard(String),
    /// A root is missing, held by another process, or of another kind than expected.
    #[error("{0}")]
    Root(String),
    /// The user stopped the run; what was done is recorded.
    #[error("stopped; what was done is recorded")]
    Cancelled,
}

/// Numbers of a plan or of a finished run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Paths created.
    pub created: u64,
    /// Files replaced, attributes changed.
    pub updated: u64,
    /// Paths deleted; a moved path is not.
    pub deleted: u64,
    /// Files and directories moved in place.
    pub moved: u64,
    /// Conflicts met: resolved or left.
    pub conflicts: u64,
    /// Paths left as they are by policy.
    pub skipped: u64,
    /// Paths that failed.
    pub failed: u64,
    /// Content bytes to bring, or brought.
    pub bytes: u64,
}

/// A planned synchronisation: nothing was changed yet.
#[derive(Debug)]
pub struct Plan {
    /// What changes on A and on B.
    pub totals: [Totals; 2],
}

/// What a run achieved.
#[derive(Debug, Clone)]
pub struct Report {
    /// Are the roots in sync now?
    pub in_sync: bool,
    /// What changed on A and on B.
    pub totals: [Totals; 2],
    /// Paths that failed, up to a limit of 10,000.
    pub problems: Vec<(Side, Problem)>,
    /// Time of the scan.
    pub scan: Duration,
    /// Time of it all.
    pub total: Duration,
}

/// Two roots, opened, locked and scanned.
pub struct Sync {}

impl Options {
    /// The defaults of the command: skip conflicts, at most half of a root deleted, versions kept for 7 days.
    #[must_use]
    pub fn standard() -> Options { todo!() }
}

impl Sync {
    /// Opens both roots, checks markers and locks, recovers what a crash left, and scans.
    pub fn open(a: &Path, b: &Path, options: Options, monitor: &dyn Monitor) -> Result<Sync, SyncError> { todo!() }
    /// Decides what would be done, and checks the guards that need no disk. `each` sees every item, with the side
    /// that changes, in the order in which they would be done.
    pub fn plan(&mut self, monitor: &dyn Monitor, each: &mut dyn FnMut(Side, &Item)) -> Result<Plan, SyncError> { todo!() }
    /// Carries the plan out. Calls `plan` first if that was not done.
    pub fn apply(&mut self, monitor: &dyn Monitor) -> Result<Report, SyncError> { todo!() }
    /// Changes the conflict policy between looking at the plan and applying it.
    pub fn set_conflicts(&mut self, policy: Policy) { todo!() }
}

/// One root outside of a run: its conflicts, its kept versions. Holds the root's lock.
pub struct Replica {}

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
    pub fn open(root: &Path, state_dir: Option<&Path>) -> Result<Replica, SyncError> { todo!() }
    /// Open conflicts, by path.
    pub fn conflicts(&self) -> Result<Vec<OpenConflict>, SyncError> { todo!() }
    /// Records how conflicts at these paths, or below them, are to be settled at the next run; returns their paths.
    pub fn resolve(&mut self, at: &[RelPath], keep: Keep) -> Result<Vec<RelPath>, SyncError> { todo!() }
    /// Kept versions at or below a path, newest first.
    pub fn versions(&self, at: &RelPath) -> Result<Vec<KeptVersion>, SyncError> { todo!() }
    /// Brings a kept version back to its path (the newest, or the given one). What stands there now is kept in turn.
    pub fn restore(&mut self, path: &RelPath, version: Option<i64>) -> Result<KeptVersion, SyncError> { todo!() }
}
