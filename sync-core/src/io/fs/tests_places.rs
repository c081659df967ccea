//! Seeing through links of ours, and through no other.

use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

struct Lab {
    hot: tempfile::TempDir,
    cold: tempfile::TempDir,
    root: Root,
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

/// `y/d` lies in the cold root at `y/d`, and holds a file `f` and a directory `sub`.
fn lab(settled: bool) -> Lab {
    let (hot, cold) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(hot.path().join("y")).unwrap();
    std::fs::create_dir_all(cold.path().join("y/d/sub")).unwrap();
    std::fs::write(cold.path().join("y/d/f"), b"cold").unwrap();
    let id = init_cold(cold.path()).unwrap();
    let used = Arc::new(Cold {
        id,
        path: cold.path().to_owned(),
        key: "k".into(),
        claim: Claim::default(),
        generation: Generation::default(),
    });
    let placement = Placement {
        path: path("y/d"),
        cold: used.clone(),
        at: path("y/d"),
        job: "job".into(),
        stamp: ColdId([7; 16]),
        link: b"text"[..].into(),
        other_link: Some(b"other"[..].into()),
        settled,
        rewritten: BTreeMap::new(),
    };
    placement.put_stamp().unwrap();
    symlink("text", hot.path().join("y/d")).unwrap();
    let root = Root::open(hot.path()).unwrap();
    root.set_places(Places::new([placement], vec![used]));
    Lab { hot, cold, root }
}

#[test]
fn a_placed_directory_is_looked_at_listed_and_opened_where_it_lies() {
    for text in ["text", "other"] {
        let Lab { hot, cold, root } = lab(true);
        std::fs::remove_file(hot.path().join("y/d")).unwrap();
        symlink(text, hot.path().join("y/d")).unwrap();
        let mut above = root.dir(&path("y")).unwrap();
        let wanted = Root::open(cold.path()).unwrap().dir(&path("y/d")).unwrap().stat_self().unwrap();
        assert_eq!(above.stat(b"d").unwrap(), Some(wanted));
        assert!(above.has_placed() && !above.is_placed());
        let mut listed = Vec::new();
        above
            .each_name(Vec::with_capacity(4096).spare_capacity_mut(), |name, kind, ino| listed.push((name.to_owned(), kind, ino)))
            .unwrap();
        assert_eq!(listed, [(c"d".to_owned(), FileType::Unknown, 0)]);
        let day = above.open_dir(b"d").unwrap();
        assert!(day.is_placed() && day.placement().is_some());
        assert_eq!(day.stat_self().unwrap(), wanted);
        let sub = root.dir(&path("y/d/sub")).unwrap();
        assert!(!sub.is_placed() && sub.placement().is_some());
        assert!(root.dir(&path("y/d")).unwrap().open_file(b"f").is_ok());
        assert!(root.dir(&path("y/d/none")).unwrap_err().is_missing());
    }
}

#[test]
fn a_link_of_ours_is_neither_renamed_nor_removed_by_its_name() {
    let Lab { hot, root, .. } = lab(true);
    let above = root.dir(&path("y")).unwrap();
    let crosses = |done: Result<(), FsError>| done.unwrap_err().source.kind() == io::ErrorKind::CrossesDevices;
    assert!(crosses(above.rename(b"d", &above, b"e", Replace::Never)));
    std::fs::write(hot.path().join("y/x"), b"").unwrap();
    assert!(crosses(above.rename(b"x", &above, b"d", Replace::Exchange)));
    assert!(crosses(above.unlink(b"d")));
    assert!(hot.path().join("y/d").is_symlink());
}

#[test]
fn each_of_the_four_must_agree() {
    type Spoil = fn(&Lab);
    let spoils: [(&str, Spoil); 6] = [
        ("text", |lab| {
            std::fs::remove_file(lab.hot.path().join("y/d")).unwrap();
            symlink(lab.cold.path().join("y/d"), lab.hot.path().join("y/d")).unwrap();
        }),
        ("link", |lab| std::fs::remove_file(lab.hot.path().join("y/d")).unwrap()),
        ("marker", |lab| {
            std::fs::write(lab.cold.path().join(".driftless/cold"), b"cold 00000000000000000000000000000000\n").unwrap()
        }),
        ("no marker", |lab| std::fs::remove_file(lab.cold.path().join(".driftless/cold")).unwrap()),
        ("stamp", |lab| {
            let placed = lab.cold.path().join(".driftless/k/placed");
            let stamp = std::fs::read_dir(placed).unwrap().next().unwrap().unwrap().path();
            let text = std::fs::read_to_string(&stamp).unwrap().replace("job job", "job other");
            std::fs::write(stamp, text).unwrap();
        }),
        ("directory", |lab| {
            // A link there is no directory of ours either.
            std::fs::rename(lab.cold.path().join("y"), lab.cold.path().join("z")).unwrap();
            symlink("z", lab.cold.path().join("y")).unwrap();
        }),
    ];
    for (what, spoil) in spoils {
        for settled in [true, false] {
            let lab = lab(settled);
            spoil(&lab);
            let above = lab.root.dir(&path("y")).unwrap();
            let counts = !settled && matches!(what, "text" | "link");
            let deep = lab.root.dir(&path("y/d/sub")).map(drop);
            if counts {
                assert_eq!(above.stat(b"d").unwrap().is_some(), what == "text", "{what}: what stands there counts");
                assert!(deep.is_err_and(|error| error.unavailable().is_none()), "{what}: a link like any other");
            } else {
                assert!(above.stat(b"d").is_err_and(|error| error.unavailable().is_some()), "{what} {settled}");
                assert!(above.open_dir(b"d").is_err_and(|error| error.unavailable().is_some()), "{what} {settled}");
                assert!(deep.is_err_and(|error| error.unavailable().is_some()), "{what} {settled}");
            }
        }
    }
}

#[test]
fn a_directory_that_is_being_placed_counts_until_the_link_stands_there() {
    let Lab { hot, root, .. } = lab(false);
    std::fs::remove_file(hot.path().join("y/d")).unwrap();
    std::fs::create_dir(hot.path().join("y/d")).unwrap();
    std::fs::write(hot.path().join("y/d/hot"), b"").unwrap();
    let day = root.dir(&path("y/d")).unwrap();
    assert!(!day.is_placed() && day.stat(b"hot").unwrap().is_some());
}

#[test]
fn placements_do_not_nest() {
    let Lab { root, .. } = lab(true);
    let places = root.places();
    for (text, may) in [("", false), ("y", false), ("y/d", true), ("y/d/sub", false), ("y/e", true), ("y/dd", true), ("z", true)]
    {
        assert_eq!(places.may_hold(&path(text)), may, "{text}");
    }
}

#[test]
fn a_rewritten_link_reads_as_it_did_while_nobody_changes_it() {
    let Lab { hot: _hot, cold, root } = lab(true);
    let mut placement = Placement::clone(root.places().get(&path("y/d")).unwrap());
    let link = Rewritten { disk: b"/hot/y/e"[..].into(), target: b"../../e"[..].into() };
    placement.rewritten.insert(path("sub/l"), link);
    root.set_places(root.places().with(placement));
    let read = || root.dir(&path("y/d/sub")).unwrap().read_link(b"l").unwrap();
    symlink("/hot/y/e", cold.path().join("y/d/sub/l")).unwrap();
    assert_eq!(&*read(), b"../../e");
    std::fs::remove_file(cold.path().join("y/d/sub/l")).unwrap();
    symlink("/hot/y/other", cold.path().join("y/d/sub/l")).unwrap();
    assert_eq!(&*read(), b"/hot/y/other");
}

/// Links, directories and cold roots that change places at the wrong moment: what is opened is what was meant, or nothing.
#[test]
fn what_is_swapped_while_it_is_opened_never_leads_elsewhere() {
    let lab = lab(true);
    let trap = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(trap.path().join("y/d/sub")).unwrap();
    std::fs::write(trap.path().join("y/d/f"), b"trap").unwrap();
    let (hot, cold) = (lab.hot.path().join("y/d"), lab.cold.path().join("y/d"));
    symlink(trap.path().join("y/d"), lab.hot.path().join("y/t")).unwrap();
    symlink(trap.path().join("y/d"), lab.cold.path().join("y/t")).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for at in [&hot, &cold] {
            scope.spawn(|| {
                let dir = Root::open(at.parent().unwrap()).unwrap().hot(&RelPath::root()).unwrap();
                while !over.load(Ordering::Relaxed) {
                    dir.rename(b"d", &dir, b"t", Replace::Exchange).unwrap();
                }
            });
        }
        let mut opened = 0;
        for _ in 0..10_000 {
            let day = lab.root.dir(&path("y/d")).and_then(|day| day.open_file(b"f"));
            match day {
                Ok(mut file) => {
                    let mut text = String::new();
                    io::Read::read_to_string(&mut file, &mut text).unwrap();
                    assert_eq!(text, "cold");
                    opened += 1;
                }
                Err(error) => {
                    assert!(error.unavailable().is_some(), "{error}");
                }
            }
        }
        over.store(true, Ordering::Relaxed);
        assert!(opened > 0);
    });
}

