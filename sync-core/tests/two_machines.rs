//! A run across a connection: one root here, one behind a host, over both kinds of connection.
#![allow(clippy::disallowed_methods, reason = "tests make, change and look at files as users do")]

use anyhow::{Context as _, Result, ensure};
use fixtures::tree::{Tree, diff};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use sync_core::io::link::{Connection, Identity, LinkError, Network, local_pair};
use sync_core::io::state::{Peer, Pending, State};
use sync_core::io::sync::{
    Export, Host, HostOptions, Keep, Options, Place, Policy, Remote, Replica, Report, Side, Sync, SyncError,
};
use sync_core::knowledge::ReplicaId;
use sync_core::path::RelPath;
use sync_core::peer::{Mode, PublicKey};
use sync_core::report::Silent;

/// Two roots, of which b is served as `folder`.
struct Lab {
    home: tempfile::TempDir,
    host: Host,
}

/// What the asker wants.
struct Wish {
    options: Options,
    folder: &'static str,
    sub: &'static str,
    granted: Option<Mode>,
    /// Is the remote root the first?
    turned: bool,
    /// The asking machine.
    key: u8,
    /// Does ssh vouch for the other one?
    vouched: bool,
}

impl Default for Wish {
    fn default() -> Wish {
        Wish {
            options: Options::standard(),
            folder: "folder",
            sub: "",
            granted: Some(Mode::TwoWay),
            turned: false,
            key: 1,
            vouched: false,
        }
    }
}

impl Lab {
    fn new(a: &str, b: &str) -> Result<Lab> {
        let home = tempfile::tempdir()?;
        for (name, text) in [("a", a), ("b", b)] {
            let root = home.path().join(name);
            fs::create_dir(&root)?;
            Tree::parse(text)?.write_to(&root)?;
        }
        let export = Export { name: "folder".parse()?, path: home.path().join("b"), live: None };
        let options = HostOptions { state_dir: None, keep_versions: Some(Duration::from_secs(3600)) };
        Ok(Lab { home, host: Host::new(vec![export], options) })
    }

    fn root(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.home.path().join(path), text)?)
    }

    fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.home.path().join(path)).with_context(|| path.to_owned())
    }

    /// One run over a connection within this process: what the asker got, and what the host said.
    fn run(&self, wish: Wish) -> (Result<(Report, u64), SyncError>, Result<(), SyncError>) {
        let keys = [wish.key, 2].map(|key| PublicKey::from_bytes([key; 32]));
        let [near, far] = local_pair(keys, [7; 32]);
        self.run_over(near, far, wish)
    }

    fn run_over(
        &self,
        near: Connection,
        far: Connection,
        wish: Wish,
    ) -> (Result<(Report, u64), SyncError>, Result<(), SyncError>) {
        thread::scope(|scope| {
            let granted = wish.granted;
            let served = scope.spawn(move || self.host.serve(far, &|_| granted, &Silent));
            let asked = self.ask(near, wish);
            (asked, served.join().expect("the host does not panic"))
        })
    }

    fn ask(&self, near: Connection, wish: Wish) -> Result<(Report, u64), SyncError> {
        let (a, b) = (Place::Local(self.root("a")), Place::Remote(self.remote(near, &wish)));
        let (a, b) = if wish.turned { (b, a) } else { (a, b) };
        let mut sync = Sync::open_with(a, b, wish.options, &Silent)?;
        let report = sync.apply(&Silent)?;
        let traffic = sync.traffic();
        Ok((report, traffic.sent + traffic.received))
    }

    fn remote(&self, near: Connection, wish: &Wish) -> Remote {
        Remote {
            connection: Arc::new(near),
            folder: wish.folder.parse().expect("a name"),
            sub: RelPath::parse(wish.sub.as_bytes()).expect("a path"),
            shown: [if wish.vouched { "b:folder" } else { "quic://host/folder" }, wish.sub]
                .join("/")
                .trim_end_matches('/')
                .into(),
            vouched: wish.vouched.then(|| "b".into()),
        }
    }

    /// A run that only looks: what would be created on each side, and what the host said.
    fn run_dry(&self, wish: Wish) -> (Result<[u64; 2], SyncError>, Result<(), SyncError>) {
        let [near, far] = local_pair([wish.key, 2].map(|key| PublicKey::from_bytes([key; 32])), [7; 32]);
        thread::scope(|scope| {
            let granted = wish.granted;
            let served = scope.spawn(move || self.host.serve(far, &|_| granted, &Silent));
            let look = || {
                let (a, b) = (Place::Local(self.root("a")), Place::Remote(self.remote(near, &wish)));
                let mut sync = Sync::open_with(a, b, wish.options.clone(), &Silent)?;
                Ok(sync.count(&Silent)?.totals.map(|totals| totals.created))
            };
            let looked = look();
            (looked, served.join().expect("the host does not panic"))
        })
    }

    /// A run that goes well on both sides.
    fn well(&self, wish: Wish) -> Result<(Report, u64)> {
        let (asked, served) = self.run(wish);
        served.context("the host")?;
        Ok(asked?)
    }

    fn equal(&self) -> Result<()> {
        let (a, b) = (Tree::read(&self.root("a"))?, Tree::read(&self.root("b"))?);
        ensure!(a == b, "{}", diff(&a, &b));
        Ok(())
    }
}

