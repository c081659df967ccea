//! `driftless archive`, on one server without agent or peers.

use crate::pair::{driftless, lines, stderr, stdout};
use crate::repair::Disk;
use assert_cmd::assert::Assert;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const NOW: &str = "2026-03-20T12:00:00Z";

/// A hot root with days, and a cold one, on another file system where there is one.
struct Server {
    hot: TempDir,
    cold: TempDir,
}

impl Server {
    fn new(days: &[&str]) -> Server {
        let memory = Path::new("/dev/shm");
        let cold = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let server = Server { hot: tempfile::tempdir().unwrap(), cold: cold.unwrap() };
        for day in days {
            for name in ["a.txt", "sub/b.txt"] {
                let path = server.hot.path().join(day).join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, format!("{day} {name}")).unwrap();
            }
            server.touch(day, "2026-03-05T12:00:00");
        }
        server
    }

    /// Gives everything in a day a time.
    fn touch(&self, day: &str, time: &str) {
        let script = format!("find {} -exec touch -d {time}Z {{}} +", self.hot.path().join(day).display());
        assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }

    fn run(&self, args: &[&str]) -> Assert {
        self.at(NOW, args)
    }

    fn at(&self, now: &str, args: &[&str]) -> Assert {
        driftless().env("DRIFTLESS_NOW", now).arg("archive").args(args).assert()
    }

    fn hot(&self) -> String {
        self.hot.path().display().to_string()
    }

    fn cold(&self) -> String {
        self.cold.path().display().to_string()
    }

    fn init(&self) {
        self.run(&["init-cold", &self.cold()]).code(0);
    }

    /// With the rule of all tests.
    fn rule(&self, what: &str, more: &[&str]) -> Assert {
        let (hot, cold) = (self.hot(), self.cold());
        let args = [what, "--hot", &hot, "--cold", &cold, "--timezone", "UTC"];
        self.run(&[&args, more].concat())
    }

    fn is_link(&self, day: &str) -> bool {
        self.hot.path().join(day).symlink_metadata().unwrap().is_symlink()
    }

    fn in_cold(&self, path: &str) -> PathBuf {
        self.cold.path().join(path)
    }
}

#[test]
fn old_days_move_and_their_paths_stay() {
    let server = Server::new(&["2026/03/05", "2026/03/06", "2026/03/19", "2026/02/30"]);
    server.init();
    let plan = lines(&server.rule("plan", &["--json"]).code(0));
    let result = |path: &str| plan.iter().find(|line| line["path"] == path).map(|line| line["result"].clone());
    assert_eq!((result("2026/03/05"), result("2026/03/19")), (Some("planned".into()), Some("skipped".into())));
    assert_eq!(result("2026/02/30"), None, "no real date");
    assert_eq!(plan.last().unwrap()["moved"], 2);
    assert!(!server.is_link("2026/03/05"), "a plan moves nothing");
    let told = stdout(&server.rule("run", &[]).code(0));
    assert!(told.contains("2 days archived"), "{told}");
    for day in ["2026/03/05", "2026/03/06"] {
        assert!(server.is_link(day));
        assert_eq!(fs::read_to_string(server.hot.path().join(day).join("sub/b.txt")).unwrap(), format!("{day} sub/b.txt"));
        assert!(server.in_cold(day).join("a.txt").is_file());
    }
    assert!(!server.is_link("2026/03/19") && !server.is_link("2026/02/30"));
    // The rule is remembered.
    let again = lines(&server.run(&["run", "--hot", &server.hot(), "--json"]).code(0));
    assert_eq!((&again.last().unwrap()["moved"], &again.last().unwrap()["in_sync"]), (&0.into(), &true.into()));
    let status = lines(&server.run(&["status", &server.hot(), "--json"]).code(0));
    assert_eq!(status.last().unwrap()["archived"], 2);
    assert_eq!(status.last().unwrap()["oldest_unarchived"], "2026/03/19");
    server.run(&["restore", &server.hot(), "2026/03/05"]).code(0);
    assert!(!server.is_link("2026/03/05") && server.is_link("2026/03/06"));
    assert_eq!(fs::read_to_string(server.hot.path().join("2026/03/05/a.txt")).unwrap(), "2026/03/05 a.txt");
}

