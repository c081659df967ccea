//! A scan that sets the watches of the root on its way: whatever changes meanwhile is recorded by it, or told afterwards.

use super::*;
use crate::io::watch::{Limit, Options, Watch};
use crate::quiet::Change;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

/// Whatever is waited for comes within this time, on any machine.
const PATIENCE: Duration = Duration::from_secs(120);

impl Bench {
    fn scan_beside(&self, options: Options, monitor: &dyn Monitor) -> (Scanned, Watch) {
        let beside = Watch::beside(&self.root, options, None).unwrap();
        let scanned = scan(&Scan { watch: Some(&beside), monitor, ..self.options() }).unwrap();
        (scanned, beside.finish().unwrap())
    }

    /// Looks where something was told until all that happened before was: the kernel tells in order, and a last file is the end.
    fn follow(&self, watch: &mut Watch, end: &str) -> BTreeSet<Change> {
        self.write(end, "");
        let (mut all, deadline) = (BTreeSet::new(), Instant::now() + PATIENCE);
        while !self.live().contains(&path(end)) {
            assert!(Instant::now() < deadline, "{end} is not told; told: {all:?}");
            let told = watch.wait(Duration::from_millis(50)).unwrap();
            let paths = told.iter().map(|change| match change {
                Change::Touched(path) | Change::Tree(path) => path.clone(),
                Change::Everything { .. } => RelPath::root(),
                Change::RootLost => panic!("the root is there"),
            });
            let only: Vec<_> = paths.collect();
            if !only.is_empty() {
                scan(&Scan { only: &only, ..self.options() }).unwrap();
            }
            all.extend(told);
        }
        all
    }

    /// The paths that are recorded, with size and time of files.
    fn recorded(&self) -> BTreeSet<(RelPath, Option<(u64, i64)>)> {
        let file = |at: &RelPath| {
            let Entry { row, signature, .. } = self.row(at);
            (row.object.kind() == Kind::File).then_some((signature.size, signature.mtime_ns))
        };
        self.live().into_iter().map(|at| (at.clone(), file(&at))).collect()
    }

    /// The same of what is there.
    fn there(&self) -> BTreeSet<(RelPath, Option<(u64, i64)>)> {
        let entries = walkdir::WalkDir::new(self.temp.path()).min_depth(1).into_iter().map(|entry| {
            let entry = entry.unwrap();
            let (meta, at) = (entry.metadata().unwrap(), entry.path().strip_prefix(self.temp.path()).unwrap().to_owned());
            let file = meta.is_file().then(|| (meta.len(), meta.mtime() * 1_000_000_000 + meta.mtime_nsec()));
            (path(at.as_os_str().as_encoded_bytes()), file)
        });
        entries.collect()
    }
}

/// Does something when so many directories were listed and compared.
struct After<F: Fn() + Sync> {
    listed: u32,
    seen: AtomicU32,
    act: F,
}

impl<F: Fn() + Sync> Monitor for After<F> {
    fn advance(&self, _files: u64, _bytes: u64) {
        if self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.listed {
            (self.act)();
        }
    }
}

#[test]
fn what_comes_where_the_scan_has_passed_is_told_and_watched() {
    let bench = Bench::with(&["2025/01/01/f", "2025/01/02/f", "z/f"]);
    // Only the root was listed.
    let act = || {
        bench.write("late/below/f", "one");
        bench.write("top", "one");
    };
    let (_, mut watch) = bench.scan_beside(Options::standard(), &After { listed: 1, seen: AtomicU32::new(0), act });
    let told = bench.follow(&mut watch, "end-1");
    assert!(told.contains(&Change::Tree(path("late"))) && told.contains(&Change::Touched(path("top"))), "{told:?}");
    assert_eq!(bench.recorded(), bench.there());
    for at in ["late/below/g", "2025/01/02/g", "z/g"] {
        bench.write(at, "two");
    }
    let told = bench.follow(&mut watch, "end-2");
    for at in ["late/below/g", "2025/01/02/g", "z/g"] {
        assert!(told.contains(&Change::Touched(path(at))), "{at}: {told:?}");
    }
    assert_eq!((watch.watched(), watch.unwatched().count()), (8, 0));
}

#[test]
fn a_directory_that_moves_between_both_sides_of_the_scan_is_watched_where_it_stands() {
    let bench = Bench::with(&["a/f", "m/sub/f", "z/sub/f"]);
    let rename = |from: &str, to: &str| fs::rename(bench.at(from), bench.at(to)).unwrap();
    // Of the root and the six below it, five were listed.
    for listed in 1..=5 {
        let there = bench.at("m").exists();
        let (from, to) = if there { ("m", "a/moved") } else { ("a/moved", "m") };
        let act = || rename(from, to);
        let (_, mut watch) = bench.scan_beside(Options::standard(), &After { listed, seen: AtomicU32::new(0), act });
        bench.follow(&mut watch, &format!("end-{listed}"));
        assert_eq!(bench.recorded(), bench.there(), "{listed}");
        bench.write(&format!("{to}/sub/{listed}"), "two");
        let told = bench.follow(&mut watch, &format!("last-{listed}"));
        assert!(told.contains(&Change::Touched(path(format!("{to}/sub/{listed}")))), "{listed}: {told:?}");
        assert_eq!(watch.watched(), 6, "{listed}");
    }
}