#[test]
fn edits_on_both_sides_cross_and_a_second_run_crosses_little() -> Result<()> {
    let lab = Lab::new("d/x = one\ny = two\nl -> y\n", "e/z = three\n")?;
    let (report, _) = lab.well(Wish::default())?;
    assert!(report.in_sync, "{report:?}");
    assert_eq!(report.totals.map(|totals| totals.created), [2, 4]);
    lab.equal()?;
    lab.write("a/d/x", "edited here")?;
    lab.write("b/y", "edited there")?;
    fs::remove_dir_all(lab.root("b").join("e"))?;
    fs::rename(lab.root("a").join("l"), lab.root("a").join("m"))?;
    let (report, _) = lab.well(Wish { turned: true, ..Wish::default() })?;
    assert!(report.in_sync, "{report:?}");
    lab.equal()?;
    assert_eq!((lab.read("b/d/x")?, lab.read("a/y")?), ("edited here".into(), "edited there".into()));
    assert!(!lab.root("a").join("e").exists() && !lab.root("b").join("l").exists());
    let (report, bytes) = lab.well(Wish::default())?;
    assert!(report.in_sync && bytes < 4096, "{bytes} bytes, {report:?}");
    Ok(())
}

#[test]
fn a_conflict_stays_open_and_is_resolved_by_policy_on_both_sides() -> Result<()> {
    let lab = Lab::new("x = one\n", "")?;
    lab.well(Wish::default())?;
    lab.write("a/x", "ours")?;
    lab.write("b/x", "theirs")?;
    for _ in 0..2 {
        let (report, _) = lab.well(Wish::default())?;
        assert!(!report.in_sync && report.totals.iter().any(|totals| totals.conflicts == 1), "{report:?}");
        assert_eq!((lab.read("a/x")?, lab.read("b/x")?), ("ours".into(), "theirs".into()));
    }
    let options = Options { conflicts: Policy::Wins(Side::B), ..Options::standard() };
    let (report, _) = lab.well(Wish { options, ..Wish::default() })?;
    assert!(report.in_sync, "{report:?}");
    assert_eq!((lab.read("a/x")?, lab.read("b/x")?), ("theirs".into(), "theirs".into()));
    lab.equal()
}

#[test]
fn equal_trees_meet_without_conflict_and_without_content_crossing() -> Result<()> {
    let big = "x".repeat(1 << 20);
    let lab = Lab::new("d/\n", "d/\n")?;
    for root in ["a", "b"] {
        lab.write(&format!("{root}/d/big"), &big)?;
    }
    let (report, bytes) = lab.well(Wish::default())?;
    assert!(report.in_sync && bytes < 20_000, "{bytes} bytes, {report:?}");
    Ok(())
}

#[test]
fn of_a_copy_of_what_is_already_there_no_content_crosses() -> Result<()> {
    let lab = Lab::new("", "")?;
    let big: Vec<u8> = (0..1u64 << 18).flat_map(|number| scattered(number).to_le_bytes()).collect();
    fs::write(lab.root("a").join("big"), &big)?;
    lab.well(Wish::default())?;
    fs::create_dir(lab.root("a").join("d"))?;
    fs::write(lab.root("a").join("d/copy"), &big)?;
    let (report, bytes) = lab.well(Wish::default())?;
    assert!(report.in_sync && bytes < 64 << 10, "{bytes} bytes, {report:?}");
    lab.equal()
}

