//! Edits, creations, deletions and renames of two roots that know each other. Numbers in comments are those of the
//! list of peers' cases that was collected for this engine.

use crate::lab::Lab;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// Files that are never touched, so that no deletion looks like an emptied disk.
const REST: [&str; 8] = ["r/1", "r/2", "r/3", "r/4", "r/5", "r/6", "r/7", "r/8"];

fn synced(files: &[&str]) -> Lab {
    let all: Vec<&str> = files.iter().copied().chain(REST).collect();
    Lab::synced(&all)
}

#[test]
fn one_run_carries_edits_creations_and_deletions_of_both_sides() {
    let lab = synced(&["edit a", "edit b", "gone a", "gone b", "d/gone a", "d/e/gone b"]);
    for (root, other) in [("a", "b"), ("b", "a")] {
        lab.write(root, format!("edit {root}"), format!("new on {root}"));
        lab.write(root, format!("made/on/{root}"), root);
        lab.write(root, format!("made on {root}"), root);
        lab.remove(root, &format!("gone {root}"));
        lab.remove(root, if root == "a" { "d/gone a" } else { "d/e/gone b" });
        assert!(lab.read(other, format!("made on {root}")).is_none());
    }
    let ran = lab.sync(&[]);
    ran.code(0).without_conflicts();
    assert_eq!((ran.count("updated"), ran.count("deleted")), (2, 4), "{}", ran.stdout());
    lab.assert_settled();
    assert_eq!(lab.read("b", "edit a").unwrap(), "new on a");
    assert_eq!(lab.read("a", "edit b").unwrap(), "new on b");
    assert_eq!(lab.read("b", "made/on/a").unwrap(), "a");
    assert!(lab.read("a", "gone b").is_none() && lab.read("b", "d/gone a").is_none());
}

#[test]
fn equal_changes_on_both_sides_are_silent() {
    // 24, 25
    let lab = synced(&["edited", "deleted", "d/all/gone"]);
    for root in ["a", "b"] {
        lab.write_at(root, "edited", "the same", 7);
        lab.write_at(root, "created/x", "the same", 7);
        lab.link(root, "link", "created/x");
        lab.remove(root, "deleted");
        lab.remove(root, "d");
    }
    let ran = lab.sync(&[]);
    ran.code(0).without_conflicts();
    assert_eq!((ran.count("created"), ran.count("deleted")), (0, 0), "{}", ran.stdout());
    lab.assert_settled();
}

#[test]
fn equal_bytes_with_other_times_are_no_conflict() {
    // 22
    let lab = synced(&["x"]);
    lab.write_at("a", "x", "the same", 7);
    lab.write_at("b", "x", "the same", 99);
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    lab.touch("b", "x", 500);
    let ran = lab.sync(&[]);
    ran.code(0).without_conflicts();
    assert_eq!(ran.lines().iter().filter(|line| line["event"] == "item").filter(|line| line["action"] == "update").count(), 0);
    lab.assert_settled();
    assert_eq!(fs::metadata(lab.at("a", "x")).unwrap().mtime(), 1_577_836_800 + 500);
}

#[test]
fn an_edit_beats_a_deletion_on_either_side() {
    // 34, 35
    for (editor, deleter) in [("a", "b"), ("b", "a")] {
        let lab = synced(&["x", "d/y"]);
        lab.write(editor, "x", "edited");
        lab.write(editor, "d/y", "edited too");
        lab.remove(deleter, "x");
        lab.remove(deleter, "d");
        lab.sync(&[]).code(0);
        lab.assert_settled();
        assert_eq!(lab.read(deleter, "x").unwrap(), "edited");
        assert_eq!(lab.read(deleter, "d/y").unwrap(), "edited too");
    }
}

#[test]
fn a_new_file_keeps_the_folder_that_was_deleted_around_it() {
    for (deleter, maker) in [("a", "b"), ("b", "a")] {
        let lab = synced(&["d/x", "d/e/y", "d/e/f/z", "d/g/w"]);
        lab.remove(deleter, "d");
        lab.write(maker, "d/e/new", "new");
        lab.sync(&[]).code(0);
        lab.assert_settled();
        let left: Vec<String> = lab.names("a").into_iter().filter(|name| !name.starts_with('r')).collect();
        assert_eq!(left, ["d", "d/e", "d/e/new"]);
    }
}

#[test]
fn a_folder_deleted_here_and_emptied_there_goes() {
    // 36
    for (whole, only_file) in [("a", "b"), ("b", "a")] {
        let lab = synced(&["d/file"]);
        lab.remove(whole, "d");
        lab.remove(only_file, "d/file");
        lab.sync(&[]).code(0).without_conflicts();
        lab.assert_settled();
        assert!(!lab.at("a", "d").exists());
    }
}

