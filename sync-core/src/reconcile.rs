//! What becomes of the object at one path when B pulls from A: the decision table of the engine.
//!
//! Total and pure: rows and knowledge of both sides and a policy in, a decision out. "Here" is B, the pulling
//! replica, "there" is A. Nothing here knows of children; whether something live is left below is an argument.

use crate::entry::{AttrMask, Attrs, Content, Hash, Kind, Same};
use crate::knowledge::{Creation, Mutation, Row, Trap, Vector};
use crate::path::{Name, RelPath};
use crate::plan::{Open, Stamp, Why};

/// One of the two sides of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// The pulling replica.
    Here,
    /// The source.
    There,
}

/// How a conflict is decided. Who wins is named as an end of a pull, or as a root (`W`), of which a pull knows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy<W = End> {
    /// Left as it is on both sides.
    #[default]
    Skip,
    /// Both stay: one under the name, the other as a conflict copy.
    KeepBoth,
    /// The newer modification time wins.
    Newer,
    /// The older modification time wins.
    Older,
    /// This side wins.
    Wins(W),
}

impl<W> Policy<W> {
    /// The same, with another name for who wins.
    #[must_use]
    pub fn naming<V>(self, name: impl FnOnce(W) -> V) -> Policy<V> {
        match self {
            Policy::Skip => Policy::Skip,
            Policy::KeepBoth => Policy::KeepBoth,
            Policy::Newer => Policy::Newer,
            Policy::Older => Policy::Older,
            Policy::Wins(side) => Policy::Wins(name(side)),
        }
    }
}

/// Everything a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// A's version; `None` if absent there.
    pub theirs: Option<&'a Row>,
    /// B's version; `None` if absent here.
    pub ours: Option<&'a Row>,
    /// Own_A of the path.
    pub known_there: &'a Vector,
    /// Own_B of the path.
    pub known_here: &'a Vector,
    /// Is something live left, or arriving, below the path here?
    pub survivors: bool,
    /// How conflicts are decided.
    pub policy: Policy,
    /// Mirror this side.
    pub force: Option<End>,
    /// Which attributes count.
    pub mask: AttrMask,
    /// Which rule is broken on purpose: none, outside the simulator's own tests.
    pub mutation: Mutation,
}

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Here already includes there: nothing changes but what is known.
    Keep,
    /// Absent stays absent; `event`: by a decision that needs an event of its own.
    StayAbsent {
        /// A fresh event says so.
        event: bool,
    },
    /// The object here goes; `event`: by a decision that needs an event of its own.
    Remove {
        /// A fresh event says so.
        event: bool,
    },
    /// The path becomes A's object.
    Write {
        /// Version of the result.
        stamp: Stamp,
        /// Does the old object become a conflict copy?
        copy_ours: bool,
    },
    /// The object stays; version and perhaps attributes change.
    Restamp {
        /// Version of the result.
        stamp: Stamp,
        /// New attributes.
        attrs: Option<Attrs>,
        /// Why.
        why: Why,
        /// Does A's object become a conflict copy here first?
        copy_theirs: bool,
    },
    /// A has a directory, here stands a leaf, both were changed: what arrives below decides.
    Defer,
    /// Left as it is; the path is incomplete.
    Leave(Open),
    /// The bytes must be read first.
    NeedHash {
        /// Here.
        ours: bool,
        /// There.
        theirs: bool,
    },
}

impl Decision {
    fn restamp(stamp: Stamp, why: Why) -> Decision {
        Decision::Restamp { stamp, attrs: None, why, copy_theirs: false }
    }
}

/// Decides one path.
#[must_use]
pub fn decide(case: &Case<'_>) -> Decision {
    match (case.theirs, case.ours) {
        (None, None) => Decision::StayAbsent { event: false },
        (None, Some(ours)) => absent_there(case, ours),
        (Some(theirs), None) => absent_here(case, theirs),
        (Some(theirs), Some(ours)) => live_on_both_sides(case, theirs, ours),
    }
}

