//! Moves days between a root and a cold root, and back, so that no reader ever misses one.
//!
//! A day is copied, read back, made durable and published in the cold root; then one exchange of names puts a link in its place. What
//! stood there before is kept for a while and looked at for writes through handles that were still open. On one file system the
//! exchange alone does it. Each step is recorded in a journal (`job`) before it is done, and recovery reads off the disk what was
//! done. Where a day lies is recorded by `io::places`, through which the engine sees.
//!
//! This module decides nothing: which days move is told.
//!
//! A root that stays open goes on to be scanned and pulled into while a day is copied and read back: nobody waits for that. What
//! excludes others (`Archive::beside`) is held for the short steps alone: the announcement, the last look with the exchange and what
//! it settles, and their opposites.

mod adopt;
mod anew;
mod bring;
mod carry;
mod copy;
mod dirs;
mod error;
mod intact;
mod job;
mod late;
mod links;
mod manifest;
mod mounts;
mod moves;
mod recover;
mod regain;
mod relink;
mod repair;
mod restore;
mod scrub;
mod walk;
mod ways;

pub use anew::MergedDay;
pub use error::ArchiveError;
pub use late::{Displaced, Settled};
pub use links::LinkForm;
pub use recover::Recovered;
pub use regain::{Regained, Whose, regain};
pub use scrub::{Damage, Repair, Scrub};
pub use walk::{Contents, Obstacle};

use crate::entry::{AttrMask, Kind};
use crate::io::fs::{Choice, Cold, Dir, FsError, Root, ctime_granularity, identify_cold, supports_exchange};
use crate::io::mutex::lock;
use crate::io::places;
use crate::io::source::kind_of;
use crate::io::state::State;
use crate::path::{Name, RelPath, escape};
use crate::report::Monitor;
use job::Job;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Moves days of one root. The root's state, and with it its lock, is held by whoever holds this.
pub struct Archive<'a> {
    root: &'a Root,
    state: &'a State,
    mask: AttrMask,
    monitor: &'a dyn Monitor,
    /// The folder of the journal.
    jobs: Dir,
    /// The root's real path.
    hot: PathBuf,
    granularity_ns: i64,
    /// Held by whoever records or makes changes in the root, where others do besides.
    work: Option<&'a Mutex<()>>,
}

/// How a day is moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveOptions {
    /// How the link in its place is written.
    pub form: LinkForm,
    /// Links that lead out of the day are written anew; otherwise a day with such links stays.
    pub rewrite: bool,
    /// How long the day is kept beside its copy.
    pub keep: Duration,
}

/// A day that was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were copied; 0 for one exchange of names, and for what was there already.
    pub copied: u64,
    /// How long reading back what was copied took.
    pub reread: Duration,
}

/// What a rule says of a path while days are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// It is a day.
    Day,
    /// There may be days below it.
    Onward,
    /// Neither.
    No,
}

/// A day that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDay {
    /// Where.
    pub path: RelPath,
    /// It lies in a cold root.
    pub placed: bool,
}

