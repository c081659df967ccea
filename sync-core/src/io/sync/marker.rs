//! The marker of a root: whose tree this is, and how far it had come when it was written.
//!
//! The marker lies in the tree, the generation that it bears also in the state. Where both lie in different places, one
//! of them may come back from a backup alone: then the two generations tell which is older. A new generation is begun in
//! the state, written to the tree, and settled in the state, each step durable before the next: after a crash in between
//! the marker is one of the two that the state accepts.
//!
//! A root that cannot be written, and whose state lies elsewhere, has no marker: then the state remembers which directory
//! it was, so that a bare mount point is not taken for it. The marker is made as soon as it can be.

use super::SyncError;
use super::opened::Opened;
use super::roots;
use crate::io::fs::{Dir, FsError, Replace, Root};
use crate::io::scan::ScanError;
use crate::io::state::{FORMER, State};
use crate::path::{RESERVED, RelPath};
use std::io::Write as _;

const MARKER: &[u8] = b"marker";
const NEW_MARKER: &[u8] = b"marker.new";
/// Longest marker that is read, bytes.
const MARKER_BYTES: u64 = 1 << 16;
/// Under this key a state remembers the generations that the marker may bear.
const GENERATION: &str = "sync.generation";
/// Under this key a state remembers the directory of a root that could not be given a marker; empty once it has one.
const MARKERLESS: &str = "sync.markerless";

/// What the marker file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    replica: String,
    /// 0 for one that was written before generations were.
    generation: u64,
}

/// What stands for the marker where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unmarked {
    /// Nothing: the root had a marker.
    Missing,
    /// The root could not be given one, and is the directory that it was.
    Same,
    /// The root could not be given one, and now another directory stands there.
    Other,
}

/// What a state knows of the generations of its root's marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Generations {
    /// The marker bore this one for certain.
    settled: u64,
    /// It may bear this one: the run that was writing it may have died.
    begun: u64,
    /// The state's newest sequence number when it was begun.
    seq: u64,
}

impl Generations {
    fn of(state: &State) -> Result<Option<Generations>, SyncError> {
        let Some(bytes) = state.meta(GENERATION)? else { return Ok(None) };
        let number = |at: usize| bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map(u64::from_le_bytes);
        match (number(0), number(8), number(16)) {
            (Some(settled), Some(begun), Some(seq)) => Ok(Some(Generations { settled, begun, seq })),
            _ => Ok(None),
        }
    }

    fn record(self, state: &State) -> Result<(), SyncError> {
        let bytes = [self.settled, self.begun, self.seq].map(u64::to_le_bytes).concat();
        Ok(state.put_meta(GENERATION, &bytes)?)
    }
}

impl Marker {
    /// The marker of a root, if it has one. Nothing is made.
    pub(super) fn read(root: &Root) -> Result<Option<Marker>, SyncError> {
        let top = root.dir(&RelPath::root())?;
        if top.stat(RESERVED)?.is_none() {
            return Ok(None);
        }
        let private = top.open_dir(RESERVED)?;
        Ok(roots::read_text(&private, MARKER, MARKER_BYTES)?.map(|text| Marker::parse(&text)))
    }

    fn parse(text: &str) -> Marker {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        Marker {
            replica: value("replica ").unwrap_or_default().to_owned(),
            generation: value("generation ").and_then(|number| number.parse().ok()).unwrap_or(0),
        }
    }

    fn text(&self) -> String {
        format!(
            "This folder is a root of driftless. Without this file it is taken for an unmounted disk.\nreplica {}\ngeneration {}\n",
            self.replica, self.generation
        )
    }

    /// Why this marker and this state do not belong together; `None` if they do.
    pub(super) fn strange(&self, state: &State) -> Result<Option<String>, SyncError> {
        // The run that took a new identity may have died, or only looked.
        let former = state.meta(FORMER)?.unwrap_or_default();
        let mut former = former.split(|byte| *byte == b' ');
        if self.replica != state.id().to_string() && former.all(|id| id.is_empty() || id != self.replica.as_bytes()) {
            return Ok(Some("its marker belongs to another state than the one found".into()));
        }
        let Generations { settled, begun, .. } = Generations::of(state)?.unwrap_or_default();
        let found = self.generation;
        Ok(if found < settled {
            Some(format!("the folder is older than its state: its marker has generation {found}, and the state knows {settled}"))
        } else if found > begun {
            Some(format!("its state is older than the folder: the marker has generation {found}, and the state knows {begun}"))
        } else {
            None
        })
    }
}

/// Does a directory have a marker?
pub(super) fn is_in(dir: &Dir) -> Result<bool, FsError> {
    if dir.stat(RESERVED)?.is_none() {
        return Ok(false);
    }
    Ok(dir.open_dir(RESERVED)?.stat(MARKER)?.is_some())
}

