//! What stands at a path: file, directory, symlink; their content and attributes.
//!
//! Absence is the lack of an object. *Unreadable*, *ignored* and *unavailable* are never expressed here
//! as absence: whoever meets them leaves the row as it is.

use std::fmt;

/// BLAKE3 of a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(5).try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// The three kinds of object that are synchronised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link; its target is its content and is never followed.
    Symlink,
}

/// What an object holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A directory; its children have rows of their own.
    Dir,
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// BLAKE3 of the bytes; `None` until somebody needed to read them.
        hash: Option<Hash>,
    },
    /// A symbolic link and the bytes of its target.
    Symlink(Box<[u8]>),
}

impl Content {
    /// The kind of this content.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Content::Dir => Kind::Dir,
            Content::File { .. } => Kind::File,
            Content::Symlink(_) => Kind::Symlink,
        }
    }
}

/// Replicated attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attrs {
    /// Permission bits, `0o7777`; 0o777 for symlinks.
    pub mode: u32,
    /// Owner's numeric id.
    pub uid: u32,
    /// Group's numeric id.
    pub gid: u32,
    /// Modification time in nanoseconds since 1970. For a directory it is carried along, but is no part of
    /// its version: every change of a child moves it.
    pub mtime_ns: i64,
}

/// Which attributes a synchronisation replicates and compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttrMask {
    /// Permission bits.
    pub perms: bool,
    /// Owner and group.
    pub owner: bool,
    /// Modification times.
    pub times: bool,
}

impl AttrMask {
    /// Permissions and times, and the owner too where the process may set it.
    #[must_use]
    pub fn standard(may_chown: bool) -> AttrMask {
        AttrMask { perms: true, owner: may_chown, times: true }
    }

    /// Are the replicated attributes of two objects of this kind equal?
    #[must_use]
    pub fn equal(self, kind: Kind, a: &Attrs, b: &Attrs) -> bool {
        (!self.perms || kind == Kind::Symlink || a.mode == b.mode)
            && (!self.owner || (a.uid, a.gid) == (b.uid, b.gid))
            && (!self.times || kind == Kind::Dir || a.mtime_ns == b.mtime_ns)
    }
}

/// An object at a path: content and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What it holds.
    pub content: Content,
    /// Its replicated attributes.
    pub attrs: Attrs,
}

/// Whether two contents are equal, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Same {
    /// Equal.
    Yes,
    /// Different.
    No,
    /// Equal sizes, and at least one side has not been read yet.
    Unknown,
}

impl Object {
    /// The kind of the object.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.content.kind()
    }

    /// Compares contents, attributes left aside.
    #[must_use]
    pub fn same_content(&self, other: &Object) -> Same {
        match (&self.content, &other.content) {
            (Content::Dir, Content::Dir) => Same::Yes,
            (Content::Symlink(a), Content::Symlink(b)) if a == b => Same::Yes,
            (Content::File { size: a, .. }, Content::File { size: b, .. }) if a != b => Same::No,
            (Content::File { hash: Some(a), .. }, Content::File { hash: Some(b), .. }) if a == b => Same::Yes,
            (Content::File { hash: Some(_), .. }, Content::File { hash: Some(_), .. }) => Same::No,
            (Content::File { size: 0, .. }, Content::File { size: 0, .. }) => Same::Yes,
            (Content::File { .. }, Content::File { .. }) => Same::Unknown,
            _ => Same::No,
        }
    }
}

/// What a file system said of an object when it was last looked at: the quick check compares this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signature {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Modification time, ns since 1970.
    pub mtime_ns: i64,
    /// Change time, ns since 1970.
    pub ctime_ns: i64,
    /// Birth time, ns since 1970; 0 where the file system has none.
    pub btime_ns: i64,
    /// Type and permission bits as `st_mode` has them.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The content was read so soon after its last change that a further change could bear the same
    /// times; it is read again at the next scan.
    pub racy: bool,
}

impl Signature {
    /// The attributes that this signature implies.
    #[must_use]
    pub fn attrs(&self) -> Attrs {
        Attrs { mode: self.mode & 0o7777, uid: self.uid, gid: self.gid, mtime_ns: self.mtime_ns }
    }
}

/// Additive digest of everything live below a directory: the wrapping sum of its children's digests, so
/// that it is kept up to date by the difference, and equal trees have equal digests wherever they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Digest(pub u128);

impl Digest {
    /// A child's share in the digest of its directory. `below` is the digest of the child's own children.
    /// Permissions and files' times take part, the owner does not: a digest must not depend on who runs, since it is
    /// kept by differences.
    #[must_use]
    pub fn of_child(name: &[u8], object: &Object, below: Digest) -> Digest {
        let mut bytes = [0u8; 384];
        let mut len = 0;
        let mut push = |part: &[u8]| {
            bytes[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        };
        let attrs = &object.attrs;
        let kind = object.kind();
        push(&[kind as u8]);
        if kind != Kind::Symlink {
            push(&attrs.mode.to_le_bytes());
        }
        if kind != Kind::Dir {
            push(&attrs.mtime_ns.to_le_bytes());
        }
        match &object.content {
            Content::Dir => push(&below.0.to_le_bytes()),
            Content::File { size, hash } => {
                push(&size.to_le_bytes());
                push(hash.as_ref().map_or(&[][..], |h| &h.0[..]));
            }
            Content::Symlink(target) => push(blake3::hash(target).as_bytes()),
        }
        push(name);
        let hash = blake3::hash(&bytes[..len]);
        let mut half = [0u8; 16];
        half.copy_from_slice(&hash.as_bytes()[..16]);
        Digest(u128::from_le_bytes(half))
    }

    /// Adds a child's share.
    #[must_use]
    pub fn plus(self, other: Digest) -> Digest {
        Digest(self.0.wrapping_add(other.0))
    }

    /// Takes a child's share away.
    #[must_use]
    pub fn minus(self, other: Digest) -> Digest {
        Digest(self.0.wrapping_sub(other.0))
    }
}
