//! Opening, locks, crashes, damage, identity, records; size on disk.

use super::tests::{MASK, all, commit, dir, dir_row, file, file_row, id, know, memory, path, remove, sig, vector};
use super::*;
use crate::knowledge::{Creation, Event};
use proptest::prelude::*;
use std::path::Path;
use std::time::{Duration, Instant};

fn open(dir: &Path) -> State {
    State::open(dir, MASK).unwrap()
}

/// What a crash would leave: the files as they are while the state is open.
fn crash_image(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["state.db", "state.db-wal"] {
        if dir.join(name).exists() {
            std::fs::copy(dir.join(name), copy.path().join(name)).unwrap();
        }
    }
    copy
}

#[test]
fn a_state_that_was_closed_opens_with_all_it_had() {
    let root = tempfile::tempdir().unwrap();
    assert!(!State::exists(root.path()));
    let state = open(root.path());
    assert!(state.created() && state.moved().is_none());
    let event = state.tick().unwrap();
    let theirs = Change::Learn { path: path("x"), learn: know(&[(2, 3)]), bound: know(&[]) };
    commit(&state, vec![dir("d", event), file("d/f", 5, event), theirs]);
    let (me, instance, seq, root_listing) = (state.id(), state.instance(), state.seq(), all(&state, ""));
    state.close().unwrap();
    assert!(State::exists(root.path()));
    let state = open(root.path());
    assert!(!state.created() && state.moved().is_none());
    assert_eq!((state.id(), state.instance(), state.seq(), all(&state, "")), (me, instance, seq, root_listing));
    assert_eq!((state.live().unwrap(), state.counter()), (2, 1));
    assert_eq!(state.check().unwrap(), Vec::<String>::new());
    assert_eq!(state.quick_check().unwrap(), Vec::<String>::new());
    assert_eq!(state.tick().unwrap().counter, 2, "a clean end leaves no gap");
}

#[test]
fn opening_and_closing_without_a_change_writes_nothing() {
    let root = tempfile::tempdir().unwrap();
    open(root.path()).close().unwrap();
    let before = std::fs::read(root.path().join("state.db")).unwrap();
    let state = open(root.path());
    assert!(state.remembers((0, 0)).unwrap());
    state.prune().unwrap();
    state.listing(&path("a"), &Filter::All).unwrap();
    state.close().unwrap();
    assert_eq!(std::fs::read(root.path().join("state.db")).unwrap(), before);
}

#[test]
fn a_directory_that_goes_and_comes_back_is_looked_into_anew() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    let paths = ["d", "d/x", "d/y", "e/x"].map(path);
    let live = || {
        let single: Vec<bool> = paths.iter().map(|path| state.entry(path).unwrap().is_some()).collect();
        let together: Vec<bool> = state.entries(&paths).unwrap().iter().map(Option::is_some).collect();
        assert_eq!(single, together);
        // Of the directory that was looked into last, once more.
        assert_eq!(state.entry(&paths[2]).unwrap().is_some(), single[2]);
        assert_eq!(state.entry(&paths[1]).unwrap().is_some(), single[1]);
        single
    };
    let event = state.tick().unwrap();
    commit(&state, vec![dir("d", event), file("d/x", 1, event)]);
    assert_eq!(live(), [true, true, false, false]);
    commit(&state, vec![remove("d/x", state.tick().unwrap())]);
    assert_eq!(live(), [true, false, false, false]);
    // Its node goes, and another one comes.
    commit(&state, vec![Change::Forget { path: path("d") }]);
    assert_eq!(live(), [false; 4]);
    let event = state.tick().unwrap();
    commit(&state, vec![dir("d", event), file("d/y", 1, event)]);
    assert_eq!(live(), [true, false, true, false]);
}

#[test]
fn only_one_opening_holds_the_state() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    let Err(StateError::Locked { holder, .. }) = State::open(root.path(), MASK) else { panic!("not locked") };
    assert!(holder.starts_with(&format!("process {}, which is this one", std::process::id())), "{holder}");
    drop(state);
    // A left-over file with somebody's name is no lock.
    assert!(root.path().join("state.lock").exists());
    drop(open(root.path()));
}

