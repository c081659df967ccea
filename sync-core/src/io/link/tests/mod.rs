//! Real connections over loopback, and the same through the pair within the process.

mod endpoint;
mod pairing;
mod streams;

use super::tls::{Purpose, Trust, client};
use super::{Connection, Identity, Listener, Network};
use crate::peer::Address;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// No single step may take longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough to see that something does not happen.
const MOMENT: Duration = Duration::from_millis(200);

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn machine() -> Network {
    Network::new(Identity::generate().unwrap()).unwrap()
}

fn address(listener: &Listener) -> Address {
    listener.address().to_string().parse().unwrap()
}

/// Listens for these machines.
fn listen(machine: &Network, known: &[&Network]) -> Listener {
    let ids: BTreeSet<_> = known.iter().map(|known| known.identity().id()).collect();
    machine.listen(loopback(), ids).unwrap()
}

/// Two ends over loopback; the first one has dialled. The listener has to live as long as they.
fn quic_pair() -> ([Connection; 2], Listener) {
    let (near, far) = (machine(), machine());
    let listener = listen(&far, &[&near]);
    let dialled = near.dial(far.identity().id(), &[address(&listener)], PATIENCE).unwrap();
    let accepted = listener.accept(PATIENCE).unwrap();
    ([dialled, accepted], listener)
}

/// A client that has shown its key and says nothing of its own accord.
struct Raw {
    runtime: tokio::runtime::Runtime,
    endpoint: quinn::Endpoint,
    connection: quinn::Connection,
}

impl Raw {
    fn connect(identity: &Identity, purpose: Purpose, to: SocketAddr) -> Raw {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (endpoint, connection) = runtime.block_on(async {
            let socket = UdpSocket::bind(loopback()).unwrap();
            let runtime = std::sync::Arc::new(quinn::TokioRuntime);
            let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime).unwrap();
            let (config, _) = client(identity, Trust::Anyone, purpose).unwrap();
            let connection = endpoint.connect_with(config, to, "any").unwrap().await.unwrap();
            (endpoint, connection)
        });
        Raw { runtime, endpoint, connection }
    }

    /// Takes the greeting and answers it.
    fn greet(&self) {
        self.runtime.block_on(async {
            let mut greeting = self.connection.accept_uni().await.unwrap();
            assert_eq!(greeting.read_to_end(8).await.unwrap(), [1]);
            let mut answer = self.connection.open_uni().await.unwrap();
            answer.write_all(&[1]).await.unwrap();
            answer.finish().unwrap();
        });
    }

    /// Opens a stream with these bytes, and tells how the connection ends.
    fn say(&self, bytes: &[u8]) -> quinn::ConnectionError {
        self.runtime.block_on(async {
            let (mut send, _receive) = self.connection.open_bi().await.unwrap();
            send.write_all(bytes).await.unwrap();
            tokio::time::timeout(PATIENCE, self.connection.closed()).await.unwrap()
        })
    }

    fn closed(&self) -> quinn::ConnectionError {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.connection.closed()).await.unwrap() })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.endpoint.close(0_u32.into(), b"");
    }
}
