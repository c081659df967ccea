//! What is known of all members of one folder, from what each of them says of itself and the others hand on. Pure: accounts and the
//! present time in, accounts for each peer out.
//!
//! An account is replaced by one with a higher number alone, so that it goes around any graph and comes to rest. What a machine says
//! over its own connection always counts, whatever others say in its name. News that are old are told no more; that there was such a
//! machine is known for longer, and its number, so that nothing old returns.

use crate::scheduler::Moment;
use std::collections::BTreeMap;
use std::time::Duration;
use sync_core::io::sync::{Account, MAX_AGE_S, Tie};
use sync_core::peer::Id;

/// How often accounts are exchanged, at the most.
pub(crate) const EVERY: Duration = Duration::from_secs(2);
/// Machines of one folder that are known by hearsay.
pub(crate) const MACHINES: usize = 255;
/// So often a machine says of itself that it is there.
const REFRESH: Duration = Duration::from_secs(60);
/// So often it tells how good its ways are, if nothing else is new.
const WAYS: Duration = Duration::from_secs(30);
/// News that are older are told no more.
pub(crate) const OLD: Duration = Duration::from_secs(600);
/// A machine of which nothing was heard for so long is forgotten.
const FORGET: Duration = Duration::from_secs(MAX_AGE_S);
/// Accounts for one peer at a time.
const AT_ONCE: usize = 64;
/// No clock is that far: whoever numbers beyond it wants nobody to come after.
const NUMBER_MOST: u64 = 1 << 48;
/// A machine follows a number that others tell in its name up to here: above, there is room for more numbers than it ever needs.
const OWN_MOST: u64 = NUMBER_MOST - (1 << 40);

/// The members of a folder.
#[derive(Debug)]
pub(crate) struct Table {
    own: Id,
    /// The highest number that is this machine's.
    number: u64,
    said: Option<(Account, Moment)>,
    others: BTreeMap<Id, Other>,
}

#[derive(Debug)]
struct Other {
    account: Account,
    /// Who told it: itself over its own connection, or somebody else.
    from: Id,
    heard: Moment,
    /// What others still hand on under a higher number: it has to know of it, to number beyond.
    echo: Option<Account>,
}

impl Other {
    fn age(&self, now: Moment) -> Duration {
        Duration::from_secs(self.account.age_s) + now.saturating_sub(self.heard)
    }

    fn is_direct(&self) -> bool {
        self.from == self.account.origin
    }
}

/// What a peer was told already: the number of each origin.
pub(crate) type Told = BTreeMap<Id, u64>;

impl Table {
    /// Knows nobody yet.
    #[must_use]
    pub(crate) fn new(own: Id) -> Table {
        Table { own, number: 0, said: None, others: BTreeMap::new() }
    }

    /// This machine's own account as it is now; `clock_ms` is any clock that goes on over restarts. Its number is given here.
    pub(crate) fn say(&mut self, account: Account, now: Moment, clock_ms: u64) {
        if let Some((said, at)) = &self.said {
            let since = now.saturating_sub(*at);
            let wait = if same(said, &account, false) {
                REFRESH
            } else if same(said, &account, true) {
                WAYS
            } else {
                Duration::ZERO
            };
            if since < wait {
                return;
            }
        }
        self.number = (self.number + 1).max(clock_ms).min(NUMBER_MOST);
        self.said = Some((Account { origin: self.own, number: self.number, age_s: 0, ..account }, now));
    }

    /// A peer hands on an account.
    pub(crate) fn hear(&mut self, from: Id, account: Account, now: Moment) {
        let origin = account.origin;
        if account.number > NUMBER_MOST || account.age_s >= OLD.as_secs() {
            return;
        }
        if origin == self.own {
            // An earlier start, with a clock that was ahead: the next account goes beyond it.
            let next = self.number..=OWN_MOST;
            if next.contains(&account.number) && self.said.as_ref().is_none_or(|(said, _)| *said != account) {
                self.number = account.number;
                self.said = None;
            }
            return;
        }
        match self.others.get_mut(&origin) {
            // What comes over its own connection comes in order.
            Some(known) if from == origin => {
                let echo = known.echo.take().filter(|echo| echo.number > account.number);
                *known = Other { account, from, heard: now, echo };
            }
            Some(known) if known.is_direct() => {
                if account.number > known.account.number {
                    known.echo = Some(account);
                }
            }
            Some(known) => {
                if account.number > known.account.number {
                    *known = Other { account, from, heard: now, echo: None };
                }
            }
            None => {
                if self.others.len() >= MACHINES && !self.make_room(from, now) {
                    return;
                }
                self.others.insert(origin, Other { account, from, heard: now, echo: None });
            }
        }
    }

