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
fn the_clock_goes_on() {
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
    assert!(check_late(&world.root, world.state(), 0).unwrap().is_empty());
    let name = fs::read_dir(world.at(".driftless/versions")).unwrap().next().unwrap().unwrap();
    write_file(&name.path(), "old and more");
    assert!(check_late(&world.root, world.state(), i64::MAX).unwrap().is_empty());
    let brought = check_late(&world.root, world.state(), 0).unwrap();
    assert_eq!(brought.len(), 1);
    assert_eq!(world.read(&brought[0].to_string()), "old and more");
}

#[test]
fn a_shortfall_of_space_is_told_in_bytes() {
    let world = World::new();
    assert_eq!(crate::io::stage::shortfall(&world.root, 1).unwrap(), None);
    assert!(crate::io::stage::shortfall(&world.root, u64::MAX).unwrap().is_some());
}
