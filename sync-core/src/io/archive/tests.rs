//! Days that move, on real file systems: the cold root is on another one where there is one.

use super::*;
use crate::io::fs::{Xattrs, init_cold};
use crate::io::kill::hook;
use crate::io::places;
use crate::knowledge::ReplicaId;
use crate::report::Silent;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::time::Instant;

pub(super) const DAY: &str = "2026/03/05";

/// Longest wait for what must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// What is called, and what a user does to the day.
type Works<const N: usize> = [(&'static str, fn(&Path)); N];

pub(super) struct Lab {
    pub(super) hot: tempfile::TempDir,
    pub(super) cold: tempfile::TempDir,
    pub(super) root: Root,
    pub(super) state: State,
    pub(super) mask: AttrMask,
}

pub(super) fn lab(other_disk: bool) -> Lab {
    let memory = Path::new("/dev/shm");
    let cold = match other_disk && memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    };
    let hot = tempfile::tempdir().unwrap();
    init_cold(cold.path()).unwrap();
    let root = Root::open(hot.path()).unwrap();
    let mask = AttrMask::standard(rustix::process::geteuid().is_root());
    let state = State::in_memory(ReplicaId([1; 16]), mask).unwrap();
    places::load(&root, &state).unwrap();
    Lab { hot, cold, root, state, mask }
}

impl Lab {
    pub(super) fn archive(&self) -> Archive<'_> {
        Archive::open((&self.root, &self.state, self.mask), &Silent).unwrap()
    }

    pub(super) fn day(&self) -> PathBuf {
        self.hot.path().join(DAY)
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.day().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(super) fn go(&self) -> Result<Moved, ArchiveError> {
        self.go_with(&options())
    }

    pub(super) fn go_with(&self, options: &MoveOptions) -> Result<Moved, ArchiveError> {
        let archive = self.archive();
        let cold = archive.cold(self.cold.path())?;
        archive.move_day(&day(), &cold, options)
    }

    /// Moves the day; what has just been written cannot be told from what will be, and is taken a moment later.
    pub(super) fn moved(&self) -> Moved {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.go() {
                Err(ArchiveError::Changed(_)) if Instant::now() < until => std::thread::yield_now(),
                answer => return answer.unwrap(),
            }
        }
    }

    pub(super) fn is_link(&self) -> bool {
        self.day().symlink_metadata().unwrap().is_symlink()
    }

    /// No move is under way, and no copy is left of one.
    pub(super) fn assert_clean(&self) {
        assert_eq!(fs::read_dir(self.hot.path().join(".driftless/archive")).unwrap().count(), 0);
        assert_eq!(self.cold.path().join(DAY).symlink_metadata().is_ok(), self.is_link());
    }
}

pub(super) fn options() -> MoveOptions {
    MoveOptions { form: LinkForm::Absolute, rewrite: false, keep: Duration::from_secs(3600) }
}

pub(super) fn day() -> RelPath {
    RelPath::parse(DAY.as_bytes()).unwrap()
}

/// Everything of a tree that a copy keeps: kind, mode, owner, time, bytes or text, names of one file, extended attributes.
pub(super) fn everything(top: &Path) -> BTreeMap<String, String> {
    let mut names: BTreeMap<u64, String> = BTreeMap::new();
    let walk = walkdir::WalkDir::new(top).follow_root_links(true).sort_by_file_name();
    let entries = walk.into_iter().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let path = entry.path().strip_prefix(top).unwrap().display().to_string();
            // The top is the day itself, whatever leads there.
            let meta = if path.is_empty() { fs::metadata(top).unwrap() } else { entry.path().symlink_metadata().unwrap() };
            let content = match () {
                () if meta.is_dir() => String::new(),
                () if meta.is_symlink() => fs::read_link(entry.path()).unwrap().display().to_string(),
                () => blake3::hash(&fs::read(entry.path()).unwrap()).to_string(),
            };
            let first = match meta.nlink() > 1 && meta.is_file() {
                true => names.entry(meta.ino()).or_insert_with(|| path.clone()).clone(),
                false => String::new(),
            };
            let xattrs: Xattrs = match () {
                () if meta.is_file() => crate::io::fs::file_xattrs(&fs::File::open(entry.path()).unwrap(), entry.path()).unwrap(),
                () if meta.is_dir() => crate::io::fs::open_named(entry.path()).unwrap().xattrs().unwrap(),
                () => Vec::new(),
            };
            let data = if meta.is_file() { data(entry.path(), meta.len()) } else { Vec::new() };
            let all = format!(
                "{:o} {}:{} {}.{} {content} {first} {xattrs:?} {data:?}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec()
            );
            (path, all)
        })
        .collect()
}

