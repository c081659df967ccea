use super::*;
use crate::entry::Hash;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

const ALL: AttrMask = AttrMask { perms: true, owner: true, times: true };

fn path(bytes: &[u8]) -> RelPath {
    RelPath::parse(bytes).unwrap()
}

fn root() -> (tempfile::TempDir, Root, Dir) {
    let temp = tempfile::tempdir().unwrap();
    let root = Root::open(temp.path()).unwrap();
    let top = root.dir(&RelPath::root()).unwrap();
    (temp, root, top)
}

#[test]
fn names_are_listed_without_dots_and_a_second_time() {
    let (temp, _root, top) = root();
    let odd: [&[u8]; 3] = [b"new\nline", b"\xff\xfe", &[b'x'; 255]];
    for name in odd {
        std::fs::write(temp.path().join(OsStr::from_bytes(name)), b"").unwrap();
    }
    for _ in 0..2 {
        let mut names = top.names().unwrap();
        names.sort();
        let mut expected = odd.map(Box::from).to_vec();
        expected.sort();
        assert_eq!(names, expected);
    }
}

#[test]
fn a_directory_larger_than_the_buffer_is_listed_completely() {
    let (temp, _root, mut top) = root();
    for number in 0..500 {
        std::fs::write(temp.path().join(format!("{number:0>100}")), b"").unwrap();
    }
    let mut buffer = Vec::with_capacity(4096);
    let mut count = 0;
    top.each_name(buffer.spare_capacity_mut(), |_, _, _| count += 1).unwrap();
    assert_eq!(count, 500);
}

#[test]
fn a_symbolic_link_on_the_way_is_never_followed() {
    let (temp, root, top) = root();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir(outside.path().join("d")).unwrap();
    std::fs::write(outside.path().join("f"), b"secret").unwrap();
    symlink(outside.path(), temp.path().join("link")).unwrap();
    symlink(outside.path().join("f"), temp.path().join("leaf")).unwrap();
    assert!(root.dir(&path(b"link")).is_err());
    assert!(root.dir(&path(b"link/d")).is_err());
    assert!(top.open_dir(b"link").is_err());
    assert!(top.open_file(b"leaf").is_err());
    assert!(top.create_file(b"leaf").is_err());
    let attrs = Attrs { mode: 0o600, uid: 0, gid: 0, mtime_ns: 5 };
    let before = std::fs::metadata(outside.path().join("f")).unwrap();
    top.set_attrs(b"leaf", &attrs, AttrMask { owner: false, ..ALL }).unwrap();
    let after = std::fs::metadata(outside.path().join("f")).unwrap();
    assert_eq!((before.mtime_nsec(), before.mode(), before.ctime_nsec()), (after.mtime_nsec(), after.mode(), after.ctime_nsec()));
    assert_eq!(top.stat(b"leaf").unwrap().unwrap().mtime_ns, 5);
    assert_eq!(&*top.read_link(b"link").unwrap(), outside.path().as_os_str().as_bytes());
}

#[test]
fn a_path_longer_than_the_kernel_accepts_is_opened_in_pieces() {
    let (_temp, root, top) = root();
    let mut dir = top;
    let name = [b'n'; 200];
    let mut parts = Vec::new();
    for _ in 0..60 {
        dir = dir.create_dir(&name).unwrap();
        parts.push(&name[..]);
    }
    dir.create_file(b"end").unwrap();
    let deep = path(&parts.join(&b"/"[..]));
    assert_eq!(root.dir(&deep).unwrap().names().unwrap(), [Box::from(&b"end"[..])]);
    assert!(open_by_components(root.fd.as_fd(), path(b"nnn").as_bytes()).is_err());
}

#[test]
fn components_one_by_one_follow_no_link_either() {
    let (temp, root, top) = root();
    top.create_dir(b"a").unwrap().create_dir(b"b").unwrap();
    symlink("a", temp.path().join("l")).unwrap();
    assert!(open_by_components(root.fd.as_fd(), b"a/b").is_ok());
    assert!(open_by_components(root.fd.as_fd(), b"l/b").is_err());
}

