//! A run is killed, and what it must have kept until then is there.

use super::NOTHING;
use super::kills::{killed, killed_joining};
use super::lab::{DAYS, FILES, Lab, rejoin, rel, tree, write};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Brings about a change of a placed day for the next run.
type Change = fn(&Lab);

fn both_edit(lab: &Lab) {
    write(&lab.b(), "2026/03/05/a.txt", "here, and longer");
    write(&lab.a(), "2026/03/05/a.txt", "there");
}

fn rename(lab: &Lab) {
    fs::rename(lab.a().join("2026/03/05/a.txt"), lab.a().join("2026/03/05/moved.txt")).unwrap();
}

fn rename_tree(lab: &Lab) {
    fs::rename(lab.a().join("2026/03/05/sub"), lab.a().join("2026/03/05/below")).unwrap();
}

fn chmod(lab: &Lab) {
    fs::set_permissions(lab.a().join(DAYS[0]), fs::Permissions::from_mode(0o750)).unwrap();
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_changed_in_a_cold_root_is_durable_before_it_is_recorded() {
    // The cold root is synced before the change where it was looked at, and again after it.
    let cases: [(Change, u32, &str); 4] =
        [(both_edit, 2, "keep both"), (rename, 2, "a move"), (rename_tree, 2, "a move of a directory"), (chmod, 1, "attributes")];
    for (change, nth, what) in cases {
        let lab = Lab::new();
        lab.place(DAYS[0]);
        change(&lab);
        assert!(killed(lab.folder(), "batch-area-synced", nth), "{what}: it is not synced after the change");
        let day = lab.cold().join(DAYS[0]);
        let state = lab.state();
        let known = |path: &str| state.entry(&rel(path)).unwrap().is_some();
        match what {
            "keep both" => {
                let names: Vec<_> = fs::read_dir(&day).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                let copy = names.iter().filter_map(|name| name.to_str()).find(|name| name.contains("conflict")).unwrap();
                assert!(!known(&format!("{}/{copy}", DAYS[0])), "recorded too early");
            }
            "a move" => assert!(day.join("moved.txt").exists() && !known("2026/03/05/moved.txt")),
            "a move of a directory" => assert!(day.join("below/e.txt").exists() && !known("2026/03/05/below")),
            _ => {
                let row = state.entry(&rel(DAYS[0])).unwrap().unwrap();
                assert!(mode(&day) == 0o750 && row.row.object.attrs.mode != 0o750);
            }
        }
        drop(state);
        lab.synchronise();
    }
}

/// A run is killed after it removed a day, and before it was recorded durably that it did.
fn killed_after_a_removal(at: &str) -> Lab {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    lab.place(DAYS[1]);
    fs::remove_dir_all(lab.a().join(DAYS[1])).unwrap();
    assert!(killed(lab.folder(), at, 1));
    lab
}

#[test]
fn the_stamp_of_a_removed_day_goes_when_its_removal_is_durable() {
    for at in ["unplace-unlinked", "batch-swapped", "finish-committed", "finish-raised"] {
        let lab = killed_after_a_removal(at);
        assert_eq!(lab.stamped(), [DAYS[0], DAYS[1]], "{at}: it may be asked for again");
        lab.synchronise();
        assert_eq!(lab.stamped(), [DAYS[0]], "{at}: nothing is left of it");
    }
}

#[test]
fn a_removal_that_happened_is_recorded_although_its_stamp_is_gone() {
    for (at, kept) in [("unplace-renamed", true), ("unplace-unlinked", true), ("unplace-unlinked", false)] {
        let lab = killed_after_a_removal(at);
        let stamps = lab.private("placed");
        let stamp = stamps.iter().find(|stamp| fs::read_to_string(stamp).unwrap().contains(DAYS[1])).unwrap();
        fs::remove_file(stamp).unwrap();
        if !kept {
            lab.kept_cold().iter().for_each(|kept| fs::remove_dir_all(kept).unwrap());
        }
        lab.synchronise();
        assert_eq!((lab.placed(), lab.stamped()), (vec![DAYS[0].to_owned()], vec![DAYS[0].to_owned()]), "{at}");
        assert!(lab.b().join(DAYS[1]).symlink_metadata().is_err(), "{at}");
    }
}

#[test]
fn a_day_that_is_emptied_file_by_file_keeps_link_and_placement_together_wherever_a_run_is_killed() {
    for at in ["unplace-empty-before", "unplace-emptied"] {
        let lab = Lab::new();
        lab.place(DAYS[0]);
        // The other side knows nothing of what went here: the day does not go whole.
        fs::remove_file(lab.b().join(DAYS[0]).join("a.txt")).unwrap();
        fs::remove_dir_all(lab.a().join(DAYS[0])).unwrap();
        assert!(killed(lab.folder(), at, 1), "{at} was not reached");
        lab.synchronise();
        // Before it went the empty directory may be taken for one that somebody touched: then both sides have it.
        let is_left = at == "unplace-empty-before" && lab.a().join(DAYS[0]).exists();
        let left = if is_left { vec![DAYS[0].to_owned()] } else { Vec::new() };
        assert_eq!((lab.placed(), lab.stamped()), (left.clone(), left), "{at}");
        assert_eq!(lab.b().join(DAYS[0]).symlink_metadata().is_ok(), is_left, "{at}");
        assert_eq!(lab.cold().join(DAYS[0]).exists(), is_left, "{at}");
        assert!(FILES.iter().all(|file| !lab.b().join(DAYS[0]).join(file).exists()), "{at}");
        assert_eq!(lab.synchronise(), NOTHING, "{at}");
    }
}

#[test]
fn a_path_that_was_archived_once_is_free_for_a_link_of_a_user() {
    let lab = killed_after_a_removal("batch-swapped");
    lab.synchronise();
    write(&lab.a(), "2026/03/06/again", "again");
    lab.synchronise();
    fs::remove_dir_all(lab.b().join(DAYS[1])).unwrap();
    std::os::unix::fs::symlink("../../beside", lab.b().join(DAYS[1])).unwrap();
    lab.synchronise();
    assert!(lab.a().join(DAYS[1]).is_symlink());
}

#[test]
fn a_root_that_is_killed_while_it_joins_again_still_knows_what_lies_elsewhere() {
    for at in ["rejoin-begun", "rejoin-aside", "rejoin-replaced", "recover-swept"] {
        let lab = Lab::new();
        DAYS.iter().for_each(|day| lab.place(day));
        fs::remove_file(lab.a().join("2026/03/05/a.txt")).unwrap();
        lab.synchronise();
        let before = tree(&lab.a());
        fs::remove_file(lab.b().join(".driftless/marker")).unwrap();
        // A state of the other root is opened before this one's is begun.
        let nth = if at == "recover-swept" { 2 } else { 1 };
        assert!(killed_joining(lab.folder(), at, nth), "{at}");
        assert_eq!(lab.placed(), DAYS, "{at}");
        let report = rejoin(lab.folder());
        assert!(report.in_sync, "{at}: {:?}", report.problems);
        assert_eq!(lab.placed(), DAYS, "{at}");
        assert!(DAYS.iter().all(|day| lab.is_link(day)), "{at}");
        assert_eq!((tree(&lab.a()), tree(&lab.b())), (before.clone(), before), "{at}");
        assert!(!lab.b().join(".driftless/state.new").exists(), "{at}");
        let versions = sync_core::io::sync::Replica::open(&lab.b(), None).unwrap().versions(&rel("2026")).unwrap();
        assert!(versions.iter().any(|version| version.path == rel("2026/03/05/a.txt")), "{at}");
    }
}

#[test]
fn a_link_that_cannot_be_taken_away_with_its_day_is_never_one_of_a_user() {
    use fixtures::namespaces::{in_namespaces, run};
    in_namespaces("held::a_link_that_cannot_be_taken_away_with_its_day_is_never_one_of_a_user", |_folder| {
        let lab = Lab::new();
        lab.place(DAYS[0]);
        fs::remove_dir_all(lab.a().join(DAYS[0])).unwrap();
        // No rename leads from there to the private folder of the root.
        let above = lab.b().join("2026/03");
        run("mount", &["--bind", above.to_str().unwrap(), above.to_str().unwrap()]);
        lab.troubled();
        assert!(lab.is_link(DAYS[0]) && !lab.cold().join(DAYS[0]).exists());
        assert_eq!(lab.placed(), [DAYS[0]], "the placement stays with its link");
        lab.synchronise();
        assert!(lab.a().join(DAYS[0]).symlink_metadata().is_err(), "the link went to the other side");
        assert!(lab.b().join(DAYS[0]).symlink_metadata().is_err());
        assert_eq!((lab.placed(), lab.stamped()), (vec![], vec![]));
        assert!(lab.kept_cold()[0].join("sub/deep/d.txt").exists());
        run("umount", &[above.to_str().unwrap()]);
    });
}
