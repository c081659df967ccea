//! What one folder does next: scans, pulls, tidying up. Pure: events and the present time in, the next job or the next deadline out.
//!
//! Local changes come first, since they are small, new, and what others wait for. Then pulls: whoever has the best path first; where
//! local changes never end, the two take turns. A
//! peer whose path is clearly worse than another's is not asked at once for what the better one will have in a moment. Whatever
//! failed is tried again later and later, and never given up; where only single paths failed, what is new does not wait for them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

/// Time since the agent began.
pub(crate) type Moment = Duration;

/// How long news of a peer with a bad path wait for somebody better to have them too.
pub(crate) const HOLD: Duration = Duration::from_secs(1);
/// A path is clearly better if it costs less than this share of another one.
pub(crate) const BETTER: f64 = 0.8;
/// A path must have been better for so long before it is preferred.
pub(crate) const STEADY: Duration = Duration::from_secs(30);
/// The first wait after a failure; it doubles with every further one.
pub(crate) const RETRY: Duration = Duration::from_millis(500);
/// The longest.
pub(crate) const RETRY_MOST: Duration = Duration::from_secs(60);
/// How often what is of no use any more goes.
pub(crate) const TIDY: Duration = Duration::from_secs(60);
/// Looking at everything, and tidying up, come before all else once they have waited for so long.
pub(crate) const OVERDUE: Duration = Duration::from_secs(180);
/// How long a job may hold others up. Large transfers go on where they were stopped.
pub(crate) const SLICE: Duration = Duration::from_secs(2);
/// Whoever is stopped again and again gets more time, up to this: one file whose hash takes long must come to its end.
pub(crate) const SLICE_MOST: Duration = Duration::from_secs(4 * 3600);

/// Doublings for who gets on: often enough that finding out what to bring takes the smaller part of the time, and not so often that others
/// wait for long.
const SLICES_FURTHER: u32 = 4;

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job<P> {
    /// Look at what was noticed to change.
    Look,
    /// Look at everything.
    LookAtAll,
    /// Pull from a peer.
    Pull(P),
    /// Drop what is of no use any more.
    Tidy,
}

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next<P> {
    /// This, now.
    Now(Job<P>),
    /// Nothing before that moment, unless something happens.
    At(Moment),
    /// Nothing, unless something happens.
    Never,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All of it was done.
    Well,
    /// Single paths failed: they are tried again later.
    InPart,
    /// All was done but for what has to be read first, which goes on beside: whoever has read it says so by [`Scheduler::heard`].
    Unread,
    /// It was stopped so that others get their turn.
    Stopped {
        /// Did anything come to its end before? Then it is no large file that needs more time.
        further: bool,
    },
    /// It made room for a user who waits, and goes on afterwards: it did not take too long, and needs no more time than before.
    MadeRoom,
    /// It has to wait for others that are under way elsewhere: [`Scheduler::freed`] says when it is tried again.
    Waits,
    /// It failed.
    Badly,
}

/// The jobs of one folder.
#[derive(Debug, Clone)]
pub(crate) struct Scheduler<P> {
    every: Duration,
    paused: bool,
    /// When something that was noticed is quiet enough to be looked at.
    ready: Option<Moment>,
    all: Again,
    /// Everything was asked to be looked at while that was under way: what it had passed may have changed since.
    all_more: bool,
    /// Local changes were looked at last: a pull that waits is next, however many there are.
    just_looked: bool,
    /// Was everything looked at since the root was opened? Before, nobody knows what pulls would meet here.
    looked: bool,
    tidy: Moment,
    peers: BTreeMap<P, Peer>,
    preferred: Preferred<P>,
}

/// Something that is due at some moment, later after failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Again {
    at: Moment,
    failures: u32,
}

#[derive(Debug, Clone, Copy)]
struct Peer {
    /// Since when it has had news that were not pulled.
    news: Option<Moment>,
    /// News came while they were pulled.
    more: bool,
    /// Since when there have been news that no pull has asked for yet.
    fresh: Option<Moment>,
    /// Of the last pull only single paths failed, at that moment: they wait, and news do not.
    in_part: Option<Moment>,
    again: Again,
    /// What its path costs; `None`: nothing is known of it yet.
    cost: Option<f64>,
    slices: u32,
    /// It waits for exchanges of other folders.
    waits: bool,
}

/// Whose path is the best, with hysteresis.
#[derive(Debug, Clone, Copy)]
struct Preferred<P> {
    peer: Option<P>,
    /// Who has been clearly better, and since when.
    rival: Option<(P, Moment)>,
}

/// A wait that doubles with every failure; `jitter` (0 to 1) takes away up to a half of it, so that many do not come at once.
#[must_use]
pub(crate) fn wait_after(failures: u32, jitter: f64) -> Duration {
    let longest = RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY_MOST);
    longest.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

