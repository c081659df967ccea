//! Moving days is killed with SIGKILL at every named place: at once, and after recovery, every file is readable through its hot
//! path, and there is one live copy.
//!
//! `cargo test -p sync-core --features kill-points --test archive_kills`
#![allow(clippy::disallowed_methods, reason = "tests make, change and look at files as users do")]
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use sync_core::io::archive::{Archive, LinkForm, MoveOptions};
use sync_core::io::fs::init_cold;
use sync_core::io::kill::{ARCHIVE_POINTS, arm};
use sync_core::io::sync::Replica;
use sync_core::path::RelPath;
use sync_core::report::Silent;

const CHILD: &str = "DRIFTLESS_TEST_ARCHIVE_CHILD";
const DAY: &str = "2026/03/05";

/// Two roots: on one file system, or the cold one on another.
struct Roots {
    hot: tempfile::TempDir,
    cold: tempfile::TempDir,
}

fn roots(other_disk: bool) -> Roots {
    let memory = Path::new("/dev/shm");
    let cold = match other_disk && memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    };
    let roots = Roots { hot: tempfile::tempdir().unwrap(), cold };
    let day = roots.hot.path().join(DAY);
    fs::create_dir_all(day.join("sub")).unwrap();
    for (name, bytes) in [("a", "first a"), ("b", "first b"), ("sub/c", "first c"), ("gone", "first gone")] {
        fs::write(day.join(name), bytes).unwrap();
    }
    fs::hard_link(day.join("a"), day.join("sub/a-too")).unwrap();
    std::os::unix::fs::symlink("../b", day.join("sub/link")).unwrap();
    std::os::unix::fs::symlink("../../../aside", day.join("out")).unwrap();
    fs::write(roots.hot.path().join("aside"), "beside the days").unwrap();
    init_cold(roots.cold.path()).unwrap();
    roots
}

fn day() -> RelPath {
    RelPath::parse(DAY.as_bytes()).unwrap()
}

fn options() -> MoveOptions {
    MoveOptions { form: LinkForm::Absolute, rewrite: true, keep: Duration::ZERO }
}

fn with<T>(hot: &Path, work: impl FnOnce(&Archive<'_>) -> T) -> T {
    let replica = Replica::begin(hot, None, &Silent).unwrap();
    let archive = replica.archive(&Silent).unwrap();
    work(&archive)
}

fn is_link(hot: &Path) -> bool {
    fs::symlink_metadata(hot.join(DAY)).unwrap().is_symlink()
}

/// What stands in the day, as readers see it.
fn shown(hot: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![(hot.join(DAY), String::new())];
    while let Some((dir, prefix)) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().display());
            if entry.file_type().unwrap().is_dir() {
                dirs.push((entry.path(), format!("{name}/")));
            } else {
                found.insert(name, fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    found
}

/// The works that are killed. Each can be begun again after it was.
fn work(name: &str, hot: &Path, cold: &Path) {
    let far = i64::MAX;
    with(hot, |archive| {
        let recovered = archive.recover().unwrap();
        assert!(recovered.problems.is_empty(), "{:?}", recovered.problems);
        let moved = |archive: &Archive<'_>| {
            if !is_link(hot) {
                let cold = archive.cold(cold).unwrap();
                archive.move_day(&day(), &cold, &options()).unwrap();
            }
        };
        let settle = |archive: &Archive<'_>| {
            // Once to bring over, once to remove what is quiet.
            for _ in 0..2 {
                let settled = archive.settle_displaced(far).unwrap();
                assert!(settled.problems.is_empty(), "{:?}", settled.problems);
            }
        };
        match name {
            "prepare" => moved(archive),
            "recover" => {}
            "move" => {
                moved(archive);
                settle(archive);
            }
            "late" => {
                let path = hot.join(DAY);
                if is_link(hot) {
                    return settle(archive);
                }
                let mut a = fs::OpenOptions::new().append(true).open(path.join("b")).unwrap();
                let both = fs::OpenOptions::new().write(true).open(path.join("sub/c")).unwrap();
                let old = fs::File::open(&path).unwrap();
                moved(archive);
                a.write_all(b", and late").unwrap();
                both.write_all_at(b"FIRST", 0).unwrap();
                fs::write(path.join("sub/c"), "through the link").unwrap();
                let through = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&old)));
                fs::write(through.join("new"), "late and new").unwrap();
                fs::create_dir(through.join("made")).unwrap();
                fs::write(through.join("made/x"), "late and below").unwrap();
                fs::remove_file(through.join("gone")).unwrap();
                settle(archive);
            }
            "restore" => {
                if is_link(hot) {
                    archive.restore_day(&day(), Duration::ZERO).unwrap();
                }
                settle(archive);
            }
            "relink" => {
                archive.relink(&day(), &LinkForm::Relative).unwrap();
            }
            "anew" => {
                archive.merge_anew(&day(), Duration::ZERO).unwrap();
                settle(archive);
            }
            "repair" => {
                let good = |path: &RelPath, _, _| {
                    Ok(fs::File::open(hot.join("good").join(path.name().unwrap().as_bytes().escape_ascii().to_string())).unwrap())
                };
                let scrub = archive.scrub(&day(), Some(&good)).unwrap();
                assert!(scrub.damaged.iter().all(|damage| damage.repaired), "{:?}", scrub.damaged);
            }
            _ => panic!("unknown work {name}"),
        }
    });
}

