//! Counts of items, as planned or as done; and the conflicts, each path once.
//!
//! A two-way run is two pulls, and both meet a conflict that stays open. A user counts paths. One that is decided changes the side that
//! lost, and is told there, once: with the reason that makes it a conflict.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use sync_core::entry::Kind;
use sync_core::io::sync::{Policy, Side, Totals};
use sync_core::path::RelPath;
use sync_core::plan::{BOTH_CHANGED, CONFLICT_COPY, Item, Verb};
use sync_core::report::Done;

/// The reason that no policy can change.
const UNREADABLE: &str = "cannot be read";

/// A conflict that stays open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    /// Kind of what stands there.
    pub(crate) kind: Kind,
    /// Why it stays.
    pub(crate) reason: &'static str,
}

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// What changed, or would, on A and on B.
    pub(crate) totals: [Totals; 2],
    /// Conflicts that stay open.
    pub(crate) left: BTreeMap<RelPath, Left>,
    /// Conflicts that were decided.
    pub(crate) settled: BTreeSet<RelPath>,
    /// All items, open conflicts once.
    pub(crate) items: u64,
    /// Conflicts that were decided in this round: which side won, where the write on the other one is yet to come and will read as an
    /// ordinary update; `None` once it was told.
    won: BTreeMap<RelPath, Option<Side>>,
    /// What items of conflicts changed on A and on B; the engine counts them as conflicts only.
    by_conflicts: [Changed; 2],
}

#[derive(Debug, Clone, Copy, Default)]
struct Changed {
    created: u64,
    updated: u64,
}

impl Tally {
    /// Counts an item that was done, left or tried, and returns it as it is to be told; `None` if there is nothing to tell: this conflict
    /// was counted before, or what stands there won it, and nothing of a user's changes on that side.
    pub(crate) fn add<'i>(&mut self, side: Side, item: &'i Item, done: Done) -> Option<Cow<'i, Item>> {
        if done == Done::Skipped && !self.leave(item) {
            return None;
        }
        if (item.verb, item.reason, done) == (Verb::Conflict, None, Done::Done) {
            self.settled.insert(item.path.clone());
            self.won.entry(item.path.clone()).or_insert(Some(side));
            return None;
        }
        let carries = (item.verb, item.reason) == (Verb::Update, None)
            && done != Done::Skipped
            && self.won.get(&item.path).copied().flatten().is_some_and(|winner| winner != side);
        let item = match carries {
            true => Cow::Owned(Item { reason: Some(BOTH_CHANGED), ..item.clone() }),
            false => Cow::Borrowed(item),
        };
        self.items += 1;
        match done {
            Done::Skipped => self.totals[index(side)].skipped += 1,
            Done::Failed => self.totals[index(side)].failed += 1,
            Done::Done => self.count(side, &item),
        }
        Some(item)
    }

    /// These numbers of the engine, and what conflicts changed beside them.
    pub(crate) fn with_conflicts(&self, mut totals: [Totals; 2]) -> [Totals; 2] {
        for (totals, changed) in totals.iter_mut().zip(&self.by_conflicts) {
            totals.created += changed.created;
            totals.updated += changed.updated;
        }
        totals
    }

    /// No further item will tell of what was decided so far.
    pub(crate) fn round_ended(&mut self) {
        self.won.clear();
    }

    /// Conflicts met, by path.
    pub(crate) fn conflicts(&self) -> u64 {
        self.settled.len() as u64 + self.skipped()
    }

    /// Paths left as they are.
    pub(crate) fn skipped(&self) -> u64 {
        self.left.len() as u64
    }

    /// Changes that a run would make, conflicts that stay open left aside.
    pub(crate) fn changes(&self) -> u64 {
        self.items - self.skipped()
    }

    fn count(&mut self, side: Side, item: &Item) {
        let (totals, changed) = (&mut self.totals[index(side)], &mut self.by_conflicts[index(side)]);
        totals.bytes += item.bytes;
        if item.reason == Some(BOTH_CHANGED) {
            self.settled.insert(item.path.clone());
            self.won.insert(item.path.clone(), None);
        }
        match item.verb {
            Verb::Create => totals.created += 1,
            Verb::Update | Verb::Meta => totals.updated += 1,
            Verb::Delete => totals.deleted += 1,
            Verb::Move => totals.moved += 1,
            Verb::Conflict => {
                // The winner's version comes, and the loser's becomes a copy beside it; or such a copy comes from the other side.
                let updated = u64::from(item.reason != Some(CONFLICT_COPY));
                totals.created += 1;
                totals.updated += updated;
                changed.created += 1;
                changed.updated += updated;
            }
        }
    }

    fn leave(&mut self, item: &Item) -> bool {
        let left = Left { kind: item.kind, reason: item.reason.unwrap_or("left as it is") };
        self.left.insert(item.path.clone(), left).is_none()
    }
}

/// What will become of a planned item: a conflict stays open if the policy says so, or if its bytes cannot be read. One without a
/// reason is decided already.
pub(crate) fn foresee(item: &Item, policy: Policy) -> Done {
    let open = item.verb == Verb::Conflict
        && (item.reason == Some(UNREADABLE) || (policy == Policy::Skip && item.reason == Some(BOTH_CHANGED)));
    if open { Done::Skipped } else { Done::Done }
}

