//! The status in numbers, in the text format of Prometheus (0.0.4). What is not known is left out, and never zero. Pure.
//!
//! docs/metrics.md lists them; a test compares.

use crate::status::{ArchiveStatus, Behind, Direction, FolderStatus, Link, Moment, PeerStatus, Reach, SeenLink, Status};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use sync_core::peer::Id;

/// All that a folder can be doing.
const STATES: [&str; 7] = ["starting", "scanning", "watching", "syncing", "paused", "stopped", "unavailable"];

/// The metrics of this status.
#[must_use]
pub fn text(status: &Status) -> String {
    let mut sheet = Sheet::default();
    agent(&mut sheet, status);
    for folder in &status.folders {
        of_folder(&mut sheet, folder);
        folder.archive.iter().for_each(|archive| of_archive(&mut sheet, folder, archive));
        folder.peers.iter().for_each(|peer| of_peer(&mut sheet, folder, peer));
    }
    let names: BTreeMap<Id, &str> =
        status.machines.iter().filter_map(|machine| Some((machine.id, machine.name.as_deref()?))).collect();
    let named = |id: Id| names.get(&id).copied().unwrap_or_default().to_owned();
    for machine in &status.machines {
        let labels = [("machine", named(machine.id)), ("machine_id", machine.id.to_string())];
        sheet.moment(
            "driftless_machine_heard_timestamp_seconds",
            "When a machine was heard of last, directly or through others.",
            &labels,
            machine.heard,
        );
    }
    for link in &status.links {
        let labels = [
            ("from", named(link.from)),
            ("to", named(link.to)),
            ("from_id", link.from.to_string()),
            ("to_id", link.to.to_string()),
        ];
        of_link(&mut sheet, link, &labels);
    }
    sheet.text()
}

fn agent(sheet: &mut Sheet, status: &Status) {
    let build = [("version", status.version.clone()), ("name", status.name.to_string()), ("id", status.id.to_string())];
    sheet.set("driftless_build_info", "The agent's version, the machine's name and id; always 1.", &build, Some(1.0));
    sheet.moment("driftless_start_time_seconds", "When the agent began.", &[], Some(status.since));
    let help = "1 if nothing is known to be missing anywhere, all are connected, nothing is open.";
    sheet.flag("driftless_in_sync", help, &[], Some(status.summary().in_sync));
    sheet.count("driftless_notices", "What is wrong with the agent as a whole.", &[], Some(status.notices.len() as u64));
}

fn of_folder(sheet: &mut Sheet, folder: &FolderStatus) {
    let labels = [("folder", folder.name.to_string())];
    for state in STATES {
        let labels = [labels[0].clone(), ("state", state.to_owned())];
        let help = "What a folder is doing: 1 for that state, 0 for the others.";
        sheet.flag("driftless_folder_state", help, &labels, Some(folder.state.word() == state));
    }
    let numbers = [
        ("driftless_folder_paths", "Live files, directories and links.", folder.paths),
        ("driftless_folder_bytes", "Bytes of the files.", folder.bytes),
        ("driftless_folder_conflicts", "Open conflicts.", folder.conflicts),
        ("driftless_folder_problems", "Paths that failed.", Some(folder.problems.total)),
        ("driftless_folder_kept_versions", "Replaced and deleted versions that are kept.", folder.kept.map(|kept| kept.count)),
        ("driftless_folder_kept_bytes", "Bytes of kept versions.", folder.kept.map(|kept| kept.bytes)),
        ("driftless_folder_watches_needed", "Directories to be watched.", folder.watches.needed),
        ("driftless_folder_watches", "Directories that are watched.", Some(folder.watches.set)),
        ("driftless_folder_watches_limit", "Watches that there may be.", folder.watches.limit),
    ];
    for (name, help, value) in numbers {
        sheet.count(name, help, &labels, value);
    }
    let brought = &folder.brought;
    let actions = [
        ("create", brought.created),
        ("update", brought.updated),
        ("delete", brought.deleted),
        ("move", brought.moved),
        ("conflict", brought.conflicts),
    ];
    for (action, count) in actions {
        let help = "Paths that pulls have changed here since the agent began, by what was done.";
        sheet.count("driftless_folder_brought", help, &[labels[0].clone(), ("action", action.to_owned())], Some(count));
    }
    let help = "Bytes of content that pulls have brought here since the agent began.";
    sheet.count("driftless_folder_brought_bytes", help, &labels, Some(brought.bytes));
    let help = "When something last changed here, by whomever.";
    sheet.moment("driftless_folder_last_change_timestamp_seconds", help, &labels, folder.last_change);
}