#[test]
fn a_cold_root_that_cannot_be_one_stops_the_run_and_nothing_is_made() {
    let server = Server::new(&["2026/03/05"]);
    let told = stderr(&server.rule("run", &[]).code(3));
    assert!(told.contains("no marker"), "{told}");
    assert_eq!(fs::read_dir(server.cold.path()).unwrap().count(), 0);
    assert!(!server.hot.path().join(".driftless").exists());
    let inside = server.hot.path().join("cold");
    fs::create_dir(&inside).unwrap();
    for cold in [server.hot(), inside.display().to_string()] {
        let told = stderr(&server.run(&["run", "--hot", &server.hot(), "--cold", &cold]).code(3));
        assert!(told.contains("nothing was touched"), "{told}");
    }
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
    // The disk goes away after it was in use.
    server.init();
    server.rule("run", &[]).code(0);
    let away = server.cold.path().with_extension("away");
    fs::rename(server.cold.path(), &away).unwrap();
    fs::create_dir(server.cold.path()).unwrap();
    server.run(&["run", "--hot", &server.hot()]).code(3);
    assert_eq!(fs::read_dir(server.cold.path()).unwrap().count(), 0);
    fs::remove_dir(server.cold.path()).unwrap();
    fs::rename(&away, server.cold.path()).unwrap();
    server.run(&["run", "--hot", &server.hot()]).code(0);
}

#[test]
fn a_rule_that_makes_no_sense_is_a_mistake_of_usage() {
    let server = Server::new(&["2026/03/05"]);
    server.init();
    for (args, told) in [
        (["--older-than", "1h"], "at least a day"),
        (["--layout", "%d/%m"], "%Y/%m/%d"),
        (["--timezone", "Mars/Crater"], "no time zone"),
        (["--link", "soft"], "prefix="),
        (["--outside-links", "keep"], "rewrite"),
    ] {
        let answer = server.run(&[&["run", "--hot", &server.hot(), "--cold", &server.cold()][..], &args].concat()).code(64);
        assert!(stderr(&answer).contains(told), "{args:?}: {}", stderr(&answer));
    }
    driftless()
        .env("DRIFTLESS_NOW", "today")
        .args(["archive", "plan", "--hot", &server.hot(), "--cold", &server.cold()])
        .assert()
        .code(64);
    assert!(!server.is_link("2026/03/05"));
}

