//! Sets the watches of a directory and of all below it: those that matter most first, each before its directory is listed, here or by
//! whoever scans it (`beside`).

use super::kernel::Refusal;
use super::rank::{FIRST, rank};
use super::table::{Inode, Node};
use super::{Limit, Watch, WatchError, inode, is_no_directory, limits};
use crate::entry::Signature;
use crate::io::fs::{Dir, FsError, LISTING_BYTES};
use crate::path::{MAX_DEPTH, Name, RelPath};
use rustix::fs::FileType;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// What became of one directory.
enum Set {
    /// It has a watch now, and is to be listed.
    Watched,
    /// It has had its watch since before it was told, or is to have none.
    Nothing,
    /// It has none: it may not be read, or the same directory has one at another path.
    Unseen,
    /// It has none for want of watches.
    Refused,
}

impl Watch {
    /// Watches a directory and all below it that have no watch, those that matter most first.
    pub(super) fn set(&mut self, top: &RelPath) -> Result<(), WatchError> {
        self.unwatched.remove(top);
        let changed = || self.root.dir(top).and_then(|dir| dir.stat_self()).map_or(0, |stat| seconds(&stat));
        let mut waiting = BinaryHeap::from([(rank(top, changed), Reverse(top.clone()))]);
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        while let Some((rank, Reverse(path))) = waiting.pop() {
            let opened = self.root.dir(&path).and_then(|dir| Ok((inode(&dir.stat_self()?), dir)));
            let (inode, mut dir) = match opened {
                Ok(opened) => opened,
                Err(error) if path.is_root() => return Err(error.into()),
                // It is no directory any more, which its parent's watch tells.
                Err(error) if is_no_directory(&error) => continue,
                Err(_) => {
                    self.unwatched.insert(path, 0);
                    continue;
                }
            };
            match self.set_one(&path, &dir, inode, rank)? {
                Set::Watched => {
                    let listed =
                        self.each_directory(&mut dir, &path, &mut buffer, |child, rank| waiting.push((rank, Reverse(child))));
                    // Unknown is never absent: it is to be looked at.
                    if listed.is_err() {
                        self.unwatched.insert(path, 0);
                    }
                }
                Set::Nothing => {}
                Set::Unseen => self.unwatched.insert(path, 0),
                Set::Refused => {
                    let missing = self.count(&path);
                    self.unwatched.insert(path, missing);
                }
            }
        }
        Ok(())
    }

    /// Watches one directory that somebody else is about to list, who comes to those below it by himself.
    pub(super) fn set_opened(&mut self, path: &RelPath, dir: &Dir) -> Result<(), WatchError> {
        let stat = match dir.stat_self() {
            Ok(stat) => stat,
            Err(error) if path.is_root() => return Err(error.into()),
            Err(_) => {
                self.unwatched.insert(path.clone(), 0);
                return Ok(());
            }
        };
        let missing = match self.set_one(path, dir, inode(&stat), rank(path, || seconds(&stat)))? {
            Set::Watched | Set::Nothing => return Ok(()),
            Set::Unseen => 0,
            // Those below it are asked for one by one, and may matter more.
            Set::Refused => 1,
        };
        self.unwatched.insert(path.clone(), missing);
        Ok(())
    }

    /// Watches what is below a directory, whether it has a watch itself or not, and the directory too if it has none.
    pub(super) fn set_below(&mut self, path: &RelPath) -> Result<(), WatchError> {
        if self.table.at(path).is_none() {
            return self.set(path);
        }
        let (mut below, mut buffer) = (Vec::new(), Vec::with_capacity(LISTING_BYTES));
        let opened = self.root.dir(path);
        let listed = opened.and_then(|mut dir| self.each_directory(&mut dir, path, &mut buffer, |child, _| below.push(child)));
        if listed.is_err_and(|error| !is_no_directory(&error)) {
            self.unwatched.insert(path.clone(), 0);
        }
        below.iter().try_for_each(|child| self.set(child))
    }

    fn set_one(&mut self, path: &RelPath, dir: &Dir, inode: Inode, rank: i64) -> Result<Set, WatchError> {
        if dir.placement().is_some() && rank < self.options.placed_since {
            return Ok(Set::Nothing);
        }
        match self.table.at(path) {
            Some((_, node)) if node.inode == inode => return Ok(Set::Nothing),
            Some((id, _)) => self.give_one_back(id)?,
            None => {}
        }
        if let Some((id, other)) = self.table.of_inode(inode) {
            // The kernel tells of a directory at one of its paths only.
            if self.stands_at(other, inode) {
                return Ok(Set::Unseen);
            }
            self.give_one_back(id)?;
        }
        self.watch(path, dir, inode, rank)
    }

