//! Finds out now and then whether the peers that called this machine can be called by it.

use super::{CALL, Directory, LOOK, Mesh};
use crate::atlas::is_anywhere;
use crate::folder::{Called, Shared};
use crate::reach::Candidate;
use crate::status::Reach;
use crate::works::{now_ns, random_share};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use sync_core::io::link::CloseCode;
use sync_core::io::sync::Reaches;
use sync_core::peer::{ADDRESSES, Address};

/// Peers that are probed at a time.
const PROBES: usize = 8;

impl Mesh {
    /// Tries again and again, now and then, which of the peers can be called that called this machine.
    pub(super) fn probe_all(&self) {
        let never = AtomicBool::new(false);
        while !self.is_stopping() {
            let now = self.now();
            let (nowhere, mut due): (Vec<_>, Vec<_>) =
                self.candidates(&self.directory()).into_iter().partition(|candidate| candidate.addresses.is_empty());
            // What was found out counts no more once nobody knows where to call.
            nowhere.iter().for_each(|candidate| self.reached.forget(candidate.peer));
            due.retain(|candidate| self.reached.is_due(candidate, now));
            for some in due.chunks(PROBES) {
                thread::scope(|scope| {
                    for candidate in some {
                        scope.spawn(|| self.probe_one(candidate));
                    }
                });
                if self.is_stopping() {
                    return;
                }
            }
            self.rest(LOOK, &never);
        }
    }

    fn probe_one(&self, candidate: &Candidate) {
        let reach = match self.network.dial(candidate.peer, &candidate.addresses, CALL) {
            Ok(connection) => {
                let address = connection.address().map_or_else(String::new, |address| address.to_string());
                connection.close(CloseCode::Probe);
                Reach::Answers { address }
            }
            Err(error) => Reach::Fails { why: error.to_string() },
        };
        self.reached.probed(candidate.clone(), reach, (now_ns(), self.now()), random_share());
    }

    /// Peers of which it is not known by a call of this machine whether they can be called, and where that may be: as configured, as
    /// they say themselves, and where others reach them.
    fn candidates(&self, directory: &Directory) -> Vec<Candidate> {
        let mut found = Vec::new();
        for (name, peer) in &directory.peers {
            let folders: Vec<&Arc<Shared>> = directory.folders.values().filter(|shared| shared.mode(name).is_some()).collect();
            let whereabouts: Vec<_> = folders.iter().filter_map(|shared| shared.whereabouts(peer.id)).collect();
            let called = whereabouts.iter().any(|(_, called)| *called == Called::ByUs);
            if folders.is_empty() || called {
                continue;
            }
            let seen = whereabouts.iter().find_map(|(address, _)| *address);
            let mut addresses = peer.addresses.clone();
            for shared in folders {
                let now = shared.now();
                let table = shared.gossip();
                let own = table.account(peer.id, now).map(|account| account.addresses.clone()).unwrap_or_default();
                let told = table.links(now).filter(|(_, link)| link.to == peer.id).filter_map(|(_, link)| match &link.reaches {
                    Some(Reaches::Answers(address)) => Some(address.clone()),
                    _ => None,
                });
                addresses.extend(own.into_iter().chain(told).filter_map(|address| whole(address, seen)));
            }
            let mut known = BTreeSet::new();
            addresses.retain(|address| known.insert(address.clone()));
            addresses.truncate(ADDRESSES);
            found.push(Candidate { peer: peer.id, addresses, connected: !whereabouts.is_empty() });
        }
        found
    }
}

/// An address that stands for whichever the machine is seen at, with that one.
fn whole(address: Address, seen: Option<SocketAddr>) -> Option<Address> {
    if !is_anywhere(&address) {
        return Some(address);
    }
    let port = address.as_str().parse::<SocketAddr>().ok()?.port();
    SocketAddr::new(seen?.ip().to_canonical(), port).to_string().parse().ok()
}
