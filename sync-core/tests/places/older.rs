//! States that are older than what lies elsewhere: a link of ours that they know nothing of is no user's link.

use super::lab::{DAYS, Lab, tree, write};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

const TOLD: &str = "a link stands here that may be one to an archive";

fn state(lab: &Lab) -> std::path::PathBuf {
    lab.b().join(".driftless/state.db")
}

/// Does something, after which the state is what it was before: the same file with older content, as after a crash of its file system.
fn forgotten(lab: &Lab, make: impl FnOnce()) {
    let old = fs::read(state(lab)).unwrap();
    make();
    fs::write(state(lab), old).unwrap();
}

fn hide(cold: &Path) {
    for name in [".driftless", "2026"] {
        fs::rename(cold.join(name), cold.join(format!("{name}.away"))).unwrap();
    }
}

/// A run tells of the link, and changes nothing at the other root.
fn told_and_kept(lab: &Lab, what: &str) {
    let before = tree(&lab.a());
    for _ in 0..2 {
        let problems = lab.troubled();
        assert!(problems.iter().any(|problem| problem.contains(TOLD)), "{what}: {problems:?}");
        assert_eq!(tree(&lab.a()), before, "{what}");
    }
}

#[test]
fn a_state_from_before_the_first_placement_sends_no_link_in_the_place_of_a_day() {
    let lab = Lab::new();
    forgotten(&lab, || lab.place(DAYS[0]));
    told_and_kept(&lab, "absolute");
    let up = "../".repeat(lab.b().canonicalize().unwrap().components().count() + 1);
    fs::remove_file(lab.b().join(DAYS[0])).unwrap();
    symlink(format!("{up}{}/{}", lab.cold().display(), DAYS[0]), lab.b().join(DAYS[0])).unwrap();
    told_and_kept(&lab, "relative");
}

#[test]
fn while_a_known_cold_root_is_away_no_link_supplants_a_directory() {
    let lab = Lab::new();
    lab.place(DAYS[1]);
    forgotten(&lab, || lab.place(DAYS[0]));
    hide(&lab.cold());
    told_and_kept(&lab, "away");
}

#[test]
fn a_link_that_reads_as_ours_and_leads_nowhere_supplants_no_directory_with_rows() {
    let lab = Lab::new();
    forgotten(&lab, || lab.place(DAYS[0]));
    hide(&lab.cold());
    told_and_kept(&lab, "away and unknown");
    // Any other link in the place of a directory is a user's.
    fs::remove_file(lab.b().join(DAYS[0])).unwrap();
    symlink("nowhere", lab.b().join(DAYS[0])).unwrap();
    let report = lab.sync();
    assert!(report.in_sync, "{:?}", report.problems);
    assert_eq!(fs::read_link(lab.a().join(DAYS[0])).unwrap(), Path::new("nowhere"));
}

#[test]
fn a_day_that_the_older_state_never_saw_goes_out_as_no_link() {
    let lab = Lab::new();
    write(&lab.b(), "2026/05/beside", "beside");
    lab.synchronise();
    forgotten(&lab, || {
        write(&lab.b(), "2026/05/01/new", "new");
        lab.place("2026/05/01");
    });
    told_and_kept(&lab, "new day");
    assert!(!lab.a().join("2026/05").join("01").exists());
}
