//! How much may be in flight on a path: a congestion controller that measures instead of taking every loss for a full queue.
//!
//! After BBR (draft-ietf-ccwg-bbr), with three differences. It controls by the window alone, for a sender that paces at 1.25
//! windows a round trip, since that is all that QUIC libraries offer. It tells random loss from a full queue and sends more
//! to make up for the first. And where the queue stands although it gave way, it competes as CUBIC does.
//!
//! It knows no clock and no packets: times are arguments, counted in microseconds from any beginning.

mod loss;
mod rate;
mod rival;

use loss::Baseline;
use rate::{MaxRate, MinRtt, Sample, Sampler};
use rival::Cubic;

/// Microseconds since the beginning of the connection, or a span of them.
pub type Micros = u64;

/// Packets that may be in flight at the beginning; RFC 9002 has ten, what is paced may have more.
const INITIAL_PACKETS: f64 = 20.0;
/// Fewer packets in flight would wait for delayed acknowledgements.
const LEAST_PACKETS: f64 = 4.0;
/// Packets on top of what the path holds: acknowledgements come for every other packet.
const EXTRA_PACKETS: f64 = 3.0;
/// Time on top of the shortest round trip, at least: what timers and schedulers of both ends cost.
const SLACK: f64 = 2_000.0;
/// On busy machines it costs more, and the path runs dry now and then: less arrives than could. Then so much is added in a
/// round, up to that, or to that part of the shortest round trip.
const SLACK_STEP: f64 = 500.0;
const SLACK_MOST: f64 = 5_000.0;
const SLACK_PART: f64 = 0.2;
/// Part of the rate that should arrive in a round.
const USED: f64 = 0.96;
/// Decay in a round of the largest rate ever seen, and the part of it that the bottleneck is believed to do at least.
const PEAK_DECAY: f64 = 1.0 - 1.0 / 256.0;
const PEAK_PART: f64 = 0.125;

/// Start-up: at most twice what the measured rate needs, so that never more than one such product waits in a queue.
const STARTUP_GAIN: f64 = 2.0;
/// The rate must grow by this in a round, else the pipe counts as full after so many rounds.
const STARTUP_GROWTH: f64 = 1.25;
const STARTUP_STALLS: u32 = 3;
/// Rounds that draining a queue may take.
const DRAIN_ROUNDS: u32 = 3;
/// Looking for more: a quarter above, as BBR does, and a little below afterwards so that the queue empties.
const UP_GAIN: f64 = 1.25;
const DOWN_GAIN: f64 = 0.9;
/// Looking for more goes on while it brings this much in a round.
const UP_GROWTH: f64 = 1.08;
/// Rounds between two looks: at least, and how many more by a count that differs between flows.
const CRUISE_ROUNDS: u64 = 5;
const CRUISE_SPREAD: u64 = 4;
/// Looks that found nothing are repeated half as often each time, down to this, and not more seldom than after that time:
/// looking disturbs others, most of all where the queue is short.
const CRUISE_ROUNDS_MOST: u64 = 40;
const CRUISE_TIME_MOST: f64 = 3e6;
/// Part of the random losses that is made up for: with all of it, losses in a full queue once taken for random would keep
/// the queue full.
const COMPENSATED: f64 = 0.9;
/// The queue counts as standing when even the fastest packet of a round took so much longer than the path needs, while
/// looking for more; and while not.
const INFLATED: f64 = 1.15;
const NOTICEABLE: f64 = 1.05;
/// Unusual losses are those of a full queue if the mean round trip took so much longer; a short queue shows no more.
const FULL: f64 = 1.02;
/// A round of fewer packets tells a start-up nothing of a queue: of a few, one that is lost by chance or acknowledged late is a large
/// part. Such are the rounds of a conversation before content flows.
const TELLING_PACKETS: f64 = 10.0;
/// A start-up that loses more than this share in a round overruns the queue, however short that is.
const OVERRUN: f64 = 0.35;
/// A rate that fell by less in a round has settled.
const SETTLED: f64 = 0.8;
/// After a look for more that filled the queue the window stays below this part of what the path holds.
const BOUND: f64 = 0.85;
/// That bound rises by this part in a round, twice as fast in every further cycle without such losses.
const BOUND_GROWTH: f64 = 0.01;
const BOUND_GROWTH_MOST: f64 = 0.25;
/// Rounds in which the queue stands although this sender gave way, until somebody else is taken to fill it.
const RIVAL_ROUNDS: u32 = 6;
/// Part of the largest product ever seen that a sender begins with at least when it competes: one of two has half.
const RIVAL_PART: f64 = 0.5;
/// Hard limit, in products of rate and round trip; but not beside a rival, who would leave none of a deep queue.
const CAP: f64 = 2.0;
/// The shortest round trip is measured anew with half a window when it was not seen for so long, and for how long.
const RTT_AGE: Micros = 5_000_000;
const RTT_PROBE: Micros = 200_000;
const RTT_PROBE_GAIN: f64 = 0.5;
/// Round trips that differ by no more than this part are those of the same empty queue.
const SAME: f64 = 0.02;

