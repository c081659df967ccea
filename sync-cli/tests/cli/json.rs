//! The JSON lines, as the contract has them.

use crate::pair::{Pair, driftless, lines, summary};
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

const SUMMARY: [&str; 12] = [
    "in_sync",
    "created",
    "updated",
    "deleted",
    "moved",
    "conflicts",
    "skipped",
    "failed",
    "bytes_sent",
    "bytes_received",
    "scan_ms",
    "total_ms",
];

fn items(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line["event"] == "item").collect()
}

#[test]
fn a_run_tells_its_plan_its_items_and_last_its_summary() {
    let pair = Pair::new();
    pair.write("a", "x", "1234");
    pair.write("b", "y", "12");
    let lines = lines(&pair.sync(&["--json"]).code(0));
    let plan = lines.iter().find(|line| line["event"] == "plan").unwrap();
    assert_eq!((&plan["items"], &plan["bytes"]), (&2.into(), &6.into()));
    let items = items(&lines);
    assert_eq!(items.len(), 2);
    for item in items {
        let direction = if item["path"] == "x" { "a-to-b" } else { "b-to-a" };
        assert_eq!(item["direction"], direction);
        assert_eq!((&item["kind"], &item["action"], &item["result"]), (&"file".into(), &"create".into(), &"done".into()));
    }
    let summary = lines.last().unwrap();
    for field in SUMMARY {
        assert!(!summary[field].is_null(), "{field}");
    }
    assert_eq!((&summary["bytes_sent"], &summary["bytes_received"]), (&0.into(), &0.into()));
    assert!(summary["error"].is_null());
}

#[test]
fn a_dry_run_calls_its_items_planned() {
    let pair = Pair::new();
    pair.write("a", "d/x", "1");
    for command in [&["sync", "--dry-run"][..], &["status"]] {
        let assert = driftless().args(command).arg("--json").args([pair.root("a"), pair.root("b")]).assert().code(1);
        let lines = lines(&assert);
        let items = items(&lines);
        assert_eq!(items.len(), 2);
        assert!(items.iter().all(|item| item["result"] == "planned"));
        assert_eq!((&lines.last().unwrap()["in_sync"], &lines.last().unwrap()["created"]), (&false.into(), &2.into()));
    }
}

#[test]
fn a_move_names_where_from() {
    let pair = Pair::synced(&["old", "other"]);
    pair.rename("a", "old", "new");
    let lines = lines(&pair.sync(&["--json"]).code(0));
    let moved = items(&lines).into_iter().find(|item| item["action"] == "move").unwrap();
    assert_eq!((&moved["path"], &moved["from"]), (&"new".into(), &"old".into()));
}

#[test]
fn a_path_that_is_not_utf8_comes_with_its_bytes() {
    let pair = Pair::new();
    pair.write("a", OsStr::from_bytes(b"caf\xe9"), "1");
    let lines = lines(&pair.sync(&["--json"]).code(0));
    let item = items(&lines)[0];
    assert_eq!((&item["path"], &item["path_bytes"]), (&"caf\u{fffd}".into(), &"Y2Fm6Q==".into()));
}

#[test]
fn a_run_that_a_guard_stopped_still_ends_with_a_summary() {
    let pair = Pair::synced(&["x", "y", "z"]);
    for file in ["x", "y", "z"] {
        pair.remove("a", file);
    }
    let summary = summary(&pair.sync(&["--json"]).code(3));
    assert_eq!(summary["in_sync"], false);
    assert!(summary["error"].as_str().unwrap().contains("delet"), "{summary}");
}

#[test]
fn a_missing_root_ends_with_a_summary_too() {
    let pair = Pair::new();
    let summary = summary(&pair.sync_roots("a", "missing", &["--json"]).code(3));
    assert!(summary["error"].as_str().unwrap().contains("missing"), "{summary}");
}
