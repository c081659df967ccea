//! Listens for changes in a folder, and says which of them are to be looked at.
//!
//! The first look at everything sets the watches on its way (`watch::Beside`), so that no directory is listed twice at a start. Whatever
//! is told meanwhile waits; nothing would be looked at before that look has ended.

use super::{LONG, Shared, Source};
use crate::log::Level;
use crate::scheduler::{Ended, Moment};
use crate::status::Watches;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use sync_core::io::sync::Live;
use sync_core::io::watch::{self, Beside, Watch};
use sync_core::quiet::{Change, Limits, Quiet};

/// How often directories without a watch are looked at.
const POLL: Duration = Duration::from_secs(30);
/// How long a watch that could not begin, or broke, is left alone before it is tried again.
const AGAIN: Duration = Duration::from_secs(30);
/// Paths that were noticed and wait to be looked at; beyond it everything is.
const NOTICED: usize = 65_536;

/// What listens for changes in a root that is open.
pub(super) struct Watching {
    /// Watches that the first look at everything is to set, and the limit that they were begun with.
    first: Option<(Beside, Option<u64>)>,
    /// The thread that listens, from that look on.
    thread: Option<JoinHandle<()>>,
    end: Arc<End>,
}

/// How it is told to end.
#[derive(Default)]
pub(super) struct End {
    over: AtomicBool,
    /// Ends its wait for changes.
    waker: Mutex<Option<watch::Waker>>,
}

/// A watch that was begun, what gathers its changes, and the limit that it was begun with.
type Begun = (Watch, Quiet, Option<u64>);

