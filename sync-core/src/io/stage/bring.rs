//! Trees are brought chunk by chunk: a chunk is what one thread asks the source for at once, and then stages, one file after the other.

use super::parts::{PART_MIN, Part};
use super::{FILLING, Failure, Incoming, Stage, Supply, Tree, remove_all};
use crate::entry::{AttrMask, Attrs, Content, Hash, Signature};
use crate::io::fs::{Dir, FsError, Replace, finish_file};
use crate::io::kill::kill_point;
use crate::io::link::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::io::mutex::lock;
use crate::io::source::{Feed, SourceError, Wanted};
use crate::path::RelPath;
use rayon::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// Objects of a chunk: what one thread asks the source for at once and then stages, one after the other. Fewer of one
/// directory are not handed to another thread: two that create in one directory wait for each other in the kernel, two
/// that work in different ones do not.
const CHUNK_OBJECTS: usize = 256;
/// Content of a chunk; a larger file is one by itself.
const CHUNK_BYTES: u64 = 8 << 20;
/// Content of a chunk that is asked for while the one before it is staged: what a stream holds that nobody reads.
const AHEAD_BYTES: u64 = STREAM_WINDOW as u64 / 2;
/// Content of all such chunks: the other half of the connection's window stays for what is read.
const AHEAD: u64 = CONNECTION_WINDOW as u64 / 2;

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
pub(super) struct Asked<'a> {
    feed: Box<dyn Feed + 'a>,
    /// Number of the next file.
    next: usize,
    /// What has come of some of them already, by number.
    parts: BTreeMap<usize, Part>,
}

/// Is its content asked for? Not if it was refused already.
fn is_asked_for(incoming: &Incoming) -> bool {
    !matches!(incoming.outcome, Some(Err(_))) && matches!(incoming.object.content, Content::File { .. })
}

/// Brings trees into a staging folder.
pub(super) struct Bringing<'a> {
    pub(super) stage: &'a Stage,
    pub(super) supply: Supply<'a>,
}

