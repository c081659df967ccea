//! What a user asks of the root while it is open, or does in it by hand: it is the same as in a root that nobody has open.

use super::Shared;
use super::archiving::Turn;
use crate::archive::run::{Ground, RunError};
use crate::archive::{Order, Terms};
use crate::control::{Ask, Asker, ConflictText, ControlError, Refused, Tell, VersionText, path, text};
use crate::days;
use crate::log::Level;
use crate::status::PathText;
use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;
use sync_core::entry::Hash;
use sync_core::io::archive::{ArchiveError, Repair};
use sync_core::io::fs::Root;
use sync_core::io::sync::{Live, SyncError};
use sync_core::path::RelPath;
use sync_core::peer::Id;
use sync_core::report::Monitor;

/// How often it is looked whether somebody still waits.
const GLANCE: Duration = Duration::from_millis(200);
/// Whoever waits for a run so long is told so.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is said then.
const RUNNING: &str = "the agent archives days at present: this waits until that run has ended";

/// Listens to what somebody asked for: it ends with its step when that one has gone, or the root is to be closed.
struct Heeding<'a> {
    shared: &'a Shared,
    live: &'a Arc<Live>,
    asker: &'a Asker<'a>,
}

impl Monitor for Heeding<'_> {
    fn cancelled(&self) -> bool {
        self.asker.has_gone() || self.shared.is_closing(self.live)
    }

    fn notice(&self, text: &str) {
        self.asker.tell(Tell::Notice(text.to_owned()));
    }
}

/// Somebody waits for a turn: pulls make room.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Shared) -> Waiting<'a> {
        shared.waiting.fetch_add(1, Ordering::AcqRel);
        Waiting(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        // Whoever looked at it a moment before waits by now, and hears of it.
        drop(self.0.inbox());
        self.0.wake.notify_all();
    }
}

impl Shared {
    /// Is the root to be closed, for good or to be opened anew, or was it?
    fn is_closing(&self, live: &Arc<Live>) -> bool {
        let inbox = self.inbox();
        self.is_stopping() || inbox.reopen || !inbox.live.as_ref().is_some_and(|open| Arc::ptr_eq(open, live))
    }

    /// Answers a question, or does what is asked for.
    pub(crate) fn ask(&self, ask: &Ask, asker: &Asker<'_>) -> Result<(), ControlError> {
        if *ask == Ask::Rejoin {
            return self.begin_anew(asker);
        }
        let live = self.live().filter(|live| !self.is_closing(live)).ok_or_else(|| {
            let text = format!("the root of folder {} is not open at present: driftless agent status tells why", self.name);
            ControlError::new(Refused::NotOpen, text)
        })?;
        self.answer(&live, ask, asker)
    }

    fn answer(&self, live: &Arc<Live>, ask: &Ask, asker: &Asker<'_>) -> Result<(), ControlError> {
        let monitor = Heeding { shared: self, live, asker };
        let failed = |error: SyncError| match error {
            SyncError::Cancelled => {
                let text = format!("folder {} is being closed: nothing was done; try again in a moment", self.name);
                ControlError::new(Refused::Busy, text)
            }
            error => ControlError::new(Refused::Failed, error.to_string()),
        };
        match ask {
            Ask::Open | Ask::Rejoin => {}
            Ask::Conflicts => {
                let open = live.conflicts().map_err(failed)?;
                asker.tell_all(open.iter().map(ConflictText::from), Tell::Conflicts);
            }
            Ask::Versions { at } => {
                let kept = live.versions(&below(at)?).map_err(failed)?;
                asker.tell_all(kept.iter().map(VersionText::from), Tell::Versions);
            }
            Ask::Resolve { paths, keep } => {
                let paths = paths.iter().map(below).collect::<Result<Vec<RelPath>, ControlError>>()?;
                let resolved = {
                    let _waiting = Waiting::begin(self);
                    live.resolve(&paths, *keep, &monitor).map_err(failed)?
                };
                asker.tell_all(resolved.iter().map(text), Tell::Resolved);
                self.ask_everybody();
            }
            Ask::Restore { at, version } => {
                let path = below(at)?;
                let restored = {
                    let _waiting = Waiting::begin(self);
                    live.restore(&path, *version, &monitor).map_err(failed)?
                };
                // A watch may have too few directories to notice it.
                self.look_at(vec![path]);
                asker.tell(Tell::Versions(vec![VersionText::from(&restored)]));
            }
            Ask::Plan { .. } | Ask::Return { .. } | Ask::Verify { .. } => {
                let mut hear = |piece| asker.tell(Tell::Days(piece));
                self.do_by_hand(live, ask, &monitor, &mut hear)?;
            }
        }
        Ok(())
    }

