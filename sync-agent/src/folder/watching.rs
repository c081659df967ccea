//! Listens for changes in a folder, and says which of them are to be looked at.

use super::{LONG, Shared, Source};
use crate::log::Level;
use crate::scheduler::Moment;
use crate::status::Watches;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use sync_core::io::sync::Live;
use sync_core::io::watch::{self, Watch};
use sync_core::quiet::{Change, Limits, Quiet};

/// How often directories without a watch are looked at.
const POLL: Duration = Duration::from_secs(30);
/// Paths that were noticed and wait to be looked at; beyond it everything is.
const NOTICED: usize = 65_536;

impl Shared {
    /// Listens for changes, in a thread of its own.
    pub(super) fn watch(
        self: &Arc<Self>,
        live: &Arc<Live>,
        watching: &Arc<AtomicBool>,
    ) -> Result<(watch::Waker, JoinHandle<()>), watch::WatchError> {
        let config = self.config();
        let options = watch::Options { watches: self.watches, gather: Duration::from_millis(5), ..watch::Options::standard() };
        let ignoring = Arc::clone(live);
        let ignored: watch::Ignored = Box::new(move |path, dir| ignoring.ignores(path, dir));
        let watch = Watch::begin(live.root(), options, Some(ignored))?;
        let waker = watch.waker();
        let quiet = Quiet::new(Limits { quiet: config.quiet, ..Limits::standard() });
        let (shared, watching) = (Arc::clone(self), Arc::clone(watching));
        let thread = thread::spawn(move || shared.listen(watch, quiet, &watching));
        Ok((waker, thread))
    }

    fn listen(&self, mut watch: Watch, mut quiet: Quiet, watching: &AtomicBool) {
        let mut poll = self.now() + POLL;
        let mut short = false;
        while watching.load(Ordering::Acquire) {
            let missing = watch.shortage();
            if missing.is_some() != short {
                short = missing.is_some();
                if let Some(shortage) = &missing {
                    self.say(Source::Watch, Level::Warning, &shortage.to_string());
                }
            }
            let watched = watch.watched();
            self.inbox().facts.watches = Watches {
                needed: Some(watched + missing.as_ref().map_or(0, |shortage| shortage.missing)),
                set: watched,
                limit: self.watches,
            };
            let now = self.now();
            let next = quiet.next_deadline().unwrap_or(now + LONG).min(if short { poll } else { now + LONG });
            let changes = match watch.wait(next.saturating_sub(now)) {
                Ok(changes) => changes,
                Err(error) => {
                    self.say(
                        Source::Watch,
                        Level::Error,
                        &format!("{error}; changes are found by scans only, until the folder is opened anew"),
                    );
                    return;
                }
            };
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
                Change::Touched(path) | Change::Tree(path) if !path.is_root() => drop(inbox.noticed.insert(path)),
                Change::Touched(_) | Change::Tree(_) => inbox.scheduler.look_at_all(now),
                Change::Everything { .. } => inbox.scheduler.look_at_all(now),
                Change::RootLost => inbox.reopen = true,
            }
        }
        if inbox.noticed.len() > NOTICED {
            inbox.noticed.clear();
            inbox.scheduler.look_at_all(now);
        }
        let any = !inbox.noticed.is_empty();
        inbox.scheduler.ready_at(any.then_some(now));
        drop(inbox);
        self.wake.notify_all();
    }
}
