//! After a crash: for every intent, did its rename happen? Then its rows are recorded; else it is forgotten.
//!
//! To be called when a root is opened, before anything is scanned, so that no half-done swap looks like an edit.
//! Rows are recorded with the signatures of the staged objects. Where a rename moved a change time, or where a user
//! wrote since, the next scan looks again, and tells the two apart by content.

use super::areas::{Area, Areas, STAGE, leaf};
use super::swap::set_signature;
use super::{ApplyError, Stop, late, place, unplace, versions};
use crate::entry::{AttrMask, Attrs, Kind, Signature};
use crate::io::fs::{Dir, FsError, Replace, Root, ctime_granularity};
use crate::io::generation;
use crate::io::kill::kill_point;
use crate::io::source::{kind_of, same_object};
use crate::io::stage::{Owned, owner_of, remove_all};
use crate::io::state::{Batch, Intent, NewVersion, PlaceChange, State};
use crate::path::{Name, RelPath};
use crate::report::Problem;
use crate::store::Change;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::rc::Rc;

/// What an object is called beside the root's own files if nothing tells where it was.
const RECOVERED: &[u8] = b"recovered";

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
    /// Swaps whose paths may not be looked at or changed any more: they wait until they may.
    pub denied: Vec<Problem>,
    /// Objects of users that stood in a private folder: where they stand now.
    pub brought_back: Vec<RelPath>,
    /// Objects of users that could not be brought to a path; they stay in the private folder.
    pub problems: Vec<Problem>,
}

impl Recovered {
    /// What a user should hear of it, a line each.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let Recovered { finished, forgotten, .. } = self;
        if finished + forgotten > 0 {
            lines.push(format!("an earlier run was interrupted: {finished} changes completed, {forgotten} taken back"));
        }
        if self.unexplained > 0 {
            let count = self.unexplained;
            lines.push(format!("{count} changes of an interrupted run could not be recorded: they look like edits made here"));
        }
        if self.postponed > 0 {
            let count = self.postponed;
            lines.push(format!("{count} changes of an interrupted run wait until the file system that they are on is mounted"));
        }
        if let Some(Problem { path, error, .. }) = self.denied.first() {
            let count = self.denied.len();
            lines.push(format!(
                "{count} changes of an interrupted run wait until their paths may be used again, the first at {path}: {error}"
            ));
        }
        lines.extend(self.brought_back.iter().map(|to| format!("an edit that an interrupted run had displaced stands at {to}")));
        lines.extend(self.problems.iter().map(|problem| {
            let Problem { path, step, error } = problem;
            format!("cannot {step} {path}, which an interrupted run had displaced: {error}")
        }));
        lines
    }
}

