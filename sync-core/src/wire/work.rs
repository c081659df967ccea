//! What the two sides do in a run beyond showing rows and content: scan, survey, apply, and what came of it.
//!
//! Some types look like those of `plan` and `report`, and are others on purpose: messages stay as they are when those change.

use super::code::{Code, Reader, cut, fields, numbers, put_number, size};
use super::error::{Fault, WireError};
use super::open::{Identity, maybe_size, rules};
use crate::entry::{Digest, Kind};
use crate::knowledge::Vector;
use crate::path::RelPath;
use crate::plan;
use crate::report;

/// Bytes of problems in one message; further ones are counted only.
const PROBLEM_BYTES: usize = 256 << 10;
/// What can be attempted on a path.
const STEPS: [&str; 20] = [
    "read",
    "copy",
    "create",
    "replace",
    "remove",
    "move",
    "apply",
    "keep",
    "restore",
    "set the time",
    "set attributes",
    "list",
    "look at",
    "keep the old version",
    "drop replaced versions",
    "look for late writes",
    "record",
    "stage",
    "write",
    "hash",
];
/// What a user is told of an item.
const REASONS: [&str; 4] = [plan::CONFLICT_COPY, plan::BOTH_CHANGED, "something below it survives", "cannot be read"];

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// Objects looked at.
    pub entries: u64,
    /// Paths that are new or changed.
    pub changed: u64,
    /// Paths that are gone.
    pub vanished: u64,
    /// Paths that could not be looked at.
    pub failed: u64,
    /// Some of them.
    pub problems: Vec<Problem>,
    /// Paths whose content is not there for now, and is not deleted.
    pub unavailable: Vec<RelPath>,
    /// Its newest sequence number now.
    pub seq: u64,
    /// Its replica, and the newest event that it made. All of its events are durable.
    pub identity: Identity,
    /// Sub of its root.
    pub sub: Vector,
    /// M of its root.
    pub bound: Vector,
    /// D of its root.
    pub digest: Digest,
    /// Its user has decided conflicts there.
    pub decisions: bool,
}

/// One path that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub path: RelPath,
    /// What was attempted.
    pub step: String,
    /// What went wrong.
    pub error: String,
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The root is walked.
    Scan,
    /// Files are read and hashed.
    Compare,
    /// Decisions are made.
    Plan,
    /// Content is brought and put in place.
    Apply,
}

/// How far a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Which part.
    pub phase: Phase,
    /// Files done.
    pub files: u64,
    /// Files in all, where it is known.
    pub files_total: Option<u64>,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes in all, where it is known.
    pub bytes_total: Option<u64>,
}

/// Something for the user that is no problem of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The text.
    pub text: String,
}

/// Asks what a pull into this side would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// Should every item be told, before the totals?
    pub items: bool,
}

/// What a user sees of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The path.
    pub path: RelPath,
    /// Its kind.
    pub kind: Kind,
    /// What happens.
    pub verb: Verb,
    /// Where from, for a move.
    pub from: Option<RelPath>,
    /// Bytes of content that it takes.
    pub bytes: u64,
    /// Why: number of a text, from 0 on.
    pub reason: Option<Reason>,
    /// What became of it; `None` in a survey.
    pub done: Option<Outcome>,
}

/// What happens to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It comes to be.
    Create,
    /// Its content changes.
    Update,
    /// It goes.
    Delete,
    /// It comes from another path.
    Move,
    /// Its attributes change.
    Meta,
    /// Both sides changed it.
    Conflict,
}

/// Why an item is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(u8);

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Carried out.
    Done,
    /// Left, by policy.
    Skipped,
    /// Tried without success.
    Failed,
}

/// Numbers of a survey, or of a pull.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Paths created.
    pub created: u64,
    /// Files replaced, attributes changed.
    pub updated: u64,
    /// Paths deleted.
    pub deleted: u64,
    /// Moved in place.
    pub moved: u64,
    /// Conflicts met.
    pub conflicts: u64,
    /// Left by policy.
    pub skipped: u64,
    /// Failed.
    pub failed: u64,
    /// Content bytes.
    pub bytes: u64,
}

/// What a pull would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surveyed {
    /// Numbers.
    pub totals: Totals,
    /// Why it will not be carried out.
    pub stopped: Option<String>,
}

/// Asks for a pull into this side. It asks for listings and content meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apply {
    /// How many pulls the run has done before, into either side.
    pub number: u32,
    /// Should every item be told as it is done? Those that fail, and conflicts, always are.
    pub items: bool,
}

/// A pull is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Numbers.
    pub totals: Totals,
    /// Some of the paths that failed.
    pub problems: Vec<Problem>,
    /// Nothing is left that the other side has and this one does not.
    pub whole: bool,
    /// It was asked to stop.
    pub cancelled: bool,
    /// All open paths are settled: another pull would raise what is known.
    pub again: bool,
    /// It made events: the other side is to pull again.
    pub news: bool,
    /// Why it was not begun.
    pub stopped: Option<String>,
    /// The replica, and the newest event that it made. All of its events are durable.
    pub identity: Identity,
    /// Its newest sequence number.
    pub seq: u64,
}

/// What is to be kept of the run is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The folder's ignore rules as they stand now.
    pub rules: RulesNow,
}

/// Ignore rules at the end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RulesNow {
    /// Those of its beginning.
    Same,
    /// Others.
    Other(String),
    /// They cannot be used any more.
    Unusable,
}

