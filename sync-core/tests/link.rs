//! One QUIC connection with the measuring controller over an emulated bad link. Skipped, loudly, where that is not permitted.
use anyhow::{Context as _, Result, ensure};
use fixtures::linkemu::{Conditions, Direction, End, Link};
use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;
use sync_core::io::link::Measuring;
use tokio::sync::oneshot;

const PORT: u16 = 4433;
const BYTES: usize = 4 << 20;
/// Most bytes that are read at a time.
const PIECE: usize = 64 << 10;
/// No transfer here may take longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(90);

fn transport() -> Result<Arc<TransportConfig>> {
    let mut transport = TransportConfig::default();
    transport.congestion_controller_factory(Arc::new(Measuring));
    transport.max_idle_timeout(Some(Duration::from_secs(30).try_into()?));
    Ok(Arc::new(transport))
}

fn socket(end: &End, port: u16) -> Result<UdpSocket> {
    end.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).context("cannot bind"))
}

fn content() -> Vec<u8> {
    (0..BYTES).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Sends the content from A to B; `meanwhile` runs beside, and hears how many bytes have arrived. How fast it goes is not asked:
/// `benches` measures it.
fn transfer(link: &Link, meanwhile: impl FnOnce(Receiver<usize>) + Send) -> Result<()> {
    let certified = rcgen::generate_simple_self_signed(vec!["driftless".to_owned()])?;
    let certificate = certified.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let mut server = ServerConfig::with_single_cert(vec![certificate.clone()], key.into())?;
    server.transport_config(transport()?);
    let (near, far) = (socket(&link.a, 0)?, socket(&link.b, PORT)?);
    let address = SocketAddr::from((link.b.address, PORT));
    let (tell, told) = channel();
    let (sent, all_sent) = oneshot::channel();
    thread::scope(|scope| {
        let receiver = scope.spawn(|| run(receive(far, server, tell, all_sent)));
        let sender = scope.spawn(|| run(send(near, address, certificate, sent)));
        scope.spawn(move || meanwhile(told));
        let arrived = receiver.join().expect("the receiver does not panic")?;
        sender.join().expect("the sender does not panic")?;
        ensure!(arrived == content(), "{} other bytes arrived", arrived.len());
        Ok(())
    })
}

fn run<T>(task: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, task).await.context("took too long")? })
}

async fn receive(
    socket: UdpSocket,
    config: ServerConfig,
    tell: Sender<usize>,
    all_sent: oneshot::Receiver<()>,
) -> Result<Vec<u8>> {
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))?;
    let connection = endpoint.accept().await.context("nobody connects")?.await?;
    let mut stream = connection.accept_uni().await?;
    let (mut arrived, mut piece) = (Vec::new(), vec![0; PIECE]);
    while let Some(read) = stream.read(&mut piece).await? {
        arrived.extend_from_slice(&piece[..read]);
        // Whoever listened may have heard enough.
        let _ = tell.send(arrived.len());
    }
    // Until the sender knows that all has arrived. It is told beside the link, which may lose a close.
    all_sent.await?;
    Ok(arrived)
}

async fn send(
    socket: UdpSocket,
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    sent: oneshot::Sender<()>,
) -> Result<()> {
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let mut config = ClientConfig::with_root_certificates(Arc::new(roots))?;
    config.transport_config(transport()?);
    let connection = endpoint.connect_with(config, address, "driftless")?.await?;
    let mut stream = connection.open_uni().await?;
    stream.write_all(&content()).await?;
    stream.finish()?;
    ensure!(stream.stopped().await?.is_none(), "the stream was stopped");
    // A receiver that failed tells why.
    let _ = sent.send(());
    Ok(())
}

#[test]
fn a_lossy_link_carries_a_stream_whole() -> Result<()> {
    let lossy = Conditions::new(20.0, Duration::from_millis(20)).losing(0.05);
    let Some(link) = Link::or_skip(lossy, lossy, 1) else { return Ok(()) };
    transfer(&link, |_| ())
}

#[test]
fn a_cut_both_ways_and_one_way_does_not_end_the_connection() -> Result<()> {
    let good = Conditions::new(20.0, Duration::from_millis(20));
    let Some(link) = Link::or_skip(good, good, 1) else { return Ok(()) };
    transfer(&link, |arrived| {
        let cuts = [(BYTES / 4, &[Direction::AToB, Direction::BToA][..]), (BYTES / 2, &[Direction::BToA][..])];
        for (bytes, directions) in cuts {
            arrived.iter().find(|arrived| *arrived >= bytes);
            directions.iter().for_each(|direction| link.set(*direction, good.cut()));
            // Nothing is waited for: how long the cut lasts is what is tried here.
            thread::sleep(Duration::from_secs(2));
            directions.iter().for_each(|direction| link.set(*direction, good));
        }
    })
}
