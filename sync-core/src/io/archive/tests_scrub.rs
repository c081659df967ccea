//! Damage, edits and repairs of archived days.

use super::manifest::{Reader, Writer};
use super::tests::{DAY, Lab, day, lab};
use super::*;
use crate::entry::Hash;
use crate::io::apply;
use crate::io::fs::FsError;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn archived() -> Lab {
    let lab = lab(true);
    lab.write("a", b"bytes of a");
    lab.write("sub/b", b"bytes of b");
    fs::hard_link(lab.day().join("a"), lab.day().join("sub/a-too")).unwrap();
    fs::hard_link(lab.day().join("a"), lab.day().join("z-too")).unwrap();
    lab.go().unwrap();
    lab.archive().settle_displaced(i64::MAX).unwrap();
    lab
}

/// Writes other bytes of the same length, and puts the modification time back.
fn flip(lab: &Lab, name: &str) {
    let path = lab.cold.path().join(DAY).join(name);
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"X", 2).unwrap();
    file.set_modified(time).unwrap();
}

/// A disk that fails changes no time: the sealed record gets the change time that the write above has moved.
fn damage(lab: &Lab, name: &str) {
    flip(lab, name);
    let ino = fs::metadata(lab.cold.path().join(DAY).join(name)).unwrap().ino();
    let stamp = lab.root.places().get(&day()).unwrap().stamp.to_string();
    let mut folders = fs::read_dir(lab.cold.path().join(".driftless")).unwrap().map(|entry| entry.unwrap().path());
    let sealed = folders.find(|path| path.join("sealed").is_dir()).unwrap().join("sealed").join(stamp);
    let mut reader = Reader::new(fs::File::open(&sealed).unwrap(), &sealed).unwrap();
    let new = sealed.with_extension("test");
    let mut writer = Writer::new(fs::File::create(&new).unwrap(), &new).unwrap();
    while let Some(mut entry) = reader.next().unwrap() {
        if entry.copy.ino == ino {
            let now = fs::metadata(lab.cold.path().join(DAY).join(entry.path.to_string())).unwrap();
            entry.copy.ctime_ns = now.ctime() * 1_000_000_000 + now.ctime_nsec();
        }
        writer.entry(&entry).unwrap();
    }
    writer.finish().unwrap();
    fs::rename(&new, &sealed).unwrap();
}

fn good(bytes: &'static [u8]) -> impl Fn(&RelPath, Hash, u64) -> Result<fs::File, FsError> {
    move |_, _, _| {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Ok(file)
    }
}

fn read(lab: &Lab, name: &str) -> String {
    fs::read_to_string(lab.day().join(name)).unwrap()
}

#[test]
fn an_edit_whose_time_was_put_back_is_no_damage_and_stays() {
    let lab = archived();
    let archive = lab.archive();
    let first = archive.scrub(&day(), None).unwrap();
    assert_eq!((first.damaged.len(), first.changed), (0, 0), "{first:?}");
    for name in ["sub/b", "a"] {
        flip(&lab, name);
        let edited = read(&lab, name);
        let scrub = archive.scrub(&day(), Some(&good(b"bytes of b"))).unwrap();
        assert!(scrub.damaged.is_empty() && scrub.changed > 0, "{scrub:?}");
        assert_eq!(read(&lab, name), edited);
        // From now on that is what it holds.
        let again = archive.scrub(&day(), None).unwrap();
        assert_eq!((again.damaged.len(), again.changed), (0, 0), "{again:?}");
    }
}

#[test]
fn a_file_that_was_touched_is_no_news_and_its_damage_is_found() {
    let lab = archived();
    let archive = lab.archive();
    let path = lab.cold.path().join(DAY).join("sub/b");
    // Another name, for a moment: only the change time tells of it.
    fs::hard_link(&path, path.with_file_name("c")).unwrap();
    fs::remove_file(path.with_file_name("c")).unwrap();
    let scrub = archive.scrub(&day(), None).unwrap();
    assert_eq!((scrub.damaged.len(), scrub.changed), (0, 0), "{scrub:?}");
    damage(&lab, "sub/b");
    let scrub = archive.scrub(&day(), None).unwrap();
    assert_eq!((scrub.damaged.len(), scrub.changed), (1, 0), "{scrub:?}");
    assert!(!scrub.damaged[0].repaired);
    let scrub = archive.scrub(&day(), Some(&good(b"bytes of x"))).unwrap();
    assert!(scrub.damaged[0].why.as_ref().unwrap().contains("other bytes there, too"), "{scrub:?}");
    assert!(archive.scrub(&day(), Some(&good(b"bytes of b"))).unwrap().damaged[0].repaired);
    assert_eq!(read(&lab, "sub/b"), "bytes of b");
    assert!(archive.scrub(&day(), None).unwrap().damaged.is_empty());
}