impl<P: Copy + Ord> Scheduler<P> {
    /// A folder that was just opened: all of it is looked at first, and then once in `every`.
    #[must_use]
    pub(crate) fn new(now: Moment, every: Duration) -> Scheduler<P> {
        Scheduler {
            every,
            paused: false,
            ready: None,
            all: Again { at: now, failures: 0 },
            all_more: false,
            just_looked: false,
            looked: false,
            tidy: now + TIDY,
            peers: BTreeMap::new(),
            preferred: Preferred { peer: None, rival: None },
        }
    }

    /// Does nothing until it is told to go on.
    pub(crate) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Is it told to do nothing?
    #[must_use]
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// How often everything is looked at.
    pub(crate) fn set_every(&mut self, every: Duration, now: Moment) {
        self.every = every;
        if self.all.failures == 0 {
            self.all.at = self.all.at.min(now + every);
        }
    }

    /// When the next noticed change is ready; `None`: there is none.
    pub(crate) fn ready_at(&mut self, at: Option<Moment>) {
        self.ready = at;
    }

    /// The root was opened, and may be another than before.
    pub(crate) fn opened(&mut self, now: Moment) {
        self.looked = false;
        self.look_at_all(now);
    }

    /// Everything is to be looked at, now.
    pub(crate) fn look_at_all(&mut self, now: Moment) {
        self.all = Again { at: now, failures: 0 };
        self.all_more = true;
    }

    /// Was everything looked at, and nothing asked for since?
    #[must_use]
    pub(crate) fn is_looked_at(&self, now: Moment) -> bool {
        self.all.at > now && self.all.failures == 0
    }

    /// A peer is connected. What it has that is not here, nobody knows yet.
    pub(crate) fn joined(&mut self, peer: P, now: Moment) {
        let again = Again { at: now, failures: 0 };
        self.peers.insert(
            peer,
            Peer { news: Some(now), more: false, fresh: None, in_part: None, again, cost: None, slices: 0, waits: false },
        );
    }

    /// A peer is connected no more.
    pub(crate) fn left(&mut self, peer: P) {
        self.peers.remove(&peer);
        if self.preferred.peer == Some(peer) {
            self.preferred.peer = None;
        }
        if self.preferred.rival.is_some_and(|(rival, _)| rival == peer) {
            self.preferred.rival = None;
        }
    }

