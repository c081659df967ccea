//! Watches a root: where did something change? Hints, never facts: whoever is told scans the place ([`Scan::only`]).
//!
//! Each directory has a watch of its own (inotify through `notify`, see `kernel`), the newest days first (`rank`). A directory
//! that comes gets its watches at once, from its top down, each before it is listed; then the whole tree is told as changed. So
//! whatever was made before the watch was there is found by looking, and whatever was made after is told by the watch. A directory
//! that goes or is moved gives its watches back, with all below it; where it went, it is one that comes.
//!
//! **What is missed is said.** The kernel's queue and the one here are bounded; beyond, and when anything fails, all watches are
//! set again and [`Change::Everything`] is told. Directories without a watch are known ([`Watch::unwatched`]): there
//! are not enough, the directory may not be read, or the same directory stands at another path too (a bind mount). They are to be
//! looked at now and then, as is everything, seldom: nobody tells of what others write to a network file system, of what is
//! written through another hard link, nor, before it is closed, through a mapping. A new day takes the watch of the oldest.
//! Mounts below the root are noticed within [`LOOK`], as is a root that was replaced.
//!
//! What driftless itself changes below a root is told as well, and costs a look that finds nothing: the rows say already what
//! stands there. Leaving it out here could leave out what a user did to the same path at the same time. Nothing below `.driftless`
//! is watched.
//!
//! The watches of a root that is to be scanned anyway are set by that scan ([`Beside`]): nothing is listed twice then.
//!
//! Memory: some 600 bytes for each watched directory here and in `notify`, and about a kilobyte in the kernel; while watches are
//! set, some 100 bytes for each directory that is known and waits.
//!
//! [`Scan::only`]: crate::io::scan::Scan::only

mod beside;
mod kernel;
mod limits;
mod mounts;
mod rank;
mod set;
mod table;

pub use beside::Beside;
pub use limits::{Limit, Shortage, enough, granted};

use crate::entry::Signature;
use crate::io::fs::{ColdId, FsError, Root};
use crate::path::{MAX_DEPTH, Name, RelPath, escape};
use crate::quiet::{Change, Why};
use kernel::{Batch, Id, Inbox, Kernel, Leaf, Move};
use mounts::Mounts;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::{Inode, Table, Unwatched};

/// How often mounts and the identity of the root are looked at.
pub const LOOK: Duration = Duration::from_secs(1);
/// Longest single wait.
const WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Decides whether a path (a directory, if the flag is set) is ignored: nothing is told of it, and nothing below it is watched.
pub type Ignored = Box<dyn Fn(&RelPath, bool) -> bool + Send + Sync>;

/// How to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Most watches to set; `None`: as many as the system grants.
    pub watches: Option<u64>,
    /// Changes that wait to be taken, each name counted once; beyond it everything counts as changed.
    pub queued: usize,
    /// Time in which further events are gathered after the first, so that many at once wake nobody for each.
    pub gather: Duration,
    /// Directories in a cold root whose day was over before this second since 1970 get no watch: whoever says so looks at them on
    /// a schedule. They are not told as unwatched.
    pub placed_since: i64,
}

impl Options {
    /// As many watches as there are, 65,536 changes, 20 ms.
    #[must_use]
    pub fn standard() -> Options {
        Options { watches: None, queued: 65_536, gather: Duration::from_millis(20), placed_since: i64::MIN }
    }
}

