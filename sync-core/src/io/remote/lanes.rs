//! An answer over several streams. What one stream may have under way is bounded, so that the answer to a large request goes over
//! some more beside its own: its lanes. Its messages go over all of them in turn and are read in the same order, so whoever reads
//! sees one answer, and what was read of a file is always its beginning.
//!
//! Lanes are streams like any other, opened by the side that asks. Each says its number and is parked at the side that answers,
//! until the stream of a request tells by these numbers which are its own. From then on they live and end with that stream.

use crate::io::channel::{Channel, ChannelError};
use crate::io::link::WAIT;
use crate::io::mutex::lock;
use crate::wire::{Message, Refusal, Refused, cut};
use std::collections::VecDeque;
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
    #[cfg(test)]
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

    /// Sends the next message of an answer.
    pub(super) fn send(&mut self, message: &Message) -> Result<(), ChannelError> {
        let count = self.channels.len();
        let channel = &mut self.channels[self.turn];
        // What cannot be sent takes no turn: the other side waits on this stream.
        channel.send(message)?;
        self.turn = (self.turn + 1) % count;
        // Nothing may wait behind on a stream that the other side is reading, while the next one has no room.
        if count == 1 { Ok(()) } else { channel.flush() }
    }

    /// Tells the other side, as the next message of the answer, that it ends here, and why.
    pub(super) fn refuse(&mut self, code: Refusal, text: &str) -> Result<(), ChannelError> {
        self.send(&Message::Refused(Refused { code, text: cut(text).to_owned() }))?;
        self.flush()
    }

    /// Says on each of them that nothing more will be sent.
    pub(super) fn finish(self) -> Result<(), ChannelError> {
        let ended: Vec<Result<(), ChannelError>> = self.channels.into_iter().map(Channel::finish).collect();
        ended.into_iter().collect()
    }

    /// Sends what waits to be sent.
    pub(super) fn flush(&mut self) -> Result<(), ChannelError> {
        self.channels.iter_mut().try_for_each(Channel::flush)
    }

    /// The next message of an answer.
    pub(super) fn receive(&mut self) -> Result<Message, ChannelError> {
        let turn = self.turn;
        self.turn = (turn + 1) % self.channels.len();
        self.channels[turn].receive()
    }
}

/// Lanes that wait to be named. The other side has seven of each of four requests at the most, and names them when they are opened.
const PARKED: usize = 32;

/// Lanes that were opened, and that no request has named yet. Of too many the oldest is given up.
#[derive(Debug, Default)]
pub struct Parked {
    /// By their numbers, in the order in which they came.
    lanes: Mutex<VecDeque<(u64, Channel)>>,
    came: Condvar,
}

impl Parked {
    /// Keeps a lane until it is named.
    pub(super) fn put(&self, number: u64, channel: Channel) -> Result<(), ChannelError> {
        let mut lanes = lock(&self.lanes);
        if lanes.iter().any(|(used, _)| *used == number) {
            return Err(ChannelError::Unexpected { found: "a lane of a number that is in use", expected: "another number" });
        }
        let oldest = if lanes.len() < PARKED { None } else { lanes.pop_front() };
        lanes.push_back((number, channel));
        drop(lanes);
        self.came.notify_all();
        // A request that names it finds that it never came.
        drop(oldest);
        Ok(())
    }

    /// Takes the lanes of these numbers. They were opened before they were named, and may yet come later.
    pub(super) fn take(&self, numbers: &[u64]) -> Result<Vec<Channel>, ChannelError> {
        let until = Instant::now() + WAIT;
        let mut lanes = lock(&self.lanes);
        let mut taken = Vec::new();
        for number in numbers {
            loop {
                let found = lanes.iter().position(|(parked, _)| parked == number);
                if let Some((_, lane)) = found.and_then(|at| lanes.remove(at)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::link::{Connection, local_pair};
    use crate::peer::PublicKey;
    use crate::wire::Nothing;

    fn ends() -> [Connection; 2] {
        local_pair([1, 2].map(|key| PublicKey::from_bytes([key; 32])), [3; 32])
    }

    /// Both ends of a stream.
    fn stream([near, far]: &[Connection; 2]) -> [Channel; 2] {
        let mut opened = Channel::new(near.open(WAIT).unwrap());
        // A stream is there for the other side once something was sent on it.
        opened.send(&Message::Cancel(Nothing)).and_then(|()| opened.flush()).unwrap();
        let mut accepted = Channel::new(far.accept(WAIT).unwrap());
        assert!(matches!(accepted.receive(), Ok(Message::Cancel(_))));
        [opened, accepted]
    }

    #[test]
    fn of_too_many_lanes_that_nobody_names_the_oldest_is_given_up() {
        let (ends, parked) = (ends(), Parked::default());
        let mut opened = Vec::new();
        for number in 0..=PARKED as u64 {
            let [lane, there] = stream(&ends);
            opened.push(lane);
            // Their order is not that of the numbers.
            parked.put(1000 - number, there).unwrap();
        }
        assert!(matches!(opened[0].next_or_end(), Err(ChannelError::Io(_))));
        let [_lane, there] = stream(&ends);
        assert!(matches!(parked.put(998, there), Err(ChannelError::Unexpected { .. })));
        let mut taken = parked.take(&[999, 998, 1000 - PARKED as u64]).unwrap();
        for (there, at) in taken.iter_mut().zip([1, 2, PARKED]) {
            there.send(&Message::Bye(Nothing)).and_then(|()| there.flush()).unwrap();
            assert!(matches!(opened[at].receive(), Ok(Message::Bye(_))));
        }
    }

    #[test]
    fn a_refusal_in_the_midst_of_an_answer_is_the_next_message_of_it_and_ends_all_its_streams() {
        for before in 0..4 {
            let ends = ends();
            let [[asking, answering], [lane_a, lane_b], [second_a, second_b]] = [(); 3].map(|()| stream(&ends));
            let (mut asking, mut answering) = (Lanes::new(asking), Lanes::new(answering));
            asking.widen(vec![lane_a, second_a]);
            answering.widen(vec![lane_b, second_b]);
            (0..before).for_each(|_| answering.send(&Message::Bye(Nothing)).unwrap());
            answering.refuse(Refusal::Failed, "why").unwrap();
            answering.finish().unwrap();
            (0..before).for_each(|_| assert!(matches!(asking.receive(), Ok(Message::Bye(_)))));
            assert!(matches!(asking.receive(), Ok(Message::Refused(Refused { text, .. })) if &*text == "why"));
            for channel in &mut asking.channels {
                assert!(matches!(channel.next_or_end(), Ok(None)));
            }
        }
    }
}
