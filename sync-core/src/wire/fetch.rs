//! Content: hashes of files, and their bytes, whole, from an offset on, or as a delta against a base.

use super::code::{Code, MAX_LIST, MAX_SIZE, Reader, fields, numbers, put_number, size};
use super::error::{Fault, WireError};
use super::pack::{Data, Packing};
use super::rows::{Tables, Writer};
use crate::delta::{Announced, MAX_BASE, Shape};
use crate::entry::Hash;
use crate::knowledge::Vector;
use crate::path::RelPath;

/// Bytes of all signatures of one request.
pub const MAX_SIGNATURES: u64 = 4 << 20;
/// Longest content of one message.
pub const MAX_DATA: usize = 512 << 10;

/// Asks for hashes of files that nobody had read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashRequest {
    /// Which files.
    pub paths: Vec<RelPath>,
}

/// Some of the answers, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    /// Number of the first one in the request.
    pub first: u32,
    /// The answers.
    pub results: Vec<HashResult>,
}

/// One hash, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashResult {
    /// It was read.
    Hash(Hash),
    /// It was not.
    Failed(Failure),
}

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people.
    pub text: String,
}

/// Why a file could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureCode {
    /// It is another one than was listed.
    Stale,
    /// It changes while it is read.
    Changes,
    /// The system does not let it be read.
    Unreadable,
    /// The base or its signature is not what was announced.
    Base,
}

/// Streams beside the one of the requests, over which answers may go.
pub const MAX_LANES: usize = 15;

/// The first message of a stream on which nothing is asked: it carries parts of answers to what is asked on another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// By what the other stream will name it.
    pub number: u64,
}

/// From now on, the messages of answers to [`FetchRequest`]s of this stream go in turn over it and all lanes that it was given,
/// each answer beginning on the stream itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Widen {
    /// Numbers of further lanes, at most [`MAX_LANES`] in all.
    pub lanes: Vec<u64>,
}

/// Asks for files. The signatures of those with a base follow, in order, as [`SignaturePart`]s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// Is content packed?
    pub packing: Packing,
    /// Which files.
    pub files: Vec<Wanted>,
}

/// One file, as it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where it stands.
    pub path: RelPath,
    /// Its size.
    pub size: u64,
    /// Its hash, if it was read.
    pub hash: Option<Hash>,
    /// Its version: a file with another row is stale.
    pub m: Vector,
    /// Bytes that are here already. The hash that comes is of the whole all the same.
    pub offset: u64,
    /// A base, whose signature follows. Then `offset` is 0.
    pub base: Option<Announced>,
}

/// The next part of the signature of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignaturePart {
    /// Number of the file in the request.
    pub file: u32,
    /// The sums. The cut of the base says how many bytes there are in all.
    pub bytes: Box<[u8]>,
}

/// How content is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As it is, from the offset on.
    Raw,
    /// Ops of a delta.
    Delta,
}

/// A file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileBegin {
    /// Its number in the request.
    pub file: u32,
    /// Its size, whatever the offset and the encoding.
    pub size: u64,
    /// How it is sent.
    pub encoding: Encoding,
}

/// The next bytes of the file that began last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileData {
    /// The bytes, at most [`MAX_DATA`]; none where the file is still being read, and nothing of it is to be sent yet.
    pub data: Data,
}

/// The file that began last is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEnd {
    /// Of the whole file.
    pub hash: Hash,
}

/// Whole files that follow each other in the request, in one message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SmallFiles {
    /// Number of the first one in the request.
    pub first: u32,
    /// What they are: one at least, [`MAX_DATA`] in all.
    pub files: Vec<SmallFile>,
    /// Their bytes, one after the other.
    pub data: Data,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmallFile {
    /// Its size.
    pub size: u64,
    /// Of its bytes.
    pub hash: Hash,
}

/// A file does not come, or does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFailed {
    /// Its number in the request.
    pub file: u32,
    /// Why.
    pub failure: Failure,
}

