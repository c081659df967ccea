//! How the agent is: one plain value, which the control socket hands out and everything that shows it is rendered from. Pure.
//!
//! What is not known is `None`, and never zero.

mod archive;

pub use archive::{ArchiveDoing, ArchiveRun, ArchiveStatus, DaysSeen, ScrubStatus};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use sync_core::peer::{Address, Id, Mode, Name};

/// Problems, transfers and notices that are listed at a time; of the rest there are numbers.
pub const LISTED: usize = 20;

/// Machines that are listed at most.
pub const MACHINES: usize = 256;

/// Links that are listed at most.
pub const LINKS: usize = 1024;

/// A moment: nanoseconds since 1970, as text RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment(pub i64);

impl From<Moment> for String {
    fn from(moment: Moment) -> String {
        DateTime::from_timestamp_nanos(moment.0).to_rfc3339_opts(SecondsFormat::Nanos, true)
    }
}

impl TryFrom<String> for Moment {
    type Error = String;

    fn try_from(text: String) -> Result<Moment, String> {
        let moment = DateTime::parse_from_rfc3339(&text).map_err(|error| format!("{text:?} is no moment: {error}"))?;
        let ns = moment.with_timezone(&Utc).timestamp_nanos_opt();
        ns.map(Moment).ok_or_else(|| format!("{text:?} is beyond what can be counted in nanoseconds"))
    }
}

/// A path as text, and its bytes where they are not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathText {
    path: String,
    /// Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
}

impl PathText {
    /// Of a path's bytes; `.` for the root itself.
    #[must_use]
    pub fn new(bytes: &[u8]) -> PathText {
        match std::str::from_utf8(bytes) {
            Ok("") => PathText { path: ".".into(), path_bytes: None },
            Ok(text) => PathText { path: text.into(), path_bytes: None },
            Err(_) => PathText { path: String::from_utf8_lossy(bytes).into_owned(), path_bytes: Some(STANDARD.encode(bytes)) },
        }
    }

    /// The bytes again.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let exact = self.path_bytes.as_ref().and_then(|bytes| STANDARD.decode(bytes).ok());
        exact.unwrap_or_else(|| self.path.clone().into_bytes())
    }
}

/// The agent, its folders, its peers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What the machine is called.
    pub name: Name,
    /// Who it is.
    pub id: Id,
    /// The program's version.
    pub version: String,
    /// When it began.
    pub since: Moment,
    /// Where it listens, with the ports that it really has.
    pub listen: Vec<SocketAddr>,
    /// Where the status page is, with the port that it really has.
    #[serde(default)]
    pub page: Option<SocketAddr>,
    /// What is wrong with the agent as a whole, the newest first, up to [`LISTED`].
    pub notices: Vec<String>,
    /// The folders, in the order of their names.
    pub folders: Vec<FolderStatus>,
    /// The machines that this one knows of, itself first, up to [`MACHINES`].
    pub machines: Vec<Machine>,
    /// The links between them as each end sees them, up to [`LINKS`]: so two for each pair of which both ends are heard.
    pub links: Vec<SeenLink>,
}

/// A machine that this one knows of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Who it is.
    pub id: Id,
    /// What it is called: here, or else by itself.
    pub name: Option<String>,
    /// Where it can be called, as far as anybody told.
    pub addresses: Vec<Address>,
    /// When it was heard of last, directly or through others; `None`: it was not since this agent began.
    pub heard: Option<Moment>,
}

/// One link as one of its ends sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeenLink {
    /// Who tells.
    pub from: Id,
    /// Whom it has, or wants, a link to.
    pub to: Id,
    /// The folders that the link is for.
    pub folders: Vec<Name>,
    /// Is there a connection, and who called?
    pub called: Option<Direction>,
    /// Can `from` call `to`? `None`: it was not tried.
    pub reaches: Option<Reach>,
    /// How good it is.
    pub quality: Option<Quality>,
    /// When that was tried; of this machine's own links alone.
    #[serde(default)]
    pub tried: Option<Moment>,
}

/// What became of the last attempt to call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reach", rename_all = "kebab-case")]
pub enum Reach {
    /// Somebody answered, with the right key.
    Answers {
        /// Where.
        address: String,
    },
    /// Nobody did.
    Fails {
        /// Why.
        why: String,
    },
}

