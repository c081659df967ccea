//! The walking threads: one directory at a time is listed and compared; what is to be recorded of it.

use super::compare::{self, Calls, Names, Tally};
use super::mounts;
use super::queue::{Around, Enter, Group, Only, Task, Was};
use super::record::Finding;
use super::{Scan, ScanError, Shared};
use crate::entry::{Content, Kind, Object, Signature};
use crate::io::fs::{Dir, FsError, LISTING_BYTES, Mount};
use crate::io::state::{Known, NodeId};
use crate::knowledge::Creation;
use crate::path::{MAX_DEPTH, Name, RESERVED, RelPath};
use crossbeam_channel::Sender;
use rustix::fs::FileType;
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

/// Findings sent at once.
const MESSAGE: usize = 512;
/// Step of a problem with a directory.
const LIST: &str = "list";
/// Step of a problem with a name.
pub(super) const LOOK: &str = "look at";

/// One walking thread.
pub(super) struct Walker<'a> {
    pub(super) scan: &'a Scan<'a>,
    pub(super) shared: &'a Shared<'a>,
    sender: Sender<Vec<Finding>>,
    found: Vec<Finding>,
    listing: Vec<MaybeUninit<u8>>,
    /// Made at the first file that must be read.
    pub(super) buffer: Vec<u8>,
}

/// A directory as it is being looked at.
pub(super) struct Place<'a> {
    pub(super) dir: &'a Dir,
    pub(super) path: &'a RelPath,
    pub(super) only: Option<&'a Only>,
}

