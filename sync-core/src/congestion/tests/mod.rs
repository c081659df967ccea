//! The controller in virtual time, over many paths.

mod bottleneck;

use super::*;
use bottleneck::{Chance, Control, Load, Net, Path};

const MTU: u16 = 1200;
const SECOND: Micros = 1_000_000;
/// Random paths in every run; `DRIFTLESS_PATHS` asks for more.
const PATHS: u64 = 400;

/// `queue` counts in products of rate and round trip, but never below what one burst of the sender's pacer takes.
fn path(mbit: f64, rtt_ms: f64, loss: f64, queue: f64) -> Path {
    let room = (queue * Path::product(mbit, rtt_ms)).max(24.0 * f64::from(MTU));
    Path { mbit, rtt_ms, loss, burst: 0.0, queue: room }
}

fn alone(path: Path, load: Load) -> Net {
    Net::new(path, MTU, 1).flow(Control::ours(MTU), load, 0)
}

fn bulk(path: Path, seconds: u64) -> Net {
    alone(path, Load::Bulk).run(seconds * SECOND)
}

#[expect(clippy::disallowed_methods, reason = "how many paths are tried is the tester's choice")]
fn paths() -> u64 {
    std::env::var("DRIFTLESS_PATHS").ok().and_then(|text| text.parse().ok()).unwrap_or(PATHS)
}

/// What share of the rate must arrive.
fn bar(loss: f64) -> f64 {
    match loss {
        ..=0.0 => 0.90,
        ..=0.01 => 0.85,
        ..=0.05 => 0.80,
        ..=0.10 => 0.60,
        _ => 0.20,
    }
}

/// A random path and the packets that make a few hundred of it.
fn random_path(chance: &mut Chance) -> (Path, u16) {
    let (mbit, rtt_ms) = (chance.scaled(1.0, 1000.0), chance.scaled(1.0, 300.0));
    let loss = if chance.unit() < 0.2 { 0.0 } else { chance.scaled(0.001, 0.2) };
    let queue = chance.scaled(0.1, 4.0);
    let product = Path::product(mbit, rtt_ms);
    let mtu = (product / 600.0).clamp(1200.0, 60_000.0);
    let burst = if chance.unit() < 0.25 { 1.0 + 4.0 * chance.unit() } else { 0.0 };
    (Path { mbit, rtt_ms, loss, burst, queue: (queue * product).max(24.0 * mtu) }, mtu as u16)
}

#[test]
fn random_paths_are_filled_whatever_they_lose_and_queues_stay_short() {
    let mut bad = Vec::new();
    for seed in 0..paths() {
        let (path, mtu) = random_path(&mut Chance(seed));
        let rtt = path.rtt_ms / 1000.0;
        let (warm, end) = (0.5 + 40.0 * rtt, 1.5 + 140.0 * rtt);
        let net = Net::new(path, mtu, seed).flow(Control::ours(mtu), Load::Bulk, 0).run((end * 1e6) as Micros);
        let share = net.goodput(0, warm, end) / path.mbit;
        let wait = net.waiting(warm as usize, end as usize);
        let most = 0.3 * path.rtt_ms + 6.0 + 10.0 * f64::from(mtu) * 8.0 / path.mbit / 1000.0;
        // A burst can take a whole small window, and then only a timeout helps.
        let bar = if path.burst > 1.0 { 0.85 * bar(path.loss) } else { bar(path.loss) };
        if share < bar || wait > most {
            bad.push(format!("seed {seed}: {share:.3} of {path:?} mtu {mtu}, wait {wait:.1} of {most:.1} ms"));
        }
    }
    assert!(bad.is_empty(), "{} of {}:\n{}", bad.len(), paths(), bad.join("\n"));
}

#[test]
fn the_start_fills_the_path_within_a_second_and_overruns_no_queue_of_one_product() {
    for loss in [0.0, 0.01, 0.05] {
        let net = bulk(path(100.0, 50.0, loss, 1.0), 3);
        assert!(net.goodput(0, 1.0, 2.0) > 85.0, "{loss}: {}", net.goodput(0, 1.0, 2.0));
        assert!(net.overflow < 100, "{loss}: {}", net.overflow);
    }
}