/// A reproducible sequence of numbers (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Makes, fills, moves and removes directories without regard for anybody else; whatever fails, fails.
fn rampage(top: &Path, seed: u64, steps: u32) {
    let mut dice = Dice(seed);
    let place = |dice: &mut Dice| {
        let mut at = top.to_owned();
        for _ in 0..=dice.below(3) {
            at.push(["a", "b", "c", "d"][dice.below(4) as usize]);
        }
        at
    };
    for step in 0..steps {
        let at = place(&mut dice);
        let _ = match dice.below(8) {
            0..3 => fs::create_dir_all(&at),
            3..6 => fs::create_dir_all(&at).and_then(|()| fs::write(at.join("f"), format!("{seed} {step}"))),
            6 => fs::rename(&at, place(&mut dice)),
            _ => fs::remove_dir_all(&at),
        };
    }
}

#[test]
fn whatever_happens_during_the_scan_is_recorded_by_it_or_told_after_it() {
    for round in 1..=30 {
        let bench = Bench::new();
        rampage(bench.temp.path(), round, 60);
        let mut watch = thread::scope(|scope| {
            let top = bench.temp.path();
            for at in 0..2 {
                scope.spawn(move || rampage(top, round * 1_000 + at + 1, 150));
            }
            bench.scan_beside(Options::standard(), &Silent).1
        });
        bench.follow(&mut watch, "end-1");
        assert_eq!(bench.recorded(), bench.there(), "round {round}");
        let directories: Vec<_> = bench.there().into_iter().filter(|(_, file)| file.is_none()).map(|(at, _)| at).collect();
        directories.iter().for_each(|at| bench.write(&format!("{at}/last"), "last"));
        bench.follow(&mut watch, "end-2");
        assert_eq!(bench.recorded(), bench.there(), "round {round}, afterwards");
        assert_eq!(watch.watched(), directories.len() as u64 + 1, "round {round}");
    }
}

#[test]
fn with_too_few_watches_the_scan_leaves_them_to_the_newest_days() {
    let files = ["2024/12/30/f", "2025/01/01/f", "2025/01/02/f", "2025/01/03/thumbs/f", "2023/05/05/x/y/z/f"];
    let bench = Bench::with(&files.map(|file| format!("up/{file}")).each_ref().map(String::as_str));
    for limit in [1, 2, 3, 8, 9, 12, 16, 17, 100] {
        let options = Options { watches: Some(limit), ..Options::standard() };
        let alone = Watch::begin(&bench.root, options, None).unwrap();
        let (_, beside) = bench.scan_beside(options, &Silent);
        let told = |watch: &Watch| {
            (watch.watched(), watch.unwatched().cloned().collect::<Vec<_>>(), watch.shortage().map(|short| short.missing))
        };
        assert_eq!(told(&beside), told(&alone), "{limit}");
        assert_eq!(told(&beside).0, limit.min(17), "{limit}");
        assert!(beside.shortage().is_none_or(|short| short.limit == Limit::Asked(limit)));
    }
    let (_, mut watch) = bench.scan_beside(Options { watches: Some(8), ..Options::standard() }, &Silent);
    bench.write("up/2025/01/03/thumbs/g", "new");
    bench.write("up/2024/12/30/g", "new");
    let told = bench.follow(&mut watch, "end");
    let days =
        |day: &str| told.iter().any(|change| matches!(change, Change::Touched(at) | Change::Tree(at) if path(day).contains(at)));
    assert!(days("up/2025/01/03") && !days("up/2024"), "{told:?}");
}

#[test]
fn what_the_scan_may_not_look_into_is_known_to_have_no_watch() {
    let bench = Bench::with(&["d/f", "e/f"]);
    let mode = |mode| fs::set_permissions(bench.at("d"), fs::Permissions::from_mode(mode)).unwrap();
    mode(0);
    let (scanned, mut watch) = thread::scope(|scope| {
        let ordinary = scope.spawn(|| {
            become_ordinary();
            bench.scan_beside(Options::standard(), &Silent)
        });
        ordinary.join().unwrap()
    });
    assert_eq!((scanned.failed, watch.unwatched().cloned().collect::<Vec<_>>()), (1, vec![path("d")]));
    mode(0o755);
    assert!(bench.follow(&mut watch, "end").contains(&Change::Tree(path("d"))));
    assert_eq!((watch.watched(), watch.unwatched().count()), (3, 0));
}
