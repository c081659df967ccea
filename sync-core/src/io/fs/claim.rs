//! Whose a private folder in a cold root is: one hot root's, and no copy's of it. And how far it has come.
//!
//! A hot root that is copied whole, with its state, remembers the same cold roots, and the same folder in each: what the copy
//! removed or brought back would be gone for both. So the folder says whose it is. Of a root that was rolled back where it stands
//! the directory is still the same, whatever identity it takes; a copy's is another one.
//!
//! A cold disk that is brought back from an image has the inodes and the stamps that it had, and days in it that are older than what
//! is known of them: they would count as edited and deleted here. So the folder bears a number, its generation, which is raised right
//! before anything is recorded that was found or made there. The state remembers the last one after the folder bears it, and before
//! what it stands for: whatever a crash leaves, the folder is at the state's generation or ahead of it. One that is behind is a copy
//! from before.

use super::cold::{Cold, Unavailable, read_text, write_durably};
use super::{Dir, FsError, Root, exact};
use crate::io::kill::kill_point;
use crate::path::{RESERVED, escape};
use rustix::io::Errno;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of the file in a hot root's private folder in a cold root that says whose the folder is.
const OWNER: &[u8] = b"owner";
/// While it is written.
const NEW_OWNER: &[u8] = b"owner.new";

/// A hot root, as far as it may use its folders in cold roots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claim {
    /// Its replica's id.
    pub replica: String,
    /// Its state is a copy, or was brought back: that its folders are its own only the place of its root can tell.
    pub copied: bool,
    /// The directory of the root: machine, file system, inode, birth.
    place: String,
    path: PathBuf,
}

/// How far a hot root's folder in a cold root has come for certain, as the state of the hot root knows it; 0 before anything was
/// recorded of it. Shared by all that look at the cold root.
#[derive(Debug, Clone, Default)]
pub struct Generation(Arc<AtomicU64>);

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    replica: String,
    place: String,
    path: String,
    generation: u64,
}

/// A cold root is the same one, however far it has come.
impl PartialEq for Generation {
    fn eq(&self, _other: &Generation) -> bool {
        true
    }
}

impl Eq for Generation {}

impl Generation {
    /// As a state remembers it.
    #[must_use]
    pub fn of(number: u64) -> Generation {
        Generation(Arc::new(AtomicU64::new(number)))
    }

    /// The last one that the state remembers.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// The state remembers this one now.
    pub(crate) fn remember(&self, number: u64) {
        self.0.fetch_max(number, Ordering::AcqRel);
    }
}

impl Claim {
    /// What a root claims.
    ///
    /// # Errors
    /// The root cannot be looked at.
    pub fn of(root: &Root, replica: String, copied: bool) -> Result<Claim, FsError> {
        let now = root.signature()?;
        let mut place = format!("{:x}-{:x}-{:x}-", root.file_system()?, now.ino, now.btime_ns);
        // A machine without an id is a place like any other.
        let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
        for byte in machine.trim_ascii() {
            write!(place, "{byte:02x}").expect("a text takes what is written to it");
        }
        Ok(Claim { replica, copied, place, path: root.path().to_owned() })
    }

    /// The same of what is beyond doubt this root's own.
    #[must_use]
    pub fn undoubted(self) -> Claim {
        Claim { copied: false, ..self }
    }

    fn owner(&self, generation: u64) -> Owner {
        let path = escape(self.path.as_os_str().as_bytes());
        Owner { replica: self.replica.clone(), place: self.place.clone(), path, generation }
    }

    /// A folder without an owner is from before there were any: it is that root's which was not copied.
    fn holds(&self, owner: Option<&Owner>) -> bool {
        match owner {
            None => !self.copied,
            Some(owner) => (!self.copied && owner.replica == self.replica) || owner.place == self.place,
        }
    }
}

impl Owner {
    fn parse(text: &str) -> Option<Owner> {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        // A folder from before there were generations has none.
        let generation = value("generation ").map_or(Some(0), |number| number.parse().ok())?;
        Some(Owner { replica: value("replica ")?, place: value("place ")?, path: value("path ")?, generation })
    }

    fn text(&self) -> String {
        let Owner { replica, place, path, generation } = self;
        format!(
            "The folder of driftless that this one belongs to. No other one uses it.\n\
             replica {replica}\nplace {place}\npath {path}\ngeneration {generation}\n"
        )
    }
}

impl Cold {
    /// Refuses a folder that belongs to another root, and one that is older than what is known of it. The cold root is open.
    pub(super) fn check_owner(&self, fd: &OwnedFd) -> Result<(), Unavailable> {
        let owner = self.owner(fd)?;
        let (cold, hot) = (|| self.path.clone(), || self.claim.path.clone());
        if !self.claim.holds(owner.as_ref()) {
            let path = owner.map_or_else(|| "it is not known which".into(), |owner| owner.path);
            return Err(Unavailable::Owned { cold: cold(), owner: path, hot: hot() });
        }
        let (found, known) = (owner.map_or(0, |owner| owner.generation), self.generation.number());
        if found < known {
            return Err(Unavailable::RolledBack { cold: cold(), found, known, hot: hot() });
        }
        Ok(())
    }

