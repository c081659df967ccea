use super::*;
use crate::entry::{Content, Hash, Kind};
use crate::io::fs::ctime_granularity;
use crate::io::state::{Batch, Entry};
use crate::knowledge::{ReplicaId, Vector};
use crate::report::Silent;
use crate::store::Change;
use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

const ALL: AttrMask = AttrMask { perms: true, owner: true, times: true };
/// A clock so coarse that everything is racy for ever.
const ALWAYS_RACY: i64 = 1_000_000_000_000;

struct Bench {
    temp: tempfile::TempDir,
    root: Root,
    state: State,
    granularity_ns: i64,
}

fn path(bytes: impl AsRef<[u8]>) -> RelPath {
    RelPath::parse(bytes.as_ref()).unwrap()
}

impl Bench {
    fn new() -> Bench {
        let temp = tempfile::tempdir().unwrap();
        let root = Root::open(temp.path()).unwrap();
        let state = State::in_memory(ReplicaId([7; 16]), ALL).unwrap();
        let granularity_ns = ctime_granularity(&root).unwrap();
        Bench { temp, root, state, granularity_ns }
    }

    /// A bench whose state lies in its root, as it does in use.
    fn on_disk() -> Bench {
        let bench = Bench::new();
        let private = bench.at(".driftless");
        std::fs::create_dir(&private).unwrap();
        let state = State::open(&private, ALL).unwrap();
        Bench { state, ..bench }
    }

    /// A bench with files that were scanned and hashed.
    fn with(files: &[&str]) -> Bench {
        let bench = Bench::new();
        files.iter().for_each(|file| bench.write(file, "one"));
        bench.settle();
        bench
    }

    fn at(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.temp.path().join(name.as_ref())
    }

    fn write(&self, name: &str, bytes: &str) {
        let at = self.at(name);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, bytes).unwrap();
    }

    fn options(&self) -> Scan<'_> {
        Scan {
            root: &self.root,
            state: &self.state,
            ignore: None,
            only: &[],
            checksum: false,
            skip_placed: false,
            watch: None,
            mask: ALL,
            granularity_ns: self.granularity_ns,
            monitor: &Silent,
        }
    }

    fn scan(&self) -> Scanned {
        scan(&self.options()).unwrap()
    }

    /// Scans and reads every file, until nothing is left to find.
    fn settle(&self) -> Scanned {
        let first = self.scan();
        let files: Vec<_> = self.live().into_iter().filter(|path| self.row(path).row.object.kind() == Kind::File).collect();
        assert_eq!(rehash(&self.root, &self.state, &files, self.granularity_ns, &Silent).unwrap(), []);
        first
    }

    fn live(&self) -> Vec<RelPath> {
        let mut found = Vec::new();
        let mut waiting = vec![(RelPath::root(), NodeId::ROOT)];
        while let Some((dir, node)) = waiting.pop() {
            for row in self.state.known(node).unwrap() {
                let path = dir.join(&row.name);
                waiting.extend(row.node.map(|node| (path.clone(), node)));
                found.push(path);
            }
        }
        found.sort();
        found
    }

    fn live_text(&self) -> Vec<String> {
        self.live().iter().map(ToString::to_string).collect()
    }

    fn row(&self, path: &RelPath) -> Entry {
        self.state.entry(path).unwrap().unwrap_or_else(|| panic!("{path} is not live"))
    }

    fn entry(&self, text: &str) -> Entry {
        self.row(&path(text))
    }

    fn hash(&self, text: &str) -> Option<Hash> {
        match self.entry(text).row.object.content {
            Content::File { hash, .. } => hash,
            other => panic!("{other:?}"),
        }
    }

    fn mtime(&self, name: &str) -> SystemTime {
        std::fs::symlink_metadata(self.at(name)).unwrap().modified().unwrap()
    }

    fn set_mtime(&self, name: &str, time: SystemTime) {
        std::fs::File::open(self.at(name)).unwrap().set_modified(time).unwrap();
    }
}

fn event_of(entry: &Entry) -> Event {
    let events: Vec<_> = entry.row.m.iter().collect();
    assert_eq!(events.len(), 1);
    events[0]
}

fn found(scanned: &Scanned) -> (u64, u64) {
    assert_eq!(scanned.problems, []);
    (scanned.changed, scanned.vanished)
}

