//! The controller in virtual time, over many paths.

mod bottleneck;

use super::*;
use bottleneck::{Chance, Control, Load, Net, Path};

const MTU: u16 = 1200;

fn path(mbit: f64, rtt_ms: f64, loss: f64, queue: f64) -> Path {
    Path { mbit, rtt_ms, loss, burst: 0.0, queue: (queue * Path::product(mbit, rtt_ms)).max(20.0 * f64::from(MTU)) }
}

fn alone(path: Path, seed: u64, seconds: u64) -> Net {
    Net::new(path, MTU, seed).flow(Control::ours(MTU), Load::Bulk, 0).run(seconds * 1_000_000)
}

#[test]
fn a_clean_path_is_filled_without_a_queue() {
    let net = alone(path(100.0, 50.0, 0.0, 2.0), 1, 10);
    assert!(net.goodput(0, 2.0, 10.0) > 95.0, "{}", net.goodput(0, 2.0, 10.0));
    assert!(net.waiting(2, 10) < 12.0, "{}", net.waiting(2, 10));
}

#[test]
#[ignore = "a look, not a test"]
fn look() {
    for queue in [0.1, 0.3, 1.0, 2.4, 4.0] {
        for loss in [0.0, 0.01, 0.05, 0.1, 0.2] {
            let net = alone(path(100.0, 50.0, loss, queue), 1, 20);
            eprintln!(
                "queue {queue} loss {loss}: {:.1} {:.1} start {:.1}; wait {:.1} overflow {}",
                net.goodput(0, 5.0, 20.0),
                net.goodput(0, 5.0, 20.0) / (1.0),
                net.goodput(0, 0.0, 2.0),
                net.waiting(5, 20),
                net.overflow
            );
        }
    }
}

#[test]
#[ignore = "a look, not a test"]
fn look_fair() {
    for queue in [0.1, 0.3, 1.0, 2.4, 4.0] {
        for start in [0, 5_000_000] {
            let net = Net::new(path(100.0, 50.0, 0.0, queue), MTU, 1)
                .flow(Control::ours(MTU), Load::Bulk, start)
                .flow(Control::cubic(MTU), Load::Bulk, 5_000_000 - start)
                .run(65_000_000);
            eprintln!(
                "queue {queue} start {start}: ours {:.1} cubic {:.1}  wait {:.1} overflow {}",
                net.goodput(0, 15.0, 65.0),
                net.goodput(1, 15.0, 65.0),
                net.waiting(15, 65),
                net.overflow
            );
        }
    }
}

#[test]
#[ignore = "a look, not a test"]
fn trace() {
    let get = |name: &str, or: f64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or);
    let net = Net::new(path(get("MBIT", 100.0), get("RTT", 50.0), get("LOSS", 0.0), get("QUEUE", 1.0)), MTU, 1).traced();
    let mut net = net.flow(Control::ours(MTU), Load::Bulk, get("START", 0.0) as u64);
    if get("CUBIC", 0.0) > 0.0 {
        net = net.flow(Control::cubic(MTU), Load::Bulk, get("CUBIC", 0.0) as u64);
    }
    let net = net.run(get("SECONDS", 10.0) as u64 * 1_000_000);
    for second in 0..get("SECONDS", 10.0) as u64 {
        let each: Vec<_> =
            (0..net.flows.len()).map(|flow| format!("{:.1}", net.goodput(flow, second as f64, second as f64 + 1.0))).collect();
        eprintln!("{second}: {} wait {:.1}", each.join(" "), net.waiting(second as usize, second as usize + 1));
    }
}
