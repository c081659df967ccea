//! Paths that both sides changed: every policy, and deciding them afterwards.

use crate::pair::{Pair, driftless, lines, stderr, stdout, summary};
use assert_cmd::assert::Assert;
use serde_json::{Value, json};

/// Both sides changed `x`; b's version is newer.
fn in_conflict() -> Pair {
    let pair = Pair::synced(&["x", "other"]);
    pair.write_at("a", "x", "from a", 1);
    pair.write_at("b", "x", "from b!", 2);
    pair
}

#[test]
fn by_default_a_conflict_stays_as_it_is_on_both_sides() {
    let pair = in_conflict();
    pair.write("a", "new", "1");
    let assert = pair.sync(&[]).code(1);
    let text = stdout(&assert);
    assert!(text.contains("1 conflict left open") && text.contains("driftless conflicts"), "{text}");
    assert_eq!(pair.read("a", "x").unwrap(), "from a");
    assert_eq!(pair.read("b", "x").unwrap(), "from b!");
    assert_eq!(pair.read("b", "new").unwrap(), "1");
    pair.sync(&[]).code(1);
}

#[test]
fn an_open_conflict_counts_once() {
    let pair = in_conflict();
    let assert = pair.sync(&["--json"]).code(1);
    let summary = summary(&assert);
    assert_eq!((&summary["conflicts"], &summary["skipped"]), (&1.into(), &1.into()));
    let items: Vec<_> = lines(&assert).into_iter().filter(|line| line["path"] == "x").collect();
    assert_eq!(items.len(), 1, "{items:?}");
    assert_eq!((&items[0]["action"], &items[0]["result"]), (&"conflict".into(), &"skipped".into()));
    assert_eq!(items[0]["direction"], "none");
}

#[test]
fn a_policy_decides_who_wins_and_the_loser_is_kept() {
    for (policy, winner, loser) in
        [("newer", "from b!", "a"), ("older", "from a", "b"), ("a", "from a", "b"), ("b", "from b!", "a")]
    {
        let pair = in_conflict();
        let summary = summary(&pair.sync(&["--conflicts", policy, "--json"]).code(0));
        assert_eq!(summary["in_sync"], true, "{policy}");
        pair.assert_equal();
        assert_eq!(pair.read("a", "x").unwrap(), winner, "{policy}");
        let versions = driftless().arg("versions").arg(pair.root(loser)).assert().code(0);
        assert!(stdout(&versions).contains("  x  "), "{policy}: {}", stdout(&versions));
        pair.sync(&[]).code(0);
    }
}

fn items(assert: &Assert) -> Vec<Value> {
    lines(assert).into_iter().filter(|line| line["event"] == "item").collect()
}

/// The one item of a decided conflict: the write on the side that loses.
fn settled(direction: &str, result: &str) -> [Value; 1] {
    [json!({
        "event": "item", "path": "x", "kind": "file", "action": "update", "direction": direction, "result": result,
        "reason": "both sides changed it",
    })]
}

fn status(pair: &Pair, args: &[&str]) -> Assert {
    driftless().arg("status").args(args).args([pair.root("a"), pair.root("b")]).assert()
}

#[test]
fn a_decided_conflict_is_one_item_of_the_side_that_loses_and_counts_as_settled_whoever_wins() {
    for (policy, direction, arrow) in
        [("a", "a-to-b", "A → B"), ("b", "b-to-a", "B → A"), ("newer", "b-to-a", "B → A"), ("older", "a-to-b", "A → B")]
    {
        for open_before in [false, true] {
            let pair = in_conflict();
            if open_before {
                pair.sync(&[]).code(1);
            }
            let planned = status(&pair, &["--json", "--conflicts", policy]).code(1);
            assert_eq!(items(&planned), settled(direction, "planned"), "{policy}");
            let text = stdout(&status(&pair, &["--conflicts", policy]).code(1));
            assert!(
                text.contains(&format!("\n{arrow}: 1 to update; ")) && text.matches("[both sides").count() == 1,
                "{policy}: {text}"
            );
            let text = stdout(&pair.sync(&["--conflicts", policy, "-v"]).code(0));
            assert!(
                text.contains(&format!("\n{arrow}: 1 updated ")) && text.contains("\n1 conflict settled\n"),
                "{policy}: {text}"
            );
            assert!(
                text.starts_with(&format!("{arrow}  update    x  ")) && text.matches("  x  ").count() == 1,
                "{policy}: {text}"
            );
            let pair = in_conflict();
            let done = pair.sync(&["--json", "--conflicts", policy]).code(0);
            assert_eq!(items(&done), settled(direction, "done"), "{policy}");
            let plan = lines(&done).into_iter().find(|line| line["event"] == "plan").unwrap();
            assert_eq!(plan["items"], 1, "{policy}");
            for summary in [summary(&planned), summary(&done)] {
                let counts =
                    ["conflicts", "updated", "created", "skipped", "failed"].map(|field| summary[field].as_u64().unwrap());
                assert_eq!(counts, [1, 1, 0, 0, 0], "{policy}: {summary}");
            }
        }
    }
}

