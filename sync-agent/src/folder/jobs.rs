//! What is done with a folder: it is looked at, and pulled into.

use super::shown::{from_peer, shown};
use super::watching::Watching;
use super::{Shared, Source};
use crate::log::Level;
use crate::permits::{Permit, Reply};
use crate::scheduler::{Ended, Job};
use crate::status::{Behind, LISTED, PathProblem, PathText};
use crate::works::{Watchful, now_ns};
use std::sync::Arc;
use std::time::Duration;
use sync_core::io::sync::{Brought, Live, SyncError};
use sync_core::io::watch::Beside;
use sync_core::path::RelPath;
use sync_core::peer::Id;

/// How long paths that failed are left alone.
const AGAIN: Duration = Duration::from_secs(5);
/// How far back writes to replaced versions are looked for while the agent runs.
const LATE: Duration = Duration::from_secs(600);

impl Shared {
    pub(super) fn carry_out(self: &Arc<Self>, live: &Arc<Live>, job: Job<Id>, watching: &mut Watching) -> Ended {
        let monitor = Watchful::of_job(self, job);
        match job {
            Job::Look => {
                let now = self.now();
                let paths = {
                    let mut inbox = self.inbox();
                    let paths = inbox.noticed.take(now);
                    inbox.looks(now);
                    paths
                };
                self.look(live, &paths, None, &monitor)
            }
            Job::LookAtAll => {
                {
                    let mut inbox = self.inbox();
                    inbox.noticed.clear();
                    inbox.scheduler.ready_at(None);
                }
                self.watch_beside(live, watching, |beside| self.look(live, &[], beside, &monitor))
            }
            Job::Pull(peer) => self.pull(live, peer, &monitor),
            Job::Tidy => {
                let done =
                    live.tidy(&monitor).and_then(|()| live.check_late(LATE, &monitor)).and_then(|()| self.count_kept(live));
                if let Err(error) = done {
                    self.failed(Source::Root, &error);
                }
                Ended::Well
            }
        }
    }

    /// Looks at these paths, or at everything if there are none; `beside` is watched by that.
    fn look(&self, live: &Live, paths: &[RelPath], beside: Option<&Beside>, monitor: &Watchful<'_>) -> Ended {
        let (rules, missing) = (live.rules_text(), live.missing().ok());
        // What lies in the cold root is looked at by whoever archives, day by day, so that nobody has to wait for it.
        let cold = paths.is_empty() && self.desk.has_rule();
        let scanned = match beside {
            Some(beside) => live.scan_beside(beside, cold, monitor),
            None if cold => live.scan_hot(monitor),
            None => live.scan(paths, monitor),
        };
        if cold && scanned.is_ok() {
            self.desk.looked();
        }
        let rules_changed = live.rules_text() != rules;
        let mounts_changed = live.missing().ok() != missing;
        let standing = live.standing();
        let conflicts = live.in_conflict(LISTED).ok();
        let mut inbox = self.inbox();
        standing.iter().for_each(|standing| inbox.facts.passed.is_at(standing.seq, now_ns()));
        match scanned {
            Ok(scanned) => {
                inbox.facts.unseen.looked(paths, &scanned.problems, scanned.failed);
                if !paths.is_empty() && scanned.failed > 0 {
                    // Nobody may tell of them again before everything is looked at.
                    let failed = scanned.problems.iter().map(|problem| problem.path.clone()).filter(|path| !path.is_root());
                    let now = self.now();
                    inbox.noticed.again(failed, now + AGAIN);
                    inbox.looks(now);
                }
                if scanned.changed + scanned.vanished > 0 {
                    inbox.facts.last_change = Some(now_ns());
                }
                inbox.facts.live = standing.ok().map(|standing| standing.live);
                inbox.facts.conflicts = conflicts;
                inbox.facts.said.remove(&Source::Look);
                // A conflict may be none any more by what was changed here.
                let in_conflict = inbox.facts.conflicts.as_ref().is_some_and(|(count, _)| *count > 0);
                if in_conflict && (paths.is_empty() || scanned.changed + scanned.vanished > 0) {
                    let now = self.now();
                    let peers: Vec<Id> = inbox.members.keys().copied().collect();
                    peers.into_iter().for_each(|peer| inbox.scheduler.heard(peer, now));
                }
                if mounts_changed {
                    // What was left alone for want of a file system is asked for again.
                    let now = self.now();
                    let peers: Vec<Id> = inbox.members.keys().copied().collect();
                    peers.into_iter().for_each(|peer| inbox.scheduler.ask_again(peer, now));
                }
                // Others must agree on the rules before anything more is exchanged.
                inbox.reopen |= rules_changed;
                if scanned.failed > 0 { Ended::InPart } else { Ended::Well }
            }
            Err(SyncError::Cancelled) => {
                inbox.noticed.extend(paths.iter().cloned());
                let now = self.now();
                inbox.looks(now);
                Ended::Stopped { further: false }
            }
            Err(error) => {
                if !paths.is_empty() {
                    // What was noticed is looked at with everything else.
                    let now = self.now();
                    inbox.scheduler.look_at_all(now);
                }
                drop(inbox);
                self.failed(Source::Look, &error);
                Ended::Badly
            }
        }
    }

