//! One pull into a root of this machine: the engine's conversation fed from the state here and from whatever the other side
//! is, its steps handed to apply, and what is remembered of it afterwards.

use super::conflicts;
use super::opened::Opened;
use super::survey;
use super::unread::Reads;
use super::{Options, Side, SyncError};
use crate::entry::{AttrMask, Kind};
use crate::ignore::Rules;
use crate::io::apply::{Applied, Apply, ApplyError, Context, Moves};
use crate::io::mutex::EndOf;
use crate::io::source::{Source, kind_of};
use crate::io::stage::UnderWay;
use crate::io::state::{Decision, Pending};
use crate::io::there::{Decided, Facts, There, decided};
use crate::knowledge::{ReplicaId, Row, Vector};
use crate::path::{Name, RelPath, escape};
use crate::plan::{Action, Open, Step};
use crate::reconcile::{self, End};
use crate::report::Monitor;
use crate::reserve::Reserve;
use crate::session::{self, Outcome, Poll, Pull};
use crate::store::{Child, Filter, Listing};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope};
use std::time::Duration;

/// Beyond so many open paths the next pull looks at everything instead of asking for them by name.
const PENDING: usize = 10_000;
/// How often the wish to stop is looked for while content crosses a link.
const GLANCE: Duration = Duration::from_millis(200);

/// What the user asked for, and what both roots ignore, as the pulls need it.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) options: &'a Options,
    /// The attributes that both roots can bear.
    pub(super) mask: AttrMask,
    /// The rules that stand in A and in B.
    pub(super) rules: &'a [Rules; 2],
    pub(super) run_rules: &'a Rules,
    /// Where either root misses a file system that was mounted there.
    pub(super) unavailable: &'a [RelPath],
}

/// What a conversation has met of directories that stay for ignored paths.
#[derive(Default)]
struct Staying {
    /// Those that stay.
    dirs: BTreeSet<RelPath>,
    /// Those from which something goes.
    emptied: BTreeSet<RelPath>,
}

/// One pull: `here` changes, the other side is the source.
pub(super) struct OnePull<'a> {
    pub(super) here: Side,
    pub(super) ours: &'a Opened,
    pub(super) theirs: &'a dyn There,
    /// Who the source is.
    facts: Facts,
    pub(super) terms: session::Terms,
    /// Paths were left open before: see [`session::Terms::may_raise`].
    pub(super) settling: bool,
    keep_versions: Option<Duration>,
    reserve: Reserve,
    /// Do both roots obey the same ignore rules?
    same_rules: bool,
    /// Where it does not read all that it cannot decide without, the rest is left open, to be decided by a later pull.
    pub(super) reads: Reads,
    /// It is not the first pull into this root: what it leaves for ignored paths was told.
    pub(super) again: bool,
}

