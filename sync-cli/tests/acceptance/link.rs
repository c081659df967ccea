//! What lies between the command and the second root: `DRIFTLESS_TEST_LINK` is `local` (the default), `quic`, `ssh` or `pipe`.

use crate::lab::driftless;
use crate::serving::Serving;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How a second root is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By its path.
    Local,
    /// Exported by a server of its own, with an identity of its own.
    Quic,
    /// Through a program that does what ssh does, without another machine.
    Ssh,
    /// The same where UDP does not pass.
    Pipe,
}

/// The link of this run of the tests.
pub(crate) fn kind() -> Kind {
    match std::env::var("DRIFTLESS_TEST_LINK").as_deref() {
        Err(_) | Ok("" | "local") => Kind::Local,
        Ok("quic") => Kind::Quic,
        Ok("ssh") => Kind::Ssh,
        Ok("pipe") => Kind::Pipe,
        Ok(other) => panic!("DRIFTLESS_TEST_LINK={other}: local, quic, ssh and pipe are known"),
    }
}

/// Is the link local? If not, the test that asks is skipped, and says why.
pub(crate) fn is_local(why: &str) -> bool {
    if kind() != Kind::Local {
        eprintln!("SKIPPED for {:?}: {why}", kind());
    }
    kind() == Kind::Local
}

/// Servers of second roots, and the identities of both sides.
pub(crate) struct Link {
    homes: TempDir,
    serving: Mutex<BTreeMap<(PathBuf, Vec<String>), Serving>>,
}

impl Link {
    pub(crate) fn new() -> Link {
        Link { homes: tempfile::tempdir().unwrap(), serving: Mutex::default() }
    }

    /// Adds a second root to a command with these arguments; what has to serve it stays until the link goes.
    pub(crate) fn add(&self, command: &mut Command, root: &Path, args: &[&str]) {
        let own = decided_there(args);
        command.env("DRIFTLESS_HOME", self.homes.path().join("a"));
        match kind() {
            Kind::Local => drop(command.arg(root)),
            Kind::Quic => {
                let mut all = self.serving.lock().unwrap();
                let serving = all.entry((root.to_path_buf(), own.clone())).or_insert_with(|| self.serve(root, &own));
                command.arg(format!("quic://{}/root", serving.address)).args(["--peer", "b"]);
            }
            Kind::Ssh | Kind::Pipe => {
                let rsh = self.rsh(&own);
                // No host can have such a name, and nobody has to be asked for it.
                let host = if kind() == Kind::Ssh { "127.0.0.1".to_owned() } else { "x".repeat(64) };
                command.arg(format!("{host}:{}", root.display())).args(["--rsh", &format!("sh {}", rsh.display())]);
                command.args(["--remote-command", env!("CARGO_BIN_EXE_driftless")]);
            }
        }
    }

    /// Servers of second roots end, and have closed them when this returns; the next command has its own.
    pub(crate) fn close(&self) {
        let serving = std::mem::take(&mut *self.serving.lock().unwrap());
        serving.into_values().for_each(end_well);
    }

    /// All that serves second roots is killed, and writes nothing any more when this returns.
    pub(crate) fn kill(&self) {
        self.serving.lock().unwrap().clear();
        for entry in fs::read_dir(self.homes.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "pid") {
                // It is there a moment before it says anything.
                let until = Instant::now() + Duration::from_secs(60);
                let pid = loop {
                    match fs::read_to_string(&path).unwrap().trim().parse() {
                        Err(error) if Instant::now() >= until => panic!("{}: {error}", path.display()),
                        Err(_) => std::thread::yield_now(),
                        Ok(pid) => break pid,
                    }
                };
                fs::remove_file(path).unwrap();
                kill_and_wait(pid);
            }
        }
    }

    fn serve(&self, root: &Path, own: &[String]) -> Serving {
        let (here, there) = (self.homes.path().join("a"), self.homes.path().join("b"));
        if !here.exists() {
            add_peer(&there, "a", &id(&here), &["--grant", "root=two-way"]);
            add_peer(&here, "b", &id(&there), &[]);
        }
        let args = [&["--root".into(), format!("root={}", root.display())], own].concat();
        Serving::start(&there, &args)
    }

    /// Runs the command for the other machine on this one.
    fn rsh(&self, own: &[String]) -> PathBuf {
        let script = self.homes.path().join(format!("rsh{}", own.concat().replace('/', "_")));
        if !script.exists() {
            let (new, more) = (script.with_extension("new"), own.join(" "));
            // What it becomes keeps its id, and can be killed by it.
            fs::write(&new, format!("#!/bin/sh\necho $$ > \"$0.$$.pid\"\nexec sh -c \"exec $2 {more}\"\n")).unwrap();
            fs::rename(new, &script).unwrap();
        }
        script
    }
}

/// Of the arguments of a command those that a server decides itself.
fn decided_there(args: &[&str]) -> Vec<String> {
    let decided = ["--state-dir", "--keep-versions"];
    // ssh hands the second one on.
    let decided = if kind() == Kind::Quic { &decided[..] } else { &decided[..1] };
    let pairs = args.windows(2).filter(|pair| decided.contains(&pair[0]));
    pairs.flatten().map(|word| (*word).to_owned()).collect()
}

impl Drop for Link {
    /// A server ends when it is asked to, whatever it has served.
    fn drop(&mut self) {
        let serving = std::mem::take(self.serving.get_mut().unwrap_or_else(PoisonError::into_inner));
        serving.into_values().for_each(end_well);
    }
}

fn end_well(serving: Serving) {
    let ended = serving.end(Signal::TERM);
    let well = ended.code == Some(0);
    assert!(well || std::thread::panicking(), "a server ended with {:?}: {}{}", ended.code, ended.out, ended.err);
}

/// The other side of a command that was killed: it ends by itself, or now.
fn kill_and_wait(pid: i32) {
    let Some(process) = Pid::from_raw(pid) else { return };
    let runs = || {
        // Whoever has ended and was not waited for is a zombie, and does nothing any more.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains("(driftless)") && !stat.contains(") Z")
    };
    while runs() {
        let _ = kill_process(process, Signal::KILL);
        // Somebody else's child: nothing but its entry tells that it has gone.
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn id(home: &Path) -> String {
    let out = driftless().env("DRIFTLESS_HOME", home).arg("id").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn add_peer(home: &Path, name: &str, id: &str, args: &[&str]) {
    let out = driftless().env("DRIFTLESS_HOME", home).args(["peer", "add", name, id]).args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
