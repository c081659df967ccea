//! What an agent is to do, as `agent.toml` says it. Values here; `read` makes them of text, `file` fetches the text.

mod change;
mod example;
mod file;
mod read;
mod table;

pub use crate::archive::OutsideLinks;
pub use change::{Changes, Named, diff};
pub use example::example;
pub use file::{CONFIG_FILE, ConfigError, create, load, load_with};
pub use read::{link_form, outside_links, parse, zone};

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use sync_core::io::sync::{MaxDelete, Policy};
use sync_core::peer::{Address, Id, Mode, Name};
use sync_core::reserve::Reserve;

/// Folders of one agent.
pub const FOLDERS: usize = 256;
/// Addresses to listen at.
pub const LISTEN: usize = 16;
/// Mistakes of a configuration that are told at a time.
pub const FAULTS: usize = 20;

/// One mistake in the text of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// The key with those above it (`folders.hot.path`); empty where the text is no TOML.
    pub key: String,
    /// What is wrong, and what can be written.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.line, self.text),
            key => write!(f, "{}: {key}: {}", self.line, self.text),
        }
    }
}

/// All of a configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What this machine is called in what it shows.
    pub name: Name,
    /// Where peers can call; empty for a machine that only ever calls.
    pub listen: Vec<SocketAddr>,
    /// Where the status page is, on loopback; `None`: nowhere.
    pub status: Option<SocketAddr>,
    /// All peers that stand in the configuration, and those that a folder names and `peers.toml` knows.
    pub peers: BTreeMap<Name, Peer>,
    /// The folders.
    pub folders: BTreeMap<Name, Folder>,
    /// How old days of a folder are archived, by the folder's name.
    pub archives: BTreeMap<Name, Archive>,
    /// What the agent may use.
    pub limits: Limits,
}

/// A machine to synchronise with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub id: Id,
    /// Where it may be found; none for one that only ever calls.
    pub addresses: Vec<Address>,
}

/// One folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Folder {
    /// Its root here, absolute.
    pub path: PathBuf,
    /// With whom it is synchronised, and what each of them may do here.
    pub peers: BTreeMap<Name, Mode>,
    /// Ignore rules beside those in the root, gitignore syntax.
    pub ignore: Vec<String>,
    /// What becomes of conflicts: left, both kept, or the newer version's.
    pub conflicts: Policy,
    /// How long a path must stand still before it is looked at.
    pub quiet: Duration,
    /// How long replaced and deleted versions are kept; `None`: not at all.
    pub keep_versions: Option<Duration>,
    /// More deletions at a time than this stop the folder until somebody decides.
    pub max_delete: MaxDelete,
    /// Where the state is kept instead of `.driftless` in the root.
    pub state_dir: Option<PathBuf>,
    /// Are the folder's peers told of each other, so that they can connect directly?
    pub introduce: bool,
    /// How often everything is scanned, whatever was watched.
    pub schedule: Duration,
}

/// How old days of a folder move to a cold root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// The cold root, absolute.
    pub cold: PathBuf,
    /// Where the days are: `%Y/%m/%d`, or with other text between.
    pub layout: String,
    /// Below which folders of the root, as a pattern; `None`: below the root itself.
    pub under: Option<String>,
    /// Days older than this are archived.
    pub older_than: Duration,
    /// And only if nothing in them changed for so long.
    pub quiet: Duration,
    /// In which days are counted.
    pub timezone: Timezone,
    /// How the link in the place of a day is written.
    pub link: LinkForm,
    /// What becomes of days with links that lead out of them.
    pub outside_links: OutsideLinks,
    /// How long the day that was moved is kept beside its copy.
    pub keep_displaced: Duration,
    /// When archived days are scanned.
    pub cold_schedule: Schedule,
    /// So many peers must be known to have a day before it is archived.
    pub min_peers: usize,
    /// Archived files that are damaged are brought back from peers that have them as they were.
    pub repair: bool,
}

/// A time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timezone {
    /// The machine's.
    Local,
    /// By its name in the tz database; whether it exists is found out when it is used.
    Named(String),
}

/// How a link to an archived day is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkForm {
    /// With the whole path of the cold root.
    Absolute,
    /// Relative to where the link stands.
    Relative,
    /// Below another path, under which applications see the cold root.
    Prefix(PathBuf),
}

/// When something is done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// After so long.
    Every(Duration),
    /// Once a day.
    Daily {
        /// 0 to 23.
        hour: u32,
        /// 0 to 59.
        minute: u32,
    },
}

/// What the agent may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Watches of all folders together; `None`: as many as the system gives.
    pub watches: Option<u64>,
    /// Bytes a second to all peers together, and as many from them; `None`: as many as there are.
    pub bandwidth: Option<u64>,
    /// Exchanges with peers that are under way at a time, over all folders.
    pub exchanges: usize,
    /// What stays free on each disk to which content is brought.
    pub reserve: Reserve,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { watches: None, bandwidth: None, exchanges: 4, reserve: Reserve::STANDARD }
    }
}
