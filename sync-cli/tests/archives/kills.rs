//! An agent that archives is ended by SIGKILL at any moment, while a peer is connected and files are written on both machines.

use crate::lab::{Machine, day, files, setting, wait_until, write_day};
use fixtures::bytes::Stream;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use sync_agent::control::Client;

const DAYS: u64 = 12;
const FILES: u64 = 6;
/// Pace of the writers.
const PACE: Duration = Duration::from_millis(25);
/// Where they write.
const NEW: &str = "today";

type Contents = BTreeMap<PathBuf, Vec<u8>>;

/// Files of the days can be read through their hot paths, and are whole.
#[track_caller]
fn assert_readable(machine: &Machine, contents: &Contents, what: &str) {
    for (path, bytes) in contents {
        let found = fs::read(machine.root().join(path));
        let found = found.unwrap_or_else(|error| panic!("{what}: {}: {}: {error}", machine.name, path.display()));
        assert!(found == *bytes, "{what}: {}: {} holds other bytes", machine.name, path.display());
    }
}

/// What somebody has written, until it is told to stop: new files only, so that each of them is created once on the other machine.
#[derive(Default)]
struct Writer {
    done: AtomicBool,
    written: Mutex<Contents>,
}

impl Writer {
    fn write(&self, root: &Path, name: &str) {
        let mut number = 0u64;
        while !self.done.load(Ordering::SeqCst) {
            let path = PathBuf::from(format!("{NEW}/{name}-{number}"));
            let bytes = format!("{name} {number}\n").repeat(20).into_bytes();
            fs::write(root.join(&path), &bytes).unwrap();
            self.written.lock().unwrap().insert(path, bytes);
            number += 1;
            // A pace, and nothing that is waited for.
            thread::sleep(PACE);
        }
    }
}

/// Names in a folder; none where it is not there.
fn names(path: PathBuf) -> Vec<PathBuf> {
    fs::read_dir(path).map_or_else(|_| Vec::new(), |found| found.map(|entry| entry.unwrap().path()).collect())
}

/// All days are cold, each is in exactly one place, and no move has left anything.
#[track_caller]
fn assert_one_copy(machine: &Machine) {
    let cold = PathBuf::from(machine.cold_path());
    for number in 0..DAYS {
        assert!(machine.is_link(&day(number)) && cold.join(day(number)).is_dir(), "{}", day(number));
    }
    assert_eq!(names(machine.root().join(".driftless/archive")), Vec::<PathBuf>::new(), "left in the journal");
    let keys: Vec<PathBuf> = names(cold.join(".driftless")).into_iter().filter(|path| path.is_dir()).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert_eq!(names(keys[0].join("moving")), Vec::<PathBuf>::new(), "copies on their way");
    // What was being read again when the agent was killed is read again after it.
    for what in ["sealed", "placed"] {
        wait_until(&format!("{what}: one file for each day"), || names(keys[0].join(what)).len() as u64 == DAYS);
    }
}

