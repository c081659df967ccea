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
    probed: Option<(Moment, Vec<Address>)>,
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
    pub(crate) fn probed(
        &self,
        peer: Id,
        addresses: Vec<Address>,
        reach: Reach,
        (when, now): (status::Moment, Moment),
        jitter: f64,
    ) {
        let again = now + PROBE.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0);
        self.lock().insert(peer, Tried { reach, when, probed: Some((now, addresses)), again });
    }

    /// Is a peer with these addresses to be tried now?
    pub(crate) fn is_due(&self, peer: Id, addresses: &[Address], now: Moment) -> bool {
        let all = self.lock();
        let Some(tried) = all.get(&peer) else { return true };
        let soon = tried.probed.as_ref().is_none_or(|(at, _)| now.saturating_sub(*at) >= PROBE_LEAST);
        // What was tried was something else.
        let other = tried.probed.as_ref().is_none_or(|(_, tried)| tried != addresses);
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
    fn a_peer_is_tried_at_once_then_now_and_then_and_soon_where_it_has_other_addresses() {
        let reached = Reached::default();
        let (peer, at) = (Id::from_bytes([1; 20]), Duration::from_secs);
        let addresses = |port: u16| vec![format!("a:{port}").parse().unwrap()];
        let fails = Reach::Fails { why: "no".into() };
        assert!(reached.is_due(peer, &addresses(1), at(0)));
        reached.probed(peer, addresses(1), fails.clone(), (status::Moment(1), at(0)), 0.5);
        assert!(!reached.is_due(peer, &addresses(1), at(599)) && reached.is_due(peer, &addresses(1), at(600)));
        assert!(!reached.is_due(peer, &addresses(2), at(9)) && reached.is_due(peer, &addresses(2), at(10)));
        reached.again(at(3));
        assert!(reached.is_due(peer, &addresses(1), at(3)));
        for (jitter, first) in [(0.0, 450), (1.0, 750)] {
            reached.probed(peer, addresses(1), fails.clone(), (status::Moment(2), at(0)), jitter);
            assert!(!reached.is_due(peer, &addresses(1), at(first - 1)) && reached.is_due(peer, &addresses(1), at(first)));
        }
        reached.keep(|_| false);
        assert_eq!(reached.of(peer), None);
    }
}
