//! The commands, one module each, and what all of them share: errors are told and mapped in one place.

mod agent;
mod apart;
mod archive;
mod completions;
mod conflicts;
mod doctor;
mod held;
mod id;
mod man;
mod once;
mod pair;
mod peer;
mod reached;
mod resolve;
mod restore;
mod serve;
mod status;
mod sync;
mod versions;
mod watch;

use crate::cli::{Command, RunArgs};
use crate::exit::{self, Exit};
use crate::output::Output;
use anyhow::Result;
use serde::Serialize;

/// Runs one command to its exit code.
pub(crate) fn run(command: Command) -> Exit {
    let output = Output::new(wants_json(&command));
    let exit = dispatch(command, &output).unwrap_or_else(|error| {
        output.talk_safely(&format!("driftless: {}", exit::words(&error)));
        Exit::of_error(&error)
    });
    match output.finish() {
        Ok(()) => exit,
        Err(error) => {
            output.talk_safely(&format!("driftless: cannot write the result: {error}"));
            Exit::CouldNotRun
        }
    }
}

fn dispatch(command: Command, output: &Output) -> Result<Exit> {
    match command {
        Command::Sync(args) => beside_agent(&args.run, sync::run(&args, output)),
        Command::Watch(args) => beside_agent(&args.run, watch::run(&args, output)),
        Command::Status(args) => beside_agent(&args.run, status::run(&args, output)),
        Command::Conflicts(args) => listed(output, conflicts::run(&args, output)),
        Command::Resolve(args) => listed(output, resolve::run(&args, output)),
        Command::Versions(args) => listed(output, versions::run(&args, output)),
        Command::Restore(args) => listed(output, restore::run(&args, output)),
        Command::Serve(args) => listed(output, serve::run(&args, output)),
        Command::Id(args) => listed(output, id::run(&args, output)),
        Command::Peer(args) => listed(output, peer::run(&args, output)),
        Command::Pair(args) => listed(output, pair::run(&args, output)),
        Command::Agent(args) => listed(output, agent::run(&args, output)),
        Command::Doctor(args) => apart::apart(output, || listed(output, doctor::run(&args, output))),
        Command::Archive(args) => archive::run(&args, output),
        Command::Completions(args) => completions::run(&args, output),
        Command::Man(args) => man::run(&args, output),
    }
}

/// A root that an agent has open is synchronised by that: whoever comes upon it is told so.
fn beside_agent(args: &RunArgs, ended: Result<Exit>) -> Result<Exit> {
    ended.map_err(|error| reached::held_of(error, [&args.a, &args.b]))
}

fn wants_json(command: &Command) -> bool {
    match command {
        Command::Sync(args) => args.run.json,
        Command::Watch(args) => args.run.json,
        Command::Status(args) => args.run.json,
        Command::Conflicts(args) => args.at.json,
        Command::Resolve(args) => args.at.json,
        Command::Versions(args) => args.at.json,
        Command::Restore(args) => args.at.json,
        Command::Serve(args) => args.json,
        Command::Id(args) => args.json,
        Command::Peer(args) => args.action.wants_json(),
        Command::Pair(args) => args.json,
        Command::Agent(args) => args.action.wants_json(),
        Command::Doctor(args) => args.json,
        Command::Archive(args) => args.action.wants_json(),
        Command::Completions(_) | Command::Man(_) => false,
    }
}

/// The last JSON line of the commands that do not synchronise.
#[derive(Debug, Default, Serialize)]
#[serde(tag = "event", rename = "summary")]
struct Summary {
    /// How many conflicts, versions or peers were listed, settled, restored, added or removed; how many connections were served;
    /// how many requests an agent took.
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Ends the JSON lines of a command that failed with a summary too.
fn listed(output: &Output, result: Result<Exit>) -> Result<Exit> {
    if let Err(error) = &result {
        output.event(&Summary { error: Some(exit::words(error)), ..Summary::default() });
    }
    result
}