#[test]
fn what_keeps_a_day_is_told_and_the_others_move() {
    let server = Server::new(&["2026/03/05", "2026/03/06", "2026/03/07"]);
    server.init();
    std::os::unix::fs::symlink("../../../outside", server.hot.path().join("2026/03/06/link")).unwrap();
    server.touch("2026/03/06", "2026-03-06T12:00:00");
    server.touch("2026/03/07", "2026-03-20T11:00:00");
    let run = lines(&server.rule("run", &["--json"]).code(1));
    let reason =
        |path: &str| run.iter().find(|line| line["path"] == path).unwrap()["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason("2026/03/06").contains("leads out of the day"), "{}", reason("2026/03/06"));
    assert!(reason("2026/03/07").contains("not quiet until 2026-03-21T11:00:00Z"), "{}", reason("2026/03/07"));
    assert!(server.is_link("2026/03/05") && !server.is_link("2026/03/06") && !server.is_link("2026/03/07"));
}

#[test]
fn a_clock_that_went_back_stops_the_run() {
    let server = Server::new(&["2026/03/05"]);
    server.init();
    server.rule("run", &[]).code(0);
    let told = stderr(&server.at("2026-03-20T10:00:00Z", &["run", "--hot", &server.hot()]).code(3));
    assert!(told.contains("behind the last archiving run") && told.contains("--accept-clock"), "{told}");
    server.at("2026-03-20T10:00:00Z", &["run", "--hot", &server.hot(), "--accept-clock"]).code(0);
    server.at("2026-03-25T10:00:00Z", &["run", "--hot", &server.hot()]).code(0);
}

#[test]
fn a_flipped_byte_is_found_and_repaired_from_another_copy() {
    let server = Server::new(&["2026/03/05"]);
    server.init();
    let copy = tempfile::tempdir().unwrap();
    let whole = copy.path().join("2026/03/05/sub/b.txt");
    fs::create_dir_all(whole.parent().unwrap()).unwrap();
    fs::copy(server.hot.path().join("2026/03/05/sub/b.txt"), &whole).unwrap();
    server.rule("run", &[]).code(0);
    server.run(&["verify", &server.hot()]).code(0);
    let damaged = server.in_cold("2026/03/05/sub/b.txt");
    fixtures::damage::flip(server.cold.path(), &damaged, 0).unwrap();
    let told = stdout(&server.run(&["verify", &server.hot()]).code(2));
    assert!(told.contains("2026/03/05/sub/b.txt is damaged"), "{told}");
    server.run(&["verify", &server.hot(), "--repair-from", &copy.path().display().to_string()]).code(0);
    assert_eq!(fs::read_to_string(&damaged).unwrap(), "2026/03/05 sub/b.txt");
    server.run(&["verify", &server.hot()]).code(0);
}

#[test]
fn an_edit_whose_time_was_put_back_is_no_damage() {
    let server = Server::new(&["2026/03/05"]);
    server.init();
    let copy = tempfile::tempdir().unwrap();
    let old = copy.path().join("2026/03/05/sub/b.txt");
    fs::create_dir_all(old.parent().unwrap()).unwrap();
    fs::copy(server.hot.path().join("2026/03/05/sub/b.txt"), &old).unwrap();
    server.rule("run", &[]).code(0);
    server.run(&["verify", &server.hot()]).code(0);
    let edited = server.in_cold("2026/03/05/sub/b.txt");
    let time = fs::metadata(&edited).unwrap().modified().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&edited).unwrap();
    file.write_all_at(b"X", 0).unwrap();
    file.set_modified(time).unwrap();
    server.run(&["verify", &server.hot(), "--repair-from", &copy.path().display().to_string()]).code(0);
    assert_eq!(fs::read_to_string(&edited).unwrap(), "X026/03/05 sub/b.txt");
}

/// The clock of the last run, so many seconds from now.
fn remember_clock(server: &Server, seconds: i64) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now_ns = i64::try_from(now.as_nanos()).unwrap() + seconds * 1_000_000_000;
    let replica = sync_core::io::sync::Replica::begin(server.hot.path(), None, &sync_core::report::Silent).unwrap();
    replica.put_archive_note("clock", format!("{{\"now_ns\":{now_ns},\"up_ns\":0,\"boot\":\"\"}}").as_bytes()).unwrap();
}

#[test]
fn a_clock_that_jumped_removes_nothing_of_what_a_restored_day_leaves() {
    let server = Server::new(&["2026/03/05", "2026/03/06"]);
    server.init();
    server.rule("run", &["--keep-displaced", "0s"]).code(0);
    remember_clock(&server, 10 * 24 * 3600);
    let told = stderr(&server.run(&["restore", &server.hot(), "2026/03/05"]).code(0));
    assert!(told.contains("behind the last archiving run") && told.contains("no old copy"), "{told}");
    assert!(!server.is_link("2026/03/05"));
    assert!(server.in_cold("2026/03/05/a.txt").exists(), "what it left stays");
    remember_clock(&server, -3600);
    server.run(&["restore", &server.hot(), "2026/03/06"]).code(0);
    assert!(!server.in_cold("2026/03/05").exists() && !server.in_cold("2026/03/06").exists());
}

