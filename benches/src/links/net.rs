//! What lies between both sides in a run: a loopback of their own, or an emulated link. Gone when dropped.

use anyhow::{Context as _, Result, bail, ensure};
use fixtures::linkemu::{Conditions, Counts, Direction, End, Link};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Where every server listens; each run has namespaces of its own, so that it is free.
pub(crate) const PORT: u16 = 4477;
/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The network of one run.
#[derive(Debug)]
pub(crate) enum Net {
    /// Both sides in a namespace with nothing but its loopback.
    Loopback(End),
    /// The first side at one end, the server at the other.
    Emulated(Link),
}

/// What TCP does about losses on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    Cubic,
    Bbr,
}

impl Control {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Control::Cubic => "cubic",
            Control::Bbr => "bbr",
        }
    }
}

impl Net {
    pub(crate) fn loopback() -> Result<Net> {
        End::alone().map(Net::Loopback)
    }

    /// A link with the same conditions both ways, and TCP under this congestion control if one is named.
    pub(crate) fn emulated(conditions: Conditions, control: Option<Control>, seed: u64) -> Result<Net> {
        let whole = Conditions { loss: 0.0, ..conditions };
        let link = Link::open(whole, whole, seed)?;
        if let Some(control) = control {
            steer(&link, control)?;
        }
        link.set(Direction::AToB, conditions);
        link.set(Direction::BToA, conditions);
        Ok(Net::Emulated(link))
    }

    /// Where the first side is.
    pub(crate) fn here(&self) -> &End {
        match self {
            Net::Loopback(end) => end,
            Net::Emulated(link) => &link.a,
        }
    }

    /// Where the server is.
    pub(crate) fn there(&self) -> &End {
        match self {
            Net::Loopback(end) => end,
            Net::Emulated(link) => &link.b,
        }
    }

    /// What an emulated link carried, to the server and back.
    pub(crate) fn counts(&self) -> Option<[Counts; 2]> {
        match self {
            Net::Loopback(_) => None,
            Net::Emulated(link) => Some([Direction::AToB, Direction::BToA].map(|direction| link.counts(direction))),
        }
    }

    /// Waits until somebody listens at [`PORT`] where the server is, by UDP or by TCP.
    pub(crate) fn wait_for_listener(&self, log: &Path) -> Result<()> {
        self.there().run(|| {
            let end = Instant::now() + START;
            // No event tells of another program's socket, and a connection to try it would be a session for some.
            while !listens("tcp")? && !listens("udp")? {
                if Instant::now() > end {
                    crate::lab::show_tail(log)?;
                    bail!("no server listens at {PORT} within {} s; its log is {}", START.as_secs(), log.display());
                }
                std::thread::sleep(LOOK_EVERY);
            }
            Ok(())
        })
    }
}

/// Is there a socket at [`PORT`] in this thread's namespace that takes what comes?
fn listens(protocol: &str) -> Result<bool> {
    let path = format!("/proc/thread-self/net/{protocol}");
    let table = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(table.lines().skip(1).any(|line| is_open(line, protocol == "tcp")))
}

/// A line of `/proc/net/tcp` or `udp`: number, local address, remote address, state.
fn is_open(line: &str, must_listen: bool) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let port = words.next().and_then(|local| u16::from_str_radix(local.split_once(':')?.1, 16).ok());
    port == Some(PORT) && (!must_listen || words.nth(1) == Some("0A"))
}

/// Has the routes over the link name the congestion control. The sysctl would not do: in a namespace it takes only what
/// everybody on the machine may use.
fn steer(link: &Link, control: Control) -> Result<()> {
    for end in [&link.a, &link.b] {
        let source = end.address.to_string();
        let route = ["route", "replace", "10.77.0.0/24", "dev", "emu0", "proto", "kernel", "scope", "link", "src", &source];
        end.run(|| {
            let output = Command::new("ip").args(route).args(["congctl", control.name()]).output().context("cannot run `ip`")?;
            ensure!(
                output.status.success(),
                "no route with TCP {}: {}",
                control.name(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
            Ok(())
        })?;
    }
    let listener = link.b.run(|| TcpListener::bind((link.b.address, PORT + 1)).context("cannot listen"))?;
    let stream = link.a.run(|| TcpStream::connect((link.b.address, PORT + 1)).context("cannot connect"))?;
    let (incoming, _) = listener.accept().context("cannot accept")?;
    for end in [&stream, &incoming] {
        let found = rustix::net::sockopt::tcp_congestion(end).context("cannot ask for the congestion control")?;
        ensure!(found == control.name(), "TCP is under {found} and not under {}", control.name());
    }
    Ok(())
}

/// Deletes the namespaces of this process, for when it has no time to drop what owns them.
pub(crate) fn remove_all() {
    let own = format!("driftless-{}-", std::process::id());
    // What cannot be deleted stays, as README.md tells, and harms nobody.
    let Ok(names) = fs::read_dir("/var/run/netns") else { return };
    for name in names.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with(&own)) {
        let _ = Command::new("ip").args(["netns", "delete", &name]).status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_from_connections_and_other_ports() {
        let line = "   0: 0100007F:117D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 721867 1";
        assert!(is_open(line, true));
        assert!(!is_open(&line.replace(" 0A ", " 01 "), true));
        assert!(is_open(&line.replace(" 0A ", " 07 "), false));
        assert!(!is_open(&line.replace("117D", "117E"), false));
        assert!(!is_open("", false));
    }
}
