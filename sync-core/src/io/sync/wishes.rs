//! How a conversation with a machine that asks begins, what it wishes for next, and how it ends.

use super::SyncError;
use super::grant::Grant;
use crate::io::channel::{Channel, ChannelError};
use crate::io::link::{CloseCode, Connection};
use crate::io::state::StateError;
use crate::report::Monitor;
use crate::wire::{self, HelloAnswer, Message, Refusal, Versions};
use std::time::{Duration, Instant};

/// How often the wish to stop is looked for while the other side is waited for.
pub(super) const GLANCE: Duration = Duration::from_millis(200);
/// How long whoever was let in may take to say what it wants.
pub(super) const HELLO: Duration = Duration::from_secs(10);

pub(super) fn greet(control: &mut Channel) -> Result<(), ChannelError> {
    control.set_deadline(Some(Instant::now() + HELLO));
    let said = control.receive();
    control.set_deadline(None);
    let hello = match said? {
        Message::Hello(hello) => hello,
        other => return Err(ChannelError::unexpected(other, "a greeting")),
    };
    let Some(version) = Versions::OURS.common(hello.versions) else {
        let Versions { oldest, newest } = Versions::OURS;
        let text =
            format!("this side speaks the versions {oldest} to {newest} of the protocol: bring both sides to the same release");
        control.refuse(Refusal::Version, text.clone())?;
        return Err(ChannelError::Refused(wire::Refused { code: Refusal::Version, text }));
    };
    let program = concat!("driftless ", env!("CARGO_PKG_VERSION")).into();
    let nonce = super::random_bytes()?;
    control.send(&Message::HelloAnswer(HelloAnswer { version, program, capabilities: 0, nonce, proof: Vec::new() }))?;
    control.trust();
    Ok(())
}

/// The next message; `None` once the other side has ended the conversation. It is waited for as long as asked, and for as long as
/// the other side is busy otherwise: `idle` is for how long it was not.
pub(super) fn next(
    control: &mut Channel,
    peer: &str,
    (wait, idle): (Duration, &dyn Fn() -> Duration),
    monitor: &dyn Monitor,
) -> Result<Option<Message>, SyncError> {
    control.set_read_wait(GLANCE);
    let began = Instant::now();
    loop {
        if monitor.cancelled() {
            return Err(SyncError::Cancelled);
        }
        if began.elapsed().min(idle()) >= wait {
            let text = format!("nothing was asked for {} seconds: run again", wait.as_secs());
            return Err(SyncError::Refuse { code: Refusal::Busy, text });
        }
        match control.poll() {
            Ok(None) => {}
            Ok(some) => return Ok(some),
            Err(ChannelError::Ended) => return Ok(None),
            Err(error) => return Err(SyncError::of_remote(peer, error)),
        }
    }
}

/// What was stopped because the grant does not stand any more says so.
pub(super) fn or_taken_back<T>(ended: Result<T, SyncError>, grant: &Grant<'_>) -> Result<T, SyncError> {
    match ended {
        Err(SyncError::Cancelled) => Err(grant.check().err().unwrap_or(SyncError::Cancelled)),
        ended => ended,
    }
}

/// Ends a connection whose run is over, unless that was done before.
pub(super) fn conclude<T>(connection: &Connection, control: &mut Channel, served: &Result<T, SyncError>) {
    if connection.wait_closed(Duration::ZERO).is_ok() {
        return;
    }
    if let Err(error) = served {
        tell(connection, control, error);
    }
    connection.close(if served.is_ok() { CloseCode::Done } else { CloseCode::Failed });
}

/// Tells the other side what went wrong here, and gives it the time to read that.
pub(super) fn tell(connection: &Connection, control: &mut Channel, error: &SyncError) {
    let (code, text) = match error {
        // It is what failed, or what told us.
        SyncError::Remote { source: ChannelError::Io(_) | ChannelError::Link(_) | ChannelError::Ended, .. } => return,
        SyncError::Remote { .. } => (Refusal::Request, error.to_string()),
        SyncError::Refuse { code, text } => (*code, text.clone()),
        SyncError::Guard(text) | SyncError::Outrun(text) => (Refusal::Guard, text.clone()),
        SyncError::Anew(anew) => (Refusal::Guard, anew.told_elsewhere()),
        SyncError::Root(text) => (Refusal::Folder, text.clone()),
        SyncError::State(StateError::Locked { .. }) => (Refusal::Busy, error.to_string()),
        SyncError::Cancelled => (Refusal::Failed, "the other side was stopped; what was done is recorded".into()),
        error => (Refusal::Failed, error.to_string()),
    };
    // Where it cannot be told, the end of the connection tells it.
    if control.refuse(code, text).is_ok() {
        let _ = connection.wait_closed(HELLO);
    }
}
