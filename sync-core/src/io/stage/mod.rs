//! Incoming content on the root's own file system: brought, verified, given its attributes, ready to be renamed
//! into place. A new directory is staged with everything below it and renamed once.
//!
//! What stands in the staging folder under a name of ours is ours to delete, with one exception: a name that is
//! exchanged with a user's object holds that object afterwards. Such names carry the inode of what was staged,
//! so that the two can be told apart whenever the process ends. Beginnings of large files from another machine stay
//! for some time (`parts`).

mod bring;
mod parts;
mod under_way;

use crate::entry::{AttrMask, Attrs, Content, Hash, Kind, Object, Signature};
use crate::io::fs::{Choice, ColdId, Dir, FsError, Replace, Root};
use crate::io::kill::kill_point;
use crate::io::source::{Source, TYPE_BITS};
use crate::knowledge::Row;
use crate::path::RelPath;
use crate::plan::{Displaced, Item, Stamp};
use crate::reserve::Reserve;
pub use under_way::UnderWay;

use bring::{Asked, Bringing};
use parts::{PART_MIN, Parts, is_part, prune, unread};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that stay free at the least: the state has to record what was done.
pub(crate) const SPARE_BYTES: u64 = 1 << 20;
/// Files take whole blocks.
pub(crate) const BLOCK_BYTES: u64 = 4_096;
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
    /// What a link reads on the disk here, if that is not its target.
    pub(crate) disk: Option<Box<[u8]>>,
    /// What is expected to stand here.
    pub(crate) expect: Option<Row>,
    /// A file here that may have its content, under another path.
    pub(crate) alike: Option<RelPath>,
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

impl Incoming {
    fn replaces_file(&self) -> bool {
        self.expect.as_ref().is_some_and(|row| row.object.kind() == Kind::File)
    }

    /// The file here that its content may be made of.
    fn base(&self) -> Option<RelPath> {
        if self.replaces_file() { Some(self.path.clone()) } else { self.alike.clone() }
    }

    /// By what the beginning of its content may be known: its hash, and what stands for it as long as nobody has read it, which may
    /// have been so when the beginning came. Not for a new version of a file here: what is left of that costs less as a delta, and a
    /// beginning that is known by its hash is used only where there is no delta.
    fn known_by(&self) -> impl Iterator<Item = Hash> {
        let hash = if let Content::File { hash, .. } = self.object.content { hash } else { None };
        let unread = self.theirs.as_ref().filter(|_| !self.replaces_file()).map(|row| unread(&row.m, &self.from));
        hash.into_iter().chain(unread)
    }
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
    /// The cold root that the staging folder is in; `None` for the root's own.
    pub(crate) cold: Option<ColdId>,
    /// A directory that is to lie in a cold root.
    pub(crate) choice: Option<Choice>,
}

impl Tree {
    pub(crate) fn of(top: Incoming) -> Tree {
        Tree { top, leaves: Vec::new(), trees: Vec::new(), finish: None, staged: Vec::new(), cold: None, choice: None }
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
    /// Ours: the beginning of a large file, which is kept for some time.
    Part,
    /// Not named by us.
    Foreign,
}

/// A name in any staging folder for an object of ours.
pub(crate) fn fresh_name() -> Result<Vec<u8>, Failure> {
    let random = || getrandom::u64().map_err(|error| Failure::new("draw a random name", error.to_string()));
    Ok(format!("new-{:x}-{:x}", random()?, random()?).into_bytes())
}

/// Whose is what stands under this name of the staging folder?
pub(crate) fn owner_of(name: &[u8]) -> Owned {
    if is_part(name) {
        return Owned::Part;
    }
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

/// How many bytes are missing for `needed` more, and for what stays free, if any.
///
/// # Errors
/// The file system cannot be asked.
pub fn shortfall(root: &Root, needed: u64, reserve: Reserve) -> Result<Option<u64>, FsError> {
    let (free, total) = root.room()?;
    Ok(needed.saturating_add(reserve.of(total)).checked_sub(free).filter(|missing| *missing > 0))
}

/// Why a file was not begun that would take from what stays free.
fn no_room(needed: u64, left: u64, reserve: u64) -> String {
    let (needed, free, kept) = (sized(needed), sized(left.saturating_add(reserve)), sized(reserve));
    format!(
        "no room: it needs {needed}, {free} are free, and {kept} of them are kept free (limits.reserve); make room, and it comes by \
         itself"
    )
}

/// A number of bytes as people read it.
fn sized(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() as usize / 10).min(UNITS.len() - 1);
    match unit {
        0 => format!("{bytes} bytes"),
        _ => format!("{:.1} {}", bytes as f64 / (1u64 << (10 * unit)) as f64, UNITS[unit]),
    }
}

/// What staging needs besides a folder.
#[derive(Clone, Copy)]
pub(crate) struct Supply<'a> {
    /// The root that content is for.
    pub(crate) here: &'a Root,
    /// Where it comes from.
    pub(crate) source: &'a dyn Source,
    /// Where is shown what is on its way.
    pub(crate) under_way: &'a UnderWay,
    /// What stays free where it comes to.
    pub(crate) reserve: Reserve,
}

