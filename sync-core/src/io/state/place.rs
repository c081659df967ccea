//! Where a state lives: machine, file system, file. A copy lives elsewhere.

use super::error::{Result, io_error};
use rustix::fs::{AtFlags, CWD, StatxFlags, statvfs, statx};
use std::path::Path;

/// Length of everything but the machine's id.
const FIXED: usize = 4 * 8;

/// The present place: file-system id, inode, birth time (s, ns) of the file, then the machine's id.
pub(super) fn here(file: &Path) -> Result<Vec<u8>> {
    let stat =
        statx(CWD, file, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO | StatxFlags::BTIME).map_err(io_error("stat", file))?;
    let system = statvfs(file).map_err(io_error("ask for the file system of", file))?;
    let mut place = Vec::new();
    place.extend(system.f_fsid.to_le_bytes());
    place.extend(stat.stx_ino.to_le_bytes());
    let born = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    place.extend(if born { stat.stx_btime.tv_sec } else { 0 }.to_le_bytes());
    place.extend(if born { u64::from(stat.stx_btime.tv_nsec) } else { 0 }.to_le_bytes());
    // A machine without an id is a place like any other.
    place.extend(std::fs::read("/etc/machine-id").unwrap_or_default().trim_ascii());
    Ok(place)
}

/// What differs between two places; `None` if nothing does.
pub(super) fn difference(recorded: &[u8], present: &[u8]) -> Option<String> {
    if recorded == present {
        return None;
    }
    let part = |place: &[u8], from: usize, to: usize| place.get(from..to.min(place.len())).unwrap_or_default().to_vec();
    let parts = [("machine", FIXED, usize::MAX), ("file system", 0, 8), ("inode", 8, 16), ("birth time", 16, FIXED)];
    let differing: Vec<&str> = parts
        .into_iter()
        .filter(|(_, from, to)| part(recorded, *from, *to) != part(present, *from, *to))
        .map(|(what, _, _)| what)
        .collect();
    Some(format!("the state was made elsewhere: another {}", differing.join(", another ")))
}
