//! Directories that lie in a cold root, with a link at their path: the engine sees through its own links, and through no other.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests make, change and look at files as users do, and say why they fail"
)]
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod away;
mod changes;
mod copied;
#[cfg(feature = "kill-points")]
mod held;
mod images;
#[cfg(feature = "kill-points")]
mod kills;
mod lab;
mod made;
mod older;
mod watched;

use lab::{DAYS, Lab, Until, place, tree, write};
use std::fs;
use std::os::unix::fs::symlink;
use sync_core::plan::Totals;

const NOTHING: [Totals; 2] =
    [Totals { created: 0, updated: 0, deleted: 0, moved: 0, conflicts: 0, skipped: 0, failed: 0, bytes: 0 }; 2];

#[test]
fn placing_days_makes_no_event_and_moves_nothing() {
    for lab in [Lab::new(), Lab::on_one()] {
        let (before, knows) = (tree(&lab.b()), lab.knows());
        DAYS.iter().for_each(|day| lab.place(day));
        assert_eq!(tree(&lab.b()), before);
        assert_eq!(lab.synchronise(), NOTHING);
        assert_eq!(lab.synchronise(), NOTHING);
        assert_eq!(lab.knows(), knows);
        assert!(DAYS.iter().all(|day| lab.is_link(day)));
        assert_eq!(tree(&lab.b()), before);
    }
}

#[test]
fn servers_place_independently_each_in_its_own_cold_root() {
    let lab = Lab::new();
    let other = tempfile::tempdir().unwrap();
    sync_core::io::fs::init_cold(other.path()).unwrap();
    let knows = lab.knows();
    lab.place(DAYS[0]);
    place(&lab.a(), &other.path().canonicalize().unwrap(), DAYS[0], Until::Settled);
    place(&lab.a(), &other.path().canonicalize().unwrap(), DAYS[1], Until::Settled);
    assert_eq!(lab.synchronise(), NOTHING);
    assert_eq!(lab.knows(), knows);
    write(&lab.a(), &format!("{}/from-a", DAYS[0]), "a");
    write(&lab.b(), &format!("{}/from-b", DAYS[1]), "b");
    lab.synchronise();
    assert!(other.path().join(DAYS[1]).join("from-b").exists() && lab.cold().join(DAYS[0]).join("from-a").exists());
}

#[test]
fn a_move_that_broke_off_anywhere_makes_no_event() {
    for until in [Until::Announced, Until::Exchanged] {
        let lab = Lab::new();
        let knows = lab.knows();
        place(&lab.b(), &lab.cold(), DAYS[0], until);
        assert_eq!(lab.synchronise(), NOTHING, "{until:?}");
        assert_eq!(lab.knows(), knows, "{until:?}");
        assert_eq!(lab.is_link(DAYS[0]), until == Until::Exchanged);
    }
}

#[test]
fn a_link_without_a_placement_is_a_link_wherever_it_leads() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    symlink(lab.cold().join(DAYS[0]), lab.b().join("2026/03/07")).unwrap();
    symlink(lab.cold(), lab.b().join("all")).unwrap();
    let report = lab.sync();
    assert!(report.in_sync, "{:?}", report.problems);
    for (path, target) in [("2026/03/07", lab.cold().join(DAYS[0])), ("all", lab.cold())] {
        assert_eq!(fs::read_link(lab.a().join(path)).unwrap(), target);
    }
    assert_eq!(report.totals[0].created, 2);
}

#[test]
fn a_cold_root_is_neither_the_root_nor_in_it_nor_around_it() {
    use sync_core::io::fs::{Root, init_cold};
    use sync_core::io::places::{PlaceError, use_cold};
    let lab = Lab::new();
    let inside = lab.b().join("inside");
    fs::create_dir(&inside).unwrap();
    let state =
        sync_core::io::state::State::open(&lab.b().join(".driftless"), sync_core::entry::AttrMask::standard(false)).unwrap();
    let root = Root::open(&lab.b()).unwrap();
    assert!(use_cold(&root, &state, lab.folder()).is_err(), "it bears no marker");
    // They became cold roots before anything was synchronised there.
    let other = tempfile::tempdir().unwrap();
    init_cold(other.path()).unwrap();
    let mark = |path: &std::path::Path| {
        fs::create_dir_all(path.join(".driftless")).unwrap();
        fs::copy(other.path().join(".driftless/cold"), path.join(".driftless/cold")).unwrap();
    };
    for cold in [lab.b(), inside, lab.folder().to_owned()] {
        mark(&cold);
        let refused = use_cold(&root, &state, &cold);
        assert!(matches!(refused, Err(PlaceError::Nested { .. })), "{refused:?}");
    }
    mark(&lab.a());
    let refused = use_cold(&root, &state, &lab.a());
    assert!(matches!(refused, Err(PlaceError::IsRoot(_))), "{refused:?}");
}

#[test]
fn a_cold_root_is_not_synchronised_itself() {
    use sync_core::io::sync::{Options, Replica, Sync};
    use sync_core::report::Silent;
    let lab = Lab::new();
    DAYS.iter().for_each(|day| lab.place(day));
    let other = tempfile::tempdir().unwrap();
    let refused = [(lab.cold(), other.path().to_owned()), (other.path().to_owned(), lab.cold())]
        .map(|(a, b)| Sync::open(&a, &b, Options::standard(), &Silent).err().unwrap().to_string());
    assert!(refused.iter().all(|refused| refused.contains("is a cold root")), "{refused:?}");
    assert!(Replica::open(&lab.cold(), None).err().unwrap().to_string().contains("is a cold root"));
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0, "nothing was begun");
    assert!(!lab.cold().join(".driftless/state.db").exists() && !lab.cold().join(".driftless/marker").exists());
}
