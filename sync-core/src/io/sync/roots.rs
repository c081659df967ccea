//! Opening two roots for a run: markers, locks, identities, what a crash left, and what is remembered at the end.
//!
//! A root that was synchronised before carries a marker; where it is missing, the disk is not mounted, or the state
//! was lost: both stop the run until the user says `rejoin`. Nothing is created in either root before both passed.

use super::{Options, SyncError};
use crate::ignore::{self, Rules};
use crate::io::apply::{self, LATE_AGE, PRUNE_OBJECTS};
use crate::io::fs::{Dir, FsError, Replace, Root, coarse_now_ns, ctime_granularity};
use crate::io::scan;
use crate::io::state::{Batch, NodeId, Peer, State};
use crate::knowledge::ReplicaId;
use crate::path::RelPath;
use crate::report::Monitor;
use crate::store::Change;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const MARKER: &[u8] = b"marker";
const NEW_MARKER: &[u8] = b"marker.new";
/// Longest marker and longest file of ignore rules that is read, in bytes.
const TEXT_BYTES: u64 = 1 << 20;
/// Under this key a state remembers the identity that it gave up last.
const FORMER: &str = "sync.former";
/// Under this key a state remembers the ignore rules that its rows obey.
const RULES: &str = "sync.rules";

/// One opened root.
pub(super) struct Opened {
    pub(super) root: Root,
    pub(super) state: State,
    /// Finest step of the root's change times, ns; 0 where every change has its own.
    pub(super) granularity_ns: i64,
    /// Nothing of this run is to stay in the root.
    pub(super) passing: bool,
    /// The state lies on another file system than the root.
    pub(super) state_elsewhere: bool,
}

/// Both roots and the ignore rules that stand in them.
pub(super) struct Pair {
    pub(super) sides: [Opened; 2],
    pub(super) rules: [Rules; 2],
}

/// A root before its state is opened.
struct Found {
    root: Root,
    state_dir: PathBuf,
    marker: Option<Marker>,
    has_state: bool,
}

/// What the marker file tells: whose tree this is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Marker {
    replica: String,
}

pub(super) fn open(a: &Path, b: &Path, options: &Options, monitor: &dyn Monitor) -> Result<Pair, SyncError> {
    let found = [find(a, options)?, find(b, options)?];
    refuse_nested(&found)?;
    for found in &found {
        check_marker(found, options)?;
    }
    let [first, second] = found;
    // States that exist are opened first: one may remember the other root.
    let mut states = [existing(&first, options)?, existing(&second, options)?];
    let paths = [first.root.path().to_path_buf(), second.root.path().to_path_buf()];
    for here in 0..2 {
        if let (None, Some(other), false) = (&states[here], &states[1 - here], options.rejoin) {
            refuse_forgotten(other, &paths[here])?;
        }
    }
    let [state_a, state_b] = [states[0].take(), states[1].take()];
    let sides = [finish(first, state_a, options, monitor)?, finish(second, state_b, options, monitor)?];
    for (here, there) in [(0, 1), (1, 0)] {
        check_lineage(&sides[here], &sides[there], monitor)?;
    }
    if sides[0].state.id() == sides[1].state.id() {
        renew(&sides[1], "both roots bore the same identity", monitor)?;
    }
    let rules = [rules(&sides[0])?, rules(&sides[1])?];
    for (opened, rules) in sides.iter().zip(&rules) {
        obey(opened, rules)?;
    }
    Ok(Pair { sides, rules })
}

fn find(path: &Path, options: &Options) -> Result<Found, SyncError> {
    let wrong = |what: &str| SyncError::Root(format!("the root {} {what}", path.display()));
    let real = path.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => wrong("does not exist: create it, or mount its disk, first"),
        _ => wrong(&format!("cannot be opened: {error}")),
    })?;
    if !real.is_dir() {
        return Err(wrong("is not a directory"));
    }
    let root = Root::open(&real)?;
    let state_dir = state_dir(&root, options.state_dir.as_deref());
    let marker = read_marker(&root)?;
    let has_state = State::exists(&state_dir);
    Ok(Found { root, state_dir, marker, has_state })
}

