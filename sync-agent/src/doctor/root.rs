//! Judges one root by what was found of it. Pure.

use super::mounts::Mount;
use super::{Finding, counted, size};
use crate::status::{FolderState, FolderStatus};
use std::path::PathBuf;
use std::time::Duration;
use sync_core::io::fs::Volume;
use sync_core::io::sync::{Checkup, StateLook};
use sync_core::path::escape;
use sync_core::reserve::Reserve;

/// Where no agent keeps anything free, next to nothing can be brought below one part of so many of what it would keep free.
const OUT_SHARE: u64 = 16;
/// Free bytes below which nothing is brought, whatever the size of the disk.
const BYTES_OUT: u64 = 1 << 20;
/// Free inodes below which next to nothing can be brought.
const INODES_OUT: u64 = 1_000;
/// Free inodes below which a root is told to fill up.
const INODES_LOW: u64 = 20_000;
/// One part of so many that is still free is little, if it is also below [`ROOMY`].
const SHARE: u64 = 20;
/// Free bytes that are enough, whatever share they are.
const ROOMY: u64 = 50 << 30;
/// Kept versions that take so large a share of a file system are told.
const KEPT_SHARE: u64 = 4;
/// Change times so coarse that a second change within them is found only by reading the file again.
const COARSE_NS: i64 = 1_000_000_000;
/// Places that are named.
const NAMED: usize = 5;

/// What is known of one root.
#[derive(Debug)]
pub(super) struct Facts {
    /// `folder hot`, or the root as it was given.
    pub(super) subject: String,
    /// As it was given.
    pub(super) path: PathBuf,
    /// Is the state kept elsewhere?
    pub(super) state_elsewhere: bool,
    /// What was found, or why nothing could be; `None`: it did not answer in time.
    pub(super) looked: Option<Result<Checkup, String>>,
    /// What lies below it, if the system tells.
    pub(super) mount: Option<Mount>,
    /// How the agent that works with it says it is.
    pub(super) agent: Option<FolderStatus>,
    /// What agents keep free here.
    pub(super) reserve: Reserve,
}

impl Facts {
    /// Watches that it needs, if that is known.
    pub(super) fn directories(&self) -> Option<u64> {
        let told = self.agent.as_ref().and_then(|folder| folder.watches.needed);
        told.or(match &self.looked {
            Some(Ok(Checkup { state: StateLook::Sound { directories, .. }, .. })) => Some(*directories),
            _ => None,
        })
    }
}

/// What is to be said of it. `patience`: for how long it was waited.
pub(super) fn findings(facts: &Facts, patience: Duration) -> Vec<Finding> {
    let (subject, mut found) = (&facts.subject, Vec::new());
    let shown = escape(facts.path.as_os_str().as_encoded_bytes());
    let checkup = match &facts.looked {
        None => {
            let text = format!("{shown} did not answer within {} seconds", patience.as_secs());
            found.push(Finding::broken(
                "root",
                subject,
                text,
                "look whether its disk, or the server that it lies on, still answers",
            ));
            return found;
        }
        Some(Err(why)) => {
            found.push(Finding::broken_as_told("root", subject, why));
            return found;
        }
        Some(Ok(checkup)) => checkup,
    };
    found.push(Finding::ok("root", subject, format!("{shown} is there")));
    found.extend(mount(facts, checkup));
    found.extend(space(facts, &checkup.volume));
    found.push(renames(subject, checkup));
    found.push(clock(subject, &checkup.granularity_ns));
    found.extend(state(facts, checkup));
    found.extend(facts.agent.iter().flat_map(|folder| agent(subject, folder)));
    found
}

fn mount(facts: &Facts, checkup: &Checkup) -> Vec<Finding> {
    let subject = &facts.subject;
    let shown = |mount: &Mount| {
        let (kind, point) = (escape(mount.kind.as_bytes()), escape(mount.point.as_os_str().as_encoded_bytes()));
        format!("lies on {kind}, mounted at {point}")
    };
    let place = facts.mount.as_ref().map_or_else(|| "lies on an unknown file system".to_owned(), shown);
    let mut found = Vec::new();
    if checkup.volume.read_only {
        let text = format!("{place}, which can only be read");
        found.push(match facts.state_elsewhere {
            true => Finding::warning("mount", subject, text, "nothing can be brought here; to change that, mount it for writing"),
            false => Finding::broken(
                "mount",
                subject,
                text,
                "mount it for writing, or keep its state elsewhere (state_dir, --state-dir) so that it can be a source for others",
            ),
        });
    } else {
        found.push(Finding::ok("mount", subject, place));
    }
    if let Some(mount) = facts.mount.as_ref().filter(|mount| mount.is_shared()) {
        let text =
            format!("others may write to {} too, and the system does not tell of their changes", escape(mount.source.as_bytes()));
        found.push(Finding::warning(
            "mount",
            subject,
            text,
            "have everything scanned often (schedule), or run the agent on that server",
        ));
    }
    found
}

