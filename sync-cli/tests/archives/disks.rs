//! The disk of a cold root is full, may only be read, is not mounted, or is another one, while the agent runs: that is told, nothing is
//! made where it does not belong, what is hot goes on both ways, and the agent goes on by itself once the disk is back. The disks are
//! mounted in namespaces of the test's own.

use crate::lab::{Machine, day, files, wait_until, write_day};
use fixtures::namespaces::{in_namespaces, run};
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The hot part of both machines.
const NEW: &str = "today";

/// A file system of its own, whose only folder is mounted elsewhere as well: so what it holds outlives its being unmounted there.
struct Disk {
    own: PathBuf,
}

impl Disk {
    fn new(folder: &Path, name: &str, options: &str) -> Disk {
        let own = folder.join(name);
        fs::create_dir(&own).unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("mode=755,{options}"), "none", text(&own)]);
        Disk { own }
    }

    fn mount(&self, at: &Path) {
        fs::create_dir_all(at).unwrap();
        run("mount", &["--bind", text(&self.own), text(at)]);
    }

    fn resize(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), text(&self.own)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Unmounts it as a user does: whoever looks at something in it is waited for, and an agent at rest keeps nobody from it.
fn unmount(at: &Path) {
    wait_until("the cold root can be unmounted", || Command::new("umount").arg(at).output().unwrap().status.success());
}

/// Two machines that have the same days, the first with a cold root there.
fn pair(cold: &Path, archive: &str, write: impl FnOnce(&Path)) -> (Machine, Machine) {
    let (mut a, mut b) = (Machine::with_cold_at("a", cold), Machine::hot("b"));
    a.archive = archive.into();
    write(&a.root());
    fs::create_dir(a.root().join(NEW)).unwrap();
    a.knows(&b);
    a.start();
    b.knows(&a);
    b.start();
    wait_until("both have all days", || files(&a.root()) == files(&b.root()) && b.root().join(NEW).is_dir());
    (a, b)
}

/// What is hot goes both ways.
fn assert_hot_goes_on(a: &Machine, b: &Machine, round: &str) {
    let name = |machine: &Machine| format!("{NEW}/{round}-{}", machine.name);
    for machine in [a, b] {
        fs::write(machine.root().join(name(machine)), round).unwrap();
    }
    let has = |here: &Machine, from: &Machine| fs::read_to_string(here.root().join(name(from))).is_ok_and(|text| text == round);
    wait_until(&format!("what is hot goes both ways ({round})"), || has(a, b) && has(b, a));
}

/// Copies that are on their way in a cold root, and what a move has left of them.
fn left_there(cold: &Path) -> Vec<PathBuf> {
    let list = |path: PathBuf| match fs::read_dir(path) {
        Ok(found) => found.map(|entry| entry.unwrap().path()).collect(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Vec::new(),
        Err(error) => panic!("{error}"),
    };
    let keys = list(cold.join(".driftless"));
    // The folder of a copy that took its place stays, empty, for as long as the old copy is kept.
    let copies = keys.iter().flat_map(|key| list(key.join("moving"))).flat_map(list);
    let halves = keys.iter().flat_map(|key| list(key.join("sealed"))).filter(|path| path.extension().is_some());
    copies.chain(halves).collect()
}

/// A cold root goes away in some way, and comes back.
struct Trouble<'a> {
    /// What is told of it.
    told: &'a str,
    begin: &'a dyn Fn(&Path),
    end: &'a dyn Fn(&Path),
    /// Can what is archived be read meanwhile?
    readable: bool,
}