#[test]
fn a_repair_keeps_the_names_of_a_file_together() {
    let lab = archived();
    fs::set_permissions(lab.day().join("a"), fs::Permissions::from_mode(0o640)).unwrap();
    let archive = lab.archive();
    archive.scrub(&day(), None).unwrap();
    damage(&lab, "a");
    assert_ne!(read(&lab, "z-too"), "bytes of a");
    let scrub = archive.scrub(&day(), Some(&good(b"bytes of a"))).unwrap();
    assert!(scrub.damaged.len() == 1 && scrub.damaged[0].repaired && scrub.changed == 0, "{scrub:?}");
    let of = |name: &str| fs::metadata(lab.day().join(name)).unwrap();
    for name in ["a", "sub/a-too", "z-too"] {
        assert_eq!(read(&lab, name), "bytes of a");
        assert_eq!((of(name).ino(), of(name).nlink(), of(name).mode() & 0o777), (of("a").ino(), 3, 0o640), "{name}");
    }
    assert_eq!(apply::list(&lab.root, &lab.state, &day()).unwrap().len(), 1, "the damaged file is kept once");
    assert!(archive.scrub(&day(), None).unwrap().damaged.is_empty());
}

#[test]
fn a_repair_that_would_tear_names_apart_is_refused() {
    let lab = archived();
    fs::hard_link(lab.cold.path().join(DAY).join("a"), lab.cold.path().join("elsewhere")).unwrap();
    let archive = lab.archive();
    archive.scrub(&day(), None).unwrap();
    damage(&lab, "a");
    let ask = |path: &RelPath, _: Hash, _: u64| -> Result<fs::File, FsError> { panic!("{path} was asked for") };
    let scrub = archive.scrub(&day(), Some(&ask)).unwrap();
    assert!(!scrub.damaged[0].repaired);
    assert!(scrub.damaged[0].why.as_ref().unwrap().contains("outside of the day"), "{scrub:?}");
    assert_eq!(fs::metadata(lab.day().join("a")).unwrap().nlink(), 4);
}

#[test]
fn who_writes_to_a_damaged_file_while_it_is_repaired_keeps_what_he_wrote() {
    let lab = archived();
    damage(&lab, "a");
    let path = lab.cold.path().join(DAY).join("sub/a-too");
    crate::io::kill::hook::set(move |at| {
        if at == "archive-repair-ready" {
            fs::write(&path, "written meanwhile").unwrap();
        }
    });
    let scrub = lab.archive().scrub(&day(), Some(&good(b"bytes of a"))).unwrap();
    crate::io::kill::hook::clear();
    assert!(!scrub.damaged[0].repaired, "{scrub:?}");
    for name in ["a", "sub/a-too", "z-too"] {
        assert_eq!(read(&lab, name), "written meanwhile");
    }
    let again = lab.archive().scrub(&day(), Some(&good(b"bytes of a"))).unwrap();
    assert!(again.damaged.is_empty() && again.unreadable.is_empty(), "{again:?}");
    assert_eq!(read(&lab, "a"), "written meanwhile");
}

