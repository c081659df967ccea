//! Carries out the steps of a pull at one root ("here") with content of another ("there"), so that neither a crash
//! nor a user's simultaneous edit loses anything.
//!
//! Steps are done in batches. A batch is staged, its intents are written, one syncfs makes both durable, together
//! with the renames of the batch before; then the batch before is recorded, and this one's renames are made. So rows
//! never reach the disk before the renames that they describe, and every rename that did without its rows is
//! explained by an intent. While one batch is swapped and recorded, the next is staged.

mod across;
mod adopt;
mod alike;
mod amend;
mod areas;
mod check;
mod exchange;
mod job;
mod keeper;
mod late;
mod ledger;
mod moves;
mod names;
mod place;
mod prepare;
mod recover;
mod relocate;
mod remove;
mod rows;
mod swap;
mod unplace;
mod unread;
mod versions;

pub use adopt::{Inherited, adopt, inherit};
pub use areas::{STAGE, VERSIONS};
pub(crate) use keeper::Keeper;
pub use late::{LATE_AGE, Late, check_late};
pub use moves::{Moves, OFFERS};
pub use recover::{Recovered, recover};
pub use unread::{UNREAD, Unread};
pub use versions::{PRUNE_OBJECTS, Pruned, VersionError, list, prune, restore};

use crate::entry::{AttrMask, Content};
use crate::io::channel::ChannelError;
use crate::io::fs::{ColdId, FsError, Root, supports_exchange};
use crate::io::kill::kill_point;
use crate::io::source::{Source, SourceError};
use crate::io::stage::{BLOCK_BYTES, Failure, SPARE_BYTES, Stage, Supply, Tree, UnderWay, shortfall};
use crate::io::state::{State, StateError};
use crate::knowledge::{Row, Vector};
use crate::path::RelPath;
use crate::plan::{Action, Open, Step, Totals};
use crate::report::{Monitor, Problem};
use crate::reserve::Reserve;
use alike::Alike;
use areas::Areas;
use job::Job;
use moves::Offer;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};
use swap::Swapper;

/// Steps of a batch; a batch ends at the next new directory after so many, so that directories are staged whole.
pub const BATCH_STEPS: usize = 4_000;
/// Steps of a batch at the most, but for a directory that moves as one.
pub const BATCH_STEPS_MAX: usize = 8_000;
/// Content bytes of a batch; a larger file is a batch of its own.
pub const BATCH_BYTES: u64 = 64 * 1024 * 1024;
/// A batch is not held back longer than this for more steps.
pub const BATCH_TIME: Duration = Duration::from_millis(250);
/// Steps of a directory that moves as one; a larger one is copied.
pub const MOVE_STEPS: usize = 200_000;
/// Problems reported; more are counted only.
pub const PROBLEMS: usize = 10_000;
/// Incomplete paths listed; beyond, [`Applied::truncated`] is set.
pub const INCOMPLETE: usize = 100_000;

/// Why applying had to stop as a whole. What was done before is recorded, or explained by intents.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The root's file system failed where no single path is to blame.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The state here cannot be read or written.
    #[error("cannot use the state of the root: {0}")]
    State(#[from] StateError),
    /// The source cannot record what was learned from it.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The file system of the root cannot rename as a safe change needs it.
    #[error(
        "cannot change {} safely: its file system knows no rename that exchanges two names, or none that refuses to replace \
         (renameat2 with RENAME_EXCHANGE, RENAME_NOREPLACE), and without them an edit made at the same moment would be \
         overwritten; nothing was changed. Use a folder on a local file system such as ext4, xfs, btrfs or tmpfs, or run \
         driftless on the machine that serves this one",
        crate::path::escape(.0.as_os_str().as_bytes())
    )]
    Renames(PathBuf),
}

/// Refuses a root whose file system has no exchange of two names, or no rename that never replaces. To be called when a
/// root is opened to be changed.
///
/// # Errors
/// [`ApplyError::Renames`].
pub fn check_renames(root: &Root) -> Result<(), ApplyError> {
    match supports_exchange(root) {
        Ok(false) => Err(ApplyError::Renames(root.path().to_owned())),
        // Where nothing can be written, nothing can be tried, and no change can be made: each will say why.
        Ok(true) | Err(_) => Ok(()),
    }
}

