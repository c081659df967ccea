//! Days that are made anew beside their archive.

use super::tests::{DAY, Lab, day, lab};
use super::*;
use crate::io::kill::hook;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

const KEEP: Duration = Duration::from_secs(3600);

/// An archived day, whose link was taken away by a user who made a directory.
fn made_anew(other_disk: bool) -> Lab {
    let lab = lab(other_disk);
    for (name, bytes) in [("old", "old"), ("same", "same"), ("both", "archived"), ("sub/deep", "deep"), ("file", "a file")] {
        lab.write(name, bytes.as_bytes());
    }
    lab.go().unwrap();
    lab.archive().settle_displaced(i64::MAX).unwrap();
    fs::remove_file(lab.day()).unwrap();
    for (name, bytes) in
        [("new", "new"), ("same", "same"), ("both", "made anew"), ("sub/too", "too"), ("file/inside", "below"), ("late", "l")]
    {
        lab.write(name, bytes.as_bytes());
    }
    lab
}

/// Contents by name, with the dates taken out of the names of conflict copies.
fn shown(lab: &Lab) -> BTreeMap<String, String> {
    let walk = walkdir::WalkDir::new(lab.day()).follow_root_links(true).into_iter().map(Result::unwrap);
    walk.filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let name = entry.path().strip_prefix(lab.day()).unwrap().display().to_string();
            let name = match name.split_once(".conflict-late-") {
                Some((stem, rest)) => format!("{stem}!{}", rest.split_once('/').map_or("", |(_, below)| below)),
                None => name,
            };
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

/// What is there when both are one again.
fn wanted() -> BTreeMap<String, String> {
    [
        ("old", "old"),
        ("same", "same"),
        ("both", "archived"),
        ("both!", "made anew"),
        ("sub/deep", "deep"),
        ("sub/too", "too"),
        ("file", "a file"),
        ("file!inside", "below"),
        ("new", "new"),
        ("late", "l"),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes.to_owned()))
    .into()
}

#[test]
fn a_day_made_anew_is_one_with_its_archive_and_nothing_is_overwritten() {
    for other_disk in [true, false] {
        let lab = made_anew(other_disk);
        let archive = lab.archive();
        assert!(lab.root.dir(&day()).unwrap_err().unavailable().is_some(), "until then neither half is taken for the whole");
        let same = fs::metadata(lab.cold.path().join(DAY).join("same")).unwrap().ino();
        let merged = archive.merge_anew(&day(), KEEP).unwrap().unwrap();
        assert_eq!(merged.beside.len(), 1, "{merged:?}");
        assert!(lab.is_link());
        assert_eq!(shown(&lab), wanted());
        assert!(lab.root.dir(&day()).unwrap().is_placed());
        assert_eq!(fs::metadata(lab.day().join("same")).unwrap().ino(), same);
        assert_eq!(archive.merge_anew(&day(), KEEP).unwrap(), None, "and the link is left alone");
        let settled = archive.settle_displaced(i64::MAX).unwrap();
        assert!(settled.problems.is_empty() && settled.removed == 1, "{settled:?}");
        assert_eq!(shown(&lab), wanted());
        lab.assert_clean();
        archive.restore_day(&day(), Duration::ZERO).unwrap();
        assert_eq!(shown(&lab), wanted());
    }
}

