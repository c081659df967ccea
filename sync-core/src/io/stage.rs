//! Incoming content on the root's own file system: brought, verified, given its attributes, ready to be renamed
//! into place. A new directory is staged with everything below it and renamed once.
//!
//! What stands in the staging folder under a name of ours is ours to delete, with one exception: a name that is
//! exchanged with a user's object holds that object afterwards. Such names carry the inode of what was staged,
//! so that the two can be told apart whenever the process ends.

use crate::entry::{AttrMask, Attrs, Content, Hash, Kind, Object, Signature};
use crate::io::fs::{Dir, FsError, Replace, Root, finish_file};
use crate::io::kill::kill_point;
use crate::io::source::{Feed, Source, TYPE_BITS, Wanted};
use crate::knowledge::Row;
use crate::path::RelPath;
use crate::plan::{Displaced, Item, Stamp};
use rayon::prelude::*;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Objects of a chunk: what one thread asks the source for at once and then stages, one after the other. Fewer of one
/// directory are not handed to another thread: two that create in one directory wait for each other in the kernel, two
/// that work in different ones do not.
const CHUNK_OBJECTS: usize = 256;
/// Content of a chunk; a larger file is one by itself.
const CHUNK_BYTES: u64 = 8 << 20;
/// Bytes that stay free: the state has to record what was done.
const SPARE_BYTES: u64 = 1 << 20;
/// Files take whole blocks.
const BLOCK_BYTES: u64 = 4_096;
/// What a directory must allow its owner while it is being filled and renamed.
const FILLING: u32 = 0o700;

/// Why one path failed. The rest goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What was attempted.
    pub(crate) step: &'static str,
    /// What went wrong.
    pub(crate) reason: String,
}

impl Failure {
    pub(crate) fn new(step: &'static str, reason: impl Into<String>) -> Failure {
        Failure { step, reason: reason.into() }
    }

    /// A system's or a source's refusal, in its own words.
    pub(crate) fn of(step: &'static str) -> impl Fn(&dyn std::error::Error) -> Failure {
        move |error| Failure { step, reason: error.to_string() }
    }
}

/// An object to be brought, and what became of it.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Ticket of its step.
    pub(crate) ticket: u64,
    /// Where it goes.
    pub(crate) path: RelPath,
    /// Where its bytes stand at the source.
    pub(crate) from: RelPath,
    /// What it is. The hash is filled in when the bytes were read.
    pub(crate) object: Object,
    /// What is expected to stand here.
    pub(crate) expect: Option<Row>,
    /// Its version.
    pub(crate) stamp: Stamp,
    /// Knowledge that comes with it.
    pub(crate) learn: Option<Arc<crate::knowledge::Vector>>,
    /// Where goes what it displaces.
    pub(crate) displaced: Displaced,
    /// What a user sees of it.
    pub(crate) item: Option<Item>,
    /// Its row at the source, for the list of what is left open.
    pub(crate) theirs: Option<Row>,
    /// What became of it: its signature in the staging folder, or why it is not there.
    pub(crate) outcome: Option<Result<Signature, Failure>>,
}

/// The time that a directory gets once it is filled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish {
    /// Ticket of the step.
    pub(crate) ticket: u64,
    /// The time.
    pub(crate) mtime_ns: i64,
}

/// An incoming object with everything incoming below it; a lone file is a tree without branches.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The object itself.
    pub(crate) top: Incoming,
    /// Files and links in it.
    pub(crate) leaves: Vec<Incoming>,
    /// Directories in it.
    pub(crate) trees: Vec<Tree>,
    /// Given if nothing follows below the directory after this batch.
    pub(crate) finish: Option<Finish>,
    /// Name of the whole in the staging folder.
    pub(crate) staged: Vec<u8>,
}

impl Tree {
    pub(crate) fn of(top: Incoming) -> Tree {
        Tree { top, leaves: Vec::new(), trees: Vec::new(), finish: None, staged: Vec::new() }
    }

    /// Every object of the tree, directories before what is in them.
    pub(crate) fn each<'t>(&'t self, see: &mut dyn FnMut(&'t Incoming)) {
        see(&self.top);
        self.leaves.iter().for_each(&mut *see);
        self.trees.iter().for_each(|tree| tree.each(see));
    }

    /// Every object of the tree, to be changed.
    pub(crate) fn each_mut(&mut self, see: &mut dyn FnMut(&mut Incoming)) {
        see(&mut self.top);
        self.leaves.iter_mut().for_each(&mut *see);
        self.trees.iter_mut().for_each(|tree| tree.each_mut(see));
    }

