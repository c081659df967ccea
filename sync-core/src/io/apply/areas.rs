//! Private folders where objects are staged and kept: one in the root, and one in each other file system that is
//! mounted below it, since a rename cannot leave its mount; and one in each cold root, for what was placed there.
//!
//! An object of the root's own area is recorded by its name alone, one of another area by its path below the root, one in a
//! cold root by the id of that after a slash.
//!
//! A root that may not be written, and never could, has no area of its own. That is no obstacle to reading it, and the
//! reason why each change of it fails.

use super::Stop;
use crate::entry::AttrMask;
use crate::io::fs::{Cold, ColdId, Dir, FsError, Mount, Root};
use crate::io::stage::{Failure, Stage, Tree};
use crate::io::state::{State, StateError};
use crate::path::{RESERVED, RelPath};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;

/// Name of the folder of kept versions below `.driftless`.
pub const VERSIONS: &str = "versions";
/// Name of the staging folder below `.driftless`.
pub const STAGE: &str = "stage";
/// Where the state remembers the areas beside the root's own: their directories, separated by NUL.
pub(super) const REMEMBERED: &str = "apply.areas";

/// The private folders of one mount.
pub(super) struct Area {
    /// The topmost directory of the mount; `None` for the root's own, and in a cold root.
    top: Option<RelPath>,
    /// The cold root that it is in.
    pub(super) cold: Option<ColdId>,
    mount: Mount,
    pub(super) stage: Arc<Stage>,
    pub(super) kept: Rc<Dir>,
    /// Was anything changed there since the last sync? Told of cold roots, whose disks may be slow.
    used: Cell<bool>,
}

/// The areas of a root, as far as they were needed.
pub(super) struct Areas<'a> {
    root: &'a Root,
    mask: AttrMask,
    /// Somebody else may be at work in them.
    beside: bool,
    /// The root's own, or the refusal to make it.
    main: Result<Rc<Area>, FsError>,
    others: Vec<Rc<Area>>,
    /// Cold roots that are there and cannot be used, and why.
    refused: BTreeMap<ColdId, String>,
}

impl Area {
    fn main(root: &Root, mask: AttrMask, beside: bool) -> Result<Area, FsError> {
        let private = root.private(&[])?;
        Area::open(&private, (None, None), private.mount()?, mask, beside)
    }

    fn open(
        private: &Dir,
        (top, cold): (Option<RelPath>, Option<ColdId>),
        mount: Mount,
        mask: AttrMask,
        beside: bool,
    ) -> Result<Area, FsError> {
        let folder = private.open_or_create(STAGE.as_bytes())?;
        let stage = Arc::new(if beside { Stage::beside(folder, mask)? } else { Stage::open(folder, mask)? });
        let kept = Rc::new(private.open_or_create(VERSIONS.as_bytes())?);
        Ok(Area { top, cold, mount, stage, kept, used: Cell::new(false) })
    }

    /// Is this the root's own?
    pub(super) fn is_main(&self) -> bool {
        self.top.is_none() && self.cold.is_none()
    }

    /// Can objects be renamed from one to the other?
    pub(super) fn is_beside(&self, other: &Area) -> bool {
        self.mount == other.mount
    }

    /// Is a tree staged in it? It was in the root's own, or in a cold root.
    pub(super) fn holds(&self, tree: &Tree) -> bool {
        self.top.is_none() && self.cold == tree.cold
    }

    /// Must it be synced with the next batch?
    pub(super) fn takes_sync(&self) -> bool {
        !self.is_main() && (self.cold.is_none() || self.used.take())
    }

    /// The topmost directory of the mount.
    pub(super) fn top(&self) -> RelPath {
        self.top.clone().unwrap_or_default()
    }

    /// How a staged object is recorded.
    pub(super) fn staged_address(&self, name: &[u8]) -> Vec<u8> {
        self.address(STAGE, name)
    }

    /// How a kept version is recorded.
    pub(super) fn kept_address(&self, name: &[u8]) -> Vec<u8> {
        self.address(VERSIONS, name)
    }

