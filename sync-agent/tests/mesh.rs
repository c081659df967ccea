//! Agents of several machines, each with its own home, on loopback.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "real files, a real clock, and logs for whoever looks why it failed"
)]

use anyhow::{Context as _, Result, bail};
use fixtures::tree::Tree;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use sync_agent::agent::Agent;
use sync_agent::config;
use sync_agent::log::{Level, Log};
use sync_agent::status::Status;
use sync_core::io::home::Home;
use sync_core::io::link::Identity;
use sync_core::peer::Book;

/// No wait here may take longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(10);

struct Lab {
    dir: tempfile::TempDir,
}

/// One machine.
struct Machine {
    name: &'static str,
    home: Home,
    root: PathBuf,
    agent: Option<Agent>,
}

impl Lab {
    fn new() -> Result<Lab> {
        Ok(Lab { dir: tempfile::tempdir()? })
    }

    fn machine(&self, name: &'static str) -> Result<Machine> {
        let root = self.dir.path().join(name);
        fs::create_dir(&root)?;
        let home = Home::open(&self.dir.path().join(format!("{name}.home")))?;
        Ok(Machine { name, home, root, agent: None })
    }
}

impl Machine {
    fn id(&self) -> Result<String> {
        Ok(Identity::open(&self.home)?.id().to_string())
    }

    /// Starts its agent. With each peer goes the address at which it is called, if it is.
    fn start(&mut self, peers: &[(&Machine, Option<String>)]) -> Result<()> {
        let mut text = format!("name = \"{}\"\nlisten = [\"127.0.0.1:0\"]\n", self.name);
        for (peer, address) in peers {
            let addresses = address.as_ref().map(|address| format!("\"{address}\"")).unwrap_or_default();
            text += &format!("[peers.{}]\nid = \"{}\"\naddresses = [{addresses}]\n", peer.name, peer.id()?);
        }
        let modes: Vec<String> = peers.iter().map(|(peer, _)| format!("{} = \"two-way\"", peer.name)).collect();
        text +=
            &format!("[folders.hot]\npath = \"{}\"\nquiet = \"20ms\"\npeers = {{ {} }}\n", self.root.display(), modes.join(", "));
        let config = config::parse(&text, &Book::default()).map_err(|faults| anyhow::anyhow!("{faults:?}\n{text}"))?;
        let name = self.name;
        let log: Log = Arc::new(move |level, line| {
            if level <= Level::Notice {
                eprintln!("{name}: {line}");
            }
        });
        self.agent = Some(Agent::start(config, &self.home, log)?);
        Ok(())
    }

    fn status(&self) -> Result<Status> {
        Ok(self.agent.as_ref().context("no agent")?.status())
    }

    fn address(&self) -> Result<String> {
        Ok(self.status()?.listen.first().context("nowhere")?.to_string())
    }