/// What ends a step: the path failed, or the whole run must stop.
#[derive(Debug)]
enum Stop {
    /// This path failed; the others go on.
    Path(Failure),
    /// The path is left as it is.
    Left(Failure),
    /// A rename would leave its mount.
    Across(Failure),
    /// Nothing can go on.
    Run(ApplyError),
}

impl Stop {
    /// Why, in words.
    fn reason(&self) -> String {
        match self {
            Stop::Path(failure) | Stop::Left(failure) | Stop::Across(failure) => failure.reason.clone(),
            Stop::Run(error) => error.to_string(),
        }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Path(failure)
    }
}

impl From<FsError> for Stop {
    fn from(error: FsError) -> Stop {
        let failure = Failure { step: error.action, reason: error.to_string() };
        match error.source.kind() {
            ErrorKind::CrossesDevices => Stop::Across(failure),
            _ => Stop::Path(failure),
        }
    }
}

impl From<StateError> for Stop {
    fn from(error: StateError) -> Stop {
        Stop::Run(error.into())
    }
}

/// All that applying needs to know.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The root that changes.
    pub root: &'a Root,
    /// Its rows.
    pub state: &'a State,
    /// Where content comes from.
    pub source: &'a dyn Source,
    /// Replicated attributes.
    pub mask: AttrMask,
    /// How long displaced objects are kept; `None`: until the end of the run.
    pub keep_versions: Option<Duration>,
    /// Is told of progress.
    pub monitor: &'a dyn Monitor,
    /// Which side this root is, for the monitor.
    pub side: usize,
    /// The state lies on another file system than the root, so that the root's syncfs does not reach it.
    pub state_elsewhere: bool,
    /// Where is shown what is on its way.
    pub under_way: &'a UnderWay,
    /// What stays free where content comes to.
    pub reserve: Reserve,
}

impl<'a> Context<'a> {
    /// What staging needs.
    fn supply(&self) -> Supply<'a> {
        Supply { here: self.root, source: self.source, under_way: self.under_way, reserve: self.reserve }
    }
}

/// A path that is not as the plan wanted it: it stands in the pending table until it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Incomplete {
    /// Which path.
    pub path: RelPath,
    /// `None`: it failed; else why it was left.
    pub why: Option<Open>,
    /// Its version at the source, if it is live there.
    pub theirs: Option<Row>,
    /// What the source knew of the path.
    pub known: Vector,
    /// In words.
    pub reason: String,
}

/// What became of a pull.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// Numbers.
    pub totals: Totals,
    /// Paths that failed, up to [`PROBLEMS`].
    pub problems: Vec<Problem>,
    /// Paths that are not done, up to [`INCOMPLETE`].
    pub incomplete: Vec<Incomplete>,
    /// Paths whose bytes are to be read first, which are not listed there.
    pub unread: Unread,
    /// There were more incomplete paths than are listed.
    pub truncated: bool,
    /// The monitor asked to stop, and steps were left out.
    pub cancelled: bool,
    /// Every step was carried out, and none was left.
    pub complete: bool,
}

/// Carries out the steps of one pull: [`Apply::push`] them in the order of their tickets, then [`Apply::finish`].
pub struct Apply<'a, 'e> {
    context: Context<'a>,
    /// Where batches are staged while others are, if that is wanted.
    scope: Option<&'a Scope<'a, 'e>>,
    /// The batch that is staged while the steps of the next one come in.
    filling: Option<Filling<'a>>,
    swapper: Swapper<'a>,
    steps: Vec<Step>,
    bytes: u64,
    since: Option<Instant>,
    moving: HashMap<RelPath, Offer>,
    /// The directory that moves as one, while its steps come in.
    moving_now: Option<RelPath>,
    staged: Option<Vec<Job>>,
    /// Looked at when large content comes over a link for the first time.
    alike: Option<Alike>,
    cancelled: bool,
}

/// A batch that a thread of its own stages.
struct Filling<'a> {
    thread: ScopedJoinHandle<'a, Filled>,
    /// What it takes on the disk, at the most.
    bytes: u64,
}

