//! Every call that names a path below a root: by descriptor, never following a symbolic link, never leaving
//! the root. Nothing else in the project passes a path below a root to the system.

mod attrs;
mod claim;
mod cold;
mod content;
mod exact;
mod places;
mod probe;

pub use attrs::{file_signature, finish_file};
pub use claim::{Claim, Generation};
pub use cold::{
    Cold, ColdId, Stamp, Unavailable, identify_cold, init_cold, is_stamped_in, stamps_for, synchronised_around, way_to_cold,
};
pub use content::{copy_hashed, hash_file};
pub use exact::{
    Look, Xattrs, copy_sparse, copy_sparse_while, file_xattrs, finish_exactly, forget_cached, is_dir, open_named, read_small,
    write_durably,
};
pub use places::{Choice, Choose, Placement, Places, Rewritten, is_nested, leads_out};
pub use probe::{COARSE_CLOCK_NS, coarse_now_ns, ctime_granularity, supports_exchange};

use crate::entry::{AttrMask, Attrs, Signature};
use crate::path::{RESERVED, RelPath};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, StatVfsMountFlags};
use rustix::io::{Errno, retry_on_intr};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

/// Bytes asked of the kernel per call when a directory is listed.
pub const LISTING_BYTES: usize = 64 * 1024;
/// Longest path handed to the kernel in one call; longer ones are walked in pieces (PATH_MAX is 4096).
const PATH_BYTES: usize = 4000;

/// A failed call: what was attempted, on which path, and the system's answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", crate::path::escape(path.as_os_str().as_bytes()))]
pub struct FsError {
    /// What was attempted.
    pub action: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl FsError {
    /// Did the call fail because nothing stands at the path?
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Did the call fail because something else than a directory stands on the way?
    #[must_use]
    pub fn is_no_dir(&self) -> bool {
        let code = self.source.raw_os_error().map(Errno::from_raw_os_error);
        matches!(code, Some(Errno::NOTDIR | Errno::LOOP))
    }

    /// Was the call refused because the place may not be written, for this user or for anybody?
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
    }
}

/// What a rename does if the target exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// Fails with EEXIST.
    Never,
    /// The two names change places; fails with ENOENT if the target does not exist.
    Exchange,
    /// The target is replaced as rename(2) does it. Only for names inside the private folder.
    Always,
}

/// A mount, and within it the part (a subvolume) that names can be renamed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mount {
    /// The kernel's number of the mount; 0 where it does not tell (before Linux 5.8).
    id: u64,
    /// Device number.
    dev: u64,
}

impl Mount {
    /// Is it the same mount, whatever part of it? Where the kernel does not number mounts, the device must do.
    #[must_use]
    pub fn is_same(&self, other: &Mount) -> bool {
        if self.id == 0 || other.id == 0 { self.dev == other.dev } else { self.id == other.id }
    }
}

/// The file system that a root lies on, as it is at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// Nothing can be written there.
    pub read_only: bool,
    /// Bytes that this process may still write, and bytes of it all.
    pub bytes: (u64, u64),
    /// Inodes, likewise; `None` where the file system does not count them.
    pub inodes: Option<(u64, u64)>,
}

/// A root directory, held open.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    fd: OwnedFd,
    /// What lies elsewhere: replaced as a whole.
    places: Arc<RwLock<Arc<Places>>>,
    /// Decides where new directories lie.
    chooser: Arc<RwLock<places::Chooser>>,
}

/// A directory below a root, held open. All calls take one leaf name and never follow a link there.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    /// Known where something in it lies elsewhere, or it does itself.
    within: Option<Box<places::Within>>,
}

