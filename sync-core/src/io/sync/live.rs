//! A root that stays open: scanned where something changed, pulled into when another replica has news, and answered from all the
//! time. What decides when, and from whom, is not here.
//!
//! There is no run with a beginning and an end, and no side that asks: each root pulls from its members when its owner says so.

use super::conflicts;
use super::drive;
use super::end::{End as _, LocalEnd, ScanTerms, Surveyed};
use super::guard::Spent;
use super::member::Member;
use super::news::News;
use super::opened::Opened;
use super::patience::patiently;
use super::pulls::{OnePull, Terms};
use super::roots::{self, Candidate};
use super::unread::{self, Read};
use super::{MaxDelete, Options, Side, SyncError, Totals};
use super::{keeping, meeting};
use crate::ignore::Rules;
use crate::io::apply;
use crate::io::archive::{Archive, ArchiveError};
use crate::io::fs::Root;
use crate::io::mutex::lock;
use crate::io::remote::{RemoteThere, identity};
use crate::io::scan::{self, ScanError, Scanned};
use crate::io::speaker::{self, Speaker};
use crate::io::state::State;
use crate::io::there::There as _;
use crate::io::watch::Beside;
use crate::knowledge::{ReplicaId, Vector};
use crate::path::RelPath;
use crate::peer::{Mode, Name};
use crate::report::{Monitor, Phase, Problem};
use crate::store::{Filter, Listing};
use crate::wire::{self, Introduction, Ready};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Pulls in a row that settle what was left open.
const SETTLING: usize = 3;
/// How often a pull begins anew because the other root, which nothing stops from changing, had changed meanwhile.
const OUTRUN: usize = 3;

/// A root of this machine that stays open.
pub struct Live {
    pub(super) name: Name,
    opened: Arc<Opened>,
    pub(super) options: Options,
    run_rules: Rules,
    /// Those that stand in the root.
    rules: Mutex<Rules>,
    /// Where it misses a file system, by the last scan of each path.
    unavailable: Mutex<Vec<RelPath>>,
    /// What pulls have deleted lately.
    spent: Mutex<Spent>,
    /// Of what others must hear.
    pub(super) news: News,
    /// What a user is advised where it has to begin anew; a run with --rejoin where nothing is said.
    anew: Option<String>,
}

/// What a root is, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Who it is.
    pub replica: ReplicaId,
    /// Live files, directories and links.
    pub live: u64,
    /// Its newest sequence number: it grows with every change of what is known.
    pub seq: u64,
}

/// What a pull did.
#[derive(Debug, Clone, Default)]
pub struct Brought {
    /// What changed here.
    pub totals: Totals,
    /// Paths that failed; they come with a later pull.
    pub problems: Vec<Problem>,
    /// All that the other side had when it began is here now, but for conflicts that are left open.
    pub whole: bool,
    /// Files of which nothing is decided before they are read: [`Live::read`] does.
    pub unread: u64,
    /// It was broken off because the monitor said so.
    pub cancelled: bool,
    /// Something here is known that was not before: others must hear of it.
    pub news: bool,
}

/// How a look differs from another one.
#[derive(Default)]
struct Pass<'a> {
    skip_placed: bool,
    watch: Option<&'a Beside>,
}

impl Live {
    /// Opens a root, and recovers what a crash left. `known`: it was open before, so that a folder without a marker is a disk that
    /// is not mounted, and never a new root. Who has it at present, in this process or another one, is waited for within a deadline.
    ///
    /// # Errors
    /// The root is missing, held by somebody else, or not the one that it was; or the monitor said to stop while it was waited for.
    pub fn open(name: Name, path: &Path, options: Options, known: bool, monitor: &dyn Monitor) -> Result<Live, SyncError> {
        let run_rules = Rules::parse(&options.ignore.join("\n"))?;
        let anew = Some(format!("run driftless agent rejoin {name}"));
        let opened = patiently(monitor, || {
            let candidate = Candidate::of(roots::find(path, options.state_dir.as_deref())?, &options)?;
            if options.rejoin {
                return candidate.open_anew(&options, monitor);
            }
            if known {
                candidate.must_stand()?;
            }
            candidate.open(&nobody(), &options, monitor)
        });
        let (opened, rules) = opened.map_err(|error| error.advising(anew.as_deref()))?;
        opened.state.settle()?;
        // Once is enough.
        let options = Options { rejoin: false, ..options };
        Ok(Live { anew, ..Live::of(name, (Arc::new(opened), rules), (options, run_rules)) })
    }