#[test]
fn whoever_waits_for_this_process_to_let_go_finds_the_state_free() {
    let root = tempfile::tempdir().unwrap();
    for _ in 0..100 {
        let state = open(root.path());
        let ended = std::thread::spawn(move || drop(state));
        let until = Instant::now() + Duration::from_secs(60);
        let again = loop {
            match State::open(root.path(), MASK) {
                Err(StateError::Locked { own: true, .. }) if Instant::now() < until => {
                    State::wait_for_release(root.path(), until - Instant::now())
                }
                opened => break opened.unwrap(),
            }
        };
        drop(again);
        ended.join().unwrap();
    }
}

#[test]
fn another_process_that_holds_the_lock_is_respected() {
    let root = tempfile::tempdir().unwrap();
    drop(open(root.path()));
    let lock = root.path().join("state.lock");
    std::fs::write(&lock, "of some earlier boot\n1\n1\nsomebody\n").unwrap();
    let mut child = std::process::Command::new("flock")
        .args(["--exclusive".as_ref(), lock.as_os_str(), "sh".as_ref(), "-c".as_ref(), "echo; read x".as_ref()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    let Err(StateError::Locked { holder, own: false, .. }) = State::open(root.path(), MASK) else { panic!("not locked") };
    assert_eq!(holder, "another process", "the note is not of this boot");
    drop(child.stdin.take());
    child.wait().unwrap();
    drop(open(root.path()));
}

#[test]
fn a_newer_schema_is_refused_and_left_untouched() {
    let root = tempfile::tempdir().unwrap();
    open(root.path()).close().unwrap();
    let file = root.path().join("state.db");
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(&file).unwrap();
    let result = State::open(root.path(), MASK);
    assert!(matches!(result, Err(StateError::Newer { found: 99, .. })), "{result:?}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

fn assert_moved_aside(root: &Path) {
    let result = State::open(root, MASK);
    let Err(StateError::Damaged { moved_to, .. }) = result else { panic!("{result:?}") };
    assert!(moved_to.exists() && !root.join("state.db").exists() && !State::exists(root));
    assert!(open(root).created(), "the next opening begins anew");
}

#[test]
fn a_damaged_file_is_moved_aside_and_said() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("state.db"), b"this is no state, whatever it is").unwrap();
    assert_moved_aside(root.path());
    std::fs::remove_file(root.path().join("state.db")).unwrap();
    std::fs::write(root.path().join("state.db"), vec![7; 1 << 16]).unwrap();
    assert_moved_aside(root.path());
}

#[test]
fn a_state_with_overwritten_pages_is_moved_aside() {
    let root = tempfile::tempdir().unwrap();
    open(root.path()).close().unwrap();
    let file = root.path().join("state.db");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4096..].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    assert_moved_aside(root.path());
}

#[test]
fn a_foreign_database_is_no_state() {
    let root = tempfile::tempdir().unwrap();
    let conn = Connection::open(root.path().join("state.db")).unwrap();
    conn.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(conn);
    assert_moved_aside(root.path());
}

#[test]
fn a_creation_that_was_cut_short_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("state.db"), b"").unwrap();
    assert!(open(root.path()).created());
    std::fs::remove_file(root.path().join("state.db")).unwrap();
    let conn = Connection::open(root.path().join("state.db")).unwrap();
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    drop(conn);
    assert!(open(root.path()).created());
}

#[test]
fn what_was_not_committed_is_gone_after_a_crash() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    let event = state.tick().unwrap();
    commit(&state, vec![file("a", 1, event)]);
    let result = state.write(true, |tx| {
        commit::apply(tx, &file("b", 1, event))?;
        let image = crash_image(root.path());
        let after = open(image.path());
        assert!(after.entry(&path("a"))?.is_some() && after.entry(&path("b"))?.is_none());
        assert_eq!(after.check()?, Vec::<String>::new());
        Ok(())
    });
    result.unwrap();
    assert!(state.entry(&path("b")).unwrap().is_some());
}

