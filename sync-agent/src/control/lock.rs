//! One agent for each home folder: an flock, and a note that says who holds it. Never a left-over file.
#![allow(clippy::disallowed_methods, reason = "the home folder is no root")]

use super::client::Client;
use super::line::Deadline;
use super::socket::SocketError;
use crate::log::{Level, Log};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use sync_core::path::escape;

/// The lock in the home folder. Its content only tells who to ask.
const LOCK_FILE: &str = "agent.lock";
/// How long an agent may take to end before another one that is to take its place gives up.
const HANDOVER: Duration = Duration::from_secs(30);
/// How often it is looked whether it has ended.
const TRY: Duration = Duration::from_millis(50);
/// Bytes of the note that are read back.
const NOTE_BYTES: u64 = 32;

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has it.
    #[error(
        "an agent runs already with the home {}{holder}; driftless agent status tells how it is, driftless agent stop ends it",
        escape(home.as_os_str().as_encoded_bytes())
    )]
    Held {
        /// Of which home.
        home: PathBuf,
        /// Who, if that is known.
        holder: String,
    },
    /// The system refused.
    #[error("cannot lock {}: {source}", escape(path.as_os_str().as_encoded_bytes()))]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The lock, held as long as this lives.
#[derive(Debug)]
pub struct AgentLock(File);

impl AgentLock {
    /// Takes the lock of a home folder, or says who has it.
    ///
    /// # Errors
    /// Another agent, or a system that refuses.
    pub fn take(home: &Path) -> Result<AgentLock, LockError> {
        let path = home.join(LOCK_FILE);
        let failed = |source: io::Error| LockError::Io { path: path.clone(), source };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file = File::from(open(&path, flags, Mode::from_raw_mode(0o600)).map_err(|error| failed(error.into()))?);
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LockError::Held { home: home.to_owned(), holder: holder(&mut file) });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let note = format!("{}\n", std::process::id());
        let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(note.as_bytes()));
        noted.map_err(failed)?;
        Ok(AgentLock(file))
    }
}

/// As [`AgentLock::take`], but an agent that is ending is waited for within a deadline: one that was killed has its lock until the
/// system has cleared up after it, and one that was asked to stop until it has finished its step. One that answers, or hangs, is not.
///
/// # Errors
/// As [`AgentLock::take`].
pub(crate) fn take_over(home: &Path, log: &Log) -> Result<AgentLock, LockError> {
    let deadline = Deadline::after(HANDOVER);
    let mut told = false;
    loop {
        let held = match AgentLock::take(home) {
            Err(held @ LockError::Held { .. }) => held,
            taken => return taken,
        };
        let there = matches!(Client::new(home).status(), Ok(_) | Err(SocketError::TooLong { .. } | SocketError::Foreign { .. }));
        if there || deadline.is_over() {
            return Err(held);
        }
        if !std::mem::replace(&mut told, true) {
            log(Level::Notice, "an earlier agent with this home has not ended yet: it is waited for");
        }
        // A lock of the system has no deadline of its own to wait with.
        std::thread::sleep(TRY);
    }
}

impl Drop for AgentLock {
    fn drop(&mut self) {
        // Said aloud: closing alone leaves it to a child of another thread that was forked and has not yet begun its program.
        // Where it fails, the close that follows is what there is.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

fn holder(file: &mut File) -> String {
    let mut note = String::new();
    let read = file.take(NOTE_BYTES).read_to_string(&mut note);
    let pid: Option<u32> = read.ok().and_then(|_| note.trim().parse().ok());
    pid.map_or_else(String::new, |pid| format!(", as process {pid}"))
}
