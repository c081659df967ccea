//! Reading content: only what stood still while it was read counts.

use super::compare::same_signature;
use super::{Problems, ScanError, workers};
use crate::entry::{Content, Hash, Signature};
use crate::io::fs::{COARSE_CLOCK_NS, Dir, FsError, Root, coarse_now_ns, ctime_granularity, file_signature, hash_file};
use crate::io::state::{Entry, Learned, State};
use crate::path::RelPath;
use crate::report::{Monitor, Problem};
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Bytes read at once.
pub(super) const READ_BYTES: usize = 256 * 1024;
/// After so many bytes it is looked whether the file still stands as it did: what moved need not be read to its end.
const LOOK_BYTES: u64 = 4 << 20;
/// Refreshed rows per transaction.
const BATCH: usize = 4096;
/// Files of one directory that a thread takes at a time, at the most.
const RUN: usize = 64;
/// Other file systems below the root may stamp in pairs of seconds.
const FOREIGN_CLOCK_NS: i64 = 2_000_000_000;

/// How finely changes of a root are told apart by their times: whoever records a hash with a signature asks it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Device that the granularity was found for.
    pub root_dev: u64,
    /// Two changes as far apart can bear the same ctime; 0: never.
    pub granularity_ns: i64,
}

impl Clock {
    /// The clock of a root, found out by trying.
    ///
    /// # Errors
    /// The system's.
    pub fn of(root: &Root) -> Result<Clock, FsError> {
        let root_dev = root.signature()?.dev;
        Ok(Clock { root_dev, granularity_ns: ctime_granularity(root)? })
    }

    /// The signature with its racy flag: could the object change once more after `start_ns`, when its content began
    /// to be read or written ([`coarse_now_ns`]), and look the same?
    #[must_use]
    pub fn judged(self, signature: Signature, start_ns: i64) -> Signature {
        let tick = if signature.dev == self.root_dev { self.granularity_ns } else { self.granularity_ns.max(FOREIGN_CLOCK_NS) };
        let since = start_ns.saturating_sub(tick);
        // A time in the future was set by somebody; that left its own ctime.
        let until = start_ns.saturating_add(tick.max(COARSE_CLOCK_NS));
        let racy = tick > 0 && (signature.ctime_ns >= since || (since..=until).contains(&signature.mtime_ns));
        Signature { racy, ..signature }
    }
}

/// Why content could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    /// It is not the file that was asked for.
    #[error("changed since it was looked at")]
    Stale,
    /// The file moved under the reader.
    #[error("changes while it is read")]
    Moving,
    /// It cannot be opened or read.
    #[error(transparent)]
    Failed(#[from] FsError),
    /// The user stopped the run.
    #[error("stopped")]
    Stopped,
}

/// A file that tells of progress and can be stopped between two reads, and is not read on once it moves.
struct Watched<'a> {
    file: File,
    monitor: &'a dyn Monitor,
    dir: &'a Dir,
    before: Signature,
    /// Bytes that were read since it was looked at.
    unseen: u64,
    moves: bool,
}

impl Watched<'_> {
    fn signature(&self) -> Result<Signature, FsError> {
        file_signature(&self.file, self.dir.path())
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.monitor.cancelled() {
            return Err(io::Error::other("stopped"));
        }
        if self.unseen >= LOOK_BYTES {
            self.unseen = 0;
            self.moves = self.signature().map_err(|error| error.source)? != self.before;
            if self.moves {
                return Err(io::Error::other("moves"));
            }
        }
        let count = self.file.read(buffer)?;
        self.unseen += count as u64;
        self.monitor.advance(0, count as u64);
        Ok(count)
    }
}

/// Reads a file by name. The signature is that of the very object that was read, the same before and after. Another one than
/// `expected` is not read.
pub(super) fn read_verified(
    dir: &Dir,
    name: &[u8],
    expected: Option<&Signature>,
    buffer: &mut [u8],
    clock: Clock,
    monitor: &dyn Monitor,
) -> Result<(Signature, Hash), Unread> {
    let start = coarse_now_ns();
    let (file, before) = dir.open_file_seen(name)?;
    if expected.is_some_and(|expected| !same_signature(&before, expected)) {
        return Err(Unread::Stale);
    }
    let mut watched = Watched { file, monitor, dir, before, unseen: 0, moves: false };
    let (size, hash) = match hash_file(&mut watched, buffer) {
        Ok(read) => read,
        Err(_) if watched.moves => return Err(Unread::Moving),
        Err(_) if monitor.cancelled() => return Err(Unread::Stopped),
        Err(source) => {
            return Err(FsError { action: "read", path: dir.locate(name), source }.into());
        }
    };
    let after = watched.signature()?;
    if before != after || size != after.size {
        return Err(Unread::Moving);
    }
    Ok((clock.judged(after, start), hash))
}

