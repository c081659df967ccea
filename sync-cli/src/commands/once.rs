//! One session for somebody who came through ssh: ssh has vouched for who may call, and tells the caller who answers.

use crate::commands::serve::GRACE;
use crate::exit::Exit;
use crate::offer::{self, Offer};
use crate::output::Output;
use crate::signals::Interrupt;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;
use sync_core::io::link::{Connection, Identity, LinkError, Listener, Network};
use sync_core::io::sync::Host;
use sync_core::peer::{Id, Mode};
use sync_core::report::Monitor;

/// How long the caller may take to call.
const CALL: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(100);
/// Bytes of a first look at the pipe.
const FIRST: usize = 4 << 10;

/// Offers one session on standard output, and ends with it, or when standard input does.
pub(super) fn serve(host: &Host, caller: Id, listen: Option<SocketAddr>, interrupt: &Interrupt, output: &Output) -> Result<Exit> {
    let network = Network::new(Identity::generate()?)?;
    let came_to = reached_at();
    let listener = Arc::new(open(&network, listen, came_to, caller)?);
    let offer = Offer { port: listener.address().port(), id: network.identity().id(), host: came_to };
    let line = serde_json::to_string(&offer).context("cannot say where this side is")?;
    output.bytes(format!("{line}\n").as_bytes());
    output.flush();
    let gone = Arc::new(AtomicBool::new(false));
    let through_ssh = watch_pipe(Arc::clone(&gone), Arc::clone(&listener));
    let monitor = Attendant { gone: &gone, interrupt, output };
    match wait(&listener, &through_ssh, &monitor)? {
        Came::Nobody if interrupt.asked() && !interrupt.is_term() => Ok(Exit::Interrupted),
        Came::Nobody => Ok(Exit::InSync),
        Came::OverUdp(connection) => match (answer(host, connection, &monitor), through_ssh.try_recv()) {
            // The last packet of the handshake was lost, or came too late: the caller has given UDP up.
            (Exit::CouldNotRun, Ok(first)) => answer_through((host, &network, caller), first, &monitor),
            (exit, _) => Ok(exit),
        },
        Came::ThroughSsh(first) => answer_through((host, &network, caller), first, &monitor),
    }
}

fn answer_through((host, network, caller): (&Host, &Network, Id), first: Vec<u8>, monitor: &Attendant<'_>) -> Result<Exit> {
    let (reader, writer) = pipe(first).context("cannot use the pipe of ssh")?;
    let connection = network.answer_through(caller, reader, writer, CALL)?;
    Ok(answer(host, connection, monitor))
}

/// ssh let the caller in: the account that it came to bounds what it may do.
fn answer(host: &Host, connection: Connection, monitor: &Attendant<'_>) -> Exit {
    // The caller hears of errors over the connection. If that is gone, stderr leads nowhere either.
    let served = host.serve(connection, &|_| Some(Mode::TwoWay), monitor);
    if served.is_ok() { Exit::InSync } else { Exit::CouldNotRun }
}

/// How the caller came.
enum Came {
    OverUdp(Connection),
    /// With these first bytes.
    ThroughSsh(Vec<u8>),
    Nobody,
}

type Ends = (Box<dyn Read + Send>, Box<dyn Write + Send>);

/// Both ways of ssh's pipe, unbuffered: each packet is waited for.
fn pipe(first: Vec<u8>) -> std::io::Result<Ends> {
    let reader = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let writer = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    Ok((Box::new(Cursor::new(first).chain(reader)), Box::new(writer)))
}

/// Where the caller is to call: where ssh came to, if sshd says so, and everywhere otherwise.
fn open(network: &Network, listen: Option<SocketAddr>, came_to: Option<IpAddr>, caller: Id) -> Result<Listener> {
    let given = listen.or(came_to.map(|ip| SocketAddr::new(ip, 0)));
    let only = |address| network.listen(address, [caller].into());
    if let Some(address) = given {
        return Ok(only(address)?);
    }
    // One socket for both families, or, where there is no IPv6, for the other one.
    let any = only((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| only((Ipv4Addr::UNSPECIFIED, 0).into()));
    Ok(any?)
}

#[allow(clippy::disallowed_methods, reason = "sshd says it there and nowhere else")]
fn reached_at() -> Option<IpAddr> {
    offer::reached_at(&std::env::var("SSH_CONNECTION").ok()?)
}

/// Looks at ssh's pipe. Bytes come if the caller uses it, and are handed on once. If it ends instead, nobody waits for this session
/// any more: it stops, and if it does not, its connection ends.
fn watch_pipe(gone: Arc<AtomicBool>, listener: Arc<Listener>) -> Receiver<Vec<u8>> {
    let (sender, first) = sync_channel(1);
    thread::spawn(move || {
        let mut bytes = vec![0; FIRST];
        match std::io::stdin().as_fd().try_clone_to_owned().and_then(|stdin| File::from(stdin).read(&mut bytes)) {
            Ok(read) if read > 0 => {
                bytes.truncate(read);
                // If nobody takes them, the process ends.
                let _ = sender.send(bytes);
                // The caller does not try the other way any more, and is waiting.
                listener.stop();
            }
            _ => {
                gone.store(true, Ordering::Relaxed);
                listener.stop();
                thread::sleep(GRACE);
                listener.close();
                thread::sleep(GRACE);
                // Whatever it still waits for: nobody will ever ask it to end, and the next run mends what it leaves.
                std::process::exit(Exit::CouldNotRun as i32);
            }
        }
    });
    first
}

/// Waits for the caller, by either way.
fn wait(listener: &Listener, through_ssh: &Receiver<Vec<u8>>, monitor: &Attendant<'_>) -> Result<Came> {
    for _ in 0..CALL.as_millis() / TICK.as_millis() {
        if monitor.cancelled() {
            return Ok(Came::Nobody);
        }
        if let Ok(first) = through_ssh.try_recv() {
            return Ok(Came::ThroughSsh(first));
        }
        match listener.accept(TICK) {
            Ok(connection) => return Ok(Came::OverUdp(connection)),
            Err(LinkError::TooLong(_)) => {}
            // It was stopped for what is found here.
            Err(error) => match through_ssh.try_recv() {
                Ok(first) => return Ok(Came::ThroughSsh(first)),
                Err(_) if monitor.cancelled() => return Ok(Came::Nobody),
                Err(_) => return Err(error.into()),
            },
        }
    }
    monitor.output.talk("nobody called in time");
    Ok(Came::Nobody)
}

/// Listens to the session. What is said on stderr, ssh carries to the caller's user.
struct Attendant<'a> {
    gone: &'a AtomicBool,
    interrupt: &'a Interrupt,
    output: &'a Output,
}

impl Monitor for Attendant<'_> {
    fn cancelled(&self) -> bool {
        self.gone.load(Ordering::Relaxed) || self.interrupt.asked()
    }
}
