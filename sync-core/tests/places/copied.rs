//! Hot roots that are copied whole, or brought back: what lies in a cold root belongs to one of them.

use super::NOTHING;
use super::lab::{DAYS, Lab, rejoin, rel, tree, write};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use sync_core::io::archive::{ArchiveError, LinkForm, MoveOptions};
use sync_core::io::state::Batch;
use sync_core::io::sync::{Live, Options, Replica, Report, Sync};
use sync_core::path::RelPath;
use sync_core::report::Silent;
use sync_core::store::Change;

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
        assert_eq!(replica.claim(None).unwrap().0, [lab.cold()]);
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
    replica.claim(None).unwrap();
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
fn a_root_that_stays_open_with_a_new_identity_takes_links_of_a_user_at_once() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    assert_eq!(lab.synchronise(), NOTHING);
    let state = lab.b().join(".driftless/state.db");
    let before = lab.state().id();
    let bytes = fs::read(&state).unwrap();
    fs::rename(&state, lab.folder().join("old")).unwrap();
    fs::write(&state, bytes).unwrap();
    let options = Options { max_delete: None, ..Options::standard() };
    let live = Live::open("folder".parse().unwrap(), &lab.b(), options, true, &Silent).unwrap();
    assert_ne!(live.standing().unwrap().replica, before);
    for _ in 0..2 {
        let scanned = live.scan(&[], &Silent).unwrap();
        assert!(scanned.problems.is_empty(), "{:?}", scanned.problems);
    }
    // In the place of a directory, and where nothing was, reading as those to the archive do.
    fs::remove_dir_all(lab.b().join(DAYS[1])).unwrap();
    std::os::unix::fs::symlink("../../beside", lab.b().join(DAYS[1])).unwrap();
    std::os::unix::fs::symlink(lab.cold().join("mine"), lab.b().join("mine")).unwrap();
    let scanned = live.scan(&[], &Silent).unwrap();
    assert!(scanned.problems.is_empty() && scanned.unavailable.is_empty(), "{:?}", scanned.problems);
    assert_eq!(live.missing().unwrap(), []);
    drop(live);
    lab.synchronise();
    assert_eq!(fs::read_link(lab.a().join(DAYS[1])).unwrap(), Path::new("../../beside"));
    assert_eq!(fs::read_link(lab.a().join("mine")).unwrap(), lab.cold().join("mine"));
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

/// The state is lost, with all that the root keeps beside it or alone.
fn lost(lab: &Lab, all: bool) {
    let private = lab.b().join(".driftless");
    if all {
        fs::remove_dir_all(private).unwrap();
        return;
    }
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let _absent = fs::remove_file(private.join(name));
    }
}

#[test]
fn a_root_that_lost_its_state_finds_what_it_had_archived() {
    for all in [false, true] {
        let lab = Lab::new();
        lab.place(DAYS[0]);
        lab.place(DAYS[2]);
        assert_eq!(lab.synchronise(), NOTHING);
        let (before, cold) = (tree(&lab.a()), tree(&lab.cold()));
        lost(&lab, all);
        let report = rejoin(lab.folder());
        assert!(report.in_sync, "{:?}", problems(&report));
        assert_eq!((tree(&lab.a()), tree(&lab.b()), tree(&lab.cold())), (before.clone(), before, cold), "all gone: {all}");
        assert_eq!(lab.placed(), [DAYS[0], DAYS[2]]);
        assert!(lab.is_link(DAYS[0]) && lab.is_link(DAYS[2]));
        assert_eq!(lab.synchronise(), NOTHING);
        // It lives: what is changed in it goes to the other side, and a day comes back.
        write(&lab.b(), "2026/03/05/a.txt", "second");
        assert_eq!(lab.synchronise()[0].updated, 1);
        let replica = Replica::open(&lab.b(), None).unwrap();
        replica.archive(&Silent).unwrap().restore_day(&RelPath::parse(DAYS[0].as_bytes()).unwrap(), Duration::ZERO).unwrap();
        drop(replica);
        assert_eq!(lab.synchronise(), NOTHING);
        assert!(!lab.is_link(DAYS[0]));
    }
}

