//! `driftless man`: manual pages from the definition of the command line.

use crate::cli::{Cli, ManArgs};
use crate::exit::Exit;
use crate::output::Output;
use crate::render;
use anyhow::{Context, Result};
use clap::CommandFactory;

/// Prints the page of the command, or writes one page for it and for each of its commands.
pub(super) fn run(args: &ManArgs, output: &Output) -> Result<Exit> {
    match &args.dir {
        Some(dir) => {
            clap_mangen::generate_to(Cli::command(), dir)
                .with_context(|| format!("cannot write the manual pages to {}", render::root(dir)))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).context("cannot make the manual page")?;
            output.bytes(&page);
        }
    }
    Ok(Exit::InSync)
}
