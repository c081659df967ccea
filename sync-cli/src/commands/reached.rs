//! A root that was named: opened here, or asked of the agent of this machine that has it open. Whoever uses it sees no difference.

use crate::cli::RootArgs;
use crate::exit::words;
use crate::home;
use crate::location::Location;
use crate::output::Output;
use anyhow::Result;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use sync_agent::control::{Ask, Client, ControlError, NoPath, Refused, SOCKET_FILE, SocketError, Tell, path, text};
use sync_agent::status::FolderStatus;
use sync_core::io::state::StateError;
use sync_core::io::sync::{Keep, KeptVersion, OpenConflict, Replica, SyncError};
use sync_core::path::RelPath;
use sync_core::peer::Name;

/// Paths of one request: with the longest there are it stays below what an agent takes.
const PATHS: usize = 400;

/// A root.
pub(super) struct Reached<'a> {
    output: &'a Output,
    by: By,
}

enum By {
    /// This command has it open.
    Itself(Box<Replica>),
    /// An agent has.
    Agent(Client, Name),
}

/// What agents of this machine tell of a root.
#[derive(Default)]
pub(super) struct Agents {
    /// The folder whose root it is, and the agent that has it open, or will have.
    found: Option<(Client, FolderStatus)>,
    /// Why others did not tell.
    silent: Vec<String>,
}

/// The folder of a running agent whose root this is: the agent has it open, or will have.
pub(super) fn by_agent(root: &Path) -> Result<Option<(Client, FolderStatus)>> {
    Ok(agents(root)?.found)
}

fn agents(root: &Path) -> Result<Agents> {
    let mut silent = Vec::new();
    let Ok(root) = root.canonicalize() else { return Ok(Agents::default()) };
    let is_it =
        |folder: &FolderStatus| Path::new(OsStr::from_bytes(&folder.place.bytes())).canonicalize().is_ok_and(|path| path == root);
    for place in home::places()? {
        let client = Client::new(&place);
        // Where no agent answers, nobody but this command has the root; if somebody has, opening it tells, and then why it was not told.
        let status = match client.status() {
            Ok(Ok(status)) => status,
            Ok(Err(refused)) => {
                silent.push(refused.to_string());
                continue;
            }
            Err(SocketError::NoAgent(_)) => continue,
            Err(error) => {
                silent.push(error.to_string());
                continue;
            }
        };
        if let Some(folder) = status.folders.into_iter().find(is_it) {
            return Ok(Agents { found: Some((client, folder)), silent });
        }
    }
    Ok(Agents { found: None, silent })
}

/// Reaches a root that was synchronised before. A state that was named may be another one than the agent's.
pub(super) fn reach<'a>(at: &RootArgs, output: &'a Output) -> Result<Reached<'a>> {
    let Agents { found, silent } = if at.state.state_dir.is_none() { agents(&at.root)? } else { Agents::default() };
    if let Some((client, folder)) = found
        && asked((&client, &folder.name), &Ask::Open, (output, &|| false), &mut |_| Ok(()))?.is_some()
    {
        return Ok(Reached { output, by: By::Agent(client, folder.name) });
    }
    let replica = match Replica::open(&at.root, at.state.state_dir.as_deref()) {
        Err(error @ SyncError::State(StateError::Locked { .. })) => {
            // It has just come to have it, or has it with the state that was named.
            // One that did not answer is not waited for again.
            let now = if silent.is_empty() { agents(&at.root)? } else { Agents { found: None, silent } };
            return match now {
                Agents { found: Some((client, folder)), .. } => Ok(Reached { output, by: By::Agent(client, folder.name) }),
                nobody => Err(held(&error.into(), &nobody)),
            };
        }
        opened => opened?,
    };
    for notice in replica.notices() {
        output.talk_safely(&format!("note: {notice}"));
    }
    Ok(Reached { output, by: By::Itself(Box::new(replica)) })
}

/// As [`held`], of whatever went wrong when a root was opened.
pub(super) fn held_by(error: SyncError, root: &Path) -> anyhow::Error {
    if !matches!(error, SyncError::State(StateError::Locked { .. })) {
        return error.into();
    }
    agents(root).map_or_else(|other| other, |agents| held(&error.into(), &agents))
}

/// The same of two roots that were to be synchronised; an error that says no more than who holds one is left as it is.
pub(super) fn held_of(error: anyhow::Error, roots: [&Location; 2]) -> anyhow::Error {
    let Some(SyncError::State(StateError::Locked { dir, .. })) = error.downcast_ref() else { return error };
    let state = dir.canonicalize().unwrap_or_else(|_| dir.clone());
    let near = roots.into_iter().filter_map(|root| match root {
        Location::Local(path) => Path::new(path).canonicalize().ok(),
        _ => None,
    });
    for root in near.filter(|root| state.starts_with(root)) {
        match agents(&root) {
            Ok(agents) if agents.found.is_some() || !agents.silent.is_empty() => return held(&error, &agents),
            Ok(_) => {}
            Err(other) => return other,
        }
    }
    error
}

