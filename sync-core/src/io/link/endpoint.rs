//! Sockets, threads, listening and dialling. The threads belong to a [`Network`]; whoever calls it just waits, up to a deadline.

use super::identity::Identity;
use super::pipe::{self, Left, Pipe};
use super::quic::{Quic, describe, peer_key};
use super::throttle::Throttle;
use super::tls::{self, Admits, Purpose, Seen, Trust};
use super::{Attempt, CloseCode, Connection, LinkError};
use crate::io::mutex::{get_mut, lock};
use crate::peer::{Address, Id};
use quinn::{ConnectionError, Endpoint, EndpointConfig, Incoming, TokioRuntime, TransportErrorCode, VarInt};
use socket2::SockRef;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// Threads that drive all connections.
const THREADS: usize = 2;
/// One deadline over handshake and greeting of whoever comes.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at a time; one more takes the place of another.
const HANDSHAKES: usize = 64;
/// Handshakes above which a stranger has to show first that its address is its own.
const RETRY_ABOVE: usize = 8;
/// Connections of one listener; more are refused.
const CONNECTIONS: usize = 256;
/// Connections that wait to be accepted.
const READY: usize = 16;
/// What the kernel is asked to hold of each socket. It may grant less.
pub const SOCKET_BYTES: usize = 4 << 20;
/// Addresses that are tried of one name.
const OF_ONE_NAME: usize = 8;
/// How long the last packets may take when a network ends.
const LINGER: Duration = Duration::from_millis(500);
/// Sent by the listener when it has accepted the other's key, and back by the one that dialled when it takes this connection.
const GREETING: u8 = 1;
/// Nobody looks at it: keys decide, not names.
const NAME: &str = "driftless";
/// Alerts of TLS (RFC 8446, section 6.2) that can be explained.
const ACCESS_DENIED: u8 = 49;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// A machine's access to others: its identity, its sockets, and the threads behind them.
#[derive(Debug, Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    identity: Identity,
    /// Taken when the network ends.
    runtime: Option<Runtime>,
    /// Sockets to dial from, of IPv4 and IPv6, made when first needed.
    dialling: Mutex<[Option<Endpoint>; 2]>,
    /// What runs through pipes, and whether their other ends have left.
    piped: Mutex<Vec<(Endpoint, Left)>>,
    /// Connections that were begun here and, as far as is known, not ended by the other side.
    unended: AtomicUsize,
    /// What all its connections together may send and receive.
    throttles: Throttles,
}

/// Both ways.
#[derive(Debug, Default)]
pub(super) struct Throttles {
    pub(super) out: Throttle,
    pub(super) back: Throttle,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.identity)
    }
}

impl Drop for Inner {
    /// Tells the other ends, where they do not know: whoever ended a connection by itself waits for nothing more, and QUIC would
    /// hold it for three more time-outs. Names that are being resolved are not waited for.
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let dialling = std::mem::take(get_mut(&mut self.dialling));
        let piped = std::mem::take(get_mut(&mut self.piped));
        if *self.unended.get_mut() == 0 {
            return runtime.shutdown_background();
        }
        dialling.into_iter().flatten().for_each(|endpoint| end(&runtime, &endpoint));
        piped.into_iter().for_each(|(endpoint, left)| end_pipe(&runtime, &endpoint, &left));
        runtime.shutdown_background();
    }
}

/// Closes what is open. Whoever has not heard of it after a moment finds out by silence.
fn end(runtime: &Runtime, endpoint: &Endpoint) {
    endpoint.close(VarInt::from_u32(CloseCode::Failed.number()), b"");
    let _ = runtime.block_on(async { timeout(LINGER, endpoint.wait_idle()).await });
}

/// As [`end`]. A pipe loses nothing, so that nobody has to wait whether the last packet is asked for again: whoever has left the pipe
/// has read it, or is gone.
fn end_pipe(runtime: &Runtime, endpoint: &Endpoint, left: &Left) {
    endpoint.close(VarInt::from_u32(CloseCode::Failed.number()), b"");
    let ended = async {
        tokio::select! {
            () = endpoint.wait_idle() => {}
            () = left.wait() => {}
        }
    };
    let _ = runtime.block_on(async { timeout(LINGER, ended).await });
}

