//! What stands in the way of archiving is told, keeps nothing hot from being synchronised, and is over once it is mended.

use crate::lab::{Machine, day, files, forget_reading, wait_until, write_day};
use std::fs;

/// Two machines that have the same days, the first with a cold root.
fn pair(days: u64, archive: &str) -> (Machine, Machine) {
    let (mut a, mut b) = (Machine::with_cold("a", true), Machine::hot("b"));
    a.archive = archive.into();
    (0..days).for_each(|number| write_day(&a.root(), number, 8));
    a.knows(&b);
    a.start();
    b.knows(&a);
    b.start();
    wait_until("both have all days", || files(&a.root()) == files(&b.root()));
    (a, b)
}

#[test]
fn a_cold_root_that_goes_is_told_and_hot_goes_on_and_a_later_run_goes_on_too() {
    let (mut a, mut b) = pair(3, "");
    assert_eq!(a.archive_now().archived, 3);
    let whole = files(&a.root());
    // The disk goes: an empty mount point is left.
    let cold = a.cold.as_ref().unwrap().path().to_owned();
    let away = cold.with_extension("away");
    fs::rename(&cold, &away).unwrap();
    fs::create_dir(&cold).unwrap();
    write_day(&a.root(), 3, 8);
    fs::write(b.root().join("today.txt"), "today").unwrap();
    wait_until("what is hot goes on", || {
        fs::read(a.root().join("today.txt")).is_ok() && files(&b.root().join(day(3))).len() == 8
    });
    let told = a.archive_now();
    let why = told.last.unwrap().error.unwrap();
    assert!(why.contains("no marker"), "{why}");
    wait_until("the problem is told", || {
        let folder = a.folder();
        folder.problems.listed.iter().any(|problem| problem.error.contains("no marker"))
            && folder.archive.is_some_and(|archive| archive.unavailable.is_some())
    });
    assert_eq!(fs::read_dir(&cold).unwrap().count(), 0, "something was made below an empty mount point");
    assert!(!a.is_link(&day(3)));
    // Nothing counts as deleted.
    assert!(whole.iter().all(|(path, bytes)| fs::read(b.root().join(path)).is_ok_and(|there| there == *bytes)));
    fs::remove_dir(&cold).unwrap();
    fs::rename(&away, &cold).unwrap();
    let told = a.archive_now();
    assert_eq!((told.archived, told.last.unwrap().error), (4, None));
    wait_until("the problem is over", || {
        let folder = a.folder();
        folder.problems.total == 0 && folder.archive.is_some_and(|archive| archive.unavailable.is_none())
    });
    wait_until("all is equal", || files(&a.root()) == files(&b.root()));
    assert_eq!(a.folder().brought.deleted + b.folder().brought.deleted, 0);
    [&mut a, &mut b].into_iter().for_each(Machine::stop);
}

#[test]
fn a_run_that_was_missed_is_made_up_and_one_whose_hour_comes_is_made() {
    let mut a = Machine::with_cold("a", false);
    (0..2).for_each(|number| write_day(&a.root(), number, 3));
    // Two seconds before the hour.
    a.archive = "cold_schedule = \"daily 12:00\"".into();
    a.now = "2026-04-20T11:00:00Z".into();
    a.start();
    wait_until("it remembers since when there is a rule", || a.archive().next.is_some());
    a.stop();
    a.now = "2026-04-20T11:59:58Z".into();
    a.start();
    wait_until("the hour comes", || a.archive().archived == 2);
    a.stop();
    write_day(&a.root(), 2, 3);
    // The agent was not there at noon.
    a.now = "2026-04-21T15:00:00Z".into();
    a.start();
    wait_until("what was missed is made up", || a.archive().archived == 3);
    // A day counts at once, the next hour is known at the end of the run.
    wait_until("the next one is at noon of the 22nd", || {
        a.archive().next.is_some_and(|next| next.0 == 1_776_859_200_000_000_000)
    });
    // The clock goes back: that is told, and nothing moves.
    a.stop();
    write_day(&a.root(), 3, 3);
    a.now = "2026-04-20T15:00:00Z".into();
    a.start();
    wait_until("a clock that went back is told", || {
        a.archive().last.is_some_and(|last| last.error.is_some_and(|why| why.contains("behind the last archiving run")))
    });
    assert!(!a.is_link(&day(3)));
    let told = a.run(&["archive", "run", "--hot", &a.root().display().to_string(), "--accept-clock"]);
    assert!(told.status.success(), "{told:?}");
    wait_until("a clock that is accepted is believed", || a.is_link(&day(3)));
    a.stop();
}

