//! What a user has done with old days by hand, beside runs: they are looked for, brought back, and read again. Told piece by piece, so that
//! it is the same wherever it is done and wherever it is shown.

use crate::archive::run::{self, Day, Ground, RULE, Report, RunError, Time, Told, is_held};
use crate::archive::{Decision, Order, Reason, Terms};
use crate::status::PathText;
use serde::{Deserialize, Serialize};
use std::fs::File;
use sync_core::io::archive::{Archive, ArchiveError, Moved, Repair, Scrub};
use sync_core::io::fs::{FsError, Root};
use sync_core::path::RelPath;

/// Something that is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Piece {
    /// A day, and what would become of it.
    Day(DayPiece),
    /// A day came back.
    Restored {
        /// Which.
        at: PathText,
        /// Its files.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// Bytes that were copied.
        copied: u64,
    },
    /// A day could not come back.
    Stays {
        /// Which.
        at: PathText,
        /// Why not.
        why: String,
    },
    /// A day was read again.
    Read {
        /// Its files.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A file whose bytes are not those that were written.
    Damaged {
        /// Which.
        at: PathText,
        /// It has them again.
        repaired: bool,
        /// Why it has not.
        why: Option<String>,
    },
    /// A file of a day that could not be read again.
    Unreadable {
        /// Which.
        at: PathText,
        /// What went wrong.
        error: String,
    },
    /// A path could not be dealt with.
    Problem {
        /// Which.
        at: PathText,
        /// What went wrong.
        error: String,
    },
    /// Something that concerns no single path.
    Notice(String),
}

/// A day, and what would become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayPiece {
    /// Where.
    pub at: PathText,
    /// Which.
    pub period: String,
    /// It would move.
    pub moves: bool,
    /// Why it would not.
    pub reason: Option<String>,
    /// One word for that, by which days are counted.
    #[serde(default)]
    pub word: Option<String>,
    /// It is archived already.
    pub archived: bool,
    /// Something in it keeps it, that somebody should look at.
    pub held: bool,
    /// Its files, if that was looked at.
    pub files: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
}

/// Is told what became of a day that was read again.
pub type Found<'a> = &'a dyn Fn(&RelPath, &Scrub);

/// Hears it.
pub type Hear<'a> = &'a mut dyn FnMut(Piece);

impl DayPiece {
    /// Of a day that was looked at.
    #[must_use]
    pub fn of(day: &Day) -> DayPiece {
        let (moves, reason) = match &day.decision {
            Decision::Move => (true, None),
            Decision::Stay(reason) => (false, Some(reason)),
        };
        DayPiece {
            at: text(&day.path),
            period: day.period.to_string(),
            moves,
            reason: reason.map(ToString::to_string),
            word: reason.map(|reason| reason.word().to_owned()),
            archived: reason == Some(&Reason::Archived),
            held: reason.is_some_and(is_held),
            files: day.contents.as_ref().map(|contents| contents.files),
            bytes: day.contents.as_ref().map(|contents| contents.bytes),
        }
    }
}

fn text(path: &RelPath) -> PathText {
    PathText::new(path.as_bytes())
}

/// Tells what recovery and old copies tell.
struct Teller<'a>(Hear<'a>);

impl Told for Teller<'_> {
    fn day(&mut self, _day: &Day, _result: Option<&Result<Moved, ArchiveError>>) {}

    fn problem(&mut self, path: &RelPath, error: &ArchiveError) {
        (self.0)(Piece::Problem { at: text(path), error: error.to_string() });
    }

    fn notice(&mut self, text: &str) {
        (self.0)(Piece::Notice(text.to_owned()));
    }
}

/// What a root remembers of its rule.
///
/// # Errors
/// The state cannot be read, or what it remembers.
pub fn remembered(ground: &dyn Ground) -> Result<Option<Terms>, RunError> {
    let bytes = ground.note(RULE)?;
    bytes.map(|bytes| Terms::recall(&bytes).map_err(RunError::Note)).transpose()
}