#[test]
fn who_works_in_a_day_made_anew_loses_nothing() {
    let lab = made_anew(true);
    let mut open = fs::OpenOptions::new().append(true).open(lab.day().join("new")).unwrap();
    let same = fs::OpenOptions::new().write(true).open(lab.day().join("same")).unwrap();
    let inside = fs::File::open(lab.day()).unwrap();
    let path = lab.day();
    hook::set(move |place| match place {
        // While it is brought over.
        "archive-late-found" if !path.join("during").exists() => fs::write(path.join("during"), "d").unwrap(),
        // And right before the exchange.
        "archive-anew-before-exchange" => fs::write(path.join("late"), "changed").unwrap(),
        _ => {}
    });
    let archive = lab.archive();
    archive.merge_anew(&day(), KEEP).unwrap().unwrap();
    hook::clear();
    let mut wanted = wanted();
    wanted.extend([("during".to_owned(), "d".to_owned()), ("late".to_owned(), "changed".to_owned())]);
    assert_eq!(shown(&lab), wanted);
    // Through what was open.
    open.write_all(b", and more").unwrap();
    same.write_all_at(b"SAME", 0).unwrap();
    let inside = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&inside)));
    fs::write(inside.join("file/more"), "more").unwrap();
    fs::remove_file(inside.join("sub/too")).unwrap();
    fs::remove_file(inside.join("both")).unwrap();
    let settled = archive.settle_displaced(0).unwrap();
    assert!(settled.problems.is_empty(), "{settled:?}");
    for (name, bytes) in [("new", "new, and more"), ("same!", "SAME"), ("file!more", "more")] {
        wanted.insert(name.to_owned(), bytes.to_owned());
    }
    wanted.remove("sub/too");
    assert_eq!(shown(&lab), wanted);
}

#[test]
fn what_goes_from_a_day_made_anew_does_not_go_from_its_archive() {
    let lab = made_anew(true);
    let path = lab.day();
    hook::set(move |place| {
        if place == "archive-anew-brought" {
            // An error at this moment ends the call; the next one goes on with what is there.
            for name in ["same", "both", "new"] {
                let _gone = fs::remove_file(path.join(name));
            }
        }
    });
    let archive = lab.archive();
    archive.merge_anew(&day(), KEEP).unwrap().unwrap();
    hook::clear();
    let mut wanted = wanted();
    wanted.remove("new");
    assert_eq!(shown(&lab), wanted);
}

#[test]
fn a_day_that_is_replaced_while_it_is_merged_stays_and_the_next_run_merges_it() {
    let lab = made_anew(true);
    let path = lab.day();
    hook::set(move |place| {
        if place == "archive-anew-before-exchange" {
            fs::rename(&path, path.with_file_name("away")).unwrap();
            fs::create_dir(&path).unwrap();
            fs::write(path.join("another"), "another").unwrap();
        }
    });
    let archive = lab.archive();
    assert!(matches!(archive.merge_anew(&day(), KEEP), Err(ArchiveError::Changed(_))));
    hook::clear();
    assert!(!lab.is_link());
    assert_eq!(fs::read_to_string(lab.day().join("another")).unwrap(), "another");
    let recovered = archive.recover().unwrap();
    assert!(recovered.problems.is_empty() && recovered.given_up.len() == 1, "{recovered:?}");
    archive.merge_anew(&day(), KEEP).unwrap().unwrap();
    assert_eq!(fs::read_to_string(lab.day().join("another")).unwrap(), "another");
    assert_eq!(fs::read_to_string(lab.day().join("both")).unwrap(), "archived");
    assert_eq!(fs::read_to_string(lab.day().with_file_name("away").join("new")).unwrap(), "new");
}

#[test]
fn what_cannot_be_merged_is_told_and_left_alone() {
    for (told, work) in [
        ("device, pipe or socket", (|day| make_pipe(&day.join("p"))) as fn(&Path)),
        ("another name outside", |day| fs::hard_link(day.join("new"), day.join("../../../elsewhere")).unwrap()),
        ("another root lies there", |day| fs::create_dir(day.join(".driftless")).unwrap()),
    ] {
        let lab = made_anew(true);
        work(&lab.day());
        let error = lab.archive().merge_anew(&day(), KEEP).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
        assert!(!lab.is_link() && lab.day().join("new").exists());
        assert_eq!(fs::read_to_string(lab.cold.path().join(DAY).join("both")).unwrap(), "archived");
    }
    // Another link, a file, nothing: only who put it there knows.
    for (told, stands, work) in [
        ("another link", Some(true), (|day| symlink("/elsewhere", day).unwrap()) as fn(&Path)),
        ("something else", Some(false), |day| fs::write(day, "a file").unwrap()),
        ("link to its archive is gone", None, |_| ()),
    ] {
        let lab = lab(true);
        lab.write("a", b"first");
        lab.go().unwrap();
        fs::remove_file(lab.day()).unwrap();
        work(&lab.day());
        let archive = lab.archive();
        let error = archive.merge_anew(&day(), KEEP).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
        assert!(archive.relink(&day(), &LinkForm::Relative).is_err());
        assert!(archive.restore_day(&day(), KEEP).is_err());
        assert_eq!(lab.day().symlink_metadata().ok().map(|now| now.is_symlink()), stands, "{told}");
        assert_eq!(fs::read_to_string(lab.cold.path().join(DAY).join("a")).unwrap(), "first");
    }
}