    /// The oldest account goes of what the one told who told most; nobody's own goes for hearsay.
    fn make_room(&mut self, for_one_of: Id, now: Moment) -> bool {
        let mut told: BTreeMap<Id, usize> = BTreeMap::new();
        self.others.values().filter(|other| !other.is_direct()).for_each(|other| *told.entry(other.from).or_default() += 1);
        let Some((most, count)) = told.iter().map(|(from, count)| (*from, *count)).max_by_key(|(_, count)| *count) else {
            return false;
        };
        // Whoever told most makes room for others, and for itself only among its own.
        let from = if told.get(&for_one_of).is_some_and(|own| *own >= count) { for_one_of } else { most };
        let of_it = self.others.iter().filter(|(_, other)| other.from == from && !other.is_direct());
        let oldest = of_it.max_by_key(|(_, other)| other.age(now)).map(|(origin, _)| *origin);
        oldest.is_some_and(|origin| self.others.remove(&origin).is_some())
    }

    /// A peer is connected no more: what others say of it counts again, if it is newer.
    pub(crate) fn left(&mut self, peer: Id) {
        let own = self.own;
        if let Some(other) = self.others.get_mut(&peer) {
            other.from = own;
            other.echo = None;
        }
    }

    /// What a peer does not know yet. Whoever tells it says so with [`Table::told`].
    pub(crate) fn news_for(&self, peer: Id, told: &Told, now: Moment) -> Vec<Account> {
        let own = self.said.iter().map(|(account, at)| (account, now.saturating_sub(*at)));
        let others = self.others.iter().filter(|(origin, _)| **origin != peer);
        let others = others.map(|(_, other)| (&other.account, other.age(now)));
        let echo = self.others.get(&peer).and_then(|other| Some((other.echo.as_ref()?, Duration::ZERO)));
        let all = own.chain(others).chain(echo).filter(|(_, age)| *age < OLD);
        let new = all.filter(|(account, _)| told.get(&account.origin) != Some(&account.number));
        new.take(AT_ONCE).map(|(account, age)| Account { age_s: age.as_secs(), ..account.clone() }).collect()
    }

    /// What was told is told no more.
    pub(crate) fn told(&self, accounts: &[Account], told: &mut Told) {
        told.retain(|origin, _| self.others.contains_key(origin) || *origin == self.own);
        told.extend(accounts.iter().map(|account| (account.origin, account.number)));
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&mut self, now: Moment) {
        self.others.retain(|_, other| other.age(now) < FORGET);
    }

    /// What a peer says of itself over its own connection.
    pub(crate) fn direct(&self, peer: Id) -> Option<&Account> {
        self.others.get(&peer).filter(|other| other.is_direct()).map(|other| &other.account)
    }

    /// What a machine says of itself, if that is not too old.
    pub(crate) fn account(&self, origin: Id, now: Moment) -> Option<&Account> {
        self.others.get(&origin).filter(|other| other.age(now) < OLD).map(|other| &other.account)
    }

    /// All machines that were heard of, and how long ago.
    pub(crate) fn machines(&self, now: Moment) -> impl Iterator<Item = (&Account, Duration)> {
        self.others.values().map(move |other| (&other.account, other.age(now)))
    }

    /// All links, each with the one that tells of it; nothing old.
    pub(crate) fn links(&self, now: Moment) -> impl Iterator<Item = (Id, &Tie)> {
        let own = self.said.iter().map(|(account, _)| account);
        let others = self.others.values().filter(move |other| other.age(now) < OLD).map(|other| &other.account);
        own.chain(others).flat_map(|account| account.links.iter().map(|link| (account.origin, link)))
    }
}

