//! A bottleneck in virtual time, and senders that behave as quinn's: its pacer, its loss detection, its acknowledgements.

use super::super::rival::Cubic;
use super::super::{Congestion, Micros};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// The random numbers of splitmix64.
#[derive(Debug, Clone)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Between two positive numbers, each order of magnitude equally likely.
    pub(super) fn scaled(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.unit())
    }
}

/// Properties of a path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    pub(super) mbit: f64,
    pub(super) rtt_ms: f64,
    /// Share of packets lost before the queue, and of acknowledgements lost on the way back.
    pub(super) loss: f64,
    /// Mean length of losses, if they come in bursts.
    pub(super) burst: f64,
    /// Bytes that wait at most.
    pub(super) queue: f64,
}

impl Path {
    /// Bytes per microsecond.
    fn rate(&self) -> f64 {
        self.mbit / 8.0
    }

    /// Product of rate and round trip in bytes.
    pub(super) fn product(mbit: f64, rtt_ms: f64) -> f64 {
        mbit / 8.0 * rtt_ms * 1000.0
    }
}

/// Loss-based senders beside ours.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    cubic: Cubic,
    slow_start: bool,
    window: f64,
    recovery_until: Micros,
}

#[derive(Debug, Clone)]
pub(super) enum Control {
    Ours(Box<Congestion>),
    Cubic(Reference),
}

impl Control {
    pub(super) fn ours(mtu: u16) -> Control {
        Control::Ours(Box::new(Congestion::new(mtu)))
    }

    pub(super) fn cubic(mtu: u16) -> Control {
        let window = 10.0 * f64::from(mtu);
        Control::Cubic(Reference { cubic: Cubic::new(0, window), slow_start: true, window, recovery_until: 0 })
    }

    fn window(&self) -> f64 {
        match self {
            Control::Ours(ours) => ours.window() as f64,
            Control::Cubic(cubic) => cubic.window,
        }
    }
}

/// What the application hands to the sender.
#[derive(Debug, Clone, Copy)]
pub(super) enum Load {
    /// More than the path carries.
    Bulk,
    /// So many bytes every so many microseconds.
    Chunks(f64, Micros),
    /// Bulk outside of a span.
    Pause(Micros, Micros),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A change of the path, by its number.
    Change(usize),
    /// A sender may send.
    Wake(usize),
    /// A packet reaches the receiver.
    Arrive(usize, u64),
    /// An acknowledgement of so many receptions reaches the sender.
    Ack(usize, usize),
    /// The receiver has waited long enough with an acknowledgement of so many receptions.
    Delayed(usize, usize),
    /// Packets may have been lost without anything else arriving.
    Timer(usize),
}

/// One sender and its receiver.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) control: Control,
    load: Load,
    start: Micros,
    next: u64,
    sent: BTreeMap<u64, Micros>,
    largest: Option<u64>,
    received: Vec<u64>,
    known: usize,
    unacked: usize,
    srtt: f64,
    tokens: f64,
    refilled: Micros,
    backlog: f64,
    filled: Micros,
    limited: bool,
    timeouts: u32,
    heard: Micros,
    woken: Micros,
    timed: Micros,
    /// Bytes that arrived, with the time.
    pub(super) arrived: Vec<(Micros, f64)>,
    /// Packets taken for lost.
    pub(super) lost: u64,
}

/// The whole: path, senders, events to come.
pub(super) struct Net {
    pub(super) path: Path,
    pub(super) mtu: f64,
    pub(super) flows: Vec<Flow>,
    changes: Vec<(Micros, Path)>,
    chance: Chance,
    bad: [bool; 2],
    seen: [Micros; 2],
    busy_until: f64,
    /// Sum and number of waiting times in the queue, and those who waited, by second.
    pub(super) waits: Vec<(f64, f64)>,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    serial: u64,
    pub(super) now: Micros,
    pub(super) overflow: u64,
}

/// As in quinn: acknowledgements wait this long at most, packets are lost three later ones, or 9/8 round trips, after.
const ACK_DELAY: Micros = 25_000;
const REORDERING: u64 = 3;
/// A burst of losses is over when nothing was sent for so long.
const BURST_TIME: Micros = 20_000;
/// Timers of a runtime are late by up to a millisecond.
const LATE: f64 = 1000.0;

