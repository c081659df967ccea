//! `driftless watch`: two roots are kept in sync until a signal ends it.
//!
//! What goes wrong before both were in sync for the first time ends it, as it ends `sync`. Later it stays: a root that went away, or a
//! machine that cannot be reached, is told once, waited for, and told again when it is back. Only the deletion guard ends it.

use crate::bridge::Bridge;
use crate::cli::{RunArgs, WatchArgs};
use crate::exit::{self, Exit};
use crate::json::{Event, SummaryLine};
use crate::keeper::Keeper;
use crate::location::Location;
use crate::output::Output;
use crate::progress::Stopwatch;
use crate::reach::{self, Reached};
use crate::render;
use crate::run::{millis, options};
use anyhow::Result;
use std::time::Duration;
use sync_agent::again_after;
use sync_core::io::link::Traffic;
use sync_core::io::sync::{Options, Report, Round, Rounds, SyncError};

/// How often signals are looked for while nothing happens.
const TICK: Duration = Duration::from_millis(200);
/// A connection, or a root, that was there for so long was no mistake: what failed before counts no more.
const LASTING: Duration = Duration::from_secs(10);
/// Longest wait before roots of this machine are tried again.
const NEAR: Duration = Duration::from_secs(5);
/// Shortest wait before paths that failed are tried again.
const PATHS: Duration = Duration::from_secs(2);

/// Keeps two roots in sync.
pub(super) fn run(args: &WatchArgs, output: &Output) -> Result<Exit> {
    let watch = Stopwatch::start();
    let mut watching = Watching {
        args: &args.run,
        quiet: args.quiet,
        keeper: Keeper::new(output, watch)?,
        watch,
        traffic: Traffic::default(),
        last: None,
        allowing: args.run.allow_delete,
        down: None,
        failures: 0,
    };
    let ended = watching.work();
    watching.end(ended)
}

struct Watching<'a> {
    args: &'a RunArgs,
    quiet: Duration,
    keeper: Keeper<'a>,
    watch: Stopwatch,
    /// What crossed links of former connections.
    traffic: Traffic,
    /// What came of the last round.
    last: Option<Last>,
    /// The deletion guard is lifted until both roots are in sync for the first time.
    allowing: bool,
    /// Why they are not kept in sync at present, as it was told.
    down: Option<String>,
    /// Attempts in a row that did not last.
    failures: u32,
}

/// How the roots stand.
#[derive(Debug, Clone, Copy)]
struct Last {
    in_sync: bool,
    failed: u64,
}

/// Why roots that were open are so no more.
enum Ended {
    /// A signal came, or nobody reads what is told.
    Stopped,
    /// They are to be opened anew: the ignore rules changed, or the deletion guard stands again.
    Anew,
}

/// What failed.
enum Failed {
    /// To reach the roots and to open them.
    Opening(anyhow::Error),
    /// A round.
    Round(SyncError),
}

