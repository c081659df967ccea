//! Days that come from elsewhere and lie in the cold root from their beginning.

use super::NOTHING;
use super::lab::{DAYS, FirstDay, Lab, live_sync, tree, write};
use std::fs;

#[test]
fn days_that_are_old_are_made_in_the_cold_root_with_all_that_is_in_them() {
    let lab = Lab::without_days();
    write(&lab.a(), "2027/01/01/new", "hot");
    live_sync(&lab, FirstDay::In2026);
    assert_eq!(tree(&lab.a()), tree(&lab.b()));
    for day in DAYS {
        assert!(lab.is_link(day) && lab.cold().join(day).join("sub/deep/d.txt").exists(), "{day}");
    }
    assert!(!lab.is_link("2027/01/01"));
    assert_eq!(lab.placed(), DAYS);
    assert_eq!(lab.staged(), Vec::<std::path::PathBuf>::new());
    let knows = lab.knows();
    assert_eq!(lab.synchronise(), NOTHING);
    assert_eq!(lab.knows(), knows);
    // What comes later to such a day comes there.
    write(&lab.a(), "2026/03/05/later", "later");
    live_sync(&lab, FirstDay::In2026);
    assert!(lab.cold().join("2026/03/05/later").exists());
    assert_eq!(lab.synchronise(), NOTHING);
}

#[test]
fn a_day_whose_place_is_taken_or_whose_cold_root_is_missing_is_made_in_the_root() {
    let lab = Lab::without_days();
    fs::create_dir_all(lab.cold().join(DAYS[0])).unwrap();
    live_sync(&lab, FirstDay::In2026);
    assert_eq!(tree(&lab.a()), tree(&lab.b()));
    assert!(!lab.is_link(DAYS[0]) && lab.is_link(DAYS[1]));
    let lab = Lab::without_days();
    live_sync(&lab, FirstDay::InMissing);
    assert_eq!(tree(&lab.a()), tree(&lab.b()));
    assert!(DAYS.iter().all(|day| !lab.is_link(day)));
    assert_eq!(lab.synchronise(), NOTHING);
}
