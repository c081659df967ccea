//! Signs of life of a side that works and has nothing to tell yet: bounded in number and in time.

use super::respond::PATIENCE;
use crate::io::channel::ChannelError;
use crate::wire::{Fault, WireError};
use std::io::{self, ErrorKind};
use std::time::Instant;

/// Signs of life that may follow each other, beyond one a second: one comes every few seconds.
const BEATS: u64 = 1024;

/// What was heard since something else came.
pub(super) struct Beats {
    last: Instant,
    count: u64,
}

impl Beats {
    pub(super) fn new() -> Beats {
        Beats { last: Instant::now(), count: 0 }
    }

    /// Something came that is more than a sign of life.
    pub(super) fn news(&mut self) {
        *self = Beats::new();
    }

    /// A sign of life came, in this field of a message.
    ///
    /// # Errors
    /// There were too many, or nothing else came for too long.
    pub(super) fn beat(&mut self, field: &'static str) -> Result<(), ChannelError> {
        self.count += 1;
        if self.last.elapsed() > PATIENCE {
            let text = format!("it read files for {} hours and told of none", PATIENCE.as_secs() / 3600);
            return Err(io::Error::new(ErrorKind::TimedOut, text).into());
        }
        if self.count > BEATS + self.last.elapsed().as_secs() {
            let fault = Fault::Contradiction("nothing but signs of life comes, and too many of them");
            return Err(WireError { field, offset: 0, fault }.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_life_without_an_end_are_no_sign_of_life() {
        let mut beats = Beats::new();
        for _ in 0..3 {
            (0..BEATS).for_each(|_| beats.beat("x").unwrap());
            beats.news();
        }
        // However slow this machine is, so many do not come in time.
        let refused = (0..100 * BEATS).find_map(|_| beats.beat("x").err());
        assert!(matches!(refused, Some(ChannelError::Wire(WireError { field: "x", .. }))), "{refused:?}");
    }
}
