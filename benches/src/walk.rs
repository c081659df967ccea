//! A bare parallel walk that stats everything: the least that a look at a tree can cost, and how results are checked.

use anyhow::{Context as _, Result};
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx, StatxFlags};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Add;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What a walk met, `.driftless` left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Count {
    /// Files, directories and links.
    pub(crate) entries: u64,
    /// Bytes of regular files.
    pub(crate) bytes: u64,
    /// Bytes that everything occupies on the disk.
    pub(crate) disk_bytes: u64,
    /// Sum of what the visitor made of every entry.
    pub(crate) visited: u64,
}

impl Add for Count {
    type Output = Count;

    fn add(self, other: Count) -> Count {
        Count {
            entries: self.entries + other.entries,
            bytes: self.bytes + other.bytes,
            disk_bytes: self.disk_bytes + other.disk_bytes,
            visited: self.visited.wrapping_add(other.visited),
        }
    }
}

/// Walks trees side by side and prints how many entries they have.
pub(crate) fn print(roots: &[OsString]) -> Result<()> {
    let counts = roots.par_iter().map(|root| count(Path::new(root))).collect::<Result<Vec<_>>>()?;
    for (root, count) in roots.iter().zip(counts) {
        println!("{} {}", count.entries, root.display());
    }
    Ok(())
}

/// Stats everything below a root.
pub(crate) fn count(root: &Path) -> Result<Count> {
    walk(root, &|_, _, _| 0)
}

/// Stats everything below a root and sums up paths, kinds, sizes and files' times in whole seconds, which is as fine
/// as every tool carries them: trees that agree in this are taken to be equal.
pub(crate) fn fingerprint(root: &Path) -> Result<Count> {
    walk(root, &|dir, name, stat| {
        let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
        let shown = if kind == FileType::RegularFile { (stat.stx_size, stat.stx_mtime.tv_sec) } else { (0, 0) };
        let mut hasher = DefaultHasher::new();
        (dir.strip_prefix(root).ok(), name, kind.as_raw_mode(), shown).hash(&mut hasher);
        hasher.finish()
    })
}

/// What tells a target from its source, if anything does.
pub(crate) fn difference(a: &Path, b: &Path) -> Result<Option<String>> {
    let (want, have) = (fingerprint(a)?, fingerprint(b)?);
    if (want.entries, want.bytes) != (have.entries, have.bytes) {
        return Ok(Some(format!("{} entries, {} bytes instead of {}, {}", have.entries, have.bytes, want.entries, want.bytes)));
    }
    Ok((want.visited != have.visited).then(|| "other paths, sizes or times than the source".to_owned()))
}

type Visitor<'a> = &'a (dyn Fn(&Path, &CStr, &Statx) -> u64 + Sync);

fn walk(root: &Path, visitor: Visitor<'_>) -> Result<Count> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, root, flags, Mode::empty()).with_context(|| format!("cannot open {}", root.display()))?;
    below(&fd, root, visitor)
}

fn below(dir: &OwnedFd, path: &Path, visitor: Visitor<'_>) -> Result<Count> {
    let doing = |what: &str| format!("cannot {what} {}", path.display());
    let mut names: Vec<(u64, CString)> = Vec::new();
    for entry in Dir::read_from(dir).with_context(|| doing("read"))? {
        let entry = entry.with_context(|| doing("read"))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b".." | b".driftless") {
            names.push((entry.ino(), entry.file_name().to_owned()));
        }
    }
    // In the order of the inodes, so that their blocks are met one after the other.
    names.sort_unstable_by_key(|(ino, _)| *ino);
    let (mut total, mut dirs) = (Count::default(), Vec::new());
    for (_, name) in names {
        let stat = rustix::fs::statx(dir.as_fd(), &name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
            .with_context(|| doing("stat in"))?;
        let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
        let bytes = if kind == FileType::RegularFile { stat.stx_size } else { 0 };
        total = total + Count { entries: 1, bytes, disk_bytes: stat.stx_blocks * 512, visited: visitor(path, &name, &stat) };
        if kind == FileType::Directory {
            dirs.push(name);
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let deeper = dirs.par_iter().map(|name| {
        let at: PathBuf = path.join(OsStr::from_bytes(name.to_bytes()));
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).with_context(|| format!("cannot open {}", at.display()))?;
        below(&fd, &at, visitor)
    });
    Ok(total + deeper.try_reduce(Count::default, |a, b| Ok(a + b))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_private_folder_is_counted() {
        let root = tempfile::tempdir().unwrap();
        fixtures::Tree::parse("a/b = 12345\na/c/d = 1\nlink -> a").unwrap().write_to(root.path()).unwrap();
        std::fs::create_dir(root.path().join(".driftless")).unwrap();
        let found = count(root.path()).unwrap();
        assert_eq!((found.entries, found.bytes), (5, 6));
        assert!(found.disk_bytes > 0);
    }

    #[test]
    fn a_renamed_file_and_another_time_change_the_fingerprint() {
        let print = |text: &str| {
            let root = tempfile::tempdir().unwrap();
            fixtures::Tree::parse(text).unwrap().write_to(root.path()).unwrap();
            fingerprint(root.path()).unwrap().visited
        };
        assert_eq!(print("a/b = 1 mtime=5"), print("a/b = 1 mtime=5.5"));
        assert_ne!(print("a/b = 1 mtime=5"), print("a/c = 1 mtime=5"));
        assert_ne!(print("a/b = 1 mtime=5"), print("c/b = 1 mtime=5"));
        assert_ne!(print("a/b = 1 mtime=5"), print("a/b = 1 mtime=6"));
    }
}