/// Hears which paths the other side tells of.
#[derive(Default)]
struct Ear(std::sync::Mutex<Vec<String>>);

impl sync_core::report::Monitor for Ear {
    fn item(&self, item: &sync_core::plan::Item, _: usize, _: sync_core::report::Done) {
        self.0.lock().expect("no panic while it hears").push(item.path.to_string());
    }
}

#[test]
fn who_may_only_bring_hears_of_nothing_that_is_there() -> Result<()> {
    let big: Vec<u8> = (0..1u64 << 15).flat_map(|number| scattered(number).to_le_bytes()).collect();
    let lab = Lab::new("", "secret = one\n")?;
    fs::write(lab.root("b").join("big"), &big)?;
    fs::write(lab.root("a").join("copy"), &big)?;
    let wish = || Wish { granted: Some(Mode::ReceiveOnly), ..Wish::default() };
    let (report, bytes) = lab.well(wish())?;
    // No signature of a file there comes back, so the copy crosses as a whole, packed to a little more than half.
    assert!(report.totals[1].created == 1 && bytes > big.len() as u64 / 2, "{bytes} bytes, {report:?}");
    fs::remove_file(lab.root("a").join("copy"))?;
    let [near, far] = local_pair([1, 2].map(|key| PublicKey::from_bytes([key; 32])), [7; 32]);
    let (planned, told) = thread::scope(|scope| {
        let served = scope.spawn(|| lab.host.serve(far, &|_| Some(Mode::ReceiveOnly), &Silent));
        let remote = Remote {
            connection: Arc::new(near),
            folder: "folder".parse()?,
            sub: RelPath::root(),
            shown: "quic://host/folder".into(),
            vouched: None,
        };
        let (a, b) = (Place::Local(lab.root("a")), Place::Remote(remote));
        let (ear, mut planned) = (Ear::default(), Vec::new());
        let options = Options { max_delete: None, ..Options::standard() };
        let mut sync = Sync::open_with(a, b, options, &ear)?;
        sync.plan(&ear, &mut |_, item| planned.push(item.path.to_string()))?;
        sync.apply(&ear)?;
        drop(sync);
        served.join().expect("the host does not panic")?;
        Ok::<_, anyhow::Error>((planned, ear.0.into_inner()?))
    })?;
    assert!(planned.is_empty() && told.is_empty(), "{planned:?} {told:?}");
    assert!(!lab.root("b").join("copy").exists() && lab.read("b/secret")? == "one");
    Ok(())
}

#[test]
fn what_is_not_granted_is_refused_and_nothing_is_made() -> Result<()> {
    let lab = Lab::new("x = one\n", "")?;
    for (wish, said) in [
        (Wish { granted: None, ..Wish::default() }, "not granted"),
        (Wish { folder: "other", ..Wish::default() }, "no folder other"),
        (Wish { sub: "missing", ..Wish::default() }, "missing"),
    ] {
        let (asked, served) = lab.run(wish);
        let told = asked.err().context("it was refused")?.to_string();
        assert!(told.contains(said) && told.contains("quic://host/folder"), "{told}");
        assert!(served.is_err());
        assert!(!lab.root("a").join(".driftless").exists() && !lab.root("b").join(".driftless").exists());
    }
    Ok(())
}

