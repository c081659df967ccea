//! The connected peers of a folder: who joins and leaves, how good the paths to them are, and what they are told.

use super::shown::Source;
use super::{Called, Joined, LASTING, Shared};
use crate::gossip::Told;
use crate::log::Level;
use crate::quality::{Counters, Pulse, Quality};
use crate::scheduler::{Job, Moment};
use crate::status::{self, Behind};
use crate::works::now_ns;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use sync_core::io::sync::{Account, Caller, Ear, Heard, Member, Reaches, Tie, Way};
use sync_core::peer::{Id, Mode, Name};

impl Shared {
    /// Is a peer connected?
    pub(crate) fn has(&self, peer: Id) -> bool {
        self.inbox().members.get(&peer).is_some_and(|joined| !joined.member.is_over())
    }

    /// What is to hear of a connection, and the number by which it is told from others of the same peer.
    pub(crate) fn ear(self: &Arc<Self>, peer: Id) -> (u64, Ear) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::downgrade(self);
        let ear: Ear = Arc::new(move |heard| {
            let Some(shared) = shared.upgrade() else { return };
            match heard {
                Heard::News => {
                    let now = shared.now();
                    shared.inbox().scheduler.heard(peer, now);
                }
                Heard::Gossip(accounts) => {
                    let now = shared.now();
                    let mut table = shared.gossip();
                    accounts.into_iter().for_each(|account| table.hear(peer, account, now));
                    return;
                }
                Heard::Ended(why) => {
                    if let Some(why) = why {
                        let name = shared.inbox().name_of(peer);
                        shared.say(Source::Pull(peer), Level::Warning, &format!("{name} cannot be told what is here: {why}"));
                    }
                    shared.left(peer, number);
                }
            }
            shared.wake.notify_all();
        });
        (number, ear)
    }

    /// A peer is connected. Of two connections that were made at the same time the one stays that the smaller id made.
    pub(crate) fn joined(&self, member: Member, called: Called, number: u64) -> bool {
        let (peer, now) = (member.peer(), self.now());
        let by_smaller = |called: Called| (called == Called::ByUs) == (self.own < peer);
        let member = Arc::new(member);
        let mut inbox = self.inbox();
        // What was granted may have been taken back, or become another, since it began to join.
        let allowed = inbox.allowed.get(&peer).is_some_and(|(_, mode)| *mode == member.mode());
        let open = inbox.live.as_ref().is_some_and(|live| member.is_of(live)) && !self.is_stopping() && !inbox.reopen;
        // One that was started anew has lost the connection that it had before, as has one that calls again.
        let there = inbox.members.get(&peer).filter(|joined| !joined.member.is_over() && joined.member.start() == member.start());
        // Calls cross each other within moments: one that comes much later comes from somebody who has lost the connection.
        let there = there.filter(|joined| now.saturating_sub(joined.at) < LASTING);
        let called_before = there.map(|joined| if joined.called { Called::ByUs } else { Called::ByThem });
        if !allowed || !open || called_before.is_some_and(|before| before != called && by_smaller(before)) {
            drop(inbox);
            return false;
        }
        if inbox.members.get(&peer).is_some_and(|joined| joined.is_fleeting(now)) {
            inbox.fleeting.insert(peer);
        }
        let untold = called == Called::ByThem && inbox.fleeting.contains(&peer);
        let told = (called == Called::ByThem && !untold).then(|| it_called(&inbox.name_of(peer)));
        // From whom nothing may be pulled, nothing is lacking.
        let lacking = (!member.may_be_pulled()).then_some(Behind { files: 0, bytes: 0, since: None, oldest: None });
        let joined = Joined {
            number,
            member: Arc::clone(&member),
            called: called == Called::ByUs,
            since: now_ns(),
            at: now,
            untold,
            quality: Quality::default(),
            pulse: Pulse::default(),
            incorporated: 0,
            lacking,
            reads: 0,
            in_vain: Duration::ZERO,
            awaited: None,
            last_sync: None,
            transfers: Vec::new(),
            told: Told::new(),
        };
        let replaced = inbox.members.insert(peer, joined);
        inbox.scheduler.joined(peer, now);
        drop(inbox);
        told.iter().for_each(|text| self.log(Level::Notice, text));
        // A pull over the old connection may be under way, and would wait for an answer that nobody gives any more.
        if let Some(replaced) = &replaced {
            replaced.member.leave();
        }
        // Its threads are waited for: nothing may be locked here.
        drop(replaced);
        if member.is_over() {
            self.left(peer, number);
        }
        self.wake.notify_all();
        true
    }

    fn left(&self, peer: Id, number: u64) {
        let (now, mut inbox) = (self.now(), self.inbox());
        let same = inbox.members.get(&peer).is_some_and(|joined| joined.number == number);
        let gone = if same { inbox.members.remove(&peer) } else { None };
        if same {
            inbox.scheduler.left(peer);
            inbox.unread.remove(&peer);
            inbox.facts.problems.remove(&Source::Pull(peer));
            inbox.facts.problems.remove(&Source::Read(peer));
            inbox.facts.stopped.remove(&peer);
        }
        match &gone {
            Some(gone) if gone.is_fleeting(now) => {
                inbox.fleeting.insert(peer);
            }
            Some(gone) if now.saturating_sub(gone.at) >= LASTING => {
                inbox.fleeting.remove(&peer);
            }
            _ => {}
        }
        drop(inbox);
        if same {
            self.gossip().left(peer);
        }
        drop(gone);
    }

    /// Goes over to these peers: ends the connections to those that may take part no more, or as something else than they joined as.
    pub(crate) fn keep(&self, peers: &BTreeMap<Id, (Name, Mode)>) {
        let gone: Vec<_> = {
            let mut inbox = self.inbox();
            inbox.allowed = peers.clone();
            inbox.fleeting.retain(|peer| peers.contains_key(peer));
            let stays = |id: &Id, joined: &Joined| peers.get(id).is_some_and(|(_, mode)| *mode == joined.member.mode());
            let others = inbox.members.iter().filter(|(id, joined)| !stays(id, joined));
            others.map(|(_, joined)| Arc::clone(&joined.member)).collect()
        };
        gone.iter().for_each(|member| member.leave());
    }

    /// Looks at all paths, and tells the peers how they look from here.
    pub(crate) fn measure(&self) {
        let now = self.now();
        let mut inbox = self.inbox();
        let mut costs = Vec::new();
        let mut reports = Vec::new();
        let mut lasting = Vec::new();
        for (peer, joined) in &mut inbox.members {
            if joined.untold && !joined.is_fleeting(now) {
                joined.untold = false;
                lasting.push(*peer);
            }
            let path = joined.member.quality();
            let back = joined.member.reported().map(|report| Counters { sent: report.sent, lost: report.lost });
            joined.quality.sample(path.rtt, Counters { sent: path.sent, lost: path.lost }, back, now);
            costs.extend(joined.quality.cost().map(|cost| (*peer, cost)));
            reports.push((Arc::clone(&joined.member), joined.report()));
        }
        let mut told = Vec::new();
        for peer in lasting {
            inbox.fleeting.remove(&peer);
            told.push(it_called(&inbox.name_of(peer)));
        }
        inbox.scheduler.measured(costs, now);
        drop(inbox);
        told.iter().for_each(|text| self.log(Level::Notice, text));
        reports.into_iter().for_each(|(member, report)| member.report(report));
    }

    /// Says to the connected peers what this machine is, and what it heard of others, as far as they do not know it.
    pub(crate) fn tell(&self, own: Account, clock_ms: u64) {
        let now = self.now();
        {
            let mut table = self.gossip();
            table.expire(now);
            table.say(own, now, clock_ms);
        }
        let mut inbox = self.inbox();
        for (peer, joined) in &mut inbox.members {
            let table = self.gossip();
            let news = table.news_for(*peer, &joined.told, now);
            table.told(&news, &mut joined.told);
            drop(table);
            if !news.is_empty() && !joined.member.gossip(news) {
                // Told again from the beginning, once there is room.
                joined.told.clear();
            }
        }
    }

    /// The link to a peer, as it is told to others.
    pub(crate) fn tie(&self, to: Id, mode: Mode, reaches: Option<Reaches>) -> Tie {
        let inbox = self.inbox();
        let Some(joined) = inbox.members.get(&to) else {
            return Tie { to, mode, learnt: false, called: None, reaches, way: None };
        };
        let called = Some(if joined.called { Caller::Teller } else { Caller::Other });
        Tie { to, mode, learnt: false, called, reaches, way: joined.shown_quality().map(way) }
    }

    /// Where a connected peer is, and who called.
    pub(crate) fn whereabouts(&self, peer: Id) -> Option<(Option<SocketAddr>, Called)> {
        let inbox = self.inbox();
        let joined = inbox.members.get(&peer)?;
        Some((joined.member.address(), if joined.called { Called::ByUs } else { Called::ByThem }))
    }

    /// Who is waited for and heard no more, while there is something else to do here, is given up: that its connection is dead would
    /// be found out much later, and nothing else is done until then. It is called anew.
    pub(crate) fn give_up_silent(&self) {
        let now = self.now();
        let mut inbox = self.inbox();
        let inbox = &mut *inbox;
        let Some(job @ Job::Pull(peer)) = inbox.running else { return };
        let name = inbox.name_of(peer);
        let Some(joined) = inbox.members.get_mut(&peer) else { return };
        let path = joined.member.quality();
        if joined.pulse.is_silent(path.sent, path.received, now) && inbox.scheduler.others_wait(job, now) {
            joined.pulse = Pulse::default();
            self.log(
                Level::Notice,
                &format!("{name} was not heard for some seconds while it was pulled from: it is called anew"),
            );
            joined.member.leave();
        }
    }
}

impl Joined {
    /// Did the peer call, and has the connection not lasted yet?
    fn is_fleeting(&self, now: Moment) -> bool {
        !self.called && now.saturating_sub(self.at) < LASTING
    }
}

fn it_called(name: &str) -> String {
    format!("{name} is connected, it called")
}

/// How good a path is, as others are told.
fn way(quality: status::Quality) -> Way {
    let rtt_us = (quality.rtt_ms * 1000.0).clamp(0.0, f64::from(u32::MAX)) as u32;
    Way { rtt_us, lost: (quality.loss.clamp(0.0, 1.0) * 1_000_000.0) as u64, goodput: quality.goodput }
}
