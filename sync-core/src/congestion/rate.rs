//! Estimates from acknowledgements: delivery rate, its maximum over two probing cycles, minimum of the round trip.
//!
//! The delivery rate is that of draft-cheng-iccrg-delivery-rate-estimation: bytes delivered between the sending of a packet
//! and its acknowledgement, over the longer of the time it took to send them and the time it took to have them acknowledged.

use super::Micros;
use std::collections::VecDeque;

/// Sending times remembered at once. At bursts of ten packets this is more than 1 Gbit/s over two seconds.
const RECORDS: usize = 32_768;
/// Sending times this far behind the newest acknowledged one are forgotten: what was sent then is lost, or no news.
const HISTORY: Micros = 2_000_000;

/// What was known when a packet left.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Micros,
    first_sent: Micros,
    delivered: u64,
    delivered_at: Micros,
    limited: bool,
}

/// One measurement of the delivery rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Bytes per microsecond, unless the interval was too short to tell.
    pub(super) rate: Option<f64>,
    /// Bytes that had been delivered when the newest acknowledged packet left.
    pub(super) delivered_before: u64,
    /// Did the application send less than it might have? Then the path may be able to carry more.
    pub(super) limited: bool,
}

/// Measures the delivery rate.
#[derive(Debug, Clone, Default)]
pub(super) struct Sampler {
    sent: VecDeque<Sent>,
    delivered: u64,
    delivered_at: Micros,
    first_sent: Micros,
    newest: Option<Sent>,
    limited: bool,
}

impl Sampler {
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Packets left at `now`; `idle` when nothing was in flight before.
    pub(super) fn on_sent(&mut self, now: Micros, idle: bool) {
        if idle {
            self.first_sent = now;
            self.delivered_at = now;
        }
        if self.sent.back().is_some_and(|last| last.at >= now) {
            return;
        }
        if self.sent.len() == RECORDS {
            self.sent.pop_front();
        }
        let (first_sent, delivered, delivered_at) = (self.first_sent, self.delivered, self.delivered_at);
        self.sent.push_back(Sent { at: now, first_sent, delivered, delivered_at, limited: self.limited });
    }

    /// A packet that left at `sent` has arrived.
    pub(super) fn on_ack(&mut self, now: Micros, sent: Micros, bytes: u64) {
        self.delivered += bytes;
        self.delivered_at = now;
        if self.newest.is_some_and(|newest| newest.at >= sent) {
            return;
        }
        if let Ok(found) = self.sent.binary_search_by_key(&sent, |record| record.at) {
            self.newest = self.sent.get(found).copied();
        }
    }

    /// All acknowledgements of a batch are in; `limited` when there was less to send than allowed since the last batch.
    pub(super) fn on_batch(&mut self, now: Micros, limited: bool, shortest: Micros) -> Option<Sample> {
        self.limited = limited;
        let newest = self.newest.take()?;
        self.first_sent = self.first_sent.max(newest.at);
        while self.sent.front().is_some_and(|oldest| oldest.at + HISTORY < newest.at) {
            self.sent.pop_front();
        }
        // Times are taken on several threads, and need not come in their order.
        let interval = newest.at.saturating_sub(newest.first_sent).max(now.saturating_sub(newest.delivered_at));
        let bytes = self.delivered - newest.delivered;
        let rate = (interval > 0 && interval >= shortest).then(|| ratio(bytes, interval));
        Some(Sample { rate, delivered_before: newest.delivered, limited: newest.limited || limited })
    }
}

/// Bytes over microseconds.
pub(super) fn ratio(bytes: u64, time: Micros) -> f64 {
    bytes as f64 / time.max(1) as f64
}

/// The largest delivery rate of this probing cycle and the one before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MaxRate {
    current: f64,
    before: f64,
}

impl MaxRate {
    pub(super) fn get(self) -> f64 {
        self.current.max(self.before)
    }

    pub(super) fn add(&mut self, rate: f64) {
        self.current = self.current.max(rate);
    }

    /// A new cycle begins. One without a valid sample does not count, so that idleness forgets nothing.
    pub(super) fn turn(&mut self) {
        if self.current > 0.0 {
            self.before = std::mem::take(&mut self.current);
        }
    }

    /// Starts again from a known rate.
    pub(super) fn restart(&mut self, rate: f64) {
        (self.current, self.before) = (rate, 0.0);
    }
}

/// Slots of the minimum filter.
const SLOTS: usize = 10;
/// Length of one. All together are the ten seconds after which BBR too no longer believes a minimum.
const SLOT: Micros = 1_000_000;

/// The smallest round trip of the last ten seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct MinRtt {
    slots: [(u64, Micros); SLOTS],
    last: Micros,
}

impl Default for MinRtt {
    fn default() -> Self {
        MinRtt { slots: [(0, Micros::MAX); SLOTS], last: 0 }
    }
}

impl MinRtt {
    pub(super) fn add(&mut self, now: Micros, rtt: Micros) {
        let epoch = now / SLOT;
        let slot = &mut self.slots[(epoch % SLOTS as u64) as usize];
        *slot = if slot.0 == epoch { (epoch, slot.1.min(rtt)) } else { (epoch, rtt) };
        let recent = self.slots.iter().filter(|(at, _)| at + SLOTS as u64 > epoch);
        self.last = recent.map(|slot| slot.1).min().unwrap_or(rtt);
    }

    /// Zero before the first sample.
    pub(super) fn get(self) -> Micros {
        self.last
    }
}
