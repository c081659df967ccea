//! `driftless archive`: days move between a root and a cold root.

use super::held;
use super::reached::{asked, by_agent, held_by, unexpected};
use crate::bridge::{Bridge, Route};
use crate::cli::{
    ArchiveAction, ArchiveArgs, ArchiveClaimArgs, ArchiveForgetArgs, ArchiveRestoreArgs, ArchiveRootArgs, ArchiveRuleArgs,
    ArchiveVerifyArgs, StateArgs,
};
use crate::exit::{self, Exit, Usage};
use crate::json::PathFields;
use crate::location::Location;
use crate::output::Output;
use crate::reach::reach_one;
use crate::render;
use crate::signals::Interrupt;
use crate::values::Retention;
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use sync_agent::archive::run::{self, Day, Report, Time, Told};
use sync_agent::archive::{Order, Terms};
use sync_agent::control::{Ask, Client, ControlError, Tell, path, text};
use sync_agent::days::{self, DayPiece, Piece, remembered};
use sync_agent::status::{FolderStatus, PathText};
use sync_core::entry::Hash;
use sync_core::io::archive::{Archive, ArchiveError, Moved, check_cold};
use sync_core::io::fs::{FsError, Root, init_cold};
use sync_core::io::sync::{Lender, Place, Replica};
use sync_core::path::RelPath;
use sync_core::report::Monitor;

/// What is told of a root that this command has open.
const OF_A_ROOT: &str = "paths of a root are paths";

/// One day.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "item")]
struct Line {
    #[serde(flatten)]
    path: PathFields,
    kind: &'static str,
    action: &'static str,
    direction: &'static str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

/// Something that failed.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "problem")]
struct ProblemLine {
    #[serde(flatten)]
    path: PathFields,
    step: &'static str,
    error: String,
}

/// The end.
#[derive(Debug, Default, Serialize)]
#[serde(tag = "event", rename = "summary")]
pub(super) struct Summary {
    pub(super) in_sync: bool,
    /// Days that moved, or would.
    pub(super) moved: u64,
    pub(super) skipped: u64,
    pub(super) failed: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Bytes that were copied.
    pub(super) copied: u64,
    /// How long reading the copies back took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) verify_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) relinked: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) merged: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) removed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) archived: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) damaged: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repaired: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) oldest_unarchived: Option<String>,
    /// Why it did not come to its end; everything else is what was done until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// Ctrl-C and TERM end a run after the step that has begun.
pub(super) struct Listener<'a> {
    pub(super) output: &'a Output,
    pub(super) interrupt: Interrupt,
}

impl Monitor for Listener<'_> {
    fn cancelled(&self) -> bool {
        self.interrupt.asked()
    }

    fn notice(&self, text: &str) {
        self.output.talk_safely(&format!("note: {text}"));
    }
}

/// Runs one of them. Its last JSON line is its summary, whatever came of it.
pub(super) fn run(args: &ArchiveArgs, output: &Output) -> Result<Exit> {
    let mut summary = Summary { in_sync: true, ..Summary::default() };
    let done = act(args, output, &mut summary);
    if let Err(error) = &done {
        (summary.in_sync, summary.error) = (false, Some(exit::words(error)));
    }
    output.event(&summary);
    done
}

fn act(args: &ArchiveArgs, output: &Output, summary: &mut Summary) -> Result<Exit> {
    let listener = &Listener { output, interrupt: Interrupt::install()? };
    let done = match &args.action {
        ArchiveAction::InitCold(args) => {
            let id = init_cold(&args.cold)?;
            output.line(&format!("{} is a cold root ({id})", render::root(&args.cold)));
            Ok(Exit::InSync)
        }
        ArchiveAction::Plan(args) => plan(args, listener, summary),
        ArchiveAction::Run(args) => move_days(args, listener, summary),
        ArchiveAction::Status(args) => status(args, listener, summary),
        ArchiveAction::Restore(args) => restore(args, listener, summary),
        ArchiveAction::Verify(args) => verify(args, listener, summary),
        ArchiveAction::Claim(args) => claim(args, listener),
        ArchiveAction::Forget(args) => forget(args, listener, summary),
    };
    match done {
        Err(_) if listener.interrupt.asked() => {
            let text = "interrupted; what was begun is finished by the next run";
            output.talk(text);
            (summary.in_sync, summary.error) = (false, Some(text.to_owned()));
            Ok(Exit::Interrupted)
        }
        done => done,
    }
}

