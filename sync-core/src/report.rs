//! How work is told to the outside: problems of single paths, and progress.

use crate::path::RelPath;

/// One path that failed. One bad path never ends a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which path.
    pub path: RelPath,
    /// What was attempted: "read", "create", "replace" and so on.
    pub step: &'static str,
    /// What went wrong, with the system's words.
    pub error: String,
}

/// A large file whose content is on its way here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnItsWay {
    /// Which path it is for.
    pub path: RelPath,
    /// Bytes that are there.
    pub bytes: u64,
    /// Bytes of it all.
    pub total: u64,
}

/// Which part of a run is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The roots are walked.
    Scan,
    /// Files on both sides are read and hashed.
    Compare,
    /// Decisions are made.
    Plan,
    /// Content is brought and put in place.
    Apply,
}

/// Is told of progress, from any thread. All methods have an empty default.
pub trait Monitor: Sync {
    /// A part begins. `files` and `bytes` are its totals where they are known.
    fn phase(&self, phase: Phase, files: Option<u64>, bytes: Option<u64>) {
        let _ = (phase, files, bytes);
    }
    /// The first path, in the order of the tree, of what a pull into a root that stays open is about to bring.
    fn awaits(&self, path: &crate::path::RelPath) {
        let _ = path;
    }
    /// So many more files and bytes are done.
    fn advance(&self, files: u64, bytes: u64) {
        let _ = (files, bytes);
    }
    /// The large files that are on their way over a link now, several times a second while any is, and then once none.
    fn on_their_way(&self, files: &[OnItsWay]) {
        let _ = files;
    }
    /// A path failed; the rest goes on.
    fn problem(&self, problem: &Problem) {
        let _ = problem;
    }
    /// A visible step was carried out, skipped or failed. `here` names the side that changed: 0 for the first
    /// root, 1 for the second.
    fn item(&self, item: &crate::plan::Item, here: usize, done: Done) {
        let _ = (item, here, done);
    }
    /// Does anybody look at items that were carried out? Those that failed or were skipped are told in any case.
    fn wants_items(&self) -> bool {
        true
    }
    /// Something a user should know that is no problem of one path.
    fn notice(&self, text: &str) {
        let _ = text;
    }
    /// Should the run stop as soon as what has begun is finished?
    fn cancelled(&self) -> bool {
        false
    }
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// Carried out.
    Done,
    /// Left as it is, by policy.
    Skipped,
    /// Tried without success.
    Failed,
}

/// A monitor that is told and tells nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {}
