//! New directories that lie in a cold root from their beginning: staged there, renamed to their place there, durable, and then
//! the link to them is made. The placement is announced before, and settled together with the rows.

use super::Stop;
use super::areas::Area;
use super::exchange::At;
use super::job::Job;
use super::swap::{Displacement, Swapper};
use crate::entry::{AttrMask, Attrs, Content};
use crate::io::fs::{ColdId, Dir, FsError, Placement, Replace, Rewritten, Root};
use crate::io::kill::kill_point;
use crate::io::places::{self, PlaceError};
use crate::io::stage::{Failure, Finish, Tree};
use crate::io::state::{Intent, PlaceChange};
use crate::path::{Name, RelPath};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::rc::Rc;

/// Cuts directories out of new trees that are to lie in a cold root: each becomes a job of its own, right after the tree. The
/// times of the directories above are set after that.
pub(super) fn choose(root: &Root, jobs: &mut Vec<Job>) {
    if !root.chooses() {
        return;
    }
    let mut all = Vec::with_capacity(jobs.len());
    for job in jobs.drain(..) {
        let Job::Place(mut tree) = job else {
            all.push(job);
            continue;
        };
        let (mut cut, mut finishes) = (Vec::new(), Vec::new());
        if is_new_dir(&tree) && !chosen(root, &mut tree) {
            cut_below(root, &mut tree, (&mut cut, &mut finishes));
        }
        all.push(Job::Place(tree));
        all.extend(cut.into_iter().map(Job::Place));
        all.extend(finishes.into_iter().map(|(path, finish)| Job::Finish { path, finish }));
    }
    *jobs = all;
}

fn is_new_dir(tree: &Tree) -> bool {
    tree.top.object.content == Content::Dir && tree.top.expect.is_none() && tree.top.from == tree.top.path
}

/// Is the directory itself to lie elsewhere?
fn chosen(root: &Root, tree: &mut Tree) -> bool {
    let free = root.places().may_hold(&tree.top.path);
    tree.choice = root.choose(&tree.top.path).filter(|_| free);
    tree.choice.is_some()
}

/// `true` if something was cut out at or below.
fn cut_below(root: &Root, tree: &mut Tree, (cut, finishes): (&mut Vec<Tree>, &mut Vec<(RelPath, Finish)>)) -> bool {
    let mut any = false;
    for mut branch in std::mem::take(&mut tree.trees) {
        if is_new_dir(&branch) && chosen(root, &mut branch) {
            cut.push(branch);
            any = true;
        } else {
            any |= cut_below(root, &mut branch, (cut, finishes));
            tree.trees.push(branch);
        }
    }
    if any {
        // Children before what they are in.
        finishes.extend(tree.finish.take().map(|finish| (tree.top.path.clone(), finish)));
    }
    any
}

/// Gives links that lead out of the placed directory that they come to, and would lead elsewhere from there, another text.
pub(super) fn rewrite(root: &Root, tree: &mut Tree) {
    let day = day_of(root, tree);
    tree.each_mut(&mut |incoming| {
        incoming.disk = match (&incoming.object.content, &day) {
            (Content::Symlink(target), Some(day)) => root.disk_text(day, &incoming.path, target),
            _ => None,
        };
    });
}

/// The placed directory that a tree comes to, or is.
fn day_of(root: &Root, tree: &Tree) -> Option<RelPath> {
    tree.cold?;
    if tree.choice.is_some() {
        return Some(tree.top.path.clone());
    }
    root.places().above(&tree.top.path).map(|placement| placement.path.clone())
}

