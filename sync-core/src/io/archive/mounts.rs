//! One directory by two paths: what bind mounts hide from a comparison of paths, and from the way up.

use super::error::ArchiveError;
use crate::io::fs::FsError;
use crate::path::escape;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The process's mounts.
const LIST: &str = "/proc/self/mountinfo";

/// Where a path lies on its file system: the device, and the path from its top.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    device: Vec<u8>,
    path: PathBuf,
}

/// Refuses a cold root that is the root, lies in it or holds it, also where a bind mount shows a part of one at another path.
///
/// # Errors
/// It does, or the mounts cannot be read.
pub(super) fn refuse_alias(hot: &Path, cold: &Path) -> Result<(), ArchiveError> {
    let failed = |path: &Path, action| {
        let path = path.to_owned();
        move |source| ArchiveError::from(FsError { action, path, source })
    };
    let real = cold.canonicalize().map_err(failed(cold, "open the cold root"))?;
    let list = std::fs::read(LIST).map_err(failed(Path::new(LIST), "read"))?;
    let (Some(a), Some(b)) = (place(&list, hot), place(&list, &real)) else { return Ok(()) };
    if a.device != b.device || !(a.path.starts_with(&b.path) || b.path.starts_with(&a.path)) {
        return Ok(());
    }
    let shown = |path: &Path| escape(path.as_os_str().as_bytes());
    let how = match a.path == b.path {
        true => "is the same directory as",
        false if b.path.starts_with(&a.path) => "lies in",
        false => "holds",
    };
    Err(ArchiveError::Guard(format!(
        "the cold root {} {how} {}: days cannot move there; nothing was touched. Name a directory beside it, or on another disk",
        shown(cold),
        shown(hot)
    )))
}

/// Where a real path lies, by the mount that holds it: the deepest one, and of several at one place the last.
fn place(list: &[u8], path: &Path) -> Option<Place> {
    let mut best: Option<(usize, Place)> = None;
    for line in list.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [_, _, device, top, at, ..] = fields[..] else { continue };
        let [top, at] = [top, at].map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescape(field))));
        let Ok(rest) = path.strip_prefix(&at) else { continue };
        let depth = at.components().count();
        if best.as_ref().is_none_or(|(known, _)| depth >= *known) {
            let path = if rest.as_os_str().is_empty() { top } else { top.join(rest) };
            best = Some((depth, Place { device: device.to_vec(), path }));
        }
    }
    best.map(|(_, place)| place)
}

/// The kernel writes blanks, line ends and backslashes as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'\\').then(|| after.get(..3)).flatten();
        match code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /mnt/old\\040disk rw - ext4 /dev/b rw\n\
        3 1 8:1 /srv/hot/sub /mnt/alias rw - ext4 /dev/a rw\n4 1 8:1 /srv /mnt/all rw - ext4 /dev/a rw\n\
        5 1 8:3 / /mnt/x rw - ext4 /dev/c rw\n6 1 8:4 / /mnt/x rw - ext4 /dev/d rw\n";

    #[test]
    fn a_path_is_found_on_its_file_system_through_bind_mounts() {
        for (path, device, below) in [
            ("/srv/hot", "8:1", "/srv/hot"),
            ("/mnt/old disk/c", "8:2", "/c"),
            ("/mnt/alias", "8:1", "/srv/hot/sub"),
            ("/mnt/alias/x", "8:1", "/srv/hot/sub/x"),
            ("/mnt/all/hot", "8:1", "/srv/hot"),
            ("/mnt/x", "8:4", "/"),
        ] {
            let found = place(MOUNTS, Path::new(path)).unwrap();
            assert_eq!((found.device, found.path), (device.into(), below.into()), "{path}");
        }
    }

    #[test]
    fn a_root_in_the_other_one_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let [hot, cold] = ["hot", "cold"].map(|name| temp.path().canonicalize().unwrap().join(name));
        for dir in [&hot, &cold, &hot.join("in"), &cold.join("in")] {
            std::fs::create_dir_all(dir).unwrap();
        }
        assert!(refuse_alias(&hot, &cold).is_ok());
        for (a, b, word) in [(&hot, &hot, "same"), (&hot, &hot.join("in"), "lies in"), (&cold.join("in"), &cold, "holds")] {
            assert!(refuse_alias(a, b).unwrap_err().to_string().contains(word));
        }
    }
}
