//! What differs between two configurations, so that a reload touches nothing else. Pure.

use super::{Config, Folder};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use sync_core::peer::Name;

/// What was added, removed and changed, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Those that were not there.
    pub added: Vec<Name>,
    /// Those that are gone.
    pub removed: Vec<Name>,
    /// Those that are different.
    pub changed: Vec<Name>,
}

/// What a reload changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// What this machine is called.
    pub name: bool,
    /// Where it listens.
    pub listen: bool,
    /// Where the status page is.
    pub status: bool,
    /// What it may use.
    pub limits: bool,
    /// Peers.
    pub peers: Named,
    /// Folders.
    pub folders: Named,
    /// Those of the changed folders whose path or state lies elsewhere now: they have to be opened anew.
    pub reopened: Vec<Name>,
    /// Archiving of folders.
    pub archives: Named,
}

/// What is to be done to go from one configuration to the other.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Changes {
    let place = |folder: &Folder| (folder.path.clone(), folder.state_dir.clone());
    let folders = named(&old.folders, &new.folders);
    let moved = |name: &&Name| old.folders.get(*name).map(place) != new.folders.get(*name).map(place);
    Changes {
        name: old.name != new.name,
        listen: old.listen != new.listen,
        status: old.status != new.status,
        limits: old.limits != new.limits,
        peers: named(&old.peers, &new.peers),
        reopened: folders.changed.iter().filter(moved).cloned().collect(),
        folders,
        archives: named(&old.archives, &new.archives),
    }
}

fn named<T: PartialEq>(old: &BTreeMap<Name, T>, new: &BTreeMap<Name, T>) -> Named {
    let only = |these: &BTreeMap<Name, T>, those: &BTreeMap<Name, T>| {
        these.keys().filter(|name| !those.contains_key(name)).cloned().collect()
    };
    let differs = |(name, value): (&Name, &T)| old.get(name).is_some_and(|known| known != value).then(|| name.clone());
    Named { added: only(new, old), removed: only(old, new), changed: new.iter().filter_map(differs).collect() }
}

impl Named {
    /// One line each, such as "folder hot added".
    fn lines(&self, what: &str) -> Vec<String> {
        let told = |names: &[Name], done: &str| names.iter().map(|name| format!("{what} {name} {done}")).collect::<Vec<_>>();
        [told(&self.added, "added"), told(&self.removed, "removed"), told(&self.changed, "changed")].concat()
    }
}

impl Changes {
    /// Is nothing different?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// For people, one line for each change.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let single = [
            (self.name, "name changed"),
            (self.listen, "listen changed"),
            (self.status, "status changed"),
            (self.limits, "limits changed"),
        ];
        let single = single.iter().filter(|(changed, _)| *changed).map(|(_, line)| (*line).to_owned());
        let named = [self.peers.lines("peer"), self.folders.lines("folder"), self.archives.lines("archive")].concat();
        single.chain(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use sync_core::peer::{Book, PublicKey};

    fn config(text: &str) -> Config {
        let id = |key: u8| PublicKey::from_bytes([key; 32]).id().to_string();
        parse(&text.replace("ID1", &id(1)).replace("ID2", &id(2)), &Book::default()).unwrap()
    }

    const OLD: &str = "name = \"a\"\nlisten = [\"0.0.0.0:1\"]\n[peers.p]\nid = \"ID1\"\n\
                       [folders.hot]\npath = \"/hot\"\npeers = { p = \"two-way\" }\n[archive.hot]\ncold = \"/cold\"\n";

    #[test]
    fn each_change_is_told_and_nothing_else() {
        for (from, to, lines) in [
            ("x", "x", &[][..]),
            ("name = \"a\"", "name = \"b\"", &["name changed"]),
            ("[peers.p]", "[limits]\nexchanges = 2\n[peers.p]", &["limits changed"]),
            ("listen = [\"0.0.0.0:1\"]", "status = \"off\"", &["listen changed", "status changed"]),
            ("id = \"ID1\"", "id = \"ID2\"", &["peer p changed"]),
            ("id = \"ID1\"", "id = \"ID1\"\naddresses = [\"h:1\"]", &["peer p changed"]),
            ("[archive.hot]\ncold = \"/cold\"", "", &["archive hot removed"]),
            ("cold = \"/cold\"", "cold = \"/colder\"", &["archive hot changed"]),
            ("two-way", "no-delete", &["folder hot changed"]),
            ("[peers.p]", "[folders.b]\npath = \"/b\"\n[peers.p]", &["folder b added"]),
            (
                "[archive.hot]\ncold = \"/cold\"\n",
                "[peers.q]\nid = \"ID2\"\n[folders.b]\npath = \"/b\"\n",
                &["peer q added", "folder b added", "archive hot removed"],
            ),
        ] {
            let changes = diff(&config(OLD), &config(&OLD.replace(from, to)));
            assert_eq!(changes.lines(), lines, "{from} -> {to}");
            assert_eq!(changes.is_empty(), lines.is_empty());
            assert!(changes.reopened.is_empty());
        }
    }

    #[test]
    fn a_folder_whose_place_changed_is_opened_anew() {
        for (from, to) in
            [("path = \"/hot\"", "path = \"/hotter\""), ("path = \"/hot\"", "path = \"/hot\"\nstate_dir = \"/var/s\"")]
        {
            let changes = diff(&config(OLD), &config(&OLD.replace(from, to)));
            assert_eq!((changes.reopened.len(), changes.lines()), (1, vec!["folder hot changed".to_owned()]));
        }
    }

    #[test]
    fn back_and_forth_is_the_opposite() {
        let (old, new) = (config(OLD), config("name = \"a\"\n[folders.b]\npath = \"/b\"\n"));
        let (there, back) = (diff(&old, &new), diff(&new, &old));
        assert_eq!((there.folders.added, there.folders.removed), (back.folders.removed, back.folders.added));
    }
}
