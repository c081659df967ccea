//! What the members of a folder tell each other of all of its members: who is there, where each can be called, and its links as it
//! sees them. It is shown, and a way to get to know others; nothing of it decides what is pulled, nor from whom.
//!
//! Each machine numbers what it says of itself, and the others hand it on. It is not signed: whoever takes part was let in by a
//! person, what is acted on (an introduction) is believed only of a machine about itself over its own connection, and a signature
//! would only tell who drew a wrong map.

use super::code::{Code, Reader, fields, numbers, put_bytes, put_number, size};
use super::error::{Fault, WireError};
use super::open::maybe_size;
use crate::peer::{ADDRESS_BYTES, ADDRESSES, Address, Id, Mode, NAME_BYTES, Name};

/// Machines that one message tells of.
pub const MAX_TOLD: usize = 16;
/// Links that are told of one machine.
pub const MAX_TOLD_LINKS: usize = 128;
/// Longest reason why a machine is not reached, bytes.
pub const MAX_WHY: usize = 128;
/// Oldest news, seconds.
pub const MAX_AGE_S: u64 = 3600;
/// Parts of a whole in which losses are told.
const WHOLE: u64 = 1_000_000;

/// News of members of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gossip {
    /// What they say of themselves, by their ids, up to [`MAX_TOLD`].
    pub machines: Vec<Account>,
}

/// What a machine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Who.
    pub origin: Id,
    /// A higher number takes the place of a lower one of the same origin.
    pub number: u64,
    /// How long ago it was said, seconds.
    pub age_s: u64,
    /// What it calls itself.
    pub name: Name,
    /// Where it can be called, up to [`ADDRESSES`]. An unspecified address (`0.0.0.0`, `[::]`) means whichever it is seen at.
    pub addresses: Vec<Address>,
    /// Does it allow that the folder's members get to know each other by it?
    pub introduces: bool,
    /// Its links, by the ids of the other ends, up to [`MAX_TOLD_LINKS`].
    pub links: Vec<Tie>,
}

/// A link, as the one of its ends sees it that tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tie {
    /// The other end.
    pub to: Id,
    /// What that one may do with the folder of the one that tells.
    pub mode: Mode,
    /// Was the other one introduced to the one that tells? Then it is introduced to nobody else.
    pub learnt: bool,
    /// Who called, if there is a connection.
    pub called: Option<Caller>,
    /// Can the one that tells call the other?
    pub reaches: Option<Reaches>,
    /// How good the way is.
    pub way: Option<Way>,
}

/// Who called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The one that tells.
    Teller,
    /// The other one.
    Other,
}

/// What became of the last call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaches {
    /// Somebody answered there, with the right key.
    Answers(Address),
    /// Nobody did: why, up to [`MAX_WHY`] bytes.
    Fails(String),
}

/// How good a way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Round trip, microseconds.
    pub rtt_us: u32,
    /// Of a million packets so many are lost.
    pub lost: u64,
    /// Bytes of content a second, as seen last under load.
    pub goodput: Option<u64>,
}

impl Reaches {
    /// A failure with its reason, cut to what a message takes.
    #[must_use]
    pub fn fails(why: &str) -> Reaches {
        Reaches::Fails(why[..why.floor_char_boundary(MAX_WHY)].to_owned())
    }
}

impl Code for Id {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_bytes().put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Id, WireError> {
        reader.array().map(Id::from_bytes)
    }
}

fn parsed<T: std::str::FromStr>(reader: &mut Reader<'_>, most: usize, wrong: &'static str) -> Result<T, WireError> {
    let text = reader.text(most)?;
    text.parse().map_err(|_| reader.error(Fault::Contradiction(wrong)))
}

impl Code for Name {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_str().as_bytes());
    }
    fn get(reader: &mut Reader<'_>) -> Result<Name, WireError> {
        parsed(reader, NAME_BYTES, "no name of a machine")
    }
}

impl Code for Address {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_str().as_bytes());
    }
    fn get(reader: &mut Reader<'_>) -> Result<Address, WireError> {
        parsed(reader, ADDRESS_BYTES, "no address")
    }
}

impl Code for Reaches {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Reaches::Answers(address) => {
                out.push(0);
                address.put(out);
            }
            Reaches::Fails(why) => {
                out.push(1);
                put_bytes(out, why.as_bytes());
            }
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Reaches, WireError> {
        match reader.byte()? {
            0 => Address::get(reader).map(Reaches::Answers),
            1 => reader.text(MAX_WHY).map(Reaches::Fails),
            other => reader.fail(Fault::Unknown(u64::from(other))),
        }
    }
}

/// A list with a bound of its own.
fn put_list<T: Code>(list: &[T], out: &mut Vec<u8>) {
    put_number(out, list.len() as u64);
    list.iter().for_each(|value| value.put(out));
}

fn get_list<T: Code>(reader: &mut Reader<'_>, most: usize) -> Result<Vec<T>, WireError> {
    let count = reader.count(most)?;
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(T::get(reader)?);
    }
    Ok(list)
}

mod machines {
    use super::{Account, Fault, MAX_TOLD, Reader, WireError, get_list, put_list};

    pub(super) fn put(list: &[Account], out: &mut Vec<u8>) {
        put_list(list, out);
    }
    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Vec<Account>, WireError> {
        let list: Vec<Account> = get_list(reader, MAX_TOLD)?;
        reader.check(list.is_sorted_by(|a, b| a.origin < b.origin), Fault::Order)?;
        Ok(list)
    }
}

mod ties {
    use super::{Fault, MAX_TOLD_LINKS, Reader, Tie, WireError, get_list, put_list};

    pub(super) fn put(list: &[Tie], out: &mut Vec<u8>) {
        put_list(list, out);
    }
    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Vec<Tie>, WireError> {
        let list: Vec<Tie> = get_list(reader, MAX_TOLD_LINKS)?;
        reader.check(list.is_sorted_by(|a, b| a.to < b.to), Fault::Order)?;
        Ok(list)
    }
}

mod addresses {
    use super::{ADDRESSES, Address, Reader, WireError, get_list, put_list};

    pub(super) fn put(list: &[Address], out: &mut Vec<u8>) {
        put_list(list, out);
    }
    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Vec<Address>, WireError> {
        get_list(reader, ADDRESSES)
    }
}

mod age {
    use super::{MAX_AGE_S, Reader, WireError, put_number};

    pub(super) fn put(age: &u64, out: &mut Vec<u8>) {
        put_number(out, *age);
    }
    pub(super) fn get(reader: &mut Reader<'_>) -> Result<u64, WireError> {
        reader.at_most(MAX_AGE_S)
    }
}

mod share {
    use super::{Reader, WHOLE, WireError, put_number};

    pub(super) fn put(lost: &u64, out: &mut Vec<u8>) {
        put_number(out, *lost);
    }
    pub(super) fn get(reader: &mut Reader<'_>) -> Result<u64, WireError> {
        reader.at_most(WHOLE)
    }
}

numbers!(Caller { Teller = 0, Other = 1 });
fields!(Gossip { machines as machines });
fields!(Account {
    origin,
    number as size,
    age_s as age,
    name,
    addresses as addresses,
    introduces,
    links as ties,
});
fields!(Tie { to, mode, learnt, called, reaches, way });
fields!(Way { rtt_us, lost as share, goodput as maybe_size });
