//! Which directories of an open root lie in a cold root: what is recorded of it, and shown to the root, step by step.
//!
//! Whoever moves a directory announces the placement first ([`announce`]), exchanges directory and link, and settles it
//! ([`settle`]) together with the new signatures of its rows ([`handover`]). Back it goes the other way: [`unsettle`], the
//! exchange, [`withdraw`]. Whatever a crash leaves in between, the root is understood.

use crate::entry::{AttrMask, Hash, Kind, Signature};
use crate::io::fs::{
    Claim, Cold, ColdId, Dir, FsError, Placement, Places, Root, Unavailable, identify_cold, is_nested, supports_exchange,
    synchronised_around,
};
use crate::io::kill::kill_point;
use crate::io::source::kind_of;
use crate::io::state::{Batch, Known, PlaceChange, State, StateError};
use crate::path::{RelPath, escape};
use crate::store::Change;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows that are read at a time when a directory was moved.
const PAGE: usize = 1_024;
/// Rows that are recorded at a time.
const ROWS: usize = 4_096;

/// Why a directory cannot be placed, or taken back.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A call failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The state cannot be read or written.
    #[error("cannot use the state of the root: {0}")]
    State(#[from] StateError),
    /// The cold root is, contains or lies in the root.
    #[error(
        "{} cannot be the cold root of {}: one lies in the other, or both are the same directory; nothing was changed",
        escape(cold.as_os_str().as_bytes()),
        escape(root.as_os_str().as_bytes())
    )]
    Nested {
        /// The cold root.
        cold: PathBuf,
        /// The root.
        root: PathBuf,
    },
    /// It is a folder that is synchronised.
    #[error("{} is a folder that is synchronised, and cannot be a cold root; nothing was changed", escape(.0.as_os_str().as_bytes()))]
    IsRoot(PathBuf),
    /// It lies in one.
    #[error(
        "{} lies in {}, which is synchronised, and cannot be a cold root: what lies there would go to other machines; nothing was changed",
        escape(cold.as_os_str().as_bytes()),
        escape(root.as_os_str().as_bytes())
    )]
    InRoot {
        /// The cold root.
        cold: PathBuf,
        /// The folder that is synchronised.
        root: PathBuf,
    },
    /// Its file system cannot rename as a safe change needs it.
    #[error(
        "{} cannot be a cold root: its file system knows no rename that exchanges two names, or none that refuses to replace \
         (renameat2 with RENAME_EXCHANGE, RENAME_NOREPLACE); nothing was changed",
        escape(.0.as_os_str().as_bytes())
    )]
    Renames(PathBuf),
    /// Placements do not contain each other, nor the root.
    #[error("{0} cannot be placed: it is the root, or it holds or lies in a directory that is placed already")]
    Inside(RelPath),
    /// It is there.
    #[error("{0} is there, with its link and its cold root: driftless archive restore brings it back")]
    There(RelPath),
    /// There is no such placement.
    #[error("{0} is not placed")]
    None(RelPath),
}

/// Under this key a state remembers that it was copied, or brought back, with what lies elsewhere.
const COPIED: &str = "cold.copied";

/// Shows a root what its state says of directories that lie elsewhere. To be called when a root is opened.
///
/// # Errors
/// The state cannot be read, or the root not looked at.
pub fn load(root: &Root, state: &State) -> Result<(), PlaceError> {
    let places = state.places()?;
    if places.is_empty() {
        root.set_places(places);
        return Ok(());
    }
    root.set_places(places.claimed(&claim_of(root, state)?));
    Ok(())
}

/// What a root claims of its folders in cold roots.
///
/// # Errors
/// The root cannot be looked at, or the state not be read.
pub fn claim_of(root: &Root, state: &State) -> Result<Claim, PlaceError> {
    let copied = state.moved().is_some() || state.meta(COPIED)?.is_some_and(|flag| !flag.is_empty());
    Ok(Claim::of(root, state.id().to_string(), copied)?)
}

