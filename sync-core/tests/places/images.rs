//! Cold disks that are brought back from an image: with the inodes and the stamps that they had, and older than what is known of them.

use super::NOTHING;
use super::lab::{DAYS, Lab, tree, write};
use fixtures::namespaces::{in_mounts, run};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use sync_core::io::sync::Replica;
use tempfile::TempDir;

const TOLD: &str = "is older than what is known of it";

/// A disk in a file, mounted at the place of a cold root.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn make(folder: &Path, at: &Path) -> Disk {
        let disk = Disk { image: folder.join("disk"), at: at.to_owned() };
        fs::File::create(&disk.image).unwrap().set_len(32 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", disk.image.to_str().unwrap()]);
        disk.mount();
        fs::remove_dir(at.join("lost+found")).unwrap();
        disk
    }

    fn mount(&self) {
        run("mount", &["-o", "loop", self.image.to_str().unwrap(), self.at.to_str().unwrap()]);
    }

    /// Something is done to the image while it is not mounted.
    fn unmounted(&self, act: impl FnOnce(&Path)) {
        run("umount", &[self.at.to_str().unwrap()]);
        act(&self.image);
        self.mount();
    }

    fn save(&self, to: &Path) {
        self.unmounted(|image| assert!(fs::copy(image, to).is_ok()));
    }

    fn bring_back(&self, from: &Path) {
        self.unmounted(|image| assert!(fs::copy(from, image).is_ok()));
    }
}

