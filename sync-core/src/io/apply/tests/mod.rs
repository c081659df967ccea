//! Steps on a real root with a real state, and a source that lives in memory.

mod actions;
mod crash;
mod moving;
mod races;
mod shown;
mod versions;

use super::*;
use crate::entry::{Attrs, Digest, Hash, Kind, Object};
use crate::io::kill::hook;
use crate::io::source::{Feed, Fetched, Wanted, unchanged};
use crate::io::state::{Batch, Entry};
use crate::knowledge::{Creation, Event, ReplicaId};
use crate::plan::{Displaced, Item, Stamp};
use crate::report::Done;
use crate::store::Change;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const MASK: AttrMask = AttrMask { perms: true, owner: false, times: true };
const OLD_NS: i64 = 1_600_000_000_000_000_000;
const THERE: ReplicaId = ReplicaId([2; 16]);

/// A source in memory.
#[derive(Default)]
struct There {
    files: Mutex<HashMap<RelPath, Vec<u8>>>,
    digests: Mutex<HashMap<RelPath, Digest>>,
    fetched: Mutex<Vec<RelPath>>,
    /// Bytes that find room here, per file.
    room: Option<usize>,
    /// With this file the connection fails.
    fails_at: Option<RelPath>,
    lost: std::sync::atomic::AtomicBool,
}

fn lost() -> SourceError {
    crate::io::channel::ChannelError::Ended.into()
}

struct ThereFeed<'a>(&'a There, Vec<Wanted>);

impl Feed for ThereFeed<'_> {
    fn fetch(&mut self, number: usize, target: &mut fs::File) -> Result<Fetched, SourceError> {
        use std::io::Write;
        let ThereFeed(there, wanted) = self;
        let path = &wanted[number].path;
        if there.fails_at.as_ref() == Some(path) {
            there.lost.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        there.alive()?;
        there.fetched.lock().unwrap().push(path.clone());
        let files = there.files.lock().unwrap();
        let bytes = files.get(path).ok_or_else(|| SourceError::Stale(path.clone()))?;
        if let Some(room) = there.room.filter(|room| bytes.len() > *room) {
            target.write_all(&bytes[..room]).unwrap();
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(SourceError::Copy { path: path.clone(), source });
        }
        target.write_all(bytes).unwrap();
        Ok(Fetched { size: bytes.len() as u64, hash: hash_of(bytes) })
    }
}

impl Source for There {
    fn feed<'s>(&'s self, _: &'s Root, wanted: Vec<Wanted>) -> Box<dyn Feed + 's> {
        Box::new(ThereFeed(self, wanted))
    }

    fn alive(&self) -> Result<(), SourceError> {
        if self.lost.load(std::sync::atomic::Ordering::SeqCst) { Err(lost()) } else { Ok(()) }
    }

    fn digest(&self, dir: &RelPath) -> Result<Digest, SourceError> {
        Ok(self.digests.lock().unwrap().get(dir).copied().unwrap_or_default())
    }

    fn settle(&self) -> Result<(), SourceError> {
        self.alive()
    }
}

#[derive(Default)]
struct Watcher {
    items: Mutex<Vec<(Item, Done)>>,
    notices: Mutex<Vec<String>>,
    stop: std::sync::atomic::AtomicBool,
}