/// The state is about to forget that it was made elsewhere: that what lies in cold roots may be another root's it remembers.
///
/// # Errors
/// The state cannot be written.
pub fn remember_copied(state: &State) -> Result<(), StateError> {
    match state.moved().is_some() && !state.places()?.is_empty() {
        true => state.put_meta(COPIED, b"1"),
        false => Ok(()),
    }
}

/// Tells the cold roots whose the folders of this root are, where that is beyond doubt and not written down: a folder from before
/// that was written is this root's if one of its links and its stamp agree; one that is this root's by its directory or its identity
/// has both from now on. To be called by whoever holds the root's lock. Returns what could not be written.
///
/// # Errors
/// The state cannot be read or written.
pub fn own(root: &Root, state: &State) -> Result<Vec<FsError>, StateError> {
    let mut failed = Vec::new();
    let places = root.places();
    for cold in places.colds() {
        // One that is not there, or another root's, is told where it is needed.
        let Ok(false) = cold.is_owned() else { continue };
        let mut of_cold = places.all().filter(|placement| placement.cold.id == cold.id).peekable();
        let agree =
            of_cold.peek().is_none() || of_cold.any(|placement| root.dir(&placement.path).is_ok_and(|dir| dir.is_placed()));
        if agree {
            failed.extend(cold.own().err());
        }
    }
    // One that is not there, and holds nothing of this root, may be gone for good.
    let is_owned = |cold: &Arc<Cold>| matches!(cold.is_owned(), Ok(true)) || is_retired(&places, cold);
    if state.meta(COPIED)?.is_some_and(|flag| !flag.is_empty()) && places.colds().iter().all(is_owned) {
        // They know it by its present name, which no other root has.
        state.put_meta(COPIED, b"")?;
    }
    Ok(failed)
}

/// Nothing of the root lies in the cold root, and that is not there: its disk may be gone for good.
fn is_retired(places: &Places, cold: &Arc<Cold>) -> bool {
    let is_there = !matches!(
        cold.is_rolled_back(),
        Err(Unavailable::Closed { .. } | Unavailable::Unmarked { .. } | Unavailable::Other { .. })
    );
    !is_there && !places.all().any(|placement| placement.cold.id == cold.id)
}

/// What came of [`claim`].
#[derive(Debug, Default)]
pub struct Claimed {
    /// The cold roots that are this root's now.
    pub colds: Vec<PathBuf>,
    /// What a user should hear.
    pub notices: Vec<String>,
    /// Those that are not, and why: they stay as they are.
    pub failed: Vec<FsError>,
}

/// What lies in cold roots is this root's from now on, whosever it was: its folders there say so, and any other root that used them
/// is shut out. What lies in one that is older than what was known of it is as if it had been found there. One that is not there, and
/// in which nothing of this root lies, is left out.
///
/// # Errors
/// The root cannot be looked at, or the state not be read or written.
pub fn claim(root: &Root, state: &State) -> Result<Claimed, PlaceError> {
    if state.moved().is_some() {
        // What cannot be claimed now goes on to count as another root's.
        remember_copied(state)?;
        // It bears the name of the root that it was copied from, which would go on to be taken for the owner.
        state.renew_identity()?;
    }
    let places = root.places();
    let (mut claimed, mut changes) = (Claimed::default(), Vec::new());
    for cold in places.colds() {
        claimed.notices.extend(cold.wrong_owner().map(|why| format!("{why}; it is this folder's from now on")));
        // One that is not there is told below.
        if matches!(cold.is_rolled_back(), Ok(true)) {
            let in_it = places.all().filter(|placement| placement.cold.id == cold.id);
            changes.extend(in_it.map(|placement| Change::Forget { path: placement.path.clone() }));
        }
    }
    if !changes.is_empty() {
        // Before the cold root counts as it is: until then nothing is put there, and nothing of it is told.
        state.commit(Batch { changes, ..Batch::default() }, true)?;
        kill_point("claim-forgotten");
    }
    let claim = claim_of(root, state)?.undoubted();
    let places = root.places().claimed(&claim);
    for cold in places.colds().iter().filter(|cold| !is_retired(&places, cold)) {
        match cold.own() {
            Ok(()) => claimed.colds.push(cold.path.clone()),
            Err(error) => claimed.failed.push(error),
        }
    }
    if claimed.failed.is_empty() {
        state.put_meta(COPIED, b"")?;
    }
    load(root, state)?;
    let places = root.places();
    for placement in places.all().filter(|placement| claimed.colds.contains(&placement.cold.path)) {
        // What came there after the copy was taken that stands there now, as a rule.
        let gone = root.dir(&placement.path).err();
        claimed.notices.extend(gone.map(|why| format!("{} is archived, and not there: {why}", placement.path)));
    }
    Ok(claimed)
}

