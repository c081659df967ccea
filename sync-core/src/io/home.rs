//! The folder with what a machine is and knows of others: its key, its peers. Where that folder is, the caller says.
//!
//! Not below any root, and therefore with plain paths; but nothing in it is read through a link, and a key that others may read
//! is refused.

use crate::io::mutex::lock;
use crate::peer::{Book, BookError};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fsync, open, rename};
use rustix::process::geteuid;
use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a file in the folder.
const FILE_BYTES: u64 = 1 << 20;
/// How long another process may hold the folder while it changes a file.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How often a held folder is asked again: flock has no deadline of its own.
const LOCK_POLL: Duration = Duration::from_millis(20);
const PEERS: &str = "peers.toml";
const OTHERS_READ: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;

/// What can go wrong with the folder.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else could change or read what only this user may.
    #[error("{} {why}", path.display())]
    Unsafe {
        /// Which path.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The file makes no sense.
    #[error("{}: {why}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another process changes the folder.
    #[error("{} is held by another process for more than {} seconds", .0.display(), LOCK_WAIT.as_secs())]
    Held(PathBuf),
    /// The change of the peers cannot be made.
    #[error(transparent)]
    Book(#[from] BookError),
}

/// Who may read a file of the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Whoever may enter the folder; only the user changes it.
    Shared,
    /// The user alone.
    Private,
}

/// The folder of a machine.
#[derive(Debug, Clone)]
pub struct Home {
    folder: PathBuf,
}

impl Home {
    /// Takes the folder, made with mode 0700 if it is not there. One that others may write to is refused.
    pub fn open(folder: &Path) -> Result<Home, HomeError> {
        let home = Home { folder: folder.to_path_buf() };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(home.failed("make the folder", folder))?;
        let found = folder.metadata().map_err(home.failed("look at", folder))?;
        check(folder, &found, OTHERS_WRITE)?;
        Ok(home)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The known peers; none if there is no such file.
    pub fn book(&self) -> Result<Book, HomeError> {
        let Some(bytes) = self.read(PEERS, Access::Shared)? else { return Ok(Book::default()) };
        let wrong = |why: String| HomeError::Content { path: self.folder.join(PEERS), why };
        let text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8".into()))?;
        Book::parse(&text).map_err(|error| wrong(error.to_string()))
    }

    /// Changes the known peers: all of the change or, after an error, nothing. Two processes do so one after the other.
    pub fn change_book<T>(&self, change: impl FnOnce(&mut Book) -> Result<T, BookError>) -> Result<T, HomeError> {
        let _lock = self.lock()?;
        let mut book = self.book()?;
        let result = change(&mut book)?;
        self.write(PEERS, book.render().as_bytes())?;
        Ok(result)
    }

    /// Reads a whole file; `None` if there is none.
    pub(super) fn read(&self, name: &str, access: Access) -> Result<Option<Vec<u8>>, HomeError> {
        let path = self.folder.join(name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut file = match open(&path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.failed("open", &path)(error.into())),
        };
        let found = file.metadata().map_err(self.failed("look at", &path))?;
        if !found.is_file() || found.len() > FILE_BYTES {
            let why = format!("not a file of at most {FILE_BYTES} bytes");
            return Err(HomeError::Content { path, why });
        }
        check(&path, &found, if access == Access::Private { OTHERS_READ } else { OTHERS_WRITE })?;
        let mut bytes = Vec::new();
        let read = Read::by_ref(&mut file).take(FILE_BYTES).read_to_end(&mut bytes);
        read.map_err(self.failed("read", &path))?;
        Ok(Some(bytes))
    }

    /// Writes a whole file with mode 0600: after a crash it is the old one or the new one. The folder must be locked.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        let (path, new) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.failed("remove", &new)(error)),
            _ => {}
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = open(&new, flags, Mode::RUSR | Mode::WUSR).map_err(|error| self.failed("make", &new)(error.into()))?;
        let mut file = File::from(file);
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(self.failed("write", &new))?;
        rename(&new, &path).map_err(|error| self.failed("rename", &new)(error.into()))?;
        let folder = File::open(&self.folder).map_err(self.failed("open", &self.folder))?;
        fsync(&folder).map_err(|error| self.failed("write", &self.folder)(error.into()))
    }

    /// Holds the folder until the result is dropped.
    pub(super) fn lock(&self) -> Result<File, HomeError> {
        let folder = File::open(&self.folder).map_err(self.failed("open", &self.folder))?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(folder),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(LOCK_POLL),
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(HomeError::Held(self.folder.clone())),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(self.failed("lock", &self.folder)(error.into())),
            }
        }
    }

    /// By what a change of the known peers is noticed; `None` if there is no such file.
    fn peers_stamp(&self) -> Result<Option<Stamp>, HomeError> {
        let path = self.folder.join(PEERS);
        match path.symlink_metadata() {
            Ok(found) => Ok(Some(Stamp::of(&found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("look at", &path)(error)),
        }
    }

    fn failed(&self, what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError + use<> {
        let path = path.to_path_buf();
        move |source| HomeError::Io { what, path, source }
    }
}

/// What differs between two versions of a file: each is renamed into place, so that two in a row have different inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Stamp {
        Stamp { inode: found.ino(), size: found.len(), changed: (found.ctime(), found.ctime_nsec()) }
    }
}

/// What was read last.
#[derive(Debug)]
struct LastRead {
    stamp: Option<Stamp>,
    book: Arc<Book>,
}

/// The known peers as they are at any moment, for a process that stays: the file is read again when it has changed.
#[derive(Debug)]
pub struct KnownPeers {
    home: Home,
    read: Mutex<LastRead>,
}