impl Problem {
    /// As many problems as fit into one message.
    #[must_use]
    pub fn some<'a>(problems: impl IntoIterator<Item = &'a report::Problem>) -> Vec<Problem> {
        let mut bytes = 0;
        let problems = problems.into_iter().map(Problem::from);
        let fits = problems.take_while(|problem| {
            bytes += problem.path.as_bytes().len() + problem.step.len() + problem.error.len() + 9;
            bytes <= PROBLEM_BYTES
        });
        fits.take(super::MAX_LIST).collect()
    }
}

impl From<&report::Problem> for Problem {
    fn from(problem: &report::Problem) -> Problem {
        Problem { path: problem.path.clone(), step: cut(problem.step).to_owned(), error: cut(&problem.error).to_owned() }
    }
}

impl From<Problem> for report::Problem {
    /// A step that only the other side has a word for goes into the text.
    fn from(problem: Problem) -> report::Problem {
        match STEPS.into_iter().find(|step| *step == problem.step) {
            Some(step) => report::Problem { path: problem.path, step, error: problem.error },
            None => {
                let error = format!("{}: {}", problem.step, problem.error);
                report::Problem { path: problem.path, step: "apply", error }
            }
        }
    }
}

impl Reason {
    fn of(text: &str) -> Option<Reason> {
        REASONS.iter().position(|reason| *reason == text).map(|at| Reason(at as u8))
    }

    /// The text.
    #[must_use]
    pub fn text(self) -> &'static str {
        REASONS[usize::from(self.0)]
    }
}

impl From<&plan::Item> for Item {
    fn from(item: &plan::Item) -> Item {
        Item {
            path: item.path.clone(),
            kind: item.kind,
            verb: item.verb.into(),
            from: item.from.clone(),
            bytes: item.bytes,
            reason: item.reason.and_then(Reason::of),
            done: None,
        }
    }
}

impl From<Item> for plan::Item {
    fn from(item: Item) -> plan::Item {
        let Item { path, kind, verb, from, bytes, reason, done: _ } = item;
        plan::Item { path, kind, verb: verb.into(), from, bytes, reason: reason.map(Reason::text) }
    }
}

/// The same values under two types: one inside, one in messages.
macro_rules! mirrors {
    ($ours:ident = $theirs:path { $($value:ident),* }) => {
        impl From<$theirs> for $ours {
            fn from(value: $theirs) -> $ours {
                match value { $(<$theirs>::$value => $ours::$value),* }
            }
        }
        impl From<$ours> for $theirs {
            fn from(value: $ours) -> $theirs {
                match value { $($ours::$value => <$theirs>::$value),* }
            }
        }
    };
}

mirrors!(Verb = plan::Verb { Create, Update, Delete, Move, Meta, Conflict });
mirrors!(Phase = report::Phase { Scan, Compare, Plan, Apply });
mirrors!(Outcome = report::Done { Done, Skipped, Failed });

impl From<plan::Totals> for Totals {
    fn from(totals: plan::Totals) -> Totals {
        let plan::Totals { created, updated, deleted, moved, conflicts, skipped, failed, bytes } = totals;
        Totals { created, updated, deleted, moved, conflicts, skipped, failed, bytes }
    }
}

impl From<Totals> for plan::Totals {
    fn from(totals: Totals) -> plan::Totals {
        let Totals { created, updated, deleted, moved, conflicts, skipped, failed, bytes } = totals;
        plan::Totals { created, updated, deleted, moved, conflicts, skipped, failed, bytes }
    }
}

impl Code for Reason {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, u64::from(self.0));
    }
    fn get(reader: &mut Reader<'_>) -> Result<Reason, WireError> {
        let number = reader.byte()?;
        reader.check(usize::from(number) < REASONS.len(), Fault::Unknown(u64::from(number)))?;
        Ok(Reason(number))
    }
}

numbers!(Phase { Scan = 0, Compare = 1, Plan = 2, Apply = 3 });
numbers!(Verb { Create = 0, Update = 1, Delete = 2, Move = 3, Meta = 4, Conflict = 5 });
numbers!(Outcome { Done = 0, Skipped = 1, Failed = 2 });
fields!(Scanned {
    entries as size,
    changed as size,
    vanished as size,
    failed as size,
    problems,
    unavailable,
    seq as size,
    identity,
    sub,
    bound,
    digest,
    decisions,
});
fields!(Problem { path, step, error });
fields!(Progress { phase, files as size, files_total as maybe_size, bytes as size, bytes_total as maybe_size });
fields!(Notice { text });
fields!(Survey { items });
fields!(Item { path, kind, verb, from, bytes as size, reason, done });
fields!(Totals {
    created as size,
    updated as size,
    deleted as size,
    moved as size,
    conflicts as size,
    skipped as size,
    failed as size,
    bytes as size,
});
fields!(Surveyed { totals, stopped });
fields!(Apply { number, items });
fields!(Applied { totals, problems, whole, cancelled, again, news, stopped, identity, seq as size });
fields!(Finished { rules });

impl Code for RulesNow {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            RulesNow::Same => out.push(0),
            RulesNow::Other(text) => {
                out.push(1);
                rules::put(text, out);
            }
            RulesNow::Unusable => out.push(2),
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<RulesNow, WireError> {
        match reader.byte()? {
            0 => Ok(RulesNow::Same),
            1 => Ok(RulesNow::Other(rules::get(reader)?)),
            2 => Ok(RulesNow::Unusable),
            other => reader.fail(Fault::Unknown(u64::from(other))),
        }
    }
}
