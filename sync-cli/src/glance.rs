//! An agent's status for people, readable at a glance on a terminal of 80 columns. Every name is escaped here, once. Pure.

use crate::render::{bytes, count, counted, moment, quoted};
use sync_agent::status::{
    ArchiveDoing, ArchiveRun, ArchiveStatus, Behind, Direction, FolderState, FolderStatus, Link, Moment, PathText, PeerStatus,
    Quality, Status, Summary,
};
use sync_core::path::escape;

/// Characters of a path beyond which its middle is left out, so that a line with it stays on one line.
const PATH: usize = 44;
/// Problems and transfers of a folder that are shown; the JSON lines have more.
const SHOWN: usize = 5;

/// The whole of it, line by line: first what matters, then each folder.
pub(crate) fn lines(status: &Status, numbers: &Summary) -> Vec<String> {
    let listen: Vec<String> = status.listen.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        format!("{}: {}", status.name, verdict(numbers)),
        format!("  id {}", status.id),
        format!("  driftless {}, since {}", escape(status.version.as_bytes()), when(status.since)),
        format!("  listens at {}", if listen.is_empty() { "no address".into() } else { listen.join(", ") }),
    ];
    lines.extend(status.page.map(|page| format!("  status page http://{page}/")));
    lines.extend(status.notices.iter().map(|notice| format!("  ! {}", safe(notice))));
    for folder in &status.folders {
        lines.push(String::new());
        lines.extend(folder_lines(folder));
    }
    lines
}

fn verdict(numbers: &Summary) -> String {
    if numbers.folders == 0 {
        return "no folders: name some in the configuration".into();
    }
    let apart = numbers.peers - numbers.connected;
    let parts = [
        (numbers.unavailable > 0, format!("{} unavailable", counted(numbers.unavailable, "folder", "folders"))),
        (numbers.stopped > 0, format!("{} stopped", counted(numbers.stopped, "folder", "folders"))),
        (numbers.problems > 0, format!("{} failed", counted(numbers.problems, "path", "paths"))),
        (numbers.conflicts > 0, counted(numbers.conflicts, "conflict", "conflicts")),
        (apart > 0, format!("{apart} of {} away", counted(numbers.peers, "peer", "peers"))),
        (numbers.behind_files > 0, format!("{} behind", counted(numbers.behind_files, "file", "files"))),
    ];
    let told: Vec<String> = parts.into_iter().filter(|(is, _)| *is).map(|(_, text)| text).collect();
    match (told.is_empty(), numbers.in_sync) {
        (_, true) => "in sync".into(),
        (true, false) => "not in sync yet".into(),
        (false, false) => told.join(", "),
    }
}

fn folder_lines(folder: &FolderStatus) -> Vec<String> {
    let place = folder.place.bytes();
    let mut lines = vec![format!("{}  {}  {}", folder.name, folder.state.word(), short(&escape(&place)))];
    if let FolderState::Unavailable { why } | FolderState::Stopped { why } = &folder.state {
        lines.push(format!("  ! {}", safe(why)));
    }
    lines.extend(joined(&[
        folder.paths.map(|paths| match folder.bytes {
            Some(size) => format!("{}, {}", counted(paths, "path", "paths"), bytes(size)),
            None => counted(paths, "path", "paths"),
        }),
        folder.last_change.map(|at| format!("last change {}", when(at))),
    ]));
    lines.extend(watches(folder).map(|watches| format!("  {watches}")));
    lines.extend(folder.kept.map(|kept| format!("  {} kept, {}", counted(kept.count, "version", "versions"), bytes(kept.bytes))));
    if let Some(conflicts) = folder.conflicts.filter(|conflicts| *conflicts > 0) {
        let list = format!("driftless conflicts {}", quoted(&escape(&place)));
        lines.push(format!("  ! {}: {list}", counted(conflicts, "conflict", "conflicts")));
    }
    lines.extend(folder.archive.iter().flat_map(archive_lines));
    lines.extend(folder.peers.iter().flat_map(peer_lines));
    let problems = &folder.problems;
    let shown = problems.listed.iter().take(SHOWN);
    lines.extend(shown.map(|one| format!("  ! {}: {}: {}", path(&one.place), safe(&one.step), safe(&one.error))));
    let rest = problems.total.saturating_sub(problems.listed.len().min(SHOWN) as u64);
    if rest > 0 {
        lines.push(format!("  ! {} more failed", counted(rest, "path", "paths")));
    }
    lines
}

