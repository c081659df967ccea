//! Kept versions and their return.

use crate::pair::{Pair, lines, stderr, stdout};
use std::fs;

/// `x` was edited twice and `d` deleted on a; both roots are in sync, and b keeps what was displaced.
fn with_history() -> Pair {
    let pair = Pair::synced(&["x", "d/y", "1", "2", "3", "4"]);
    for text in ["second", "third"] {
        pair.write("b", "x", text);
        pair.sync(&[]).code(0);
    }
    pair.remove("b", "d");
    pair.sync(&[]).code(0);
    pair
}

#[test]
fn replaced_and_deleted_versions_are_listed_newest_first() {
    let pair = with_history();
    let lines = lines(&pair.on_a("versions", &["x", "--json"]).code(0));
    let sizes: Vec<_> = lines.iter().filter(|line| line["event"] == "version").map(|line| line["size"].clone()).collect();
    assert_eq!(sizes, [6, 1]);
    assert_eq!((&lines[0]["kind"], &lines[0]["reason"]), (&"file".into(), &"replaced".into()));
    assert!(stdout(&pair.on_a("versions", &[]).code(0)).contains("deleted"));
    assert_eq!(stdout(&pair.on_a("versions", &["1"]).code(0)), "no kept versions\n");
}

#[test]
fn the_newest_version_comes_back_and_what_stood_there_is_kept() {
    let pair = with_history();
    assert!(stdout(&pair.on_a("restore", &["x"]).code(0)).contains("restored x"));
    assert_eq!(pair.read("a", "x").unwrap(), "second");
    let kept = lines(&pair.on_a("versions", &["x", "--json"]).code(0));
    assert!(kept.iter().any(|line| line["size"] == 5), "the third one is kept: {kept:?}");
    pair.sync(&[]).code(0);
    assert_eq!(pair.read("b", "x").unwrap(), "second");
}

#[test]
fn a_version_comes_back_by_its_number() {
    let pair = with_history();
    let lines = lines(&pair.on_a("versions", &["x", "--json"]).code(0));
    let first = lines.iter().find(|line| line["size"] == 1).unwrap()["id"].to_string();
    pair.on_a("restore", &["x", "--version", &first]).code(0);
    assert_eq!(pair.read("a", "x").unwrap(), "x");
}

#[test]
fn a_deleted_folder_comes_back_with_what_was_in_it() {
    let pair = with_history();
    pair.on_a("restore", &["d"]).code(0);
    assert_eq!(pair.read("a", "d/y").unwrap(), "d/y");
    pair.sync(&[]).code(0);
    assert_eq!(pair.read("b", "d/y").unwrap(), "d/y");
}

#[test]
fn what_was_never_displaced_cannot_come_back() {
    let pair = with_history();
    assert!(!stderr(&pair.on_a("restore", &["1"]).code(3)).is_empty());
    assert!(!stderr(&pair.on_a("restore", &["x", "--version", "99999"]).code(3)).is_empty());
    assert_eq!(pair.read("a", "x").unwrap(), "third");
}

#[test]
fn without_retention_no_version_is_kept() {
    let pair = Pair::new();
    pair.write("a", "x", "1");
    pair.sync(&["--keep-versions", "off"]).code(0);
    pair.write("a", "x", "22");
    pair.sync(&["--keep-versions", "off"]).code(0);
    let assert = crate::pair::driftless().arg("versions").arg(pair.root("b")).assert().code(0);
    assert_eq!(stdout(&assert), "no kept versions\n");
    assert_eq!(fs::read_to_string(pair.at("b", "x")).unwrap(), "22");
}
