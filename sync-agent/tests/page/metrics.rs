//! The metrics, read back by somebody strict.

use crate::made_up::World;
use std::collections::{BTreeMap, BTreeSet};
use sync_agent::metrics::text;
use sync_agent::status::Status;

type Labels = BTreeMap<String, String>;

/// Values by metric and labels.
#[derive(Default)]
struct Read(BTreeMap<String, BTreeMap<Labels, f64>>);

impl Read {
    /// Each metric once, with its HELP and TYPE right before its samples; no sample twice.
    fn of(text: &str) -> Read {
        let mut read = Read::default();
        let mut lines = text.strip_suffix('\n').expect("a line end").split('\n').peekable();
        while let Some(line) = lines.next() {
            let (name, help) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect(line);
            assert!(!help.is_empty() && is_name(name, true) && name.starts_with("driftless_"), "{line}");
            assert_eq!(lines.next(), Some(&*format!("# TYPE {name} gauge")));
            let mut samples = BTreeMap::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let (labels, value) = sample(line.strip_prefix(name).expect(line));
                assert!(samples.insert(labels, value).is_none(), "twice: {line}");
            }
            assert!(!samples.is_empty(), "{name} has no sample");
            assert!(read.0.insert(name.to_owned(), samples).is_none(), "{name} stands there twice");
        }
        read
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |all: &Labels| labels.iter().all(|(key, value)| all.get(*key).is_some_and(|own| own == value));
        let found: Vec<f64> = self.0.get(name)?.iter().filter(|(all, _)| has(all)).map(|(_, value)| *value).collect();
        assert!(found.len() <= 1, "{name} {labels:?} is not one");
        found.first().copied()
    }
}

fn is_name(name: &str, colon: bool) -> bool {
    let may = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':');
    name.chars().all(may) && name.starts_with(|c: char| !c.is_ascii_digit())
}

/// `{key="value",…} number`.
fn sample(text: &str) -> (Labels, f64) {
    let mut labels = Labels::new();
    let mut rest = text;
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (key, after) = rest.split_once("=\"").expect(text);
            assert!(is_name(key, false), "{text}");
            let (value, after) = quoted(after);
            assert!(labels.insert(key.to_owned(), value).is_none(), "{text}");
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None => break rest = after.strip_prefix('}').expect(text),
            }
        }
    }
    (labels, rest.strip_prefix(' ').expect(text).parse().expect(text))
}

/// Up to the quote that ends it.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, c @ ('"' | '\\'))) => c,
                other => panic!("no escape: {other:?}"),
            }),
            '\n' => panic!("a line end within a label"),
            c => value.push(c),
        }
    }
    panic!("no end: {text}")
}

fn trouble() -> Status {
    World::at(1_795_000_000_123_000_000).trouble()
}

