//! Kept versions: what was replaced or deleted, for as long as the retention says.

use super::areas::{Area, Areas};
use super::rows::Live;
use super::{Context, PROBLEMS, Stop, across, late, names};
use crate::entry::{AttrMask, Attrs, Kind};
use crate::io::fs::{Dir, FsError, Replace, Root, ctime_granularity};
use crate::io::kill::kill_point;
use crate::io::source::kind_of;
use crate::io::state::{Batch, NewVersion, State, StateError, Version};
use crate::path::RelPath;
use crate::report::Problem;
use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Objects removed per call of [`prune`]: a bulk of deletions makes later creations slow on ext4.
pub const PRUNE_OBJECTS: usize = 1_000;
/// Versions looked at per call of [`prune`], those included that cannot be removed now.
const PRUNE_LOOKED_AT: usize = 20_000;
/// Where the state remembers restores under way that exchange: the addresses of the version that returns and of what stood
/// there, each followed by a NUL.
const RESTORES: &str = "apply.restores";

/// Why a kept version could not be listed, restored or removed.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// A call failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The state cannot be read or written.
    #[error("cannot use the state of the root: {0}")]
    State(#[from] StateError),
    /// Nothing is kept of the path, or not under that number.
    #[error("no kept version of {0}")]
    None(RelPath),
    /// The record is there, the object is not.
    #[error("the kept version of {0} is gone from the disk")]
    Gone(RelPath),
    /// The path cannot be used.
    #[error("cannot {step} {path}: {reason}")]
    Path {
        /// Which path.
        path: RelPath,
        /// What was attempted.
        step: &'static str,
        /// Why not.
        reason: String,
    },
}

impl From<Stop> for VersionError {
    fn from(stop: Stop) -> VersionError {
        match stop {
            Stop::Path(failure) | Stop::Left(failure) | Stop::Across(failure) => {
                VersionError::Path { path: RelPath::root(), step: failure.step, reason: failure.reason }
            }
            Stop::Run(super::ApplyError::State(error)) => VersionError::State(error),
            Stop::Run(error) => VersionError::Path { path: RelPath::root(), step: "keep", reason: error.to_string() },
        }
    }
}

/// What [`prune`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Versions that are gone now.
    pub removed: usize,
    /// Paths of versions that had been written to, and were brought back.
    pub brought_back: Vec<RelPath>,
    /// Versions that could not be removed, up to [`PROBLEMS`]; the next call tries again.
    pub problems: Vec<Problem>,
    /// The limit was reached: there may be more to remove.
    pub more: bool,
}

/// Tells names made in one tick of the clock apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A record for an object about to be kept.
pub(super) fn plan(area: &Area, path: &RelPath, old: &Live, reason: &'static str) -> NewVersion {
    let kept_at_ns = now_ns();
    NewVersion {
        name: area.kept_address(&name(path, kept_at_ns)),
        path: path.clone(),
        kind: old.row.object.kind(),
        signature: old.signature,
        hash: super::job::hash_of(&old.row.object),
        kept_at_ns,
        reason,
    }
}

/// A name of its own for an object about to be kept.
pub(super) fn name(path: &RelPath, now_ns: i64) -> Vec<u8> {
    names::version(now_ns, NEXT.fetch_add(1, Ordering::Relaxed), path)
}

/// What does not matter where nothing is staged.
const STAGING: AttrMask = AttrMask { perms: true, owner: false, times: false };

/// The areas in which versions may be kept.
pub(super) fn open_areas<'a>(root: &'a Root, state: &State) -> Result<Areas<'a>, VersionError> {
    Areas::remembered(root, state, STAGING).map_err(|error| Stop::Run(error).into())
}

/// The clock that runs on between the ticks of the one that stamps changes: what was changed before bears no later time.
pub(super) fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// Kept versions at or below a path that still stand on the disk, newest first. A pull may be under way meanwhile.
///
/// # Errors
/// The state or the folder cannot be read.
pub fn list(root: &Root, state: &State, at: &RelPath) -> Result<Vec<Version>, VersionError> {
    let areas = Areas::looked_at(root, state, STAGING).map_err(Stop::Run)?;
    let mut there = Vec::new();
    for version in state.versions(at)? {
        if let Some((area, name)) = areas.find(&version.kept.name)
            && area.kept.stat(name)?.is_some()
        {
            there.push(version);
        }
    }
    Ok(there)
}