/// Why a root is not watched, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The root itself cannot be looked at.
    #[error(transparent)]
    Root(#[from] FsError),
    /// Another directory stands at the root's path than the one that was opened.
    #[error("{} was replaced, mounted over or unmounted while its watches were set: nothing there is taken for deleted", escape(path.as_os_str().as_bytes()))]
    RootChanged {
        /// The root.
        path: PathBuf,
    },
    /// `fs.inotify.max_user_instances` is used up, or the process may open no more files.
    #[error(
        "cannot listen for changes: no inotify instance is left for this user ({}); set more with \
         sysctl fs.inotify.max_user_instances={}, or allow the process more open files (ulimit -n)",
        limit.map_or("the limit is not told".to_owned(), |limit| format!("the limit is {limit}")),
        2 * limit.unwrap_or(128).max(128)
    )]
    Instances {
        /// `fs.inotify.max_user_instances`, if the system tells it.
        limit: Option<u64>,
    },
    /// The system refuses to tell of changes.
    #[error("cannot listen for changes: {source}")]
    Listen {
        /// The system's answer.
        source: io::Error,
    },
    /// A directory gets no watch, and not for want of watches.
    #[error("cannot watch {path}: {source}")]
    Set {
        /// The directory.
        path: RelPath,
        /// The system's answer.
        source: io::Error,
    },
    /// What the kernel tells of this process cannot be read.
    #[error("cannot read {path}, without which a root cannot be watched; is /proc mounted?: {source}")]
    Proc {
        /// The file.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The thread that listens ended, or does not end.
    #[error("the thread that listens for changes does not answer; restart driftless")]
    Thread,
    /// An earlier call failed or told that the root is lost.
    #[error("the watch is over; begin another one")]
    Over,
}

/// A watched root. After an error, or [`Change::RootLost`], it is over.
pub struct Watch {
    root: Root,
    identity: Inode,
    options: Options,
    ignored: Option<Ignored>,
    inbox: Arc<Inbox>,
    /// None once the watch is over.
    kernel: Option<Kernel>,
    table: Table,
    unwatched: Unwatched,
    /// The system had no more watches, or as many are set as were asked for.
    met: Option<Limit>,
    next_id: Id,
    mounts: Mounts,
    /// The cold roots that are there.
    colds: BTreeSet<ColdId>,
    /// When mounts and root are looked at next.
    look: Instant,
}

/// Makes a [`Watch::wait`] return, from any thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Inbox>);

impl Waker {
    /// The wait under way returns soon, or else the next one.
    pub fn wake(&self) {
        self.0.wake();
    }
}

impl Watch {
    /// Sets the watches. They are set when this returns: whoever scans now misses nothing.
    ///
    /// # Errors
    /// See [`WatchError`]. Too few watches are none: see [`Watch::shortage`].
    pub fn begin(root: &Root, options: Options, ignored: Option<Ignored>) -> Result<Watch, WatchError> {
        let mut watch = Watch::without_watches(root, options, ignored)?;
        watch.set(&RelPath::root())?;
        watch.must_stand()?;
        Ok(watch)
    }

    /// Sets the watches while a scan looks at the root: each before its directory is listed. See [`Beside`].
    ///
    /// # Errors
    /// See [`WatchError`].
    pub fn beside(root: &Root, options: Options, ignored: Option<Ignored>) -> Result<Beside, WatchError> {
        Watch::without_watches(root, options, ignored).map(Beside::of)
    }

    fn without_watches(root: &Root, options: Options, ignored: Option<Ignored>) -> Result<Watch, WatchError> {
        let opened = inode(&root.signature()?);
        let own = root.again()?;
        if inode(&own.signature()?) != opened {
            return Err(WatchError::RootChanged { path: root.path().to_owned() });
        }
        let mounts = Mounts::open(own.dir(&RelPath::root())?.descriptor())?;
        let inbox = Inbox::new(options.queued);
        let kernel = Kernel::start(&inbox)?;
        Ok(Watch {
            root: own,
            identity: opened,
            options,
            ignored,
            inbox,
            kernel: Some(kernel),
            table: Table::default(),
            unwatched: Unwatched::default(),
            met: None,
            next_id: 0,
            mounts,
            colds: colds(root),
            look: Instant::now(),
        })
    }

