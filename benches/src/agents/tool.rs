//! What runs all the time: what each tool needs on the disk, and its processes as command lines.

use anyhow::{Context as _, Result, bail, ensure};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Ports of the two sides; the bench has a loopback of its own.
const PORTS: [u16; 2] = [4477, 4478];

/// A tool that runs all the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `driftless agent run` twice.
    Driftless(PathBuf),
    /// `syncthing` twice, with the shortest delay that it takes.
    Syncthing,
    /// `unison -repeat 1`.
    Unison,
    /// `lsyncd`, which calls rsync, in one direction.
    Lsyncd,
}

/// A command and its environment.
pub(crate) type Call = (Vec<OsString>, Vec<(OsString, OsString)>);

impl Tool {
    /// driftless, and of the others those that are installed; loudly without those that are not.
    pub(crate) fn all(driftless: &Path) -> Vec<Tool> {
        let mut tools = vec![Tool::Driftless(driftless.to_owned())];
        for (tool, program) in [(Tool::Syncthing, "syncthing"), (Tool::Unison, "unison"), (Tool::Lsyncd, "lsyncd")] {
            if Command::new(program).arg("--version").output().is_ok_and(|told| told.status.success())
                || Command::new(program).arg("-version").output().is_ok_and(|told| told.status.success())
            {
                tools.push(tool);
            } else {
                eprintln!("SKIPPED: {program} is not installed, and is not measured");
            }
        }
        tools
    }

    /// The name in tables.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Tool::Driftless(_) => "driftless agent",
            Tool::Syncthing => "syncthing",
            Tool::Unison => "unison -repeat 1",
            Tool::Lsyncd => "lsyncd",
        }
    }

    /// Does it bring changes of the second root to the first one?
    pub(crate) fn both_ways(&self) -> bool {
        *self != Tool::Lsyncd
    }

    /// How long it waits by itself until a file counts as quiet, milliseconds.
    pub(crate) fn quiet_ms(&self) -> f64 {
        if matches!(self, Tool::Driftless(_)) { 200.0 } else { 0.0 }
    }

    /// Writes what it needs into a new folder, and tells its processes.
    pub(crate) fn prepare(&self, dir: &Path, roots: &[PathBuf; 2]) -> Result<Vec<Call>> {
        match self {
            Tool::Driftless(program) => agents(program, dir, roots),
            Tool::Syncthing => syncthings(dir, roots),
            Tool::Unison => {
                let words = ["-batch", "-silent", "-times", "-confirmbigdel=false", "-log=false", "-repeat", "1"];
                let words = roots.iter().map(OsString::from).chain(words.map(OsString::from));
                Ok(vec![(line("unison", words), vec![("UNISON".into(), dir.into())])])
            }
            Tool::Lsyncd => {
                let config = dir.join("lsyncd.conf");
                let text = format!(
                    "settings {{ nodaemon = true, maxDelays = 100000 }}\nsync {{ default.rsync, source = {:?}, target = {:?}, delay = 1 }}\n",
                    roots[0].to_string_lossy(),
                    roots[1].to_string_lossy()
                );
                fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
                Ok(vec![(line("lsyncd", [config.into()]), Vec::new())])
            }
        }
    }
}

fn line(program: impl Into<OsString>, words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    [program.into()].into_iter().chain(words).collect()
}

fn homes(dir: &Path) -> Result<[PathBuf; 2]> {
    let homes = ["here", "there"].map(|name| dir.join(name));
    for home in &homes {
        fs::create_dir(home).with_context(|| format!("cannot create {}", home.display()))?;
        fs::set_permissions(home, fs::Permissions::from_mode(0o700))?;
    }
    Ok(homes)
}

fn told(command: &mut Command) -> Result<String> {
    let told = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !told.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&told.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&told.stdout).trim().to_owned())
}

/// Two agents that know each other; either calls.
fn agents(program: &Path, dir: &Path, roots: &[PathBuf; 2]) -> Result<Vec<Call>> {
    let homes = homes(dir)?;
    let id = |home: &Path| told(Command::new(program).env("DRIFTLESS_HOME", home).arg("id"));
    let ids = [id(&homes[0])?, id(&homes[1])?];
    let names = ["here", "there"];
    let mut calls = Vec::new();
    for own in [0, 1] {
        let other = 1 - own;
        let text = format!(
            "name = \"{}\"\nstatus = \"off\"\nlisten = [\"127.0.0.1:{}\"]\n[peers.{}]\nid = \"{}\"\naddresses = [\"127.0.0.1:{}\"]\n\
             [folders.root]\npath = {:?}\npeers = {{ {} = \"two-way\" }}\n",
            names[own],
            PORTS[own],
            names[other],
            ids[other],
            PORTS[other],
            roots[own].to_string_lossy(),
            names[other],
        );
        let config = homes[own].join("agent.toml");
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
        let environment = vec![("DRIFTLESS_HOME".into(), homes[own].clone().into())];
        calls.push((line(program, ["agent".into(), "run".into()]), environment));
    }
    Ok(calls)
}

/// Two daemons without discovery, relays and page.
fn syncthings(dir: &Path, roots: &[PathBuf; 2]) -> Result<Vec<Call>> {
    let homes = homes(dir)?;
    for home in &homes {
        told(Command::new("syncthing").arg("generate").arg(format!("--home={}", home.display())).arg("--no-default-folder"))?;
    }
    let id = |home: &Path| told(Command::new("syncthing").arg(format!("--home={}", home.display())).arg("--device-id"));
    let ids = [id(&homes[0])?, id(&homes[1])?];
    let mut calls = Vec::new();
    for own in [0, 1] {
        let other = 1 - own;
        let (mine, theirs) = (&ids[own], &ids[other]);
        ensure!(mine != theirs, "both sides are the same device");
        let text = format!(
            "<configuration version=\"35\"><folder id=\"root\" label=\"root\" path=\"{}\" type=\"sendreceive\" rescanIntervalS=\"3600\" \
             fsWatcherEnabled=\"true\" fsWatcherDelayS=\"1\" ignorePerms=\"false\"><filesystemType>basic</filesystemType>\
             <device id=\"{mine}\"/><device id=\"{theirs}\"/></folder>\
             <device id=\"{mine}\" name=\"own\"><address>dynamic</address></device>\
             <device id=\"{theirs}\" name=\"other\"><address>tcp://127.0.0.1:{}</address></device>\
             <gui enabled=\"false\"/><options><listenAddress>tcp://127.0.0.1:{}</listenAddress>\
             <globalAnnounceEnabled>false</globalAnnounceEnabled><localAnnounceEnabled>false</localAnnounceEnabled>\
             <relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled><urAccepted>-1</urAccepted>\
             <startBrowser>false</startBrowser><autoUpgradeIntervalH>0</autoUpgradeIntervalH>\
             <crashReportingEnabled>false</crashReportingEnabled><setLowPriority>false</setLowPriority>\
             <reconnectionIntervalS>1</reconnectionIntervalS></options></configuration>\n",
            roots[own].display(),
            PORTS[other],
            PORTS[own],
        );
        let config = homes[own].join("config.xml");
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let home = format!("--home={}", homes[own].display());
        let words = ["serve", "--no-browser", "--no-restart", "--no-upgrade", &home].map(OsString::from);
        calls.push((line("syncthing", words), Vec::new()));
    }
    Ok(calls)
}