/// What the controller is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Doubles until the rate no longer grows.
    Startup { best: f64, stalls: u32 },
    /// Lets the queue of the start-up empty.
    Drain { rounds: u32 },
    /// Sends what the path carries.
    Cruise { rounds: u64, left: u64 },
    /// Sends more, to find out whether the path carries it.
    Up { rounds: u32, before: f64 },
    /// Sends less, so that the queue empties.
    Down,
    /// Sends half, so that the queue empties for sure, from then on until both a span and a round are over.
    Probe { until: Micros },
}

/// What a round brought, from the sending of a packet to its acknowledgement.
#[derive(Debug, Clone, Copy)]
struct Round {
    acked: f64,
    lost: f64,
    rtt_least: Micros,
    rtt_sum: f64,
    rtt_count: f64,
    rate: f64,
    limited: bool,
    marked: bool,
}

impl Default for Round {
    fn default() -> Self {
        let (acked, lost, rtt_sum, rtt_count, rate) = (0.0, 0.0, 0.0, 0.0, 0.0);
        Round { acked, lost, rtt_least: Micros::MAX, rtt_sum, rtt_count, rate, limited: false, marked: false }
    }
}

/// Decides how much may be in flight.
#[derive(Debug, Clone)]
pub struct Congestion {
    mtu: f64,
    sampler: Sampler,
    max_rate: MaxRate,
    min_rtt: MinRtt,
    /// When a round trip close to the shortest was seen.
    short_rtt_at: Micros,
    baseline: Baseline,
    phase: Phase,
    round: Round,
    /// The round ends when a packet is acknowledged that left after so many bytes had been delivered.
    round_end: u64,
    round_start: Micros,
    in_flight: u64,
    /// The largest rate of all, slowly forgotten: at least this the bottleneck does, whoever uses it.
    peak: f64,
    /// The rate of the last round.
    last_rate: f64,
    /// Rate of the last round while the queue stands; holds until the next look for more.
    low_rate: Option<f64>,
    /// The window at the moment the controller began to give way, and for how many rounds it does.
    gave_way: Option<(f64, u32)>,
    /// Time on top of the shortest round trip that is allowed now.
    slack: f64,
    /// Limit learnt from looks that filled the queue, and by what part it rises in a round.
    bound: Option<(f64, f64)>,
    /// Looks for more in a row that found nothing.
    fruitless: u32,
    rival: Option<Cubic>,
    /// Was the window reduced in the last round because of losses?
    reduced: bool,
    /// The shortest round trip since half a window is in flight.
    probed_rtt: Micros,
    /// And the shortest of all before.
    probed_base: Micros,
    batch_rtt: Option<Micros>,
    last_rtt: Micros,
    window: f64,
}

impl Congestion {
    /// A controller of a new path that carries packets of `mtu` bytes.
    pub fn new(mtu: u16) -> Congestion {
        let mtu = f64::from(mtu.max(1));
        Congestion {
            mtu,
            sampler: Sampler::default(),
            max_rate: MaxRate::default(),
            min_rtt: MinRtt::default(),
            short_rtt_at: 0,
            baseline: Baseline::default(),
            phase: Phase::Startup { best: 0.0, stalls: 0 },
            round: Round::default(),
            round_end: 0,
            round_start: 0,
            in_flight: 0,
            peak: 0.0,
            last_rate: 0.0,
            low_rate: None,
            gave_way: None,
            slack: SLACK,
            bound: None,
            fruitless: 0,
            rival: None,
            reduced: false,
            probed_rtt: Micros::MAX,
            probed_base: 0,
            batch_rtt: None,
            last_rtt: 0,
            window: INITIAL_PACKETS * mtu,
        }
    }

    /// Bytes that may be in flight, for a sender that paces at 1.25 windows a round trip.
    pub fn window(&self) -> u64 {
        self.window as u64
    }

    /// Window of a path of which nothing is known.
    pub fn initial_window(&self) -> u64 {
        (INITIAL_PACKETS * self.mtu) as u64
    }

    /// The rate that the path is believed to carry, in bytes per second.
    pub fn rate(&self) -> u64 {
        (self.rate_now() * 1e6) as u64
    }

