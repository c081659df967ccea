//! A folder is opened for a run: the run's options one way, and both ways what the replicas are and know of each other.

use super::code::{Code, MAX_SIZE, Reader, ascending, fields, numbers, plain, put_bytes, put_number, random, size};
use super::error::{Fault, WireError};
use super::pack::Packing;
use crate::entry::AttrMask;
use crate::knowledge::{ReplicaId, Vector};
use crate::path::RelPath;
use crate::peer::Mode;
use crate::reconcile;

/// Longest text of ignore rules. So many compile in a tenth of a second and 64 MiB; eight times as many take 400 MiB
/// before the compiler gives up.
pub const MAX_RULES: usize = 64 << 10;
/// Longest name of a place.
pub const MAX_LOCATION: usize = 8 << 10;

/// One of the two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who sent [`Open`].
    Asker,
    /// Who answered.
    Asked,
}

/// How conflicts are decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Left as they are.
    Skip,
    /// Both stay.
    KeepBoth,
    /// The newer one wins.
    Newer,
    /// The older one wins.
    Older,
    /// The asker's wins.
    Asker,
    /// The asked one's wins.
    Asked,
}

/// How many deletions stop a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxDelete {
    /// None does.
    Off,
    /// More than so many.
    Count(u64),
    /// More than this share of the live paths, 0 to 100.
    Percent(f64),
}

/// Which replica this is, and the newest event that it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub replica: ReplicaId,
    /// Random number of its state.
    pub instance: u64,
    /// Its newest counter.
    pub counter: u64,
    /// Nonce of the start that made that counter.
    pub nonce: u64,
}

/// How far a replica has seen another: by this a roll-back is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// The other.
    pub replica: ReplicaId,
    /// The highest of its counters that was seen.
    pub counter: u64,
    /// Nonce of the start that made that counter.
    pub nonce: u64,
}

/// What each side tells the other before anything is made on either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// Its replica; `None` if it has no state yet, begins anew, or is a copy that is about to take another identity.
    pub identity: Option<Identity>,
    /// What it has seen of everybody: Sub of its root.
    pub knows: Vector,
    /// How far it has seen each replica that it met.
    pub remembers: Vec<Remembered>,
    /// Where it is, for the other side to remember.
    pub location: Vec<u8>,
    /// It met a replica where the other side is.
    pub expects: bool,
}

/// Asks who a folder's replica is, for a run in which the asker is in the middle: neither root is its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduce {
    /// The folder's name, as granted.
    pub folder: String,
    /// The part of it that is the root.
    pub sub: RelPath,
    /// Where the other root is.
    pub location: Vec<u8>,
    /// Accept a replica that lost its state.
    pub rejoin: bool,
}

/// Who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduced {
    /// As the other root's machine is to hear it.
    pub introduction: Introduction,
    /// The folder's ignore rules as they stand there.
    pub rules: String,
    /// Owners can be set there.
    pub sets_owner: bool,
}

/// Asks to take part in a folder for as long as the connection lasts: both sides stay open, and pull when they like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The folder's name, as granted.
    pub folder: String,
    /// Who asks.
    pub introduction: Introduction,
    /// The folder's ignore rules as they stand at the asker.
    pub rules: String,
    /// Owners can be set there.
    pub sets_owner: bool,
    /// What the other side may do with the asker's folder.
    pub mode: Mode,
}

/// Opens a folder for one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Open {
    /// The folder's name, as granted.
    pub folder: String,
    /// The part of it that is the other root.
    pub sub: RelPath,
    /// The asker.
    pub introduction: Introduction,
    /// Nothing but looking.
    pub dry_run: bool,
    /// Accept a replica that lost its state.
    pub rejoin: bool,
    /// Read every file.
    pub checksum: bool,
    /// Only these paths and what is below them; empty: everything.
    pub scope: Vec<RelPath>,
    /// How conflicts are decided.
    pub policy: Policy,
    /// Mirror this side.
    pub force: Option<Side>,
    /// Which attributes count.
    pub mask: AttrMask,
    /// Ignore rules of this run.
    pub run_rules: String,
    /// The folder's ignore rules as they stand at the asker.
    pub rules: String,
    /// The deletion guard.
    pub max_delete: MaxDelete,
    /// How content is to cross the link, both ways.
    pub transfer: Transfer,
    /// The run goes on, round after round, and the asker hears when the root may have changed; so long, ms, must a change be quiet.
    pub watched: Option<u64>,
}

/// How content crosses a link, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transfer {
    /// Is it packed?
    pub packing: Packing,
    /// Files come whole, and never as a delta against what is there.
    pub whole_files: bool,
    /// Bytes a second that each side may send.
    pub limit: Option<u64>,
}

/// The folder is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What the asker may do with it.
    pub mode: Mode,
    /// Who answers.
    pub introduction: Introduction,
    /// Where the root is, for people.
    pub root: String,
    /// The folder's ignore rules as they stand there.
    pub rules: String,
    /// Owners can be set there.
    pub sets_owner: bool,
    /// Nothing of this run stays in that root.
    pub passing: bool,
}

/// A replica as it is now: told before what depends on it, and to those who joined whenever it has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Its replica, and the newest event that it made. All of its events are durable.
    pub identity: Identity,
    /// Its newest sequence number.
    pub seq: u64,
    /// Nothing of this run stays in its root.
    pub passing: bool,
    /// Where it misses a file system.
    pub unavailable: Vec<RelPath>,
    /// Its user has decided conflicts there.
    pub decisions: bool,
}

