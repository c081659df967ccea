//! What a pull wants done: steps in the order in which they must be done, and the items a user sees.
//!
//! Plain data. Every step carries what it expects to find, so that whoever carries it out can check again.

use crate::entry::{Attrs, Hash, Kind};
use crate::knowledge::{Creation, Row, Vector};
use crate::path::RelPath;
use std::sync::Arc;

/// The reason of the second file of a decided conflict.
pub const CONFLICT_COPY: &str = "conflict copy";
/// The reason of a conflict, and of the write that settles it.
pub const BOTH_CHANGED: &str = "both sides changed it";

/// One step of a pull, to be carried out at the pulling replica (B, "here"); A, "there", is the source.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Position in the pull; ascending.
    pub ticket: u64,
    /// The path it is about.
    pub path: RelPath,
    /// What is to be done.
    pub action: Action,
}

/// Which version a row gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stamp {
    /// These.
    Given {
        /// Version.
        m: Vector,
        /// Creation events.
        c: Creation,
    },
    /// A new event of this replica; a fresh creation too where `c` is `None`.
    Fresh {
        /// Creation events, if they are not fresh.
        c: Option<Creation>,
    },
}

/// Where the displaced old object goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Displaced {
    /// To the kept versions.
    Versions,
    /// To a conflict copy beside it, which is a new path with a fresh event.
    Copy(RelPath),
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// No change here; o of the path learns.
    Learn {
        /// Knowledge gained.
        learn: Arc<Vector>,
        /// Covers the deletions that it may be about; empty for a path that is live on both sides.
        bound: Arc<Vector>,
    },
    /// The path becomes `row.object`, whose bytes stand at `from` there.
    Write {
        /// The source's version.
        row: Row,
        /// The path at the source; another one than the step's for a conflict copy.
        from: RelPath,
        /// What stands here now; `None` if nothing may.
        expect: Option<Row>,
        /// Version and creation of the result.
        stamp: Stamp,
        /// Knowledge gained for the path; `None` for a conflict copy.
        learn: Option<Arc<Vector>>,
        /// Where the old object goes.
        displaced: Displaced,
        /// Both sides had changed the path, and what stands here loses: by a policy or by a user's decision, not in a mirror run.
        settles: bool,
    },
    /// The object stays, or changes its attributes only; its version changes.
    Restamp {
        /// What stands here now.
        expect: Row,
        /// New attributes.
        attrs: Option<Attrs>,
        /// Its version from now on.
        stamp: Stamp,
        /// Knowledge gained for the path.
        learn: Arc<Vector>,
        /// Why.
        why: Why,
    },
    /// The object, a leaf or an empty directory, goes to the kept versions.
    Remove {
        /// What stands here now.
        expect: Row,
        /// Knowledge gained for the path.
        learn: Arc<Vector>,
        /// Covers the deletion.
        bound: Arc<Vector>,
        /// The deletion is a decision of this replica: `bound` is joined with a new event of it.
        event: bool,
    },
    /// The path stays absent, and a new event of this replica says so.
    StayAbsent {
        /// Knowledge gained for the path.
        learn: Arc<Vector>,
    },
    /// The directory goes to the kept versions with everything below it.
    RemoveTree {
        /// What stands here now.
        expect: Row,
        /// Knowledge gained for the path and everything below.
        learn: Arc<Vector>,
        /// Covers the deletion.
        bound: Arc<Vector>,
    },
    /// A directory without an object here resurrects: somebody's child needs it. As `Write`, with a fresh event;
    /// what stands in the way (a file) becomes a conflict copy.
    MakeDir {
        /// Attributes.
        attrs: Attrs,
        /// What stands here now.
        expect: Option<Row>,
        /// Where it goes.
        displaced: Displaced,
        /// Knowledge gained for the path.
        learn: Arc<Vector>,
    },
    /// All changes of the directory's children stand before this step: set its carried time.
    FinishDir {
        /// Modification time, ns since 1970.
        mtime_ns: i64,
    },
    /// If every step from `first` up to, not including, `until` succeeded: S and M are raised.
    Raise {
        /// First ticket of the subtree.
        first: u64,
        /// The first ticket after the subtree.
        until: u64,
        /// S0; `None` if only M is raised.
        s: Option<Arc<Vector>>,
        /// M0.
        bound: Arc<Vector>,
        /// `s` and `bound` may stand for deletions that no row told of.
        gaps: bool,
    },
    /// Left undone, and remembered: the path is incomplete.
    Leave {
        /// Why.
        why: Open,
        /// What stands here.
        ours: Option<Row>,
        /// What stands there.
        theirs: Option<Row>,
        /// Own knowledge of the source for the path: what a resolution must cover.
        known: Arc<Vector>,
    },
    /// Nothing can be decided before these bytes were read.
    NeedHash {
        /// The file here.
        ours: bool,
        /// The file there.
        theirs: bool,
    },
}

/// Why a version changes without new content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Equal content on both sides.
    Merged,
    /// An edit survives the deletion of what it edited.
    EditBeatsDelete,
    /// A directory stays for what is left below it.
    StillNeeded,
    /// A conflict that this side won.
    ConflictWon,
    /// Attributes differed; one side's were chosen, or followed.
    Attributes,
    /// A mirror run keeps this side's.
    Forced,
}

