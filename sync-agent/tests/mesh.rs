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
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use sync_agent::agent::Agent;
use sync_agent::config::{self, Config};
use sync_agent::log::{Level, Log};
use sync_agent::status::{Direction, FolderState, Link, Reach, SeenLink, Status};
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
    /// What its configuration says besides of the folder.
    folder: String,
    /// What it logged.
    lines: Arc<Mutex<Vec<String>>>,
    /// And what only goes on.
    info: Arc<Mutex<Vec<String>>>,
}

impl Lab {
    fn new() -> Result<Lab> {
        Ok(Lab { dir: tempfile::tempdir()? })
    }

    fn machine(&self, name: &'static str) -> Result<Machine> {
        let root = self.dir.path().join(name);
        fs::create_dir(&root)?;
        let home = Home::open(&self.dir.path().join(format!("{name}.home")))?;
        Ok(Machine { name, home, root, agent: None, folder: String::new(), lines: Arc::default(), info: Arc::default() })
    }
}

impl Machine {
    fn id(&self) -> Result<String> {
        Ok(Identity::open(&self.home)?.id().to_string())
    }

    /// Starts its agent. With each peer goes the address at which it is called, if it is.
    fn start(&mut self, peers: &[(&Machine, Option<String>)]) -> Result<()> {
        self.start_at("127.0.0.1:0", peers)
    }

    fn start_at(&mut self, listen: &str, peers: &[(&Machine, Option<String>)]) -> Result<()> {
        let config = self.config(listen, peers)?;
        let (name, lines, info) = (self.name, Arc::clone(&self.lines), Arc::clone(&self.info));
        let log: Log = Arc::new(move |level, line| {
            if level <= Level::Notice {
                eprintln!("{name}: {line}");
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
            } else {
                info.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
            }
        });
        self.agent = Some(Agent::start(config, &self.home, log)?);
        Ok(())
    }

    fn config(&self, listen: &str, peers: &[(&Machine, Option<String>)]) -> Result<Config> {
        let mut text = format!("name = \"{}\"\nlisten = [\"{listen}\"]\n", self.name);
        for (peer, address) in peers {
            let addresses = address.as_ref().map(|address| format!("\"{address}\"")).unwrap_or_default();
            text += &format!("[peers.{}]\nid = \"{}\"\naddresses = [{addresses}]\n", peer.name, peer.id()?);
        }
        let modes: Vec<String> = peers.iter().map(|(peer, _)| format!("{} = \"two-way\"", peer.name)).collect();
        text += &format!(
            "[folders.hot]\npath = \"{}\"\nquiet = \"20ms\"\npeers = {{ {} }}\n{}",
            self.root.display(),
            modes.join(", "),
            self.folder
        );
        config::parse(&text, &Book::default()).map_err(|faults| anyhow::anyhow!("{faults:?}\n{text}"))
    }