/// The staging folder of a root, for one run.
pub(crate) struct Stage {
    dir: Dir,
    mask: AttrMask,
    run: u64,
    next: AtomicU64,
    parts: Parts,
    /// Bytes of content that were asked for and that nobody reads yet.
    ahead: AtomicU64,
}

impl Stage {
    /// A staging folder for this run. Old beginnings go: a root may stay open for months, and no recovery comes upon them.
    pub(crate) fn open(dir: Dir, mask: AttrMask) -> Result<Stage, FsError> {
        prune(&dir)?;
        Stage::beside(dir, mask)
    }

    /// As [`Stage::open`], where somebody else may be at work in the folder: nothing in it goes.
    pub(crate) fn beside(dir: Dir, mask: AttrMask) -> Result<Stage, FsError> {
        let run = getrandom::u64().map_err(|error| FsError {
            action: "draw a random name for",
            path: dir.path().to_owned(),
            source: io::Error::other(error),
        })?;
        // Permissions that are not replicated are still those a new object starts with.
        let mask = AttrMask { perms: true, ..mask };
        Ok(Stage { dir, mask, run, next: AtomicU64::new(0), parts: Parts::default(), ahead: AtomicU64::new(0) })
    }

    /// The folder itself.
    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// A name for an object with this inode that is about to be taken from its path: should another come out, it is not ours.
    pub(crate) fn name_for(&self, ino: u64) -> Vec<u8> {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        format!("swap-{ino:x}-{:x}-{seq:x}", self.run).into_bytes()
    }

    /// Brings trees, in parallel. What fails says so in its outcome and leaves nothing behind. A file that finds no room
    /// is not begun.
    pub(crate) fn fill(&self, supply: Supply<'_>, trees: &mut [&mut Tree]) {
        self.refuse_what_finds_no_room(trees, supply);
        let bringing = Bringing { stage: self, supply };
        bringing.all(trees, &|tree, asked| self.bring(&bringing, tree, asked));
    }

    /// By what the beginning of a content is known here, or would be; none of small ones.
    fn begun(&self, incoming: &Incoming, size: u64) -> Option<Hash> {
        if size < PART_MIN {
            return None;
        }
        let is_here = |known_by: &Hash| Parts::held(&self.dir, known_by, size) > 0;
        incoming.known_by().find(is_here).or_else(|| incoming.known_by().next())
    }

    fn refuse_what_finds_no_room(&self, trees: &mut [&mut Tree], supply: Supply<'_>) {
        // Where it cannot be asked, the copy will tell.
        let Ok((free, total)) = self.dir.room() else { return };
        let (resumes, reserve) = (supply.source.resumes(), supply.reserve.of(total));
        let mut left = free.saturating_sub(reserve.max(SPARE_BYTES));
        let mut refuse = |incoming: &mut Incoming| {
            let Content::File { size: size @ 1.., .. } = incoming.object.content else { return };
            // What has come of it already takes its room no second time.
            let held =
                self.begun(incoming, size).filter(|_| resumes).map_or(0, |known_by| Parts::held(&self.dir, &known_by, size));
            let needed = (size - held).checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX);
            match left.checked_sub(needed) {
                Some(rest) => left = rest,
                None => {
                    let what = match reserve {
                        0 => format!("no room for its {size} bytes: {left} are free; make room and run again"),
                        _ => no_room(needed, left, reserve),
                    };
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
