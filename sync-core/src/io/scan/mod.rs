//! Finds what changed in a root since its state was recorded, and records it there as local changes.
//!
//! Directories are compared in parallel, one at a time each: the names on the disk with the live rows
//! (`compare`). What differs is looked at closely by the thread that found it (`walk`, `examine`), and goes
//! to one writer (`record`), which knows the event, recognises moves and holds deletions back until the whole
//! walk has ended well. What cannot be read is left as the state has it: unknown is never absent.
//!
//! The scan has threads of its own rather than a shared pool's: its workers wait for the writer, and a pool
//! whose threads run both would stand still.

mod compare;
mod examine;
mod mounts;
mod queue;
mod read;
mod record;
mod walk;

pub use mounts::{may_miss_links, missing_mounts, remember_missed_links};
pub use read::{Clock, rehash};

use crate::entry::{AttrMask, Signature};
use crate::io::fs::{FsError, Root};
use crate::io::mutex::{into_inner, lock};
use crate::io::state::{NodeId, State, StateError};
use crate::io::watch::Beside;
use crate::knowledge::Event;
use crate::path::{RelPath, escape};
use crate::report::{Monitor, Problem};
use mounts::Mounts;
use queue::{Only, Queue};
use record::Recorder;
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use walk::Walker;

/// Problems kept with their text; beyond it they are counted.
pub const PROBLEMS: usize = 10_000;
/// Most threads that walk one root.
const WORKERS: usize = 8;
/// Messages that wait for the writer.
const QUEUED_MESSAGES: usize = 16;
/// Where the state remembers the device of the root, to tell mount points from plain directories.
const ROOT_DEVICE: &str = "scan.root_device";

/// Decides whether a path (a directory, if the flag is set) is ignored.
pub type Ignore<'a> = &'a (dyn Fn(&RelPath, bool) -> bool + Sync);

/// What to look at, and how.
pub struct Scan<'a> {
    /// The root.
    pub root: &'a Root,
    /// Its state: what was there last time, and where changes are recorded.
    pub state: &'a State,
    /// Ignored paths are not looked at, and their rows stay as they are. `None` is faster than a rule that never matches.
    pub ignore: Option<Ignore<'a>>,
    /// Only these paths and what is below; empty: everything.
    pub only: &'a [RelPath],
    /// Read every file that has a row, whatever its signature says.
    pub checksum: bool,
    /// Directories that lie in a cold root are not looked into, if they are there and were recorded: their rows stay as they are.
    pub skip_placed: bool,
    /// Is told of each directory before it is listed, so that it is watched by then. For scans of everything.
    pub watch: Option<&'a Beside>,
    /// Which attributes are part of a version.
    pub mask: AttrMask,
    /// What [`ctime_granularity`](crate::io::fs::ctime_granularity) says of the root.
    pub granularity_ns: i64,
    /// Is told of progress and problems.
    pub monitor: &'a dyn Monitor,
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scanned {
    /// Files, directories and links looked at.
    pub entries: u64,
    /// Paths that are new or changed, in content or in replicated attributes.
    pub changed: u64,
    /// Paths that are gone; a directory with all below it counts once.
    pub vanished: u64,
    /// Sockets, pipes and devices: never synchronised.
    pub specials: u64,
    /// Paths that could not be looked at; their rows stay as they were. At most [`PROBLEMS`].
    pub problems: Vec<Problem>,
    /// Number of such paths.
    pub failed: u64,
    /// Where a file system is not mounted that was: what is there is unknown, and nothing is to be put there.
    pub unavailable: Vec<RelPath>,
    /// The event of all changes found; `None` if there are none.
    pub event: Option<Event>,
}

/// Why a scan could not be finished. What it recorded until then is true; no deletion is among it.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The root itself cannot be looked at.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The state cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// Another directory stands at the root's path now.
    #[error("{} was replaced, mounted over or unmounted during the scan: nothing there is taken for deleted", escape(path.as_os_str().as_bytes()))]
    RootChanged {
        /// The root.
        path: PathBuf,
    },
    /// The folder was a root, and bears no marker any more.
    #[error(
        "{} has lost its marker (.driftless/marker) since it was opened: nothing there is taken for deleted. Is its disk mounted?",
        escape(path.as_os_str().as_bytes())
    )]
    Unmarked {
        /// The root.
        path: PathBuf,
    },
    /// More mount points than can be remembered.
    #[error(
        "{path} is one mount point more than the {} that can be kept apart below one root: leave some out by ignore rules",
        mounts::MOST
    )]
    Mounts {
        /// The one too many.
        path: RelPath,
    },
    /// The user stopped the run.
    #[error("the scan was stopped")]
    Cancelled,
}

/// What stands at the root's path at this moment. Device and inode tell whether it is still the directory that
/// was opened.
///
/// # Errors
/// The system's.
pub fn root_identity(root: &Root) -> Result<Signature, FsError> {
    root.signature_by_path()
}

/// Scans a root and records what changed.
///
/// # Errors
/// See [`ScanError`]; a path that fails is a problem in the result, not an error.
pub fn scan(scan: &Scan<'_>) -> Result<Scanned, ScanError> {
    scan_while(scan, &|| Ok(()))
}