    /// Leave for an exchange, if not too many are under way; else the folder is called in its turn.
    fn permit(self: &Arc<Self>) -> Option<Permit<'_>> {
        let folder = Arc::downgrade(self);
        let call = move || folder.upgrade().map_or(Reply::Gone, |folder| folder.is_called());
        self.permits.take(self.who(), Box::new(call))
    }

    /// There is leave for a pull.
    fn is_called(&self) -> Reply {
        let mut inbox = self.inbox();
        inbox.scheduler.freed();
        if inbox.scheduler.is_paused() || self.is_stopping() {
            return Reply::Gone;
        }
        inbox.called = true;
        let busy = inbox.running.is_some();
        drop(inbox);
        self.wake.notify_all();
        if busy { Reply::Busy } else { Reply::Comes }
    }

    /// So many bytes came over the link while content was brought: how fast, if that says anything.
    fn loaded(&self, peer: Id, monitor: &Watchful<'_>, received: u64) {
        let Some((bytes, took)) = monitor.load() else { return };
        // What was here already came from nowhere, and what came besides is no content.
        if let Some(joined) = self.inbox().members.get_mut(&peer) {
            joined.quality.load(bytes.min(received), took);
        }
    }

    fn pull(self: &Arc<Self>, live: &Live, peer: Id, monitor: &Watchful<'_>) -> Ended {
        let found = self.inbox().members.get(&peer).map(|joined| (Arc::clone(&joined.member), joined.number));
        let Some((member, number)) = found else { return Ended::Badly };
        if !member.may_be_pulled() {
            return Ended::Well;
        }
        let seq = member.seq();
        // What came through others is not asked for again.
        let pulled = match live.covers(&member) {
            Ok(true) => Ok(Brought { whole: true, ..Brought::default() }),
            Ok(false) => {
                // Said before: whoever frees one may be faster.
                self.inbox().scheduler.waits(peer, true);
                let Some(_permit) = self.permit() else { return Ended::Waits };
                self.inbox().scheduler.waits(peer, false);
                let before = member.received();
                let pulled = live.pull(&member, monitor);
                self.loaded(peer, monitor, member.received().saturating_sub(before));
                pulled
            }
            Err(error) => Err(error),
        };
        if let Ok(brought) = &pulled {
            self.count_brought(&brought.totals);
        }
        let conflicts = live.in_conflict(LISTED).ok();
        let standing = live.standing().ok();
        let mut inbox = self.inbox();
        let name = inbox.name_of(peer);
        inbox.facts.conflicts = conflicts;
        standing.iter().for_each(|standing| inbox.facts.passed.is_at(standing.seq, now_ns()));
        inbox.facts.live = standing.map(|standing| standing.live).or(inbox.facts.live);
        let ended = match &pulled {
            Ok(brought) => {
                let Brought { totals, problems, whole, unread, cancelled, news } = brought;
                if *news {
                    inbox.facts.last_change = Some(now_ns());
                }
                if !cancelled {
                    inbox.facts.stopped.remove(&peer);
                }
                let listed = problems.iter().take(LISTED).map(shown).collect();
                inbox.facts.problems.insert(Source::Pull(peer), (totals.failed.max(problems.len() as u64), listed));
                inbox.facts.said.remove(&Source::Pull(peer));
                if *unread > 0 {
                    inbox.is_to_read(peer, self.now());
                } else if !cancelled {
                    inbox.all_read(peer);
                }
                // What failed besides is tried again in its time.
                let failed = !problems.is_empty() || totals.failed > 0;
                match (cancelled, whole) {
                    (false, false) if *unread > 0 && !failed => Ended::Unread,
                    (true, _) => monitor.stopped(),
                    (false, true) => Ended::Well,
                    (false, false) => Ended::InPart,
                }
            }
            Err(SyncError::Cancelled) => monitor.stopped(),
            Err(error) => {
                // A guard, or a root that cannot be changed, waits for somebody who looks. What fails elsewhere says nothing of either.
                let text = from_peer(error, &self.name, &name);
                if matches!(error, SyncError::Guard(_) | SyncError::Anew(_)) {
                    inbox.facts.problems.remove(&Source::Pull(peer));
                    inbox.facts.stopped.insert(peer, text);
                } else if !error.is_elsewhere() {
                    inbox.facts.stopped.remove(&peer);
                    let problem = PathProblem { place: PathText::new(b""), step: "pull".into(), error: text };
                    inbox.facts.problems.insert(Source::Pull(peer), (1, vec![problem]));
                }
                Ended::Badly
            }
        };
        let report = inbox.members.get_mut(&peer).filter(|joined| joined.number == number).map(|joined| {
            if matches!(ended, Ended::Well) {
                (joined.incorporated, joined.last_sync) = (seq, Some(now_ns()));
                joined.lacking = Some(Behind { files: 0, bytes: 0, since: None, oldest: None });
            }
            joined.report()
        });
        drop(inbox);
        if let Ok(Brought { unread: unread @ 1.., .. }) = &pulled {
            let text = format!("{unread} files have to be read to compare them with those of {name}; all else goes on meanwhile");
            self.say(Source::Read(peer), Level::Info, &text);
            // Whoever reads hears of it.
            self.wake.notify_all();
        }
        if let Some(report) = report {
            member.report(report);
        }
        if let Err(error) = pulled
            && ended == Ended::Badly
        {
            self.failed(Source::Pull(peer), &error);
        }
        ended
    }
}
