//! Roots in a temporary folder, the command, and what tests ask of both.

use crate::link::Link;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Roots by name below one folder; `a` and `b` are there from the beginning.
pub(crate) struct Lab {
    home: TempDir,
    pub(crate) link: Link,
}

/// How a run ended.
pub(crate) struct Ran(pub(crate) Output);

/// Everything that two synchronised roots agree in at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime_ns: i128,
    /// Hash of a file, target of a link.
    pub(crate) content: Vec<u8>,
}

/// A number from the environment, or the given one.
pub(crate) fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The command in a clean environment.
pub(crate) fn driftless() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command.env_remove("DRIFTLESS_HOME");
    command
}

impl Lab {
    pub(crate) fn new() -> Lab {
        let lab = Lab { home: tempfile::tempdir().unwrap(), link: Link::new() };
        for root in ["a", "b"] {
            fs::create_dir(lab.root(root)).unwrap();
        }
        lab
    }

    /// Two roots that were synchronised with these files, each holding its own path as its content.
    pub(crate) fn synced(files: &[&str]) -> Lab {
        let lab = Lab::new();
        for file in files {
            lab.write("a", file, file);
        }
        lab.sync(&[]).code(0);
        lab
    }

    pub(crate) fn root(&self, root: &str) -> PathBuf {
        self.home.path().join(root)
    }

    pub(crate) fn at(&self, root: &str, path: impl AsRef<OsStr>) -> PathBuf {
        self.root(root).join(path.as_ref())
    }

    /// The path of a new folder for states outside of the roots.
    pub(crate) fn states(&self) -> String {
        self.mkdir("states", "");
        self.root("states").to_string_lossy().into_owned()
    }

