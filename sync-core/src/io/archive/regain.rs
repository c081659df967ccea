//! Archived days of which the state knows nothing, because it began anew or is older than they are: the links in the root, and the stamps
//! of the directories that they lead to, still tell where each lies.

use super::error::ArchiveError;
use super::manifest::Reader;
use super::moves::SEALED;
use super::scrub::forget_manifest;
use crate::entry::Kind;
use crate::io::fs::{
    Claim, Cold, ColdId, Dir, FsError, Placement, Places, Replace, Rewritten, Root, Stamp, identify_cold, stamps_for, way_to_cold,
};
use crate::io::places::{self, PlaceError};
use crate::io::source::kind_of;
use crate::io::state::{Batch, PlaceChange, State};
use crate::path::{Name, RESERVED, RelPath, escape};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whose days are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose<'a> {
    /// Those that are this root's beyond doubt.
    Own,
    /// Any root's: this one has them from now on. Links that lead there by a way that is not one of this machine's are known by the
    /// cold root that is named.
    Anyones(Option<&'a Path>),
}

/// What was found.
#[derive(Debug, Default)]
pub struct Regained {
    /// Days that are known again, by path.
    pub days: Vec<RelPath>,
    /// Days that are not, and why.
    pub failed: Vec<(RelPath, String)>,
    /// What else a user should hear.
    pub notices: Vec<String>,
    /// Links that read as those to archived days do, and lead nowhere now.
    pub unresolved: usize,
}

/// A link that reads as ours do, and what bears a stamp for its path.
struct Found {
    path: RelPath,
    link: Box<[u8]>,
    cold: PathBuf,
    id: ColdId,
    stamps: Vec<Stamp>,
}

/// Looks for links to archived days of which the state knows nothing, and records where the days lie. Nothing is changed in the root or
/// in the days. To be called by whoever holds the root's lock, before a scan.
///
/// # Errors
/// The root cannot be read, or the state not be read or written.
pub fn regain(root: &Root, state: &State, whose: Whose<'_>) -> Result<Regained, PlaceError> {
    let claim = places::claim_of(root, state)?;
    let mut search = Search { root, claim: &claim, whose, found: Vec::new(), regained: Regained::default() };
    search.below(&root.hot(&RelPath::root())?, &RelPath::root())?;
    let Search { mut found, mut regained, .. } = search;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let (counts, places) = (counts(&found), root.places());
    let keys = keys(&places, &counts);
    let mut taken: Vec<Taken> = Vec::new();
    for Found { path, link, cold, id, stamps } in found {
        // Any is a claimed day's: it may be one of a folder from before this root used the cold root again.
        let most = |stamp: &&Stamp| counts.get(&(id, stamp.key.clone()));
        let chosen = keys.get(&id).and_then(|key| {
            let used = stamps.iter().find(|stamp| stamp.key == *key);
            let stamp = used.or_else(|| stamps.iter().find(|stamp| stamp.is_own)).or_else(|| stamps.iter().max_by_key(most));
            stamp.map(|stamp| (key, stamp))
        });
        let Some((key, stamp)) = chosen else {
            regained.failed.push((path, "no folder in the cold root tells of it".to_owned()));
            continue;
        };
        if !places.may_hold(&path) {
            regained.failed.push((path, "it lies in or around another archived day".to_owned()));
            continue;
        }
        let claim = claim.clone().undoubted();
        let from = Cold { id, path: cold, key: stamp.key.clone(), claim, generation: Default::default() };
        let rewritten = match rewritten(&from, stamp.id) {
            Ok(rewritten) => rewritten,
            Err(error) => {
                regained.failed.push((path, error.to_string()));
                continue;
            }
        };
        // One object for all days in it.
        let known = taken.iter().map(|taken| &taken.placement.cold).find(|known| known.id == id).cloned();
        let cold = known.unwrap_or_else(|| Arc::new(Cold { key: key.clone(), ..from.clone() }));
        let (at, job, stamp) = (path.clone(), stamp.job.clone(), stamp.id);
        let placement = Placement { path, cold, at, job, stamp, link, other_link: None, settled: true, rewritten };
        let from = (from.key != placement.cold.key).then_some(from);
        taken.push(Taken { placement, from });
    }
    let mut ready = Vec::new();
    for taken in taken {
        match taken.prepare(whose) {
            Ok(()) => ready.push(taken),
            Err(error) => regained.failed.push((taken.placement.path, error.to_string())),
        }
    }
    if ready.is_empty() {
        return Ok(regained);
    }
    for Taken { placement, .. } in &ready {
        if !places.colds().iter().any(|cold| cold.id == placement.cold.id) {
            state.put_cold(&placement.cold)?;
        }
    }
    regained.days = ready.iter().map(|taken| taken.placement.path.clone()).collect();
    let changes = ready.iter().map(|taken| PlaceChange::Put(taken.placement.clone())).collect();
    state.commit(Batch { places: changes, ..Batch::default() }, true)?;
    places::load(root, state)?;
    for Taken { placement, from } in ready {
        // What another folder said of a day is said by the one that is used; what is left there tells of nothing.
        if let Some(from) = from
            && let Err(error) = from
                .remove_stamp(&placement.path, placement.stamp)
                .and_then(|()| from.private())
                .map_err(ArchiveError::from)
                .and_then(|private| forget_manifest(&private, placement.stamp))
        {
            regained.notices.push(format!("{}: its old stamp in the cold root cannot be removed: {error}", placement.path));
        }
    }
    Ok(regained)
}

