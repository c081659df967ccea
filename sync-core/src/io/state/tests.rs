//! Each change of rows, with everything recomputed afterwards.

use super::*;
use crate::entry::{Attrs, Content, Object, Same};
use crate::knowledge::{Creation, Event};
use crate::store::Child;
use std::collections::BTreeSet;

pub(super) const MASK: AttrMask = AttrMask { perms: true, owner: false, times: true };

pub(super) fn id(n: u8) -> ReplicaId {
    ReplicaId([n; 16])
}

pub(super) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

pub(super) fn vector(events: &[(u8, u64)]) -> Vector {
    events.iter().map(|(r, t)| Event { replica: id(*r), counter: *t }).collect()
}

pub(super) fn know(events: &[(u8, u64)]) -> Arc<Vector> {
    Arc::new(vector(events))
}

pub(super) fn sig(n: u64) -> Signature {
    Signature {
        dev: 64_769,
        ino: 1_000_000 + n,
        size: n,
        mtime_ns: 1_700_000_000_000_000_000 + n as i64,
        ctime_ns: 1_700_000_000_500_000_000,
        btime_ns: 1_700_000_000_000_000_000,
        mode: 0o100_644,
        uid: 1000,
        gid: 1000,
        racy: false,
    }
}

pub(super) fn file_row(n: u64, m: Vector, c: Creation) -> Row {
    let content = Content::File { size: n, hash: Some(Hash(*blake3::hash(&n.to_le_bytes()).as_bytes())) };
    Row { object: Object { content, attrs: sig(n).attrs() }, m, c }
}

pub(super) fn dir_row(m: Vector, c: Creation) -> Row {
    Row { object: Object { content: Content::Dir, attrs: Attrs { mode: 0o755, ..Attrs::default() } }, m, c }
}

pub(super) fn file(at: &str, n: u64, event: Event) -> Change {
    Change::Put { path: path(at), row: file_row(n, event.into(), event.into()), signature: sig(n), learn: None }
}

pub(super) fn dir(at: &str, event: Event) -> Change {
    Change::Put { path: path(at), row: dir_row(event.into(), event.into()), signature: sig(1), learn: None }
}

pub(super) fn remove(at: &str, event: Event) -> Change {
    Change::Remove { path: path(at), learn: None, bound: Arc::new(event.into()) }
}

pub(super) fn memory() -> State {
    State::in_memory(id(1), MASK).unwrap()
}

/// Commits and checks everything.
pub(super) fn commit(state: &State, changes: Vec<Change>) {
    state.commit(Batch { changes, ..Batch::default() }, false).unwrap();
    assert_eq!(state.check().unwrap(), Vec::<String>::new());
}

pub(super) fn all(state: &State, at: &str) -> Listing {
    state.listing(&path(at), &Filter::All).unwrap()
}

fn since(state: &State, at: &str, after: u64, also: &[&str]) -> Vec<String> {
    let also: BTreeSet<RelPath> = also.iter().map(|p| path(p)).collect();
    let filter = Filter::Since { after, also: Arc::new(also) };
    let listing = state.listing(&path(at), &filter).unwrap();
    assert!(!listing.full);
    listing.children.iter().map(name_of).collect()
}

fn name_of(child: &Child) -> String {
    String::from_utf8(child.name.as_bytes().to_vec()).unwrap()
}

fn child(state: &State, at: &str) -> Option<Child> {
    let (dir, name) = path(at).split().unwrap();
    let listing = state.listing(&dir, &Filter::All).unwrap();
    listing.children.into_iter().find(|child| child.name == name)
}

fn refused(state: &State, change: Change) {
    let before = (state.seq(), state.live().unwrap());
    let result = state.commit(Batch { changes: vec![change], ..Batch::default() }, false);
    assert!(matches!(result, Err(StateError::Invariant { .. })), "{result:?}");
    assert_eq!(before, (state.seq(), state.live().unwrap()));
    assert_eq!(state.check().unwrap(), Vec::<String>::new());
}

