//! Large files on their way, for whoever looks on: the file under way tells by itself how much of it is there, so that nothing is
//! counted while content is brought. As many are listed as threads bring content.

use crate::io::mutex::lock;
use crate::path::RelPath;
use crate::report::OnItsWay;
use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Files from this size on are listed: smaller ones are there before anybody has looked.
pub(crate) const LARGE: u64 = 1 << 20;

/// The large files on their way in one pull.
#[derive(Debug, Default)]
pub struct UnderWay {
    files: Mutex<Vec<Entry>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    path: RelPath,
    total: u64,
    file: File,
}

/// A file is listed as long as this is there.
pub(super) struct Listed<'a> {
    all: &'a UnderWay,
    number: u64,
}

impl UnderWay {
    /// Content of this size for a path begins to come into a file. `None` where it is not listed.
    pub(super) fn begin(&self, path: &RelPath, total: u64, file: &File) -> Option<Listed<'_>> {
        if total < LARGE {
            return None;
        }
        // Without a descriptor to spare it comes all the same, and is not shown.
        let file = file.try_clone().ok()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.files).push(Entry { number, path: path.clone(), total, file });
        Some(Listed { all: self, number })
    }

    /// Those that are on their way now, and how much of each is there.
    pub(crate) fn now(&self) -> Vec<OnItsWay> {
        let files = lock(&self.files);
        let shown = |entry: &Entry| {
            let bytes = entry.file.metadata().ok()?.len().min(entry.total);
            Some(OnItsWay { path: entry.path.clone(), bytes, total: entry.total })
        };
        files.iter().filter_map(shown).collect()
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        lock(&self.all.files).retain(|entry| entry.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_large_file_is_listed_while_it_comes_with_what_is_there_of_it() {
        let under_way = UnderWay::default();
        let path = |text: &str| RelPath::parse(text.as_bytes()).unwrap();
        let (mut large, small) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        assert!(under_way.begin(&path("small"), LARGE - 1, &small).is_none());
        let listed = under_way.begin(&path("a/large"), LARGE, &large);
        for _ in 0..2 {
            let bytes = large.metadata().unwrap().len();
            assert_eq!(under_way.now(), [OnItsWay { path: path("a/large"), bytes, total: LARGE }]);
            large.write_all(&[1; 1000]).unwrap();
        }
        let other = under_way.begin(&path("b"), 2 * LARGE, &small);
        drop(listed);
        assert_eq!(under_way.now(), [OnItsWay { path: path("b"), bytes: 0, total: 2 * LARGE }]);
        drop(other);
        assert!(under_way.now().is_empty());
    }
}