#[test]
fn only_regular_files_are_opened_and_a_fifo_does_not_block() {
    let (_temp, _root, top) = root();
    rustix::fs::mkfifoat(&top.fd, "pipe", Mode::RWXU).unwrap();
    top.create_dir(b"dir").unwrap();
    assert!(top.open_file(b"pipe").is_err());
    assert!(top.open_file(b"dir").is_err());
    assert!(top.open_file(b"missing").unwrap_err().is_missing());
}

#[test]
fn attributes_are_set_by_mask_and_set_id_bits_only_with_the_owner() {
    let (temp, _root, top) = root();
    top.create_file(b"f").unwrap();
    let attrs = Attrs { mode: 0o4755, uid: 12, gid: 34, mtime_ns: -1_500_000_001 };
    top.set_attrs(b"f", &attrs, AttrMask { owner: false, ..ALL }).unwrap();
    let seen = top.stat(b"f").unwrap().unwrap();
    assert_eq!((seen.mode & 0o7777, seen.mtime_ns), (0o755, -1_500_000_001));
    if rustix::process::geteuid().is_root() {
        top.set_attrs(b"f", &attrs, ALL).unwrap();
        assert_eq!(top.stat(b"f").unwrap().unwrap().attrs(), attrs);
    }
    let only_time = Attrs { mtime_ns: 7, ..attrs };
    top.set_attrs(b"f", &only_time, AttrMask { perms: false, owner: false, times: true }).unwrap();
    assert_eq!(std::fs::metadata(temp.path().join("f")).unwrap().mtime_nsec(), 7);
    assert!(top.set_attrs(b"f", &Attrs { uid: u32::MAX, ..attrs }, ALL).is_err());
}

#[test]
fn attributes_of_directories_and_open_files_are_set_by_descriptor() {
    let (temp, _root, top) = root();
    let dir = top.create_dir(b"d").unwrap();
    let attrs = Attrs { mode: 0o750, uid: 0, gid: 0, mtime_ns: 42 };
    let mask = AttrMask { owner: false, ..ALL };
    dir.set_attrs_self(&attrs, mask).unwrap();
    assert_eq!((dir.stat_self().unwrap().mode & 0o7777, dir.stat_self().unwrap().mtime_ns), (0o750, 42));
    let file = top.create_file(b"f").unwrap();
    assert_eq!(std::fs::metadata(temp.path().join("f")).unwrap().permissions().mode() & 0o777, 0o600);
    finish_file(&file, Path::new("f"), &attrs, mask).unwrap();
    assert_eq!(file_signature(&file, Path::new("f")).unwrap(), top.stat(b"f").unwrap().unwrap());
}

#[test]
fn a_finished_file_that_has_the_right_owner_already_gets_its_set_id_bits() {
    let (_temp, _root, top) = root();
    for (number, mode) in [0o4755, 0o2755, 0o6755, 0o755].into_iter().enumerate() {
        let name = format!("f{number}");
        let file = top.create_file(name.as_bytes()).unwrap();
        let own = file_signature(&file, Path::new("f")).unwrap();
        let attrs = Attrs { mode, uid: own.uid, gid: own.gid, mtime_ns: 42 };
        let told = finish_file(&file, Path::new("f"), &attrs, ALL).unwrap();
        assert_eq!((told.attrs(), told), (attrs, top.stat(name.as_bytes()).unwrap().unwrap()));
        let told = finish_file(&file, Path::new("f"), &attrs, AttrMask { owner: false, ..ALL }).unwrap();
        assert_eq!(told.mode & 0o7777, 0o755, "without the owner");
    }
}

#[test]
fn renames_keep_their_promise() {
    let (_temp, _root, top) = root();
    top.create_file(b"a").unwrap().write_all(b"a").unwrap();
    top.create_file(b"b").unwrap().write_all(b"bb").unwrap();
    assert!(top.rename(b"a", &top, b"b", Replace::Never).is_err());
    assert!(top.rename(b"a", &top, b"c", Replace::Exchange).unwrap_err().is_missing());
    top.rename(b"a", &top, b"b", Replace::Exchange).unwrap();
    assert_eq!(top.stat(b"a").unwrap().unwrap().size, 2);
    top.rename(b"a", &top, b"b", Replace::Always).unwrap();
    assert_eq!((top.stat(b"a").unwrap(), top.stat(b"b").unwrap().unwrap().size), (None, 2));
}