#[test]
fn targets_that_lead_out_of_a_day_are_told_from_others() {
    for (target, out) in [
        ("../e", Some("y/e")),
        ("../../x/./z", Some("x/z")),
        ("../../../up", Some("../up")),
        ("../d/f", Some("y/d/f")),
        ("f", None),
        ("sub/../f", None),
        ("/whole", None),
        ("", None),
    ] {
        let found = leads_out(&path("y/d"), &path("y/d/l"), target.as_bytes());
        assert_eq!(found.as_deref(), out.map(str::as_bytes), "{target}");
    }
    assert_eq!(leads_out(&path("y/d"), &path("y/d/sub/l"), b"../f"), None);
}

#[test]
fn a_stamp_is_removed_only_by_whom_it_belongs_to() {
    let lab = lab(true);
    let places = lab.root.places();
    let Placement { cold, stamp, .. } = places.get(&path("y/d")).map(|placement| &**placement).unwrap();
    // A move that a crash left knows of an earlier one.
    cold.remove_stamp(&path("y/d"), ColdId([8; 16])).unwrap();
    assert!(cold.has_stamp(&path("y/d")).unwrap());
    for _ in 0..2 {
        cold.remove_stamp(&path("y/d"), *stamp).unwrap();
        assert!(!cold.has_stamp(&path("y/d")).unwrap());
    }
}
