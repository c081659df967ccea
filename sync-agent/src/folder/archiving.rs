//! The thread that archives the old days of a folder: what it does next. It works beside the one that looks and pulls, with a lower
//! priority; what it does to days is `days`, how it reads them again `scrubbing`.
//!
//! One thing is done at a time: a run when one is due, was missed or is asked for; late writes; what lies in the cold root is
//! looked at; it is read again. The machine's clock may be set at any time, so no wait for a moment of the day is longer than [`GLANCE`].

use super::listeners::{Settling, Steadily, Teller};
use super::repairing::Asked;
use super::scrubbing::LATER;
use super::{Shared, Source};
use crate::archive::run::{self, Clock, Report};
use crate::archive::{Order, Terms, next_ns};
use crate::config;
use crate::log::Level;
use crate::scheduler::Moment;
use crate::status::{self, ArchiveDoing, ArchiveRun, ArchiveStatus, PathText, ScrubStatus};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use sync_core::entry::Hash;
use sync_core::io::archive::Archive;
use sync_core::io::sync::{Live, Member};
use sync_core::path::RelPath;

/// Longest wait for a moment of the day, and how often it is looked whether the cold root is there.
const GLANCE: Duration = Duration::from_secs(30);
/// How often whoever waits for a turn looks whether it is given up.
const HEED: Duration = Duration::from_millis(200);
/// How long a run that could not go on to its end is left alone, unless what was missing comes back.
const RETRY: Duration = Duration::from_secs(600);
/// How often days are looked for between runs, for whoever asks how it is.
const SURVEY: Duration = Duration::from_secs(3600);
/// How often late writes are looked for: young old copies often, older ones seldom.
const SETTLE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// So much less of the processor than others, and of the disk where its scheduler goes by that. Not the least there is: others wait for the
/// short steps of a move, which must not take long where the processor is busy.
const NICE: i32 = 10;
/// Under this name a root remembers when its agent archived.
const RUNS: &str = "agent.runs";

/// What is to be done, and how it is.
pub(crate) struct Desk {
    wishes: Mutex<Wishes>,
    pub(super) changed: Condvar,
    pub(super) clock: Clock,
    shown: Mutex<Option<ArchiveStatus>>,
    pub(super) damaged: Mutex<Vec<Damaged>>,
    /// Files that were damaged and are whole again, since the agent began.
    pub(super) repaired: AtomicU64,
    /// Who is asked for the bytes of a damaged file now.
    pub(super) lender: Mutex<Option<Arc<Member>>>,
}

#[derive(Default)]
pub(super) struct Wishes {
    rule: Option<config::Archive>,
    /// Grows whenever the rule becomes another one.
    pub(super) number: u64,
    /// A run is asked for; `true`: whatever the clock did.
    pub(super) run: Option<bool>,
    /// How many runs were asked for, and up to which of them they have ended.
    asked: u64,
    answered: u64,
    /// So many want to do something by hand.
    pub(super) by_hand: usize,
    /// Something is being done, by the thread or by hand: one thing at a time.
    busy: bool,
    /// Something was done by hand: what is shown of days may be another thing now, and something may be damaged.
    by_hand_done: bool,
    /// Everything hot was looked at: what lies in the cold root may have changed as well.
    looked: bool,
}

/// A file whose bytes are not those that were written, although nobody wrote to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damaged {
    /// Which file.
    pub(crate) path: RelPath,
    /// What its bytes should be.
    pub(crate) hash: Hash,
    /// When it was found, ns.
    pub(crate) since_ns: i64,
    /// Why it was not brought back, if that was tried.
    pub(crate) why: Option<String>,
}

/// The thread of a root that is open.
pub(super) struct Archiving {
    thread: JoinHandle<()>,
    over: Arc<AtomicBool>,
}

/// When days moved, as it is remembered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Runs {
    /// Since when they do, by the rule's clock, ns.
    since_ns: i64,
    pub(super) count: u64,
    pub(super) last: Option<ArchiveRun>,
}

