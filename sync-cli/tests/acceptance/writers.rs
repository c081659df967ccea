//! Writers that do not wait for a synchronisation.

use crate::lab::Lab;
use std::fs;
use std::io::{Seek, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use sync_core::io::sync::{Options, Sync};
use sync_core::report::Silent;

#[test]
fn a_rewrite_of_equal_size_with_its_time_put_back_is_noticed() {
    let lab = Lab::synced(&["x", "d/y"]);
    let time = fs::metadata(lab.at("a", "x")).unwrap().modified().unwrap();
    for round in 0..200 {
        let root = if round % 3 == 2 { "b" } else { "a" };
        let text = format!("{round:08}");
        let mut file = fs::File::create(lab.at(root, "x")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_modified(time).unwrap();
        drop(file);
        lab.sync(&[]).code(0).without_conflicts();
        for at in ["a", "b"] {
            assert_eq!(lab.read(at, "x").unwrap(), text, "round {round}");
        }
    }
    lab.assert_settled();
}

#[test]
fn a_rewrite_right_after_the_scan_is_noticed_by_the_next_run() {
    let lab = Lab::synced(&["x"]);
    let time = fs::metadata(lab.at("a", "x")).unwrap().modified().unwrap();
    for round in 0..200 {
        let write = |text: &str| {
            let mut file = fs::OpenOptions::new().write(true).open(lab.at("a", "x")).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.set_modified(time).unwrap();
        };
        write("0");
        let mut sync = Sync::open(&lab.root("a"), &lab.root("b"), Options::standard(), &Silent).unwrap();
        write("1");
        sync.apply(&Silent).unwrap();
        drop(sync);
        let mut sync = Sync::open(&lab.root("a"), &lab.root("b"), Options::standard(), &Silent).unwrap();
        sync.apply(&Silent).unwrap();
        assert_eq!(lab.read("b", "x").unwrap(), "1", "round {round}");
    }
}

/// Blocks of a version: all bytes of one version are equal.
const BLOCKS: usize = 64;
const BLOCK: usize = 16 * 1024;

fn version(bytes: &[u8]) -> Option<u8> {
    let first = *bytes.first()?;
    (bytes.len() == BLOCKS * BLOCK && bytes.iter().all(|byte| *byte == first)).then_some(first)
}

/// Syncs again and again while `write` is called in a loop by another thread; `check` looks at b after each run.
fn while_written(lab: &Lab, write: impl Fn(u8) + Send + std::marker::Sync, check: impl Fn(usize)) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 1_u8;
            while !stop.load(Ordering::Relaxed) {
                write(round);
                round = round.wrapping_add(1).max(1);
                if round.is_multiple_of(4) {
                    // A writer at rest for longer than a run takes.
                    std::thread::park_timeout(std::time::Duration::from_millis(40));
                }
            }
        });
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for run in 0..60 {
                let ran = lab.sync(&[]);
                assert!(matches!(ran.0.status.code(), Some(0 | 2)), "{}{}", ran.stdout(), ran.stderr());
                ran.without_conflicts();
                check(run);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    });
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
}

#[test]
fn a_file_rewritten_in_place_never_arrives_torn() {
    let lab = Lab::synced(&["other"]);
    lab.write("a", "x", vec![b'0'; BLOCKS * BLOCK]);
    lab.sync(&[]).code(0);
    let (seen, file) = (std::sync::Mutex::new(std::collections::BTreeSet::new()), lab.at("a", "x"));
    while_written(
        &lab,
        |round| {
            let mut file = fs::OpenOptions::new().write(true).open(&file).unwrap();
            for _ in 0..BLOCKS {
                file.write_all(&[round; BLOCK]).unwrap();
            }
        },
        |run| {
            let version = version(&fs::read(lab.at("b", "x")).unwrap());
            assert!(version.is_some(), "run {run} brought a torn file");
            seen.lock().unwrap().insert(version);
        },
    );
    eprintln!("{} versions arrived", seen.lock().unwrap().len());
}

#[test]
fn a_new_file_that_is_truncated_and_written_again_never_arrives_torn() {
    let lab = Lab::synced(&["other"]);
    while_written(
        &lab,
        |round| {
            let mut file = fs::File::create(lab.at("a", "x.new")).unwrap();
            for _ in 0..BLOCKS {
                file.write_all(&[round; BLOCK]).unwrap();
            }
            drop(file);
            fs::rename(lab.at("a", "x.new"), lab.at("a", "x")).unwrap();
        },
        |run| {
            if let Ok(bytes) = fs::read(lab.at("b", "x")) {
                assert!(version(&bytes).is_some(), "run {run} brought a torn file");
            }
        },
    );
}

