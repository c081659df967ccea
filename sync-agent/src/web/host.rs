//! Whom a request was meant for. A browser sends a page of anybody's here, if only that one's name is made to stand for this
//! machine (DNS rebinding), and then lets it read the answer: so only names that nobody else can have are answered to. Pure.

use std::net::{IpAddr, SocketAddr};

/// May a page that is bound to this address answer to this `Host`? The port does not matter: whoever forwards one has another.
pub(super) fn is_ours(host: &str, bound: SocketAddr) -> bool {
    let Some(name) = name(host) else { return false };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || address == bound.ip())
}

/// Without the port; `None`: no host at all.
fn name(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    (port.is_empty() || port.parse::<u16>().is_ok()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_only_this_machine_can_have_are_ours() {
        let bound = "127.0.0.1:4478".parse().unwrap();
        for ours in ["localhost", "LocalHost:4478", "127.0.0.1", "127.0.0.1:80", "127.0.0.2:1", "[::1]", "[::1]:4478"] {
            assert!(is_ours(ours, bound), "{ours}");
        }
        let foreign = ["", ":4478", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.0.2.1", "[::1"];
        for foreign in foreign.iter().chain(&["localhost:evil", "localhost@evil.example", "[::1]evil", "127.1", "0.0.0.0"]) {
            assert!(!is_ours(foreign, bound), "{foreign}");
        }
        assert!(is_ours("192.0.2.1:4478", "192.0.2.1:4478".parse().unwrap()));
    }
}
