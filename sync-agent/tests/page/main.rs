//! The status page and the metrics, over real connections: of machines that do not exist, and of a real agent.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "helpers of tests, with real files, a real clock, and logs for whoever looks why one failed"
)]

mod agent;
mod client;
mod http;
mod made_up;
mod metrics;

use std::thread;
use std::time::{Duration, Instant};

/// No wait here may take longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(20);

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "it never came to be that {what}");
        thread::sleep(GLANCE);
    }
}
