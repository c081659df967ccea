//! What a sync does to two and three roots.

use crate::pair::{Pair, driftless, stdout, summary};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

#[test]
fn the_first_sync_brings_what_each_side_has_to_the_other() {
    let pair = Pair::new();
    pair.write("a", "from a/x", "1");
    pair.write("b", "from b/y", "2");
    fs::create_dir(pair.at("b", "empty")).unwrap();
    symlink("from a/x", pair.at("a", "link")).unwrap();
    let summary = summary(&pair.sync(&["--json"]).code(0));
    assert_eq!((&summary["in_sync"], &summary["created"]), (&true.into(), &6.into()));
    pair.assert_equal();
    assert_eq!(pair.read("b", "from a/x").unwrap(), "1");
    assert_eq!(pair.read("a", "from b/y").unwrap(), "2");
}

#[test]
fn equal_files_on_both_sides_merge_without_a_conflict() {
    let pair = Pair::new();
    for root in ["a", "b"] {
        pair.write_at(root, "same", "text", 5);
    }
    let summary = summary(&pair.sync(&["--json"]).code(0));
    assert_eq!((&summary["conflicts"], &summary["updated"]), (&0.into(), &0.into()));
}

#[test]
fn a_second_sync_does_nothing_and_says_so() {
    let pair = Pair::synced(&["x", "d/y"]);
    let text = stdout(&pair.sync(&[]).code(0));
    assert!(text.contains("in sync: nothing to do"), "{text}");
    let summary = summary(&pair.sync(&["--json"]).code(0));
    for field in ["created", "updated", "deleted", "moved", "conflicts", "skipped", "failed"] {
        assert_eq!(summary[field], 0, "{field}");
    }
}

#[test]
fn edits_travel_both_ways_in_one_run() {
    let pair = Pair::synced(&["x", "y", "d/z"]);
    pair.write("a", "x", "edited on a");
    pair.write("b", "d/z", "edited on b");
    let summary = summary(&pair.sync(&["--json"]).code(0));
    assert_eq!(summary["updated"], 2);
    assert_eq!(pair.read("b", "x").unwrap(), "edited on a");
    assert_eq!(pair.read("a", "d/z").unwrap(), "edited on b");
}

#[test]
fn an_edit_of_equal_size_right_after_a_sync_is_not_missed() {
    let pair = Pair::synced(&["x"]);
    for text in ["1", "2", "3"] {
        pair.write("a", "x", text);
        pair.sync(&[]).code(0);
        assert_eq!(pair.read("b", "x").unwrap(), text);
    }
}

#[test]
fn deletions_travel_and_do_not_come_back() {
    let pair = Pair::synced(&["x", "y", "d/z", "d/e/w", "keep1", "keep2", "keep3", "keep4"]);
    pair.remove("a", "x");
    pair.remove("b", "d/e");
    pair.sync(&[]).code(0);
    pair.assert_equal();
    assert_eq!((pair.read("b", "x"), pair.read("a", "d/e/w")), (None, None));
    pair.sync(&[]).code(0);
    assert!(!pair.names("a").contains(&"x".to_owned()));
}

#[test]
fn permissions_and_times_travel_unless_they_are_left_alone() {
    let pair = Pair::synced(&["x", "y"]);
    let mode = |root: &str, path: &str| fs::metadata(pair.at(root, path)).unwrap().permissions().mode() & 0o777;
    fs::set_permissions(pair.at("a", "x"), fs::Permissions::from_mode(0o750)).unwrap();
    pair.sync(&[]).code(0);
    assert_eq!(mode("b", "x"), 0o750);
    pair.write_at("a", "y", "y", 1000);
    pair.sync(&[]).code(0);
    let time = |root: &str| fs::metadata(pair.at(root, "y")).unwrap().modified().unwrap();
    assert_eq!(time("a"), time("b"));
}

#[test]
fn a_file_that_becomes_a_folder_is_replaced() {
    let pair = Pair::synced(&["x", "y", "z"]);
    pair.remove("a", "x");
    pair.write("a", "x/inside", "new");
    pair.sync(&[]).code(0);
    pair.assert_equal();
    assert_eq!(pair.read("b", "x/inside").unwrap(), "new");
}

