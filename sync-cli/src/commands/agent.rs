//! `driftless agent`: runs it, asks it, steers it.

use crate::cli::{AgentAction, AgentArgs, AgentConfigArgs};
use crate::commands::Summary;
use crate::exit::{Exit, Usage};
use crate::glance;
use crate::home;
use crate::output::Output;
use crate::render::root;
use crate::signals::{Waiting, Wanted};
use anyhow::{Context, Result};
use chrono::Local;
use serde::Serialize;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use sync_agent::archive::run::Clock;
use sync_agent::config::{CONFIG_FILE, Changes, create, example};
use sync_agent::control::{Ask, Client, ControlError, SOCKET_FILE, SocketError};
use sync_agent::log::{Level, Log};
use sync_agent::service::Service;
use sync_agent::status::{FolderStatus, Machine, SeenLink, Status, Summary as Numbers};
use sync_core::path::escape;
use sync_core::peer::{Id, Name};

/// What an agent that runs without a journal says in front of each line.
const TIME: &str = "%Y-%m-%d %H:%M:%S";

/// The lines of results.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line<'a> {
    /// The agent answers.
    Ready { name: &'a Name, id: Id, socket: Cow<'a, str>, page: Option<SocketAddr>, config: Cow<'a, str> },
    /// A configuration was written.
    Written { config: Cow<'a, str> },
    /// The agent as a whole.
    Agent {
        name: &'a Name,
        id: Id,
        version: &'a str,
        since: String,
        listen: &'a [SocketAddr],
        page: Option<SocketAddr>,
        notices: &'a [String],
    },
    /// One folder with its peers.
    Folder(&'a FolderStatus),
    /// A machine that the agent knows of.
    Machine(&'a Machine),
    /// A link as one of its ends sees it.
    Link(&'a SeenLink),
    /// What a reload changed.
    Reloaded(&'a Changes),
    /// The end of `agent status`.
    Summary(&'a Numbers),
}

/// Does what was asked for.
pub(super) fn run(args: &AgentArgs, output: &Output) -> Result<Exit> {
    let client = || home::place().map(|place| Client::new(&place));
    let all = |folder: &Option<Name>| folder.as_ref().map_or_else(|| "all folders".to_owned(), |name| format!("folder {name}"));
    match &args.action {
        AgentAction::Init(args) => return init(args, output),
        AgentAction::Run(args) => return serve(args, output),
        AgentAction::Status(_) => return Ok(status(&asked(client()?.status())?, output)),
        AgentAction::Pause(args) => {
            asked(client()?.pause(args.folder.clone()))?;
            output.line(&format!("paused: {}", all(&args.folder)));
        }
        AgentAction::Resume(args) => {
            asked(client()?.resume(args.folder.clone()))?;
            output.line(&format!("resumed: {}", all(&args.folder)));
        }
        AgentAction::Sync(args) => {
            let folder = &args.folder.folder;
            match folder.as_ref().filter(|_| args.allow_delete) {
                Some(name) => asked(client()?.allow_delete(name.clone()))?,
                None => asked(client()?.sync(folder.clone()))?,
            }
            output.line(&format!("begun: {}; driftless agent status tells how it goes", all(folder)));
        }
        AgentAction::Rejoin(args) => {
            let name = &args.folder;
            if asked(client()?.inquire(name, &Ask::Rejoin, &mut |_| true))? {
                output.line(&format!("folder {name} begins anew from its files; driftless agent status tells how it goes"));
            }
        }
        AgentAction::Reload(_) => reloaded(&asked(client()?.reload())?, output),
        AgentAction::Stop(_) => {
            asked(client()?.stop())?;
            output.line("the agent has ended");
        }
    }
    output.event(&Summary { count: 1, ..Summary::default() });
    Ok(Exit::InSync)
}

fn asked<T>(answer: Result<Result<T, ControlError>, SocketError>) -> Result<T> {
    Ok(answer??)
}

fn init(args: &AgentConfigArgs, output: &Output) -> Result<Exit> {
    let path = match &args.config {
        Some(path) => path.clone(),
        None => home::open()?.folder().join(CONFIG_FILE),
    };
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let name = Name::near(host.split('.').next().unwrap_or_default()).or_else(|| "this-machine".parse().ok());
    create(&path, &example(&name.context("a machine needs a name")?))?;
    output.line(&format!("wrote {}: name your folders and peers there, then driftless agent run", root(&path)));
    output.event(&Line::Written { config: path.to_string_lossy() });
    output.event(&Summary { count: 1, ..Summary::default() });
    Ok(Exit::InSync)
}

/// The agent in this process, until something ends it.
fn serve(args: &AgentConfigArgs, output: &Output) -> Result<Exit> {
    let home = home::open()?;
    let config = absolute(&home::configuration(home.folder(), args.config.as_deref())?)?;
    let socket = home.folder().join(SOCKET_FILE);
    let signals = Waiting::install()?;
    let clock = Clock::new(home::trial_time().map_err(Usage)?);
    let service = Service::start_on(clock, home, &config, home::supervisor(), log(home::talks_to_journal()))?;
    let (handle, interrupted) = (service.handle(), signals.interrupted());
    let Status { name, id, page, .. } = service.status();
    let closing = signals.handle();
    let heard = move |wanted| match wanted {
        Wanted::End => handle.stop(),
        Wanted::Reload => handle.reload(),
    };
    // It ends with the handle, and with the process.
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || signals.wait(heard))
        .context("cannot start a thread for signals")?;
    let shown = page.map_or_else(String::new, |page| format!(", its status page is http://{page}/"));
    output.line(&format!("agent {name} ({id}) answers at {}{shown}", root(&socket)));
    output.event(&Line::Ready { name: &name, id, socket: socket.to_string_lossy(), page, config: config.to_string_lossy() });
    output.flush();
    let (parting, ended) = service.run();
    closing.close();
    ended?;
    output.event(&Summary::default());
    output.flush();
    drop(parting);
    Ok(if interrupted.load(Ordering::SeqCst) { Exit::Interrupted } else { Exit::InSync })
}

/// A reload reads the same file, wherever the process may be by then.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Usage(format!("{}: {error}", root(path))).into())
}

/// One line for each event on stderr: with its priority in front for the journal, which knows the time itself; else with the time.
fn log(journal: bool) -> Log {
    Arc::new(move |level: Level, text: &str| {
        let text = escape(text.as_bytes());
        let line = match journal {
            true => format!("<{}>{text}", level as u8),
            false => format!("{} {}{text}", Local::now().format(TIME), word(level)),
        };
        Output::log(&line);
    })
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error: ",
        Level::Warning => "warning: ",
        Level::Notice | Level::Info => "",
    }
}

fn status(status: &Status, output: &Output) -> Exit {
    let numbers = status.summary();
    glance::lines(status, &numbers).iter().for_each(|line| output.line(line));
    let Status { name, id, version, since, listen, page, notices, folders, machines, links } = status;
    output.event(&Line::Agent { name, id: *id, version, since: String::from(*since), listen, page: *page, notices });
    folders.iter().for_each(|folder| output.event(&Line::Folder(folder)));
    machines.iter().for_each(|machine| output.event(&Line::Machine(machine)));
    links.iter().for_each(|link| output.event(&Line::Link(link)));
    output.event(&Line::Summary(&numbers));
    Exit::of_run(numbers.in_sync, numbers.problems + numbers.unavailable + numbers.stopped)
}

fn reloaded(changes: &Changes, output: &Output) {
    match changes.is_empty() {
        true => output.line("nothing has changed"),
        false => changes.lines().iter().for_each(|line| output.line(line)),
    }
    output.event(&Line::Reloaded(changes));
}