    fn tree(&self) -> Result<Tree> {
        Tree::read(&self.root)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn stop(&mut self) {
        if let Some(agent) = self.agent.take() {
            assert!(agent.stop(PATIENCE), "{} does not end", self.name);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > until {
            bail!("it never came to be that {what}");
        }
        thread::sleep(GLANCE);
    }
    Ok(())
}

/// Where machines differ, for whoever looks why a test failed.
fn differences(machines: &[&Machine]) -> String {
    let trees: Vec<Tree> = machines.iter().map(|machine| machine.tree().unwrap_or_default()).collect();
    trees[1..]
        .iter()
        .zip(&machines[1..])
        .map(|(tree, machine)| format!("{}: {}", machine.name, fixtures::tree::diff(&trees[0], tree)))
        .collect()
}

/// Trees that change while they are read are not equal yet.
fn equal(machines: &[&Machine]) -> Result<bool> {
    let Ok(first) = machines[0].tree() else { return Ok(false) };
    Ok(machines[1..].iter().all(|machine| machine.tree().is_ok_and(|tree| tree == first)))
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A – B – C: the first and the last call the middle.
fn line(lab: &Lab) -> Result<[Machine; 3]> {
    let (mut a, mut b, mut c) = (lab.machine("a")?, lab.machine("b")?, lab.machine("c")?);
    b.start(&[(&a, None), (&c, None)])?;
    let address = b.address()?;
    a.start(&[(&b, Some(address.clone()))])?;
    c.start(&[(&b, Some(address))])?;
    Ok([a, b, c])
}

#[test]
fn what_is_written_at_one_end_of_a_line_arrives_at_the_other_and_what_is_deleted_goes() -> Result<()> {
    let lab = Lab::new()?;
    let [a, b, c] = line(&lab)?;
    write(&a.at("2026/11/21/a.txt"), "from a")?;
    write(&c.at("2026/11/21/c.txt"), "from c")?;
    wait_until("all have both", || Ok(a.at("2026/11/21/c.txt").exists() && c.at("2026/11/21/a.txt").exists()))?;
    wait_until("all are equal", || equal(&[&a, &b, &c]))?;
    fs::rename(a.at("2026/11/21/a.txt"), a.at("renamed"))?;
    fs::remove_file(c.at("2026/11/21/c.txt"))?;
    write(&b.at("2026/11/21/b.txt"), "from b")?;
    wait_until("the changes are everywhere", || {
        Ok([&a, &b, &c].iter().all(|machine| {
            machine.at("renamed").exists() && !machine.at("2026/11/21/c.txt").exists() && machine.at("2026/11/21/b.txt").exists()
        }))
    })?;
    wait_until("all are equal", || equal(&[&a, &b, &c]))?;
    wait_until("all say so", || {
        Ok([&a, &b, &c]
            .iter()
            .map(|machine| machine.status())
            .collect::<Result<Vec<_>>>()?
            .iter()
            .all(|status| status.summary().in_sync))
    })
}

#[test]
fn who_was_away_catches_up_and_brings_nothing_back() -> Result<()> {
    let lab = Lab::new()?;
    let [a, mut b, mut c] = line(&lab)?;
    for number in 0..50 {
        write(&a.at(&format!("d/{number}")), "x")?;
    }
    wait_until("all are equal", || Ok(c.at("d/49").exists() && equal(&[&a, &b, &c])?))
        .with_context(|| differences(&[&a, &b, &c]))?;
    c.stop();
    for number in 0..20 {
        fs::remove_file(a.at(&format!("d/{number}")))?;
    }
    write(&c.at("d/new"), "while away")?;
    wait_until("the middle has it", || equal(&[&a, &b]))
        .with_context(|| fixtures::tree::diff(&a.tree().unwrap_or_default(), &b.tree().unwrap_or_default()))?;
    let address = b.address()?;
    c.start(&[(&b, Some(address))])?;
    wait_until("all are equal", || Ok(a.at("d/new").exists() && !c.at("d/0").exists() && equal(&[&a, &b, &c])?))
        .with_context(|| differences(&[&a, &b, &c]))?;
    // The middle goes, and comes back at the same place.
    let address = b.address()?;
    b.stop();
    write(&a.at("d/later"), "later")?;
    let (id_a, id_c) = (a.id()?, c.id()?);
    let text = format!(
        "name = \"b\"\nlisten = [\"{address}\"]\n[peers.a]\nid = \"{id_a}\"\n[peers.c]\nid = \"{id_c}\"\n\
         [folders.hot]\npath = \"{}\"\nquiet = \"20ms\"\npeers = {{ a = \"two-way\", c = \"two-way\" }}\n",
        b.root.display()
    );
    let config = config::parse(&text, &Book::default()).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    b.agent = Some(Agent::start(config, &b.home, Arc::new(|_, _| {}))?);
    wait_until("all are equal", || Ok(c.at("d/later").exists() && equal(&[&a, &b, &c])?))
        .with_context(|| differences(&[&a, &b, &c]))
}

#[test]
fn a_paused_folder_stands_still_and_an_unmounted_one_is_not_deleted() -> Result<()> {
    let lab = Lab::new()?;
    let [a, b, c] = line(&lab)?;
    write(&a.at("one"), "1")?;
    wait_until("all are equal", || Ok(c.at("one").exists() && equal(&[&a, &b, &c])?))?;
    let agent = b.agent.as_ref().context("no agent")?;
    agent.pause(None)?;
    write(&a.at("two"), "2")?;
    // As a disk that is not mounted any more.
    let away = lab.dir.path().join("away");
    fs::rename(&c.root, &away)?;
    fs::create_dir(&c.root)?;
    wait_until("c says so", || {
        let status = c.status()?;
        Ok(serde_json::to_string(&status)?.contains("unavailable"))
    })?;
    assert_eq!(fs::read_dir(&c.root)?.count(), 0);
    assert!(!b.at("two").exists());
    agent.resume(None)?;
    wait_until("b goes on", || Ok(b.at("two").exists()))?;
    assert!(a.at("one").exists() && b.at("one").exists());
    fs::remove_dir(&c.root)?;
    fs::rename(&away, &c.root)?;
    wait_until("all are equal", || Ok(c.at("two").exists() && equal(&[&a, &b, &c])?))
}
