//! What is placed is watched like everything else.

use super::lab::{DAYS, Lab, Until, place_with, rel, write};
use std::fs;
use std::time::{Duration, Instant};
use sync_core::io::fs::Root;
use sync_core::io::places;
use sync_core::io::watch::{Options, Watch};
use sync_core::path::RelPath;
use sync_core::quiet::Change;

/// Waits until a change at or below a path, or around it, was told.
fn told(watch: &mut Watch, at: &RelPath) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "nothing was told of {at}");
        let changes = watch.wait(Duration::from_secs(1)).unwrap();
        let fits = |change: &Change| match change {
            Change::Touched(path) | Change::Tree(path) => at.contains(path) || path.contains(at),
            _ => true,
        };
        if changes.iter().any(fits) {
            return;
        }
    }
}

fn opened(lab: &Lab) -> Root {
    let root = Root::open(&lab.b()).unwrap();
    places::load(&root, &lab.state()).unwrap();
    root
}

#[test]
fn changes_in_placed_days_are_told_by_their_logical_paths() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    let root = opened(&lab);
    let mut watch = Watch::begin(&root, Options::standard(), None).unwrap();
    write(&lab.b(), "2026/03/05/sub/deep/new", "new");
    told(&mut watch, &rel("2026/03/05/sub/deep"));
    fs::create_dir(lab.cold().join("2026/03/05/made")).unwrap();
    told(&mut watch, &rel("2026/03/05/made"));
    fs::write(lab.cold().join("2026/03/05/made/in-it"), "new").unwrap();
    told(&mut watch, &rel("2026/03/05/made/in-it"));
    fs::rename(lab.b().join(DAYS[0]), lab.folder().join("link")).unwrap();
    told(&mut watch, &rel(DAYS[0]));
}

#[test]
fn a_day_that_is_placed_while_it_is_watched_is_watched_where_it_lies() {
    let lab = Lab::new();
    let root = opened(&lab);
    let mut watch = Watch::begin(&root, Options::standard(), None).unwrap();
    let state = lab.state();
    places::load(&root, &state).unwrap();
    place_with((&root, &state), &lab.cold(), DAYS[0], Until::Settled);
    told(&mut watch, &rel(DAYS[0]));
    while !watch.wait(Duration::from_millis(200)).unwrap().is_empty() {}
    fs::write(lab.cold().join("2026/03/05/sub/deep/late"), "late").unwrap();
    told(&mut watch, &rel("2026/03/05/sub/deep/late"));
}

#[test]
fn old_placed_days_are_left_to_a_schedule_if_that_is_asked_for() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    let all = Watch::begin(&opened(&lab), Options::standard(), None).unwrap().watched();
    let options = Options { placed_since: i64::MAX, ..Options::standard() };
    let watch = Watch::begin(&opened(&lab), options, None).unwrap();
    // The day with `sub` and `sub/deep`.
    assert_eq!((all - watch.watched(), watch.unwatched().count()), (3, 0));
}

#[test]
fn a_scan_that_leaves_cold_days_out_sees_that_they_are_there() {
    use sync_core::io::sync::{Live, Options};
    use sync_core::report::Silent;
    let lab = Lab::new();
    lab.place(DAYS[0]);
    let live = Live::open("folder".parse().unwrap(), &lab.b(), Options::standard(), true, &Silent).unwrap();
    let all = live.scan(&[], &Silent).unwrap();
    write(&lab.b(), "2026/03/05/late", "late");
    write(&lab.b(), "2026/03/06/late", "late");
    let hot = live.scan_hot(&Silent).unwrap();
    assert_eq!((hot.changed, hot.problems.len(), live.missing().unwrap()), (1, 0, vec![]));
    assert!(hot.entries < all.entries);
    assert_eq!(live.scan(&[rel(DAYS[0])], &Silent).unwrap().changed, 1);
    let marker = lab.cold().join(".driftless/cold");
    let text = fs::read(&marker).unwrap();
    fs::remove_file(&marker).unwrap();
    let before = live.standing().unwrap();
    live.scan_hot(&Silent).unwrap();
    assert_eq!((live.missing().unwrap(), live.standing().unwrap()), (vec![rel(DAYS[0])], before));
    fs::write(&marker, text).unwrap();
    live.scan_hot(&Silent).unwrap();
    assert_eq!(live.missing().unwrap(), []);
}