#[test]
fn a_counter_is_never_used_twice_whatever_the_crash() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    let mut highest = 0;
    for n in 1..=1500 {
        let event = state.tick().unwrap();
        assert_eq!(event.counter, n);
        highest = n;
    }
    let image = crash_image(root.path());
    let after = open(image.path());
    assert!(after.moved().is_some(), "the copy lies elsewhere");
    let next = after.tick().unwrap().counter;
    assert!(next > highest && next <= 2 * 1024 + 1, "{next}");
    assert_eq!(after.counter(), 0, "none of them stands in the rows");
}

#[test]
fn a_peer_that_has_seen_more_than_the_lineage_holds_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    let first = state.tick().unwrap();
    commit(&state, vec![file("a", 1, first)]);
    let nonce = state.nonce().unwrap();
    assert!(state.remembers((0, 0)).unwrap() && state.remembers((1, nonce)).unwrap());
    assert!(!state.remembers((2, nonce)).unwrap() && !state.remembers((1, nonce ^ 1)).unwrap());
    let backup = crash_image(root.path());
    let second = state.tick().unwrap();
    commit(&state, vec![file("a", 2, second)]);
    let seen = (state.counter(), state.nonce().unwrap());
    assert!(state.remembers(seen).unwrap());
    state.close().unwrap();
    let state = open(root.path());
    assert!(state.remembers(seen).unwrap(), "an ordinary restart");
    assert_ne!(state.nonce().unwrap(), nonce);
    assert!(state.remembers(seen).unwrap());
    // The backup never saw the second event; its counter jumps beyond it all the same.
    let restored = open(backup.path());
    let third = restored.tick().unwrap();
    commit(&restored, vec![file("a", 3, third)]);
    assert!(restored.counter() > seen.0);
    assert!(!restored.remembers(seen).unwrap());
}

#[test]
fn a_new_identity_keeps_the_old_component_and_starts_a_new_counter() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    let (old, instance) = (state.id(), state.instance());
    let event = state.tick().unwrap();
    commit(&state, vec![file("a", 1, event)]);
    let nonce = state.nonce().unwrap();
    let new = state.renew_identity().unwrap();
    assert_ne!((new, state.instance()), (old, instance));
    assert_eq!((state.id(), state.counter()), (new, 0));
    assert_eq!(*all(&state, "").sub, Vector::from(event));
    assert!(!state.remembers((1, nonce)).unwrap());
    assert_eq!(state.check().unwrap(), Vec::<String>::new());
    let next = state.tick().unwrap();
    assert_eq!(next, Event { replica: new, counter: 1 });
    commit(&state, vec![file("b", 1, next)]);
    assert_eq!(state.entry(&path("a")).unwrap().unwrap().row.m, Vector::from(event));
    state.close().unwrap();
    assert_eq!(open(root.path()).id(), new);
}

#[test]
fn a_copied_state_says_that_it_moved_until_its_place_is_recorded() {
    let root = tempfile::tempdir().unwrap();
    open(root.path()).close().unwrap();
    let image = crash_image(root.path());
    let copy = open(image.path());
    assert!(copy.moved().unwrap().contains("inode"), "{:?}", copy.moved());
    copy.record_place().unwrap();
    drop(copy);
    assert_eq!(open(image.path()).moved(), None);
    let again = crash_image(image.path());
    let copy = open(again.path());
    copy.renew_identity().unwrap();
    drop(copy);
    assert_eq!(open(again.path()).moved(), None);
}

#[test]
fn threads_read_while_one_writes() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    let event = state.tick().unwrap();
    commit(&state, vec![dir("d", event)]);
    let node = state.node(&path("d")).unwrap().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let known = state.known(node).unwrap().len();
                    let listing = all(&state, "d");
                    // The digest belongs to the rows it came with.
                    assert_eq!(listing.children.is_empty(), listing.digest == crate::entry::Digest::default());
                    assert!(listing.children.len() >= known);
                    if known == 200 {
                        break;
                    }
                }
            });
        }
        for n in 0..200 {
            state.commit(Batch { changes: vec![file(&format!("d/{n:03}"), n, event)], ..Batch::default() }, false).unwrap();
        }
    });
    assert_eq!(state.check().unwrap(), Vec::<String>::new());
}

