//! Mount points below the root: which there were, and which are missing now.
//!
//! What lay on a file system that is not mounted is not gone. Device numbers cannot tell, since they change from mount
//! to mount; so the state remembers the paths, each before anything below it is recorded.

use super::ScanError;
use crate::io::fs::{Cold, FsError, Root, Unavailable, is_stamped_in, way_to_cold};
use crate::io::mutex::{into_inner, lock};
use crate::io::state::{NodeId, State, StateError};
use crate::path::RelPath;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

/// Where the state remembers the mount points.
const MOUNTS: &str = "scan.mounts";
/// Under this key a state remembers that it began anew, and that links were there which may lead to cold roots that were not.
const ANEW: &str = "scan.anew";
/// Most mount points below one root.
pub(super) const MOST: usize = 4_096;
/// What a user is told of a missing one.
pub(super) const MISSING: &str = "another file system was mounted here and is not now: nothing of it is taken for deleted. \
     Mount it again; if it is gone for good, name it in .driftlessignore for one run";
/// What a user is told of a directory that shows nothing of what was known to be in it.
pub(super) const ANOTHER: &str = "another file system is mounted here, or was unmounted, and nothing that was here is here now: \
     nothing of it is taken for deleted. Mount what was there; if this is meant, name it in .driftlessignore for one run";

/// What a user is told of a directory that went with the link to an archived one.
pub(super) const ARCHIVED: &str = "the link to its archive went with the directory above: nothing in it is taken for deleted. Put \
     directory and link back; to delete it, delete what is in it, through the link";

/// What a user is told of a directory whose link went before its placement was recorded as done.
pub(super) const UNLINKED: &str = "the link to its archive is gone, and was not yet recorded as standing there: nothing in it is \
     taken for deleted. Put the link back; to delete it, delete what is in it, through the link";

/// What a user is told of a directory in a cold root that is not the one that was there, and holds less.
pub(super) const REPLACED: &str = "another directory lies in the cold root than the one that was there, and of what was in it something \
     is missing, or older or shorter: nothing of it is taken for deleted or edited. Bring back all of it; if it is to count as it is, \
     run driftless archive claim HOT PATH";

/// What a user is told of a link that may stand for a directory in a cold root of which the state does not know.
pub(super) const UNKNOWN: &str = "a link stands here that may be one to an archive: a cold root holds a directory that was archived \
     from here, of which the state does not know (was it brought back from a backup?), or cannot be looked at: nothing is taken for \
     deleted, and the link goes nowhere. Mount the cold root; if this folder is to have what is archived there, run driftless archive \
     claim HOT";

/// The mount points of one scan, and what lies elsewhere and is not there.
#[derive(Debug)]
pub(super) struct Mounts<'a> {
    root: &'a Root,
    state: &'a State,
    before: BTreeSet<RelPath>,
    /// [`may_miss_links`]
    anew: bool,
    now: Mutex<BTreeSet<RelPath>>,
    unavailable: Mutex<BTreeSet<RelPath>>,
    /// What lies elsewhere and was looked into.
    entered: Mutex<BTreeSet<RelPath>>,
    /// Cold roots that are missing as a whole, and were told.
    told: Mutex<BTreeSet<PathBuf>>,
}