#[test]
fn a_new_state_has_a_root_and_nothing_else() {
    let state = memory();
    assert_eq!(state.live().unwrap(), 0);
    assert_eq!(state.node(&RelPath::root()).unwrap(), Some(NodeId::ROOT));
    assert_eq!(state.entry(&RelPath::root()).unwrap().unwrap().row.object.kind(), Kind::Dir);
    let listing = all(&state, "");
    assert!(listing.full && listing.children.is_empty() && listing.sub.is_empty());
    assert_eq!(state.check().unwrap(), Vec::<String>::new());
}

#[test]
fn a_put_raises_the_bounds_above_and_the_digest() {
    let state = memory();
    let event = state.tick().unwrap();
    commit(&state, vec![dir("d", event), dir("d/e", event), file("d/e/f", 7, event)]);
    assert_eq!(state.live().unwrap(), 3);
    let root = all(&state, "");
    assert_eq!(*root.sub, vector(&[(1, 1)]));
    assert_eq!(*root.bound, vector(&[(1, 1)]));
    assert_ne!(root.digest, crate::entry::Digest::default());
    let before = root.digest;
    let next = state.tick().unwrap();
    commit(&state, vec![file("d/e/f", 8, next)]);
    assert_ne!(all(&state, "").digest, before);
    assert_eq!(*all(&state, "d").bound, vector(&[(1, 2)]));
    let entry = state.entry(&path("d/e/f")).unwrap().unwrap();
    assert_eq!((entry.row, entry.signature), (file_row(8, next.into(), next.into()), sig(8)));
}

#[test]
fn equal_trees_have_equal_digests_whatever_their_history() {
    let (a, b) = (memory(), memory());
    let event = a.tick().unwrap();
    commit(&a, vec![dir("d", event), file("d/f", 7, event), file("g", 1, event)]);
    for n in 1..4 {
        let event = b.tick().unwrap();
        commit(&b, vec![dir("d", event), file("d/f", n, event), file("d/x", n, event)]);
    }
    let event = b.tick().unwrap();
    commit(&b, vec![file("g", 1, event), file("d/f", 7, event), remove("d/x", event)]);
    assert_eq!(all(&a, "").digest, all(&b, "").digest);
}

#[test]
fn a_put_without_a_live_directory_above_is_refused() {
    let state = memory();
    let event = state.tick().unwrap();
    commit(&state, vec![file("f", 1, event)]);
    refused(&state, file("d/f", 1, event));
    refused(&state, file("f/g", 1, event));
    commit(&state, vec![Change::Raise { path: path("ghost"), s: Some(know(&[(2, 1)])), bound: know(&[(2, 1)]), gaps: false }]);
    refused(&state, file("ghost/f", 1, event));
}

#[test]
fn an_event_that_was_never_made_is_refused() {
    let state = memory();
    refused(&state, file("f", 1, Event { replica: id(1), counter: 1 }));
    refused(&state, file("f", 1, Event { replica: id(2), counter: 1 }));
    refused(&state, remove("f", Event { replica: id(1), counter: 1 }));
}

#[test]
fn a_directory_with_live_paths_is_neither_removed_nor_replaced() {
    let state = memory();
    let event = state.tick().unwrap();
    commit(&state, vec![dir("d", event), file("d/f", 1, event)]);
    refused(&state, remove("d", event));
    refused(&state, file("d", 1, event));
    refused(&state, Change::Forget { path: RelPath::root() });
    refused(&state, remove("", event));
}

#[test]
fn a_removed_path_stays_as_a_ghost_that_is_heard_of() {
    let state = memory();
    let event = state.tick().unwrap();
    commit(&state, vec![dir("d", event), file("d/f", 1, event)]);
    let (seq, empty) = (state.seq(), state.tick().unwrap());
    commit(&state, vec![remove("d/f", empty)]);
    let ghost = child(&state, "d/f").unwrap();
    assert_eq!((ghost.row, ghost.own, ghost.tree), (None, None, None));
    assert_eq!(*all(&state, "").bound, vector(&[(1, 2)]));
    assert_eq!(since(&state, "", seq, &[]), ["d"]);
    assert_eq!(since(&state, "d", seq, &[]), ["f"]);
    assert_eq!(state.live().unwrap(), 1);
    assert!(state.entry(&path("d/f")).unwrap().is_none());
}

