//! What one session for ssh says first: where it can be called, and by which key it is known. One line of JSON. Pure.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use sync_core::peer::{Address, Id};

/// The line. What else a shell over there writes before it is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename = "offer")]
pub(crate) struct Offer {
    /// The port of UDP.
    pub(crate) port: u16,
    /// The fingerprint of a key that was made for this session.
    pub(crate) id: Id,
    /// At which of its addresses ssh was reached, as far as it knows.
    pub(crate) host: Option<IpAddr>,
}

impl Offer {
    /// Reads a line; `None` if it is none of ours.
    pub(crate) fn parse(line: &[u8]) -> Option<Offer> {
        serde_json::from_slice(line).ok()
    }

    /// Where to call: at the host by the name that was written, and at the address that ssh came to.
    pub(crate) fn addresses(&self, host: &str) -> Vec<Address> {
        let written = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let seen = self.host.map(|host| if host.is_ipv6() { format!("[{host}]") } else { host.to_string() });
        let mut addresses: Vec<Address> = Vec::new();
        for host in [Some(written), seen].into_iter().flatten() {
            match format!("{host}:{}", self.port).parse() {
                Ok(address) if !addresses.contains(&address) => addresses.push(address),
                // A zone of IPv6 by its name: the address that ssh came to stands for it.
                _ => {}
            }
        }
        addresses
    }
}

/// The address that ssh came to, of what sshd says in `SSH_CONNECTION`: client, port, server, port.
pub(crate) fn reached_at(connection: &str) -> Option<IpAddr> {
    let server = connection.split(' ').nth(2)?;
    // A zone has no meaning on another machine.
    server.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_core::peer::PublicKey;

    fn offer(host: Option<&str>) -> Offer {
        Offer { port: 4711, id: PublicKey::from_bytes([1; 32]).id(), host: host.map(|host| host.parse().unwrap()) }
    }

    #[test]
    fn an_offer_is_one_line_and_other_lines_are_none() {
        for offer in [offer(None), offer(Some("::1"))] {
            let line = serde_json::to_vec(&offer).unwrap();
            assert!(!line.contains(&b'\n'));
            assert_eq!(Offer::parse(&line), Some(offer));
        }
        for line in
            [&b""[..], b"Welcome to web2!", b"{}", b"{\"event\":\"offer\"}", b"{\"event\":\"offer\",\"port\":70000}", b"\xff"]
        {
            assert_eq!(Offer::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn both_addresses_are_called_and_none_twice() {
        for (host, seen, expected) in [
            ("web2", None, &["web2:4711"][..]),
            ("web2", Some("203.0.113.9"), &["web2:4711", "203.0.113.9:4711"]),
            ("203.0.113.9", Some("203.0.113.9"), &["203.0.113.9:4711"]),
            ("::1", Some("::1"), &["[::1]:4711"]),
            ("fe80::1%eth0", Some("2001:db8::9"), &["[2001:db8::9]:4711"]),
        ] {
            let addresses = offer(seen).addresses(host);
            assert_eq!(addresses.iter().map(Address::as_str).collect::<Vec<_>>(), expected, "{host}");
        }
    }

    #[test]
    fn sshd_says_where_it_was_reached() {
        for (text, expected) in [
            ("203.0.113.1 50000 203.0.113.9 22", Some("203.0.113.9")),
            ("::1 50000 ::1 22", Some("::1")),
            ("fe80::2%eth0 1 fe80::1%eth0 22", None),
            ("UNKNOWN 65535 UNKNOWN 65535", None),
            ("", None),
        ] {
            assert_eq!(reached_at(text), expected.map(|ip| ip.parse().unwrap()), "{text}");
        }
    }
}