    /// Every `Finish` of the tree, with its directory.
    pub(crate) fn each_finish<'t>(&'t self, see: &mut dyn FnMut(&'t Incoming, Finish)) {
        self.trees.iter().for_each(|tree| tree.each_finish(see));
        if let Some(finish) = self.finish {
            see(&self.top, finish);
        }
    }

    fn fail(&mut self, failure: &Failure) {
        self.each_mut(&mut |incoming| incoming.outcome = Some(Err(failure.clone())));
    }
}

/// Whose object stands in the staging folder under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owned {
    /// Ours to delete.
    Ours,
    /// Ours if it still has this inode; else a user's, displaced by an exchange.
    OursIf(u64),
    /// Not named by us.
    Foreign,
}

/// Whose is what stands under this name of the staging folder?
pub(crate) fn owner_of(name: &[u8]) -> Owned {
    let parts: Vec<&[u8]> = name.split(|b| *b == b'-').collect();
    let number = |hex: &[u8]| u64::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok();
    match parts[..] {
        [b"new" | b"part", run, seq] if number(run).is_some() && number(seq).is_some() => Owned::Ours,
        [b"swap", ino, run, seq] if number(run).is_some() && number(seq).is_some() => {
            number(ino).map_or(Owned::Foreign, Owned::OursIf)
        }
        _ => Owned::Foreign,
    }
}

/// How many bytes are missing for `needed` more, if any.
///
/// # Errors
/// The file system cannot be asked.
pub fn shortfall(root: &Root, needed: u64) -> Result<Option<u64>, FsError> {
    let (free, _) = root.space()?;
    Ok(needed.checked_sub(free).filter(|missing| *missing > 0))
}

/// The staging folder of a root, for one run.
pub(crate) struct Stage {
    dir: Dir,
    mask: AttrMask,
    run: u64,
    next: AtomicU64,
}

impl Stage {
    /// A staging folder for this run.
    pub(crate) fn open(dir: Dir, mask: AttrMask) -> Result<Stage, FsError> {
        let run = getrandom::u64().map_err(|error| FsError {
            action: "draw a random name for",
            path: dir.path().to_owned(),
            source: io::Error::other(error),
        })?;
        // Permissions that are not replicated are still those a new object starts with.
        let mask = AttrMask { perms: true, ..mask };
        Ok(Stage { dir, mask, run, next: AtomicU64::new(0) })
    }

    /// The folder itself.
    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Brings trees, in parallel. What fails says so in its outcome and leaves nothing behind. A file that finds no room
    /// is not begun. `here` is the root that they are for.
    pub(crate) fn fill(&self, here: &Root, source: &dyn Source, trees: &mut [&mut Tree]) {
        self.refuse_what_finds_no_room(trees);
        let bringing = Bringing { stage: self, here, source };
        let mut all = || bringing.all(trees, &|tree, asked| self.bring(&bringing, tree, asked));
        match source.threads() {
            Some(pool) => pool.install(all),
            None => all(),
        }
    }

    fn refuse_what_finds_no_room(&self, trees: &mut [&mut Tree]) {
        // Where it cannot be asked, the copy will tell.
        let Ok((free, _)) = self.dir.space() else { return };
        let mut left = free.saturating_sub(SPARE_BYTES);
        let mut refuse = |incoming: &mut Incoming| {
            let Content::File { size: size @ 1.., .. } = incoming.object.content else { return };
            match left.checked_sub(size.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX)) {
                Some(rest) => left = rest,
                None => {
                    let what = format!("no room for its {size} bytes: {left} are free; make room and run again");
                    incoming.outcome = Some(Err(Failure::new("copy", what)));
                }
            }
        };
        trees.iter_mut().for_each(|tree| tree.each_mut(&mut refuse));
    }

    /// Brings one tree.
    fn bring(&self, bringing: &Bringing<'_>, tree: &mut Tree, asked: Option<&mut Asked<'_>>) {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        let replaces = tree.top.expect.is_some();
        let kind = if replaces { "part" } else { "new" };
        let name = format!("{kind}-{:x}-{seq:x}", self.run).into_bytes();
        bringing.tree((&self.dir, &name), tree, true, asked);
        if let (true, Some(Ok(signature))) = (replaces, &tree.top.outcome) {
            let final_name = format!("swap-{:x}-{:x}-{seq:x}", signature.ino, self.run).into_bytes();
            match self.dir.rename(&name, &self.dir, &final_name, Replace::Never) {
                Ok(()) => tree.staged = final_name,
                Err(error) => tree.fail(&Failure::of("stage")(&error)),
            }
            kill_point("stage-renamed");
        } else {
            tree.staged = name.clone();
        }
        if let Some(Err(_)) = tree.top.outcome {
            self.discard(&name, tree);
        }
        kill_point("stage-done");
    }

    /// Removes what a failed staging left; a failure of that is told with the path's own.
    fn discard(&self, name: &[u8], tree: &mut Tree) {
        if let (Err(error), Some(Err(failure))) = (remove_all(&self.dir, name), &mut tree.top.outcome) {
            failure.reason.push_str(&format!("; {error}"));
        }
    }
}