#[test]
fn child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let parts: Vec<&str> = order.split('\n').collect();
    let [name, hot, cold, place, nth] = parts[..] else { panic!("no order: {order}") };
    arm(place, nth.parse().unwrap());
    work(name, Path::new(hot), Path::new(cold));
}

/// Runs this binary again to do some work, to be killed at the `nth` passing of a place. True if it was.
fn killed(name: &str, roots: &Roots, place: &str, nth: u32) -> bool {
    let (hot, cold) = (roots.hot.path().display(), roots.cold.path().display());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--test-threads=1"])
        .env(CHILD, format!("{name}\n{hot}\n{cold}\n{place}\n{nth}"))
        .output()
        .unwrap();
    let by_signal = child.status.signal() == Some(9);
    let told = [child.stdout, child.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(by_signal || child.status.success(), "{name} {place}: {}{}", told[0], told[1]);
    by_signal
}

/// Nothing of a move is left: no journal, no copy on its way, and in the cold root the day if and only if the link leads there.
fn assert_one_copy(roots: &Roots, what: &str) {
    let journal = roots.hot.path().join(".driftless/archive");
    let names: Vec<_> = fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.is_empty(), "{what}: left in the journal: {names:?}");
    let in_cold = roots.cold.path().join(DAY).symlink_metadata().is_ok();
    assert_eq!(in_cold, is_link(roots.hot.path()), "{what}: copies");
    for key in fs::read_dir(roots.cold.path().join(".driftless")).unwrap() {
        let moving = key.unwrap().path().join("moving");
        let left = fs::read_dir(&moving).map(|dir| dir.count()).unwrap_or(0);
        assert_eq!(left, 0, "{what}: copies on their way in {}", moving.display());
    }
}

fn late() -> BTreeMap<String, String> {
    let mut wanted = shown(roots(true).hot.path());
    wanted.insert("b".into(), "first b, and late".into());
    wanted.insert("sub/link".into(), "first b, and late".into());
    wanted.insert("new".into(), "late and new".into());
    wanted.insert("made/x".into(), "late and below".into());
    wanted.remove("gone");
    wanted.insert("sub/c".into(), "through the link".into());
    wanted
}