#[test]
fn ignored_content_keeps_the_folder_that_was_deleted_around_it() {
    // 37
    let lab = synced(&["d/file"]);
    lab.write("b", "d/x.tmp", "ignored");
    lab.remove("a", "d");
    lab.remove("b", "d/file");
    lab.sync(&["--ignore", "*.tmp"]);
    assert_eq!(lab.read("b", "d/x.tmp").unwrap(), "ignored");
    assert!(lab.read("a", "d/x.tmp").is_none());
}

#[test]
fn a_creation_where_ignored_content_stands_leaves_it_alone() {
    // 38, 39
    let lab = synced(&["other"]);
    lab.write("b", "x.tmp/inside", "ignored");
    lab.write("a", "x.tmp", "from a");
    lab.sync(&["--ignore", "*.tmp"]).code(0);
    assert_eq!(lab.read("b", "x.tmp/inside").unwrap(), "ignored");
    assert_eq!(lab.read("a", "x.tmp").unwrap(), "from a");
}

#[test]
fn renamed_files_and_folders_move() {
    // 14
    for (from, to) in [("x", "y"), ("d", "e"), ("x", "d/x"), ("d", "r/d")] {
        let lab = synced(&["x", "d/a", "d/b/c"]);
        let inode = fs::metadata(lab.at("a", from)).unwrap().ino();
        lab.rename("b", from, to);
        let ran = lab.sync(&[]);
        ran.code(0).without_conflicts();
        assert_eq!((ran.count("moved"), ran.count("created"), ran.count("deleted")), (1, 0, 0), "{from}: {}", ran.stdout());
        lab.assert_settled();
        assert_eq!(fs::metadata(lab.at("a", to)).unwrap().ino(), inode, "{from} was copied");
    }
}

#[test]
fn several_renames_and_a_new_file_in_one_run() {
    // 15
    let lab = synced(&["x", "y", "z", "c/b", "d/a"]);
    lab.rename("a", "x", "c/x");
    lab.rename("a", "z", "o");
    lab.write("a", "c/z", "bar");
    lab.rename("a", "d", "e");
    let ran = lab.sync(&[]);
    ran.code(0).without_conflicts();
    assert_eq!((ran.count("moved"), ran.count("created"), ran.count("deleted")), (3, 1, 0), "{}", ran.stdout());
    lab.assert_settled();
}

#[test]
fn a_deletion_and_a_creation_of_other_content_are_no_move() {
    // 16
    let lab = synced(&["y"]);
    lab.remove("a", "y");
    lab.write("a", "x", "bah");
    let ran = lab.sync(&[]);
    ran.code(0);
    assert_eq!((ran.count("moved"), ran.count("created"), ran.count("deleted")), (0, 1, 1), "{}", ran.stdout());
    lab.assert_settled();
}

#[test]
fn a_mirror_takes_a_rename_back() {
    // 17
    let lab = synced(&["x", "d/a"]);
    lab.rename("b", "x", "y");
    lab.sync(&["--force", "a"]).code(0);
    lab.assert_settled();
    assert_eq!((lab.read("b", "x").as_deref(), lab.read("b", "y")), (Some("x"), None));
}

#[test]
fn a_rename_over_something_else_arrives() {
    // 18
    let lab = synced(&["x", "y", "c/b", "d/a"]);
    lab.remove("a", "c");
    lab.rename("a", "x", "c");
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    lab.remove("a", "y");
    lab.rename("a", "d", "y");
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    assert_eq!((lab.read("b", "c").unwrap(), lab.read("b", "y/a").unwrap()), ("x".into(), "d/a".into()));
}

#[test]
fn a_rename_here_and_an_edit_there_lose_nothing() {
    // 19
    let lab = synced(&["x"]);
    lab.rename("a", "x", "z");
    lab.write("b", "x", "edited on b");
    lab.sync(&[]).code(0);
    lab.assert_settled();
    assert_eq!((lab.read("a", "x").unwrap(), lab.read("b", "z").unwrap()), ("edited on b".into(), "x".into()));
    let lab = synced(&["x"]);
    lab.rename("a", "x", "z");
    lab.write("b", "x", "edited on b");
    lab.sync(&["--force", "a"]).code(0);
    lab.assert_settled();
    assert_eq!((lab.read("b", "x"), lab.read("b", "z").unwrap()), (None, "x".into()));
    assert!(lab.keeps("b", b"edited on b"));
}