fn is_killed_and_loses_nothing(other_disk: bool, kills: u64, seed: u64) {
    let begun = Instant::now();
    let (mut a, mut b) = (Machine::with_cold("a", other_disk), Machine::hot("b"));
    a.archive = "quiet = \"1s\"".into();
    (0..DAYS).for_each(|number| write_day(&a.root(), number, FILES));
    fs::create_dir(a.root().join(NEW)).unwrap();
    // The one that lives is called by the one that is killed.
    b.knows(&a);
    b.start();
    a.knows(&b);
    a.start();
    wait_until("both have all days", || files(&a.root()) == files(&b.root()) && b.root().join(NEW).is_dir());
    let days = files(&a.root());
    // Each day with four folders in it, those above the days, and the one for what is new. What a pull did is counted at its end.
    let paths = DAYS * (FILES + 5) + 3;
    wait_until("the first pulls are counted", || b.folder().brought.created == paths);
    let before = b.folder().brought;
    let (here, there) = (Writer::default(), Writer::default());
    let (mut random, mut took, mut in_a_move, mut restored) = (Stream::new(seed), Duration::from_millis(600), 0, 0);
    let (a_root, b_root) = (a.root(), b.root());
    thread::scope(|scope| {
        scope.spawn(|| here.write(&a_root, "a"));
        scope.spawn(|| there.write(&b_root, "b"));
        let work = || {
            for kill in 0..kills {
                let what = format!("other disk: {other_disk}, seed {seed}, kill {kill}");
                if kill % 4 == 0 {
                    wait_until("the peer is connected", || a.folder().peers[0].is_connected());
                }
                let asked = Instant::now();
                Client::new(&a.home()).archive(None, false).unwrap().unwrap();
                let delay = took.mul_f64(random.below(1_000) as f64 / 1_000.0);
                // The moment is not waited for by what it does, or it would only ever be one right after that.
                thread::sleep(delay);
                let all = (0..DAYS).all(|number| a.is_link(&day(number)));
                a.kill();
                if all {
                    took = (took + asked.elapsed()) / 2;
                }
                assert_readable(&a, &days, &what);
                assert_readable(&b, &days, &what);
                in_a_move += u64::from(!names(a.root().join(".driftless/archive")).is_empty());
                if all {
                    let back = a.run(&["archive", "restore", &a.root().display().to_string(), "2026"]);
                    assert!(back.status.success(), "{what}: {back:?}");
                    assert_readable(&a, &days, &what);
                    restored += 1;
                } else {
                    took = took.mul_f64(1.1);
                }
                a.start();
            }
        };
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        [&here, &there].iter().for_each(|writer| writer.done.store(true, Ordering::SeqCst));
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
    });
    let (by_a, by_b) = (here.written.into_inner().unwrap(), there.written.into_inner().unwrap());
    let mut all = days.clone();
    all.extend(by_a.clone());
    all.extend(by_b.clone());
    wait_until("what was written is on both", || files(&a.root()) == all && files(&b.root()) == all);
    wait_until("all days are cold, and old copies have gone", || {
        let archive = a.archive_now();
        archive.archived == DAYS && archive.displaced == 0
    });
    for machine in [&a, &b] {
        assert!(machine.run(&["agent", "sync"]).status.success());
    }
    wait_until("the looks are over", || [&a, &b].iter().all(|machine| machine.folder().state.word() == "watching"));
    assert_one_copy(&a);
    assert!(files(&a.root()) == all && files(&b.root()) == all);
    // The peer heard of what was written, and of nothing else.
    let after = b.folder();
    let brought = after.brought;
    // What a pull brought until the other side was killed is not counted.
    assert!(brought.created - before.created <= by_a.len() as u64, "{before:?} {brought:?}");
    assert_eq!((brought.deleted, brought.moved, brought.conflicts), (0, 0, 0), "{brought:?}");
    assert_eq!(brought.updated, before.updated, "{brought:?}");
    assert_eq!((after.conflicts, a.folder().conflicts, a.folder().brought.deleted), (Some(0), Some(0), 0));
    eprintln!(
        "other disk: {other_disk}: {kills} agents killed, {in_a_move} of them with a move in the journal, all days brought back \
         {restored} times, {} and {} files written meanwhile, {:.0} s",
        by_a.len(),
        by_b.len(),
        begun.elapsed().as_secs_f64()
    );
    [&mut a, &mut b].into_iter().for_each(Machine::stop);
}

#[test]
fn an_agent_that_is_killed_while_it_archives_loses_nothing_and_its_peer_hears_nothing_of_it() {
    let (kills, seed) = (setting("DRIFTLESS_TEST_KILLS", 60), setting("DRIFTLESS_TEST_SEED", 1));
    is_killed_and_loses_nothing(true, kills.div_ceil(2), seed);
    is_killed_and_loses_nothing(false, kills / 2, seed + 1);
}
