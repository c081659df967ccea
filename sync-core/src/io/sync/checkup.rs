//! One root looked at, outside of a run and beside whoever works with it: what is there, what can be used, and what cannot.
//!
//! Nothing is repaired, recovered or moved aside, and nothing stays behind. Where somebody works with the root, its state is not
//! opened and nothing is tried in it.

use super::keeping;
use super::marker::{self, Unmarked};
use super::{SyncError, meeting, roots};
use crate::entry::AttrMask;
use crate::io::fs::{Root, Volume, ctime_granularity, supports_exchange};
use crate::io::scan;
use crate::io::state::{State, StateError};
use crate::path::{RESERVED, RelPath};
use std::path::{Path, PathBuf};

/// How a root is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// Nobody is known to work with it.
    Idle,
    /// As [`Looked::Idle`]; and it was used before, so that a folder without a marker is a disk that is not mounted.
    Used,
    /// Somebody has it open.
    Busy,
}

/// What was found.
#[derive(Debug)]
pub struct Checkup {
    /// Where the root really is, links resolved.
    pub path: PathBuf,
    /// Has it a marker?
    pub marker: bool,
    /// Its file system.
    pub volume: Volume,
    /// Finest step of its change times, ns; 0 where every change has its own. What went wrong where that cannot be tried.
    pub granularity_ns: Result<i64, String>,
    /// Can two names be exchanged, and is a rename possible that never replaces? `None`: it was not tried.
    pub exchange: Option<Result<bool, String>>,
    /// Its state.
    pub state: StateLook,
}

/// What was found of a state.
#[derive(Debug)]
pub enum StateLook {
    /// There is none, and none is missing: the root was never used.
    New,
    /// It was not opened: somebody works with the root.
    Busy,
    /// Another process holds it.
    Held(String),
    /// It cannot be used, or does not belong to this tree.
    Unusable(String),
    /// It is there and belongs to the tree.
    Sound {
        /// Live paths.
        paths: u64,
        /// Directories, the root among them: as many watches are needed.
        directories: u64,
        /// Kept versions, and the bytes of the files among them.
        kept: (u64, u64),
        /// Places where another file system was mounted, and is not now.
        missing_mounts: Vec<RelPath>,
        /// Why it may be a copy of another state.
        moved: Option<String>,
    },
}

/// Looks at the root at `path`, whose state is in `.driftless` there or below `state_dir`.
///
/// # Errors
/// The root is missing, no directory, or cannot be entered.
pub fn check_up(path: &Path, state_dir: Option<&Path>, looked: Looked) -> Result<Checkup, SyncError> {
    let found = roots::find(path, state_dir)?;
    let volume = found.root.volume()?;
    let marker = found.marker.is_some();
    // Held while something is tried: no run begins meanwhile.
    let (state, held) = match looked {
        Looked::Busy => (StateLook::Busy, None),
        Looked::Idle | Looked::Used => look_at_state(&found, looked),
    };
    let free = matches!(state, StateLook::New | StateLook::Sound { .. });
    let exchange = (free && !volume.read_only).then(|| try_exchange(&found.root));
    drop(held);
    Ok(Checkup {
        path: found.root.path().to_owned(),
        marker,
        granularity_ns: ctime_granularity(&found.root).map_err(|error| error.to_string()),
        exchange,
        volume,
        state,
    })
}

/// What the state tells, and the state itself: its lock is held as long as it lives.
fn look_at_state(found: &roots::Found, looked: Looked) -> (StateLook, Option<State>) {
    match read_state(found, looked) {
        Ok(read) => read,
        Err(SyncError::State(StateError::Locked { holder, .. })) => (StateLook::Held(holder), None),
        Err(error) => (StateLook::Unusable(error.to_string()), None),
    }
}

fn read_state(found: &roots::Found, looked: Looked) -> Result<(StateLook, Option<State>), SyncError> {
    roots::check_marker(found, false)?;
    if !found.has_state {
        return match looked {
            Looked::Used => Err(meeting::forgotten(found.root.path())),
            _ => Ok((StateLook::New, None)),
        };
    }
    let state = State::look(&found.state_dir, AttrMask::standard(rustix::process::geteuid().is_root()))?;
    // Read again: another run may have ended before the lock was ours.
    let marker = marker::Marker::read(&found.root)?;
    match &marker {
        Some(marker) => {
            if let Some(strange) = marker.strange(&state)? {
                return Err(roots::not_of_this_tree(&found.root, &strange));
            }
        }
        None if state.seq() == 0 && state.peers()?.is_empty() => {}
        None if marker::unmarked(&found.root, &state)? == Unmarked::Same => {}
        None => roots::check_unmarked(found, Some(&state))?,
    }
    let look = StateLook::Sound {
        paths: state.live()?,
        directories: state.directories()?,
        kept: keeping::kept(&state)?,
        missing_mounts: scan::missing_mounts(&found.root, &state)?,
        moved: state.moved().map(str::to_owned),
    };
    Ok((look, Some(state)))
}

