//! Damaged days in cold storage are repaired from another machine. What is damaged is damaged below the file system: a disk that fails
//! changes no time.

use crate::machine::Machine;
use crate::machines::{acquainted, hot};
use crate::pair::{driftless, stdout};
use assert_cmd::assert::Assert;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A file system in a file, mounted; unmounted when it is dropped.
pub(crate) struct Disk {
    dir: TempDir,
}

impl Disk {
    /// `None`, said loudly, where this may not be.
    pub(crate) fn mounted() -> Option<Disk> {
        let disk = Disk { dir: tempfile::tempdir().unwrap() };
        fs::File::create(disk.image()).unwrap().set_len(16 << 20).unwrap();
        fs::create_dir(disk.path()).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.image()).status().is_ok_and(|made| made.success());
        if !made || !disk.mount() {
            eprintln!("SKIPPED: repair is NOT tested: no file system can be made in a file and mounted here");
            return None;
        }
        Some(disk)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn mount(&self) -> bool {
        Command::new("mount").args(["-o", "loop"]).args([self.image(), self.path()]).status().is_ok_and(|done| done.success())
    }

    fn unmount(&self) -> bool {
        Command::new("umount").arg(self.path()).status().is_ok_and(|done| done.success())
    }

    /// Gives a file this change time, seconds since 1970, as a clock that ran ahead does.
    pub(crate) fn stamp(&self, file: &str, seconds: u64) {
        assert!(self.unmount());
        let change = format!("set_inode_field /{file} ctime @{seconds}");
        let done = Command::new("debugfs").args(["-w", "-R", &change]).arg(self.image()).output().unwrap();
        assert!(done.status.success() && self.mount(), "{done:?}");
    }

    /// Changes one byte of each place that holds these bytes, while the file system is not looking. How many there are.
    pub(crate) fn damage(&self, bytes: &[u8]) -> usize {
        assert!(self.unmount());
        let image = fs::read(self.image()).unwrap();
        let file = fs::OpenOptions::new().write(true).open(self.image()).unwrap();
        let places: Vec<usize> = image.windows(bytes.len()).enumerate().filter(|(_, b)| *b == bytes).map(|(at, _)| at).collect();
        for at in &places {
            file.write_all_at(b"X", *at as u64).unwrap();
        }
        file.sync_all().unwrap();
        drop(file);
        assert!(self.mount());
        places.len()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It is not mounted where it could not be.
        let _ = self.unmount();
    }
}

fn archive(machine: &Machine, args: &[&str]) -> Assert {
    let home = machine.home();
    driftless().env("DRIFTLESS_HOME", home).env("DRIFTLESS_NOW", "2026-03-20T12:00:00Z").arg("archive").args(args).assert()
}

const DAY: &str = "2026/03/05";
const BYTES: &str = "only one file of this test has these very bytes";

/// A server with a folder, and a machine that has the same, with its old day in a cold root on a disk of its own.
fn archived(disk: &Disk) -> (Machine, Machine, String) {
    let (server, laptop) = acquainted("two-way");
    for name in ["a.txt", "sub/b.txt"] {
        laptop.write("hot", &format!("{DAY}/{name}"), &format!("{BYTES}: {name}"));
    }
    let script = format!("find {} -exec touch -d 2026-03-05T12:00:00Z {{}} +", laptop.folder("hot").join(DAY).display());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let serving = server.serve(&["hot"], &[]);
    laptop.sync("hot", &hot(&serving), &["--peer", "server"]).code(0);
    drop(serving);
    let (here, cold) = (laptop.folder("hot").display().to_string(), disk.path().display().to_string());
    archive(&laptop, &["init-cold", &cold]).code(0);
    archive(&laptop, &["run", "--hot", &here, "--cold", &cold, "--timezone", "UTC", "--keep-displaced", "0s"]).code(0);
    archive(&laptop, &["verify", &here]).code(0);
    assert!(fs::symlink_metadata(Path::new(&here).join(DAY)).unwrap().is_symlink());
    (server, laptop, here)
}

