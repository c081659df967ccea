//! Which file system a path lies on, as the kernel's table of mounts tells. Pure: the text is handed in.

use std::path::{Path, PathBuf};

/// File systems on which other machines write too: their changes are told to nobody here.
const SHARED: [&str; 12] =
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "afs", "lustre"];

/// One line of `/proc/self/mountinfo`, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where it is mounted.
    pub(super) point: PathBuf,
    /// `ext4`, `nfs4`.
    pub(super) kind: String,
    /// Which device, or which server.
    pub(super) source: String,
}

impl Mount {
    /// Do other machines write there too?
    pub(super) fn is_shared(&self) -> bool {
        SHARED.contains(&self.kind.as_str())
    }
}

/// The mount that a path lies on: the longest one above it, and of those at one place the one that came last.
pub(super) fn of(table: &[u8], path: &Path) -> Option<Mount> {
    let mounts = table.split(|byte| *byte == b'\n').filter_map(parse).filter(|mount| path.starts_with(&mount.point));
    mounts.fold(None, |best: Option<Mount>, mount| match best {
        Some(best) if best.point.as_os_str().len() > mount.point.as_os_str().len() => Some(best),
        _ => Some(mount),
    })
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw` (proc_pid_mountinfo(5)).
fn parse(line: &[u8]) -> Option<Mount> {
    let text = String::from_utf8_lossy(line);
    let mut words = text.split(' ');
    let point = words.nth(4)?;
    let mut rest = words.skip_while(|word| *word != "-").skip(1);
    Some(Mount { point: PathBuf::from(unescape(point)), kind: rest.next()?.to_owned(), source: unescape(rest.next()?) })
}

/// Blanks and backslashes stand there as three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        22 21 8:2 / /srv rw,noatime shared:1 master:2 - xfs /dev/sdb1 rw\n\
        23 22 0:40 / /srv/with\\040blank ro - nfs4 files:/x\\040y ro\n\
        24 22 0:41 / /srv/over rw - tmpfs none rw\n\
        25 24 0:42 / /srv/over rw - btrfs /dev/sdc rw\n\
        nonsense\n";

    #[test]
    fn the_longest_mount_above_a_path_and_the_last_of_one_place_counts() {
        let kind = |path: &str| of(TABLE, Path::new(path)).map(|mount| mount.kind);
        for (path, expected) in
            [("/home", "ext4"), ("/srv", "xfs"), ("/srvx", "ext4"), ("/srv/with blank/d", "nfs4"), ("/srv/over/d", "btrfs")]
        {
            assert_eq!(kind(path).as_deref(), Some(expected), "{path}");
        }
        let shared = of(TABLE, Path::new("/srv/with blank")).unwrap();
        assert!(shared.is_shared() && shared.source == "files:/x y", "{shared:?}");
        assert_eq!(of(b"", Path::new("/")), None);
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescape("a\\134b\\9\\"), "a\\b\\9\\");
    }
}
