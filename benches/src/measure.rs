//! One measured run of a command: wall time, CPU of all its processes, peak memory of all of them together.
//!
//! The bench starts itself anew as a small helper, which starts the command: a child of the bench itself would carry
//! the bench's memory between fork and exec.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
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

    /// Seconds of CPU time that the command and its children have taken so far.
    pub(crate) fn cpu_s(&self) -> Result<f64> {
        let ticks = self.sum(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name before may hold anything.
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            Some(fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum())
        })?;
        #[expect(clippy::cast_precision_loss, reason = "clock ticks of a process are far below 2^52")]
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Memory that the command and its children hold now, MiB.
    pub(crate) fn resident_mib(&self) -> Result<f64> {
        let kib = self.sum(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().strip_suffix(" kB")?.trim().parse().ok()
        })?;
        #[expect(clippy::cast_precision_loss, reason = "memory of processes in KiB is far below 2^52")]
        Ok(kib as f64 / 1024.0)
    }

    /// The sum over all processes below the helper; those that end meanwhile count nothing.
    fn sum(&self, of: impl Fn(u32) -> Option<u64>) -> Result<u64> {
        let (mut waiting, mut sum, mut found) = (vec![self.helper.id()], 0, false);
        while let Some(pid) = waiting.pop() {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
            let children: Vec<u32> = children
                .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
                .collect();
            for pid in &children {
                found |= of(*pid).map(|number| sum += number).is_some();
            }
            waiting.extend(children);
        }
        ensure!(found, "the command has ended");
        Ok(sum)
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
