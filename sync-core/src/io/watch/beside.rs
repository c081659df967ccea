//! Sets the watches of a root while it is scanned: each right before its directory is listed, through the descriptor by which the scan
//! has it open. So nothing is opened or listed for the watches alone, and still each name that is made is either listed or told.
//!
//! What is told meanwhile waits until somebody asks the watch for it, after the scan: directories that came where the scan had
//! passed get their watches then. What the scan does not look into gets them here, as by [`Watch::begin`].
//!
//! Where there are not enough watches, those of older days that were set before are given up for newer ones that the scan comes to, so
//! that the newest have them in the end.

use super::{Watch, WatchError};
use crate::io::fs::Dir;
use crate::io::mutex::{into_inner, lock};
use crate::path::RelPath;
use std::sync::Mutex;

/// The watch of a root that is being scanned. Whatever fails is told by [`Beside::finish`]: it keeps no scan from going on.
#[derive(Debug)]
pub struct Beside {
    /// What failed first; nothing more is set then.
    held: Mutex<(Watch, Option<WatchError>)>,
}

impl Beside {
    pub(super) fn of(watch: Watch) -> Beside {
        Beside { held: Mutex::new((watch, None)) }
    }

    /// A directory is about to be listed: from now on whatever changes in it is told.
    pub(in crate::io) fn before_listing(&self, path: &RelPath, dir: &Dir) {
        self.attempt(|watch| watch.set_opened(path, dir));
    }

    /// A directory is there, and the scan does not look at what is below it.
    pub(in crate::io) fn left_out(&self, path: &RelPath) {
        self.attempt(|watch| watch.set_below(path));
    }

    fn attempt(&self, set: impl FnOnce(&mut Watch) -> Result<(), WatchError>) {
        let (watch, failed) = &mut *lock(&self.held);
        if failed.is_none() {
            *failed = set(watch).err();
        }
    }

    /// The watch, after a scan of the whole root that ended well: all that it saw is watched since before it saw it.
    ///
    /// # Errors
    /// A watch could not be set, or another directory stands at the root's path by now. Too few watches are none.
    pub fn finish(self) -> Result<Watch, WatchError> {
        match into_inner(self.held) {
            (_, Some(error)) => Err(error),
            (watch, None) => {
                watch.must_stand()?;
                Ok(watch)
            }
        }
    }
}
