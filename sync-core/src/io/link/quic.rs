//! Connections and streams of quinn behind a blocking face.

use super::endpoint::Network;
use super::tls::key_of;
use super::{
    CloseCode, Connection, Inner, LinkError, PathQuality, ReadInner, Reader, Stream, Traffic, WriteInner, Writer, too_long,
};
use crate::peer::PublicKey;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use rustls::pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The code of a stream that was given up.
const GIVEN_UP: VarInt = VarInt::from_u32(1);

/// A connection, and the network that drives it.
#[derive(Debug)]
pub(super) struct Quic {
    peer: PublicKey,
    connection: quinn::Connection,
    network: Network,
}

/// The key of the other side of a connection whose handshake is over.
pub(super) fn peer_key(connection: &quinn::Connection) -> Option<PublicKey> {
    let certificates = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    key_of(certificates.first()?)
}

impl Quic {
    /// Takes a connection whose handshake and greeting are over.
    pub(super) fn connection(connection: quinn::Connection, network: Network) -> Result<Connection, LinkError> {
        let peer = peer_key(&connection).ok_or_else(|| LinkError::Ended("the other side showed no key".into()))?;
        Ok(Connection::new(Inner::Quic(Quic { peer, connection, network })))
    }

    pub(super) fn peer(&self) -> PublicKey {
        self.peer
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    pub(super) fn open(&self, wait: Duration) -> Result<Stream, LinkError> {
        let opened = self.network.within(wait, self.connection.open_bi()).ok_or(LinkError::TooLong("opening a stream"))?;
        Ok(self.stream(opened.map_err(ended)?))
    }

    pub(super) fn accept(&self, wait: Duration) -> Result<Stream, LinkError> {
        let came = self.network.within(wait, self.connection.accept_bi());
        Ok(self.stream(came.ok_or(LinkError::TooLong("waiting for a stream"))?.map_err(ended)?))
    }

    fn stream(&self, (send, receive): (SendStream, RecvStream)) -> Stream {
        let (writing, reading) = (self.network.clone(), self.network.clone());
        Stream {
            reader: Reader::new(ReadInner::Quic(Reading { stream: receive, network: reading })),
            writer: Writer::new(WriteInner::Quic(Writing { stream: send, network: writing, finished: false })),
        }
    }

    /// Why it has ended stays as it is.
    pub(super) fn close(&self, code: CloseCode) {
        if self.connection.close_reason().is_none() {
            self.connection.close(VarInt::from_u32(code.number()), b"");
        }
    }

    pub(super) fn wait_closed(&self, wait: Duration) -> Result<Option<CloseCode>, LinkError> {
        let error = self.network.within(wait, self.connection.closed());
        match error.ok_or(LinkError::TooLong("the end of the connection"))? {
            ConnectionError::ApplicationClosed(close) => Ok(Some(CloseCode::from_number(close.error_code.into_inner()))),
            _ => Ok(None),
        }
    }

    pub(super) fn traffic(&self) -> Traffic {
        let stats = self.connection.stats();
        Traffic { sent: stats.udp_tx.bytes, received: stats.udp_rx.bytes }
    }

    pub(super) fn quality(&self) -> PathQuality {
        let stats = self.connection.stats();
        let path = stats.path;
        PathQuality { rtt: path.rtt, sent: path.sent_packets, lost: path.lost_packets, received: stats.udp_rx.datagrams }
    }

    pub(super) fn export(&self, label: &[u8]) -> Result<[u8; 32], LinkError> {
        let mut secret = [0; 32];
        let done = self.connection.export_keying_material(&mut secret, label, b"");
        done.map_err(|_| LinkError::Ended("the TLS session yields no secret".into()))?;
        Ok(secret)
    }
}

impl Drop for Quic {
    /// Nothing happens to a connection that was closed before.
    fn drop(&mut self) {
        let ended_there = matches!(self.connection.close_reason(), Some(ConnectionError::ApplicationClosed(_)));
        if ended_there && self.connection.side().is_client() {
            self.network.was_ended();
        }
        self.close(CloseCode::Failed);
    }
}

fn ended(error: ConnectionError) -> LinkError {
    LinkError::Ended(describe(&error))
}

/// Why a connection has ended, in words; nothing in them comes from the other side.
pub(super) fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "no answer".into(),
        ConnectionError::LocallyClosed => "it was closed here".into(),
        ConnectionError::Reset => "the other side has forgotten it".into(),
        ConnectionError::ApplicationClosed(close) => match CloseCode::from_number(close.error_code.into_inner()) {
            CloseCode::Done => "the other side has finished".into(),
            CloseCode::Probe => "the other side only looked whether somebody answers".into(),
            CloseCode::Busy => "the other side has too many connections".into(),
            CloseCode::Protocol => "the other side complains about what it was told".into(),
            CloseCode::WrongCode => "the other side found the code wrong".into(),
            CloseCode::NoCode => "the other side takes no code any more".into(),
            CloseCode::Failed => "the other side gave up".into(),
        },
        ConnectionError::ConnectionClosed(close) => format!("the other side closed it ({})", close.error_code),
        ConnectionError::TransportError(error) => format!("{}", error.code),
        ConnectionError::VersionMismatch => "the other side speaks another version of QUIC".into(),
        ConnectionError::CidsExhausted => "no connection id is left".into(),
    }
}

