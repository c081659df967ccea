//! Watching real directories. A mirror looks where it is told to, as the agent would, and has to hold in the end what the disk holds.
//!
//! What needs mounts or limits of its own runs again as a child in namespaces of its own. Where the system forbids them, the test
//! says so and proves nothing.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests make, change and look at files as users do, and say why they fail"
)]
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use fixtures::namespaces::{in_namespaces, mount_tmpfs, run};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use sync_core::io::fs::Root;
use sync_core::io::watch::{Limit, Options, Watch, WatchError};
use sync_core::path::RelPath;
use sync_core::quiet::{Change, Why};

/// Whatever is waited for comes within this time, on any machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn touched(text: &str) -> Change {
    Change::Touched(path(text))
}

fn tree(text: &str) -> Change {
    Change::Tree(path(text))
}

/// What is at a path and below it: directories, and files and links with their content.
fn disk(root: &Path, below: &RelPath) -> BTreeMap<RelPath, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let top = if below.is_root() { root.to_owned() } else { root.join(below.to_string()) };
    for entry in
        walkdir::WalkDir::new(top).follow_root_links(false).into_iter().filter_entry(|entry| entry.file_name() != ".driftless")
    {
        // What goes while it is looked at will be told.
        let Ok(entry) = entry else { continue };
        let kind = entry.file_type();
        let content = match () {
            () if kind.is_dir() => None,
            () if kind.is_symlink() => fs::read_link(entry.path()).ok().map(|to| to.into_os_string().into_encoded_bytes()),
            () => Some(fs::read(entry.path()).unwrap_or_default()),
        };
        let at = entry.path().strip_prefix(root).unwrap().to_str().unwrap();
        found.insert(path(at), content);
    }
    found
}

struct Mirror {
    folder: PathBuf,
    watch: Watch,
    seen: BTreeMap<RelPath, Option<Vec<u8>>>,
    /// What was told since it was asked last.
    told: BTreeSet<Change>,
    ends: u32,
}

impl Mirror {
    fn new(folder: &Path, options: Options) -> Mirror {
        let watch = Watch::begin(&Root::open(folder).unwrap(), options, None).unwrap();
        Mirror { folder: folder.to_owned(), watch, seen: disk(folder, &RelPath::root()), told: BTreeSet::new(), ends: 0 }
    }

    fn look(&mut self, change: &Change) {
        let at = match change {
            Change::Touched(path) | Change::Tree(path) => path.clone(),
            Change::Everything { .. } => RelPath::root(),
            Change::RootLost => panic!("the root is there"),
        };
        self.seen.retain(|path, _| !at.contains(path));
        self.seen.extend(disk(&self.folder, &at));
    }

    /// Waits once, and looks where something was told.
    fn step(&mut self) {
        for change in self.watch.wait(Duration::from_millis(50)).unwrap() {
            self.look(&change);
            self.told.insert(change);
        }
    }

    /// Waits until all that happened before the call was told. The kernel tells in order, so a last file of our own is the end.
    fn settle(&mut self) -> BTreeSet<Change> {
        self.ends += 1;
        let name = format!("end-{}", self.ends);
        fs::write(self.folder.join(&name), "").unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !self.seen.contains_key(&path(&name)) {
            assert!(Instant::now() < deadline, "{name} is not told; told: {:?}", self.told);
            self.step();
        }
        let ends = |change: &Change| matches!(change, Change::Touched(path) if path.to_string().starts_with("end-"));
        let told = std::mem::take(&mut self.told);
        // A path may be told twice, if its events came in two batches.
        let within = |change: &Change| matches!(change, Change::Touched(path) if told.contains(&Change::Tree(path.clone())));
        told.iter().filter(|change| !ends(change) && !within(change)).cloned().collect()
    }

    fn agrees(&self) {
        assert_eq!(self.seen, disk(&self.folder, &RelPath::root()));
    }
}

