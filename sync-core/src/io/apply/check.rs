//! The checks right before and right after a change of the disk: is this what was scanned?

use super::Stop;
use super::moves::Contents;
use super::rows::{Live, Rows};
use crate::entry::{Kind, Same, Signature};
use crate::io::fs::{Dir, hash_file};
use crate::io::source::{kind_of, unchanged, with_buffer};
use crate::io::stage::Failure;
use crate::io::state::NodeId;
use crate::knowledge::Row;
use crate::path::{RelPath, escape};
use std::collections::HashSet;

/// The text of every refusal because of a local edit.
const CHANGED: &str = "it was changed here since it was scanned";

pub(super) fn changed(step: &'static str) -> Stop {
    Failure::new(step, CHANGED).into()
}

/// Is what the rows hold still what the step was decided on? Returns the recorded signature.
pub(super) fn expected(current: Option<&Live>, expect: Option<&Row>, step: &'static str) -> Result<Option<Signature>, Stop> {
    match (current, expect) {
        (None, None) => Ok(None),
        (Some(live), Some(row)) if same_version(&live.row, row) => Ok(Some(live.signature)),
        _ => Err(changed(step)),
    }
}

/// A hash may have become known since; the version may not have changed.
fn same_version(current: &Row, expect: &Row) -> bool {
    current.m == expect.m
        && current.object.kind() == expect.object.kind()
        && current.object.same_content(&expect.object) != Same::No
}

/// Is the object at `name` the recorded one? A directory is compared by what is its own, not by its contents.
pub(super) fn on_disk(dir: &Dir, name: &[u8], recorded: &Signature, live: Option<&Live>, step: &'static str) -> Result<(), Stop> {
    let Some(disk) = dir.stat(name)? else {
        return Err(Failure::new(step, "it vanished here since it was scanned").into());
    };
    if !same_recorded(&disk, recorded) {
        return Err(changed(step));
    }
    if recorded.racy
        && let Some(hash) = live.and_then(|live| super::job::hash_of(&live.row.object))
    {
        // The recorded times cannot tell a change made right after the scan's read.
        let mut file = dir.open_file(name)?;
        let (_, found) = with_buffer(|buffer| hash_file(&mut file, buffer)).map_err(|error| Failure::of(step)(&error))?;
        if found != hash {
            return Err(changed(step));
        }
    }
    Ok(())
}

/// Does the disk show what was recorded?
pub(super) fn same_recorded(disk: &Signature, recorded: &Signature) -> bool {
    if kind_of(recorded) == Some(Kind::Dir) {
        disk.ino == recorded.ino && (disk.mode, disk.uid, disk.gid) == (recorded.mode, recorded.uid, recorded.gid)
    } else {
        unchanged(disk, recorded)
    }
}

/// Compares everything below an open directory with the rows of `path`; returns what stands there.
///
/// An entry that is not recorded, a recorded one that is missing or was changed: all are refusals, since the whole is
/// about to go in one rename.
pub(super) fn tree(rows: &Rows<'_>, dir: &Dir, path: &RelPath, step: &'static str) -> Result<Contents, Stop> {
    let mut walk = Walk { rows, step, contents: Contents::new() };
    walk.below(dir, path, &RelPath::root(), None)?;
    Ok(walk.contents)
}

struct Walk<'w> {
    rows: &'w Rows<'w>,
    step: &'static str,
    contents: Contents,
}

impl Walk<'_> {
    fn below(&mut self, dir: &Dir, path: &RelPath, relative: &RelPath, node: Option<NodeId>) -> Result<(), Stop> {
        let known = self.rows.children(path, node)?;
        let mut unseen: HashSet<&[u8]> = known.iter().map(|known| known.name.as_bytes()).collect();
        for name in dir.names()? {
            if !unseen.remove(&name[..]) {
                return Err(self.refuse(&name, "is not recorded"));
            }
        }
        if let Some(name) = unseen.iter().next() {
            return Err(self.refuse(name, "vanished since it was scanned"));
        }
        for known in known {
            let name = known.name.as_bytes();
            let disk = dir.stat(name)?;
            if !disk.is_some_and(|disk| same_recorded(&disk, &known.signature)) {
                return Err(self.refuse(name, "was changed since it was scanned"));
            }
            let (path, relative) = (path.join(&known.name), relative.join(&known.name));
            let (kind, node) = (known.kind, known.node);
            let child = (kind == Kind::Dir).then(|| dir.open_dir(name)).transpose()?;
            self.contents.push((relative.clone(), known));
            if let Some(child) = child {
                self.below(&child, &path, &relative, node)?;
            }
        }
        Ok(())
    }

    fn refuse(&self, name: &[u8], what: &str) -> Stop {
        Failure::new(self.step, format!("{:?} in it {what}", escape(name))).into()
    }
}
