//! Another machine's root of the same folder that stays open too: the two tell each other what they are whenever that has changed,
//! and answer each other's questions, over one connection of their own.

use super::SyncError;
use super::answering::accept_all;
use super::asking::{SILENCE, answer_within, hello};
use super::guest;
use super::host;
use super::live::{Live, nobody};
use crate::ignore::Rules;
use crate::io::channel::{Channel, ChannelError};
use crate::io::link::{CloseCode, Connection, PathQuality, WAIT};
use crate::io::mutex::lock;
use crate::io::remote::{Gate, Here, Parked, Told, respond};
use crate::io::speaker::Speaker;
use crate::io::there::Facts;
use crate::knowledge::ReplicaId;
use crate::path::RelPath;
use crate::peer::{Id, Mode, Name};
use crate::report::Monitor;
use crate::wire::{self, Account, Gossip, Introduction, Join, MAX_SIZE, MAX_TOLD, Message, Ready, Report};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a member's thread waits for news before it looks whether the connection is still there.
const GLANCE: Duration = Duration::from_secs(1);

/// Machines whose accounts wait to be handed on over one connection; further ones come once these are told.
const WAITING: usize = 512;

/// What a member's connection tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The replica there has changed.
    News,
    /// What machines that take part say of themselves.
    Gossip(Vec<Account>),
    /// The connection has ended; and why, where it was this side that could not go on.
    Ended(Option<String>),
}

/// Hears of a member. Called on threads of the connection, which wait for it.
pub type Ear = Arc<dyn Fn(Heard) + Send + Sync>;

/// Another machine's root of the same folder, which stays open too.
pub struct Member {
    pub(super) peer: Id,
    pub(super) connection: Arc<Connection>,
    /// By what it is recognised should it come under another identity.
    location: Vec<u8>,
    /// Nonce of the start there.
    start: u64,
    told: Arc<Mutex<Ready>>,
    /// What is to be told of the way and the exchange, and what was told.
    reports: Arc<Mutex<Reports>>,
    pub(super) rules: Rules,
    pub(super) sets_owner: bool,
    /// What it may do here.
    pub(super) mode: Mode,
    /// May this side read there, and change its own root by it?
    pulls: bool,
    /// Is it answered, and told of changes?
    pub(super) answers: bool,
    over: Arc<AtomicBool>,
    live: Arc<Live>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {:?}", self.live.name, self.peer)
    }
}

#[derive(Debug, Default)]
struct Reports {
    ours: Report,
    theirs: Option<Report>,
    /// How far their clock is ahead, ms, by the last report that told it.
    ahead_ms: Option<f64>,
    /// Accounts that are to be handed on, the newest of each machine.
    waiting: BTreeMap<Id, Account>,
}

/// By what a peer's root of a folder is recognised.
fn located(peer: Id, folder: &Name) -> Vec<u8> {
    format!("{peer}:folder:{folder}").into_bytes()
}

/// What counts of what a peer says: one that may only read changes nothing here, the identity of this root least of all.
fn believed(introduction: &Introduction, mode: Mode) -> Introduction {
    if mode == Mode::SendOnly {
        Introduction { location: introduction.location.clone(), ..nobody() }
    } else {
        introduction.clone()
    }
}

/// What both sides of a member have told each other.
struct Met {
    introduction: Introduction,
    rules: Rules,
    sets_owner: bool,
    /// What the other side may do here.
    mode: Mode,
    /// What this side may do there.
    granted: Mode,
}

impl Member {
    /// Joins the folder of another machine: `mode` is what that machine may do here.
    ///
    /// # Errors
    /// The other side refuses, or it cannot be worked with; or the connection failed.
    pub fn join(
        live: &Arc<Live>,
        connection: Connection,
        mode: Mode,
        ear: Ear,
        monitor: &dyn Monitor,
    ) -> Result<Member, SyncError> {
        let peer = connection.peer_id();
        let connection = Arc::new(connection);
        let failed = |error: ChannelError| SyncError::of_remote(&peer.to_string(), error);
        let location = located(peer, &live.name);
        let mut control = Channel::for_hello(connection.open(WAIT).map_err(|error| failed(error.into()))?);
        hello(&mut control).map_err(failed)?;
        let own = own_rules(live)?;
        let join = Join {
            folder: live.name.as_str().into(),
            introduction: live.introduce(&location)?,
            rules: own,
            sets_owner: live.options.mask.owner,
            mode,
        };
        let answer = answer_within(&mut control, &Message::Join(join), SILENCE).map_err(failed)?;
        let opened = match answer {
            Message::Opened(opened) => opened,
            other => return Err(failed(ChannelError::unexpected(other, "the folder"))),
        };
        control.finish().map_err(failed)?;
        let introduction = Introduction { location, ..opened.introduction };
        live.meet(&believed(&introduction, mode), monitor)?;
        let rules = guest::parsed(&opened.rules, &peer.to_string())?;
        let met = Met { introduction, rules, sets_owner: opened.sets_owner, mode, granted: opened.mode };
        Member::begin(live.clone(), connection, met, ear)
    }

