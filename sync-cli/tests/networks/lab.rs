//! Machines with an agent each, and what is between them.

use anyhow::{Context as _, Result, bail};
use fixtures::linkemu::{Conditions, Mesh};
use fixtures::tree::{Content, Node, Tree, diff};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use sync_agent::control::Client;
use sync_agent::status::Status;
use sync_core::io::home::Home;
use sync_core::io::link::Identity;
use tempfile::TempDir;

/// No wait here may take longer, on however busy a machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);
/// How often a condition is looked at.
pub(crate) const GLANCE: Duration = Duration::from_millis(50);
const PORT: u16 = 4477;
/// What is shown of each log when a test failed.
const SHOWN: usize = 40;

/// All machines, and the network.
pub(crate) struct Lab {
    pub(crate) mesh: Mesh,
    pub(crate) machines: Vec<Machine>,
    dir: Place,
}

enum Place {
    Passing(TempDir),
    Kept(PathBuf),
}

/// One machine.
pub(crate) struct Machine {
    at: usize,
    pub(crate) name: String,
    home: PathBuf,
    pub(crate) root: PathBuf,
    log: PathBuf,
    /// What its agent finds in its environment besides.
    pub(crate) environment: Vec<(OsString, OsString)>,
    agent: Option<Child>,
}

/// A number from the environment, or the given one.
pub(crate) fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// A good line between two places.
pub(crate) fn good() -> Conditions {
    Conditions::new(100.0, Duration::from_millis(5))
}

/// Waits until something holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > until {
            bail!("it never came to be that {what}");
        }
        thread::sleep(GLANCE);
    }
    Ok(())
}

/// Writes a file, and the folders above it.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

impl Lab {
    /// So many machines named `a`, `b` …, of which the given pairs know each other; either side calls. `folder` is more text for the
    /// configuration of the folder. Nothing runs yet.
    pub(crate) fn new(count: usize, pairs: &[(usize, usize)], folder: &str) -> Result<Option<Lab>> {
        let Some(mesh) = Mesh::or_skip(count, good(), setting("DRIFTLESS_TEST_SEED", 1)) else { return Ok(None) };
        let dir = match std::env::var_os("DRIFTLESS_TEST_KEEP") {
            Some(dir) => Place::Kept(PathBuf::from(dir)),
            None => Place::Passing(tempfile::tempdir()?),
        };
        let machine = |at: usize| -> Result<Machine> {
            let name = char::from(b'a' + u8::try_from(at)?).to_string();
            let (root, home) = (dir.path().join(&name), dir.path().join(format!("{name}.home")));
            fs::create_dir_all(&root)?;
            drop(Home::open(&home)?);
            Ok(Machine {
                at,
                log: dir.path().join(format!("{name}.log")),
                name,
                home,
                root,
                environment: Vec::new(),
                agent: None,
            })
        };
        let machines = (0..count).map(machine).collect::<Result<Vec<_>>>()?;
        let lab = Lab { mesh, machines, dir };
        for machine in &lab.machines {
            lab.configure(machine, pairs, folder)?;
        }
        Ok(Some(lab))
    }

    fn configure(&self, machine: &Machine, pairs: &[(usize, usize)], folder: &str) -> Result<()> {
        let knows = |other: &&Machine| {
            pairs.iter().any(|pair| *pair == (machine.at, other.at) || *pair == (other.at, machine.at)) && machine.at != other.at
        };
        let peers: Vec<&Machine> = self.machines.iter().filter(knows).collect();
        let mut text = format!("name = \"{}\"\nstatus = \"off\"\nlisten = [\"0.0.0.0:{PORT}\"]\n", machine.name);
        for peer in &peers {
            let (id, address) = (Identity::open(&Home::open(&peer.home)?)?.id(), self.mesh.ends[peer.at].address);
            text += &format!("[peers.{}]\nid = \"{id}\"\naddresses = [\"{address}:{PORT}\"]\n", peer.name);
        }
        let modes: Vec<String> = peers.iter().map(|peer| format!("{} = \"two-way\"", peer.name)).collect();
        text += &format!("[folders.hot]\npath = \"{}\"\npeers = {{ {} }}\n{folder}\n", machine.root.display(), modes.join(", "));
        let config = machine.home.join("agent.toml");
        fs::write(&config, text)?;
        Ok(fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?)
    }

    /// Where everything is.
    pub(crate) fn place(&self) -> &Path {
        self.dir.path()
    }

