use super::*;
use crate::plan::Why;

#[test]
fn a_new_directory_with_all_in_it_comes_in_one_piece_with_times_and_modes() {
    let world = World::new();
    let steps = vec![
        world.make("d"),
        world.create("d/a", "aa"),
        world.make("d/e"),
        world.create("d/e/b", "bb"),
        world.finish_dir("d/e"),
        world.create("d/z", "zz"),
        world.finish_dir("d"),
        world.create("f", "ff"),
    ];
    let applied = world.apply(steps);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!((applied.totals.created, applied.totals.bytes), (6, 8));
    let disk = world.disk();
    assert_eq!(disk.len(), 6);
    assert_eq!(world.read("d/e/b"), "bb");
    for dir in ["d", "d/e", "d/a", "f"] {
        let stat = fs::metadata(world.at(dir)).unwrap();
        assert_eq!(stat.mtime(), OLD_NS / 1_000_000_000, "{dir}");
        assert_eq!(stat.permissions().mode() & 0o777, if stat.is_dir() { 0o750 } else { 0o640 });
    }
    world.assert_no_local_edit(false);
    world.assert_stage_is_empty();
    assert!(world.state().intents().unwrap().is_empty());
}

#[test]
fn a_read_only_directory_is_filled_over_several_batches_and_ends_read_only() {
    let world = World::new();
    let mut row = world.theirs("d", None);
    row.object.attrs.mode = 0o555;
    let mut steps = vec![world.write("d", &row, None)];
    let mut later = vec![world.create("d/a", "x")];
    steps.push(world.create("d/b", "x"));
    later.push(world.create("d/c", "x"));
    later.push(world.finish_dir("d"));
    let applied = world.apply_batches(vec![steps, later]);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!(fs::metadata(world.at("d")).unwrap().permissions().mode() & 0o777, 0o555);
    world.assert_no_local_edit(false);
}

#[test]
fn a_replaced_file_is_kept_and_its_row_is_theirs() {
    let world = World::new();
    let old = world.have("f", Some("old"));
    let row = world.theirs("f", Some("new"));
    let applied = world.apply(vec![world.write("f", &row, Some(&old))]);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!((applied.totals.updated, world.read("f").as_str()), (1, "new"));
    assert_eq!(world.kept(), ["old"]);
    let entry = world.entry("f").unwrap();
    assert_eq!((entry.row.m, entry.row.c), (row.m, row.c));
    assert!(entry.own.is_some_and(|own| world.known().within(&own)));
    world.assert_no_local_edit(false);
    let versions = list(&world.root, world.state(), &rel("f")).unwrap();
    assert_eq!((versions.len(), versions[0].kept.reason), (1, "replaced"));
    assert_eq!(versions[0].kept.hash, Some(hash_of(b"old")));
}

#[test]
fn equal_content_changes_its_attributes_in_place_and_brings_nothing() {
    let world = World::new();
    let old = world.have("f", Some("same"));
    let row = world.theirs("f", Some("same"));
    let before = fs::metadata(world.at("f")).unwrap().ino();
    let dir = world.have("d", None);
    let their_dir = world.theirs("d", None);
    let steps = vec![world.write("d", &their_dir, Some(&dir)), world.write("f", &row, Some(&old))];
    let applied = world.apply(steps);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!(applied.totals.updated, 2);
    let stat = fs::metadata(world.at("f")).unwrap();
    assert_eq!((stat.ino(), stat.permissions().mode() & 0o777), (before, 0o640));
    assert_eq!(fs::metadata(world.at("d")).unwrap().permissions().mode() & 0o777, 0o750);
    assert!(world.there.fetched.lock().unwrap().is_empty());
    world.assert_no_local_edit(false);
}

#[test]
fn restamp_changes_the_version_and_nothing_on_the_disk() {
    let world = World::new();
    let old = world.have("f", Some("same"));
    let learn = world.known();
    let action = Action::Restamp {
        expect: old.clone(),
        attrs: None,
        stamp: Stamp::Fresh { c: Some(old.c.clone()) },
        learn,
        why: Why::EditBeatsDelete,
    };
    let applied = world.apply(vec![world.step("f", action)]);
    assert!(applied.complete, "{:?}", applied.problems);
    let entry = world.entry("f").unwrap();
    assert_ne!(entry.row.m, old.m);
    assert_eq!(entry.row.c, old.c);
    world.assert_no_local_edit(false);
}

