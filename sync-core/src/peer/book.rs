//! The known peers as text: TOML, in which unknown keys are refused with their line, and comments survive a change.

use super::{ADDRESSES, Address, GRANTS, Id, Mode, Name};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, value};

/// Peers in one book.
pub const PEERS: usize = 1_024;

/// What is known of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Who it is.
    pub id: Id,
    /// Where it may be found; none for one that only ever calls.
    #[serde(default)]
    pub addresses: Vec<Address>,
    /// What it may do here, by folder; nothing where there is no grant.
    #[serde(default)]
    pub grants: BTreeMap<Name, Mode>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    peers: BTreeMap<Name, Peer>,
}

/// Why a book cannot be read, or not be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// Not TOML, or not of the known keys; the text has the line.
    #[error("{0}")]
    Text(String),
    /// More than one peer can be.
    #[error("{0} and {1} have the same id")]
    SameId(Name, Name),
    /// A limit.
    #[error("{0}")]
    Limit(String),
    /// There is a peer of that name.
    #[error("a peer named {0} is known already, with the id {1}")]
    NameTaken(Name, Id),
    /// The machine is known under another name.
    #[error("that id is known already, as {0}")]
    IdTaken(Name),
    /// There is none.
    #[error("no peer is named {0}")]
    Unknown(Name),
}

/// The known peers by name.
#[derive(Debug, Clone, Default)]
pub struct Book {
    text: DocumentMut,
    peers: BTreeMap<Name, Peer>,
}

impl Book {
    /// Reads the text of a book.
    pub fn parse(text: &str) -> Result<Book, BookError> {
        let wrong = |error: &dyn std::fmt::Display| BookError::Text(error.to_string().trim_end().to_owned());
        let content: Content = toml_edit::de::from_str(text).map_err(|error| wrong(&error))?;
        let text: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| wrong(&error))?;
        check(&content.peers)?;
        Ok(Book { text, peers: content.peers })
    }

    /// The book as text, with the comments it was read with.
    pub fn render(&self) -> String {
        self.text.to_string()
    }

    /// All peers.
    pub fn peers(&self) -> &BTreeMap<Name, Peer> {
        &self.peers
    }

    /// All ids: who may connect.
    pub fn ids(&self) -> BTreeSet<Id> {
        self.peers.values().map(|peer| peer.id).collect()
    }

    /// Under which name a machine is known.
    pub fn named(&self, id: &Id) -> Option<&Name> {
        self.peers.iter().find(|(_, peer)| peer.id == *id).map(|(name, _)| name)
    }

    /// Adds a peer that was not known.
    pub fn add(&mut self, name: Name, peer: Peer) -> Result<(), BookError> {
        if let Some(known) = self.peers.get(&name) {
            return Err(BookError::NameTaken(name, known.id));
        }
        if let Some(known) = self.named(&peer.id) {
            return Err(BookError::IdTaken(known.clone()));
        }
        self.put(name, peer)
    }

    /// Adds what pairing found out. A machine that was known keeps its name; its addresses and grants grow. One that was not
    /// gets `wanted`, or that name with a number if another machine has it. Returns the name.
    pub fn merge(&mut self, wanted: &Name, peer: Peer) -> Result<Name, BookError> {
        if let Some(name) = self.named(&peer.id).cloned() {
            let mut known = self.peers.get(&name).cloned().unwrap_or_else(|| peer.clone());
            let new = peer.addresses.into_iter().filter(|address| !known.addresses.contains(address)).collect::<Vec<_>>();
            known.addresses.extend(new);
            known.grants.extend(peer.grants);
            self.put(name.clone(), known)?;
            return Ok(name);
        }
        let numbered = (2..PEERS + 2).map(|number| wanted.numbered(number));
        let mut names = std::iter::once(wanted.clone()).chain(numbered);
        let free = names.find(|name| !self.peers.contains_key(name));
        let name = free.ok_or_else(|| BookError::Limit(too_many()))?;
        self.put(name.clone(), peer)?;
        Ok(name)
    }

    /// Forgets a peer.
    pub fn remove(&mut self, name: &Name) -> Result<Peer, BookError> {
        let peer = self.peers.remove(name).ok_or_else(|| BookError::Unknown(name.clone()))?;
        if let Some(table) = self.text.get_mut("peers").and_then(Item::as_table_like_mut) {
            table.remove(name.as_str());
        }
        Ok(peer)
    }

    fn put(&mut self, name: Name, peer: Peer) -> Result<(), BookError> {
        let mut peers = self.peers.clone();
        peers.insert(name.clone(), peer.clone());
        check(&peers)?;
        let mut tables = Table::new();
        tables.set_implicit(true);
        let all = self.text.entry("peers").or_insert(Item::Table(tables));
        let all = all.as_table_like_mut().ok_or_else(|| BookError::Text("`peers` is no table".into()))?;
        let entry = all.entry(name.as_str()).or_insert(Item::Table(Table::new()));
        let entry = entry.as_table_like_mut().ok_or_else(|| BookError::Text(format!("`peers.{name}` is no table")))?;
        entry.insert("id", value(peer.id.to_string()));
        entry.insert("addresses", value(peer.addresses.iter().map(Address::as_str).collect::<Array>()));
        let grants = peer.grants.iter().map(|(folder, mode)| (folder.as_str(), mode.as_str()));
        entry.insert("grants", value(grants.collect::<InlineTable>()));
        self.peers = peers;
        Ok(())
    }
}

