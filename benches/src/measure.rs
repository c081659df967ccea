//! One measured run of a command: wall time, CPU of all its processes, peak memory of all of them together.
//!
//! The bench starts itself anew as a small helper, which starts the command: a child of the bench itself would carry
//! the bench's memory between fork and exec.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// What one run took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// Seconds from start to end.
    pub(crate) wall_s: f64,
    /// User and system seconds of the command and everything it started and waited for.
    pub(crate) cpu_s: f64,
    /// Highest sum of the resident memory of its processes.
    pub(crate) peak_kib: u64,
    /// Exit code; -1 if a signal ended it.
    pub(crate) code: i32,
    /// Seconds that a syncfs took afterwards: what the command left for later.
    pub(crate) flush_s: f64,
}

/// A command under way, with the helper that watches it. It ends when this is dropped, and when this process dies.
#[derive(Debug)]
pub(crate) struct Running {
    helper: Child,
    words: BufReader<ChildStdout>,
    /// The helper ends the command when this closes.
    hold: Option<ChildStdin>,
}

/// What was heard of a command.
#[derive(Debug)]
pub(crate) enum News {
    /// It has ended.
    Ended(Sample),
    /// Its deadline has passed, after so many seconds; it goes on for a moment, so that one can look at what it has done.
    Late(f64),
}

/// Runs a command through the helper to its end. Its output goes to `log`.
pub(crate) fn run(command: &[OsString], environment: &[(OsString, OsString)], log: &Path) -> Result<Sample> {
    Running::start(command, environment, log, None)?.last()
}

impl Running {
    /// Starts a command, in the namespaces of this thread.
    pub(crate) fn start(
        command: &[OsString],
        environment: &[(OsString, OsString)],
        log: &Path,
        deadline: Option<Duration>,
    ) -> Result<Running> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let seconds = deadline.unwrap_or(Duration::MAX).as_secs().to_string();
        let mut helper = Command::new(program)
            .args(["measure".as_ref(), "--log".as_ref(), log.as_os_str(), "--deadline".as_ref(), seconds.as_ref(), "--".as_ref()])
            .args(command)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the measuring helper")?;
        let hold = helper.stdin.take();
        let words = BufReader::new(helper.stdout.take().context("the measuring helper has no output")?);
        Ok(Running { helper, words, hold })
    }

    /// The next that is heard of it: perhaps that it is late, and at last that it has ended.
    pub(crate) fn wait(&mut self) -> Result<News> {
        let mut line = String::new();
        self.words.read_line(&mut line).context("cannot hear the measuring helper")?;
        ensure!(!line.is_empty(), "the measuring helper failed");
        let value: Value = serde_json::from_str(&line).context("the measuring helper spoke nonsense")?;
        if let Some(seconds) = value["late_s"].as_f64() {
            return Ok(News::Late(seconds));
        }
        let number = |name: &str| value[name].as_f64().with_context(|| format!("the measuring helper left out {name}"));
        Ok(News::Ended(Sample {
            wall_s: number("wall_s")?,
            cpu_s: number("cpu_s")?,
            peak_kib: value["peak_kib"].as_u64().context("the measuring helper left out peak_kib")?,
            code: i32::try_from(value["code"].as_i64().context("the measuring helper left out code")?)?,
            flush_s: 0.0,
        }))
    }

    /// Ends it with all that it started, if it has not ended.
    pub(crate) fn end(mut self) -> Result<Sample> {
        self.hold = None;
        self.last()
    }

    fn last(&mut self) -> Result<Sample> {
        loop {
            if let News::Ended(sample) = self.wait()? {
                return Ok(sample);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.hold = None;
        // The helper bounds what it does then, and said before what there was to say.
        let _ = self.helper.wait();
    }
}
