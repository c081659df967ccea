//! Statuses of machines that do not exist: what the page and the metrics are looked at and tested with.

use sync_agent::status::{
    ArchiveDoing, ArchiveRun, ArchiveStatus, Behind, BroughtStatus, DaysSeen, Direction, FolderState, FolderStatus, Kept, Link,
    Machine, Moment, PathProblem, PathText, PeerStatus, Problems, Quality, Reach, Recent, ScrubStatus, SeenLink, Status,
    Transfer, Watches,
};
use sync_core::peer::{Id, Mode, PublicKey};

const SECOND: i64 = 1_000_000_000;
const HOSTILE: &str = "<script>document.title='taken'</script>";

/// Made-up machines around the first one, as seen at `now`.
pub(crate) struct World {
    now: i64,
}

impl World {
    /// At this moment, in nanoseconds.
    pub(crate) fn at(now: i64) -> World {
        World { now }
    }

    fn ago(&self, seconds: i64) -> Moment {
        Moment(self.now - seconds * SECOND)
    }

    fn machine(&self, number: u8, name: &str, heard: Option<i64>) -> Machine {
        let address = format!("192.0.2.{number}:4477").parse().expect("an address");
        Machine {
            id: id(number),
            name: Some(name.into()),
            addresses: vec![address],
            heard: heard.map(|seconds| self.ago(seconds)),
        }
    }

    fn peer(&self, number: u8, name: &str, link: Link, quality: Option<Quality>) -> PeerStatus {
        let even = Behind { files: 0, bytes: 0, since: None, oldest: None };
        PeerStatus {
            name: name.parse().expect("a name"),
            id: id(number),
            mode: Mode::TwoWay,
            link,
            quality,
            lacking_here: Some(even.clone()),
            lacking_there: Some(even),
            last_sync: Some(self.ago(40)),
            transfers: Vec::new(),
            introduced_by: Vec::new(),
            clock_offset_ms: None,
        }
    }

    fn connected(&self, number: u8, seconds: i64, direction: Direction) -> Link {
        let address = format!("192.0.2.{number}:4477").parse().expect("an address");
        Link::Connected { since: self.ago(seconds), address, direction }
    }

    fn folder(&self, name: &str, path: &[u8]) -> FolderStatus {
        FolderStatus {
            name: name.parse().expect("a name"),
            place: PathText::new(path),
            state: FolderState::Watching,
            paths: Some(12_345),
            bytes: Some(45 << 30),
            watches: Watches { needed: Some(4_120), set: 4_120, limit: None },
            conflicts: Some(0),
            in_conflict: Vec::new(),
            problems: Problems::default(),
            recent: Vec::new(),
            brought: BroughtStatus::default(),
            kept: Some(Kept { count: 0, bytes: 0 }),
            last_change: Some(self.ago(75)),
            archive: None,
            peers: Vec::new(),
        }
    }

    /// One machine without folders and without others.
    pub(crate) fn alone(&self) -> Status {
        Status {
            name: "web-hk-1".parse().expect("a name"),
            id: id(1),
            version: "0.1.0".into(),
            since: self.ago(200_000),
            listen: vec!["0.0.0.0:4477".parse().expect("an address")],
            page: None,
            notices: Vec::new(),
            folders: Vec::new(),
            machines: vec![self.machine(1, "web-hk-1", Some(0))],
            links: Vec::new(),
        }
    }

    /// Two machines that agree.
    pub(crate) fn even(&self) -> Status {
        let mut folder = self.folder("hot", b"/srv/app/hot");
        folder.peers = vec![self.peer(2, "web-sg-1", self.connected(2, 7_000, Direction::Out), quality(34.2, 0.0))];
        Status {
            folders: vec![folder],
            machines: vec![self.machine(1, "web-hk-1", Some(0)), self.machine(2, "web-sg-1", Some(3))],
            links: both(1, 2, quality(34.2, 0.0)),
            ..self.alone()
        }
    }

