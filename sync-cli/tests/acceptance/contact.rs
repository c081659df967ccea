//! The first meeting of two roots.

use crate::lab::Lab;
use std::fs;

#[test]
fn two_populated_trees_unite() {
    // 1
    let lab = Lab::new();
    for (path, text) in [("a", "a"), ("b", "b"), ("d1/a", "a1"), ("d1/b", "b1"), ("both/a", "1")] {
        lab.write("a", path, text);
    }
    for (path, text) in [("x", "x"), ("y", "y"), ("d2/x", "x2"), ("d2/y", "y2"), ("both/b", "2")] {
        lab.write("b", path, text);
    }
    let ran = lab.sync(&[]);
    ran.code(0).without_conflicts();
    assert_eq!((ran.count("created"), ran.count("deleted")), (12, 0), "{}", ran.stdout());
    lab.assert_settled();
    assert_eq!(lab.names("a").len(), 13);
}

#[test]
fn equal_files_meet_without_a_conflict_whatever_their_times() {
    // 24
    let lab = Lab::new();
    for at in 0..50 {
        lab.write_at("a", &format!("d/{at}"), "equal", at);
        lab.write_at("b", &format!("d/{at}"), "equal", if at % 2 == 0 { at } else { 1000 - at });
    }
    let ran = lab.sync(&[]);
    ran.code(0).without_conflicts();
    assert_eq!((ran.count("created"), ran.count("deleted")), (0, 0));
    lab.assert_settled();
}

#[test]
fn different_files_of_one_name_are_a_conflict_and_the_rest_goes_on() {
    // 5, 31, 33
    let lab = Lab::new();
    lab.write("a", "d/x", "foo");
    lab.write("b", "d/x", "bar");
    lab.write("a", "d/a", "a");
    lab.write("b", "d/b", "b");
    assert_eq!(lab.sync(&[]).code(1).count("conflicts"), 1);
    assert_eq!((lab.read("a", "d/x").unwrap(), lab.read("b", "d/x").unwrap()), ("foo".into(), "bar".into()));
    assert_eq!((lab.read("a", "d/b").unwrap(), lab.read("b", "d/a").unwrap()), ("b".into(), "a".into()));
    lab.assert_quiet("a", "b", 1, &[]);
    lab.write("a", "d/x", "new contents");
    assert_eq!(lab.sync(&[]).code(1).count("conflicts"), 1);
    assert_eq!(lab.read("b", "d/x").unwrap(), "bar");
}

#[test]
fn an_empty_folder_is_filled() {
    // 32
    let lab = Lab::new();
    lab.write("a", "d/file", "1");
    lab.mkdir("b", "d");
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    assert_eq!(lab.read("b", "d/file").unwrap(), "1");
}

#[test]
fn the_order_of_the_roots_makes_no_difference() {
    let build = || {
        let lab = Lab::new();
        for at in 0..20 {
            lab.write_at("a", &format!("a/{at}"), "1", at);
            lab.write_at("b", &format!("b/{at}"), "2", at);
            lab.write_at("a", &format!("ab/{at}"), "3", at);
            lab.write_at("b", &format!("ab/{at}"), "3", at);
            lab.write_at("a", &format!("c/{at}"), "from a", at);
            lab.write_at("b", &format!("c/{at}"), "from b", 30 - at);
        }
        lab
    };
    let (one, other) = (build(), build());
    one.sync_roots("a", "b", &["--conflicts", "newer"]).code(0);
    other.sync_roots("b", "a", &["--conflicts", "newer"]).code(0);
    let held = |lab: &Lab, root: &str| lab.names(root).into_iter().map(|name| (lab.read(root, &name), name)).collect::<Vec<_>>();
    for root in ["a", "b"] {
        assert_eq!(held(&one, root), held(&other, root));
    }
}

#[test]
fn a_copied_root_becomes_a_replica_of_its_own() {
    let lab = Lab::synced(&["x", "y", "d/z"]);
    let copied = std::process::Command::new("cp").arg("-a").args([lab.root("a"), lab.root("c")]).status().unwrap();
    assert!(copied.success());
    lab.write("c", "x", "edited on c");
    lab.write("a", "y", "edited on a");
    lab.sync_roots("b", "c", &[]).code(0).without_conflicts();
    lab.sync(&[]).code(0).without_conflicts();
    lab.sync_roots("a", "c", &[]).code(0).without_conflicts();
    lab.sync(&[]).code(0);
    for root in ["a", "b", "c"] {
        assert_eq!(lab.read(root, "x").unwrap(), "edited on c", "{root}");
        assert_eq!(lab.read(root, "y").unwrap(), "edited on a", "{root}");
    }
}

#[test]
fn a_root_named_by_a_link_or_a_relative_path_is_the_same_root() {
    let lab = Lab::synced(&["x", "y"]);
    std::os::unix::fs::symlink(lab.root("a"), lab.root("link")).unwrap();
    lab.write("a", "x", "edited");
    lab.sync_roots("link", "b", &[]).code(0).without_conflicts();
    assert_eq!(lab.read("b", "x").unwrap(), "edited");
    fs::write(lab.at("b", "y"), "edited too").unwrap();
    let mut command = crate::lab::driftless();
    command.current_dir(lab.root("b")).args(["sync", "--batch", "--json", "../a", "."]);
    crate::lab::run(&mut command).code(0).without_conflicts();
    assert_eq!(lab.read("a", "y").unwrap(), "edited too");
    lab.assert_settled();
}