/// The rule that was given.
fn given(args: &ArchiveRuleArgs) -> Result<Terms> {
    let ms = |duration: Option<Duration>| duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    Ok(Terms {
        cold: args.cold.as_deref().map(absolute).transpose()?,
        layout: args.layout.clone(),
        under: args.under.clone(),
        exclude: (!args.exclude.is_empty()).then(|| args.exclude.join("\n")),
        older_than_ms: ms(args.older_than),
        quiet_ms: ms(args.quiet),
        timezone: args.timezone.clone(),
        link: args.link.clone(),
        outside_links: args.outside_links.clone(),
        keep_displaced_ms: ms(args.keep_displaced),
        most_days: args.max_days,
    })
}

/// The rule that was given, and where nothing was said, the one that is remembered.
fn terms(args: &ArchiveRuleArgs, replica: &Replica) -> Result<Terms> {
    Ok(given(args)?.or(remembered(replica)?.unwrap_or_default()))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot use {}", render::root(path)))
}

/// A root, and where its state is.
type At<'a> = (&'a Path, &'a StateArgs);

/// The agent that may have it open. A state that was named may be another one than the agent's.
fn agent_of((root, state): At<'_>) -> Result<Option<(Client, FolderStatus)>> {
    if state.state_dir.is_some() { Ok(None) } else { by_agent(root) }
}

/// Has the agent do it that has the root open; false if none has.
fn by_its_agent(at: At<'_>, ask: &Ask, listener: &Listener<'_>, hear: &mut dyn FnMut(Piece) -> Result<()>) -> Result<bool> {
    let Some((client, folder)) = agent_of(at)? else { return Ok(false) };
    let over = || listener.interrupt.asked();
    let heard = asked((&client, &folder.name), ask, (listener.output, &over), &mut |piece| match piece {
        Tell::Days(piece) => hear(piece),
        _ => Err(unexpected()),
    });
    let heard = heard.map_err(|error| match error.downcast_ref::<ControlError>() {
        // What would be remembered without an agent has to stand in its configuration.
        Some(refused) if Terms::default().order().is_err_and(|lacking| lacking == refused.text) => {
            Usage(held::by_configuration(&folder.name)).into()
        }
        _ => error,
    })?;
    Ok(heard.is_some())
}

/// Why something is refused while an agent has a root open that it does not do.
const CLOSED: &str = "this is done while nobody has it open";

/// What an agent does not do is refused while it has the root open, with what to do.
fn refuse_beside_agent(at: At<'_>, why: &str, listener: &Listener<'_>) -> Result<()> {
    let Some((client, folder)) = agent_of(at)? else { return Ok(()) };
    // A root that it cannot open is free for whoever mends it.
    if asked((&client, &folder.name), &Ask::Open, (listener.output, &|| false), &mut |_| Ok(()))?.is_none() {
        return Ok(());
    }
    anyhow::bail!(
        "the agent has {} open (folder {}): {why}. Stop it (driftless agent stop, or systemctl stop driftless), run this again, and start \
         it again (driftless agent run, or systemctl start driftless)",
        render::root(at.0),
        folder.name
    )
}

fn order(terms: &Terms) -> Result<Order> {
    terms.order().map_err(|error| Usage(error).into())
}

/// `DRIFTLESS_NOW`, for trials.
fn time() -> Result<Time> {
    let trial = crate::home::trial_time().map_err(|error| anyhow::Error::from(Usage(error)))?;
    Ok(Time::now(trial))
}

/// What is wrong with the cold root that was named is told before anything is made in the root.
fn before(args: &ArchiveRuleArgs) -> Result<()> {
    Ok(args.cold.as_deref().map_or(Ok(()), |cold| check_cold(&args.hot, cold))?)
}

fn open((root, state): At<'_>, listener: &Listener<'_>) -> Result<Replica> {
    let begun = Replica::begin(root, state.state_dir.as_deref(), listener);
    let replica = begun.map_err(|error| held_by(error, root))?;
    for notice in replica.notices() {
        listener.notice(notice);
    }
    Ok(replica)
}

