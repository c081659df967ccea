//! What a copy needs that keeps everything: other names, holes, extended attributes; and a look at the disk itself.

use super::{Dir, FsError, attrs, failed, resolve};
use crate::entry::{Attrs, Hash, Signature};
use crate::path::RelPath;
use rustix::fs::{Advice, AtFlags, CWD, FileType, Gid, Mode, OFlags, SeekFrom, StatxFlags, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, retry_on_intr};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Longest list of names, and longest value, that the kernel keeps.
const XATTR_BYTES: usize = 64 * 1024;
/// Files below this are read through without a look for holes: the look costs more than reading zeros.
const SPARSE_BYTES: u64 = 64 * 1024;
/// Labels belong to the place where a file lies, and are given by the system there.
const PLACE_BOUND: &[&[u8]] = &[b"security.selinux", b"security.SMACK64", b"security.apparmor"];

/// What one look tells of a name beyond its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// As [`Dir::stat`].
    pub signature: Signature,
    /// Number of names that it has.
    pub links: u64,
    /// Bytes that it occupies.
    pub allocated: u64,
}

/// Extended attributes by name, sorted; access lists are among them.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

impl Dir {
    /// Looks at a name, whatever it is; `None` if nothing is there.
    ///
    /// # Errors
    /// The system's, but for ENOENT.
    pub fn look(&self, name: &[u8]) -> Result<Option<Look>, FsError> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let found = match retry_on_intr(|| rustix::fs::statx(&self.fd, name, flags, wanted)) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.failed("look at", name)(error)),
        };
        let (links, allocated) = (u64::from(found.stx_nlink), found.stx_blocks.saturating_mul(512));
        let signature = attrs::exact(found).map_err(self.failed("look at", name))?;
        Ok(Some(Look { signature, links, allocated }))
    }

    /// Where a symbolic link leads at this moment: the only call that follows one, and it opens nothing.
    ///
    /// # Errors
    /// It leads nowhere, or the system's.
    pub fn leads_to(&self, name: &[u8]) -> Result<Signature, FsError> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        retry_on_intr(|| rustix::fs::statx(&self.fd, name, AtFlags::empty(), wanted))
            .and_then(attrs::exact)
            .map_err(self.failed("follow the link", name))
    }

    /// Opens a directory below this one, beneath it and through no link.
    ///
    /// # Errors
    /// A component is missing, no directory, or a link.
    pub fn below(&self, path: &RelPath) -> Result<Dir, FsError> {
        let located = if path.is_root() { self.path.clone() } else { self.path.join(OsStr::from_bytes(path.as_bytes())) };
        let fd = resolve(self.fd.as_fd(), path.as_bytes()).map_err(failed("open directory", &located))?;
        Ok(Dir { fd, path: located, within: None })
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// The name exists, or the file system cannot do it.
    pub fn hard_link(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), FsError> {
        rustix::fs::linkat(&self.fd, name, &to.fd, to_name, AtFlags::empty()).map_err(self.failed("link", name))
    }

    /// Reads a symbolic link as it stands on the disk.
    ///
    /// # Errors
    /// The name is missing or no symbolic link.
    pub fn link_text(&self, name: &[u8]) -> Result<Box<[u8]>, FsError> {
        let text = rustix::fs::readlinkat(&self.fd, name, Vec::new()).map_err(self.failed("read symbolic link", name))?;
        Ok(text.into_bytes().into())
    }

    /// Extended attributes of a symbolic link.
    ///
    /// # Errors
    /// The system's.
    pub fn link_xattrs(&self, name: &[u8]) -> Result<Xattrs, FsError> {
        let at = self.through_proc(name);
        read_xattrs(|list| rustix::fs::llistxattr(&at, list), |key, value| rustix::fs::lgetxattr(&at, key, value))
            .map_err(self.failed("read the extended attributes of", name))
    }

    /// Gives a symbolic link extended attributes, its owner and its times.
    ///
    /// # Errors
    /// The system's; the file system does not keep such attributes.
    pub fn finish_link(&self, name: &[u8], attrs: &Attrs, xattrs: &Xattrs) -> Result<(), FsError> {
        let at = self.through_proc(name);
        let owner = (Some(Uid::from_raw(attrs.uid)), Some(Gid::from_raw(attrs.gid)));
        let now = attrs::signature_at(&self.fd, name).map_err(self.failed("look at", name))?;
        if (now.uid, now.gid) != (attrs.uid, attrs.gid) {
            rustix::fs::chownat(&self.fd, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(self.failed("set the owner of", name))?;
        }
        for (key, value) in xattrs {
            rustix::fs::lsetxattr(&at, &key[..], value, XattrFlags::empty())
                .map_err(self.failed("set the extended attributes of", name))?;
        }
        let times: Timestamps = attrs::times(attrs);
        retry_on_intr(|| rustix::fs::utimensat(&self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(self.failed("set the times of", name))
    }

    /// Extended attributes of the directory itself.
    ///
    /// # Errors
    /// The system's.
    pub fn xattrs(&self) -> Result<Xattrs, FsError> {
        xattrs_of(&self.fd, &self.path)
    }

    /// Gives the directory everything that it had elsewhere: owner, mode, extended attributes, times.
    ///
    /// # Errors
    /// The system's; the file system does not keep such attributes.
    pub fn finish_exactly(&self, attrs: &Attrs, xattrs: &Xattrs) -> Result<Signature, FsError> {
        finish(&self.fd, &self.path, attrs, xattrs)
    }

    /// Gives the directory these extended attributes, and takes all others.
    ///
    /// # Errors
    /// The system's; the file system does not keep such attributes.
    pub fn replace_xattrs(&self, wanted: &Xattrs) -> Result<(), FsError> {
        let set = failed("set the extended attributes of", &self.path);
        let replace = || {
            for (key, value) in wanted {
                rustix::fs::fsetxattr(&self.fd, &key[..], value, XattrFlags::empty())?;
            }
            Ok(())
        };
        for (key, _) in self.xattrs()? {
            if wanted.iter().all(|(wanted, _)| *wanted != key) {
                match rustix::fs::fremovexattr(&self.fd, &key[..]) {
                    Ok(()) | Err(Errno::NODATA) => {}
                    Err(error) => return Err(set(error)),
                }
            }
        }
        replace().map_err(set)
    }

    /// The directory's real path, as the system knows it now.
    ///
    /// # Errors
    /// The system does not tell, or the directory was removed.
    pub fn real_path(&self) -> Result<PathBuf, FsError> {
        let link = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let failed = |source| FsError { action: "find the real path of", path: self.path.clone(), source };
        let real = std::fs::read_link(link).map_err(failed)?;
        // A directory that was removed is shown with a word behind its name.
        let same = attrs::signature_following(&real).map_err(|error| failed(error.into()))?;
        let own = self.stat_self()?;
        match (same.dev, same.ino) == (own.dev, own.ino) {
            true => Ok(real),
            false => Err(failed(io::Error::other("it was removed, or something is mounted over it"))),
        }
    }

    /// The path of a leaf below the open directory, whatever was renamed meanwhile.
    fn through_proc(&self, name: &[u8]) -> PathBuf {
        Path::new(&format!("/proc/self/fd/{}", self.fd.as_raw_fd())).join(OsStr::from_bytes(name))
    }
}

/// Extended attributes of an open file.
///
/// # Errors
/// The system's.
pub fn file_xattrs(file: &File, path: &Path) -> Result<Xattrs, FsError> {
    xattrs_of(file, path)
}

/// Gives an open file everything that it had elsewhere: owner, mode, extended attributes, times. Returns what it is then.
///
/// # Errors
/// The system's; the file system does not keep such attributes.
pub fn finish_exactly(file: &File, path: &Path, attrs: &Attrs, xattrs: &Xattrs) -> Result<Signature, FsError> {
    finish(file, path, attrs, xattrs)
}

fn finish(fd: impl AsFd, path: &Path, attrs: &Attrs, xattrs: &Xattrs) -> Result<Signature, FsError> {
    let fd = fd.as_fd();
    let now = attrs::signature_of(fd).map_err(failed("look at", path))?;
    let perms = now.mode & 0o7777 != attrs.mode;
    // The bits that mean something only together with the owner are set only with it.
    let owner = (now.uid, now.gid) != (attrs.uid, attrs.gid) || (perms && attrs.mode & 0o6000 != 0);
    let of = |perms, owner, times| crate::entry::AttrMask { perms, owner, times };
    attrs::set_fd(fd, attrs, of(owner || perms, owner, false)).map_err(failed("set owner and mode of", path))?;
    // After owner and mode: the first takes capabilities away, the second changes an access list.
    for (key, value) in xattrs {
        rustix::fs::fsetxattr(fd, &key[..], value, XattrFlags::empty())
            .map_err(failed("set the extended attributes of", path))?;
    }
    attrs::set_fd(fd, attrs, of(false, false, true)).map_err(failed("set the times of", path))?;
    attrs::signature_of(fd).map_err(failed("look at", path))
}

fn xattrs_of(fd: impl AsFd, path: &Path) -> Result<Xattrs, FsError> {
    let fd = fd.as_fd();
    read_xattrs(|list| rustix::fs::flistxattr(fd, list), |key, value| rustix::fs::fgetxattr(fd, key, value))
        .map_err(failed("read the extended attributes of", path))
}

fn read_xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    value: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Result<Xattrs, Errno> {
    // Most files have none: a small buffer first costs nothing.
    let (mut small, mut large) = ([0u8; 1024], Vec::new());
    let names = match list(&mut small) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(count) => &small[..count],
        Err(Errno::RANGE) => {
            large.resize(XATTR_BYTES, 0);
            let count = list(&mut large)?;
            &large[..count]
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    let mut buffer = vec![0; XATTR_BYTES];
    for key in names.split(|byte| *byte == 0).filter(|key| !key.is_empty() && !PLACE_BOUND.contains(key)) {
        match value(key, &mut buffer) {
            Ok(count) => found.push((key.to_vec(), buffer[..count].to_vec())),
            // Gone since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Copies all of `source`, which has `size` bytes, holes as holes, and returns its hash. `target` is empty.
///
/// # Errors
/// The first failed read or write, or the source became shorter.
pub fn copy_sparse(source: &File, size: u64, target: &File, buffer: &mut [u8]) -> io::Result<Hash> {
    copy_sparse_while(source, size, target, buffer, &|| true)
}

/// As [`copy_sparse`], for as long as `goes_on` says so.
///
/// # Errors
/// As [`copy_sparse`], and that it was to stop.
pub fn copy_sparse_while(
    source: &File,
    size: u64,
    target: &File,
    buffer: &mut [u8],
    goes_on: &dyn Fn() -> bool,
) -> io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    let (mut at, mut written) = (0, 0);
    while at < size {
        let (from, until) = if size < SPARSE_BYTES { (0, size) } else { next_data(source, at, size)? };
        zeros(&mut hasher, from - at, buffer);
        at = from;
        while at < until {
            if !goes_on() {
                return Err(io::Error::other("stopped"));
            }
            let wish = buffer.len().min(usize::try_from(until - at).unwrap_or(usize::MAX));
            let count = match source.read_at(&mut buffer[..wish], at) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read")),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            target.write_all_at(&buffer[..count], at)?;
            hasher.update(&buffer[..count]);
            at += count as u64;
            written = at;
        }
    }
    // It ends with a hole.
    if written < size {
        target.set_len(size)?;
    }
    Ok(Hash(*hasher.finalize().as_bytes()))
}

/// The next stretch of data at or after a place; an empty one at the end if there is none.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<(u64, u64)> {
    let from = match retry_on_intr(|| rustix::fs::seek(file, SeekFrom::Data(at))) {
        Ok(from) => from.min(size),
        Err(Errno::NXIO) => return Ok((size, size)),
        // A file system without holes: all is data.
        Err(Errno::INVAL | Errno::NOTSUP) => return Ok((at, size)),
        Err(error) => return Err(error.into()),
    };
    match retry_on_intr(|| rustix::fs::seek(file, SeekFrom::Hole(from))) {
        Ok(until) => Ok((from, until.min(size))),
        Err(error) => Err(error.into()),
    }
}

fn zeros(hasher: &mut blake3::Hasher, mut count: u64, buffer: &mut [u8]) {
    if count > 0 {
        buffer.fill(0);
    }
    while count > 0 {
        let part = buffer.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        hasher.update(&buffer[..part]);
        count -= part as u64;
    }
}

/// Lets the system forget what it holds of a file that has reached the disk, so that the next read comes from there.
///
/// # Errors
/// The system's.
pub fn forget_cached(file: &File, path: &Path) -> Result<(), FsError> {
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed).map_err(failed("read anew", path))
}

/// Writes a small file of ours under a name, in the place of one that stood there; it has reached the disk when the call returns.
///
/// # Errors
/// The system's; the old file stands then.
pub fn write_durably(dir: &Dir, name: &[u8], bytes: &[u8]) -> Result<(), FsError> {
    replace_file(dir, (&[name, b".new"].concat(), name), bytes)?;
    dir.sync()
}

/// As [`write_durably`], by way of the name `new`; that the name is the new file's now has not reached the disk yet.
pub(super) fn replace_file(dir: &Dir, (new, name): (&[u8], &[u8]), bytes: &[u8]) -> Result<(), FsError> {
    match dir.unlink(new) {
        Err(error) if !error.is_missing() => return Err(error),
        _ => {}
    }
    let mut file = dir.create_file(new)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|source| FsError { action: "write", path: dir.locate(new), source })?;
    dir.rename(new, dir, name, super::Replace::Always)
}

/// A small file of ours, if it is there.
///
/// # Errors
/// The system's, or it is larger than `limit`.
pub fn read_small(dir: &Dir, name: &[u8], limit: u64) -> Result<Option<Vec<u8>>, FsError> {
    let file = match dir.open_file(name) {
        Ok(file) => file,
        Err(error) if error.is_missing() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let failed = |source| FsError { action: "read", path: dir.locate(name), source };
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(failed(io::Error::other("it is larger than it may be")));
    }
    Ok(Some(bytes))
}

/// Opens a directory by its own path, through links: for what a user names, and never below a root.
///
/// # Errors
/// The system's.
pub fn open_named(path: &Path) -> Result<Dir, FsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = retry_on_intr(|| rustix::fs::openat(CWD, path, flags, Mode::empty())).map_err(failed("open directory", path))?;
    Ok(Dir { fd, path: path.to_owned(), within: None })
}

/// Is it a directory by its signature?
#[must_use]
pub fn is_dir(signature: &Signature) -> bool {
    FileType::from_raw_mode(signature.mode) == FileType::Directory
}
