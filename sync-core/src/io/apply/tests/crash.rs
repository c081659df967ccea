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
            assert_eq!((recovered.unexplained, &recovered.brought_back[..]), (0, &[][..]), "{place} {nth}");
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
    let steps = replace_and_create(&world);
    assert!(world.crash_at("batch-swapped", 1, |world| {
        world.apply(steps);
    }));
    world.reopen();
    // One is written in place, the other replaced by an editor.
    write_file(&world.at("f"), "edited");
    save(&world.at(""), "g", "saved");
    world.recover();
    assert_eq!((world.read("f"), world.read("g")), ("edited".into(), "saved".into()));
    let now = world.root.dir(&rel("")).unwrap().stat(b"f").unwrap().unwrap();
    let entry = world.entry("f").unwrap();
    assert!(!unchanged(&now, &entry.signature), "the scan must see the edit");
    assert!(entry.row.m.get(THERE) > 0, "the edit comes after theirs");
    assert!(world.entry("g").is_none(), "whose file it is, the scan must ask");
    assert_eq!(world.kept(), ["old"]);
}

/// Two steps that a crash interrupts: `f` is replaced, `g` is created.
fn replace_and_create(world: &World) -> Vec<Step> {
    let old = world.have("f", Some("old"));
    let row = world.theirs("f", Some("theirs"));
    vec![world.write("f", &row, Some(&old)), world.create("g", "theirs")]
}

/// As an editor saves: the new file is renamed over the old one.
fn save(root: &Path, path: &str, bytes: &str) {
    write_file(&root.join("tmp"), bytes);
    fs::rename(root.join("tmp"), root.join(path)).unwrap();
}

#[test]
fn what_is_neither_staged_nor_in_place_is_not_recorded_as_arrived() {
    let mut world = World::new();
    let steps = replace_and_create(&world);
    let old = world.entry("f").unwrap().row;
    assert!(world.crash_at("batch-swapped", 1, |world| {
        world.apply(steps);
    }));
    world.reopen();
    // The power went before the new files reached the disk.
    fs::remove_file(world.at("f")).unwrap();
    fs::remove_file(world.at("g")).unwrap();
    let recovered = world.recover();
    assert_eq!((recovered.finished, recovered.forgotten), (0, 2));
    assert!(world.entry("g").is_none(), "a row without its file looks like a deletion");
    assert_eq!(world.entry("f").unwrap().row.m, old.m);
    let versions = list(&world.root, world.state(), &rel("f")).unwrap();
    assert_eq!(versions.len(), 1, "what was displaced can still be restored");
}

#[test]
fn what_was_displaced_returns_if_what_displaced_it_is_gone() {
    for again in ["", "recover-return", "recover-synced"] {
        let mut world = World::new();
        let steps = replace_and_create(&world);
        let old = world.entry("f").unwrap().row;
        assert!(world.crash_at("exchange-after", 1, |world| {
            world.apply(steps);
        }));
        fs::remove_file(world.at("f")).unwrap();
        world.reopen();
        world.crash_at(again_or_none(again), 1, |world| drop(world.recover()));
        world.reopen();
        world.recover();
        assert_eq!(world.read("f"), "old", "{again}");
        assert_eq!(world.entry("f").unwrap().row.m, old.m);
        world.assert_no_local_edit(true);
        world.assert_stage_is_empty();
    }
}

