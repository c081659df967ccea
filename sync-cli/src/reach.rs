//! Reaches the roots of a run: what the user wrote becomes what the engine opens.

use crate::bridge::{self, Bridge, Route, Tell};
use crate::cli::{ReachArgs, RunArgs};
use crate::exit::Usage;
use crate::home;
use crate::location::{Exported, Location};
use crate::signals::Interrupt;
use anyhow::{Context, Result, bail};
use std::sync::Arc;
use std::time::Duration;
use sync_core::io::link::{Connection, Identity, Network};
use sync_core::io::sync::{Place, Remote};
use sync_core::path::RelPath;
use sync_core::peer::{Address, Book, Name, Peer};

/// How long a peer may take to answer.
const CALL: Duration = Duration::from_secs(10);

/// Both roots, and what has to stay as long as they are used.
pub(crate) struct Reached {
    pub(crate) places: [Place; 2],
    pub(crate) bridges: Vec<Bridge>,
}

/// Reaches both roots, the first one first. A signal meanwhile ends the process: nothing was begun.
pub(crate) fn reach(args: &RunArgs, interrupt: &Interrupt, tell: &Tell<'_>) -> Result<Reached> {
    interrupt.end_at_once_during(|| reach_again(args, tell))
}

/// The same for a process that has to be ended as one that has done something.
pub(crate) fn reach_again(args: &RunArgs, tell: &Tell<'_>) -> Result<Reached> {
    let (roots, route) = ([&args.a, &args.b], Route { reach: &args.reach, keep_versions: args.keep_versions });
    let mut names = names(&roots, &args.reach)?;
    let mut bridges = Vec::new();
    let mut next = |root| {
        let (place, bridge) = place(root, names.next(), route, tell)?;
        bridges.extend(bridge);
        Ok::<_, anyhow::Error>(place)
    };
    let places = [next(roots[0])?, next(roots[1])?];
    Ok(Reached { places, bridges })
}

/// Reaches one root, and what has to stay as long as it is used. A signal meanwhile ends the process.
pub(crate) fn reach_one(
    root: &Location,
    route: Route<'_>,
    interrupt: &Interrupt,
    tell: &Tell<'_>,
) -> Result<(Place, Option<Bridge>)> {
    let mut names = names(&[root], route.reach)?;
    interrupt.end_at_once_during(|| place(root, names.next(), route, tell))
}

/// Who answers at each root, as far as that was said.
fn names<'a>(roots: &[&Location], reach: &'a ReachArgs) -> Result<impl Iterator<Item = Option<&'a Name>> + use<'a>> {
    let exported: Vec<bool> = roots.iter().map(|root| matches!(root, Location::Quic(_))).collect();
    let (count, named) = (exported.iter().filter(|exported| **exported).count(), reach.peers.len());
    if named != 0 && named != count {
        let text =
            format!("--peer was given {named} times for {count} quic:// roots: give it once for each of them, or not at all");
        return Err(Usage(text).into());
    }
    let mut names = reach.peers.iter();
    Ok(exported.into_iter().map(move |exported| if exported { names.next() } else { None }))
}

fn place(root: &Location, name: Option<Option<&Name>>, route: Route<'_>, tell: &Tell<'_>) -> Result<(Place, Option<Bridge>)> {
    let shown = root.to_string();
    match root {
        Location::Local(path) => Ok((Place::Local(path.clone()), None)),
        Location::Quic(exported) => {
            let connection = call(exported, name.flatten())?;
            let (folder, sub) = (exported.folder.clone(), exported.sub.clone());
            Ok((Place::Remote(Remote { connection, folder, sub, shown, vouched: None }), None))
        }
        Location::Ssh(behind) => {
            let opened = Bridge::open(behind, route, tell);
            let (bridge, connection) = opened.with_context(|| format!("cannot reach {root}"))?;
            // The other side's key is made for this run: who it is, ssh knows.
            let (folder, vouched) = (bridge::FOLDER.parse()?, Some(behind.destination.clone()));
            Ok((Place::Remote(Remote { connection, folder, sub: RelPath::root(), shown, vouched }), Some(bridge)))
        }
    }
}

fn call(exported: &Exported, name: Option<&Name>) -> Result<Arc<Connection>> {
    let home = home::open()?;
    let book = home.book()?;
    let (name, peer) = find(&book, &exported.address, name)?;
    let network = Network::new(Identity::open(&home)?)?;
    let connection = network.dial(peer.id, &addresses(&exported.address, peer), CALL);
    Ok(Arc::new(connection.with_context(|| format!("cannot reach the peer {name}"))?))
}

/// Who is to answer there.
fn find<'a>(book: &'a Book, address: &Address, name: Option<&'a Name>) -> Result<(&'a Name, &'a Peer)> {
    if let Some(name) = name {
        let peer = book.peers().get(name);
        return Ok((name, peer.with_context(|| format!("no peer is named {name}; driftless peer list tells who is known"))?));
    }
    let is_there = |peer: &Peer| peer.addresses.iter().any(|known| known.as_str().eq_ignore_ascii_case(address.as_str()));
    let mut found = book.peers().iter().filter(|(_, peer)| is_there(peer));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some((one, _)), Some((other, _))) => {
            bail!("both {one} and {other} are known at {address}: say with --peer which is meant")
        }
        (None, _) => bail!(
            "no known peer has the address {address}: say with --peer who answers there, or make the machines known to each other \
             with driftless pair; driftless peer list tells who is known"
        ),
    }
}

/// The address that was written, and all others at which the peer may be: its key decides, and the first that answers is taken.
fn addresses(written: &Address, peer: &Peer) -> Vec<Address> {
    let others = peer.addresses.iter().filter(|address| *address != written);
    std::iter::once(written).chain(others).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_core::peer::PublicKey;

    fn peer(key: u8, addresses: &[&str]) -> Peer {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Peer { id: PublicKey::from_bytes([key; 32]).id(), addresses, grants: Default::default() }
    }

    #[test]
    fn a_peer_is_found_by_its_address_or_named() {
        let mut book = Book::default();
        for (name, key, addresses) in [
            ("web2", 1, &["web2:4477", "203.0.113.9:4477"][..]),
            ("web3", 2, &["web3:4477", "old:4477"]),
            ("lap", 3, &["OLD:4477"]),
        ] {
            book.add(name.parse().unwrap(), peer(key, addresses)).unwrap();
        }
        let find = |address: &str, name: Option<&str>| {
            let name: Option<Name> = name.map(|name| name.parse().unwrap());
            let found = find(&book, &address.parse().unwrap(), name.as_ref());
            found.map(|(name, _)| name.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(find("WEB2:4477", None), Ok("web2".into()));
        assert_eq!(find("203.0.113.9:4477", None), Ok("web2".into()));
        assert_eq!(find("elsewhere:1", Some("lap")), Ok("lap".into()));
        for (address, name, word) in [
            ("old:4477", None, "both lap and web3"),
            ("web2:4478", None, "no known peer has the address web2:4478"),
            ("web2:4477", Some("x"), "no peer is named x"),
        ] {
            let error = find(address, name).unwrap_err();
            assert!(error.contains(word), "{address}: {error}");
        }
    }

    #[test]
    fn the_address_that_was_written_comes_first_and_once() {
        let peer = peer(1, &["web2:4477", "203.0.113.9:4477"]);
        let all = addresses(&"203.0.113.9:4477".parse().unwrap(), &peer);
        assert_eq!(all.iter().map(Address::as_str).collect::<Vec<_>>(), ["203.0.113.9:4477", "web2:4477"]);
    }
}
