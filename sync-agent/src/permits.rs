//! How many exchanges may be under way at a time, over all folders. Nobody is kept waiting: who gets none is called when there is one,
//! in the order in which they came, so that a folder whose work never ends does not keep another one from its turn.
//!
//! [`Line`] is pure: it decides who is next. A permit that is kept for somebody who was called is given to nobody else. Who is busy when
//! it is called is passed over once, so that no permit lies idle, and no second time: else a folder that is busy all the time with
//! what changes in it would never have its turn.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// By what a folder is told from others.
pub(crate) type Who = usize;

/// What somebody says who is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It takes the permit, or says that it does not.
    Comes,
    /// It is doing something else, and asks when that is done.
    Busy,
    /// It waits for nothing any more.
    Gone,
}

/// Is called once there is a permit.
pub(crate) type Call = Box<dyn Fn() -> Reply + Send>;

/// Who has a permit, and who is next. With each that waits goes what calls it.
#[derive(Debug)]
struct Line<C> {
    most: usize,
    taken: usize,
    waiting: VecDeque<Waiting<C>>,
}

#[derive(Debug)]
struct Waiting<C> {
    who: Who,
    /// A permit is kept for it.
    called: bool,
    /// Others came before it because it was busy.
    passed_over: bool,
    call: C,
}

impl<C> Line<C> {
    fn new(most: usize) -> Line<C> {
        Line { most: most.max(1), taken: 0, waiting: VecDeque::new() }
    }

    fn is_any_free(&self) -> bool {
        self.taken + self.waiting.iter().filter(|waiting| waiting.called).count() < self.most
    }

    /// Is there somebody who would come, were there one more?
    fn is_waited_for(&self) -> bool {
        !self.is_any_free() && self.waiting.iter().any(|waiting| !waiting.called)
    }

    fn place(&self, who: Who) -> Option<usize> {
        self.waiting.iter().position(|waiting| waiting.who == who)
    }

    /// A permit, if one is kept for it or none is kept for all others; else it waits at the place that it has, or at the end.
    fn take(&mut self, who: Who, call: C) -> bool {
        let place = self.place(who);
        // There may be less by now than when it was called.
        let called = place.is_some_and(|at| std::mem::take(&mut self.waiting[at].called)) && self.taken < self.most;
        if called || self.is_any_free() {
            place.and_then(|at| self.waiting.remove(at));
            self.taken += 1;
            return true;
        }
        match place {
            Some(at) => self.waiting[at].call = call,
            None => self.waiting.push_back(Waiting { who, called: false, passed_over: false, call }),
        }
        false
    }

    /// Calls those who wait, the first one first, as long as there are permits.
    fn call(&mut self, reply: &mut dyn FnMut(&C) -> Reply) {
        let mut at = 0;
        while at < self.waiting.len() && self.is_any_free() {
            if self.waiting[at].called {
                at += 1;
                continue;
            }
            let next = &mut self.waiting[at];
            match reply(&next.call) {
                Reply::Gone => drop(self.waiting.remove(at)),
                Reply::Busy if !next.passed_over => {
                    next.passed_over = true;
                    at += 1;
                }
                Reply::Busy | Reply::Comes => next.called = true,
            }
        }
    }

    /// Does somebody not use the permit that is kept for it? True if there was one. It keeps its place unless it is `gone`.
    fn pass(&mut self, who: Who, gone: bool) -> bool {
        let Some(at) = self.place(who) else { return false };
        let was_called = std::mem::replace(&mut self.waiting[at].called, false);
        if gone {
            self.waiting.remove(at);
        }
        was_called
    }
}

/// The permits of all folders.
pub(crate) struct Permits(Mutex<Line<Call>>);

