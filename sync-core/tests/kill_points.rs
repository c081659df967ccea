//! A run is killed with SIGKILL at every named place; the next run must end where an undisturbed one does, and every
//! byte that a user wrote must still stand somewhere.
//!
//! `cargo test -p sync-core --features kill-points --test kill_points`
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests make, change and look at files as users do, and say why they fail"
)]
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use sync_core::io::kill::{KILL_POINTS, arm};
use sync_core::io::sync::{Options, Policy, Replica, Sync};
use sync_core::path::RelPath;
use sync_core::report::Silent;

const CHILD: &str = "DRIFTLESS_TEST_CHILD";

/// Path to content; directories have none.
type Tree = BTreeMap<String, Option<String>>;

fn write(root: &Path, path: &str, bytes: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn options(keep: bool) -> Options {
    let mut options = Options { conflicts: Policy::KeepBoth, max_delete: None, ..Options::standard() };
    if !keep {
        options.keep_versions = None;
    }
    options
}

fn synchronise(folder: &Path, keep: bool) -> bool {
    let mut sync = Sync::open(&folder.join("a"), &folder.join("b"), options(keep), &Silent).unwrap();
    let report = sync.apply(&Silent).unwrap();
    if !report.in_sync {
        eprintln!("{:?} {:?}", report.totals, report.problems);
    }
    report.in_sync
}

/// Two roots that were equal once, and were then edited in every way.
fn prepare(folder: &Path) {
    let [a, b] = ["a", "b"].map(|side| folder.join(side));
    for root in [&a, &b] {
        fs::create_dir(root).unwrap();
    }
    let first =
        ["replaced", "removed", "meta", "conflict.txt", "mv-old", "tree/x", "tree/sub/y", "dir-old/1", "dir-old/s/2", "to-dir"];
    for path in first {
        write(&a, path, &format!("first {path}"));
    }
    write(&a, "to-file/inside", "first inside");
    fs::create_dir(a.join("empty")).unwrap();
    assert!(synchronise(folder, true));
    for (root, side) in [(&a, "a"), (&b, "b")] {
        write(root, "conflict.txt", &format!("{side}'s conflict"));
        write(root, &format!("new-{side}"), &format!("new {side}"));
        for number in 0..12 {
            write(root, &format!("many-{side}/{}/{number}", number % 3), &format!("{side} {number}"));
        }
        std::os::unix::fs::symlink("target", root.join(format!("link-{side}"))).unwrap();
    }
    write(&a, "replaced", "second replaced");
    fs::remove_file(a.join("removed")).unwrap();
    fs::set_permissions(a.join("meta"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(a.join("mv-old"), a.join("mv-new")).unwrap();
    fs::remove_dir_all(a.join("tree")).unwrap();
    fs::rename(a.join("dir-old"), a.join("dir-new")).unwrap();
    fs::remove_file(a.join("to-dir")).unwrap();
    write(&a, "to-dir/file", "in the directory");
    fs::remove_dir_all(a.join("to-file")).unwrap();
    write(&a, "to-file", "a file now");
    fs::remove_dir(a.join("empty")).unwrap();
}

/// What a root shows. Names of conflict copies are cut: they bear times and random labels.
fn tree(root: &Path) -> Tree {
    let walk = walkdir::WalkDir::new(root).min_depth(1).into_iter();
    walk.filter_entry(|entry| entry.file_name() != ".driftless")
        .map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().strip_prefix(root).unwrap().display().to_string();
            let path =
                path.split(".conflict-").next().unwrap().to_owned() + if path.contains(".conflict-") { " (copy)" } else { "" };
            let content = entry.file_type().is_file().then(|| fs::read_to_string(entry.path()).unwrap());
            (path, content)
        })
        .collect()
}

/// Every content below a folder, kept versions included.
fn all_bytes(folder: &Path) -> Vec<String> {
    let files = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    files.map(|entry| String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned()).collect()
}

/// Runs this binary again to do `work` in `folder`, to be killed at the `nth` passing of a place. True if it was.
fn killed(work: &str, folder: &Path, place: &str, nth: u32) -> bool {
    let order = format!("{work}\n{}\n{place}\n{nth}", folder.display());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--test-threads=1"])
        .env(CHILD, order)
        .output()
        .unwrap();
    let by_signal = child.status.signal() == Some(9);
    assert!(by_signal || child.status.success(), "{work} {place}: {}", String::from_utf8_lossy(&child.stdout));
    by_signal
}

#[test]
fn child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let parts: Vec<&str> = order.split('\n').collect();
    let [work, folder, place, nth] = parts[..] else { panic!("no order: {order}") };
    arm(place, nth.parse().unwrap());
    let folder = Path::new(folder);
    match work {
        "keep" => drop(synchronise(folder, true)),
        "drop" => drop(synchronise(folder, false)),
        "restore" => restore(folder, "replaced"),
        "restore tree" => restore(folder, "tree"),
        _ => panic!("unknown work {work}"),
    }
}

fn restore(folder: &Path, path: &str) {
    let mut replica = Replica::open(&folder.join("b"), None).unwrap();
    replica.restore(&RelPath::parse(path.as_bytes()).unwrap(), None).unwrap();
}

/// Two equal roots with a folder; another one, which stood at its path before, is among the kept versions of b. Returns
/// what the roots showed then, and what they show now.
fn prepare_versions_of_a_folder(folder: &Path) -> [Tree; 2] {
    let [a, b] = ["a", "b"].map(|side| folder.join(side));
    for root in [&a, &b] {
        fs::create_dir(root).unwrap();
    }
    for path in ["tree/x", "tree/sub/y", "stays"] {
        write(&a, path, &format!("first {path}"));
    }
    assert!(synchronise(folder, true));
    let older = tree(&b);
    fs::remove_dir_all(a.join("tree")).unwrap();
    assert!(synchronise(folder, true));
    for path in ["tree/x", "tree/z"] {
        write(&a, path, &format!("second {path}"));
    }
    assert!(synchronise(folder, true));
    [older, tree(&b)]
}

