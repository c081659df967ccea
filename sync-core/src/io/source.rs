//! Where the content of a pull comes from, and the local case: another root on this machine.

use crate::entry::{Digest, Hash, Kind, Signature};
use crate::io::channel::ChannelError;
use crate::io::fs::{COARSE_CLOCK_NS, Dir, FsError, Root, coarse_now_ns, copy_hashed, file_signature, hash_file};
use crate::io::kill::kill_point;
use crate::io::mutex::lock;
use crate::io::scan::ScanError;
use crate::io::state::{Known, Learned, State, StateError};
use crate::knowledge::Vector;
use crate::path::{Name, RelPath, escape};
use crate::store::Filter;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::sync::{Arc, Mutex};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 256 * 1024;
/// Directories of the source kept open, with their rows.
const OPEN_DIRS: usize = 8;

/// Why content could not be brought.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file is another one than was listed.
    #[error("{0} was changed there since it was scanned")]
    Stale(RelPath),
    /// The file moved under the read.
    #[error("{0} changes while it is read")]
    Changes(RelPath),
    /// A call at the source failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Reading there or writing here failed.
    #[error("cannot copy {path}: {source}")]
    Copy {
        /// The path at the source.
        path: RelPath,
        /// The system's answer.
        source: io::Error,
    },
    /// The other side, on another machine, cannot read it.
    #[error("cannot copy {path}: the other side says: {}", escape(.text.as_bytes()))]
    There {
        /// The path at the source.
        path: RelPath,
        /// Why, in its words.
        text: String,
    },
    /// The bytes are not those that their sender announced after them.
    #[error("cannot copy {0}: it arrived with other bytes than were sent")]
    Damaged(RelPath),
    /// The source's state cannot be read or written.
    #[error("cannot use the state of the other root: {0}")]
    State(#[from] StateError),
    /// The files there cannot be read for their hashes.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The other side is on another machine, and does not answer as it should.
    #[error(transparent)]
    Remote(#[from] ChannelError),
}

impl SourceError {
    /// May the same file come another time, from where it stopped?
    pub(crate) fn is_lost_connection(&self) -> bool {
        matches!(self, SourceError::Remote(_))
    }
}

/// What was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes written.
    pub size: u64,
    /// Their hash.
    pub hash: Hash,
}

/// A file that is to be brought, as it was listed at the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where it stands there.
    pub path: RelPath,
    /// Its size.
    pub size: u64,
    /// Its hash, if it was read.
    pub hash: Option<Hash>,
    /// Its version.
    pub m: Vector,
    /// A file here that it may have much in common with: the one that it replaces.
    pub base: Option<RelPath>,
    /// So many bytes of it stand in its target already, if they are right. They may be dropped for what can be made of the base.
    pub held: u64,
}

/// The other side of a pull: a root on this machine, or a peer.
pub trait Source: Sync {
    /// Asks for a chunk of files for the root `here`: those that one thread takes, one after the other. It does not wait for
    /// any; what goes wrong is told when they are taken.
    fn feed<'s>(&'s self, here: &'s Root, wanted: Vec<Wanted>) -> Box<dyn Feed + 's>;

    /// The threads that take content, where waiting for the other side decides how many there should be, and not this
    /// machine's cores.
    fn threads(&self) -> Option<&rayon::ThreadPool> {
        None
    }

    /// Nothing more is wanted: whoever waits for content soon waits no more.
    fn stop(&self) {}

    /// Can more come? After a connection has failed, nothing does.
    ///
    /// # Errors
    /// How it failed.
    fn alive(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// Is what has come of a file kept when it fails, so that it goes on from there another time?
    fn resumes(&self) -> bool {
        false
    }

    /// D of a directory there: equal digests are equal trees, wherever they lie.
    ///
    /// # Errors
    /// The source's state cannot be read.
    fn digest(&self, dir: &RelPath) -> Result<Digest, SourceError>;

    /// Records what was learned while fetching: hashes of files that nobody had read before.
    ///
    /// # Errors
    /// The source's state cannot be written, or the connection to it failed: no more content comes, and what was to
    /// come since failed.
    fn settle(&self) -> Result<(), SourceError>;
}

impl<S: Source + ?Sized> Source for &S {
    fn feed<'s>(&'s self, here: &'s Root, wanted: Vec<Wanted>) -> Box<dyn Feed + 's> {
        (**self).feed(here, wanted)
    }