#[test]
fn a_conflict_that_was_decided_by_hand_is_told_in_the_same_way() {
    for (keep, direction) in [("local", "a-to-b"), ("remote", "b-to-a")] {
        let pair = in_conflict();
        pair.sync(&[]).code(1);
        pair.on_a("resolve", &["x", "--keep", keep]).code(0);
        let planned = status(&pair, &["--json"]).code(1);
        assert_eq!(items(&planned), settled(direction, "planned"), "{keep}");
        let done = pair.sync(&["--json"]).code(0);
        assert_eq!(items(&done), settled(direction, "done"), "{keep}");
        for summary in [summary(&planned), summary(&done)] {
            assert_eq!((&summary["conflicts"], &summary["skipped"]), (&1.into(), &0.into()), "{keep}: {summary}");
        }
    }
}

#[test]
fn a_mirror_run_settles_no_conflicts() {
    for (force, direction) in [("a", "a-to-b"), ("b", "b-to-a")] {
        let pair = in_conflict();
        pair.write("b", "other", "changed on this side only");
        for (assert, result) in [
            (status(&pair, &["--json", "--force", force]).code(1), "planned"),
            (pair.sync(&["--json", "--force", force]).code(0), "done"),
        ] {
            assert_eq!(summary(&assert)["conflicts"], 0, "{force}");
            let items = items(&assert);
            let is = |item: &Value| item["action"] == "update" && item["direction"] == direction && item["result"] == result;
            assert!(items.len() == 2 && items.iter().all(|item| is(item) && item["reason"].is_null()), "{items:?}");
        }
    }
}

#[test]
fn a_plan_that_keeps_both_says_what_the_run_does() {
    let pair = in_conflict();
    let text = stdout(&status(&pair, &["--conflicts", "keep-both"]).code(1));
    assert!(text.contains("\nA → B: 1 to create; B → A: 1 to create, 1 to update; "), "{text}");
    let text = stdout(&pair.sync(&["--conflicts", "keep-both"]).code(0));
    assert!(
        text.contains("A → B: 1 created; B → A: 1 created, 1 updated (") && text.contains("\n1 conflict settled\n"),
        "{text}"
    );
}

#[test]
fn keep_both_leaves_both_contents_on_both_sides() {
    let pair = in_conflict();
    pair.sync(&["--conflicts", "keep-both"]).code(0);
    pair.assert_equal();
    let mut contents: Vec<Vec<u8>> = pair.tree("a").into_values().collect();
    contents.sort();
    assert_eq!(contents, [b"from a".to_vec(), b"from b!".to_vec(), b"other".to_vec()]);
    assert!(pair.names("a").iter().any(|name| name.starts_with("x.conflict-")), "{:?}", pair.names("a"));
    pair.sync(&[]).code(0);
}

#[test]
fn force_mirrors_one_side() {
    let pair = in_conflict();
    pair.write("b", "only on b", "1");
    pair.sync(&["--force", "a", "--allow-delete"]).code(0);
    pair.assert_equal();
    assert_eq!(pair.names("b"), ["other", "x"]);
    assert_eq!(pair.read("b", "x").unwrap(), "from a");
}

