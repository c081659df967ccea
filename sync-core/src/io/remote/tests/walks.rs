//! A pull learns the same of a root on another machine as of one on this machine, in few round trips.

use super::*;
use crate::io::scan::{self, Scan};
use crate::io::sync::{Options, Sync};
use crate::reconcile::Policy;
use crate::report::Silent;
use std::collections::BTreeSet;
use std::fs;

/// A generator with a seed, and the seed for the message of a failing test.
struct Random(u64, u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn path(&mut self) -> String {
        let names = ["a", "a-", "b", "c"];
        let depth = 1 + self.below(4);
        (0..depth).map(|_| names[self.below(names.len())]).collect::<Vec<_>>().join("/")
    }

    /// Few names, so that edits of both sides meet; what cannot be done is left.
    fn edit(&mut self, root: &Path) {
        let path = root.join(self.path());
        let _ = match self.below(8) {
            0 => fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)),
            1 => fs::remove_file(&path),
            2 => fs::rename(&path, root.join(self.path())),
            3 => fs::create_dir_all(&path),
            _ => fs::create_dir_all(path.parent().unwrap())
                .and_then(|()| fs::write(&path, "x".repeat(1 + self.below(3)) + ["0", "1", "2"][self.below(3)])),
        };
    }

    fn limits(&mut self) -> Limits {
        let rows = |random: &mut Random| [0, 1, 3, 10, 100, 10_000][random.below(6)];
        let least_ahead = rows(self);
        Limits {
            first_ahead: rows(self),
            least_ahead,
            most_ahead: least_ahead.max(rows(self)),
            coming_bytes: [0, 1000, 5000, 1 << 20][self.below(4)],
            kept_bytes: [0, 1000, 5000, 1 << 20][self.below(4)],
        }
    }
}

fn scan(site: &Site) {
    let scan = Scan {
        root: &site.root,
        state: &site.state,
        ignore: None,
        only: &[],
        checksum: false,
        skip_placed: false,
        watch: None,
        mask: MASK,
        granularity_ns: 0,
        monitor: &Silent,
    };
    scan::scan(&scan).unwrap();
}

/// All the ways in which one side may pull from the other now.
fn ways(ours: &Site, theirs: &Site, random: &mut Random) -> Vec<Terms> {
    let everything = Terms::everything(Policy::Skip, MASK);
    let also = |also: BTreeSet<RelPath>| Arc::new(also);
    let pending = ours.state.pending(theirs.state.id()).unwrap();
    let open: BTreeSet<_> = pending.into_iter().map(|open| open.path).collect();
    let some: BTreeSet<_> = (0..random.below(4)).map(|_| path(&random.path())).collect();
    let known = ours.state.peer(theirs.state.id()).unwrap().map_or(0, |peer| peer.incorporated);
    let mut ways = vec![everything.clone()];
    for (after, named) in [(known, open), (known, some), (random.below(theirs.state.seq() as usize + 1) as u64, BTreeSet::new())]
    {
        ways.push(Terms { since: Some((after, also(named))), may_raise: random.below(2) == 0, ..everything.clone() });
    }
    ways.push(Terms { scope: vec![path(&random.path())], ..everything.clone() });
    ways.push(Terms { force: Some(End::There), policy: Policy::Wins(End::There), ..everything });
    ways
}

fn check_all_ways(ours: &Site, theirs: &Site, random: &mut Random, steps: &mut usize) {
    let here = theirs.here();
    let ways = ways(ours, theirs, random);
    let expected: Vec<_> = ways.iter().map(|terms| converse(terms, &here, &ours.state)).collect();
    *steps += expected.iter().map(|(steps, _)| steps.len()).sum::<usize>();
    for limits in [random.limits(), Limits::STANDARD] {
        remotely(&here, limits, |there| {
            for (terms, expected) in ways.iter().zip(&expected).chain(ways.iter().zip(&expected)) {
                assert_eq!(converse(terms, there, &ours.state), *expected, "seed {}, {limits:?}", random.1);
            }
        });
    }
    // Whoever holds one conversation twice is answered from what is kept.
    for (terms, expected) in ways.iter().zip(&expected) {
        remotely(&here, Limits::STANDARD, |there| {
            assert_eq!(converse(terms, there, &ours.state), *expected, "seed {}", random.1);
            let questions = there.questions();
            assert_eq!(converse(terms, there, &ours.state), *expected, "seed {}", random.1);
            assert_eq!(there.questions(), questions, "seed {}", random.1);
        });
    }
}

