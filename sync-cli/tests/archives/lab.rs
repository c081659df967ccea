//! Machines with an agent each on this machine's loopback, their trees of days, and what their agents tell.

use fixtures::disk::still_there;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use sync_agent::control::{Client, SocketError};
use sync_agent::status::{ArchiveStatus, FolderStatus, Status};
use sync_core::io::home::Home;
use sync_core::io::link::Identity;
use tempfile::TempDir;

/// By this clock the agents archive: all of March is old, and what came since the fourth of it is watched where it lies.
pub(crate) const NOW: &str = "2026-04-03T12:00:00Z";
/// No wait here may take longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(600);
const GLANCE: Duration = Duration::from_millis(50);
/// The first day of a tree is this second since 1970: 2026-03-01.
const FIRST_S: u64 = 1_772_323_200;
const DAY_S: u64 = 86_400;

/// A number from the environment, or the given one.
pub(crate) fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// Waits until something holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "it never came to be that {what}");
        thread::sleep(GLANCE);
    }
}

/// The name of a day of the tree, from 0.
pub(crate) fn day(number: u64) -> String {
    let date = chrono_free_date(number);
    format!("2026/{:02}/{:02}", date.0, date.1)
}

/// Month and day, from the first of March on; no tree here reaches further than May.
fn chrono_free_date(number: u64) -> (u64, u64) {
    match number {
        0..=30 => (3, number + 1),
        31..=60 => (4, number - 30),
        _ => (5, number - 60),
    }
}

/// Files of a day: what they hold tells where they belong.
pub(crate) fn write_day(root: &Path, number: u64, files: u64) {
    let dir = root.join(day(number));
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(FIRST_S + number * DAY_S + DAY_S / 2);
    for file in 0..files {
        let path = dir.join(format!("part-{}", file % 4)).join(format!("{file:05}.txt"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{} {file}\n", day(number)).repeat(20)).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    }
    for dir in (0..4).map(|part| dir.join(format!("part-{part}"))).chain([dir.clone()]).filter(|dir| dir.is_dir()) {
        File::open(dir).unwrap().set_modified(time).unwrap();
    }
}

/// All files below a root as applications see them: through whatever links there are.
pub(crate) fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in still_there(fs::read_dir(&dir)).into_iter().flatten().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_name() == ".driftless" {
                continue;
            }
            let Some(metadata) = still_there(fs::metadata(&path)) else { continue };
            if metadata.is_dir() {
                waiting.push(path);
            } else if let Some(bytes) = still_there(fs::read(&path)) {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), bytes);
            }
        }
    }
    found
}

/// Where a cold root is; one that the test made goes with it.
pub(crate) struct ColdAt {
    path: PathBuf,
    _made: Option<TempDir>,
}

impl ColdAt {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A machine: its home, its hot root, its cold root.
pub(crate) struct Machine {
    pub(crate) name: &'static str,
    dir: TempDir,
    pub(crate) cold: Option<ColdAt>,
    /// More text for its folder's archive.
    pub(crate) archive: String,
    pub(crate) now: String,
    peers: Vec<String>,
    granted: Vec<String>,
    agent: Option<Child>,
}

impl Machine {
    /// One without a cold root.
    pub(crate) fn hot(name: &'static str) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine {
            name,
            dir,
            cold: None,
            archive: String::new(),
            now: NOW.into(),
            peers: Vec::new(),
            granted: Vec::new(),
            agent: None,
        };
        drop(Home::open(&machine.home()).unwrap());
        fs::create_dir(machine.root()).unwrap();
        machine
    }

    /// One with a cold root, on another file system where there is one.
    pub(crate) fn with_cold(name: &'static str, elsewhere: bool) -> Machine {
        let memory = Path::new("/dev/shm");
        let cold = if elsewhere && memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        Machine::with(name, ColdAt { path: cold.path().to_owned(), _made: Some(cold) })
    }

    /// One whose cold root is a folder that the test looks after.
    pub(crate) fn with_cold_at(name: &'static str, path: &Path) -> Machine {
        Machine::with(name, ColdAt { path: path.to_owned(), _made: None })
    }

    fn with(name: &'static str, cold: ColdAt) -> Machine {
        let mut machine = Machine::hot(name);
        machine.cold = Some(cold);
        assert!(machine.run(&["archive", "init-cold", &machine.cold_path()]).status.success());
        machine
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("hot")
    }