/// Written by the first released schema; it must open for ever.
const SCHEMA_1: &str = include_str!("fixture_schema_1.sql");

#[test]
fn a_state_of_the_first_schema_opens() {
    let root = tempfile::tempdir().unwrap();
    let conn = Connection::open(root.path().join("state.db")).unwrap();
    conn.execute_batch(SCHEMA_1).unwrap();
    drop(conn);
    let state = open(root.path());
    assert_eq!(state.check().unwrap(), Vec::<String>::new());
    assert_eq!((state.id(), state.counter(), state.live().unwrap()), (id(1), 2, 3));
    let row = |n, m: &[(u8, u64)]| file_row(n, vector(m), vector(m).iter().collect());
    let entry = state.entry(&path("d/f")).unwrap().unwrap();
    assert_eq!((entry.row, entry.signature), (row(7, &[(1, 1)]), sig(7)));
    let entry = state.entry(&path("g")).unwrap().unwrap();
    assert_eq!((entry.row, entry.own), (row(9, &[(2, 4)]), Some(know(&[(2, 4), (3, 1)]))));
    let listing = all(&state, "");
    assert_eq!(*listing.sub, vector(&[(1, 2), (4, 2)]));
    assert!(all(&state, "d").children.iter().any(|child| child.row.is_none()), "a ghost");
    assert_eq!(state.peers().unwrap().len(), 1);
    assert_eq!(state.pending(id(2)).unwrap().len(), 1);
    assert_eq!(state.intents().unwrap().len(), 1);
    assert_eq!(state.versions(&path("")).unwrap().len(), 1);
    assert!(state.places().unwrap().is_empty());
    assert_eq!(state.tick().unwrap().counter, 1025);
}

/// The rows that the fixture holds.
fn fixture_state(root: &Path) -> State {
    let state = open(root);
    let event = state.tick().unwrap();
    commit(&state, vec![dir("d", event), file("d/f", 7, event), file("d/h", 1, event)]);
    let event = state.tick().unwrap();
    let m = vector(&[(2, 4)]);
    let row = file_row(9, m.clone(), m.iter().collect());
    commit(
        &state,
        vec![
            Change::Remove { path: path("d/h"), learn: None, bound: Arc::new(event.into()) },
            Change::Put { path: path("g"), row, signature: sig(9), learn: Some(know(&[(2, 4), (3, 1)])) },
            Change::Raise { path: path(""), s: Some(know(&[(4, 2)])), bound: know(&[(4, 2)]), gaps: false },
        ],
    );
    state.put_peer(id(2), &peer()).unwrap();
    state.put_pending(id(2), &[pending("p/q")]).unwrap();
    state.intend(&[intent()], false).unwrap();
    state.commit(Batch { versions: vec![kept("d/h", 5)], ..Batch::default() }, false).unwrap();
    state
}

#[test]
fn what_the_fixture_holds_can_still_be_written() {
    let root = tempfile::tempdir().unwrap();
    let state = fixture_state(root.path());
    assert_eq!(state.check().unwrap(), Vec::<String>::new());
    assert_eq!(state.live().unwrap(), 3);
}

fn peer() -> Peer {
    Peer { instance: u64::MAX, incorporated: 7, seen: (3, u64::MAX - 1), location: b"/srv/b\xff".to_vec() }
}

fn pending(at: &str) -> Pending {
    let row = dir_row(vector(&[(2, 1), (3, 9)]), Creation::default());
    Pending { path: path(at), why: Some(Open::Conflict), theirs: Some(row), known: vector(&[(2, 1)]), decision: None }
}

fn kept(at: &str, ns: i64) -> NewVersion {
    NewVersion {
        name: at.replace('/', "-").into_bytes(),
        path: path(at),
        kind: Kind::File,
        signature: sig(3),
        hash: Some(Hash([5; 32])),
        kept_at_ns: ns,
        reason: REASONS[1],
    }
}

