//! What becomes of paths that both sides changed.

use crate::lab::Lab;

/// Both sides changed `x` and `d/y`; b's versions are newer.
fn in_conflict() -> Lab {
    let lab = Lab::synced(&["x", "d/y", "other"]);
    for path in ["x", "d/y"] {
        lab.write_at("a", path, "from a", 1);
        lab.write_at("b", path, "from b!", 2);
    }
    lab
}

#[test]
fn skip_leaves_both_versions_at_every_run() {
    let lab = in_conflict();
    for _ in 0..4 {
        let ran = lab.sync(&[]);
        ran.code(1).changed_nothing();
        assert_eq!(ran.count("conflicts"), 2, "{}", ran.stdout());
        assert_eq!((lab.read("a", "x").unwrap(), lab.read("b", "x").unwrap()), ("from a".into(), "from b!".into()));
    }
    lab.write("a", "new", "1");
    assert_eq!(lab.sync(&[]).code(1).count("created"), 1);
    lab.remove("b", "other");
    assert_eq!(lab.sync(&[]).code(1).count("deleted"), 1);
    lab.assert_quiet("a", "b", 1, &[]);
    lab.assert_quiet("b", "a", 1, &[]);
}

#[test]
fn every_policy_does_what_its_name_says_and_is_done() {
    for (policy, winner, loser, losing) in [
        ("newer", "from b!", "from a", "a"),
        ("older", "from a", "from b!", "b"),
        ("a", "from a", "from b!", "b"),
        ("b", "from b!", "from a", "a"),
    ] {
        for skipped_before in [false, true] {
            let lab = in_conflict();
            if skipped_before {
                lab.sync(&[]).code(1);
            }
            let ran = lab.sync(&["--conflicts", policy]);
            let counts = ["conflicts", "updated", "skipped"].map(|field| ran.code(0).count(field));
            assert_eq!(counts, [2, 2, 0], "{policy}: {}", ran.stdout());
            lab.assert_settled();
            for path in ["x", "d/y"] {
                assert_eq!(lab.read("a", path).unwrap(), winner, "{policy}");
            }
            assert!(lab.keeps(losing, loser.as_bytes()), "{policy}: the loser is lost");
            assert_eq!(lab.names("a").len(), 4, "{policy}");
        }
    }
}

#[test]
fn keep_both_leaves_both_and_is_done() {
    for skipped_before in [false, true] {
        let lab = in_conflict();
        if skipped_before {
            lab.sync(&[]).code(1);
        }
        lab.sync(&["--conflicts", "keep-both"]).code(0);
        lab.assert_settled();
        assert_eq!(lab.names("a").len(), 6, "{:?}", lab.names("a"));
        let mut texts: Vec<_> =
            lab.names("b").iter().filter(|name| name.contains('x')).map(|name| lab.read("b", name).unwrap()).collect();
        texts.sort();
        assert_eq!(texts, ["from a", "from b!"]);
    }
}

#[test]
fn a_conflict_ends_when_both_sides_become_equal() {
    let lab = in_conflict();
    lab.sync(&[]).code(1);
    for path in ["x", "d/y"] {
        lab.write_at("a", path, "settled by hand", 50);
        lab.write_at("b", path, "settled by hand", 50);
    }
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
}

#[test]
fn a_conflict_ends_when_one_side_is_deleted() {
    let lab = in_conflict();
    lab.sync(&[]).code(1);
    lab.remove("a", "x");
    lab.remove("b", "d/y");
    lab.sync(&[]).code(0);
    lab.assert_settled();
    assert_eq!((lab.read("a", "x").unwrap(), lab.read("b", "d/y").unwrap()), ("from b!".into(), "from a".into()));
}

#[test]
fn a_conflict_left_open_stays_one_after_further_edits_of_one_side() {
    let lab = in_conflict();
    lab.sync(&[]).code(1);
    lab.write_at("a", "x", "from a, again", 9);
    assert_eq!(lab.sync(&[]).code(1).count("conflicts"), 2);
    assert_eq!(lab.read("b", "x").unwrap(), "from b!");
    lab.sync(&["--conflicts", "newer"]).code(0);
    lab.assert_settled();
    assert_eq!(lab.read("b", "x").unwrap(), "from a, again");
}

#[test]
fn edits_after_a_decided_conflict_are_ordinary() {
    for policy in ["keep-both", "newer", "older", "a", "b"] {
        let lab = in_conflict();
        lab.sync(&["--conflicts", policy]).code(0);
        for (root, text) in [("a", "once more"), ("b", "and once more")] {
            lab.write(root, "x", text);
            lab.sync(&[]).code(0).without_conflicts();
            lab.assert_equal();
        }
        lab.assert_settled();
    }
}