#[test]
fn what_happens_to_entries_is_told_by_their_paths() {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
    for dir in ["root/d/deep", "root/e", "outside/tree/x"] {
        fs::create_dir_all(folder.path().join(dir)).unwrap();
    }
    fs::write(outside.join("tree/x/f"), "f").unwrap();
    let mut mirror = Mirror::new(&root, Options::standard());
    assert_eq!(mirror.watch.watched(), 4);
    let at = |text: &str| root.join(text);
    let mut happens = |what: &str, act: &dyn Fn(), told: &[Change]| {
        act();
        assert_eq!(mirror.settle().into_iter().collect::<Vec<_>>(), told, "{what}");
        mirror.agrees();
    };
    happens("nothing", &|| (), &[]);
    happens("created", &|| fs::write(at("f"), "1").unwrap(), &[touched("f")]);
    happens("written", &|| fs::write(at("d/deep/f"), "1").unwrap(), &[touched("d/deep/f")]);
    let append = || fs::OpenOptions::new().append(true).open(at("f")).unwrap().write_all(b"2").unwrap();
    happens("appended", &append, &[touched("f")]);
    happens("read", &|| assert_eq!(fs::read(at("f")).unwrap(), b"12"), &[]);
    happens("mode", &|| fs::set_permissions(at("f"), PermissionsExt::from_mode(0o600)).unwrap(), &[touched("f")]);
    happens("mode of a directory", &|| fs::set_permissions(at("d"), PermissionsExt::from_mode(0o700)).unwrap(), &[touched("d")]);
    happens("renamed within", &|| fs::rename(at("f"), at("g")).unwrap(), &[touched("f"), touched("g")]);
    happens("renamed between", &|| fs::rename(at("g"), at("d/deep/g")).unwrap(), &[touched("d/deep/g"), touched("g")]);
    happens("hard link", &|| fs::hard_link(at("d/deep/g"), at("e/h")).unwrap(), &[touched("e/h")]);
    happens("link", &|| symlink("../d", at("e/l")).unwrap(), &[touched("e/l")]);
    happens("written behind a link", &|| fs::write(at("e/l/n"), "n").unwrap(), &[touched("d/n")]);
    happens("removed", &|| fs::remove_file(at("d/n")).unwrap(), &[touched("d/n")]);
    happens("directory", &|| fs::create_dir(at("new")).unwrap(), &[tree("new")]);
    happens("written in it", &|| fs::write(at("new/f"), "1").unwrap(), &[touched("new/f")]);
    happens("directory renamed", &|| fs::rename(at("d"), at("e/d")).unwrap(), &[tree("d"), tree("e/d")]);
    happens("written in it", &|| fs::write(at("e/d/deep/f"), "2").unwrap(), &[touched("e/d/deep/f")]);
    happens("moved in", &|| fs::rename(outside.join("tree"), at("tree")).unwrap(), &[tree("tree")]);
    happens("written in it", &|| fs::write(at("tree/x/f"), "2").unwrap(), &[touched("tree/x/f")]);
    happens("moved out", &|| fs::rename(at("tree"), outside.join("tree")).unwrap(), &[tree("tree")]);
    happens("written outside", &|| fs::write(outside.join("tree/x/f"), "3").unwrap(), &[]);
    happens("made again", &|| fs::create_dir_all(at("tree/x")).unwrap(), &[tree("tree")]);
    happens("written in it", &|| fs::write(at("tree/x/f"), "4").unwrap(), &[touched("tree/x/f")]);
    happens("emptied", &|| fs::remove_file(at("new/f")).unwrap(), &[touched("new/f")]);
    happens("directory removed", &|| fs::remove_dir(at("new")).unwrap(), &[tree("new")]);
    let exchange = || {
        let exchange = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(rustix::fs::CWD, at("tree"), rustix::fs::CWD, at("e"), exchange).unwrap();
    };
    happens("exchanged", &exchange, &[tree("e"), tree("tree")]);
    happens("written in one", &|| fs::write(at("tree/d/deep/f"), "5").unwrap(), &[touched("tree/d/deep/f")]);
    happens("written in the other", &|| fs::write(at("e/x/f"), "5").unwrap(), &[touched("e/x/f")]);
    happens("staging", &|| fs::create_dir_all(at(".driftless/stage")).unwrap(), &[]);
    assert_eq!(mirror.watch.watched(), 6);
    assert_eq!(mirror.watch.unwatched().count(), 0);
    assert!(mirror.watch.shortage().is_none());
}

