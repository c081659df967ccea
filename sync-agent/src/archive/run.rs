//! One archiving run of a root: looks for days, decides, moves them, and looks after those that moved before.

use super::{Decision, Entry, Look, Moment, Obstacle, Order, Period, Reason, Rule, Seen, Terms, check_clock};
use crate::config::Timezone;
use chrono::TimeZone;
use chrono_tz::Tz;
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use sync_core::io::archive::{Archive, ArchiveError, Contents, MoveOptions, Moved, Obstacle as Found, Search};
use sync_core::io::fs::Cold;
use sync_core::io::sync::{Replica, SyncError};
use sync_core::path::RelPath;
use sync_core::report::Monitor;

/// Under these names a root remembers the clock of the last run, and of the last trial.
const CLOCKS: [&str; 2] = ["clock", "clock.trial"];

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A day, a cold root or the journal.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The root or its state.
    #[error(transparent)]
    Root(#[from] SyncError),
    /// The clock jumped.
    #[error("{0}: nothing was moved. If the clock is right now, run once with --accept-clock")]
    Clock(#[from] super::Jump),
    /// The zone is in no database.
    #[error("{0:?} is no time zone that is known: give local, UTC, or a name such as Asia/Hong_Kong")]
    Zone(String),
    /// What was remembered makes no sense.
    #[error("{0}")]
    Note(String),
}

/// The time by which a run decides.
#[derive(Debug, Clone)]
pub struct Time {
    /// The policy's clock, and the machine's other ones.
    pub moment: Moment,
    /// The policy's clock was set by hand: change times, which bear the machine's, are not compared with it.
    pub trial: bool,
}

/// A day, and what becomes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Day {
    /// Where.
    pub path: RelPath,
    /// Which.
    pub period: Period,
    /// What becomes of it.
    pub decision: Decision,
    /// What is in it, if that was looked at.
    pub contents: Option<Contents>,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Report {
    /// Days that moved, and what they held.
    pub moved: u64,
    /// Their files, bytes, and the bytes that were copied.
    pub total: Moved,
    /// Days that stay although they are old and quiet: something in them is in the way.
    pub held: u64,
    /// Days that changed while they were looked at.
    pub changed: u64,
    /// Days that could not be moved.
    pub failed: u64,
    /// Links that were written anew.
    pub relinked: u64,
    /// Days that were made anew beside their archive, and are one again.
    pub merged: Vec<RelPath>,
    /// What stands beside other bytes since, which the archive had under its name.
    pub beside: Vec<RelPath>,
    /// Old directories that were removed.
    pub removed: u64,
    /// Paths to which late writes were brought.
    pub late: Vec<RelPath>,
}

/// A root whose days move: one that was opened for that alone, or one that an agent goes on to synchronise.
pub trait Ground {
    /// Paths of open conflicts.
    ///
    /// # Errors
    /// The state cannot be read.
    fn conflicts(&self) -> Result<Vec<RelPath>, SyncError>;
    /// Days that lie in a cold root.
    fn placed(&self) -> Vec<RelPath>;
    /// What archiving remembers under a name.
    ///
    /// # Errors
    /// The state cannot be read.
    fn note(&self, name: &str) -> Result<Option<Vec<u8>>, SyncError>;
    /// Remembers it; it has reached the disk when the call returns.
    ///
    /// # Errors
    /// The state cannot be written.
    fn put_note(&self, name: &str, value: &[u8]) -> Result<(), SyncError>;
    /// How many peers are known to have all of a day, as it is here.
    ///
    /// # Errors
    /// The state cannot be read, or it was stopped.
    fn holders(&self, day: &RelPath, monitor: &dyn Monitor) -> Result<usize, SyncError>;
}

impl Ground for Replica {
    fn conflicts(&self) -> Result<Vec<RelPath>, SyncError> {
        Ok(Replica::conflicts(self)?.into_iter().map(|conflict| conflict.path).collect())
    }

    fn placed(&self) -> Vec<RelPath> {
        Replica::placed(self).into_iter().map(|(path, _)| path).collect()
    }

    fn note(&self, name: &str) -> Result<Option<Vec<u8>>, SyncError> {
        self.archive_note(name)
    }

    fn put_note(&self, name: &str, value: &[u8]) -> Result<(), SyncError> {
        self.put_archive_note(name, value)
    }

    /// Nobody is asked, and what was heard of others is the agent's.
    fn holders(&self, _day: &RelPath, _monitor: &dyn Monitor) -> Result<usize, SyncError> {
        Ok(0)
    }
}

/// Under this name a root remembers its rule.
pub const RULE: &str = "rule";

/// Remembers a rule, by which later commands do without its options.
///
/// # Errors
/// The state cannot be written.
pub fn remember_rule(ground: &dyn Ground, terms: &Terms) -> Result<(), SyncError> {
    let text = terms.remembered();
    if ground.note(RULE)?.as_deref() == Some(&text) { Ok(()) } else { ground.put_note(RULE, &text) }
}

/// Is told what a run does.
pub trait Told {
    /// A day, and what came of it; `None`: it stays, as was decided.
    fn day(&mut self, day: &Day, result: Option<&Result<Moved, ArchiveError>>);
    /// Something else about a path.
    fn problem(&mut self, path: &RelPath, error: &ArchiveError);
    /// Something that concerns no single path.
    fn notice(&mut self, text: &str);
    /// What is told from here on concerns days that moved before.
    fn settles(&mut self) {}
}

/// The clock of a moment as it is remembered.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    now_ns: i64,
    up_ns: i64,
    boot: String,
}

