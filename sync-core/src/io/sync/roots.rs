//! Opening a root for a run: marker, lock, identity, and what a crash left.
//!
//! A root that was synchronised before carries a marker; where it is missing, the disk is not mounted, or the state
//! was lost: both stop the run until the user says `rejoin`. A root is first looked at ([`Candidate`]), then both sides tell
//! each other what they know of each other ([`Introduction`]), and only then is anything made.

use super::live::nobody;
use super::marker::{self, Marker, Unmarked};
use super::meeting::{Overclaimed, check_lineage, forgotten, introduction, overclaimed, renew, rolled_back, same_identity};
use super::opened::Opened;
use super::patience::after_others;
use super::{Options, SyncError};
use crate::entry::AttrMask;
use crate::ignore::{self, Rules};
use crate::io::apply::{self, Inherited, LATE_AGE};
use crate::io::archive;
use crate::io::fs::{Dir, FsError, Root, coarse_now_ns, ctime_granularity};
use crate::io::kill::kill_point;
use crate::io::state::{Batch, NodeId, State, StateError};
use crate::io::there::There;
use crate::io::{places, scan};
use crate::knowledge::{ReplicaId, Vector};
use crate::path::{RESERVED, RelPath, escape};
use crate::report::Monitor;
use crate::store::Change;
use crate::wire::Introduction;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// Under this key a state remembers the ignore rules that its rows obey.
const RULES: &str = "sync.rules";

/// Below the folder of a state: where one is begun that is to take its place.
const BEGUN: &str = "state.new";

/// What becomes of a root that begins anew.
const BEGINS_ANEW: &str = " to start anew from the files: equal files merge, differing ones become conflicts, and what was deleted \
                           elsewhere meanwhile comes back";

/// Under this key a state remembers that it was begun in the place of a lost one, because a user said so.
const BEGUN_ANEW: &str = "sync.anew";

/// A root before its state is opened.
pub(super) struct Found {
    pub(super) root: Root,
    pub(super) state_dir: PathBuf,
    pub(super) marker: Option<Marker>,
    pub(super) has_state: bool,
}

/// A root that may be used as far as it can tell alone. Nothing was made or changed in it.
pub(super) struct Candidate {
    pub(super) found: Found,
    standing: Standing,
    pub(super) rules: Rules,
}

impl Found {
    /// Opens and locks the state, and looks at the marker again: another run may have ended since the first look, and its
    /// marker is newer. From here on nobody else writes one.
    pub(super) fn open_state(&mut self, mask: AttrMask) -> Result<State, SyncError> {
        let state = State::open(&self.state_dir, mask)?;
        self.marker = Marker::read(&self.root)?;
        Ok(state)
    }
}

/// Opens two roots of this machine.
pub(super) fn open(a: &Path, b: &Path, options: &Options, monitor: &dyn Monitor) -> Result<[(Opened, Rules); 2], SyncError> {
    let found = [find(a, options.state_dir.as_deref())?, find(b, options.state_dir.as_deref())?];
    refuse_nested(&found)?;
    for found in &found {
        check_marker(found, options.rejoin)?;
    }
    // Everything that may stop the run comes before anything is made, recovered or renamed on either side.
    let first = Candidate::of_run(a, options, monitor)?;
    let second = Candidate::of_run(b, options, monitor)?;
    if options.known {
        first.must_stand()?;
        second.must_stand()?;
    }
    let (of_first, of_second) = (first.introduce(&second.location())?, second.introduce(&first.location())?);
    first.check(&of_second, options)?;
    second.check(&of_first, options)?;
    let first = first.open(&of_second, options, monitor)?;
    let second = second.open(&of_first, options, monitor)?;
    if first.0.state.id() == second.0.state.id() {
        same_identity(&second.0, monitor)?;
    }
    first.0.follow(&second.0.facts()?)?;
    second.0.follow(&first.0.facts()?)?;
    Ok([first, second])
}

