//! From the end of a write to the file on the other side, one file at a time, both sides idle before each.

use super::pair::{Pair, arrived, joined};
use super::per_mille;
use super::tool::Tool;
use crate::args::Args;
use crate::lab::Lab;
use crate::links::sheet::Sheet;
use anyhow::{Context as _, Result};
use fixtures::bytes::{Stream, noise};
use fixtures::linkemu::End;
use serde_json::json;
use std::fs;
use std::time::{Duration, Instant};

/// Files that driftless brings; the others, which take more than a second each, bring fewer.
const FILES: u64 = 300;
const FILES_OF_PEERS: u64 = 60;
/// Rest before each file, milliseconds: at least, and as much again at random.
const REST_MS: u64 = 300;
const BYTES: usize = 4096;
const DAY: u64 = 100;

/// All tools, one after the other.
pub(crate) fn run(lab: &mut Lab, args: &Args, place: &End) -> Result<Sheet> {
    let head = ["tool", "files", "p50 ms", "p90 ms", "p99 ms", "max ms", "beyond its quiet time: p50", "p99", "peak MiB"];
    let mut sheet = Sheet {
        case: "latency",
        title: format!("From close(2) to visible on the other side, files of {BYTES} bytes one at a time, idle before each."),
        head: head.map(str::to_owned).to_vec(),
        rows: Vec::new(),
        runs: Vec::new(),
        faults: Vec::new(),
    };
    for tool in args.tools(Tool::all(&args.driftless)) {
        let files = (if matches!(tool, Tool::Driftless(_)) { FILES } else { FILES_OF_PEERS }) / args.scale;
        let pair = Pair::start(lab, &tool, place)?;
        let mut lags = lags(&pair, files.max(1)).with_context(|| tool.name())?;
        let taken = pair.end()?;
        let in_order = lags.clone();
        lags.sort_by(f64::total_cmp);
        let [p50, p90, p99, max] = [500, 900, 990, 1000].map(|share| per_mille(&lags, share));
        let quiet = tool.quiet_ms();
        let numbers = [p50, p90, p99, max, p50 - quiet, p99 - quiet].map(|number| format!("{number:.0}"));
        let row = [tool.name().to_owned(), files.to_string()].into_iter().chain(numbers).chain([joined(taken.peaks())]);
        sheet.rows.push(row.collect());
        sheet.runs.push(json!({"tool": tool.name(), "lags_ms": in_order, "peak_mib": taken.peaks()}));
    }
    Ok(sheet)
}

fn lags(pair: &Pair, files: u64) -> Result<Vec<f64>> {
    let mut random = Stream::new(files);
    let mut lags = Vec::new();
    for number in 0..files {
        let day = format!("2026/11/{:02}", 1 + number / DAY);
        let name = format!("{day}/{number:04}.dat");
        // The folder is not what is measured.
        if number % DAY == 0 {
            fs::create_dir_all(pair.roots[0].join(&day))?;
            fs::write(pair.roots[0].join(&day).join("first"), "x")?;
            arrived(&pair.roots[1].join(&day).join("first"))?;
        }
        // Idle before each, and at any moment of whatever happens in turns.
        std::thread::sleep(Duration::from_millis(REST_MS + random.below(REST_MS)));
        let content = noise(number, BYTES);
        fs::write(pair.roots[0].join(&name), content)?;
        let closed = Instant::now();
        let there = arrived(&pair.roots[1].join(&name))?;
        lags.push((there - closed).as_secs_f64() * 1000.0);
    }
    Ok(lags)
}