impl<'a> OnePull<'a> {
    pub(super) fn new(here: Side, ours: &'a Opened, theirs: &'a dyn There, asked: &Terms<'_>) -> Result<OnePull<'a>, SyncError> {
        let options = asked.options;
        let facts = theirs.facts()?;
        let other = facts.identity;
        let mut terms = session::Terms::everything(options.conflicts.naming(|side| side.end(here)), asked.mask);
        terms.force = options.force.map(|side| side.end(here));
        terms.scope = options.paths.clone();
        terms.ignored = ignored(asked);
        let record = ours.open_with(&facts)?;
        let pending = ours.state.pending(record)?;
        terms.decided = Arc::new(decisions(ours, theirs, &facts, record)?);
        let same_rules = asked.rules[0].text() == asked.rules[1].text();
        let peer = ours.state.peer(record)?;
        let known = peer.filter(|peer| peer.instance == other.instance && peer.incorporated > 0);
        let increments = known.filter(|_| options.force.is_none() && options.paths.is_empty() && same_rules);
        let settling = increments.is_some() && !pending.is_empty();
        if let Some(peer) = increments {
            let also: BTreeSet<RelPath> = pending.into_iter().map(|pending| pending.path).collect();
            terms.since = Some((peer.incorporated, Arc::new(also)));
        }
        terms.may_raise = same_rules && !settling;
        let (keep_versions, reserve, reads) = (options.keep_versions, options.reserve, Reads::All);
        Ok(OnePull { here, ours, theirs, facts, terms, settling, keep_versions, reserve, same_rules, reads, again: false })
    }

    /// Runs the conversation; every step goes to `step`.
    pub(super) fn converse(
        &self,
        terms: session::Terms,
        mut step: impl FnMut(Step) -> Result<(), SyncError>,
    ) -> Result<Outcome, SyncError> {
        let mut pull = Pull::new(terms);
        let mut staying = Staying::default();
        loop {
            match pull.poll() {
                Poll::List { of, path, filter } => {
                    pull.supply(match of {
                        End::There => self.checked(self.theirs.listing(&path, &filter)?)?,
                        End::Here => self.ours.state.listing(&path, &filter)?,
                    });
                }
                Poll::Step(next) => {
                    let (before, next) = self.with_ignored_in_mind(next, &mut staying);
                    before.into_iter().chain([next]).try_for_each(&mut step)?;
                }
                Poll::Done(outcome) => return Ok(outcome),
            }
        }
    }

    /// Nobody knows of an event here that was not made here: who claims to has not learned it from this replica, and what
    /// follows from it would hide the events to come.
    fn checked(&self, listing: Listing) -> Result<Listing, SyncError> {
        let state = &self.ours.state;
        let id = state.id();
        let of_row = |row: &Row| {
            row.c.iter().filter(|event| event.replica == id).map(|event| event.counter).max().max(Some(row.m.get(id)))
        };
        let of_child = |child: &Child| {
            let row = child.row.as_ref().and_then(of_row);
            let own = child.own.as_ref().map(|own| own.get(id));
            let tree = child.tree.as_ref().map(|tree| tree.s.get(id).max(tree.bound.get(id)));
            row.max(own).max(tree).unwrap_or(0)
        };
        let of_children = listing.children.iter().map(of_child).max().unwrap_or(0);
        let claimed = listing.sub.get(id).max(listing.bound.get(id)).max(of_children);
        if claimed <= state.counter() {
            return Ok(listing);
        }
        let before = format!(
            "{} claims to know {claimed} changes made in {}, whose own state knows {} only: one of them was brought back from a \
             backup, or does not tell the truth. Nothing of it was taken over. If it was a backup, ",
            escape(&self.facts.location),
            self.ours.root.path().display(),
            state.counter()
        );
        Err(SyncError::anew(before, "; if not, take that machine's grant back"))
    }

    /// A directory that goes stays where an ignored path is in it: that is what the user wants of ignored paths, and no
    /// failure. The rows tell nothing of those, so the disk is asked. What was removed from it is no edit of it: its time is
    /// set as it was before it is left.
    fn with_ignored_in_mind(&self, step: Step, staying: &mut Staying) -> (Option<Step>, Step) {
        let Some(ignored) = &self.terms.ignored else { return (None, step) };
        let Action::Remove { expect, learn, .. } = &step.action else { return (None, step) };
        let Step { ticket, path, .. } = &step;
        let below = staying.dirs.range(path.clone()..).next().is_some_and(|below| path.contains(below));
        if expect.object.kind() != Kind::Dir || !(below || self.holds_ignored(path, ignored)) {
            staying.emptied.extend(path.split().map(|(parent, _)| parent));
            return (None, step);
        }
        staying.dirs.insert(path.clone());
        let mtime_ns = expect.object.attrs.mtime_ns;
        let finish = staying.emptied.contains(path).then(|| {
            let action = Action::FinishDir { mtime_ns };
            Step { ticket: *ticket, path: path.clone(), action }
        });
        let action = Action::Leave { why: Open::Ignored, ours: Some(expect.clone()), theirs: None, known: learn.clone() };
        (finish, Step { action, ..step })
    }

    /// Whatever cannot be looked at here is told when the directory is to be removed.
    fn holds_ignored(&self, path: &RelPath, ignored: &session::Ignored) -> bool {
        let Ok(dir) = self.ours.root.dir(path) else { return false };
        let Ok(names) = dir.names() else { return false };
        names.iter().any(|name| {
            let is_dir = dir.stat(name).is_ok_and(|stat| stat.is_some_and(|stat| kind_of(&stat) == Some(Kind::Dir)));
            Name::parse(name).is_ok_and(|name| ignored(&path.join(&name), is_dir))
        })
    }

    /// Directories that stay for the sake of ignored paths, as [`OnePull::converse`] tells of them.
    fn stays(&self, step: &Step) -> bool {
        let Action::Leave { why: Open::Ignored, theirs: None, .. } = &step.action else { return false };
        self.terms.ignored.as_ref().is_some_and(|ignored| !ignored(&step.path, true))
    }

    /// Carries the pull out.
    fn carry_out(
        &self,
        terms: session::Terms,
        moves: Moves,
        gone: u64,
        monitor: &dyn Monitor,
    ) -> Result<(Outcome, Applied, BTreeSet<RelPath>), SyncError> {
        let source = self.theirs.source()?;
        let under_way = UnderWay::default();
        let context = Context {
            root: &self.ours.root,
            state: &self.ours.state,
            source: &*source,
            mask: self.terms.mask,
            keep_versions: self.keep_versions,
            monitor,
            side: self.here.index(),
            state_elsewhere: self.ours.state_elsewhere,
            under_way: &under_way,
            reserve: self.reserve,
        };
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watching = source.resumes().then(|| scope.spawn(|| look_on(&*source, &over, &under_way, monitor)));
            // Between two roots of this machine nothing is waited for.
            let overlapping = source.resumes().then_some(scope);
            // After a panic too: the scope waits for the thread.
            let _end = watching.map(|watching| EndOf { over: &over, thread: watching.thread().clone() });
            self.carry_out_from((context, overlapping), terms, moves, gone, monitor)
        })
    }

    fn carry_out_from<'s, 'e>(
        &self,
        (context, overlapping): (Context<'s>, Option<&'s Scope<'s, 'e>>),
        terms: session::Terms,
        moves: Moves,
        gone: u64,
        monitor: &dyn Monitor,
    ) -> Result<(Outcome, Applied, BTreeSet<RelPath>), SyncError> {
        let mut apply = None;
        let mut trees = BTreeSet::new();
        let mut moves = Some(moves);
        let mut staying = Vec::new();
        let mut spent = 0;
        let outcome = self.converse(terms, |step| {
            spent += survey::goes_with(self.ours, &step)?;
            if spent > gone {
                return Err(SyncError::Outrun(format!(
                    "{}: more would be deleted than was found out before ({gone} paths): the other root changed meanwhile, or does not \
                     tell the truth. What was done before is recorded; run again",
                    self.ours.root.path().display()
                )));
            }
            let step = self.left_unread(step);
            if let Action::RemoveTree { .. } = step.action {
                trees.insert(step.path.clone());
            } else if self.stays(&step) {
                staying.push(step.path.clone());
            }
            let apply = match &mut apply {
                Some(apply) => apply,
                // The private folders are made for the first step only: a pull of nothing touches nothing.
                none => {
                    let new = Apply::new(context, moves.take().unwrap_or_default())?;
                    none.insert(match overlapping {
                        Some(scope) => new.overlapping(scope),
                        None => new,
                    })
                }
            };
            Ok(apply.push(step)?)
        });
        if outcome.as_ref().is_err_and(|error| !matches!(error, SyncError::Outrun(_))) {
            // What is on its way for the next batch is not waited for. After an outrun the pull is tried again from the same source,
            // which stops for good.
            context.source.stop();
        }
        let outcome = match outcome {
            // Where the source fails while a step is taken, what was put in place before is recorded like anywhere else; where applying
            // itself failed, it has recorded what it could.
            Err(
                error @ (SyncError::Source(_)
                | SyncError::Guard(_)
                | SyncError::Anew(_)
                | SyncError::Outrun(_)
                | SyncError::Apply(ApplyError::Source(_))),
            ) => {
                apply.map_or(Ok(()), Apply::break_off)?;
                return Err(error);
            }
            outcome => outcome?,
        };
        let applied = match apply {
            Some(apply) => apply.finish()?,
            None => Applied { complete: true, ..Applied::default() },
        };
        if !self.again {
            self.tell_of(&staying, monitor);
        }
        Ok((outcome, applied, trees))
    }

    /// What is left for want of reading did not fail.
    fn left_unread(&self, step: Step) -> Step {
        match step.action {
            Action::NeedHash { .. } if self.reads == Reads::Little => {
                let action = Action::Leave { why: Open::Unread, ours: None, theirs: None, known: Arc::default() };
                Step { action, ..step }
            }
            _ => step,
        }
    }

    fn tell_of(&self, staying: &[RelPath], monitor: &dyn Monitor) {
        let Some(first) = staying.first() else { return };
        let root = self.ours.root.path().display();
        let more = if staying.len() > 1 { format!(", and {} more like it,", staying.len() - 1) } else { String::new() };
        monitor.notice(&format!("{root}: {first}{more} was deleted on the other side and stays for the ignored paths in it"));
    }

    /// Pulls, and pulls path by path what could not go as a whole directory.
    /// No more than `gone` paths may go: so many were measured, and whoever shows other rows now than then is not believed.
    pub(super) fn run(&self, moves: Moves, gone: u64, monitor: &dyn Monitor) -> Result<(Outcome, Applied), SyncError> {
        let (outcome, mut applied, trees) = self.carry_out(self.terms.clone(), moves, gone, monitor)?;
        let stuck = applied.incomplete.iter().any(|open| trees.contains(&open.path));
        if !stuck || applied.cancelled {
            return Ok((outcome, applied));
        }
        let mut terms = self.terms.clone();
        terms.whole_trees = false;
        let (outcome, second, _) = self.carry_out(terms, Moves::new(), gone, monitor)?;
        let first = applied.totals;
        applied = second;
        applied.totals.created += first.created;
        applied.totals.updated += first.updated;
        applied.totals.deleted += first.deleted;
        applied.totals.moved += first.moved;
        applied.totals.bytes += first.bytes;
        Ok((outcome, applied))
    }

    /// Remembers how far the source is incorporated, and which paths are open.
    pub(super) fn remember(&self, outcome: &Outcome, applied: &Applied) -> Result<(), SyncError> {
        if !self.terms.scope.is_empty() || applied.cancelled || self.ours.passing || self.facts.passing {
            return Ok(());
        }
        let (state, id) = (&self.ours.state, self.ours.record(&self.facts)?);
        let known = state.peer(id)?;
        let mut peer = known.clone().unwrap_or_default();
        peer.instance = self.facts.identity.instance;
        let walk_next = applied.truncated
            || applied.incomplete.len() > PENDING
            || applied.unread.is_everywhere()
            || !self.same_rules
            || self.terms.force.is_some()
            // All open paths are settled: one pull that looks at everything raises what is known.
            || (self.settling && nothing_open(applied));
        peer.incorporated = if walk_next { 0 } else { outcome.seq };
        // If only the first of the two transactions lasts, the next pull must look at too much, not at too little.
        let walk_first = walk_next && known.as_ref() != Some(&peer);
        if walk_first {
            state.put_peer(id, &peer)?;
        }
        let before = state.pending(id)?;
        let mut open = open_after(applied);
        conflicts::keep_decisions(&before, &mut open);
        if open != before {
            state.put_pending(id, &open)?;
        }
        if !walk_first && known.as_ref() != Some(&peer) {
            state.put_peer(id, &peer)?;
        }
        conflicts::forget_settled(self.ours, &self.facts, id)
    }
}

