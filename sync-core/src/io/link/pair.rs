//! Pairing over a connection on which nothing else is spoken: `pairing` decides, this carries its messages.

use super::endpoint::{Listener, Network};
use super::tls::{Purpose, Trust};
use super::{CloseCode, Connection, LinkError, Stream};
use crate::io::mutex::{into_inner, lock};
use crate::pairing::{Asking, Binding, Code, Desk, HEAD_BYTES, LIFETIME, Message, Refusal};
use crate::peer::{Address, Name, PublicKey};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// How long one conversation may take, with all its messages.
const CONVERSATION: Duration = Duration::from_secs(10);
/// Conversations at a time; who comes later waits, and is sent away if it takes too long.
const AT_ONCE: usize = 4;
const EXPORT_LABEL: &[u8] = b"EXPORTER-driftless-pairing-1";

/// What is remembered when the other side has proven itself; `Err` says why it cannot be.
pub type Store<'a> = dyn Fn(&Paired) -> Result<(), String> + Sync + 'a;

/// The other side of a pairing, once it has proven that it holds the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paired {
    /// Its key.
    pub key: PublicKey,
    /// The name that it would go by. It says so itself, and nothing follows from it.
    pub name: Name,
    /// Where it was reached, if this side dialled.
    pub address: Option<Address>,
    /// Has the other side said that it remembers this one?
    pub confirmed: bool,
}

/// What this side brings to a pairing.
#[derive(Clone, Copy)]
pub struct Introduction<'a> {
    /// The name that it would go by over there.
    pub name: &'a Name,
    /// Remembers the other side.
    pub store: &'a Store<'a>,
}

/// Why pairing comes to nothing.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The rules of pairing say no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The conversation broke off.
    #[error("the conversation broke off: {0}")]
    Broken(#[from] io::Error),
    /// No randomness.
    #[error("the system yields no random numbers: {0}")]
    Random(getrandom::Error),
    /// The other side cannot be remembered.
    #[error("the other machine cannot be stored: {0}")]
    Store(String),
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], PairError> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(PairError::Random)?;
    Ok(bytes)
}

fn send(stream: &mut Stream, message: &Message) -> Result<(), PairError> {
    Ok(stream.writer.write_all(&message.encode())?)
}

fn receive(stream: &mut Stream) -> Result<Message, PairError> {
    let mut head = [0; HEAD_BYTES];
    stream.reader.read_exact(&mut head)?;
    let mut bytes = vec![0; HEAD_BYTES + Message::body_bytes(head).map_err(Refusal::from)?];
    bytes[..HEAD_BYTES].copy_from_slice(&head);
    stream.reader.read_exact(&mut bytes[HEAD_BYTES..])?;
    Ok(Message::decode(&bytes).map_err(Refusal::from)?)
}

fn set_deadline(stream: &mut Stream, deadline: Instant) {
    stream.reader.set_deadline(Some(deadline));
    stream.writer.set_deadline(Some(deadline));
}

/// Tells the other side why this one ends.
fn close(connection: &Connection, error: &PairError) {
    connection.close(match error {
        PairError::Refused(Refusal::Wrong) => CloseCode::WrongCode,
        PairError::Refused(Refusal::Malformed) => CloseCode::Protocol,
        PairError::Refused(_) => CloseCode::NoCode,
        _ => CloseCode::Failed,
    });
}

/// Pairs with the machine that shows this code at this address.
pub fn join(
    network: &Network,
    code: &Code,
    address: &Address,
    own: Introduction<'_>,
    wait: Duration,
) -> Result<Paired, PairError> {
    let deadline = Instant::now() + wait;
    let connection = network.dial_for(std::slice::from_ref(address), Trust::Anyone, Purpose::Pair, wait)?;
    let left = deadline.saturating_duration_since(Instant::now()).min(CONVERSATION);
    let mut paired = ask(
        &connection,
        network.identity().key(),
        code,
        &mut |paired| {
            paired.address = Some(address.clone());
            (own.store)(paired).map_err(PairError::Store)
        },
        own.name,
        left,
    )?;
    paired.address = Some(address.clone());
    Ok(paired)
}

/// The conversation of the side on which the code was typed.
pub(super) fn ask(
    connection: &Connection,
    own_key: PublicKey,
    code: &Code,
    store: &mut dyn FnMut(&mut Paired) -> Result<(), PairError>,
    own_name: &Name,
    wait: Duration,
) -> Result<Paired, PairError> {
    let asked = ask_openly(connection, own_key, code, store, own_name, Instant::now() + wait);
    let error = match asked {
        Ok(paired) => return Ok(paired),
        Err(error) => error,
    };
    // A conversation that broke off: the code with which the other side closed tells why.
    let closed = connection.wait_closed(Duration::ZERO);
    close(connection, &error);
    match (closed, error) {
        (Ok(Some(CloseCode::WrongCode)), PairError::Broken(_) | PairError::Link(_)) => Err(Refusal::Wrong.into()),
        (Ok(Some(CloseCode::NoCode)), PairError::Broken(_) | PairError::Link(_)) => Err(Refusal::Over.into()),
        (_, error) => Err(error),
    }
}

