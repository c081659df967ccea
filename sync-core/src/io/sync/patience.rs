//! A root that somebody else is about to let go of is waited for.

use super::SyncError;
use crate::io::state::{State, StateError};
use crate::report::Monitor;
use std::time::{Duration, Instant};

/// How long another process may hold a root before whoever wants it is refused: it may be about to end, or be dying.
const HELD: Duration = Duration::from_secs(5);
/// The same for this process itself: what uses the root in it was told to end, and finishes the step that it is at.
const OWN: Duration = Duration::from_secs(30);
/// How often it is tried again, and looked whether nobody wants it any more. What this process lets go of is noticed at once.
const TRY: Duration = Duration::from_millis(50);

/// Repeats an attempt to open a root as long as somebody else has it.
///
/// # Errors
/// Those of the attempt; after the deadline that somebody has it. [`SyncError::Cancelled`] while it is waited.
pub(super) fn patiently<T>(monitor: &dyn Monitor, attempt: impl FnMut() -> Result<T, SyncError>) -> Result<T, SyncError> {
    wait(monitor, (OWN, HELD), attempt)
}

/// The same for a run that begins: one that ended elsewhere a moment before may still be closing the root. Whoever has it in this process
/// does not let go of it while this waits.
///
/// # Errors
/// As of [`patiently`].
pub(super) fn after_others<T>(monitor: &dyn Monitor, attempt: impl FnMut() -> Result<T, SyncError>) -> Result<T, SyncError> {
    wait(monitor, (Duration::ZERO, HELD), attempt)
}

fn wait<T>(
    monitor: &dyn Monitor,
    (of_own, of_others): (Duration, Duration),
    mut attempt: impl FnMut() -> Result<T, SyncError>,
) -> Result<T, SyncError> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(SyncError::State(StateError::Locked { dir, own, .. }))
                if begun.elapsed() < if own { of_own } else { of_others } =>
            {
                if monitor.cancelled() {
                    return Err(SyncError::Cancelled);
                }
                match own {
                    true => State::wait_for_release(&dir, TRY),
                    // A lock of the system has no deadline of its own to wait with.
                    false => std::thread::sleep(TRY),
                }
            }
            other => return other,
        }
    }
}
