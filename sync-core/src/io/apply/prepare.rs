//! Intents: what each job of a batch is about to do, checked against the rows and written before anything is done.

use super::areas::Area;
use super::check;
use super::job::{Attributes, Job, Removal};
use super::moves::{Contents, Kept, Offer, Origin, holds};
use super::names::{self, Taken};
use super::rows::Live;
use super::swap::Swapper;
use super::{ApplyError, MOVE_STEPS, Stop, versions};
use crate::entry::{AttrMask, Content, Kind, Object, Signature};
use crate::io::source::with_buffer;
use crate::io::stage::{Failure, Incoming, Tree};
use crate::io::state::Intent;
use crate::knowledge::Row;
use crate::path::RelPath;
use crate::plan::{Displaced, Stamp};
use crate::store::Change;
use std::rc::Rc;
use std::sync::Arc;

/// A job that may begin, or that was refused.
pub(super) struct Ready {
    pub(super) job: Job,
    /// Present for what changes more than rows and times.
    pub(super) plan: Option<Prepared>,
    pub(super) refused: Option<Stop>,
}

/// An intent that was written.
pub(super) struct Prepared {
    pub(super) id: i64,
    pub(super) intent: Intent,
    /// The path that the displaced object gets as a conflict copy.
    pub(super) copy: Option<RelPath>,
    /// Where it is staged, and where goes what it displaces.
    pub(super) area: Rc<Area>,
}

/// An intent before it is written.
struct Draft {
    intent: Intent,
    copy: Option<RelPath>,
    area: Rc<Area>,
}