#[test]
fn a_link_that_was_rewritten_in_an_archived_day_is_what_it_was_after_the_state_was_lost() {
    let lab = Lab::new();
    std::os::unix::fs::symlink("../../../beside", lab.b().join(DAYS[0]).join("out")).unwrap();
    lab.synchronise();
    archive(&lab, DAYS[0], true);
    assert_eq!(lab.sync().totals, NOTHING);
    let before = fs::read_link(lab.a().join(DAYS[0]).join("out")).unwrap();
    assert_ne!(fs::read_link(lab.b().join(DAYS[0]).join("out")).unwrap(), before, "it reads otherwise in the cold root");
    lost(&lab, true);
    let report = rejoin(lab.folder());
    assert!(report.in_sync, "{:?}", problems(&report));
    assert_eq!(report.totals, NOTHING);
    assert_eq!(fs::read_link(lab.a().join(DAYS[0]).join("out")).unwrap(), before);
    assert_eq!(lab.placed(), [DAYS[0]]);
}

#[test]
fn a_copy_that_lost_its_state_has_what_the_root_archived_only_once_it_claims_it() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    assert_eq!(lab.synchronise(), NOTHING);
    let copy = copy_of(&lab.b(), "copy");
    fs::remove_dir_all(copy.join(".driftless")).unwrap();
    let other = lab.folder().join("other");
    fs::create_dir(&other).unwrap();
    let options = || Options { rejoin: true, max_delete: None, ..Options::standard() };
    let report = Sync::open(&copy, &other, options(), &Silent).unwrap().apply(&Silent).unwrap();
    assert!(problems(&report).iter().any(|problem| problem.contains("archive claim")), "{:?}", problems(&report));
    assert!(!other.join(DAYS[0]).exists() && other.join(DAYS[1]).exists());
    assert_eq!(lab.synchronise(), NOTHING, "the root itself goes on");
    let replica = Replica::open(&copy, None).unwrap();
    // A first look by the commands has it use the cold root, in a folder of its own.
    replica.archive(&Silent).unwrap().cold(&lab.cold()).unwrap();
    let (claimed, notices) = replica.claim(None).unwrap();
    assert_eq!((claimed, notices.len()), (vec![lab.cold()], 1));
    assert_eq!(replica.placed().len(), 1);
    drop(replica);
    let report = run(&copy, &other);
    assert!(report.in_sync, "{:?}", problems(&report));
    assert_eq!(tree(&other), tree(&copy));
    assert!(lab.troubled().iter().any(|problem| problem.contains(TOLD)));
}

#[test]
fn what_was_written_of_a_day_comes_to_who_claims_it() {
    let lab = Lab::new();
    if moves_without_a_copy(&lab) {
        return;
    }
    archive(&lab, DAYS[0], false);
    let copy = copy_of(&lab.b(), "copy");
    fs::remove_dir_all(copy.join(".driftless")).unwrap();
    let replica = Replica::begin_anew(&copy, None, &Silent).unwrap();
    replica.archive(&Silent).unwrap().cold(&lab.cold()).unwrap();
    replica.claim(None).unwrap();
    let with_record = records(&lab);
    assert_eq!(with_record.len(), 1, "{with_record:?}");
    let owner = fs::read_to_string(with_record[0].join("owner")).unwrap();
    assert!(owner.contains(&format!("path {}", copy.display())), "{owner}");
    let used = fs::read_dir(with_record[0].join("placed")).unwrap().count();
    assert_eq!(used, 1, "the stamp is beside the record");
}

/// Where there is one file system alone nothing is read on the way.
fn moves_without_a_copy(lab: &Lab) -> bool {
    fs::metadata(lab.folder()).unwrap().dev() == fs::metadata(lab.cold()).unwrap().dev()
}

