//! What was touched, and is quiet by now: a file that is still being written waits.
//!
//! Changes go in as they are noticed, and come out when nothing more was heard of them for a while. The quiet time is short for
//! what changed once, and grows for what goes on changing: while it waits, to a quarter of the time for which it has been
//! changing; and it doubles each time when a path changes again soon after it was handed out. It never passes
//! [`Limits::longest`], and nothing waits longer than [`Limits::hold`]: a log that is appended to for ever is handed out now and
//! then. A tree in which there is no end of new files is no file that is being written: it waits for [`Limits::tree`] at most. Deletions and both names of a rename wait as long as a first change does, so that an editor's save by rename is one.
//!
//! Nothing is lost: each change comes out itself, or within a tree that covers it, or as "everything". What comes out is a hint
//! where to look, never what happened there.
//!
//! It knows no clock: times are arguments, counted from any beginning, and never run backwards (an earlier one counts as the
//! latest).

use crate::path::RelPath;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::fmt;
use std::time::Duration;

/// A change below a root, as far as it is known: where to look.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// The entry at the path was made, written, changed or removed, or a name was moved to or from there.
    Touched(RelPath),
    /// The path and all below it: a directory came, went, or was not heard of for a while.
    Tree(RelPath),
    /// Anything may have changed.
    Everything {
        /// The reason.
        why: Why,
    },
    /// Another directory stands at the root's path, or none: moved, deleted, mounted over or unmounted. Nothing there is
    /// to be taken for deleted.
    RootLost,
}

/// Why it is not known what changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The kernel dropped events.
    KernelQueue,
    /// More events than may wait here.
    OwnQueue,
    /// The kernel, or the library that listens to it, failed.
    Failed(String),
    /// All watches were set again: that was asked for, or is due.
    Renewed,
    /// More paths than may wait to become quiet.
    Many,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::KernelQueue => f.write_str(
                "the kernel dropped events, since they came faster than they were read; more may wait with \
                 sysctl fs.inotify.max_queued_events",
            ),
            Why::OwnQueue => f.write_str("events came faster than they were looked at"),
            Why::Failed(error) => write!(f, "listening for changes failed: {error}"),
            Why::Renewed => f.write_str("all watches were set again"),
            Why::Many => f.write_str("more paths changed at once than are kept apart"),
        }
    }
}

/// How long what waits, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time without a change after which a first change is handed out.
    pub quiet: Duration,
    /// The same at most, for what goes on changing.
    pub longest: Duration,
    /// Nothing waits longer than this from its first change on.
    pub hold: Duration,
    /// No tree waits longer than this from its first change on, however much goes on in it.
    pub tree: Duration,
    /// Paths that wait; beyond it neighbours become a tree, and at last everything. At least 1 is taken. As many paths that
    /// were handed out are remembered.
    pub paths: usize,
}

impl Limits {
    /// 200 ms, 5 s, 30 s, a second for a tree, 65,536 paths.
    #[must_use]
    pub fn standard() -> Limits {
        let (quiet, longest, hold) = (Duration::from_millis(200), Duration::from_secs(5), Duration::from_secs(30));
        Limits { quiet, longest, hold, tree: Duration::from_secs(1), paths: 65_536 }
    }
}

/// The quiet time is at least this part of the time for which a path has been changing.
const PART: u32 = 4;

/// Changes that wait until they are quiet.
#[derive(Debug)]
pub struct Quiet {
    limits: Limits,
    now: Duration,
    waiting: BTreeMap<RelPath, Waiting>,
    /// How many of them are trees.
    trees: usize,
    /// Everything waits: nothing else does.
    everything: Option<(Why, Times)>,
    root_lost: bool,
    /// When to look at which path, the earliest first; each that waits has an entry that is not too late. Others are stale.
    looks: BinaryHeap<Reverse<(Duration, RelPath)>>,
    /// What was handed out: when, and after which quiet time.
    handed: HashMap<RelPath, Handed>,
    /// When the old ones among them were dropped last.
    forgot: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    tree: bool,
    times: Times,
    /// Since when it has been waiting as what it is; what it swallowed may have been changing before.
    since: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    first: Duration,
    last: Duration,
    /// The quiet time to begin with.
    least: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Handed {
    at: Duration,
    quiet: Duration,
}

impl Waiting {
    fn due(&self, limits: &Limits) -> Duration {
        let due = self.times.due(limits);
        // Not even then sooner than a first change would be.
        if self.tree { due.min(self.since + limits.tree.max(limits.quiet)) } else { due }
    }
}

impl Times {
    fn due(&self, limits: &Limits) -> Duration {
        (self.last + self.quiet(limits)).min(self.first + limits.hold)
    }