/// Do they say the same, but for their numbers, and, if `any_way`, for how good the ways are?
fn same(a: &Account, b: &Account, any_way: bool) -> bool {
    let tie = |a: &Tie, b: &Tie| {
        let Tie { to, mode, learnt, called, reaches, way } = a;
        (to, mode, learnt, called, reaches) == (&b.to, &b.mode, &b.learnt, &b.called, &b.reaches) && (any_way || *way == b.way)
    };
    (&a.name, &a.addresses, a.introduces) == (&b.name, &b.addresses, b.introduces)
        && a.links.len() == b.links.len()
        && a.links.iter().zip(&b.links).all(|(a, b)| tie(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sync_core::io::sync::{Caller, Way};
    use sync_core::peer::Mode;

    fn id(number: u8) -> Id {
        Id::from_bytes([number; 20])
    }

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn account(origin: u8, number: u64, links: &[u8]) -> Account {
        let tie = |to: &u8| Tie {
            to: id(*to),
            mode: Mode::TwoWay,
            learnt: false,
            called: Some(Caller::Teller),
            reaches: None,
            way: None,
        };
        Account {
            origin: id(origin),
            number,
            age_s: 0,
            name: format!("m{origin}").parse().unwrap(),
            addresses: Vec::new(),
            introduces: false,
            links: links.iter().map(tie).collect(),
        }
    }

    fn links(table: &Table, now: Moment) -> Vec<(Id, Id)> {
        table.links(now).map(|(from, link)| (from, link.to)).collect()
    }

    #[test]
    fn an_account_is_said_again_when_it_differs_and_now_and_then() {
        let mut table = Table::new(id(1));
        let mut number = |seconds: u64, links: &[u8], rtt_us: Option<u32>| {
            let mut account = account(1, 0, links);
            account.links.iter_mut().for_each(|link| {
                link.way = rtt_us.map(|rtt_us| Way { rtt_us, lost: 0, goodput: None });
            });
            table.say(account, at(seconds), 1000);
            table.news_for(id(2), &Told::new(), at(seconds))[0].number
        };
        assert_eq!(number(0, &[2], None), 1000);
        assert_eq!(number(10, &[2], None), 1000);
        assert_eq!(number(11, &[2, 3], None), 1001);
        // How good a way is changes all the time.
        assert_eq!(number(20, &[2, 3], Some(7)), 1001);
        assert_eq!(number(41, &[2, 3], Some(8)), 1002);
        assert_eq!(number(101, &[2, 3], Some(8)), 1003);
    }

    #[test]
    fn what_is_handed_on_is_replaced_by_a_higher_number_alone_and_never_against_its_own_word() {
        let mut table = Table::new(id(1));
        table.hear(id(2), account(3, 5, &[4]), at(0));
        table.hear(id(2), account(3, 5, &[]), at(1));
        table.hear(id(2), account(3, 4, &[]), at(1));
        assert_eq!(links(&table, at(1)), [(id(3), id(4))]);
        // Over its own connection.
        table.hear(id(3), account(3, 4, &[5]), at(2));
        assert_eq!(links(&table, at(2)), [(id(3), id(5))]);
        table.hear(id(2), account(3, 9, &[6]), at(3));
        assert_eq!(links(&table, at(3)), [(id(3), id(5))]);
        // It hears of what is said in its name.
        let echo = table.news_for(id(3), &Told::new(), at(3));
        assert!(echo.iter().any(|account| (account.origin, account.number) == (id(3), 9)));
        table.left(id(3));
        table.hear(id(2), account(3, 10, &[6]), at(4));
        assert_eq!(links(&table, at(4)), [(id(3), id(6))]);
    }

    #[test]
    fn who_hears_an_older_start_of_itself_numbers_beyond_it() {
        let mut table = Table::new(id(1));
        table.say(account(1, 0, &[2]), at(0), 100);
        table.hear(id(2), account(1, 5000, &[]), at(1));
        table.say(account(1, 0, &[2]), at(2), 102);
        assert_eq!(table.news_for(id(2), &Told::new(), at(2))[0].number, 5001);
        // Nobody can make it run out of numbers.
        table.hear(id(2), account(1, u64::MAX >> 1, &[]), at(3));
        table.say(account(1, 0, &[3]), at(4), 104);
        assert_eq!(table.news_for(id(2), &Told::new(), at(4))[0].number, 5002);
    }

    #[test]
    fn who_is_told_the_highest_numbers_in_its_own_name_goes_on_numbering() {
        let mut table = Table::new(id(1));
        let mut number_after = |told: u64, links: &[u8]| {
            table.hear(id(2), account(1, told, &[]), at(1));
            table.say(account(1, 0, links), at(1), 100);
            table.news_for(id(2), &Told::new(), at(1))[0].number
        };
        assert_eq!(number_after(NUMBER_MOST, &[2]), 100);
        assert_eq!(number_after(OWN_MOST + 1, &[3]), 101);
        assert_eq!(number_after(OWN_MOST, &[4]), OWN_MOST + 1);
        assert_eq!(number_after(OWN_MOST, &[5]), OWN_MOST + 2);
        assert_eq!(number_after(NUMBER_MOST, &[6]), OWN_MOST + 3);
    }

    #[test]
    fn what_is_old_is_told_no_more_and_does_not_come_back() {
        let mut table = Table::new(id(1));
        let told = Account { age_s: 500, ..account(3, 5, &[4]) };
        table.hear(id(2), told.clone(), at(0));
        assert_eq!(table.news_for(id(4), &Told::new(), at(50))[0].age_s, 550);
        assert!(table.news_for(id(4), &Told::new(), at(100)).is_empty() && links(&table, at(100)).is_empty());
        assert_eq!(table.machines(at(100)).map(|(_, age)| age.as_secs()).collect::<Vec<_>>(), [600]);
        table.hear(id(5), Account { age_s: 0, ..told }, at(200));
        assert!(links(&table, at(200)).is_empty());
        table.expire(at(3100));
        assert_eq!(table.machines(at(3100)).count(), 0);
        table.hear(id(2), Account { age_s: 600, ..account(3, 6, &[]) }, at(3200));
        assert_eq!(table.machines(at(3200)).count(), 0);
    }

    #[test]
    fn a_flood_of_names_takes_the_place_of_its_own() {
        let mut table = Table::new(id(1));
        table.hear(id(2), account(2, 1, &[3]), at(0));
        table.hear(id(2), account(3, 1, &[2]), at(0));
        for number in 0..10_000u32 {
            let mut origin = [9; 20];
            origin[..4].copy_from_slice(&number.to_le_bytes());
            let fake = Account { origin: Id::from_bytes(origin), ..account(9, 1, &[]) };
            table.hear(id(4), fake, at(1));
        }
        assert_eq!(table.others.len(), MACHINES);
        assert_eq!(links(&table, at(1)), [(id(2), id(3)), (id(3), id(2))]);
        table.hear(id(2), account(5, 1, &[2]), at(2));
        assert!(table.account(id(5), at(2)).is_some() && table.others.len() == MACHINES);
    }

    proptest! {
        /// In any connected graph everybody comes to know everybody, and then all is still.
        #[test]
        fn news_go_through_any_connected_graph_and_come_to_rest(
            edges in prop::collection::vec(any::<prop::sample::Index>(), 1..12),
            more in prop::collection::vec((0..12u8, 0..12u8), 0..12),
        ) {
            let count = edges.len() as u8 + 1;
            let mut graph: Vec<(u8, u8)> = edges.iter().enumerate().map(|(at, to)| (at as u8 + 1, to.index(at + 1) as u8)).collect();
            graph.extend(more.into_iter().map(|(a, b)| (a % count, b % count)).filter(|(a, b)| a != b));
            let mut tables: Vec<Table> = (0..count).map(|number| Table::new(id(number))).collect();
            let mut told: BTreeMap<(u8, u8), Told> = BTreeMap::new();
            for (number, table) in tables.iter_mut().enumerate() {
                table.say(account(number as u8, 0, &[]), at(0), 1);
            }
            let mut rounds = 0;
            loop {
                let mut any = false;
                for (a, b) in graph.iter().flat_map(|&(a, b)| [(a, b), (b, a)]) {
                    let sent = told.entry((a, b)).or_default();
                    let news = tables[a as usize].news_for(id(b), sent, at(1));
                    tables[a as usize].told(&news, sent);
                    any |= !news.is_empty();
                    news.into_iter().for_each(|account| tables[b as usize].hear(id(a), account, at(1)));
                }
                if !any {
                    break;
                }
                rounds += 1;
                prop_assert!(rounds <= usize::from(count) + 1, "it goes on and on");
            }
            prop_assert!(tables.iter().all(|table| table.machines(at(1)).count() == usize::from(count) - 1));
        }
    }
}