impl Monitor for Watcher {
    fn item(&self, item: &Item, _: usize, done: Done) {
        self.items.lock().unwrap().push((item.clone(), done));
    }
    fn notice(&self, text: &str) {
        self.notices.lock().unwrap().push(text.into());
    }
    fn cancelled(&self) -> bool {
        self.stop.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// A root, its state, and what is there.
struct World {
    folder: tempfile::TempDir,
    root: Root,
    state: Option<State>,
    there: There,
    watcher: Watcher,
    under_way: UnderWay,
    ticket: Cell<u64>,
    counter: Cell<u64>,
    keep: Option<Duration>,
}

fn rel(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn hash_of(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        root.private(&[]).unwrap();
        let state = State::open(&folder.path().join(".driftless"), MASK).unwrap();
        World {
            folder,
            root,
            state: Some(state),
            there: There::default(),
            watcher: Watcher::default(),
            under_way: UnderWay::default(),
            ticket: Cell::new(0),
            counter: Cell::new(0),
            keep: Some(Duration::from_secs(7 * 86_400)),
        }
    }

    fn state(&self) -> &State {
        self.state.as_ref().unwrap()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    /// A file, or a directory if `bytes` is `None`, here and in the rows.
    fn have(&self, path: &str, bytes: Option<&str>) -> Row {
        match bytes {
            Some(bytes) => fs::write(self.at(path), bytes).unwrap(),
            None => fs::create_dir(self.at(path)).unwrap(),
        }
        let file = fs::File::open(self.at(path)).unwrap();
        let old = std::time::UNIX_EPOCH + Duration::from_nanos(OLD_NS as u64);
        file.set_modified(old).unwrap();
        self.record(path, bytes.map(|bytes| hash_of(bytes.as_bytes())))
    }

    /// Records what stands at a path as a scan would.
    fn record(&self, path: &str, hash: Option<Hash>) -> Row {
        let path = rel(path);
        let (parent, name) = path.split().unwrap();
        let dir = self.root.dir(&parent).unwrap();
        let signature = dir.stat(name.as_bytes()).unwrap().unwrap();
        let content = match crate::io::source::kind_of(&signature).unwrap() {
            Kind::Dir => Content::Dir,
            Kind::File => Content::File { size: signature.size, hash },
            Kind::Symlink => Content::Symlink(dir.read_link(name.as_bytes()).unwrap()),
        };
        let event = self.state().tick().unwrap();
        let object = Object { content, attrs: signature.attrs() };
        let row = Row { object, m: event.into(), c: event.into() };
        let change = Change::Put { path, row: row.clone(), signature, learn: None };
        self.commit(vec![change]);
        row
    }

    fn commit(&self, changes: Vec<Change>) {
        self.state().commit(Batch { changes, ..Batch::default() }, false).unwrap();
    }

    /// A version of the other side; its bytes, if it is a file, stand at `path` there.
    fn theirs(&self, path: &str, bytes: Option<&str>) -> Row {
        let content = match bytes {
            Some(bytes) => {
                self.there.files.lock().unwrap().insert(rel(path), bytes.into());
                let hash = Some(hash_of(bytes.as_bytes()));
                Content::File { size: bytes.len() as u64, hash }
            }
            None => Content::Dir,
        };
        let mode = if bytes.is_some() { 0o640 } else { 0o750 };
        self.their_row(Object { content, attrs: Attrs { mode, mtime_ns: OLD_NS, ..Attrs::default() } })
    }

    fn their_row(&self, object: Object) -> Row {
        self.counter.set(self.counter.get() + 1);
        let event = Event { replica: THERE, counter: self.counter.get() };
        Row { object, m: event.into(), c: Creation::from(event) }
    }

    /// All that the other side knows so far.
    fn known(&self) -> Arc<Vector> {
        Arc::new(Event { replica: THERE, counter: self.counter.get().max(1) }.into())
    }

    fn step(&self, path: &str, action: Action) -> Step {
        self.ticket.set(self.ticket.get() + 1);
        Step { ticket: self.ticket.get(), path: rel(path), action }
    }

    fn write(&self, path: &str, row: &Row, expect: Option<&Row>) -> Step {
        let stamp = Stamp::Given { m: row.m.clone(), c: row.c.clone() };
        self.step(
            path,
            Action::Write {
                row: row.clone(),
                from: rel(path),
                expect: expect.cloned(),
                stamp,
                learn: Some(self.known()),
                displaced: Displaced::Versions,
                settles: false,
            },
        )
    }

    /// A file comes from the other side.
    fn create(&self, path: &str, bytes: &str) -> Step {
        let row = self.theirs(path, Some(bytes));
        self.write(path, &row, None)
    }

    /// A directory comes from the other side.
    fn make(&self, path: &str) -> Step {
        let row = self.theirs(path, None);
        self.write(path, &row, None)
    }

    fn finish_dir(&self, path: &str) -> Step {
        self.step(path, Action::FinishDir { mtime_ns: OLD_NS })
    }

    fn remove(&self, path: &str, expect: &Row) -> Step {
        self.counter.set(self.counter.get() + 1);
        let (learn, bound) = (self.known(), self.known());
        self.step(path, Action::Remove { expect: expect.clone(), learn, bound, event: false })
    }

    fn remove_tree(&self, path: &str, expect: &Row) -> Step {
        self.counter.set(self.counter.get() + 1);
        let (learn, bound) = (self.known(), self.known());
        self.step(path, Action::RemoveTree { expect: expect.clone(), learn, bound })
    }

    fn context(&self) -> Context<'_> {
        Context {
            root: &self.root,
            state: self.state(),
            source: &self.there,
            mask: MASK,
            keep_versions: self.keep,
            monitor: &self.watcher,
            side: 0,
            state_elsewhere: false,
            under_way: &self.under_way,
            reserve: crate::reserve::Reserve::NONE,
        }
    }

    fn apply(&self, steps: Vec<Step>) -> Applied {
        self.apply_moving(steps, Moves::new())
    }

    fn apply_moving(&self, steps: Vec<Step>, moves: Moves) -> Applied {
        let mut apply = Apply::new(self.context(), moves).unwrap();
        for step in steps {
            apply.push(step).unwrap();
        }
        apply.finish().unwrap()
    }

    /// Each list is a batch of its own.
    fn apply_batches(&self, batches: Vec<Vec<Step>>) -> Applied {
        let mut apply = Apply::new(self.context(), Moves::new()).unwrap();
        for steps in batches {
            for step in steps {
                apply.push(step).unwrap();
            }
            if !apply.cancelled {
                apply.turn().unwrap();
            }
        }
        apply.finish().unwrap()
    }

    fn entry(&self, path: &str) -> Option<Entry> {
        self.state().entry(&rel(path)).unwrap()
    }

    /// What stands on the disk, the private folder left out.
    fn disk(&self) -> BTreeMap<String, String> {
        walkdir::WalkDir::new(self.folder.path())
            .min_depth(1)
            .into_iter()
            .filter_entry(|entry| entry.file_name() != ".driftless")
            .map(|entry| {
                let entry = entry.unwrap();
                let shown = entry.path().strip_prefix(self.folder.path()).unwrap();
                let what = if entry.file_type().is_dir() {
                    "dir".into()
                } else if entry.file_type().is_symlink() {
                    format!("-> {}", fs::read_link(entry.path()).unwrap().display())
                } else {
                    fs::read_to_string(entry.path()).unwrap()
                };
                (shown.display().to_string(), what)
            })
            .collect()
    }

    /// Every content that stands anywhere: at a path, or in the private folder.
    fn all_bytes(&self) -> Vec<String> {
        walkdir::WalkDir::new(self.folder.path())
            .into_iter()
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_file())
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with("state"))
            .map(|entry| String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned())
            .collect()
    }