    /// Lets another machine join, which may do here what `mode` says.
    pub(super) fn accept(
        live: &Arc<Live>,
        (connection, control): (Arc<Connection>, &mut Channel),
        join: Join,
        mode: Mode,
        ear: Ear,
        monitor: &dyn Monitor,
    ) -> Result<Member, SyncError> {
        let peer = connection.peer_id();
        let failed = |error: ChannelError| SyncError::of_remote(&peer.to_string(), error);
        let location = located(peer, &live.name);
        let introduction = Introduction { location: location.clone(), ..join.introduction };
        live.meet(&believed(&introduction, mode), monitor)?;
        let rules = Rules::parse(&join.rules)?;
        let answer = wire::Opened {
            mode,
            introduction: live.introduce(&location)?,
            root: live.name.to_string(),
            rules: own_rules(live)?,
            sets_owner: live.options.mask.owner,
            passing: false,
        };
        control.send(&Message::Opened(answer)).and_then(|()| control.flush()).map_err(failed)?;
        let met = Met { introduction, rules, sets_owner: join.sets_owner, mode, granted: join.mode };
        Member::begin(live.clone(), connection, met, ear)
    }

    fn begin(live: Arc<Live>, connection: Arc<Connection>, met: Met, ear: Ear) -> Result<Member, SyncError> {
        let Met { introduction, rules, sets_owner, mode, granted } = met;
        let peer = connection.peer_id();
        let identity = introduction.identity.ok_or_else(|| {
            let found = ChannelError::Unexpected { found: "a folder without a replica", expected: "its replica" };
            SyncError::of_remote(&peer.to_string(), found)
        })?;
        let told = Ready { identity, seq: 0, passing: false, unavailable: Vec::new(), decisions: true };
        let told = Arc::new(Mutex::new(told));
        let (over, reports) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Reports>>::default());
        let answers = mode != Mode::ReceiveOnly;
        let pulls = mode != Mode::SendOnly && granted != Mode::ReceiveOnly;
        let mut threads = Vec::new();
        let why: Arc<Mutex<Option<String>>> = Arc::default();
        if answers {
            let (live, connection, over, reports) = (live.clone(), connection.clone(), over.clone(), Arc::clone(&reports));
            // Whoever takes nothing from here need not hear when there is something.
            let news = granted != Mode::SendOnly;
            let why = Arc::clone(&why);
            threads.push(std::thread::spawn(move || {
                if let Err(error) = tell_all(&live, &connection, &reports, (&over, news)) {
                    give_up(&connection, &why, &error);
                }
            }));
        }
        {
            let (live, connection, over) = (live.clone(), connection.clone(), over.clone());
            let (told, reports) = (told.clone(), Arc::clone(&reports));
            threads.push(std::thread::spawn(move || {
                answer_all(&live, &connection, answers, (&told, &reports), &ear);
                over.store(true, Ordering::Release);
                live.news.changed.notify_all();
                ear(Heard::Ended(lock(&why).take()));
            }));
        }
        let location = introduction.location;
        let start = identity.nonce;
        Ok(Member {
            peer,
            connection,
            location,
            start,
            told,
            reports,
            rules,
            sets_owner,
            mode,
            pulls,
            answers,
            over,
            live,
            threads,
        })
    }

    /// Did it join this very root, opened once?
    #[must_use]
    pub fn is_of(&self, live: &Arc<Live>) -> bool {
        Arc::ptr_eq(&self.live, live)
    }

    /// A number that the root there takes anew whenever it is opened.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Whose it is.
    #[must_use]
    pub fn peer(&self) -> Id {
        self.peer
    }

    /// What it may do here.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// May this side take from it what it has?
    #[must_use]
    pub fn may_be_pulled(&self) -> bool {
        self.pulls
    }

    /// Where it is at present.
    #[must_use]
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        self.connection.address()
    }

    /// Has the connection ended?
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// How good the way there is.
    #[must_use]
    pub fn quality(&self) -> PathQuality {
        self.connection.quality()
    }

    /// Bytes that came over the connection so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.connection.traffic().received
    }

    /// Tells it how the way and the exchange look from here, with the clock as it is when that is sent.
    pub fn report(&self, report: Report) {
        // Its clock is read when it is sent.
        let report = Report { clock_ms: 0, ..report };
        let changed = std::mem::replace(&mut lock(&self.reports).ours, report) != report;
        if changed {
            self.live.tell();
        }
    }

    /// How the way and the exchange look from there, as it told last.
    #[must_use]
    pub fn reported(&self) -> Option<Report> {
        lock(&self.reports).theirs
    }

    /// How far its clock is ahead of this machine's, ms, as measured last: half a round trip is taken for the way. `None`: it was not.
    #[must_use]
    pub fn clock_ahead_ms(&self) -> Option<f64> {
        lock(&self.reports).ahead_ms
    }

    /// Hands on what machines say of themselves, soon: the newest of each. False where so many wait that some of it does not go.
    pub fn gossip(&self, accounts: Vec<Account>) -> bool {
        if !self.answers {
            return true;
        }
        let mut all = true;
        {
            let waiting = &mut lock(&self.reports).waiting;
            for account in accounts {
                if waiting.len() < WAITING || waiting.contains_key(&account.origin) {
                    waiting.insert(account.origin, account);
                } else {
                    all = false;
                }
            }
        }
        // Whoever looked a moment before waits by now, and hears of it.
        drop(lock(&self.live.news.number));
        self.live.news.changed.notify_all();
        all
    }

    /// Which replica its root is.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        lock(&self.told).identity.replica
    }

    /// May a path, or something below it, be missing there for want of a file system, as it told last?
    #[must_use]
    pub fn may_lack(&self, path: &RelPath) -> bool {
        lock(&self.told).unavailable.iter().any(|missing| missing.contains(path) || path.contains(missing))
    }

    /// Its newest sequence number, as it told last.
    #[must_use]
    pub fn seq(&self) -> u64 {
        lock(&self.told).seq
    }

    /// Ends the connection.
    pub fn leave(&self) {
        self.connection.close(CloseCode::Done);
    }

    pub(super) fn told(&self) -> Ready {
        lock(&self.told).clone()
    }

    pub(super) fn facts_of(&self, told: &Ready) -> Facts {
        let speaker = Speaker::Machine(self.peer);
        let location = self.location.clone();
        Facts { identity: told.identity, passing: told.passing, location, speaker, decisions: told.decisions }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
        self.live.news.changed.notify_all();
        let own = std::thread::current().id();
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != own) {
            // What became of its questions the side that asked them knows.
            let _ = thread.join();
        }
    }
}

