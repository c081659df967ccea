//! One connection through an emulated bad network: how many Mbit/s arrive, for every controller, in one run.

use crate::report::Grid;
use anyhow::{Context as _, Result};
use fixtures::linkemu::{Conditions, Direction, End, Link};
use quinn::congestion::{ControllerFactory, CubicConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use sync_core::io::link::Measuring;

/// The path of every row: 100 Mbit/s, 50 ms there and back, a queue of a thousand packets.
const MBIT: f64 = 100.0;
const DELAY: Duration = Duration::from_millis(25);
/// Shares of packets lost, each way.
const LOSSES: [f64; 4] = [0.0, 0.01, 0.05, 0.10];
/// How long a connection alone runs; all of it counts, the start included.
const ALONE: Duration = Duration::from_secs(15);
/// How long two run beside each other, and how much of the beginning does not count.
const BESIDE: Duration = Duration::from_secs(40);
const SETTLING: Duration = Duration::from_secs(10);
/// Streams at once. A receiver of quinn closes a connection with more than 1,024 gaps in one stream, so that no stream may
/// have more under way than so many packets.
const STREAMS: usize = 8;
const STREAM_WINDOW: u32 = 1 << 20;
const WINDOW: u32 = 64 << 20;
const SOCKET_BUFFER: usize = 4 << 20;
const CHUNK: usize = 64 << 10;
const PORT: u16 = 4433;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Ours,
    QuinnCubic,
    Tcp(&'static str),
}

impl Sender {
    const ALL: [Sender; 4] = [Sender::Ours, Sender::QuinnCubic, Sender::Tcp("cubic"), Sender::Tcp("bbr")];

    fn name(self) -> String {
        match self {
            Sender::Ours => "driftless's controller on quinn".to_owned(),
            Sender::QuinnCubic => "quinn's Cubic".to_owned(),
            Sender::Tcp(control) => format!("TCP {control}"),
        }
    }
}

/// Bytes that arrived, and what went wrong.
struct Outcome {
    mbit: f64,
    fault: Option<String>,
}

/// Runs the case: every sender alone at every loss, then ours beside TCP cubic.
pub(crate) fn run(rounds: usize) -> Result<Grid> {
    let mut rows = Vec::new();
    let mut faults = Vec::new();
    for sender in Sender::ALL {
        let mut cells = Vec::new();
        for loss in LOSSES {
            let mut values = Vec::new();
            for round in 0..rounds {
                let path = Conditions::new(MBIT, DELAY).losing(loss);
                let link = Link::open(path, path, round as u64 + 1)?;
                let outcome = send(&link, sender, PORT, ALONE, Duration::ZERO)?;
                eprintln!("{} at {loss}: {:.1} Mbit/s, {:?}", sender.name(), outcome.mbit, link.counts(Direction::AToB));
                faults.extend(outcome.fault.map(|fault| format!("{} at {loss}: {fault}", sender.name())));
                values.push(outcome.mbit);
            }
            cells.push(median(values));
        }
        rows.push((sender.name(), cells));
    }
    for (sender, other) in [(Sender::Ours, Sender::Tcp("cubic")), (Sender::Tcp("bbr"), Sender::Tcp("cubic"))] {
        let path = Conditions::new(MBIT, DELAY);
        let link = Link::open(path, path, 1)?;
        let (first, second) = beside(&link, sender, other)?;
        eprintln!("{} beside {}: {:.1} and {:.1} Mbit/s", sender.name(), other.name(), first.mbit, second.mbit);
        faults.extend(first.fault.into_iter().chain(second.fault));
        rows.push((format!("{} beside {}", sender.name(), other.name()), vec![first.mbit]));
        rows.push((format!("{} beside {}", other.name(), sender.name()), vec![second.mbit]));
    }
    let columns = LOSSES.iter().map(|loss| format!("{:.0} % lost", loss * 100.0)).collect();
    let title = format!("Mbit/s that arrive over {MBIT} Mbit/s and 50 ms, queue of a thousand packets, losses both ways.");
    Ok(Grid { case: "goodput", title, columns, rows, faults })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn beside(link: &Link, first: Sender, second: Sender) -> Result<(Outcome, Outcome)> {
    std::thread::scope(|scope| {
        let other = scope.spawn(|| send(link, second, PORT + 1, BESIDE, SETTLING));
        let own = send(link, first, PORT, BESIDE, SETTLING)?;
        Ok((own, other.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??))
    })
}

fn send(link: &Link, sender: Sender, port: u16, time: Duration, settling: Duration) -> Result<Outcome> {
    match sender {
        Sender::Ours => quic(link, Arc::new(Measuring), port, time, settling),
        Sender::QuinnCubic => quic(link, Arc::new(CubicConfig::default()), port, time, settling),
        Sender::Tcp(control) => tcp(link, control, port, time, settling),
    }
}

/// Waits, and tells what arrived after `settling`.
fn watch(arrived: &AtomicU64, time: Duration, settling: Duration) -> f64 {
    std::thread::sleep(settling);
    let (before, start) = (arrived.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(time.saturating_sub(settling));
    (arrived.load(Ordering::Relaxed) - before) as f64 * 8e-6 / start.elapsed().as_secs_f64()
}

fn tcp(link: &Link, control: &'static str, port: u16, time: Duration, settling: Duration) -> Result<Outcome> {
    let listener = link.b.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).context("cannot listen"))?;
    let address = SocketAddr::from((link.b.address, port));
    let mut stream = link.a.run(|| TcpStream::connect(address).context("cannot connect"))?;
    rustix::net::sockopt::set_tcp_congestion(&stream, control).with_context(|| format!("no congestion control {control}"))?;
    let (mut incoming, _) = listener.accept().context("cannot accept")?;
    let end = stream.try_clone().context("cannot close")?;
    let arrived = AtomicU64::new(0);
    let mbit = std::thread::scope(|scope| {
        scope.spawn(|| {
            let chunk = vec![7; CHUNK];
            // Ends when the connection is shut down below.
            while stream.write_all(&chunk).is_ok() {}
        });
        let arrived = &arrived;
        scope.spawn(move || {
            let mut chunk = vec![0; CHUNK];
            while let Ok(count @ 1..) = incoming.read(&mut chunk) {
                arrived.fetch_add(count as u64, Ordering::Relaxed);
            }
            // The sender may be waiting for room.
            let _ = incoming.shutdown(Shutdown::Both);
        });
        let mbit = watch(arrived, time, settling);
        let _ = end.shutdown(Shutdown::Both);
        mbit
    });
    Ok(Outcome { mbit, fault: None })
}

fn quic(
    link: &Link,
    factory: Arc<dyn ControllerFactory + Send + Sync>,
    port: u16,
    time: Duration,
    settling: Duration,
) -> Result<Outcome> {
    let certified = rcgen::generate_simple_self_signed(vec!["driftless".to_owned()]).context("cannot make a certificate")?;
    let certificate = certified.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let mut server = ServerConfig::with_single_cert(vec![certificate.clone()], key.into()).context("no server config")?;
    server.transport_config(Arc::new(transport(&factory)?));
    let (receiver_socket, sender_socket) = (socket(&link.b, port)?, socket(&link.a, 0)?);
    let address = SocketAddr::from((link.b.address, port));
    let (arrived, over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| runtime()?.block_on(receive(receiver_socket, server, &arrived, &over)));
        let sender =
            scope.spawn(|| runtime()?.block_on(transmit(sender_socket, address, certificate, transport(&factory)?, &over)));
        let mbit = watch(&arrived, time, settling);
        over.store(true, Ordering::Relaxed);
        let faults = [sender.join(), receiver.join()].map(|result| match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some("a thread panicked".to_owned()),
        });
        Ok(Outcome { mbit, fault: faults.into_iter().flatten().next() })
    })
}