/// Folders in the cold root that hold a record of what was written.
fn records(lab: &Lab) -> Vec<PathBuf> {
    let folders = fs::read_dir(lab.cold().join(".driftless")).unwrap().map(|entry| entry.unwrap().path());
    folders.filter(|folder| fs::read_dir(folder.join("sealed")).is_ok_and(|sealed| sealed.count() > 0)).collect()
}

#[test]
fn a_cold_root_that_is_gone_and_holds_nothing_keeps_nobody_from_claiming() {
    let lab = Lab::new();
    let retired = tempfile::tempdir().unwrap();
    sync_core::io::fs::init_cold(retired.path()).unwrap();
    let replica = Replica::open(&lab.b(), None).unwrap();
    replica.archive(&Silent).unwrap().cold(retired.path()).unwrap();
    drop(replica);
    lab.place(DAYS[0]);
    let copy = copy_of(&lab.b(), "copy");
    retired.close().unwrap();
    let replica = Replica::open(&copy, None).unwrap();
    assert_eq!(replica.claim(None).unwrap().0, [lab.cold()]);
    drop(replica);
    // One that holds something is told.
    let copy = copy_of(&lab.b(), "another");
    let marker = lab.cold().join(".driftless/cold");
    let away = marker.with_extension("away");
    fs::rename(&marker, &away).unwrap();
    let replica = Replica::open(&copy, None).unwrap();
    let told = replica.claim(None).unwrap_err().to_string();
    assert!(told.contains("is its disk mounted?") && told.contains("claim again"), "{told}");
    fs::rename(&away, &marker).unwrap();
    assert_eq!(replica.claim(None).unwrap().0, [lab.cold()]);
}

#[test]
fn a_folder_whose_owner_cannot_be_read_is_missed_as_a_whole_until_it_is_claimed() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    lab.place(DAYS[1]);
    assert_eq!(lab.synchronise(), NOTHING);
    fs::write(&owners(&lab)[0], [0u8; 200]).unwrap();
    let told = lab.troubled();
    assert_eq!(told.iter().filter(|told| told.contains("archive claim")).count(), 1, "once: {told:?}");
    let replica = Replica::open(&lab.b(), None).unwrap();
    let (claimed, notices) = replica.claim(None).unwrap();
    assert_eq!(claimed, [lab.cold()]);
    assert!(notices.iter().any(|notice| notice.contains("cannot be read")), "{notices:?}");
    drop(replica);
    lab.synchronise();
    assert_eq!(lab.synchronise(), NOTHING);
    assert!(lab.is_link(DAYS[0]) && lab.is_link(DAYS[1]));
}

#[test]
fn a_state_that_begins_anew_while_the_cold_root_is_away_takes_no_link_to_it_for_a_users() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    assert_eq!(lab.synchronise(), NOTHING);
    let (before, cold, away) = (tree(&lab.a()), lab.cold(), lab.cold().with_extension("away"));
    lost(&lab, true);
    fs::rename(&cold, &away).unwrap();
    let report = rejoin(lab.folder());
    assert!(problems(&report).iter().any(|problem| problem.contains("may be one to an archive")), "{:?}", problems(&report));
    assert_eq!(tree(&lab.a()), before);
    assert!(lab.troubled().iter().any(|problem| problem.contains("may be one to an archive")), "nor later");
    fs::rename(&away, &cold).unwrap();
    lab.synchronise();
    assert_eq!(lab.placed(), [DAYS[0]]);
    assert!(lab.is_link(DAYS[0]));
    assert_eq!((tree(&lab.a()), tree(&lab.b())), (before.clone(), before));
}

