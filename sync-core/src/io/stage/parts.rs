//! Beginnings of large files: what had come when a connection was lost or the process ended. They stay in the staging folder under
//! a name that tells the content, not the path: wherever it is wanted next, it goes on from there. A content that nobody has read
//! to its end is known by its version and its path at the source instead.
//!
//! The bytes are not trusted: the hash of the whole decides in the end, and a beginning that was wrong is thrown away.

use super::remove_all;
use crate::entry::Hash;
use crate::io::fs::{Dir, FsError, coarse_now_ns};
use crate::io::mutex::lock;
use crate::knowledge::Vector;
use crate::path::RelPath;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

/// Smaller files begin anew.
pub(crate) const PART_MIN: u64 = 4 << 20;
/// Beginnings that are kept when a pull begins, the newest.
pub(crate) const PARTS: usize = 16;
/// Older ones go.
pub(crate) const PART_AGE: Duration = Duration::from_secs(7 * 86_400);
/// What their names begin with.
const PREFIX: &str = "half-";
/// Keeps what stands for a content that nobody has read from being the hash of any.
const UNREAD_CONTEXT: &str = "driftless 1 beginning of a content without a hash";

/// A beginning, in use by one file of this run.
#[derive(Debug)]
pub(crate) struct Part {
    /// Its name in the staging folder.
    pub(crate) name: Vec<u8>,
    /// For reading and writing.
    pub(crate) file: File,
    /// Bytes in it.
    pub(crate) held: u64,
}

/// Those in use: the same content may be wanted at two paths at a time.
#[derive(Debug, Default)]
pub(crate) struct Parts(Mutex<BTreeSet<Vec<u8>>>);

impl Parts {
    /// The beginning of this content, perhaps none of it yet; `None` if another file is made of it at this moment.
    pub(crate) fn take(&self, stage: &Dir, hash: &Hash, size: u64) -> Result<Option<Part>, FsError> {
        let name = name_of(hash, size);
        if !self.used().insert(name.clone()) {
            return Ok(None);
        }
        open(stage, name.clone(), size).map(Some).inspect_err(|_| self.let_go(&name))
    }

    /// How many bytes there are of this content; none where that cannot be told.
    pub(crate) fn held(stage: &Dir, hash: &Hash, size: u64) -> u64 {
        if size < PART_MIN {
            return 0;
        }
        stage.stat(&name_of(hash, size)).ok().flatten().map_or(0, |seen| seen.size.min(size))
    }

    /// It is used no more.
    pub(crate) fn let_go(&self, name: &[u8]) {
        self.used().remove(name);
    }

    fn used(&self) -> std::sync::MutexGuard<'_, BTreeSet<Vec<u8>>> {
        lock(&self.0)
    }
}

fn open(stage: &Dir, name: Vec<u8>, size: u64) -> Result<Part, FsError> {
    let failed = |action| {
        let path = stage.locate(&name);
        move |source: io::Error| FsError { action, path, source }
    };
    let file = stage.open_or_create_file(&name)?;
    let mut held = file.metadata().map_err(failed("look at"))?.len();
    if held > size {
        file.set_len(0).map_err(failed("empty"))?;
        held = 0;
    }
    Ok(Part { name, file, held })
}

/// What stands for a content that nobody has read, in place of its hash: its version, and where it comes from.
pub(crate) fn unread(m: &Vector, from: &RelPath) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key(UNREAD_CONTEXT);
    for event in m.iter() {
        hasher.update(&event.replica.0).update(&event.counter.to_le_bytes());
    }
    // Many files may be of one event, and of one size.
    hasher.update(from.as_bytes());
    Hash(*hasher.finalize().as_bytes())
}

fn name_of(hash: &Hash, size: u64) -> Vec<u8> {
    format!("{PREFIX}{hash}-{size:x}").into_bytes()
}

/// Is a name in the staging folder one of a beginning?
pub(crate) fn is_part(name: &[u8]) -> bool {
    let Some((hash, size)) = name.strip_prefix(PREFIX.as_bytes()).and_then(|rest| rest.split_at_checked(64)) else {
        return false;
    };
    let is_hex = |digits: &[u8]| digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let Some((b'-', size)) = size.split_first() else { return false };
    is_hex(hash) && is_hex(size) && (1..=16).contains(&size.len())
}