/// One folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FolderStatus {
    /// What it is called.
    pub name: Name,
    /// Its root here.
    #[serde(flatten)]
    pub place: PathText,
    /// What it is doing.
    #[serde(flatten)]
    pub state: FolderState,
    /// Live files, directories and links.
    pub paths: Option<u64>,
    /// Bytes of the files.
    pub bytes: Option<u64>,
    /// How well changes are noticed.
    pub watches: Watches,
    /// Open conflicts.
    pub conflicts: Option<u64>,
    /// Some of their paths, up to [`LISTED`].
    pub in_conflict: Vec<PathText>,
    /// Paths that failed.
    pub problems: Problems,
    /// What was brought here last, the newest first, up to [`LISTED`].
    pub recent: Vec<Recent>,
    /// All that was brought here since the agent began.
    #[serde(default)]
    pub brought: BroughtStatus,
    /// Kept versions.
    pub kept: Option<Kept>,
    /// When something last changed here, by whomever.
    pub last_change: Option<Moment>,
    /// How its old days are archived; `None`: they are not, or it has not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveStatus>,
    /// Its peers, in the order of their names.
    pub peers: Vec<PeerStatus>,
}

/// What a folder is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum FolderState {
    /// Nothing was looked at yet.
    Starting,
    /// Everything is looked at.
    Scanning,
    /// It waits for changes.
    Watching,
    /// Content is exchanged.
    Syncing,
    /// Somebody paused it.
    Paused,
    /// It waits for changes, and nothing is pulled from a peer before somebody has decided.
    Stopped {
        /// From whom, why, and both ways out.
        why: String,
    },
    /// Its root cannot be used: nothing in it counts as deleted.
    Unavailable {
        /// Why, and what to do.
        why: String,
    },
}

impl FolderState {
    /// The word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            FolderState::Starting => "starting",
            FolderState::Scanning => "scanning",
            FolderState::Watching => "watching",
            FolderState::Syncing => "syncing",
            FolderState::Paused => "paused",
            FolderState::Stopped { .. } => "stopped",
            FolderState::Unavailable { .. } => "unavailable",
        }
    }
}

/// Watches of directories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watches {
    /// As many as the folder has directories.
    pub needed: Option<u64>,
    /// As many as there are. The rest is found by the next scan.
    pub set: u64,
    /// As many as there may be for this folder.
    pub limit: Option<u64>,
}

/// Paths that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problems {
    /// How many.
    pub total: u64,
    /// Some of them, up to [`LISTED`].
    pub listed: Vec<PathProblem>,
}

/// One path that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathProblem {
    /// Below the folder.
    #[serde(flatten)]
    pub place: PathText,
    /// What was attempted.
    pub step: String,
    /// What went wrong.
    pub error: String,
}

/// Something that was brought to this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent {
    /// When.
    pub at: Moment,
    /// What was done: `create`, `update`, `delete`, `move`, `meta` or `conflict`.
    pub action: String,
    /// Below the folder.
    #[serde(flatten)]
    pub place: PathText,
    /// From whom.
    pub from: Name,
}

/// What pulls have changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroughtStatus {
    /// Paths that were created.
    pub created: u64,
    /// Files that were replaced, attributes that were changed.
    pub updated: u64,
    /// Paths that were deleted.
    pub deleted: u64,
    /// Files and directories that were moved in place.
    pub moved: u64,
    /// Conflicts that were met.
    pub conflicts: u64,
    /// Bytes of content.
    pub bytes: u64,
}

/// Kept versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// How many.
    pub count: u64,
    /// Their size.
    pub bytes: u64,
}

/// One peer of a folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// What it is called here.
    pub name: Name,
    /// Who it is.
    pub id: Id,
    /// What it may do here.
    pub mode: Mode,
    /// Is there a connection?
    #[serde(flatten)]
    pub link: Link,
    /// How good the path is, as measured last.
    pub quality: Option<Quality>,
    /// What the peer has and this machine lacks; `None`: it was not found out yet, or not since it had news.
    pub lacking_here: Option<Behind>,
    /// What this machine has and the peer lacks, as it said last; `None`: it did not say yet, or not since there was news.
    pub lacking_there: Option<Behind>,
    /// When an exchange with it last came to its end.
    pub last_sync: Option<Moment>,
    /// How far its clock is ahead of this machine's, ms, as measured last; `None`: it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<f64>,
    /// Files on their way, up to [`LISTED`].
    pub transfers: Vec<Transfer>,
    /// Who introduced it; empty for a peer that is configured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub introduced_by: Vec<Name>,
}

/// The connection to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "link", rename_all = "kebab-case")]
pub enum Link {
    /// There is one.
    Connected {
        /// Since when.
        since: Moment,
        /// Where the peer is.
        address: SocketAddr,
        /// Who called.
        direction: Direction,
    },
    /// There is none.
    Apart {
        /// Since when.
        since: Option<Moment>,
        /// Why, as far as the last attempt tells.
        why: Option<String>,
        /// Where it was tried last.
        address: Option<Address>,
        /// When it is tried again; `None`: the peer has to call.
        next_try: Option<Moment>,
    },
}