impl<'a> Walker<'a> {
    pub(super) fn new(scan: &'a Scan<'a>, shared: &'a Shared<'a>, sender: Sender<Vec<Finding>>) -> Walker<'a> {
        let listing = vec![MaybeUninit::uninit(); LISTING_BYTES];
        Walker { scan, shared, sender, found: Vec::new(), listing, buffer: Vec::new() }
    }

    /// Takes directories until none is left. An error stops all walkers.
    pub(super) fn run(mut self) -> Result<(), ScanError> {
        let walked = self.walk();
        if walked.is_err() {
            self.shared.queue.stop();
        }
        walked
    }

    fn walk(&mut self) -> Result<(), ScanError> {
        let mut names = Names::default();
        while let Some((task, active)) = self.shared.queue.next() {
            if self.scan.monitor.cancelled() {
                return Err(ScanError::Cancelled);
            }
            self.visit(task, &mut names)?;
            drop(active);
        }
        self.send()
    }

    fn visit(&mut self, task: Task, names: &mut Names) -> Result<(), ScanError> {
        let mut dir = match self.scan.root.dir(&task.path) {
            Ok(dir) => dir,
            Err(error) => return self.not_opened(task, error),
        };
        if let Some(watch) = self.scan.watch {
            watch.before_listing(&task.path, &dir);
        }
        let listed = self.list(&mut dir, &task, names).and_then(|()| Ok((dir.stat_self()?, dir.mount()?)));
        let (now, mount) = match listed {
            Ok(listed) => listed,
            Err(error) => return self.not_listed(task, error),
        };
        // What lies elsewhere is known by more than its mount.
        let placed = dir.is_placed();
        if placed {
            self.shared.mounts.entered(&task.path);
        }
        if placed && self.scan.skip_placed && matches!(task.was, Was::Dir(..)) {
            self.left_out(&task.path);
            return Ok(());
        }
        if placed {
            match self.was_replaced(&task, (&dir, &now)) {
                Ok(false) => {}
                Ok(true) => return self.missing(&task, mounts::REPLACED),
                Err(ScanError::Fs(error)) => return self.not_listed(task, error),
                Err(error) => return Err(error),
            }
        }
        let is_mount = !placed && task.around.is_some_and(|around| !mount.is_same(&around.mount));
        if !(is_mount || placed) && matches!(task.was, Was::Dir(..)) && self.shared.mounts.was(&task.path) {
            // Whatever stands here was hidden below the file system that is missing.
            return self.missing(&task, mounts::MISSING);
        }
        let known = self.known(&task)?;
        if names.is_empty() && known.is_empty() {
            if is_mount {
                // What a pull puts on it is not to be taken for deleted either.
                self.shared.mounts.seen(&task.path)?;
            }
            let hidden = names.left_out;
            return self.own(&task, &now, &Tally { hidden, ..Tally::default() });
        }
        if task.path.depth() >= MAX_DEPTH {
            self.problem(&task.path, LIST, "deeper than 256 components: what is below is left out");
            return self.own(&task, &now, &Tally { hidden: true, ..Tally::default() });
        }
        let began = is_mount && !self.shared.mounts.was(&task.path);
        match self.mount_changed(&task, (&dir, &now), began, &known) {
            Ok(true) if placed => {}
            Ok(false) => {}
            Ok(true) => return self.missing(&task, mounts::ANOTHER),
            Err(error) => return self.not_listed(task, error),
        }
        if is_mount {
            // Before anything below it is recorded.
            self.shared.mounts.seen(&task.path)?;
        }
        self.look_inside(&task, (&dir, mount), now, names, known)
    }

    /// What is below the directory is somewhere else: nothing is known of it, and nothing is to be put here.
    fn missing(&self, task: &Task, what: &str) -> Result<(), ScanError> {
        self.problem(&task.path, LIST, what);
        self.shared.mounts.miss(&task.path);
        self.left_out(&task.path);
        Ok(())
    }

    /// What is below a directory is not looked at now, and may be later.
    pub(super) fn left_out(&self, path: &RelPath) {
        if let Some(watch) = self.scan.watch {
            watch.left_out(path);
        }
    }

    fn look_inside(
        &mut self,
        task: &Task,
        (dir, mount): (&Dir, Mount),
        now: Signature,
        names: &Names,
        known: Vec<Known>,
    ) -> Result<(), ScanError> {
        let is_new = matches!(task.was, Was::Absent | Was::Leaf(_));
        if is_new {
            self.own(task, &now, &Tally::default())?;
        }
        let place = Place { dir, path: &task.path, only: task.only.as_deref() };
        let mut entries = Vec::new();
        let mut tally = self.compare(&place, names, known, &mut entries)?;
        tally.hidden |= names.left_out;
        self.count(&tally);
        if !is_new {
            self.own(task, &now, &tally)?;
        }
        if !entries.is_empty() {
            if is_new {
                // Parents first: another walker may come to the children before this one sends again.
                self.send()?;
            }
            let device_before = match &task.was {
                Was::Root => self.shared.root_dev_before,
                Was::Dir(signature, _) => Some(signature.dev),
                Was::Absent | Was::Leaf(_) => None,
            };
            let around = Around { mount, device: now.dev, device_before };
            self.shared.queue.push(Group { parent: task.path.clone(), around, entries });
        }
        Ok(())
    }

    fn compare(
        &mut self,
        place: &Place<'_>,
        names: &Names,
        known: Vec<Known>,
        entries: &mut Vec<Enter>,
    ) -> Result<Tally, ScanError> {
        let ignore = self.scan.ignore;
        let ignored = |name: &[u8], dir: bool| {
            ignore.is_some_and(|ignore| Name::parse(name).is_ok_and(|name| ignore(&place.path.join(&name), dir)))
        };
        let mut stat = |name: &[u8]| place.dir.stat(name);
        let mut calls = Calls { stat: &mut stat, ignored: &ignored, checksum: self.scan.checksum };
        compare::compare(names.iter(), known, &mut calls, |found| self.examine(place, found, entries))
    }

    /// Fills `names`: everything in the directory, or what was asked for.
    fn list(&mut self, dir: &mut Dir, task: &Task, names: &mut Names) -> Result<(), FsError> {
        names.clear();
        // Links come and go where a directory is placed or taken back: they explain a new time.
        names.left_out = dir.has_placed();
        if let Some(only) = &task.only {
            only.names().for_each(|name| {
                names.push(name.as_bytes(), FileType::Unknown, 0);
            });
            return Ok(());
        }
        let mut listing = std::mem::take(&mut self.listing);
        let listed = dir.each_name(&mut listing, |name, hint, ino| {
            let name = name.to_bytes();
            if name == RESERVED {
                names.left_out = true;
            } else if !names.push(name, hint, ino) {
                names.left_out = true;
                let error = format!("a name of {} bytes is longer than 255", name.len());
                self.problem(&task.path, LOOK, error);
            }
        });
        self.listing = listing;
        names.sort();
        listed
    }

    fn known(&self, task: &Task) -> Result<Vec<Known>, ScanError> {
        let node = match task.was {
            Was::Root => NodeId::ROOT,
            Was::Dir(_, node) => node,
            Was::Absent | Was::Leaf(_) => return Ok(Vec::new()),
        };
        let mut known = self.scan.state.known(node)?;
        if let Some(only) = &task.only {
            known.retain(|row| only.get(row.name.as_bytes()).is_some());
        }
        Ok(known)
    }

    /// A directory that had rows, and now holds none of their names, while it began or ceased to be a mount point,
    /// or is one of another device: what was there is not gone, it is somewhere else.
    /// Within one device (a bind mount, say) only the mounts that are remembered tell that it `began`.
    fn mount_changed(&self, task: &Task, (dir, now): (&Dir, &Signature), began: bool, known: &[Known]) -> Result<bool, FsError> {
        let (Was::Dir(before, _), Some(around)) = (&task.was, task.around) else {
            return Ok(false);
        };
        let is_mount = now.dev != around.device;
        // Where nothing was recorded of the directory above, only that the device is another one now.
        let was_mount = around.device_before.is_none_or(|around| before.dev != around);
        let moved = before.dev != now.dev && (is_mount || was_mount);
        if known.is_empty() || !(began || moved) {
            return Ok(false);
        }
        for row in known {
            if dir.stat(row.name.as_bytes())?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Does another directory lie in the cold root than the one that was recorded, with less in it: a bare one, an older copy, a
    /// part of one that is being brought back? One that holds all that was known may have come from a backup, or to another disk.
    fn was_replaced(&self, task: &Task, (dir, now): (&Dir, &Signature)) -> Result<bool, ScanError> {
        match &task.was {
            Was::Dir(before, node) if (before.ino, before.btime_ns) != (now.ino, now.btime_ns) => self.holds_less(dir, *node),
            _ => Ok(false),
        }
    }

    /// Is anything missing of what is known of a directory, or older, or shorter?
    fn holds_less(&self, dir: &Dir, node: NodeId) -> Result<bool, ScanError> {
        if self.scan.monitor.cancelled() {
            return Err(ScanError::Cancelled);
        }
        for row in self.scan.state.known(node)? {
            let name = row.name.as_bytes();
            let Some(now) = dir.stat(name)?.filter(|now| compare::kind_of(now.mode) == Some(row.kind)) else { return Ok(true) };
            // Whatever brought it back may have cut fractions of seconds off.
            let second = |time_ns: i64| time_ns.div_euclid(1_000_000_000);
            let less = match (row.kind, row.node) {
                (Kind::Dir, Some(node)) => self.holds_less(&dir.open_dir(name)?, node)?,
                (Kind::File, _) => now.size < row.signature.size || second(now.mtime_ns) < second(row.signature.mtime_ns),
                _ => false,
            };
            if less {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The directory's name was listed, but it cannot be opened.
    fn not_opened(&mut self, task: Task, error: FsError) -> Result<(), ScanError> {
        if error.is_missing() {
            let tree = match task.was {
                Was::Root => return Err(error.into()),
                Was::Absent => return Ok(()),
                Was::Leaf(_) => None,
                Was::Dir(_, node) => Some(node),
            };
            return self.push(Finding::Gone { path: task.path, tree });
        }
        if [Errno::NOTDIR, Errno::LOOP].iter().any(|errno| error.source.raw_os_error() == Some(errno.raw_os_error())) {
            self.problem(&task.path, LOOK, "changes while it is looked at");
            self.left_out(&task.path);
            return Ok(());
        }
        self.not_listed(task, error)
    }

    /// The directory stands there, but what is in it is unknown.
    fn not_listed(&mut self, task: Task, error: FsError) -> Result<(), ScanError> {
        if matches!(task.was, Was::Root) {
            // Nothing at all is known of the root: that is no scan.
            return Err(error.into());
        }
        self.left_out(&task.path);
        let unavailable = error.unavailable().is_some();
        self.shared.unknown(&task.path, LIST, error);
        if !unavailable && matches!(task.was, Was::Absent | Was::Leaf(_)) {
            let (parent, name) = task.path.split().expect("only the root has no parent");
            match self.scan.root.dir(&parent).and_then(|dir| dir.stat(name.as_bytes())) {
                Ok(Some(now)) if compare::kind_of(now.mode) == Some(Kind::Dir) => {
                    return self.own(&task, &now, &Tally::default());
                }
                Ok(_) => {}
                Err(error) => self.problem(&task.path, LOOK, error),
            }
        }
        Ok(())
    }

    /// What is to be recorded of the directory itself.
    fn own(&mut self, task: &Task, now: &Signature, tally: &Tally) -> Result<(), ScanError> {
        let path = task.path.clone();
        let object = Object { content: Content::Dir, attrs: now.attrs() };
        match &task.was {
            Was::Root => Ok(()),
            Was::Absent => self.push(Finding::put(path, object, *now, None)),
            Was::Leaf(creation) => self.push(Finding::put(path, object, *now, creation.clone())),
            // On the way to what was asked for; it was not asked for itself. A new time that is explained by what came or went would
            // be taken for an edit later, when nothing explains it any more.
            Was::Dir(before, _) if task.only.is_some() => {
                if !tally.names_changed || before.dev != now.dev || before.mtime_ns == now.mtime_ns {
                    return Ok(());
                }
                self.push(Finding::Refresh { path, signature: *now, hash: None, mtime_ns: Some(now.mtime_ns) })
            }
            Was::Dir(before, _) if before.dev == now.dev && compare::same_signature(before, now) => Ok(()),
            Was::Dir(before, _) if self.is_edited(before, now, tally) => {
                let creation = self.creation(&path)?;
                self.push(Finding::put(path, object, *now, creation))
            }
            Was::Dir(..) => self.push(Finding::Refresh { path, signature: *now, hash: None, mtime_ns: Some(now.mtime_ns) }),
        }
    }

    /// Did somebody change the directory itself? A new mtime is explained by names that came or went.
    fn is_edited(&self, before: &Signature, now: &Signature, tally: &Tally) -> bool {
        let touched = self.scan.mask.times && before.mtime_ns != now.mtime_ns && !tally.names_changed && !tally.hidden;
        touched || !self.scan.mask.equal(Kind::Dir, &before.attrs(), &now.attrs())
    }

    /// The creation events of a live row.
    pub(super) fn creation(&self, path: &RelPath) -> Result<Option<Creation>, ScanError> {
        Ok(self.scan.state.entry(path)?.map(|entry| entry.row.c))
    }

    pub(super) fn problem(&self, path: &RelPath, step: &'static str, error: impl ToString) {
        self.shared.problems.add(path.clone(), step, error);
    }

    fn count(&self, tally: &Tally) {
        self.shared.totals.entries.fetch_add(tally.entries, Ordering::Relaxed);
        self.shared.totals.specials.fetch_add(tally.specials, Ordering::Relaxed);
        self.scan.monitor.advance(tally.entries, 0);
    }

    pub(super) fn push(&mut self, finding: Finding) -> Result<(), ScanError> {
        self.found.push(finding);
        if self.found.len() >= MESSAGE { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), ScanError> {
        if self.found.is_empty() {
            return Ok(());
        }
        // A missing receiver has failed and tells why itself; here it only means to stop.
        self.sender.send(std::mem::take(&mut self.found)).map_err(|_| ScanError::Cancelled)
    }
}
