//! The command line itself: help, mistakes, completions, manual pages, broken outputs.

use crate::pair::{Pair, driftless, stderr, stdout};
use std::fs::File;
use std::process::{Command, Stdio};

const COMMANDS: [&str; 15] = [
    "sync",
    "watch",
    "status",
    "conflicts",
    "resolve",
    "versions",
    "restore",
    "serve",
    "id",
    "peer",
    "pair",
    "agent",
    "doctor",
    "completions",
    "man",
];

#[test]
fn mistakes_exit_with_64() {
    for args in [
        &[][..],
        &["frobnicate"],
        &["sync"],
        &["sync", "--batch", "a"],
        &["sync", "--batch", "a", "b", "c"],
        &["sync", "--no-such-option", "a", "b"],
        &["sync", "--batch", "--conflicts", "newest", "a", "b"],
        &["sync", "--batch", "--conflicts", "newer", "--force", "a", "a", "b"],
        &["sync", "--batch", "--force", "c", "a", "b"],
        &["sync", "--batch", "", "b"],
        &["watch", "--dry-run", "a", "b"],
        &["sync", "--batch", "--no-perms", "a", "b"],
        &["resolve", "a", "x"],
        &["resolve", "a", "--keep", "local"],
        &["sync", "--batch", "--peer", "web2", "a", "b"],
        &["sync", "--batch", "--peer", "web2", "quic://h/f", "quic://h/g"],
        &["serve", "--listen", "127.0.0.1:0"],
        &["serve", "--root", "hot=/srv"],
        &["serve", "--listen", "127.0.0.1:0", "--root", "/srv"],
        &["serve", "--listen", "127.0.0.1:0", "--root", "hot=/srv", "--root", "hot=/other"],
        &["serve", "--listen", "localhost", "--root", "hot=/srv"],
        &["restore", "a"],
        &["restore", "a", "x", "--version", "one"],
        &["completions", "tcsh"],
    ] {
        let assert = driftless().args(args).assert().code(64);
        assert!(stdout(&assert).is_empty() && !stderr(&assert).is_empty(), "{args:?}");
    }
}

#[test]
fn what_is_true_anyway_may_be_said() {
    let pair = Pair::synced(&["x"]);
    for args in [
        &["sync", "--batch", "--perms", "--times"][..],
        &["status", "--batch", "--dry-run", "--perms", "--times"],
        &["status", "-n"],
    ] {
        driftless().args(args).args([pair.root("a"), pair.root("b")]).assert().code(0);
    }
    // That there are no such roots is found once the command line was understood.
    let missing = [pair.root("missing"), pair.root("gone")];
    driftless().args(["watch", "--batch", "--perms", "--times"]).args(missing).assert().code(3);
}

#[test]
fn help_and_version_exit_with_0() {
    for args in [&["--help"][..], &["-h"], &["--version"], &["help", "sync"]] {
        assert!(!stdout(&driftless().args(args).assert().code(0)).is_empty());
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in COMMANDS {
        for help in ["-h", "--help"] {
            let text = stdout(&driftless().args([command, help]).assert().code(0));
            assert!(text.contains("Example") && text.contains(&format!("  driftless {command}")), "{text}");
        }
    }
}

#[test]
fn a_root_that_makes_no_sense_is_refused_with_a_reason() {
    for (root, word) in [
        ("http://host/hot", "quic:// and ssh:// are known"),
        ("quic://host:4477", "names no folder"),
        ("quic://host/../x", "no name"),
        ("ssh://-oProxyCommand=x/srv", "no such host"),
        ("-oProxyCommand=x:y", "unexpected argument"),
        ("host:", "./host:"),
    ] {
        for args in [["sync", "--batch", root, "b"], ["status", "b", root, "--json"]] {
            let text = stderr(&driftless().args(args).assert().code(64));
            assert!(text.contains(word), "{root}: {text}");
        }
    }
}

#[test]
fn a_command_for_one_root_takes_none_of_another_machine() {
    for root in ["ssh://host/srv", "quic://host:4477/hot", "me@host:srv", "host:/srv"] {
        for args in [&["conflicts", root][..], &["versions", root], &["restore", root, "x"]] {
            let text = stderr(&driftless().args(args).assert().code(64));
            assert!(text.contains("on another machine"), "{text}");
        }
    }
}

#[test]
fn a_path_outside_of_the_root_is_refused_with_a_reason() {
    for (path, word) in [("/etc", "absolute"), ("../x", "`..`"), ("a/../../x", "`..`"), ("", "empty")] {
        for args in [
            &["sync", "--batch", "--path", path, "a", "b"][..],
            &["restore", "a", path],
            &["versions", "a", path],
            &["resolve", "a", path, "--keep", "both"],
        ] {
            let text = stderr(&driftless().args(args).assert().code(64));
            assert!(text.contains(word), "{args:?}: {text}");
        }
    }
}

#[test]
fn a_limit_or_a_duration_that_makes_no_sense_is_refused() {
    for (option, value) in [
        ("--max-delete", "many"),
        ("--max-delete", "101%"),
        ("--max-delete", "-1"),
        ("--keep-versions", "7"),
        ("--keep-versions", "a week"),
        ("--keep-versions", "0s"),
    ] {
        driftless().args(["sync", "--batch", &format!("{option}={value}"), "a", "b"]).assert().code(64);
    }
}

#[test]
fn without_a_terminal_a_question_is_refused() {
    let text = stderr(&driftless().args(["sync", "a", "b"]).assert().code(64));
    assert!(text.contains("--batch") && text.contains("--dry-run"), "{text}");
    let text = stderr(&driftless().args(["sync", "--json", "a", "b"]).assert().code(64));
    assert!(text.contains("--batch"), "{text}");
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&driftless().args(["completions", shell]).assert().code(0));
        for command in COMMANDS {
            assert!(script.contains(command), "{shell} {command}");
        }
    }
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    assert!(stdout(&driftless().arg("man").assert().code(0)).contains(".TH driftless 1"));
    let dir = tempfile::tempdir().unwrap();
    driftless().args(["man", "--dir"]).arg(dir.path()).assert().code(0);
    assert!(dir.path().join("driftless.1").is_file());
    for command in COMMANDS {
        assert!(dir.path().join(format!("driftless-{command}.1")).is_file(), "{command}");
    }
    let missing = dir.path().join("missing");
    let text = stderr(&driftless().args(["man", "--dir"]).arg(&missing).assert().code(3));
    assert!(text.contains("missing"), "{text}");
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_driftless"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_driftless")).args(["completions", "bash"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write the result"));
}
