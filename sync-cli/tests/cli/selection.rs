//! Which paths a run is about: `--path`, `--ignore`, `.driftlessignore`, and where the state is.

use crate::pair::{Pair, driftless, stdout};
use std::fs;

#[test]
fn a_path_limits_the_run_to_what_is_below_it() {
    let pair = Pair::new();
    for path in ["in/x", "in/deep/y", "inside", "out/z"] {
        pair.write("a", path, path);
    }
    pair.sync(&["--path", "./in/"]).code(0);
    assert_eq!(pair.names("b"), ["in", "in/deep", "in/deep/y", "in/x"]);
    pair.sync(&["--path", "out", "--path", "inside"]).code(0);
    pair.assert_equal();
}

#[test]
fn a_limited_run_deletes_nothing_elsewhere() {
    let pair = Pair::synced(&["in/x", "in/y", "out/z"]);
    pair.remove("a", "in/x");
    pair.remove("a", "out/z");
    pair.sync(&["--path", "in"]).code(0);
    assert_eq!((pair.read("b", "in/x"), pair.read("b", "out/z").as_deref()), (None, Some("out/z")));
    pair.sync(&[]).code(0);
    pair.assert_equal();
}

#[test]
fn ignored_paths_stay_where_they_are() {
    let pair = Pair::new();
    for path in ["x.txt", "x.tmp", "d/y.tmp", "cache/z"] {
        pair.write("a", path, path);
    }
    pair.sync(&["--ignore", "*.tmp", "--ignore", "/cache/"]).code(0);
    assert_eq!(pair.names("b"), ["d", "x.txt"]);
    assert_eq!(pair.read("a", "x.tmp").unwrap(), "x.tmp");
}

#[test]
fn the_ignore_file_of_a_root_counts_and_travels() {
    let pair = Pair::new();
    pair.write("a", ".driftlessignore", "*.tmp\n!keep.tmp\n");
    for path in ["x.tmp", "keep.tmp", "y"] {
        pair.write("a", path, path);
    }
    pair.sync(&[]).code(0);
    assert_eq!(pair.names("b"), [".driftlessignore", "keep.tmp", "y"]);
}

#[test]
fn a_path_that_becomes_ignored_is_not_deleted_anywhere() {
    let pair = Pair::synced(&["x.tmp", "y"]);
    pair.remove("a", "x.tmp");
    pair.sync(&["--ignore", "*.tmp"]);
    assert_eq!(pair.read("b", "x.tmp").unwrap(), "x.tmp");
}

#[test]
fn the_state_can_be_kept_outside_of_the_roots() {
    let pair = Pair::new();
    pair.write("a", "x", "1");
    let states = pair.root("states");
    fs::create_dir(&states).unwrap();
    let state = ["--state-dir", states.to_str().unwrap()];
    pair.sync(&state).code(0);
    assert_eq!(pair.read("b", "x").unwrap(), "1");
    pair.remove("b", "x");
    pair.write("b", "y", "2");
    pair.sync(&[&state[..], &["--allow-delete"]].concat()).code(0);
    pair.assert_equal();
    assert!(fs::read_dir(&states).unwrap().next().is_some());
    pair.on_a("conflicts", &state).code(0);
}

#[test]
fn reading_everything_again_finds_nothing_new() {
    let pair = Pair::synced(&["x", "d/y"]);
    let text = stdout(&pair.sync(&["--checksum"]).code(0));
    assert!(text.contains("in sync: nothing to do"), "{text}");
}

#[test]
fn status_honours_the_selection() {
    let pair = Pair::new();
    pair.write("a", "in/x", "1");
    pair.write("a", "out", "1");
    let assert = driftless().args(["status", "--path", "in"]).args([pair.root("a"), pair.root("b")]).assert().code(1);
    assert!(stdout(&assert).contains("in/x") && !stdout(&assert).contains("  out"));
}
