//! The tools with their servers, as command lines.

use crate::links::net::PORT;
use anyhow::{Context as _, Result, ensure};
use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name under which servers export the second root.
const FOLDER: &str = "root";

/// A tool that speaks with a server of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `driftless sync A quic://…` and `driftless serve`.
    Driftless(PathBuf),
    /// `rsync -a` and `rsync --daemon`.
    Rsync,
    /// The same with `--delete`.
    RsyncDelete,
    /// `unison A socket://…` and `unison -socket`.
    Unison,
}

/// What a tool remembers beside the roots: folders for this side and for the server.
#[derive(Debug, Clone)]
pub(crate) struct Homes {
    here: PathBuf,
    there: PathBuf,
}

/// A command and its environment.
pub(crate) type Call = (Vec<OsString>, Vec<(OsString, OsString)>);

impl Tool {
    /// The name in tables.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Tool::Driftless(_) => "driftless, quic",
            Tool::Rsync => "rsync -a, daemon",
            Tool::RsyncDelete => "rsync -a --delete, daemon",
            Tool::Unison => "unison, socket",
        }
    }

    /// Is it a program of others?
    pub(crate) fn is_peer(&self) -> bool {
        !matches!(self, Tool::Driftless(_))
    }

    /// Makes what the tool needs on both sides before it first runs: identities that know each other, configurations.
    pub(crate) fn prepare(&self, dir: &Path, b: &Path) -> Result<Homes> {
        let homes = Homes { here: dir.join("here"), there: dir.join("there") };
        for home in [&homes.here, &homes.there] {
            fs::create_dir(home).with_context(|| format!("cannot create {}", home.display()))?;
        }
        match self {
            Tool::Driftless(program) => introduce(program, &homes)?,
            Tool::Rsync | Tool::RsyncDelete => {
                let path = homes.there.join("rsyncd.conf");
                fs::write(&path, rsyncd_conf(b)).with_context(|| format!("cannot write {}", path.display()))?;
            }
            Tool::Unison => {}
        }
        Ok(homes)
    }

    /// The server of root `b` at this address.
    pub(crate) fn server(&self, b: &Path, address: Ipv4Addr, homes: &Homes) -> Call {
        let port = PORT.to_string();
        let address = address.to_string();
        match self {
            Tool::Driftless(program) => {
                let mut root = OsString::from(format!("{FOLDER}="));
                root.push(b);
                let listen = format!("{address}:{port}");
                let words: [OsString; 5] = ["serve".into(), "--listen".into(), listen.into(), "--root".into(), root];
                (line(program, words), home("DRIFTLESS_HOME", &homes.there))
            }
            Tool::Rsync | Tool::RsyncDelete => {
                let config = homes.there.join("rsyncd.conf");
                let flags = ["--daemon", "--no-detach", "--address", &address, "--port", &port, "--config"].map(OsString::from);
                (line(Path::new("rsync"), flags.into_iter().chain([config.into()])), Vec::new())
            }
            Tool::Unison => {
                let words = ["-socket", &port, "-listen", &address].map(OsString::from);
                (line(Path::new("unison"), words), home("UNISON", &homes.there))
            }
        }
    }

    /// What brings the changes of `a` to the server at this address; `told`: with a summary in JSON, where there is one.
    pub(crate) fn client(&self, a: &Path, b: &Path, address: Ipv4Addr, homes: &Homes, told: bool) -> Call {
        match self {
            Tool::Driftless(program) => {
                let there = format!("quic://{address}:{PORT}/{FOLDER}");
                let words: [OsString; 6] =
                    ["sync".into(), a.into(), there.into(), "--peer".into(), "there".into(), "--batch".into()];
                let json = told.then(|| OsString::from("--json"));
                (line(program, words.into_iter().chain(json)), home("DRIFTLESS_HOME", &homes.here))
            }
            Tool::Rsync | Tool::RsyncDelete => {
                let delete = (*self == Tool::RsyncDelete).then(|| OsString::from("--delete"));
                let mut inside = a.as_os_str().to_owned();
                inside.push("/");
                let roots = [inside, format!("rsync://{address}:{PORT}/{FOLDER}/").into()];
                let words = [OsString::from("-a")].into_iter().chain(delete).chain(roots);
                (line(Path::new("rsync"), words), Vec::new())
            }
            Tool::Unison => {
                let mut there = OsString::from(format!("socket://{address}:{PORT}/"));
                there.push(b);
                let flags = ["-batch", "-silent", "-times", "-ui=text", "-confirmbigdel=false", "-log=false"].map(OsString::from);
                let words = [OsString::from(a), there].into_iter().chain(flags);
                (line(Path::new("unison"), words), home("UNISON", &homes.here))
            }
        }
    }
}

fn line(program: &Path, words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    [OsString::from(program)].into_iter().chain(words).collect()
}

fn home(name: &str, dir: &Path) -> Vec<(OsString, OsString)> {
    vec![(name.into(), dir.into())]
}

/// As root, since whoever measures is root; the users of the files are kept, as by the others.
fn rsyncd_conf(b: &Path) -> String {
    format!("use chroot = no\nreverse lookup = no\nuid = root\ngid = root\n[{FOLDER}]\npath = {}\nread only = no\n", b.display())
}

/// Both machines know each other's keys, and the root is granted. The address differs from run to run, and stands in the call.
fn introduce(program: &Path, homes: &Homes) -> Result<()> {
    let grant = format!("{FOLDER}=two-way");
    let (here, there) = (run(program, &homes.here, &["id"])?, run(program, &homes.there, &["id"])?);
    run(program, &homes.here, &["peer", "add", "there", &there])?;
    run(program, &homes.there, &["peer", "add", "here", &here, "--grant", &grant])?;
    Ok(())
}

fn run(program: &Path, home: &Path, words: &[&str]) -> Result<String> {
    let output = Command::new(program).env("DRIFTLESS_HOME", home).args(words).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} {}: {}", program.display(), words.join(" "), error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(call: Call) -> String {
        call.0.join(&OsString::from(" ")).into_string().unwrap()
    }

    #[test]
    fn every_tool_reaches_its_own_server() {
        let homes = Homes { here: "/h".into(), there: "/t".into() };
        let (a, b, address) = (Path::new("/a"), Path::new("/b"), Ipv4Addr::LOCALHOST);
        let tool = Tool::Driftless("d".into());
        assert_eq!(text(tool.server(b, address, &homes)), "d serve --listen 127.0.0.1:4477 --root root=/b");
        assert_eq!(
            text(tool.client(a, b, address, &homes, true)),
            "d sync /a quic://127.0.0.1:4477/root --peer there --batch --json"
        );
        let client = text(Tool::RsyncDelete.client(a, b, address, &homes, false));
        assert_eq!(client, "rsync -a --delete /a/ rsync://127.0.0.1:4477/root/");
        let client = Tool::Unison.client(a, b, address, &homes, false);
        assert_eq!(client.1, [("UNISON".into(), "/h".into())]);
        assert!(text(client).starts_with("unison /a socket://127.0.0.1:4477//b -batch"));
    }
}
