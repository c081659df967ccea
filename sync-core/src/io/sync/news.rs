//! A number that grows whenever there is something that others must hear of, and those who wait for that.

use crate::io::mutex::lock;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Counts what others must hear of.
#[derive(Default)]
pub(super) struct News {
    pub(super) number: Mutex<u64>,
    pub(super) changed: Condvar,
}

impl News {
    /// There is something.
    pub(super) fn ring(&self) {
        *lock(&self.number) += 1;
        self.changed.notify_all();
    }

    /// How much there was so far.
    pub(super) fn number(&self) -> u64 {
        *lock(&self.number)
    }

    /// Waits until there is more than that, for so long at the most. How much there is by then.
    pub(super) fn beyond(&self, number: u64, wait: Duration) -> u64 {
        let waited = self.changed.wait_timeout_while(lock(&self.number), wait, |now| *now == number);
        // A panic elsewhere leaves a number.
        *waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_the_wait_is_not_waited_for() {
        let news = News::default();
        let before = news.number();
        news.ring();
        assert_eq!(news.beyond(before, Duration::from_secs(3600)), before + 1);
        assert_eq!(news.beyond(before + 1, Duration::ZERO), before + 1);
    }

    #[test]
    fn whoever_waits_hears_of_it() {
        let news = News::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| news.beyond(0, Duration::from_secs(3600)));
            news.ring();
            assert_eq!(waiting.join().unwrap(), 1);
        });
    }
}
