//! From the text of a configuration to its values. Pure: nothing is looked up on the disk, no name is resolved.

use super::table::{Faults, Keys, Section};
use super::{Archive, Config, FOLDERS, Fault, Folder, LISTEN, Limits, LinkForm, OutsideLinks, Peer, Schedule, Timezone};
use crate::archive::{Layout, Under};
use crate::values;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use sync_core::ignore::Rules;
use sync_core::io::sync::{MaxDelete, Policy};
use sync_core::peer::{ADDRESSES, Book, Id, Mode, Name, PEERS};
use toml_edit::Document;

pub(super) const TOP: Keys = &["name", "listen", "status", "peers", "folders", "archive", "limits"];
pub(super) const PEER: Keys = &["id", "addresses"];
pub(super) const FOLDER: Keys =
    &["path", "peers", "ignore", "conflicts", "quiet", "keep_versions", "max_delete", "schedule", "state_dir", "introduce"];
pub(super) const ARCHIVE: Keys = &[
    "cold",
    "layout",
    "under",
    "older_than",
    "quiet",
    "timezone",
    "link",
    "outside_links",
    "keep_displaced",
    "cold_schedule",
    "min_peers",
    "repair",
];
pub(super) const LIMITS: Keys = &["watches", "bandwidth", "exchanges", "reserve"];

/// Ignore rules of one folder.
const RULES: usize = 1_000;
/// Shorter than this, a folder would be scanned all the time.
const SHORTEST_SCHEDULE: Duration = Duration::from_secs(10);
/// Longer than this, a path that is written to now and then would never be sent.
const LONGEST_QUIET: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Reads a configuration. `book` has the machines of `peers.toml`: one that a folder names and that has no table here is taken from
/// there, and of one that stands in both, the addresses of both are tried.
///
/// # Errors
/// All mistakes, in the order of the text, up to a limit.
pub fn parse(text: &str, book: &Book) -> Result<Config, Vec<Fault>> {
    let faults = Faults::new(text);
    let config = match Document::parse(text) {
        Ok(document) => Reader { top: Section::top(document.as_table(), &faults, TOP), book }.config(),
        Err(error) => {
            faults.add(error.span(), "", error.message().replace('\n', ", "));
            None
        }
    };
    let found = faults.into_found();
    match config {
        Some(config) if found.is_empty() => Ok(config),
        _ => Err(found),
    }
}

struct Reader<'a> {
    top: Section<'a>,
    book: &'a Book,
}

