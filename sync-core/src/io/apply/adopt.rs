//! Kept versions of a root whose state begins anew: taken over from the old state, or found by their names on the disk.

use super::areas::{Area, REMEMBERED};
use super::versions::{VersionError, now_ns, open_areas};
use crate::io::fs::{FsError, Placement, Places, Root};
use crate::io::places::{self, PlaceError};
use crate::io::source::kind_of;
use crate::io::state::{Batch, NewVersion, PlaceChange, State, StateError, UNKNOWN_PATH};
use crate::path::{Name, RelPath};
use std::collections::BTreeSet;

/// Versions taken over from an old state, and as many found by their names.
const INHERITED: usize = 100_000;
/// Below this name, at the top of the mount, stand versions whose path nobody knows any more.
const RECOVERED: &[u8] = b"recovered";

/// What an old state knew of kept versions.
#[derive(Debug, Clone, Default)]
pub struct Inherited {
    versions: Vec<NewVersion>,
    areas: Option<Vec<u8>>,
    /// What lies elsewhere.
    places: Places,
}

/// Reads what a state that is to be replaced knows of kept versions, the newest if there are too many.
///
/// # Errors
/// The state cannot be read.
pub fn inherit(old: &State) -> Result<Inherited, StateError> {
    let versions = old.versions_since(i64::MIN, (i64::MAX, i64::MAX), INHERITED)?;
    let versions = versions.into_iter().rev().map(|version| version.kept).collect();
    Ok(Inherited { versions, areas: old.meta(REMEMBERED)?, places: old.places()? })
}

/// Records the kept versions of a root in a state that begins: those of the old one, and what else lies in the folders of
/// kept versions under a name of ours. Returns how many of those there were.
///
/// # Errors
/// The folders cannot be read, or the state cannot be written.
pub fn adopt(root: &Root, state: &State, inherited: Inherited) -> Result<usize, VersionError> {
    if let Some(areas) = inherited.areas {
        state.put_meta(REMEMBERED, &areas)?;
    }
    if !inherited.places.is_empty() {
        // Else each link would be a user's, in the place of a directory that all others have.
        for cold in inherited.places.colds() {
            state.put_cold(cold)?;
            state.put_generation(cold.id, cold.generation.number())?;
        }
        let places = inherited.places.all().map(|placement| PlaceChange::Put(Placement::clone(placement))).collect();
        state.commit(Batch { places, ..Batch::default() }, true)?;
        match places::load(root, state) {
            Err(PlaceError::State(error)) => return Err(error.into()),
            Err(PlaceError::Fs(error)) => return Err(error.into()),
            answer => {
                answer.map_err(|error| VersionError::Path { path: RelPath::root(), step: "place", reason: error.to_string() })?
            }
        }
    }
    let areas = open_areas(root, state)?;
    let recorded = state.versions(&RelPath::root())?;
    let known = recorded.iter().map(|version| &version.kept).chain(&inherited.versions);
    let known: BTreeSet<Vec<u8>> = known.map(|version| version.name.clone()).collect();
    let mut found = Vec::new();
    for area in areas.all() {
        for name in area.kept.names()? {
            if found.len() < INHERITED && !known.contains(&area.kept_address(&name)) {
                found.extend(unrecorded(area, &name)?);
            }
        }
    }
    let count = found.len();
    let recorded: BTreeSet<Vec<u8>> = recorded.into_iter().map(|version| version.kept.name).collect();
    let mut versions = inherited.versions;
    versions.retain(|version| !recorded.contains(&version.name));
    versions.extend(found);
    if !versions.is_empty() {
        state.commit(Batch { versions, ..Batch::default() }, true)?;
    }
    Ok(count)
}

/// A record for an object that has none; `None` if it does not bear a name of ours.
fn unrecorded(area: &Area, name: &[u8]) -> Result<Option<NewVersion>, FsError> {
    let Some((kept_at_ns, shown)) = parts(name) else { return Ok(None) };
    let Some(signature) = area.kept.stat(name)? else { return Ok(None) };
    let Some(kind) = kind_of(&signature) else { return Ok(None) };
    let (Ok(folder), Ok(shown)) = (Name::parse(RECOVERED), Name::parse(shown).or_else(|_| Name::parse(RECOVERED))) else {
        return Ok(None);
    };
    let path = area.top().join(&folder).join(&shown);
    // A time that is yet to come would keep it for too long.
    let kept_at_ns = kept_at_ns.min(now_ns());
    let hash = None;
    Ok(Some(NewVersion { name: area.kept_address(name), path, kind, signature, hash, kept_at_ns, reason: UNKNOWN_PATH }))
}

/// When an object was kept, and what its name shows of the old one.
fn parts(name: &[u8]) -> Option<(i64, &[u8])> {
    let mut parts = name.splitn(3, |byte| *byte == b'-');
    let number = |part: &[u8]| std::str::from_utf8(part).ok()?.parse::<u64>().ok();
    let (kept_at_ns, _) = (number(parts.next()?)?, number(parts.next()?)?);
    Some((i64::try_from(kept_at_ns).ok()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_are_read() {
        for (name, read) in [
            ("5-7-a-b.txt", Some((5, "a-b.txt"))),
            ("5-7-", Some((5, ""))),
            ("5-7", None),
            ("a-7-x", None),
            ("5-x-y", None),
            ("mine", None),
        ] {
            assert_eq!(parts(name.as_bytes()), read.map(|(ns, shown)| (ns, shown.as_bytes())), "{name}");
        }
    }
}
