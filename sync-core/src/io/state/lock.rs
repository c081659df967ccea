//! The lock that one process holds on a state: an flock, never a left-over file.

use super::error::{Result, StateError, io_error};
use crate::path::escape;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

/// Name of the lock file. Its content only tells who to ask; the lock is the flock on it.
pub(super) const LOCK_FILE: &str = "state.lock";
/// Longest description that is read back.
const MAX_NOTE: u64 = 4096;

/// The lock, held as long as this lives.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Said aloud: closing alone leaves it to a child of another thread that was forked and has not yet begun
        // its program. Where it fails, the close that follows is what there is.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl Lock {
    /// Takes the lock, or says who holds it.
    pub(super) fn acquire(dir: &Path) -> Result<Lock> {
        let path = dir.join(LOCK_FILE);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = open(&path, flags, Mode::from_raw_mode(0o600)).map_err(io_error("open", &path))?;
        let mut file = File::from(fd);
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
                return Err(StateError::Locked { dir: dir.to_owned(), holder: holder(&mut file) });
            }
            Err(error) => return Err(io_error("lock", &path)(error)),
        }
        let note = note();
        file.set_len(0).map_err(io_error("write", &path))?;
        file.rewind().map_err(io_error("write", &path))?;
        file.write_all(note.as_bytes()).map_err(io_error("write", &path))?;
        Ok(Lock { file })
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

/// Who holds the lock, as far as the note of this boot tells.
fn holder(file: &mut File) -> String {
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