/// Archives by one rule.
pub(super) struct Archivist<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) live: &'a Arc<Live>,
    pub(super) over: &'a AtomicBool,
    pub(super) rule: config::Archive,
    /// Of the rule: one that was changed and changed back is another one.
    pub(super) number: u64,
    pub(super) order: Order,
    pub(super) runs: Runs,
    /// So many runs had been asked for when the last one began.
    pub(super) answers: u64,
    /// What stood in the way when days that had moved before were looked after last.
    pub(super) settling: Settling,
    /// Days in the cold root that are to be looked at.
    pub(super) looks: VecDeque<RelPath>,
    /// Days that could not be read again, and until when they are left alone.
    pub(super) unread: BTreeMap<RelPath, Moment>,
    /// Days of which reading was interrupted, and when: all others come first.
    pub(super) interrupted: BTreeMap<RelPath, Moment>,
    pub(super) when: When,
    pub(super) asked: Asked,
    /// Is the cold root there, as far as was seen?
    pub(super) is_there: bool,
    /// What a crash left was looked at.
    recovered: bool,
}

/// When something is done next, by the agent's clock.
#[derive(Default)]
pub(super) struct When {
    /// A run that could not go on is tried again.
    pub(super) again: Option<Moment>,
    glance: Moment,
    survey: Moment,
    settle: Moment,
    pub(super) scrub: Moment,
    /// Since when somebody could be asked for what is damaged.
    mend: Option<Moment>,
}

/// What is next.
enum Step {
    Leave,
    /// A run; was it asked for, and then whatever the clock did?
    Run {
        asked: Option<bool>,
    },
    Paused,
    Glance,
    Survey,
    Settle,
    Look(RelPath),
    Mend,
    Scrub,
    Wait(Duration),
}

impl Wishes {
    fn wish(&mut self, accept_clock: bool) {
        self.run = Some(accept_clock || self.run == Some(true));
    }

    /// Nothing is wished for any more.
    fn settle(&mut self) {
        (self.run, self.looked, self.by_hand_done) = (None, false, false);
        self.answered = self.asked;
    }
}

/// The turn of whoever does something with archived days.
pub(super) struct Turn<'a>(&'a Desk);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.wishes().busy = false;
        self.0.changed.notify_all();
    }
}

impl Desk {
    pub(super) fn new(rule: Option<config::Archive>, clock: Clock) -> Desk {
        let wishes = Wishes { rule, ..Wishes::default() };
        Desk {
            wishes: Mutex::new(wishes),
            changed: Condvar::new(),
            clock,
            shown: Mutex::default(),
            damaged: Mutex::default(),
            repaired: AtomicU64::new(0),
            lender: Mutex::default(),
        }
    }

    pub(super) fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes over to another rule, or to none.
    pub(crate) fn configure(&self, rule: Option<config::Archive>) {
        let mut wishes = self.wishes();
        let other = wishes.rule != rule;
        if other {
            wishes.number += 1;
            wishes.rule = rule;
        }
        drop(wishes);
        self.changed.notify_all();
        if other {
            self.give_up_lender();
        }
    }

    pub(crate) fn has_rule(&self) -> bool {
        self.wishes().rule.is_some()
    }

    /// A run, now.
    pub(crate) fn ask(&self, accept_clock: bool) {
        let mut wishes = self.wishes();
        wishes.asked += 1;
        wishes.wish(accept_clock);
        drop(wishes);
        self.changed.notify_all();
    }

    /// A run that was asked for could not come to its end: it is made later.
    pub(super) fn ask_again(&self, accept_clock: bool) {
        self.wishes().wish(accept_clock);
        self.changed.notify_all();
    }

    /// All runs that were asked for until one began have ended with it, and its end is shown.
    pub(super) fn answer(&self, asked: u64) {
        self.wishes().answered = asked;
    }

    /// The rule, if there is one.
    pub(super) fn rule_now(&self) -> Option<config::Archive> {
        self.wishes().rule.clone()
    }

