//! Judges the links between machines, as an agent tells them: each in both directions, and where the graph of a folder is weak. Pure.

use super::graph::Graph;
use super::{Finding, MACHINE, size};
use crate::status::{Direction, FolderState, FolderStatus, Link, Machine, Moment, PeerStatus, Quality, Reach, SeenLink, Status};
use std::collections::{BTreeMap, BTreeSet};
use sync_core::path::escape;
use sync_core::peer::{Id, Name};

/// Share of packets from which a link is told to be lossy.
const LOSSY: f64 = 0.02;
/// A machine that was not heard of for so long is told.
const SILENT_NS: i64 = 5 * 60 * 1_000_000_000;
/// Clocks that are further apart are told: of two versions, the newer one may be the older.
const CLOCKS_MS: f64 = 2_000.0;
/// The port that the documentation proposes, for machines of which no address is known.
const PORT: &str = "4477";
/// Machines that are named in a list.
const NAMED: usize = 4;
/// Ways out that are proposed for one machine.
const PROPOSED: usize = 3;

/// What is to be said of all links that an agent knows of.
pub(super) fn findings(status: &Status, now: Moment) -> Vec<Finding> {
    let world = World::of(status);
    let mut found = world.pairs();
    found.extend(status.folders.iter().flat_map(|folder| world.folder(folder)));
    found.extend(world.silent(now));
    found.extend(world.clocks());
    found
}

struct World<'a> {
    status: &'a Status,
    machines: BTreeMap<Id, &'a Machine>,
    /// How each end sees a link, by who tells and to whom it leads.
    seen: BTreeMap<(Id, Id), SeenLink>,
    called: BTreeMap<Id, &'a Name>,
}

