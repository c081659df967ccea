//! What a set of servers must live through.

use crate::lab::{Lab, good, wait_until, write};
use anyhow::Result;
use fixtures::bytes::noise;
use fixtures::tree::Content;
use std::fs;

const LINE: [(usize, usize); 2] = [(0, 1), (1, 2)];
const ALL: [(usize, usize); 3] = [(0, 1), (1, 2), (0, 2)];
/// A short quiet time, so that more happens.
const QUICK: &str = "quiet = \"50ms\"";
/// Bytes that nothing but content comes to.
const LARGE: usize = 4 << 20;

/// Writes so many files on each machine, below a folder.
fn write_some(lab: &Lab, folder: &str, count: u64) -> Result<()> {
    for (index, machine) in lab.machines.iter().enumerate() {
        for number in 0..count {
            let content = noise(index as u64 * 1_000_000 + number, 2_000);
            write(&machine.at(&format!("{folder}/{}{}/{number}", machine.name, number % 5)), &content)?;
        }
    }
    Ok(())
}

fn files(lab: &Lab) -> usize {
    lab.machines[0].tree().map_or(0, |tree| tree.iter().filter(|(_, node)| matches!(node.content, Content::File(_))).count())
}

/// No conflict anywhere.
#[track_caller]
fn assert_no_conflict(lab: &Lab) {
    for machine in &lab.machines {
        let tree = machine.tree().unwrap();
        let copies: Vec<_> = tree.iter().filter(|(path, _)| path.to_string().contains(".conflict")).collect();
        assert!(copies.is_empty(), "{}: {copies:?}", machine.name);
    }
    assert_eq!(lab.panics(), Vec::<String>::new());
}

#[test]
fn files_made_on_each_of_three_servers_arrive_on_all() -> Result<()> {
    let Some(mut lab) = Lab::new(3, &ALL, QUICK)? else { return Ok(()) };
    write_some(&lab, "before", 50)?;
    lab.start_all()?;
    lab.wait_equal("what was there before is everywhere", |lab| files(lab) == 150)?;
    write_some(&lab, "2026/11/21", 50)?;
    lab.wait_equal("what was made since is everywhere", |lab| files(lab) == 300)?;
    lab.wait_in_sync()?;
    assert_no_conflict(&lab);
    lab.stop_all()
}

#[test]
fn two_servers_without_a_link_between_them_agree_through_a_third() -> Result<()> {
    let Some(mut lab) = Lab::new(3, &ALL, QUICK)? else { return Ok(()) };
    lab.link(0, 2, good().cut());
    lab.start_all()?;
    write_some(&lab, "day", 50)?;
    lab.wait_equal("all have all of it", |lab| files(lab) == 150)?;
    // Nothing arrived directly.
    assert_eq!((lab.bytes(0, 2), lab.bytes(2, 0)), (0, 0));
    lab.link(0, 2, good());
    lab.wait_in_sync()?;
    assert_no_conflict(&lab);
    lab.stop_all()
}

/// The content is with a third server already, so nobody has to wait until the dead connection is given up.
#[test]
fn a_transfer_whose_source_dies_in_the_middle_goes_on_from_another_server() -> Result<()> {
    let Some(mut lab) = Lab::new(3, &ALL, QUICK)? else { return Ok(()) };
    lab.start_all()?;
    write(&lab.machines[0].at("first"), b"x")?;
    lab.wait_equal("all have the first", |lab| files(lab) == 1)?;
    lab.wait_in_sync()?;
    // So slow that it is cut in the middle; the other way round is quick.
    lab.link(0, 2, fixtures::linkemu::Conditions { mbit: 4.0, ..good() });
    let before = lab.bytes(0, 2);
    write(&lab.machines[0].at("large"), &noise(1, LARGE))?;
    wait_until("it is on its way, or there already", || {
        Ok(lab.bytes(0, 2) - before > LARGE as u64 / 8 || lab.machines[2].at("large").exists())
    })?;
    lab.link(0, 2, good().cut());
    lab.wait_equal("all have the large one", |lab| files(lab) == 2)?;
    lab.link(0, 2, good());
    lab.wait_in_sync()?;
    assert_no_conflict(&lab);
    lab.stop_all()
}

