//! After a crash: for every intent, did its rename happen? Then its rows are recorded; else it is forgotten.
//!
//! To be called when a root is opened, before anything is scanned, so that no half-done swap looks like an edit.
//! Rows are recorded with the signatures of the staged objects. Where a rename moved a change time, or where a user
//! wrote since, the next scan looks again, and tells the two apart by content.

use super::ApplyError;
use super::areas::{Areas, leaf};
use super::swap::set_signature;
use super::versions::{self, now_ns};
use crate::entry::{AttrMask, Attrs, Kind, Signature};
use crate::io::fs::{Dir, FsError, Replace, Root};
use crate::io::kill::kill_point;
use crate::io::source::kind_of;
use crate::io::stage::{Owned, owner_of, remove_all};
use crate::io::state::{Batch, Intent, NewVersion, State};
use crate::path::{Name, RelPath};
use crate::store::Change;
use rustix::io::Errno;
use std::io::ErrorKind;

/// What a crash had left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Swaps that had happened; their rows are recorded now.
    pub finished: usize,
    /// Swaps that had not happened; they are forgotten.
    pub forgotten: usize,
    /// Swaps that had happened and whose rows could not be recorded: the next scan finds them as local edits.
    pub unexplained: usize,
    /// Swaps below a mount point whose file system is not mounted: they wait for it.
    pub postponed: usize,
    /// Objects of users found in the staging folder; they are among the kept versions now.
    pub kept: usize,
}

/// Brings rows and disk together after a crash, and clears the staging folder.
///
/// # Errors
/// The file system or the state fails; calling again later is safe.
pub fn recover(root: &Root, state: &State, mask: AttrMask) -> Result<Recovered, ApplyError> {
    let recovery = Recovery { root, mask, areas: Areas::remembered(root, state, mask)? };
    let mut recovered = Recovered::default();
    let mut batches = Vec::new();
    for (id, intent) in state.intents()? {
        kill_point("recover-intent");
        if !recovery.reaches(&intent) {
            recovered.postponed += 1;
            continue;
        }
        let mut batch = Batch { settled: vec![id], ..Batch::default() };
        if recovery.happened(&intent)? {
            recovered.finished += 1;
            recovery.finish(intent, &mut batch)?;
        } else {
            recovered.forgotten += 1;
        }
        batches.push(batch);
    }
    let mut rescued = Batch::default();
    recovered.kept = recovery.rescue(&mut rescued)?;
    if recovered.kept > 0 {
        batches.push(rescued);
    }
    if !batches.is_empty() {
        root.sync_all()?;
        for area in recovery.areas.all().filter(|area| !area.is_main()) {
            area.kept.sync_all()?;
        }
        kill_point("recover-synced");
        recovered.unexplained = record(state, batches)?;
        kill_point("recover-committed");
    }
    recovery.sweep()?;
    kill_point("recover-swept");
    Ok(recovered)
}

/// Records what recovery found, together. If the rows cannot be recorded as they were meant, each intent is settled
/// by itself, and those that cannot are left to the next scan: a root must not stay closed for them.
fn record(state: &State, batches: Vec<Batch>) -> Result<usize, ApplyError> {
    let mut all = Batch::default();
    for batch in &batches {
        all.changes.extend(batch.changes.iter().cloned());
        all.settled.extend(&batch.settled);
        all.versions.extend(batch.versions.iter().cloned());
    }
    if state.commit(all, true).is_ok() {
        return Ok(0);
    }
    let mut unexplained = 0;
    for Batch { changes, settled, versions } in batches {
        let rest = Batch { settled: settled.clone(), versions: versions.clone(), ..Batch::default() };
        if state.commit(Batch { changes, settled, versions }, true).is_err() {
            unexplained += 1;
            // A state that can record nothing at all fails here too.
            state.commit(rest, true)?;
        }
    }
    Ok(unexplained)
}

struct Recovery<'a> {
    root: &'a Root,
    mask: AttrMask,
    areas: Areas<'a>,
}