/// A side's place in pairs of totals.
pub(crate) fn index(side: Side) -> usize {
    match side {
        Side::A => 0,
        Side::B => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str, verb: Verb, reason: Option<&'static str>) -> Item {
        let path = RelPath::parse(path.as_bytes()).unwrap();
        Item { path, kind: Kind::File, verb, from: None, bytes: 10, reason }
    }

    #[test]
    fn an_open_conflict_that_both_pulls_meet_counts_once() {
        let mut tally = Tally::default();
        let conflict = item("a", Verb::Conflict, Some("both sides changed it"));
        assert!(tally.add(Side::B, &conflict, Done::Skipped).is_some());
        assert!(tally.add(Side::A, &conflict, Done::Skipped).is_none());
        assert!(tally.add(Side::A, &item("b", Verb::Create, None), Done::Done).is_some());
        assert_eq!((tally.conflicts(), tally.skipped(), tally.items, tally.changes()), (1, 1, 2, 1));
        assert_eq!((tally.totals[0].created, tally.totals[0].bytes), (1, 10));
    }

    #[test]
    fn both_versions_of_a_conflict_are_one_conflict_and_what_they_change_is_counted_as_what_it_is() {
        let mut tally = Tally::default();
        tally.add(Side::A, &item("a", Verb::Conflict, Some("both sides changed it")), Done::Done);
        tally.add(Side::B, &item("a.conflict", Verb::Conflict, Some("conflict copy")), Done::Done);
        tally.add(Side::B, &Item { bytes: 0, ..item("a", Verb::Conflict, None) }, Done::Done);
        assert_eq!((tally.conflicts(), tally.skipped(), tally.items), (1, 0, 2));
        let engine = Totals { conflicts: 2, bytes: 20, created: 1, ..Totals::default() };
        for [a, b] in [tally.totals, tally.with_conflicts([Totals::default(), engine])] {
            assert_eq!((a.created, a.updated), (1, 1));
            assert!(b.updated == 0 && (b.created, b.bytes) == if b.conflicts == 2 { (2, 20) } else { (1, 10) }, "{b:?}");
        }
    }

    #[test]
    fn a_decided_conflict_is_told_once_where_it_changes_something() {
        let (wins, carries) = (item("a", Verb::Conflict, None), item("a", Verb::Update, Some("both sides changed it")));
        let update = item("a", Verb::Update, None);
        for items in [
            // As planned: both pulls decide.
            vec![(Side::B, &carries, true), (Side::A, &wins, false)],
            vec![(Side::B, &wins, false), (Side::A, &carries, true)],
            // As done: the second pull finds it decided.
            vec![(Side::B, &carries, true)],
            vec![(Side::B, &wins, false), (Side::A, &update, true)],
        ] {
            let mut tally = Tally::default();
            for (side, item, told) in &items {
                let seen = tally.add(*side, item, Done::Done);
                assert_eq!(seen.is_some(), *told, "{items:?}");
                assert!(seen.is_none_or(|item| item.reason == Some("both sides changed it")), "{items:?}");
            }
            assert_eq!((tally.conflicts(), tally.skipped(), tally.items, tally.changes()), (1, 0, 1, 1), "{items:?}");
            // What comes after it is an edit like any other.
            for side in [Side::A, Side::B] {
                assert_eq!(tally.add(side, &update, Done::Done).unwrap().reason, None, "{items:?}");
            }
        }
    }

    #[test]
    fn what_was_won_in_a_round_explains_no_update_of_a_later_one_and_none_of_the_winner() {
        let (wins, update) = (item("a", Verb::Conflict, None), item("a", Verb::Update, None));
        for (side, ended) in [(Side::B, false), (Side::A, true)] {
            let mut tally = Tally::default();
            tally.add(Side::B, &wins, Done::Done);
            if ended {
                tally.round_ended();
            }
            assert_eq!(tally.add(side, &update, Done::Done).unwrap().reason, None);
        }
    }

    #[test]
    fn a_settlement_that_failed_is_told_as_failed() {
        let mut tally = Tally::default();
        assert!(tally.add(Side::B, &item("a", Verb::Conflict, None), Done::Failed).is_some());
        assert_eq!((tally.conflicts(), tally.totals[1].failed, tally.items), (0, 1, 1));
    }

    #[test]
    fn a_conflict_stays_open_by_policy_or_because_it_cannot_be_read() {
        let both = item("a", Verb::Conflict, Some("both sides changed it"));
        let unreadable = item("a", Verb::Conflict, Some("cannot be read"));
        let copy = item("a", Verb::Conflict, Some("conflict copy"));
        let won = item("a", Verb::Conflict, None);
        for (item, policy, done) in [
            (&won, Policy::Skip, Done::Done),
            (&both, Policy::Skip, Done::Skipped),
            (&both, Policy::Newer, Done::Done),
            (&unreadable, Policy::Newer, Done::Skipped),
            (&copy, Policy::KeepBoth, Done::Done),
        ] {
            assert_eq!(foresee(item, policy), done, "{item:?} {policy:?}");
        }
    }
}
