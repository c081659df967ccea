//! Directories below a root that lie in a cold root, with a link at their path: resolved anew at each call, and only if the
//! link, the marker of the cold root, the stamp there and the directory all agree with what was recorded.

use super::claim::Claim;
use super::cold::{Cold, ColdId, Stamped, Unavailable};
use super::{Dir, FsError, Root, failed, resolve};
use crate::path::{Name, RelPath};
use rustix::fs::{CWD, FileType};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

/// A directory that lies elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// What it is called.
    pub path: RelPath,
    /// The cold root that it lies in.
    pub cold: Arc<Cold>,
    /// Where it lies there.
    pub at: RelPath,
    /// Whose rule placed it.
    pub job: String,
    /// The id of its stamp.
    pub stamp: ColdId,
    /// What the link at its path reads.
    pub link: Box<[u8]>,
    /// What it may read, too: while one text replaces the other.
    pub other_link: Option<Box<[u8]>>,
    /// Nothing but the link may stand at the path. Until then whatever stands there counts, as in the middle of a move.
    pub settled: bool,
    /// Links in it that read otherwise on the disk than they are synchronised, by path below the directory.
    pub rewritten: BTreeMap<RelPath, Rewritten>,
}

/// A link in a placed directory that was given another text, so that it still leads where it led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// What it reads on the disk.
    pub disk: Box<[u8]>,
    /// What it reads for everybody else.
    pub target: Box<[u8]>,
}

/// All that lies elsewhere. A root without any costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    placements: BTreeMap<RelPath, Arc<Placement>>,
    colds: Vec<Arc<Cold>>,
}

/// Where a new directory is to lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// In this cold root, which the root uses.
    pub cold: Arc<Cold>,
    /// Where in it.
    pub at: RelPath,
    /// By whose rule.
    pub job: String,
    /// What the link to it is to read.
    pub link: Box<[u8]>,
}

/// Decides which directories that are about to be made lie in a cold root from their beginning.
pub trait Choose: Send + Sync {
    /// Where a directory is to lie; `None` for the root itself.
    fn choose(&self, path: &RelPath) -> Option<Choice>;

    /// What a link of a placed directory is to read on the disk, of which the target leads out of the directory to
    /// `outside`, a path below the root that may begin with `..`. Without an answer it is that path below the root's own.
    fn outside(&self, outside: &[u8]) -> Option<Box<[u8]>> {
        let _below = outside;
        None
    }
}

/// Where a relative target of the link `path` leads, below the root, if that is outside of the directory `day`.
#[must_use]
pub fn leads_out(day: &RelPath, path: &RelPath, target: &[u8]) -> Option<Vec<u8>> {
    if target.is_empty() || target.starts_with(b"/") {
        return None;
    }
    let above = path.parent()?;
    let mut parts: Vec<&[u8]> = above.as_bytes().split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    let inside = day.depth();
    let mut out = false;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
                out |= parts.len() < inside;
            }
            part => parts.push(part),
        }
    }
    out.then(|| parts.join(&b'/'))
}

/// Who decides that, if anybody does.
#[derive(Clone, Default)]
pub(super) struct Chooser(Option<Arc<dyn Choose>>);

impl std::fmt::Debug for Chooser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Chooser" } else { "no Chooser" })
    }
}

/// Where an open directory is, if that matters to what is in it.
#[derive(Debug, Clone)]
pub(super) struct Within {
    path: RelPath,
    side: Side,
}

#[derive(Debug, Clone)]
enum Side {
    /// In the root, with placements below.
    Hot(Arc<Places>),
    /// In this placement.
    Cold(Arc<Placement>),
}

impl Places {
    /// Of a table: placements do not contain each other, nor the root.
    #[must_use]
    pub fn new(placements: impl IntoIterator<Item = Placement>, colds: Vec<Arc<Cold>>) -> Places {
        let mut places = Places { placements: BTreeMap::new(), colds };
        for placement in placements {
            if places.may_hold(&placement.path) {
                places.placements.insert(placement.path.clone(), Arc::new(placement));
            }
        }
        places
    }

