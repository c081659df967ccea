//! Two roots with days, a cold root on another file system, and days placed there by hand.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use sync_core::entry::AttrMask;
use sync_core::io::fs::{Choice, Choose, Cold, ColdId, Placement, Places, Replace, Root, init_cold};
use sync_core::io::link::local_pair;
use sync_core::io::places;
use sync_core::io::state::State;
use sync_core::io::sync::{Export, Host, HostOptions, Kept, Live, Options, Place, Policy, Remote, Report, Sync};
use sync_core::path::RelPath;
use sync_core::peer::{Mode, PublicKey};
use sync_core::plan::Totals;
use sync_core::report::Silent;
use tempfile::TempDir;

/// The days of the roots.
pub(crate) const DAYS: [&str; 3] = ["2026/03/05", "2026/03/06", "2026/04/01"];
/// What is in each.
pub(crate) const FILES: [&str; 5] = ["a.txt", "b.txt", "c.txt", "sub/deep/d.txt", "sub/e.txt"];

/// Roots `a` and `b`, in agreement, and a cold root.
pub(crate) struct Lab {
    folder: TempDir,
    cold: TempDir,
}

/// How far the placing of a day goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Until {
    Announced,
    Exchanged,
    Settled,
}

pub(crate) fn rel(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

/// A folder on another file system than temporary ones, if there is one.
fn other_file_system() -> TempDir {
    let shared = Path::new("/dev/shm");
    let here = std::env::temp_dir().metadata().unwrap().dev();
    if shared.metadata().is_ok_and(|shared| shared.dev() != here) {
        return TempDir::new_in(shared).unwrap();
    }
    eprintln!("no second file system here: hot and cold are on one");
    TempDir::new().unwrap()
}

impl Lab {
    pub(crate) fn new() -> Lab {
        Lab::with_cold(other_file_system())
    }

    /// Hot and cold on one file system.
    pub(crate) fn on_one() -> Lab {
        Lab::with_cold(TempDir::new().unwrap())
    }

    pub(crate) fn with_cold(cold: TempDir) -> Lab {
        let lab = Lab::made(cold);
        lab.synchronise();
        lab
    }

    /// Nothing of it is at `b` yet.
    pub(crate) fn without_days() -> Lab {
        Lab::made(other_file_system())
    }

    fn made(cold: TempDir) -> Lab {
        let folder = TempDir::new().unwrap();
        for root in ["a", "b"] {
            fs::create_dir(folder.path().join(root)).unwrap();
        }
        let lab = Lab { folder, cold };
        for day in DAYS {
            for file in FILES {
                write(&lab.a(), &format!("{day}/{file}"), &format!("first {day} {file}"));
            }
            std::os::unix::fs::symlink("a.txt", lab.a().join(day).join("link")).unwrap();
        }
        write(&lab.a(), "beside", "beside");
        init_cold(&lab.cold()).unwrap();
        lab
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn a(&self) -> PathBuf {
        self.folder.path().join("a")
    }

    pub(crate) fn b(&self) -> PathBuf {
        self.folder.path().join("b")
    }

    pub(crate) fn cold(&self) -> PathBuf {
        self.cold.path().canonicalize().unwrap()
    }

    pub(crate) fn sync(&self) -> Report {
        sync(self.folder())
    }

    /// A run after which both agree.
    pub(crate) fn synchronise(&self) -> [Totals; 2] {
        let report = self.sync();
        assert!(report.in_sync, "{:?} {:?}", report.totals, report.problems);
        assert_eq!(tree(&self.a()), tree(&self.b()));
        report.totals
    }

    /// A run that cannot do everything: what it says.
    pub(crate) fn troubled(&self) -> Vec<String> {
        let report = self.sync();
        assert!(!report.in_sync);
        report.problems.iter().map(|(_, problem)| format!("{}: {}", problem.path, problem.error)).collect()
    }

    /// Places a day of `b`.
    pub(crate) fn place(&self, day: &str) {
        place(&self.b(), &self.cold(), day, Until::Settled);
    }

    /// Names of what is kept of `b` in the cold root.
    pub(crate) fn kept_cold(&self) -> Vec<PathBuf> {
        self.private("versions")
    }

    /// What is left of stagings, in both.
    pub(crate) fn staged(&self) -> Vec<PathBuf> {
        let hot = entries(&self.b().join(".driftless/stage"));
        self.private("stage").into_iter().chain(hot).collect()
    }

    pub(crate) fn private(&self, folder: &str) -> Vec<PathBuf> {
        let keys = entries(&self.cold().join(".driftless"));
        keys.iter().flat_map(|key| entries(&key.join(folder))).collect()
    }

    /// What the folder of `b` in the cold root says of its owner.
    pub(crate) fn owner(&self) -> String {
        let owners = entries(&self.cold().join(".driftless")).into_iter().map(|key| key.join("owner"));
        let mut owners = owners.filter(|owner| owner.exists());
        let owner = fs::read_to_string(owners.next().unwrap()).unwrap();
        assert!(owners.next().is_none());
        owner
    }

    /// Of which paths the cold root bears stamps.
    #[cfg(feature = "kill-points")]
    pub(crate) fn stamped(&self) -> Vec<String> {
        let texts = self.private("placed").into_iter().map(|stamp| fs::read_to_string(stamp).unwrap());
        let path = |text: String| text.lines().find_map(|line| line.strip_prefix("path ").map(str::to_owned)).unwrap();
        let mut paths: Vec<_> = texts.map(path).collect();
        paths.sort();
        paths
    }

    pub(crate) fn is_link(&self, day: &str) -> bool {
        self.b().join(day).symlink_metadata().is_ok_and(|now| now.is_symlink())
    }

    /// Own counter and number of live paths of `b`: what an event would change.
    pub(crate) fn knows(&self) -> (u64, u64) {
        let state = open_state(&self.b());
        assert_eq!(state.check().unwrap(), Vec::<String>::new());
        (state.counter(), state.live().unwrap())
    }

    pub(crate) fn state(&self) -> State {
        open_state(&self.b())
    }

    pub(crate) fn places(&self) -> Places {
        self.state().places().unwrap()
    }

    pub(crate) fn placed(&self) -> Vec<String> {
        self.places().all().map(|placement| placement.path.to_string()).collect()
    }
}

pub(crate) fn sync(folder: &Path) -> Report {
    let mut sync = Sync::open(&folder.join("a"), &folder.join("b"), options(), &Silent).unwrap();
    sync.apply(&Silent).unwrap()
}

/// A run that begins anew where something was lost.
pub(crate) fn rejoin(folder: &Path) -> Report {
    let options = Options { rejoin: true, ..options() };
    Sync::open(&folder.join("a"), &folder.join("b"), options, &Silent).unwrap().apply(&Silent).unwrap()
}

fn options() -> Options {
    Options { max_delete: None, conflicts: Policy::KeepBoth, ..Options::standard() }
}

fn mask() -> AttrMask {
    AttrMask::standard(rustix::process::geteuid().is_root())
}

fn open_state(root: &Path) -> State {
    State::open(&root.join(".driftless"), mask()).unwrap()
}

/// Which days are made in the cold root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstDay {
    In2026,
    /// The same, but the cold root goes before anything comes.
    InMissing,
}

/// Days of 2026 lie in the cold root.
struct Old {
    cold: Arc<Cold>,
}

impl Choose for Old {
    fn choose(&self, path: &RelPath) -> Option<Choice> {
        let at = self.cold.path.join(path.to_string());
        let is_day = path.depth() == 3 && path.as_bytes().starts_with(b"2026/");
        let link = at.as_os_str().as_bytes().into();
        is_day.then(|| Choice { cold: self.cold.clone(), at: path.clone(), job: "test".into(), link })
    }
}

/// A run of `a` with `b`, which stays open at an agent that has a rule for old days.
pub(crate) fn live_sync(lab: &Lab, first: FirstDay) {
    live_sync_at((lab.folder(), &lab.cold()), first);
}

/// The same by the paths of the folder and of the cold root.
pub(crate) fn live_sync_at((folder, cold_root): (&Path, &Path), first: FirstDay) {
    let [a, b] = ["a", "b"].map(|side| folder.join(side));
    let live = Live::open("folder".parse().unwrap(), &b, options(), false, &Silent).unwrap();
    let cold = live.placing(|root, state| places::use_cold(root, state, cold_root)).unwrap();
    live.root().set_chooser(Some(Arc::new(Old { cold })));
    if first == FirstDay::InMissing {
        fs::rename(cold_root.join(".driftless"), cold_root.join("aside")).unwrap();
    }
    let live = Arc::new(live);
    let [near, far] = local_pair([1, 2].map(|key| PublicKey::from_bytes([key; 32])), [7; 32]);
    let kept: Kept = Arc::new({
        let live = live.clone();
        move || Some(live.clone())
    });
    let export = Export { name: live.name().clone(), path: b, live: Some(kept) };
    let host = Host::new(vec![export], HostOptions { state_dir: None, keep_versions: None });
    thread::scope(|scope| {
        let served = scope.spawn(|| host.serve(far, &|_| Some(Mode::TwoWay), &Silent));
        let (connection, folder) = (Arc::new(near), live.name().clone());
        let remote = Remote { connection, folder, sub: RelPath::root(), shown: "quic://host/folder".into(), vouched: None };
        let mut sync = Sync::open_with(Place::Local(a), Place::Remote(remote), options(), &Silent).unwrap();
        let report = sync.apply(&Silent).unwrap();
        assert!(report.in_sync, "{:?} {:?}", report.totals, report.problems);
        drop(sync);
        served.join().unwrap().unwrap();
    });
    if first == FirstDay::InMissing {
        fs::rename(cold_root.join("aside"), cold_root.join(".driftless")).unwrap();
    }
}

/// Moves a day of a root to a cold root, as who moves days does it.
pub(crate) fn place(root: &Path, cold: &Path, day: &str, until: Until) {
    let (opened, state) = (Root::open(root).unwrap(), open_state(root));
    places::load(&opened, &state).unwrap();
    place_with((&opened, &state), cold, day, until);
    state.close().unwrap();
}

/// The same in an open root.
pub(crate) fn place_with((opened, state): (&Root, &State), cold: &Path, day: &str, until: Until) {
    let root = opened.path();
    let used = places::use_cold(opened, state, cold).unwrap();
    let at = cold.join(day);
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    let copied = Command::new("cp").arg("-a").args([&root.join(day), &at]).status().unwrap();
    assert!(copied.success());
    let placement = Placement {
        path: rel(day),
        cold: used,
        at: rel(day),
        job: "test".into(),
        stamp: ColdId::random().unwrap(),
        link: at.as_os_str().as_bytes().into(),
        other_link: None,
        settled: false,
        rewritten: Default::default(),
    };
    places::announce(opened, state, placement).unwrap();
    if until >= Until::Exchanged {
        let private = opened.private(&[]).unwrap();
        private.create_symlink(b"aside", at.as_os_str().as_bytes()).unwrap();
        let (parent, name) = rel(day).split().unwrap();
        private.rename(b"aside", &opened.hot(&parent).unwrap(), name.as_bytes(), Replace::Exchange).unwrap();
        fs::remove_dir_all(root.join(".driftless/aside")).unwrap();
    }
    if until == Until::Settled {
        let changes = places::handover((opened, state, mask()), &rel(day), Some(&mut |_| None)).unwrap();
        places::settle(opened, state, &rel(day), changes).unwrap();
    }
}

pub(crate) fn write(root: &Path, path: &str, bytes: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map_or_else(|_| Vec::new(), |listed| listed.map(|entry| entry.unwrap().path()).collect())
}

/// What programs see: through links to directories, never in private folders. Links to files tell their text.
pub(crate) fn tree(root: &Path) -> Vec<(String, String)> {
    let mut tree = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        for path in entries(&dir).into_iter().filter(|path| !path.ends_with(".driftless")) {
            let shown = path.strip_prefix(root).unwrap().display().to_string();
            let what = if path.is_dir() {
                waiting.push(path);
                "directory".into()
            } else {
                match fs::read_link(&path) {
                    Ok(target) => format!("-> {}", target.display()),
                    Err(_) => fs::read_to_string(&path).unwrap(),
                }
            };
            tree.push((shown, what));
        }
    }
    tree.sort();
    tree
}