/// Never as a wait that took too long: whoever polls would wait for more on a connection that is gone.
fn broken(error: &ConnectionError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, format!("the connection has ended: {}", describe(error)))
}

#[derive(Debug)]
pub(super) struct Reading {
    stream: RecvStream,
    network: Network,
}

impl Reading {
    pub(super) fn read(&mut self, buffer: &mut [u8], wait: Duration) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let back = &self.network.throttles().back;
        let most = back.piece(buffer.len());
        match self.network.within(wait, self.stream.read(&mut buffer[..most])).ok_or_else(|| too_long("reading"))? {
            Ok(read) => {
                let read = read.unwrap_or(0);
                // The other side goes no faster than it is read.
                back.pay(read);
                Ok(read)
            }
            Err(ReadError::ConnectionLost(error)) => Err(broken(&error)),
            Err(ReadError::Reset(_)) => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the other side gave the stream up")),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

#[derive(Debug)]
pub(super) struct Writing {
    stream: SendStream,
    network: Network,
    finished: bool,
}

impl Writing {
    pub(super) fn write(&mut self, bytes: &[u8], wait: Duration) -> io::Result<usize> {
        let passing = self.network.throttles().out.pass(bytes.len());
        let written = self.write_now(&bytes[..passing], wait);
        self.network.throttles().out.give_back(passing - written.as_ref().copied().unwrap_or(0));
        written
    }

    fn write_now(&mut self, bytes: &[u8], wait: Duration) -> io::Result<usize> {
        match self.network.within(wait, self.stream.write(bytes)).ok_or_else(|| too_long("writing"))? {
            Ok(written) => Ok(written),
            Err(WriteError::ConnectionLost(error)) => Err(broken(&error)),
            Err(WriteError::Stopped(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the other side reads no further")),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.finished = true;
        self.stream.finish().map_err(io::Error::other)
    }
}

impl Drop for Writing {
    /// A stream that ends in the middle must not look whole. One that has ended already is not changed by it.
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.stream.reset(GIVEN_UP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_ended_by_silence_is_no_wait_that_may_go_on() {
        for error in [ConnectionError::TimedOut, ConnectionError::Reset, ConnectionError::LocallyClosed] {
            assert_eq!(broken(&error).kind(), io::ErrorKind::ConnectionAborted);
        }
        assert_eq!(too_long("reading").kind(), io::ErrorKind::TimedOut);
    }
}
