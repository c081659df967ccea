//! Content that stands here under another path is renamed, not brought.

use super::*;

fn moved_items(world: &World) -> Vec<(String, Option<String>)> {
    let items = world.watcher.items.lock().unwrap();
    let moved = items.iter().filter(|(item, _)| item.verb == crate::plan::Verb::Move);
    moved.map(|(item, _)| (item.path.to_string(), item.from.as_ref().map(RelPath::to_string))).collect()
}

fn deleted_items(world: &World) -> usize {
    let items = world.watcher.items.lock().unwrap();
    items.iter().filter(|(item, _)| item.verb == crate::plan::Verb::Delete).count()
}

#[test]
fn a_file_moves_whichever_of_its_two_steps_comes_first() {
    for (old_path, new_path) in [("z/old", "a/new"), ("a/old", "z/new")] {
        for paired in [true, false] {
            let world = World::new();
            world.have("a", None);
            world.have("z", None);
            let old = world.have(old_path, Some("content"));
            let ino = fs::metadata(world.at(old_path)).unwrap().ino();
            let remove = world.remove(old_path, &old);
            let create = world.create(new_path, "content");
            let mut moves = Moves::new();
            moves.offer_file(&remove);
            moves.want_file(hash_of(b"content"));
            if paired {
                moves.pair();
            }
            let mut steps = vec![create, remove];
            steps.sort_by_key(|step| step.path.clone());
            let applied = world.apply_moving(steps, moves);
            assert!(applied.complete, "{:?}", applied.problems);
            let totals = applied.totals;
            let counts = (totals.moved, totals.created, totals.deleted, totals.bytes);
            assert_eq!(counts, (1, 0, 0, 0), "{old_path} {paired}");
            assert_eq!(fs::metadata(world.at(new_path)).unwrap().ino(), ino);
            assert_eq!(moved_items(&world), [(new_path.into(), Some(old_path.into()))]);
            if paired {
                assert_eq!(deleted_items(&world), 0);
            }
            assert!(world.there.fetched.lock().unwrap().is_empty());
            assert!(world.entry(old_path).is_none());
            assert!(world.state().versions(&RelPath::root()).unwrap().is_empty());
            assert!(world.kept().is_empty());
            world.assert_stage_is_empty();
            // The time was set anew only if it differed; the mode differs here.
            world.assert_no_local_edit(false);
        }
    }
}

#[test]
fn an_edited_origin_is_copied_instead_and_keeps_its_edit() {
    let world = World::new();
    let old = world.have("old", Some("content"));
    let remove = world.remove("old", &old);
    let mut moves = Moves::new();
    moves.offer_file(&remove);
    let create = world.create("new", "content");
    write_file(&world.at("old"), "edited!");
    let applied = world.apply_moving(vec![create, remove], moves);
    assert_eq!((applied.totals.created, applied.totals.moved, applied.totals.failed), (1, 0, 1));
    assert_eq!((world.read("old"), world.read("new")), ("edited!".into(), "content".into()));
}

#[test]
fn one_origin_serves_one_of_two_equal_creations() {
    let world = World::new();
    let old = world.have("old", Some("content"));
    let remove = world.remove("old", &old);
    let mut moves = Moves::new();
    moves.offer_file(&remove);
    let steps = vec![world.create("n1", "content"), world.create("n2", "content"), remove];
    let applied = world.apply_moving(steps, moves);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!((applied.totals.created, applied.totals.moved, applied.totals.deleted), (1, 1, 0));
    world.assert_no_local_edit(false);
}

#[test]
fn files_move_into_a_new_directory_that_is_staged_without_them() {
    let world = World::new();
    let old = world.have("x", Some("content"));
    let remove = world.remove("x", &old);
    let mut moves = Moves::new();
    moves.offer_file(&remove);
    moves.want_file(hash_of(b"content"));
    moves.pair();
    let steps = vec![world.make("d"), world.create("d/a", "aa"), world.create("d/x", "content"), world.finish_dir("d"), remove];
    let applied = world.apply_moving(steps, moves);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!((applied.totals.created, applied.totals.moved), (2, 1));
    assert_eq!(fs::metadata(world.at("d")).unwrap().mtime(), OLD_NS / 1_000_000_000);
    world.assert_no_local_edit(false);
}