    /// Waits until nobody else does anything with archived days, for somebody who does it by hand; `None` once that is given up.
    pub(super) fn turn(&self, is_over: &dyn Fn() -> bool) -> Option<Turn<'_>> {
        let mut wishes = self.wishes();
        wishes.by_hand += 1;
        // Whoever reads days again, at its pace, gives way.
        self.changed.notify_all();
        let turn = loop {
            drop(wishes);
            let over = is_over();
            wishes = self.wishes();
            if over {
                break None;
            }
            if !wishes.busy {
                wishes.busy = true;
                break Some(Turn(self));
            }
            wishes = self.changed.wait_timeout(wishes, HEED).unwrap_or_else(PoisonError::into_inner).0;
        };
        wishes.by_hand -= 1;
        drop(wishes);
        self.changed.notify_all();
        turn
    }

    /// The same for the thread that archives: those who do something by hand come first.
    fn own_turn(&self, over: &AtomicBool) -> Option<Turn<'_>> {
        let mut wishes = self.wishes();
        while wishes.busy || wishes.by_hand > 0 {
            if over.load(Ordering::Acquire) {
                return None;
            }
            wishes = self.changed.wait_timeout(wishes, HEED).unwrap_or_else(PoisonError::into_inner).0;
        }
        wishes.busy = true;
        Some(Turn(self))
    }

    /// Is a run under way? It is not kept waiting for others.
    pub(super) fn is_running(&self) -> bool {
        self.shown().is_some_and(|shown| shown.doing == ArchiveDoing::Running)
    }

    /// Waits until somebody begins or ends something, for a moment at the most.
    pub(super) fn wait_for_change(&self) {
        drop(self.changed.wait_timeout(self.wishes(), HEED));
    }

    /// Something was done by hand.
    pub(super) fn done_by_hand(&self) {
        self.wishes().by_hand_done = true;
        self.changed.notify_all();
    }

    /// Everything that is hot was looked at.
    pub(super) fn looked(&self) {
        self.wishes().looked = true;
        self.changed.notify_all();
    }

    /// Whoever waits looks whether it is over.
    pub(crate) fn wake(&self) {
        drop(self.wishes());
        self.changed.notify_all();
    }

    /// Files that are damaged.
    pub(super) fn damaged(&self) -> Vec<Damaged> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn has_damage(&self) -> bool {
        !self.damaged.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn shown(&self) -> Option<ArchiveStatus> {
        // Whose answer is known is shown with it.
        let (asked, answered) = {
            let wishes = self.wishes();
            (wishes.asked, wishes.answered)
        };
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        shown.map(|shown| ArchiveStatus { asked, answered, ..shown })
    }

    /// Changes what is shown, once there is something.
    pub(super) fn show(&self, change: impl FnOnce(&mut ArchiveStatus)) {
        if let Some(shown) = &mut *self.shown.lock().unwrap_or_else(PoisonError::into_inner) {
            change(shown);
        }
    }

    fn begin(&self, shown: Option<ArchiveStatus>) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }
}

impl Shared {
    /// Begins to archive the folder's old days, in a thread of its own, for as long as the root is open. Days that come from now on and
    /// are old are placed in the cold root at once, if that is there.
    pub(super) fn archive(self: &Arc<Self>, live: &Arc<Live>) -> Archiving {
        let over = Arc::<AtomicBool>::default();
        self.place_at_once(live, &over);
        let (shared, live, ending) = (Arc::clone(self), Arc::clone(live), Arc::clone(&over));
        let thread = thread::spawn(move || {
            if let Err(error) = rustix::process::nice(NICE) {
                shared.log(Level::Warning, &format!("days are archived with the priority of everything else: {error}"));
            }
            while !ending.load(Ordering::Acquire) {
                shared.archive_by_rule(&live, &ending);
            }
        });
        Archiving { thread, over }
    }

    /// Ends it, and waits until it has: the step under way comes to its end.
    pub(super) fn archive_no_more(&self, archiving: Archiving) {
        archiving.over.store(true, Ordering::Release);
        self.desk.wake();
        self.desk.give_up_lender();
        // A panic there is a defect that was told; what was under way is recovered when the root is opened again.
        let _ = archiving.thread.join();
        self.desk.begin(None);
    }

    /// Before anything is pulled into a root that was just opened. What stands in the way is told by the thread.
    pub(super) fn place_at_once(&self, live: &Live, over: &AtomicBool) {
        let rule = self.desk.wishes().rule.clone();
        live.root().set_chooser(None);
        let Some(order) = rule.and_then(|rule| order(&rule).ok()) else { return };
        let monitor = Steadily::new(self, over, None);
        if let Ok(archive) = live.archive(&monitor)
            && let Ok(cold) = archive.cold(&order.cold)
        {
            self.place_old_days(live, &archive, &order, Some(&cold));
        }
    }