/// What a pull left open, by path. What waits to be read is not told twice.
fn open_after(applied: &Applied) -> Vec<Pending> {
    let unread = applied.unread.paths().map(|path| Pending {
        path: path.clone(),
        why: Some(Open::Unread),
        theirs: None,
        known: Vector::new(),
        decision: None,
    });
    let incomplete = applied.incomplete.iter().map(|open| Pending {
        path: open.path.clone(),
        why: open.why,
        theirs: open.theirs.clone(),
        known: open.known.clone(),
        decision: None,
    });
    let open: BTreeMap<RelPath, Pending> = unread.chain(incomplete).map(|open| (open.path.clone(), open)).collect();
    open.into_values().collect()
}

/// Was everything done?
pub(super) fn nothing_open(applied: &Applied) -> bool {
    applied.incomplete.is_empty() && applied.unread.count() == 0
}

/// Content that crosses a link may take long: meanwhile is told what is on its way, and the user's wish to stop does not wait for
/// the file under way.
fn look_on(source: &dyn Source, over: &AtomicBool, under_way: &UnderWay, monitor: &dyn Monitor) {
    let mut told = false;
    while !over.load(Ordering::Acquire) {
        if monitor.cancelled() {
            source.stop();
            break;
        }
        let files = under_way.now();
        if told || !files.is_empty() {
            told = !files.is_empty();
            monitor.on_their_way(&files);
        }
        thread::park_timeout(GLANCE);
    }
    if told {
        monitor.on_their_way(&[]);
    }
}

