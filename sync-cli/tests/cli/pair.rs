//! Two roots (or three) in a temporary folder, the command, and what tests ask of both.

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// Two roots named `a` and `b`; further ones on demand.
pub(crate) struct Pair {
    home: TempDir,
}

/// The command, in a clean environment.
pub(crate) fn driftless() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command.env_remove("DRIFTLESS_HOME").timeout(Duration::from_secs(600));
    command
}

impl Pair {
    /// Two empty roots.
    pub(crate) fn new() -> Pair {
        let pair = Pair { home: tempfile::tempdir().unwrap() };
        for root in ["a", "b"] {
            fs::create_dir(pair.root(root)).unwrap();
        }
        pair
    }

    /// Two roots that were synchronised with these files, each holding its own path as its content.
    pub(crate) fn synced(files: &[&str]) -> Pair {
        let pair = Pair::new();
        for file in files {
            pair.write("a", file, file);
        }
        pair.sync(&[]).code(0);
        pair
    }

    /// A root by its name.
    pub(crate) fn root(&self, root: &str) -> PathBuf {
        self.home.path().join(root)
    }

    /// A path below a root.
    pub(crate) fn at(&self, root: &str, path: impl AsRef<OsStr>) -> PathBuf {
        self.root(root).join(path.as_ref())
    }

    /// Writes a file, and the folders above it.
    pub(crate) fn write(&self, root: &str, path: impl AsRef<OsStr>, text: &str) {
        let path = self.at(root, path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Writes a file whose modification time is so many seconds after 2020.
    pub(crate) fn write_at(&self, root: &str, path: &str, text: &str, seconds: u64) {
        self.write(root, path, text);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800 + seconds);
        fs::File::options().write(true).open(self.at(root, path)).unwrap().set_modified(time).unwrap();
    }

    /// What a file holds; `None` if nothing is there.
    pub(crate) fn read(&self, root: &str, path: impl AsRef<OsStr>) -> Option<String> {
        fs::read_to_string(self.at(root, path)).ok()
    }

    /// Removes a file or a folder.
    pub(crate) fn remove(&self, root: &str, path: &str) {
        let path = self.at(root, path);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    /// Renames within a root.
    pub(crate) fn rename(&self, root: &str, from: &str, to: &str) {
        fs::rename(self.at(root, from), self.at(root, to)).unwrap();
    }

    /// `sync --batch a b` with further arguments.
    pub(crate) fn sync(&self, args: &[&str]) -> Assert {
        self.sync_roots("a", "b", args)
    }

    /// `sync --batch` of two roots by name.
    pub(crate) fn sync_roots(&self, first: &str, second: &str, args: &[&str]) -> Assert {
        driftless().args(["sync", "--batch"]).args(args).args([self.root(first), self.root(second)]).assert()
    }

    /// Another command on the first root, arguments behind the root.
    pub(crate) fn on_a(&self, command: &str, args: &[&str]) -> Assert {
        driftless().arg(command).arg(self.root("a")).args(args).assert()
    }

    /// Everything below a root but `.driftless`: paths, and contents or targets.
    pub(crate) fn tree(&self, root: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        tree(&self.root(root))
    }

    /// Do both roots hold the same?
    pub(crate) fn assert_equal(&self) {
        assert_eq!(self.tree("a"), self.tree("b"));
    }

    /// Names in a folder of a root, `.driftless` left aside.
    pub(crate) fn names(&self, root: &str) -> Vec<String> {
        self.tree(root).keys().map(|path| path.to_string_lossy().into_owned()).collect()
    }
}

/// Everything below a folder but its `.driftless`.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut tree = BTreeMap::new();
    walk(root, root, &mut tree);
    tree
}

fn walk(root: &Path, dir: &Path, tree: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_path_buf();
        if name.as_os_str() == ".driftless" {
            continue;
        }
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        let held = if kind.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else if kind.is_dir() {
            walk(root, &path, tree);
            b"/".to_vec()
        } else {
            fs::read(&path).unwrap()
        };
        tree.insert(name, held);
    }
}

/// The JSON lines of a run; the last one is its summary.
pub(crate) fn lines(assert: &Assert) -> Vec<Value> {
    let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.last().unwrap()["event"], "summary", "{text}");
    lines
}

/// The summary of a run with `--json`.
pub(crate) fn summary(assert: &Assert) -> Value {
    lines(assert).pop().unwrap()
}

/// What a run wrote to stdout.
pub(crate) fn stdout(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

/// What a run wrote to stderr.
pub(crate) fn stderr(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}