/// What stands beside `sub/b`: conflict copies.
fn beside(lab: &Lab) -> Vec<String> {
    let entries = fs::read_dir(lab.day().join("sub")).unwrap().map(|entry| entry.unwrap().path());
    let copies = entries.filter(|path| path.to_string_lossy().contains("b.conflict-late-"));
    copies.map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn who_has_a_damaged_file_open_while_it_is_repaired_keeps_what_he_writes_then_and_later() {
    for later in [false, true] {
        let lab = archived();
        damage(&lab, "sub/b");
        let late = fs::OpenOptions::new().write(true).open(lab.day().join("sub/b")).unwrap();
        let handle = late.try_clone().unwrap();
        crate::io::kill::hook::set(move |at| {
            if at == "archive-repaired" && !later {
                handle.write_all_at(b"written to the old file", 0).unwrap();
            }
        });
        let scrub = lab.archive().scrub(&day(), Some(&good(b"bytes of b"))).unwrap();
        crate::io::kill::hook::clear();
        assert!(scrub.damaged[0].repaired, "{scrub:?}");
        assert_eq!(read(&lab, "sub/b"), "bytes of b");
        if later {
            assert_eq!(apply::list(&lab.root, &lab.state, &day()).unwrap().len(), 1);
            late.write_all_at(b"written to the old file", 0).unwrap();
            assert_eq!(apply::check_late(&lab.root, &lab.state, i64::MIN).unwrap().brought_back.len(), 1);
        }
        assert_eq!(beside(&lab), ["written to the old file"]);
        assert!(apply::list(&lab.root, &lab.state, &day()).unwrap().is_empty());
        assert!(lab.archive().scrub(&day(), None).unwrap().damaged.is_empty());
    }
}

#[test]
fn who_edits_a_repaired_file_at_once_has_edited_it() {
    let lab = archived();
    damage(&lab, "sub/b");
    let path = lab.cold.path().join(DAY).join("sub/b");
    crate::io::kill::hook::set(move |at| {
        if at == "archive-repaired" {
            fs::write(&path, "edited").unwrap();
        }
    });
    let scrub = lab.archive().scrub(&day(), Some(&good(b"bytes of b"))).unwrap();
    crate::io::kill::hook::clear();
    assert!(scrub.damaged[0].repaired, "{scrub:?}");
    let again = lab.archive().scrub(&day(), Some(&good(b"bytes of b"))).unwrap();
    assert_eq!((again.damaged.len(), again.changed), (0, 1), "{again:?}");
    assert_eq!(read(&lab, "sub/b"), "edited");
}

#[test]
fn an_edit_right_before_the_exchange_stays_though_its_time_was_put_back() {
    let lab = archived();
    damage(&lab, "sub/b");
    let path = lab.cold.path().join(DAY).join("sub/b");
    crate::io::kill::hook::set(move |at| {
        if at == "archive-repair-ready" {
            let before = fs::metadata(&path).unwrap();
            // In the clock's next tick.
            while fs::metadata(&path).unwrap().ctime_nsec() == before.ctime_nsec() {
                fs::write(&path, "byTes of b").unwrap();
                fs::File::options().write(true).open(&path).unwrap().set_modified(before.modified().unwrap()).unwrap();
            }
        }
    });
    let scrub = lab.archive().scrub(&day(), Some(&good(b"bytes of b"))).unwrap();
    crate::io::kill::hook::clear();
    assert!(!scrub.damaged[0].repaired, "{scrub:?}");
    assert_eq!(read(&lab, "sub/b"), "byTes of b");
}

#[test]
fn a_repair_that_cannot_be_written_is_told_with_all_damage_and_leaves_nothing() {
    let lab = archived();
    damage(&lab, "a");
    damage(&lab, "sub/b");
    // It cannot be read.
    let bad = |_: &RelPath, _: Hash, size: u64| {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        Ok(fs::OpenOptions::new().write(true).open(file.path()).unwrap())
    };
    let scrub = lab.archive().scrub(&day(), Some(&bad)).unwrap();
    assert!(scrub.damaged.len() == 2 && scrub.damaged.iter().all(|damage| damage.why.is_some()), "{scrub:?}");
    let mut folders = fs::read_dir(lab.cold.path().join(".driftless")).unwrap().map(|entry| entry.unwrap().path());
    let repairs = folders.find_map(|path| fs::read_dir(path.join("repairs")).ok()).unwrap();
    assert_eq!(repairs.count(), 0);
}

#[test]
fn what_a_disk_that_failed_left_of_a_repair_is_put_away_by_the_next_look() {
    let lab = archived();
    let archive = lab.archive();
    let mut folders = fs::read_dir(lab.cold.path().join(".driftless")).unwrap().map(|entry| entry.unwrap().path());
    let private = folders.find(|path| path.join("sealed").is_dir()).unwrap();
    let left = private.join("repairs").join(lab.root.places().get(&day()).unwrap().stamp.to_string());
    fs::create_dir_all(&left).unwrap();
    // The damaged file came out, and nothing waits any more; then what a user put there in the last moment.
    let known = lab.cold.path().join(DAY).join("sub/b");
    fs::rename(&known, left.join("out")).unwrap();
    fs::write(&known, "bytes of b").unwrap();
    archive.scrub(&day(), None).unwrap();
    let [kept] = &apply::list(&lab.root, &lab.state, &day()).unwrap()[..] else { panic!("it is not kept") };
    assert!(kept.kept.path.to_string().ends_with("sub/b") && !left.exists());
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("out"), "a user's").unwrap();
    archive.scrub(&day(), None).unwrap();
    let names = fs::read_dir(lab.day()).unwrap().map(|entry| entry.unwrap().path());
    let copies: Vec<_> = names.filter(|path| path.to_string_lossy().contains("out.conflict-late-")).collect();
    assert_eq!(fs::read_to_string(&copies[0]).unwrap(), "a user's");
    assert!(!left.exists());
}

