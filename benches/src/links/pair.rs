//! A pair of roots and what one tool remembers of it; one run of that tool over a network.

use crate::lab::{self, Lab, Slot};
use crate::links::net::Net;
use crate::links::tool::{Homes, Tool};
use crate::measure::{News, Running, Sample};
use crate::walk;
use anyhow::{Context as _, Result};
use fixtures::linkemu::Counts;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much longer than its client a server may live.
const SERVER_LONGER: Duration = Duration::from_secs(60);
/// How long a run may take where no case says less.
pub(crate) const LONGEST: Duration = Duration::from_secs(1800);

/// A tool, two roots, and what it remembers of them.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) tool: Tool,
    pub(crate) b: PathBuf,
    slot: Slot,
    homes: Homes,
}

/// What one run took.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// The command; what a flush of the target's file system took afterwards is in here too.
    pub(crate) here: Sample,
    /// Its server, from before the command's start until after its end.
    pub(crate) there: Sample,
    /// Bytes of content that had arrived when the time was over, if the command was not done then.
    pub(crate) late: Option<u64>,
    /// What an emulated link carried to the server and back.
    pub(crate) wire: Option<[Counts; 2]>,
    /// Bytes sent and received by the tool's own account.
    pub(crate) told: Option<[u64; 2]>,
}

impl Pair {
    /// A pair of which nothing is remembered yet.
    pub(crate) fn new(lab: &mut Lab, tool: Tool, b: PathBuf) -> Result<Pair> {
        let slot = lab.slot()?;
        let homes = tool.prepare(slot.dir(), &b)?;
        Ok(Pair { tool, b, slot, homes })
    }

    /// Starts a server, runs the tool once, ends the server.
    pub(crate) fn run(&self, lab: &mut Lab, a: &Path, net: &Net, deadline: Duration, told: bool) -> Result<Run> {
        if !matches!(self.tool, Tool::Driftless(_)) {
            return self.measure(lab, a, net, deadline, told);
        }
        // Others would take what is remembered in the roots for files of the user.
        self.slot.unpark(a, &self.b)?;
        let run = self.measure(lab, a, net, deadline, told);
        self.slot.park(a, &self.b)?;
        run
    }

    /// Starts the server, and waits until it listens.
    pub(crate) fn serve(&self, lab: &mut Lab, net: &Net, deadline: Duration) -> Result<Running> {
        let log = lab.log();
        let (command, environment) = self.tool.server(&self.b, net.there().address, &self.homes);
        let server = net.there().run(|| Running::start(&command, &environment, &log, Some(deadline + SERVER_LONGER)))?;
        net.wait_for_listener(&log)?;
        Ok(server)
    }

    /// Starts the command; its output goes to a log.
    pub(crate) fn call(&self, lab: &mut Lab, a: &Path, net: &Net, deadline: Duration, told: bool) -> Result<(Running, PathBuf)> {
        let log = lab.log();
        let (command, environment) = self.tool.client(a, &self.b, net.there().address, &self.homes, told);
        Ok((net.here().run(|| Running::start(&command, &environment, &log, Some(deadline)))?, log))
    }

    fn measure(&self, lab: &mut Lab, a: &Path, net: &Net, deadline: Duration, told: bool) -> Result<Run> {
        rustix::fs::sync();
        let server = self.serve(lab, net, deadline)?;
        let before = net.counts();
        let (mut client, log) = self.call(lab, a, net, deadline, told)?;
        let (mut here, late) = match client.wait()? {
            News::Ended(sample) => (sample, None),
            News::Late(wall_s) => {
                let so_far = self.arrived()?;
                (Sample { wall_s, ..client.end()? }, Some(so_far))
            }
        };
        let wire = net.counts().zip(before).map(|(after, before)| [0, 1].map(|way| since(after[way], before[way])));
        here.flush_s = lab::flush_seconds(&self.b)?;
        let there = server.end()?;
        let (cpu, peaks) = (here.cpu_s + there.cpu_s, (here.peak_kib >> 10, there.peak_kib >> 10));
        let outcome =
            late.map_or_else(|| format!("exit {}", here.code), |bytes| format!("late, {} MB so far", bytes / 1_000_000));
        eprintln!(
            "  {:<26} {:7.2} s, CPU {cpu:6.2} s, {:5} and {:5} MiB, {outcome}",
            self.tool.name(),
            here.wall_s,
            peaks.0,
            peaks.1
        );
        if late.is_none() && here.code != 0 {
            lab::show_tail(&log)?;
        }
        let told = if told { summary(&log)? } else { None };
        Ok(Run { here, there, late, wire, told })
    }

    /// Deletes the second root and all that is remembered, kept versions included. For roots of few files: ext4 does not slow
    /// down for minutes after that.
    pub(crate) fn remove(&self) -> Result<()> {
        remove_tree(&self.b)?;
        remove_tree(self.slot.dir())
    }

    /// Bytes of content in the second root, whatever they are called for the time being.
    fn arrived(&self) -> Result<u64> {
        let staged = self.b.join(".driftless/stage");
        let staged = if staged.exists() { walk::count(&staged)?.bytes } else { 0 };
        Ok(walk::count(&self.b)?.bytes + staged)
    }
}

/// Deletes a tree of few files.
pub(crate) fn remove_tree(at: &Path) -> Result<()> {
    fs::remove_dir_all(at).with_context(|| format!("cannot remove {}", at.display()))
}

fn since(after: Counts, before: Counts) -> Counts {
    Counts {
        carried: after.carried - before.carried,
        bytes: after.bytes - before.bytes,
        udp_bytes: after.udp_bytes - before.udp_bytes,
        lost: after.lost - before.lost,
        overflowed: after.overflowed - before.overflowed,
    }
}

/// What the last line of a run of driftless with `--json` tells of bytes.
fn summary(log: &Path) -> Result<Option<[u64; 2]>> {
    let text = fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let summary = lines
        .filter(|event| event["event"] == "summary")
        .find_map(|event| Some([event["bytes_sent"].as_u64()?, event["bytes_received"].as_u64()?]));
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_summary_are_found_among_other_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "talk\n{\"event\":\"item\"}\n{\"event\":\"summary\",\"bytes_sent\":5,\"bytes_received\":7}\n").unwrap();
        assert_eq!(summary(&log).unwrap(), Some([5, 7]));
        fs::write(&log, "talk\n").unwrap();
        assert_eq!(summary(&log).unwrap(), None);
    }
}