fn absent_there(case: &Case<'_>, ours: &Row) -> Decision {
    if case.mutation.broken(Trap::GhostIsNothingToDo) {
        return Decision::Keep;
    }
    let fresh = Stamp::Fresh { c: None };
    let superseded = ours.m.within(case.known_there);
    if superseded && ours.object.kind() == Kind::Dir && case.survivors {
        return Decision::restamp(fresh, Why::StillNeeded);
    }
    match case.force {
        Some(End::There) if case.survivors => return Decision::restamp(fresh, Why::StillNeeded),
        Some(End::There) => return Decision::Remove { event: !superseded },
        Some(End::Here) if superseded => return Decision::restamp(fresh, Why::Forced),
        _ => {}
    }
    if superseded {
        Decision::Remove { event: false }
    } else if !ours.c.meets(case.known_there) {
        Decision::Keep
    } else {
        let c = case.mutation.broken(Trap::CreationKept).then(|| ours.c.clone());
        Decision::restamp(Stamp::Fresh { c }, Why::EditBeatsDelete)
    }
}

fn absent_here(case: &Case<'_>, theirs: &Row) -> Decision {
    let fresh = Decision::Write { stamp: Stamp::Fresh { c: None }, copy_ours: false };
    let known = theirs.m.within(case.known_here);
    match case.force {
        Some(End::Here) => return Decision::StayAbsent { event: !known },
        Some(End::There) if known => return fresh,
        _ => {}
    }
    if known {
        Decision::Keep
    } else if theirs.c.meets(case.known_here) {
        if theirs.object.kind() == Kind::Dir && case.mutation.broken(Trap::StaysDeletedSilently) {
            return Decision::Keep;
        }
        fresh
    } else {
        Decision::Write { stamp: given(theirs), copy_ours: false }
    }
}

fn live_on_both_sides(case: &Case<'_>, theirs: &Row, ours: &Row) -> Decision {
    let known_here = theirs.m.within(case.known_here);
    let known_there = ours.m.within(case.known_there);
    if theirs.m == ours.m && !(known_here && known_there && differ(case, theirs, ours)) {
        return merge(case, theirs, ours);
    }
    let same = theirs.object.same_content(&ours.object);
    let attrs_equal = case.mask.equal(ours.object.kind(), &theirs.object.attrs, &ours.object.attrs);
    // Both know the other's version and yet they differ: an order cycle of creations, seen through the digest.
    let cycle = known_here
        && known_there
        && !case.mutation.broken(Trap::NoDigestCheck)
        && (same == Same::No || (same == Same::Yes && !attrs_equal));
    if known_here && known_there && same == Same::Unknown {
        return need_hash(theirs, ours);
    }
    if known_here && !cycle && case.force != Some(End::There) {
        return Decision::Keep;
    }
    match same {
        Same::Yes if attrs_equal => merge(case, theirs, ours),
        Same::Yes => attributes(case, theirs, ours, known_there && !cycle),
        Same::Unknown if !known_there || cycle => need_hash(theirs, ours),
        _ if known_there && !cycle && case.force != Some(End::Here) => superseded(case, theirs, ours, known_here),
        _ => concurrent(case, theirs, ours, known_here && !cycle, known_there && !cycle),
    }
}

fn differ(case: &Case<'_>, theirs: &Row, ours: &Row) -> bool {
    theirs.object.same_content(&ours.object) == Same::No
        || !case.mask.equal(ours.object.kind(), &theirs.object.attrs, &ours.object.attrs)
}

fn merge(case: &Case<'_>, theirs: &Row, ours: &Row) -> Decision {
    let m = if case.mutation.broken(Trap::EqualContentKeepsOneVersion) { ours.m.clone() } else { ours.m.joined(&theirs.m) };
    let c = ours.c.united(&theirs.c);
    if m == ours.m && c == ours.c {
        return Decision::Keep;
    }
    Decision::restamp(Stamp::Given { m, c }, Why::Merged)
}