/// Removes a file, link or whole tree that is ours; a missing one is fine.
pub(crate) fn remove_all(dir: &Dir, name: &[u8]) -> Result<(), FsError> {
    let Some(signature) = dir.stat(name)? else { return Ok(()) };
    if signature.mode & TYPE_BITS != 0o040_000 {
        return dir.unlink(name);
    }
    let below = dir.open_dir(name)?;
    if signature.mode & FILLING != FILLING {
        let attrs = Attrs { mode: FILLING, ..Attrs::default() };
        let mask = AttrMask { perms: true, owner: false, times: false };
        below.set_attrs_self(&attrs, mask)?;
    }
    for child in below.names()? {
        remove_all(&below, &child)?;
    }
    dir.rmdir(name)
}

/// What a chunk holds.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    objects: usize,
    bytes: u64,
}

impl Load {
    fn of(incoming: &Incoming) -> Load {
        let bytes = match incoming.object.content {
            Content::File { size, .. } => size,
            Content::Dir | Content::Symlink(_) => 0,
        };
        Load { objects: 1, bytes }
    }

    fn of_tree(tree: &Tree) -> Load {
        let mut load = Load::default();
        tree.each(&mut |incoming| load = load.and(Load::of(incoming)));
        load
    }

    fn and(self, other: Load) -> Load {
        Load { objects: self.objects + other.objects, bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn exceeds(self, objects: usize) -> bool {
        self.objects > objects || self.bytes > CHUNK_BYTES
    }
}

/// Cuts neighbours into chunks. What is larger than a chunk is one by itself.
fn chunks<T>(mut items: &mut [T], objects: usize, load: impl Fn(&T) -> Load) -> Vec<&mut [T]> {
    let mut chunks = Vec::new();
    let (mut held, mut count) = (Load::default(), 0);
    while count < items.len() {
        let with_next = held.and(load(&items[count]));
        if count > 0 && with_next.exceeds(objects) {
            let (chunk, rest) = items.split_at_mut(count);
            chunks.push(chunk);
            (items, held, count) = (rest, Load::default(), 0);
        } else {
            (held, count) = (with_next, count + 1);
        }
    }
    if !items.is_empty() {
        chunks.push(items);
    }
    chunks
}

/// A chunk that the source was asked for: its files are taken in the order in which they are staged.
struct Asked<'a> {
    feed: Box<dyn Feed + 'a>,
    /// Number of the next file.
    next: usize,
}

/// Is its content asked for? Not if it was refused already.
fn is_asked_for(incoming: &Incoming) -> bool {
    !matches!(incoming.outcome, Some(Err(_))) && matches!(incoming.object.content, Content::File { .. })
}

struct Bringing<'a> {
    stage: &'a Stage,
    here: &'a Root,
    source: &'a dyn Source,
}