impl<'a> World<'a> {
    fn of(status: &'a Status) -> World<'a> {
        let machines = status.machines.iter().map(|machine| (machine.id, machine)).collect();
        let mut seen: BTreeMap<(Id, Id), SeenLink> = BTreeMap::new();
        for link in &status.links {
            seen.insert((link.from, link.to), link.clone());
        }
        let mut called = BTreeMap::from([(status.id, &status.name)]);
        for folder in &status.folders {
            for peer in &folder.peers {
                called.insert(peer.id, &peer.name);
                let own = seen.entry((status.id, peer.id)).or_insert_with(|| own_link(status.id, peer));
                if !own.folders.contains(&folder.name) {
                    own.folders.push(folder.name.clone());
                }
                // A machine may be connected for one folder and not yet for another.
                if own.called.is_none() {
                    own.called = direction(peer);
                }
            }
        }
        World { status, machines, seen, called }
    }

    fn name(&self, id: Id) -> String {
        let own = self.called.get(&id).map(|name| name.as_str().to_owned());
        let other = || self.machines.get(&id).and_then(|machine| machine.name.as_ref()).map(|name| escape(name.as_bytes()));
        own.or_else(other).unwrap_or_else(|| id.to_string().split('-').next().unwrap_or_default().to_owned() + "…")
    }

    /// Where others call a machine.
    fn port(&self, id: Id) -> String {
        let told = self.machines.get(&id).and_then(|machine| machine.addresses.first());
        let own = || self.status.listen.first().filter(|_| id == self.status.id).map(|address| address.port().to_string());
        let port = told.and_then(|address| address.as_str().rsplit_once(':').map(|(_, port)| port.to_owned()));
        port.or_else(own).unwrap_or_else(|| PORT.to_owned())
    }

    fn open(&self, id: Id) -> String {
        format!("open UDP {} on {}", self.port(id), self.name(id))
    }

    /// One finding for each two machines that have, or want, a link; and one more where it is lossy.
    fn pairs(&self) -> Vec<Finding> {
        let pairs: BTreeSet<(Id, Id)> = self.seen.keys().map(|(from, to)| (*from.min(to), *from.max(to))).collect();
        let ordered = pairs.into_iter().map(|(a, b)| if b == self.status.id { (b, a) } else { (a, b) });
        ordered.flat_map(|(a, b)| self.pair(a, b)).collect()
    }

    fn pair(&self, a: Id, b: Id) -> Vec<Finding> {
        let ways = [(a, b), (b, a)];
        let seen = ways.map(|way| self.seen.get(&way));
        let subject = format!("link {} – {}", self.name(a), self.name(b));
        let connected = self.connected(a, b);
        // Who cannot call whom, and why.
        let deaf: Vec<(Id, String)> = ways
            .iter()
            .zip(seen)
            .filter_map(|((from, to), link)| {
                let Some(Reach::Fails { why }) = &link?.reaches else { return None };
                Some((*to, format!("{} cannot call {}: {}", self.name(*from), self.name(*to), escape(why.as_bytes()))))
            })
            .collect();
        let why: Vec<&str> = deaf.iter().map(|(_, text)| text.as_str()).collect();
        let why = why.join("; ");
        let caller = self.caller(a, b, seen);
        let mut found = Vec::new();
        match (connected, &deaf[..]) {
            (true, []) => found.push(Finding::ok("link", &subject, self.standing(caller, seen))),
            (true, [(to, _), ..]) => {
                let stands =
                    caller.map_or_else(String::new, |caller| format!("; the link stands because {} called", self.name(caller)));
                let advice = format!("{}, so that either of them can call", self.open(*to));
                found.push(Finding::warning("one way", &subject, format!("{why}{stands}"), advice));
            }
            (false, []) => {
                let text = "there is no connection, and no call has failed so far";
                let others: Vec<String> = [a, b].into_iter().filter(|id| *id != self.status.id).map(|id| self.name(id)).collect();
                let advice =
                    format!("see that the agent runs on {}, and that one side has an address of the other", others.join(" and "));
                found.push(Finding::warning("link", &subject, text, advice));
            }
            (false, some) => {
                let open: Vec<String> = some.iter().map(|(to, _)| self.open(*to)).collect();
                let runs: Vec<String> = some.iter().map(|(to, _)| self.name(*to)).collect();
                let advice = format!("see that the agent runs on {}; {}", runs.join(" and "), open.join(" or "));
                found.push(Finding::warning("link", &subject, format!("there is no connection: {why}"), advice));
            }
        }
        for ((from, to), quality) in ways.iter().zip(seen).filter_map(|(way, link)| Some((way, link?.quality?))) {
            if connected && quality.loss >= LOSSY {
                let text =
                    format!("{:.1} % of what {} sends to {} is lost", quality.loss * 100.0, self.name(*from), self.name(*to));
                let advice = "look at the network between them; where there is a better way, content goes another one";
                found.push(Finding::warning("loss", &subject, text, advice));
            }
        }
        found
    }

    /// Is there a connection between the two? Of its own links this machine knows by itself; of those between others it goes by what
    /// the ends say, and where both say something, both have to agree: what one of them said last may be minutes old.
    fn connected(&self, a: Id, b: Id) -> bool {
        let own = self.status.id;
        let mut counting = [(a, b), (b, a)]
            .into_iter()
            .filter(|(from, to)| *from == own || *to != own)
            .filter_map(|way| self.seen.get(&way))
            .peekable();
        counting.peek().is_some() && counting.all(|link| link.called.is_some())
    }

    /// Which of the two called, as either of them says.
    fn caller(&self, a: Id, b: Id, [ab, ba]: [Option<&SeenLink>; 2]) -> Option<Id> {
        let told = |link: Option<&SeenLink>, teller: Id, other: Id| {
            link.and_then(|link| link.called).map(|direction| if direction == Direction::Out { teller } else { other })
        };
        told(ab, a, b).or_else(|| told(ba, b, a))
    }

    fn standing(&self, caller: Option<Id>, seen: [Option<&SeenLink>; 2]) -> String {
        let called = caller.map_or_else(|| "connected".to_owned(), |caller| format!("connected, {} called", self.name(caller)));
        let quality =
            seen.into_iter().flatten().find_map(|link| link.quality).map_or_else(String::new, |it| format!(", {}", measured(it)));
        format!("{called}{quality}")
    }

    /// Where the links of one folder leave somebody alone, or would if one machine or one link failed.
    fn folder(&self, folder: &FolderStatus) -> Vec<Finding> {
        let subject = format!("folder {}", folder.name);
        if folder.peers.is_empty() {
            return vec![alone(&folder.name)];
        }
        if matches!(folder.state, FolderState::Paused | FolderState::Unavailable { .. }) {
            return Vec::new();
        }
        let links: Vec<&SeenLink> = self.seen.values().filter(|link| link.folders.contains(&folder.name)).collect();
        let all: BTreeSet<Id> = links.iter().flat_map(|link| [link.from, link.to]).chain([self.status.id]).collect();
        let ids: Vec<Id> = all.into_iter().collect();
        let number = |id: &Id| ids.binary_search(id).ok();
        let edges = links.iter().filter(|link| self.connected(link.from, link.to));
        let graph = Graph::new(ids.len(), edges.filter_map(|link| Some((number(&link.from)?, number(&link.to)?))));
        let mut found = Vec::new();
        if number(&self.status.id).is_some_and(|own| graph.neighbours(own).is_empty()) {
            let text = "none of its peers is connected: what is written here stays here";
            found.push(Finding::broken(
                "cut off",
                &subject,
                text,
                "the links say why; see that agents run there, and that their UDP ports are open",
            ));
        }
        let parts = graph.parts(None);
        let large: Vec<&Vec<usize>> = parts.iter().filter(|part| part.len() > 1).collect();
        if let [first, second, ..] = &large[..] {
            let text = format!("{} and {} have no way to each other", self.list(&ids, first), self.list(&ids, second));
            found.push(Finding::broken("parted", &subject, text, self.join(folder, &ids, first, second)));
        }
        let weak = graph.weak();
        found.extend(weak.nodes.iter().map(|cut| self.cut(folder, &ids, &graph, *cut)));
        // The one link of two machines is no news.
        let in_more = |node: &usize| parts.iter().any(|part| part.len() > 2 && part.contains(node));
        let single: Vec<String> = weak
            .edges
            .iter()
            .filter(|(a, _)| in_more(a))
            .map(|(a, b)| format!("{} – {}", self.name(ids[*a]), self.name(ids[*b])))
            .collect();
        if !single.is_empty() {
            let more = single.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let text = format!("there is no second way around {}{more}", single[..single.len().min(NAMED)].join(", "));
            found.push(Finding::warning("single links", &subject, text, "connect each machine with two others"));
        }
        if found.is_empty() {
            found.push(Finding::ok("graph", subject, "no machine and no link is the only way to another"));
        }
        found
    }

    /// If one machine stops, who is without whom, and what would help.
    fn cut(&self, folder: &FolderStatus, ids: &[Id], graph: &Graph, cut: usize) -> Finding {
        let around = graph.neighbours(cut);
        let parts: Vec<Vec<usize>> =
            graph.parts(Some(cut)).into_iter().filter(|part| part.iter().any(|node| around.contains(node))).collect();
        let sides: Vec<String> = parts.iter().map(|part| self.list(ids, part)).collect();
        let stops = if ids[cut] == self.status.id { format!("{MACHINE} ({})", self.status.name) } else { self.name(ids[cut]) };
        let text = match &sides[..] {
            [one, other] => format!("if {stops} stops, {one} and {other} cannot reach each other"),
            many => format!("if {stops} stops, {} cannot reach one another", many.join(" / ")),
        };
        let ways: Vec<String> = parts.windows(2).take(PROPOSED).map(|pair| self.join(folder, ids, &pair[0], &pair[1])).collect();
        Finding::warning("single machine", format!("folder {}", folder.name), text, ways.join("; "))
    }

    /// What would connect two parts: a call that was tried and failed, or one that nobody tries.
    fn join(&self, folder: &FolderStatus, ids: &[Id], one: &[usize], other: &[usize]) -> String {
        let pairs = || one.iter().flat_map(|a| other.iter().map(move |b| (ids[*a], ids[*b]))).flat_map(|(a, b)| [(a, b), (b, a)]);
        let failed = |way: &(Id, Id)| {
            let link = self.seen.get(way).filter(|link| link.folders.contains(&folder.name));
            matches!(link.and_then(|link| link.reaches.as_ref()), Some(Reach::Fails { .. }))
        };
        if let Some((from, to)) = pairs().find(failed) {
            return format!("{}, so that {} can call it", self.open(to), self.name(from));
        }
        let known = |(_, to): &(Id, Id)| self.machines.get(to).is_some_and(|machine| !machine.addresses.is_empty());
        let Some((from, to)) = pairs().find(known).or_else(|| pairs().next()) else { return "connect them".into() };
        let (from_name, to_name) = (self.name(from), self.name(to));
        format!("make {from_name} and {to_name} peers of each other for {}, and {}", folder.name, self.open(to))
    }

    fn list(&self, ids: &[Id], part: &[usize]) -> String {
        let mut names: Vec<String> = part.iter().take(NAMED).map(|node| self.name(ids[*node])).collect();
        if part.len() > NAMED {
            names.push(format!("{} more", part.len() - NAMED));
        }
        match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            _ => names.concat(),
        }
    }