fn ask_openly(
    connection: &Connection,
    own_key: PublicKey,
    code: &Code,
    store: &mut dyn FnMut(&mut Paired) -> Result<(), PairError>,
    own_name: &Name,
    deadline: Instant,
) -> Result<Paired, PairError> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let binding = Binding { asking: own_key, showing: connection.peer(), exported: connection.export(EXPORT_LABEL)? };
    let mut stream = connection.open(left())?;
    set_deadline(&mut stream, deadline);
    let (asking, share) = Asking::start(code, binding, random()?);
    send(&mut stream, &share)?;
    let (proven, proof) = asking.handle_share(&receive(&mut stream)?, own_name.clone())?;
    send(&mut stream, &proof)?;
    let name = proven.handle_proof(&receive(&mut stream)?)?;
    // The other side has stored this one before it proved itself.
    let mut paired = Paired { key: connection.peer(), name, address: None, confirmed: true };
    store(&mut paired)?;
    send(&mut stream, &Message::Stored)?;
    stream.writer.finish()?;
    // It closes when it has read that. If it does not, it will say so to its user; here all is done.
    let _ = connection.wait_closed(left());
    Ok(paired)
}

/// A code that is shown, and whoever comes with it.
pub struct PairingDesk {
    listener: Listener,
    own_key: PublicKey,
    code: Code,
    desk: Mutex<Desk>,
    opened: Instant,
    shown_before: Duration,
}

impl PairingDesk {
    /// Makes a code, and waits for it at this address from now on.
    pub fn open(network: &Network, address: SocketAddr) -> Result<PairingDesk, PairError> {
        let code = Code::from_random(random()?);
        let listener = network.listen_for(address, Trust::Anyone, Purpose::Pair)?;
        let desk = Mutex::new(Desk::new(code.clone()));
        let own_key = network.identity().key();
        Ok(PairingDesk { listener, own_key, code, desk, opened: Instant::now(), shown_before: Duration::ZERO })
    }

    /// The code to be typed on the other machine.
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// Where the other machine is to call.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// As if the code had been shown for so long already.
    #[cfg(test)]
    pub(super) fn aged(self, age: Duration) -> PairingDesk {
        PairingDesk { shown_before: age, ..self }
    }

    fn age(&self) -> Duration {
        self.opened.elapsed() + self.shown_before
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.desk)
    }

    /// Waits until the code is used, burnt or expired. Who says nothing or nonsense costs nothing but its own connection.
    pub fn wait(self, own: Introduction<'_>) -> Result<Paired, PairError> {
        let outcome = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| self.work(own, &outcome));
            }
        });
        let outcome = into_inner(outcome);
        outcome.unwrap_or(Err(Refusal::Expired.into()))
    }

    /// One conversation after the other, until one of all decides.
    fn work(&self, own: Introduction<'_>, outcome: &Mutex<Option<Result<Paired, PairError>>>) {
        loop {
            let Ok(connection) = self.listener.accept(LIFETIME.saturating_sub(self.age())) else { return };
            let mut decided = false;
            let result = self.answer(&connection, own, &mut decided);
            if decided {
                *lock(outcome) = Some(result);
                // The others end at once, whatever they wait for.
                self.listener.close();
                return;
            }
        }
    }

    /// The conversation of the side that shows the code. `decided` once the code is good for nobody else.
    fn answer(&self, connection: &Connection, own: Introduction<'_>, decided: &mut bool) -> Result<Paired, PairError> {
        let deadline = Instant::now() + CONVERSATION;
        let mut stream = connection.accept(CONVERSATION)?;
        set_deadline(&mut stream, deadline);
        let result = self.converse(connection, &mut stream, own, decided);
        // Before the stream is given up, or the other side might hear of that first, and not why.
        if let Err(error) = &result {
            close(connection, error);
        }
        result
    }

    fn converse(
        &self,
        connection: &Connection,
        stream: &mut Stream,
        own: Introduction<'_>,
        decided: &mut bool,
    ) -> Result<Paired, PairError> {
        let binding = Binding { asking: connection.peer(), showing: self.own_key, exported: connection.export(EXPORT_LABEL)? };
        let share = receive(stream)?;
        let (attempt, answer) = self.desk().handle_share(&share, &binding, random()?, self.age())?;
        send(stream, &answer)?;
        let proof = receive(stream)?;
        let judged = self.desk().handle_proof(attempt, &proof, own.name.clone(), self.age());
        *decided = matches!(judged, Ok(_) | Err(Refusal::Wrong));
        let (name, proof) = judged?;
        let mut paired = Paired { key: connection.peer(), name, address: None, confirmed: false };
        (own.store)(&paired).map_err(PairError::Store)?;
        // From here on this side has paired; whether the other one has is what it says next.
        let told = send(stream, &proof).and_then(|()| receive(stream));
        paired.confirmed = matches!(told, Ok(Message::Stored));
        connection.close(if paired.confirmed { CloseCode::Done } else { CloseCode::Failed });
        Ok(paired)
    }
}
