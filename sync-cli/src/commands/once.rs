//! One session for somebody who came through ssh: ssh has vouched for who may call, and tells the caller who answers.

use crate::commands::serve::GRACE;
use crate::exit::Exit;
use crate::offer::{self, Offer};
use crate::output::Output;
use crate::signals::Interrupt;
use anyhow::{Context, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use sync_core::io::link::{Connection, Identity, LinkError, Listener, Network};
use sync_core::io::sync::Host;
use sync_core::peer::{Id, Mode};
use sync_core::report::Monitor;

/// How long the caller may take to call.
const CALL: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(100);

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
    watch_pipe(Arc::clone(&gone), Arc::clone(&listener));
    let monitor = Attendant { gone: &gone, interrupt, output };
    match wait(&listener, &monitor)? {
        Some(connection) => {
            // ssh let it in: the user's own account bounds what it may do.
            let served = host.serve(connection, &|_| Some(Mode::TwoWay), &monitor);
            // The caller hears of errors over the connection. If it is gone, stderr leads nowhere either.
            Ok(if served.is_ok() { Exit::InSync } else { Exit::CouldNotRun })
        }
        None if interrupt.asked() && !interrupt.is_term() => Ok(Exit::Interrupted),
        None => Ok(Exit::InSync),
    }
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

/// When ssh's pipe ends, nobody waits for this session any more: it stops, and if it does not, its connection ends.
fn watch_pipe(gone: Arc<AtomicBool>, listener: Arc<Listener>) {
    thread::spawn(move || {
        // Nothing is said through the pipe; a session that runs through it would begin here.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        gone.store(true, Ordering::Relaxed);
        thread::sleep(GRACE);
        listener.close();
    });
}

/// The caller; `None` if it does not come, or nobody waits for it.
fn wait(listener: &Listener, monitor: &Attendant<'_>) -> Result<Option<Connection>> {
    for _ in 0..CALL.as_millis() / TICK.as_millis() {
        if monitor.cancelled() {
            return Ok(None);
        }
        match listener.accept(TICK) {
            Ok(connection) => return Ok(Some(connection)),
            Err(LinkError::TooLong(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    monitor.output.talk("nobody called over UDP");
    Ok(None)
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