#[test]
fn a_first_scan_records_everything_under_one_event_unread() {
    let bench = Bench::new();
    bench.write("a", "x");
    bench.write("d/e/f", "y");
    symlink("nowhere", bench.at("l")).unwrap();
    let scanned = bench.scan();
    assert_eq!((found(&scanned), scanned.entries), ((5, 0), 5));
    assert_eq!(bench.live_text(), ["a", "d", "d/e", "d/e/f", "l"]);
    for path in bench.live() {
        let entry = bench.row(&path);
        assert_eq!(Some(event_of(&entry)), scanned.event);
        assert_eq!(entry.row.c.iter().collect::<Vec<_>>(), [scanned.event.unwrap()]);
    }
    assert_eq!(bench.hash("a"), None);
    assert_eq!(bench.entry("l").row.object.content, Content::Symlink(b"nowhere"[..].into()));
}

#[test]
fn a_second_scan_finds_nothing_and_takes_no_event() {
    let bench = Bench::with(&["a", "d/e/f"]);
    symlink("a", bench.at("l")).unwrap();
    bench.scan();
    let (counter, seq) = (bench.state.counter(), bench.state.seq());
    let scanned = bench.scan();
    assert_eq!((found(&scanned), scanned.event, scanned.entries), ((0, 0), None, 5));
    assert_eq!(bench.state.counter(), counter);
    assert_eq!(bench.state.seq(), seq);
}

#[test]
fn a_rewrite_of_the_same_size_with_its_time_restored_is_found_each_time() {
    let bench = Bench::with(&["f"]);
    let time = bench.mtime("f");
    for round in 0..100 {
        bench.write("f", if round % 2 == 0 { "two" } else { "one" });
        bench.set_mtime("f", time);
        let scanned = bench.scan();
        assert_eq!(found(&scanned), (1, 0), "round {round}");
        assert_eq!(bench.hash("f"), Some(Hash(*blake3::hash(if round % 2 == 0 { b"two" } else { b"one" }).as_bytes())));
    }
}

#[test]
fn a_racy_row_is_read_again_without_an_event() {
    let mut bench = Bench::with(&["f"]);
    bench.granularity_ns = ALWAYS_RACY;
    let options = Scan { checksum: true, ..bench.options() };
    assert_eq!(found(&scan(&options).unwrap()), (0, 0));
    assert!(bench.entry("f").signature.racy);
    assert_eq!(found(&bench.scan()), (0, 0));
    bench.granularity_ns = 0;
    assert_eq!(found(&bench.scan()), (0, 0));
    assert!(!bench.entry("f").signature.racy);
}

#[test]
fn a_change_that_the_signature_hides_is_found_in_a_racy_row() {
    let bench = Bench::with(&["f"]);
    let signature = Signature { racy: true, ..bench.entry("f").signature };
    let wrong = Change::Refresh { path: path("f"), signature, hash: Some(Hash([1; 32])), mtime_ns: None };
    bench.state.commit(Batch { changes: vec![wrong], ..Batch::default() }, false).unwrap();
    assert_eq!(found(&bench.scan()), (1, 0));
}

#[test]
fn a_checksum_run_finds_what_no_signature_tells() {
    let bench = Bench::with(&["f"]);
    let signature = bench.entry("f").signature;
    let wrong = Change::Refresh { path: path("f"), signature, hash: Some(Hash([1; 32])), mtime_ns: None };
    bench.state.commit(Batch { changes: vec![wrong], ..Batch::default() }, false).unwrap();
    assert_eq!(found(&bench.scan()), (0, 0));
    assert_eq!(found(&scan(&Scan { checksum: true, ..bench.options() }).unwrap()), (1, 0));
}

#[test]
fn another_size_is_an_edit_that_is_not_read_and_keeps_the_creation() {
    let bench = Bench::with(&["f"]);
    let before = bench.entry("f");
    bench.write("f", "longer");
    let scanned = bench.scan();
    assert_eq!(found(&scanned), (1, 0));
    let after = bench.entry("f");
    assert_eq!(bench.hash("f"), None);
    assert_eq!(after.row.c, before.row.c);
    assert_eq!(Some(event_of(&after)), scanned.event);
    assert_ne!(after.row.m, before.row.m);
}