impl Reader<'_> {
    /// `None` only where a mistake was noted.
    fn config(&self) -> Option<Config> {
        let name = self.top.required("name", "what this machine is called, such as name = \"web-1\"", said);
        let listen = self.listen();
        let status = self.status();
        let mut peers = self.peers();
        let folders = self.folders(&mut peers);
        let archives = self.archives(&folders);
        let limits = self.limits();
        Some(Config { name: name?, listen, status, peers, folders, archives, limits })
    }

    fn listen(&self) -> Vec<SocketAddr> {
        let mut seen = BTreeSet::new();
        self.top.list("listen", LISTEN, |text| {
            let address = socket(text)?;
            // Port 0 is another one each time.
            if address.port() != 0 && !seen.insert(address) {
                return Err(format!("{address} stands there twice"));
            }
            Ok(address)
        })
    }

    fn status(&self) -> Option<SocketAddr> {
        let default = || Some(SocketAddr::from(([127, 0, 0, 1], 4478)));
        let parse = |text: &str| match text {
            "off" => Ok(None),
            text => match socket(text).map_err(|error| format!("{error}, or \"off\""))? {
                address if address.ip().is_loopback() => Ok(Some(address)),
                address => {
                    Err(format!("{address} is not on loopback, and the page asks nobody for a password; give 127.0.0.1:PORT"))
                }
            },
        };
        if self.top.has("status") { self.top.parsed("status", parse).flatten() } else { default() }
    }

    fn peers(&self) -> BTreeMap<Name, Peer> {
        let Some(tables) = self.top.table("peers", None) else { return BTreeMap::new() };
        let mut peers = BTreeMap::new();
        let mut ids: BTreeMap<Id, Name> = BTreeMap::new();
        for (name, key) in tables.names::<Name>(PEERS, "peers") {
            let Some(table) = tables.table(key, Some(PEER)) else { continue };
            let addresses = table.list("addresses", ADDRESSES, said);
            let Some(id) = table.required("id", "as `driftless id` prints it on that machine", said::<Id>) else { continue };
            if let Some(other) = ids.insert(id, name.clone()) {
                table.wrong("id", format!("the same id as that of peers.{other}: one machine has one name"));
            }
            if let Some(known) = self.book.peers().get(&name).filter(|known| known.id != id) {
                let id = known.id;
                table.wrong(
                    "id",
                    format!("peers.toml knows {name} with another id, {id}; mend one, or driftless peer remove {name}"),
                );
            }
            let peer = Peer { id, addresses: self.all_addresses(id, addresses) };
            peers.insert(name, peer);
        }
        peers
    }

    /// Those of the configuration first, then those that `peers.toml` has for the same machine.
    fn all_addresses(&self, id: Id, mut addresses: Vec<sync_core::peer::Address>) -> Vec<sync_core::peer::Address> {
        let known = self.book.peers().values().filter(|known| known.id == id).flat_map(|known| known.addresses.iter());
        let new: Vec<_> = known.filter(|address| !addresses.contains(address)).cloned().collect();
        addresses.extend(new);
        addresses.truncate(ADDRESSES);
        addresses
    }

    fn folders(&self, peers: &mut BTreeMap<Name, Peer>) -> BTreeMap<Name, Folder> {
        let Some(tables) = self.top.table("folders", None) else { return BTreeMap::new() };
        let mut folders: BTreeMap<Name, Folder> = BTreeMap::new();
        for (name, key) in tables.names::<Name>(FOLDERS, "folders") {
            let Some(table) = tables.table(key, Some(FOLDER)) else { continue };
            let Some(folder) = self.folder(&table, peers) else { continue };
            if let Some((other, text)) =
                folders.iter().find_map(|(other, known)| Some((other, overlap(&folder.path, &known.path)?)))
            {
                table.wrong("path", format!("{} {text} folders.{other}: each path belongs to one folder", folder.path.display()));
            }
            folders.insert(name, folder);
        }
        for (name, folder) in &folders {
            let Some(state) = &folder.state_dir else { continue };
            if let Some((other, _)) = folders.iter().find(|(_, other)| state.starts_with(&other.path)) {
                let table = tables.table(name.as_str(), None);
                let text = format!("{} is below folders.{other}, and would be synchronised with it", state.display());
                table.inspect(|table| table.wrong("state_dir", text));
            }
        }
        folders
    }

    fn folder(&self, table: &Section<'_>, peers: &mut BTreeMap<Name, Peer>) -> Option<Folder> {
        let path = table.required("path", "the folder on this machine, such as path = \"/srv/hot\"", absolute);
        let quiet = table.parsed("quiet", |text| match values::duration(text)? {
            quiet if quiet <= LONGEST_QUIET => Ok(quiet),
            _ => Err(format!("{text} is longer than an hour: what is written to now and then would never be sent")),
        });
        let schedule = table.parsed("schedule", |text| match values::duration(text)? {
            schedule if schedule >= SHORTEST_SCHEDULE => Ok(schedule),
            _ => Err(format!("{text} is shorter than ten seconds: the folder would be scanned all the time")),
        });
        let folder = Folder {
            path: path.unwrap_or_default(),
            peers: self.folder_peers(table, peers),
            ignore: table.list("ignore", RULES, |rule| match Rules::parse(rule) {
                Ok(_) if rule.contains('\n') => Err("one rule each is expected, without a line break".into()),
                Ok(_) => Ok(rule.to_owned()),
                Err(error) => Err(error.to_string()),
            }),
            conflicts: table.parsed("conflicts", policy).unwrap_or(Policy::KeepBoth),
            quiet: quiet.unwrap_or(Duration::from_millis(200)),
            keep_versions: table.parsed("keep_versions", values::retention).map_or(Some(7 * DAY), |kept| kept.0),
            max_delete: table.parsed_or_number("max_delete", values::max_delete).unwrap_or(MaxDelete::Percent(50.0)),
            state_dir: table.parsed("state_dir", absolute),
            introduce: table.flag("introduce").unwrap_or(false),
            schedule: schedule.unwrap_or(Duration::from_secs(3_600)),
        };
        // What cannot be read has no place among the others.
        (!folder.path.as_os_str().is_empty()).then_some(folder)
    }

    /// The folder's peers; one that is known from `peers.toml` alone becomes one of the configuration.
    fn folder_peers(&self, table: &Section<'_>, peers: &mut BTreeMap<Name, Peer>) -> BTreeMap<Name, Mode> {
        let Some(granted) = table.table("peers", None) else { return BTreeMap::new() };
        let mut modes = BTreeMap::new();
        for (name, key) in granted.names::<Name>(PEERS, "peers") {
            let Some(mode) = granted.parsed(key, said) else { continue };
            if !peers.contains_key(&name) {
                match self.book.peers().get(&name) {
                    Some(known) => match peers.iter().find(|(_, peer)| peer.id == known.id) {
                        Some((other, _)) => {
                            granted.wrong(
                                key,
                                format!("peers.toml knows the machine of peers.{other} as {name}: name it {other} here"),
                            );
                        }
                        None => {
                            peers.insert(name.clone(), Peer { id: known.id, addresses: known.addresses.clone() });
                        }
                    },
                    None => {
                        let text = format!(
                            "no peer is named {name}: add [peers.{name}], or driftless peer add {name} ID, or driftless pair"
                        );
                        granted.wrong(key, text);
                    }
                }
            }
            modes.insert(name, mode);
        }
        modes
    }

    fn archives(&self, folders: &BTreeMap<Name, Folder>) -> BTreeMap<Name, Archive> {
        let Some(tables) = self.top.table("archive", None) else { return BTreeMap::new() };
        let mut archives: BTreeMap<Name, Archive> = BTreeMap::new();
        for (name, key) in tables.names::<Name>(FOLDERS, "archives") {
            let Some(table) = tables.table(key, Some(ARCHIVE)) else { continue };
            let folder = folders.get(&name);
            if !self.top.table("folders", None).is_some_and(|folders| folders.has(key)) {
                tables.wrong(key, format!("there is no folders.{name} whose days could be archived"));
            }
            let Some(archive) = archive(&table) else { continue };
            if let Some((other, text)) =
                folders.iter().find_map(|(name, known)| Some((name, overlap(&archive.cold, &known.path)?)))
            {
                table.wrong("cold", format!("{} {text} folders.{other}: hot and cold lie apart", archive.cold.display()));
            }
            if let Some((other, text)) =
                archives.iter().find_map(|(name, known)| Some((name, overlap(&archive.cold, &known.cold)?)))
            {
                table.wrong(
                    "cold",
                    format!("{} {text} archive.{other}: each folder has a cold root of its own", archive.cold.display()),
                );
            }
            if let Some(folder) = folder.filter(|folder| folder.peers.len() < archive.min_peers) {
                let (wanted, there) = (archive.min_peers, folder.peers.len());
                table.wrong(
                    "min_peers",
                    format!("{wanted} peers are to have a day, and folders.{name} has {there}: nothing would ever be archived"),
                );
            }
            archives.insert(name, archive);
        }
        archives
    }

    fn limits(&self) -> Limits {
        let standard = Limits::default();
        let Some(table) = self.top.table("limits", Some(LIMITS)) else { return standard };
        Limits {
            watches: table.number("watches", 0..=u64::from(u32::MAX)),
            bandwidth: table.parsed("bandwidth", values::rate).flatten(),
            exchanges: table.number("exchanges", 1..=64).map_or(standard.exchanges, |number| number as usize),
            reserve: table.parsed("reserve", values::reserve).unwrap_or(standard.reserve),
        }
    }
}