/// A batch that was staged.
struct Filled {
    jobs: Vec<Job>,
    /// The source did not fail meanwhile.
    whole: bool,
}

impl<'a, 'e> Apply<'a, 'e> {
    /// Begins. `moves` knows what the plan removes ([`Moves::new`] if moves are not to be recognised).
    ///
    /// # Errors
    /// The private folders of the root cannot be made.
    pub fn new(context: Context<'a>, moves: Moves) -> Result<Apply<'a, 'e>, ApplyError> {
        Ok(Apply {
            context,
            scope: None,
            filling: None,
            swapper: Swapper::new(context, moves)?,
            steps: Vec::new(),
            bytes: 0,
            since: None,
            moving: HashMap::new(),
            moving_now: None,
            staged: None,
            alike: None,
            cancelled: false,
        })
    }

    /// From now on content is asked for while that of the batch before is still on its way, on threads of this scope: between two
    /// batches the link would stand still for a round trip and more.
    #[must_use]
    pub fn overlapping(self, scope: &'a Scope<'a, 'e>) -> Apply<'a, 'e> {
        Apply { scope: Some(scope), ..self }
    }

    /// Takes the next step; carries out a batch when one is full. After the monitor asked to stop, steps are dropped.
    ///
    /// # Errors
    /// The run as a whole cannot go on.
    pub fn push(&mut self, step: Step) -> Result<(), ApplyError> {
        if self.cancelled {
            return Ok(());
        }
        let bytes = content_bytes(&step);
        if self.ends_before(&step, bytes) {
            self.turn()?;
            if self.cancelled {
                return Ok(());
            }
        }
        self.look_for_move(&step)?;
        self.since.get_or_insert_with(Instant::now);
        self.bytes += bytes;
        self.steps.push(step);
        Ok(())
    }

    /// Carries out what is left, records everything durably and says what was achieved.
    ///
    /// # Errors
    /// The run as a whole cannot go on.
    pub fn finish(mut self) -> Result<Applied, ApplyError> {
        if !self.cancelled {
            self.turn()?;
        }
        if let Some(last) = self.filling.take() {
            self.put_in_place(last)?;
        }
        self.context.source.settle()?;
        if let Some(jobs) = self.staged.take() {
            self.swapper.run(jobs)?;
        }
        let mut applied = self.swapper.finish()?;
        applied.cancelled = self.cancelled;
        applied.complete &= !self.cancelled;
        Ok(applied)
    }

    /// Records durably what was done, where no more steps come because something failed outside. What was staged since goes.
    ///
    /// # Errors
    /// The run as a whole cannot go on.
    pub fn break_off(mut self) -> Result<(), ApplyError> {
        if let Some(last) = self.filling.take() {
            // A panic in staging is a defect: it goes on in the caller's thread.
            let Filled { jobs, .. } = last.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.swapper.throw_away(&jobs);
        }
        if let Some(jobs) = self.staged.take() {
            self.swapper.throw_away(&jobs);
        }
        self.swapper.save()
    }

    /// Must the batch end before this step?
    fn ends_before(&mut self, step: &Step, bytes: u64) -> bool {
        if let Some(top) = &self.moving_now {
            if top.contains(&step.path) && self.steps.len() < MOVE_STEPS {
                return false;
            }
            self.moving_now = None;
        }
        if self.steps.is_empty() {
            return false;
        }
        let full = self.steps.len() >= BATCH_STEPS_MAX || self.bytes + bytes > BATCH_BYTES;
        // Something new begins: what comes now would not be staged with what came before anyway.
        let seam = creates_dir(step);
        let ripe = self.steps.len() >= BATCH_STEPS || self.since.is_some_and(|since| since.elapsed() >= BATCH_TIME);
        full || (ripe && seam) || self.since.is_some_and(|since| since.elapsed() >= 2 * BATCH_TIME)
    }

