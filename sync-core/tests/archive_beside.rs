//! Days move while their root goes on to be looked at and pulled into: whoever copies a day keeps nobody waiting, and what changes in it
//! meanwhile keeps it where it is.
#![allow(clippy::disallowed_methods, reason = "what users do to their files")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use sync_core::io::archive::{ArchiveError, LinkForm, MoveOptions, Moved};
use sync_core::io::fs::init_cold;
use sync_core::io::sync::{Live, Options};
use sync_core::path::RelPath;
use sync_core::report::{Monitor, Silent};
use tempfile::TempDir;

/// No wait here may take longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);
const DAY: &str = "2026/03/05";

struct Lab {
    dir: TempDir,
    live: Live,
}

/// Does something in the middle of the copying, on the very thread that copies: if that held what excludes others, it would wait for ever.
struct Meanwhile<'a> {
    work: &'a (dyn Fn() + Sync),
    times: AtomicU64,
    /// The work itself tells of progress, too.
    busy: Mutex<()>,
}

impl Monitor for Meanwhile<'_> {
    fn advance(&self, _files: u64, _bytes: u64) {
        if let Ok(_one) = self.busy.try_lock() {
            (self.work)();
            self.times.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

impl Lab {
    /// A root with a day of some files, and a link that leads out of it: so that it is copied, whatever its file system.
    fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let day = dir.path().join("hot").join(DAY);
        fs::create_dir_all(day.join("sub")).unwrap();
        for name in ["a.txt", "b.txt", "sub/c.txt"] {
            fs::write(day.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("../../../today.txt", day.join("out")).unwrap();
        fs::write(dir.path().join("hot/today.txt"), "today").unwrap();
        fs::create_dir(dir.path().join("cold")).unwrap();
        init_cold(&dir.path().join("cold")).unwrap();
        let name = "folder".parse().unwrap();
        let live = Live::open(name, &dir.path().join("hot"), Options::standard(), false, &Silent).unwrap();
        live.scan(&[], &Silent).unwrap();
        Lab { dir, live }
    }

    fn at(&self, text: &str) -> std::path::PathBuf {
        self.dir.path().join("hot").join(text)
    }

    fn archive(&self, monitor: &dyn Monitor) -> Result<Moved, ArchiveError> {
        let archive = self.live.archive(monitor)?;
        let cold = archive.cold(&self.dir.path().join("cold"))?;
        let options = MoveOptions { form: LinkForm::Absolute, rewrite: true, keep: Duration::from_secs(3600) };
        archive.move_day(&path(DAY), &cold, &options)
    }

    /// Files that were written in this tick of the clock are not moved: a moment later they are.
    fn archive_soon(&self, monitor: &dyn Monitor) -> Moved {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.archive(monitor) {
                Err(ArchiveError::Changed(_)) if Instant::now() < until => {}
                answer => return answer.unwrap(),
            }
        }
    }

    fn is_cold(&self) -> bool {
        self.at(DAY).symlink_metadata().unwrap().is_symlink()
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_root_is_looked_at_while_one_of_its_days_is_copied_and_the_move_is_no_event() {
    let lab = Lab::new();
    let work = || {
        fs::write(lab.at("today.txt"), format!("{:?}", Instant::now())).unwrap();
        assert_eq!(lab.live.scan(&[path("today.txt")], &Silent).unwrap().changed, 1);
    };
    let meanwhile = Meanwhile { work: &work, times: AtomicU64::new(0), busy: Mutex::new(()) };
    let moved = lab.archive_soon(&meanwhile);
    assert_eq!(moved.files, 3);
    assert!(moved.copied > 0 && meanwhile.times.load(Ordering::Relaxed) >= 3);
    assert!(lab.is_cold() && text(&lab.at(DAY).join("sub/c.txt")) == "sub/c.txt");
    // Nothing of it is an event, by whichever look.
    for only in [vec![path(DAY)], Vec::new()] {
        let scanned = lab.live.scan(&only, &Silent).unwrap();
        assert_eq!((scanned.changed, scanned.vanished, scanned.failed), (0, 0, 0));
    }
}

#[test]
fn what_changes_in_a_day_while_it_is_copied_keeps_it_where_it_is() {
    let lab = Lab::new();
    lab.archive_soon(&Silent);
    let archive = lab.live.archive(&Silent).unwrap();
    archive.restore_day(&path(DAY), Duration::ZERO).unwrap();
    // What it left in the cold root goes: it would be compared, and nothing copied.
    while !archive.displaced().unwrap().is_empty() {
        assert!(archive.settle_displaced(i64::MAX).unwrap().problems.is_empty());
    }
    drop(archive);
    // As a pull does it: a new file, which is recorded before the copying ends.
    let new = lab.at(DAY).join("sub/d.txt");
    let work = || {
        fs::write(&new, "d").unwrap();
        lab.live.scan(&[path(DAY)], &Silent).unwrap();
    };
    let meanwhile = Meanwhile { work: &work, times: AtomicU64::new(0), busy: Mutex::new(()) };
    let refused = lab.archive(&meanwhile);
    assert!(matches!(refused, Err(ArchiveError::Changed(_) | ArchiveError::Refused { .. })), "{refused:?}");
    assert!(!lab.is_cold() && text(&new) == "d");
    assert_eq!(lab.live.scan(&[], &Silent).unwrap().vanished, 0);
    // A later run takes it, with what came.
    assert_eq!(lab.archive_soon(&Silent).files, 4);
    assert!(lab.is_cold() && text(&new) == "d");
    assert_eq!(lab.live.scan(&[], &Silent).unwrap().changed, 0);
}

#[test]
fn another_disk_at_the_path_of_a_cold_root_is_refused() {
    let lab = Lab::new();
    lab.archive_soon(&Silent);
    let (cold, away) = (lab.dir.path().join("cold"), lab.dir.path().join("away"));
    fs::rename(&cold, &away).unwrap();
    fs::create_dir(&cold).unwrap();
    init_cold(&cold).unwrap();
    let before = fs::read_dir(cold.join(".driftless")).unwrap().count();
    let archive = lab.live.archive(&Silent).unwrap();
    let refused = archive.cold(&cold).unwrap_err().to_string();
    assert!(refused.contains("another cold root"), "{refused}");
    assert_eq!(fs::read_dir(cold.join(".driftless")).unwrap().count(), before, "something was made there");
    fs::remove_dir_all(&cold).unwrap();
    fs::rename(&away, &cold).unwrap();
    archive.cold(&cold).unwrap();
}