fn space(facts: &Facts, volume: &Volume) -> Vec<Finding> {
    let subject = &facts.subject;
    let (free, total) = volume.bytes;
    let kept = facts.reserve.of(total);
    let text = match &facts.agent {
        Some(_) if kept > 0 => format!("{} of {} free, of which the agent keeps {}", size(free), size(total), size(kept)),
        _ => format!("{} of {} free", size(free), size(total)),
    };
    let room = "make room: nothing can be brought that does not fit";
    // An agent brings nothing that would take from what it keeps free.
    let out = if facts.agent.is_some() { kept } else { kept / OUT_SHARE }.max(BYTES_OUT);
    let tight = free < kept.saturating_mul(2) || (free < ROOMY && free < total / SHARE);
    let bytes = match (free <= out, tight) {
        _ if volume.read_only => Finding::ok("space", subject, text),
        (true, _) => Finding::broken("space", subject, text, room),
        (false, true) => Finding::warning("space", subject, text, room),
        (false, false) => Finding::ok("space", subject, text),
    };
    let inodes = volume.inodes.map(|(free, total)| {
        let text = format!("{free} of {total} inodes free");
        let room = "remove files, or make a file system with more inodes: each file and each folder takes one";
        match (free < INODES_OUT, free < INODES_LOW && free < total / SHARE) {
            _ if volume.read_only => Finding::ok("inodes", subject, text),
            (true, _) => Finding::broken("inodes", subject, text, room),
            (false, true) => Finding::warning("inodes", subject, text, room),
            (false, false) => Finding::ok("inodes", subject, text),
        }
    });
    std::iter::once(bytes).chain(inodes).collect()
}

fn renames(subject: &str, checkup: &Checkup) -> Finding {
    match &checkup.exchange {
        None => Finding::ok("renames", subject, "exchange of names was not tried"),
        Some(Ok(true)) => Finding::ok("renames", subject, "names can be exchanged, and renamed without replacing"),
        Some(Ok(false)) => Finding::broken(
            "renames",
            subject,
            "the file system cannot exchange two names (renameat2), so that nothing here can be replaced safely",
            "move the root to ext4, XFS, Btrfs or tmpfs",
        ),
        Some(Err(why)) => Finding::broken(
            "renames",
            subject,
            format!("whether names can be exchanged cannot be tried: {why}"),
            "run driftless as the user to whom the root belongs, or give this one the right to write there",
        ),
    }
}

fn clock(subject: &str, granularity: &Result<i64, String>) -> Finding {
    match granularity {
        Ok(0) => Finding::ok("times", subject, "every change has a time of its own"),
        Ok(ns) if *ns < COARSE_NS => Finding::ok("times", subject, format!("change times are {} ms apart", ns / 1_000_000)),
        // A changed file is read again in any case; it costs reading, and nothing else.
        Ok(ns) => {
            Finding::ok("times", subject, format!("change times are {} s apart: new files are read twice", ns / 1_000_000_000))
        }
        Err(why) => Finding::warning("times", subject, why, "look whether the file system can be written to"),
    }
}

fn state(facts: &Facts, checkup: &Checkup) -> Vec<Finding> {
    let subject = &facts.subject;
    match &checkup.state {
        StateLook::New => {
            let text = "never synchronised: the first run gives it its marker and its state";
            vec![Finding::ok("state", subject, text)]
        }
        StateLook::Busy if checkup.marker || facts.state_elsewhere => {
            vec![Finding::ok("state", subject, "in use by the agent, with its marker")]
        }
        StateLook::Busy => {
            let text = "the agent has it open, and its marker is gone";
            vec![Finding::broken(
                "marker",
                subject,
                text,
                "look whether its disk is still mounted; nothing counts as deleted meanwhile",
            )]
        }
        StateLook::Held(who) => vec![Finding::ok("state", subject, format!("in use by {who}: it was not opened"))],
        StateLook::Unusable(why) => vec![Finding::broken_as_told("state", subject, why)],
        StateLook::Sound { paths, kept, missing_mounts, moved, .. } => {
            let text = format!("its state can be opened and belongs to it: {}", counted(*paths, "path", "paths"));
            let mut found = vec![Finding::ok("state", subject, text)];
            if let Some(why) = moved {
                let advice = "nothing, if it was moved on purpose: the next run gives it a new identity";
                found.push(Finding::warning("state", subject, format!("its state may be a copy: {why}"), advice));
            }
            if !missing_mounts.is_empty() {
                let named: Vec<String> = missing_mounts.iter().take(NAMED).map(ToString::to_string).collect();
                let more = missing_mounts.len().saturating_sub(NAMED);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let text = format!("nothing is mounted any more at {}{more}", named.join(", "));
                found.push(Finding::warning(
                    "mounts below",
                    subject,
                    text,
                    "mount it; until then what is there waits, and is not deleted",
                ));
            }
            found.push(versions(subject, *kept, checkup.volume));
            found
        }
    }
}

