//! A root on another machine as one end of a run: a [`LocalEnd`](super::end::LocalEnd) there is asked by messages, and what it asks
//! meanwhile of the root here is answered.

use super::drive::Half;
use super::end::{End, Pulled, RulesNow, ScanTerms, Surveyed};
use super::news::News;
use super::opened::Opened;
use super::pulls::Terms;
use super::{MaxDelete, Options, Policy, Side, SyncError};
use crate::ignore::Rules;
use crate::io::channel::{Channel, ChannelError};
use crate::io::link::{CloseCode, Connection, LinkError, Reader, Stream, WAIT, Writer};
use crate::io::mutex::lock;
use crate::io::remote::{Gate, Here, PATIENCE, Parked, RemoteThere, Told, respond};
use crate::io::scan::Scanned;
use crate::io::speaker::Speaker;
use crate::io::there::{Facts, There};
use crate::path::{RelPath, escape};
use crate::peer::{Mode, Name};
use crate::plan::Item;
use crate::report::Monitor;
use crate::store::{Filter, Listing};
use crate::wire::{
    self, Apply, Hello, Introduce, Introduction, Message, Nothing, Notice, Open, Progress, Ready, Refusal, Survey, Versions,
};
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often the user's wish to stop is looked for while the other side works.
const GLANCE: Duration = Duration::from_millis(200);
/// A side that works says so every few seconds.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
/// How long the other side may take to stop once the user wants to.
const STOPPING: Duration = Duration::from_secs(60);
/// How often the other side hears that this one works, while it is asked for nothing.
const ALIVE: Duration = Duration::from_secs(60);
/// How long the other side may take to hear the last word.
const FAREWELL: Duration = Duration::from_secs(2);

/// A folder that another machine exports.
#[derive(Debug, Clone)]
pub struct Remote {
    /// To that machine. Used by this run alone.
    pub connection: Arc<Connection>,
    /// The folder's name there.
    pub folder: Name,
    /// The part of it that is the root.
    pub sub: RelPath,
    /// What the user calls it.
    pub shown: String,
    /// Where the connection's key was made for this run alone: the name under which whoever vouches for that machine knows it.
    pub vouched: Option<String>,
}

/// The other machine has opened the folder.
pub(super) struct Guest {
    remote: Remote,
    /// Held while an answer is waited for.
    control: Arc<Mutex<Channel>>,
    alive: Option<Alive>,
    there: Arc<RemoteThere>,
    /// Which side of the run it is.
    side: Side,
    pub(super) opened: wire::Opened,
    pub(super) rules: Rules,
    scanned: Option<wire::Scanned>,
    /// What it was told last of this side.
    told: Option<Ready>,
    done: Numbers,
    /// The other side has ended the run.
    over: bool,
}

/// What a machine told of its progress last.
#[derive(Default)]
struct Numbers {
    phase: Option<wire::Phase>,
    files: u64,
    bytes: u64,
}

/// Answers the other side's questions, until the connection ends.
pub(super) struct Answering {
    connection: Arc<Connection>,
    thread: Option<JoinHandle<()>>,
}

/// Tells the other side, as long as this one works and asks nothing of it, that the run goes on: else it would give the run up.
struct Alive {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A machine that was greeted, and has opened nothing yet.
pub(super) struct Greeted {
    remote: Remote,
    control: Channel,
    /// Was the answer to the greeting read?
    heard: bool,
}

/// Who a folder's replica is.
pub(super) struct Introduced {
    pub(super) introduction: Introduction,
    pub(super) rules: Rules,
    pub(super) sets_owner: bool,
}

impl Greeted {
    /// Says hello. The answer is read when there is one to what follows: to wait for it alone would cost a round trip.
    pub(super) fn greet(remote: Remote) -> Result<Greeted, SyncError> {
        let said = || {
            let mut control = Channel::for_hello(remote.connection.open(WAIT)?);
            say_hello(&mut control)?;
            // Another machine may be asked first, and this one hangs up on who says nothing.
            control.flush()?;
            Ok(control)
        };
        match said() {
            Ok(control) => Ok(Greeted { remote, control, heard: false }),
            Err(error) => Err(SyncError::of_remote(&remote.shown, error)),
        }
    }