    /// The share of packets lost at random, 0 to 1.
    pub fn random_loss(&self) -> f64 {
        self.baseline.share()
    }

    /// Packets of another size are sent from now on.
    pub fn on_mtu(&mut self, mtu: u16) {
        self.mtu = f64::from(mtu.max(1));
        self.window = self.window.max(LEAST_PACKETS * self.mtu);
    }

    /// Packets of `bytes` bytes in all left at `now`.
    pub fn on_sent(&mut self, now: Micros, bytes: u64) {
        self.sampler.on_sent(now, self.in_flight == 0);
        self.in_flight += bytes;
    }

    /// A packet that left at `sent` has arrived.
    pub fn on_ack(&mut self, now: Micros, sent: Micros, bytes: u64) {
        self.sampler.on_ack(now, sent, bytes);
        self.round.acked += bytes as f64;
        let rtt = now.saturating_sub(sent).max(1);
        // Acknowledgements may have been lost: only the newest packet of a batch tells a round trip.
        self.batch_rtt = Some(self.batch_rtt.map_or(rtt, |least| least.min(rtt)));
        if let Some(cubic) = &mut self.rival {
            cubic.on_ack(now, bytes as f64, rtt, self.mtu);
        }
        if let Phase::Startup { .. } = self.phase {
            self.window += bytes as f64;
        }
    }

    /// The acknowledgements of a batch are complete: `in_flight` bytes are left, `limited` when less was sent than allowed.
    pub fn on_batch(&mut self, now: Micros, in_flight: u64, limited: bool) {
        self.in_flight = in_flight;
        let Some(rtt) = self.batch_rtt.take() else { return };
        self.add_rtt(now, rtt);
        let Some(sample) = self.sampler.on_batch(now, limited, self.min_rtt.get()) else { return };
        self.add_sample(sample);
        if sample.delivered_before >= self.round_end {
            self.round_end = self.sampler.delivered();
            self.end_round(now);
        }
        self.advance(now);
        self.set_window();
    }