impl Bringing<'_> {
    /// Hands trees to threads, chunk by chunk. A directory that is larger than a chunk is cut up itself: `one` gets none for it.
    pub(super) fn all(&self, trees: &mut [&mut Tree], one: &(impl Fn(&mut Tree, Option<&mut Asked<'_>>) + Sync)) {
        let chunks = chunks(trees, CHUNK_OBJECTS, |tree| Load::of_tree(tree));
        let ask = |chunk: &[&mut Tree]| match chunk {
            [tree] if tree.top.object.content == Content::Dir && Load::of_tree(tree).exceeds(CHUNK_OBJECTS) => None,
            chunk => Some(self.ask(|see| chunk.iter().for_each(|tree| tree.each(see)))),
        };
        self.hand_out(chunks, &|tree| Load::of_tree(tree), &ask, &|chunk, asked| match asked {
            None => chunk.iter_mut().for_each(|tree| one(tree, None)),
            Some(mut asked) => {
                chunk.iter_mut().for_each(|tree| one(tree, Some(&mut asked)));
                self.leave(asked);
            }
        });
    }

    /// Hands chunks to threads. Where content crosses a link a thread asks for its next chunk before it takes the one that it asked
    /// for last, as far as there is room for what nobody reads yet ([`AHEAD_BYTES`], [`AHEAD`]): else all threads would be done with
    /// theirs at the same time, and the link would stand still until the next requests are there.
    fn hand_out<'t, 's, T: Send>(
        &'s self,
        mut chunks: Vec<&'t mut [T]>,
        load: &(impl Fn(&T) -> Load + Sync),
        ask: &(impl Fn(&[T]) -> Option<Asked<'s>> + Sync),
        take: &(impl Fn(&mut [T], Option<Asked<'s>>) + Sync),
    ) {
        let bytes = |chunk: &[T]| chunk.iter().map(load).fold(Load::default(), Load::and).bytes;
        match &mut chunks[..] {
            [] => return,
            [chunk] => return take(chunk, ask(chunk)),
            chunks if !self.supply.source.resumes() => return chunks.par_iter_mut().for_each(|chunk| take(chunk, ask(chunk))),
            _ => {}
        }
        let count = chunks.len();
        let waiting = Mutex::new(VecDeque::from(chunks));
        let next_if = |fits: &dyn Fn(&[T]) -> bool| {
            let mut waiting = lock(&waiting);
            if waiting.front().is_some_and(|chunk| fits(chunk)) { waiting.pop_front() } else { None }
        };
        let work = || {
            let mut ahead = None;
            while let Some((chunk, asked, held)) = ahead.take().or_else(|| {
                let chunk = next_if(&|_| true)?;
                let asked = ask(&*chunk);
                Some((chunk, asked, 0))
            }) {
                // It is read from here on.
                self.stage.ahead.fetch_sub(held, Ordering::Relaxed);
                if asked.is_some()
                    && let Some(chunk) = next_if(&|chunk| self.has_room_for(bytes(chunk)))
                {
                    let asked = ask(&*chunk);
                    let held = bytes(&*chunk);
                    ahead = Some((chunk, asked, held));
                }
                take(chunk, asked);
            }
        };
        // Whoever waits for a batch takes no work of the next one meanwhile: it would wait for that too.
        let threads = self.supply.source.threads();
        let most = threads.map_or_else(rayon::current_num_threads, rayon::ThreadPool::current_num_threads);
        let each = 0..count.min(most);
        match threads {
            Some(threads) => threads.in_place_scope(|scope| each.for_each(|_| scope.spawn(|_| work()))),
            None => rayon::in_place_scope(|scope| each.for_each(|_| scope.spawn(|_| work()))),
        }
    }

    /// Takes the room, if there is any.
    fn has_room_for(&self, bytes: u64) -> bool {
        let taken = |ahead: u64| Some(ahead + bytes).filter(|ahead| *ahead <= AHEAD);
        bytes <= AHEAD_BYTES && self.stage.ahead.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// Asks for the files among what `each` shows.
    fn ask<'t>(&self, each: impl FnOnce(&mut dyn FnMut(&'t Incoming))) -> Asked<'_> {
        let (mut wanted, mut parts) = (Vec::new(), BTreeMap::new());
        each(&mut |incoming| {
            if let (true, Content::File { size, hash }) = (is_asked_for(incoming), &incoming.object.content) {
                // Only directories come without a row.
                let m = incoming.theirs.as_ref().map(|row| row.m.clone()).unwrap_or_default();
                let part = self.stage.begun(incoming, *size).and_then(|known_by| self.part(&known_by, *size));
                let held = part.as_ref().map_or(0, |part| part.held);
                // Had a file that only looks alike helped, it would not have been half-way.
                let base = incoming.base().filter(|_| held == 0 || incoming.replaces_file());
                parts.extend(part.map(|part| (wanted.len(), part)));
                wanted.push(Wanted { path: incoming.from.clone(), size: *size, hash: *hash, m, base, held });
            }
        });
        Asked { feed: self.supply.source.feed(self.supply.here, wanted), next: 0, parts }
    }

    /// What has come of a content already. Where that cannot be told, it comes from its beginning.
    fn part(&self, known_by: &Hash, size: u64) -> Option<Part> {
        let resumes = self.supply.source.resumes() && size >= PART_MIN;
        resumes.then(|| self.stage.parts.take(&self.stage.dir, known_by, size).ok()).flatten().flatten()
    }

    /// Files of a chunk that were not begun after all leave what there is of them.
    fn leave(&self, asked: Asked<'_>) {
        for part in asked.parts.into_values() {
            if part.held == 0 {
                // What cannot be removed is thrown away when it is met again.
                let _left = self.stage.dir.unlink(&part.name);
            }
            self.stage.parts.let_go(&part.name);
        }
    }

    /// Stages a tree under a name in a directory; `top` tells the whole from a branch in it. Without `asked` its content is
    /// asked for part by part.
    pub(super) fn tree(&self, at: (&Dir, &[u8]), tree: &mut Tree, top: bool, asked: Option<&mut Asked<'_>>) {
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
        let ask = |chunk: &[Incoming]| Some(self.ask(|see| chunk.iter().for_each(see)));
        self.hand_out(chunks(&mut tree.leaves, objects, Load::of), &Load::of, &ask, &|chunk, asked| {
            if let Some(mut asked) = asked {
                chunk.iter_mut().for_each(|leaf| self.leaf_of(dir, leaf, &mut asked));
                self.leave(asked);
            }
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
                let target = leaf.disk.as_ref().unwrap_or(target).clone();
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
        let mut target = match asked.parts.remove(&number) {
            Some(part) => Target::Part(part),
            None => Target::New(dir.create_file_for(name, leaf.object.attrs.mode).map_err(failed)?),
        };
        kill_point("stage-file-created");
        let listed = match leaf.object.content {
            Content::File { size, .. } => self.supply.under_way.begin(&leaf.path, size, target.file()),
            Content::Dir | Content::Symlink(_) => None,
        };
        let fetched = asked.feed.fetch(number, target.file()).map_err(|error| self.give_up(&target, &error))?;
        drop(listed);
        kill_point("stage-file-written");
        verify(&mut leaf.object.content, fetched.size, fetched.hash).inspect_err(|_| self.drop_part(&target))?;
        let file = self.arrive(target, dir, name).map_err(failed)?;
        let shown = Path::new(OsStr::from_bytes(leaf.path.as_bytes()));
        let signature = finish_file(&file, shown, &leaf.object.attrs, self.stage.mask).map_err(failed)?;
        kill_point("stage-file-ready");
        if signature.size != fetched.size {
            return Err(Failure::new("copy", "the staged file has another size than was written"));
        }
        Ok(signature)
    }

    /// What has come of a file stays if it was the connection that failed.
    fn give_up(&self, target: &Target, error: &SourceError) -> Failure {
        match target {
            // One without a byte would only push out others that have some.
            Target::Part(part) if error.is_lost_connection() && part.file.metadata().is_ok_and(|part| part.len() > 0) => {
                self.stage.parts.let_go(&part.name);
            }
            target => self.drop_part(target),
        }
        Failure::of("copy")(error)
    }

    fn drop_part(&self, target: &Target) {
        if let Target::Part(part) = target {
            // What cannot be removed is thrown away when it is met again.
            let _left = self.stage.dir.unlink(&part.name);
            self.stage.parts.let_go(&part.name);
        }
    }

    /// A file that is whole goes to its own name.
    fn arrive(&self, target: Target, dir: &Dir, name: &[u8]) -> Result<File, FsError> {
        let part = match target {
            Target::New(file) => return Ok(file),
            Target::Part(part) => part,
        };
        let moved = self.stage.dir.rename(&part.name, dir, name, Replace::Never);
        self.stage.parts.let_go(&part.name);
        moved.map(|()| part.file)
    }
}

/// Where the bytes of a file go.
enum Target {
    /// To a file under its own name.
    New(File),
    /// To what has come of it.
    Part(Part),
}

impl Target {
    fn file(&mut self) -> &mut File {
        match self {
            Target::New(file) | Target::Part(Part { file, .. }) => file,
        }
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
