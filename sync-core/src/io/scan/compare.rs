//! One directory: the names on the disk against the live rows. Pure but for the calls handed in.

use crate::entry::{Kind, Signature};
use crate::io::fs::FsError;
use crate::io::state::Known;
use rustix::fs::FileType;

/// The names of a directory, in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    items: Vec<Item>,
    /// Was a name left out? It may explain a new mtime of the directory.
    pub(super) left_out: bool,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    start: usize,
    len: u8,
    hint: FileType,
    ino: u64,
}

/// A name on the disk, and what the listing tells of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'a> {
    pub(super) name: &'a [u8],
    pub(super) hint: FileType,
    /// 0 if it was not listed.
    pub(super) ino: u64,
}

impl Names {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
        self.left_out = false;
    }

    /// Adds a name of at most 255 bytes; a longer one is refused.
    pub(super) fn push(&mut self, name: &[u8], hint: FileType, ino: u64) -> bool {
        let Ok(len) = u8::try_from(name.len()) else {
            return false;
        };
        self.items.push(Item { start: self.bytes.len(), len, hint, ino });
        self.bytes.extend_from_slice(name);
        true
    }

    pub(super) fn sort(&mut self) {
        let bytes = &self.bytes;
        self.items.sort_unstable_by(|a, b| a.name(bytes).cmp(b.name(bytes)));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Listed<'_>> {
        self.items.iter().map(|item| Listed { name: item.name(&self.bytes), hint: item.hint, ino: item.ino })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl Item {
    fn name(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start..self.start + usize::from(self.len)]
    }
}

/// Something that the walk must look at more closely.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A directory stands here; the row may be missing, or of another kind.
    Dir(&'a [u8], Option<Known>),
    /// A file or link stands here, and there is no row.
    New(&'a [u8], Signature),
    /// A file or link stands here, and a row of another kind.
    OtherKind(Known, Signature),
    /// A file or link of the row's kind stands here, and the row cannot vouch for it.
    Changed(Known, Signature),
    /// There is a row, and nothing that is synchronised stands here.
    Gone(Known),
    /// It cannot be told what stands here; a row stays as it is.
    Failed(&'a [u8], FsError),
}

/// What else one directory showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Files, directories and links.
    pub(super) entries: u64,
    /// Sockets, pipes, devices.
    pub(super) specials: u64,
    /// Names appeared, vanished, or stand for another object: that explains a new mtime of the directory.
    pub(super) names_changed: bool,
    /// Something in it is not looked at, and may explain a new mtime as well.
    pub(super) hidden: bool,
}

/// statx of a name, without following.
pub(super) type Stat<'a> = dyn FnMut(&[u8]) -> Result<Option<Signature>, FsError> + 'a;

/// The calls that a comparison makes.
pub(super) struct Calls<'a> {
    /// Looks at a name.
    pub(super) stat: &'a mut Stat<'a>,
    /// Is the name, a directory or not, ignored?
    pub(super) ignored: &'a dyn Fn(&[u8], bool) -> bool,
    /// Must files that were read be read again?
    pub(super) checksum: bool,
}

/// Does the file system say the same of the object? The device is left aside: its number may change with every
/// mount.
pub(super) fn same_signature(a: &Signature, b: &Signature) -> bool {
    a.ino == b.ino
        && a.ctime_ns == b.ctime_ns
        && a.mtime_ns == b.mtime_ns
        && a.size == b.size
        && a.btime_ns == b.btime_ns
        && (a.mode, a.uid, a.gid) == (b.mode, b.uid, b.gid)
}

/// The kind of object that a mode stands for; `None` for what is never synchronised.
pub(super) fn kind_of(mode: u32) -> Option<Kind> {
    kind_of_type(FileType::from_raw_mode(mode))
}

fn kind_of_type(kind: FileType) -> Option<Kind> {
    match kind {
        FileType::Directory => Some(Kind::Dir),
        FileType::RegularFile => Some(Kind::File),
        FileType::Symlink => Some(Kind::Symlink),
        _ => None,
    }
}

