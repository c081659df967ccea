//! Two machines with a root each, one of which serves its root to the other.

use crate::serving::Serving;
use fixtures::disk::still_there;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// No run here may take longer, on however busy a machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// The folder's name.
pub(crate) const FOLDER: &str = "root";

/// The machine `a`, which calls, and `b`, which serves; each with a root of the same name.
pub(crate) struct Lab {
    home: TempDir,
}

/// A run under way, killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    out: Option<JoinHandle<String>>,
    err: Option<JoinHandle<String>>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A number from the environment, or the given one.
pub(crate) fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

fn driftless(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command.env("DRIFTLESS_HOME", home);
    command
}

impl Lab {
    /// Two machines that know each other, with empty roots.
    pub(crate) fn new() -> Lab {
        let lab = Lab { home: tempfile::tempdir().unwrap() };
        ["a", "b"].iter().for_each(|root| fs::create_dir(lab.root(root)).unwrap());
        lab.knows("b", "a", &lab.id("a"), &["--grant", &format!("{FOLDER}=two-way")]);
        lab.knows("a", "b", &lab.id("b"), &[]);
        lab
    }

    pub(crate) fn root(&self, root: &str) -> PathBuf {
        self.home.path().join(root)
    }

    /// The home folder of a machine.
    pub(crate) fn home(&self, machine: &str) -> PathBuf {
        self.home.path().join(format!("home-{machine}"))
    }

    /// The id of a machine, made when it is first asked for.
    pub(crate) fn id(&self, machine: &str) -> String {
        let out = driftless(&self.home(machine)).arg("id").output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// Makes a machine known to another one.
    pub(crate) fn knows(&self, machine: &str, name: &str, id: &str, args: &[&str]) {
        let out = driftless(&self.home(machine)).args(["peer", "add", name, id]).args(args).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    /// Writes a file of a root, and the folders above it.
    pub(crate) fn write(&self, root: &str, path: &str, content: &[u8]) {
        let path = self.root(root).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Arguments of `serve` that give out the root of `b`.
    pub(crate) fn export(&self) -> [String; 2] {
        ["--root".into(), format!("{FOLDER}={}", self.root("b").display())]
    }

    /// Serves the root of `b` on loopback.
    pub(crate) fn serve(&self) -> Serving {
        Serving::start(&self.home("b"), &self.export())
    }

    /// The command that synchronises `a` with what is served at the address.
    pub(crate) fn sync(&self, address: &str) -> Command {
        let mut command = driftless(&self.home("a"));
        command.args(["sync", "--batch", "--json"]).arg(self.root("a"));
        command.arg(format!("quic://{address}/{FOLDER}")).args(["--peer", "b"]);
        command
    }

    /// Beginnings of large files in the stage of a root, in bytes.
    pub(crate) fn begun(&self, root: &str) -> u64 {
        let Ok(stage) = fs::read_dir(self.root(root).join(".driftless/stage")) else { return 0 };
        let halves = stage.map(Result::unwrap).filter(|entry| entry.file_name().to_string_lossy().starts_with("half-"));
        // One that is whole may go meanwhile.
        halves.filter_map(|entry| still_there(entry.metadata())).map(|found| found.len()).sum()
    }

    /// What the files of a root hold, by their paths; as hashes.
    pub(crate) fn files(&self, root: &str) -> BTreeMap<String, [u8; 32]> {
        let root = self.root(root);
        let mut found = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in still_there(fs::read_dir(&folder)).into_iter().flatten().map(Result::unwrap) {
                let path = entry.path();
                match entry.file_type().unwrap() {
                    kind if kind.is_dir() && entry.file_name() != ".driftless" => folders.push(path),
                    kind if kind.is_file() => {
                        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                        if let Some(bytes) = still_there(fs::read(path)) {
                            found.insert(name, *blake3::hash(&bytes).as_bytes());
                        }
                    }
                    _ => {}
                }
            }
        }
        found
    }

    /// Both roots hold the same files, which are so many.
    #[track_caller]
    pub(crate) fn assert_same(&self, count: usize) {
        let (a, b) = (self.files("a"), self.files("b"));
        let differing: Vec<&String> = a.keys().chain(b.keys()).filter(|path| a.get(*path) != b.get(*path)).take(5).collect();
        assert!(differing.is_empty() && a.len() == count, "{} and {} files, which differ at {differing:?}", a.len(), b.len());
    }
}

impl Running {
    /// Starts a command.
    pub(crate) fn start(mut command: Command) -> Running {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Running { child, out: Some(all_of(out)), err: Some(all_of(err)) }
    }

    pub(crate) fn process(&self) -> &Child {
        &self.child
    }

    /// Has it ended?
    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ran {
        let until = Instant::now() + PATIENCE;
        while !self.is_over() {
            assert!(Instant::now() < until, "the run does not come to its end");
            // Nothing tells of the end of a process but asking.
            thread::sleep(Duration::from_millis(5));
        }
        let code = self.child.wait().unwrap().code();
        let text = |thread: &mut Option<JoinHandle<String>>| thread.take().unwrap().join().unwrap();
        Ran { code, out: text(&mut self.out), err: text(&mut self.err) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already unless a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn all_of(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        from.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    })
}

impl Ran {
    /// The run ended with this exit code.
    #[track_caller]
    pub(crate) fn code(&self, code: i32) -> &Ran {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    /// One number of the summary.
    #[track_caller]
    pub(crate) fn count(&self, field: &str) -> u64 {
        let summary: Value = serde_json::from_str(self.out.lines().last().unwrap_or_default()).unwrap();
        assert_eq!(summary["event"], "summary", "{}", self.out);
        summary[field].as_u64().unwrap_or_else(|| panic!("no {field} in {summary}"))
    }

    /// Bytes that crossed the link, both ways.
    #[track_caller]
    pub(crate) fn traffic(&self) -> u64 {
        self.count("bytes_sent") + self.count("bytes_received")
    }
}
