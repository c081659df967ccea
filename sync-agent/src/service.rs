//! An agent as a process: lock, configuration, control socket, supervisor; from its start to its end. What the agent does with folders
//! and peers is `agent`'s.

use crate::agent::{Agent, AgentError};
use crate::archive::run::Clock;
use crate::config::{Changes, ConfigError, load};
use crate::control::{AgentLock, Ask, Asker, Control, ControlError, LockError, Parting, Refused, Server, SocketError, take_over};
use crate::log::{Level, Log};
use crate::notify::{State, Supervisor};
use crate::status::{Moment, Status};
use crate::web::Web;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use sync_core::io::home::Home;
use sync_core::peer::{Id, Name};

/// How long the agent may take to finish what it has begun, once it is to end.
const GRACE: Duration = Duration::from_secs(30);

/// Why an agent could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Another one runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The agent itself.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// What is asked of the process, by signals and by the control socket.
#[derive(Debug, Default)]
struct Asked {
    reload: bool,
    stop: bool,
}

/// What all threads share.
struct Core {
    agent: Arc<Agent>,
    web: Web,
    home: Home,
    config: PathBuf,
    supervisor: Supervisor,
    log: Log,
    asked: Mutex<Asked>,
    changed: Condvar,
    /// One configuration is taken over after the other.
    reloading: Mutex<()>,
}

/// Asks a running agent from within its process: what signals do.
#[derive(Clone)]
pub struct Handle(Arc<Core>);

/// An agent that runs.
pub struct Service {
    core: Arc<Core>,
    server: Server,
    lock: AgentLock,
}

impl Service {
    /// Starts: one agent for each home folder. `config` is read now, and again by each reload.
    ///
    /// # Errors
    /// Another agent with this home; a configuration that makes no sense; whatever keeps the agent from beginning.
    pub fn start(home: Home, config: &Path, supervisor: Supervisor, log: Log) -> Result<Service, ServiceError> {
        Service::start_on(Clock::default(), home, config, supervisor, log)
    }

    /// As [`Service::start`], with another clock for the archiving of old days.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub fn start_on(clock: Clock, home: Home, config: &Path, supervisor: Supervisor, log: Log) -> Result<Service, ServiceError> {
        let lock = take_over(home.folder(), &log)?;
        let loaded = load(config, &home)?;
        let page = loaded.status;
        let agent = Arc::new(Agent::start_on(clock, loaded, &home, Arc::clone(&log))?);
        let shown = Arc::clone(&agent);
        let core = Arc::new(Core {
            web: Web::new(Arc::new(move || shown.status()), Arc::clone(&log)),
            agent,
            home,
            config: config.to_owned(),
            supervisor,
            log: Arc::clone(&log),
            asked: Mutex::default(),
            changed: Condvar::new(),
            reloading: Mutex::default(),
        });
        let control: Arc<dyn Control> = Arc::<Core>::clone(&core);
        let server = match Server::open(core.home.folder(), control, log) {
            Ok(server) => server,
            Err(error) => {
                core.end();
                return Err(error.into());
            }
        };
        // Beside the work: an address that cannot be had is told, and keeps nothing from being done.
        core.web.place(page);
        core.tell(State::Ready);
        Ok(Service { core, server, lock })
    }

    /// Who this machine is.
    #[must_use]
    pub fn id(&self) -> Id {
        self.core.agent.id()
    }

    /// How everything is.
    #[must_use]
    pub fn status(&self) -> Status {
        Control::status(&*self.core)
    }

    /// For whoever receives signals.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.core))
    }

    /// Runs until it is asked to stop, and ends it. Whoever waits for the end is told when the result is dropped.
    ///
    /// # Errors
    /// A socket that could not be removed: the agent has ended all the same.
    pub fn run(self) -> (Parting, Result<(), ServiceError>) {
        let Service { core, server, lock } = self;
        loop {
            let asked = core.wait();
            if asked.stop {
                break;
            }
            if asked.reload {
                // Told by the reload itself.
                let _ = core.reload();
            }
            // A supervisor hears from an agent as long as it works, and restarts one that does not.
            match core.agent.is_well() {
                true => core.tell(State::Alive),
                false => (core.log)(Level::Error, "the agent does not do its work any more"),
            }
        }
        core.tell(State::Stopping);
        // First nobody can come any more, then another agent can begin, then whoever waited is told.
        let (parting, closed) = server.close();
        core.web.close();
        core.end();
        drop(lock);
        (parting, closed.map_err(ServiceError::from))
    }
}

