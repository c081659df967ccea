//! What a day held when it was copied, entry by entry: hashes, and signatures of both copies. Written and read as a stream, so
//! that memory does not grow with the day.

use super::error::ArchiveError;
use crate::entry::{Hash, Kind, Signature};
use crate::path::RelPath;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// How a manifest begins.
const MAGIC: &[u8; 24] = b"driftless manifest 1\n\0\0\0";
/// Longest record: paths and link texts of 4 KiB each, with room.
const RECORD_BYTES: u32 = 512 * 1024;

/// One object of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Below the day; the root path is the day itself.
    pub(super) path: RelPath,
    pub(super) kind: Kind,
    /// What it was where it was copied from.
    pub(super) source: Signature,
    /// What the copy was when it was complete; of a directory only its place counts.
    pub(super) copy: Signature,
    /// Of a file.
    pub(super) hash: Option<Hash>,
    /// Of the extended attributes.
    pub(super) xattrs: Hash,
    /// Of a link: its text, and the text of the copy.
    pub(super) target: Box<[u8]>,
    pub(super) disk: Box<[u8]>,
    /// The first name of a file that has several; empty if this is it.
    pub(super) first: RelPath,
}

/// Writes a manifest.
pub(super) struct Writer {
    out: BufWriter<File>,
    path: PathBuf,
    hasher: blake3::Hasher,
    count: u64,
}

/// Reads a manifest, which is checked as a whole only at its end.
pub(super) struct Reader {
    input: BufReader<File>,
    path: PathBuf,
    hasher: blake3::Hasher,
    count: u64,
    ended: bool,
    next: Option<Entry>,
}

impl Writer {
    pub(super) fn new(file: File, path: &Path) -> Result<Writer, ArchiveError> {
        let mut writer = Writer { out: BufWriter::new(file), path: path.to_owned(), hasher: blake3::Hasher::new(), count: 0 };
        writer.put(MAGIC)?;
        Ok(writer)
    }

    pub(super) fn entry(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        let bytes = encode(entry);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if length > RECORD_BYTES {
            return Err(ArchiveError::Record { path: self.path.clone(), what: "an entry is too long" });
        }
        self.put(&length.to_le_bytes())?;
        self.put(&bytes)?;
        self.count += 1;
        Ok(())
    }

    /// Ends the manifest; it has reached the disk when the call returns.
    pub(super) fn finish(mut self) -> Result<(), ArchiveError> {
        self.put(&0u32.to_le_bytes())?;
        let count = self.count;
        self.put(&count.to_le_bytes())?;
        let hash = *self.hasher.finalize().as_bytes();
        let path = self.path.clone();
        let done = self.out.write_all(&hash).and_then(|()| self.out.flush()).and_then(|()| self.out.get_ref().sync_all());
        done.map_err(failed("write", &path))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.hasher.update(bytes);
        self.out.write_all(bytes).map_err(failed("write", &self.path))
    }
}

impl Reader {
    pub(super) fn new(file: File, path: &Path) -> Result<Reader, ArchiveError> {
        let mut reader = Reader {
            input: BufReader::with_capacity(256 * 1024, file),
            path: path.to_owned(),
            hasher: blake3::Hasher::new(),
            count: 0,
            ended: false,
            next: None,
        };
        let mut magic = [0; MAGIC.len()];
        reader.take(&mut magic)?;
        if &magic != MAGIC {
            return Err(reader.wrong("it is no manifest"));
        }
        reader.advance()?;
        Ok(reader)
    }

    /// The entry that comes next; `None` at the end of a whole manifest.
    pub(super) fn peek(&self) -> Option<&Entry> {
        self.next.as_ref()
    }

