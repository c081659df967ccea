//! The deletion guard: no pull of a run is carried out that would take more from a root than the user allowed, all
//! pulls of the run together.

use super::roots::Opened;
use super::{MaxDelete, SyncError};
use crate::ignore;
use crate::path::RelPath;

/// What may be deleted from a root in a run, and what was.
pub(super) struct Guard {
    limit: Option<MaxDelete>,
    /// Live paths when the run began.
    live: u64,
    /// Was the file of ignore rules all that there was? To lose it is not to lose a root.
    rules_alone: bool,
    /// Paths deleted by the pulls that were carried out.
    deleted: u64,
}

impl Guard {
    /// Nothing was deleted yet.
    pub(super) fn new(opened: &Opened, limit: Option<MaxDelete>) -> Result<Guard, SyncError> {
        let rules = RelPath::parse(ignore::FILE.as_bytes()).expect("the name of the file of rules is a path");
        let live = opened.state.live()?;
        let rules_alone = live == 1 && opened.state.entry(&rules)?.is_some();
        Ok(Guard { limit, live, rules_alone, deleted: 0 })
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
        Err(SyncError::Guard(format!(
            "this run would delete {what} on {}, which is beyond {said}; {done}. \
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
}