fn plan(args: &ArchiveRuleArgs, listener: &Listener<'_>, summary: &mut Summary) -> Result<Exit> {
    let (output, at) = (listener.output, (args.hot.as_path(), &args.state));
    let mut hear = |piece| {
        let Piece::Day(day) = piece else { return besides(output, piece) };
        count(summary, &day);
        show(output, &day, if day.moves { "planned" } else { "skipped" }, None)
    };
    before(args)?;
    let ask = Ask::Plan { terms: Box::new(given(args)?), accept_clock: args.accept_clock };
    if !by_its_agent(at, &ask, listener, &mut hear)? {
        let time = (&time()?, args.accept_clock);
        let replica = open(at, listener)?;
        let order = order(&terms(args, &replica)?)?;
        let archive = replica.archive(listener)?;
        days::plan((&replica, &archive), &order, time, &mut |piece| hear(piece).expect(OF_A_ROOT))?;
    }
    output.line(&format!(
        "{} to archive ({} in {}), {} stay",
        render::counted(summary.moved, "day", "days"),
        render::bytes(summary.bytes),
        render::counted(summary.files, "file", "files"),
        render::count(summary.skipped)
    ));
    summary.in_sync = summary.moved == 0;
    Ok(Exit::InSync)
}

/// What is told of days besides what was asked for.
pub(super) fn besides(output: &Output, piece: Piece) -> Result<()> {
    match piece {
        Piece::Problem { at, error } | Piece::Unreadable { at, error } => problem(output, &path(&at)?, &error),
        Piece::Notice(text) => output.talk_safely(&format!("note: {text}")),
        _ => return Err(unexpected()),
    }
    Ok(())
}

pub(super) fn count(summary: &mut Summary, day: &DayPiece) {
    if day.moves {
        summary.moved += 1;
        summary.files += day.files.unwrap_or(0);
        summary.bytes += day.bytes.unwrap_or(0);
    } else {
        summary.skipped += 1;
    }
}

pub(super) fn show(output: &Output, day: &DayPiece, result: &'static str, why: Option<String>) -> Result<()> {
    let (path, reason) = (path(&day.at)?, why.or_else(|| day.reason.clone()));
    let word = match result {
        "planned" => "would move",
        "done" => "moved",
        "failed" => "failed",
        _ => "stays",
    };
    let text = reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    output.line(&format!("{word:>10}  {path}{text}"));
    output.event(&Line {
        path: PathFields::of(&path),
        kind: "dir",
        action: "archive",
        direction: "none",
        result,
        reason,
        period: Some(day.period.clone()),
        files: day.files,
        bytes: day.bytes,
    });
    Ok(())
}

/// Shows what a run tells, and counts it for one that does not come to its end.
struct Teller<'a> {
    output: &'a Output,
    summary: &'a mut Summary,
}

impl Told for Teller<'_> {
    fn day(&mut self, day: &Day, result: Option<&Result<Moved, ArchiveError>>) {
        if let Some(Err(ArchiveError::Cancelled)) = result {
            // The day is where it was: nothing has failed.
            return;
        }
        let (word, why) = match result {
            None => ("skipped", None),
            Some(Ok(_)) => ("done", None),
            Some(Err(error @ ArchiveError::Changed(_))) => ("skipped", Some(error.to_string())),
            Some(Err(error)) => ("failed", Some(error.to_string())),
        };
        let piece = DayPiece::of(day);
        match result {
            Some(Ok(moved)) => add(self.summary, moved),
            Some(Err(ArchiveError::Changed(_))) => self.summary.skipped += 1,
            Some(Err(_)) => self.summary.failed += 1,
            None => self.summary.skipped += u64::from(piece.held),
        }
        show(self.output, &piece, word, why).expect(OF_A_ROOT);
    }

    fn problem(&mut self, path: &RelPath, error: &ArchiveError) {
        self.summary.failed += 1;
        problem(self.output, path, &error.to_string());
    }

    fn notice(&mut self, text: &str) {
        self.output.talk_safely(&format!("note: {text}"));
    }
}

pub(super) fn problem(output: &Output, path: &RelPath, error: &str) {
    output.talk_safely(&format!("{path}: {error}"));
    output.event(&ProblemLine { path: PathFields::of(path), step: "archive", error: error.to_owned() });
}

fn add(summary: &mut Summary, moved: &Moved) {
    summary.moved += 1;
    summary.files += moved.files;
    summary.bytes += moved.bytes;
    summary.copied += moved.copied;
}