    /// Until the rule is another one, or the root is closed.
    fn archive_by_rule(self: &Arc<Self>, live: &Arc<Live>, over: &AtomicBool) {
        let Some((rule, number)) = self.rule(over) else { return };
        let path = |path: &std::path::Path| PathText::new(path.as_os_str().as_encoded_bytes());
        self.desk.begin(Some(ArchiveStatus {
            cold: path(&rule.cold),
            doing: ArchiveDoing::Waiting,
            unavailable: None,
            archived: 0,
            displaced: 0,
            days: None,
            last: None,
            next: None,
            scrub: ScrubStatus::default(),
            asked: 0,
            answered: 0,
        }));
        let monitor = Steadily::new(self, over, None).by(number);
        let begun = order(&rule).and_then(|order| {
            let archive = live.archive(&monitor).map_err(|error| error.to_string())?;
            let runs = self.recall(live, &order, &rule)?;
            Ok((archive, order, runs))
        });
        match begun {
            Ok((archive, order, runs)) => {
                self.place_at_once(live, over);
                // One that could not go on before the root was closed or the rule was changed is made up for now.
                let again = runs.last.as_ref().is_some_and(|last| last.error.is_some()).then_some(Moment::ZERO);
                let (looks, when) = (VecDeque::new(), When { again, ..When::default() });
                let mut archivist = Archivist {
                    shared: self,
                    live,
                    over,
                    rule,
                    number,
                    order,
                    runs,
                    answers: 0,
                    settling: Settling::default(),
                    looks,
                    unread: BTreeMap::new(),
                    interrupted: BTreeMap::new(),
                    when,
                    asked: Asked::default(),
                    is_there: false,
                    recovered: false,
                };
                archivist.work(&archive);
            }
            Err(why) => {
                let why = format!("old days cannot be archived: {why}");
                self.trouble(Source::Archive, &RelPath::root(), &why);
                // Whoever asked for a run is told by that.
                let at = status::Moment(self.desk.clock.time().moment.now_ns);
                self.desk.show(|shown| shown.last = Some(ArchiveRun::failed(at, why)));
                // What was wished for until now is answered by that: nothing but time and a new wish begins it anew.
                self.desk.wishes().settle();
                self.wait(over, number, RETRY);
            }
        }
        live.root().set_chooser(None);
        [Source::Archive, Source::Settle, Source::Cold, Source::ColdLook, Source::Scrub]
            .into_iter()
            .for_each(|source| self.trouble_no_more(source));
        self.desk.begin(None);
    }