#[test]
fn a_symbolic_link_comes_and_goes_without_being_followed() {
    let world = World::new();
    let attrs = Attrs { mode: 0o777, mtime_ns: OLD_NS, ..Attrs::default() };
    let content = Content::Symlink(b"/etc/passwd".as_slice().into());
    let row = world.their_row(Object { content, attrs });
    assert!(world.apply(vec![world.write("l", &row, None)]).complete);
    assert_eq!(fs::read_link(world.at("l")).unwrap(), Path::new("/etc/passwd"));
    world.assert_no_local_edit(false);
    let live = world.entry("l").unwrap().row;
    let applied = world.apply(vec![world.remove("l", &live)]);
    assert!(applied.complete, "{:?}", applied.problems);
    assert!(world.disk().is_empty());
}

#[test]
fn removals_keep_files_and_trees_and_drop_empty_directories() {
    let world = World::new();
    let file = world.have("f", Some("ff"));
    let tree = world.have("t", None);
    world.have("t/x", Some("xx"));
    world.have("t/y", None);
    world.have("t/y/z", Some("zz"));
    let empty = world.have("e", None);
    let steps = vec![world.remove("e", &empty), world.remove("f", &file), world.remove_tree("t", &tree)];
    let applied = world.apply(steps);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!(applied.totals.deleted, 3);
    assert!(world.disk().is_empty());
    assert_eq!(world.kept(), ["ff", "xx", "zz"]);
    assert_eq!(world.state().live().unwrap(), 0);
}

#[test]
fn without_retention_nothing_stays_behind() {
    let mut world = World::new();
    world.keep = None;
    let file = world.have("f", Some("ff"));
    let tree = world.have("t", None);
    world.have("t/x", Some("xx"));
    let old = world.have("g", Some("old"));
    let row = world.theirs("g", Some("new"));
    let steps = vec![world.remove("f", &file), world.write("g", &row, Some(&old)), world.remove_tree("t", &tree)];
    assert!(world.apply(steps).complete);
    assert!(world.kept().is_empty());
    assert!(world.state().versions(&RelPath::root()).unwrap().is_empty());
    assert_eq!(fs::read_dir(world.at(".driftless/versions")).unwrap().count(), 0);
}

#[test]
fn a_file_takes_the_place_of_an_emptied_directory_and_back() {
    let world = World::new();
    let dir = world.have("x", None);
    let inside = world.have("x/i", Some("in"));
    let row = world.theirs("x", Some("file now"));
    let steps = vec![world.remove("x/i", &inside), world.write("x", &row, Some(&dir))];
    let applied = world.apply(steps);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!(world.read("x"), "file now");
    world.assert_no_local_edit(false);
    let live = world.entry("x").unwrap().row;
    let row = world.theirs("x", None);
    let steps = vec![world.write("x", &row, Some(&live)), world.create("x/j", "jj"), world.finish_dir("x")];
    let applied = world.apply(steps);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!(world.read("x/j"), "jj");
    assert!(world.kept().contains(&"file now".to_owned()));
    world.assert_no_local_edit(false);
}

#[test]
fn a_file_takes_the_place_of_a_directory_that_goes_whole() {
    let world = World::new();
    let dir = world.have("x", None);
    world.have("x/e", None);
    world.have("x/e/i", Some("in"));
    let row = world.theirs("x", Some("file now"));
    let applied = world.apply(vec![world.write("x", &row, Some(&dir))]);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!((world.read("x"), world.kept()), ("file now".into(), vec!["in".into()]));
    world.assert_no_local_edit(false);
    assert_eq!(world.state().check().unwrap(), Vec::<String>::new());
}