    /// May a directory be placed: is it not the root, nor in another placement, nor around one?
    #[must_use]
    pub fn may_hold(&self, path: &RelPath) -> bool {
        let other = |placement: &Placement| placement.path != *path;
        !path.is_root() && !self.above(path).is_some_and(|found| other(found)) && !self.below(path).any(|found| other(found))
    }

    /// Is nothing placed, and was nothing ever?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.placements.is_empty() && self.colds.is_empty()
    }

    /// The placement of a path.
    #[must_use]
    pub fn get(&self, path: &RelPath) -> Option<&Arc<Placement>> {
        self.placements.get(path)
    }

    /// The placement that a path is, or is in.
    #[must_use]
    pub fn above(&self, path: &RelPath) -> Option<&Arc<Placement>> {
        if self.placements.is_empty() {
            return None;
        }
        path.ancestors().find_map(|above| self.placements.get(&above))
    }

    /// Placements at a path, or below it, by path.
    pub fn below<'a>(&'a self, path: &'a RelPath) -> impl Iterator<Item = &'a Arc<Placement>> {
        let from = (Bound::Included(path), Bound::Unbounded);
        self.placements.range::<RelPath, _>(from).take_while(|(at, _)| path.contains(at)).map(|(_, placement)| placement)
    }

    /// All placements, by path.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Placement>> {
        self.placements.values()
    }

    /// The cold roots that are used, or were.
    #[must_use]
    pub fn colds(&self) -> &[Arc<Cold>] {
        &self.colds
    }

    /// As it is for the root that claims it.
    #[must_use]
    pub fn claimed(&self, claim: &Claim) -> Places {
        let colds: Vec<_> = self.colds.iter().map(|cold| Arc::new(Cold { claim: claim.clone(), ..Cold::clone(cold) })).collect();
        let placements = self.all().map(|placement| {
            let cold = colds.iter().find(|cold| cold.id == placement.cold.id).unwrap_or(&placement.cold).clone();
            (placement.path.clone(), Arc::new(Placement { cold, ..Placement::clone(placement) }))
        });
        Places { placements: placements.collect(), colds }
    }

    /// As it is without a placement.
    #[must_use]
    pub fn without(&self, path: &RelPath) -> Places {
        let mut places = self.clone();
        places.placements.remove(path);
        places
    }

    /// As it is with a placement, or with another one in the place of it.
    #[must_use]
    pub fn with(&self, placement: Placement) -> Places {
        let mut places = self.clone();
        if !places.colds.contains(&placement.cold) {
            places.colds.push(placement.cold.clone());
        }
        places.placements.insert(placement.path.clone(), Arc::new(placement));
        places
    }
}

impl Placement {
    /// Does the link at its path read as it may?
    #[must_use]
    pub fn is_own(&self, text: &[u8]) -> bool {
        text == &self.link[..] || self.other_link.as_deref() == Some(text)
    }

    /// What the link `path` in it reads for everybody else, if it reads `text` on the disk; `None` if it was not given that text here.
    /// A link that was renamed, alone or with what it is in, still leads where it led, and everybody else is told a text that leads
    /// there from its new path.
    #[must_use]
    pub fn meant(&self, path: &RelPath, text: &[u8]) -> Option<Box<[u8]>> {
        if let Some(link) = self.rewritten.get(path).filter(|link| *link.disk == *text) {
            return Some(link.target.clone());
        }
        let (before, link) = self.rewritten.iter().find(|(_, link)| *link.disk == *text)?;
        let whole = |below: &RelPath| below.rebase(&RelPath::root(), &self.path);
        let (old, new) = (whole(before)?, whole(path)?);
        if old.depth() == new.depth() {
            return Some(link.target.clone());
        }
        let mut target = b"../".repeat(new.depth().checked_sub(1)?);
        target.extend(leads_out(&self.path, &old, &link.target)?);
        Some(target.strip_suffix(b"/").unwrap_or(&target).into())
    }

