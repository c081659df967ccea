//! What is not ours is not touched: what stands in the cold root already, and what a user puts where we are about to work.

use super::tests::{DAY, Lab, day, everything, lab, options, rich};
use super::*;
use crate::io::fs::init_cold;
use crate::io::kill::hook;
use fixtures::namespaces::{in_namespaces, run};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

/// What is told, and what is different.
type Differences<const N: usize> = [(&'static str, fn(&Path)); N];

/// Copies the day to where it would go.
fn copy_to_cold(lab: &Lab) -> PathBuf {
    let copied =
        std::process::Command::new("cp").args(["-a", "--parents", DAY]).arg(lab.cold.path()).current_dir(lab.hot.path()).status();
    assert!(copied.unwrap().success());
    lab.cold.path().join(DAY)
}

#[test]
fn a_day_in_the_cold_root_that_differs_anywhere_is_not_changed_at_all() {
    let differences: Differences<6> = [
        ("holds other bytes", |there| fs::write(there.join("z"), "other").unwrap()),
        ("holds other names", |there| fs::write(there.join("zz"), "more").unwrap()),
        ("another size", |there| fs::write(there.join("z"), "longer than it was").unwrap()),
        ("is something else", |there| {
            fs::remove_file(there.join("z")).unwrap();
            fs::create_dir(there.join("z")).unwrap();
        }),
        ("other extended attributes", |there| {
            rustix::fs::setxattr(there.join("z"), "user.other", b"x", rustix::fs::XattrFlags::empty()).unwrap();
        }),
        ("other extended attributes", |there| {
            rustix::fs::setxattr(there.join("zdir"), "user.other", b"x", rustix::fs::XattrFlags::empty()).unwrap();
        }),
    ];
    for (told, work) in differences {
        let lab = lab(true);
        rich(&lab);
        lab.write("z", b"first");
        fs::create_dir(lab.day().join("zdir")).unwrap();
        let there = copy_to_cold(&lab);
        // What comes before it has other attributes.
        for (name, mode) in [("a.jpg", 0o600), ("sub", 0o700), ("odd \n name", 0o755)] {
            fs::set_permissions(there.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_300_000_000);
        fs::File::open(there.join("a.jpg")).unwrap().set_modified(time).unwrap();
        work(&there);
        let (here_before, before) = (everything(&lab.day()), everything(&there));
        let error = lab.go().unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
        assert_eq!(everything(&there), before, "{told}");
        assert_eq!(everything(&lab.day()), here_before);
    }
}

#[test]
fn names_that_belong_together_otherwise_are_no_copy() {
    let lab = lab(true);
    for name in ["a", "c"] {
        lab.write(name, b"the same bytes");
    }
    fs::hard_link(lab.day().join("a"), lab.day().join("b")).unwrap();
    fs::hard_link(lab.day().join("c"), lab.day().join("d")).unwrap();
    let there = copy_to_cold(&lab);
    for (first, second) in [("a", "c"), ("b", "d")] {
        fs::remove_file(there.join(second)).unwrap();
        fs::hard_link(there.join(first), there.join(second)).unwrap();
    }
    // Now `a` and `b` are each two names, as they were: `a` with `c`, `b` with `d`.
    fs::remove_file(there.join("b")).unwrap();
    fs::remove_file(there.join("d")).unwrap();
    fs::write(there.join("b"), "the same bytes").unwrap();
    fs::hard_link(there.join("b"), there.join("d")).unwrap();
    let error = lab.go().unwrap_err().to_string();
    assert!(error.contains("has other names there"), "{error}");
    assert!(!lab.is_link());
}

#[test]
fn only_a_link_of_ours_is_linked_anew() {
    let works: [fn(&Path); 4] = [
        |day| symlink("/elsewhere", day).unwrap(),
        |day| fs::create_dir(day).unwrap(),
        |day| fs::write(day, "a file").unwrap(),
        |_| (),
    ];
    for (number, work) in works.into_iter().enumerate() {
        for place in ["", "archive-relink-announced"] {
            let lab = lab(true);
            lab.write("a", b"first");
            lab.go().unwrap();
            let archive = lab.archive();
            archive.settle_displaced(i64::MAX).unwrap();
            let path = lab.day();
            let replace = move || {
                fs::remove_file(&path).unwrap();
                work(&path);
            };
            if place.is_empty() {
                replace();
            } else {
                hook::set(move |at| {
                    if at == place {
                        replace();
                    }
                });
            }
            let error = archive.relink(&day(), &LinkForm::Relative);
            hook::clear();
            assert!(error.is_err(), "{number} {place}");
            let stands = lab.day().symlink_metadata().ok().map(|now| (now.is_symlink(), now.is_dir()));
            assert_eq!(
                stands,
                [Some((true, false)), Some((false, true)), Some((false, false)), None][number],
                "{number} {place}"
            );
            assert!(stands.is_none_or(|(link, _)| !link) || fs::read_link(lab.day()).unwrap() == Path::new("/elsewhere"));
            assert_eq!(fs::read_dir(lab.hot.path().join(".driftless/archive")).unwrap().count(), 0, "{number} {place}");
            let placement = lab.root.places().get(&day()).cloned().unwrap();
            assert!(placement.other_link.is_none() && placement.link.starts_with(b"/"));
        }
    }
}

#[test]
fn what_a_crash_left_of_another_link_text_goes_back_to_its_place() {
    // The process dies between the exchange and the look at what came out, which is what a user had put there.
    let lab = lab(true);
    lab.write("a", b"first");
    lab.go().unwrap();
    let archive = lab.archive();
    dies_with_a_users_directory(&lab, ("archive-relink-announced", "archive-relink-exchanged"), || {
        drop(archive.relink(&day(), &LinkForm::Relative));
    });
    assert!(lab.is_link());
    let recovered = archive.recover().unwrap();
    assert!(recovered.problems.is_empty(), "{recovered:?}");
    assert_is_merged(&lab, &archive);
}

/// A user puts a directory in the place of the link at one place of what is done, and the process dies at another.
fn dies_with_a_users_directory(lab: &Lab, (put, dies): (&'static str, &'static str), act: impl FnOnce()) {
    let path = lab.day();
    hook::set(move |at| {
        if at == put {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            fs::write(path.join("mine"), "mine").unwrap();
        }
        assert!(at != dies, "dies");
    });
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
    hook::clear();
    assert!(died.is_err(), "{dies} was not reached");
}

/// The user's directory stands at the path, and is one with the archived day once they are merged.
fn assert_is_merged(lab: &Lab, archive: &Archive<'_>) {
    let read = |name: &str| fs::read_to_string(lab.day().join(name)).unwrap();
    assert_eq!(read("mine"), "mine");
    archive.merge_anew(&day(), Duration::ZERO).unwrap().unwrap();
    assert_eq!((read("mine").as_str(), read("a").as_str()), ("mine", "first"));
}

#[test]
fn a_users_directory_that_an_exchange_brought_out_is_given_back_after_a_crash() {
    let lab = lab(true);
    lab.write("a", b"first");
    lab.go().unwrap();
    let archive = lab.archive();
    archive.settle_displaced(i64::MAX).unwrap();
    dies_with_a_users_directory(&lab, ("archive-restore-before-exchange", "archive-restore-exchanged"), || {
        drop(archive.restore_day(&day(), Duration::ZERO));
    });
    let recovered = archive.recover().unwrap();
    assert!(recovered.problems.is_empty() && recovered.given_up.len() == 1, "{recovered:?}");
    archive.settle_displaced(i64::MAX).unwrap();
    assert!(lab.root.dir(&day()).unwrap_err().unavailable().is_some(), "the day is in the archive");
    assert_is_merged(&lab, &archive);
}

#[test]
fn what_stands_in_the_place_of_an_old_day_is_not_removed() {
    let lab = lab(true);
    lab.write("a", b"first");
    lab.go().unwrap();
    let archive = lab.archive();
    let journal = lab.hot.path().join(".driftless/archive");
    let job = fs::read_dir(&journal).unwrap().next().unwrap().unwrap().path();
    fs::rename(job.join("swap"), lab.hot.path().join("aside")).unwrap();
    fs::create_dir(job.join("swap")).unwrap();
    fs::write(job.join("swap/mine"), "mine").unwrap();
    let mut removed = 0;
    for _ in 0..3 {
        removed += archive.settle_displaced(i64::MAX).unwrap().removed;
    }
    assert_eq!(removed, 0);
    assert_eq!(fs::read_to_string(job.join("swap/mine")).unwrap(), "mine");
}

#[test]
fn a_link_that_was_changed_stays_when_the_day_comes_back_and_one_that_reads_as_a_rewritten_one_means_the_same() {
    let lab = lab(true);
    lab.write("sub/a", b"first");
    fs::write(lab.hot.path().join("shared"), "shared bytes").unwrap();
    symlink("../../../../shared", lab.day().join("sub/out")).unwrap();
    symlink("../../../../shared", lab.day().join("sub/edited")).unwrap();
    lab.go_with(&MoveOptions { rewrite: true, ..options() }).unwrap();
    // Beside it, with the very text that the rewritten one has; and an edit of a rewritten one.
    let text = fs::read_link(lab.day().join("sub/out")).unwrap();
    symlink(&text, lab.day().join("sub/mine")).unwrap();
    fs::remove_file(lab.day().join("sub/edited")).unwrap();
    symlink("/edited", lab.day().join("sub/edited")).unwrap();
    lab.archive().restore_day(&day(), Duration::ZERO).unwrap();
    let of = |name: &str| fs::read_link(lab.day().join("sub").join(name)).unwrap();
    assert_eq!(of("out"), Path::new("../../../../shared"));
    // Everywhere else it is known as what the rewritten one stands for.
    assert_eq!((of("mine"), of("edited")), (PathBuf::from("../../../../shared"), PathBuf::from("/edited")));
}

#[test]
fn a_cold_root_in_a_folder_that_is_synchronised_is_refused() {
    let lab = lab(false);
    let other = tempfile::tempdir().unwrap();
    let inside = other.path().join("deep/cold");
    fs::create_dir_all(&inside).unwrap();
    init_cold(&inside).unwrap();
    let archive = lab.archive();
    fs::create_dir_all(other.path().join(".driftless")).unwrap();
    // A folder of that name alone is none, nor is a cold root around.
    check_cold(lab.hot.path(), &inside).unwrap();
    fs::write(other.path().join(".driftless/marker"), "of a root").unwrap();
    let through = lab.hot.path().with_extension("way");
    symlink(&inside, &through).unwrap();
    for path in [&inside, &through] {
        for error in [
            check_cold(lab.hot.path(), path).unwrap_err().to_string(),
            archive.cold(path).unwrap_err().to_string(),
            init_cold(path).unwrap_err().to_string(),
        ] {
            assert!(
                error.contains("synchronised") && error.contains(&*other.path().file_name().unwrap().to_string_lossy()),
                "{error}"
            );
        }
    }
    fs::remove_file(&through).unwrap();
    let fresh = other.path().join("fresh");
    fs::create_dir(&fresh).unwrap();
    assert!(init_cold(&fresh).is_err() && init_cold(other.path()).is_err());
    assert_eq!(fs::read_dir(&fresh).unwrap().count(), 0);
    assert!(lab.root.places().colds().is_empty());
}

#[test]
fn nothing_is_removed_through_a_mount() {
    in_namespaces("io::archive::tests_guards::nothing_is_removed_through_a_mount", |folder| {
        let lab = lab(false);
        lab.write("a", b"first");
        lab.write("sub/b", b"first");
        let precious = folder.join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("kept"), "kept").unwrap();
        // On the same file system, so that device numbers tell nothing.
        lab.write("out", b"");
        fs::remove_file(lab.day().join("out")).unwrap();
        symlink("../../../elsewhere", lab.day().join("out")).unwrap();
        lab.go_with(&MoveOptions { rewrite: true, ..options() }).unwrap();
        let archive = lab.archive();
        let job = fs::read_dir(lab.hot.path().join(".driftless/archive")).unwrap().next().unwrap().unwrap().path();
        let below = job.join("swap/sub");
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        run("mount", &["--bind", &precious.to_string_lossy(), &below.to_string_lossy()]);
        assert_eq!(device(&below), device(&job));
        for _ in 0..2 {
            let settled = archive.settle_displaced(i64::MAX).unwrap();
            assert_eq!((settled.removed, settled.problems.len()), (0, 1), "{settled:?}");
            assert!(settled.problems[0].1.to_string().contains("mounted"), "{}", settled.problems[0].1);
        }
        assert_eq!(fs::read_to_string(precious.join("kept")).unwrap(), "kept");
        assert!(!lab.day().join("sub/kept").exists(), "nor brought over");
        run("umount", &[&below.to_string_lossy()]);
        assert_eq!(archive.settle_displaced(i64::MAX).unwrap().removed, 1);
        let tree = folder.join("tree/sub");
        fs::create_dir_all(&tree).unwrap();
        run("mount", &["--bind", &precious.to_string_lossy(), &tree.to_string_lossy()]);
        let error = walk::remove_tree(&Root::open(folder).unwrap().hot(&RelPath::root()).unwrap(), b"tree").unwrap_err();
        assert!(error.to_string().contains("mounted"), "{error}");
        assert_eq!(fs::read_to_string(precious.join("kept")).unwrap(), "kept");
    });
}
