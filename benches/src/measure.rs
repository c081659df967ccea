//! One measured run of a command: wall time, CPU of all its processes, peak memory of all of them together.
//!
//! The bench starts itself anew as a small helper, which starts the command: a child of the bench itself would carry
//! the bench's memory between fork and exec. The helper samples the tree of processes in `/proc` every few
//! milliseconds and adds up the high-water marks (VmHWM) of those alive at the same time. Pages that processes share
//! after a fork count once for each of them; that is how much `ps` shows, and the same for every tool.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SAMPLE_EVERY: Duration = Duration::from_millis(5);

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

/// Runs a command through the helper. Its output goes to `log`.
pub(crate) fn run(command: &[OsString], environment: &[(OsString, OsString)], log: &Path) -> Result<Sample> {
    let helper = std::env::current_exe().context("cannot find this program")?;
    let output = Command::new(helper)
        .args(["measure".as_ref(), "--log".as_ref(), log.as_os_str(), "--".as_ref()])
        .args(command)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the measuring helper")?;
    ensure!(output.status.success(), "the measuring helper failed on {command:?}");
    let value: Value = serde_json::from_slice(&output.stdout).context("the measuring helper answered nonsense")?;
    let number = |name: &str| value[name].as_f64().with_context(|| format!("the measuring helper left out {name}"));
    Ok(Sample {
        wall_s: number("wall_s")?,
        cpu_s: number("cpu_s")?,
        peak_kib: value["peak_kib"].as_u64().context("the measuring helper left out peak_kib")?,
        code: i32::try_from(value["code"].as_i64().context("the measuring helper left out code")?)?,
        flush_s: 0.0,
    })
}

/// The helper's side: runs the command, prints one line of JSON.
pub(crate) fn helper(log: &Path, command: &[OsString]) -> Result<()> {
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
    let (pid, done) = (child.id(), AtomicBool::new(false));
    let (status, wall, peak_kib) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| sample_until(pid, &done));
        let status = child.wait();
        let wall = started.elapsed();
        done.store(true, Ordering::Release);
        (status, wall, sampler.join().expect("the sampler does not panic"))
    });
    let code = status.context("cannot wait for the command")?.code().unwrap_or(-1);
    let cpu_s = children_cpu_seconds()?;
    println!("{}", json!({"wall_s": wall.as_secs_f64(), "cpu_s": cpu_s, "peak_kib": peak_kib, "code": code}));
    Ok(())
}

fn sample_until(pid: u32, done: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !done.load(Ordering::Acquire) {
        peak = peak.max(tree_kib(pid));
        std::thread::sleep(SAMPLE_EVERY);
    }
    peak
}

/// High-water marks of a process and its living descendants, added up. A process that ends while it is looked at
/// counts as nothing.
fn tree_kib(pid: u32) -> u64 {
    let own = fs::read_to_string(format!("/proc/{pid}/status")).map_or(0, |status| high_water_kib(&status));
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return own };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children = lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>());
    own + children.map(tree_kib).sum::<u64>()
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
    fn this_process_has_memory_and_its_children_took_time() {
        assert!(tree_kib(std::process::id()) > 500);
        let before = children_cpu_seconds().unwrap();
        let status = Command::new("sh").args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"]).status().unwrap();
        assert!(status.success());
        assert!(children_cpu_seconds().unwrap() > before);
    }
}