impl Swapper<'_> {
    /// Checks jobs against the rows and writes their intents.
    pub(super) fn prepare(&mut self, jobs: Vec<Job>) -> Result<Vec<Ready>, ApplyError> {
        let jobs = self.placed_first(jobs)?;
        let mut ready = Vec::with_capacity(jobs.len());
        let mut drafts = Vec::new();
        for job in jobs {
            let (job, draft) = self.draft(job);
            let (draft, refused) = match draft {
                Ok(draft) => (draft, None),
                Err(Stop::Run(error)) => return Err(error),
                Err(stop) => (None, Some(stop)),
            };
            drafts.push(draft);
            ready.push(Ready { job, plan: None, refused });
        }
        let places: Vec<Option<(Option<RelPath>, Rc<Area>)>> =
            drafts.iter_mut().map(|draft| draft.as_mut().map(|draft| (draft.copy.take(), draft.area.clone()))).collect();
        let intents: Vec<Intent> = drafts.into_iter().flatten().map(|draft| draft.intent).collect();
        if intents.is_empty() {
            return Ok(ready);
        }
        let ids = self.context.state.intend(&intents, self.context.state_elsewhere)?;
        let mut written = ids.into_iter().zip(intents);
        for (ready, place) in ready.iter_mut().zip(places) {
            if let Some((copy, area)) = place {
                ready.plan = written.next().map(|(id, intent)| Prepared { id, intent, copy, area });
            }
        }
        Ok(ready)
    }

    fn draft(&mut self, job: Job) -> (Job, Result<Option<Draft>, Stop>) {
        let mut job = match job {
            Job::Move { mut tree, offer } => match self.draft_move(&mut tree, &offer, false) {
                Ok(None) => Job::Place(tree),
                draft => return (Job::Move { tree, offer }, draft),
            },
            Job::MoveTree { mut tree, offer } => match self.draft_move(&mut tree, &offer, true) {
                Ok(None) => Job::Place(tree),
                draft => return (Job::MoveTree { tree, offer }, draft),
            },
            job => job,
        };
        let draft = match &mut job {
            Job::Place(tree) => self.draft_place(tree),
            Job::Attributes(change) => self.draft_attributes(change).map(Some),
            Job::Remove(removal) => self.draft_removal(removal),
            _ => Ok(None),
        };
        (job, draft)
    }

    fn draft_place(&mut self, tree: &mut Tree) -> Result<Option<Draft>, Stop> {
        self.keeps_free(&tree.top.path)?;
        let area = match self.announce(tree)? {
            Some(area) => area,
            None => self.areas.of(&tree.top.path)?,
        };
        let staged = self.staged(tree, &area)?;
        if tree.top.from != tree.top.path {
            match self.free_path(&tree.top.path, &tree.top.object)? {
                None => {
                    self.discard(&area, tree);
                    return Ok(None);
                }
                Some(free) => tree.top.path = free,
            }
        }
        self.record_rewritten(tree)?;
        let path = tree.top.path.clone();
        let current = self.rows.current(&path)?;
        let expect = check::expected(current.as_ref(), tree.top.expect.as_ref(), "replace")?;
        let mut changes = self.puts(tree)?;
        if tree.top.object.kind() != Kind::Dir && !self.rows.children(&path, None)?.is_empty() {
            // The directory goes whole: the source knew all of it, and what it knows covers the deletions.
            let bound = tree.top.learn.clone().unwrap_or_default();
            changes.insert(0, Change::RemoveTree { path: path.clone(), learn: None, bound });
        }
        let (mut version, mut copy) = (None, None);
        if let Some(old) = &current {
            copy = match &tree.top.displaced {
                Displaced::Versions => None,
                Displaced::Copy(to) => self.free_path(to, &old.row.object)?,
            };
            match &copy {
                Some(to) => changes.push(self.copy_put(to, old)?),
                None => version = Some(versions::plan(&area, &path, old, reason(&tree.top))),
            }
        }
        let (staged, staged_signature) = (area.staged_address(&tree.staged), Some(staged));
        let intent = Intent { path, staged, staged_signature, expect, changes, version };
        Ok(Some(Draft { intent, copy, area }))
    }

    /// What is staged for a path. What was planned as a move and is none is brought now; so is what goes to another mount,
    /// whatever became of it in the root's own staging folder.
    fn staged(&mut self, tree: &mut Tree, area: &Rc<Area>) -> Result<Signature, Stop> {
        if tree.top.outcome.is_none() || !area.holds(tree) {
            let before = self.areas.all().find(|area| area.holds(tree)).cloned();
            if let Some(before) = before {
                self.discard(&before, tree);
            }
            tree.each_mut(&mut |incoming| incoming.outcome = None);
            tree.cold = area.cold;
            super::place::rewrite(self.context.root, tree);
            area.stage.fill(self.context.supply(), &mut [tree]);
        }
        match &tree.top.outcome {
            Some(Ok(signature)) => Ok(*signature),
            Some(Err(failure)) => Err(failure.clone().into()),
            None => Err(Failure::new("stage", "it was not staged").into()),
        }
    }

    /// The rows of a staged tree, directories first; what failed has none.
    fn puts(&mut self, tree: &Tree) -> Result<Vec<Change>, Stop> {
        let mut staged = Vec::new();
        tree.each(&mut |incoming| {
            if let Some(Ok(signature)) = &incoming.outcome {
                staged.push((incoming, *signature));
            }
        });
        staged.sort_by_key(|(incoming, _)| incoming.ticket);
        staged.into_iter().map(|(incoming, signature)| self.put(incoming, signature)).collect()
    }

    fn put(&mut self, incoming: &Incoming, signature: Signature) -> Result<Change, Stop> {
        let (m, c) = self.stamped(&incoming.stamp)?;
        let row = Row { object: incoming.object.clone(), m, c };
        let (path, learn) = (incoming.path.clone(), incoming.learn.clone());
        Ok(Change::Put { path, row, signature, learn })
    }

    /// The row of a displaced object as a conflict copy: a new path, a fresh event.
    pub(super) fn copy_put(&mut self, to: &RelPath, old: &Live) -> Result<Change, Stop> {
        let (m, c) = self.stamped(&Stamp::Fresh { c: None })?;
        let row = Row { object: old.row.object.clone(), m, c };
        Ok(Change::Put { path: to.clone(), row, signature: old.signature, learn: None })
    }

    fn draft_attributes(&mut self, change: &Attributes) -> Result<Draft, Stop> {
        let path = change.path.clone();
        let current = self.rows.current(&path)?;
        check::expected(current.as_ref(), Some(&change.expect), "set attributes")?;
        let Some(live) = current else { return Err(check::changed("set attributes")) };
        let (m, c) = self.stamped(&change.stamp)?;
        let mut object = live.row.object.clone();
        object.attrs = change.attrs;
        let signature = live.signature;
        let row = Row { object, m, c };
        let learn = change.learn.clone();
        let changes = vec![Change::Put { path: path.clone(), row, signature, learn }];
        let (staged, version) = (Vec::new(), None);
        let (expect, staged_signature) = (Some(signature), Some(signature));
        let intent = Intent { path, staged, staged_signature, expect, changes, version };
        Ok(Draft { intent, copy: None, area: self.areas.main()?.clone() })
    }

    fn draft_removal(&mut self, removal: &Removal) -> Result<Option<Draft>, Stop> {
        if let Some(Origin::Taken) = self.moves.origin(&removal.path) {
            return Ok(None);
        }
        let path = removal.path.clone();
        let current = self.rows.current(&path)?;
        let expect = check::expected(current.as_ref(), Some(&removal.expect), "remove")?;
        let Some(old) = current else { return Err(check::changed("remove")) };
        let keeps = removal.whole || old.row.object.kind() != Kind::Dir;
        let area = match self.placed_at(&path)? {
            Some(placement) => self.areas.of_cold(placement.cold.id)?,
            None => self.areas.of(&path)?,
        };
        let version = keeps.then(|| versions::plan(&area, &path, &old, "deleted"));
        let learn = Some(removal.learn.clone());
        let bound = if removal.event {
            let event = self.event()?;
            Arc::new(removal.bound.joined(&event.into()))
        } else {
            removal.bound.clone()
        };
        let change = if removal.whole {
            Change::RemoveTree { path: path.clone(), learn, bound }
        } else {
            Change::Remove { path: path.clone(), learn, bound }
        };
        let changes = vec![change];
        let (staged, staged_signature) = (Vec::new(), None);
        let intent = Intent { path, staged, staged_signature, expect, changes, version };
        Ok(Some(Draft { intent, copy: None, area }))
    }

    /// The intent of a move; `None` if the origin is not there as it was.
    fn draft_move(&mut self, tree: &mut Tree, offer: &Offer, whole: bool) -> Result<Option<Draft>, Stop> {
        let path = tree.top.path.clone();
        let current = self.rows.current(&path)?;
        let expect = check::expected(current.as_ref(), None, "move")?;
        self.keeps_free(&path)?;
        let origin = match self.find_origin(offer, whole) {
            Ok(Some(origin)) => origin,
            Ok(None) | Err(Stop::Path(_) | Stop::Left(_) | Stop::Across(_)) => return Ok(None),
            Err(stop) => return Err(stop),
        };
        if whole && !(adopt(tree, &origin.contents, self.context.mask) && self.moves_links(tree, offer)?) {
            return Ok(None);
        }
        tree.top.outcome = Some(Ok(origin.signature));
        let mut changes = self.puts(tree)?;
        if origin.in_place {
            let (learn, bound) = (Some(offer.learn.clone()), offer.bound.clone());
            let old = offer.path.clone();
            changes.push(if whole {
                Change::RemoveTree { path: old, learn, bound }
            } else {
                Change::Remove { path: old, learn, bound }
            });
        }
        let (staged, version) = (Vec::new(), None);
        let staged_signature = Some(origin.signature);
        let intent = Intent { path, staged, staged_signature, expect, changes, version };
        Ok(Some(Draft { intent, copy: None, area: self.areas.main()?.clone() }))
    }

    /// May the links in a directory be moved with it?
    fn moves_links(&self, tree: &mut Tree, offer: &Offer) -> Result<bool, Stop> {
        let from = match self.moves.origin(&offer.path) {
            Some(Origin::Kept(Kept { name, .. })) => match self.areas.find(name) {
                Some((area, leaf)) => area.kept.open_dir(leaf)?,
                None => return Ok(false),
            },
            _ => self.context.root.dir(&offer.path)?,
        };
        self.links_fit(tree, &from)
    }

    /// The object that a move takes, after a look at the disk.
    fn find_origin(&mut self, offer: &Offer, whole: bool) -> Result<Option<Found>, Stop> {
        if let Some(Origin::Kept(Kept { name, signature, contents, .. })) = self.moves.origin(&offer.path) {
            let Some((area, leaf)) = self.areas.find(name) else { return Ok(None) };
            let there = area.kept.stat(leaf)?;
            if there.is_none_or(|there| there.ino != signature.ino) {
                return Ok(None);
            }
            let contents = contents.clone().unwrap_or_default();
            return Ok(Some(Found { signature: *signature, contents, in_place: false }));
        }
        // What lies elsewhere is not renamed, and nor is what holds it.
        if whole && self.holds_placed(&offer.path)? {
            return Ok(None);
        }
        let Some(live) = self.rows.current(&offer.path)? else { return Ok(None) };
        check::expected(Some(&live), Some(&offer.expect), "move")?;
        let (dir, name) = self.parent(&offer.path)?;
        check::on_disk(&dir, name.as_bytes(), &live.signature, Some(&live), "move")?;
        let contents = if whole {
            let below = dir.open_dir(name.as_bytes())?;
            // More than that was not planned as a move either.
            let Some(contents) = check::tree(&self.rows, &below, &offer.path, ("move", MOVE_STEPS))? else { return Ok(None) };
            contents
        } else {
            Contents::new()
        };
        Ok(Some(Found { signature: live.signature, contents, in_place: true }))
    }

    /// A free path for a conflict copy: the wished one, or numbered; `None` if it exists with this content.
    pub(super) fn free_path(&mut self, wish: &RelPath, object: &Object) -> Result<Option<RelPath>, Stop> {
        for number in 1..=names::TRIES {
            let path = names::numbered(wish, number)?;
            match self.taken(&path, object)? {
                Taken::Free => return Ok(Some(path)),
                Taken::Equal => return Ok(None),
                Taken::Other => {}
            }
        }
        Err(Failure::new("keep both", "no free name for the conflict copy").into())
    }

    fn taken(&mut self, path: &RelPath, object: &Object) -> Result<Taken, Stop> {
        let current = self.rows.current(path)?;
        let (dir, name) = match self.parent(path) {
            Ok(found) => found,
            // The directory comes to be in this very batch.
            Err(Stop::Path(_)) if current.is_none() => return Ok(Taken::Free),
            Err(stop) => return Err(stop),
        };
        let Some(disk) = dir.stat(name.as_bytes())? else {
            return Ok(if current.is_none() { Taken::Free } else { Taken::Other });
        };
        let Some(live) = current else { return Ok(Taken::Other) };
        if !check::same_recorded(&disk, &live.signature) || disk.size != live.signature.size {
            return Ok(Taken::Other);
        }
        let equal = match (&object.content, &live.row.object.content) {
            (Content::File { size, hash: Some(hash) }, Content::File { size: there, .. }) => {
                size == there && {
                    let mut file = dir.open_file(name.as_bytes())?;
                    let read = with_buffer(|buffer| crate::io::fs::hash_file(&mut file, buffer));
                    read.map_err(|error| Failure::of("read")(&error))?.1 == *hash
                }
            }
            (Content::Symlink(a), Content::Symlink(b)) => a == b,
            _ => false,
        };
        Ok(if equal { Taken::Equal } else { Taken::Other })
    }
}

