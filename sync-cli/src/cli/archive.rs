//! Old days on the command line.

use super::{ReachArgs, StateArgs};
use crate::location::Location;
use crate::values;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Subcommand, ValueHint};
use std::path::PathBuf;
use std::time::Duration;
use sync_core::path::RelPath;

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
    ///
    /// While an agent has the root open, it is asked: what is not said is as its configuration says.
    #[command(after_help = "Example:\n  driftless archive plan --hot /srv/hot --cold /mnt/cold --older-than 3d --quiet 24h")]
    Plan(ArchiveRuleArgs),
    /// Move the days whose time has come, and look after those that moved before
    ///
    /// The rule is remembered: later runs need --hot alone. Exits with 1 if something in an old day keeps it where it is, with 2 if a day
    /// could not be moved, with 3 if nothing could (the cold root is missing or has no marker, the clock jumped).
    ///
    /// While an agent has the root open, it does it, by the rule of its configuration, and this waits for the end; Ctrl-C ends the waiting
    /// alone.
    #[command(
        after_help = "Examples:\n  driftless archive run --hot /srv/hot --cold /mnt/cold --layout %Y/%m/%d --older-than 3d\n  \
                            driftless archive run --hot /srv/hot"
    )]
    Run(ArchiveRuleArgs),
    /// Show what is archived, and what waits
    #[command(after_help = "Example:\n  driftless archive status /srv/hot")]
    Status(ArchiveRootArgs),
    /// Bring a day, or all days below a path, back from the cold root
    ///
    /// What came back counts as changed now: runs leave it until it was quiet for as long as their rule says (--quiet), and archive it
    /// again then if the rule still says so. While an agent has the root open, it does it, and Ctrl-C ends it there too, after the step
    /// that has begun.
    #[command(after_help = "Example:\n  driftless archive restore /srv/hot 2026/03/05")]
    Restore(ArchiveRestoreArgs),
    /// Use what lies in cold roots although it belongs to another folder, or is not what was archived
    ///
    /// A folder that is a copy of another one, or was brought back from a backup, leaves alone what that one has archived: after this it
    /// has it, and the other one not any more. Archived days of which the folder knows nothing any more are found by their links. Those
    /// in a cold root that is older than what was known of it count as if they were found there: nothing is deleted on other servers, and
    /// what differs becomes a conflict. With PATH: what lies in the cold root for that day counts as it is now, and what is
    /// missing in it as deleted. While an agent has the root open it is refused, and tells how to stop it.
    #[command(after_help = "Examples:\n  driftless archive claim /srv/hot\n  driftless archive claim /srv/hot 2026/03/05")]
    Claim(ArchiveClaimArgs),
    /// Give up archived days that are gone for good: their links go, and the next sync brings the days back from other replicas
    ///
    /// While an agent has the root open it is refused, and tells how to stop it.
    #[command(after_help = "Examples:\n  driftless archive forget /srv/hot 2026/03/05\n  \
                            driftless archive forget /srv/hot --cold /mnt/cold")]
    Forget(ArchiveForgetArgs),
    /// Read archived days again and tell which bytes are not those that were written
    ///
    /// While an agent has the root open, it does it, and Ctrl-C ends it there too. It takes the bytes of damaged files from a copy on this
    /// machine; for one on another machine it has to be stopped.
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
    /// Go on although the clock is not where it should be, by the last run or by the newest change in an old day
    #[arg(long)]
    pub(crate) accept_clock: bool,
    #[command(flatten)]
    pub(crate) state: StateArgs,
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
    #[command(flatten)]
    pub(crate) state: StateArgs,
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
    #[command(flatten)]
    pub(crate) state: StateArgs,
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
    #[command(flatten)]
    pub(crate) state: StateArgs,
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
    #[command(flatten)]
    pub(crate) state: StateArgs,
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
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Print JSON lines; the last one is the summary
    #[arg(long)]
    pub(crate) json: bool,
}
