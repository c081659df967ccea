//! Cold roots that cannot be used: the run says why, touches nothing, the rest of the root goes on, and a later run goes on, too.

use crate::cold::{NOW, Server, on_another_disk};
use crate::disk::Disk;
use crate::lab::{Ran, driftless, run, untouched};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const DAYS: [&str; 3] = ["2026/03/01", "2026/03/02", "2026/03/03"];

/// Everything in a folder, the private ones included: kind, times and bytes of each path.
fn all(top: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut dirs) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let (path, meta) = (entry.as_ref().unwrap().path(), entry.unwrap().metadata().unwrap());
            let content = if meta.is_file() { blake3::hash(&fs::read(&path).unwrap()).to_string() } else { String::new() };
            let target = fs::read_link(&path).unwrap_or_default();
            found.insert(path.clone(), format!("{:?} {:?} {content} {target:?}", meta.file_type(), meta.modified().unwrap()));
            if meta.is_dir() {
                dirs.push(path);
            }
        }
    }
    found
}

/// A server with these days, synchronised, and a cold root that is mounted at `cold`.
fn days(server: &Server, kib: usize) {
    for (number, day) in DAYS.iter().enumerate() {
        for file in 0..4u64 {
            let bytes = fixtures::bytes::noise(number as u64 * 10 + file, kib * 1024 / 4);
            server.lab.write("a", format!("{day}/{file}"), bytes);
        }
    }
    server.lab.write("a", "hot", "never old");
    server.lab.sync(&[]).code(0);
}

fn init(cold: &Path) {
    run(driftless().args(["archive", "init-cold"]).arg(cold)).code(0);
}

/// The run ends with 3 and these words; neither the root nor anything of `others` was touched.
#[track_caller]
fn assert_stopped(server: &Server, cold: &Path, others: &[&Path], words: &[&str]) {
    let look = || (untouched(&server.hot()), server.seen(), others.iter().map(|other| all(other)).collect::<Vec<_>>());
    let before = look();
    for what in ["plan", "run"] {
        let ran = server.rule_to(what, cold, &[]);
        ran.code(3);
        assert!(words.iter().all(|word| ran.stderr().contains(word)), "{what}: {}", ran.stderr());
        assert!(before == look(), "{what}: something was touched");
    }
}

/// What is in the root goes on to be synchronised both ways.
#[track_caller]
fn assert_sync_goes_on(server: &Server, code: i32) {
    for (root, name) in [("a", "here"), ("b", "there")] {
        let file = format!("{name}-{}", fs::read_dir(server.lab.root(root)).unwrap().count());
        server.lab.write(root, &file, name);
        let ran = server.lab.sync(&[]);
        ran.code(code).without_conflicts();
        assert_eq!((ran.count("deleted"), ran.count("created")), (0, 1), "{}", ran.stdout());
        let other = if root == "a" { "b" } else { "a" };
        assert_eq!(server.lab.read(other, &file).as_deref(), Some(name));
    }
}

#[track_caller]
fn assert_all_archived(server: &Server, cold: &Path) {
    server.rule_to("run", cold, &["--keep-displaced", "0s"]).code(0);
    for (number, day) in DAYS.iter().enumerate() {
        assert!(server.is_link(day), "{day}");
        for file in 0..4u64 {
            let path = server.hot().join(format!("{day}/{file}"));
            let bytes = fs::read(&path).unwrap();
            assert!(bytes == fixtures::bytes::noise(number as u64 * 10 + file, bytes.len()), "{}", path.display());
        }
    }
    server.assert_no_event();
}

/// Results of a run by path.
fn results(ran: &Ran) -> BTreeMap<String, (String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let items = ran.lines().into_iter().filter(|line| line["event"] == "item");
    items.map(|line| (text(&line["path"]), (text(&line["result"]), text(&line["reason"])))).collect()
}

