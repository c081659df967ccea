//! `driftless agent`: the process, its configuration, its control.

use crate::machine::Machine;
use crate::pair::{driftless, lines, stderr, stdout};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// How long a line may take that has to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// An agent under way, killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    log: Receiver<String>,
}

impl Running {
    pub(crate) fn start(machine: &Machine, args: &[&str]) -> Running {
        Running::start_with(machine, args, |_| {})
    }

    /// Waits until it answers.
    fn start_with(machine: &Machine, args: &[&str], change: impl FnOnce(&mut Command)) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command.env("DRIFTLESS_HOME", machine.home()).args(["agent", "run"]).args(args);
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"] {
            command.env_remove(name);
        }
        change(&mut command);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut running = Running::of(child);
        running.is_ready();
        running
    }

    /// A process that was begun, whose outputs can be read.
    fn of(mut child: Child) -> Running {
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        let (tell, log) = channel();
        thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                // Nobody may listen any more.
                let _ = tell.send(line);
            }
        });
        Running { child, out, log }
    }

    /// Waits until it answers.
    fn is_ready(&mut self) {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert!(line.contains("agent.sock"), "{line:?} {:?}", self.log.recv_timeout(PATIENCE));
    }

    /// Waits for a line on stderr.
    pub(crate) fn says(&self, word: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no line with {word:?}: {error}"));
            if line.contains(word) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit code, and what else it wrote to stdout.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let mut out = String::new();
        self.out.read_to_string(&mut out).unwrap();
        (self.child.wait().unwrap().code(), out)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already if a test ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A machine with a configuration: folder `hot`, and more text.
fn machine(more: &str) -> Machine {
    let machine = Machine::new();
    configure(&machine, more);
    machine
}

pub(crate) fn configure(machine: &Machine, more: &str) {
    let hot = machine.folder("hot");
    machine.folder("home");
    let text = format!("name = \"web-1\"\nstatus = \"off\"\n[folders.hot]\npath = \"{}\"\n{more}\n", hot.display());
    fs::write(machine.home().join("agent.toml"), text).unwrap();
    // Whatever the mask of the one who runs the tests.
    for (path, mode) in [(machine.home(), 0o700), (machine.home().join("agent.toml"), 0o600)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

pub(crate) fn states(machine: &Machine) -> Vec<(String, String)> {
    let told = driftless().env("DRIFTLESS_HOME", machine.home()).args(["agent", "status", "--json"]).output().unwrap();
    let events = String::from_utf8(told.stdout).unwrap();
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&events[0]["event"], &events.last().unwrap()["event"]), (&"agent".into(), &"summary".into()));
    let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    events.iter().filter(|event| event["event"] == "folder").map(|event| (text(event, "name"), text(event, "state"))).collect()
}

fn paused(machine: &Machine) -> Vec<String> {
    states(machine).into_iter().filter(|(_, state)| state == "paused").map(|(name, _)| name).collect()
}

#[test]
fn an_agent_is_set_up_asked_steered_and_ended() {
    let machine = Machine::new();
    let told = stdout(&machine.run(&["agent", "init"]).code(0));
    let config = machine.home().join("agent.toml");
    assert!(told.contains(config.to_str().unwrap()), "{told}");
    let text = fs::read_to_string(&config).unwrap();
    assert!(stderr(&machine.run(&["agent", "init"]).code(3)).contains("is there already"));
    assert_eq!(fs::read_to_string(&config).unwrap(), text);
    // The example listens at a port that another test may have.
    fs::write(&config, text.replace("\"0.0.0.0:4477\"", "").replace("#status = \"127.0.0.1:4478\"", "status = \"off\"")).unwrap();
    let running = Running::start(&machine, &[]);
    let status = stdout(&machine.run(&["agent", "status"]));
    assert!(status.contains("no folders") && status.contains(&machine.id()), "{status}");

    for name in ["hot", "cold"] {
        let folder = machine.folder(name);
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, format!("{text}[folders.{name}]\npath = \"{}\"\n", folder.display())).unwrap();
        let told = stdout(&machine.run(&["agent", "reload"]).code(0));
        assert_eq!(told, format!("folder {name} added\n"));
    }
    assert_eq!(stdout(&machine.run(&["agent", "reload"]).code(0)), "nothing has changed\n");
    assert_eq!(states(&machine).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["cold", "hot"]);

    machine.run(&["agent", "pause", "hot"]).code(0);
    assert_eq!(paused(&machine), ["hot"]);
    assert!(stdout(&machine.run(&["agent", "status"]).code(1)).contains("hot  paused"));
    assert!(stderr(&machine.run(&["agent", "sync", "hot"]).code(3)).contains("folder hot is paused"));
    assert!(stderr(&machine.run(&["agent", "sync", "hot", "--allow-delete"]).code(3)).contains("folder hot is paused"));
    machine.run(&["agent", "resume", "hot"]).code(0);
    assert!(paused(&machine).is_empty());
    // Whose deletions are meant has to be said.
    machine.run(&["agent", "sync", "--allow-delete"]).code(64);
    machine.run(&["agent", "pause"]).code(0);
    assert_eq!(paused(&machine), ["cold", "hot"]);
    machine.run(&["agent", "resume"]).code(0);
    for verb in ["pause", "resume", "sync"] {
        let told = stderr(&machine.run(&["agent", verb, "other"]).code(3));
        assert!(told.contains("no folder is named other; there are: cold, hot"), "{told}");
    }

    assert_eq!(stdout(&machine.run(&["agent", "stop"]).code(0)), "the agent has ended\n");
    assert_eq!(running.end().0, Some(0));
    for args in [&["status"][..], &["pause"], &["resume", "hot"], &["sync"], &["reload"], &["stop"]] {
        let told = stderr(&machine.run(&[&["agent"], args].concat()).code(3));
        assert!(told.contains("no agent answers at") && told.contains("driftless agent run"), "{told}");
    }
}