    fn stamped(&self) -> Stamped<'_> {
        Stamped { stamp: self.stamp, job: &self.job, path: &self.path, at: &self.at }
    }

    /// Where the directory lies.
    #[must_use]
    pub fn location(&self) -> PathBuf {
        self.cold.path.join(OsStr::from_bytes(self.at.as_bytes()))
    }

    /// The directory in the cold root, if the cold root and its stamp know of it; whatever stands at the path.
    ///
    /// # Errors
    /// It is not there: an [`Unavailable`].
    pub fn open(&self) -> Result<Dir, FsError> {
        let path = self.location();
        match self.enter_cold() {
            Ok(fd) => Ok(Dir { fd, path, within: None }),
            Err(why) => Err(FsError { action: "open directory", path, source: io::Error::other(why) }),
        }
    }

    /// Writes its stamp; it has reached the disk when the call returns.
    ///
    /// # Errors
    /// The cold root is not there, or may not be written.
    pub fn put_stamp(&self) -> Result<(), FsError> {
        self.cold.put_stamp(&self.stamped())
    }

    /// Removes its stamp.
    ///
    /// # Errors
    /// The cold root is not there, or may not be written.
    pub fn remove_stamp(&self) -> Result<(), FsError> {
        self.cold.remove_stamp(&self.path, self.stamp)
    }

    fn enter_cold(&self) -> Result<OwnedFd, Unavailable> {
        let cold = self.cold.enter_stamped(&self.stamped())?;
        resolve(cold.as_fd(), self.at.as_bytes()).map_err(|error| Unavailable::Gone { at: self.location(), source: error.into() })
    }

    /// The directory, by the link `name` in the open directory `parent`. `None` if something else counts that stands there.
    fn enter(&self, parent: BorrowedFd<'_>, name: &[u8], located: &dyn Fn() -> PathBuf) -> Result<Option<OwnedFd>, FsError> {
        let why = match rustix::fs::readlinkat(parent, name, Vec::new()) {
            Ok(text) if self.is_own(text.to_bytes()) => match self.enter_cold() {
                Ok(fd) => return Ok(Some(fd)),
                Err(why) => why,
            },
            _ if !self.settled => return Ok(None),
            Ok(_) => self.hidden("another link", located),
            Err(Errno::NOENT) => self.no_link(located),
            Err(Errno::INVAL) => match super::attrs::signature_at(parent, name) {
                Ok(now) if FileType::from_raw_mode(now.mode) == FileType::Directory => self.hidden("a directory", located),
                Ok(_) => self.hidden("something else", located),
                Err(Errno::NOENT) => self.no_link(located),
                Err(error) => return Err(failed("look at", &located())(error)),
            },
            Err(error) => return Err(failed("read symbolic link", &located())(error)),
        };
        Err(Placement::unavailable(why, located))
    }

    fn no_link(&self, located: &dyn Fn() -> PathBuf) -> Unavailable {
        Unavailable::NoLink { link: self.link.clone(), path: located() }
    }

    fn hidden(&self, what: &'static str, located: &dyn Fn() -> PathBuf) -> Unavailable {
        Unavailable::Hidden { what, link: self.link.clone(), path: located() }
    }

    fn unavailable(why: Unavailable, located: &dyn Fn() -> PathBuf) -> FsError {
        FsError { action: "look into", path: located(), source: io::Error::other(why) }
    }
}

impl FsError {
    /// Did the call fail because a placed directory, or its cold root, is not there as it was recorded?
    #[must_use]
    pub fn unavailable(&self) -> Option<&Unavailable> {
        self.source.get_ref().and_then(|error| error.downcast_ref())
    }
}