    /// Starts an agent.
    pub(crate) fn start(&mut self, at: usize) -> Result<()> {
        let machine = &mut self.machines[at];
        let log = OpenOptions::new().create(true).append(true).open(&machine.log)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command.env("DRIFTLESS_HOME", &machine.home).args(["agent", "run"]).stdin(Stdio::null());
        ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"].iter().for_each(|name| {
            command.env_remove(name);
        });
        command.envs(machine.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(log.try_clone()?).stderr(log);
        machine.agent = Some(self.mesh.ends[at].run(move || Ok(command.spawn()?))?);
        Ok(())
    }

    /// Starts all agents.
    pub(crate) fn start_all(&mut self) -> Result<()> {
        (0..self.machines.len()).try_for_each(|at| self.start(at))
    }

    /// Ends an agent as a power cut does.
    pub(crate) fn kill(&mut self, at: usize) -> Result<()> {
        if let Some(mut agent) = self.machines[at].agent.take() {
            let before = agent.try_wait()?;
            agent.kill()?;
            agent.wait()?;
            if let Some(status) = before {
                bail!("the agent of {} had ended by itself: {status}", self.machines[at].name);
            }
        }
        Ok(())
    }

    /// Ends all agents as their users do, who see that they end well.
    pub(crate) fn stop_all(&mut self) -> Result<()> {
        for machine in &self.machines {
            if let Some(agent) = &machine.agent {
                kill_process(Pid::from_child(agent), Signal::TERM)?;
            }
        }
        for machine in &mut self.machines {
            if let Some(mut agent) = machine.agent.take() {
                let until = Instant::now() + PATIENCE;
                let status = loop {
                    if let Some(status) = agent.try_wait()? {
                        break status;
                    }
                    if Instant::now() > until {
                        agent.kill()?;
                        bail!("the agent of {} does not end", machine.name);
                    }
                    thread::sleep(GLANCE);
                };
                // Ended by a signal it was asked to end with.
                if !matches!(status.code(), Some(0 | 130)) {
                    bail!("the agent of {} ended with {status}", machine.name);
                }
            }
        }
        Ok(())
    }

    /// Other conditions both ways.
    pub(crate) fn link(&self, one: usize, other: usize, conditions: Conditions) {
        self.mesh.set(one, other, conditions);
        self.mesh.set(other, one, conditions);
    }

    /// Do the trees of these machines agree? Trees that change while they are read do not yet.
    pub(crate) fn equal(&self, machines: &[usize]) -> bool {
        let trees = machines.iter().map(|at| self.machines[*at].tree());
        let Ok(trees) = trees.collect::<Result<Vec<Tree>>>() else { return false };
        trees.windows(2).all(|pair| pair[0] == pair[1])
    }

    /// Waits until all trees agree and something holds.
    pub(crate) fn wait_equal(&self, what: &str, mut holds: impl FnMut(&Lab) -> bool) -> Result<()> {
        let all: Vec<usize> = (0..self.machines.len()).collect();
        wait_until(what, || Ok(holds(self) && self.equal(&all))).with_context(|| self.differences())
    }

    /// Waits until all agents say that nothing is missing anywhere.
    pub(crate) fn wait_in_sync(&self) -> Result<()> {
        let well = |machine: &Machine| machine.status().is_ok_and(|status| status.summary().in_sync);
        wait_until("all are in sync", || Ok(self.machines.iter().all(well))).with_context(|| self.differences())
    }

    /// Where trees differ, and what the agents say, for whoever looks why a test failed.
    pub(crate) fn differences(&self) -> String {
        let mut text = String::new();
        let first = self.machines[0].tree().unwrap_or_default();
        for machine in &self.machines[1..] {
            let tree = machine.tree().unwrap_or_default();
            text += &format!("{} and {}:\n{}\n", self.machines[0].name, machine.name, diff(&first, &tree));
        }
        for machine in &self.machines {
            let status = machine
                .status()
                .map_or_else(|error| error.to_string(), |status| serde_json::to_string(&status).unwrap_or_default());
            text += &format!("{}: {status}\n", machine.name);
        }
        text
    }

    /// Bytes that went from one machine to another so far.
    pub(crate) fn bytes(&self, from: usize, to: usize) -> u64 {
        self.mesh.counts(from, to).bytes
    }

    /// Sends a signal to an agent.
    pub(crate) fn signal(&self, at: usize, signal: Signal) -> Result<()> {
        let agent = self.machines[at].agent.as_ref().context("no agent")?;
        Ok(kill_process(Pid::from_child(agent), signal)?)
    }

    /// Does an agent's log hold this text?
    pub(crate) fn says(&self, at: usize, text: &str) -> Result<bool> {
        Ok(fs::read_to_string(&self.machines[at].log)?.contains(text))
    }

    /// Does any log tell of a panic?
    pub(crate) fn panics(&self) -> Vec<String> {
        let logs = self.machines.iter().filter_map(|machine| fs::read_to_string(&machine.log).ok());
        logs.flat_map(|log| log.lines().filter(|line| line.contains("panicked")).map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Place::Passing(dir) => dir.path(),
            Place::Kept(dir) => dir,
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for machine in &mut self.machines {
            if let Some(mut agent) = machine.agent.take() {
                // What is left here has to go however it is.
                let _ = agent.kill();
                let _ = agent.wait();
            }
            if thread::panicking() {
                let log = fs::read_to_string(&machine.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let last = &lines[lines.len().saturating_sub(SHOWN)..];
                eprintln!("--- the last of {}:\n{}", machine.name, last.join("\n"));
            }
        }
    }
}

impl Machine {
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Its tree. Times of directories are left out: they are carried along, and replicas need not agree about them.
    pub(crate) fn tree(&self) -> Result<Tree> {
        let mut tree = Tree::new();
        for (path, node) in Tree::read(&self.root)?.iter() {
            let node = match node.content {
                Content::Dir => Node { mtime_ns: None, ..node.clone() },
                _ => node.clone(),
            };
            tree.put(path.clone(), node);
        }
        Ok(tree)
    }

    /// How its agent is.
    pub(crate) fn status(&self) -> Result<Status> {
        Ok(Client::new(&self.home).status()??)
    }

    /// Does its agent run?
    pub(crate) fn runs(&self) -> bool {
        self.agent.is_some()
    }

    /// The most memory that its agent held since it was started, MiB; 0 if it does not run.
    pub(crate) fn peak_mib(&self) -> u64 {
        let status = self.agent.as_ref().map(|agent| fs::read_to_string(format!("/proc/{}/status", agent.id())));
        let Some(Ok(status)) = status else { return 0 };
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() >> 10
    }
}