fn of_archive(sheet: &mut Sheet, folder: &FolderStatus, archive: &ArchiveStatus) {
    let labels = [("folder", folder.name.to_string())];
    let help = "1 if the cold root can be used, 0 if it is not there or may only be read.";
    sheet.flag("driftless_archive_cold_available", help, &labels, Some(archive.unavailable.is_none()));
    let days = archive.days.as_ref();
    let mut states = vec![("archived", archive.archived)];
    states.extend(days.map(|days| ("waiting", days.waiting)));
    states.extend(days.iter().flat_map(|days| &days.staying).map(|(reason, count)| (reason.as_str(), *count)));
    for (state, count) in states {
        let help = "Days by state: archived, waiting for the next run, or why they stay.";
        sheet.count("driftless_archive_days", help, &[labels[0].clone(), ("state", state.to_owned())], Some(count));
    }
    let help = "Bytes of the days that wait for the next run.";
    sheet.count("driftless_archive_waiting_bytes", help, &labels, days.map(|days| days.waiting_bytes));
    let help = "When the oldest day was over that is not archived.";
    let oldest = days.and_then(|days| days.oldest_ended);
    sheet.moment("driftless_archive_oldest_unarchived_timestamp_seconds", help, &labels, oldest);
    let help = "Old copies of archived days that are kept for late writes.";
    sheet.count("driftless_archive_displaced", help, &labels, Some(archive.displaced));
    let last = archive.last.as_ref();
    let help = "When the last run began, by the rule's clock.";
    sheet.moment("driftless_archive_last_run_timestamp_seconds", help, &labels, last.map(|last| last.at));
    let help = "1 if the last run came to its end and no day failed.";
    let well = last.map(|last| last.error.is_none() && last.failed == 0);
    sheet.flag("driftless_archive_last_run_well", help, &labels, well);
    let numbers = [
        ("driftless_archive_last_run_days", "Days that the last run moved.", last.map(|last| last.moved)),
        ("driftless_archive_last_run_bytes", "Their bytes.", last.map(|last| last.bytes)),
        ("driftless_archive_scrub_never", "Archived days that were never read again.", Some(archive.scrub.never)),
        ("driftless_archive_damaged_files", "Archived files whose bytes are not those written.", Some(archive.scrub.damaged)),
        (
            "driftless_archive_repaired_files_total",
            "Damaged files that peers gave the bytes of since the agent began.",
            Some(archive.scrub.repaired),
        ),
    ];
    for (name, help, value) in numbers {
        sheet.count(name, help, &labels, value);
    }
    let help = "When the next run is, by the rule's clock.";
    sheet.moment("driftless_archive_next_run_timestamp_seconds", help, &labels, archive.next);
    let help = "When the day was read again that waits longest for the next time.";
    sheet.moment("driftless_archive_scrub_oldest_timestamp_seconds", help, &labels, archive.scrub.oldest);
}

fn of_peer(sheet: &mut Sheet, folder: &FolderStatus, peer: &PeerStatus) {
    let labels = [("folder", folder.name.to_string()), ("peer", peer.name.to_string())];
    let help = "1 if there is a connection to the peer for this folder.";
    sheet.flag("driftless_peer_connected", help, &labels, Some(peer.is_connected()));
    let since = match &peer.link {
        Link::Connected { since, .. } => Some(*since),
        Link::Apart { since, .. } => *since,
    };
    let help = "Since when driftless_peer_connected is what it is.";
    sheet.moment("driftless_peer_connected_since_timestamp_seconds", help, &labels, since);
    let help = "When an exchange with the peer last came to its end.";
    sheet.moment("driftless_peer_last_sync_timestamp_seconds", help, &labels, peer.last_sync);
    for (direction, behind) in [(Direction::In, &peer.lacking_here), (Direction::Out, &peer.lacking_there)] {
        let Some(behind) = behind else { continue };
        let [folder, peer] = labels.clone();
        of_lag(sheet, behind, &[folder, peer, ("direction", word(direction).to_owned())]);
    }
}

