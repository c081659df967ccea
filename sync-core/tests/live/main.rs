//! Roots that stay open: they join each other, tell of changes, and pull.
#![allow(clippy::disallowed_methods, reason = "what users do to their files")]

mod renamed;
mod unread;

use anyhow::{Context as _, Result, bail, ensure};
use fixtures::tree::Tree;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};
use sync_core::io::link::{Connection, local_pair};
use sync_core::io::sync::{
    Ear, Export, Heard, Host, HostOptions, Kept, Live, Member, Options, Place, Policy, Remote, Served, Sync, SyncError,
    is_root_lost,
};
use sync_core::path::RelPath;
use sync_core::peer::{Mode, PublicKey};
use sync_core::report::{Monitor, OnItsWay, Silent};

/// No wait here may take longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Lab {
    dir: tempfile::TempDir,
}

/// One end of a meeting: what it heard comes out of the receiver.
struct End {
    member: Member,
    heard: Receiver<Heard>,
}

impl Lab {
    fn new(roots: &[&str]) -> Result<Lab> {
        let dir = tempfile::tempdir()?;
        roots.iter().try_for_each(|root| fs::create_dir(dir.path().join(root)))?;
        Ok(Lab { dir })
    }

    fn root(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self, name: &str) -> Result<Arc<Live>> {
        self.open_without(name, &[])
    }

    /// Opens a root whose owner leaves something out.
    fn open_without(&self, name: &str, ignore: &[&str]) -> Result<Arc<Live>> {
        let ignore = ignore.iter().map(|&rule| rule.to_owned()).collect();
        let options = Options { conflicts: Policy::KeepBoth, ignore, ..Options::standard() };
        let live = Live::open("folder".parse()?, &self.root(name), options, false, &Silent)?;
        live.scan(&[], &Silent)?;
        Ok(Arc::new(live))
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        fs::write(self.root(path), text).context("cannot write")
    }

    fn tree(&self, root: &str) -> Result<Tree> {
        Tree::read(&self.root(root)).context("cannot read")
    }
}

fn ear() -> (Ear, Receiver<Heard>) {
    let (tell, heard) = channel();
    let tell = Mutex::new(tell);
    let ear: Ear = Arc::new(move |what| {
        // A test that has heard enough has gone.
        let _ = tell.lock().expect("no panic while it is held").send(what);
    });
    (ear, heard)
}

fn kept(live: &Arc<Live>) -> Kept {
    let live = live.clone();
    Arc::new(move || Some(live.clone()))
}

fn pair(keys: [u8; 2]) -> [Connection; 2] {
    local_pair(keys.map(|key| PublicKey::from_bytes([key; 32])), [7; 32])
}

/// The first root joins the second; `modes` are what the other one may do at each.
fn meet(a: &Arc<Live>, b: &Arc<Live>, modes: [Mode; 2], keys: [u8; 2]) -> Result<[End; 2], SyncError> {
    meet_over(pair(keys), a, b, modes)
}

fn meet_over([near, far]: [Connection; 2], a: &Arc<Live>, b: &Arc<Live>, modes: [Mode; 2]) -> Result<[End; 2], SyncError> {
    let (ear_a, heard_a) = ear();
    let (ear_b, heard_b) = ear();
    let export = Export { name: b.name().clone(), path: b.root().path().into(), live: Some(kept(b)) };
    let host = Host::new(vec![export], HostOptions { state_dir: None, keep_versions: None });
    thread::scope(|scope| {
        let served = scope.spawn(|| host.serve_or_join(far, &|_| Some(modes[1]), &|_| Some(ear_b.clone()), &Silent));
        let joined = Member::join(a, near, modes[0], ear_a, &Silent);
        let served = served.join().expect("the host does not panic");
        let member = joined?;
        let Served::Joined(other) = served? else { panic!("a run was served") };
        Ok([End { member, heard: heard_a }, End { member: *other, heard: heard_b }])
    })
}

