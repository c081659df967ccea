//! What can be asked of the root of one folder while the agent has it open: questions whose answers come piece by piece, as long as
//! they take.

use crate::archive::Terms;
use crate::days::Piece;
use crate::status::PathText;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use sync_core::entry::Kind;
use sync_core::io::sync::{Keep, KeptVersion, OpenConflict};
use sync_core::path::RelPath;

/// Conflicts, versions or paths of one piece: with the longest paths there are it has a few MiB.
pub const PIECE: usize = 200;

/// A question to a folder's root, or something to be done there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// Is the root open, so that this agent is to be asked?
    Open,
    /// Opens it as one that begins anew from its files, whether it is open or cannot be used.
    Rejoin,
    /// Which conflicts are open.
    Conflicts,
    /// Decides those at and below some paths.
    Resolve {
        /// Which.
        paths: Vec<PathText>,
        /// How.
        keep: Keep,
    },
    /// Which versions are kept.
    Versions {
        /// At and below this path.
        at: PathText,
    },
    /// Brings one back.
    Restore {
        /// The path that it had.
        at: PathText,
        /// Its number; without it the newest one.
        version: Option<i64>,
    },
    /// Which old days would move to the cold root, and why the others would not.
    Plan {
        /// What is said of the rule; the rest is as the folder's own rule says it.
        terms: Box<Terms>,
        /// The clock is right, whatever speaks against it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        accept_clock: bool,
    },
    /// Brings archived days back.
    Return {
        /// At and below this path.
        at: PathText,
    },
    /// Reads archived days again.
    Verify {
        /// Takes the bytes of damaged files from this folder of the machine.
        repair_from: Option<PathText>,
    },
}

/// A piece of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tell {
    /// Nothing yet; it is being worked on.
    Beat,
    /// Something that a user should know.
    Notice(String),
    /// Open conflicts.
    Conflicts(Vec<ConflictText>),
    /// Paths of conflicts that were decided.
    Resolved(Vec<PathText>),
    /// Kept versions; one that was brought back.
    Versions(Vec<VersionText>),
    /// Something of old days.
    Days(Piece),
}

/// An open conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictText {
    at: PathText,
    ours_mtime_ns: Option<i64>,
    theirs_mtime_ns: Option<i64>,
    ours_size: Option<u64>,
    theirs_size: Option<u64>,
    other: String,
    decided: Option<Keep>,
}

/// A kept version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionText {
    id: i64,
    at: PathText,
    kind: KindText,
    size: u64,
    mtime_ns: i64,
    kept_at_ns: i64,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindText {
    File,
    Dir,
    Symlink,
}

/// What cannot be made out of what was told.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no path below a root: {1}")]
pub struct NoPath(PathText, String);

/// A path below the root, as text.
#[must_use]
pub fn text(path: &RelPath) -> PathText {
    PathText::new(path.as_bytes())
}

/// The path again; `.` is the root.
///
/// # Errors
/// Bytes that are no path.
pub fn path(text: &PathText) -> Result<RelPath, NoPath> {
    match text.bytes().as_slice() {
        b"." => Ok(RelPath::root()),
        bytes => RelPath::parse(bytes).map_err(|error| NoPath(text.clone(), error.to_string())),
    }
}

impl From<&OpenConflict> for ConflictText {
    fn from(conflict: &OpenConflict) -> ConflictText {
        let OpenConflict { path, ours_mtime_ns, theirs_mtime_ns, ours_size, theirs_size, other, decided } = conflict;
        ConflictText {
            at: text(path),
            ours_mtime_ns: *ours_mtime_ns,
            theirs_mtime_ns: *theirs_mtime_ns,
            ours_size: *ours_size,
            theirs_size: *theirs_size,
            other: other.clone(),
            decided: *decided,
        }
    }
}

impl TryFrom<ConflictText> for OpenConflict {
    type Error = NoPath;

    fn try_from(told: ConflictText) -> Result<OpenConflict, NoPath> {
        let ConflictText { at, ours_mtime_ns, theirs_mtime_ns, ours_size, theirs_size, other, decided } = told;
        Ok(OpenConflict { path: path(&at)?, ours_mtime_ns, theirs_mtime_ns, ours_size, theirs_size, other, decided })
    }
}

impl From<&KeptVersion> for VersionText {
    fn from(version: &KeptVersion) -> VersionText {
        let KeptVersion { id, path, kind, size, mtime_ns, kept_at_ns, reason } = version;
        let kind = match kind {
            Kind::File => KindText::File,
            Kind::Dir => KindText::Dir,
            Kind::Symlink => KindText::Symlink,
        };
        let (id, size, mtime_ns, kept_at_ns) = (*id, *size, *mtime_ns, *kept_at_ns);
        VersionText { id, at: text(path), kind, size, mtime_ns, kept_at_ns, reason: reason.clone() }
    }
}

impl TryFrom<VersionText> for KeptVersion {
    type Error = NoPath;

    fn try_from(told: VersionText) -> Result<KeptVersion, NoPath> {
        let VersionText { id, at, kind, size, mtime_ns, kept_at_ns, reason } = told;
        let kind = match kind {
            KindText::File => Kind::File,
            KindText::Dir => Kind::Dir,
            KindText::Symlink => Kind::Symlink,
        };
        Ok(KeptVersion { id, path: path(&at)?, kind, size, mtime_ns, kept_at_ns, reason })
    }
}

/// Whoever asked: hears the answer piece by piece, and may go away at any time.
pub struct Asker<'a> {
    tell: SyncSender<Tell>,
    gone: &'a AtomicBool,
}

impl<'a> Asker<'a> {
    pub(super) fn new(tell: SyncSender<Tell>, gone: &'a AtomicBool) -> Asker<'a> {
        Asker { tell, gone }
    }

    /// Hands on a piece. Waits while a few others are on their way; to somebody who has gone it is not told.
    pub fn tell(&self, piece: Tell) {
        // The other end is there for as long as this one is, and takes what nobody wants any more, too.
        let _ = self.tell.send(piece);
    }

    /// Hands on a list, piece by piece.
    pub fn tell_all<T>(&self, list: impl IntoIterator<Item = T>, piece: impl Fn(Vec<T>) -> Tell) {
        let mut list = list.into_iter();
        loop {
            let some: Vec<T> = list.by_ref().take(PIECE).collect();
            if some.is_empty() {
                return;
            }
            self.tell(piece(some));
        }
    }

    /// Has whoever asked gone? What has begun finishes its step then, and nothing more is begun.
    #[must_use]
    pub fn has_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}