/// Brings a kept version back to its path: the newest, or the one with the number `id`. What stands there now is kept
/// in turn. The row is left to the next scan, which finds a local edit.
///
/// # Errors
/// There is no such version, or a rename failed; then everything is where it was, or still among the kept versions.
pub fn restore(root: &Root, state: &State, path: &RelPath, id: Option<i64>) -> Result<Version, VersionError> {
    let mut versions = list(root, state, path)?.into_iter();
    let version = versions
        .find(|version| version.kept.path == *path && id.is_none_or(|id| id == version.id))
        .ok_or_else(|| VersionError::None(path.clone()))?;
    let mut areas = open_areas(root, state)?;
    let Some((parent, name)) = path.split() else {
        return Err(VersionError::None(path.clone()));
    };
    let dir = make_parents(root, &parent)?;
    let gone = || VersionError::Gone(path.clone());
    areas.discover(state, path).map_err(Stop::Run)?;
    let target = areas.of(path)?;
    let (kept_in, kept_name) = areas.find(&version.kept.name).ok_or_else(gone)?;
    // Where the path lies on another file system by now, as in a day that was archived, no rename leads there.
    let version =
        if kept_in.is_beside(&target) { version } else { across::carry_over(state, &version, &kept_in, kept_name, &target)? };
    let (area, old_name) = areas.find(&version.kept.name).ok_or_else(gone)?;
    let kept = &area.kept;
    match dir.stat(name.as_bytes())? {
        None => kept.rename(old_name, &dir, name.as_bytes(), Replace::Never)?,
        Some(now) => {
            let other = |reason: &str| VersionError::Path { path: path.clone(), step: "restore", reason: reason.into() };
            let kind = kind_of(&now).ok_or_else(|| other("a device, pipe or socket stands in its place"))?;
            let kept_at_ns = now_ns();
            let new_name = self::name(path, kept_at_ns);
            let new_address = area.kept_address(&new_name);
            let under_way = state.meta(RESTORES)?.unwrap_or_default();
            state.put_meta(RESTORES, &[&under_way, &version.kept.name[..], b"\0", &new_address, b"\0"].concat())?;
            let new = NewVersion {
                name: new_address,
                path: path.clone(),
                kind,
                signature: now,
                hash: None,
                kept_at_ns,
                reason: "replaced",
            };
            kill_point("restore-intended");
            // Recorded first: a record without an object is harmless, an object without a record is lost.
            state.commit(Batch { versions: vec![new], ..Batch::default() }, true)?;
            kill_point("restore-recorded");
            kept.rename(old_name, &dir, name.as_bytes(), Replace::Exchange)?;
            kill_point("restore-exchanged");
            kept.rename(old_name, kept, &new_name, Replace::Never)?;
            kill_point("restore-renamed");
        }
    }
    kept.sync_all()?;
    state.forget_version(version.id)?;
    kill_point("restore-forgotten");
    finish_restores(&areas, state).map_err(Stop::Run)?;
    Ok(version)
}

/// Brings restores to their end that were interrupted between two renames: what stood at the path must not stay under
/// the record of the version that returned, which is older and pruned sooner.
pub(super) fn finish_restores(areas: &Areas<'_>, state: &State) -> Result<(), super::ApplyError> {
    let under_way = state.meta(RESTORES)?.unwrap_or_default();
    let addresses: Vec<&[u8]> = under_way.split(|byte| *byte == 0).collect();
    let mut left = Vec::new();
    for pair in addresses.chunks_exact(2) {
        if !finish_restore(areas, state, (pair[0], pair[1]))? {
            left.extend([pair[0], b"\0", pair[1], b"\0"].concat());
        }
    }
    if left != under_way {
        state.put_meta(RESTORES, &left)?;
    }
    Ok(())
}

/// `false` if its file system is not mounted.
fn finish_restore(areas: &Areas<'_>, state: &State, (old, new): (&[u8], &[u8])) -> Result<bool, super::ApplyError> {
    let (Some((area, old_name)), Some((_, new_name))) = (areas.find(old), areas.find(new)) else { return Ok(false) };
    let records = state.versions(&RelPath::root())?;
    let record = |name: &[u8]| records.iter().find(|version| version.kept.name == name);
    let (returned, displaced) = (record(old), record(new));
    if let (Some(there), Some(returned), Some(_)) = (area.kept.stat(old_name)?, returned, displaced)
        && there.ino != returned.kept.signature.ino
        && area.kept.stat(new_name)?.is_none()
    {
        area.kept.rename(old_name, &area.kept, new_name, Replace::Never)?;
        area.kept.sync_all()?;
        kill_point("recover-restored");
    }
    for (name, record) in [(old_name, returned), (new_name, displaced)] {
        if let Some(record) = record
            && area.kept.stat(name)?.is_none()
        {
            state.forget_version(record.id)?;
        }
    }
    Ok(true)
}

/// Opens a directory, making it and those above it if they are missing.
fn make_parents(root: &Root, path: &RelPath) -> Result<Dir, FsError> {
    let mut dir = root.dir(&RelPath::root())?;
    for name in path.components() {
        dir = match dir.open_dir(name.as_bytes()) {
            Err(error) if error.is_missing() => {
                let made = dir.create_dir(name.as_bytes())?;
                let attrs = Attrs { mode: 0o755, ..Attrs::default() };
                made.set_attrs_self(&attrs, only_mode())?;
                made
            }
            answer => answer?,
        };
    }
    Ok(dir)
}

