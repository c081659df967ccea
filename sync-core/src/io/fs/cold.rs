//! Cold roots: directory trees that take directories of a root, each of which leaves a link behind.
//!
//! A cold root is known by the id in its marker, so that an empty mount point, or another disk, is not taken for it. Each hot
//! root that uses it has a private folder there: for content on its way, for kept versions, and for a stamp of each
//! directory that it has placed. What is in the cold root besides is the directories themselves.

use super::claim::{Claim, Generation};
use super::exact::replace_file;
use super::{Dir, FsError, Root, failed, resolve};
use crate::path::{RESERVED, RelPath, escape};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Name of the marker in the private folder of a cold root.
const MARKER: &[u8] = b"cold";
/// Names while a file is written.
const NEW_MARKER: &[u8] = b"cold.new";
const NEW_STAMP: &[u8] = b"new";
/// Folder of the stamps.
const PLACED: &[u8] = b"placed";
/// Longest marker or stamp that is read: two escaped paths, and some words.
const TEXT_BYTES: usize = 64 * 1024;

/// A random id: of a cold root, or of a stamp.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ColdId(pub [u8; 16]);

impl ColdId {
    /// Another one each time.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn random() -> io::Result<ColdId> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(ColdId(bytes))
    }
}

impl fmt::Display for ColdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ColdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A cold root as one hot root uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cold {
    /// The id in its marker.
    pub id: ColdId,
    /// Where it is.
    pub path: PathBuf,
    /// Name of the hot root's private folder there.
    pub key: String,
    /// Who the hot root is.
    pub claim: Claim,
    /// How far its folder has come.
    pub generation: Generation,
}

/// Why a cold root, or what was placed there, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The directory itself.
    #[error("the cold root {} cannot be opened ({source}): mount its disk", shown(cold))]
    Closed {
        /// The cold root.
        cold: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is no cold root, or none that can be read.
    #[error("{} bears no marker of a cold root (.driftless/cold: {source}): is its disk mounted?", shown(cold))]
    Unmarked {
        /// The directory.
        cold: PathBuf,
        /// The system's answer, or what is wrong with the marker.
        source: io::Error,
    },
    /// Another one is there.
    #[error("another cold root stands at {} ({found} instead of {wanted}): mount the one that belongs there", shown(cold))]
    Other {
        /// The directory.
        cold: PathBuf,
        /// What its marker says.
        found: ColdId,
        /// What it should say.
        wanted: ColdId,
    },
    /// What is there of this root belongs to another one.
    #[error(
        "what the cold root {} holds for this folder belongs to another one ({owner}): this one is a copy, or was brought back \
         from a backup; nothing of it is touched, or taken for deleted. If this folder is to have it from now on, and the other one \
         not any more, run driftless archive claim '{}'",
        shown(cold),
        shown(hot)
    )]
    Owned {
        /// The cold root.
        cold: PathBuf,
        /// Where the other root was.
        owner: String,
        /// Where this one is.
        hot: PathBuf,
    },
    /// What is there of this root is older than what is known of it.
    #[error(
        "the cold root {} is older than what is known of it (it has generation {found}, and {known} was there): it was brought back \
         from a snapshot, an image or a backup; nothing of it is taken for deleted or edited. Mount the newer one. If it is gone for \
         good, run driftless archive claim '{}': what is archived there then counts as if it had been found here, so that equal files \
         merge with those of other replicas, differing ones become conflicts, and what was deleted since comes back",
        shown(cold),
        shown(hot)
    )]
    RolledBack {
        /// The cold root.
        cold: PathBuf,
        /// The generation of the folder there.
        found: u64,
        /// The last one that the state remembers.
        known: u64,
        /// Where the root is.
        hot: PathBuf,
    },
    /// Whose its folder there is cannot be read.
    #[error(
        "whose the folder is that the cold root {} holds for this one cannot be read (its file owner: {source}), nor how old it is; nothing \
         of it is touched, or taken for deleted. If it is this folder's, run driftless archive claim '{}': what is archived there then \
         counts as if it had been found here",
        shown(cold),
        shown(hot)
    )]
    Unowned {
        /// The cold root.
        cold: PathBuf,
        /// The system's answer, or what is wrong with the file.
        source: io::Error,
        /// Where the root is.
        hot: PathBuf,
    },
    /// The cold root knows nothing of the placement.
    #[error(
        "the cold root {} does not know of it ({source}): it was brought back from a backup, or somebody changed .driftless \
         there; nothing of it is taken for deleted. If it is gone for good, driftless archive forget HOT PATH gives it up, and other \
         replicas bring it again",
        shown(cold)
    )]
    Unstamped {
        /// The cold root.
        cold: PathBuf,
        /// The system's answer, or what is wrong with the stamp.
        source: io::Error,
    },
    /// The directory is not there.
    #[error(
        "{} cannot be opened ({source}): what was there is not taken for deleted; bring it back. If it is gone for good, \
         driftless archive forget HOT PATH gives it up, and other replicas bring it again",
        shown(at)
    )]
    Gone {
        /// The directory in the cold root.
        at: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Nothing stands where the link to it was.
    #[error(
        "the link to its archive is gone, and nothing in it is taken for deleted: put it back (ln -s '{}' '{}'). To delete it, \
         delete what is in it, through the link",
        escape(link),
        shown(path)
    )]
    NoLink {
        /// Its text.
        link: Box<[u8]>,
        /// The path.
        path: PathBuf,
    },
    /// What is moved there would be synchronised.
    #[error("{} is synchronised: what lies in it would go to other machines. Name a directory outside of it", shown(around))]
    Synchronised {
        /// The folder.
        around: PathBuf,
    },
    /// Something else stands where the link to it was.
    #[error(
        "{what} stands where the link to its archive was: nothing in the archive is taken for deleted, and nothing is put \
         there. A directory is merged with its archive by driftless archive run; move anything else away, and put the link \
         back (ln -s '{}' '{}')",
        escape(link),
        shown(path)
    )]
    Hidden {
        /// What it is.
        what: &'static str,
        /// The link's text.
        link: Box<[u8]>,
        /// The path.
        path: PathBuf,
    },
}

