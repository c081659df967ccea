//! When a folder's sequence of changes passed which number, so that it can be told since when somebody lacks what came after one of
//! them. Pure.

use crate::status::Moment;
use std::collections::VecDeque;

/// Numbers that are remembered. Where there were more, the time that is told is later than the true one, and never earlier.
const REMEMBERED: usize = 256;

/// Numbers, ascending, and when each was there first.
#[derive(Debug, Default)]
pub(crate) struct Passed(VecDeque<(u64, Moment)>);

impl Passed {
    /// The folder is at this number now.
    pub(crate) fn is_at(&mut self, seq: u64, now: Moment) {
        match self.0.back() {
            Some((last, _)) if *last == seq => return,
            // It is another state, which counts anew.
            Some((last, _)) if *last > seq => self.0.clear(),
            _ => {}
        }
        if self.0.len() == REMEMBERED {
            // The oldest stays: whoever lacks most is asked about most.
            let mut number = 0;
            self.0.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.0.push_back((seq, now));
    }

    /// Since when is there something that comes after this number, as far as is known?
    pub(crate) fn since(&self, incorporated: u64) -> Option<Moment> {
        let at = self.0.partition_point(|(seq, _)| *seq <= incorporated);
        self.0.get(at).map(|(_, since)| *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_told_since_when_there_is_more() {
        let mut passed = Passed::default();
        assert_eq!(passed.since(0), None);
        passed.is_at(3, Moment(10));
        passed.is_at(3, Moment(20));
        passed.is_at(8, Moment(30));
        for (incorporated, since) in [(0, Some(10)), (2, Some(10)), (3, Some(30)), (7, Some(30)), (8, None), (9, None)] {
            assert_eq!(passed.since(incorporated), since.map(Moment), "{incorporated}");
        }
        passed.is_at(2, Moment(40));
        assert_eq!((passed.since(1), passed.since(2)), (Some(Moment(40)), None));
    }

    proptest! {
        /// Among however many numbers: the time is never earlier than the true one, and it is known whether there is one.
        #[test]
        fn it_is_never_told_for_longer_than_it_is(steps in prop::collection::vec(1u64..5, 1..2000), at in any::<prop::sample::Index>()) {
            let (mut passed, mut all, mut seq) = (Passed::default(), Vec::new(), 0);
            for (time, step) in steps.into_iter().enumerate() {
                seq += step;
                let now = Moment(time as i64);
                passed.is_at(seq, now);
                all.push((seq, now));
            }
            prop_assert!(passed.0.len() <= REMEMBERED);
            let incorporated = at.index(seq as usize + 1) as u64;
            let truth = all.iter().find(|(seq, _)| *seq > incorporated).map(|(_, now)| *now);
            let told = passed.since(incorporated);
            prop_assert_eq!(told.is_some(), truth.is_some());
            prop_assert!(told >= truth);
        }
    }
}