fn failed(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> LinkError {
    let what = what.into();
    move |error| LinkError::Setup { what, why: error.to_string() }
}

impl Network {
    /// Starts the threads.
    pub fn new(identity: Identity) -> Result<Network, LinkError> {
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).thread_name("link").enable_all().build();
        let runtime = Some(runtime.map_err(failed("start the threads of the network"))?);
        let (dialling, piped, unended) = (Mutex::default(), Mutex::default(), AtomicUsize::new(0));
        let throttles = Throttles::default();
        Ok(Network(Arc::new(Inner { identity, runtime, dialling, piped, unended, throttles })))
    }

    /// Who this machine is.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// From now on all connections together, those that there are too, take no more than so many bytes a second each way; `None`: as
    /// many as there are. What QUIC adds to them, and sends again after losses, comes on top.
    pub fn limit(&self, bytes_per_second: Option<u64>) {
        self.0.throttles.out.set(bytes_per_second);
        self.0.throttles.back.set(bytes_per_second);
    }

    pub(super) fn throttles(&self) -> &Throttles {
        &self.0.throttles
    }

    /// Waits for known peers. Port 0 takes any that is free.
    pub fn listen(&self, address: SocketAddr, allowed: BTreeSet<Id>) -> Result<Listener, LinkError> {
        self.listen_for(address, Trust::Only(allowed), Purpose::Sync)
    }

    /// As [`Network::listen`], with peers that may come to be known, or forgotten, while it waits.
    pub fn listen_if(&self, address: SocketAddr, admits: Arc<Admits>) -> Result<Listener, LinkError> {
        self.listen_for(address, Trust::Asked(admits), Purpose::Sync)
    }

    /// Reaches a peer: all of its addresses are tried at once, names resolved anew, and the first at which that very peer
    /// answers and lets this machine in is taken.
    pub fn dial(&self, peer: Id, addresses: &[Address], wait: Duration) -> Result<Connection, LinkError> {
        self.dial_for(addresses, Trust::Only([peer].into()), Purpose::Sync, wait)
    }

    /// Reaches the one machine at the other end of a pipe that both have already, such as ssh's, which ends with the connection.
    pub fn call_through(
        &self,
        peer: Id,
        reader: Box<dyn Read + Send>,
        writer: Box<dyn Write + Send>,
        wait: Duration,
    ) -> Result<Connection, LinkError> {
        let endpoint = self.piped(reader, writer, None)?;
        let (mut config, seen) = tls::client(&self.0.identity, Trust::Only([peer].into()), Purpose::Sync)?;
        config.transport_config(Arc::new(tls::through_pipe()));
        let reached = self.within(wait, async {
            let connection = endpoint.connect_with(config, pipe::PLACE, NAME).map_err(|error| error.to_string())?.await;
            let connection = connection.map_err(|error| explain(&error, &seen, Purpose::Sync))?;
            greeted(&connection).await.map_err(|error| explain(&error, &seen, Purpose::Sync))?;
            greet(&connection).await.map_err(|error| describe(&error))?;
            Ok(connection)
        });
        let connection = reached.ok_or(LinkError::TooLong("reaching the other end of the pipe"))?;
        Quic::connection(connection.map_err(LinkError::Ended)?, self.clone())
    }

    /// Waits for the one machine at the other end of a pipe.
    pub fn answer_through(
        &self,
        peer: Id,
        reader: Box<dyn Read + Send>,
        writer: Box<dyn Write + Send>,
        wait: Duration,
    ) -> Result<Connection, LinkError> {
        let mut config = tls::server(&self.0.identity, Trust::Only([peer].into()), Purpose::Sync)?;
        config.transport_config(Arc::new(tls::through_pipe()));
        let endpoint = self.piped(reader, writer, Some(config))?;
        let came = self.within(wait, async {
            let incoming = endpoint.accept().await.ok_or_else(|| "the pipe has ended".to_owned())?;
            let connection = incoming.await.map_err(|error| describe(&error))?;
            greet(&connection).await.map_err(|error| describe(&error))?;
            greeted(&connection).await.map_err(|error| describe(&error))?;
            Ok(connection)
        });
        let connection = came.ok_or(LinkError::TooLong("waiting for the other end of the pipe"))?;
        Quic::connection(connection.map_err(LinkError::Ended)?, self.clone())
    }

    fn piped(
        &self,
        reader: Box<dyn Read + Send>,
        writer: Box<dyn Write + Send>,
        server: Option<quinn::ServerConfig>,
    ) -> Result<Endpoint, LinkError> {
        let what = "use the pipe";
        let socket = Arc::new(Pipe::new(reader, writer).map_err(failed(what))?);
        let left = socket.left();
        let mut config = EndpointConfig::default();
        // It is within the limits of QUIC.
        let _ = config.max_udp_payload_size(pipe::PACKET);
        let _context = self.runtime().enter();
        let endpoint =
            Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime)).map_err(failed(what))?;
        self.0.unended.fetch_add(1, Ordering::Relaxed);
        let mut piped = lock(&self.0.piped);
        piped.retain(|(endpoint, _)| endpoint.open_connections() > 0);
        piped.push((endpoint.clone(), left));
        Ok(endpoint)
    }

    pub(super) fn listen_for(&self, address: SocketAddr, trust: Trust, purpose: Purpose) -> Result<Listener, LinkError> {
        let config = tls::server(&self.0.identity, trust, purpose)?;
        let what = format!("listen on {address}");
        let socket = socket(address).map_err(failed(what.clone()))?;
        let _context = self.runtime().enter();
        let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime));
        let endpoint = endpoint.map_err(failed(what.clone()))?;
        let address = endpoint.local_addr().map_err(failed(what))?;
        let (sender, ready) = mpsc::channel(READY);
        self.runtime().spawn(serve(endpoint.clone(), sender));
        let (stop, _) = watch::channel(false);
        Ok(Listener { network: self.clone(), endpoint, address, ready: tokio::sync::Mutex::new(ready), stop })
    }

    pub(super) fn dial_for(
        &self,
        addresses: &[Address],
        trust: Trust,
        purpose: Purpose,
        wait: Duration,
    ) -> Result<Connection, LinkError> {
        let deadline = Instant::now() + wait;
        let mut tasks: JoinSet<Result<quinn::Connection, Vec<Attempt>>> = JoinSet::new();
        for address in addresses {
            let plan = Plan { network: Arc::downgrade(&self.0), given: address.clone(), trust: trust.clone(), purpose, wait };
            tasks.spawn_on(plan.reach(), self.runtime().handle());
        }
        let mut attempts = Vec::new();
        let found = self.runtime().block_on(async {
            while let Some(done) = tasks.join_next().await {
                match done {
                    Ok(Ok(connection)) => return Some(connection),
                    Ok(Err(failed)) => attempts.extend(failed),
                    Err(_) => {}
                }
            }
            None
        });
        let connection = found.ok_or(LinkError::Unreachable(attempts))?;
        let left = deadline.saturating_duration_since(Instant::now());
        let taken = self.within(left, greet(&connection)).ok_or(LinkError::TooLong("the greeting"))?;
        taken.map_err(|error| LinkError::Ended(describe(&error)))?;
        Quic::connection(connection, self.clone())
    }

    /// Waits for a future of this network, but not longer; `None` if it was not done by then.
    pub(super) fn within<T>(&self, wait: Duration, future: impl Future<Output = T>) -> Option<T> {
        self.runtime().block_on(async { timeout(wait, future).await.ok() })
    }

    /// The other side has ended a connection that was begun here.
    pub(super) fn was_ended(&self) {
        self.0.unended.fetch_sub(1, Ordering::Relaxed);
    }

    fn runtime(&self) -> &Runtime {
        self.0.runtime.as_ref().expect("the runtime is taken only when nobody holds the network any more")
    }
}