fn again_or_none(place: &'static str) -> &'static str {
    if place.is_empty() { "nowhere" } else { place }
}

#[test]
fn a_saved_file_that_came_out_of_an_exchange_comes_back_beside_its_path() {
    // Renamed over, and written in place.
    let acts: [fn(&Path); 2] = [|root| save(root, "f", "mine"), |root| write_file(&root.join("f"), "mine")];
    for act in acts {
        for again in ["nowhere", "recover-bring-back", "recover-synced", "recover-committed"] {
            let mut world = World::new();
            world.keep = None;
            let steps = replace_and_create(&world);
            assert!(crash_after(&world, ["exchange-before", "exchange-after"], act, steps));
            world.reopen();
            world.crash_at(again, 1, |world| drop(world.recover()));
            world.reopen();
            let recovered = world.recover();
            prune(&world.root, world.state(), i64::MAX, Duration::ZERO, 100).unwrap();
            let beside: Vec<_> = world.disk().into_iter().filter(|(name, _)| name.starts_with("f.conflict-late-")).collect();
            assert_eq!(beside.len(), 1, "{again}: {:?}", world.disk());
            assert_eq!((world.read("f"), &beside[0].1[..]), ("theirs".into(), "mine"), "{again}");
            assert!(world.kept().is_empty());
            world.assert_stage_is_empty();
            if again == "recover-bring-back" {
                assert_eq!(recovered.brought_back, [rel(&beside[0].0)]);
                assert!(recovered.notices().iter().any(|line| line.contains(&beside[0].0)));
            }
        }
    }
}

#[test]
fn a_saved_file_that_went_instead_of_the_removed_one_returns() {
    let acts: [fn(&Path); 2] = [|root| save(root, "f", "mine"), |root| write_file(&root.join("f"), "mine")];
    for act in acts {
        let mut world = World::new();
        world.keep = None;
        let old = world.have("f", Some("old"));
        let steps = vec![world.remove("f", &old)];
        assert!(crash_after(&world, ["remove-before", "remove-after"], act, steps));
        world.reopen();
        assert_eq!(world.recover().forgotten, 1);
        assert_eq!(world.disk(), BTreeMap::from([("f".into(), "mine".into())]));
        assert_eq!(world.entry("f").unwrap().row.m, old.m);
        assert!(world.kept().is_empty());
    }
}

#[test]
fn a_write_into_a_removed_tree_before_the_crash_comes_back() {
    let mut world = World::new();
    let dir = world.have("d", None);
    world.have("d/x.txt", Some("old"));
    super::versions::the_clock_goes_on();
    let steps = vec![world.remove_tree("d", &dir)];
    assert!(crash_after(
        &world,
        ["remove-tree-before", "remove-tree-after"],
        |root| write_file(&root.join("d/x.txt"), "mine"),
        steps
    ));
    world.reopen();
    let recovered = world.recover();
    assert_eq!((recovered.finished, recovered.brought_back.len()), (1, 1));
    assert_eq!(world.disk().into_values().collect::<Vec<_>>(), ["mine"]);
}

/// Applies; `act` is done at the first place, and the process ends at the second.
fn crash_after(world: &World, [first, second]: [&'static str; 2], act: fn(&Path), steps: Vec<Step>) -> bool {
    let folder = world.folder.path().to_owned();
    hook::set(move |name| {
        if name == first {
            act(&folder);
        } else if name == second {
            hook::clear();
            std::panic::panic_any("crash");
        }
    });
    let crashed = catch_unwind(AssertUnwindSafe(|| drop(world.apply(steps)))).is_err();
    hook::clear();
    crashed
}

#[test]
fn an_unknown_object_in_the_staging_folder_comes_back_and_is_not_deleted() {
    let mut world = World::new();
    world.keep = None;
    world.root.private(&["stage"]).unwrap();
    let stage = world.at(".driftless/stage");
    write_file(&stage.join("whatever.txt"), "somebody's");
    // A name of ours that holds another object than was staged under it: displaced by an exchange.
    write_file(&stage.join("swap-1-2-3"), "displaced");
    write_file(&stage.join("new-1-2"), "garbage");
    write_file(&stage.join("part-1-2"), "garbage");
    let recovered = world.recover();
    assert_eq!(recovered.brought_back.len(), 2);
    let disk: Vec<_> = world.disk().into_iter().collect();
    assert!(disk[0].0.starts_with("recovered.conflict-late-"), "{disk:?}");
    assert!(disk[1].0.starts_with("whatever.conflict-late-") && disk[1].0.ends_with(".txt"), "{disk:?}");
    assert_eq!((&disk[0].1[..], &disk[1].1[..]), ("displaced", "somebody's"));
    world.assert_stage_is_empty();
}

#[test]
fn nothing_is_swept_before_it_is_durable_that_no_intent_speaks_of_it() {
    let world = World::new();
    world.root.private(&["stage"]).unwrap();
    write_file(&world.at(".driftless/stage/new-1-2"), "garbage");
    world.have("f", Some("recorded without waiting for the disk"));
    assert!(!world.state().is_settled());
    world.recover();
    world.assert_stage_is_empty();
    assert!(world.state().is_settled());
}

#[test]
fn what_was_staged_in_vain_stays_until_its_settled_intent_is_durable() {
    let world = World::new();
    let old = world.have("f", Some("old"));
    let row = world.theirs("f", Some("theirs"));
    let batches = vec![vec![world.write("f", &row, Some(&old))], vec![world.create("g", "theirs")]];
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (folder, told) = (world.folder.path().to_owned(), seen.clone());
    hook::set(move |name| match name {
        "batch-prepared" => write_file(&folder.join("f"), "mine"),
        "batch-previous-committed" => {
            let staged = fs::read_dir(folder.join(".driftless/stage")).unwrap().map(|entry| entry.unwrap().file_name());
            told.lock().unwrap().push(staged.filter(|name| name.to_string_lossy().starts_with("swap-")).count());
        }
        "batch-swapped" => {
            let staged = fs::read_dir(folder.join(".driftless/stage")).unwrap().map(|entry| entry.unwrap().file_name());
            told.lock().unwrap().push(staged.filter(|name| name.to_string_lossy().starts_with("swap-")).count());
        }
        _ => {}
    });
    let applied = world.apply_batches(batches);
    hook::clear();
    assert_eq!(applied.totals.failed, 1);
    assert_eq!(*seen.lock().unwrap(), [1, 1, 1, 1]);
    world.assert_stage_is_empty();
}

#[test]
fn the_end_of_a_run_is_durable_also_without_anything_to_raise() {
    let world = World::new();
    assert!(world.apply(vec![world.create("f", "theirs")]).complete);
    assert!(world.state().is_settled());
    assert!(world.state().intents().unwrap().is_empty());
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

/// Does something in a thread that permissions bind, as they bind any user.
fn as_a_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
            set_capabilities(None, sets).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_path_that_became_unreadable_waits_and_closes_no_root() {
    for place in ["exchange-before", "exchange-after", "displace-version-after"] {
        let mut world = World::new();
        world.have("d", None);
        let old = world.have("d/f", Some("old"));
        let row = world.theirs("d/f", Some("new"));
        assert!(world.crash_at(place, 1, |world| {
            world.apply(vec![world.write("d/f", &row, Some(&old))]);
        }));
        world.reopen();
        fs::set_permissions(world.at("d"), fs::Permissions::from_mode(0o000)).unwrap();
        let (root, state) = (&world.root, world.state());
        let recovered = as_a_user(|| recover(root, state, MASK)).unwrap();
        assert_eq!((recovered.denied.len(), state.intents().unwrap().len()), (1, 1), "{place}");
        let notices = recovered.notices();
        assert!(notices.iter().any(|line| line.contains("d/f") && line.contains("wait")), "{place}: {notices:?}");
        assert_eq!(recovered.brought_back, []);
        fs::set_permissions(world.at("d"), fs::Permissions::from_mode(0o755)).unwrap();
        world.recover();
        assert_eq!(world.state().intents().unwrap().len(), 0);
        let there = world.read("d/f");
        let kept = world.kept();
        assert!((there == "old" && kept.is_empty()) || (there == "new" && kept == ["old"]), "{place}: {there} {kept:?}");
    }
}