    fn threads(&self) -> Option<&rayon::ThreadPool> {
        (**self).threads()
    }

    fn stop(&self) {
        (**self).stop();
    }

    fn alive(&self) -> Result<(), SourceError> {
        (**self).alive()
    }

    fn resumes(&self) -> bool {
        (**self).resumes()
    }

    fn digest(&self, dir: &RelPath) -> Result<Digest, SourceError> {
        (**self).digest(dir)
    }

    fn settle(&self) -> Result<(), SourceError> {
        (**self).settle()
    }
}

/// The files of one chunk.
pub trait Feed {
    /// Writes the bytes of the file with this number in the chunk into `target`, which is empty but for what was said to be
    /// held. Numbers ascend; files that are passed over are not wanted any more.
    ///
    /// # Errors
    /// The file is not the listed one, before or after the read; it cannot be read; `target` cannot be written.
    fn fetch(&mut self, number: usize, target: &mut File) -> Result<Fetched, SourceError>;
}

/// A file as rows tell of it.
pub(crate) struct Recorded<'a> {
    pub(crate) path: &'a RelPath,
    pub(crate) signature: &'a Signature,
    /// `None` while nobody read it.
    pub(crate) hash: Option<Hash>,
}

/// Which look at a file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Its content is taken.
    Take,
    /// Is what was taken still what stands there?
    Check,
}

/// Hashes a file that was just taken.
///
/// # Errors
/// It cannot be read.
pub(crate) fn read_again(mut file: &File, recorded: &Recorded<'_>) -> Result<Fetched, SourceError> {
    let read = with_buffer(|buffer| hash_file(&mut (&mut file).take(recorded.signature.size), buffer));
    let (size, hash) = read.map_err(|source| SourceError::Copy { path: recorded.path.clone(), source })?;
    Ok(Fetched { size, hash })
}

/// Reads a file by `pass`, which goes over all its bytes once, and vouches that it was the recorded one before and after.
/// Where no hash was recorded, what records it comes back, too.
///
/// # Errors
/// The file is another one, changes meanwhile, or cannot be read; or `pass` fails.
pub(crate) fn read_steady<E: From<SourceError>>(
    dir: &Dir,
    recorded: &Recorded<'_>,
    mut pass: impl FnMut(&File, Pass) -> Result<Fetched, E>,
) -> Result<(Fetched, Option<Learned>), E> {
    let path = recorded.path;
    let name = path.name().ok_or_else(|| SourceError::Stale(path.clone()))?;
    let start_ns = coarse_now_ns();
    let (file, before) = dir.open_file_seen(name.as_bytes()).map_err(SourceError::from)?;
    if !unchanged(recorded.signature, &before) {
        return Err(SourceError::Stale(path.clone()).into());
    }
    let fetched = pass(&file, Pass::Take)?;
    kill_point("source-copied");
    let changes = || SourceError::Changes(path.clone());
    // A write in the tick of the last change leaves the same times: where no known hash tells, a second look does.
    let young = recorded.signature.racy || before.mtime_ns.max(before.ctime_ns) >= start_ns - COARSE_CLOCK_NS;
    if recorded.hash.is_none() && young {
        (&file).rewind().map_err(|source| SourceError::Copy { path: path.clone(), source })?;
        if fetched != pass(&file, Pass::Check)? {
            return Err(changes().into());
        }
    }
    let mut after = file_signature(&file, &dir.locate(name.as_bytes())).map_err(SourceError::from)?;
    if !unchanged(recorded.signature, &after) || fetched.size != after.size {
        return Err(changes().into());
    }
    if recorded.hash.is_some() {
        return Ok((fetched, None));
    }
    // A write in the tick of the read could leave the same times.
    after.racy = after.mtime_ns.max(after.ctime_ns) >= start_ns - COARSE_CLOCK_NS;
    let expect = (*recorded.signature, recorded.hash);
    let learned = Learned { path: path.clone(), expect, signature: after, hash: fetched.hash };
    Ok((fetched, Some(learned)))
}

