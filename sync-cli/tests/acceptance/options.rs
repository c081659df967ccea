//! Options that choose what is looked at and who wins.

use crate::lab::{Lab, run, snapshot, untouched};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const REST: [&str; 6] = ["r/1", "r/2", "r/3", "r/4", "r/5", "r/6"];

#[test]
fn only_the_named_paths_are_synchronised_and_the_rest_follows_later() {
    let lab = Lab::synced(&["2026/03/x", "2026/04/y", "gone/1", "r/1", "r/2", "r/3"]);
    lab.write("a", "2026/03/new", "1");
    lab.write("a", "2026/04/new", "1");
    lab.write("b", "2026/03/x", "edited");
    lab.write("b", "2026/04/y", "edited");
    lab.remove("a", "gone");
    lab.sync(&["--path", "2026/03"]).code(0);
    assert_eq!((lab.read("a", "2026/03/x").unwrap(), lab.read("b", "2026/03/new").unwrap()), ("edited".into(), "1".into()));
    assert_eq!((lab.read("a", "2026/04/y").unwrap(), lab.read("b", "2026/04/new")), ("2026/04/y".into(), None));
    assert!(lab.at("b", "gone/1").exists());
    lab.assert_quiet("a", "b", 0, &["--path", "2026/03"]);
    lab.sync(&["--path", "gone", "--path", "2026/04/y"]).code(0);
    assert!(!lab.at("b", "gone").exists());
    assert_eq!((lab.read("a", "2026/04/y").unwrap(), lab.read("b", "2026/04/new")), ("edited".into(), None));
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
}

#[test]
fn a_first_contact_path_by_path_ends_as_a_whole_one() {
    let lab = Lab::new();
    for path in ["x/1", "x/2", "y/1"] {
        lab.write("a", path, path);
    }
    lab.write("b", "z/1", "z/1");
    lab.sync(&["--path", "x"]).code(0);
    assert_eq!(lab.names("b"), ["x", "x/1", "x/2", "z", "z/1"]);
    lab.remove("b", "x/1");
    lab.sync(&["--path", "x/1"]).code(0);
    assert!(!lab.at("a", "x/1").exists());
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    assert!(!lab.at("a", "x/1").exists());
}

#[test]
fn ignored_paths_stay_where_they_are_and_are_no_deletions() {
    let lab = Lab::synced(&["x.tmp", "d/y.tmp", "d/z", "r/1", "r/2", "r/3"]);
    lab.remove("a", "x.tmp");
    lab.write("a", "d/y.tmp", "edited");
    lab.write("b", "d/new.tmp", "1");
    lab.write("b", "d/z", "edited");
    lab.sync(&["--ignore", "*.tmp"]).code(0);
    assert_eq!((lab.read("b", "x.tmp").unwrap(), lab.read("b", "d/y.tmp").unwrap()), ("x.tmp".into(), "d/y.tmp".into()));
    assert_eq!((lab.read("a", "d/z").unwrap(), lab.read("a", "d/new.tmp")), ("edited".into(), None));
    lab.assert_quiet("a", "b", 0, &["--ignore", "*.tmp"]);
    // Once the pattern is gone, what was done meanwhile is done.
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    assert_eq!((lab.read("b", "x.tmp"), lab.read("b", "d/y.tmp").unwrap()), (None, "edited".into()));
    assert_eq!(lab.read("a", "d/new.tmp").unwrap(), "1");
}

#[test]
fn a_deleted_folder_stays_for_the_ignored_files_in_it_and_is_in_sync() {
    let lab = Lab::synced(&["d/x", "d/e/y", "k/1", "k/2", "k/3", "k/4"]);
    lab.write("a", ".driftlessignore", "*.tmp\n");
    lab.sync(&[]).code(0);
    lab.write("b", "d/e/only here.tmp", "1");
    lab.remove("a", "d");
    let told = |text: &str| text.matches("stays for the ignored paths in it").count();
    let ran = lab.sync(&[]);
    ran.code(0).without_conflicts();
    assert_eq!((ran.count("deleted"), told(&ran.stderr())), (2, 1), "{}{}", ran.stdout(), ran.stderr());
    for _ in 0..3 {
        let ran = lab.sync(&[]);
        ran.code(0).without_conflicts().changed_nothing();
        assert!(told(&ran.stderr()) == 1 && !ran.stdout().contains("\"problem\""), "{}{}", ran.stdout(), ran.stderr());
        let mut status = crate::lab::driftless();
        run(status.args(["status", "--json"]).args([lab.root("a"), lab.root("b")])).code(0);
    }
    assert_eq!(lab.read("b", "d/e/only here.tmp").unwrap(), "1");
    assert!(!lab.at("a", "d").exists() && !lab.at("b", "d/x").exists());
    // What was ignored and goes leaves nothing but a new time of its folder, which counts as an edit of it.
    lab.remove("b", "d/e/only here.tmp");
    lab.sync(&[]).code(0).without_conflicts();
    lab.sync(&[]).code(0);
    lab.assert_settled();
}

