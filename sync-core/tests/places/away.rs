//! Cold roots that are missing, and links that are: unavailable, never deleted.

use super::NOTHING;
use super::lab::{DAYS, Lab, Until, place, rejoin, tree, write};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Does something to the cold root or the link, and undoes it.
struct Trouble {
    what: &'static str,
    told: &'static str,
    make: fn(&Lab),
    undo: fn(&Lab),
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".aside");
    name.into()
}

fn away(path: &Path) {
    fs::rename(path, aside(path)).unwrap();
}

fn back(path: &Path) {
    fs::rename(aside(path), path).unwrap();
}

fn link(lab: &Lab) -> PathBuf {
    lab.b().join(DAYS[0])
}

/// The link goes where no scan sees it.
fn link_away(lab: &Lab) {
    fs::rename(link(lab), lab.folder().join("link")).unwrap();
}

fn link_back(lab: &Lab) {
    if link(lab).is_dir() && !link(lab).is_symlink() {
        fs::remove_dir_all(link(lab)).unwrap();
    } else {
        let _absent = fs::remove_file(link(lab));
    }
    fs::rename(lab.folder().join("link"), link(lab)).unwrap();
}

fn stamps(lab: &Lab) -> PathBuf {
    let keys = fs::read_dir(lab.cold().join(".driftless")).unwrap().map(|entry| entry.unwrap().path());
    keys.map(|key| key.join("placed")).find(|placed| placed.is_dir() || aside(placed).is_dir()).unwrap()
}

/// Another directory lies where the day lay: a copy of it, with something done to it.
fn replaced(lab: &Lab, change: fn(&Path)) {
    let day = lab.cold().join(DAYS[0]);
    away(&day);
    assert!(Command::new("cp").arg("-a").args([&aside(&day), &day]).status().unwrap().success());
    change(&day);
}

fn replaced_back(lab: &Lab) {
    let day = lab.cold().join(DAYS[0]);
    fs::remove_dir_all(&day).unwrap();
    back(&day);
}

const ANOTHER: &str = "another directory lies in the cold root";

const TROUBLES: [Trouble; 13] = [
    Trouble {
        what: "an empty directory in its place",
        told: ANOTHER,
        make: |lab| {
            away(&lab.cold().join(DAYS[0]));
            fs::create_dir(lab.cold().join(DAYS[0])).unwrap();
        },
        undo: replaced_back,
    },
    Trouble {
        what: "a part of it",
        told: ANOTHER,
        make: |lab| replaced(lab, |day| fs::remove_file(day.join("sub/deep/d.txt")).unwrap()),
        undo: replaced_back,
    },
    Trouble {
        what: "an older copy",
        told: ANOTHER,
        make: |lab| {
            replaced(lab, |day| {
                let file = fs::File::options().write(true).open(day.join("b.txt")).unwrap();
                file.set_modified(std::time::UNIX_EPOCH).unwrap();
            });
        },
        undo: replaced_back,
    },
    Trouble {
        what: "a file that is being brought back",
        told: ANOTHER,
        make: |lab| replaced(lab, |day| fs::write(day.join("b.txt"), "f").unwrap()),
        undo: replaced_back,
    },
    Trouble {
        what: "a bare mount point",
        told: "is its disk mounted",
        make: |lab| {
            away(&lab.cold().join(".driftless"));
            away(&lab.cold().join("2026"));
        },
        undo: |lab| {
            assert_eq!(fs::read_dir(lab.cold()).unwrap().count(), 2, "something was made below the mount point");
            back(&lab.cold().join(".driftless"));
            back(&lab.cold().join("2026"));
        },
    },
    Trouble {
        what: "another cold root",
        told: "another cold root",
        make: |lab| {
            let marker = lab.cold().join(".driftless/cold");
            fs::copy(&marker, aside(&marker)).unwrap();
            fs::write(&marker, format!("cold {}\n", "7".repeat(32))).unwrap();
        },
        undo: |lab| back(&lab.cold().join(".driftless/cold")),
    },
    Trouble { what: "no stamps", told: "does not know of it", make: |lab| away(&stamps(lab)), undo: |lab| back(&stamps(lab)) },
    Trouble {
        what: "no directory",
        told: "not taken for deleted",
        make: |lab| away(&lab.cold().join(DAYS[0])),
        undo: |lab| back(&lab.cold().join(DAYS[0])),
    },
    Trouble { what: "no link", told: "put it back", make: link_away, undo: link_back },
    Trouble {
        what: "another link",
        told: "another link stands",
        make: |lab| {
            link_away(lab);
            symlink(lab.cold().join(DAYS[1]), link(lab)).unwrap();
        },
        undo: link_back,
    },
    Trouble {
        what: "a file",
        told: "something else stands",
        make: |lab| {
            link_away(lab);
            fs::write(link(lab), "a file").unwrap();
        },
        undo: link_back,
    },
    Trouble {
        what: "a directory made anew",
        told: "a directory stands",
        make: |lab| {
            link_away(lab);
            write(&link(lab), "a.txt", "made anew");
        },
        undo: link_back,
    },
    Trouble {
        what: "the directory above",
        told: "went with the directory above",
        make: |lab| away(&lab.b().join("2026")),
        undo: |lab| {
            fs::remove_dir_all(lab.b().join("2026")).unwrap_or_default();
            back(&lab.b().join("2026"));
        },
    },
];

