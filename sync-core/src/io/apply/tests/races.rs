//! A user changes things between the scan and the step, and in the midst of the step: every byte survives, in place
//! or beside.

use super::*;

/// One step at a path, a user's act before it; the user's version stays and the step fails.
fn refused(applied: &Applied, reason: &str) {
    assert_eq!((applied.totals.failed, applied.complete), (1, false), "{:?}", applied.problems);
    let told = &applied.problems[0].error;
    assert!(told.contains(reason), "{told}");
    assert_eq!(applied.incomplete.len(), 1);
}

fn assert_kept_apart(world: &World, bytes: &[&str]) {
    let all = world.all_bytes();
    for wanted in bytes {
        assert!(all.iter().any(|found| found == wanted), "{wanted:?} is lost; there is {all:?}");
    }
}

const CHANGED: &str = "changed here since it was scanned";

#[test]
fn a_file_created_meanwhile_stays() {
    let world = World::new();
    let step = world.create("f", "theirs");
    write_file(&world.at("f"), "mine");
    refused(&world.apply(vec![step]), "something stands there");
    assert_eq!(world.read("f"), "mine");
    assert!(world.entry("f").is_none());
    world.assert_stage_is_empty();
}

#[test]
fn a_directory_created_meanwhile_stays_and_what_should_go_into_the_new_one_is_incomplete() {
    let world = World::new();
    let steps = vec![world.make("d"), world.create("d/f", "theirs"), world.finish_dir("d")];
    fs::create_dir(world.at("d")).unwrap();
    write_file(&world.at("d/mine"), "mine");
    let applied = world.apply(steps);
    assert_eq!(applied.totals.failed, 2);
    assert_eq!(world.disk().keys().collect::<Vec<_>>(), ["d", "d/mine"]);
    assert_eq!(world.state().live().unwrap(), 0);
    world.assert_stage_is_empty();
}

#[test]
fn an_edited_file_is_not_replaced_nor_removed_nor_restamped() {
    let world = World::new();
    let old = world.have("f", Some("old"));
    let same = world.have("g", Some("same"));
    let row = world.theirs("f", Some("theirs"));
    let same_row = world.theirs("g", Some("same"));
    write_file(&world.at("f"), "my edit");
    write_file(&world.at("g"), "EMAS");
    refused(&world.apply(vec![world.write("f", &row, Some(&old))]), CHANGED);
    refused(&world.apply(vec![world.remove("f", &old)]), CHANGED);
    refused(&world.apply(vec![world.write("g", &same_row, Some(&same))]), CHANGED);
    assert_eq!((world.read("f"), world.read("g")), ("my edit".into(), "EMAS".into()));
    assert_eq!(world.entry("f").unwrap().row.m, old.m);
    world.assert_stage_is_empty();
}

#[test]
fn a_rewrite_of_equal_size_with_its_time_restored_is_seen() {
    let world = World::new();
    let old = world.have("f", Some("old"));
    let row = world.theirs("f", Some("new"));
    write_file(&world.at("f"), "own");
    let file = fs::File::options().write(true).open(world.at("f")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_nanos(OLD_NS as u64)).unwrap();
    refused(&world.apply(vec![world.write("f", &row, Some(&old))]), CHANGED);
    assert_eq!(world.read("f"), "own");
}

#[test]
fn a_racy_row_is_read_again_before_it_is_replaced() {
    let world = World::new();
    let old = world.have("f", Some("old"));
    write_file(&world.at("f"), "own");
    // What a scan records that read the file in the tick of its change.
    let mut signature = world.root.dir(&rel("")).unwrap().stat(b"f").unwrap().unwrap();
    signature.racy = true;
    let path = rel("f");
    world.commit(vec![Change::Put { path, row: old.clone(), signature, learn: None }]);
    let row = world.theirs("f", Some("new"));
    refused(&world.apply(vec![world.write("f", &row, Some(&old))]), CHANGED);
    assert_eq!(world.read("f"), "own");
}

