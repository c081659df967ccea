//! The lock that one process holds on a state: an flock, never a left-over file.
//!
//! What this process itself holds is known besides, so that whoever opens a root anew in it can wait for the moment at which the
//! earlier holder's lock is gone: the last thing that goes, after everything else of a state was closed.

use super::error::{Result, StateError, io_error};
use crate::io::mutex::lock;
use crate::path::escape;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, lstat, open};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Name of the lock file. Its content only tells who to ask; the lock is the flock on it.
pub(super) const LOCK_FILE: &str = "state.lock";
/// Longest description that is read back.
const MAX_NOTE: u64 = 4096;

/// A lock file, by whatever path it was found: device and inode.
type FileId = (u64, u64);

/// The locks that this process holds. Each is taken and let go of while this is locked, so that both always agree.
static OWN: Mutex<BTreeSet<FileId>> = Mutex::new(BTreeSet::new());
/// One of them was let go of.
static FREED: Condvar = Condvar::new();

/// The lock, held as long as this lives.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    id: FileId,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut own = lock(&OWN);
        // Said aloud: closing alone leaves it to a child of another thread that was forked and has not yet begun
        // its program. Where it fails, the close that follows is what there is.
        let _ = flock(&self.file, FlockOperation::Unlock);
        own.remove(&self.id);
        drop(own);
        FREED.notify_all();
    }
}

/// Waits until this process does not hold the state in `dir`, and so long at most.
pub(super) fn wait_for_release(dir: &Path, wait: Duration) {
    // Without a file there is nothing to wait for.
    let Ok(stat) = lstat(dir.join(LOCK_FILE)) else { return };
    let held = |own: &mut BTreeSet<FileId>| own.contains(&(stat.st_dev, stat.st_ino));
    drop(FREED.wait_timeout_while(lock(&OWN), wait, held).unwrap_or_else(PoisonError::into_inner));
}

impl Lock {
    /// Takes the lock, or says who holds it.
    pub(super) fn acquire(dir: &Path) -> Result<Lock> {
        let path = dir.join(LOCK_FILE);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = open(&path, flags, Mode::from_raw_mode(0o600)).map_err(io_error("open", &path))?;
        let mut file = File::from(fd);
        let stat = fstat(&file).map_err(io_error("look at", &path))?;
        let id = (stat.st_dev, stat.st_ino);
        let (taken, own) = {
            let mut own = lock(&OWN);
            let taken = flock(&file, FlockOperation::NonBlockingLockExclusive);
            let before = own.contains(&id);
            if taken.is_ok() {
                own.insert(id);
            }
            (taken, before)
        };
        match taken {
            Ok(()) => {}
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
                return Err(StateError::Locked { dir: dir.to_owned(), holder: holder(&mut file, own), own });
            }
            Err(error) => return Err(io_error("lock", &path)(error)),
        }
        let mut taken = Lock { file, id };
        taken.note().map_err(io_error("write", &path))?;
        Ok(taken)
    }

    /// Writes down who has it.
    fn note(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(note().as_bytes())
    }
}

/// Boot id, process id, start time and command, one a line.
fn note() -> String {
    let command = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let words: Vec<String> = command.split(|b| *b == 0).filter(|w| !w.is_empty()).map(escape).collect();
    let start = start_time().unwrap_or_default();
    format!("{}\n{}\n{start}\n{}\n", boot_id(), std::process::id(), words.join(" "))
}

/// This boot; empty where the kernel does not tell.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Field 22 of `/proc/self/stat`: clock ticks from boot to the start of this process.
fn start_time() -> Option<String> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

/// Who holds the lock, as far as the note of this boot tells. `own`: this process does.
fn holder(file: &mut File, own: bool) -> String {
    if own {
        return format!("process {}, which is this one: what was begun in it before has not ended yet", std::process::id());
    }
    let unknown = "another process".to_owned();
    let mut text = String::new();
    if file.take(MAX_NOTE).read_to_string(&mut text).is_err() {
        return unknown;
    }
    let mut lines = text.lines();
    match (lines.next(), lines.next(), lines.next(), lines.next()) {
        // A note of an earlier boot was left by somebody else, before the holder wrote its own.
        (Some(boot), Some(pid), Some(_), Some(command)) if boot == boot_id() => match command.split_once(' ') {
            _ if command.is_empty() => format!("process {pid}"),
            None => format!("process {pid} ({})", program(command)),
            Some((path, rest)) => format!("process {pid} ({} {rest})", program(path)),
        },
        _ => unknown,
    }
}

fn program(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