#[test]
fn an_edit_survives_the_deletion_of_what_it_edited() {
    let pair = Pair::synced(&["x", "y"]);
    pair.remove("a", "x");
    pair.write("b", "x", "edited");
    pair.sync(&[]);
    pair.sync(&[]).code(0);
    assert_eq!(pair.read("a", "x").unwrap(), "edited");
}

#[test]
fn equal_edits_on_both_sides_are_no_conflict() {
    let pair = Pair::synced(&["x"]);
    pair.write_at("a", "x", "same", 9);
    pair.write_at("b", "x", "same", 9);
    let summary = summary(&pair.sync(&["--json"]).code(0));
    assert_eq!(summary["conflicts"], 0);
}

#[test]
fn open_conflicts_are_listed_with_both_versions() {
    let pair = in_conflict();
    pair.sync(&[]).code(1);
    let assert = pair.on_a("conflicts", &[]).code(0);
    let text = stdout(&assert);
    assert!(text.contains("x  (local: ") && text.contains("6 B") && text.contains("7 B"), "{text}");
    assert!(stderr(&assert).contains("driftless resolve"));
    let lines = lines(&pair.on_a("conflicts", &["--json"]).code(0));
    assert_eq!((&lines[0]["event"], &lines[0]["path"]), (&"conflict".into(), &"x".into()));
    assert_eq!((&lines[0]["local_size"], &lines[0]["remote_size"]), (&6.into(), &7.into()));
    assert_eq!(lines[0]["local_mtime"], "2020-01-01T00:00:01.000000000Z");
    assert_eq!(lines[1]["count"], 1);
}

#[test]
fn a_root_without_conflicts_says_so() {
    let pair = Pair::synced(&["x"]);
    assert_eq!(stdout(&pair.on_a("conflicts", &[]).code(0)), "no open conflicts\n");
}

#[test]
fn a_decision_is_carried_out_by_the_next_sync() {
    for (keep, winner) in [("local", "from a"), ("remote", "from b!"), ("newer", "from b!")] {
        let pair = in_conflict();
        pair.sync(&[]).code(1);
        assert!(stdout(&pair.on_a("resolve", &["x", "--keep", keep]).code(0)).contains("x  keep"));
        assert_eq!(pair.read("b", "x").unwrap(), "from b!", "nothing changes before the sync");
        pair.sync(&[]).code(0);
        pair.assert_equal();
        assert_eq!(pair.read("a", "x").unwrap(), winner, "{keep}");
        assert_eq!(stdout(&pair.on_a("conflicts", &[]).code(0)), "no open conflicts\n");
    }
}

#[test]
fn deciding_for_both_makes_a_conflict_copy() {
    let pair = in_conflict();
    pair.sync(&[]).code(1);
    pair.on_a("resolve", &[".", "--keep", "both"]).code(0);
    pair.sync(&[]).code(0);
    pair.assert_equal();
    assert_eq!(pair.names("a").len(), 3);
}

#[test]
fn a_decision_about_a_folder_covers_every_conflict_below_it() {
    let pair = Pair::synced(&["d/x", "d/e/y", "z"]);
    for path in ["d/x", "d/e/y", "z"] {
        pair.write_at("a", path, "from a", 1);
        pair.write_at("b", path, "from b!", 2);
    }
    pair.sync(&[]).code(1);
    let lines = lines(&pair.on_a("resolve", &["./d/", "--keep", "local", "--json"]).code(0));
    assert_eq!(lines.last().unwrap()["count"], 2);
    pair.sync(&[]).code(1);
    assert_eq!(pair.read("b", "d/e/y").unwrap(), "from a");
    assert_eq!(pair.read("b", "z").unwrap(), "from b!");
}

#[test]
fn deciding_where_there_is_no_conflict_fails() {
    let pair = in_conflict();
    pair.sync(&[]).code(1);
    let text = stderr(&pair.on_a("resolve", &["other", "--keep", "local"]).code(2));
    assert!(text.contains("no open conflict at or below other"), "{text}");
    let lines = lines(&pair.on_a("resolve", &["other", "--keep", "local", "--json"]).code(2));
    assert_eq!((&lines[0]["event"], &lines[0]["path"]), (&"problem".into(), &"other".into()));
}