    /// A root that somebody has opened, for runs that share it.
    pub(super) fn of(name: Name, (opened, rules): (Arc<Opened>, Rules), (options, run_rules): (Options, Rules)) -> Live {
        let (unavailable, spent, news) = (Mutex::default(), Mutex::default(), News::default());
        Live { name, opened, options, run_rules, rules: Mutex::new(rules), unavailable, spent, news, anew: None }
    }

    /// What others call the folder.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.opened.root
    }

    /// Calls `work` with the root and its state, while nobody else records or makes changes here: for whoever moves directories to
    /// a cold root or back ([`places`](crate::io::places)). Others hear of what it recorded.
    pub fn placing<T>(&self, work: impl FnOnce(&Root, &State) -> T) -> T {
        let _work = self.opened.work();
        let before = self.opened.state.seq();
        let done = work(&self.opened.root, &self.opened.state);
        if self.opened.state.seq() != before {
            self.tell();
        }
        done
    }

    /// Moves days of this root between hot and cold, while it goes on to be looked at and pulled into: others wait for the short steps
    /// alone, and hear of what these recorded. One at a time.
    ///
    /// # Errors
    /// The root's file system cannot exchange names, or the journal cannot be opened.
    pub fn archive<'a>(&'a self, monitor: &'a dyn Monitor) -> Result<Archive<'a>, ArchiveError> {
        let archive = Archive::open((&self.opened.root, &self.opened.state, self.options.mask), monitor)?;
        Ok(archive.beside(&self.opened.work))
    }

    /// What archiving remembers under a name.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn archive_note(&self, name: &str) -> Result<Option<Vec<u8>>, SyncError> {
        Ok(self.opened.state.meta(&format!("archive.{name}"))?)
    }

    /// Remembers something for archiving; it has reached the disk when the call returns.
    ///
    /// # Errors
    /// The state cannot be written.
    pub fn put_archive_note(&self, name: &str, value: &[u8]) -> Result<(), SyncError> {
        Ok(self.opened.state.put_meta(&format!("archive.{name}"), value)?)
    }

    /// The newest of its sequence numbers at or below a directory; `None` for one of which nothing is recorded.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn newest(&self, dir: &RelPath) -> Result<Option<u64>, SyncError> {
        Ok(self.opened.state.newest(dir)?)
    }

    /// How long its old versions are kept.
    pub(super) fn keep_versions(&self) -> Option<Duration> {
        self.options.keep_versions
    }

    pub(super) fn opened(&self) -> &Arc<Opened> {
        &self.opened
    }

    pub(super) fn rules(&self) -> Rules {
        lock(&self.rules).clone()
    }

    /// The rules that stand in the root, as they were read last.
    #[must_use]
    pub fn rules_text(&self) -> String {
        lock(&self.rules).text().to_owned()
    }

    /// The rules of a run that shares the root, together with its owner's. The owner's have the last word.
    pub(super) fn with_own_rules(&self, run_rules: &Rules) -> Result<Rules, SyncError> {
        if self.run_rules.text().is_empty() {
            return Ok(run_rules.clone());
        }
        Ok(Rules::parse(&[run_rules.text(), self.run_rules.text()].join("\n"))?)
    }

    /// Is a path left out, by the rules of the root or by the owner's?
    #[must_use]
    pub fn ignores(&self, path: &RelPath, dir: bool) -> bool {
        lock(&self.rules).ignores(path, dir) || self.run_rules.ignores(path, dir)
    }

    /// What it is now.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn standing(&self) -> Result<Standing, SyncError> {
        let state = &self.opened.state;
        Ok(Standing { replica: state.id(), live: state.live()?, seq: state.seq() })
    }

    /// Finds what changed at and below some paths, or everywhere if there are none, and records it. Others hear of it.
    ///
    /// # Errors
    /// As [`scan`](crate::io::scan::scan): the root is gone or was replaced, or the monitor said to stop.
    pub fn scan(&self, only: &[RelPath], monitor: &dyn Monitor) -> Result<Scanned, SyncError> {
        self.look(only, Pass::default(), monitor)
    }

    /// As [`Live::scan`] of everything, but for what is in directories that lie in a cold root: that those are there is seen.
    ///
    /// # Errors
    /// As [`Live::scan`].
    pub fn scan_hot(&self, monitor: &dyn Monitor) -> Result<Scanned, SyncError> {
        self.look(&[], Pass { skip_placed: true, watch: None }, monitor)
    }

    /// As [`Live::scan`] of everything, or [`Live::scan_hot`] if it is `hot`, and sets the watches of the root on its way. They are
    /// whole if it ends well.
    ///
    /// # Errors
    /// As [`Live::scan`]. What a watch fails at is told by [`Beside::finish`].
    pub fn scan_beside(&self, watch: &Beside, hot: bool, monitor: &dyn Monitor) -> Result<Scanned, SyncError> {
        self.look(&[], Pass { skip_placed: hot, watch: Some(watch) }, monitor)
    }

    fn look(&self, only: &[RelPath], pass: Pass<'_>, monitor: &dyn Monitor) -> Result<Scanned, SyncError> {
        let rules_file = RelPath::parse(crate::ignore::FILE.as_bytes()).expect("the name of the file of rules is a path");
        if only.is_empty() || only.contains(&rules_file) {
            self.renew_rules(monitor)?;
        }
        let before = self.opened.state.seq();
        let options = Options { paths: only.to_vec(), ..self.options.clone() };
        let rules = [self.rules(), self.rules()];
        let terms = ScanTerms {
            options: &options,
            rules: &rules,
            run_rules: &self.run_rules,
            skip_placed: pass.skip_placed,
            watch: pass.watch,
        };
        let scanned = self.end().look(&terms, monitor);
        if scanned.is_err() && self.opened.state.seq() != before {
            // What was recorded until it stopped is news that the next look does not find again.
            self.tell();
        }
        let scanned = scanned?;
        let other = {
            let mut known = lock(&self.unavailable);
            let now = still_missing(&known, only, &scanned.unavailable);
            let other = *known != now;
            *known = now;
            other
        };
        if other || self.opened.state.seq() != before {
            self.tell();
        }
        self.missing()?;
        Ok(scanned)
    }

    /// Where it misses a file system, as far as scans have found.
    ///
    /// # Errors
    /// There are more such places than others can be told.
    pub fn missing(&self) -> Result<Vec<RelPath>, SyncError> {
        let missing = lock(&self.unavailable).clone();
        if missing.len() > wire::MAX_LIST {
            let (root, most) = (self.root().path().display(), wire::MAX_LIST);
            let text = format!("more than {most} paths below {root} are unavailable: mount their file systems");
            return Err(SyncError::Root(text));
        }
        Ok(missing)
    }

    /// The rules of the root as they are now; what they cover from now on is forgotten.
    pub(super) fn renew_rules(&self, monitor: &dyn Monitor) -> Result<(), SyncError> {
        match roots::rules(&self.opened.root) {
            Ok(rules) if rules.text() == self.rules().text() => {}
            Ok(rules) => {
                let _work = self.opened.work();
                roots::obey(&self.opened, &rules)?;
                *lock(&self.rules) = rules;
            }
            Err(error @ (SyncError::Rule(_) | SyncError::RuleFile { .. })) => {
                monitor.notice(&format!("{error}; the rules that stood before are obeyed until that is mended"));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn end(&self) -> LocalEnd {
        LocalEnd::new(self.opened.clone(), self.rules(), Side::B)
    }

    /// Brings here what a member has and this root has not. Of files whose bytes decide something it reads as many as take no time,
    /// since nothing else is done here meanwhile; the others are left open until [`Live::read`] has read them.
    ///
    /// # Errors
    /// A guard stops it, the connection failed, or the root cannot be changed any more. What was done before is recorded.
    pub fn pull(&self, member: &Member, monitor: &dyn Monitor) -> Result<Brought, SyncError> {
        let allowed = lock(&self.spent).is_allowed(Instant::now());
        self.facing(member, allowed, |there, terms| self.pull_from(there, terms, allowed, monitor))
    }

    /// Reads files, here and there, of which nothing could be decided without: first all but the large ones, and in a later call some
    /// of those. It may take as long as it likes: nothing of the root is held, and nothing is decided. What was read is recorded
    /// only where the row still tells of the very file that was read, and a pull decides by what is recorded then.
    ///
    /// # Errors
    /// The connection failed, a state cannot be used, or the monitor said to stop. What was read before is recorded.
    pub fn read(&self, member: &Member, monitor: &dyn Monitor) -> Result<Read, SyncError> {
        self.facing(member, false, |there, terms| {
            let pull = OnePull::new(Side::B, &self.opened, there, terms)?;
            unread::read_some(&pull, monitor)
        })
    }

    /// Calls `work` with what a pull from a member needs to know now.
    fn facing<T>(
        &self,
        member: &Member,
        allowed: bool,
        work: impl FnOnce(&RemoteThere, &Terms<'_>) -> Result<T, SyncError>,
    ) -> Result<T, SyncError> {
        let told = member.told();
        let facts = member.facts_of(&told);
        let there = RemoteThere::new(member.connection.clone(), facts.clone(), told.seq);
        let there = if member.answers { there } else { there.without_bases() };
        {
            let _work = self.opened.work();
            self.opened.follow(&facts)?;
        }
        let rules = [member.rules.clone(), self.rules()];
        let mut unavailable = lock(&self.unavailable).clone();
        unavailable.extend(told.unavailable);
        // A disk may have gone since the last look: nothing is to be put where it belongs.
        unavailable.extend(scan::missing_mounts(&self.opened.root, &self.opened.state)?);
        let mut options = self.options.clone();
        if allowed {
            options.max_delete = None;
        }
        if member.mode == Mode::NoDelete {
            options.max_delete = Some(MaxDelete::Count(0));
        }
        let mut mask = options.mask;
        mask.owner &= member.sets_owner;
        let terms = Terms { options: &options, mask, rules: &rules, run_rules: &self.run_rules, unavailable: &unavailable };
        work(&there, &terms)
    }

    fn pull_from(
        &self,
        there: &RemoteThere,
        terms: &Terms<'_>,
        allowed: bool,
        monitor: &dyn Monitor,
    ) -> Result<Brought, SyncError> {
        let before = self.opened.state.seq();
        let mut brought = Brought { whole: true, ..Brought::default() };
        let mut end = self.end().with_others_waiting().with_spent(lock(&self.spent).deleted(Instant::now()));
        let mut outrun = 0;
        let pulled = loop {
            match pull_all(&mut end, there, terms, &mut brought, monitor) {
                Err(SyncError::Outrun(_)) if outrun < OUTRUN && !monitor.cancelled() => outrun += 1,
                pulled => break pulled,
            }
        };
        let deleted = end.spent();
        if !allowed {
            let created = brought.totals.created + brought.totals.conflicts;
            lock(&self.spent).add(deleted, created, Instant::now());
        } else if deleted > 0 && pulled.is_ok() && !brought.cancelled {
            // One that was broken off goes on.
            lock(&self.spent).use_leave();
        }
        if self.opened.state.seq() != before {
            brought.news = true;
            self.tell();
        }
        pulled.map(|()| brought).map_err(|error| error.advising(self.anew.as_deref()))
    }

    /// Lifts the deletion guard once: what went before counts no more, and the next pull that deletes anything may delete what it is
    /// to, if it comes within the hour. What a member may not do at all it may not do then.
    pub fn allow_deletions(&self) {
        lock(&self.spent).allow(Instant::now());
    }

    /// Does this root know all that a member had when it told last? One question, and nothing is recorded.
    ///
    /// # Errors
    /// The connection failed, or a state cannot be read.
    pub fn covers(&self, member: &Member) -> Result<bool, SyncError> {
        let told = member.told();
        let there = RemoteThere::new(member.connection.clone(), member.facts_of(&told), told.seq);
        let record = speaker::record(&self.opened.state, told.identity.replica, &Speaker::Machine(member.peer))?;
        if !self.opened.state.pending(record)?.is_empty() {
            return Ok(false);
        }
        let theirs = there.listing(&RelPath::root(), &Filter::header())?;
        Ok(drive::is_covered(Side::B, &theirs, &self.header()?, &self.options))
    }

    fn header(&self) -> Result<Listing, SyncError> {
        Ok(self.opened.state.listing(&RelPath::root(), &Filter::header())?)
    }

    /// Old versions go, what is of no use any more, and the marker tells of the state as it is.
    ///
    /// # Errors
    /// The state or the root cannot be written.
    pub fn tidy(&self, monitor: &dyn Monitor) -> Result<(), SyncError> {
        let _work = self.opened.work();
        keeping::tidy(&self.opened, &self.options, monitor)
    }

    /// Looks for writes to old versions through descriptors that were open when they were replaced: they stand beside the new
    /// ones as conflict copies then.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn check_late(&self, since: Duration, monitor: &dyn Monitor) -> Result<(), SyncError> {
        let _work = self.opened.work();
        let since_ns = crate::io::fs::coarse_now_ns() - i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        for text in apply::check_late(&self.opened.root, &self.opened.state, since_ns)?.notices() {
            monitor.notice(&format!("{}: {text}", self.opened.root.path().display()));
        }
        Ok(())
    }

    /// Open conflicts with all replicas, counted by path and replica, and up to so many of their paths.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn in_conflict(&self, most: usize) -> Result<(u64, Vec<RelPath>), SyncError> {
        let mut paths: Vec<RelPath> = conflicts::each(&self.opened.state)?.into_iter().map(|(_, open)| open.path).collect();
        let count = paths.len() as u64;
        paths.sort_unstable();
        paths.truncate(most);
        Ok((count, paths))
    }

    /// How many replaced and deleted versions are kept, and the bytes of their files. Looks at all of them.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn kept(&self) -> Result<(u64, u64), SyncError> {
        keeping::kept(&self.opened.state)
    }

    /// Others are to hear of a change.
    pub(super) fn tell(&self) {
        self.news.ring();
    }

    /// What others hear. True after a power cut too.
    pub(super) fn ready(&self) -> Result<Ready, SyncError> {
        let state = &self.opened.state;
        let seq = self.header()?.seq;
        let (identity, decisions) = (identity(state)?, state.has_decisions()?);
        state.flush()?;
        let unavailable = self.missing()?;
        Ok(Ready { identity, seq, passing: false, unavailable, decisions })
    }

    pub(super) fn introduce(&self, there: &[u8]) -> Result<Introduction, SyncError> {
        let introduction = meeting::introduction(&self.opened.state, Vec::new(), there)?;
        // What is told must be true after a power cut too.
        self.opened.state.settle()?;
        Ok(introduction)
    }

    /// May the two work together, by what the other side knows of this one?
    pub(super) fn meet(&self, there: &Introduction, monitor: &dyn Monitor) -> Result<(), SyncError> {
        meeting::meet(&self.opened, there, monitor).map_err(|error| error.advising(self.anew.as_deref()))
    }
}