fn socket(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    let sizes = SockRef::from(&socket);
    // The kernel's limit may be lower, and then it grants that.
    let _ = sizes.set_recv_buffer_size(SOCKET_BYTES);
    let _ = sizes.set_send_buffer_size(SOCKET_BYTES);
    Ok(socket)
}

impl Inner {
    /// The socket to dial from. Called on a thread of the runtime.
    fn dialling(&self, v6: bool) -> std::io::Result<Endpoint> {
        let mut endpoints = lock(&self.dialling);
        let place = &mut endpoints[usize::from(v6)];
        if let Some(endpoint) = place {
            return Ok(endpoint.clone());
        }
        let any = if v6 { SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)) } else { SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)) };
        let endpoint = Endpoint::new(EndpointConfig::default(), None, socket(any)?, Arc::new(TokioRuntime))?;
        Ok(place.insert(endpoint).clone())
    }
}

/// One address as it was given.
struct Plan {
    /// A task must not be the last to hold the runtime that it runs on.
    network: std::sync::Weak<Inner>,
    given: Address,
    trust: Trust,
    purpose: Purpose,
    wait: Duration,
}

impl Plan {
    async fn reach(self) -> Result<quinn::Connection, Vec<Attempt>> {
        let wait = self.wait;
        let plan = Arc::new(self);
        let mut tried = Vec::new();
        let all = timeout(wait, Arc::clone(&plan).reach_any(&mut tried)).await;
        match all {
            Ok(Some(connection)) => Ok(connection),
            Ok(None) => Err(tried),
            Err(_) => {
                tried.push(plan.failed(None, "no answer".into()));
                Err(tried)
            }
        }
    }