#[test]
fn since_shows_what_changed_and_what_is_asked_for_by_name() {
    let state = memory();
    let event = state.tick().unwrap();
    commit(&state, vec![dir("a", event), file("a/x", 1, event), dir("b", event), file("b/y", 1, event)]);
    let seq = state.seq();
    commit(&state, vec![file("b/z", 2, event)]);
    assert_eq!(since(&state, "", seq, &[]), ["b"]);
    assert_eq!(since(&state, "b", seq, &[]), ["z"]);
    assert_eq!(since(&state, "", seq, &["a/x/never", "c"]), ["a", "b"]);
    assert_eq!(since(&state, "a", seq, &["a/x/never"]), ["x"]);
    assert_eq!(since(&state, "b", seq, &["a/x", "b/y", "b/z"]), ["y", "z"]);
    assert_eq!(since(&state, "", state.seq(), &[]), Vec::<String>::new());
    assert_eq!(since(&state, "", u64::MAX, &[]), Vec::<String>::new());
}

#[test]
fn a_listing_is_full_where_deletions_may_have_left_no_ghosts() {
    let state = memory();
    let full = |at: &str, after: u64| {
        let filter = Filter::Since { after, also: Arc::default() };
        state.listing(&path(at), &filter).unwrap().full
    };
    let event = state.tick().unwrap();
    commit(&state, vec![dir("d", event), file("d/f", 1, event)]);
    let first = state.seq();
    assert!(full("d", 0) && !full("d", first) && !full("", 0), "it came to be");
    let gone = Change::RemoveTree { path: path("d"), learn: None, bound: Arc::new(event.into()) };
    commit(&state, vec![gone]);
    commit(&state, vec![dir("d", event)]);
    assert!(full("d", first) && !full("d", state.seq()), "it came to be anew");
    let before = state.seq();
    let raise = |gaps| Change::Raise { path: path("d"), s: None, bound: know(&[]), gaps };
    commit(&state, vec![raise(false)]);
    assert_eq!(state.seq(), before);
    commit(&state, vec![raise(true)]);
    assert!(full("d", before) && !full("d", state.seq()) && !full("", before), "gaps below it");
    let before = state.seq();
    commit(&state, vec![file("g", 1, event), remove("g", event)]);
    state.prune_to(0).unwrap();
    assert!(full("", before) && full("d", before) && !full("", state.seq()), "ghosts were dropped");
}

#[test]
fn a_large_tree_goes_at_once_and_what_knows_more_stays() {
    let state = memory();
    let event = state.tick().unwrap();
    let theirs = |at: &str, n: u64| Change::Learn { path: path(at), learn: know(&[(2, n)]), bound: know(&[]) };
    let mut changes = vec![dir("d", event)];
    for sub in 0..100 {
        changes.push(dir(&format!("d/{sub:02}"), event));
        for n in 0..100 {
            changes.push(file(&format!("d/{sub:02}/{n:02}"), n, event));
            changes.push(theirs(&format!("d/{sub:02}/{n:02}"), 4));
        }
    }
    changes.push(theirs("d/42/x/y", 5));
    commit(&state, changes);
    let remove = |n: u64| Change::RemoveTree { path: path("d"), learn: Some(know(&[(2, n)])), bound: know(&[(2, n)]) };
    commit(&state, vec![remove(4)]);
    assert_eq!(state.live().unwrap(), 0);
    let names = |at: &str| all(&state, at).children.iter().map(name_of).collect::<Vec<_>>();
    assert_eq!((names("d"), names("d/42"), names("d/42/x")), (vec!["42".into()], vec!["x".into()], vec!["y".into()]));
    assert_eq!(child(&state, "d/42/x/y").unwrap().own, Some(know(&[(2, 5)])));
    assert!(vector(&[(2, 4)]).within(&all(&state, "d/42/x").bound));
    commit(&state, vec![remove(5)]);
    assert!(names("d").is_empty());
}

