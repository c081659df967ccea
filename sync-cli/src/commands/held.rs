//! `driftless archive` of a root that a running agent has open: the agent archives it, by its own rule, and what came of it is told here.

use super::archive::{Listener, Summary, besides, count, of_run, problem, show};
use super::reached::{asked, unexpected};
use crate::cli::ArchiveRuleArgs;
use crate::exit::{Exit, Usage, words};
use crate::glance;
use crate::progress::Stopwatch;
use crate::render;
use anyhow::{Context as _, Result, bail};
use std::time::Duration;
use sync_agent::control::{Ask, Client, ControlError, Refused, Tell, path};
use sync_agent::days::{DayPiece, Piece};
use sync_agent::status::{ArchiveDoing, ArchiveRun, DaysSeen, FolderState, FolderStatus, Moment, Status};
use sync_core::peer::Name;

/// How often signals are looked for, and at first the agent is asked.
const TICK: Duration = Duration::from_millis(200);
/// How often it is asked while a run goes on.
const STEADY: Duration = Duration::from_secs(2);
/// How long it may not tell of the folder's archive: it has no rule for it any more.
const SILENT: Duration = Duration::from_secs(600);
/// How long a look at the days may take before those are told that were seen last.
const LOOK: Duration = Duration::from_secs(60);

/// What is to be done where the configuration decides.
pub(super) fn by_configuration(folder: &Name) -> String {
    format!(
        "the agent has this root open and archives it by its configuration: say it in [archive.{folder}] there, then driftless agent reload"
    )
}

/// A run of the agent, by its configuration, which is waited for.
pub(super) fn run(
    args: &ArchiveRuleArgs,
    (client, name): (&Client, &Name),
    listener: &Listener<'_>,
    summary: &mut Summary,
) -> Result<Exit> {
    let ArchiveRuleArgs { hot: _, cold, layout, under, exclude, older_than, quiet, timezone, link, .. } = args;
    let texts = [cold.is_some(), layout.is_some(), under.is_some(), !exclude.is_empty(), timezone.is_some(), link.is_some()];
    let more = [older_than.is_some(), quiet.is_some(), args.outside_links.is_some(), args.keep_displaced.is_some()];
    if texts.contains(&true) || more.contains(&true) || args.max_days.is_some() {
        return Err(Usage(by_configuration(name)).into());
    }
    let output = listener.output;
    let Some((run, after)) = wait_for_run((client, name), args.accept_clock, listener)? else {
        let hot = render::root(&args.hot);
        let text = format!("not waited for any more: the agent goes on, and driftless archive status {hot} tells how");
        output.talk(&text);
        (summary.in_sync, summary.error) = (false, Some(text));
        return Ok(Exit::Interrupted);
    };
    (summary.moved, summary.skipped, summary.failed) = (run.moved, run.held + run.changed, run.failed);
    (summary.files, summary.bytes, summary.copied) = (run.files, run.bytes, run.copied);
    if let Some(why) = run.error {
        bail!(why);
    }
    if run.failed > 0 {
        for failed in after.problems.listed.iter().filter(|failed| failed.step == "archive") {
            problem(output, &path(&failed.place)?, &failed.error);
        }
    }
    output.line(&of_run(summary));
    if run.held > 0 {
        output.line(&format!("see: driftless archive status {}", render::root(&args.hot)));
    }
    summary.in_sync = summary.skipped + summary.failed == 0;
    Ok(Exit::of_run(summary.skipped == 0, summary.failed))
}

fn of<'a>(status: &'a Status, name: &Name) -> Result<&'a FolderStatus> {
    let found = status.folders.iter().find(|folder| folder.name == *name);
    found.with_context(|| format!("the agent has no folder {name} any more"))
}