    /// A scan would find nothing to do: rows and disk agree, by signature, or (`by_content`) after a look at the bytes.
    fn assert_no_local_edit(&self, by_content: bool) {
        let disk = self.disk();
        for (path, what) in &disk {
            let entry = self.entry(path).unwrap_or_else(|| panic!("{path} has no row"));
            let (parent, name) = rel(path).split().unwrap();
            let now = self.root.dir(&parent).unwrap().stat(name.as_bytes()).unwrap().unwrap();
            let same = match entry.row.object.content {
                Content::Dir => now.ino == entry.signature.ino && now.mode == entry.signature.mode,
                Content::File { hash, .. } if by_content && hash.is_some() => hash == Some(hash_of(what.as_bytes())),
                _ => unchanged(&now, &entry.signature) || by_content,
            };
            let attrs = MASK.equal(entry.row.object.kind(), &now.attrs(), &entry.row.object.attrs);
            assert!(same, "{path} looks edited");
            assert!(attrs, "{path} has other attributes than its row");
        }
        assert_eq!(self.state().live().unwrap(), disk.len() as u64, "rows without objects");
    }

    fn assert_stage_is_empty(&self) {
        let left: Vec<_> = fs::read_dir(self.at(".driftless/stage")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    fn kept(&self) -> Vec<String> {
        let mut kept: Vec<String> = walkdir::WalkDir::new(self.at(".driftless/versions"))
            .into_iter()
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| fs::read_to_string(entry.path()).unwrap())
            .collect();
        kept.sort();
        kept
    }

    /// Does something at a place, once.
    fn at_place(&self, place: &'static str, act: impl FnOnce(&Path) + 'static) {
        let folder = self.folder.path().to_owned();
        let mut act = Some(act);
        hook::set(move |name| {
            if name == place
                && let Some(act) = act.take()
            {
                act(&folder);
            }
        });
    }

    /// Ends at the `nth` passing of a place as a crash does: nothing that is in memory survives. False if the place
    /// is not passed so often.
    fn crash_at(&self, place: &'static str, nth: usize, run: impl FnOnce(&World)) -> bool {
        let mut left = nth;
        hook::set(move |name| {
            if name == place {
                left -= 1;
                if left == 0 {
                    hook::clear();
                    std::panic::panic_any("crash");
                }
            }
        });
        let crashed = catch_unwind(AssertUnwindSafe(|| run(self)));
        hook::clear();
        match crashed {
            Ok(()) => false,
            Err(panic) => {
                assert_eq!(panic.downcast_ref::<&str>(), Some(&"crash"), "another panic");
                true
            }
        }
    }

    fn reopen(&mut self) {
        self.state = None;
        self.state = Some(State::open(&self.at(".driftless"), MASK).unwrap());
    }

    fn recover(&self) -> Recovered {
        recover(&self.root, self.state(), MASK).unwrap()
    }
}

/// The tests of one thread leave no hook behind.
impl Drop for World {
    fn drop(&mut self) {
        hook::clear();
    }
}

fn write_file(path: &Path, bytes: &str) {
    fs::write(path, bytes).unwrap();
}
