use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn replace(world: &World, path: &str, old: &str, new: &str) {
    let old = world.have(path, Some(old));
    let row = world.theirs(path, Some(new));
    assert!(world.apply(vec![world.write(path, &row, Some(&old))]).complete);
}

fn now_ns() -> i64 {
    crate::io::fs::coarse_now_ns() + 1_000_000_000
}

/// What was written before is older than the clock's grain when this returns.
pub(super) fn the_clock_goes_on() {
    let start = now_ns();
    while now_ns() <= start + 2 * crate::io::fs::COARSE_CLOCK_NS {
        std::thread::yield_now();
    }
}

#[test]
fn restore_brings_a_version_back_and_keeps_what_stands_there() {
    let world = World::new();
    replace(&world, "f", "old", "new");
    let restored = restore(&world.root, world.state(), &rel("f"), None).unwrap();
    assert_eq!(restored.kept.hash, Some(hash_of(b"old")));
    assert_eq!((world.read("f"), world.kept()), ("old".into(), vec!["new".into()]));
    let versions = list(&world.root, world.state(), &rel("f")).unwrap();
    assert_eq!(versions.len(), 1);
    let id = versions[0].id;
    restore(&world.root, world.state(), &rel("f"), Some(id)).unwrap();
    assert_eq!((world.read("f"), world.kept()), ("new".into(), vec!["old".into()]));
    let error = restore(&world.root, world.state(), &rel("f"), Some(id)).unwrap_err();
    assert!(matches!(error, VersionError::None(_)), "{error}");
}

#[test]
fn a_list_takes_no_beginning_away_from_a_pull_under_way() {
    let world = World::new();
    replace(&world, "f", "old", "new");
    let stage = world.root.private(&[]).unwrap().open_or_create(crate::io::apply::STAGE.as_bytes()).unwrap();
    for number in 0..40 {
        stage.open_or_create_file(format!("half-{number:064x}-500000").as_bytes()).unwrap();
    }
    let before = stage.names().unwrap().len();
    assert_eq!(list(&world.root, world.state(), &rel("f")).unwrap().len(), 1);
    assert_eq!(stage.names().unwrap().len(), before);
}

#[test]
fn restore_makes_the_directories_that_are_gone() {
    let world = World::new();
    let dir = world.have("d", None);
    let file = world.have("d/f", Some("ff"));
    assert!(world.apply(vec![world.remove("d/f", &file), world.remove("d", &dir)]).complete);
    restore(&world.root, world.state(), &rel("d/f"), None).unwrap();
    assert_eq!(world.read("d/f"), "ff");
    assert!(list(&world.root, world.state(), &RelPath::root()).unwrap().is_empty());
}

#[test]
fn a_removed_tree_is_restored_whole() {
    let world = World::new();
    let dir = world.have("d", None);
    world.have("d/f", Some("ff"));
    assert!(world.apply(vec![world.remove_tree("d", &dir)]).complete);
    restore(&world.root, world.state(), &rel("d"), None).unwrap();
    assert_eq!(world.read("d/f"), "ff");
}

#[test]
fn a_crash_in_restore_loses_neither_version() {
    for place in ["restore-recorded", "restore-exchanged", "restore-renamed"] {
        let mut world = World::new();
        replace(&world, "f", "old", "new");
        assert!(world.crash_at(place, 1, |world| {
            restore(&world.root, world.state(), &rel("f"), None).unwrap();
        }));
        world.reopen();
        world.recover();
        let there = list(&world.root, world.state(), &rel("f")).unwrap();
        assert_eq!(there.len(), 1, "{place}");
        let other = if world.read("f") == "old" { "new" } else { "old" };
        assert_eq!(world.kept(), [other], "{place}");
    }
}

#[test]
fn prune_removes_the_old_a_little_at_a_time() {
    let world = World::new();
    replace(&world, "f", "old", "new");
    let dir = world.have("d", None);
    for number in 0..10 {
        world.have(&format!("d/{number}"), Some("x"));
    }
    assert!(world.apply(vec![world.remove_tree("d", &dir)]).complete);
    let prune_some = |now, limit| prune(&world.root, world.state(), now, HOUR, limit).unwrap();
    assert_eq!(prune_some(now_ns(), 100), Pruned::default());
    let later = now_ns() + HOUR.as_nanos() as i64;
    let mut rounds = 0;
    while !world.state().versions(&RelPath::root()).unwrap().is_empty() {
        let before = world.kept().len();
        prune_some(later, 4);
        assert!(before - world.kept().len() <= 4);
        rounds += 1;
        assert!(rounds < 10);
    }
    assert!(rounds >= 3);
    assert_eq!(fs::read_dir(world.at(".driftless/versions")).unwrap().count(), 0);
}

