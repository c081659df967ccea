//! Serves roots of this machine to others: a run that another machine asks for, in which this side is an end.

use super::answering::answer_all;
use super::carried::Carried;
use super::end::LocalEnd;
use super::going::{Going, opened_anew};
use super::grant::{Grant, Grants, WhileGranted};
use super::live::Live;
use super::marker;
use super::meeting;
use super::member::{Ear, Member};
use super::opened::Opened;
use super::patience::patiently;
use super::roots::{self, Candidate};
use super::serving::{Asked, Serving};
use super::teller::while_told;
use super::wishes::{GLANCE, HELLO, conclude, greet, next, or_taken_back};
use super::{MaxDelete, Options, Policy, Side, SyncError};
use crate::entry::AttrMask;
use crate::ignore::Rules;
use crate::io::channel::{Channel, ChannelError};
use crate::io::fs::Root;
use crate::io::link::{CloseCode, Connection, LinkError, WAIT};
use crate::io::mutex::lock;
use crate::io::remote::{Gate, identity};
use crate::io::speaker::Speaker;
use crate::knowledge::Vector;
use crate::path::RelPath;
use crate::peer::{Id, Mode, Name};
use crate::report::{Monitor, Silent};
use crate::reserve::Reserve;
use crate::wire::{self, Introduction, Message, Open, Refusal};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long it may take from the greeting to the folder that is wanted.
const ASK: Duration = Duration::from_secs(30);
/// How long a run waits for others that have the folder.
const TURN: Duration = Duration::from_secs(10 * 60);
/// Introductions that one connection may ask for.
const INTRODUCTIONS: usize = 4;
/// How long a change must be quiet at the most, whatever is asked for.
const LONGEST_QUIET: Duration = Duration::from_secs(60);

/// A folder that is served.
#[derive(Clone)]
pub struct Export {
    /// Its name for others.
    pub name: Name,
    /// Its root.
    pub path: PathBuf,
    /// The root itself, where it stays open: others may join it, and runs share it.
    pub live: Option<Kept>,
}

/// Gives the root of a folder that stays open; `None` while it cannot be used.
pub type Kept = Arc<dyn Fn() -> Option<Arc<Live>> + Send + Sync>;

/// What is to hear of a machine that joins a folder; `None` where it may not.
pub type Ears<'a> = dyn Fn(&Name) -> Option<Ear> + 'a;

/// What became of a connection.
#[derive(Debug)]
pub enum Served {
    /// Its run is over.
    Run,
    /// It joined a folder, and stays.
    Joined(Box<Member>),
    /// It only looked whether somebody answers.
    Probed,
}

/// What this side decides alone, whoever asks.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Where the states are kept instead of `.driftless` in each root.
    pub state_dir: Option<PathBuf>,
    /// How long replaced and deleted versions are kept; `None`: not at all.
    pub keep_versions: Option<Duration>,
}

/// Serves folders to other machines.
pub struct Host {
    exports: Vec<Export>,
    options: HostOptions,
    /// Roots in which a run is under way. One at a time: others wait for their turn.
    busy: Mutex<BTreeMap<PathBuf, Holder>>,
    free: Condvar,
    /// Roots that runs keep open.
    shared: Mutex<BTreeMap<PathBuf, Weak<Live>>>,
}

/// Whose run has a root.
#[derive(Debug, Clone)]
struct Holder {
    peer: Id,
    /// The root there.
    location: Vec<u8>,
    /// Is that root the asker's own, so that no two runs have it at a time?
    owns_root: bool,
    connection: Weak<Connection>,
}

/// A root that is this run's alone in this process.
struct Turn<'a> {
    host: &'a Host,
    path: PathBuf,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.host.busy).remove(&self.path);
        self.host.free.notify_all();
    }
}

/// A root that was opened for a run.
struct Begun<'a> {
    turn: Turn<'a>,
    introduction: Introduction,
    opened: Arc<Opened>,
    rules: Rules,
    sent_rules: String,
    /// The same for other runs, which share it as long as this one goes on.
    live: Option<Arc<Live>>,
}

fn not_granted(name: &Name, advice: &str) -> SyncError {
    let text = format!("the folder {name} is not granted to this machine: {advice}");
    SyncError::Refuse { code: Refusal::NotGranted, text }
}

/// What lets a machine run with a folder.
fn granting(name: &Name) -> String {
    format!("grant it with `driftless peer add … --grant {name}=MODE`")
}