    /// Machines of which nothing was heard.
    fn silent(&self, now: Moment) -> Vec<Finding> {
        let machines = self.status.machines.iter().filter(|machine| machine.id != self.status.id);
        let told = machines.filter_map(|machine| {
            let text = match machine.heard {
                Some(heard) if now.0.saturating_sub(heard.0) < SILENT_NS => return None,
                Some(heard) => format!("nothing was heard of it for {}", ago(now.0.saturating_sub(heard.0))),
                None => "nothing was heard of it since this agent began".to_owned(),
            };
            let subject = format!("machine {}", self.name(machine.id));
            Some(Finding::warning(
                "silent",
                subject,
                text,
                "see that its agent runs; if it is gone for good, take it out of the configurations",
            ))
        });
        told.collect()
    }

    fn clocks(&self) -> Vec<Finding> {
        let mut told: BTreeMap<Id, f64> = BTreeMap::new();
        for peer in self.status.folders.iter().flat_map(|folder| &folder.peers) {
            if let Some(offset) = peer.clock_offset_ms {
                told.entry(peer.id).or_insert(offset);
            }
        }
        let judged = told.into_iter().map(|(id, offset)| {
            let (name, how) = (self.name(id), if offset > 0.0 { "ahead of" } else { "behind" });
            let text = format!("its clock is {:.1} s {how} this machine's", offset.abs() / 1_000.0);
            match offset.abs() > CLOCKS_MS {
                true => {
                    let advice = format!("have both clocks set by NTP: what is newer on {name} may look older here");
                    Finding::warning("clocks", format!("machine {name}"), text, advice)
                }
                false => Finding::ok("clocks", format!("machine {name}"), text),
            }
        });
        judged.collect()
    }
}

