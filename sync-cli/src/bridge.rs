//! A root behind ssh: driftless is started over there for one session, and called over QUIC; where UDP does not pass, QUIC's packets
//! go through ssh.
//!
//! The other side makes a key for this session alone. ssh carries the fingerprints of both, this side's as an argument and the other
//! one's in an [`Offer`], so that each knows the other one by what ssh has vouched for. This side comes with the key that it always
//! has: by that a root over there recognises the one here, also when its disk is not mounted. As long as ssh's pipe is open the other
//! side stays, and when ssh ends the connection is given up.

use crate::cli::ReachArgs;
use crate::home;
use crate::location::Behind;
use crate::offer::Offer;
use crate::values::Retention;
use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;
use sync_core::io::link::{CloseCode, Connection, Identity, Network};
use sync_core::path::escape;
use sync_core::peer::Id;

/// What the other side calls the root in this session.
pub(crate) const FOLDER: &str = "root";
/// How long ssh may take until the other side has said where it is: somebody may have to type a password.
const OFFER: Duration = Duration::from_secs(120);
/// How much a shell over there may write before that.
const NOISE: u64 = 64 << 10;
/// How long UDP is tried.
const CALL: Duration = Duration::from_secs(5);
/// How long a handshake through ssh may take.
const THROUGH: Duration = Duration::from_secs(20);
/// How long the other side, and ssh with it, may take to end.
const LEAVE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// How long what is under way may still come after ssh has ended.
const LAST: Duration = Duration::from_secs(2);

/// ssh, and driftless behind it, for one session. Both end with it.
#[derive(Debug)]
pub(crate) struct Bridge {
    child: Child,
    /// The other side stays while this is open. `None` once packets go through it.
    stdin: Option<ChildStdin>,
}

/// How roots behind ssh are reached, and how long versions are kept there.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    pub(crate) reach: &'a ReachArgs,
    pub(crate) keep_versions: Retention,
}

/// Tells a user what is worth knowing.
pub(crate) type Tell<'a> = dyn Fn(&str) + 'a;

impl Bridge {
    /// Starts the other side and connects to it.
    pub(crate) fn open(behind: &Behind, route: Route<'_>, tell: &Tell<'_>) -> Result<(Bridge, Arc<Connection>)> {
        let network = Network::new(Identity::open(&home::open()?)?)?;
        let mut bridge = Bridge::start(behind, route, network.identity().id())?;
        let (offer, rest) = bridge.offer()?;
        let connected = bridge.connect(&network, (&offer, rest), behind, tell);
        // What is left of a call that failed holds ssh's pipe open, and ssh would be waited for.
        drop(network);
        Ok((bridge, connected?))
    }

    /// Over UDP, or through the pipe where that does not answer.
    fn connect(
        &mut self,
        network: &Network,
        (offer, rest): (&Offer, BufReader<ChildStdout>),
        behind: &Behind,
        tell: &Tell<'_>,
    ) -> Result<Arc<Connection>> {
        match network.dial(offer.id, &offer.addresses(&behind.host), CALL) {
            Ok(connection) => {
                let connection = Arc::new(connection);
                end_with(rest, Arc::downgrade(&connection));
                Ok(connection)
            }
            Err(blocked) => {
                tell(&format!("note: {} does not answer over UDP, and all data goes through ssh: {blocked}", behind.host));
                let stdin = self.stdin.take().context("ssh has no input")?;
                Ok(Arc::new(network.call_through(offer.id, Box::new(rest), Box::new(stdin), THROUGH)?))
            }
        }
    }

    fn start(behind: &Behind, route: Route<'_>, own: Id) -> Result<Bridge> {
        let (program, options) = route.reach.rsh.0.split_first().context("--rsh names no program")?;
        let mut command = Command::new(program);
        command.args(options);
        if let Some(port) = behind.port {
            command.arg("-p").arg(port.to_string());
        }
        command.arg(&behind.destination).arg(there(route, own, &behind.path));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", escape(program.as_bytes())))?;
        let stdin = child.stdin.take();
        Ok(Bridge { child, stdin })
    }