/// A day that is about to be known again, and the folder that told of it where that is another one than is used.
struct Taken {
    placement: Placement,
    from: Option<Cold>,
}

impl Taken {
    /// Before it is recorded the folder that is used tells of it, durably, and any other root that had it is shut out.
    fn prepare(&self, whose: Whose<'_>) -> Result<(), ArchiveError> {
        let Taken { placement, from } = self;
        if whose != Whose::Own {
            if let Some(from) = from {
                from.own()?;
            }
            placement.cold.own()?;
        }
        if let Some(from) = from {
            hand_over_record(from, &placement.cold, placement.stamp)?;
            placement.put_stamp()?;
        }
        Ok(())
    }
}

/// The record of what was written comes to the folder that is used, durably; the other one keeps its own for now.
fn hand_over_record(from: &Cold, to: &Cold, stamp: ColdId) -> Result<(), ArchiveError> {
    let name = stamp.to_string().into_bytes();
    let old = match from.private()?.open_dir(SEALED) {
        Err(error) if error.is_missing() => return Ok(()),
        old => old?,
    };
    if old.look(&name)?.is_none() {
        return Ok(());
    }
    let (private, new_name) = (to.private()?, [&name[..], b".new"].concat());
    let new = private.open_or_create(SEALED)?;
    match new.unlink(&new_name) {
        Err(error) if !error.is_missing() => return Err(error.into()),
        _ => {}
    }
    let mut file = new.create_file(&new_name)?;
    let copied = std::io::copy(&mut old.open_file(&name)?, &mut file).and_then(|_| file.sync_all());
    copied.map_err(|source| FsError { action: "copy a record to", path: new.locate(&new_name), source })?;
    new.rename(&new_name, &new, &name, Replace::Always)?;
    new.sync()?;
    // The folder above, too: this one may be new.
    Ok(private.sync()?)
}

/// Of how many days each folder in each cold root tells.
fn counts(found: &[Found]) -> BTreeMap<(ColdId, String), usize> {
    let mut counts = BTreeMap::new();
    for (id, stamp) in found.iter().flat_map(|found| found.stamps.iter().map(|stamp| (found.id, stamp))) {
        *counts.entry((id, stamp.key.clone())).or_default() += 1;
    }
    counts
}

/// The folder that is used in each cold root: the one that the state knows, or the one that tells of most days.
fn keys(places: &Places, counts: &BTreeMap<(ColdId, String), usize>) -> BTreeMap<ColdId, String> {
    let mut counted: Vec<_> = counts.iter().collect();
    counted.sort_by_key(|(_, count)| **count);
    let mut keys: BTreeMap<ColdId, String> = counted.into_iter().map(|((id, key), _)| (*id, key.clone())).collect();
    keys.extend(places.colds().iter().map(|cold| (cold.id, cold.key.clone())));
    keys
}

struct Search<'a> {
    root: &'a Root,
    claim: &'a Claim,
    whose: Whose<'a>,
    found: Vec<Found>,
    /// What could not be looked at, and what leads nowhere.
    regained: Regained,
}