/// Do two signatures speak of the same unchanged object? The device is left out: its number may change with a mount.
#[must_use]
pub(crate) fn unchanged(a: &Signature, b: &Signature) -> bool {
    same_object(a, b) && a.ctime_ns == b.ctime_ns
}

/// As [`unchanged`], for an object that was renamed in between, which moves its change time.
#[must_use]
pub(crate) fn same_object(a: &Signature, b: &Signature) -> bool {
    a.ino == b.ino && a.size == b.size && a.mtime_ns == b.mtime_ns && a.mode & TYPE_BITS == b.mode & TYPE_BITS
}

/// The part of `st_mode` that tells the type.
pub(crate) const TYPE_BITS: u32 = 0o170_000;

/// The kind that a signature's mode tells; `None` for what is not synchronised (devices, sockets, pipes).
#[must_use]
pub(crate) fn kind_of(signature: &Signature) -> Option<Kind> {
    match signature.mode & TYPE_BITS {
        0o040_000 => Some(Kind::Dir),
        0o100_000 => Some(Kind::File),
        0o120_000 => Some(Kind::Symlink),
        _ => None,
    }
}

/// Calls `work` with this thread's copy buffer.
pub(crate) fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with(|buffer| {
        let mut buffer = buffer.borrow_mut();
        buffer.resize(BUFFER_BYTES, 0);
        work(&mut buffer)
    })
}

/// Another root on this machine.
pub struct LocalSource<'a> {
    root: &'a Root,
    state: &'a State,
    dirs: Mutex<Vec<Arc<OpenDir>>>,
    late: Mutex<Vec<Learned>>,
}

struct OpenDir {
    path: RelPath,
    dir: Dir,
    known: Vec<Known>,
}

impl<'a> LocalSource<'a> {
    /// The source that reads `root`, whose rows `state` holds.
    #[must_use]
    pub fn new(root: &'a Root, state: &'a State) -> LocalSource<'a> {
        LocalSource { root, state, dirs: Mutex::default(), late: Mutex::default() }
    }

    fn open(&self, path: &RelPath) -> Result<Arc<OpenDir>, SourceError> {
        if let Some(open) = lock(&self.dirs).iter().find(|open| open.path == *path) {
            return Ok(open.clone());
        }
        let node = self.state.node(path)?.ok_or_else(|| SourceError::Stale(path.clone()))?;
        let known = self.state.known(node)?;
        let open = Arc::new(OpenDir { path: path.clone(), dir: self.root.dir(path)?, known });
        let mut dirs = lock(&self.dirs);
        if dirs.len() >= OPEN_DIRS {
            dirs.remove(0);
        }
        dirs.push(open.clone());
        Ok(open)
    }
}

impl OpenDir {
    fn find(&self, name: &Name) -> Option<&Known> {
        let at = self.known.binary_search_by(|known| known.name.cmp(name)).ok()?;
        Some(&self.known[at])
    }
}

impl LocalSource<'_> {
    fn fetch(&self, wanted: &Wanted, target: &mut File) -> Result<Fetched, SourceError> {
        let path = &wanted.path;
        let stale = || SourceError::Stale(path.clone());
        let (parent, name) = path.split().ok_or_else(stale)?;
        let open = self.open(&parent)?;
        let known = open.find(&name).ok_or_else(stale)?;
        if known.kind != Kind::File || known.signature.size != wanted.size {
            return Err(stale());
        }
        let recorded = Recorded { path, signature: &known.signature, hash: known.hash };
        let (fetched, learned) = read_steady(&open.dir, &recorded, |file, pass| {
            if pass == Pass::Check {
                return read_again(file, &recorded);
            }
            let copied = with_buffer(|buffer| copy_hashed(file, wanted.size, target, buffer));
            let (size, hash) = copied.map_err(|source| SourceError::Copy { path: path.clone(), source })?;
            Ok::<_, SourceError>(Fetched { size, hash })
        })?;
        lock(&self.late).extend(learned);
        Ok(fetched)
    }
}

