//! The thread that reads files of which a pull can decide nothing before: the same path stands here and there with the same size, and
//! nobody knows whether with the same bytes. That may take hours, and nothing else waits for it: the pull has brought all else, and
//! comes again once some of it was read.

use super::shown::{from_peer, shown};
use super::{Inbox, LONG, Shared, Source, unbroken};
use crate::log::Level;
use crate::scheduler::Moment;
use crate::status::LISTED;
use crate::works::again_after;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use sync_core::io::sync::{Live, Member, SyncError};
use sync_core::peer::Id;
use sync_core::report::Monitor;

/// Where reading took so long and nothing came of it, it is left alone for so many times as long.
const VAIN_SHARE: u32 = 10;

/// The thread of a root that is open.
pub(super) struct Reading {
    thread: JoinHandle<()>,
    over: Arc<AtomicBool>,
}

impl Inbox {
    /// A pull from this peer left files to be read: that is done at once, and later and later where nothing comes of it.
    pub(super) fn is_to_read(&mut self, peer: Id, now: Moment) {
        if let Some(joined) = self.members.get(&peer) {
            let at = if joined.reads == 0 { now } else { now + try_after(joined.reads, joined.in_vain) };
            self.unread.entry(peer).or_insert(at);
        }
    }

    /// A pull from this peer needed nothing to be read.
    pub(super) fn all_read(&mut self, peer: Id) {
        self.unread.remove(&peer);
        self.facts.problems.remove(&Source::Read(peer));
        self.facts.said.remove(&Source::Read(peer));
        if let Some(joined) = self.members.get_mut(&peer) {
            (joined.reads, joined.in_vain) = (0, Duration::ZERO);
        }
    }

    /// For whom is to be read now, by its connection as it is; or else when it is to be looked at again.
    fn next_to_read(&self, now: Moment) -> Result<Arc<Member>, Moment> {
        if self.scheduler.is_paused() {
            return Err(now + LONG);
        }
        let first = self.unread.iter().min_by_key(|(_, at)| **at);
        match first.and_then(|(peer, at)| Some((*at, self.members.get(peer)?))) {
            Some((at, joined)) if at <= now => Ok(Arc::clone(&joined.member)),
            Some((at, _)) => Err(at),
            None => Err(now + LONG),
        }
    }
}

impl Shared {
    /// Reads, in a thread of its own, for as long as the root is open.
    pub(super) fn read_beside(self: &Arc<Self>, live: &Arc<Live>) -> Reading {
        let over = Arc::<AtomicBool>::default();
        let (shared, live, ending) = (Arc::clone(self), Arc::clone(live), Arc::clone(&over));
        let thread = thread::spawn(move || {
            while let Some(member) = shared.next_to_read(&ending) {
                shared.read_for(&live, &member, &ending);
            }
        });
        Reading { thread, over }
    }

    /// Ends it, and waits until it has: that is soon, since it looks between two reads.
    pub(super) fn read_no_more(&self, reading: Reading) {
        reading.over.store(true, Ordering::Release);
        // Whoever looked at it a moment before waits by now, and hears of it.
        drop(self.inbox());
        self.wake.notify_all();
        // A panic there is a defect that was told.
        let _ = reading.thread.join();
    }

    /// Waits until something is to be read; `None` once it is over.
    fn next_to_read(&self, over: &AtomicBool) -> Option<Arc<Member>> {
        let mut inbox = self.inbox();
        loop {
            if over.load(Ordering::Acquire) || self.is_stopping() {
                return None;
            }
            let now = self.now();
            match inbox.next_to_read(now) {
                Ok(member) => return Some(member),
                Err(at) => {
                    let wait = at.saturating_sub(now);
                    inbox = self.wake.wait_timeout(inbox, wait).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn read_for(&self, live: &Live, member: &Arc<Member>, over: &AtomicBool) {
        let peer = member.peer();
        let monitor = Beside { shared: self, member, over };
        let begun = self.now();
        let read = unbroken(|| Ok(live.read(member, &monitor)));
        let mut inbox = self.inbox();
        let name = inbox.name_of(peer);
        let still_wanted = inbox.unread.contains_key(&peer);
        let mut further = false;
        let told = match read {
            // It is read again once the folder is resumed, or not at all.
            Ok(Err(SyncError::Cancelled)) => return,
            _ if monitor.cancelled_with(&inbox) => return,
            Ok(Ok(read)) => {
                let listed: Vec<_> = read.problems.iter().take(LISTED).map(shown).collect();
                let total = read.problems.len() as u64;
                if total > 0 {
                    inbox.facts.problems.insert(Source::Read(peer), (total, listed));
                } else {
                    inbox.facts.problems.remove(&Source::Read(peer));
                }
                further = read.files > 0;
                further.then(|| (Level::Info, format!("{} files were read to compare them with those of {name}", read.files)))
            }
            Ok(Err(error)) => Some((Level::Warning, from_peer(&error, &self.name, &name))),
            Err(why) => Some((Level::Error, why)),
        };
        inbox.unread.remove(&peer);
        if let Some(joined) = inbox.members.get_mut(&peer).filter(|joined| Arc::ptr_eq(&joined.member, member)) {
            (joined.reads, joined.in_vain) = match further {
                true => (1, Duration::ZERO),
                false => (joined.reads.saturating_add(1), self.now().saturating_sub(begun)),
            };
        }
        if still_wanted {
            // By what was read it is decided now; what could not be read it leaves again.
            let now = self.now();
            inbox.scheduler.heard(peer, now);
        }
        drop(inbox);
        match told {
            Some((Level::Info, text)) => self.log(Level::Info, &text),
            Some((level, text)) => self.say(Source::Read(peer), level, &text),
            None => {}
        }
        self.wake.notify_all();
    }
}

/// When it is tried again after so many times without success, the last of which took so long: a large file that is being written
/// is not read for nothing all the time.
fn try_after(reads: u32, in_vain: Duration) -> Duration {
    again_after(reads).max(in_vain.saturating_mul(VAIN_SHARE).min(LONG))
}

/// Stops the reading once nobody wants it any more.
struct Beside<'a> {
    shared: &'a Shared,
    member: &'a Arc<Member>,
    over: &'a AtomicBool,
}

impl Beside<'_> {
    fn cancelled_with(&self, inbox: &Inbox) -> bool {
        let peer = self.member.peer();
        let same = inbox.members.get(&peer).is_some_and(|joined| Arc::ptr_eq(&joined.member, self.member));
        self.over.load(Ordering::Acquire) || inbox.scheduler.is_paused() || !same || !inbox.unread.contains_key(&peer)
    }
}

impl Monitor for Beside<'_> {
    fn cancelled(&self) -> bool {
        self.over.load(Ordering::Acquire) || self.shared.is_stopping() || self.cancelled_with(&self.shared.inbox())
    }

    fn notice(&self, text: &str) {
        self.shared.log(Level::Notice, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_in_vain_for_long_is_left_alone_for_longer_and_for_an_hour_at_the_most() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert!(try_after(1, Duration::ZERO) < minutes(1));
        assert_eq!(try_after(1, minutes(2)), minutes(20));
        assert_eq!(try_after(40, minutes(300)), minutes(60));
        assert_eq!(try_after(1, Duration::MAX), minutes(60));
    }
}
