//! Signatures and replicated attributes: statx, chown, chmod, utimens, never through a symbolic link.

use super::{FsError, Mount};
use crate::entry::{AttrMask, Attrs, Signature};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, Timespec, Timestamps, UTIME_OMIT, Uid,
};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const NS: i64 = 1_000_000_000;
/// setuid and setgid: they mean something only together with the owner.
const SET_ID: u32 = 0o6000;

/// Gives an open file that is complete its times, and owner and mode where they differ; only those in `mask`. Returns
/// what it is then: most new files have the right owner and mode from the start, so that one look is the cheapest.
///
/// # Errors
/// The system's.
pub fn finish_file(file: &File, path: &Path, attrs: &Attrs, mask: AttrMask) -> Result<Signature, FsError> {
    finish(file, attrs, mask).map_err(super::failed("set the attributes of", path))
}

fn finish(file: &File, attrs: &Attrs, mask: AttrMask) -> Result<Signature, Errno> {
    let times = AttrMask { perms: false, owner: false, ..mask };
    set_fd(file, attrs, times)?;
    let now = signature_of(file)?;
    // By what is to be set, not by what differs: a file that has the right owner already keeps its setuid and setgid.
    let mode = settable_mode(attrs, mask);
    let owner = mask.owner && (now.uid, now.gid) != (attrs.uid, attrs.gid);
    let perms = mask.perms && (owner || now.mode & 0o7777 != mode);
    if !(owner || perms) {
        return Ok(now);
    }
    if owner {
        set_owner(file, attrs)?;
    }
    if perms {
        set_mode(file, mode)?;
    }
    signature_of(file)
}

/// fstat of an open file.
///
/// # Errors
/// The system's.
pub fn file_signature(file: &File, path: &Path) -> Result<Signature, FsError> {
    signature_of(file).map_err(super::failed("look at", path))
}

pub(super) fn signature_of(fd: impl AsFd) -> Result<Signature, Errno> {
    statx(fd, b"", AtFlags::EMPTY_PATH).and_then(exact)
}

/// Of a root, whose own times are not synchronised.
pub(super) fn identity_of(fd: impl AsFd) -> Result<Signature, Errno> {
    statx(fd, b"", AtFlags::EMPTY_PATH).map(|stat| signature(&stat))
}

pub(super) fn mount_of(fd: impl AsFd) -> Result<Mount, Errno> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let stat = retry_on_intr(|| rustix::fs::statx(fd.as_fd(), c"", AtFlags::EMPTY_PATH, wanted))?;
    let told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID);
    let id = if told { stat.stx_mnt_id } else { 0 };
    Ok(Mount { id, dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor) })
}

pub(super) fn signature_at(dir: impl AsFd, name: &[u8]) -> Result<Signature, Errno> {
    statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT).and_then(exact)
}

/// For the path of a root alone, which a user may give through symbolic links.
pub(super) fn signature_following(path: &Path) -> Result<Signature, Errno> {
    use std::os::unix::ffi::OsStrExt;
    statx(CWD, path.as_os_str().as_bytes(), AtFlags::empty()).map(|stat| signature(&stat))
}

pub(super) fn set_at(dir: &OwnedFd, name: &[u8], attrs: &Attrs, mask: AttrMask) -> Result<(), Errno> {
    let kind = FileType::from_raw_mode(signature_at(dir, name)?.mode);
    if kind == FileType::Symlink {
        return set_link(dir, name, attrs, mask);
    }
    let fd = open_for_attrs(dir, name)?;
    // The name may have been replaced since: never touch a device, and never another kind than was looked at.
    if FileType::from_raw_mode(signature_of(&fd)?.mode) != kind || !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Err(Errno::INVAL);
    }
    set_fd(&fd, attrs, mask)
}

pub(super) fn set_fd(fd: impl AsFd, attrs: &Attrs, mask: AttrMask) -> Result<(), Errno> {
    let fd = fd.as_fd();
    if mask.owner {
        set_owner(fd, attrs)?;
    }
    if mask.perms {
        // After the owner: a change of owner clears setuid and setgid.
        set_mode(fd, settable_mode(attrs, mask))?;
    }
    if mask.times {
        retry_on_intr(|| rustix::fs::futimens(fd, &times(attrs)))?;
    }
    Ok(())
}

fn set_owner(fd: impl AsFd, attrs: &Attrs) -> Result<(), Errno> {
    let (uid, gid) = owner(attrs)?;
    rustix::fs::fchown(fd, Some(uid), Some(gid))
}

fn set_mode(fd: impl AsFd, mode: u32) -> Result<(), Errno> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))
}

fn set_link(dir: &OwnedFd, name: &[u8], attrs: &Attrs, mask: AttrMask) -> Result<(), Errno> {
    if mask.owner {
        let (uid, gid) = owner(attrs)?;
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if mask.times {
        retry_on_intr(|| rustix::fs::utimensat(dir, name, &times(attrs), AtFlags::SYMLINK_NOFOLLOW))?;
    }
    Ok(())
}

/// fchmod needs a real descriptor, and one for reading or for writing will do.
fn open_for_attrs(dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let common = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = |access| retry_on_intr(|| rustix::fs::openat(dir, name, access | common, Mode::empty()));
    match open(OFlags::RDONLY) {
        Err(Errno::ACCESS) => open(OFlags::WRONLY).map_err(|_| Errno::ACCESS),
        answer => answer,
    }
}

/// `mask`: what is to be set; not what of it still differs.
fn settable_mode(attrs: &Attrs, mask: AttrMask) -> u32 {
    let mode = attrs.mode & 0o7777;
    if mask.owner { mode } else { mode & !SET_ID }
}

/// The id −1 means "leave it" to the system; a row that carries it is wrong.
fn owner(attrs: &Attrs) -> Result<(Uid, Gid), Errno> {
    if attrs.uid == u32::MAX || attrs.gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    Ok((Uid::from_raw(attrs.uid), Gid::from_raw(attrs.gid)))
}

pub(super) fn times(attrs: &Attrs) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: attrs.mtime_ns.div_euclid(NS), tv_nsec: attrs.mtime_ns.rem_euclid(NS) },
    }
}

fn statx(dir: impl AsFd, name: &[u8], flags: AtFlags) -> Result<Statx, Errno> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    retry_on_intr(|| rustix::fs::statx(dir.as_fd(), name, flags, wanted))
}

/// A modification time that does not fit is refused: cut to fit, it would be carried to other replicas as another time.
pub(super) fn exact(stat: Statx) -> Result<Signature, Errno> {
    let time = &stat.stx_mtime;
    match time.tv_sec.checked_mul(NS).and_then(|ns| ns.checked_add(i64::from(time.tv_nsec))) {
        Some(_) => Ok(signature(&stat)),
        None => Err(Errno::OVERFLOW),
    }
}

fn signature(stat: &Statx) -> Signature {
    let born = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    Signature {
        dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        ino: stat.stx_ino,
        size: stat.stx_size,
        mtime_ns: nanoseconds(&stat.stx_mtime),
        ctime_ns: nanoseconds(&stat.stx_ctime),
        btime_ns: if born { nanoseconds(&stat.stx_btime) } else { 0 },
        mode: u32::from(stat.stx_mode),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        racy: false,
    }
}

/// Saturates outside of the years 1677 to 2262: times that the system sets by itself, and that are only compared.
fn nanoseconds(time: &StatxTimestamp) -> i64 {
    time.tv_sec.saturating_mul(NS).saturating_add(i64::from(time.tv_nsec))
}