fn intent() -> Intent {
    let event = Event { replica: id(1), counter: 1 };
    Intent {
        path: path("a/b"),
        staged: b"7f".to_vec(),
        staged_signature: Some(sig(1)),
        expect: None,
        changes: vec![dir("a", event), file("a/b", 3, event)],
        version: Some(kept("a/b", 1)),
    }
}

#[test]
fn records_come_back_as_they_were_written() {
    let state = memory();
    assert_eq!(state.peer(id(2)).unwrap(), None);
    state.put_peer(id(2), &peer()).unwrap();
    state.put_peer(id(2), &Peer { incorporated: 8, ..peer() }).unwrap();
    assert_eq!(state.peer(id(2)).unwrap().unwrap().incorporated, 8);
    assert_eq!(state.peers().unwrap(), [(id(2), Peer { incorporated: 8, ..peer() })]);
    let failed = Pending { why: None, theirs: None, ..pending("a") };
    state.put_pending(id(2), &[pending("a.b"), pending("a/c"), failed.clone()]).unwrap();
    assert_eq!(state.pending(id(2)).unwrap(), [failed, pending("a/c"), pending("a.b")]);
    state.decide(id(2), &path("a/c"), Some(Decision::Both)).unwrap();
    assert_eq!(state.pending(id(2)).unwrap()[1].decision, Some(Decision::Both));
    state.put_pending(id(2), &[]).unwrap();
    assert_eq!(state.pending(id(2)).unwrap(), []);
    state.put_meta("rules", b"hash").unwrap();
    assert_eq!(state.meta("rules").unwrap(), Some(b"hash".to_vec()));
    assert_eq!(state.meta("other").unwrap(), None);
}

#[test]
fn versions_are_found_at_and_below_a_path() {
    let state = memory();
    let versions = vec![kept("a", 1), kept("a/b", 2), kept("a-c", 3), kept("a/b/c", 4)];
    state.commit(Batch { versions, ..Batch::default() }, false).unwrap();
    let paths = |found: Vec<Version>| found.iter().map(|v| v.kept.path.to_string()).collect::<Vec<_>>();
    assert_eq!(paths(state.versions(&path("a")).unwrap()), ["a/b/c", "a/b", "a"]);
    assert_eq!(paths(state.versions(&path("")).unwrap()), ["a/b/c", "a-c", "a/b", "a"]);
    let old = state.versions_before(4, (i64::MIN, i64::MIN), 2).unwrap();
    assert_eq!(old[0].kept, kept("a", 1));
    assert_eq!(paths(old.clone()), ["a", "a/b"]);
    state.forget_version(old[0].id).unwrap();
    assert_eq!(paths(state.versions(&path("a")).unwrap()), ["a/b/c", "a/b"]);
}

#[test]
fn intents_survive_until_they_are_settled() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    let ids = state.intend(&[intent(), intent()], true).unwrap();
    drop(state);
    let state = open(root.path());
    assert_eq!(state.intents().unwrap(), [(ids[0], intent()), (ids[1], intent())]);
    state.commit(Batch { settled: ids.clone(), ..Batch::default() }, false).unwrap();
    assert_eq!(state.intents().unwrap(), []);
    assert!(state.intend(&[intent()], false).unwrap()[0] > ids[1], "a number is never used again");
}

#[allow(clippy::print_stdout)] // the numbers are what one runs it for
fn tell(text: &str) {
    println!("{text}");
}

