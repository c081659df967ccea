//! The deletion guard: no pull is carried out that would take more from a root than the user allowed, all pulls of a run
//! together, and all pulls of an hour where a root stays open.

use super::opened::Opened;
use super::{MaxDelete, SyncError};
use crate::ignore;
use crate::path::RelPath;
use std::time::{Duration, Instant};

/// Deletions of one such span count together in a root that stays open.
const WINDOW: Duration = Duration::from_secs(3600);

/// What may be deleted from a root in a run, and what was.
pub(super) struct Guard {
    limit: Option<MaxDelete>,
    /// Live paths when the run began, or the span in which deletions count together.
    live: u64,
    /// Was the file of ignore rules all that there was? To lose it is not to lose a root.
    rules_alone: bool,
    /// Paths deleted by the pulls that were carried out.
    deleted: u64,
    /// Those of them that earlier guards saw go.
    before: u64,
}

/// What pulls have deleted from a root that stays open: what arrives in many small pulls is measured as one. What came later
/// pays for what went, so that files which come and go all day are no loss.
#[derive(Debug, Default)]
pub(super) struct Spent {
    /// When the first of it went.
    since: Option<Instant>,
    deleted: u64,
    /// Until when a pull may delete whatever it is to delete.
    leave: Option<Instant>,
}

impl Spent {
    /// What counts at `now` beside what a pull is to delete.
    pub(super) fn deleted(&self, now: Instant) -> u64 {
        let counts = self.since.is_some_and(|since| now.saturating_duration_since(since) < WINDOW);
        if counts { self.deleted } else { 0 }
    }

    /// A pull has deleted and created so many paths.
    pub(super) fn add(&mut self, deleted: u64, created: u64, now: Instant) {
        let before = self.deleted(now);
        if before == 0 {
            self.since = Some(now);
        }
        self.deleted = (before + deleted).saturating_sub(created);
    }

    /// Nothing counts any more, and the next pull that deletes may delete what it likes, if it comes soon.
    pub(super) fn allow(&mut self, now: Instant) {
        *self = Spent { leave: Some(now + WINDOW), ..Spent::default() };
    }

    /// Is there leave to delete?
    pub(super) fn is_allowed(&self, now: Instant) -> bool {
        self.leave.is_some_and(|until| now < until)
    }

    /// The leave was used.
    pub(super) fn use_leave(&mut self) {
        self.leave = None;
    }
}

impl Guard {
    /// So many paths were deleted before, and count.
    pub(super) fn new(opened: &Opened, limit: Option<MaxDelete>, before: u64) -> Result<Guard, SyncError> {
        let rules = RelPath::parse(ignore::FILE.as_bytes()).expect("the name of the file of rules is a path");
        let live = opened.state.live()?;
        let rules_alone = live == 1 && before == 0 && opened.state.entry(&rules)?.is_some();
        Ok(Guard { limit, live: live + before, rules_alone, deleted: before, before })
    }

    /// How much the pulls have deleted that it saw.
    pub(super) fn spent(&self) -> u64 {
        self.deleted - self.before
    }

    /// A pull was broken off, before which `live` paths stood: what went by then counts.
    pub(super) fn broken_off(&mut self, opened: &Opened, live: u64) -> Result<(), SyncError> {
        self.deleted += live.saturating_sub(opened.state.live()?);
        Ok(())
    }

    /// May a pull into the root delete so many paths? Moves are no deletions. `changed`: did the run change anything before?
    pub(super) fn check(&self, opened: &Opened, planned: u64, changed: bool) -> Result<(), SyncError> {
        let Some(limit) = self.limit.filter(|_| planned > 0) else { return Ok(()) };
        let (deleted, live) = (self.deleted + planned, self.live);
        let counted = matches!(limit, MaxDelete::Count(count) if deleted > count);
        if self.rules_alone && deleted <= live && !counted {
            return Ok(());
        }
        let Some((what, said)) = over(limit, deleted, live) else { return Ok(()) };
        let done = if changed { "what was done before is recorded" } else { "nothing was changed" };
        let who = if self.before > 0 { "together with what went within the hour before, this" } else { "this run" };
        Err(SyncError::Guard(format!(
            "{who} would delete {what} on {}, which is beyond {said}; {done}. \
             Is the other root complete, is its disk mounted? If the deletions are meant, run again with --allow-delete",
            opened.root.path().display()
        )))
    }

