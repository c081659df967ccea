//! File systems that are mounted below a root, or were: the kernel tells of neither through a watch, and `notify` does not pass
//! on that a watch went with its file system. The process's list of mounts says when it changed.

use super::WatchError;
use crate::path::RelPath;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;

/// The list of mounts.
const LIST: &str = "/proc/self/mountinfo";

/// The mounts below a root, as they were when they were looked at last.
#[derive(Debug)]
pub(super) struct Mounts {
    list: File,
    /// Where the root really lies.
    root: Vec<u8>,
    /// The topmost mount at each path, by its number.
    below: BTreeMap<RelPath, u64>,
}

impl Mounts {
    /// `root` is the open root directory.
    pub(super) fn open(root: impl AsFd) -> Result<Mounts, WatchError> {
        let link = format!("/proc/self/fd/{}", root.as_fd().as_raw_fd());
        let root = std::fs::read_link(&link).map_err(failed(&link))?.into_os_string().into_vec();
        // Opened before it is read: what changes in between is told.
        let list = File::open(LIST).map_err(failed(LIST))?;
        let below = below(&root)?;
        Ok(Mounts { list, root, below })
    }

    /// Paths at which something was mounted or unmounted since this was asked last; `None` if nothing was mounted or unmounted
    /// anywhere.
    pub(super) fn changed(&mut self) -> Result<Option<Vec<RelPath>>, WatchError> {
        let mut fds = [PollFd::new(&self.list, PollFlags::PRI)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let told = retry_on_intr(|| poll(&mut fds, Some(&now))).map_err(|error| failed(LIST)(error.into()))?;
        if told == 0 {
            return Ok(None);
        }
        let before = std::mem::replace(&mut self.below, below(&self.root)?);
        let paths = before.keys().chain(self.below.keys());
        let mut changed: Vec<_> = paths.filter(|path| before.get(path) != self.below.get(path)).cloned().collect();
        changed.sort_unstable();
        changed.dedup();
        Ok(Some(changed))
    }
}

fn failed(path: &str) -> impl FnOnce(io::Error) -> WatchError {
    move |source| WatchError::Proc { path: path.to_owned(), source }
}

fn below(root: &[u8]) -> Result<BTreeMap<RelPath, u64>, WatchError> {
    let text = std::fs::read(LIST).map_err(failed(LIST))?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(|line| mount(line, root)).collect())
}

/// The path below the root and the number of the mount that a line tells of. What is at the root, above or beside is none, nor what
/// is in the private folder.
fn mount(line: &[u8], root: &[u8]) -> Option<(RelPath, u64)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let number = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let at = unescape(fields.nth(3)?);
    let rest = if root == b"/" { &at[..] } else { at.strip_prefix(root)? };
    let path = RelPath::parse(rest.strip_prefix(b"/")?).ok()?;
    (!path.is_root()).then_some((path, number))
}

/// The kernel writes blanks, line ends and backslashes as three octal digits.
fn unescape(mut text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        let code = (*first == b'\\').then(|| rest.get(..3)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        out.push(code.unwrap_or(*first));
        text = if code.is_some() { &rest[3..] } else { rest };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_understood() {
        let line = |at: &str| format!("77 24 0:42 / {at} rw,relatime shared:7 - tmpfs none rw");
        for (at, path) in [
            ("/srv/a/mnt", Some("mnt")),
            ("/srv/a/my\\040disk/x", Some("my disk/x")),
            ("/srv/a", None),
            ("/srv", None),
            ("/srv/ab", None),
            ("/srv/a/.driftless/x", None),
        ] {
            let found = mount(line(at).as_bytes(), b"/srv/a");
            assert_eq!(found, path.map(|path| (RelPath::parse(path.as_bytes()).unwrap(), 77)), "{at}");
        }
        assert_eq!(mount(line("/mnt").as_bytes(), b"/"), Some((RelPath::parse(b"mnt").unwrap(), 77)));
        assert_eq!(mount(b"", b"/"), None);
    }
}
