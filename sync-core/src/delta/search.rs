//! Finds the blocks of a base in a new version, window by window, with bounded work whatever the signature says.
//!
//! A window is looked at in three ways, the cheapest first. Long runs of zeros are told as such. Then blocks are compared
//! with those of the base that would follow if nothing had moved: what was edited in place leaves *gaps*. Only in
//! gaps every offset is looked at: a rolling sum finds those that may begin a block, and fast_rsync's search runs on
//! these alone. A signature whose weak sums fit everywhere would make it compute a strong sum at every offset, a
//! minute for a MiB: so each window has a budget, and what is left of a gap when it is spent is sent as it is.

use super::librsync::parse;
use super::shape::WEAK;
use super::signature::Signature;
use super::weak::{Weak, WeakSet};
use super::zeros::{ZERO_RUN, first_zero_unit, zero_prefix};
use super::{OP_BYTES, Op};
use std::io;
use std::io::Read;
use std::ops::Range;

/// Longest literal in one op.
pub const LITERAL_BYTES: usize = 64 << 10;
/// Bytes of the new version looked at at a time, or [`BLOCKS_PER_WINDOW`].
const WINDOW: usize = 1 << 20;
/// Of a window, up to a block is looked at again with the next one.
const BLOCKS_PER_WINDOW: usize = 8;
/// Strong sums may read so many times the bytes of a window. Two versions that have nothing in common need as much as
/// the base has 4 GiB, since so often weak sums agree by chance: larger bases than 32 GiB are found by blocks that did
/// not move, and less by blocks that did.
const WORK_PER_BYTE: usize = 8;

/// Why a search ended early.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The new version cannot be read.
    #[error("cannot read the new version: {0}")]
    Read(#[source] io::Error),
    /// Whoever takes the ops refused one.
    #[error("cannot hand on the delta: {0}")]
    Sink(#[source] io::Error),
    /// The library's delta is not one of its input.
    #[error("fast_rsync made a delta that does not fit")]
    Library,
}

/// What a search found, and what it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Bytes of the new version.
    pub size: u64,
    /// Of them, bytes that the base has.
    pub copied: u64,
    /// Bytes in literals.
    pub literal: u64,
    /// Bytes in runs of zeros.
    pub zeros: u64,
    /// Bytes that a strong sum was computed of: at most eleven times the size.
    pub summed: u64,
    /// Bytes not looked at closely since that would have taken too long; what two windows share counts twice.
    pub refused: u64,
}

/// Reads the new version to its end and hands its ops to `sink`, in order.
///
/// # Errors
/// The reader's, the sink's, or the library disagrees with itself.
pub fn search(signature: &Signature, new: impl Read, sink: impl FnMut(Op<'_>) -> io::Result<()>) -> Result<Found, SearchError> {
    let block = signature.shape().block() as usize;
    let mut search = Search {
        signature,
        index: signature.index(),
        weak: WeakSet::of(signature),
        block,
        lead: 0,
        next: 0,
        out: Ops { sink, copy: None, zeros: 0, literal: Vec::with_capacity(LITERAL_BYTES) },
        found: Found::default(),
        delta: Vec::new(),
    };
    search.run(new)?;
    search.out.flush()?;
    Ok(search.found)
}

struct Search<'a, F> {
    signature: &'a Signature,
    index: fast_rsync::IndexedSignature<'a>,
    weak: WeakSet,
    block: usize,
    /// If nothing moved, the block `next` of the base begins `lead` bytes into the window.
    lead: usize,
    next: u64,
    out: Ops<F>,
    found: Found,
    delta: Vec<u8>,
}

/// What follows a window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// More, that a block may reach into.
    More,
    /// Zeros.
    Zeros,
    /// Nothing.
    End,
}