#[test]
fn a_byte_that_flipped_on_the_disk_is_found_and_brought_back_from_another_machine() {
    let Some(disk) = Disk::mounted() else { return };
    let (server, laptop, here) = archived(&disk);
    assert_eq!(disk.damage(format!("{BYTES}: sub/b.txt").as_bytes()), 1);
    let file = disk.path().join(DAY).join("sub/b.txt");
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("X{}: sub/b.txt", &BYTES[1..]));
    let told = stdout(&archive(&laptop, &["verify", &here]).code(2));
    assert!(told.contains("sub/b.txt is damaged"), "{told}");
    let serving = server.serve(&["hot"], &[]);
    let told = stdout(&archive(&laptop, &["verify", &here, "--repair-from", &hot(&serving), "--peer", "server"]).code(0));
    assert!(told.contains("sub/b.txt was damaged, and is repaired") && told.contains("1 damaged, 1 repaired"), "{told}");
    assert_eq!(laptop.read("hot", &format!("{DAY}/sub/b.txt")).unwrap(), format!("{BYTES}: sub/b.txt"));
    archive(&laptop, &["verify", &here]).code(0);
    // It is no change: nothing goes to the other machine, and nothing comes.
    let again = laptop.sync("hot", &hot(&serving), &["--peer", "server"]).code(0);
    assert!(stdout(&again).contains("nothing to do"), "{}", stdout(&again));
}

#[test]
fn behind_ssh_too() {
    let Some(disk) = Disk::mounted() else { return };
    let (server, laptop, here) = archived(&disk);
    assert_eq!(disk.damage(format!("{BYTES}: a.txt").as_bytes()), 1);
    let rsh = laptop.folder("bin").join("rsh");
    fs::write(&rsh, "exec sh -c \"exec $2\"").unwrap();
    let (root, rsh) = (format!("somewhere:{}", server.folder("hot").display()), format!("sh {}", rsh.display()));
    let program = env!("CARGO_BIN_EXE_driftless");
    let far = ["verify", &here, "--repair-from", &root, "--rsh", &rsh, "--remote-command", program];
    archive(&laptop, &far).code(0);
    assert_eq!(fs::read_to_string(disk.path().join(DAY).join("a.txt")).unwrap(), format!("{BYTES}: a.txt"));
}

#[test]
fn a_machine_that_has_another_version_or_damage_of_its_own_repairs_nothing_and_that_is_told() {
    let Some(disk) = Disk::mounted() else { return };
    let Some(theirs) = Disk::mounted() else { return };
    let (server, laptop, here) = archived(&disk);
    // The server's folder on a disk of its own.
    let root = theirs.path().join("hot");
    fs::create_dir(&root).unwrap();
    let roots = ["--root".to_owned(), format!("hot={}", root.display())];
    let serve = || crate::serving::Serving::start(&server.home(), &roots);
    let serving = serve();
    laptop.sync("hot", &hot(&serving), &["--peer", "server"]).code(0);
    drop(serving);
    assert_eq!(disk.damage(format!("{BYTES}: a.txt").as_bytes()), 1);
    let verify = |word: &str| {
        let serving = serve();
        let told = stdout(&archive(&laptop, &["verify", &here, "--repair-from", &hot(&serving), "--peer", "server"]).code(2));
        assert!(told.contains("a.txt is damaged") && told.contains(word), "{told}");
        assert!(told.contains(&format!("{}/{DAY}/a.txt", hot(&serving))), "{told}");
    };
    assert_eq!(theirs.damage(format!("{BYTES}: a.txt").as_bytes()), 1);
    verify("damaged there, too");
    fs::write(root.join(DAY).join("a.txt"), "somebody wrote to it").unwrap();
    verify("changed there, and not looked at since");
    // Looked at there, and not here.
    let other = server.folder("other").display().to_string();
    driftless().args(["sync", "--batch", &root.display().to_string(), &other]).assert().code(0);
    verify("another version of it stands there");
    fs::remove_file(root.join(DAY).join("a.txt")).unwrap();
    driftless().args(["sync", "--batch", &root.display().to_string(), &other]).assert().code(0);
    verify("no such file is known there");
    let text = fs::read_to_string(disk.path().join(DAY).join("a.txt")).unwrap();
    assert_eq!(text, format!("X{}: a.txt", &BYTES[1..]), "it is left as it is");
}
