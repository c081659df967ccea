//! Two machines that synchronise: one serves, the other one runs the command.

use crate::machine::Machine;
use crate::pair::{lines, summary};
use crate::serving::Serving;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A server of folder `hot`, and a machine that knows it as `server` and may do there what the grant says.
pub(crate) fn acquainted(mode: &str) -> (Machine, Machine) {
    let (server, laptop) = (Machine::new(), Machine::new());
    laptop.knows("server", &server, &[]);
    server.knows("laptop", &laptop, &["--grant", &format!("hot={mode}")]);
    server.folder("hot");
    laptop.folder("hot");
    (server, laptop)
}

/// The served folder as a root.
pub(crate) fn hot(serving: &Serving) -> String {
    format!("quic://{}/hot", serving.address)
}

/// Two servers of a folder `hot` each, with a file of the server's name, which know a machine and are known to it.
pub(crate) fn serve_both(laptop: &Machine, servers: [(&str, &Machine); 2]) -> [Serving; 2] {
    servers.map(|(name, server)| {
        laptop.knows(name, server, &[]);
        server.knows("laptop", laptop, &["--grant", "hot=two-way"]);
        server.write("hot", name, name);
        server.serve(&["hot"], &[])
    })
}

/// Who answers there.
pub(crate) const PEER: [&str; 2] = ["--peer", "server"];

#[test]
fn machines_that_were_paired_by_a_code_synchronise() {
    let (server, laptop) = (Machine::new(), Machine::new());
    let showing = server.show_code(&["--name", "laptop", "--grant", "hot=two-way"]);
    laptop.run(&["pair", &showing.code, &showing.address.clone(), "--name", "server"]).code(0);
    assert_eq!(showing.end().0, 0);
    laptop.write("hot", "from/laptop", "1");
    server.write("hot", "from/server", "2");
    let serving = server.serve(&["hot"], &[]);
    let done = summary(&laptop.sync("hot", &hot(&serving), &["--peer", "server", "--json"]).code(0));
    assert_eq!((&done["created"], &done["in_sync"]), (&2.into(), &true.into()), "{done}");
    assert!(done["bytes_sent"].as_u64().unwrap() > 0 && done["bytes_received"].as_u64().unwrap() > 0, "{done}");
    assert_eq!(
        (server.read("hot", "from/laptop").unwrap(), laptop.read("hot", "from/server").unwrap()),
        ("1".into(), "2".into())
    );
    let again = summary(&laptop.sync("hot", &hot(&serving), &["--peer", "server", "--json"]).code(0));
    assert_eq!((&again["created"], &again["updated"], &again["in_sync"]), (&0.into(), &0.into(), &true.into()), "{again}");
    let ended = serving.end(Signal::TERM);
    assert!(ended.code == Some(0) && ended.err.contains("laptop: connected from 127.0.0.1:"), "{}", ended.err);
}

#[test]
fn status_looks_at_both_and_changes_neither() {
    let (server, laptop) = acquainted("two-way");
    server.write("hot", "x", "1");
    let serving = server.serve(&["hot"], &[]);
    let root = laptop.folder("hot").display().to_string();
    let looked = laptop.run(&["status", "--json", "--peer", "server", &hot(&serving), &root]);
    assert_eq!(summary(&looked.code(1))["created"], 1);
    assert!(!laptop.folder("hot").join(".driftless").exists() && !server.folder("hot").join(".driftless").exists());
}

#[test]
fn who_is_added_or_removed_while_a_server_runs_is_known_or_forgotten_at_once() {
    let (server, laptop) = acquainted("two-way");
    server.run(&["peer", "remove", "laptop"]).code(0);
    let serving = server.serve(&["hot"], &[]);
    for round in ["1", "2"] {
        laptop.write("hot", "x", round);
        laptop.sync("hot", &hot(&serving), &PEER).code(3);
        server.knows("laptop", &laptop, &["--grant", "hot=two-way"]);
        laptop.sync("hot", &hot(&serving), &PEER).code(0);
        assert_eq!(server.read("hot", "x").unwrap(), round);
        server.run(&["peer", "remove", "laptop"]).code(0);
    }
}

#[test]
fn a_part_of_a_folder_is_a_root_of_its_own() {
    let (server, laptop) = acquainted("two-way");
    server.write("hot", "2026/03/x", "1");
    server.write("hot", "2026/04/x", "2");
    let serving = server.serve(&["hot"], &[]);
    laptop.sync("march", &format!("{}/2026/03", hot(&serving)), &PEER).code(0);
    assert_eq!(laptop.read("march", "x").unwrap(), "1");
    laptop.write("march", "y", "3");
    laptop.sync("march", &format!("{}/2026/03/", hot(&serving)), &PEER).code(0);
    assert_eq!(server.read("hot", "2026/03/y").unwrap(), "3");
}

#[test]
fn a_conflict_that_is_decided_is_told_once_whichever_side_loses_and_wherever_it_is() {
    let (server, laptop) = acquainted("two-way");
    let serving = server.serve(&["hot"], &[]);
    let (near, far) = (laptop.folder("hot").display().to_string(), hot(&serving));
    laptop.write("hot", "x", "x");
    laptop.sync("hot", &far, &PEER).code(0);
    for (at, (policy, direction, roots)) in [
        ("a", "a-to-b", [&near, &far]),
        ("b", "b-to-a", [&near, &far]),
        ("a", "a-to-b", [&far, &near]),
        ("b", "b-to-a", [&far, &near]),
    ]
    .into_iter()
    .enumerate()
    {
        laptop.write("hot", "x", &format!("from the laptop, {at}"));
        server.write("hot", "x", &format!("from the server's side, {at}"));
        for (command, result) in [(&["status"][..], "planned"), (&["sync", "--batch"], "done")] {
            let args = [command, &["--json", "--conflicts", policy], &PEER, &roots.map(String::as_str)].concat();
            let told = lines(&laptop.run(&args));
            let items: Vec<_> = told.iter().filter(|line| line["event"] == "item").collect();
            assert!(
                items.len() == 1 && items[0]["action"] == "update" && items[0]["result"] == result,
                "{policy} {roots:?}: {told:?}"
            );
            assert_eq!(
                (&items[0]["direction"], &items[0]["reason"]),
                (&direction.into(), &"both sides changed it".into()),
                "{told:?}"
            );
            assert_eq!(told.last().unwrap()["conflicts"], 1, "{policy} {roots:?}: {told:?}");
        }
    }
}

