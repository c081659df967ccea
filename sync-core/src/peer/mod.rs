//! Other machines, as values: their keys and ids, the names they go by here, where they are found, what they may do.
//! Pure; knows neither files nor connections.

mod book;
mod id;

pub use book::{Book, BookError, PEERS, Peer};
pub use id::{Id, IdError, PublicKey};

use core::net::SocketAddrV6;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Addresses of one peer.
pub const ADDRESSES: usize = 16;
/// Folders granted to one peer.
pub const GRANTS: usize = 256;
/// Bytes of a name.
pub const NAME_BYTES: usize = 64;
/// Bytes of an address: a host name has up to 253.
pub const ADDRESS_BYTES: usize = 262;

/// A value that another machine or a person gave, and that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Neither a machine nor a folder can have this name.
    #[error(
        "{0:?} is no name: 1 to {NAME_BYTES} letters, digits, `-`, `_` and `.` of ASCII are, the first of them a letter or a digit"
    )]
    Name(String),
    /// Not an address.
    #[error("{0:?} is no address: give HOST:PORT, such as web2.example.net:4477, 203.0.113.9:4477 or [2001:db8::9]:4477")]
    Address(String),
    /// No such mode.
    #[error("{0:?} is no mode: two-way, send-only, receive-only and no-delete are")]
    Mode(String),
}

/// Text as somebody gave it, short and escaped enough for an error.
fn shown(text: &str) -> String {
    text.chars().take(NAME_BYTES).collect()
}

/// What a machine or a folder is called: plain ASCII, safe in a terminal, a file and a command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name made of any text, such as a host's: what cannot stand in a name is replaced by `-`.
    pub fn near(text: &str) -> Option<Name> {
        let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let start = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        start.chars().take(NAME_BYTES).map(allowed).collect::<String>().parse().ok()
    }

    /// The name with a number behind it, for when it is taken.
    #[must_use]
    pub fn numbered(&self, number: usize) -> Name {
        let number = format!("-{number}");
        let kept = self.0.len().min(NAME_BYTES.saturating_sub(number.len()));
        Name(format!("{}{number}", &self.0[..kept]))
    }
}

impl FromStr for Name {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Name, PeerError> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !plain || !begins || text.len() > NAME_BYTES {
            return Err(PeerError::Name(shown(text)));
        }
        Ok(Name(text.to_owned()))
    }
}

/// Where a machine may answer: a host's name or number, and a port. Names are resolved anew for each attempt, elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

impl Address {
    /// The address as `HOST:PORT`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Address {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Address, PeerError> {
        let wrong = || PeerError::Address(shown(text));
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let good_host = match host.starts_with('[') {
            true => text.parse::<SocketAddrV6>().is_ok(),
            false => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)),
        };
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let good_port = digits && port.parse::<u16>().is_ok_and(|port| port != 0);
        if !good_host || !good_port || text.len() > ADDRESS_BYTES {
            return Err(wrong());
        }
        Ok(Address(text.to_owned()))
    }
}

/// What a peer may do with one folder of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Mode {
    /// Changes go both ways.
    TwoWay,
    /// The peer gets what is here, and changes nothing.
    SendOnly,
    /// The peer may bring changes, and gets none.
    ReceiveOnly,
    /// Both ways, but nothing here is deleted.
    NoDelete,
}

impl Mode {
    const WORDS: [(&'static str, Mode); 4] = [
        ("two-way", Mode::TwoWay),
        ("send-only", Mode::SendOnly),
        ("receive-only", Mode::ReceiveOnly),
        ("no-delete", Mode::NoDelete),
    ];

    /// What both admit: may it read, bring changes, and delete? `None` where nothing of use is left.
    #[must_use]
    pub fn both(self, other: Mode) -> Option<Mode> {
        match (self, other) {
            (a, b) if a == b => Some(a),
            (Mode::TwoWay, less) | (less, Mode::TwoWay) => Some(less),
            (Mode::SendOnly, Mode::NoDelete) | (Mode::NoDelete, Mode::SendOnly) => Some(Mode::SendOnly),
            // What is left is to bring changes without deletions and without reading: no mode says that.
            _ => None,
        }
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::TwoWay => "two-way",
            Mode::SendOnly => "send-only",
            Mode::ReceiveOnly => "receive-only",
            Mode::NoDelete => "no-delete",
        }
    }
}

impl FromStr for Mode {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Mode, PeerError> {
        let found = Mode::WORDS.iter().find(|(word, _)| *word == text);
        found.map(|(_, mode)| *mode).ok_or_else(|| PeerError::Mode(shown(text)))
    }
}

macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl TryFrom<String> for $kind {
            type Error = PeerError;
            fn try_from(text: String) -> Result<Self, PeerError> {
                text.parse()
            }
        }
        impl From<$kind> for String {
            fn from(value: $kind) -> String {
                value.as_str().to_owned()
            }
        }
    )*};
}

as_text!(Name, Address, Mode);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_plain() {
        for good in ["web2", "a", "Web-SG.example_1", "0"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for wrong in ["", "-a", ".a", "a b", "a/b", "é", "a\n", "a=b", &"a".repeat(65)] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong:?}");
        }
        assert_eq!(Name::near("-my laptop\u{1b}").unwrap().as_str(), "my-laptop-");
        assert_eq!(Name::near("…"), None);
        assert_eq!(Name::near(&"a".repeat(100)).unwrap().numbered(12).as_str(), format!("{}-12", "a".repeat(61)));
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["web2:4477", "203.0.113.9:1", "[::1]:65535", "[fe80::1%2]:4477", "a.b-c.example:80"] {
            assert_eq!(good.parse::<Address>().unwrap().as_str(), good);
        }
        for wrong in [
            "",
            "web2",
            ":1",
            "web2:",
            "web2:0",
            "web2:65536",
            "web2:+1",
            "::1:4477",
            "[]:1",
            "[::1%x]:1",
            "[::1:1",
            "a b:1",
            "a\x1b:1",
            "q://a:1",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_mode_is_one_of_four_words() {
        for (word, mode) in Mode::WORDS {
            assert_eq!(word.parse(), Ok(mode));
            assert_eq!(mode.as_str(), word);
        }
        assert!("Two-way".parse::<Mode>().is_err());
    }

    #[test]
    fn what_two_modes_admit_is_never_more_than_either() {
        let may = |mode: Mode| match mode {
            Mode::TwoWay => [true, true, true],
            Mode::SendOnly => [true, false, false],
            Mode::ReceiveOnly => [false, true, true],
            Mode::NoDelete => [true, true, false],
        };
        for (_, a) in Mode::WORDS {
            for (_, b) in Mode::WORDS {
                assert_eq!(a.both(b), b.both(a));
                let least = [0, 1, 2].map(|at| may(a)[at] && may(b)[at]);
                match a.both(b) {
                    Some(mode) => assert_eq!(may(mode), least, "{a} {b}"),
                    None => assert!(!Mode::WORDS.iter().any(|(_, mode)| may(*mode) == least), "{a} {b}"),
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_made_into_a_name_is_one(text in any::<String>(), number in any::<usize>()) {
            if let Some(name) = Name::near(&text) {
                prop_assert!(name.as_str().parse::<Name>().is_ok());
                prop_assert!(name.numbered(number).as_str().parse::<Name>().is_ok());
            }
            let _ = (text.parse::<Address>(), text.parse::<Mode>(), text.parse::<Name>());
        }
    }
}
