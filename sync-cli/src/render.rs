//! Plans, results and numbers as text for people. Every name is escaped here, once. Pure.

use crate::json;
use crate::location::Location;
use crate::tally::{Tally, index};
use chrono::{DateTime, Local};
use indicatif::{BinaryBytes, HumanCount};
use std::path::Path;
use std::time::Duration;
use sync_core::io::sync::{Side, Totals};
use sync_core::path::{RelPath, escape};
use sync_core::plan::{Item, Verb};
use sync_core::report::{Done, Problem};

/// Problems and conflicts that are listed in full; the rest is a number.
pub(crate) const LISTED: usize = 20;

/// A root, safe to print.
pub(crate) fn root(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

/// The head above all that changes on one side: "/srv/a → /srv/b".
pub(crate) fn direction(side: Side, roots: [&Location; 2]) -> String {
    let (from, to) = match side {
        Side::B => (roots[0], roots[1]),
        Side::A => (roots[1], roots[0]),
    };
    format!("{from} → {to}")
}

/// One planned item, below the head of its side.
pub(crate) fn planned_item(item: &Item) -> String {
    format!("  {}", item_text(item))
}

/// One item that was done, with its direction.
pub(crate) fn done_item(item: &Item, side: Option<Side>, done: Done) -> String {
    let arrow = match side {
        Some(Side::B) => "A → B",
        Some(Side::A) => "B → A",
        None => "     ",
    };
    let result = match done {
        Done::Done => "",
        Done::Skipped => "  left as it is",
        Done::Failed => "  FAILED",
    };
    format!("{arrow}  {}{result}", item_text(item))
}

fn item_text(item: &Item) -> String {
    let slash = if item.kind == sync_core::entry::Kind::Dir { "/" } else { "" };
    let from = item.from.as_ref().map_or(String::new(), |from| format!("  (from {from}{slash})"));
    let size = match item.verb {
        Verb::Create | Verb::Update | Verb::Conflict if item.bytes > 0 => {
            format!("  ({})", bytes(item.bytes))
        }
        _ => String::new(),
    };
    let reason = item.reason.map_or(String::new(), |reason| format!("  [{reason}]"));
    format!("{:8}  {}{slash}{from}{size}{reason}", json::action(item.verb), item.path)
}

/// Open conflicts, one line each, the first [`LISTED`] of them unless `all`.
pub(crate) fn conflicts_left(tally: &Tally, all: bool) -> Vec<String> {
    let shown = if all { usize::MAX } else { LISTED };
    let mut lines: Vec<String> =
        tally.left.iter().take(shown).map(|(path, left)| format!("  {:8}  {path}  [{}]", "conflict", left.reason)).collect();
    if let Some(more) = tally.left.len().checked_sub(shown).filter(|more| *more > 0) {
        lines.push(format!("  … and {} more", count(more as u64)));
    }
    lines
}

/// What happens on one side in words, "12 created, 1 deleted"; `None` if nothing does.
pub(crate) fn changes(totals: &Totals, words: [&str; 4]) -> Option<String> {
    let numbers = [totals.created, totals.updated, totals.deleted, totals.moved];
    let parts: Vec<String> = numbers
        .iter()
        .zip(words)
        .filter(|(number, _)| **number > 0)
        .map(|(number, word)| format!("{} {word}", count(*number)))
        .collect();
    if parts.is_empty() { None } else { Some(parts.join(", ")) }
}

/// Words for what was done.
pub(crate) const DONE: [&str; 4] = ["created", "updated", "deleted", "moved"];
/// Words for what is planned.
pub(crate) const PLANNED: [&str; 4] = ["to create", "to update", "to delete", "to move"];

/// What [`both_sides`] says if neither side changes.
pub(crate) const NOTHING: &str = "nothing";

/// Both sides in one line; [`NOTHING`] if neither changes.
pub(crate) fn both_sides(totals: &[Totals; 2], words: [&str; 4]) -> String {
    let parts: Vec<String> = [("A → B", Side::B), ("B → A", Side::A)]
        .into_iter()
        .filter_map(|(arrow, side)| Some(format!("{arrow}: {}", changes(&totals[index(side)], words)?)))
        .collect();
    if parts.is_empty() { NOTHING.into() } else { parts.join("; ") }
}

/// The line below a plan: "A → B: 2 to create; 1 conflict left open; 4.50 MiB".
pub(crate) fn plan_total(totals: &[Totals; 2], left: u64, size: u64) -> String {
    let mut parts = vec![both_sides(totals, PLANNED)];
    if left > 0 {
        parts.push(format!("{} left open", counted(left, "conflict", "conflicts")));
    }
    if size > 0 {
        parts.push(bytes(size));
    }
    parts.join("; ")
}

/// "4.50 MiB in 1.2 s, 3.75 MiB/s"; no rate where nothing was copied.
pub(crate) fn volume(size: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if size == 0 || seconds <= 0.0 {
        return format!("in {}", duration(time));
    }
    let rate = size as f64 / seconds;
    format!("{} in {}, {}/s", bytes(size), duration(time), bytes(rate as u64))
}

/// Characters of a path or of an error beyond which its middle is left out.
const LONGEST: usize = 300;

/// A problem in one line. The JSON lines have the whole path.
pub(crate) fn problem(root: &Location, problem: &Problem) -> String {
    let place = match problem.path.is_root() {
        true => root.to_string(),
        false => format!("{}/{}", root.to_string().trim_end_matches('/'), problem.path),
    };
    let error = escape(problem.error.as_bytes());
    format!("failed: {}: {}: {}", shortened(&place), problem.step, shortened(&error))
}

/// The same where it is not known in which root.
pub(crate) fn problem_alone(problem: &Problem) -> String {
    let error = escape(problem.error.as_bytes());
    format!("failed: {}: {}: {}", shortened(&problem.path.to_string()), problem.step, shortened(&error))
}

/// The text without its middle, if it is longer than anybody reads.
fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= LONGEST {
        return text.into();
    }
    let head: String = text.chars().take(LONGEST / 2).collect();
    let tail: String = text.chars().skip(count - LONGEST / 2).collect();
    format!("{head} … {tail}")
}