/// Brings rows and disk together after a crash, and clears the staging folder.
///
/// # Errors
/// The file system or the state fails; calling again later is safe.
pub fn recover(root: &Root, state: &State, mask: AttrMask) -> Result<Recovered, ApplyError> {
    let areas = Areas::remembered(root, state, mask)?;
    let mut recovery = Recovery { root, mask, areas, held: BTreeSet::new(), recovered: Recovered::default() };
    let intents = state.intents()?;
    let places = root.places();
    if !intents.is_empty() {
        // Half of a swap may stand there: a folder that was there and refuses now keeps the root closed.
        root.private(&[STAGE])?;
    }
    versions::finish_restores(&recovery.areas, state)?;
    let mut batches = Vec::new();
    for (id, intent) in intents {
        kill_point("recover-intent");
        if !recovery.reaches(&intent) {
            recovery.recovered.postponed += 1;
            continue;
        }
        let mut batch = Batch { settled: vec![id], ..Batch::default() };
        let (path, staged) = (intent.path.clone(), intent.staged.clone());
        let told = recovery.recovered.problems.len();
        match recovery.complete(intent, &mut batch) {
            Ok(true) => recovery.recovered.finished += 1,
            Ok(false) => {
                recovery.recovered.forgotten += 1;
                if recovery.recovered.problems.len() > told {
                    // The intent stays, and tells the next recovery whose the object is.
                    continue;
                }
            }
            // What lies elsewhere is not there.
            Err(ApplyError::Fs(error)) if error.unavailable().is_some() => {
                recovery.held.insert(staged);
                recovery.recovered.postponed += 1;
                continue;
            }
            // A root must not stay closed for one path that somebody closed.
            Err(ApplyError::Fs(error)) if error.source.kind() == ErrorKind::PermissionDenied => {
                recovery.held.insert(staged);
                recovery.recovered.denied.push(Problem { path, step: "recover", error: error.to_string() });
                continue;
            }
            Err(error) => return Err(error),
        }
        batches.push(batch);
    }
    recovery.rescue()?;
    if !batches.is_empty() || !recovery.recovered.brought_back.is_empty() {
        root.sync_all()?;
        for area in recovery.areas.all().filter(|area| !area.is_main()) {
            area.kept.sync_all()?;
        }
        kill_point("recover-synced");
    }
    let dropped = |change: &PlaceChange| if let PlaceChange::Drop(path) = change { places.get(path).cloned() } else { None };
    let unplaced: Vec<_> = batches.iter().flat_map(|batch| &batch.places).filter_map(dropped).collect();
    let mut unraised = Vec::new();
    if !batches.is_empty() {
        unplace::remember_stamps(state, &unplaced)?;
        let changes: Vec<_> = batches.iter().flat_map(|batch| &batch.changes).cloned().collect();
        let failed = generation::raise(root, state, &changes)?.into_iter();
        unraised.extend(failed.map(|(path, error)| Problem { path, step: "record", error: error.to_string() }));
        recovery.recovered.unexplained = record(state, batches)?;
        kill_point("recover-committed");
    }
    if recovery.recovered.problems.is_empty() && recovery.recovered.denied.is_empty() {
        recovery.sweep(state)?;
    }
    recovery.recovered.problems.extend(unraised);
    recovery.recovered.problems.extend(unplace::drop_stamps_left(root, state)?);
    kill_point("recover-swept");
    Ok(recovery.recovered)
}