/// Takes a cold root, which exists, into use for a root; one that is in use already may have come to another path.
///
/// # Errors
/// It is no cold root, or one of the two lies in the other, or the private folder there cannot be made.
pub fn use_cold(root: &Root, state: &State, path: &Path) -> Result<Arc<Cold>, PlaceError> {
    let failed = |source| FsError { action: "open the cold root", path: path.to_owned(), source };
    let path = path.canonicalize().map_err(failed)?;
    let id = identify_cold(&path)?;
    if is_nested(&path, root.path())? {
        return Err(PlaceError::Nested { cold: path, root: root.path().to_owned() });
    }
    if let Some(around) = synchronised_around(&path)? {
        return Err(if around == path { PlaceError::IsRoot(path) } else { PlaceError::InRoot { cold: path, root: around } });
    }
    let known = root.places().colds().iter().find(|cold| cold.id == id).cloned();
    let drawn = || ColdId::random().map(|id| id.to_string()).map_err(failed);
    let key = known.as_ref().map_or_else(drawn, |known| Ok(known.key.clone()))?;
    let claim = claim_of(root, state)?;
    // A new folder is nobody else's, whatever becomes of those that the state remembers.
    let generation = known.as_ref().map(|known| known.generation.clone()).unwrap_or_default();
    let cold = Cold { id, path, key, claim: if known.is_some() { claim } else { claim.undoubted() }, generation };
    // Another root's is not used, also where nothing is to be made in it.
    cold.dir()?;
    let is_new = known.is_none();
    if known.is_none_or(|known| *known != cold) {
        if !supports_exchange(&Root::open(&cold.path)?)? {
            return Err(PlaceError::Renames(cold.path));
        }
        cold.private()?;
        if is_new {
            cold.own()?;
        }
        state.put_cold(&cold)?;
        load(root, state)?;
    }
    let unowned = own(root, state)?.into_iter();
    // One that may only be read is good for looking at.
    if let Some(error) = unowned.filter(|error| !error.is_refusal()).find(|error| error.path.starts_with(&cold.path)) {
        return Err(error.into());
    }
    let used = root.places().colds().iter().find(|used| used.id == id).cloned();
    used.ok_or_else(|| StateError::Content { what: "a cold root" }.into())
}

/// A directory is about to be placed: its stamp is written and it is recorded, durably, and not settled. The engine looks
/// through the link from the moment on at which that stands at the path, and at the directory until then.
///
/// # Errors
/// The cold root is not there, or the path may not be placed.
pub fn announce(root: &Root, state: &State, placement: Placement) -> Result<(), PlaceError> {
    let places = root.places();
    if !places.may_hold(&placement.path) {
        return Err(PlaceError::Inside(placement.path));
    }
    let placement = Placement { settled: false, ..placement };
    placement.put_stamp()?;
    let changes = vec![PlaceChange::Put(placement.clone())];
    state.commit(Batch { places: changes, ..Batch::default() }, true)?;
    root.set_places(places.with(placement));
    Ok(())
}

/// Records a placement that is there in another way: other link texts, other rewritten links, settled or not.
///
/// # Errors
/// There is none at the path, or the state cannot be written.
pub fn amend(root: &Root, state: &State, placement: Placement, changes: Vec<Change>) -> Result<(), PlaceError> {
    let places = root.places();
    if places.get(&placement.path).is_none() {
        return Err(PlaceError::None(placement.path));
    }
    let put = vec![PlaceChange::Put(placement.clone())];
    state.commit(Batch { changes, places: put, ..Batch::default() }, true)?;
    root.set_places(places.with(placement));
    Ok(())
}