/// What lets a machine join a folder.
fn named(name: &Name) -> String {
    format!("name it in folders.{name}.peers of the agent's configuration there, and `driftless agent reload`")
}

/// Did the other side end it, having found out that somebody answers?
fn was_probe(connection: &Connection) -> bool {
    matches!(connection.wait_closed(Duration::ZERO), Ok(Some(CloseCode::Probe)))
}

impl Export {
    /// The root, if it stays open.
    fn kept(&self) -> Result<Option<Arc<Live>>, SyncError> {
        let Some(kept) = &self.live else { return Ok(None) };
        let gone = || SyncError::Root(format!("the folder {} cannot be used there at present: its agent says why", self.name));
        kept().map(Some).ok_or_else(gone)
    }
}

impl Host {
    /// Serves these folders. Nothing is opened, made or locked before a run asks for it.
    #[must_use]
    pub fn new(exports: Vec<Export>, options: HostOptions) -> Host {
        Host { exports, options, busy: Mutex::default(), free: Condvar::new(), shared: Mutex::default() }
    }

    /// Serves one connection until its run is over. `grants` says what the other machine may do with a folder; it is asked again
    /// while the run is under way, which ends when the answer is another one.
    ///
    /// # Errors
    /// The other side was refused, broke the rules or vanished; or something failed here. It was told, where it could be.
    pub fn serve(&self, connection: Connection, grants: &Grants<'_>, monitor: &dyn Monitor) -> Result<(), SyncError> {
        self.serve_or_join(connection, grants, &|_| None, monitor).map(drop)
    }

    /// As [`Host::serve`]; whoever asks to join a folder that stays open is let in, and `ear` gives what is to hear of it.
    ///
    /// # Errors
    /// As [`Host::serve`].
    pub fn serve_or_join(
        &self,
        connection: Connection,
        grants: &Grants<'_>,
        ear: &Ears<'_>,
        monitor: &dyn Monitor,
    ) -> Result<Served, SyncError> {
        let connection = Arc::new(connection);
        let peer = connection.peer_id().to_string();
        let failed = |error: ChannelError| SyncError::of_remote(&peer, error);
        let stream = match connection.accept(HELLO) {
            Err(LinkError::Ended(_)) if was_probe(&connection) => return Ok(Served::Probed),
            came => came.map_err(|error| failed(error.into()))?,
        };
        let mut control = Channel::for_hello(stream);
        let served = self.converse(&connection, &mut control, (grants, ear), monitor);
        if let Ok(joined @ Served::Joined(_)) = served {
            // All is said on this stream; given up, the answer could be lost with it.
            control.finish().map_err(failed)?;
            return Ok(joined);
        }
        conclude(&connection, &mut control, &served);
        served
    }