impl Search<'_> {
    fn below(&mut self, dir: &Dir, path: &RelPath) -> Result<(), FsError> {
        let places = self.root.places();
        for name in dir.names()? {
            if path.is_root() && *name == *RESERVED {
                continue;
            }
            let Ok(parsed) = Name::parse(&name) else { continue };
            let child = path.join(&parsed);
            if places.get(&child).is_some() {
                continue;
            }
            match dir.look(&name)?.and_then(|look| kind_of(&look.signature)) {
                Some(Kind::Dir) => match dir.open_dir(&name) {
                    Ok(below) => self.below(&below, &child)?,
                    // The scan says so.
                    Err(error) if error.is_refusal() || error.is_missing() => {}
                    Err(error) => return Err(error),
                },
                Some(Kind::Symlink) => {
                    if let Err(error) = self.link(dir, &name, &child) {
                        self.regained.failed.push((child, error.to_string()));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn link(&mut self, dir: &Dir, name: &[u8], path: &RelPath) -> Result<(), FsError> {
        let link = dir.link_text(name)?;
        let parent = self.root.locate(&path.parent().unwrap_or_default());
        let Some(way) = way_to_cold(&parent, &link, path) else { return Ok(()) };
        let named = match self.whose {
            Whose::Anyones(named) => named,
            Whose::Own => None,
        };
        for cold in [Some(way.as_path()), named].into_iter().flatten() {
            // What is no cold root, or is not there, is told by the scan that meets the link.
            let Ok(cold) = cold.canonicalize() else { continue };
            let Ok(id) = identify_cold(&cold) else { continue };
            let mut stamps = stamps_for(&cold, path, self.claim)?;
            let wrong = stamps.iter().find_map(|stamp| stamp.wrong.clone());
            if self.whose == Whose::Own {
                stamps.retain(|stamp| stamp.is_own);
            }
            if let Some(wrong) = wrong.filter(|_| !stamps.iter().any(|stamp| stamp.is_own)) {
                match self.whose {
                    Whose::Own => self.regained.failed.push((path.clone(), wrong)),
                    // It is written anew.
                    Whose::Anyones(_) => self.regained.notices.push(format!("{path}: {wrong}")),
                }
            }
            // One that is claimed takes the place of none of this root's own.
            if stamps.iter().any(|stamp| stamp.is_own) {
                stamps.retain(|stamp| stamp.is_own);
            }
            if !stamps.is_empty() && self.leads_there(dir, name, (&cold, path))? {
                self.found.push(Found { path: path.clone(), link, cold, id, stamps });
                return Ok(());
            }
        }
        // It may be a user's, or lead to a cold root that is not mounted now.
        if dir.leads_to(name).is_err() {
            self.regained.unresolved += 1;
        }
        Ok(())
    }

    /// Does the link lead to the directory of the day, or nowhere that can be seen from here?
    fn leads_there(&self, dir: &Dir, name: &[u8], (cold, at): (&Path, &RelPath)) -> Result<bool, FsError> {
        let there = match Root::open(cold)?.hot(at) {
            Ok(there) => there.stat_self()?,
            Err(error) if error.is_missing() => return Ok(false),
            Err(error) => return Err(error),
        };
        match dir.leads_to(name) {
            Ok(found) => Ok((found.dev, found.ino) == (there.dev, there.ino)),
            Err(error) if error.is_missing() => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Links in a day that were given another text, as the manifest tells that was kept with it. A day without one has none, or came to the
/// cold root without a copy.
fn rewritten(cold: &Cold, stamp: ColdId) -> Result<BTreeMap<RelPath, Rewritten>, ArchiveError> {
    let mut rewritten = BTreeMap::new();
    let private = Root::open(&cold.path)?.hot(&RelPath::root())?.open_dir(RESERVED)?.open_dir(cold.key.as_bytes())?;
    let sealed = match private.open_dir(SEALED) {
        Err(error) if error.is_missing() => return Ok(rewritten),
        sealed => sealed?,
    };
    let name = stamp.to_string();
    if sealed.look(name.as_bytes())?.is_none() {
        return Ok(rewritten);
    }
    let mut manifest = Reader::new(sealed.open_file(name.as_bytes())?, &sealed.locate(name.as_bytes()))?;
    while let Some(entry) = manifest.next()? {
        if entry.kind == Kind::Symlink && entry.disk != entry.target {
            rewritten.insert(entry.path, Rewritten { disk: entry.disk, target: entry.target });
        }
    }
    Ok(rewritten)
}

impl Regained {
    /// What a user is told.
    #[must_use]
    pub fn notices(&self, root: &Path) -> Vec<String> {
        let root = escape(root.as_os_str().as_bytes());
        let mut notices = Vec::new();
        match &self.days[..] {
            [] => {}
            [day] => notices.push(format!("{root}: the archived day {day} was found again by its link")),
            days => notices.push(format!("{root}: {} archived days were found again by their links", days.len())),
        }
        notices.extend(self.notices.iter().map(|notice| format!("{root}: {notice}")));
        notices
            .extend(self.failed.iter().map(|(path, error)| format!("{root}: {path} is archived, and cannot be used: {error}")));
        notices
    }
}
