//! Whose a private folder in a cold root is: one hot root's, and no copy's of it.
//!
//! A hot root that is copied whole, with its state, remembers the same cold roots, and the same folder in each: what the copy
//! removed or brought back would be gone for both. So the folder says whose it is. Of a root that was rolled back where it stands
//! the directory is still the same, whatever identity it takes; a copy's is another one.

use super::cold::{Cold, Unavailable, read_text, write_durably};
use super::{Dir, FsError, Root};
use crate::path::{RESERVED, escape};
use rustix::io::Errno;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

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

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    replica: String,
    place: String,
    path: String,
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

    fn owner(&self) -> Owner {
        Owner { replica: self.replica.clone(), place: self.place.clone(), path: escape(self.path.as_os_str().as_bytes()) }
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
        Some(Owner { replica: value("replica ")?, place: value("place ")?, path: value("path ")? })
    }

    fn text(&self) -> String {
        let Owner { replica, place, path } = self;
        format!(
            "The folder of driftless that this one belongs to. No other one uses it.\nreplica {replica}\nplace {place}\npath {path}\n"
        )
    }
}

impl Cold {
    /// Refuses a folder that belongs to another root. The cold root is open.
    pub(super) fn check_owner(&self, fd: &OwnedFd) -> Result<(), Unavailable> {
        let owner = self.owner(fd)?;
        if self.claim.holds(owner.as_ref()) {
            return Ok(());
        }
        let path = owner.map_or_else(|| "it is not known which".into(), |owner| owner.path);
        Err(Unavailable::Owned { cold: self.path.clone(), owner: path, hot: self.claim.path.clone() })
    }

    fn owner(&self, fd: &OwnedFd) -> Result<Option<Owner>, Unavailable> {
        self.owner_of(fd, self.key.as_bytes())
    }

    /// Is another folder in the open cold root this root's, too: from before its state began anew?
    pub(super) fn has_owned(&self, fd: &OwnedFd, key: &[u8]) -> Result<bool, Unavailable> {
        Ok(self.owner_of(fd, key)?.is_some_and(|owner| self.claim.holds(Some(&owner))))
    }

    fn owner_of(&self, fd: &OwnedFd, key: &[u8]) -> Result<Option<Owner>, Unavailable> {
        let wrong = |source| Unavailable::Unstamped { cold: self.path.clone(), source };
        match read_text(fd, &[RESERVED, key].join(&b'/'), OWNER) {
            Ok(text) => Owner::parse(&text).map(Some).ok_or_else(|| wrong(std::io::Error::other("its file owner is damaged"))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(wrong(error.into())),
        }
    }

    /// Does the folder say of its owner just what this root is? `false` also where it says nothing.
    ///
    /// # Errors
    /// The cold root is not there, or the folder is another root's.
    pub fn is_owned(&self) -> Result<bool, Unavailable> {
        Ok(self.owner(&self.enter()?)?.is_some_and(|owner| owner == self.claim.owner()))
    }

    /// From now on the folder is this root's, whosever it was; durably when the call returns.
    ///
    /// # Errors
    /// The cold root is not there, or may not be written.
    pub fn own(&self) -> Result<(), FsError> {
        let fd = self.enter_any().map_err(|why| self.unusable(why))?;
        let private = Dir { fd, path: self.path.clone(), within: None }.open_or_create(RESERVED)?;
        let folder = private.open_or_create(self.key.as_bytes())?;
        write_durably(&folder, (NEW_OWNER, OWNER), &self.claim.owner().text())?;
        private.sync()
    }

    /// The error of a call that needs the cold root.
    pub(super) fn unusable(&self, why: Unavailable) -> FsError {
        FsError { action: "use", path: self.path.clone(), source: std::io::Error::other(why) }
    }
}