#[test]
fn a_touched_file_is_an_edit_only_where_times_are_replicated() {
    let bench = Bench::with(&["f"]);
    let hash = bench.hash("f");
    bench.set_mtime("f", SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    let mask = AttrMask { times: false, ..ALL };
    assert_eq!(found(&scan(&Scan { mask, ..bench.options() }).unwrap()), (0, 0));
    bench.set_mtime("f", SystemTime::UNIX_EPOCH + Duration::from_secs(6));
    assert_eq!(found(&bench.scan()), (1, 0));
    assert_eq!(bench.hash("f"), hash);
    assert_eq!(bench.entry("f").row.object.attrs.mtime_ns, 6_000_000_000);
}

#[test]
fn another_mode_is_an_edit_only_where_modes_are_replicated() {
    let bench = Bench::with(&["d/f"]);
    for (mode, mask, expected) in [(0o600, AttrMask { perms: false, ..ALL }, 0), (0o640, ALL, 2)] {
        std::fs::set_permissions(bench.at("d/f"), PermissionsExt::from_mode(mode)).unwrap();
        std::fs::set_permissions(bench.at("d"), PermissionsExt::from_mode(mode | 0o111)).unwrap();
        assert_eq!(found(&scan(&Scan { mask, ..bench.options() }).unwrap()), (expected, 0));
    }
    assert_eq!(bench.entry("d").row.object.attrs.mode, 0o751);
    assert_eq!(found(&bench.scan()), (0, 0));
}

#[test]
fn a_link_that_points_elsewhere_is_an_edit_and_links_are_never_followed() {
    let bench = Bench::with(&["d/f"]);
    symlink("d", bench.at("l")).unwrap();
    symlink(".", bench.at("d/loop")).unwrap();
    assert_eq!(found(&bench.scan()), (2, 0));
    let before = bench.entry("l");
    std::fs::remove_file(bench.at("l")).unwrap();
    symlink("x", bench.at("l")).unwrap();
    assert_eq!(found(&bench.scan()), (1, 0));
    let after = bench.entry("l");
    assert_eq!(after.row.object.content, Content::Symlink(b"x"[..].into()));
    assert_eq!(after.row.c, before.row.c);
    assert_eq!(bench.live_text(), ["d", "d/f", "d/loop", "l"]);
}

#[test]
fn a_link_made_anew_with_the_same_target_is_no_edit_where_times_are_not_replicated() {
    let bench = Bench::new();
    symlink("x", bench.at("l")).unwrap();
    bench.scan();
    std::fs::remove_file(bench.at("l")).unwrap();
    symlink("x", bench.at("l")).unwrap();
    assert_eq!(found(&scan(&Scan { mask: AttrMask { times: false, ..ALL }, ..bench.options() }).unwrap()), (0, 0));
    std::fs::remove_file(bench.at("l")).unwrap();
    symlink("x", bench.at("l")).unwrap();
    assert_eq!(found(&bench.scan()), (1, 0));
}

#[test]
fn what_is_gone_is_removed_a_directory_at_once() {
    let bench = Bench::with(&["a", "d/e/f", "d/g", "k"]);
    std::fs::remove_file(bench.at("a")).unwrap();
    std::fs::remove_dir_all(bench.at("d")).unwrap();
    let scanned = bench.scan();
    assert_eq!(found(&scanned), (0, 2));
    assert_eq!(bench.live_text(), ["k"]);
    let listing = bench.state.listing(&RelPath::root(), &crate::store::Filter::All).unwrap();
    assert!(Vector::from(scanned.event.unwrap()).within(&listing.bound));
}

#[test]
fn a_file_that_becomes_a_directory_and_back_keeps_its_creation() {
    let bench = Bench::with(&["x"]);
    let created = bench.entry("x").row.c;
    std::fs::remove_file(bench.at("x")).unwrap();
    bench.write("x/y", "new");
    assert_eq!(found(&bench.settle()), (2, 0));
    assert_eq!(bench.live_text(), ["x", "x/y"]);
    assert_eq!((bench.entry("x").row.object.kind(), bench.entry("x").row.c), (Kind::Dir, created.clone()));
    std::fs::remove_dir_all(bench.at("x")).unwrap();
    symlink("t", bench.at("x")).unwrap();
    assert_eq!(found(&bench.scan()), (1, 0));
    assert_eq!(bench.live_text(), ["x"]);
    assert_eq!((bench.entry("x").row.object.kind(), bench.entry("x").row.c), (Kind::Symlink, created));
    assert_eq!(found(&bench.scan()), (0, 0));
}

#[test]
fn pipes_and_sockets_are_counted_and_a_file_that_became_one_is_gone() {
    let bench = Bench::with(&["f", "g"]);
    std::fs::remove_file(bench.at("f")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, bench.at("f"), rustix::fs::Mode::RWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bench.at("s")).unwrap();
    let scanned = bench.scan();
    assert_eq!((found(&scanned), scanned.specials, scanned.entries), ((0, 1), 2, 1));
    assert_eq!(bench.live_text(), ["g"]);
}

#[test]
fn a_directory_touched_on_purpose_is_an_edit_but_not_one_whose_children_changed() {
    let bench = Bench::with(&["d/f", "d/g"]);
    let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let before = bench.entry("d").row;
    bench.set_mtime("d", time(5));
    assert_eq!(found(&bench.scan()), (1, 0));
    assert_ne!(bench.entry("d").row.m, before.m);
    let before = bench.entry("d").row;
    bench.write("d/h", "new");
    // Written in one tick of the clock, the two could be equal.
    bench.set_mtime("d/f", time(6));
    std::fs::rename(bench.at("d/f"), bench.at("d/g")).unwrap();
    bench.set_mtime("d", time(7));
    let scanned = bench.scan();
    assert_eq!((scanned.changed, scanned.vanished), (2, 1));
    let after = bench.entry("d").row;
    assert_eq!((after.m, after.object.attrs.mtime_ns), (before.m, 7_000_000_000));
}

#[test]
fn hidden_names_explain_a_new_time_of_their_directory() {
    let bench = Bench::with(&["d/f"]);
    let ignore = |path: &RelPath, _: bool| path.as_bytes().ends_with(b".tmp");
    bench.write("d/x.tmp", "");
    let options = Scan { ignore: Some(&ignore), ..bench.options() };
    assert_eq!(found(&scan(&options).unwrap()), (0, 0));
    bench.write("d/.driftless/stage/x", "");
    assert_eq!(found(&scan(&options).unwrap()), (0, 0));
    assert_eq!(bench.live_text(), ["d", "d/f"]);
}

#[test]
fn ignored_rows_stay_as_they_are() {
    let bench = Bench::with(&["cache/x", "keep", "old.tmp", "gone.tmp"]);
    let ignore = |path: &RelPath, dir: bool| (dir && path.as_bytes() == b"cache") || path.as_bytes().ends_with(b".tmp");
    bench.write("cache/x", "changed");
    bench.write("old.tmp", "changed");
    std::fs::remove_file(bench.at("gone.tmp")).unwrap();
    let options = || Scan { ignore: Some(&ignore), ..bench.options() };
    assert_eq!(found(&scan(&options()).unwrap()), (0, 0));
    assert_eq!(bench.live_text(), ["cache", "cache/x", "gone.tmp", "keep", "old.tmp"]);
    std::fs::remove_dir_all(bench.at("cache")).unwrap();
    assert_eq!(found(&scan(&options()).unwrap()), (0, 0));
    assert_eq!(bench.live_text(), ["cache", "cache/x", "gone.tmp", "keep", "old.tmp"]);
}

#[test]
fn any_bytes_are_a_name_and_the_private_name_is_left_out_at_every_level() {
    let bench = Bench::new();
    let odd: [&[u8]; 4] = [b"new\nline", b"\xff\xfe", &[b'x'; 255], b" "];
    for name in odd {
        std::fs::create_dir(bench.at(OsStr::from_bytes(name))).unwrap();
        std::fs::write(bench.at(OsStr::from_bytes(name)).join(OsStr::from_bytes(name)), "x").unwrap();
    }
    bench.write(".driftless/state", "x");
    bench.write("d/.driftless/state", "x");
    bench.write("d/.driftless2", "x");
    assert_eq!(found(&bench.scan()), (10, 0));
    assert!(bench.state.entry(&path([odd[2], odd[2]].join(&b'/'))).unwrap().is_some());
    assert!(bench.live().iter().all(|path| { !path.components().any(|name| name.as_bytes() == b".driftless") }));
    assert_eq!(found(&bench.scan()), (0, 0));
}

#[test]
fn what_is_deeper_than_256_components_is_a_problem() {
    let bench = Bench::new();
    let mut dir = bench.root.dir(&RelPath::root()).unwrap();
    for _ in 0..257 {
        dir = dir.create_dir(b"d").unwrap();
    }
    let scanned = bench.scan();
    assert_eq!((scanned.changed, scanned.failed), (256, 1));
    assert!(scanned.problems[0].error.contains("deeper than 256"));
}

#[test]
fn files_in_a_renamed_directory_keep_their_hash_unread() {
    let bench = Bench::with(&["a/b/f", "a/g"]);
    // Were it read, this would show: the recorded hash is not that of the bytes.
    let signature = bench.entry("a/b/f").signature;
    let marked = Change::Refresh { path: path("a/b/f"), signature, hash: Some(Hash([9; 32])), mtime_ns: None };
    bench.state.commit(Batch { changes: vec![marked], ..Batch::default() }, false).unwrap();
    std::fs::rename(bench.at("a"), bench.at("z")).unwrap();
    assert_eq!(found(&bench.scan()), (4, 1));
    assert_eq!(bench.hash("z/b/f"), Some(Hash([9; 32])));
    assert_eq!(bench.hash("z/g"), Some(Hash(*blake3::hash(b"one").as_bytes())));
}

#[test]
fn a_renamed_file_is_read_at_once_and_a_new_one_is_not() {
    let bench = Bench::with(&["a", "log"]);
    std::fs::rename(bench.at("a"), bench.at("b")).unwrap();
    std::fs::rename(bench.at("log"), bench.at("log.1")).unwrap();
    bench.write("log", "a new log");
    bench.write("c", "two");
    assert_eq!(found(&bench.scan()), (4, 1));
    assert_eq!(bench.live_text(), ["b", "c", "log", "log.1"]);
    let one = Some(Hash(*blake3::hash(b"one").as_bytes()));
    assert_eq!((bench.hash("b"), bench.hash("log.1"), bench.hash("c"), bench.hash("log")), (one, one, None, None));
}

#[test]
fn only_the_given_paths_are_looked_at() {
    let bench = Bench::with(&["a/x", "b/c/d", "b/e", "f"]);
    for file in ["a/x", "b/c/d", "b/e", "f", "new", "b/c/n", "p/q/r", "p/s"] {
        bench.write(file, "changed");
    }
    std::fs::remove_file(bench.at("a/x")).unwrap();
    let only = [path("b/c"), path("f"), path("p/q/r"), path("missing/too")];
    let scanned = scan(&Scan { only: &only, ..bench.options() }).unwrap();
    // b/c/d, b/c/n, f, and p, p/q, p/q/r: the directories on the way to something new.
    assert_eq!(found(&scanned), (6, 0));
    assert_eq!(bench.live_text(), ["a", "a/x", "b", "b/c", "b/c/d", "b/c/n", "b/e", "f", "p", "p/q", "p/q/r"]);
    let scanned = scan(&Scan { only: &[path("a/x")], ..bench.options() }).unwrap();
    assert_eq!(found(&scanned), (0, 1));
}

/// Drops the right to read everything, for this thread and those it starts.
fn become_ordinary() {
    let mut sets = rustix::thread::capabilities(None).unwrap();
    sets.effective.remove(rustix::thread::CapabilitySet::DAC_OVERRIDE | rustix::thread::CapabilitySet::DAC_READ_SEARCH);
    rustix::thread::set_capabilities(None, sets).unwrap();
}

#[test]
fn an_unreadable_directory_is_unknown_and_not_deleted() {
    let bench = Bench::with(&["d/e/f", "d/g", "k"]);
    bench.write("new/x", "x");
    for dir in ["d", "new"] {
        std::fs::set_permissions(bench.at(dir), PermissionsExt::from_mode(0o000)).unwrap();
    }
    let mask = AttrMask { perms: false, ..ALL };
    let scanned = thread::scope(|scope| {
        let ordinary = scope.spawn(|| {
            become_ordinary();
            scan(&Scan { mask, ..bench.options() }).unwrap()
        });
        ordinary.join().unwrap()
    });
    for dir in ["d", "new"] {
        std::fs::set_permissions(bench.at(dir), PermissionsExt::from_mode(0o755)).unwrap();
    }
    assert_eq!((scanned.changed, scanned.vanished, scanned.failed), (1, 0, 2));
    assert_eq!(
        scanned.problems.iter().map(|p| (p.path.to_string(), p.step)).collect::<Vec<_>>(),
        [("d".into(), "list"), ("new".into(), "list")]
    );
    assert_eq!(bench.live_text(), ["d", "d/e", "d/e/f", "d/g", "k", "new"]);
}

#[test]
fn an_unreadable_file_stays_as_its_row_has_it() {
    let bench = Bench::with(&["f"]);
    let before = bench.entry("f").row;
    std::fs::set_permissions(bench.at("f"), PermissionsExt::from_mode(0o000)).unwrap();
    let scanned = thread::scope(|scope| {
        let ordinary = scope.spawn(|| {
            become_ordinary();
            bench.scan()
        });
        ordinary.join().unwrap()
    });
    assert_eq!((scanned.changed, scanned.failed, scanned.problems[0].step), (0, 1, "read"));
    assert_eq!(bench.entry("f").row, before);
}

#[test]
fn an_empty_place_where_a_file_system_was_mounted_is_unknown() {
    let bench = Bench::with(&["mnt/a/f", "mnt/g", "plain/h"]);
    // As if it had been another file system when it was recorded.
    let signature = Signature { dev: bench.entry("mnt").signature.dev + 1, ..bench.entry("mnt").signature };
    let mounted = Change::Refresh { path: path("mnt"), signature, hash: None, mtime_ns: None };
    bench.state.commit(Batch { changes: vec![mounted], ..Batch::default() }, false).unwrap();
    for dir in ["mnt/a", "plain"] {
        std::fs::remove_dir_all(bench.at(dir)).unwrap();
    }
    std::fs::remove_file(bench.at("mnt/g")).unwrap();
    bench.write("mnt/NOT_MOUNTED", "");
    std::fs::create_dir(bench.at("plain")).unwrap();
    let scanned = bench.scan();
    assert_eq!((scanned.vanished, scanned.failed), (1, 1));
    assert!(scanned.problems[0].error.contains("unmounted"));
    let scanned = scan(&Scan { only: &[path("mnt/g"), path("mnt/a/f")], ..bench.options() }).unwrap();
    assert_eq!((scanned.vanished, scanned.failed), (0, 1));
    assert_eq!(bench.live_text(), ["mnt", "mnt/a", "mnt/a/f", "mnt/g", "plain"]);
}

/// Acts once, when the scan tells of progress: of entries, or of bytes read.
struct Meddler<'a> {
    when_reading: bool,
    done: AtomicBool,
    act: &'a (dyn Fn() + Sync),
}