/// `.driftless` in the root, or a folder of the root's own below the one that the user named.
pub(super) fn state_dir(root: &Root, chosen: Option<&Path>) -> PathBuf {
    match chosen {
        None => root.path().join(".driftless"),
        Some(dir) => dir.join(&blake3::hash(root.path().as_os_str().as_bytes()).to_hex()[..16]),
    }
}

fn refuse_nested(found: &[Found; 2]) -> Result<(), SyncError> {
    let [a, b] = [found[0].root.path(), found[1].root.path()];
    let (ia, ib) = (found[0].root.signature()?, found[1].root.signature()?);
    if (ia.dev, ia.ino) == (ib.dev, ib.ino) {
        return Err(SyncError::Root(format!("{} and {} are the same folder", a.display(), b.display())));
    }
    if a.starts_with(b) || b.starts_with(a) {
        return Err(SyncError::Root(format!("one of {} and {} lies inside the other", a.display(), b.display())));
    }
    Ok(())
}

fn read_marker(root: &Root) -> Result<Option<Marker>, SyncError> {
    let top = root.dir(&RelPath::root())?;
    if top.stat(crate::path::RESERVED)?.is_none() {
        return Ok(None);
    }
    let private = top.open_dir(crate::path::RESERVED)?;
    let Some(text) = read_text(&private, MARKER)? else { return Ok(None) };
    let replica = text.lines().find_map(|line| line.strip_prefix("replica ")).unwrap_or_default().to_owned();
    Ok(Some(Marker { replica }))
}