    fn quiet(&self, limits: &Limits) -> Duration {
        self.least.max((self.last - self.first) / PART).min(limits.longest.max(limits.quiet))
    }

    /// One that covers both.
    fn and(self, other: Times) -> Times {
        Times { first: self.first.min(other.first), last: self.last.max(other.last), least: self.least.max(other.least) }
    }
}

impl Quiet {
    /// Nothing waits yet.
    #[must_use]
    pub fn new(limits: Limits) -> Quiet {
        Quiet {
            limits: Limits { paths: limits.paths.max(1), ..limits },
            now: Duration::ZERO,
            waiting: BTreeMap::new(),
            trees: 0,
            everything: None,
            root_lost: false,
            looks: BinaryHeap::new(),
            handed: HashMap::new(),
            forgot: Duration::ZERO,
        }
    }

    /// A change was noticed.
    pub fn take(&mut self, now: Duration, change: Change) {
        self.now = self.now.max(now);
        match change {
            Change::RootLost => {
                self.clear();
                self.root_lost = true;
            }
            Change::Everything { why } => self.everything(why),
            Change::Touched(path) => self.touch(path, false),
            Change::Tree(path) => self.touch(path, true),
        }
    }

    /// What is quiet by now or was held for long enough, in the order of paths; each comes once. "Everything" and a lost root
    /// come alone.
    pub fn ready(&mut self, now: Duration) -> Vec<Change> {
        self.now = self.now.max(now);
        if std::mem::take(&mut self.root_lost) {
            return vec![Change::RootLost];
        }
        self.forget();
        if let Some((why, times)) = self.everything.take_if(|(_, times)| times.due(&self.limits) <= self.now) {
            self.remember(&RelPath::root(), times.quiet(&self.limits));
            return vec![Change::Everything { why }];
        }
        let mut ready = Vec::new();
        while let Some(Reverse((at, _))) = self.looks.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, path))) = self.looks.pop() else { break };
            let Some(waiting) = self.waiting.get(&path) else { continue };
            let due = waiting.due(&self.limits);
            if due > self.now {
                self.looks.push(Reverse((due, path)));
                continue;
            }
            let (tree, quiet) = (waiting.tree, waiting.times.quiet(&self.limits));
            self.waiting.remove(&path);
            self.trees -= usize::from(tree);
            self.remember(&path, quiet);
            ready.push(if tree { Change::Tree(path) } else { Change::Touched(path) });
        }
        ready.sort_unstable_by(|a, b| path_of(a).cmp(&path_of(b)));
        ready
    }

    /// When to ask for what is ready, if nothing changes until then; it may be too early, never too late. `None` if nothing
    /// waits.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.root_lost {
            return Some(self.now);
        }
        let everything = self.everything.as_ref().map(|(_, times)| times.due(&self.limits));
        // Stale entries of paths that do not wait any more would wake somebody for nothing only.
        let look = || self.looks.peek().filter(|_| !self.waiting.is_empty()).map(|Reverse((at, _))| *at);
        everything.or_else(look)
    }

    /// Number of paths that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.everything.is_some() || self.root_lost)
    }

    /// Does nothing wait?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn touch(&mut self, path: RelPath, tree: bool) {
        let new = self.times_of(&path);
        if let Some((_, times)) = &mut self.everything {
            times.last = self.now;
            return;
        }
        if let Some(waiting) = self.waiting.get_mut(&path).filter(|waiting| waiting.tree || !tree) {
            waiting.times.last = self.now;
            return;
        }
        let now = self.now;
        if let Some(above) = self.tree_above(&path) {
            above.times.last = now;
            return;
        }
        let waiting = Waiting { tree, times: if tree { self.absorb(&path, new) } else { new }, since: self.now };
        if self.waiting.len() < self.limits.paths { self.insert(path, waiting) } else { self.merge(&path, waiting.times) }
    }

    /// Neighbours become one tree, the smallest that makes room.
    fn merge(&mut self, path: &RelPath, mut times: Times) {
        for above in path.ancestors().skip(1) {
            if above.is_root() {
                break;
            }
            times = self.absorb(&above, times);
            if self.waiting.len() < self.limits.paths {
                return self.insert(above, Waiting { tree: true, times, since: self.now });
            }
        }
        self.everything(Why::Many);
        if let Some((_, all)) = &mut self.everything {
            *all = all.and(times);
        }
    }

    fn everything(&mut self, why: Why) {
        let mut times = self.times_of(&RelPath::root());
        if let Some((first, before)) = self.everything.take() {
            self.everything = Some((first, before.and(times)));
            return;
        }
        times = self.absorb(&RelPath::root(), times);
        self.looks.clear();
        self.everything = Some((why, times));
    }

    /// Takes out what waits at the path and below, and yields times that cover it.
    fn absorb(&mut self, path: &RelPath, mut times: Times) -> Times {
        let below: Vec<_> =
            self.waiting.range(path.clone()..).map(|(at, _)| at).take_while(|at| path.contains(at)).cloned().collect();
        for at in below {
            if let Some(waiting) = self.waiting.remove(&at) {
                self.trees -= usize::from(waiting.tree);
                times = times.and(waiting.times);
            }
        }
        times
    }

    fn insert(&mut self, path: RelPath, waiting: Waiting) {
        self.trees += usize::from(waiting.tree);
        self.looks.push(Reverse((waiting.due(&self.limits), path.clone())));
        self.waiting.insert(path, waiting);
        // Entries of what was absorbed; they would go by themselves when their time comes.
        if self.looks.len() > 64 + 2 * self.waiting.len() {
            let look = |(path, waiting): (&RelPath, &Waiting)| Reverse((waiting.due(&self.limits), path.clone()));
            self.looks = self.waiting.iter().map(look).collect();
        }
    }

    fn tree_above(&mut self, path: &RelPath) -> Option<&mut Waiting> {
        if self.trees == 0 {
            return None;
        }
        let above = path.ancestors().skip(1).find(|above| self.waiting.get(above).is_some_and(|waiting| waiting.tree))?;
        self.waiting.get_mut(&above)
    }

    /// A first change at this moment: one that comes soon after the last was handed out has to be quiet for twice as long.
    fn times_of(&self, path: &RelPath) -> Times {
        let soon = |handed: &&Handed| self.now < handed.at + self.limits.longest;
        let least = self.handed.get(path).filter(soon).map_or(self.limits.quiet, |handed| handed.quiet * 2);
        Times { first: self.now, last: self.now, least: least.min(self.limits.longest).max(self.limits.quiet) }
    }

    /// Drops what was handed out too long ago to matter, now and then.
    fn forget(&mut self) {
        let (now, longest) = (self.now, self.limits.longest);
        if self.forgot + longest <= now {
            self.handed.retain(|_, handed| now < handed.at + longest);
            self.forgot = now;
        }
    }

    fn remember(&mut self, path: &RelPath, quiet: Duration) {
        // Without a place it is as if the path were heard of for the first time: it is handed out sooner, nothing else.
        if self.handed.len() < self.limits.paths || self.handed.contains_key(path) {
            self.handed.insert(path.clone(), Handed { at: self.now, quiet });
        }
    }

    fn clear(&mut self) {
        self.waiting.clear();
        self.looks.clear();
        (self.trees, self.everything) = (0, None);
    }
}

fn path_of(change: &Change) -> Option<&RelPath> {
    match change {
        Change::Touched(path) | Change::Tree(path) => Some(path),
        Change::Everything { .. } | Change::RootLost => None,
    }
}

#[cfg(test)]
mod tests;
