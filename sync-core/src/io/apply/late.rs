//! Late writes: a program that had a file open while it was displaced writes on to the kept version. Such a version
//! is brought back as a conflict copy beside its old path.

use super::areas::{Areas, STAGE};
use super::versions::{VersionError, forget_by_name, open_areas, problem_of};
use super::{PROBLEMS, Stop, across, names};
use crate::entry::{Hash, Kind, Signature};
use crate::io::fs::{COARSE_CLOCK_NS, Dir, FsError, Mount, Replace, Root, coarse_now_ns, hash_file};
use crate::io::kill::kill_point;
use crate::io::source::{kind_of, same_object, with_buffer};
use crate::io::stage::{Failure, fresh_name, remove_all};
use crate::io::state::{NewVersion, State};
use crate::path::RelPath;
use crate::report::Problem;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// Versions looked at for late writes at the end of a run, and when a root is opened; the others before they are pruned.
pub(super) const LATE_CHECKED: usize = 20_000;
/// Versions not older than this are looked at when a root is opened.
pub const LATE_AGE: Duration = Duration::from_secs(24 * 3600);
/// Records read at a time.
const PAGE: usize = 1_000;

/// What a look for late writes found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Late {
    /// Where versions stand now that had been written to.
    pub brought_back: Vec<RelPath>,
    /// Versions that could not be looked at or brought back, up to [`PROBLEMS`]; they stay as they are.
    pub problems: Vec<Problem>,
}

impl Late {
    /// What a user should hear of it, a line each.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let back = self.brought_back.iter();
        let back = back.map(|to| format!("an older version was written to after it had been replaced: it stands at {to}"));
        let failed = self.problems.iter().map(|Problem { path, step, error }| format!("cannot {step} {path}: {error}"));
        back.chain(failed).collect()
    }
}

/// Looks at the versions kept since `since_ns` for late writes, and brings those back that have some. To be called when
/// a root is opened, before it is scanned.
///
/// # Errors
/// The state cannot be read or written, or the folders of kept versions cannot be opened.
pub fn check_late(root: &Root, state: &State, since_ns: i64) -> Result<Late, VersionError> {
    let areas = open_areas(root, state)?;
    let mut late = Late::default();
    let (mut after, mut left) = ((i64::MAX, i64::MAX), LATE_CHECKED);
    loop {
        let page = state.versions_since(since_ns, after, left.min(PAGE))?;
        let Some(last) = page.last() else { return Ok(late) };
        (after, left) = ((last.kept.kept_at_ns, last.id), left - page.len());
        for version in &page {
            match bring_back_if_written(root, &areas, &version.kept) {
                Ok(None) => {}
                Ok(Some(to)) => {
                    state.forget_version(version.id)?;
                    late.brought_back.push(to);
                }
                Err(stop) => {
                    let problem = problem_of(&version.kept.path, stop)?;
                    if late.problems.len() < PROBLEMS {
                        late.problems.push(problem);
                    }
                }
            }
        }
    }
}

/// Brings a kept file back if it was written to since it was displaced; its record is the caller's to forget.
pub(super) fn bring_back_if_written(root: &Root, areas: &Areas<'_>, kept: &NewVersion) -> Result<Option<RelPath>, Stop> {
    let Some((area, name)) = areas.find(&kept.name) else { return Ok(None) };
    if kept.kind != Kind::File || !written(&area.kept, name, kept)? {
        return Ok(None);
    }
    kill_point("late-before");
    let to = keep_beside(root, &area.kept, name, &kept.path)?;
    kill_point("late-after");
    Ok(Some(to))
}

/// As [`bring_back_if_written`], and forgets the record.
pub(super) fn bring_back_and_forget(
    root: &Root,
    state: &State,
    areas: &Areas<'_>,
    kept: &NewVersion,
) -> Result<Option<RelPath>, Stop> {
    let to = bring_back_if_written(root, areas, kept)?;
    if to.is_some() {
        forget_by_name(state, &kept.path, &kept.name)?;
    }
    Ok(to)
}

/// Was a kept file written to since it was displaced?
fn written(dir: &Dir, name: &[u8], kept: &NewVersion) -> Result<bool, Stop> {
    let now = dir.stat(name)?;
    Ok(now.is_some_and(|now| !same_object(&now, &kept.signature)))
}