#[test]
fn trees_made_in_a_hurry_by_several_threads_are_told_completely() {
    let folder = tempfile::tempdir().unwrap();
    let mut mirror = Mirror::new(folder.path(), Options::standard());
    for round in 0..200 {
        thread::scope(|scope| {
            let makers: Vec<_> = (0..4)
                .map(|maker| {
                    let top = folder.path().join(format!("r{round}"));
                    scope.spawn(move || {
                        // The upper directories are made by whoever comes first.
                        let dir = top.join(format!("a/b{}/c/d{maker}", maker % 2));
                        fs::create_dir_all(&dir).unwrap();
                        for place in [&dir, dir.parent().unwrap(), &top] {
                            fs::write(place.join(format!("f{maker}")), format!("{round}")).unwrap();
                        }
                    })
                })
                .collect();
            while makers.iter().any(|maker| !maker.is_finished()) {
                mirror.step();
            }
        });
        if round % 3 == 2 {
            fs::remove_dir_all(folder.path().join(format!("r{round}"))).unwrap();
        }
        let told = mirror.settle();
        assert!(!told.iter().any(|change| matches!(change, Change::Everything { .. })), "{told:?}");
    }
    mirror.agrees();
    let directories = mirror.seen.values().filter(|content| content.is_none()).count();
    assert_eq!(mirror.watch.watched(), directories as u64);
}

/// A reproducible sequence of numbers (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Makes, fills, moves and removes directories without regard for anybody else; whatever fails, fails.
fn rampage(root: &Path, outside: &Path, seed: u64, steps: u32) {
    let mut dice = Dice(seed);
    let place = |dice: &mut Dice| {
        let mut at = if dice.below(8) == 0 { outside.to_owned() } else { root.to_owned() };
        for _ in 0..=dice.below(3) {
            at.push(["a", "b", "c", "d"][dice.below(4) as usize]);
        }
        at
    };
    for step in 0..steps {
        let at = place(&mut dice);
        let _ = match dice.below(8) {
            0..3 => fs::create_dir_all(&at),
            3..6 => fs::create_dir_all(&at).and_then(|()| fs::write(at.join("f"), format!("{seed} {step}"))),
            6 => fs::rename(&at, place(&mut dice)),
            _ => fs::remove_dir_all(&at),
        };
    }
}

#[test]
fn directories_that_are_made_moved_and_removed_at_random_are_followed() {
    for round in 1..=40 {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        let mut mirror = Mirror::new(&root, Options::standard());
        thread::scope(|scope| {
            let (root, outside) = (&root, &outside);
            let threads: Vec<_> =
                (0..2).map(|at| scope.spawn(move || rampage(root, outside, round * 1_000 + at + 1, 300))).collect();
            while threads.iter().any(|thread| !thread.is_finished()) {
                mirror.step();
            }
        });
        mirror.settle();
        assert_eq!(mirror.seen, disk(&root, &RelPath::root()), "round {round}");
        // Whatever is there is watched: a change in each directory is told.
        let directories: Vec<_> = mirror.seen.iter().filter(|(_, content)| content.is_none()).map(|(at, _)| at.clone()).collect();
        for at in &directories {
            fs::write(root.join(at.to_string()).join("last"), "last").unwrap();
        }
        mirror.settle();
        assert_eq!(mirror.seen, disk(&root, &RelPath::root()), "round {round}, afterwards");
        assert_eq!(mirror.watch.watched(), directories.len() as u64, "round {round}");
    }
}