#[test]
fn modes_of_a_grant_are_kept() -> Result<()> {
    let lab = Lab::new("x = one\n", "")?;
    lab.well(Wish::default())?;
    let wish = |mode| Wish { granted: Some(mode), ..Wish::default() };
    lab.write("b/y", "from there")?;
    assert!(lab.well(wish(Mode::SendOnly))?.0.in_sync);
    assert_eq!(lab.read("a/y")?, "from there");
    lab.write("a/x", "edited here")?;
    let told = lab.run(wish(Mode::SendOnly)).0.err().context("it was refused")?.to_string();
    assert!(told.contains("send-only") && lab.read("b/x")? == "one", "{told}");
    lab.write("b/z", "secret")?;
    lab.well(wish(Mode::ReceiveOnly))?;
    assert!(lab.read("b/x")? == "edited here" && !lab.root("a").join("z").exists());
    assert!(lab.well(Wish::default())?.0.in_sync);
    lab.equal()?;
    fs::remove_file(lab.root("a").join("z"))?;
    let told = lab.run(wish(Mode::NoDelete)).0.err().context("it was refused")?.to_string();
    assert!(told.contains("would delete 1 of"), "{told}");
    assert_eq!(lab.read("b/z")?, "secret");
    Ok(())
}

#[test]
fn a_part_of_a_folder_is_a_root_and_no_link_leads_out_of_it() -> Result<()> {
    let lab = Lab::new("x = one\n", "sub/\nsub/y = two\n")?;
    std::os::unix::fs::symlink(lab.home.path(), lab.root("b").join("out"))?;
    assert!(lab.well(Wish { sub: "sub", ..Wish::default() })?.0.in_sync);
    assert_eq!((lab.read("b/sub/x")?, lab.read("a/y")?), ("one".into(), "two".into()));
    for sub in ["out", "out/a"] {
        let (asked, _) = lab.run(Wish { sub, ..Wish::default() });
        assert!(asked.is_err());
    }
    Ok(())
}

#[test]
fn a_part_that_was_never_a_root_is_made_one_by_nobody_who_only_reads_and_never_within_a_root() -> Result<()> {
    let lab = Lab::new("x = one\n", "sub/\nsub/deep/\nsub/deep/y = two\nother/\n")?;
    let wish = |sub, granted| Wish { sub, granted: Some(granted), ..Wish::default() };
    let told = lab.run(wish("sub", Mode::SendOnly)).0.err().context("it was refused")?.to_string();
    assert!(told.contains("sub in folder was never synchronised") && told.contains("send-only"), "{told}");
    assert!(!lab.root("b/sub/.driftless").exists() && !lab.root("a/.driftless").exists());
    // To look makes nothing.
    let options = Options { dry_run: true, ..Options::standard() };
    let (looked, _) = lab.run_dry(Wish { options, ..wish("sub", Mode::SendOnly) });
    assert_eq!(looked?, [2, 1]);
    assert!(!lab.root("b/sub/.driftless").exists());
    assert!(lab.well(wish("sub", Mode::TwoWay))?.0.in_sync);
    // A root by now.
    assert!(lab.well(wish("sub", Mode::SendOnly))?.0.in_sync);
    for sub in ["sub/deep", "sub/x"] {
        let told = lab.run(wish(sub, Mode::TwoWay)).0.err().context("it was refused")?.to_string();
        assert!(!lab.root("b/sub/deep/.driftless").exists(), "{told}");
        assert!(sub != "sub/deep" || told.contains("sub/deep lies in sub in folder, which is a root already"), "{told}");
    }
    fs::remove_dir_all(lab.root("a/.driftless"))?;
    lab.well(wish("", Mode::TwoWay))?;
    let told = lab.run(wish("other", Mode::TwoWay)).0.err().context("it was refused")?.to_string();
    assert!(told.contains("other lies in folder, which is a root already") && told.contains("--path other"), "{told}");
    Ok(())
}

/// All that a root remembers of others: their records, and what is open with each.
fn remembered(root: &std::path::Path) -> Result<Vec<(ReplicaId, Peer, Vec<Pending>)>> {
    let state = State::open(&root.join(".driftless"), Options::standard().mask)?;
    state.peers()?.into_iter().map(|(id, peer)| Ok((id, peer, state.pending(id)?))).collect()
}

fn replica(root: &std::path::Path) -> Result<ReplicaId> {
    Ok(State::open(&root.join(".driftless"), Options::standard().mask)?.id())
}

