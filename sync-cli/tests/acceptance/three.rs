//! Three roots, synchronised pairwise in any order.

use crate::lab::{Lab, setting};
use crate::link::is_local;
use fixtures::bytes::Stream;
use std::collections::BTreeMap;
use std::fs;

const ROOTS: [&str; 3] = ["a", "b", "c"];

fn three() -> Lab {
    let lab = Lab::new();
    fs::create_dir(lab.root("c")).unwrap();
    lab
}

fn pair(random: &mut Stream) -> (&'static str, &'static str) {
    let first = random.below(3) as usize;
    let second = (first + 1 + random.below(2) as usize) % 3;
    (ROOTS[first], ROOTS[second])
}

/// Some edits of files that only this root writes, in folders that all use.
fn edit(lab: &Lab, root: &str, random: &mut Stream, expected: &mut BTreeMap<String, String>) {
    for _ in 0..random.below(6) {
        let mine = |random: &mut Stream| format!("d{}/e{}/{root}{}", random.below(3), random.below(3), random.below(8));
        let path = mine(random);
        match random.below(5) {
            0 | 1 if expected.contains_key(&path) => {
                lab.remove(root, &path);
                expected.remove(&path);
            }
            2 if expected.contains_key(&path) => {
                let to = mine(random);
                fs::create_dir_all(lab.at(root, &to).parent().unwrap()).unwrap();
                lab.rename(root, &path, &to);
                let text = expected.remove(&path).unwrap();
                expected.insert(to, text);
            }
            _ => {
                let text = format!("{}", random.word());
                lab.write(root, &path, &text);
                expected.insert(path, text);
            }
        }
    }
}

/// Two rounds of all pairs; afterwards all are equal and a third round does nothing.
fn settle(lab: &Lab) {
    for _ in 0..2 {
        for (first, second) in [("a", "b"), ("b", "c"), ("c", "a")] {
            lab.sync_roots(first, second, &["--allow-delete"]).code(0).without_conflicts();
        }
    }
    for (first, second) in [("a", "b"), ("b", "c"), ("c", "a")] {
        lab.assert_quiet(first, second, 0, &[]);
    }
    lab.assert_equal();
    crate::lab::assert_same(&lab.root("b"), &lab.root("c"));
}

#[test]
fn random_edits_and_meetings_make_no_false_conflict_and_end_equal() {
    for seed in 1..=3 {
        let lab = three();
        let mut random = Stream::new(seed);
        let mut expected = BTreeMap::new();
        for round in 0..setting("DRIFTLESS_TEST_ROUNDS", 30) {
            for root in ROOTS {
                edit(&lab, root, &mut random, &mut expected);
            }
            for _ in 0..=random.below(2) {
                let (first, second) = pair(&mut random);
                let ran = lab.sync_roots(first, second, &["--allow-delete"]);
                assert_eq!(ran.0.status.code(), Some(0), "seed {seed}, round {round}: {}{}", ran.stdout(), ran.stderr());
                ran.without_conflicts();
            }
        }
        settle(&lab);
        let files: BTreeMap<String, String> = lab
            .names("a")
            .into_iter()
            .filter(|name| lab.at("a", name).is_file())
            .map(|name| (name.clone(), lab.read("a", &name).unwrap()))
            .collect();
        assert_eq!(files, expected, "seed {seed}");
    }
}

#[test]
fn one_file_edited_in_turns_by_three_never_conflicts() {
    let lab = three();
    let mut random = Stream::new(5);
    lab.write("a", "x", "0");
    settle(&lab);
    let mut holder = "a";
    for round in 1..setting("DRIFTLESS_TEST_ROUNDS", 30) {
        lab.write(holder, "x", format!("{round}"));
        lab.write(holder, format!("by {holder}"), format!("{round}"));
        let next = ROOTS[random.below(3) as usize];
        if next != holder {
            lab.sync_roots(holder, next, &[]).code(0).without_conflicts();
            assert_eq!(lab.read(next, "x").unwrap(), format!("{round}"));
        }
        holder = next;
    }
    settle(&lab);
}

#[test]
fn a_file_deleted_while_the_third_was_away_stays_deleted() {
    let lab = three();
    for at in 0..8 {
        lab.write("a", format!("d/{at}"), "1");
        lab.write("a", format!("gone/{at}"), "1");
    }
    settle(&lab);
    lab.remove("a", "d/3");
    lab.remove("b", "gone");
    lab.sync(&["--allow-delete"]).code(0);
    lab.sync(&[]).code(0);
    lab.write("c", "new on c", "1");
    lab.sync_roots("c", "b", &["--allow-delete"]).code(0).without_conflicts();
    assert!(!lab.at("c", "d/3").exists() && !lab.at("c", "gone").exists());
    settle(&lab);
    assert!(!lab.at("a", "d/3").exists() && !lab.at("a", "gone").exists());
}

#[test]
fn a_conflict_decided_between_two_is_decided_for_the_third() {
    for policy in ["keep-both", "newer", "a"] {
        let lab = three();
        lab.write("a", "x", "0");
        settle(&lab);
        lab.write("a", "x", "from a");
        lab.write("b", "x", "from b!");
        lab.sync(&["--conflicts", policy]).code(0);
        lab.sync_roots("c", "a", &[]).code(0).without_conflicts();
        lab.sync_roots("b", "c", &[]).code(0).without_conflicts();
        settle(&lab);
    }
}

#[test]
fn the_same_conflict_decided_by_two_pairs_alike_makes_no_further_copies() {
    let lab = three();
    lab.write("a", "x", "0");
    settle(&lab);
    lab.write_at("a", "x", "from a", 5);
    lab.write_at("b", "x", "from b!", 9);
    lab.sync_roots("b", "c", &[]).code(0).without_conflicts();
    lab.sync_roots("a", "c", &["--conflicts", "keep-both"]).code(0);
    lab.sync_roots("a", "b", &["--conflicts", "keep-both"]).code(0);
    settle(&lab);
    assert_eq!(lab.names("a").len(), 2, "{:?}", lab.names("a"));
}

#[test]
fn a_lost_state_stops_the_run_and_rejoining_loses_nothing() {
    if !is_local("a root that was reached from two machines is not known by its place where its state is lost") {
        return;
    }
    for lost in ROOTS {
        let lab = three();
        for at in 0..6 {
            lab.write("a", format!("d/{at}"), format!("{at}"));
        }
        settle(&lab);
        for root in ROOTS {
            lab.write(root, format!("new on {root}"), root);
        }
        fs::remove_dir_all(lab.at(lost, ".driftless")).unwrap();
        let others: Vec<_> = ROOTS.into_iter().filter(|root| *root != lost).collect();
        for other in &others {
            let ran = lab.sync_roots(lost, other, &[]);
            ran.code(3);
            assert!(ran.stderr().contains("--rejoin"), "{}", ran.stderr());
            assert!(!lab.at(lost, ".driftless").exists());
            assert!(lab.read(other, format!("new on {lost}")).is_none());
        }
        lab.sync_roots(lost, others[0], &["--rejoin"]).code(0).without_conflicts();
        settle(&lab);
        for root in ROOTS {
            assert_eq!(lab.read("b", format!("new on {root}")).unwrap(), root);
        }
        assert_eq!(lab.names("a").len(), 10);
    }
}