impl Monitor for Meddler<'_> {
    fn advance(&self, files: u64, bytes: u64) {
        let due = if self.when_reading { bytes > 0 } else { files > 0 };
        if due && !self.done.swap(true, Ordering::Relaxed) {
            (self.act)();
        }
    }
}

fn meddled(bench: &Bench, when_reading: bool, act: &(dyn Fn() + Sync)) -> Result<Scanned, ScanError> {
    let monitor = Meddler { when_reading, done: AtomicBool::new(false), act };
    let scanned = scan(&Scan { monitor: &monitor, ..bench.options() });
    assert!(monitor.done.into_inner());
    scanned
}

#[test]
fn a_file_that_changes_while_it_is_read_keeps_its_row() {
    let bench = Bench::with(&["f"]);
    let before = bench.entry("f").row;
    bench.write("f", "two");
    let scanned = meddled(&bench, true, &|| bench.write("f", "six")).unwrap();
    assert_eq!((scanned.changed, scanned.failed), (0, 1));
    assert_eq!((scanned.problems[0].step, scanned.problems[0].error.as_str()), ("read", "changes while it is read"));
    assert_eq!(bench.entry("f").row, before);
    assert_eq!(found(&bench.scan()), (1, 0));
}

#[test]
fn a_root_replaced_during_the_scan_deletes_nothing() {
    let bench = Bench::with(&["a", "b"]);
    std::fs::remove_file(bench.at("a")).unwrap();
    let aside = tempfile::tempdir().unwrap();
    let result = meddled(&bench, false, &|| {
        std::fs::rename(bench.temp.path(), aside.path().join("old")).unwrap();
        std::fs::create_dir(bench.temp.path()).unwrap();
    });
    assert!(matches!(result, Err(ScanError::RootChanged { .. })));
    assert_eq!(bench.live_text(), ["a", "b"]);
}