#[test]
fn too_few_peers_hold_a_day_and_then_enough() {
    let (mut a, mut b) = (Machine::with_cold("a", false), Machine::hot("b"));
    a.archive = "min_peers = 1".into();
    write_day(&a.root(), 0, 4);
    a.knows(&b);
    a.start();
    let told = a.archive_now();
    assert_eq!((told.archived, told.days.unwrap().staying.get("peers").copied()), (0, Some(1)), "nobody has it");
    b.knows(&a);
    b.start();
    wait_until("b has it, and said so", || a.archive_now().archived == 1);
    // Who is away still has what it had, and has not what came since.
    b.stop();
    wait_until("b is away", || !a.folder().peers[0].is_connected());
    write_day(&a.root(), 1, 4);
    wait_until("the new day is looked at", || a.folder().paths.is_some_and(|paths| paths > 16));
    let told = a.archive_now();
    assert_eq!((told.archived, told.days.unwrap().staying.get("peers").copied()), (1, Some(1)));
    a.stop();
}

#[test]
fn damage_is_told_once_and_remembered() {
    let mut a = Machine::with_cold("a", true);
    write_day(&a.root(), 0, 4);
    a.start();
    assert_eq!(a.archive_now().archived, 1);
    wait_until("it was read again", || a.archive().scrub.never == 0);
    assert_eq!(a.archive().scrub.damaged, 0);
    a.stop();
    // A byte flips, and nothing else tells of it.
    let file = a.cold.as_ref().unwrap().path().join(day(0)).join("part-1/00001.txt");
    fixtures::damage::flip(a.cold.as_ref().unwrap().path(), &file, 3).unwrap();
    // Days are read again once a month: this one is due when nothing is known of it.
    forget_reading(&a);
    a.start();
    wait_until("the damage is found", || a.archive().scrub.damaged == 1);
    let problem = a.folder().problems;
    assert!(problem.listed.iter().any(|problem| problem.place.bytes().ends_with(b"part-1/00001.txt")), "{problem:?}");
    assert_eq!(a.says("is damaged"), 1);
    a.stop();
    a.start();
    wait_until("it is remembered", || a.archive().scrub.damaged == 1 && a.folder().problems.total == 1);
    assert_eq!(a.says("is damaged"), 1);
    a.stop();
}

#[test]
fn a_day_that_was_brought_back_is_read_again_when_it_has_moved_once_more() {
    // On one file system a day moves without a copy: only reading it tells what is right.
    let mut a = Machine::with_cold("a", false);
    a.archive = "quiet = \"1s\"".into();
    write_day(&a.root(), 0, 4);
    a.start();
    assert_eq!(a.archive_now().archived, 1);
    wait_until("it was read again", || a.archive().scrub.never == 0);
    let first = a.archive().scrub.last.unwrap();
    let back = a.run(&["archive", "restore", &a.root().display().to_string(), "2026"]);
    assert!(back.status.success() && !a.is_link(&day(0)), "{back:?}");
    wait_until("it has moved again, and what it had left there has gone", || {
        let archive = a.archive_now();
        archive.archived == 1 && archive.displaced == 0
    });
    wait_until("it was read again", || a.archive().scrub.last.is_some_and(|last| last.0 > first.0));
    let folders = std::fs::read_dir(a.cold.as_ref().unwrap().path().join(".driftless")).unwrap();
    let records = folders.filter_map(|folder| std::fs::read_dir(folder.unwrap().path().join("sealed")).ok());
    assert_eq!(records.map(Iterator::count).sum::<usize>(), 1);
    a.stop();
}
