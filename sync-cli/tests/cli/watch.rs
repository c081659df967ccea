//! `driftless watch`: two roots, on this machine or on another one, kept in sync by a process that stays.

use crate::agent::{Running, configure, states};
use crate::machine::Machine;
use crate::machines::{PEER, acquainted, hot, serve_both};
use crate::pair::{Pair, driftless, stderr, tree};
use fixtures::namespaces::{in_namespaces, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long an event may take that has to come.
const PATIENCE: Duration = Duration::from_secs(120);

/// A command under way, killed when it is dropped.
struct Watching {
    child: Child,
    events: Receiver<Value>,
    err: Option<JoinHandle<String>>,
}

/// How it ended: its code, what it told until then, and what it said besides.
struct Ended {
    code: Option<i32>,
    events: Vec<Value>,
    err: String,
}

impl Ended {
    fn summary(&self) -> &Value {
        self.events.last().filter(|event| event["event"] == "summary").expect("a summary at the end")
    }
}

impl Watching {
    fn start(home: &Path, args: &[impl AsRef<OsStr>]) -> Watching {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command.env("DRIFTLESS_HOME", home).args(["watch", "--json", "--quiet", "20ms"]).args(args);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, events) = channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // Nobody may listen any more.
                let _ = tell.send(serde_json::from_str(&line).unwrap());
            }
        });
        let mut err = child.stderr.take().unwrap();
        let err = thread::spawn(move || {
            let mut text = Vec::new();
            err.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        Watching { child, events, err: Some(err) }
    }

    /// Two roots of this machine.
    fn of(pair: &Pair, args: &[&str]) -> Watching {
        let roots = [pair.root("a"), pair.root("b")].map(|root| root.display().to_string());
        let args: Vec<&str> = args.iter().copied().chain(roots.iter().map(String::as_str)).collect();
        Watching::start(&pair.root("home"), &args)
    }

    /// A folder of a machine, and a root anywhere.
    fn at(machine: &Machine, folder: &str, other: &str, args: &[&str]) -> Watching {
        let folder = machine.folder(folder).display().to_string();
        Watching::start(&machine.home(), &[&[folder.as_str(), other], args].concat())
    }

    /// Waits for an event; those before it are passed over.
    fn event(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut passed = Vec::new();
        loop {
            match self.events.recv_timeout(PATIENCE) {
                Ok(event) if is(&event) => return event,
                Ok(event) => passed.push(event.to_string()),
                Err(error) => {
                    let _ = self.child.kill();
                    let err = self.err.take().unwrap().join().unwrap();
                    panic!("no {what}: {error}\n{}\n{err}", passed.join("\n"));
                }
            }
        }
    }

    /// Waits until both roots are there and were brought together.
    fn watches(&mut self) -> Value {
        self.event("start", |event| event["event"] == "watching")
    }

    /// Waits until a change was made.
    fn brings(&mut self, action: &str, path: &str, direction: &str) -> Value {
        let is = |event: &Value| {
            let done = event["event"] == "item" && event["result"] == "done";
            done && event["path"] == path && event["action"] == action && event["direction"] == direction
        };
        self.event(&format!("{action} of {path} {direction}"), is)
    }

    fn waits(&mut self) -> String {
        let waits = self.event("loss", |event| event["event"] == "waiting");
        waits["error"].as_str().unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn ended(mut self) -> Ended {
        let code = self.child.wait().unwrap().code();
        let events = self.events.iter().collect();
        Ended { code, events, err: self.err.take().unwrap().join().unwrap() }
    }

    fn end(self, signal: Signal) -> Ended {
        self.signal(signal);
        self.ended()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It has ended already if a test ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_changes_in_either_root_comes_to_the_other_until_a_signal() {
    let pair = Pair::synced(&["old/x"]);
    pair.write("a", "before", "1");
    let mut watching = Watching::of(&pair, &[]);
    watching.brings("create", "before", "a-to-b");
    assert_eq!(watching.watches()["in_sync"], true);
    pair.write("a", "new/deep/file", "2");
    watching.brings("create", "new/deep/file", "a-to-b");
    pair.write("b", "new/deep/file", "longer");
    watching.brings("update", "new/deep/file", "b-to-a");
    pair.rename("b", "new/deep/file", "moved");
    // The two halves of a rename are a moment apart: on a busy machine they may be looked at one after the other.
    let came = watching.event("moved", |event| event["event"] == "item" && event["result"] == "done" && event["path"] == "moved");
    let moved = match came["action"].as_str().unwrap() {
        "move" => 1,
        action => {
            assert_eq!(action, "create");
            watching.brings("delete", "new/deep/file", "b-to-a");
            0
        }
    };
    pair.remove("a", "before");
    watching.brings("delete", "before", "a-to-b");
    pair.write("b", "last", "3");
    watching.brings("create", "last", "b-to-a");
    let ended = watching.end(Signal::INT);
    let summary = ended.summary();
    assert_eq!((ended.code, &summary["in_sync"], &summary["error"]), (Some(130), &true.into(), &Value::Null), "{}", ended.err);
    let done = ["moved", "deleted", "updated"].map(|what| summary[what].as_u64().unwrap());
    assert_eq!(done, [moved, 2 - moved, 1], "{summary}");
    pair.assert_equal();
    assert_eq!(pair.read("a", "moved").unwrap(), "longer");
    pair.sync(&[]).code(0);
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn for_people_there_is_a_line_at_the_start_one_for_each_change_and_one_at_the_end() {
    let pair = Pair::synced(&["x"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command.args(["watch", "--quiet", "20ms"]).args([pair.root("a"), pair.root("b")]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Killed(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let start = lines.next().unwrap();
    let expected = format!("watching {} and {}, in sync", pair.root("a").display(), pair.root("b").display());
    assert_eq!(start, expected);
    pair.write("b", "y", "1");
    let change = lines.next().unwrap();
    assert!(change.starts_with("B → A") && change.contains("create    y "), "{change}");
    kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
    let last: Vec<String> = lines.collect();
    assert!(last.len() == 1 && last[0].contains("B → A: 1 created"), "{last:?}");
    let mut err = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.0.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn a_conflict_is_told_once_stays_as_it_is_and_ends_the_run_with_1() {
    let pair = Pair::synced(&["x"]);
    pair.write("a", "x", "this side");
    pair.write("b", "x", "the other one");
    let mut watching = Watching::of(&pair, &[]);
    let is_conflict = |event: &Value| event["event"] == "item" && event["path"] == "x" && event["result"] == "skipped";
    watching.event("conflict", is_conflict);
    let start = watching.watches();
    assert_eq!((&start["in_sync"], &start["conflicts"]), (&false.into(), &1.into()));
    pair.write("a", "y", "1");
    watching.brings("create", "y", "a-to-b");
    let ended = watching.end(Signal::TERM);
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(!ended.events.iter().any(is_conflict), "{:?}", ended.events);
    assert_eq!((&ended.summary()["conflicts"], &ended.summary()["skipped"]), (&1.into(), &1.into()));
    assert_eq!((pair.read("a", "x").unwrap(), pair.read("b", "x").unwrap()), ("this side".into(), "the other one".into()));
}

#[test]
fn conflicts_are_decided_by_the_policy_that_was_given_and_told_where_they_change_something() {
    for (policy, winner, direction) in [("a", "this side", "a-to-b"), ("b", "the other one", "b-to-a")] {
        let pair = Pair::synced(&["x"]);
        pair.write("a", "x", "this side");
        pair.write("b", "x", "the other one");
        let mut watching = Watching::of(&pair, &["--conflicts", policy]);
        let is_item = |event: &Value| event["event"] == "item";
        let item = watching.event("item", is_item);
        assert_eq!(
            (&item["action"], &item["direction"], &item["result"]),
            (&"update".into(), &direction.into(), &"done".into()),
            "{item}"
        );
        assert_eq!(item["reason"], "both sides changed it");
        assert_eq!(watching.watches()["in_sync"], true);
        let ended = watching.end(Signal::TERM);
        assert!(!ended.events.iter().any(is_item), "{:?}", ended.events);
        assert_eq!((ended.code, &ended.summary()["conflicts"], &ended.summary()["skipped"]), (Some(0), &1.into(), &0.into()));
        assert_eq!(pair.read("a", "x").unwrap(), winner);
        pair.assert_equal();
    }
}

#[test]
fn it_ends_when_nobody_reads_what_it_tells() {
    let pair = Pair::synced(&["x"]);
    let mut command = Command::new("timeout");
    command.args(["120", env!("CARGO_BIN_EXE_driftless"), "watch"]).args([pair.root("a"), pair.root("b")]);
    let mut child = Killed(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut out = BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.starts_with("watching "), "{line}");
    drop(out);
    let mut err = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.0.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn deletions_beyond_the_limit_end_it_and_leave_lets_them_go() {
    let files: Vec<String> = (0..20).map(|at| format!("d/{at}")).collect();
    let pair = Pair::synced(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let mut watching = Watching::of(&pair, &[]);
    watching.watches();
    // All at once.
    fs::rename(pair.at("a", "d"), pair.root("gone")).unwrap();
    let ended = watching.ended();
    assert_eq!(ended.code, Some(3), "{}", ended.err);
    assert!(ended.err.contains("--allow-delete"), "{}", ended.err);
    assert!(ended.summary()["error"].as_str().unwrap().contains("--max-delete"));
    assert_eq!(pair.names("b").len(), 21, "nothing went");
    let mut watching = Watching::of(&pair, &["--allow-delete"]);
    watching.watches();
    assert_eq!(pair.names("b"), [""; 0]);
    // That was the leave for what had gone before, and for no more.
    for at in 0..4 {
        pair.write("b", format!("e/{at}"), "x");
    }
    for at in 0..4 {
        watching.brings("create", &format!("e/{at}"), "b-to-a");
    }
    fs::rename(pair.at("b", "e"), pair.root("gone too")).unwrap();
    let ended = watching.ended();
    assert_eq!((ended.code, pair.names("a").len()), (Some(3), 5), "{}", ended.err);
}

#[test]
fn a_path_that_fails_is_told_once_and_stops_nothing_else() {
    let pair = Pair::synced(&["x"]);
    let mut watching = Watching::of(&pair, &["--max-delete", "100%"]);
    watching.watches();
    let deep = pair.at("a", vec!["d"; 300].join("/"));
    fs::create_dir_all(&deep).unwrap();
    let problem = |event: &Value| event["event"] == "problem";
    let told = watching.event("problem", problem);
    assert!(told["path"].as_str().unwrap().starts_with("d/d/d/"), "{told}");
    pair.write("a", "y", "1");
    watching.brings("create", "y", "a-to-b");
    pair.remove("a", "d");
    watching.brings("delete", "d", "a-to-b");
    let ended = watching.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(!ended.events.iter().any(problem), "{:?}", ended.events);
}

#[test]
fn a_root_that_goes_away_is_waited_for_and_nothing_is_deleted() {
    let pair = Pair::synced(&["x", "d/y"]);
    let mut watching = Watching::of(&pair, &[]);
    watching.watches();
    fs::rename(pair.root("a"), pair.root("elsewhere")).unwrap();
    watching.waits();
    // What is left of an unmounted disk is its mount point.
    fs::create_dir(pair.root("a")).unwrap();
    let why = watching.event("empty root", |event| {
        event["event"] == "waiting" && event["error"].as_str().unwrap().contains("is its disk mounted")
    });
    assert!(why["error"].as_str().unwrap().contains(&pair.root("a").display().to_string()));
    assert_eq!(fs::read_dir(pair.root("a")).unwrap().count(), 0, "nothing is made at a bare mount point");
    pair.write("b", "z", "while it was away");
    fs::remove_dir(pair.root("a")).unwrap();
    fs::rename(pair.root("elsewhere"), pair.root("a")).unwrap();
    watching.brings("create", "z", "b-to-a");
    assert_eq!(watching.watches()["in_sync"], true);
    pair.write("a", "w", "again");
    watching.brings("create", "w", "a-to-b");
    assert_eq!(watching.end(Signal::TERM).code, Some(0));
    assert_eq!(pair.names("b"), ["d", "d/y", "w", "x", "z"]);
    pair.assert_equal();
}

#[test]
fn an_unmounted_disk_is_waited_for() {
    in_namespaces("watch::an_unmounted_disk_is_waited_for", |folder| {
        let [disk, a, b] = ["disk", "a", "b"].map(|name| folder.join(name));
        [&disk, &a, &b].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
        let [disk, a, b] = [disk, a, b].map(|path| path.display().to_string());
        fs::write(format!("{disk}/x"), "1").unwrap();
        run("mount", &["--bind", &disk, &a]);
        let mut watching = Watching::start(&folder.join("home"), &[&a, &b]);
        watching.watches();
        // It is in use, and goes all the same.
        run("umount", &["--lazy", &a]);
        watching.waits();
        fs::write(format!("{b}/y"), "2").unwrap();
        run("mount", &["--bind", &disk, &a]);
        watching.brings("create", "y", "b-to-a");
        assert_eq!(watching.watches()["in_sync"], true);
        assert_eq!(watching.end(Signal::TERM).code, Some(0));
        assert_eq!(tree(Path::new(&disk)), tree(Path::new(&b)));
    });
}

#[test]
fn where_there_are_too_few_watches_that_is_told_and_all_is_found_all_the_same() {
    in_namespaces("watch::where_there_are_too_few_watches_that_is_told_and_all_is_found_all_the_same", |folder| {
        let roots = ["a", "b"].map(|name| folder.join(name).display().to_string());
        for dir in 0..20 {
            fs::create_dir_all(format!("{}/{dir}", roots[0])).unwrap();
        }
        fs::create_dir(&roots[1]).unwrap();
        fs::write("/proc/sys/user/max_inotify_watches", "10").unwrap();
        let mut watching = Watching::start(&folder.join("home"), &roots);
        watching.watches();
        for dir in 0..20 {
            fs::write(format!("{}/{dir}/file", roots[0]), "x").unwrap();
            fs::write(format!("{}/{dir}/other", roots[1]), "x").unwrap();
        }
        let mut missing: Vec<String> = (0..20).flat_map(|dir| [format!("{dir}/file"), format!("{dir}/other")]).collect();
        while !missing.is_empty() {
            let item = watching.event("item", |event| event["event"] == "item" && event["action"] == "create");
            missing.retain(|path| item["path"] != path.as_str());
        }
        let ended = watching.end(Signal::TERM);
        let sysctl = ended.err.matches("sysctl fs.inotify.max_user_watches=").count();
        assert!(ended.code == Some(0) && sysctl == 2, "once for each root: {}", ended.err);
    });
}

#[test]
fn a_process_that_is_killed_leaves_nothing_that_the_next_one_does_not_mend() {
    let pair = Pair::synced(&["x"]);
    let mut watching = Watching::of(&pair, &[]);
    watching.watches();
    for at in 0..2_000 {
        pair.write("a", format!("d{}/{at}", at % 20), &format!("{at}"));
        pair.write("b", format!("e{}/{at}", at % 20), &format!("{at}"));
    }
    // In the middle of bringing them.
    watching.event("item", |event| event["event"] == "item");
    watching.child.kill().unwrap();
    drop(watching);
    let mut watching = Watching::of(&pair, &[]);
    assert_eq!(watching.watches()["in_sync"], true);
    pair.assert_equal();
    assert_eq!(pair.names("a").len(), 1 + 2 * (2_000 + 20));
    assert_eq!(watching.end(Signal::TERM).code, Some(0));
}

#[test]
fn a_signal_in_the_first_synchronisation_ends_it_after_what_it_had_begun() {
    let pair = Pair::new();
    for at in 0..4_000 {
        pair.write("a", format!("d{}/{at}", at % 40), &format!("{at}"));
    }
    let mut watching = Watching::of(&pair, &[]);
    watching.event("item", |event| event["event"] == "item");
    let ended = watching.end(Signal::INT);
    assert_eq!(ended.code, Some(130), "{}", ended.err);
    // A machine that is busy elsewhere may have come to the end of it before the signal.
    let whole = ended.events.iter().any(|event| event["event"] == "watching");
    assert_eq!(ended.summary()["in_sync"], whole);
    pair.sync(&[]).code(0);
    pair.assert_equal();
}

#[test]
fn rules_that_change_hold_from_then_on() {
    let pair = Pair::synced(&["x"]);
    let mut watching = Watching::of(&pair, &[]);
    watching.watches();
    pair.write("a", ".driftlessignore", "*.tmp\n");
    watching.brings("create", ".driftlessignore", "a-to-b");
    pair.write("a", "left.tmp", "1");
    pair.write("a", "y", "2");
    watching.brings("create", "y", "a-to-b");
    pair.write("a", ".driftlessignore", "");
    watching.brings("create", "left.tmp", "a-to-b");
    assert_eq!(watching.end(Signal::TERM).code, Some(0));
    pair.assert_equal();
}

#[test]
fn what_cannot_begin_ends_as_a_sync_does() {
    let pair = Pair::new();
    let a = pair.root("a").display().to_string();
    for (args, code, word) in [
        (&[a.as_str(), "/nowhere/at/all"][..], 3, "does not exist"),
        (&[&a, &a], 3, "same folder"),
        (&[&a, "quic://127.0.0.1:9/hot"], 3, "no known peer"),
        (&["--quiet", "soon", &a, "b"], 64, "no duration"),
        (&["--ignore", "[", &a, &pair.root("b").display().to_string()], 64, "ignore rule"),
    ] {
        let home = pair.root("home");
        let assert = driftless().env("DRIFTLESS_HOME", &home).arg("watch").args(args).assert().code(code);
        assert!(stderr(&assert).contains(word), "{args:?}: {}", stderr(&assert));
    }
}

#[test]
fn a_server_tells_of_changes_and_is_waited_for_while_it_is_away() {
    let (server, laptop) = acquainted("two-way");
    server.write("hot", "old", "1");
    let serving = server.serve(&["hot"], &[]);
    let (address, root) = (serving.address.clone(), hot(&serving));
    let mut watching = Watching::at(&laptop, "hot", &root, &PEER);
    watching.brings("create", "old", "b-to-a");
    assert_eq!(watching.watches()["in_sync"], true);
    server.write("hot", "there/new", "2");
    watching.brings("create", "there/new", "b-to-a");
    laptop.write("hot", "there/new", "edited here");
    watching.brings("update", "there/new", "a-to-b");
    laptop.write("hot", "here", "3");
    watching.brings("create", "here", "a-to-b");
    assert_eq!(server.read("hot", "there/new").unwrap(), "edited here");
    // It ends, and another one comes at the same address.
    assert_eq!(serving.end(Signal::TERM).code, Some(0));
    watching.waits();
    server.write("hot", "meanwhile", "4");
    laptop.write("hot", "meanwhile too", "5");
    let serving = server.serve_at(&address, &["hot"], &[]);
    assert_eq!(watching.watches()["in_sync"], true);
    server.write("hot", "after", "6");
    watching.brings("create", "after", "b-to-a");
    let ended = watching.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.summary()["bytes_sent"].as_u64().unwrap() > 0 && ended.summary()["bytes_received"].as_u64().unwrap() > 0);
    assert_eq!(tree(&server.folder("hot")), tree(&laptop.folder("hot")));
    assert_eq!(server.read("hot", "meanwhile too").unwrap(), "5");
    drop(serving);
}

#[test]
fn a_server_that_vanishes_without_a_word_is_told_and_waited_for() {
    let (server, laptop) = acquainted("two-way");
    let serving = server.serve(&["hot"], &[]);
    let (address, root) = (serving.address.clone(), hot(&serving));
    let mut watching = Watching::at(&laptop, "hot", &root, &PEER);
    watching.watches();
    // Killed: as after a power cut, or a cut of all links, nothing comes any more.
    drop(serving);
    assert!(watching.waits().contains(&root));
    laptop.write("hot", "meanwhile", "1");
    let serving = server.serve_at(&address, &["hot"], &[]);
    assert_eq!(watching.watches()["in_sync"], true);
    assert_eq!(watching.end(Signal::TERM).code, Some(0));
    assert_eq!(server.read("hot", "meanwhile").unwrap(), "1");
    assert_eq!(serving.end(Signal::TERM).code, Some(0));
}

#[test]
fn several_machines_watch_one_folder_of_a_server_and_others_synchronise_with_it() {
    let (server, laptop) = acquainted("two-way");
    let (phone, tablet) = (Machine::new(), Machine::new());
    for (name, machine) in [("phone", &phone), ("tablet", &tablet)] {
        machine.knows("server", &server, &[]);
        server.knows(name, machine, &["--grant", "hot=two-way"]);
    }
    let serving = server.serve(&["hot"], &[]);
    let root = hot(&serving);
    let mut first = Watching::at(&laptop, "hot", &root, &PEER);
    first.watches();
    let mut second = Watching::at(&phone, "hot", &root, &PEER);
    second.watches();
    laptop.write("hot", "from/laptop", "1");
    second.brings("create", "from/laptop", "b-to-a");
    phone.write("hot", "from/phone", "2");
    first.brings("create", "from/phone", "b-to-a");
    tablet.write("hot", "from/tablet", "3");
    tablet.sync("hot", &root, &PEER).code(0);
    first.brings("create", "from/tablet", "b-to-a");
    second.brings("create", "from/tablet", "b-to-a");
    assert_eq!((first.end(Signal::TERM).code, second.end(Signal::TERM).code), (Some(0), Some(0)));
    // Once nobody watches it is an ordinary folder again.
    tablet.sync("hot", &root, &PEER).code(0);
    for machine in [&server, &laptop, &phone] {
        assert_eq!(tree(&machine.folder("hot")), tree(&tablet.folder("hot")));
    }
}

#[test]
fn both_roots_may_be_on_other_machines() {
    let (first, second, laptop) = (Machine::new(), Machine::new(), Machine::new());
    let serving = serve_both(&laptop, [("first", &first), ("second", &second)]);
    let roots = serving.each_ref().map(hot);
    let args = ["--peer", "first", "--peer", "second", &roots[0], &roots[1]];
    let mut watching = Watching::start(&laptop.home(), &args);
    assert_eq!(watching.watches()["in_sync"], true);
    first.write("hot", "new", "1");
    watching.brings("create", "new", "a-to-b");
    second.write("hot", "new", "edited");
    watching.brings("update", "new", "b-to-a");
    let ended = watching.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{} {:?}", ended.err, ended.events);
    assert_eq!(tree(&first.folder("hot")), tree(&second.folder("hot")));
}

#[test]
fn a_folder_of_an_agent_is_watched_by_the_agent() {
    let (server, laptop) = (Machine::new(), Machine::new());
    laptop.knows("server", &server, &[]);
    server.knows("laptop", &laptop, &["--grant", "hot=two-way"]);
    configure(&server, "");
    let address = "127.0.0.1:0";
    let text = fs::read_to_string(server.home().join("agent.toml")).unwrap();
    fs::write(server.home().join("agent.toml"), format!("listen = [\"{address}\"]\n{text}")).unwrap();
    let agent = Running::start(&server, &[]);
    let said = agent.says("listening on ");
    let address = said.rsplit(' ').next().unwrap().to_owned();
    until_watched(&server);
    let mut watching = Watching::at(&laptop, "hot", &format!("quic://{address}/hot"), &PEER);
    watching.watches();
    server.write("hot", "there", "1");
    watching.brings("create", "there", "b-to-a");
    laptop.write("hot", "here", "2");
    watching.brings("create", "here", "a-to-b");
    // The agent opens the folder anew for its rules, which a run that goes on must not keep it from.
    server.write("hot", ".driftlessignore", "*.tmp\n");
    watching.brings("create", ".driftlessignore", "b-to-a");
    server.write("hot", "later", "3");
    watching.brings("create", "later", "b-to-a");
    assert_eq!(watching.end(Signal::TERM).code, Some(0));
    assert_eq!(tree(&server.folder("hot")), tree(&laptop.folder("hot")));
    agent.signal(Signal::TERM);
    assert_eq!(agent.end().0, Some(0));
}

/// Waits until an agent has looked at its folder.
fn until_watched(machine: &Machine) {
    for _ in 0..6_000 {
        if states(machine).iter().all(|(_, state)| state == "watching") {
            return;
        }
        // It is asked, and tells nobody by itself.
        thread::sleep(Duration::from_millis(20));
    }
    panic!("the agent does not watch its folder within two minutes: {:?}", states(machine));
}

#[test]
fn behind_ssh_the_other_side_tells_of_changes_too_also_through_the_pipe() {
    for script in ["exec sh -c \"exec $2\"", "exec sh -c \"exec $2 --listen 127.0.0.77:0\""] {
        let (near, far) = (Machine::new(), Machine::new());
        let rsh = near.folder("bin").join("rsh");
        fs::write(&rsh, script).unwrap();
        let root = format!("127.0.0.1:{}", far.folder("hot").display());
        let rsh = format!("sh {}", rsh.display());
        let args = ["--rsh", &rsh, "--remote-command", env!("CARGO_BIN_EXE_driftless")];
        let mut watching = Watching::at(&near, "hot", &root, &args);
        watching.watches();
        far.write("hot", "there", "1");
        watching.brings("create", "there", "b-to-a");
        near.write("hot", "here", "2");
        watching.brings("create", "here", "a-to-b");
        assert_eq!(watching.end(Signal::TERM).code, Some(0));
        assert_eq!(tree(&near.folder("hot")), tree(&far.folder("hot")));
    }
}
