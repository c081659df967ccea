//! Links and graphs as an agent would tell them.

use super::super::Severity;
use super::*;
use crate::status::{PathText, Problems, Watches};
use sync_core::peer::{Mode, PublicKey};

const MINUTE: i64 = 60_000_000_000;
const NOW: Moment = Moment(1_772_668_800_000_000_000);

pub(crate) fn id(key: u8) -> Id {
    PublicKey::from_bytes([key; 32]).id()
}

fn name(key: u8) -> String {
    format!("web-{key}")
}

fn peer(key: u8, link: Link) -> PeerStatus {
    PeerStatus {
        name: name(key).parse().unwrap(),
        id: id(key),
        mode: Mode::TwoWay,
        link,
        quality: None,
        lacking_here: None,
        lacking_there: None,
        last_sync: None,
        clock_offset_ms: None,
        introduced_by: Vec::new(),
        transfers: Vec::new(),
    }
}

fn there() -> Link {
    Link::Connected { since: NOW, address: "203.0.113.9:4477".parse().unwrap(), direction: Direction::Out }
}

fn away(why: &str) -> Link {
    Link::Apart { since: None, why: Some(why.into()), address: Some("web-2:4477".parse().unwrap()), next_try: None }
}

fn folder(peers: Vec<PeerStatus>) -> FolderStatus {
    FolderStatus {
        name: "hot".parse().unwrap(),
        place: PathText::new(b"/srv/hot"),
        state: FolderState::Watching,
        paths: None,
        bytes: None,
        watches: Watches::default(),
        conflicts: None,
        in_conflict: Vec::new(),
        problems: Problems::default(),
        recent: Vec::new(),
        brought: crate::status::BroughtStatus::default(),
        kept: None,
        last_change: None,
        archive: None,
        peers,
    }
}

/// Machine 1 with a folder, machines 1 to `machines` known, and links between others.
pub(crate) fn status(machines: u8, peers: Vec<PeerStatus>, links: Vec<SeenLink>) -> Status {
    let known = (1..=machines).map(|key| Machine {
        id: id(key),
        name: Some(name(key)),
        addresses: vec![format!("{}.example.net:{}", name(key), 4470 + u32::from(key)).parse().unwrap()],
        heard: Some(NOW),
    });
    Status {
        name: name(1).parse().unwrap(),
        id: id(1),
        version: "0.1.0".into(),
        since: NOW,
        listen: vec!["0.0.0.0:4471".parse().unwrap()],
        page: None,
        notices: Vec::new(),
        folders: vec![folder(peers)],
        machines: known.collect(),
        links,
    }
}

pub(crate) fn link(from: u8, to: u8, called: Option<Direction>, reaches: Option<Reach>) -> SeenLink {
    SeenLink { from: id(from), to: id(to), folders: vec!["hot".parse().unwrap()], called, reaches, quality: None, tried: None }
}

fn fails(why: &str) -> Option<Reach> {
    Some(Reach::Fails { why: why.into() })
}

/// What matters, as (check, severity, text, advice).
fn told(status: &Status) -> Vec<(&'static str, Severity, String, String)> {
    let found = findings(status, NOW).into_iter().filter(|finding| finding.severity != Severity::Ok);
    found.map(|finding| (finding.check, finding.severity, finding.found, finding.advice.unwrap_or_default())).collect()
}

#[test]
fn two_machines_that_are_connected_give_no_cause_for_anything() {
    let status = status(2, vec![peer(2, there())], Vec::new());
    assert_eq!(told(&status), []);
    let all = findings(&status, NOW);
    assert!(all.iter().any(|finding| finding.found.contains("connected, web-1 called")), "{all:?}");
}

#[test]
fn three_in_a_ring_have_no_weak_place_and_three_in_a_line_have_one() {
    let ring = vec![link(2, 3, Some(Direction::In), None), link(3, 2, Some(Direction::Out), None)];
    assert_eq!(told(&status(3, vec![peer(2, there()), peer(3, there())], ring)), []);

    // 1 – 3 – 2, and nobody tries 1 – 2.
    let line = vec![link(3, 2, Some(Direction::Out), None)];
    let found = told(&status(3, vec![peer(3, there())], line.clone()));
    let cut = found.iter().find(|(check, ..)| *check == "single machine").unwrap();
    assert_eq!(
        (cut.1, cut.2.as_str()),
        (Severity::Warning, "if web-3 stops, web-1 and web-2 cannot reach each other"),
        "{found:?}"
    );
    assert!(cut.3.starts_with("make web-") && cut.3.contains(" peers of each other for hot, and open UDP 447"), "{}", cut.3);
    let single = found.iter().find(|(check, ..)| *check == "single links").unwrap();
    assert!(single.2.contains("web-1 – web-3") || single.2.contains("web-3 – web-1"), "{single:?}");

    // The same, where 1 has tried to call 2.
    let mut tried = line;
    tried.push(link(1, 2, None, fails("no answer")));
    let found = told(&status(3, vec![peer(3, there())], tried));
    let cut = found.iter().find(|(check, ..)| *check == "single machine").unwrap();
    assert_eq!(cut.3, "open UDP 4472 on web-2, so that web-1 can call it");
}

#[test]
fn the_machine_itself_can_be_the_weak_place() {
    let found = told(&status(3, vec![peer(2, there()), peer(3, there())], Vec::new()));
    let cut = found.iter().find(|(check, ..)| *check == "single machine").unwrap();
    assert!(cut.2.starts_with("if this machine (web-1) stops, web-"), "{cut:?}");
}