fn make_pipe(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
}

#[test]
fn links_out_of_a_day_made_anew_lead_where_they_led() {
    let lab = made_anew(true);
    fs::write(lab.hot.path().join("shared"), "shared bytes").unwrap();
    symlink("../../../../shared", lab.day().join("sub/out")).unwrap();
    symlink("too", lab.day().join("sub/in")).unwrap();
    lab.archive().merge_anew(&day(), KEEP).unwrap().unwrap();
    assert_eq!(fs::read_to_string(lab.day().join("sub/out")).unwrap(), "shared bytes");
    assert_eq!(fs::read_link(lab.day().join("sub/in")).unwrap(), Path::new("too"));
    let sub = lab.root.dir(&RelPath::parse(format!("{DAY}/sub").as_bytes()).unwrap()).unwrap();
    assert_eq!(&*sub.read_link(b"out").unwrap(), b"../../../../shared", "for everybody else");
}

#[test]
fn files_with_several_names_and_attributes_come_as_they_are() {
    let lab = made_anew(true);
    fs::hard_link(lab.day().join("new"), lab.day().join("sub/again")).unwrap();
    fs::create_dir(lab.day().join("made")).unwrap();
    fs::write(lab.day().join("made/x"), "x").unwrap();
    fs::set_permissions(lab.day().join("made"), fs::Permissions::from_mode(0o2750)).unwrap();
    rustix::fs::setxattr(lab.day().join("made"), "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::new(1_100_000_000, 5);
    fs::File::open(lab.day().join("made")).unwrap().set_modified(time).unwrap();
    let archived = fs::metadata(lab.cold.path().join(DAY).join("sub")).unwrap().modified().unwrap();
    lab.archive().merge_anew(&day(), KEEP).unwrap().unwrap();
    let of = |name: &str| fs::metadata(lab.day().join(name)).unwrap();
    assert_eq!((of("new").ino(), of("new").nlink()), (of("sub/again").ino(), 2));
    assert_eq!((of("made").mode() & 0o7777, of("made").modified().unwrap()), (0o2750, time));
    let mut value = [0; 8];
    let size = rustix::fs::getxattr(lab.day().join("made"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..size], b"kept");
    assert_eq!(of("sub").modified().unwrap(), archived, "what is done in a directory of the archive moves no time of it");
}

#[test]
fn a_merge_that_cannot_end_goes_on_later_without_a_second_copy_of_anything() {
    let lab = made_anew(true);
    let path = lab.day();
    // Somebody who never stops writing.
    let count = std::cell::Cell::new(0);
    hook::set(move |place| {
        if place == "archive-late-found" {
            count.set(count.get() + 1);
            fs::write(path.join("busy"), count.get().to_string()).unwrap();
        }
    });
    let archive = lab.archive();
    assert!(matches!(archive.merge_anew(&day(), KEEP), Err(ArchiveError::Changed(_))));
    hook::clear();
    assert!(!lab.is_link());
    assert!(archive.recover().unwrap().problems.is_empty());
    archive.merge_anew(&day(), KEEP).unwrap().unwrap();
    let mut found = shown(&lab);
    let busy = found.remove("busy").unwrap();
    assert_eq!(busy, fs::read_to_string(lab.day().join("busy")).unwrap());
    assert_eq!(found, wanted());
}
