//! Hot roots that are copied whole, or brought back: what lies in a cold root belongs to one of them.

use super::NOTHING;
use super::lab::{DAYS, Lab, tree};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use sync_core::io::archive::{ArchiveError, LinkForm, MoveOptions};
use sync_core::io::sync::{Options, Replica, Report, Sync};
use sync_core::path::RelPath;
use sync_core::report::Silent;

const TOLD: &str = "belongs to another one";

fn copy_of(root: &Path, to: &str) -> PathBuf {
    let copy = root.parent().unwrap().join(to);
    assert!(Command::new("cp").arg("-a").args([root, &copy]).status().unwrap().success());
    copy
}

fn run(a: &Path, b: &Path) -> Report {
    let options = Options { max_delete: None, ..Options::standard() };
    Sync::open(a, b, options, &Silent).unwrap().apply(&Silent).unwrap()
}

fn owners(lab: &Lab) -> Vec<PathBuf> {
    let keys = fs::read_dir(lab.cold().join(".driftless")).unwrap().map(|entry| entry.unwrap().path().join("owner"));
    keys.filter(|owner| owner.exists()).collect()
}

fn problems(report: &Report) -> Vec<String> {
    report.problems.iter().map(|(_, problem)| problem.error.clone()).collect()
}

#[test]
fn a_copy_of_a_root_leaves_what_the_root_has_archived_alone_until_it_claims_it() {
    for from_before_owners in [false, true] {
        let lab = Lab::new();
        lab.place(DAYS[0]);
        assert_eq!(lab.synchronise(), NOTHING);
        let cold = tree(&lab.cold());
        let copy = copy_of(&lab.b(), "copy");
        if from_before_owners {
            assert_eq!(owners(&lab).len(), 1);
            fs::remove_file(&owners(&lab)[0]).unwrap();
        }
        // By the commands, before anything else.
        let day = RelPath::parse(DAYS[0].as_bytes()).unwrap();
        let replica = Replica::open(&copy, None).unwrap();
        let archive = replica.archive(&Silent).unwrap();
        for refused in [
            archive.restore_day(&day, Duration::ZERO).map(drop),
            archive.scrub(&day, None).map(drop),
            archive.check_placed(&day),
            archive.cold(&lab.cold()).map(drop),
        ] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains(TOLD) && refused.contains("driftless archive claim"), "{refused}");
        }
        drop(archive);
        drop(replica);
        // And by runs, the first of which gives it an identity of its own.
        let other = lab.folder().join("other");
        fs::create_dir(&other).unwrap();
        for _ in 0..2 {
            let report = run(&copy, &other);
            assert!(problems(&report).iter().any(|problem| problem.contains(TOLD)), "{:?}", problems(&report));
            assert!(!other.join(DAYS[0]).exists() && other.join(DAYS[1]).exists());
        }
        assert!(owners(&lab).is_empty() || !from_before_owners, "a copy made itself the owner");
        assert_eq!(lab.synchronise(), NOTHING, "the root itself goes on");
        assert_eq!(tree(&lab.cold()), cold);
        assert_eq!(owners(&lab).len(), 1);
        // Who claims it has it, and nobody else.
        let replica = Replica::open(&copy, None).unwrap();
        assert_eq!(replica.claim().unwrap(), [lab.cold()]);
        drop(replica);
        let report = run(&copy, &other);
        assert!(report.in_sync, "{:?}", problems(&report));
        assert_eq!(tree(&other), tree(&copy));
        assert!(lab.troubled().iter().any(|problem| problem.contains(TOLD)));
        assert_eq!(tree(&lab.cold()), cold);
    }
}

#[test]
fn a_copy_that_claims_before_its_first_run_shuts_the_other_one_out() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    let copy = copy_of(&lab.b(), "copy");
    let replica = Replica::open(&copy, None).unwrap();
    replica.claim().unwrap();
    drop(replica);
    assert!(lab.troubled().iter().any(|problem| problem.contains(TOLD)));
    let other = lab.folder().join("other");
    fs::create_dir(&other).unwrap();
    let report = run(&copy, &other);
    assert!(report.in_sync, "{:?}", problems(&report));
    assert_eq!(tree(&other), tree(&copy));
}

