//! Serving, this machine's identity, and other machines on the command line.

use super::StateArgs;
use crate::values::{self, Grant, NamedRoot, Retention};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Subcommand};
use std::net::SocketAddr;
use sync_core::pairing::Code;
use sync_core::peer::{Address, Id, Name};

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen, IP:PORT; port 0 takes any that is free
    #[arg(long, value_name = "ADDR", required_unless_present = "once")]
    pub(crate) listen: Option<SocketAddr>,
    /// A folder, and the name by which peers ask for it; may be repeated
    #[arg(long = "root", value_name = "NAME=PATH", required = true,
          value_parser = OsStringValueParser::new().try_map(values::named_root))]
    pub(crate) roots: Vec<NamedRoot>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// How long replaced and deleted versions are kept here (7d, 12h, 30m, 90s), or off
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = values::retention)]
    pub(crate) keep_versions: Retention,
    /// One session with the machine of this id, which knows this side by what is printed: for ssh
    #[arg(long, value_name = "ID", hide = true)]
    pub(crate) once: Option<Id>,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `id`.
#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `peer`.
#[derive(Debug, Args)]
pub(crate) struct PeerArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) action: PeerAction,
}

/// What can be done with peers.
#[derive(Debug, Subcommand)]
pub(crate) enum PeerAction {
    /// Add a machine that was not known, or addresses and grants of one that is
    #[command(after_help = "Example:\n  driftless peer add web2 ID web2.example.net:4477 203.0.113.9:4477 --grant hot=two-way")]
    Add(PeerAddArgs),
    /// List the known machines
    #[command(after_help = "Example:\n  driftless peer list")]
    List(PeerListArgs),
    /// Forget a machine: it is refused from now on
    #[command(after_help = "Example:\n  driftless peer remove web2")]
    Remove(PeerRemoveArgs),
}

impl PeerAction {
    /// Is the result to be JSON lines?
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            PeerAction::Add(args) => args.json,
            PeerAction::List(args) => args.json,
            PeerAction::Remove(args) => args.json,
        }
    }
}

/// Arguments of `peer add`.
#[derive(Debug, Args)]
pub(crate) struct PeerAddArgs {
    /// What the machine is called here
    pub(crate) name: Name,
    /// Its id, as `driftless id` prints it there
    pub(crate) id: Id,
    /// Where it listens, HOST:PORT; all are tried at once
    #[arg(value_name = "ADDR")]
    pub(crate) addresses: Vec<Address>,
    /// What it may do here with a folder: two-way, send-only, receive-only or no-delete; may be repeated
    ///
    /// Without it: nothing.
    #[arg(long = "grant", value_name = "FOLDER=MODE", value_parser = values::grant)]
    pub(crate) grants: Vec<Grant>,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `peer list`.
#[derive(Debug, Args)]
pub(crate) struct PeerListArgs {
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `peer remove`.
#[derive(Debug, Args)]
pub(crate) struct PeerRemoveArgs {
    /// What the machine is called here
    pub(crate) name: Name,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `pair`.
#[derive(Debug, Args)]
pub(crate) struct PairArgs {
    /// The code that the other machine shows
    #[arg(required_unless_present = "listen", conflicts_with = "listen", requires = "address")]
    pub(crate) code: Option<Code>,
    /// Where the other machine waits, HOST:PORT
    #[arg(value_name = "ADDR")]
    pub(crate) address: Option<Address>,
    /// Show a code, and wait for the other machine at this IP:PORT
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the other machine listens from now on, HOST:PORT, if that is not where it showed its code; may be repeated
    ///
    /// Only such addresses are stored. A machine on which an agent runs shows its code at another port than the agent's. On the machine
    /// that shows the code: where the one on which it is typed listens.
    #[arg(long = "address", value_name = "ADDR")]
    pub(crate) addresses: Vec<Address>,
    /// What the other machine is called here; without it, what its host is called
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// What it may do here with a folder: two-way, send-only, receive-only or no-delete; may be repeated
    ///
    /// Without it: nothing.
    #[arg(long = "grant", value_name = "FOLDER=MODE", value_parser = values::grant)]
    pub(crate) grants: Vec<Grant>,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}