    fn converse(
        &self,
        connection: &Arc<Connection>,
        control: &mut Channel,
        (grants, ear): (&Grants<'_>, &Ears<'_>),
        monitor: &dyn Monitor,
    ) -> Result<Served, SyncError> {
        let peer = connection.peer_id().to_string();
        control.set_wait(HELLO);
        greet(control).map_err(|error| SyncError::of_remote(&peer, error))?;
        control.set_wait(WAIT);
        let mut introductions = 0;
        let open = loop {
            match next(control, &peer, (ASK, &|| Duration::MAX), monitor)? {
                None => return Ok(Served::Run),
                Some(Message::Open(open)) => break open,
                Some(Message::Join(join)) => return self.joined((connection, control), join, (grants, ear), monitor),
                Some(Message::Introduce(asked)) if introductions < INTRODUCTIONS => {
                    introductions += 1;
                    let answer = self.introduced(asked, &peer, grants)?;
                    let sent = control.send(&Message::Introduced(answer)).and_then(|()| control.flush());
                    sent.map_err(|error| SyncError::of_remote(&peer, error))?;
                }
                Some(other) => return Err(SyncError::of_remote(&peer, ChannelError::unexpected(other, "a folder"))),
            }
        };
        let (export, mode) = self.granted(&open.folder, grants, &granting)?;
        let (path, seen) = resolve(export, &open.sub)?;
        let place = (export, open.sub.clone());
        // A part of a folder is a root of its own.
        let kept = export.kept()?.filter(|live| live.root().path() == path);
        let live = kept.clone();
        let mut asked = self.asked(open, &peer, mode)?;
        if let Some(live) = &live {
            asked.options.keep_versions = live.keep_versions();
            asked.options.reserve = live.options.reserve;
            asked.run_rules = live.with_own_rules(&asked.run_rules)?;
        }
        connection.limit(asked.options.transfer.limit);
        let grant = Grant::new(grants, place.0.name.clone(), mode);
        let monitor: &dyn Monitor = &WhileGranted { own: monitor, grant: &grant, stands: &|| true };
        let holder = Holder {
            peer: connection.peer_id(),
            location: asked.introduction.location.clone(),
            owns_root: introductions == 0,
            connection: Arc::downgrade(connection),
        };
        let (begun, told) = while_told(control, monitor, false, |monitor| {
            let begun = self.begin((&path, seen, live.as_ref()), &place, &holder, &asked, monitor)?;
            // Before anything is looked at.
            let going = asked.options.watched.map(|quiet| {
                let owner = export.live.clone().zip(kept);
                Going::begin(&begun.opened, (&asked, &begun.rules), quiet, owner)
            });
            Ok((begun, going))
        });
        let early = told.map_err(|error| SyncError::of_remote(&peer, error))?;
        let (begun, going) = or_taken_back(begun, &grant)?;
        let Begun { turn, introduction, opened, rules, sent_rules, live } = begun;
        let answer = wire::Opened {
            mode,
            introduction,
            root: path.display().to_string(),
            rules: sent_rules,
            sets_owner: asked.options.mask.owner,
            passing: opened.passing,
        };
        let sent = control.send(&Message::Opened(answer)).and_then(|()| control.flush());
        sent.map_err(|error| SyncError::of_remote(&peer, error))?;
        let may_read = || {
            grant.check().map_err(|error| error.to_string())?;
            if mode == Mode::ReceiveOnly { Err("this machine may not read the folder".into()) } else { Ok(()) }
        };
        let gate = Gate::new(&may_read);
        let speaker = Speaker::Machine(connection.peer_id());
        // A run that goes on takes turns step by step, as the owner of a root that stays open does.
        let _turn = asked.options.watched.is_none().then_some(turn);
        let stands = || going.as_ref().is_none_or(Going::stands);
        let monitor: &dyn Monitor = &WhileGranted { own: monitor, grant: &grant, stands: &stands };
        std::thread::scope(|scope| {
            let answering = scope.spawn(|| answer_all(connection, &opened, &speaker, Some(&gate), None));
            let telling = going.as_ref().map(|going| scope.spawn(|| going.tell(connection)));
            let end = LocalEnd::new(opened.clone(), rules.clone(), Side::B);
            let (rules, unavailable) = ([asked.rules.clone(), rules], [Vec::new(), Vec::new()]);
            let serving = Serving {
                connection,
                control,
                peer: &peer,
                opened: &opened,
                asked: &asked,
                grant: &grant,
                gate: &gate,
                relayed: introductions > 0,
                rules,
                unavailable,
                end,
                there: None,
                early,
                tidied: false,
                going: going.as_ref(),
                carried: Carried::default(),
            };
            let ended = or_taken_back(serving.run(monitor), &grant);
            let ended = if stands() { ended } else { Err(opened_anew(&place.0.name)) };
            // While the connection stands there may be more questions.
            conclude(connection, control, &ended);
            going.iter().for_each(Going::end);
            telling.into_iter().for_each(|telling| telling.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            drop(live);
            // A panic while answering is a defect: it goes on in this thread.
            answering.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended.map(|()| Served::Run)
        })
    }

    /// Lets another machine join a folder that stays open.
    fn joined(
        &self,
        (connection, control): (&Arc<Connection>, &mut Channel),
        join: wire::Join,
        (grants, ear): (&Grants<'_>, &Ears<'_>),
        monitor: &dyn Monitor,
    ) -> Result<Served, SyncError> {
        let (export, mode) = self.granted(&join.folder, grants, &named)?;
        let closed = || {
            let text = format!("the folder {} does not stay open here: an agent can be joined, and a server cannot", export.name);
            SyncError::Refuse { code: Refusal::Folder, text }
        };
        let live = export.kept()?.ok_or_else(closed)?;
        // What the known peers are granted is for runs alone.
        let ear = ear(&export.name).ok_or_else(|| not_granted(&export.name, &named(&export.name)))?;
        Member::accept(&live, (connection.clone(), control), join, mode, ear, monitor)
            .map(|member| Served::Joined(Box::new(member)))
    }

    /// Waits for the root, and opens it.
    fn begin(
        &self,
        (path, seen, live): (&Path, (u64, u64), Option<&Arc<Live>>),
        (export, sub): &(&Export, RelPath),
        holder: &Holder,
        asked: &Asked,
        monitor: &dyn Monitor,
    ) -> Result<Begun<'_>, SyncError> {
        let turn = self.turn(path, holder, monitor)?;
        if let Some(live) = live {
            return begin_shared(turn, live.clone(), asked, monitor);
        }
        if let Some(live) = self.shared(path) {
            live.renew_rules(monitor)?;
            return begin_shared(turn, live, asked, monitor);
        }
        let candidate = patiently(monitor, || self.candidate(path, seen, &asked.options))?;
        let mut introduction = candidate.introduce(&asked.introduction.location)?;
        candidate.check(&asked.introduction, &asked.options)?;
        candidate.check_other(&asked.introduction, &asked.options)?;
        if candidate.is_new() && !asked.options.dry_run {
            may_begin(export, sub, asked.mode)?;
        }
        let (opened, rules) = candidate.open(&asked.introduction, &asked.options, monitor)?;
        if asked.introduction.identity.is_some_and(|other| other.replica == opened.state.id()) {
            meeting::same_identity(&opened, monitor)?;
        }
        let sent_rules = sendable(&rules, path)?;
        opened.state.settle()?;
        introduction.identity = Some(identity(&opened.state)?);
        introduction.location = Vec::new();
        let opened = Arc::new(opened);
        let live = match asked.options.watched {
            Some(_) => Some(self.share(path, &export.name, (&opened, &rules))?),
            None => None,
        };
        Ok(Begun { turn, introduction, opened, rules, sent_rules, live })
    }