#[test]
fn a_day_made_anew_is_merged_with_its_archive_and_nothing_of_it_travels_as_deleted() {
    let server = Server::new(&["2026/03/05", "2026/03/06"]);
    let other = tempfile::tempdir().unwrap();
    let (hot, other) = (server.hot(), other.path().display().to_string());
    let sync = |code| lines(&driftless().args(["sync", "--batch", "--json", &hot, &other]).assert().code(code)).pop().unwrap();
    sync(0);
    server.init();
    server.rule("run", &["--keep-displaced", "0s"]).code(0);
    let day = server.hot.path().join("2026/03/05");
    fs::remove_file(&day).unwrap();
    fs::create_dir(&day).unwrap();
    fs::write(day.join("a.txt"), "made anew").unwrap();
    fs::write(day.join("c.txt"), "new").unwrap();
    // Until then the day is not there: nothing of either half is taken for the whole.
    let summary = sync(2);
    assert_eq!((&summary["deleted"], &summary["conflicts"]), (&0.into(), &0.into()), "{summary}");
    let there = |name: &str| fs::read_to_string(Path::new(&other).join("2026/03/05").join(name)).ok();
    assert_eq!((there("a.txt").as_deref(), there("c.txt")), (Some("2026/03/05 a.txt"), None));
    let plan = lines(&server.rule("plan", &["--json"]).code(0));
    assert_eq!(plan.last().unwrap()["moved"], 0, "it is no day that could move");
    let told = stderr(&server.run(&["status", &hot]).code(2));
    assert!(told.contains("merged with its archive by driftless archive run"), "{told}");
    let run = server.rule("run", &["--keep-displaced", "0s", "--json"]).code(0);
    assert_eq!(lines(&run).last().unwrap()["merged"], 1);
    assert!(stderr(&run).contains("made anew beside its archive") && stderr(&run).contains("is kept beside"), "{}", stderr(&run));
    assert!(server.is_link("2026/03/05"));
    assert_eq!(fs::read_to_string(day.join("sub/b.txt")).unwrap(), "2026/03/05 sub/b.txt");
    let summary = sync(0);
    for (key, count) in [("created", 2), ("updated", 0), ("deleted", 0), ("moved", 0), ("conflicts", 0), ("failed", 0)] {
        assert_eq!(summary[key], count, "{key}: {summary}");
    }
    assert_eq!((there("a.txt").as_deref(), there("c.txt").as_deref()), (Some("2026/03/05 a.txt"), Some("new")));
    let names: Vec<_> = fs::read_dir(Path::new(&other).join("2026/03/05")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let copy = names.iter().find(|path| path.to_string_lossy().contains("a.conflict-late-")).expect("both versions travel");
    assert_eq!(fs::read_to_string(copy).unwrap(), "made anew");
}

#[test]
fn a_cold_root_within_another_synchronised_folder_is_refused() {
    let server = Server::new(&["2026/03/05"]);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    driftless().args(["sync", "--batch", &one.path().display().to_string(), &two.path().display().to_string()]).assert().code(0);
    let inside = one.path().join("deep/cold");
    fs::create_dir_all(&inside).unwrap();
    let told = stderr(&server.run(&["init-cold", &inside.display().to_string()]).failure());
    assert!(told.contains("is synchronised"), "{told}");
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
    // One that was made before the folder around it was synchronised.
    server.init();
    fs::create_dir(inside.join(".driftless")).unwrap();
    fs::copy(server.cold.path().join(".driftless/cold"), inside.join(".driftless/cold")).unwrap();
    let told = stderr(&server.run(&["run", "--hot", &server.hot(), "--cold", &inside.display().to_string()]).failure());
    assert!(told.contains("which is synchronised"), "{told}");
    assert!(!server.is_link("2026/03/05"));
}

#[test]
fn archiving_is_no_change_to_a_synchronised_copy() {
    let server = Server::new(&["2026/03/05", "2026/03/06"]);
    let other = tempfile::tempdir().unwrap();
    let (hot, other) = (server.hot(), other.path().display().to_string());
    let sync = || lines(&driftless().args(["sync", "--batch", "--json", &hot, &other]).assert().code(0)).pop().unwrap();
    sync();
    server.init();
    server.rule("run", &["--keep-displaced", "0s"]).code(0);
    assert!(server.is_link("2026/03/05"));
    let summary = sync();
    for key in ["created", "updated", "deleted", "moved", "conflicts", "failed"] {
        assert_eq!(summary[key], 0, "{key}: {summary}");
    }
    assert!(Path::new(&other).join("2026/03/05/a.txt").is_file());
    // A write through the link travels, and one at the other copy arrives in the cold root.
    fs::write(server.hot.path().join("2026/03/05/a.txt"), "through the link").unwrap();
    fs::write(Path::new(&other).join("2026/03/06/new.txt"), "from afar").unwrap();
    sync();
    assert_eq!(fs::read_to_string(Path::new(&other).join("2026/03/05/a.txt")).unwrap(), "through the link");
    assert_eq!(fs::read_to_string(server.in_cold("2026/03/06/new.txt")).unwrap(), "from afar");
    server.run(&["restore", &hot, "2026"]).code(0);
    assert!(!server.is_link("2026/03/05"));
    let summary = sync();
    for key in ["created", "updated", "deleted", "moved", "conflicts", "failed"] {
        assert_eq!(summary[key], 0, "{key}: {summary}");
    }
}

#[test]
fn a_change_time_that_has_not_come_yet_is_named_and_an_accepted_clock_goes_over_it() {
    let Some(disk) = Disk::mounted() else { return };
    let cold = tempfile::tempdir().unwrap();
    let (hot, cold) = (disk.path().join("hot"), cold.path().display().to_string());
    for day in ["2001/03/05", "2001/03/06"] {
        fs::create_dir_all(hot.join(day)).unwrap();
        fs::write(hot.join(day).join("x.txt"), day).unwrap();
    }
    let year = Duration::from_secs(365 * 24 * 3600);
    disk.stamp("hot/2001/03/06/x.txt", (SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + year).as_secs());
    let hot_text = hot.display().to_string();
    let run = |what: &str, more: &[&str]| {
        let rule = ["archive", what, "--hot", &hot_text, "--cold", &cold, "--timezone", "UTC", "--quiet", "0s"];
        driftless().args([&rule, more].concat()).assert()
    };
    driftless().args(["archive", "init-cold", &cold]).assert().code(0);
    for what in ["plan", "run"] {
        let told = stderr(&run(what, &[]).code(3));
        assert!(told.contains("that of 2001/03/06/x.txt") && told.contains("--accept-clock"), "{told}");
    }
    assert_eq!(lines(&run("plan", &["--accept-clock", "--json"]).code(0)).last().unwrap()["moved"], 2);
    assert_eq!(lines(&run("run", &["--accept-clock", "--json"]).code(0)).last().unwrap()["moved"], 2);
    for day in ["2001/03/05", "2001/03/06"] {
        assert!(hot.join(day).symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read_to_string(hot.join(day).join("x.txt")).unwrap(), day);
    }
    // Once is enough.
    run("run", &[]).code(0);
}

#[test]
fn a_command_that_fails_tells_it_in_its_summary() {
    let server = Server::new(&["2026/03/05"]);
    let told = lines(&server.rule("run", &["--json"]).code(3));
    let summary = told.last().unwrap();
    assert_eq!((&summary["event"], &summary["in_sync"], &summary["moved"]), (&"summary".into(), &false.into(), &0.into()));
    assert!(summary["error"].as_str().unwrap().contains("no marker"), "{summary}");
}

#[test]
fn a_root_whose_state_is_elsewhere_is_archived_with_that() {
    let server = Server::new(&["2026/03/05"]);
    server.init();
    let (other, states) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (hot, states) = (server.hot(), states.path().display().to_string());
    let state = ["--state-dir", &states];
    driftless().args(["sync", "--batch", &hot, &other.path().display().to_string()]).args(state).assert().code(0);
    server.rule("run", &[]).code(3);
    server.rule("run", &state).code(0);
    assert!(server.is_link("2026/03/05"));
    for what in [&["status", &hot][..], &["verify", &hot], &["restore", &hot, "2026/03/05"], &["plan", "--hot", &hot]] {
        server.run(&[what, &state].concat()).code(0);
    }
    assert!(!server.is_link("2026/03/05"));
}
