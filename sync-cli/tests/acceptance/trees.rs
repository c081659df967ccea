//! Trees that nobody made for a test.

use crate::lab::{Lab, assert_same, run, setting, snapshot};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Copies folders below `from` with all attributes until enough files are there.
fn copy_some(from: &Path, to: &Path, files: u64) -> u64 {
    let mut folders: Vec<PathBuf> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut copied = 0;
    for folder in folders {
        let found = Command::new("find").arg(&folder).args(["-type", "f", "-printf", "x"]).output().unwrap().stdout.len() as u64;
        if copied >= files || found > files {
            continue;
        }
        assert!(Command::new("cp").arg("-a").arg(&folder).arg(to).status().unwrap().success());
        copied += found;
    }
    copied
}

fn files() -> u64 {
    setting("DRIFTLESS_TEST_FILES", 3_000)
}

#[test]
fn a_system_tree_arrives_with_all_its_attributes() {
    let lab = Lab::new();
    let copied = copy_some(Path::new("/usr/share"), &lab.root("a"), files());
    eprintln!("{copied} files of /usr/share");
    lab.sync(&[]).code(0);
    lab.assert_settled();
    assert!(snapshot(&lab.root("b")).len() as u64 >= copied);
}

#[test]
fn halves_of_a_library_on_both_sides_become_the_whole() {
    let Some(library) = ["/usr/lib/python3.11", "/usr/lib/python3.13", "/usr/lib/python3", "/usr/share/perl"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.is_dir())
    else {
        eprintln!("SKIPPED: no library tree on this machine");
        return;
    };
    let lab = Lab::new();
    fs::create_dir(lab.root("whole")).unwrap();
    copy_some(library, &lab.root("whole"), files());
    for root in ["a", "b"] {
        assert!(Command::new("cp").arg("-a").arg(lab.root("whole")).arg(lab.root(root)).status().unwrap().success());
    }
    for (at, path) in snapshot(&lab.root("whole"))
        .into_iter()
        .filter(|(_, held)| held.mode & 0o170_000 == 0o100_000)
        .map(|(p, _)| p)
        .enumerate()
    {
        match at % 3 {
            0 => fs::remove_file(lab.at("a", "whole").join(path)).unwrap(),
            1 => fs::remove_file(lab.at("b", "whole").join(path)).unwrap(),
            _ => {}
        }
    }
    lab.sync(&[]).code(0).without_conflicts();
    lab.assert_settled();
    let content = |root: PathBuf| snapshot(&root).into_iter().map(|(path, held)| (path, held.content)).collect::<Vec<_>>();
    assert!(content(lab.root("whole")) == content(lab.at("a", "whole")));
}

#[test]
fn a_copy_made_by_another_tool_is_recognised() {
    let lab = Lab::new();
    copy_some(Path::new("/usr/share"), &lab.root("a"), files() / 3);
    for entry in fs::read_dir(lab.root("a")).unwrap() {
        assert!(Command::new("cp").arg("-a").arg(entry.unwrap().path()).arg(lab.root("b")).status().unwrap().success());
    }
    lab.sync(&[]).code(0).changed_nothing().without_conflicts();
    lab.assert_settled();
}

fn git(at: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .current_dir(at)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        // Looking must not write the index anew.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .args(["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "gc.auto=0", "-c", "safe.directory=*"])
        .args(args)
        .output()
        .unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// A repository of this workspace's own sources, with two commits that differ in many files.
fn repository(at: &Path) -> (String, String) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::create_dir(at).unwrap();
    git(at, &["init", "-q", "-b", "main"]);
    for folder in ["sync-core", "sync-cli", "fixtures"] {
        assert!(Command::new("cp").arg("-a").arg(sources.join(folder)).arg(at).status().unwrap().success());
    }
    git(at, &["add", "."]);
    git(at, &["commit", "-q", "-m", "one"]);
    let first = git(at, &["rev-parse", "HEAD"]);
    fs::rename(at.join("fixtures"), at.join("renamed")).unwrap();
    fs::remove_dir_all(at.join("sync-core/src/io/scan")).unwrap();
    for path in git(at, &["ls-files", "sync-cli"]).lines().step_by(2) {
        let text = fs::read_to_string(at.join(path)).unwrap();
        fs::write(at.join(path), format!("{text}\nlast line\n")).unwrap();
    }
    git(at, &["add", "-A"]);
    git(at, &["commit", "-q", "-m", "two"]);
    (first, git(at, &["rev-parse", "HEAD"]))
}

fn has_git() -> bool {
    let there = Command::new("git").arg("--version").output().is_ok();
    if !there {
        eprintln!("SKIPPED: git is not installed");
    }
    there
}

#[test]
fn a_checkout_here_and_edits_there_meet_in_one_repository() {
    if !has_git() {
        return;
    }
    let lab = Lab::new();
    let (first, second) = repository(&lab.at("a", "repo"));
    lab.sync(&[]).code(0);
    lab.assert_settled();
    git(&lab.at("a", "repo"), &["checkout", "-q", &first]);
    lab.write("b", "repo/README-new", "from b");
    lab.sync(&["--allow-delete"]).code(0).without_conflicts();
    lab.assert_settled();
    for root in ["a", "b"] {
        assert_eq!(git(&lab.at(root, "repo"), &["rev-parse", "HEAD"]), first);
        assert_eq!(git(&lab.at(root, "repo"), &["status", "--porcelain"]), "?? README-new");
        git(&lab.at(root, "repo"), &["fsck", "--strict"]);
    }
    lab.sync(&["--allow-delete"]).code(0);
    git(&lab.at("b", "repo"), &["checkout", "-q", &second]);
    lab.sync(&["--allow-delete"]).code(0).without_conflicts();
    lab.assert_settled();
    assert_eq!(git(&lab.at("a", "repo"), &["rev-parse", "HEAD"]), second);
    assert_eq!(git(&lab.at("a", "repo"), &["status", "--porcelain"]), "?? README-new");
}

#[test]
fn different_checkouts_on_both_sides_conflict_in_the_index_and_the_winner_is_whole() {
    if !has_git() {
        return;
    }
    let lab = Lab::new();
    let (first, _) = repository(&lab.at("a", "repo"));
    assert!(Command::new("cp").arg("-a").arg(lab.at("a", "repo")).arg(lab.root("b")).status().unwrap().success());
    git(&lab.at("a", "repo"), &["checkout", "-q", &first]);
    lab.write("a", "repo/sync-cli/Cargo.toml", "edited on a");
    lab.write("b", "repo/sync-core/Cargo.toml", "edited on b");
    let ran = lab.sync(&[]);
    assert!(ran.code(1).count("conflicts") > 1, "{}", ran.stdout());
    lab.assert_quiet("a", "b", 1, &[]);
    let before = snapshot(&lab.root("a"));
    run(lab.command("a", "b").args(["--force", "a", "--allow-delete"])).code(0);
    assert!(snapshot(&lab.root("a")) == before, "the forced side changed");
    lab.assert_settled();
    assert_eq!(git(&lab.at("b", "repo"), &["rev-parse", "HEAD"]), first);
    assert_same(&lab.root("a"), &lab.root("b"));
}
