//! Who listens to what the archiving thread does: one says it in the log, one stops it or keeps it at a pace.

use super::Shared;
use crate::archive::run::{Day, Told};
use crate::log::Level;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use sync_core::io::archive::{ArchiveError, Moved};
use sync_core::pace::Pace;
use sync_core::path::RelPath;
use sync_core::report::Monitor;

/// Says in the log what a run tells, and keeps what failed.
pub(super) struct Teller<'a> {
    shared: &'a Shared,
    pub(super) failed: Vec<(RelPath, String)>,
    /// What was told the last time of days that had moved before: it is not told again.
    before: &'a Settling,
    /// The same now, once they are looked after.
    pub(super) settling: Option<Settling>,
}

/// What stood in the way when days that had moved before were looked after.
#[derive(Default)]
pub(super) struct Settling {
    pub(super) failed: BTreeSet<(RelPath, String)>,
    /// No old copy of a day is removed: why differs from one time to the next by what has passed.
    noticed: bool,
}

impl<'a> Teller<'a> {
    pub(super) fn new(shared: &'a Shared, before: &'a Settling) -> Teller<'a> {
        Teller { shared, failed: Vec::new(), before, settling: None }
    }
}

impl Told for Teller<'_> {
    fn day(&mut self, day: &Day, result: Option<&Result<Moved, ArchiveError>>) {
        match result {
            None | Some(Ok(_) | Err(ArchiveError::Cancelled)) => {}
            Some(Err(error @ ArchiveError::Changed(_))) => self.shared.log(Level::Notice, &error.to_string()),
            Some(Err(error)) => self.problem(&day.path, error),
        }
    }

    fn problem(&mut self, path: &RelPath, error: &ArchiveError) {
        let problem = (path.clone(), error.to_string());
        if self.settling.is_none() || !self.before.failed.contains(&problem) {
            self.shared.log(Level::Warning, &format!("{path}: {error}"));
        }
        match &mut self.settling {
            Some(settling) => {
                settling.failed.insert(problem);
            }
            None => self.failed.push(problem),
        }
    }

    fn notice(&mut self, text: &str) {
        let known = self.settling.as_mut().is_some_and(|settling| {
            settling.noticed = true;
            self.before.noticed
        });
        if !known {
            self.shared.log(Level::Notice, text);
        }
    }

    fn settles(&mut self) {
        self.settling = Some(Settling::default());
    }
}

/// Listens to what the thread does: it stops when the root is closed, paused or a run is asked for, and takes its time.
pub(super) struct Steadily<'a> {
    shared: &'a Shared,
    over: &'a AtomicBool,
    /// Of the rule by which it works.
    number: u64,
    /// Bytes a second; who works at such a pace gives way to a run that is asked for.
    pace: Option<Mutex<Pace>>,
}

impl<'a> Steadily<'a> {
    pub(super) fn new(shared: &'a Shared, over: &'a AtomicBool, rate: Option<u64>) -> Steadily<'a> {
        let pace = rate.map(|rate| Mutex::new(Pace::new(rate)));
        let number = shared.desk.wishes().number;
        Steadily { shared, over, number, pace }
    }

    /// By the rule of this number, which may be another one by now: then it stops at once.
    pub(super) fn by(self, number: u64) -> Steadily<'a> {
        Steadily { number, ..self }
    }
}

impl Monitor for Steadily<'_> {
    fn cancelled(&self) -> bool {
        let otherwise = || {
            let wishes = self.shared.desk.wishes();
            wishes.number != self.number || self.pace.is_some() && (wishes.run.is_some() || wishes.by_hand > 0)
        };
        self.over.load(Ordering::Acquire) || self.shared.is_stopping() || self.shared.is_paused() || otherwise()
    }

    fn advance(&self, _files: u64, bytes: u64) {
        let Some(pace) = &self.pace else { return };
        let mut left = bytes;
        while left > 0 && !self.cancelled() {
            let now = u64::try_from(self.shared.now().as_nanos()).unwrap_or(u64::MAX);
            let (taken, wait) = {
                let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
                pace.take(now, usize::try_from(left).unwrap_or(usize::MAX))
            };
            left = left.saturating_sub(taken as u64);
            if wait > 0 {
                // Whoever asks for something else ends the wait.
                let wishes = self.shared.desk.wishes();
                drop(self.shared.desk.changed.wait_timeout(wishes, Duration::from_nanos(wait)));
            }
        }
    }

    fn notice(&self, text: &str) {
        self.shared.log(Level::Notice, text);
    }
}