/// The link stands at the path, durably: from now on nothing else may. `changes` are those of [`handover`].
///
/// # Errors
/// There is no such placement, or the state cannot be written.
pub fn settle(root: &Root, state: &State, path: &RelPath, changes: Vec<Change>) -> Result<(), PlaceError> {
    let placement = get(root, path)?;
    amend(root, state, Placement { settled: true, ..Placement::clone(&placement) }, changes)
}

/// Settles what a crash left unsettled although its link stands, and all that must agree with it does: from now on a link that
/// goes is missed. To be called when a root is opened, after recovery. What cannot be looked at stays as it is, and is met again by
/// whoever looks into it.
///
/// # Errors
/// The state cannot be written.
pub fn settle_linked(root: &Root, state: &State) -> Result<(), StateError> {
    let before = root.places();
    let (mut after, mut places) = (before.as_ref().clone(), Vec::new());
    for placement in before.all().filter(|placement| !placement.settled) {
        if root.dir(&placement.path).is_ok_and(|dir| dir.is_placed()) {
            after = after.with(Placement { settled: true, ..Placement::clone(placement) });
            places.push(PlaceChange::Settle(placement.path.clone()));
        }
    }
    if !places.is_empty() {
        state.commit(Batch { places, ..Batch::default() }, true)?;
        root.set_places(after);
    }
    Ok(())
}

/// The link is about to be taken away: whatever stands at the path counts again.
///
/// # Errors
/// There is no such placement, or the state cannot be written.
pub fn unsettle(root: &Root, state: &State, path: &RelPath) -> Result<(), PlaceError> {
    let placement = get(root, path)?;
    amend(root, state, Placement { settled: false, ..Placement::clone(&placement) }, Vec::new())
}

/// The directory does not lie elsewhere any more: the placement is forgotten, and then its stamp. `changes` are those of
/// [`handover`], if it lies in the root again.
///
/// # Errors
/// There is no such placement, the state cannot be written, or the stamp cannot be removed, which does not matter.
pub fn withdraw(root: &Root, state: &State, path: &RelPath, changes: Vec<Change>) -> Result<(), PlaceError> {
    let placement = get(root, path)?;
    let places = vec![PlaceChange::Drop(path.clone())];
    state.commit(Batch { changes, places, ..Batch::default() }, true)?;
    root.set_places(root.places().without(path));
    Ok(placement.remove_stamp()?)
}

/// A directory that is not where it was placed, and will not be again, is given up: the link goes first, durably, and then the
/// placement with all rows, and what was known of them, so that whoever else has it brings it back.
///
/// # Errors
/// It is there, the link cannot be removed, or the state cannot be written.
pub fn forget(root: &Root, state: &State, path: &RelPath) -> Result<(), PlaceError> {
    let placement = get(root, path)?;
    if root.dir(path).is_ok_and(|dir| dir.is_placed()) {
        return Err(PlaceError::There(path.clone()));
    }
    let (parent, name) = path.split().ok_or_else(|| PlaceError::None(path.clone()))?;
    match root.hot(&parent) {
        Ok(hot) => {
            let is_link = hot.stat(name.as_bytes())?.is_some_and(|now| kind_of(&now) == Some(Kind::Symlink));
            if is_link && placement.is_own(&hot.read_link(name.as_bytes())?) {
                hot.unlink(name.as_bytes())?;
                hot.sync()?;
            }
        }
        Err(error) if error.is_missing() => {}
        Err(error) => return Err(error.into()),
    }
    let (changes, places) = (vec![Change::Forget { path: path.clone() }], vec![PlaceChange::Drop(path.clone())]);
    state.commit(Batch { changes, places, ..Batch::default() }, true)?;
    load(root, state)?;
    match placement.remove_stamp() {
        // Its stamp is gone with it, or tells of nothing.
        Err(error) if error.unavailable().is_some() => Ok(()),
        answer => Ok(answer?),
    }
}

fn get(root: &Root, path: &RelPath) -> Result<Arc<Placement>, PlaceError> {
    root.places().get(path).cloned().ok_or_else(|| PlaceError::None(path.clone()))
}