/// Merges sorted names with sorted rows and tells `each` what differs, by name ascending.
///
/// # Errors
/// The first error of `each`.
pub(super) fn compare<'a, E>(
    names: impl Iterator<Item = Listed<'a>>,
    known: Vec<Known>,
    calls: &mut Calls<'_>,
    mut each: impl FnMut(Found<'a>) -> Result<(), E>,
) -> Result<Tally, E> {
    let mut tally = Tally::default();
    let mut rows = known.into_iter().peekable();
    for listed in names {
        while let Some(row) = rows.next_if(|row| row.name.as_bytes() < listed.name) {
            absent(row, calls, &mut tally).map_or(Ok(()), &mut each)?;
        }
        let row = rows.next_if(|row| row.name.as_bytes() == listed.name);
        if let Some(found) = present(listed, row, calls, &mut tally) {
            each(found)?;
        }
    }
    rows.try_for_each(|row| absent(row, calls, &mut tally).map_or(Ok(()), &mut each))?;
    Ok(tally)
}

/// What is ignored is not missed.
fn absent<'a>(row: Known, calls: &Calls<'_>, tally: &mut Tally) -> Option<Found<'a>> {
    if (calls.ignored)(row.name.as_bytes(), row.kind == Kind::Dir) {
        tally.hidden = true;
        return None;
    }
    tally.names_changed = true;
    Some(Found::Gone(row))
}

fn present<'a>(listed: Listed<'a>, row: Option<Known>, calls: &mut Calls<'_>, tally: &mut Tally) -> Option<Found<'a>> {
    let Listed { name, hint, ino } = listed;
    let mut stat = None;
    let mut kind = kind_of_type(hint);
    if hint == FileType::Unknown {
        match (calls.stat)(name) {
            Ok(Some(signature)) => {
                kind = kind_of(signature.mode);
                stat = Some(signature);
            }
            Ok(None) => return row.and_then(|row| absent(row, calls, tally)),
            Err(error) => return Some(failed(name, error, tally)),
        }
    }
    if (calls.ignored)(name, kind == Some(Kind::Dir)) {
        tally.hidden = true;
        return None;
    }
    match kind {
        None => return special(row, calls, tally),
        Some(Kind::Dir) => return Some(directory(name, ino, row, tally)),
        Some(_) => {}
    }
    let signature = match stat.map_or_else(|| (calls.stat)(name), |signature| Ok(Some(signature))) {
        Ok(Some(signature)) => signature,
        Ok(None) => return row.and_then(|row| absent(row, calls, tally)),
        Err(error) => return Some(failed(name, error, tally)),
    };
    // The listing may be older than the look.
    match kind_of(signature.mode) {
        None => special(row, calls, tally),
        Some(Kind::Dir) => Some(directory(name, signature.ino, row, tally)),
        Some(kind) => leaf(name, kind, signature, row, calls.checksum, tally),
    }
}

fn failed<'a>(name: &'a [u8], error: FsError, tally: &mut Tally) -> Found<'a> {
    tally.hidden = true;
    Found::Failed(name, error)
}

fn special<'a>(row: Option<Known>, calls: &Calls<'_>, tally: &mut Tally) -> Option<Found<'a>> {
    tally.specials += 1;
    tally.hidden = true;
    row.and_then(|row| absent(row, calls, tally))
}

fn directory<'a>(name: &'a [u8], ino: u64, row: Option<Known>, tally: &mut Tally) -> Found<'a> {
    tally.entries += 1;
    let expected = row.as_ref().is_some_and(|row| row.kind == Kind::Dir && (ino == 0 || row.signature.ino == ino));
    tally.names_changed |= !expected;
    Found::Dir(name, row)
}