impl Candidate {
    /// Looks at a root and its state.
    pub(super) fn of(mut found: Found, options: &Options) -> Result<Candidate, SyncError> {
        check_marker(&found, options.rejoin)?;
        let state = existing(&mut found, options)?;
        check_unmarked(&found, state.as_ref())?;
        let standing = sorted_out(&found, state, options)?;
        let rules = rules(&found.root)?;
        Ok(Candidate { found, standing, rules })
    }

    /// The same for a run that begins: where another process has the state, it may be about to let go of it.
    pub(super) fn of_run(path: &Path, options: &Options, monitor: &dyn Monitor) -> Result<Candidate, SyncError> {
        after_others(monitor, || Candidate::of(find(path, options.state_dir.as_deref())?, options))
    }

    /// Where the root is, as another root on this machine remembers it.
    pub(super) fn location(&self) -> Vec<u8> {
        self.found.root.path().as_os_str().as_bytes().to_vec()
    }

    /// The root was used before: what has no marker and no state is the place of a disk that is not mounted.
    pub(super) fn must_stand(&self) -> Result<(), SyncError> {
        match self.standing {
            Standing::Kept(_) => Ok(()),
            _ => Err(forgotten(self.found.root.path())),
        }
    }

    /// Opens a root that stays open, where a user said that it begins anew: with a new state in the place of a lost one, or else under a
    /// new identity. Others may expect a root that was synchronised with them: it is told from a disk that is not mounted by what is
    /// remembered of that word.
    pub(super) fn open_anew(self, options: &Options, monitor: &dyn Monitor) -> Result<(Opened, Rules), SyncError> {
        let goes_on = matches!(self.standing, Standing::Kept(_));
        let (opened, rules) = self.open(&nobody(), options, monitor)?;
        if goes_on {
            renew(&opened, "it begins anew", monitor)?;
        }
        opened.state.put_meta(BEGUN_ANEW, b"1")?;
        Ok((opened, rules))
    }

    /// What the other side, which is at `other`, must know.
    pub(super) fn introduce(&self, other: &[u8]) -> Result<Introduction, SyncError> {
        let location = self.location();
        match &self.standing {
            Standing::Kept(state) => introduction(state, location, other),
            _ => Ok(Introduction { identity: None, knows: Vector::new(), remembers: Vec::new(), location, expects: false }),
        }
    }

    /// May the run go on, by what the other side knows of this one?
    pub(super) fn check(&self, there: &Introduction, options: &Options) -> Result<(), SyncError> {
        let here = self.found.root.path();
        if !options.rejoin && there.expects && matches!(self.standing, Standing::Missing) {
            return Err(forgotten(here));
        }
        match self.overclaimed(there)? {
            Some(claimed) if !options.rejoin || options.dry_run => Err(rolled_back(here, &there.location, &claimed)),
            _ => Ok(()),
        }
    }

    /// A root on another machine that bears this one's identity: it is a copy that was taken with its state, or it does not tell the
    /// truth. A machine that asks must not be able to make this root take another identity whenever it likes.
    pub(super) fn check_other(&self, there: &Introduction, options: &Options) -> Result<(), SyncError> {
        let Standing::Kept(ours) = &self.standing else { return Ok(()) };
        let same = there.identity.is_some_and(|identity| identity.replica == ours.id());
        if !same || ours.moved().is_some() || (options.rejoin && !options.dry_run) {
            return Ok(());
        }
        let here = self.found.root.path().display();
        let before = format!(
            "{} bears the identity of {here}: one of them is a copy of the other, taken together with its .driftless. Nothing was \
             changed. To go on, ",
            escape(&there.location)
        );
        let after = format!(": {here} takes a new identity, equal files merge, and differing ones become conflicts");
        Err(SyncError::anew(before, after))
    }

    /// As [`Candidate::introduce`], to another machine: a copy that is about to take a new identity does not speak for the old one.
    pub(super) fn introduce_to(&self, other: &[u8]) -> Result<Introduction, SyncError> {
        let introduction = self.introduce(other)?;
        let copied = matches!(&self.standing, Standing::Kept(state) if state.moved().is_some());
        Ok(Introduction { identity: introduction.identity.filter(|_| !copied), ..introduction })
    }