impl End {
    /// Waits until the other side has told that it is at `seq`, at least.
    fn hears_of(&self, live: &Live) -> Result<()> {
        let seq = live.standing()?.seq;
        while self.member.seq() < seq {
            match self.heard.recv_timeout(PATIENCE).context("nothing is heard")? {
                Heard::News | Heard::Gossip(_) => {}
                Heard::Ended(why) => bail!("the connection ended: {why:?}"),
            }
        }
        Ok(())
    }
}

#[test]
fn what_changes_at_one_is_told_and_pulled_and_goes_on_to_the_third() -> Result<()> {
    let lab = Lab::new(&["a", "b", "c"])?;
    lab.write("a/one", "1")?;
    lab.write("c/three", "3")?;
    let (a, b, c) = (lab.open("a")?, lab.open("b")?, lab.open("c")?);
    let [ab, ba] = meet(&a, &b, [Mode::TwoWay; 2], [1, 2])?;
    let [bc, cb] = meet(&b, &c, [Mode::TwoWay; 2], [2, 3])?;
    for (here, end, there) in [(&b, &ba, &a), (&c, &cb, &b), (&b, &bc, &c), (&a, &ab, &b)] {
        end.hears_of(there)?;
        assert!(here.pull(&end.member, &Silent)?.whole);
    }
    assert_eq!(lab.tree("a")?, lab.tree("b")?);
    assert_eq!(lab.tree("b")?, lab.tree("c")?);
    fs::remove_file(lab.root("a").join("three"))?;
    lab.write("a/one", "one")?;
    a.scan(&[RelPath::parse(b"one")?, RelPath::parse(b"three")?], &Silent)?;
    for (here, end, there) in [(&b, &ba, &a), (&c, &cb, &b)] {
        end.hears_of(there)?;
        let brought = here.pull(&end.member, &Silent)?;
        assert!(brought.whole && brought.news && brought.totals.deleted == 1 && brought.totals.updated == 1, "{brought:?}");
    }
    assert_eq!(fs::read_to_string(lab.root("c").join("one"))?, "one");
    assert_eq!(lab.tree("a")?, lab.tree("c")?);
    ab.hears_of(&b)?;
    assert!(a.covers(&ab.member)? && !a.pull(&ab.member, &Silent)?.news);
    drop((ab, bc));
    assert_eq!(ba.heard.iter().last(), Some(Heard::Ended(None)));
    assert!(ba.member.is_over());
    Ok(())
}

#[test]
fn a_root_that_only_ever_gave_is_met_again_and_one_that_is_new_at_its_place_only_where_a_user_said_so() -> Result<()> {
    let lab = Lab::new(&["a", "b"])?;
    lab.write("a/one", "1")?;
    let (a, b) = (lab.open("a")?, lab.open("b")?);
    let [ab, ba] = meet(&a, &b, [Mode::TwoWay; 2], [1, 2])?;
    ba.hears_of(&a)?;
    assert!(b.pull(&ba.member, &Silent)?.whole);
    drop((ab, ba));
    let again = meet(&a, &b, [Mode::TwoWay; 2], [1, 2])?;
    drop(again);
    drop(a);
    // As a disk that is not mounted.
    fs::rename(lab.root("a"), lab.root("away"))?;
    fs::create_dir(lab.root("a"))?;
    let new = lab.open("a")?;
    let refused = meet(&new, &b, [Mode::TwoWay; 2], [1, 2]).err().context("a disk that is not mounted is met")?.to_string();
    assert!(refused.contains("has no marker") && refused.ends_with("run driftless agent rejoin folder"), "{refused}");
    assert!(lab.root("b").join("one").exists());
    drop(new);
    let rejoin = Options { rejoin: true, ..Options::standard() };
    drop(Live::open("folder".parse()?, &lab.root("a"), rejoin, true, &Silent)?);
    // It is remembered for whoever is met later.
    let anew = lab.open("a")?;
    lab.write("a/two", "2")?;
    anew.scan(&[], &Silent)?;
    let [ab, ba] = meet(&anew, &b, [Mode::TwoWay; 2], [1, 2])?;
    for (here, end, there) in [(&b, &ba, &anew), (&anew, &ab, &b)] {
        end.hears_of(there)?;
        let brought = here.pull(&end.member, &Silent)?;
        assert!(brought.whole && brought.totals.deleted == 0 && brought.totals.created == 1, "{brought:?}");
    }
    assert_eq!(lab.tree("a")?, lab.tree("b")?);
    Ok(())
}

