//! `driftless versions`: what a root keeps of replaced and deleted paths.

use crate::cli::VersionsArgs;
use crate::commands::Summary;
use crate::commands::reached::reach;
use crate::exit::Exit;
use crate::json::{self, PathFields};
use crate::output::Output;
use crate::render;
use anyhow::Result;
use serde::Serialize;
use sync_core::entry::Kind;
use sync_core::io::sync::KeptVersion;
use sync_core::path::{RelPath, escape};

/// One line of the list.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "version")]
struct Line<'a> {
    #[serde(flatten)]
    version: Version<'a>,
}

/// Fields of a kept version.
#[derive(Debug, Serialize)]
pub(super) struct Version<'a> {
    id: i64,
    #[serde(flatten)]
    path: PathFields,
    kind: &'static str,
    size: u64,
    mtime: String,
    kept_at: String,
    reason: &'a str,
}

/// Lists them, newest first.
pub(super) fn run(args: &VersionsArgs, output: &Output) -> Result<Exit> {
    let at = args.path.clone().unwrap_or_else(RelPath::root);
    let versions = reach(&args.at, output)?.versions(&at)?;
    for version in &versions {
        output.event(&Line { version: self::version(version) });
        output.line(&text(version));
    }
    if versions.is_empty() {
        output.line("no kept versions");
    }
    output.event(&Summary { count: versions.len() as u64, ..Summary::default() });
    Ok(Exit::InSync)
}

/// The JSON fields of a version.
pub(super) fn version(version: &KeptVersion) -> Version<'_> {
    Version {
        id: version.id,
        path: PathFields::of(&version.path),
        kind: json::kind(version.kind),
        size: version.size,
        mtime: json::time(version.mtime_ns),
        kept_at: json::time(version.kept_at_ns),
        reason: &version.reason,
    }
}

fn text(version: &KeptVersion) -> String {
    let what = match version.kind {
        Kind::File => render::bytes(version.size),
        Kind::Dir | Kind::Symlink => json::kind(version.kind).into(),
    };
    let (mtime, kept) = (render::moment(version.mtime_ns), render::moment(version.kept_at_ns));
    let reason = escape(version.reason.as_bytes());
    format!("{:>6}  {}  ({what}, of {mtime}; {reason} {kept})", version.id, version.path)
}