/// Has the agent make a run, and waits for its end; `None`: a signal came meanwhile.
fn wait_for_run(
    (client, name): (&Client, &Name),
    accept_clock: bool,
    listener: &Listener<'_>,
) -> Result<Option<(ArchiveRun, FolderStatus)>> {
    let since = client.status()??.since;
    client.archive(Some(name.clone()), accept_clock)??;
    listener.output.talk_safely(&format!(
        "begun by the agent (folder {name}): this waits for the end of the run, and Ctrl-C ends the waiting alone"
    ));
    // One that has just opened the root tells nothing of its archive yet.
    let Some(asked) = wait((client, name), since, listener, &|folder| folder.archive.is_some())? else { return Ok(None) };
    let asked = asked.archive.map_or(0, |archive| archive.asked);
    // A folder that a changed configuration has begun anew knows of nothing that was asked for before.
    let is_anew = |folder: &FolderStatus| folder.archive.as_ref().is_some_and(|archive| asked == 0 || archive.asked < asked);
    let has_ended = |folder: &FolderStatus| {
        let archive = folder.archive.as_ref();
        archive.is_some_and(|archive| archive.answered >= asked && archive.doing != ArchiveDoing::Running)
    };
    let after = wait((client, name), since, listener, &|folder| is_anew(folder) || has_ended(folder))?;
    let Some(after) = after else { return Ok(None) };
    let run = after.archive.as_ref().and_then(|archive| archive.last.clone()).filter(|_| !is_anew(&after));
    let run = run.with_context(|| format!("folder {name} was begun anew before the run had ended: run this again"))?;
    Ok(Some((run, after)))
}

/// Waits until a folder is as it should be in the agent that began at this moment, as long as it takes. What keeps the agent from archiving
/// ends the wait, and so does a signal: then there is nothing to tell.
fn wait(
    (client, name): (&Client, &Name),
    since: Moment,
    listener: &Listener<'_>,
    is_so: &dyn Fn(&FolderStatus) -> bool,
) -> Result<Option<FolderStatus>> {
    let watch = Stopwatch::start();
    let (mut pause, mut told) = (TICK, Duration::ZERO);
    loop {
        let until = watch.elapsed() + pause;
        while watch.elapsed() < until {
            if listener.interrupt.asked() {
                return Ok(None);
            }
            // Nobody unparks it: it is a wait for signals.
            std::thread::park_timeout(TICK);
        }
        pause = (pause * 2).min(STEADY);
        let unknown = || format!("what came of the run of folder {name} is not known");
        let status = client.status().with_context(unknown)?.with_context(unknown)?;
        if status.since != since {
            bail!("the agent was started anew before the run of folder {name} had ended: run this again");
        }
        let folder = of(&status, name)?;
        if is_so(folder) {
            return Ok(Some(folder.clone()));
        }
        if folder.archive.is_some() {
            told = watch.elapsed();
        }
        match &folder.state {
            FolderState::Paused => {
                bail!("folder {name} was paused before the run had ended: it goes on after driftless agent resume {name}")
            }
            FolderState::Unavailable { why } => bail!("nothing is archived while folder {name} cannot be used: {why}"),
            _ if watch.elapsed() - told > SILENT => {
                bail!(
                    "the agent tells nothing of the archive of folder {name}: is there an [archive.{name}] in its configuration?"
                )
            }
            _ => {}
        }
    }
}