#[test]
fn a_root_that_begins_anew_although_nothing_was_lost_takes_a_new_identity_and_keeps_what_it_knows() -> Result<()> {
    let lab = Lab::new(&["a", "b"])?;
    // So many that one of them is no whole root.
    ["one", "two", "three", "four"].iter().try_for_each(|name| lab.write(&format!("a/{name}"), name))?;
    let (a, b) = (lab.open("a")?, lab.open("b")?);
    let [ab, ba] = meet(&a, &b, [Mode::TwoWay; 2], [1, 2])?;
    ba.hears_of(&a)?;
    assert!(b.pull(&ba.member, &Silent)?.whole);
    drop((ab, ba));
    let before = a.standing()?.replica;
    drop(a);
    fs::remove_file(lab.root("b").join("one"))?;
    b.scan(&[], &Silent)?;
    let rejoin = Options { rejoin: true, ..Options::standard() };
    let a = Arc::new(Live::open("folder".parse()?, &lab.root("a"), rejoin, true, &Silent)?);
    a.scan(&[], &Silent)?;
    assert_ne!(a.standing()?.replica, before);
    let [ab, ba] = meet(&a, &b, [Mode::TwoWay; 2], [1, 2])?;
    for (here, end, there) in [(&b, &ba, &a), (&a, &ab, &b)] {
        end.hears_of(there)?;
        assert!(here.pull(&end.member, &Silent)?.whole);
    }
    // What was deleted on purpose stays so.
    assert!(!lab.root("a").join("one").exists() && !lab.root("b").join("one").exists());
    Ok(())
}

#[test]
fn how_far_the_clocks_are_apart_is_known_of_whoever_reports() -> Result<()> {
    let lab = Lab::new(&["a", "b"])?;
    let (a, b) = (lab.open("a")?, lab.open("b")?);
    let [ab, ba] = meet(&a, &b, [Mode::TwoWay; 2], [1, 2])?;
    let until = Instant::now() + PATIENCE;
    while [&ab, &ba].iter().any(|end| end.member.clock_ahead_ms().is_none()) {
        ensure!(Instant::now() < until, "the clocks are not told");
        thread::sleep(Duration::from_millis(10));
    }
    for end in [&ab, &ba] {
        // One machine, and one clock.
        let ahead = end.member.clock_ahead_ms().context("it was measured")?;
        ensure!(ahead.abs() < 3_600_000.0, "{ahead} ms");
    }
    Ok(())
}

#[test]
fn conflicts_that_both_decide_at_once_become_one() -> Result<()> {
    let lab = Lab::new(&["a", "b"])?;
    let (a, b) = (lab.open("a")?, lab.open("b")?);
    let [ab, ba] = meet(&a, &b, [Mode::TwoWay; 2], [1, 2])?;
    for round in 0..20 {
        lab.write("a/same", &format!("here {round}"))?;
        lab.write("b/same", &format!("there {round}"))?;
        a.scan(&[], &Silent)?;
        b.scan(&[], &Silent)?;
        ab.hears_of(&b)?;
        ba.hears_of(&a)?;
        thread::scope(|scope| {
            let other = scope.spawn(|| b.pull(&ba.member, &Silent));
            a.pull(&ab.member, &Silent)?;
            other.join().expect("no panic")
        })?;
        for _ in 0..3 {
            ab.hears_of(&b)?;
            a.pull(&ab.member, &Silent)?;
            ba.hears_of(&a)?;
            b.pull(&ba.member, &Silent)?;
        }
        assert_eq!(lab.tree("a")?, lab.tree("b")?, "round {round}");
        assert_eq!(fs::read_dir(lab.root("a"))?.count(), 3 + round, "round {round}");
    }
    Ok(())
}

