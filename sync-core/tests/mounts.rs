//! Other file systems mounted below a root: content is staged, swapped and kept on the mount it belongs to.
//!
//! Each test runs again as a child in a mount namespace of its own, where it may mount. Where the system forbids such
//! namespaces, it says so and proves nothing.
#![allow(clippy::disallowed_methods, reason = "tests make, change and look at files as users do")]
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use fixtures::namespaces::{in_namespaces, mount_tmpfs, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use sync_core::io::link::local_pair;
use sync_core::io::sync::{Ear, Export, Host, HostOptions, Kept, Live, Member, Options, Replica, Sync};
use sync_core::path::RelPath;
use sync_core::peer::{Mode, PublicKey};
use sync_core::report::Silent;

fn write(root: &Path, path: &str, bytes: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn synchronise(folder: &Path) {
    let options = Options { max_delete: None, ..Options::standard() };
    let mut sync = Sync::open(&folder.join("a"), &folder.join("b"), options, &Silent).unwrap();
    let report = sync.apply(&Silent).unwrap();
    assert!(report.in_sync, "{:?} {:?}", report.totals, report.problems);
}

fn tree(root: &Path) -> Vec<(PathBuf, Option<String>)> {
    let mut tree: Vec<_> = walkdir::WalkDir::new(root)
        .min_depth(1)
        .into_iter()
        .filter_entry(|entry| entry.file_name() != ".driftless")
        .map(|entry| {
            let entry = entry.unwrap();
            let content = entry.file_type().is_file().then(|| fs::read_to_string(entry.path()).unwrap());
            (entry.path().strip_prefix(root).unwrap().to_owned(), content)
        })
        .collect();
    tree.sort();
    tree
}

fn kept(private: &Path) -> usize {
    fs::read_dir(private.join("versions")).map_or(0, Iterator::count)
}

/// Creates, replaces, moves and removes below `mnt`, which lies on another mount at `b`.
fn change_everything_below(folder: &Path) {
    let [a, b] = ["a", "b"].map(|side| folder.join(side));
    for path in ["mnt/old", "mnt/gone", "mnt/tree/x", "mnt/move", "outside", "mnt/to-dir"] {
        write(&a, path, &format!("first {path}"));
    }
    synchronise(folder);
    assert_eq!(tree(&a), tree(&b));
    write(&a, "mnt/old", "second, and longer");
    fs::remove_file(a.join("mnt/gone")).unwrap();
    fs::remove_dir_all(a.join("mnt/tree")).unwrap();
    fs::rename(a.join("mnt/move"), a.join("mnt/moved")).unwrap();
    fs::rename(a.join("outside"), a.join("mnt/inside")).unwrap();
    fs::remove_file(a.join("mnt/to-dir")).unwrap();
    write(&a, "mnt/to-dir/file", "in the directory");
    write(&a, "mnt/new/deep/file", "new");
    synchronise(folder);
    assert_eq!(tree(&a), tree(&b));
    assert_eq!(kept(&b.join("mnt/.driftless")), 4, "the versions are kept on their own mount");
    assert_eq!(fs::read_dir(b.join("mnt/.driftless/stage")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(b.join(".driftless/stage")).unwrap().count(), 0);
    let mut replica = Replica::open(&b, None).unwrap();
    replica.restore(&RelPath::parse(b"mnt/old").unwrap(), None).unwrap();
    replica.restore(&RelPath::parse(b"mnt/tree").unwrap(), None).unwrap();
    drop(replica);
    assert_eq!(fs::read_to_string(b.join("mnt/old")).unwrap(), "first mnt/old");
    assert_eq!(fs::read_to_string(b.join("mnt/tree/x")).unwrap(), "first mnt/tree/x");
    synchronise(folder);
    assert_eq!(fs::read_to_string(a.join("mnt/old")).unwrap(), "first mnt/old");
}

#[test]
fn another_file_system_below_the_root_is_written_like_the_root_itself() {
    in_namespaces("another_file_system_below_the_root_is_written_like_the_root_itself", |folder| {
        fs::create_dir(folder.join("a")).unwrap();
        mount_tmpfs(&folder.join("b/mnt"));
        change_everything_below(folder);
    });
}

#[test]
fn a_bind_mount_of_the_same_file_system_is_another_mount() {
    in_namespaces("a_bind_mount_of_the_same_file_system_is_another_mount", |folder| {
        fs::create_dir(folder.join("a")).unwrap();
        fs::create_dir_all(folder.join("elsewhere")).unwrap();
        fs::create_dir_all(folder.join("b/mnt")).unwrap();
        run("mount", &["--bind", folder.join("elsewhere").to_str().unwrap(), folder.join("b/mnt").to_str().unwrap()]);
        change_everything_below(folder);
    });
}

fn unmount(at: &Path) {
    run("umount", &[at.to_str().unwrap()]);
}

/// A file system that keeps its content while it is not mounted: a bind mount of a folder beside the roots.
fn mount_disk(folder: &Path, at: &Path) {
    fs::create_dir_all(folder.join("disk")).unwrap();
    fs::create_dir_all(at).unwrap();
    run("mount", &["--bind", folder.join("disk").to_str().unwrap(), at.to_str().unwrap()]);
}

/// A run that reports problems, and what they say.
fn troubled(folder: &Path, options: &Options) -> Vec<String> {
    let mut sync = Sync::open(&folder.join("a"), &folder.join("b"), options.clone(), &Silent).unwrap();
    let report = sync.apply(&Silent).unwrap();
    assert!(!report.in_sync);
    report.problems.iter().map(|(_, problem)| format!("{}: {}", problem.path, problem.error)).collect()
}

/// Roots of which `b` holds a mounted disk at `mnt`, with files on it.
fn with_disk(folder: &Path) -> Options {
    fs::create_dir(folder.join("a")).unwrap();
    mount_disk(folder, &folder.join("b/mnt"));
    for path in ["mnt/x", "mnt/deep/y", "mnt/deep/z", "beside"] {
        write(&folder.join("b"), path, path);
    }
    synchronise(folder);
    assert_eq!(tree(&folder.join("a")), tree(&folder.join("b")));
    // Lifted: a file system that is missing is no matter of how much is deleted.
    Options { max_delete: None, ..Options::standard() }
}

#[test]
fn a_disk_that_is_not_mounted_any_more_is_no_deletion_whatever_lies_below_it() {
    in_namespaces("a_disk_that_is_not_mounted_any_more_is_no_deletion_whatever_lies_below_it", |folder| {
        let options = with_disk(folder);
        let [a, b] = ["a", "b"].map(|side| folder.join(side));
        let before = tree(&a);
        unmount(&b.join("mnt"));
        // What was hidden below the disk: nothing, then something of a recorded name.
        for hidden in ["beside", "mnt/x"] {
            write(&b, hidden, "from before the disk was there");
            fs::write(a.join("beside"), "from before the disk was there").unwrap();
            let problems = troubled(folder, &options);
            assert!(
                problems.iter().any(|problem| problem.starts_with("mnt: ") && problem.contains("Mount it again")),
                "{problems:?}"
            );
            assert_eq!(fs::read_to_string(a.join("mnt/x")).unwrap(), "mnt/x");
            assert_eq!(tree(&a).len(), before.len());
        }
        // Nothing new is put where the disk would hide it.
        write(&a, "mnt/new", "new");
        write(&a, "mnt/deep/y", "edited meanwhile");
        troubled(folder, &options);
        assert!(!b.join("mnt/new").exists() && !b.join("mnt/deep").exists());
        fs::remove_file(b.join("mnt/x")).unwrap();
        mount_disk(folder, &b.join("mnt"));
        synchronise(folder);
        assert_eq!(tree(&a), tree(&b));
        assert_eq!(fs::read_to_string(b.join("mnt/deep/y")).unwrap(), "edited meanwhile");
        assert!(b.join("mnt/new").exists());
    });
}

#[test]
fn a_mount_point_that_went_with_its_disk_is_no_deletion() {
    in_namespaces("a_mount_point_that_went_with_its_disk_is_no_deletion", |folder| {
        let options = with_disk(folder);
        let [a, b] = ["a", "b"].map(|side| folder.join(side));
        let before = tree(&a);
        unmount(&b.join("mnt"));
        fs::remove_dir(b.join("mnt")).unwrap();
        for _ in 0..2 {
            let problems = troubled(folder, &options);
            assert!(problems.iter().any(|problem| problem.starts_with("mnt: ")), "{problems:?}");
            assert_eq!(tree(&a), before);
            assert!(!b.join("mnt").exists(), "nothing is made where the disk belongs");
        }
        fs::write(b.join("mnt"), "a file in its place").unwrap();
        troubled(folder, &options);
        assert_eq!(tree(&a), before);
        fs::remove_file(b.join("mnt")).unwrap();
        // Gone for good: a rule says so, and deletes nothing.
        fs::write(b.join(".driftlessignore"), "/mnt\n").unwrap();
        synchronise(folder);
        assert_eq!(fs::read_to_string(a.join("mnt/x")).unwrap(), "mnt/x");
    });
}

#[test]
fn a_disk_seen_through_a_part_of_the_root_is_known_as_one() {
    in_namespaces("a_disk_seen_through_a_part_of_the_root_is_known_as_one", |folder| {
        fs::create_dir(folder.join("a")).unwrap();
        mount_disk(folder, &folder.join("b/mnt"));
        for path in ["mnt/x", "mnt/y"] {
            write(&folder.join("b"), path, path);
        }
        let paths = vec![RelPath::parse(b"mnt/x").unwrap(), RelPath::parse(b"mnt/y").unwrap()];
        let options = Options { max_delete: None, paths, ..Options::standard() };
        let [a, b] = ["a", "b"].map(|side| folder.join(side));
        Sync::open(&a, &b, options.clone(), &Silent).unwrap().apply(&Silent).unwrap();
        assert!(a.join("mnt/y").exists());
        unmount(&b.join("mnt"));
        assert!(!troubled(folder, &options).is_empty());
        assert!(a.join("mnt/x").exists() && a.join("mnt/y").exists());
    });
}

#[test]
fn a_root_that_stays_open_tells_of_a_missing_disk_that_a_scan_of_a_part_found() {
    in_namespaces("a_root_that_stays_open_tells_of_a_missing_disk_that_a_scan_of_a_part_found", |folder| {
        with_disk(folder);
        let at = |path: &str| RelPath::parse(path.as_bytes()).unwrap();
        let live = Live::open("folder".parse().unwrap(), &folder.join("b"), Options::standard(), false, &Silent).unwrap();
        live.scan(&[], &Silent).unwrap();
        assert_eq!(live.missing().unwrap(), []);
        unmount(&folder.join("b/mnt"));
        let before = live.standing().unwrap().live;
        live.scan(&[at("mnt")], &Silent).unwrap();
        live.scan(&[at("beside")], &Silent).unwrap();
        assert_eq!((live.missing().unwrap(), live.standing().unwrap().live), (vec![at("mnt")], before));
        mount_disk(folder, &folder.join("b/mnt"));
        live.scan(&[at("mnt")], &Silent).unwrap();
        assert_eq!((live.missing().unwrap(), live.standing().unwrap().live), (vec![], before));
    });
}

#[test]
fn a_pull_puts_nothing_where_a_disk_belongs_that_went_since_the_last_look() {
    in_namespaces("a_pull_puts_nothing_where_a_disk_belongs_that_went_since_the_last_look", |folder| {
        with_disk(folder);
        let open = |root: &str| {
            let path = folder.join(root);
            let live = Live::open("folder".parse().unwrap(), &path, Options::standard(), false, &Silent).unwrap();
            live.scan(&[], &Silent).unwrap();
            Arc::new(live)
        };
        let (a, b) = (open("a"), open("b"));
        let [near, far] = local_pair([1, 2].map(|key| PublicKey::from_bytes([key; 32])), [7; 32]);
        let kept: Kept = Arc::new({
            let a = a.clone();
            move || Some(a.clone())
        });
        let export = Export { name: a.name().clone(), path: folder.join("a"), live: Some(kept) };
        let host = Host::new(vec![export], HostOptions { state_dir: None, keep_versions: None });
        let deaf = || -> Ear { Arc::new(|_| {}) };
        let (member, _other) = thread::scope(|scope| {
            let served = scope.spawn(|| host.serve_or_join(far, &|_| Some(Mode::TwoWay), &|_| Some(deaf()), &Silent));
            let member = Member::join(&b, near, Mode::TwoWay, deaf(), &Silent).unwrap();
            (member, served.join().unwrap().unwrap())
        });
        unmount(&folder.join("b/mnt"));
        write(folder, "a/mnt/new", "new");
        write(folder, "a/beside-new", "new");
        a.scan(&[], &Silent).unwrap();
        b.pull(&member, &Silent).unwrap();
        assert!(folder.join("b/beside-new").exists() && !folder.join("b/mnt/new").exists());
        mount_disk(folder, &folder.join("b/mnt"));
        b.scan(&[], &Silent).unwrap();
        b.pull(&member, &Silent).unwrap();
        assert!(folder.join("b/mnt/new").exists() && folder.join("a/mnt/new").exists());
    });
}

#[test]
fn an_empty_folder_mounted_over_one_is_no_deletion_on_the_same_file_system_either() {
    in_namespaces("an_empty_folder_mounted_over_one_is_no_deletion_on_the_same_file_system_either", |folder| {
        for root in ["a/d", "b", "empty"] {
            fs::create_dir_all(folder.join(root)).unwrap();
        }
        write(folder, "a/d/x", "x");
        write(folder, "a/y", "y");
        synchronise(folder);
        let at = folder.join("a/d");
        run("mount", &["--bind", folder.join("empty").to_str().unwrap(), at.to_str().unwrap()]);
        let options = Options { max_delete: None, ..Options::standard() };
        let told = troubled(folder, &options);
        assert!(told.iter().any(|told| told.contains("mounted")), "{told:?}");
        assert_eq!(fs::read_to_string(folder.join("b/d/x")).unwrap(), "x");
        // What a user puts on it does not make it the one that was there.
        write(folder, "a/d/new", "new");
        troubled(folder, &options);
        assert!(!folder.join("b/d/new").exists() && folder.join("b/d/x").exists());
        unmount(&at);
        synchronise(folder);
        assert_eq!(tree(&folder.join("a")), tree(&folder.join("b")));
    });
}