#[test]
fn a_pull_over_a_connection_takes_the_same_steps_as_a_local_one() {
    let mut steps = 0;
    for seed in 0..16 {
        let mut random = Random(seed, seed);
        let home = tempfile::tempdir().unwrap();
        let roots = ["a", "b"].map(|name| home.path().join(name));
        for round in 0..4 {
            for root in &roots {
                fs::create_dir_all(root).unwrap();
                (0..random.below(30)).for_each(|_| random.edit(root));
            }
            if round > 0 {
                let [a, b] = [0, 1].map(|side: usize| Site::open(&roots[side]));
                [&a, &b].into_iter().for_each(scan);
                check_all_ways(&a, &b, &mut random, &mut steps);
                check_all_ways(&b, &a, &mut random, &mut steps);
            }
            let options = Options { max_delete: None, mask: MASK, ..Options::standard() };
            Sync::open(&roots[0], &roots[1], options, &Silent).unwrap().apply(&Silent).unwrap();
        }
    }
    assert!(steps > 5_000, "{steps} steps show little");
}

#[test]
fn a_thousand_directories_take_few_round_trips_and_then_none() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (Site::open(&home.path().join("a")), Site::open(&home.path().join("b")));
    a.add(tree(1000, 10));
    let terms = Terms::everything(Policy::Skip, MASK);
    let here = a.here();
    let expected = converse(&terms, &here, &b.state);
    remotely(&here, Limits::STANDARD, |there| {
        assert_eq!(converse(&terms, there, &b.state), expected);
        // 1,024, 4,096 and 16,384 rows.
        assert_eq!(there.questions(), 3);
        let questions = there.questions();
        assert_eq!(converse(&terms, there, &b.state), expected);
        assert_eq!(there.questions(), questions);
        // D of a new directory, as a survey asks for it.
        let digest = here.digest(&path("g003/d00170")).unwrap();
        assert_eq!(there.digest(&path("g003/d00170")).unwrap(), digest);
        assert_eq!(there.questions(), questions);
    });
}

#[test]
fn directories_larger_than_what_comes_ahead_at_first_come_ahead_later() {
    let home = tempfile::tempdir().unwrap();
    let a = Site::open(&home.path().join("a"));
    a.add(tree(40, 1500));
    let expected = walk(&a.here());
    remotely(&a.here(), Limits::STANDARD, |there| {
        assert!(walk(there) == expected);
        assert!(there.questions() <= 5, "{}", there.questions());
    });
}

#[test]
fn few_changes_in_a_large_tree_cost_few_rows() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (Site::open(&home.path().join("a")), Site::open(&home.path().join("b")));
    a.add(tree(1000, 10));
    let seq = a.state.seq();
    a.add((0..20).map(|n| format!("g{n:03}/d{:05}/new", n * 50 + 7)));
    let terms = Terms { since: Some((seq, Arc::default())), ..Terms::everything(Policy::Skip, MASK) };
    let (steps, outcome) = converse(&terms, &a.here(), &b.state);
    assert!(steps.len() > 20);
    let bytes = received(&a.here(), |there| {
        assert_eq!(converse(&terms, there, &b.state), (steps, outcome));
        assert_eq!(there.questions(), 1);
    });
    assert!((1_000..20_000).contains(&bytes), "{bytes}");
}

