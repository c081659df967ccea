//! Machines that a configured peer introduced: for which folder, as what, and by whom. They are kept, so that a restart knows them.
//!
//! A peer introduces those whom it knows itself by its configuration, and nobody who was introduced to it: so nobody stays known
//! because others go on telling each other of it. What is believed of a peer is what it says over its own connection.
#![allow(clippy::disallowed_methods, reason = "the agent's own folder, and not below a root")]

use crate::atlas::is_anywhere;
use crate::config::{Config, Peer};
use crate::gossip::Table;
use crate::scheduler::Moment;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use sync_core::io::sync::Reaches;
use sync_core::peer::{ADDRESSES, Address, Id, Mode, Name};

/// The file in the agent's folder.
const FILE: &str = "learnt.json";
/// Introductions that are kept, over all folders.
const LEARNT: usize = 1024;
/// Longest file that is read.
const FILE_BYTES: u64 = 8 << 20;

/// One machine that was introduced for a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Introduced {
    folder: Name,
    id: Id,
    /// Who introduced it.
    by: Id,
    /// What it calls itself.
    name: Name,
    /// Where it may be called.
    addresses: Vec<Address>,
    /// What it may do at the one that introduced it.
    mode: Mode,
}

/// All of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Learnt(BTreeMap<(Name, Id, Id), Introduced>);

/// Who introduced a machine, by folder and machine.
pub(crate) type Introducers = BTreeMap<(Name, Id), BTreeSet<Name>>;

impl Learnt {
    /// Reads what was kept.
    pub(crate) fn read(folder: &Path) -> io::Result<Learnt> {
        let mut text = Vec::new();
        match fs::File::open(folder.join(FILE)) {
            Ok(file) => file.take(FILE_BYTES).read_to_end(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Learnt::default()),
            Err(error) => return Err(error),
        };
        let all: Vec<Introduced> = serde_json::from_slice(&text).map_err(io::Error::other)?;
        let all = all.into_iter().take(LEARNT).map(|one| ((one.folder.clone(), one.id, one.by), one));
        Ok(Learnt(all.collect()))
    }

    /// Keeps it: after a crash it is the old file or the new one.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(&self.0.values().collect::<Vec<_>>()).map_err(io::Error::other)?;
        let (path, new): (PathBuf, PathBuf) = (folder.join(FILE), folder.join(format!("{FILE}.new")));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&text).and_then(|()| file.sync_all())?;
        fs::rename(&new, &path)?;
        fs::File::open(folder)?.sync_all()
    }

    /// What the configuration admits no more is forgotten.
    pub(crate) fn prune(&mut self, config: &Config) -> bool {
        let before = self.0.len();
        self.0.retain(|(folder, id, by), _| {
            let known = |id: &Id| config.peers.values().any(|peer| peer.id == *id);
            introducer(config, folder, *by).is_some() && !known(id)
        });
        self.0.len() != before
    }

    /// Takes over what the configured peers of a folder say of themselves. True if something is different now.
    pub(crate) fn learn(&mut self, own: Id, config: &Config, folder: &Name, table: &Table, now: Moment) -> bool {
        let Some(terms) = config.folders.get(folder).filter(|terms| terms.introduce) else { return false };
        let mut changed = false;
        for by in terms.peers.keys().filter_map(|name| config.peers.get(name)).map(|peer| peer.id) {
            // Whoever is not connected takes nothing back.
            let Some(account) = table.direct(by) else { continue };
            let ties = account.links.iter().filter(|tie| account.introduces && !tie.learnt && tie.to != own);
            let ties: BTreeMap<Id, _> = ties.map(|tie| (tie.to, tie)).collect();
            let before = self.0.len();
            self.0.retain(|(of, id, from), _| {
                let willing = table.account(*id, now).is_none_or(|account| account.introduces);
                of != folder || *from != by || (ties.contains_key(id) && willing)
            });
            changed |= self.0.len() != before;
            for (id, tie) in ties {
                if config.peers.values().any(|peer| peer.id == id) {
                    continue;
                }
                // It has to be willing itself: it would let nobody in.
                let Some(itself) = table.account(id, now).filter(|itself| itself.introduces) else { continue };
                let mut addresses: Vec<Address> = itself.addresses.clone();
                if let Some(Reaches::Answers(address)) = &tie.reaches {
                    addresses.push(address.clone());
                }
                let mut seen = BTreeSet::new();
                addresses.retain(|address| !is_anywhere(address) && seen.insert(address.clone()));
                addresses.truncate(ADDRESSES);
                let (folder, name) = (folder.clone(), itself.name.clone());
                let one = Introduced { folder: folder.clone(), id, by, name, addresses, mode: tie.mode };
                let key = (folder, id, by);
                if self.0.get(&key) != Some(&one) && (self.0.len() < LEARNT || self.0.contains_key(&key)) {
                    self.0.insert(key, one);
                    changed = true;
                }
            }
        }
        changed
    }

    /// The configuration with those who were introduced: each with the least of what those admit who introduced it, and with no
    /// more than these may do here themselves.
    pub(crate) fn added_to(&self, config: &Config) -> (Config, Introducers) {
        let (mut all, mut introducers) = (config.clone(), Introducers::new());
        let mut modes: BTreeMap<(Name, Id), Option<Mode>> = BTreeMap::new();
        for one in self.0.values() {
            let Some((by, theirs)) = introducer(config, &one.folder, one.by) else { continue };
            let mode = one.mode.both(theirs);
            let key = (one.folder.clone(), one.id);
            modes.entry(key.clone()).and_modify(|known| *known = known.zip(mode).and_then(|(a, b)| a.both(b))).or_insert(mode);
            introducers.entry(key).or_default().insert(by.clone());
        }
        for ((folder, id), mode) in modes {
            let Some(mode) = mode else { continue };
            let of_it: Vec<&Introduced> = self.0.values().filter(|one| one.folder == folder && one.id == id).collect();
            let Some(first) = of_it.first() else { continue };
            let name = free_name(&all, &first.name, id);
            let peer = all.peers.entry(name.clone()).or_insert_with(|| Peer { id, addresses: Vec::new() });
            let more = of_it.iter().flat_map(|one| &one.addresses);
            for address in more {
                if peer.addresses.len() < ADDRESSES && !peer.addresses.contains(address) {
                    peer.addresses.push(address.clone());
                }
            }
            if let Some(terms) = all.folders.get_mut(&folder) {
                terms.peers.insert(name, mode);
            }
        }
        (all, introducers)
    }
}