impl Net {
    pub(super) fn new(path: Path, mtu: u16, seed: u64) -> Net {
        let (flows, changes, waits, events) = (Vec::new(), Vec::new(), Vec::new(), BinaryHeap::new());
        let (chance, mtu) = (Chance(seed), f64::from(mtu));
        Net {
            path,
            mtu,
            flows,
            changes,
            chance,
            bad: [false; 2],
            seen: [0; 2],
            busy_until: 0.0,
            waits,
            events,
            serial: 0,
            now: 0,
            overflow: 0,
        }
    }

    pub(super) fn flow(mut self, control: Control, load: Load, start: Micros) -> Net {
        let flow = Flow {
            control,
            load,
            start,
            next: 0,
            sent: BTreeMap::new(),
            largest: None,
            received: Vec::new(),
            known: 0,
            unacked: 0,
            srtt: 0.0,
            tokens: 10.0 * self.mtu,
            refilled: start,
            backlog: 0.0,
            filled: start,
            limited: false,
            timeouts: 0,
            heard: start,
            woken: Micros::MAX,
            timed: Micros::MAX,
            arrived: Vec::new(),
            lost: 0,
        };
        self.flows.push(flow);
        let index = self.flows.len() - 1;
        self.push(start, Event::Wake(index));
        self
    }

    /// The path is another one from `at` on. A rate of zero is a cut.
    pub(super) fn change(mut self, at: Micros, path: Path) -> Net {
        self.changes.push((at, path));
        let index = self.changes.len() - 1;
        self.push(at, Event::Change(index));
        self
    }

