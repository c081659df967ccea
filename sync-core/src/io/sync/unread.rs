//! Files whose bytes decide something and that nobody has read yet: a survey reads them, or, where others wait for the root, only as
//! many as take no time, and leaves the rest to whoever reads them beside all other work.
//!
//! What is read is recorded with the signature that it had before and after, and only if the row says the same by then. So nothing is
//! decided here: the next pull decides, by rows as they are then, and looks at the disk again before it changes anything.

use super::SyncError;
use super::pulls::OnePull;
use crate::entry::Content;
use crate::io::mutex::{into_inner, lock};
use crate::path::RelPath;
use crate::plan::{Action, Step};
use crate::report::{Monitor, Phase, Problem};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Files read and hashed at a time.
const HASH_BATCH: usize = 8_192;
/// Bytes that a pull reads itself where others wait for the root, on both sides together.
const AT_ONCE_BYTES: u64 = 64 << 20;
/// What a file counts besides for its bytes, since it has to be found and opened.
const FILE_BYTES: u64 = 16 << 10;
/// A file of so many bytes is read after all smaller ones, so that these need not wait for it.
const LARGE_BYTES: u64 = 64 << 20;
/// Large files read at a time.
const LARGE_BATCH: usize = 8;
/// Large files among which some are looked for that can be read.
const LARGE_FILES: usize = 8_192;

/// How much of it a survey reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    /// All of it: nobody waits, but for what is decided by it.
    All,
    /// What takes no time.
    Little,
}

/// What came of reading beside other work.
#[derive(Debug, Clone, Default)]
pub struct Read {
    /// Files that were read.
    pub files: u64,
    /// Those that could not be.
    pub problems: Vec<Problem>,
}

/// Paths to be read: here, and there.
type Wanted = [Vec<RelPath>; 2];

/// The files that must be read before all can be decided, as the steps of a pull tell of them.
pub(super) struct Undecided {
    wanted: Wanted,
    /// Bytes that may still be read.
    room: u64,
    any: bool,
    /// Files that are left to be read another time.
    left: u64,
}

impl Undecided {
    pub(super) fn new(reads: Reads) -> Undecided {
        let room = match reads {
            Reads::All => u64::MAX,
            Reads::Little => AT_ONCE_BYTES,
        };
        Undecided { wanted: Wanted::default(), room, any: false, left: 0 }
    }

    /// Notes what a step needs, and reads when much has come together.
    pub(super) fn note(&mut self, pull: &OnePull<'_>, step: &Step, monitor: &dyn Monitor) -> Result<(), SyncError> {
        let Action::NeedHash { ours, theirs } = step.action else { return Ok(()) };
        if self.room < u64::MAX {
            let bytes = (size(pull, &step.path)?.saturating_add(FILE_BYTES)).saturating_mul(u64::from(ours) + u64::from(theirs));
            if bytes > self.room {
                self.left += 1;
                return Ok(());
            }
            self.room -= bytes;
        }
        if !self.any {
            monitor.phase(Phase::Compare, None, None);
        }
        self.any = true;
        want(&mut self.wanted, step);
        if is_much(&self.wanted) { read(pull, &mut self.wanted, monitor) } else { Ok(()) }
    }

    /// Reads the rest. Returns whether there was anything to read, and how many files are left.
    pub(super) fn finish(mut self, pull: &OnePull<'_>, monitor: &dyn Monitor) -> Result<(bool, u64), SyncError> {
        read(pull, &mut self.wanted, monitor)?;
        Ok((self.any, self.left))
    }
}

/// Reads what a pull cannot decide without: all small files, or, once none of those is left that can be read, some large ones. The next
/// pull finds what is left.
pub(super) fn read_some(pull: &OnePull<'_>, monitor: &dyn Monitor) -> Result<Read, SyncError> {
    let reader = Reader { monitor, problems: Mutex::default(), failed: AtomicU64::new(0) };
    let (mut asked, mut wanted, mut large) = (0, Wanted::default(), Vec::new());
    pull.converse(pull.terms.clone(), |step| {
        let Action::NeedHash { ours, theirs } = step.action else { return Ok(()) };
        if size(pull, &step.path)? >= LARGE_BYTES {
            if large.len() < LARGE_FILES {
                large.push(step);
            }
            return Ok(());
        }
        asked += u64::from(ours) + u64::from(theirs);
        want(&mut wanted, &step);
        if is_much(&wanted) { read(pull, &mut wanted, &reader) } else { Ok(()) }
    })?;
    read(pull, &mut wanted, &reader)?;
    for steps in large.chunks(LARGE_BATCH) {
        if reader.has_read(asked) > 0 {
            break;
        }
        steps.iter().for_each(|step| want(&mut wanted, step));
        asked += wanted.iter().map(|paths| paths.len() as u64).sum::<u64>();
        read(pull, &mut wanted, &reader)?;
    }
    Ok(Read { files: reader.has_read(asked), problems: into_inner(reader.problems) })
}

/// The size of a file that stands on both sides with the same one.
fn size(pull: &OnePull<'_>, path: &RelPath) -> Result<u64, SyncError> {
    let entry = pull.ours.state.entry(path)?;
    Ok(match entry.map(|entry| entry.row.object.content) {
        Some(Content::File { size, .. }) => size,
        _ => 0,
    })
}

fn want(wanted: &mut Wanted, step: &Step) {
    let Action::NeedHash { ours, theirs } = step.action else { return };
    for (needed, paths) in [ours, theirs].into_iter().zip(wanted) {
        if needed {
            paths.push(step.path.clone());
        }
    }
}

fn is_much(wanted: &Wanted) -> bool {
    wanted.iter().any(|paths| paths.len() >= HASH_BATCH)
}

fn read(pull: &OnePull<'_>, wanted: &mut Wanted, monitor: &dyn Monitor) -> Result<(), SyncError> {
    let [ours, theirs] = wanted;
    // What cannot be read stays undecided; the pull reports it.
    if !ours.is_empty() {
        pull.ours.rehash(ours, monitor)?;
        ours.clear();
    }
    if !theirs.is_empty() {
        pull.theirs.rehash(theirs, monitor)?;
        theirs.clear();
    }
    Ok(())
}

/// Hears what cannot be read.
struct Reader<'a> {
    monitor: &'a dyn Monitor,
    problems: Mutex<Vec<Problem>>,
    failed: AtomicU64,
}

impl Reader<'_> {
    /// How many of so many files were read.
    fn has_read(&self, asked: u64) -> u64 {
        asked.saturating_sub(self.failed.load(Ordering::Relaxed))
    }
}

impl Monitor for Reader<'_> {
    fn advance(&self, files: u64, bytes: u64) {
        self.monitor.advance(files, bytes);
    }

    fn problem(&self, problem: &Problem) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut problems = lock(&self.problems);
        if problems.len() < crate::io::apply::PROBLEMS {
            problems.push(problem.clone());
        }
        drop(problems);
        self.monitor.problem(problem);
    }

    fn notice(&self, text: &str) {
        self.monitor.notice(text);
    }

    fn cancelled(&self) -> bool {
        self.monitor.cancelled()
    }
}