/// Thousands separated: "1,234".
pub(crate) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// "1 path", "1,234 paths".
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// "4.50 MiB".
pub(crate) fn bytes(size: u64) -> String {
    BinaryBytes(size).to_string()
}

/// A moment in the user's time zone.
pub(crate) fn moment(ns: i64) -> String {
    DateTime::from_timestamp_nanos(ns).with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// A path as it can be typed behind a command: quoted where a shell would read it otherwise.
pub(crate) fn argument(path: &RelPath) -> String {
    quoted(&path.to_string())
}

/// Text as one word of a shell.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./+,=@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// "1.2 s", "3 min 4 s".
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_core::entry::Kind;

    fn item(path: &[u8], verb: Verb) -> Item {
        let path = RelPath::parse(path).unwrap();
        Item { path, kind: Kind::File, verb, from: None, bytes: 2048, reason: None }
    }

    #[test]
    fn names_are_escaped_in_every_line() {
        let line = planned_item(&item(b"a\n\x1b[2J\xff", Verb::Create));
        assert_eq!(line, "  create    a\\u{a}\\u{1b}[2J\\xff  (2.00 KiB)");
    }

    #[test]
    fn a_move_names_both_places() {
        let mut moved = item(b"new", Verb::Move);
        moved.from = Some(RelPath::parse(b"old").unwrap());
        moved.kind = Kind::Dir;
        assert_eq!(done_item(&moved, Some(Side::B), Done::Done), "A → B  move      new/  (from old/)");
    }

    #[test]
    fn a_summary_names_only_what_happened() {
        let b = Totals { created: 1234, moved: 2, ..Totals::default() };
        let a = Totals { deleted: 1, ..Totals::default() };
        assert_eq!(both_sides(&[a, b], DONE), "A → B: 1,234 created, 2 moved; B → A: 1 deleted");
        assert_eq!(both_sides(&[Totals::default(); 2], DONE), "nothing");
        assert_eq!(volume(0, Duration::from_millis(1234)), "in 1.2 s");
        assert_eq!(volume(2048, Duration::from_secs(2)), "2.00 KiB in 2.0 s, 1.00 KiB/s");
        assert_eq!(duration(Duration::from_secs(3725)), "1 h 2 min");
    }

    #[test]
    fn a_path_longer_than_anybody_reads_loses_its_middle() {
        let path = RelPath::parse([&b"top"[..], &[b"/d".as_slice(); 200].concat(), b"/end"].concat().as_slice()).unwrap();
        let line = problem(&Location::Local("/r".into()), &Problem { path, step: "list", error: "too deep".into() });
        assert!(line.starts_with("failed: /r/top/d/") && line.ends_with("/d/end: list: too deep"), "{line}");
        assert!(line.contains(" … ") && line.chars().count() < 340, "{line}");
    }

    #[test]
    fn a_word_for_the_shell_is_quoted_where_needed() {
        for (text, word) in [("a/b.txt", "a/b.txt"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("", "''")] {
            assert_eq!(quoted(text), word);
        }
    }
}