#[test]
fn two_files_renamed_to_one_name_are_a_conflict_and_neither_is_lost() {
    // 20
    let lab = synced(&["x", "y"]);
    lab.rename("a", "x", "z");
    lab.rename("b", "y", "z");
    let ran = lab.sync(&[]);
    assert_eq!(ran.code(1).count("conflicts"), 1);
    assert_eq!((lab.read("a", "z").unwrap(), lab.read("b", "z").unwrap()), ("x".into(), "y".into()));
    lab.sync(&["--conflicts", "keep-both"]).code(0);
    lab.assert_settled();
    let mut contents: Vec<_> = lab.names("a").iter().filter(|n| n.starts_with('z')).map(|n| lab.read("b", n).unwrap()).collect();
    contents.sort();
    assert_eq!(contents, ["x", "y"]);
}

#[test]
fn both_sides_renaming_one_file_differently_keep_both_names() {
    let lab = synced(&["x"]);
    lab.rename("a", "x", "by a");
    lab.rename("b", "x", "by b");
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    assert_eq!(
        (lab.read("a", "by b").unwrap(), lab.read("b", "by a").unwrap(), lab.read("a", "x")),
        ("x".into(), "x".into(), None)
    );
}

#[test]
fn swapped_and_chained_names_arrive() {
    let lab = synced(&["x", "y", "p/1", "q/2", "c1", "c2", "c3"]);
    lab.rename("a", "x", "t");
    lab.rename("a", "y", "x");
    lab.rename("a", "t", "y");
    lab.rename("a", "p", "t");
    lab.rename("a", "q", "p");
    lab.rename("a", "t", "q");
    lab.rename("a", "c3", "c4");
    lab.rename("a", "c2", "c3");
    lab.rename("a", "c1", "c2");
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    assert_eq!((lab.read("b", "x").unwrap(), lab.read("b", "q/1").unwrap()), ("y".into(), "p/1".into()));
}

#[test]
fn a_rename_of_case_only_arrives() {
    let lab = synced(&["Readme", "Docs/Index"]);
    lab.rename("a", "Readme", "README");
    lab.rename("a", "Docs", "docs");
    lab.rename("a", "docs/Index", "docs/index");
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    assert!(lab.names("b").contains(&"README".into()) && lab.names("b").contains(&"docs/index".into()));
}

#[test]
fn a_folder_moved_into_a_new_folder_and_edited_arrives() {
    let lab = synced(&["d/x", "d/y", "d/e/z"]);
    lab.mkdir("a", "new/deep");
    lab.rename("a", "d", "new/deep/d");
    lab.write("a", "new/deep/d/y", "edited");
    lab.write("b", "d/added on b", "b");
    lab.sync(&[]).code(0);
    lab.assert_settled();
    assert_eq!(lab.read("b", "new/deep/d/y").unwrap(), "edited");
    assert_eq!(lab.read("a", "d/added on b").unwrap(), "b");
    assert!(!lab.at("b", "d/x").exists());
}

#[test]
fn unusual_names_are_edited_renamed_and_deleted_like_others() {
    let lab = synced(&[]);
    let long = vec![b'n'; 255];
    let names: [&[u8]; 8] = [b"new\nline", b" ", b"  lead and trail ", &long, b"\xff\xfe\x80", b"caf\xe9", b"-n", b"\\"];
    for name in names {
        lab.write("a", OsStr::from_bytes(name), "first");
    }
    lab.sync(&[]).code(0);
    lab.assert_settled();
    for name in names {
        lab.write("b", OsStr::from_bytes(name), "second");
    }
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    for name in names {
        assert_eq!(lab.read("a", OsStr::from_bytes(name)).unwrap(), "second");
    }
    for name in &names[..3] {
        fs::remove_file(lab.at("a", OsStr::from_bytes(name))).unwrap();
        assert!(lab.at("b", OsStr::from_bytes(name)).exists());
    }
    lab.sync(&[]).code(0);
    lab.assert_settled();
    for name in names {
        lab.write("a", OsStr::from_bytes(name), "on a");
        lab.write("b", OsStr::from_bytes(name), "on b!");
    }
    lab.sync(&["--conflicts", "keep-both"]).code(0);
    lab.assert_settled();
    assert_eq!(lab.names("a").len(), 9 + 16);
}

