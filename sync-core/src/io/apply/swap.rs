//! The second half of a batch: intents, syncfs, renames, rows.

use super::areas::{Area, Areas};
use super::exchange::At;
use super::job::Job;
use super::ledger::Ledger;
use super::moves::Moves;
use super::prepare::{Prepared, Ready};
use super::rows::Rows;
use super::versions::{self, VersionError};
use super::{Applied, ApplyError, Context, Stop, check, late, place, unplace};
use crate::entry::{AttrMask, Kind, Signature};
use crate::io::fs::{COARSE_CLOCK_NS, Dir, FsError, Placement, Replace, coarse_now_ns};
use crate::io::generation;
use crate::io::kill::kill_point;
use crate::io::source::same_object;
use crate::io::stage::{Failure, Tree, remove_all};
use crate::io::state::{Batch, Intent, NewVersion, PlaceChange};
use crate::knowledge::{Creation, Event, Vector};
use crate::path::{Name, RelPath};
use crate::plan::Stamp;
use crate::report::Problem;
use crate::store::Change;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;

/// What is done and not recorded yet.
#[derive(Default)]
struct Pending {
    changes: Vec<Change>,
    settled: Vec<i64>,
    versions: Vec<NewVersion>,
    /// What does not lie elsewhere any more.
    unplaced: Vec<Arc<Placement>>,
    /// What lies elsewhere from now on.
    placed: Vec<RelPath>,
    /// S and M: recorded one transaction later than the rows they cover.
    raises: Vec<Change>,
    /// Staged objects that did not go anywhere: ours to delete once their intents are settled.
    rubbish: Vec<Rubbish>,
    /// The disk was changed: rows wait for a syncfs.
    on_disk: bool,
}

/// A staged object that did not go anywhere.
struct Rubbish {
    area: Rc<Area>,
    name: Vec<u8>,
    ino: u64,
}

/// Carries out staged batches, one after the other.
pub(super) struct Swapper<'a> {
    pub(super) context: Context<'a>,
    pub(super) rows: Rows<'a>,
    pub(super) moves: Moves,
    pub(super) areas: Areas<'a>,
    pending: Pending,
    /// Rubbish whose intents are settled, though perhaps not durably: after a power cut they could be there again.
    rubbish: Vec<Rubbish>,
    /// Are there stamps of what does not lie elsewhere any more, though perhaps not durably? After a power cut they could be asked
    /// for again.
    stamps_left: bool,
    pub(super) ledger: Ledger<'a>,
    /// The event of what this batch makes fresh.
    event: Option<Event>,
    /// The directory last used, open.
    last_dir: Option<(RelPath, Rc<Dir>)>,
    /// What this run displaced, to be looked at again for late writes.
    displaced: Vec<NewVersion>,
}

