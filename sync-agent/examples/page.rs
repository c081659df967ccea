//! The status page of machines that do not exist, to look at it: `cargo run -p sync-agent --example page -- 127.0.0.1:4488 trouble`.
#![allow(clippy::print_stderr, clippy::disallowed_methods, reason = "an example for whoever works on the page")]

#[path = "../tests/page/made_up.rs"]
mod made_up;

use made_up::World;
use std::sync::Arc;
use std::time::SystemTime;
use sync_agent::web::Web;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().and_then(|text| text.parse().ok());
    let world = arguments.next().unwrap_or_default();
    if address.is_none() {
        eprintln!("usage: page ADDRESS:PORT trouble|even|alone|crowd");
        std::process::exit(64);
    }
    let status = move || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let made_up = World::at(i64::try_from(now).unwrap_or(i64::MAX));
        match world.as_str() {
            "even" => made_up.even(),
            "alone" => made_up.alone(),
            "crowd" => made_up.crowd(30),
            _ => made_up.trouble(),
        }
    };
    let page = Web::new(Arc::new(status), Arc::new(|_, line| eprintln!("{line}")));
    page.place(address);
    loop {
        std::thread::park();
    }
}