/// The rules that the other side is told.
fn own_rules(live: &Live) -> Result<String, SyncError> {
    host::sendable(&live.rules(), live.root().path())
}

/// Tells the other side what this one is, now and whenever that has changed.
fn tell_all(
    live: &Live,
    connection: &Connection,
    reports: &Mutex<Reports>,
    (over, news): (&AtomicBool, bool),
) -> Result<(), SyncError> {
    let peer = connection.peer_id().to_string();
    let failed = |error: ChannelError| SyncError::of_remote(&peer, error);
    let mut channel = Channel::new(connection.open(WAIT).map_err(|error| failed(error.into()))?);
    let (mut last, mut ready, mut report) = (None, None, None);
    while !over.load(Ordering::Acquire) {
        let number = *lock(&live.news.number);
        // Hashes that were recorded to answer a question are no news to anybody, and have a number all the same.
        let told = ready.as_ref().map(|ready: &Ready| ready.seq);
        let changed = last != Some(number) || told != Some(live.opened().state.seq());
        if news && changed {
            let now = live.ready()?;
            if ready.as_ref() != Some(&now) {
                channel.send(&Message::Ready(now.clone())).map_err(failed)?;
                ready = Some(now);
            }
        }
        if changed {
            let ours = lock(reports).ours;
            if report != Some(ours) {
                channel.send(&Message::Report(Report { clock_ms: clock_ms(), ..ours })).map_err(failed)?;
                report = Some(ours);
            }
            last = Some(number);
        }
        while let Some(machines) = next_told(reports) {
            channel.send(&Message::Gossip(Gossip { machines })).map_err(failed)?;
        }
        channel.flush().map_err(failed)?;
        let now = lock(&live.news.number);
        let unchanged = |now: &mut u64| last == Some(*now) && lock(reports).waiting.is_empty() && !over.load(Ordering::Acquire);
        drop(live.news.changed.wait_timeout_while(now, GLANCE, unchanged));
    }
    channel.finish().map_err(failed)
}

