//! Late changes of attributes, and late writes that meet what the archived day has become.

use super::tests::{Lab, lab, options};
use super::*;
use crate::report::Monitor;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Mutex;

/// Somebody whose working directory is the day while it moves.
struct Inside(fs::File);

impl Inside {
    fn at(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd())).join(name)
    }
}

fn moved(lab: &Lab) -> Inside {
    for name in ["a", "b", "sub/c", "sub/deep/d", "quiet/e"] {
        lab.write(name, name.as_bytes());
    }
    let inside = Inside(fs::File::open(lab.day()).unwrap());
    lab.go().unwrap();
    inside
}

fn set_xattr(path: &Path, value: &[u8]) {
    rustix::fs::setxattr(path, "user.note", value, rustix::fs::XattrFlags::empty()).unwrap();
}

fn xattr(path: &Path) -> Vec<u8> {
    let mut value = [0; 64];
    match rustix::fs::getxattr(path, "user.note", &mut value[..]) {
        Ok(size) => value[..size].to_vec(),
        Err(_) => Vec::new(),
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Keeps what is told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Monitor for Told {
    fn notice(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

#[test]
fn attributes_that_change_late_are_brought_over() {
    let lab = lab(true);
    let inside = moved(&lab);
    let time = std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 7);
    set_xattr(&inside.at("a"), b"late");
    set_mode(&inside.at("b"), 0o600);
    set_mode(&inside.at("sub"), 0o2770);
    set_xattr(&inside.at("sub/deep"), b"late");
    fs::File::open(inside.at("quiet")).unwrap().set_modified(time).unwrap();
    set_mode(&inside.at(""), 0o711);
    set_xattr(&inside.at(""), b"the day");
    let root = rustix::process::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(inside.at("sub/deep"), Some(1234), Some(4321)).unwrap();
    }
    let archive = lab.archive();
    let settled = archive.settle_displaced(0).unwrap();
    assert!(settled.problems.is_empty(), "{settled:?}");
    let of = |name: &str| fs::metadata(lab.day().join(name)).unwrap();
    assert_eq!(xattr(&lab.day().join("a")), b"late");
    assert_eq!(of("b").mode() & 0o7777, 0o600);
    assert_eq!(of("sub").mode() & 0o7777, 0o2770);
    assert_eq!(xattr(&lab.day().join("sub/deep")), b"late");
    assert_eq!(of("quiet").modified().unwrap(), time);
    assert_eq!((of("").mode() & 0o7777, xattr(&lab.day())), (0o711, b"the day".to_vec()));
    assert!(!root || (of("sub/deep").uid(), of("sub/deep").gid()) == (1234, 4321));
    assert_eq!(archive.settle_displaced(i64::MAX).unwrap().removed, 1);
    assert_eq!(xattr(&lab.day().join("sub/deep")), b"late");
}

#[test]
fn attributes_that_change_in_both_places_stay_in_the_archived_day_and_that_is_told() {
    let lab = lab(true);
    let inside = moved(&lab);
    let told = Told::default();
    let archive = Archive::open((&lab.root, &lab.state, lab.mask), &told).unwrap();
    set_mode(&inside.at("sub"), 0o770);
    set_mode(&lab.day().join("sub"), 0o700);
    set_xattr(&inside.at("quiet"), b"late");
    set_xattr(&lab.day().join("quiet"), b"through the link");
    // The bytes are the same: the file's attributes alone differ.
    set_mode(&inside.at("a"), 0o600);
    set_mode(&lab.day().join("a"), 0o640);
    archive.settle_displaced(0).unwrap();
    let of = |name: &str| fs::metadata(lab.day().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((of("sub"), of("a")), (0o700, 0o640));
    assert_eq!(xattr(&lab.day().join("quiet")), b"through the link");
    let told = told.0.into_inner().unwrap();
    for name in ["/sub:", "/quiet:", "/a:"] {
        assert!(told.iter().any(|text| text.contains(name) && text.contains("two places")), "{name} {told:?}");
    }
}

#[test]
fn what_the_archived_day_has_of_its_own_is_not_replaced_by_a_second_late_write() {
    let lab = lab(true);
    lab.write("a", b"first");
    let mut late = fs::OpenOptions::new().append(true).open(lab.day().join("a")).unwrap();
    lab.go().unwrap();
    let archive = lab.archive();
    fs::write(lab.day().join("a"), "through the link").unwrap();
    for word in [" one", " two", " three"] {
        late.write_all(word.as_bytes()).unwrap();
        let settled = archive.settle_displaced(0).unwrap();
        assert_eq!((settled.merged.len(), settled.problems.len()), (1, 0), "{settled:?}");
        assert_eq!(fs::read_to_string(lab.day().join("a")).unwrap(), "through the link");
    }
    let names: Vec<String> =
        fs::read_dir(lab.day()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let [copy] = names.iter().filter(|name| *name != "a").collect::<Vec<_>>()[..] else { panic!("{names:?}") };
    assert_eq!(fs::read_to_string(lab.day().join(copy)).unwrap(), "first one two three", "one copy that grows");
}

#[test]
fn extended_attributes_that_were_set_through_the_link_are_not_replaced() {
    let lab = lab(true);
    let inside = moved(&lab);
    set_xattr(&lab.day().join("a"), b"through the link");
    fs::OpenOptions::new().append(true).open(inside.at("a")).unwrap().write_all(b" late").unwrap();
    lab.archive().settle_displaced(0).unwrap();
    assert_eq!(xattr(&lab.day().join("a")), b"through the link");
    assert_eq!(fs::read_to_string(lab.day().join("a")).unwrap(), "a");
    let beside = fs::read_dir(lab.day()).unwrap().map(|entry| entry.unwrap().path());
    let beside = beside.filter(|path| path.to_string_lossy().contains("conflict-late")).collect::<Vec<_>>();
    assert_eq!(fs::read_to_string(&beside[0]).unwrap(), "a late");
}

#[test]
fn names_of_one_file_that_was_written_late_stay_together_also_beside_other_bytes() {
    let lab = lab(true);
    lab.write("a", b"first");
    fs::hard_link(lab.day().join("a"), lab.day().join("b")).unwrap();
    let mut late = fs::OpenOptions::new().append(true).open(lab.day().join("a")).unwrap();
    lab.go_with(&options()).unwrap();
    // One of the names is another file by now.
    fs::remove_file(lab.day().join("a")).unwrap();
    fs::write(lab.day().join("a"), "through the link").unwrap();
    late.write_all(b" late").unwrap();
    lab.archive().settle_displaced(0).unwrap();
    assert_eq!(fs::read_to_string(lab.day().join("a")).unwrap(), "through the link");
    assert_eq!(fs::read_to_string(lab.day().join("b")).unwrap(), "first late");
}

#[test]
fn a_directory_that_comes_late_where_a_file_stands_is_kept_beside_it() {
    let lab = lab(true);
    let inside = moved(&lab);
    fs::write(lab.day().join("new"), "through the link").unwrap();
    fs::create_dir(inside.at("new")).unwrap();
    fs::write(inside.at("new/x"), "late").unwrap();
    let archive = lab.archive();
    assert!(archive.settle_displaced(0).unwrap().problems.is_empty());
    fs::create_dir(inside.at("new/y")).unwrap();
    fs::write(inside.at("new/y/z"), "later").unwrap();
    let settled = archive.settle_displaced(0).unwrap();
    assert!(settled.problems.is_empty(), "{settled:?}");
    assert_eq!(fs::read_to_string(lab.day().join("new")).unwrap(), "through the link");
    let dirs: Vec<_> = fs::read_dir(lab.day())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("new.conflict-late-"))
        .collect();
    assert_eq!(dirs.len(), 1);
    assert_eq!(fs::read_to_string(dirs[0].join("x")).unwrap(), "late");
    assert_eq!(fs::read_to_string(dirs[0].join("y/z")).unwrap(), "later");
}
