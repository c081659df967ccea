//! The one writer of a scan: makes changes of findings and commits them in batches.
//!
//! Deletions wait for the end of the walk, and so do new files while the state has rows: only then is it known
//! whether a new file is a vanished one under another name.

use super::compare::kind_of;
use super::read::{Unread, in_parallel, read_verified};
use super::{Scan, ScanError, Scanned, Shared};
use crate::entry::{Content, Hash, Object, Signature};
use crate::io::fs::{Dir, FsError};
use crate::io::generation;
use crate::io::state::{Batch, NodeId, State};
use crate::knowledge::{Creation, Event, Row, Vector};
use crate::path::RelPath;
use crate::store::Change;
use std::collections::HashMap;
use std::sync::Arc;

/// Changes per transaction.
const BATCH: usize = 10_000;
/// New files that wait for the end of the walk; more than these are not recognised as moved.
const HELD: usize = 65_536;
/// Contents that left their path one by one, remembered for the same purpose.
const OLD: usize = 65_536;

/// What a walker found.
#[derive(Debug)]
pub(super) enum Finding {
    /// This stands here now; without creation events it is new.
    Put { path: RelPath, object: Object, signature: Signature, creation: Option<Creation> },
    /// A leaf stands where a directory was.
    Supplant { path: RelPath, tree: NodeId, object: Object, signature: Signature, creation: Option<Creation> },
    /// The same object with another signature.
    Refresh { path: RelPath, signature: Signature, hash: Option<Hash>, mtime_ns: Option<i64> },
    /// Nothing stands here now; `tree` if it was a directory.
    Gone { path: RelPath, tree: Option<NodeId> },
    /// This content is not where it was.
    Old(Old),
}

impl Finding {
    pub(super) fn put(path: RelPath, object: Object, signature: Signature, creation: Option<Creation>) -> Finding {
        Finding::Put { path, object, signature, creation }
    }
}

/// Content that was read under another path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Old {
    pub(super) signature: Signature,
    pub(super) hash: Hash,
}

/// A path that stands, with what is to be recorded of it.
#[derive(Debug)]
struct Standing {
    path: RelPath,
    object: Object,
    signature: Signature,
    creation: Option<Creation>,
}