#[test]
fn a_name_that_is_back_at_the_end_of_the_scan_is_not_deleted() {
    let bench = Bench::with(&["a", "b"]);
    std::fs::remove_file(bench.at("a")).unwrap();
    let scanned = meddled(&bench, false, &|| bench.write("a", "one")).unwrap();
    assert_eq!((scanned.vanished, scanned.failed), (0, 1));
    assert_eq!(bench.live_text(), ["a", "b"]);
}

#[test]
fn a_stopped_scan_deletes_nothing() {
    struct Stop;
    impl Monitor for Stop {
        fn cancelled(&self) -> bool {
            true
        }
    }
    let bench = Bench::with(&["a"]);
    std::fs::remove_file(bench.at("a")).unwrap();
    assert!(matches!(scan(&Scan { monitor: &Stop, ..bench.options() }), Err(ScanError::Cancelled)));
    assert_eq!(bench.live_text(), ["a"]);
}

#[test]
fn a_wide_tree_is_scanned_completely_and_parents_first() {
    let bench = Bench::on_disk();
    for dir in 0..40 {
        for file in 0..60 {
            bench.write(&format!("{dir}/{}/{file}", dir % 7), "x");
        }
    }
    let scanned = bench.scan();
    assert_eq!((found(&scanned), scanned.entries), ((40 * 62, 0), 40 * 62));
    assert_eq!(found(&bench.scan()), (0, 0));
    std::fs::rename(bench.at("3"), bench.at("a")).unwrap();
    assert_eq!(found(&bench.scan()), (62, 1));
}