fn with_disk(test: impl FnOnce(&Lab, &Disk, &Path)) {
    let (cold, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let disk = Disk::make(folder.path(), cold.path());
    let lab = Lab::with_cold(cold);
    lab.place(DAYS[0]);
    assert_eq!(lab.synchronise(), NOTHING);
    test(&lab, &disk, folder.path());
    run("umount", &[disk.at.to_str().unwrap()]);
}

fn is_older(lab: &Lab) {
    let (before, knows) = (tree(&lab.a()), lab.knows());
    for _ in 0..2 {
        let told = lab.troubled();
        assert!(told.iter().any(|problem| problem.contains(TOLD) && problem.contains("archive claim")), "{told:?}");
        assert_eq!((tree(&lab.a()), lab.knows()), (before.clone(), knows));
    }
}

fn claim(lab: &Lab) {
    assert_eq!(Replica::open(&lab.b(), None).unwrap().claim(None).unwrap().0, [lab.cold()]);
}

/// All files of a tree that have these bytes.
fn with_bytes(tree: &[(String, String)], bytes: &str) -> usize {
    tree.iter().filter(|(_, what)| what == bytes).count()
}

#[test]
fn a_cold_disk_from_an_older_image_deletes_and_edits_nothing_elsewhere() {
    in_mounts("images::a_cold_disk_from_an_older_image_deletes_and_edits_nothing_elsewhere", |_folder| {
        // What came from the other side, and what a user did here.
        for here in [false, true] {
            with_disk(|lab, disk, folder| {
                let (old, new) = (folder.join("old"), folder.join("new"));
                let file = lab.cold().join(DAYS[0]).join("a.txt");
                let ino = file.metadata().unwrap().ino();
                disk.save(&old);
                let root = if here { lab.b() } else { lab.a() };
                write(&root, "2026/03/05/a.txt", "second, and longer");
                write(&root, "2026/03/05/new.txt", "new");
                fs::remove_file(root.join("2026/03/05/c.txt")).unwrap();
                lab.synchronise();
                disk.save(&new);
                disk.bring_back(&old);
                assert_eq!(file.metadata().unwrap().ino(), ino);
                assert!(fs::read_to_string(&file).unwrap().starts_with("first"));
                is_older(lab);
                disk.bring_back(&new);
                assert_eq!(lab.synchronise(), NOTHING, "the newer one is there again");
            });
        }
    });
}

#[test]
fn an_older_cold_disk_that_is_claimed_merges_with_what_others_have() {
    in_mounts("images::an_older_cold_disk_that_is_claimed_merges_with_what_others_have", |_folder| {
        with_disk(|lab, disk, folder| {
            let old = folder.join("old");
            disk.save(&old);
            write(&lab.a(), "2026/03/05/a.txt", "second, and longer");
            write(&lab.a(), "2026/03/05/new.txt", "new");
            fs::remove_file(lab.a().join("2026/03/05/c.txt")).unwrap();
            lab.synchronise();
            disk.bring_back(&old);
            is_older(lab);
            claim(lab);
            let [to_a, to_b] = lab.synchronise();
            assert_eq!((to_a.deleted, to_b.deleted), (0, 0));
            let found = tree(&lab.a());
            for (bytes, count) in
                [("second, and longer", 1), ("first 2026/03/05 a.txt", 1), ("new", 1), ("first 2026/03/05 c.txt", 1)]
            {
                assert_eq!(with_bytes(&found, bytes), count, "{bytes}: {found:?}");
            }
            assert_eq!(lab.placed(), [DAYS[0]]);
            assert!(lab.is_link(DAYS[0]));
            assert_eq!(lab.synchronise(), NOTHING);
        });
    });
}

#[test]
fn each_run_that_records_something_of_a_cold_root_makes_it_newer_and_no_other_does() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    let generation = || {
        let owner = lab.owner();
        owner.lines().find_map(|line| line.strip_prefix("generation ")).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(lab.synchronise(), NOTHING);
    let before = generation();
    write(&lab.a(), "beside", "else");
    lab.synchronise();
    assert_eq!(generation(), before, "nothing there was touched");
    write(&lab.a(), "2026/03/05/a.txt", "second");
    lab.synchronise();
    let pulled = generation();
    assert!(pulled > before);
    write(&lab.b(), "2026/03/05/b.txt", "second, here");
    lab.synchronise();
    assert!(generation() > pulled);
}

#[cfg(feature = "kill-points")]
mod killed {
    use super::super::kills::{killed, killed_claiming};
    use super::*;
    use std::process::Command;
    use sync_core::io::kill::KILL_POINTS;

    /// What is in a cold root is saved aside, and brought back into the same directories and files.
    fn saved(lab: &Lab) -> TempDir {
        let aside = TempDir::new().unwrap();
        mirror(&lab.cold(), aside.path());
        aside
    }

    fn mirror(from: &Path, to: &Path) {
        let from = format!("{}/", from.display());
        let done = Command::new("rsync").args(["-aI", "--inplace", "--delete"]).arg(from).arg(to).status();
        assert!(done.unwrap().success());
    }

    fn changed() -> (Lab, TempDir) {
        let lab = Lab::new();
        lab.place(DAYS[0]);
        assert_eq!(lab.synchronise(), NOTHING);
        let old = saved(&lab);
        write(&lab.a(), "2026/03/05/a.txt", "second, and longer");
        write(&lab.a(), "2026/03/05/sub/new.txt", "new");
        fs::remove_file(lab.a().join("2026/03/05/c.txt")).unwrap();
        write(&lab.b(), "2026/03/05/b.txt", "second, here");
        (lab, old)
    }

    #[test]
    fn an_older_cold_root_after_a_kill_anywhere_deletes_and_edits_nothing_elsewhere() {
        let mut reached = Vec::new();
        for place in KILL_POINTS {
            let (lab, old) = changed();
            if !killed(lab.folder(), place, 1) {
                continue;
            }
            reached.push(*place);
            // What was changed here had no way out yet, or has arrived.
            let of_others = || tree(&lab.a()).into_iter().filter(|(path, _)| !path.contains("b.txt")).collect::<Vec<_>>();
            let before = of_others();
            mirror(old.path(), &lab.cold());
            lab.sync();
            assert_eq!(of_others(), before, "{place}");
        }
        for place in ["cold-raised", "cold-raise-remembered", "batch-swapped", "finish-committed"] {
            assert!(reached.contains(&place), "{place} was not reached: {reached:?}");
        }
    }

    #[test]
    fn a_cold_root_is_never_older_for_a_kill_between_its_generation_and_its_rows() {
        for (place, nth) in [("cold-raised", 1), ("cold-raised", 2), ("cold-raise-remembered", 1), ("cold-raise-remembered", 2)] {
            let (lab, _old) = changed();
            assert!(killed(lab.folder(), place, nth), "{place} {nth}");
            lab.synchronise();
            assert_eq!(lab.synchronise(), NOTHING, "{place} {nth}");
        }
    }

    #[test]
    fn a_claim_that_is_killed_is_made_again() {
        let (lab, old) = changed();
        lab.synchronise();
        mirror(old.path(), &lab.cold());
        is_older(&lab);
        let before = tree(&lab.a());
        assert!(killed_claiming(lab.folder(), "claim-forgotten", 1));
        let told = lab.troubled();
        assert!(told.iter().any(|problem| problem.contains(TOLD)), "{told:?}");
        assert_eq!(tree(&lab.a()), before);
        claim(&lab);
        let [to_a, to_b] = lab.synchronise();
        assert_eq!((to_a.deleted, to_b.deleted), (0, 0));
        assert_eq!(with_bytes(&tree(&lab.a()), "second, and longer"), 1);
        assert_eq!(lab.synchronise(), NOTHING);
    }
}