#[test]
fn a_day_with_a_damaged_file_is_not_brought_back_until_that_is_repaired_or_touched() {
    for touched in [false, true] {
        let lab = archived();
        damage(&lab, "a");
        let archive = lab.archive();
        let restored = || {
            loop {
                match archive.restore_day(&day(), Duration::ZERO) {
                    // What was written a moment ago may still change unseen.
                    Err(ArchiveError::Changed(_)) => std::thread::yield_now(),
                    answer => return answer,
                }
            }
        };
        let error = restored().unwrap_err().to_string();
        assert!(error.starts_with("2026/03/05/a is damaged") && error.contains("archive verify"), "{error}");
        assert!(lab.is_link());
        if touched {
            let file = fs::File::open(lab.day().join("a")).unwrap();
            file.set_modified(std::time::SystemTime::now()).unwrap();
        } else {
            assert!(archive.scrub(&day(), Some(&good(b"bytes of a"))).unwrap().damaged[0].repaired);
        }
        restored().unwrap();
        assert_eq!(read(&lab, "z-too"), if touched { "byXes of a" } else { "bytes of a" });
    }
}

/// Stops whoever reads, once so many bytes were read, or now.
#[derive(Default)]
struct Stopping {
    after: u64,
    read: AtomicU64,
    now: AtomicBool,
}

impl Monitor for Stopping {
    fn advance(&self, _files: u64, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.now.load(Ordering::Relaxed) || self.after > 0 && self.read.load(Ordering::Relaxed) >= self.after
    }
}

/// The record of the day, beside which nothing lies.
fn sealed(lab: &Lab) -> Vec<u8> {
    let mut folders = fs::read_dir(lab.cold.path().join(".driftless")).unwrap().map(|entry| entry.unwrap().path());
    let folder = folders.find(|path| path.join("sealed").is_dir()).unwrap().join("sealed");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    fs::read(folder.join(lab.root.places().get(&day()).unwrap().stamp.to_string())).unwrap()
}

#[test]
fn who_is_stopped_within_a_file_tells_what_was_found_and_leaves_the_record_as_it_is() {
    const LARGE: usize = 8 << 20;
    let lab = lab(true);
    lab.write("a", b"bytes of a");
    lab.write("large", &vec![7; LARGE]);
    lab.write("z", b"bytes of z");
    lab.moved();
    for name in ["a", "z"] {
        damage(&lab, name);
    }
    let before = sealed(&lab);
    let monitor = Stopping { after: 1 << 20, ..Stopping::default() };
    let archive = Archive::open((&lab.root, &lab.state, lab.mask), &monitor).unwrap();
    let scrub = archive.scrub(&day(), None).unwrap();
    let damaged: Vec<String> = scrub.damaged.iter().map(|damage| damage.path.to_string()).collect();
    assert!(scrub.interrupted && damaged == [format!("{DAY}/a")], "{scrub:?}");
    assert!(monitor.read.load(Ordering::Relaxed) < LARGE as u64 / 2, "all of the file was read");
    assert!(sealed(&lab) == before);
    let scrub = lab.archive().scrub(&day(), None).unwrap();
    assert!(!scrub.interrupted && scrub.damaged.len() == 2 && scrub.changed == 0, "{scrub:?}");
}

#[test]
fn a_repair_that_is_stopped_leaves_nothing_and_is_done_by_the_next() {
    let lab = archived();
    damage(&lab, "sub/b");
    let damaged = read(&lab, "sub/b");
    let monitor = Stopping::default();
    let archive = Archive::open((&lab.root, &lab.state, lab.mask), &monitor).unwrap();
    let bring = good(b"bytes of b");
    let stop = |path: &RelPath, hash: Hash, size: u64| {
        monitor.now.store(true, Ordering::Relaxed);
        bring(path, hash, size)
    };
    let scrub = archive.scrub(&day(), Some(&stop)).unwrap();
    assert!(scrub.interrupted && scrub.damaged.len() == 1 && !scrub.damaged[0].repaired, "{scrub:?}");
    assert_eq!(read(&lab, "sub/b"), damaged);
    let mut folders = fs::read_dir(lab.cold.path().join(".driftless")).unwrap().map(|entry| entry.unwrap().path());
    let repairs = folders.find_map(|path| fs::read_dir(path.join("repairs")).ok()).unwrap();
    assert_eq!(repairs.count(), 0);
    assert!(lab.archive().scrub(&day(), Some(&good(b"bytes of b"))).unwrap().damaged[0].repaired);
    assert_eq!(read(&lab, "sub/b"), "bytes of b");
}
