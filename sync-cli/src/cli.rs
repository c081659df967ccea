//! The command line: what can be said, and its help. Values are made by `values`, meaning is given by `commands`.

mod agent;
mod archive;
mod machines;

pub(crate) use agent::{AgentAction, AgentArgs, AgentConfigArgs};
pub(crate) use archive::{
    ArchiveAction, ArchiveArgs, ArchiveClaimArgs, ArchiveForgetArgs, ArchiveRestoreArgs, ArchiveRootArgs, ArchiveRuleArgs,
    ArchiveVerifyArgs,
};
pub(crate) use machines::{IdArgs, PairArgs, PeerAction, PeerAddArgs, PeerArgs, PeerRemoveArgs, ServeArgs};

use crate::location::Location;
use crate::values::{self, Rate, Retention};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use std::path::PathBuf;
use std::time::Duration;
use sync_core::io::sync::MaxDelete;
use sync_core::path::RelPath;
use sync_core::peer::Name;

const ABOUT_CODES: &str = "\
Exit codes:
  0    in sync, or done
  1    finished, and something was left: open conflicts, or changes that were only looked at
  2    finished, and some paths failed
  3    could not run or finish: a guard stopped it, a root is missing, a peer is unreachable or refused
  64   the command line, an ignore rule or a configuration makes no sense
  130  interrupted; what was done is recorded

Names of files are printed with control characters and invalid UTF-8 escaped; --json is the exact form.

Example:
  driftless sync /srv/photos /mnt/backup/photos";

