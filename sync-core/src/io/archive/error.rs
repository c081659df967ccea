//! What can go wrong when a day is moved.

use crate::io::fs::FsError;
use crate::io::places::PlaceError;
use crate::io::state::StateError;
use crate::path::{RelPath, escape};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Why a day was not moved, or a record of a move cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A call failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The state cannot be read or written.
    #[error("cannot use the state of the root: {0}")]
    State(#[from] StateError),
    /// The placement cannot be recorded.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Somebody works in it.
    #[error("{0} changed while it was looked at: it stays, and a later run takes it")]
    Changed(RelPath),
    /// It cannot be moved as it is.
    #[error("{path} {reason}")]
    Refused {
        /// The day, or what is in it.
        path: RelPath,
        /// Why not.
        reason: String,
    },
    /// The disk gave back something else than was written.
    #[error("{} does not read back as it was written: the disk may be failing; nothing was moved", escape(.0.as_os_str().as_bytes()))]
    Corrupt(PathBuf),
    /// A file of ours says something that makes no sense.
    #[error("{} is damaged ({what}); what it tells of is left as it is", escape(path.as_os_str().as_bytes()))]
    Record {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The roots cannot be used as they are; nothing was touched.
    #[error("{0}")]
    Guard(String),
    /// The user stopped the run.
    #[error("interrupted; what was begun is finished by the next run")]
    Cancelled,
}

impl ArchiveError {
    /// Does the error speak against going on with other days?
    #[must_use]
    pub fn ends_run(&self) -> bool {
        match self {
            ArchiveError::Guard(_) | ArchiveError::State(_) | ArchiveError::Cancelled => true,
            ArchiveError::Fs(error) => {
                error.source.kind() == std::io::ErrorKind::ReadOnlyFilesystem
                    || error.unavailable().is_some_and(|why| why.whole().is_some())
            }
            ArchiveError::Place(PlaceError::Fs(error)) => error.unavailable().is_some_and(|why| why.whole().is_some()),
            _ => false,
        }
    }

    pub(super) fn refused(path: &RelPath, reason: impl Into<String>) -> ArchiveError {
        ArchiveError::Refused { path: path.clone(), reason: reason.into() }
    }
}