    /// Five machines and all kinds of trouble, names that are no good among them.
    pub(crate) fn trouble(&self) -> Status {
        let names = ["web-hk-1", "web-sg-1", "web-us-east-1", "backup-frankfurt-2", HOSTILE];
        let heard = [Some(0), Some(3), Some(5), Some(4), None];
        let machines = (1..).zip(names).zip(heard).map(|((number, name), heard)| self.machine(number, name, heard)).collect();
        let mut links = both(1, 2, quality(34.2, 0.0004));
        links.extend(both(1, 3, quality(182.0, 0.043)));
        links.extend(both(2, 3, quality(211.0, 0.006)));
        links.extend(both(2, 4, quality(158.0, 0.0)));
        let mut one_way = both(1, 4, quality(171.0, 0.001));
        one_way[1].reaches = Some(fails("192.0.2.1:4477: no answer within 5 seconds"));
        links.extend(one_way);
        links.push(seen(3, 4, None, Some(fails("192.0.2.4:4477: no answer within 5 seconds")), None));
        links.push(seen(4, 3, None, Some(fails("192.0.2.3:4477: connection refused")), None));
        links.push(seen(1, 5, None, Some(fails("old.example.net: the name is not known")), None));
        Status {
            notices: vec!["cannot listen at 203.0.113.4:4477: Address already in use; it is tried again".into()],
            folders: vec![self.cold(), self.hot()],
            machines,
            links,
            page: Some("127.0.0.1:4478".parse().expect("an address")),
            ..self.alone()
        }
    }

    fn archive(&self) -> ArchiveStatus {
        let staying = [("young", 4), ("not-quiet", 1), ("obstacle", 2)];
        ArchiveStatus {
            cold: PathText::new(b"/mnt/cold"),
            doing: ArchiveDoing::Scrubbing,
            unavailable: None,
            archived: 1_204,
            displaced: 3,
            days: Some(DaysSeen {
                oldest: Some(PathText::new(HOSTILE.as_bytes())),
                oldest_ended: Some(self.ago(900_000)),
                waiting: 2,
                waiting_bytes: 7 << 30,
                staying: staying.into_iter().map(|(reason, days)| (reason.to_owned(), days)).collect(),
            }),
            last: Some(ArchiveRun {
                at: self.ago(30_000),
                moved: 1,
                files: 20_000,
                bytes: 9 << 30,
                copied: 9 << 30,
                held: 2,
                changed: 0,
                failed: 1,
                error: None,
            }),
            next: Some(self.ago(-56_000)),
            asked: 2,
            answered: 2,
            scrub: ScrubStatus {
                never: 12,
                oldest: Some(self.ago(2_000_000)),
                last: Some(self.ago(60)),
                damaged: 1,
                repaired: 5,
            },
        }
    }

    fn hot(&self) -> FolderStatus {
        let mut behind = self.peer(3, "web-us-east-1", self.connected(3, 900, Direction::In), quality(182.0, 0.043));
        behind.lacking_here = Some(Behind {
            files: 1234,
            bytes: 5 << 20,
            since: Some(self.ago(140)),
            oldest: Some(PathText::new(b"2026/11/21/inbox/a.jpg")),
        });
        behind.lacking_there =
            Some(Behind { files: 1, bytes: 900, since: Some(self.ago(2)), oldest: Some(PathText::new(b"caf\xe9\x1b[2J")) });
        behind.transfers = vec![Transfer {
            place: PathText::new(b"2026/11/21/video/a very long name of a film that somebody made.mp4"),
            direction: Direction::In,
            bytes: 700 << 20,
            total: 2 << 30,
        }];
        let away = Link::Apart {
            since: Some(self.ago(8_000)),
            why: Some("the name is not known".into()),
            address: Some("old.example.net:4477".parse().expect("an address")),
            next_try: Some(self.ago(-25)),
        };
        let mut away = self.peer(5, "old-one", away, None);
        (away.mode, away.lacking_here, away.lacking_there, away.last_sync) = (Mode::ReceiveOnly, None, None, None);
        let mut folder = self.folder("hot", b"/srv/app/hot");
        folder.state = FolderState::Syncing;
        folder.paths = Some(1_234_567);
        folder.watches = Watches { needed: Some(4_120), set: 3_000, limit: Some(3_000) };
        folder.conflicts = Some(22);
        folder.in_conflict = [
            &b"notes.txt"[..],
            HOSTILE.as_bytes(),
            b"\"><img src=x onerror=alert(1)>",
            b"a\nb\x1b[31mred",
            "\u{202e}gpj.exe".as_bytes(),
            b"not \xff\xfe text",
        ]
        .map(PathText::new)
        .to_vec();
        folder.problems = Problems {
            total: 3,
            listed: vec![
                PathProblem {
                    place: PathText::new(b"2026/11/20/private/key"),
                    step: "read".into(),
                    error: "Permission denied (os error 13)".into(),
                },
                PathProblem {
                    place: PathText::new(&b"very/deep/".repeat(12)),
                    step: "create".into(),
                    error: "No space left on device (os error 28)".into(),
                },
            ],
        };
        folder.kept = Some(Kept { count: 1_200, bytes: 3 << 30 });
        folder.archive = Some(self.archive());
        folder.recent = (0..9)
            .zip(["create", "update", "conflict", "delete", "move", "meta"].iter().cycle())
            .map(|(number, action)| Recent {
                at: self.ago(4 + number * number * 40),
                action: (*action).into(),
                place: PathText::new(format!("2026/11/21/uploads/picture number {number}.jpg").as_bytes()),
                from: if number % 2 == 0 { "web-sg-1" } else { "web-us-east-1" }.parse().expect("a name"),
            })
            .collect();
        folder.peers = vec![
            self.peer(4, "backup-frankfurt-2", self.connected(4, 90_000, Direction::Out), quality(171.0, 0.001)),
            away,
            self.peer(2, "web-sg-1", self.connected(2, 90_000, Direction::Out), quality(34.2, 0.0004)),
            behind,
        ];
        folder
    }