impl Recovery<'_> {
    /// Did the rename that an intent announces happen?
    fn happened(&self, intent: &Intent) -> Result<bool, FsError> {
        let now = self.at(&intent.path)?;
        let is = |expected: &Option<Signature>| match (&now, expected) {
            (Some(now), Some(expected)) => same_identity(now, expected),
            _ => false,
        };
        match (&intent.staged_signature, &intent.expect) {
            // A removal: the object is not there any more, or is seen among the kept versions.
            (None, expect) => Ok(!is(expect) || self.kept(intent)?),
            // A change of attributes: done again where it had begun, so that nothing half-done stays.
            (Some(staged), Some(expect)) if intent.staged.is_empty() && staged.ino == expect.ino => {
                Ok(is(&intent.expect) && self.began(intent, now.as_ref(), expect))
            }
            (Some(_), _) if is(&intent.staged_signature) => Ok(true),
            // A move that did not arrive, or was moved on by a user: the scan sees which.
            (Some(_), _) if intent.staged.is_empty() => Ok(false),
            // Not at its path, and not in the staging folder either: it arrived, and somebody replaced it since.
            (Some(staged), _) => {
                let there = self.staged(&intent.staged)?;
                Ok(!there.is_some_and(|there| same_identity(&there, staged)))
            }
        }
    }

    /// Has a change of attributes begun: does any replicated one differ from before, the content being the same?
    fn began(&self, intent: &Intent, now: Option<&Signature>, before: &Signature) -> bool {
        let Some(now) = now else { return false };
        let wanted = wanted_attrs(intent);
        let moved = (now.mode, now.uid, now.gid, now.mtime_ns) != (before.mode, before.uid, before.gid, before.mtime_ns);
        let is_dir = kind_of(before) == Some(Kind::Dir);
        let untouched = is_dir
            || (now.size == before.size
                && (now.mtime_ns == before.mtime_ns || wanted.is_some_and(|wanted| wanted.mtime_ns == now.mtime_ns)));
        moved && untouched
    }

    /// Are the folders that an intent speaks of there?
    fn reaches(&self, intent: &Intent) -> bool {
        let version = intent.version.as_ref().map_or(&[][..], |version| &version.name);
        self.areas.find(&intent.staged).is_some() && self.areas.find(version).is_some()
    }

    /// What stands in the staging folder under a recorded address.
    fn staged(&self, address: &[u8]) -> Result<Option<Signature>, FsError> {
        match self.areas.find(address) {
            Some((area, name)) => area.stage.dir().stat(name),
            None => Ok(None),
        }
    }

    /// What stands among the kept versions under a recorded address.
    fn kept_at(&self, address: &[u8]) -> Result<Option<Signature>, FsError> {
        match self.areas.find(address) {
            Some((area, name)) => area.kept.stat(name),
            None => Ok(None),
        }
    }

    /// Is the removed object among the kept versions?
    fn kept(&self, intent: &Intent) -> Result<bool, FsError> {
        let Some(version) = &intent.version else { return Ok(false) };
        let there = self.kept_at(&version.name)?;
        Ok(there.is_some_and(|there| same_identity(&there, &version.signature)))
    }

    /// Does the rest of a swap that happened, and collects its rows.
    fn finish(&self, mut intent: Intent, batch: &mut Batch) -> Result<(), ApplyError> {
        self.finish_attributes(&mut intent)?;
        if let Some(expect) = intent.expect
            && !intent.staged.is_empty()
        {
            self.finish_displacement(&mut intent, &expect)?;
        }
        if let Some(version) = intent.version
            && self.kept_at(&version.name)?.is_some()
        {
            batch.versions.push(version);
        }
        batch.changes.append(&mut intent.changes);
        Ok(())
    }

    /// Sets what may not have been set before the crash: attributes changed in place, those of a moved object, the mode
    /// of a directory that stayed writable while it was filled. Not where a user wrote since.
    fn finish_attributes(&self, intent: &mut Intent) -> Result<(), FsError> {
        let (Some(was), Some(attrs)) = (intent.staged_signature, wanted_attrs(intent)) else { return Ok(()) };
        let (Some((parent, name)), is_dir) = (intent.path.split(), kind_of(&was) == Some(Kind::Dir)) else { return Ok(()) };
        let Some(now) = self.at(&intent.path)?.filter(|now| same_identity(now, &was)) else { return Ok(()) };
        let untouched = is_dir || (now.size == was.size && (now.mtime_ns == was.mtime_ns || now.mtime_ns == attrs.mtime_ns));
        if !untouched || !(intent.staged.is_empty() || is_dir) {
            return Ok(());
        }
        let dir = self.root.dir(&parent)?;
        let mask = AttrMask { times: self.mask.times && !is_dir, ..self.mask };
        dir.set_attrs(name.as_bytes(), &attrs, mask)?;
        if let Some(mut now) = dir.stat(name.as_bytes())? {
            // Whether the content was written to meanwhile, the times cannot tell any more.
            now.racy = true;
            set_signature(&mut intent.changes, &intent.path, now);
        }
        Ok(())
    }

    /// Brings a displaced object from the staging folder to where it was to go.
    fn finish_displacement(&self, intent: &mut Intent, expect: &Signature) -> Result<(), FsError> {
        kill_point("recover-displaced");
        let Some((area, staged)) = self.areas.find(&intent.staged) else { return Ok(()) };
        let stage = area.stage.dir();
        let waits = stage.stat(staged)?.is_some_and(|now| same_identity(&now, expect));
        if let Some(version) = &intent.version {
            return match waits {
                true => stage.rename(staged, &area.kept, leaf(&version.name), Replace::Never),
                false => Ok(()),
            };
        }
        let path = intent.path.clone();
        let Some(to) = intent.changes.iter().find_map(|change| match change {
            Change::Put { path: to, signature, .. } if *to != path && signature.ino == expect.ino => Some(to.clone()),
            _ => None,
        }) else {
            return Ok(());
        };
        let arrived = if waits {
            self.copy_arrives(stage, staged, &to)?
        } else {
            self.at(&to)?.is_some_and(|now| same_identity(&now, expect))
        };
        if !arrived {
            // It has another name, or goes to the kept versions: no row for this one.
            intent.changes.retain(|change| !matches!(change, Change::Put { path, .. } if *path == to));
        }
        Ok(())
    }

    fn copy_arrives(&self, stage: &Dir, staged: &[u8], to: &RelPath) -> Result<bool, FsError> {
        let Some((parent, name)) = to.split() else { return Ok(false) };
        let dir = match self.root.dir(&parent) {
            Ok(dir) => dir,
            Err(error) if error.is_missing() => return Ok(false),
            Err(error) => return Err(error),
        };
        match stage.rename(staged, &dir, name.as_bytes(), Replace::Never) {
            Ok(()) => Ok(true),
            Err(error) if error.source.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What is in a staging folder and not ours goes to the kept versions.
    fn rescue(&self, batch: &mut Batch) -> Result<usize, FsError> {
        let mut kept = 0;
        for area in self.areas.all() {
            let stage = area.stage.dir();
            for name in stage.names()? {
                let Some(now) = stage.stat(&name)?.filter(|now| !is_ours(&name, now)) else { continue };
                let kept_at_ns = now_ns();
                let path = Name::parse(&name).map_or(RelPath::root(), |name| RelPath::root().join(&name));
                let to = versions::name(&path, kept_at_ns);
                stage.rename(&name, &area.kept, &to, Replace::Never)?;
                kept += 1;
                if let Some(kind) = kind_of(&now) {
                    let (signature, hash, reason, name) = (now, None, "replaced", area.kept_address(&to));
                    batch.versions.push(NewVersion { name, path, kind, signature, hash, kept_at_ns, reason });
                }
            }
        }
        Ok(kept)
    }

    /// What is left in the staging folders is ours to delete.
    fn sweep(&self) -> Result<(), FsError> {
        for area in self.areas.all() {
            let stage = area.stage.dir();
            for name in stage.names()? {
                if stage.stat(&name)?.is_some_and(|now| is_ours(&name, &now)) {
                    remove_all(stage, &name)?;
                }
            }
        }
        Ok(())
    }

    fn at(&self, path: &RelPath) -> Result<Option<Signature>, FsError> {
        let Some((parent, name)) = path.split() else { return Ok(None) };
        match self.root.dir(&parent) {
            Ok(dir) => dir.stat(name.as_bytes()),
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Nothing can stand below what is missing, no directory, or a link.
fn gone(error: &FsError) -> bool {
    let code = error.source.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

fn same_identity(a: &Signature, b: &Signature) -> bool {
    a.ino == b.ino && kind_of(a) == kind_of(b)
}

fn is_ours(name: &[u8], now: &Signature) -> bool {
    match owner_of(name) {
        Owned::Ours => true,
        Owned::OursIf(ino) => now.ino == ino,
        Owned::Foreign => false,
    }
}

fn wanted_attrs(intent: &Intent) -> Option<Attrs> {
    intent.changes.iter().find_map(|change| match change {
        Change::Put { path, row, .. } if *path == intent.path => Some(row.object.attrs),
        _ => None,
    })
}