    async fn reach_any(self: Arc<Self>, tried: &mut Vec<Attempt>) -> Option<quinn::Connection> {
        let found: Vec<SocketAddr> = match tokio::net::lookup_host(self.given.as_str()).await {
            Ok(found) => found.take(OF_ONE_NAME).collect(),
            Err(error) => {
                tried.push(self.failed(None, format!("the name cannot be resolved: {error}")));
                return None;
            }
        };
        let mut attempts = JoinSet::new();
        for address in found {
            attempts.spawn(Arc::clone(&self).attempt(address));
        }
        while let Some(done) = attempts.join_next().await {
            match done {
                Ok(Ok(connection)) => return Some(connection),
                Ok(Err(failed)) => tried.push(failed),
                Err(_) => {}
            }
        }
        None
    }

    fn failed(&self, address: Option<SocketAddr>, why: String) -> Attempt {
        Attempt { given: self.given.to_string(), address, why }
    }

    async fn attempt(self: Arc<Self>, address: SocketAddr) -> Result<quinn::Connection, Attempt> {
        let failed = |why: String| self.failed(Some(address), why);
        let (endpoint, config, seen) = {
            let network = self.network.upgrade().ok_or_else(|| failed("the network was left".into()))?;
            let endpoint = network.dialling(address.is_ipv6()).map_err(|error| failed(format!("no socket: {error}")))?;
            let config = tls::client(&network.identity, self.trust.clone(), self.purpose);
            let (config, seen) = config.map_err(|error| failed(error.to_string()))?;
            network.unended.fetch_add(1, Ordering::Relaxed);
            (endpoint, config, seen)
        };
        let connecting = endpoint.connect_with(config, address, NAME).map_err(|error| failed(error.to_string()))?;
        let greeted = async {
            let connection = connecting.await?;
            greeted(&connection).await?;
            Ok(connection)
        };
        greeted.await.map_err(|error| failed(explain(&error, &seen, self.purpose)))
    }
}

/// Why a connection did not come about, as far as the other side let it be known.
fn explain(error: &ConnectionError, seen: &Seen, purpose: Purpose) -> String {
    let alert = |alert| TransportErrorCode::crypto(alert);
    match error {
        ConnectionError::TransportError(error) if error.code == alert(ACCESS_DENIED) => match *lock(seen) {
            Some(key) => format!(
                "another machine answers there, with the id {}: if the address is right and that machine has a new key, pair with it anew",
                key.id()
            ),
            None => describe(&ConnectionError::TransportError(error.clone())),
        },
        ConnectionError::ConnectionClosed(close) if close.error_code == alert(ACCESS_DENIED) => {
            "that machine does not know this one, and refused it: make the two known to each other with driftless pair".into()
        }
        ConnectionError::ConnectionClosed(close) if close.error_code == alert(NO_APPLICATION_PROTOCOL) => {
            format!("what answers there does not speak {}", purpose.alpn())
        }
        error => describe(error),
    }
}

/// Says that this connection is taken.
async fn greet(connection: &quinn::Connection) -> Result<(), ConnectionError> {
    let mut stream = connection.open_uni().await?;
    // What keeps a byte from being sent is the end of the connection, and whoever uses it next finds that out.
    let _ = stream.write_all(&[GREETING]).await;
    let _ = stream.finish();
    Ok(())
}

/// Waits until the other side says so.
async fn greeted(connection: &quinn::Connection) -> Result<(), ConnectionError> {
    let mut stream = connection.accept_uni().await?;
    let mut greeting = [0];
    match stream.read_exact(&mut greeting).await {
        Ok(()) if greeting == [GREETING] => Ok(()),
        Err(quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error))) => Err(error),
        _ => {
            connection.close(VarInt::from_u32(CloseCode::Protocol.number()), b"");
            Err(ConnectionError::LocallyClosed)
        }
    }
}

