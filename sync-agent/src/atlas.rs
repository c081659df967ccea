//! All machines that are known and the links between them, put together for whoever shows them. Pure.

use crate::status::{Direction, LINKS, MACHINES, Machine, Moment, Quality, Reach, SeenLink};
use std::collections::BTreeMap;
use sync_core::io::sync::{Account, Caller, Reaches, Tie};
use sync_core::peer::{ADDRESSES, Address, Id, Name};

/// Gathers.
pub(crate) struct Atlas {
    own: Machine,
    machines: BTreeMap<Id, Machine>,
    links: BTreeMap<(Id, Id), SeenLink>,
}

impl Atlas {
    /// Begins with this machine.
    pub(crate) fn new(own: Machine) -> Atlas {
        Atlas { own, machines: BTreeMap::new(), links: BTreeMap::new() }
    }

    fn machine(&mut self, id: Id) -> &mut Machine {
        self.machines.entry(id).or_insert_with(|| Machine { id, name: None, addresses: Vec::new(), heard: None })
    }

    /// A peer as it is called here. What it is called here counts.
    pub(crate) fn peer(&mut self, id: Id, name: &Name, addresses: &[Address]) {
        let machine = self.machine(id);
        machine.name = Some(name.to_string());
        add(&mut machine.addresses, addresses);
    }

    /// Something was heard of a machine at that moment.
    pub(crate) fn heard(&mut self, id: Id, at: Moment) {
        let machine = self.machine(id);
        machine.heard = machine.heard.max(Some(at));
    }

    /// What a machine says of itself.
    pub(crate) fn account(&mut self, account: &Account, at: Moment) {
        self.heard(account.origin, at);
        let machine = self.machine(account.origin);
        machine.name.get_or_insert_with(|| account.name.to_string());
        let told: Vec<Address> = account.addresses.iter().filter(|address| !is_anywhere(address)).cloned().collect();
        add(&mut machine.addresses, &told);
    }

    /// A link for one folder; `tried`: when it was tried whether it can be called.
    pub(crate) fn link(&mut self, from: Id, tie: &Tie, folder: &Name, tried: Option<Moment>) {
        let reaches = tie.reaches.as_ref().map(|reaches| match reaches {
            Reaches::Answers(address) => Reach::Answers { address: address.to_string() },
            Reaches::Fails(why) => Reach::Fails { why: why.clone() },
        });
        let called = tie.called.map(|called| if called == Caller::Teller { Direction::Out } else { Direction::In });
        let quality = tie.way.map(|way| Quality {
            rtt_ms: f64::from(way.rtt_us) / 1000.0,
            loss: way.lost as f64 / 1_000_000.0,
            goodput: way.goodput,
            cost: None,
        });
        let empty =
            || SeenLink { from, to: tie.to, folders: Vec::new(), called: None, reaches: None, quality: None, tried: None };
        let link = self.links.entry((from, tie.to)).or_insert_with(empty);
        if !link.folders.contains(folder) {
            link.folders.push(folder.clone());
        }
        link.called = link.called.or(called);
        link.quality = link.quality.or(quality);
        link.tried = link.tried.max(tried);
        if !matches!(link.reaches, Some(Reach::Answers { .. })) {
            link.reaches = reaches.or_else(|| link.reaches.take());
        }
    }

    /// All of it: this machine first.
    pub(crate) fn finish(mut self) -> (Vec<Machine>, Vec<SeenLink>) {
        self.machines.remove(&self.own.id);
        let machines = std::iter::once(self.own).chain(self.machines.into_values()).take(MACHINES).collect();
        (machines, self.links.into_values().take(LINKS).collect())
    }
}

fn add(known: &mut Vec<Address>, more: &[Address]) {
    let new: Vec<Address> = more.iter().filter(|address| !known.contains(address)).cloned().collect();
    known.extend(new);
    known.truncate(ADDRESSES);
}

/// Does an address stand for whichever the machine is seen at?
pub(crate) fn is_anywhere(address: &Address) -> bool {
    address.as_str().parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_core::io::sync::Way;
    use sync_core::peer::Mode;

    #[test]
    fn folders_of_a_link_are_one_link_and_this_machine_is_the_first() {
        let id = |byte| Id::from_bytes([byte; 20]);
        let own = Machine { id: id(9), name: Some("own".into()), addresses: Vec::new(), heard: Some(Moment(5)) };
        let mut atlas = Atlas::new(own.clone());
        let name: Name = "b".parse().unwrap();
        atlas.peer(id(2), &name, &["h:1".parse().unwrap()]);
        let account = Account {
            origin: id(2),
            number: 1,
            age_s: 0,
            name: "other".parse().unwrap(),
            addresses: ["0.0.0.0:4", "h:1", "h:2"].map(|text| text.parse().unwrap()).to_vec(),
            introduces: false,
            links: Vec::new(),
        };
        atlas.account(&account, Moment(3));
        atlas.account(&account, Moment(2));
        let way = Some(Way { rtt_us: 1500, lost: 10_000, goodput: None });
        let tie =
            Tie { to: id(2), mode: Mode::TwoWay, learnt: false, called: None, reaches: Some(Reaches::fails("no")), way: None };
        atlas.link(id(9), &tie, &"f".parse().unwrap(), Some(Moment(1)));
        let better =
            Tie { called: Some(Caller::Other), reaches: Some(Reaches::Answers("h:1".parse().unwrap())), way, ..tie.clone() };
        atlas.link(id(9), &better, &"g".parse().unwrap(), None);
        atlas.link(id(9), &tie, &"g".parse().unwrap(), None);
        let (machines, links) = atlas.finish();
        let addresses = ["h:1", "h:2"].map(|text| text.parse().unwrap()).to_vec();
        let peer = Machine { id: id(2), name: Some("b".into()), addresses, heard: Some(Moment(3)) };
        assert_eq!(machines, [own, peer]);
        let [link] = &links[..] else { panic!("{links:?}") };
        assert_eq!(link.folders.iter().map(Name::as_str).collect::<Vec<_>>(), ["f", "g"]);
        assert_eq!((link.called, &link.reaches), (Some(Direction::In), &Some(Reach::Answers { address: "h:1".into() })));
        assert_eq!((link.quality.unwrap().rtt_ms, link.quality.unwrap().loss, link.tried), (1.5, 0.01, Some(Moment(1))));
    }
}