    /// Asks who the folder's replica is, for a run with a root at `other`, which is no root of this machine either.
    pub(super) fn introduce(&mut self, other: &Remote, rejoin: bool) -> Result<Introduced, SyncError> {
        let Remote { folder, sub, shown, .. } = &self.remote;
        let asked = Introduce { folder: folder.as_str().into(), sub: sub.clone(), location: other.location(), rejoin };
        let control = &mut self.control;
        let asked = control.send(&Message::Introduce(asked));
        let heard = asked.and_then(|()| if self.heard { Ok(()) } else { hear_hello(control) });
        let answer = heard.and_then(|()| receive_within(control, SILENCE));
        self.heard = true;
        match answer.map_err(|error| SyncError::of_remote(shown, error))? {
            Message::Introduced(wire::Introduced { introduction, rules, sets_owner }) => {
                let introduction = Introduction { location: self.remote.location(), ..introduction };
                Ok(Introduced { introduction, rules: parsed(&rules, shown)?, sets_owner })
            }
            found => Err(SyncError::of_remote(shown, ChannelError::unexpected(found, "an introduction"))),
        }
    }

    /// Opens the folder, and asks for its scan at once.
    pub(super) fn open(
        self,
        side: Side,
        asker: (Introduction, &Rules),
        options: &Options,
        monitor: &dyn Monitor,
    ) -> Result<Guest, SyncError> {
        self.open_for(side, asker, (options, true), monitor)
    }

    /// Opens the folder for what is known of it: nothing is looked at. The other side hears that this one is there until the end.
    pub(super) fn borrow(
        self,
        asker: (Introduction, &Rules),
        options: &Options,
        monitor: &dyn Monitor,
    ) -> Result<Guest, SyncError> {
        let mut guest = self.open_for(Side::B, asker, (options, false), monitor)?;
        guest.alive = Some(Alive::begin(guest.control.clone(), Arc::new(AtomicBool::new(true)), ALIVE));
        Ok(guest)
    }

    fn open_for(
        self,
        side: Side,
        (introduction, rules): (Introduction, &Rules),
        (options, scan): (&Options, bool),
        monitor: &dyn Monitor,
    ) -> Result<Guest, SyncError> {
        let Greeted { remote, mut control, heard } = self;
        let failed = |error: ChannelError| SyncError::of_remote(&remote.shown, error);
        let open = open_message(&remote, side, (introduction, rules), options)?;
        control.send(&Message::Open(open)).map_err(failed)?;
        if scan {
            control.send(&Message::Scan(Nothing)).map_err(failed)?;
        }
        control.flush().map_err(failed)?;
        if !heard {
            hear_hello(&mut control).map_err(failed)?;
        }
        remote.connection.limit(options.transfer.limit);
        let mut each = |message| {
            if let Message::Notice(Notice { text }) = message {
                monitor.notice(&format!("{}: {}", remote.shown, escape(text.as_bytes())));
            }
        };
        let opened = match wait(&mut control, monitor, STOPPING, &mut each).map_err(failed)? {
            None => return Err(SyncError::Cancelled),
            Some(Message::Opened(opened)) => opened,
            Some(Message::Refused(_)) if monitor.cancelled() => return Err(SyncError::Cancelled),
            Some(other) => return Err(failed(ChannelError::unexpected(other, "the folder"))),
        };
        let rules = parsed(&opened.rules, &remote.shown)?;
        let identity = opened.introduction.identity;
        let identity = identity
            .ok_or_else(|| failed(ChannelError::Unexpected { found: "a folder without a replica", expected: "its replica" }))?;
        // What its user has decided it tells with its scan.
        let (location, speaker) = (remote.location(), remote.speaker());
        let facts = Facts { identity, passing: opened.passing, location, speaker, decisions: true };
        let there = Arc::new(RemoteThere::new(remote.connection.clone(), facts, 0).with_transfer(&options.transfer));
        Ok(Guest {
            remote,
            control: Arc::new(Mutex::new(control)),
            alive: None,
            there,
            side,
            opened,
            rules,
            scanned: None,
            told: None,
            done: Numbers::default(),
            over: false,
        })
    }
}

/// The ignore rules of a folder there.
pub(super) fn parsed(rules: &str, shown: &str) -> Result<Rules, SyncError> {
    Rules::parse(rules).map_err(|source| SyncError::RuleFile { path: format!("{shown}/{}", crate::ignore::FILE).into(), source })
}

impl Guest {
    /// As one side of a run. `working`: does this side work at present?
    pub(super) fn half(mut self, working: &Arc<AtomicBool>) -> Half {
        self.alive = Some(Alive::begin(self.control.clone(), working.clone(), ALIVE));
        let reads = self.opened.mode != Mode::ReceiveOnly;
        Half { there: self.there(), reads, remote: true, local: None, end: Box::new(self) }
    }