#[test]
fn a_pull_that_leaves_only_conflicts_open_is_whole_and_one_with_a_path_that_failed_is_not() -> Result<()> {
    let lab = Lab::new(&["a", "b"])?;
    let open = |name: &str| -> Result<Arc<Live>> {
        let live = Live::open("folder".parse()?, &lab.root(name), Options::standard(), false, &Silent)?;
        live.scan(&[], &Silent)?;
        Ok(Arc::new(live))
    };
    let (a, b) = (open("a")?, open("b")?);
    let [_ab, ba] = meet(&a, &b, [Mode::TwoWay; 2], [1, 2])?;
    lab.write("a/same", "here")?;
    lab.write("b/same", "there, otherwise")?;
    lab.write("a/other", "1")?;
    let scan = || -> Result<()> {
        a.scan(&[], &Silent)?;
        b.scan(&[], &Silent)?;
        ba.hears_of(&a)
    };
    scan()?;
    let brought = b.pull(&ba.member, &Silent)?;
    assert!(brought.whole && brought.problems.is_empty() && brought.totals.created == 1, "{brought:?}");
    assert_eq!(b.in_conflict(9)?.0, 1);
    // The same conflict again, and a file whose place is taken by something that nobody synchronises.
    lab.write("a/taken", "2")?;
    a.scan(&[], &Silent)?;
    ba.hears_of(&a)?;
    let _socket = std::os::unix::net::UnixListener::bind(lab.root("b").join("taken"))?;
    let brought = b.pull(&ba.member, &Silent)?;
    assert!(!brought.whole && brought.problems.len() == 1, "{brought:?}");
    Ok(())
}

#[test]
fn who_may_not_join_is_told_where_the_agent_there_has_to_name_it() -> Result<()> {
    let lab = Lab::new(&["a", "b"])?;
    let (a, b) = (lab.open("a")?, lab.open("b")?);
    let export = Export { name: b.name().clone(), path: b.root().path().into(), live: Some(kept(&b)) };
    let host = Host::new(vec![export], HostOptions { state_dir: None, keep_versions: None });
    // Granted for nothing, or for runs alone.
    for granted in [None, Some(Mode::TwoWay)] {
        let [near, far] = pair([1, 2]);
        let refused = thread::scope(|scope| {
            let served = scope.spawn(|| host.serve_or_join(far, &|_| granted, &|_| None, &Silent));
            let joined = Member::join(&a, near, Mode::TwoWay, ear().0, &Silent);
            assert!(served.join().expect("the host does not panic").is_err());
            joined.err()
        });
        let text = refused.context("it was let in")?.to_string();
        assert!(text.contains("is not granted") && text.contains("folders.folder.peers") && !text.contains("--grant"), "{text}");
    }
    Ok(())
}

#[test]
fn who_cannot_tell_what_it_is_any_more_ends_the_connection_and_says_why() -> Result<()> {
    let lab = Lab::new(&["a", "b"])?;
    let (a, b) = (lab.open("a")?, lab.open("b")?);
    let [ab, ba] = meet(&a, &b, [Mode::TwoWay; 2], [1, 2])?;
    ba.hears_of(&a)?;
    let beside = rusqlite::Connection::open(lab.root("a").join(".driftless/state.db"))?;
    beside.busy_timeout(PATIENCE)?;
    beside.execute_batch("ALTER TABLE pending RENAME TO lost")?;
    lab.write("a/one", "1")?;
    a.scan(&[], &Silent)?;
    let end = |end: &End| -> Result<Option<String>> {
        loop {
            if let Heard::Ended(why) = end.heard.recv_timeout(PATIENCE).context("nothing is heard")? {
                return Ok(why);
            }
        }
    };
    let why = end(&ab)?.context("it says why")?;
    assert!(why.contains("pending"), "{why}");
    // The other side knows no more than that the connection has ended.
    assert_eq!(end(&ba)?, None);
    Ok(())
}