/// How the way and the exchange look from the side that tells it, where both stay open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Packets that it has sent over this connection.
    pub sent: u64,
    /// Of those, packets that it has given up for lost.
    pub lost: u64,
    /// The other side's sequence number up to which it has all.
    pub incorporated: u64,
    /// Files that it knows to lack of what the other side has.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Its clock when this was sent, ms since 1970; 0: it does not tell.
    pub clock_ms: u64,
}

impl Policy {
    /// The policy of the pull that changes the side `here`.
    #[must_use]
    pub fn for_pull(self, here: Side) -> reconcile::Policy {
        match self {
            Policy::Skip => reconcile::Policy::Skip,
            Policy::KeepBoth => reconcile::Policy::KeepBoth,
            Policy::Newer => reconcile::Policy::Newer,
            Policy::Older => reconcile::Policy::Older,
            Policy::Asker => reconcile::Policy::Wins(Side::Asker.end(here)),
            Policy::Asked => reconcile::Policy::Wins(Side::Asked.end(here)),
        }
    }
}

impl Side {
    /// This side as an end of the pull that changes `here`.
    #[must_use]
    pub fn end(self, here: Side) -> reconcile::End {
        if self == here { reconcile::End::Here } else { reconcile::End::There }
    }
}

impl Code for AttrMask {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.perms) | u8::from(self.owner) << 1 | u8::from(self.times) << 2);
    }
    fn get(reader: &mut Reader<'_>) -> Result<AttrMask, WireError> {
        let bits = reader.byte()?;
        reader.check(bits < 8, Fault::Unknown(u64::from(bits)))?;
        Ok(AttrMask { perms: bits & 1 != 0, owner: bits & 2 != 0, times: bits & 4 != 0 })
    }
}

impl Code for MaxDelete {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            MaxDelete::Off => out.push(0),
            MaxDelete::Count(count) => {
                out.push(1);
                put_number(out, *count);
            }
            MaxDelete::Percent(percent) => {
                out.push(2);
                out.extend(percent.to_le_bytes());
            }
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<MaxDelete, WireError> {
        match reader.byte()? {
            0 => Ok(MaxDelete::Off),
            1 => Ok(MaxDelete::Count(reader.at_most(MAX_SIZE)?)),
            2 => {
                let percent = f64::from_le_bytes(reader.array()?);
                reader.check((0.0..=100.0).contains(&percent), Fault::Contradiction("no share from 0 to 100"))?;
                Ok(MaxDelete::Percent(percent))
            }
            other => reader.fail(Fault::Unknown(u64::from(other))),
        }
    }
}

mod location {
    use super::{MAX_LOCATION, Reader, WireError, put_bytes};

    pub(super) fn put(location: &[u8], out: &mut Vec<u8>) {
        put_bytes(out, location);
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Vec<u8>, WireError> {
        reader.bytes(MAX_LOCATION).map(<[u8]>::to_vec)
    }
}

pub(super) mod rules {
    use super::{MAX_RULES, Reader, WireError, put_bytes};

    pub(in crate::wire) fn put(text: &str, out: &mut Vec<u8>) {
        put_bytes(out, text.as_bytes());
    }

    pub(in crate::wire) fn get(reader: &mut Reader<'_>) -> Result<String, WireError> {
        reader.text(MAX_RULES)
    }
}

numbers!(Side { Asker = 0, Asked = 1 });
numbers!(Policy { Skip = 0, KeepBoth = 1, Newer = 2, Older = 3, Asker = 4, Asked = 5 });
fields!(Identity { replica, instance as random, counter as size, nonce as random });
numbers!(Mode { TwoWay = 0, SendOnly = 1, ReceiveOnly = 2, NoDelete = 3 });
fields!(Remembered { replica, counter as size, nonce as random });
fields!(Introduction { identity, knows, remembers, location as location, expects });
fields!(Open {
    folder,
    sub,
    introduction,
    dry_run,
    rejoin,
    checksum,
    scope as ascending,
    policy,
    force,
    mask,
    run_rules as rules,
    rules as rules,
    max_delete,
    transfer,
    watched as maybe_size,
});
fields!(Transfer { packing, whole_files, limit as maybe_size });
fields!(Opened { mode, introduction, root, rules as rules, sets_owner, passing });
fields!(Introduce { folder, sub, location as location, rejoin });
fields!(Introduced { introduction, rules as rules, sets_owner });
fields!(Join { folder, introduction, rules as rules, sets_owner, mode });
fields!(Report { sent as size, lost as size, incorporated as size, files as size, bytes as size, clock_ms as size });
fields!(Ready { identity, seq as size, passing, unavailable, decisions });

pub(super) mod maybe_size {
    use super::{Reader, WireError, plain, size};

    pub(in crate::wire) fn put(value: &Option<u64>, out: &mut Vec<u8>) {
        plain::put(&value.is_some(), out);
        if let Some(value) = value {
            size::put(value, out);
        }
    }

    pub(in crate::wire) fn get(reader: &mut Reader<'_>) -> Result<Option<u64>, WireError> {
        Ok(if plain::get(reader)? { Some(size::get(reader)?) } else { None })
    }
}
