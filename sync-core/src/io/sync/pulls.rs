//! The two pulls of a run: the engine's conversation fed from two states, its steps handed to apply, and what is
//! remembered of them afterwards.

use super::guard::Guard;
use super::roots::{self, Opened, Pair};
use super::survey::{self, Survey};
use super::{Options, Side, SyncError, Totals};
use crate::entry::Kind;
use crate::ignore::Rules;
use crate::io::apply::{Applied, Apply, Context, Moves};
use crate::io::source::{LocalSource, kind_of};
use crate::io::state::{Decision, Pending, State};
use crate::knowledge::ReplicaId;
use crate::path::{Name, RelPath};
use crate::plan::{Action, Open, Step};
use crate::reconcile::{self, End};
use crate::report::{Monitor, Problem};
use crate::session::{self, Outcome, Poll, Pull};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Pulls into one root in a run, at the most: a pull that makes events needs one back.
const PULLS: usize = 4;
/// Beyond so many open paths the next pull looks at everything instead of asking for them by name.
const PENDING: usize = 10_000;

/// What the user asked for, as the pulls need it.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) options: &'a Options,
    pub(super) run_rules: &'a Rules,
    /// Where either root misses a file system that was mounted there.
    pub(super) unavailable: &'a [RelPath],
}

/// What the pulls of a run achieved.
#[derive(Default)]
pub(super) struct Pulled {
    pub(super) totals: [Totals; 2],
    pub(super) problems: Vec<(Side, Problem)>,
    pub(super) complete: bool,
    pub(super) cancelled: bool,
    /// Why no further pull was begun.
    pub(super) stopped: Option<SyncError>,
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
    pub(super) theirs: &'a Opened,
    pub(super) terms: session::Terms,
    /// Paths were left open before: see [`session::Terms::may_raise`].
    settling: bool,
    keep_versions: Option<Duration>,
    /// Do both roots obey the same ignore rules?
    same_rules: bool,
    /// It is not the first pull into this root: what it leaves for ignored paths was told.
    again: bool,
}

