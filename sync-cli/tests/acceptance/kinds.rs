//! Files, folders and links that become one another in one step.

use crate::lab::Lab;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    Link,
}

const KINDS: [Kind; 3] = [Kind::File, Kind::Folder, Kind::Link];

fn make(lab: &Lab, root: &str, path: &str, kind: Kind, text: &str) {
    match kind {
        Kind::File => lab.write(root, path, text),
        Kind::Folder => {
            lab.write(root, format!("{path}/inside"), text);
            lab.write(root, format!("{path}/deep/er"), text);
        }
        Kind::Link => lab.link(root, path, text),
    }
}

fn is(lab: &Lab, root: &str, path: &str, kind: Kind, text: &str) -> bool {
    let Ok(meta) = fs::symlink_metadata(lab.at(root, path)) else { return false };
    match kind {
        Kind::File => meta.is_file() && lab.read(root, path).unwrap() == text,
        Kind::Folder => meta.is_dir() && lab.read(root, format!("{path}/inside")).is_some_and(|held| held == text),
        Kind::Link => meta.is_symlink() && fs::read_link(lab.at(root, path)).unwrap().as_os_str() == text,
    }
}

fn pairs() -> impl Iterator<Item = (Kind, Kind)> {
    KINDS.into_iter().flat_map(|from| KINDS.into_iter().filter(move |to| *to != from).map(move |to| (from, to)))
}

#[test]
fn every_kind_becomes_every_other_from_either_side() {
    // 27
    for root in ["a", "b"] {
        for (from, to) in pairs() {
            let lab = Lab::synced(&["r/1", "r/2", "r/3", "r/4"]);
            make(&lab, "a", "x", from, "old");
            make(&lab, "a", "d/x", from, "old");
            lab.sync(&[]).code(0);
            for path in ["x", "d/x"] {
                lab.remove(root, path);
                make(&lab, root, path, to, "new");
            }
            lab.sync(&[]).code(0).without_conflicts();
            for at in ["a", "b"] {
                assert!(is(&lab, at, "x", to, "new") && is(&lab, at, "d/x", to, "new"), "{root}: {from:?} to {to:?} at {at}");
            }
            lab.assert_settled();
        }
    }
}

#[test]
fn two_different_kinds_are_a_conflict_that_every_policy_decides() {
    // 3, 31
    for policy in ["skip", "keep-both", "newer", "older", "a", "b"] {
        for (here, there) in pairs() {
            let lab = Lab::synced(&["r/1", "r/2", "r/3", "r/4"]);
            make(&lab, "a", "x", here, "from a");
            make(&lab, "b", "x", there, "from b");
            let context = format!("{policy}: {here:?} and {there:?}");
            let ran = lab.sync(&["--conflicts", policy]);
            if policy == "skip" {
                assert!(ran.code(1).count("conflicts") > 0, "{context}");
                assert!(is(&lab, "a", "x", here, "from a") && is(&lab, "b", "x", there, "from b"), "{context}");
                lab.assert_quiet("a", "b", 1, &[]);
                continue;
            }
            assert_eq!(ran.0.status.code(), Some(0), "{context}: {}{}", ran.stdout(), ran.stderr());
            lab.assert_settled();
            // A folder with something in it that was never seen survives; the other is beside it or kept.
            for (root, kind, text) in [("a", here, "from a"), ("b", there, "from b")] {
                let survives = lab.names("b").iter().any(|name| is(&lab, "b", name, kind, text));
                let kept = kind == Kind::File && lab.keeps(root, text.as_bytes());
                assert!(survives || kept || kind == Kind::Link, "{context}: {text} is lost: {:?}", lab.names("b"));
            }
        }
    }
}

#[test]
fn a_change_of_kind_here_and_an_edit_there_lose_nothing() {
    for (from, to) in pairs().filter(|(from, _)| *from != Kind::Link) {
        let lab = Lab::synced(&["r/1", "r/2", "r/3", "r/4"]);
        make(&lab, "a", "x", from, "old");
        lab.sync(&[]).code(0);
        lab.remove("a", "x");
        make(&lab, "a", "x", to, "from a");
        lab.write("b", if from == Kind::File { "x" } else { "x/inside" }, "edited on b");
        let context = format!("{from:?} to {to:?}");
        lab.sync(&[]).code(1);
        let edited = if from == Kind::File { "x" } else { "x/inside" };
        assert_eq!(lab.read("b", edited).as_deref(), Some("edited on b"), "{context}");
        assert!(is(&lab, "a", "x", to, "from a"), "{context}");
        lab.sync(&["--conflicts", "keep-both"]).code(0);
        lab.assert_settled();
        let texts: Vec<_> = lab.names("a").iter().filter_map(|name| lab.read("a", name)).collect();
        assert!(texts.contains(&"edited on b".to_owned()), "{context}: {:?}", lab.names("a"));
    }
}

#[test]
fn a_link_retargeted_on_both_sides_is_a_conflict() {
    // 11, 13, 41
    let lab = Lab::synced(&["r/1"]);
    lab.link("a", "l", "nowhere at all");
    lab.link("a", "abs", "/etc/hostname");
    lab.sync(&[]).code(0);
    lab.assert_settled();
    for (root, target) in [("a", "r/1"), ("b", "r/2")] {
        lab.remove(root, "l");
        lab.link(root, "l", target);
    }
    lab.sync(&[]).code(1);
    lab.sync(&["--conflicts", "a"]).code(0);
    lab.assert_settled();
    assert_eq!(fs::read_link(lab.at("b", "l")).unwrap().as_os_str(), "r/1");
}

#[test]
fn a_time_that_cannot_be_kept_exactly_is_a_problem_and_no_other_time() {
    let lab = Lab::synced(&["x", "y", "k/1"]);
    lab.write("a", "new", "1");
    for path in ["x", "new"] {
        let touched = std::process::Command::new("touch").args(["-d", "2300-01-01 00:00:00"]).arg(lab.at("a", path)).status();
        assert!(touched.unwrap().success());
    }
    let year = |path: &str| fs::metadata(lab.at("a", path)).unwrap().mtime() / 31_556_952 + 1970;
    if year("x") != 2300 {
        eprintln!("SKIPPED: the file system here cannot keep the year 2300");
        return;
    }
    lab.write("a", "y", "edited");
    for _ in 0..2 {
        let ran = lab.sync(&[]);
        ran.code(2);
        assert!(ran.stdout().contains("1678 to 2262"), "{}", ran.stdout());
        assert_eq!((lab.read("b", "x").unwrap(), lab.read("b", "y").unwrap()), ("x".into(), "edited".into()));
        assert!(!lab.at("b", "new").exists());
    }
    for path in ["x", "new"] {
        lab.touch("a", path, 5);
    }
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
}