/// The union of the rules of both roots and of the run, and what is unavailable on either: what one side cannot or must
/// not see is unknown to both.
fn ignored(asked: &Terms<'_>) -> Option<session::Ignored> {
    let rules: Vec<Rules> = asked.rules.iter().chain([asked.run_rules]).filter(|rules| !rules.is_empty()).cloned().collect();
    let mut unavailable = asked.unavailable.to_vec();
    unavailable.sort();
    unavailable.dedup_by(|below, above| above.contains(below));
    if rules.is_empty() && unavailable.is_empty() {
        return None;
    }
    Some(Arc::new(move |path, dir| {
        // None contains another: the last one before the path is the one that may contain it. There may be thousands.
        let before = unavailable.partition_point(|missing| missing <= path);
        let is_missing = before.checked_sub(1).is_some_and(|at| unavailable[at].contains(path));
        is_missing || rules.iter().any(|rules| rules.ignores(path, dir))
    }))
}

/// What the user decided of single conflicts, at either root, about the versions that still stand.
fn decisions(
    ours: &Opened,
    theirs: &dyn There,
    facts: &Facts,
    record: ReplicaId,
) -> Result<BTreeMap<RelPath, reconcile::Policy>, SyncError> {
    let mut decisions = BTreeMap::new();
    let here = decided(&ours.state, record)?;
    let now = versions_there(theirs, &here)?;
    for open in here {
        if now.get(&open.path).cloned().unwrap_or_default() == open.about {
            decisions.insert(open.path, policy(open.decision, End::Here));
        }
    }
    let there = if facts.decisions { theirs.decided(ours.state.id())? } else { Vec::new() };
    for open in there {
        if ours.state.entry(&open.path)?.map(|entry| entry.row.m).unwrap_or_default() == open.about {
            decisions.insert(open.path, policy(open.decision, End::There));
        }
    }
    Ok(decisions)
}

