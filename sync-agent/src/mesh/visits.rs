//! Who is let in at a time, so that nobody takes the places of others. Pure.

use std::collections::BTreeMap;
use sync_core::peer::Id;

/// Runs and joinings at a time; who comes then is told that all are taken.
const VISITORS: usize = 64;
/// Places of those that only those have who share a folder of this agent.
const RESERVED: usize = 16;
/// Places of one machine, beside one for each folder that it shares: joining them all at once is no misuse.
const EACH: usize = 8;
/// Places of all together to whom nothing is granted, and of one of them: as many as it takes to be told so.
const STRANGERS: usize = 4;
const STRANGER: usize = 1;

/// What a visitor may do here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It is known, and nothing is granted to it.
    Stranger,
    /// It may run with a folder.
    Guest,
    /// It is named by so many folders.
    Member(usize),
}

/// Who is here.
#[derive(Debug, Default)]
pub(super) struct Visits {
    /// For each machine, how many visits of it, and as what it came first.
    here: BTreeMap<Id, (usize, Standing)>,
}

impl Visits {
    /// Lets somebody in, if there is room for one like that.
    pub(super) fn enter(&mut self, id: Id, standing: Standing) -> bool {
        let own = self.here.get(&id).map_or(0, |(count, _)| *count);
        let of = |fits: fn(Standing) -> bool| -> usize {
            self.here.values().filter(|(_, standing)| fits(*standing)).map(|(count, _)| count).sum()
        };
        let all = of(|_| true);
        let room = match standing {
            Standing::Stranger => own < STRANGER && of(|one| one == Standing::Stranger) < STRANGERS && all < VISITORS - RESERVED,
            Standing::Guest => {
                own < EACH && of(|one| !matches!(one, Standing::Member(_))) < VISITORS - RESERVED && all < VISITORS
            }
            Standing::Member(folders) => own < EACH.saturating_add(folders) && all < VISITORS,
        };
        if room {
            self.here.entry(id).or_insert((0, standing)).0 += 1;
        }
        room
    }

    /// Somebody goes.
    pub(super) fn leave(&mut self, id: Id) {
        if let Some((count, _)) = self.here.get_mut(&id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.here.remove(&id);
            }
        }
    }

    /// Is nobody here?
    pub(super) fn is_empty(&self) -> bool {
        self.here.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_core::peer::PublicKey;

    fn id(number: u8) -> Id {
        PublicKey::from_bytes([number; 32]).id()
    }

    /// How many of the attempts of these machines succeed.
    fn come(visits: &mut Visits, who: impl IntoIterator<Item = u8>, standing: Standing, attempts: usize) -> usize {
        who.into_iter().map(|number| (0..attempts).filter(|_| visits.enter(id(number), standing)).count()).sum()
    }

    #[test]
    fn nobody_takes_the_places_of_others() {
        let mut visits = Visits::default();
        assert_eq!(come(&mut visits, [1], Standing::Guest, 100), EACH);
        assert_eq!(come(&mut visits, [2], Standing::Member(3), 100), EACH + 3);
        for _ in 0..EACH + 3 {
            visits.leave(id(2));
        }
        assert_eq!(come(&mut visits, 100..200, Standing::Stranger, 100), STRANGERS);
        assert_eq!(come(&mut visits, 10..90, Standing::Guest, 100), VISITORS - RESERVED - STRANGERS - EACH);
        // Whoever shares a folder finds room all the same.
        assert_eq!(come(&mut visits, [2, 3], Standing::Member(1), 100), RESERVED);
        assert_eq!(come(&mut visits, [4], Standing::Member(1), 100), 0);
    }

    #[test]
    fn who_has_left_comes_again() {
        let mut visits = Visits::default();
        for _ in 0..3 * VISITORS {
            assert!(visits.enter(id(1), Standing::Stranger) && !visits.is_empty());
            visits.leave(id(1));
            assert!(visits.is_empty());
        }
        visits.leave(id(9));
        assert!(visits.is_empty());
    }
}