impl Root {
    /// What lies elsewhere, at this moment.
    #[must_use]
    pub fn places(&self) -> Arc<Places> {
        self.places.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on so much lies elsewhere: for this root, and for all that were opened by [`Root::again`].
    pub fn set_places(&self, places: Places) {
        *self.places.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(places);
    }

    /// From now on this decides where directories lie that are made for others.
    pub fn set_chooser(&self, chooser: Option<Arc<dyn Choose>>) {
        *self.chooser.write().unwrap_or_else(PoisonError::into_inner) = Chooser(chooser);
    }

    /// Does anybody decide where new directories lie?
    #[must_use]
    pub fn chooses(&self) -> bool {
        self.chooser.read().unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    /// Where a directory that is about to be made is to lie, if not in the root.
    #[must_use]
    pub fn choose(&self, path: &RelPath) -> Option<Choice> {
        let chooser = self.chooser.read().unwrap_or_else(PoisonError::into_inner).clone();
        chooser.0.and_then(|chooser| chooser.choose(path))
    }

    /// What a link of a placed directory is to read on the disk, if that is another text than its target.
    #[must_use]
    pub fn disk_text(&self, day: &RelPath, path: &RelPath, target: &[u8]) -> Option<Box<[u8]>> {
        let outside = leads_out(day, path, target)?;
        let chooser = self.chooser.read().unwrap_or_else(PoisonError::into_inner).clone();
        let own = || [self.path.as_os_str().as_bytes(), &outside].join(&b'/').into();
        Some(chooser.0.and_then(|chooser| chooser.outside(&outside)).unwrap_or_else(own))
    }

    /// Opens what stands at the root's path now; what lies elsewhere is shared.
    ///
    /// # Errors
    /// As [`Root::open`].
    pub fn again(&self) -> Result<Root, FsError> {
        Ok(Root { places: self.places.clone(), chooser: self.chooser.clone(), ..Root::open(&self.path)? })
    }

    /// As [`Root::dir`], where something lies elsewhere.
    pub(super) fn dir_through(&self, places: &Arc<Places>, path: &RelPath) -> Result<Dir, FsError> {
        let Some(placement) = places.above(path) else {
            let dir = self.hot(path)?;
            let within = places.within(path.clone());
            return Ok(Dir { within, ..dir });
        };
        let located = self.locate(path);
        let entered = match placement.path.split() {
            None => None,
            Some((parent, name)) => match self.hot(&parent) {
                Ok(parent) => placement.enter(parent.fd.as_fd(), name.as_bytes(), &|| self.locate(&placement.path))?,
                Err(error) if placement.settled && no_directory(&error) => {
                    let located = || self.locate(&placement.path);
                    return Err(Placement::unavailable(placement.no_link(&located), &located));
                }
                Err(error) => return Err(error),
            },
        };
        let (Some(cold), Some(rest)) = (entered, path.rebase(&placement.path, &RelPath::root())) else { return self.hot(path) };
        let fd = resolve(cold.as_fd(), rest.as_bytes()).map_err(failed("open directory", &located))?;
        let within = Within { path: path.clone(), side: Side::Cold(placement.clone()) };
        Ok(Dir { fd, path: located, within: Some(Box::new(within)) })
    }
}

/// Nothing can stand below what is missing, no directory, or a link.
fn no_directory(error: &FsError) -> bool {
    let code = error.source.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

impl Places {
    /// What an open directory must know of its path.
    fn within(self: &Arc<Places>, path: RelPath) -> Option<Box<Within>> {
        let any = self.below(&path).next().is_some();
        any.then(|| Box::new(Within { path, side: Side::Hot(self.clone()) }))
    }
}

impl Dir {
    /// The placement that the directory is, or is in.
    #[must_use]
    pub fn placement(&self) -> Option<&Arc<Placement>> {
        match self.within.as_deref() {
            Some(Within { side: Side::Cold(placement), .. }) => Some(placement),
            _ => None,
        }
    }

    /// Is it itself a directory that lies elsewhere?
    #[must_use]
    pub fn is_placed(&self) -> bool {
        self.within.as_ref().is_some_and(|within| matches!(&within.side, Side::Cold(placed) if placed.path == within.path))
    }

    /// Is something placed of what is in it?
    #[must_use]
    pub fn has_placed(&self) -> bool {
        match self.within.as_deref() {
            Some(Within { path, side: Side::Hot(places) }) => {
                places.below(path).any(|placement| placement.path.parent().as_ref() == Some(path))
            }
            _ => false,
        }
    }

    /// The placement of a name in it.
    pub(super) fn placed(&self, name: &[u8]) -> Option<&Arc<Placement>> {
        match self.within.as_deref() {
            Some(Within { path, side: Side::Hot(places) }) => places.get(&path.join(&Name::parse(name).ok()?)),
            _ => None,
        }
    }

    /// The directory that a name in it stands for, if that lies elsewhere.
    pub(super) fn through(&self, name: &[u8]) -> Result<Option<OwnedFd>, FsError> {
        match self.placed(name) {
            None => Ok(None),
            Some(placement) => placement.enter(self.fd.as_fd(), name, &|| self.locate(name)),
        }
    }

    /// What a directory in it must know.
    pub(super) fn within_of(&self, name: &[u8]) -> Option<Box<Within>> {
        let within = self.within.as_deref()?;
        let path = within.path.join(&Name::parse(name).ok()?);
        match &within.side {
            Side::Hot(places) => places.within(path),
            side @ Side::Cold(_) => Some(Box::new(Within { path, side: side.clone() })),
        }
    }

    /// What the directory that a placed name stands for must know.
    pub(super) fn within_placed(&self, name: &[u8]) -> Option<Box<Within>> {
        let placement = self.placed(name)?.clone();
        Some(Box::new(Within { path: placement.path.clone(), side: Side::Cold(placement) }))
    }

    /// What a link in it reads for everybody else, if it reads `text` on the disk.
    pub(super) fn logical(&self, name: &[u8], text: Box<[u8]>) -> Box<[u8]> {
        let target = || {
            let Within { path, side: Side::Cold(placement) } = self.within.as_deref()? else { return None };
            if placement.rewritten.is_empty() {
                return None;
            }
            let below = path.join(&Name::parse(name).ok()?).rebase(&placement.path, &RelPath::root())?;
            placement.meant(&below, &text)
        };
        target().unwrap_or(text)
    }

    /// Refuses to touch a link of ours: what it stands for is not renamed or removed by its name.
    pub(super) fn refuse_link(&self, action: &'static str, name: &[u8]) -> Result<(), FsError> {
        let Some(placement) = self.placed(name) else { return Ok(()) };
        match rustix::fs::readlinkat(&self.fd, name, Vec::new()) {
            Ok(text) if placement.is_own(text.to_bytes()) => {
                let what = format!("it lies in {}", crate::path::escape(placement.location().as_os_str().as_bytes()));
                let source = io::Error::new(io::ErrorKind::CrossesDevices, what);
                Err(FsError { action, path: self.locate(name), source })
            }
            _ => Ok(()),
        }
    }
}

/// Does a directory lie in a root, or the other way round, by whatever path? `false` if neither can be seen.
///
/// # Errors
/// A directory above one of them cannot be looked at.
pub fn is_nested(one: &std::path::Path, other: &std::path::Path) -> Result<bool, FsError> {
    Ok(is_inside(one, other)? || is_inside(other, one)?)
}

/// Is `inner` the directory `outer`, or below it? By identity, from one directory to the one above.
fn is_inside(inner: &std::path::Path, outer: &std::path::Path) -> Result<bool, FsError> {
    let place = |fd: &OwnedFd, path| super::attrs::identity_of(fd).map(|now| (now.dev, now.ino)).map_err(failed("look at", path));
    let open = |base: BorrowedFd<'_>, path: &std::path::Path| {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        rustix::io::retry_on_intr(|| rustix::fs::openat(base, path, flags, rustix::fs::Mode::empty()))
            .map_err(failed("open directory", path))
    };
    let wanted = place(&open(CWD, outer)?, outer)?;
    let mut at = open(CWD, inner)?;
    let mut now = place(&at, inner)?;
    loop {
        if now == wanted {
            return Ok(true);
        }
        at = open(at.as_fd(), std::path::Path::new(".."))?;
        let above = place(&at, inner)?;
        if above == now {
            return Ok(false);
        }
        now = above;
    }
}