    /// A pull was carried out that was to delete `planned` paths and created `created`; before it, `live` paths stood. Why the run is
    /// not to go on, if more went than was allowed: moves are no deletions, and what was to be moved may have come nowhere.
    pub(super) fn done(
        &mut self,
        opened: &Opened,
        planned: u64,
        created: u64,
        live: u64,
    ) -> Result<Option<SyncError>, SyncError> {
        let now = opened.state.live()?;
        // What failed stands still, and is planned again.
        let gone = planned.min((live + created).saturating_sub(now));
        // Nothing came for so many, wherever it was to go.
        let lost = live.saturating_sub(now);
        self.deleted += gone.max(lost);
        let Some(limit) = self.limit.filter(|_| lost > planned) else { return Ok(None) };
        Ok(over(limit, self.deleted, self.live).map(|(what, said)| {
            SyncError::Guard(format!(
                "{} paths on {} that were to be moved went and came nowhere: the other root changed meanwhile, or does not tell the \
                 truth. This run has deleted {what}, which is beyond {said}; what was done is recorded, and what went is among the \
                 kept versions (driftless versions)",
                lost - planned,
                opened.root.path().display()
            ))
        }))
    }
}

/// How much and which limit, if so many of the live paths of a root are too many.
fn over(limit: MaxDelete, deleted: u64, live: u64) -> Option<(String, String)> {
    let whole = deleted >= live;
    let (over, said) = match limit {
        MaxDelete::Count(count) => (deleted > count, format!("--max-delete {count}")),
        MaxDelete::Percent(share) => (deleted as f64 * 100.0 > share * live as f64, format!("--max-delete {share}%")),
    };
    let said = if over { said } else { format!("any limit, {said} too: a whole root goes only with leave") };
    let what = if whole { format!("all {live} paths") } else { format!("{deleted} of {live} paths") };
    (whole || over).then_some((what, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_passed_by_what_it_names_and_a_whole_root_is_always_too_much() {
        for (limit, deleted, live, stops) in [
            (MaxDelete::Percent(50.0), 5, 10, false),
            (MaxDelete::Percent(50.0), 6, 10, true),
            (MaxDelete::Percent(100.0), 9, 10, false),
            (MaxDelete::Percent(100.0), 10, 10, true),
            (MaxDelete::Count(3), 3, 10, false),
            (MaxDelete::Count(3), 4, 10, true),
            (MaxDelete::Count(10), 10, 10, true),
        ] {
            assert_eq!(over(limit, deleted, live).is_some(), stops, "{limit:?} {deleted} of {live}");
        }
        let said = |limit| over(limit, 10, 10).unwrap().1;
        assert!(said(MaxDelete::Percent(100.0)).contains("any limit") && !said(MaxDelete::Count(9)).contains("any limit"));
    }

    #[test]
    fn deletions_of_an_hour_count_together_and_what_came_since_pays_for_them() {
        let (begin, mut spent) = (Instant::now(), Spent::default());
        let after = |minutes: u64| begin + Duration::from_secs(60 * minutes);
        for minutes in [0, 20, 40] {
            spent.add(2, 0, after(minutes));
        }
        assert_eq!((spent.deleted(after(59)), spent.deleted(after(60))), (6, 0));
        spent.add(1, 0, after(61));
        assert_eq!((spent.deleted(after(119)), spent.deleted(after(121))), (1, 0));
        // A lock file that comes and goes.
        for minutes in 130..150 {
            spent.add(0, 1, after(minutes));
            assert_eq!(spent.deleted(after(minutes)), 0, "what came before pays for nothing");
            spent.add(1, 0, after(minutes));
            assert_eq!(spent.deleted(after(minutes)), 1);
        }
    }

    #[test]
    fn leave_to_delete_is_given_once_and_ends_by_itself() {
        let (begin, mut spent) = (Instant::now(), Spent::default());
        spent.add(5, 0, begin);
        spent.allow(begin);
        assert!(spent.is_allowed(begin) && spent.deleted(begin) == 0 && !spent.is_allowed(begin + WINDOW));
        spent.use_leave();
        assert!(!spent.is_allowed(begin));
    }
}
