//! The command line: what can be said, and its help. Values are made by `values`, meaning is given by `commands`.

use crate::location::Location;
use crate::values::{self, Grant, NamedRoot, Rate, Retention};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use sync_core::io::sync::MaxDelete;
use sync_core::pairing::Code;
use sync_core::path::RelPath;
use sync_core::peer::{Address, Id, Name};

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
    /// or 2 if conflicts or failed paths were left.
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
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
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
    /// Add a machine that was not known
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

/// Arguments of `archive`.
#[derive(Debug, Args)]
pub(crate) struct ArchiveArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) action: ArchiveAction,
}

/// What can be done with old days.
#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveAction {
    /// Put the marker of a cold root into a folder that exists: without it nothing is moved there
    ///
    /// The marker tells the disk from the empty folder that it is mounted at.
    #[command(after_help = "Example:\n  driftless archive init-cold /mnt/cold")]
    InitCold(ArchiveColdArgs),
    /// Show which days would move, and for the others why not; no file of yours is changed
    #[command(after_help = "Example:\n  driftless archive plan --hot /srv/hot --cold /mnt/cold --older-than 3d --quiet 24h")]
    Plan(ArchiveRuleArgs),
    /// Move the days whose time has come, and look after those that moved before
    ///
    /// The rule is remembered: later runs need --hot alone. Exits with 1 if something in an old day keeps it where it is, with 2 if a day
    /// could not be moved, with 3 if nothing could (the cold root is missing or has no marker, the clock jumped).
    #[command(
        after_help = "Examples:\n  driftless archive run --hot /srv/hot --cold /mnt/cold --layout %Y/%m/%d --older-than 3d\n  \
                            driftless archive run --hot /srv/hot"
    )]
    Run(ArchiveRuleArgs),
    /// Show what is archived, and what waits
    #[command(after_help = "Example:\n  driftless archive status /srv/hot")]
    Status(ArchiveRootArgs),
    /// Bring a day, or all days below a path, back from the cold root
    #[command(after_help = "Example:\n  driftless archive restore /srv/hot 2026/03/05")]
    Restore(ArchiveRestoreArgs),
    /// Use what lies in cold roots although it belongs to another folder, or is not what was archived
    ///
    /// A folder that is a copy of another one, or was brought back from a backup, leaves alone what that one has archived: after this it
    /// has it, and the other one not any more. Archived days of which the folder knows nothing any more are found by their links. Those
    /// in a cold root that is older than what was known of it count as if they were found there: nothing is deleted on other servers, and
    /// what differs becomes a conflict. With PATH: what lies in the cold root for that day counts as it is now, and what is
    /// missing in it as deleted.
    #[command(after_help = "Examples:\n  driftless archive claim /srv/hot\n  driftless archive claim /srv/hot 2026/03/05")]
    Claim(ArchiveClaimArgs),
    /// Give up archived days that are gone for good: their links go, and the next sync brings the days back from other replicas
    #[command(after_help = "Examples:\n  driftless archive forget /srv/hot 2026/03/05\n  \
                            driftless archive forget /srv/hot --cold /mnt/cold")]
    Forget(ArchiveForgetArgs),
    /// Read archived days again and tell which bytes are not those that were written
    #[command(after_help = "Examples:\n  driftless archive verify /srv/hot\n  \
                            driftless archive verify /srv/hot --repair-from /mnt/backup/hot")]
    Verify(ArchiveVerifyArgs),
}

impl ArchiveAction {
    /// Is the result to be JSON lines?
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            ArchiveAction::InitCold(args) => args.json,
            ArchiveAction::Plan(args) | ArchiveAction::Run(args) => args.json,
            ArchiveAction::Status(args) => args.json,
            ArchiveAction::Restore(args) => args.json,
            ArchiveAction::Verify(args) => args.json,
            ArchiveAction::Claim(args) => args.json,
            ArchiveAction::Forget(args) => args.json,
        }
    }
}