/// How old days of a folder are archived.
pub(crate) fn archive_lines(archive: &ArchiveStatus) -> Vec<String> {
    let kept = (archive.displaced > 0).then(|| format!(", {} kept", counted(archive.displaced, "old copy", "old copies")));
    let doing = if archive.doing == ArchiveDoing::Waiting { "" } else { archive.doing.word() };
    let doing = if doing.is_empty() { String::new() } else { format!(", {doing}") };
    let archived = counted(archive.archived, "day", "days");
    let mut lines = vec![format!("  archive {}  {archived}{}{doing}", path(&archive.cold), kept.unwrap_or_default())];
    lines.extend(archive.unavailable.iter().map(|why| format!("    ! {}", safe(why))));
    if let Some(days) = &archive.days {
        let oldest = days.oldest.as_ref().map_or_else(String::new, |oldest| format!(", the oldest is {}", path(oldest)));
        let staying: Vec<String> =
            days.staying.iter().map(|(reason, days)| format!("{} {}", count(*days), safe(reason))).collect();
        let staying = if staying.is_empty() { String::new() } else { format!("; staying: {}", staying.join(", ")) };
        lines.push(format!(
            "    {} waiting, {}{staying}{oldest}",
            counted(days.waiting, "day", "days"),
            bytes(days.waiting_bytes)
        ));
    }
    lines.extend(archive.last.as_ref().map(last_run));
    lines.extend(archive.next.map(|at| format!("    next run {}", when(at))));
    let scrub = &archive.scrub;
    if archive.archived > 0 {
        let oldest =
            scrub.oldest.map_or_else(|| "nothing was read again yet".into(), |at| format!("read again, the oldest {}", when(at)));
        let never = if scrub.never > 0 { format!(", {} never", counted(scrub.never, "day", "days")) } else { String::new() };
        let repaired =
            if scrub.repaired > 0 { format!(", {} repaired", counted(scrub.repaired, "file", "files")) } else { String::new() };
        lines.push(format!("    {oldest}{never}{repaired}"));
    }
    if scrub.damaged > 0 {
        lines.push(format!("    ! {} damaged", counted(scrub.damaged, "file is", "files are")));
    }
    lines
}

fn last_run(last: &ArchiveRun) -> String {
    let what = match &last.error {
        Some(why) => format!("! {}", safe(why)),
        None => {
            let parts = [(last.held, "held up"), (last.changed, "changed meanwhile"), (last.failed, "failed")];
            let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(number, word)| format!(", {} {word}", count(*number)));
            let moved = counted(last.moved, "day", "days");
            format!("{moved} moved, {}{}", bytes(last.bytes), parts.collect::<String>())
        }
    };
    format!("    last run {}: {what}", when(last.at))
}

fn watches(folder: &FolderStatus) -> Option<String> {
    let watches = folder.watches;
    let needed = watches.needed?;
    let limit = watches.limit.map_or_else(String::new, |limit| format!(" (of {} at most)", count(limit)));
    Some(match watches.set < needed {
        true => format!("{} of {} folders watched{limit}", count(watches.set), count(needed)),
        false => format!("all {} watched", counted(needed, "folder", "folders")),
    })
}

fn peer_lines(peer: &PeerStatus) -> Vec<String> {
    let mut lines = Vec::new();
    match &peer.link {
        Link::Connected { since, address, direction } => {
            let who = if *direction == Direction::In { "called from" } else { "at" };
            let state = even(peer).unwrap_or("connected");
            lines.push(format!("  {}  {}  {state}, {who} {address} since {}", peer.name, peer.mode, when(*since)));
        }
        Link::Apart { since, why, address, next_try } => {
            let since = since.map_or_else(String::new, |since| format!(" since {}", when(since)));
            lines.push(format!("  {}  {}  not connected{since}", peer.name, peer.mode));
            let at = address.as_ref().map_or_else(String::new, |address| format!("{address}: "));
            lines.extend(why.as_ref().map(|why| format!("    {at}{}", safe(why))));
            lines.extend(next_try.map(|at| format!("    next try {}", when(at))));
        }
    }
    if !peer.introduced_by.is_empty() {
        let by: Vec<&str> = peer.introduced_by.iter().map(|name| name.as_str()).collect();
        lines.push(format!("    introduced by {}", by.join(", ")));
    }
    lines.extend(peer.quality.map(quality));
    let sides = [("lacking here", &peer.lacking_here), ("lacking there", &peer.lacking_there)];
    lines.extend(
        sides
            .iter()
            .filter_map(|(what, behind)| behind.as_ref().filter(|behind| behind.is_any()).map(|behind| (what, behind)))
            .flat_map(|(what, behind)| lacking(what, behind)),
    );
    lines.extend(peer.last_sync.map(|at| format!("    last exchange {}", when(at))));
    lines.extend(peer.transfers.iter().take(SHOWN).map(|transfer| {
        let arrow = if transfer.direction == Direction::In { "<-" } else { "->" };
        format!("    {arrow} {}  {} of {}", path(&transfer.place), bytes(transfer.bytes), bytes(transfer.total))
    }));
    lines
}