#[test]
fn a_move_killed_anywhere_loses_nothing_and_is_finished_or_given_up() {
    let mut reached = BTreeSet::new();
    for (name, other_disk, prepared) in [
        ("move", true, &[][..]),
        ("move", false, &[]),
        ("adopt", true, &[]),
        ("restore", true, &["prepare"]),
        ("restore", false, &["prepare"]),
        ("relink", true, &["prepare"]),
    ] {
        for place in ARCHIVE_POINTS {
            for nth in [1, 3] {
                let what = format!("{name} (other disk: {other_disk}) {place} {nth}");
                let roots = roots(other_disk);
                let (hot, cold) = (roots.hot.path(), roots.cold.path());
                if !other_disk {
                    // A link that leads out makes it a copy.
                    fs::remove_file(hot.join(DAY).join("out")).unwrap();
                }
                let wanted = shown(hot);
                prepared.iter().for_each(|name| work(name, hot, cold));
                let name = if name == "adopt" {
                    let copy = Command::new("cp").args(["-a", "--parents", DAY]).arg(cold).current_dir(hot).status().unwrap();
                    assert!(copy.success());
                    // As the move would write it.
                    fs::remove_file(cold.join(DAY).join("out")).unwrap();
                    let aside = hot.canonicalize().unwrap().join("aside");
                    std::os::unix::fs::symlink(aside, cold.join(DAY).join("out")).unwrap();
                    "move"
                } else {
                    name
                };
                if !killed(name, &roots, place, nth) {
                    break;
                }
                reached.insert(*place);
                assert_eq!(shown(hot), wanted, "{what}: right after the kill");
                work("recover", hot, cold);
                assert_eq!(shown(hot), wanted, "{what}: after recovery");
                work(name, hot, cold);
                assert_eq!(shown(hot), wanted, "{what}: at the end");
                assert_eq!(is_link(hot), name != "restore", "{what}");
                if name != "relink" {
                    assert_one_copy(&roots, &what);
                }
                // And a second round finds nothing in its way.
                work("restore", hot, cold);
                work("move", hot, cold);
                assert_eq!(shown(hot), wanted, "{what}: second round");
            }
        }
    }
    let rest: Vec<_> = ARCHIVE_POINTS.iter().filter(|place| !reached.contains(*place)).collect();
    let elsewhere = |place: &str| ["-late-", "-abandon", "-recover", "-repair", "-anew-"].iter().any(|part| place.contains(part));
    assert!(rest.iter().all(|place| elsewhere(place)), "not reached: {rest:?}");
}

#[test]
fn late_writes_survive_a_kill_while_they_are_brought_over() {
    let wanted = late();
    for place in
        ARCHIVE_POINTS.iter().filter(|place| place.contains("-late-") || place.contains("gone") || place.contains("going"))
    {
        for nth in [1, 2] {
            let roots = roots(true);
            let (hot, cold) = (roots.hot.path(), roots.cold.path());
            if !killed("late", &roots, place, nth) {
                assert_eq!(nth, 2, "{place} was not reached");
                break;
            }
            work("recover", hot, cold);
            work("move", hot, cold);
            let mut found = shown(hot);
            // What both places saw changed is kept twice.
            let beside: Vec<String> = found.keys().filter(|name| name.contains("conflict-late")).cloned().collect();
            let copies: Vec<String> = beside.iter().filter_map(|name| found.remove(name)).collect();
            assert_eq!(copies, ["FIRST c"], "{place} {nth}");
            assert_eq!(found, wanted, "{place} {nth}");
            assert_one_copy(&roots, place);
        }
    }
}

#[test]
fn a_move_that_cannot_be_finished_is_given_up_wherever_that_is_killed() {
    let mut reached = 0;
    for first in ["archive-copy-ready", "archive-published", "archive-announced", "archive-swap-recorded"] {
        for second in ARCHIVE_POINTS.iter().filter(|place| place.contains("abandon") || place.contains("recover")) {
            let what = format!("{first}, then {second}");
            let roots = roots(true);
            let (hot, cold) = (roots.hot.path(), roots.cold.path());
            assert!(killed("move", &roots, first, 1), "{what}");
            // Somebody writes to the day before it is finished.
            fs::write(hot.join(DAY).join("b"), "written meanwhile").unwrap();
            let wanted = shown(hot);
            if !killed("recover", &roots, second, 1) {
                continue;
            }
            reached += 1;
            assert_eq!(shown(hot), wanted, "{what}");
            work("recover", hot, cold);
            assert!(!is_link(hot), "{what}");
            assert_eq!(shown(hot), wanted, "{what}");
            assert_one_copy(&roots, &what);
            work("move", hot, cold);
            assert_eq!(shown(hot), wanted, "{what}");
            assert_one_copy(&roots, &what);
        }
    }
    assert!(reached >= 12, "{reached}");
}