/// Equal bytes, different attributes: no conflict to a user, but a choice that needs an event.
fn attributes(case: &Case<'_>, theirs: &Row, ours: &Row, superseded: bool) -> Decision {
    let c = ours.c.united(&theirs.c);
    let kind = ours.object.kind();
    let rank = |row: &Row| {
        let a = &row.object.attrs;
        (if kind == Kind::Dir { 0 } else { a.mtime_ns }, a.mode, a.uid, a.gid)
    };
    if kind == Kind::Dir && case.mutation.broken(Trap::DirAttrsJoinedSilently) {
        let attrs = (rank(theirs) > rank(ours)).then_some(theirs.object.attrs);
        let stamp = Stamp::Given { m: ours.m.joined(&theirs.m), c };
        return Decision::Restamp { stamp, attrs, why: Why::Attributes, copy_theirs: false };
    }
    let (follow, stamp) = match case.force {
        Some(End::Here) => (false, Stamp::Fresh { c: Some(c) }),
        _ if superseded => (true, given(theirs)),
        Some(End::There) => (true, Stamp::Fresh { c: Some(c) }),
        None => (rank(theirs) > rank(ours), Stamp::Fresh { c: Some(c) }),
    };
    Decision::Restamp { stamp, attrs: follow.then_some(theirs.object.attrs), why: Why::Attributes, copy_theirs: false }
}

fn unread(row: &Row) -> bool {
    matches!(row.object.content, Content::File { hash: None, .. })
}

fn need_hash(theirs: &Row, ours: &Row) -> Decision {
    Decision::NeedHash { ours: unread(ours), theirs: unread(theirs) }
}

/// B's version is in A's past.
fn superseded(case: &Case<'_>, theirs: &Row, ours: &Row, known_here: bool) -> Decision {
    if leaf(theirs) && !leaf(ours) && case.survivors {
        if case.policy == Policy::Skip && case.force.is_none() {
            return Decision::Leave(Open::Conflict);
        }
        return Decision::Restamp { stamp: Stamp::Fresh { c: None }, attrs: None, why: Why::StillNeeded, copy_theirs: true };
    }
    if known_here {
        // Only a mirror run comes here: it brings back what this side had replaced.
        return Decision::Write { stamp: Stamp::Fresh { c: Some(ours.c.united(&theirs.c)) }, copy_ours: false };
    }
    let mut stamp = given(theirs);
    if case.mutation.broken(Trap::CreationUnited) {
        stamp = Stamp::Given { m: theirs.m.clone(), c: ours.c.united(&theirs.c) };
    }
    Decision::Write { stamp, copy_ours: false }
}

fn concurrent(case: &Case<'_>, theirs: &Row, ours: &Row, known_here: bool, known_there: bool) -> Decision {
    let c = ours.c.united(&theirs.c);
    let mut stamp = Stamp::Fresh { c: Some(c.clone()) };
    if case.force.is_none() {
        match case.policy {
            Policy::Skip => return Decision::Leave(Open::Conflict),
            // The order of winners and the names of copies depend on the bytes.
            _ if unread(theirs) || unread(ours) => return need_hash(theirs, ours),
            _ if !leaf(theirs) && leaf(ours) => return Decision::Defer,
            _ => {}
        }
    }
    if leaf(theirs) && !leaf(ours) {
        // File against directory: the directory wins if something live is left below it.
        return if case.survivors || case.force == Some(End::Here) {
            Decision::Restamp { stamp, attrs: None, why: Why::ConflictWon, copy_theirs: case.force != Some(End::Here) }
        } else {
            Decision::Write { stamp, copy_ours: false }
        };
    }
    let winner = case.force.unwrap_or_else(|| winner(case.policy, theirs, ours));
    if case.mutation.broken(Trap::ConflictResolvedSilently) {
        let m = if winner == End::There { theirs.m.clone() } else { ours.m.clone() };
        stamp = Stamp::Given { m, c };
    }
    let copies = case.force.is_none() && case.policy == Policy::KeepBoth;
    match winner {
        End::There if known_there && !known_here => Decision::Write { stamp: given(theirs), copy_ours: false },
        End::There => Decision::Write { stamp, copy_ours: copies },
        End::Here => {
            let why = if case.force.is_some() { Why::Forced } else { Why::ConflictWon };
            Decision::Restamp { stamp, attrs: None, why, copy_theirs: copies }
        }
    }
}

