//! What jobs need besides: a monitor that listens to the folder, permits for exchanges, the time, chance.

use crate::folder::Shared;
use crate::log::Level;
use crate::scheduler::{Job, Moment};
use crate::status;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use sync_core::peer::Id;
use sync_core::report::{Monitor, Phase};

/// How often the wish to end is looked for while a permit is waited for.
const GLANCE: Duration = Duration::from_millis(200);

/// Listens to one job of a folder.
pub(crate) struct Watchful<'a> {
    folder: &'a Shared,
    job: Option<Job<Id>>,
    /// Since when it holds others up: not before content is brought, so that finding out what to bring always comes to its end.
    since: Mutex<Option<Moment>>,
}

impl<'a> Watchful<'a> {
    pub(crate) fn of_root(folder: &'a Shared) -> Watchful<'a> {
        Watchful { folder, job: None, since: Mutex::default() }
    }

    pub(crate) fn of_job(folder: &'a Shared, job: Job<Id>) -> Watchful<'a> {
        Watchful { folder, job: Some(job), since: Mutex::default() }
    }

    fn source(&self) -> Option<Id> {
        match self.job {
            Some(Job::Pull(peer)) => Some(peer),
            _ => None,
        }
    }
}

impl Monitor for Watchful<'_> {
    fn phase(&self, phase: Phase, files: Option<u64>, bytes: Option<u64>) {
        if let (Phase::Apply, Some(peer), Some(files), Some(bytes)) = (phase, self.source(), files, bytes) {
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.folder.now());
            self.folder.lacks(peer, files, bytes);
        }
    }

    fn advance(&self, files: u64, bytes: u64) {
        if let Some(peer) = self.source() {
            self.folder.brought(peer, files, bytes);
        }
    }

    fn wants_items(&self) -> bool {
        false
    }

    fn notice(&self, text: &str) {
        self.folder.log(Level::Notice, text);
    }

    fn cancelled(&self) -> bool {
        match self.job {
            Some(job) => self.folder.is_to_stop(job, *self.since.lock().unwrap_or_else(PoisonError::into_inner)),
            None => self.folder.is_stopping(),
        }
    }
}

/// How many exchanges may be under way at a time, over all folders.
pub(crate) struct Permits {
    left: Mutex<usize>,
    freed: Condvar,
}

/// One of them.
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    pub(crate) fn new(count: usize) -> Permits {
        Permits { left: Mutex::new(count.max(1)), freed: Condvar::new() }
    }

    /// Waits for one; `None` once `stop` is set.
    pub(crate) fn take(&self, stop: &AtomicBool) -> Option<Permit<'_>> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        while *left == 0 {
            if stop.load(Ordering::Acquire) {
                return None;
            }
            left = self.freed.wait_timeout(left, GLANCE).unwrap_or_else(PoisonError::into_inner).0;
        }
        *left -= 1;
        Some(Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.left.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

/// The present moment, for people.
#[allow(clippy::disallowed_methods, reason = "shown, and never decided by")]
pub(crate) fn now_ns() -> status::Moment {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    status::Moment(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// A random number from 0 to 1; one half where the system has none.
pub(crate) fn random_share() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}