impl Root {
    /// Opens a root; the path itself may lead through symbolic links, what is below may not.
    ///
    /// # Errors
    /// The path is missing, no directory, or may not be read.
    pub fn open(path: &Path) -> Result<Root, FsError> {
        let failed = |source: io::Error| FsError { action: "open the root", path: path.to_owned(), source };
        let absolute = std::path::absolute(path).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(CWD, &absolute, flags, Mode::empty())).map_err(|e| failed(e.into()))?;
        Ok(Root { path: absolute, fd, places: Arc::default(), chooser: Arc::default() })
    }

    /// As given to [`Root::open`], made absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a path below the root lies, for messages.
    #[must_use]
    pub fn locate(&self, path: &RelPath) -> PathBuf {
        if path.is_root() { self.path.clone() } else { self.path.join(OsStr::from_bytes(path.as_bytes())) }
    }

    /// Signature of the root directory itself (device, inode …).
    ///
    /// # Errors
    /// The system's.
    pub fn signature(&self) -> Result<Signature, FsError> {
        attrs::identity_of(&self.fd).map_err(failed("look at", &self.path))
    }

    /// What stands at the root's path at this moment: another device or inode than [`Root::signature`] means
    /// that the root was replaced, mounted over or unmounted since it was opened.
    ///
    /// # Errors
    /// The system's.
    pub fn signature_by_path(&self) -> Result<Signature, FsError> {
        attrs::signature_following(&self.path).map_err(failed("look at", &self.path))
    }

    /// Opens a directory below the root (openat2 with RESOLVE_BENEATH, NO_SYMLINKS, NO_MAGICLINKS). One that lies elsewhere
    /// is opened there.
    ///
    /// # Errors
    /// A component is missing, no directory, or a symbolic link (ELOOP); the directory may not be read; what lies elsewhere is
    /// not there ([`Unavailable`]).
    pub fn dir(&self, path: &RelPath) -> Result<Dir, FsError> {
        let places = self.places();
        if places.is_empty() { self.hot(path) } else { self.dir_through(&places, path) }
    }

    /// As [`Root::dir`], but for what lies elsewhere: there a link stands for what it is.
    ///
    /// # Errors
    /// A component is missing, no directory, or a symbolic link; the directory may not be read.
    pub fn hot(&self, path: &RelPath) -> Result<Dir, FsError> {
        let located = self.locate(path);
        match resolve(self.fd.as_fd(), path.as_bytes()) {
            Ok(fd) => Ok(Dir { fd, path: located, within: None }),
            Err(error) => Err(failed("open directory", &located)(error)),
        }
    }

    /// Opens `.driftless` or a folder below it, making it (mode 0700) if it is missing. `below` are plain names.
    ///
    /// # Errors
    /// A component is no directory, or cannot be made.
    pub fn private(&self, below: &[&str]) -> Result<Dir, FsError> {
        let mut dir = self.dir(&RelPath::root())?;
        for name in std::iter::once(RESERVED).chain(below.iter().map(|name| name.as_bytes())) {
            dir = dir.open_or_create(name)?;
        }
        Ok(dir)
    }

    /// One syncfs(2) on the root's file system.
    ///
    /// # Errors
    /// Something did not reach the disk; asking again proves nothing.
    pub fn sync_all(&self) -> Result<(), FsError> {
        rustix::fs::syncfs(&self.fd).map_err(failed("sync the file system of", &self.path))
    }

    /// Bytes and inodes free for this process; inodes are `u64::MAX` where the file system does not count them.
    ///
    /// # Errors
    /// The system's.
    pub fn space(&self) -> Result<(u64, u64), FsError> {
        space(&self.fd, &self.path)
    }

    /// Bytes that are free for this process, and all that the file system has.
    ///
    /// # Errors
    /// The system's.
    pub fn room(&self) -> Result<(u64, u64), FsError> {
        room(&self.fd, &self.path)
    }

    /// The root's file system as it is now.
    ///
    /// # Errors
    /// The system's.
    pub fn volume(&self) -> Result<Volume, FsError> {
        let stat = retry_on_intr(|| rustix::fs::fstatvfs(&self.fd)).map_err(failed("ask for the file system of", &self.path))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Volume {
            read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
            bytes: (bytes(stat.f_bavail), bytes(stat.f_blocks)),
            inodes: (stat.f_files > 0).then_some((stat.f_favail, stat.f_files)),
        })
    }

    /// The identity of the root's file system, stable across mounts where the file system has one.
    ///
    /// # Errors
    /// The system's.
    pub fn file_system(&self) -> Result<u64, FsError> {
        let stat = retry_on_intr(|| rustix::fs::fstatvfs(&self.fd)).map_err(failed("ask for the file system of", &self.path))?;
        Ok(stat.f_fsid)
    }
}

impl Dir {
    /// Where the directory lies, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All names but `.` and `..`, unsorted.
    ///
    /// # Errors
    /// The directory cannot be read completely.
    pub fn names(&self) -> Result<Vec<Box<[u8]>>, FsError> {
        // A descriptor of its own: two listings through one share their position.
        let mut own = self.reopen()?;
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut names = Vec::new();
        own.each_name(buffer.spare_capacity_mut(), |name, _, _| names.push(name.to_bytes().into()))?;
        Ok(names)
    }

