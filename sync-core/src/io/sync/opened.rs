//! A root that is open: what is recorded in it, who has it at present, and the root as the other side of a pull.

use super::SyncError;
use crate::entry::Digest;
use crate::io::fs::Root;
use crate::io::mutex::lock;
use crate::io::remote::{Gate, Here};
use crate::io::scan;
use crate::io::source::{LocalSource, Source, SourceError};
use crate::io::speaker::{self, Speaker};
use crate::io::state::{Peer, State, StateError};
use crate::io::there::{Decided, Facts, There, decided_on};
use crate::knowledge::ReplicaId;
use crate::path::RelPath;
use crate::report::Monitor;
use crate::store::{Filter, Listing};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock};

/// One opened root.
pub(super) struct Opened {
    pub(super) root: Root,
    /// The folder of the state.
    pub(super) state_dir: PathBuf,
    pub(super) state: State,
    /// Finest step of the root's change times, ns; 0 where every change has its own.
    pub(super) granularity_ns: i64,
    /// Nothing of this run is to stay in the root.
    pub(super) passing: bool,
    /// The run only looks: the root's marker stays as it is.
    pub(super) looking: bool,
    /// The state lies on another file system than the root.
    pub(super) state_elsewhere: bool,
    /// In a run that only looks: what is open with the first record still stands under the second one.
    pub(super) stands_for: OnceLock<(ReplicaId, ReplicaId)>,
    /// Held by whoever records changes or makes them: runs, and the owner of a root that stays open.
    pub(super) work: Mutex<()>,
}

impl Opened {
    /// The root as the other side of a pull on this machine.
    fn for_here(&self) -> Here<'_> {
        self.here(Speaker::Here, None)
    }

    /// The root, for questions.
    pub(super) fn here<'a>(&'a self, asker: Speaker, gate: Option<&'a Gate<'a>>) -> Here<'a> {
        Here {
            root: &self.root,
            state: &self.state,
            granularity_ns: self.granularity_ns,
            passing: self.passing,
            location: self.root.path().as_os_str().as_bytes().to_vec(),
            asker,
            stands_for: self.stands_for.get().copied(),
            gate,
            heard: None,
        }
    }

    /// Waits until nobody else records or makes changes here.
    pub(super) fn work(&self) -> MutexGuard<'_, ()> {
        // A panic left what a crash leaves: the state is whole, and what was under way is recovered at the next start.
        lock(&self.work)
    }

    /// Reads and hashes files whose bytes decide something.
    pub(super) fn rehash(&self, paths: &[RelPath], monitor: &dyn Monitor) -> Result<Vec<crate::report::Problem>, SyncError> {
        Ok(scan::rehash(&self.root, &self.state, paths, self.granularity_ns, monitor)?)
    }

    /// The record of what a machine tells of its replica.
    pub(super) fn record(&self, there: &Facts) -> Result<ReplicaId, StateError> {
        speaker::record(&self.state, there.identity.replica, &there.speaker)
    }

    /// The record under which stands what is open with a replica: in a run that only looks, it may be that of the identity before.
    pub(super) fn open_with(&self, there: &Facts) -> Result<ReplicaId, StateError> {
        let record = self.record(there)?;
        Ok(self.stands_for.get().filter(|(new, _)| *new == record).map_or(record, |(_, old)| *old))
    }

    /// The other root bears another identity than when it was met last: what was left open with the old one, and decided of
    /// that, is open with the new one. Under the old name nobody would ever ask for it again. A run that only looks leaves all as it
    /// stands, and finds it there.
    pub(super) fn follow(&self, there: &Facts) -> Result<(), SyncError> {
        let (state, id) = (&self.state, self.record(there)?);
        if self.passing || there.passing || state.peer(id)?.is_some() {
            return Ok(());
        }
        for (old, peer) in state.peers()?.into_iter().filter(|(_, peer)| peer.location == there.location) {
            let open = state.pending(old)?;
            if open.is_empty() {
                continue;
            }
            if self.looking {
                self.stands_for.get_or_init(|| (id, old));
                continue;
            }
            speaker::bind(state, id, there.identity.replica, &there.speaker)?;
            // Should another disk have been mounted there, and the old one return: it is then looked at as a whole.
            state.put_peer(old, &Peer { incorporated: 0, ..peer })?;
            for decided in open.iter().filter(|open| open.decision.is_some()) {
                if let Some(version) = state.meta(&decided_on(old, &decided.path))? {
                    state.put_meta(&decided_on(id, &decided.path), &version)?;
                }
            }
            state.put_pending(id, &open)?;
            state.put_pending(old, &[])?;
        }
        Ok(())
    }
}

/// A root of this machine as the source of a pull: read in place.
impl There for Opened {
    fn facts(&self) -> Result<Facts, SourceError> {
        self.for_here().facts()
    }

    fn make_durable(&self) -> Result<(), SourceError> {
        self.for_here().make_durable()
    }

    fn listing(&self, path: &RelPath, filter: &Filter) -> Result<Listing, SourceError> {
        Ok(self.state.listing(path, filter)?)
    }

    fn digest(&self, dir: &RelPath) -> Result<Digest, SourceError> {
        self.for_here().digest(dir)
    }

    fn rehash(&self, paths: &[RelPath], monitor: &dyn Monitor) -> Result<(), SourceError> {
        self.for_here().rehash(paths, monitor)
    }

    fn decided(&self, with: ReplicaId) -> Result<Vec<Decided>, SourceError> {
        self.for_here().decided(with)
    }

    fn source(&self) -> Result<Box<dyn Source + '_>, SourceError> {
        Ok(Box::new(LocalSource::new(&self.root, &self.state)))
    }
}