impl Bringing<'_> {
    /// Hands trees to threads, chunk by chunk. A directory that is larger than a chunk is cut up itself: `one` gets none for it.
    fn all(&self, trees: &mut [&mut Tree], one: &(impl Fn(&mut Tree, Option<&mut Asked<'_>>) + Sync)) {
        let each = |chunk: &mut [&mut Tree]| {
            if let [tree] = chunk
                && tree.top.object.content == Content::Dir
                && Load::of_tree(tree).exceeds(CHUNK_OBJECTS)
            {
                return one(tree, None);
            }
            let mut asked = self.ask(|see| chunk.iter().for_each(|tree| tree.each(see)));
            chunk.iter_mut().for_each(|tree| one(tree, Some(&mut asked)));
        };
        match &mut chunks(trees, CHUNK_OBJECTS, |tree| Load::of_tree(tree))[..] {
            [chunk] => each(chunk),
            chunks => chunks.par_iter_mut().for_each(|chunk| each(chunk)),
        }
    }

    /// Asks for the files among what `each` shows.
    fn ask<'t>(&self, each: impl FnOnce(&mut dyn FnMut(&'t Incoming))) -> Asked<'_> {
        let mut wanted = Vec::new();
        each(&mut |incoming| {
            if let (true, Content::File { size, hash }) = (is_asked_for(incoming), &incoming.object.content) {
                // Only directories come without a row.
                let m = incoming.theirs.as_ref().map(|row| row.m.clone()).unwrap_or_default();
                let replaces_file = incoming.expect.as_ref().is_some_and(|row| row.object.kind() == Kind::File);
                let base = replaces_file.then(|| incoming.path.clone());
                wanted.push(Wanted { path: incoming.from.clone(), size: *size, hash: *hash, m, base });
            }
        });
        Asked { feed: self.source.feed(self.here, wanted), next: 0 }
    }

    /// Stages a tree under a name in a directory; `top` tells the whole from a branch in it. Without `asked` its content is
    /// asked for part by part.
    fn tree(&self, at: (&Dir, &[u8]), tree: &mut Tree, top: bool, asked: Option<&mut Asked<'_>>) {
        let Some(asked) = asked else { return self.tree_of(at, tree, top, |dir, tree| self.fill_large(dir, tree)) };
        // Whatever fails in it, what follows it is numbered from here on.
        let mut files = 0;
        tree.each(&mut |incoming| files += usize::from(is_asked_for(incoming)));
        let after = asked.next + files;
        if tree.top.object.content == Content::Dir {
            self.tree_of(at, tree, top, |dir, tree| self.fill_small(dir, tree, asked));
        } else {
            let outcome = self.leaf(at, &mut tree.top, asked);
            tree.top.outcome = Some(outcome);
        }
        asked.next = after;
    }

    fn tree_of(&self, at: (&Dir, &[u8]), tree: &mut Tree, top: bool, fill: impl FnOnce(&Dir, &mut Tree)) {
        match self.directory(at, tree, top, fill) {
            Ok(signature) => tree.top.outcome = Some(Ok(signature)),
            Err(error) => {
                tree.fail(&Failure::new("create", "its directory could not be made"));
                tree.top.outcome = Some(Err(Failure::of("create directory")(&error)));
            }
        }
    }

    fn directory(
        &self,
        (parent, name): (&Dir, &[u8]),
        tree: &mut Tree,
        top: bool,
        fill: impl FnOnce(&Dir, &mut Tree),
    ) -> Result<Signature, FsError> {
        let dir = parent.create_dir(name)?;
        kill_point("stage-dir-created");
        fill(&dir, tree);
        kill_point("stage-dir-filled");
        let (attrs, mask) = self.filled_attrs(tree, top);
        dir.set_attrs_self(&attrs, mask)?;
        dir.stat_self()
    }

    /// Fills a directory of a chunk.
    fn fill_small(&self, dir: &Dir, tree: &mut Tree, asked: &mut Asked<'_>) {
        tree.leaves.iter_mut().for_each(|leaf| self.leaf_of(dir, leaf, asked));
        tree.trees.iter_mut().for_each(|branch| self.branch(dir, branch, Some(asked)));
    }

    /// Fills a directory that is larger than a chunk.
    fn fill_large(&self, dir: &Dir, tree: &mut Tree) {
        // Of equal length, so that no thread comes into the directory for a few.
        let objects = tree.leaves.len().div_ceil((tree.leaves.len() / CHUNK_OBJECTS).max(1));
        chunks(&mut tree.leaves, objects, Load::of).par_iter_mut().for_each(|chunk| {
            let mut asked = self.ask(|see| chunk.iter().for_each(see));
            chunk.iter_mut().for_each(|leaf| self.leaf_of(dir, leaf, &mut asked));
        });
        let mut branches: Vec<&mut Tree> = tree.trees.iter_mut().collect();
        self.all(&mut branches, &|branch, asked| self.branch(dir, branch, asked));
    }

    fn branch(&self, dir: &Dir, branch: &mut Tree, asked: Option<&mut Asked<'_>>) {
        let name = own_name(&branch.top.path);
        self.tree((dir, &name), branch, false, asked);
        self.drop_failed(dir, &name, branch);
    }

    /// A branch that failed must not be renamed into place with the rest.
    fn drop_failed(&self, dir: &Dir, name: &[u8], branch: &mut Tree) {
        if let Some(Err(failure)) = &mut branch.top.outcome
            && let Err(error) = remove_all(dir, name)
        {
            failure.reason.push_str(&format!("; {error}"));
        }
    }

    /// Attributes of a directory at the end of its staging. What is still to be filled, or to be renamed by an
    /// unprivileged owner, stays writable to the owner until then.
    fn filled_attrs(&self, tree: &Tree, top: bool) -> (Attrs, AttrMask) {
        let mut attrs = tree.top.object.attrs;
        if top || tree.finish.is_none() {
            attrs.mode |= FILLING;
        }
        let mut mask = self.stage.mask;
        match tree.finish {
            Some(finish) => attrs.mtime_ns = finish.mtime_ns,
            None => mask.times = false,
        }
        (attrs, mask)
    }

    fn leaf_of(&self, dir: &Dir, leaf: &mut Incoming, asked: &mut Asked<'_>) {
        let outcome = self.leaf((dir, &own_name(&leaf.path)), leaf, asked);
        leaf.outcome = Some(outcome);
    }

    fn leaf(&self, (dir, name): (&Dir, &[u8]), leaf: &mut Incoming, asked: &mut Asked<'_>) -> Result<Signature, Failure> {
        if let Some(Err(refused)) = &leaf.outcome {
            return Err(refused.clone());
        }
        let outcome = match &leaf.object.content {
            Content::Symlink(target) => {
                let target = target.clone();
                self.symlink(dir, name, &target, &leaf.object.attrs)
            }
            Content::File { .. } => self.file(dir, name, leaf, asked),
            Content::Dir => Err(Failure::new("create", "a directory is no leaf")),
        };
        if outcome.is_err() {
            remove_all(dir, name).map_err(|error| Failure::of("clean up")(&error))?;
        }
        outcome
    }

    fn symlink(&self, dir: &Dir, name: &[u8], target: &[u8], attrs: &Attrs) -> Result<Signature, Failure> {
        let failed = |error: FsError| Failure::of("create symbolic link")(&error);
        dir.create_symlink(name, target).map_err(failed)?;
        kill_point("stage-symlink-created");
        dir.set_attrs(name, attrs, self.stage.mask).map_err(failed)?;
        let vanished = || Failure::new("create symbolic link", "it vanished from the staging folder");
        dir.stat(name).map_err(failed)?.ok_or_else(vanished)
    }

    fn file(&self, dir: &Dir, name: &[u8], leaf: &mut Incoming, asked: &mut Asked<'_>) -> Result<Signature, Failure> {
        let number = asked.next;
        asked.next += 1;
        let failed = |error: FsError| Failure::of("create")(&error);
        let mut file = dir.create_file_for(name, leaf.object.attrs.mode).map_err(failed)?;
        kill_point("stage-file-created");
        let fetched = asked.feed.fetch(number, &mut file).map_err(|error| Failure::of("copy")(&error))?;
        kill_point("stage-file-written");
        verify(&mut leaf.object.content, fetched.size, fetched.hash)?;
        let shown = Path::new(OsStr::from_bytes(leaf.path.as_bytes()));
        let signature = finish_file(&file, shown, &leaf.object.attrs, self.stage.mask).map_err(failed)?;
        kill_point("stage-file-ready");
        if signature.size != fetched.size {
            return Err(Failure::new("copy", "the staged file has another size than was written"));
        }
        Ok(signature)
    }
}