    /// Calls `each` for all names but `.` and `..`, unsorted, with the type (which may be unknown) and the inode
    /// that the listing tells. `buffer` bounds what is asked of the kernel per call; see [`LISTING_BYTES`].
    ///
    /// # Errors
    /// The directory cannot be read completely; `each` may have seen a part.
    pub fn each_name(
        &mut self,
        buffer: &mut [MaybeUninit<u8>],
        mut each: impl FnMut(&CStr, FileType, u64),
    ) -> Result<(), FsError> {
        rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Start(0)).map_err(failed("list", &self.path))?;
        let mut listing = RawDir::new(&self.fd, buffer);
        while let Some(entry) = listing.next() {
            match entry {
                Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                // The link is not what it stands for: who wants to know looks.
                Ok(entry) if self.placed(entry.file_name().to_bytes()).is_some() => {
                    each(entry.file_name(), FileType::Unknown, 0);
                }
                Ok(entry) => each(entry.file_name(), entry.file_type(), entry.ino()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed("list", &self.path)(error)),
            }
        }
        Ok(())
    }

    /// statx of a leaf; `None` if it does not exist.
    ///
    /// # Errors
    /// The system's, but for ENOENT.
    pub fn stat(&self, name: &[u8]) -> Result<Option<Signature>, FsError> {
        if let Some(placed) = self.through(name)? {
            return attrs::signature_of(&placed).map(Some).map_err(self.failed("look at", name));
        }
        match attrs::signature_at(&self.fd, name) {
            Ok(signature) => Ok(Some(signature)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("look at", name)(error)),
        }
    }

    /// statx of the directory itself.
    ///
    /// # Errors
    /// The system's.
    pub fn stat_self(&self) -> Result<Signature, FsError> {
        attrs::signature_of(&self.fd).map_err(failed("look at", &self.path))
    }

    /// Opens a child directory (O_NOFOLLOW).
    ///
    /// # Errors
    /// The name is missing, no directory, or may not be read.
    pub fn open_dir(&self, name: &[u8]) -> Result<Dir, FsError> {
        if let Some(fd) = self.through(name)? {
            return Ok(Dir { fd, path: self.locate(name), within: self.within_placed(name) });
        }
        let fd = open_child_dir(self.fd.as_fd(), name).map_err(self.failed("open directory", name))?;
        Ok(Dir { fd, path: self.locate(name), within: self.within_of(name) })
    }

    /// Opens a regular file for reading (O_NOFOLLOW | O_NONBLOCK, refused if it is no regular file).
    ///
    /// # Errors
    /// The name is missing, no regular file, or may not be read.
    pub fn open_file(&self, name: &[u8]) -> Result<File, FsError> {
        Ok(self.open_file_seen(name)?.0)
    }

    /// As [`Dir::open_file`], with the signature that the check for a regular file looked at.
    ///
    /// # Errors
    /// The name is missing, no regular file, or may not be read.
    pub fn open_file_seen(&self, name: &[u8]) -> Result<(File, Signature), FsError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = self.open_leaf(name, flags, Mode::empty()).map_err(self.failed("open", name))?;
        self.regular(fd, name)
    }

    /// Creates a file (O_EXCL | O_NOFOLLOW, mode 0600) for writing and reading back.
    ///
    /// # Errors
    /// The name exists, or cannot be made.
    pub fn create_file(&self, name: &[u8]) -> Result<File, FsError> {
        self.create_file_for(name, 0o600)
    }

    /// As [`Dir::create_file`], with the permissions it is to have in the end where the umask allows them.
    ///
    /// # Errors
    /// The name exists, or cannot be made.
    pub fn create_file_for(&self, name: &[u8], mode: u32) -> Result<File, FsError> {
        let mode = Mode::from_raw_mode(mode & 0o777) | Mode::RUSR | Mode::WUSR;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.open_leaf(name, flags, mode).map_err(self.failed("create", name))?;
        Ok(File::from(fd))
    }

    /// Opens a regular file for reading and writing, making it (mode 0600) if it is missing. Only for names inside the private
    /// folder.
    ///
    /// # Errors
    /// The name is no regular file, or cannot be made.
    pub fn open_or_create_file(&self, name: &[u8]) -> Result<File, FsError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = self.open_leaf(name, flags, Mode::RUSR | Mode::WUSR).map_err(self.failed("open", name))?;
        self.regular(fd, name).map(|(file, _)| file)
    }

    /// Creates a directory (mode 0700) and opens it.
    ///
    /// # Errors
    /// The name exists, or cannot be made.
    pub fn create_dir(&self, name: &[u8]) -> Result<Dir, FsError> {
        rustix::fs::mkdirat(&self.fd, name, Mode::RWXU).map_err(self.failed("create directory", name))?;
        self.open_dir(name)
    }

    /// Creates a symbolic link.
    ///
    /// # Errors
    /// The name exists, or cannot be made.
    pub fn create_symlink(&self, name: &[u8], target: &[u8]) -> Result<(), FsError> {
        rustix::fs::symlinkat(target, &self.fd, name).map_err(self.failed("create symbolic link", name))
    }

    /// Reads a symbolic link's target: of one that was rewritten where it lies now, the one that it had.
    ///
    /// # Errors
    /// The name is missing or no symbolic link.
    pub fn read_link(&self, name: &[u8]) -> Result<Box<[u8]>, FsError> {
        let target = rustix::fs::readlinkat(&self.fd, name, Vec::new()).map_err(self.failed("read symbolic link", name))?;
        Ok(self.logical(name, target.into_bytes().into()))
    }

    /// Renames `name` here to `to_name` in `to`.
    ///
    /// # Errors
    /// See [`Replace`]; EINVAL where the file system cannot do it ([`supports_exchange`]); EXDEV also for what lies elsewhere.
    pub fn rename(&self, name: &[u8], to: &Dir, to_name: &[u8], replace: Replace) -> Result<(), FsError> {
        let flags = match replace {
            Replace::Never => RenameFlags::NOREPLACE,
            Replace::Exchange => RenameFlags::EXCHANGE,
            Replace::Always => RenameFlags::empty(),
        };
        self.refuse_link("rename", name)?;
        to.refuse_link("rename", to_name)?;
        rustix::fs::renameat_with(&self.fd, name, &to.fd, to_name, flags).map_err(self.failed("rename", name))
    }

    /// Removes a file or link.
    ///
    /// # Errors
    /// The system's.
    pub fn unlink(&self, name: &[u8]) -> Result<(), FsError> {
        self.refuse_link("remove", name)?;
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()).map_err(self.failed("remove", name))
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The system's.
    pub fn rmdir(&self, name: &[u8]) -> Result<(), FsError> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).map_err(self.failed("remove directory", name))
    }

    /// Sets owner, mode and times of a leaf that is known to be a file or directory by descriptor, or of a link by
    /// name without following; only those in `mask`, owner first.
    ///
    /// # Errors
    /// The system's; a file that may be neither read nor written cannot be changed by descriptor.
    pub fn set_attrs(&self, name: &[u8], attrs: &Attrs, mask: AttrMask) -> Result<(), FsError> {
        if let Some(placed) = self.through(name)? {
            return attrs::set_fd(&placed, attrs, mask).map_err(self.failed("set the attributes of", name));
        }
        attrs::set_at(&self.fd, name, attrs, mask).map_err(self.failed("set the attributes of", name))
    }

    /// Sets owner, mode and times of the directory itself.
    ///
    /// # Errors
    /// The system's.
    pub fn set_attrs_self(&self, attrs: &Attrs, mask: AttrMask) -> Result<(), FsError> {
        attrs::set_fd(&self.fd, attrs, mask).map_err(failed("set the attributes of", &self.path))
    }

    /// The mount that the directory lies in: renames cannot leave it.
    ///
    /// # Errors
    /// The system's.
    pub fn mount(&self) -> Result<Mount, FsError> {
        attrs::mount_of(&self.fd).map_err(failed("look at", &self.path))
    }

    /// The directory's descriptor, for calls that take no path but one of /proc/self/fd.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// One syncfs(2) on the directory's file system.
    ///
    /// # Errors
    /// Something did not reach the disk; asking again proves nothing.
    pub fn sync_all(&self) -> Result<(), FsError> {
        rustix::fs::syncfs(&self.fd).map_err(failed("sync the file system of", &self.path))
    }

    /// As [`Root::room`], of the directory's file system.
    ///
    /// # Errors
    /// The system's.
    pub fn room(&self) -> Result<(u64, u64), FsError> {
        room(&self.fd, &self.path)
    }

    /// As [`Root::space`], of the directory's file system.
    ///
    /// # Errors
    /// The system's.
    pub fn space(&self) -> Result<(u64, u64), FsError> {
        space(&self.fd, &self.path)
    }

    /// fsync of the directory.
    ///
    /// # Errors
    /// Something did not reach the disk; asking again proves nothing.
    pub fn sync(&self) -> Result<(), FsError> {
        rustix::fs::fsync(&self.fd).map_err(failed("sync", &self.path))
    }

    /// Opens a child directory, making it (mode 0700) if it is missing.
    ///
    /// # Errors
    /// The name is no directory, or cannot be made.
    pub fn open_or_create(&self, name: &[u8]) -> Result<Dir, FsError> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => self.open_dir(name),
            // On a read-only file system an existing folder is still found.
            Err(Errno::ROFS) => self.open_dir(name).map_err(|error| match error.is_missing() {
                true => self.failed("create directory", name)(Errno::ROFS),
                false => error,
            }),
            Err(error) => Err(self.failed("create directory", name)(error)),
        }
    }

    fn reopen(&self) -> Result<Dir, FsError> {
        let fd = open_child_dir(self.fd.as_fd(), b".").map_err(failed("open directory", &self.path))?;
        Ok(Dir { fd, path: self.path.clone(), within: self.within.clone() })
    }

    fn open_leaf(&self, name: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        retry_on_intr(|| rustix::fs::openat(&self.fd, name, flags, mode))
    }

    /// Refuses what is no regular file.
    fn regular(&self, fd: OwnedFd, name: &[u8]) -> Result<(File, Signature), FsError> {
        let signature = attrs::signature_of(&fd).map_err(self.failed("look at", name))?;
        if FileType::from_raw_mode(signature.mode) != FileType::RegularFile {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(FsError { action: "read", path: self.locate(name), source });
        }
        Ok((File::from(fd), signature))
    }

    /// Where a leaf of the directory lies, for messages.
    #[must_use]
    pub fn locate(&self, name: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(name))
    }

    fn failed<'a>(&'a self, action: &'static str, name: &'a [u8]) -> impl FnOnce(Errno) -> FsError + 'a {
        move |error| FsError { action, path: self.locate(name), source: explained(error) }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(Errno) -> FsError {
    move |error| FsError { action, path: path.to_owned(), source: explained(error) }
}