fn leaf<'a>(
    name: &'a [u8],
    kind: Kind,
    signature: Signature,
    row: Option<Known>,
    checksum: bool,
    tally: &mut Tally,
) -> Option<Found<'a>> {
    tally.entries += 1;
    let Some(row) = row else {
        tally.names_changed = true;
        return Some(Found::New(name, signature));
    };
    if row.kind != kind {
        tally.names_changed = true;
        return Some(Found::OtherKind(row, signature));
    }
    tally.names_changed |= row.signature.ino != signature.ino;
    let vouched = !row.signature.racy && same_signature(&row.signature, &signature) && !(checksum && kind == Kind::File);
    (!vouched).then_some(Found::Changed(row, signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::state::NodeId;
    use crate::path::Name;

    fn signature(mode: FileType, ino: u64) -> Signature {
        Signature {
            ino,
            size: 3,
            mtime_ns: 10,
            ctime_ns: 20,
            btime_ns: 5,
            mode: mode.as_raw_mode() | 0o644,
            ..Signature::default()
        }
    }

    fn row(name: &str, kind: FileType, ino: u64) -> Known {
        Known {
            name: Name::parse(name.as_bytes()).unwrap(),
            kind: kind_of_type(kind).unwrap(),
            signature: signature(kind, ino),
            mtime_ns: 10,
            hash: None,
            node: (kind == FileType::Directory).then_some(NodeId(7)),
        }
    }

    /// One word for each finding, and the tally.
    fn run(disk: &[(&str, FileType, u64)], known: Vec<Known>, checksum: bool) -> (Vec<String>, Tally) {
        let mut names = Names::default();
        for (name, hint, ino) in disk {
            assert!(names.push(name.as_bytes(), *hint, *ino));
        }
        names.sort();
        let on_disk = |name: &[u8]| disk.iter().find(|(n, ..)| n.as_bytes() == name);
        let mut stat = |name: &[u8]| match on_disk(name) {
            Some((_, _, 66)) => {
                let source = std::io::Error::from_raw_os_error(5);
                Err(FsError { action: "look at", path: "x".into(), source })
            }
            Some((_, FileType::Unknown, ino)) => Ok(Some(signature(FileType::RegularFile, *ino))),
            Some((_, _, 0)) | None => Ok(None),
            Some((_, hint, ino)) => Ok(Some(signature(*hint, *ino))),
        };
        let ignored = |name: &[u8], dir: bool| name.starts_with(b"ign") || (dir && name == b"dirs-only");
        let mut calls = Calls { stat: &mut stat, ignored: &ignored, checksum };
        let mut words = Vec::new();
        let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
        let tally = compare(names.iter(), known, &mut calls, |found| {
            words.push(match found {
                Found::Dir(name, row) => {
                    format!("dir {} {}", text(name), row.map_or("new".into(), |row| format!("{:?}", row.kind)))
                }
                Found::New(name, _) => format!("new {}", text(name)),
                Found::OtherKind(row, _) => format!("other {:?}", row.name),
                Found::Changed(row, _) => format!("changed {:?}", row.name),
                Found::Gone(row) => format!("gone {:?}", row.name),
                Found::Failed(name, _) => format!("failed {}", text(name)),
            });
            Ok::<_, ()>(())
        })
        .unwrap();
        (words, tally)
    }

    use FileType::{Directory, Fifo, RegularFile, Symlink, Unknown};

    #[test]
    fn what_its_signature_vouches_for_is_passed_over() {
        let known = vec![row("a", RegularFile, 1), row("b", Symlink, 2)];
        let (words, tally) = run(&[("b", Symlink, 2), ("a", RegularFile, 1)], known, false);
        assert!(words.is_empty());
        assert_eq!(tally, Tally { entries: 2, ..Tally::default() });
    }

    #[test]
    fn every_field_of_the_signature_but_the_device_counts() {
        let base = signature(RegularFile, 1);
        assert!(same_signature(&base, &Signature { dev: 9, ..base }));
        for other in [
            Signature { ino: 2, ..base },
            Signature { size: 4, ..base },
            Signature { mtime_ns: 11, ..base },
            Signature { ctime_ns: 21, ..base },
            Signature { btime_ns: 6, ..base },
            Signature { mode: base.mode ^ 1, ..base },
            Signature { uid: 1, ..base },
            Signature { gid: 1, ..base },
        ] {
            assert!(!same_signature(&base, &other), "{other:?}");
        }
    }

    #[test]
    fn names_and_rows_are_merged_in_order() {
        let known = vec![row("b", RegularFile, 1), row("c", RegularFile, 3), row("d", Directory, 4), row("z", RegularFile, 9)];
        let disk = [("a", RegularFile, 8), ("c", RegularFile, 33), ("d", Directory, 4), ("e", Directory, 5)];
        let (words, tally) = run(&disk, known, false);
        assert_eq!(words, ["new a", "gone b", "changed c", "dir d Dir", "dir e new", "gone z"]);
        assert!(tally.names_changed && !tally.hidden);
    }

    #[test]
    fn a_racy_row_and_a_checksum_run_look_again() {
        let mut racy = row("a", RegularFile, 1);
        racy.signature.racy = true;
        assert_eq!(run(&[("a", RegularFile, 1)], vec![racy], false).0, ["changed a"]);
        let known = vec![row("a", RegularFile, 1), row("l", Symlink, 2)];
        assert_eq!(run(&[("a", RegularFile, 1), ("l", Symlink, 2)], known, true).0, ["changed a"]);
    }

    #[test]
    fn other_kinds_are_told_apart() {
        let known = vec![row("a", Directory, 1), row("b", Symlink, 2), row("c", RegularFile, 3), row("p", RegularFile, 4)];
        let disk = [("a", RegularFile, 1), ("b", RegularFile, 2), ("c", Directory, 3), ("p", Fifo, 4), ("q", Fifo, 5)];
        let (words, tally) = run(&disk, known, false);
        assert_eq!(words, ["other a", "other b", "dir c File", "gone p"]);
        assert_eq!((tally.entries, tally.specials, tally.names_changed, tally.hidden), (3, 2, true, true));
    }

    #[test]
    fn ignored_paths_are_neither_looked_at_nor_gone() {
        let known = vec![row("dirs-only", Directory, 1), row("ign-gone", RegularFile, 1), row("ign-here", RegularFile, 66)];
        let disk = [("ign-here", RegularFile, 66), ("ign-new", RegularFile, 66), ("dirs-only", Directory, 66)];
        let (words, tally) = run(&disk, known, false);
        assert!(words.is_empty());
        assert!(tally.hidden && !tally.names_changed);
        assert_eq!(run(&[("dirs-only", RegularFile, 4)], vec![], false).0, ["new dirs-only"]);
    }

    #[test]
    fn a_name_that_cannot_be_looked_at_is_not_gone() {
        let known = vec![row("a", RegularFile, 1)];
        let (words, tally) = run(&[("a", RegularFile, 66)], known, false);
        assert_eq!(words, ["failed a"]);
        assert!(tally.hidden && !tally.names_changed);
    }

    #[test]
    fn a_name_that_vanished_since_the_listing_is_gone() {
        assert_eq!(run(&[("a", RegularFile, 0)], vec![row("a", RegularFile, 1)], false).0, ["gone a"]);
        assert!(run(&[("a", RegularFile, 0)], vec![], false).0.is_empty());
    }

    #[test]
    fn a_listing_without_types_is_looked_up() {
        let known = vec![row("a", RegularFile, 1)];
        assert_eq!(run(&[("a", Unknown, 1), ("b", Unknown, 2)], known, false).0, ["new b"]);
    }

    #[test]
    fn a_directory_with_another_inode_explains_a_new_time_above() {
        assert!(run(&[("d", Directory, 2)], vec![row("d", Directory, 1)], false).1.names_changed);
        assert!(!run(&[("d", Directory, 1)], vec![row("d", Directory, 1)], false).1.names_changed);
    }

    #[test]
    fn names_longer_than_255_bytes_are_refused() {
        let mut names = Names::default();
        assert!(names.push(&[b'n'; 255], RegularFile, 1));
        assert!(!names.push(&[b'n'; 256], RegularFile, 1));
        assert_eq!(names.iter().count(), 1);
    }
}
