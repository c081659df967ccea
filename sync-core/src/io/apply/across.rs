//! Kept objects that come to another file system than the one that they are kept on: a rename cannot bring them there.

use super::areas::Area;
use super::{Stop, versions};
use crate::entry::{Hash, Kind, Signature};
use crate::io::fs::{Dir, FsError, Replace, copy_sparse, file_signature, file_xattrs, finish_exactly, forget_cached, hash_file};
use crate::io::kill::kill_point;
use crate::io::source::{kind_of, unchanged, with_buffer};
use crate::io::stage::{Failure, fresh_name, remove_all};
use crate::io::state::{Batch, NewVersion, State, Version};

/// Brings a kept version to the folder of kept versions of another area: copied there, read back, recorded, and only then gone from
/// where it was. Returns its new record.
pub(super) fn carry_over(state: &State, version: &Version, from: &Area, name: &[u8], to: &Area) -> Result<Version, Stop> {
    let (staged, signature) = copy(&from.kept, name, to.stage.dir(), &fresh_name()?)?;
    to.kept.sync_all()?;
    let kept_name = versions::name(&version.kept.path, version.kept.kept_at_ns);
    let kept = NewVersion { name: to.kept_address(&kept_name), signature, ..version.kept.clone() };
    // Recorded first: a record without an object is harmless, an object without a record is lost.
    state.commit(Batch { versions: vec![kept.clone()], ..Batch::default() }, true)?;
    kill_point("across-recorded");
    to.stage.dir().rename(&staged, &to.kept, &kept_name, Replace::Never)?;
    to.kept.sync_all()?;
    kill_point("across-kept");
    state.forget_version(version.id)?;
    state.settle()?;
    kill_point("across-forgotten");
    remove_all(&from.kept, name)?;
    let recorded = state.versions(&kept.path)?.into_iter().find(|recorded| recorded.kept.name == kept.name);
    recorded.ok_or_else(|| Failure::new("restore", "its record vanished").into())
}

/// Copies an object with everything that it has under a new name, and reads the copy back. Returns the name, and what the copy is.
pub(super) fn copy(from: &Dir, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(Vec<u8>, Signature), Stop> {
    match copy_one((from, name), (to, to_name)) {
        Ok(signature) => Ok((to_name.to_vec(), signature)),
        Err(stop) => {
            remove_all(to, to_name)?;
            Err(stop)
        }
    }
}

fn copy_one((from, name): (&Dir, &[u8]), (to, to_name): (&Dir, &[u8])) -> Result<Signature, Stop> {
    let Some(now) = from.stat(name)? else { return Err(changed()) };
    match kind_of(&now) {
        Some(Kind::Dir) => copy_dir(&from.open_dir(name)?, &to.create_dir(to_name)?)?,
        Some(Kind::File) => copy_file((from, name), (to, to_name))?,
        Some(Kind::Symlink) => {
            let text = from.link_text(name)?;
            to.create_symlink(to_name, &text)?;
            to.finish_link(to_name, &now.attrs(), &from.link_xattrs(name)?)?;
            if to.link_text(to_name)? != text {
                return Err(changed());
            }
        }
        None => return Err(Failure::new("copy", "it is a device, pipe or socket").into()),
    }
    to.stat(to_name)?.ok_or_else(changed)
}

fn copy_dir(from: &Dir, to: &Dir) -> Result<(), Stop> {
    let (now, xattrs) = (from.stat_self()?, from.xattrs()?);
    for name in from.names()? {
        copy_one((from, &name), (to, &name))?;
    }
    to.finish_exactly(&now.attrs(), &xattrs)?;
    Ok(())
}

fn copy_file((from, name): (&Dir, &[u8]), (to, to_name): (&Dir, &[u8])) -> Result<(), Stop> {
    let (source, before) = from.open_file_seen(name)?;
    let target = to.create_file_for(to_name, before.mode)?;
    let path = to.locate(to_name);
    let failed = |action| {
        let path = path.clone();
        move |source| FsError { action, path, source }
    };
    let written = with_buffer(|buffer| copy_sparse(&source, before.size, &target, buffer)).map_err(failed("copy to"))?;
    finish_exactly(&target, &path, &before.attrs(), &file_xattrs(&source, &from.locate(name))?)?;
    target.sync_all().map_err(failed("flush"))?;
    forget_cached(&target, &path)?;
    let mut again = to.open_file(to_name)?;
    let (_, read): (u64, Hash) = with_buffer(|buffer| hash_file(&mut again, buffer)).map_err(failed("read"))?;
    // Somebody may still have the kept one open, and write to it.
    let untouched = unchanged(&file_signature(&source, &from.locate(name))?, &before);
    if read == written && untouched { Ok(()) } else { Err(changed()) }
}

fn changed() -> Stop {
    Failure::new("copy", "it changed while it was copied, or the copy does not read as it was written; try again").into()
}
