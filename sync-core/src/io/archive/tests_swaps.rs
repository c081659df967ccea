//! Readers while days move, and while links get other texts: none of them ever misses a file, on real file systems.

use super::tests::{DAY, Lab, PATIENCE, day, lab};
use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Readers at work: one for each way of reading.
const READERS: usize = 4;

/// What the files of the day hold, by path below it.
type Files = BTreeMap<String, Vec<u8>>;

/// How often the name of the day is exchanged.
fn swaps() -> u64 {
    std::env::var("DRIFTLESS_TEST_SWAPS").ok().and_then(|count| count.parse().ok()).unwrap_or(60)
}

/// Files of several sizes, in the day and below it.
fn fill(lab: &Lab) -> Files {
    let sizes = [0, 1, 3000, 70_000, 300_000];
    let names = sizes.iter().enumerate().flat_map(|(number, size)| {
        let bytes: Vec<u8> = (0..*size).map(|at| (at * 31 + number) as u8).collect();
        [(format!("{number}.txt"), bytes.clone()), (format!("sub/deep/{number}.txt"), bytes)]
    });
    let files: Files = names.collect();
    files.iter().for_each(|(name, bytes)| lab.write(name, bytes));
    files
}

/// Readers that go through the hot path again and again.
#[derive(Default)]
struct Crowd {
    /// Rounds that each has begun.
    rounds: [AtomicU64; READERS],
    done: AtomicBool,
    failed: Mutex<Option<String>>,
}

