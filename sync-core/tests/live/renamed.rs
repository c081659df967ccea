//! Directories that were renamed while something in them changed: what is equal moves, in a run and in a pull of a root that stays open.

use super::{Lab, meet};
use anyhow::Result;
use fixtures::bytes::noise;
use std::fs;
use std::path::Path;
use sync_core::io::sync::{Options, Sync};
use sync_core::path::RelPath;
use sync_core::peer::Mode;
use sync_core::plan::{Totals, Verb};
use sync_core::report::Silent;

/// Files of the directory.
const FILES: usize = 300;
/// Bytes of each.
const BYTES: usize = 4_096;

/// Three hundred files: a third at the top of the directory, a third in a directory in it, and the rest two levels below.
fn fill(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir.join("sub/deep"))?;
    fs::create_dir(dir.join("other"))?;
    for number in 0..FILES {
        let below = ["", "sub", "sub/deep", "other"][number % 4];
        fs::write(dir.join(below).join(format!("file {number}")), noise(number as u64, BYTES))?;
    }
    Ok(())
}

/// Renames the directory, and changes something in it.
fn rename(root: &Path, what: Change) -> Result<()> {
    fs::rename(root.join("old"), root.join(what.to))?;
    let dir = root.join(what.to);
    match what.kind {
        Kind::Edit => fs::write(dir.join("sub/deep/file 2"), noise(1_000, BYTES))?,
        Kind::Add => fs::write(dir.join("sub/new"), noise(1_000, BYTES))?,
        Kind::Delete => fs::remove_file(dir.join("file 0"))?,
        Kind::Split => fs::rename(dir.join("sub"), root.join("split"))?,
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
struct Change {
    to: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Edit,
    Add,
    Delete,
    /// A directory in it comes to be elsewhere.
    Split,
}

/// Before and after the old one in the order of the tree, so that it is filled before the old one goes, or after.
const NAMES: [&str; 2] = ["new", "previous"];
const KINDS: [Kind; 4] = [Kind::Edit, Kind::Add, Kind::Delete, Kind::Split];

/// What may come over, and go: one file, and those directories of which something changed. All others are moved: 75 files stand in each
/// directory, of which those of which nothing changed move as one.
fn check(totals: &Totals, change: Change) {
    let moved = match change.kind {
        // Of three directories the files one by one, but for the edited one, and `other` as it is.
        Kind::Edit => 75 + 75 + 74 + 1,
        Kind::Add => 75 + 75 + 1 + 1,
        Kind::Delete => 74 + 1 + 1,
        Kind::Split => 75 + 1 + 1,
    };
    let bytes = match change.kind {
        Kind::Edit | Kind::Add => BYTES as u64,
        Kind::Delete | Kind::Split => 0,
    };
    assert_eq!((totals.moved, totals.bytes), (moved, bytes), "{change:?}: {totals:?}");
    assert!(totals.deleted <= 4 && totals.created <= 4, "{change:?}: {totals:?}");
    assert_eq!((totals.conflicts, totals.failed, totals.skipped), (0, 0, 0), "{change:?}: {totals:?}");
}

fn changes() -> impl Iterator<Item = Change> {
    NAMES.into_iter().flat_map(|to| KINDS.map(|kind| Change { to, kind }))
}

#[test]
fn a_run_moves_what_is_equal_in_a_renamed_directory_and_the_guard_counts_what_goes() -> Result<()> {
    for change in changes() {
        let lab = Lab::new(&["a", "b"])?;
        fill(&lab.root("a").join("old"))?;
        let run = || Sync::open(&lab.root("a"), &lab.root("b"), Options::standard(), &Silent);
        assert!(run()?.apply(&Silent)?.in_sync);
        rename(&lab.root("a"), change)?;
        let mut moves = 0;
        let planned = run()?.plan(&Silent, &mut |_, item| moves += u64::from(item.verb == Verb::Move))?;
        check(&planned.totals[1], change);
        assert_eq!(moves, planned.totals[1].moved, "{change:?}");
        let report = run()?.apply(&Silent)?;
        assert!(report.in_sync, "{change:?}: {report:?}");
        check(&report.totals[1], change);
        assert_eq!(lab.tree("a")?, lab.tree("b")?);
        let again = run()?.apply(&Silent)?;
        assert_eq!(again.totals, [Totals::default(); 2], "{change:?}");
    }
    Ok(())
}

#[test]
fn a_pull_of_a_root_that_stays_open_does_so_too() -> Result<()> {
    for change in changes() {
        let lab = Lab::new(&["a", "b"])?;
        fill(&lab.root("a").join("old"))?;
        let (a, b) = (lab.open("a")?, lab.open("b")?);
        let [ab, ba] = meet(&a, &b, [Mode::TwoWay; 2], [1, 2])?;
        ba.hears_of(&a)?;
        assert!(b.pull(&ba.member, &Silent)?.whole);
        ab.hears_of(&b)?;
        assert!(a.pull(&ab.member, &Silent)?.whole);
        rename(&lab.root("a"), change)?;
        let noticed = ["old", change.to, "split"].map(|path| RelPath::parse(path.as_bytes()));
        a.scan(&noticed.into_iter().collect::<Result<Vec<_>, _>>()?, &Silent)?;
        ba.hears_of(&a)?;
        let before = ba.member.received();
        let brought = b.pull(&ba.member, &Silent)?;
        assert!(brought.whole, "{change:?}: {brought:?}");
        check(&brought.totals, change);
        let received = ba.member.received() - before;
        assert!(received < (FILES * BYTES / 4) as u64, "{change:?}: {received} bytes came");
        assert_eq!(lab.tree("a")?, lab.tree("b")?);
        ab.hears_of(&b)?;
        assert!(a.covers(&ab.member)?);
    }
    Ok(())
}