    /// Others may share a root that a run keeps open.
    fn share(&self, path: &Path, name: &Name, (opened, rules): (&Arc<Opened>, &Rules)) -> Result<Arc<Live>, SyncError> {
        let HostOptions { state_dir, keep_versions } = self.options.clone();
        let options = Options { state_dir, keep_versions, ..Options::standard() };
        let live = Arc::new(Live::of(name.clone(), (opened.clone(), rules.clone()), (options, Rules::parse("")?)));
        let mut shared = lock(&self.shared);
        shared.retain(|_, live| live.strong_count() > 0);
        shared.insert(path.to_path_buf(), Arc::downgrade(&live));
        Ok(live)
    }

    /// A root that a run keeps open.
    fn shared(&self, path: &Path) -> Option<Arc<Live>> {
        lock(&self.shared).get(path)?.upgrade()
    }

    /// Who a folder's replica is. Nothing stays open or locked.
    fn introduced(&self, asked: wire::Introduce, peer: &str, grants: &Grants<'_>) -> Result<wire::Introduced, SyncError> {
        let (export, mode) = self.granted(&asked.folder, grants, &granting)?;
        may_rejoin(asked.rejoin, mode)?;
        let (path, seen) = resolve(export, &asked.sub)?;
        let options = Options { rejoin: asked.rejoin, state_dir: self.options.state_dir.clone(), ..Options::standard() };
        let candidate = patiently(&Silent, || self.candidate(&path, seen, &options))?;
        let location = located(peer, &asked.location);
        let introduction = Introduction { location: Vec::new(), ..candidate.introduce_to(&location)? };
        let sets_owner = AttrMask::standard(rustix::process::geteuid().is_root()).owner;
        Ok(wire::Introduced { introduction, rules: sendable(&candidate.rules, &path)?, sets_owner })
    }

    fn candidate(&self, path: &Path, seen: (u64, u64), options: &Options) -> Result<Candidate, SyncError> {
        let found = roots::find(path, self.options.state_dir.as_deref())?;
        let now = found.root.signature()?;
        if (now.dev, now.ino) != seen {
            return Err(SyncError::Root(format!("{} is another folder than it was a moment ago", path.display())));
        }
        Candidate::of(found, options)
    }

