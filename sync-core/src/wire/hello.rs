//! Who speaks, which version, and refusals.

use super::code::{Code, Reader, fields, numbers, put_bytes};
use super::error::{Fault, WireError};

/// The only version so far.
pub const PROTOCOL: u32 = 1;
/// Longest token or proof of one.
pub const MAX_TOKEN: usize = 256;

/// A range of protocol versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
}

impl Versions {
    /// What this code speaks.
    pub const OURS: Versions = Versions { oldest: PROTOCOL, newest: PROTOCOL };

    /// The newest version that both speak.
    #[must_use]
    pub fn common(self, other: Versions) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl Code for Versions {
    fn put(&self, out: &mut Vec<u8>) {
        self.oldest.put(out);
        self.newest.put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Versions, WireError> {
        let (oldest, newest) = (u32::get(reader)?, u32::get(reader)?);
        reader.check(oldest <= newest, Fault::Contradiction("the oldest version is newer than the newest"))?;
        Ok(Versions { oldest, newest })
    }
}

/// The first message of who called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Which versions it speaks.
    pub versions: Versions,
    /// Name and version of the program, for people.
    pub program: String,
    /// A bit for each thing that it can do beyond the version; unknown ones say nothing.
    pub capabilities: u64,
    /// Random, never used twice.
    pub nonce: [u8; 32],
    /// What lets it in where its key alone does not; may be empty.
    pub token: Vec<u8>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloAnswer {
    /// The version to speak.
    pub version: u32,
    /// Name and version of the program, for people.
    pub program: String,
    /// As in [`Hello`].
    pub capabilities: u64,
    /// Random, never used twice.
    pub nonce: [u8; 32],
    /// What shows that the token was the right one; may be empty.
    pub proof: Vec<u8>,
}

/// No, and why. Answers any request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The reason, for programs.
    pub code: Refusal,
    /// The reason, for people.
    pub text: String,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No version that both speak.
    Version,
    /// The key is none of those that may call.
    UnknownPeer,
    /// The folder, or what is asked of it, is not granted to this peer.
    NotGranted,
    /// Another run has the folder.
    Busy,
    /// The replica was rolled back or copied.
    Lineage,
    /// A wrong or used token.
    Token,
    /// There is no such folder, or its root is not there.
    Folder,
    /// A guard stopped it.
    Guard,
    /// The request makes no sense here.
    Request,
    /// Something failed on the other side.
    Failed,
}

mod token {
    use super::{MAX_TOKEN, Reader, WireError, put_bytes};

    pub(super) fn put(token: &[u8], out: &mut Vec<u8>) {
        put_bytes(out, token);
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Vec<u8>, WireError> {
        reader.bytes(MAX_TOKEN).map(<[u8]>::to_vec)
    }
}

fields!(Hello { versions, program, capabilities, nonce, token as token });
fields!(HelloAnswer { version, program, capabilities, nonce, proof as token });
fields!(Refused { code, text });
numbers!(Refusal {
    Version = 1,
    UnknownPeer = 2,
    NotGranted = 3,
    Busy = 4,
    Lineage = 5,
    Token = 6,
    Folder = 7,
    Guard = 8,
    Request = 9,
    Failed = 10,
});