impl FetchRequest {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::default();
        self.packing.put(&mut writer.body);
        put_number(&mut writer.body, self.files.len() as u64);
        for wanted in &self.files {
            wanted.path.put(&mut writer.body);
            put_number(&mut writer.body, wanted.size);
            wanted.hash.put(&mut writer.body);
            writer.vector(&wanted.m);
            put_number(&mut writer.body, wanted.offset);
            wanted.base.put(&mut writer.body);
        }
        writer.finish(out);
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<FetchRequest, WireError> {
        let mut tables = Tables::get(reader)?;
        reader.field = "FetchRequest.packing";
        let packing = Packing::get(reader)?;
        reader.field = "FetchRequest.files";
        let count = reader.count(MAX_LIST)?;
        let mut files = Vec::new();
        let mut signatures = 0u64;
        for _ in 0..count {
            reader.field = "Wanted.path";
            let path = RelPath::get(reader)?;
            reader.field = "Wanted.size";
            let size = reader.at_most(MAX_SIZE)?;
            reader.field = "Wanted.hash";
            let hash = Option::get(reader)?;
            reader.field = "Wanted.m";
            let m = tables.vector(reader)?;
            reader.check(!m.is_empty(), Fault::Empty)?;
            reader.field = "Wanted.offset";
            let offset = reader.at_most(size)?;
            reader.field = "Wanted.base";
            let base: Option<Announced> = Option::get(reader)?;
            reader.check(base.is_none() || offset == 0, Fault::Contradiction("a base, and an offset"))?;
            signatures += base.and_then(|base| Shape::of(base.base)).map_or(0, |shape| shape.signature_bytes());
            let large = Fault::Large { found: signatures, most: MAX_SIGNATURES };
            reader.check(signatures <= MAX_SIGNATURES, large)?;
            files.push(Wanted { path, size, hash, m, offset, base });
        }
        Ok(FetchRequest { packing, files })
    }
}

/// What is announced must be the cut that a base of this size has.
impl Code for Announced {
    fn put(&self, out: &mut Vec<u8>) {
        put_number(out, self.base);
        self.block.put(out);
        self.hash.put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Announced, WireError> {
        let announced = Announced { base: reader.at_most(MAX_BASE)?, block: u32::get(reader)?, hash: u32::get(reader)? };
        let right = Shape::of(announced.base).is_some_and(|shape| shape.announced() == announced);
        reader.check(right, Fault::Contradiction("a base of this size is cut in another way"))?;
        Ok(announced)
    }
}

impl Code for HashResult {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            HashResult::Hash(hash) => {
                out.push(0);
                hash.put(out);
            }
            HashResult::Failed(failure) => {
                out.push(1);
                failure.put(out);
            }
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<HashResult, WireError> {
        match reader.byte()? {
            0 => Ok(HashResult::Hash(Hash::get(reader)?)),
            1 => Ok(HashResult::Failed(Failure::get(reader)?)),
            other => reader.fail(Fault::Unknown(u64::from(other))),
        }
    }
}

impl Code for FileData {
    fn put(&self, out: &mut Vec<u8>) {
        self.data.put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Result<FileData, WireError> {
        reader.field = "FileData.data";
        let data = Data::get(reader)?;
        let (found, most) = (data.len() as u64, MAX_DATA as u64);
        reader.check(found <= most, Fault::Large { found, most })?;
        Ok(FileData { data })
    }
}

impl SmallFiles {
    /// Bytes of all files.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size))
    }
}

impl Code for SmallFiles {
    fn put(&self, out: &mut Vec<u8>) {
        self.first.put(out);
        self.files.put(out);
        self.data.put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Result<SmallFiles, WireError> {
        reader.field = "SmallFiles.first";
        let first = u32::get(reader)?;
        reader.field = "SmallFiles.files";
        let files: Vec<SmallFile> = Vec::get(reader)?;
        reader.check(!files.is_empty(), Fault::Empty)?;
        reader.field = "SmallFiles.data";
        let small = SmallFiles { first, files, data: Data::get(reader)? };
        let (found, most) = (small.size(), MAX_DATA as u64);
        reader.check(found <= most, Fault::Large { found, most })?;
        let fits = matches!(small.data, Data::Packed(_)) || small.data.len() as u64 == found;
        reader.check(fits, Fault::Contradiction("other content than the files have"))?;
        Ok(small)
    }
}

numbers!(FailureCode { Stale = 1, Changes = 2, Unreadable = 3, Base = 4 });
numbers!(Encoding { Raw = 0, Delta = 1 });
fields!(Failure { code, text });
fields!(HashRequest { paths });
fields!(Hashed { first, results });
fields!(SignaturePart { file, bytes });
fields!(FileBegin { file, size as size, encoding });
fields!(FileEnd { hash });
fields!(SmallFile { size as size, hash });
fields!(FileFailed { file, failure });
fields!(Lane { number });
fields!(Widen { lanes });