#[test]
fn the_executable_bit_alone_travels_both_ways() {
    // 43
    let lab = synced(&["x", "y"]);
    let mode = |root: &str, path: &str| fs::metadata(lab.at(root, path)).unwrap().permissions().mode() & 0o777;
    fs::set_permissions(lab.at("a", "x"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(lab.at("b", "y"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(lab.at("b", "r"), fs::Permissions::from_mode(0o700)).unwrap();
    lab.sync(&[]).code(0).without_conflicts();
    assert_eq!((mode("b", "x"), mode("a", "y"), mode("a", "r")), (0o755, 0o711, 0o700));
    lab.assert_settled();
}

#[test]
fn sockets_and_pipes_are_told_of_and_stop_nothing() {
    // 43
    let lab = synced(&["x"]);
    let _socket = std::os::unix::net::UnixListener::bind(lab.at("a", "socket")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(lab.at("a", "pipe")).status().unwrap().success());
    lab.write("a", "y", "new");
    let ran = lab.sync(&[]);
    assert!(matches!(ran.0.status.code(), Some(0..=2)), "{}{}", ran.stdout(), ran.stderr());
    assert_eq!(lab.read("b", "y").unwrap(), "new");
    assert!(!lab.at("b", "socket").exists() && !lab.at("b", "pipe").exists());
}

#[test]
fn many_runs_of_edits_on_alternate_sides_never_conflict() {
    let lab = synced(&["x"]);
    for round in 0..12 {
        let root = if round % 2 == 0 { "a" } else { "b" };
        lab.write(root, "x", format!("round {round}"));
        lab.write(root, format!("d{}/new", round % 3), format!("round {round}"));
        lab.sync(&[]).code(0).without_conflicts();
        lab.assert_equal();
    }
    lab.assert_settled();
}

#[test]
fn a_deleted_and_recreated_file_is_an_ordinary_edit() {
    // 6
    let lab = synced(&["x", "d/a"]);
    lab.remove("a", "x");
    lab.remove("a", "d");
    lab.sync(&[]).code(0);
    assert!(lab.keeps("b", b"x") && lab.keeps("b", b"d/a"));
    lab.write("a", "x", "FOO");
    lab.write("a", "d/a", "BARR");
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    lab.remove("a", "x");
    lab.remove("a", "d");
    lab.sync(&[]).code(0);
    lab.assert_settled();
    for content in ["x", "d/a", "FOO", "BARR"] {
        assert!(lab.keeps("b", content.as_bytes()), "{content}");
    }
}

#[test]
fn only_replaced_versions_are_kept_and_only_where_they_were_replaced() {
    // 4, 7, 8, 10
    let lab = synced(&[]);
    lab.write("a", "test.txt", "1");
    lab.sync(&[]).code(0);
    assert!(!lab.keeps("a", b"1") && !lab.keeps("b", b"1"));
    lab.write("a", "test.txt", "2");
    lab.sync(&[]).code(0);
    assert!(!lab.keeps("a", b"1") && lab.keeps("b", b"1"));
    lab.write("b", "test.txt", "3");
    lab.sync(&[]).code(0);
    assert!(lab.keeps("a", b"2") && lab.keeps("b", b"1"));
    lab.assert_settled();
}

#[test]
fn times_of_folders_follow_what_happened_in_them() {
    let lab = synced(&["d/e/x", "d/y"]);
    for folder in ["d/e", "d", "r"] {
        lab.touch("a", folder, 77);
    }
    lab.sync(&[]).code(0);
    lab.assert_settled();
    lab.write("a", "d/e/new on a", "1");
    lab.write("b", "d/new on b", "1");
    lab.touch("a", "d/e", 99);
    lab.sync(&[]).code(0);
    lab.assert_settled();
}

#[test]
fn a_hundred_small_runs_of_random_edits_agree_with_what_was_done() {
    let lab = Lab::new();
    let mut random = fixtures::bytes::Stream::new(11);
    let mut expected = std::collections::BTreeMap::new();
    for round in 0..60 {
        for root in ["a", "b"] {
            for _ in 0..6 {
                // Each side has files of its own in folders that both use.
                let path = format!("d{}/e{}/{root}{}", random.below(3), random.below(2), random.below(6));
                match random.below(3) {
                    0 if expected.contains_key(&path) => {
                        lab.remove(root, &path);
                        expected.remove(&path);
                    }
                    _ => {
                        let text = format!("{round} {}", random.below(1_000_000));
                        lab.write(root, &path, &text);
                        expected.insert(path, text);
                    }
                }
            }
        }
        lab.sync(&["--allow-delete"]).code(0).without_conflicts();
        lab.assert_equal();
        for (path, text) in &expected {
            assert_eq!(lab.read("a", path).as_ref(), Some(text), "round {round}: {path}");
        }
    }
    let files = lab.names("b").into_iter().filter(|name| lab.at("b", name).is_file()).count();
    assert_eq!(files, expected.len());
    lab.assert_settled();
}
