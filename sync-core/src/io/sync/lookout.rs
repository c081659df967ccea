//! Looks out for changes in a root that a run keeps open: what was noticed, and is quiet, waits here until the run looks at it.
//!
//! Where no watch can be set, or one breaks, everything counts as changed every [`BLIND`], which is said; so do directories that
//! have no watch, and, seldom, everything.

use super::news::News;
use super::opened::Opened;
use crate::io::mutex::lock;
use crate::io::watch::{self, Watch, WatchError};
use crate::path::RelPath;
use crate::quiet::{Change, Limits, Quiet};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often everything is looked at where changes cannot be listened for, and what has no watch where some have one.
const BLIND: Duration = Duration::from_secs(30);
/// How often everything is looked at beside that: nobody tells of some changes.
pub(super) const EVERYTHING: Duration = Duration::from_secs(3600);
/// Paths that were noticed and wait to be looked at; beyond it everything is.
const NOTICED: usize = 65_536;
/// Texts for the user that wait; the oldest goes.
const TEXTS: usize = 16;

/// Decides whether a path (a directory, if the flag is set) is ignored.
pub(super) type Ignored = Arc<dyn Fn(&RelPath, bool) -> bool + Send + Sync>;

/// What was noticed since the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Noticed {
    /// These paths, each with what is below it; perhaps none.
    Paths(Vec<RelPath>),
    /// Anything may have changed.
    Everything,
    /// The directory is not the one that was opened any more.
    Lost,
}

/// A thread that listens for changes in one root.
pub(super) struct Lookout {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and its owner share.
struct Seen {
    opened: Arc<Opened>,
    ignored: Ignored,
    quiet: Duration,
    /// Is told when there is something to look at.
    news: Arc<News>,
    over: AtomicBool,
    heap: Mutex<Heap>,
    /// Ends the wait for changes.
    waker: Mutex<Option<watch::Waker>>,
}

#[derive(Default)]
struct Heap {
    paths: BTreeSet<RelPath>,
    everything: bool,
    lost: bool,
    texts: Vec<String>,
}

impl Lookout {
    /// Listens from now on, if that can be. Whatever stands there now is not told: it is to be looked at once, after this.
    pub(super) fn begin(opened: Arc<Opened>, ignored: Ignored, quiet: Duration, news: Arc<News>) -> Lookout {
        let (over, heap, waker) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        let seen = Arc::new(Seen { opened, ignored, quiet, news, over, heap, waker });
        let begun = seen.watch();
        let listening = Arc::clone(&seen);
        let thread = thread::spawn(move || listening.work(begun));
        Lookout { seen, thread: Some(thread) }
    }

    /// What was noticed since this was asked last.
    pub(super) fn take(&self) -> Noticed {
        let mut heap = lock(&self.seen.heap);
        if heap.lost {
            return Noticed::Lost;
        }
        let paths = std::mem::take(&mut heap.paths);
        if std::mem::take(&mut heap.everything) { Noticed::Everything } else { Noticed::Paths(paths.into_iter().collect()) }
    }

    /// What was taken could not be looked at.
    pub(super) fn put_back(&self, noticed: Noticed) {
        let mut heap = lock(&self.seen.heap);
        match noticed {
            Noticed::Paths(paths) => {
                heap.everything |= paths.iter().any(RelPath::is_root);
                heap.paths.extend(paths.into_iter().filter(|path| !path.is_root()));
            }
            Noticed::Everything => heap.everything = true,
            Noticed::Lost => heap.lost = true,
        }
    }

    /// What the user is to hear of it.
    pub(super) fn texts(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.seen.heap).texts)
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.seen.over.store(true, Ordering::Release);
        if let Some(waker) = &*lock(&self.seen.waker) {
            waker.wake();
        }
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there is a defect that changes nothing of what was done.
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn watch(&self) -> Result<Watch, WatchError> {
        let options = watch::Options { gather: Duration::from_millis(5), ..watch::Options::standard() };
        let ignored = Arc::clone(&self.ignored);
        Watch::begin(&self.opened.root, options, Some(Box::new(move |path, dir| ignored(path, dir))))
    }

    fn work(&self, mut begun: Result<Watch, WatchError>) {
        while !self.is_over() {
            let ended = begun.and_then(|watch| {
                // Whoever ends it a moment before finds no waker, and the loop finds that it is over.
                *lock(&self.waker) = Some(watch.waker());
                self.listen(watch)
            });
            *lock(&self.waker) = None;
            match ended {
                Ok(()) => return,
                Err(WatchError::RootChanged { .. }) => return self.note(|heap| heap.lost = true),
                Err(error) => {
                    let (root, seconds) = (self.opened.root.path().display(), BLIND.as_secs());
                    self.say(format!("{root}: {error}; until that is mended, all of it is looked at every {seconds} seconds"));
                }
            }
            self.rest(BLIND);
            begun = self.watch();
            // Nobody told what changed meanwhile.
            self.note(|heap| heap.everything = true);
        }
    }

    /// Until it is to end, or cannot go on, or the root is lost.
    fn listen(&self, mut watch: Watch) -> Result<(), WatchError> {
        let (mut quiet, began) = (Quiet::new(Limits { quiet: self.quiet, ..Limits::standard() }), Instant::now());
        let (mut poll, mut everything, mut short) = (BLIND, EVERYTHING, false);
        while !self.is_over() {
            let missing = watch.shortage();
            if missing.is_some() != short {
                short = missing.is_some();
                if let Some(shortage) = &missing {
                    self.say(format!("{}: {shortage}", self.opened.root.path().display()));
                }
            }
            let now = began.elapsed();
            let next = quiet.next_deadline().unwrap_or(everything).min(everything);
            let next = if short { next.min(poll) } else { next };
            let changes = watch.wait(next.saturating_sub(now))?;
            let now = began.elapsed();
            changes.into_iter().for_each(|change| quiet.take(now, change));
            let mut ready = quiet.ready(now);
            if short && now >= poll {
                poll = now + BLIND;
                ready.extend(watch.unwatched().cloned().map(Change::Tree));
            }
            if now >= everything {
                everything = now + EVERYTHING;
                ready.push(Change::Tree(RelPath::root()));
            }
            if ready.contains(&Change::RootLost) {
                self.note(|heap| heap.lost = true);
                return Ok(());
            }
            if !ready.is_empty() {
                self.notice(ready);
            }
        }
        Ok(())
    }

    /// Changes are quiet, and to be looked at.
    fn notice(&self, changes: Vec<Change>) {
        for change in &changes {
            if let Change::Everything { why } = change {
                self.say(format!("{}: everything is looked at: {why}", self.opened.root.path().display()));
            }
        }
        self.note(|heap| {
            for change in changes {
                match change {
                    Change::Touched(path) | Change::Tree(path) if !path.is_root() => drop(heap.paths.insert(path)),
                    Change::Touched(_) | Change::Tree(_) | Change::Everything { .. } => heap.everything = true,
                    Change::RootLost => heap.lost = true,
                }
            }
            if heap.paths.len() > NOTICED {
                heap.paths.clear();
                heap.everything = true;
            }
        });
    }

    fn note(&self, change: impl FnOnce(&mut Heap)) {
        change(&mut lock(&self.heap));
        self.news.ring();
    }

    /// Told with the next look. The same text is told once as long as it waits.
    fn say(&self, text: String) {
        self.note(|heap| {
            if !heap.texts.contains(&text) {
                heap.texts.push(text);
            }
            let many = heap.texts.len().saturating_sub(TEXTS);
            heap.texts.drain(..many);
        });
    }

    fn rest(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.is_over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }
}
