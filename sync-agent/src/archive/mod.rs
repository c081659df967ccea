//! Which days of a tree move to cold storage, and why the others do not. Pure but for `run` and `choose`: what was found in the tree, the rule, the
//! zone and the time are arguments.

mod choose;
mod clock;
mod layout;
pub mod run;
mod schedule;
mod terms;
mod under;

pub use choose::Chooser;
pub use clock::{AHEAD, BACK, Jump, Moment, check as check_clock, end_ns};
pub use layout::{Layout, Period, Step, Unit};
pub use schedule::next_ns;
pub use terms::{Order, Terms};
pub use under::{Fit, Under};

use chrono::TimeZone;
use std::fmt;
use std::time::Duration;
use sync_core::ignore::Rules;
use sync_core::path::{Name, RelPath};

/// Youngest age by which days may be archived: today's files, and those of a day that is still going on somewhere, stay hot.
pub const YOUNGEST: Duration = Duration::from_secs(24 * 3600);

/// What becomes of a day with symbolic links that lead out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutsideLinks {
    /// It is not archived.
    Skip,
    /// They are written so that they lead to the same place from there.
    Rewrite,
}

/// Which days are archived.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Where the days are.
    pub layout: Layout,
    /// Below which folders; `None`: below the root itself.
    pub under: Option<Under>,
    /// Days, and folders with days, that are left alone.
    pub exclude: Rules,
    /// Time since a day ended.
    pub older_than: Duration,
    /// Time since the last change of anything in it.
    pub quiet: Duration,
    /// What becomes of days with links that lead out of them.
    pub outside_links: OutsideLinks,
    /// So many peers must be known to have a day.
    pub min_peers: usize,
    /// Most days of one run; `None`: all.
    pub most_days: Option<usize>,
    /// Most bytes of one run; one day goes in any case. `None`: all.
    pub most_bytes: Option<u64>,
}

/// The directory of a day that was found in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub path: RelPath,
    /// Which day.
    pub period: Period,
    /// A link of ours stands in its place.
    pub archived: bool,
    /// What is in it; not needed for one that stays by its name alone ([`by_name`]).
    pub seen: Option<Seen>,
}

/// What was seen in a day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Bytes of its files.
    pub bytes: u64,
    /// The latest time of any change, ns since 1970.
    pub newest_ns: i64,
    /// Open conflicts and problems in it.
    pub open: u64,
    /// Peers that are known to have all of it.
    pub peers: usize,
    /// What cannot be moved as it is.
    pub obstacle: Option<Obstacle>,
}

/// What in a day cannot be moved as it is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// A device, pipe or socket.
    Special(RelPath),
    /// A relative symbolic link that leads out of the day.
    LinkLeaves(RelPath),
    /// The same, and written so that it cannot be written for another place.
    LinkFixed(RelPath),
    /// A file that has another name outside of the day.
    HardLinkLeaves(RelPath),
    /// Another file system is mounted at or in the day.
    Mount(RelPath),
    /// A private folder of driftless: another root lies in the day.
    Root(RelPath),
    /// It cannot be looked at.
    Unreadable(RelPath, String),
}

/// What becomes of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It moves.
    Move,
    /// It stays where it is.
    Stay(Reason),
}

/// Why a day is not moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It is in cold storage.
    Archived,
    /// A rule excludes it.
    Excluded,
    /// It has not been over for long enough until then.
    Young {
        /// ns since 1970.
        until_ns: i64,
    },
    /// Something in it changed, so that it is not quiet for long enough until then.
    NotQuiet {
        /// ns since 1970.
        until_ns: i64,
    },
    /// So many conflicts and problems are open in it.
    Open(u64),
    /// Too few peers are known to have it.
    Peers {
        /// So many are.
        known: usize,
        /// So many must be.
        wanted: usize,
    },
    /// Something in it cannot be moved.
    Obstacle(Obstacle),
    /// This run moves no more.
    Later,
}

/// A day, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Where.
    pub path: RelPath,
    /// Which day.
    pub period: Period,
    /// What becomes of it.
    pub decision: Decision,
}

/// Where a path of the tree lies to a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It is the directory of a day, unless something else than a directory stands there.
    Day(Period),
    /// Days may lie below it.
    Onward,
    /// Neither.
    No,
}

/// A rule that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(String);

impl Rule {
    /// Does the rule make sense?
    ///
    /// # Errors
    /// It would match today or the future.
    pub fn check(&self) -> Result<(), RuleError> {
        if self.older_than < YOUNGEST {
            let age = clock::words(&self.older_than);
            return Err(RuleError(format!(
                "days would be archived {age} after their end, and at least a day is needed: today's files stay hot \
                 (--older-than 1d or more)"
            )));
        }
        Ok(())
    }

    /// Where a path of the tree lies to the rule. Of days within days the outermost counts: whoever walks the tree goes no deeper.
    #[must_use]
    pub fn look(&self, path: &RelPath) -> Look {
        let names: Vec<Name> = path.components().collect();
        let mut onward = false;
        for at in 0..=names.len() {
            let (base, below) = names.split_at(at);
            let fit = match &self.under {
                None => Fit { whole: at == 0, beginning: false },
                Some(under) => under.fit(base),
            };
            // Folders that fit may lie below this path.
            onward |= below.is_empty() && fit.beginning;
            if fit.whole {
                match self.layout.step(below) {
                    Step::Period(period) => return Look::Day(period),
                    Step::Onward => onward = true,
                    Step::No => {}
                }
            }
            if self.under.is_none() {
                break;
            }
        }
        if onward { Look::Onward } else { Look::No }
    }
}

