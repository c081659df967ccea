//! Bytes that are not those that were read last, although nobody wrote to the file since, are damage and no edit: a day that holds such
//! a file stays where it is, since its copy would go to other replicas in the place of the good bytes.

use super::Archive;
use super::copy::shown;
use super::error::ArchiveError;
use super::manifest::{Entry, Reader};
use super::walk::is_same;
use crate::entry::{Hash, Kind, Signature};
use crate::io::fs::Dir;
use crate::io::state::NodeId;
use crate::path::RelPath;

/// Rows that are read at a time.
const PAGE: usize = 1_024;

/// A day that was copied, and what a user is to do with a damaged file in it.
#[derive(Clone, Copy)]
pub(super) struct Copied<'a> {
    pub(super) day: &'a RelPath,
    pub(super) way_out: &'a str,
}

impl Archive<'_> {
    /// Refuses a day of which a file was copied with other bytes than the rows know, although it is the one that they know. `copied`
    /// tells what was read, from its beginning.
    pub(super) fn check_by_rows(&self, what: Copied<'_>, copied: &mut Reader) -> Result<(), ArchiveError> {
        match self.state.node(what.day)? {
            Some(node) => self.check_below((node, &RelPath::root()), what, copied),
            // Nothing was read of it before.
            None => Ok(()),
        }
    }

    /// Both in the order of paths: they meet entry by entry.
    fn check_below(&self, (node, path): (NodeId, &RelPath), what: Copied<'_>, copied: &mut Reader) -> Result<(), ArchiveError> {
        let mut after = None;
        loop {
            let page = self.state.known_after(node, after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.name.clone());
            for known in page {
                let path = path.join(&known.name);
                if let Some(below) = known.node {
                    self.check_below((below, &path), what, copied)?;
                    continue;
                }
                // Of one that may have changed within a tick of its file system's clock the row vouches for nothing.
                let Some(hash) = known.hash.filter(|_| known.kind == Kind::File && !known.signature.racy) else { continue };
                if copied.seek(&path)?.is_some_and(|entry| is_damaged(entry, &known.signature, hash)) {
                    return Err(damaged(what, &path));
                }
            }
        }
    }
}

/// Refuses a day of which a file was copied with other bytes than the record that lies beside it in the cold root tells, although it
/// is the one that this tells of.
pub(super) fn check_by_record(what: Copied<'_>, copied: &mut Reader, record: &mut Reader) -> Result<(), ArchiveError> {
    while let Some(entry) = copied.next()? {
        let Some(known) = record.seek(&entry.path)? else { continue };
        if known.kind == Kind::File && known.hash.is_some_and(|hash| is_damaged(&entry, &known.copy, hash)) {
            return Err(damaged(what, &entry.path));
        }
    }
    Ok(())
}

/// A record in a folder, from its beginning, if there is one. It was checked as a whole.
pub(super) fn whole_record(folder: &Dir, name: &[u8]) -> Result<Option<Reader>, ArchiveError> {
    if folder.look(name)?.is_none() {
        return Ok(None);
    }
    let open = || Reader::new(folder.open_file(name)?, &folder.locate(name));
    let mut whole = open()?;
    while whole.next()?.is_some() {}
    Ok(Some(open()?))
}

/// Is it the file that is known, with other bytes? Whoever writes to one moves its change time.
fn is_damaged(entry: &Entry, known: &Signature, hash: Hash) -> bool {
    entry.kind == Kind::File && is_same(known, &entry.source) && entry.hash.is_some_and(|read| read != hash)
}

fn damaged(what: Copied<'_>, path: &RelPath) -> ArchiveError {
    let why = "is damaged: its bytes are not those that were there, although nobody wrote to it";
    ArchiveError::refused(&shown(what.day, path), format!("{why}; {} stays where it is. {}", what.day, what.way_out))
}
