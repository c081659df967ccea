//! Lines over a socket, bounded in bytes and in time.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes read or written at a time.
const CHUNK: usize = 64 << 10;

/// By when a conversation has to be over, however many small steps it takes.
#[derive(Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    #[allow(clippy::disallowed_methods, reason = "a deadline is what this is for")]
    pub(super) fn after(wait: Duration) -> Deadline {
        Deadline(Instant::now() + wait)
    }

    /// Has it come?
    pub(super) fn is_over(self) -> bool {
        self.left().is_err()
    }

    /// What is left; an error if nothing is.
    #[allow(clippy::disallowed_methods, reason = "a deadline is what this is for")]
    fn left(self) -> io::Result<Duration> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// A system call that found nothing in time says so in one of two ways.
fn in_time(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

/// Lines that come one after the other.
pub(super) struct Lines<'a> {
    from: &'a UnixStream,
    /// What came behind the last one.
    rest: Vec<u8>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(from: &'a UnixStream) -> Lines<'a> {
        Lines { from, rest: Vec::new() }
    }

    /// Reads up to the end of the next line, which is left out. `None`: the other side ended before a whole line.
    pub(super) fn read(&mut self, most: usize, deadline: Deadline) -> io::Result<Option<Vec<u8>>> {
        let mut line = std::mem::take(&mut self.rest);
        let (mut seen, mut chunk) = (0, vec![0; CHUNK.min(most + 1)]);
        loop {
            let end = line[seen..].iter().position(|byte| *byte == b'\n').map(|at| seen + at);
            if end.unwrap_or(line.len()) > most {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line of more than {most} bytes")));
            }
            if let Some(end) = end {
                self.rest = line.split_off(end + 1);
                line.truncate(end);
                return Ok(Some(line));
            }
            seen = line.len();
            self.from.set_read_timeout(Some(deadline.left()?))?;
            match self.from.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => line.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(in_time(error)),
            }
        }
    }
}

/// Writes a line.
pub(super) fn write(mut to: &UnixStream, line: &[u8], deadline: Deadline) -> io::Result<()> {
    let line = [line, b"\n"].concat();
    let mut rest = &line[..];
    while !rest.is_empty() {
        to.set_write_timeout(Some(deadline.left()?))?;
        match to.write(&rest[..rest.len().min(CHUNK)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(in_time(error)),
        }
    }
    Ok(())
}

/// Waits until the other side has ended.
pub(super) fn wait_for_end(mut of: &UnixStream, deadline: Deadline) -> io::Result<()> {
    let mut chunk = [0; 64];
    loop {
        of.set_read_timeout(Some(deadline.left()?))?;
        match of.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A process that was killed while there was something to read for it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(in_time(error)),
        }
    }
}