impl KnownPeers {
    /// Reads them for the first time.
    pub fn open(home: Home) -> Result<KnownPeers, HomeError> {
        let stamp = home.peers_stamp()?;
        let book = Arc::new(home.book()?);
        Ok(KnownPeers { home, read: Mutex::new(LastRead { stamp, book }) })
    }

    /// Who is known now. With an error if the file has become unreadable: then those count that were known before, and
    /// nothing more is said until it changes again.
    pub fn now(&self) -> (Arc<Book>, Option<HomeError>) {
        let mut last = lock(&self.read);
        let error = self.refresh(&mut last).err();
        (Arc::clone(&last.book), error)
    }

    fn refresh(&self, last: &mut LastRead) -> Result<(), HomeError> {
        let stamp = self.home.peers_stamp()?;
        if stamp != last.stamp {
            // Taken before the content: a change in between is noticed next time.
            match self.home.book() {
                Ok(book) => (last.book, last.stamp) = (Arc::new(book), stamp),
                // It may be read the next time.
                Err(error @ HomeError::Io { .. }) => return Err(error),
                Err(error) => {
                    last.stamp = stamp;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Belongs to this user, or to root, and `others` have none of these permissions.
fn check(path: &Path, found: &Metadata, others: u32) -> Result<(), HomeError> {
    let wrong = |why: String| Err(HomeError::Unsafe { path: path.to_path_buf(), why });
    let own = geteuid().as_raw();
    if found.uid() != own && found.uid() != 0 {
        return wrong(format!("belongs to the user {}, not to {own}", found.uid()));
    }
    if found.mode() & others != 0 {
        let what = if others == OTHERS_READ { "read" } else { "change" };
        let fix = if found.is_dir() { "700" } else { "600" };
        let mode = found.mode() & 0o777;
        return wrong(format!("has mode {mode:04o}, so that others may {what} it; if none of them did, chmod {fix} it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Peer, PublicKey};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn peer(key: u8) -> Peer {
        Peer { id: PublicKey::from_bytes([key; 32]).id(), addresses: Vec::new(), grants: Default::default() }
    }

    fn add(home: &Home, key: u8) -> Result<(), HomeError> {
        home.change_book(|book| book.add(format!("p{key}").parse().unwrap(), peer(key)))
    }

    #[test]
    fn folder_and_files_are_for_the_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("a/b")).unwrap();
        add(&home, 1).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(home.folder()), mode(&home.folder().join(PEERS))), (0o700, 0o600));
        let names: Vec<_> = fs::read_dir(home.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [PEERS]);
    }

    #[test]
    fn what_others_may_change_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        add(&home, 1).unwrap();
        let file = dir.path().join(PEERS);
        fs::set_permissions(&file, Permissions::from_mode(0o620)).unwrap();
        assert!(home.book().unwrap_err().to_string().contains("has mode 0620"));
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert!(home.book().is_ok());
        fs::set_permissions(dir.path(), Permissions::from_mode(0o770)).unwrap();
        assert!(Home::open(dir.path()).unwrap_err().to_string().contains("chmod 700"));
    }

    #[test]
    fn what_is_no_plain_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let file = dir.path().join(PEERS);
        symlink("/dev/null", &file).unwrap();
        assert!(matches!(home.book(), Err(HomeError::Io { .. })));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(matches!(home.book(), Err(HomeError::Content { .. })));
        fs::remove_dir(&file).unwrap();
        File::create(&file).unwrap().set_len(FILE_BYTES + 1).unwrap();
        assert!(home.book().unwrap_err().to_string().contains("at most"));
        fs::write(&file, b"\xff").unwrap();
        assert!(home.book().unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn a_refused_change_changes_nothing_and_a_left_over_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        fs::write(dir.path().join("peers.toml.new"), "left by a crash").unwrap();
        add(&home, 1).unwrap();
        let before = fs::read(dir.path().join(PEERS)).unwrap();
        assert!(matches!(add(&home, 1), Err(HomeError::Book(_))));
        assert_eq!(fs::read(dir.path().join(PEERS)).unwrap(), before);
    }

    #[test]
    fn a_process_that_stays_knows_at_once_whom_another_one_adds_and_removes() {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownPeers::open(Home::open(dir.path()).unwrap()).unwrap();
        let home = Home::open(dir.path()).unwrap();
        for key in 0..50 {
            add(&home, key).unwrap();
            let (book, error) = known.now();
            assert!(error.is_none() && book.ids().contains(&peer(key).id), "{key}: {error:?}");
            home.change_book(|book| book.remove(&format!("p{key}").parse().unwrap())).unwrap();
            assert!(known.now().0.peers().is_empty(), "{key}");
        }
    }

    #[test]
    fn a_file_of_peers_that_becomes_unreadable_is_told_once_and_takes_nobody_away() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        add(&home, 1).unwrap();
        let known = KnownPeers::open(home.clone()).unwrap();
        let good = fs::read(dir.path().join(PEERS)).unwrap();
        home.write(PEERS, b"no TOML").unwrap();
        let (book, error) = known.now();
        assert!(book.ids().contains(&peer(1).id) && matches!(error, Some(HomeError::Content { .. })), "{error:?}");
        assert!(known.now().1.is_none());
        home.write(PEERS, &good).unwrap();
        assert!(known.now().1.is_none());
        fs::remove_file(dir.path().join(PEERS)).unwrap();
        assert!(known.now().0.peers().is_empty());
    }

    #[test]
    fn changes_at_the_same_time_are_all_made() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        thread::scope(|scope| {
            for key in 0..8 {
                let home = &home;
                scope.spawn(move || add(home, key).unwrap());
            }
        });
        assert_eq!(home.book().unwrap().peers().len(), 8);
    }
}
