//! Attributes of directories whose old day was changed: brought over where nobody changed them in the live day, else told. What is
//! done to the live day here moves no time of its directories.

use super::copy::shown;
use super::error::ArchiveError;
use super::manifest::{Entry, digest};
use crate::entry::{AttrMask, Attrs};
use crate::io::fs::{Dir, FsError};
use crate::path::RelPath;
use crate::report::Monitor;
use std::collections::BTreeMap;

/// Directories with which there is something left to do, by their paths in the old day.
#[derive(Default)]
pub(super) struct Dirs(BTreeMap<RelPath, Work>);

#[derive(Default)]
struct Work {
    /// The live one's modification time before anything was done in it.
    before_ns: Option<i64>,
    /// What was known of the old one before it was looked at now.
    known: Option<Entry>,
    /// It was made in the live day.
    made: bool,
}

/// The old day.
pub(super) struct Old<'a> {
    pub(super) day: &'a RelPath,
    pub(super) old: &'a Dir,
    pub(super) monitor: &'a dyn Monitor,
}

impl Dirs {
    /// Something is about to be done at a path, in the directory `dir` of the live day.
    pub(super) fn touch(&mut self, path: &RelPath, dir: &Dir) -> Result<(), FsError> {
        let work = self.0.entry(path.parent().unwrap_or_default()).or_default();
        if work.before_ns.is_none() {
            work.before_ns = Some(dir.stat_self()?.mtime_ns);
        }
        Ok(())
    }

    /// An old directory has changed since it was known.
    pub(super) fn changed(&mut self, known: Entry) {
        let path = known.path.clone();
        self.0.entry(path).or_default().known = Some(known);
    }

    /// A directory was made.
    pub(super) fn made(&mut self, path: &RelPath) {
        self.0.entry(path.clone()).or_default().made = true;
    }

    /// Gives the directories of the live day what is theirs, after all else was done in them; `at` tells where one is. Returns the paths
    /// of those whose mode, owner or extended attributes changed.
    pub(super) fn settle(
        self,
        old: &Old<'_>,
        live: &Dir,
        at: impl Fn(&RelPath) -> Result<RelPath, ArchiveError>,
    ) -> Result<Vec<RelPath>, ArchiveError> {
        let mut changed = Vec::new();
        // What is in a directory comes before it.
        for (path, work) in self.0.into_iter().rev() {
            let (Some(here), there) = (found(live.below(&at(&path)?))?, found(old.old.below(&path))?) else { continue };
            match there {
                Some(there) if work.made => {
                    here.finish_exactly(&there.stat_self()?.attrs(), &there.xattrs()?)?;
                }
                there => {
                    if settle_one(old, &path, (&here, there.as_ref()), &work)? {
                        changed.push(shown(old.day, &path));
                    }
                }
            }
        }
        Ok(changed)
    }
}

/// What is missing, or something else by now, needs nothing.
fn found(dir: Result<Dir, FsError>) -> Result<Option<Dir>, FsError> {
    match dir {
        Err(error) if error.is_missing() || error.is_no_dir() => Ok(None),
        dir => dir.map(Some),
    }
}

fn settle_one(old: &Old<'_>, path: &RelPath, (here, there): (&Dir, Option<&Dir>), work: &Work) -> Result<bool, ArchiveError> {
    let now = here.stat_self()?.attrs();
    let before_ns = work.before_ns.unwrap_or(now.mtime_ns);
    let (mut changed, mut mtime_ns) = (false, before_ns);
    if let (Some(there), Some(known)) = (there, &work.known) {
        let (was, wish) = (known.source.attrs(), there.stat_self()?.attrs());
        let (own_xattrs, wished_xattrs) = (here.xattrs()?, there.xattrs()?);
        // Each is wished for, and was left alone here or not.
        let perms = (wish.mode != was.mode && wish.mode != now.mode).then_some(now.mode == was.mode);
        let owners = |attrs: &Attrs| (attrs.uid, attrs.gid);
        let owner = (owners(&wish) != owners(&was) && owners(&wish) != owners(&now)).then_some(owners(&now) == owners(&was));
        let xattrs = (digest(&wished_xattrs) != known.xattrs && wished_xattrs != own_xattrs)
            .then_some(digest(&own_xattrs) == known.xattrs);
        let (set_perms, set_owner) = (perms == Some(true), owner == Some(true));
        if set_perms || set_owner {
            let of = if set_owner { wish } else { now };
            let mode = if set_perms { wish.mode } else { now.mode };
            // The bits that mean something only together with the owner are set only with it.
            let mask = AttrMask { perms: true, owner: set_owner || mode & 0o6000 != 0, times: false };
            here.set_attrs_self(&Attrs { mode, uid: of.uid, gid: of.gid, ..now }, mask)?;
        }
        if xattrs == Some(true) {
            here.replace_xattrs(&wished_xattrs)?;
        }
        changed = set_perms || set_owner || xattrs == Some(true);
        if [perms, owner, xattrs].contains(&Some(false)) {
            old.monitor.notice(&format!(
                "{}: mode, owner or extended attributes of the directory were changed in two places at once: those of the archived day stay",
                shown(old.day, path)
            ));
        }
        mtime_ns = match wish.mtime_ns {
            same if same == was.mtime_ns => before_ns,
            late if before_ns == was.mtime_ns => late,
            late => late.max(before_ns),
        };
    }
    if here.stat_self()?.mtime_ns != mtime_ns {
        here.set_attrs_self(&Attrs { mtime_ns, ..now }, AttrMask { perms: false, owner: false, times: true })?;
    }
    Ok(changed)
}