/// Calls `job` for every index below `count`, on several threads, each with a read buffer; `each` sees the answers
/// on the calling thread in the order in which they come.
pub(super) fn in_parallel<T: Send, E>(
    count: usize,
    job: impl Fn(usize, &mut [u8]) -> T + Sync,
    mut each: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let (next, job) = (&next, &job);
    thread::scope(|scope| {
        let (send, receive) = crossbeam_channel::bounded(256);
        for _ in 0..workers().min(count) {
            let send = send.clone();
            scope.spawn(move || {
                let mut buffer = vec![0; READ_BYTES];
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    // A missing receiver means that the answers are not wanted any more.
                    if index >= count || send.send(job(index, &mut buffer)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        receive.into_iter().try_for_each(&mut each)
    })
}

/// Reads live files, and records their hashes, without an event. A file that is not as its row has it, or cannot
/// be read, is a problem and stays as it is. `granularity_ns` is what
/// [`ctime_granularity`](crate::io::fs::ctime_granularity) says of the root.
///
/// # Errors
/// The state's, or that the run was stopped; what was recorded until then is true.
pub fn rehash(
    root: &Root,
    state: &State,
    paths: &[RelPath],
    granularity_ns: i64,
    monitor: &dyn Monitor,
) -> Result<Vec<Problem>, ScanError> {
    let clock = Clock { root_dev: root.signature()?.dev, granularity_ns };
    let problems = Problems::new(monitor);
    let mut refreshed = Vec::new();
    let siblings = paths.chunk_by(|a, b| a.parent() == b.parent());
    // Few files may be large ones: they are for all threads.
    let most = (paths.len() / (4 * workers())).clamp(1, RUN);
    let runs: Vec<&[RelPath]> = siblings.flat_map(|siblings| siblings.chunks(most)).collect();
    let job = |index: usize, buffer: &mut [u8]| hash_run((root, state), runs[index], clock, buffer, monitor);
    in_parallel(runs.len(), job, |answers| {
        for (path, answer) in answers? {
            match answer {
                Ok(change) => refreshed.extend(change),
                Err(Unhashed::Stopped) => return Err(ScanError::Cancelled),
                Err(Unhashed::Path(error)) => problems.add(path, "read", error),
            }
        }
        if refreshed.len() >= BATCH { commit(state, &mut refreshed) } else { Ok(()) }
    })?;
    commit(state, &mut refreshed)?;
    Ok(problems.into_parts().0)
}

enum Unhashed {
    Stopped,
    Path(String),
}

type Hashed = Result<Option<Learned>, Unhashed>;

/// Reads some files of one directory.
fn hash_run(
    (root, state): (&Root, &State),
    paths: &[RelPath],
    clock: Clock,
    buffer: &mut [u8],
    monitor: &dyn Monitor,
) -> Result<Vec<(RelPath, Hashed)>, ScanError> {
    let rows = state.entries(paths)?;
    let parent = paths.first().and_then(RelPath::parent).unwrap_or_default();
    let dir = root.dir(&parent).map_err(|error| error.to_string());
    let hashed = paths.iter().zip(rows).map(|(path, row)| {
        let answer =
            hash_live(dir.as_ref(), path, row, |dir, name, row| read_verified(dir, name, Some(row), buffer, clock, monitor));
        monitor.advance(1, 0);
        (path.clone(), answer)
    });
    Ok(hashed.collect())
}

fn hash_live(
    dir: Result<&Dir, &String>,
    path: &RelPath,
    row: Option<Entry>,
    read: impl FnOnce(&Dir, &[u8], &Signature) -> Result<(Signature, Hash), Unread>,
) -> Hashed {
    let other = || Unhashed::Path("changed since it was looked at".into());
    let (Some(Entry { row, signature: recorded, .. }), Some(name)) = (row, path.name()) else { return Err(other()) };
    let Content::File { hash: known, .. } = row.object.content else { return Err(other()) };
    if known.is_some() && !recorded.racy {
        return Ok(None);
    }
    let dir = dir.map_err(|error| Unhashed::Path(error.clone()))?;
    let (signature, hash) = read(dir, name.as_bytes(), &recorded).map_err(|error| match error {
        Unread::Stopped => Unhashed::Stopped,
        error => Unhashed::Path(error.to_string()),
    })?;
    // A racy row whose bytes are others is an edit: only a scan may give it an event.
    if !same_signature(&signature, &recorded) || known.is_some_and(|known| known != hash) {
        return Err(other());
    }
    Ok(Some(Learned { path: path.clone(), expect: (recorded, known), signature, hash }))
}

fn commit(state: &State, learned: &mut Vec<Learned>) -> Result<(), ScanError> {
    learned.sort_by(|a, b| a.path.cmp(&b.path));
    state.learn(&std::mem::take(learned))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn racy(clock: Clock, mtime_ns: i64, ctime_ns: i64, start_ns: i64) -> bool {
        clock.judged(Signature { dev: 1, mtime_ns, ctime_ns, ..Signature::default() }, start_ns).racy
    }

    #[test]
    fn a_change_as_young_as_the_read_is_racy_on_a_coarse_clock() {
        let coarse = Clock { root_dev: 1, granularity_ns: 10 * MS };
        assert!(racy(coarse, 0, 995 * MS, 1000 * MS));
        assert!(racy(coarse, 995 * MS, 0, 1000 * MS));
        assert!(racy(coarse, 0, 2000 * MS, 1000 * MS));
        assert!(!racy(coarse, 0, 989 * MS, 1000 * MS));
    }

    #[test]
    fn a_time_set_into_the_future_long_ago_is_not_racy() {
        let coarse = Clock { root_dev: 1, granularity_ns: 10 * MS };
        assert!(!racy(coarse, 5000 * MS, 0, 1000 * MS));
    }

    #[test]
    fn a_fine_clock_is_trusted_on_its_own_file_system_only() {
        let fine = Clock { root_dev: 1, granularity_ns: 0 };
        assert!(!racy(fine, 1000 * MS, 1000 * MS, 1000 * MS));
        let foreign = Signature { dev: 2, ctime_ns: 0, ..Signature::default() };
        assert!(fine.judged(foreign, 1000 * MS).racy);
    }

    #[test]
    fn answers_come_from_all_jobs_and_an_error_ends_them() {
        let mut sum = 0;
        in_parallel(
            1000,
            |index, _| index,
            |index| {
                sum += index;
                Ok::<_, ()>(())
            },
        )
        .unwrap();
        assert_eq!(sum, 499_500);
        assert_eq!(in_parallel(1000, |index, _| index, |index| if index == 5 { Err(5) } else { Ok(()) }), Err(5));
    }
}