fn only_mode() -> AttrMask {
    AttrMask { perms: true, owner: false, times: false }
}

/// Removes versions older than `retention`, at most `limit` objects. A version that was written to since it was
/// displaced is brought back beside its path instead. One that cannot be removed does not stop the others.
///
/// # Errors
/// The state cannot be read or written, or the folders of kept versions cannot be opened.
pub fn prune(root: &Root, state: &State, now_ns: i64, retention: Duration, limit: usize) -> Result<Pruned, VersionError> {
    let retention = i64::try_from(retention.as_nanos()).unwrap_or(i64::MAX);
    prune_before(root, state, now_ns.saturating_sub(retention), limit)
}

pub(super) fn prune_at(context: Context<'_>, before_ns: i64, limit: usize) -> Result<Pruned, VersionError> {
    prune_before(context.root, context.state, before_ns, limit)
}

fn prune_before(root: &Root, state: &State, before_ns: i64, limit: usize) -> Result<Pruned, VersionError> {
    let areas = open_areas(root, state)?;
    let mut pruned = Pruned::default();
    let (mut budget, mut left) = (limit, PRUNE_LOOKED_AT);
    let mut after = (i64::MIN, i64::MIN);
    loop {
        let page = state.versions_before(before_ns, after, left.min(PRUNE_OBJECTS))?;
        let Some(last) = page.last() else { return Ok(pruned) };
        (after, left) = ((last.kept.kept_at_ns, last.id), left - page.len());
        for version in &page {
            match prune_one(root, &areas, &version.kept, (&mut budget, &mut pruned.brought_back)) {
                Ok(true) => {
                    state.forget_version(version.id)?;
                    pruned.removed += 1;
                }
                Ok(false) => {}
                Err(stop) => {
                    let problem = problem_of(&version.kept.path, stop)?;
                    if pruned.problems.len() < PROBLEMS {
                        pruned.problems.push(problem);
                    }
                }
            }
            if budget == 0 {
                pruned.more = true;
                return Ok(pruned);
            }
        }
    }
}

/// Removes one version as far as the budget goes; `true` when its record may go.
fn prune_one(
    root: &Root,
    areas: &Areas<'_>,
    kept: &NewVersion,
    (budget, brought_back): (&mut usize, &mut Vec<RelPath>),
) -> Result<bool, Stop> {
    // What lies on a file system that is not mounted waits.
    let Some((area, name)) = areas.find(&kept.name) else { return Ok(false) };
    if let Some(to) = late::bring_back_if_written(root, areas, kept)? {
        brought_back.push(to);
        return Ok(true);
    }
    if is_dir(&area.kept, name)? {
        let tick_ns = ctime_granularity(root)?;
        let below = area.kept.open_dir(name)?;
        late::bring_back_below(root, &below, &kept.path, ((kept.kept_at_ns, tick_ns), brought_back))?;
    }
    kill_point("prune-checked");
    let gone = remove_some(&area.kept, name, budget)?;
    kill_point("prune-removed");
    Ok(gone)
}

/// What failed at one version is told; what stops all is handed up.
pub(super) fn problem_of(path: &RelPath, stop: Stop) -> Result<Problem, VersionError> {
    match stop {
        Stop::Path(failure) | Stop::Left(failure) | Stop::Across(failure) => {
            Ok(Problem { path: path.clone(), step: failure.step, error: failure.reason })
        }
        stop @ Stop::Run(_) => Err(stop.into()),
    }
}

fn is_dir(dir: &Dir, name: &[u8]) -> Result<bool, FsError> {
    let now = dir.stat(name)?;
    Ok(now.as_ref().and_then(kind_of) == Some(Kind::Dir))
}

/// Removes a kept object as far as the budget goes; `true` when all of it is gone.
fn remove_some(dir: &Dir, name: &[u8], budget: &mut usize) -> Result<bool, FsError> {
    let Some(now) = dir.stat(name)? else { return Ok(true) };
    if *budget == 0 {
        return Ok(false);
    }
    if kind_of(&now) == Some(Kind::Dir) {
        let below = dir.open_dir(name)?;
        if now.mode & 0o700 != 0o700 {
            below.set_attrs_self(&Attrs { mode: 0o700, ..Attrs::default() }, only_mode())?;
        }
        for child in below.names()? {
            if !remove_some(&below, &child, budget)? {
                return Ok(false);
            }
        }
        if *budget == 0 {
            return Ok(false);
        }
        dir.rmdir(name)?;
    } else {
        dir.unlink(name)?;
    }
    *budget -= 1;
    Ok(true)
}

/// Forgets the record of a kept version that is known by its name on the disk.
pub(super) fn forget_by_name(state: &State, path: &RelPath, name: &[u8]) -> Result<(), StateError> {
    for version in state.versions(path)? {
        if version.kept.name == name {
            state.forget_version(version.id)?;
        }
    }
    Ok(())
}