    /// Writes a file, and the folders above it.
    pub(crate) fn write(&self, root: &str, path: impl AsRef<OsStr>, content: impl AsRef<[u8]>) {
        let path = self.at(root, path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// As `write`, with a modification time so many seconds after 2020.
    pub(crate) fn write_at(&self, root: &str, path: &str, content: &str, seconds: i64) {
        self.write(root, path, content);
        self.touch(root, path, seconds);
    }

    /// Sets a modification time, so many seconds after 2020.
    pub(crate) fn touch(&self, root: &str, path: &str, seconds: i64) {
        fixtures::disk::set_mtime(&self.at(root, path), (1_577_836_800 + seconds) * 1_000_000_000).unwrap();
    }

    pub(crate) fn link(&self, root: &str, path: &str, target: &str) {
        let path = self.at(root, path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    pub(crate) fn mkdir(&self, root: &str, path: &str) {
        fs::create_dir_all(self.at(root, path)).unwrap();
    }

    pub(crate) fn read(&self, root: &str, path: impl AsRef<OsStr>) -> Option<String> {
        fs::read(self.at(root, path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Removes a path with everything below it.
    pub(crate) fn remove(&self, root: &str, path: &str) {
        let path = self.at(root, path);
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
    }

    pub(crate) fn rename(&self, root: &str, from: &str, to: &str) {
        fs::rename(self.at(root, from), self.at(root, to)).unwrap();
    }

    /// `sync --batch --json` of `a` and `b`.
    pub(crate) fn sync(&self, args: &[&str]) -> Ran {
        self.sync_roots("a", "b", args)
    }

    /// `sync --batch --json` of two roots by name.
    pub(crate) fn sync_roots(&self, first: &str, second: &str, args: &[&str]) -> Ran {
        run(self.command_with(first, second, args).args(args))
    }

    /// The command that `sync_roots` runs.
    pub(crate) fn command(&self, first: &str, second: &str) -> Command {
        self.command_with(first, second, &[])
    }

    fn command_with(&self, first: &str, second: &str, args: &[&str]) -> Command {
        let mut command = driftless();
        command.args(["sync", "--batch", "--json"]).arg(self.root(first));
        self.link.add(&mut command, &self.root(second), args);
        command
    }

    pub(crate) fn assert_equal(&self) {
        assert_same(&self.root("a"), &self.root("b"));
    }

    /// Both roots are equal, and a further run finds nothing to do and touches nothing.
    pub(crate) fn assert_settled(&self) {
        self.assert_equal();
        self.assert_quiet("a", "b", 0, &[]);
    }

    /// A run ends with this code and has changed nothing, by its own account and by the file system's.
    pub(crate) fn assert_quiet(&self, first: &str, second: &str, code: i32, args: &[&str]) {
        let before = (untouched(&self.root(first)), untouched(&self.root(second)));
        let ran = self.sync_roots(first, second, args);
        ran.code(code).changed_nothing();
        assert!(before == (untouched(&self.root(first)), untouched(&self.root(second))), "a run of nothing touched a root");
    }

    /// Paths of everything in a root.
    pub(crate) fn names(&self, root: &str) -> Vec<String> {
        snapshot(&self.root(root)).keys().map(|path| path.to_string_lossy().into_owned()).collect()
    }

    /// Does one of the kept versions of a root hold these bytes?
    pub(crate) fn keeps(&self, root: &str, content: &[u8]) -> bool {
        kept(&self.root(root)).contains(blake3::hash(content).as_bytes().as_slice())
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    Ran(command.output().unwrap())
}

impl Ran {
    /// The run ended with this exit code.
    #[track_caller]
    pub(crate) fn code(&self, code: i32) -> &Ran {
        assert_eq!(self.0.status.code(), Some(code), "{}\n{}\n{}", self.0.status, self.stdout(), self.stderr());
        self
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// The JSON lines.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// One number of the summary.
    #[track_caller]
    pub(crate) fn count(&self, field: &str) -> u64 {
        let lines = self.lines();
        let summary = lines.last().unwrap_or_else(|| panic!("no summary: {}", self.stderr()));
        assert_eq!(summary["event"], "summary", "{}", self.stdout());
        summary[field].as_u64().unwrap_or_else(|| panic!("no {field} in {summary}"))
    }

    #[track_caller]
    pub(crate) fn changed_nothing(&self) -> &Ran {
        for field in ["created", "updated", "deleted", "moved"] {
            assert_eq!(self.count(field), 0, "{field}: {}", self.stdout());
        }
        self
    }

    #[track_caller]
    pub(crate) fn without_conflicts(&self) -> &Ran {
        assert_eq!(self.count("conflicts"), 0, "{}", self.stdout());
        self
    }
}

/// Everything below a folder but `.driftless`, which other file systems mounted below have, too.
pub(crate) fn snapshot(root: &Path) -> BTreeMap<PathBuf, Held> {
    let mut all = BTreeMap::new();
    walk(root, root, &mut |name, path, meta| {
        let content = if meta.is_symlink() {
            fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()
        } else if meta.is_file() {
            blake3::hash(&fs::read(path).unwrap()).as_bytes().to_vec()
        } else {
            Vec::new()
        };
        let mtime_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        all.insert(name, Held { mode: meta.mode(), owner: (meta.uid(), meta.gid()), mtime_ns, content });
    });
    all
}

/// What moves at every change of a path: inode and change time.
pub(crate) fn untouched(root: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut all = BTreeMap::new();
    walk(root, root, &mut |name, _, meta| {
        all.insert(name, (meta.ino(), meta.ctime(), meta.ctime_nsec()));
    });
    all
}

/// Hashes of all kept versions of a root.
pub(crate) fn kept(root: &Path) -> std::collections::BTreeSet<Vec<u8>> {
    let mut all = std::collections::BTreeSet::new();
    let versions = root.join(".driftless/versions");
    if versions.exists() {
        walk(&versions, &versions, &mut |_, path, meta| {
            if meta.is_file() {
                all.insert(blake3::hash(&fs::read(path).unwrap()).as_bytes().to_vec());
            }
        });
    }
    all
}

fn walk(root: &Path, dir: &Path, each: &mut dyn FnMut(PathBuf, &Path, &fs::Metadata)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_path_buf();
        if name.file_name().is_some_and(|name| name == ".driftless") {
            continue;
        }
        let meta = fs::symlink_metadata(&path).unwrap();
        each(name, &path, &meta);
        if meta.is_dir() {
            walk(root, &path, each);
        }
    }
}

/// Two folders hold the same, attributes included.
#[track_caller]
pub(crate) fn assert_same(a: &Path, b: &Path) {
    let (here, there) = (snapshot(a), snapshot(b));
    if here == there {
        return;
    }
    let paths: std::collections::BTreeSet<_> = here.keys().chain(there.keys()).collect();
    let differing: Vec<_> = paths.into_iter().filter(|path| here.get(*path) != there.get(*path)).collect();
    let shown: Vec<_> =
        differing.iter().take(8).map(|path| format!("{path:?}\n  {:?}\n  {:?}", here.get(*path), there.get(*path))).collect();
    panic!("{} paths differ:\n{}", differing.len(), shown.join("\n"));
}