#[test]
fn a_growing_file_arrives_as_a_beginning_of_itself() {
    let lab = Lab::synced(&["other"]);
    let pattern = fixtures::bytes::noise(3, 4 << 20);
    lab.write("a", "log", &pattern[..100]);
    lab.sync(&[]).code(0);
    let (file, expected) = (lab.at("a", "log"), pattern.clone());
    while_written(
        &lab,
        move |_| {
            let mut file = fs::OpenOptions::new().append(true).open(&file).unwrap();
            let at = file.seek(std::io::SeekFrom::End(0)).unwrap() as usize;
            let end = (at + 4096).min(expected.len());
            file.write_all(&expected[at..end]).unwrap();
        },
        |run| {
            let held = fs::read(lab.at("b", "log")).unwrap();
            assert!(pattern.starts_with(&held), "run {run}: what arrived was never there");
        },
    );
}

fn opened(lab: &Lab) -> Sync {
    Sync::open(&lab.root("a"), &lab.root("b"), Options::standard(), &Silent).unwrap()
}

#[test]
fn what_changes_between_plan_and_apply_keeps_its_bytes() {
    // 40, 41, 42
    let lab = Lab::synced(&["edited", "deleted", "d/edited", "d/deleted", "moved", "tree/1", "tree/2", "fine", "r1", "r2", "r3"]);
    lab.link("a", "link", "one");
    lab.sync(&[]).code(0);
    for path in ["edited", "d/edited", "fine"] {
        lab.write("a", path, "from a");
    }
    for path in ["deleted", "d/deleted", "tree", "link"] {
        lab.remove("a", path);
    }
    lab.rename("a", "moved", "moved away");
    lab.write("a", "new", "from a");
    let mut sync = opened(&lab);
    sync.plan(&Silent, &mut |_, _| ()).unwrap();
    for path in ["edited", "deleted", "d/edited", "d/deleted", "moved", "tree/1", "tree/new", "new"] {
        lab.write("b", path, "slipped in on b");
    }
    lab.remove("b", "link");
    lab.link("b", "link", "two");
    let report = sync.apply(&Silent).unwrap();
    assert!(!report.in_sync);
    drop(sync);
    for path in ["edited", "deleted", "d/edited", "d/deleted", "moved", "tree/1", "tree/new", "new"] {
        assert_eq!(lab.read("b", path).as_deref(), Some("slipped in on b"), "{path}");
    }
    assert_eq!(fs::read_link(lab.at("b", "link")).unwrap().as_os_str(), "two");
    assert_eq!(lab.read("b", "fine").unwrap(), "from a");
    lab.sync(&["--conflicts", "keep-both"]).code(0);
    lab.assert_settled();
    for path in ["deleted", "d/deleted", "moved", "tree/1", "tree/new"] {
        assert_eq!(lab.read("a", path).as_deref(), Some("slipped in on b"), "{path}");
    }
    let texts: Vec<_> = lab.names("a").iter().filter_map(|name| lab.read("a", name)).collect();
    for path in ["edited", "d/edited", "new"] {
        assert!(lab.names("a").contains(&path.to_owned()), "{path}");
    }
    assert_eq!(texts.iter().filter(|text| *text == "from a").count(), 4, "{texts:?}");
}

#[test]
fn a_source_that_changes_between_plan_and_apply_is_brought_later() {
    let lab = Lab::synced(&["x", "y", "z"]);
    for path in ["x", "y", "z"] {
        lab.write("a", path, "first edit");
    }
    let mut sync = opened(&lab);
    sync.plan(&Silent, &mut |_, _| ()).unwrap();
    lab.write("a", "x", "second edit");
    lab.remove("a", "y");
    let report = sync.apply(&Silent).unwrap();
    assert!(!report.in_sync);
    drop(sync);
    assert_eq!(
        (lab.read("b", "x").unwrap(), lab.read("b", "y").unwrap(), lab.read("b", "z").unwrap()),
        ("x".into(), "y".into(), "first edit".into())
    );
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    assert_eq!((lab.read("b", "x").unwrap(), lab.read("b", "y")), ("second edit".into(), None));
}