#[test]
fn a_version_recorded_meanwhile_is_not_overwritten() {
    let world = World::new();
    let old = world.have("f", Some("old"));
    write_file(&world.at("f"), "edited and scanned");
    world.record("f", Some(hash_of(b"edited and scanned")));
    let row = world.theirs("f", Some("theirs"));
    refused(&world.apply(vec![world.write("f", &row, Some(&old))]), CHANGED);
    assert_eq!(world.read("f"), "edited and scanned");
    world.assert_no_local_edit(false);
}

#[test]
fn an_edit_right_before_the_exchange_is_given_back() {
    let world = World::new();
    let old = world.have("f", Some("old"));
    let row = world.theirs("f", Some("theirs"));
    world.at_place("exchange-before", |root| write_file(&root.join("f"), "last moment"));
    refused(&world.apply(vec![world.write("f", &row, Some(&old))]), CHANGED);
    assert_eq!(world.read("f"), "last moment");
    world.assert_stage_is_empty();
    assert_eq!(world.kept(), ["theirs"], "it was seen for a moment");
}

#[test]
fn a_file_renamed_over_right_before_the_exchange_is_given_back() {
    let world = World::new();
    let old = world.have("f", Some("old"));
    let row = world.theirs("f", Some("theirs"));
    world.at_place("exchange-before", |root| {
        write_file(&root.join("tmp"), "editor's save");
        fs::rename(root.join("tmp"), root.join("f")).unwrap();
    });
    refused(&world.apply(vec![world.write("f", &row, Some(&old))]), CHANGED);
    assert_eq!(world.disk(), BTreeMap::from([("f".into(), "editor's save".into())]));
    world.assert_stage_is_empty();
}

#[test]
fn two_edits_around_the_exchange_both_survive() {
    let world = World::new();
    let old = world.have("f", Some("old"));
    let row = world.theirs("f", Some("theirs"));
    let folder = world.folder.path().to_owned();
    hook::set(move |name| {
        let save = |bytes: &str| {
            write_file(&folder.join("tmp"), bytes);
            fs::rename(folder.join("tmp"), folder.join("f")).unwrap();
        };
        match name {
            "exchange-before" => save("first save"),
            "exchange-back" => save("second save"),
            _ => {}
        }
    });
    let applied = world.apply(vec![world.write("f", &row, Some(&old))]);
    hook::clear();
    assert_eq!(applied.totals.failed, 1);
    assert_kept_apart(&world, &["first save", "second save"]);
    assert_eq!(world.read("f"), "first save");
    assert!(world.disk().keys().any(|name| name.starts_with("f.conflict-late-")), "{:?}", world.disk());
    world.assert_stage_is_empty();
}

#[test]
fn what_is_deleted_right_before_the_exchange_stays_deleted() {
    let world = World::new();
    let old = world.have("f", Some("old"));
    let row = world.theirs("f", Some("theirs"));
    world.at_place("exchange-before", |root| fs::remove_file(root.join("f")).unwrap());
    refused(&world.apply(vec![world.write("f", &row, Some(&old))]), CHANGED);
    assert!(world.disk().is_empty());
    world.assert_stage_is_empty();
}

#[test]
fn an_edit_right_after_the_swap_is_found_by_the_next_scan() {
    let world = World::new();
    let old = world.have("f", Some("old"));
    let row = world.theirs("f", Some("theirs"));
    world.at_place("exchange-checked", |root| write_file(&root.join("f"), "edited"));
    assert!(world.apply(vec![world.write("f", &row, Some(&old))]).complete);
    let now = world.root.dir(&rel("")).unwrap().stat(b"f").unwrap().unwrap();
    assert!(!unchanged(&now, &world.entry("f").unwrap().signature));
    assert_eq!(world.entry("f").unwrap().row.m, row.m, "the edit comes after theirs");
}

#[test]
fn an_edit_right_before_a_removal_is_put_back() {
    let world = World::new();
    let old = world.have("f", Some("old"));
    world.at_place("remove-before", |root| write_file(&root.join("f"), "last moment"));
    refused(&world.apply(vec![world.remove("f", &old)]), CHANGED);
    assert_eq!(world.read("f"), "last moment");
    assert!(world.kept().is_empty());
    assert!(world.entry("f").is_some());
}