/// Somebody has a root: what agents tell of that, and what to do.
fn held(error: &anyhow::Error, agents: &Agents) -> anyhow::Error {
    let error = words(error);
    match agents {
        Agents { found: Some((_, folder)), .. } => anyhow::anyhow!(
            "{error}. The agent keeps it in sync (folder {name}): driftless agent sync {name} has it exchanged with its peers now; driftless \
             agent stop ends the agent",
            name = folder.name
        ),
        Agents { silent, .. } if !silent.is_empty() => {
            anyhow::anyhow!("{error}. If that is an agent, it could not be asked: {}", silent.join("; "))
        }
        Agents { .. } => anyhow::anyhow!(
            "{error}. If that is an agent, it is asked through {SOCKET_FILE} in its home: run this as its user, with its DRIFTLESS_HOME"
        ),
    }
}

/// Asks the agent that has a root open. `None`: it has not, at present. What is told besides the answer goes to stderr; `over` says
/// that nobody wants to hear more, and what has begun there ends with its step.
pub(super) fn asked(
    (client, folder): (&Client, &Name),
    ask: &Ask,
    (output, over): (&Output, &dyn Fn() -> bool),
    hear: &mut dyn FnMut(Tell) -> Result<()>,
) -> Result<Option<()>> {
    let mut failed = None;
    let mut heard = |piece| {
        match piece {
            _ if over() => failed = Some(SyncError::Cancelled.into()),
            Tell::Beat => {}
            Tell::Notice(text) => output.talk_safely(&format!("note: {text}")),
            piece => failed = hear(piece).err(),
        }
        failed.is_none()
    };
    let answered = client.inquire(folder, ask, &mut heard)?;
    if let Some(error) = failed {
        return Err(error);
    }
    match answered {
        Ok(_) => Ok(Some(())),
        Err(ControlError { kind: Refused::NotOpen, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Reached<'_> {
    /// Open conflicts, by path.
    pub(super) fn conflicts(&self) -> Result<Vec<OpenConflict>> {
        let (client, folder) = match &self.by {
            By::Itself(replica) => return Ok(replica.conflicts()?),
            By::Agent(client, folder) => (client, folder),
        };
        let mut found = Vec::new();
        heard(self.output, (client, folder), &Ask::Conflicts, &mut |piece| {
            let Tell::Conflicts(some) = piece else { return Err(unexpected()) };
            found.extend(some.into_iter().map(OpenConflict::try_from).collect::<Result<Vec<_>, NoPath>>()?);
            Ok(())
        })?;
        Ok(found)
    }

    /// Decides conflicts at and below some paths; returns theirs.
    pub(super) fn resolve(&mut self, at: &[RelPath], keep: Keep) -> Result<Vec<RelPath>> {
        let (client, folder) = match &mut self.by {
            By::Itself(replica) => return Ok(replica.resolve(at, keep)?),
            By::Agent(client, folder) => (&*client, &*folder),
        };
        let mut decided = Vec::new();
        for some in at.chunks(PATHS) {
            let ask = Ask::Resolve { paths: some.iter().map(text).collect(), keep };
            heard(self.output, (client, folder), &ask, &mut |piece| {
                let Tell::Resolved(some) = piece else { return Err(unexpected()) };
                decided.extend(some.iter().map(path).collect::<Result<Vec<_>, NoPath>>()?);
                Ok(())
            })?;
        }
        decided.sort();
        decided.dedup();
        Ok(decided)
    }

    /// Kept versions at or below a path, newest first.
    pub(super) fn versions(&self, at: &RelPath) -> Result<Vec<KeptVersion>> {
        match &self.by {
            By::Itself(replica) => Ok(replica.versions(at)?),
            By::Agent(client, folder) => kept(self.output, (client, folder), &Ask::Versions { at: text(at) }),
        }
    }

    /// Brings a kept version back to its path.
    pub(super) fn restore(&mut self, at: &RelPath, version: Option<i64>) -> Result<KeptVersion> {
        let restored = match &mut self.by {
            By::Itself(replica) => return Ok(replica.restore(at, version)?),
            By::Agent(client, folder) => (&*client, &*folder),
        };
        let restored = kept(self.output, restored, &Ask::Restore { at: text(at), version })?;
        restored.into_iter().next().ok_or_else(unexpected)
    }
}

fn kept(output: &Output, whom: (&Client, &Name), ask: &Ask) -> Result<Vec<KeptVersion>> {
    let mut found = Vec::new();
    heard(output, whom, ask, &mut |piece| {
        let Tell::Versions(some) = piece else { return Err(unexpected()) };
        found.extend(some.into_iter().map(KeptVersion::try_from).collect::<Result<Vec<_>, NoPath>>()?);
        Ok(())
    })?;
    Ok(found)
}

/// As [`asked`], of a root that the agent had open a moment ago.
pub(super) fn heard(
    output: &Output,
    (client, folder): (&Client, &Name),
    ask: &Ask,
    hear: &mut dyn FnMut(Tell) -> Result<()>,
) -> Result<()> {
    let closed = || anyhow::anyhow!("the agent closed the root of folder {folder} just now: try again in a moment");
    asked((client, folder), ask, (output, &|| false), hear)?.ok_or_else(closed)
}

pub(super) fn unexpected() -> anyhow::Error {
    anyhow::anyhow!("the agent answers another thing than was asked: restart it with this version of driftless")
}
