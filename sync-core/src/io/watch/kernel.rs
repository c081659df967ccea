//! The only place that knows `notify`: one watch for each directory, by a number of ours, and what the kernel tells of it, gathered.
//!
//! `notify` knows a watch by the path it was given, and loses its way when directories are renamed: it goes on telling of the old
//! path, and removes by path what stands there now. So it gets no paths of the root. A directory is opened by
//! `io::fs`, beneath the root and never through a link, and the watch is set through `/proc/self/fd/N`; what is told apart by
//! `notify` is a detour in that path that spells the watch's number ([`alias`]). Neither depth nor a link swapped in matters then.
//!
//! The mask cannot be chosen in notify 8: it has OPEN, so that whoever reads files below the root costs us an event that is thrown away
//! at once (about a microsecond), and MODIFY, so that a large write is hundreds of events: the same name counts once until it
//! was taken. IN_UNMOUNT and IN_IGNORED are not passed on: `mounts` finds out by itself.
//!
//! Setting and giving back a watch waits for the thread of `notify`, which has no deadline for that; a thread that has ended is noticed
//! before, since `notify` would panic.
//!
//! notify 8.2.0 keeps some hundred bytes for each watched directory that was removed, for ever; so all watches are set again after
//! [`LEFT_BEHIND`] of them. 8.2.1 does not, and compares the path of each removed directory with all others instead: 4 ms for each
//! removed directory with 20,000 watches, measured, so that `rm -r` of some thousand directories kept a core busy for ten
//! seconds.

use super::WatchError;
use crate::io::fs::Dir;
use crate::path::RESERVED;
use crate::quiet::Why;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode};
use notify::{Event, EventKind, INotifyWatcher, RecursiveMode, Watcher};
use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time in which the thread of `notify` must have ended and given its watches back.
const ENDING: Duration = Duration::from_secs(30);
/// Removed directories of which `notify` keeps something, until all watches are set again.
const LEFT_BEHIND: u32 = 100_000;
/// Directories that every process has below /proc/self: the digits of an alias.
const DIGITS: [&str; 3] = ["fd/../", "ns/../", "task/../"];
/// What stands before them.
const PROC: &str = "/proc/self/";

/// A watch; never used twice.
pub(super) type Id = u32;
/// A name in a watched directory; `None` for the directory itself.
pub(super) type Leaf = Option<Box<[u8]>>;

/// What was told since it was asked last.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// What concerns directories, or may, in the order in which it happened.
    pub(super) moves: Vec<(Id, Leaf, Move)>,
    /// Entries that were made, written, removed, or changed in their attributes.
    pub(super) touched: HashSet<(Id, Leaf)>,
    /// Something was missed.
    pub(super) missed: Option<Why>,
    /// Somebody called [`Inbox::wake`].
    pub(super) woken: bool,
}

/// What became of a name that may be a directory's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// Made, or moved there.
    Came,
    /// Moved away.
    Left,
    /// A directory was removed.
    Removed,
}

impl Batch {
    fn len(&self) -> usize {
        self.moves.len() + self.touched.len()
    }

    fn says_nothing(&self) -> bool {
        self.len() == 0 && self.missed.is_none() && !self.woken
    }
}

/// Where the thread of `notify` leaves what it hears. Bounded: beyond `most`, all is dropped and counts as missed.
#[derive(Debug)]
pub(super) struct Inbox {
    batch: Mutex<Batch>,
    told: Condvar,
    most: usize,
}

impl Inbox {
    pub(super) fn new(most: usize) -> Arc<Inbox> {
        Arc::new(Inbox { batch: Mutex::default(), told: Condvar::new(), most: most.max(1) })
    }

    /// Whoever waits is to return.
    pub(super) fn wake(&self) {
        self.lock().woken = true;
        self.told.notify_all();
    }