    /// What it knows of a link.
    fn link(&self, from: &Machine, to: &Machine) -> Result<Option<SeenLink>> {
        let (from, to) = (from.id()?, to.id()?);
        Ok(self.status()?.links.into_iter().find(|link| link.from.to_string() == from && link.to.to_string() == to))
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    let recent = c.status()?.folders[0].recent.clone();
    let brought =
        recent.iter().find(|recent| recent.place.bytes() == b"2026/11/21/a.txt").context("it is not told what was brought")?;
    assert_eq!((brought.action.as_str(), brought.from.as_str()), ("create", "b"));
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
    b.start_at(&address, &[(&a, None), (&c, None)])?;
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

#[test]
fn who_calls_for_a_folder_that_cannot_be_used_is_told_of_once_and_not_as_a_warning() -> Result<()> {
    let lab = Lab::new()?;
    let (mut a, mut b) = (lab.machine("a")?, lab.machine("b")?);
    b.start(&[(&a, None)])?;
    let address = b.address()?;
    fs::rename(&b.root, lab.dir.path().join("away"))?;
    wait_until("b cannot use it", || Ok(matches!(b.status()?.folders[0].state, FolderState::Unavailable { .. })))?;
    a.start(&[(&b, Some(address))])?;
    let said = |told: &Mutex<Vec<String>>| {
        let told = told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().filter(|line| line.starts_with("a was refused") || line.starts_with("a: ")).cloned().collect::<Vec<_>>()
    };
    wait_until("a was refused", || Ok(!said(&b.info).is_empty()))?;
    // However often it calls.
    let tries = |a: &Machine| -> Result<_> {
        match a.status()?.folders[0].peers[0].link.clone() {
            Link::Apart { next_try, .. } => Ok(next_try),
            Link::Connected { .. } => bail!("it was let in"),
        }
    };
    for _ in 0..2 {
        let before = tries(&a)?;
        wait_until("it has called again", || Ok(tries(&a)? != before))?;
    }
    assert_eq!(said(&b.info), ["a was refused hot: it cannot be used at present"]);
    assert_eq!(said(&b.lines), Vec::<String>::new());
    Ok(())
}

#[test]
fn a_paused_folder_that_a_reload_moves_stays_paused() -> Result<()> {
    let lab = Lab::new()?;
    let mut a = lab.machine("a")?;
    a.start(&[])?;
    a.agent.as_ref().context("no agent")?.pause(None)?;
    a.root = lab.dir.path().join("elsewhere");
    fs::create_dir(&a.root)?;
    let config = a.config("127.0.0.1:0", &[])?;
    let changes = a.agent.as_ref().context("no agent")?.reload(config)?;
    assert_eq!(changes.reopened.len(), 1);
    wait_until("it is paused at its new place", || {
        let status = a.status()?;
        let folder = status.folders.first().context("no folder")?;
        Ok(folder.state == FolderState::Paused)
    })
}

#[test]
fn a_folder_whose_options_a_reload_changes_is_opened_anew_without_being_refused_its_own_root() -> Result<()> {
    let lab = Lab::new()?;
    let (mut a, mut b) = (lab.machine("a")?, lab.machine("b")?);
    a.start(&[(&b, None)])?;
    let address = a.address()?;
    b.start(&[(&a, Some(address.clone()))])?;
    for (number, policy) in ["newer", "keep-both", "skip", "newer"].into_iter().enumerate() {
        // Both who calls and who is called.
        (a.folder, b.folder) = (format!("conflicts = \"{policy}\"\n"), format!("conflicts = \"{policy}\"\n"));
        for (machine, peer, address) in [(&a, &b, None), (&b, &a, Some(address.clone()))] {
            let config = machine.config("127.0.0.1:0", &[(peer, address)])?;
            assert_eq!(machine.agent.as_ref().context("no agent")?.reload(config)?.lines(), ["folder hot changed"]);
        }
        write(&a.at(&format!("{number}")), "x")?;
        wait_until("it has come", || Ok(b.at(&format!("{number}")).exists()))?;
    }
    // It goes, and comes back before it has ended.
    for number in 4..8 {
        let config = b.config("127.0.0.1:0", &[(&a, Some(address.clone()))])?;
        let agent = b.agent.as_ref().context("no agent")?;
        agent.reload(Config { folders: std::collections::BTreeMap::new(), ..config.clone() })?;
        agent.reload(config)?;
        write(&a.at(&format!("{number}")), "x")?;
        wait_until("it has come", || Ok(b.at(&format!("{number}")).exists()))?;
    }
    let refused: Vec<_> = a.lines().into_iter().chain(b.lines()).filter(|line| line.contains("is held by")).collect();
    assert!(refused.is_empty(), "{refused:?}");
    Ok(())
}

#[test]
fn how_many_watches_there_may_be_counts_for_open_folders_from_a_reload_on() -> Result<()> {
    let lab = Lab::new()?;
    let (mut a, mut b) = (lab.machine("a")?, lab.machine("b")?);
    for number in 0..9 {
        fs::create_dir(a.at(&format!("d{number}")))?;
    }
    a.start(&[(&b, None)])?;
    let address = a.address()?;
    b.start(&[(&a, Some(address))])?;
    wait_until("all are equal", || Ok(b.at("d8").exists() && equal(&[&a, &b])?))?;
    for (number, limit) in ["4", "0", "400"].into_iter().enumerate() {
        a.folder = if limit == "0" { String::new() } else { format!("[limits]\nwatches = {limit}\n") };
        let config = a.config("127.0.0.1:0", &[(&b, None)])?;
        assert_eq!(a.agent.as_ref().context("no agent")?.reload(config)?.lines(), ["limits changed"]);
        let limit = limit.parse().ok().filter(|limit| *limit > 0);
        wait_until("it is kept", || {
            let watches = a.status()?.folders[0].watches;
            let as_many = watches.needed.map(|needed| limit.map_or(needed, |limit| needed.min(limit)));
            Ok(watches.limit == limit && Some(watches.set) == as_many && watches.needed == Some(10))
        })?;
        // What changed while nobody listened is found, and so is what changes now.
        let path = format!("{number}");
        write(&a.at(&path), "x")?;
        wait_until("it has come", || Ok(b.at(&path).exists()))?;
    }
    Ok(())
}

#[test]
fn every_member_of_a_line_knows_all_machines_and_both_sides_of_all_links() -> Result<()> {
    let lab = Lab::new()?;
    let [a, b, mut c] = line(&lab)?;
    let sees = |seen: &Option<SeenLink>, called: Direction| {
        seen.as_ref().is_some_and(|link| link.called == Some(called) && link.folders.iter().any(|name| name.as_str() == "hot"))
    };
    wait_until("all know all links", || {
        let mut all = true;
        for one in [&a, &b, &c] {
            for end in [&a, &c] {
                all &= sees(&one.link(end, &b)?, Direction::Out) && sees(&one.link(&b, end)?, Direction::In);
            }
        }
        Ok(all)
    })?;
    let status = a.status()?;
    assert_eq!(status.machines[0].id, status.id);
    let far = c.id()?;
    let machine = status.machines.iter().find(|machine| machine.id.to_string() == far).context("c is not known")?;
    assert_eq!((machine.name.as_deref(), machine.heard.is_some()), (Some("c"), true));
    assert_eq!(machine.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), [c.address()?]);
    // What the middle sees of its end goes to the other one.
    c.stop();
    wait_until("a hears that c is away", || Ok(a.link(&b, &c)?.is_some_and(|link| link.called.is_none())))
}

#[test]
fn who_was_called_finds_out_whether_it_can_call_back_and_nobody_takes_that_for_a_visit() -> Result<()> {
    let lab = Lab::new()?;
    let (mut a, mut b) = (lab.machine("a")?, lab.machine("b")?);
    b.start_at("0.0.0.0:0", &[(&a, None)])?;
    let port = b.address()?.rsplit(':').next().context("no port")?.to_owned();
    // It is called wherever it is seen, at the port that it tells.
    a.start_at("0.0.0.0:0", &[(&b, Some(format!("127.0.0.1:{port}")))])?;
    let back = format!("127.0.0.1:{}", a.address()?.rsplit(':').next().context("no port")?);
    let answers = |link: Option<SeenLink>, at: &str| {
        link.is_some_and(|link| matches!(&link.reaches, Some(Reach::Answers { address }) if address == at))
    };
    wait_until("b has found out", || Ok(answers(b.link(&b, &a)?, &back)))?;
    wait_until("a knows it too", || {
        Ok(answers(a.link(&b, &a)?, &back) && answers(a.link(&a, &b)?, &format!("127.0.0.1:{port}")))
    })?;
    let asked = b.agent.as_ref().context("no agent")?.probe();
    wait_until("it was tried again", || Ok(b.link(&b, &a)?.is_some_and(|link| link.tried >= Some(asked))))?;
    for lines in [a.lines(), b.lines()] {
        let of_visits = |line: &&String| !line.starts_with("listening on");
        assert_eq!(lines.iter().filter(of_visits).count(), 1, "{lines:?}");
    }
    a.stop();
    wait_until("nobody answers there any more", || {
        Ok(b.link(&b, &a)?.is_some_and(|link| matches!(link.reaches, Some(Reach::Fails { .. }))))
    })
}

#[test]
fn two_who_know_only_the_same_third_get_to_know_each_other_by_it_where_all_allow_it() -> Result<()> {
    let lab = Lab::new()?;
    let (mut a, mut b, mut c) = (lab.machine("a")?, lab.machine("b")?, lab.machine("c")?);
    [&mut a, &mut b, &mut c].into_iter().for_each(|machine| machine.folder = "introduce = true\n".into());
    a.start(&[(&b, None), (&c, None)])?;
    let address = a.address()?;
    b.start(&[(&a, Some(address.clone()))])?;
    c.start(&[(&a, Some(address.clone()))])?;
    let knows = |one: &Machine, other: &Machine| -> Result<bool> {
        let (status, id) = (one.status()?, other.id()?);
        let peer = status.folders[0].peers.iter().find(|peer| peer.id.to_string() == id);
        Ok(peer.is_some_and(|peer| {
            peer.is_connected() && peer.introduced_by.iter().map(ToString::to_string).collect::<Vec<_>>() == ["a"]
        }))
    };
    wait_until("b and c are connected", || Ok(knows(&b, &c)? && knows(&c, &b)?))?;
    a.stop();
    write(&b.at("from b"), "b")?;
    write(&c.at("from c"), "c")?;
    wait_until("both have both", || Ok(b.at("from c").exists() && c.at("from b").exists() && equal(&[&b, &c])?))?;
    // A restart knows them, without the one between.
    c.stop();
    write(&b.at("later"), "b")?;
    c.start(&[(&a, Some(address.clone()))])?;
    wait_until("c has it", || Ok(c.at("later").exists() && knows(&c, &b)?))?;
    // Who allows it no more knows nobody by it.
    c.folder = "introduce = false\n".into();
    let config = c.config("127.0.0.1:0", &[(&a, Some(address))])?;
    c.agent.as_ref().context("no agent")?.reload(config)?;
    let names: Vec<String> = c.status()?.folders[0].peers.iter().map(|peer| peer.name.to_string()).collect();
    assert_eq!(names, ["a"]);
    wait_until("b is not connected to it any more", || Ok(!knows(&b, &c)?))
}

#[test]
fn what_both_changed_is_listed_and_a_limit_of_the_rate_ends_no_link() -> Result<()> {
    let lab = Lab::new()?;
    let (mut a, mut b) = (lab.machine("a")?, lab.machine("b")?);
    [&mut a, &mut b].into_iter().for_each(|machine| machine.folder = "conflicts = \"skip\"\n".into());
    write(&a.at("both"), "a")?;
    write(&b.at("both"), "b, and longer")?;
    b.start(&[(&a, None)])?;
    let address = b.address()?;
    a.start(&[(&b, Some(address.clone()))])?;
    for one in [&a, &b] {
        wait_until("the conflict is listed", || {
            let folder = &one.status()?.folders[0];
            let paths: Vec<Vec<u8>> = folder.in_conflict.iter().map(|path| path.bytes()).collect();
            Ok(folder.conflicts == Some(1) && paths == [b"both".to_vec()])
        })?;
    }
    wait_until("nothing else is open", || {
        let peer = a.status()?.folders[0].peers[0].clone();
        Ok(peer.last_sync.is_some() && peer.lacking_here.is_some_and(|lacking| lacking.files == 0))
    })?;
    let link = |one: &Machine| -> Result<_> { Ok(one.status()?.folders[0].peers[0].link.clone()) };
    let before = link(&a)?;
    a.folder += "[limits]\nbandwidth = \"64K\"\n";
    let limited = a.config("127.0.0.1:0", &[(&b, Some(address))])?;
    let changes = a.agent.as_ref().context("no agent")?.reload(limited)?;
    assert_eq!(changes.lines(), ["limits changed"]);
    write(&b.at("through the limit"), &"x".repeat(200_000))?;
    wait_until("it has come", || Ok(a.at("through the limit").exists()))?;
    assert_eq!(link(&a)?, before);
    Ok(())
}

#[test]
fn a_large_file_on_its_way_is_shown_with_what_is_there_of_it_until_it_has_come() -> Result<()> {
    let lab = Lab::new()?;
    let (mut a, mut b) = (lab.machine("a")?, lab.machine("b")?);
    let large = fixtures::bytes::noise(1, 16 << 20);
    fs::write(a.at("large"), &large)?;
    write(&a.at("small"), "1")?;
    a.start(&[(&b, None)])?;
    // So slow that it comes to no end before somebody has looked.
    b.folder = "[limits]\nbandwidth = \"256K\"\n".into();
    let address = a.address()?;
    b.start(&[(&a, Some(address.clone()))])?;
    let shown = |b: &Machine| -> Result<_> { Ok(b.status()?.folders[0].peers[0].transfers.clone()) };
    wait_until("some of it is there", || Ok(shown(&b)?.iter().any(|file| file.bytes > 0)))?;
    let files = shown(&b)?;
    let [file] = &files[..] else { bail!("{files:?}") };
    assert_eq!((file.place.bytes(), file.direction, file.total), (b"large".to_vec(), Direction::In, large.len() as u64));
    assert!(file.bytes < file.total, "{file:?}");
    b.folder.clear();
    let unlimited = b.config("127.0.0.1:0", &[(&a, Some(address))])?;
    b.agent.as_ref().context("no agent")?.reload(unlimited)?;
    wait_until("it has come", || equal(&[&a, &b]))?;
    wait_until("nothing is shown any more", || Ok(shown(&b)?.is_empty()))
}

#[test]
fn what_takes_long_to_be_read_holds_up_nothing_that_is_written_meanwhile() -> Result<()> {
    let lab = Lab::new()?;
    let (mut a, mut b) = (lab.machine("a")?, lab.machine("b")?);
    // Of the same size, and the bytes of neither are known: no machine has read so much before this test is over.
    for machine in [&a, &b] {
        fs::File::create(machine.at("large"))?.set_len(4 << 40)?;
    }
    a.start(&[(&b, None)])?;
    let address = a.address()?;
    b.start(&[(&a, Some(address))])?;
    let lacks = |machine: &Machine| -> Result<_> {
        let peer = machine.status()?.folders[0].peers[0].clone();
        Ok(peer.lacking_here.as_ref().is_none_or(|lacking| lacking.files > 0))
    };
    for round in 0..3 {
        for (from, to) in [(&a, &b), (&b, &a)] {
            let path = format!("{} {round}", from.name);
            write(&from.at(&path), "small")?;
            wait_until("the small file is there", || Ok(to.at(&path).exists()))?;
            assert!(lacks(to)?, "nobody knows yet whether the large ones are equal");
        }
    }
    for machine in [&a, &b] {
        assert_eq!(machine.status()?.folders[0].problems.total, 0);
        fs::remove_file(machine.at("large"))?;
    }
    wait_until("all is decided", || Ok(equal(&[&a, &b])? && !lacks(&a)? && !lacks(&b)?))?;
    assert_eq!(fs::read_dir(&a.root)?.count(), 7, "six files, and no conflict copy");
    Ok(())
}

#[test]
fn large_files_that_are_equal_are_found_to_be_so_and_others_are_kept_both() -> Result<()> {
    let lab = Lab::new()?;
    let (mut a, mut b) = (lab.machine("a")?, lab.machine("b")?);
    for name in ["equal", "other"] {
        for machine in [&a, &b] {
            let file = fs::File::create(machine.at(name))?;
            file.set_len(70 << 20)?;
            if name == "other" {
                std::os::unix::fs::FileExt::write_all_at(&file, machine.name.as_bytes(), 69 << 20)?;
            }
        }
    }
    a.start(&[(&b, None)])?;
    let address = a.address()?;
    b.start(&[(&a, Some(address))])?;
    wait_until("all is decided", || {
        let peers = [a.status()?.folders[0].peers[0].clone(), b.status()?.folders[0].peers[0].clone()];
        let even = peers.iter().all(|peer| peer.lacking_here.as_ref().is_some_and(|lacking| !lacking.is_any()));
        Ok(even && fs::read_dir(&a.root)?.count() == 4 && equal(&[&a, &b])?)
    })
}

#[test]
fn a_folder_with_long_work_makes_room_for_another_where_only_one_may_exchange() -> Result<()> {
    let lab = Lab::new()?;
    let (mut a, mut b) = (lab.machine("a")?, lab.machine("b")?);
    for (machine, peer, limits) in [(&mut a, "b", ""), (&mut b, "a", "[limits]\nexchanges = 1\nbandwidth = \"256K\"\n")] {
        let other = lab.dir.path().join(format!("{}.other", machine.name));
        fs::create_dir(&other)?;
        let of_it = format!("quiet = \"20ms\"\npeers = {{ {peer} = \"two-way\" }}");
        machine.folder = format!("[folders.other]\npath = \"{}\"\n{of_it}\n{limits}", other.display());
    }
    fs::write(a.at("large"), fixtures::bytes::noise(1, 64 << 20))?;
    a.start(&[(&b, None)])?;
    let address = a.address()?;
    b.start(&[(&a, Some(address))])?;
    for number in 0..3 {
        wait_until("the large file is on its way", || {
            let status = b.status()?;
            Ok(status.folders.iter().flat_map(|folder| &folder.peers).any(|peer| !peer.transfers.is_empty()))
        })?;
        write(&lab.dir.path().join(format!("a.other/{number}")), "x")?;
        wait_until("the other folder has its turn", || Ok(lab.dir.path().join(format!("b.other/{number}")).exists()))?;
    }
    assert!(!b.at("large").exists());
    Ok(())
}

#[test]
fn deletions_that_the_guard_stops_come_with_leave_and_the_problem_says_how() -> Result<()> {
    let lab = Lab::new()?;
    let (mut a, mut b) = (lab.machine("a")?, lab.machine("b")?);
    b.start(&[(&a, None)])?;
    let address = b.address()?;
    a.start(&[(&b, Some(address))])?;
    for number in 0..9 {
        write(&a.at(&format!("f{number}")), "x")?;
    }
    wait_until("all is there", || Ok(b.at("f8").exists() && equal(&[&a, &b])?))?;
    for number in 0..9 {
        fs::remove_file(a.at(&format!("f{number}")))?;
    }
    wait_until("it is said what to do", || {
        let folder = b.status()?.folders[0].clone();
        let FolderState::Stopped { why } = folder.state else { return Ok(false) };
        assert!(why.contains("the pull from a needs a decision") && folder.problems.total == 0, "{why} {:?}", folder.problems);
        Ok(why.contains("driftless agent sync hot --allow-delete") && why.contains("bring back on a what is missing"))
    })?;
    wait_until("it is in the log", || {
        Ok(b.lines().iter().any(|line| line.starts_with("hot: the pull from a needs a decision")))
    })?;
    assert!((0..9).any(|number| b.at(&format!("f{number}")).exists()));
    let agent = b.agent.as_ref().context("no agent")?;
    assert!(agent.allow_delete(&"none".parse()?).is_err());
    agent.allow_delete(&"hot".parse()?)?;
    wait_until("all is gone", || Ok((0..9).all(|number| !b.at(&format!("f{number}")).exists())))?;
    wait_until("it waits for changes again", || Ok(b.status()?.folders[0].state == FolderState::Watching))
}
