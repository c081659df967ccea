//! First syncs over a bad link: how much of its rate becomes content on the other side.

use crate::args::Args;
use crate::cases::SEED;
use crate::edits::{write_noise, write_pages};
use crate::lab::Lab;
use crate::links::net::{Control, Net};
use crate::links::pair::{Pair, Run};
use crate::links::row::run_json;
use crate::links::sheet::Sheet;
use crate::links::tool::Tool;
use crate::report::median;
use crate::walk;
use anyhow::Result;
use fixtures::linkemu::Conditions;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// The link: 100 Mbit/s, 50 ms there and back, a queue of a thousand packets.
pub(crate) const MBIT: f64 = 100.0;
pub(crate) const DELAY: Duration = Duration::from_millis(25);
/// Shares of packets lost, each way.
const LOSSES: [f64; 4] = [0.0, 0.01, 0.05, 0.10];
/// Files of 4 KiB, and bytes of one large file.
pub(crate) const PAGES: u64 = 20_000;
pub(crate) const LARGE: u64 = 100 << 20;
/// Runs of a round: every contender at every loss.
pub(crate) const RUNS: u64 = 20;

/// A tool, and what TCP does below it.
struct Contender {
    tool: Tool,
    control: Option<Control>,
    /// For every loss its runs.
    cells: Vec<Vec<Run>>,
    faults: Vec<String>,
}

impl Contender {
    fn name(&self) -> String {
        match self.control {
            Some(control) => format!("{}, TCP {}", self.tool.name(), control.name()),
            None => self.tool.name().to_owned(),
        }
    }

    /// One first sync to a new root.
    fn run(&mut self, lab: &mut Lab, a: &Path, loss: f64, seed: u64, deadline: Duration) -> Result<Run> {
        let b = lab.folder("target")?;
        let pair = Pair::new(lab, self.tool.clone(), b)?;
        let net = Net::emulated(Conditions::new(MBIT, DELAY).losing(loss), self.control, seed)?;
        let run = pair.run(lab, a, &net, deadline, false)?;
        let wrong = match (run.late, run.here.code) {
            (Some(_), _) => None,
            (None, 0) => walk::difference(a, &pair.b)?,
            (None, code) => Some(format!("exit {code}")),
        };
        self.faults.extend(wrong.map(|wrong| format!("at {:.0} % lost: {wrong}", loss * 100.0)));
        // A single file: its deletion does not slow later ones down.
        if walk::count(a)?.entries < 10 {
            pair.remove()?;
        }
        Ok(run)
    }
}

fn contenders(args: &Args) -> Vec<Contender> {
    let new = |tool, control| Contender { tool, control, cells: Vec::new(), faults: Vec::new() };
    let mut all = vec![new(Tool::Driftless(args.driftless.clone()), None)];
    for tool in [Tool::RsyncDelete, Tool::Unison] {
        all.extend([Control::Bbr, Control::Cubic].map(|control| new(tool.clone(), Some(control))));
    }
    all
}

pub(crate) fn small(lab: &mut Lab, args: &Args) -> Result<Sheet> {
    let a = lab.folder("source")?;
    let files = PAGES / args.scale;
    let bytes = write_pages(&a, files, SEED + 600)?;
    grid(lab, args, "bad-small", &a, bytes, &format!("{files} files of 4 KiB of noise"))
}

pub(crate) fn large(lab: &mut Lab, args: &Args) -> Result<Sheet> {
    let a = lab.folder("source")?;
    let bytes = LARGE / args.scale;
    write_noise(&a.join("large"), bytes, SEED + 601)?;
    grid(lab, args, "bad-large", &a, bytes, &format!("One file of {} MiB of noise", bytes >> 20))
}

