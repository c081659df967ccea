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
    }

    /// Adds a name of at most 255 bytes; a longer one is refused.
    pub(super) fn push(&mut self, name: &[u8], hint: FileType, ino: u64) -> bool {
        let Ok(len) = u8::try_from(name.len()) else { return false };
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

    /// Does the sorted list hold the name?
    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.items.binary_search_by(|item| item.name(&self.bytes).cmp(name)).is_ok()
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
    /// There is a row, and the path is ignored.
    Ignored(Known),
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

/// The calls that a comparison makes.
pub(super) struct Calls<'a> {
    /// statx of a name, without following.
    pub(super) stat: &'a mut dyn FnMut(&[u8]) -> Result<Option<Signature>, FsError>,
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
            each(absent(row, calls, &mut tally))?;
        }
        let row = rows.next_if(|row| row.name.as_bytes() == listed.name);
        if let Some(found) = present(listed, row, calls, &mut tally) {
            each(found)?;
        }
    }
    rows.try_for_each(|row| each(absent(row, calls, &mut tally)))?;
    Ok(tally)
}

fn absent<'a>(row: Known, calls: &Calls<'_>, tally: &mut Tally) -> Found<'a> {
    if (calls.ignored)(row.name.as_bytes(), row.kind == Kind::Dir) {
        tally.hidden = true;
        return Found::Ignored(row);
    }
    tally.names_changed = true;
    Found::Gone(row)
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
            Ok(None) => return row.map(|row| absent(row, calls, tally)),
            Err(error) => return Some(failed(name, error, tally)),
        }
    }
    if (calls.ignored)(name, kind == Some(Kind::Dir)) {
        tally.hidden = true;
        return row.map(Found::Ignored);
    }
    match kind {
        None => return special(row, calls, tally),
        Some(Kind::Dir) => return Some(directory(name, ino, row, tally)),
        Some(_) => {}
    }
    let signature = match stat.map_or_else(|| (calls.stat)(name), |signature| Ok(Some(signature))) {
        Ok(Some(signature)) => signature,
        Ok(None) => return row.map(|row| absent(row, calls, tally)),
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
    row.map(|row| absent(row, calls, tally))
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