impl End {
    /// Ends the wait for changes that is under way, or else the next one.
    fn wake(&self) {
        if let Some(waker) = &*self.waker() {
            waker.wake();
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn waker(&self) -> MutexGuard<'_, Option<watch::Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Begins to listen for changes. Watches are set by the first look at everything; until then nobody listens.
    pub(super) fn watch(self: &Arc<Self>, live: &Arc<Live>) -> Watching {
        let end = Arc::<End>::default();
        self.inbox().watch = Some(Arc::clone(&end));
        let mut watching = Watching { first: None, thread: None, end };
        match self.first_watch(live) {
            Ok(first) => watching.first = Some(first),
            Err(error) => self.listen_on(live, &mut watching, Err(error)),
        }
        watching
    }

    /// Looks at everything by `look`, which is to set the watches if they are not set yet.
    pub(super) fn watch_beside(
        self: &Arc<Self>,
        live: &Arc<Live>,
        watching: &mut Watching,
        look: impl FnOnce(Option<&Beside>) -> Ended,
    ) -> Ended {
        let Some((beside, limit)) = watching.first.take() else { return look(None) };
        let ended = look(Some(&beside));
        let begun = if matches!(ended, Ended::Well | Ended::InPart) {
            beside.finish().map(|watch| self.begun(watch, limit))
        } else {
            // Not all of it is watched.
            drop(beside);
            if self.is_stopping() || self.inbox().reopen {
                return ended;
            }
            self.begin_watch(live)
        };
        if let Ok((watch, _, limit)) = &begun {
            self.show_watches(watch, *limit);
        }
        self.listen_on(live, watching, begun);
        ended
    }

    /// Listens in a thread of its own. What could not begin, or breaks, is tried again.
    fn listen_on(self: &Arc<Self>, live: &Arc<Live>, watching: &mut Watching, mut begun: Result<Begun, watch::WatchError>) {
        let (shared, live, ending) = (Arc::clone(self), Arc::clone(live), Arc::clone(&watching.end));
        watching.thread = Some(thread::spawn(move || {
            loop {
                let ended = begun.and_then(|begun| {
                    // Whoever ends it a moment before finds no waker, and it finds that it is over.
                    *ending.waker() = Some(begun.0.waker());
                    shared.listen(begun, &ending)
                });
                *ending.waker() = None;
                if ending.is_over() {
                    return;
                }
                if let Err(error) = ended {
                    shared.inbox().facts.watches.set = 0;
                    let again = AGAIN.as_secs();
                    let text = format!("{error}; changes are found by scans only, and it is tried again every {again} seconds");
                    shared.say(Source::Watch, Level::Error, &text);
                    let inbox = shared.inbox();
                    drop(shared.wake.wait_timeout_while(inbox, AGAIN, |_| !ending.is_over()));
                    if ending.is_over() {
                        return;
                    }
                }
                begun = shared.begin_watch(&live);
                if begun.is_ok() {
                    shared.say(Source::Watch, Level::Notice, "changes are listened for anew: everything is looked at");
                    // Nobody told what changed meanwhile.
                    let now = shared.now();
                    shared.inbox().scheduler.look_at_all(now);
                    shared.wake.notify_all();
                }
            }
        }));
    }

    /// Ends it, and waits until it has.
    pub(super) fn watch_no_more(&self, watching: Watching) {
        watching.end.over.store(true, Ordering::Release);
        watching.end.wake();
        // Whoever looked at it a moment before waits by now, and hears of it.
        self.inbox().watch = None;
        self.wake.notify_all();
        if let Some(thread) = watching.thread {
            // A panic there is a defect that was told; the watch begins anew with the root.
            let _ = thread.join();
        }
        // Nothing is watched now, and what has to be may be another number by the next time.
        self.inbox().facts.watches = Watches::default();
    }

    /// From now on the folder has no more watches than these. If they are others than before, those that there are go, and as many
    /// of the most important as there may be are set anew.
    pub(crate) fn limit_watches(&self, watches: Option<u64>) {
        let before = std::mem::replace(&mut *self.watches.lock().unwrap_or_else(PoisonError::into_inner), watches);
        let listening = self.inbox().watch.clone();
        if let Some(listening) = listening.filter(|_| before != watches) {
            listening.wake();
        }
    }

    fn watch_limit(&self) -> Option<u64> {
        *self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_watch(&self, live: &Arc<Live>) -> Result<(Beside, Option<u64>), watch::WatchError> {
        let (options, ignored) = self.watch_options(live);
        Ok((Watch::beside(live.root(), options, Some(ignored))?, options.watches))
    }

    fn begin_watch(&self, live: &Arc<Live>) -> Result<Begun, watch::WatchError> {
        let (options, ignored) = self.watch_options(live);
        Ok(self.begun(Watch::begin(live.root(), options, Some(ignored))?, options.watches))
    }

    fn begun(&self, watch: Watch, limit: Option<u64>) -> Begun {
        (watch, Quiet::new(Limits { quiet: self.config().quiet, ..Limits::standard() }), limit)
    }

    fn watch_options(&self, live: &Arc<Live>) -> (watch::Options, watch::Ignored) {
        // Older days are looked at now and then by whoever archives.
        let placed_since = if self.desk.has_rule() { self.young_since() } else { i64::MIN };
        let watches = self.watch_limit();
        let options = watch::Options { watches, gather: Duration::from_millis(5), placed_since, ..watch::Options::standard() };
        let ignoring = Arc::clone(live);
        (options, Box::new(move |path, dir| ignoring.ignores(path, dir)))
    }

    fn show_watches(&self, watch: &Watch, limit: Option<u64>) {
        let (set, missing) = (watch.watched(), watch.shortage().map_or(0, |shortage| shortage.missing));
        self.inbox().facts.watches = Watches { needed: Some(set + missing), set, limit };
    }

    /// Until it is to end, cannot go on, or there may be more watches or less.
    fn listen(&self, (mut watch, mut quiet, limit): Begun, end: &End) -> Result<(), watch::WatchError> {
        let mut poll = self.now() + POLL;
        let mut short = false;
        while !end.is_over() && self.watch_limit() == limit {
            let missing = watch.shortage();
            if missing.is_some() != short {
                short = missing.is_some();
                if let Some(shortage) = &missing {
                    self.say(Source::Watch, Level::Warning, &shortage.to_string());
                }
            }
            self.show_watches(&watch, limit);
            let now = self.now();
            let next = quiet.next_deadline().unwrap_or(now + LONG).min(if short { poll } else { now + LONG });
            let changes = watch.wait(next.saturating_sub(now))?;
            let now = self.now();
            changes.into_iter().for_each(|change| quiet.take(now, change));
            let mut ready = quiet.ready(now);
            if short && now >= poll {
                poll = now + POLL;
                ready.extend(watch.unwatched().cloned().map(Change::Tree));
            }
            if !ready.is_empty() {
                self.notice(ready, now);
            }
        }
        Ok(())
    }

    /// Changes are quiet, and to be looked at.
    fn notice(&self, changes: Vec<Change>, now: Moment) {
        for change in &changes {
            if let Change::Everything { why } = change {
                self.log(Level::Warning, &format!("everything is looked at: {why}"));
            }
        }
        let mut inbox = self.inbox();
        for change in changes {
            match change {
                Change::Touched(path) | Change::Tree(path) if !path.is_root() => inbox.noticed.extend([path]),
                Change::Touched(_) | Change::Tree(_) => inbox.scheduler.look_at_all(now),
                Change::Everything { .. } => inbox.scheduler.look_at_all(now),
                Change::RootLost => inbox.reopen = true,
            }
        }
        if inbox.noticed.len() > NOTICED {
            inbox.noticed.clear();
            inbox.scheduler.look_at_all(now);
        }
        inbox.looks(now);
        drop(inbox);
        self.wake.notify_all();
    }
}
