//! Paths that could not be looked at, until a look that covers them succeeds. Pure.

use super::shown::shown;
use crate::status::PathProblem;
use std::collections::BTreeMap;
use sync_core::path::RelPath;
use sync_core::report::Problem;

/// Paths that are kept; the rest is counted.
const KEPT: usize = 1000;

/// What looks have failed at.
#[derive(Default)]
pub(super) struct Unseen {
    paths: BTreeMap<RelPath, PathProblem>,
    /// Failed too, and not kept: until everything is looked at, nobody knows whether they still do.
    more: u64,
}

impl Unseen {
    /// These paths were looked at, or everything if there are none, and `failed` of them, or of what is below them, could not be.
    pub(super) fn looked(&mut self, at: &[RelPath], problems: &[Problem], failed: u64) {
        if at.is_empty() {
            *self = Unseen::default();
        }
        self.paths.retain(|path, _| !at.iter().any(|at| at.contains(path)));
        self.more = self.more.saturating_add(failed.saturating_sub(problems.len() as u64));
        for problem in problems {
            if self.paths.len() < KEPT || self.paths.contains_key(&problem.path) {
                self.paths.insert(problem.path.clone(), shown(problem));
            } else {
                self.more = self.more.saturating_add(1);
            }
        }
    }

    /// How many there are.
    pub(super) fn total(&self) -> u64 {
        self.more.saturating_add(self.paths.len() as u64)
    }

    /// Those that are kept, in the order of their paths.
    pub(super) fn listed(&self) -> impl Iterator<Item = &PathProblem> {
        self.paths.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn problems(paths: &[&str]) -> Vec<Problem> {
        paths.iter().map(|text| Problem { path: path(text), step: "read", error: "no".into() }).collect()
    }

    fn told(unseen: &Unseen) -> (u64, Vec<String>) {
        (unseen.total(), unseen.listed().map(|problem| String::from_utf8(problem.place.bytes()).unwrap()).collect())
    }

    #[test]
    fn a_look_ends_the_problems_that_it_covers_and_no_others() {
        let mut unseen = Unseen::default();
        unseen.looked(&[], &problems(&["a/x", "a/y", "b"]), 3);
        // One more fails, and what was known stays.
        unseen.looked(&[path("c")], &problems(&["c"]), 1);
        assert_eq!(told(&unseen), (4, ["a/x", "a/y", "b", "c"].map(String::from).to_vec()));
        unseen.looked(&[path("a"), path("d")], &problems(&["a/y"]), 1);
        assert_eq!(told(&unseen), (3, ["a/y", "b", "c"].map(String::from).to_vec()));
        unseen.looked(&[path("a/y"), path("b"), path("c")], &[], 0);
        assert_eq!(told(&unseen), (0, vec![]));
    }

    #[test]
    fn what_is_not_listed_counts_until_everything_is_looked_at() {
        let mut unseen = Unseen::default();
        unseen.looked(&[], &problems(&["a"]), 5);
        unseen.looked(&[path("a")], &[], 0);
        assert_eq!(told(&unseen), (4, vec![]));
        let many: Vec<String> = (0..KEPT + 7).map(|number| number.to_string()).collect();
        let many = problems(&many.iter().map(String::as_str).collect::<Vec<_>>());
        unseen.looked(&[], &many, many.len() as u64);
        assert_eq!((unseen.total(), unseen.listed().count()), (many.len() as u64, KEPT));
    }
}
