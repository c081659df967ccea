//! A root of this machine as the other side of a pull, and as what is answered from.

use super::gate::Gate;
use crate::entry::Digest;
use crate::io::fs::Root;
use crate::io::scan;
use crate::io::source::{LocalSource, Source, SourceError};
use crate::io::speaker::{self, Speaker};
use crate::io::state::{State, StateError};
use crate::io::there::{Decided, Facts, There, decided};
use crate::knowledge::ReplicaId;
use crate::path::RelPath;
use crate::report::Monitor;
use crate::store::{Filter, Listing};
use crate::wire::{Gossip, Identity, Ready, Report};

/// What the other side tells of itself.
#[derive(Debug)]
pub enum Told {
    /// What it is now.
    Ready(Ready),
    /// How the way and the exchange look from there.
    Report(Report),
    /// What it heard of members of the folder.
    Gossip(Gossip),
    /// Something may have changed in a root that it watches for this side.
    Changed,
}

/// A root of this machine.
pub struct Here<'a> {
    /// The directory.
    pub root: &'a Root,
    /// Its state.
    pub state: &'a State,
    /// What [`ctime_granularity`](crate::io::fs::ctime_granularity) says of the root.
    pub granularity_ns: i64,
    /// Nothing of this run stays in the root.
    pub passing: bool,
    /// Where it is, by which another root recognises it.
    pub location: Vec<u8>,
    /// Who asks.
    pub asker: Speaker,
    /// In a run that only looks: what is open with the first record still stands under the second one.
    pub stands_for: Option<(ReplicaId, ReplicaId)>,
    /// Lets questions of another machine in; `None`: there are none.
    pub gate: Option<&'a Gate<'a>>,
    /// Hears what the other side tells of itself, where both stay open.
    pub heard: Option<&'a (dyn Fn(Told) + Sync)>,
}

/// Who a state is, and the newest event that it made.
///
/// # Errors
/// The state cannot be written.
pub fn identity(state: &State) -> Result<Identity, StateError> {
    Ok(Identity { replica: state.id(), instance: state.instance(), counter: state.counter(), nonce: state.nonce()? })
}

impl There for Here<'_> {
    fn facts(&self) -> Result<Facts, SourceError> {
        let identity = identity(self.state)?;
        let decisions = self.state.has_decisions()?;
        Ok(Facts { identity, passing: self.passing, location: self.location.clone(), speaker: Speaker::Here, decisions })
    }

    fn make_durable(&self) -> Result<(), SourceError> {
        Ok(self.state.flush()?)
    }

    fn listing(&self, path: &RelPath, filter: &Filter) -> Result<Listing, SourceError> {
        Ok(self.state.listing(path, filter)?)
    }

    fn digest(&self, dir: &RelPath) -> Result<Digest, SourceError> {
        Ok(self.state.listing(dir, &Filter::header())?.digest)
    }

    fn rehash(&self, paths: &[RelPath], monitor: &dyn Monitor) -> Result<(), SourceError> {
        // What cannot be read is told to the monitor.
        scan::rehash(self.root, self.state, paths, self.granularity_ns, monitor)?;
        Ok(())
    }

    fn decided(&self, with: ReplicaId) -> Result<Vec<Decided>, SourceError> {
        let record = speaker::record(self.state, with, &self.asker)?;
        let record = self.stands_for.filter(|(new, _)| *new == record).map_or(record, |(_, old)| old);
        Ok(decided(self.state, record)?)
    }

    fn source(&self) -> Result<Box<dyn Source + '_>, SourceError> {
        Ok(Box::new(LocalSource::new(self.root, self.state)))
    }
}