#[test]
fn a_path_without_rows_inherits_what_its_nearest_ancestor_knows() {
    let state = memory();
    let event = state.tick().unwrap();
    commit(
        &state,
        vec![dir("d", event), Change::Raise { path: path("d"), s: Some(know(&[(2, 5)])), bound: know(&[(2, 5)]), gaps: false }],
    );
    let listing = all(&state, "d/e/f");
    assert_eq!(*listing.sub, vector(&[(1, 1), (2, 5)]));
    assert_eq!(*listing.bound, vector(&[(1, 1), (2, 5)]));
    assert!(listing.children.is_empty());
}

#[test]
fn a_new_directory_begins_with_the_bound_above_it() {
    let state = memory();
    let event = state.tick().unwrap();
    commit(&state, vec![Change::Raise { path: path("d"), s: None, bound: know(&[(2, 9)]), gaps: false }]);
    state.prune_to(0).unwrap();
    assert_eq!(child(&state, "d"), None);
    commit(&state, vec![dir("d", event)]);
    assert_eq!(*child(&state, "d").unwrap().tree.unwrap().bound, vector(&[(1, 1), (2, 9)]));
}

#[test]
fn learning_what_is_known_writes_nothing() {
    let state = memory();
    let learn = |at: &str, v: &[(u8, u64)]| Change::Learn { path: path(at), learn: know(v), bound: know(&[]) };
    commit(&state, vec![learn("a/b", &[(2, 3)])]);
    let seq = state.seq();
    assert!(child(&state, "a").unwrap().tree.is_some());
    assert_eq!(child(&state, "a/b").unwrap().own, Some(know(&[(2, 3)])));
    commit(
        &state,
        vec![learn("a/b", &[(2, 2)]), Change::Raise { path: path("x"), s: Some(know(&[])), bound: know(&[]), gaps: false }],
    );
    assert_eq!(state.seq(), seq);
    commit(&state, vec![Change::Raise { path: path(""), s: Some(know(&[(2, 9)])), bound: know(&[(2, 9)]), gaps: false }]);
    let seq = state.seq();
    commit(&state, vec![learn("q", &[(2, 9)]), learn("a", &[(2, 1)])]);
    assert_eq!(state.seq(), seq);
}

#[test]
fn a_removed_tree_leaves_one_ghost() {
    let state = memory();
    let event = state.tick().unwrap();
    commit(&state, vec![dir("d", event), dir("d/e", event), file("d/e/f", 1, event), file("k", 2, event)]);
    let gone = state.tick().unwrap();
    let learn = Some(know(&[(2, 4)]));
    commit(&state, vec![Change::RemoveTree { path: path("d"), learn, bound: Arc::new(gone.into()) }]);
    assert_eq!(state.live().unwrap(), 1);
    let ghost = child(&state, "d").unwrap();
    assert_eq!(ghost.tree.unwrap().s, vector(&[(2, 4)]));
    assert!(all(&state, "d").children.is_empty());
    assert_eq!(*all(&state, "d/e").sub, vector(&[(1, 2), (2, 4)]));
    commit(&state, vec![dir("d", gone), file("d/x", 1, gone)]);
    assert_eq!(child(&state, "d").unwrap().tree.unwrap().s, vector(&[(2, 4)]));
}