/// The configured peer of a folder that may introduce others to it, and what it may do here.
fn introducer<'a>(config: &'a Config, folder: &Name, by: Id) -> Option<(&'a Name, Mode)> {
    let terms = config.folders.get(folder).filter(|terms| terms.introduce)?;
    let mut found = terms.peers.iter().filter(|(name, _)| config.peers.get(*name).is_some_and(|peer| peer.id == by));
    found.next().map(|(name, mode)| (name, *mode))
}

/// What it calls itself, with a number behind it if another machine is called so here.
fn free_name(config: &Config, name: &Name, id: Id) -> Name {
    let free = |name: &Name| config.peers.get(name).is_none_or(|peer| peer.id == id);
    let numbered = (2..).map(|number| name.numbered(number));
    std::iter::once(name.clone()).chain(numbered).find(free).expect("of endless names some is free")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;
    use sync_core::io::sync::{Account, Tie};
    use sync_core::peer::Book;

    fn id(byte: u8) -> Id {
        Id::from_bytes([byte; 20])
    }

    /// This machine is 9; it is configured with these peers of the folder.
    fn config(introduce: bool, peers: &[(&str, u8, &str)]) -> Config {
        let tables: String = peers.iter().map(|(name, byte, _)| format!("[peers.{name}]\nid = \"{}\"\n", id(*byte))).collect();
        let modes: Vec<String> = peers.iter().map(|(name, _, mode)| format!("{name} = \"{mode}\"")).collect();
        let text = format!(
            "name = \"own\"\n{tables}[folders.f]\npath = \"/f\"\nintroduce = {introduce}\npeers = {{ {} }}\n",
            modes.join(", ")
        );
        parse(&text, &Book::default()).unwrap()
    }

    fn account(origin: u8, number: u64, introduces: bool, links: &[(u8, Mode)]) -> Account {
        let tie =
            |(to, mode): &(u8, Mode)| Tie { to: id(*to), mode: *mode, learnt: false, called: None, reaches: None, way: None };
        Account {
            origin: id(origin),
            number,
            age_s: 0,
            name: "b".parse().unwrap(),
            addresses: ["h:1", "0.0.0.0:2"].map(|text| text.parse().unwrap()).to_vec(),
            introduces,
            links: links.iter().map(tie).collect(),
        }
    }

    const NOW: Moment = Duration::ZERO;

    /// A (1) tells of B (2), and hands on what that one says.
    fn table(mode: Mode, [a, b]: [bool; 2]) -> Table {
        let mut table = Table::new(id(9));
        table.hear(id(1), account(1, 1, a, &[(2, mode), (9, Mode::TwoWay)]), NOW);
        table.hear(id(1), account(2, 1, b, &[(1, Mode::TwoWay)]), NOW);
        table
    }

    fn modes(learnt: &Learnt, config: &Config) -> Vec<(String, Mode)> {
        let (all, _) = learnt.added_to(config);
        all.folders["f".parse::<Name>().as_ref().unwrap()].peers.iter().map(|(name, mode)| (name.to_string(), *mode)).collect()
    }

    #[test]
    fn only_where_all_three_are_willing_and_never_as_more_than_the_one_between_may() {
        let folder: Name = "f".parse().unwrap();
        for (own, others, theirs, given, expected) in [
            (true, [true, true], "two-way", Mode::TwoWay, Some(Mode::TwoWay)),
            (true, [true, true], "two-way", Mode::NoDelete, Some(Mode::NoDelete)),
            (true, [true, true], "no-delete", Mode::TwoWay, Some(Mode::NoDelete)),
            (true, [true, true], "send-only", Mode::TwoWay, Some(Mode::SendOnly)),
            (true, [true, true], "send-only", Mode::ReceiveOnly, None),
            (false, [true, true], "two-way", Mode::TwoWay, None),
            (true, [false, true], "two-way", Mode::TwoWay, None),
            (true, [true, false], "two-way", Mode::TwoWay, None),
        ] {
            let (config, mut learnt) = (config(own, &[("a", 1, theirs)]), Learnt::default());
            learnt.learn(id(9), &config, &folder, &table(given, others), NOW);
            let found = modes(&learnt, &config).into_iter().find(|(name, _)| name == "b").map(|(_, mode)| mode);
            assert_eq!(found, expected, "{own} {others:?} {theirs} {given}");
        }
    }

    #[test]
    fn who_is_configured_stays_as_configured_and_names_do_not_collide() {
        let folder: Name = "f".parse().unwrap();
        let known = config(true, &[("a", 1, "two-way"), ("x", 2, "send-only")]);
        let mut learnt = Learnt::default();
        assert!(!learnt.learn(id(9), &known, &folder, &table(Mode::TwoWay, [true, true]), NOW));
        let taken = config(true, &[("a", 1, "two-way"), ("b", 3, "send-only")]);
        assert!(learnt.learn(id(9), &taken, &folder, &table(Mode::TwoWay, [true, true]), NOW));
        assert!(modes(&learnt, &taken).contains(&("b-2".into(), Mode::TwoWay)));
        let (all, introducers) = learnt.added_to(&taken);
        assert_eq!(all.peers[&"b-2".parse::<Name>().unwrap()].addresses, ["h:1".parse::<Address>().unwrap()]);
        assert_eq!(introducers[&(folder, id(2))].iter().map(Name::as_str).collect::<Vec<_>>(), ["a"]);
        // Once it is configured, that counts.
        assert!(learnt.prune(&known) && learnt == Learnt::default());
    }

    #[test]
    fn what_is_taken_back_is_forgotten_and_who_is_away_takes_nothing_back() {
        let folder: Name = "f".parse().unwrap();
        let config_on = config(true, &[("a", 1, "two-way")]);
        let learnt = || {
            let mut learnt = Learnt::default();
            assert!(learnt.learn(id(9), &config_on, &folder, &table(Mode::TwoWay, [true, true]), NOW));
            assert!(!learnt.learn(id(9), &config_on, &folder, &table(Mode::TwoWay, [true, true]), NOW));
            learnt
        };
        for gone in [table(Mode::TwoWay, [false, true]), table(Mode::TwoWay, [true, false])] {
            let mut learnt = learnt();
            assert!(learnt.learn(id(9), &config_on, &folder, &gone, NOW) && learnt == Learnt::default());
        }
        let mut without = Table::new(id(9));
        without.hear(id(1), account(1, 2, true, &[]), NOW);
        let mut one = learnt();
        assert!(one.learn(id(9), &config_on, &folder, &without, NOW) && one == Learnt::default());
        let mut one = learnt();
        assert!(!one.learn(id(9), &config_on, &folder, &Table::new(id(9)), NOW) && one != Learnt::default());
        for other in [config(false, &[("a", 1, "two-way")]), config(true, &[])] {
            let mut one = learnt();
            assert!(one.prune(&other) && one == Learnt::default());
        }
        // One that was introduced to the peer itself is not handed on.
        let mut relayed = Table::new(id(9));
        let mut said = account(1, 1, true, &[(2, Mode::TwoWay)]);
        said.links[0].learnt = true;
        relayed.hear(id(1), said, NOW);
        relayed.hear(id(1), account(2, 1, true, &[]), NOW);
        assert!(!Learnt::default().learn(id(9), &config_on, &folder, &relayed, NOW));
    }

    #[test]
    fn what_was_learnt_is_read_again_and_is_for_the_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Learnt::read(dir.path()).unwrap(), Learnt::default());
        let mut learnt = Learnt::default();
        let config = config(true, &[("a", 1, "two-way")]);
        learnt.learn(id(9), &config, &"f".parse().unwrap(), &table(Mode::NoDelete, [true, true]), NOW);
        fs::write(dir.path().join("learnt.json.new"), "left by a crash").unwrap();
        learnt.write(dir.path()).unwrap();
        assert_eq!(Learnt::read(dir.path()).unwrap(), learnt);
        assert_eq!(dir.path().join(FILE).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Learnt::read(dir.path()).is_err());
    }
}