#[test]
fn who_cannot_be_called_is_told_although_the_link_stands() {
    let links = vec![link(1, 2, Some(Direction::In), fails("no answer")), link(2, 1, Some(Direction::Out), None)];
    let found = told(&status(2, vec![peer(2, there())], links));
    let expected = (
        "one way",
        Severity::Warning,
        "web-1 cannot call web-2: no answer; the link stands because web-2 called".to_owned(),
        "open UDP 4472 on web-2, so that either of them can call".to_owned(),
    );
    assert_eq!(found, [expected]);
}

#[test]
fn of_its_own_links_a_machine_believes_itself_alone() {
    let links = vec![link(2, 1, Some(Direction::Out), None)];
    let found = told(&status(2, vec![peer(2, away("no answer"))], links));
    assert_eq!(found.iter().map(|(check, ..)| *check).collect::<Vec<_>>(), ["link", "cut off"], "{found:?}");
    assert!(found[0].2.starts_with("there is no connection"), "{found:?}");

    let links = vec![link(2, 1, None, None)];
    assert_eq!(told(&status(2, vec![peer(2, there())], links)), [], "what the other end said last is older");

    let found = told(&status(2, Vec::new(), vec![link(2, 1, Some(Direction::Out), None)]));
    assert!(found.iter().any(|(check, ..)| *check == "link"), "this machine knows nothing of it: {found:?}");
}

#[test]
fn others_are_connected_where_all_ends_that_tell_say_so() {
    let both = || vec![peer(2, there()), peer(3, there())];
    let checks = |links| told(&status(3, both(), links)).iter().map(|(check, ..)| *check).collect::<Vec<_>>();
    let (there, gone) = (|from, to| link(from, to, Some(Direction::Out), None), |from, to| link(from, to, None, None));
    assert_eq!(checks(vec![there(2, 3), there(3, 2)]), [""; 0]);
    assert_eq!(checks(vec![there(2, 3)]), [""; 0], "nothing was heard from the other end");
    // The dead link is one of the pair, and no way around this machine either.
    let dead = ["link", "single machine", "single links"];
    for links in [vec![there(2, 3), gone(3, 2)], vec![gone(2, 3), there(3, 2)], vec![gone(2, 3), gone(3, 2)]] {
        assert_eq!(checks(links), dead);
    }
}

#[test]
fn a_link_that_is_down_says_why_and_a_machine_without_any_is_cut_off() {
    let found = told(&status(2, vec![peer(2, away("no answer\n"))], Vec::new()));
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].2, "there is no connection: web-1 cannot call web-2: web-2:4477: no answer\\u{a}");
    assert!(found[0].3.contains("agent runs on web-2; open UDP 4472 on web-2"), "{found:?}");
    assert_eq!((found[1].0, found[1].1), ("cut off", Severity::Broken));

    let found = told(&status(3, vec![peer(2, away("no answer")), peer(3, there())], Vec::new()));
    assert_eq!(found.iter().map(|(check, ..)| *check).collect::<Vec<_>>(), ["link"], "one of two is away");
}

#[test]
fn machines_in_two_parts_are_told() {
    let links = vec![link(3, 4, Some(Direction::Out), None), link(2, 3, None, fails("refused"))];
    let found = told(&status(4, vec![peer(2, there())], links));
    let parted = found.iter().find(|(check, ..)| *check == "parted").unwrap();
    assert_eq!(parted.1, Severity::Broken);
    assert!(parted.2.contains("have no way to each other"), "{parted:?}");
    assert_eq!(parted.3, "open UDP 4473 on web-3, so that web-2 can call it");
}

#[test]
fn lossy_links_silent_machines_and_clocks_apart_are_told() {
    let mut status = status(2, vec![peer(2, there())], Vec::new());
    let quality = |loss| Some(Quality { rtt_ms: 34.0, loss, goodput: Some(1 << 20), cost: None });
    status.folders[0].peers[0].quality = quality(0.019);
    status.folders[0].peers[0].clock_offset_ms = Some(-1_900.0);
    status.machines[1].heard = Some(Moment(NOW.0 - 4 * MINUTE));
    assert_eq!(told(&status), []);
    status.folders[0].peers[0].quality = quality(0.042);
    status.folders[0].peers[0].clock_offset_ms = Some(-3_000.0);
    status.machines[1].heard = Some(Moment(NOW.0 - 300 * MINUTE));
    let found = told(&status);
    let texts: Vec<&str> = found.iter().map(|(_, _, text, _)| text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "4.2 % of what web-1 sends to web-2 is lost",
            "nothing was heard of it for 5 hours",
            "its clock is 3.0 s behind this machine's",
        ]
    );
}

#[test]
fn a_folder_without_peers_is_told_and_a_paused_one_says_nothing_of_its_links() {
    let found = told(&status(1, Vec::new(), Vec::new()));
    assert!(matches!(&found[..], [("peers", Severity::Warning, ..)]), "{found:?}");
    let mut paused = status(2, vec![peer(2, there())], Vec::new());
    paused.folders[0].state = FolderState::Paused;
    assert_eq!(told(&paused), []);
}

#[test]
fn a_machine_of_unknown_name_goes_by_the_beginning_of_its_id() {
    let mut status = status(3, vec![peer(2, there())], vec![link(2, 3, Some(Direction::Out), None)]);
    status.machines[2].name = Some("evil\x1b[2J".into());
    assert!(told(&status).iter().any(|(_, _, text, _)| text.contains("evil\\u{1b}[2J")));
    status.machines.truncate(2);
    let start = id(3).to_string().split('-').next().unwrap().to_owned() + "…";
    assert!(told(&status).iter().any(|(_, _, text, _)| text.contains(&start)));
}
