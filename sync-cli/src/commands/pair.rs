//! `driftless pair`: two machines learn each other's keys by a short code.

use crate::cli::PairArgs;
use crate::commands::{Summary, peer};
use crate::exit::{Exit, Usage};
use crate::home;
use crate::output::Output;
use crate::signals::Interrupt;
use anyhow::{Context, Result};
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
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
        let addresses = paired.address.iter().cloned().collect();
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
        (None, None, Some(address)) => show_code(&network, address, own, output),
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

fn show_code(network: &Network, address: SocketAddr, own: Introduction<'_>, output: &Output) -> Result<Paired> {
    let desk = PairingDesk::open(network, address)?;
    let (code, address) = (desk.code().to_string(), desk.address());
    output.line(&format!("code {code}\nlistening on {address}"));
    output.event(&CodeLine { code: code.clone(), address, seconds: LIFETIME.as_secs() });
    let host = if address.ip().is_unspecified() { format!("HOST:{}", address.port()) } else { address.to_string() };
    output.talk(&format!("within {} minutes, on the other machine: driftless pair {code} {host}", LIFETIME.as_secs() / 60));
    desk.wait(own).context("the code is of no use any more; nothing was stored")
}

/// What the other machine may call this one: the host's name.
fn own_name() -> Name {
    let host = rustix::system::uname();
    let near = Name::near(&host.nodename().to_string_lossy());
    near.unwrap_or_else(|| "machine".parse().expect("letters are a name"))
}