#[test]
fn the_middle_server_is_killed_under_load_and_started_again_and_nothing_is_lost() -> Result<()> {
    let Some(mut lab) = Lab::new(3, &LINE, QUICK)? else { return Ok(()) };
    lab.start_all()?;
    let mut expected = 0;
    for round in 0..3 {
        write_some(&lab, &format!("round{round}"), 100)?;
        write(&lab.machines[0].at(&format!("large{round}")), &noise(99 + round, LARGE))?;
        expected += 301;
        let stage = lab.machines[1].root.join(".driftless/stage");
        wait_until("it is at work", || {
            let staged = fs::read_dir(&stage).map_or(0, Iterator::count);
            Ok(staged > 0 || files(&lab) == expected)
        })?;
        lab.kill(1)?;
        // Ends that do not see each other go on meanwhile.
        write(&lab.machines[2].at(&format!("meanwhile{round}")), b"alone")?;
        expected += 1;
        lab.start(1)?;
    }
    lab.wait_equal("all have all of it", |lab| files(lab) == expected)?;
    lab.wait_in_sync()?;
    assert_no_conflict(&lab);
    lab.stop_all()
}

#[test]
fn all_servers_are_killed_at_once_and_agree_after_they_are_started_again() -> Result<()> {
    let Some(mut lab) = Lab::new(3, &ALL, QUICK)? else { return Ok(()) };
    lab.start_all()?;
    write_some(&lab, "one", 100)?;
    wait_until("something has arrived", || Ok(lab.machines[2].at("one/a0").exists()))?;
    (0..3).try_for_each(|at| lab.kill(at))?;
    write_some(&lab, "two", 20)?;
    fs::remove_dir_all(lab.machines[0].at("one/a0"))?;
    lab.start_all()?;
    lab.wait_equal("all have all of it", |lab| files(lab) == 340)?;
    lab.wait_in_sync()?;
    assert_no_conflict(&lab);
    lab.stop_all()
}

#[test]
fn a_link_that_carries_packets_one_way_only_holds_nobody_up_and_comes_back() -> Result<()> {
    let Some(mut lab) = Lab::new(3, &ALL, QUICK)? else { return Ok(()) };
    lab.start_all()?;
    write_some(&lab, "before", 10)?;
    lab.wait_equal("all have all of it", |lab| files(lab) == 30)?;
    for (from, to, folder, count) in [(0, 2, "there", 60), (2, 0, "back", 90)] {
        lab.mesh.set(from, to, good().cut());
        write_some(&lab, folder, 10)?;
        lab.wait_equal("all have all of it", |lab| files(lab) == count)?;
        lab.mesh.set(from, to, good());
    }
    lab.wait_in_sync()?;
    assert_no_conflict(&lab);
    lab.stop_all()
}

#[test]
fn a_server_that_was_away_while_others_went_on_returns_and_brings_nothing_back() -> Result<()> {
    let Some(mut lab) = Lab::new(3, &ALL, QUICK)? else { return Ok(()) };
    lab.start_all()?;
    write_some(&lab, "day", 60)?;
    lab.wait_equal("all have all of it", |lab| files(lab) == 180)?;
    lab.wait_in_sync()?;
    lab.kill(2)?;
    let (a, b) = (&lab.machines[0], &lab.machines[1]);
    for number in 0..40 {
        fs::remove_file(a.at(&format!("day/c{}/{number}", number % 5)))?;
        fs::write(b.at(&format!("day/a{}/{number}", number % 5)), format!("again {number}"))?;
    }
    fs::rename(a.at("day/b1"), a.at("day/moved"))?;
    wait_until("the two agree", || Ok(lab.equal(&[0, 1]) && !b.at("day/c4/39").exists() && b.at("day/moved").exists()))?;
    // Gone there, and made anew with the same name.
    fs::remove_dir_all(b.at("day/b2"))?;
    wait_until("the two agree", || Ok(lab.equal(&[0, 1]) && !a.at("day/b2").exists()))?;
    write(&a.at("day/b2/new"), b"another")?;
    write(&lab.machines[2].at("while-away"), b"made meanwhile")?;
    let before = lab.machines[0].tree()?;
    lab.start(2)?;
    lab.wait_equal("all have what was made meanwhile", |lab| lab.machines[0].at("while-away").exists())?;
    lab.wait_in_sync()?;
    let mut after = lab.machines[2].tree()?;
    after.remove(&sync_core::path::RelPath::parse(b"while-away")?);
    assert!(before == after, "{}", fixtures::tree::diff(&before, &after));
    assert_no_conflict(&lab);
    lab.stop_all()
}
