//! The process ends at every named place: recovery leaves nothing that looks like an edit, and loses nothing.

use super::*;
use crate::io::kill::KILL_POINTS;

/// What a user wrote before, in the world of [`everything`].
const MINE: [&str; 8] = ["replaced", "lost", "removed", "in the tree", "file to dir", "moved late", "moved soon", "in the moved"];

/// Steps of every kind, in two batches.
fn everything(world: &World) -> (Vec<Step>, Vec<Step>, Moves) {
    let replaced = world.have("replaced", Some("replaced"));
    let lost = world.have("lost", Some("lost"));
    let removed = world.have("removed", Some("removed"));
    let tree = world.have("tree", None);
    world.have("tree/file", Some("in the tree"));
    let to_dir = world.have("to-dir", Some("file to dir"));
    let to_file = world.have("to-file", None);
    let meta = world.have("meta", Some("meta"));
    let empty = world.have("empty", None);
    let late = world.have("z-late", Some("moved late"));
    let soon = world.have("a-soon", Some("moved soon"));
    let origin = world.have("z-origin", None);
    let within = world.have("z-origin/x", Some("in the moved"));

    let mut moves = Moves::new();
    let mut first = Vec::new();
    let remove_soon = world.remove("a-soon", &soon);
    moves.offer_file(&remove_soon);
    first.push(remove_soon);
    let row = world.theirs("lost", Some("won"));
    let mut conflict = world.write("lost", &row, Some(&lost));
    if let Action::Write { displaced, stamp, .. } = &mut conflict.action {
        (*displaced, *stamp) = (Displaced::Copy(rel("lost.copy")), Stamp::Fresh { c: None });
    }
    first.push(conflict);
    let row = world.theirs("meta", Some("meta"));
    first.push(world.write("meta", &row, Some(&meta)));
    first.extend([world.make("new"), world.create("new/a", "aa"), world.create("new/b", "bb")]);
    first.push(world.finish_dir("new"));
    first.push(world.create("new-late", "moved late"));
    first.push(world.create("new-soon", "moved soon"));
    let mut row = world.theirs("new-tree", None);
    row.object.attrs.mode = origin.object.attrs.mode;
    first.push(world.write("new-tree", &row, None));
    let theirs = world.theirs("new-tree/x", Some("in the moved"));
    let row = Row { object: within.object, ..theirs };
    first.push(world.write("new-tree/x", &row, None));
    first.push(world.finish_dir("new-tree"));

    let mut second = Vec::new();
    let row = world.theirs("replaced", Some("replacement"));
    second.push(world.write("replaced", &row, Some(&replaced)));
    second.push(world.remove("removed", &removed));
    second.push(world.remove("empty", &empty));
    let attrs = Attrs { mode: 0o777, mtime_ns: OLD_NS, ..Attrs::default() };
    let link = world.their_row(Object { content: Content::Symlink(b"to".as_slice().into()), attrs });
    second.push(world.write("symlink", &link, None));
    let row = world.theirs("to-dir", None);
    second.push(world.write("to-dir", &row, Some(&to_dir)));
    second.push(world.create("to-dir/x", "x"));
    let row = world.theirs("to-file", Some("dir to file"));
    second.push(world.write("to-file", &row, Some(&to_file)));
    second.push(world.remove_tree("tree", &tree));
    let remove_late = world.remove("z-late", &late);
    moves.offer_file(&remove_late);
    second.push(remove_late);
    let digest = Digest(7);
    world.there.digests.lock().unwrap().insert(rel("new-tree"), digest);
    let remove_origin = world.remove_tree("z-origin", &origin);
    moves.offer_tree(&remove_origin, digest);
    second.push(remove_origin);
    for (ticket, step) in first.iter_mut().chain(&mut second).enumerate() {
        step.ticket = ticket as u64 + 1;
    }
    (first, second, moves)
}

fn apply_two(world: &World, (first, second, moves): (Vec<Step>, Vec<Step>, Moves)) -> Applied {
    let mut apply = Apply::new(world.context(), moves).unwrap();
    for steps in [first, second] {
        for step in steps {
            apply.push(step).unwrap();
        }
        apply.turn().unwrap();
    }
    apply.finish().unwrap()
}

fn assert_sound(world: &World, place: &str) {
    world.assert_no_local_edit(true);
    world.assert_stage_is_empty();
    assert!(world.state().intents().unwrap().is_empty());
    let all = world.all_bytes();
    for mine in MINE {
        assert!(all.iter().any(|found| found == mine), "{place}: {mine:?} is lost; there is {all:?}");
    }
    for version in world.state().versions(&RelPath::root()).unwrap() {
        let at = world.at(".driftless/versions").join(std::str::from_utf8(&version.kept.name).unwrap());
        assert!(at.symlink_metadata().is_ok(), "{place}: the version of {} is gone", version.kept.path);
    }
    assert_eq!(world.state().check().unwrap(), Vec::<String>::new(), "{place}");
}