#[test]
fn a_rate_that_changes_is_followed_within_seconds() {
    for loss in [0.0, 0.02] {
        let (slow, fast) = (path(10.0, 50.0, loss, 10.0), path(100.0, 50.0, loss, 1.0));
        let down = alone(fast, Load::Bulk).change(5 * SECOND, slow).run(12 * SECOND);
        assert!(down.goodput(0, 8.0, 12.0) > 8.5, "{loss}: {}", down.goodput(0, 8.0, 12.0));
        assert!(down.waiting(8, 12) < 30.0, "{loss}: {}", down.waiting(8, 12));
        let up = alone(slow, Load::Bulk).change(5 * SECOND, fast).run(13 * SECOND);
        assert!(up.goodput(0, 10.0, 13.0) > 85.0, "{loss}: {}", up.goodput(0, 10.0, 13.0));
    }
}

#[test]
fn after_a_cut_the_rate_is_back_within_seconds() {
    for length in [1, 4, 10] {
        let whole = path(100.0, 50.0, 0.01, 1.0);
        let cut = Path { mbit: 0.0, ..whole };
        let net = alone(whole, Load::Bulk).change(4 * SECOND, cut).change((4 + length) * SECOND, whole);
        let net = net.run((24 + 2 * length) * SECOND);
        // Sent again when a timeout comes, and these double.
        let from = (4 + 2 * length + 3) as f64;
        assert!(net.goodput(0, from, from + 4.0) > 85.0, "{length} s: {}", net.goodput(0, from, from + 4.0));
    }
}

#[test]
fn a_longer_way_is_not_taken_for_a_queue_for_ever() {
    let (near, far) = (path(50.0, 20.0, 0.01, 2.0), path(50.0, 80.0, 0.01, 2.0));
    let net = alone(near, Load::Bulk).change(5 * SECOND, far).run(40 * SECOND);
    assert!(net.goodput(0, 30.0, 40.0) > 42.0, "{}", net.goodput(0, 30.0, 40.0));
    assert!(net.waiting(30, 40) < 40.0, "{}", net.waiting(30, 40));
}

#[test]
fn an_application_that_sends_little_does_not_spoil_the_estimate() {
    // A hundredth of the rate for ten seconds between bulk.
    let rare = alone(path(100.0, 50.0, 0.01, 1.0), Load::Bulk).run(4 * SECOND);
    let known = rate_of(&rare);
    let chunks = alone(path(100.0, 50.0, 0.0, 1.0), Load::Chunks(12_000.0, 100_000)).run(10 * SECOND);
    assert!((chunks.goodput(0, 2.0, 10.0) - 0.96).abs() < 0.05, "{}", chunks.goodput(0, 2.0, 10.0));
    assert!(known > 85.0, "{known}");
    let pause = alone(path(100.0, 50.0, 0.01, 1.0), Load::Pause(4 * SECOND, 20 * SECOND)).run(24 * SECOND);
    assert!(pause.goodput(0, 20.2, 21.2) > 80.0, "{}", pause.goodput(0, 20.2, 21.2));
    assert!(pause.overflow < 100, "{}", pause.overflow);
}

fn rate_of(net: &Net) -> f64 {
    match &net.flows[0].control {
        Control::Ours(ours) => ours.rate() as f64 * 8e-6,
        Control::Cubic(_) => f64::NAN,
    }
}

#[test]
fn several_flows_share_a_path() {
    for count in [2, 4] {
        let mut net = Net::new(path(100.0, 40.0, 0.01, 2.0), MTU, 3);
        for flow in 0..count {
            net = net.flow(Control::ours(MTU), Load::Bulk, flow * SECOND);
        }
        let net = net.run(50 * SECOND);
        let rates: Vec<_> = (0..count as usize).map(|flow| net.goodput(flow, 20.0, 50.0)).collect();
        let (sum, squares) = rates.iter().fold((0.0, 0.0), |(sum, squares), rate| (sum + rate, squares + rate * rate));
        let jain = sum * sum / (count as f64 * squares);
        assert!(sum > 85.0 && jain > 0.75, "{rates:?}, index {jain:.2}");
    }
}