impl<'a> Mounts<'a> {
    pub(super) fn load(root: &'a Root, state: &'a State) -> Result<Mounts<'a>, ScanError> {
        let bytes = state.meta(MOUNTS)?.unwrap_or_default();
        let paths = bytes.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        let wrong = |_| StateError::Content { what: "a mount point" };
        let before = paths.map(|path| RelPath::parse(path).map_err(wrong)).collect::<Result<BTreeSet<_>, _>>()?;
        let now = Mutex::new(before.clone());
        let (unavailable, entered, told) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Mounts { root, state, now, before, anew: may_miss_links(state)?, unavailable, entered, told })
    }

    /// Was another file system mounted at the path when it was seen last?
    pub(super) fn was(&self, path: &RelPath) -> bool {
        self.before.contains(path)
    }

    /// Another file system is mounted at the path: it is remembered durably when the call returns.
    pub(super) fn seen(&self, path: &RelPath) -> Result<(), ScanError> {
        let mut now = lock(&self.now);
        if now.contains(path) {
            return Ok(());
        }
        if now.len() >= MOST {
            return Err(ScanError::Mounts { path: path.clone() });
        }
        now.insert(path.clone());
        Ok(record(self.state, &now)?)
    }

    /// A mount point with rows below it, or what lies elsewhere, at or below a path that is not there any more; and what
    /// a user is told.
    pub(super) fn lost_with(&self, path: &RelPath) -> Result<Option<(RelPath, &'static str)>, ScanError> {
        let places = self.root.places();
        for placement in places.below(path) {
            // One that is not settled may be of a directory that was never made, and has no row; else only the link to it is gone.
            if placement.settled || self.state.entry(&placement.path)?.is_some() {
                let what = if placement.path == *path { UNLINKED } else { ARCHIVED };
                return Ok(Some((placement.path.clone(), what)));
            }
        }
        for mount in self.before.range(path.clone()..).take_while(|mount| path.contains(mount)) {
            if let Some(node) = self.state.node(mount)?
                && !self.state.known(node)?.is_empty()
            {
                return Ok(Some((mount.clone(), MISSING)));
            }
        }
        Ok(None)
    }

    /// May a link stand for a directory in a cold root, although the state says nothing of it? `tree`: the directory that has rows
    /// at its path. Of any link it may where it reads as ours do and a stamp says so; one in the place of a directory may also for as
    /// long as a cold root cannot be looked at, and one that reads as ours do for as long as it leads nowhere. A state that began anew knows
    /// of no directories: to it any such link may be one.
    pub(super) fn is_forgotten(&self, path: &RelPath, text: &[u8], tree: Option<NodeId>) -> Result<bool, ScanError> {
        let places = self.root.places();
        if places.above(path).is_some() {
            return Ok(false);
        }
        let parent = self.root.locate(&path.parent().unwrap_or_default());
        let way = way_to_cold(&parent, text, path);
        if tree.is_none() && way.is_none() {
            return Ok(false);
        }
        // One that nothing lies in any more may be gone for good: it keeps no user from making links.
        let is_used = |cold: &Cold| way.is_some() || places.all().any(|placement| placement.cold.id == cold.id);
        if places.colds().iter().any(|cold| cold.has_stamp(path).unwrap_or_else(|_| is_used(cold))) {
            return Ok(true);
        }
        let Some(way) = way else { return Ok(false) };
        if is_stamped_in(&way, path) {
            return Ok(true);
        }
        let Some(tree) = tree else { return Ok(self.anew && leads_nowhere(self.root, path)?) };
        Ok(!self.state.known(tree)?.is_empty() && leads_nowhere(self.root, path)?)
    }

    /// What lies elsewhere is there.
    pub(super) fn entered(&self, path: &RelPath) {
        lock(&self.entered).insert(path.clone());
    }

    /// What lies elsewhere and was neither looked into nor missed: of what has no row nobody asks.
    pub(super) fn not_entered(&self) -> Vec<RelPath> {
        let (entered, missed) = (lock(&self.entered), lock(&self.unavailable));
        let places = self.root.places();
        let unseen = |path: &&RelPath| !entered.contains(path) && !path.ancestors().any(|above| missed.contains(&above));
        places.all().filter(|placement| placement.settled).map(|placement| &placement.path).filter(unseen).cloned().collect()
    }

    /// What is at the path and below it is unknown in this run, on whichever side it is met.
    pub(super) fn miss(&self, path: &RelPath) {
        lock(&self.unavailable).insert(path.clone());
    }

    /// What lies elsewhere is not there: it is unknown in this run, as below a missing mount. Is the user to be told? Of a
    /// cold root that is missing as a whole, once.
    pub(super) fn miss_placed(&self, path: &RelPath, why: &Unavailable) -> bool {
        self.miss(path);
        why.whole().is_none_or(|cold| lock(&self.told).insert(cold.to_owned()))
    }

    /// The unavailable paths, at the end of a scan. What has no row any more is no mount point to remember.
    pub(super) fn finish(self) -> Result<Vec<RelPath>, ScanError> {
        let mut now = into_inner(self.now);
        let (before, mut gone) = (now.len(), Vec::new());
        for mount in &now {
            if self.state.entry(mount)?.is_none() {
                gone.push(mount.clone());
            }
        }
        for mount in gone {
            now.remove(&mount);
        }
        if now.len() < before {
            record(self.state, &now)?;
        }
        Ok(into_inner(self.unavailable).into_iter().collect())
    }
}