fn move_days(args: &ArchiveRuleArgs, listener: &Listener<'_>, summary: &mut Summary) -> Result<Exit> {
    let at = (args.hot.as_path(), &args.state);
    if let Some((client, folder)) = agent_of(at)? {
        return held::run(args, (&client, &folder.name), listener, summary);
    }
    let time = time()?;
    before(args)?;
    let replica = open(at, listener)?;
    let terms = terms(args, &replica)?;
    let order = order(&terms)?;
    let archive = replica.archive(listener)?;
    // A cold root that cannot be used is no part of a rule to be remembered.
    archive.cold(&order.cold)?;
    run::remember_rule(&replica, &terms)?;
    let output = listener.output;
    let mut teller = Teller { output, summary };
    let report = run::run((&replica, &archive), &order, (&time, args.accept_clock), &mut teller)?;
    Ok(ended(output, &report, summary))
}

fn ended(output: &Output, report: &Report, summary: &mut Summary) -> Exit {
    for path in &report.late {
        output.talk_safely(&format!("note: {path} was written to after its day had moved: it was brought over"));
    }
    for path in &report.beside {
        output.talk_safely(&format!("note: {path} is kept beside the archived one of its name, which has other bytes"));
    }
    let total = report.total;
    let skipped = report.held + report.changed;
    *summary = Summary {
        in_sync: skipped + report.failed == 0,
        moved: report.moved,
        skipped,
        failed: report.failed,
        files: total.files,
        bytes: total.bytes,
        copied: total.copied,
        verify_ms: Some(u64::try_from(total.reread.as_millis()).unwrap_or(u64::MAX)),
        relinked: Some(report.relinked),
        merged: Some(report.merged.len() as u64),
        removed: Some(report.removed),
        ..Summary::default()
    };
    output.line(&format!("{}, {} of old copies removed", of_run(summary), render::count(report.removed)));
    Exit::of_run(skipped == 0, report.failed)
}

/// What a run did, for people.
pub(super) fn of_run(summary: &Summary) -> String {
    format!(
        "{} archived ({} in {}, {} copied), {} held up, {} failed",
        render::counted(summary.moved, "day", "days"),
        render::bytes(summary.bytes),
        render::counted(summary.files, "file", "files"),
        render::bytes(summary.copied),
        render::count(summary.skipped),
        render::count(summary.failed)
    )
}

fn status(args: &ArchiveRootArgs, listener: &Listener<'_>, summary: &mut Summary) -> Result<Exit> {
    let at = (args.hot.as_path(), &args.state);
    if let Some((client, folder)) = agent_of(at)? {
        return held::status((&client, &folder), listener, summary);
    }
    let replica = open(at, listener)?;
    let output = listener.output;
    let archive = replica.archive(listener)?;
    let placed = replica.placed();
    summary.archived = Some(placed.len() as u64);
    let Some(terms) = remembered(&replica)? else {
        let what = match placed.len() {
            0 => "nothing is archived".to_owned(),
            count => format!("{} archived", render::counted(count as u64, "day is", "days are")),
        };
        output.line(&format!("{what}, and no rule is remembered: driftless archive run --hot HOT --cold COLD"));
        return Ok(Exit::InSync);
    };
    let order = order(&terms)?;
    output.line(&format!("days {} go to {}", run::describe(&order.rule), render::root(&order.cold)));
    let displaced = archive.displaced()?;
    output.line(&format!(
        "{} archived; {} of old copies kept for late writes{}",
        render::counted(placed.len() as u64, "day is", "days are"),
        render::count(displaced.len() as u64),
        displaced
            .iter()
            .map(|old| old.until_ns)
            .min()
            .map_or(String::new(), |until| format!(", the first until {}", render::moment(until)))
    ));
    for (path, _) in &placed {
        if let Err(error) = archive.check_placed(path) {
            problem(output, path, &error.to_string());
            summary.failed += 1;
        }
    }
    let cold = archive.cold(&order.cold)?;
    let days = run::look((&replica, &archive), &order, Some(&cold), &time()?)?;
    let mut held = 0;
    for day in days.iter().map(DayPiece::of).filter(|day| !day.archived) {
        summary.oldest_unarchived.get_or_insert(path(&day.at)?.to_string());
        count(summary, &day);
        if day.held {
            held += 1;
            show(output, &day, "skipped", None)?;
        }
    }
    if let Some(oldest) = &summary.oldest_unarchived {
        output.line(&format!(
            "oldest day that is not archived: {oldest}; {} wait ({}), {} held up",
            render::count(summary.moved),
            render::bytes(summary.bytes),
            render::count(held)
        ));
    }
    summary.in_sync = summary.failed + held + summary.moved == 0;
    Ok(Exit::of_run(summary.in_sync, summary.failed))
}

