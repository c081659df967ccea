use super::guard::Guard;
use super::survey::OneSurvey;
use super::*;
use crate::ignore::Rules;
use crate::report::Silent;
use std::sync::Mutex;

/// Two roots that were synchronised with these files, each holding its own path.
fn synced(files: &[&str]) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for root in ["a", "b"] {
        std::fs::create_dir(home.path().join(root)).unwrap();
    }
    for file in files {
        std::fs::write(home.path().join("a").join(file), file).unwrap();
    }
    open(&home).apply(&Silent).unwrap();
    home
}

fn open(home: &tempfile::TempDir) -> Sync {
    Sync::open(&home.path().join("a"), &home.path().join("b"), Options::standard(), &Silent).unwrap()
}

/// The roots of `home` on their own.
fn roots(home: &tempfile::TempDir) -> [(Opened, Rules); 2] {
    super::roots::open(&home.path().join("a"), &home.path().join("b"), &Options::standard(), &Silent).unwrap()
}

/// Pulls both ways without looking before.
fn pull(sync: &mut Sync) -> Achieved {
    let (asked, halves) = sync.split();
    drive::pull(halves, &asked, &Silent).unwrap()
}

const TEN: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

#[test]
fn a_pull_that_no_survey_measured_passes_the_guard_too() {
    let home = synced(&TEN);
    for file in &TEN[..8] {
        std::fs::remove_file(home.path().join("b").join(file)).unwrap();
    }
    let pulled = pull(&mut open(&home));
    let stopped = pulled.stopped.map(|stopped| stopped.to_string()).unwrap_or_default();
    assert!(stopped.contains("8 of 10 paths") && stopped.contains("--allow-delete"), "{stopped}");
    assert!(!pulled.complete && TEN.iter().all(|file| home.path().join("a").join(file).exists()));
}

#[test]
fn the_deletions_of_all_pulls_of_a_run_count_together() {
    let home = synced(&TEN);
    let [_, (b, _)] = roots(&home);
    let mut guard = Guard::new(&b, Some(MaxDelete::Count(5)), 0).unwrap();
    assert!(guard.check(&b, 4, false).is_ok());
    // The rows of b say that ten paths stand where fourteen did.
    guard.done(&b, 4, 0, 14).unwrap();
    assert!(guard.check(&b, 1, true).is_ok());
    let stopped = guard.check(&b, 2, true).unwrap_err().to_string();
    assert!(stopped.contains("6 of 10 paths") && stopped.contains("what was done before is recorded"), "{stopped}");
    // What was planned and failed is no deletion.
    assert!(guard.done(&b, 4, 0, 10).unwrap().is_none());
    assert!(guard.check(&b, 1, true).is_ok());
    // What was to be moved and came nowhere was deleted; what was made anew elsewhere was not.
    assert!(guard.done(&b, 0, 1, 11).unwrap().is_none());
    assert!(guard.check(&b, 1, true).is_err());
    let stopped = guard.done(&b, 0, 0, 13).unwrap().map(|stopped| stopped.to_string()).unwrap_or_default();
    assert!(stopped.contains("3 paths on") && stopped.contains("driftless versions"), "{stopped}");
    assert!(guard.done(&b, 0, 3, 10).unwrap().is_none());
}

#[test]
fn a_run_that_ends_between_two_looks_at_the_marker_is_no_older_tree() {
    let home = synced(&TEN);
    let root = home.path().join("a");
    let mut found = roots::find(&root, None).unwrap();
    std::fs::write(root.join("0"), "edited").unwrap();
    assert!(open(&home).apply(&Silent).unwrap().in_sync);
    let early = found.marker.clone().unwrap();
    let state = found.open_state(Options::standard().mask).unwrap();
    assert!(early.strange(&state).unwrap().is_some(), "the run began a new generation");
    assert_eq!(found.marker.unwrap().strange(&state).unwrap(), None);
}

#[derive(Default)]
struct Notices(Mutex<Vec<String>>);