fn too_many() -> String {
    format!("more than {PEERS} peers")
}

fn check(peers: &BTreeMap<Name, Peer>) -> Result<(), BookError> {
    if peers.len() > PEERS {
        return Err(BookError::Limit(too_many()));
    }
    let mut known: BTreeMap<Id, &Name> = BTreeMap::new();
    for (name, peer) in peers {
        if peer.addresses.len() > ADDRESSES {
            return Err(BookError::Limit(format!("{name} has more than {ADDRESSES} addresses")));
        }
        if peer.grants.len() > GRANTS {
            return Err(BookError::Limit(format!("{name} has more than {GRANTS} grants")));
        }
        if let Some(other) = known.insert(peer.id, name) {
            return Err(BookError::SameId(other.clone(), name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::PublicKey;
    use proptest::prelude::*;

    fn id(key: u8) -> Id {
        PublicKey::from_bytes([key; 32]).id()
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn peer(key: u8, addresses: &[&str], grants: &[(&str, Mode)]) -> Peer {
        Peer {
            id: id(key),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            grants: grants.iter().map(|(folder, mode)| (name(folder), *mode)).collect(),
        }
    }

    #[test]
    fn a_book_comes_back_from_its_text() {
        let mut book = Book::default();
        book.add(name("web.1"), peer(1, &["web:4477", "[::1]:1"], &[("hot", Mode::TwoWay), ("a.b", Mode::NoDelete)])).unwrap();
        book.add(name("b"), peer(2, &[], &[])).unwrap();
        let text = book.render();
        let expected = format!(
            "[peers.\"web.1\"]\nid = \"{}\"\naddresses = [\"web:4477\", \"[::1]:1\"]\n\
             grants = {{ \"a.b\" = \"no-delete\", hot = \"two-way\" }}\n\n[peers.b]\nid = \"{}\"\naddresses = []\ngrants = {{}}\n",
            id(1),
            id(2)
        );
        assert_eq!(text, expected);
        assert_eq!(Book::parse(&text).unwrap().peers(), book.peers());
        assert_eq!(book.ids(), [id(1), id(2)].into());
    }

    #[test]
    fn comments_survive_a_change() {
        let text = format!("# ours\n[peers.a] # the first\nid = \"{}\" # by phone\n", id(1));
        let mut book = Book::parse(&text).unwrap();
        book.add(name("b"), peer(2, &[], &[])).unwrap();
        assert!(book.render().starts_with(&text), "{}", book.render());
        book.remove(&name("b")).unwrap();
        assert_eq!(book.render(), text);
        assert_eq!(book.remove(&name("b")), Err(BookError::Unknown(name("b"))));
    }

    #[test]
    fn what_is_unknown_or_wrong_is_refused_with_its_line() {
        let good = format!("[peers.a]\nid = \"{}\"\n", id(1));
        for (text, line, word) in [
            (format!("{good}adresses = []\n"), "line 3", "adresses"),
            (format!("x = 1\n{good}"), "line 1", "`x`"),
            (format!("{good}grants = {{ hot = \"both\" }}\n"), "line 3", "no mode"),
            (format!("{good}addresses = [\"nowhere\"]\n"), "line 3", "no address"),
            (good.replace("id = \"", "id = \"AAAAAA"), "line 2", "an id has"),
            ("[peers.\"a b\"]\n".to_owned(), "line 1", "no name"),
            ("[peers.a]\n".to_owned(), "line 1", "missing field `id`"),
            (good.replace(']', ""), "line 1", "unclosed"),
        ] {
            let error = Book::parse(&text).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_name_and_an_id_stand_for_one_peer() {
        let mut book = Book::default();
        book.add(name("a"), peer(1, &[], &[])).unwrap();
        assert_eq!(book.add(name("a"), peer(2, &[], &[])), Err(BookError::NameTaken(name("a"), id(1))));
        assert_eq!(book.add(name("b"), peer(1, &[], &[])), Err(BookError::IdTaken(name("a"))));
        let twice = format!("[peers.a]\nid = \"{0}\"\n[peers.b]\nid = \"{0}\"\n", id(1));
        assert_eq!(Book::parse(&twice).unwrap_err(), BookError::SameId(name("a"), name("b")));
        let many = vec!["a:1"; ADDRESSES + 1];
        assert!(matches!(book.add(name("c"), peer(3, &many, &[])), Err(BookError::Limit(_))));
        assert_eq!(Book::parse(&book.render()).unwrap().peers(), book.peers());
    }

    #[test]
    fn pairing_adds_to_what_is_known() {
        let mut book = Book::default();
        book.add(name("a"), peer(1, &["x:1"], &[("hot", Mode::TwoWay)])).unwrap();
        let again = peer(1, &["x:1", "y:1"], &[("hot", Mode::SendOnly), ("cold", Mode::NoDelete)]);
        assert_eq!(book.merge(&name("other"), again), Ok(name("a")));
        let grown = peer(1, &["x:1", "y:1"], &[("hot", Mode::SendOnly), ("cold", Mode::NoDelete)]);
        assert_eq!(book.peers()[&name("a")], grown);
        assert_eq!(book.merge(&name("a"), peer(2, &[], &[])), Ok(name("a-2")));
        assert_eq!(book.merge(&name("a"), peer(3, &[], &[])), Ok(name("a-3")));
        assert_eq!(Book::parse(&book.render()).unwrap().peers(), book.peers());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}a-z.\"=#\n ,-]{0,80}") {
            let _ = Book::parse(&text);
        }
    }
}