/// Takes what comes in, within all limits, until the endpoint is closed.
async fn serve(endpoint: Endpoint, ready: mpsc::Sender<quinn::Connection>) {
    let mut handshakes = Handshakes::default();
    while let Some(incoming) = endpoint.accept().await {
        if handshakes.under_way() > RETRY_ABOVE && incoming.may_retry() && !incoming.remote_address_validated() {
            // It was just found that it may.
            let _ = incoming.retry();
            continue;
        }
        if endpoint.open_connections() >= CONNECTIONS {
            incoming.refuse();
            continue;
        }
        let (ready, from) = (ready.clone(), incoming.remote_address().ip());
        // Whoever says nothing is dropped, and with it the connection.
        let task = tokio::spawn(async move { timeout(HANDSHAKE, admit(incoming, ready)).await });
        handshakes.add(from, task.abort_handle());
    }
}

/// Handshakes under way, in the order in which they came. Strangers can begin them and fall silent, as many as they like: so a
/// further one takes the place of one that is there, and refuses nobody.
#[derive(Default)]
struct Handshakes(VecDeque<(IpAddr, AbortHandle)>);

impl Handshakes {
    fn under_way(&mut self) -> usize {
        self.0.retain(|(_, task)| !task.is_finished());
        self.0.len()
    }

    fn add(&mut self, from: IpAddr, task: AbortHandle) {
        if self.under_way() >= HANDSHAKES {
            let sources: Vec<IpAddr> = self.0.iter().map(|(from, _)| *from).collect();
            if let Some((_, task)) = dispensable(&sources).and_then(|at| self.0.remove(at)) {
                task.abort();
            }
        }
        self.0.push_back((network_of(from), task));
    }
}

/// What one owner of addresses has of them at the least.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// The oldest of the source that has most: whoever has but one is pushed out only by as many others as there are places.
fn dispensable(sources: &[IpAddr]) -> Option<usize> {
    let of_same = |source: &IpAddr| sources.iter().filter(|other| *other == source).count();
    // The first of all that have most.
    (0..sources.len()).rev().max_by_key(|at| of_same(&sources[*at]))
}

async fn admit(incoming: Incoming, ready: mpsc::Sender<quinn::Connection>) -> Result<(), ConnectionError> {
    let connection = incoming.await?;
    greet(&connection).await?;
    greeted(&connection).await?;
    if peer_key(&connection).is_none() {
        return Ok(());
    }
    match ready.try_send(connection) {
        Err(mpsc::error::TrySendError::Full(connection)) => {
            connection.close(VarInt::from_u32(CloseCode::Busy.number()), b"");
        }
        Err(mpsc::error::TrySendError::Closed(_)) | Ok(()) => {}
    }
    Ok(())
}

/// Waits for others. Several threads may accept.
#[derive(Debug)]
pub struct Listener {
    network: Network,
    endpoint: Endpoint,
    address: SocketAddr,
    ready: tokio::sync::Mutex<mpsc::Receiver<quinn::Connection>>,
    stop: watch::Sender<bool>,
}

impl Listener {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next peer whose key was accepted.
    pub fn accept(&self, wait: Duration) -> Result<Connection, LinkError> {
        let mut stopped = self.stop.subscribe();
        let next = async {
            let next = async { self.ready.lock().await.recv().await };
            tokio::select! {
                next = next => next,
                _ = stopped.wait_for(|stop| *stop) => None,
            }
        };
        let next = self.network.within(wait, next).ok_or(LinkError::TooLong("waiting for a peer"))?;
        let connection = next.ok_or_else(|| LinkError::Ended("nobody is waited for any more".into()))?;
        Quic::connection(connection, self.network.clone())
    }

    /// Ends every [`Listener::accept`], now and from now on.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Connections, those in their handshakes included.
    pub fn open_connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// Ends all of its connections. Its port is free when the listener is dropped, or a moment later.
    pub fn close(&self) {
        self.stop();
        end(self.network.runtime(), &self.endpoint);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_most_handshakes_loses_the_oldest() {
        let at =
            |sources: &[u8]| dispensable(&sources.iter().map(|last| Ipv4Addr::new(10, 0, 0, *last).into()).collect::<Vec<_>>());
        assert_eq!(at(&[]), None);
        assert_eq!(at(&[1, 2, 3]), Some(0));
        assert_eq!(at(&[1, 2, 3, 2, 4]), Some(1));
        assert_eq!(at(&[1, 2, 3, 2, 1, 1]), Some(0));
        let [one, same, other] =
            ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"].map(|text| network_of(text.parse().unwrap()));
        assert!(one == same && one != other);
        assert_eq!(network_of("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