#[test]
fn a_removed_tree_keeps_the_ghosts_that_tell_more() {
    let state = memory();
    let event = state.tick().unwrap();
    let theirs = Event { replica: id(2), counter: 5 };
    let put = Change::Put {
        path: path("d/e/f"),
        row: file_row(1, theirs.into(), theirs.into()),
        signature: sig(1),
        learn: Some(know(&[(2, 5)])),
    };
    commit(&state, vec![dir("d", event), dir("d/e", event), put, file("d/g", 1, event)]);
    let gone = state.tick().unwrap();
    commit(&state, vec![Change::RemoveTree { path: path("d"), learn: None, bound: Arc::new(gone.into()) }]);
    assert_eq!(state.live().unwrap(), 0);
    assert_eq!(child(&state, "d/e/f").unwrap().own, Some(know(&[(2, 5)])));
    assert_eq!(child(&state, "d/g"), None);
    let covered = Some(know(&[(2, 5)]));
    commit(&state, vec![Change::RemoveTree { path: path("d"), learn: covered, bound: Arc::new(gone.into()) }]);
    assert!(all(&state, "d").children.is_empty());
}

#[test]
fn a_directory_becomes_a_file_and_a_directory_again() {
    let state = memory();
    let event = state.tick().unwrap();
    commit(&state, vec![dir("d", event), file("d/f", 1, event)]);
    commit(&state, vec![remove("d/f", event), file("d", 3, event)]);
    assert!(child(&state, "d").unwrap().tree.is_some(), "a ghost stays below");
    assert_eq!(state.node(&path("d")).unwrap(), None);
    commit(&state, vec![dir("d", event)]);
    assert!(state.node(&path("d")).unwrap().is_some());
    state.prune_to(0).unwrap();
    commit(&state, vec![file("d", 3, event)]);
    assert_eq!(child(&state, "d").unwrap().tree, None);
}

#[test]
fn a_refresh_is_heard_of_only_if_the_object_looks_different() {
    let state = memory();
    let event = state.tick().unwrap();
    let mut row = file_row(4, event.into(), event.into());
    row.object.content = Content::File { size: 4, hash: None };
    commit(&state, vec![dir("d", event), Change::Put { path: path("d/f"), row, signature: sig(4), learn: None }]);
    let refresh = |signature, hash| Change::Refresh { path: path("d/f"), signature, hash, mtime_ns: None };
    let (seq, digest) = (state.seq(), all(&state, "").digest);
    let moved = Signature { ino: 77, ctime_ns: 5, racy: true, ..sig(4) };
    commit(&state, vec![refresh(moved, None)]);
    assert_eq!((state.seq(), all(&state, "").digest), (seq, digest));
    assert_eq!(state.entry(&path("d/f")).unwrap().unwrap().signature, moved);
    commit(&state, vec![refresh(moved, Some(Hash([3; 32])))]);
    assert!(state.seq() > seq && all(&state, "").digest != digest);
    let object = state.entry(&path("d/f")).unwrap().unwrap().row.object;
    assert_eq!(
        object.same_content(&Object { content: Content::File { size: 4, hash: Some(Hash([3; 32])) }, ..object.clone() }),
        Same::Yes
    );
    let (seq, digest) = (state.seq(), all(&state, "").digest);
    let carried = Change::Refresh { path: path("d"), signature: sig(1), hash: None, mtime_ns: Some(42) };
    commit(&state, vec![carried, Change::Refresh { path: path("no"), signature: sig(1), hash: None, mtime_ns: None }]);
    assert_eq!(state.entry(&path("d")).unwrap().unwrap().row.object.attrs.mtime_ns, 42);
    assert!(state.seq() > seq);
    assert_eq!(all(&state, "").digest, digest, "a directory's time is no part of a digest");
}