impl<'a> OnePull<'a> {
    pub(super) fn new(pair: &'a Pair, here: Side, asked: &Terms<'_>) -> Result<OnePull<'a>, SyncError> {
        let (ours, theirs) = (&pair.sides[here.index()], &pair.sides[here.other().index()]);
        let options = asked.options;
        let mut terms = session::Terms::everything(options.conflicts.naming(|side| side.end(here)), options.mask);
        terms.force = options.force.map(|side| side.end(here));
        terms.scope = options.paths.clone();
        terms.ignored = ignored(pair, asked);
        let pending = ours.state.pending(theirs.state.id())?;
        terms.decided = Arc::new(decisions(ours, theirs, &pending)?);
        let same_rules = pair.rules[0].text() == pair.rules[1].text();
        let peer = ours.state.peer(theirs.state.id())?;
        let known = peer.filter(|peer| peer.instance == theirs.state.instance() && peer.incorporated > 0);
        let increments = known.filter(|_| options.force.is_none() && options.paths.is_empty() && same_rules);
        let settling = increments.is_some() && !pending.is_empty();
        if let Some(peer) = increments {
            let also: BTreeSet<RelPath> = pending.into_iter().map(|pending| pending.path).collect();
            terms.since = Some((peer.incorporated, Arc::new(also)));
        }
        terms.may_raise = same_rules && !settling;
        Ok(OnePull { here, ours, theirs, terms, settling, keep_versions: options.keep_versions, same_rules, again: false })
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
                    let opened = if of == End::There { self.theirs } else { self.ours };
                    pull.supply(opened.state.listing(&path, &filter)?);
                }
                Poll::Step(next) => {
                    let (before, next) = self.with_ignored_in_mind(next, &mut staying);
                    before.into_iter().chain([next]).try_for_each(&mut step)?;
                }
                Poll::Done(outcome) => return Ok(outcome),
            }
        }
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
        monitor: &dyn Monitor,
    ) -> Result<(Outcome, Applied, BTreeSet<RelPath>), SyncError> {
        let source = LocalSource::new(&self.theirs.root, &self.theirs.state);
        let context = Context {
            root: &self.ours.root,
            state: &self.ours.state,
            source: &source,
            mask: self.terms.mask,
            keep_versions: self.keep_versions,
            monitor,
            side: self.here.index(),
            state_elsewhere: self.ours.state_elsewhere,
        };
        let mut apply = None;
        let mut trees = BTreeSet::new();
        let mut moves = Some(moves);
        let mut staying = Vec::new();
        let outcome = self.converse(terms, |step| {
            if let Action::RemoveTree { .. } = step.action {
                trees.insert(step.path.clone());
            } else if self.stays(&step) {
                staying.push(step.path.clone());
            }
            let apply = match &mut apply {
                Some(apply) => apply,
                // The private folders are made for the first step only: a pull of nothing touches nothing.
                none => none.insert(Apply::new(context, moves.take().unwrap_or_default())?),
            };
            Ok(apply.push(step)?)
        })?;
        let applied = match apply {
            Some(apply) => apply.finish()?,
            None => Applied { complete: true, ..Applied::default() },
        };
        if !self.again {
            self.tell_of(&staying, monitor);
        }
        Ok((outcome, applied, trees))
    }

    fn tell_of(&self, staying: &[RelPath], monitor: &dyn Monitor) {
        let Some(first) = staying.first() else { return };
        let root = self.ours.root.path().display();
        let more = if staying.len() > 1 { format!(", and {} more like it,", staying.len() - 1) } else { String::new() };
        monitor.notice(&format!("{root}: {first}{more} was deleted on the other side and stays for the ignored paths in it"));
    }

    /// Pulls, and pulls path by path what could not go as a whole directory.
    fn run(&self, moves: Moves, monitor: &dyn Monitor) -> Result<(Outcome, Applied), SyncError> {
        let (outcome, mut applied, trees) = self.carry_out(self.terms.clone(), moves, monitor)?;
        let stuck = applied.incomplete.iter().any(|open| trees.contains(&open.path));
        if !stuck || applied.cancelled {
            return Ok((outcome, applied));
        }
        let mut terms = self.terms.clone();
        terms.whole_trees = false;
        let (outcome, second, _) = self.carry_out(terms, Moves::new(), monitor)?;
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
    fn remember(&self, outcome: &Outcome, applied: &Applied) -> Result<(), SyncError> {
        if !self.terms.scope.is_empty() || applied.cancelled || self.ours.passing || self.theirs.passing {
            return Ok(());
        }
        let (state, id) = (&self.ours.state, self.theirs.state.id());
        let known = state.peer(id)?;
        let mut peer = known.clone().unwrap_or_default();
        let open: Vec<Pending> = applied
            .incomplete
            .iter()
            .map(|open| Pending {
                path: open.path.clone(),
                why: open.why,
                theirs: open.theirs.clone(),
                known: open.known.clone(),
                decision: None,
            })
            .collect();
        peer.instance = self.theirs.state.instance();
        let walk_next = applied.truncated
            || open.len() > PENDING
            || !self.same_rules
            || self.terms.force.is_some()
            // All open paths are settled: one pull that looks at everything raises what is known.
            || (self.settling && open.is_empty());
        peer.incorporated = if walk_next { 0 } else { outcome.seq };
        // If only the first of the two transactions lasts, the next pull must look at too much, not at too little.
        let walk_first = walk_next && known.as_ref() != Some(&peer);
        if walk_first {
            state.put_peer(id, &peer)?;
        }
        let before = state.pending(id)?;
        if !(before.is_empty() && open.is_empty()) {
            let mut open = open;
            for path in &mut open {
                let old = before.iter().find(|old| old.path == path.path);
                path.decision = old.filter(|old| same_version(old, path)).and_then(|old| old.decision);
            }
            state.put_pending(id, &open)?;
        }
        if !walk_first && known.as_ref() != Some(&peer) {
            state.put_peer(id, &peer)?;
        }
        Ok(())
    }
}

fn same_version(a: &Pending, b: &Pending) -> bool {
    a.theirs.as_ref().map(|row| &row.m) == b.theirs.as_ref().map(|row| &row.m)
}

/// The union of the rules of both roots and of the run, and what is unavailable on either: what one side cannot or must
/// not see is unknown to both.
fn ignored(pair: &Pair, asked: &Terms<'_>) -> Option<session::Ignored> {
    let rules: Vec<Rules> = pair.rules.iter().chain([asked.run_rules]).filter(|rules| !rules.is_empty()).cloned().collect();
    let unavailable = asked.unavailable.to_vec();
    if rules.is_empty() && unavailable.is_empty() {
        return None;
    }
    Some(Arc::new(move |path, dir| {
        unavailable.iter().any(|missing| missing.contains(path)) || rules.iter().any(|rules| rules.ignores(path, dir))
    }))
}

/// The key under which a root remembers which version of its own a decision was about.
pub(super) fn decided_on(other: ReplicaId, path: &RelPath) -> String {
    format!("sync.decided.{other}.{}", blake3::hash(path.as_bytes()).to_hex())
}

/// The version that stands at a path, in a form to compare.
pub(super) fn version_of(opened: &Opened, path: &RelPath) -> Result<Vec<u8>, SyncError> {
    version(&opened.state, path)
}