#[test]
fn a_repair_that_is_killed_leaves_a_whole_file_or_the_damaged_one() {
    for (name, place, nth) in [
        ("b", "archive-repair-ready", 1),
        ("b", "archive-repaired", 1),
        ("a", "archive-repair-ready", 1),
        ("a", "archive-repaired", 1),
        ("a", "archive-repaired", 2),
    ] {
        let roots = roots(true);
        let (hot, cold) = (roots.hot.path(), roots.cold.path());
        let wanted = shown(hot);
        work("move", hot, cold);
        fs::create_dir(hot.join("good")).unwrap();
        fs::write(hot.join("good").join(name), format!("first {name}")).unwrap();
        fixtures::damage::flip(cold, &cold.join(DAY).join(name), 2).unwrap();
        let damaged = shown(hot);
        assert!(damaged != wanted);
        let found = with(hot, |archive| archive.scrub(&day(), None).unwrap());
        assert_eq!((found.damaged.len(), found.damaged[0].repaired, found.changed), (1, false, 0), "{name} {place}");
        assert!(killed("repair", &roots, place, nth), "{name} {place} {nth}");
        let halfway = shown(hot);
        assert!(halfway.iter().all(|(path, bytes)| [&wanted[path], &damaged[path]].contains(&bytes)), "{name} {place} {nth}");
        // What was begun is finished, even where nothing can be asked for the bytes any more.
        let found = with(hot, |archive| archive.scrub(&day(), None).unwrap());
        assert!(found.damaged.is_empty(), "{name} {place} {nth}: {found:?}");
        assert_eq!(shown(hot), wanted, "{name} {place} {nth}");
        let links = |path: &str| std::os::unix::fs::MetadataExt::nlink(&fs::metadata(hot.join(DAY).join(path)).unwrap());
        assert_eq!((links("a"), links("sub/a-too"), links("b")), (2, 2, 1), "names of one file stay together");
        work("repair", hot, cold);
        assert!(with(hot, |archive| archive.scrub(&day(), None).unwrap()).damaged.is_empty());
    }
}

/// An archived day whose link was taken away, and a directory made in its place.
fn made_anew() -> Roots {
    let roots = roots(true);
    let (hot, cold) = (roots.hot.path(), roots.cold.path());
    work("move", hot, cold);
    let path = hot.join(DAY);
    fs::remove_file(&path).unwrap();
    fs::create_dir_all(path.join("sub/more")).unwrap();
    for (name, bytes) in [("a", "another a"), ("b", "first b"), ("new", "new"), ("sub/more/x", "x")] {
        fs::write(path.join(name), bytes).unwrap();
    }
    fs::hard_link(path.join("new"), path.join("sub/more/new-too")).unwrap();
    std::os::unix::fs::symlink("../../../aside", path.join("way-out")).unwrap();
    fs::set_permissions(path.join("sub/more"), std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
    roots
}

#[test]
fn a_merge_of_a_day_made_anew_that_is_killed_anywhere_loses_nothing_and_keeps_nothing_twice() {
    let mut reached = BTreeSet::new();
    let as_it_was = roots(true);
    for place in ARCHIVE_POINTS {
        for nth in [1, 3] {
            let what = format!("{place} {nth}");
            let roots = made_anew();
            let (hot, cold) = (roots.hot.path(), roots.cold.path());
            let alone = shown(hot);
            let mut wanted = shown(as_it_was.hot.path());
            for (name, bytes) in
                [("new", "new"), ("sub/more/x", "x"), ("sub/more/new-too", "new"), ("way-out", "beside the days")]
            {
                wanted.insert(name.into(), bytes.into());
            }
            if !killed("anew", &roots, place, nth) {
                break;
            }
            reached.insert(*place);
            if !is_link(hot) {
                assert_eq!(shown(hot), alone, "{what}: until the exchange it is as it was");
            }
            work("recover", hot, cold);
            work("anew", hot, cold);
            let mut found = shown(hot);
            let beside: Vec<String> = found.keys().filter(|name| name.contains("conflict-late")).cloned().collect();
            let copies: Vec<String> = beside.iter().filter_map(|name| found.remove(name)).collect();
            assert_eq!(copies, ["another a"], "{what}: {beside:?}");
            assert_eq!(found, wanted, "{what}");
            let of = |name: &str| fs::metadata(hot.join(DAY).join(name)).unwrap();
            assert_eq!(std::os::unix::fs::PermissionsExt::mode(&of("sub/more").permissions()) & 0o777, 0o750, "{what}");
            assert_one_copy(&roots, &what);
            work("restore", hot, cold);
            work("move", hot, cold);
            found = shown(hot);
            found.retain(|name, _| !name.contains("conflict-late"));
            assert_eq!(found, wanted, "{what}: second round");
        }
    }
    let missed: Vec<_> = ARCHIVE_POINTS.iter().filter(|place| place.contains("-anew-") && !reached.contains(*place)).collect();
    assert!(missed.is_empty() && reached.len() >= 14, "{missed:?} {reached:?}");
}