impl Unavailable {
    /// The cold root that is missing as a whole, if that is the reason.
    #[must_use]
    pub fn whole(&self) -> Option<&Path> {
        match self {
            Unavailable::Closed { cold, .. }
            | Unavailable::Unmarked { cold, .. }
            | Unavailable::Other { cold, .. }
            | Unavailable::Owned { cold, .. }
            | Unavailable::Unowned { cold, .. }
            | Unavailable::RolledBack { cold, .. } => Some(cold),
            _ => None,
        }
    }
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// The folder that is synchronised and is, or holds, a directory: whatever lies in it would be synchronised as well. One whose private
/// folder may not be looked into counts, since nobody can tell.
///
/// # Errors
/// The directory is missing, or one above it cannot be looked at.
pub fn synchronised_around(path: &Path) -> Result<Option<PathBuf>, FsError> {
    let cannot = |source| FsError { action: "open the cold root", path: path.to_owned(), source };
    let real = path.canonicalize().map_err(cannot)?;
    for above in real.ancestors() {
        let marker = [OsStr::from_bytes(RESERVED), OsStr::new("marker")].iter().collect::<PathBuf>();
        match super::attrs::signature_at(CWD, above.join(marker).as_os_str().as_bytes()) {
            Ok(_) | Err(Errno::ACCESS) => return Ok(Some(above.to_owned())),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(failed("look for a synchronised folder at", above)(error)),
        }
    }
    Ok(None)
}

/// Makes an existing directory a cold root, and returns its id. One that is a cold root already stays what it is.
///
/// # Errors
/// The directory is missing or may not be written, it is or lies in a folder that is synchronised, or its marker cannot be read.
pub fn init_cold(path: &Path) -> Result<ColdId, FsError> {
    if let Some(around) = synchronised_around(path)? {
        let what = Unavailable::Synchronised { around };
        return Err(FsError { action: "make a cold root of", path: path.to_owned(), source: io::Error::other(what) });
    }
    let private = Root::open(path)?.private(&[])?;
    if private.stat(MARKER)?.is_some() {
        return identify_cold(path);
    }
    let drawn = ColdId::random().map_err(|source| FsError { action: "draw an id for", path: path.to_owned(), source });
    let id = drawn?;
    let text = format!(
        "Directories of other folders that driftless has moved here. Without this file it is taken for an unmounted disk.\n\
         cold {id}\n"
    );
    write_durably(&private, (NEW_MARKER, MARKER), &text)?;
    Ok(id)
}

/// The id of a cold root.
///
/// # Errors
/// There is none at the path: an [`Unavailable`].
pub fn identify_cold(path: &Path) -> Result<ColdId, FsError> {
    match open(path).and_then(|fd| marked(path, &fd)) {
        Ok(id) => Ok(id),
        Err(why) => Err(FsError { action: "use", path: path.to_owned(), source: io::Error::other(why) }),
    }
}

fn open(path: &Path) -> Result<OwnedFd, Unavailable> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    retry_on_intr(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
        .map_err(|error| Unavailable::Closed { cold: path.to_owned(), source: error.into() })
}

/// The id in the marker of an open directory.
fn marked(path: &Path, fd: &OwnedFd) -> Result<ColdId, Unavailable> {
    let wrong = |source| Unavailable::Unmarked { cold: path.to_owned(), source };
    let text = read_text(fd, RESERVED, MARKER).map_err(|error| wrong(error.into()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("cold ")).and_then(parse);
    id.ok_or_else(|| wrong(io::Error::other("it holds no id")))
}

fn parse(hex: &str) -> Option<ColdId> {
    let mut id = ColdId([0; 16]);
    if hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in id.0.iter_mut().zip((0..32).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(id)
}

/// What the stamp of a placement says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamped<'a> {
    pub(super) stamp: ColdId,
    pub(super) job: &'a str,
    pub(super) path: &'a RelPath,
    pub(super) at: &'a RelPath,
}

impl Stamped<'_> {
    fn text(&self) -> String {
        let Stamped { stamp, job, path, at } = self;
        format!(
            "A directory that driftless keeps here for another place. Without this file it is taken for missing.\n\
             stamp {stamp}\njob {}\npath {}\nat {}\n",
            escape(job.as_bytes()),
            escape(path.as_bytes()),
            escape(at.as_bytes())
        )
    }

    /// It is found by the path that it is about.
    fn name(&self) -> Vec<u8> {
        stamp_name(self.path)
    }
}

fn stamp_name(path: &RelPath) -> Vec<u8> {
    blake3::hash(path.as_bytes()).to_hex()[..32].as_bytes().to_vec()
}

impl Cold {
    /// The open directory, if it is this cold root, and what it holds for this root belongs to it and is as new as what is known of it.
    pub(super) fn enter(&self) -> Result<OwnedFd, Unavailable> {
        let fd = self.enter_any()?;
        self.check_owner(&fd)?;
        Ok(fd)
    }