/// As [`scan`], of a root that must be what `stands` says it is, before and after: before anything counts as deleted.
///
/// # Errors
/// As [`scan`], and those of `stands`.
pub fn scan_while(scan: &Scan<'_>, stands: &dyn Fn() -> Result<(), ScanError>) -> Result<Scanned, ScanError> {
    let device = check_root(scan.root)?.dev;
    stands()?;
    let moves = !scan.state.known(NodeId::ROOT)?.is_empty();
    let shared = Shared {
        clock: Clock { root_dev: device, granularity_ns: scan.granularity_ns },
        root_dev_before: recorded_device(scan.state)?,
        mounts: Mounts::load(scan.root, scan.state)?,
        queue: Queue::starting_at(Only::of(scan.only)),
        totals: Totals::default(),
        problems: Problems::new(scan.monitor),
    };
    let mut recorder = Recorder::new(scan, &shared, moves);
    walk_all(scan, &shared, &mut recorder)?;
    check_root(scan.root)?;
    stands()?;
    let mut scanned = recorder.finish()?;
    shared.look_for_the_rest(scan);
    scanned.unavailable = shared.mounts.finish()?;
    // Only a whole scan renews the device of all directories' rows.
    if scan.only.is_empty() && shared.root_dev_before != Some(device) {
        scan.state.put_meta(ROOT_DEVICE, &device.to_le_bytes())?;
    }
    scanned.entries = shared.totals.entries.load(Ordering::Relaxed);
    scanned.specials = shared.totals.specials.load(Ordering::Relaxed);
    (scanned.problems, scanned.failed) = shared.problems.into_parts();
    Ok(scanned)
}

/// What the threads of one scan share.
struct Shared<'a> {
    clock: Clock,
    /// Device of the root when it was scanned last.
    root_dev_before: Option<u64>,
    mounts: Mounts<'a>,
    queue: Queue,
    totals: Totals,
    problems: Problems<'a>,
}

#[derive(Default)]
struct Totals {
    entries: AtomicU64,
    specials: AtomicU64,
}

/// Collects problems from any thread.
struct Problems<'a> {
    monitor: &'a dyn Monitor,
    list: Mutex<(Vec<Problem>, u64)>,
}

impl<'a> Problems<'a> {
    fn new(monitor: &'a dyn Monitor) -> Problems<'a> {
        Problems { monitor, list: Mutex::default() }
    }

    fn add(&self, path: RelPath, step: &'static str, error: impl ToString) {
        let problem = Problem { path, step, error: error.to_string() };
        self.monitor.problem(&problem);
        let mut list = lock(&self.list);
        list.1 += 1;
        if list.0.len() < PROBLEMS {
            list.0.push(problem);
        }
    }

    fn into_parts(self) -> (Vec<Problem>, u64) {
        let (mut problems, failed) = into_inner(self.list);
        problems.sort_by(|a, b| a.path.cmp(&b.path));
        (problems, failed)
    }
}

/// Threads that walk or read at the same time.
fn workers() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(WORKERS)
}

impl Shared<'_> {
    /// A path that cannot be looked at stays as it is. What lies elsewhere and is not there is unavailable besides.
    fn unknown(&self, path: &RelPath, step: &'static str, error: FsError) {
        if error.unavailable().is_none_or(|why| self.mounts.miss_placed(path, why)) {
            self.problems.add(path.clone(), step, error);
        }
    }

    /// What lies elsewhere and was not come upon, having neither row nor link: it is unknown if it is not there, since what a pull
    /// would put in its place would hide it.
    fn look_for_the_rest(&self, scan: &Scan<'_>) {
        for path in self.mounts.not_entered().into_iter().filter(|path| in_scope(scan, path)) {
            if let Err(error) = scan.root.dir(&path) {
                self.mounts.miss(&path);
                self.unknown(&path, "look into", error);
            }
        }
    }
}

/// Was a path to be looked at?
fn in_scope(scan: &Scan<'_>, path: &RelPath) -> bool {
    let asked = scan.only.is_empty() || scan.only.iter().any(|only| only.contains(path) || path.contains(only));
    let ignored = |above: &RelPath| !above.is_root() && scan.ignore.is_some_and(|ignore| ignore(above, true));
    asked && !path.ancestors().any(|above| ignored(&above))
}

fn walk_all(scan: &Scan<'_>, shared: &Shared<'_>, recorder: &mut Recorder<'_>) -> Result<(), ScanError> {
    thread::scope(|scope| {
        let (send, receive) = crossbeam_channel::bounded(QUEUED_MESSAGES);
        let walkers: Vec<_> = (0..workers())
            .map(|_| {
                let walker = Walker::new(scan, shared, send.clone());
                scope.spawn(move || walker.run())
            })
            .collect();
        drop(send);
        let recorded = receive.iter().try_for_each(|findings| recorder.take(findings));
        // Whoever still sends is told by the missing receiver, whoever waits for work by the queue.
        drop(receive);
        if recorded.is_err() {
            shared.queue.stop();
        }
        let mut ended = recorded;
        for walker in walkers {
            let walked = walker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended = ended.and(walked);
        }
        ended
    })
}

/// The root's signature, if the directory that was opened still stands at its path.
fn check_root(root: &Root) -> Result<Signature, ScanError> {
    let opened = root.signature()?;
    match root_identity(root) {
        Ok(now) if (now.dev, now.ino) == (opened.dev, opened.ino) => Ok(opened),
        Err(error) if !error.is_missing() => Err(error.into()),
        _ => Err(ScanError::RootChanged { path: root.path().to_owned() }),
    }
}

fn recorded_device(state: &State) -> Result<Option<u64>, ScanError> {
    let bytes = state.meta(ROOT_DEVICE)?;
    Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes))
}

#[cfg(test)]
mod tests;