#[test]
fn what_one_machine_told_of_a_replica_no_other_one_alters() -> Result<()> {
    let lab = Lab::new("x = one\n", "")?;
    lab.well(Wish::default())?;
    lab.write("a/x", "ours")?;
    lab.write("b/x", "theirs")?;
    lab.well(Wish::default())?;
    let before = remembered(&lab.root("b"))?;
    let id = replica(&lab.root("a"))?;
    assert!(before.len() == 1 && before[0].0 == id && before[0].2.len() == 1, "{before:?}");
    // Another machine speaks for the same replica: a disk that moved, a new key, or a lie.
    lab.write("a/y", "from the other machine")?;
    fs::remove_file(lab.root("a").join("x"))?;
    fs::copy(lab.root("b").join("x"), lab.root("a").join("x"))?;
    lab.well(Wish { key: 3, ..Wish::default() })?;
    assert_eq!(lab.read("b/y")?, "from the other machine");
    let after = remembered(&lab.root("b"))?;
    // But for the conflict, which is over by what stands in the rows here: so the first one is looked at as a whole again.
    let (id, peer, _) = &before[0];
    let first = (*id, Peer { incorporated: 0, ..peer.clone() }, Vec::new());
    assert!(after.len() == 2 && after.contains(&first), "{after:?}");
    // And the first one goes on from where it was.
    lab.write("a/z", "from the first machine")?;
    for key in [1, 3, 1] {
        assert!(lab.well(Wish { key, ..Wish::default() })?.0.in_sync);
        assert_eq!(remembered(&lab.root("b"))?.len(), 2);
    }
    lab.equal()?;
    // A run between roots of one machine is another speaker too.
    drop(Sync::open(&lab.root("a"), &lab.root("b"), Options::standard(), &Silent)?.apply(&Silent)?);
    lab.equal()
}

/// Open conflicts of a root as its user sees them: paths, and what was decided.
fn conflicts(root: &std::path::Path) -> Result<Vec<(String, Option<Keep>)>> {
    let listed = Replica::open(root, None)?.conflicts()?;
    Ok(listed.into_iter().map(|open| (open.path.to_string(), open.decided)).collect())
}

#[test]
fn a_conflict_with_a_root_that_is_met_in_two_ways_is_one_and_over_in_both() -> Result<()> {
    for (keep, decides) in [(Keep::Local, "a"), (Keep::Remote, "b"), (Keep::Both, "b")] {
        let lab = Lab::new("x = one\nd/y = two\n", "")?;
        // Once as ssh vouches for it, once as a server.
        let through_ssh = || Wish { key: 3, vouched: true, ..Wish::default() };
        lab.well(through_ssh())?;
        for path in ["x", "d/y"] {
            lab.write(&format!("a/{path}"), "ours")?;
            lab.write(&format!("b/{path}"), "theirs")?;
        }
        lab.well(through_ssh())?;
        lab.well(Wish::default())?;
        for root in ["a", "b"] {
            assert_eq!(remembered(&lab.root(root))?.iter().filter(|(_, _, open)| open.len() == 2).count(), 2, "{root}");
            assert_eq!(conflicts(&lab.root(root))?, [("d/y".into(), None), ("x".into(), None)], "{root}");
        }
        let x = RelPath::parse(b"x")?;
        assert_eq!(Replica::open(&lab.root(decides), None)?.resolve(std::slice::from_ref(&x), keep)?, [x]);
        let decided = conflicts(&lab.root(decides))?;
        assert!(decided[0] == ("d/y".into(), None) && decided[1].1.is_some() && decided.len() == 2, "{decided:?}");
        lab.well(Wish::default())?;
        for root in ["a", "b"] {
            // What is settled is over, the other one is not.
            assert_eq!(conflicts(&lab.root(root))?, [("d/y".into(), None)], "{root}");
            let open: Vec<_> = remembered(&lab.root(root))?.into_iter().flat_map(|(_, _, open)| open).collect();
            assert!(
                open.len() == 2 && open.iter().all(|open| open.path.to_string() == "d/y" && open.decision.is_none()),
                "{open:?}"
            );
            let state = State::open(&lab.root(root).join(".driftless"), Options::standard().mask)?;
            assert!(!state.has_decisions()?, "{root}");
        }
        let options = Options { conflicts: Policy::KeepBoth, ..Options::standard() };
        lab.well(Wish { options, ..through_ssh() })?;
        for wish in [Wish::default(), through_ssh(), Wish::default()] {
            assert!(lab.well(wish)?.0.in_sync);
        }
        lab.equal()?;
        for root in ["a", "b"] {
            assert!(
                conflicts(&lab.root(root))?.is_empty() && remembered(&lab.root(root))?.iter().all(|(_, _, open)| open.is_empty())
            );
        }
    }
    Ok(())
}

