//! What the agent makes of all members of its folders: it tells and hears of them, gets to know those that are introduced, and shows them.

use super::{Held, Inner};
use crate::atlas::{Atlas, is_anywhere};
use crate::folder::Shared;
use crate::log::Level;
use crate::status::{Machine, Moment, SeenLink};
use crate::works::now_ns;
use std::sync::Arc;
use sync_core::io::sync::Caller;
use sync_core::peer::{ADDRESSES, Address, Id, Name};

impl Inner {
    /// Whom others introduced are peers like any other, each known as what it is.
    pub(super) fn introduce(&self, held: &mut Held) {
        let before = std::mem::take(&mut held.introducers);
        (held.whole, held.introducers) = held.learnt.added_to(&held.config);
        let name = |id: &Id| {
            let found = held.whole.peers.iter().find(|(_, peer)| peer.id == *id);
            found.map_or_else(|| id.to_string(), |(name, _)| name.to_string())
        };
        for ((folder, id), by) in held.introducers.iter().filter(|(key, _)| !before.contains_key(*key)) {
            let by: Vec<&str> = by.iter().map(Name::as_str).collect();
            (self.log)(Level::Notice, &format!("{folder}: {} was introduced by {}", name(id), by.join(", ")));
        }
        for (folder, id) in before.keys().filter(|key| !held.introducers.contains_key(*key)) {
            (self.log)(Level::Notice, &format!("{folder}: {} is introduced no more", name(id)));
        }
    }

    pub(super) fn keep_learnt(&self, held: &Held) {
        if let Err(error) = held.learnt.write(self.home.folder()) {
            let text = format!(
                "who was introduced is not known after a restart: cannot write learnt.json in {}: {error}",
                self.home.folder().display()
            );
            (self.log)(Level::Warning, &text);
        }
    }

    /// Takes over what the peers say of themselves, where the configuration allows it.
    fn learn(&self) {
        let mut held = self.held();
        let held = &mut *held;
        let mut changed = false;
        for (name, folder) in &held.folders {
            let shared = folder.shared();
            changed |= held.learnt.learn(self.id, &held.config, name, &shared.gossip(), shared.now());
        }
        if !changed {
            return;
        }
        self.keep_learnt(held);
        self.introduce(held);
        for (name, config) in &held.whole.folders {
            if let Some(folder) = held.folders.get(name) {
                folder.shared().configure(config.clone());
            }
        }
        self.connect(held);
    }

    /// Everything at which this machine can be called, as far as it knows itself.
    fn addresses(held: &Held) -> Vec<Address> {
        let listening = held.listeners.values().filter_map(|(listening, _)| Some(listening.listener().ok()?.address()));
        listening.filter_map(|address| address.to_string().parse().ok()).take(ADDRESSES).collect()
    }

    /// The machines and links that are known.
    pub(super) fn atlas(&self, held: &Held) -> (Vec<Machine>, Vec<SeenLink>) {
        let now = now_ns();
        let addresses = Inner::addresses(held).into_iter().filter(|address| !is_anywhere(address)).collect();
        let name = Some(held.config.name.to_string());
        let mut atlas = Atlas::new(Machine { id: self.id, name, addresses, heard: Some(now) });
        for (name, peer) in &held.whole.peers {
            atlas.peer(peer.id, name, &peer.addresses);
        }
        for (name, folder) in &held.folders {
            let shared = folder.shared();
            let moment = shared.now();
            let own = self.mesh.account(shared, &held.config.name, &[]);
            for link in &own.links {
                if shared.has(link.to) {
                    atlas.heard(link.to, now);
                }
                // Whoever was called answers as long as the connection stands.
                let standing = (link.called == Some(Caller::Teller)).then_some(now);
                let tried = standing.or_else(|| self.mesh.reached(link.to).map(|tried| tried.when));
                atlas.link(self.id, link, name, tried);
            }
            let table = shared.gossip();
            for (account, age) in table.machines(moment) {
                let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
                atlas.account(account, Moment(now.0.saturating_sub(age)));
            }
            table.links(moment).filter(|(from, _)| *from != self.id).for_each(|(from, link)| atlas.link(from, link, name, None));
        }
        atlas.finish()
    }

    /// Who is waited for and heard no more is given up.
    pub(super) fn give_up_silent(&self) {
        let folders: Vec<Arc<Shared>> = self.held().folders.values().map(|folder| Arc::clone(folder.shared())).collect();
        folders.iter().for_each(|folder| folder.give_up_silent());
    }

    /// Paths are measured, and the connected peers are told what is new.
    pub(super) fn tick(&self, measure: bool) {
        let (name, addresses, folders) = {
            let held = self.held();
            let folders: Vec<Arc<Shared>> = held.folders.values().map(|folder| Arc::clone(folder.shared())).collect();
            (held.config.name.clone(), Inner::addresses(&held), folders)
        };
        let clock_ms = u64::try_from(now_ns().0 / 1_000_000).unwrap_or(0);
        for shared in folders {
            if measure {
                shared.measure();
            }
            shared.tell(self.mesh.account(&shared, &name, &addresses), clock_ms);
        }
        self.learn();
    }
}
