//! What lies between agents, and what happens to it and to them.

use super::{Agent, Dice, Event, Frozen, World};
use crate::scheduler::{Scheduler, wait_after};
use std::time::Duration;

/// A connection over which nothing comes is given up after so long.
const IDLE: Duration = Duration::from_secs(30);
/// A call that nobody answers.
const CALL: Duration = Duration::from_secs(10);

/// What lies between two agents. The first one calls.
pub(super) struct Link {
    ends: [usize; 2],
    /// Does nothing pass from the first, and to it?
    cut: [bool; 2],
    pub(super) rtt: Duration,
    loss: f64,
    failures: u32,
}

impl Link {
    pub(super) fn new(caller: usize, called: usize) -> Link {
        Link { ends: [caller, called], cut: [false; 2], rtt: Duration::from_millis(20), loss: 0.0, failures: 0 }
    }

    pub(super) fn other(&self, who: usize) -> usize {
        if self.ends[0] == who { self.ends[1] } else { self.ends[0] }
    }

    /// Nothing is of use that does not pass both ways.
    pub(super) fn is_cut(&self) -> bool {
        self.cut[0] || self.cut[1]
    }

    /// How long a message takes: what is lost is sent again.
    pub(super) fn trip(&self, dice: &mut Dice) -> Duration {
        let mut wait = self.rtt / 2 + self.rtt.mul_f64(dice.share());
        while dice.share() < self.loss {
            wait += self.rtt * 2;
        }
        wait
    }

    pub(super) fn cost(&self) -> f64 {
        self.rtt.as_secs_f64() * 1000.0 / (1.0 - self.loss) / (1.0 - self.loss)
    }
}

/// Can all agents but the frozen one reach each other?
pub(super) fn is_connected(agents: usize, links: &[Link], frozen: Frozen) -> bool {
    let stands = |who: usize| frozen != Frozen::Agent(who);
    let Some(first) = (0..agents).find(|who| stands(*who)) else { return false };
    let mut reached = vec![first];
    let mut at = 0;
    while let Some(who) = reached.get(at).copied() {
        at += 1;
        for (number, link) in links.iter().enumerate() {
            let other = link.other(who);
            if link.ends.contains(&who) && stands(other) && frozen != Frozen::Link(number) && !reached.contains(&other) {
                reached.push(other);
            }
        }
    }
    reached.len() == (0..agents).filter(|who| stands(*who)).count()
}

impl World {
    /// Something breaks, or gets better or worse; the next fault comes after a while.
    pub(super) fn fault(&mut self) {
        if !self.chaos {
            return;
        }
        let wait = self.dice.ms(100, 20_000);
        self.after(wait, Event::Fault);
        let (agents, links) = (self.agents.len(), self.links.len());
        match self.dice.below(10) {
            0 | 1 => {
                let who = self.dice.pick(agents);
                self.dies(who);
                let wait = self.dice.ms(10, 60_000);
                self.after(wait, Event::Start { who });
            }
            2..=5 => {
                let link = self.dice.pick(links);
                let ways = [[true, true], [true, false], [false, true]][self.dice.pick(3)];
                self.cut(link, ways);
                let wait = self.dice.ms(10, 90_000);
                self.after(wait, Event::Heal { link });
            }
            6 => {
                let who = self.dice.pick(agents);
                self.agents[who].scheduler.pause(true);
                let wait = self.dice.ms(10, 60_000);
                self.after(wait, Event::Resume { who });
            }
            _ => {
                let link = self.dice.pick(links);
                let rtt = [1, 20, 50, 300][self.dice.pick(4)];
                let loss = [0.0, 0.01, 0.05, 0.2][self.dice.pick(4)];
                (self.links[link].rtt, self.links[link].loss) = (Duration::from_millis(rtt), loss);
            }
        }
    }

    pub(super) fn cut(&mut self, link: usize, ways: [bool; 2]) {
        let was = self.links[link].is_cut();
        self.links[link].cut = ways;
        if !was && self.links[link].is_cut() {
            self.fall_silent(link);
        }
    }

    /// Both ends notice by themselves that nothing comes, each at its time.
    fn fall_silent(&mut self, link: usize) {
        for (end, who) in self.links[link].ends.into_iter().enumerate() {
            let peer = self.links[link].other(who);
            if let Some((_, connection)) = self.agents[who].members.get(&peer).copied() {
                let wait = IDLE + self.dice.ms(0, 8_000);
                self.after(wait, Event::Silent { link, connection, end });
            }
        }
    }

    pub(super) fn heal(&mut self, link: usize) {
        self.links[link].cut = [false; 2];
    }

