//! The example of the library does what it says, and the README shows the same code.
#![allow(clippy::disallowed_methods, reason = "tests make, change and look at files as users do")]

#[path = "../examples/two_roots.rs"]
#[allow(dead_code, reason = "its main takes a command line")]
mod two_roots;

use std::fs;
use std::io::Write as _;
use std::sync::Mutex;
use sync_core::io::sync::{Options, Sync};
use sync_core::report::Monitor;
use two_roots::synchronise;

/// Hears what a user is told.
#[derive(Default)]
struct Ear(Mutex<Vec<String>>);

impl Monitor for Ear {
    fn notice(&self, text: &str) {
        if let Ok(mut heard) = self.0.lock() {
            heard.push(text.to_owned());
        }
    }
}

#[test]
fn what_was_written_to_a_replaced_file_after_the_run_comes_back_with_the_next_and_is_told() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    fs::create_dir(&a)?;
    fs::create_dir(&b)?;
    fs::write(a.join("f.txt"), "old")?;
    assert!(synchronise(&a, &b, 0)?.is_some());
    let mut open = fs::File::options().append(true).open(b.join("f.txt"))?;
    fs::write(a.join("f.txt"), "replaced")?;
    assert!(synchronise(&a, &b, 0)?.is_some());
    open.write_all(b", and more")?;

    let ear = Ear::default();
    let report = Sync::open(&a, &b, Options::standard(), &ear)?.apply(&ear)?;
    assert!(report.in_sync, "{report:?}");
    let heard = ear.0.lock().expect("no test panics while it hears").join("\n");
    assert!(heard.contains("f.conflict-late-"), "{heard}");
    for root in [&a, &b] {
        let mut found = Vec::new();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().contains(".conflict-late-") {
                found.push(fs::read_to_string(entry.path())?);
            }
        }
        assert_eq!(found, ["old, and more"]);
    }
    Ok(())
}

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
