//! Where all bytes of a connection's streams pass on their way out, no faster than was asked for: [`pace`](crate::pace) with a clock.

use crate::pace::{Nanos, Pace};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Open, until a limit is set.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Option<Pacing>>);

#[derive(Debug)]
struct Pacing {
    start: Instant,
    pace: Pace,
}

impl Pacing {
    fn now(&self) -> Nanos {
        Nanos::try_from(self.start.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }
}

impl Throttle {
    /// Bytes a second from now on; `None` for as many as there are.
    pub(super) fn set(&self, rate: Option<u64>) {
        *self.lock() = rate.map(|rate| Pacing { start: Instant::now(), pace: Pace::new(rate) });
    }

    /// Waits until some of so many bytes may pass, and says how many. The wait is short, however low the rate: what may pass at once
    /// is little, and every stream gets its turn.
    pub(super) fn pass(&self, bytes: usize) -> usize {
        let (passing, wait) = match &mut *self.lock() {
            None => return bytes,
            Some(pacing) => {
                let now = pacing.now();
                pacing.pace.take(now, bytes)
            }
        };
        if wait > 0 {
            thread::sleep(Duration::from_nanos(wait));
        }
        passing
    }

    /// How many of so many bytes to ask for, so that what comes can be paid for soon.
    pub(super) fn piece(&self, bytes: usize) -> usize {
        self.lock().as_ref().map_or(bytes, |pacing| pacing.pace.piece(bytes))
    }

    /// So many bytes have passed already: waits as long as they had had to.
    pub(super) fn pay(&self, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            left -= self.pass(left);
        }
    }

    /// So many bytes did not pass after all.
    pub(super) fn give_back(&self, bytes: usize) {
        if let (1.., Some(pacing)) = (bytes, &mut *self.lock()) {
            pacing.pace.give_back(bytes);
        }
    }

    /// Each change is one assignment: also after a panic it is whole.
    fn lock(&self) -> MutexGuard<'_, Option<Pacing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_paid_for_than_the_rate_however_many_pay_and_another_rate_counts_at_once() {
        const RATE: u64 = 2 << 20;
        let gate = Throttle::default();
        gate.pay(1 << 30);
        gate.set(Some(RATE));
        let began = Instant::now();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..16).for_each(|_| gate.pay(gate.piece(64 << 10))));
            }
        });
        // Sixteen of 64 KiB by each, less what may go at once and the last piece of each.
        let (paid, free) = (4u64 * 16 * (64 << 10), RATE / 10 + 4 * (64 << 10));
        let allowed = began.elapsed().as_secs_f64() * RATE as f64 + free as f64;
        assert!(paid as f64 <= allowed, "{paid} of {allowed}");
        assert_eq!(gate.piece(1 << 20), 64 << 10);
        gate.set(Some(1 << 10));
        assert_eq!(gate.piece(1 << 20), 256);
        gate.set(None);
        assert_eq!(gate.piece(1 << 20), 1 << 20);
        gate.pay(1 << 40);
    }
}