/// 200,000 files of 15-byte names in 2,000 directories, sorted, in one transaction.
fn many(state: &State) -> u64 {
    let event = state.tick().unwrap();
    let mut changes = Vec::new();
    for d in 0..2_000 {
        changes.push(dir(&format!("d{d:04}"), event));
        for f in 0..100 {
            let n = d * 100 + f;
            changes.push(Change::Put {
                path: path(&format!("d{d:04}/name-{n:06}.dat")),
                row: file_row(4096 + n, event.into(), event.into()),
                signature: Signature { ctime_ns: 1_760_000_000_123_456_789, ..sig(4096 + n) },
                learn: None,
            });
        }
    }
    let started = Instant::now();
    state.commit(Batch { changes, ..Batch::default() }, false).unwrap();
    let took = started.elapsed();
    tell(&format!("{:.2} µs a row written", took.as_secs_f64() * 1e6 / 202_000.0));
    200_000
}

#[test]
fn a_file_takes_less_than_150_bytes() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    let files = many(&state);
    let started = Instant::now();
    let mut read = 0;
    for d in state.known(NodeId::ROOT).unwrap() {
        read += state.known(d.node.unwrap()).unwrap().len() as u64;
    }
    let took: Duration = started.elapsed();
    tell(&format!("{:.2} µs a row read", took.as_secs_f64() * 1e6 / files as f64));
    assert_eq!(read, files);
    state.close().unwrap();
    let bytes = std::fs::metadata(root.path().join("state.db")).unwrap().len();
    tell(&format!("{} bytes a file", bytes / files));
    assert!(bytes / files < 150, "{} bytes a file", bytes / files);
}

fn vectors() -> impl Strategy<Value = Vector> {
    prop::collection::vec((0u8..4, any::<u64>()), 0..5)
        .prop_map(|events| events.into_iter().map(|(r, t)| Event { replica: id(r), counter: t }).collect())
}

fn signatures() -> impl Strategy<Value = Signature> {
    (any::<(u64, u64, u64)>(), any::<(i64, i64, i64)>(), any::<(u32, u32, u32)>(), any::<bool>()).prop_map(
        |((dev, ino, size), (mtime_ns, ctime_ns, btime_ns), (mode, uid, gid), racy)| Signature {
            dev,
            ino,
            size,
            mtime_ns,
            ctime_ns,
            btime_ns,
            mode,
            uid,
            gid,
            racy,
        },
    )
}

fn rows() -> impl Strategy<Value = Row> {
    use crate::entry::{Attrs, Content, Object};
    let content = prop_oneof![
        Just(Content::Dir),
        (any::<u64>(), any::<Option<[u8; 32]>>()).prop_map(|(size, h)| Content::File { size, hash: h.map(Hash) }),
        any::<Vec<u8>>().prop_map(|target| Content::Symlink(target.into())),
    ];
    let attrs = any::<(u32, u32, u32, i64)>().prop_map(|(mode, uid, gid, mtime_ns)| Attrs { mode, uid, gid, mtime_ns });
    (content, attrs, vectors(), vectors()).prop_map(|(content, attrs, m, c)| Row {
        object: Object { content, attrs },
        m,
        c: c.iter().collect(),
    })
}

