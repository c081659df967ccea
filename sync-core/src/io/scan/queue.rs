//! Directories that wait to be looked at: last in, first out, so that what waits is bounded by the siblings
//! along one path.

use crate::entry::Signature;
use crate::io::fs::Mount;
use crate::io::mutex::lock;
use crate::io::state::NodeId;
use crate::knowledge::Creation;
use crate::path::{Name, RelPath};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Names to look at in one directory; below an end, everything.
#[derive(Debug, Default)]
pub(super) struct Only(BTreeMap<Name, Option<Arc<Only>>>);

impl Only {
    /// The tree of the given paths; `None` if they cover everything.
    pub(super) fn of(paths: &[RelPath]) -> Option<Arc<Only>> {
        let mut paths = paths.to_vec();
        paths.sort();
        paths.dedup_by(|below, above| above.contains(below));
        let split = paths.iter().map(|path| path.components().collect()).collect::<Vec<Vec<Name>>>();
        if split.is_empty() { None } else { Only::below(&split.iter().map(Vec::as_slice).collect::<Vec<_>>()) }
    }

    fn below(paths: &[&[Name]]) -> Option<Arc<Only>> {
        let mut parts: BTreeMap<Name, Vec<&[Name]>> = BTreeMap::new();
        for path in paths {
            let (first, rest) = path.split_first()?;
            parts.entry(first.clone()).or_default().push(rest);
        }
        Some(Arc::new(Only(parts.into_iter().map(|(name, rests)| (name, Only::below(&rests))).collect())))
    }

    /// The names.
    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.keys()
    }

    /// Is the name to be looked at, and what below it?
    pub(super) fn get(&self, name: &[u8]) -> Option<&Option<Arc<Only>>> {
        self.0.get(name)
    }
}

/// What the state has at the path of a directory.
#[derive(Debug)]
pub(super) enum Was {
    /// The root: its own attributes are not synchronised.
    Root,
    /// Nothing.
    Absent,
    /// A file or link, with these creation events.
    Leaf(Option<Creation>),
    /// A directory with this signature, and that number.
    Dir(Box<Signature>, NodeId),
}

/// A directory to be looked at, by its name in a group.
#[derive(Debug)]
pub(super) struct Enter {
    pub(super) name: Name,
    pub(super) was: Was,
    pub(super) only: Option<Arc<Only>>,
}

/// The file system that a directory lies in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    pub(super) mount: Mount,
    /// Device, and the one it had when it was recorded.
    pub(super) device: u64,
    pub(super) device_before: Option<u64>,
}

/// Sibling directories to be looked at.
#[derive(Debug)]
pub(super) struct Group {
    /// Their directory.
    pub(super) parent: RelPath,
    /// Where it lies, and where it lay.
    pub(super) around: Around,
    /// The directories, by name ascending.
    pub(super) entries: Vec<Enter>,
}

/// A directory to be looked at now.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) path: RelPath,
    pub(super) was: Was,
    pub(super) only: Option<Arc<Only>>,
    /// The containing directory's; `None` for the root.
    pub(super) around: Option<Around>,
}

#[derive(Debug)]
struct Pile {
    groups: Vec<Group>,
    first: Option<Task>,
    active: usize,
    stopped: bool,
}

/// The directories that wait.
#[derive(Debug)]
pub(super) struct Queue {
    pile: Mutex<Pile>,
    more: Condvar,
}

/// While it lives, its task may still add directories.
pub(super) struct Active<'a>(&'a Queue);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        let mut pile = self.0.lock();
        pile.active -= 1;
        if pile.active == 0 {
            self.0.more.notify_all();
        }
    }
}

impl Queue {
    pub(super) fn starting_at(only: Option<Arc<Only>>) -> Queue {
        let first = Task { path: RelPath::root(), was: Was::Root, only, around: None };
        let pile = Pile { groups: Vec::new(), first: Some(first), active: 0, stopped: false };
        Queue { pile: Mutex::new(pile), more: Condvar::new() }
    }

    pub(super) fn push(&self, mut group: Group) {
        if group.entries.is_empty() {
            return;
        }
        group.entries.reverse();
        self.lock().groups.push(group);
        self.more.notify_all();
    }

    /// Ends the walk: nobody gets another task.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.more.notify_all();
    }

    /// The next task; waits while others may still add some. `None` at the end.
    pub(super) fn next(&self) -> Option<(Task, Active<'_>)> {
        let mut pile = self.lock();
        loop {
            if pile.stopped {
                return None;
            }
            if let Some(task) = pile.take() {
                pile.active += 1;
                return Some((task, Active(self)));
            }
            if pile.active == 0 {
                return None;
            }
            pile = self.more.wait(pile).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pile> {
        lock(&self.pile)
    }
}

impl Pile {
    fn take(&mut self) -> Option<Task> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let group = self.groups.last_mut()?;
        let enter = group.entries.pop()?;
        let path = group.parent.join(&enter.name);
        let around = Some(group.around);
        if group.entries.is_empty() {
            self.groups.pop();
        }
        Some(Task { path, was: enter.was, only: enter.only, around })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn names(only: &Only) -> Vec<String> {
        only.names().map(|name| format!("{name:?}")).collect()
    }

    #[test]
    fn paths_below_another_of_the_list_add_nothing() {
        let only = Only::of(&[path("b/c/d"), path("a"), path("a/x"), path("b/c")]).unwrap();
        assert_eq!(names(&only), ["a", "b"]);
        assert!(only.get(b"a").unwrap().is_none());
        let below = only.get(b"b").unwrap().as_ref().unwrap();
        assert_eq!(names(below), ["c"]);
        assert!(below.get(b"c").unwrap().is_none());
        assert!(only.get(b"z").is_none());
    }

    #[test]
    fn no_path_and_the_root_mean_everything() {
        assert!(Only::of(&[]).is_none());
        assert!(Only::of(&[path("a"), RelPath::root()]).is_none());
    }

    fn group(parent: &str, children: &[&str]) -> Group {
        let enter = |name: &&str| Enter { name: Name::parse(name.as_bytes()).unwrap(), was: Was::Absent, only: None };
        let around = Around { mount: Mount::default(), device: 1, device_before: None };
        Group { parent: path(parent), around, entries: children.iter().map(enter).collect() }
    }

    #[test]
    fn directories_come_depth_first_in_order() {
        let queue = Queue::starting_at(None);
        let mut seen = Vec::new();
        while let Some((task, _active)) = queue.next() {
            match format!("{}", task.path).as_str() {
                "." => queue.push(group("", &["a", "b"])),
                "a" => queue.push(group("a", &["x", "y"])),
                _ => {}
            }
            seen.push(task.path.to_string());
        }
        assert_eq!(seen, [".", "a", "a/x", "a/y", "b"]);
    }

    #[test]
    fn who_waits_is_told_of_the_end() {
        let queue = Queue::starting_at(None);
        let (task, active) = queue.next().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.next().is_none());
            drop((task, active));
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn a_stopped_queue_yields_nothing_more() {
        let queue = Queue::starting_at(None);
        queue.stop();
        assert!(queue.next().is_none());
    }
}