    /// The open directory, if it is this cold root, whoever uses it.
    pub(super) fn enter_any(&self) -> Result<OwnedFd, Unavailable> {
        let fd = open(&self.path)?;
        let found = marked(&self.path, &fd)?;
        if found == self.id {
            return Ok(fd);
        }
        Err(Unavailable::Other { cold: self.path.clone(), found, wanted: self.id })
    }

    /// As [`Cold::enter`], if its stamp says the same of a placement.
    pub(super) fn enter_stamped(&self, stamped: &Stamped<'_>) -> Result<OwnedFd, Unavailable> {
        let fd = self.enter()?;
        let wrong = |source| Unavailable::Unstamped { cold: self.path.clone(), source };
        let folder = [RESERVED, self.key.as_bytes(), PLACED].join(&b'/');
        let text = read_text(&fd, &folder, &stamped.name()).map_err(|error| wrong(error.into()))?;
        if text == stamped.text() { Ok(fd) } else { Err(wrong(io::Error::other("its stamp says something else"))) }
    }

    /// The cold root itself, open, if it is this one.
    ///
    /// # Errors
    /// It is not: an [`Unavailable`].
    pub fn dir(&self) -> Result<Dir, FsError> {
        match self.enter() {
            Ok(fd) => Ok(Dir { fd, path: self.path.clone(), within: None }),
            Err(why) => Err(self.unusable(why)),
        }
    }

