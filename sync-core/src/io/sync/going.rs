//! The side of a run that goes on which is asked: it looks out for changes, and tells the asker that there is something to look at.
//!
//! A root that stays open here anyway is looked at by its owner; any other one has a lookout of this run's own.

use super::SyncError;
use super::host::Kept;
use super::live::Live;
use super::lookout::{EVERYTHING, Lookout, Noticed};
use super::news::News;
use super::opened::Opened;
use super::serving::Asked;
use crate::ignore::Rules;
use crate::io::channel::{Channel, ChannelError};
use crate::io::link::{CloseCode, Connection, WAIT};
use crate::io::mutex::lock;
use crate::path::RelPath;
use crate::peer::Name;
use crate::wire::{Message, Nothing};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often it is looked whether the root was opened anew, and, where somebody else looks for changes, whether there are any that
/// nobody told of.
const GLANCE: Duration = Duration::from_secs(1);

/// A run that goes on, at the side that is asked.
pub(super) struct Going {
    opened: Arc<Opened>,
    looks: Looks,
    over: AtomicBool,
    /// When it was looked last whether the root still stays open.
    looked: Mutex<(Instant, bool)>,
}

/// Who looks for changes.
enum Looks {
    /// This run.
    Run(Lookout, Arc<News>),
    /// Whoever keeps the root open; and how it is told that it still does.
    Owner(Kept, Arc<Live>),
}

impl Going {
    /// Looks out from now on. `owner`: who keeps the root open, if somebody does.
    pub(super) fn begin(
        opened: &Arc<Opened>,
        (asked, rules): (&Asked, &Rules),
        quiet: Duration,
        owner: Option<(Kept, Arc<Live>)>,
    ) -> Going {
        let looks = match owner {
            Some((kept, live)) => Looks::Owner(kept, live),
            None => {
                let rules = [asked.rules.clone(), rules.clone(), asked.run_rules.clone()];
                let ignored = Arc::new(move |path: &RelPath, dir: bool| rules.iter().any(|rules| rules.ignores(path, dir)));
                let news = Arc::<News>::default();
                Looks::Run(Lookout::begin(opened.clone(), ignored, quiet, news.clone()), news)
            }
        };
        Going { opened: opened.clone(), looks, over: AtomicBool::new(false), looked: Mutex::new((Instant::now(), true)) }
    }

    /// What was noticed since the last look.
    pub(super) fn take(&self) -> Noticed {
        match &self.looks {
            Looks::Run(lookout, _) => lookout.take(),
            Looks::Owner(..) => Noticed::Paths(Vec::new()),
        }
    }

    /// What was taken is to be looked at again.
    pub(super) fn put_back(&self, noticed: Noticed) {
        if let Looks::Run(lookout, _) = &self.looks {
            lookout.put_back(noticed);
        }
    }

    /// What the user is to hear of it.
    pub(super) fn texts(&self) -> Vec<String> {
        match &self.looks {
            Looks::Run(lookout, _) => lookout.texts(),
            Looks::Owner(..) => Vec::new(),
        }
    }

    /// Where the root misses file systems, if its owner knows.
    pub(super) fn missing(&self) -> Result<Vec<RelPath>, SyncError> {
        match &self.looks {
            Looks::Run(..) => Ok(Vec::new()),
            Looks::Owner(_, live) => live.missing(),
        }
    }

    /// Does the root stay open? Its owner may have to open it anew.
    pub(super) fn stands(&self) -> bool {
        let Looks::Owner(kept, live) = &self.looks else { return true };
        let mut looked = lock(&self.looked);
        if looked.1 && looked.0.elapsed() >= GLANCE {
            *looked = (Instant::now(), kept().is_some_and(|now| Arc::ptr_eq(&now, live)));
        }
        looked.1
    }

    /// Tells the asker when there is something to look at, until the run is over.
    pub(super) fn tell(&self, connection: &Connection) {
        if self.tell_over(connection).is_err() && !self.over.load(Ordering::Acquire) {
            // An asker that hears of nothing any more would believe that nothing changes.
            connection.close(CloseCode::Failed);
        }
    }

    fn tell_over(&self, connection: &Connection) -> Result<(), ChannelError> {
        let mut channel = Channel::new(connection.open(WAIT)?);
        let now = || (self.news().number(), self.seq());
        let (mut known, mut told) = (now(), Instant::now());
        while !self.over.load(Ordering::Acquire) {
            self.news().beyond(known.0, GLANCE);
            let now = now();
            // Now and then it is told anyway: an owner of the root may have missed something, and a stream of which nothing is heard
            // for a day ends.
            if now != known || told.elapsed() >= EVERYTHING {
                channel.send(&Message::Changed(Nothing)).and_then(|()| channel.flush())?;
                (known, told) = (now, Instant::now());
            }
        }
        channel.finish()
    }

    /// The run is over.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
        // Whoever looked at it a moment before waits by now, and hears of it.
        drop(lock(&self.news().number));
        self.news().changed.notify_all();
    }

    fn news(&self) -> &News {
        match &self.looks {
            Looks::Run(_, news) => news,
            Looks::Owner(_, live) => &live.news,
        }
    }

    /// What others record in a root that its owner looks at; a lookout sees it on the disk.
    fn seq(&self) -> u64 {
        match &self.looks {
            Looks::Run(..) => 0,
            Looks::Owner(..) => self.opened.state.seq(),
        }
    }
}

/// Why a run ends whose root does not stay open.
pub(super) fn opened_anew(folder: &Name) -> SyncError {
    SyncError::Root(format!("the folder {folder} was closed there, or is being opened anew; what was done is recorded"))
}

/// Those of the noticed paths that are to be looked at in a run of some paths only.
pub(super) fn within(scope: &[RelPath], noticed: Vec<RelPath>) -> Vec<RelPath> {
    if scope.is_empty() {
        return noticed;
    }
    let mut paths: Vec<RelPath> = Vec::new();
    for path in noticed {
        match scope.iter().any(|only| only.contains(&path)) {
            true => paths.push(path),
            false => paths.extend(scope.iter().filter(|only| path.contains(only)).cloned()),
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_was_noticed_a_run_of_some_paths_looks_at_those() {
        let paths = |text: &str| -> Vec<RelPath> {
            text.split_whitespace().map(|path| RelPath::parse(path.as_bytes()).unwrap()).collect()
        };
        for (scope, noticed, looked_at) in [
            ("", "a b/c", "a b/c"),
            ("a", "a/b c", "a/b"),
            ("a/b a/c", "a", "a/b a/c"),
            ("a/b", "a a/b/c", "a/b a/b/c"),
            ("a", "ab", ""),
        ] {
            assert_eq!(within(&paths(scope), paths(noticed)), paths(looked_at), "{scope}; {noticed}");
        }
    }
}