#[test]
fn more_changes_than_may_wait_are_everything_and_then_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut mirror = Mirror::new(folder.path(), Options { queued: 16, ..Options::standard() });
    fs::create_dir_all(folder.path().join("new/below")).unwrap();
    mirror.settle();
    for at in 0..200 {
        fs::write(folder.path().join(format!("new/below/{at}")), "").unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while !mirror.told.contains(&Change::Everything { why: Why::OwnQueue }) {
        assert!(Instant::now() < deadline);
        mirror.step();
    }
    mirror.settle();
    mirror.agrees();
    fs::write(folder.path().join("new/below/last"), "").unwrap();
    assert_eq!(mirror.settle(), BTreeSet::from([touched("new/below/last")]));
    mirror.watch.renew();
    assert!(mirror.settle().contains(&Change::Everything { why: Why::Renewed }));
    fs::write(folder.path().join("new/below/last"), "again").unwrap();
    assert_eq!(mirror.settle(), BTreeSet::from([touched("new/below/last")]));
    assert_eq!(mirror.watch.watched(), 3);
}

#[test]
fn the_newest_days_get_the_watches_there_are_and_a_new_day_takes_that_of_the_oldest() {
    let folder = tempfile::tempdir().unwrap();
    let at = |text: &str| folder.path().join(text);
    for day in ["2024/12/30", "2025/01/01", "2025/01/02", "2025/01/03/thumbs", "2023/05/05/x/y/z"] {
        fs::create_dir_all(at("up").join(day)).unwrap();
    }
    // The root, up, 2025, 2025/01, the three days of it, and what is in the last one.
    let options = Options { watches: Some(8), ..Options::standard() };
    let mut mirror = Mirror::new(folder.path(), options);
    let unwatched = |mirror: &Mirror| mirror.watch.unwatched().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(mirror.watch.watched(), 8);
    assert_eq!(unwatched(&mirror), ["up/2023", "up/2024"]);
    let shortage = mirror.watch.shortage().unwrap();
    assert_eq!((shortage.watched, shortage.missing, shortage.limit), (8, 9, Limit::Asked(8)));
    fs::create_dir(at("up/2025/01/04")).unwrap();
    assert_eq!(mirror.settle(), BTreeSet::from([tree("up/2025/01/04")]));
    assert_eq!(unwatched(&mirror), ["up/2023", "up/2024", "up/2025/01/01"]);
    fs::write(at("up/2025/01/04/f"), "").unwrap();
    fs::write(at("up/2025/01/01/f"), "").unwrap();
    assert_eq!(mirror.settle(), BTreeSet::from([touched("up/2025/01/04/f")]), "nobody watches the oldest");
    fs::create_dir_all(at("up/2022/01/01")).unwrap();
    mirror.settle();
    assert_eq!(unwatched(&mirror), ["up/2022", "up/2023", "up/2024", "up/2025/01/01"], "an old day takes none");
    assert_eq!(mirror.watch.shortage().unwrap().missing, 13);
    // What has no watch goes as well.
    for old in ["up/2022", "up/2023", "up/2024", "up/2025/01/01"] {
        fs::rename(at(old), at("gone")).unwrap();
        fs::remove_dir_all(at("gone")).unwrap();
    }
    mirror.settle();
    assert_eq!((unwatched(&mirror), mirror.watch.shortage()), (vec![], None));
    mirror.agrees();
}

#[test]
fn nothing_is_told_of_what_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let rules = sync_core::ignore::Rules::parse("*.tmp\ncache/\n").unwrap();
    fs::create_dir_all(folder.path().join("cache/x")).unwrap();
    fs::create_dir(folder.path().join(".driftless")).unwrap();
    let ignored = Box::new(move |path: &RelPath, directory: bool| rules.ignores(path, directory));
    let watch = Watch::begin(&Root::open(folder.path()).unwrap(), Options::standard(), Some(ignored)).unwrap();
    let mut mirror = Mirror { folder: folder.path().to_owned(), watch, seen: BTreeMap::new(), told: BTreeSet::new(), ends: 0 };
    assert_eq!(mirror.watch.watched(), 1);
    for dir in ["d/cache/y", "cache/z"] {
        fs::create_dir_all(folder.path().join(dir)).unwrap();
    }
    for file in ["a.tmp", "cache/f", "d/cache/f", ".driftless/f", "d/f"] {
        fs::write(folder.path().join(file), "").unwrap();
    }
    let told = mirror.settle();
    assert!(told.is_subset(&BTreeSet::from([tree("d"), touched("d/f")])) && told.contains(&tree("d")), "{told:?}");
    assert_eq!(mirror.watch.watched(), 2);
}

