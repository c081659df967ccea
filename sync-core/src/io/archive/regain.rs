//! Archived days of which the state knows nothing, because it began anew or is older than they are: the links in the root, and the stamps
//! of the directories that they lead to, still tell where each lies.

use super::error::ArchiveError;
use super::manifest::Reader;
use super::moves::SEALED;
use crate::entry::Kind;
use crate::io::fs::{
    Claim, Cold, ColdId, Dir, FsError, Placement, Rewritten, Root, Stamp, identify_cold, stamps_for, way_to_cold,
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
    let (mut search, mut regained) = (Search { root, claim: &claim, whose, found: Vec::new() }, Regained::default());
    search.below(&root.hot(&RelPath::root())?, &RelPath::root())?;
    let mut found = search.found;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let keys = keys(root, &found);
    let mut taken: Vec<Placement> = Vec::new();
    let mut elsewhere = Vec::new();
    for Found { path, link, cold, id, stamps } in found {
        let Some(key) = keys.get(&id) else { continue };
        let of_own = || stamps.iter().find(|stamp| stamp.is_own);
        let Some(stamp) = stamps.iter().find(|stamp| stamp.key == *key).or_else(of_own) else { continue };
        let claim = claim.clone().undoubted();
        let cold = Cold { id, path: cold, key: stamp.key.clone(), claim, generation: Default::default() };
        let rewritten = match rewritten(&cold, stamp.id) {
            Ok(rewritten) => rewritten,
            Err(error) => {
                regained.failed.push((path, error.to_string()));
                continue;
            }
        };
        if stamp.key != *key {
            elsewhere.push((cold.clone(), path.clone()));
        }
        // One object for all days in it.
        let known = taken.iter().map(|placement| &placement.cold).find(|known| known.id == id).cloned();
        let cold = known.unwrap_or_else(|| Arc::new(Cold { key: key.clone(), ..cold }));
        let (at, job, stamp) = (path.clone(), stamp.job.clone(), stamp.id);
        taken.push(Placement { path, cold, at, job, stamp, link, other_link: None, settled: true, rewritten });
    }
    let places = root.places();
    taken.retain(|placement| places.may_hold(&placement.path));
    if taken.is_empty() {
        return Ok(regained);
    }
    for placement in &taken {
        if whose != Whose::Own {
            placement.cold.own()?;
        }
        if !places.colds().iter().any(|cold| cold.id == placement.cold.id) {
            state.put_cold(&placement.cold)?;
        }
        if elsewhere.iter().any(|(_, path)| *path == placement.path) {
            placement.put_stamp()?;
        }
    }
    regained.days = taken.iter().map(|placement| placement.path.clone()).collect();
    let changes = taken.into_iter().map(PlaceChange::Put).collect();
    state.commit(Batch { places: changes, ..Batch::default() }, true)?;
    places::load(root, state)?;
    // What another folder of this root's said of a day is said by the one that is used.
    for (cold, path) in elsewhere {
        cold.drop_stamp(&path)?;
    }
    Ok(regained)
}

/// The folder that is used in each cold root: the one that the state knows, or the one that tells of most days.
fn keys(root: &Root, found: &[Found]) -> BTreeMap<ColdId, String> {
    let mut counts: BTreeMap<(ColdId, &str), usize> = BTreeMap::new();
    for (id, stamp) in found.iter().flat_map(|found| found.stamps.iter().map(|stamp| (found.id, stamp))) {
        *counts.entry((id, &stamp.key)).or_default() += 1;
    }
    let mut counted: Vec<_> = counts.into_iter().collect();
    counted.sort_by_key(|(_, count)| *count);
    let mut keys: BTreeMap<ColdId, String> = counted.into_iter().map(|((id, key), _)| (id, key.to_owned())).collect();
    keys.extend(root.places().colds().iter().map(|cold| (cold.id, cold.key.clone())));
    keys
}

struct Search<'a> {
    root: &'a Root,
    claim: &'a Claim,
    whose: Whose<'a>,
    found: Vec<Found>,
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
                Some(Kind::Symlink) => self.link(dir, &name, child)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn link(&mut self, dir: &Dir, name: &[u8], path: RelPath) -> Result<(), FsError> {
        let link = dir.link_text(name)?;
        let parent = self.root.locate(&path.parent().unwrap_or_default());
        let Some(way) = way_to_cold(&parent, &link, &path) else { return Ok(()) };
        let named = match self.whose {
            Whose::Anyones(named) => named,
            Whose::Own => None,
        };
        for cold in [Some(way.as_path()), named].into_iter().flatten() {
            // What is no cold root, or is not there, is told by the scan that meets the link.
            let Ok(cold) = cold.canonicalize() else { continue };
            let Ok(id) = identify_cold(&cold) else { continue };
            let mut stamps = stamps_for(&cold, &path, self.claim)?;
            if self.whose == Whose::Own {
                stamps.retain(|stamp| stamp.is_own);
            }
            // One that is claimed takes the place of none of this root's own.
            if stamps.iter().any(|stamp| stamp.is_own) {
                stamps.retain(|stamp| stamp.is_own);
            }
            if !stamps.is_empty() && self.leads_there(dir, name, (&cold, &path))? {
                self.found.push(Found { path, link, cold, id, stamps });
                return Ok(());
            }
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
        notices
            .extend(self.failed.iter().map(|(path, error)| format!("{root}: {path} is archived, and cannot be used: {error}")));
        notices
    }
}
