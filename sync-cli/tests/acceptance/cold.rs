//! A root whose days go to a cold root, and a second replica of it: the command `driftless archive`, and what is looked at.

use crate::lab::{Held, Lab, Ran, driftless, run};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A clock of the rule at which all that tests write is old.
pub(crate) const NOW: &str = "2030-01-01T00:00:00Z";
/// One at which everything that was kept for years may go.
pub(crate) const LATER: &str = "2050-01-01T00:00:00Z";
/// Keeps what a move displaced until [`LATER`].
pub(crate) const FOR_YEARS: &str = "90000h";

/// Root `a` with days, root `b` as its replica, and a cold root.
pub(crate) struct Server {
    pub(crate) lab: Lab,
    cold: TempDir,
}

/// A folder on another file system than temporary files, where there is one.
pub(crate) fn on_another_disk() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

impl Server {
    /// With a cold root on another file system, or on the same.
    pub(crate) fn new(other_disk: bool) -> Server {
        let cold = if other_disk { on_another_disk() } else { tempfile::tempdir().unwrap() };
        Server { lab: Lab::new(), cold }
    }

    pub(crate) fn hot(&self) -> PathBuf {
        self.lab.root("a")
    }

    pub(crate) fn cold(&self) -> &Path {
        self.cold.path()
    }

    /// `archive init-cold` of its cold root.
    pub(crate) fn init(&self) {
        run(driftless().args(["archive", "init-cold"]).arg(self.cold())).code(0);
    }

    /// `archive run` or `plan`, all days in question.
    pub(crate) fn rule(&self, what: &str, args: &[&str]) -> Ran {
        run(self.command(what, self.cold(), args).env("DRIFTLESS_NOW", NOW))
    }

    /// As `rule`, with another cold root.
    pub(crate) fn rule_to(&self, what: &str, cold: &Path, args: &[&str]) -> Ran {
        run(self.command(what, cold, args).env("DRIFTLESS_NOW", NOW))
    }

    /// The command that `rule` runs, at the clock that the caller sets.
    pub(crate) fn command(&self, what: &str, cold: &Path, args: &[&str]) -> Command {
        let mut command = driftless();
        command.args(["archive", what, "--json", "--timezone", "UTC", "--hot"]).arg(self.hot());
        command.arg("--cold").arg(cold).args(args);
        command
    }

    /// `archive restore` of all days, `archive verify`, `archive status`.
    pub(crate) fn on_hot(&self, what: &str, args: &[&str]) -> Command {
        let mut command = driftless();
        command.args(["archive", what, "--json"]).arg(self.hot()).args(args).env("DRIFTLESS_NOW", NOW);
        command
    }

    pub(crate) fn is_link(&self, day: &str) -> bool {
        self.hot().join(day).symlink_metadata().unwrap().is_symlink()
    }

    /// What readers find in the root: links into the cold root are what they lead to.
    pub(crate) fn seen(&self) -> BTreeMap<PathBuf, Held> {
        seen(&self.hot(), self.cold())
    }

    /// Both replicas hold the same, through the links of this one.
    #[track_caller]
    pub(crate) fn assert_equal(&self) {
        let (here, there) = (self.seen(), seen(&self.lab.root("b"), self.cold()));
        let paths: std::collections::BTreeSet<_> = here.keys().chain(there.keys()).collect();
        let differing: Vec<_> = paths.into_iter().filter(|path| here.get(*path) != there.get(*path)).collect();
        let shown = differing.iter().take(5).map(|path| format!("{path:?}: {:?}, {:?}", here.get(*path), there.get(*path)));
        assert!(differing.is_empty(), "{} paths differ: {:#?}", differing.len(), shown.collect::<Vec<_>>());
    }

    /// A synchronisation changes nothing anywhere and deletes nothing: archiving is no event.
    #[track_caller]
    pub(crate) fn assert_no_event(&self) {
        self.lab.sync(&[]).code(0).changed_nothing().without_conflicts();
    }

    /// No move is under way, nothing is kept of one, and each day is in exactly one place.
    #[track_caller]
    pub(crate) fn assert_one_copy(&self, days: &[&str], what: &str) {
        for day in days {
            let in_cold = self.cold().join(day).symlink_metadata().is_ok();
            assert_eq!(in_cold, self.is_link(day), "{what}: {day}: in cold, linked");
        }
        let names = |path: PathBuf| match fs::read_dir(&path) {
            Ok(names) => names.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => Vec::new(),
        };
        let jobs = names(self.hot().join(".driftless/archive"));
        assert!(jobs.is_empty(), "{what}: left in the journal: {jobs:?}");
        for key in names(self.cold().join(".driftless")) {
            let moving = names(key.join("moving"));
            assert!(moving.is_empty(), "{what}: copies on their way: {moving:?}");
            let (sealed, placed) = (names(key.join("sealed")).len(), names(key.join("placed")).len());
            let linked = days.iter().filter(|day| self.is_link(day)).count();
            if key.join("placed").exists() {
                assert_eq!(placed, linked, "{what}: stamps");
                assert!(sealed <= linked, "{what}: {sealed} manifests of {linked} days");
            }
        }
    }
}

/// Everything in a root but its private folder; what lies in `cold` stands where the link to it is. A directory has no times: links
/// come and go in it.
pub(crate) fn seen(root: &Path, cold: &Path) -> BTreeMap<PathBuf, Held> {
    let (mut all, real, cold) = (BTreeMap::new(), root.canonicalize().unwrap(), cold.canonicalize().unwrap());
    let mut dirs = vec![(root.to_owned(), PathBuf::new())];
    while let Some((dir, name)) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.unwrap().path();
            let name = name.join(path.file_name().unwrap());
            if name.as_os_str() == ".driftless" {
                continue;
            }
            let mut meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_symlink() && path.canonicalize().is_ok_and(|real| real.starts_with(&cold) && real.is_dir()) {
                meta = fs::metadata(&path).unwrap();
            }
            let content = match () {
                () if meta.is_dir() => Vec::new(),
                () if meta.is_symlink() => leads_to(&path, [&real, &cold]).as_os_str().as_bytes().to_vec(),
                () => blake3::hash(&fs::read(&path).unwrap()).as_bytes().to_vec(),
            };
            let mtime_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
            let mtime_ns = if meta.is_dir() { 0 } else { mtime_ns };
            if meta.is_dir() {
                dirs.push((path, name.clone()));
            }
            all.insert(name, Held { mode: meta.mode(), owner: (meta.uid(), meta.gid()), mtime_ns, content });
        }
    }
    all
}

/// Where a link leads below one of these roots: one that leads out of its day has another text in the cold root.
fn leads_to(link: &Path, roots: [&Path; 2]) -> PathBuf {
    let Ok(real) = link.canonicalize() else { return fs::read_link(link).unwrap() };
    let below = roots.into_iter().find_map(|root| real.strip_prefix(root).ok().map(Path::to_owned));
    below.unwrap_or_else(|| fs::read_link(link).unwrap())
}