/// Which days would move, and for the others why not. No file of the user's is changed. `accept_clock`: as for a run.
///
/// # Errors
/// The tree, the state, the clock or the cold root.
pub fn plan(
    (ground, archive): (&dyn Ground, &Archive<'_>),
    order: &Order,
    (time, accept_clock): (&Time, bool),
    hear: Hear<'_>,
) -> Result<(), RunError> {
    let cold = archive.cold(&order.cold)?;
    for day in &run::look_by((ground, archive), order, Some(&cold), (time, accept_clock))? {
        hear(Piece::Day(DayPiece::of(day)));
    }
    Ok(())
}

/// Brings back a day, or all days below a path. Returns the paths that came back, and those to which late writes were brought.
///
/// # Errors
/// Nothing there is archived, or what stops all of it; what was done until then is done.
pub fn restore(
    (ground, archive): (&dyn Ground, &Archive<'_>),
    at: &RelPath,
    time: &Time,
    hear: Hear<'_>,
) -> Result<Vec<RelPath>, RunError> {
    let mut report = Report::default();
    run::recover(archive, &mut Teller(&mut *hear), &mut report)?;
    let days: Vec<RelPath> = ground.placed().into_iter().filter(|path| at.contains(path)).collect();
    if days.is_empty() {
        return Err(RunError::Note(format!("{at} is not archived, and nothing below it is")));
    }
    let rule = remembered(ground)?;
    let keep = rule.clone().unwrap_or_default().keep_displaced();
    let mut back = Vec::new();
    for day in &days {
        match archive.restore_day(day, keep) {
            Ok(Moved { files, bytes, copied, .. }) => {
                hear(Piece::Restored { at: text(day), files, bytes, copied });
                back.push(day.clone());
            }
            Err(error) if error.ends_run() => return Err(error.into()),
            Err(error) => hear(Piece::Stays { at: text(day), why: error.to_string() }),
        }
    }
    run::settle((ground, archive), time, (&mut Teller(&mut *hear), &mut report))?;
    if let Some(rule) = rule.filter(|_| !back.is_empty()) {
        hear(Piece::Notice(format!(
            "what came back counts as changed now: runs leave it until it was quiet for {}, as their rule says",
            quiet(rule.quiet().as_secs())
        )));
    }
    back.append(&mut report.late);
    Ok(back)
}

fn quiet(seconds: u64) -> String {
    if seconds.is_multiple_of(3600) { format!("{} h", seconds / 3600) } else { format!("{seconds} s") }
}

/// The file at a path in another copy of the tree on this machine.
///
/// # Errors
/// It cannot be opened.
pub fn near(copy: &Root, path: &RelPath) -> Result<File, FsError> {
    let (parent, name) = path.split().expect("a file has a name");
    copy.dir(&parent)?.open_file(name.as_bytes())
}

/// Reads archived days again. `repair` opens a file that should have the bytes of a damaged one; `found` is told what became of each day.
///
/// # Errors
/// What stops all of it.
pub fn verify(
    (ground, archive): (&dyn Ground, &Archive<'_>),
    repair: Option<Repair<'_>>,
    (hear, found): (Hear<'_>, Found<'_>),
) -> Result<(), RunError> {
    run::recover(archive, &mut Teller(&mut *hear), &mut Report::default())?;
    for day in ground.placed() {
        match archive.scrub(&day, repair) {
            Ok(scrub) => {
                found(&day, &scrub);
                hear(Piece::Read { files: scrub.files, bytes: scrub.bytes });
                for damage in scrub.damaged {
                    hear(Piece::Damaged { at: text(&damage.path), repaired: damage.repaired, why: damage.why });
                }
                for (path, error) in scrub.unreadable {
                    hear(Piece::Unreadable { at: text(&path), error });
                }
                if scrub.interrupted {
                    return Err(ArchiveError::Cancelled.into());
                }
            }
            Err(error) if error.ends_run() => return Err(error.into()),
            Err(error) => hear(Piece::Problem { at: text(&day), error: error.to_string() }),
        }
    }
    Ok(())
}