    /// Waits for the line of the other side.
    fn offer(&mut self) -> Result<(Offer, BufReader<ChildStdout>)> {
        let stdout = self.child.stdout.take().context("ssh has no output")?;
        let (sender, found) = mpsc::channel();
        thread::spawn(move || sender.send(find_offer(BufReader::new(stdout))));
        match found.recv_timeout(OFFER) {
            Ok(Some(found)) => Ok(found),
            Err(RecvTimeoutError::Timeout) => bail!("no answer through ssh in {} seconds", OFFER.as_secs()),
            Ok(None) | Err(RecvTimeoutError::Disconnected) => bail!("{}", why_not(self.leave())),
        }
    }

    /// Lets the other side go, and tells how ssh ended; `None` if it had to be killed.
    fn leave(&mut self) -> Option<ExitStatus> {
        drop(self.stdin.take());
        for _ in 0..LEAVE.as_millis() / POLL.as_millis() {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(POLL),
                Ok(status) => return status,
                Err(_) => break,
            }
        }
        // It is a child of this process, and has not been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The command line over there.
fn there(route: Route<'_>, own: Id, path: &OsStr) -> OsString {
    let program = &route.reach.remote_command;
    let mut line = format!("{program} serve --once {own} --keep-versions {} --root ", route.keep_versions).into_bytes();
    line.extend(for_shell(&[format!("{FOLDER}=").as_bytes(), path.as_bytes()].concat()));
    OsString::from_vec(line)
}

/// One word of a shell.
fn for_shell(word: &[u8]) -> Vec<u8> {
    let quoted = word.iter().flat_map(|byte| match byte {
        b'\'' => b"'\\''".as_slice(),
        // For fish it would escape within quotes too.
        b'\\' => b"'\\\\'".as_slice(),
        byte => std::slice::from_ref(byte),
    });
    [b"'".as_slice(), &quoted.copied().collect::<Vec<u8>>(), b"'"].concat()
}

/// Passes over what a shell writes of its own accord. `None` if the offer does not come.
fn find_offer(mut from: BufReader<ChildStdout>) -> Option<(Offer, BufReader<ChildStdout>)> {
    let mut left = NOISE;
    loop {
        let mut line = Vec::new();
        let read = Read::by_ref(&mut from).take(left).read_until(b'\n', &mut line).ok()?;
        if read == 0 {
            return None;
        }
        left -= read as u64;
        if let Some(offer) = Offer::parse(line.trim_ascii_end()) {
            return Some((offer, from));
        }
    }
}

fn why_not(status: Option<ExitStatus>) -> String {
    match status.and_then(|status| status.code()) {
        Some(127) => {
            "driftless was not found there: install it where ssh finds programs, or say with --remote-command where it is"
        }
        Some(64) => "the driftless that is installed there does not know how to serve: install the version of this machine",
        Some(255) => "ssh could not connect",
        _ => "ssh ended without an answer of driftless",
    }
    .into()
}

/// Gives the connection up when nothing can come through ssh any more: then the other side has ended, however that came.
fn end_with(mut rest: BufReader<ChildStdout>, connection: Weak<Connection>) {
    thread::spawn(move || {
        let _ = std::io::copy(&mut rest, &mut std::io::sink());
        thread::sleep(LAST);
        if let Some(connection) = connection.upgrade() {
            connection.close(CloseCode::Failed);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_core::peer::PublicKey;

    #[test]
    fn a_path_reaches_the_other_side_as_it_is() {
        for path in ["/srv/a b", "it's", "$(x) `y` \"z\" \\", "a\nb", "-", "*"] {
            let line = [b"printf '%s|' ".as_slice(), &for_shell(path.as_bytes())].concat();
            let out = Command::new("sh").arg("-c").arg(OsStr::from_bytes(&line)).output().unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), format!("{path}|"));
        }
    }

    #[test]
    fn what_a_shell_says_first_is_passed_over() {
        let offer = "{\"event\":\"offer\",\"port\":1,\"id\":\"ID\",\"host\":null}"
            .replace("ID", &PublicKey::from_bytes([1; 32]).id().to_string());
        for (script, found) in [
            (format!("echo hello; echo '{offer}'; echo rest"), true),
            ("echo hello".into(), false),
            ("yes".into(), false),
            (String::new(), false),
        ] {
            let mut child = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
            let result = find_offer(BufReader::new(child.stdout.take().unwrap()));
            assert_eq!(result.is_some(), found, "{script}");
            if let Some((_, mut rest)) = result {
                let mut text = String::new();
                rest.read_to_string(&mut text).unwrap();
                assert_eq!(text, "rest\n");
            }
            child.wait().unwrap();
        }
    }
}
