//! `driftless status`: what a sync would do.

use crate::cli::StatusArgs;
use crate::exit::Exit;
use crate::output::Output;
use crate::run::Run;
use anyhow::Result;

/// Prints the plan and changes no file of a user's.
pub(super) fn run(args: &StatusArgs, output: &Output) -> Result<Exit> {
    let run = Run::begin(&args.run, output, false)?;
    let looked = run.look();
    run.end(looked)
}