#[test]
fn a_version_that_grew_is_brought_back_instead_of_pruned() {
    let world = World::new();
    world.have("d", None);
    replace(&world, "d/f.txt", "old", "new");
    let name = fs::read_dir(world.at(".driftless/versions")).unwrap().next().unwrap().unwrap();
    write_file(&name.path(), "old and more");
    let later = now_ns() + HOUR.as_nanos() as i64;
    let pruned = prune(&world.root, world.state(), later, HOUR, 100).unwrap();
    assert_eq!(pruned.brought_back.len(), 1);
    assert_eq!(world.read(&pruned.brought_back[0].to_string()), "old and more");
    assert!(pruned.brought_back[0].to_string().starts_with("d/f.conflict-late-"));
    assert!(world.state().versions(&RelPath::root()).unwrap().is_empty());
}

#[test]
fn a_late_write_inside_a_removed_tree_is_brought_back_when_the_tree_is_pruned() {
    let world = World::new();
    let dir = world.have("d", None);
    world.have("d/e", None);
    world.have("d/e/f", Some("ff"));
    world.have("d/e/g", Some("gg"));
    the_clock_goes_on();
    assert!(world.apply(vec![world.remove_tree("d", &dir)]).complete);
    let file = walkdir::WalkDir::new(world.at(".driftless/versions"))
        .into_iter()
        .map(Result::unwrap)
        .find(|entry| entry.file_name() == "f")
        .unwrap();
    write_file(file.path(), "late");
    let later = now_ns() + HOUR.as_nanos() as i64;
    let pruned = prune(&world.root, world.state(), later, HOUR, 100).unwrap();
    assert_eq!((pruned.removed, pruned.brought_back.len()), (1, 1));
    assert_eq!(world.disk().into_values().collect::<Vec<_>>(), ["late"]);
}

#[test]
fn young_versions_are_looked_at_when_the_root_is_opened() {
    let world = World::new();
    replace(&world, "f", "old", "new");
    let late = |since_ns| check_late(&world.root, world.state(), since_ns).unwrap();
    assert_eq!(late(0), Late::default());
    let name = fs::read_dir(world.at(".driftless/versions")).unwrap().next().unwrap().unwrap();
    write_file(&name.path(), "old and more");
    assert_eq!(late(i64::MAX), Late::default());
    let brought = late(0).brought_back;
    assert_eq!(brought.len(), 1);
    assert_eq!(world.read(&brought[0].to_string()), "old and more");
}

/// A record that names no file that could exist: no call with it succeeds.
fn record_a_bad_version(world: &World) {
    let signature = world.root.signature().unwrap();
    let name = b"no\0name".to_vec();
    let (path, kind, reason) = (rel("bad"), Kind::File, "replaced");
    let bad = crate::io::state::NewVersion { name, path, kind, signature, hash: None, kept_at_ns: 1, reason };
    world.state().commit(Batch { versions: vec![bad], ..Batch::default() }, true).unwrap();
}

#[test]
fn one_bad_version_is_told_and_the_others_go() {
    let mut world = World::new();
    record_a_bad_version(&world);
    replace(&world, "f", "old", "new");
    replace(&world, "g", "older", "newer");
    let late = check_late(&world.root, world.state(), 0).unwrap();
    assert_eq!((late.problems.len(), late.brought_back.len()), (1, 0));
    let later = now_ns() + HOUR.as_nanos() as i64;
    let pruned = prune(&world.root, world.state(), later, HOUR, 100).unwrap();
    assert_eq!((pruned.removed, pruned.problems.len(), pruned.more), (2, 1, false));
    assert_eq!(pruned.problems[0].path, rel("bad"));
    assert!(world.kept().is_empty());
    // The same where nothing is to be kept at all: the run ends, with a problem.
    world.keep = None;
    let old = world.record("f", Some(hash_of(b"new")));
    let applied = world.apply(vec![world.remove("f", &old)]);
    assert_eq!(applied.problems.len(), 1);
    assert!(applied.complete && world.kept().is_empty());
}

#[test]
fn a_large_tree_goes_at_once_where_nothing_is_to_be_kept() {
    let mut world = World::new();
    world.keep = None;
    let dir = world.have("d", None);
    for number in 0..PRUNE_OBJECTS + 10 {
        world.have(&format!("d/{number}"), Some("x"));
    }
    assert!(world.apply(vec![world.remove_tree("d", &dir)]).complete);
    assert_eq!(fs::read_dir(world.at(".driftless/versions")).unwrap().count(), 0);
}

