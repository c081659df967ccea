//! What the file system of a root can do, found out by trying.

use super::{Dir, FsError, Replace, Root, attrs, failed};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::time::ClockId;

/// Upper bound of the tick of the clock that stamps changes (HZ = 100).
pub const COARSE_CLOCK_NS: i64 = 10_000_000;
/// For file systems that keep whole seconds, or pairs of them.
const WHOLE_SECONDS_NS: i64 = 2_000_000_000;
/// Changes tried; on a coarse clock most of them fall into one tick.
const ROUNDS: usize = 16;
/// Names in the private folder on which renames are tried.
const PROBES: [&[u8]; 3] = [b"probe-a", b"probe-b", b"probe-c"];

/// The clock by which file systems stamp changes, ns since 1970.
#[must_use]
pub fn coarse_now_ns() -> i64 {
    let now = rustix::time::clock_gettime(ClockId::RealtimeCoarse);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// How far apart two changes of a file can be, in ns, and still bear the same ctime although a stat came between.
///
/// 0 where the kernel gives every change after a stat its own ctime (multigrain timestamps, Linux 6.13 and newer
/// on ext4, xfs, btrfs and tmpfs). Leaves no trace: the trial is an unnamed file. Where none can be made, the
/// coarse clock is assumed. A file server whose clock is behind is allowed for.
///
/// # Errors
/// The trial file can be made but not written or looked at.
pub fn ctime_granularity(root: &Root) -> Result<i64, FsError> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let Ok(fd) = retry_on_intr(|| rustix::fs::openat(&root.fd, ".", flags, Mode::RUSR | Mode::WUSR)) else {
        return Ok(WHOLE_SECONDS_NS);
    };
    let trial = |error: Errno| failed("try the clock of", &root.path)(error);
    let mut stamps = [0; ROUNDS];
    for (round, stamp) in stamps.iter_mut().enumerate() {
        retry_on_intr(|| rustix::io::pwrite(&fd, b"x", round as u64)).map_err(trial)?;
        *stamp = attrs::signature_of(&fd).map_err(trial)?.ctime_ns;
    }
    let behind = (coarse_now_ns() - stamps[ROUNDS - 1]).max(0);
    if stamps.windows(2).all(|pair| pair[0] < pair[1]) {
        return Ok(0);
    }
    let tick = if stamps.iter().all(|stamp| stamp % 1_000_000_000 == 0) { WHOLE_SECONDS_NS } else { COARSE_CLOCK_NS };
    Ok(tick.saturating_add(behind))
}

/// Can the file system of the root exchange two names, and rename without replacing? Tried in the private folder.
///
/// # Errors
/// The trial itself failed.
pub fn supports_exchange(root: &Root) -> Result<bool, FsError> {
    let dir = root.private(&[])?;
    // A trial that was interrupted left some.
    clear(&dir)?;
    let answer = exchange_works(&dir, PROBES);
    clear(&dir)?;
    answer
}

fn clear(dir: &Dir) -> Result<(), FsError> {
    for name in PROBES {
        match dir.unlink(name) {
            Err(error) if !error.is_missing() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn exchange_works(dir: &Dir, [a, b, c]: [&[u8]; 3]) -> Result<bool, FsError> {
    dir.create_file(a)?;
    dir.create_file(b)?;
    for (to, replace) in [(b, Replace::Exchange), (c, Replace::Never)] {
        match dir.rename(a, dir, to, replace) {
            Ok(()) => {}
            Err(error) if unsupported(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn unsupported(error: &FsError) -> bool {
    let code = error.source.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP))
}