    /// Waits for a rule, which it returns with its number; `None` once it is over.
    fn rule(&self, over: &AtomicBool) -> Option<(config::Archive, u64)> {
        let mut wishes = self.desk.wishes();
        loop {
            if over.load(Ordering::Acquire) {
                return None;
            }
            if let Some(rule) = &wishes.rule {
                return Some((rule.clone(), wishes.number));
            }
            wishes = self.desk.changed.wait_timeout(wishes, GLANCE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the rule is another one, a run is asked for, or it is over; for so long at the most.
    fn wait(&self, over: &AtomicBool, number: u64, wait: Duration) {
        let same = |wishes: &mut Wishes| {
            let idle = wishes.run.is_none() && !wishes.looked && !wishes.by_hand_done;
            idle && wishes.number == number && !over.load(Ordering::Acquire)
        };
        let wishes = self.desk.wishes();
        drop(self.desk.changed.wait_timeout_while(wishes, wait, same));
    }

    /// Waits until the folder is resumed, the rule is another one, or it is over; for some time at the most.
    fn wait_paused(&self, over: &AtomicBool, number: u64) {
        let same = |wishes: &mut Wishes| self.is_paused() && wishes.number == number && !over.load(Ordering::Acquire);
        let wishes = self.desk.wishes();
        drop(self.desk.changed.wait_timeout_while(wishes, GLANCE, same));
    }

    /// What is remembered of runs; a root without such memory begins now.
    fn recall(&self, live: &Live, order: &Order, rule: &config::Archive) -> Result<Runs, String> {
        let text = |error: sync_core::io::sync::SyncError| error.to_string();
        run::remember_rule(&self.grounds(live), &Terms::of(rule)).map_err(text)?;
        let known = live.archive_note(RUNS).map_err(text)?;
        let runs = match known {
            Some(bytes) => self.recalled(RUNS, serde_json::from_slice(&bytes).map(Some)),
            None => None,
        };
        let runs = match runs {
            Some(runs) => runs,
            None => {
                let runs = Runs { since_ns: self.desk.clock.time().moment.now_ns, ..Runs::default() };
                self.remember(live, &runs).map_err(text)?;
                runs
            }
        };
        self.desk.show(|shown| {
            shown.last.clone_from(&runs.last);
            shown.next = Some(status::Moment(runs.next_ns(rule, order)));
        });
        Ok(runs)
    }

    /// What was remembered under a name; what cannot be read is told, and begins anew.
    pub(super) fn recalled<T: Default>(&self, name: &str, read: Result<T, serde_json::Error>) -> T {
        read.unwrap_or_else(|error| {
            let text = format!("what archiving remembers as {name} cannot be read ({error}): it begins anew");
            self.log(Level::Warning, &text);
            T::default()
        })
    }

    pub(super) fn remember(&self, live: &Live, runs: &Runs) -> Result<(), sync_core::io::sync::SyncError> {
        live.put_archive_note(RUNS, &serde_json::to_vec(runs).expect("numbers and texts"))
    }
}

impl Runs {
    /// When the next one is due, by the rule's clock.
    pub(super) fn next_ns(&self, rule: &config::Archive, order: &Order) -> i64 {
        next_ns(rule.cold_schedule, &order.zone, self.base_ns())
    }

    fn base_ns(&self) -> i64 {
        self.last.as_ref().map_or(self.since_ns, |last| last.at.0)
    }
}

impl Archivist<'_> {
    fn work(&mut self, archive: &Archive<'_>) {
        {
            // Somebody may find or mend damage by hand meanwhile.
            let Some(_turn) = self.shared.desk.own_turn(self.over) else { return };
            self.recall_damage();
        }
        loop {
            let Some(turn) = self.shared.desk.own_turn(self.over) else { return };
            match self.next(archive) {
                Step::Leave => return,
                Step::Run { asked } => self.run(archive, asked),
                Step::Glance => self.glance(archive),
                Step::Survey => self.survey(archive),
                Step::Settle => self.settle(archive),
                Step::Look(day) => self.look(archive, &day),
                Step::Mend => self.mend(),
                Step::Scrub => self.scrub(archive),
                Step::Paused => {
                    drop(turn);
                    self.doing(ArchiveDoing::Waiting);
                    self.shared.wait_paused(self.over, self.number);
                }
                Step::Wait(wait) => {
                    drop(turn);
                    self.doing(ArchiveDoing::Waiting);
                    self.shared.wait(self.over, self.number, wait);
                }
            }
        }
    }

    pub(super) fn doing(&self, doing: ArchiveDoing) {
        self.shared.desk.show(|shown| shown.doing = doing);
    }

    fn next(&mut self, archive: &Archive<'_>) -> Step {
        let shared = self.shared;
        let (run, looked, by_hand) = {
            let mut wishes = shared.desk.wishes();
            if self.over.load(Ordering::Acquire) || wishes.number != self.number {
                return Step::Leave;
            }
            // Whoever asks while it is paused is told so; what was asked for before waits.
            if shared.is_paused() {
                return Step::Paused;
            }
            self.answers = wishes.asked;
            (wishes.run.take(), std::mem::take(&mut wishes.looked), std::mem::take(&mut wishes.by_hand_done))
        };
        if shared.is_stopping() {
            // The root is closed in a moment: whatever began now would end at once, again and again.
            return Step::Wait(GLANCE);
        }
        if !self.recovered {
            self.recovered = true;
            self.recover(archive);
        }
        if looked {
            self.look_at_young();
        }
        if by_hand {
            self.drop_unplaced();
            (self.when.survey, self.when.settle) = (Moment::ZERO, Moment::ZERO);
            self.asked.soon(shared.now());
        }
        let now = shared.now();
        if run.is_some() {
            return Step::Run { asked: run };
        }
        if now >= self.when.glance {
            self.when.glance = now + GLANCE;
            return Step::Glance;
        }
        if self.is_due(now) {
            return Step::Run { asked: None };
        }
        if now >= self.when.survey {
            self.when.survey = now + SURVEY;
            return Step::Survey;
        }
        // Of what lies there the old copies can be looked after only while it is.
        if self.is_there && now >= self.when.settle {
            return Step::Settle;
        }
        // While the cold root is not there nothing can be seen of it.
        let there = self.is_there;
        self.when.mend = (there && self.may_mend(now)).then(|| self.when.mend.unwrap_or(now));
        // Looks come first, but not for ever: there may be as many again when the last one ends.
        let waits = if self.looks.is_empty() { Duration::ZERO } else { LATER };
        if self.when.mend.is_some_and(|since| now >= since + waits) {
            self.when.mend = None;
            return Step::Mend;
        }
        if there && now >= self.when.scrub + waits {
            return Step::Scrub;
        }
        if there && let Some(day) = self.looks.pop_front() {
            return Step::Look(day);
        }
        let scrub = if there { self.when.scrub } else { self.when.glance };
        let settle = if there { self.when.settle } else { self.when.glance };
        let next = self.when.glance.min(self.when.survey).min(settle).min(scrub);
        Step::Wait(next.saturating_sub(now).min(self.until_due()))
    }

    /// By the rule's clock, which may have been set back: then a run finds out and tells.
    fn is_due(&self, now: Moment) -> bool {
        if let Some(again) = self.when.again {
            return now >= again;
        }
        let clock_ns = self.shared.desk.clock.time().moment.now_ns;
        let back = i64::try_from(crate::archive::BACK.as_nanos()).unwrap_or(i64::MAX);
        clock_ns >= self.runs.next_ns(&self.rule, &self.order) || clock_ns.saturating_add(back) < self.runs.base_ns()
    }

    fn until_due(&self) -> Duration {
        if let Some(again) = self.when.again {
            return again.saturating_sub(self.shared.now()).max(Duration::from_millis(10));
        }
        let left = self.runs.next_ns(&self.rule, &self.order).saturating_sub(self.shared.desk.clock.time().moment.now_ns);
        Duration::from_nanos(u64::try_from(left).unwrap_or(0)).max(Duration::from_millis(10))
    }

    /// A run has ended: when it could not go on to its end it is tried again soon.
    pub(super) fn ended(&mut self, whole: bool) {
        let now = self.shared.now();
        // Whether the cold root is there is looked at and told at once.
        self.when.glance = now;
        self.when.again = (!whole).then_some(now + RETRY);
        self.when.survey = now + SURVEY;
        let next = self.runs.next_ns(&self.rule, &self.order);
        let next = if whole { next } else { next.min(self.shared.desk.clock.time().moment.now_ns + RETRY.as_nanos() as i64) };
        self.shared.desk.show(|shown| shown.next = Some(status::Moment(next)));
    }

    /// Days are looked for again before anything else is done that can wait.
    pub(super) fn survey_soon(&mut self) {
        self.when.survey = Moment::ZERO;
    }

    /// What was missing is there again: what could not go on is tried now.
    pub(super) fn try_again(&mut self) {
        if self.when.again.is_some() {
            self.when.again = Some(Duration::ZERO);
        }
    }

    /// Old copies of days are looked at again after a quarter of their age.
    pub(super) fn settle_after(&mut self, youngest: Option<Duration>) {
        let wait = youngest.map_or(SETTLE.1, |age| (age / 4).clamp(SETTLE.0, SETTLE.1));
        self.when.settle = self.shared.now() + wait;
    }

    fn recover(&mut self, archive: &Archive<'_>) {
        let (mut told, mut report) = (Teller::new(self.shared, &self.settling), Report::default());
        if let Err(error) = run::recover(archive, &mut told, &mut report) {
            self.shared.trouble(Source::Archive, &RelPath::root(), &error.to_string());
        }
    }
}

/// What a rule of the configuration says.
pub(super) fn order(rule: &config::Archive) -> Result<Order, String> {
    let mut order = Terms::of(rule).order()?;
    order.rule.min_peers = rule.min_peers;
    Ok(order)
}