fn grid(lab: &mut Lab, args: &Args, case: &'static str, a: &Path, bytes: u64, what: &str) -> Result<Sheet> {
    let mut all = contenders(args);
    for loss in LOSSES {
        let mut late = vec![false; all.len()];
        all.iter_mut().for_each(|one| one.cells.push(Vec::new()));
        for round in 0..args.rounds {
            for (one, late) in all.iter_mut().zip(&mut late) {
                // Who was late once would be late again; nobody waits for that.
                if *late {
                    continue;
                }
                eprintln!(" {} at {:.0} % lost", one.name(), loss * 100.0);
                let run = one.run(lab, a, loss, round as u64 + 1, args.deadline)?;
                *late = run.late.is_some();
                one.cells.last_mut().expect("pushed above").push(run);
            }
        }
    }
    let columns = LOSSES.map(|loss| format!("{:.0} % lost", loss * 100.0));
    Ok(Sheet {
        case,
        title: format!(
            "{what}, to an empty root over {MBIT} Mbit/s and 50 ms, queue of a thousand packets, losses both ways. Seconds, and \
             content in Mbit/s with its share of the rate. After {} s a run was ended.",
            args.deadline.as_secs()
        ),
        head: ["tool".to_owned()].into_iter().chain(columns).collect(),
        rows: all.iter().map(|one| texts(one, bytes)).collect(),
        runs: all.iter().map(|one| cells_json(one, bytes)).collect(),
        faults: all
            .iter()
            .flat_map(|one| one.faults.iter().map(|fault| format!("links, {case}: {}: {fault}", one.name())).collect::<Vec<_>>())
            .collect(),
    })
}

fn texts(one: &Contender, bytes: u64) -> Vec<String> {
    let cells = one.cells.iter().map(|runs| cell(runs, bytes));
    let mut texts: Vec<String> = [one.name()].into_iter().chain(cells).collect();
    if !one.faults.is_empty() {
        texts[0] = format!("{} **{}**", texts[0], one.faults.join("; "));
    }
    texts
}

/// Median seconds and Mbit/s, or how far it had come when its time was over.
fn cell(runs: &[Run], bytes: u64) -> String {
    let goodput = median(runs.iter().map(|run| mbit(run, bytes)));
    let seconds = median(runs.iter().map(|run| run.here.wall_s));
    let arrived: Vec<f64> = runs.iter().filter_map(|run| run.late).map(|bytes| bytes as f64 / 1e6).collect();
    let rate = format!("{goodput:.1} ({:.0} %)", goodput / MBIT * 100.0);
    match arrived.len() {
        0 => format!("{seconds:.1} s: {rate}"),
        late if late == runs.len() => {
            format!("> {:.0} s, {:.1} MB so far: {rate}", seconds.floor(), median(arrived.into_iter()))
        }
        late => format!("{seconds:.1} s: {rate}, {late} of {} runs not done", runs.len()),
    }
}

fn mbit(run: &Run, bytes: u64) -> f64 {
    run.late.unwrap_or(bytes) as f64 * 8e-6 / run.here.wall_s
}

fn cells_json(one: &Contender, bytes: u64) -> serde_json::Value {
    let cell = |(loss, runs): (&f64, &Vec<Run>)| {
        json!({
            "loss": loss,
            "mbit": median(runs.iter().map(|run| mbit(run, bytes))),
            "runs": runs.iter().map(run_json).collect::<Vec<_>>(),
        })
    };
    json!({"tool": one.name(), "bytes": bytes, "cells": LOSSES.iter().zip(&one.cells).map(cell).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Sample;

    fn run(wall_s: f64, late: Option<u64>) -> Run {
        let here = Sample { wall_s, cpu_s: 0.0, peak_kib: 0, code: 0, flush_s: 0.0 };
        Run { here, there: here, late, wire: None, told: None }
    }

    #[test]
    fn a_cell_tells_what_arrived_and_who_was_not_done() {
        let bytes = 100_000_000;
        assert_eq!(cell(&[run(10.0, None)], bytes), "10.0 s: 80.0 (80 %)");
        assert_eq!(cell(&[run(60.0, Some(3_000_000))], bytes), "> 60 s, 3.0 MB so far: 0.4 (0 %)");
        assert_eq!(cell(&[run(10.0, None), run(20.0, Some(0))], bytes), "15.0 s: 40.0 (40 %), 1 of 2 runs not done");
    }
}