    /// Is it there, and older than what is known of it?
    ///
    /// # Errors
    /// The cold root is not there.
    pub fn is_rolled_back(&self) -> Result<bool, Unavailable> {
        let found = match self.owner(&self.enter_any()?) {
            // How old it is nobody can tell any more.
            Err(Unavailable::Unowned { .. }) => 0,
            owner => owner?.map_or(0, |owner| owner.generation),
        };
        Ok(found < self.generation.number())
    }

    /// What is wrong with what its folder says of its owner, if that cannot be read.
    #[must_use]
    pub fn wrong_owner(&self) -> Option<Unavailable> {
        let owner = self.enter_any().and_then(|fd| self.owner(&fd));
        owner.err().filter(|why| matches!(why, Unavailable::Unowned { .. }))
    }

    /// What lies there is about to be recorded as it is now: from here on the folder is newer than any copy of it that was taken so
    /// far, durably when the call returns. The answer is for the state to remember, before anything else.
    ///
    /// # Errors
    /// The cold root is not there, or may not be written.
    pub fn raise(&self) -> Result<u64, FsError> {
        let fd = self.enter().map_err(|why| self.unusable(why))?;
        let owner = self.owner(&fd).map_err(|why| self.unusable(why))?;
        // What is behind was refused; what is ahead is of a run that died, or of a state that was brought back.
        let generation = owner.as_ref().map_or(0, |owner| owner.generation).max(self.generation.number()).saturating_add(1);
        let owner = owner.map_or_else(|| self.claim.owner(generation), |owner| Owner { generation, ..owner });
        let folder = Dir { fd, path: self.path.clone(), within: None }.open_or_create(RESERVED)?;
        let folder = folder.open_or_create(self.key.as_bytes())?;
        exact::write_durably(&folder, OWNER, owner.text().as_bytes())?;
        kill_point("cold-raised");
        Ok(generation)
    }

    fn owner(&self, fd: &OwnedFd) -> Result<Option<Owner>, Unavailable> {
        self.owner_of(fd, self.key.as_bytes())
    }

    /// Is another folder in the open cold root this root's, too: from before its state began anew?
    pub(super) fn has_owned(&self, fd: &OwnedFd, key: &[u8]) -> Result<bool, Unavailable> {
        Ok(self.owner_of(fd, key)?.is_some_and(|owner| self.claim.holds(Some(&owner))))
    }

    fn owner_of(&self, fd: &OwnedFd, key: &[u8]) -> Result<Option<Owner>, Unavailable> {
        let wrong = |source| Unavailable::Unowned { cold: self.path.clone(), source, hot: self.claim.path.clone() };
        match read_text(fd, &[RESERVED, key].join(&b'/'), OWNER) {
            Ok(text) => Owner::parse(&text).map(Some).ok_or_else(|| wrong(std::io::Error::other("it makes no sense"))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(wrong(error.into())),
        }
    }

    /// Does the folder say of its owner just what this root is? `false` also where it says nothing.
    ///
    /// # Errors
    /// The cold root is not there, or the folder is another root's.
    pub fn is_owned(&self) -> Result<bool, Unavailable> {
        Ok(self.owner(&self.enter()?)?.is_some_and(|owner| owner == self.claim.owner(owner.generation)))
    }

    /// From now on the folder is this root's, whosever it was, and as far as this root knows it to have come; durably when the call
    /// returns. What cannot be read of its owner ([`Cold::wrong_owner`]) is written anew.
    ///
    /// # Errors
    /// The cold root is not there, or may not be written.
    pub fn own(&self) -> Result<(), FsError> {
        let fd = self.enter_any().map_err(|why| self.unusable(why))?;
        let before = match self.owner(&fd) {
            Err(Unavailable::Unowned { .. }) => 0,
            owner => owner.map_err(|why| self.unusable(why))?.map_or(0, |owner| owner.generation),
        };
        let owner = self.claim.owner(before.max(self.generation.number()));
        let private = Dir { fd, path: self.path.clone(), within: None }.open_or_create(RESERVED)?;
        let folder = private.open_or_create(self.key.as_bytes())?;
        write_durably(&folder, (NEW_OWNER, OWNER), &owner.text())?;
        private.sync()
    }

    /// The error of a call that needs the cold root.
    pub(super) fn unusable(&self, why: Unavailable) -> FsError {
        FsError { action: "use", path: self.path.clone(), source: std::io::Error::other(why) }
    }
}
