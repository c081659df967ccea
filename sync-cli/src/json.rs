//! The JSON lines, as the contract with users has them. Nothing here decides anything.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat};
use serde::Serialize;
use sync_core::entry::Kind;
use sync_core::io::sync::Side;
use sync_core::path::RelPath;
use sync_core::plan::{Item, Verb};
use sync_core::report::{Phase, Problem};

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event {
    /// What a run is about to do.
    Plan { items: u64, bytes: u64 },
    /// One path, planned or done.
    Item(ItemLine),
    /// How far a run is.
    Progress(ProgressLine),
    /// One path that failed.
    Problem(ProblemLine),
    /// Two roots are kept in sync from here on, or again.
    Watching { in_sync: bool, conflicts: u64, failed: u64 },
    /// They are not at present, and why.
    Waiting { error: String },
    /// The end of `sync`, `watch` and `status`.
    Summary(SummaryLine),
}

/// A path, and its bytes where they are not UTF-8.
#[derive(Debug, Serialize)]
pub(crate) struct PathFields {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
}

/// Fields of `item`.
#[derive(Debug, Serialize)]
pub(crate) struct ItemLine {
    #[serde(flatten)]
    path: PathFields,
    kind: &'static str,
    action: &'static str,
    direction: &'static str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_bytes: Option<String>,
}

/// Fields of `progress`; totals are null where they are unknown.
#[derive(Debug, Serialize)]
pub(crate) struct ProgressLine {
    pub(crate) phase: &'static str,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) files_total: Option<u64>,
    pub(crate) bytes_total: Option<u64>,
}

/// Fields of `problem`.
#[derive(Debug, Serialize)]
pub(crate) struct ProblemLine {
    #[serde(flatten)]
    path: PathFields,
    step: &'static str,
    error: String,
}

/// Fields of `summary`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct SummaryLine {
    pub(crate) in_sync: bool,
    pub(crate) created: u64,
    pub(crate) updated: u64,
    pub(crate) deleted: u64,
    pub(crate) moved: u64,
    pub(crate) conflicts: u64,
    pub(crate) skipped: u64,
    pub(crate) failed: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) scan_ms: u64,
    pub(crate) total_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl PathFields {
    /// The fields of a path; the root itself is ".".
    pub(crate) fn of(path: &RelPath) -> PathFields {
        let (path, path_bytes) = path_text(path);
        PathFields { path, path_bytes }
    }
}

impl ItemLine {
    /// The fields of an item. `side` is the one that changes; `None`: neither does.
    pub(crate) fn of(item: &Item, side: Option<Side>, result: &'static str) -> ItemLine {
        let (from, from_bytes) = match &item.from {
            Some(from) => {
                let (text, bytes) = path_text(from);
                (Some(text), bytes)
            }
            None => (None, None),
        };
        ItemLine {
            path: PathFields::of(&item.path),
            kind: kind(item.kind),
            action: action(item.verb),
            direction: direction(side),
            result,
            reason: item.reason,
            from,
            from_bytes,
        }
    }
}

impl ProblemLine {
    /// The fields of a problem.
    pub(crate) fn of(problem: &Problem) -> ProblemLine {
        ProblemLine { path: PathFields::of(&problem.path), step: problem.step, error: problem.error.clone() }
    }
}

/// The word for a kind.
pub(crate) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Dir => "dir",
        Kind::File => "file",
        Kind::Symlink => "symlink",
    }
}

/// The word for what happens.
pub(crate) fn action(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "create",
        Verb::Update => "update",
        Verb::Delete => "delete",
        Verb::Move => "move",
        Verb::Meta => "meta",
        Verb::Conflict => "conflict",
    }
}

/// The word for a part of a run.
pub(crate) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Scan => "scan",
        Phase::Compare => "compare",
        Phase::Plan => "plan",
        Phase::Apply => "apply",
    }
}

/// A time in nanoseconds since 1970, exact, as RFC 3339 in UTC.
pub(crate) fn time(ns: i64) -> String {
    DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

fn direction(side: Option<Side>) -> &'static str {
    match side {
        Some(Side::B) => "a-to-b",
        Some(Side::A) => "b-to-a",
        None => "none",
    }
}

fn path_text(path: &RelPath) -> (String, Option<String>) {
    if path.is_root() {
        return (".".into(), None);
    }
    match std::str::from_utf8(path.as_bytes()) {
        Ok(text) => (text.into(), None),
        Err(_) => (String::from_utf8_lossy(path.as_bytes()).into_owned(), Some(STANDARD.encode(path.as_bytes()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &[u8]) -> Item {
        Item {
            path: RelPath::parse(path).unwrap(),
            kind: Kind::File,
            verb: Verb::Move,
            from: Some(RelPath::parse(b"old").unwrap()),
            bytes: 0,
            reason: None,
        }
    }

    #[test]
    fn a_path_that_is_not_utf8_comes_with_its_bytes() {
        let line = Event::Item(ItemLine::of(&item(b"caf\xe9"), Some(Side::B), "done"));
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            "{\"event\":\"item\",\"path\":\"caf\u{fffd}\",\"path_bytes\":\"Y2Fm6Q==\",\"kind\":\"file\",\
             \"action\":\"move\",\"direction\":\"a-to-b\",\"result\":\"done\",\"from\":\"old\"}"
        );
    }

    #[test]
    fn the_summary_has_the_fields_of_the_contract() {
        let value = serde_json::to_value(Event::Summary(SummaryLine::default())).unwrap();
        let mut names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names.join(" "),
            "bytes_received bytes_sent conflicts created deleted event failed in_sync moved scan_ms skipped \
             total_ms updated"
        );
    }

    #[test]
    fn times_keep_their_nanoseconds() {
        assert_eq!(time(1_772_668_801_123_456_789), "2026-03-05T00:00:01.123456789Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59.999999999Z");
    }
}