#[test]
fn a_full_cold_disk_takes_the_days_that_fit_and_the_others_later() {
    let mounts = tempfile::tempdir().unwrap();
    for inodes in [false, true] {
        let server = Server::new(false);
        let at = mounts.path().join(format!("cold-{inodes}"));
        // One day of 600 KiB fits, two do not; or one day's inodes.
        let disk = if inodes { Disk::with_inodes(at.clone(), 40) } else { Disk::new(at.clone(), "2m") };
        let Some(disk) = disk else { return };
        days(&server, if inodes { 16 } else { 600 });
        init(&at);
        let before = server.seen();
        let ran = server.rule_to("run", &at, &[]);
        ran.code(2);
        let results = results(&ran);
        let (moved, kept): (Vec<&str>, Vec<&str>) = DAYS.into_iter().partition(|day| results[*day].0 == "done");
        assert!(!moved.is_empty() && !kept.is_empty(), "{results:?}");
        for day in &kept {
            let (result, reason) = &results[*day];
            assert!(result == "failed" && reason.contains("does not fit into the cold root"), "{result}: {reason}");
            assert!(!server.is_link(day) && !at.join(day).exists());
        }
        assert!(before == crate::cold::seen(&server.hot(), &at), "what can be read is the same");
        assert_sync_goes_on(&server, 0);
        disk.remount(if inodes { "nr_inodes=4000" } else { "size=100m" });
        assert_all_archived(&server, &at);
    }
}

#[test]
fn a_cold_disk_that_fills_while_a_day_is_copied_leaves_nothing_of_it() {
    let mounts = tempfile::tempdir().unwrap();
    let (server, at) = (Server::new(false), mounts.path().join("cold"));
    let Some(disk) = Disk::new(at.clone(), "3m") else { return };
    days(&server, 16);
    init(&at);
    // Small files that are all hole take no room here, and become whole in a copy: more than could be known before.
    let holes = server.hot().join(DAYS[1]).join("holes");
    fs::create_dir(&holes).unwrap();
    for number in 0..100 {
        fs::File::create(holes.join(number.to_string())).unwrap().set_len(60_000).unwrap();
    }
    let ran = server.rule_to("run", &at, &["--keep-displaced", "0s"]);
    ran.code(2);
    let results = results(&ran);
    let (result, reason) = &results[DAYS[1]];
    assert!(result == "failed" && reason.contains("No space left"), "{result}: {reason}");
    assert!(!server.is_link(DAYS[1]) && !at.join(DAYS[1]).exists());
    assert!(server.is_link(DAYS[0]) && server.is_link(DAYS[2]));
    let free = rustix::fs::statvfs(&at).unwrap();
    assert!(free.f_bavail * free.f_frsize > 2 << 20, "the room that its copy took is free again");
    server.lab.sync(&[]).code(0);
    disk.remount("size=100m");
    assert_all_archived(&server, &at);
}

#[test]
fn a_cold_disk_that_is_read_only_stops_the_run_and_its_days_can_be_read() {
    let mounts = tempfile::tempdir().unwrap();
    let (server, at) = (Server::new(false), mounts.path().join("cold"));
    let Some(disk) = Disk::new(at.clone(), "50m") else { return };
    days(&server, 16);
    init(&at);
    server.rule_to("run", &at, &["--max-days", "1", "--keep-displaced", "0s"]).code(0);
    let archived = DAYS.iter().filter(|day| server.is_link(day)).count();
    assert_eq!(archived, 1);
    disk.remount("ro");
    let before = (untouched(&server.hot()), all(&at));
    let ran = run(server.command("run", &at, &["--max-days", "0"]).env("DRIFTLESS_NOW", NOW));
    ran.code(3);
    assert!(ran.stderr().contains("ead-only") || ran.stderr().contains("read only"), "{}", ran.stderr());
    assert!(before == (untouched(&server.hot()), all(&at)), "something was touched");
    assert_sync_goes_on(&server, 0);
    disk.remount("rw");
    run(server.command("run", &at, &["--max-days", "0", "--keep-displaced", "0s"]).env("DRIFTLESS_NOW", NOW)).code(0);
    assert_all_archived(&server, &at);
}