#[test]
fn a_hash_is_recorded_for_the_row_that_it_was_read_for_and_for_no_other() {
    let state = memory();
    let (first, second) = (state.tick().unwrap(), state.tick().unwrap());
    let put = |n, hash, event: Event| {
        let mut row = file_row(n, event.into(), first.into());
        row.object.content = Content::File { size: n, hash };
        Change::Put { path: path("d/f"), row, signature: sig(n), learn: None }
    };
    let hash = || match state.entry(&path("d/f")).unwrap().unwrap().row.object.content {
        Content::File { hash, .. } => hash,
        _ => None,
    };
    let read = Learned { path: path("d/f"), expect: (sig(4), None), signature: sig(4), hash: Hash([4; 32]) };
    commit(&state, vec![dir("d", first), put(4, None, first)]);
    // It was edited while it was read, and once more within the tick of the clock.
    commit(&state, vec![put(5, None, second)]);
    state.learn(std::slice::from_ref(&read)).unwrap();
    assert_eq!((hash(), state.entry(&path("d/f")).unwrap().unwrap().signature), (None, sig(5)));
    commit(&state, vec![put(4, Some(Hash([7; 32])), second)]);
    state.learn(std::slice::from_ref(&read)).unwrap();
    assert_eq!(hash(), Some(Hash([7; 32])));
    commit(&state, vec![put(4, None, second)]);
    let seq = state.seq();
    state.learn(&[read, Learned { path: path("no"), expect: (sig(1), None), signature: sig(1), hash: Hash([1; 32]) }]).unwrap();
    assert_eq!(hash(), Some(Hash([4; 32])));
    assert!(state.seq() > seq);
}

#[test]
fn what_is_forgotten_leaves_nothing() {
    let state = memory();
    let event = state.tick().unwrap();
    commit(&state, vec![dir("d", event), dir("d/e", event), file("d/e/f", 1, event), file("g", 1, event)]);
    commit(&state, vec![Change::Forget { path: path("d") }, Change::Forget { path: path("g") }]);
    assert_eq!((state.live().unwrap(), all(&state, "").children.len()), (0, 0));
    assert_eq!(all(&state, "").digest, crate::entry::Digest::default());
}

#[test]
fn what_was_forgotten_is_unknown_and_its_neighbours_are_not() {
    let state = memory();
    let event = state.tick().unwrap();
    commit(&state, vec![dir("d", event), file("d/gone", 1, event), file("d/stays", 1, event), dir("e", event)]);
    commit(&state, vec![Change::Raise { path: path(""), s: Some(know(&[(3, 3)])), bound: know(&[(3, 3)]), gaps: false }]);
    commit(&state, vec![remove("old", event)]);
    state.put_peer(id(3), &Peer { incorporated: 7, ..Peer::default() }).unwrap();
    let (me, instance) = (state.id(), state.instance());
    commit(&state, vec![Change::Forget { path: path("d/gone") }]);
    assert!(state.id() != me && state.instance() != instance);
    assert_eq!(state.meta(FORMER).unwrap().unwrap(), me.to_string().into_bytes());
    let known = |dir: &str, name: &str| {
        let listing = all(&state, dir);
        let child = child(&state, format!("{dir}/{name}").trim_start_matches('/'));
        let s = child.as_ref().and_then(|child| child.tree.as_ref()).map(|tree| tree.s.clone()).unwrap_or_default();
        let own = child.and_then(|child| child.own).map(|own| (*own).clone()).unwrap_or_default();
        listing.sub.joined(&s).joined(&own)
    };
    let before: Vector =
        [Event { replica: me, counter: event.counter }, Event { replica: id(3), counter: 3 }].into_iter().collect();
    assert_eq!(known("d", "gone"), Vector::new());
    assert_eq!(known("", "never"), Vector::new());
    for (dir, name) in [("d", "stays"), ("", "d"), ("", "e"), ("e", "below"), ("", "old"), ("old", "below")] {
        assert_eq!(known(dir, name), before, "{dir}/{name}");
    }
    assert_eq!(state.peer(id(3)).unwrap().unwrap().incorporated, 0);
    assert_eq!(state.tick().unwrap().counter, 1);
    assert_eq!(state.check().unwrap(), Vec::<String>::new());
    let me = state.id();
    commit(&state, vec![Change::Forget { path: path("nothing") }]);
    assert_eq!(state.id(), me, "nothing was forgotten");
}

