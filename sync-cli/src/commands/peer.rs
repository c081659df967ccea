//! `driftless peer`: the machines that this one knows.

use crate::cli::{PeerAction, PeerAddArgs, PeerArgs, PeerRemoveArgs};
use crate::commands::Summary;
use crate::exit::Exit;
use crate::home;
use crate::output::Output;
use crate::values::Grant;
use anyhow::{Result, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use sync_core::io::home::HomeError;
use sync_core::io::link::Identity;
use sync_core::peer::{Address, Book, BookError, Id, Mode, Name, Peer};

/// One peer, as it is added, listed or removed.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "peer")]
struct Line<'a> {
    name: &'a str,
    id: Id,
    addresses: Vec<&'a str>,
    grants: BTreeMap<&'a str, &'a str>,
}

/// Adds, lists or removes.
pub(super) fn run(args: &PeerArgs, output: &Output) -> Result<Exit> {
    let count = match &args.action {
        PeerAction::Add(args) => add(args, output)?,
        PeerAction::List(_) => list(output)?,
        PeerAction::Remove(args) => remove(args, output)?,
    };
    output.event(&Summary { count, ..Summary::default() });
    Ok(Exit::InSync)
}

/// Grants by folder; of two for the same folder the last one counts.
pub(super) fn grants(grants: &[Grant]) -> BTreeMap<Name, Mode> {
    grants.iter().map(|grant| (grant.folder.clone(), grant.mode)).collect()
}

fn add(args: &PeerAddArgs, output: &Output) -> Result<u64> {
    let home = home::open()?;
    if Identity::open(&home)?.id() == args.id {
        bail!("{} is the id of this machine", args.id);
    }
    let peer = Peer { id: args.id, addresses: args.addresses.clone(), grants: grants(&args.grants) };
    let known = match home.change_book(|book| add_or_merge(book, &args.name, peer.clone())) {
        Err(HomeError::Book(error @ (BookError::NameTaken(..) | BookError::IdTaken(_)))) => {
            let known = if let BookError::IdTaken(name) = &error { name } else { &args.name };
            bail!("{error}; to replace it: driftless peer remove {known}");
        }
        done => done?,
    };
    match &known {
        Some(known) => tell(&args.name, known, output, "known already, now: "),
        None => tell(&args.name, &peer, output, "added "),
    }
    Ok(1)
}

/// The same machine under the same name gets what was given besides what it has, and is returned as it is now: one more grant must not
/// cost the others.
fn add_or_merge(book: &mut Book, name: &Name, peer: Peer) -> Result<Option<Peer>, BookError> {
    if book.named(&peer.id) != Some(name) {
        return book.add(name.clone(), peer).map(|()| None);
    }
    book.merge(name, peer)?;
    Ok(book.peers().get(name).cloned())
}

fn list(output: &Output) -> Result<u64> {
    let book = home::open()?.book()?;
    for (name, peer) in book.peers() {
        tell(name, peer, output, "");
    }
    if book.peers().is_empty() {
        output.line("no known peers");
    }
    Ok(book.peers().len() as u64)
}

fn remove(args: &PeerRemoveArgs, output: &Output) -> Result<u64> {
    let removed = home::open()?.change_book(|book| book.remove(&args.name))?;
    tell(&args.name, &removed, output, "removed ");
    Ok(1)
}

fn tell(name: &Name, peer: &Peer, output: &Output, done: &str) {
    let addresses: Vec<&str> = peer.addresses.iter().map(Address::as_str).collect();
    let granted = || peer.grants.iter().map(|(folder, mode)| format!("{folder}={mode}"));
    let grants: Vec<String> = if peer.grants.is_empty() { vec!["nothing".into()] } else { granted().collect() };
    let places = if addresses.is_empty() { "no address".into() } else { addresses.join(" ") };
    output.line(&format!("{done}{name}  {}  ({places}; may do here: {})", peer.id, grants.join(" ")));
    let grants = peer.grants.iter().map(|(folder, mode)| (folder.as_str(), mode.as_str())).collect();
    output.event(&Line { name: name.as_str(), id: peer.id, addresses, grants });
}