/// The hash of a path that was read where it stood before; asked for in the order of paths.
pub type Hashes<'a> = &'a mut dyn FnMut(&RelPath) -> Option<Hash>;

/// Gives the rows of a directory, and of the one that it is in, the signatures that the disk shows now: after a move that kept
/// names, times and attributes, nothing needs to be read again. What is not as its row says, or was never read and has none of the
/// `hashes`, is left to the next scan. Without any `hashes` all below the directory is the same as before, its signatures too.
///
/// Many rows are recorded a part at a time; the answer is the last part, for the transaction that records the placement. After a
/// crash in between it is done once more.
///
/// # Errors
/// The directory or its rows cannot be read, or the state cannot be written.
pub fn handover(
    (root, state, mask): (&Root, &State, AttrMask),
    path: &RelPath,
    hashes: Option<Hashes<'_>>,
) -> Result<Vec<Change>, PlaceError> {
    let mut changes = Vec::new();
    let above = path.parent().unwrap_or_default();
    if !above.is_root() {
        let now = root.dir(&above)?.stat_self()?;
        // Its time tells of the exchange alone, unless names came or went, which the next scan finds.
        changes.push(Change::Refresh { path: above, signature: now, hash: None, mtime_ns: Some(now.mtime_ns) });
    }
    let dir = root.dir(path)?;
    let own = dir.stat_self()?;
    changes.push(Change::Refresh { path: path.clone(), signature: own, hash: None, mtime_ns: Some(own.mtime_ns) });
    let Some(hashes) = hashes else { return Ok(changes) };
    let mut handover = Handover { state, mask, hashes, changes };
    handover.below(&dir, path)?;
    Ok(handover.changes)
}

struct Handover<'a> {
    state: &'a State,
    mask: AttrMask,
    hashes: Hashes<'a>,
    changes: Vec<Change>,
}

impl Handover<'_> {
    fn below(&mut self, dir: &Dir, path: &RelPath) -> Result<(), PlaceError> {
        let Some(node) = self.state.node(path)? else { return Ok(()) };
        let mut after = None;
        loop {
            let page = self.state.known_after(node, after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.name.clone());
            for known in page {
                self.one(dir, path, &known)?;
            }
        }
    }

    fn one(&mut self, dir: &Dir, path: &RelPath, known: &Known) -> Result<(), PlaceError> {
        let Some(now) = dir.stat(known.name.as_bytes())? else { return Ok(()) };
        let path = path.join(&known.name);
        if !self.is_as_recorded(known, &now) {
            return Ok(());
        }
        let (hash, mtime_ns) = match known.kind {
            Kind::Dir => (None, Some(now.mtime_ns)),
            Kind::Symlink => (None, None),
            Kind::File => match ((self.hashes)(&path), known.hash) {
                (Some(moved), Some(recorded)) if moved != recorded => return Ok(()),
                // Nobody has read it where it stood: a change that its times do not tell would be taken for known.
                (None, _) if now.size > 0 => return Ok(()),
                // What stood in the other place was read before it was moved: whoever wrote to it since moved its time.
                (moved, recorded) => (moved.or(recorded), None),
            },
        };
        let signature = Signature { racy: known.signature.racy, ..now };
        self.changes.push(Change::Refresh { path: path.clone(), signature, hash, mtime_ns });
        if self.changes.len() >= ROWS {
            // Ordered before all that is committed later, which is durable.
            self.state.commit(Batch { changes: std::mem::take(&mut self.changes), ..Batch::default() }, false)?;
        }
        match known.kind {
            Kind::Dir => self.below(&dir.open_dir(known.name.as_bytes())?, &path),
            _ => Ok(()),
        }
    }

    fn is_as_recorded(&self, known: &Known, now: &Signature) -> bool {
        let same = kind_of(now) == Some(known.kind) && self.mask.equal(known.kind, &known.signature.attrs(), &now.attrs());
        let is_dir = known.kind == Kind::Dir;
        same && (is_dir || (now.size == known.signature.size && now.mtime_ns == known.signature.mtime_ns))
    }
}
