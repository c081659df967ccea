//! Looks at a pull without carrying it out: numbers for the guards, items for the user, and which deletions
//! and creations are the two halves of a move.

use super::apart::{self, Lone};
use super::opened::Opened;
use super::pulls::OnePull;
use super::unread::{Reads, Undecided};
use super::{SyncError, Totals};
use crate::entry::{Content, Digest, Hash, Kind};
use crate::io::apply::{Moves, OFFERS};
use crate::io::state::NodeId;
use crate::path::RelPath;
use crate::plan::{Action, Item, Open, Step, Verb};
use crate::report::{Monitor, Phase};
use crate::session;
use crate::store::Filter;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Steps of creations remembered at the most.
const CREATIONS: usize = 8_192;

/// What a pull would do.
#[derive(Default)]
pub(super) struct OneSurvey {
    totals: Totals,
    /// The first path that is to be changed.
    first: Option<RelPath>,
    /// Paths that go from where they are, those that move included.
    gone: u64,
    moves: Moves,
    /// What goes: content to paths, for the pairing of moves.
    files: HashMap<Hash, Vec<RelPath>>,
    trees: HashMap<Digest, Vec<RelPath>>,
    pairs: Pairs,
    creations: Creations,
    /// What comes to be and has no origin so far.
    lone: Lone,
    /// Directories that go, of which each path goes by itself.
    apart: Arc<BTreeSet<RelPath>>,
    /// Files that are to be read before anything is decided of them.
    unread: u64,
    /// Paths remembered in `files` and `trees` at the most: pairs are no more than those.
    limit: usize,
    offered: usize,
    /// Paths that go beyond the limit.
    missed: u64,
}

/// What comes to be, for the pairing of moves once it is known what goes.
enum Creations {
    /// These steps.
    All(Vec<Step>),
    /// More than are remembered: the conversation is held once more.
    TooMany,
}

impl Default for Creations {
    fn default() -> Creations {
        Creations::All(Vec::new())
    }
}

impl Creations {
    fn note(&mut self, step: &Step) {
        let (Creations::All(steps), Action::Write { expect: None, .. }) = (&mut *self, &step.action) else { return };
        if steps.len() < CREATIONS {
            steps.push(step.clone());
        } else {
            *self = Creations::TooMany;
        }
    }
}

/// Moves: where from, by where to.
#[derive(Default)]
struct Pairs {
    to: HashMap<RelPath, RelPath>,
    from: BTreeSet<RelPath>,
    /// The directory that moves as one, of those that are being looked at.
    inside: Option<RelPath>,
}

/// Paths that a pull would delete, as it stands now, and those that would go with the moved ones among them. Moves are looked for
/// only if the number matters without them.
pub(super) fn deletions(pull: &OnePull<'_>, enough: impl Fn(u64) -> bool) -> Result<(u64, u64), SyncError> {
    let mut survey = OneSurvey::new(pull, OFFERS);
    survey.converse(pull, OneSurvey::count)?;
    let gone = survey.totals.deleted;
    if !enough(gone) {
        survey.gone = gone;
        survey = survey.paired(pull)?;
    }
    Ok((survey.totals.deleted, gone))
}

impl OneSurvey {
    pub(super) fn of(pull: &OnePull<'_>, limit: usize, monitor: &dyn Monitor) -> Result<OneSurvey, SyncError> {
        let mut survey = OneSurvey::new(pull, limit);
        let mut undecided = Undecided::new(pull.reads);
        pull.converse(pull.terms.clone(), |step| {
            undecided.note(pull, &step, monitor)?;
            survey.count(pull, &step)
        })?;
        let (any, unread) = undecided.finish(pull, monitor)?;
        if any {
            monitor.phase(Phase::Plan, None, None);
            survey = OneSurvey::new(pull, limit);
            survey.converse(pull, OneSurvey::count)?;
        }
        survey.gone = survey.totals.deleted;
        let mut survey = survey.paired(pull)?;
        survey.unread = unread;
        survey.moves.pair();
        if survey.missed > 0 {
            monitor.notice(&format!(
                "{}: {} of the paths that go are beyond the {limit} among which moves are looked for: what stands there is \
                 copied anew if it was moved, and counts as deleted",
                pull.ours.root.path().display(),
                survey.missed
            ));
        }
        Ok(survey)
    }

