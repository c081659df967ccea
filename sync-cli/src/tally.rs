//! Counts of items, as planned or as done; and the conflicts, each path once.
//!
//! A two-way run is two pulls, and both meet a conflict that stays open. A user counts paths.

use std::collections::{BTreeMap, BTreeSet};
use sync_core::entry::Kind;
use sync_core::io::sync::{Policy, Side, Totals};
use sync_core::path::RelPath;
use sync_core::plan::{Item, Verb};
use sync_core::report::Done;

/// The reason that the engine gives to the second file of a resolved conflict.
const CONFLICT_COPY: &str = "conflict copy";
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
}

impl Tally {
    /// Counts an item that was done, left or tried; false if this conflict was counted before.
    pub(crate) fn add(&mut self, side: Side, item: &Item, done: Done) -> bool {
        if done == Done::Skipped && !self.leave(item) {
            return false;
        }
        self.items += 1;
        let totals = &mut self.totals[index(side)];
        match done {
            Done::Skipped => totals.skipped += 1,
            Done::Failed => totals.failed += 1,
            Done::Done => {
                totals.bytes += item.bytes;
                match item.verb {
                    Verb::Create => totals.created += 1,
                    Verb::Update | Verb::Meta => totals.updated += 1,
                    Verb::Delete => totals.deleted += 1,
                    Verb::Move => totals.moved += 1,
                    Verb::Conflict if item.reason == Some(CONFLICT_COPY) => totals.created += 1,
                    Verb::Conflict => {
                        totals.updated += 1;
                        self.settled.insert(item.path.clone());
                    }
                }
            }
        }
        true
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

    fn leave(&mut self, item: &Item) -> bool {
        let left = Left { kind: item.kind, reason: item.reason.unwrap_or("left as it is") };
        self.left.insert(item.path.clone(), left).is_none()
    }
}

/// What will become of a planned item: a conflict stays open if the policy says so, or if its bytes cannot be read.
pub(crate) fn foresee(item: &Item, policy: Policy) -> Done {
    let open = item.verb == Verb::Conflict
        && (item.reason == Some(UNREADABLE) || (policy == Policy::Skip && item.reason != Some(CONFLICT_COPY)));
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
        assert!(tally.add(Side::B, &conflict, Done::Skipped));
        assert!(!tally.add(Side::A, &conflict, Done::Skipped));
        assert!(tally.add(Side::A, &item("b", Verb::Create, None), Done::Done));
        assert_eq!((tally.conflicts(), tally.skipped(), tally.items, tally.changes()), (1, 1, 2, 1));
        assert_eq!((tally.totals[0].created, tally.totals[0].bytes), (1, 10));
    }

    #[test]
    fn a_conflict_copy_is_a_new_file_and_no_second_conflict() {
        let mut tally = Tally::default();
        tally.add(Side::B, &item("a", Verb::Conflict, Some("both sides changed it")), Done::Done);
        tally.add(Side::B, &item("a.conflict", Verb::Conflict, Some("conflict copy")), Done::Done);
        assert_eq!((tally.conflicts(), tally.skipped()), (1, 0));
        assert_eq!((tally.totals[1].created, tally.totals[1].updated), (1, 1));
    }

    #[test]
    fn a_conflict_stays_open_by_policy_or_because_it_cannot_be_read() {
        let both = item("a", Verb::Conflict, Some("both sides changed it"));
        let unreadable = item("a", Verb::Conflict, Some("cannot be read"));
        let copy = item("a", Verb::Conflict, Some("conflict copy"));
        for (item, policy, done) in [
            (&both, Policy::Skip, Done::Skipped),
            (&both, Policy::Newer, Done::Done),
            (&unreadable, Policy::Newer, Done::Skipped),
            (&copy, Policy::KeepBoth, Done::Done),
        ] {
            assert_eq!(foresee(item, policy), done, "{item:?} {policy:?}");
        }
    }
}