#[test]
fn what_comes_back_to_a_path_that_is_taken_again_stands_beside() {
    let world = World::new();
    let old = world.have("f", Some("old"));
    let folder = world.folder.path().to_owned();
    hook::set(move |name| match name {
        "remove-before" => write_file(&folder.join("f"), "first"),
        "remove-put-back" => write_file(&folder.join("f"), "second"),
        _ => {}
    });
    let applied = world.apply(vec![world.remove("f", &old)]);
    hook::clear();
    assert_eq!(applied.totals.failed, 1);
    assert_eq!(world.read("f"), "second");
    assert_kept_apart(&world, &["first", "second"]);
}

#[test]
fn an_unknown_entry_keeps_a_directory_and_is_told() {
    let world = World::new();
    let dir = world.have("d", None);
    let child = world.have("d/x", Some("x"));
    write_file(&world.at("d/ignored"), "ignored");
    let applied = world.apply(vec![world.remove("d/x", &child), world.remove("d", &dir)]);
    assert_eq!((applied.totals.deleted, applied.totals.skipped, applied.totals.failed), (1, 1, 0));
    assert!(applied.problems[0].error.contains("not empty"));
    assert_eq!(world.disk().keys().collect::<Vec<_>>(), ["d", "d/ignored"]);
}

#[test]
fn a_tree_with_anything_unexpected_in_it_is_not_removed_whole() {
    type Act = fn(&Path);
    let acts: [(Act, &str); 4] = [
        (|d| write_file(&d.join("new"), "n"), "is not recorded"),
        (|d| write_file(&d.join("x"), "edited"), "was changed"),
        (|d| fs::remove_file(d.join("x")).unwrap(), "vanished"),
        (|d| fs::set_permissions(d.join("e"), fs::Permissions::from_mode(0o700)).unwrap(), "was changed"),
    ];
    for (act, reason) in acts {
        let world = World::new();
        let dir = world.have("d", None);
        world.have("d/e", None);
        world.have("d/x", Some("x"));
        act(&world.at("d"));
        let before = world.disk();
        refused(&world.apply(vec![world.remove_tree("d", &dir)]), reason);
        assert_eq!(world.disk(), before);
        assert_eq!(world.state().live().unwrap(), 3);
    }
}

#[test]
fn a_directory_that_a_file_shall_replace_stays_with_what_a_user_put_into_it() {
    let world = World::new();
    let dir = world.have("d", None);
    let row = world.theirs("d", Some("file"));
    world.at_place("exchange-before", |root| write_file(&root.join("d/late"), "late"));
    refused(&world.apply(vec![world.write("d", &row, Some(&dir))]), "is not recorded");
    assert_eq!(world.read("d/late"), "late");
    world.assert_stage_is_empty();
}

#[test]
fn a_child_whose_removal_failed_keeps_its_directory() {
    let world = World::new();
    let dir = world.have("d", None);
    let child = world.have("d/x", Some("x"));
    fs::remove_file(world.at("d/x")).unwrap();
    let applied = world.apply(vec![world.remove("d/x", &child), world.remove("d", &dir)]);
    assert_eq!(applied.totals.failed, 2, "{:?}", applied.problems);
    assert!(world.at("d").exists());
}

#[test]
fn a_child_whose_removal_failed_keeps_its_directory_from_a_file_that_would_take_its_place() {
    let world = World::new();
    let dir = world.have("d", None);
    world.have("d/x", Some("x"));
    // What was decided on is another version than the recorded one, which stands on the disk unchanged.
    let other = world.theirs("d/x", Some("y"));
    let row = world.theirs("d", Some("theirs"));
    let applied = world.apply(vec![world.remove("d/x", &other), world.write("d", &row, Some(&dir))]);
    assert_eq!(applied.totals.failed, 2, "{:?}", applied.problems);
    assert_eq!(world.read("d/x"), "x");
}