/// Compares what was written with what was announced, and fills in a hash that nobody knew.
fn verify(content: &mut Content, written: u64, found: Hash) -> Result<(), Failure> {
    let Content::File { size, hash } = content else {
        return Err(Failure::new("copy", "it is no file"));
    };
    if *size != written || hash.is_some_and(|hash| hash != found) {
        return Err(Failure::new("copy", "it was changed while it was copied"));
    }
    *hash = Some(found);
    Ok(())
}

fn own_name(path: &RelPath) -> Vec<u8> {
    path.name().map(|name| name.as_bytes().to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(sizes: &[u64], objects: usize) -> Vec<usize> {
        let mut items = sizes.to_vec();
        let chunks = chunks(&mut items, objects, |size| Load { objects: 1, bytes: *size });
        chunks.iter().map(|chunk| chunk.len()).collect()
    }

    #[test]
    fn chunks_hold_so_many_objects_and_so_many_bytes_or_one_that_is_larger() {
        assert!(cut(&[], 3).is_empty());
        assert_eq!(cut(&[0; 7], 3), [3, 3, 1]);
        assert_eq!(cut(&[CHUNK_BYTES / 2; 5], 9), [2, 2, 1]);
        assert_eq!(cut(&[1, CHUNK_BYTES + 1, 1, 1], 9), [1, 1, 2]);
        assert_eq!(cut(&[u64::MAX, u64::MAX], 9), [1, 1]);
    }
}