#[test]
fn a_lost_conflict_stands_beside_with_a_fresh_version() {
    let world = World::new();
    let old = world.have("f.txt", Some("mine"));
    let row = world.theirs("f.txt", Some("theirs"));
    let mut step = world.write("f.txt", &row, Some(&old));
    if let Action::Write { displaced, stamp, .. } = &mut step.action {
        *displaced = Displaced::Copy(rel("f.conflict.txt"));
        *stamp = Stamp::Fresh { c: Some(row.c.clone()) };
    }
    let applied = world.apply(vec![step]);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!((world.read("f.txt"), world.read("f.conflict.txt")), ("theirs".into(), "mine".into()));
    let (winner, copy) = (world.entry("f.txt").unwrap().row, world.entry("f.conflict.txt").unwrap().row);
    assert_eq!(winner.m, copy.m, "one event a batch");
    assert_eq!(copy.m.get(world.state().id()), world.state().counter());
    world.assert_no_local_edit(false);
    assert!(world.kept().is_empty());
}

#[test]
fn a_conflict_copy_avoids_other_content_and_joins_equal_content() {
    let world = World::new();
    world.have("f.copy", Some("something else"));
    let row = world.theirs("f", Some("theirs"));
    let copy = |path: &str| {
        let mut step = world.write(path, &row, None);
        if let Action::Write { from, stamp, learn, .. } = &mut step.action {
            (*from, *stamp, *learn) = (rel("f"), Stamp::Fresh { c: None }, None);
        }
        step
    };
    let applied = world.apply(vec![copy("f.copy")]);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!((world.read("f.copy"), world.read("f-2.copy")), ("something else".into(), "theirs".into()));
    let before = world.disk();
    assert!(world.apply(vec![copy("f-2.copy")]).complete);
    assert_eq!(world.disk(), before);
    world.assert_no_local_edit(false);
    world.assert_stage_is_empty();
}

#[test]
fn a_directory_is_made_for_survivors_and_what_is_in_its_way_stands_beside() {
    let world = World::new();
    let old = world.have("d", Some("a file in the way"));
    let attrs = Attrs { mode: 0o755, mtime_ns: OLD_NS, ..Attrs::default() };
    let displaced = Displaced::Copy(rel("d.conflict"));
    let make = Action::MakeDir { attrs, expect: Some(old), displaced, learn: world.known() };
    let steps = vec![world.step("d", make), world.create("d/child", "c")];
    let applied = world.apply(steps);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!((world.read("d/child"), world.read("d.conflict")), ("c".into(), "a file in the way".into()));
    world.assert_no_local_edit(false);
}

#[test]
fn what_fails_or_is_left_blocks_the_raise_above_it_and_is_listed() {
    let world = World::new();
    let good = world.create("a", "aa");
    let mut bad = world.create("b", "bb");
    if let Action::Write { row, .. } = &mut bad.action {
        row.object.content = Content::File { size: 2, hash: Some(Hash([9; 32])) };
    }
    let s = Arc::new(Vector::from(Event { replica: THERE, counter: 99 }));
    let raise = |until| {
        let (s, bound) = (Some(s.clone()), s.clone());
        Action::Raise { first: good.ticket, until, s, bound, gaps: false }
    };
    let below_a = world.step("a", raise(good.ticket + 1));
    let all = world.step("", raise(bad.ticket + 1));
    let applied = world.apply(vec![good, below_a, bad, all]);
    assert!(!applied.complete);
    assert_eq!((applied.totals.created, applied.totals.failed), (1, 1));
    assert_eq!(applied.incomplete.len(), 1);
    let open = &applied.incomplete[0];
    assert_eq!((open.path.clone(), open.why, open.theirs.is_some()), (rel("b"), None, true));
    assert!(open.reason.contains("changed while it was copied"), "{}", open.reason);
    let listing = |path: &str| world.state().listing(&rel(path), &crate::store::Filter::All).unwrap().sub.get(THERE);
    assert_eq!((listing("a"), listing("")), (99, 0));
    world.assert_stage_is_empty();
}

#[test]
fn a_failed_child_leaves_its_directory_and_siblings_alone() {
    let world = World::new();
    let steps = vec![world.make("d"), world.create("d/a", "a"), world.create("d/b", "b")];
    world.there.files.lock().unwrap().remove(&rel("d/a"));
    let applied = world.apply(steps);
    assert_eq!((applied.totals.created, applied.totals.failed), (2, 1));
    assert_eq!(world.disk().keys().collect::<Vec<_>>(), ["d", "d/b"]);
    world.assert_no_local_edit(false);
}