    /// The root as a source.
    pub(super) fn there(&self) -> Arc<dyn There> {
        self.there.clone()
    }

    /// Asks, and waits for the answer. `item` sees what is told on the way.
    fn ask(&mut self, question: &Message, monitor: &dyn Monitor, item: &mut dyn FnMut(wire::Item)) -> Result<Message, SyncError> {
        let shown = self.remote.shown.clone();
        let failed = |error: ChannelError| SyncError::of_remote(&shown, error);
        self.control().send(question).map_err(failed)?;
        self.answer(monitor, item)
    }

    fn answer(&mut self, monitor: &dyn Monitor, item: &mut dyn FnMut(wire::Item)) -> Result<Message, SyncError> {
        let (shown, done) = (&self.remote.shown, &mut self.done);
        let answer = wait(&mut lock(&self.control), monitor, STOPPING, &mut |message| match message {
            Message::Progress(progress) => done.tell(&progress, monitor),
            Message::Notice(Notice { text }) => monitor.notice(&format!("{shown}: {}", escape(text.as_bytes()))),
            Message::Item(told) => item(told),
            _ => {}
        });
        let answer = match answer {
            Ok(None) => {
                monitor.notice(&format!(
                    "{shown}: it did not stop within {} seconds, and is left alone; it stops by itself, and records what it did",
                    STOPPING.as_secs()
                ));
                return Err(self.ended(SyncError::Cancelled));
            }
            Ok(Some(Message::Refused(_))) if monitor.cancelled() => return Err(self.ended(SyncError::Cancelled)),
            Ok(Some(Message::Refused(refused))) => Err(ChannelError::Refused(refused)),
            Ok(Some(answer)) => Ok(answer),
            Err(error) => Err(error),
        };
        answer.map_err(|error| {
            let error = SyncError::of_remote(&self.remote.shown, error);
            self.ended(error)
        })
    }

    /// The run is over on the other side too: nothing more is to be said there.
    fn ended(&mut self, error: SyncError) -> SyncError {
        self.over = true;
        error
    }

    fn unexpected(&self, found: Message, expected: &'static str) -> SyncError {
        SyncError::of_remote(&self.remote.shown, ChannelError::unexpected(found, expected))
    }

    /// Tells the other side what this one is now, if it does not know.
    fn tell(&mut self, here: &dyn There, unavailable: &[RelPath]) -> Result<(), SyncError> {
        let Facts { identity, passing, decisions, .. } = here.facts()?;
        let seq = here.listing(&RelPath::root(), &Filter::header())?.seq;
        if unavailable.len() > wire::MAX_LIST {
            let most = wire::MAX_LIST;
            return Err(SyncError::Root(format!(
                "more than {most} paths below the roots are unavailable: mount their file systems"
            )));
        }
        let ready = Ready { identity, seq, passing, unavailable: unavailable.to_vec(), decisions };
        if self.told.as_ref() == Some(&ready) {
            return Ok(());
        }
        // What is told of this side must be true after a power cut too.
        here.make_durable()?;
        let sent = self.control().send(&Message::Ready(ready.clone()));
        sent.map_err(|error| SyncError::of_remote(&self.remote.shown, error))?;
        self.told = Some(ready);
        Ok(())
    }

    /// What the other side says that it is now: still the replica that opened the folder.
    fn learn(&self, identity: wire::Identity, seq: u64) -> Result<(), SyncError> {
        let known = self.there.facts()?;
        if (known.identity.replica, known.identity.instance) != (identity.replica, identity.instance) {
            let error = ChannelError::Unexpected { found: "another replica", expected: "the one that opened the folder" };
            return Err(SyncError::of_remote(&self.remote.shown, error));
        }
        // In a run decisions are carried out, and none is made.
        let decisions = self.scanned.as_ref().is_none_or(|scanned| scanned.decisions);
        self.there.learn(Facts { identity, decisions, ..known }, seq);
        Ok(())
    }