/// The system's words, but where they would tell a user nothing.
fn explained(error: Errno) -> io::Error {
    match error {
        Errno::OVERFLOW => io::Error::other("its modification time lies outside of the years 1678 to 2262; touch it"),
        error => error.into(),
    }
}

fn space(fd: &OwnedFd, path: &Path) -> Result<(u64, u64), FsError> {
    let stat = retry_on_intr(|| rustix::fs::fstatvfs(fd)).map_err(failed("ask for the free space of", path))?;
    let inodes = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), inodes))
}

fn room(fd: &OwnedFd, path: &Path) -> Result<(u64, u64), FsError> {
    let stat = retry_on_intr(|| rustix::fs::fstatvfs(fd)).map_err(failed("ask for the free space of", path))?;
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn open_child_dir(base: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    retry_on_intr(|| rustix::fs::openat(base, name, dir_flags(), Mode::empty()))
}

/// Opens the directory `path` below `base`, in pieces that the kernel accepts.
fn resolve(base: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let (piece, rest) = first_piece(path);
    let mut fd = open_beneath(base, piece)?;
    let mut rest = rest;
    while !rest.is_empty() {
        let (piece, after) = first_piece(rest);
        fd = open_beneath(fd.as_fd(), piece)?;
        rest = after;
    }
    Ok(fd)
}

/// The longest run of whole components that fits into [`PATH_BYTES`], and the rest.
fn first_piece(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() <= PATH_BYTES {
        return (path, b"");
    }
    let cut = path[..PATH_BYTES].iter().rposition(|b| *b == b'/').expect("a component is at most 255 bytes");
    (&path[..cut], &path[cut + 1..])
}

fn open_beneath(base: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match retry_on_intr(|| rustix::fs::openat2(base, path, dir_flags(), Mode::empty(), inside)) {
        // Kernels before 5.6 and some sandboxes. One component at a time without following is as safe: a
        // validated path has no `..`.
        Err(Errno::NOSYS) => open_by_components(base, path),
        answer => answer,
    }
}

fn open_by_components(base: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut parts = path.split(|b| *b == b'/');
    let mut fd = open_child_dir(base, parts.next().unwrap_or(b"."))?;
    for part in parts {
        fd = open_child_dir(fd.as_fd(), part)?;
    }
    Ok(fd)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_places;
