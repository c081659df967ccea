//! How the archiving of a folder is. Pure.

use super::{Moment, PathText};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the archiving of a folder is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveStatus {
    /// Where old days go.
    pub cold: PathText,
    /// What it is doing.
    pub doing: ArchiveDoing,
    /// Why the cold root cannot be used, in full: it is not there, is another one, or may only be read. What is hot is synchronised all the same.
    pub unavailable: Option<String>,
    /// Days that lie in the cold root.
    pub archived: u64,
    /// Days of which the old copy is kept for late writes.
    pub displaced: u64,
    /// The days that were found; `None`: they were not looked for yet.
    pub days: Option<DaysSeen>,
    /// The last run.
    pub last: Option<ArchiveRun>,
    /// When the next run is.
    pub next: Option<Moment>,
    /// How well what is archived was read again.
    pub scrub: ScrubStatus,
    /// How many runs were asked for since the agent began.
    #[serde(default)]
    pub asked: u64,
    /// So many of them have ended, and the last run is that one or a later one.
    #[serde(default)]
    pub answered: u64,
}

/// What it is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArchiveDoing {
    /// Nothing: it waits.
    Waiting,
    /// Days are looked for, and moved.
    Running,
    /// What was archived is looked at for changes.
    Looking,
    /// What was archived is read again and compared.
    Scrubbing,
}

impl ArchiveDoing {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            ArchiveDoing::Waiting => "waiting",
            ArchiveDoing::Running => "running",
            ArchiveDoing::Looking => "looking",
            ArchiveDoing::Scrubbing => "scrubbing",
        }
    }
}

/// The days that are not archived, as they were seen last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaysSeen {
    /// The oldest of them that no rule excludes.
    pub oldest: Option<PathText>,
    /// When that day was over.
    pub oldest_ended: Option<Moment>,
    /// Days that the next run moves.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// The others, by why they stay: `young`, `not-quiet`, `open`, `peers`, `obstacle`, `excluded`, `later`.
    pub staying: BTreeMap<String, u64>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRun {
    /// When it began, by the rule's clock.
    pub at: Moment,
    /// Days that moved.
    pub moved: u64,
    /// Their files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes that were copied for it.
    pub copied: u64,
    /// Days in which something is in the way.
    pub held: u64,
    /// Days that changed while they were copied; a later run takes them.
    pub changed: u64,
    /// Days that could not be moved.
    pub failed: u64,
    /// Why it could not go on to its end.
    pub error: Option<String>,
}

impl ArchiveRun {
    /// One that could not begin.
    #[must_use]
    pub fn failed(at: Moment, why: String) -> ArchiveRun {
        ArchiveRun { at, moved: 0, files: 0, bytes: 0, copied: 0, held: 0, changed: 0, failed: 0, error: Some(why) }
    }
}

/// How well what is archived was read again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Days that were never read again.
    pub never: u64,
    /// Of the others, when the one was that waits longest.
    pub oldest: Option<Moment>,
    /// When a day was last read to its end.
    pub last: Option<Moment>,
    /// Files whose bytes are not those that were written.
    pub damaged: u64,
    /// Files that were, and are whole again: they came from peers, since the agent began.
    #[serde(default)]
    pub repaired: u64,
}
