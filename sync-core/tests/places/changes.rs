//! Changes in placed directories, made here and elsewhere.

use super::NOTHING;
use super::lab::{DAYS, Lab, rel, tree, write};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use sync_core::io::sync::Replica;

/// Every kind of change below a day.
fn change_everything(root: &std::path::Path, day: &str) {
    let at = |path: &str| root.join(day).join(path);
    write(root, &format!("{day}/a.txt"), "second, and longer");
    fs::remove_file(at("b.txt")).unwrap();
    fs::set_permissions(at("c.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(at("sub/deep"), at("sub/renamed")).unwrap();
    fs::rename(at("sub/e.txt"), at("e.txt")).unwrap();
    write(root, &format!("{day}/new/in/it"), "new");
    fs::remove_file(at("link")).unwrap();
    std::os::unix::fs::symlink("c.txt", at("link")).unwrap();
    fs::set_permissions(root.join(day), fs::Permissions::from_mode(0o750)).unwrap();
    // As mv does it, where one may be elsewhere than the other.
    fs::copy(root.join("beside"), at("beside")).unwrap();
    fs::remove_file(root.join("beside")).unwrap();
}

#[test]
fn changes_of_others_are_staged_and_kept_in_the_cold_root() {
    for lab in [Lab::new(), Lab::on_one()] {
        lab.place(DAYS[0]);
        change_everything(&lab.a(), DAYS[0]);
        lab.synchronise();
        assert!(lab.is_link(DAYS[0]));
        assert_eq!(fs::read_to_string(lab.cold().join(DAYS[0]).join("a.txt")).unwrap(), "second, and longer");
        assert!(lab.kept_cold().len() >= 3, "{:?}", lab.kept_cold());
        assert_eq!(lab.staged(), Vec::<std::path::PathBuf>::new());
        assert_eq!(lab.synchronise(), NOTHING);
        let mut replica = Replica::open(&lab.b(), None).unwrap();
        replica.restore(&rel("2026/03/05/a.txt"), None).unwrap();
        replica.restore(&rel("2026/03/05/b.txt"), None).unwrap();
        drop(replica);
        lab.synchronise();
        assert_eq!(fs::read_to_string(lab.a().join("2026/03/05/a.txt")).unwrap(), "first 2026/03/05 a.txt");
        assert!(lab.is_link(DAYS[0]));
    }
}

#[test]
fn changes_through_the_link_travel() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    change_everything(&lab.b(), DAYS[0]);
    lab.synchronise();
    assert!(lab.is_link(DAYS[0]));
    assert_eq!(fs::read_to_string(lab.a().join("2026/03/05/new/in/it")).unwrap(), "new");
    assert_eq!(lab.synchronise(), NOTHING);
}

#[test]
fn both_sides_may_change_one_file_of_a_placed_day() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    write(&lab.a(), "2026/03/05/a.txt", "a's");
    write(&lab.b(), "2026/03/05/a.txt", "b's own");
    lab.synchronise();
    let bytes: Vec<String> = tree(&lab.b()).into_iter().map(|(_, what)| what).collect();
    assert!(["a's", "b's own"].iter().all(|wanted| bytes.iter().any(|found| found == wanted)), "{bytes:?}");
    assert!(lab.is_link(DAYS[0]));
}

#[test]
fn a_day_that_a_peer_deletes_goes_with_its_link_and_its_placement() {
    for lab in [Lab::new(), Lab::on_one()] {
        lab.place(DAYS[0]);
        lab.place(DAYS[1]);
        fs::remove_dir_all(lab.a().join(DAYS[0])).unwrap();
        lab.synchronise();
        assert!(lab.b().join(DAYS[0]).symlink_metadata().is_err(), "the link is gone");
        assert!(!lab.cold().join(DAYS[0]).exists());
        assert_eq!(lab.placed(), [DAYS[1]]);
        assert_eq!(lab.kept_cold().len(), 1);
        assert!(lab.kept_cold()[0].join("sub/deep/d.txt").exists());
        assert_eq!(lab.staged(), Vec::<std::path::PathBuf>::new());
        assert_eq!(lab.synchronise(), NOTHING);
    }
}

#[test]
fn a_directory_that_holds_days_goes_day_by_day() {
    let lab = Lab::new();
    DAYS.iter().for_each(|day| lab.place(day));
    write(&lab.a(), "2026/03/07/hot", "hot");
    lab.synchronise();
    fs::remove_dir_all(lab.a().join("2026")).unwrap();
    lab.synchronise();
    assert!(!lab.b().join("2026").exists());
    assert_eq!((lab.placed(), lab.kept_cold().len()), (vec![], 3));
    assert_eq!(lab.synchronise(), NOTHING);
}