impl Swapper<'_> {
    /// Before a rewritten link comes to its path it is recorded what it stands for: else it would look like an edit.
    pub(super) fn record_rewritten(&self, tree: &Tree) -> Result<(), Stop> {
        self.record_links(tree, day_of(self.context.root, tree))
    }

    /// The same of a tree that is moved: do the links in it, which stand below `from`, read on the disk as they must at its new path?
    /// If not, it is brought instead.
    pub(super) fn links_fit(&self, tree: &mut Tree, from: &Dir) -> Result<bool, Stop> {
        let root = self.context.root;
        if root.places().is_empty() {
            return Ok(true);
        }
        let top = tree.top.path.clone();
        let day = root.places().above(&top).map(|placement| placement.path.clone());
        let mut links = Vec::new();
        tree.each_mut(&mut |incoming| {
            let Content::Symlink(target) = &incoming.object.content else { return };
            let disk = day.as_ref().and_then(|day| root.disk_text(day, &incoming.path, target));
            links.extend(
                incoming.path.rebase(&top, &RelPath::root()).map(|below| (below, disk.as_ref().unwrap_or(target).clone())),
            );
            incoming.disk = disk;
        });
        for (below, text) in links {
            let Some((parent, name)) = below.split() else { return Ok(false) };
            if from.below(&parent)?.link_text(name.as_bytes())? != text {
                return Ok(false);
            }
        }
        self.record_links(tree, day)?;
        Ok(true)
    }

    fn record_links(&self, tree: &Tree, day: Option<RelPath>) -> Result<(), Stop> {
        let (root, state) = (self.context.root, self.context.state);
        let Some(placement) = day.and_then(|day| root.places().get(&day).cloned()) else { return Ok(()) };
        let mut rewritten = placement.rewritten.clone();
        tree.each(&mut |incoming| {
            let below = incoming.path.rebase(&placement.path, &RelPath::root());
            if let (Some(disk), Some(below), Content::Symlink(target)) = (&incoming.disk, below, &incoming.object.content) {
                rewritten.insert(below, Rewritten { disk: disk.clone(), target: target.clone() });
            }
        });
        if rewritten == placement.rewritten {
            return Ok(());
        }
        match places::amend(root, state, Placement { rewritten, ..Placement::clone(&placement) }, Vec::new()) {
            Ok(()) => Ok(()),
            Err(PlaceError::State(error)) => Err(error.into()),
            Err(error) => Err(Failure::new("place", error.to_string()).into()),
        }
    }

    /// Announces the placement of a chosen directory, and returns the area that it is staged in. Where that cannot be, the
    /// directory is made in the root: it can be moved later.
    pub(super) fn announce(&mut self, tree: &mut Tree) -> Result<Option<Rc<Area>>, Stop> {
        let Some(choice) = &tree.choice else { return Ok(None) };
        let (root, state) = (self.context.root, self.context.state);
        let path = &tree.top.path;
        let area = match self.areas.of_cold(choice.cold.id) {
            Ok(area) if self.rows.current(path)?.is_none() && !stands(&choice.cold.dir()?, &choice.at)? => area,
            Ok(_) | Err(_) => {
                tree.choice = None;
                return Ok(None);
            }
        };
        let random = |error: io::Error| Failure::new("place", error.to_string());
        let placement = Placement {
            path: path.clone(),
            cold: choice.cold.clone(),
            at: choice.at.clone(),
            job: choice.job.clone(),
            stamp: ColdId::random().map_err(random)?,
            link: choice.link.clone(),
            other_link: None,
            settled: false,
            rewritten: BTreeMap::new(),
        };
        match places::announce(root, state, placement) {
            Ok(()) => Ok(Some(area)),
            Err(PlaceError::State(error)) => Err(error.into()),
            Err(PlaceError::Fs(error)) => Err(error.into()),
            Err(error) => Err(Failure::new("place", error.to_string()).into()),
        }
    }

    /// Puts a staged directory in its place in the cold root, and the link to it in the root.
    pub(super) fn create_placed(&mut self, tree: &Tree, area: &Rc<Area>, at: &At<'_>) -> Result<Displacement, Stop> {
        let placement = self.context.root.places().get(at.path).cloned();
        let Some(placement) = placement else { return Err(Failure::new("place", "its placement is gone").into()) };
        let created = self.rename_placed(tree, area, (&placement, at));
        if created.is_err() {
            self.discard(area, tree);
            self.did_unplace(placement);
        } else {
            self.did_place(at.path.clone());
        }
        created.map(|()| Displacement::default())
    }

    fn rename_placed(&self, tree: &Tree, area: &Area, (placement, at): (&Placement, &At<'_>)) -> Result<(), Stop> {
        self.parent_lives(at.path)?;
        let Some((parent, name)) = placement.at.split() else { return Err(Failure::new("place", "it has no name").into()) };
        let cold = make_dirs(placement.cold.dir()?, &parent)?;
        kill_point("place-before");
        let stage = area.stage.dir();
        stage.rename(&tree.staged, &cold, name.as_bytes(), Replace::Never)?;
        kill_point("place-renamed");
        let linked = cold.sync_all().and_then(|()| {
            kill_point("place-synced");
            at.dir.create_symlink(at.name.as_bytes(), &placement.link)
        });
        if let Err(error) = linked {
            // Nothing leads there yet.
            cold.rename(name.as_bytes(), stage, &tree.staged, Replace::Never)?;
            return Err(error.into());
        }
        kill_point("place-linked");
        Ok(())
    }
}