/// Where a large file has data, and where it ends: between them are holes.
fn data(path: &Path, size: u64) -> Vec<(u64, u64)> {
    use rustix::fs::{SeekFrom, seek};
    let (file, mut at, mut found) = (fs::File::open(path).unwrap(), 0, Vec::new());
    // Of a small one it is not kept.
    while size >= 64 * 1024 && at < size {
        let Ok(from) = seek(&file, SeekFrom::Data(at)) else { break };
        at = seek(&file, SeekFrom::Hole(from)).unwrap();
        found.push((from, at));
    }
    found
}

/// An access list with one more user, as the kernel has it: version, then tag, permissions and id of each entry.
fn access_list(user: u32) -> Vec<u8> {
    let entries = [(0x01, 6, u32::MAX), (0x02, 6, user), (0x04, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 0, u32::MAX)];
    let entry = |(tag, perms, id): (u16, u16, u32)| [&tag.to_le_bytes()[..], &perms.to_le_bytes(), &id.to_le_bytes()].concat();
    [2u32.to_le_bytes().to_vec()].into_iter().chain(entries.map(entry)).collect::<Vec<_>>().concat()
}

/// A day with something of every kind that a copy must keep.
pub(super) fn rich(lab: &Lab) {
    lab.write("a.jpg", b"some bytes");
    lab.write("sub/deep/b.txt", b"other bytes");
    lab.write("empty", b"");
    lab.write("odd \n name", b"x");
    fs::create_dir(lab.day().join("hollow")).unwrap();
    fs::hard_link(lab.day().join("a.jpg"), lab.day().join("sub/again.jpg")).unwrap();
    symlink("a.jpg", lab.day().join("to-a")).unwrap();
    symlink("../../a.jpg", lab.day().join("sub/deep/up")).unwrap();
    symlink("/nowhere", lab.day().join("absolute")).unwrap();
    let sparse = fs::File::create(lab.day().join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 33 << 20).unwrap();
    for (name, mode) in [("a.jpg", 0o640), ("sub", 0o2750), ("hollow", 0o700), ("empty", 0o400)] {
        fs::set_permissions(lab.day().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let none = rustix::fs::XattrFlags::empty();
    for (name, key, value) in [
        ("a.jpg", "user.note", b"kept".to_vec()),
        ("hollow", "user.note", b"of a directory".to_vec()),
        ("sub/deep/b.txt", "system.posix_acl_access", access_list(1234)),
        ("sub", "system.posix_acl_default", access_list(4321)),
    ] {
        rustix::fs::setxattr(lab.day().join(name), key, &value, none).unwrap();
    }
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(lab.day().join("sub/deep/b.txt"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::lchown(lab.day().join("to-a"), Some(1234), Some(4321)).unwrap();
    }
    for (name, seconds) in [("a.jpg", 1_000_000_000), ("sub/deep", 1_100_000_000), ("hollow", 1_200_000_000)] {
        let time = std::time::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
        fs::File::open(lab.day().join(name)).unwrap().set_modified(time).unwrap();
    }
}

#[test]
fn a_day_moves_and_comes_back_with_everything_that_it_has() {
    for other_disk in [true, false] {
        let lab = lab(other_disk);
        rich(&lab);
        let before = everything(&lab.day());
        let moved = lab.go().unwrap();
        assert!(lab.is_link() && moved.files == 6, "{moved:?}");
        assert_eq!(everything(&lab.day()), before, "other disk: {other_disk}");
        assert_eq!(fs::read_link(lab.day()).unwrap(), lab.cold.path().canonicalize().unwrap().join(DAY));
        if moved.copied > 0 {
            let sparse = fs::metadata(lab.cold.path().join(DAY).join("sparse")).unwrap();
            assert!(sparse.blocks() * 512 < 4 << 20, "holes stay holes");
        }
        let archive = lab.archive();
        archive.restore_day(&day(), Duration::ZERO).unwrap();
        assert!(!lab.is_link());
        assert_eq!(everything(&lab.day()), before, "back");
        archive.settle_displaced(i64::MAX).unwrap();
        lab.assert_clean();
        lab.go().unwrap();
        assert_eq!(everything(&lab.day()), before, "a second round");
        archive.settle_displaced(i64::MAX).unwrap();
        lab.assert_clean();
    }
}

#[test]
fn what_is_written_late_is_brought_over() {
    let lab = lab(true);
    for name in ["appended", "both", "removed", "renamed", "sub/kept", "dir/x"] {
        lab.write(name, format!("first {name}").as_bytes());
    }
    let open = |name: &str| fs::OpenOptions::new().append(true).open(lab.day().join(name)).unwrap();
    let (mut appended, mut both) = (open("appended"), open("both"));
    let old = fs::File::open(lab.day()).unwrap();
    lab.go_with(&MoveOptions { keep: Duration::from_secs(3600), ..options() }).unwrap();
    let inside = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&old)));
    appended.write_all(b" and more").unwrap();
    both.write_all(b" in the old").unwrap();
    fs::write(lab.day().join("both"), "first both in the new").unwrap();
    fs::write(inside.join("created"), "late").unwrap();
    fs::create_dir(inside.join("sub/made")).unwrap();
    fs::write(inside.join("sub/made/y"), "deep and late").unwrap();
    fs::remove_file(inside.join("removed")).unwrap();
    fs::rename(inside.join("renamed"), inside.join("renamed-to")).unwrap();
    fs::remove_file(inside.join("dir/x")).unwrap();
    fs::remove_dir(inside.join("dir")).unwrap();
    let archive = lab.archive();
    let settled = archive.settle_displaced(0).unwrap();
    assert!(settled.problems.is_empty() && settled.removed == 0, "{settled:?}");
    let read = |name: &str| fs::read_to_string(lab.day().join(name)).ok();
    assert_eq!(read("appended").as_deref(), Some("first appended and more"));
    assert_eq!(read("both").as_deref(), Some("first both in the new"));
    assert_eq!(read("created").as_deref(), Some("late"));
    assert_eq!(read("sub/made/y").as_deref(), Some("deep and late"));
    assert_eq!((read("removed"), read("renamed")), (None, None));
    assert_eq!(read("renamed-to").as_deref(), Some("first renamed"));
    assert!(!lab.day().join("dir").exists());
    let copies: Vec<String> =
        fs::read_dir(lab.day()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let copy = copies.iter().find(|name| name.starts_with("both.conflict-late-")).expect("both versions stand there");
    assert_eq!(read(copy).as_deref(), Some("first both in the old"));
    // Once more, later: and what was brought is not brought twice.
    appended.write_all(b" and again").unwrap();
    let settled = archive.settle_displaced(i64::MAX).unwrap();
    assert_eq!((settled.merged.len(), settled.removed), (1, 0), "{settled:?}");
    assert_eq!(read("appended").as_deref(), Some("first appended and more and again"));
    assert_eq!(archive.settle_displaced(i64::MAX).unwrap().removed, 1);
    assert_eq!(fs::read_dir(lab.day()).unwrap().count(), copies.len());
    lab.assert_clean();
}

#[test]
fn what_is_written_while_a_day_is_copied_makes_it_stay() {
    let works: Works<5> = [
        ("archive-copied", |day| fs::write(day.join("a"), "changed").unwrap()),
        ("archive-copy-ready", |day| fs::write(day.join("new"), "new").unwrap()),
        ("archive-announced", |day| fs::remove_file(day.join("b")).unwrap()),
        ("archive-swap-recorded", |day| fs::write(day.join("sub/c"), "first d").unwrap()),
        ("archive-file-written", |day| fs::write(day.join("b"), "again").unwrap()),
    ];
    for (place, work) in works {
        let lab = lab(true);
        for name in ["a", "b", "sub/c"] {
            lab.write(name, format!("first {name}").as_bytes());
        }
        let day_path = lab.day();
        hook::set(move |at| {
            if at == place {
                work(&day_path);
            }
        });
        let error = lab.go().unwrap_err();
        hook::clear();
        assert!(matches!(error, ArchiveError::Changed(_)), "{place}: {error}");
        assert!(!lab.is_link());
        lab.assert_clean();
        assert!(lab.root.places().get(&day()).is_none());
        lab.go().unwrap();
        assert!(lab.is_link(), "a later run takes it");
    }
}

#[test]
fn a_write_in_the_last_moment_before_the_exchange_is_brought_over() {
    let lab = lab(true);
    lab.write("a", b"first");
    let path = lab.day();
    hook::set(move |at| {
        if at == "archive-before-exchange" {
            fs::write(path.join("a"), "second").unwrap();
            fs::write(path.join("b"), "new").unwrap();
        }
    });
    lab.go().unwrap();
    hook::clear();
    assert!(lab.is_link());
    assert_eq!(fs::read_to_string(lab.day().join("a")).unwrap(), "second");
    assert_eq!(fs::read_to_string(lab.day().join("b")).unwrap(), "new");
}

#[test]
fn a_day_that_was_replaced_in_the_last_moment_is_not_exchanged() {
    for other_disk in [true, false] {
        let lab = lab(other_disk);
        lab.write("a", b"first");
        let path = lab.day();
        hook::set(move |at| {
            if at == "archive-before-exchange" {
                fs::rename(&path, path.with_file_name("moved")).unwrap();
                fs::create_dir(&path).unwrap();
                fs::write(path.join("b"), "another").unwrap();
            }
        });
        assert!(matches!(lab.go().unwrap_err(), ArchiveError::Changed(_)));
        hook::clear();
        assert!(!lab.is_link());
        assert_eq!(fs::read_to_string(lab.day().join("b")).unwrap(), "another");
        assert_eq!(fs::read_to_string(lab.day().with_file_name("moved").join("a")).unwrap(), "first");
        lab.assert_clean();
    }
}

#[test]
fn what_cannot_be_moved_is_refused_with_its_reason_and_nothing_is_made() {
    let works: Works<6> = [
        ("has another name outside", |day| fs::hard_link(day.join("a"), day.join("../../../elsewhere")).unwrap()),
        ("device, pipe or socket", |day| {
            rustix::fs::mknodat(rustix::fs::CWD, day.join("p"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap()
        }),
        ("leads out of the day", |day| symlink("../06/x", day.join("l")).unwrap()),
        ("on a way that cannot", |day| symlink("sub/../../06/x", day.join("l")).unwrap()),
        ("another root lies there", |day| fs::create_dir(day.join(".driftless")).unwrap()),
        ("same name, other content", |_| {}),
    ];
    for (told, work) in works {
        let lab = lab(true);
        lab.write("a", b"first");
        lab.write("sub/b", b"first");
        work(&lab.day());
        if told.starts_with("same") {
            fs::create_dir_all(lab.cold.path().join(DAY).join("sub")).unwrap();
            fs::write(lab.cold.path().join(DAY).join("a"), "other").unwrap();
            fs::write(lab.cold.path().join(DAY).join("sub/b"), "first").unwrap();
        }
        let error = lab.go().unwrap_err().to_string();
        let told = if told.starts_with("same") { "holds other bytes there" } else { told };
        assert!(error.contains(told), "{told}: {error}");
        assert!(!lab.is_link());
        assert_eq!(fs::read_dir(lab.hot.path().join(".driftless/archive")).unwrap().count(), 0);
    }
}

#[test]
fn links_that_lead_out_are_written_anew_and_read_as_before_when_the_day_is_back() {
    let lab = lab(false);
    lab.write("sub/a", b"first");
    fs::write(lab.hot.path().join("shared"), "shared bytes").unwrap();
    symlink("../../../../shared", lab.day().join("sub/out")).unwrap();
    symlink("a", lab.day().join("sub/in")).unwrap();
    for form in [LinkForm::Absolute, LinkForm::Relative] {
        let options = MoveOptions { rewrite: true, form, ..options() };
        lab.go_with(&options).unwrap();
        assert_eq!(fs::read_to_string(lab.day().join("sub/out")).unwrap(), "shared bytes");
        assert_eq!(fs::read_link(lab.day().join("sub/in")).unwrap(), Path::new("a"));
        assert_ne!(fs::read_link(lab.day().join("sub/out")).unwrap(), Path::new("../../../../shared"));
        // Everybody else has the logical target.
        let seen = lab.root.dir(&day().join(&Name::parse(b"sub").unwrap())).unwrap();
        assert_eq!(&*seen.read_link(b"out").unwrap(), b"../../../../shared");
        lab.archive().restore_day(&day(), Duration::ZERO).unwrap();
        assert_eq!(fs::read_link(lab.day().join("sub/out")).unwrap(), Path::new("../../../../shared"));
        lab.archive().settle_displaced(i64::MAX).unwrap();
        lab.assert_clean();
    }
}

#[test]
fn a_link_is_written_anew_in_one_step_when_the_rule_changes() {
    let lab = lab(false);
    lab.write("a", b"first");
    lab.go().unwrap();
    let archive = lab.archive();
    let cold = lab.cold.path().canonicalize().unwrap().join(DAY);
    assert!(archive.relink(&day(), &LinkForm::Relative).unwrap());
    assert!(fs::read_link(lab.day()).unwrap().starts_with(".."));
    assert_eq!(fs::read_to_string(lab.day().join("a")).unwrap(), "first");
    assert!(!archive.relink(&day(), &LinkForm::Relative).unwrap());
    assert!(archive.relink(&day(), &LinkForm::Absolute).unwrap());
    assert_eq!(fs::read_link(lab.day()).unwrap(), cold);
    assert!(lab.root.dir(&day()).unwrap().is_placed());
    archive.restore_day(&day(), Duration::ZERO).unwrap();
}

#[test]
fn equal_bytes_in_the_cold_root_are_taken_for_the_copy() {
    for attributes in [true, false] {
        let lab = lab(true);
        rich(&lab);
        let before = everything(&lab.day());
        let flags = if attributes { "-a" } else { "-dR" };
        let copied = std::process::Command::new("cp")
            .args([flags, "--parents", DAY])
            .arg(lab.cold.path())
            .current_dir(lab.hot.path())
            .status();
        assert!(copied.unwrap().success());
        let place = lab.cold.path().join(DAY).join("sub/deep/b.txt");
        let ino = fs::metadata(&place).unwrap().ino();
        assert_eq!(lab.go().unwrap().copied, 0);
        assert_eq!(fs::metadata(&place).unwrap().ino(), ino);
        let after = everything(&lab.day());
        let attributes_of = |tree: &BTreeMap<String, String>| {
            tree.iter()
                .map(|(path, all)| (path.clone(), all.split(' ').take(4).collect::<Vec<_>>().join(" ")))
                .collect::<Vec<_>>()
        };
        assert_eq!(attributes_of(&after), attributes_of(&before));
        lab.archive().settle_displaced(i64::MAX).unwrap();
        assert!(fs::metadata(&place).is_ok());
    }
}

#[test]
fn a_cold_root_that_is_none_or_lies_wrong_is_refused_and_nothing_is_made() {
    let lab = lab(false);
    lab.write("a", b"first");
    let archive = lab.archive();
    let bare = tempfile::tempdir().unwrap();
    assert!(
        archive.cold(bare.path()).unwrap_err().to_string().contains("no marker"),
        "{}",
        archive.cold(bare.path()).unwrap_err()
    );
    assert_eq!(fs::read_dir(bare.path()).unwrap().count(), 0);
    assert!(archive.cold(lab.hot.path()).is_err());
    let inside = lab.hot.path().join("inside");
    fs::create_dir(&inside).unwrap();
    assert!(archive.cold(&inside).unwrap_err().to_string().contains("lies in"));
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
    // The disk goes away after it was taken into use.
    let cold = archive.cold(lab.cold.path()).unwrap();
    let away = lab.cold.path().with_extension("away");
    fs::rename(lab.cold.path(), &away).unwrap();
    fs::create_dir(lab.cold.path()).unwrap();
    let error = archive.move_day(&day(), &cold, &options()).unwrap_err();
    assert!(error.ends_run(), "{error}");
    assert_eq!(fs::read_dir(lab.cold.path()).unwrap().count(), 0);
    assert!(!lab.is_link());
    fs::remove_dir(lab.cold.path()).unwrap();
    fs::rename(&away, lab.cold.path()).unwrap();
    archive.recover().unwrap();
    archive.move_day(&day(), &cold, &options()).unwrap();
    assert!(lab.is_link());
}

#[test]
fn days_are_found_and_those_that_moved_are_told_apart() {
    let lab = lab(false);
    lab.write("a", b"first");
    fs::create_dir_all(lab.hot.path().join("2026/03/06")).unwrap();
    symlink("/elsewhere", lab.hot.path().join("2026/03/07")).unwrap();
    fs::write(lab.hot.path().join("2026/03/08"), "a file").unwrap();
    lab.go().unwrap();
    let search = |path: &RelPath| match path.depth() {
        3 => Search::Day,
        _ => Search::Onward,
    };
    let found: Vec<_> =
        lab.archive().find(&search).unwrap().into_iter().map(|found| (found.path.to_string(), found.placed)).collect();
    assert_eq!(found, [(DAY.to_owned(), true), ("2026/03/06".to_owned(), false)]);
}