impl Time {
    /// This moment; `trial_ns` is the policy's clock where it was set by hand.
    #[must_use]
    pub fn now(trial_ns: Option<i64>) -> Time {
        let ns = |time: Timespec| time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec);
        // Where the system does not tell of its start, it cannot tell that the clock went faster than the machine.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let moment = Moment {
            now_ns: trial_ns.unwrap_or_else(|| ns(clock_gettime(ClockId::Realtime))),
            up_ns: ns(clock_gettime(ClockId::Boottime)),
            boot: if trial_ns.is_some() { String::new() } else { boot },
        };
        Time { moment, trial: trial_ns.is_some() }
    }
}

/// The clock of an agent: the machine's, or one that was set by hand when the agent began and goes on from there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    /// What was set, and the machine's uptime then.
    set: Option<(i64, i64)>,
}

impl Clock {
    /// The machine's; or, for trials, this one, ns since 1970.
    #[must_use]
    pub fn new(trial_ns: Option<i64>) -> Clock {
        Clock { set: trial_ns.map(|trial| (trial, Time::now(None).moment.up_ns)) }
    }

    /// This moment.
    #[must_use]
    pub fn time(&self) -> Time {
        let machine = Time::now(None);
        match self.set {
            None => machine,
            Some((trial, up)) => Time::now(Some(trial.saturating_add(machine.moment.up_ns.saturating_sub(up)))),
        }
    }
}

