//! A run is killed at every named place while it changes placed days.

use super::NOTHING;
use super::lab::{DAYS, FirstDay, Lab, live_sync, live_sync_at, rejoin, sync, tree, write};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use sync_core::io::kill::{KILL_POINTS, arm};
use sync_core::io::sync::Replica;

const CHILD: &str = "DRIFTLESS_TEST_PLACES_CHILD";

pub(super) fn killed(folder: &Path, place: &str, nth: u32) -> bool {
    killed_at(&format!("{}\n", folder.display()), place, nth)
}

/// A run that begins anew where something was lost.
pub(super) fn killed_joining(folder: &Path, place: &str, nth: u32) -> bool {
    killed_at(&format!("{}\n--rejoin", folder.display()), place, nth)
}

/// What lies in the cold root is claimed for `b`.
pub(super) fn killed_claiming(folder: &Path, place: &str, nth: u32) -> bool {
    killed_at(&format!("{}\n--claim", folder.display()), place, nth)
}

/// A run into a root whose old days are made in the cold root.
fn killed_making(lab: &Lab, place: &str, nth: u32) -> bool {
    killed_at(&format!("{}\n{}", lab.folder().display(), lab.cold().display()), place, nth)
}

fn killed_at(folders: &str, place: &str, nth: u32) -> bool {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::child", "--test-threads=1"])
        .env(CHILD, format!("{folders}\n{place}\n{nth}"))
        .output()
        .unwrap();
    let by_signal = child.status.signal() == Some(9);
    assert!(by_signal || child.status.success(), "{place}: {}", String::from_utf8_lossy(&child.stdout));
    by_signal
}

#[test]
fn child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let parts: Vec<&str> = order.split('\n').collect();
    let [folder, cold, place, nth] = parts[..] else { panic!("no order: {order}") };
    arm(place, nth.parse().unwrap());
    match cold {
        "" => drop(sync(Path::new(folder))),
        "--claim" => drop(Replica::open(&Path::new(folder).join("b"), None).unwrap().claim(None).unwrap()),
        "--rejoin" => drop(rejoin(Path::new(folder))),
        cold => live_sync_at((Path::new(folder), Path::new(cold)), FirstDay::In2026),
    }
}

/// One day was changed elsewhere, one deleted, one emptied.
fn prepared() -> Lab {
    let lab = Lab::new();
    DAYS.iter().for_each(|day| lab.place(day));
    write(&lab.a(), "2026/03/05/a.txt", "second");
    write(&lab.a(), "2026/03/05/new/x", "new");
    fs::remove_file(lab.a().join("2026/03/05/b.txt")).unwrap();
    fs::rename(lab.a().join("2026/03/05/c.txt"), lab.a().join("2026/03/05/moved.txt")).unwrap();
    fs::remove_dir_all(lab.a().join(DAYS[1])).unwrap();
    fs::remove_dir_all(lab.a().join("2026/04")).unwrap();
    lab
}

fn assert_ends_well(lab: &Lab, what: &str) {
    lab.synchronise();
    assert_eq!(lab.synchronise(), NOTHING, "{what}");
    assert_eq!(lab.placed(), [DAYS[0]], "{what}");
    assert!(lab.is_link(DAYS[0]) && !lab.cold().join(DAYS[1]).exists() && !lab.cold().join(DAYS[2]).exists(), "{what}");
    assert_eq!(fs::read_to_string(lab.b().join("2026/03/05/a.txt")).unwrap(), "second", "{what}");
    assert!(!lab.a().join(DAYS[1]).exists() && lab.b().join(DAYS[1]).symlink_metadata().is_err(), "{what}");
    assert_eq!(lab.staged(), Vec::<std::path::PathBuf>::new(), "{what}");
    assert_eq!(lab.stamped(), [DAYS[0]], "{what}");
    // What was moved may have gone before it came anew.
    assert!(lab.kept_cold().len() >= 4, "{what}: {:?}", lab.kept_cold());
    lab.knows();
}

#[test]
fn a_run_killed_anywhere_while_it_changes_placed_days_is_finished_by_the_next() {
    let mut reached = Vec::new();
    for place in KILL_POINTS {
        for nth in [1, 2] {
            let lab = prepared();
            if !killed(lab.folder(), place, nth) {
                break;
            }
            reached.push(*place);
            assert_ends_well(&lab, &format!("{place} {nth}"));
        }
    }
    reached.dedup();
    for place in KILL_POINTS.iter().filter(|place| place.starts_with("unplace-")) {
        // A day goes whole here, and empty in another test.
        let elsewhere = ["unplace-put-back", "unplace-empty-before", "unplace-emptied"];
        assert!(reached.contains(place) || elsewhere.contains(place), "{place} was not reached");
    }
    assert!(reached.len() >= 25, "only {} places were reached: {reached:?}", reached.len());
}

#[test]
fn a_kill_in_recovery_of_placed_days_is_recovered_from() {
    for first in ["unplace-renamed", "unplace-synced", "unplace-unlinked", "batch-swapped"] {
        for second in KILL_POINTS.iter().filter(|place| place.starts_with("recover-")) {
            let lab = prepared();
            assert!(killed(lab.folder(), first, 1), "{first}");
            killed(lab.folder(), second, 1);
            assert_ends_well(&lab, &format!("{first}, then {second}"));
        }
    }
}

#[test]
fn a_run_killed_anywhere_while_days_are_made_in_the_cold_root_is_finished_by_the_next() {
    let mut reached = Vec::new();
    for place in KILL_POINTS {
        for nth in [1, 3] {
            let lab = Lab::without_days();
            if !killed_making(&lab, place, nth) {
                break;
            }
            reached.push(*place);
            for second in ["recover-committed", "recover-intent"] {
                killed_making(&lab, second, 1);
            }
            live_sync(&lab, FirstDay::In2026);
            let what = format!("{place} {nth}");
            assert_eq!(tree(&lab.a()), tree(&lab.b()), "{what}");
            assert_eq!(lab.placed(), DAYS, "{what}");
            assert_eq!(lab.stamped(), DAYS, "{what}");
            assert!(DAYS.iter().all(|day| lab.is_link(day)), "{what}");
            assert_eq!(lab.staged(), Vec::<std::path::PathBuf>::new(), "{what}");
            assert_eq!(lab.synchronise(), NOTHING, "{what}");
        }
    }
    for place in ["place-before", "place-renamed", "place-synced", "place-linked"] {
        assert!(reached.contains(&place), "{place} was not reached");
    }
}