fn goes_on_without_its_cold_root(folder: &Path, trouble: &Trouble<'_>) {
    let (disk, cold) = (Disk::new(folder, "disk", "size=64m"), folder.join("cold"));
    disk.mount(&cold);
    let (mut a, mut b) = pair(&cold, "", |root| (0..3).for_each(|number| write_day(root, number, 8)));
    assert_eq!(a.archive_now().archived, 3);
    let whole = files(&a.root());

    (trouble.begin)(&cold);
    let (before, names) = (fs::metadata(&cold).unwrap(), fs::read_dir(&cold).unwrap().count());
    write_day(&a.root(), 3, 8);
    wait_until("a day that is old comes", || files(&b.root()).len() == whole.len() + 8);
    assert_hot_goes_on(&a, &b, "first");
    // Changes of what is archived are not lost, and not taken for anything else.
    let (late, gone) = (format!("{}/late.txt", day(0)), format!("{}/part-1/00001.txt", day(1)));
    fs::write(b.root().join(&late), "late").unwrap();
    fs::remove_file(b.root().join(&gone)).unwrap();
    assert_hot_goes_on(&a, &b, "second");

    let why = a.archive_now().last.unwrap().error.unwrap_or_default();
    assert!(why.contains(trouble.told), "{why}");
    wait_until("it is told", || {
        let folder = a.folder();
        folder.problems.listed.iter().any(|problem| problem.error.contains(trouble.told))
            && folder.archive.is_some_and(|archive| archive.unavailable.is_some_and(|why| why.contains(trouble.told)))
    });
    let shown = String::from_utf8(a.run(&["agent", "status"]).stdout).unwrap();
    assert!(shown.contains(trouble.told) && shown.contains("3 days"), "{shown}");
    assert_eq!(a.metric("driftless_archive_cold_available"), Some(0.0));
    assert!(a.metric("driftless_folder_problems") >= Some(1.0));
    // All of it is looked at, and nothing that is not there counts as deleted.
    for machine in [&a, &b] {
        assert!(machine.run(&["agent", "sync"]).status.success());
    }
    assert_hot_goes_on(&a, &b, "third");
    let there = files(&b.root());
    let kept = |path: &Path| path == Path::new(&gone) || there.get(path) == whole.get(path);
    assert!(whole.keys().all(|path| kept(path)), "b lost something");
    assert_eq!(b.folder().brought.deleted, 0);
    assert_eq!(trouble.readable, fs::read(a.root().join(day(0)).join("part-0/00000.txt")).is_ok());
    // Nothing was made where it does not belong, and nothing was touched.
    let now = fs::metadata(&cold).unwrap();
    assert_eq!(fs::read_dir(&cold).unwrap().count(), names);
    assert_eq!((now.ctime(), now.ctime_nsec()), (before.ctime(), before.ctime_nsec()));
    assert!(!a.is_link(&day(3)));

    // It goes on by itself.
    (trouble.end)(&cold);
    wait_until("the day that waited is archived", || a.is_link(&day(3)) && a.archive().archived == 4);
    wait_until("what waited has come", || {
        fs::read(a.root().join(&late)).is_ok_and(|text| text == b"late") && fs::metadata(a.root().join(&gone)).is_err()
    });
    wait_until("nothing is told any more", || {
        let folder = a.folder();
        folder.problems.total == 0 && folder.archive.is_some_and(|archive| archive.unavailable.is_none())
    });
    assert_eq!(a.metric("driftless_archive_cold_available"), Some(1.0));
    assert_hot_goes_on(&a, &b, "fourth");
    wait_until("all is equal", || files(&a.root()) == files(&b.root()));
    // What was deleted on the one is deleted on the other, and nothing else.
    assert_eq!((a.folder().brought.deleted, b.folder().brought.deleted), (1, 0));
    assert!([&a, &b].iter().all(|machine| machine.folder().conflicts == Some(0)));
    // Whatever is read again at this moment comes to its end.
    wait_until("nothing is left there", || left_there(&cold).is_empty());
    [&mut a, &mut b].into_iter().for_each(Machine::stop);
}

#[test]
fn a_cold_root_that_is_not_mounted_is_told_and_an_agent_goes_on_when_it_is_back() {
    in_namespaces("disks::a_cold_root_that_is_not_mounted_is_told_and_an_agent_goes_on_when_it_is_back", |folder| {
        let back = |cold: &Path| run("mount", &["--bind", text(&folder.join("disk")), text(cold)]);
        let trouble = Trouble { told: "no marker", begin: &unmount, end: &back, readable: false };
        goes_on_without_its_cold_root(folder, &trouble);
    });
}

#[test]
fn a_cold_root_that_may_only_be_read_is_told_and_an_agent_goes_on_when_it_may_be_written() {
    in_namespaces("disks::a_cold_root_that_may_only_be_read_is_told_and_an_agent_goes_on_when_it_may_be_written", |folder| {
        let remount = |how: &'static str| move |cold: &Path| run("mount", &["-o", &format!("remount,bind,{how}"), text(cold)]);
        // Whoever writes there at this moment keeps it from being remounted.
        let read_only = |cold: &Path| {
            wait_until("the cold root can be remounted", || {
                Command::new("mount").args(["-o", "remount,bind,ro"]).arg(cold).output().unwrap().status.success()
            });
        };
        let trouble = Trouble { told: "is read-only", begin: &read_only, end: &remount("rw"), readable: true };
        goes_on_without_its_cold_root(folder, &trouble);
    });
}