#[test]
fn a_walk_that_passes_most_directories_over_asks_for_less_and_less_ahead() {
    let home = tempfile::tempdir().unwrap();
    let a = Site::open(&home.path().join("a"));
    a.add(tree(2000, 20));
    let bytes = received(&a.here(), |there| {
        // Every fiftieth directory.
        for group in 0..40 {
            let dir = path(&format!("g{group:03}/d{:05}", group * 50));
            assert_eq!(there.listing(&dir, &Filter::All).unwrap(), a.here().listing(&dir, &Filter::All).unwrap());
        }
        assert!(there.questions() <= 40);
    });
    // All rows take about two megabytes.
    assert!(bytes < 300_000, "{bytes}");
}

#[test]
fn what_is_kept_is_of_one_moment_and_goes_when_the_source_tells_of_another() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (Site::open(&home.path().join("a")), Site::open(&home.path().join("b")));
    a.add(tree(100, 3));
    let terms = Terms::everything(Policy::Skip, MASK);
    let here = a.here();
    remotely(&here, Limits::STANDARD, |there| {
        let before = converse(&terms, there, &b.state);
        a.add(["g000/d00007/new"]);
        // It is as it was, as far as anybody told.
        assert_eq!(converse(&terms, there, &b.state), before);
        there.learn(facts(&a), a.state.seq());
        let after = converse(&terms, there, &b.state);
        assert_eq!(after, converse(&terms, &here, &b.state));
        assert_ne!(after, before);
        let questions = there.questions();
        there.learn(facts(&a), a.state.seq());
        assert_eq!(converse(&terms, there, &b.state), after);
        assert_eq!(there.questions(), questions, "nothing new was told");
    });
}

/// Knowledge of a directory may be raised over what is read below it later: rows older than that would be lost.
#[test]
fn nothing_older_is_handed_out_than_what_was_handed_out_before() {
    for seed in 0..40 {
        let mut random = Random(seed, seed);
        let home = tempfile::tempdir().unwrap();
        let a = Site::open(&home.path().join("a"));
        a.add(tree(120, 2));
        let limits = random.limits();
        let here = a.here();
        remotely(&here, limits, |there| {
            for _ in 0..6 {
                let mut newest = 0;
                let filters = [Filter::All, Filter::Since { after: 5, also: Arc::default() }];
                let root = there.listing(&RelPath::root(), &filters[1]).unwrap();
                newest = root.seq.max(newest);
                for dir in 0..120 {
                    if random.below(30) == 0 {
                        a.add([format!("g{:03}/d{dir:05}/{:06}", dir / 50, random.below(1_000_000))]);
                    }
                    if random.below(3) > 0 {
                        let filter = &filters[usize::from(random.below(10) == 0)];
                        let dir = path(&format!("g{:03}/d{dir:05}", dir / 50));
                        let listing = there.listing(&dir, filter).unwrap();
                        assert!(listing.seq >= newest, "seed {seed}, {dir}: {} after {newest}", listing.seq);
                        newest = listing.seq;
                    }
                }
            }
        });
    }
}

#[test]
fn over_quic_it_is_the_same() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (Site::open(&home.path().join("a")), Site::open(&home.path().join("b")));
    a.add(tree(1000, 10));
    let terms = Terms::everything(Policy::Skip, MASK);
    let here = a.here();
    let (ends, _listener) = quic_ends();
    let ended = Ended::default();
    serving_over(ends, &here, &ended, |near| {
        let there = RemoteThere::new(near.clone(), facts(&a), a.state.seq());
        assert_eq!(converse(&terms, &there, &b.state), converse(&terms, &here, &b.state));
        assert_eq!(there.questions(), 3);
        drop(there);
        // The stream ends before the connection does.
        let deadline = std::time::Instant::now() + PATIENCE;
        while ended.lock().unwrap().is_empty() && std::time::Instant::now() < deadline {
            thread::yield_now();
        }
    });
    let ended = ended.into_inner().unwrap();
    assert!(matches!(ended[..], [Ok(())]), "{ended:?}");
}