fn archive(table: &Section<'_>) -> Option<Archive> {
    let cold = table.required("cold", "the folder to which old days go, such as cold = \"/mnt/cold\"", absolute);
    let layout = table.parsed("layout", layout);
    let under = table.parsed("under", |text| Under::parse(text).map(|under| under.text().to_owned()));
    let older_than = table.parsed("older_than", |text| match values::duration(text)? {
        age if age >= DAY => Ok(age),
        _ => Err(format!("{text} is less than a day: today's files stay hot")),
    });
    let min_peers = table.number("min_peers", 0..=PEERS as u64).unwrap_or(0);
    Some(Archive {
        layout: layout.unwrap_or_else(|| "%Y/%m/%d".to_owned()),
        under,
        older_than: older_than.unwrap_or(3 * DAY),
        quiet: table.parsed("quiet", values::duration).unwrap_or(DAY),
        timezone: table.parsed("timezone", zone).unwrap_or(Timezone::Local),
        link: table.parsed("link", link_form).unwrap_or(LinkForm::Absolute),
        outside_links: table.parsed("outside_links", outside_links).unwrap_or(OutsideLinks::Skip),
        keep_displaced: table.parsed("keep_displaced", values::duration).unwrap_or(3 * DAY),
        cold_schedule: table.parsed("cold_schedule", schedule).unwrap_or(Schedule::Daily { hour: 3, minute: 0 }),
        min_peers: min_peers as usize,
        repair: table.flag("repair").unwrap_or(true),
        cold: cold?,
    })
}