/// When the kept versions of the folder were displaced.
fn kept_at_ns(folder: &Path) -> Vec<i64> {
    let versions = Replica::open(&folder.join("b"), None).unwrap().versions(&RelPath::parse(b"tree").unwrap()).unwrap();
    versions.iter().map(|version| version.kept_at_ns).collect()
}

fn undisturbed() -> Tree {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    assert!(synchronise(folder.path(), true));
    let tree_a = tree(&folder.path().join("a"));
    assert_eq!(tree_a, tree(&folder.path().join("b")));
    tree_a
}

fn assert_ends_well(folder: &Path, wanted: &Tree, what: &str) {
    assert!(synchronise(folder, true), "{what}: not in sync");
    for side in ["a", "b"] {
        assert_eq!(&tree(&folder.join(side)), wanted, "{what}: {side}");
        let stage = fs::read_dir(folder.join(side).join(".driftless/stage")).unwrap();
        assert_eq!(stage.count(), 0, "{what}: {side} has staged objects left");
    }
    let all = all_bytes(folder);
    for bytes in ["a's conflict", "b's conflict"] {
        assert!(all.iter().any(|found| found == bytes), "{what}: {bytes:?} is lost");
    }
}

#[test]
fn a_killed_run_is_finished_by_the_next_wherever_it_was_killed() {
    let wanted = undisturbed();
    let mut reached = Vec::new();
    for place in KILL_POINTS {
        for nth in [1, 2, 5] {
            let folder = tempfile::tempdir().unwrap();
            prepare(folder.path());
            if !killed("keep", folder.path(), place, nth) {
                break;
            }
            reached.push(*place);
            assert_ends_well(folder.path(), &wanted, &format!("{place} {nth}"));
            let all = all_bytes(folder.path());
            for bytes in ["first replaced", "first removed", "first tree/x", "first to-dir"] {
                assert!(all.iter().any(|found| found == bytes), "{place} {nth}: {bytes:?} is in no kept version");
            }
        }
    }
    reached.dedup();
    assert!(reached.len() >= 30, "only {} places were reached: {reached:?}", reached.len());
}

#[test]
fn a_kill_in_recovery_is_recovered_from() {
    let wanted = undisturbed();
    for first in ["exchange-after", "remove-tree-after", "batch-swapped"] {
        for second in KILL_POINTS.iter().filter(|place| place.starts_with("recover-")) {
            let folder = tempfile::tempdir().unwrap();
            prepare(folder.path());
            assert!(killed("keep", folder.path(), first, 1), "{first}");
            killed("keep", folder.path(), second, 1);
            assert_ends_well(folder.path(), &wanted, &format!("{first}, then {second}"));
        }
    }
}

#[test]
fn a_kill_while_versions_are_dropped_or_restored_leaves_the_roots_whole() {
    let wanted = undisturbed();
    for place in ["prune-checked", "prune-removed", "finish-late-checked"] {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        assert!(killed("drop", folder.path(), place, 2), "{place}");
        assert_ends_well(folder.path(), &wanted, place);
    }
    for place in ["restore-recorded", "restore-exchanged", "restore-renamed"] {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        assert!(synchronise(folder.path(), true));
        assert!(killed("restore", folder.path(), place, 1), "{place}");
        assert!(synchronise(folder.path(), true), "{place}");
        let all = all_bytes(folder.path());
        for bytes in ["first replaced", "second replaced"] {
            assert!(all.iter().any(|found| found == bytes), "{place}: {bytes:?} is lost");
        }
    }
}

#[test]
fn a_killed_restore_of_a_folder_is_done_whole_or_not_at_all() {
    let restored = ["restore-exchanged", "restore-renamed", "restore-forgotten"];
    for (first, second) in [
        ("restore-intended", None),
        ("restore-recorded", None),
        ("restore-exchanged", None),
        ("restore-exchanged", Some("recover-restored")),
        ("restore-renamed", None),
        ("restore-forgotten", None),
    ] {
        let what = format!("{first}, then {second:?}");
        let home = tempfile::tempdir().unwrap();
        let folder = home.path();
        let [older, newer] = prepare_versions_of_a_folder(folder);
        let (a, b) = (folder.join("a"), folder.join("b"));
        let before = kept_at_ns(folder);
        assert_eq!(before.len(), 1, "{what}");
        assert!(killed("restore tree", folder, first, 1), "{what}");
        if let Some(second) = second {
            assert!(killed("keep", folder, second, 1), "{what}");
        }
        assert!(synchronise(folder, true), "{what}");
        let after = kept_at_ns(folder);
        assert_eq!(after.len(), 1, "{what}: {after:?}");
        if restored.contains(&first) {
            assert_eq!(tree(&b), older, "{what}");
            assert!(after > before, "{what}: what was displaced bears the age of what returned");
        } else {
            assert_eq!((tree(&b), &after), (newer, &before), "{what}");
        }
        assert_eq!(tree(&a), tree(&b), "{what}");
        restore(folder, "tree");
        let wanted = if restored.contains(&first) { "second" } else { "first" };
        assert_eq!(fs::read_to_string(b.join("tree/x")).unwrap(), format!("{wanted} tree/x"), "{what}: restored once more");
        assert!(synchronise(folder, true), "{what}");
        assert_eq!(tree(&a), tree(&b), "{what}");
    }
}