fn restore(args: &ArchiveRestoreArgs, listener: &Listener<'_>, summary: &mut Summary) -> Result<Exit> {
    let (output, at) = (listener.output, (args.hot.as_path(), &args.state));
    let mut hear = |piece| {
        match piece {
            Piece::Restored { at, files, bytes, copied } => {
                let path = path(&at)?;
                add(summary, &Moved { files, bytes, copied, ..Moved::default() });
                output.line(&format!("restored {path}"));
                output.event(&restored(&path, "done", None));
            }
            Piece::Stays { at, why } => {
                let path = path(&at)?;
                summary.failed += 1;
                output.talk_safely(&format!("{path}: {why}"));
                output.event(&restored(&path, "failed", Some(why)));
            }
            piece => {
                summary.failed += u64::from(matches!(piece, Piece::Problem { .. }));
                besides(output, piece)?;
            }
        }
        Ok(())
    };
    if !by_its_agent(at, &Ask::Return { at: text(&args.path) }, listener, &mut hear)? {
        let replica = open(at, listener)?;
        let archive = replica.archive(listener)?;
        days::restore((&replica, &archive), &args.path, &Time::now(None), &mut |piece| hear(piece).expect(OF_A_ROOT))?;
    }
    summary.in_sync = summary.failed == 0;
    Ok(Exit::of_run(true, summary.failed))
}

fn restored(path: &RelPath, result: &'static str, reason: Option<String>) -> Line {
    let path = PathFields::of(path);
    Line { path, kind: "dir", action: "restore", direction: "none", result, reason, period: None, files: None, bytes: None }
}

fn claim(args: &ArchiveClaimArgs, listener: &Listener<'_>) -> Result<Exit> {
    refuse_beside_agent((&args.hot, &args.state), CLOSED, listener)?;
    let begun = Replica::begin_anew(&args.hot, args.state.state_dir.as_deref(), listener);
    let replica = begun.map_err(|error| held_by(error, &args.hot))?;
    for notice in replica.notices() {
        listener.notice(notice);
    }
    let output = listener.output;
    if let Some(path) = &args.path {
        replica.archive(listener)?.accept(path)?;
        output.line(&format!("{path} counts as it is now"));
        output.event(&Line { action: "claim", ..restored(path, "done", None) });
    } else {
        let cold = args.cold.as_deref().map(absolute).transpose()?;
        let (claimed, notices) = replica.claim(cold.as_deref())?;
        for notice in &notices {
            listener.notice(notice);
        }
        for cold in &claimed {
            output.line(&format!("what {} holds for {} belongs to it", render::root(cold), render::root(&args.hot)));
        }
        if claimed.is_empty() {
            output.line("nothing was ever archived here");
        }
    }
    Ok(Exit::InSync)
}

fn forget(args: &ArchiveForgetArgs, listener: &Listener<'_>, summary: &mut Summary) -> Result<Exit> {
    refuse_beside_agent((&args.hot, &args.state), CLOSED, listener)?;
    let replica = open((&args.hot, &args.state), listener)?;
    let archive = replica.archive(listener)?;
    let output = listener.output;
    let cold = args.cold.as_deref().map(absolute).transpose()?;
    let top = RelPath::root();
    let at = args.path.as_ref().unwrap_or(&top);
    let placed = replica.placed();
    let of_cold = |location: &Path| cold.as_ref().is_none_or(|cold| location.starts_with(cold));
    let days: Vec<_> = placed.iter().filter(|(path, location)| at.contains(path) && of_cold(location)).collect();
    anyhow::ensure!(!days.is_empty(), "nothing there is archived");
    for (path, _) in days {
        match archive.forget(path) {
            Ok(kept) => {
                summary.moved += 1;
                let more = if kept { ", and what was kept from before it moved is back in its place" } else { "" };
                output.line(&format!("forgot {path}{more}"));
                output.event(&Line { action: "forget", ..restored(path, "done", None) });
            }
            Err(error) if error.ends_run() => return Err(error.into()),
            Err(error) => {
                summary.failed += 1;
                problem(output, path, &error.to_string());
            }
        }
    }
    summary.in_sync = summary.failed == 0;
    Ok(Exit::of_run(true, summary.failed))
}

