//! Runs driftless beside cp, rsync and unison on the same trees in one run; prints a table per case and writes JSON.
//!
//! README.md beside this crate says what the cases are and which traps a measurement must avoid.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program that prints, measures time and makes trees of its own"
)]

mod agents;
mod archive;
mod args;
mod cases;
mod edits;
mod goodput;
mod helper;
mod lab;
mod links;
mod measure;
mod report;
mod tool;
mod walk;

use anyhow::{Result, bail};
use args::Args;
use lab::Lab;
use std::path::Path;
use std::time::Duration;

fn main() -> Result<()> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let texts: Vec<_> = words.iter().map(|word| word.to_str().unwrap_or("")).collect();
    match texts[..] {
        ["measure", "--log", _, "--deadline", seconds, "--", _, ..] => {
            helper::run(Path::new(&words[2]), Duration::from_secs(seconds.parse()?), &words[6..])
        }
        ["walk", ..] => walk::print(&words[1..]),
        ["--help" | "-h", ..] => {
            println!("{}", args::HELP);
            Ok(())
        }
        _ => bench(&Args::parse(&words)?),
    }
}

fn bench(args: &Args) -> Result<()> {
    let tables = if args.cases.is_empty() { Vec::new() } else { on_trees(args)? };
    let sheets = if args.links.is_empty() { Vec::new() } else { links::run(args)? };
    let agents = if args.agents.is_empty() { Vec::new() } else { agents::run(args)? };
    let days = if args.archive.is_empty() { Vec::new() } else { archive::run(args)? };
    let sheets = [sheets, agents, days].concat();
    let grid = args.goodput.then(|| goodput::run(args.rounds)).transpose()?;
    if let Some(grid) = &grid {
        println!("{}", grid.markdown());
    }
    let path = report::write_json(args, &tables, grid.as_ref(), &sheets)?;
    eprintln!("wrote {}", path.display());
    let of_links = sheets.into_iter().flat_map(|sheet| sheet.faults);
    let faults = tables.iter().flat_map(report::Table::faults).chain(grid.into_iter().flat_map(|grid| grid.faults));
    let faults = faults.chain(of_links).collect::<Vec<_>>();
    if !faults.is_empty() {
        bail!("{} of the runs went wrong:\n{}", faults.len(), faults.join("\n"));
    }
    Ok(())
}

fn on_trees(args: &Args) -> Result<Vec<report::Table>> {
    let mut lab = Lab::open(args, cases::needs(&args.cases, args))?;
    let tables = run_cases(&mut lab, args);
    lab.close()?;
    tables
}

fn run_cases(lab: &mut Lab, args: &Args) -> Result<Vec<report::Table>> {
    let mut tables = Vec::new();
    for case in &args.cases {
        let table = cases::run(*case, lab, args)?;
        println!("{}", report::markdown(&table));
        tables.push(table);
    }
    Ok(tables)
}