struct LocalFeed<'a> {
    source: &'a LocalSource<'a>,
    wanted: Vec<Wanted>,
}

impl Feed for LocalFeed<'_> {
    fn fetch(&mut self, number: usize, target: &mut File) -> Result<Fetched, SourceError> {
        self.source.fetch(&self.wanted[number], target)
    }
}

impl Source for LocalSource<'_> {
    fn feed<'s>(&'s self, _: &'s Root, wanted: Vec<Wanted>) -> Box<dyn Feed + 's> {
        Box::new(LocalFeed { source: self, wanted })
    }

    fn digest(&self, dir: &RelPath) -> Result<Digest, SourceError> {
        // Nothing is newer than the highest number: the listing carries the digest and no rows.
        let none = Filter::Since { after: i64::MAX as u64, also: Arc::new(BTreeSet::new()) };
        Ok(self.state.listing(dir, &none)?.digest)
    }

    fn settle(&self) -> Result<(), SourceError> {
        let learned = std::mem::take(&mut *lock(&self.late));
        Ok(self.state.learn(&learned)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{AttrMask, Attrs, Content, Object};
    use crate::io::kill::hook;
    use crate::io::state::Batch;
    use crate::knowledge::Row;
    use crate::store::Change;
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;

    const MASK: AttrMask = AttrMask { perms: true, owner: false, times: true };

    /// Copies a file right after it was written and looked at; `after` happens between the copy and the last look.
    fn fetch_new(after: impl Fn(&File) + 'static) -> (Result<Fetched, SourceError>, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        root.private(&[]).unwrap();
        let state = State::open(&folder.path().join(".driftless"), MASK).unwrap();
        let file = File::create_new(folder.path().join("f")).unwrap();
        (&file).write_all(b"one").unwrap();
        let signature = file_signature(&file, &folder.path().join("f")).unwrap();
        let object = Object { content: Content::File { size: 3, hash: None }, attrs: Attrs::default() };
        let event = state.tick().unwrap();
        let row = Row { object, m: event.into(), c: event.into() };
        let path = RelPath::parse(b"f").unwrap();
        let put = Change::Put { path: path.clone(), row, signature: Signature { racy: true, ..signature }, learn: None };
        state.commit(Batch { changes: vec![put], ..Batch::default() }, false).unwrap();
        hook::set(move |place| {
            if place == "source-copied" {
                after(&file);
            }
        });
        let mut target = tempfile::tempfile().unwrap();
        let wanted = Wanted { path, size: 3, hash: None, m: event.into(), base: None, held: 0 };
        let fetched = LocalSource::new(&root, &state).feed(&root, vec![wanted]).fetch(0, &mut target);
        hook::clear();
        let mut bytes = vec![0; 3];
        target.read_exact_at(&mut bytes, 0).unwrap();
        (fetched, bytes)
    }

    #[test]
    fn a_young_file_is_copied_as_it_is() {
        let (fetched, bytes) = fetch_new(|_| {});
        let hash = Hash(*blake3::hash(b"one").as_bytes());
        assert_eq!((fetched.unwrap(), bytes), (Fetched { size: 3, hash }, b"one".to_vec()));
    }

    #[test]
    fn a_write_in_the_tick_of_the_copy_is_noticed() {
        // Where change times are fine the write bears another one, and is noticed by that.
        for _ in 0..200 {
            let (fetched, _) = fetch_new(|file| {
                let before = file.metadata().unwrap().modified().unwrap();
                file.write_all_at(b"two", 0).unwrap();
                file.set_modified(before).unwrap();
            });
            assert!(matches!(fetched, Err(SourceError::Changes(_))), "{fetched:?}");
        }
    }
}