/// The object that a move takes.
struct Found {
    signature: Signature,
    contents: Contents,
    /// At its path, with its rows.
    in_place: bool,
}

/// Gives what is in a tree the signatures of what stands at its origin; `false` if that is something else.
fn adopt(tree: &mut Tree, contents: &Contents, mask: AttrMask) -> bool {
    let top = tree.top.path.clone();
    let mut wanted = Vec::with_capacity(contents.len());
    tree.each(&mut |incoming| {
        if let Some(relative) = incoming.path.rebase(&top, &RelPath::root())
            && !relative.is_root()
        {
            wanted.push((relative, &incoming.object));
        }
    });
    wanted.sort_by(|a, b| a.0.cmp(&b.0));
    if !contents.is_sorted_by(|a, b| a.0 <= b.0) || !holds(contents, &wanted, mask) {
        return false;
    }
    tree.each_mut(&mut |incoming| {
        if let Some(relative) = incoming.path.rebase(&top, &RelPath::root())
            && let Ok(at) = contents.binary_search_by(|(path, _)| path.cmp(&relative))
        {
            incoming.outcome = Some(Ok(contents[at].1.signature));
        }
    });
    true
}

/// Why is a version kept that an incoming one displaces? What is decided here gets an event of this replica: then the
/// displaced version was none that the source had replaced, but one that lost against the source's.
fn reason(incoming: &Incoming) -> &'static str {
    match incoming.stamp {
        Stamp::Fresh { .. } => "lost a conflict",
        Stamp::Given { .. } => "replaced",
    }
}