    /// A directory in the cold root.
    ///
    /// # Errors
    /// It is not there, or the cold root is not.
    pub fn below(&self, at: &RelPath) -> Result<Dir, FsError> {
        let dir = self.dir()?;
        let path = self.path.join(OsStr::from_bytes(at.as_bytes()));
        let fd = resolve(dir.fd.as_fd(), at.as_bytes()).map_err(failed("open directory", &path))?;
        Ok(Dir { fd, path, within: None })
    }

    /// The private folder of the hot root, which is made if it is missing.
    ///
    /// # Errors
    /// The cold root is not there, or the folder cannot be made.
    pub fn private(&self) -> Result<Dir, FsError> {
        self.dir()?.open_or_create(RESERVED)?.open_or_create(self.key.as_bytes())
    }

    /// Is there a stamp for a path, whatever it says?
    ///
    /// # Errors
    /// The cold root is not there, or cannot be looked at: nobody knows.
    pub fn has_stamp(&self, path: &RelPath) -> Result<bool, Unavailable> {
        let folder = [RESERVED, self.key.as_bytes(), PLACED].join(&b'/');
        match read_text(&self.enter()?, &folder, &stamp_name(path)) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(Unavailable::Unstamped { cold: self.path.clone(), source: error.into() }),
        }
    }

