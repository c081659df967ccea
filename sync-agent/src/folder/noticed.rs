//! Paths that wait to be looked at: those that were noticed at once, those that failed in their time. Pure.

use crate::scheduler::Moment;
use std::collections::BTreeSet;
use sync_core::path::RelPath;

/// Paths that wait to be looked at.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    paths: BTreeSet<RelPath>,
    /// Paths that could not be looked at, and when they are looked at again.
    failed: Option<(Moment, BTreeSet<RelPath>)>,
}

impl Noticed {
    /// These have changed.
    pub(super) fn extend(&mut self, paths: impl IntoIterator<Item = RelPath>) {
        self.paths.extend(paths);
    }

    /// How many have changed.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// These could not be looked at. Changes that are noticed do not wait for them.
    pub(super) fn again(&mut self, paths: impl IntoIterator<Item = RelPath>, at: Moment) {
        self.failed.get_or_insert_with(|| (at, BTreeSet::new())).1.extend(paths);
    }

    /// The paths that are to be looked at now.
    pub(super) fn take(&mut self, now: Moment) -> Vec<RelPath> {
        let mut paths = std::mem::take(&mut self.paths);
        if let Some((_, failed)) = self.failed.take_if(|(at, _)| *at <= now) {
            paths.extend(failed);
        }
        paths.into_iter().collect()
    }

    /// Everything is looked at, or nothing any more.
    pub(super) fn clear(&mut self) {
        *self = Noticed::default();
    }

    /// When there is something to look at.
    pub(super) fn ready(&self, now: Moment) -> Option<Moment> {
        let failed = self.failed.as_ref().map(|(at, _)| *at);
        if self.paths.is_empty() { failed } else { Some(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_failed_delays_no_change_and_is_not_forgotten_by_one() {
        let at = Duration::from_secs;
        let mut noticed = Noticed::default();
        assert_eq!(noticed.ready(at(1)), None);
        // A change that came while a look failed at something else.
        noticed.extend([path("new")]);
        noticed.again([path("bad")], at(6));
        assert_eq!(noticed.ready(at(1)), Some(at(1)));
        assert_eq!(noticed.take(at(1)), [path("new")]);
        assert_eq!(noticed.ready(at(2)), Some(at(6)));
        // What fails later waits no longer than what failed before.
        noticed.again([path("worse")], at(9));
        assert_eq!(noticed.ready(at(5)), Some(at(6)));
        assert_eq!(noticed.take(at(6)), [path("bad"), path("worse")]);
        assert_eq!(noticed.ready(at(6)), None);
        noticed.again([path("bad")], at(12));
        noticed.clear();
        assert_eq!((noticed.ready(at(9)), noticed.len()), (None, 0));
    }
}
