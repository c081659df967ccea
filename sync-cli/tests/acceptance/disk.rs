//! File systems that tests mount, and unmount at their end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs, or a folder mounted elsewhere as well; unmounted at the end.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// `None`, said loudly, where mounting is not permitted.
    pub(crate) fn new(at: PathBuf, size: &str) -> Option<Disk> {
        Disk::mount(at, Path::new("tmpfs"), &["-t", "tmpfs", "-o", &format!("size={size}")])
    }

    /// With room for so many files.
    pub(crate) fn with_inodes(at: PathBuf, count: u64) -> Option<Disk> {
        Disk::mount(at, Path::new("tmpfs"), &["-t", "tmpfs", "-o", &format!("nr_inodes={count}")])
    }

    /// A folder at another path as well.
    pub(crate) fn bind(folder: &Path, at: PathBuf) -> Option<Disk> {
        Disk::mount(at, folder, &["--bind"])
    }

    /// A folder that is mounted to be read only.
    pub(crate) fn to_read(folder: &Path, at: PathBuf) -> Option<Disk> {
        let disk = Disk::mount(at, folder, &["--bind"])?;
        disk.remount("bind,ro");
        Some(disk)
    }

    pub(crate) fn mount(at: PathBuf, what: &Path, how: &[&str]) -> Option<Disk> {
        fs::create_dir_all(&at).unwrap();
        let done = Command::new("mount").args(how).arg(what).arg(&at).output();
        if done.is_ok_and(|out| out.status.success()) {
            return Some(Disk(at));
        }
        eprintln!("SKIPPED: mounting is not permitted here");
        None
    }

    /// A new ext4 in this file of so many MiB.
    pub(crate) fn ext4(image: &Path, mib: u64, at: PathBuf) -> Option<Disk> {
        File::create_new(image).and_then(|file| file.set_len(mib << 20)).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-b", "4096"]).arg(image).output();
        if !made.is_ok_and(|out| out.status.success()) {
            eprintln!("SKIPPED: there is no mkfs.ext4 here");
            return None;
        }
        Disk::image(image, at)
    }

    /// The file system in a file.
    pub(crate) fn image(image: &Path, at: PathBuf) -> Option<Disk> {
        Disk::mount(at, image, &["-o", "loop"])
    }

    /// Unmounts it; nothing of it is in use any more when the call returns.
    pub(crate) fn away(self) {
        assert!(Command::new("umount").arg(&self.0).status().unwrap().success());
    }

    pub(crate) fn remount(&self, options: &str) {
        assert!(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).stderr(std::process::Stdio::null()).status();
    }
}
