//! The two streams: stdout is the result, for people or as JSON lines; stderr is the talk.
//!
//! Names are escaped by whoever renders a line, in every human form: JSON is the form for machines.

use crate::exit::Exit;
use indicatif::ProgressBar;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use serde::Serialize;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use sync_core::path::escape;

/// Where everything that a command says goes.
pub(crate) struct Output {
    json: bool,
    result: Mutex<ResultStream>,
    bar: OnceLock<ProgressBar>,
}

struct ResultStream {
    out: BufWriter<Stdout>,
    /// People read along; a file or pipe is flushed when the stream says so.
    flush_lines: bool,
    is_pipe: bool,
    broken: Option<io::Error>,
}

impl Output {
    /// Results as JSON lines, or for people.
    pub(crate) fn new(json: bool) -> Output {
        let out = io::stdout();
        let flush_lines = out.is_terminal();
        let is_pipe = fstat(&out).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Fifo);
        let result = ResultStream { out: BufWriter::new(out), flush_lines, is_pipe, broken: None };
        Output { json, result: Mutex::new(result), bar: OnceLock::new() }
    }

    /// Are results JSON lines?
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Lines from now on are written above this progress line. Only the first one counts.
    pub(crate) fn share_terminal_with(&self, bar: ProgressBar) {
        self.bar.get_or_init(|| bar);
    }

    /// A line of the result, for people; nothing in JSON mode.
    pub(crate) fn line(&self, text: &str) {
        if !self.json {
            self.aside(|| self.stream().write(text.as_bytes(), true));
        }
    }

    /// A JSON line; nothing in the form for people.
    pub(crate) fn event(&self, event: &impl Serialize) {
        if self.json {
            let text = serde_json::to_vec(event).expect("events have text keys and plain values");
            self.aside(|| self.stream().write(&text, true));
        }
    }

    /// Bytes of the result as they are, in every mode: completions and manual pages.
    pub(crate) fn bytes(&self, bytes: &[u8]) {
        self.stream().write(bytes, false);
    }

    /// Something a user should know, on stderr. If stderr is gone there is nobody left to tell.
    pub(crate) fn talk(&self, text: &str) {
        self.flush();
        self.aside(|| drop(writeln!(io::stderr().lock(), "{text}")));
    }

    /// An error or notice from elsewhere: every line of it is made safe for a terminal.
    pub(crate) fn talk_safely(&self, text: &str) {
        let lines: Vec<String> = text.lines().map(|line| escape(line.as_bytes())).collect();
        self.talk(&lines.join("\n"));
    }

    /// A line of a process that stays, on stderr, from any of its threads. If stderr is gone there is nobody left to tell.
    pub(crate) fn log(line: &str) {
        drop(writeln!(io::stderr().lock(), "{line}"));
    }

    /// A question, on stderr, without the end of the line.
    pub(crate) fn ask(&self, text: &str) -> io::Result<()> {
        self.flush();
        let mut stderr = io::stderr().lock();
        write!(stderr, "{text} ")?;
        stderr.flush()
    }

    /// Hands on what was buffered.
    pub(crate) fn flush(&self) {
        self.stream().flush();
    }

    /// Did whoever read the results from a pipe go away?
    pub(crate) fn is_abandoned(&self) -> bool {
        let mut stream = self.stream();
        stream.look();
        stream.broken.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The end of all results. A reader that went away is no error: it had enough.
    pub(crate) fn finish(&self) -> io::Result<()> {
        let mut stream = self.stream();
        stream.flush();
        match stream.broken.take() {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }

    fn stream(&self) -> MutexGuard<'_, ResultStream> {
        // A panic elsewhere leaves at worst half a line behind.
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn aside(&self, write: impl FnOnce()) {
        match self.bar.get() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl ResultStream {
    /// After the first error nothing more is written; [`Output::finish`] tells it.
    fn write(&mut self, bytes: &[u8], line: bool) {
        if self.broken.is_some() {
            return;
        }
        let mut done = self.out.write_all(bytes);
        if line {
            done = done.and_then(|()| self.out.write_all(b"\n"));
        }
        if self.flush_lines {
            done = done.and_then(|()| self.out.flush());
        }
        self.broken = done.err();
    }

    /// A pipe tells that nobody reads from it any more also while nothing is written.
    fn look(&mut self) {
        if self.broken.is_some() || !self.is_pipe {
            return;
        }
        let mut stdout = [PollFd::new(self.out.get_ref(), PollFlags::empty())];
        let looked = poll(&mut stdout, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        if looked.is_ok() && stdout[0].revents().contains(PollFlags::ERR) {
            self.broken = Some(io::ErrorKind::BrokenPipe.into());
        }
    }

    fn flush(&mut self) {
        if self.broken.is_none() {
            self.broken = self.out.flush().err();
        }
    }
}

/// Shows what clap has to say, help or a complaint, and tells the exit code.
pub(crate) fn clap_message(message: &clap::Error) -> Exit {
    let exit = if message.use_stderr() { Exit::Usage } else { Exit::InSync };
    match message.print() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Exit::CouldNotRun,
        _ => exit,
    }
}