/// Why a path is left undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// A conflict, and the policy is to leave conflicts.
    Conflict,
    /// An ignore rule of this run or of one side covers a path that has rows.
    Ignored,
    /// The bytes that decide were not read yet.
    Unread,
}

/// What a user sees of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The path.
    pub path: RelPath,
    /// Its kind: of the new object, or of the one that goes.
    pub kind: Kind,
    /// What happens.
    pub verb: Verb,
    /// Where from, for a move.
    pub from: Option<RelPath>,
    /// Bytes of content that it takes.
    pub bytes: u64,
    /// Why, where it is not obvious.
    pub reason: Option<&'static str>,
}

/// What happens to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// It comes to be.
    Create,
    /// Its content changes.
    Update,
    /// It goes.
    Delete,
    /// It comes from another path here.
    Move,
    /// Its attributes change.
    Meta,
    /// Both sides changed it; it is resolved, or left.
    Conflict,
}

/// Numbers of a plan, or of what was achieved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Paths created.
    pub created: u64,
    /// Files replaced, attributes changed.
    pub updated: u64,
    /// Paths deleted; a moved path is not.
    pub deleted: u64,
    /// Files and directories moved in place.
    pub moved: u64,
    /// Conflicts met: resolved or left.
    pub conflicts: u64,
    /// Paths left as they are by policy.
    pub skipped: u64,
    /// Paths that failed.
    pub failed: u64,
    /// Content bytes to bring, or brought.
    pub bytes: u64,
}

impl Totals {
    /// Counts an item that is, or will be, carried out.
    pub fn count(&mut self, item: &Item) {
        *match item.verb {
            Verb::Create => &mut self.created,
            Verb::Update | Verb::Meta => &mut self.updated,
            Verb::Delete => &mut self.deleted,
            Verb::Move => &mut self.moved,
            Verb::Conflict => &mut self.conflicts,
        } += 1;
        self.bytes = self.bytes.saturating_add(item.bytes);
    }

    /// Adds the numbers of another plan or run.
    pub fn add(&mut self, other: &Totals) {
        let Totals { created, updated, deleted, moved, conflicts, skipped, failed, bytes } = other;
        self.created = self.created.saturating_add(*created);
        self.updated = self.updated.saturating_add(*updated);
        self.deleted = self.deleted.saturating_add(*deleted);
        self.moved = self.moved.saturating_add(*moved);
        self.conflicts = self.conflicts.saturating_add(*conflicts);
        self.skipped = self.skipped.saturating_add(*skipped);
        self.failed = self.failed.saturating_add(*failed);
        self.bytes = self.bytes.saturating_add(*bytes);
    }
}

impl Step {
    /// What a user sees of this step; `None` for pure bookkeeping. Moves are recognised elsewhere.
    ///
    /// A conflict that this side wins changes nothing of a user's here: it is told without bytes and without a reason, so that
    /// whoever counts knows that the path is settled, also where the write on the other side, of a later pull, does not show it.
    #[must_use]
    pub fn item(&self) -> Option<Item> {
        let item = |kind, verb, bytes, reason| Some(Item { path: self.path.clone(), kind, verb, from: None, bytes, reason });
        match &self.action {
            Action::Write { row, expect, from, displaced, settles, .. } => {
                let bytes = size(row);
                match expect {
                    _ if *from != self.path => item(row.object.kind(), Verb::Conflict, bytes, Some(CONFLICT_COPY)),
                    Some(_) if *displaced != Displaced::Versions => {
                        item(row.object.kind(), Verb::Conflict, bytes, Some(BOTH_CHANGED))
                    }
                    Some(_) if *settles => item(row.object.kind(), Verb::Update, bytes, Some(BOTH_CHANGED)),
                    Some(old) if hash(old).is_some() && hash(old) == hash(row) => item(row.object.kind(), Verb::Meta, 0, None),
                    Some(_) => item(row.object.kind(), Verb::Update, bytes, None),
                    None => item(row.object.kind(), Verb::Create, bytes, None),
                }
            }
            Action::Restamp { expect, attrs, why, .. } => match why {
                Why::ConflictWon => item(expect.object.kind(), Verb::Conflict, 0, None),
                _ if attrs.is_some() => item(expect.object.kind(), Verb::Meta, 0, None),
                _ => None,
            },
            Action::Remove { expect, .. } | Action::RemoveTree { expect, .. } => {
                item(expect.object.kind(), Verb::Delete, 0, None)
            }
            Action::MakeDir { .. } => item(Kind::Dir, Verb::Create, 0, Some("something below it survives")),
            Action::Leave { why, ours, theirs, .. } => {
                let kind = ours.as_ref().or(theirs.as_ref()).map_or(Kind::File, |row| row.object.kind());
                match why {
                    Open::Conflict => item(kind, Verb::Conflict, 0, Some(BOTH_CHANGED)),
                    Open::Ignored | Open::Unread => None,
                }
            }
            Action::Learn { .. }
            | Action::StayAbsent { .. }
            | Action::FinishDir { .. }
            | Action::Raise { .. }
            | Action::NeedHash { .. } => None,
        }
    }
}

fn size(row: &Row) -> u64 {
    match row.object.content {
        crate::entry::Content::File { size, .. } => size,
        _ => 0,
    }
}

fn hash(row: &Row) -> Option<Hash> {
    match row.object.content {
        crate::entry::Content::File { hash, .. } => hash,
        _ => None,
    }
}