#[test]
fn a_day_that_is_emptied_with_something_new_left_in_it_stays_placed() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    fs::remove_dir_all(lab.a().join(DAYS[0])).unwrap();
    write(&lab.b(), "2026/03/05/late", "late");
    lab.synchronise();
    assert!(lab.is_link(DAYS[0]));
    assert_eq!(fs::read_to_string(lab.a().join("2026/03/05/late")).unwrap(), "late");
    assert!(!lab.a().join("2026/03/05/a.txt").exists());
    fs::remove_file(lab.a().join("2026/03/05/late")).unwrap();
    lab.synchronise();
    assert!(lab.is_link(DAYS[0]), "an empty day is still one");
    fs::remove_dir(lab.a().join(DAYS[0])).unwrap();
    lab.synchronise();
    assert!(lab.b().join(DAYS[0]).symlink_metadata().is_err() && !lab.cold().join(DAYS[0]).exists());
    assert_eq!(lab.placed(), Vec::<String>::new());
}

#[test]
fn a_day_or_what_holds_it_that_a_peer_renames_is_copied_and_removed() {
    for (from, to) in [(DAYS[0], "2026/03/05-old"), ("2026/03", "2026/march")] {
        let lab = Lab::new();
        lab.place(DAYS[0]);
        fs::rename(lab.a().join(from), lab.a().join(to)).unwrap();
        lab.synchronise();
        assert!(lab.b().join(from).symlink_metadata().is_err());
        assert!(!lab.cold().join(DAYS[0]).exists());
        assert_eq!(lab.placed(), Vec::<String>::new());
        let links = tree(&lab.b()).into_iter().filter(|(path, _)| lab.is_link(path)).count();
        assert_eq!(links, 3, "only the users' links are left");
        assert_eq!(lab.synchronise(), NOTHING);
    }
}

#[test]
fn something_else_in_the_place_of_an_archived_day_is_refused_and_loses_nothing() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    fs::remove_dir_all(lab.a().join(DAYS[0])).unwrap();
    fs::write(lab.a().join(DAYS[0]), "a file now").unwrap();
    let told = lab.troubled();
    assert!(told.iter().any(|told| told.contains("archived")), "{told:?}");
    assert!(lab.is_link(DAYS[0]) && lab.cold().join("2026/03/05/a.txt").exists());
    assert_eq!(fs::read_to_string(lab.a().join(DAYS[0])).unwrap(), "a file now");
}

/// As in a root without links to directories.
fn lexically(path: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(whole.pop()),
            part => whole.push(part),
        }
    }
    whole
}

