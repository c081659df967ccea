//! What one root of this machine carries from round to round in a run that goes on, and how it is looked at in each.

use super::end::{End as _, LocalEnd, ScanTerms};
use super::going::within;
use super::guard::Spent;
use super::live::still_missing;
use super::lookout::Noticed;
use super::opened::Opened;
use super::{Options, Side, SyncError};
use crate::ignore::Rules;
use crate::io::scan::{self, Scanned};
use crate::path::RelPath;
use crate::report::Monitor;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often what is of no use any more goes.
const TIDY: Duration = Duration::from_secs(60);

/// What is known of earlier rounds.
#[derive(Default)]
pub(super) struct Carried {
    /// Was it looked at as a whole?
    looked: bool,
    /// What was deleted in the rounds of an hour.
    spent: Spent,
    /// What this round created.
    created: u64,
    /// Where it misses file systems, by the last scan of each path.
    missing: Vec<RelPath>,
    tidied: Option<Instant>,
}

impl Carried {
    /// An end for the next round, in place of the one of the last, which has deleted so much.
    pub(super) fn next(&mut self, deleted: u64, opened: &Arc<Opened>, rules: &Rules, side: Side) -> LocalEnd {
        let now = Instant::now();
        self.spent.add(deleted, std::mem::take(&mut self.created), now);
        LocalEnd::new(opened.clone(), rules.clone(), side).with_spent(self.spent.deleted(now))
    }

    /// So many paths were created; they pay for deletions.
    pub(super) fn created(&mut self, count: u64) {
        self.created += count;
    }

    /// Looks at what was noticed, at all of it in the first round.
    pub(super) fn look(
        &mut self,
        (end, opened): (&mut LocalEnd, &Opened),
        noticed: &Noticed,
        terms: &ScanTerms<'_>,
        monitor: &dyn Monitor,
    ) -> Result<Scanned, SyncError> {
        let only = match noticed {
            _ if !self.looked => None,
            Noticed::Paths(paths) => Some(within(&terms.options.paths, paths.clone())),
            Noticed::Everything => None,
            Noticed::Lost => return Err(lost(opened)),
        };
        let mut scanned = match &only {
            None => end.scan(terms, monitor)?,
            Some(paths) if paths.is_empty() => Scanned::default(),
            // Where something changed is read in any case.
            Some(paths) => {
                let options = Options { paths: paths.clone(), checksum: false, ..terms.options.clone() };
                end.look(&ScanTerms { options: &options, ..*terms }, monitor)?
            }
        };
        self.looked = true;
        self.missing = match &only {
            Some(paths) if paths.is_empty() => std::mem::take(&mut self.missing),
            only => still_missing(&self.missing, only.as_deref().unwrap_or_default(), &scanned.unavailable),
        };
        // A disk may have gone since: nothing is to be put where it belongs.
        let gone = scan::missing_mounts(&opened.root, &opened.state)?;
        scanned.unavailable = [self.missing.as_slice(), gone.as_slice()].concat();
        scanned.unavailable.sort();
        scanned.unavailable.dedup();
        Ok(scanned)
    }

    /// Is it time that what is of no use any more goes? Then it counts as done.
    pub(super) fn tidies(&mut self) -> bool {
        let due = self.tidied.is_none_or(|last| last.elapsed() >= TIDY);
        if due {
            self.tidied = Some(Instant::now());
        }
        due
    }
}

fn lost(opened: &Opened) -> SyncError {
    SyncError::Root(format!(
        "{} is not the directory any more that it was (unmounted, moved or replaced?): nothing there is taken for deleted",
        opened.root.path().display()
    ))
}