/// This machine's clock, ms since 1970; 0 where it is before that.
fn clock_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(MAX_SIZE).min(MAX_SIZE))
}

/// How far a clock is ahead of this machine's that showed `theirs` half a round trip before this one shows `ours`.
fn ahead_ms(theirs: u64, ours: u64, rtt: Duration) -> Option<f64> {
    (theirs > 0 && ours > 0).then_some(theirs as f64 - ours as f64 + rtt.as_secs_f64() * 500.0)
}

/// Whoever does not hear of this side any more is better off with another connection. Why is kept for whoever hears of the end, unless the
/// connection had ended before, which tells itself.
fn give_up(connection: &Connection, why: &Mutex<Option<String>>, error: &SyncError) {
    if connection.wait_closed(Duration::ZERO).is_err() {
        *lock(why) = Some(error.to_string());
        connection.close(CloseCode::Failed);
    }
}

/// As many accounts as go into one message; `None`: none waits.
fn next_told(reports: &Mutex<Reports>) -> Option<Vec<Account>> {
    let waiting = &mut lock(reports).waiting;
    let machines: Vec<Account> = std::iter::from_fn(|| waiting.pop_first()).take(MAX_TOLD).map(|(_, account)| account).collect();
    (!machines.is_empty()).then_some(machines)
}

/// Answers what the other side asks, and hears what it tells, until the connection ends.
fn answer_all(
    live: &Live,
    connection: &Connection,
    may_read: bool,
    (told, reports): (&Mutex<Ready>, &Mutex<Reports>),
    ear: &Ear,
) {
    let heard = |what: Told| {
        let ready = match what {
            Told::Ready(ready) => ready,
            Told::Report(report) => {
                let ahead = ahead_ms(report.clock_ms, clock_ms(), connection.quality().rtt);
                let mut reports = lock(reports);
                (reports.theirs, reports.ahead_ms) = (Some(report), ahead.or(reports.ahead_ms));
                return;
            }
            Told::Gossip(gossip) => return ear(Heard::Gossip(gossip.machines)),
            // A member says what it is: that there may be something is no news of it.
            Told::Changed => return,
        };
        {
            let mut told = lock(told);
            let same =
                |a: &Ready, b: &Ready| (a.identity.replica, a.identity.instance) == (b.identity.replica, b.identity.instance);
            if !same(&told, &ready) {
                // It is another replica now: the two must meet anew.
                connection.close(CloseCode::Done);
                return;
            }
            *told = ready;
        }
        ear(Heard::News);
    };
    let allowed = || if may_read { Ok(()) } else { Err("this machine may not read the folder".to_owned()) };
    let (gate, parked) = (Gate::new(&allowed), Parked::default());
    accept_all(connection, &|stream| {
        let asker = Speaker::Machine(connection.peer_id());
        let here = Here { heard: Some(&heard), ..live.opened().here(asker, Some(&gate)) };
        // What goes wrong is told to the side that asks.
        let _ = respond(stream, &here, &parked);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_round_trip_is_taken_for_the_way() {
        let rtt = Duration::from_millis(80);
        assert_eq!(ahead_ms(1_000_000, 1_000_040, rtt), Some(0.0));
        assert_eq!(ahead_ms(1_003_000, 1_000_040, rtt), Some(3_000.0));
        assert_eq!(ahead_ms(997_000, 1_000_040, rtt), Some(-3_000.0));
        assert_eq!(ahead_ms(MAX_SIZE, 1, rtt).map(f64::is_finite), Some(true));
        assert_eq!([ahead_ms(0, 1, rtt), ahead_ms(1, 0, rtt)], [None; 2]);
    }
}
