//! `driftless completions`: shell completions from the definition of the command line.

use crate::cli::{Cli, CompletionsArgs};
use crate::exit::Exit;
use crate::output::Output;
use anyhow::Result;
use clap::CommandFactory;

/// Prints them.
pub(super) fn run(args: &CompletionsArgs, output: &Output) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "driftless", &mut script);
    output.bytes(&script);
    Ok(Exit::InSync)
}
