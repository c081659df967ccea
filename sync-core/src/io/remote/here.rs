//! A root of this machine as the other side of a pull, and as what is answered from.

use crate::entry::Digest;
use crate::io::fs::Root;
use crate::io::scan;
use crate::io::source::{LocalSource, Source, SourceError};
use crate::io::state::State;
use crate::io::there::{Decided, Facts, There, decided};
use crate::knowledge::ReplicaId;
use crate::path::RelPath;
use crate::report::Monitor;
use crate::store::{Filter, Listing};
use crate::wire::{Identity, Ready, Report};
use std::sync::Arc;

/// What the other side tells of itself.
#[derive(Debug)]
pub enum Told {
    /// What it is now.
    Ready(Ready),
    /// How the way and the exchange look from there.
    Report(Report),
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
    /// May the other side read here? One that may only give is told nothing.
    pub may_read: bool,
    /// Hears what the other side tells of itself, where both stay open.
    pub heard: Option<&'a (dyn Fn(Told) + Sync)>,
}

impl There for Here<'_> {
    fn facts(&self) -> Result<Facts, SourceError> {
        let (replica, instance, counter) = (self.state.id(), self.state.instance(), self.state.counter());
        let identity = Identity { replica, instance, counter, nonce: self.state.nonce()? };
        Ok(Facts { identity, passing: self.passing, location: self.location.clone() })
    }

    fn make_durable(&self) -> Result<(), SourceError> {
        Ok(self.state.flush()?)
    }

    fn listing(&self, path: &RelPath, filter: &Filter) -> Result<Listing, SourceError> {
        Ok(self.state.listing(path, filter)?)
    }

    fn digest(&self, dir: &RelPath) -> Result<Digest, SourceError> {
        // No names: the listing carries the digest and no rows.
        Ok(self.state.listing(dir, &Filter::Only(Arc::default()))?.digest)
    }

    fn rehash(&self, paths: &[RelPath], monitor: &dyn Monitor) -> Result<(), SourceError> {
        // What cannot be read is told to the monitor.
        scan::rehash(self.root, self.state, paths, self.granularity_ns, monitor)?;
        Ok(())
    }

    fn decided(&self, with: ReplicaId) -> Result<Vec<Decided>, SourceError> {
        Ok(decided(self.state, with)?)
    }

    fn source(&self) -> Result<Box<dyn Source + '_>, SourceError> {
        Ok(Box::new(LocalSource::new(self.root, self.state)))
    }
}