/// Synchronises folders without losing what anybody wrote
#[derive(Debug, Parser)]
#[command(name = "driftless", version, after_help = ABOUT_CODES)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Synchronise two roots, both ways
    ///
    /// On a terminal the plan is shown and one question is asked; with --batch nothing is asked.
    #[command(after_help = "Examples:\n  driftless sync /srv/photos /mnt/backup/photos\n  \
                            driftless sync --batch --conflicts keep-both --path 2026/03 /srv/a /srv/b\n  \
                            driftless sync /srv/hot quic://web2.example.net/hot\n  \
                            driftless sync /srv/hot me@web2.example.net:/srv/hot")]
    Sync(SyncArgs),
    /// Keep two roots in sync, both ways, until a signal ends it
    ///
    /// Listens for changes in both roots, on this machine and on the other one, and brings each over as soon as it is quiet. Nothing is
    /// asked: conflicts without a policy stay as they are, and each is told once. A root that goes away, or a machine that cannot be
    /// reached any more, is waited for; nothing counts as deleted meanwhile. Deletions beyond --max-delete, those of an hour together,
    /// end it with 3; --allow-delete lifts that until both roots are in sync for the first time. Where changes cannot be listened for,
    /// all is looked at every 30 seconds, and seldom (once an hour) anyway.
    ///
    /// Ctrl-C finishes what has begun and ends it with 130, a second one at once; TERM ends it with 0 if both roots were in sync, with 1
    /// or 2 if conflicts or failed paths were left. So does the end of the pipe to which it writes.
    #[command(after_help = "Examples:\n  driftless watch /srv/photos /mnt/backup/photos\n  \
                            driftless watch --conflicts keep-both /srv/hot quic://web2.example.net/hot\n  \
                            driftless watch --quiet 2s /srv/hot me@web2.example.net:/srv/hot")]
    Watch(WatchArgs),
    /// Show what a sync would do; no file of yours is changed
    ///
    /// What an interrupted run left is completed, and what was seen is remembered.
    ///
    /// Exits with 0 if the roots are in sync, with 1 if a sync would have something to do.
    #[command(after_help = "Example:\n  driftless status /srv/photos /mnt/backup/photos")]
    Status(StatusArgs),
    /// List the open conflicts of a root
    #[command(after_help = "Example:\n  driftless conflicts /srv/photos")]
    Conflicts(ConflictsArgs),
    /// Decide open conflicts of a root; the next sync carries it out
    #[command(after_help = "Examples:\n  driftless resolve /srv/photos 2026/03 notes.txt --keep newer\n  \
                            driftless resolve /srv/photos . --keep both")]
    Resolve(ResolveArgs),
    /// List the kept versions of a root: what a sync replaced or deleted there
    #[command(after_help = "Example:\n  driftless versions /srv/photos 2026/03/a.jpg")]
    Versions(VersionsArgs),
    /// Bring a kept version back to its path
    ///
    /// What stands at the path now is kept in turn. The next sync carries the restored version to the other root.
    #[command(after_help = "Examples:\n  driftless restore /srv/photos 2026/03/a.jpg\n  \
                            driftless restore /srv/photos 2026/03/a.jpg --version 17")]
    Restore(RestoreArgs),
    /// Export roots to known machines, until a signal ends it
    ///
    /// Each machine gets what `peer add --grant` or `pair --grant` gave it, and is known as soon as it is added. `driftless sync`
    /// reaches the roots as quic://HOST:PORT/NAME. TERM ends it with 0; sessions under way finish what they have begun.
    #[command(after_help = "Examples:\n  driftless peer add laptop ID --grant hot=two-way\n  \
                            driftless serve --listen 0.0.0.0:4477 --root hot=/srv/hot --root cold=/srv/cold")]
    Serve(ServeArgs),
    /// Print this machine's id, and nothing else
    ///
    /// The id is a fingerprint of the machine's key, which is made on first use and kept in DRIFTLESS_HOME.
    #[command(after_help = "Example:\n  driftless id")]
    Id(IdArgs),
    /// Add, list and remove the machines that this one knows
    ///
    /// They stand in peers.toml in DRIFTLESS_HOME. `driftless pair` adds them on both machines at once.
    #[command(after_help = "Examples:\n  driftless peer add web2 ID web2.example.net:4477 --grant hot=two-way\n  \
                            driftless peer list\n  driftless peer remove web2")]
    Peer(PeerArgs),
    /// Make two machines know each other by a short one-time code
    ///
    /// One machine shows the code and waits for ten minutes; on the other one it is typed. A wrong code burns it. Each machine
    /// stores the other one's id in peers.toml.
    #[command(after_help = "Examples:\n  driftless pair --listen 0.0.0.0:4477 --grant hot=two-way\n  \
                            driftless pair 1234-5671 web2.example.net:4477 --name web2")]
    Pair(PairArgs),
    /// Run the agent, which keeps folders in sync with other machines for as long as it runs; ask it and steer it
    ///
    /// It reads agent.toml in DRIFTLESS_HOME, or in /etc/driftless, and answers at a socket in DRIFTLESS_HOME. Every command but `run`
    /// and `init` exits with 3 if no agent answers.
    #[command(after_help = "Examples:\n  driftless agent init\n  driftless agent run\n  driftless agent status\n  \
                            driftless agent pause hot")]
    Agent(AgentArgs),
    /// Check this machine, its folders and its links to others, and say what to do about what is wrong
    ///
    /// Looks at every folder of the configuration, and at the roots that are named: disk, marker, state, space, watches; at keys, clock
    /// and limits of the system; and at the links. An agent that runs tells of its links in both directions; without one, every address
    /// of every peer is called. Nothing is changed, and nothing is waited for without end.
    ///
    /// Exits with 0 if all is well, with 1 if there are warnings, with 2 if something is broken.
    #[command(after_help = "Examples:\n  driftless doctor\n  driftless doctor --verbose\n  driftless doctor /srv/photos --json")]
    Doctor(DoctorArgs),
    /// Move old days to cold storage, and back; each leaves a link, so that its path stays what it is
    ///
    /// Needs no agent and no other machine. Other copies of the folder do not notice: nothing is deleted, created or sent.
    #[command(after_help = "Examples:\n  driftless archive init-cold /mnt/cold\n  \
                            driftless archive plan --hot /srv/hot --cold /mnt/cold --older-than 3d\n  \
                            driftless archive run --hot /srv/hot --cold /mnt/cold --older-than 3d\n  \
                            driftless archive restore /srv/hot 2026/03/05")]
    Archive(ArchiveArgs),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  driftless completions bash > /etc/bash_completion.d/driftless")]
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them to a folder
    #[command(after_help = "Examples:\n  driftless man | man -l -\n  driftless man --dir /usr/local/share/man/man1")]
    Man(ManArgs),
}

