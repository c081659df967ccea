//! The journal of moves: a folder for each, with its record. A record reaches the disk before what it announces is done; what was
//! really done is read off the disk.

use super::error::ArchiveError;
use super::manifest::{Reader, Writer};
use crate::io::fs::{ColdId, Dir, Replace, read_small, write_durably};
use crate::path::RelPath;
use std::fmt::Write as _;

/// Folder of the jobs in a root's private folder.
pub(super) const FOLDER: &str = "archive";
/// In a job's folder: the record.
const RECORD: &[u8] = b"job";
/// What the day was when it was copied.
const MANIFEST: &[u8] = b"manifest";
/// What is exchanged with the name in the root: the link, or the copy, before; what stood there, afterwards.
pub(super) const SWAP: &[u8] = b"swap";
/// Longest record.
const RECORD_BYTES: u64 = 64 * 1024;
/// First line of a record.
const HEAD: &str = "driftless archive job 1";

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// A day goes to the cold root.
    Move,
    /// It comes back.
    Restore,
    /// Its link gets another text.
    Relink,
    /// What was made anew at its place is brought to the archive.
    Merge,
}

/// In which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// By a copy.
    Copy,
    /// By one exchange, on one file system.
    Rename,
    /// What was in the cold root already is taken.
    Adopt,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The copy is being made: nothing of it counts.
    Copying,
    /// The copy is complete, durable and was read back.
    Ready,
    /// Link and directory may have been exchanged.
    Swapping,
    /// They were; what stood there before is kept for a while, and looked at for late writes.
    Kept,
    /// It is being removed.
    Going,
}

/// One move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) task: Task,
    pub(super) how: How,
    pub(super) phase: Phase,
    /// The day, in the root and in the cold root.
    pub(super) path: RelPath,
    pub(super) cold: ColdId,
    pub(super) stamp: ColdId,
    /// What the link reads.
    pub(super) link: Box<[u8]>,
    /// Inode of the directory that goes away from its place.
    pub(super) old: u64,
    /// Inode of the one that takes its place; 0 while there is none.
    pub(super) new: u64,
    /// When the exchange was, ns.
    pub(super) since_ns: i64,
    /// How long what stood there before is kept, ns.
    pub(super) keep_ns: i64,
}

const TASKS: [(Task, &str); 4] =
    [(Task::Move, "move"), (Task::Restore, "restore"), (Task::Relink, "relink"), (Task::Merge, "merge")];
const HOWS: [(How, &str); 3] = [(How::Copy, "copy"), (How::Rename, "rename"), (How::Adopt, "adopt")];
const PHASES: [(Phase, &str); 5] = [
    (Phase::Copying, "copying"),
    (Phase::Ready, "ready"),
    (Phase::Swapping, "swapping"),
    (Phase::Kept, "kept"),
    (Phase::Going, "going"),
];

impl Job {
    fn text(&self) -> String {
        let mut text = format!("{HEAD}\n");
        let mut line = |key: &str, value: &str| {
            let _ = writeln!(text, "{key} {value}");
        };
        line("task", word(&TASKS, self.task));
        line("how", word(&HOWS, self.how));
        line("phase", word(&PHASES, self.phase));
        line("path", &encode(self.path.as_bytes()));
        line("cold", &self.cold.to_string());
        line("stamp", &self.stamp.to_string());
        line("link", &encode(&self.link));
        line("old", &self.old.to_string());
        line("new", &self.new.to_string());
        line("since", &self.since_ns.to_string());
        line("keep", &self.keep_ns.to_string());
        text
    }

    fn parse(id: &str, text: &str) -> Option<Job> {
        let body = text.strip_prefix(HEAD)?;
        let value = |key: &str| body.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        Some(Job {
            id: id.to_owned(),
            task: of(&TASKS, value("task")?)?,
            how: of(&HOWS, value("how")?)?,
            phase: of(&PHASES, value("phase")?)?,
            path: RelPath::parse(&decode(value("path")?)?).ok()?,
            cold: hex(value("cold")?)?,
            stamp: hex(value("stamp")?)?,
            link: decode(value("link")?)?.into(),
            old: value("old")?.parse().ok()?,
            new: value("new")?.parse().ok()?,
            since_ns: value("since")?.parse().ok()?,
            keep_ns: value("keep")?.parse().ok()?,
        })
    }

    /// Writes the record; it has reached the disk when the call returns.
    pub(super) fn record(&self, jobs: &Dir) -> Result<(), ArchiveError> {
        let folder = jobs.open_or_create(self.id.as_bytes())?;
        write_durably(&folder, RECORD, self.text().as_bytes())?;
        Ok(jobs.sync()?)
    }

    /// As [`Job::record`], in the next phase.
    pub(super) fn enter(&mut self, jobs: &Dir, phase: Phase) -> Result<(), ArchiveError> {
        self.phase = phase;
        self.record(jobs)
    }

    /// Its folder.
    pub(super) fn folder(&self, jobs: &Dir) -> Result<Dir, ArchiveError> {
        Ok(jobs.open_dir(self.id.as_bytes())?)
    }