impl Watching<'_> {
    /// Until a signal comes, or nobody reads what is told.
    fn work(&mut self) -> Result<()> {
        while !self.is_over() {
            match self.stay() {
                Ok(Ended::Stopped) => break,
                Ok(Ended::Anew) => {}
                // A signal to the whole terminal ends ssh too: what fails for it is the end that the user wanted.
                Err(_) if self.keeper.interrupt.asked() => break,
                Err(Failed::Round(error @ (SyncError::Guard(_) | SyncError::Anew(_)))) => return Err(error.into()),
                Err(Failed::Opening(error)) if self.last.is_none() => return Err(error),
                Err(Failed::Round(error)) if self.last.is_none() => return Err(error.into()),
                Err(Failed::Opening(error)) => self.wait_after(&exit::words(&error)),
                Err(Failed::Round(error)) => self.wait_after(&error.to_string()),
            }
        }
        Ok(())
    }

    /// Opens both roots, and keeps them in sync as long as they are there.
    fn stay(&mut self) -> Result<Ended, Failed> {
        // They end after the roots are closed.
        let (_bridges, mut rounds) = self.open().map_err(Failed::Opening)?;
        let since = self.watch.elapsed();
        let before = self.traffic;
        let mut paths = 0;
        loop {
            let round = rounds.round(&self.keeper);
            let now = rounds.traffic();
            self.traffic = Traffic { sent: before.sent + now.sent, received: before.received + now.received };
            let Round { report, anew } = round.map_err(Failed::Round)?;
            if self.watch.elapsed().saturating_sub(since) >= LASTING {
                self.failures = 0;
            }
            self.stands(&report);
            if std::mem::take(&mut self.allowing) || anew {
                return Ok(Ended::Anew);
            }
            paths = if rounds.is_unfinished() { paths + 1 } else { 0 };
            let again = (paths > 0).then(|| self.watch.elapsed() + again_after(paths).max(PATHS));
            while !rounds.wait(TICK) {
                if self.is_over() {
                    return Ok(Ended::Stopped);
                }
                if again.is_some_and(|again| self.watch.elapsed() >= again) {
                    break;
                }
            }
            if self.is_over() {
                return Ok(Ended::Stopped);
            }
        }
    }

    /// Was it asked to end, or is whoever read what it tells gone?
    fn is_over(&self) -> bool {
        self.keeper.interrupt.asked() || self.keeper.output.is_abandoned()
    }

    fn open(&self) -> Result<(Vec<Bridge>, Rounds)> {
        let tell = |text: &str| self.keeper.output.talk_safely(text);
        let known = self.last.is_some();
        let Reached { places: [a, b], bridges } = match known {
            false => reach::reach(self.args, &self.keeper.interrupt, &tell)?,
            // What is begun ends by itself: a signal is looked for then.
            true => reach::reach_again(self.args, &tell)?,
        };
        let options = options(self.args, false);
        let options = Options {
            max_delete: if self.allowing { None } else { Some(self.args.max_delete) },
            // Begun anew, and read as a whole, they were at first.
            rejoin: options.rejoin && !known,
            checksum: options.checksum && !known,
            known,
            ..options
        };
        Ok((bridges, Rounds::open(a, b, options, self.quiet, &self.keeper)?))
    }

    /// A round has ended.
    fn stands(&mut self, report: &Report) {
        self.keeper.round_ended();
        let failed = report.totals.iter().map(|totals| totals.failed).sum::<u64>().max(report.problems.len() as u64);
        let first = self.last.is_none();
        self.last = Some(Last { in_sync: report.in_sync, failed });
        if first || self.down.take().is_some() {
            let (conflicts, output) = (self.keeper.tally().skipped(), self.keeper.output);
            output.event(&Event::Watching { in_sync: report.in_sync, conflicts, failed });
            let how = match (report.in_sync, conflicts, failed) {
                (true, ..) => "in sync".into(),
                (false, conflicts, 0) => format!("{} left open", render::counted(conflicts, "conflict", "conflicts")),
                (false, 0, failed) => format!("{} failed", render::counted(failed, "path", "paths")),
                (false, conflicts, failed) => format!(
                    "{} left open, {} failed",
                    render::counted(conflicts, "conflict", "conflicts"),
                    render::counted(failed, "path", "paths")
                ),
            };
            let again = if first { "" } else { " again" };
            output.line(&format!("watching {} and {}{again}, {how}", self.args.a, self.args.b));
        }
        self.keeper.output.flush();
    }

    /// Tells once why they are not kept in sync, and waits before they are tried again.
    fn wait_after(&mut self, why: &str) {
        if self.down.as_deref() != Some(why) {
            self.keeper.output.event(&Event::Waiting { error: why.to_owned() });
            self.keeper.output.talk_safely(&format!("{why}; it is waited for, and tried again until then"));
            self.keeper.output.flush();
            self.down = Some(why.to_owned());
        }
        self.failures = self.failures.saturating_add(1);
        let near = [&self.args.a, &self.args.b].iter().all(|root| matches!(root, Location::Local(_)));
        let wait = again_after(self.failures);
        let until = self.watch.elapsed() + if near { wait.min(NEAR) } else { wait };
        while !self.is_over() {
            let left = until.saturating_sub(self.watch.elapsed());
            if left.is_zero() {
                return;
            }
            // Nobody unparks it: it is a wait for signals.
            std::thread::park_timeout(left.min(TICK));
        }
    }

    fn end(self, ended: Result<()>) -> Result<Exit> {
        self.keeper.progress.clear();
        self.keeper.ended();
        let (totals, conflicts, skipped) = {
            let tally = self.keeper.tally();
            (tally.totals, tally.conflicts(), tally.skipped())
        };
        let Last { in_sync, failed } = self.last.unwrap_or(Last { in_sync: false, failed: 0 });
        let in_sync = in_sync && self.down.is_none() && ended.is_ok();
        let sum = |of: fn(&sync_core::io::sync::Totals) -> u64| totals.iter().map(of).sum();
        self.keeper.output.event(&Event::Summary(SummaryLine {
            in_sync,
            created: sum(|totals| totals.created),
            updated: sum(|totals| totals.updated),
            deleted: sum(|totals| totals.deleted),
            moved: sum(|totals| totals.moved),
            conflicts,
            skipped,
            failed,
            bytes_sent: self.traffic.sent,
            bytes_received: self.traffic.received,
            scan_ms: 0,
            total_ms: millis(self.watch.elapsed()),
            error: ended.as_ref().err().map(exit::words),
        }));
        let done = render::both_sides(&totals, render::DONE);
        let done = if done == render::NOTHING { String::new() } else { format!("; {done}") };
        self.keeper.output.line(&format!("watched for {}{done}", render::duration(self.watch.elapsed())));
        ended?;
        // Who went away had enough, as TERM says it: only Ctrl-C interrupts.
        let interrupt = &self.keeper.interrupt;
        Ok(if interrupt.asked() && !interrupt.is_term() { Exit::Interrupted } else { Exit::of_run(in_sync, failed) })
    }
}