/// Turns findings into committed changes.
pub(super) struct Recorder<'a> {
    scan: &'a Scan<'a>,
    shared: &'a Shared<'a>,
    /// Are moves looked for?
    moves: bool,
    event: Option<(Event, Arc<Vector>)>,
    changes: Vec<Change>,
    held: Vec<Standing>,
    old: Vec<Old>,
    gone: Vec<(RelPath, Option<NodeId>)>,
    supplants: Vec<(NodeId, Standing)>,
    changed: u64,
    vanished: u64,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(scan: &'a Scan<'a>, shared: &'a Shared<'a>, moves: bool) -> Recorder<'a> {
        Recorder {
            scan,
            shared,
            moves,
            event: None,
            changes: Vec::new(),
            held: Vec::new(),
            old: Vec::new(),
            gone: Vec::new(),
            supplants: Vec::new(),
            changed: 0,
            vanished: 0,
        }
    }

    pub(super) fn take(&mut self, findings: Vec<Finding>) -> Result<(), ScanError> {
        findings.into_iter().try_for_each(|finding| self.take_one(finding))
    }

    fn take_one(&mut self, finding: Finding) -> Result<(), ScanError> {
        match finding {
            Finding::Put { path, object, signature, creation } => {
                let standing = Standing { path, object, signature, creation };
                if self.may_have_moved(&standing) {
                    self.held.push(standing);
                    return Ok(());
                }
                self.put(standing)
            }
            Finding::Supplant { path, tree, object, signature, creation } => {
                self.supplants.push((tree, Standing { path, object, signature, creation }));
                Ok(())
            }
            Finding::Refresh { path, signature, hash, mtime_ns } => {
                self.push(Change::Refresh { path, signature, hash, mtime_ns })
            }
            Finding::Gone { path, tree } => {
                self.gone.push((path, tree));
                Ok(())
            }
            Finding::Old(old) => {
                if self.moves && self.old.len() < OLD {
                    self.old.push(old);
                }
                Ok(())
            }
        }
    }

    /// To be called only when the whole walk has ended well and the root is still the root.
    pub(super) fn finish(mut self) -> Result<Scanned, ScanError> {
        self.recognise_moves()?;
        self.delete_gone()?;
        for (_, standing) in std::mem::take(&mut self.supplants) {
            if self.is_missing(&standing.path)? {
                continue;
            }
            let bound = self.bound()?;
            self.push(Change::RemoveTree { path: standing.path.clone(), learn: None, bound })?;
            self.put(standing)?;
        }
        for standing in std::mem::take(&mut self.held) {
            self.put(standing)?;
        }
        self.commit()?;
        Ok(Scanned {
            changed: self.changed,
            vanished: self.vanished,
            event: self.event.map(|(event, _)| event),
            ..Scanned::default()
        })
    }

    fn may_have_moved(&self, standing: &Standing) -> bool {
        self.moves
            && standing.creation.is_none()
            && self.held.len() < HELD
            && matches!(standing.object.content, Content::File { size: 1.., hash: None })
    }

    /// Gives new files that are old ones under another name the hash of those. All times equal: the content was
    /// not touched (only a directory above was renamed). A new ctime, which the rename itself sets, could hide
    /// an edit: such a file is read now, since its hash lets the other side move instead of copy.
    fn recognise_moves(&mut self) -> Result<(), ScanError> {
        if self.held.is_empty() {
            return Ok(());
        }
        let place = |standing: &Standing| (standing.signature.dev, standing.signature.ino);
        let held: HashMap<_, _> = self.held.iter().enumerate().map(|(index, standing)| (place(standing), index)).collect();
        let mut to_read = Vec::new();
        let standings = &mut self.held;
        let mut see = |old: &Old| {
            if let Some(index) = held.get(&(old.signature.dev, old.signature.ino)) {
                match resemblance(&old.signature, &standings[*index].signature) {
                    Resemblance::Untouched => set_hash(&mut standings[*index].object, old.hash),
                    Resemblance::Renamed => to_read.push(*index),
                    Resemblance::None => {}
                }
            }
        };
        self.old.iter().for_each(&mut see);
        let vanished = self.gone.iter().filter_map(|(_, tree)| *tree);
        for tree in vanished.chain(self.supplants.iter().map(|(tree, _)| *tree)) {
            each_file_below(self.scan.state, tree, &mut see)?;
        }
        self.read_renamed(to_read)
    }

    fn read_renamed(&mut self, mut indexes: Vec<usize>) -> Result<(), ScanError> {
        indexes.sort_unstable();
        indexes.dedup();
        let (scan, clock) = (self.scan, self.shared.clock);
        let mut answers = Vec::with_capacity(indexes.len());
        let held = &self.held;
        let job = |at: usize, buffer: &mut [u8]| {
            let path = &held[indexes[at]].path;
            let (parent, name) = path.split().expect("a file is not the root");
            let read = scan
                .root
                .dir(&parent)
                .map_err(Unread::from)
                .and_then(|dir| read_verified(&dir, name.as_bytes(), None, buffer, clock, scan.monitor));
            (indexes[at], read)
        };
        in_parallel(indexes.len(), job, |(index, read)| match read {
            Ok(read) => {
                answers.push((index, read));
                Ok(())
            }
            Err(Unread::Stopped) => Err(ScanError::Cancelled),
            // It is new all the same; whoever needs its bytes reads it then, and says if that fails.
            Err(Unread::Stale | Unread::Moving | Unread::Failed(_)) => Ok(()),
        })?;
        for (index, (signature, hash)) in answers {
            let standing = &mut self.held[index];
            let content = Content::File { size: signature.size, hash: Some(hash) };
            standing.object = Object { content, attrs: signature.attrs() };
            standing.signature = signature;
        }
        Ok(())
    }

    /// Looks once more before anything is taken for deleted: a name renamed while its directory was listed may
    /// be in neither half.
    fn delete_gone(&mut self) -> Result<(), ScanError> {
        let mut gone = std::mem::take(&mut self.gone);
        gone.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut last: Option<(RelPath, Option<Dir>)> = None;
        for (path, tree) in gone {
            match self.is_gone(&path, &mut last) {
                Ok(true) if tree.is_some() && self.is_missing(&path)? => {}
                Ok(true) => self.remove(path, tree.is_some())?,
                Ok(false) => self.shared.problems.add(path, "look at", "changes while it is looked at"),
                Err(error) => self.shared.unknown(&path, "look at", error),
            }
        }
        Ok(())
    }

    /// Did a mount point go with the directory? What lay on it was not deleted: that cannot be done while it is mounted.
    fn is_missing(&self, path: &RelPath) -> Result<bool, ScanError> {
        let Some((lost, what)) = self.shared.mounts.lost_with(path)? else { return Ok(false) };
        self.shared.problems.add(lost, "look at", what);
        self.shared.mounts.miss(path);
        Ok(true)
    }

    /// Is there nothing at the path that is synchronised? `last` is the directory looked into before.
    fn is_gone(&self, path: &RelPath, last: &mut Option<(RelPath, Option<Dir>)>) -> Result<bool, FsError> {
        let (parent, name) = path.split().expect("the root is never gone");
        if last.as_ref().is_none_or(|(at, _)| *at != parent) {
            let dir = match self.scan.root.dir(&parent) {
                Ok(dir) => Some(dir),
                Err(error) if error.is_missing() => None,
                Err(error) => return Err(error),
            };
            *last = Some((parent, dir));
        }
        let Some((_, Some(dir))) = last else {
            return Ok(true);
        };
        Ok(dir.stat(name.as_bytes())?.is_none_or(|now| kind_of(now.mode).is_none()))
    }

    fn remove(&mut self, path: RelPath, tree: bool) -> Result<(), ScanError> {
        self.vanished += 1;
        let bound = self.bound()?;
        self.push(if tree {
            Change::RemoveTree { path, learn: None, bound }
        } else {
            Change::Remove { path, learn: None, bound }
        })
    }

    fn put(&mut self, standing: Standing) -> Result<(), ScanError> {
        self.changed += 1;
        let event = self.event()?.0;
        let Standing { path, object, signature, creation } = standing;
        let row = Row { object, m: Vector::from(event), c: creation.unwrap_or_else(|| Creation::from(event)) };
        self.push(Change::Put { path, row, signature, learn: None })
    }

    /// What covers the scan's deletions.
    fn bound(&mut self) -> Result<Arc<Vector>, ScanError> {
        Ok(self.event()?.1.clone())
    }

    /// The event of everything that this scan finds, taken at the first change.
    fn event(&mut self) -> Result<&(Event, Arc<Vector>), ScanError> {
        if self.event.is_none() {
            let event = self.scan.state.tick()?;
            self.event = Some((event, Arc::new(Vector::from(event))));
        }
        Ok(self.event.as_ref().expect("set above"))
    }

    fn push(&mut self, change: Change) -> Result<(), ScanError> {
        self.changes.push(change);
        if self.changes.len() >= BATCH { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), ScanError> {
        if !self.changes.is_empty() {
            let changes = std::mem::take(&mut self.changes);
            let Scan { root, state, .. } = self.scan;
            for (path, error) in generation::raise(root, state, &changes)? {
                // What was found there counts if it is there.
                if error.unavailable().is_some() {
                    return Err(error.into());
                }
                self.shared.problems.add(path, "record", error);
            }
            state.commit(Batch { changes, ..Batch::default() }, false)?;
        }
        Ok(())
    }
}

/// Shows every recorded content below a directory.
fn each_file_below(state: &State, tree: NodeId, see: &mut dyn FnMut(&Old)) -> Result<(), ScanError> {
    let mut waiting = vec![tree];
    while let Some(node) = waiting.pop() {
        for row in state.known(node)? {
            waiting.extend(row.node);
            if let Some(hash) = row.hash {
                see(&Old { signature: row.signature, hash });
            }
        }
    }
    Ok(())
}

enum Resemblance {
    Untouched,
    Renamed,
    None,
}

/// Is the file of a new path the one that stood elsewhere?
fn resemblance(old: &Signature, new: &Signature) -> Resemblance {
    let same = |s: &Signature| (s.dev, s.ino, s.size, s.mtime_ns, s.btime_ns);
    if same(old) != same(new) {
        Resemblance::None
    } else if old.ctime_ns == new.ctime_ns && !old.racy {
        Resemblance::Untouched
    } else {
        Resemblance::Renamed
    }
}

fn set_hash(object: &mut Object, known: Hash) {
    if let Content::File { hash, .. } = &mut object.content {
        *hash = Some(known);
    }
}