/// Where file systems are missing after a scan of some paths, or of everything if there are none: what it did not look at is as
/// it was known.
pub(super) fn still_missing(known: &[RelPath], only: &[RelPath], found: &[RelPath]) -> Vec<RelPath> {
    let looked_at = |path: &RelPath| only.is_empty() || only.iter().any(|only| only.contains(path));
    let mut missing: Vec<RelPath> = known.iter().filter(|path| !looked_at(path)).chain(found).cloned().collect();
    missing.sort();
    missing.dedup();
    missing
}

/// Brings to an end of a pull what is there: looked at first, then pulled until nothing is left open that can be settled.
fn pull_all(
    end: &mut LocalEnd,
    there: &RemoteThere,
    terms: &Terms<'_>,
    brought: &mut Brought,
    monitor: &dyn Monitor,
) -> Result<(), SyncError> {
    let Surveyed { totals, stopped } = end.survey(there, terms, None, monitor)?;
    if let Some(stopped) = stopped {
        return Err(stopped);
    }
    let unread = end.unread();
    end.first_awaited().into_iter().for_each(|path| monitor.awaits(path));
    monitor.phase(Phase::Apply, Some(totals.created + totals.updated + totals.deleted + totals.moved), Some(totals.bytes));
    for number in 0..SETTLING {
        let pulled = end.pull(there, terms, u32::try_from(number).unwrap_or(u32::MAX), monitor)?;
        brought.totals.add(&pulled.totals);
        brought.problems.extend(pulled.problems);
        (brought.whole, brought.cancelled, brought.unread) = (pulled.decided, pulled.cancelled, pulled.unread.max(unread));
        if let Some(stopped) = pulled.stopped {
            return Err(stopped);
        }
        if pulled.cancelled || !pulled.again {
            break;
        }
    }
    Ok(())
}