#[test]
fn a_conflict_that_comes_again_is_open_again() -> Result<()> {
    let lab = Lab::new("x = one\n", "")?;
    let other = || Wish { key: 3, ..Wish::default() };
    lab.well(other())?;
    for round in 0..3 {
        lab.write("a/x", &format!("ours {round}"))?;
        lab.write("b/x", &format!("theirs {round}"))?;
        lab.well(other())?;
        lab.well(Wish::default())?;
        assert_eq!(conflicts(&lab.root("b"))?, [("x".into(), None)], "{round}");
        let options = Options { conflicts: Policy::Wins(Side::A), ..Options::standard() };
        assert!(lab.well(Wish { options, ..Wish::default() })?.0.in_sync);
        assert!(conflicts(&lab.root("a"))?.is_empty() && conflicts(&lab.root("b"))?.is_empty(), "{round}");
    }
    Ok(())
}

#[test]
fn a_copy_of_a_root_that_bears_its_identity_is_told_and_takes_none_from_it() -> Result<()> {
    let lab = Lab::new("x = one\n", "")?;
    lab.well(Wish::default())?;
    let id = replica(&lab.root("b"))?;
    let copy = |known: bool| -> Result<()> {
        fs::remove_dir_all(lab.root("a"))?;
        fs::create_dir_all(lab.root("a/.driftless"))?;
        for name in ["x", ".driftless/state.db", ".driftless/marker"] {
            fs::copy(lab.root("b").join(name), lab.root("a").join(name))?;
        }
        fs::File::open(lab.root("a/x"))?.set_modified(fs::metadata(lab.root("b/x"))?.modified()?)?;
        if known {
            // As after the clone of a whole machine, which nothing tells from the first one.
            State::open(&lab.root("a/.driftless"), Options::standard().mask)?.record_place()?;
        }
        Ok(())
    };
    // A copy that knows that it is one takes another identity by itself.
    copy(false)?;
    assert!(lab.well(Wish::default())?.0.in_sync);
    assert!(replica(&lab.root("b"))? == id && replica(&lab.root("a"))? != id);
    copy(true)?;
    assert_eq!(replica(&lab.root("a"))?, id);
    assert!(lab.well(Wish { granted: Some(Mode::SendOnly), ..Wish::default() })?.0.in_sync);
    assert!(replica(&lab.root("b"))? == id && replica(&lab.root("a"))? != id);
    copy(true)?;
    lab.write("a/y", "new")?;
    for _ in 0..2 {
        let told = lab.run(Wish::default()).0.err().context("it was stopped")?;
        assert!(matches!(&told, SyncError::Guard(text) if text.contains("bears the identity of")), "{told}");
        assert!(replica(&lab.root("b"))? == id && !lab.root("b/y").exists());
    }
    let options = Options { rejoin: true, ..Options::standard() };
    assert!(lab.well(Wish { options, ..Wish::default() })?.0.in_sync);
    assert_ne!(replica(&lab.root("a"))?, replica(&lab.root("b"))?);
    assert!(lab.well(Wish::default())?.0.in_sync);
    lab.equal()
}