/// What does the state say of a root in which no marker was found?
pub(super) fn unmarked(root: &Root, state: &State) -> Result<Unmarked, SyncError> {
    let remembered = state.meta(MARKERLESS)?.unwrap_or_default();
    Ok(match remembered.is_empty() {
        true => Unmarked::Missing,
        false if remembered == place(root)? => Unmarked::Same,
        false => Unmarked::Other,
    })
}

/// Does the marker stand that opening the root has written or found, or is a root that could not be given one where it was?
pub(super) fn check(opened: &Opened) -> Result<(), ScanError> {
    let Opened { root, state, .. } = opened;
    if opened.passing || opened.looking || is_in(&root.dir(&RelPath::root())?)? {
        return Ok(());
    }
    let remembered = state.meta(MARKERLESS)?.unwrap_or_default();
    if !remembered.is_empty() && remembered == place(root)? {
        return Ok(());
    }
    Err(ScanError::Unmarked { path: root.path().to_owned() })
}

/// The directory of a root: its file system and its inode there.
fn place(root: &Root) -> Result<Vec<u8>, FsError> {
    Ok([root.file_system()?, root.signature()?.ino].map(u64::to_le_bytes).concat())
}

/// Writes the marker of a root under a new generation, if the state changed since the last one.
pub(super) fn advance(opened: &Opened) -> Result<(), SyncError> {
    if opened.passing || opened.looking {
        return Ok(());
    }
    let known = Generations::of(&opened.state)?;
    let found = Marker::read(&opened.root)?;
    let current = found.as_ref().is_some_and(|found| found.replica == opened.state.id().to_string());
    match known {
        Some(known) if current && known.settled == known.begun && known.seq == opened.state.seq() => Ok(()),
        _ => renew(opened, known.unwrap_or_default(), found.is_some()),
    }
}

fn renew(opened: &Opened, known: Generations, marked: bool) -> Result<(), SyncError> {
    let state = &opened.state;
    let next = Generations { settled: known.settled, begun: known.settled + 1, seq: state.seq() };
    // Where it could not be written so far, nothing new is begun by trying again.
    if next != known {
        next.record(state)?;
    }
    let marker = Marker { replica: state.id().to_string(), generation: next.begun };
    match write(&opened.root, &marker.text()) {
        Ok(()) => {
            remember_unmarked(state, Vec::new())?;
            Generations { settled: next.begun, ..next }.record(state)?;
            Ok(state.put_meta(FORMER, b"")?)
        }
        // A tree that cannot be written keeps the marker that it has, which is the settled one.
        Err(error) if marked && error.is_refusal() => Ok(()),
        Err(error) if opened.state_elsewhere && error.is_refusal() => remember_unmarked(state, place(&opened.root)?),
        Err(error) => Err(error.into()),
    }
}

/// Remembers the place of a root without a marker; nothing if it has one.
fn remember_unmarked(state: &State, place: Vec<u8>) -> Result<(), SyncError> {
    if state.meta(MARKERLESS)?.unwrap_or_default() != place {
        state.put_meta(MARKERLESS, &place)?;
    }
    Ok(())
}

fn write(root: &Root, text: &str) -> Result<(), FsError> {
    let private = root.private(&[])?;
    if private.stat(NEW_MARKER)?.is_some() {
        private.unlink(NEW_MARKER)?;
    }
    let mut file = private.create_file(NEW_MARKER)?;
    let path = || private.locate(NEW_MARKER);
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|source| FsError {
        action: "write",
        path: path(),
        source,
    })?;
    private.rename(NEW_MARKER, &private, MARKER, Replace::Always)?;
    private.sync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::AttrMask;
    use crate::knowledge::ReplicaId;

    #[test]
    fn a_marker_reads_as_it_was_written_and_old_ones_have_generation_zero() {
        let marker = Marker { replica: "ab".into(), generation: 7 };
        assert_eq!(Marker::parse(&marker.text()), marker);
        let old = Marker::parse("This folder is a root of driftless.\nreplica ab\n");
        assert_eq!(old, Marker { replica: "ab".into(), generation: 0 });
    }

    #[test]
    fn only_the_settled_and_the_begun_generation_belong_to_a_state() {
        let state = State::in_memory(ReplicaId([1; 16]), AttrMask::standard(true)).unwrap();
        let strange = |generation| Marker { replica: state.id().to_string(), generation }.strange(&state).unwrap();
        // A state and a marker from before generations.
        assert_eq!(strange(0), None);
        assert!(strange(1).unwrap().contains("state is older"));
        Generations { settled: 3, begun: 4, seq: 0 }.record(&state).unwrap();
        assert!(strange(0).unwrap().contains("folder is older") && strange(2).unwrap().contains("folder is older"));
        assert_eq!((strange(3), strange(4)), (None, None));
        assert!(strange(5).unwrap().contains("state is older"));
    }
}