impl<'a> Archive<'a> {
    /// Opens the journal of a root, which must be able to exchange names. Nothing is moved or recovered.
    ///
    /// # Errors
    /// The root's file system cannot do it, or the private folder cannot be made.
    pub fn open(
        (root, state, mask): (&'a Root, &'a State, AttrMask),
        monitor: &'a dyn Monitor,
    ) -> Result<Archive<'a>, ArchiveError> {
        if !supports_exchange(root)? {
            return Err(ArchiveError::Guard(format!(
                "the file system of {} cannot exchange two names, so that readers would miss a day while it moves: nothing is archived",
                root.path().display()
            )));
        }
        let jobs = root.private(&[job::FOLDER])?;
        let hot = root.hot(&RelPath::root())?.real_path()?;
        Ok(Archive { root, state, mask, monitor, jobs, hot, granularity_ns: ctime_granularity(root)?, work: None })
    }

    /// Who listens, and stops it.
    #[must_use]
    pub fn monitor(&self) -> &'a dyn Monitor {
        self.monitor
    }

    /// Others scan this root and change it meanwhile, while they hold `work`.
    pub(crate) fn beside(self, work: &'a Mutex<()>) -> Archive<'a> {
        Archive { work: Some(work), ..self }
    }

    /// Waits until nobody else records or makes changes, and keeps them from it.
    fn turn(&self) -> Option<MutexGuard<'a, ()>> {
        self.work.map(lock)
    }

    /// Takes a cold root into use. It must bear the marker of one, and neither lie in the root nor hold it, by whatever path or mount.
    ///
    /// # Errors
    /// What is wrong with it; nothing was made then.
    pub fn cold(&self, path: &Path) -> Result<Arc<Cold>, ArchiveError> {
        mounts::refuse_alias(&self.hot, path)?;
        self.refuse_other_disk(path)?;
        let _turn = self.turn();
        Ok(places::use_cold(self.root, self.state, path)?)
    }

    /// Can days move to a cold root now: is it there, is it the one that it was, and may it be written? Nothing is made.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_usable(&self, path: &Path) -> Result<(), ArchiveError> {
        let id = identify_cold(path)?;
        mounts::refuse_alias(&self.hot, path)?;
        self.refuse_other_disk(path)?;
        if let Some(known) = self.root.places().colds().iter().find(|cold| cold.id == id) {
            known.dir()?;
        }
        if Root::open(path)?.volume()?.read_only {
            return Err(ArchiveError::Guard(format!(
                "{} is read-only: mount its disk so that it may be written (mount -o remount,rw). Where nobody mounted it like \
                 this the system did so after an error of the disk, which dmesg tells",
                escape(path.as_os_str().as_bytes())
            )));
        }
        Ok(())
    }

    /// Where days lie in one cold root, another one at its path is a disk that was mounted by mistake.
    fn refuse_other_disk(&self, path: &Path) -> Result<(), ArchiveError> {
        let real =
            path.canonicalize().map_err(|source| FsError { action: "open the cold root", path: path.to_owned(), source })?;
        let (id, places) = (identify_cold(&real)?, self.root.places());
        match places.all().find(|placement| placement.cold.path == real && placement.cold.id != id) {
            None => Ok(()),
            Some(placement) => Err(ArchiveError::Guard(format!(
                "{} bears the marker of another cold root than the one to which {} went: mount the right disk; nothing was touched",
                escape(real.as_os_str().as_bytes()),
                placement.path
            ))),
        }
    }

    /// How days are placed in a cold root from their beginning, for whoever makes them.
    ///
    /// # Errors
    /// It is not there.
    pub fn linking(&self, cold: &Arc<Cold>, form: LinkForm) -> Result<Linking, ArchiveError> {
        Ok(Linking { form, hot: self.hot.clone(), real: cold.dir()?.real_path()?, cold: cold.clone() })
    }

    /// Looks for days. Directories alone are looked into, never through a link, nor below a day.
    ///
    /// # Errors
    /// A directory on the way cannot be read.
    pub fn find(&self, search: &dyn Fn(&RelPath) -> Search) -> Result<Vec<FoundDay>, ArchiveError> {
        let mut found = Vec::new();
        self.find_below(&self.root.hot(&RelPath::root())?, &RelPath::root(), search, &mut found)?;
        Ok(found)
    }

    fn find_below(
        &self,
        dir: &Dir,
        path: &RelPath,
        search: &dyn Fn(&RelPath) -> Search,
        found: &mut Vec<FoundDay>,
    ) -> Result<(), ArchiveError> {
        if self.monitor.cancelled() {
            return Err(ArchiveError::Cancelled);
        }
        let places = self.root.places();
        for name in walk::sorted(dir)? {
            let Ok(parsed) = Name::parse(&name) else { continue };
            let child = path.join(&parsed);
            let what = search(&child);
            if what == Search::No {
                continue;
            }
            let placement = places.get(&child);
            let placed = placement.is_some();
            // One that was made anew beside its archive is no day that could move.
            let anew = placement.is_some_and(|placement| placement.settled);
            let kind = dir.look(&name)?.and_then(|look| kind_of(&look.signature));
            match (what, kind) {
                (Search::Day, Some(Kind::Dir)) if anew => {}
                (Search::Day, Some(Kind::Dir)) => found.push(FoundDay { path: child, placed: false }),
                (Search::Day, Some(Kind::Symlink)) if placed => found.push(FoundDay { path: child, placed: true }),
                (Search::Onward, Some(Kind::Dir)) => self.find_below(&dir.open_dir(&name)?, &child, search, found)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Looks at all of a day.
    ///
    /// # Errors
    /// It is no directory, or cannot be looked at.
    pub fn examine(&self, day: &RelPath) -> Result<Contents, ArchiveError> {
        let mut contents = walk::contents(&self.root.hot(day)?, day)?;
        let own = self.root.hot(day)?.mount()?;
        if own != self.jobs.mount()? {
            contents.obstacle.get_or_insert(Obstacle::Mount(day.clone()));
        }
        Ok(contents)
    }

    /// Is an archived day there, with its link, its stamp and its cold root?
    ///
    /// # Errors
    /// What is missing.
    pub fn check_placed(&self, day: &RelPath) -> Result<(), ArchiveError> {
        match self.root.dir(day)?.is_placed() {
            true => Ok(()),
            false => Err(ArchiveError::refused(day, "is recorded as archived, and something else stands in its place")),
        }
    }

    /// Would a day go to this cold root without a copy?
    ///
    /// # Errors
    /// One of the two cannot be looked at.
    pub fn is_one_file_system(&self, cold: &Cold) -> Result<bool, ArchiveError> {
        Ok(cold.dir()?.mount()? == self.jobs.mount()?)
    }

    /// Bytes and inodes that are free in a cold root.
    ///
    /// # Errors
    /// It is not there.
    pub fn room(&self, cold: &Cold) -> Result<(u64, u64), ArchiveError> {
        Ok(cold.dir()?.space()?)
    }

    /// The directory above a path in the root, and the name there; no link of ours is looked through.
    fn place(&self, path: &RelPath) -> Result<(Dir, Name), ArchiveError> {
        let (parent, name) = path.split().ok_or_else(|| ArchiveError::refused(path, "is the root"))?;
        Ok((self.root.hot(&parent)?, name))
    }

    /// The cold root of a job, if it is known and there.
    fn cold_of(&self, job: &Job) -> Result<Arc<Cold>, ArchiveError> {
        let places = self.root.places();
        let cold = places.colds().iter().find(|cold| cold.id == job.cold).cloned();
        cold.ok_or_else(|| ArchiveError::refused(&job.path, "was on its way to a cold root that nothing is known of any more"))
    }
}

/// Where the days of a root are placed in a cold root, and how the links to them are written.
#[derive(Debug, Clone)]
pub struct Linking {
    form: LinkForm,
    hot: PathBuf,
    /// The cold root's real path.
    real: PathBuf,
    cold: Arc<Cold>,
}

impl Linking {
    /// Where a day is to lie, by the rule of that name.
    #[must_use]
    pub fn choice(&self, day: &RelPath, rule: &str) -> Choice {
        let link = links::to_day(&self.form, (&self.hot, day), (&self.real, day));
        Choice { cold: self.cold.clone(), at: day.clone(), job: rule.to_owned(), link }
    }
}

/// Could a directory be the cold root of a root, as far as can be told without opening either? Nothing is made.
///
/// # Errors
/// It bears no marker, or one of the two lies in the other, by whatever path or mount.
pub fn check_cold(hot: &Path, cold: &Path) -> Result<(), ArchiveError> {
    let failed = |source| FsError { action: "open the root", path: hot.to_owned(), source };
    mounts::refuse_alias(&hot.canonicalize().map_err(failed)?, cold)?;
    identify_cold(cold)?;
    match crate::io::fs::synchronised_around(cold)? {
        Some(root) => Err(crate::io::places::PlaceError::InRoot { cold: cold.to_owned(), root }.into()),
        None => Ok(()),
    }
}

/// How many bytes must stay free in a cold root.
const SPARE_BYTES: u64 = 1 << 20;
/// And how many inodes.
const SPARE_INODES: u64 = 16;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_anew;
#[cfg(test)]
mod tests_guards;
#[cfg(test)]
mod tests_late;
#[cfg(test)]
mod tests_scrub;
#[cfg(test)]
mod tests_swaps;
#[cfg(test)]
mod tests_writers;