#[test]
fn the_reason_tells_a_lost_conflict_from_a_replacement() {
    let world = World::new();
    replace(&world, "f", "old", "new");
    let loser = world.have("g", Some("loser"));
    let row = world.theirs("g", Some("winner"));
    let mut step = world.write("g", &row, Some(&loser));
    if let Action::Write { stamp, .. } = &mut step.action {
        *stamp = Stamp::Fresh { c: Some(row.c.clone()) };
    }
    assert!(world.apply(vec![step]).complete);
    let reason = |path| world.state().versions(&rel(path)).unwrap()[0].kept.reason;
    assert_eq!((reason("f"), reason("g")), ("replaced", "lost a conflict"));
}

#[test]
fn what_finds_no_room_is_not_begun() {
    let world = World::new();
    let mut large = world.theirs("d/large", Some("in truth small"));
    large.object.content = Content::File { size: 1 << 60, hash: None };
    let steps =
        vec![world.make("d"), world.write("d/large", &large, None), world.create("d/small", "small"), world.finish_dir("d")];
    let applied = world.apply(steps);
    assert_eq!((applied.totals.created, applied.totals.failed), (2, 1), "{:?}", applied.problems);
    assert_eq!(applied.problems[0].path, rel("d/large"));
    assert!(applied.problems[0].error.contains("no room"), "{:?}", applied.problems);
    assert_eq!(*world.there.fetched.lock().unwrap(), [rel("d/small")]);
    assert_eq!(world.disk().keys().collect::<Vec<_>>(), ["d", "d/small"]);
    world.assert_stage_is_empty();
}

#[test]
fn a_shortfall_of_space_is_told_in_bytes() {
    let world = World::new();
    assert_eq!(crate::io::stage::shortfall(&world.root, 1, crate::reserve::Reserve::NONE).unwrap(), None);
    assert!(crate::io::stage::shortfall(&world.root, u64::MAX, crate::reserve::Reserve::STANDARD).unwrap().is_some());
}

#[test]
fn a_root_is_tried_for_the_renames_that_changes_need_and_left_clean() {
    let world = World::new();
    // An interrupted trial left one.
    write_file(&world.at(".driftless/probe-b"), "");
    check_renames(&world.root).unwrap();
    let left = fs::read_dir(world.at(".driftless")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().starts_with("probe-")));
    let told = ApplyError::Renames("/srv/old".into()).to_string();
    for part in ["/srv/old", "RENAME_EXCHANGE", "nothing was changed", "Use a folder on"] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn a_crash_in_restore_over_a_directory_leaves_it_kept_from_then_on() {
    for place in ["restore-intended", "restore-recorded", "restore-exchanged", "restore-renamed", "restore-forgotten"] {
        for again in [false, true] {
            let mut world = World::new();
            let dir = world.have("d", None);
            world.have("d/f", Some("old"));
            assert!(world.apply(vec![world.remove_tree("d", &dir)]).complete);
            the_clock_goes_on();
            world.have("d", None);
            world.have("d/f", Some("new"));
            the_clock_goes_on();
            let began_ns = super::super::versions::now_ns();
            assert!(world.crash_at(place, 1, |world| {
                restore(&world.root, world.state(), &rel("d"), None).unwrap();
            }));
            world.reopen();
            if again && world.crash_at("recover-restored", 1, |world| drop(recover(&world.root, world.state(), MASK))) {
                world.reopen();
            }
            world.recover();
            let versions = list(&world.root, world.state(), &rel("d")).unwrap();
            assert_eq!(versions.len(), 1, "{place}");
            let restored = world.read("d/f") == "old";
            assert_eq!(versions[0].kept.kept_at_ns >= began_ns, restored, "{place}");
            // What is older than the restore may go.
            prune(&world.root, world.state(), began_ns, Duration::ZERO, 100).unwrap();
            let left = walkdir::WalkDir::new(world.at(".driftless/versions")).into_iter().map(Result::unwrap);
            let left: Vec<_> =
                left.filter(|entry| entry.file_type().is_file()).map(|entry| fs::read(entry.path()).unwrap()).collect();
            assert!(if restored { left == [b"new"] } else { left.is_empty() && world.read("d/f") == "new" }, "{place}");
            assert_eq!(world.state().versions(&RelPath::root()).unwrap().len(), usize::from(restored), "{place}");
        }
    }
}