#[test]
fn another_cold_root_that_is_mounted_in_its_place_is_told_and_left_alone() {
    in_namespaces("disks::another_cold_root_that_is_mounted_in_its_place_is_told_and_left_alone", |folder| {
        let other = Disk::new(folder, "other", "size=64m");
        let made = Command::new(env!("CARGO_BIN_EXE_driftless")).args(["archive", "init-cold"]).arg(&other.own).output();
        assert!(made.unwrap().status.success());
        let swap = |cold: &Path| {
            unmount(cold);
            other.mount(cold);
        };
        let back = |cold: &Path| {
            unmount(cold);
            run("mount", &["--bind", text(&folder.join("disk")), text(cold)]);
        };
        let trouble = Trouble { told: "another cold root", begin: &swap, end: &back, readable: false };
        goes_on_without_its_cold_root(folder, &trouble);
    });
}

#[test]
fn another_disk_that_is_mounted_in_its_place_is_told_and_left_alone() {
    in_namespaces("disks::another_disk_that_is_mounted_in_its_place_is_told_and_left_alone", |folder| {
        let other = Disk::new(folder, "other", "size=64m");
        fs::create_dir_all(other.own.join(day(0))).unwrap();
        fs::write(other.own.join(day(0)).join("somebody's"), "text").unwrap();
        let swap = |cold: &Path| {
            unmount(cold);
            other.mount(cold);
        };
        // Mounted over it, the right one is what is seen.
        let back = |cold: &Path| run("mount", &["--bind", text(&folder.join("disk")), text(cold)]);
        let trouble = Trouble { told: "no marker", begin: &swap, end: &back, readable: false };
        goes_on_without_its_cold_root(folder, &trouble);
    });
}

/// A day whose files fill so many bytes.
fn write_large(root: &Path, number: u64, bytes: usize) {
    write_day(root, number, 2);
    let path = root.join(day(number)).join("large");
    fs::write(&path, fixtures::bytes::noise(number, bytes)).unwrap();
    let time = fs::metadata(root.join(day(number)).join("part-0")).unwrap().modified().unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    File::open(root.join(day(number))).unwrap().set_modified(time).unwrap();
}

/// How many of the days are cold; none is there in part, and nothing of one that is hot lies in the cold root.
fn assert_whole(a: &Machine, cold: &Path, days: u64) -> u64 {
    wait_until("nothing is left of what did not fit", || left_there(cold).is_empty());
    for number in 0..days {
        assert_eq!(a.is_link(&day(number)), cold.join(day(number)).exists(), "{}", day(number));
    }
    (0..days).filter(|number| a.is_link(&day(*number))).count() as u64
}

#[test]
fn days_that_do_not_fit_into_the_cold_root_stay_hot_and_a_later_run_takes_them() {
    in_namespaces("disks::days_that_do_not_fit_into_the_cold_root_stay_hot_and_a_later_run_takes_them", |folder| {
        let (disk, cold) = (Disk::new(folder, "disk", "size=8m"), folder.join("cold"));
        disk.mount(&cold);
        let (mut a, mut b) = pair(&cold, "", |root| (0..5).for_each(|number| write_large(root, number, 2 << 20)));
        let whole = files(&a.root());
        let told = a.archive_now();
        let last = told.last.unwrap();
        assert_eq!((told.archived, last.moved, last.failed, last.error), (3, 3, 2, None));
        assert_eq!(assert_whole(&a, &cold, 5), 3);
        assert_eq!(files(&a.root()), whole);
        let folder_status = a.folder();
        let problem = folder_status.problems.listed.iter().find(|problem| problem.place.bytes() == day(3).as_bytes()).unwrap();
        assert!(problem.error.contains("does not fit into the cold root: it needs 2"), "{problem:?}");
        assert!(problem.error.contains("are free"), "{problem:?}");
        assert_eq!(folder_status.problems.total, 2);
        let shown = String::from_utf8(a.run(&["agent", "status"]).stdout).unwrap();
        assert!(shown.contains("does not fit into the cold root") && shown.contains("2 failed"), "{shown}");
        assert_eq!(a.metric("driftless_archive_last_run_well"), Some(0.0));

        // What is written elsewhere comes: to what is hot, and to days that are cold as far as there is room. (What came to the others now
        // would never be quiet by the clock of the test.)
        assert_hot_goes_on(&a, &b, "full");
        for number in 0..3 {
            fs::write(b.root().join(day(number)).join("late.txt"), format!("late {number}")).unwrap();
        }
        let has = |number: u64| fs::read_to_string(a.root().join(day(number)).join("late.txt")).is_ok();
        wait_until("late files come", || (0..3).all(has));
        let bytes = fixtures::bytes::noise(99, 3 << 20);
        fs::write(b.root().join(day(1)).join("larger"), &bytes).unwrap();
        wait_until("what has no room is told", || {
            let listed = a.folder().problems.listed;
            listed.iter().any(|problem| problem.place.bytes().ends_with(b"/larger") && problem.error.contains("no room"))
        });
        assert_hot_goes_on(&a, &b, "fuller");
        wait_until("nothing is left there", || left_there(&cold).is_empty());

        disk.resize("size=64m");
        wait_until("what had no room comes", || fs::read(a.root().join(day(1)).join("larger")).is_ok_and(|found| found == bytes));
        wait_until("the others follow", || a.archive_now().archived == 5);
        assert_eq!(assert_whole(&a, &cold, 5), 5);
        wait_until("nothing is told any more", || a.folder().problems.total == 0);
        wait_until("all is equal", || files(&a.root()) == files(&b.root()));
        assert_eq!(a.folder().brought.deleted + b.folder().brought.deleted, 0);
        [&mut a, &mut b].into_iter().for_each(Machine::stop);
    });
}