    /// Takes it.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let entry = self.next.take();
        if entry.is_some() {
            self.advance()?;
        }
        Ok(entry)
    }

    /// The entry of a path, past all those before it; what comes after the path is left.
    pub(super) fn seek(&mut self, path: &RelPath) -> Result<Option<&Entry>, ArchiveError> {
        while self.next.as_ref().is_some_and(|entry| entry.path < *path) {
            self.next()?;
        }
        Ok(self.next.as_ref().filter(|entry| entry.path == *path))
    }

    fn advance(&mut self) -> Result<(), ArchiveError> {
        if self.ended {
            return Ok(());
        }
        let mut length = [0; 4];
        self.take(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > RECORD_BYTES {
            return Err(self.wrong("an entry is too long"));
        }
        if length == 0 {
            return self.end();
        }
        let mut bytes = vec![0; length as usize];
        self.take(&mut bytes)?;
        self.count += 1;
        self.next = Some(decode(&bytes).ok_or_else(|| self.wrong("an entry makes no sense"))?);
        Ok(())
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        let (mut count, mut hash) = ([0; 8], [0; 32]);
        self.take(&mut count)?;
        let own = *self.hasher.finalize().as_bytes();
        self.take(&mut hash)?;
        if u64::from_le_bytes(count) != self.count || hash != own {
            return Err(self.wrong("its checksum is another one"));
        }
        self.ended = true;
        Ok(())
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), ArchiveError> {
        self.input.read_exact(bytes).map_err(failed("read", &self.path))?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn wrong(&self, what: &'static str) -> ArchiveError {
        ArchiveError::Record { path: self.path.clone(), what }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| crate::io::fs::FsError { action, path, source }.into()
}

/// The digest of extended attributes.
pub(super) fn digest(xattrs: &crate::io::fs::Xattrs) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for (key, value) in xattrs {
        for part in [key, value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    Hash(*hasher.finalize().as_bytes())
}

fn encode(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(320);
    out.push(entry.kind as u8);
    for signature in [&entry.source, &entry.copy] {
        for number in [signature.dev, signature.ino, signature.size] {
            out.extend(number.to_le_bytes());
        }
        for number in [signature.mtime_ns, signature.ctime_ns, signature.btime_ns] {
            out.extend(number.to_le_bytes());
        }
        for number in [signature.mode, signature.uid, signature.gid] {
            out.extend(number.to_le_bytes());
        }
    }
    out.push(u8::from(entry.hash.is_some()));
    out.extend(entry.hash.unwrap_or(Hash([0; 32])).0);
    out.extend(entry.xattrs.0);
    for bytes in [entry.path.as_bytes(), &entry.target, &entry.disk, entry.first.as_bytes()] {
        out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(bytes);
    }
    out
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let count = u32::from_le_bytes(self.array()?);
        self.take(count as usize)
    }

    fn signature(&mut self) -> Option<Signature> {
        let mut wide = || self.array().map(u64::from_le_bytes);
        let (dev, ino, size) = (wide()?, wide()?, wide()?);
        let mut wide = || self.array().map(i64::from_le_bytes);
        let (mtime_ns, ctime_ns, btime_ns) = (wide()?, wide()?, wide()?);
        let mut narrow = || self.array().map(u32::from_le_bytes);
        let (mode, uid, gid) = (narrow()?, narrow()?, narrow()?);
        Some(Signature { dev, ino, size, mtime_ns, ctime_ns, btime_ns, mode, uid, gid, racy: false })
    }
}

fn decode(bytes: &[u8]) -> Option<Entry> {
    let mut bytes = Bytes(bytes);
    let kind = match bytes.take(1)?[0] {
        0 => Kind::Dir,
        1 => Kind::File,
        2 => Kind::Symlink,
        _ => return None,
    };
    let (source, copy) = (bytes.signature()?, bytes.signature()?);
    let known = bytes.take(1)?[0] == 1;
    let hash = Hash(bytes.array()?);
    let xattrs = Hash(bytes.array()?);
    let path = RelPath::parse(bytes.text()?).ok()?;
    let (target, disk) = (bytes.text()?.into(), bytes.text()?.into());
    let first = RelPath::parse(bytes.text()?).ok()?;
    bytes.0.is_empty().then_some(Entry { path, kind, source, copy, hash: known.then_some(hash), xattrs, target, disk, first })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    fn entry(path: &str) -> Entry {
        let source =
            Signature { dev: 1, ino: 2, size: 3, mtime_ns: -4, ctime_ns: 5, btime_ns: 6, mode: 7, uid: 8, gid: 9, racy: false };
        Entry {
            path: RelPath::parse(path.as_bytes()).unwrap(),
            kind: Kind::File,
            source,
            copy: Signature { ino: 20, ..source },
            hash: Some(Hash([1; 32])),
            xattrs: digest(&vec![(b"user.a".to_vec(), b"b".to_vec())]),
            target: b"t"[..].into(),
            disk: b"d"[..].into(),
            first: RelPath::parse(b"x/first").unwrap(),
        }
    }

    fn written(entries: &[Entry]) -> File {
        let file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(file.try_clone().unwrap(), Path::new("m")).unwrap();
        entries.iter().for_each(|entry| writer.entry(entry).unwrap());
        writer.finish().unwrap();
        file
    }

    fn read(mut file: File) -> Result<Vec<Entry>, ArchiveError> {
        file.rewind().unwrap();
        let mut reader = Reader::new(file, Path::new("m"))?;
        let mut found = Vec::new();
        while let Some(entry) = reader.next()? {
            found.push(entry);
        }
        Ok(found)
    }

    #[test]
    fn a_manifest_reads_as_it_was_written() {
        let link = Entry { kind: Kind::Symlink, hash: None, ..entry("b") };
        let entries = vec![entry(""), entry("a"), link];
        assert_eq!(read(written(&entries)).unwrap(), entries);
        assert!(read(written(&[])).unwrap().is_empty());
    }

    #[test]
    fn a_manifest_that_was_cut_or_changed_is_noticed() {
        let length = written(&[entry("a"), entry("b")]).metadata().unwrap().len();
        for at in 0..length {
            let file = written(&[entry("a"), entry("b")]);
            file.set_len(at).unwrap();
            assert!(read(file).is_err(), "cut at {at}");
            let file = written(&[entry("a"), entry("b")]);
            let mut byte = [0];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, at).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[byte[0] ^ 1], at).unwrap();
            assert!(read(file).is_err(), "changed at {at}");
        }
    }
}