    /// Was the root never synchronised, as far as can be seen?
    pub(super) fn is_new(&self) -> bool {
        self.found.marker.is_none() && !self.found.has_state
    }

    /// Does the other root claim to know more of this one's events than there are? A state that was never copied and
    /// remembers what the other has seen of it takes no new identity by itself: one of the two states is wrong.
    fn overclaimed(&self, there: &Introduction) -> Result<Option<Overclaimed>, SyncError> {
        let Standing::Kept(ours) = &self.standing else { return Ok(None) };
        overclaimed(ours, there)
    }

    /// Opens the root for the run: from here on things are made and changed.
    pub(super) fn open(
        self,
        there: &Introduction,
        options: &Options,
        monitor: &dyn Monitor,
    ) -> Result<(Opened, Rules), SyncError> {
        let overclaimed = self.overclaimed(there)?.is_some();
        let Candidate { found, standing, rules } = self;
        let opened = finish(found, standing, options, monitor)?;
        if overclaimed {
            renew(&opened, "it was rolled back: the other root knows more of it than it does itself", monitor)?;
        } else {
            check_lineage(&opened, there, monitor)?;
        }
        obey(&opened, &rules)?;
        Ok((opened, rules))
    }
}

/// What becomes of the state of a root.
enum Standing {
    /// It goes on.
    Kept(Box<State>),
    /// It does not belong to the tree, and the user wants to begin anew: it is moved aside.
    Discarded(Box<State>),
    /// There is none.
    Missing,
}

/// Looks at a root; nothing is made, opened or locked.
pub(super) fn find(path: &Path, chosen: Option<&Path>) -> Result<Found, SyncError> {
    let wrong = |what: &str| SyncError::Root(format!("the root {} {what}", path.display()));
    let real = path.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => wrong("does not exist: create it, or mount its disk, first"),
        _ => wrong(&format!("cannot be opened: {error}")),
    })?;
    if !real.is_dir() {
        return Err(wrong("is not a directory"));
    }
    let root = Root::open(&real)?;
    if is_cold(&root)? {
        return Err(wrong(
            "is a cold root (it has .driftless/cold): what is archived there belongs to other folders, and is synchronised through \
             them. Synchronise the folder that uses it; if nothing was ever archived here, remove .driftless/cold",
        ));
    }
    let state_dir = state_dir(&root, chosen);
    let marker = Marker::read(&root)?;
    let has_state = State::exists(&state_dir);
    Ok(Found { root, state_dir, marker, has_state })
}

/// Does the marker of a cold root stand in it?
fn is_cold(root: &Root) -> Result<bool, FsError> {
    match root.dir(&RelPath::root())?.open_dir(RESERVED) {
        Ok(private) => Ok(private.stat(b"cold")?.is_some()),
        // Whoever needs it says what is wrong with it.
        Err(_) => Ok(false),
    }
}

