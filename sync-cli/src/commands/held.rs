//! `driftless archive` of a root that a running agent has open: the agent archives it, by its own rule.

use super::archive::Summary;
use crate::cli::ArchiveRuleArgs;
use crate::exit::{Exit, Usage};
use crate::glance;
use crate::output::Output;
use crate::render;
use anyhow::Result;
use sync_agent::control::Client;
use sync_agent::status::FolderStatus;

/// A run of the agent, by its configuration.
pub(super) fn run(args: &ArchiveRuleArgs, client: &Client, folder: &FolderStatus, output: &Output) -> Result<Exit> {
    let ArchiveRuleArgs { hot: _, cold, layout, under, exclude, older_than, quiet, timezone, link, .. } = args;
    let texts = [cold.is_some(), layout.is_some(), under.is_some(), !exclude.is_empty(), timezone.is_some(), link.is_some()];
    let more = [older_than.is_some(), quiet.is_some(), args.outside_links.is_some(), args.keep_displaced.is_some()];
    let name = &folder.name;
    if texts.contains(&true) || more.contains(&true) || args.max_days.is_some() {
        let text = format!(
            "the agent has this root open and archives it by its configuration: say it in [archive.{name}] there, then \
             driftless agent reload"
        );
        return Err(Usage(text).into());
    }
    client.archive(Some(name.clone()), args.accept_clock)??;
    output.line(&format!(
        "begun by the agent: folder {name}; driftless archive status {} tells how it goes",
        render::root(&args.hot)
    ));
    output.event(&Summary { in_sync: true, ..Summary::default() });
    Ok(Exit::InSync)
}

/// What the agent tells of the folder's archive.
pub(super) fn status(folder: &FolderStatus, output: &Output) -> Exit {
    let Some(archive) = &folder.archive else {
        output.line(&format!("the agent has this root open, and archives nothing of it: there is no [archive.{}]", folder.name));
        output.event(&Summary { in_sync: true, ..Summary::default() });
        return Exit::InSync;
    };
    glance::archive_lines(archive).iter().for_each(|line| output.line(line.strip_prefix("  ").unwrap_or(line)));
    let days = archive.days.clone().unwrap_or_default();
    let held = ["open", "peers", "obstacle"].iter().filter_map(|reason| days.staying.get(*reason)).sum::<u64>();
    let failed = archive.last.as_ref().map_or(0, |last| last.failed + u64::from(last.error.is_some()))
        + archive.scrub.damaged
        + u64::from(archive.unavailable.is_some());
    let summary = Summary {
        in_sync: failed + held + days.waiting == 0,
        moved: days.waiting,
        bytes: days.waiting_bytes,
        failed,
        archived: Some(archive.archived),
        oldest_unarchived: days.oldest.map(|oldest| String::from_utf8_lossy(&oldest.bytes()).into_owned()),
        ..Summary::default()
    };
    output.event(&summary);
    Exit::of_run(summary.in_sync, failed)
}