impl<F: FnMut(Op<'_>) -> io::Result<()>> Search<'_, F> {
    fn run(&mut self, mut new: impl Read) -> Result<(), SearchError> {
        let window = WINDOW.max(BLOCKS_PER_WINDOW * self.block);
        // A block that nothing moved is then either zeros or none of a run.
        let unit = ZERO_RUN.max(self.block);
        let mut data = Vec::with_capacity(window + unit);
        // Bytes before the window.
        let mut before = 0u64;
        let mut end = false;
        loop {
            // Up to a multiple of the unit, so that no window cuts one.
            let beyond = ((before + window as u64) % unit as u64) as usize;
            let wanted = window + (unit - beyond) % unit - data.len();
            if !end {
                let read = (&mut new).take(wanted as u64).read_to_end(&mut data).map_err(SearchError::Read)?;
                self.found.size += read as u64;
                end = read < wanted;
            }
            if data.is_empty() {
                return Ok(());
            }
            let start = (unit - (before % unit as u64) as usize) % unit;
            let consumed = match first_zero_unit(&data, start, unit) {
                Some(0) => self.zeros(zero_prefix(&data, unit))?,
                Some(at) => self.window(&data[..at], Then::Zeros)?,
                None => self.window(&data, if end { Then::End } else { Then::More })?,
            };
            data.drain(..consumed);
            before += consumed as u64;
        }
    }

    fn zeros(&mut self, len: usize) -> Result<usize, SearchError> {
        self.out.zeros(len as u64)?;
        self.found.zeros += len as u64;
        self.go_on(self.lead, len);
        Ok(len)
    }

    /// Returns how much of the window is dealt with.
    fn window(&mut self, data: &[u8], then: Then) -> Result<usize, SearchError> {
        let mut budget = WORK_PER_BYTE * data.len();
        let mut done = 0;
        // Where `next` stands.
        let mut place = self.lead;
        for run in self.in_place(data) {
            let first = self.next + ((run.start - self.lead) / self.block) as u64;
            if let Some((_, last)) = self.gap(data, done..run.start, &mut budget)? {
                self.literal(&data[last..run.start])?;
            }
            self.copy(first * self.block as u64, run.len())?;
            done = run.end;
        }
        if done > 0 {
            self.next += ((done - self.lead) / self.block) as u64;
            place = done;
        }
        if let Some((block, last)) = self.gap(data, done..data.len(), &mut budget)? {
            if last > done {
                (self.next, place) = (block, last);
            }
            done = last;
        }
        let upto = match then {
            Then::More => done.max((data.len() + 1).saturating_sub(self.block)),
            Then::Zeros => data.len(),
            Then::End => return self.end(data, done),
        };
        self.literal(&data[done..upto])?;
        self.go_on(place, upto);
        Ok(upto)
    }

    /// The window's first `consumed` bytes are done; `next` stood at `place`.
    fn go_on(&mut self, place: usize, consumed: usize) {
        let blocks = consumed.saturating_sub(place).div_ceil(self.block);
        self.next += blocks as u64;
        self.lead = place + blocks * self.block - consumed;
    }

    /// The end of the new version, where the base's short last block may stand.
    fn end(&mut self, data: &[u8], done: usize) -> Result<usize, SearchError> {
        let mut tail = &data[done..];
        if let Some((sums, len)) = self.signature.last()
            && len <= tail.len()
        {
            let (before, last) = tail.split_at(tail.len() - len);
            self.found.summed += len as u64;
            if self.signature.sums_of(last) == sums {
                self.literal(before)?;
                self.copy(self.signature.shape().base() - len as u64, len)?;
                tail = &[];
            }
        }
        self.literal(tail)?;
        Ok(data.len())
    }

    /// Runs of blocks that stand where they would if nothing had moved.
    fn in_place(&mut self, data: &[u8]) -> Vec<Range<usize>> {
        let entry = self.signature.shape().entry();
        let first = usize::try_from(self.next).unwrap_or(usize::MAX).saturating_mul(entry);
        let (Some(sums), Some(blocks)) = (self.signature.full_sums().get(first..), data.get(self.lead..)) else {
            return Vec::new();
        };
        let pairs = || sums.chunks_exact(entry).zip(blocks.chunks_exact(self.block));
        let likely: Vec<bool> = pairs().map(|(sums, block)| sums[..WEAK] == Weak::of(block).value().to_be_bytes()).collect();
        let mut runs: Vec<Range<usize>> = Vec::new();
        let mut at = 0;
        for part in likely.chunk_by(|a, b| a == b) {
            let range = at..at + part.len();
            at = range.end;
            if !part[0] {
                continue;
            }
            let bytes = &blocks[range.start * self.block..range.end * self.block];
            self.found.summed += bytes.len() as u64;
            let computed = self.signature.sums_of(bytes);
            let announced = &sums[range.start * entry..range.end * entry];
            for (n, _) in computed.chunks(entry).zip(announced.chunks(entry)).enumerate().filter(|(_, (a, b))| a == b) {
                let start = self.lead + (range.start + n) * self.block;
                match runs.last_mut() {
                    Some(run) if run.end == start => run.end += self.block,
                    _ => runs.push(start..start + self.block),
                }
            }
        }
        runs
    }

    /// Looks at every offset of a gap. What follows the last block found is left to the caller: returns the number
    /// of the block that would come next in the base, and where it would stand; `None` for an empty gap.
    fn gap(&mut self, data: &[u8], gap: Range<usize>, budget: &mut usize) -> Result<Option<(u64, usize)>, SearchError> {
        if gap.is_empty() {
            return Ok(None);
        }
        let (data, block) = (&data[..gap.end], self.block);
        let mut done = (self.next, gap.start);
        let mut at = gap.start;
        let mut weak = data.get(at..at + block).map(Weak::of);
        while let Some(sum) = &mut weak {
            let Some(skipped) = self.weak.next_hit(&data[at..], sum) else { break };
            at += skipped;
            let Some(left) = budget.checked_sub(block) else {
                self.found.refused += (gap.end - at) as u64;
                break;
            };
            *budget = left;
            self.found.summed += block as u64;
            if let Some(offset) = self.find(&data[at..at + block])? {
                self.literal(&data[done.1..at])?;
                self.copy(offset, block)?;
                at += block;
                done = (offset / block as u64 + 1, at);
                weak = data.get(at..at + block).map(Weak::of);
            } else if let Some(new) = data.get(at + block) {
                sum.roll(data[at], *new);
                at += 1;
            } else {
                break;
            }
        }
        Ok(Some(done))
    }

    /// fast_rsync's search for one block: where the base has it.
    fn find(&mut self, block: &[u8]) -> Result<Option<u64>, SearchError> {
        self.delta.clear();
        fast_rsync::diff(&self.index, block, &mut self.delta).map_err(|_| SearchError::Library)?;
        let (mut at, mut made) = (None, 0);
        let end = self.signature.shape().full_blocks() * block.len() as u64;
        let read = parse(&self.delta, |op| {
            if let Op::Copy { offset, len } = op {
                let sound = len == block.len() as u64 && offset % len == 0 && offset.checked_add(len)? <= end;
                sound.then_some(())?;
                at = Some(offset);
            }
            made += op.output();
            Some(())
        });
        read.filter(|()| made == block.len() as u64).ok_or(SearchError::Library)?;
        Ok(at)
    }

    fn copy(&mut self, offset: u64, len: usize) -> Result<(), SearchError> {
        self.found.copied += len as u64;
        self.out.copy(offset, len as u64)
    }

    fn literal(&mut self, bytes: &[u8]) -> Result<(), SearchError> {
        self.found.literal += bytes.len() as u64;
        self.out.literal(bytes)
    }
}

/// Joins neighbours and cuts what is too long.
struct Ops<F> {
    sink: F,
    copy: Option<(u64, u64)>,
    zeros: u64,
    literal: Vec<u8>,
}

impl<F: FnMut(Op<'_>) -> io::Result<()>> Ops<F> {
    fn copy(&mut self, offset: u64, len: u64) -> Result<(), SearchError> {
        if let Some((start, so_far)) = &mut self.copy
            && *start + *so_far == offset
        {
            *so_far += len;
            return Ok(());
        }
        self.flush()?;
        self.copy = Some((offset, len));
        Ok(())
    }

    fn zeros(&mut self, len: u64) -> Result<(), SearchError> {
        if self.zeros == 0 {
            self.flush()?;
        }
        self.zeros += len;
        Ok(())
    }

    fn literal(&mut self, mut bytes: &[u8]) -> Result<(), SearchError> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.literal.is_empty() {
            self.flush()?;
        }
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(LITERAL_BYTES - self.literal.len()));
            self.literal.extend_from_slice(now);
            bytes = rest;
            if self.literal.len() == LITERAL_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Hands on what is held. At most one of the three is.
    fn flush(&mut self) -> Result<(), SearchError> {
        let mut hand = |op: Op<'_>| (self.sink)(op).map_err(SearchError::Sink);
        if let Some((mut offset, mut len)) = self.copy.take() {
            while len > 0 {
                let now = len.min(OP_BYTES);
                hand(Op::Copy { offset, len: now })?;
                (offset, len) = (offset + now, len - now);
            }
        }
        while self.zeros > 0 {
            let now = self.zeros.min(OP_BYTES);
            hand(Op::Zeros(now))?;
            self.zeros -= now;
        }
        if !self.literal.is_empty() {
            hand(Op::Literal(&self.literal))?;
            self.literal.clear();
        }
        Ok(())
    }
}
