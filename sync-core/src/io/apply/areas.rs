//! Private folders where objects are staged and kept: one in the root, and one in each other file system that is
//! mounted below it, since a rename cannot leave its mount.
//!
//! An object of the root's own area is recorded by its name alone, one of another area by its path below the root.
//!
//! A root that may not be written, and never could, has no area of its own. That is no obstacle to reading it, and the
//! reason why each change of it fails.

use super::Stop;
use crate::entry::AttrMask;
use crate::io::fs::{Dir, FsError, Mount, Root};
use crate::io::stage::{Failure, Stage};
use crate::io::state::{State, StateError};
use crate::path::{RESERVED, RelPath};
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
    /// The topmost directory of the mount; `None` for the root's own.
    top: Option<RelPath>,
    mount: Mount,
    pub(super) stage: Arc<Stage>,
    pub(super) kept: Rc<Dir>,
}

/// The areas of a root, as far as they were needed.
pub(super) struct Areas<'a> {
    root: &'a Root,
    mask: AttrMask,
    /// The root's own, or the refusal to make it.
    main: Result<Rc<Area>, FsError>,
    others: Vec<Rc<Area>>,
}

impl Area {
    fn main(root: &Root, mask: AttrMask) -> Result<Area, FsError> {
        let private = root.private(&[])?;
        Area::open(&private, None, private.mount()?, mask)
    }

    fn open(private: &Dir, top: Option<RelPath>, mount: Mount, mask: AttrMask) -> Result<Area, FsError> {
        let stage = Arc::new(Stage::open(private.open_or_create(STAGE.as_bytes())?, mask)?);
        let kept = Rc::new(private.open_or_create(VERSIONS.as_bytes())?);
        Ok(Area { top, mount, stage, kept })
    }

    /// Is this the root's own?
    pub(super) fn is_main(&self) -> bool {
        self.top.is_none()
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
        match &self.top {
            None => name.to_vec(),
            Some(top) => [top.as_bytes(), RESERVED, folder.as_bytes(), name].join(&b'/'),
        }
    }
}

impl<'a> Areas<'a> {
    /// Opens the root's own.
    pub(super) fn open(root: &'a Root, mask: AttrMask) -> Result<Areas<'a>, FsError> {
        let main = match Area::main(root, mask) {
            Err(error) if !error.is_refusal() => return Err(error),
            opened => opened.map(Rc::new),
        };
        Ok(Areas { root, mask, main, others: Vec::new() })
    }

    /// The root's own.
    pub(super) fn main(&self) -> Result<&Rc<Area>, Failure> {
        let refused = |error: &FsError| Failure::new("apply", format!("the root may not be written: {error}"));
        self.main.as_ref().map_err(refused)
    }

    /// The root's own, and all others that the state remembers and that are mounted.
    pub(super) fn remembered(root: &'a Root, state: &State, mask: AttrMask) -> Result<Areas<'a>, super::ApplyError> {
        let mut areas = Areas::open(root, mask)?;
        for top in tops(state)? {
            if areas.is_mounted(&top)? {
                areas.add(top)?;
            }
        }
        Ok(areas)
    }

    /// All areas that are open.
    pub(super) fn all(&self) -> impl Iterator<Item = &Rc<Area>> {
        self.main.iter().chain(&self.others)
    }

    /// The area of what stands, or shall stand, at a path, as far as it is known without looking: the root's own while no
    /// other was met.
    pub(super) fn of(&self, path: &RelPath) -> Result<Rc<Area>, Stop> {
        if !self.others.is_empty() {
            let (_, mount) = self.nearest(path)?;
            if let Some(area) = self.all().find(|area| area.mount == mount) {
                return Ok(area.clone());
            }
        }
        Ok(self.main()?.clone())
    }

    /// Opens the area of a path on another mount, making it where there is none; `None` if the path is in an open one.
    pub(super) fn discover(&mut self, state: &State, path: &RelPath) -> Result<Option<Rc<Area>>, super::ApplyError> {
        let (mut top, mount) = self.nearest(path)?;
        if self.all().any(|area| area.mount == mount) {
            return Ok(None);
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
        area.map(|area| (area.clone(), &address[at + 1..]))
    }

    fn add(&mut self, top: RelPath) -> Result<Rc<Area>, FsError> {
        let dir = self.root.dir(&top)?;
        let private = dir.open_or_create(RESERVED)?;
        let area = Rc::new(Area::open(&private, Some(top), dir.mount()?, self.mask)?);
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

    /// The nearest directory above a path that exists, and its mount.
    fn nearest(&self, path: &RelPath) -> Result<(RelPath, Mount), FsError> {
        for dir in path.ancestors().skip(1) {
            match self.root.dir(&dir) {
                Ok(open) => return Ok((dir, open.mount()?)),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let top = RelPath::root();
        let mount = self.root.dir(&top)?.mount()?;
        Ok((top, mount))
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
