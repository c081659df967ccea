//! What stops a run before anything is changed.

use crate::pair::{Pair, driftless, stderr, summary};
use std::fs;

const TEN: [&str; 10] = ["d/0", "d/1", "d/2", "d/3", "d/4", "d/5", "d/6", "d/7", "d/8", "d/9"];

/// Both roots are as they were, and the run ended with 3 and these words.
fn assert_stopped(pair: &Pair, args: &[&str], word: &str) {
    let before = (pair.tree("a"), pair.tree("b"));
    let text = stderr(&pair.sync(args).code(3));
    assert!(text.contains(word), "{text}");
    assert_eq!((pair.tree("a"), pair.tree("b")), before);
}

#[test]
fn an_emptied_root_does_not_empty_the_other() {
    let pair = Pair::synced(&TEN);
    pair.remove("a", "d");
    assert_stopped(&pair, &[], "--allow-delete");
    assert_stopped(&pair, &["--max-delete", "100%"], "--allow-delete");
    pair.sync(&["--allow-delete"]).code(0);
    assert_eq!(pair.names("b"), Vec::<String>::new());
}

#[test]
fn more_than_half_deleted_stops_the_run() {
    let pair = Pair::synced(&TEN);
    for file in &TEN[..8] {
        pair.remove("b", file);
    }
    assert_stopped(&pair, &[], "--allow-delete");
    pair.sync(&["--allow-delete"]).code(0);
    pair.assert_equal();
}

#[test]
fn the_limit_of_deletions_is_a_number_or_a_share() {
    let pair = Pair::synced(&TEN);
    for file in &TEN[..3] {
        pair.remove("a", file);
    }
    assert_stopped(&pair, &["--max-delete", "2"], "delet");
    assert_stopped(&pair, &["--max-delete", "10%"], "delet");
    pair.sync(&["--max-delete", "3"]).code(0);
    pair.assert_equal();
}

#[test]
fn a_renamed_folder_counts_as_moved_and_passes_the_guard() {
    let pair = Pair::synced(&TEN);
    pair.rename("a", "d", "renamed");
    let summary = summary(&pair.sync(&["--json"]).code(0));
    assert_eq!(summary["deleted"], 0, "{summary}");
    assert!(summary["moved"].as_u64().unwrap() >= 1, "{summary}");
    pair.assert_equal();
    assert_eq!(pair.read("b", "renamed/3").unwrap(), "d/3");
}

#[test]
fn a_missing_root_stops_the_run() {
    let pair = Pair::synced(&["x"]);
    fs::rename(pair.root("b"), pair.root("elsewhere")).unwrap();
    let text = stderr(&pair.sync(&[]).code(3));
    assert!(text.contains("driftless: ") && text.contains("/b"), "{text}");
    assert_eq!(pair.read("a", "x").unwrap(), "x");
    assert!(!pair.root("b").exists());
}

#[test]
fn an_empty_mount_point_in_place_of_a_root_stops_the_run() {
    let pair = Pair::synced(&["x", "y"]);
    fs::rename(pair.root("b"), pair.root("elsewhere")).unwrap();
    fs::create_dir(pair.root("b")).unwrap();
    assert_stopped(&pair, &[], "driftless: ");
    assert_stopped(&pair, &["--allow-delete"], "driftless: ");
}

#[test]
fn a_root_that_lost_its_state_joins_again_only_if_told_to() {
    let pair = Pair::synced(&["x", "y"]);
    fs::remove_dir_all(pair.at("b", ".driftless")).unwrap();
    assert_stopped(&pair, &[], "--rejoin");
    pair.sync(&["--rejoin"]).code(0);
    pair.assert_equal();
}

#[test]
fn a_root_and_itself_or_a_folder_in_it_are_no_pair() {
    let pair = Pair::new();
    fs::create_dir(pair.at("a", "inside")).unwrap();
    for (first, second) in [("a", "a"), ("a", "a/inside"), ("a/inside", "a")] {
        pair.sync_roots(first, second, &[]).code(3);
    }
}

#[test]
fn a_file_is_no_root() {
    let pair = Pair::new();
    fs::write(pair.root("file"), "x").unwrap();
    pair.sync_roots("a", "file", &[]).code(3);
}

#[test]
fn a_root_that_was_never_synchronised_has_no_conflicts_to_list() {
    let pair = Pair::new();
    for command in ["conflicts", "versions"] {
        let text = stderr(&driftless().arg(command).arg(pair.root("a")).assert().code(3));
        assert!(text.contains("driftless: "), "{text}");
    }
    assert!(!pair.at("a", ".driftless").exists());
}