fn versions(subject: &str, (count, bytes): (u64, u64), volume: Volume) -> Finding {
    let text = format!("{} kept, {}", counted(count, "version", "versions"), size(bytes));
    // Some file systems do not tell how large they are.
    match volume.bytes.1 > 0 && bytes > volume.bytes.1 / KEPT_SHARE {
        true => Finding::warning("kept versions", subject, text, "keep them for a shorter time (keep_versions, --keep-versions)"),
        false => Finding::ok("kept versions", subject, text),
    }
}

/// What the agent says of the folder.
fn agent(subject: &str, folder: &FolderStatus) -> Vec<Finding> {
    let mut found = Vec::new();
    let name = &folder.name;
    match &folder.state {
        FolderState::Unavailable { why } => found.push(Finding::broken_as_told("folder", subject, why)),
        FolderState::Stopped { why } => found.push(Finding::broken_as_told("folder", subject, why)),
        FolderState::Paused => {
            let advice = format!("driftless agent resume {name} takes it up again");
            found.push(Finding::warning("folder", subject, "it is paused", advice));
        }
        state => found.push(Finding::ok("folder", subject, format!("the agent is {} it", verb(state)))),
    }
    if folder.problems.total > 0 {
        let first = folder.problems.listed.first();
        let first = first.map_or_else(String::new, |one| format!(", the first: {}: {}", escape(&one.place.bytes()), one.error));
        let text = format!("{} failed{first}", counted(folder.problems.total, "path", "paths"));
        found.push(Finding::warning("problems", subject, text, "driftless agent status lists them; they are tried again"));
    }
    if let Some(conflicts) = folder.conflicts.filter(|conflicts| *conflicts > 0) {
        let root = escape(&folder.place.bytes());
        let text = format!("{} open", counted(conflicts, "conflict", "conflicts"));
        found.push(Finding::warning("conflicts", subject, text, format!("driftless conflicts {root} lists them")));
    }
    if let Some(kept) = folder.kept {
        let text = format!("{} kept, {}", counted(kept.count, "version", "versions"), size(kept.bytes));
        found.push(Finding::ok("kept versions", subject, text));
    }
    found
}

