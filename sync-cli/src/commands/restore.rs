//! `driftless restore`: brings a kept version back to its path.

use crate::cli::RestoreArgs;
use crate::commands::reached::reach;
use crate::commands::{Summary, versions};
use crate::exit::Exit;
use crate::output::Output;
use crate::render;
use anyhow::Result;
use serde::Serialize;

/// The version that was brought back.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "restored")]
struct Line<'a> {
    #[serde(flatten)]
    version: versions::Version<'a>,
}

/// Restores one path.
pub(super) fn run(args: &RestoreArgs, output: &Output) -> Result<Exit> {
    let restored = reach(&args.at, output)?.restore(&args.path, args.version)?;
    output.event(&Line { version: versions::version(&restored) });
    let mtime = render::moment(restored.mtime_ns);
    output.line(&format!("restored {} (version {}, of {mtime})", restored.path, restored.id));
    output.event(&Summary { count: 1, ..Summary::default() });
    Ok(Exit::InSync)
}
