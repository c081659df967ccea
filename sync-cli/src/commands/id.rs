//! `driftless id`: who this machine is.

use crate::cli::IdArgs;
use crate::commands::Summary;
use crate::exit::Exit;
use crate::home;
use crate::output::Output;
use anyhow::Result;
use serde::Serialize;
use sync_core::io::link::Identity;
use sync_core::peer::Id;

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "id")]
struct Line {
    id: Id,
}

/// Prints the id, and nothing else.
pub(super) fn run(_args: &IdArgs, output: &Output) -> Result<Exit> {
    let id = Identity::open(&home::open()?)?.id();
    output.line(&id.to_string());
    output.event(&Line { id });
    output.event(&Summary { count: 1, ..Summary::default() });
    Ok(Exit::InSync)
}