/// "in sync" where that is known of both sides.
fn even(peer: &PeerStatus) -> Option<&'static str> {
    let known = [&peer.lacking_here, &peer.lacking_there];
    let even = known.iter().all(|behind| behind.as_ref().is_some_and(|behind| !behind.is_any()));
    even.then_some("in sync")
}

fn quality(quality: Quality) -> String {
    let goodput = quality.goodput.map_or_else(String::new, |rate| format!(", {}/s", bytes(rate)));
    format!("    round trip {:.1} ms, {:.2} % lost{goodput}", quality.rtt_ms, quality.loss * 100.0)
}

fn lacking(what: &str, behind: &Behind) -> Vec<String> {
    let since = behind.since.map_or_else(String::new, |since| format!(" since {}", when(since)));
    let first = format!("    {what}: {}, {}{since}", counted(behind.files, "file", "files"), bytes(behind.bytes));
    let oldest = behind.oldest.as_ref().map(|oldest| format!("      the oldest: {}", path(oldest)));
    std::iter::once(first).chain(oldest).collect()
}

/// What is known, on one line; nothing if nothing is.
fn joined(parts: &[Option<String>]) -> Option<String> {
    let known: Vec<&str> = parts.iter().flatten().map(String::as_str).collect();
    (!known.is_empty()).then(|| format!("  {}", known.join("; ")))
}

fn path(place: &PathText) -> String {
    short(&escape(&place.bytes()))
}

/// What an agent tells of others is no safer than their names.
fn safe(text: &str) -> String {
    escape(text.as_bytes())
}

fn short(text: &str) -> String {
    let length = text.chars().count();
    if length <= PATH {
        return text.into();
    }
    let head: String = text.chars().take(PATH / 2 - 1).collect();
    let tail: String = text.chars().skip(length + 2 - PATH / 2).collect();
    format!("{head}…{tail}")
}

