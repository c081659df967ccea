//! Which directory has which watch, and which have none.

use super::kernel::Id;
use super::rank::FIRST;
use crate::path::RelPath;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Trees without a watch that are kept apart; beyond it neighbours become one.
pub(super) const APART: usize = 10_000;

/// Device and inode.
pub(super) type Inode = (u64, u64);

/// A watched directory.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) path: Arc<RelPath>,
    pub(super) inode: Inode,
    /// See `rank`.
    pub(super) rank: i64,
    /// The descriptor through which the watch was set; closed since, but a part of its name.
    pub(super) descriptor: i32,
}

/// All watched directories. No inode is here twice: the kernel has one watch for it.
#[derive(Debug, Default)]
pub(super) struct Table {
    nodes: HashMap<Id, Node>,
    by_path: BTreeMap<Arc<RelPath>, Id>,
    by_inode: HashMap<Inode, Id>,
    /// The lowest first, and of equals the one that was set last: what is below a directory goes before it.
    by_rank: BTreeSet<(i64, u32)>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn path(&self, id: Id) -> Option<&RelPath> {
        self.nodes.get(&id).map(|node| &*node.path)
    }

    pub(super) fn at(&self, path: &RelPath) -> Option<(Id, &Node)> {
        let id = *self.by_path.get(path)?;
        Some((id, self.nodes.get(&id)?))
    }

    pub(super) fn of_inode(&self, inode: Inode) -> Option<(Id, &RelPath)> {
        let id = *self.by_inode.get(&inode)?;
        Some((id, self.path(id)?))
    }

    pub(super) fn insert(&mut self, id: Id, node: Node) {
        self.by_path.insert(Arc::clone(&node.path), id);
        self.by_inode.insert(node.inode, id);
        if node.rank < FIRST {
            self.by_rank.insert((node.rank, !id));
        }
        self.nodes.insert(id, node);
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<Node> {
        let node = self.nodes.remove(&id)?;
        self.by_path.remove(&node.path);
        self.by_inode.remove(&node.inode);
        self.by_rank.remove(&(node.rank, !id));
        Some(node)
    }

    /// The watches of a directory and of all below it.
    pub(super) fn below(&self, path: &RelPath) -> Vec<Id> {
        self.by_path.range(path.clone()..).take_while(|(at, _)| path.contains(at)).map(|(_, id)| *id).collect()
    }

    /// The one to give up for a directory of this rank.
    pub(super) fn lowest_below(&self, rank: i64) -> Option<Id> {
        self.by_rank.first().filter(|(lowest, _)| *lowest < rank).map(|(_, id)| !id)
    }
}

/// Trees whose top has no watch, with the number of directories that have none for want of watches. No tree is within another.
#[derive(Debug, Default)]
pub(super) struct Unwatched {
    trees: BTreeMap<RelPath, u64>,
}

impl Unwatched {
    pub(super) fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.trees.keys()
    }

    pub(super) fn missing(&self) -> u64 {
        self.trees.values().sum()
    }

    pub(super) fn has(&self, path: &RelPath) -> bool {
        self.trees.contains_key(path)
    }

    pub(super) fn insert(&mut self, path: RelPath, missing: u64) {
        if let Some(above) = path.ancestors().find(|above| self.has(above)) {
            *self.trees.entry(above).or_default() += missing;
            return;
        }
        let (mut top, mut missing) = (path.clone(), missing + self.remove(&path));
        while self.trees.len() >= APART
            && let Some(above) = top.parent()
        {
            missing += self.remove(&above);
            top = above;
        }
        self.trees.insert(top, missing);
    }

    /// Takes out the path and all below it, and tells how many were missing.
    pub(super) fn remove(&mut self, path: &RelPath) -> u64 {
        let below: Vec<_> =
            self.trees.range(path.clone()..).map(|(at, _)| at).take_while(|at| path.contains(at)).cloned().collect();
        below.iter().filter_map(|at| self.trees.remove(at)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn trees_without_a_watch_are_not_within_each_other_and_their_number_is_bounded() {
        let mut unwatched = Unwatched::default();
        for (at, missing) in [("a/b", 2), ("a/c", 3), ("a/b/x", 4), ("d", 0)] {
            unwatched.insert(path(at), missing);
        }
        assert_eq!(unwatched.paths().cloned().collect::<Vec<_>>(), [path("a/b"), path("a/c"), path("d")]);
        unwatched.insert(path("a"), 1);
        assert_eq!((unwatched.paths().count(), unwatched.missing()), (2, 10));
        for at in 0..2 * APART as u32 {
            unwatched.insert(path(&format!("e/{}/{at}", at % 7)), 1);
            assert!(unwatched.trees.len() <= APART);
        }
        assert_eq!(unwatched.missing(), 10 + 2 * APART as u64);
        assert_eq!(unwatched.remove(&path("a")), 10);
        assert!(!unwatched.has(&path("a")));
    }

    #[test]
    fn what_was_set_last_among_the_lowest_is_given_up_first_and_the_way_never() {
        let mut table = Table::default();
        for (id, rank) in [(0, FIRST), (1, 10), (2, 5), (3, 5)] {
            let node = Node { path: Arc::new(path(&format!("d{id}"))), inode: (1, u64::from(id)), rank, descriptor: 3 };
            table.insert(id, node);
        }
        assert_eq!(table.lowest_below(5), None);
        assert_eq!(table.lowest_below(6), Some(3));
        table.remove(3);
        assert_eq!(table.lowest_below(6), Some(2));
        table.remove(2);
        table.remove(1);
        assert_eq!((table.lowest_below(FIRST), table.len()), (None, 1));
        assert_eq!((table.at(&path("d0")).map(|(id, _)| id), table.of_inode((1, 0)).map(|(id, _)| id)), (Some(0), Some(0)));
    }
}
