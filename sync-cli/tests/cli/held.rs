//! Roots that an agent has open: what works without it works with it, and says the same.

use crate::agent::{Running, configure};
use crate::machine::Machine;
use crate::pair::{driftless, lines, stderr, stdout};
use assert_cmd::assert::Assert;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long something may take that has to come.
const PATIENCE: Duration = Duration::from_secs(180);

/// Until it is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// What a command says, and how it ends.
pub(crate) fn told(assert: &Assert) -> (Option<i32>, String, String) {
    (assert.get_output().status.code(), stdout(assert), stderr(assert))
}

/// A machine whose folder `hot` has conflicts with another one, and kept versions.
fn with_conflicts() -> (Machine, String) {
    let machine = Machine::new();
    configure(&machine, "");
    for name in ["x", "dir/y", "z"] {
        machine.write("hot", name, "before");
    }
    let other = machine.folder("other").display().to_string();
    machine.sync("hot", &other, &[]).code(0);
    for name in ["x", "dir/y"] {
        machine.write("hot", name, "here");
        machine.write("other", name, "over there");
    }
    machine.write("other", "z", "after");
    machine.sync("hot", &other, &[]).code(1);
    assert_eq!(machine.read("hot", "z").unwrap(), "after");
    (machine, other)
}

#[test]
fn a_root_that_an_agent_has_open_tells_and_does_the_same_as_without() {
    let (machine, other) = with_conflicts();
    let hot = machine.folder("hot").display().to_string();
    let hot = hot.as_str();
    let asked: [&[&str]; 8] = [
        &["conflicts", hot],
        &["conflicts", hot, "--json"],
        &["versions", hot],
        &["versions", hot, "z", "--json"],
        &["versions", hot, "nothing"],
        &["restore", hot, "nothing"],
        &["restore", hot, "z", "--version", "999", "--json"],
        &["resolve", hot, "nothing", "--keep", "both", "--json"],
    ];
    let alone: Vec<_> = asked.iter().map(|args| told(&machine.run(args))).collect();
    let agent = Running::start(&machine, &[]);
    until("the root is open", || stdout(&machine.run(&["agent", "status"])).contains("watching"));
    for (args, alone) in asked.iter().zip(alone) {
        assert_eq!(told(&machine.run(args)), alone, "{args:?}");
    }
    // Somebody who does not know where the agent is is told why the root cannot be had, and what to do.
    let stranger = Machine::new();
    let refused = stderr(&stranger.run(&["conflicts", hot]).code(3));
    assert!(refused.contains("is held by process") && refused.contains("DRIFTLESS_HOME"), "{refused}");
    // Nor is it synchronised beside the agent, which is told with what to do instead.
    for synced in [machine.sync("hot", &other, &[]), machine.run(&["status", &other, hot])] {
        let refused = stderr(&synced.code(3));
        assert!(refused.contains("is held by process") && refused.contains("driftless agent sync hot"), "{refused}");
    }
    // A state that is named may be another one.
    let elsewhere = machine.folder("elsewhere").display().to_string();
    let refused = stderr(&machine.run(&["conflicts", hot, "--state-dir", &elsewhere]).code(3));
    assert!(refused.contains("its state is gone from"), "{refused}");

    let restored = lines(&machine.run(&["restore", hot, "z", "--json"]).code(0));
    assert_eq!((&restored[0]["event"], &restored[0]["path"]), (&"restored".into(), &"z".into()));
    assert_eq!(machine.read("hot", "z").unwrap(), "before");
    let kept = lines(&machine.run(&["versions", hot, "z", "--json"]).code(0));
    assert_eq!((kept.len(), &kept[0]["size"]), (2, &5.into()), "what stood there is kept: {kept:?}");
    let resolved = machine.run(&["resolve", hot, "x", "dir", "nothing", "--keep", "remote"]).code(2);
    assert_eq!(stdout(&resolved), "dir/y  keep remote\nx  keep remote\n");
    assert!(stderr(&resolved).contains("failed: no open conflict at or below nothing"), "{}", stderr(&resolved));
    assert!(lines(&machine.run(&["conflicts", hot, "--json"]).code(0))[..2].iter().all(|line| line["decided"] == "remote"));

    drop(agent);
    machine.sync("hot", &other, &[]).code(0);
    for name in ["x", "dir/y"] {
        assert_eq!(machine.read("hot", name).unwrap(), "over there");
    }
    assert_eq!(machine.read("other", "z").unwrap(), "before");
}