    pub(crate) fn cold_path(&self) -> String {
        self.cold.as_ref().unwrap().path().display().to_string()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Knows another machine, and where that can be called if its agent runs.
    pub(crate) fn knows(&mut self, other: &Machine) {
        let id = Identity::open(&Home::open(&other.home()).unwrap()).unwrap().id();
        let address = other.agent.as_ref().map(|_| other.status().listen[0].to_string());
        let addresses = address.map_or_else(String::new, |address| format!("addresses = [\"{address}\"]\n"));
        self.peers.push(format!("[peers.{}]\nid = \"{id}\"\n{addresses}", other.name));
        self.granted.push(format!("{} = \"two-way\"", other.name));
    }

    /// Knows it at the address that it has now.
    pub(crate) fn knows_anew(&mut self, other: &Machine) {
        let header = format!("[peers.{}]", other.name);
        self.peers.retain(|text| !text.starts_with(&header));
        self.granted.retain(|text| !text.starts_with(&format!("{} =", other.name)));
        self.knows(other);
    }

    pub(crate) fn configure(&self) {
        let mut text = format!("name = \"{}\"\nstatus = \"off\"\nlisten = [\"127.0.0.1:0\"]\n", self.name);
        text += &self.peers.concat();
        let (root, peers) = (self.root(), self.granted.join(", "));
        text += &format!("[folders.hot]\npath = \"{}\"\npeers = {{ {peers} }}\n", root.display());
        if self.cold.is_some() {
            let cold = self.cold_path();
            text += &format!("[archive.hot]\ncold = \"{cold}\"\ntimezone = \"UTC\"\nkeep_displaced = \"1s\"\n{}\n", self.archive);
        }
        let path = self.home().join("agent.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Starts its agent, and waits until that answers.
    pub(crate) fn start(&mut self) {
        self.configure();
        let log = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.command(&["agent", "run"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.agent = Some(command.spawn().unwrap());
        let home = self.home();
        wait_until(&format!("the agent of {} answers", self.name), || matches!(Client::new(&home).status(), Ok(Ok(_))));
    }

    /// Ends its agent as a user does.
    pub(crate) fn stop(&mut self) {
        let Some(mut agent) = self.agent.take() else { return };
        kill_process(Pid::from_child(&agent), Signal::TERM).unwrap();
        wait_until(&format!("the agent of {} ends", self.name), || agent.try_wait().unwrap().is_some());
    }

    /// Ends its agent as a power cut does.
    pub(crate) fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command.env("DRIFTLESS_HOME", self.home()).env("DRIFTLESS_NOW", &self.now).args(args);
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a command on it.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn status(&self) -> Status {
        let mut found = None;
        // An answer that takes longer than the command's patience is one of a busy disk.
        wait_until(&format!("the agent of {} tells how it is", self.name), || match Client::new(&self.home()).status() {
            Err(SocketError::TooLong { .. }) => false,
            answer => {
                found = Some(answer.unwrap().unwrap());
                true
            }
        });
        found.unwrap()
    }

    pub(crate) fn folder(&self) -> FolderStatus {
        self.status().folders.remove(0)
    }

    /// How its archive is; it has one.
    pub(crate) fn archive(&self) -> ArchiveStatus {
        let mut found = None;
        wait_until(&format!("the agent of {} tells of its archive", self.name), || {
            found = self.folder().archive;
            found.is_some()
        });
        found.unwrap()
    }

    /// Has the agent archive, and waits for the run's end, which the command tells.
    pub(crate) fn archive_now(&self) -> ArchiveStatus {
        let before = self.archive().last.map(|last| last.at);
        let told = self.run(&["archive", "run", "--hot", &self.root().display().to_string()]);
        let now = self.archive();
        let last = now.last.as_ref().unwrap();
        let code = match last {
            last if last.error.is_some() => 3,
            last if last.failed > 0 => 2,
            last => i32::from(last.held + last.changed > 0),
        };
        assert!(told.status.code() == Some(code) && Some(last.at) != before, "{told:?} {last:?}");
        now
    }

    /// What a metric of its folder is, if it is known.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let text = sync_agent::metrics::text(&self.status());
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))?;
        line.rsplit(' ').next().unwrap().parse().ok()
    }

    pub(crate) fn is_link(&self, day: &str) -> bool {
        self.root().join(day).symlink_metadata().is_ok_and(|found| found.is_symlink())
    }

    pub(crate) fn is_in_sync(&self) -> bool {
        self.status().summary().in_sync
    }

    /// How often its log holds a text.
    pub(crate) fn says(&self, text: &str) -> usize {
        fs::read_to_string(self.log()).unwrap().lines().filter(|line| line.contains(text)).count()
    }
}

/// Takes the memory of when days were read again out of a root's state.
pub(crate) fn forget_reading(machine: &Machine) {
    let replica = sync_core::io::sync::Replica::open(&machine.root(), None).unwrap();
    replica.put_archive_note("agent.scrubbed", b"[]").unwrap();
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            // What is left here has to go however it is.
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the last of {}:\n{}", self.name, lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}