    fn control(&self) -> MutexGuard<'_, Channel> {
        lock(&self.control)
    }
}

impl Remote {
    /// By what the root is recognised when it comes under another identity.
    pub(super) fn location(&self) -> Vec<u8> {
        self.shown.clone().into_bytes()
    }

    /// Who tells of it.
    pub(super) fn speaker(&self) -> Speaker {
        match &self.vouched {
            Some(name) => Speaker::Vouched(name.clone()),
            None => Speaker::Machine(self.connection.peer_id()),
        }
    }
}

/// Asks, and receives the answer: all of it within that time, however slowly it comes.
pub(super) fn answer_within(control: &mut Channel, question: &Message, time: Duration) -> Result<Message, ChannelError> {
    control.send(question).and_then(|()| receive_within(control, time))
}

/// What comes next: all of it within that time.
fn receive_within(control: &mut Channel, time: Duration) -> Result<Message, ChannelError> {
    control.set_deadline(Some(Instant::now() + time));
    let received = control.receive();
    control.set_deadline(None);
    received
}

pub(super) fn hello(control: &mut Channel) -> Result<(), ChannelError> {
    say_hello(control)?;
    hear_hello(control)
}

fn say_hello(control: &mut Channel) -> Result<(), ChannelError> {
    let hello = Hello {
        versions: Versions::OURS,
        program: concat!("driftless ", env!("CARGO_PKG_VERSION")).into(),
        capabilities: 0,
        nonce: super::random_bytes()?,
        token: Vec::new(),
    };
    control.send(&Message::Hello(hello))
}

/// What is said besides in the meantime does not matter to who cannot be spoken with.
fn hear_hello(control: &mut Channel) -> Result<(), ChannelError> {
    match receive_within(control, WAIT)? {
        Message::HelloAnswer(answer) if offered(answer.version) => {
            control.trust();
            Ok(())
        }
        Message::HelloAnswer(_) => {
            let text = "it speaks a version of the protocol that was not offered: bring both sides to the same release".into();
            Err(ChannelError::Refused(wire::Refused { code: Refusal::Version, text }))
        }
        other => Err(ChannelError::unexpected(other, "the answer to the greeting")),
    }
}

fn offered(version: u32) -> bool {
    (Versions::OURS.oldest..=Versions::OURS.newest).contains(&version)
}

fn open_message(
    remote: &Remote,
    side: Side,
    (introduction, rules): (Introduction, &Rules),
    options: &Options,
) -> Result<Open, SyncError> {
    let run_rules = options.ignore.join("\n");
    for (text, what) in [(rules.text(), "the ignore rules of the folder here"), (&run_rules, "the ignore rules of this run")] {
        if text.len() > wire::MAX_RULES {
            let most = wire::MAX_RULES;
            return Err(SyncError::Root(format!(
                "{what} have {} bytes, and {most} are the most that another machine takes; use wildcards instead of single paths",
                text.len()
            )));
        }
    }
    let end = |wanted: Side| if wanted == side { wire::Side::Asked } else { wire::Side::Asker };
    Ok(Open {
        folder: remote.folder.as_str().into(),
        sub: remote.sub.clone(),
        introduction,
        dry_run: options.dry_run,
        rejoin: options.rejoin,
        checksum: options.checksum,
        scope: {
            let mut scope = options.paths.clone();
            scope.sort();
            scope.dedup();
            scope
        },
        policy: match options.conflicts {
            Policy::Skip => wire::Policy::Skip,
            Policy::KeepBoth => wire::Policy::KeepBoth,
            Policy::Newer => wire::Policy::Newer,
            Policy::Older => wire::Policy::Older,
            Policy::Wins(wanted) if wanted == side => wire::Policy::Asked,
            Policy::Wins(_) => wire::Policy::Asker,
        },
        force: options.force.map(end),
        mask: options.mask,
        run_rules,
        rules: rules.text().into(),
        max_delete: match options.max_delete {
            None => wire::MaxDelete::Off,
            Some(MaxDelete::Count(count)) => wire::MaxDelete::Count(count.min(wire::MAX_SIZE)),
            Some(MaxDelete::Percent(percent)) => wire::MaxDelete::Percent(percent),
        },
        transfer: options.transfer,
        watched: options.watched.map(|quiet| u64::try_from(quiet.as_millis()).unwrap_or(wire::MAX_SIZE).min(wire::MAX_SIZE)),
    })
}

