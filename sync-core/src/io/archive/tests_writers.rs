//! Programs that write to a day through what they had open before it moved: at every place of a move, and many at once. What they
//! wrote is there in the end, in its place or beside it.

use super::tests::{Lab, PATIENCE, day, lab};
use super::*;
use crate::io::kill::{ARCHIVE_POINTS, hook};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Instant;

/// By which way the day goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Copy,
    Rename,
    Adopt,
    Restore,
}

/// A program that was in the day before it moved: open files, and the directory as its working directory.
struct Program {
    appended: File,
    shortened: File,
    overwritten: File,
    inside: File,
}

impl Program {
    fn start(day: &Path) -> Program {
        let open = |name: &str| OpenOptions::new().write(true).open(day.join(name)).unwrap();
        let appended = OpenOptions::new().append(true).open(day.join("appended")).unwrap();
        let (shortened, overwritten) = (open("shortened"), open("sub/overwritten"));
        Program { appended, shortened, overwritten, inside: File::open(day).unwrap() }
    }

    /// Everything that can be done to what is in a directory, each to something else.
    fn work(&mut self) {
        let at = |name: &str| PathBuf::from(format!("/proc/self/fd/{}", self.inside.as_raw_fd())).join(name);
        self.appended.write_all(b", and more").unwrap();
        self.shortened.set_len(3).unwrap();
        self.overwritten.write_all_at(b"FIRST", 0).unwrap();
        fs::write(at("created"), "new").unwrap();
        fs::create_dir(at("made")).unwrap();
        fs::write(at("made/inside"), "new and deeper").unwrap();
        fs::create_dir(at("sub/hollow")).unwrap();
        fs::rename(at("renamed"), at("renamed to")).unwrap();
        fs::rename(at("crossed"), at("sub/crossed")).unwrap();
        fs::write(at(".temporary"), "put in its place").unwrap();
        fs::rename(at(".temporary"), at("replaced")).unwrap();
        fs::remove_file(at("removed")).unwrap();
        fs::remove_file(at("emptied/x")).unwrap();
        fs::remove_dir(at("emptied")).unwrap();
        fs::set_permissions(at("for me"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(at("private"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("created", at("link")).unwrap();
        fs::remove_file(at("sub/pointer")).unwrap();
        symlink("overwritten", at("sub/pointer")).unwrap();
        fs::hard_link(at("kept"), at("kept, too")).unwrap();
        fs::remove_file(at("turned")).unwrap();
        fs::create_dir(at("turned")).unwrap();
        fs::write(at("turned/now"), "was a file").unwrap();
    }
}

const FILES: [&str; 13] = [
    "appended",
    "shortened",
    "sub/overwritten",
    "renamed",
    "crossed",
    "replaced",
    "removed",
    "emptied/x",
    "for me",
    "private/x",
    "kept",
    "turned",
    "sub/kept",
];

fn fill(day: &Path) {
    for name in FILES {
        let path = day.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("first {name}")).unwrap();
    }
    symlink("kept", day.join("sub/pointer")).unwrap();
    for (name, mode) in [("private", 0o755), ("for me", 0o644)] {
        fs::set_permissions(day.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// What a reader finds: modes, and bytes or texts of links.
fn shown(day: &Path) -> BTreeMap<String, String> {
    let walk = walkdir::WalkDir::new(day).follow_root_links(true).min_depth(1);
    let entries = walk.into_iter().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let meta = entry.path().symlink_metadata().unwrap();
            let content = match () {
                () if meta.is_dir() => "directory".to_owned(),
                () if meta.is_symlink() => format!("-> {}", fs::read_link(entry.path()).unwrap().display()),
                () => fs::read_to_string(entry.path()).unwrap(),
            };
            let mode = meta.permissions().mode() & 0o777;
            (entry.path().strip_prefix(day).unwrap().display().to_string(), format!("{mode:o} {content}"))
        })
        .collect()
}

/// A day that stands where it is to go away from.
fn ready(way: Way) -> Lab {
    let lab = lab(way != Way::Rename);
    fill(&lab.day());
    match way {
        Way::Restore => {
            lab.moved();
        }
        Way::Adopt => {
            lab.moved();
            lab.archive().restore_day(&day(), Duration::from_secs(3600)).unwrap();
        }
        _ => {}
    }
    lab
}

/// Moves by this way until it is done; a day that changed meanwhile stays, and is taken the next time.
fn go(lab: &Lab, way: Way) {
    if way != Way::Restore {
        lab.moved();
        return;
    }
    let until = Instant::now() + PATIENCE;
    loop {
        match lab.archive().restore_day(&day(), Duration::from_secs(3600)) {
            Err(ArchiveError::Changed(_)) if Instant::now() < until => std::thread::yield_now(),
            answer => {
                answer.unwrap();
                return;
            }
        }
    }
}

/// Brings over what is late until nothing is, and removes what was kept.
fn settle(lab: &Lab) {
    let archive = lab.archive();
    for _ in 0..3 {
        let settled = archive.settle_displaced(i64::MAX).unwrap();
        assert!(settled.problems.is_empty(), "{:?}", settled.problems);
    }
    assert!(archive.displaced().unwrap().is_empty());
    lab.assert_clean();
}

#[test]
fn what_a_program_does_that_was_in_the_day_counts_whenever_it_does_it() {
    let twin = tempfile::tempdir().unwrap();
    fill(twin.path());
    Program::start(twin.path()).work();
    let wanted = shown(twin.path());
    let after = ["when all is done"];
    for way in [Way::Copy, Way::Rename, Way::Adopt, Way::Restore] {
        let mut reached = 0;
        for place in ARCHIVE_POINTS.iter().chain(&after) {
            let lab = ready(way);
            let program = Rc::new(Cell::new(Some(Program::start(&lab.day()))));
            let (waiting, place) = (program.clone(), *place);
            hook::set(move |at| {
                if at == place
                    && let Some(mut program) = waiting.take()
                {
                    program.work();
                }
            });
            go(&lab, way);
            hook::clear();
            let left = program.take();
            match left {
                Some(mut program) if after.contains(&place) => program.work(),
                Some(_) => continue,
                None => reached += 1,
            }
            settle(&lab);
            assert_eq!(lab.is_link(), way != Way::Restore);
            assert_eq!(shown(&lab.day()), wanted, "{way:?}, {place}");
        }
        assert!(reached >= 9, "{way:?}: {reached} places");
    }
}

#[test]
fn what_both_a_late_program_and_a_reader_of_the_link_changed_is_kept_twice() {
    for way in [Way::Copy, Way::Adopt, Way::Restore] {
        let lab = ready(way);
        let mut program = Program::start(&lab.day());
        let late = PathBuf::from(format!("/proc/self/fd/{}", program.inside.as_raw_fd()));
        go(&lab, way);
        let live = lab.day();
        // The same file: appended to here, replaced there; and the other way round.
        program.appended.write_all(b", late").unwrap();
        fs::write(live.join("appended"), "through the path").unwrap();
        fs::remove_file(late.join("removed")).unwrap();
        fs::write(live.join("removed"), "written on").unwrap();
        fs::write(late.join("kept"), "late, and removed there").unwrap();
        fs::remove_file(live.join("kept")).unwrap();
        for (at, text) in [(&late, "late"), (&live, "early")] {
            fs::write(at.join("new"), text).unwrap();
        }
        // The directory that it is written in went there.
        fs::write(late.join("private/more"), "late in what is gone").unwrap();
        fs::remove_dir_all(live.join("private")).unwrap();
        settle(&lab);
        let found: Vec<String> = shown(&live).into_values().collect();
        for text in [
            "first appended, late",
            "through the path",
            "written on",
            "late, and removed there",
            "late",
            "early",
            "late in what is gone",
        ] {
            assert!(found.iter().any(|one| one.ends_with(&format!(" {text}"))), "{way:?}: {text:?} is lost: {:#?}", shown(&live));
        }
    }
}

#[test]
fn a_directory_where_the_other_place_has_a_file_loses_neither() {
    for way in [Way::Copy, Way::Adopt, Way::Restore] {
        let lab = ready(way);
        let program = Program::start(&lab.day());
        let late = PathBuf::from(format!("/proc/self/fd/{}", program.inside.as_raw_fd()));
        go(&lab, way);
        let live = lab.day();
        fs::create_dir(late.join("odd")).unwrap();
        fs::write(late.join("odd/inner"), "late in a directory").unwrap();
        fs::write(live.join("odd"), "a file").unwrap();
        fs::write(late.join("strange"), "late, a file").unwrap();
        fs::create_dir(live.join("strange")).unwrap();
        fs::write(live.join("strange/inner"), "in a directory").unwrap();
        settle(&lab);
        let found: Vec<String> = shown(&live).into_values().collect();
        for text in ["late in a directory", "a file", "late, a file", "in a directory"] {
            assert!(found.iter().any(|one| one.ends_with(&format!(" {text}"))), "{way:?}: {text:?}: {:#?}", shown(&live));
        }
    }
}

/// Writers, their words, and who holds them up.
#[derive(Default)]
struct Crowd {
    written: Mutex<BTreeSet<String>>,
    words: AtomicU64,
    done: AtomicBool,
    gate: Mutex<Gate>,
    moved: Condvar,
}

/// What the writers may do.
#[derive(Debug, Default)]
struct Gate {
    held: bool,
    /// How many write at this moment.
    busy: usize,
    /// Words that may be written until they are let go the next time: each move is to have its share, however long it takes.
    left: usize,
}

/// Words between two moves.
const WORDS: usize = 60;

impl Crowd {
    /// Holds them up; none writes when the call returns.
    fn hold(&self) {
        let mut gate = self.gate.lock().unwrap();
        gate.held = true;
        let (gate, late) = self.moved.wait_timeout_while(gate, PATIENCE, |gate| gate.busy > 0).unwrap();
        assert!(!late.timed_out(), "{gate:?}");
    }

    fn let_go(&self) {
        let mut gate = self.gate.lock().unwrap();
        (gate.held, gate.left) = (false, WORDS);
        self.moved.notify_all();
    }

    /// Waits until every word of this turn is written.
    fn spent(&self) {
        let gate = self.gate.lock().unwrap();
        let (gate, late) = self.moved.wait_timeout_while(gate, PATIENCE, |gate| gate.left > 0 || gate.busy > 0).unwrap();
        assert!(!late.timed_out(), "{gate:?}");
    }

    /// Holds them up while something is done, until it comes to a place; a day that changed meanwhile is taken once more.
    fn held<T>(self: &Arc<Crowd>, place: &'static str, mut work: impl FnMut() -> Result<T, ArchiveError>) -> T {
        let crowd = self.clone();
        hook::set(move |at| {
            if at == place {
                crowd.let_go();
            }
        });
        let until = Instant::now() + PATIENCE;
        let answer = loop {
            self.hold();
            match work() {
                // What was written right before cannot be told from what is written now.
                Err(ArchiveError::Changed(_)) if Instant::now() < until => std::thread::yield_now(),
                answer => break answer.unwrap(),
            }
        };
        hook::clear();
        self.spent();
        answer
    }

    fn write(&self, number: usize, day: &Path) {
        let mut random = fixtures::bytes::Stream::new(number as u64 + 7);
        let own = format!("own-{number}");
        let open = |name: &str| OpenOptions::new().append(true).create(true).open(day.join(name)).unwrap();
        let start = || (open("shared"), open(&own), File::open(day).unwrap());
        let (mut shared, mut alone, mut inside) = start();
        while !self.done.load(Ordering::SeqCst) {
            let gate = self.gate.lock().unwrap();
            let waits = |gate: &mut Gate| (gate.held || gate.left == 0) && !self.done.load(Ordering::SeqCst);
            let (mut gate, late) = self.moved.wait_timeout_while(gate, PATIENCE, waits).unwrap();
            assert!(!late.timed_out());
            if self.done.load(Ordering::SeqCst) {
                return;
            }
            (gate.busy, gate.left) = (gate.busy + 1, gate.left - 1);
            drop(gate);
            let word = format!("word-{number}-{}", self.words.fetch_add(1, Ordering::SeqCst));
            let line = format!("{word}\n");
            let within = PathBuf::from(format!("/proc/self/fd/{}", inside.as_raw_fd()));
            let told = match random.below(12) {
                0..=3 => alone.write_all(line.as_bytes()),
                4..=5 => shared.write_all(line.as_bytes()),
                6 => fs::write(within.join(&word), &line),
                7 => fs::create_dir(within.join(&word)).and_then(|()| fs::write(within.join(&word).join("file"), &line)),
                8 => fs::write(within.join(format!(".{word}")), &line)
                    .and_then(|()| fs::rename(within.join(format!(".{word}")), within.join("sub").join(&word))),
                // Through the path, which is always there.
                9 => fs::write(day.join(format!("through-{word}")), &line),
                _ => {
                    (shared, alone, inside) = start();
                    Err(std::io::Error::other("nothing was written"))
                }
            };
            if told.is_ok() {
                self.written.lock().unwrap().insert(word);
            }
            self.gate.lock().unwrap().busy -= 1;
            self.moved.notify_all();
        }
    }
}

/// Words that stand anywhere in a tree.
fn words(top: &Path) -> BTreeSet<String> {
    let walk = walkdir::WalkDir::new(top).follow_root_links(true).into_iter().map(|entry| entry.unwrap());
    let files = walk.filter(|entry| entry.file_type().is_file());
    files.flat_map(|entry| fs::read_to_string(entry.path()).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn no_word_of_many_writers_is_lost_while_a_day_moves_there_and_back() {
    let swaps = std::env::var("DRIFTLESS_TEST_SWAPS").ok().and_then(|count| count.parse().ok()).unwrap_or(16u64);
    let places = ["archive-before-exchange", "archive-exchanged", "archive-exchange-checked", "archive-kept"];
    let back = ["archive-restore-before-exchange", "archive-restore-exchanged", "archive-restore-withdrawn"];
    for other_disk in [true, false] {
        let lab = lab(other_disk);
        lab.write("sub/first", b"first");
        let (crowd, day_path) = (Arc::new(Crowd::default()), lab.day());
        let mut random = fixtures::bytes::Stream::new(1);
        std::thread::scope(|scope| {
            for number in 0..3 {
                let (crowd, day_path) = (&crowd, &day_path);
                scope.spawn(move || crowd.write(number, day_path));
            }
            let work = || {
                let archive = lab.archive();
                let settle = || {
                    let settled = archive.settle_displaced(0).unwrap();
                    assert!(settled.problems.is_empty(), "{:?}", settled.problems);
                };
                for _ in 0..swaps / 2 {
                    // In the tumult no day would ever be found quiet: they write from one of these places on.
                    let place = places[random.below(4) as usize];
                    crowd.held(place, || lab.go());
                    settle();
                    let place = back[random.below(3) as usize];
                    crowd.held(place, || archive.restore_day(&day(), Duration::from_secs(3600)));
                    settle();
                }
            };
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            crowd.done.store(true, Ordering::SeqCst);
            crowd.let_go();
            if let Err(panic) = worked {
                std::panic::resume_unwind(panic);
            }
        });
        settle(&lab);
        let written = std::mem::take(&mut *crowd.written.lock().unwrap());
        let found = words(&lab.day());
        let lost: Vec<_> = written.difference(&found).collect();
        assert!(lost.is_empty(), "other disk: {other_disk}: {} of {} words are lost: {lost:?}", lost.len(), written.len());
        assert!(!written.is_empty());
        told(&format!("other disk: {other_disk}: {} words in {swaps} swaps", written.len()));
    }
}

#[allow(clippy::print_stderr, reason = "how much was done is said when it is asked for")]
fn told(text: &str) {
    eprintln!("{text}");
}
