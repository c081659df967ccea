//! All decisions of several agents at once, under a clock of its own: the scheduler of each, the real conversations of their pulls, and
//! between them a network that delays, cuts one way or both, and loses connections; agents that die and come back, watches that
//! miss changes, steps that fail. What really happened knows the oracle of `fixtures::sim`, which checks its laws after every event.
//!
//! A history first lives through all that (safety). Then users and faults stop, but for one fault that may last for ever: all that can
//! reach each other must come to the same tree in bounded time, and then to rest (liveness). Last, the missing one returns.

mod network;

use crate::quality::SAMPLE;
use crate::scheduler::{Ended, Job, Moment, Next, Scheduler};
use fixtures::sim::{Lab, Progress, Pulling, Violation};
use network::Link;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// How often everything is looked at.
const EVERY: Duration = Duration::from_secs(600);
/// A path that was noticed is quiet after so long.
const QUIET: Duration = Duration::from_millis(200);
/// How long users and faults go on.
const CHAOS: Duration = Duration::from_secs(300);
/// Changes of each user in the end.
const BURST: usize = 5;
/// In so long after the last fault all have come to the same tree: once around the schedule, the longest wait of whoever
/// failed, and some time to work.
const SETTLED: Duration = Duration::from_secs(600 + 120 + 180);
/// Nobody pulls in such a time any more.
const REST: Duration = Duration::from_secs(1_300);
/// An agent that makes no use of its time is stuck.
const EVENTS: u64 = 3_000_000;

/// How the glue around the scheduler may be broken, so that it is known that this would be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    /// News that come during a pull are taken for part of it.
    NewsDuringPullsAreLost,
    /// A pull that was stopped, or left paths open, counts as done.
    UnfinishedPullsAreDone,
    /// A peer that comes back is asked only when it has something new.
    ReturningPeersAreNotAsked,
    /// What no event told is never found.
    NobodyLooksAtEverything,
    /// What was pulled is not told to others.
    NewsEndHere,
}

const MUTANTS: [Mutant; 5] = [
    Mutant::NewsDuringPullsAreLost,
    Mutant::UnfinishedPullsAreDone,
    Mutant::ReturningPeersAreNotAsked,
    Mutant::NobodyLooksAtEverything,
    Mutant::NewsEndHere,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// An agent looks what there is to do.
    Wake { who: usize },
    /// The job goes on, or ends.
    Work { who: usize, token: u64 },
    /// A user changes something.
    Edit { who: usize },
    /// News arrive.
    News { link: usize, connection: u64, to: usize },
    /// The one that calls does.
    Call { link: usize, epoch: u64 },
    /// The other side of a call has answered.
    Joined { link: usize, connection: u64, end: usize },
    /// One end has heard nothing for too long.
    Silent { link: usize, connection: u64, end: usize },
    /// Paths are measured.
    Measure,
    /// Something breaks.
    Fault,
    /// A link is whole again.
    Heal { link: usize },
    /// An agent begins anew.
    Start { who: usize },
    /// Somebody lets an agent go on.
    Resume { who: usize },
}

struct Running {
    job: Job<usize>,
    token: u64,
    began: Moment,
    pulling: Option<Pulling>,
    /// Number of the connection that it is pulled over.
    connection: u64,
    edits: u32,
}

struct Agent {
    alive: bool,
    /// So that what was to happen to one that died does not happen to the next.
    epoch: u64,
    scheduler: Scheduler<usize>,
    running: Option<Running>,
    /// Connections by peer: the link and its number.
    members: BTreeMap<usize, (usize, u64)>,
    /// Changes that the watch told of.
    noticed: u32,
    /// Changes that it missed.
    missed: u32,
    told: u64,
}

struct World {
    lab: Lab,
    dice: Dice,
    now: Moment,
    queue: BinaryHeap<Reverse<(Moment, u64, Event)>>,
    numbers: u64,
    agents: Vec<Agent>,
    links: Vec<Link>,
    mutant: Option<Mutant>,
    chaos: bool,
    pulls: u64,
    pulled: u64,
    events: u64,
}