#[test]
fn a_link_put_in_the_place_of_a_directory_is_not_followed() {
    let world = World::new();
    let outside = tempfile::tempdir().unwrap();
    world.have("d", None);
    let old = world.have("d/f", Some("old"));
    fs::rename(world.at("d"), world.at("away")).unwrap();
    write_file(&outside.path().join("f"), "canary");
    std::os::unix::fs::symlink(outside.path(), world.at("d")).unwrap();
    let row = world.theirs("d/f", Some("theirs"));
    let steps = vec![
        world.write("d/f", &row, Some(&old)),
        world.create("d/new", "theirs"),
        world.remove("d/f", &old),
        world.finish_dir("d"),
    ];
    let applied = world.apply(steps);
    assert_eq!(applied.totals.failed, 4, "{:?}", applied.problems);
    assert_eq!(fs::read_to_string(outside.path().join("f")).unwrap(), "canary");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_write_through_an_open_handle_after_the_exchange_is_brought_back() {
    use std::io::Write;
    let world = World::new();
    let old = world.have("f.txt", Some("old"));
    let row = world.theirs("f.txt", Some("theirs"));
    let mut open = fs::File::options().append(true).open(world.at("f.txt")).unwrap();
    world.at_place("exchange-checked", move |_| open.write_all(b", and more").unwrap());
    assert!(world.apply(vec![world.write("f.txt", &row, Some(&old))]).complete);
    assert_eq!(world.read("f.txt"), "theirs");
    let late = world.disk().into_iter().find(|(name, _)| name.starts_with("f.conflict-late-"));
    assert_eq!(late.unwrap().1, "old, and more");
    assert!(world.state().versions(&rel("f.txt")).unwrap().is_empty());
    assert_eq!(world.watcher.notices.lock().unwrap().len(), 1);
}

#[test]
fn a_moved_file_edited_at_the_last_moment_is_given_back() {
    let world = World::new();
    let old = world.have("old", Some("content"));
    let remove = world.remove("old", &old);
    let mut moves = Moves::new();
    moves.offer_file(&remove);
    let create = world.create("new", "content");
    world.at_place("move-before", |root| write_file(&root.join("old"), "edited!"));
    let applied = world.apply_moving(vec![create, remove], moves);
    assert_eq!(applied.totals.failed, 2, "{:?}", applied.problems);
    assert_eq!(world.disk(), BTreeMap::from([("old".into(), "edited!".into())]));
}

#[test]
fn a_write_into_a_tree_right_before_it_goes_brings_it_back() {
    for (written, reason) in [("d/e/x", "was changed"), ("d/e/mine", "is not recorded")] {
        let world = World::new();
        let dir = world.have("d", None);
        world.have("d/e", None);
        world.have("d/e/x", Some("old"));
        world.at_place("remove-tree-before", move |root| write_file(&root.join(written), "mine"));
        refused(&world.apply(vec![world.remove_tree("d", &dir)]), reason);
        assert!(world.disk().values().any(|bytes| bytes == "mine"), "{:?}", world.disk());
        assert!(world.at("d/e/x").exists() && world.kept().is_empty());
        assert_eq!(world.state().live().unwrap(), 3);
    }
}

#[test]
fn a_tree_that_comes_back_to_a_path_that_is_taken_again_stands_beside() {
    let world = World::new();
    let dir = world.have("d", None);
    world.have("d/x", Some("old"));
    let folder = world.folder.path().to_owned();
    hook::set(move |name| match name {
        "remove-tree-before" => write_file(&folder.join("d/x"), "mine"),
        "remove-put-back" => write_file(&folder.join("d"), "another"),
        _ => {}
    });
    let applied = world.apply(vec![world.remove_tree("d", &dir)]);
    hook::clear();
    assert_eq!(applied.totals.failed, 1);
    assert_eq!(world.read("d"), "another");
    assert_kept_apart(&world, &["mine", "another"]);
    assert!(world.disk().keys().any(|name| name.starts_with("d.conflict-late-") && name.ends_with("/x")), "{:?}", world.disk());
}

#[test]
fn a_racy_row_in_a_tree_is_read_again_before_the_tree_goes() {
    for hash in [Some(hash_of(b"old")), None] {
        let world = World::new();
        let dir = world.have("d", None);
        let old = world.have("d/f", Some("old"));
        write_file(&world.at("d/f"), "own");
        let mut signature = world.root.dir(&rel("d")).unwrap().stat(b"f").unwrap().unwrap();
        signature.racy = true;
        let object = Object { content: Content::File { size: 3, hash }, ..old.object.clone() };
        let row = Row { object, ..old };
        world.commit(vec![Change::Put { path: rel("d/f"), row, signature, learn: None }]);
        refused(&world.apply(vec![world.remove_tree("d", &dir)]), "was changed");
        assert_eq!(world.read("d/f"), "own");
    }
}

#[test]
fn a_tree_is_checked_whole_however_little_of_it_is_remembered() {
    let world = World::new();
    world.have("d", None);
    for name in ["d/a", "d/b", "d/c"] {
        world.have(name, Some("x"));
    }
    let rows = rows::Rows::new(world.state());
    let below = world.root.dir(&rel("d")).unwrap();
    let remembered = |limit| check::tree(&rows, &below, &rel("d"), ("look at", limit)).unwrap().map(|contents| contents.len());
    assert_eq!((remembered(3), remembered(2), remembered(0)), (Some(3), None, None));
    write_file(&world.at("d/c"), "y");
    assert!(check::tree(&rows, &below, &rel("d"), ("look at", 0)).is_err());
}

#[test]
fn a_write_of_equal_size_while_attributes_are_set_is_read_again() {
    for written in [false, true] {
        let world = World::new();
        let old = world.have("f", Some("old"));
        let row = world.theirs("f", Some("old"));
        if written {
            world.at_place("attributes-before", |root| write_file(&root.join("f"), "own"));
        }
        assert!(world.apply(vec![world.write("f", &row, Some(&old))]).complete);
        let entry = world.entry("f").unwrap();
        assert_eq!(entry.row.object.attrs.mode, 0o640);
        assert_eq!(entry.signature.racy, written);
    }
}

#[test]
fn a_directory_that_may_not_be_written_is_told_with_what_to_do() {
    let world = World::new();
    world.have("d", None);
    let dir = world.root.dir(&rel("d")).unwrap();
    let denied = || FsError { action: "rename", path: "d/f".into(), source: ErrorKind::PermissionDenied.into() };
    assert!(!check::refused(denied(), &dir).reason().contains("chmod"));
    fs::set_permissions(world.at("d"), fs::Permissions::from_mode(0o555)).unwrap();
    let told = check::refused(denied(), &dir).reason();
    assert!(told.contains("(mode 555): chmod u+w it"), "{told}");
}

/// Writers append, and save by renaming over, while the same files are replaced and removed again and again.
#[test]
fn what_busy_writers_write_is_never_lost() {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};
    const FILES: usize = 6;
    /// On a busy machine most replacements are refused, on a quiet one it takes a while until writers get in between.
    const ENOUGH: Duration = Duration::from_secs(60);
    let world = World::new();
    let name = |file: usize| format!("f{file}");
    (0..FILES).for_each(|file| drop(world.have(&name(file), Some("start;"))));
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (stop, world) = (&stop, &world.folder);
                scope.spawn(move || {
                    let mut tokens = Vec::new();
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) && tokens.len() < 10_000 {
                        number += 1;
                        let path = world.path().join(name((writer + number) % FILES));
                        let token = format!("<{writer}:{number}>");
                        let Ok(mut file) = fs::File::options().append(true).open(&path) else { continue };
                        file.write_all(token.as_bytes()).unwrap();
                        tokens.push(token);
                        std::thread::yield_now();
                    }
                    tokens
                })
            })
            .collect();
        let (mut replaced, begun) = (0, Instant::now());
        for round in 0.. {
            if round >= 200 && (replaced > 0 || begun.elapsed() > ENOUGH) {
                break;
            }
            let path = name(round % FILES);
            if !world.at(&path).exists() {
                // It comes whole: a writer may open it at once.
                write_file(&world.at("new"), "again;");
                fs::rename(world.at("new"), world.at(&path)).unwrap();
            }
            let seen = world.record(&path, None);
            let step = if round % 7 == 0 {
                world.remove(&path, &seen)
            } else {
                let row = world.theirs(&path, Some(&format!("theirs {round};")));
                world.write(&path, &row, Some(&seen))
            };
            replaced += u64::from(world.apply(vec![step]).complete);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(replaced > 0);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    let all = world.all_bytes().concat();
    let found: std::collections::HashSet<&str> =
        all.split_inclusive('>').filter_map(|part| part.rfind('<').map(|at| &part[at..])).collect();
    let lost: Vec<_> = written.iter().filter(|token| !found.contains(token.as_str())).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), written.len());
}