/// Looks for days and decides on each. Nothing is changed. `cold` is where they would go, if that is there.
///
/// # Errors
/// The tree, the state or the clock.
pub fn look(
    (ground, archive): (&dyn Ground, &Archive<'_>),
    order: &Order,
    cold: Option<&Arc<Cold>>,
    time: &Time,
) -> Result<Vec<Day>, RunError> {
    look_by((ground, archive), order, cold, (time, false))
}

/// The same. `accept_clock`: the clock is right; change times that have not come yet are from when it was not, and tell nothing.
///
/// # Errors
/// As [`look`].
pub fn look_by(
    (ground, archive): (&dyn Ground, &Archive<'_>),
    order: &Order,
    cold: Option<&Arc<Cold>>,
    time: (&Time, bool),
) -> Result<Vec<Day>, RunError> {
    match &order.zone {
        Timezone::Local => look_in((ground, archive), order, cold, (time, &chrono::Local)),
        Timezone::Named(name) => {
            let zone: Tz = name.parse().map_err(|_| RunError::Zone(name.clone()))?;
            look_in((ground, archive), order, cold, (time, &zone))
        }
    }
}

fn look_in<Z: TimeZone>(
    (ground, archive): (&dyn Ground, &Archive<'_>),
    order: &Order,
    cold: Option<&Arc<Cold>>,
    ((time, accept_clock), zone): ((&Time, bool), &Z),
) -> Result<Vec<Day>, RunError> {
    let (rule, now_ns) = (&order.rule, time.moment.now_ns);
    let back = i64::try_from(super::BACK.as_nanos()).unwrap_or(i64::MAX);
    let tells = |ctime_ns: i64| !time.trial && (!accept_clock || ctime_ns <= now_ns.saturating_add(back));
    let search = |path: &RelPath| match rule.look(path) {
        Look::Day(_) => Search::Day,
        Look::Onward => Search::Onward,
        Look::No => Search::No,
    };
    let conflicts = ground.conflicts()?;
    let one_disk = cold.map_or(Ok(false), |cold| archive.is_one_file_system(cold))?;
    let (mut entries, mut contents) = (Vec::new(), std::collections::BTreeMap::new());
    for found in archive.find(&search)? {
        let Look::Day(period) = rule.look(&found.path) else { continue };
        let mut entry = Entry { path: found.path, period, archived: found.placed, seen: None };
        if super::by_name(&entry, rule, zone, now_ns).is_none() {
            let seen = archive.examine(&entry.path)?;
            let open = conflicts.iter().filter(|conflict| entry.path.contains(conflict)).count() as u64;
            entry.seen = Some(Seen {
                bytes: seen.bytes,
                newest_ns: match tells(seen.newest_ctime_ns) {
                    true => seen.newest_mtime_ns.max(seen.newest_ctime_ns),
                    false => seen.newest_mtime_ns,
                },
                open,
                peers: if rule.min_peers > 0 { ground.holders(&entry.path, archive.monitor())? } else { 0 },
                obstacle: obstacle(&seen, one_disk),
            });
            contents.insert(entry.path.clone(), seen);
        }
        entries.push(entry);
    }
    if !time.trial && !accept_clock {
        check_clock(&time.moment, None, contents.values().map(|seen| (seen.newest_ctime_ns, &seen.newest)).max())?;
    }
    let verdicts = super::decide(&entries, rule, zone, now_ns).into_iter();
    let day = |verdict: super::Verdict| {
        let contents = contents.remove(&verdict.path);
        Day { path: verdict.path, period: verdict.period, decision: verdict.decision, contents }
    };
    Ok(verdicts.map(day).collect())
}

fn obstacle(seen: &Contents, one_disk: bool) -> Option<Obstacle> {
    let found = match &seen.obstacle {
        // On one file system the names of a file stay names of one file.
        Some(Found::HardLink(_)) if one_disk && seen.link_out.is_none() => None,
        Some(Found::HardLink(path)) => Some(Obstacle::HardLinkLeaves(path.clone())),
        Some(Found::Special(path)) => Some(Obstacle::Special(path.clone())),
        Some(Found::Winding(path)) => Some(Obstacle::LinkFixed(path.clone())),
        Some(Found::Mount(path)) => Some(Obstacle::Mount(path.clone())),
        Some(Found::Private(path)) => Some(Obstacle::Root(path.clone())),
        Some(Found::Name(path)) => Some(Obstacle::Unreadable(path.clone(), "a name that no replica could have".into())),
        Some(Found::Unreadable(path, why)) => Some(Obstacle::Unreadable(path.clone(), why.clone())),
        None => None,
    };
    found.or_else(|| seen.link_out.clone().map(Obstacle::LinkLeaves))
}

/// Recovers, looks after days that moved before, and moves those whose time has come.
///
/// # Errors
/// What stops the whole run; what was done until then is done.
pub fn run(
    (ground, archive): (&dyn Ground, &Archive<'_>),
    order: &Order,
    (time, accept_clock): (&Time, bool),
    told: &mut dyn Told,
) -> Result<Report, RunError> {
    let mut report = Report::default();
    recover(archive, told, &mut report)?;
    archive.check_usable(&order.cold)?;
    let cold = archive.cold(&order.cold)?;
    if !accept_clock {
        check_clock(&time.moment, last(ground, time.trial)?.as_ref(), None)?;
    }
    look_at_links(ground, archive, order, (&mut *told, &mut report))?;
    let days = look_by((ground, archive), order, Some(&cold), (time, accept_clock))?;
    remember(ground, time)?;
    let options = MoveOptions {
        form: order.form.clone(),
        rewrite: order.rule.outside_links == super::OutsideLinks::Rewrite,
        keep: order.keep,
    };
    for day in &days {
        match &day.decision {
            Decision::Stay(reason) => {
                report.held += u64::from(is_held(reason));
                told.day(day, None);
            }
            Decision::Move => {
                let result = archive.move_day(&day.path, &cold, &options);
                told.day(day, Some(&result));
                match result {
                    Ok(moved) => {
                        report.moved += 1;
                        report.total.files += moved.files;
                        report.total.bytes += moved.bytes;
                        report.total.copied += moved.copied;
                        report.total.reread += moved.reread;
                    }
                    Err(error) if error.ends_run() => return Err(error.into()),
                    Err(ArchiveError::Changed(_)) => report.changed += 1,
                    Err(_) => report.failed += 1,
                }
            }
        }
    }
    settle_by((ground, archive), time, accept_clock, (told, &mut report))?;
    Ok(report)
}

/// Does something in the day keep it, that somebody should look at?
#[must_use]
pub fn is_held(reason: &Reason) -> bool {
    matches!(reason, Reason::Open(_) | Reason::Peers { .. } | Reason::Obstacle(_))
}

/// Finishes what a crash left; to be called before anything else.
///
/// # Errors
/// The journal cannot be read.
pub fn recover(archive: &Archive<'_>, told: &mut dyn Told, report: &mut Report) -> Result<(), RunError> {
    let recovered = archive.recover()?;
    for path in &recovered.finished {
        told.notice(&format!("{path}: a move that was interrupted was finished"));
    }
    for path in &recovered.given_up {
        told.notice(&format!("{path}: a move that was interrupted was given up; it is where it was"));
    }
    for (path, error) in &recovered.problems {
        told.problem(path, error);
        report.failed += 1;
    }
    Ok(())
}

/// Late writes are brought over, and old directories go when their time has come: by a clock that can be believed, else none does.
///
/// # Errors
/// The journal cannot be read.
pub fn settle(
    (ground, archive): (&dyn Ground, &Archive<'_>),
    time: &Time,
    (told, report): (&mut dyn Told, &mut Report),
) -> Result<(), RunError> {
    settle_by((ground, archive), time, false, (told, report))
}

fn settle_by(
    (ground, archive): (&dyn Ground, &Archive<'_>),
    time: &Time,
    accept_clock: bool,
    (told, report): (&mut dyn Told, &mut Report),
) -> Result<(), RunError> {
    told.settles();
    // What is kept is kept by the machine's clock; in a trial by whichever is later.
    let real = Time::now(None);
    let now_ns = real.moment.now_ns;
    let jump = match accept_clock {
        true => Ok(()),
        false => believed(ground, time).and_then(|()| if time.trial { believed(ground, &real) } else { Ok(()) }),
    };
    let now_ns = match jump {
        Ok(()) if time.trial => now_ns.max(time.moment.now_ns),
        Ok(()) => now_ns,
        Err(RunError::Clock(jump)) => {
            told.notice(&format!(
                "{jump}: no old copy of a day is removed. If the clock is right now, run once with --accept-clock"
            ));
            i64::MIN
        }
        Err(error) => return Err(error),
    };
    let settled = archive.settle_displaced(now_ns)?;
    report.removed += settled.removed;
    for (path, error) in &settled.problems {
        told.problem(path, error);
        report.failed += 1;
    }
    report.late.extend(settled.merged);
    Ok(())
}

fn believed(ground: &dyn Ground, time: &Time) -> Result<(), RunError> {
    Ok(check_clock(&time.moment, last(ground, time.trial)?.as_ref(), None)?)
}

/// A day that was made anew is merged with its archive, and the link of each reads as the rule says.
fn look_at_links(
    ground: &dyn Ground,
    archive: &Archive<'_>,
    order: &Order,
    (told, report): (&mut dyn Told, &mut Report),
) -> Result<(), RunError> {
    for path in ground.placed() {
        let link = archive.merge_anew(&path, order.keep).and_then(|merged| {
            if let Some(merged) = merged {
                told.notice(&format!("{path}: it was made anew beside its archive; the two are one again"));
                report.merged.push(path.clone());
                report.beside.extend(merged.beside);
            }
            archive.relink(&path, &order.form)
        });
        match link {
            Ok(changed) => report.relinked += u64::from(changed),
            Err(error) if error.ends_run() => return Err(error.into()),
            Err(error) => {
                told.problem(&path, &error);
                report.failed += 1;
            }
        }
    }
    Ok(())
}

/// The clock of the last run that believed it, if there was one.
pub(crate) fn last(ground: &dyn Ground, trial: bool) -> Result<Option<Moment>, RunError> {
    let Some(bytes) = ground.note(CLOCKS[usize::from(trial)])? else { return Ok(None) };
    let wrong = |error| RunError::Note(format!("the remembered clock of the last archiving run cannot be read ({error})"));
    let clock: Remembered = serde_json::from_slice(&bytes).map_err(wrong)?;
    Ok(Some(Moment { now_ns: clock.now_ns, up_ns: clock.up_ns, boot: clock.boot }))
}

fn remember(ground: &dyn Ground, time: &Time) -> Result<(), RunError> {
    let Moment { now_ns, up_ns, boot } = time.moment.clone();
    let bytes = serde_json::to_vec(&Remembered { now_ns, up_ns, boot }).map_err(|error| RunError::Note(error.to_string()))?;
    Ok(ground.put_note(CLOCKS[usize::from(time.trial)], &bytes)?)
}

/// A rule in a few words: where its days are.
#[must_use]
pub fn describe(rule: &Rule) -> String {
    let under = rule.under.as_ref().map_or(String::new(), |under| format!(" below {}", under.text()));
    format!("{}{under}", rule.layout.text())
}
