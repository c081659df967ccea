//! `driftless pair`: two machines learn each other's keys by a short code.

use crate::cli::PairArgs;
use crate::commands::{Summary, peer};
use crate::exit::{self, Exit, Usage};
use crate::home;
use crate::output::Output;
use crate::signals::Interrupt;
use anyhow::{Context, Result};
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use sync_agent::config;
use sync_core::io::home::Home;
use sync_core::io::link::{Identity, Introduction, Network, PairError, Paired, PairingDesk, join};
use sync_core::pairing::{Code, LIFETIME, Refusal};
use sync_core::peer::{Address, Id, Name, Peer};

/// How long the side on which the code was typed tries.
const JOIN: Duration = Duration::from_secs(20);

/// The code, for whoever types it on the other machine.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "code")]
struct CodeLine {
    code: String,
    address: SocketAddr,
    seconds: u64,
}

/// The other machine is stored.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "paired")]
struct PairedLine<'a> {
    name: &'a str,
    id: Id,
}

/// Stores the other machine, and remembers under which name.
struct Storing<'a> {
    home: &'a Home,
    args: &'a PairArgs,
    own: Id,
    name: Mutex<Option<Name>>,
}

impl Storing<'_> {
    fn store(&self, paired: &Paired) -> Result<(), String> {
        if paired.key.id() == self.own {
            return Err("it is this very machine".into());
        }
        let wanted = self.args.name.as_ref().unwrap_or(&paired.name);
        // Where it listens for its work may be another place than where it showed its code.
        let addresses = match self.args.addresses.as_slice() {
            [] => paired.address.iter().cloned().collect(),
            given => given.to_vec(),
        };
        let peer = Peer { id: paired.key.id(), addresses, grants: peer::grants(&self.args.grants) };
        let name = self.home.change_book(|book| book.merge(wanted, peer)).map_err(|error| error.to_string())?;
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
        Ok(())
    }
}

/// Shows a code and waits, or types one.
pub(super) fn run(args: &PairArgs, output: &Output) -> Result<Exit> {
    let home = home::open()?;
    let network = Network::new(Identity::open(&home)?)?;
    let own_name = own_name();
    let storing = Storing { home: &home, args, own: network.identity().id(), name: Mutex::default() };
    let store = |paired: &Paired| storing.store(paired);
    let own = Introduction { name: &own_name, store: &store };
    let interrupt = Interrupt::install()?;
    // The folder changes as a whole or not at all, so that the process may end at any moment.
    let paired = interrupt.end_at_once_during(|| match (&args.code, &args.address, args.listen) {
        (Some(code), Some(address), None) => type_code(&network, code, address, own),
        (None, None, Some(address)) => show_code(&home, &network, address, own, output),
        _ => Err(Usage("give CODE and ADDR, or --listen ADDR".into()).into()),
    })?;
    let name = storing.name.into_inner().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(|| paired.name.clone());
    output.line(&format!("paired with {name}  {}", paired.key.id()));
    output.event(&PairedLine { name: name.as_str(), id: paired.key.id() });
    if !paired.confirmed {
        output.talk(&format!("note: {name} did not say that it stored this machine; if it reports an error, pair again"));
    }
    output.event(&Summary { count: 1, ..Summary::default() });
    Ok(Exit::InSync)
}

fn type_code(network: &Network, code: &Code, address: &Address, own: Introduction<'_>) -> Result<Paired> {
    let joined = join(network, code, address, own, JOIN);
    let again = "start again with `driftless pair --listen` on the other machine, which shows a new code";
    joined.map_err(|error| match error {
        PairError::Refused(Refusal::Wrong | Refusal::Over) => anyhow::Error::from(error).context(again),
        error => error.into(),
    })
}

fn show_code(home: &Home, network: &Network, address: SocketAddr, own: Introduction<'_>, output: &Output) -> Result<Paired> {
    let works_at = works_at(home);
    let desk = PairingDesk::open(network, address)
        .map_err(|error| if_in_use(error, address, works_at.as_deref().unwrap_or_default()))?;
    let (code, address) = (desk.code().to_string(), desk.address());
    output.line(&format!("code {code}\nlistening on {address}"));
    output.event(&CodeLine { code: code.clone(), address, seconds: LIFETIME.as_secs() });
    let (host, works) = match &works_at {
        Ok(works_at) => (reached_at(address, address), elsewhere(address, works_at)),
        Err(error) => {
            let error = exit::words(error);
            output
                .talk_safely(&format!("note: {error}; if an agent listens here at another port, give --address HOST:PORT there"));
            (reached_at(address, address), None)
        }
    };
    let works = works.map_or(String::new(), |works| format!(" --address {works}"));
    output
        .talk(&format!("within {} minutes, on the other machine: driftless pair {code} {host}{works}", LIFETIME.as_secs() / 60));
    desk.wait(own).context("the code is of no use any more; nothing was stored")
}

/// Where the agent of this machine listens by its configuration; nowhere without one.
fn works_at(home: &Home) -> Result<Vec<SocketAddr>> {
    match home::configuration_there(home.folder()) {
        Some(path) => Ok(config::load(&path, home)?.listen),
        None => Ok(Vec::new()),
    }
}

/// An address as the other machine is to call it, where the code is shown at `shown`.
fn reached_at(address: SocketAddr, shown: SocketAddr) -> String {
    match (address.ip().is_unspecified(), shown.ip().is_unspecified()) {
        (false, _) => address.to_string(),
        (true, false) => SocketAddr::new(shown.ip(), address.port()).to_string(),
        (true, true) => format!("HOST:{}", address.port()),
    }
}

/// Where the other machine is to call later, if that is not where the code is shown.
fn elsewhere(shown: SocketAddr, works_at: &[SocketAddr]) -> Option<String> {
    let same = works_at.iter().any(|address| address.port() == shown.port());
    works_at.first().filter(|_| !same).map(|address| reached_at(*address, shown))
}

/// What can be done where something listens already: most likely the agent, which does not end for a pairing.
fn if_in_use(error: PairError, address: SocketAddr, works_at: &[SocketAddr]) -> anyhow::Error {
    let in_use = std::io::Error::from(rustix::io::Errno::ADDRINUSE).to_string();
    if !error.to_string().contains(&in_use) {
        return error.into();
    }
    let works = elsewhere(SocketAddr::new(address.ip(), 0), works_at).unwrap_or_else(|| reached_at(address, address));
    let free = SocketAddr::new(address.ip(), 0);
    anyhow::anyhow!(
        "{error}: an agent, or another program, listens there. Show the code at a free port, `driftless pair --listen {free}`, and type \
         it on the other machine with `--address {works}`, where it is to call this one from then on"
    )
}

/// What the other machine may call this one: the host's name.
fn own_name() -> Name {
    let host = rustix::system::uname();
    let near = Name::near(&host.nodename().to_string_lossy());
    near.unwrap_or_else(|| "machine".parse().expect("letters are a name"))
}