/// As [`version_of`], of a state alone.
pub(super) fn version(state: &State, path: &RelPath) -> Result<Vec<u8>, SyncError> {
    let m = state.entry(path)?.map(|entry| entry.row.m).unwrap_or_default();
    Ok(m.iter().flat_map(|event| [&event.replica.0[..], &event.counter.to_le_bytes()].concat()).collect())
}

/// What the user decided of single conflicts, at either root, about the versions that still stand.
fn decisions(ours: &Opened, theirs: &Opened, pending: &[Pending]) -> Result<BTreeMap<RelPath, reconcile::Policy>, SyncError> {
    let mut decided = BTreeMap::new();
    let there = theirs.state.pending(ours.state.id())?;
    let both = [(pending, theirs, End::Here), (&there[..], ours, End::There)];
    for (pending, other, local) in both {
        let remote = if local == End::Here { End::There } else { End::Here };
        for open in pending {
            let Some(decision) = open.decision else { continue };
            let now = other.state.entry(&open.path)?;
            let here = if local == End::Here { ours } else { theirs };
            if here.state.meta(&decided_on(other.state.id(), &open.path))? != Some(version_of(here, &open.path)?) {
                continue;
            }
            if now.as_ref().map(|entry| &entry.row.m) != open.theirs.as_ref().map(|row| &row.m) {
                continue;
            }
            let policy = match decision {
                Decision::Local => reconcile::Policy::Wins(local),
                Decision::Remote => reconcile::Policy::Wins(remote),
                Decision::Newer => reconcile::Policy::Newer,
                Decision::Both => reconcile::Policy::KeepBoth,
            };
            decided.insert(open.path.clone(), policy);
        }
    }
    Ok(decided)
}

/// Pulls B from A, then A from B, and on while a pull made events that the other side must hear of.
pub(super) fn both(pair: &Pair, asked: &Terms<'_>, survey: Survey, monitor: &dyn Monitor) -> Result<Pulled, SyncError> {
    let mut pulled = Pulled { complete: true, ..Pulled::default() };
    let mut guard = Guard::new(pair, asked.options.max_delete)?;
    let surveyed = survey.totals();
    let mut moves = survey.into_moves();
    let mut whole = [false, false];
    let mut due = [true, true];
    let mut pulls = [0, 0];
    while let Some(here) = [Side::B, Side::A].into_iter().find(|side| due[side.index()]) {
        let at = here.index();
        if pulls[at] == PULLS {
            break;
        }
        let (counter, live) = (pair.sides[at].state.counter(), pair.sides[at].state.live()?);
        let mut pull = OnePull::new(pair, here, asked)?;
        pull.again = pulls[at] > 0;
        // The survey was made before anything was done: every pull but the first is measured as it is now.
        let planned = match pulls {
            [0, 0] => surveyed[at].deleted,
            _ => survey::deletions(&pull, |deleted| guard.check(pair, here, deleted).is_ok())?,
        };
        if let Err(stopped) = guard.check(pair, here, planned) {
            pulled.stopped = Some(stopped);
            break;
        }
        roots::note_seen(pull.ours, pull.theirs)?;
        let (outcome, applied) = pull.run(std::mem::take(&mut moves[at]), monitor)?;
        pull.remember(&outcome, &applied)?;
        guard.done(pair, here, (planned, applied.totals.created + applied.totals.conflicts, live))?;
        // In a second pull the same open paths are met again: they count once.
        add(&mut pulled, here, &applied, pulls[at] == 0);
        pulls[at] += 1;
        let whole_walk = outcome.complete || !pull.terms.may_raise || !pull.terms.scope.is_empty();
        whole[at] = (applied.complete && whole_walk) || only_ignored(&applied);
        if applied.cancelled {
            pulled.cancelled = true;
            break;
        }
        // Once all open paths are settled, a pull that looks at everything raises what is known.
        due[at] = pull.settling && applied.incomplete.is_empty();
        due[1 - at] |= pair.sides[at].state.counter() > counter;
    }
    pulled.complete = !pulled.cancelled && pulled.stopped.is_none() && whole == [true, true];
    Ok(pulled)
}

/// Was nothing left but what an ignore rule covers? That keeps knowledge from being raised, and is in sync all the same.
fn only_ignored(applied: &Applied) -> bool {
    let ignored = applied.incomplete.iter().all(|open| open.why == Some(Open::Ignored));
    ignored && !applied.incomplete.is_empty() && !applied.truncated && !applied.cancelled
}

fn add(pulled: &mut Pulled, here: Side, applied: &Applied, count_open: bool) {
    let mut totals = applied.totals;
    if !count_open {
        totals.conflicts = 0;
        totals.skipped = 0;
        totals.failed = 0;
    } else {
        pulled.problems.extend(applied.problems.iter().map(|problem| (here, problem.clone())));
    }
    pulled.totals[here.index()].add(&totals);
}