    /// What changed since the last call: waits until something did, at most for `wait`. Each path comes once in an answer;
    /// "everything" and a lost root come alone. Empty when the time is over, or somebody called [`Waker::wake`].
    ///
    /// # Errors
    /// See [`WatchError`]: the watch is over.
    pub fn wait(&mut self, wait: Duration) -> Result<Vec<Change>, WatchError> {
        if self.kernel.is_none() {
            return Err(WatchError::Over);
        }
        let changes = self.wait_until(Instant::now() + wait.min(WAIT));
        if changes.as_ref().map_or(true, |changes| changes.contains(&Change::RootLost)) {
            self.kernel = None;
        }
        changes
    }

    /// For another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.inbox))
    }

    /// All watches are set again by the next [`Watch::wait`], which tells "everything": after the limit was raised, or many old
    /// directories went.
    pub fn renew(&self) {
        self.inbox.miss(Why::Renewed);
    }

    /// Number of watched directories.
    #[must_use]
    pub fn watched(&self) -> u64 {
        self.table.len() as u64
    }

    /// Directories that have no watch, each with all below it, to be looked at now and then; at most 10,000, beyond which
    /// neighbours come as the directory that they are in.
    pub fn unwatched(&self) -> impl Iterator<Item = &RelPath> {
        self.unwatched.paths()
    }

    /// What to tell a user if there are fewer watches than directories.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        let missing = self.unwatched.missing();
        let limit = self.met.filter(|_| missing > 0)?;
        Some(Shortage { watched: self.watched(), missing, limit })
    }

    fn wait_until(&mut self, deadline: Instant) -> Result<Vec<Change>, WatchError> {
        loop {
            let batch = self.inbox.take(deadline.min(self.look), self.options.gather);
            let woken = batch.woken;
            let mut changes = self.handle(batch)?;
            let now = Instant::now();
            if now >= self.look {
                self.look_at_mounts(&mut changes)?;
                self.look = now + LOOK;
            }
            if changes.contains(&Change::RootLost) {
                return Ok(vec![Change::RootLost]);
            }
            if !changes.is_empty() || woken || now >= deadline {
                return Ok(changes.into_iter().collect());
            }
        }
    }

    fn handle(&mut self, batch: Batch) -> Result<BTreeSet<Change>, WatchError> {
        let mut changes = BTreeSet::new();
        if let Some(why) = batch.missed {
            if !self.root_stands()? {
                return Ok(BTreeSet::from([Change::RootLost]));
            }
            self.set_all_again()?;
            return Ok(BTreeSet::from([Change::Everything { why }]));
        }
        for (id, leaf, what) in batch.moves {
            let Some(path) = self.locate(id, leaf) else { continue };
            if path.is_root() {
                if !self.root_stands()? {
                    return Ok(BTreeSet::from([Change::RootLost]));
                }
                continue;
            }
            let was_watched = what != Move::Came && self.give_back(&path)?;
            let was_directory = was_watched || what == Move::Removed;
            changes.extend(self.look_again(path, was_directory)?);
        }
        for (id, leaf) in batch.touched {
            // What has no watch any more has moved, and is told where it stands; or is gone, and is told by its parent; or its
            // watch was needed elsewhere, and it is polled.
            let Some(path) = self.locate(id, leaf) else { continue };
            if self.unwatched.has(&path) {
                // It may be readable now.
                changes.extend(self.look_again(path, true)?);
            } else if !self.ignores(&path, false) || !self.ignores(&path, true) {
                changes.insert(Change::Touched(path));
            }
        }
        let tree = |change: &Change| if let Change::Tree(path) = change { Some(Change::Touched(path.clone())) } else { None };
        for entry in changes.iter().filter_map(tree).collect::<Vec<_>>() {
            changes.remove(&entry);
        }
        Ok(changes)
    }

    /// The path of an event; `None` for what is not synchronised.
    fn locate(&self, id: Id, leaf: Leaf) -> Option<RelPath> {
        let dir = self.table.path(id)?;
        let Some(leaf) = leaf else { return Some(dir.clone()) };
        let name = Name::parse(&leaf).ok()?;
        (dir.depth() < MAX_DEPTH).then(|| dir.join(&name))
    }

    /// A directory came or went there, or may have: watched if it is there, and told.
    fn look_again(&mut self, path: RelPath, was_directory: bool) -> Result<Option<Change>, WatchError> {
        let is_directory = match self.root.dir(&path) {
            Ok(_) => true,
            Err(error) if is_no_directory(&error) => false,
            // Not to be read: what is there is unknown.
            Err(_) => true,
        };
        if self.ignores(&path, is_directory) {
            return Ok(None);
        }
        if is_directory {
            self.set(&path)?;
        }
        Ok(Some(if is_directory || was_directory { Change::Tree(path) } else { Change::Touched(path) }))
    }

    fn look_at_mounts(&mut self, changes: &mut BTreeSet<Change>) -> Result<(), WatchError> {
        if !self.root_stands()? {
            changes.insert(Change::RootLost);
            return Ok(());
        }
        let Some(mut changed) = self.mounts.changed()? else { return Ok(()) };
        let (before, now) = (std::mem::take(&mut self.colds), colds(&self.root));
        let places = self.root.places();
        // A cold root is seldom mounted below the root.
        let other = places.all().filter(|placement| before.contains(&placement.cold.id) != now.contains(&placement.cold.id));
        changed.extend(other.map(|placement| placement.path.clone()));
        self.colds = now;
        for path in changed {
            self.give_back(&path)?;
            changes.extend(self.look_again(path, true)?);
        }
        Ok(())
    }

    /// Does the directory that is watched still stand at the root's path?
    fn root_stands(&self) -> Result<bool, WatchError> {
        match self.root.signature_by_path() {
            Ok(now) => Ok(inode(&now) == self.identity),
            Err(error) if is_no_directory(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn must_stand(&self) -> Result<(), WatchError> {
        if self.root_stands()? { Ok(()) } else { Err(WatchError::RootChanged { path: self.root.path().to_owned() }) }
    }

    fn set_all_again(&mut self) -> Result<(), WatchError> {
        // The watches of before must be given back before others are asked for.
        self.kernel.take().map_or(Ok(()), Kernel::stop)?;
        (self.table, self.unwatched, self.met) = (Table::default(), Unwatched::default(), None);
        self.next_id = 0;
        self.kernel = Some(Kernel::start(&self.inbox)?);
        self.set(&RelPath::root())
    }

    /// No directory stands there any more, or another one: were there any watches at the path or below?
    fn give_back(&mut self, path: &RelPath) -> Result<bool, WatchError> {
        self.unwatched.remove(path);
        let below = self.table.below(path);
        for id in &below {
            self.give_one_back(*id)?;
        }
        Ok(!below.is_empty())
    }

    fn give_one_back(&mut self, id: Id) -> Result<(), WatchError> {
        match (self.table.remove(id), &mut self.kernel) {
            (Some(node), Some(kernel)) => kernel.unwatch(id, node.descriptor),
            _ => Ok(()),
        }
    }

    fn ignores(&self, path: &RelPath, directory: bool) -> bool {
        self.ignored.as_ref().is_some_and(|ignored| ignored(path, directory))
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("root", &self.root).field("watched", &self.watched()).finish_non_exhaustive()
    }
}

/// Is a directory of a day younger than that, as [`Options::placed_since`] has it? One whose path names no day is.
#[must_use]
pub fn is_younger(path: &RelPath, since: i64) -> bool {
    rank::rank(path, || i64::MAX) >= since
}

/// The cold roots that are there.
fn colds(root: &Root) -> BTreeSet<ColdId> {
    root.places().colds().iter().filter(|cold| cold.dir().is_ok()).map(|cold| cold.id).collect()
}

fn inode(stat: &Signature) -> Inode {
    (stat.dev, stat.ino)
}

/// Is nothing there, or something that has no watch?
fn is_no_directory(error: &FsError) -> bool {
    matches!(error.source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests;
