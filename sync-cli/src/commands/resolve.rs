//! `driftless resolve`: decides open conflicts; the next sync carries the decisions out.

use crate::cli::{KeepChoice, ResolveArgs};
use crate::commands::Summary;
use crate::commands::reached::reach;
use crate::exit::Exit;
use crate::json::{Event, PathFields, ProblemLine};
use crate::output::Output;
use crate::render;
use anyhow::Result;
use serde::Serialize;
use sync_core::io::sync::Keep;
use sync_core::report::Problem;

/// One conflict that was decided.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "resolved")]
struct Line {
    #[serde(flatten)]
    path: PathFields,
    keep: &'static str,
}

/// Records the decisions. A path without a conflict fails alone.
pub(super) fn run(args: &ResolveArgs, output: &Output) -> Result<Exit> {
    let keep = match args.keep {
        KeepChoice::Local => Keep::Local,
        KeepChoice::Remote => Keep::Remote,
        KeepChoice::Newer => Keep::Newer,
        KeepChoice::Both => Keep::Both,
    };
    let decided = reach(&args.at, output)?.resolve(&args.paths, keep)?;
    for path in &decided {
        output.event(&Line { path: PathFields::of(path), keep: keep.word() });
        output.line(&format!("{path}  keep {}", keep.word()));
    }
    let mut exit = Exit::InSync;
    for path in &args.paths {
        if !decided.iter().any(|done| path.contains(done)) {
            let error = "there is no open conflict at or below it";
            let problem = Problem { path: path.clone(), step: "resolve", error: error.into() };
            output.event(&Event::Problem(ProblemLine::of(&problem)));
            output.talk(&format!("failed: no open conflict at or below {}", render::argument(path)));
            exit = Exit::Failed;
        }
    }
    if !decided.is_empty() {
        output.talk("the next sync carries it out");
    }
    output.event(&Summary { count: decided.len() as u64, ..Summary::default() });
    Ok(exit)
}
