//! Tells systemd how the agent is: `sd_notify(3)`, datagrams of `KEY=VALUE` lines to the socket that `NOTIFY_SOCKET` names.
//!
//! Reads no environment: whoever starts the agent hands in what stood there.

use rustix::time::{ClockId, clock_gettime};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a supervisor may leave its queue full.
const WAIT: Duration = Duration::from_secs(1);

/// How the agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It works.
    Ready,
    /// It reads its configuration; [`State::Ready`] follows.
    Reloading,
    /// It ends.
    Stopping,
    /// It still works.
    Alive,
}

/// Where to tell it, and how often it is to be heard from.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    /// The value of `NOTIFY_SOCKET`: a path, or a name behind `@`. `None`: nobody listens.
    pub socket: Option<OsString>,
    /// The value of `WATCHDOG_USEC`, if it is meant for this process; `None`: no watchdog.
    pub watchdog: Option<Duration>,
}

impl Supervisor {
    /// Half of what the watchdog allows, as systemd recommends.
    pub(crate) fn beat(&self) -> Option<Duration> {
        self.watchdog.map(|watchdog| (watchdog / 2).max(Duration::from_millis(10)))
    }

    /// Tells it. Nothing happens where nobody listens.
    pub(crate) fn tell(&self, state: State) -> io::Result<()> {
        let Some(name) = &self.socket else { return Ok(()) };
        let address = address(name)?;
        let text = match state {
            State::Ready => "READY=1\nSTATUS=running".to_owned(),
            State::Reloading => {
                // By this number it is known that the READY which follows is an answer to the request.
                let now = clock_gettime(ClockId::Monotonic);
                let us = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
                format!("RELOADING=1\nMONOTONIC_USEC={us}\nSTATUS=reading the configuration")
            }
            State::Stopping => "STOPPING=1\nSTATUS=ending".to_owned(),
            State::Alive => "WATCHDOG=1".to_owned(),
        };
        let socket = UnixDatagram::unbound()?;
        // A supervisor that does not read must not stop the agent.
        socket.set_write_timeout(Some(WAIT))?;
        socket.send_to_addr(text.as_bytes(), &address).map(drop)
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "NOTIFY_SOCKET is neither a whole path nor a name behind @")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(socket: &UnixDatagram, name: OsString) -> Vec<String> {
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let supervisor = Supervisor { socket: Some(name), watchdog: Some(Duration::from_secs(4)) };
        assert_eq!(supervisor.beat(), Some(Duration::from_secs(2)));
        let read = |state| {
            supervisor.tell(state).unwrap();
            let mut bytes = [0; 256];
            let count = socket.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..count].to_vec()).unwrap()
        };
        [State::Ready, State::Reloading, State::Alive, State::Stopping].map(read).into()
    }

    #[test]
    fn the_supervisor_hears_every_state_by_path_and_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let by_path = told(&UnixDatagram::bind(&path).unwrap(), path.into());
        let name = format!("driftless-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = told(&UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}").into());
        for told in [by_path, by_name] {
            let keys: Vec<&str> = told.iter().map(|text| text.split('=').next().unwrap()).collect();
            assert_eq!(keys, ["READY", "RELOADING", "WATCHDOG", "STOPPING"]);
            let us = told[1].lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
            assert!(us.parse::<u64>().unwrap() > 0);
        }
    }

    #[test]
    fn nobody_to_tell_is_no_error_and_a_supervisor_that_is_gone_is_one() {
        assert!(Supervisor::default().tell(State::Ready).is_ok() && Supervisor::default().beat().is_none());
        for name in ["relative", "/nowhere/at/all"] {
            let gone = Supervisor { socket: Some(name.into()), watchdog: None };
            assert!(gone.tell(State::Ready).is_err(), "{name}");
        }
    }
}