    fn push(&mut self, at: Micros, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((at, self.serial, event)));
    }

    pub(super) fn run(mut self, until: Micros) -> Net {
        while let Some(Reverse((at, serial, event))) = self.events.pop() {
            if at > until {
                self.events.push(Reverse((at, serial, event)));
                break;
            }
            self.now = at;
            match event {
                Event::Change(index) => {
                    let waiting = (self.busy_until - at as f64).max(0.0) * self.path.rate();
                    self.path = self.changes[index].1;
                    self.busy_until = at as f64 + if self.path.mbit > 0.0 { waiting / self.path.rate() } else { 0.0 };
                }
                Event::Wake(flow) => {
                    if self.flows[flow].woken == at {
                        self.flows[flow].woken = Micros::MAX;
                    }
                    self.send(flow);
                }
                Event::Arrive(flow, number) => self.arrive(flow, number),
                Event::Ack(flow, count) => self.acked(flow, count),
                Event::Delayed(flow, count) => {
                    if self.flows[flow].unacked > 0 && self.flows[flow].received.len() == count {
                        self.acknowledge(flow);
                    }
                }
                Event::Timer(flow) => {
                    if self.flows[flow].timed == at {
                        self.flows[flow].timed = Micros::MAX;
                        self.timer(flow);
                    }
                }
            }
        }
        self.now = until;
        self
    }

    fn lost_by_chance(&mut self, way: usize) -> bool {
        let (loss, burst) = (self.path.loss, self.path.burst);
        if loss <= 0.0 {
            return false;
        }
        if burst <= 1.0 {
            return self.chance.unit() < loss;
        }
        if std::mem::replace(&mut self.seen[way], self.now) + BURST_TIME < self.now {
            self.bad[way] = false;
        }
        let draw = self.chance.unit();
        self.bad[way] = if self.bad[way] { draw >= 1.0 / burst } else { draw < loss / (burst * (1.0 - loss)) };
        self.bad[way]
    }

    fn in_flight(&self, flow: usize) -> f64 {
        self.flows[flow].sent.len() as f64 * self.mtu
    }

    fn refill(&mut self, flow: usize) {
        let now = self.now;
        let flow = &mut self.flows[flow];
        flow.backlog = match flow.load {
            Load::Bulk => f64::MAX,
            Load::Pause(from, to) => {
                if (from..to).contains(&now) {
                    0.0
                } else {
                    f64::MAX
                }
            }
            Load::Chunks(bytes, every) => {
                let chunks = (now - flow.start) / every + 1 - (flow.filled - flow.start).div_ceil(every);
                flow.filled = flow.start + ((now - flow.start) / every + 1) * every;
                flow.backlog + chunks as f64 * bytes
            }
        };
    }

    fn send(&mut self, index: usize) {
        self.refill(index);
        loop {
            let in_flight = self.in_flight(index);
            let (mtu, now) = (self.mtu, self.now);
            let flow = &mut self.flows[index];
            if flow.backlog < mtu {
                flow.limited = true;
                let at = match flow.load {
                    Load::Pause(_, to) => to,
                    _ => flow.filled,
                };
                self.wake(index, at.max(now + 1));
                return;
            }
            flow.limited = false;
            let window = flow.control.window();
            if in_flight + mtu > window {
                return;
            }
            let srtt = if flow.srtt > 0.0 { flow.srtt } else { 333_000.0 };
            // The pacer of quinn-proto, connection/pacing.rs.
            let capacity = (window * 2000.0 / srtt).clamp(10.0 * mtu, 256.0 * mtu);
            flow.tokens = flow.tokens.min(capacity);
            if flow.tokens < mtu {
                flow.tokens = (flow.tokens + window * 1.25 * (now - flow.refilled) as f64 / srtt).min(capacity);
                flow.refilled = now;
            }
            if flow.tokens < mtu {
                let wait = srtt * (capacity - flow.tokens) / window * 0.8;
                let late = self.chance.unit() * LATE;
                self.wake(index, now + (wait + late) as Micros + 1);
                return;
            }
            flow.tokens -= mtu;
            flow.backlog -= mtu;
            self.transmit(index);
        }
    }

    fn wake(&mut self, index: usize, at: Micros) {
        if at < self.flows[index].woken {
            self.flows[index].woken = at;
            self.push(at, Event::Wake(index));
        }
    }

    fn transmit(&mut self, index: usize) {
        let (mtu, now) = (self.mtu, self.now);
        let flow = &mut self.flows[index];
        let number = flow.next;
        flow.next += 1;
        flow.sent.insert(number, now);
        if let Control::Ours(ours) = &mut flow.control {
            ours.on_sent(now, mtu as u64);
        }
        self.set_timer(index);
        let lost = self.lost_by_chance(0);
        let wait = (self.busy_until - now as f64).max(0.0);
        let second = (now / 1_000_000) as usize;
        if self.waits.len() <= second {
            self.waits.resize(second + 1, (0.0, 0.0));
        }
        self.waits[second].0 += wait;
        self.waits[second].1 += 1.0;
        if lost || self.path.mbit <= 0.0 {
            return;
        }
        if wait * self.path.rate() + mtu > self.path.queue {
            self.overflow += 1;
            return;
        }
        self.busy_until = now as f64 + wait + mtu / self.path.rate();
        let at = self.busy_until + self.path.rtt_ms * 500.0;
        self.push(at as Micros, Event::Arrive(index, number));
    }

    fn arrive(&mut self, index: usize, number: u64) {
        let (mtu, now) = (self.mtu, self.now);
        let flow = &mut self.flows[index];
        let gap = flow.received.last().is_some_and(|last| number != last + 1);
        flow.received.push(number);
        flow.arrived.push((now, mtu));
        flow.unacked += 1;
        if gap || flow.unacked >= 2 {
            self.acknowledge(index);
        } else {
            let count = flow.received.len();
            self.push(now + ACK_DELAY, Event::Delayed(index, count));
        }
    }

    fn acknowledge(&mut self, index: usize) {
        self.flows[index].unacked = 0;
        if self.lost_by_chance(1) || self.path.mbit <= 0.0 {
            return;
        }
        let at = self.now + (self.path.rtt_ms * 500.0) as Micros;
        let count = self.flows[index].received.len();
        self.push(at, Event::Ack(index, count));
    }

    fn acked(&mut self, index: usize, count: usize) {
        let (mtu, now) = (self.mtu, self.now);
        let flow = &mut self.flows[index];
        if count <= flow.known {
            return;
        }
        let mut newest = None;
        let mut acked = 0.0;
        for number in flow.received[flow.known..count].iter().copied() {
            let Some(sent) = flow.sent.remove(&number) else { continue };
            if flow.largest.is_none_or(|largest| number > largest) {
                flow.largest = Some(number);
                newest = Some(sent);
            }
            acked += mtu;
            if let Control::Ours(ours) = &mut flow.control {
                ours.on_ack(now, sent, mtu as u64);
            }
        }
        flow.known = count;
        flow.timeouts = 0;
        flow.heard = now;
        let in_flight = flow.sent.len() as f64 * mtu;
        let limited = flow.limited;
        match &mut flow.control {
            Control::Ours(ours) => ours.on_batch(now, in_flight as u64, limited),
            Control::Cubic(reference) if reference.slow_start => reference.window += acked,
            Control::Cubic(reference) if now >= reference.recovery_until && acked > 0.0 => {
                reference.cubic.on_ack(now, acked, flow.srtt as Micros, mtu);
                reference.window = reference.cubic.window();
            }
            Control::Cubic(_) => {}
        }
        if let Some(sent) = newest {
            let rtt = (now - sent) as f64;
            flow.srtt = if flow.srtt > 0.0 { 0.875 * flow.srtt + 0.125 * rtt } else { rtt };
        }
        self.find_lost(index);
        self.set_timer(index);
        self.send(index);
    }

    fn find_lost(&mut self, index: usize) {
        let (mtu, now) = (self.mtu, self.now);
        let flow = &mut self.flows[index];
        let Some(largest) = flow.largest else { return };
        let old = (flow.srtt * 1.125) as Micros;
        let gone =
            |(number, sent): (&u64, &Micros)| (number + REORDERING <= largest || sent + old <= now).then_some((*number, *sent));
        let lost: Vec<_> = flow.sent.range(..largest).filter_map(gone).collect();
        if lost.is_empty() {
            return;
        }
        flow.lost += lost.len() as u64;
        for (number, _) in &lost {
            flow.sent.remove(number);
            flow.backlog += mtu;
        }
        let newest = lost.last().map_or(0, |(_, sent)| *sent);
        let oldest = lost.first().map_or(0, |(_, sent)| *sent);
        // Longer than three timeouts with nothing acknowledged in between.
        let whole = lost.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0);
        let everything = whole && (newest - oldest) as f64 > 3.0 * (2.0 * flow.srtt + ACK_DELAY as f64);
        match &mut flow.control {
            Control::Ours(ours) => ours.on_loss(lost.len() as u64 * mtu as u64, everything),
            Control::Cubic(reference) if newest >= reference.recovery_until => {
                reference.recovery_until = now;
                if reference.slow_start {
                    reference.cubic = Cubic::new(now, reference.window);
                    reference.slow_start = false;
                }
                reference.cubic.on_loss(now, 2.0 * mtu, mtu);
                reference.window = reference.cubic.window();
            }
            Control::Cubic(_) => {}
        }
    }

    fn set_timer(&mut self, index: usize) {
        let now = self.now;
        let flow = &mut self.flows[index];
        let Some(oldest) = flow.sent.values().next() else { return };
        let newest = flow.sent.values().next_back().copied().unwrap_or(now);
        let behind = flow.largest.is_some_and(|largest| flow.sent.range(..largest).next().is_some());
        let srtt = if flow.srtt > 0.0 { flow.srtt } else { 333_000.0 };
        let timeout = (2.0 * srtt) as Micros + ACK_DELAY;
        let at = if behind { oldest + (srtt * 1.125) as Micros } else { newest + (timeout << flow.timeouts.min(6)) };
        let at = at.max(now + 1);
        if at != flow.timed {
            flow.timed = at;
            self.push(at, Event::Timer(index));
        }
    }

    fn timer(&mut self, index: usize) {
        let before = self.flows[index].sent.len();
        self.find_lost(index);
        if self.flows[index].sent.len() == before && before > 0 {
            // A probe, past the window.
            self.flows[index].timeouts += 1;
            self.transmit(index);
        }
        self.set_timer(index);
        self.send(index);
    }

    /// Mbit/s that arrived for a flow in a span of seconds.
    pub(super) fn goodput(&self, flow: usize, from: f64, to: f64) -> f64 {
        let within = self.flows[flow].arrived.iter().filter(|(at, _)| (from * 1e6..to * 1e6).contains(&(*at as f64)));
        within.map(|(_, bytes)| bytes * 8.0).sum::<f64>() / ((to - from) * 1e6)
    }

    /// Mean waiting time in the queue in a span of seconds, in milliseconds.
    pub(super) fn waiting(&self, from: usize, to: usize) -> f64 {
        let (sum, count) = self.waits[from..to.min(self.waits.len())].iter().fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        sum / f64::max(count, 1.0) / 1e3
    }
}
