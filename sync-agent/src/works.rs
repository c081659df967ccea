//! What jobs need besides: a monitor that listens to the folder, the time, chance.

use crate::folder::{Halt, Shared};
use crate::log::Level;
use crate::scheduler::{Ended, Job, Moment, wait_after};
use crate::status;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
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
    /// Paths that came to their end since then.
    files: AtomicU64,
    /// Why it was told to stop at first, if it was.
    halted: OnceLock<Halt>,
}

impl<'a> Watchful<'a> {
    pub(crate) fn of_root(folder: &'a Shared) -> Watchful<'a> {
        Watchful {
            folder,
            job: None,
            since: Mutex::default(),
            bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            halted: OnceLock::new(),
        }
    }

    pub(crate) fn of_job(folder: &'a Shared, job: Job<Id>) -> Watchful<'a> {
        Watchful {
            folder,
            job: Some(job),
            since: Mutex::default(),
            bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            halted: OnceLock::new(),
        }
    }

    /// How much content was brought, and how long that took.
    pub(crate) fn load(&self) -> Option<(u64, Duration)> {
        let since = self.since()?;
        Some((self.bytes.load(Ordering::Relaxed), self.folder.now().saturating_sub(since)))
    }

    /// Did anything come to its end since then?
    fn got_further(&self) -> bool {
        self.files.load(Ordering::Relaxed) > 0
    }

    /// How a job ended that stopped because it was told to.
    pub(crate) fn stopped(&self) -> Ended {
        match self.halted.get() {
            Some(Halt::ForUser) => Ended::MadeRoom,
            _ => Ended::Stopped { further: self.got_further() },
        }
    }

    fn since(&self) -> Option<Moment> {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
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
            self.files.store(0, Ordering::Relaxed);
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
            if self.since().is_some() {
                self.files.fetch_add(files, Ordering::Relaxed);
            }
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
            Some(job) => {
                let halt = self.folder.is_to_stop(job, self.since());
                if let Some(halt) = halt {
                    self.halted.get_or_init(|| halt);
                }
                halt.is_some()
            }
            None => self.folder.is_stopping(),
        }
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
