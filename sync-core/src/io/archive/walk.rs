//! Walks of a day: what is in it, and how it differs from a manifest. In the order of paths, which is the order of manifests.

use super::error::ArchiveError;
use super::links::{self, Leads};
use super::manifest::{Entry, Reader};
use crate::entry::{Kind, Signature};
use crate::io::fs::{Dir, FsError, Look, Mount};
use crate::io::source::kind_of;
use crate::path::{MAX_DEPTH, Name, PathError, RelPath};
use std::collections::HashMap;

/// What is in a day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// Files, counted by name.
    pub files: u64,
    /// Everything, the day itself included: each needs an inode.
    pub objects: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes that they occupy.
    pub allocated: u64,
    /// The latest modification time of anything, ns.
    pub newest_mtime_ns: i64,
    /// The latest change time of anything, by the clock of the machine, ns.
    pub newest_ctime_ns: i64,
    /// What bears it.
    pub newest: RelPath,
    /// The first thing that cannot be moved as it is.
    pub obstacle: Option<Obstacle>,
    /// The first relative link that leads out of the day, if it can be written for another place.
    pub link_out: Option<RelPath>,
}

/// What cannot be moved as it is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// A device, pipe or socket.
    Special(RelPath),
    /// A relative link that leads out of the day on a way that cannot be told.
    Winding(RelPath),
    /// A file with another name outside of the day.
    HardLink(RelPath),
    /// Another file system is mounted there.
    Mount(RelPath),
    /// A private folder of driftless.
    Private(RelPath),
    /// A name or a depth that no replica could have.
    Name(RelPath),
    /// It may not be looked at.
    Unreadable(RelPath, String),
}

/// How something differs from the manifest.
pub(super) enum Difference<'a> {
    /// It is what it was.
    Same(Entry),
    /// It is something else, or was written to.
    Changed(Entry, &'a Dir, Look),
    /// It was not there.
    New(RelPath, &'a Dir, Look),
    /// It is gone.
    Gone(Entry),
}

/// Looks at all of a day. `day` is its path, for what is told.
pub(super) fn contents(dir: &Dir, day: &RelPath) -> Result<Contents, ArchiveError> {
    let own = dir.stat_self()?;
    let mut walk = Examine { day, mount: dir.mount()?, names: HashMap::new(), found: Contents::default() };
    walk.count(&RelPath::root(), &own, 0);
    walk.dir(dir, &RelPath::root())?;
    let outside = walk.names.into_values().find(|(_, found, links)| found < links);
    if let Some((path, ..)) = outside {
        walk.found.obstacle.get_or_insert(Obstacle::HardLink(path));
    }
    Ok(walk.found)
}

struct Examine<'a> {
    day: &'a RelPath,
    mount: Mount,
    /// Of files with several names, by inode: the first name, how many were found, how many there are.
    names: HashMap<u64, (RelPath, u64, u64)>,
    found: Contents,
}