    /// Is a directory to be created that stands here already, under a path that goes?
    fn look_for_move(&mut self, step: &Step) -> Result<(), ApplyError> {
        if self.moving_now.is_some() || !self.swapper.moves.has_trees() {
            return Ok(());
        }
        let Action::Write { from, expect: None, .. } = &step.action else { return Ok(()) };
        if !creates_dir(step) || *from != step.path {
            return Ok(());
        }
        let digest = self.context.source.digest(from)?;
        if let Some(offer) = self.swapper.moves.claim_tree(&digest, &step.path) {
            self.moving.insert(step.path.clone(), offer);
            self.moving_now = Some(step.path.clone());
        }
        Ok(())
    }

    /// Content that crosses a link may stand here under another path.
    fn look_for_alike(&mut self, jobs: &mut [Job]) -> Result<(), ApplyError> {
        if !self.context.source.resumes() {
            return Ok(());
        }
        let mut failed = None;
        for job in jobs {
            let Job::Place(tree) = job else { continue };
            tree.each_mut(&mut |incoming| {
                let Content::File { size, .. } = incoming.object.content else { return };
                if incoming.expect.is_some() || !Alike::counts(size) || failed.is_some() {
                    return;
                }
                match &self.alike {
                    Some(alike) => incoming.alike = alike.find(size).cloned(),
                    None => match Alike::of(self.context.state) {
                        Ok(alike) => incoming.alike = self.alike.insert(alike).find(size).cloned(),
                        Err(error) => failed = Some(error),
                    },
                }
            });
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Stages the steps at hand while the batch before them is put in place.
    fn turn(&mut self) -> Result<(), ApplyError> {
        // Every object takes a block at the least, and what it is not full of.
        let room = std::mem::take(&mut self.bytes).saturating_add(BLOCK_BYTES * self.steps.len() as u64);
        self.since = None;
        self.moving_now = None;
        let steps = std::mem::take(&mut self.steps);
        let moving = std::mem::take(&mut self.moving);
        let mut jobs = job::group(steps, &mut self.swapper.moves, moving);
        place::choose(self.context.root, &mut jobs);
        self.look_for_alike(&mut jobs)?;
        // Without a folder to stage in, each step that needs one says so when it is prepared.
        let stages = Stages::of(&self.swapper.areas);
        let (source, supply) = (self.context.source, self.context.supply());
        if let Some(scope) = self.scope {
            return self.stage_meanwhile(scope, stages, jobs, room);
        }
        let mut failed = None;
        match self.staged.take() {
            None => stages.fill(supply, &mut jobs),
            Some(before) => {
                let swapper = &mut self.swapper;
                thread::scope(|scope| {
                    let filling = scope.spawn(|| stages.fill(supply, &mut jobs));
                    let settled = match source.settle() {
                        // Perhaps while this batch was staged: the one before is whole.
                        Err(error) if error.is_lost_connection() => {
                            failed = Some(error);
                            Ok(())
                        }
                        settled => settled,
                    };
                    let swapped = settled.map_err(ApplyError::from).and_then(|()| swapper.run(before));
                    // A panic in staging is a defect: it goes on in the caller's thread.
                    filling.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    swapped
                })?;
            }
        }
        batch_staged();
        if let Err(lost) = source.alive() {
            // What this batch holds is incomplete; all before it is done, and does not wait for a recovery to be recorded.
            self.swapper.save()?;
            return Err(failed.or_else(|| source.settle().err()).unwrap_or(lost).into());
        }
        self.staged = Some(jobs);
        self.cancelled = self.context.monitor.cancelled();
        Ok(())
    }
}

/// Staging and all that goes with it, where a batch may be under way while the next one is begun.
impl<'a, 'e> Apply<'a, 'e> {
    /// Stages a batch on a thread of its own. The batch before it, which may still be on its way, is then put in place.
    fn stage_meanwhile(
        &mut self,
        scope: &'a Scope<'a, 'e>,
        stages: Stages,
        mut jobs: Vec<Job>,
        bytes: u64,
    ) -> Result<(), ApplyError> {
        let (Context { root, source, reserve, .. }, supply) = (self.context, self.context.supply());
        let mut before = self.filling.take();
        if let Some(filling) = before.take_if(|before| !has_room(root, before.bytes.saturating_add(bytes), reserve)) {
            // Whether a batch finds room is looked at when it begins, and what is on its way does not show.
            self.put_in_place(filling)?;
        }
        let thread = scope.spawn(move || {
            stages.fill(supply, &mut jobs);
            Filled { jobs, whole: source.alive().is_ok() }
        });
        self.filling = Some(Filling { thread, bytes });
        if let Some(filling) = before {
            self.put_in_place(filling)?;
        }
        self.cancelled = self.context.monitor.cancelled();
        Ok(())
    }

    /// Waits until a batch is staged, and puts it in place.
    fn put_in_place(&mut self, filling: Filling<'a>) -> Result<(), ApplyError> {
        let source = self.context.source;
        // A panic in staging is a defect: it goes on in the caller's thread.
        let Filled { jobs, whole } = filling.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        batch_staged();
        let settled = source.settle();
        if !whole {
            // What this batch holds is incomplete; all before it is done, and does not wait for a recovery to be recorded.
            self.swapper.throw_away(&jobs);
            self.swapper.save()?;
            return Err(settled.and_then(|()| source.alive()).map_or_else(ApplyError::from, |()| ApplyError::from(lost())));
        }
        match settled {
            // While the next one was staged: this one is whole.
            Err(error) if error.is_lost_connection() => {
                self.swapper.run(jobs)?;
                self.swapper.save()?;
                Err(error.into())
            }
            settled => {
                settled?;
                self.swapper.run(jobs)
            }
        }
    }
}

/// What a source has failed of that does not tell why.
fn lost() -> SourceError {
    ChannelError::Ended.into()
}

/// Do so many bytes find room for sure?
fn has_room(root: &Root, bytes: u64, reserve: Reserve) -> bool {
    shortfall(root, bytes.saturating_add(SPARE_BYTES), reserve).is_ok_and(|missing| missing.is_none())
}

/// Where a batch is staged: in the root's own folder, and in those of cold roots.
struct Stages(Vec<(Option<ColdId>, Arc<Stage>)>);

impl Stages {
    fn of(areas: &Areas<'_>) -> Stages {
        let cold = areas.all().filter(|area| area.cold.is_some());
        Stages(areas.main().into_iter().chain(cold).map(|area| (area.cold, area.stage.clone())).collect())
    }

    /// Stages what is to be placed. What finds no folder says so when it is prepared.
    fn fill(&self, supply: Supply<'_>, jobs: &mut [Job]) {
        let here = supply.here;
        let places = here.places();
        let mut trees: Vec<&mut Tree> = Vec::new();
        for job in jobs {
            if let Job::Place(tree) = job {
                let inside = places.above(&tree.top.path).filter(|placement| placement.path != tree.top.path);
                let chosen = tree.choice.as_ref().map(|choice| choice.cold.id);
                tree.cold = chosen.or_else(|| inside.map(|placement| placement.cold.id));
                place::rewrite(here, tree);
                trees.push(tree);
            }
        }
        for (cold, stage) in &self.0 {
            let mut of_it: Vec<&mut Tree> = trees.extract_if(.., |tree| tree.cold == *cold).collect();
            if !of_it.is_empty() {
                stage.fill(supply, &mut of_it);
            }
        }
    }
}

fn content_bytes(step: &Step) -> u64 {
    match &step.action {
        Action::Write { row, .. } => match row.object.content {
            Content::File { size, .. } => size,
            _ => 0,
        },
        _ => 0,
    }
}

fn creates_dir(step: &Step) -> bool {
    match &step.action {
        Action::Write { row, .. } => row.object.content == Content::Dir,
        Action::MakeDir { .. } => true,
        _ => false,
    }
}

/// The path at which a late write to a file that was replaced is kept: the wish itself for 1, and others for higher numbers.
pub(crate) fn late_name(path: &RelPath, now_ns: i64, hash: Option<&crate::entry::Hash>, number: u32) -> Option<RelPath> {
    names::late(path, now_ns, hash).and_then(|wish| names::numbered(&wish, number)).ok()
}

/// A batch was staged, here or beside the one before it.
fn batch_staged() {
    kill_point("batch-staged");
}

#[cfg(test)]
mod tests;