    /// The first path that is to be changed, in the order of the tree.
    pub(super) fn first(&self) -> Option<&RelPath> {
        self.first.as_ref()
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn gone(&self) -> u64 {
        self.gone
    }

    /// Files that were left to be read another time.
    pub(super) fn unread(&self) -> u64 {
        self.unread
    }

    /// Directories that go, of which each path goes by itself: the moves that were found need it.
    pub(super) fn apart(&self) -> Arc<BTreeSet<RelPath>> {
        self.apart.clone()
    }

    pub(super) fn take_moves(&mut self) -> Moves {
        std::mem::take(&mut self.moves)
    }

    /// Tells every item, in the order in which it would be done.
    pub(super) fn tell(&self, pull: &OnePull<'_>, each: &mut dyn FnMut(&Item)) -> Result<(), SyncError> {
        pull.converse(self.terms(pull), |step| {
            if let Some(item) = step.item().and_then(|item| self.pairs.seen_as(item)) {
                each(&item);
            }
            Ok(())
        })?;
        Ok(())
    }

    fn new(pull: &OnePull<'_>, limit: usize) -> OneSurvey {
        OneSurvey { limit, apart: pull.terms.apart.clone(), ..OneSurvey::default() }
    }

    /// The terms on which its moves can be carried out.
    fn terms(&self, pull: &OnePull<'_>) -> session::Terms {
        session::Terms { apart: self.apart.clone(), ..pull.terms.clone() }
    }

    /// Holds the conversation.
    fn converse(
        &mut self,
        pull: &OnePull<'_>,
        mut each: impl FnMut(&mut OneSurvey, &OnePull<'_>, &Step) -> Result<(), SyncError>,
    ) -> Result<(), SyncError> {
        pull.converse(self.terms(pull), |step| each(self, pull, &step))?;
        Ok(())
    }

    /// With moves, once everything was counted. A directory that goes whole can only be a move as a whole: if it found no partner, and
    /// something in it did, all is counted anew with that directory taken apart.
    fn paired(mut self, pull: &OnePull<'_>) -> Result<OneSurvey, SyncError> {
        self.pair(pull)?;
        let lone = std::mem::take(&mut self.lone);
        let apart = apart::find(pull.ours, self.trees.values().flatten(), &lone)?;
        if apart.is_empty() {
            return Ok(self);
        }
        let apart = Arc::new(self.apart.iter().cloned().chain(apart).collect());
        let mut survey = OneSurvey { apart, gone: self.gone, ..OneSurvey::new(pull, self.limit) };
        survey.converse(pull, OneSurvey::count)?;
        survey.pair(pull)?;
        Ok(survey)
    }

    fn pair(&mut self, pull: &OnePull<'_>) -> Result<(), SyncError> {
        let creations = std::mem::take(&mut self.creations);
        if !(self.files.is_empty() && self.trees.is_empty()) {
            match creations {
                Creations::All(steps) => steps.iter().try_for_each(|step| self.pair_up(pull, step))?,
                Creations::TooMany => {
                    self.converse(pull, OneSurvey::pair_up)?;
                }
            }
        }
        self.pairs.inside = None;
        Ok(())
    }

    /// Is there room to remember one more path that goes?
    fn has_room(&mut self) -> bool {
        let room = self.offered < self.limit;
        if room {
            self.offered += 1;
        } else {
            self.missed += 1;
        }
        room
    }

    fn count(&mut self, pull: &OnePull<'_>, step: &Step) -> Result<(), SyncError> {
        let totals = &mut self.totals;
        if let Some(item) = step.item() {
            totals.count(&item);
            self.first.get_or_insert(item.path);
        }
        self.creations.note(step);
        let totals = &mut self.totals;
        match &step.action {
            Action::Leave { why: Open::Ignored, .. } => {}
            Action::Leave { .. } => totals.skipped += 1,
            Action::NeedHash { .. } if pull.reads == Reads::Little => {}
            Action::NeedHash { .. } => totals.failed += 1,
            Action::Remove { expect, .. } => {
                if let Content::File { size: 1.., hash: Some(hash) } = expect.object.content
                    && self.has_room()
                {
                    self.moves.offer_file(step);
                    self.files.entry(hash).or_default().push(step.path.clone());
                }
            }
            Action::Write { row, expect: Some(old), .. } if old.object.kind() == Kind::Dir && row.object.kind() != Kind::Dir => {
                totals.deleted += live_below(pull.ours, &step.path)?;
            }
            Action::RemoveTree { .. } => {
                self.totals.deleted += live_below(pull.ours, &step.path)?;
                let digest = digest(pull.ours, &step.path)?;
                if digest != Digest::default() && self.has_room() {
                    self.moves.offer_tree(step, digest);
                    self.trees.entry(digest).or_default().push(step.path.clone());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A creation whose content goes at another path is half of a move.
    fn pair_up(&mut self, pull: &OnePull<'_>, step: &Step) -> Result<(), SyncError> {
        let Action::Write { row, expect: None, from, .. } = &step.action else { return Ok(()) };
        if *from != step.path {
            return Ok(());
        }
        let bytes = step.item().map_or(0, |item| item.bytes);
        if self.pairs.inside.as_ref().is_some_and(|tree| tree.contains(&step.path)) {
            // The other side may show other rows than before: numbers only.
            self.totals.created = self.totals.created.saturating_sub(1);
            self.totals.bytes = self.totals.bytes.saturating_sub(bytes);
            return Ok(());
        }
        self.pairs.inside = None;
        let origin = match row.object.content {
            Content::File { size: 1.., hash: Some(hash) } => {
                let origin = claim(&mut self.files, &hash, &step.path);
                if origin.is_some() {
                    self.moves.want_file(hash);
                    self.totals.deleted = self.totals.deleted.saturating_sub(1);
                } else {
                    self.lone.file(hash);
                }
                origin
            }
            Content::Dir => {
                let digest = pull.theirs.digest(&step.path)?;
                let origin = claim(&mut self.trees, &digest, &step.path);
                if let Some(origin) = &origin {
                    self.moves.want_tree(digest);
                    let below = live_below(pull.ours, origin)?;
                    self.totals.deleted = self.totals.deleted.saturating_sub(1 + below);
                    self.pairs.inside = Some(step.path.clone());
                } else {
                    self.lone.tree(digest);
                }
                origin
            }
            _ => None,
        };
        if let Some(origin) = origin {
            self.totals.created = self.totals.created.saturating_sub(1);
            self.totals.moved += 1;
            self.totals.bytes = self.totals.bytes.saturating_sub(bytes);
            self.pairs.from.insert(origin.clone());
            self.pairs.to.insert(step.path.clone(), origin);
        }
        Ok(())
    }
}

/// Paths that go with a step from where they are.
pub(super) fn goes_with(ours: &Opened, step: &Step) -> Result<u64, SyncError> {
    match &step.action {
        Action::Remove { .. } => Ok(1),
        Action::RemoveTree { .. } => Ok(live_below(ours, &step.path)? + 1),
        Action::Write { row, expect: Some(old), .. } if old.object.kind() == Kind::Dir && row.object.kind() != Kind::Dir => {
            live_below(ours, &step.path)
        }
        _ => Ok(0),
    }
}

/// An origin of equal content, one of the same name if there is one.
fn claim<K: std::hash::Hash + Eq>(offers: &mut HashMap<K, Vec<RelPath>>, key: &K, path: &RelPath) -> Option<RelPath> {
    let equal = offers.get_mut(key)?;
    let at = equal.iter().position(|offer| offer.name() == path.name()).unwrap_or(0);
    let origin = equal.swap_remove(at);
    if equal.is_empty() {
        offers.remove(key);
    }
    Some(origin)
}

impl Pairs {
    /// The item as a user sees it, with the halves of moves put together.
    fn seen_as(&self, mut item: Item) -> Option<Item> {
        if item.verb == Verb::Delete && self.from.contains(&item.path) {
            return None;
        }
        if item.verb == Verb::Create {
            if let Some(from) = self.to.get(&item.path) {
                item.verb = Verb::Move;
                item.from = Some(from.clone());
                item.bytes = 0;
            } else if !self.to.is_empty() && item.path.ancestors().any(|above| above != item.path && self.to.contains_key(&above))
            {
                return None;
            }
        }
        Some(item)
    }
}

/// Live paths below a directory.
fn live_below(opened: &Opened, path: &RelPath) -> Result<u64, SyncError> {
    let Some(node) = opened.state.node(path)? else { return Ok(0) };
    count_below(opened, node)
}

fn count_below(opened: &Opened, node: NodeId) -> Result<u64, SyncError> {
    let mut count = 0;
    for known in opened.state.known(node)? {
        count += 1;
        if let (Kind::Dir, Some(node)) = (known.kind, known.node) {
            count += count_below(opened, node)?;
        }
    }
    Ok(count)
}

fn digest(opened: &Opened, path: &RelPath) -> Result<Digest, SyncError> {
    let header = Filter::header();
    Ok(opened.state.listing(path, &header)?.digest)
}