#[test]
fn what_is_away_is_unavailable_and_comes_back_as_it_was() {
    for Trouble { what, told, make, undo } in TROUBLES {
        let lab = Lab::new();
        lab.place(DAYS[0]);
        assert_eq!(lab.synchronise(), NOTHING);
        let (before, knows) = (tree(&lab.a()), lab.knows());
        make(&lab);
        let problems = lab.troubled();
        assert!(problems.iter().any(|problem| problem.contains(told)), "{what}: {problems:?}");
        write(&lab.a(), "2026/03/05/new", "new");
        write(&lab.a(), "2026/03/05/a.txt", "edited meanwhile");
        write(&lab.a(), "hot", "hot");
        lab.troubled();
        assert!(lab.b().join("hot").exists(), "{what}: all else goes on");
        assert!(!link(&lab).join("new").exists(), "{what}");
        let now = tree(&lab.a());
        assert!(before.iter().all(|(path, _)| now.iter().any(|(there, _)| there == path)), "{what}: something was deleted");
        undo(&lab);
        let totals = lab.synchronise();
        assert_eq!(totals[0].deleted + totals[1].deleted, u64::from(what == "the directory above") * totals[0].deleted, "{what}");
        assert_eq!(fs::read_to_string(lab.b().join("2026/03/05/a.txt")).unwrap(), "edited meanwhile", "{what}");
        assert!(lab.is_link(DAYS[0]) && lab.cold().join("2026/03/05/new").exists(), "{what}");
        assert!(lab.knows().1 >= knows.1, "{what}");
    }
}

#[test]
fn a_day_that_was_brought_back_whole_goes_on() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    assert_eq!(lab.synchronise(), NOTHING);
    replaced(&lab, |_| {});
    assert_eq!(lab.synchronise(), NOTHING);
    // From now on it is the one that is known.
    fs::remove_file(lab.cold().join(DAYS[0]).join("b.txt")).unwrap();
    assert_eq!(lab.synchronise()[0].deleted, 1);
}

#[test]
fn many_days_in_one_missing_cold_root_are_told_once() {
    let lab = Lab::new();
    DAYS.iter().for_each(|day| lab.place(day));
    away(&lab.cold().join(".driftless"));
    let problems = lab.troubled();
    assert_eq!(problems.len(), 1, "{problems:?}");
    back(&lab.cold().join(".driftless"));
    assert_eq!(lab.synchronise(), NOTHING);
}

#[test]
fn a_cold_disk_may_be_unmounted_and_mounted_again() {
    const CHILD: &str = "DRIFTLESS_TEST_COLD_MOUNTS";
    let namespace = ["--mount", "--map-root-user"];
    if std::env::var_os(CHILD).is_none() {
        if !Command::new("unshare").args(namespace).arg("true").status().is_ok_and(|status| status.success()) {
            eprintln!("no mount namespaces here: nothing is proved");
            return;
        }
        let child = Command::new("unshare")
            .args(namespace)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "away::a_cold_disk_may_be_unmounted_and_mounted_again", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = [child.stdout, child.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        return assert!(child.status.success(), "{said}");
    }
    let lab = Lab::on_one();
    let disk = tempfile::tempdir().unwrap();
    let run = |program: &str, args: &[&Path]| assert!(Command::new(program).args(args).status().unwrap().success());
    let mount = || run("mount", &[Path::new("--bind"), disk.path(), &lab.cold()]);
    mount();
    sync_core::io::fs::init_cold(&lab.cold()).unwrap();
    lab.place(DAYS[0]);
    assert_eq!(lab.synchronise(), NOTHING);
    let before = tree(&lab.a());
    run("umount", &[&lab.cold()]);
    fs::remove_dir_all(lab.cold().join(".driftless")).unwrap();
    write(&lab.a(), "2026/03/05/new", "new");
    lab.troubled();
    assert_eq!(fs::read_dir(lab.cold()).unwrap().count(), 0, "nothing is made below an empty mount point");
    assert_eq!(tree(&lab.a()).len(), before.len() + 1);
    mount();
    lab.synchronise();
    assert!(disk.path().join("2026/03/05/new").exists());
}

#[test]
fn a_state_that_does_not_know_of_a_placement_any_more_takes_its_link_for_no_deletion() {
    let lab = Lab::new();
    lab.place(DAYS[1]);
    let state = lab.b().join(".driftless/state.db");
    let old = lab.folder().join("old.db");
    fs::copy(&state, &old).unwrap();
    lab.place(DAYS[0]);
    // As after a crash of the file system, or by hand: the file is the same, its content older.
    fs::write(&state, fs::read(&old).unwrap()).unwrap();
    let before = tree(&lab.a());
    let problems = lab.troubled();
    assert!(problems.iter().any(|problem| problem.contains("a cold root holds")), "{problems:?}");
    assert_eq!(tree(&lab.a()), before);
}

#[test]
fn a_root_that_joins_again_knows_what_lies_elsewhere() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    fs::remove_file(lab.b().join(".driftless/marker")).unwrap();
    let report = rejoin(lab.folder());
    assert!(report.in_sync, "{:?}", report.problems);
    assert_eq!(lab.placed(), [DAYS[0]]);
    assert!(lab.is_link(DAYS[0]));
    assert_eq!(tree(&lab.a()), tree(&lab.b()));
    assert_eq!(lab.synchronise(), NOTHING);
}

