//! Paths that wait for their bytes to be read, as a pull remembers them: by name while they are few, and beyond by directories above
//! them. Whoever looks for them again looks at all that is there: that is more than is needed, and never less.

use crate::path::RelPath;
use std::collections::BTreeSet;

/// Paths and directories that are remembered; beyond, the deepest of them give way to the directories that they are in.
pub const UNREAD: usize = 1_000;

/// What a pull left to be read first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    count: u64,
    /// None of them contains another.
    paths: BTreeSet<RelPath>,
    everywhere: bool,
}

impl Unread {
    /// How many paths were left.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// They, or directories that they are in. Not all of them if they are everywhere.
    pub fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.paths.iter()
    }

    /// Are they in so many places that only a look at everything finds them all again?
    #[must_use]
    pub fn is_everywhere(&self) -> bool {
        self.everywhere
    }

    /// One more.
    pub(super) fn note(&mut self, path: &RelPath) {
        self.count += 1;
        if !self.everywhere && !self.covers(path) {
            self.paths.insert(path.clone());
            self.bound();
        }
    }

    /// May one of them be below a directory? Where they are remembered by a directory above it, nobody can tell.
    pub(super) fn is_below(&self, dir: &RelPath) -> bool {
        let below = || self.paths.range(dir.clone()..).next().is_some_and(|path| dir.contains(path));
        self.everywhere || self.covers(dir) || below()
    }

    fn covers(&self, path: &RelPath) -> bool {
        path.ancestors().any(|above| self.paths.contains(&above))
    }

    /// Half of the room is made at once, so that it is seldom made.
    fn bound(&mut self) {
        if self.paths.len() <= UNREAD {
            return;
        }
        while self.paths.len() > UNREAD / 2 {
            let deepest = self.paths.iter().map(RelPath::depth).max().unwrap_or_default();
            if deepest <= 1 {
                // Above these there is the root alone.
                self.everywhere = self.paths.len() > UNREAD;
                return;
            }
            let (deep, rest): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.paths).into_iter().partition(|path| path.depth() == deepest);
            self.paths = rest.into_iter().chain(deep.iter().filter_map(RelPath::parent)).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn noted(paths: impl IntoIterator<Item = String>) -> Unread {
        let mut unread = Unread::default();
        paths.into_iter().for_each(|path| unread.note(&rel(&path)));
        unread
    }

    #[test]
    fn few_are_remembered_by_name() {
        let unread = noted((0..UNREAD).map(|n| format!("d/{n}")));
        assert_eq!((unread.count(), unread.paths().count(), unread.is_everywhere()), (UNREAD as u64, UNREAD, false));
        assert!(unread.is_below(&rel("d")) && !unread.is_below(&rel("e")) && !unread.is_below(&rel("d/x")));
    }

    #[test]
    fn many_are_remembered_by_directories_that_contain_all_of_them_and_none_of_another() {
        let path = |n: usize| format!("2026/{:02}/{:02}/{n}", n % 12, n % 28);
        let unread = noted((0..30_000).map(path).chain(["2026/top".into(), "lone".into()]));
        assert_eq!((unread.count(), unread.is_everywhere()), (30_002, false));
        assert!(unread.paths().count() <= UNREAD);
        assert!(
            (0..30_000).all(|n| unread.covers(&rel(&path(n)))) && unread.covers(&rel("lone")) && unread.covers(&rel("2026/top"))
        );
        assert!(!unread.covers(&rel("2025")) && !unread.covers(&rel("2026/other")), "{unread:?}");
        let paths: Vec<_> = unread.paths().collect();
        assert!(paths.windows(2).all(|pair| !pair[0].contains(pair[1])));
        assert!(unread.is_below(&rel("2026")) && unread.is_below(&rel("2026/01/01")) && !unread.is_below(&rel("2025")));
    }

    #[test]
    fn where_only_the_root_contains_them_they_are_everywhere() {
        let unread = noted((0..=UNREAD).map(|n| n.to_string()).chain(["d/e".into()]));
        assert_eq!((unread.count(), unread.is_everywhere()), (UNREAD as u64 + 2, true));
        assert!(unread.paths().count() <= UNREAD + 1 && unread.is_below(&rel("any")));
    }
}
