//! An answer over several streams. What one stream may have under way is bounded, so that the answer to a large request goes over
//! some more beside its own: its lanes. Its messages go over all of them in turn and are read in the same order, so whoever reads
//! sees one answer, and what was read of a file is always its beginning.
//!
//! Lanes are streams like any other, opened by the side that asks. Each says its number and is parked at the side that answers,
//! until the stream of a request tells by these numbers which are its own. From then on they live and end with that stream.

use crate::io::channel::{Channel, ChannelError};
use crate::io::link::WAIT;
use crate::wire::Message;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Streams over which answers go: the one of the requests, and its lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    /// The first one is that of the requests.
    channels: Vec<Channel>,
    /// Over which the next message of the answer goes.
    turn: usize,
}

impl Lanes {
    /// Answers go over the stream of the requests alone.
    pub(super) fn new(channel: Channel) -> Lanes {
        Lanes { channels: vec![channel], turn: 0 }
    }

    /// From now on they go over these, too.
    pub(super) fn widen(&mut self, more: Vec<Channel>) {
        self.channels.extend(more);
    }

    /// The stream of the requests; the lanes end here.
    pub(super) fn into_main(self) -> Channel {
        let mut channels = self.channels;
        channels.swap_remove(0)
    }

    /// How many there are beside the stream of the requests.
    pub(super) fn extra(&self) -> usize {
        self.channels.len() - 1
    }

    /// The stream of the requests. The next answer begins on it.
    pub(super) fn main(&mut self) -> &mut Channel {
        self.turn = 0;
        &mut self.channels[0]
    }

    fn next(&mut self) -> &mut Channel {
        let turn = self.turn;
        self.turn = (turn + 1) % self.channels.len();
        &mut self.channels[turn]
    }

    /// Sends the next message of an answer.
    pub(super) fn send(&mut self, message: &Message) -> Result<(), ChannelError> {
        let alone = self.channels.len() == 1;
        let channel = self.next();
        channel.send(message)?;
        // Nothing may wait behind on a stream that the other side is reading, while the next one has no room.
        if alone { Ok(()) } else { channel.flush() }
    }

    /// Sends what waits to be sent.
    pub(super) fn flush(&mut self) -> Result<(), ChannelError> {
        self.channels.iter_mut().try_for_each(Channel::flush)
    }

    /// The next message of an answer.
    pub(super) fn receive(&mut self) -> Result<Message, ChannelError> {
        self.next().receive()
    }
}

/// Lanes that were opened, and that no request has named yet. There are no more than the link allows streams.
#[derive(Debug, Default)]
pub struct Parked {
    lanes: Mutex<BTreeMap<u64, Channel>>,
    came: Condvar,
}

impl Parked {
    /// Keeps a lane until it is named.
    pub(super) fn put(&self, number: u64, channel: Channel) -> Result<(), ChannelError> {
        let before = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).insert(number, channel);
        self.came.notify_all();
        let twice = ChannelError::Unexpected { found: "a lane of a number that is in use", expected: "another number" };
        before.map_or(Ok(()), |_| Err(twice))
    }

    /// Takes the lanes of these numbers. They were opened before they were named, and may yet come later.
    pub(super) fn take(&self, numbers: &[u64]) -> Result<Vec<Channel>, ChannelError> {
        let until = Instant::now() + WAIT;
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        for number in numbers {
            loop {
                if let Some(lane) = lanes.remove(number) {
                    taken.push(lane);
                    break;
                }
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(ChannelError::Unexpected { found: "the number of a lane that never came", expected: "the lane" });
                }
                lanes = self.came.wait_timeout(lanes, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        Ok(taken)
    }
}
