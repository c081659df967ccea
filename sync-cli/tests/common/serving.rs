//! A `driftless serve` under way. Shared by the suites.

use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};

/// The process, killed when it is dropped.
pub(crate) struct Serving {
    child: Child,
    out: BufReader<ChildStdout>,
    err: Option<JoinHandle<String>>,
    /// Where it listens.
    pub(crate) address: String,
}

/// How a server ended, and all that it said.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Serving {
    /// Serves on loopback with the identity and the peers of this home folder, and waits until it listens.
    pub(crate) fn start(home: &Path, args: &[impl AsRef<OsStr>]) -> Serving {
        Serving::start_at("127.0.0.1:0", home, args)
    }

    /// The same at any address.
    pub(crate) fn start_at(address: &str, home: &Path, args: &[impl AsRef<OsStr>]) -> Serving {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command.env("DRIFTLESS_HOME", home).args(["serve", "--listen", address]).args(args);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut err = child.stderr.take().unwrap();
        let err = thread::spawn(move || {
            let mut text = Vec::new();
            err.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let json: Option<serde_json::Value> = serde_json::from_str(&line).ok();
        let address = match &json {
            Some(event) => event["address"].as_str(),
            None => line.trim_end().strip_prefix("listening on "),
        };
        let Some(address) = address.map(str::to_owned) else {
            let _ = child.kill();
            panic!("the server does not listen: {line:?} {}", err.join().unwrap());
        };
        Serving { child, out, err: Some(err), address }
    }

    /// The most memory that it ever held, in bytes.
    #[allow(dead_code, reason = "not every suite asks")]
    pub(crate) fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    /// Sends a signal, and waits for the end.
    pub(crate) fn end(mut self, signal: Signal) -> Ended {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let mut out = String::new();
        self.out.read_to_string(&mut out).unwrap();
        let code = self.child.wait().unwrap().code();
        Ended { code, out, err: self.err.take().unwrap().join().unwrap() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It has ended already if a test ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