/// Who called, or where content goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Towards this machine.
    In,
    /// Away from it.
    Out,
}

/// How good a path is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Round trip.
    pub rtt_ms: f64,
    /// Share of packets that are lost, 0 to 1.
    pub loss: f64,
    /// Bytes of content a second, as seen last under load.
    pub goodput: Option<u64>,
    /// By which sources are chosen: smaller is better.
    pub cost: Option<f64>,
}

/// What one side lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Files, as far as they are known.
    pub files: u64,
    /// Bytes, as far as they are known.
    pub bytes: u64,
    /// Since when it is known to lack something; `None` while it lacks nothing.
    pub since: Option<Moment>,
    /// A path of which it is known that none waits for longer; `None` where that is known of no path.
    pub oldest: Option<PathText>,
}

/// One file on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Below the folder.
    #[serde(flatten)]
    pub place: PathText,
    /// Where it goes.
    pub direction: Direction,
    /// Bytes that are there.
    pub bytes: u64,
    /// Bytes of it all.
    pub total: u64,
}

/// All of it in a few numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Is nothing known to be missing anywhere, with everybody connected and nothing open?
    pub in_sync: bool,
    /// Folders.
    pub folders: u64,
    /// Folders whose root cannot be used.
    pub unavailable: u64,
    /// Folders that need a decision.
    #[serde(default)]
    pub stopped: u64,
    /// Peers.
    pub peers: u64,
    /// Those of them that are connected.
    pub connected: u64,
    /// Files that some side lacks.
    pub behind_files: u64,
    /// Their bytes.
    pub behind_bytes: u64,
    /// Open conflicts.
    pub conflicts: u64,
    /// Paths that failed.
    pub problems: u64,
}

impl Behind {
    /// Is something lacking?
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.files > 0 || self.bytes > 0
    }
}

impl PeerStatus {
    /// Is there a connection?
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.link, Link::Connected { .. })
    }

    fn in_sync(&self) -> bool {
        // Whoever only brings, or only takes, is never known to lack, or to have, the rest.
        let even = |behind: &Option<Behind>, asked: bool| !asked || behind.as_ref().is_some_and(|behind| !behind.is_any());
        self.is_connected()
            && even(&self.lacking_here, self.mode != Mode::SendOnly)
            && even(&self.lacking_there, self.mode != Mode::ReceiveOnly)
    }
}

