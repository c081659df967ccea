//! Asks a running agent.

use super::inquiry::{Ask, Tell};
use super::line::{self, Deadline, Lines};
use super::socket::{self, SocketError, failed};
use super::{
    ANSWER, ANSWER_BYTES, Answer, ControlError, END, Outcome, REQUEST_BYTES, Request, SOCKET_FILE, Spoken, VERSION, Wish,
};
use crate::config::Changes;
use crate::status::{Moment, Status};
use serde::de::DeserializeOwned;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use sync_core::peer::Name;

/// Asks the agent of one home folder; every question has a deadline.
#[derive(Debug)]
pub struct Client {
    home: PathBuf,
}

/// What was asked and not done: it could not be asked, or it was refused.
pub type Asked<T> = Result<Result<T, ControlError>, SocketError>;

impl Client {
    /// For the agent of this home folder. Nothing is opened yet.
    #[must_use]
    pub fn new(home: &Path) -> Client {
        Client { home: home.to_owned() }
    }

    /// How everything is.
    ///
    /// # Errors
    /// No agent, or none that answers; inside of that, what it refuses.
    pub fn status(&self) -> Asked<Status> {
        self.ask(Wish::Status)
    }

    /// Pauses a folder, or all.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub fn pause(&self, folder: Option<Name>) -> Asked<()> {
        self.ask(Wish::Pause { folder })
    }

    /// Resumes a folder, or all.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub fn resume(&self, folder: Option<Name>) -> Asked<()> {
        self.ask(Wish::Resume { folder })
    }

    /// Has a folder, or all, scanned and exchanged now.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub fn sync(&self, folder: Option<Name>) -> Asked<()> {
        self.ask(Wish::Sync { folder })
    }

    /// As [`Client::sync`] for one folder, whose deletion guard is lifted for the next pull that deletes, within an hour.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub fn allow_delete(&self, folder: Name) -> Asked<()> {
        self.ask(Wish::AllowDelete { folder })
    }

    /// Has old days of a folder, or of all that have a rule for it, archived now; the status tells how it goes.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub fn archive(&self, folder: Option<Name>, accept_clock: bool) -> Asked<()> {
        self.ask(Wish::Archive { folder, accept_clock })
    }

    /// Has the configuration read anew.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub fn reload(&self) -> Asked<Changes> {
        self.ask(Wish::Reload)
    }

    /// Has it tried anew which peers can be called; the status tells what comes of it, with a moment not before this one.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub fn probe(&self) -> Asked<Moment> {
        self.ask(Wish::Probe)
    }

    /// Ends the agent, and waits until it has ended.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub fn stop(&self) -> Asked<()> {
        let stream = socket::connect(&self.home)?;
        let answer = self.converse(&stream, Wish::Stop)?;
        if answer.is_ok() {
            line::wait_for_end(&stream, Deadline::after(END)).map_err(|error| self.wrong("end", error))?;
        }
        Ok(answer)
    }

    /// Asks something of the root of a folder, which may take as long as it takes: `hear` is told the answer piece by piece, and says
    /// at least every few seconds whether it wants to hear more. `Ok(Ok(false))`: it did not, and what has begun there finishes its step.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub fn inquire(&self, folder: &Name, ask: &Ask, hear: &mut dyn FnMut(Tell) -> bool) -> Asked<bool> {
        let stream = socket::connect(&self.home)?;
        let request = Request { version: VERSION, wish: Wish::Ask { folder: folder.clone(), ask: ask.clone() } };
        self.request(&stream, &request, Deadline::after(ANSWER))?;
        let mut lines = Lines::of(&stream);
        loop {
            match self.heard::<()>(&mut lines, Deadline::after(ANSWER))? {
                Outcome::Told(piece) => {
                    if !hear(piece) {
                        return Ok(Ok(false));
                    }
                }
                Outcome::Done(()) => return Ok(Ok(true)),
                Outcome::Error(error) => return Ok(Err(error)),
            }
        }
    }

    fn ask<T: DeserializeOwned>(&self, wish: Wish) -> Asked<T> {
        self.converse(&socket::connect(&self.home)?, wish)
    }

    fn converse<T: DeserializeOwned>(&self, stream: &UnixStream, wish: Wish) -> Asked<T> {
        let deadline = Deadline::after(ANSWER);
        self.request(stream, &Request { version: VERSION, wish }, deadline)?;
        match self.heard(&mut Lines::of(stream), deadline)? {
            Outcome::Done(done) => Ok(Ok(done)),
            Outcome::Error(error) => Ok(Err(error)),
            Outcome::Told(_) => Err(self.makes_no_sense("it tells more than was asked".into())),
        }
    }

    fn request(&self, stream: &UnixStream, request: &Request, deadline: Deadline) -> Result<(), SocketError> {
        // A path of a rule that is no text cannot be said.
        let request = serde_json::to_vec(request)
            .map_err(|error| failed("ask the agent at", &self.path())(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        if request.len() > REQUEST_BYTES {
            let most =
                format!("{} bytes are more than the {REQUEST_BYTES} of one request: ask for fewer paths at once", request.len());
            return Err(failed("ask the agent at", &self.path())(io::Error::new(io::ErrorKind::InvalidInput, most)));
        }
        match line::write(stream, &request, deadline) {
            // An agent that refuses before it has read says why.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
            written => written.map_err(|error| self.wrong("take the request", error)),
        }
    }

    /// The next line of an answer.
    fn heard<T: DeserializeOwned>(&self, lines: &mut Lines<'_>, deadline: Deadline) -> Result<Outcome<T>, SocketError> {
        let answer = lines.read(ANSWER_BYTES, deadline).map_err(|error| self.wrong("answer", error))?;
        let makes_no_sense = |why: String| self.makes_no_sense(why);
        let answer = answer.ok_or_else(|| makes_no_sense("it hung up".into()))?;
        let Spoken { version } = serde_json::from_slice(&answer).map_err(|error| makes_no_sense(error.to_string()))?;
        if version != VERSION {
            return Err(makes_no_sense(format!("it speaks version {version}, and this program {VERSION}: restart the agent")));
        }
        let Answer { result, .. } = serde_json::from_slice(&answer).map_err(|error| makes_no_sense(error.to_string()))?;
        Ok(result)
    }

    fn makes_no_sense(&self, why: String) -> SocketError {
        SocketError::Answer { path: self.path(), why }
    }

    fn path(&self) -> PathBuf {
        self.home.join(SOCKET_FILE)
    }

    fn wrong(&self, what: &'static str, error: io::Error) -> SocketError {
        match error.kind() {
            io::ErrorKind::TimedOut => SocketError::TooLong { path: self.path(), what },
            io::ErrorKind::InvalidData => SocketError::Answer { path: self.path(), why: error.to_string() },
            _ => failed("talk to the agent at", &self.path())(error),
        }
    }
}
