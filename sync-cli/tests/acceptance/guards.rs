//! What stops a run before anything is changed.

use crate::lab::{Lab, driftless, run, snapshot, untouched};
use crate::link;
use std::fs;
use std::path::Path;
use std::process::Command;

const TEN: [&str; 10] = ["d/0", "d/1", "d/2", "d/3", "d/4", "d/5", "d/6", "d/7", "d/8", "d/9"];

/// The run ends with 3, says these words, and has changed nothing.
#[track_caller]
fn assert_stopped(lab: &Lab, args: &[&str], word: &str) {
    let before = (untouched(&lab.root("a")), untouched(&lab.root("b")));
    let ran = lab.sync(args);
    ran.code(3);
    assert!(ran.stderr().contains(word), "{}", ran.stderr());
    assert!(before == (untouched(&lab.root("a")), untouched(&lab.root("b"))), "something was changed");
}

#[test]
fn an_emptied_root_stops_the_run_from_either_side() {
    // 44
    for root in ["a", "b"] {
        let lab = Lab::synced(&TEN);
        lab.remove(root, "d");
        assert_stopped(&lab, &[], "--allow-delete");
        assert_stopped(&lab, &["--max-delete", "100%"], "--allow-delete");
        lab.write(root, "one survivor", "1");
        assert_stopped(&lab, &[], "--allow-delete");
    }
}

#[test]
fn a_bare_mount_point_stops_the_run_from_either_side() {
    for root in ["a", "b"] {
        let lab = Lab::synced(&TEN);
        fs::rename(lab.root(root), lab.root("disk")).unwrap();
        fs::create_dir(lab.root(root)).unwrap();
        assert_stopped(&lab, &[], "mounted");
        assert_stopped(&lab, &["--allow-delete"], "mounted");
        assert_eq!(fs::read_dir(lab.root(root)).unwrap().count(), 0, "something was made below the mount point");
        fs::remove_dir(lab.root(root)).unwrap();
        fs::rename(lab.root("disk"), lab.root(root)).unwrap();
        lab.assert_settled();
    }
}

#[test]
fn a_missing_marker_stops_the_run() {
    let lab = Lab::synced(&TEN);
    fs::remove_file(lab.at("b", ".driftless/marker")).unwrap();
    assert_stopped(&lab, &[], "--rejoin");
    lab.sync(&["--rejoin"]).code(0).without_conflicts();
    lab.assert_settled();
}

#[test]
fn a_missing_state_behind_a_marker_stops_the_run() {
    let lab = Lab::synced(&TEN);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(lab.at("a", format!(".driftless/state.db{suffix}")));
    }
    lab.remove("b", "d/3");
    assert_stopped(&lab, &[], "--rejoin");
    lab.sync(&["--rejoin"]).code(0).without_conflicts();
    lab.assert_settled();
}

#[test]
fn a_root_that_is_gone_or_became_a_file_stops_the_run() {
    // 44
    let lab = Lab::synced(&TEN);
    let before = snapshot(&lab.root("a"));
    fs::rename(lab.root("b"), lab.root("disk")).unwrap();
    assert!(!lab.sync(&[]).code(3).stderr().is_empty());
    fs::write(lab.root("b"), "a file").unwrap();
    assert!(!lab.sync(&[]).code(3).stderr().is_empty());
    assert!(snapshot(&lab.root("a")) == before);
}

#[test]
fn more_than_half_deleted_stops_the_run() {
    for root in ["a", "b"] {
        let lab = Lab::synced(&TEN);
        for file in &TEN[..8] {
            lab.remove(root, file);
        }
        assert_stopped(&lab, &[], "--allow-delete");
        lab.sync(&["--allow-delete"]).code(0);
        lab.assert_settled();
    }
}

#[test]
fn everything_in_one_renamed_folder_passes_the_guard() {
    let lab = Lab::synced(&TEN);
    lab.rename("a", "d", "renamed");
    let ran = lab.sync(&[]);
    ran.code(0).without_conflicts();
    assert_eq!((ran.count("deleted"), ran.count("created")), (0, 0), "{}", ran.stdout());
    lab.assert_settled();
}

