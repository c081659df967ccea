//! Can each peer be called from here? What was tried last, and when it is tried again. Pure, but for the lock.

use crate::scheduler::Moment;
use crate::status::{self, Reach};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use sync_core::peer::{Address, Id};

/// How often it is tried whether a peer can be called; a random quarter comes on top or is taken away.
pub(crate) const PROBE: Duration = Duration::from_secs(600);
/// A peer is not tried more often than this, whatever it says of its addresses.
pub(crate) const PROBE_LEAST: Duration = Duration::from_secs(10);

/// Where a peer may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) peer: Id,
    pub(crate) addresses: Vec<Address>,
    /// Is there a connection, so that it should answer?
    pub(crate) connected: bool,
}

/// What is known of all peers.
#[derive(Debug, Default)]
pub(crate) struct Reached(Mutex<BTreeMap<Id, Tried>>);

/// What became of the last attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tried {
    pub(crate) reach: Reach,
    /// When, for people.
    pub(crate) when: status::Moment,
    /// When, and where, by the agent's own clock; `None`: not by a probe.
    probed: Option<(Moment, Candidate)>,
    again: Moment,
}

impl Reached {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Id, Tried>> {
        // Each change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of the last attempt.
    pub(crate) fn of(&self, peer: Id) -> Option<Tried> {
        self.lock().get(&peer).cloned()
    }

    /// A call, for whatever it was made, came to this.
    pub(crate) fn called(&self, peer: Id, reach: Reach, when: status::Moment, now: Moment) {
        let mut all = self.lock();
        let probed = all.get(&peer).and_then(|tried| tried.probed.clone());
        all.insert(peer, Tried { reach, when, probed, again: now + PROBE });
    }

    /// A probe came to this. `jitter`: a random number, 0 to 1.
    pub(crate) fn probed(&self, candidate: Candidate, reach: Reach, (when, now): (status::Moment, Moment), jitter: f64) {
        let again = now + PROBE.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0);
        self.lock().insert(candidate.peer, Tried { reach, when, probed: Some((now, candidate)), again });
    }

    /// Is a peer to be tried now?
    pub(crate) fn is_due(&self, candidate: &Candidate, now: Moment) -> bool {
        let all = self.lock();
        let Some(tried) = all.get(&candidate.peer) else { return true };
        let soon = tried.probed.as_ref().is_none_or(|(at, _)| now.saturating_sub(*at) >= PROBE_LEAST);
        // It came or went since, or what was tried was somewhere else.
        let other = tried.probed.as_ref().is_none_or(|(_, tried)| tried != candidate);
        now >= tried.again || (soon && other)
    }

    /// All are tried again, now.
    pub(crate) fn again(&self, now: Moment) {
        self.lock().values_mut().for_each(|tried| tried.again = tried.again.min(now));
    }

    /// What was tried counts no more.
    pub(crate) fn forget(&self, peer: Id) {
        self.lock().remove(&peer);
    }

    /// Forgets whoever is no peer any more.
    pub(crate) fn keep(&self, is_peer: impl Fn(&Id) -> bool) {
        self.lock().retain(|peer, _| is_peer(peer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_tried_at_once_then_now_and_then_and_soon_where_it_came_went_or_has_other_addresses() {
        let reached = Reached::default();
        let (peer, at) = (Id::from_bytes([1; 20]), Duration::from_secs);
        let candidate = |port: u16, connected| {
            let addresses = vec![format!("a:{port}").parse().unwrap()];
            Candidate { peer, addresses, connected }
        };
        let (one, fails) = (candidate(1, true), Reach::Fails { why: "no".into() });
        assert!(reached.is_due(&one, at(0)));
        reached.probed(one.clone(), fails.clone(), (status::Moment(1), at(0)), 0.5);
        assert!(!reached.is_due(&one, at(599)) && reached.is_due(&one, at(600)));
        for other in [candidate(2, true), candidate(1, false)] {
            assert!(!reached.is_due(&other, at(9)) && reached.is_due(&other, at(10)));
        }
        reached.again(at(3));
        assert!(reached.is_due(&one, at(3)));
        for (jitter, first) in [(0.0, 450), (1.0, 750)] {
            reached.probed(one.clone(), fails.clone(), (status::Moment(2), at(0)), jitter);
            assert!(!reached.is_due(&one, at(first - 1)) && reached.is_due(&one, at(first)));
        }
        reached.keep(|_| false);
        assert_eq!(reached.of(peer), None);
    }
}