#[test]
fn a_root_that_goes_is_lost_and_nothing_is_told_of_what_was_in_it() {
    for way in ["removed", "renamed", "replaced"] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "").unwrap();
        let opened = Root::open(&root).unwrap();
        let mut watch = Watch::begin(&opened, Options::standard(), None).unwrap();
        match way {
            "removed" => fs::remove_dir_all(&root).unwrap(),
            "renamed" => fs::rename(&root, folder.path().join("other")).unwrap(),
            _ => {
                fs::rename(&root, folder.path().join("other")).unwrap();
                fs::create_dir(&root).unwrap();
            }
        }
        let deadline = Instant::now() + PATIENCE;
        let last = loop {
            assert!(Instant::now() < deadline, "{way}");
            // What was removed before the root was is true.
            match watch.wait(Duration::from_millis(100)).unwrap().pop() {
                Some(Change::Touched(_) | Change::Tree(_)) | None => {}
                other => break other,
            }
        };
        assert_eq!(last, Some(Change::RootLost), "{way}");
        assert!(matches!(watch.wait(Duration::ZERO), Err(WatchError::Over)));
        let again = Watch::begin(&opened, Options::standard(), None);
        assert!(matches!(again, Err(WatchError::RootChanged { .. } | WatchError::Root(_))), "{way}: {again:?}");
    }
}

#[test]
fn whoever_waits_is_woken_by_another_thread() {
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Watch::begin(&Root::open(folder.path()).unwrap(), Options::standard(), None).unwrap();
    let waker = watch.waker();
    let other = thread::spawn(move || waker.wake());
    let begun = Instant::now();
    assert_eq!(watch.wait(PATIENCE * 10).unwrap(), []);
    assert!(begun.elapsed() < PATIENCE * 10, "it was woken, and did not wait for its time to end");
    other.join().unwrap();
}

impl Mirror {
    /// Waits until this was told; looks as it goes.
    fn until(&mut self, change: &Change) {
        let deadline = Instant::now() + PATIENCE;
        while !self.told.contains(change) {
            assert!(Instant::now() < deadline, "{change:?} is not told; told: {:?}", self.told);
            self.step();
        }
        self.told.clear();
    }
}

#[test]
fn a_file_system_mounted_below_the_root_is_watched_and_its_coming_and_going_told() {
    in_namespaces("a_file_system_mounted_below_the_root_is_watched_and_its_coming_and_going_told", |folder| {
        let mnt = folder.join("a/my mnt");
        fs::create_dir_all(mnt.join("hidden")).unwrap();
        let mut mirror = Mirror::new(folder, Options::standard());
        mount_tmpfs(&mnt);
        mirror.until(&tree("a/my mnt"));
        mirror.agrees();
        fs::create_dir_all(mnt.join("d/e")).unwrap();
        mirror.settle();
        fs::write(mnt.join("d/e/f"), "f").unwrap();
        assert_eq!(mirror.settle(), BTreeSet::from([touched("a/my mnt/d/e/f")]));
        // Another one over it.
        mount_tmpfs(&mnt);
        mirror.until(&tree("a/my mnt"));
        mirror.agrees();
        run("umount", &[mnt.to_str().unwrap()]);
        mirror.until(&tree("a/my mnt"));
        mirror.agrees();
        fs::write(mnt.join("d/e/f"), "2").unwrap();
        assert_eq!(mirror.settle(), BTreeSet::from([touched("a/my mnt/d/e/f")]));
        run("umount", &[mnt.to_str().unwrap()]);
        mirror.until(&tree("a/my mnt"));
        mirror.agrees();
        fs::write(mnt.join("hidden/f"), "f").unwrap();
        assert_eq!(mirror.settle(), BTreeSet::from([touched("a/my mnt/hidden/f")]));
        assert_eq!(mirror.watch.watched(), 4);
    });
}