impl Status {
    /// The few numbers.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let peers = || self.folders.iter().flat_map(|folder| &folder.peers);
        let behind = || peers().flat_map(|peer| [&peer.lacking_here, &peer.lacking_there]).flatten();
        let names = |connected: bool| {
            let names: BTreeSet<&Name> =
                peers().filter(|peer| !connected || peer.is_connected()).map(|peer| &peer.name).collect();
            names.len() as u64
        };
        let settled = |folder: &FolderStatus| {
            folder.state == FolderState::Watching && folder.conflicts == Some(0) && folder.problems.total == 0
        };
        let are = |state: fn(&FolderState) -> bool| self.folders.iter().filter(|folder| state(&folder.state)).count() as u64;
        Summary {
            in_sync: self.folders.iter().all(settled) && peers().all(PeerStatus::in_sync),
            folders: self.folders.len() as u64,
            unavailable: are(|state| matches!(state, FolderState::Unavailable { .. })),
            stopped: are(|state| matches!(state, FolderState::Stopped { .. })),
            peers: names(false),
            connected: names(true),
            behind_files: behind().map(|behind| behind.files).fold(0, u64::saturating_add),
            behind_bytes: behind().map(|behind| behind.bytes).fold(0, u64::saturating_add),
            conflicts: self.folders.iter().filter_map(|folder| folder.conflicts).sum(),
            problems: self.folders.iter().map(|folder| folder.problems.total).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_core::peer::PublicKey;

    fn peer(name: &str) -> PeerStatus {
        let even = Behind { files: 0, bytes: 0, since: None, oldest: None };
        PeerStatus {
            name: name.parse().unwrap(),
            id: PublicKey::from_bytes([1; 32]).id(),
            mode: Mode::TwoWay,
            link: Link::Connected { since: Moment(1), address: "127.0.0.1:1".parse().unwrap(), direction: Direction::In },
            quality: Some(Quality { rtt_ms: 1.5, loss: 0.01, goodput: Some(3), cost: Some(2.0) }),
            lacking_here: Some(even.clone()),
            lacking_there: Some(even),
            last_sync: Some(Moment(2)),
            clock_offset_ms: None,
            transfers: vec![Transfer { place: PathText::new(b"a\xff"), direction: Direction::Out, bytes: 1, total: 2 }],
            introduced_by: Vec::new(),
        }
    }

    fn status() -> Status {
        let folder = |name: &str| FolderStatus {
            name: name.parse().unwrap(),
            place: PathText::new(b"/srv/caf\xe9"),
            state: FolderState::Watching,
            paths: Some(3),
            bytes: Some(4),
            watches: Watches { needed: Some(2), set: 1, limit: None },
            conflicts: Some(0),
            in_conflict: Vec::new(),
            problems: Problems::default(),
            recent: vec![Recent {
                at: Moment(4),
                action: "create".into(),
                place: PathText::new(b"d/f\xff"),
                from: "b".parse().unwrap(),
            }],
            brought: BroughtStatus { created: 1, bytes: 2, ..BroughtStatus::default() },
            kept: Some(Kept { count: 1, bytes: 2 }),
            last_change: None,
            archive: None,
            peers: vec![peer("b"), peer("c")],
        };
        Status {
            name: "a".parse().unwrap(),
            id: PublicKey::from_bytes([7; 32]).id(),
            version: "0".into(),
            since: Moment(-1),
            listen: vec!["0.0.0.0:4477".parse().unwrap()],
            page: Some("127.0.0.1:4478".parse().unwrap()),
            notices: vec!["x".into()],
            folders: vec![folder("cold"), folder("hot")],
            machines: vec![Machine {
                id: PublicKey::from_bytes([7; 32]).id(),
                name: Some("a".into()),
                addresses: Vec::new(),
                heard: Some(Moment(3)),
            }],
            links: vec![SeenLink {
                from: PublicKey::from_bytes([7; 32]).id(),
                to: PublicKey::from_bytes([1; 32]).id(),
                folders: vec!["hot".parse().unwrap()],
                called: Some(Direction::Out),
                reaches: Some(Reach::Answers { address: "127.0.0.1:1".into() }),
                quality: None,
                tried: Some(Moment(4)),
            }],
        }
    }

    #[test]
    fn a_status_comes_back_from_its_text_exactly() {
        let mut status = status();
        status.folders[0].state = FolderState::Unavailable { why: "unmounted".into() };
        status.folders[0].peers[0].link =
            Link::Apart { since: Some(Moment(5)), why: None, address: None, next_try: Some(Moment(i64::MAX)) };
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
        assert_eq!(status.folders[0].place.bytes(), b"/srv/caf\xe9");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let folder = &value["folders"][0];
        assert_eq!(
            (&folder["state"], &folder["why"], &folder["peers"][0]["link"]),
            (&"unavailable".into(), &"unmounted".into(), &"apart".into())
        );
        assert_eq!(value["since"], "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn a_machine_counts_once_and_every_folder_in_full() {
        let mut status = status();
        let all = Summary { in_sync: true, folders: 2, peers: 2, connected: 2, ..Summary::default() };
        assert_eq!(status.summary(), all);
        status.folders[1].peers[1].lacking_there = Some(Behind { files: 2, bytes: 9, since: Some(Moment(1)), oldest: None });
        status.folders[0].conflicts = Some(3);
        let left = Summary { in_sync: false, behind_files: 2, behind_bytes: 9, conflicts: 3, ..all };
        assert_eq!(status.summary(), left);
        status.folders[0].state = FolderState::Stopped { why: "the pull from b needs a decision".into() };
        assert_eq!(status.summary(), Summary { stopped: 1, ..left });
    }

    #[test]
    fn what_is_not_known_is_not_in_sync() {
        let changes: [fn(&mut FolderStatus); 7] = [
            |folder| folder.state = FolderState::Starting,
            |folder| folder.conflicts = None,
            |folder| folder.problems.total = 1,
            |folder| folder.peers[0].lacking_here = None,
            |folder| folder.peers[0].lacking_there = None,
            |folder| folder.peers[0].link = Link::Apart { since: None, why: None, address: None, next_try: None },
            |folder| folder.state = FolderState::Paused,
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut status = status();
            change(&mut status.folders[0]);
            assert!(!status.summary().in_sync, "{at}");
        }
        let mut status = status();
        status.folders[0].peers[0].lacking_there = None;
        status.folders[0].peers[0].mode = Mode::ReceiveOnly;
        assert!(status.summary().in_sync, "a peer that gets nothing lacks nothing");
    }

    #[test]
    fn a_moment_is_text_and_comes_back() {
        for ns in [0, -1, 1_772_668_801_123_456_789, i64::MAX, i64::MIN] {
            assert_eq!(Moment::try_from(String::from(Moment(ns))), Ok(Moment(ns)));
        }
        for wrong in ["", "yesterday", "2026-03-05", "9999-01-01T00:00:00Z"] {
            assert!(Moment::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