#[test]
fn what_a_disk_has_damaged_goes_neither_to_the_archive_nor_out_of_it() {
    let lab = Lab::new();
    if moves_without_a_copy(&lab) {
        return;
    }
    let file = rel(&format!("{}/a.txt", DAYS[0]));
    for archived in [false, true] {
        if archived {
            archive(&lab, DAYS[0], false);
            assert_eq!(lab.sync().totals, NOTHING);
        }
        let path = lab.b().join(file.to_string());
        let (good, time) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
        let open = fs::OpenOptions::new().write(true).open(&path).unwrap();
        open.write_all_at(b"X", 2).unwrap();
        open.set_modified(time).unwrap();
        let replica = Replica::open(&lab.b(), None).unwrap();
        let bad = as_if_nobody_wrote(&replica, &file);
        let mover = replica.archive(&Silent).unwrap();
        let refused = loop {
            let cold = mover.cold(&lab.cold()).unwrap();
            let options = MoveOptions { form: LinkForm::Absolute, rewrite: false, keep: Duration::ZERO };
            let answer = match archived {
                true => mover.restore_day(&rel(DAYS[0]), Duration::ZERO),
                false => mover.move_day(&rel(DAYS[0]), &cold, &options),
            };
            match answer {
                Err(ArchiveError::Changed(_)) => {}
                answer => break answer.unwrap_err().to_string(),
            }
        };
        assert!(refused.starts_with(&format!("{file} is damaged")), "{refused}");
        assert!(bad, "the row tells of the bytes that were there");
        drop(mover);
        drop(replica);
        assert_eq!(lab.sync().totals, NOTHING, "and nobody gets the bytes");
        assert_eq!(fs::read(lab.a().join(file.to_string())).unwrap(), good);
        assert_eq!(lab.is_link(DAYS[0]), archived);
        fs::write(&path, &good).unwrap();
        open.set_modified(time).unwrap();
        lab.synchronise();
    }
}

/// A disk that fails changes no time: the row gets the times that the write has moved, and keeps its hash.
fn as_if_nobody_wrote(replica: &Replica, file: &RelPath) -> bool {
    let (root, state) = replica.parts();
    let (above, name) = file.split().unwrap();
    let signature = root.dir(&above).unwrap().stat(name.as_bytes()).unwrap().unwrap();
    let node = state.node(&above).unwrap().unwrap();
    let known = state.known(node).unwrap().into_iter().find(|known| known.name == name).unwrap();
    let change = Change::Refresh { path: file.clone(), signature, hash: known.hash, mtime_ns: None };
    state.commit(Batch { changes: vec![change], ..Batch::default() }, true).unwrap();
    known.hash.is_some()
}

#[test]
fn a_root_without_a_state_that_archives_again_knows_what_it_had_archived() {
    let lab = Lab::new();
    archive(&lab, DAYS[0], false);
    lost(&lab, true);
    let replica = Replica::begin(&lab.b(), None, &Silent).unwrap();
    assert!(replica.notices()[0].contains("was found again"), "{:?}", replica.notices());
    assert_eq!(replica.placed().len(), 1);
    drop(replica);
    lost(&lab, false);
    // A marker without a state: the disk of the state may be away, until the user says otherwise.
    let refused = Replica::begin(&lab.b(), None, &Silent).err().unwrap().to_string();
    assert!(refused.contains("archive claim"), "{refused}");
    let replica = Replica::begin_anew(&lab.b(), None, &Silent).unwrap();
    assert_eq!(replica.placed().len(), 1);
    archive_with(&replica, &lab, DAYS[1], false);
    assert_eq!(replica.placed().len(), 2);
}

/// Archives a day as the command does it.
fn archive(lab: &Lab, day: &str, rewrite: bool) {
    archive_with(&Replica::open(&lab.b(), None).unwrap(), lab, day, rewrite);
}

fn archive_with(replica: &Replica, lab: &Lab, day: &str, rewrite: bool) {
    let archive = replica.archive(&Silent).unwrap();
    let cold = archive.cold(&lab.cold()).unwrap();
    let options = MoveOptions { form: LinkForm::Absolute, rewrite, keep: Duration::ZERO };
    let day = RelPath::parse(day.as_bytes()).unwrap();
    loop {
        match archive.move_day(&day, &cold, &options) {
            // What was made a moment ago may still change unseen.
            Err(ArchiveError::Changed(_)) => {}
            answer => {
                answer.unwrap();
                break;
            }
        }
    }
}