#[test]
fn reading_records_hashes_and_refuses_what_is_not_as_recorded() {
    let bench = Bench::new();
    for file in ["a", "d/b", "c"] {
        bench.write(file, file);
    }
    symlink("a", bench.at("l")).unwrap();
    bench.scan();
    bench.write("c", "C");
    let paths = ["a", "c", "d/b", "l", "missing"].map(path);
    let counter = bench.state.counter();
    let problems = rehash(&bench.root, &bench.state, &paths, bench.granularity_ns, &Silent).unwrap();
    assert_eq!(problems.iter().map(|problem| problem.path.to_string()).collect::<Vec<_>>(), ["c", "l", "missing"]);
    assert_eq!(bench.hash("a"), Some(Hash(*blake3::hash(b"a").as_bytes())));
    assert_eq!(bench.hash("d/b"), Some(Hash(*blake3::hash(b"d/b").as_bytes())));
    assert_eq!((bench.hash("c"), bench.state.counter()), (None, counter));
}

/// Counts the bytes that are read, and writes into a file once some were.
struct Writing {
    at: PathBuf,
    bytes: AtomicU64,
}

impl Monitor for Writing {
    fn advance(&self, _files: u64, bytes: u64) {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) == 0 && bytes > 0 {
            let file = std::fs::File::options().write(true).open(&self.at).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"edited", 0).unwrap();
        }
    }
}