    /// A peer has news.
    pub(crate) fn heard(&mut self, peer: P, now: Moment) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.more = true;
            peer.news.get_or_insert(now);
            peer.fresh.get_or_insert(now);
        }
    }

    /// Ask a peer again now, whatever failed before.
    pub(crate) fn ask_again(&mut self, peer: P, now: Moment) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.again = Again { at: now, failures: 0 };
            peer.news = Some(now);
        }
    }

    /// A pull from this peer has to wait until [`Scheduler::freed`], unless it turns out that it need not.
    pub(crate) fn waits(&mut self, peer: P, waits: bool) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.waits = waits;
        }
    }

    /// What was waited for may be there.
    pub(crate) fn freed(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.waits = false);
    }

    /// What the paths to the peers cost now.
    pub(crate) fn measured(&mut self, costs: impl IntoIterator<Item = (P, f64)>, now: Moment) {
        for (peer, cost) in costs {
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.cost = Some(cost);
            }
        }
        self.prefer(now);
    }

    fn prefer(&mut self, now: Moment) {
        let best = self.peers.iter().filter_map(|(peer, state)| Some((*peer, state.cost?))).min_by(|a, b| a.1.total_cmp(&b.1));
        let Some((best, cost)) = best else { return };
        let current = self.preferred.peer.and_then(|peer| self.peers.get(&peer)?.cost);
        match current {
            None => self.preferred = Preferred { peer: Some(best), rival: None },
            Some(current) if cost < BETTER * current => match self.preferred.rival {
                Some((rival, since)) if rival == best => {
                    if now.saturating_sub(since) >= STEADY {
                        self.preferred = Preferred { peer: Some(best), rival: None };
                    }
                }
                _ => self.preferred.rival = Some((best, now)),
            },
            Some(_) => self.preferred.rival = None,
        }
    }

    /// Whose path is the best.
    #[cfg(test)]
    fn preferred(&self) -> Option<P> {
        self.preferred.peer
    }

    /// How long news of this peer wait for a better one to have them.
    fn hold(&self, peer: P, state: &Peer) -> Duration {
        let better = self.preferred.peer.filter(|preferred| *preferred != peer).and_then(|preferred| self.peers.get(&preferred));
        match (better.and_then(|better| better.cost), state.cost) {
            (Some(better), Some(own)) if better < BETTER * own => HOLD,
            _ => Duration::ZERO,
        }
    }

    /// When a peer is to be pulled from. Nothing is pulled before the folder was looked at once.
    fn due(&self, peer: P, state: &Peer) -> Option<Moment> {
        let news = state.news.filter(|_| self.looked && !state.waits)?;
        let due = (news + self.hold(peer, state)).max(state.again.at);
        let fresh = state.fresh.zip(state.in_part).map(|(fresh, failed)| (fresh + self.hold(peer, state)).max(failed + RETRY));
        Some(fresh.map_or(due, |fresh| fresh.min(due)))
    }

    /// Whose turn it is first: who has waited for long before everybody else, and the longest first; of the others the one with
    /// the best path.
    fn before(now: Moment, a: (Moment, f64), b: (Moment, f64)) -> Ordering {
        let long = |due: Moment| now.saturating_sub(due) > SLICE;
        match (long(a.0), long(b.0)) {
            (true, true) => a.0.cmp(&b.0),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => a.0.max(now).cmp(&b.0.max(now)).then(a.1.total_cmp(&b.1)),
        }
    }

    /// What to do.
    #[must_use]
    pub(crate) fn next(&self, now: Moment) -> Next<P> {
        if self.paused {
            return Next::Never;
        }
        let pulls = self.peers.iter().filter_map(|(peer, state)| {
            let cost = state.cost.unwrap_or(f64::MAX);
            Some((self.due(*peer, state)?, cost, *peer))
        });
        let first = pulls.min_by(|a, b| Self::before(now, (a.0, a.1), (b.0, b.1)));
        let pull = first.map(|(at, _, peer)| (at, Job::Pull(peer)));
        let overdue = |at: Moment| now.saturating_sub(at) >= OVERDUE;
        let candidates = [
            Some((self.tidy, Job::Tidy)).filter(|(at, _)| overdue(*at)),
            Some((self.all.at, Job::LookAtAll)).filter(|(at, _)| overdue(*at)),
            pull.filter(|_| self.just_looked),
            self.ready.map(|at| (at, Job::Look)),
            Some((self.all.at, Job::LookAtAll)),
            pull,
            Some((self.tidy, Job::Tidy)),
        ];
        let due = candidates.iter().flatten().find(|(at, _)| *at <= now);
        match due {
            Some((_, job)) => Next::Now(*job),
            None => candidates.iter().flatten().map(|(at, _)| *at).min().map_or(Next::Never, Next::At),
        }
    }

    /// Is anything else due while a job runs? Then it is to stop when its time is over.
    #[must_use]
    pub(crate) fn others_wait(&self, running: Job<P>, now: Moment) -> bool {
        let ready = self.ready.is_some_and(|at| at <= now) && running != Job::Look;
        let all = self.all.at <= now && running != Job::LookAtAll;
        let pulls = self
            .peers
            .iter()
            .any(|(peer, state)| running != Job::Pull(*peer) && self.due(*peer, state).is_some_and(|due| due <= now));
        !self.paused && (ready || all || pulls)
    }

    /// How long a job may hold others up.
    #[must_use]
    pub(crate) fn slice(&self, job: Job<P>) -> Duration {
        let slices = match job {
            Job::Pull(peer) => self.peers.get(&peer).map_or(0, |peer| peer.slices),
            _ => 0,
        };
        SLICE.saturating_mul(1 << slices.min(16)).min(SLICE_MOST)
    }

    /// A job begins. News that come, and looks that are asked for, from here on are not covered by it.
    pub(crate) fn begin(&mut self, job: Job<P>) {
        match job {
            Job::LookAtAll => self.all_more = false,
            Job::Pull(peer) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.more = false;
                    peer.fresh = None;
                }
            }
            Job::Look | Job::Tidy => {}
        }
    }

    /// A job has ended. `jitter`: a random number, 0 to 1.
    pub(crate) fn ended(&mut self, job: Job<P>, how: Ended, now: Moment, jitter: f64) {
        let again = |before: Again, well: Moment| match how {
            Ended::Well | Ended::Unread => Again { at: well, failures: 0 },
            Ended::Stopped { .. } | Ended::MadeRoom | Ended::Waits => Again { at: now, failures: before.failures },
            Ended::InPart | Ended::Badly => {
                let failures = before.failures.saturating_add(1);
                Again { at: now + wait_after(failures, jitter), failures }
            }
        };
        match job {
            Job::LookAtAll => {
                self.looked |= matches!(how, Ended::Well | Ended::InPart);
                self.all = match how {
                    Ended::Well | Ended::InPart if self.all_more => {
                        // A pull that waits is next, however often it is asked for.
                        self.just_looked = true;
                        Again { at: now, failures: 0 }
                    }
                    Ended::InPart => Again { at: now + self.every, failures: 0 },
                    _ => again(self.all, now + self.every),
                };
            }
            Job::Tidy => self.tidy = now + TIDY,
            Job::Look => self.just_looked = true,
            Job::Pull(peer) => {
                self.just_looked = false;
                let Some(peer) = self.peers.get_mut(&peer) else { return };
                peer.again = again(peer.again, now);
                peer.in_part = (how == Ended::InPart).then_some(now);
                peer.slices = match how {
                    Ended::Stopped { further: true } => peer.slices.saturating_add(1).min(SLICES_FURTHER),
                    Ended::Stopped { further: false } => peer.slices.saturating_add(1),
                    Ended::MadeRoom | Ended::Waits => peer.slices,
                    _ => 0,
                };
                peer.news = match how {
                    Ended::Well | Ended::Unread if !peer.more => None,
                    // It has its turn before those that came later.
                    Ended::Waits => peer.news.or(Some(now)),
                    _ => Some(now),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests;
