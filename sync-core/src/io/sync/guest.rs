//! A root on another machine as one end of a run: a [`LocalEnd`](super::end::LocalEnd) there is asked by messages.

use super::asking::{ALIVE, Alive, SILENCE, hear_hello, receive_within, say_hello, wait};
use super::drive::Half;
use super::end::{End, Pulled, RulesNow, ScanTerms, Surveyed};
use super::pulls::Terms;
use super::{MaxDelete, Options, Policy, Side, SyncError};
use crate::ignore::Rules;
use crate::io::channel::{Channel, ChannelError};
use crate::io::link::{CloseCode, Connection, WAIT};
use crate::io::mutex::lock;
use crate::io::remote::RemoteThere;
use crate::io::scan::Scanned;
use crate::io::speaker::Speaker;
use crate::io::there::{Facts, There};
use crate::path::{RelPath, escape};
use crate::peer::{Mode, Name};
use crate::plan::Item;
use crate::report::Monitor;
use crate::store::{Filter, Listing};
use crate::wire::{self, Apply, Introduce, Introduction, Message, Nothing, Notice, Open, Progress, Ready, Survey};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How long the other side may take to stop once the user wants to.
const STOPPING: Duration = Duration::from_secs(60);
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
            return Ok(Pulled { whole: true, decided: true, ..Pulled::default() });
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
            // Nobody asks that of the far end of a run.
            decided: applied.whole,
            cancelled: applied.cancelled,
            again: applied.again,
            news: applied.news,
            unread: 0,
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