fn of_lag(sheet: &mut Sheet, behind: &Behind, labels: &[Label]) {
    let files = "Files that this machine lacks (direction in), or the peer (out).";
    sheet.count("driftless_peer_behind_files", files, labels, Some(behind.files));
    sheet.count("driftless_peer_behind_bytes", "Their bytes, as far as they are known.", labels, Some(behind.bytes));
    let help = "Since when something is lacking.";
    sheet.moment("driftless_peer_behind_since_timestamp_seconds", help, labels, behind.since);
}

fn of_link(sheet: &mut Sheet, link: &SeenLink, labels: &[Label]) {
    let help = "1 if the machine `from` has a connection to `to`.";
    sheet.flag("driftless_link_connected", help, labels, Some(link.called.is_some()));
    let reaches = link.reaches.as_ref().map(|reach| matches!(reach, Reach::Answers { .. }));
    sheet.flag("driftless_link_reachable", "1 if `from` can call `to`, 0 if it tried in vain.", labels, reaches);
    let quality = link.quality;
    sheet.set("driftless_link_rtt_seconds", "Round trip.", labels, quality.map(|quality| quality.rtt_ms / 1e3));
    sheet.set(
        "driftless_link_loss_ratio",
        "Share of packets that are lost, 0 to 1.",
        labels,
        quality.map(|quality| quality.loss),
    );
    let goodput = quality.and_then(|quality| quality.goodput);
    sheet.count("driftless_link_goodput_bytes_per_second", "Content, as seen last under load.", labels, goodput);
    let cost = quality.and_then(|quality| quality.cost);
    sheet.set("driftless_link_cost", "By which sources are chosen: smaller is better.", labels, cost);
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "in",
        Direction::Out => "out",
    }
}

type Label = (&'static str, String);

/// Metrics in the order in which they were first named; all samples of one stand together, and none stands there twice.
#[derive(Default)]
struct Sheet {
    order: Vec<(&'static str, &'static str)>,
    samples: BTreeMap<&'static str, BTreeMap<String, String>>,
}

impl Sheet {
    fn set(&mut self, name: &'static str, help: &'static str, labels: &[Label], value: Option<f64>) {
        // No number is no knowledge either.
        let value = value.filter(|value| value.is_finite());
        self.add(name, help, labels, value.map(|value| value.to_string()));
    }

    fn flag(&mut self, name: &'static str, help: &'static str, labels: &[Label], is: Option<bool>) {
        self.count(name, help, labels, is.map(u64::from));
    }

    fn count(&mut self, name: &'static str, help: &'static str, labels: &[Label], value: Option<u64>) {
        self.add(name, help, labels, value.map(|value| value.to_string()));
    }

    fn moment(&mut self, name: &'static str, help: &'static str, labels: &[Label], at: Option<Moment>) {
        let seconds = at.map(|Moment(ns)| {
            let (sign, ns) = (if ns < 0 { "-" } else { "" }, ns.unsigned_abs());
            format!("{sign}{}.{:03}", ns / 1_000_000_000, ns / 1_000_000 % 1000)
        });
        self.add(name, help, labels, seconds);
    }

    fn add(&mut self, name: &'static str, help: &'static str, labels: &[Label], value: Option<String>) {
        let Some(value) = value else { return };
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let samples = self.samples.entry(name).or_default();
        if samples.is_empty() {
            self.order.push((name, help));
        }
        // Of two that claim the same the first counts: one series twice would cost the whole answer.
        samples.entry(labels).or_insert(value);
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, help) in &self.order {
            // Into a string, which takes everything.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            for (labels, value) in &self.samples[name] {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        }
        text
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n")
}
