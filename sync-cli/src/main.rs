//! The command `driftless`: parses, runs one command, and ends with its exit code.
//!
//! Everything it knows of synchronisation comes from `sync-core`; here are words, streams and questions.

mod ask;
mod bridge;
mod cli;
mod commands;
mod exit;
mod glance;
mod home;
mod json;
mod keeper;
mod location;
mod monitor;
mod offer;
mod output;
mod progress;
mod reach;
mod render;
mod run;
mod signals;
mod tally;
mod values;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let exit = match cli::Cli::try_parse() {
        Ok(cli) => commands::run(cli.command),
        Err(message) => output::clap_message(&message),
    };
    exit.into()
}