/// Somebody of whom nothing is known.
pub(super) fn nobody() -> Introduction {
    Introduction { identity: None, knows: Vector::new(), remembers: Vec::new(), location: Vec::new(), expects: false }
}

/// Did a scan fail because the root is not what it was?
#[must_use]
pub fn is_root_lost(error: &SyncError) -> bool {
    match error {
        SyncError::Scan(ScanError::RootChanged { .. } | ScanError::Unmarked { .. }) => true,
        SyncError::Scan(ScanError::Fs(error)) | SyncError::Fs(error) => error.is_missing(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Silent;
    use crate::wire::{Refusal, Remembered};

    #[test]
    fn what_a_scan_did_not_look_at_is_as_it_was_known() {
        let paths = |paths: &str| -> Vec<RelPath> {
            paths.split_whitespace().map(|path| RelPath::parse(path.as_bytes()).unwrap()).collect()
        };
        for (known, only, found, missing) in [
            ("", "mnt", "mnt", "mnt"),
            ("mnt", "other", "", "mnt"),
            ("mnt", "mnt/below", "mnt", "mnt"),
            ("a/mnt mnt", "a", "", "mnt"),
            ("mnt", "mnt b", "b/mnt", "b/mnt"),
            ("mnt", "", "a", "a"),
        ] {
            assert_eq!(still_missing(&paths(known), &paths(only), &paths(found)), paths(missing), "{known}; {only}; {found}");
        }
    }

    #[test]
    fn joining_waits_for_nobody_and_takes_a_new_identity_only_in_turn() {
        let folder = tempfile::tempdir().unwrap();
        let live = Live::open("folder".parse().unwrap(), folder.path(), Options::standard(), false, &Silent).unwrap();
        let before = live.opened.state.id();
        let ahead = Introduction { remembers: vec![Remembered { replica: before, counter: 9, nonce: 9 }], ..nobody() };
        let work = live.opened.work();
        live.meet(&nobody(), &Silent).unwrap();
        assert!(matches!(live.meet(&ahead, &Silent), Err(SyncError::Refuse { code: Refusal::Busy, .. })));
        assert_eq!(live.opened.state.id(), before);
        drop(work);
        live.meet(&ahead, &Silent).unwrap();
        assert_ne!(live.opened.state.id(), before);
    }
}