impl Examine<'_> {
    fn count(&mut self, path: &RelPath, signature: &Signature, allocated: u64) {
        if signature.ctime_ns > self.found.newest_ctime_ns {
            (self.found.newest_ctime_ns, self.found.newest) = (signature.ctime_ns, self.shown(path));
        }
        let found = &mut self.found;
        found.objects += 1;
        found.allocated = found.allocated.saturating_add(allocated.max(4096));
        found.newest_mtime_ns = found.newest_mtime_ns.max(signature.mtime_ns);
    }

    fn obstacle(&mut self, obstacle: Obstacle) {
        self.found.obstacle.get_or_insert(obstacle);
    }

    /// The path in the root of something in the day.
    fn shown(&self, below: &RelPath) -> RelPath {
        below.rebase(&RelPath::root(), self.day).unwrap_or_else(|| self.day.clone())
    }

    fn dir(&mut self, dir: &Dir, path: &RelPath) -> Result<(), ArchiveError> {
        let names = match sorted(dir) {
            Ok(names) => names,
            Err(error) => {
                self.obstacle(Obstacle::Unreadable(self.shown(path), error.source.to_string()));
                return Ok(());
            }
        };
        for name in names {
            let Some(look) = dir.look(&name)? else { continue };
            let child = match Name::parse(&name) {
                Ok(name) if path.depth() + self.day.depth() < MAX_DEPTH => path.join(&name),
                Err(PathError::Reserved) => {
                    self.obstacle(Obstacle::Private(self.shown(path)));
                    continue;
                }
                _ => {
                    self.obstacle(Obstacle::Name(self.shown(path)));
                    continue;
                }
            };
            let kind = kind_of(&look.signature);
            self.count(&child, &look.signature, look.allocated);
            match kind {
                None => self.obstacle(Obstacle::Special(self.shown(&child))),
                Some(Kind::File) => self.file(&child, &look),
                Some(Kind::Symlink) => match links::leads(&dir.link_text(&name)?, path.depth()) {
                    Leads::Same => {}
                    Leads::Out { .. } => {
                        let shown = self.shown(&child);
                        self.found.link_out.get_or_insert(shown);
                    }
                    Leads::Winding => self.obstacle(Obstacle::Winding(self.shown(&child))),
                },
                Some(Kind::Dir) => match dir.open_dir(&name) {
                    Ok(below) if below.mount()? != self.mount => self.obstacle(Obstacle::Mount(self.shown(&child))),
                    Ok(below) => self.dir(&below, &child)?,
                    Err(error) => self.obstacle(Obstacle::Unreadable(self.shown(&child), error.source.to_string())),
                },
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &RelPath, look: &Look) {
        let found = &mut self.found;
        found.files += 1;
        found.bytes = found.bytes.saturating_add(look.signature.size);
        if look.links > 1 {
            let shown = path.rebase(&RelPath::root(), self.day).unwrap_or_default();
            let (_, count, _) = self.names.entry(look.signature.ino).or_insert((shown, 0, look.links));
            *count += 1;
        }
    }
}

/// Names of a directory, sorted: with the directories' own names in between, the order of paths.
pub(super) fn sorted(dir: &Dir) -> Result<Vec<Box<[u8]>>, FsError> {
    let mut names = dir.names()?;
    names.sort_unstable();
    Ok(names)
}

/// What a directory is compared with: which signature of an entry belongs to this copy of the day, and how it is compared.
type Known = (fn(&Entry) -> &Signature, fn(&Signature, &Signature) -> bool);

/// Tells how a directory differs from a manifest of it, in the order of paths. `known` picks the signature of an entry that belongs to
/// this copy of the day.
pub(super) fn compare(
    dir: &Dir,
    manifest: &mut Reader,
    known: fn(&Entry) -> &Signature,
    each: &mut dyn FnMut(Difference<'_>) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    compare_with(dir, manifest, (known, is_same), each)
}

/// As [`compare`] with what was copied, and so closely that a change of a directory's attributes is told as well. The day itself is told
/// as the same: its change time tells of its own moves.
pub(super) fn compare_closely(
    dir: &Dir,
    manifest: &mut Reader,
    each: &mut dyn FnMut(Difference<'_>) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    compare_with(dir, manifest, (|entry| &entry.source, is_same_closely), each)
}

fn compare_with(
    dir: &Dir,
    manifest: &mut Reader,
    known: Known,
    each: &mut dyn FnMut(Difference<'_>) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    // The day itself: its place tells that it is this one, and its own times change with its name.
    if manifest.peek().is_some_and(|entry| entry.path.is_root())
        && let Some(entry) = manifest.next()?
    {
        each(Difference::Same(entry))?;
    }
    compare_below((dir, &dir.mount()?), &RelPath::root(), manifest, known, each)?;
    while let Some(entry) = manifest.next()? {
        each(Difference::Gone(entry))?;
    }
    Ok(())
}

fn compare_below(
    (dir, mount): (&Dir, &Mount),
    path: &RelPath,
    manifest: &mut Reader,
    known: Known,
    each: &mut dyn FnMut(Difference<'_>) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    for name in sorted(dir)? {
        let Some(look) = dir.look(&name)? else { continue };
        let Ok(parsed) = Name::parse(&name) else {
            return Err(ArchiveError::refused(path, "holds a name that no replica could have"));
        };
        let child = path.join(&parsed);
        while manifest.peek().is_some_and(|entry| entry.path < child) {
            if let Some(entry) = manifest.next()? {
                each(Difference::Gone(entry))?;
            }
        }
        let entry = match manifest.peek() {
            Some(entry) if entry.path == child => manifest.next()?,
            _ => None,
        };
        match entry {
            Some(entry) if known.1(known.0(&entry), &look.signature) => each(Difference::Same(entry))?,
            Some(entry) => each(Difference::Changed(entry, dir, look))?,
            None => each(Difference::New(child.clone(), dir, look))?,
        }
        if kind_of(&look.signature) == Some(Kind::Dir) {
            let below = dir.open_dir(&name)?;
            if below.mount()? != *mount {
                return Err(ArchiveError::refused(&child, "has another file system mounted over it: unmount it"));
            }
            compare_below((&below, mount), &child, manifest, known, each)?;
        }
    }
    Ok(())
}

/// Is an object what it was? What is in a directory tells for itself. Device numbers change when a disk is mounted again.
pub(super) fn is_same(known: &Signature, now: &Signature) -> bool {
    let same = (known.ino, known.mode, known.uid, known.gid) == (now.ino, now.mode, now.uid, now.gid);
    let dir = kind_of(now) == Some(Kind::Dir);
    same && (dir || (known.size, known.mtime_ns, known.ctime_ns) == (now.size, now.mtime_ns, now.ctime_ns))
}

/// As [`is_same`], and of a directory also that nobody touched its names or attributes.
fn is_same_closely(known: &Signature, now: &Signature) -> bool {
    is_same(known, now) && (known.mtime_ns, known.ctime_ns) == (now.mtime_ns, now.ctime_ns)
}

/// Did nobody write to a copy since it was made? Its change time tells less than of the source: another name for it moves that.
pub(super) fn is_untouched(known: &Signature, now: &Signature) -> bool {
    let same = (known.ino, known.mode, known.uid, known.gid) == (now.ino, now.mode, now.uid, now.gid);
    same && (known.size, known.mtime_ns) == (now.size, now.mtime_ns)
}

/// The first difference of a directory from its manifest.
pub(super) fn first_change(
    dir: &Dir,
    manifest: &mut Reader,
    known: fn(&Entry) -> &Signature,
) -> Result<Option<RelPath>, ArchiveError> {
    let mut first = None;
    compare(dir, manifest, known, &mut |difference| {
        let path = match difference {
            Difference::Same(_) => return Ok(()),
            Difference::Changed(entry, ..) | Difference::Gone(entry) => entry.path,
            Difference::New(path, ..) => path,
        };
        first.get_or_insert(path);
        Ok(())
    })?;
    Ok(first)
}

/// Removes a directory with all that is in it, but nothing that is mounted in it.
///
/// # Errors
/// The system's, or something is mounted there: what is on the way to it stays.
pub(super) fn remove_tree(parent: &Dir, name: &[u8]) -> Result<(), FsError> {
    remove_on(parent, name, &parent.mount()?)
}

fn remove_on(parent: &Dir, name: &[u8], mount: &Mount) -> Result<(), FsError> {
    let Some(look) = parent.look(name)? else { return Ok(()) };
    if kind_of(&look.signature) != Some(Kind::Dir) {
        return parent.unlink(name);
    }
    let dir = parent.open_dir(name)?;
    if dir.mount()? != *mount {
        let what = "another file system is mounted there, and what is on it is not removed: unmount it";
        let source = std::io::Error::new(std::io::ErrorKind::CrossesDevices, what);
        return Err(FsError { action: "remove", path: parent.locate(name), source });
    }
    if look.signature.mode & 0o300 != 0o300 {
        let attrs = crate::entry::Attrs { mode: 0o700, ..look.signature.attrs() };
        dir.set_attrs_self(&attrs, crate::entry::AttrMask { perms: true, owner: false, times: false })?;
    }
    for child in dir.names()? {
        remove_on(&dir, &child, mount)?;
    }
    parent.rmdir(name)
}