/// Xorshift: the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn pick(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).unwrap()
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn share(&mut self) -> f64 {
        self.below(1 << 20) as f64 / f64::from(1 << 20)
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// What a history showed.
#[derive(Debug, Default, Clone, Copy)]
struct Told {
    pulls: u64,
    pulled: u64,
    paths: usize,
}

fn history(seed: u64, mutant: Option<Mutant>) -> Result<Told, Violation> {
    let mut world = World::new(seed, mutant);
    world.after(Duration::ZERO, Event::Measure);
    world.after(Duration::from_secs(1), Event::Fault);
    for who in 0..world.agents.len() {
        world.after(Duration::ZERO, Event::Start { who });
        world.after(Duration::from_millis(10), Event::Edit { who });
    }
    world.until(CHAOS)?;
    world.chaos = false;
    // The last changes come close together, and steps go on to fail until everything was looked at once more.
    for _ in 0..BURST {
        for who in 0..world.agents.len() {
            let wait = world.dice.ms(0, 3_000);
            world.after(wait, Event::Edit { who });
        }
    }
    world.until(CHAOS + EVERY)?;
    world.lab.heal();
    let frozen = world.freeze();
    let alive: Vec<usize> = (0..world.agents.len()).filter(|who| frozen != Some(Frozen::Agent(*who))).collect();
    world.come_to_rest(&alive, seed)?;
    if frozen.is_some() {
        world.thaw();
        let all: Vec<usize> = (0..world.agents.len()).collect();
        world.come_to_rest(&all, seed)?;
    }
    let told = Told { pulls: world.pulls, pulled: world.pulled, paths: world.lab.paths(0) };
    world.lab.finish()?;
    Ok(told)
}

/// The one fault that lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frozen {
    Agent(usize),
    Link(usize),
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>) -> World {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // The first numbers of neighbouring seeds are alike.
        for _ in 0..8 {
            dice.next();
        }
        let n = 3 + dice.pick(3);
        let mut pairs: Vec<(usize, usize)> = (1..n).map(|who| (dice.pick(who), who)).collect();
        for _ in 0..dice.pick(n) {
            let (a, b) = (dice.pick(n), dice.pick(n));
            let pair = (a.min(b), a.max(b));
            if a != b && !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        let failures = [0, 5, 30][dice.pick(3)];
        let links = pairs.iter().map(|(a, b)| if dice.chance(50) { Link::new(*a, *b) } else { Link::new(*b, *a) }).collect();
        let agent = || Agent {
            alive: false,
            epoch: 0,
            scheduler: Scheduler::new(Duration::ZERO, EVERY),
            running: None,
            members: BTreeMap::new(),
            noticed: 0,
            missed: 0,
            told: 0,
        };
        World {
            lab: Lab::new(seed, n, &pairs, failures),
            dice,
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            numbers: 0,
            agents: (0..n).map(|_| agent()).collect(),
            links,
            mutant,
            chaos: true,
            pulls: 0,
            pulled: 0,
            events: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn after(&mut self, wait: Duration, event: Event) {
        let number = self.number();
        self.queue.push(Reverse((self.now + wait, number, event)));
    }

    fn until(&mut self, end: Moment) -> Result<(), Violation> {
        while let Some(Reverse((at, _, event))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            self.events += 1;
            if self.events > EVENTS {
                return Err(Violation(format!("at {at:?} still busy after {EVENTS} events")));
            }
            self.happens(event).map_err(|violation| Violation(format!("at {at:?}, {event:?}: {violation}")))?;
        }
        self.now = end;
        Ok(())
    }

    /// Those who can reach each other have the same tree in time, and then nobody pulls any more.
    fn come_to_rest(&mut self, among: &[usize], seed: u64) -> Result<(), Violation> {
        let end = self.now + SETTLED;
        self.until(end)?;
        if !self.lab.is_same(among) {
            return Err(Violation(format!("seed {seed}: {among:?} differ {SETTLED:?} after the last fault")));
        }
        if let Some(who) = among.iter().find(|who| self.agents[**who].missed + self.agents[**who].noticed > 0) {
            return Err(Violation(format!("seed {seed}: {who} never found what its users changed")));
        }
        let before = self.pulls;
        self.until(end + REST)?;
        if self.pulls != before {
            return Err(Violation(format!("seed {seed}: {} pulls although nothing changes", self.pulls - before)));
        }
        Ok(())
    }

    /// All faults end, but for one that may stay; the others can reach each other without it.
    fn freeze(&mut self) -> Option<Frozen> {
        let (agents, links) = (self.agents.len(), self.links.len());
        let frozen = match self.dice.below(3) {
            0 => None,
            1 => Some(Frozen::Agent(self.dice.pick(agents))),
            _ => Some(Frozen::Link(self.dice.pick(links))),
        };
        let frozen = frozen.filter(|frozen| network::is_connected(agents, &self.links, *frozen));
        self.thaw();
        match frozen {
            Some(Frozen::Agent(who)) => self.dies(who),
            Some(Frozen::Link(link)) => self.cut(link, [true, true]),
            None => {}
        }
        frozen
    }

    fn thaw(&mut self) {
        for link in 0..self.links.len() {
            self.heal(link);
        }
        for who in 0..self.agents.len() {
            if !self.agents[who].alive {
                self.start(who);
            }
            self.agents[who].scheduler.pause(false);
            self.wake(who);
        }
    }

    fn happens(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Wake { who } => self.look_what_is_next(who),
            Event::Work { who, token } => self.work(who, token)?,
            Event::Edit { who } => self.edited(who),
            Event::News { link, connection, to } => self.news(link, connection, to),
            Event::Call { link, epoch } => self.call(link, epoch),
            Event::Joined { link, connection, end } => self.joined(link, connection, end),
            Event::Silent { link, connection, end } => self.ended(link, connection, end),
            Event::Measure => self.measure(),
            Event::Fault => self.fault(),
            Event::Heal { link } => self.heal(link),
            Event::Start { who } => self.start(who),
            Event::Resume { who } => {
                self.agents[who].scheduler.pause(false);
                self.wake(who);
            }
        }
        Ok(())
    }

    fn wake(&mut self, who: usize) {
        self.after(Duration::ZERO, Event::Wake { who });
    }

    fn edited(&mut self, who: usize) {
        if self.chaos {
            let wait = self.dice.ms(1, 8_000);
            self.after(wait, Event::Edit { who });
        }
        // Changes of one that is not running are found by its first look.
        if !self.agents[who].alive || self.dice.chance(10) {
            self.agents[who].missed += 1;
            return;
        }
        let ready = self.now + QUIET;
        let agent = &mut self.agents[who];
        agent.noticed += 1;
        agent.scheduler.ready_at(Some(ready));
        self.wake(who);
    }

    fn look_what_is_next(&mut self, who: usize) {
        if !self.agents[who].alive || self.agents[who].running.is_some() {
            return;
        }
        match self.agents[who].scheduler.next(self.now) {
            Next::Never => {}
            Next::At(at) => self.after(at.saturating_sub(self.now), Event::Wake { who }),
            Next::Now(job) => self.begin(who, job),
        }
    }

    fn begin(&mut self, who: usize, job: Job<usize>) {
        let token = self.number();
        let mut running = Running { job, token, began: self.now, pulling: None, connection: 0, edits: 0 };
        self.agents[who].scheduler.begin(job);
        let wait = match job {
            Job::Look | Job::LookAtAll => {
                let all = job == Job::LookAtAll;
                let agent = &mut self.agents[who];
                running.edits = std::mem::take(&mut agent.noticed);
                if all && self.mutant != Some(Mutant::NobodyLooksAtEverything) {
                    running.edits += std::mem::take(&mut agent.missed);
                }
                agent.scheduler.ready_at(None);
                if all { self.dice.ms(50, 5_000) } else { self.dice.ms(1, 60) }
            }
            Job::Pull(peer) => {
                let member = self.agents[who].members.get(&peer).copied();
                if let Some((link, connection)) = member {
                    running.connection = connection;
                    if !self.lab.covers(peer, who) {
                        running.pulling = Some(self.lab.pull(peer, who));
                        self.pulls += 1;
                    }
                    self.links[link].rtt
                } else {
                    Duration::ZERO
                }
            }
            Job::Tidy => Duration::from_millis(1),
        };
        self.agents[who].running = Some(running);
        self.after(wait, Event::Work { who, token });
    }

    fn work(&mut self, who: usize, token: u64) -> Result<(), Violation> {
        let Some(mut running) = self.agents[who].running.take_if(|running| running.token == token) else { return Ok(()) };
        let how = match running.job {
            Job::Pull(peer) => match self.pull_on(who, peer, &mut running)? {
                Some(how) => how,
                None => {
                    self.agents[who].running = Some(running);
                    return Ok(());
                }
            },
            _ => {
                for _ in 0..running.edits {
                    self.lab.edit(who)?;
                }
                Ended::Well
            }
        };
        let how = match how {
            Ended::InPart | Ended::Stopped { .. } if self.mutant == Some(Mutant::UnfinishedPullsAreDone) => Ended::Well,
            how => how,
        };
        let (now, jitter) = (self.now, self.dice.share());
        self.agents[who].scheduler.ended(running.job, how, now, jitter);
        if self.mutant == Some(Mutant::NewsEndHere) && matches!(running.job, Job::Pull(_)) {
            self.agents[who].told = self.lab.seq(who);
        }
        self.tell(who);
        self.wake(who);
        Ok(())
    }

    /// Some moves of a pull; `None`: it goes on.
    fn pull_on(&mut self, who: usize, peer: usize, running: &mut Running) -> Result<Option<Ended>, Violation> {
        let member = self.agents[who].members.get(&peer).copied();
        let Some((link, _)) = member.filter(|(_, connection)| *connection == running.connection) else {
            return Ok(Some(Ended::Badly));
        };
        let Some(pulling) = &mut running.pulling else { return Ok(Some(Ended::Well)) };
        let reachable = !self.links[link].is_cut() && self.agents[peer].alive;
        if reachable {
            let moves = 1 + self.dice.pick(3);
            if let Progress::Ended { whole } = self.lab.advance(pulling, moves)? {
                self.pulled += 1;
                return Ok(Some(if whole { Ended::Well } else { Ended::InPart }));
            }
        }
        let scheduler = &self.agents[who].scheduler;
        let held_up = self.now.saturating_sub(running.began) > scheduler.slice(running.job);
        if scheduler.is_paused() || held_up && scheduler.others_wait(running.job, self.now) {
            return Ok(Some(Ended::Stopped { further: false }));
        }
        let wait = self.links[link].trip(&mut self.dice);
        self.after(wait, Event::Work { who, token: running.token });
        Ok(None)
    }

    /// All connected peers hear of what is new.
    fn tell(&mut self, who: usize) {
        let seq = self.lab.seq(who);
        if std::mem::replace(&mut self.agents[who].told, seq) == seq {
            return;
        }
        let members: Vec<(usize, (usize, u64))> =
            self.agents[who].members.iter().map(|(peer, member)| (*peer, *member)).collect();
        for (to, (link, connection)) in members {
            let wait = self.links[link].trip(&mut self.dice);
            self.after(wait, Event::News { link, connection, to });
        }
    }

    fn news(&mut self, link: usize, connection: u64, to: usize) {
        let from = self.links[link].other(to);
        let stands = |who: usize, peer: usize| self.agents[who].members.get(&peer) == Some(&(link, connection));
        if !stands(to, from) {
            return;
        }
        if self.links[link].is_cut() {
            // It is sent again, for as long as the connection lives.
            let wait = self.dice.ms(200, 2_000);
            self.after(wait, Event::News { link, connection, to });
            return;
        }
        let pulling = self.agents[to].running.as_ref().is_some_and(|running| running.job == Job::Pull(from));
        if !(pulling && self.mutant == Some(Mutant::NewsDuringPullsAreLost)) {
            let now = self.now;
            self.agents[to].scheduler.heard(from, now);
        }
        self.wake(to);
    }

    fn measure(&mut self) {
        let now = self.now;
        for who in 0..self.agents.len() {
            let costs: Vec<(usize, f64)> =
                self.agents[who].members.iter().map(|(peer, (link, _))| (*peer, self.links[*link].cost())).collect();
            self.agents[who].scheduler.measured(costs, now);
        }
        self.after(SAMPLE, Event::Measure);
    }
}

fn seeds(standard: u64) -> std::ops::Range<u64> {
    #[allow(clippy::disallowed_methods, reason = "how long to go on is asked of whoever starts the tests")]
    let asked = std::env::var("DRIFTLESS_AGENT_SEEDS").ok();
    match asked.as_deref().and_then(|text| text.split_once("..")) {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => 0..asked.map_or(standard, |text| text.parse().unwrap()),
    }
}

#[test]
fn agents_agree_whatever_breaks_and_then_rest() {
    let mut all = Told::default();
    let range = seeds(100);
    for seed in range.clone() {
        match history(seed, None) {
            Ok(told) => {
                all.pulls += told.pulls;
                all.pulled += told.pulled;
                all.paths += told.paths;
            }
            Err(violation) => panic!("seed {seed}: {violation}; again with DRIFTLESS_AGENT_SEEDS={seed}..{}", seed + 1),
        }
    }
    // It would show nothing if nothing were pulled, or nothing cut off.
    let count = range.end - range.start;
    assert!(all.pulled > 5 * count && all.pulls > all.pulled && all.paths as u64 > count, "{all:?}");
}

#[test]
#[allow(clippy::print_stdout, reason = "how soon each is noticed is asked for with --nocapture")]
fn every_broken_glue_is_noticed() {
    for mutant in MUTANTS {
        let noticed = (0..200).find(|seed| history(*seed, Some(mutant)).is_err());
        let seed = noticed.unwrap_or_else(|| panic!("{mutant:?} goes unnoticed"));
        println!("{mutant:?} is noticed with seed {seed}");
    }
}