#[test]
fn a_cancelled_run_records_what_it_began_and_takes_nothing_more() {
    let world = World::new();
    world.watcher.stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let batches = ["first", "second", "third"].map(|path| vec![world.create(path, "x")]);
    let applied = world.apply_batches(batches.into());
    assert!(applied.cancelled && !applied.complete);
    assert_eq!(world.disk().keys().collect::<Vec<_>>(), ["first"]);
    world.assert_no_local_edit(false);
    world.assert_stage_is_empty();
}

#[test]
fn a_local_source_hashes_late_and_records_it_there() {
    let world = World::new();
    let there = World::new();
    there.have("d", None);
    let event = there.have("d/f", Some("bytes")).m.iter().next().unwrap();
    // Known by size and time alone, as after a first scan.
    let row = there.record("d/f", None);
    let source = crate::io::source::LocalSource::new(&there.root, there.state());
    let mut apply = Apply::new(Context { source: &source, ..world.context() }, Moves::new()).unwrap();
    let dir = there.entry("d").unwrap().row;
    let learn = Some(Arc::new(row.m.joined(&event.into())));
    for (path, row) in [("d", &dir), ("d/f", &row)] {
        let mut step = world.write(path, row, None);
        if let Action::Write { learn: known, .. } = &mut step.action {
            *known = learn.clone();
        }
        apply.push(step).unwrap();
    }
    let applied = apply.finish().unwrap();
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!(world.read("d/f"), "bytes");
    let hash = Some(hash_of(b"bytes"));
    for side in [&world, &there] {
        assert_eq!(super::super::job::hash_of(&side.entry("d/f").unwrap().row.object), hash);
    }
    world.assert_no_local_edit(false);
    // An edit that no scan has seen is not sent.
    write_file(&there.at("d/f"), "edited");
    let wanted = crate::io::source::Wanted { path: rel("d/f"), size: 5, hash: None, m: row.m, base: None, held: 0 };
    let error = source.feed(&world.root, vec![wanted]).fetch(0, &mut tempfile::tempfile().unwrap()).unwrap_err();
    assert!(matches!(error, SourceError::Stale(_)), "{error}");
}

#[test]
fn where_the_connection_is_lost_all_before_is_recorded_and_no_path_is_to_blame() {
    for fails_at in ["second", "third", "fourth"] {
        let mut world = World::new();
        world.there.fails_at = Some(rel(fails_at));
        let mut apply = Apply::new(world.context(), Moves::new()).unwrap();
        let mut ended = Ok(());
        let mut done = Vec::new();
        for path in ["first", "second", "third", "fourth"] {
            if ended.is_ok() {
                done.extend((path != fails_at).then_some(path));
                apply.push(world.create(path, "x")).unwrap();
                ended = apply.turn();
            }
        }
        assert!(matches!(ended, Err(ApplyError::Source(SourceError::Remote(_)))), "{ended:?}");
        drop(apply);
        done.sort_unstable();
        assert_eq!(world.disk().keys().collect::<Vec<_>>(), done);
        assert!(world.state().intents().unwrap().is_empty());
        assert!(world.watcher.items.lock().unwrap().iter().all(|(_, done)| *done == Done::Done));
        world.assert_no_local_edit(false);
    }
}

#[test]
fn a_full_disk_fails_the_large_file_and_leaves_room_for_the_small_ones() {
    let mut world = World::new();
    world.there.room = Some(3);
    let old = world.have("kept", Some("old"));
    let row = world.theirs("kept", Some("too large"));
    let steps = vec![
        world.make("d"),
        world.create("d/large", "large"),
        world.create("d/s", "s"),
        world.write("kept", &row, Some(&old)),
        world.create("z", "zzz"),
    ];
    let applied = world.apply(steps);
    assert_eq!((applied.totals.created, applied.totals.failed), (3, 2), "{:?}", applied.problems);
    assert_eq!(world.disk().keys().collect::<Vec<_>>(), ["d", "d/s", "kept", "z"]);
    assert_eq!(world.read("kept"), "old");
    world.assert_no_local_edit(false);
    world.assert_stage_is_empty();
}