impl Handle {
    /// Ends the agent: [`Service::run`] returns.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Reads the configuration anew, on the agent's own thread. What comes of it is told in the log.
    pub fn reload(&self) {
        self.0.asked().reload = true;
        self.0.changed.notify_all();
    }
}

impl Core {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until something is asked, or the supervisor wants to hear something.
    fn wait(&self) -> Asked {
        let asked = self.asked();
        let quiet = |asked: &mut Asked| !asked.reload && !asked.stop;
        let mut asked = match self.supervisor.beat() {
            Some(beat) => self.changed.wait_timeout_while(asked, beat, quiet).unwrap_or_else(PoisonError::into_inner).0,
            None => self.changed.wait_while(asked, quiet).unwrap_or_else(PoisonError::into_inner),
        };
        std::mem::take(&mut asked)
    }

    fn end(&self) {
        if !self.agent.stop(GRACE) {
            let text = format!("what was under way did not end within {} seconds; the next start mends it", GRACE.as_secs());
            (self.log)(Level::Warning, &text);
        }
    }

    fn tell(&self, state: State) {
        if state == State::Alive && self.supervisor.watchdog.is_none() {
            return;
        }
        if let Err(error) = self.supervisor.tell(state) {
            (self.log)(Level::Warning, &format!("the service manager cannot be told that the agent is {state:?}: {error}"));
        }
    }

    fn take_over(&self) -> Result<Changes, ControlError> {
        let refused = |error: ConfigError| {
            let kind = if matches!(error, ConfigError::Text { .. }) { Refused::Configuration } else { Refused::Failed };
            ControlError::new(kind, format!("the configuration stays as it was:\n{error}"))
        };
        let config = load(&self.config, &self.home).map_err(refused)?;
        let page = config.status;
        let changes = self.agent.reload(config).map_err(|error| ControlError::new(Refused::Failed, error.to_string()))?;
        self.web.place(page);
        Ok(changes)
    }
}

impl Control for Core {
    fn status(&self) -> Status {
        self.web.told(self.agent.status())
    }

    fn pause(&self, folder: Option<&Name>) -> Result<(), ControlError> {
        self.agent.pause(folder)
    }

    fn resume(&self, folder: Option<&Name>) -> Result<(), ControlError> {
        self.agent.resume(folder)
    }

    fn sync(&self, folder: Option<&Name>) -> Result<(), ControlError> {
        self.agent.sync(folder)
    }

    fn allow_delete(&self, folder: &Name) -> Result<(), ControlError> {
        self.agent.allow_delete(folder)
    }

    fn archive(&self, folder: Option<&Name>, accept_clock: bool) -> Result<(), ControlError> {
        self.agent.archive(folder, accept_clock)
    }

    fn reload(&self) -> Result<Changes, ControlError> {
        let _one = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        self.tell(State::Reloading);
        let taken = self.take_over();
        match &taken {
            Ok(changes) if changes.is_empty() => (self.log)(Level::Notice, "reloaded: nothing has changed"),
            Ok(changes) => (self.log)(Level::Notice, &format!("reloaded: {}", changes.lines().join(", "))),
            Err(error) => error.text.lines().for_each(|line| (self.log)(Level::Error, line)),
        }
        self.tell(State::Ready);
        taken
    }

    fn probe(&self) -> Result<Moment, ControlError> {
        Ok(self.agent.probe())
    }

    fn ask(&self, folder: &Name, ask: &Ask, asker: &Asker<'_>) -> Result<(), ControlError> {
        self.agent.ask(folder, ask, asker)
    }

    fn stop(&self) {
        self.asked().stop = true;
        self.changed.notify_all();
    }
}