/// What the agent tells of the folder's archive, and the days as they are now.
pub(super) fn status((client, folder): (&Client, &FolderStatus), listener: &Listener<'_>, summary: &mut Summary) -> Result<Exit> {
    let (output, name) = (listener.output, &folder.name);
    let Some(mut archive) = folder.archive.clone() else {
        if let FolderState::Unavailable { why } = &folder.state {
            bail!("folder {name} of the agent cannot be used: {why}");
        }
        output.line(&format!("the agent has this root open, and archives nothing of it: there is no [archive.{name}]"));
        return Ok(Exit::InSync);
    };
    summary.failed = archive.last.as_ref().map_or(0, |last| last.failed + u64::from(last.error.is_some()))
        + archive.scrub.damaged
        + u64::from(archive.unavailable.is_some());
    let now = match archive.doing {
        ArchiveDoing::Running => Err(Unseen { why: "days are moved at this moment".into(), is_failure: false }),
        _ => look((client, name), listener)?,
    };
    let held = match now {
        Ok(days) => {
            archive.days = Some(seen(&days));
            let days = days.iter().filter(|day| !day.archived);
            days.clone().for_each(|day| count(summary, day));
            days.filter(|day| day.held).cloned().collect()
        }
        Err(Unseen { why, is_failure }) => {
            output.talk_safely(&format!("note: days are told as the agent saw them last: {why}"));
            // What is told of the last run, or of the cold root, is the same.
            summary.failed += u64::from(is_failure && summary.failed == 0);
            let days = archive.days.as_ref();
            summary.moved = days.map_or(0, |days| days.waiting);
            summary.bytes = days.map_or(0, |days| days.waiting_bytes);
            summary.skipped = days.map_or(0, |days| days.staying.values().sum());
            Vec::new()
        }
    };
    let days = archive.days.clone().unwrap_or_default();
    glance::archive_lines(&archive).iter().for_each(|line| output.line(line.strip_prefix("  ").unwrap_or(line)));
    held.iter().try_for_each(|day| show(output, day, "skipped", None))?;
    let held: u64 = ["open", "peers", "obstacle"].iter().filter_map(|reason| days.staying.get(*reason)).sum();
    summary.archived = Some(archive.archived);
    summary.oldest_unarchived = days.oldest.map(|oldest| String::from_utf8_lossy(&oldest.bytes()).into_owned());
    summary.in_sync = summary.failed + held + summary.moved == 0;
    Ok(Exit::of_run(summary.in_sync, summary.failed))
}

/// Why days could not be looked at.
struct Unseen {
    why: String,
    /// What keeps them from being looked at keeps them from being archived.
    is_failure: bool,
}

/// The days as they are now.
fn look((client, name): (&Client, &Name), listener: &Listener<'_>) -> Result<Result<Vec<DayPiece>, Unseen>> {
    let (watch, mut days) = (Stopwatch::start(), Vec::new());
    let is_late = || watch.elapsed() > LOOK;
    let over = || listener.interrupt.asked() || is_late();
    let ask = Ask::Plan { terms: Box::default(), accept_clock: false };
    let heard = asked((client, name), &ask, (listener.output, &over), &mut |piece| match piece {
        Tell::Days(Piece::Day(day)) => {
            days.push(day);
            Ok(())
        }
        Tell::Days(piece) => besides(listener.output, piece),
        _ => Err(unexpected()),
    });
    let unseen = |why: String, is_failure| Ok(Err(Unseen { why, is_failure }));
    match heard {
        Ok(Some(())) => Ok(Ok(days)),
        Ok(None) => unseen("its root is not open at this moment".into(), false),
        Err(error) if listener.interrupt.asked() => Err(error),
        Err(_) if is_late() => unseen(format!("to look at them takes longer than {} s now", LOOK.as_secs()), false),
        Err(error) => match error.downcast_ref::<ControlError>().map(|refused| refused.kind) {
            Some(kind) => unseen(words(&error), kind == Refused::Failed),
            None => Err(error),
        },
    }
}

/// Days in numbers, as the agent counts them.
fn seen(days: &[DayPiece]) -> DaysSeen {
    let mut seen = DaysSeen::default();
    for day in days.iter().filter(|day| !day.archived) {
        if day.moves {
            seen.waiting += 1;
            seen.waiting_bytes += day.bytes.unwrap_or(0);
        }
        let why = day.word.clone();
        if seen.oldest.is_none() && why.as_deref() != Some("excluded") {
            seen.oldest = Some(day.at.clone());
        }
        why.into_iter().for_each(|why| *seen.staying.entry(why).or_default() += 1);
    }
    seen
}