#[test]
fn weird_names_arrive_and_are_printed_safely() {
    let pair = Pair::new();
    let names: [&[u8]; 7] = [b"caf\xe9", b"new\nline", b"\x1b[2J", b"-rf", b" ", "\u{202e}gpj.exe".as_bytes(), b"*?[a]"];
    for name in names {
        pair.write("a", OsStr::from_bytes(name), "text");
    }
    let assert = pair.sync(&["-v"]).code(0);
    for name in names {
        assert_eq!(pair.read("b", OsStr::from_bytes(name)).as_deref(), Some("text"), "{name:?}");
    }
    let text = stdout(&assert);
    assert!(text.contains("caf\\xe9") && text.contains("new\\u{a}line"), "{text}");
    assert!(!text.contains('\x1b') && !text.contains('\u{202e}'), "{text}");
}

#[test]
fn verbose_prints_each_item_and_batch_alone_only_the_summary() {
    let pair = Pair::new();
    pair.write("a", "one", "1");
    assert!(stdout(&pair.sync(&["-v"]).code(0)).contains("A → B  create    one"));
    pair.write("b", "two", "2");
    let text = stdout(&pair.sync(&[]).code(0));
    assert!(text.contains("B → A: 1 created") && !text.contains("two"), "{text}");
}

#[test]
fn a_dry_run_lists_everything_and_changes_nothing() {
    let pair = Pair::new();
    pair.write("a", "new/x", "1");
    pair.write("b", "y", "2");
    let before = (pair.tree("a"), pair.tree("b"));
    for command in [&["sync", "--dry-run"][..], &["sync", "-n", "--batch"], &["status"]] {
        let assert = driftless().args(command).args([pair.root("a"), pair.root("b")]).assert().code(1);
        let text = stdout(&assert);
        assert!(text.contains("create    new/x") && text.contains("create    y"), "{text}");
        assert!(text.contains("A → B: 2 to create; B → A: 1 to create"), "{text}");
    }
    assert_eq!((pair.tree("a"), pair.tree("b")), before);
    assert!(!pair.at("a", ".driftless").exists() && !pair.at("b", ".driftless").exists());
}

#[test]
fn status_of_roots_in_sync_exits_with_0() {
    let pair = Pair::synced(&["x"]);
    let assert = driftless().arg("status").args([pair.root("a"), pair.root("b")]).assert().code(0);
    assert!(stdout(&assert).contains("in sync"));
}

#[test]
fn three_roots_in_a_ring_have_no_false_conflicts() {
    let pair = Pair::synced(&["x", "y"]);
    fs::create_dir(pair.root("c")).unwrap();
    pair.sync_roots("b", "c", &[]).code(0);
    pair.write("a", "x", "edited on a");
    pair.write("c", "y", "edited on c");
    for (first, second) in [("a", "b"), ("b", "c"), ("c", "a"), ("a", "b")] {
        let summary = summary(&pair.sync_roots(first, second, &["--json"]).code(0));
        assert_eq!(summary["conflicts"], 0, "{first} {second}");
    }
    assert_eq!(pair.tree("a"), pair.tree("b"));
    assert_eq!(pair.tree("b"), pair.tree("c"));
    assert_eq!(pair.read("b", "x").unwrap(), "edited on a");
    assert_eq!(pair.read("a", "y").unwrap(), "edited on c");
}

#[test]
fn a_deletion_is_not_undone_by_a_third_root() {
    let pair = Pair::synced(&["x", "y", "z"]);
    fs::create_dir(pair.root("c")).unwrap();
    pair.sync_roots("b", "c", &[]).code(0);
    pair.remove("a", "x");
    for (first, second) in [("a", "b"), ("c", "a"), ("b", "c"), ("a", "b")] {
        pair.sync_roots(first, second, &[]).code(0);
    }
    for root in ["a", "b", "c"] {
        assert_eq!(pair.read(root, "x"), None, "{root}");
    }
}

#[test]
fn a_folder_with_a_colon_in_its_name_is_a_root() {
    let pair = Pair::new();
    fs::create_dir(pair.root("c:d")).unwrap();
    pair.write("a", "x", "1");
    driftless().current_dir(pair.root(".")).args(["sync", "--batch", "a", "./c:d"]).assert().code(0);
    assert_eq!(pair.read("c:d", "x").unwrap(), "1");
}
