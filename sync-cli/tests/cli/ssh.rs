//! Roots behind ssh: by a program that does what ssh does on one machine, and by Debian's sshd on loopback.

use crate::machine::Machine;
use crate::pair::{stderr, summary};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

const DRIFTLESS: &str = env!("CARGO_BIN_EXE_driftless");

/// A program in place of ssh: it gets a host and a command line.
fn rsh(machine: &Machine, script: &str) -> String {
    let path = machine.folder("bin").join("rsh");
    fs::write(&path, script).unwrap();
    format!("sh {}", path.display())
}

/// A command line for its shell, as sshd would run it.
const RUN: &str = "exec sh -c \"exec $2\"";

#[test]
fn a_path_on_another_machine_is_a_root() {
    let (near, far) = (Machine::new(), Machine::new());
    let rsh = rsh(&near, RUN);
    near.write("hot", "from here", "1");
    far.write("it's $HOME", "from there", "2");
    let root = format!("me@localhost:{}", far.folder("it's $HOME").display());
    let args = ["--json", "--rsh", &rsh, "--remote-command", DRIFTLESS];
    let done = summary(&near.sync("hot", &root, &args).code(0));
    assert!(done["created"] == 2 && done["bytes_sent"].as_u64().unwrap() > 0, "{done}");
    assert_eq!((far.read("it's $HOME", "from here").unwrap(), near.read("hot", "from there").unwrap()), ("1".into(), "2".into()));
    assert_eq!(summary(&near.sync("hot", &root, &args).code(0))["created"], 0);
}

#[test]
fn where_udp_does_not_pass_the_session_goes_through_ssh() {
    let (near, far) = (Machine::new(), Machine::new());
    // It listens where nobody calls.
    let rsh = rsh(&near, "exec sh -c \"exec $2 --listen 127.0.0.77:0\"");
    near.write("hot", "from here", "1");
    for at in 0..300 {
        far.write("hot", &format!("d/{at}"), &"x".repeat(at * 20));
    }
    let root = format!("127.0.0.1:{}", far.folder("hot").display());
    let args = ["--json", "--rsh", &rsh, "--remote-command", DRIFTLESS];
    let done = near.sync("hot", &root, &args);
    assert_eq!(summary(&done.success())["created"], 302);
    let again = near.sync("hot", &root, &args).code(0);
    assert!(summary(&again)["created"] == 0 && stderr(&again).contains("all data goes through ssh"), "{}", stderr(&again));
    assert_eq!((far.read("hot", "from here").unwrap(), near.read("hot", "d/3").unwrap().len()), ("1".into(), 60));
}

#[test]
fn what_goes_wrong_before_the_other_side_answers_is_told() {
    let near = Machine::new();
    for (script, command, word) in [
        ("exit 255", DRIFTLESS, "ssh could not connect"),
        ("exit 0", DRIFTLESS, "without an answer"),
        (RUN, "/nowhere/driftless", "was not found there"),
        (RUN, "true", "without an answer"),
        ("exec sh -c \"exec $2 --no-such-option\"", DRIFTLESS, "does not know how to serve"),
        ("yes", DRIFTLESS, "without an answer"),
    ] {
        let rsh = rsh(&near, script);
        let told = stderr(&near.sync("hot", "web2:/srv", &["--rsh", &rsh, "--remote-command", command]).code(3));
        assert!(told.contains("cannot reach web2:/srv") && told.contains(word), "{script}: {told}");
    }
    let told = stderr(&near.sync("hot", "web2:/srv", &["--rsh", "/nowhere/ssh"]).code(3));
    assert!(told.contains("cannot start /nowhere/ssh"), "{told}");
    assert!(!near.folder("hot").join(".driftless").exists());
}

#[test]
fn a_signal_while_ssh_connects_ends_the_command_at_once() {
    let near = Machine::new();
    let started = near.dir.path().join("started");
    let rsh = rsh(&near, &format!("touch '{}'; exec cat", started.display()));
    let mut command = Command::new(DRIFTLESS);
    command.args(["sync", "--batch", "--rsh", &rsh]).arg(near.folder("hot")).arg("web2:/srv");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_until("ssh is started", || started.exists());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn the_session_over_there_ends_when_its_pipe_does() {
    let far = Machine::new();
    let id = Machine::new().id();
    let root = format!("root={}", far.folder("hot").display());
    let mut command = Command::new(DRIFTLESS);
    command.args(["serve", "--once", &id, "--root", &root]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let offer: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(offer["event"] == "offer" && offer["port"].as_u64().unwrap() > 0, "{line}");
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if done() {
            return;
        }
        // A file or a process of somebody else: nothing tells of it.
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: not within 30 seconds");
}

/// Debian's sshd on loopback, with keys of its own; killed when it is dropped.
struct Sshd {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Sshd {
    /// `None`, said loudly, where it is not installed or cannot run.
    fn start() -> Option<Sshd> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.exists() || Command::new("ssh").arg("-V").output().is_err() {
            eprintln!("SKIPPED: roots behind a real sshd are NOT tested: openssh-server is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        for key in ["host", "user"] {
            let made =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.path().join(key)).status();
            assert!(made.unwrap().success());
        }
        if rustix::process::geteuid().is_root() {
            // Its own package makes it at boot.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        // Free a moment ago; sshd cannot choose one.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PermitRootLogin yes\nPasswordAuthentication no\n",
            at("host"),
            at("user.pub")
        );
        fs::write(at("config"), config).unwrap();
        let mut command = Command::new(program);
        command.args(["-D", "-e", "-f", &at("config")]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("Server listening")), "sshd does not listen");
        thread::spawn(move || lines.for_each(drop));
        Some(Sshd { child, port, dir })
    }

    fn rsh(&self) -> String {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let options = "-o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR";
        format!("ssh -T -F /dev/null -i {} -o UserKnownHostsFile={} {options}", at("user"), at("known"))
    }

    fn root(&self, path: PathBuf) -> String {
        format!("ssh://127.0.0.1:{}{}", self.port, path.display())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_machine_with_nothing_but_sshd_and_the_program_is_synchronised() {
    let Some(sshd) = Sshd::start() else { return };
    let (near, far) = (Machine::new(), Machine::new());
    near.write("hot", "from here", "1");
    far.write("hot", "a b/from there", "2");
    let (rsh, root) = (sshd.rsh(), sshd.root(far.folder("hot")));
    let args = ["--json", "--rsh", &rsh, "--remote-command", DRIFTLESS];
    let done = summary(&near.sync("hot", &root, &args).code(0));
    assert_eq!((&done["created"], &done["in_sync"]), (&3.into(), &true.into()), "{done}");
    assert_eq!((far.read("hot", "from here").unwrap(), near.read("hot", "a b/from there").unwrap()), ("1".into(), "2".into()));
    far.write("hot", "from here", "edited");
    near.sync("hot", &root, &args).code(0);
    assert_eq!(near.read("hot", "from here").unwrap(), "edited");
    // Not let in: ssh says why, and nothing is changed.
    let wrong = sshd.rsh().replace("/user ", "/host ");
    let told = stderr(&near.sync("hot", &root, &["--rsh", &wrong]).code(3));
    assert!(told.contains("ssh could not connect"), "{told}");
}
