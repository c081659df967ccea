//! What the agent tells of itself while it runs: one line for each event, handed to whoever started it.

use std::sync::Arc;

/// How much an event matters, as syslog counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something does not work, and somebody has to do something.
    Error = 3,
    /// Something does not work, and may mend itself.
    Warning = 4,
    /// What one wants to find later.
    Notice = 5,
    /// What goes on.
    Info = 6,
}

/// Takes the lines. Called from any thread; must not wait for the agent.
pub type Log = Arc<dyn Fn(Level, &str) + Send + Sync>;