fn transport(factory: &Arc<dyn ControllerFactory + Send + Sync>) -> Result<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::clone(factory))
        .receive_window(VarInt::from_u32(WINDOW))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .send_window(u64::from(WINDOW))
        .keep_alive_interval(Some(Duration::from_secs(7)))
        .max_idle_timeout(Some(Duration::from_secs(30).try_into().context("no such timeout")?));
    Ok(transport)
}

fn socket(end: &End, port: u16) -> Result<UdpSocket> {
    let socket = end.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).context("cannot make a UDP socket"))?;
    let view = socket2::SockRef::from(&socket);
    view.set_recv_buffer_size(SOCKET_BUFFER).context("cannot set a buffer")?;
    view.set_send_buffer_size(SOCKET_BUFFER).context("cannot set a buffer")?;
    Ok(socket)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")
}

async fn receive(socket: UdpSocket, config: ServerConfig, arrived: &AtomicU64, over: &AtomicBool) -> Result<()> {
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))?;
    let connection = endpoint.accept().await.context("nobody connects")?.await?;
    let mut chunk = vec![0; CHUNK];
    let mut streams: Vec<RecvStream> = Vec::new();
    for _ in 0..STREAMS {
        streams.push(connection.accept_uni().await?);
    }
    let mut buffers = streams.iter().map(|_| std::mem::take(&mut chunk)).collect::<Vec<_>>();
    buffers.iter_mut().for_each(|buffer| buffer.resize(CHUNK, 0));
    let reads = streams.iter_mut().zip(&mut buffers).map(|(stream, buffer)| drain(stream, buffer, arrived));
    let all = join_all(reads);
    tokio::select! {
        result = all => if over.load(Ordering::Relaxed) { Ok(()) } else { result },
        () = ended(over) => Ok(()),
    }
}

async fn drain(stream: &mut RecvStream, buffer: &mut [u8], arrived: &AtomicU64) -> Result<()> {
    while let Some(count) = stream.read(buffer).await? {
        arrived.fetch_add(count as u64, Ordering::Relaxed);
    }
    Ok(())
}

async fn transmit(
    socket: UdpSocket,
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    transport: TransportConfig,
    over: &AtomicBool,
) -> Result<()> {
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).context("not a certificate")?;
    let mut config = ClientConfig::with_root_certificates(Arc::new(roots)).context("no client config")?;
    config.transport_config(Arc::new(transport));
    let connection = endpoint.connect_with(config, address, "driftless")?.await?;
    let writes = (0..STREAMS).map(|_| fill(&connection));
    let result = tokio::select! {
        result = join_all(writes) => result,
        () = ended(over) => Ok(()),
    };
    if over.load(Ordering::Relaxed) { Ok(()) } else { result }
}

async fn fill(connection: &Connection) -> Result<()> {
    let mut stream = connection.open_uni().await?;
    let chunk = vec![7; CHUNK];
    loop {
        stream.write_all(&chunk).await?;
    }
}

/// Runs all at once until one fails or all are done.
async fn join_all(tasks: impl Iterator<Item = impl Future<Output = Result<()>>>) -> Result<()> {
    let mut tasks: Vec<_> = tasks.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        let mut index = 0;
        while index < tasks.len() {
            match tasks[index].as_mut().poll(context) {
                std::task::Poll::Ready(Ok(())) => drop(tasks.swap_remove(index)),
                std::task::Poll::Ready(Err(error)) => return std::task::Poll::Ready(Err(error)),
                std::task::Poll::Pending => index += 1,
            }
        }
        if tasks.is_empty() { std::task::Poll::Ready(Ok(())) } else { std::task::Poll::Pending }
    })
    .await
}

async fn ended(over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
