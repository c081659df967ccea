//! Control of a running agent over a Unix socket in its home folder: one request and one answer, each a line of JSON. What is asked of
//! the root of one folder is answered in several lines, for as long as it takes, with signs of life.
//!
//! Who may write to the socket may do everything the agent's user may; so it is for that user, and for root, alone.

mod client;
mod inquiry;
mod line;
mod lock;
mod server;
mod socket;

pub use client::{Asked, Client};
pub use inquiry::{Ask, Asker, ConflictText, NoPath, PIECE, Tell, VersionText, path, text};
pub(crate) use lock::take_over;
pub use lock::{AgentLock, LockError};
pub use server::{Parting, Server};
pub use socket::SocketError;

use crate::config::Changes;
use crate::status::{Moment, Status};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use sync_core::peer::Name;

/// The socket in the home folder.
pub const SOCKET_FILE: &str = "agent.sock";
/// Version of the conversation. Another one is refused, with a text that says so.
const VERSION: u32 = 1;
/// Bytes of a request: a command, a name, and paths.
const REQUEST_BYTES: usize = 4 << 20;
/// Bytes of an answer: the status of many folders with many peers each.
const ANSWER_BYTES: usize = 64 << 20;
/// Clients at a time; who comes then is told so.
const CLIENTS: usize = 16;
/// How long a client may take to say what it wants, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often whoever asks something that takes its time hears that it is being worked on.
const BEAT: Duration = Duration::from_secs(1);
/// Pieces of such an answer that wait for whoever asked.
const PIECES: usize = 4;
/// How long an answer, or the next line of one, may take, as seen by the client.
const ANSWER: Duration = Duration::from_secs(10);
/// How long an agent may take to end, as seen by the client: a transfer under way finishes its step, and states are closed.
const END: Duration = Duration::from_secs(60);

/// What can be asked of an agent. Each is called on a thread of its own and must return at once: whatever takes time is begun, and
/// the status tells how it goes. Only [`Control::ask`] takes as long as it takes.
pub trait Control: Send + Sync {
    /// How everything is, as last known: it must not wait for whatever is under way.
    fn status(&self) -> Status;
    /// Stops exchanging a folder, or all of them, once what is under way has finished its step.
    ///
    /// # Errors
    /// A folder that is not there.
    fn pause(&self, folder: Option<&Name>) -> Result<(), ControlError>;
    /// Takes it up again.
    ///
    /// # Errors
    /// A folder that is not there.
    fn resume(&self, folder: Option<&Name>) -> Result<(), ControlError>;
    /// Scans a folder, or all of them, in full, and exchanges with all its peers now.
    ///
    /// # Errors
    /// A folder that is not there, or that is paused.
    fn sync(&self, folder: Option<&Name>) -> Result<(), ControlError>;
    /// As [`Control::sync`] for one folder, whose deletion guard is lifted for the next pull that deletes, within an hour.
    ///
    /// # Errors
    /// A folder that is not there, that is paused, or that cannot be used at present.
    fn allow_delete(&self, folder: &Name) -> Result<(), ControlError>;
    /// Archives the old days of a folder, or of all that have a rule for it, now. `accept_clock`: its clock is right, although it jumped.
    ///
    /// # Errors
    /// A folder that is not there, that is paused, or whose days are not archived.
    fn archive(&self, folder: Option<&Name>, accept_clock: bool) -> Result<(), ControlError>;
    /// Reads the configuration anew.
    ///
    /// # Errors
    /// A configuration that makes no sense: then nothing has changed.
    fn reload(&self) -> Result<Changes, ControlError>;
    /// Tries anew which peers can be called. What was tried at the moment that is returned or later came of it, as the status tells;
    /// a peer with no address is not tried.
    ///
    /// # Errors
    /// None at present.
    fn probe(&self) -> Result<Moment, ControlError>;
    /// Asks something of the root of a folder, or has something done there. `asker` hears the answer, and what is done ends with its
    /// step once it has gone.
    ///
    /// # Errors
    /// A folder that is not there, whose root is not open, or what went wrong.
    fn ask(&self, folder: &Name, ask: &Ask, asker: &Asker<'_>) -> Result<(), ControlError>;
    /// Asks the agent to end. It has not ended yet when this returns.
    fn stop(&self);
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{text}")]
pub struct ControlError {
    /// For programs.
    pub kind: Refused,
    /// For people.
    pub text: String,
}

/// The kinds of [`ControlError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refused {
    /// The request makes no sense to this agent.
    Request,
    /// There is no such folder.
    NoSuchFolder,
    /// The folder is paused.
    Paused,
    /// The configuration makes no sense.
    Configuration,
    /// The folder's root is not open.
    NotOpen,
    /// Too many ask at the same time.
    Busy,
    /// It could not be done.
    Failed,
}

impl ControlError {
    /// An error of this kind.
    pub fn new(kind: Refused, text: impl Into<String>) -> ControlError {
        ControlError { kind, text: text.into() }
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
enum Wish {
    Status,
    Pause {
        folder: Option<Name>,
    },
    Resume {
        folder: Option<Name>,
    },
    Sync {
        folder: Option<Name>,
    },
    #[serde(rename = "allow-delete")]
    AllowDelete {
        folder: Name,
    },
    Archive {
        folder: Option<Name>,
        accept_clock: bool,
    },
    Reload,
    Probe,
    Ask {
        folder: Name,
        ask: Ask,
    },
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    version: u32,
    #[serde(flatten)]
    wish: Wish,
}

/// The part of both that every version has: it is looked at first.
#[derive(Debug, Deserialize)]
struct Spoken {
    version: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer<T> {
    version: u32,
    #[serde(flatten)]
    result: Outcome<T>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome<T> {
    /// A piece of it; more lines follow.
    Told(Tell),
    Done(T),
    Error(ControlError),
}

#[cfg(test)]
mod tests;
