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