fn verify(args: &ArchiveVerifyArgs, listener: &Listener<'_>, summary: &mut Summary) -> Result<Exit> {
    let (output, at) = (listener.output, (args.hot.as_path(), &args.state));
    (summary.damaged, summary.repaired) = (Some(0), Some(0));
    let mut unrepaired = 0;
    let mut hear = |piece| {
        match piece {
            Piece::Read { files, bytes } => {
                summary.files += files;
                summary.bytes += bytes;
            }
            Piece::Damaged { at, repaired, why } => {
                told_damaged(output, &path(&at)?, repaired, why.as_deref());
                summary.damaged = summary.damaged.map(|count| count + 1);
                summary.repaired = summary.repaired.map(|count| count + u64::from(repaired));
                unrepaired += u64::from(!repaired);
                summary.failed += u64::from(!repaired);
            }
            Piece::Unreadable { .. } => {
                unrepaired += 1;
                summary.failed += 1;
                besides(output, piece)?;
            }
            piece => {
                summary.failed += u64::from(matches!(piece, Piece::Problem { .. }));
                besides(output, piece)?;
            }
        }
        Ok(())
    };
    let repair_from = match &args.repair_from {
        None => None,
        Some(Location::Local(from)) => Some(PathText::new(absolute(Path::new(from))?.as_os_str().as_bytes())),
        Some(_) => {
            refuse_beside_agent(
                at,
                "it reads only a copy on this machine, and brings damaged files back from its peers itself",
                listener,
            )?;
            None
        }
    };
    let is_near = matches!(args.repair_from, None | Some(Location::Local(_)));
    if !is_near || !by_its_agent(at, &Ask::Verify { repair_from }, listener, &mut hear)? {
        let replica = open(at, listener)?;
        let archive: Archive<'_> = replica.archive(listener)?;
        let source = args.repair_from.as_ref().map(|from| Copy::open(from, args, &replica, listener)).transpose()?;
        let open = |path: &RelPath, hash, size| source.as_ref().expect("only asked where there is one").take(path, (hash, size));
        let repair = source.as_ref().map(|_| &open as _);
        days::verify((&replica, &archive), repair, (&mut |piece| hear(piece).expect(OF_A_ROOT), &|_, _| {}))?;
    }
    let (damaged, repaired) = (summary.damaged.unwrap_or(0), summary.repaired.unwrap_or(0));
    output.line(&format!(
        "{} read ({}), {} damaged, {} repaired",
        render::counted(summary.files, "file", "files"),
        render::bytes(summary.bytes),
        render::count(damaged),
        render::count(repaired)
    ));
    if unrepaired > 0 && args.repair_from.is_none() {
        output.talk("--repair-from ROOT brings the bytes back from another copy of the tree");
    }
    summary.in_sync = summary.failed == 0;
    Ok(Exit::of_run(true, summary.failed))
}

/// Another copy of the tree.
enum Copy<'a> {
    /// On this machine.
    Near(Root),
    /// On another one.
    Far {
        lender: Box<Lender<'a>>,
        /// It ends after the folder was closed.
        _bridge: Option<Bridge>,
    },
}

impl<'a> Copy<'a> {
    fn open(from: &Location, args: &ArchiveVerifyArgs, replica: &'a Replica, listener: &Listener<'_>) -> Result<Copy<'a>> {
        let route = Route { reach: &args.reach, keep_versions: Retention(None) };
        let tell = |text: &str| listener.output.talk_safely(text);
        match reach_one(from, route, &listener.interrupt, &tell)? {
            (Place::Local(path), _) => Ok(Copy::Near(Root::open(&path)?)),
            (Place::Remote(remote), _bridge) => {
                Ok(Copy::Far { lender: Box::new(Lender::open(replica, remote, listener)?), _bridge })
            }
        }
    }

    /// The file at this path, which should have this hash and this size.
    fn take(&self, path: &RelPath, (hash, size): (Hash, u64)) -> Result<File, FsError> {
        match self {
            Copy::Near(root) => days::near(root, path),
            Copy::Far { lender, .. } => lender.take(path, hash, size).map_err(|why| {
                let path = format!("{}/{path}", lender.shown().trim_end_matches('/')).into();
                FsError { action: "fetch", path, source: std::io::Error::other(why) }
            }),
        }
    }
}

fn told_damaged(output: &Output, path: &RelPath, repaired: bool, why: Option<&str>) {
    let (result, word) = if repaired { ("done", "was damaged, and is repaired") } else { ("failed", "is damaged") };
    let why = why.map_or(String::new(), |why| format!(": {why}"));
    output.line(&format!("{path} {word}{why}"));
    let line = restored(path, result, Some(format!("{word}{why}")));
    output.event(&Line { kind: "file", action: "verify", ..line });
}
