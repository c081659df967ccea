//! What it costs to wait beside a million files, and how long it takes until nothing is known to be missing after a start.

use super::pair::{Pair, joined};
use super::tool::Tool;
use crate::args::Args;
use crate::cases::SEED;
use crate::lab::Lab;
use crate::links::sheet::Sheet;
use crate::measure;
use anyhow::{Result, bail, ensure};
use fixtures::dated::Dated;
use fixtures::linkemu::End;
use serde_json::json;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(60);
/// Rest before it, so that what the start left to do is done.
const CALM: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(1800);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// driftless alone: what others do at their start is not comparable.
pub(crate) fn run(lab: &mut Lab, args: &Args, place: &End) -> Result<Sheet> {
    let files = 1_000_000 / args.scale;
    let a = lab.own_source(&Dated::tiny(files, SEED))?;
    let b = lab.folder("there")?;
    let once: Vec<OsString> =
        vec![args.driftless.clone().into(), "sync".into(), "--batch".into(), a.clone().into(), b.clone().into()];
    let home = lab.folder("home")?;
    let environment = vec![("DRIFTLESS_HOME".into(), home.into())];
    let first = measure::run(&once, &environment, &lab.log())?;
    ensure!(first.code == 0, "the first sync ended with {}", first.code);
    // The first of these warms up.
    let mut runs = Vec::new();
    for _ in 0..=args.rounds {
        runs.push(measure::run(&once, &environment, &lab.log())?.wall_s);
    }
    let one_shot = crate::report::median(runs[1..].iter().copied());
    let tool = Tool::Driftless(args.driftless.clone());
    let dir = lab.folder("home")?;
    let calls = tool.prepare(&dir, &[a.clone(), b.clone()])?;
    // At their first start the agents know nothing of each other.
    let (mut starts, mut idle) = (Vec::new(), None);
    for round in 0..=args.rounds {
        let begun = Instant::now();
        let pair = Pair::on(lab, &calls, place, [a.clone(), b.clone()])?;
        in_sync(&args.driftless, &dir)?;
        starts.push(begun.elapsed().as_secs_f64());
        if round == args.rounds {
            std::thread::sleep(CALM);
            let before = pair.cpu_s()?;
            std::thread::sleep(IDLE);
            let after = pair.cpu_s()?;
            let cpu: Vec<f64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
            idle = Some((cpu, pair.resident_mib()?));
        }
        let peaks = pair.end()?.peaks();
        eprintln!("round {round}: in sync after {:.2} s, peaks {peaks:?} MiB", starts[round]);
        if let (true, Some((cpu, resident))) = (round == args.rounds, idle.take()) {
            let start = crate::report::median(starts[1..].iter().copied());
            let share = cpu.iter().map(|cpu| format!("{:.2}", 100.0 * cpu / IDLE.as_secs_f64()));
            let row = vec![
                files.to_string(),
                format!("{one_shot:.2}"),
                format!("{:.2}", starts[0]),
                format!("{start:.2}"),
                format!("{:.2}", start / one_shot),
                joined(share),
                joined(resident.iter().map(|mib| format!("{mib:.0}"))),
                joined(&peaks),
            ];
            let run = json!({"files": files, "one_shot_s": runs, "start_s": starts, "idle_cpu_s": cpu, "peak_mib": peaks});
            return Ok(sheet(row, run));
        }
    }
    bail!("there was no round")
}

fn sheet(row: Vec<String>, run: serde_json::Value) -> Sheet {
    let head = [
        "files",
        "one-shot, nothing changed, s",
        "both agents in sync after their first start, s",
        "after later ones, s",
        "÷ one-shot",
        "CPU of each, idle, % of a core",
        "resident MiB",
        "peak MiB",
    ];
    Sheet {
        case: "idle-1m",
        title: format!(
            "Two agents on trees that are equal: from start to in sync, then {} s in which nothing happens.",
            IDLE.as_secs()
        ),
        head: head.map(str::to_owned).to_vec(),
        rows: vec![row],
        runs: vec![run],
        faults: Vec::new(),
    }
}

/// Waits until both agents say that nothing is missing.
fn in_sync(program: &Path, dir: &Path) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    for home in ["here", "there"] {
        loop {
            let mut command = Command::new(program);
            let told = command.env("DRIFTLESS_HOME", dir.join(home)).args(["agent", "status", "--json"]).output()?;
            let text = String::from_utf8_lossy(&told.stdout);
            let summary = text.lines().last().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            if summary.is_some_and(|summary| summary["in_sync"] == true) {
                break;
            }
            if Instant::now() > until {
                bail!("the agent in {} is never in sync: {text}", dir.join(home).display());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
    Ok(())
}