/// Which versions stand there, by path; those of one directory are asked for at once.
fn versions_there(theirs: &dyn There, decided: &[Decided]) -> Result<BTreeMap<RelPath, Vector>, SyncError> {
    let mut names: BTreeMap<RelPath, BTreeSet<Name>> = BTreeMap::new();
    for (parent, name) in decided.iter().filter_map(|open| open.path.split()) {
        names.entry(parent).or_default().insert(name);
    }
    let mut versions = BTreeMap::new();
    for (parent, names) in names {
        let listing = theirs.listing(&parent, &Filter::Only(Arc::new(names.into_iter().collect())))?;
        let live = listing.children.into_iter().filter_map(|child| Some((parent.join(&child.name), child.row?.m)));
        versions.extend(live);
    }
    Ok(versions)
}

/// A decision made at `local`, as a policy of a pull.
fn policy(decision: Decision, local: End) -> reconcile::Policy {
    let remote = if local == End::Here { End::There } else { End::Here };
    match decision {
        Decision::Local => reconcile::Policy::Wins(local),
        Decision::Remote => reconcile::Policy::Wins(remote),
        Decision::Newer => reconcile::Policy::Newer,
        Decision::Both => reconcile::Policy::KeepBoth,
    }
}

/// Was nothing left but what an ignore rule covers? That keeps knowledge from being raised, and is in sync all the same.
pub(super) fn only_ignored(applied: &Applied) -> bool {
    let ignored = applied.incomplete.iter().all(|open| open.why == Some(Open::Ignored));
    ignored && !applied.incomplete.is_empty() && applied.unread.count() == 0 && !applied.truncated && !applied.cancelled
}

/// Was nothing left but conflicts that somebody is to decide, and what an ignore rule covers? Nothing comes of trying those again.
pub(super) fn only_conflicts(applied: &Applied) -> bool {
    let waits = applied.incomplete.iter().all(|open| matches!(open.why, Some(Open::Conflict | Open::Ignored)));
    waits && !applied.incomplete.is_empty() && applied.unread.count() == 0 && !applied.truncated && !applied.cancelled
}