/// Arguments of `sync`.
#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Ask no questions
    #[arg(long)]
    pub(crate) batch: bool,
    /// Print everything that would be done, and change no file of yours
    ///
    /// What an interrupted run left is completed, and what was seen is remembered.
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    /// Print each item when it is done
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// How long nothing more must change before a change is brought over (200ms, 2s); longer for what goes on changing
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = sync_agent::values::duration)]
    pub(crate) quiet: Duration,
    #[command(flatten)]
    pub(crate) _asks_nothing: AsksNothing,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) _asks_nothing: AsksNothing,
    /// It only looks anyway
    #[arg(long = "dry-run", short = 'n', hide = true)]
    pub(crate) _dry_run: bool,
}

/// What may be said to commands that never ask, because it is true of them.
#[derive(Debug, Args)]
pub(crate) struct AsksNothing {
    /// No question is asked anyway
    #[arg(long = "batch", hide = true)]
    pub(crate) _batch: bool,
}

/// What may be said of attributes, because every run does it.
#[derive(Debug, Args)]
pub(crate) struct AttributeArgs {
    /// Permissions are synchronised anyway
    #[arg(long = "perms", hide = true)]
    pub(crate) _perms: bool,
    /// Modification times are synchronised anyway
    #[arg(long = "times", hide = true)]
    pub(crate) _times: bool,
}

/// What `sync`, `watch` and `status` share.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// First root: a path, or a place on another machine
    #[arg(help = "First root: a path, quic://HOST[:PORT]/FOLDER[/SUB], ssh://[USER@]HOST[:PORT]/PATH or [USER@]HOST:PATH")]
    #[arg(value_name = "A", value_hint = ValueHint::DirPath,
          value_parser = OsStringValueParser::new().try_map(Location::parse))]
    pub(crate) a: Location,
    /// Second root, likewise
    #[arg(value_name = "B", value_hint = ValueHint::DirPath,
          value_parser = OsStringValueParser::new().try_map(Location::parse))]
    pub(crate) b: Location,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
    /// Only this path below the roots, and what is below it; may be repeated
    #[arg(long = "path", value_name = "SUB",
          value_parser = OsStringValueParser::new().try_map(values::below))]
    pub(crate) paths: Vec<RelPath>,
    /// Leave out what matches, in gitignore syntax, beside the rules in .driftlessignore; may be repeated
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    pub(crate) ignore: Vec<String>,
    /// What becomes of paths that both sides changed; the losing version is kept
    ///
    /// Without it they stay as they are, and on a terminal you are asked.
    #[arg(long, value_name = "POLICY", conflicts_with = "force")]
    pub(crate) conflicts: Option<ConflictChoice>,
    /// Mirror this side: every difference is decided for it
    #[arg(long, value_name = "SIDE")]
    pub(crate) force: Option<SideChoice>,
    /// Stop before anything is changed if more paths of a root would be deleted: a number, or a share of its paths
    #[arg(long, value_name = "N|N%", default_value = "50%", value_parser = values::max_delete)]
    pub(crate) max_delete: MaxDelete,
    /// Delete as much as it takes, this time
    #[arg(long)]
    pub(crate) allow_delete: bool,
    /// How long replaced and deleted versions are kept (7d, 12h, 30m, 90s), or off
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = values::retention)]
    pub(crate) keep_versions: Retention,
    /// Read every file again, whatever its times say
    #[arg(long)]
    pub(crate) checksum: bool,
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Accept a root whose state or marker was lost, or came back from a backup, as a new replica
    ///
    /// Equal files merge, differing ones become conflicts, and what was deleted may come back; nothing is lost.
    #[arg(long)]
    pub(crate) rejoin: bool,
    #[command(flatten)]
    pub(crate) _attributes: AttributeArgs,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// How content crosses a link.
#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// Send no more than this to another machine, and ask it to do the same: KiB a second, or with K, M or G; 0 for no limit
    ///
    /// It counts all that the two sides tell each other, lists of files and contents. What the network adds (some 4 %) and what is
    /// sent again after losses comes on top. Between two folders of this machine nothing crosses a link, and nothing is limited.
    #[arg(long, value_name = "RATE", default_value = "0", hide_default_value = true, value_parser = values::rate)]
    pub(crate) bwlimit: Rate,
    /// Pack content on its way to another machine: where that pays, always where it becomes shorter at all, or never
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    pub(crate) compress: CompressChoice,
    /// Send changed files whole, without comparing them with what the other machine has
    #[arg(long)]
    pub(crate) whole_file: bool,
}