/// Records what recovery found, together. If the rows cannot be recorded as they were meant, each intent is settled
/// by itself, and those that cannot are left to the next scan: a root must not stay closed for them.
fn record(state: &State, batches: Vec<Batch>) -> Result<usize, ApplyError> {
    let mut all = Batch::default();
    for batch in &batches {
        all.changes.extend(batch.changes.iter().cloned());
        all.settled.extend(&batch.settled);
        all.versions.extend(batch.versions.iter().cloned());
        all.places.extend(batch.places.iter().cloned());
    }
    if state.commit(all, true).is_ok() {
        return Ok(0);
    }
    let mut unexplained = 0;
    for Batch { changes, settled, versions, places } in batches {
        let rest = Batch { settled: settled.clone(), versions: versions.clone(), places: places.clone(), ..Batch::default() };
        if state.commit(Batch { changes, settled, versions, places }, true).is_err() {
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
    /// Addresses in staging folders of intents that wait.
    held: BTreeSet<Vec<u8>>,
    recovered: Recovered,
}

impl Recovery<'_> {
    /// Does the rest of a swap, or undoes it; did its rename happen?
    fn complete(&mut self, intent: Intent, batch: &mut Batch) -> Result<bool, ApplyError> {
        place::link(self.root, &intent)?;
        let happened = self.happened(&intent)?;
        batch.places.extend(place::ended(self.root, &intent, happened));
        if happened {
            self.finish(intent, batch)?
        } else {
            self.take_back(intent, batch)?
        }
        Ok(happened)
    }

    /// Did the rename that an intent announces happen?
    fn happened(&self, intent: &Intent) -> Result<bool, FsError> {
        if let (None, Some(placement)) = (&intent.staged_signature, self.root.places().get(&intent.path)) {
            // What is kept already went, whatever the cold root says of it now.
            if self.kept(intent)?.is_some_and(|(kept, version)| is_expected(&kept, &version.signature)) {
                return Ok(true);
            }
            return unplace::happened(self.root, placement, intent.expect.as_ref());
        }
        let now = self.at(&intent.path)?;
        let is = |wanted: &Option<Signature>| match (&now, wanted) {
            (Some(now), Some(wanted)) => same_identity(now, wanted),
            _ => false,
        };
        match (&intent.staged_signature, &intent.expect) {
            // A removal: the object is seen among the kept versions, or is at least not there any more. If something
            // else came out, it was not the one that was to go.
            (None, expect) => Ok(match self.kept(intent)? {
                Some((kept, version)) => is_expected(&kept, &version.signature),
                None => !is(expect),
            }),
            // A change of attributes: done again where it had begun, so that nothing half-done stays.
            (Some(staged), Some(expect)) if intent.staged.is_empty() && staged.ino == expect.ino => {
                Ok(is(&intent.expect) && self.began(intent, now.as_ref(), expect))
            }
            // What is to come stands there. If it does not, it never came, or was lost with the power, or a user moved
            // it or saved over it since: the rows stay as they were, and the scan sees what stands there. If it was a
            // user's doing, the version comes again or meets the user's as a conflict, and nothing is lost; rows of
            // something that is not there would look like a deletion.
            (Some(_), _) => Ok(is(&intent.staged_signature)),
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

    /// What stands among the kept versions under the name that an intent plans.
    fn kept<'i>(&self, intent: &'i Intent) -> Result<Option<(Signature, &'i NewVersion)>, FsError> {
        let Some(version) = &intent.version else { return Ok(None) };
        let Some((area, name)) = self.areas.find(&version.name) else { return Ok(None) };
        Ok(area.kept.stat(name)?.map(|there| (there, version)))
    }

    /// Does the rest of a swap that happened, and collects its rows.
    fn finish(&mut self, mut intent: Intent, batch: &mut Batch) -> Result<(), ApplyError> {
        if intent.staged_signature.is_none() {
            batch.places.extend(unplace::finish(self.root, &intent.path)?);
        }
        self.finish_attributes(&mut intent)?;
        if let Some(expect) = intent.expect
            && !intent.staged.is_empty()
        {
            self.finish_displacement(&mut intent, &expect)?;
        }
        self.keep(&intent, batch)?;
        batch.changes.append(&mut intent.changes);
        Ok(())
    }

    /// Collects the record of a displaced object that stands among the kept versions. What was written to at the last
    /// moment comes back.
    fn keep(&mut self, intent: &Intent, batch: &mut Batch) -> Result<(), ApplyError> {
        let Some((there, version)) = self.kept(intent)? else { return Ok(()) };
        let Some((area, name)) = self.areas.find(&version.name) else { return Ok(()) };
        if !is_expected(&there, &version.signature) {
            self.bring_back(&area.kept, name, &intent.path)?;
            // Where that failed, the record has it looked at again.
            batch.versions.extend(self.kept(intent)?.map(|(_, version)| version.clone()));
            return Ok(());
        }
        if version.kind == Kind::Dir {
            self.look_below((&area.kept, name), &intent.path, version.kept_at_ns)?;
        }
        batch.versions.push(version.clone());
        Ok(())
    }

    /// Undoes the rest of a swap that did not happen, or of which nothing is left: what it had displaced returns to its
    /// path if that is free, or goes where it was to go.
    fn take_back(&mut self, intent: Intent, batch: &mut Batch) -> Result<(), ApplyError> {
        if let (Some(expect), Some((area, name))) = (&intent.expect, self.areas.find(&intent.staged))
            && !intent.staged.is_empty()
            && let Some(there) = area.stage.dir().stat(name)?
        {
            let stage = area.stage.dir();
            match (&intent.staged_signature, &intent.version) {
                (Some(ours), _) if same_identity(&there, ours) => {
                    self.look_at_shown((stage, name), &there, ours, &intent.path)?
                }
                _ if self.returns(stage, name, &intent.path)? => {}
                (_, Some(version)) if is_expected(&there, expect) => {
                    stage.rename(name, &area.kept, leaf(&version.name), Replace::Never)?;
                }
                _ => self.bring_back(stage, name, &intent.path)?,
            }
        }
        let Some((there, version)) = self.kept(&intent)? else { return Ok(()) };
        let Some((area, name)) = self.areas.find(&version.name) else { return Ok(()) };
        if let Some(ours) = intent.staged_signature.filter(|ours| same_identity(&there, ours)) {
            // It stood at the path for a moment, and was kept in case somebody writes to it.
            self.look_at_shown((&area.kept, name), &there, &ours, &intent.path)?;
            batch.versions.push(NewVersion { signature: ours, ..version.clone() });
            return Ok(());
        }
        if !is_expected(&there, &version.signature) && self.returns(&area.kept, name, &intent.path)? {
            return Ok(());
        }
        self.keep(&intent, batch)
    }

    /// What we staged may have stood at its path for a moment, before it was exchanged back: what a user wrote to it, or
    /// put into it, comes back.
    fn look_at_shown(
        &mut self,
        (dir, name): (&Dir, &[u8]),
        there: &Signature,
        ours: &Signature,
        path: &RelPath,
    ) -> Result<(), ApplyError> {
        if kind_of(ours) == Some(Kind::Dir) {
            self.look_below((dir, name), path, ours.ctime_ns)
        } else if same_object(there, ours) {
            Ok(())
        } else {
            self.bring_back(dir, name, path)
        }
    }

    /// Brings back what was written to below a directory that stood at `path`, after a moment.
    fn look_below(&mut self, (dir, name): (&Dir, &[u8]), path: &RelPath, since_ns: i64) -> Result<(), ApplyError> {
        let tick_ns = ctime_granularity(self.root)?;
        let brought_back = &mut self.recovered.brought_back;
        let looked = match dir.open_dir(name) {
            Ok(below) => late::bring_back_below(self.root, &below, path, ((since_ns, tick_ns), brought_back)),
            Err(error) => Err(error.into()),
        };
        self.told(looked, path)
    }

    /// Renames an object back to a path where nothing stands.
    fn returns(&self, from: &Dir, name: &[u8], path: &RelPath) -> Result<bool, FsError> {
        kill_point("recover-return");
        let Some((parent, to)) = path.split() else { return Ok(false) };
        let dir = match self.root.dir(&parent) {
            Ok(dir) => dir,
            Err(error) if gone(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        match from.rename(name, &dir, to.as_bytes(), Replace::Never) {
            Ok(()) => Ok(true),
            // Where it may not be written, the object is brought as near as can be.
            Err(error) if matches!(error.source.kind(), ErrorKind::AlreadyExists | ErrorKind::PermissionDenied) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A user's object comes back beside the path that it had.
    fn bring_back(&mut self, from: &Dir, name: &[u8], path: &RelPath) -> Result<(), ApplyError> {
        kill_point("recover-bring-back");
        let brought = late::keep_beside(self.root, from, name, path).map(|to| self.recovered.brought_back.push(to));
        self.told(brought, path)
    }

    /// What cannot be brought back stays in the private folder, where nothing deletes it, and is told: a root must not
    /// stay closed for it.
    fn told(&mut self, brought: Result<(), Stop>, path: &RelPath) -> Result<(), ApplyError> {
        match brought {
            Ok(()) => Ok(()),
            Err(Stop::Run(error)) => Err(error),
            Err(Stop::Path(failure) | Stop::Left(failure) | Stop::Across(failure)) => {
                let (path, step, error) = (path.clone(), failure.step, failure.reason);
                self.recovered.problems.push(Problem { path, step, error });
                Ok(())
            }
        }
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

    /// Brings a displaced object from the staging folder to where it was to go; one that a user changed, or put there, at
    /// the last moment comes back beside its path.
    fn finish_displacement(&mut self, intent: &mut Intent, expect: &Signature) -> Result<(), ApplyError> {
        kill_point("recover-displaced");
        let Some((area, staged)) = self.areas.find(&intent.staged) else { return Ok(()) };
        let stage = area.stage.dir();
        let waits = stage.stat(staged)?;
        let edited = waits.is_some_and(|now| !is_expected(&now, expect));
        let path = intent.path.clone();
        let copy = intent.changes.iter().find_map(|change| match change {
            Change::Put { path: to, signature, .. } if *to != path && signature.ino == expect.ino => Some(to.clone()),
            _ => None,
        });
        let to = match (&intent.version, copy) {
            (Some(_), _) | (_, None) if edited => return self.bring_back(stage, staged, &path),
            (Some(version), _) => {
                return match waits {
                    Some(_) => Ok(stage.rename(staged, &area.kept, leaf(&version.name), Replace::Never)?),
                    None => Ok(()),
                };
            }
            (None, None) => {
                return match waits {
                    Some(_) => self.bring_back(stage, staged, &path),
                    None => Ok(()),
                };
            }
            (None, Some(to)) => to,
        };
        let arrived = match waits {
            Some(_) => !edited && self.copy_arrives(stage, staged, &to)?,
            None => self.at(&to)?.is_some_and(|now| same_identity(&now, expect)),
        };
        if arrived {
            return Ok(());
        }
        // It gets another name: no row for this one.
        intent.changes.retain(|change| !matches!(change, Change::Put { path, .. } if *path == to));
        match waits {
            Some(_) => self.bring_back(stage, staged, &path),
            None => Ok(()),
        }
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

    /// What is in a staging folder, is not ours, and is spoken of by no intent comes back at the top of its mount.
    fn rescue(&mut self) -> Result<(), ApplyError> {
        let areas: Vec<Rc<Area>> = self.areas.all().cloned().collect();
        for area in areas {
            let stage = area.stage.dir();
            for name in stage.names()? {
                let held = self.held.contains(&area.staged_address(&name));
                if held || stage.stat(&name)?.is_none_or(|now| is_ours(&name, &now)) {
                    continue;
                }
                let foreign = (owner_of(&name) == Owned::Foreign).then_some(&name[..]);
                let Ok(shown) = Name::parse(foreign.unwrap_or(RECOVERED)).or_else(|_| Name::parse(RECOVERED)) else { continue };
                self.bring_back(stage, &name, &self.top_of(&area).join(&shown))?;
            }
        }
        Ok(())
    }

    /// The directory in which an area's objects come back of which nobody knows the path: for a cold root, what was placed there first.
    fn top_of(&self, area: &Area) -> RelPath {
        let places = self.root.places();
        let placed = places.all().find(|placement| Some(placement.cold.id) == area.cold);
        placed.map_or_else(|| area.top(), |placement| placement.path.clone())
    }

    /// What is left in the staging folders is ours to delete: once it is durable that no intent speaks of it.
    fn sweep(&self, state: &State) -> Result<(), ApplyError> {
        for area in self.areas.all() {
            let stage = area.stage.dir();
            let mut rubbish = Vec::new();
            for name in stage.names()? {
                // Beginnings that are not kept went when the folder was opened.
                if owner_of(&name) != Owned::Part && stage.stat(&name)?.is_some_and(|now| is_ours(&name, &now)) {
                    rubbish.push(name);
                }
            }
            for name in rubbish {
                state.settle()?;
                kill_point("recover-settled");
                remove_all(stage, &name)?;
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

/// Is an object that was renamed the one that was to be displaced, unchanged? Of a directory this tells nothing of its
/// contents.
fn is_expected(there: &Signature, expect: &Signature) -> bool {
    same_identity(there, expect) && (kind_of(expect) == Some(Kind::Dir) || same_object(there, expect))
}

fn is_ours(name: &[u8], now: &Signature) -> bool {
    match owner_of(name) {
        Owned::Ours | Owned::Part => true,
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
