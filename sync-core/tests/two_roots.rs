//! The example of the library does what it says, and the README shows the same code.
#![allow(clippy::disallowed_methods, reason = "tests make, change and look at files as users do")]

#[path = "../examples/two_roots.rs"]
#[allow(dead_code, reason = "its main takes a command line")]
mod two_roots;

use std::fs;
use two_roots::synchronise;

#[test]
fn the_example_synchronises_two_folders() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    fs::create_dir_all(a.join("here"))?;
    fs::create_dir(&b)?;
    fs::write(a.join("here/from a"), "a")?;
    fs::write(b.join("from b"), "b")?;

    let report = synchronise(&a, &b, 0)?.expect("nothing is deleted");
    assert!(report.in_sync && report.problems.is_empty(), "{report:?}");
    assert_eq!(fs::read(b.join("here/from a"))?, b"a");
    assert_eq!(fs::read(a.join("from b"))?, b"b");
    assert_eq!(report.totals.map(|totals| totals.created), [1, 2]);

    fs::remove_file(b.join("from b"))?;
    assert!(synchronise(&a, &b, 0)?.is_none());
    assert_eq!(fs::read(a.join("from b"))?, b"b");
    let report = synchronise(&a, &b, 1)?.expect("one deletion is allowed");
    assert!(report.in_sync && !a.join("from b").exists(), "{report:?}");
    Ok(())
}

#[test]
fn the_readme_shows_the_example() {
    let readme = include_str!("../../README.md");
    let (_, block) = readme.split_once("```rust\n").expect("the README has a block of Rust");
    let (shown, _) = block.split_once("```").expect("the block ends");
    let example = include_str!("../examples/two_roots.rs").replace("pub(crate) ", "");
    assert!(example.contains(shown), "README.md and examples/two_roots.rs differ");
}