#[test]
fn a_file_that_changes_is_not_read_to_its_end_and_one_that_changed_before_is_not_read_at_all() {
    let bench = Bench::new();
    let large = std::fs::File::create(bench.at("large")).unwrap();
    large.set_len(64 << 20).unwrap();
    bench.set_mtime("large", SystemTime::UNIX_EPOCH);
    bench.scan();
    for most in [(4 << 20) + read::READ_BYTES as u64, 0] {
        let writing = Writing { at: bench.at("large"), bytes: AtomicU64::new(0) };
        let problems = rehash(&bench.root, &bench.state, &[path("large")], bench.granularity_ns, &writing).unwrap();
        assert!(matches!(&problems[..], [problem] if problem.path == path("large")), "{problems:?}");
        let bytes = writing.bytes.into_inner();
        assert!(bytes <= most, "{bytes} bytes were read");
    }
    assert_eq!(bench.hash("large"), None);
}

#[test]
fn a_root_that_is_gone_is_no_empty_root() {
    let bench = Bench::with(&["a"]);
    let place: &Path = bench.temp.path();
    std::fs::remove_dir_all(place).unwrap();
    assert!(matches!(scan(&bench.options()), Err(ScanError::RootChanged { .. })));
    assert_eq!(bench.live_text(), ["a"]);
}