#[test]
fn who_may_only_read_is_told_but_not_pulled_and_nothing_is_deleted_by_whom_may_not() -> Result<()> {
    let lab = Lab::new(&["a", "b"])?;
    lab.write("a/one", "1")?;
    lab.write("b/two", "2")?;
    let (a, b) = (lab.open("a")?, lab.open("b")?);
    // B may only read at A; A may do everything but delete at B.
    let [ab, ba] = meet(&a, &b, [Mode::SendOnly, Mode::NoDelete], [1, 2])?;
    assert!(!ab.member.may_be_pulled() && ba.member.may_be_pulled());
    ba.hears_of(&a)?;
    b.pull(&ba.member, &Silent)?;
    assert!(lab.root("b").join("one").exists() && !lab.root("a").join("two").exists());
    fs::remove_file(lab.root("a").join("one"))?;
    a.scan(&[], &Silent)?;
    ba.hears_of(&a)?;
    assert!(matches!(b.pull(&ba.member, &Silent), Err(SyncError::Guard(_))));
    assert!(lab.root("b").join("one").exists());
    Ok(())
}

#[test]
fn deletions_that_come_one_by_one_are_stopped_like_those_that_come_at_once() -> Result<()> {
    let lab = Lab::new(&["a", "b"])?;
    let names: Vec<String> = (0..100).map(|number| format!("file {number}")).collect();
    names.iter().try_for_each(|name| lab.write(&format!("a/{name}"), name))?;
    let (a, b) = (lab.open("a")?, lab.open("b")?);
    let [_ab, ba] = meet(&a, &b, [Mode::TwoWay; 2], [1, 2])?;
    ba.hears_of(&a)?;
    b.pull(&ba.member, &Silent)?;
    let delete = |name: &String| -> Result<_> {
        fs::remove_file(lab.root("a").join(name))?;
        a.scan(&[RelPath::parse(name.as_bytes())?], &Silent)?;
        ba.hears_of(&a)?;
        Ok(b.pull(&ba.member, &Silent))
    };
    for name in &names[..50] {
        assert_eq!(delete(name)??.totals.deleted, 1);
    }
    for name in &names[50..60] {
        let error = delete(name)?.err().context("more than half went")?.to_string();
        assert!(error.contains("within the hour") && error.contains("of 100 paths"), "{error}");
    }
    assert_eq!(b.standing()?.live, 50);
    b.allow_deletions();
    assert_eq!(b.pull(&ba.member, &Silent)?.totals.deleted, 10);
    // The leave was for that, and what went with it does not count.
    for name in &names[60..80] {
        assert_eq!(delete(name)??.totals.deleted, 1);
    }
    assert!(matches!(delete(&names[80])?, Err(SyncError::Guard(_))));
    Ok(())
}

#[test]
fn a_run_of_another_machine_shares_a_root_that_stays_open() -> Result<()> {
    let lab = Lab::new(&["a", "b"])?;
    lab.write("a/one", "1")?;
    lab.write("b/two", "2")?;
    // What its owner leaves out the run leaves out too, whatever its own rules say.
    lab.write("a/left-out", "theirs")?;
    lab.write("b/left-out-too", "ours")?;
    let b = lab.open_without("b", &["left-out*"])?;
    let [near, far] = local_pair([1, 2].map(|key| PublicKey::from_bytes([key; 32])), [7; 32]);
    let export = Export { name: b.name().clone(), path: b.root().path().into(), live: Some(kept(&b)) };
    let host = Host::new(vec![export], HostOptions { state_dir: None, keep_versions: None });
    thread::scope(|scope| -> Result<()> {
        let served = scope.spawn(|| host.serve(far, &|_| Some(Mode::TwoWay), &Silent));
        let folder = b.name().clone();
        let remote = Remote {
            connection: Arc::new(near),
            folder,
            sub: RelPath::root(),
            shown: "quic://host/folder".into(),
            vouched: None,
        };
        let options = Options { ignore: vec!["!left-out*".into()], ..Options::standard() };
        let mut sync = Sync::open_with(Place::Local(lab.root("a")), Place::Remote(remote), options, &Silent)?;
        // Its owner goes on meanwhile.
        lab.write("b/three", "3")?;
        b.scan(&[], &Silent)?;
        sync.apply(&Silent)?;
        drop(sync);
        Ok(served.join().expect("the host does not panic")?)
    })?;
    assert!(lab.root("a").join("two").exists() && lab.root("b").join("one").exists());
    assert!(!lab.root("a").join("left-out-too").exists() && !lab.root("b").join("left-out").exists());
    Ok(())
}

