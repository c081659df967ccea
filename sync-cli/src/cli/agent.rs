//! The agent on the command line.

use clap::{Args, Subcommand, ValueHint};
use std::path::PathBuf;
use sync_core::peer::Name;

/// Arguments of `agent`.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) action: AgentAction,
}

/// What can be done with the agent.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentAction {
    /// Write a first configuration, with every key explained; never over one that is there
    #[command(after_help = "Examples:\n  driftless agent init\n  driftless agent init --config /etc/driftless/agent.toml")]
    Init(AgentConfigArgs),
    /// Run the agent in the foreground, until a signal or `driftless agent stop` ends it
    ///
    /// Says on stdout when it answers, and then on stderr what happens, one line each. TERM and Ctrl-C end it, a second one at once; HUP
    /// has it read its configuration anew. One agent runs for each DRIFTLESS_HOME. It tells systemd when it is ready (Type=notify-reload)
    /// and that it is alive (WatchdogSec=).
    ///
    /// Exits with 0 after TERM or stop, with 130 after Ctrl-C, with 64 if the configuration makes no sense.
    #[command(after_help = "Examples:\n  driftless agent run\n  driftless agent run --config /etc/driftless/agent.toml")]
    Run(AgentConfigArgs),
    /// Show how the agent, its folders and its peers are
    ///
    /// Exits with 0 if everything is in sync, with 1 if something is left (a side is behind, a peer is not connected, a conflict is open,
    /// a folder is paused or just starting), with 2 if paths failed or a folder cannot be used, with 3 if no agent answers.
    #[command(after_help = "Examples:\n  driftless agent status\n  driftless agent status --json")]
    Status(AgentAskArgs),
    /// Stop exchanging a folder, or all of them, until `resume` or the agent's end
    #[command(after_help = "Examples:\n  driftless agent pause hot\n  driftless agent pause")]
    Pause(AgentFolderArgs),
    /// Take up a paused folder, or all of them, again
    #[command(after_help = "Examples:\n  driftless agent resume hot\n  driftless agent resume")]
    Resume(AgentFolderArgs),
    /// Have a folder, or all of them, scanned in full and exchanged with all its peers now
    #[command(
        after_help = "Examples:\n  driftless agent sync hot\n  driftless agent sync\n  driftless agent sync hot --allow-delete"
    )]
    Sync(AgentSyncArgs),
    /// Have a folder begin anew from the files that are there, whose state or disk was lost, replaced, or brought back from a backup
    ///
    /// Nothing is deleted by it, here or on any peer: equal files merge, what only one side has goes to the others, differing files become
    /// conflicts, and what was deleted elsewhere meanwhile may come back. Be sure that the disk of the folder is mounted: an empty mount
    /// point would be filled with all that the peers have. Waits until the folder is open again.
    #[command(after_help = "Example:\n  driftless agent rejoin hot")]
    Rejoin(AgentRejoinArgs),
    /// Have the agent read its configuration anew; one that makes no sense changes nothing
    #[command(after_help = "Example:\n  driftless agent reload")]
    Reload(AgentAskArgs),
    /// End the agent, and wait until it has ended
    #[command(after_help = "Example:\n  driftless agent stop")]
    Stop(AgentAskArgs),
}

impl AgentAction {
    /// Is the result to be JSON lines?
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            AgentAction::Init(args) | AgentAction::Run(args) => args.json,
            AgentAction::Pause(args) | AgentAction::Resume(args) => args.json,
            AgentAction::Sync(args) => args.folder.json,
            AgentAction::Rejoin(args) => args.json,
            AgentAction::Status(args) | AgentAction::Reload(args) | AgentAction::Stop(args) => args.json,
        }
    }
}

/// Arguments of `agent init` and `agent run`.
#[derive(Debug, Args)]
pub(crate) struct AgentConfigArgs {
    /// The configuration; without it, agent.toml in DRIFTLESS_HOME, or else in /etc/driftless
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `agent sync`.
#[derive(Debug, Args)]
pub(crate) struct AgentSyncArgs {
    #[command(flatten)]
    pub(crate) folder: AgentFolderArgs,
    /// Lift the deletion guard of the folder for the next exchange that deletes anything, within an hour
    #[arg(long, requires = "folder")]
    pub(crate) allow_delete: bool,
}

/// Arguments of `agent rejoin`.
#[derive(Debug, Args)]
pub(crate) struct AgentRejoinArgs {
    /// The folder's name in the configuration
    pub(crate) folder: Name,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `agent pause` and `agent resume`.
#[derive(Debug, Args)]
pub(crate) struct AgentFolderArgs {
    /// The folder's name in the configuration; without it, all folders
    pub(crate) folder: Option<Name>,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `agent status`, `agent reload` and `agent stop`.
#[derive(Debug, Args)]
pub(crate) struct AgentAskArgs {
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}