    /// Packets of `bytes` bytes in all are lost, none for a mere mark of congestion; `everything` when nothing has arrived
    /// for several times as long as an answer takes.
    pub fn on_loss(&mut self, bytes: u64, everything: bool) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.round.lost += bytes as f64;
        self.round.marked |= bytes == 0;
        if everything {
            // A path that was cut may be another one afterwards.
            self.phase = Phase::Startup { best: 0.0, stalls: 0 };
            self.max_rate.restart(0.0);
            (self.low_rate, self.gave_way, self.bound, self.rival) = (None, None, None, None);
            self.round = Round::default();
            self.window = self.window.min(INITIAL_PACKETS * self.mtu);
        }
    }

    fn add_rtt(&mut self, now: Micros, rtt: Micros) {
        self.min_rtt.add(now, rtt);
        if rtt as f64 <= NOTICEABLE * self.base() + SLACK {
            self.short_rtt_at = now;
        }
        self.last_rtt = rtt;
        self.probed_rtt = self.probed_rtt.min(rtt);
        self.round.rtt_least = self.round.rtt_least.min(rtt);
        self.round.rtt_sum += rtt as f64;
        self.round.rtt_count += 1.0;
    }

    fn add_sample(&mut self, sample: Sample) {
        self.round.limited |= sample.limited;
        let Some(rate) = sample.rate else { return };
        self.round.rate = self.round.rate.max(rate);
        if !sample.limited || rate > self.max_rate.get() {
            self.max_rate.add(rate);
        }
    }

    /// The shortest round trip.
    fn base(&self) -> f64 {
        self.min_rtt.get() as f64
    }

    fn rate_now(&self) -> f64 {
        let rate = self.max_rate.get();
        self.low_rate.map_or(rate, |low| low.min(rate))
    }

    /// Bytes that the path holds at the rate that it is believed to carry.
    fn product(&self) -> f64 {
        self.rate_now() * self.base()
    }

    /// What more must be sent so that enough arrives.
    fn compensation(&self) -> f64 {
        1.0 / (1.0 - COMPENSATED * self.baseline.share())
    }

    /// Time that a round trip takes with no more in flight than there must be.
    fn expected_rtt(&self, gain: f64) -> f64 {
        // The rate of this sender alone would excuse any queue once somebody else has taken the most of the path.
        let rate = self.rate_now().max(PEAK_PART * self.peak);
        let least = if rate > 0.0 { LEAST_PACKETS * self.mtu / rate } else { 0.0 };
        gain * self.base() + self.slack + least
    }

    fn end_round(&mut self, now: Micros) {
        let round = std::mem::take(&mut self.round);
        let started = std::mem::replace(&mut self.round_start, now);
        self.peak = (self.peak * PEAK_DECAY).max(round.rate);
        self.last_rate = round.rate;
        if round.rtt_count == 0.0 {
            return;
        }
        let inflated = round.rtt_least as f64 > self.expected_rtt(INFLATED);
        let short = (round.rtt_least as f64) < self.expected_rtt(NOTICEABLE);
        let (acked, lost) = (round.acked / self.mtu, round.lost / self.mtu);
        // What is lost right after a reduction left before it.
        let full = round.rtt_sum / round.rtt_count > self.expected_rtt(FULL);
        let unusual = self.baseline.exceeded(acked, lost);
        let congested = !self.reduced && (round.marked || (full && unusual));
        self.reduced = congested;
        let calm = matches!(self.phase, Phase::Startup { .. } | Phase::Drain { .. } | Phase::Cruise { rounds: 1.., .. });
        if !inflated && calm {
            self.baseline.add(acked, lost);
        }
        if matches!(self.phase, Phase::Cruise { rounds: 1.., .. }) && !round.limited {
            let used = round.acked / now.saturating_sub(started).max(1) as f64 / self.rate_now().max(f64::MIN_POSITIVE);
            self.fit_slack(used, round.rtt_least as f64 - self.base());
        }
        if let Some(cubic) = &mut self.rival {
            if congested {
                cubic.on_loss(now, LEAST_PACKETS * self.mtu, self.mtu);
            } else if short && cubic.outgrown() {
                self.rival = None;
                self.phase = self.cruise();
            }
            return;
        }
        let queue = if matches!(self.phase, Phase::Cruise { .. }) { !short } else { inflated };
        self.next_phase(now, round, queue, congested);
        if let Some((limit, growth)) = &mut self.bound {
            *limit *= 1.0 + *growth;
        }
    }

    /// `used`: part of the rate that arrived in a round; `waited`: what its fastest packet took longer than the path needs.
    fn fit_slack(&mut self, used: f64, waited: f64) {
        let most = SLACK_MOST.max(SLACK_PART * self.base());
        if waited > 2.0 * SLACK {
            self.slack = (self.slack - SLACK_STEP).max(SLACK);
        } else if used < USED {
            self.slack = (self.slack + SLACK_STEP).min(most);
        }
    }

    /// What follows from a round; `queue` when even its fastest packet had to wait.
    fn next_phase(&mut self, now: Micros, round: Round, queue: bool, congested: bool) {
        match self.phase {
            Phase::Startup { best, stalls } => {
                let rate = self.max_rate.get();
                let grew = rate >= best * STARTUP_GROWTH;
                let stalls = if grew || round.limited { 0 } else { stalls + 1 };
                let overrun = round.lost > OVERRUN * (round.acked + round.lost);
                let waits = round.rtt_sum / round.rtt_count > self.expected_rtt(NOTICEABLE);
                let telling = round.acked + round.lost >= TELLING_PACKETS * self.mtu;
                self.phase = if stalls >= STARTUP_STALLS || (telling && (queue || overrun || (waits && congested))) {
                    Phase::Drain { rounds: 0 }
                } else {
                    Phase::Startup { best: if grew { rate } else { best }, stalls }
                };
            }
            Phase::Drain { rounds } if rounds >= DRAIN_ROUNDS => self.phase = self.cruise(),
            Phase::Drain { rounds } => self.phase = Phase::Drain { rounds: rounds + 1 },
            Phase::Cruise { rounds, left } => {
                if rounds > 0 {
                    self.give_way(now, round, queue, congested);
                }
                self.phase = if left == 0 { self.up() } else { Phase::Cruise { rounds: rounds + 1, left: left - 1 } };
            }
            Phase::Up { rounds, before } => {
                let rate = self.max_rate.get();
                // What was sent in the first round is acknowledged in the second.
                let more = rounds == 0 || rate >= before * UP_GROWTH;
                if congested {
                    self.bound = Some((BOUND * self.product() * self.compensation(), BOUND_GROWTH));
                }
                if congested || !more || (rounds > 0 && queue) {
                    self.phase = Phase::Down;
                    self.fruitless = if rounds > 1 { 0 } else { self.fruitless + 1 };
                    self.max_rate.turn();
                } else {
                    self.phase = Phase::Up { rounds: rounds + 1, before: rate };
                }
            }
            Phase::Down => self.phase = self.cruise(),
            Phase::Probe { .. } => {}
        }
    }

    /// The queue stands in a phase in which it should not: send no more than what arrives, or compete.
    fn give_way(&mut self, now: Micros, round: Round, queue: bool, congested: bool) {
        let (window, rounds) = self.gave_way.unwrap_or((self.window, 0));
        let settled = round.rate > SETTLED * self.rate_now();
        if (congested && (settled || !queue)) || (queue && rounds >= RIVAL_ROUNDS) {
            // This sender sends what the path carries, or less: somebody else must have filled the queue.
            let fair = RIVAL_PART * self.peak * self.base();
            let mut cubic = Cubic::new(now, window.max(fair));
            if congested {
                cubic.on_loss(now, LEAST_PACKETS * self.mtu, self.mtu);
            }
            self.rival = Some(cubic);
            (self.gave_way, self.low_rate, self.bound) = (None, None, None);
        } else if queue {
            let rate = self.rate_now();
            // Only where less no longer helps somebody else may be the reason.
            self.gave_way = Some((window, if settled { rounds + 1 } else { 0 }));
            self.fruitless = 0;
            if round.rate > 0.0 && !round.limited {
                self.low_rate = Some(round.rate.min(rate));
            }
        } else {
            if let Some(rate) = self.low_rate.take() {
                // It helped: the queue was this sender's own, and the path is slower than it was.
                self.max_rate.restart(rate);
                self.peak = rate;
            }
            self.gave_way = None;
        }
    }

    fn cruise(&self) -> Phase {
        let most = ((CRUISE_TIME_MOST / self.base().max(1.0)) as u64).clamp(CRUISE_ROUNDS, CRUISE_ROUNDS_MOST);
        let rounds = (CRUISE_ROUNDS << self.fruitless.min(8)).min(most);
        // Spreads the looks of several flows without a source of randomness.
        let spread = (self.sampler.delivered() / (self.mtu as u64).max(1)) % CRUISE_SPREAD;
        Phase::Cruise { rounds: 0, left: rounds + spread }
    }

    fn up(&mut self) -> Phase {
        if self.gave_way.is_none() {
            self.low_rate = None;
        }
        if let Some((limit, growth)) = self.bound {
            let forgotten = limit > CAP * self.product();
            self.bound = (!forgotten).then_some((limit, (2.0 * growth).min(BOUND_GROWTH_MOST)));
        }
        Phase::Up { rounds: 0, before: self.max_rate.get() }
    }

    /// What changes between rounds.
    fn advance(&mut self, now: Micros) {
        match self.phase {
            Phase::Drain { .. } if (self.in_flight as f64) <= self.product() => self.phase = self.cruise(),
            Phase::Probe { until } if now >= until => {
                self.short_rtt_at = now;
                if self.probed_rtt.abs_diff(self.probed_base) as f64 <= SAME * self.base() {
                    // Half a window twice brought the same round trip: the queue goes away with what this sender has in it.
                    self.rival = None;
                }
                self.phase = self.cruise();
            }
            Phase::Startup { .. } | Phase::Probe { .. } => {}
            _ if now.saturating_sub(self.short_rtt_at) > RTT_AGE => {
                self.phase = Phase::Probe { until: now + self.last_rtt + RTT_PROBE };
                (self.probed_rtt, self.probed_base) = (Micros::MAX, self.min_rtt.get());
            }
            _ => {}
        }
    }

    fn set_window(&mut self) {
        let least = LEAST_PACKETS * self.mtu;
        let extra = EXTRA_PACKETS * self.mtu + self.slack * self.rate_now();
        let product = self.product();
        let sent = product * self.compensation();
        let cap = CAP * sent + extra;
        let wanted = match (self.phase, self.rival) {
            (Phase::Startup { .. }, _) => self.window.min((STARTUP_GAIN * sent + extra).max(INITIAL_PACKETS * self.mtu)),
            (Phase::Probe { .. }, _) => RTT_PROBE_GAIN * product.min(self.last_rate * self.base()),
            (_, Some(cubic)) => cubic.window() * self.compensation(),
            (Phase::Drain { .. }, _) => sent,
            (Phase::Cruise { .. }, _) => sent + extra,
            (Phase::Up { .. }, _) => UP_GAIN * sent + extra,
            (Phase::Down, _) => DOWN_GAIN * product + EXTRA_PACKETS * self.mtu,
        };
        let bound = self.bound.map_or(f64::MAX, |(limit, _)| limit);
        let cap = if self.rival.is_some() { f64::MAX } else { cap.max(INITIAL_PACKETS * self.mtu) };
        self.window = wanted.min(bound).min(cap).max(least);
    }
}

#[cfg(test)]
mod tests;
