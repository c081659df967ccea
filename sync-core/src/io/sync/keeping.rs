//! What is kept of a run: how far the other root was seen, and where it stands. And what is kept no longer.

use super::opened::Opened;
use super::{Options, SyncError, marker};
use crate::entry::Kind;
use crate::io::apply::{self, PRUNE_OBJECTS};
use crate::io::fs::{FsError, coarse_now_ns};
use crate::io::speaker;
use crate::io::state::Peer;
use crate::io::state::State;
use crate::io::there::{Facts, There};
use crate::report::Monitor;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

/// Kept versions that are read at a time.
const PAGE: usize = 4_096;

/// A state that was moved aside stays for so long at least.
const ASIDE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How far the other root was seen, and where it stands. To be called before anything of it is incorporated: the note is
/// then durable no later than what it stands for here, and what it stands for there is durable before the note is made.
pub(super) fn note_seen(here: &Opened, there: &dyn There) -> Result<(), SyncError> {
    let facts = there.facts()?;
    let Facts { identity, passing, location, speaker, .. } = &facts;
    if here.passing || *passing {
        return Ok(());
    }
    let record = here.record(&facts)?;
    speaker::bind(&here.state, record, identity.replica, speaker)?;
    let known = here.state.peer(record)?;
    let mut peer = known.clone().unwrap_or_else(|| Peer { instance: identity.instance, ..Peer::default() });
    if identity.counter > peer.seen.0 {
        peer.seen = (identity.counter, identity.nonce);
        there.make_durable()?;
    }
    peer.location.clone_from(location);
    if known.as_ref() != Some(&peer) {
        here.state.put_peer(record, &peer)?;
    }
    Ok(())
}

/// What is kept beyond the run: where the other root was found, how far it was seen; old versions go.
pub(super) fn remember(opened: &Opened, there: &dyn There, options: &Options, monitor: &dyn Monitor) -> Result<(), SyncError> {
    note_seen(opened, there)?;
    tidy(opened, options, monitor)
}

/// Old versions go, and what else is of no use any more.
pub(super) fn tidy(opened: &Opened, options: &Options, monitor: &dyn Monitor) -> Result<(), SyncError> {
    if opened.passing {
        return Ok(());
    }
    // One that is gone is not written anew: what it stood for may be gone with it.
    marker::check(opened)?;
    opened.state.prune()?;
    if let Err(error) = remove_aside(opened, options) {
        monitor.notice(&format!("{error}"));
    }
    let retention = options.keep_versions.unwrap_or_default();
    let pruned = apply::prune(&opened.root, &opened.state, coarse_now_ns(), retention, PRUNE_OBJECTS)?;
    for path in &pruned.brought_back {
        monitor.notice(&format!(
            "{}: an older version of {path} was written to after it had been replaced: it stands beside it as a conflict copy",
            opened.root.path().display()
        ));
    }
    for problem in &pruned.problems {
        monitor.problem(problem);
    }
    marker::advance(opened)
}

/// States that were moved aside go when they are as old as kept versions may be, and a week at least.
fn remove_aside(opened: &Opened, options: &Options) -> Result<(), SyncError> {
    let keep = options.keep_versions.unwrap_or_default().max(ASIDE);
    let before = u64::try_from(coarse_now_ns() / 1_000_000_000).unwrap_or(0).saturating_sub(keep.as_secs());
    let dir = &opened.state_dir;
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| FsError { action, path, source }
    };
    for entry in std::fs::read_dir(dir).map_err(failed("list", dir))? {
        let entry = entry.map_err(failed("list", dir))?;
        if moved_aside_at(entry.file_name().as_bytes()).is_some_and(|seconds| seconds < before) {
            std::fs::remove_file(entry.path()).map_err(failed("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// When a file of a state was moved aside, seconds since 1970.
fn moved_aside_at(name: &[u8]) -> Option<u64> {
    let name = std::str::from_utf8(name).ok()?;
    let rest = name.strip_prefix("state.db.replaced-").or_else(|| name.strip_prefix("state.db.damaged-"))?;
    let number = rest.strip_suffix("-wal").or_else(|| rest.strip_suffix("-shm")).unwrap_or(rest);
    number.parse().ok()
}

/// How many versions are kept, and the bytes of their files.
pub(super) fn kept(state: &State) -> Result<(u64, u64), SyncError> {
    let (mut count, mut bytes, mut after) = (0_u64, 0_u64, (i64::MAX, i64::MAX));
    loop {
        let page = state.versions_since(i64::MIN, after, PAGE)?;
        for version in &page {
            count += 1;
            if version.kept.kind == Kind::File {
                bytes = bytes.saturating_add(version.kept.signature.size);
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = (last.kept.kept_at_ns, last.id),
            _ => return Ok((count, bytes)),
        }
    }
}