#[test]
fn a_cold_root_without_inodes_is_told_and_the_next_run_of_the_schedule_goes_on() {
    in_namespaces("disks::a_cold_root_without_inodes_is_told_and_the_next_run_of_the_schedule_goes_on", |folder| {
        let (disk, cold) = (Disk::new(folder, "disk", "size=64m,nr_inodes=100"), folder.join("cold"));
        disk.mount(&cold);
        let archive = "cold_schedule = \"10s\"";
        let (mut a, mut b) = pair(&cold, archive, |root| (0..4).for_each(|number| write_day(root, number, 20)));
        wait_until("a day does not fit", || a.folder().problems.listed.iter().any(|problem| problem.error.contains("inodes")));
        let moved = assert_whole(&a, &cold, 4);
        assert!((1..4).contains(&moved), "{moved} days moved");
        assert_hot_goes_on(&a, &b, "full");
        disk.resize("nr_inodes=10000");
        wait_until("the schedule goes on", || a.archive().archived == 4 && a.folder().problems.total == 0);
        assert_eq!(assert_whole(&a, &cold, 4), 4);
        wait_until("all is equal", || files(&a.root()) == files(&b.root()));
        [&mut a, &mut b].into_iter().for_each(Machine::stop);
    });
}

#[test]
fn a_cold_root_that_others_fill_while_a_day_is_copied_holds_nothing_of_that_day() {
    in_namespaces("disks::a_cold_root_that_others_fill_while_a_day_is_copied_holds_nothing_of_that_day", |folder| {
        let (disk, cold) = (Disk::new(folder, "disk", "size=96m"), folder.join("cold"));
        disk.mount(&cold);
        let (mut a, mut b) = pair(&cold, "", |root| (0..3).for_each(|number| write_large(root, number, 24 << 20)));
        let whole = files(&a.root());
        // Most of what the days do not need is full before, so that little is left to fill meanwhile.
        fs::write(cold.join("other"), vec![0x5a; 16 << 20]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                wait_until("a day is being copied", || !left_there(&cold).is_empty() || cold.join(day(0)).exists());
                let mut filler = File::create(cold.join("filler")).unwrap();
                let block = vec![0x5a; 1 << 20];
                // Up to the last byte.
                while filler.write(&block).is_ok_and(|written| written > 0) {}
            });
            a.archive_now();
        });
        let moved = assert_whole(&a, &cold, 3);
        assert!(moved < 3, "there was room for all");
        eprintln!("{moved} of 3 days had moved when the disk was full");
        assert_eq!(files(&a.root()), whole);
        assert_hot_goes_on(&a, &b, "full");
        fs::remove_file(cold.join("filler")).unwrap();
        assert_eq!(a.archive_now().archived, 3);
        assert_eq!(assert_whole(&a, &cold, 3), 3);
        assert_eq!(files(&a.root()), files(&b.root()));
        [&mut a, &mut b].into_iter().for_each(Machine::stop);
    });
}