/// A small generator: the same numbers on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// One user's act in a tree of few names; whether it succeeds does not matter.
fn disturb(bench: &Bench, numbers: &mut Numbers) {
    let name = |numbers: &mut Numbers| {
        let depth = 1 + numbers.below(3);
        let parts = (0..depth).map(|_| ["a", "b", "c"][numbers.below(3) as usize]);
        bench.at(parts.collect::<Vec<_>>().join("/"))
    };
    let (one, two) = (name(numbers), name(numbers));
    let bytes = ["x", "y", "zz", ""][numbers.below(4) as usize];
    let _whether_it_worked = match numbers.below(9) {
        0 | 1 => std::fs::write(one, bytes).is_ok(),
        2 => std::fs::create_dir_all(one).is_ok(),
        3 | 4 => std::fs::rename(one, two).is_ok(),
        5 => std::fs::remove_file(one).is_ok(),
        6 => numbers.below(3) == 0 && std::fs::remove_dir_all(one).is_ok(),
        7 => symlink(bytes, one).is_ok(),
        _ => std::fs::File::open(one)
            .and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(numbers.below(3))))
            .is_ok(),
    };
}

/// Everything below, as the disk has it: path, kind, bytes or target, mode.
fn on_the_disk(bench: &Bench, dir: &RelPath, found: &mut Vec<(RelPath, Kind, Vec<u8>, u32)>) {
    for name in bench.root.dir(dir).unwrap().names().unwrap() {
        let Ok(name) = crate::path::Name::parse(&name) else {
            continue;
        };
        let path = dir.join(&name);
        let at = bench.root.locate(&path);
        let meta = std::fs::symlink_metadata(&at).unwrap();
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_dir() {
            found.push((path.clone(), Kind::Dir, Vec::new(), mode));
            on_the_disk(bench, &path, found);
        } else if meta.is_symlink() {
            let target = std::fs::read_link(&at).unwrap();
            found.push((path, Kind::Symlink, target.as_os_str().as_bytes().to_vec(), mode));
        } else {
            let hash = blake3::hash(&std::fs::read(&at).unwrap());
            found.push((path, Kind::File, hash.as_bytes().to_vec(), mode));
        }
    }
}

#[test]
fn whatever_was_done_the_rows_are_the_disk() {
    for seed in 0..12 {
        let bench = if seed % 4 == 0 { Bench::on_disk() } else { Bench::new() };
        let mut numbers = Numbers(seed);
        for round in 0..25 {
            for _ in 0..=numbers.below(12) {
                disturb(&bench, &mut numbers);
            }
            let scanned = bench.settle();
            assert_eq!(scanned.problems, [], "seed {seed} round {round}");
            let mut disk = Vec::new();
            on_the_disk(&bench, &RelPath::root(), &mut disk);
            disk.sort();
            let rows: Vec<_> = bench.live().into_iter().map(|path| recorded(&bench, path)).collect();
            assert_eq!(rows, disk, "seed {seed} round {round}");
            let again = bench.scan();
            assert_eq!((found(&again), again.event), ((0, 0), None), "seed {seed} round {round}");
        }
    }
}

fn recorded(bench: &Bench, path: RelPath) -> (RelPath, Kind, Vec<u8>, u32) {
    let object = bench.row(&path).row.object;
    let bytes = match &object.content {
        Content::Dir => Vec::new(),
        Content::File { hash, .. } => hash.expect("settled").0.to_vec(),
        Content::Symlink(target) => target.to_vec(),
    };
    (path, object.kind(), bytes, object.attrs.mode)
}

mod watched;