fn read_text(dir: &Dir, name: &[u8]) -> Result<Option<String>, SyncError> {
    if dir.stat(name)?.is_none() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let path = dir.locate(name);
    dir.open_file(name)?.take(TEXT_BYTES).read_to_end(&mut bytes).map_err(|source| FsError { action: "read", path, source })?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// A marker without a state, or a state without its marker: the disk is another one, or something was lost.
fn check_marker(found: &Found, options: &Options) -> Result<(), SyncError> {
    if options.rejoin {
        return Ok(());
    }
    let root = found.root.path().display();
    match (&found.marker, found.has_state) {
        (Some(_), false) => Err(SyncError::Guard(format!(
            "the root {root} was synchronised before, but its state is gone from {}; nothing was changed. \
             Run again with --rejoin to start anew from the files: equal files merge, differing ones become conflicts, \
             and what was deleted elsewhere meanwhile comes back",
            found.state_dir.display()
        ))),
        (None, true) => Err(SyncError::Guard(format!(
            "the root {root} has no marker, although its state exists: is its disk mounted? Nothing was changed. \
             If the folder is meant to be a new one, run again with --rejoin"
        ))),
        _ => Ok(()),
    }
}

/// The other root's state remembers this very place as one that it was synchronised with.
fn refuse_forgotten(other: &State, path: &Path) -> Result<(), SyncError> {
    let here = path.as_os_str().as_bytes();
    if other.peers()?.iter().any(|(_, peer)| peer.location == here) {
        return Err(SyncError::Guard(format!(
            "the root {} was synchronised before, and now it has no marker: is its disk mounted? Nothing was changed. \
             If its state was lost, or the folder is meant to be a new one, run again with --rejoin",
            path.display()
        )));
    }
    Ok(())
}

fn existing(found: &Found, options: &Options) -> Result<Option<State>, SyncError> {
    if !found.has_state || (options.rejoin && found.marker.is_none()) {
        return Ok(None);
    }
    Ok(Some(State::open(&found.state_dir, options.mask)?))
}

fn finish(found: Found, state: Option<State>, options: &Options, monitor: &dyn Monitor) -> Result<Opened, SyncError> {
    let Found { root, state_dir, marker, has_state } = found;
    let passing = options.dry_run && state.is_none();
    let granularity_ns = ctime_granularity(&root)?;
    let state_elsewhere = options.state_dir.is_some();
    let foreign = match (&state, &marker) {
        (Some(state), Some(marker)) => !owns(state, marker)?,
        _ => false,
    };
    let state = match state {
        Some(state) if !foreign => state,
        Some(state) => {
            if !options.rejoin || options.dry_run {
                return Err(SyncError::Guard(format!(
                    "the marker of {} belongs to another state than the one found; nothing was changed there. \
                     If the tree or the state was brought back from a backup, run again with --rejoin",
                    root.path().display()
                )));
            }
            drop(state);
            set_aside(&state_dir)?;
            State::open(&state_dir, options.mask)?
        }
        None if passing => State::in_memory(random_id()?, options.mask)?,
        None => {
            make_state_dir(&root, &state_dir, options)?;
            if has_state {
                set_aside(&state_dir)?;
            }
            State::open(&state_dir, options.mask)?
        }
    };
    let opened = Opened { root, state, granularity_ns, passing, state_elsewhere };
    if passing {
        return Ok(opened);
    }
    if let Some(difference) = opened.state.moved() {
        let reason = format!("its state was copied or brought back ({difference})");
        renew(&opened, &reason, monitor)?;
    } else if marker.as_ref().is_none_or(|marker| marker.replica != opened.state.id().to_string()) {
        write_marker(&opened)?;
    }
    let recovered = apply::recover(&opened.root, &opened.state, options.mask)?;
    let mut notices = recovered.notices();
    if !options.dry_run {
        apply::check_renames(&opened.root)?;
        let since_ns = coarse_now_ns() - i64::try_from(LATE_AGE.as_nanos()).unwrap_or(i64::MAX);
        notices.extend(apply::check_late(&opened.root, &opened.state, since_ns)?.notices());
    }
    for text in notices {
        monitor.notice(&format!("{}: {text}", opened.root.path().display()));
    }
    Ok(opened)
}

fn make_state_dir(root: &Root, dir: &Path, options: &Options) -> Result<(), SyncError> {
    root.private(&[])?;
    if options.state_dir.is_some() {
        std::fs::create_dir_all(dir).map_err(|source| FsError { action: "create", path: dir.into(), source })?;
    }
    Ok(())
}

/// A state that is not to be used any more stays beside the new one.
fn set_aside(dir: &Path) -> Result<(), SyncError> {
    let stamp = coarse_now_ns() / 1_000_000_000;
    for suffix in ["", "-wal", "-shm"] {
        let from = dir.join(format!("state.db{suffix}"));
        let to = dir.join(format!("state.db.replaced-{stamp}{suffix}"));
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(FsError { action: "move aside", path: from, source }.into()),
        }
    }
    Ok(())
}

fn random_id() -> Result<ReplicaId, SyncError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| SyncError::Root(format!("no random numbers: {error}")))?;
    Ok(ReplicaId(bytes))
}

/// Does the marker name this state's replica, or the one that it was when it died on the way to a new identity?
fn owns(state: &State, marker: &Marker) -> Result<bool, SyncError> {
    let former = state.meta(FORMER)?.unwrap_or_default();
    Ok(marker.replica == state.id().to_string() || marker.replica.as_bytes() == former)
}

fn renew(opened: &Opened, reason: &str, monitor: &dyn Monitor) -> Result<(), SyncError> {
    opened.state.put_meta(FORMER, opened.state.id().to_string().as_bytes())?;
    opened.state.renew_identity()?;
    opened.state.record_place()?;
    if !opened.passing {
        write_marker(opened)?;
    }
    monitor.notice(&format!("{}: takes a new identity, because {reason}", opened.root.path().display()));
    Ok(())
}