impl Crowd {
    /// Reads in one of the ways until it is told to stop, or misses something.
    fn read(&self, way: usize, day: &Path, files: &Files) {
        while !self.done.load(Ordering::SeqCst) {
            self.rounds[way].fetch_add(1, Ordering::SeqCst);
            if let Err(error) = one_round(way, day, files) {
                self.failed.lock().unwrap().get_or_insert(format!("reader {way}: {error}"));
                self.done.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Waits until every reader has begun two rounds more: none is on a way any more that it found before the call.
    fn pass(&self) {
        let until = Instant::now() + PATIENCE;
        for round in &self.rounds {
            let seen = round.load(Ordering::SeqCst);
            while round.load(Ordering::SeqCst) < seen + 2 && !self.done.load(Ordering::SeqCst) {
                assert!(Instant::now() < until, "a reader does not come around");
                std::thread::yield_now();
            }
        }
    }

    /// Lets the readers read while `work` goes on; it is to stop when they are done. Returns how many rounds they read.
    fn beside(&self, day: &Path, files: &Files, work: impl FnOnce()) -> u64 {
        std::thread::scope(|scope| {
            for way in 0..READERS {
                scope.spawn(move || self.read(way, day, files));
            }
            self.pass();
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            self.done.store(true, Ordering::SeqCst);
            if let Err(panic) = worked {
                std::panic::resume_unwind(panic);
            }
        });
        assert_eq!(self.failed.lock().unwrap().take(), None);
        self.rounds.iter().map(|round| round.load(Ordering::SeqCst)).sum()
    }

    fn goes_on(&self) -> bool {
        !self.done.load(Ordering::SeqCst)
    }
}

/// One look at all of the day.
fn one_round(way: usize, day: &Path, files: &Files) -> Result<(), String> {
    let told = |what: &str, path: &Path, error: std::io::Error| format!("{what} {}: {error}", path.display());
    let whole = |at: &Path, bytes: &[u8]| match fs::read(at).map_err(|error| told("read", at, error))? {
        found if found == bytes => Ok(()),
        found => Err(format!("{}: {} bytes instead of {}, or other ones", at.display(), found.len(), bytes.len())),
    };
    match way {
        0 => files.iter().try_for_each(|(name, bytes)| whole(&day.join(name), bytes)),
        1 => files.iter().try_for_each(|(name, bytes)| {
            let at = day.join(name);
            let size = fs::metadata(&at).map_err(|error| told("stat", &at, error))?.len();
            let dir = fs::metadata(at.parent().unwrap()).map_err(|error| told("stat above", &at, error))?.is_dir();
            if size == bytes.len() as u64 && dir { Ok(()) } else { Err(format!("{}: {size} bytes", at.display())) }
        }),
        2 => {
            for dir in ["", "sub", "sub/deep"] {
                let at = day.join(dir);
                let names = fs::read_dir(&at).and_then(|dir| dir.map(|entry| entry.map(|entry| entry.file_name())).collect());
                let names: BTreeSet<_> = names.map_err(|error| told("list", &at, error))?;
                let count = if dir == "sub" { 1 } else { files.len() / 2 + usize::from(dir.is_empty()) };
                if names.len() != count {
                    return Err(format!("{}: {names:?}", at.display()));
                }
            }
            Ok(())
        }
        // As a program does that has its working directory there.
        _ => {
            let open = fs::File::open(day).map_err(|error| told("open", day, error))?;
            let inside = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
            files.iter().try_for_each(|(name, bytes)| whole(&inside.join(name), bytes))
        }
    }
}

#[test]
fn readers_never_miss_a_day_while_it_moves_there_and_back() {
    for other_disk in [true, false] {
        let lab = lab(other_disk);
        let (files, crowd, day_path) = (fill(&lab), Crowd::default(), lab.day());
        let (mut copied, mut adopted, mut renamed) = (0u64, 0u64, 0u64);
        let rounds = crowd.beside(&day_path, &files, || {
            let archive = lab.archive();
            // Nothing is removed before the last reader has left it: so long it is kept in practice.
            let remove = || {
                crowd.pass();
                let settled = archive.settle_displaced(i64::MAX).unwrap();
                assert!(settled.problems.is_empty() && settled.merged.is_empty(), "{settled:?}");
            };
            for round in 0..swaps().div_ceil(2) {
                if !crowd.goes_on() {
                    break;
                }
                let there = lab.cold.path().join(DAY).exists();
                match lab.moved().copied {
                    0 if there => adopted += 1,
                    0 => renamed += 1,
                    _ => copied += 1,
                }
                remove();
                archive.restore_day(&day(), Duration::ZERO).unwrap();
                // Now and then the day that is left in the cold root is there for the next move.
                if round % 3 != 2 {
                    remove();
                }
            }
        });
        told(&format!(
            "other disk: {other_disk}: {copied} copied, {renamed} renamed, {adopted} adopted, as many restored; {rounds} rounds of {READERS} readers"
        ));
        assert!((copied > 0) == other_disk && (renamed > 0) != other_disk && adopted > 0);
    }
}

#[test]
fn readers_never_miss_a_day_while_its_link_gets_other_texts() {
    let lab = lab(true);
    let (files, crowd, day_path) = (fill(&lab), Crowd::default(), lab.day());
    let view = tempfile::tempdir().unwrap();
    let prefix = view.path().join("as applications see it");
    std::os::unix::fs::symlink(lab.cold.path(), &prefix).unwrap();
    lab.moved();
    let mut done = 0;
    let rounds = crowd.beside(&day_path, &files, || {
        let archive = lab.archive();
        let forms = [LinkForm::Relative, LinkForm::Prefix(prefix.clone()), LinkForm::Absolute];
        for form in forms.iter().cycle().take(usize::try_from(swaps()).unwrap()) {
            if !crowd.goes_on() {
                break;
            }
            assert!(archive.relink(&day(), form).unwrap());
            let text = fs::read_link(&day_path).unwrap();
            let right = match form {
                LinkForm::Absolute => text == lab.cold.path().canonicalize().unwrap().join(DAY),
                LinkForm::Relative => text.starts_with("..") && day_path.parent().unwrap().join(&text).is_dir(),
                LinkForm::Prefix(prefix) => text == prefix.join(DAY),
            };
            assert!(right, "{form:?}: {}", text.display());
            assert!(lab.root.dir(&day()).unwrap().is_placed());
            done += 1;
        }
    });
    assert_eq!(fs::read_dir(lab.hot.path().join(".driftless/archive")).unwrap().count(), 1, "the move's job alone");
    told(&format!("{done} other texts; {rounds} rounds of {READERS} readers"));
}

#[allow(clippy::print_stderr, reason = "how much was done is said when it is asked for")]
fn told(text: &str) {
    eprintln!("{text}");
}
