//! Days that are old when they come go into the cold root at once: what is decided of each directory that a pull makes.

use super::run::Clock;
use super::{Entry, Look, Moment, Order, Period, Rule, by_name, check_clock};
use crate::config::Timezone;
use chrono_tz::Tz;
use sync_core::io::archive::Linking;
use sync_core::io::fs::{Choice, Choose};
use sync_core::path::RelPath;

/// Decides by a rule.
pub struct Chooser {
    rule: Rule,
    zone: Timezone,
    linking: Linking,
    clock: Clock,
    /// A clock that jumped since is not believed.
    since: Moment,
    /// By which placements are known.
    name: String,
}

impl Chooser {
    /// By this order, for the days of the rule `name`; `since`: when the clock was believed last.
    #[must_use]
    pub fn new(order: &Order, linking: Linking, (clock, since): (Clock, Moment), name: String) -> Chooser {
        Chooser { rule: order.rule.clone(), zone: order.zone.clone(), linking, clock, since, name }
    }

    fn is_old(&self, path: &RelPath, period: Period) -> bool {
        let now = self.clock.time();
        // Whoever brings it has it; more than that one is not known of. It is moved later by whoever counts them.
        if self.rule.min_peers > 1 || check_clock(&now.moment, Some(&self.since), None).is_err() {
            return false;
        }
        let entry = Entry { path: path.clone(), period, archived: false, seen: None };
        match &self.zone {
            Timezone::Local => by_name(&entry, &self.rule, &chrono::Local, now.moment.now_ns).is_none(),
            Timezone::Named(name) => {
                name.parse::<Tz>().is_ok_and(|zone| by_name(&entry, &self.rule, &zone, now.moment.now_ns).is_none())
            }
        }
    }
}

impl Choose for Chooser {
    fn choose(&self, path: &RelPath) -> Option<Choice> {
        match self.rule.look(path) {
            Look::Day(period) if self.is_old(path, period) => Some(self.linking.choice(path, &self.name)),
            _ => None,
        }
    }
}
