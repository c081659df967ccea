//! Single files of a folder on another machine, by path and hash: for what was damaged here.

use super::guest::{Greeted, Guest};
use super::live::Live;
use super::meeting;
use super::member::Member;
use super::replica::Replica;
use super::roots;
use super::{Options, Remote, SyncError};
use crate::entry::{Content, Hash};
use crate::io::fs::{FsError, Root};
use crate::io::remote::RemoteThere;
use crate::io::source::{SourceError, Wanted};
use crate::io::stage::{SPARE_BYTES, shortfall};
use crate::io::there::There;
use crate::path::RelPath;
use crate::report::Monitor;
use crate::reserve::Reserve;
use crate::store::Filter;
use std::fs::File;
use std::io::{self, Seek as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

/// Under which names content from there is written, before it is looked at.
const STAGE: &str = "stage";
const NAME: &[u8] = b"lent";

/// A folder on another machine that lends files. Nothing is changed there.
pub struct Lender<'a> {
    root: &'a Root,
    guest: Guest,
    shown: String,
}

/// Why a file is not lent.
#[derive(Debug, thiserror::Error)]
pub enum NotLent {
    /// No such file is known there.
    #[error("no such file is known there")]
    Absent,
    /// The file there is another version.
    #[error("another version of it stands there")]
    Other,
    /// It should be the same there, and is not.
    #[error("it is damaged there, too: its bytes are not those that were recorded")]
    Damaged,
    /// It was written to there, and nobody has looked since.
    #[error("it was changed there, and not looked at since: synchronise there, then try again")]
    Changed,
    /// It cannot be read there, it did not come, or it cannot be written here.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no room for it where it comes to first.
    #[error(
        "there is no room for it on the disk of {}: {missing} bytes are missing, with what stays free there (limits.reserve): make room",
        root.display()
    )]
    NoRoom {
        /// The root to which it would have come first.
        root: PathBuf,
        /// What is missing.
        missing: u64,
    },
    /// There is no place to write it to.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// It cannot be read back.
    #[error("cannot read it back: {0}")]
    Back(#[from] io::Error),
}

impl<'a> Lender<'a> {
    /// Opens a folder that is another replica of this root, or is granted to this machine for reading.
    ///
    /// # Errors
    /// The other machine refuses, or cannot be worked with; or the connection failed.
    pub fn open(replica: &'a Replica, remote: Remote, monitor: &dyn Monitor) -> Result<Lender<'a>, SyncError> {
        let (root, state) = replica.parts();
        let shown = remote.shown.clone();
        let here = root.path().as_os_str().as_bytes().to_vec();
        let introduction = meeting::introduction(state, here, &remote.location())?;
        let options = Options { dry_run: true, ..Options::standard() };
        let guest = Greeted::greet(remote)?.borrow((introduction, &roots::rules(root)?), &options, monitor)?;
        Ok(Lender { root, guest, shown })
    }

    /// What the user calls it.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The bytes of the file at this path, if they have this hash and are so many. They are in a file without a name.
    ///
    /// # Errors
    /// What stands there has other bytes, or does not come; or there is no room for it here.
    pub fn take(&self, path: &RelPath, hash: Hash, size: u64) -> Result<File, NotLent> {
        take((self.root, Reserve::NONE), &*self.guest.there(), path, (hash, size))
    }
}

impl Live {
    /// The bytes that a member has at this path, if they have this hash and are so many. They are in a file without a name. Nothing changes,
    /// neither here nor there. One at a time.
    ///
    /// # Errors
    /// What stands there has other bytes, or does not come; or it would take from what is to stay free here.
    pub fn borrow(&self, member: &Member, path: &RelPath, hash: Hash, size: u64) -> Result<File, NotLent> {
        let told = member.told();
        let there = RemoteThere::new(member.connection.clone(), member.facts_of(&told), told.seq);
        let there = if member.answers { there } else { there.without_bases() };
        take((self.root(), self.options.reserve), &there, path, (hash, size))
    }
}

fn take(
    (root, reserve): (&Root, Reserve),
    there: &dyn There,
    path: &RelPath,
    (hash, size): (Hash, u64),
) -> Result<File, NotLent> {
    let (parent, name) = path.split().ok_or(NotLent::Absent)?;
    let only = Filter::Only(Arc::new([name.clone()].into()));
    let listing = there.listing(&parent, &only)?;
    let row = listing.children.into_iter().find(|child| child.name == name).and_then(|child| child.row);
    let row = row.ok_or(NotLent::Absent)?;
    let Content::File { size: theirs, hash: recorded } = row.object.content else { return Err(NotLent::Other) };
    // So much comes at the most: it was here, and nobody can fill the disk with more.
    if theirs != size || recorded.is_some_and(|recorded| recorded != hash) {
        return Err(NotLent::Other);
    }
    if let Some(missing) = shortfall(root, size.saturating_add(SPARE_BYTES), reserve)? {
        return Err(NotLent::NoRoom { root: root.path().to_owned(), missing });
    }
    let mut file = unnamed(root)?;
    let wanted = Wanted { path: path.clone(), size, hash: recorded, m: row.m, base: None, held: 0 };
    let source = there.source()?;
    let fetched = source.feed(root, vec![wanted]).fetch(0, &mut file);
    let fetched = match fetched {
        Err(SourceError::Stale(_) | SourceError::Changes(_)) => return Err(NotLent::Changed),
        fetched => fetched?,
    };
    if fetched.hash != hash {
        return Err(if recorded.is_some() { NotLent::Damaged } else { NotLent::Other });
    }
    file.rewind()?;
    Ok(file)
}

fn unnamed(root: &Root) -> Result<File, FsError> {
    let stage = root.private(&[STAGE])?;
    match stage.unlink(NAME) {
        // A process that died in between left it.
        Err(error) if !error.is_missing() => return Err(error),
        _ => {}
    }
    let file = stage.create_file(NAME)?;
    stage.unlink(NAME)?;
    Ok(file)
}