#[test]
fn a_directory_that_stands_at_two_paths_is_watched_at_one_and_polled_at_the_other() {
    in_namespaces("a_directory_that_stands_at_two_paths_is_watched_at_one_and_polled_at_the_other", |folder| {
        for dir in ["a/d", "b"] {
            fs::create_dir_all(folder.join(dir)).unwrap();
        }
        let text = |dir: &str| folder.join(dir).to_str().unwrap().to_owned();
        run("mount", &["--bind", &text("a"), &text("b")]);
        let watch = Watch::begin(&Root::open(folder).unwrap(), Options::standard(), None).unwrap();
        assert_eq!((watch.watched(), watch.unwatched().count()), (3, 1));
        assert!(watch.shortage().is_none());
    });
}

#[test]
fn a_root_that_is_unmounted_or_mounted_over_is_lost() {
    in_namespaces("a_root_that_is_unmounted_or_mounted_over_is_lost", |folder| {
        for way in ["unmounted", "mounted over"] {
            let root = folder.join(way);
            fs::create_dir(&root).unwrap();
            mount_tmpfs(&root);
            fs::create_dir(root.join("d")).unwrap();
            let mut watch = Watch::begin(&Root::open(&root).unwrap(), Options::standard(), None).unwrap();
            match way {
                "unmounted" => run("umount", &["--lazy", root.to_str().unwrap()]),
                _ => mount_tmpfs(&root),
            }
            let deadline = Instant::now() + PATIENCE;
            let told = loop {
                assert!(Instant::now() < deadline, "{way}");
                let told = watch.wait(Duration::from_millis(100)).unwrap();
                if !told.is_empty() {
                    break told;
                }
            };
            assert_eq!(told, [Change::RootLost], "{way}");
        }
    });
}

#[test]
fn with_the_limits_of_the_system_it_goes_on_with_what_there_is_and_says_what_to_set() {
    in_namespaces("with_the_limits_of_the_system_it_goes_on_with_what_there_is_and_says_what_to_set", |folder| {
        let limit = |name: &str, value: &str| fs::write(format!("/proc/sys/user/max_inotify_{name}"), value);
        if limit("watches", "6").is_err() {
            eprintln!("the limits of a namespace cannot be set here: nothing is proved");
            return;
        }
        for day in ["2025/01/01", "2025/01/02", "2024/01/01"] {
            fs::create_dir_all(folder.join(day)).unwrap();
        }
        // The root, 2025, its month and days, and 2024.
        let mut mirror = Mirror::new(folder, Options::standard());
        assert_eq!(mirror.watch.watched(), 6);
        assert_eq!(mirror.watch.unwatched().cloned().collect::<Vec<_>>(), [path("2024/01")]);
        let shortage = mirror.watch.shortage().unwrap();
        assert_eq!((shortage.watched, shortage.missing, shortage.limit), (6, 2, Limit::System(Some(6))));
        assert!(shortage.to_string().contains("sysctl fs.inotify.max_user_watches=65536"), "{shortage}");
        fs::create_dir(folder.join("2025/01/03")).unwrap();
        fs::write(folder.join("2025/01/02/f"), "").unwrap();
        assert_eq!(mirror.settle(), BTreeSet::from([tree("2025/01/03"), touched("2025/01/02/f")]));
        fs::write(folder.join("2025/01/03/f"), "").unwrap();
        assert_eq!(mirror.settle(), BTreeSet::from([touched("2025/01/03/f")]), "it has the watch of 2024");
        mirror.watch.renew();
        mirror.settle();
        assert_eq!(mirror.watch.watched(), 6, "watches are given back before they are set again");
        limit("watches", "60").unwrap();
        mirror.watch.renew();
        mirror.settle();
        assert_eq!((mirror.watch.watched(), mirror.watch.shortage()), (9, None));
        limit("instances", "1").unwrap();
        let none = Watch::begin(&Root::open(folder).unwrap(), Options::standard(), None).unwrap_err();
        assert!(matches!(none, WatchError::Instances { limit: Some(1) }), "{none}");
        assert!(none.to_string().contains("sysctl fs.inotify.max_user_instances="), "{none}");
    });
}