#[test]
fn a_list_longer_than_one_answer_takes_comes_whole() {
    let machine = Machine::new();
    configure(&machine, "");
    for number in 0..450 {
        machine.write("hot", &format!("file {number}"), "before");
    }
    let other = machine.folder("other").display().to_string();
    machine.sync("hot", &other, &[]).code(0);
    for number in 0..450 {
        machine.write("hot", &format!("file {number}"), "here");
        machine.write("other", &format!("file {number}"), "over there");
    }
    machine.sync("hot", &other, &[]).code(1);
    let hot = machine.folder("hot").display().to_string();
    let alone = told(&machine.run(&["conflicts", &hot, "--json"]));
    assert_eq!(alone.1.lines().count(), 451);
    let _agent = Running::start(&machine, &[]);
    until("the root is open", || stdout(&machine.run(&["agent", "status"])).contains("watching"));
    assert_eq!(told(&machine.run(&["conflicts", &hot, "--json"])), alone);
    assert_eq!(lines(&machine.run(&["resolve", &hot, ".", "--keep", "newer", "--json"]).code(0)).len(), 451);
}

/// Somebody who answers in the place of an agent, and not as one does.
fn impostor(machine: &Machine) -> UnixListener {
    machine.folder("home");
    UnixListener::bind(machine.home().join("agent.sock")).unwrap()
}

/// Answers one question.
fn answer(listener: &UnixListener, meanwhile: impl FnOnce()) {
    let (stream, _) = listener.accept().unwrap();
    BufReader::new(&stream).read_line(&mut String::new()).unwrap();
    meanwhile();
    (&stream).write_all(b"{\"version\":999}\n").unwrap();
}

#[test]
fn why_an_agent_could_not_be_asked_is_told_with_whoever_has_the_root() {
    let (machine, other) = with_conflicts();
    let hot = machine.folder("hot");
    let _held = sync_core::io::sync::Replica::open(&hot, None).unwrap();
    let listener = impostor(&machine);
    // It ends with the process.
    thread::spawn(move || {
        loop {
            answer(&listener, || {});
        }
    });
    let hot = hot.display().to_string();
    for asked in [&["conflicts", &hot][..], &["archive", "status", &hot], &["status", &hot, &other]] {
        let refused = stderr(&machine.run(asked).code(3));
        assert!(refused.contains("is held by process") && refused.contains("speaks version 999"), "{asked:?}: {refused}");
    }
}

#[test]
fn an_interrupted_command_of_the_archive_ends_with_its_summary() {
    let machine = Machine::new();
    let hot = machine.folder("hot");
    let listener = impostor(&machine);
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command.env("DRIFTLESS_HOME", machine.home()).args(["archive", "plan", "--json", "--hot"]).arg(&hot);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // By the time at which it asks an agent, it listens to signals.
    answer(&listener, || kill_process(Pid::from_child(&child), Signal::INT).unwrap());
    let ended = child.wait_with_output().unwrap();
    let line: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((ended.status.code(), &line["event"], &line["moved"]), (Some(130), &"summary".into(), &0.into()), "{ended:?}");
    assert!(line["in_sync"] == false && line["error"].as_str().unwrap().contains("interrupted"), "{line}");
}

/// Two machines with an agent each, and their folder `hot`: `b` listens, `a` calls.
pub(crate) struct Two {
    pub(crate) a: Machine,
    pub(crate) b: Machine,
    agents: Vec<Running>,
}

fn write_config(machine: &Machine, text: &str) {
    let (home, hot) = (machine.folder("home"), machine.folder("hot"));
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let path = home.join("agent.toml");
    fs::write(&path, text.replace("HOT", &hot.display().to_string())).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Two {
    pub(crate) fn new() -> Two {
        let (a, b) = (Machine::new(), Machine::new());
        // Keys are made in a home that is this user's alone.
        let (id_a, id_b) = (a.id(), b.id());
        let folder = |peer: &str| format!("[folders.hot]\npath = \"HOT\"\npeers = {{ {peer} = \"two-way\" }}\n");
        let listening = "name = \"b\"\nstatus = \"off\"\nlisten = [\"127.0.0.1:0\"]\n";
        write_config(&b, &format!("{listening}[peers.a]\nid = \"{id_a}\"\n{}", folder("a")));
        let agent_b = Running::start(&b, &[]);
        let mut address = None;
        until("b listens", || {
            let agent = status(&b).into_iter().find(|line| line["event"] == "agent").unwrap();
            address = agent["listen"][0].as_str().map(str::to_owned);
            address.is_some()
        });
        let peer = format!("[peers.b]\nid = \"{id_b}\"\naddresses = [\"{}\"]\n", address.unwrap());
        write_config(&a, &format!("name = \"a\"\nstatus = \"off\"\n{peer}{}", folder("b")));
        let agent_a = Running::start(&a, &[]);
        Two { a, b, agents: vec![agent_a, agent_b] }
    }

    /// The agent of `a` archives by this rule from now on.
    pub(crate) fn archive_on_a(&self, rule: &str) {
        let path = self.a.home().join("agent.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{text}{rule}")).unwrap();
        self.a.run(&["agent", "reload"]).code(0);
        until("the rule is known", || status(&self.a).iter().any(|line| line["archive"].is_object()));
    }

    /// Both have the same files with the same bytes.
    pub(crate) fn are_equal(&self) -> bool {
        let tree = |machine: &Machine| files(&machine.folder("hot"));
        tree(&self.a) == tree(&self.b)
    }
}

