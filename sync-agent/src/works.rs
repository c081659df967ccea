//! What jobs need besides: a monitor that listens to the folder, permits for exchanges, the time, chance.

use crate::folder::Shared;
use crate::log::Level;
use crate::scheduler::{Job, Moment, wait_after};
use crate::status;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use sync_core::path::RelPath;
use sync_core::peer::Id;
use sync_core::plan::Item;
use sync_core::report::{Done, Monitor, OnItsWay, Phase};

/// Listens to one job of a folder.
pub(crate) struct Watchful<'a> {
    folder: &'a Shared,
    job: Option<Job<Id>>,
    /// Since when it holds others up: not before content is brought, so that finding out what to bring always comes to its end.
    since: Mutex<Option<Moment>>,
    /// Bytes of content that were brought since then.
    bytes: AtomicU64,
}

impl<'a> Watchful<'a> {
    pub(crate) fn of_root(folder: &'a Shared) -> Watchful<'a> {
        Watchful { folder, job: None, since: Mutex::default(), bytes: AtomicU64::new(0) }
    }

    pub(crate) fn of_job(folder: &'a Shared, job: Job<Id>) -> Watchful<'a> {
        Watchful { folder, job: Some(job), since: Mutex::default(), bytes: AtomicU64::new(0) }
    }

    /// How much content was brought, and how long that took.
    pub(crate) fn load(&self) -> Option<(u64, Duration)> {
        let since = (*self.since.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some((self.bytes.load(Ordering::Relaxed), self.folder.now().saturating_sub(since)))
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

    fn awaits(&self, path: &RelPath) {
        if let Some(peer) = self.source() {
            self.folder.awaits(peer, path);
        }
    }

    fn advance(&self, files: u64, bytes: u64) {
        if let Some(peer) = self.source() {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.folder.brought(peer, files, bytes);
        }
    }

    fn on_their_way(&self, files: &[OnItsWay]) {
        if let Some(peer) = self.source() {
            self.folder.on_their_way(peer, files);
        }
    }

    fn item(&self, item: &Item, _here: usize, done: Done) {
        if let (Some(peer), Done::Done) = (self.source(), done) {
            self.folder.took(peer, item);
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

/// How many exchanges may be under way at a time, over all folders. Nobody is kept waiting: who gets none is told when there is one.
#[derive(Default)]
pub(crate) struct Permits(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    most: usize,
    taken: usize,
    /// By whom they are waited for, each once.
    waiting: BTreeMap<usize, Woken>,
}

/// Is called once there may be a permit.
pub(crate) type Woken = Box<dyn FnOnce() + Send>;

/// One of them.
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    /// So many, one at the least.
    pub(crate) fn new(count: usize) -> Permits {
        let permits = Permits::default();
        permits.set(count);
        permits
    }

    /// From now on there are so many. What is under way goes on.
    pub(crate) fn set(&self, count: usize) {
        self.change(|counts| counts.most = count.max(1));
    }

    /// One of them, if there is one; else `woken` is called when there may be. Of the same `who` only the last waits.
    pub(crate) fn take(&self, who: usize, woken: impl FnOnce() -> Woken) -> Option<Permit<'_>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.taken < counts.most {
            counts.taken += 1;
            counts.waiting.remove(&who);
            return Some(Permit(self));
        }
        counts.waiting.insert(who, woken());
        None
    }

    /// Is there somebody who got none?
    pub(crate) fn are_waited_for(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting.is_empty()
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        let waiting = {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut counts);
            if counts.taken < counts.most { std::mem::take(&mut counts.waiting) } else { BTreeMap::new() }
        };
        // Whoever is woken may lock what it likes.
        waiting.into_values().for_each(|woken| woken());
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.change(|counts| counts.taken -= 1);
    }
}

/// The present moment, for people.
#[allow(clippy::disallowed_methods, reason = "shown, and never decided by")]
pub(crate) fn now_ns() -> status::Moment {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    status::Moment(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// How long whatever failed so many times in a row is left alone: from half a second on twice as long each time, up to a minute, and
/// by chance up to a half less, so that many do not come at once.
#[must_use]
pub fn again_after(failures: u32) -> Duration {
    wait_after(failures, random_share())
}

/// A random number from 0 to 1; one half where the system has none.
pub(crate) fn random_share() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn who_gets_no_permit_is_told_once_there_is_one_and_nobody_is_kept_waiting() {
        let (permits, told) = (Permits::new(1), Arc::<AtomicUsize>::default());
        let waits = |who: usize| {
            let told = told.clone();
            permits.take(who, || {
                Box::new(move || {
                    told.fetch_add(1, Ordering::Relaxed);
                })
            })
        };
        let told = || told.load(Ordering::Relaxed);
        let one = waits(1).unwrap();
        assert!(!permits.are_waited_for());
        assert!(waits(2).is_none() && permits.are_waited_for() && waits(2).is_none() && waits(3).is_none() && told() == 0);
        drop(one);
        assert!(told() == 2 && !permits.are_waited_for());
        let two = waits(2).unwrap();
        assert!(waits(3).is_none());
        // More of them, and less: what is under way goes on.
        permits.set(2);
        assert_eq!(told(), 3);
        let three = waits(3).unwrap();
        permits.set(1);
        drop(two);
        assert!(waits(2).is_none() && told() == 3);
        drop(three);
        assert!(told() == 4 && waits(2).is_some());
    }
}