    /// Has the root closed, and opened as one that begins anew from its files; returns once it is open.
    fn begin_anew(&self, asker: &Asker<'_>) -> Result<(), ControlError> {
        let (tell, told) = sync_channel(1);
        {
            let mut inbox = self.inbox();
            if inbox.rejoin.is_some() {
                let text = format!("folder {} is about to begin anew: somebody asked for it before", self.name);
                return Err(ControlError::new(Refused::Busy, text));
            }
            inbox.rejoin = Some(tell);
            inbox.reopen = true;
        }
        self.wake.notify_all();
        self.log(Level::Notice, "begins anew from its files, as somebody asked");
        loop {
            match told.recv_timeout(GLANCE) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => return Err(ControlError::new(Refused::Failed, why)),
                Err(RecvTimeoutError::Timeout) if !asker.has_gone() && !self.is_stopping() => {}
                Err(_) => {
                    // Whoever has gone did not change its mind: it is left to be done.
                    let text = format!("folder {} is being closed: driftless agent status tells what came of it", self.name);
                    return Err(ControlError::new(Refused::Busy, text));
                }
            }
        }
    }

    /// All peers are pulled from now: what was decided is carried out.
    fn ask_everybody(&self) {
        let now = self.now();
        let mut inbox = self.inbox();
        let peers: Vec<Id> = inbox.members.keys().copied().collect();
        peers.into_iter().for_each(|peer| inbox.scheduler.ask_again(peer, now));
        drop(inbox);
        self.wake.notify_all();
    }

    /// What has to do with old days, in turn with the thread that archives them.
    fn do_by_hand(&self, live: &Arc<Live>, ask: &Ask, monitor: &Heeding<'_>, hear: days::Hear<'_>) -> Result<(), ControlError> {
        let failed = |error: RunError| match error {
            RunError::Archive(ArchiveError::Cancelled) | RunError::Root(SyncError::Cancelled) => {
                let text =
                    format!("folder {} is being closed: what was told until now was done; try again in a moment", self.name);
                ControlError::new(Refused::Busy, text)
            }
            error => ControlError::new(Refused::Failed, error.to_string()),
        };
        let turn = match ask {
            // It changes nothing: whoever reads days again, perhaps for hours, need not begin anew for it.
            Ask::Plan { .. } => self.while_nothing_moves(monitor).then_some(None),
            _ => self.turn_by_hand(monitor).map(Some),
        };
        let _turn = turn.ok_or_else(|| failed(SyncError::Cancelled.into()))?;
        let archive = live.archive(monitor).map_err(|error| failed(error.into()))?;
        let (ground, time) = (self.grounds_with_peers(live).map_err(failed)?, self.desk.clock.time());
        let whole = (&ground as &dyn Ground, &archive);
        let done = match ask {
            Ask::Plan { terms, accept_clock } => {
                let order = self.order_by_hand(terms, &ground)?;
                return days::plan(whole, &order, (&time, *accept_clock), hear).map_err(failed);
            }
            Ask::Return { at } => days::restore(whole, &below(at)?, &time, hear).map(|back| self.look_at(back)),
            Ask::Verify { repair_from } => {
                let from = repair_from.as_ref().map(|from| Root::open(Path::new(OsStr::from_bytes(&from.bytes())))).transpose();
                let from = from.map_err(|error| ControlError::new(Refused::Failed, error.to_string()))?;
                let open =
                    |path: &RelPath, _: Hash, _: u64| days::near(from.as_ref().expect("only asked where there is one"), path);
                let repair = from.as_ref().map(|_| &open as Repair<'_>);
                days::verify(whole, repair, (hear, &|day, scrub| self.found(live, (day, scrub), &|_| None)))
            }
            _ => Ok(()),
        };
        self.desk.done_by_hand();
        done.map_err(failed)
    }

    /// Waits until no run is under way; false once whoever asked has gone, or the root is to be closed.
    fn while_nothing_moves(&self, monitor: &Heeding<'_>) -> bool {
        let (begun, mut told) = (self.now(), false);
        while self.desk.is_running() {
            if monitor.cancelled() {
                return false;
            }
            if !told && self.now() >= begun + PATIENCE {
                told = true;
                monitor.notice(RUNNING);
            }
            self.desk.wait_for_change();
        }
        true
    }

    /// Waits until the thread that archives does nothing; `None` once whoever asked has gone, or the root is to be closed.
    fn turn_by_hand(&self, monitor: &Heeding<'_>) -> Option<Turn<'_>> {
        let (begun, told) = (self.now(), Cell::new(false));
        self.desk.turn(&|| {
            if !told.get() && self.desk.is_running() && self.now() >= begun + PATIENCE {
                told.set(true);
                monitor.notice(RUNNING);
            }
            monitor.cancelled()
        })
    }

    /// What was said of the rule, and for the rest the folder's own rule, or the one that is remembered.
    fn order_by_hand(&self, terms: &Terms, ground: &dyn Ground) -> Result<Order, ControlError> {
        let rule = self.desk.rule_now();
        let own = match &rule {
            Some(rule) => Some(Terms::of(rule)),
            None => days::remembered(ground).map_err(|error| ControlError::new(Refused::Failed, error.to_string()))?,
        };
        let order = Terms::clone(terms).or(own.unwrap_or_default()).order();
        let mut order = order.map_err(|why| ControlError::new(Refused::Configuration, why))?;
        order.rule.min_peers = rule.map_or(0, |rule| rule.min_peers);
        Ok(order)
    }

    /// Something changed there.
    pub(super) fn look_at(&self, paths: Vec<RelPath>) {
        if paths.is_empty() {
            return;
        }
        let now = self.now();
        let mut inbox = self.inbox();
        inbox.noticed.extend(paths);
        inbox.looks(now);
        drop(inbox);
        self.wake.notify_all();
    }
}

/// A path that was asked for.
fn below(at: &PathText) -> Result<RelPath, ControlError> {
    path(at).map_err(|error| ControlError::new(Refused::Request, error.to_string()))
}