fn changes() -> impl Strategy<Value = Change> {
    let at = || prop::sample::select(vec!["", "a", "a/b", "\u{fc}/c"]).prop_map(path);
    let learn = || prop::option::of(vectors().prop_map(Arc::new));
    let bound = || vectors().prop_map(Arc::new);
    prop_oneof![
        (at(), rows(), signatures(), learn())
            .prop_map(|(path, row, signature, learn)| { Change::Put { path, row, signature, learn } }),
        (at(), learn(), bound()).prop_map(|(path, learn, bound)| Change::Remove { path, learn, bound }),
        (at(), learn(), bound()).prop_map(|(path, learn, bound)| Change::RemoveTree { path, learn, bound }),
        (at(), bound(), bound()).prop_map(|(path, learn, bound)| Change::Learn { path, learn, bound }),
        (at(), learn(), bound(), any::<bool>()).prop_map(|(path, s, bound, gaps)| Change::Raise { path, s, bound, gaps }),
        (at(), signatures(), any::<Option<[u8; 32]>>(), any::<Option<i64>>())
            .prop_map(|(path, signature, hash, mtime_ns)| Change::Refresh { path, signature, hash: hash.map(Hash), mtime_ns }),
        at().prop_map(|path| Change::Forget { path }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn intents_are_decoded_as_they_were_encoded(
        changes in prop::collection::vec(changes(), 0..4),
        sigs in (prop::option::of(signatures()), prop::option::of(signatures())),
        with_version in any::<bool>(),
    ) {
        let version = with_version.then(|| kept("a/b", 1));
        let intent = Intent { staged_signature: sigs.0, expect: sigs.1, changes, version, ..intent() };
        let blob = codec::encode_intent(&intent).unwrap();
        prop_assert_eq!(codec::decode_intent(&blob).unwrap(), intent);
        for cut in 0..blob.len() {
            prop_assert!(codec::decode_intent(&blob[..cut]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in any::<Vec<u8>>()) {
        let mut versioned = vec![1];
        versioned.extend(&bytes);
        for bytes in [&bytes, &versioned] {
            let _ = codec::decode_intent(bytes);
            let _ = codec::decode_row(bytes);
            let _ = codec::decode_vector(bytes);
            let _ = encode::signature_column(bytes);
            let _ = encode::attrs_and_size(&sig(1), Some(bytes));
        }
    }

    #[test]
    fn columns_are_decoded_as_they_were_encoded(row in rows(), sig in signatures()) {
        let mut blob = encode::Blob::new();
        encode::signature(&mut blob, &sig);
        prop_assert_eq!(encode::signature_column(&blob).unwrap(), sig);
        let attrs = encode::overrides(&row.object, &sig);
        let object =
            encode::object(row.object.kind(), &sig, encode::content_column(&row.object), attrs.as_deref()).unwrap();
        prop_assert_eq!(object, row.object);
    }
}

#[test]
fn what_lies_elsewhere_is_read_as_it_was_recorded() {
    use crate::io::fs::{Cold, ColdId, Placement, Rewritten};
    use crate::io::state::PlaceChange;
    use std::sync::Arc;
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    let cold = Arc::new(Cold {
        id: ColdId([1; 16]),
        path: "/cold".into(),
        key: "k".into(),
        claim: crate::io::fs::Claim::default(),
        generation: crate::io::fs::Generation::default(),
    });
    state.put_cold(&cold).unwrap();
    let link = |disk: &[u8]| Rewritten { disk: disk.into(), target: b"../x"[..].into() };
    let mut placement = Placement {
        path: path("2026/03/05"),
        cold: cold.clone(),
        at: path("other/05"),
        job: "days".into(),
        stamp: ColdId([2; 16]),
        link: b"/cold/other/05"[..].into(),
        other_link: Some(b"../05"[..].into()),
        settled: false,
        rewritten: [(path("l"), link(b"/x")), (path("sub/l"), link(b"/y"))].into(),
    };
    let beside = Placement { path: path("2026/03/05-b"), rewritten: [(path("l"), link(b"/z"))].into(), ..placement.clone() };
    let commit = |places| state.commit(Batch { places, ..Batch::default() }, true).unwrap();
    let read = |at: &str| state.places().unwrap().get(&path(at)).map(|found| Placement::clone(found));
    commit(vec![PlaceChange::Put(placement.clone()), PlaceChange::Put(beside.clone())]);
    assert_eq!(read("2026/03/05"), Some(placement.clone()));
    commit(vec![PlaceChange::Settle(path("2026/03/05"))]);
    placement.settled = true;
    assert_eq!(read("2026/03/05"), Some(placement.clone()));
    placement.rewritten.remove(&path("l"));
    placement.other_link = None;
    commit(vec![PlaceChange::Put(placement.clone())]);
    drop(state);
    let state = open(root.path());
    let read = |at: &str| state.places().unwrap().get(&path(at)).map(|found| Placement::clone(found));
    assert_eq!(read("2026/03/05"), Some(placement));
    state.commit(Batch { places: vec![PlaceChange::Drop(path("2026/03/05"))], ..Batch::default() }, true).unwrap();
    assert_eq!((read("2026/03/05"), read("2026/03/05-b")), (None, Some(beside)));
    assert_eq!(state.places().unwrap().colds(), [cold]);
}
