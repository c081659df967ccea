//! Which roots were open before. Where one of them has lost its marker, its disk is not mounted: it is never taken for a new root.
#![allow(clippy::disallowed_methods, reason = "the agent's own folder, and not below a root")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The file in the agent's folder.
const FILE: &str = "roots.json";

/// The roots, in memory and in a file.
pub(crate) struct Roots {
    file: PathBuf,
    known: Mutex<Option<BTreeSet<PathBuf>>>,
}

impl Roots {
    /// Reads nothing yet.
    pub(crate) fn open(folder: &Path) -> Roots {
        Roots { file: folder.join(FILE), known: Mutex::default() }
    }

    /// Was it open before? Where the file cannot be read, any root may have been.
    pub(crate) fn knows(&self, root: &Path) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.read(&mut known).map_or(true, |known| known.contains(root))
    }

    /// From now on it was.
    pub(crate) fn remember(&self, root: &Path) -> io::Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let roots = self.read(&mut known)?;
        if !roots.insert(root.to_path_buf()) {
            return Ok(());
        }
        let text = serde_json::to_vec(&roots).map_err(io::Error::other)?;
        let written = self.write(&text);
        if written.is_err() {
            // It is read again, so that memory and disk do not differ.
            *known = None;
        }
        written
    }

    fn read<'a>(&self, known: &'a mut Option<BTreeSet<PathBuf>>) -> io::Result<&'a mut BTreeSet<PathBuf>> {
        if known.is_none() {
            *known = Some(match fs::read(&self.file) {
                Ok(text) => serde_json::from_slice(&text).map_err(io::Error::other)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
                Err(error) => return Err(error),
            });
        }
        known.as_mut().ok_or_else(|| io::Error::other("nothing was read"))
    }

    /// After a crash it is the old file or the new one.
    fn write(&self, text: &[u8]) -> io::Result<()> {
        let new = self.file.with_extension("json.new");
        let mut file = fs::File::create(&new)?;
        file.write_all(text).and_then(|()| file.sync_all())?;
        fs::rename(&new, &self.file)?;
        self.file.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_known_once_it_was_open_and_where_the_file_is_no_use_any_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::open(dir.path());
        assert!(!roots.knows(Path::new("/a")));
        roots.remember(Path::new("/a")).unwrap();
        roots.remember(Path::new("/a")).unwrap();
        let again = Roots::open(dir.path());
        assert!(again.knows(Path::new("/a")) && !again.knows(Path::new("/b")));
        fs::write(dir.path().join(FILE), "{").unwrap();
        let unreadable = Roots::open(dir.path());
        assert!(unreadable.knows(Path::new("/b")) && unreadable.remember(Path::new("/b")).is_err());
    }
}
