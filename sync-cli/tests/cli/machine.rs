//! Machines: each is a folder of its own, with a home and folders to synchronise.

use crate::pair::{driftless, lines, stdout};
use crate::serving::Serving;
use assert_cmd::assert::Assert;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use tempfile::TempDir;

/// A machine, as far as the command knows: its home folder.
pub(crate) struct Machine {
    pub(crate) dir: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Machine {
        Machine { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub(crate) fn run(&self, args: &[&str]) -> Assert {
        driftless().env("DRIFTLESS_HOME", self.home()).args(args).assert()
    }

    /// A folder of this machine, made if it is not there.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.dir.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Writes a file of a folder.
    pub(crate) fn write(&self, folder: &str, path: &str, text: &str) {
        let path = self.folder(folder).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Reads a file of a folder; `None` if there is none.
    pub(crate) fn read(&self, folder: &str, path: &str) -> Option<String> {
        fs::read_to_string(self.dir.path().join(folder).join(path)).ok()
    }

    /// Makes another machine known to this one.
    pub(crate) fn knows(&self, name: &str, other: &Machine, args: &[&str]) {
        self.run(&[&["peer", "add", name, &other.id()], args].concat()).code(0);
    }

    /// Serves folders of this machine under their own names.
    pub(crate) fn serve(&self, folders: &[&str], args: &[&str]) -> Serving {
        self.serve_at("127.0.0.1:0", folders, args)
    }

    /// The same at any address.
    pub(crate) fn serve_at(&self, address: &str, folders: &[&str], args: &[&str]) -> Serving {
        let roots = folders.iter().flat_map(|name| ["--root".into(), format!("{name}={}", self.folder(name).display())]);
        let args: Vec<String> = roots.chain(args.iter().map(|arg| (*arg).to_owned())).collect();
        Serving::start_at(address, &self.home(), &args)
    }

    /// `sync --batch` of a folder of this machine and any other root.
    pub(crate) fn sync(&self, folder: &str, other: &str, args: &[&str]) -> Assert {
        let folder = self.folder(folder).display().to_string();
        self.run(&[&["sync", "--batch", &folder, other], args].concat())
    }

    pub(crate) fn id(&self) -> String {
        stdout(&self.run(&["id"]).code(0)).trim().to_owned()
    }

    /// The known peers, as JSON.
    pub(crate) fn peers(&self) -> Vec<Value> {
        let mut lines = lines(&self.run(&["peer", "list", "--json"]).code(0));
        assert_eq!(lines.pop().unwrap()["count"], lines.len());
        lines
    }

    /// `pair --listen`, and the code that it shows.
    pub(crate) fn show_code(&self, args: &[&str]) -> Showing {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command.env("DRIFTLESS_HOME", self.home()).args(["pair", "--listen", "127.0.0.1:0"]).args(args);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            line.trim().to_owned()
        };
        let (code, address) = if args.contains(&"--json") {
            let event: Value = serde_json::from_str(&line()).unwrap();
            assert_eq!((&event["event"], &event["seconds"]), (&"code".into(), &600.into()));
            (event["code"].as_str().unwrap().to_owned(), event["address"].as_str().unwrap().to_owned())
        } else {
            let (code, address) = (line(), line());
            (code.strip_prefix("code ").unwrap().to_owned(), address.strip_prefix("listening on ").unwrap().to_owned())
        };
        Showing { child, out, code, address }
    }
}

/// A command that waits for the other machine.
pub(crate) struct Showing {
    child: Child,
    out: BufReader<ChildStdout>,
    pub(crate) code: String,
    pub(crate) address: String,
}

impl Showing {
    /// Its exit code, and what else it wrote.
    pub(crate) fn end(mut self) -> (i32, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code().unwrap(), out, err)
    }

    /// A code that is well-formed and another one.
    pub(crate) fn wrong_code(&self) -> &'static str {
        if self.code == "0000-0000" { "1234-5671" } else { "0000-0000" }
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        // It has ended already unless a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