#[test]
fn a_run_ends_with_the_grant_under_which_it_began() -> Result<()> {
    for now in [None, Some(Mode::ReceiveOnly)] {
        // Something to bring, something to fetch, or nothing but to wait for what the user says.
        for (a, b, apply) in [("x = one\n", "", true), ("", "x = one\n", true), ("x = one\n", "", false)] {
            if !apply && now.is_some() {
                continue;
            }
            let lab = Lab::new(a, b)?;
            let granted = std::sync::Mutex::new(Some(Mode::TwoWay));
            let [near, far] = local_pair([1, 2].map(|key| PublicKey::from_bytes([key; 32])), [7; 32]);
            thread::scope(|scope| {
                let grants = |_: &sync_core::peer::Name| *granted.lock().expect("no panic while it is held");
                let host = &lab.host;
                let served = scope.spawn(move || host.serve(far, &grants, &Silent));
                let remote = lab.remote(near, &Wish::default());
                let (a, b) = (Place::Local(lab.root("a")), Place::Remote(remote));
                let mut sync = Sync::open_with(a, b, Options::standard(), &Silent)?;
                *granted.lock().expect("no panic while it is held") = now;
                if apply {
                    let told = sync.apply(&Silent).err().context("it was refused")?.to_string();
                    assert!(told.contains("the grant of folder to this machine"), "{told}");
                    drop(sync);
                }
                let served = served.join().expect("the host does not panic").err().context("it ended")?.to_string();
                assert!(served.contains("while its run was under way"), "{served}");
                Ok::<_, anyhow::Error>(())
            })?;
            assert!(!(lab.root("a/x").exists() && lab.root("b/x").exists()));
        }
    }
    Ok(())
}

#[test]
fn a_deleted_root_stops_the_run_before_anything_is_changed() -> Result<()> {
    let lab = Lab::new("x = one\ny = two\nz = three\n", "")?;
    lab.well(Wish::default())?;
    for name in ["x", "y", "z"] {
        fs::remove_file(lab.root("a").join(name))?;
    }
    let (asked, _) = lab.run(Wish::default());
    let told = asked.err().context("it was stopped")?;
    assert!(matches!(&told, SyncError::Guard(text) if text.contains("all 3 paths")), "{told}");
    assert_eq!(lab.read("b/x")?, "one");
    Ok(())
}

#[test]
fn over_quic_it_is_the_same() -> Result<()> {
    let lab = Lab::new("d/\nd/x = one\ny = two\n", "z = three\n")?;
    let (here, there) = (Identity::generate()?, Identity::generate()?);
    let (here_id, there_id) = (here.id(), there.id());
    let (near, far) = (Network::new(here)?, Network::new(there)?);
    let listener = far.listen("127.0.0.1:0".parse()?, BTreeSet::from([here_id]))?;
    let address: sync_core::peer::Address = listener.address().to_string().parse()?;
    for round in 0..2 {
        let (asked, served) = thread::scope(|scope| {
            let accepted = scope.spawn(|| listener.accept(Duration::from_secs(10)));
            let dialled = near.dial(there_id, std::slice::from_ref(&address), Duration::from_secs(10));
            let accepted = accepted.join().expect("no panic");
            Ok::<_, anyhow::Error>(lab.run_over(dialled?, accepted?, Wish::default()))
        })?;
        served.context("the host")?;
        let (report, bytes) = asked?;
        assert!(report.in_sync && (round == 0 || bytes < 4096), "{bytes} bytes, {report:?}");
        lab.equal()?;
    }
    Ok(())
}

#[test]
fn two_roots_on_other_machines_meet_through_this_one() -> Result<()> {
    let lab = Lab::new("d/x = one\ny = two\n", "z = three\n")?;
    let other = {
        let export = Export { name: "folder".parse()?, path: lab.root("a"), live: None };
        Host::new(vec![export], HostOptions { state_dir: None, keep_versions: None })
    };
    let round = || -> Result<(Report, u64)> {
        let keys = [1, 2, 3].map(|key| PublicKey::from_bytes([key; 32]));
        let ([to_a, at_a], [to_b, at_b]) = (local_pair([keys[0], keys[1]], [7; 32]), local_pair([keys[0], keys[2]], [8; 32]));
        let remote = |connection, shown: &str| {
            let (connection, folder, shown) = (Arc::new(connection), "folder".parse().expect("a name"), shown.to_owned());
            Place::Remote(Remote { connection, folder, sub: RelPath::root(), shown, vouched: None })
        };
        thread::scope(|scope| {
            let served = [
                scope.spawn(|| other.serve(at_a, &|_| Some(Mode::TwoWay), &Silent)),
                scope.spawn(|| lab.host.serve(at_b, &|_| Some(Mode::TwoWay), &Silent)),
            ];
            let run = || {
                let mut sync = Sync::open_with(remote(to_a, "one"), remote(to_b, "two"), Options::standard(), &Silent)?;
                let report = sync.apply(&Silent)?;
                Ok::<_, SyncError>((report, sync.traffic().sent + sync.traffic().received))
            };
            let done = run();
            for served in served {
                served.join().expect("no panic").context("a host")?;
            }
            Ok(done?)
        })
    };
    assert!(round()?.0.in_sync);
    lab.equal()?;
    lab.write("a/y", "edited at one")?;
    lab.write("b/z", "edited at two")?;
    assert!(round()?.0.in_sync);
    lab.equal()?;
    assert_eq!(lab.read("a/z")?, "edited at two");
    let (report, bytes) = round()?;
    assert!(report.in_sync && bytes < 4096, "{bytes} bytes");
    Ok(())
}