/// Tries it in the private folder; one that was made for that alone goes again.
fn try_exchange(root: &Root) -> Result<bool, String> {
    let tried = || {
        let top = root.dir(&RelPath::root())?;
        let made = top.stat(RESERVED)?.is_none();
        let answer = supports_exchange(root);
        // It is empty unless somebody has begun to use it meanwhile.
        if made && top.stat(RESERVED)?.is_some() && top.open_dir(RESERVED)?.names()?.is_empty() {
            top.rmdir(RESERVED)?;
        }
        answer
    };
    tried().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sync::{Options, Sync};
    use crate::report::Silent;
    use std::fs;

    fn pair() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::create_dir_all(dir.path().join(name).join("d/e")).unwrap();
            fs::write(dir.path().join(name).join("d/file"), "x").unwrap();
        }
        let a = dir.path().join("a");
        (dir, a)
    }

    fn synchronise(dir: &Path) {
        Sync::open(&dir.join("a"), &dir.join("b"), Options::standard(), &Silent).unwrap().apply(&Silent).unwrap();
    }

    fn listing(root: &Path) -> Vec<(String, [u8; 32])> {
        let mut found: Vec<_> = walkdir::WalkDir::new(root)
            .into_iter()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().is_file() && entry.file_name() != "state.lock")
            .map(|entry| (entry.path().display().to_string(), *blake3::hash(&fs::read(entry.path()).unwrap()).as_bytes()))
            .collect();
        found.sort();
        found
    }

    #[test]
    fn a_new_root_is_looked_at_and_nothing_stays_behind() {
        let (_dir, a) = pair();
        let found = check_up(&a, None, Looked::Idle).unwrap();
        assert!(!found.marker && matches!(found.state, StateLook::New), "{found:?}");
        assert_eq!(found.exchange, Some(Ok(true)));
        assert!(!a.join(".driftless").exists());
        let used = check_up(&a, None, Looked::Used).unwrap();
        assert!(matches!(&used.state, StateLook::Unusable(why) if why.contains("is its disk mounted?")), "{used:?}");
        assert_eq!(used.exchange, None);
        assert!(check_up(&a.join("none"), None, Looked::Idle).unwrap_err().to_string().contains("does not exist"));
    }

    #[test]
    fn a_sound_state_tells_its_numbers_and_stays_as_it_is() {
        let (dir, a) = pair();
        synchronise(dir.path());
        fs::write(dir.path().join("b/d/file"), "longer").unwrap();
        synchronise(dir.path());
        let before = listing(dir.path());
        let found = check_up(&a, None, Looked::Used).unwrap();
        let StateLook::Sound { paths, directories, kept, missing_mounts, moved } = found.state else { panic!("{found:?}") };
        assert_eq!((paths, directories, kept), (3, 3, (1, 1)));
        assert_eq!((missing_mounts, moved, found.marker, found.exchange), (vec![], None, true, Some(Ok(true))));
        assert_eq!(listing(dir.path()), before);
        synchronise(dir.path());
    }

    #[test]
    fn a_state_that_is_held_is_not_touched() {
        let (dir, a) = pair();
        synchronise(dir.path());
        let sync = Sync::open(&a, &dir.path().join("b"), Options::standard(), &Silent).unwrap();
        let found = check_up(&a, None, Looked::Idle).unwrap();
        assert!(matches!(&found.state, StateLook::Held(who) if who.contains("process")), "{found:?}");
        assert_eq!(found.exchange, None);
        drop(sync);
        assert!(matches!(check_up(&a, None, Looked::Busy).unwrap().state, StateLook::Busy));
    }

    #[test]
    fn a_damaged_state_and_one_of_another_tree_are_told_and_stay() {
        let (dir, a) = pair();
        synchronise(dir.path());
        let private = a.join(".driftless");
        let why = |word: &str| {
            let before = listing(&a);
            let found = check_up(&a, None, Looked::Idle).unwrap();
            assert!(matches!(&found.state, StateLook::Unusable(why) if why.contains(word)), "{word}: {found:?}");
            assert_eq!(listing(&a), before, "{word}");
        };
        let marker = fs::read(private.join("marker")).unwrap();
        fs::remove_file(private.join("marker")).unwrap();
        why("has no marker");
        fs::write(private.join("marker"), fs::read(dir.path().join("b/.driftless/marker")).unwrap()).unwrap();
        why("belongs to another state");
        fs::write(private.join("marker"), marker).unwrap();
        fs::write(private.join("state.db"), vec![7; 8192]).unwrap();
        why("is damaged");
        fs::remove_file(private.join("state.db")).unwrap();
        why("its state is gone");
    }
}
