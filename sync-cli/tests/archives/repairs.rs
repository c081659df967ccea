//! Archived files that are damaged come back from peers that have them as they were, and from nobody else.

use crate::lab::{Machine, day, files, forget_reading, wait_until, write_day};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use sync_agent::status::{ArchiveDoing, BroughtStatus};

/// One file of day 0.
const FILE: &str = "part-1/00001.txt";

/// Two machines that have the same days, those of the first in its cold root and read again, and a peer that knows of all of it.
fn pair(archive: &str) -> (Machine, Machine) {
    let (mut a, mut b) = (Machine::with_cold("a", true), Machine::hot("b"));
    a.archive = archive.into();
    (0..2).for_each(|number| write_day(&a.root(), number, 8));
    // The one that stays is called by the other one, wherever that is.
    b.knows(&a);
    b.start();
    a.knows(&b);
    a.start();
    wait_until("both have all days", || files(&a.root()) == files(&b.root()));
    assert_eq!(a.archive_now().archived, 2);
    wait_until("all was read again", || a.archive().scrub.never == 0);
    (a, b)
}

/// A byte of the file flips while its agent is away, and nothing tells of it; it is read again when the agent is back.
fn damage(a: &mut Machine) -> PathBuf {
    a.stop();
    let cold = PathBuf::from(a.cold_path());
    let file = cold.join(day(0)).join(FILE);
    fixtures::damage::flip(&cold, &file, 3).unwrap();
    forget_reading(a);
    file
}

fn brought(machine: &Machine) -> BroughtStatus {
    machine.folder().brought
}

#[test]
fn a_byte_that_flipped_comes_back_from_a_peer_that_notices_nothing() {
    let (mut a, mut b) = pair("");
    let (whole, before) = (files(&b.root()), brought(&b));
    let file = damage(&mut a);
    assert_ne!(fs::read(&file).unwrap(), whole[&PathBuf::from(day(0)).join(FILE)]);
    let there = fs::metadata(b.root().join(day(0)).join(FILE)).unwrap().modified().unwrap();
    a.start();
    wait_until("it is repaired", || a.archive().scrub.repaired == 1);
    wait_until("all was read again", || a.archive().scrub.never == 0);
    assert_eq!((a.archive().scrub.damaged, a.folder().problems.total), (0, 0));
    assert_eq!(a.metric("driftless_archive_repaired_files_total"), Some(1.0));
    assert_eq!(a.says("It was brought back from b"), 1);
    let shown = String::from_utf8(a.run(&["agent", "status"]).stdout).unwrap();
    assert!(shown.contains("1 file repaired"), "{shown}");
    for machine in [&a, &b] {
        assert!(machine.run(&["agent", "sync"]).status.success());
    }
    wait_until("the looks are over", || [&a, &b].iter().all(|machine| machine.folder().state.word() == "watching"));
    assert!(files(&a.root()) == whole && files(&b.root()) == whole);
    assert_eq!((brought(&b), brought(&a).updated), (before, 0), "it was taken for a change");
    assert_eq!(fs::metadata(b.root().join(day(0)).join(FILE)).unwrap().modified().unwrap(), there);
    // It is whole for whoever reads it again, too.
    a.stop();
    forget_reading(&a);
    a.start();
    wait_until("all was read again", || a.archive().scrub.never == 0);
    assert_eq!((a.archive().scrub.damaged, a.archive().scrub.repaired), (0, 0));
    [&mut a, &mut b].into_iter().for_each(Machine::stop);
}

#[test]
fn damage_that_nobody_can_mend_stays_told_until_somebody_comes_who_can() {
    let (mut a, mut b) = pair("");
    let whole = files(&b.root());
    b.stop();
    let file = damage(&mut a);
    let damaged = fs::read(&file).unwrap();
    a.start();
    wait_until("it is found", || a.archive().scrub.damaged == 1);
    let told = |a: &Machine, word: &str| a.folder().problems.listed.iter().any(|problem| problem.error.contains(word));
    assert!(told(&a, "no peer is connected"), "{:?}", a.folder().problems);
    assert_eq!(fs::read(&file).unwrap(), damaged);
    b.start();
    a.stop();
    a.knows_anew(&b);
    a.start();
    wait_until("somebody comes who has it", || a.archive().scrub.repaired == 1);
    assert!(files(&a.root()) == whole && files(&b.root()) == whole);
    wait_until("nothing is told any more", || a.archive().scrub.damaged == 0 && a.folder().problems.total == 0);
    assert_eq!(brought(&b).updated, 0);
    [&mut a, &mut b].into_iter().for_each(Machine::stop);
}