    fn address(&self, folder: &str, name: &[u8]) -> Vec<u8> {
        match (&self.top, self.cold) {
            // No path begins with a slash.
            (None, Some(cold)) => [b"", cold.to_string().as_bytes(), folder.as_bytes(), name].join(&b'/'),
            (None, None) => name.to_vec(),
            (Some(top), _) => [top.as_bytes(), RESERVED, folder.as_bytes(), name].join(&b'/'),
        }
    }
}

impl<'a> Areas<'a> {
    /// Opens the root's own, and those in cold roots that are there.
    pub(super) fn open(root: &'a Root, mask: AttrMask) -> Result<Areas<'a>, FsError> {
        Areas::open_as(root, mask, false)
    }

    fn open_as(root: &'a Root, mask: AttrMask, beside: bool) -> Result<Areas<'a>, FsError> {
        let main = match Area::main(root, mask, beside) {
            Err(error) if !error.is_refusal() => return Err(error),
            opened => opened.map(Rc::new),
        };
        let mut areas = Areas { root, mask, beside, main, others: Vec::new(), refused: BTreeMap::new() };
        for cold in root.places().colds() {
            // One that is missing or cannot be used is no obstacle to what is elsewhere.
            if let Err(error) = areas.add_cold(cold) {
                areas.refused.insert(cold.id, error.to_string());
            }
        }
        Ok(areas)
    }

    /// The root's own.
    pub(super) fn main(&self) -> Result<&Rc<Area>, Failure> {
        let refused = |error: &FsError| Failure::new("apply", format!("the root may not be written: {error}"));
        self.main.as_ref().map_err(refused)
    }

    /// The root's own, and all others that the state remembers and that are mounted.
    pub(super) fn remembered(root: &'a Root, state: &State, mask: AttrMask) -> Result<Areas<'a>, super::ApplyError> {
        Areas::open(root, mask)?.with_remembered(state)
    }

    /// The same to look at, while somebody else may be at work in them: nothing goes.
    pub(super) fn looked_at(root: &'a Root, state: &State, mask: AttrMask) -> Result<Areas<'a>, super::ApplyError> {
        Areas::open_as(root, mask, true)?.with_remembered(state)
    }

    fn with_remembered(mut self, state: &State) -> Result<Areas<'a>, super::ApplyError> {
        for top in tops(state)? {
            if self.is_mounted(&top)? {
                self.add(top)?;
            }
        }
        Ok(self)
    }

    /// All areas that are open.
    pub(super) fn all(&self) -> impl Iterator<Item = &Rc<Area>> {
        self.main.iter().chain(&self.others)
    }

    /// The area of what stands, or shall stand, at a path, as far as it is known without looking: the root's own while no
    /// other was met.
    pub(super) fn of(&self, path: &RelPath) -> Result<Rc<Area>, Stop> {
        if !self.others.is_empty() || !self.refused.is_empty() {
            let (_, mount, cold) = self.nearest(path)?;
            if let Some(area) = self.fitting(mount, cold) {
                area.used.set(true);
                return Ok(area.clone());
            }
            if let Some(why) = cold.and_then(|cold| self.refused.get(&cold)) {
                return Err(Failure::new("apply", format!("its cold root cannot be used: {why}")).into());
            }
        }
        Ok(self.main()?.clone())
    }

    /// The area of a cold root.
    pub(super) fn of_cold(&self, cold: ColdId) -> Result<Rc<Area>, Stop> {
        let found = self.others.iter().find(|area| area.cold == Some(cold));
        if let Some(area) = found {
            area.used.set(true);
            return Ok(area.clone());
        }
        let why = self.refused.get(&cold).map_or("it was not there when the run began", String::as_str);
        Err(Failure::new("apply", format!("its cold root cannot be used: {why}")).into())
    }

    /// Something is changed in a cold root.
    pub(super) fn use_cold(&self, cold: ColdId) {
        self.others.iter().filter(|area| area.cold == Some(cold)).for_each(|area| area.used.set(true));
    }

    /// An open area in which objects can be renamed to a place on this mount, in this cold root or in none.
    fn fitting(&self, mount: Mount, cold: Option<ColdId>) -> Option<&Rc<Area>> {
        let there = |wanted: Option<ColdId>| self.all().find(move |area| area.mount == mount && area.cold == wanted);
        there(cold).or_else(|| there(None))
    }

    /// Opens the area of a path on another mount, making it where there is none; `None` if the path is in an open one.
    pub(super) fn discover(&mut self, state: &State, path: &RelPath) -> Result<Option<Rc<Area>>, super::ApplyError> {
        let (mut top, mount, cold) = self.nearest(path)?;
        if self.fitting(mount, cold).is_some() {
            return Ok(None);
        }
        if let Some(cold) = cold
            && !self.others.iter().any(|area| area.cold == Some(cold))
            && let Some(cold) = self.root.places().colds().iter().find(|known| known.id == cold)
        {
            return Ok(self.add_cold(cold).map(Some)?);
        }
        while let Some(above) = top.parent()
            && self.root.dir(&above)?.mount()? == mount
        {
            top = above;
        }
        let mut known = tops(state)?;
        if !known.contains(&top) {
            known.push(top.clone());
            let known: Vec<&[u8]> = known.iter().map(RelPath::as_bytes).collect();
            // Remembered first: recovery must find what a crash leaves there.
            state.put_meta(REMEMBERED, &known.join(&0))?;
        }
        self.add(top).map(Some).map_err(Into::into)
    }

    /// The area that a recorded address lies in, and the name there; `None` if it is not there: its file system is not
    /// mounted, or the root never had one.
    pub(super) fn find<'n>(&self, address: &'n [u8]) -> Option<(Rc<Area>, &'n [u8])> {
        let Some(at) = address.iter().rposition(|b| *b == b'/') else {
            return self.main.as_ref().ok().map(|main| (main.clone(), address));
        };
        let area = self.others.iter().find(|area| {
            let name = &address[at + 1..];
            area.kept_address(name) == address || area.staged_address(name) == address
        });
        area.iter().for_each(|area| area.used.set(true));
        area.map(|area| (area.clone(), &address[at + 1..]))
    }

    fn add(&mut self, top: RelPath) -> Result<Rc<Area>, FsError> {
        let dir = self.root.dir(&top)?;
        let private = dir.open_or_create(RESERVED)?;
        let area = Rc::new(Area::open(&private, (Some(top), None), dir.mount()?, self.mask, self.beside)?);
        self.others.push(area.clone());
        Ok(area)
    }

    fn add_cold(&mut self, cold: &Cold) -> Result<Rc<Area>, FsError> {
        let private = cold.private()?;
        let area = Rc::new(Area::open(&private, (None, Some(cold.id)), private.mount()?, self.mask, self.beside)?);
        self.refused.remove(&cold.id);
        self.others.push(area.clone());
        Ok(area)
    }

    /// Is another file system than the one above mounted at a directory?
    fn is_mounted(&self, top: &RelPath) -> Result<bool, FsError> {
        let Some(above) = top.parent() else { return Ok(false) };
        let mount = |path: &RelPath| match self.root.dir(path) {
            Ok(dir) => dir.mount().map(Some),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        };
        Ok(match (mount(top)?, mount(&above)?) {
            (Some(top), Some(above)) => top != above,
            _ => false,
        })
    }

    /// The nearest directory above a path that exists, its mount, and the cold root that it lies in.
    fn nearest(&self, path: &RelPath) -> Result<(RelPath, Mount, Option<ColdId>), FsError> {
        for dir in path.ancestors().skip(1) {
            match self.root.dir(&dir) {
                Ok(open) => return Ok((dir, open.mount()?, open.placement().map(|placement| placement.cold.id))),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let top = RelPath::root();
        let mount = self.root.dir(&top)?.mount()?;
        Ok((top, mount, None))
    }
}

/// The last part of a recorded address.
pub(super) fn leaf(address: &[u8]) -> &[u8] {
    address.rsplit(|b| *b == b'/').next().unwrap_or(address)
}

fn tops(state: &State) -> Result<Vec<RelPath>, StateError> {
    let bytes = state.meta(REMEMBERED)?.unwrap_or_default();
    Ok(bytes.split(|b| *b == 0).filter_map(|path| RelPath::parse(path).ok()).filter(|path| !path.is_root()).collect())
}

fn is_gone(error: &FsError) -> bool {
    error.is_missing() || error.source.kind() == ErrorKind::NotADirectory
}