fn write_marker(opened: &Opened) -> Result<(), SyncError> {
    let private = opened.root.private(&[])?;
    if private.stat(NEW_MARKER)?.is_some() {
        private.unlink(NEW_MARKER)?;
    }
    let mut file = private.create_file(NEW_MARKER)?;
    let text = format!(
        "This folder is a root of driftless. Without this file it is taken for an unmounted disk.\nreplica {}\n",
        opened.state.id()
    );
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|source| FsError {
        action: "write",
        path: private.locate(NEW_MARKER),
        source,
    })?;
    private.rename(NEW_MARKER, &private, MARKER, Replace::Always)?;
    private.sync()?;
    Ok(())
}

/// A replica that another remembers further ahead was rolled back: re-used counters would look already known.
fn check_lineage(here: &Opened, there: &Opened, monitor: &dyn Monitor) -> Result<(), SyncError> {
    let Some(peer) = there.state.peer(here.state.id())? else { return Ok(()) };
    if !here.state.remembers(peer.seen)? {
        renew(here, "it was rolled back: others know more of it than it does itself", monitor)?;
    }
    Ok(())
}

/// The ignore rules that stand in a root.
fn rules(opened: &Opened) -> Result<Rules, SyncError> {
    let top = opened.root.dir(&RelPath::root())?;
    let regular = top.stat(ignore::FILE.as_bytes())?.is_some_and(|s| s.mode & 0o170_000 == 0o100_000);
    let text = if regular { read_text(&top, ignore::FILE.as_bytes())? } else { None };
    Ok(Rules::parse(text.as_deref().unwrap_or_default())?)
}

/// Where the folder's rules changed, the rows of paths that are ignored now go: without an event, unknown.
fn obey(opened: &Opened, rules: &Rules) -> Result<(), SyncError> {
    let obeyed = opened.state.meta(RULES)?.unwrap_or_default();
    if obeyed == rules.text().as_bytes() {
        return Ok(());
    }
    if !rules.is_empty() {
        let mut forgotten = Vec::new();
        find_ignored(opened, rules, (&RelPath::root(), NodeId::ROOT), &mut forgotten)?;
        let changes = forgotten.into_iter().map(|path| Change::Forget { path }).collect();
        opened.state.commit(Batch { changes, ..Batch::default() }, true)?;
    }
    opened.state.put_meta(RULES, rules.text().as_bytes())?;
    Ok(())
}

fn find_ignored(
    opened: &Opened,
    rules: &Rules,
    (dir, node): (&RelPath, NodeId),
    found: &mut Vec<RelPath>,
) -> Result<(), SyncError> {
    for known in opened.state.known(node)? {
        let path = dir.join(&known.name);
        if rules.ignores(&path, known.node.is_some()) {
            found.push(path);
        } else if let Some(node) = known.node {
            find_ignored(opened, rules, (&path, node), found)?;
        }
    }
    Ok(())
}

/// What is kept beyond the run: where the other root was found, how far it was seen; old versions go.
pub(super) fn remember(pair: &Pair, options: &Options, monitor: &dyn Monitor) -> Result<(), SyncError> {
    for (here, there) in [(0, 1), (1, 0)] {
        let (here, there) = (&pair.sides[here], &pair.sides[there]);
        if here.passing || there.passing {
            continue;
        }
        let id = there.state.id();
        let known = here.state.peer(id)?;
        let mut peer = known.clone().unwrap_or_else(|| Peer { instance: there.state.instance(), ..Peer::default() });
        if there.state.counter() > peer.seen.0 {
            peer.seen = (there.state.counter(), there.state.nonce()?);
        }
        peer.location = there.root.path().as_os_str().as_bytes().to_vec();
        if known.as_ref() != Some(&peer) {
            here.state.put_peer(id, &peer)?;
        }
    }
    for opened in pair.sides.iter().filter(|opened| !opened.passing) {
        opened.state.prune()?;
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
    }
    Ok(())
}

impl Opened {
    /// Reads and hashes files whose bytes decide something.
    pub(super) fn rehash(&self, paths: &[RelPath], monitor: &dyn Monitor) -> Result<Vec<crate::report::Problem>, SyncError> {
        Ok(scan::rehash(&self.root, &self.state, paths, self.granularity_ns, monitor)?)
    }
}