impl Monitor for Notices {
    fn notice(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

#[test]
fn beyond_the_limit_moves_are_copies_and_deletions_and_that_is_told() {
    let home = synced(&TEN);
    let b = home.path().join("b");
    std::fs::create_dir(b.join("new")).unwrap();
    for file in &TEN[..5] {
        std::fs::rename(b.join(file), b.join("new").join(file)).unwrap();
    }
    // The scan records what stands where.
    drop(open(&home));
    let [(ours, rules_a), (theirs, rules_b)] = roots(&home);
    let (options, rules, run_rules) = (Options::standard(), [rules_a, rules_b], Rules::parse("").unwrap());
    let asked = pulls::Terms { options: &options, mask: options.mask, rules: &rules, run_rules: &run_rules, unavailable: &[] };
    let pull = pulls::OnePull::new(Side::A, &ours, &theirs, &asked).unwrap();
    let notices = Notices::default();
    let all = OneSurvey::of(&pull, 5, &notices).unwrap().totals();
    assert_eq!((all.moved, all.deleted, all.created), (5, 0, 1));
    assert!(notices.0.lock().unwrap().is_empty());
    let some = OneSurvey::of(&pull, 2, &notices).unwrap().totals();
    assert_eq!((some.moved, some.deleted, some.created), (2, 3, 4));
    assert!(notices.0.lock().unwrap()[0].contains("3 of the paths that go are beyond the 2"));
}

#[test]
fn a_marker_and_a_state_from_before_generations_are_taken_once_and_brought_up_to_date() {
    let home = tempfile::tempdir().unwrap();
    for root in ["a", "b"] {
        let private = home.path().join(root).join(".driftless");
        std::fs::create_dir_all(&private).unwrap();
        let state = crate::io::state::State::open(&private, AttrMask::standard(true)).unwrap();
        std::fs::write(private.join("marker"), format!("This folder is a root.\nreplica {}\n", state.id())).unwrap();
    }
    open(&home).apply(&Silent).unwrap();
    for root in ["a", "b"] {
        let marker = home.path().join(root).join(".driftless/marker");
        let text = std::fs::read_to_string(&marker).unwrap();
        assert!(text.contains("\ngeneration 1\n"), "{text}");
        // From now on one without a generation is an old one.
        let old: String = text.lines().filter(|line| !line.starts_with("generation")).map(|line| format!("{line}\n")).collect();
        std::fs::write(&marker, old).unwrap();
    }
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    let refused = Sync::open(&a, &b, Options::standard(), &Silent).err().unwrap().to_string();
    assert!(refused.contains("older than its state") && refused.contains("--rejoin"), "{refused}");
    let refused = Replica::open(&a, None).err().unwrap().to_string();
    assert!(refused.contains("older than its state"), "{refused}");
}

#[test]
fn what_a_pull_is_about_to_incorporate_is_noted_before() {
    let home = synced(&["x"]);
    std::fs::write(home.path().join("a/x"), "edited").unwrap();
    // A pull alone, as if the run died right after it.
    assert!(pull(&mut open(&home)).complete);
    let [(a, _), (b, _)] = roots(&home);
    let seen = b.state.peer(a.state.id()).unwrap().unwrap().seen.0;
    assert_eq!(seen, a.state.counter());
}

#[test]
fn a_first_run_that_died_before_its_marker_was_written_goes_on() {
    let home = tempfile::tempdir().unwrap();
    for root in ["a", "b"] {
        let private = home.path().join(root).join(".driftless");
        std::fs::create_dir_all(&private).unwrap();
        drop(crate::io::state::State::open(&private, AttrMask::standard(true)).unwrap());
    }
    std::fs::write(home.path().join("a/x"), "x").unwrap();
    assert!(open(&home).apply(&Silent).unwrap().in_sync);
    assert!(home.path().join("b/x").exists());
}

#[test]
fn identities_given_up_by_runs_that_only_look_leave_the_marker_its_state() {
    let home = synced(&["x", "y"]);
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    // Each rule that makes paths unknown costs the replica its identity, and a run that only looks writes no marker.
    for rules in ["x\n", "x\ny\n"] {
        std::fs::write(a.join(".driftlessignore"), rules).unwrap();
        drop(Sync::open(&a, &b, Options { dry_run: true, ..Options::standard() }, &Silent).unwrap());
    }
    let [(a, _), _] = roots(&home);
    let state = &a.state;
    assert_eq!(state.meta(crate::io::state::FORMER).unwrap().unwrap_or_default(), b"");
}

#[test]
fn what_is_open_and_decided_follows_the_other_root_to_its_new_identity() {
    let home = synced(&["x", "y"]);
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    std::fs::write(a.join("x"), "ours").unwrap();
    std::fs::write(b.join("x"), "theirs").unwrap();
    open(&home).apply(&Silent).unwrap();
    let path = RelPath::parse(b"x").unwrap();
    let mut replica = Replica::open(&a, None).unwrap();
    assert_eq!(replica.resolve(std::slice::from_ref(&path), Keep::Local).unwrap(), [path]);
    drop(replica);
    // A rule that makes a path unknown costs either root its identity.
    for root in [&a, &b] {
        std::fs::write(root.join(".driftlessignore"), "y\n").unwrap();
    }
    open(&home).apply(&Silent).unwrap();
    assert_eq!(std::fs::read(b.join("x")).unwrap(), b"ours");
    for root in [&a, &b] {
        assert_eq!(Replica::open(root, None).unwrap().conflicts().unwrap().len(), 0);
    }
}

/// What a root remembers of others: their records, and what is open with each. How much is incorporated is left out: an ignore rule
/// that comes to cover a path has it looked at anew.
fn remembered(
    root: &std::path::Path,
) -> Vec<(crate::knowledge::ReplicaId, crate::io::state::Peer, Vec<crate::io::state::Pending>)> {
    let state = crate::io::state::State::open(&root.join(".driftless"), Options::standard().mask).unwrap();
    let with_open = |(id, peer)| (id, crate::io::state::Peer { incorporated: 0, ..peer }, state.pending(id).unwrap());
    state.peers().unwrap().into_iter().map(with_open).collect()
}

#[test]
fn a_run_that_only_looks_sees_what_was_decided_of_the_identity_before_and_moves_none_of_it() {
    let home = synced(&["x", "y"]);
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    std::fs::write(a.join("x"), "ours").unwrap();
    std::fs::write(b.join("x"), "theirs").unwrap();
    open(&home).apply(&Silent).unwrap();
    let path = RelPath::parse(b"x").unwrap();
    Replica::open(&a, None).unwrap().resolve(std::slice::from_ref(&path), Keep::Local).unwrap();
    let before = [&a, &b].map(|root| remembered(root));
    for root in [&a, &b] {
        std::fs::write(root.join(".driftlessignore"), "y\n").unwrap();
    }
    for _ in 0..2 {
        let look = Options { dry_run: true, ..Options::standard() };
        let planned = Sync::open(&a, &b, look, &Silent).unwrap().plan(&Silent, &mut |_, _| {}).unwrap();
        assert_eq!(planned.totals.map(|totals| totals.skipped), [0, 0]);
        assert_eq!([&a, &b].map(|root| remembered(root)), before);
    }
    open(&home).apply(&Silent).unwrap();
    assert_eq!(std::fs::read(b.join("x")).unwrap(), b"ours");
}

#[test]
fn what_a_root_brings_back_outside_of_a_run_is_told() {
    let home = synced(&["x"]);
    let a = home.path().join("a");
    // A name of ours that holds another object than was staged under it: displaced by an exchange.
    std::fs::write(a.join(".driftless/stage/swap-1-2-3"), "displaced").unwrap();
    let replica = Replica::open(&a, None).unwrap();
    assert!(replica.notices().iter().any(|notice| notice.contains("stands at recovered")), "{:?}", replica.notices());
    drop(replica);
    assert_eq!(Replica::open(&a, None).unwrap().notices().len(), 0);
}

#[test]
fn roots_are_not_in_sync_after_a_run_that_changed_what_is_ignored() {
    let home = synced(&["x", "y", "z"]);
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    std::fs::write(a.join(".driftlessignore"), "s\nt\n").unwrap();
    assert!(open(&home).apply(&Silent).unwrap().in_sync, "both roots obey the rules of either");
    std::fs::write(a.join("s"), "only here").unwrap();
    std::fs::write(a.join(".driftlessignore"), "t\ns\nu\n").unwrap();
    assert!(open(&home).apply(&Silent).unwrap().in_sync, "the rules that came ignore no less");
    std::fs::remove_file(a.join(".driftlessignore")).unwrap();
    let notices = Notices::default();
    let report = open(&home).apply(&notices).unwrap();
    assert!(!b.join(".driftlessignore").exists() && !b.join("s").exists());
    assert!(!report.in_sync);
    assert!(notices.0.lock().unwrap().iter().any(|text| text.contains("run again")));
    assert!(open(&home).apply(&Silent).unwrap().in_sync && b.join("s").exists());
}

#[test]
fn the_file_of_rules_alone_is_no_whole_root() {
    let home = synced(&[]);
    std::fs::write(home.path().join("a/.driftlessignore"), "s\n").unwrap();
    open(&home).apply(&Silent).unwrap();
    assert!(home.path().join("b/.driftlessignore").exists());
    std::fs::remove_file(home.path().join("a/.driftlessignore")).unwrap();
    open(&home).apply(&Silent).unwrap();
    assert!(!home.path().join("b/.driftlessignore").exists());
    let home = synced(&["x"]);
    std::fs::remove_file(home.path().join("a/x")).unwrap();
    assert!(matches!(open(&home).apply(&Silent), Err(SyncError::Guard(_))));
}

/// Two roots of which b keeps an older version of x.
fn with_a_kept_version() -> tempfile::TempDir {
    let home = synced(&["x", "y"]);
    std::fs::write(home.path().join("a/x"), "newer").unwrap();
    open(&home).apply(&Silent).unwrap();
    home
}

fn rejoin(home: &tempfile::TempDir) {
    let options = Options { rejoin: true, ..Options::standard() };
    let mut sync = Sync::open(&home.path().join("a"), &home.path().join("b"), options, &Silent).unwrap();
    assert!(sync.apply(&Silent).unwrap().in_sync);
}

#[test]
fn a_root_that_begins_anew_takes_the_kept_versions_of_its_old_state_over() {
    let home = with_a_kept_version();
    let b = home.path().join("b");
    let before = Replica::open(&b, None).unwrap().versions(&RelPath::root()).unwrap();
    std::fs::remove_file(b.join(".driftless/marker")).unwrap();
    rejoin(&home);
    let mut replica = Replica::open(&b, None).unwrap();
    let after = replica.versions(&RelPath::root()).unwrap();
    assert_eq!((after.len(), after[0].kept_at_ns), (1, before[0].kept_at_ns));
    let x = RelPath::parse(b"x").unwrap();
    assert_eq!((&after[0].path, &after[0].reason[..]), (&x, "replaced"));
    replica.restore(&x, None).unwrap();
    assert_eq!(std::fs::read(b.join("x")).unwrap(), b"x");
}

#[test]
fn a_root_whose_state_is_lost_adopts_the_kept_versions_that_lie_there() {
    for damaged in [false, true] {
        let home = with_a_kept_version();
        let b = home.path().join("b");
        let before = Replica::open(&b, None).unwrap().versions(&RelPath::root()).unwrap();
        let file = b.join(".driftless/state.db");
        std::fs::write(b.join(".driftless/versions/mine"), "no name of ours").unwrap();
        if damaged {
            std::fs::write(&file, vec![7; 8192]).unwrap();
            std::fs::remove_file(b.join(".driftless/marker")).unwrap();
        } else {
            std::fs::remove_file(&file).unwrap();
        }
        rejoin(&home);
        let mut replica = Replica::open(&b, None).unwrap();
        let after = replica.versions(&RelPath::root()).unwrap();
        assert_eq!(after.len(), 1);
        assert_eq!((after[0].path.to_string(), after[0].kept_at_ns), ("recovered/x".into(), before[0].kept_at_ns));
        replica.restore(&RelPath::parse(b"recovered/x").unwrap(), None).unwrap();
        assert_eq!(std::fs::read(b.join("recovered/x")).unwrap(), b"x");
    }
}

#[test]
fn states_that_were_moved_aside_go_when_they_are_older_than_kept_versions() {
    let home = with_a_kept_version();
    let private = home.path().join("b/.driftless");
    let now = crate::io::fs::coarse_now_ns() / 1_000_000_000;
    let stale = ["state.db.replaced-1", "state.db.replaced-1-wal", "state.db.damaged-1"].map(str::to_owned);
    let stays = [format!("state.db.replaced-{now}"), "state.db.replaced-by-me".into(), "notes-1".into()];
    for name in stale.iter().chain(&stays) {
        std::fs::write(private.join(name), "old").unwrap();
    }
    open(&home).apply(&Silent).unwrap();
    assert!(stale.iter().all(|name| !private.join(name).exists()));
    assert!(stays.iter().all(|name| private.join(name).exists()));
}