    /// Waits until something was told or `until` has come; then a little more, up to `gather`, so that a thousand events
    /// wake nobody a thousand times.
    pub(super) fn take(&self, until: Instant, gather: Duration) -> Batch {
        let mut batch = self.lock();
        while batch.says_nothing() {
            let Some(rest) = until.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) else { break };
            batch = self.told.wait_timeout(batch, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        let gathered = Instant::now() + gather;
        while batch.len() > 0 && batch.len() < self.most / 2 && batch.missed.is_none() && !batch.woken {
            let Some(rest) = gathered.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) else { break };
            batch = self.told.wait_timeout(batch, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut batch)
    }

    /// Forgets what watches that are gone told; that somebody is to wake stands.
    fn clear(&self) {
        let mut batch = self.lock();
        *batch = Batch { woken: batch.woken, ..Batch::default() };
    }

    /// Holds the thread of `notify` up.
    #[cfg(test)]
    pub(super) fn batch(&self) -> MutexGuard<'_, Batch> {
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was, or is to be, missed.
    pub(super) fn miss(&self, why: Why) {
        let mut batch = self.lock();
        batch.moves = Vec::new();
        batch.touched = HashSet::new();
        batch.missed.get_or_insert(why);
        self.told.notify_all();
    }

    fn put(&self, id: Id, leaf: Leaf, what: Option<Move>) {
        let mut batch = self.lock();
        // All watches will be set again, and everything be looked at: nothing else matters any more.
        if batch.missed.is_some() {
            return;
        }
        let first = batch.len() == 0;
        match what {
            None => {
                batch.touched.insert((id, leaf));
            }
            Some(what) => {
                let same = |(at, name, was): &(Id, Leaf, Move)| (*at, name, *was) == (id, &leaf, what);
                if !batch.moves.last().is_some_and(same) {
                    batch.moves.push((id, leaf, what));
                }
            }
        }
        let len = batch.len();
        drop(batch);
        if len > self.most {
            self.miss(Why::OwnQueue);
        } else if first || len == self.most / 2 {
            self.told.notify_all();
        }
    }
}

/// A thread of `notify`, and its watches.
#[derive(Debug)]
pub(super) struct Kernel {
    watcher: Option<INotifyWatcher>,
    inbox: Arc<Inbox>,
    left_behind: u32,
    /// Disconnected when the thread has ended.
    ended: Receiver<Infallible>,
}

impl Kernel {
    /// An inotify instance without watches.
    pub(super) fn start(inbox: &Arc<Inbox>) -> Result<Kernel, WatchError> {
        inbox.clear();
        let (running, ended) = crossbeam_channel::bounded(0);
        let handler = Handler { inbox: Arc::clone(inbox), _running: running };
        match INotifyWatcher::new(handler, notify::Config::default().with_follow_symlinks(false)) {
            Ok(watcher) => Ok(Kernel { watcher: Some(watcher), inbox: Arc::clone(inbox), left_behind: 0, ended }),
            Err(error) => Err(refused(error)),
        }
    }

    /// Watches a directory.
    pub(super) fn watch(&mut self, id: Id, dir: &Dir) -> Result<(), Refusal> {
        let alias = alias(id, dir);
        match self.alive()?.watch(&alias, RecursiveMode::NonRecursive) {
            Ok(()) => Ok(()),
            Err(notify::Error { kind: notify::ErrorKind::MaxFilesWatch, .. }) => Err(Refusal::Limit),
            Err(error) => Err(Refusal::Other(system(error))),
        }
    }

    /// Gives a watch back that was set through this descriptor. If the directory was removed, the kernel has taken it already.
    pub(super) fn unwatch(&mut self, id: Id, descriptor: i32) -> Result<(), WatchError> {
        let alias = spelled(id, descriptor);
        match self.alive().map_err(|_| WatchError::Thread)?.unwatch(&alias) {
            Ok(()) => Ok(()),
            Err(error) if is_gone(&error) => {
                self.left_behind += 1;
                if self.left_behind == LEFT_BEHIND {
                    self.inbox.miss(Why::Renewed);
                }
                Ok(())
            }
            Err(error) => Err(WatchError::Listen { source: system(error) }),
        }
    }

    /// Gives all watches back, and returns when they are.
    pub(super) fn stop(mut self) -> Result<(), WatchError> {
        self.end();
        match self.ended.recv_timeout(ENDING) {
            Err(RecvTimeoutError::Timeout) => Err(WatchError::Thread),
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            Ok(never) => match never {},
        }
    }

    /// `notify` panics when it is called after its thread has ended.
    fn alive(&mut self) -> Result<&mut INotifyWatcher, Refusal> {
        let ended = matches!(self.ended.try_recv(), Err(TryRecvError::Disconnected));
        self.watcher.as_mut().filter(|_| !ended).ok_or_else(|| Refusal::Other(io::Error::other("its thread has ended")))
    }

