//! Whole runs over an emulated bad network, in namespaces of their own. Skipped, loudly, where that is not permitted.

use crate::lab::{FOLDER, Lab, PATIENCE, Ran, Running};
use crate::serving::Serving;
use fixtures::linkemu::{Conditions, Direction, Link};
use rustix::process::Signal;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

const PORT: u16 = 4477;
/// Small files of each side.
const FILES: usize = 60;
const BOTH: [Direction; 2] = [Direction::AToB, Direction::BToA];
/// How long a cut lasts that a connection survives.
const CUT: Duration = Duration::from_secs(2);
/// Packets of any use carry about so many bytes.
const PACKET: usize = 1200;

/// Two machines at the ends of a link; the first one calls.
struct Far {
    link: Link,
    lab: Lab,
    serving: Option<Serving>,
}

fn rtt(mbit: f64, rtt_ms: u64) -> Conditions {
    Conditions::new(mbit, Duration::from_micros(rtt_ms * 500))
}

/// Is all of it to be done, or a little?
fn thorough() -> bool {
    std::env::var("DRIFTLESS_TEST_LINKS").is_ok_and(|wish| wish == "all")
}

impl Far {
    /// Small files on both sides, and a large one of so many bytes on each that is named.
    fn new(ways: [Conditions; 2], large: &[(&str, usize)]) -> Option<Far> {
        let link = Link::or_skip(ways[0], ways[1], 1)?;
        let lab = Lab::new();
        for (root, seed) in [("a", 1_000), ("b", 2_000)] {
            for at in 0..FILES {
                lab.write(root, &format!("{root}{}/{at}", at % 7), &fixtures::bytes::noise(seed + at as u64, 1500));
            }
        }
        for ((root, bytes), seed) in large.iter().zip(1..) {
            lab.write(root, &format!("large-{root}"), &fixtures::bytes::noise(seed, *bytes));
        }
        let listen = format!("{}:{PORT}", link.b.address);
        let serving = link.b.run(|| Ok(Serving::start_at(&listen, &lab.home("b"), &lab.export()))).unwrap();
        Some(Far { link, lab, serving: Some(serving) })
    }

    fn start(&self) -> Running {
        let address = &self.serving.as_ref().unwrap().address;
        self.link.a.run(|| Ok(Running::start(self.lab.sync(address)))).unwrap()
    }

    fn set(&self, directions: &[Direction], conditions: Conditions) {
        directions.iter().for_each(|direction| self.link.set(*direction, conditions));
    }

    /// Waits until so many bytes more have gone to the other side; false if the run ended before.
    fn sent(&self, running: &mut Running, bytes: usize) -> bool {
        let wanted = self.link.counts(Direction::AToB).carried + (bytes / PACKET) as u64;
        let until = Instant::now() + PATIENCE;
        while self.link.counts(Direction::AToB).carried < wanted {
            assert!(Instant::now() < until, "nothing goes on");
            if running.is_over() {
                return false;
            }
            // Nothing tells of it but the counter.
            thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// The run went well, both sides have everything, a second run finds nothing, and the server ends as it should.
    fn well(mut self, ran: &Ran, large: usize) {
        ran.code(0);
        self.lab.assert_same(2 * FILES + large);
        let again = self.start().end();
        again.code(0);
        assert_eq!(["created", "updated", "deleted", "conflicts"].map(|field| again.count(field)), [0; 4], "{}", again.out);
        let ended = self.serving.take().unwrap().end(Signal::TERM);
        assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
        assert!(!ended.err.contains("panicked"), "{}", ended.err);
    }
}

#[test]
fn a_run_over_a_lossy_link_comes_to_its_end() {
    let (losses, trips, large): (&[_], &[_], _) = match thorough() {
        true => (&[(0.0, 0.0), (0.05, 0.0), (0.05, 0.05), (0.2, 0.0), (0.0, 0.2), (0.2, 0.2)], &[1, 50, 300], 4 << 20),
        false => (&[(0.05, 0.05)], &[50], 1 << 20),
    };
    for rtt_ms in trips {
        for (there, back) in losses {
            let clean = rtt(50.0, *rtt_ms);
            let large = [("a", large), ("b", large)];
            let Some(far) = Far::new([clean.losing(*there), clean.losing(*back)], &large) else { return };
            let started = Instant::now();
            let ran = far.start().end();
            let lost = BOTH.map(|direction| far.link.counts(direction).lost);
            let took = started.elapsed();
            eprintln!("{rtt_ms} ms, losses {there} and {back}: {took:.1?}, {lost:?} packets lost, {} bytes", ran.traffic());
            far.well(&ran, large.len());
        }
    }
}

#[test]
fn cuts_both_ways_and_one_way_in_the_middle_are_lived_through() {
    let good = rtt(16.0, 20);
    const LARGE: usize = 6 << 20;
    let Some(far) = Far::new([good, good], &[("a", LARGE)]) else { return };
    let mut running = far.start();
    for directions in [&BOTH[..], &[Direction::BToA], &[Direction::AToB]] {
        assert!(far.sent(&mut running, LARGE / 5), "{:?}", running.end());
        far.set(directions, good.cut());
        // Nothing is waited for: how long the cut lasts is what is tried here.
        thread::sleep(CUT);
        far.set(directions, good);
    }
    assert!(!running.is_over());
    far.well(&running.end(), 1);
}

#[test]
fn the_address_of_the_caller_may_change_in_the_middle() {
    let good = rtt(16.0, 20);
    const LARGE: usize = 4 << 20;
    let Some(mut far) = Far::new([good, good], &[("a", LARGE)]) else { return };
    let mut running = far.start();
    for last in [9, 17] {
        assert!(far.sent(&mut running, LARGE / 4), "{:?}", running.end());
        far.link.a.move_to(Ipv4Addr::new(10, 77, 0, last)).unwrap();
    }
    assert!(!running.is_over());
    far.well(&running.end(), 1);
}

#[test]
fn a_cut_longer_than_a_connection_lives_ends_the_run_and_the_next_one_resumes() {
    if !thorough() {
        eprintln!("SKIPPED: a cut of more than thirty seconds; DRIFTLESS_TEST_LINKS=all does it");
        return;
    }
    let good = rtt(16.0, 20);
    const LARGE: usize = 12 << 20;
    for directions in [&BOTH[..], &[Direction::BToA], &[Direction::AToB]] {
        let Some(far) = Far::new([good, good], &[("a", LARGE)]) else { return };
        let mut running = far.start();
        assert!(far.sent(&mut running, 2 * LARGE / 3), "{:?}", running.end());
        far.set(directions, good.cut());
        let cut = Instant::now();
        let ran = running.end();
        let told = cut.elapsed();
        ran.code(3);
        // The connection ends by its silence; if it is only this side that is not heard, the other side's silence follows.
        let told_why = ["no answer", "said nothing"].iter().any(|why| ran.err.contains(why));
        assert!(told_why && ran.err.contains(FOLDER), "{directions:?}: {}", ran.err);
        eprintln!("cut {directions:?}: after {told:.1?} {}", ran.err.trim_end());
        far.set(directions, good);
        let held = far.lab.begun("b");
        assert!(held > LARGE as u64 / 3, "{held} bytes are held");
        let ran = far.start().end();
        eprintln!("{held} of {LARGE} bytes were held, then {} sent", ran.count("bytes_sent"));
        let most = LARGE as u64 - held + (1 << 20);
        assert!(ran.count("bytes_sent") < most, "{} bytes, where {held} of {LARGE} were held", ran.count("bytes_sent"));
        far.well(&ran, 1);
    }
}
