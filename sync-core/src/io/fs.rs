//! Every call that names a path below a root: by descriptor, never following a symbolic link, never leaving
//! the root. Nothing else in the project passes a path below a root to the system.

use crate::entry::{Attrs, AttrMask, Signature};
use crate::path::RelPath;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A failed call: what was attempted, on which path, and the system's answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FsError {
    /// What was attempted.
    pub action: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
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

/// A root directory, held open.
#[derive(Debug)]
pub struct Root { path: PathBuf, fd: OwnedFd }

/// A directory below a root, held open. All calls take one leaf name and never follow a link there.
#[derive(Debug)]
pub struct Dir { fd: OwnedFd, path: PathBuf }

impl Root {
    /// Opens a root; the path itself may lead through symbolic links, what is below may not.
    pub fn open(path: &Path) -> Result<Root, FsError> { todo!() }
    /// As given to [`Root::open`], made absolute.
    pub fn path(&self) -> &Path { &self.path }
    /// Signature of the root directory itself (device, inode …).
    pub fn signature(&self) -> Result<Signature, FsError> { todo!() }
    /// Opens a directory below the root (openat2 with RESOLVE_BENEATH, NO_SYMLINKS, NO_MAGICLINKS).
    pub fn dir(&self, path: &RelPath) -> Result<Dir, FsError> { todo!() }
    /// Opens `.driftless` or a folder below it, making it (mode 0700) if it is missing. `below` are plain names.
    pub fn private(&self, below: &[&str]) -> Result<Dir, FsError> { todo!() }
    /// One syncfs(2) on the root's file system.
    pub fn sync_all(&self) -> Result<(), FsError> { todo!() }
    /// Bytes and inodes free for this process.
    pub fn space(&self) -> Result<(u64, u64), FsError> { todo!() }
}

impl Dir {
    /// All names but `.` and `..`, unsorted.
    pub fn names(&self) -> Result<Vec<Box<[u8]>>, FsError> { todo!() }
    /// statx of a leaf; `None` if it does not exist.
    pub fn stat(&self, name: &[u8]) -> Result<Option<Signature>, FsError> { todo!() }
    /// statx of the directory itself.
    pub fn stat_self(&self) -> Result<Signature, FsError> { todo!() }
    /// Opens a child directory (O_NOFOLLOW).
    pub fn open_dir(&self, name: &[u8]) -> Result<Dir, FsError> { todo!() }
    /// Opens a regular file for reading (O_NOFOLLOW | O_NONBLOCK, refused if it is no regular file).
    pub fn open_file(&self, name: &[u8]) -> Result<File, FsError> { todo!() }
    /// Creates a file (O_EXCL | O_NOFOLLOW, mode 0600) for writing.
    pub fn create_file(&self, name: &[u8]) -> Result<File, FsError> { todo!() }
    /// Creates a directory (mode 0700) and opens it.
    pub fn create_dir(&self, name: &[u8]) -> Result<Dir, FsError> { todo!() }
    /// Creates a symbolic link.
    pub fn create_symlink(&self, name: &[u8], target: &[u8]) -> Result<(), FsError> { todo!() }
    /// Reads a symbolic link's target.
    pub fn read_link(&self, name: &[u8]) -> Result<Box<[u8]>, FsError> { todo!() }
    /// Renames `name` here to `to_name` in `to`.
    pub fn rename(&self, name: &[u8], to: &Dir, to_name: &[u8], replace: Replace) -> Result<(), FsError> { todo!() }
    /// Removes a file or link.
    pub fn unlink(&self, name: &[u8]) -> Result<(), FsError> { todo!() }
    /// Removes an empty directory.
    pub fn rmdir(&self, name: &[u8]) -> Result<(), FsError> { todo!() }
    /// Sets owner, mode and times of a leaf that is known to be a file or directory by descriptor, or of a link by
    /// name without following; only those in `mask`, owner first.
    pub fn set_attrs(&self, name: &[u8], attrs: &Attrs, mask: AttrMask) -> Result<(), FsError> { todo!() }
    /// Sets owner, mode and times of the directory itself.
    pub fn set_attrs_self(&self, attrs: &Attrs, mask: AttrMask) -> Result<(), FsError> { todo!() }
    /// fsync of the directory.
    pub fn sync(&self) -> Result<(), FsError> { todo!() }
}

/// Sets owner, mode and times of an open file; only those in `mask`, owner first.
pub fn set_file_attrs(file: &File, path: &Path, attrs: &Attrs, mask: AttrMask) -> Result<(), FsError> { todo!() }
/// fstat of an open file.
pub fn file_signature(file: &File, path: &Path) -> Result<Signature, FsError> { todo!() }
