//! A rate that is kept: which bytes may go when, so that no more than a number of them go in a second. A token bucket, written as
//! the moment at which all that was taken is paid for (the generic cell rate algorithm, ITU-T I.371).
//!
//! It knows no clock: times are arguments, in nanoseconds from any beginning.

/// Nanoseconds since any beginning, or a span of them.
pub type Nanos = u64;

/// No lower rate is kept, whoever asks for it: everything would wait for ever.
const LEAST: u64 = 1 << 10;
const SECOND: u128 = 1_000_000_000;
/// What may go at once after a rest: so many nanoseconds of the rate.
const BURST: Nanos = 100_000_000;
/// What is taken at a time: a part of a second of the rate, and so many bytes at the least and at the most. Little, so that others
/// who want to send come to their turn soon.
const PIECES: u64 = 20;
const PIECE_LEAST: u64 = 256;
const PIECE_MOST: u64 = 64 << 10;

/// Keeps a rate.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Bytes a second.
    rate: u64,
    /// When all that was taken is paid for.
    paid: Nanos,
}

impl Pace {
    /// So many bytes a second, 1 KiB at the least.
    #[must_use]
    pub fn new(rate: u64) -> Pace {
        Pace { rate: rate.max(LEAST), paid: 0 }
    }

    /// How many of so many bytes are taken at a time.
    #[must_use]
    pub fn piece(&self, bytes: usize) -> usize {
        (bytes as u64).min((self.rate / PIECES).clamp(PIECE_LEAST, PIECE_MOST)) as usize
    }

    /// Takes some of so many bytes at `now`: how many, and how long they have to wait. Whoever takes next waits for them, too.
    pub fn take(&mut self, now: Nanos, bytes: usize) -> (usize, Nanos) {
        let taken = self.piece(bytes) as u64;
        self.paid = self.paid.max(now.saturating_sub(BURST));
        let wait = self.paid.saturating_sub(now);
        self.paid = self.paid.saturating_add(self.time(taken));
        (taken as usize, wait)
    }

    /// So many of the bytes that were taken did not go.
    pub fn give_back(&mut self, bytes: usize) {
        self.paid = self.paid.saturating_sub(self.time(bytes as u64));
    }

    fn time(&self, bytes: u64) -> Nanos {
        let time = u128::from(bytes) * SECOND / u128::from(self.rate);
        Nanos::try_from(time).unwrap_or(Nanos::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: [u64; 6] = [0, 1 << 10, 100 << 10, 10 << 20, 1 << 30, 100 << 30];

    /// Senders that always have more, each waiting for its own turn: bytes that went, by sender, within so many seconds.
    fn sent(rate: u64, senders: usize, seconds: u64, wanted: usize) -> Vec<u64> {
        let mut pace = Pace::new(rate);
        let mut ready = vec![0; senders];
        let mut sent = vec![0; senders];
        loop {
            let (next, now) = ready.iter().copied().enumerate().min_by_key(|(_, at)| *at).unwrap();
            if now >= seconds * SECOND as u64 {
                return sent;
            }
            let (bytes, wait) = pace.take(now, wanted);
            assert!(bytes > 0 && bytes <= wanted);
            ready[next] = now + wait.max(1);
            if ready[next] < seconds * SECOND as u64 {
                sent[next] += bytes as u64;
            }
        }
    }

    #[test]
    fn the_rate_is_reached_and_not_exceeded_however_many_send() {
        for rate in [1 << 10, 100 << 10, 10 << 20, 100 << 20] {
            for senders in [1, 3, 8] {
                for wanted in [100, 64 << 10, 1 << 20] {
                    let all: u64 = sent(rate, senders, 10, wanted).iter().sum();
                    let piece = (rate / PIECES).clamp(PIECE_LEAST, PIECE_MOST);
                    let slack = rate / 10 + (senders as u64 + 1) * piece;
                    assert!(all <= 10 * rate + slack, "{all} at {rate} by {senders}");
                    assert!(all + slack >= 10 * rate, "{all} at {rate} by {senders}");
                }
            }
        }
    }

    #[test]
    fn all_who_send_get_the_same() {
        let sent = sent(100 << 10, 8, 60, 1 << 20);
        let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
        assert!(most - least <= 2 * (100 << 10) / PIECES, "{sent:?}");
    }

    #[test]
    fn nobody_waits_long_for_a_turn() {
        for rate in &RATES {
            let mut pace = Pace::new(*rate);
            let longest = (0..9).map(|_| pace.take(0, 1 << 20).1).max().unwrap();
            assert!(longest <= 9 * SECOND as u64 / 4, "{longest} at {rate}");
        }
    }

    #[test]
    fn a_rest_is_made_up_for_by_a_tenth_of_a_second_only() {
        let mut pace = Pace::new(10_000);
        pace.take(0, 256);
        let hour = 3600 * SECOND as u64;
        let mut at_once = 0;
        loop {
            let (bytes, wait) = pace.take(hour, 10);
            if wait > 0 {
                break;
            }
            at_once += bytes;
        }
        assert!((1000..=1010).contains(&at_once), "{at_once}");
    }

    #[test]
    fn what_did_not_go_costs_nothing() {
        for rate in RATES {
            let mut pace = Pace::new(rate);
            pace.take(0, 100);
            let before = pace.clone().take(0, 1).1;
            let (taken, _) = pace.take(0, 1 << 20);
            pace.give_back(taken);
            assert!(pace.take(0, 1).1.abs_diff(before) <= 1, "{rate}");
        }
    }

    #[test]
    fn no_number_overflows() {
        let mut pace = Pace::new(0);
        (0..100).for_each(|_| {
            pace.take(u64::MAX, usize::MAX);
        });
        let mut pace = Pace::new(u64::MAX);
        assert_eq!(pace.take(u64::MAX, 5).0, 5);
        pace.give_back(usize::MAX);
    }
}
