//! What a path costs: expected transmissions times round trip, smoothed over a minute. Pure: counters and the present time in.
//!
//! ETX after De Couto, Aguayo, Bicket and Morris, *A High-Throughput Path Metric for Multi-Hop Wireless Routing* (MobiCom 2003):
//! one transmission succeeds with (1 − loss there)(1 − loss back).

use crate::scheduler::Moment;
use std::time::Duration;

/// How often a path is looked at.
pub(crate) const SAMPLE: Duration = Duration::from_secs(10);
/// After so long a sample counts half.
const HALF_LIFE: f64 = 60.0;
/// Packets below which a share of lost ones says little: they are added up first.
const PACKETS: u64 = 20;
/// A path never costs less than one of this round trip, milliseconds: differences below it are nobody's concern.
const LEAST_RTT_MS: f64 = 1.0;
/// Bytes of content below which the time that they took says little of the path.
const LOAD: u64 = 256 << 10;
/// Loss beyond which a path is as good as none.
const MOST_LOSS: f64 = 0.9;

/// How long nobody may be heard at the other end while it is spoken to, before somebody else is asked instead.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);

/// When the other end was heard last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pulse {
    seen: Option<Seen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    sent: u64,
    received: u64,
    at: Moment,
}

impl Pulse {
    /// A look at the packets that were sent and that came so far. Is the other end silent though it is spoken to? What was lost is
    /// sent again within a second or two, and whatever arrives there is acknowledged, however busy it is.
    pub(crate) fn is_silent(&mut self, sent: u64, received: u64, now: Moment) -> bool {
        match &mut self.seen {
            Some(seen) if seen.received == received => {
                if seen.sent == sent {
                    // Nothing was said that could be answered.
                    seen.at = now;
                }
                now.saturating_sub(seen.at) >= SILENCE
            }
            seen => {
                *seen = Some(Seen { sent, received, at: now });
                false
            }
        }
    }
}

/// Counters of one direction since the connection was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Packets sent.
    pub(crate) sent: u64,
    /// Of those, packets given up for lost.
    pub(crate) lost: u64,
}

/// The smoothed quality of one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Quality {
    rtt_ms: Option<f64>,
    out: Loss,
    back: Loss,
    last: Moment,
    /// Bytes of content a second.
    goodput: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Loss {
    seen: Counters,
    share: Option<f64>,
}

fn smooth(old: Option<f64>, new: f64, weight: f64) -> Option<f64> {
    Some(old.map_or(new, |old| old + (new - old) * weight))
}

impl Loss {
    fn sample(&mut self, now: Counters, weight: f64) {
        let sent = now.sent.saturating_sub(self.seen.sent);
        if sent < PACKETS {
            return;
        }
        let lost = now.lost.saturating_sub(self.seen.lost).min(sent);
        self.share = smooth(self.share, lost as f64 / sent as f64, weight);
        self.seen = now;
    }
}

impl Quality {
    /// A look at the path: its round trip now, what was sent from here, and what the other side says that it sent.
    pub(crate) fn sample(&mut self, rtt: Duration, out: Counters, back: Option<Counters>, now: Moment) {
        let passed = now.saturating_sub(self.last).as_secs_f64();
        let weight = 1.0 - 0.5f64.powf(passed / HALF_LIFE);
        self.last = now;
        self.rtt_ms = smooth(self.rtt_ms, rtt.as_secs_f64() * 1000.0, weight);
        self.out.sample(out, weight);
        if let Some(back) = back {
            self.back.sample(back, weight);
        }
    }

    /// So much content came in so long. Little of it says nothing of the path.
    pub(crate) fn load(&mut self, bytes: u64, took: Duration) {
        let seconds = took.as_secs_f64();
        if bytes >= LOAD && seconds > 0.0 {
            self.goodput = smooth(self.goodput, bytes as f64 / seconds, 0.5);
        }
    }

    /// Bytes of content a second, as seen last under load.
    #[must_use]
    pub(crate) fn goodput(&self) -> Option<u64> {
        self.goodput.map(|rate| rate as u64)
    }

    /// Smoothed round trip, milliseconds.
    #[must_use]
    pub(crate) fn rtt_ms(&self) -> Option<f64> {
        self.rtt_ms
    }