#[test]
fn both_roots_may_be_on_other_machines() {
    let (first, second, laptop) = (Machine::new(), Machine::new(), Machine::new());
    let serving = serve_both(&laptop, [("first", &first), ("second", &second)]);
    let roots = serving.each_ref().map(hot);
    let args = ["sync", "--batch", "--peer", "first", "--peer", "second", &roots[0], &roots[1]];
    laptop.run(&args).code(0);
    for server in [&first, &second] {
        assert_eq!(
            (server.read("hot", "first").unwrap(), server.read("hot", "second").unwrap()),
            ("first".into(), "second".into())
        );
    }
}

#[test]
fn many_machines_are_served_at_once() {
    let server = Machine::new();
    let folders = ["f0", "f1", "f2", "f3"];
    let laptops: Vec<Machine> = folders.iter().map(|_| Machine::new()).collect();
    for (folder, laptop) in folders.iter().zip(&laptops) {
        laptop.knows("server", &server, &[]);
        server.knows(folder, laptop, &["--grant", &format!("{folder}=two-way")]);
        for at in 0..200 {
            laptop.write("own", &format!("d{}/{at}", at % 7), folder);
        }
    }
    let serving = server.serve(&folders, &[]);
    std::thread::scope(|scope| {
        for (folder, laptop) in folders.iter().zip(&laptops) {
            let root = format!("quic://{}/{folder}", serving.address);
            scope.spawn(move || laptop.sync("own", &root, &PEER).code(0));
        }
    });
    for folder in folders {
        assert_eq!(server.read(folder, "d3/3").unwrap(), folder);
    }
    assert_eq!(serving.end(Signal::TERM).code, Some(0));
}

#[test]
fn a_server_keeps_its_states_where_it_is_told_to() {
    let (server, laptop) = acquainted("two-way");
    server.write("hot", "x", "1");
    let states = server.folder("states");
    let serving = server.serve(&["hot"], &["--state-dir", &states.display().to_string()]);
    laptop.sync("hot", &hot(&serving), &PEER).code(0);
    laptop.sync("hot", &hot(&serving), &PEER).code(0);
    assert!(!server.folder("hot").join(".driftless/state.db").exists());
    assert!(fs::read_dir(states).unwrap().count() > 0);
}

/// Enough files for a run to be in the middle of its work when it is interrupted.
const FILES: usize = 4_000;

/// A run that has begun to bring files to the server.
fn busy(laptop: &Machine, serving: &Serving) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command.env("DRIFTLESS_HOME", laptop.home()).args(["sync", "--batch", "--json", "--verbose"]);
    command.arg(laptop.folder("hot")).arg(hot(serving)).args(PEER);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("\"event\":\"item\"")), "the run ended before it did anything");
    // Nobody reads the rest, and nobody waits for that.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

fn with_files() -> (Machine, Machine) {
    let (server, laptop) = acquainted("two-way");
    for at in 0..FILES {
        laptop.write("hot", &format!("d{}/{at}", at % 40), &format!("{at}"));
        server.write("hot", &format!("e{}/{at}", at % 40), &format!("{at}"));
    }
    (server, laptop)
}

fn assert_complete(server: &Machine, laptop: &Machine) {
    for machine in [server, laptop] {
        for at in 0..FILES {
            for dir in ["d", "e"] {
                let path = format!("{dir}{}/{at}", at % 40);
                assert_eq!(machine.read("hot", &path), Some(format!("{at}")), "{path}");
            }
        }
    }
}

#[test]
fn a_signal_at_the_command_ends_it_and_the_next_run_completes() {
    let (server, laptop) = with_files();
    let serving = server.serve(&["hot"], &[]);
    let mut child = busy(&laptop, &serving);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    laptop.sync("hot", &hot(&serving), &PEER).code(0);
    assert_complete(&server, &laptop);
}

#[test]
fn a_signal_at_the_server_ends_both_and_the_next_run_completes() {
    let (server, laptop) = with_files();
    let serving = server.serve(&["hot"], &[]);
    let child = busy(&laptop, &serving);
    let ended = serving.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(3), "{}", String::from_utf8_lossy(&out.stderr));
    let serving = server.serve(&["hot"], &[]);
    laptop.sync("hot", &hot(&serving), &PEER).code(0);
    assert_complete(&server, &laptop);
}

#[test]
fn a_command_or_a_server_that_is_killed_leaves_nothing_that_the_next_run_does_not_mend() {
    for kill_server in [false, true] {
        let (server, laptop) = with_files();
        let mut serving = server.serve(&["hot"], &[]);
        let mut child = busy(&laptop, &serving);
        if kill_server {
            drop(serving);
            // It hears nothing any more, and finds that out.
            assert_eq!(child.wait().unwrap().code(), Some(3));
            serving = server.serve(&["hot"], &[]);
        } else {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        laptop.sync("hot", &hot(&serving), &PEER).code(0);
        assert_complete(&server, &laptop);
    }
}
