//! One measured run of a command: wall time, CPU of all its processes, peak memory of all of them together.
//!
//! The bench starts itself anew as a small helper, which starts the command: a child of the bench itself would carry
//! the bench's memory between fork and exec. The helper samples the tree of processes in `/proc` every few
//! milliseconds and adds up the high-water marks (VmHWM) of those alive at the same time. Pages that processes share
//! after a fork count once for each of them; that is how much `ps` shows, and the same for every tool. It ends the
//! command with all that it started when it is asked to, when a deadline has passed, and when the bench dies.

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SAMPLE_EVERY: Duration = Duration::from_millis(5);
/// How long one may look at what a late command has done before it is ended all the same.
const LOOK: Duration = Duration::from_secs(20);
/// How long a server that was left may go on with its children, and how long who is asked to end may take.
const FINISH: Duration = Duration::from_secs(2);
const ASKED: Duration = Duration::from_secs(3);

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
    /// Its deadline has passed; it goes on for a moment, so that one can look at what it has done.
    Late,
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
        if value["late"] == true {
            return Ok(News::Late);
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

/// The helper's side: runs the command, prints one line of JSON when it has ended, and one before when it is late.
pub(crate) fn helper(log: &Path, deadline: Duration, command: &[OsString]) -> Result<()> {
    let out = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let errors = out.try_clone().with_context(|| format!("cannot share {}", log.display()))?;
    let started = Instant::now();
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("cannot start {}", command[0].display()))?;
    let pid = child.id();
    let (done, let_go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (over, asked) = (Arc::clone(&done), Arc::clone(&let_go));
    // Stands in a read until whoever started this helper lets go, and is waited for only then.
    let ender = std::thread::spawn(move || {
        // An error is as good as the end: nobody is there any more.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        asked.store(true, Ordering::Release);
        end_tree(pid, &over);
    });
    let (status, wall, peak_kib) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| sample_until(pid, started.checked_add(deadline), &done, &let_go));
        let status = child.wait();
        let wall = started.elapsed();
        done.store(true, Ordering::Release);
        (status, wall, sampler.join().expect("the sampler does not panic"))
    });
    let code = status.context("cannot wait for the command")?.code().unwrap_or(-1);
    let cpu_s = children_cpu_seconds()?;
    println!("{}", json!({"wall_s": wall.as_secs_f64(), "cpu_s": cpu_s, "peak_kib": peak_kib, "code": code}));
    if let_go.load(Ordering::Acquire) {
        // What lost its parent is still to be ended.
        ender.join().expect("the thread that ends does not panic");
    }
    Ok(())
}

fn sample_until(pid: u32, deadline: Option<Instant>, done: &AtomicBool, let_go: &AtomicBool) -> u64 {
    let (mut peak, mut told) = (0, false);
    while !done.load(Ordering::Acquire) {
        peak = peak.max(tree_kib(pid));
        let late = deadline.map_or(Duration::ZERO, |deadline| Instant::now().saturating_duration_since(deadline));
        if !late.is_zero() && !told && !let_go.load(Ordering::Acquire) {
            println!("{}", json!({"late": true}));
            told = true;
        }
        if late > LOOK && !let_go.swap(true, Ordering::AcqRel) {
            end_tree(pid, done);
        }
        std::thread::sleep(SAMPLE_EVERY);
    }
    peak
}

/// Ends a process and all below it: a server that has just been left may finish its children first, so that their time
/// is counted; then everybody is asked, and in the end not asked.
fn end_tree(pid: u32, done: &AtomicBool) {
    wait_until(FINISH, || done.load(Ordering::Acquire) || children(pid).is_empty());
    let tree = tree(pid);
    if done.load(Ordering::Acquire) {
        return;
    }
    signal(&tree, Signal::TERM);
    // Who lost its parent is told apart by its number alone, which is not given anew so soon.
    wait_until(ASKED, || tree.iter().all(|pid| !alive(*pid)));
    signal(&tree.into_iter().filter(|pid| alive(*pid)).collect::<Vec<_>>(), Signal::KILL);
}

/// Looks at processes of others until something holds, which no event tells.
fn wait_until(most: Duration, holds: impl Fn() -> bool) {
    let end = Instant::now() + most;
    while !holds() && Instant::now() < end {
        std::thread::sleep(SAMPLE_EVERY);
    }
}

fn signal(pids: &[u32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
        // It may have ended meanwhile.
        let _ = kill_process(pid, signal);
    }
}

/// Is there a process of this number that has not ended?
fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// A process and its living descendants, the deepest first.
fn tree(pid: u32) -> Vec<u32> {
    let mut all: Vec<u32> = children(pid).into_iter().flat_map(tree).collect();
    all.push(pid);
    all
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// High-water marks of a process and its living descendants, added up. A process that ends while it is looked at
/// counts as nothing.
fn tree_kib(pid: u32) -> u64 {
    let own = fs::read_to_string(format!("/proc/{pid}/status")).map_or(0, |status| high_water_kib(&status));
    own + children(pid).into_iter().map(tree_kib).sum::<u64>()
}

fn high_water_kib(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// User and system time of all children that were waited for: fields 16 and 17 of `/proc/self/stat`.
fn children_cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    let (_, after_name) = stat.rsplit_once(')').context("/proc/self/stat has no name")?;
    let ticks = after_name.split_whitespace().skip(13).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>();
    #[expect(clippy::cast_precision_loss, reason = "a hundred or a thousand")]
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok(ticks.context("/proc/self/stat has no times")? / per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_found_in_a_status() {
        assert_eq!(high_water_kib("Name:\tx\nVmPeak:\t   9 kB\nVmHWM:\t    1234 kB\nVmRSS:\t  5 kB\n"), 1234);
        assert_eq!(high_water_kib("Name:\tkthread\n"), 0);
    }

    #[test]
    fn a_tree_of_processes_ends_whole() {
        let mut child = Command::new("sh").args(["-c", "sleep 1000 & sleep 1000; :"]).spawn().unwrap();
        let limit = Instant::now() + Duration::from_secs(60);
        while tree(child.id()).len() < 3 {
            assert!(Instant::now() < limit, "{:?}", tree(child.id()));
        }
        let all = tree(child.id());
        end_tree(child.id(), &AtomicBool::new(false));
        assert_eq!(child.wait().unwrap().code(), None);
        assert!(all.iter().all(|pid| !alive(*pid)), "{all:?}");
    }

    #[test]
    fn this_process_has_memory_and_its_children_took_time() {
        assert!(tree_kib(std::process::id()) > 500);
        let before = children_cpu_seconds().unwrap();
        let status = Command::new("sh").args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"]).status().unwrap();
        assert!(status.success());
        assert!(children_cpu_seconds().unwrap() > before);
    }
}