/// Throws away what is not kept any longer, before any of it is in use. What may not be removed stays.
pub(crate) fn prune(stage: &Dir) -> Result<(), FsError> {
    let mut parts = Vec::new();
    for name in stage.names()? {
        if is_part(&name)
            && let Some(seen) = stage.stat(&name)?
        {
            parts.push((seen.mtime_ns, name));
        }
    }
    for name in outdated(parts, coarse_now_ns()) {
        if let Err(error) = remove_all(stage, &name)
            && !error.is_refusal()
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Which of these beginnings, each with the time of its last change, are not kept any longer.
fn outdated<T>(mut parts: Vec<(i64, T)>, now_ns: i64) -> Vec<T> {
    parts.sort_by_key(|(changed_ns, _)| std::cmp::Reverse(*changed_ns));
    let oldest_ns = now_ns.saturating_sub_unsigned(PART_AGE.as_nanos() as u64);
    let kept = parts.iter().take(PARTS).take_while(|(changed_ns, _)| *changed_ns >= oldest_ns).count();
    parts.drain(kept..).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_content_and_no_other_name_is_one() {
        let name = name_of(&Hash([0xab; 32]), 5 << 20);
        assert_eq!(name, format!("half-{}-500000", "ab".repeat(32)).into_bytes());
        assert!(is_part(&name));
        let text = String::from_utf8(name).unwrap();
        for other in
            [&text[1..], &text[..60], &text.replace("-500000", "-"), &text.replace("-500000", ""), &text.replace("ab", "AB"), ""]
        {
            assert!(!is_part(other.as_bytes()), "{other}");
        }
        assert!(!is_part(format!("{text}00000000000").as_bytes()));
    }

    #[test]
    fn what_nobody_has_read_is_known_by_its_version_and_its_place() {
        use crate::knowledge::{Event, ReplicaId};
        let m = |counter| Vector::from(Event { replica: ReplicaId([1; 16]), counter });
        let path = |path: &str| RelPath::parse(path.as_bytes()).unwrap();
        let known = unread(&m(5), &path("a"));
        assert_eq!(known, unread(&m(5), &path("a")));
        assert!(known != unread(&m(6), &path("a")) && known != unread(&m(5), &path("b")));
    }

    #[test]
    fn the_newest_of_the_last_days_are_kept() {
        let now = 1_000_000 * 1_000_000_000;
        let day = 86_400 * 1_000_000_000;
        assert_eq!(outdated(vec![(now, "a"), (now - 8 * day, "b"), (now - 6 * day, "c")], now), ["b"]);
        let many: Vec<(i64, usize)> = (0..20).map(|number| (now - number as i64, number)).collect();
        assert_eq!(outdated(many, now), [16, 17, 18, 19]);
    }

    #[test]
    fn one_file_at_a_time_is_made_of_a_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let dir = crate::io::fs::Root::open(folder.path()).unwrap().dir(&crate::path::RelPath::root()).unwrap();
        let (parts, hash) = (Parts::default(), Hash([1; 32]));
        let part = parts.take(&dir, &hash, 10).unwrap().unwrap();
        assert_eq!(part.held, 0);
        part.file.set_len(7).unwrap();
        assert!(parts.take(&dir, &hash, 10).unwrap().is_none());
        parts.let_go(&part.name);
        assert_eq!(parts.take(&dir, &hash, 10).unwrap().unwrap().held, 7);
        parts.let_go(&part.name);
        part.file.set_len(11).unwrap();
        assert_eq!(parts.take(&dir, &hash, 10).unwrap().unwrap().held, 0);
        // A link there is not followed.
        parts.let_go(&part.name);
        dir.unlink(&part.name).unwrap();
        dir.create_symlink(&part.name, b"elsewhere").unwrap();
        assert!(parts.take(&dir, &hash, 10).is_err() && parts.take(&dir, &hash, 10).is_err());
    }

    #[test]
    fn whoever_opens_the_folder_throws_old_beginnings_away_and_nothing_else() {
        use crate::entry::AttrMask;
        use std::time::SystemTime;
        let folder = tempfile::tempdir().unwrap();
        let dir = || crate::io::fs::Root::open(folder.path()).unwrap().dir(&RelPath::root()).unwrap();
        let open = || super::super::Stage::open(dir(), AttrMask { perms: true, owner: false, times: true }).unwrap();
        let put = |name: &[u8], age: Duration| {
            let file = dir().open_or_create_file(name).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        let name = |number: u8| name_of(&Hash([number; 32]), 5 << 20);
        let hour = Duration::from_secs(3600);
        let all = || dir().names().unwrap().into_iter().map(Vec::from).collect::<BTreeSet<Vec<u8>>>();
        put(&name(1), PART_AGE + hour);
        put(&name(2), PART_AGE - hour);
        put(b"somebody's", PART_AGE + hour);
        put(b"new-1-1", PART_AGE + hour);
        open();
        assert_eq!(all(), BTreeSet::from([name(2), b"somebody's".to_vec(), b"new-1-1".to_vec()]));
        // Of many the newest stay.
        (3..30).for_each(|number| put(&name(number), hour * u32::from(number)));
        open();
        let kept = all().into_iter().filter(|name| is_part(name)).collect::<BTreeSet<_>>();
        assert_eq!(kept, (3..).take(PARTS).map(name).collect());
    }
}