/// Arguments of `archive init-cold`.
#[derive(Debug, Args)]
pub(crate) struct ArchiveColdArgs {
    /// The folder, which exists
    #[arg(value_name = "COLD", value_hint = ValueHint::DirPath)]
    pub(crate) cold: PathBuf,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `archive plan` and `archive run`.
#[derive(Debug, Args)]
pub(crate) struct ArchiveRuleArgs {
    /// The root whose days move
    #[arg(long, value_name = "HOT", value_hint = ValueHint::DirPath,
          value_parser = OsStringValueParser::new().try_map(values::local_root))]
    pub(crate) hot: PathBuf,
    /// The cold root that they go to; remembered after the first run, as everything below
    #[arg(long, value_name = "COLD", value_hint = ValueHint::DirPath)]
    pub(crate) cold: Option<PathBuf>,
    /// Where days are: %Y, %m and %d, or months: %Y and %m [default: %Y/%m/%d]
    #[arg(long, value_name = "LAYOUT")]
    pub(crate) layout: Option<String>,
    /// Below which folders of HOT, such as '*/uploads' [default: HOT itself]
    #[arg(long, value_name = "GLOB")]
    pub(crate) under: Option<String>,
    /// Leave such paths alone, gitignore syntax; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// Days that ended so long ago, a day at least [default: 3d]
    #[arg(long, value_name = "DURATION", value_parser = sync_agent::values::duration)]
    pub(crate) older_than: Option<Duration>,
    /// And in which nothing changed for so long [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = sync_agent::values::duration)]
    pub(crate) quiet: Option<Duration>,
    /// In which days are counted: local, UTC, or a name such as Asia/Hong_Kong [default: local]
    #[arg(long, value_name = "ZONE")]
    pub(crate) timezone: Option<String>,
    /// How the link in the place of a day is written: absolute, relative, or prefix=PATH as applications see COLD [default: absolute]
    #[arg(long, value_name = "FORM")]
    pub(crate) link: Option<String>,
    /// Days with relative links that lead out of them: skip them, or rewrite the links [default: skip]
    #[arg(long, value_name = "skip|rewrite")]
    pub(crate) outside_links: Option<String>,
    /// How long a day that moved is kept beside its copy, for late writes [default: 72h]
    #[arg(long, value_name = "DURATION", value_parser = sync_agent::values::duration)]
    pub(crate) keep_displaced: Option<Duration>,
    /// Most days of one run, the oldest first; 0 for all [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) max_days: Option<u64>,
    /// Go on although the clock is not where it should be, by the last run
    #[arg(long)]
    pub(crate) accept_clock: bool,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `archive status`.
#[derive(Debug, Args)]
pub(crate) struct ArchiveRootArgs {
    /// The root
    #[arg(value_name = "HOT", value_hint = ValueHint::DirPath,
          value_parser = OsStringValueParser::new().try_map(values::local_root))]
    pub(crate) hot: PathBuf,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `archive claim`.
#[derive(Debug, Args)]
pub(crate) struct ArchiveClaimArgs {
    /// The root
    #[arg(value_name = "HOT", value_hint = ValueHint::DirPath,
          value_parser = OsStringValueParser::new().try_map(values::local_root))]
    pub(crate) hot: PathBuf,
    /// A day that counts as it is now
    #[arg(value_name = "PATH", value_parser = OsStringValueParser::new().try_map(values::below))]
    pub(crate) path: Option<RelPath>,
    /// The cold root to which links of a forgotten archive lead by a path that only applications know
    #[arg(long, value_name = "COLD", value_hint = ValueHint::DirPath, conflicts_with = "path")]
    pub(crate) cold: Option<PathBuf>,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `archive forget`.
#[derive(Debug, Args)]
pub(crate) struct ArchiveForgetArgs {
    /// The root
    #[arg(value_name = "HOT", value_hint = ValueHint::DirPath,
          value_parser = OsStringValueParser::new().try_map(values::local_root))]
    pub(crate) hot: PathBuf,
    /// A day, or a path with days below it
    #[arg(value_name = "PATH", required_unless_present = "cold", value_parser = OsStringValueParser::new().try_map(values::below))]
    pub(crate) path: Option<RelPath>,
    /// Days in this cold root only; all of them if no PATH is given
    #[arg(long, value_name = "COLD", value_hint = ValueHint::DirPath)]
    pub(crate) cold: Option<PathBuf>,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `archive restore`.
#[derive(Debug, Args)]
pub(crate) struct ArchiveRestoreArgs {
    /// The root
    #[arg(value_name = "HOT", value_hint = ValueHint::DirPath,
          value_parser = OsStringValueParser::new().try_map(values::local_root))]
    pub(crate) hot: PathBuf,
    /// The day below the root, or a folder with days
    #[arg(value_name = "PATH", value_parser = OsStringValueParser::new().try_map(values::below))]
    pub(crate) path: RelPath,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `archive verify`.
#[derive(Debug, Args)]
pub(crate) struct ArchiveVerifyArgs {
    /// The root
    #[arg(value_name = "HOT", value_hint = ValueHint::DirPath,
          value_parser = OsStringValueParser::new().try_map(values::local_root))]
    pub(crate) hot: PathBuf,
    /// Take the bytes of damaged files from this copy of the tree, where they are the ones that were written: a path, or a place on
    /// another machine, as `sync` takes it
    #[arg(long, value_name = "ROOT", value_hint = ValueHint::DirPath,
          value_parser = OsStringValueParser::new().try_map(Location::parse))]
    pub(crate) repair_from: Option<Location>,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}

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