#[test]
fn an_agent_says_where_its_status_page_is() {
    let machine = machine("");
    let config = machine.home().join("agent.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("status = \"off\"", "status = \"127.0.0.1:0\"")).unwrap();
    let _running = Running::start(&machine, &[]);
    let status = stdout(&machine.run(&["agent", "status"]));
    let line = status.lines().find_map(|line| line.trim().strip_prefix("status page http://")).unwrap();
    let mut page = TcpStream::connect(line.trim_end_matches('/')).unwrap();
    page.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    page.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
}

#[test]
fn a_hangup_reloads_and_what_makes_no_sense_changes_nothing() {
    let machine = machine("");
    let running = Running::start(&machine, &[]);
    configure(&machine, "[limits]\nexchanges = 2");
    running.signal(Signal::HUP);
    running.says("reloaded: limits changed");
    running.signal(Signal::HUP);
    running.says("reloaded: nothing has changed");

    configure(&machine, "conflict = \"skip\"\n[folders.cold]\npath = \"x\"");
    running.signal(Signal::HUP);
    running.says("the configuration stays as it was");
    let config = machine.home().join("agent.toml").display().to_string();
    running.says(&format!("{config}:5: folders.hot.conflict: unknown key; did you mean conflicts?"));
    let told = stderr(&machine.run(&["agent", "reload"]).code(64));
    assert!(told.contains(&format!("{config}:7: folders.cold.path: \"x\" is relative")), "{told}");
    let told = lines(&machine.run(&["agent", "reload", "--json"]).code(64));
    assert!(told.last().unwrap()["error"].as_str().unwrap().contains("folders.cold.path"), "{told:?}");
    assert_eq!(states(&machine).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["hot"]);

    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn a_reload_keeps_what_is_paused() {
    let machine = machine("");
    let _running = Running::start(&machine, &[]);
    machine.run(&["agent", "pause", "hot"]).code(0);
    configure(&machine, "quiet = \"1s\"");
    let told = lines(&machine.run(&["agent", "reload", "--json"]).code(0));
    assert_eq!((&told[0]["event"], &told[0]["folders"]["changed"]), (&"reloaded".into(), &serde_json::json!(["hot"])));
    assert_eq!(paused(&machine), ["hot"]);
}

#[test]
fn a_home_has_one_agent_and_a_killed_one_leaves_no_obstacle() {
    let machine = machine("");
    let running = Running::start(&machine, &["--json"]);
    let socket = machine.home().join("agent.sock");
    assert_eq!(socket.symlink_metadata().unwrap().mode() & 0o777, 0o600);
    let told = stderr(&machine.run(&["agent", "run"]).code(3));
    assert!(told.contains("an agent runs already") && told.contains(&format!("as process {}", running.child.id())), "{told}");
    assert_eq!(states(&machine).len(), 1);

    running.signal(Signal::KILL);
    assert_eq!(running.end().0, None);
    assert!(socket.symlink_metadata().is_ok());
    assert!(stderr(&machine.run(&["agent", "status"]).code(3)).contains("no agent answers"));
    let running = Running::start(&machine, &["--json"]);
    assert_eq!(states(&machine).len(), 1);
    running.signal(Signal::INT);
    let (code, out) = running.end();
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((code, &last["event"]), (Some(130), &"summary".into()));
    assert!(socket.symlink_metadata().is_err());
}

#[test]
fn an_agent_begins_right_after_another_was_killed() {
    let machine = machine("");
    let mut running = Running::start(&machine, &[]);
    for _ in 0..10 {
        running.signal(Signal::KILL);
        // The system clears up after the one that was killed while the next one begins.
        let next = Running::start(&machine, &[]);
        assert_eq!(running.end().0, None);
        running = next;
    }
}

#[test]
fn who_is_ending_is_waited_for() {
    // As a process that is dying or finishes its step: the lock is there, and nobody answers.
    let machine = machine("");
    let lock = fs::File::create(machine.home().join("agent.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let home = machine.home();
    let waiting = Command::new(env!("CARGO_BIN_EXE_driftless"))
        .env("DRIFTLESS_HOME", &home)
        .args(["agent", "run"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running::of(waiting);
    running.says("has not ended yet: it is waited for");
    drop(lock);
    running.is_ready();

    // The lock has gone, and the socket still lets somebody in.
    drop(running);
    let socket = home.join("agent.sock");
    fs::remove_file(&socket).unwrap();
    let leaving = UnixListener::bind(&socket).unwrap();
    let gone = thread::spawn(move || drop((leaving.accept().unwrap(), leaving)));
    Running::start(&machine, &[]);
    gone.join().unwrap();
}

#[test]
fn an_agent_that_does_not_answer_is_told_in_time() {
    let machine = machine("");
    let _silent = UnixListener::bind(machine.home().join("agent.sock")).unwrap();
    let told = stderr(&machine.run(&["agent", "status"]).code(3));
    assert!(told.contains("did not answer in time"), "{told}");
    let told = stderr(&machine.run(&["agent", "run"]).code(3));
    assert!(told.contains("does not hold the agent's lock"), "{told}");
}

#[test]
fn a_configuration_that_is_missing_or_makes_no_sense_is_told_with_what_to_do() {
    let machine = machine("peers = { lap = \"two-way\" }");
    let told = stderr(&machine.run(&["agent", "run"]).code(64));
    assert!(told.contains(":5: folders.hot.peers.lap: no peer is named lap") && told.contains("driftless pair"), "{told}");
    let other = machine.dir.path().join("other.toml");
    let other = other.to_str().unwrap();
    assert!(stderr(&machine.run(&["agent", "run", "--config", other]).code(3)).contains("cannot open the configuration"));
    machine.run(&["agent", "init", "--config", other, "--json"]).code(0);
    fs::write(other, "name = \"other\"\nstatus = \"off\"\n").unwrap();
    let running = Running::start(&machine, &["--config", other]);
    assert!(stdout(&machine.run(&["agent", "status"])).starts_with("other: "));
    drop(running);
    let told = stderr(&Machine::new().run(&["agent", "run"]).code(3));
    assert!(told.contains("/etc/driftless/agent.toml") && told.contains("driftless agent init"), "{told}");
}

#[test]
fn a_peer_that_was_paired_or_added_needs_no_table() {
    let machine = machine("peers = { lap = \"two-way\" }");
    machine.knows("lap", &Machine::new(), &["lap.example.net:4477"]);
    let _running = Running::start(&machine, &[]);
    let events = lines(&machine.run(&["agent", "status", "--json"]).code(1));
    let peer = &events[1]["peers"][0];
    assert_eq!((&peer["name"], &peer["mode"], &peer["link"]), (&"lap".into(), &"two-way".into(), &"apart".into()));
    machine.run(&["peer", "remove", "lap"]).code(0);
    assert!(stderr(&machine.run(&["agent", "reload"]).code(64)).contains("no peer is named lap"));
}

#[test]
fn a_service_manager_hears_how_the_agent_is() {
    let machine = machine("");
    let path = machine.dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hears = |word: &str| loop {
        let mut bytes = [0; 256];
        let count = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("{word}: {error}"));
        if String::from_utf8_lossy(&bytes[..count]).starts_with(word) {
            return;
        }
    };
    let running = Running::start_with(&machine, &[], |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "2000000");
    });
    hears("READY=1");
    hears("WATCHDOG=1");
    hears("WATCHDOG=1");
    running.signal(Signal::HUP);
    hears("RELOADING=1");
    hears("READY=1");
    running.signal(Signal::TERM);
    hears("STOPPING=1");
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn under_a_journal_each_line_has_its_priority() {
    let machine = machine("");
    let log = fs::File::create(machine.dir.path().join("log")).unwrap();
    let found = log.metadata().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command.env("DRIFTLESS_HOME", machine.home()).args(["agent", "run"]);
    command.env("JOURNAL_STREAM", format!("{}:{}", found.dev(), found.ino())).env_remove("NOTIFY_SOCKET");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    machine.run(&["agent", "pause", "hot"]).code(0);
    machine.run(&["agent", "stop"]).code(0);
    assert!(child.wait().unwrap().success());
    let text = fs::read_to_string(machine.dir.path().join("log")).unwrap();
    assert!(text.lines().any(|line| line == "<5>folder hot is paused"), "{text}");
    assert!(text.lines().all(|line| line.starts_with('<')), "{text}");
}
