use super::*;
use proptest::prelude::*;

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn touched(text: &str) -> Change {
    Change::Touched(path(text))
}

fn tree(text: &str) -> Change {
    Change::Tree(path(text))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn limits(paths: usize) -> Limits {
    Limits { paths, ..Limits::standard() }
}

/// Takes changes at their times, looks whenever it is told to, and yields what came out when, in ms.
fn play(limits: Limits, changes: &[(u64, Change)]) -> Vec<(u64, Vec<Change>)> {
    let mut quiet = Quiet::new(limits);
    let mut out = Vec::new();
    let mut look = |quiet: &mut Quiet, until: Option<Duration>| {
        while let Some(at) = quiet.next_deadline().filter(|at| until.is_none_or(|until| *at <= until)) {
            let ready = quiet.ready(at);
            if !ready.is_empty() {
                out.push((at.as_millis() as u64, ready));
            }
        }
    };
    for (at, change) in changes {
        look(&mut quiet, Some(ms(*at)));
        quiet.take(ms(*at), change.clone());
    }
    look(&mut quiet, None);
    assert!(quiet.is_empty());
    out
}

#[test]
fn a_single_change_comes_out_after_the_quiet_time() {
    assert_eq!(play(limits(9), &[(1000, touched("a"))]), [(1200, vec![touched("a")])]);
    assert_eq!(
        play(limits(9), &[(0, touched("b")), (100, touched("a")), (150, touched("b"))]),
        [(300, vec![touched("a")]), (350, vec![touched("b")])]
    );
}

#[test]
fn a_save_by_rename_comes_out_at_once_with_both_names() {
    let save = [(0, touched(".f.tmp")), (50, touched(".f.tmp")), (50, touched("f"))];
    assert_eq!(play(limits(9), &save), [(250, vec![touched(".f.tmp"), touched("f")])]);
}

#[test]
fn a_tree_swallows_changes_below_it_and_waits_for_them() {
    let changes = [(0, touched("d/x/f")), (10, touched("e")), (100, tree("d")), (250, touched("d/y"))];
    assert_eq!(play(limits(9), &changes), [(210, vec![touched("e")]), (450, vec![tree("d")])]);
    assert_eq!(play(limits(9), &[(0, tree("d")), (10, tree("d/x")), (10, touched("d"))]), [(210, vec![tree("d")])]);
    assert_eq!(play(limits(9), &[(0, touched("d")), (10, tree("d"))]), [(210, vec![tree("d")])]);
    assert_eq!(
        play(limits(9), &[(0, tree("d/x")), (10, touched("d"))]),
        [(200, vec![tree("d/x")]), (210, vec![touched("d")])],
        "the entry of a directory is not what is below it"
    );
}

#[test]
fn a_tree_in_which_files_go_on_coming_waits_for_a_second_and_what_was_being_written_in_it_no_shorter() {
    let mut filling = vec![(0, tree("d"))];
    filling.extend((1..30).map(|at| (at * 100, touched(&format!("d/{at:02}")))));
    let out = play(limits(99), &filling);
    assert_eq!(out[0], (1_000, vec![tree("d")]));
    assert!(out[1..].iter().all(|(_, ready)| ready.iter().all(|change| matches!(change, Change::Touched(_)))), "{out:?}");
    let mut written: Vec<_> = (0..40).map(|at| (at * 100, touched("d/f"))).collect();
    written.extend([(4_000, tree("d")), (4_100, touched("d/f"))]);
    assert_eq!(play(limits(99), &written), [(5_000, vec![tree("d")])]);
}

#[test]
fn what_was_changing_for_long_has_to_be_quiet_for_longer() {
    let writing = |until: u64| (0..=until / 100).map(|at| (at * 100, touched("f"))).collect::<Vec<_>>();
    assert_eq!(play(limits(9), &writing(4_000)), [(5_000, vec![touched("f")])]);
    assert_eq!(play(limits(9), &writing(24_000)), [(29_000, vec![touched("f")])], "never longer than the longest");
}

#[test]
fn a_log_that_is_written_for_ever_comes_out_now_and_then() {
    let log: Vec<_> = (0..1_000).map(|at| (at * 100, touched("log"))).collect();
    let out: Vec<u64> = play(limits(9), &log).into_iter().map(|(at, _)| at).collect();
    assert_eq!(out, [30_000, 60_000, 90_000, 99_900 + 5_000]);
}

#[test]
fn what_changes_again_soon_waits_twice_as_long_each_time() {
    let changes: Vec<_> = [0, 1_000, 2_500, 4_500, 20_000].map(|at| (at, touched("f"))).into();
    let out: Vec<u64> = play(limits(9), &changes).into_iter().map(|(at, _)| at).collect();
    assert_eq!(out, [200, 1_400, 3_300, 6_100, 20_200], "and once it was left alone for long, it is as new");
}

#[test]
fn too_many_paths_become_the_tree_that_makes_room() {
    let many = [(0, touched("a/x")), (1, touched("b/1")), (2, touched("b/2")), (3, touched("b/3"))];
    assert_eq!(play(limits(3), &many), [(200, vec![touched("a/x")]), (203, vec![tree("b")])]);
    let apart = [(0, touched("a/1/x")), (1, touched("a/2/x")), (2, touched("a/3/x"))];
    assert_eq!(play(limits(2), &apart), [(202, vec![tree("a")])]);
    let top = [(0, touched("a")), (1, touched("b")), (2, touched("c"))];
    assert_eq!(play(limits(2), &top), [(202, vec![Change::Everything { why: Why::Many }])]);
}

#[test]
fn everything_swallows_all_and_keeps_the_first_reason() {
    let all = |why| Change::Everything { why };
    let changes = [(0, touched("a")), (10, all(Why::OwnQueue)), (20, all(Why::Renewed)), (100, touched("b")), (100, tree("c"))];
    assert_eq!(play(limits(9), &changes), [(300, vec![all(Why::OwnQueue)])]);
}

#[test]
fn a_lost_root_comes_at_once_and_alone() {
    assert_eq!(play(limits(9), &[(0, touched("a")), (50, Change::RootLost)]), [(50, vec![Change::RootLost])]);
    let both = [(0, Change::RootLost), (0, touched("a"))];
    assert_eq!(play(limits(9), &both), [(0, vec![Change::RootLost]), (200, vec![touched("a")])]);
}

#[test]
fn a_clock_that_runs_backwards_hands_nothing_out_early() {
    let mut quiet = Quiet::new(limits(9));
    quiet.take(ms(1_000), touched("a"));
    quiet.take(ms(500), touched("b"));
    assert_eq!(quiet.ready(ms(1_199)), []);
    assert_eq!(quiet.ready(ms(1_200)), [touched("a"), touched("b")]);
}

fn change() -> impl Strategy<Value = Change> {
    let name = || prop_oneof![Just("a"), Just("b"), Just("c")];
    let path = prop::collection::vec(name(), 1..4).prop_map(|parts| path(&parts.join("/")));
    prop_oneof![
        12 => path.clone().prop_map(Change::Touched),
        3 => path.prop_map(Change::Tree),
        1 => Just(Change::Everything { why: Why::OwnQueue }),
    ]
}

fn covers(out: &Change, change: &Change) -> bool {
    match (out, change) {
        (Change::Everything { .. }, _) => true,
        (Change::Touched(at), Change::Touched(path)) => at == path,
        (Change::Tree(at), Change::Touched(path) | Change::Tree(path)) => at.contains(path),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn each_change_comes_out_once_it_is_quiet_and_within_the_hold(
        steps in prop::collection::vec((prop_oneof![3 => 0..300u64, 1 => 0..6_000u64], change()), 1..120),
        paths in 1..12usize,
    ) {
        let mut at = 0;
        let changes: Vec<_> = steps.into_iter().map(|(wait, change)| { at += wait; (at, change) }).collect();
        let limits = limits(paths);
        let out = play(limits, &changes);
        let [hold, tree] = [limits.hold, limits.tree].map(|limit| limit.as_millis() as u64);
        for (at, change) in &changes {
            let covered = out.iter().find(|(when, ready)| when > at && ready.iter().any(|out| covers(out, change)));
            let (when, ready) = covered.expect("nothing is lost");
            prop_assert!(*when <= at + hold, "{change:?} of {at} came out at {when}");
            // Unless it was held for long enough, which for a tree is shorter, what covers it stood still for the quiet time before.
            let held = ready.iter().filter(|out| covers(out, change)).all(|out| {
                let most = |at: u64| at + hold == *when || matches!(out, Change::Tree(_)) && at + tree == *when;
                changes.iter().any(|(at, change)| most(*at) && covers(out, change))
            });
            prop_assert!(held || at + limits.quiet.as_millis() as u64 <= *when, "{change:?} of {at} came out at {when}");
        }
    }

    #[test]
    fn no_more_waits_than_may(changes in prop::collection::vec((0..100u64, change()), 1..200), paths in 1..8usize) {
        let mut quiet = Quiet::new(limits(paths));
        let mut at = 0;
        for (wait, change) in changes {
            at += wait;
            quiet.ready(ms(at));
            quiet.take(ms(at), change);
            prop_assert!(quiet.waiting.len() <= paths);
            prop_assert!(quiet.handed.len() <= paths);
            prop_assert!(quiet.looks.len() <= 64 + 3 * paths);
            prop_assert_eq!(quiet.trees, quiet.waiting.values().filter(|waiting| waiting.tree).count());
        }
    }
}
