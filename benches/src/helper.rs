//! The helper beside a measured command: time, CPU and memory of all its processes, its deadline and its end.
//!
//! It samples the tree of processes in `/proc` every few milliseconds and adds up the high-water marks (VmHWM) of those
//! alive at the same time. Pages that processes share after a fork count once for each of them; that is how much `ps`
//! shows, and the same for every tool. It ends the command with all that it started when it is asked to, when a deadline
//! has passed, and when the bench dies.

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SAMPLE_EVERY: Duration = Duration::from_millis(5);
/// How long one may look at what a late command has done before it is ended all the same.
const LOOK: Duration = Duration::from_secs(20);
/// How long a server that was left may go on with its children, and how long who is asked to end may take.
const FINISH: Duration = Duration::from_secs(2);
const ASKED: Duration = Duration::from_secs(3);

/// The helper's side: runs the command, prints one line of JSON when it has ended, and one before when it is late.
pub(crate) fn run(log: &Path, deadline: Duration, command: &[OsString]) -> Result<()> {
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
    let watch = Arc::new(Watch::new(child.id(), started, deadline));
    let shared = Arc::clone(&watch);
    // Stands in a read until whoever started this helper lets go, and is waited for only then.
    let ender = std::thread::spawn(move || {
        // An error is as good as the end: nobody is there any more.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        shared.end();
    });
    let (status, wall, peak_kib) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| watch.sample());
        let status = child.wait();
        let wall = started.elapsed();
        watch.done.store(true, Ordering::Release);
        (status, wall, sampler.join().expect("the sampler does not panic"))
    });
    let code = status.context("cannot wait for the command")?.code().unwrap_or(-1);
    let cpu_s = children_cpu_seconds()?;
    say(&json!({"wall_s": wall.as_secs_f64(), "cpu_s": cpu_s, "peak_kib": peak_kib, "code": code}));
    if watch.ending.load(Ordering::Acquire) {
        // What lost its parent is still to be ended.
        ender.join().expect("the thread that ends does not panic");
    }
    Ok(())
}

/// A command that is watched.
#[derive(Debug)]
struct Watch {
    pid: u32,
    started: Instant,
    deadline: Option<Instant>,
    /// It has ended.
    done: AtomicBool,
    /// It is late, and that was said.
    late: AtomicBool,
    /// It is being ended.
    ending: AtomicBool,
}

impl Watch {
    fn new(pid: u32, started: Instant, deadline: Duration) -> Watch {
        let (done, late, ending) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        Watch { pid, started, deadline: started.checked_add(deadline), done, late, ending }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Looks until it ends; the most memory that it had. Says when it is late, and ends it when nobody else does then.
    fn sample(&self) -> u64 {
        let mut peak = 0;
        while !self.is_done() {
            peak = peak.max(tree_kib(self.pid));
            let now = Instant::now();
            let over = self.deadline.and_then(|deadline| now.checked_duration_since(deadline));
            if over.is_some() && !self.ending.load(Ordering::Acquire) && !self.late.swap(true, Ordering::AcqRel) {
                say(&json!({"late_s": (now - self.started).as_secs_f64()}));
            }
            if over.is_some_and(|over| over > LOOK) {
                self.end();
            }
            std::thread::sleep(SAMPLE_EVERY);
        }
        peak
    }

    /// Ends it and all below it, once: a server that has just been left may finish its children first, so that their time
    /// is counted; then everybody is asked, and in the end not asked.
    fn end(&self) {
        if self.ending.swap(true, Ordering::AcqRel) {
            return;
        }
        let late = self.late.load(Ordering::Acquire);
        wait_until(FINISH, || late || self.is_done() || children(self.pid).is_empty());
        let tree = tree(self.pid);
        if self.is_done() {
            return;
        }
        signal(&tree, Signal::TERM);
        // Who lost its parent is told apart by its number alone, which is not given anew so soon.
        wait_until(ASKED, || tree.iter().all(|pid| !alive(*pid)));
        signal(&tree.into_iter().filter(|pid| alive(*pid)).collect::<Vec<_>>(), Signal::KILL);
    }
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

/// A line for whoever started this helper.
fn say(value: &Value) {
    // If nobody listens any more, the command is being ended for that reason.
    let _ = writeln!(io::stdout(), "{value}");
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
        let watch = Watch::new(child.id(), Instant::now(), Duration::from_secs(60));
        watch.end();
        // By a signal, or by itself because its child was ended first.
        child.wait().unwrap();
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