#[test]
fn links_that_lead_out_of_a_day_lead_there_from_the_cold_root_too_and_are_told_as_they_were() {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    let links = [
        ("2026/03/05/out", "../06/a.txt", true),
        ("2026/03/05/sub/out", "../../../../beside", true),
        ("2026/03/05/sub/in", "../a.txt", false),
        ("2026/03/05/whole", "/etc/hostname", false),
        ("2026/03/05/new/tree/out", "../../../06", true),
    ];
    fs::create_dir_all(lab.a().join("2026/03/05/new/tree")).unwrap();
    for (path, target, _) in links {
        std::os::unix::fs::symlink(target, lab.a().join(path)).unwrap();
    }
    for _ in 0..2 {
        let report = lab.sync();
        assert!(report.in_sync, "{:?}", report.problems);
        for (path, target, rewritten) in links {
            let here = lab.b().join(path);
            assert_eq!(fs::read_link(lab.a().join(path)).unwrap().to_str(), Some(target));
            assert_eq!(fs::read_link(&here).unwrap().to_str() != Some(target), rewritten, "{path}");
            if rewritten {
                let parent = Path::new(path).parent().unwrap();
                let meant = lab.b().canonicalize().unwrap().join(parent).join(target);
                assert_eq!(here.canonicalize().unwrap(), lexically(&meant), "{path}");
            }
        }
    }
    assert_eq!(lab.sync().totals, NOTHING);
    // An edit of such a link here is what the user wrote.
    fs::remove_file(lab.b().join("2026/03/05/out")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", lab.b().join("2026/03/05/out")).unwrap();
    assert!(lab.sync().in_sync);
    assert_eq!(fs::read_link(lab.a().join("2026/03/05/out")).unwrap().to_str(), Some("../elsewhere"));
}

/// A link in a placed day that leads out of it, in a directory of which the path is told; and where it leads.
const INNER: &str = "2026/03/05/sub/out";
const OUTSIDE: &str = "../../../../beside";

fn with_a_rewritten_link() -> Lab {
    let lab = Lab::new();
    lab.place(DAYS[0]);
    std::os::unix::fs::symlink(OUTSIDE, lab.a().join(INNER)).unwrap();
    assert!(lab.sync().in_sync);
    assert_ne!(fs::read_link(lab.b().join(INNER)).unwrap().to_str(), Some(OUTSIDE));
    lab
}

#[test]
fn a_rewritten_link_that_is_renamed_with_its_directory_is_told_as_it_was() {
    let beside = |lab: &Lab| lab.b().canonicalize().unwrap().join("beside");
    // Here or there, on one level or on another.
    for (to, there, target) in [
        ("2026/03/05/below", true, OUTSIDE),
        ("2026/03/05/below", false, OUTSIDE),
        ("2026/03/05/new/below", false, "../../../../../beside"),
        ("2026/03/05/sub/deep/.moved", false, "../../../../../beside"),
    ] {
        let lab = with_a_rewritten_link();
        let root = if there { lab.a() } else { lab.b() };
        let (from, link) = match to.ends_with(".moved") {
            true => (INNER, to.to_owned()),
            false => ("2026/03/05/sub", format!("{to}/out")),
        };
        fs::create_dir_all(root.join(to).parent().unwrap()).unwrap();
        fs::rename(root.join(from), root.join(to)).unwrap();
        assert!(lab.sync().in_sync);
        for _ in 0..2 {
            assert_eq!(fs::read_link(lab.a().join(&link)).unwrap().to_str(), Some(target), "{to} {there}");
            assert_eq!(lab.b().join(&link).canonicalize().unwrap(), beside(&lab), "{to} {there}");
            assert_eq!(lab.sync().totals, NOTHING, "{to} {there}");
        }
    }
}

#[test]
fn a_rewritten_link_that_leaves_its_day_with_its_directory_reads_as_everywhere() {
    for lab in [Lab::new(), Lab::on_one()] {
        lab.place(DAYS[0]);
        std::os::unix::fs::symlink(OUTSIDE, lab.a().join(INNER)).unwrap();
        assert!(lab.sync().in_sync);
        for (from, to) in [("2026/03/05/sub", "2026/04/01/out"), (DAYS[2], "2026/03/07")] {
            fs::rename(lab.a().join(from), lab.a().join(to)).unwrap();
            assert!(lab.sync().in_sync);
        }
        for root in [lab.a(), lab.b()] {
            assert_eq!(fs::read_link(root.join("2026/03/07/out/out")).unwrap().to_str(), Some(OUTSIDE));
        }
        assert_eq!(lab.sync().totals, NOTHING);
    }
}

#[test]
fn versions_that_were_kept_before_a_day_was_archived_are_restored_to_it() {
    for lab in [Lab::new(), Lab::on_one()] {
        let text = |path: &str| fs::read_to_string(lab.a().join(path)).unwrap();
        write(&lab.a(), "2026/03/05/a.txt", "second, and longer");
        fs::remove_file(lab.a().join("2026/03/05/b.txt")).unwrap();
        fs::remove_dir_all(lab.a().join("2026/03/05/sub")).unwrap();
        lab.synchronise();
        lab.place(DAYS[0]);
        lab.synchronise();
        let paths = ["2026/03/05/a.txt", "2026/03/05/b.txt", "2026/03/05/sub"];
        let mut replica = Replica::open(&lab.b(), None).unwrap();
        for path in paths {
            replica.restore(&rel(path), None).unwrap();
        }
        drop(replica);
        lab.synchronise();
        assert_eq!(text("2026/03/05/a.txt"), "first 2026/03/05 a.txt");
        assert_eq!(text("2026/03/05/b.txt"), "first 2026/03/05 b.txt");
        assert_eq!(text("2026/03/05/sub/deep/d.txt"), "first 2026/03/05 sub/deep/d.txt");
        assert!(lab.is_link(DAYS[0]) && lab.cold().join("2026/03/05/sub/e.txt").exists());
        assert_eq!(lab.staged(), Vec::<PathBuf>::new());
        // What they replaced is kept in turn, and so is restored again.
        let mut replica = Replica::open(&lab.b(), None).unwrap();
        replica.restore(&rel("2026/03/05/a.txt"), None).unwrap();
        drop(replica);
        lab.synchronise();
        assert_eq!(text("2026/03/05/a.txt"), "second, and longer");
    }
}

#[test]
fn what_is_written_late_to_a_version_on_another_file_system_than_its_path_comes_back() {
    use std::io::Write as _;
    for kept_cold in [false, true] {
        let lab = Lab::new();
        if kept_cold {
            lab.place(DAYS[0]);
        }
        let mut late = fs::OpenOptions::new().append(true).open(lab.b().join("2026/03/05/a.txt")).unwrap();
        fs::remove_file(lab.a().join("2026/03/05/a.txt")).unwrap();
        lab.synchronise();
        if kept_cold {
            fs::remove_dir_all(lab.a().join(DAYS[0])).unwrap();
            lab.synchronise();
        } else {
            lab.place(DAYS[0]);
        }
        late.write_all(b", and late").unwrap();
        drop(late);
        lab.synchronise();
        let texts: Vec<String> = tree(&lab.a()).into_iter().map(|(_, text)| text).collect();
        let wanted = "first 2026/03/05 a.txt, and late";
        assert_eq!(texts.iter().filter(|text| *text == wanted).count(), 1, "{kept_cold}: {texts:?}");
        assert_eq!(lab.staged(), Vec::<PathBuf>::new());
        assert_eq!(lab.synchronise(), NOTHING);
    }
}
