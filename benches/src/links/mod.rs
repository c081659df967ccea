//! driftless, rsync and unison with the second root behind a connection: a server on the other side, real processes, in
//! network namespaces of their own.

mod bad;
mod case;
mod fairness;
mod memory;
mod net;
mod pair;
mod plain;
mod row;
pub(crate) mod sheet;
mod tool;

pub(crate) use case::Case;

use crate::args::Args;
use crate::lab::Lab;
use anyhow::{Context as _, Result};
use net::Net;
use sheet::Sheet;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Runs the cases and prints a table for each; nothing, and loudly, where there are no namespaces to be had.
pub(crate) fn run(args: &Args) -> Result<Vec<Sheet>> {
    if let Err(error) = Net::loopback() {
        eprintln!("SKIPPED: no network namespaces here, so nothing was measured over a link: {error:#}");
        return Ok(Vec::new());
    }
    clean_up_on_signals()?;
    let mut lab = Lab::open(args, case::needs(&args.links, args))?;
    let sheets = run_cases(&mut lab, args);
    lab.close()?;
    sheets
}

fn run_cases(lab: &mut Lab, args: &Args) -> Result<Vec<Sheet>> {
    let mut sheets = Vec::new();
    for case in &args.links {
        eprintln!("{}", case.name());
        for sheet in case::run(*case, lab, args)? {
            println!("{}", sheet.markdown());
            sheets.push(sheet);
        }
    }
    Ok(sheets)
}

/// Who is interrupted takes its namespaces away; the helpers end servers and clients as soon as this process is gone.
fn clean_up_on_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen to signals")?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            eprintln!("interrupted");
            net::remove_all();
            std::process::exit(130);
        }
    });
    Ok(())
}
