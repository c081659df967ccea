//! The walking threads: one directory at a time is listed, compared, and what differs is looked at closely.

use super::compare::{self, Calls, Found, Names, Tally};
use super::queue::{Enter, Group, Only, Task, Was};
use super::read::{READ_BYTES, Unread, read_verified};
use super::record::{Finding, Old};
use super::{Scan, ScanError, Shared};
use crate::entry::{Content, Hash, Kind, Object, Signature};
use crate::io::fs::{Dir, FsError, LISTING_BYTES, coarse_now_ns};
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
/// Step of a problem with a file's content or a link's target.
const READ: &str = "read";
/// Step of a problem with a name.
const LOOK: &str = "look at";

/// One walking thread.
pub(super) struct Walker<'a> {
    scan: &'a Scan<'a>,
    shared: &'a Shared<'a>,
    sender: Sender<Vec<Finding>>,
    found: Vec<Finding>,
    listing: Vec<MaybeUninit<u8>>,
    /// Made at the first file that must be read.
    buffer: Vec<u8>,
}

/// A directory as it is being looked at.
struct Place<'a> {
    dir: &'a Dir,
    path: &'a RelPath,
    only: Option<&'a Only>,
}

impl<'a> Walker<'a> {
    pub(super) fn new(
        scan: &'a Scan<'a>,
        shared: &'a Shared<'a>,
        sender: Sender<Vec<Finding>>,
    ) -> Walker<'a> {
        let listing = vec![MaybeUninit::uninit(); LISTING_BYTES];
        Walker {
            scan,
            shared,
            sender,
            found: Vec::new(),
            listing,
            buffer: Vec::new(),
        }
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
        let listed = self
            .list(&mut dir, &task, names)
            .and_then(|()| dir.stat_self());
        let now = match listed {
            Ok(now) => now,
            Err(error) => return self.not_listed(task, error),
        };
        let known = self.known(&task)?;
        if names.is_empty() && known.is_empty() {
            return self.own(&task, &now, &Tally::default());
        }
        if task.path.depth() >= MAX_DEPTH {
            self.problem(
                &task.path,
                LIST,
                "deeper than 256 components: what is below is left out",
            );
            return self.own(
                &task,
                &now,
                &Tally {
                    hidden: true,
                    ..Tally::default()
                },
            );
        }
        match self.mount_changed(&task, &dir, &now, &known) {
            Ok(false) => {}
            Ok(true) => {
                self.problem(
                    &task.path,
                    LIST,
                    "another file system is mounted here or was unmounted",
                );
                return Ok(());
            }
            Err(error) => return self.not_listed(task, error),
        }
        self.look_inside(&task, &dir, now, names, known)
    }

    fn look_inside(
        &mut self,
        task: &Task,
        dir: &Dir,
        now: Signature,
        names: &Names,
        known: Vec<Known>,
    ) -> Result<(), ScanError> {
        let is_new = matches!(task.was, Was::Absent | Was::Leaf(_));
        if is_new {
            self.own(task, &now, &Tally::default())?;
        }
        let place = Place {
            dir,
            path: &task.path,
            only: task.only.as_deref(),
        };
        let mut entries = Vec::new();
        let tally = self.compare(&place, names, known, &mut entries)?;
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
            self.shared.queue.push(Group {
                parent: task.path.clone(),
                device: now.dev,
                device_before,
                entries,
            });
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
            ignore.is_some_and(|ignore| {
                Name::parse(name).is_ok_and(|name| ignore(&place.path.join(&name), dir))
            })
        };
        let mut stat = |name: &[u8]| place.dir.stat(name);
        let mut calls = Calls {
            stat: &mut stat,
            ignored: &ignored,
            checksum: self.scan.checksum,
        };
        compare::compare(names.iter(), known, &mut calls, |found| {
            self.examine(place, found, entries)
        })
    }

    /// Fills `names`: everything in the directory, or what was asked for.
    fn list(&mut self, dir: &mut Dir, task: &Task, names: &mut Names) -> Result<(), FsError> {
        names.clear();
        if let Some(only) = &task.only {
            only.names().for_each(|name| {
                names.push(name.as_bytes(), FileType::Unknown, 0);
            });
            return Ok(());
        }
        let mut listing = std::mem::take(&mut self.listing);
        let listed = dir.each_name(&mut listing, |name, hint, ino| {
            let name = name.to_bytes();
            if name != RESERVED && !names.push(name, hint, ino) {
                self.problem(
                    &task.path,
                    LOOK,
                    format!("a name of {} bytes is longer than 255", name.len()),
                );
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
    fn mount_changed(
        &self,
        task: &Task,
        dir: &Dir,
        now: &Signature,
        known: &[Known],
    ) -> Result<bool, FsError> {
        let (Was::Dir(before, _), Some((around, around_before))) = (&task.was, task.around) else {
            return Ok(false);
        };
        let is_mount = now.dev != around;
        let was_mount = around_before.is_some_and(|around| before.dev != around);
        if before.dev == now.dev || known.is_empty() || !(is_mount || was_mount) {
            return Ok(false);
        }
        for row in known {
            if dir.stat(row.name.as_bytes())?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
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
            return self.push(Finding::Gone {
                path: task.path,
                tree,
            });
        }
        if [Errno::NOTDIR, Errno::LOOP]
            .iter()
            .any(|errno| error.source.raw_os_error() == Some(errno.raw_os_error()))
        {
            self.problem(&task.path, LOOK, "changes while it is looked at");
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
        self.problem(&task.path, LIST, error);
        if matches!(task.was, Was::Absent | Was::Leaf(_)) {
            let (parent, name) = task.path.split().expect("only the root has no parent");
            match self
                .scan
                .root
                .dir(&parent)
                .and_then(|dir| dir.stat(name.as_bytes()))
            {
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
        let object = Object {
            content: Content::Dir,
            attrs: now.attrs(),
        };
        match &task.was {
            Was::Root => Ok(()),
            Was::Absent => self.push(Finding::put(path, object, *now, None)),
            Was::Leaf(creation) => self.push(Finding::put(path, object, *now, creation.clone())),
            // On the way to what was asked for; it was not asked for itself.
            Was::Dir(..) if task.only.is_some() => Ok(()),
            Was::Dir(before, _)
                if before.dev == now.dev && compare::same_signature(before, now) =>
            {
                Ok(())
            }
            Was::Dir(before, _) if self.is_edited(before, now, tally) => {
                let creation = self.creation(&path)?;
                self.push(Finding::put(path, object, *now, creation))
            }
            Was::Dir(..) => self.push(Finding::Refresh {
                path,
                signature: *now,
                hash: None,
                mtime_ns: Some(now.mtime_ns),
            }),
        }
    }

    /// Did somebody change the directory itself? A new mtime is explained by names that came or went.
    fn is_edited(&self, before: &Signature, now: &Signature, tally: &Tally) -> bool {
        let touched = self.scan.mask.times
            && before.mtime_ns != now.mtime_ns
            && !tally.names_changed
            && !tally.hidden;
        touched
            || !self
                .scan
                .mask
                .equal(Kind::Dir, &before.attrs(), &now.attrs())
    }

    fn examine(
        &mut self,
        place: &Place<'_>,
        found: Found<'_>,
        entries: &mut Vec<Enter>,
    ) -> Result<(), ScanError> {
        match found {
            Found::Dir(name, row) => {
                if let Some(enter) = self.enter(place, name, row)? {
                    entries.push(enter);
                }
                Ok(())
            }
            Found::New(name, signature) => self.new_leaf(place, name, signature),
            Found::OtherKind(row, signature) => self.other_kind(place, &row, signature),
            Found::Changed(row, signature) if row.kind == Kind::File => {
                self.changed_file(place, &row, signature)
            }
            Found::Changed(row, signature) => self.changed_link(place, &row, signature),
            Found::Gone(row) => {
                self.old(&row)?;
                self.push(Finding::Gone {
                    path: place.path.join(&row.name),
                    tree: row.node,
                })
            }
            Found::Ignored(row) if self.scan.forget_ignored => self.push(Finding::Forget {
                path: place.path.join(&row.name),
            }),
            Found::Ignored(_) => Ok(()),
            Found::Failed(name, error) => {
                let path = Name::parse(name)
                    .map_or_else(|_| place.path.clone(), |name| place.path.join(&name));
                self.problem(&path, LOOK, error);
                Ok(())
            }
        }
    }

    fn enter(
        &self,
        place: &Place<'_>,
        name: &[u8],
        row: Option<Known>,
    ) -> Result<Option<Enter>, ScanError> {
        let Some(name) = self.name(place, name) else {
            return Ok(None);
        };
        let was = match row {
            None => Was::Absent,
            Some(Known {
                node: Some(node),
                signature,
                ..
            }) => Was::Dir(Box::new(signature), node),
            Some(row) => Was::Leaf(self.creation(&place.path.join(&row.name))?),
        };
        let only = place
            .only
            .and_then(|only| only.get(name.as_bytes()).cloned().flatten());
        Ok(Some(Enter { name, was, only }))
    }

    fn new_leaf(
        &mut self,
        place: &Place<'_>,
        name: &[u8],
        signature: Signature,
    ) -> Result<(), ScanError> {
        let Some(name) = self.name(place, name) else {
            return Ok(());
        };
        if let Some((object, signature)) = self.object(place, &name, signature) {
            self.push(Finding::put(
                place.path.join(&name),
                object,
                signature,
                None,
            ))?;
        }
        Ok(())
    }

    fn other_kind(
        &mut self,
        place: &Place<'_>,
        row: &Known,
        signature: Signature,
    ) -> Result<(), ScanError> {
        let Some((object, signature)) = self.object(place, &row.name, signature) else {
            return Ok(());
        };
        self.old(row)?;
        let path = place.path.join(&row.name);
        let creation = self.creation(&path)?;
        match row.node {
            Some(tree) => self.push(Finding::Supplant {
                path,
                tree,
                object,
                signature,
                creation,
            }),
            None => self.push(Finding::put(path, object, signature, creation)),
        }
    }

    /// The object that a leaf is; a file's content is not read.
    fn object(
        &self,
        place: &Place<'_>,
        name: &Name,
        signature: Signature,
    ) -> Option<(Object, Signature)> {
        let attrs = signature.attrs();
        if compare::kind_of(signature.mode) == Some(Kind::Symlink) {
            let (target, signature) = self.target(place, name, signature)?;
            return Some((
                Object {
                    content: Content::Symlink(target),
                    attrs,
                },
                signature,
            ));
        }
        Some((
            Object {
                content: Content::File {
                    size: signature.size,
                    hash: None,
                },
                attrs,
            },
            signature,
        ))
    }

    /// Same kind, but the signature cannot vouch for the content.
    fn changed_file(
        &mut self,
        place: &Place<'_>,
        row: &Known,
        now: Signature,
    ) -> Result<(), ScanError> {
        let replaced = row.signature.ino != now.ino;
        let unread = row.hash.is_none() && !compare::same_signature(&row.signature, &now);
        if now.size != row.signature.size || (unread && now.size > 0) {
            if replaced {
                self.old(row)?;
            }
            return self.edited(
                place,
                row,
                now,
                Content::File {
                    size: now.size,
                    hash: None,
                },
            );
        }
        let Some((now, hash)) = self.read(place, &row.name)? else {
            return Ok(());
        };
        let same_bytes = row
            .hash
            .map_or(now.size == row.signature.size, |recorded| recorded == hash);
        if same_bytes
            && self
                .scan
                .mask
                .equal(Kind::File, &row.signature.attrs(), &now.attrs())
        {
            let path = place.path.join(&row.name);
            return self.push(Finding::Refresh {
                path,
                signature: now,
                hash: Some(hash),
                mtime_ns: None,
            });
        }
        if replaced && !same_bytes {
            self.old(row)?;
        }
        self.edited(
            place,
            row,
            now,
            Content::File {
                size: now.size,
                hash: Some(hash),
            },
        )
    }

    fn changed_link(
        &mut self,
        place: &Place<'_>,
        row: &Known,
        now: Signature,
    ) -> Result<(), ScanError> {
        let Some((target, now)) = self.target(place, &row.name, now) else {
            return Ok(());
        };
        let path = place.path.join(&row.name);
        let content = Content::Symlink(target);
        let recorded = self.scan.state.entry(&path)?;
        if recorded.is_some_and(|recorded| recorded.row.object.content == content)
            && self
                .scan
                .mask
                .equal(Kind::Symlink, &row.signature.attrs(), &now.attrs())
        {
            return self.push(Finding::Refresh {
                path,
                signature: now,
                hash: None,
                mtime_ns: None,
            });
        }
        self.edited(place, row, now, content)
    }

    fn edited(
        &mut self,
        place: &Place<'_>,
        row: &Known,
        signature: Signature,
        content: Content,
    ) -> Result<(), ScanError> {
        let path = place.path.join(&row.name);
        let creation = self.creation(&path)?;
        let object = Object {
            content,
            attrs: signature.attrs(),
        };
        self.push(Finding::put(path, object, signature, creation))
    }

    fn read(
        &mut self,
        place: &Place<'_>,
        name: &Name,
    ) -> Result<Option<(Signature, Hash)>, ScanError> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; READ_BYTES];
        }
        match read_verified(
            place.dir,
            name.as_bytes(),
            &mut self.buffer,
            self.shared.clock,
            self.scan.monitor,
        ) {
            Ok(read) => Ok(Some(read)),
            Err(Unread::Stopped) => Err(ScanError::Cancelled),
            Err(error) => {
                self.problem(&place.path.join(name), READ, error);
                Ok(None)
            }
        }
    }

    /// A link's target, and its signature with the racy flag.
    fn target(
        &self,
        place: &Place<'_>,
        name: &Name,
        signature: Signature,
    ) -> Option<(Box<[u8]>, Signature)> {
        let start = coarse_now_ns();
        match place.dir.read_link(name.as_bytes()) {
            Ok(target) => Some((target, self.shared.clock.judged(signature, start))),
            Err(error) => {
                self.problem(&place.path.join(name), READ, error);
                None
            }
        }
    }

    /// Content that may have gone elsewhere by a rename.
    fn old(&mut self, row: &Known) -> Result<(), ScanError> {
        match (row.kind, row.hash) {
            (Kind::File, Some(hash)) => self.push(Finding::Old(Old {
                signature: row.signature,
                hash,
            })),
            _ => Ok(()),
        }
    }

    /// The creation events of a live row.
    fn creation(&self, path: &RelPath) -> Result<Option<Creation>, ScanError> {
        Ok(self.scan.state.entry(path)?.map(|entry| entry.row.c))
    }

    fn name(&self, place: &Place<'_>, name: &[u8]) -> Option<Name> {
        Name::parse(name)
            .map_err(|error| self.problem(place.path, LOOK, error))
            .ok()
    }

    fn problem(&self, path: &RelPath, step: &'static str, error: impl ToString) {
        self.shared.problems.add(path.clone(), step, error);
    }

    fn count(&self, tally: &Tally) {
        self.shared
            .totals
            .entries
            .fetch_add(tally.entries, Ordering::Relaxed);
        self.shared
            .totals
            .specials
            .fetch_add(tally.specials, Ordering::Relaxed);
        self.scan.monitor.advance(tally.entries, 0);
    }

    fn push(&mut self, finding: Finding) -> Result<(), ScanError> {
        self.found.push(finding);
        if self.found.len() >= MESSAGE {
            self.send()
        } else {
            Ok(())
        }
    }

    fn send(&mut self) -> Result<(), ScanError> {
        if self.found.is_empty() {
            return Ok(());
        }
        // A missing receiver has failed and tells why itself; here it only means to stop.
        self.sender
            .send(std::mem::take(&mut self.found))
            .map_err(|_| ScanError::Cancelled)
    }
}