#[test]
fn a_root_that_loses_its_marker_while_it_is_open_is_lost_and_nothing_in_it_is_deleted() -> Result<()> {
    let lab = Lab::new(&["a"])?;
    let (marker, away) = (lab.root("a").join(".driftless/marker"), lab.root("marker"));
    lab.write("a/one", "1")?;
    let a = lab.open("a")?;
    let before = a.standing()?;
    fs::rename(&marker, &away)?;
    fs::remove_file(lab.root("a").join("one"))?;
    for only in [vec![], vec![RelPath::parse(b"one")?]] {
        let error = a.scan(&only, &Silent).err().context("it was scanned")?;
        assert!(is_root_lost(&error) && error.to_string().contains("lost its marker"), "{error}");
    }
    assert!(is_root_lost(&a.tidy(&Silent).err().context("it was tidied")?));
    assert!(!marker.exists() && a.standing()? == before);
    fs::rename(&away, &marker)?;
    assert_eq!(a.scan(&[], &Silent)?.vanished, 1);
    a.tidy(&Silent)?;
    Ok(())
}

#[test]
fn a_root_that_was_open_before_and_has_lost_its_marker_is_a_disk_that_is_not_mounted() -> Result<()> {
    let lab = Lab::new(&["a"])?;
    drop(lab.open("a")?);
    fs::rename(lab.root("a"), lab.root("away"))?;
    fs::create_dir(lab.root("a"))?;
    let opened = Live::open("folder".parse()?, &lab.root("a"), Options::standard(), true, &Silent);
    let error = opened.err().context("it was opened")?.to_string();
    assert!(error.contains("is its disk mounted"), "{error}");
    assert_eq!(fs::read_dir(lab.root("a"))?.count(), 0);
    Ok(())
}

/// Watches what is on its way, and has seen enough once some of it is there.
#[derive(Default)]
struct Onlooker(Mutex<Vec<Vec<OnItsWay>>>);

impl Onlooker {
    fn told(&self) -> MutexGuard<'_, Vec<Vec<OnItsWay>>> {
        self.0.lock().expect("no panic while it is held")
    }
}

impl Monitor for Onlooker {
    fn on_their_way(&self, files: &[OnItsWay]) {
        self.told().push(files.to_vec());
    }

    fn cancelled(&self) -> bool {
        self.told().iter().flatten().any(|file| file.bytes > 0)
    }
}

#[test]
fn what_is_on_its_way_is_told_with_what_is_there_of_it_and_that_nothing_is_at_the_end() -> Result<()> {
    let lab = Lab::new(&["a", "b"])?;
    fs::write(lab.root("a").join("large"), fixtures::bytes::noise(1, 16 << 20))?;
    lab.write("a/small", "1")?;
    let (a, b) = (lab.open("a")?, lab.open("b")?);
    let [near, far] = pair([1, 2]);
    // So slow that it comes to no end before somebody has looked.
    near.limit(Some(512 << 10));
    let [_ab, ba] = meet_over([near, far], &a, &b, [Mode::TwoWay; 2])?;
    ba.hears_of(&a)?;
    let onlooker = Onlooker::default();
    let brought = b.pull(&ba.member, &onlooker);
    assert!(
        matches!(&brought, Err(SyncError::Cancelled)) || brought.as_ref().is_ok_and(|brought| brought.cancelled),
        "{brought:?}"
    );
    let told = onlooker.told();
    let (last, before) = told.split_last().context("nothing was told")?;
    assert!(last.is_empty(), "{last:?}");
    for files in before {
        let [file] = &files[..] else { panic!("{files:?}") };
        assert!(file.path == RelPath::parse(b"large")? && file.total == 16 << 20 && file.bytes < file.total, "{file:?}");
    }
    assert!(before.iter().flatten().any(|file| file.bytes > 0));
    Ok(())
}