#[test]
fn the_private_folder_is_made_once_and_is_private() {
    let (temp, root, _top) = root();
    root.private(&["stage", "x"]).unwrap();
    root.private(&["stage", "x"]).unwrap();
    assert_eq!(std::fs::metadata(temp.path().join(".driftless")).unwrap().permissions().mode() & 0o777, 0o700);
    std::fs::remove_dir_all(temp.path().join(".driftless")).unwrap();
    symlink("/tmp", temp.path().join(".driftless")).unwrap();
    assert!(root.private(&[]).is_err());
}

#[test]
fn copying_hashes_what_was_written() {
    let (_temp, _root, top) = root();
    let bytes: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    top.create_file(b"from").unwrap().write_all(&bytes).unwrap();
    let mut target = top.create_file(b"to").unwrap();
    let mut buffer = vec![0; 4096];
    let copied = copy_hashed(&top.open_file(b"from").unwrap(), u64::MAX, &mut target, &mut buffer).unwrap();
    assert_eq!(copied, (100_000, Hash(*blake3::hash(&bytes).as_bytes())));
    assert_eq!(hash_file(&mut top.open_file(b"to").unwrap(), &mut buffer).unwrap(), copied);
    target.rewind().unwrap();
    let mut back = Vec::new();
    target.read_to_end(&mut back).unwrap();
    assert_eq!(back, bytes);
    assert!(hash_file(&mut target, &mut []).is_err());
}

#[test]
fn probes_leave_nothing_behind() {
    let (temp, root, _top) = root();
    let granularity = ctime_granularity(&root).unwrap();
    assert!(granularity >= 0);
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    assert!(supports_exchange(&root).unwrap());
    assert_eq!(std::fs::read_dir(temp.path().join(".driftless")).unwrap().count(), 0);
    assert!(root.space().unwrap().0 > 0);
    root.file_system().unwrap();
    root.sync_all().unwrap();
}

#[test]
fn a_root_that_was_replaced_is_noticed_by_its_path() {
    let temp = tempfile::tempdir().unwrap();
    let place = temp.path().join("r");
    std::fs::create_dir(&place).unwrap();
    let root = Root::open(&place).unwrap();
    assert_eq!(root.signature().unwrap().ino, root.signature_by_path().unwrap().ino);
    std::fs::rename(&place, temp.path().join("old")).unwrap();
    std::fs::create_dir(&place).unwrap();
    assert_ne!(root.signature().unwrap().ino, root.signature_by_path().unwrap().ino);
}

#[test]
fn a_directory_flipped_to_a_link_never_leads_outside() {
    let (temp, root, top) = root();
    let outside = tempfile::tempdir().unwrap();
    for place in [temp.path().join("d"), outside.path().to_owned()] {
        std::fs::create_dir_all(place.join("sub")).unwrap();
        std::fs::write(place.join("sub/f"), b"canary").unwrap();
    }
    symlink(outside.path(), temp.path().join("link")).unwrap();
    let canary = || std::fs::metadata(outside.path().join("sub/f")).unwrap();
    let (before, outside_ino) = (canary(), std::fs::metadata(outside.path().join("sub")).unwrap().ino());
    let attrs = Attrs { mode: 0o600, uid: 0, gid: 0, mtime_ns: 1 };
    let mask = AttrMask { owner: false, ..ALL };
    let done = std::sync::atomic::AtomicBool::new(false);
    let opened = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                top.rename(b"d", &top, b"link", Replace::Exchange).unwrap();
            }
        });
        let mut opened = 0;
        for _ in 0..10_000 {
            if let Ok(dir) = root.dir(&path(b"d/sub")) {
                assert_ne!(dir.stat_self().unwrap().ino, outside_ino);
                dir.set_attrs(b"f", &attrs, mask).unwrap();
                opened += 1;
            }
            if let Ok(dir) = top.open_dir(b"d") {
                assert_ne!(dir.open_dir(b"sub").unwrap().stat_self().unwrap().ino, outside_ino);
            }
            // Of the link itself, or of the directory; never of what the link names.
            top.set_attrs(b"d", &Attrs { mode: 0o700, ..attrs }, mask).ok();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        opened
    });
    let after = canary();
    assert!(opened > 0);
    assert_eq!((before.ctime_nsec(), before.ctime()), (after.ctime_nsec(), after.ctime()));
}