    fn cold(&self) -> FolderStatus {
        let mut folder = self.folder("cold", b"/mnt/cold/caf\xe9");
        folder.state =
            FolderState::Unavailable { why: "/mnt/cold is not mounted: mount it; nothing in it counts as deleted".into() };
        (folder.paths, folder.bytes, folder.kept, folder.last_change, folder.conflicts) = (None, None, None, None, None);
        folder.watches = Watches::default();
        let mut peer = self.peer(4, "backup-frankfurt-2", self.connected(4, 90_000, Direction::Out), quality(171.0, 0.001));
        (peer.mode, peer.lacking_here, peer.lacking_there) = (Mode::SendOnly, None, None);
        folder.peers = vec![peer];
        folder
    }

    /// So many machines, each linked to a few others.
    pub(crate) fn crowd(&self, count: u8) -> Status {
        let machines = (1..=count)
            .map(|number| self.machine(number, &format!("server-{number:02}.example"), Some(i64::from(number) * 11)))
            .collect();
        let mut links = Vec::new();
        for number in 2..=count {
            let loss = if number % 9 == 0 { 0.06 } else { 0.0 };
            links.extend(both(1, number, quality(f64::from(number) * 7.0, loss)));
            if number > 3 && number % 2 == 0 {
                links.extend(both(number, number / 2, quality(20.0, 0.0)));
            }
        }
        links.push(seen(7, 13, None, Some(fails("no route to host")), None));
        Status { machines, links, ..self.even() }
    }
}

fn id(number: u8) -> Id {
    PublicKey::from_bytes([number; 32]).id()
}

fn quality(rtt_ms: f64, loss: f64) -> Option<Quality> {
    Some(Quality { rtt_ms, loss, goodput: Some(8 << 20), cost: Some(rtt_ms * (1.0 + loss)) })
}

fn fails(why: &str) -> Reach {
    Reach::Fails { why: why.into() }
}

fn seen(from: u8, to: u8, called: Option<Direction>, reaches: Option<Reach>, quality: Option<Quality>) -> SeenLink {
    SeenLink { from: id(from), to: id(to), folders: vec!["hot".parse().expect("a name")], called, reaches, tried: None, quality }
}

/// Both ends of a link that the first one called.
fn both(from: u8, to: u8, quality: Option<Quality>) -> Vec<SeenLink> {
    let answers = |number: u8| Some(Reach::Answers { address: format!("192.0.2.{number}:4477") });
    vec![seen(from, to, Some(Direction::Out), answers(to), quality), seen(to, from, Some(Direction::In), answers(from), quality)]
}