    fn end(&mut self) {
        match self.alive().is_ok() {
            true => self.watcher = None,
            // Its drop would panic; what is left of it is a channel.
            false => std::mem::forget(self.watcher.take()),
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.end();
        self.inbox.clear();
    }
}

/// Why a directory gets no watch.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There are no more.
    Limit,
    /// The system's answer.
    Other(io::Error),
}

/// Runs on the thread of `notify`.
struct Handler {
    inbox: Arc<Inbox>,
    /// Dropped with the thread, after its watches.
    _running: Sender<Infallible>,
}

impl notify::EventHandler for Handler {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        let event = match event {
            Err(error) => return self.inbox.miss(Why::Failed(error.to_string())),
            Ok(event) if event.need_rescan() => return self.inbox.miss(Why::KernelQueue),
            Ok(event) => event,
        };
        let what = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => None,
            // Opened, read; and a rename told again with both names.
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return,
            EventKind::Create(CreateKind::Folder) | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Move::Came),
            EventKind::Modify(ModifyKind::Name(_)) => Some(Move::Left),
            EventKind::Remove(RemoveKind::File) => None,
            EventKind::Remove(_) => Some(Move::Removed),
            EventKind::Create(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => None,
        };
        match event.paths.first().and_then(|path| read(path)) {
            Some((_, Some(name))) if &*name == RESERVED => {}
            Some((id, leaf)) => self.inbox.put(id, leaf, what),
            None => self.inbox.miss(Why::Failed(format!("an event that cannot be read: {event:?}"))),
        }
    }
}

/// A path that leads to an open directory and spells the number of its watch, the lowest digit first.
fn alias(id: Id, dir: &Dir) -> PathBuf {
    spelled(id, dir.descriptor().as_raw_fd())
}

fn spelled(id: Id, descriptor: i32) -> PathBuf {
    let mut text = String::from(PROC);
    let (base, mut rest) = (DIGITS.len() as u32, id);
    loop {
        text.push_str(DIGITS[(rest % base) as usize]);
        rest /= base;
        if rest == 0 {
            break;
        }
    }
    text.push_str(&format!("fd/{descriptor}"));
    text.into()
}

/// The watch and the name of an event.
fn read(path: &Path) -> Option<(Id, Leaf)> {
    let mut rest = path.as_os_str().as_bytes().strip_prefix(PROC.as_bytes())?;
    let (mut id, mut weight) = (0u32, 1u32);
    while let Some((digit, after)) = (0..).zip(DIGITS).find_map(|(at, digit)| Some((at, rest.strip_prefix(digit.as_bytes())?))) {
        id = id.checked_add(weight.checked_mul(digit)?)?;
        weight = weight.saturating_mul(DIGITS.len() as u32);
        rest = after;
    }
    let rest = rest.strip_prefix(b"fd/")?;
    let name = rest.iter().position(|byte| *byte == b'/').map(|at| rest[at + 1..].into());
    Some((id, name))
}

/// Did the watch go with its directory? `notify` has heard of it, or not yet.
fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::WatchNotFound => true,
        notify::ErrorKind::Io(error) => error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()),
        _ => false,
    }
}

fn system(error: notify::Error) -> io::Error {
    match error.kind {
        notify::ErrorKind::Io(error) => error,
        notify::ErrorKind::PathNotFound => io::ErrorKind::NotFound.into(),
        _ => io::Error::other(error.to_string()),
    }
}

/// Why there is no inotify instance.
fn refused(error: notify::Error) -> WatchError {
    let source = system(error);
    match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => WatchError::Instances { limit: super::limits::instances() },
        _ => WatchError::Listen { source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_tells_its_watch_and_no_two_are_alike() {
        let ids = [0, 1, 2, 3, 4, 8, 9, 27, 20_000, u32::MAX];
        let mut seen = HashSet::new();
        for id in ids.into_iter().chain(0..2_000) {
            let alias = spelled(id, 7);
            assert_eq!(read(&alias), Some((id, None)));
            assert_eq!(read(&alias.join("a name")), Some((id, Some(b"a name"[..].into()))));
            assert_eq!(read(&alias.join("fd")), Some((id, Some(b"fd"[..].into()))));
            seen.insert(alias);
        }
        assert_eq!(seen.len(), 2_002, "a path is compared by its components");
        assert_eq!(read(Path::new("/srv/a")), None);
    }

    #[test]
    fn more_than_may_wait_is_missed_and_told_so() {
        let inbox = Inbox::new(2);
        let name = |at: u8| Some(Box::from([at]));
        for at in [1, 1, 2, 2] {
            inbox.put(0, name(at), None);
        }
        assert_eq!(inbox.lock().touched.len(), 2, "the same name counts once");
        inbox.put(0, name(3), Some(Move::Came));
        let batch = inbox.take(Instant::now(), Duration::ZERO);
        assert_eq!((batch.len(), batch.missed), (0, Some(Why::OwnQueue)));
    }
}