#[test]
fn a_file_of_rules_may_come_and_go_and_deletes_nothing() {
    let lab = Lab::synced(&["x.log", "d/y.log", "d/z", "r/1", "r/2", "r/3"]);
    lab.write("a", ".driftlessignore", "*.log\n");
    lab.remove("a", "x.log");
    lab.write("b", "d/new.log", "1");
    lab.sync(&[]).code(0);
    assert_eq!(lab.read("b", ".driftlessignore").unwrap(), "*.log\n");
    assert_eq!(lab.read("b", "x.log").unwrap(), "x.log");
    assert!(lab.read("a", "d/new.log").is_none());
    lab.sync(&[]).code(0);
    lab.assert_quiet("a", "b", 0, &[]);
    lab.remove("a", ".driftlessignore");
    // What was ignored until this run is for the next.
    lab.sync(&[]).code(1);
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    // What was unknown meanwhile is not known to be deleted: it comes back.
    assert_eq!((lab.read("a", "x.log").unwrap(), lab.read("a", "d/new.log").unwrap()), ("x.log".into(), "1".into()));
}

#[test]
fn rules_that_differ_ignore_what_either_side_ignores() {
    let lab = Lab::synced(&["x.log", "y.tmp", "z", "r/1", "r/2"]);
    lab.write("a", ".driftlessignore", "*.log\n");
    lab.write("b", ".driftlessignore", "*.tmp\n");
    for path in ["x.log", "y.tmp", "z"] {
        lab.write("a", path, "edited on a");
    }
    lab.remove("b", "x.log");
    lab.sync(&[]).code(1);
    assert_eq!(lab.read("b", "z").unwrap(), "edited on a");
    assert_eq!((lab.read("a", "x.log").unwrap(), lab.read("b", "y.tmp").unwrap()), ("edited on a".into(), "y.tmp".into()));
    lab.assert_quiet("a", "b", 1, &[]);
    lab.sync(&["--conflicts", "b"]).code(1);
    lab.sync(&[]).code(0);
    assert_eq!(lab.read("a", ".driftlessignore").unwrap(), "*.tmp\n");
    assert_eq!(lab.read("b", "x.log").unwrap(), "edited on a");
    lab.assert_quiet("a", "b", 0, &[]);
}

#[test]
fn a_mirror_makes_the_other_side_equal_and_is_done() {
    for (forced, other) in [("a", "b"), ("b", "a")] {
        let lab = Lab::synced(&["x", "y", "gone here", "gone there", "d/1", "d/2", "f", "k/1"]);
        for root in ["a", "b"] {
            lab.write(root, "x", format!("edited on {root}"));
            lab.write(root, format!("new on {root}"), root);
            lab.write(root, format!("dir of {root}/x/y"), root);
        }
        lab.write(other, "y", "edited there only");
        lab.remove(forced, "gone here");
        lab.remove(other, "gone there");
        lab.remove(forced, "d");
        lab.write(other, "d/3", "new in what was deleted");
        lab.remove(other, "f");
        lab.write(other, "f/inside", "a folder there");
        lab.remove(forced, "k");
        lab.link(forced, "k", "x");
        lab.write(other, "k/1", "edited below");
        let before = snapshot(&lab.root(forced));
        lab.sync(&["--force", forced, "--allow-delete"]).code(0);
        assert!(snapshot(&lab.root(forced)) == before, "the forced side {forced} was changed");
        lab.assert_settled();
        for lost in [format!("edited on {other}"), other.to_owned(), "new in what was deleted".into(), "a folder there".into()] {
            assert!(lab.keeps(other, lost.as_bytes()), "{lost}");
        }
        lab.assert_quiet("a", "b", 0, &["--force", other]);
    }
}

#[test]
fn a_mirror_of_roots_that_never_met_is_done_in_one_run() {
    for forced in ["a", "b"] {
        let lab = Lab::new();
        for root in ["a", "b"] {
            lab.write(root, "same", "same");
            lab.write(root, "differs", root);
            lab.write(root, format!("only {root}/x"), root);
        }
        let before = snapshot(&lab.root(forced));
        lab.sync(&["--force", forced, "--allow-delete"]).code(0);
        assert!(snapshot(&lab.root(forced)) == before);
        lab.assert_settled();
    }
}

#[test]
fn a_checksum_run_of_nothing_does_nothing() {
    let lab = Lab::synced(&["x", "d/y", "d/z"]);
    lab.sync(&["--checksum"]).code(0).changed_nothing();
    lab.assert_quiet("a", "b", 0, &["--checksum"]);
    lab.write("a", "x", "edited");
    lab.sync(&["--checksum"]).code(0).without_conflicts();
    lab.assert_settled();
}

