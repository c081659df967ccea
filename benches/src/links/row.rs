//! The runs of one tool in a case, and the table of several.

use crate::lab::Lab;
use crate::links::net::Net;
use crate::links::pair::{LONGEST, Pair, Run};
use crate::links::sheet::{Sheet, with_ratio};
use crate::links::tool::Tool;
use crate::measure::Sample;
use crate::report::median;
use crate::walk;
use anyhow::Result;
use fixtures::linkemu::{Conditions, Counts};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Headers of IPv4 and UDP in every packet, which no program sees.
const HEADERS: u64 = 28;
/// The link on which bytes are counted: nothing is lost, and time does not matter.
const COUNTING_MBIT: f64 = 1000.0;

/// A tool in a case.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) pair: Pair,
    /// One for each round, over loopback.
    pub(crate) runs: Vec<Run>,
    /// One over an emulated link, for its counters alone.
    pub(crate) counted: Option<Run>,
    /// What no column holds.
    pub(crate) notes: Vec<String>,
    pub(crate) faults: Vec<String>,
}

impl Row {
    /// A tool and a second root of which nothing is remembered.
    pub(crate) fn new(lab: &mut Lab, tool: Tool, b: std::path::PathBuf) -> Result<Row> {
        Ok(Row::of(Pair::new(lab, tool, b)?))
    }

    /// A row for a pair that may be known already.
    pub(crate) fn of(pair: Pair) -> Row {
        Row { pair, runs: Vec::new(), counted: None, notes: Vec::new(), faults: Vec::new() }
    }

    /// One measured run over loopback.
    pub(crate) fn measure(&mut self, lab: &mut Lab, a: &Path) -> Result<()> {
        let run = self.pair.run(lab, a, &Net::loopback()?, LONGEST, false)?;
        self.judge(&run, a)?;
        self.runs.push(run);
        Ok(())
    }

    /// A run that is not measured, after which the tool remembers the pair.
    pub(crate) fn warm_up(&mut self, lab: &mut Lab, a: &Path) -> Result<()> {
        let run = self.pair.run(lab, a, &Net::loopback()?, LONGEST, false)?;
        self.judge(&run, a)
    }

    /// One run over an emulated link, whose packets are counted.
    pub(crate) fn count(&mut self, lab: &mut Lab, a: &Path) -> Result<()> {
        let net = Net::emulated(Conditions::new(COUNTING_MBIT, Duration::ZERO), None, 1)?;
        let run = self.pair.run(lab, a, &net, LONGEST, true)?;
        self.judge(&run, a)?;
        self.notes.extend(account(&run));
        self.counted = Some(run);
        Ok(())
    }

    /// What is wrong with a run. One that was late is no whole job, and says so in the table.
    fn judge(&mut self, run: &Run, a: &Path) -> Result<()> {
        if run.late.is_none() && run.here.code != 0 {
            self.faults.push(format!("exit {}", run.here.code));
        }
        if run.late.is_none() {
            self.faults.extend(walk::difference(a, &self.pair.b)?);
        }
        Ok(())
    }

    /// The run that was not done when its time was over.
    pub(crate) fn late(&self) -> Option<&Run> {
        self.runs.iter().find(|run| run.late.is_some())
    }

    fn is_peer(&self) -> bool {
        self.pair.tool.is_peer() && self.faults.is_empty() && self.late().is_none()
    }

    fn median(&self, value: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().map(value))
    }

    fn wall(&self) -> f64 {
        self.median(|run| run.here.wall_s)
    }

    fn cpu(&self) -> f64 {
        self.median(|run| run.here.cpu_s + run.there.cpu_s)
    }

    /// Bytes both ways.
    fn wire(&self) -> Option<[u64; 2]> {
        self.counted.as_ref()?.wire.map(|ways| ways.map(|counts| counts.bytes))
    }

    fn texts(&self, best: &Best) -> Vec<String> {
        let [wall, wall_ratio] = with_ratio(self.wall(), best.wall, 2);
        let [cpu, cpu_ratio] = with_ratio(self.cpu(), best.cpu, 2);
        let wall = self.late().map_or(wall, |run| format!("> {:.0}", run.here.wall_s));
        let mut texts = vec![self.pair.tool.name().to_owned(), wall, wall_ratio];
        texts.push(format!("{:.2}", self.median(|run| run.here.flush_s)));
        texts.extend([cpu, cpu_ratio]);
        texts.push(format!("{:.1}", self.median(|run| mib(&run.here))));
        texts.push(format!("{:.1}", self.median(|run| mib(&run.there))));
        match self.wire() {
            Some([out, back]) => {
                let ratio = with_ratio((out + back) as f64, best.wire, 0);
                texts.extend([out.to_string(), back.to_string(), ratio[1].clone()]);
            }
            None => texts.extend(["–"; 3].map(str::to_owned)),
        }
        let so_far = self.late().and_then(|run| run.late).map(|bytes| format!("{} MB so far", bytes / 1_000_000));
        let faults = self.faults.iter().map(|fault| format!("**{fault}**"));
        texts.push(so_far.into_iter().chain(self.notes.iter().cloned()).chain(faults).collect::<Vec<_>>().join("; "));
        texts
    }

    fn json(&self) -> Value {
        json!({
            "tool": self.pair.tool.name(),
            "wall_s": self.wall(), "cpu_s": self.cpu(),
            "runs": self.runs.iter().map(run_json).collect::<Vec<_>>(),
            "counted": self.counted.as_ref().map(run_json),
            "faults": self.faults,
        })
    }
}