/// What was placed is recorded with its rows now.
pub(super) fn settled(root: &Root, paths: &[RelPath]) {
    let mut places = root.places();
    for path in paths {
        if let Some(placement) = places.get(path) {
            places = places.with(Placement { settled: true, ..Placement::clone(placement) }).into();
        }
    }
    if !paths.is_empty() {
        root.set_places(places.as_ref().clone());
    }
}

/// After a crash: makes the link to a directory that an intent has brought to its place in the cold root.
pub(super) fn link(root: &Root, intent: &Intent) -> Result<(), FsError> {
    let places = root.places();
    let (Some(placement), Some(staged)) = (places.get(&intent.path), intent.staged_signature) else { return Ok(()) };
    let Some((parent, name)) = intent.path.split() else { return Ok(()) };
    if placement.settled || intent.staged.is_empty() || intent.expect.is_some() {
        return Ok(());
    }
    let hot = match root.hot(&parent) {
        Ok(hot) => hot,
        Err(error) if error.is_missing() => return Ok(()),
        Err(error) => return Err(error),
    };
    if hot.stat(name.as_bytes())?.is_some() {
        return Ok(());
    }
    match placement.open() {
        Ok(dir) if dir.stat_self()?.ino == staged.ino => hot.create_symlink(name.as_bytes(), &placement.link),
        Ok(_) => Ok(()),
        // It did not come so far.
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// After a crash: what becomes of the placement that an intent had announced.
pub(super) fn ended(root: &Root, intent: &Intent, happened: bool) -> Option<PlaceChange> {
    let places = root.places();
    let placement = places.get(&intent.path).filter(|placement| !placement.settled)?;
    if intent.staged.is_empty() || intent.expect.is_some() || intent.staged_signature.is_none() {
        return None;
    }
    let path = placement.path.clone();
    if happened {
        settled(root, std::slice::from_ref(&path));
        return Some(PlaceChange::Settle(path));
    }
    root.set_places(places.without(&path));
    Some(PlaceChange::Drop(path))
}

fn is_gone(error: &FsError) -> bool {
    matches!(error.unavailable(), Some(crate::io::fs::Unavailable::Gone { source, .. }) if source.kind() == ErrorKind::NotFound)
}

/// Does something stand there?
fn stands(cold: &Dir, at: &RelPath) -> Result<bool, FsError> {
    let mut below: Option<Dir> = None;
    let names: Vec<Name> = at.components().collect();
    let Some((last, above)) = names.split_last() else { return Ok(true) };
    for name in above {
        match below.as_ref().unwrap_or(cold).open_dir(name.as_bytes()) {
            Ok(dir) => below = Some(dir),
            Err(error) if error.is_missing() => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(below.as_ref().unwrap_or(cold).stat(last.as_bytes())?.is_some())
}

/// Opens a directory in a cold root, making it and those above it if they are missing.
fn make_dirs(mut dir: Dir, path: &RelPath) -> Result<Dir, FsError> {
    for name in path.components() {
        dir = match dir.open_dir(name.as_bytes()) {
            Err(error) if error.is_missing() => {
                let made = dir.create_dir(name.as_bytes())?;
                let (attrs, mask) =
                    (Attrs { mode: 0o755, ..Attrs::default() }, AttrMask { perms: true, owner: false, times: false });
                made.set_attrs_self(&attrs, mask)?;
                made
            }
            answer => answer?,
        };
    }
    Ok(dir)
}
