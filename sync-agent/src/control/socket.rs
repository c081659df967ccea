//! The socket in the home folder: made so that nobody else can ever reach it, found by a path of any length.
#![allow(clippy::disallowed_methods, reason = "the home folder is no root")]

use super::line::{self, Deadline};
use super::{PATIENCE, SOCKET_FILE};
use rustix::fs::{Mode, OFlags, chmod, open, rename};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::geteuid;
use std::fs::{DirBuilder, remove_dir, remove_file, symlink_metadata};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use sync_core::path::escape;

/// The folder in which the socket is made, for this user alone, before it goes to its place.
const NEW_FOLDER: &str = "agent.sock.new";
/// Longest path of a socket as the system takes it, its end included, is 108 bytes.
const PATH_BYTES: usize = 100;

/// How long the socket of a process that is ending may still take connections, after its lock is gone.
const LEAVING: Duration = Duration::from_secs(5);
/// What is wrong with a socket that is in use although the lock is free.
const HELD: &str = "is answered by a process that does not hold the agent's lock: end that process first";

/// Why there is no conversation.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Nobody is there.
    #[error(
        "no agent answers at {}: driftless agent run starts one; if it runs with another home, set DRIFTLESS_HOME to that",
        shown(.0)
    )]
    NoAgent(PathBuf),
    /// Somebody is there who should not be.
    #[error("{} {why}", shown(path))]
    Foreign {
        /// Which socket.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The agent did not answer in time.
    #[error("the agent at {} did not {what} in time: it hangs, or the machine is very busy", shown(path))]
    TooLong {
        /// Which socket.
        path: PathBuf,
        /// What was waited for.
        what: &'static str,
    },
    /// What came is no answer.
    #[error("the agent at {} answered what makes no sense: {why}", shown(path))]
    Answer {
        /// Which socket.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system refused.
    #[error("cannot {what} {}: {source}", shown(path))]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError + use<> {
    let path = path.to_path_buf();
    move |source| SocketError::Io { what, path, source }
}

/// A path that the system takes, and what has to stay open for it.
struct Short {
    path: PathBuf,
    _folder: Option<OwnedFd>,
}

/// A socket's path may be too long for the system: then it goes by the folder's descriptor.
fn short(folder: &Path, name: &str) -> io::Result<Short> {
    let path = folder.join(name);
    if path.as_os_str().len() <= PATH_BYTES {
        return Ok(Short { path, _folder: None });
    }
    let folder = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
    Ok(Short { path, _folder: Some(folder) })
}

/// Connects to a socket. One whose process does not let anybody in is not waited for without end, as the system would.
fn reach(folder: &Path, name: &str) -> io::Result<UnixStream> {
    let short = short(folder, name)?;
    let address = SocketAddrUnix::new(&short.path)?;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    loop {
        match net::connect(&socket, &address) {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.map(|()| UnixStream::from(socket)).map_err(io::Error::from),
        }
    }
}

/// Makes the socket, with mode 0600 from the first moment at which anybody could find it. Whoever calls this holds the agent's lock.
pub(super) fn listen(home: &Path) -> Result<UnixListener, SocketError> {
    let path = home.join(SOCKET_FILE);
    check_vacant(home, &path)?;
    let folder = home.join(NEW_FOLDER);
    clear(&folder)?;
    DirBuilder::new().mode(0o700).create(&folder).map_err(failed("make the folder", &folder))?;
    let new = folder.join(SOCKET_FILE);
    let bound = short(&folder, SOCKET_FILE).and_then(|short| UnixListener::bind(&short.path));
    let listener = bound.map_err(failed("make the socket", &new))?;
    chmod(&new, Mode::RUSR | Mode::WUSR).map_err(|error| failed("set the mode of", &new)(error.into()))?;
    listener.set_nonblocking(true).map_err(failed("set up", &new))?;
    // Replaces what a dead agent left.
    rename(&new, &path).map_err(|error| failed("rename", &new)(error.into()))?;
    clear(&folder)?;
    Ok(listener)
}

/// Nothing is there, or a socket at which nobody answers. An agent that was killed loses its lock a moment before its socket, and whoever
/// has reached it by then is told by the end of the connection.
fn check_vacant(home: &Path, path: &Path) -> Result<(), SocketError> {
    let foreign = |why: &str| Err(SocketError::Foreign { path: path.to_owned(), why: why.into() });
    match symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", path)(error)),
        Ok(found) if !found.file_type().is_socket() => return foreign("is no socket, and is left as it is: move it away"),
        Ok(_) => {}
    }
    let deadline = Deadline::after(LEAVING);
    loop {
        match reach(home, SOCKET_FILE) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return foreign(HELD),
            Ok(stream) if line::wait_for_end(&stream, deadline).is_err() => return foreign(HELD),
            Ok(_) => {}
            Err(error) if nobody(&error) => return Ok(()),
            Err(error) => return Err(failed("ask at", path)(error)),
        }
    }
}

fn nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// Removes the folder in which a socket was made, and what a crash left in it.
fn clear(folder: &Path) -> Result<(), SocketError> {
    let gone = |done: io::Result<()>| match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    gone(remove_file(folder.join(SOCKET_FILE))).and_then(|()| gone(remove_dir(folder))).map_err(failed("clear", folder))
}

/// Takes the socket away. Whoever calls this holds the agent's lock.
pub(super) fn remove(home: &Path) -> Result<(), SocketError> {
    let path = home.join(SOCKET_FILE);
    remove_file(&path).map_err(failed("remove", &path))
}

/// Reaches the agent of a home folder.
pub(super) fn connect(home: &Path) -> Result<UnixStream, SocketError> {
    let path = home.join(SOCKET_FILE);
    let stream = match reach(home, SOCKET_FILE) {
        Err(error) if nobody(&error) => return Err(SocketError::NoAgent(path)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(SocketError::TooLong { path, what: "let anybody in" });
        }
        reached => reached.map_err(failed("reach the agent at", &path))?,
    };
    // Where others could have put a socket, what it answers is not believed. Root asks agents of all users.
    let user = user_of(&stream).map_err(failed("tell whose process answers at", &path))?;
    if !geteuid().is_root() && !may_talk(user) {
        return Err(SocketError::Foreign { path, why: format!("is answered by a process of the user {user}") });
    }
    Ok(stream)
}

/// Whose process is at the other end.
pub(super) fn user_of(stream: &UnixStream) -> io::Result<u32> {
    Ok(socket_peercred(stream)?.uid.as_raw())
}

/// Is that this user, or root?
pub(super) fn may_talk(user: u32) -> bool {
    user == geteuid().as_raw() || user == 0
}
