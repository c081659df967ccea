//! What can go wrong with a state.

use crate::path::RelPath;
use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with a state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A call on one of the state's files failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("cannot {action} in the state: {source}")]
    Sqlite {
        /// What was attempted.
        action: &'static str,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// Another process, or another part of this one, holds the state.
    #[error("the state in {} is held by {holder}", dir.display())]
    Locked {
        /// The state's folder.
        dir: PathBuf,
        /// "process 123 (driftless sync …)".
        holder: String,
        /// It is this process itself.
        own: bool,
    },
    /// The state was written by a newer version of the program; it was left untouched.
    #[error(
        "the state {} has schema {found}, this program knows schemas up to {supported}: use a newer driftless",
        path.display()
    )]
    Newer {
        /// The state's file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Newest schema known here.
        supported: i64,
    },
    /// The state is damaged; it was moved aside and nothing was made in its place.
    #[error(
        "the state {} is damaged ({reason}) and was moved to {}: run again with --rejoin to start anew from the files",
        path.display(), moved_to.display()
    )]
    Damaged {
        /// The state's file.
        path: PathBuf,
        /// Where it is now.
        moved_to: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The state is damaged; it was only looked at, and stays as it is.
    #[error("the state {} is damaged ({reason})", path.display())]
    Unsound {
        /// The state's file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A stored value cannot be what this program wrote.
    #[error("the state holds {what} that cannot be read")]
    Content {
        /// Which value.
        what: &'static str,
    },
    /// A change would break a rule that the rows obey; nothing was changed.
    #[error("a change of {path} would break a rule of the state: {rule}")]
    Invariant {
        /// Where.
        path: RelPath,
        /// Which rule.
        rule: &'static str,
    },
    /// The file system cannot hold SQLite's write-ahead log.
    #[error(
        "the file system of {} cannot hold the state's log: keep the state in a folder on a local disk (--state-dir)",
        path.display()
    )]
    NoLog {
        /// The state's file.
        path: PathBuf,
    },
    /// The linked SQLite has a known defect.
    #[error("SQLite {found} is too old, 3.51.3 is needed")]
    Library {
        /// Its version.
        found: &'static str,
    },
    /// The operating system gave no random bytes.
    #[error("cannot read random bytes: {0}")]
    Random(String),
}

pub(super) type Result<T> = std::result::Result<T, StateError>;

/// Names what was attempted when SQLite refuses.
pub(super) trait Attempt<T> {
    fn attempt(self, action: &'static str) -> Result<T>;
}

impl<T> Attempt<T> for rusqlite::Result<T> {
    fn attempt(self, action: &'static str) -> Result<T> {
        self.map_err(|source| StateError::Sqlite { action, source })
    }
}

/// Names what was attempted on which path when the system refuses.
pub(super) fn io_error<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> StateError {
    move |source| StateError::Io { action, path: path.to_owned(), source: source.into() }
}

pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StateError::Random(error.to_string()))?;
    Ok(bytes)
}