#[test]
fn a_cold_disk_that_is_not_mounted_or_another_one_stops_the_run_and_nothing_is_made_there() {
    let mounts = tempfile::tempdir().unwrap();
    let (server, at) = (Server::new(false), mounts.path().join("cold"));
    let image = mounts.path().join("image");
    let Some(disk) = Disk::ext4(&image, 64, at.clone()) else { return };
    days(&server, 16);
    init(&at);
    server.rule_to("run", &at, &["--keep-displaced", "0s", "--max-days", "1"]).code(0);
    let archived = *DAYS.iter().find(|day| server.is_link(day)).unwrap();
    disk.away();
    let stopped = |words: &[&str]| {
        let before = (untouched(&server.hot()), all(&at));
        for what in ["plan", "run"] {
            let ran = run(server.command(what, &at, &[]).env("DRIFTLESS_NOW", NOW));
            ran.code(3);
            assert!(words.iter().all(|word| ran.stderr().contains(word)), "{what}: {}", ran.stderr());
        }
        for (what, args) in [("restore", &[archived][..]), ("verify", &[])] {
            let ran = run(&mut server.on_hot(what, args));
            assert!(matches!(ran.0.status.code(), Some(2 | 3)), "{what}: {}{}", ran.stdout(), ran.stderr());
        }
        assert!(before == (untouched(&server.hot()), all(&at)), "something was touched");
        // The day is not there, which is told, and no deletion; the rest goes on.
        assert_sync_goes_on(&server, 2);
        assert!(server.lab.at("b", archived).join("0").is_file());
        assert!(before.1 == all(&at), "something was made below the mount point");
    };
    stopped(&["mounted"]);
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    // An empty disk, and the cold disk of somebody else.
    let other = Disk::new(at.clone(), "10m").unwrap();
    stopped(&["marker"]);
    init(&at);
    stopped(&["another cold root"]);
    other.away();
    let _disk = Disk::image(&image, at.clone()).unwrap();
    server.lab.sync(&[]).code(0);
    run(server.command("run", &at, &["--max-days", "0", "--keep-displaced", "0s"]).env("DRIFTLESS_NOW", NOW)).code(0);
    assert_all_archived(&server, &at);
}

#[test]
fn a_cold_root_that_is_the_root_in_it_around_it_or_an_alias_of_one_is_refused() {
    let server = Server::new(false);
    days(&server, 16);
    let inside = server.hot().join("cold");
    fs::create_dir(&inside).unwrap();
    server.lab.sync(&[]).code(0);
    let around = server.hot().parent().unwrap().to_owned();
    let refused = |cold: &Path, words: &[&str]| assert_stopped(&server, cold, &[], words);
    refused(&server.hot(), &["is the same directory as", "nothing was touched"]);
    refused(&inside, &["lies in", "nothing was touched"]);
    refused(&around, &["holds", "nothing was touched"]);
    // By a link, and by another way of writing it.
    let link = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&inside, link.path().join("link")).unwrap();
    refused(&link.path().join("link"), &["lies in"]);
    refused(&inside.join("../cold/."), &["lies in"]);
    for (folder, word) in [(server.hot(), "is the same directory as"), (inside.clone(), "lies in"), (around, "holds")] {
        let Some(alias) = Disk::bind(&folder, link.path().join(format!("alias-{word}"))) else { return };
        refused(&link.path().join(format!("alias-{word}")), &[word]);
        alias.away();
    }
    // None is made there, and with a marker it is no better.
    let made = run(driftless().args(["archive", "init-cold"]).arg(&inside));
    made.code(3);
    assert!(made.stderr().contains("is synchronised") && fs::read_dir(&inside).unwrap().next().is_none(), "{}", made.stderr());
    let marked = link.path().join("marked");
    fs::create_dir(&marked).unwrap();
    init(&marked);
    fs::rename(&marked, &inside).unwrap();
    refused(&inside, &["lies in"]);
    // The root by an alias, with a cold root in it.
    let alias = Disk::bind(&server.hot(), link.path().join("hot")).unwrap();
    let before = untouched(&server.hot());
    let ran = run(driftless().args(["archive", "run", "--hot"]).arg(link.path().join("hot")).arg("--cold").arg(&inside));
    ran.code(3);
    assert!(ran.stderr().contains("lies in"), "{}", ran.stderr());
    assert!(before == untouched(&server.hot()));
    alias.away();
    // Beside it is right.
    let cold = on_another_disk();
    init(cold.path());
    assert_all_archived(&server, cold.path());
}