#[test]
fn everything_is_carried_out_when_nothing_crashes() {
    let world = World::new();
    let steps = everything(&world);
    let applied = apply_two(&world, steps);
    assert!(applied.complete, "{:?}", applied.problems);
    assert_eq!((applied.totals.moved, applied.totals.failed), (3, 0));
    assert_sound(&world, "no crash");
    world.assert_no_local_edit(false);
    let before = world.disk();
    assert_eq!(world.recover(), Recovered::default());
    assert_eq!(world.disk(), before);
}

#[test]
fn a_crash_at_any_place_looks_like_no_edit_and_loses_nothing() {
    let mut passed = 0;
    for place in KILL_POINTS {
        for nth in 1..=4 {
            let mut world = World::new();
            let steps = everything(&world);
            let crashed = world.crash_at(place, nth, |world| {
                apply_two(world, steps);
            });
            if !crashed {
                break;
            }
            passed += 1;
            world.reopen();
            let recovered = world.recover();
            assert_eq!((recovered.unexplained, recovered.kept), (0, 0), "{place} {nth}");
            assert_sound(&world, &format!("{place} {nth}"));
            assert_eq!(world.recover(), Recovered::default(), "{place} {nth}");
        }
    }
    assert!(passed > 50, "only {passed} places were passed");
}

#[test]
fn a_crash_in_recovery_is_recovered_from() {
    let places = ["exchange-after", "displace-copy-after", "remove-tree-after", "move-tree-after", "batch-swapped"];
    let again = KILL_POINTS.iter().filter(|place| place.starts_with("recover-"));
    for place in places {
        for second in again.clone() {
            let mut world = World::new();
            let steps = everything(&world);
            assert!(world.crash_at(place, 1, |world| {
                apply_two(world, steps);
            }));
            world.reopen();
            world.crash_at(second, 1, |world| {
                world.recover();
            });
            world.reopen();
            world.recover();
            assert_sound(&world, &format!("{place}, then {second}"));
        }
    }
}

#[test]
fn an_edit_between_crash_and_recovery_stays_an_edit() {
    let mut world = World::new();
    let old = world.have("f", Some("old"));
    let row = world.theirs("f", Some("theirs"));
    let steps = vec![world.write("f", &row, Some(&old)), world.create("g", "theirs")];
    assert!(world.crash_at("batch-swapped", 1, |world| {
        world.apply(steps);
    }));
    world.reopen();
    // One is written in place, the other replaced by an editor.
    write_file(&world.at("f"), "edited");
    write_file(&world.at("tmp"), "saved");
    fs::rename(world.at("tmp"), world.at("g")).unwrap();
    world.recover();
    assert_eq!((world.read("f"), world.read("g")), ("edited".into(), "saved".into()));
    for path in ["f", "g"] {
        let now = world.root.dir(&rel("")).unwrap().stat(path.as_bytes()).unwrap().unwrap();
        let entry = world.entry(path).unwrap();
        assert!(!unchanged(&now, &entry.signature), "{path}: the scan must see the edit");
        assert!(entry.row.m.get(THERE) > 0, "{path}: the edit comes after theirs");
    }
    assert_eq!(world.kept(), ["old"]);
}

#[test]
fn an_unknown_object_in_the_staging_folder_is_kept_not_deleted() {
    let world = World::new();
    world.root.private(&["stage"]).unwrap();
    let stage = world.at(".driftless/stage");
    write_file(&stage.join("whatever"), "somebody's");
    // A name of ours that holds another object than was staged under it: displaced by an exchange.
    write_file(&stage.join("swap-1-2-3"), "displaced");
    write_file(&stage.join("new-1-2"), "garbage");
    write_file(&stage.join("part-1-2"), "garbage");
    let recovered = world.recover();
    assert_eq!(recovered.kept, 2);
    assert_eq!(world.kept(), ["displaced", "somebody's"]);
    assert_eq!(world.state().versions(&RelPath::root()).unwrap().len(), 2);
    world.assert_stage_is_empty();
}

#[test]
fn a_lost_commit_after_durable_renames_is_made_up_for() {
    // The rows of a batch are recorded with the next one: a crash before that has intents and renames, no rows.
    let mut world = World::new();
    let steps = everything(&world);
    assert!(world.crash_at("finish-synced", 1, |world| {
        apply_two(world, steps);
    }));
    world.reopen();
    let recovered = world.recover();
    assert!(recovered.finished > 0);
    assert_eq!(recovered.forgotten, 0);
    assert_sound(&world, "finish-synced");
    assert_eq!(world.read("replaced"), "replacement");
}
