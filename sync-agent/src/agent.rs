//! The agent itself: what is done with folders and peers. The seam between `service`, which starts, asks and ends it, and the work.
//!
//! In this release it holds the configuration and who paused what, and answers with folders that are starting: nothing is watched,
//! scanned or exchanged yet, and whoever asks for it is told so.

use crate::config::{Changes, Config, Folder, diff};
use crate::control::{ControlError, Refused};
use crate::log::{Level, Log};
use crate::status::{FolderState, FolderStatus, Link, Moment, PathText, PeerStatus, Problems, Status, Watches};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use sync_core::io::home::Home;
use sync_core::io::link::{Identity, IdentityError};
use sync_core::peer::{Id, Name};

/// Why the agent could not begin, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// This machine's key cannot be read or made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// A running agent.
pub struct Agent {
    id: Id,
    since: Moment,
    log: Log,
    held: Mutex<Held>,
}

struct Held {
    config: Config,
    paused: BTreeSet<Name>,
}

impl Agent {
    /// Begins. `home` has this machine's key and its known peers.
    ///
    /// # Errors
    /// A key that cannot be read or made.
    #[allow(clippy::disallowed_methods, reason = "when the agent began")]
    pub fn start(config: Config, home: &Home, log: Log) -> Result<Agent, AgentError> {
        let id = Identity::open(home)?.id();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = Moment(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
        log(Level::Warning, "folders are not watched or exchanged yet in this release: the agent only answers");
        Ok(Agent { id, since, log, held: Mutex::new(Held { config, paused: BTreeSet::new() }) })
    }

    /// Who this machine is.
    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }

    /// How everything is, as last known. Never waits for work under way.
    #[must_use]
    pub fn status(&self) -> Status {
        let held = self.held();
        let folders = held.config.folders.iter().map(|(name, folder)| held.folder(name, folder)).collect();
        Status {
            name: held.config.name.clone(),
            id: self.id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: self.since,
            listen: Vec::new(),
            notices: Vec::new(),
            folders,
        }
    }

    /// Stops exchanging a folder, or all that there are.
    ///
    /// # Errors
    /// A folder that is not there.
    pub fn pause(&self, folder: Option<&Name>) -> Result<(), ControlError> {
        let mut held = self.held();
        for name in held.named(folder)? {
            if held.paused.insert(name.clone()) {
                (self.log)(Level::Notice, &format!("folder {name} is paused"));
            }
        }
        Ok(())
    }

    /// Takes it up again.
    ///
    /// # Errors
    /// A folder that is not there.
    pub fn resume(&self, folder: Option<&Name>) -> Result<(), ControlError> {
        let mut held = self.held();
        for name in held.named(folder)? {
            if held.paused.remove(&name) {
                (self.log)(Level::Notice, &format!("folder {name} is resumed"));
            }
        }
        Ok(())
    }

    /// Scans and exchanges a folder, or all, now.
    ///
    /// # Errors
    /// A folder that is not there, or paused; in this release, always.
    pub fn sync(&self, folder: Option<&Name>) -> Result<(), ControlError> {
        let held = self.held();
        let names = held.named(folder)?;
        if let Some(name) = folder.filter(|name| held.paused.contains(name)) {
            return Err(ControlError::new(
                Refused::Paused,
                format!("folder {name} is paused; driftless agent resume {name} takes it up again"),
            ));
        }
        let text = format!("{} folders wait: this release of the agent exchanges nothing yet; driftless sync does", names.len());
        Err(ControlError::new(Refused::Failed, text))
    }

    /// Goes over to another configuration, and tells what that changed. Links of peers that stay are not dropped.
    ///
    /// # Errors
    /// None in this release.
    pub fn reload(&self, config: Config) -> Result<Changes, AgentError> {
        let mut held = self.held();
        let changes = diff(&held.config, &config);
        held.paused.retain(|name| config.folders.contains_key(name));
        held.config = config;
        Ok(changes)
    }

    /// Does it still do its work? Whoever supervises the process is told only as long as it does.
    #[must_use]
    pub fn is_well(&self) -> bool {
        true
    }

    /// Ends it: what was begun finishes its step, states are closed. False if that took longer than `wait`.
    #[must_use]
    pub fn stop(&self, _wait: Duration) -> bool {
        true
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// The folder of that name, or all.
    fn named(&self, folder: Option<&Name>) -> Result<Vec<Name>, ControlError> {
        let known = || self.config.folders.keys();
        match folder {
            None => Ok(known().cloned().collect()),
            Some(name) if self.config.folders.contains_key(name) => Ok(vec![name.clone()]),
            Some(name) => {
                let known: Vec<&str> = known().map(Name::as_str).collect();
                let known =
                    if known.is_empty() { "there are none".to_owned() } else { format!("there are: {}", known.join(", ")) };
                Err(ControlError::new(Refused::NoSuchFolder, format!("no folder is named {name}; {known}")))
            }
        }
    }

    fn folder(&self, name: &Name, folder: &Folder) -> FolderStatus {
        let peers = folder.peers.iter().filter_map(|(peer, mode)| {
            let link = Link::Apart { since: None, why: None, address: None, next_try: None };
            Some(PeerStatus {
                name: peer.clone(),
                id: self.config.peers.get(peer)?.id,
                mode: *mode,
                link,
                quality: None,
                lacking_here: None,
                lacking_there: None,
                last_sync: None,
                transfers: Vec::new(),
            })
        });
        FolderStatus {
            name: name.clone(),
            place: PathText::new(folder.path.as_os_str().as_bytes()),
            state: if self.paused.contains(name) { FolderState::Paused } else { FolderState::Starting },
            files: None,
            bytes: None,
            watches: Watches { limit: self.config.limits.watches, ..Watches::default() },
            conflicts: None,
            problems: Problems::default(),
            kept: None,
            last_change: None,
            peers: peers.collect(),
        }
    }
}
