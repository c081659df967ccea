//! A stream of new files on both sides at once, and how far behind the other side ever is.

use super::pair::{Pair, arrived, joined};
use super::per_mille;
use super::tool::Tool;
use crate::args::Args;
use crate::lab::Lab;
use crate::links::sheet::Sheet;
use anyhow::{Context as _, Result};
use fixtures::bytes::noise;
use fixtures::linkemu::End;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Files a second on each side.
const RATE: u64 = 500;
const SECONDS: u64 = 60;
const BYTES: usize = 2048;
const FOLDER: u64 = 500;

/// All tools, one after the other.
pub(crate) fn run(lab: &mut Lab, args: &Args, place: &End) -> Result<Sheet> {
    let head = ["tool", "sides", "files", "median lag s", "p99 s", "max lag s", "CPU s", "peak MiB"];
    let mut sheet = Sheet {
        case: "burst",
        title: format!("{RATE} files of {BYTES} bytes a second, made for {} s on each side.", SECONDS / args.scale.min(SECONDS)),
        head: head.map(str::to_owned).to_vec(),
        rows: Vec::new(),
        runs: Vec::new(),
        faults: Vec::new(),
    };
    for tool in args.tools(Tool::all(&args.driftless)) {
        let files = RATE * (SECONDS / args.scale).max(1);
        let pair = Pair::start(lab, &tool, place)?;
        let sides = 1 + usize::from(tool.both_ways());
        let roots = &pair.roots;
        let mut lags = thread::scope(|scope| {
            let sides: Vec<_> =
                (0..sides).map(|from| scope.spawn(move || stream(&roots[from], &roots[1 - from], from as u64, files))).collect();
            sides.into_iter().map(|side| side.join().expect("a panic there was printed")).collect::<Result<Vec<_>>>()
        })
        .with_context(|| tool.name())?
        .concat();
        let taken = pair.end()?;
        lags.sort_by(f64::total_cmp);
        let numbers = [500, 990, 1000].map(|share| format!("{:.2}", per_mille(&lags, share)));
        let cpu: f64 = taken.samples.iter().map(|sample| sample.cpu_s).sum();
        let row = [tool.name().to_owned(), sides.to_string(), files.to_string()].into_iter().chain(numbers);
        sheet.rows.push(row.chain([format!("{cpu:.1}"), joined(taken.peaks())]).collect());
        let max = lags.last();
        sheet.runs.push(json!({"tool": tool.name(), "files": files, "max_s": max, "cpu_s": cpu, "peak_mib": taken.peaks()}));
    }
    Ok(sheet)
}

/// Makes files at a steady rate, and waits for each on the other side; seconds between the two.
fn stream(from: &Path, to: &Path, side: u64, files: u64) -> Result<Vec<f64>> {
    let name = |number: u64| format!("side{side}/{}/{number}", number / FOLDER);
    let (tell, made): (_, Receiver<Instant>) = sync_channel(usize::try_from(files)?);
    thread::scope(|scope| {
        let making = scope.spawn(move || -> Result<()> {
            let begun = Instant::now();
            for number in 0..files {
                let due = begun + Duration::from_secs(1) * u32::try_from(number)? / u32::try_from(RATE)?;
                // At that rate, and not faster; who is late makes up for it.
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let path = from.join(name(number));
                if number % FOLDER == 0 {
                    fs::create_dir_all(path.parent().context("no file is the root")?)?;
                }
                fs::write(&path, noise(side << 32 | number, BYTES))?;
                tell.send(Instant::now()).context("nobody waits for files any more")?;
            }
            Ok(())
        });
        let mut lags = Vec::new();
        for (number, closed) in made.iter().enumerate() {
            lags.push(arrived(&to.join(name(number as u64)))?.saturating_duration_since(closed).as_secs_f64());
        }
        making.join().expect("a panic there was printed")?;
        Ok(lags)
    })
}