/// A symmetric total order decides, so that both sides of a pair, and any two pairs, decide alike.
fn winner(policy: Policy, theirs: &Row, ours: &Row) -> End {
    let key = |row: &Row| {
        let (rank, bytes) = match &row.object.content {
            Content::Dir => (2, Vec::new()),
            Content::File { hash, .. } => (1, hash.map(|h| h.0.to_vec()).unwrap_or_default()),
            Content::Symlink(target) => (0, target.to_vec()),
        };
        (row.object.attrs.mtime_ns, rank, bytes)
    };
    let newer = if key(theirs) > key(ours) { End::There } else { End::Here };
    match policy {
        Policy::Wins(end) => end,
        Policy::Older if theirs.object.attrs.mtime_ns != ours.object.attrs.mtime_ns => match newer {
            End::There => End::Here,
            End::Here => End::There,
        },
        _ => newer,
    }
}

/// The name of a conflict copy, made from the path, the loser's content, its recorded time and its last
/// writer, so that two pairs that resolve the same conflict create the same path with the same bytes.
#[must_use]
pub fn conflict_path(path: &RelPath, loser: &Row) -> Option<RelPath> {
    let (parent, name) = path.split()?;
    let seconds = loser.object.attrs.mtime_ns.div_euclid(1_000_000_000);
    let date =
        chrono::DateTime::from_timestamp(seconds, 0).map_or_else(|| "undated".into(), |t| t.format("%Y%m%d-%H%M%S").to_string());
    let label = loser.m.iter().max_by_key(|e| (e.counter, e.replica)).map_or_else(|| "unknown".into(), |e| e.replica.short());
    let digest = match &loser.object.content {
        Content::File { hash: Some(hash), .. } => *hash,
        Content::Symlink(target) => Hash(*blake3::hash(target).as_bytes()),
        _ => Hash(*blake3::hash(format!("{:?}", loser.m).as_bytes()).as_bytes()),
    };
    let tag = format!(".conflict-{date}-{label}-{digest:?}");
    let bytes = name.as_bytes();
    // A leading dot is no extension, and an extension is short.
    let dot = bytes.iter().rposition(|b| *b == b'.').filter(|at| *at > 0 && bytes.len() - at <= 16).unwrap_or(bytes.len());
    let (stem, extension) = bytes.split_at(dot);
    let room = crate::path::MAX_NAME.saturating_sub(tag.len() + extension.len());
    let mut out = stem[..stem.len().min(room)].to_vec();
    out.extend_from_slice(tag.as_bytes());
    out.extend_from_slice(extension);
    Name::parse(&out).ok().map(|name| parent.join(&name))
}

fn given(row: &Row) -> Stamp {
    Stamp::Given { m: row.m.clone(), c: row.c.clone() }
}

fn leaf(row: &Row) -> bool {
    row.object.kind() != Kind::Dir
}

/// The creation set that a stamp leads to, for an object that a fresh event `event` would make.
#[must_use]
pub fn stamped(stamp: &Stamp, event: impl FnOnce() -> crate::knowledge::Event) -> (Vector, Creation) {
    match stamp {
        Stamp::Given { m, c } => (m.clone(), c.clone()),
        Stamp::Fresh { c } => {
            let event = event();
            (event.into(), c.clone().unwrap_or_else(|| event.into()))
        }
    }
}