#[test]
fn an_edit_of_a_damaged_file_is_an_edit_and_is_not_overwritten() {
    let (mut a, mut b) = pair("");
    b.stop();
    let file = damage(&mut a);
    a.start();
    wait_until("it is found", || a.archive().scrub.damaged == 1);
    fs::write(&file, "somebody's own text").unwrap();
    b.start();
    a.stop();
    a.knows_anew(&b);
    a.start();
    assert!(a.run(&["archive", "run", "--hot", &a.root().display().to_string()]).status.success());
    wait_until("the edit is no damage", || a.archive().scrub.damaged == 0 && a.folder().problems.total == 0);
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), a.archive().scrub.repaired), ("somebody's own text", 0));
    [&mut a, &mut b].into_iter().for_each(Machine::stop);
}

#[test]
fn nothing_is_fetched_where_the_configuration_says_so() {
    let (mut a, mut b) = pair("repair = false");
    let file = damage(&mut a);
    let damaged = fs::read(&file).unwrap();
    a.start();
    wait_until("it is found", || a.archive().scrub.damaged == 1 && a.folder().peers[0].is_connected());
    wait_until("all was read again", || a.archive().scrub.never == 0);
    assert_eq!((fs::read(&file).unwrap(), a.archive().scrub.repaired), (damaged, 0));
    [&mut a, &mut b].into_iter().for_each(Machine::stop);
}

/// One that has archived two days, the first with a file that nobody reads to its end; it was moved without a copy.
fn one_that_never_comes_to_its_end() -> Machine {
    let mut a = Machine::with_cold("a", false);
    (0..2).for_each(|number| write_day(&a.root(), number, 4));
    let dir = a.root().join(day(0));
    let time = fs::metadata(&dir).unwrap().modified().unwrap();
    let large = File::create(dir.join("large")).unwrap();
    large.set_len(1 << 40).unwrap();
    large.set_modified(time).unwrap();
    File::open(&dir).unwrap().set_modified(time).unwrap();
    a.start();
    assert_eq!(a.archive_now().archived, 2);
    a
}

#[test]
fn a_day_that_was_interrupted_keeps_no_other_one_from_being_read_and_the_agent_ends_within_a_file() {
    let mut a = one_that_never_comes_to_its_end();
    wait_until("a day is read", || a.archive().doing == ArchiveDoing::Scrubbing);
    let root = a.root().display().to_string();
    // Who only looks interrupts nobody.
    let told = a.run(&["archive", "plan", "--hot", &root]);
    assert!(told.status.success(), "{told:?}");
    assert_eq!((a.archive().doing, a.archive().scrub.never), (ArchiveDoing::Scrubbing, 2));
    // Who wants to change something does, whatever comes of it.
    let told = a.run(&["archive", "restore", &root, "2025"]);
    assert_eq!(told.status.code(), Some(3), "{told:?}");
    wait_until("the other one was read", || a.archive().scrub.never == 1);
    wait_until("it is the turn of the first again", || a.archive().doing == ArchiveDoing::Scrubbing);
    a.stop();
    let replica = sync_core::io::sync::Replica::open(&a.root(), None).unwrap();
    let read = String::from_utf8(replica.archive_note("agent.scrubbed").unwrap().unwrap()).unwrap();
    assert!(read.contains(&day(1)) && !read.contains(&day(0)), "{read}");
}

#[test]
fn who_reads_days_again_by_hand_ends_it_within_a_file() {
    let mut a = one_that_never_comes_to_its_end();
    a.stop();
    let mut command = a.command(&["archive", "verify", &a.root().display().to_string()]);
    let mut verify = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let open = PathBuf::from(format!("/proc/{}/fd", verify.id()));
    wait_until("the large file is read", || {
        let mut files = fs::read_dir(&open).unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        files.any(|path| path.ends_with("large"))
    });
    kill_process(Pid::from_child(&verify), Signal::INT).unwrap();
    wait_until("it ends", || verify.try_wait().unwrap().is_some());
    assert_eq!(verify.wait().unwrap().code(), Some(130));
}