/// Waits for the answer of a side that works, and tells it when the user wants to stop. `each` sees what comes on the way. `None`: it
/// went on for longer than `stopping` after it had been told.
fn wait(
    control: &mut Channel,
    monitor: &dyn Monitor,
    stopping: Duration,
    each: &mut dyn FnMut(Message),
) -> Result<Option<Message>, ChannelError> {
    control.set_read_wait(GLANCE);
    let (mut heard, mut told) = (Instant::now(), None);
    loop {
        match told {
            None if monitor.cancelled() => {
                control.send(&Message::Cancel(Nothing))?;
                told = Some(Instant::now());
            }
            // A side that says that it works could do so for ever.
            Some(told) if told.elapsed() > stopping => return Ok(None),
            _ => {}
        }
        match control.poll()? {
            Some(message @ (Message::Progress(_) | Message::Notice(_) | Message::Item(_))) => {
                heard = Instant::now();
                each(message);
            }
            Some(answer) => return Ok(Some(answer)),
            None if heard.elapsed() > SILENCE => {
                let text = format!("it said nothing for {} seconds", SILENCE.as_secs());
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, text).into());
            }
            None => {}
        }
    }
}

impl Numbers {
    /// The monitor is told what came since the last time.
    fn tell(&mut self, progress: &Progress, monitor: &dyn Monitor) {
        if self.phase != Some(progress.phase) {
            *self = Numbers { phase: Some(progress.phase), ..Numbers::default() };
        }
        monitor.advance(progress.files.saturating_sub(self.files), progress.bytes.saturating_sub(self.bytes));
        (self.files, self.bytes) = (progress.files.max(self.files), progress.bytes.max(self.bytes));
    }
}

impl End for Guest {
    fn scan(&mut self, _: &ScanTerms<'_>, monitor: &dyn Monitor) -> Result<Scanned, SyncError> {
        // The first one was asked for when the folder was opened.
        let answer = match self.scanned.take() {
            None => self.answer(monitor, &mut |_| {})?,
            Some(_) => self.ask(&Message::Scan(Nothing), monitor, &mut |_| {})?,
        };
        let scanned = match answer {
            Message::Scanned(scanned) => scanned,
            other => return Err(self.unexpected(other, "what the scan found")),
        };
        self.done = Numbers::default();
        let (identity, seq) = (scanned.identity, scanned.seq);
        let problems: Vec<_> = scanned.problems.iter().cloned().map(Into::into).collect();
        problems.iter().for_each(|problem| monitor.problem(problem));
        let found = Scanned {
            entries: scanned.entries,
            changed: scanned.changed,
            vanished: scanned.vanished,
            specials: 0,
            problems,
            failed: scanned.failed,
            unavailable: scanned.unavailable.clone(),
            event: None,
        };
        self.scanned = Some(scanned);
        self.learn(identity, seq)?;
        Ok(found)
    }

    fn root(&self) -> Result<Option<Listing>, SyncError> {
        Ok(self.scanned.as_ref().map(|scanned| Listing {
            path: RelPath::root(),
            sub: Arc::new(scanned.sub.clone()),
            bound: Arc::new(scanned.bound.clone()),
            digest: scanned.digest,
            seq: scanned.seq,
            full: false,
            children: Vec::new(),
        }))
    }

    fn survey(
        &mut self,
        there: &dyn There,
        asked: &Terms<'_>,
        each: Option<&mut dyn FnMut(&Item)>,
        monitor: &dyn Monitor,
    ) -> Result<Surveyed, SyncError> {
        self.tell(there, asked.unavailable)?;
        let question = Message::Survey(Survey { items: each.is_some() });
        let mut each = each;
        let answer = self.ask(&question, monitor, &mut |item| {
            if let Some(each) = &mut each {
                each(&item.into());
            }
        })?;
        match answer {
            Message::Surveyed(wire::Surveyed { totals, stopped }) => {
                let stopped = stopped.map(|text| SyncError::Guard(escape(text.as_bytes())));
                Ok(Surveyed { totals: totals.into(), stopped })
            }
            other => Err(self.unexpected(other, "what a pull would do")),
        }
    }