    /// Shares of packets lost on the way there and on the way back, as far as they are known.
    #[must_use]
    pub(crate) fn loss(&self) -> [Option<f64>; 2] {
        [self.out.share, self.back.share]
    }

    /// What the path costs, in milliseconds of an equally good path without losses.
    #[must_use]
    pub(crate) fn cost(&self) -> Option<f64> {
        let kept = |loss: &Loss| 1.0 - loss.share.unwrap_or(0.0).min(MOST_LOSS);
        Some(self.rtt_ms?.max(LEAST_RTT_MS) / (kept(&self.out) * kept(&self.back)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(rtt_ms: u64, loss: [f64; 2], seconds: u64) -> Quality {
        let mut quality = Quality::default();
        for step in 0..=seconds / 10 {
            let counters = |loss: f64| Counters { sent: step * 1000, lost: (step as f64 * 1000.0 * loss) as u64 };
            let [out, back] = loss.map(counters);
            quality.sample(Duration::from_millis(rtt_ms), out, Some(back), Duration::from_secs(step * 10));
        }
        quality
    }

    #[test]
    fn losses_either_way_and_long_ways_cost() {
        let cost = |rtt, loss| sampled(rtt, loss, 600).cost().unwrap();
        assert!((cost(50, [0.0, 0.0]) - 50.0).abs() < 0.1);
        assert!((cost(50, [0.2, 0.0]) - 62.5).abs() < 0.5 && (cost(50, [0.0, 0.2]) - 62.5).abs() < 0.5);
        assert!((cost(50, [0.2, 0.2]) - 78.1).abs() < 0.5);
        assert_eq!(cost(0, [0.0, 0.0]), LEAST_RTT_MS);
        assert!(cost(10, [1.0, 1.0]) < 1001.0);
        assert_eq!(Quality::default().cost(), None);
    }

    #[test]
    fn a_path_that_becomes_bad_is_noticed_within_two_minutes_and_a_short_burst_is_not_taken_for_one() {
        let mut quality = sampled(50, [0.0, 0.0], 600);
        let (mut sent, mut lost) = (60_000, 0);
        for step in 1..=12u64 {
            sent += 1000;
            lost += 200;
            let counters = Counters { sent, lost };
            quality.sample(Duration::from_millis(50), counters, Some(counters), Duration::from_secs(600 + step * 10));
            if step == 1 {
                assert!(quality.cost().unwrap() < 53.0, "{:?}", quality.cost());
            }
        }
        assert!(quality.cost().unwrap() > 50.0 / 0.8, "{:?}", quality.cost());
    }

    #[test]
    fn goodput_is_that_of_the_last_loads_and_little_content_is_none() {
        let mut quality = Quality::default();
        quality.load(1000, Duration::from_secs(10));
        assert_eq!(quality.goodput(), None);
        quality.load(8 << 20, Duration::from_secs(1));
        quality.load(4 << 20, Duration::from_secs(1));
        assert_eq!(quality.goodput(), Some(6 << 20));
        quality.load(1 << 20, Duration::ZERO);
        assert_eq!(quality.goodput(), Some(6 << 20));
    }

    #[test]
    fn who_is_spoken_to_and_not_heard_is_silent_and_who_is_not_spoken_to_is_not() {
        let mut pulse = Pulse::default();
        let at = Duration::from_secs;
        assert!(!pulse.is_silent(10, 10, at(0)));
        assert!(!pulse.is_silent(10, 10, at(60)));
        assert!(!pulse.is_silent(11, 10, at(61)));
        assert!(!pulse.is_silent(12, 10, at(64)));
        assert!(pulse.is_silent(12, 10, at(65)));
        assert!(!pulse.is_silent(12, 11, at(66)));
        assert!(!pulse.is_silent(13, 11, at(70)));
        assert!(pulse.is_silent(14, 11, at(71)));
    }

    #[test]
    fn a_few_packets_are_added_up_before_they_count() {
        let mut quality = Quality::default();
        quality.sample(Duration::from_millis(10), Counters { sent: 4, lost: 4 }, None, Duration::from_secs(10));
        assert_eq!(quality.loss(), [None, None]);
        quality.sample(Duration::from_millis(10), Counters { sent: 40, lost: 4 }, None, Duration::from_secs(20));
        assert_eq!(quality.loss(), [Some(0.1), None]);
    }
}
