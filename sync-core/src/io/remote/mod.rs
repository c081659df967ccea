//! stub
#![allow(missing_docs, dead_code, unused_variables, clippy::all)]
use crate::io::channel::ChannelError;
use crate::io::fs::Root;
use crate::io::link::{Connection, Stream};
use crate::io::state::State;
use crate::io::there::*;
use crate::io::source::*;
use crate::entry::Digest;
use crate::knowledge::ReplicaId;
use crate::path::RelPath;
use crate::report::Monitor;
use crate::store::*;
use std::sync::Arc;
pub struct Here<'a> {
    pub root: &'a Root,
    pub state: &'a State,
    pub granularity_ns: i64,
    pub passing: bool,
    pub location: Vec<u8>,
    pub may_read: bool,
}
pub struct RemoteThere;
impl RemoteThere {
    pub fn new(connection: Arc<Connection>, facts: Facts, seq: u64) -> RemoteThere { RemoteThere }
    pub fn learn(&self, facts: Facts, seq: u64) {}
}
impl There for RemoteThere {
    fn facts(&self) -> Result<Facts, SourceError> { todo!() }
    fn make_durable(&self) -> Result<(), SourceError> { todo!() }
    fn listing(&self, path: &RelPath, filter: &Filter) -> Result<Listing, SourceError> { todo!() }
    fn digest(&self, dir: &RelPath) -> Result<Digest, SourceError> { todo!() }
    fn rehash(&self, paths: &[RelPath], monitor: &dyn Monitor) -> Result<(), SourceError> { todo!() }
    fn decided(&self, with: ReplicaId) -> Result<Vec<Decided>, SourceError> { todo!() }
    fn source(&self) -> Box<dyn Source + '_> { todo!() }
}
pub fn respond(stream: Stream, here: &Here<'_>) -> Result<(), ChannelError> { todo!() }