    fn pull(&mut self, there: &dyn There, asked: &Terms<'_>, number: u32, monitor: &dyn Monitor) -> Result<Pulled, SyncError> {
        if self.opened.mode == Mode::SendOnly {
            // The survey was refused if there was anything to bring.
            return Ok(Pulled { whole: true, ..Pulled::default() });
        }
        self.tell(there, asked.unavailable)?;
        let question = Message::Apply(Apply { number, items: monitor.wants_items() });
        let side = self.side.index();
        let answer = self.ask(&question, monitor, &mut |item| {
            if let Some(done) = item.done {
                monitor.item(&item.into(), side, done.into());
            }
        })?;
        let applied = match answer {
            Message::Applied(applied) => applied,
            other => return Err(self.unexpected(other, "what a pull did")),
        };
        self.learn(applied.identity, applied.seq)?;
        let problems: Vec<_> = applied.problems.into_iter().map(Into::into).collect();
        problems.iter().for_each(|problem| monitor.problem(problem));
        let by_itself = (applied.cancelled && !monitor.cancelled()).then(|| {
            let shown = &self.remote.shown;
            SyncError::Root(format!("{shown}: the other side was stopped; what was done is recorded. Run again"))
        });
        Ok(Pulled {
            totals: applied.totals.into(),
            problems,
            whole: applied.whole,
            cancelled: applied.cancelled,
            again: applied.again,
            news: applied.news,
            stopped: applied.stopped.map(|text| SyncError::Guard(escape(text.as_bytes()))).or(by_itself),
        })
    }

    /// The other side does it when the run is over.
    fn tidy(&mut self, _: &Options, _: &dyn Monitor) -> Result<(), SyncError> {
        Ok(())
    }

    fn finish(&mut self, there: &dyn There, _: &Options, monitor: &dyn Monitor) -> Result<RulesNow, SyncError> {
        self.tell(there, &[])?;
        match self.ask(&Message::Finish(Nothing), monitor, &mut |_| {})? {
            Message::Finished(finished) => Ok(match finished.rules {
                wire::RulesNow::Same => RulesNow::Same,
                wire::RulesNow::Other(text) => Rules::parse(&text).map_or(RulesNow::Unusable, RulesNow::Other),
                wire::RulesNow::Unusable => RulesNow::Unusable,
            }),
            other => Err(self.unexpected(other, "the end of the run")),
        }
    }
}

impl Drop for Guest {
    /// Says goodbye: the other side need not find out by itself that the run is over.
    fn drop(&mut self) {
        drop(self.alive.take());
        let mut control = self.control();
        // Where it cannot be said the connection has ended, which says the same.
        if !self.over && control.send(&Message::Bye(Nothing)).and_then(|()| control.flush()).is_ok() {
            let _ = self.remote.connection.wait_closed(FAREWELL);
        }
        self.remote.connection.close(CloseCode::Done);
    }
}

impl Alive {
    fn begin(control: Arc<Mutex<Channel>>, working: Arc<AtomicBool>, every: Duration) -> Alive {
        let over = Arc::new(AtomicBool::new(false));
        let ending = over.clone();
        let thread = thread::spawn(move || {
            let mut last = Instant::now();
            while !ending.load(Ordering::Acquire) {
                thread::park_timeout(every.saturating_sub(last.elapsed()));
                if last.elapsed() < every {
                    continue;
                }
                last = Instant::now();
                if !working.load(Ordering::Acquire) {
                    continue;
                }
                let free = match control.try_lock() {
                    // Whoever holds the channel is heard of by what it says.
                    Err(TryLockError::WouldBlock) => None,
                    // As everywhere else: a panic of whoever held it before closes no lock.
                    Err(TryLockError::Poisoned(panicked)) => Some(panicked.into_inner()),
                    Ok(control) => Some(control),
                };
                if let Some(mut control) = free {
                    let phase = wire::Phase::Apply;
                    let progress = Progress { phase, files: 0, files_total: None, bytes: 0, bytes_total: None };
                    // Whoever asks next finds out that it cannot be said.
                    let _ = control.send(&Message::Progress(progress)).and_then(|()| control.flush());
                }
            }
        });
        Alive { over, thread: Some(thread) }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there is a defect that changes nothing of what was done.
            let _ = thread.join();
        }
    }
}