    /// `advice` says what the user of this machine can do.
    fn granted(&self, folder: &str, grants: &Grants<'_>, advice: &dyn Fn(&Name) -> String) -> Result<(&Export, Mode), SyncError> {
        let refused = |code, text: String| SyncError::Refuse { code, text };
        let name: Name = folder.parse().map_err(|error: crate::peer::PeerError| refused(Refusal::Folder, error.to_string()))?;
        let mode = grants(&name).ok_or_else(|| not_granted(&name, &advice(&name)))?;
        let export = self.exports.iter().find(|export| export.name == name);
        let export = export.ok_or_else(|| refused(Refusal::Folder, format!("no folder {name} is served here")))?;
        Ok((export, mode))
    }

    fn asked(&self, open: Open, peer: &str, mode: Mode) -> Result<Asked, SyncError> {
        let side = |side: wire::Side| if side == wire::Side::Asker { Side::A } else { Side::B };
        let rules = |text: &str| {
            let parsed = Rules::parse(text);
            parsed.map_err(|error| SyncError::Refuse { code: Refusal::Request, text: error.to_string() })
        };
        let own = AttrMask::standard(rustix::process::geteuid().is_root());
        let mask = AttrMask {
            perms: own.perms && open.mask.perms,
            owner: own.owner && open.mask.owner,
            times: own.times && open.mask.times,
        };
        let options = Options {
            conflicts: match open.policy {
                wire::Policy::Skip => Policy::Skip,
                wire::Policy::KeepBoth => Policy::KeepBoth,
                wire::Policy::Newer => Policy::Newer,
                wire::Policy::Older => Policy::Older,
                wire::Policy::Asker => Policy::Wins(Side::A),
                wire::Policy::Asked => Policy::Wins(Side::B),
            },
            force: open.force.map(side),
            paths: open.scope,
            ignore: Vec::new(),
            max_delete: match (mode, open.max_delete) {
                (Mode::NoDelete, _) => Some(MaxDelete::Count(0)),
                (_, wire::MaxDelete::Off) => None,
                (_, wire::MaxDelete::Count(count)) => Some(MaxDelete::Count(count)),
                (_, wire::MaxDelete::Percent(percent)) => Some(MaxDelete::Percent(percent)),
            },
            checksum: open.checksum,
            keep_versions: self.options.keep_versions,
            reserve: Reserve::NONE,
            mask: own,
            rejoin: open.rejoin,
            state_dir: self.options.state_dir.clone(),
            dry_run: open.dry_run,
            transfer: open.transfer,
            known: false,
            // Nobody stays for what only looks.
            watched: open.watched.filter(|_| !open.dry_run).map(|ms| Duration::from_millis(ms).min(LONGEST_QUIET)),
        };
        may_rejoin(open.rejoin, mode)?;
        if !(open.mask.perms && open.mask.times) {
            let text = "permissions and times are compared in every run: bring both sides to the same release".into();
            return Err(SyncError::Refuse { code: Refusal::Request, text });
        }
        let mut introduction = open.introduction;
        if mode == Mode::SendOnly {
            // What it says of this replica changes nothing here, its identity least of all.
            let location = introduction.location;
            introduction = Introduction { identity: None, knows: Vector::new(), remembers: Vec::new(), location, expects: false };
        }
        introduction.location = located(peer, &introduction.location);
        Ok(Asked { options, mask, rules: rules(&open.rules)?, run_rules: rules(&open.run_rules)?, mode, introduction })
    }

    /// Waits until nobody else works on the root.
    fn turn(&self, path: &Path, holder: &Holder, monitor: &dyn Monitor) -> Result<Turn<'_>, SyncError> {
        let mut busy = lock(&self.busy);
        let until = Instant::now() + TURN;
        if overlapping(&busy, path).is_some() {
            monitor.notice("another run has the folder: this one waits for its turn");
        }
        while let Some(other) = overlapping(&busy, path) {
            if monitor.cancelled() {
                return Err(SyncError::Cancelled);
            }
            if Instant::now() >= until {
                let text = format!("another run has had the folder for {} minutes: try again later", TURN.as_secs() / 60);
                return Err(SyncError::Refuse { code: Refusal::Busy, text });
            }
            // The same root of the same machine is used by one run at a time: the other one has died there.
            if holder.owns_root
                && (other.peer, &other.location) == (holder.peer, &holder.location)
                && let Some(dead) = other.connection.upgrade()
            {
                dead.close(CloseCode::Failed);
            }
            busy = self.free.wait_timeout(busy, GLANCE).unwrap_or_else(PoisonError::into_inner).0;
        }
        busy.insert(path.to_path_buf(), holder.clone());
        Ok(Turn { host: self, path: path.to_path_buf() })
    }
}