/// When content is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressChoice {
    /// Where it becomes shorter by a tenth
    Auto,
    /// Wherever it becomes shorter at all
    On,
    /// Never
    Off,
}

/// How roots on other machines are reached.
#[derive(Debug, Args)]
pub(crate) struct ReachArgs {
    /// Which known peer answers at a quic:// root; if both roots are such, give it twice
    ///
    /// Without it the peer is found by the address, as `driftless peer add` was told it.
    #[arg(long = "peer", value_name = "NAME")]
    pub(crate) peers: Vec<Name>,
    /// The program that reaches other machines for roots behind ssh, with its arguments
    #[arg(long, value_name = "CMD", default_value = "ssh -T", value_parser = values::words)]
    pub(crate) rsh: values::Words,
    /// What driftless is called on the machine behind ssh, as the shell there reads it
    #[arg(long, value_name = "CMD", default_value = "driftless")]
    pub(crate) remote_command: String,
}

/// Where the state is.
#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// Keep the states in this folder instead of .driftless in each root
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// One root, its state, and the form of the result.
#[derive(Debug, Args)]
pub(crate) struct RootArgs {
    /// A root that was synchronised before
    #[arg(value_name = "ROOT", value_hint = ValueHint::DirPath,
          value_parser = OsStringValueParser::new().try_map(values::local_root))]
    pub(crate) root: PathBuf,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `conflicts`.
#[derive(Debug, Args)]
pub(crate) struct ConflictsArgs {
    #[command(flatten)]
    pub(crate) at: RootArgs,
}

/// Arguments of `resolve`.
#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    #[command(flatten)]
    pub(crate) at: RootArgs,
    /// Paths below the root, each with all conflicts below it; . for the whole root
    #[arg(value_name = "PATHSPEC", required = true,
          value_parser = OsStringValueParser::new().try_map(values::below))]
    pub(crate) paths: Vec<RelPath>,
    /// Which version wins; the other one is kept
    #[arg(long, value_name = "VERSION")]
    pub(crate) keep: KeepChoice,
}

/// Arguments of `versions`.
#[derive(Debug, Args)]
pub(crate) struct VersionsArgs {
    #[command(flatten)]
    pub(crate) at: RootArgs,
    /// Only this path below the root, and what is below it
    #[arg(value_name = "PATH", value_parser = OsStringValueParser::new().try_map(values::below))]
    pub(crate) path: Option<RelPath>,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    pub(crate) at: RootArgs,
    /// The path below the root
    #[arg(value_name = "PATH", value_parser = OsStringValueParser::new().try_map(values::below))]
    pub(crate) path: RelPath,
    /// Number of the version, as `driftless versions` lists it; without it the newest one
    #[arg(long, value_name = "ID")]
    pub(crate) version: Option<i64>,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Roots to look at beside the folders of the configuration
    #[arg(value_name = "ROOT", value_hint = ValueHint::DirPath,
          value_parser = OsStringValueParser::new().try_map(values::local_root))]
    pub(crate) roots: Vec<PathBuf>,
    /// The configuration; without it, agent.toml in DRIFTLESS_HOME, or else in /etc/driftless
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Tell what is fine, too
    #[arg(long, short)]
    pub(crate) verbose: bool,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write the pages of all commands to this folder
    #[arg(long, value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
}

/// What becomes of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConflictChoice {
    /// Leave both versions where they are
    Skip,
    /// Keep both: one under the name, the other beside it
    KeepBoth,
    /// The newer modification time wins
    Newer,
    /// The older modification time wins
    Older,
    /// The first root wins
    A,
    /// The second root wins
    B,
}

/// One of the roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SideChoice {
    /// The first root
    A,
    /// The second root
    B,
}

/// Which version of a conflict wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeepChoice {
    /// The one in this root
    Local,
    /// The other root's
    Remote,
    /// The one with the newer modification time
    Newer,
    /// Both, one of them as a conflict copy
    Both,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("driftless {}", command.get_name())), "{}", command.get_name());
            for action in command.get_subcommands() {
                let help = action.get_after_help().map(ToString::to_string).unwrap_or_default();
                let words = format!("driftless {} {}", command.get_name(), action.get_name());
                assert!(help.contains(&words), "{words}");
            }
        }
    }
}