/// One of them.
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    /// So many, one at the least.
    pub(crate) fn new(count: usize) -> Permits {
        Permits(Mutex::new(Line::new(count)))
    }

    /// Nothing else may be locked by whoever locks this: it is held while others are called.
    fn line(&self) -> MutexGuard<'_, Line<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on there are so many. What is under way goes on.
    pub(crate) fn set(&self, count: usize) {
        let mut line = self.line();
        line.most = count.max(1);
        line.call(&mut |call| call());
    }

    /// One of them, if there is one for it; else it is called when there is.
    pub(crate) fn take(&self, who: Who, call: Call) -> Option<Permit<'_>> {
        self.line().take(who, call).then(|| Permit(self))
    }

    /// Whoever was called does something else first.
    pub(crate) fn later(&self, who: Who) {
        self.passes(who, false);
    }

    /// Whoever was called, or waits, needs none any more.
    pub(crate) fn leave(&self, who: Who) {
        self.passes(who, true);
    }

    fn passes(&self, who: Who, gone: bool) {
        let mut line = self.line();
        if line.pass(who, gone) {
            // It would be called itself, first of all.
            line.call(&mut |call| call());
        }
    }

    /// Is one kept for it?
    pub(crate) fn is_kept_for(&self, who: Who) -> bool {
        let line = self.line();
        line.place(who).is_some_and(|at| line.waiting[at].called)
    }

    /// Is there somebody who got none?
    pub(crate) fn are_waited_for(&self) -> bool {
        self.line().is_waited_for()
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut line = self.0.line();
        line.taken -= 1;
        line.call(&mut |call| call());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn who_gets_no_permit_is_called_in_its_turn_and_nobody_is_kept_waiting() {
        let (permits, called) = (Permits::new(1), [(); 4].map(|()| Arc::<AtomicUsize>::default()));
        let take = |who: usize| {
            let called = called[who].clone();
            permits.take(
                who,
                Box::new(move || {
                    called.fetch_add(1, Ordering::Relaxed);
                    Reply::Comes
                }),
            )
        };
        let calls = || called.each_ref().map(|called| called.load(Ordering::Relaxed));
        let one = take(1).unwrap();
        assert!(!permits.are_waited_for());
        assert!(take(2).is_none() && permits.are_waited_for() && take(2).is_none() && take(3).is_none());
        drop(one);
        // Whoever had it, and is faster, has to wait as well.
        assert!(calls() == [0, 0, 1, 0] && permits.is_kept_for(2) && take(1).is_none() && take(3).is_none());
        let two = take(2).unwrap();
        // More of them, and less: what is under way goes on.
        permits.set(2);
        assert!(calls() == [0, 0, 1, 1] && permits.are_waited_for());
        let three = take(3).unwrap();
        permits.set(1);
        drop(two);
        assert!(calls() == [0, 0, 1, 1]);
        drop(three);
        assert!(calls() == [0, 1, 1, 1] && take(2).is_none());
        // Who does not come makes room for the next one, and keeps its place only if it wants to.
        permits.leave(1);
        assert!(calls() == [0, 1, 2, 1] && take(1).is_none());
        permits.later(2);
        assert!(permits.is_kept_for(2) && take(2).is_some());
    }

    #[test]
    fn who_is_busy_is_passed_over_once_and_who_is_gone_for_good() {
        let mut line = Line::new(1);
        assert!(line.take(0, 0) && !line.take(1, 1) && !line.take(2, 2) && !line.take(3, 3));
        let free = |line: &mut Line<Who>, replies: [Reply; 4]| {
            line.taken -= 1;
            line.call(&mut |who| replies[*who]);
            (0..4).filter(|who| line.place(*who).is_some_and(|at| line.waiting[at].called)).collect::<Vec<_>>()
        };
        use Reply::{Busy, Comes, Gone};
        assert_eq!(free(&mut line, [Comes, Busy, Gone, Comes]), [3]);
        assert!(line.place(2).is_none() && line.take(3, 3) && !line.take(2, 2));
        assert_eq!(free(&mut line, [Comes, Busy, Comes, Comes]), [1]);
        assert!(!line.take(2, 2) && line.take(1, 1));
        assert_eq!(free(&mut line, [Comes; 4]), [2]);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Ask(Who),
        End(Who),
        Busy(Who, bool),
        Gone(Who),
        Most(usize),
    }

    const FOLDERS: usize = 6;
    const MOST: usize = 3;

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let who = 0..FOLDERS;
        let event = prop_oneof![
            4 => who.clone().prop_map(Event::Ask),
            4 => who.clone().prop_map(Event::End),
            2 => (who.clone(), any::<bool>()).prop_map(|(who, busy)| Event::Busy(who, busy)),
            1 => who.prop_map(Event::Gone),
            1 => (1..=MOST).prop_map(Event::Most),
        ];
        prop::collection::vec(event, 1..300)
    }

    /// Folders that want a permit whenever they are asked to, and the line that they stand in.
    struct Folders {
        line: Line<Who>,
        holds: [bool; FOLDERS],
        busy: [bool; FOLDERS],
        /// Of each that waits: who was before it, and how many came before it besides.
        waits: BTreeMap<Who, (Vec<Who>, usize)>,
    }

    impl Folders {
        fn new() -> Folders {
            Folders { line: Line::new(1), holds: [false; FOLDERS], busy: [false; FOLDERS], waits: BTreeMap::new() }
        }

        fn ask(&mut self, who: Who) {
            if self.holds[who] || self.busy[who] {
                return;
            }
            let before = self.line.waiting.iter().map(|waiting| waiting.who).collect();
            if self.line.take(who, who) {
                self.holds[who] = true;
                self.waits.remove(&who);
                for (waiting, (before, passed)) in &mut self.waits {
                    // For whom one is kept, nobody comes before.
                    let called = self.line.place(*waiting).is_some_and(|at| self.line.waiting[at].called);
                    *passed += usize::from(!called && !before.contains(&who));
                    before.retain(|one| *one != who);
                }
            } else {
                self.waits.entry(who).or_insert((before, 0));
            }
        }

        /// Calls; who is called and not busy comes at once.
        fn call(&mut self) {
            let busy = self.busy;
            self.line.call(&mut |who| if busy[*who] { Reply::Busy } else { Reply::Comes });
            self.come();
        }

        fn come(&mut self) {
            let called = |waiting: &&Waiting<Who>| waiting.called && !self.busy[waiting.who];
            let called: Vec<Who> = self.line.waiting.iter().filter(called).map(|waiting| waiting.who).collect();
            called.into_iter().for_each(|who| self.ask(who));
        }

        fn happens(&mut self, event: &Event) {
            match *event {
                Event::Ask(who) => self.ask(who),
                Event::End(who) if self.holds[who] => {
                    self.holds[who] = false;
                    self.line.taken -= 1;
                    self.call();
                }
                Event::End(_) => {}
                Event::Busy(who, busy) => {
                    self.busy[who] = busy;
                    self.come();
                    // What it waits for it asks for again.
                    if !busy && self.waits.contains_key(&who) {
                        self.ask(who);
                    }
                }
                Event::Gone(who) => {
                    self.waits.remove(&who);
                    if self.line.pass(who, true) {
                        self.call();
                    }
                }
                Event::Most(most) => {
                    self.line.most = most;
                    self.call();
                }
            }
        }
    }

    proptest! {
        /// Whatever happens: there are never too many, none lies idle while somebody idle waits, and nobody is overtaken more often than
        /// there are permits, by whomever and however fast these are.
        #[test]
        fn nobody_is_overtaken_for_long(events in events()) {
            let mut folders = Folders::new();
            for event in &events {
                let before = folders.line.taken;
                folders.happens(event);
                let (line, holding) = (&folders.line, folders.holds.iter().filter(|holds| **holds).count());
                prop_assert_eq!(line.taken, holding);
                prop_assert!(line.taken <= line.most.max(before));
                let idle = |waiting: &Waiting<Who>| !waiting.called && !folders.busy[waiting.who];
                prop_assert!(!(line.is_any_free() && line.waiting.iter().any(idle)), "{:?} lies idle", line);
                for (who, (_, passed)) in &folders.waits {
                    prop_assert!(*passed <= MOST, "{who} was overtaken {passed} times");
                }
            }
        }
    }

    #[test]
    fn folders_whose_work_never_ends_take_turns_however_fast_they_ask_again() {
        let mut folders = Folders::new();
        (0..FOLDERS).for_each(|who| folders.ask(who));
        let mut turns = [0; FOLDERS];
        for _ in 0..10 * FOLDERS {
            let who = folders.holds.iter().position(|holds| *holds).unwrap();
            turns[who] += 1;
            folders.happens(&Event::End(who));
            folders.ask(who);
        }
        assert_eq!(turns, [10; FOLDERS]);
    }
}