pub(crate) fn status(machine: &Machine) -> Vec<Value> {
    let told = driftless().env("DRIFTLESS_HOME", machine.home()).args(["agent", "status", "--json"]).output().unwrap();
    String::from_utf8(told.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Why the folder cannot be used, once it cannot.
fn unavailable(machine: &Machine) -> String {
    let mut why = String::new();
    until("the folder is unavailable", || {
        let folder = status(machine).into_iter().find(|line| line["event"] == "folder").unwrap();
        why = folder["why"].as_str().unwrap_or_default().to_owned();
        folder["state"] == "unavailable"
    });
    why
}

/// Files with their bytes, by path; `.driftless` left out.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map_while(Result::ok) {
        let name = entry.file_name().into_string().unwrap();
        if name == ".driftless" {
            continue;
        }
        // Archived days are read through their links.
        if fs::metadata(entry.path()).is_ok_and(|meta| meta.is_dir()) {
            found.extend(files(&entry.path()).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            // One that is just being replaced is looked at again.
            found.push((name, fs::read(entry.path()).unwrap_or_default()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_folder_whose_state_or_disk_was_lost_begins_anew_as_its_agent_advises_and_nothing_goes() {
    let two = Two::new();
    let names = ["one", "dir/two", "dir/deep/three"];
    for name in names {
        two.a.write("hot", name, &format!("{name} of a"));
    }
    until("b has them", || names.iter().all(|name| two.b.read("hot", name).is_some()));
    for whole in [false, true] {
        let hot = two.a.folder("hot");
        if whole {
            fs::remove_dir_all(&hot).unwrap();
            fs::create_dir(&hot).unwrap();
        } else {
            fs::remove_dir_all(hot.join(".driftless")).unwrap();
            // Written after the loss, here and there.
            two.b.write("hot", "later on b", "b");
        }
        two.a.write("hot", "later on a", "a");
        two.a.run(&["agent", "sync", "hot"]).code(0);
        let why = unavailable(&two.a);
        let advice = why.split_once("driftless agent rejoin hot").unwrap_or_else(|| panic!("no advice: {why}"));
        assert!(advice.0.contains("Nothing was changed"), "{why}");
        assert!(stdout(&two.a.run(&["agent", "status"]).code(2)).contains("driftless agent rejoin hot"));
        assert_eq!(two.b.read("hot", "one").unwrap(), "one of a", "nothing counts as deleted");

        let begun = stdout(&two.a.run(&["agent", "rejoin", "hot"]).code(0));
        assert!(begun.contains("begins anew"), "{begun}");
        let all = names.iter().chain(&["later on a", "later on b"]);
        until("all is on both", || {
            two.are_equal() && all.clone().all(|name| two.a.read("hot", name).is_some() && two.b.read("hot", name).is_some())
        });
        assert_eq!(files(&two.b.folder("hot")).len(), 5, "and nothing else: {:?}", files(&two.b.folder("hot")));
    }
    // Both go on as before.
    fs::remove_file(two.a.folder("hot").join("one")).unwrap();
    two.b.write("hot", "dir/two", "edited");
    until("changes go both ways", || two.are_equal() && two.b.read("hot", "one").is_none());
    drop(two.agents);
}

#[test]
fn a_folder_that_is_not_there_does_not_begin_anew_and_another_name_is_refused() {
    let machine = Machine::new();
    configure(&machine, "");
    let hot = machine.folder("hot");
    let _agent = Running::start(&machine, &[]);
    until("the root is open", || stdout(&machine.run(&["agent", "status"])).contains("watching"));
    fs::remove_dir_all(&hot).unwrap();
    let refused = stderr(&machine.run(&["agent", "rejoin", "hot"]).code(3));
    assert!(refused.contains("does not exist: create it, or mount its disk, first"), "{refused}");
    assert!(stderr(&machine.run(&["agent", "rejoin", "cold"]).code(3)).contains("no folder is named cold"));
}