#[test]
fn pruning_drops_ghosts_that_tell_nothing_and_raises_the_floor() {
    let state = memory();
    let event = state.tick().unwrap();
    commit(&state, vec![dir("d", event), dir("d/e", event), file("d/e/f", 1, event), file("g", 1, event)]);
    commit(&state, vec![remove("d/e/f", event), remove("d/e", event), remove("g", event)]);
    commit(&state, vec![Change::Learn { path: path("told"), learn: know(&[(3, 3)]), bound: know(&[]) }]);
    state.prune().unwrap();
    assert!(child(&state, "g").is_some(), "the journal keeps the newest");
    assert_eq!(state.journal_floor(), 0);
    let seq = state.seq();
    state.prune_to(1).unwrap();
    assert_eq!(state.check().unwrap(), Vec::<String>::new());
    assert_eq!(child(&state, "d/e"), None);
    assert_eq!(child(&state, "g"), None);
    assert!(child(&state, "told").is_some(), "it tells something");
    assert!(state.journal_floor() > 0 && state.journal_floor() < seq);
    commit(&state, vec![Change::Raise { path: path(""), s: Some(know(&[(3, 3)])), bound: know(&[]), gaps: false }]);
    assert!(child(&state, "told").unwrap().own.is_some());
    state.prune_to(0).unwrap();
    assert!(child(&state, "told").is_none());
}

#[test]
fn a_batch_is_applied_whole_or_not_at_all() {
    let root = tempfile::tempdir().unwrap();
    let state = State::open(root.path(), MASK).unwrap();
    let event = state.tick().unwrap();
    let theirs = Change::Learn { path: path("x"), learn: know(&[(9, 9)]), bound: know(&[]) };
    let batch = Batch { changes: vec![dir("d", event), theirs.clone(), file("no/f", 1, event)], ..Batch::default() };
    assert!(state.commit(batch, true).is_err());
    assert_eq!((state.seq(), state.live().unwrap(), state.counter()), (0, 0, 0));
    // What the failed transaction interned was taken back, in memory too.
    commit(&state, vec![theirs]);
    state.close().unwrap();
    let state = State::open(root.path(), MASK).unwrap();
    assert_eq!(child(&state, "x").unwrap().own, Some(know(&[(9, 9)])));
}

#[test]
fn large_event_sets_are_interned_and_swept_when_unused() {
    let root = tempfile::tempdir().unwrap();
    let state = State::open(root.path(), MASK).unwrap();
    let event = state.tick().unwrap();
    let set = |n: u64| -> Vector { (2..8).map(|r| Event { replica: id(r), counter: n }).collect() };
    let put = |n: u64| {
        let m = set(n);
        let c: Creation = m.iter().chain([event]).collect();
        Change::Put { path: path("f"), row: file_row(n, m.clone(), c), signature: sig(n), learn: Some(Arc::new(m)) }
    };
    for n in 1..700 {
        state.commit(Batch { changes: vec![put(n)], ..Batch::default() }, false).unwrap();
    }
    let count = || state.names.read().unwrap().len();
    assert!(count() > 1400);
    state.prune().unwrap();
    assert_eq!(count(), 3, "m, c and o of the one row");
    state.prune().unwrap();
    commit(&state, vec![put(700), put(5)]);
    state.close().unwrap();
    let state = State::open(root.path(), MASK).unwrap();
    let Change::Put { row, .. } = put(5) else { unreachable!() };
    assert_eq!(state.entry(&path("f")).unwrap().unwrap().row, row);
    assert_eq!(state.check().unwrap(), Vec::<String>::new());
}

#[test]
fn the_scan_reads_live_rows_in_order() {
    let state = memory();
    let event = state.tick().unwrap();
    commit(&state, vec![file("b", 2, event), dir("a", event), file("c", 3, event), remove("c", event)]);
    let known = state.known(NodeId::ROOT).unwrap();
    assert_eq!(known.iter().map(|k| k.name.as_bytes().to_vec()).collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!(known[0].node, state.node(&path("a")).unwrap());
    assert_eq!((known[1].signature, known[1].node, known[1].mtime_ns), (sig(2), None, sig(2).mtime_ns));
    assert!(known[1].hash.is_some());
}