impl Answering {
    /// About the root here. `news` rings when the other side tells of a change, and when the connection ends.
    pub(super) fn begin(connection: Arc<Connection>, opened: Arc<Opened>, asker: Speaker, news: Option<Arc<News>>) -> Answering {
        let link = connection.clone();
        let thread = std::thread::spawn(move || {
            answer_all(&link, &opened, &asker, None, news.as_deref());
            news.iter().for_each(|news| news.ring());
        });
        Answering { connection, thread: Some(thread) }
    }

    /// By passing them on to the machine that can answer.
    pub(super) fn relay(connection: Arc<Connection>, to: Arc<Connection>, news: Option<Arc<News>>) -> Answering {
        let link = connection.clone();
        let thread = std::thread::spawn(move || {
            accept_all(&link, &|stream| pass_on(stream, &to, news.as_deref()));
            news.iter().for_each(|news| news.ring());
        });
        Answering { connection, thread: Some(thread) }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.connection.close(CloseCode::Done);
        if let Some(thread) = self.thread.take() {
            // What became of the questions the side that asked them knows.
            let _ = thread.join();
        }
    }
}

/// Answers the questions of every stream that the other side opens.
pub(super) fn answer_all(
    connection: &Connection,
    opened: &Opened,
    asker: &Speaker,
    gate: Option<&Gate<'_>>,
    news: Option<&News>,
) {
    let parked = Parked::default();
    // What it is now the other side says elsewhere.
    let heard = |told: Told| {
        if let (Told::Changed, Some(news)) = (told, news) {
            news.ring();
        }
    };
    let heard = news.is_some().then_some(&heard as &(dyn Fn(Told) + Sync));
    accept_all(connection, &|stream| {
        // What goes wrong is told to the side that asks, and ends its run.
        let _ = respond(stream, &Here { heard, ..opened.here(asker.clone(), gate) }, &parked);
    });
}

/// Takes every stream, each in a thread of its own; there are no more than the link allows.
pub(super) fn accept_all(connection: &Connection, each: &(dyn Fn(Stream) + Sync)) {
    std::thread::scope(|scope| {
        loop {
            match connection.accept(SILENCE) {
                Ok(stream) => {
                    scope.spawn(move || each(stream));
                }
                Err(LinkError::TooLong(_)) => {}
                Err(_) => return,
            }
        }
    });
}

/// Carries a stream's bytes to another machine, and the answers back, until both ways have ended. That something changed is told to
/// this machine, and to no other.
fn pass_on(mut from: Stream, to: &Connection, news: Option<&News>) {
    let mut first = Vec::new();
    if let Some(news) = news {
        from.reader.set_wait(PATIENCE);
        let mut changed = Vec::new();
        // It has no fields: it cannot be too long for a frame.
        let Ok(()) = wire::put_frame(&Message::Changed(Nothing), &mut changed) else { return };
        loop {
            first = vec![0; changed.len()];
            // Every message is as long at the least.
            if from.reader.read_exact(&mut first).is_err() {
                return;
            }
            if first != changed {
                break;
            }
            news.ring();
        }
    }
    // Whoever asked finds out that its stream was given up.
    let Ok(mut to) = to.open(WAIT) else { return };
    if to.writer.write_all(&first).is_err() {
        return;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| copy(from.reader, to.writer));
        copy(to.reader, from.writer);
    });
}