impl<'a> Swapper<'a> {
    pub(super) fn new(context: Context<'a>, moves: Moves) -> Result<Swapper<'a>, ApplyError> {
        Ok(Swapper {
            rows: Rows::new(context.state),
            areas: Areas::open(context.root, context.mask)?,
            context,
            moves,
            pending: Pending::default(),
            rubbish: Vec::new(),
            stamps_left: false,
            ledger: Ledger::new(context),
            event: None,
            last_dir: None,
            displaced: Vec::new(),
        })
    }

    /// Puts a staged batch in place, and records the one before.
    pub(super) fn run(&mut self, jobs: Vec<Job>) -> Result<(), ApplyError> {
        if jobs.is_empty() {
            return Ok(());
        }
        self.event = None;
        let ready = self.prepare(jobs)?;
        kill_point("batch-prepared");
        let touches_disk = ready.iter().any(|ready| ready.plan.is_some());
        if self.sync(touches_disk)? {
            // What was settled before the sync is settled for good.
            self.clear_rubbish()?;
        }
        kill_point("batch-synced");
        self.record()?;
        kill_point("batch-previous-committed");
        self.pending.on_disk = touches_disk;
        for ready in ready {
            self.carry_out(ready)?;
        }
        self.last_dir = None;
        kill_point("batch-swapped");
        Ok(())
    }

    /// Records the last batch durably, then what it allows to raise, and looks at what was displaced once more.
    pub(super) fn finish(mut self) -> Result<Applied, ApplyError> {
        kill_point("finish-swapped");
        self.sync(false)?;
        kill_point("finish-synced");
        self.record()?;
        kill_point("finish-committed");
        // What the last batch allows to raise; with it everything before becomes durable.
        let changes = std::mem::take(&mut self.pending.changes);
        self.context.state.commit(Batch { changes, ..Batch::default() }, true)?;
        kill_point("finish-raised");
        // So it does where there is nothing to raise.
        self.context.state.settle()?;
        kill_point("finish-settled");
        self.clear_rubbish()?;
        for item in self.moves.withheld() {
            self.ledger.done(Some(&item));
        }
        self.look_for_late_writes();
        kill_point("finish-late-checked");
        if self.context.keep_versions.is_none() {
            self.drop_versions()?;
        }
        Ok(self.ledger.close())
    }

    /// Records durably what was done, where the run ends in the middle. What it would allow to raise is not raised.
    pub(super) fn save(&mut self) -> Result<(), ApplyError> {
        self.sync(false)?;
        self.record()?;
        self.context.state.settle()?;
        self.clear_rubbish()
    }

    /// Makes durable what was staged, intended, swapped and recorded, if there is any; `true` if it did.
    fn sync(&mut self, staged: bool) -> Result<bool, ApplyError> {
        let needed = staged || self.pending.on_disk;
        if needed {
            self.context.root.sync_all()?;
            for area in self.areas.all().filter(|area| area.takes_sync()) {
                area.kept.sync_all()?;
                kill_point("batch-area-synced");
            }
            self.pending.on_disk = false;
        }
        Ok(needed)
    }

    /// Records what was done before the last syncfs; what it allows to raise comes with the next call.
    fn record(&mut self) -> Result<(), ApplyError> {
        let pending = &mut self.pending;
        let versions = std::mem::take(&mut pending.versions);
        let room = late::LATE_CHECKED.saturating_sub(self.displaced.len());
        self.displaced.extend(versions.iter().take(room).cloned());
        let changes = std::mem::take(&mut pending.changes);
        let settled = std::mem::take(&mut pending.settled);
        let unplaced = std::mem::take(&mut pending.unplaced);
        let placed = std::mem::take(&mut pending.placed);
        let gone = unplaced.iter().map(|placement| PlaceChange::Drop(placement.path.clone()));
        let places: Vec<_> = gone.chain(placed.iter().cloned().map(PlaceChange::Settle)).collect();
        // One transaction later than the rows they cover: in front of the next batch's.
        pending.changes = std::mem::take(&mut pending.raises);
        if !(changes.is_empty() && settled.is_empty() && versions.is_empty() && places.is_empty()) {
            unplace::remember_stamps(self.context.state, &unplaced)?;
            for (path, error) in generation::raise(self.context.root, self.context.state, &changes)? {
                self.ledger.problem(&path, "record", error.to_string());
            }
            let batch = Batch { changes, settled, versions, places };
            self.context.state.commit(batch, self.context.state_elsewhere)?;
        }
        self.stamps_left |= !unplaced.is_empty();
        place::settled(self.context.root, &placed);
        self.rubbish.append(&mut self.pending.rubbish);
        self.rows.recorded();
        Ok(())
    }

    fn clear_rubbish(&mut self) -> Result<(), ApplyError> {
        for Rubbish { area, name, ino } in std::mem::take(&mut self.rubbish) {
            let stage = area.stage.dir();
            // What an exchange brought out and could not be given back is not ours: recovery keeps it.
            if stage.stat(&name)?.is_some_and(|now| now.ino == ino) {
                remove_all(stage, &name)?;
            }
        }
        if std::mem::take(&mut self.stamps_left) {
            for Problem { path, step, error } in unplace::drop_stamps(self.context.root, self.context.state)? {
                self.ledger.problem(&path, step, error);
            }
        }
        kill_point("batch-rubbish-removed");
        Ok(())
    }

    /// A staged object is not going anywhere.
    pub(super) fn discard(&mut self, area: &Rc<Area>, tree: &Tree) {
        if let Some(Ok(staged)) = &tree.top.outcome {
            self.pending.rubbish.push(Rubbish { area: area.clone(), name: tree.staged.clone(), ino: staged.ino });
        }
    }

    /// A staged batch is not going anywhere: no intent speaks of it yet.
    pub(super) fn throw_away(&mut self, jobs: &[Job]) {
        for job in jobs {
            let Job::Place(tree) = job else { continue };
            let area = match tree.cold {
                None => self.areas.main().ok().cloned(),
                Some(cold) => self.areas.of_cold(cold).ok(),
            };
            // What lies where nobody can reach it goes when the root is opened again.
            if let Some(area) = area {
                self.discard(&area, tree);
            }
        }
    }

    fn look_for_late_writes(&mut self) {
        for kept in std::mem::take(&mut self.displaced) {
            let Context { root, state, monitor, .. } = self.context;
            let path = &kept.path;
            match late::bring_back_and_forget(root, state, &self.areas, &kept) {
                Ok(None) => {}
                Ok(Some(to)) => {
                    monitor.notice(&format!("{path} was written to while it went: kept as {to}"));
                }
                Err(stop) => {
                    let error = VersionError::from(stop).to_string();
                    self.ledger.problem(path, "look for late writes", error);
                }
            }
        }
    }

    /// Nothing is to be kept: what was displaced goes, now that all is recorded.
    fn drop_versions(&mut self) -> Result<(), ApplyError> {
        loop {
            let pruned = match versions::prune_at(self.context, i64::MAX, versions::PRUNE_OBJECTS) {
                Ok(pruned) => pruned,
                Err(VersionError::State(error)) => return Err(error.into()),
                Err(error) => {
                    self.ledger.problem(&RelPath::root(), "drop replaced versions", error.to_string());
                    return Ok(());
                }
            };
            for to in &pruned.brought_back {
                self.context.monitor.notice(&format!("a replaced version was written to while it went: kept as {to}"));
            }
            if !pruned.more {
                // What could not be removed was met again in each round.
                for Problem { path, step, error } in pruned.problems {
                    self.ledger.problem(&path, step, error);
                }
                return Ok(());
            }
        }
    }

    fn carry_out(&mut self, ready: Ready) -> Result<(), ApplyError> {
        match self.attempt(ready) {
            (_, Ok(())) => Ok(()),
            (job, Err(Stop::Across(failure))) => self.carry_out_across(job, &failure),
            (job, Err(stop)) => self.fail(job, stop),
        }
    }

    /// The path lies on another mount, whose area was not known yet: once more, from there.
    fn carry_out_across(&mut self, job: Job, failure: &Failure) -> Result<(), ApplyError> {
        let job = match job {
            Job::Move { tree, .. } | Job::MoveTree { tree, .. } => Job::Place(tree),
            job => job,
        };
        let path = match &job {
            Job::Place(tree) => tree.top.path.clone(),
            Job::Remove(removal) => removal.path.clone(),
            _ => return self.fail(job, Stop::Path(failure.clone())),
        };
        self.areas.discover(self.context.state, &path)?;
        self.last_dir = None;
        for ready in self.prepare(vec![job])? {
            self.sync(true)?;
            self.pending.on_disk = true;
            match self.attempt(ready) {
                (_, Ok(())) => {}
                (job, Err(Stop::Across(failure))) => self.fail(job, Stop::Path(failure))?,
                (job, Err(stop)) => self.fail(job, stop)?,
            }
        }
        Ok(())
    }

    fn fail(&mut self, job: Job, stop: Stop) -> Result<(), ApplyError> {
        match stop {
            Stop::Run(error) => return Err(error),
            Stop::Path(failure) | Stop::Across(failure) => self.ledger.failed(job, &failure, false),
            Stop::Left(failure) => self.ledger.failed(job, &failure, true),
        }
        Ok(())
    }

    fn attempt(&mut self, ready: Ready) -> (Job, Result<(), Stop>) {
        let Ready { job, plan, refused } = ready;
        if let Some(plan) = &plan {
            self.pending.settled.push(plan.id);
        }
        let done = match refused {
            Some(stop) => Err(stop),
            None => self.carry_out_job(&job, plan),
        };
        (job, done)
    }

    fn carry_out_job(&mut self, job: &Job, plan: Option<Prepared>) -> Result<(), Stop> {
        match (job, plan) {
            (Job::Place(tree), Some(plan)) => self.place(tree, plan),
            // The conflict copy that it would be stands there already.
            (Job::Place(tree), None) => {
                self.ledger.done(tree.top.item.as_ref());
                Ok(())
            }
            (Job::Move { tree, offer }, Some(plan)) => self.move_file(tree, offer, plan),
            (Job::MoveTree { tree, offer }, Some(plan)) => self.move_tree(tree, offer, plan),
            (Job::Attributes(change), Some(plan)) => self.set_attributes(change, plan),
            (Job::Remove(removal), plan) => self.remove(removal, plan),
            (Job::Finish { path, finish }, _) => self.finish_dir(path, *finish),
            (Job::Rows(step), _) => self.rows_only(step),
            (Job::Move { .. } | Job::MoveTree { .. } | Job::Attributes(_), None) => {
                Err(Failure::new("apply", "no intent was written for it").into())
            }
        }
    }

    fn place(&mut self, tree: &Tree, plan: Prepared) -> Result<(), Stop> {
        let path = plan.intent.path.clone();
        let Some(Ok(staged)) = tree.top.outcome else {
            return Err(Failure::new("apply", "it was not staged").into());
        };
        let (dir, name) = self.parent(&path)?;
        let at = At { path: &path, dir: &dir, name: &name };
        let placed = match &plan.intent.expect {
            None if tree.choice.is_some() => self.create_placed(tree, &plan.area, &at),
            None => self.create(tree, &plan.area, &at),
            Some(expected) => self.exchange(tree, &plan, expected, &at),
        };
        let displaced = placed?;
        if tree.top.object.kind() == Kind::Dir || plan.intent.expect.is_some() {
            self.last_dir = None;
        }
        let signature = self.settle(tree, &staged, &at);
        let Intent { mut changes, .. } = plan.intent;
        set_signature(&mut changes, &path, signature);
        if let Some(copy) = &plan.copy {
            changes.retain(|change| !matches!(change, Change::Put { path, .. } if path == copy));
        }
        changes.extend(displaced.change);
        self.did(changes, displaced.version);
        let mut failed = Vec::new();
        tree.each(&mut |incoming| match &incoming.outcome {
            Some(Err(failure)) => failed.push((incoming, failure)),
            _ => self.ledger.done(incoming.item.as_ref()),
        });
        for (incoming, failure) in failed {
            self.ledger.failed_incoming(incoming, failure);
        }
        Ok(())
    }

    fn create(&mut self, tree: &Tree, area: &Rc<Area>, at: &At<'_>) -> Result<Displacement, Stop> {
        self.rename_in(tree, area, at).inspect_err(|_| self.discard(area, tree))?;
        kill_point("create-after");
        Ok(Displacement::default())
    }

    fn rename_in(&self, tree: &Tree, area: &Area, at: &At<'_>) -> Result<(), Stop> {
        self.parent_lives(at.path)?;
        kill_point("create-before");
        match area.stage.dir().rename(&tree.staged, at.dir, at.name.as_bytes(), Replace::Never) {
            Ok(()) => Ok(()),
            Err(error) if error.source.kind() == ErrorKind::AlreadyExists => {
                let what = "something stands there that was not there when it was scanned";
                Err(Failure::new("create", what).into())
            }
            Err(error) => Err(check::refused(error, at.dir)),
        }
    }

    /// The signature of what was just put in place. It stands there now: what fails here is told, and recorded as staged.
    fn settle(&mut self, tree: &Tree, staged: &Signature, at: &At<'_>) -> Signature {
        match self.settled(tree, staged, at) {
            Ok(signature) => signature,
            Err(error) => {
                self.ledger.problem(at.path, error.action, error.to_string());
                *staged
            }
        }
    }

    /// A directory that its owner may not write gets its mode only now: renaming it took that right.
    fn settled(&self, tree: &Tree, staged: &Signature, at: &At<'_>) -> Result<Signature, FsError> {
        let name = at.name.as_bytes();
        let mut attrs = tree.top.object.attrs;
        if let (Some(finish), true) = (tree.finish, attrs.mode & 0o700 != 0o700) {
            attrs.mtime_ns = finish.mtime_ns;
            at.dir.set_attrs(name, &attrs, AttrMask { perms: true, ..self.context.mask })?;
            kill_point("create-attributes");
            return Ok(at.dir.stat(name)?.filter(|now| now.ino == staged.ino).unwrap_or(*staged));
        }
        Ok(after_rename(at.dir.stat(name)?, staged))
    }

    /// Version and creation of a row that a step makes.
    pub(super) fn stamped(&mut self, stamp: &Stamp) -> Result<(Vector, Creation), Stop> {
        Ok(match stamp {
            Stamp::Given { m, c } => (m.clone(), c.clone()),
            Stamp::Fresh { c } => {
                let event = self.event()?;
                (event.into(), c.clone().unwrap_or_else(|| event.into()))
            }
        })
    }

    /// The event of this batch: one for all that it decides.
    pub(super) fn event(&mut self) -> Result<Event, Stop> {
        Ok(match self.event {
            Some(event) => event,
            None => *self.event.insert(self.context.state.tick()?),
        })
    }

    /// S and M are raised, one transaction later than the rows they cover.
    pub(super) fn raise(&mut self, raise: Change) {
        self.pending.raises.push(raise);
    }

    /// Takes over what was done on the disk, to be recorded after the next syncfs.
    pub(super) fn did(&mut self, changes: Vec<Change>, version: Option<NewVersion>) {
        self.rows.overlay(&changes);
        self.pending.changes.extend(changes);
        self.pending.versions.extend(version);
    }

    /// What lies elsewhere from now on, to be recorded with the rows.
    pub(super) fn did_place(&mut self, path: RelPath) {
        self.pending.placed.push(path);
    }

    /// What does not lie elsewhere any more, to be recorded with the rows.
    pub(super) fn did_unplace(&mut self, placement: Arc<Placement>) {
        let root = self.context.root;
        root.set_places(root.places().without(&placement.path));
        // It may have been placed by the same batch.
        self.pending.placed.retain(|path| *path != placement.path);
        self.pending.unplaced.push(placement);
    }

    /// An intent stays until recovery looks at what is left of it.
    pub(super) fn unsettle(&mut self, id: i64) {
        self.pending.settled.retain(|settled| *settled != id);
    }

    /// A kept version went to another path before it was recorded, or after.
    pub(super) fn unkeep(&mut self, path: &RelPath, name: &[u8]) -> Result<(), Stop> {
        let before = self.pending.versions.len();
        self.pending.versions.retain(|kept| kept.name != name);
        self.displaced.retain(|kept| kept.name != name);
        if before == self.pending.versions.len() {
            let recorded = self.context.state.versions(path)?;
            for version in recorded.iter().filter(|version| version.kept.name == name) {
                self.context.state.forget_version(version.id)?;
            }
        }
        Ok(())
    }

    /// Opens the directory of a path.
    pub(super) fn parent(&mut self, path: &RelPath) -> Result<(Rc<Dir>, Name), Stop> {
        let at_root = || Failure::new("apply", "the root itself is not replaced");
        let (parent, name) = path.split().ok_or_else(at_root)?;
        Ok((self.open(&parent)?, name))
    }

    /// Opens a directory.
    pub(super) fn open(&mut self, path: &RelPath) -> Result<Rc<Dir>, Stop> {
        if let Some((last, dir)) = &self.last_dir
            && last == path
        {
            let dir = dir.clone();
            self.uses(&dir);
            return Ok(dir);
        }
        let dir = Rc::new(self.context.root.dir(path)?);
        self.uses(&dir);
        self.last_dir = Some((path.clone(), dir.clone()));
        Ok(dir)
    }

    /// A directory is about to be changed, as far as anybody knows. Said each time, since each sync begins anew: one that was opened
    /// before a sync may be changed after it.
    pub(super) fn uses(&self, dir: &Dir) {
        if let Some(placement) = dir.placement() {
            self.areas.use_cold(placement.cold.id);
        }
    }

    /// Directories changed their places: open ones may be others than their paths say.
    pub(super) fn forget_dirs(&mut self) {
        self.last_dir = None;
    }

    /// A live node has a live directory as parent.
    pub(super) fn parent_lives(&self, path: &RelPath) -> Result<(), Stop> {
        let Some(parent) = path.parent().filter(|parent| !parent.is_root()) else { return Ok(()) };
        match self.rows.current(&parent)? {
            Some(live) if live.row.object.kind() == Kind::Dir => Ok(()),
            _ => Err(Failure::new("create", "its directory is not there").into()),
        }
    }
}

/// Where the object went that a swap displaced.
#[derive(Default)]
pub(super) struct Displacement {
    /// Its kept version.
    pub(super) version: Option<NewVersion>,
    /// Its row as a conflict copy.
    pub(super) change: Option<Change>,
}

/// The signature to record for an object after its rename: the disk's, unless it was changed since; then the
/// staged one, so that the next scan sees the change.
pub(super) fn after_rename(now: Option<Signature>, staged: &Signature) -> Signature {
    match now {
        Some(mut now) if same_object(&now, staged) && (now.mode, now.uid, now.gid) == (staged.mode, staged.uid, staged.gid) => {
            // A write in the tick of a modification time as young as this would leave no trace.
            now.racy = now.mtime_ns >= coarse_now_ns() - COARSE_CLOCK_NS;
            now
        }
        _ => *staged,
    }
}

/// Gives the row that a list of changes puts at `path` its signature.
pub(super) fn set_signature(changes: &mut [Change], at: &RelPath, now: Signature) {
    for change in changes {
        if let Change::Put { path, signature, .. } = change
            && path == at
        {
            *signature = now;
        }
    }
}