/// A directory of files here, the same there under another path; its removal and its creation.
fn tree_move(world: &World, old: &str, new: &str, files: usize) -> (Vec<Step>, Moves) {
    let top = world.have(old, None);
    world.have(&format!("{old}/sub"), None);
    let like_here = |path: &str| {
        let mut row = world.theirs(path, None);
        row.object.attrs.mode = fs::metadata(world.at(old)).unwrap().mode() & 0o7777;
        world.write(path, &row, None)
    };
    let mut steps = vec![like_here(new), like_here(&format!("{new}/sub"))];
    let mut rows = Vec::new();
    for number in 0..files {
        let name = format!("sub/{number:06}");
        rows.push((name.clone(), world.have(&format!("{old}/{name}"), Some(&name))));
    }
    for (name, mut row) in rows {
        let theirs = world.theirs(&format!("{new}/{name}"), Some(&name));
        row.m = theirs.m;
        row.c = theirs.c;
        steps.push(world.write(&format!("{new}/{name}"), &row, None));
    }
    steps.push(world.finish_dir(&format!("{new}/sub")));
    steps.push(world.finish_dir(new));
    let none = crate::store::Filter::Since { after: u64::MAX >> 1, also: Arc::default() };
    let digest = world.state().listing(&rel(old), &none).unwrap().digest;
    assert_ne!(digest, Digest::default());
    world.there.digests.lock().unwrap().insert(rel(new), digest);
    let remove = world.remove_tree(old, &top);
    let mut moves = Moves::new();
    moves.offer_tree(&remove, digest);
    moves.want_tree(digest);
    moves.pair();
    steps.push(remove);
    (steps, moves)
}

#[test]
fn a_directory_moves_in_one_rename_whichever_step_comes_first() {
    for (old, new) in [("z", "a"), ("a", "z")] {
        let world = World::new();
        let (mut steps, moves) = tree_move(&world, old, new, 30);
        steps.sort_by_key(|step| (step.path.components().next() != Some(rel("a").name().unwrap()), step.ticket));
        let ino = fs::metadata(world.at(&format!("{old}/sub/000007"))).unwrap().ino();
        let applied = world.apply_moving(steps, moves);
        assert!(applied.complete, "{:?}", applied.problems);
        let totals = applied.totals;
        assert_eq!((totals.moved, totals.created, totals.deleted, totals.bytes), (1, 0, 0, 0));
        assert_eq!(fs::metadata(world.at(&format!("{new}/sub/000007"))).unwrap().ino(), ino);
        assert!(!world.at(old).exists());
        assert!(world.there.fetched.lock().unwrap().is_empty());
        assert!(world.state().versions(&RelPath::root()).unwrap().is_empty());
        assert!(world.entry(&format!("{new}/sub/000007")).unwrap().row.m.get(THERE) > 0);
        world.assert_no_local_edit(false);
    }
}

#[test]
fn a_moved_directory_inside_a_new_one_is_still_moved() {
    let world = World::new();
    let (steps, moves) = tree_move(&world, "old", "new", 5);
    // The same under one more new directory.
    let outer = world.make("0");
    let digest = world.there.digests.lock().unwrap()[&rel("new")];
    world.there.digests.lock().unwrap().insert(rel("0/new"), digest);
    let mut nested = vec![outer];
    for mut step in steps {
        if let Some(path) = step.path.rebase(&rel("new"), &rel("0/new")) {
            step.path = path.clone();
            if let Action::Write { from, .. } = &mut step.action {
                *from = path;
            }
        }
        nested.push(step);
    }
    nested.insert(1, world.create("0/a", "a"));
    for (ticket, step) in nested.iter_mut().enumerate() {
        step.ticket = ticket as u64;
    }
    let applied = world.apply_moving(nested, moves);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!((applied.totals.moved, applied.totals.created), (1, 2));
    world.assert_no_local_edit(false);
}

#[test]
fn a_directory_with_an_unknown_file_is_copied_and_stays() {
    let world = World::new();
    let (steps, moves) = tree_move(&world, "old", "new", 5);
    write_file(&world.at("old/sub/mine"), "mine");
    let applied = world.apply_moving(steps, moves);
    assert_eq!((applied.totals.moved, applied.totals.failed), (0, 1), "{:?}", applied.problems);
    assert_eq!(world.read("old/sub/mine"), "mine");
    assert_eq!(world.read("new/sub/000003"), "sub/000003");
}

#[test]
fn an_unclaimed_offer_is_told_as_a_deletion_in_the_end() {
    let world = World::new();
    let old = world.have("old", Some("content"));
    let remove = world.remove("old", &old);
    let mut moves = Moves::new();
    moves.offer_file(&remove);
    moves.want_file(hash_of(b"content"));
    moves.pair();
    let applied = world.apply_moving(vec![remove], moves);
    assert!(applied.complete);
    assert_eq!((applied.totals.deleted, deleted_items(&world)), (1, 1));
    assert_eq!(world.kept(), ["content"]);
}