/// The smallest of the peers that did the whole job.
struct Best {
    wall: Option<f64>,
    cpu: Option<f64>,
    wire: Option<f64>,
}

/// The table of a case.
pub(crate) fn sheet(case: &'static str, title: String, rows: &[Row]) -> Sheet {
    let best_of =
        |value: &dyn Fn(&Row) -> Option<f64>| rows.iter().filter(|row| row.is_peer()).filter_map(value).min_by(f64::total_cmp);
    let best = Best {
        wall: best_of(&|row| Some(row.wall())),
        cpu: best_of(&|row| Some(row.cpu())),
        wire: best_of(&|row| row.wire().map(|[out, back]| (out + back) as f64)),
    };
    let head = [
        "tool",
        "wall s",
        "÷ best peer",
        "flush after, s",
        "CPU s, both sides",
        "÷ best peer",
        "peak MiB here",
        "peak MiB there",
        "bytes to the server",
        "bytes back",
        "÷ best peer",
        "notes",
    ];
    let faults = |row: &Row| {
        row.faults.iter().map(|fault| format!("links, {case}: {}: {fault}", row.pair.tool.name())).collect::<Vec<_>>()
    };
    Sheet {
        case,
        title,
        head: head.map(str::to_owned).to_vec(),
        rows: rows.iter().map(|row| row.texts(&best)).collect(),
        runs: rows.iter().map(Row::json).collect(),
        faults: rows.iter().flat_map(faults).collect(),
    }
}

/// Runs all once, another one first in each round.
pub(crate) fn one_round(lab: &mut Lab, a: &Path, rows: &mut [Row], round: usize) -> Result<()> {
    let count = rows.len();
    (0..count).try_for_each(|turn| rows[(turn + round) % count].measure(lab, a))
}

/// What a tool says that it sent and received, beside what the link carried.
fn account(run: &Run) -> Option<String> {
    let ([sent, received], wire) = (run.told?, run.wire?);
    let (carried, packets) = (wire[0].bytes + wire[1].bytes, wire[0].carried + wire[1].carried);
    let told = sent + received;
    #[expect(clippy::cast_possible_wrap, reason = "bytes of one run")]
    let unknown = (carried - HEADERS * packets) as i64 - told as i64;
    Some(format!(
        "its summary: {sent} sent + {received} received; the link carried {} more: {HEADERS} bytes of IP and UDP in each of \
         {packets} packets, and {unknown} of the handshake and the end, which it leaves out",
        carried.saturating_sub(told)
    ))
}

fn mib(sample: &Sample) -> f64 {
    sample.peak_kib as f64 / 1024.0
}

/// Everything about one run.
pub(crate) fn run_json(run: &Run) -> Value {
    let side = |sample: &Sample| json!({"cpu_s": sample.cpu_s, "peak_kib": sample.peak_kib, "exit": sample.code});
    let way = |counts: &Counts| json!({"packets": counts.carried, "bytes": counts.bytes, "udp_bytes": counts.udp_bytes, "lost": counts.lost, "overflowed": counts.overflowed});
    json!({
        "wall_s": run.here.wall_s, "flush_s": run.here.flush_s,
        "here": side(&run.here), "there": side(&run.there),
        "late_after_bytes": run.late,
        "wire": run.wire.map(|ways| json!({"out": way(&ways[0]), "back": way(&ways[1])})),
        "told": run.told.map(|[sent, received]| json!({"sent": sent, "received": received})),
    })
}

/// A run that was late, or did less than a whole job, where no case expects that.
pub(crate) fn ensure_whole(rows: &mut [Row]) {
    for row in rows {
        if let Some(run) = row.late() {
            let fault = format!("not done after {:.0} s", run.here.wall_s);
            row.faults.push(fault);
        }
    }
}