#[test]
fn beside_cubic_each_has_its_part_where_the_queue_has_room() {
    for queue in [1.0, 2.4, 4.0] {
        for (ours, cubic) in [(0, 5 * SECOND), (5 * SECOND, 0), (0, 0)] {
            let net = Net::new(path(100.0, 50.0, 0.0, queue), MTU, 1);
            let net = net.flow(Control::ours(MTU), Load::Bulk, ours).flow(Control::cubic(MTU), Load::Bulk, cubic);
            let net = net.run(65 * SECOND);
            let (ours, cubic) = (net.goodput(0, 15.0, 65.0), net.goodput(1, 15.0, 65.0));
            assert!((15.0..65.0).contains(&ours), "queue {queue}: {ours:.1} beside {cubic:.1}");
        }
    }
}

#[test]
fn beside_cubic_nobody_starves_where_the_queue_is_short() {
    let net = Net::new(path(100.0, 50.0, 0.0, 0.3), MTU, 1);
    let net = net.flow(Control::ours(MTU), Load::Bulk, 0).flow(Control::cubic(MTU), Load::Bulk, 0).run(65 * SECOND);
    assert!(net.goodput(1, 15.0, 65.0) > 10.0, "{}", net.goodput(1, 15.0, 65.0));
}

#[test]
fn the_same_events_give_the_same_windows() {
    let run = || {
        let net = bulk(path(80.0, 30.0, 0.05, 0.5), 3);
        (net.flows[0].arrived.len(), net.flows[0].lost, net.overflow)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_mark_of_congestion_counts_like_a_loss_in_a_full_queue() {
    let net = bulk(path(100.0, 50.0, 0.0, 1.0), 3);
    let Control::Ours(ours) = &net.flows[0].control else { panic!("a flow of another kind") };
    let mut ours = ours.clone();
    let before = ours.window();
    let mut now = 3 * SECOND;
    for _ in 0..12 {
        ours.on_loss(0, false);
        ours.on_sent(now, 12_000);
        ours.on_ack(now + 50_000, now, 12_000);
        ours.on_batch(now + 50_000, 600_000, false);
        now += 50_000;
    }
    assert!(ours.window() < before * 3 / 4, "{} of {before}", ours.window());
}

#[test]
fn nonsense_from_below_does_not_panic_or_stop_the_sender() {
    let mut ours = Congestion::new(0);
    ours.on_ack(5, 9, u64::MAX / 4);
    ours.on_batch(0, 0, false);
    ours.on_loss(u64::MAX / 4, true);
    ours.on_mtu(0);
    for now in (0..100).rev() {
        ours.on_sent(now, 1);
        ours.on_ack(now, now, 1);
        ours.on_batch(now, 0, now % 2 == 0);
    }
    assert!(ours.window() > 0 && ours.initial_window() > 0);
}

#[test]
fn a_batch_may_bear_an_earlier_time_than_a_packet_that_left_since() {
    let mut congestion = Congestion::new(MTU);
    for (now, sent) in [(1_000, 0), (1_500, 2_000), (2_900, 3_000)] {
        congestion.on_sent(sent, u64::from(MTU));
        congestion.on_ack(now, sent, u64::from(MTU));
        congestion.on_batch(now, 0, true);
        assert!(congestion.window() >= u64::from(MTU));
    }
}

#[test]
fn what_few_packets_lose_or_wait_does_not_end_the_start() {
    let mut control = Congestion::new(MTU);
    let mut now = 0;
    // Questions and answers of two packets; now and then one is lost, or acknowledged late.
    for round in 0..40 {
        let sent = now;
        control.on_sent(now, 2 * u64::from(MTU));
        now += if round % 3 == 0 { 75_000 } else { 50_000 };
        if round % 4 == 1 {
            control.on_loss(u64::from(MTU), false);
        } else {
            control.on_ack(now, sent, MTU.into());
        }
        control.on_ack(now, sent, MTU.into());
        control.on_batch(now, 0, true);
    }
    assert!(matches!(control.phase, Phase::Startup { .. }), "{:?}", control.phase);
    // Content follows: twice as much in every round trip.
    let before = control.window();
    for _ in 0..4 {
        let (sent, packets) = (now, control.window() / u64::from(MTU));
        control.on_sent(now, packets * u64::from(MTU));
        now += 50_000;
        (0..packets).for_each(|_| control.on_ack(now, sent, MTU.into()));
        control.on_batch(now, 0, false);
    }
    assert!(control.window() >= 8 * before, "{before} {}", control.window());
}
