//! Bytes of files: bounded reads, hashed on the way.

use crate::entry::Hash;
use std::fs::File;
use std::io::{self, Read, Write};

/// Copies up to `size` bytes of what is left of `source` to `target` through `buffer`; returns the number of bytes and
/// their hash.
///
/// Who knows the size is spared the read that would only find the end. The buffer bounds memory; 128 KiB to 1 MiB is fastest.
///
/// # Errors
/// The first failed read or write; `target` then holds a part.
pub fn copy_hashed(source: &File, size: u64, target: &mut File, buffer: &mut [u8]) -> io::Result<(u64, Hash)> {
    pump(&mut source.take(size), buffer, |bytes| target.write_all(bytes))
}

/// Hashes what is left of `file` through `buffer`; returns the number of bytes and their hash.
///
/// # Errors
/// The first failed read.
pub fn hash_file(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<(u64, Hash)> {
    pump(file, buffer, |_| Ok(()))
}

/// Reads to the end. Only a read of nothing is the end: on network file systems a read may be short before it.
fn pump(source: &mut impl Read, buffer: &mut [u8], mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<(u64, Hash)> {
    if buffer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "empty buffer"));
    }
    let mut hasher = blake3::Hasher::new();
    let mut total = 0;
    loop {
        let count = match source.read(buffer) {
            Ok(0) => return Ok((total, Hash(*hasher.finalize().as_bytes()))),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        each(&buffer[..count])?;
        hasher.update(&buffer[..count]);
        total += count as u64;
    }
}