/// As an archive run leaves it that is killed right after directory and link have changed places.
fn with_a_day_half_moved() -> Lab {
    let lab = Lab::new();
    place(&lab.b(), &lab.cold(), DAYS[0], Until::Exchanged);
    lab
}

#[test]
fn a_link_that_goes_before_its_placement_was_settled_deletes_nothing() {
    for gone in [DAYS[0], "2026/03", "2026"] {
        let lab = with_a_day_half_moved();
        let before = tree(&lab.a());
        away(&lab.cold().join(".driftless"));
        fs::rename(lab.b().join(gone), lab.folder().join("gone")).unwrap();
        for _ in 0..2 {
            let problems = lab.troubled();
            assert!(problems.iter().any(|problem| problem.contains("the link to its archive")), "{gone}: {problems:?}");
            assert_eq!(tree(&lab.a()), before, "{gone}");
        }
        back(&lab.cold().join(".driftless"));
        fs::rename(lab.folder().join("gone"), lab.b().join(gone)).unwrap();
        assert_eq!(lab.synchronise(), NOTHING, "{gone}");
    }
}

#[test]
fn a_placement_is_settled_by_the_next_run_where_link_and_stamp_agree_with_it() {
    let lab = with_a_day_half_moved();
    place(&lab.b(), &lab.cold(), DAYS[1], Until::Announced);
    assert_eq!(lab.synchronise(), NOTHING);
    let settled: Vec<_> = lab.places().all().map(|placement| (placement.path.to_string(), placement.settled)).collect();
    assert_eq!(settled, [(DAYS[0].to_owned(), true), (DAYS[1].to_owned(), false)]);
}

#[test]
fn a_day_whose_cold_root_is_away_keeps_its_place_when_its_root_joins_again() {
    for gone in [DAYS[0], "2026/03", "2026"] {
        let lab = Lab::new();
        lab.place(DAYS[0]);
        write(&lab.a(), "2026/03/05/a.txt", "newer, and longer");
        away(&lab.cold().join(".driftless"));
        // Links that lead nowhere are tidied away, and so is what held nothing else.
        fs::rename(lab.b().join(gone), lab.folder().join("gone")).unwrap();
        fs::remove_file(lab.b().join(".driftless/marker")).unwrap();
        let report = rejoin(lab.folder());
        assert!(!report.in_sync, "{gone}");
        assert!(lab.b().join(DAYS[0]).symlink_metadata().is_err(), "{gone}: something was put in the place of the day");
        let before = tree(&lab.a());
        lab.troubled();
        assert_eq!(tree(&lab.a()), before, "{gone}");
        // Disk and link are back.
        back(&lab.cold().join(".driftless"));
        fs::create_dir_all(lab.b().join("2026/03")).unwrap();
        symlink(lab.cold().join(DAYS[0]), lab.b().join(DAYS[0])).unwrap();
        lab.sync();
        lab.synchronise();
        // Neither side's version is lost.
        let texts: Vec<_> = tree(&lab.a()).into_iter().map(|(_, text)| text).collect();
        assert!(texts.iter().any(|text| text == "newer, and longer"), "{gone}: {texts:?}");
        assert!(lab.is_link(DAYS[0]), "{gone}");
    }
}