#[test]
fn every_file_renamed_passes_the_guard() {
    let lab = Lab::synced(&TEN);
    lab.mkdir("b", "new/place");
    for (at, file) in TEN.iter().enumerate() {
        lab.rename("b", file, &format!("new/place/{at}"));
    }
    lab.remove("b", "d");
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    assert_eq!(lab.read("a", "new/place/3").unwrap(), "d/3");
}

#[test]
fn a_damaged_state_is_told_and_nothing_is_lost() {
    let lab = Lab::synced(&TEN);
    lab.write("b", "d/1", "edited on b");
    lab.remove("b", "d/2");
    fs::write(lab.at("a", ".driftless/state.db"), vec![0x5a; 40_000]).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(lab.at("a", format!(".driftless/state.db{suffix}")));
    }
    let ran = lab.sync(&[]);
    assert_eq!(ran.0.status.code(), Some(3), "{}{}", ran.stdout(), ran.stderr());
    assert!(ran.stderr().contains("--rejoin"), "{}", ran.stderr());
    lab.sync(&["--rejoin", "--conflicts", "keep-both"]).code(0);
    lab.assert_settled();
    assert!(lab.names("a").iter().any(|name| lab.read("a", name).as_deref() == Some("edited on b")));
}

#[test]
fn a_second_run_on_a_root_that_is_in_use_is_refused() {
    use sync_core::io::sync::{Options, Sync};
    use sync_core::report::Silent;
    let lab = Lab::synced(&TEN);
    let held = Sync::open(&lab.root("a"), &lab.root("b"), Options::standard(), &Silent).unwrap();
    let ran = lab.sync(&[]);
    ran.code(3);
    assert!(ran.stderr().contains("process"), "{}", ran.stderr());
    drop(held);
    lab.assert_settled();
}

/// Copies a folder or a file with everything that belongs to it.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").args(["-a", "-T"]).args([from, to]).status().unwrap().success());
}

#[test]
fn a_tree_brought_back_alone_is_no_new_work() {
    let lab = Lab::new();
    for path in TEN {
        lab.write("a", path, path);
    }
    let elsewhere = lab.states();
    let args = ["--state-dir", elsewhere.as_str()];
    lab.sync(&args).code(0);
    copy(&lab.root("a"), &lab.root("snapshot"));
    lab.write("a", "d/0", "edited later");
    lab.write("a", "d/new", "made later");
    lab.sync(&args).code(0);
    fs::remove_dir_all(lab.root("a")).unwrap();
    copy(&lab.root("snapshot"), &lab.root("a"));
    assert_stopped(&lab, &args, "--rejoin");
    assert_stopped(&lab, &args, "the folder is older than its state");
    let listed = run(driftless().args(["versions", "--state-dir", &elsewhere]).arg(lab.root("a")));
    assert!(listed.code(3).stderr().contains("older than its state"), "{}", listed.stderr());
    assert_eq!(lab.read("b", "d/0").unwrap(), "edited later");
    lab.sync(&["--state-dir", &elsewhere, "--rejoin", "--conflicts", "newer"]).code(0);
    lab.assert_equal();
    assert_eq!((lab.read("a", "d/0").unwrap(), lab.read("a", "d/new").unwrap()), ("edited later".into(), "made later".into()));
    lab.assert_quiet("a", "b", 0, &args);
}

#[test]
fn a_state_brought_back_alone_is_noticed() {
    let lab = Lab::new();
    lab.write("a", "x", "1");
    let elsewhere = lab.states();
    let args = ["--state-dir", elsewhere.as_str()];
    lab.sync(&args).code(0);
    lab.link.close();
    copy(&lab.root("states"), &lab.root("backup"));
    lab.write("a", "x", "edited later");
    lab.sync(&args).code(0);
    lab.link.close();
    fs::remove_dir_all(lab.root("states")).unwrap();
    copy(&lab.root("backup"), &lab.root("states"));
    assert_stopped(&lab, &args, "its state is older than the folder");
}