    /// Does a stamp of another hot root say that what stands at a path is its own? One of this root's, from before its state began
    /// anew, does not count.
    ///
    /// # Errors
    /// The cold root is not there, or cannot be listed.
    pub fn is_stamped_by_others(&self, path: &RelPath) -> Result<bool, FsError> {
        let fd = self.enter().map_err(|why| self.unusable(why))?;
        let private = self.dir()?.open_or_create(RESERVED)?;
        for name in keys(&private)?.into_iter().filter(|name| **name != *self.key.as_bytes()) {
            if self.has_owned(&fd, &name).map_err(|why| self.unusable(why))? {
                continue;
            }
            let placed = match private.open_dir(&name)?.open_dir(PLACED) {
                Err(error) if error.is_missing() => continue,
                placed => placed?,
            };
            if placed.stat(&stamp_name(path))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes a stamp; it has reached the disk when the call returns.
    pub(super) fn put_stamp(&self, stamped: &Stamped<'_>) -> Result<(), FsError> {
        let folder = self.private()?.open_or_create(PLACED)?;
        write_durably(&folder, (NEW_STAMP, &stamped.name()), &stamped.text())
    }

    /// Removes the stamp for a path, if it is there and is this one: another one is that of a directory that came there later.
    ///
    /// # Errors
    /// The cold root is not there, or may not be read or written.
    pub fn remove_stamp(&self, path: &RelPath, id: ColdId) -> Result<(), FsError> {
        let fd = self.enter().map_err(|why| self.unusable(why))?;
        let folder = [RESERVED, self.key.as_bytes(), PLACED].join(&b'/');
        match read_text(&fd, &folder, &stamp_name(path)) {
            Ok(text) if text.lines().find_map(|line| line.strip_prefix("stamp ")).and_then(parse) == Some(id) => {
                self.drop_stamp(path)
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed("read a stamp in", &self.path.join(OsStr::from_bytes(&folder)))(error)),
        }
    }

    /// Removes the stamp for a path, whatever it says, if it is there.
    ///
    /// # Errors
    /// The cold root is not there, or may not be written.
    pub fn drop_stamp(&self, path: &RelPath) -> Result<(), FsError> {
        match self.private()?.open_or_create(PLACED)?.unlink(&stamp_name(path)) {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Where a link in the directory `parent` leads to a cold root, if it reads as all links do that take the place of the directory
/// `path`: the way to a cold root, whichever way that is written, and then the path.
#[must_use]
pub fn way_to_cold(parent: &Path, text: &[u8], path: &RelPath) -> Option<PathBuf> {
    let way = text.strip_suffix(path.as_bytes())?.strip_suffix(b"/")?;
    let way = if way.is_empty() && text.starts_with(b"/") { &b"/"[..] } else { way };
    (!path.is_root() && !way.is_empty()).then(|| parent.join(OsStr::from_bytes(way)))
}

/// Does a directory bear the marker of a cold root, in which some root has placed the directory `path`? What cannot be told is taken
/// for so.
#[must_use]
pub fn is_stamped_in(cold: &Path, path: &RelPath) -> bool {
    let Ok(fd) = open(cold) else { return false };
    match marked(cold, &fd) {
        Err(Unavailable::Unmarked { source, .. }) if source.kind() == io::ErrorKind::NotFound => return false,
        // What stands there of a marker is no answer.
        Ok(_) | Err(_) => {}
    }
    let stamped = || -> Result<bool, FsError> {
        let private = Dir { fd, path: cold.to_owned(), within: None }.open_dir(RESERVED)?;
        for key in keys(&private)? {
            let placed = match private.open_dir(&key)?.open_dir(PLACED) {
                Err(error) if error.is_missing() => continue,
                placed => placed?,
            };
            if placed.stat(&stamp_name(path))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    stamped().unwrap_or(true)
}

/// A stamp that says of the directory at a path in a cold root that it is that of the same path below some hot root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Name of the hot root's private folder.
    pub key: String,
    /// Its id.
    pub id: ColdId,
    /// Whose rule placed the directory.
    pub job: String,
    /// Does the folder belong to who asks?
    pub is_own: bool,
    /// Why nobody can tell whose the folder is, if so.
    pub wrong: Option<String>,
}

/// All stamps in a cold root for a path.
///
/// # Errors
/// The cold root cannot be looked at.
pub fn stamps_for(cold: &Path, path: &RelPath, claim: &Claim) -> Result<Vec<Stamp>, FsError> {
    let (mut found, top) = (Vec::new(), Root::open(cold)?.hot(&RelPath::root())?);
    let private = match top.open_dir(RESERVED) {
        Err(error) if error.is_missing() => return Ok(found),
        private => private?,
    };
    for key in keys(&private)? {
        let folder = [RESERVED, &key, PLACED].join(&b'/');
        let text = match read_text(&top.fd, &folder, &stamp_name(path)) {
            Ok(text) => text,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(failed("read a stamp in", &private.locate(&key))(error)),
        };
        let value = |word: &str| text.lines().find_map(|line| line.strip_prefix(word));
        let (Some(id), Some(job), Ok(key)) = (value("stamp ").and_then(parse), value("job "), String::from_utf8(key.into_vec()))
        else {
            continue;
        };
        // What was placed elsewhere than at its path cannot be told from the link.
        if text != (Stamped { stamp: id, job, path, at: path }).text() {
            continue;
        }
        let asked = Cold { id, path: cold.to_owned(), key, claim: claim.clone(), generation: Generation::default() };
        let (is_own, wrong) = match asked.has_owned(&top.fd, asked.key.as_bytes()) {
            Ok(is_own) => (is_own, None),
            Err(why) => (false, Some(why.to_string())),
        };
        found.push(Stamp { key: asked.key, id, job: job.to_owned(), is_own, wrong });
    }
    Ok(found)
}

/// Names of the folders of hot roots in the private folder of a cold root.
fn keys(private: &Dir) -> Result<Vec<Box<[u8]>>, FsError> {
    let mut keys = Vec::new();
    for name in private.names()? {
        if private.stat(&name)?.is_some_and(|found| FileType::from_raw_mode(found.mode) == FileType::Directory) {
            keys.push(name);
        }
    }
    Ok(keys)
}

pub(super) fn write_durably(dir: &Dir, names: (&[u8], &[u8]), text: &str) -> Result<(), FsError> {
    replace_file(dir, names, text.as_bytes())?;
    // The folder above, too: this one may be new.
    dir.sync_all()
}

/// A small text in a folder below an open directory.
pub(super) fn read_text(base: &OwnedFd, folder: &[u8], name: &[u8]) -> Result<String, Errno> {
    let folder = resolve(base.as_fd(), folder)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = retry_on_intr(|| rustix::fs::openat(&folder, name, flags, Mode::empty()))?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match retry_on_intr(|| rustix::io::read(&file, &mut buffer))? {
            0 => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            _ if bytes.len() > TEXT_BYTES => return Err(Errno::FBIG),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}