    /// An end has heard nothing for too long, unless something has come since.
    pub(super) fn ended(&mut self, link: usize, connection: u64, end: usize) {
        let who = self.links[link].ends[end];
        let peer = self.links[link].other(who);
        let there = self.agents[peer].alive && self.agents[peer].members.get(&who) == Some(&(link, connection));
        if there && !self.links[link].is_cut() {
            return;
        }
        self.leave(who, peer, (link, connection));
    }

    fn leave(&mut self, who: usize, peer: usize, member: (usize, u64)) {
        if self.agents[who].members.get(&peer) != Some(&member) {
            return;
        }
        self.agents[who].members.remove(&peer);
        self.agents[who].scheduler.left(peer);
        self.wake(who);
        if self.links[member.0].ends[0] == who {
            self.call_after(member.0, Duration::ZERO);
        }
    }

    /// Killed: nobody is told.
    pub(super) fn dies(&mut self, who: usize) {
        let agent = &mut self.agents[who];
        if !agent.alive {
            return;
        }
        agent.alive = false;
        agent.epoch += 1;
        agent.running = None;
        agent.missed += std::mem::take(&mut agent.noticed);
        agent.members.clear();
        for link in (0..self.links.len()).filter(|link| self.links[*link].ends.contains(&who)).collect::<Vec<_>>() {
            self.fall_silent(link);
        }
    }

    pub(super) fn start(&mut self, who: usize) {
        let now = self.now;
        let agent = &mut self.agents[who];
        if agent.alive {
            return;
        }
        *agent = Agent {
            alive: true,
            epoch: agent.epoch + 1,
            scheduler: Scheduler::new(now, super::EVERY),
            running: None,
            members: std::collections::BTreeMap::new(),
            noticed: 0,
            missed: agent.missed,
            told: 0,
        };
        agent.scheduler.opened(now);
        self.wake(who);
        for link in (0..self.links.len()).filter(|link| self.links[*link].ends[0] == who).collect::<Vec<_>>() {
            self.links[link].failures = 0;
            self.call_after(link, Duration::ZERO);
        }
    }

    fn call_after(&mut self, link: usize, wait: Duration) {
        let epoch = self.agents[self.links[link].ends[0]].epoch;
        self.after(wait, Event::Call { link, epoch });
    }

    pub(super) fn call(&mut self, link: usize, epoch: u64) {
        let [caller, called] = self.links[link].ends;
        let from = &self.agents[caller];
        if !from.alive || from.epoch != epoch || from.members.contains_key(&called) {
            return;
        }
        if self.links[link].is_cut() || !self.agents[called].alive || from.scheduler.is_paused() {
            self.links[link].failures += 1;
            let wait = CALL + wait_after(self.links[link].failures, self.dice.share());
            self.call_after(link, wait);
            return;
        }
        self.links[link].failures = 0;
        let connection = self.number();
        let trips = self.links[link].rtt * 3;
        self.after(trips, Event::Joined { link, connection, end: 1 });
        self.after(trips + self.links[link].rtt, Event::Joined { link, connection, end: 0 });
        // Should the answer never come, or the called one die at once.
        self.call_after(link, CALL + CALL);
    }

    /// One end has the connection. Both tell then what they are.
    pub(super) fn joined(&mut self, link: usize, connection: u64, end: usize) {
        let who = self.links[link].ends[end];
        let peer = self.links[link].other(who);
        // The called one has it first; the caller hears of it only if the other still has it.
        let there = end == 1 || self.agents[peer].members.get(&who) == Some(&(link, connection));
        if !self.agents[who].alive || !there || self.links[link].is_cut() {
            let other = self.links[link].ends[0];
            if end == 0 && self.agents[other].alive {
                self.call_after(link, CALL);
            }
            if end == 0 && there {
                // What the called one has is of no use to it.
                let wait = IDLE;
                self.after(wait, Event::Silent { link, connection, end: 1 });
            }
            return;
        }
        let now = self.now;
        let returning = self.agents[who].members.insert(peer, (link, connection)).is_some() || now > super::CHAOS / 10;
        if self.mutant == Some(super::Mutant::ReturningPeersAreNotAsked) && returning {
            self.agents[who].scheduler.joined(peer, now);
            self.agents[who].scheduler.begin(crate::scheduler::Job::Pull(peer));
            self.agents[who].scheduler.ended(crate::scheduler::Job::Pull(peer), crate::scheduler::Ended::Well, now, 0.0);
        } else {
            self.agents[who].scheduler.joined(peer, now);
        }
        self.wake(who);
        if end == 1 {
            // Were the caller gone meanwhile, this end would have to notice.
            let wait = IDLE + self.links[link].rtt;
            self.after(wait, Event::Silent { link, connection, end: 1 });
        }
    }
}