/// Brings files back that were written to inside a directory that stood at `path`, after a moment; `brought` learns of
/// their new paths.
///
/// All of them go beside the directory's old path: what led to them is gone.
pub(super) fn bring_back_below(
    root: &Root,
    dir: &Dir,
    path: &RelPath,
    ((since_ns, tick_ns), brought): ((i64, i64), &mut Vec<RelPath>),
) -> Result<(), Stop> {
    for name in dir.names()? {
        let Some(now) = dir.stat(&name)? else { continue };
        match kind_of(&now) {
            Some(Kind::Dir) => {
                let below = dir.open_dir(&name)?;
                bring_back_below(root, &below, path, ((since_ns, tick_ns), brought))?;
            }
            _ if is_late(&now, since_ns, tick_ns) => {
                let shown =
                    crate::path::Name::parse(&name).map_err(|error| Failure::new("keep a late write", error.to_string()))?;
                let beside = path.parent().unwrap_or_default().join(&shown);
                brought.push(keep_beside(root, dir, &name, &beside)?);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Was something changed inside a directory after that went? The rename of the directory did not touch it, so that its
/// change time tells. But change times are those of the clock's last tick: a write right after the directory went can
/// bear a time from right before; then both of its times do. A file brought back for nothing is the lesser harm.
fn is_late(now: &Signature, kept_at_ns: i64, tick_ns: i64) -> bool {
    let perhaps_ns = kept_at_ns.saturating_sub(tick_ns.max(COARSE_CLOCK_NS));
    now.ctime_ns > kept_at_ns || now.ctime_ns.min(now.mtime_ns) > perhaps_ns
}

/// Renames a user's object beside the path it belongs to, or to the nearest directory above that is left and that a rename can
/// reach. Where there is none, as for what was kept in a cold root, it is copied into the root.
pub(super) fn keep_beside(root: &Root, from: &Dir, from_name: &[u8], path: &RelPath) -> Result<RelPath, Stop> {
    if let Some(to) = renamed_beside(root, (from, from_name), path)? {
        return Ok(to);
    }
    let stage = root.private(&[STAGE])?;
    let (staged, _) = across::copy(from, from_name, &stage, &fresh_name()?)?;
    stage.sync_all()?;
    kill_point("late-copied");
    let nowhere = || Failure::new("keep a late write", "no directory of the root is on the file system of its staging folder");
    let to = renamed_beside(root, (&stage, &staged), path)?.ok_or_else(nowhere)?;
    stage.sync_all()?;
    kill_point("late-copy-beside");
    remove_all(from, from_name)?;
    Ok(to)
}

/// `None` if no directory above the path is on the mount of the object.
fn renamed_beside(root: &Root, (from, from_name): (&Dir, &[u8]), path: &RelPath) -> Result<Option<RelPath>, Stop> {
    let Some(wish) = nearest(root, path, &from.mount()?)? else { return Ok(None) };
    let hash = content_hash(from, from_name)?;
    for number in 1..=names::TRIES {
        let late = names::late(&wish, coarse_now_ns(), hash.as_ref())?;
        let to = names::numbered(&late, number)?;
        let Some((parent, name)) = to.split() else { break };
        let dir = root.dir(&parent)?;
        match from.rename(from_name, &dir, name.as_bytes(), Replace::Never) {
            Ok(()) => return Ok(Some(to)),
            Err(error) if error.source.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::new("keep a late write", "no free name for it").into())
}

/// The path, moved up while its directory does not exist, or is on another mount.
fn nearest(root: &Root, path: &RelPath, mount: &Mount) -> Result<Option<RelPath>, Stop> {
    let no_name = || Failure::new("keep a late write", "the root has no name");
    let name = path.name().ok_or_else(no_name)?;
    for dir in path.ancestors().skip(1) {
        match root.dir(&dir) {
            Ok(open) if open.mount()? == *mount => return Ok(Some(dir.join(&name))),
            Ok(_) => {}
            Err(error) if error.is_missing() || error.source.kind() == ErrorKind::NotADirectory => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// The hash of a file, for its name.
fn content_hash(dir: &Dir, name: &[u8]) -> Result<Option<Hash>, Stop> {
    let now: Option<Signature> = dir.stat(name)?;
    if now.as_ref().and_then(kind_of) != Some(Kind::File) {
        return Ok(None);
    }
    let hash = |dir: &Dir| -> Result<Hash, FsError> {
        let mut file = dir.open_file(name)?;
        let read = with_buffer(|buffer| hash_file(&mut file, buffer));
        let failed = |source: io::Error| FsError { action: "read", path: dir.locate(name), source };
        read.map(|(_, hash)| hash).map_err(failed)
    };
    // What cannot be read is kept all the same, under a name that tells less.
    Ok(hash(dir).ok())
}