/// Why a day stays, as far as its name tells; `None`: it must be looked at.
#[must_use]
pub fn by_name(entry: &Entry, rule: &Rule, zone: &impl TimeZone, now_ns: i64) -> Option<Reason> {
    if entry.archived {
        return Some(Reason::Archived);
    }
    if rule.exclude.ignores(&entry.path, true) {
        return Some(Reason::Excluded);
    }
    // What ends beyond all times that can be counted has not ended.
    let until_ns = end_ns(entry.period, zone).map_or(i64::MAX, |end| later(end, rule.older_than.max(YOUNGEST)));
    (now_ns < until_ns).then_some(Reason::Young { until_ns })
}

/// Decides on every day, the oldest first. A day that was not looked at, although its name does not keep it, stays for later.
#[must_use]
pub fn decide(entries: &[Entry], rule: &Rule, zone: &impl TimeZone, now_ns: i64) -> Vec<Verdict> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| (a.period, &a.path).cmp(&(b.period, &b.path)));
    let (mut days, mut bytes) = (0usize, 0u64);
    let decide = |entry: &Entry| {
        if let Some(reason) = by_name(entry, rule, zone, now_ns) {
            return Decision::Stay(reason);
        }
        let Some(seen) = &entry.seen else { return Decision::Stay(Reason::Later) };
        if let Some(reason) = by_content(seen, rule, now_ns) {
            return Decision::Stay(reason);
        }
        let more = bytes.saturating_add(seen.bytes);
        if rule.most_days.is_some_and(|most| days >= most) || (days > 0 && rule.most_bytes.is_some_and(|most| more > most)) {
            return Decision::Stay(Reason::Later);
        }
        (days, bytes) = (days + 1, more);
        Decision::Move
    };
    let mut decide = decide;
    let verdict = |entry: &Entry| Verdict { path: entry.path.clone(), period: entry.period, decision: decide(entry) };
    sorted.into_iter().map(verdict).collect()
}

fn by_content(seen: &Seen, rule: &Rule, now_ns: i64) -> Option<Reason> {
    match &seen.obstacle {
        // The rule says how.
        Some(Obstacle::LinkLeaves(_)) if rule.outside_links == OutsideLinks::Rewrite => {}
        Some(obstacle) => return Some(Reason::Obstacle(obstacle.clone())),
        None => {}
    }
    if seen.open > 0 {
        return Some(Reason::Open(seen.open));
    }
    let until_ns = later(seen.newest_ns, rule.quiet);
    if now_ns < until_ns && !rule.quiet.is_zero() {
        return Some(Reason::NotQuiet { until_ns });
    }
    (seen.peers < rule.min_peers).then_some(Reason::Peers { known: seen.peers, wanted: rule.min_peers })
}

fn later(ns: i64, by: Duration) -> i64 {
    ns.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX))
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Special(path) => write!(f, "{path} is a device, pipe or socket"),
            Obstacle::LinkLeaves(path) => {
                write!(f, "the link {path} leads out of the day (--outside-links rewrite writes it anew)")
            }
            Obstacle::LinkFixed(path) => {
                write!(f, "the link {path} leads out of the day, and cannot be written for another place")
            }
            Obstacle::HardLinkLeaves(path) => write!(f, "{path} has another name outside of the day"),
            Obstacle::Mount(path) => write!(f, "another file system is mounted at {path}"),
            Obstacle::Root(path) => write!(f, "{path} belongs to another root of driftless"),
            Obstacle::Unreadable(path, why) => write!(f, "{path} cannot be looked at: {why}"),
        }
    }
}

impl Reason {
    /// One word for it, by which days are counted.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Reason::Archived => "archived",
            Reason::Excluded => "excluded",
            Reason::Young { .. } => "young",
            Reason::NotQuiet { .. } => "not-quiet",
            Reason::Open(_) => "open",
            Reason::Peers { .. } => "peers",
            Reason::Obstacle(_) => "obstacle",
            Reason::Later => "later",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Archived => f.write_str("archived already"),
            Reason::Excluded => f.write_str("excluded by the rule"),
            Reason::Young { until_ns } => write!(f, "too young until {}", time(*until_ns)),
            Reason::NotQuiet { until_ns } => write!(f, "changed lately: not quiet until {}", time(*until_ns)),
            Reason::Open(count) => write!(f, "{count} conflicts or problems are open in it"),
            Reason::Peers { known, wanted } => write!(f, "{known} peers are known to have it, and {wanted} must"),
            Reason::Obstacle(obstacle) => obstacle.fmt(f),
            Reason::Later => f.write_str("this run moves no more; the next one goes on"),
        }
    }
}

/// A moment as text, for people.
#[must_use]
pub fn time(ns: i64) -> String {
    chrono::DateTime::from_timestamp_nanos(ns).format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;