#[test]
fn the_limit_of_deletions_may_be_a_number_or_a_share() {
    let lab = Lab::synced(&["x", "y", "z", "r/1", "r/2", "r/3", "r/4", "r/5"]);
    for path in ["x", "y", "z"] {
        lab.remove("a", path);
    }
    lab.sync(&["--max-delete", "2"]).code(3);
    lab.sync(&["--max-delete", "5%"]).code(3);
    assert!(lab.at("b", "x").exists());
    lab.sync(&["--max-delete", "3"]).code(0);
    lab.assert_settled();
}

#[test]
fn without_kept_versions_nothing_is_kept() {
    let lab = Lab::synced(&["x", "y", "r/1", "r/2"]);
    lab.write("a", "x", "edited");
    lab.remove("a", "y");
    lab.sync(&["--keep-versions", "off"]).code(0);
    lab.assert_settled();
    for root in ["a", "b"] {
        assert!(crate::lab::kept(&lab.root(root)).is_empty());
    }
}

#[test]
fn looking_creates_nothing_and_tells_what_a_run_then_does() {
    let lab = Lab::new();
    lab.write("a", "new/x", "1");
    lab.write("b", "y", "2");
    lab.write("a", "differs", "a");
    lab.write("b", "differs", "b!");
    let before = (untouched(&lab.root("a")), untouched(&lab.root("b")));
    let mut status = crate::lab::driftless();
    let looked = run(status.args(["status", "--json"]).args([lab.root("a"), lab.root("b")]));
    looked.code(1);
    let tried = run(lab.command("a", "b").arg("--dry-run"));
    tried.code(1);
    assert!(!lab.at("a", ".driftless").exists() && !lab.at("b", ".driftless").exists());
    assert!(before == (untouched(&lab.root("a")), untouched(&lab.root("b"))));
    for field in ["created", "updated", "deleted", "moved", "conflicts"] {
        assert_eq!(looked.count(field), tried.count(field), "{field}");
    }
    let done = lab.sync(&[]);
    done.code(1);
    for field in ["created", "updated", "deleted", "moved", "conflicts"] {
        assert_eq!(tried.count(field), done.count(field), "{field}");
    }
}

#[test]
fn looking_at_synchronised_roots_changes_no_plan() {
    let lab = Lab::synced(&["x", "y", "z", "d/1", "d/2", "r/1", "r/2"]);
    lab.write("a", "x", "edited");
    lab.remove("b", "y");
    lab.rename("a", "d", "e");
    lab.write("b", "new", "1");
    let tried = run(lab.command("a", "b").arg("--dry-run"));
    tried.code(1);
    assert!(lab.read("b", "x").unwrap() == "x" && lab.at("a", "y").exists());
    run(lab.command("a", "b").arg("--dry-run")).code(1);
    let done = lab.sync(&[]);
    done.code(0);
    for field in ["created", "updated", "deleted", "moved", "conflicts"] {
        assert_eq!(tried.count(field), done.count(field), "{field}");
    }
    lab.assert_settled();
}

#[test]
fn an_interrupted_run_ends_with_130_and_the_next_one_completes() {
    let lab = Lab::new();
    for at in 0..3_000 {
        lab.write("a", format!("d{}/{at}", at % 40), format!("{at}"));
        lab.write("b", format!("e{}/{at}", at % 40), format!("{at}"));
    }
    let mut interrupted = 0;
    for _ in 0..6 {
        let mut child = lab.command("a", "b").arg("-v").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // Once the first item is done, the run is in the middle of its work.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let busy = lines.by_ref().any(|line| line.contains("\"event\":\"item\""));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        lines.for_each(drop);
        let status = child.wait().unwrap();
        if !busy || status.code() == Some(0) {
            break;
        }
        assert_eq!(status.code(), Some(130), "{status}");
        interrupted += 1;
    }
    assert!(interrupted > 0, "no run was long enough to be interrupted");
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    assert_eq!(lab.names("a").len(), 6_080);
}

#[test]
fn states_kept_elsewhere_leave_the_marker_alone_in_the_root() {
    let lab = Lab::new();
    lab.write("a", "x", "1");
    let elsewhere = lab.states();
    let args = ["--state-dir", elsewhere.as_str()];
    lab.sync(&args).code(0);
    lab.write("b", "x", "edited");
    for path in REST {
        lab.write("a", path, path);
    }
    lab.sync(&args).code(0).without_conflicts();
    lab.assert_equal();
    lab.assert_quiet("a", "b", 0, &args);
    assert!(!lab.at("a", ".driftless/state.db").exists());
}
