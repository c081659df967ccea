//! `driftless conflicts`: the open conflicts of a root.

use crate::cli::ConflictsArgs;
use crate::commands::Summary;
use crate::commands::reached::reach;
use crate::exit::Exit;
use crate::json::{self, PathFields};
use crate::output::Output;
use crate::render;
use anyhow::Result;
use serde::Serialize;
use sync_core::io::sync::{Keep, OpenConflict};
use sync_core::path::escape;

/// One open conflict; sizes and times are null where the path is absent.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "conflict")]
struct Line {
    #[serde(flatten)]
    path: PathFields,
    local_mtime: Option<String>,
    local_size: Option<u64>,
    remote_mtime: Option<String>,
    remote_size: Option<u64>,
    /// Where the other replica was last found.
    remote: String,
    /// What was decided and waits for the next run.
    decided: Option<&'static str>,
}

/// Lists them, by path.
pub(super) fn run(args: &ConflictsArgs, output: &Output) -> Result<Exit> {
    let conflicts = reach(&args.at, output)?.conflicts()?;
    for conflict in &conflicts {
        output.event(&line(conflict));
        output.line(&text(conflict));
    }
    if conflicts.is_empty() {
        output.line("no open conflicts");
    } else if conflicts.iter().any(|conflict| conflict.decided.is_none()) {
        let root = render::quoted(&render::root(&args.at.root));
        output.talk(&format!("settle them: driftless resolve {root} PATH… --keep local|remote|newer|both"));
    }
    output.event(&Summary { count: conflicts.len() as u64, ..Summary::default() });
    Ok(Exit::InSync)
}

fn line(conflict: &OpenConflict) -> Line {
    Line {
        path: PathFields::of(&conflict.path),
        local_mtime: conflict.ours_mtime_ns.map(json::time),
        local_size: conflict.ours_size,
        remote_mtime: conflict.theirs_mtime_ns.map(json::time),
        remote_size: conflict.theirs_size,
        remote: conflict.other.clone(),
        decided: conflict.decided.map(Keep::word),
    }
}

fn text(conflict: &OpenConflict) -> String {
    let here = version(conflict.ours_mtime_ns, conflict.ours_size);
    let there = version(conflict.theirs_mtime_ns, conflict.theirs_size);
    let other = escape(conflict.other.as_bytes());
    let decided = conflict.decided.map_or(String::new(), |keep| format!("; decided: keep {}", keep.word()));
    format!("{}  (local: {here}; remote: {there} in {other}{decided})", conflict.path)
}

fn version(mtime_ns: Option<i64>, size: Option<u64>) -> String {
    match (mtime_ns, size) {
        (None, _) => "absent".into(),
        (Some(ns), None) => render::moment(ns),
        (Some(ns), Some(size)) => format!("{}, {}", render::moment(ns), render::bytes(size)),
    }
}
