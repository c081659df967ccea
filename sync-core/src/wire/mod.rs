//! The messages of two replicas on two machines, and their bytes.
//!
//! The types here are those of the protocol: what the engine calls things inside may change without a byte here, and
//! `docs/format.md` tells every byte. Rows, paths, vectors and hashes are the engine's own, since their decoding yields
//! valid ones or fails. Nothing from a peer is trusted: numbers are bounded, lists counted before they are held, names
//! and vectors checked, and what is left over is an error. Nothing here knows of connections, nor which message may
//! follow which.

mod code;
mod error;
mod fetch;
mod frame;
mod hello;
mod list;
mod open;
mod gossip;
mod ops;
mod pack;
mod rows;
mod work;

pub use code::{MAX_LIST, MAX_SIZE, MAX_TEXT, cut};
pub use error::{Fault, Oversized, WireError};
pub use fetch::{
    Encoding, Failure, FailureCode, FetchRequest, FileBegin, FileData, FileEnd, FileFailed, HashRequest, HashResult, Hashed,
    Lane, MAX_DATA, MAX_LANES, MAX_SIGNATURES, SignaturePart, SmallFile, SmallFiles, Wanted, Widen,
};
pub use frame::{FrameReader, MAX_FRAME, MAX_HELLO, put_frame};
pub use gossip::{Account, Caller, Gossip, MAX_AGE_S, MAX_TOLD, MAX_TOLD_LINKS, MAX_WHY, Reaches, Tie, Way};
pub use hello::{Hello, HelloAnswer, MAX_TOKEN, PROTOCOL, Refusal, Refused, Versions};
pub use list::{
    Also, Decided, DecidedPath, DecidedRequest, Decision, DigestAnswer, DigestRequest, Filter, Gather, ListRequest, ListingEnd,
    MAX_AHEAD, MAX_ALSO, MAX_DECIDED, MAX_ROWS, Piece,
};
pub use open::{
    Identity, Introduce, Introduced, Introduction, Join, MAX_LOCATION, MAX_RULES, MaxDelete, Open, Opened, Policy, Ready,
    Remembered, Report, Side, Transfer,
};
pub use ops::{OpReader, put_op};
pub use pack::{Data, MAX_RATIO, Packer, Packing, Unpacker};
pub use rows::{MAX_REPLICAS, MAX_TARGET};
pub use work::{
    Applied, Apply, Finished, Item, Notice, Outcome, Phase, Problem, Progress, Reason, RulesNow, Scanned, Survey, Surveyed,
    Totals, Verb,
};

use code::{Code, Reader};

/// Which message of which number, with which content.
macro_rules! messages {
    ($($(#[$doc:meta])* $tag:literal = $name:ident($type:ty)),* $(,)?) => {
        /// Any message.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "made once and taken apart at once")]
        pub enum Message {
            $($(#[$doc])* $name($type)),*
        }

        impl Message {
            /// Appends the message: its number, its fields.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Message::$name(content) => {
                        out.push($tag);
                        content.put(out);
                    })*
                }
            }

            /// Reads a message that is all of `bytes`.
            ///
            /// # Errors
            /// What is wrong with it, and at which field.
            pub fn decode(bytes: &[u8]) -> Result<Message, WireError> {
                let mut reader = Reader::new(bytes);
                let message = match reader.byte()? {
                    $($tag => {
                        reader.field = stringify!($name);
                        Message::$name(<$type>::get(&mut reader)?)
                    })*
                    other => return reader.fail(Fault::Unknown(u64::from(other))),
                };
                reader.finish()?;
                Ok(message)
            }

            /// What the message is called.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Message::$name(_) => stringify!($name)),*
                }
            }
        }
    };
}

messages! {
    /// Who calls.
    1 = Hello(Hello),
    /// Who answers.
    2 = HelloAnswer(HelloAnswer),
    /// No.
    3 = Refused(Refused),
    /// Opens a folder.
    4 = Open(Open),
    /// It is open.
    5 = Opened(Opened),
    /// Asks for a scan.
    6 = Scan(Nothing),
    /// What it found.
    7 = Scanned(Scanned),
    /// How far something is.
    8 = Progress(Progress),
    /// Something for the user.
    9 = Notice(Notice),
    /// Stop as soon as what has begun is finished.
    10 = Cancel(Nothing),
    /// Asks for rows.
    11 = ListRequest(ListRequest),
    /// Paths that increments list in any case.
    12 = Also(Also),
    /// Rows.
    13 = Listing(Piece),
    /// No more rows.
    14 = ListingEnd(ListingEnd),
    /// Asks for a digest.
    15 = DigestRequest(DigestRequest),
    /// The digest.
    16 = Digest(DigestAnswer),
    /// Asks for hashes.
    17 = HashRequest(HashRequest),
    /// Some of them.
    18 = Hashed(Hashed),
    /// Asks for content.
    19 = FetchRequest(FetchRequest),
    /// Part of a base's signature.
    20 = SignaturePart(SignaturePart),
    /// Content begins.
    21 = FileBegin(FileBegin),
    /// Content.
    22 = FileData(FileData),
    /// Content ends.
    23 = FileEnd(FileEnd),
    /// Whole files.
    24 = SmallFiles(SmallFiles),
    /// No content.
    25 = FileFailed(FileFailed),
    /// Asks what a pull would do.
    26 = Survey(Survey),
    /// One thing that it would do, or that was done.
    27 = Item(Item),
    /// What a survey found in all.
    28 = Surveyed(Surveyed),
    /// Asks for a pull.
    29 = Apply(Apply),
    /// What became of it.
    30 = Applied(Applied),
    /// The run is over.
    31 = Finish(Nothing),
    /// What is remembered of the run is recorded.
    32 = Finished(Finished),
    /// Nothing more comes.
    33 = Bye(Nothing),
    /// Asks for decisions.
    34 = DecidedRequest(DecidedRequest),
    /// Decisions.
    35 = Decided(Decided),
    /// Who asks, as it is now.
    36 = Ready(Ready),
    /// Asks who a folder's replica is.
    37 = Introduce(Introduce),
    /// Who it is.
    38 = Introduced(Introduced),
    /// A stream that carries parts of answers.
    39 = Lane(Lane),
    /// Which streams carry the answers to come.
    40 = Widen(Widen),
    /// Asks to take part in a folder.
    41 = Join(Join),
    /// How the way and the exchange look from there.
    42 = Report(Report),
    /// News of members of a folder.
    43 = Gossip(Gossip),
    /// Something may have changed in a root that is watched.
    44 = Changed(Nothing),
}

/// The content of a message that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nothing;

impl Code for Nothing {
    fn put(&self, _: &mut Vec<u8>) {}
    fn get(_: &mut Reader<'_>) -> Result<Nothing, WireError> {
        Ok(Nothing)
    }
}

#[cfg(test)]
mod tests;