fn verb(state: &FolderState) -> &'static str {
    match state {
        FolderState::Starting => "starting with",
        FolderState::Scanning => "scanning",
        FolderState::Syncing => "exchanging",
        FolderState::Watching | FolderState::Paused | FolderState::Stopped { .. } | FolderState::Unavailable { .. } => "watching",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity::{self, Broken, Ok as Fine, Warning};
    use super::*;

    fn roomy() -> Volume {
        Volume { read_only: false, bytes: (200 << 30, 400 << 30), inodes: Some((1 << 20, 1 << 21)) }
    }

    fn sound() -> StateLook {
        StateLook::Sound { paths: 3, directories: 2, kept: (1, 9), missing_mounts: Vec::new(), moved: None }
    }

    fn facts() -> Facts {
        let checkup = Checkup {
            path: "/srv/hot".into(),
            marker: true,
            volume: roomy(),
            granularity_ns: Ok(0),
            exchange: Some(Ok(true)),
            state: sound(),
        };
        let mount = Mount { point: "/srv".into(), kind: "ext4".into(), source: "/dev/sda1".into() };
        Facts {
            subject: "folder hot".into(),
            path: "/srv/hot".into(),
            state_elsewhere: false,
            looked: Some(Ok(checkup)),
            mount: Some(mount),
            agent: None,
            reserve: Reserve::STANDARD,
        }
    }

    /// What is not as it should be: check, weight, a word of the text or the advice.
    fn told(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Severity, String)> {
        let mut facts = facts();
        change(&mut facts);
        let found = findings(&facts, Duration::from_secs(15));
        let matters = found.into_iter().filter(|finding| finding.severity != Fine);
        matters.map(|finding| (finding.check, finding.severity, format!("{} {:?}", finding.found, finding.advice))).collect()
    }

    fn checkup(facts: &mut Facts) -> &mut Checkup {
        facts.looked.as_mut().unwrap().as_mut().unwrap()
    }

    #[test]
    fn a_root_as_it_should_be_gives_no_cause_for_anything() {
        assert_eq!(told(|_| {}), []);
        assert_eq!(told(|facts| checkup(facts).state = StateLook::New), []);
        assert_eq!(told(|facts| checkup(facts).state = StateLook::Held("process 7".into())), []);
        assert_eq!(told(|facts| checkup(facts).exchange = None), []);
        assert_eq!(facts().directories(), Some(2));
    }

    #[test]
    fn each_trouble_has_its_weight_and_says_what_to_do() {
        type Row = (fn(&mut Facts), &'static str, Severity, &'static str);
        let rows: [Row; 22] = [
            (|facts| facts.looked = None, "root", Broken, "did not answer within 15 seconds"),
            (|facts| facts.looked = Some(Err("the root x does not exist".into())), "root", Broken, "does not exist"),
            (|facts| checkup(facts).volume.read_only = true, "mount", Broken, "state_dir"),
            (
                |facts| {
                    facts.state_elsewhere = true;
                    checkup(facts).volume.read_only = true;
                },
                "mount",
                Warning,
                "mount it for writing",
            ),
            (|facts| facts.mount.as_mut().unwrap().kind = "nfs4".into(), "mount", Warning, "schedule"),
            (|facts| checkup(facts).volume.bytes = (BYTES_OUT, BYTES_OUT), "space", Broken, "make room"),
            (|facts| checkup(facts).volume.bytes = (60 << 20, 1 << 40), "space", Broken, "make room"),
            (|facts| checkup(facts).volume.bytes = (1 << 30, 1 << 40), "space", Warning, "make room"),
            (|facts| checkup(facts).volume.bytes = (50 << 20, 2 << 30), "space", Warning, "make room"),
            (|facts| checkup(facts).volume.bytes = (40 << 30, 1 << 40), "space", Warning, "40.0 GiB of 1.0 TiB free"),
            (|facts| checkup(facts).volume.inodes = Some((999, 1 << 20)), "inodes", Broken, "inodes"),
            (|facts| checkup(facts).volume.inodes = Some((19_000, 1 << 20)), "inodes", Warning, "inodes"),
            (|facts| checkup(facts).exchange = Some(Ok(false)), "renames", Broken, "ext4"),
            (|facts| checkup(facts).exchange = Some(Err("permission denied".into())), "renames", Broken, "right to write"),
            (|facts| checkup(facts).granularity_ns = Err("no".into()), "times", Warning, "no"),
            (|facts| checkup(facts).state = StateLook::Unusable("it is damaged".into()), "state", Broken, "damaged"),
            (
                |facts| {
                    let found = checkup(facts);
                    (found.state, found.marker) = (StateLook::Busy, false);
                },
                "marker",
                Broken,
                "still mounted",
            ),
            (
                |facts| {
                    let StateLook::Sound { moved, .. } = &mut checkup(facts).state else { panic!() };
                    *moved = Some("another machine".into());
                },
                "state",
                Warning,
                "another machine",
            ),
            (
                |facts| {
                    let StateLook::Sound { missing_mounts, .. } = &mut checkup(facts).state else { panic!() };
                    *missing_mounts = vec![sync_core::path::RelPath::parse(b"disk\n2").unwrap()];
                },
                "mounts below",
                Warning,
                "disk\\u{a}2",
            ),
            (
                |facts| {
                    let StateLook::Sound { kept, .. } = &mut checkup(facts).state else { panic!() };
                    *kept = (4, 101 << 30);
                },
                "kept versions",
                Warning,
                "101.0 GiB",
            ),
            (|facts| checkup(facts).volume.bytes = (0, 0), "space", Broken, "0 bytes"),
            (|facts| checkup(facts).volume.inodes = Some((0, 4)), "inodes", Broken, "0 of 4"),
        ];
        for (change, check, severity, word) in rows {
            let told = told(change);
            assert!(
                matches!(&told[..], [(is, weighs, text)] if *is == check && *weighs == severity && text.contains(word)),
                "{word}: {told:?}"
            );
        }
    }

    #[test]
    fn room_enough_is_enough_whatever_share_it_is_and_btrfs_counts_no_inodes() {
        assert_eq!(told(|facts| checkup(facts).volume.bytes = (60 << 30, 10 << 40)), []);
        assert_eq!(told(|facts| checkup(facts).volume.inodes = None), []);
        assert_eq!(told(|facts| checkup(facts).volume.inodes = Some((15_000, 32_000))), []);
        assert_eq!(told(|facts| checkup(facts).granularity_ns = Ok(2_000_000_000)), []);
    }
}