    /// Asks for the watch; where there are no more, in place of one that matters less.
    fn watch(&mut self, path: &RelPath, dir: &Dir, inode: Inode, rank: i64) -> Result<Set, WatchError> {
        if let Some(most) = self.options.watches.filter(|most| self.watched() >= *most) {
            self.met = Some(Limit::Asked(most));
            if !self.give_up_below(rank)? {
                return Ok(Set::Refused);
            }
        }
        let id = self.next_id;
        let Some(next) = id.checked_add(1) else {
            self.renew();
            return Ok(Set::Unseen);
        };
        self.next_id = next;
        let mut given_up = false;
        loop {
            let Some(kernel) = &mut self.kernel else { return Err(WatchError::Over) };
            match kernel.watch(id, dir) {
                Ok(()) => break,
                Err(Refusal::Limit) => {
                    self.met = Some(Limit::System(limits::watches()));
                    // A watch that was given up may go to another process.
                    if given_up || !self.give_up_below(rank)? {
                        return Ok(Set::Refused);
                    }
                    given_up = true;
                }
                Err(Refusal::Other(source)) if source.kind() == io::ErrorKind::PermissionDenied => return Ok(Set::Unseen),
                Err(Refusal::Other(source)) => return Err(WatchError::Set { path: path.clone(), source }),
            }
        }
        let node = Node { path: Arc::new(path.clone()), inode, rank, descriptor: dir.descriptor().as_raw_fd() };
        self.table.insert(id, node);
        Ok(Set::Watched)
    }

    /// Gives the watch of the directory up that matters least, if it matters less than this.
    fn give_up_below(&mut self, rank: i64) -> Result<bool, WatchError> {
        let Some(id) = self.table.lowest_below(rank) else { return Ok(false) };
        if let Some(path) = self.table.path(id).cloned() {
            self.give_one_back(id)?;
            self.unwatched.insert(path, 1);
        }
        Ok(true)
    }

    fn stands_at(&self, path: &RelPath, expected: Inode) -> bool {
        self.root.dir(path).and_then(|dir| dir.stat_self()).is_ok_and(|stat| inode(&stat) == expected)
    }

    /// Directories at and below a path, as far as they can be read.
    fn count(&self, path: &RelPath) -> u64 {
        let (mut count, mut waiting, mut buffer) = (0, vec![path.clone()], Vec::with_capacity(LISTING_BYTES));
        while let Some(path) = waiting.pop() {
            count += 1;
            // Whether a directory that cannot be read has others below it is not known; nobody could watch them.
            if let Ok(mut dir) = self.root.dir(&path) {
                let _partly = self.each_directory(&mut dir, &path, &mut buffer, |child, _| waiting.push(child));
            }
        }
        count
    }

    /// The directories in a directory that are to be watched, with their ranks.
    fn each_directory(
        &self,
        dir: &mut Dir,
        path: &RelPath,
        buffer: &mut Vec<u8>,
        mut each: impl FnMut(RelPath, i64),
    ) -> Result<(), FsError> {
        let mut found = Vec::new();
        dir.each_name(buffer.spare_capacity_mut(), |name, kind, _| {
            if matches!(kind, FileType::Directory | FileType::Unknown) {
                found.extend(Name::parse(name.to_bytes()).ok().map(|name| (name, kind)));
            }
        })?;
        if path.depth() >= MAX_DEPTH {
            return Ok(());
        }
        for (name, kind) in found {
            let child = path.join(&name);
            let stat = || dir.stat(name.as_bytes()).ok().flatten();
            let is_directory = || stat().is_some_and(|stat| FileType::from_raw_mode(stat.mode) == FileType::Directory);
            if (kind == FileType::Directory || is_directory()) && !self.ignores(&child, true) {
                let rank = rank(&child, || stat().map_or(0, |stat| seconds(&stat)));
                each(child, rank);
            }
        }
        Ok(())
    }
}

/// Never as much as the way.
fn seconds(stat: &Signature) -> i64 {
    (stat.mtime_ns / 1_000_000_000).min(FIRST - 1)
}