#[test]
fn a_root_that_others_know_more_of_than_it_does_itself_stops_the_run() {
    let lab = Lab::synced(&TEN);
    fs::create_dir(lab.root("c")).unwrap();
    copy(&lab.at("a", ".driftless"), &lab.root("backup"));
    lab.write("a", "d/0", "edited");
    lab.sync(&[]).code(0);
    // c hears of it from b alone: it has never met a, and remembers nothing of it.
    lab.sync_roots("b", "c", &[]).code(0);
    // In place: same file, same birth, as a restored block device shows it.
    for name in ["state.db-wal", "state.db-shm"] {
        let _ = fs::remove_file(lab.at("a", ".driftless").join(name));
    }
    for name in ["state.db", "marker"] {
        fs::write(lab.at("a", ".driftless").join(name), fs::read(lab.root("backup").join(name)).unwrap()).unwrap();
    }
    let before = (untouched(&lab.root("a")), untouched(&lab.root("c")));
    let ran = lab.sync_roots("a", "c", &[]);
    assert!(ran.code(3).stderr().contains("--rejoin"), "{}", ran.stderr());
    assert!(before == (untouched(&lab.root("a")), untouched(&lab.root("c"))));
    lab.sync_roots("a", "c", &["--rejoin", "--conflicts", "newer"]).code(0);
    lab.write("a", "d/1", "edited by the new identity");
    lab.sync_roots("a", "c", &[]).code(0).without_conflicts();
    lab.sync_roots("b", "c", &[]).code(0).without_conflicts();
    assert_eq!(lab.read("b", "d/1").unwrap(), "edited by the new identity");
}

#[test]
fn nothing_is_made_in_one_root_before_the_other_one_passed() {
    // The marker of another tree, as after a restore into the wrong place.
    let lab = Lab::synced(&TEN);
    let other = Lab::synced(&["x"]);
    copy(&other.at("a", ".driftless/marker"), &lab.at("b", ".driftless/marker"));
    fs::create_dir(lab.root("new")).unwrap();
    for (first, second) in [("new", "b"), ("b", "new")] {
        let ran = lab.sync_roots(first, second, &[]);
        assert!(ran.code(3).stderr().contains("belongs to another state"), "{}", ran.stderr());
        assert_eq!(fs::read_dir(lab.root("new")).unwrap().count(), 0, "something was made in the new root");
    }
    for command in ["conflicts", "versions"] {
        let ran = run(driftless().arg(command).arg(lab.root("b")));
        assert!(ran.code(3).stderr().contains("belongs to another state"), "{}", ran.stderr());
    }
    fs::remove_file(lab.at("b", ".driftless/marker")).unwrap();
    let ran = run(driftless().arg("versions").arg(lab.root("b")));
    assert!(ran.code(3).stderr().contains("has no marker"), "{}", ran.stderr());
}

#[test]
fn looking_leaves_the_marker_as_it_is() {
    let lab = Lab::synced(&TEN);
    lab.write("a", "d/0", "edited");
    let markers = || ["a", "b"].map(|root| fs::read(lab.at(root, ".driftless/marker")).unwrap());
    let before = markers();
    run(lab.command("a", "b").arg("--dry-run")).code(1);
    assert!(markers() == before);
    lab.sync(&[]).code(0);
    assert!(markers() != before, "a run that records something begins a new generation");
    let after = markers();
    lab.assert_settled();
    assert!(markers() == after, "a run of nothing writes nothing");
}

#[test]
fn a_file_of_rules_that_is_too_large_is_refused_and_not_cut() {
    let lab = Lab::synced(&TEN);
    let rules = format!("{}\n/d\n", "# a long comment\n".repeat(70_000));
    lab.write("b", ".driftlessignore", &rules);
    assert_stopped(&lab, &[], ".driftlessignore is larger than 1048576 bytes");
    lab.write("b", ".driftlessignore", "a[\n");
    let ran = lab.sync(&[]);
    // There it is a file of another machine, and not one that whoever gave the command could mend.
    let code = if link::kind() == link::Kind::Local { 64 } else { 3 };
    assert!(ran.code(code).stderr().contains("b/.driftlessignore: ignore rule"), "{}", ran.stderr());
}