#[test]
fn everything_that_is_known_is_a_number() {
    let read = Read::of(&text(&trouble()));
    let folder = [("folder", "hot")];
    let lag = |peer, direction| [("folder", "hot"), ("peer", peer), ("direction", direction)];
    for (name, labels, value) in [
        ("driftless_in_sync", &[][..], 0.0),
        ("driftless_notices", &[], 1.0),
        ("driftless_start_time_seconds", &[], 1_794_800_000.123),
        ("driftless_folder_paths", &folder, 1_234_567.0),
        ("driftless_folder_conflicts", &folder, 22.0),
        ("driftless_folder_problems", &folder, 3.0),
        ("driftless_folder_kept_bytes", &folder, 3_221_225_472.0),
        ("driftless_folder_watches", &folder, 3_000.0),
        ("driftless_archive_days", &[("folder", "hot"), ("state", "archived")], 1_204.0),
        ("driftless_archive_days", &[("folder", "hot"), ("state", "obstacle")], 2.0),
        ("driftless_archive_waiting_bytes", &folder, 7_516_192_768.0),
        ("driftless_archive_last_run_well", &folder, 0.0),
        ("driftless_archive_damaged_files", &folder, 1.0),
        ("driftless_archive_repaired_files_total", &folder, 5.0),
        ("driftless_folder_state", &[("folder", "hot"), ("state", "syncing")], 1.0),
        ("driftless_folder_state", &[("folder", "hot"), ("state", "watching")], 0.0),
        ("driftless_peer_connected", &[("folder", "hot"), ("peer", "old-one")], 0.0),
        ("driftless_peer_behind_files", &lag("web-us-east-1", "in"), 1_234.0),
        ("driftless_peer_behind_files", &lag("web-us-east-1", "out"), 1.0),
        ("driftless_peer_behind_bytes", &lag("web-sg-1", "out"), 0.0),
        ("driftless_link_rtt_seconds", &[("from", "web-hk-1"), ("to", "web-us-east-1")], 0.182),
        ("driftless_link_loss_ratio", &[("from", "web-us-east-1"), ("to", "web-hk-1")], 0.043),
        ("driftless_link_reachable", &[("from", "backup-frankfurt-2"), ("to", "web-hk-1")], 0.0),
        ("driftless_link_connected", &[("from", "backup-frankfurt-2"), ("to", "web-hk-1")], 1.0),
    ] {
        assert_eq!(read.value(name, labels), Some(value), "{name} {labels:?}");
    }
    assert_eq!(Read::of(&text(&World::at(0).even())).value("driftless_in_sync", &[]), Some(1.0));
    assert_eq!(Read::of(&text(&World::at(0).crowd(30))).0["driftless_machine_heard_timestamp_seconds"].len(), 30);
}

#[test]
fn what_is_not_known_is_left_out_and_never_zero() {
    let read = Read::of(&text(&trouble()));
    let cold = [("folder", "cold")];
    for name in ["paths", "bytes", "conflicts", "kept_versions", "kept_bytes", "watches_needed", "last_change_timestamp_seconds"]
    {
        assert_eq!(read.value(&format!("driftless_folder_{name}"), &cold), None, "{name}");
    }
    assert_eq!(read.value("driftless_peer_behind_files", &[("folder", "hot"), ("peer", "old-one"), ("direction", "in")]), None);
    assert_eq!(read.value("driftless_link_rtt_seconds", &[("from", "web-us-east-1"), ("to", "backup-frankfurt-2")]), None);
    let mut odd = trouble();
    odd.links.iter_mut().filter_map(|link| link.quality.as_mut()).for_each(|quality| quality.loss = f64::NAN);
    assert!(!Read::of(&text(&odd)).0.contains_key("driftless_link_loss_ratio"));
}

#[test]
fn names_are_whole_whatever_is_in_them_and_two_of_the_same_name_are_two() {
    let mut status = trouble();
    let hostile = ["a\"b\\c\nd{e=\"f\"} 1\n# TYPE x counter", "twin", "twin", "", "\\"];
    for (machine, name) in status.machines.iter_mut().zip(hostile) {
        machine.name = Some(name.into());
    }
    status.machines[4].name = None;
    let read = Read::of(&text(&status));
    let froms: BTreeSet<&str> = read.0["driftless_link_connected"].keys().map(|labels| &*labels["from"]).collect();
    assert_eq!(froms, BTreeSet::from([hostile[0], "twin", ""]));
    assert_eq!(read.0["driftless_link_connected"].len(), status.links.len());
    // One end that tells twice of the same link costs nothing but its second word.
    status.links.extend(status.links.clone());
    assert_eq!(Read::of(&text(&status)).0["driftless_link_connected"].len(), status.links.len() / 2);
}

#[test]
fn the_list_in_the_documentation_is_the_list() {
    let listed = include_str!("../../../docs/metrics.md");
    let listed: BTreeSet<&str> = listed
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .filter(|name| name.starts_with("driftless_"))
        .collect();
    let read = Read::of(&text(&trouble()));
    assert_eq!(read.0.keys().map(String::as_str).collect::<BTreeSet<_>>(), listed);
}