/// A folder that is shared with nobody.
pub(super) fn alone(folder: &Name) -> Finding {
    let advice = format!("name some: peers = {{ NAME = \"two-way\" }} below [folders.{folder}]");
    let text = "it has no peers: what is in it stays on this machine";
    Finding::warning("peers", format!("folder {folder}"), text, advice)
}

fn direction(peer: &PeerStatus) -> Option<Direction> {
    match &peer.link {
        Link::Connected { direction, .. } => Some(*direction),
        Link::Apart { .. } => None,
    }
}

/// A link of this machine, where only its folder tells of it.
fn own_link(own: Id, peer: &PeerStatus) -> SeenLink {
    let reaches = match &peer.link {
        Link::Apart { why: Some(why), address, .. } => {
            let at = address.as_ref().map_or_else(String::new, |address| format!("{}: ", address.as_str()));
            Some(Reach::Fails { why: format!("{at}{why}") })
        }
        _ => None,
    };
    SeenLink { from: own, to: peer.id, folders: Vec::new(), called: direction(peer), reaches, quality: peer.quality, tried: None }
}

fn measured(quality: Quality) -> String {
    let goodput = quality.goodput.map_or_else(String::new, |rate| format!(", {}/s", size(rate)));
    format!("round trip {:.1} ms, {:.2} % lost{goodput}", quality.rtt_ms, quality.loss * 100.0)
}

fn ago(ns: i64) -> String {
    let minutes = ns / 60_000_000_000;
    match minutes {
        0..120 => format!("{minutes} minutes"),
        120..2880 => format!("{} hours", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    }
}

#[cfg(test)]
#[path = "tests_links.rs"]
pub(crate) mod tests;