/// Whatever says itself what is wrong with a text.
fn said<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address to listen at: give IP:PORT (0.0.0.0:4477, [::]:4477)"))
}

/// A whole path, in its plainest form.
fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let wrong = |why: &str| Err(format!("{text:?} {why}: give the whole path, from / on"));
    if !path.is_absolute() {
        return wrong("is relative");
    }
    if text.contains('\0') || path.components().any(|part| part == Component::ParentDir) {
        return wrong("contains `..`, or a zero byte");
    }
    // Components leave out `.` and doubled slashes.
    Ok(path.components().collect())
}

/// How the first path lies to the second one, if not apart.
fn overlap(path: &Path, other: &Path) -> Option<&'static str> {
    match () {
        () if path == other => Some("is the path of"),
        () if path.starts_with(other) => Some("is below"),
        () if other.starts_with(path) => Some("is above"),
        () => None,
    }
}

fn policy(text: &str) -> Result<Policy, String> {
    match text {
        "skip" => Ok(Policy::Skip),
        "keep-both" => Ok(Policy::KeepBoth),
        "newer" => Ok(Policy::Newer),
        _ => Err(format!("{text:?} is no policy: skip, keep-both and newer are")),
    }
}

/// As the archiving of days reads it.
fn layout(text: &str) -> Result<String, String> {
    Layout::parse(text).map(|layout| layout.text().to_owned())
}

/// The time zone in which days are counted: `local`, or a name of the tz database.
///
/// # Errors
/// Says what can be written.
pub fn zone(text: &str) -> Result<Timezone, String> {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b));
    match text {
        "local" => Ok(Timezone::Local),
        _ if text.len() <= 64 && text.split('/').all(plain) => Ok(Timezone::Named(text.to_owned())),
        _ => Err(format!("{text:?} is no time zone: give local, UTC, or a name such as Asia/Hong_Kong")),
    }
}

/// How the link in the place of a day is written.
///
/// # Errors
/// Says what can be written.
pub fn link_form(text: &str) -> Result<LinkForm, String> {
    match (text, text.strip_prefix("prefix=")) {
        ("absolute", _) => Ok(LinkForm::Absolute),
        ("relative", _) => Ok(LinkForm::Relative),
        (_, Some(path)) => absolute(path).map(LinkForm::Prefix),
        _ => Err(format!("{text:?} is no form of a link: absolute, relative and prefix=/PATH are")),
    }
}

/// What becomes of days with links that lead out of them.
///
/// # Errors
/// Says what can be written.
pub fn outside_links(text: &str) -> Result<OutsideLinks, String> {
    match text {
        "skip" => Ok(OutsideLinks::Skip),
        "rewrite" => Ok(OutsideLinks::Rewrite),
        _ => Err(format!("{text:?} is neither skip nor rewrite")),
    }
}

fn schedule(text: &str) -> Result<Schedule, String> {
    let wrong = || format!("{text:?} is no schedule: give daily HH:MM (daily 03:00), or a duration of ten seconds or more (12h)");
    let Some(time) = text.strip_prefix("daily ") else {
        let every = values::duration(text).ok().filter(|every| *every >= SHORTEST_SCHEDULE);
        return every.map(Schedule::Every).ok_or_else(wrong);
    };
    let two = |text: &str, below: u32| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|number| digits && *number < below)
    };
    let (hour, minute) = time.split_once(':').ok_or_else(wrong)?;
    Ok(Schedule::Daily { hour: two(hour, 24).ok_or_else(wrong)?, minute: two(minute, 60).ok_or_else(wrong)? })
}

#[cfg(test)]
#[path = "tests_read.rs"]
mod tests;