/// Who works in the folder, or in one around or below it: a run there could move what this one is changing.
fn overlapping<'a>(busy: &'a BTreeMap<PathBuf, Holder>, path: &Path) -> Option<&'a Holder> {
    busy.iter().find(|(other, _)| other.starts_with(path) || path.starts_with(other)).map(|(_, holder)| holder)
}

/// May a folder below an export become a root? What is granted is the folder that is served. A root within a root has rows, kept
/// versions and a marker of its own in a tree that others synchronise as a whole: that is for whoever serves it to decide.
fn may_begin(export: &Export, sub: &RelPath, mode: Mode) -> Result<(), SyncError> {
    if sub.is_root() {
        return Ok(());
    }
    let name = &export.name;
    let way = format!(
        "synchronise {name} as a whole, --path {sub} of it if less is wanted, or have {sub} served there under a name of its own"
    );
    let refused = |code, why: String| Err(SyncError::Refuse { code, text: format!("{why}: {way}") });
    if mode == Mode::SendOnly {
        let why = format!("{sub} in {name} was never synchronised, and this machine may only read there (send-only)");
        return refused(Refusal::NotGranted, why);
    }
    let real = export.path.canonicalize().map_err(|error| {
        SyncError::Root(format!("the root {} cannot be opened: {error}; is its disk mounted?", export.path.display()))
    })?;
    let root = Root::open(&real)?;
    let mut above = sub.parent();
    while let Some(dir) = above {
        if marker::is_in(&root.dir(&dir)?)? {
            let around = if dir.is_root() { name.to_string() } else { format!("{dir} in {name}") };
            return refused(Refusal::Folder, format!("{sub} lies in {around}, which is a root already"));
        }
        above = dir.parent();
    }
    Ok(())
}

/// A run in a root that stays open: it is opened, and its rules are known. Looking and changing take turns with its owner.
fn begin_shared<'a>(turn: Turn<'a>, live: Arc<Live>, asked: &Asked, monitor: &dyn Monitor) -> Result<Begun<'a>, SyncError> {
    if asked.options.rejoin {
        let text =
            "the folder stays open there, and begins anew only while its agent is stopped, and while nobody watches it".into();
        return Err(SyncError::Refuse { code: Refusal::Busy, text });
    }
    live.meet(&asked.introduction, monitor)?;
    let opened = live.opened().clone();
    let introduction = Introduction { location: Vec::new(), ..live.introduce(&asked.introduction.location)? };
    let rules = live.rules();
    let sent_rules = sendable(&rules, live.root().path())?;
    Ok(Begun { turn, introduction, opened, rules, sent_rules, live: Some(live) })
}

/// To begin anew is the decision of whoever may change the folder in every way.
fn may_rejoin(rejoin: bool, mode: Mode) -> Result<(), SyncError> {
    if !rejoin || mode == Mode::TwoWay {
        return Ok(());
    }
    let text = format!("--rejoin begins the root there anew, which takes a two-way grant, and this one is {mode}");
    Err(SyncError::Refuse { code: Refusal::NotGranted, text })
}

/// A place of another machine's, by a name that no other machine can give to one of its own.
fn located(peer: &str, location: &[u8]) -> Vec<u8> {
    [peer.as_bytes(), b":", location].concat()
}

pub(super) fn sendable(rules: &Rules, path: &Path) -> Result<String, SyncError> {
    if rules.text().len() > wire::MAX_RULES {
        let most = wire::MAX_RULES;
        let what = format!("the ignore rules of {} have more than the {most} bytes that cross a link", path.display());
        return Err(SyncError::Root(what));
    }
    Ok(rules.text().into())
}

/// The folder that was asked for: its path, and device and inode of what stands there without a link on the way. Whoever may
/// write below an export could put a link to anywhere there.
fn resolve(export: &Export, sub: &RelPath) -> Result<(PathBuf, (u64, u64)), SyncError> {
    let real = export.path.canonicalize().map_err(|error| {
        SyncError::Root(format!("the root {} cannot be opened: {error}; is its disk mounted?", export.path.display()))
    })?;
    let root = Root::open(&real)?;
    let seen = root.dir(sub)?.stat_self()?;
    Ok((real.join(OsStr::from_bytes(sub.as_bytes())), (seen.dev, seen.ino)))
}
