//! Disks that are full or read-only, files and folders that refuse: the rest goes on, and a later run finishes.

use crate::disk::Disk;
use crate::lab::{Lab, Ran, run, setting, untouched};
use crate::link::is_local;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file or folder that even root cannot change.
struct Immutable(PathBuf);

impl Immutable {
    fn new(path: PathBuf) -> Option<Immutable> {
        let done = Command::new("chattr").arg("+i").arg(&path).output();
        if done.is_ok_and(|out| out.status.success()) {
            return Some(Immutable(path));
        }
        eprintln!("SKIPPED: chattr +i is not supported here");
        None
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}

/// The paths that a run told of as problems.
fn problems(ran: &Ran) -> Vec<String> {
    ran.lines()
        .iter()
        .filter(|line| line["event"] == "problem")
        .map(|line| line["path"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_full_disk_takes_what_fits_and_the_rest_later() {
    let lab = Lab::new();
    let Some(disk) = Disk::new(lab.root("b"), "12m") else { return };
    for at in 0..40 {
        lab.write("a", format!("d/{at}"), fixtures::bytes::noise(at, 1 << 20));
    }
    lab.write("b", "from b", "small");
    let ran = lab.sync(&[]);
    assert_eq!(ran.0.status.code(), Some(2), "{}{}", ran.stdout(), ran.stderr());
    assert_eq!(lab.read("a", "from b").unwrap(), "small");
    assert!(!problems(&ran).is_empty());
    for name in lab.names("b") {
        if lab.at("b", &name).is_file() {
            assert!(fs::read(lab.at("a", &name)).unwrap() == fs::read(lab.at("b", &name)).unwrap(), "{name} is not whole");
        }
    }
    lab.sync(&[]).code(2);
    disk.remount("size=100m");
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
}

#[test]
fn a_disk_filled_to_the_last_byte_loses_nothing() {
    let lab = Lab::synced(&["other"]);
    let Some(disk) = Disk::new(lab.root("disk"), "4m") else { return };
    fs::write(lab.at("a", "x"), "first").unwrap();
    lab.sync_roots("a", "disk", &[]).code(0);
    let mut filled = 0_u64;
    while fs::write(lab.at("disk", format!("filler{filled}")), vec![1_u8; 4096]).is_ok() {
        filled += 1;
    }
    let _ = fs::remove_file(lab.at("disk", format!("filler{filled}")));
    lab.write("a", "x", "second");
    let ran = lab.sync_roots("a", "disk", &[]);
    assert!(matches!(ran.0.status.code(), Some(0 | 2 | 3)), "{}{}", ran.stdout(), ran.stderr());
    assert!(["first", "second"].contains(&lab.read("disk", "x").unwrap().as_str()));
    disk.remount("size=60m");
    lab.sync_roots("a", "disk", &[]).code(0).without_conflicts();
    lab.assert_quiet("a", "disk", 0, &[]);
    crate::lab::assert_same(&lab.root("a"), &lab.root("disk"));
    assert_eq!(lab.read("disk", "x").unwrap(), "second");
    assert!(fs::read_dir(lab.root("a")).unwrap().count() as u64 > filled);
}

#[test]
fn a_read_only_target_is_told_and_changes_nothing_until_it_can_be_written() {
    let lab = Lab::new();
    let Some(disk) = Disk::new(lab.root("b"), "60m") else { return };
    for path in ["x", "y", "d/z"] {
        lab.write("a", path, path);
    }
    lab.sync(&[]).code(0);
    lab.write("a", "x", "edited");
    lab.write("b", "y", "edited on b");
    lab.link.close();
    disk.remount("ro");
    let ran = lab.sync(&[]);
    assert!(matches!(ran.0.status.code(), Some(2 | 3)), "{}{}", ran.stdout(), ran.stderr());
    assert!(ran.stderr().to_lowercase().contains("read-only"), "{}", ran.stderr());
    disk.remount("rw");
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    assert_eq!((lab.read("b", "x").unwrap(), lab.read("a", "y").unwrap()), ("edited".into(), "edited on b".into()));
}

#[test]
fn a_root_whose_marker_cannot_be_written_any_more_is_still_a_source() {
    let lab = Lab::new();
    lab.write("a", "x", "x");
    let states = lab.states();
    lab.sync(&["--state-dir", &states]).code(0);
    let Some(immutable) = Immutable::new(lab.root("a").join(".driftless")) else { return };
    for text in ["edited", "edited again"] {
        lab.write("a", "x", text);
        lab.sync(&["--state-dir", &states]).code(0);
        assert_eq!(lab.read("b", "x").unwrap(), text);
    }
    drop(immutable);
    lab.write("b", "x", "back");
    lab.sync(&["--state-dir", &states]).code(0);
    assert_eq!(lab.read("a", "x").unwrap(), "back");
}

#[test]
fn a_root_that_could_never_be_written_is_told_as_such() {
    let lab = Lab::new();
    let Some(disk) = Disk::new(lab.root("b"), "60m") else { return };
    disk.remount("ro");
    let ran = lab.sync(&[]);
    ran.code(3);
    assert!(ran.stderr().contains("Read-only file system"), "{}", ran.stderr());
    assert_eq!(ran.stderr().matches("os error").count(), 1, "{}", ran.stderr());
    assert!(ran.stderr().contains("--state-dir"), "{}", ran.stderr());
}

#[test]
fn a_root_that_may_only_be_read_is_a_source_from_its_first_run() {
    let lab = Lab::new();
    for path in ["x", "d/y", "m", "meta", "t/1", "t/2"] {
        lab.write("disk", path, path);
    }
    lab.write("b", "own", "from b");
    let Some(disk) = Disk::to_read(&lab.root("disk"), lab.root("a")) else { return };
    let states = lab.states();
    let args = ["--state-dir", states.as_str()];
    lab.sync(&[&args[..], &["--dry-run"]].concat()).code(1);
    let ran = lab.sync(&args);
    assert_eq!(problems(ran.code(2)), ["own"], "{}", ran.stdout());
    assert!(ran.stdout().contains("the root may not be written"), "{}", ran.stdout());
    assert_eq!((lab.read("b", "x").unwrap(), lab.read("b", "d/y").unwrap()), ("x".into(), "d/y".into()));
    // Its owner may write, elsewhere.
    lab.write("disk", "x", "edited");
    lab.remove("disk", "m");
    lab.remove("b", "own");
    lab.sync(&args).code(0).without_conflicts();
    assert!(!lab.at("b", "m").exists());
    lab.assert_equal();
    lab.assert_quiet("a", "b", 0, &args);
    lab.sync(&[&args[..], &["--rejoin"]].concat()).code(0).changed_nothing();
    assert!(!lab.at("disk", ".driftless").exists());
    // Every kind of change that it cannot take.
    let before = untouched(&lab.root("a"));
    lab.write("b", "x", "edited on b");
    lab.write("b", "new/file", "new");
    lab.rename("b", "d/y", "d/z");
    lab.remove("b", "t");
    chmod(lab.at("b", "meta"), 0o600);
    lab.write("disk", "more", "more");
    for _ in 0..2 {
        let ran = lab.sync(&args);
        let told = problems(ran.code(2).without_conflicts());
        for path in ["x", "new", "d/y", "d/z", "t", "meta"] {
            assert!(told.iter().any(|told| told == path), "{path} is not among {told:?}");
        }
        assert_eq!(lab.read("b", "more").unwrap(), "more");
    }
    lab.remove("disk", "more");
    assert!(untouched(&lab.root("a")).iter().all(|(path, held)| path.as_os_str() == "" || before.get(path) == Some(held)));
    drop(disk);
    let disk = Disk::mount(lab.root("a"), &lab.root("disk"), &["--bind"]).unwrap();
    lab.sync(&args).code(0).without_conflicts();
    lab.assert_equal();
    lab.assert_quiet("a", "b", 0, &args);
    assert_eq!(lab.read("disk", "x").unwrap(), "edited on b");
    // From now on the marker that could be made is asked for.
    fs::remove_file(lab.at("disk", ".driftless/marker")).unwrap();
    assert!(lab.sync(&args).code(3).stderr().contains("has no marker"));
    drop(disk);
}

#[test]
fn the_bare_mount_point_of_a_root_without_a_marker_stops_the_run() {
    let lab = Lab::new();
    for path in ["x", "d/y"] {
        lab.write("disk", path, path);
    }
    let Some(disk) = Disk::to_read(&lab.root("disk"), lab.root("a")) else { return };
    let states = lab.states();
    let args = ["--state-dir", states.as_str()];
    lab.sync(&args).code(0);
    drop(disk);
    for more in [&[][..], &["--allow-delete"], &["--dry-run"]] {
        let ran = lab.sync(&[&args[..], more].concat());
        assert!(ran.code(3).stderr().contains("is its disk mounted?"), "{}", ran.stderr());
    }
    let listed = run(crate::lab::driftless().args(["versions", "--state-dir", &states]).arg(lab.root("a")));
    assert!(listed.code(3).stderr().contains("is its disk mounted?"), "{}", listed.stderr());
    assert_eq!(fs::read_dir(lab.root("a")).unwrap().count(), 0, "something was made below the mount point");
    assert_eq!(lab.read("b", "d/y").unwrap(), "d/y");
    let disk = Disk::to_read(&lab.root("disk"), lab.root("a")).unwrap();
    lab.assert_equal();
    lab.assert_quiet("a", "b", 0, &args);
    drop(disk);
    // The folder is to be a new root: nothing of the other one is lost for it.
    lab.sync(&[&args[..], &["--rejoin"]].concat()).code(0);
    assert_eq!((lab.read("a", "x").unwrap(), lab.read("b", "x").unwrap()), ("x".into(), "x".into()));
    lab.assert_equal();
}

#[test]
fn another_disk_mounted_inside_a_root_is_synchronised_into() {
    let lab = Lab::synced(&["x", "m/1", "m/2"]);
    let Some(disk) = Disk::new(lab.at("b", "mnt"), "20m") else { return };
    lab.write("a", "mnt/from a", "1");
    lab.write("b", "mnt/from b", "2");
    let ran = lab.sync(&[]);
    assert!(matches!(ran.0.status.code(), Some(0 | 2)), "{}{}", ran.stdout(), ran.stderr());
    assert_eq!(lab.read("b", "mnt/from b").unwrap(), "2");
    if ran.0.status.code() == Some(0) {
        assert_eq!((lab.read("a", "mnt/from b").unwrap(), lab.read("b", "mnt/from a").unwrap()), ("2".into(), "1".into()));
        lab.write("a", "mnt/from a", "edited");
        lab.remove("a", "mnt/from b");
        lab.sync(&[]).code(0).without_conflicts();
        lab.assert_equal();
    }
    drop(disk);
    // Unmounted: what lay on it is not deleted elsewhere without a word only because a limit was not reached.
    assert!(lab.read("a", "mnt/from a").is_some());
}

/// A user who is not root, to whom both roots belong.
const NOBODY: u32 = 65_534;

/// Can both sides of a run be somebody who is not root?
fn can_be_nobody() -> bool {
    if !is_local("both roots belong to a process of one user") {
        return false;
    }
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only root can run the command as somebody else");
    }
    root
}

fn give_to_nobody(path: &Path) {
    assert!(Command::new("chown").args(["-R", "65534:65534"]).arg(path).status().unwrap().success());
}

/// A run as somebody who is not root.
fn sync_as_nobody(lab: &Lab, args: &[&str]) -> Ran {
    as_nobody(lab, &["sync", "--batch", "--json"], args)
}

/// The command as somebody who is not root.
fn as_nobody(lab: &Lab, command_words: &[&str], args: &[&str]) -> Ran {
    let program = lab.root("driftless");
    if !program.exists() {
        // The build's folder may be closed to others. What this process itself wrote could not be run while it starts another one.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_driftless")).arg(&program).status().unwrap();
        assert!(copied.success());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let home = lab.root("a").parent().unwrap().to_path_buf();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(program);
    command.env_remove("DRIFTLESS_HOME").current_dir("/").uid(NOBODY).gid(NOBODY);
    run(command.args(command_words).args([lab.root("a"), lab.root("b")]).args(args))
}

fn chmod(path: PathBuf, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_unreadable_folder_or_file_is_no_deletion_and_stops_nothing_else() {
    // 26
    if !can_be_nobody() {
        return;
    }
    let lab = Lab::new();
    for path in ["x", "closed/1", "closed/deep/2", "secret", "d/3", "r/1", "r/2", "r/3"] {
        lab.write("a", path, path);
    }
    for root in ["a", "b"] {
        give_to_nobody(&lab.root(root));
    }
    sync_as_nobody(&lab, &[]).code(0);
    lab.assert_equal();
    chmod(lab.at("a", "closed"), 0o000);
    lab.write("a", "secret", "edited, and closed");
    chmod(lab.at("a", "secret"), 0o000);
    lab.write("b", "closed/deep/2", "edited on b");
    for root in ["a", "b"] {
        lab.write(root, format!("new on {root}"), root);
        chown(lab.at(root, format!("new on {root}")), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    for _ in 0..2 {
        let ran = sync_as_nobody(&lab, &[]);
        assert_eq!(ran.0.status.code(), Some(2), "{}{}", ran.stdout(), ran.stderr());
        assert!(problems(&ran).iter().any(|path| path.starts_with("closed")), "{:?}", problems(&ran));
        assert_eq!(lab.read("b", "closed/1").unwrap(), "closed/1");
        assert_eq!(lab.read("b", "secret").unwrap(), "secret");
        assert_eq!((lab.read("a", "new on b").unwrap(), lab.read("b", "new on a").unwrap()), ("b".into(), "a".into()));
    }
    chmod(lab.at("a", "closed"), 0o755);
    chmod(lab.at("a", "secret"), 0o644);
    sync_as_nobody(&lab, &[]).code(0).without_conflicts();
    lab.assert_equal();
    assert_eq!(
        (lab.read("a", "closed/deep/2").unwrap(), lab.read("b", "secret").unwrap()),
        ("edited on b".into(), "edited, and closed".into())
    );
    sync_as_nobody(&lab, &[]).code(0).changed_nothing();
}

#[test]
fn a_look_says_which_paths_it_could_not_look_at() {
    if !can_be_nobody() {
        return;
    }
    let lab = Lab::new();
    for path in ["closed/1", "r/1", "r/2"] {
        lab.write("a", path, path);
    }
    for root in ["a", "b"] {
        give_to_nobody(&lab.root(root));
    }
    sync_as_nobody(&lab, &[]).code(0);
    chmod(lab.at("a", "closed"), 0o000);
    for command in [&["status"][..], &["sync", "--dry-run"]] {
        let ran = as_nobody(&lab, command, &[]);
        ran.code(2);
        let (out, err) = (ran.stdout(), ran.stderr());
        assert!(err.contains("failed: closed: ") && err.contains("denied"), "{out}{err}");
        assert!(out.contains("1 path failed") && !out.contains("nothing"), "{out}{err}");
    }
    chmod(lab.at("a", "closed"), 0o755);
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_the_rest_goes_on() {
    if !can_be_nobody() {
        return;
    }
    let lab = Lab::new();
    for path in ["closed/1", "closed/2", "d/3", "r/1", "r/2"] {
        lab.write("a", path, path);
    }
    for root in ["a", "b"] {
        give_to_nobody(&lab.root(root));
    }
    sync_as_nobody(&lab, &[]).code(0);
    for (path, text) in [("closed/1", "edited"), ("closed/new", "new"), ("d/3", "edited")] {
        lab.write("a", path, text);
    }
    lab.remove("a", "closed/2");
    give_to_nobody(&lab.root("a"));
    // The folder belongs to somebody else now: it can be read, and its mode cannot be changed.
    chown(lab.at("b", "closed"), Some(0), Some(0)).unwrap();
    chmod(lab.at("b", "closed"), 0o755);
    let ran = sync_as_nobody(&lab, &[]);
    assert_eq!(ran.0.status.code(), Some(2), "{}{}", ran.stdout(), ran.stderr());
    assert_eq!(lab.read("b", "d/3").unwrap(), "edited");
    assert_eq!((lab.read("b", "closed/1").unwrap(), lab.read("b", "closed/2").unwrap()), ("closed/1".into(), "closed/2".into()));
    sync_as_nobody(&lab, &[]).code(2);
    give_to_nobody(&lab.root("b"));
    sync_as_nobody(&lab, &[]).code(0).without_conflicts();
    lab.assert_equal();
    sync_as_nobody(&lab, &[]).code(0).changed_nothing();
}

#[test]
fn a_root_of_somebody_else_is_a_source_from_its_first_run() {
    if !can_be_nobody() {
        return;
    }
    let lab = Lab::new();
    for path in ["x", "d/y"] {
        lab.write("a", path, path);
    }
    let states = lab.states();
    for root in ["b", "states"] {
        give_to_nobody(&lab.root(root));
    }
    let args = ["--state-dir", states.as_str()];
    assert!(sync_as_nobody(&lab, &[]).code(3).stderr().contains("--state-dir"));
    sync_as_nobody(&lab, &args).code(0);
    lab.write("a", "d/y", "edited");
    lab.write("b", "from b", "b");
    let ran = sync_as_nobody(&lab, &args);
    assert_eq!(problems(ran.code(2)), ["from b"]);
    assert_eq!(lab.read("b", "d/y").unwrap(), "edited");
    assert!(!lab.at("a", ".driftless").exists());
    give_to_nobody(&lab.root("a"));
    sync_as_nobody(&lab, &args).code(0).without_conflicts();
    assert!(lab.at("a", ".driftless/marker").exists());
    assert_eq!(lab.read("a", "from b").unwrap(), "b");
}

#[test]
fn an_immutable_file_or_folder_is_told_and_the_rest_goes_on() {
    let lab = Lab::synced(&["fixed", "gone", "dir/1", "dir/2", "d/x", "tree/1", "tree/2", "r/1", "r/2", "r/3", "r/4"]);
    let Some(file) = Immutable::new(lab.at("b", "fixed")) else { return };
    let gone = Immutable::new(lab.at("b", "gone")).unwrap();
    let folder = Immutable::new(lab.at("b", "dir")).unwrap();
    let in_tree = Immutable::new(lab.at("b", "tree/1")).unwrap();
    for (path, text) in [("fixed", "edited"), ("dir/1", "edited"), ("dir/new", "new"), ("d/x", "edited")] {
        lab.write("a", path, text);
    }
    lab.remove("a", "gone");
    lab.remove("a", "dir/2");
    lab.remove("a", "tree");
    lab.write("b", "d/new", "from b");
    for _ in 0..2 {
        let ran = lab.sync(&[]);
        assert_eq!(ran.0.status.code(), Some(2), "{}{}", ran.stdout(), ran.stderr());
        assert_eq!((lab.read("b", "d/x").unwrap(), lab.read("a", "d/new").unwrap()), ("edited".into(), "from b".into()));
        assert_eq!((lab.read("b", "fixed").unwrap(), lab.read("b", "gone").unwrap()), ("fixed".into(), "gone".into()));
        assert_eq!(lab.read("a", "fixed").unwrap(), "edited", "what could not be replaced came back");
        assert!(!lab.at("a", "gone").exists(), "what could not be deleted came back");
        assert!(!lab.at("a", "tree").exists(), "what could not be deleted came back: {:?}", lab.names("a"));
        assert!(problems(&ran).contains(&"fixed".to_owned()), "{:?}", problems(&ran));
    }
    drop((file, gone, folder, in_tree));
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    assert!(!lab.at("b", "gone").exists() && !lab.at("b", "tree").exists());
}

#[test]
fn a_large_tree_with_a_few_obstacles_arrives_but_for_them() {
    let lab = Lab::synced(&["fixed"]);
    let Some(fixed) = Immutable::new(lab.at("b", "fixed")) else { return };
    lab.write("a", "fixed", "edited");
    let files = setting("DRIFTLESS_TEST_FILES", 3_000) / 3;
    for at in 0..files {
        lab.write("a", format!("d{}/{at}", at % 50), format!("{at}"));
    }
    let ran = lab.sync(&[]);
    assert_eq!(ran.code(2).count("failed"), 1, "{}", ran.stdout());
    assert!(ran.count("created") >= files);
    drop(fixed);
    let ran = lab.sync(&[]);
    assert_eq!((ran.code(0).count("updated"), ran.count("created")), (1, 0));
    lab.assert_settled();
}