fn when(at: Moment) -> String {
    moment(at.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_agent::status::{Kept, PathProblem, Problems, Transfer, Watches};
    use sync_core::peer::{Mode, PublicKey};

    fn at(seconds: i64) -> Moment {
        Moment(1_772_668_800_000_000_000 + seconds * 1_000_000_000)
    }

    fn peer(name: &str, link: Link) -> PeerStatus {
        PeerStatus {
            name: name.parse().unwrap(),
            id: PublicKey::from_bytes([2; 32]).id(),
            mode: Mode::TwoWay,
            link,
            quality: None,
            lacking_here: None,
            lacking_there: None,
            last_sync: None,
            clock_offset_ms: None,
            transfers: Vec::new(),
            introduced_by: Vec::new(),
        }
    }

    fn status() -> Status {
        let address = "203.0.113.9:4477".parse().unwrap();
        let mut busy = peer("web-sg", Link::Connected { since: at(0), address, direction: Direction::Out });
        busy.quality = Some(Quality { rtt_ms: 34.25, loss: 0.0012, goodput: Some(8 << 20), cost: None });
        busy.lacking_here = Some(Behind {
            files: 1234,
            bytes: 5 << 20,
            since: Some(at(60)),
            oldest: Some(PathText::new(b"2026/03/05/\x1b[2J.jpg")),
        });
        busy.lacking_there = Some(Behind { files: 0, bytes: 0, since: None, oldest: None });
        busy.transfers =
            vec![Transfer { place: PathText::new(b"big"), direction: Direction::In, bytes: 1 << 20, total: 4 << 20 }];
        let apart = Link::Apart {
            since: Some(at(5)),
            why: Some("no answer\nat all".into()),
            address: Some("us.example.net:4477".parse().unwrap()),
            next_try: Some(at(90)),
        };
        let folder = FolderStatus {
            name: "hot".parse().unwrap(),
            place: PathText::new(b"/srv/app/caf\xe9/hot"),
            state: FolderState::Syncing,
            paths: Some(1_234_567),
            bytes: Some(45 << 30),
            watches: Watches { needed: Some(4_000), set: 3_000, limit: Some(3_000) },
            conflicts: Some(2),
            in_conflict: Vec::new(),
            problems: Problems {
                total: 3,
                listed: vec![PathProblem {
                    place: PathText::new(&[b"d/".repeat(60), b"end".to_vec()].concat()),
                    step: "read".into(),
                    error: "permission denied".into(),
                }],
            },
            recent: Vec::new(),
            brought: sync_agent::status::BroughtStatus::default(),
            kept: Some(Kept { count: 1200, bytes: 1 << 30 }),
            last_change: Some(at(61)),
            archive: None,
            peers: vec![busy, peer("web-us", apart)],
        };
        Status {
            name: "web-hk".parse().unwrap(),
            id: PublicKey::from_bytes([1; 32]).id(),
            version: "0.1.0".into(),
            since: at(0),
            listen: vec!["0.0.0.0:4477".parse().unwrap()],
            page: Some("127.0.0.1:4478".parse().unwrap()),
            notices: vec!["the configuration stays as it was".into()],
            folders: vec![folder],
            machines: Vec::new(),
            links: Vec::new(),
        }
    }

    #[test]
    fn everything_stands_on_short_lines() {
        let status = status();
        let told = lines(&status, &status.summary());
        // Times are the reader's: those are left out of the comparison.
        let at = |seconds| moment(at(seconds).0);
        let expected = [
            "web-hk: 3 paths failed, 2 conflicts, 1 of 2 peers away, 1,234 files behind".into(),
            format!("  id {}", status.id),
            format!("  driftless 0.1.0, since {}", at(0)),
            "  listens at 0.0.0.0:4477".into(),
            "  status page http://127.0.0.1:4478/".into(),
            "  ! the configuration stays as it was".into(),
            String::new(),
            "hot  syncing  /srv/app/caf\\xe9/hot".into(),
            format!("  1,234,567 paths, 45.00 GiB; last change {}", at(61)),
            "  3,000 of 4,000 folders watched (of 3,000 at most)".into(),
            "  1,200 versions kept, 1.00 GiB".into(),
            "  ! 2 conflicts: driftless conflicts '/srv/app/caf\\xe9/hot'".into(),
            format!("  web-sg  two-way  connected, at 203.0.113.9:4477 since {}", at(0)),
            "    round trip 34.2 ms, 0.12 % lost, 8.00 MiB/s".into(),
            format!("    lacking here: 1,234 files, 5.00 MiB since {}", at(60)),
            "      the oldest: 2026/03/05/\\u{1b}[2J.jpg".into(),
            "    <- big  1.00 MiB of 4.00 MiB".into(),
            format!("  web-us  two-way  not connected since {}", at(5)),
            "    us.example.net:4477: no answer\\u{a}at all".into(),
            format!("    next try {}", at(90)),
            "  ! d/d/d/d/d/d/d/d/d/d/d…/d/d/d/d/d/d/d/d/end: read: permission denied".into(),
            "  ! 2 paths more failed".into(),
        ];
        assert_eq!(told, expected);
        let longest = told.iter().map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|longest| longest <= 80), "{longest:?}: {told:#?}");
    }

    #[test]
    fn the_first_line_says_what_matters() {
        let with = |change: fn(&mut Summary)| {
            let mut numbers = Summary { folders: 1, peers: 1, connected: 1, ..Summary::default() };
            change(&mut numbers);
            verdict(&numbers)
        };
        assert_eq!(with(|numbers| numbers.in_sync = true), "in sync");
        assert_eq!(with(|_| {}), "not in sync yet");
        assert_eq!(with(|numbers| numbers.folders = 0), "no folders: name some in the configuration");
        assert_eq!(with(|numbers| numbers.unavailable = 1), "1 folder unavailable");
        assert_eq!(with(|numbers| numbers.stopped = 1), "1 folder stopped");
        assert_eq!(with(|numbers| numbers.connected = 0), "1 of 1 peer away");
    }
}