#[test]
fn a_root_whose_state_was_brought_back_where_it_stands_keeps_what_it_has_archived() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    assert_eq!(lab.synchronise(), NOTHING);
    // Another file: the state takes a new identity.
    let state = lab.b().join(".driftless/state.db");
    let before = lab.state().id();
    let bytes = fs::read(&state).unwrap();
    fs::rename(&state, lab.folder().join("old")).unwrap();
    fs::write(&state, bytes).unwrap();
    lab.sync();
    assert_ne!(lab.state().id(), before);
    lab.synchronise();
    assert_eq!(lab.placed(), [DAYS[0]]);
    let owner = fs::read_to_string(&owners(&lab)[0]).unwrap();
    assert!(owner.contains(&lab.state().id().to_string()), "{owner}");
}

#[test]
fn a_day_that_is_another_one_counts_as_it_is_once_that_is_said() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    assert_eq!(lab.synchronise(), NOTHING);
    let at = lab.cold().join(DAYS[0]);
    fs::rename(&at, lab.cold().join("aside")).unwrap();
    fs::create_dir(&at).unwrap();
    fs::write(at.join("new"), "new").unwrap();
    lab.troubled();
    let replica = Replica::open(&lab.b(), None).unwrap();
    replica.archive(&Silent).unwrap().accept(&RelPath::parse(DAYS[0].as_bytes()).unwrap()).unwrap();
    drop(replica);
    assert!(lab.synchronise()[0].deleted > 0);
    assert!(lab.a().join(DAYS[0]).join("new").exists() && !lab.a().join(DAYS[0]).join("a.txt").exists());
}

#[test]
fn a_day_whose_cold_root_is_gone_for_good_comes_back_from_others_once_it_is_forgotten() {
    let lab = Lab::new();
    let before = tree(&lab.a());
    lab.place(DAYS[0]);
    assert_eq!(lab.synchronise(), NOTHING);
    let day = RelPath::parse(DAYS[0].as_bytes()).unwrap();
    let forget = || {
        let replica = Replica::open(&lab.b(), None).unwrap();
        let forgotten = replica.archive(&Silent).unwrap().forget(&day);
        forgotten.map_err(|error| error.to_string())
    };
    assert!(forget().unwrap_err().contains("archive restore"), "it is there");
    for name in [".driftless", "2026"] {
        fs::rename(lab.cold().join(name), lab.cold().join(format!("{name}.away"))).unwrap();
    }
    lab.troubled();
    assert_eq!(forget(), Ok(false));
    assert!(lab.b().join(DAYS[0]).symlink_metadata().is_err() && lab.placed().is_empty());
    lab.synchronise();
    assert_eq!(tree(&lab.b()), before);
    assert!(!lab.is_link(DAYS[0]));
}

#[test]
fn a_root_that_lost_its_state_archives_again_what_it_had_archived() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    assert_eq!(lab.synchronise(), NOTHING);
    fs::remove_dir_all(lab.b().join(".driftless")).unwrap();
    let join = || {
        let options = Options { rejoin: true, max_delete: None, ..Options::standard() };
        Sync::open(&lab.a(), &lab.b(), options, &Silent).unwrap().apply(&Silent).unwrap()
    };
    let before = tree(&lab.a());
    let told = problems(&join());
    assert!(told.iter().any(|problem| problem.contains("may be one to an archive")), "{told:?}");
    assert_eq!(tree(&lab.a()), before);
    // The day is put back, as it says.
    fs::remove_file(lab.b().join(DAYS[0])).unwrap();
    let copied = Command::new("cp").arg("-a").args([lab.cold().join(DAYS[0]), lab.b().join(DAYS[0])]).status().unwrap();
    assert!(copied.success());
    lab.synchronise();
    let replica = Replica::open(&lab.b(), None).unwrap();
    let archive = replica.archive(&Silent).unwrap();
    let cold = archive.cold(&lab.cold()).unwrap();
    let options = MoveOptions { form: LinkForm::Absolute, rewrite: false, keep: Duration::ZERO };
    let day = RelPath::parse(DAYS[0].as_bytes()).unwrap();
    let moved = loop {
        match archive.move_day(&day, &cold, &options) {
            // What was made a moment ago may still change unseen.
            Err(ArchiveError::Changed(_)) => {}
            answer => break answer,
        }
    };
    assert_eq!(moved.unwrap().copied, 0);
    drop(archive);
    drop(replica);
    assert_eq!(lab.synchronise(), NOTHING);
    assert!(lab.is_link(DAYS[0]));
}
