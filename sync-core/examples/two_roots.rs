//! Synchronises two folders with the library alone: `cargo run -p sync-core --example two_roots -- A B`
#![allow(clippy::print_stdout, reason = "a command-line tool")]

use std::path::{Path, PathBuf};
use sync_core::io::sync::{Options, Report, Sync, SyncError};
use sync_core::plan::Item;
use sync_core::report::{Done, Monitor, Problem};

/// Is told of everything that happens, from any thread; may stop the run.
struct Printer;

impl Monitor for Printer {
    fn item(&self, item: &Item, here: usize, done: Done) {
        println!("{}: {:?} {}: {done:?}", ["A", "B"][here], item.verb, item.path);
    }
    fn problem(&self, problem: &Problem) {
        println!("cannot {} {}: {}", problem.step, problem.path, problem.error);
    }
}

/// `None`: the plan would have deleted too much, and nothing was changed.
pub(crate) fn synchronise(a: &Path, b: &Path, most_deletions: u64) -> Result<Option<Report>, SyncError> {
    let mut sync = Sync::open(a, b, Options::standard(), &Printer)?;
    let plan = sync.plan(&Printer, &mut |side, item| println!("{side:?} is to {:?} {}", item.verb, item.path))?;
    if plan.totals.iter().any(|totals| totals.deleted > most_deletions) {
        return Ok(None);
    }
    sync.apply(&Printer).map(Some)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let roots: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [a, b] = &roots[..] else { return Err("give two folders".into()) };
    match synchronise(a, b, 100)? {
        Some(report) => println!("in sync: {}, {} paths failed", report.in_sync, report.problems.len()),
        None => println!("more than 100 paths would be deleted: nothing was changed"),
    }
    Ok(())
}