/// The end that was made is made here too; a stream that was given up is given up.
fn copy(mut from: Reader, mut to: Writer) {
    from.set_wait(PATIENCE);
    to.set_wait(PATIENCE);
    if std::io::copy(&mut from, &mut to).is_ok() {
        let _ = to.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::link::local_pair;
    use crate::peer::PublicKey;

    /// The asking side's channel, and the other one, which has read its first message.
    fn ends() -> ([Arc<Connection>; 2], [Channel; 2]) {
        let [near, far] = local_pair([1, 2].map(|key| PublicKey::from_bytes([key; 32])), [3; 32]);
        let mut asking = Channel::new(near.open(WAIT).unwrap());
        asking.send(&Message::Scan(Nothing)).and_then(|()| asking.flush()).unwrap();
        let mut asked = Channel::new(far.accept(WAIT).unwrap());
        assert!(matches!(asked.receive().unwrap(), Message::Scan(_)));
        ([near, far].map(Arc::new), [asking, asked])
    }

    fn progress() -> Message {
        let phase = wire::Phase::Scan;
        Message::Progress(Progress { phase, files: 0, files_total: None, bytes: 0, bytes_total: None })
    }

    /// A user who wants to stop.
    struct Stopped;

    impl Monitor for Stopped {
        fn cancelled(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_side_that_works_on_although_it_was_told_to_stop_is_left_alone() {
        let ([near, _far], [mut asking, mut asked]) = ends();
        thread::scope(|scope| {
            scope.spawn(move || {
                assert!(matches!(asked.receive().unwrap(), Message::Cancel(_)));
                // It works for ever.
                while asked.send(&progress()).and_then(|()| asked.flush()).is_ok() {
                    thread::yield_now();
                }
            });
            let waited = wait(&mut asking, &Stopped, Duration::from_millis(50), &mut |_| {});
            assert!(matches!(waited, Ok(None)), "{waited:?}");
            near.close(CloseCode::Done);
        });
    }

    #[test]
    fn an_answer_that_comes_after_the_wish_to_stop_counts() {
        let (_ends, [mut asking, mut asked]) = ends();
        thread::scope(|scope| {
            scope.spawn(move || {
                assert!(matches!(asked.receive().unwrap(), Message::Cancel(_)));
                for message in [progress(), Message::Bye(Nothing)] {
                    asked.send(&message).and_then(|()| asked.flush()).unwrap();
                }
                // The stream stays until the other side has read.
                let _ = asked.next_or_end();
            });
            let waited = wait(&mut asking, &Stopped, STOPPING, &mut |_| {});
            assert!(matches!(waited, Ok(Some(Message::Bye(_)))), "{waited:?}");
            asking.finish().unwrap();
        });
    }

    #[test]
    fn an_answer_that_trickles_in_is_waited_for_no_longer_than_one_that_does_not_come() {
        let (connection, _) = ends();
        let mut asking = Channel::new(connection[0].open(WAIT).unwrap());
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut answering = connection[1].accept(WAIT).unwrap();
                answering.writer.write_all(&(wire::MAX_FRAME as u32).to_le_bytes()).unwrap();
                while !over.load(Ordering::Acquire) {
                    answering.writer.write_all(&[1]).unwrap();
                    // What is tried here is its slowness.
                    thread::sleep(Duration::from_millis(2));
                }
            });
            let answer = answer_within(&mut asking, &Message::Bye(Nothing), Duration::from_millis(100));
            over.store(true, Ordering::Release);
            let timed_out = |error: &std::io::Error| error.kind() == std::io::ErrorKind::TimedOut;
            assert!(matches!(&answer, Err(ChannelError::Io(error)) if timed_out(error)), "{answer:?}");
        });
    }

    #[test]
    fn as_long_as_this_side_works_the_other_one_hears_of_it() {
        let (_ends, [asking, mut asked]) = ends();
        let (control, working) = (Arc::new(Mutex::new(asking)), Arc::new(AtomicBool::new(true)));
        let alive = Alive::begin(control.clone(), working, Duration::from_millis(1));
        for _ in 0..3 {
            assert!(matches!(asked.receive().unwrap(), Message::Progress(_)));
        }
        drop(alive);
        lock(&control).send(&Message::Bye(Nothing)).unwrap();
        lock(&control).flush().unwrap();
        let mut next = asked.receive().unwrap();
        while matches!(next, Message::Progress(_)) {
            next = asked.receive().unwrap();
        }
        assert!(matches!(next, Message::Bye(_)));
    }

    #[test]
    fn a_panic_under_the_lock_of_a_channel_does_not_silence_it() {
        let (_ends, [asking, mut asked]) = ends();
        let control = Arc::new(Mutex::new(asking));
        let held = control.clone();
        let panicked = thread::spawn(move || {
            let _held = lock(&held);
            panic!("a defect of this test's making");
        });
        assert!(panicked.join().is_err() && control.is_poisoned());
        let _alive = Alive::begin(control, Arc::new(AtomicBool::new(true)), Duration::from_millis(1));
        assert!(matches!(asked.receive().unwrap(), Message::Progress(_)));
    }
}
