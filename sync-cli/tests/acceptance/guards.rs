//! What stops a run before anything is changed.

use crate::lab::{Lab, snapshot, untouched};
use std::fs;

const TEN: [&str; 10] = ["d/0", "d/1", "d/2", "d/3", "d/4", "d/5", "d/6", "d/7", "d/8", "d/9"];

/// The run ends with 3, says these words, and has changed nothing.
#[track_caller]
fn assert_stopped(lab: &Lab, args: &[&str], word: &str) {
    let before = (untouched(&lab.root("a")), untouched(&lab.root("b")));
    let ran = lab.sync(args);
    ran.code(3);
    assert!(ran.stderr().contains(word), "{}", ran.stderr());
    assert!(before == (untouched(&lab.root("a")), untouched(&lab.root("b"))), "something was changed");
}

#[test]
fn an_emptied_root_stops_the_run_from_either_side() {
    // 44
    for root in ["a", "b"] {
        let lab = Lab::synced(&TEN);
        lab.remove(root, "d");
        assert_stopped(&lab, &[], "--allow-delete");
        assert_stopped(&lab, &["--max-delete", "100%"], "--allow-delete");
        lab.write(root, "one survivor", "1");
        assert_stopped(&lab, &[], "--allow-delete");
    }
}

#[test]
fn a_bare_mount_point_stops_the_run_from_either_side() {
    for root in ["a", "b"] {
        let lab = Lab::synced(&TEN);
        fs::rename(lab.root(root), lab.root("disk")).unwrap();
        fs::create_dir(lab.root(root)).unwrap();
        assert_stopped(&lab, &[], "mounted");
        assert_stopped(&lab, &["--allow-delete"], "mounted");
        assert_eq!(fs::read_dir(lab.root(root)).unwrap().count(), 0, "something was made below the mount point");
        fs::remove_dir(lab.root(root)).unwrap();
        fs::rename(lab.root("disk"), lab.root(root)).unwrap();
        lab.assert_settled();
    }
}

#[test]
fn a_missing_marker_stops_the_run() {
    let lab = Lab::synced(&TEN);
    fs::remove_file(lab.at("b", ".driftless/marker")).unwrap();
    assert_stopped(&lab, &[], "--rejoin");
    lab.sync(&["--rejoin"]).code(0).without_conflicts();
    lab.assert_settled();
}

#[test]
fn a_missing_state_behind_a_marker_stops_the_run() {
    let lab = Lab::synced(&TEN);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(lab.at("a", format!(".driftless/state.db{suffix}")));
    }
    lab.remove("b", "d/3");
    assert_stopped(&lab, &[], "--rejoin");
    lab.sync(&["--rejoin"]).code(0).without_conflicts();
    lab.assert_settled();
}

#[test]
fn a_root_that_is_gone_or_became_a_file_stops_the_run() {
    // 44
    let lab = Lab::synced(&TEN);
    let before = snapshot(&lab.root("a"));
    fs::rename(lab.root("b"), lab.root("disk")).unwrap();
    assert!(!lab.sync(&[]).code(3).stderr().is_empty());
    fs::write(lab.root("b"), "a file").unwrap();
    assert!(!lab.sync(&[]).code(3).stderr().is_empty());
    assert!(snapshot(&lab.root("a")) == before);
}

#[test]
fn more_than_half_deleted_stops_the_run() {
    for root in ["a", "b"] {
        let lab = Lab::synced(&TEN);
        for file in &TEN[..8] {
            lab.remove(root, file);
        }
        assert_stopped(&lab, &[], "--allow-delete");
        lab.sync(&["--allow-delete"]).code(0);
        lab.assert_settled();
    }
}

#[test]
fn everything_in_one_renamed_folder_passes_the_guard() {
    let lab = Lab::synced(&TEN);
    lab.rename("a", "d", "renamed");
    let ran = lab.sync(&[]);
    ran.code(0).without_conflicts();
    assert_eq!((ran.count("deleted"), ran.count("created")), (0, 0), "{}", ran.stdout());
    lab.assert_settled();
}

#[test]
fn every_file_renamed_passes_the_guard() {
    let lab = Lab::synced(&TEN);
    lab.mkdir("b", "new/place");
    for (at, file) in TEN.iter().enumerate() {
        lab.rename("b", file, &format!("new/place/{at}"));
    }
    lab.remove("b", "d");
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    assert_eq!(lab.read("a", "new/place/3").unwrap(), "d/3");
}

#[test]
fn a_damaged_state_is_told_and_nothing_is_lost() {
    let lab = Lab::synced(&TEN);
    lab.write("b", "d/1", "edited on b");
    lab.remove("b", "d/2");
    fs::write(lab.at("a", ".driftless/state.db"), vec![0x5a; 40_000]).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(lab.at("a", format!(".driftless/state.db{suffix}")));
    }
    let ran = lab.sync(&[]);
    assert_eq!(ran.0.status.code(), Some(3), "{}{}", ran.stdout(), ran.stderr());
    assert!(ran.stderr().contains("--rejoin"), "{}", ran.stderr());
    lab.sync(&["--rejoin", "--conflicts", "keep-both"]).code(0);
    lab.assert_settled();
    assert!(lab.names("a").iter().any(|name| lab.read("a", name).as_deref() == Some("edited on b")));
}

#[test]
fn a_second_run_on_a_root_that_is_in_use_is_refused() {
    use sync_core::io::sync::{Options, Sync};
    use sync_core::report::Silent;
    let lab = Lab::synced(&TEN);
    let held = Sync::open(&lab.root("a"), &lab.root("b"), Options::standard(), &Silent).unwrap();
    let ran = lab.sync(&[]);
    ran.code(3);
    assert!(ran.stderr().contains("process"), "{}", ran.stderr());
    drop(held);
    lab.assert_settled();
}