/// A number that looks random, from one that counts.
fn scattered(number: u64) -> u64 {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33
}

/// What comes through a pipe, up to where it is cut.
struct Cut {
    pipe: std::io::PipeReader,
    /// Bytes that may still come, both ways together.
    left: Arc<AtomicU64>,
}

impl Read for Cut {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left.load(Ordering::Relaxed)).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.pipe.read(&mut buffer[..most])?;
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(count as u64)));
        Ok(count)
    }
}

/// A connection through pipes that are cut after so many bytes, both ways together.
fn through_pipes(machines: &[Network; 2], cut: u64) -> Result<[Connection; 2], LinkError> {
    const WAIT: Duration = Duration::from_secs(20);
    let [near, far] = machines;
    let pipe = || std::io::pipe().expect("there are pipes");
    let ((at_near, from_far), (at_far, from_near)) = (pipe(), pipe());
    let left = Arc::new(AtomicU64::new(cut));
    let (at_near, at_far) = (Cut { pipe: at_near, left: left.clone() }, Cut { pipe: at_far, left });
    thread::scope(|scope| {
        let id = near.identity().id();
        let answered = scope.spawn(move || far.answer_through(id, Box::new(at_far), Box::new(from_far), WAIT));
        let called = near.call_through(far.identity().id(), Box::new(at_near), Box::new(from_near), WAIT);
        let answered = answered.join().expect("no panic");
        Ok([called?, answered?])
    })
}

#[test]
fn a_connection_cut_anywhere_loses_nothing_and_the_next_run_goes_on() -> Result<()> {
    let lab = Lab::new("", "")?;
    let machines = [Network::new(Identity::generate()?)?, Network::new(Identity::generate()?)?];
    let mut expected = std::collections::BTreeMap::new();
    let mut broken = 0;
    for round in 0..340 {
        // Each side writes files of its own, so that nothing is a conflict.
        for (side, root) in ["a", "b"].into_iter().enumerate() {
            for file in 0..3 {
                let number = scattered(round * 6 + side as u64 * 3 + file);
                let name = format!("{root}{}/{}", number % 4, number / 4 % 5);
                // What packs badly: the connection is to carry it.
                let text: String = (0..number % 3000).map(|at| format!("{:x}", scattered(number * 4096 + at))).collect();
                let path = lab.root(root).join(&name);
                fs::create_dir_all(path.parent().context("it has one")?)?;
                fs::write(&path, &text)?;
                expected.insert(name, text);
            }
        }
        let whole = round % 10 == 9;
        let cut = if whole { u64::MAX } else { 3_000 + scattered(1_000_000 + round) % 90_000 };
        let (asked, served) = match through_pipes(&machines, cut) {
            Ok([near, far]) => lab.run_over(near, far, Wish::default()),
            Err(_) if !whole => {
                broken += 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match asked {
            Ok((report, _)) => assert!(report.in_sync, "round {round}: {report:?}"),
            Err(error) if whole => return Err(error).with_context(|| format!("round {round}, {served:?}")),
            Err(_) => broken += 1,
        }
        if whole {
            lab.equal().with_context(|| format!("round {round}"))?;
            for (name, text) in &expected {
                ensure!(&lab.read(&format!("a/{name}"))? == text, "round {round}: {name} is another");
            }
            let tree = Tree::read(&lab.root("a"))?;
            assert_eq!(
                tree.iter().filter(|(_, node)| matches!(node.content, fixtures::tree::Content::File(_))).count(),
                expected.len()
            );
        }
    }
    ensure!(broken >= 300, "{broken} of 306 runs were broken off");
    Ok(())
}
