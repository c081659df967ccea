//! What users wrote and what they took away themselves: the rest must be somewhere in the end.

use anyhow::{Context as _, Result};
use blake3::Hash;
use fixtures::bytes::noise;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All that users did to contents.
pub(crate) struct Ledger {
    number: AtomicU64,
    held: Mutex<Held>,
    /// For whoever looks where something went.
    log: Mutex<fs::File>,
}

#[derive(Default)]
struct Held {
    /// Contents that were written, with where and by whom.
    written: HashMap<Hash, String>,
    /// Contents that a user saw, and replaced or took away.
    gone: HashSet<Hash>,
}

/// Content that no other write has.
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) hash: Hash,
}

impl Ledger {
    pub(crate) fn new(log: &Path) -> Result<Ledger> {
        let log = fs::File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        Ok(Ledger { number: AtomicU64::new(0), held: Mutex::default(), log: Mutex::new(log) })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// New content of so many bytes, at least 24.
    pub(crate) fn content(&self, size: usize) -> Content {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let mut bytes = format!("{number:023}\n").into_bytes();
        bytes.extend(noise(number, size.saturating_sub(bytes.len())));
        let hash = blake3::hash(&bytes);
        Content { bytes, hash }
    }

    /// One line of what happens.
    pub(crate) fn note(&self, text: &str) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(log, "{:.3} {text}", now.as_secs_f64()).unwrap();
    }

    /// It is about to be written there. `false` is told with [`Ledger::not_written`].
    pub(crate) fn writes(&self, content: &Content, place: &str) {
        self.note(&format!("writes {} {place}", content.hash.to_hex()));
        self.held().written.insert(content.hash, place.to_owned());
    }

    /// Nothing came of it.
    pub(crate) fn not_written(&self, content: &Content) {
        self.note(&format!("did not write {}", content.hash.to_hex()));
        self.held().written.remove(&content.hash);
    }

    /// A user saw this content, and replaced it.
    pub(crate) fn replaced(&self, bytes: &[u8], place: &str) {
        let hash = blake3::hash(bytes);
        self.note(&format!("replaced {} {place}", hash.to_hex()));
        self.held().gone.insert(hash);
    }

    /// How many contents were written.
    pub(crate) fn written(&self) -> usize {
        self.held().written.len()
    }

    /// Contents that are nowhere though nobody took them away. What lies in one of these folders is somewhere.
    pub(crate) fn missing(&self, folders: &[&Path]) -> Result<Vec<String>> {
        let mut found = HashSet::new();
        for folder in folders {
            contents(folder, &mut found)?;
        }
        let held = self.held();
        let missing = held.written.iter().filter(|(hash, _)| !held.gone.contains(hash) && !found.contains(*hash));
        let mut missing: Vec<String> = missing.map(|(hash, place)| format!("{} {place}", hash.to_hex())).collect();
        missing.sort();
        Ok(missing)
    }
}

/// Hashes of all files in a folder, which may be missing. What is still on its way there does not count.
fn contents(folder: &Path, found: &mut HashSet<Hash>) -> Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("cannot list {}", folder.display()))?,
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() && !entry.path().ends_with(".driftless/stage") {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.insert(blake3::hash(&fs::read(entry.path())?));
            }
        }
    }
    Ok(())
}