/// `.driftless` in the root, or a folder of the root's own below the one that the user named.
fn state_dir(root: &Root, chosen: Option<&Path>) -> PathBuf {
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

/// A small file of text, if it is there; one beyond the limit is refused, since half of it could mean anything.
pub(super) fn read_text(dir: &Dir, name: &[u8], limit: u64) -> Result<Option<String>, SyncError> {
    if dir.stat(name)?.is_none() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let path = dir.locate(name);
    let read = dir.open_file(name)?.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|source| FsError { action: "read", path: path.clone(), source })?;
    if bytes.len() as u64 > limit {
        return Err(SyncError::Root(format!(
            "{} is larger than {limit} bytes, and a part of it could mean something else than the whole; nothing was \
             changed. Make it smaller, for example by rules with wildcards instead of single paths",
            escape(path.as_os_str().as_bytes())
        )));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// A marker without a state, or a state without its marker: the disk is another one, or something was lost.
pub(super) fn check_marker(found: &Found, rejoin: bool) -> Result<(), SyncError> {
    if rejoin {
        return Ok(());
    }
    let root = found.root.path().display();
    match (&found.marker, found.has_state) {
        (Some(_), false) => {
            let before = format!(
                "the root {root} was synchronised before, but its state is gone from {}; nothing was changed. \
                 If it is kept elsewhere, name that place as before (--state-dir). Otherwise ",
                found.state_dir.display()
            );
            let after = format!(
                "{BEGINS_ANEW}. A folder that is only archived, and synchronised with no other one, begins anew with driftless \
                 archive claim '{root}'"
            );
            Err(SyncError::anew(before, after))
        }
        _ => Ok(()),
    }
}

/// A state without its marker, unless a first run died before the marker was written: that state tells of nothing yet.
/// Where no marker could be written, the directory must be the one that it was.
pub(super) fn check_unmarked(found: &Found, state: Option<&State>) -> Result<(), SyncError> {
    match state {
        Some(state) if found.marker.is_none() && (state.seq() > 0 || !state.peers()?.is_empty()) => {
            let why = match marker::unmarked(&found.root, state)? {
                Unmarked::Same => return Ok(()),
                Unmarked::Missing => "has no marker, although its state exists",
                Unmarked::Other => {
                    "is another directory than it was (file system or inode), and has no marker since it could never be written"
                }
            };
            let before = format!(
                "the root {} {why}: is its disk mounted? Nothing was changed. If the folder is meant to be a new one, ",
                found.root.path().display()
            );
            Err(SyncError::anew(before, ""))
        }
        _ => Ok(()),
    }
}

fn existing(found: &mut Found, options: &Options) -> Result<Option<State>, SyncError> {
    let doubtful = options.rejoin && found.marker.is_none();
    if !found.has_state || (doubtful && options.state_dir.is_none()) {
        return Ok(None);
    }
    let state = found.open_state(options.mask)?;
    let goes_on = !doubtful || marker::unmarked(&found.root, &state)? == Unmarked::Same;
    Ok(goes_on.then_some(state))
}

/// Does the state belong to the tree that it was found with?
fn sorted_out(found: &Found, state: Option<State>, options: &Options) -> Result<Standing, SyncError> {
    let Some(state) = state else { return Ok(Standing::Missing) };
    let strange = match &found.marker {
        Some(marker) => marker.strange(&state)?,
        None => None,
    };
    match strange {
        None => Ok(Standing::Kept(Box::new(state))),
        Some(_) if options.rejoin && !options.dry_run => Ok(Standing::Discarded(Box::new(state))),
        Some(strange) => Err(not_of_this_tree(&found.root, &strange)),
    }
}

pub(super) fn not_of_this_tree(root: &Root, strange: &str) -> SyncError {
    let before = format!(
        "the root {} cannot be used as it is: {strange}. Nothing was changed. If one of them was brought back from a backup \
         or a snapshot, ",
        root.path().display()
    );
    SyncError::anew(before, BEGINS_ANEW)
}

fn finish(found: Found, state: Standing, options: &Options, monitor: &dyn Monitor) -> Result<Opened, SyncError> {
    let Found { root, state_dir, has_state, .. } = found;
    let passing = options.dry_run && matches!(state, Standing::Missing);
    let granularity_ns = ctime_granularity(&root)?;
    let state_elsewhere = options.state_dir.is_some();
    let state = match state {
        Standing::Kept(state) if options.dry_run || state.seq() > 0 => Begun { state: *state, unrecorded: 0 },
        // The run that began it may have died before it had taken the versions over.
        Standing::Kept(state) => Begun { unrecorded: apply::adopt(&root, &state, Inherited::default())?, state: *state },
        Standing::Missing if passing => Begun { state: State::in_memory(random_id()?, options.mask)?, unrecorded: 0 },
        Standing::Discarded(old) => {
            let versions = inherit(&root, *old, monitor);
            begin(&root, (&state_dir, has_state), options, versions)?
        }
        Standing::Missing => {
            let versions = match has_state.then(|| State::open(&state_dir, options.mask)) {
                Some(Ok(old)) => inherit(&root, old, monitor),
                // Another process has it: it is not to be moved away.
                Some(Err(locked @ StateError::Locked { .. })) => return Err(locked.into()),
                Some(Err(error)) => {
                    tell_unread(&root, &error, monitor);
                    Inherited::default()
                }
                None => Inherited::default(),
            };
            begin(&root, (&state_dir, has_state), options, versions)?
        }
    };
    let Begun { state, unrecorded } = state;
    if unrecorded > 0 {
        monitor.notice(&format!(
            "{}: {unrecorded} kept versions have no record of their paths any more; they are listed below recovered",
            root.path().display()
        ));
    }
    let opened = Opened {
        root,
        state_dir,
        state,
        granularity_ns,
        passing,
        looking: options.dry_run,
        state_elsewhere,
        stands_for: OnceLock::new(),
        work: Mutex::default(),
    };
    places::load(&opened.root, &opened.state)?;
    if passing {
        return Ok(opened);
    }
    let begins = options.rejoin && opened.state.seq() == 0;
    if !options.dry_run && (begins || scan::may_miss_links(&opened.state)?) {
        // A state that began anew may know nothing of what lies elsewhere, in a cold root that was not mounted then either.
        regain(&opened.root, &opened.state)?.iter().for_each(|notice| monitor.notice(notice));
    }
    if let Some(difference) = opened.state.moved() {
        let reason = format!("its state was copied or brought back ({difference})");
        renew(&opened, &reason, monitor)?;
    } else {
        marker::advance(&opened)?;
    }
    if !opened.looking {
        for error in places::own(&opened.root, &opened.state)? {
            monitor.notice(&format!(
                "{}: whose the folder in a cold root is cannot be written there: {error}",
                opened.root.path().display()
            ));
        }
    }
    recover(&opened, options, monitor)?;
    Ok(opened)
}

/// Archived days that are this root's, and of which its state knows nothing, are found by their links. Returns what a user should hear.
pub(super) fn regain(root: &Root, state: &State) -> Result<Vec<String>, SyncError> {
    let regained = archive::regain(root, state, archive::Whose::Own)?;
    scan::remember_missed_links(state, regained.unresolved > 0)?;
    Ok(regained.notices(root.path()))
}

/// A state that is ready to be used, and kept versions in it of which no record told.
struct Begun {
    state: State,
    unrecorded: usize,
}

/// Begins a new state in the place of an old one, if there is one. That one is complete before it takes the place: whatever a crash
/// leaves, one of the two tells what lies elsewhere and what is kept.
fn begin(root: &Root, (dir, has_state): (&Path, bool), options: &Options, versions: Inherited) -> Result<Begun, SyncError> {
    make_state_dir(root, dir, options)?;
    if !has_state {
        let state = State::open(dir, options.mask)?;
        return Ok(Begun { unrecorded: apply::adopt(root, &state, versions)?, state });
    }
    let begun = dir.join(BEGUN);
    clear(&begun)?;
    let made = std::fs::DirBuilder::new().mode(0o700).create(&begun);
    made.map_err(|source| FsError { action: "create", path: begun.clone(), source })?;
    let state = State::open(&begun, options.mask)?;
    let unrecorded = apply::adopt(root, &state, versions)?;
    state.close()?;
    kill_point("rejoin-begun");
    replace(dir, &begun)?;
    clear(&begun)?;
    Ok(Begun { unrecorded, state: State::open(dir, options.mask)? })
}

/// What an old state knows of kept versions. It is closed when the call returns.
fn inherit(root: &Root, old: State, monitor: &dyn Monitor) -> Inherited {
    apply::inherit(&old).unwrap_or_else(|error| {
        tell_unread(root, &error, monitor);
        Inherited::default()
    })
}

fn tell_unread(root: &Root, error: &StateError, monitor: &dyn Monitor) {
    let root = root.path().display();
    monitor.notice(&format!("{root}: the old state does not tell of kept versions ({error}): they are found by their names"));
}

fn recover(opened: &Opened, options: &Options, monitor: &dyn Monitor) -> Result<(), SyncError> {
    let recovered = apply::recover(&opened.root, &opened.state, options.mask)?;
    places::settle_linked(&opened.root, &opened.state)?;
    let mut notices = recovered.notices();
    if !options.dry_run {
        apply::check_renames(&opened.root)?;
        let since_ns = coarse_now_ns() - i64::try_from(LATE_AGE.as_nanos()).unwrap_or(i64::MAX);
        notices.extend(apply::check_late(&opened.root, &opened.state, since_ns)?.notices());
    }
    for text in notices {
        monitor.notice(&format!("{}: {text}", opened.root.path().display()));
    }
    Ok(())
}

fn make_state_dir(root: &Root, dir: &Path, options: &Options) -> Result<(), SyncError> {
    match root.private(&[]) {
        Err(error) if error.is_refusal() && options.state_dir.is_none() => {
            return Err(SyncError::Root(format!(
                "{error}; a root that is only to be read needs a folder for its state: --state-dir"
            )));
        }
        // It can be read all the same, and each change of it will say why it cannot be made.
        Err(error) if error.is_refusal() => {}
        made => drop(made?),
    }
    if options.state_dir.is_some() {
        std::fs::create_dir_all(dir).map_err(|source| FsError { action: "create", path: dir.into(), source })?;
    }
    Ok(())
}

/// Puts a state that was begun in a folder in the place of the old one, which stays beside it under another name.
fn replace(dir: &Path, begun: &Path) -> Result<(), SyncError> {
    let stamp = coarse_now_ns() / 1_000_000_000;
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| FsError { action, path, source }
    };
    // What is not in the file itself goes first: beside another file it would be taken for that one's. An old state that could be read
    // has none of it.
    for suffix in ["-wal", "-shm"] {
        let from = dir.join(format!("state.db{suffix}"));
        match std::fs::rename(&from, dir.join(format!("state.db.replaced-{stamp}{suffix}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("move aside", &from)(error).into()),
            _ => {}
        }
    }
    let (old, aside) = (dir.join("state.db"), dir.join(format!("state.db.replaced-{stamp}")));
    // A second name, so that there is never none. One of this second's is of a state that was replaced already.
    match std::fs::hard_link(&old, &aside) {
        Err(error) if !matches!(error.kind(), std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotFound) => {
            return Err(failed("keep the old state under another name:", &old)(error).into());
        }
        _ => {}
    }
    kill_point("rejoin-aside");
    let new = begun.join("state.db");
    std::fs::rename(&new, &old).map_err(failed("put in place", &new))?;
    let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(failed("flush", dir))?;
    kill_point("rejoin-replaced");
    Ok(())
}

/// Removes the folder of a state that was begun: what is in it is of a run that was interrupted, or not used any more.
fn clear(begun: &Path) -> Result<(), SyncError> {
    match std::fs::remove_dir_all(begun) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(FsError { action: "remove", path: begun.to_owned(), source }.into())
        }
        _ => Ok(()),
    }
}

/// Did a user say that it begins anew?
pub(super) fn was_begun_anew(state: &State) -> Result<bool, StateError> {
    Ok(state.meta(BEGUN_ANEW)?.is_some())
}

fn random_id() -> Result<ReplicaId, SyncError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| SyncError::Root(format!("no random numbers: {error}")))?;
    Ok(ReplicaId(bytes))
}

/// The ignore rules that stand in a root.
pub(super) fn rules(root: &Root) -> Result<Rules, SyncError> {
    let top = root.dir(&RelPath::root())?;
    let name = ignore::FILE.as_bytes();
    let regular = top.stat(name)?.is_some_and(|s| s.mode & 0o170_000 == 0o100_000);
    let text = if regular { read_text(&top, name, ignore::FILE_BYTES)? } else { None };
    let parsed = Rules::parse(text.as_deref().unwrap_or_default());
    parsed.map_err(|source| SyncError::RuleFile { path: top.locate(name), source })
}

/// Where the folder's rules changed, the rows of paths that are ignored now go: without an event, unknown.
pub(super) fn obey(opened: &Opened, rules: &Rules) -> Result<(), SyncError> {
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