    /// A manifest to be written in the place of the one that is there.
    pub(super) fn new_manifest(&self, jobs: &Dir) -> Result<Writer, ArchiveError> {
        let folder = self.folder(jobs)?;
        let name = [MANIFEST, b".new"].concat();
        match folder.unlink(&name) {
            Err(error) if !error.is_missing() => return Err(error.into()),
            _ => {}
        }
        Writer::new(folder.create_file(&name)?, &folder.locate(&name))
    }

    /// The manifest that was written takes its place.
    pub(super) fn take_manifest(&self, jobs: &Dir) -> Result<(), ArchiveError> {
        let folder = self.folder(jobs)?;
        folder.rename(&[MANIFEST, b".new"].concat(), &folder, MANIFEST, Replace::Always)?;
        Ok(folder.sync()?)
    }

    /// The manifest from its beginning. It was checked as a whole: half of one would tell of deletions.
    pub(super) fn manifest(&self, jobs: &Dir) -> Result<Reader, ArchiveError> {
        let folder = self.folder(jobs)?;
        let open = || Reader::new(folder.open_file(MANIFEST)?, &folder.locate(MANIFEST));
        let mut whole = open()?;
        while whole.next()?.is_some() {}
        open()
    }

    /// Begins with a manifest of nothing, unless there is one.
    pub(super) fn begin_manifest(&self, jobs: &Dir) -> Result<(), ArchiveError> {
        if self.folder(jobs)?.stat(MANIFEST)?.is_some() {
            return Ok(());
        }
        self.new_manifest(jobs)?.finish()?;
        self.take_manifest(jobs)
    }

    /// Removes record and folder; nothing else may be in it.
    pub(super) fn forget(&self, jobs: &Dir) -> Result<(), ArchiveError> {
        let folder = self.folder(jobs)?;
        for name in folder.names()? {
            // The record last: until then the folder is this job's.
            if &*name != RECORD {
                folder.unlink(&name)?;
            }
        }
        folder.unlink(RECORD)?;
        jobs.rmdir(self.id.as_bytes())?;
        Ok(jobs.sync()?)
    }
}

/// All jobs, in the order of their ids, and the names of folders that hold none that can be read.
pub(super) fn all(jobs: &Dir) -> Result<(Vec<Job>, Vec<ArchiveError>), ArchiveError> {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    let mut names = jobs.names()?;
    names.sort_unstable();
    for name in names {
        let Ok(id) = std::str::from_utf8(&name) else { continue };
        let Some(look) = jobs.look(&name)? else { continue };
        if id.len() != 16 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) || !crate::io::fs::is_dir(&look.signature) {
            continue;
        }
        let folder = jobs.open_dir(&name)?;
        match read_small(&folder, RECORD, RECORD_BYTES)? {
            Some(bytes) => match Job::parse(id, &String::from_utf8_lossy(&bytes)) {
                Some(job) => found.push(job),
                None => wrong.push(ArchiveError::Record { path: folder.locate(RECORD), what: "it cannot be read" }),
            },
            // It died before its first record, or after its last: nothing of a user's is in it.
            None => remove_rubbish(jobs, &folder, &name)?,
        }
    }
    Ok((found, wrong))
}

/// A folder without a record holds at most files of ours.
fn remove_rubbish(jobs: &Dir, folder: &Dir, name: &[u8]) -> Result<(), ArchiveError> {
    for name in folder.names()? {
        folder.unlink(&name)?;
    }
    Ok(jobs.rmdir(name)?)
}

/// A new id.
pub(super) fn new_id() -> Result<String, ArchiveError> {
    let drawn =
        ColdId::random().map_err(|source| crate::io::fs::FsError { action: "draw an id for", path: "a move".into(), source })?;
    Ok(drawn.to_string()[..16].to_owned())
}

fn word<T: PartialEq>(words: &[(T, &'static str)], value: T) -> &'static str {
    words.iter().find(|(known, _)| *known == value).map_or("", |(_, word)| word)
}

fn of<T: Copy>(words: &[(T, &str)], text: &str) -> Option<T> {
    words.iter().find(|(_, word)| *word == text).map(|(value, _)| *value)
}

/// Bytes as printable text without blanks: everything else, and `%`, as `%` and two digits.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'!'..=b'~' if *byte != b'%' => text.push(char::from(*byte)),
            _ => {
                let _ = write!(text, "%{byte:02x}");
            }
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let (code, after) = after.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(bytes)
}

fn hex(text: &str) -> Option<ColdId> {
    let mut id = ColdId([0; 16]);
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in id.0.iter_mut().zip((0..32).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_it_was_written() {
        let job = Job {
            id: "0123456789abcdef".into(),
            task: Task::Restore,
            how: How::Adopt,
            phase: Phase::Kept,
            path: RelPath::parse(b"a b/\xff%\n/2026").unwrap(),
            cold: ColdId([7; 16]),
            stamp: ColdId([8; 16]),
            link: b"../ x\n"[..].into(),
            old: 1,
            new: u64::MAX,
            since_ns: -5,
            keep_ns: 6,
        };
        assert_eq!(Job::parse(&job.id, &job.text()), Some(job.clone()));
        for (text, without) in [("path ", "pfad "), ("phase kept", "phase lost"), (HEAD, "driftless archive job 2")] {
            assert_eq!(Job::parse(&job.id, &job.text().replace(text, without)), None, "{text}");
        }
    }
}
