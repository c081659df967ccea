//! The packets of a connection through a pair of byte streams, such as those of ssh, for where UDP does not pass. Everything above
//! is as over a network: keys, streams, limits, deadlines. A packet is its length (LE u16), then its bytes.
//!
//! A pipe loses nothing, so a packet that finds it full waits at its sender.

use crate::io::mutex::lock;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

/// Bytes of a packet. Larger ones cost less each, and delay more what is urgent.
pub(super) const PACKET: u16 = 16 << 10;
/// Bytes that wait to be written, or to be taken.
const HELD: usize = 256 << 10;
/// Both ends call each other so; nothing is ever sent there.
pub(super) const PLACE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// A socket that is a pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    out: Arc<Queue>,
    came: Arc<Queue>,
}

/// Packets on their way in one direction.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Something was put in or taken out, or it ended: for threads.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    packets: VecDeque<Vec<u8>>,
    bytes: usize,
    ended: bool,
    /// Tasks that wait for a change.
    waiting: Vec<Waker>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is a push, a pop or a flag: also after a panic the queue is whole.
        lock(&self.state)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        waiting.into_iter().for_each(Waker::wake);
        result
    }

    fn end(&self) {
        self.change(|state| state.ended = true);
    }

    /// Waits for room. False if nobody takes anything any more.
    fn push(&self, packet: Vec<u8>) -> bool {
        let mut state = self.lock();
        while state.bytes >= HELD && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.change(|state| {
            state.put(packet);
            !state.ended
        })
    }

    /// Waits for packets: all that there are. `None` at the end.
    fn take(&self) -> Option<VecDeque<Vec<u8>>> {
        let mut state = self.lock();
        while state.packets.is_empty() && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.change(|state| {
            state.bytes = 0;
            let packets = std::mem::take(&mut state.packets);
            (!packets.is_empty()).then_some(packets)
        })
    }
}

impl State {
    fn put(&mut self, packet: Vec<u8>) {
        self.bytes += packet.len();
        self.packets.push_back(packet);
    }

    fn wait(&mut self, context: &Context<'_>) {
        if !self.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            self.waiting.push(context.waker().clone());
        }
    }
}

/// Whether the other end of a pipe has left it.
#[derive(Debug)]
pub(super) struct Left(Arc<Queue>);

impl Left {
    /// Waits until it has: nothing comes any more, and what was told there has been heard, or never will be.
    pub(super) async fn wait(&self) {
        poll_fn(|context| {
            let mut state = self.0.lock();
            if state.ended {
                return Poll::Ready(());
            }
            state.wait(context);
            Poll::Pending
        })
        .await;
    }
}

impl Pipe {
    /// Takes the pipe over. Its threads end when it ends; one that waits for a reader that never ends ends with the process.
    pub(super) fn new(reader: Box<dyn Read + Send>, writer: Box<dyn Write + Send>) -> io::Result<Pipe> {
        let (out, came) = (Arc::new(Queue::default()), Arc::new(Queue::default()));
        // What cannot be written or read is the end of the pipe both ways, and the connection finds out by it.
        let ends = |out: &Arc<Queue>, came: &Arc<Queue>| {
            let ends = [Arc::clone(out), Arc::clone(came)];
            move || ends.iter().for_each(|queue| queue.end())
        };
        let (to_write, end) = (Arc::clone(&out), ends(&out, &came));
        thread::Builder::new().name("pipe-out".into()).spawn(move || {
            let _ = write_all(&to_write, writer);
            end();
        })?;
        let (to_read, end) = (Arc::clone(&came), ends(&out, &came));
        thread::Builder::new().name("pipe-in".into()).spawn(move || {
            let _ = read_all(&to_read, reader);
            end();
        })?;
        Ok(Pipe { out, came })
    }

    /// Tells when the other end has left.
    pub(super) fn left(&self) -> Left {
        Left(Arc::clone(&self.came))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.out.end();
        self.came.end();
    }
}

fn write_all(queue: &Queue, mut writer: Box<dyn Write + Send>) -> io::Result<()> {
    let mut bytes = Vec::new();
    while let Some(packets) = queue.take() {
        bytes.clear();
        for packet in packets {
            let len = u16::try_from(packet.len()).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
            bytes.extend(len.to_le_bytes());
            bytes.extend(packet);
        }
        writer.write_all(&bytes)?;
        writer.flush()?;
    }
    Ok(())
}

fn read_all(queue: &Queue, mut reader: Box<dyn Read + Send>) -> io::Result<()> {
    loop {
        let mut len = [0; 2];
        reader.read_exact(&mut len)?;
        let len = u16::from_le_bytes(len);
        if len > PACKET {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut packet = vec![0; usize::from(len)];
        reader.read_exact(&mut packet)?;
        if !queue.push(packet) {
            return Ok(());
        }
    }
}

impl AsyncUdpSocket for Pipe {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room(Arc::clone(&self.out)))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.out.change(|state| {
            if state.ended {
                // An error here would end the task that drives the connection, and whoever waits for it would hear nothing. That
                // the pipe has ended is told by what receives.
                return Ok(());
            }
            if state.bytes >= HELD {
                return Err(ErrorKind::WouldBlock.into());
            }
            state.put(transmit.contents.to_vec());
            Ok(())
        })
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let taken = {
            let mut state = self.came.lock();
            let mut taken = 0;
            for (buffer, meta) in buffers.iter_mut().zip(meta) {
                let Some(packet) = state.packets.pop_front() else { break };
                state.bytes -= packet.len();
                let len = packet.len().min(buffer.len());
                buffer[..len].copy_from_slice(&packet[..len]);
                *meta = RecvMeta { addr: PLACE, len, stride: len, ecn: None, dst_ip: None };
                taken += 1;
            }
            if taken == 0 && state.ended {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
            if taken == 0 {
                state.wait(context);
                return Poll::Pending;
            }
            taken
        };
        self.came.changed.notify_all();
        Poll::Ready(Ok(taken))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(PLACE)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// Waits until a packet may be put in.
#[derive(Debug)]
struct Room(Arc<Queue>);

impl UdpPoller for Room {
    fn poll_writable(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.bytes < HELD || state.ended {
            return Poll::Ready(Ok(()));
        }
        state.wait(context);
        Poll::Pending
    }
}