/// Did the state begin anew while links that read as those to archived days do led nowhere? They may be such links, of which the cold
/// root is not mounted: until they are understood nobody else is to get them.
///
/// # Errors
/// The state cannot be read.
pub fn may_miss_links(state: &State) -> Result<bool, StateError> {
    Ok(state.meta(ANEW)?.is_some_and(|flag| !flag.is_empty()))
}

/// Remembers the answer of [`may_miss_links`], durably.
///
/// # Errors
/// The state cannot be read or written.
pub fn remember_missed_links(state: &State, missed: bool) -> Result<(), StateError> {
    match may_miss_links(state)? == missed {
        true => Ok(()),
        false => state.put_meta(ANEW, if missed { b"1" } else { b"" }),
    }
}

/// Remembered mount points at which nothing is mounted at this moment, and what lies in cold roots that are not there. One whose directory is gone is not among them: what
/// became of it a scan finds out.
///
/// # Errors
/// The state cannot be read, or holds no paths where the mount points are to be.
pub fn missing_mounts(root: &Root, state: &State) -> Result<Vec<RelPath>, ScanError> {
    let missing = |path: &RelPath| -> Result<bool, FsError> {
        let Some(above) = path.parent() else { return Ok(false) };
        Ok(root.dir(path)?.mount()?.is_same(&root.dir(&above)?.mount()?))
    };
    let mut found = missing_places(root);
    for path in Mounts::load(root, state)?.before {
        match missing(&path) {
            Ok(false) => {}
            Err(error) if error.is_missing() => {}
            // What cannot be looked at is unknown.
            Ok(true) | Err(_) => found.push(path),
        }
    }
    Ok(found)
}

/// What lies in cold roots that are not there.
fn missing_places(root: &Root) -> Vec<RelPath> {
    let places = root.places();
    let gone: BTreeSet<_> = places.colds().iter().filter(|cold| cold.dir().is_err()).map(|cold| cold.id).collect();
    places.all().filter(|placement| gone.contains(&placement.cold.id)).map(|placement| placement.path.clone()).collect()
}

/// Does nothing stand where a link leads?
fn leads_nowhere(root: &Root, path: &RelPath) -> Result<bool, FsError> {
    let Some((parent, name)) = path.split() else { return Ok(false) };
    match root.dir(&parent)?.leads_to(name.as_bytes()) {
        Ok(_) => Ok(false),
        // Whatever the reason is: nobody can see through it at present.
        Err(_) => Ok(true),
    }
}

/// Paths hold no zero byte.
fn record(state: &State, mounts: &BTreeSet<RelPath>) -> Result<(), StateError> {
    let paths: Vec<&[u8]> = mounts.iter().map(RelPath::as_bytes).collect();
    state.put_meta(MOUNTS, &paths.join(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_that_accepts_a_loss_is_needed_for_one_run() {
        assert!([MISSING, ANOTHER].iter().all(|text| text.ends_with("name it in .driftlessignore for one run")));
    }
}
