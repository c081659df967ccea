//! The question on a terminal. `script` of util-linux is the terminal: what is written to it is typed, and what it
//! prints is what a user would see.

use crate::pair::Pair;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

/// A `sync` on a terminal.
struct Terminal {
    child: Child,
    seen: String,
    /// How much of it was waited for.
    read: usize,
}

impl Terminal {
    fn sync(pair: &Pair, args: &[&str]) -> Terminal {
        let root = |name: &str| pair.root(name).to_string_lossy().into_owned();
        let line = format!("exec '{}' sync {} '{}' '{}'", env!("CARGO_BIN_EXE_driftless"), args.join(" "), root("a"), root("b"));
        let child = Command::new("timeout")
            .args(["--foreground", "600", "script", "--quiet", "--return", "--flush", "--command", &line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm")
            .env_remove("DRIFTLESS_HOME")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script, of the Debian package bsdutils, is the terminal of these tests");
        Terminal { child, seen: String::new(), read: 0 }
    }

    /// Reads until the question, or the next one, stands there.
    fn until(&mut self, text: &str) {
        let mut bytes = [0; 1024];
        let found = loop {
            if let Some(at) = self.seen[self.read..].find(text) {
                break at;
            }
            let count = self.child.stdout.as_mut().unwrap().read(&mut bytes).unwrap();
            assert!(count > 0, "the terminal was closed before {text:?}: {}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        };
        self.read += found + text.len();
    }

    fn typed(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// What was seen, and the exit code.
    fn end(mut self) -> (String, Option<i32>) {
        let mut rest = Vec::new();
        self.child.stdout.as_mut().unwrap().read_to_end(&mut rest).unwrap();
        self.seen.push_str(&String::from_utf8_lossy(&rest));
        let code = self.child.wait().unwrap().code();
        (self.seen, code)
    }
}

/// One file to create and one conflict.
fn to_ask_about() -> Pair {
    let pair = Pair::synced(&["both", "k1", "k2", "k3"]);
    pair.write("a", "new", "1");
    pair.write_at("a", "both", "from a", 10);
    pair.write_at("b", "both", "from b, later", 20);
    pair
}

fn assert_untouched(pair: &Pair) {
    assert_eq!((pair.read("b", "new"), pair.read("b", "both").unwrap()), (None, "from b, later".into()));
    assert_eq!(pair.read("a", "both").unwrap(), "from a");
}

#[test]
fn apply_does_what_was_shown() {
    let pair = Pair::synced(&["k1", "k2"]);
    pair.write("a", "new\x1b[2J", "1");
    let mut terminal = Terminal::sync(&pair, &[]);
    terminal.until("[q]uit?");
    assert!(terminal.seen.contains("create    new\\u{1b}[2J") && terminal.seen.contains("[a]pply all"), "{}", terminal.seen);
    assert_eq!(pair.read("b", "new\x1b[2J"), None, "nothing is done before the answer");
    terminal.typed("a\n");
    let (seen, code) = terminal.end();
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("A → B: 1 created"), "{seen}");
    pair.assert_equal();
}

#[test]
fn apply_leaves_open_conflicts_open() {
    let pair = to_ask_about();
    let mut terminal = Terminal::sync(&pair, &[]);
    terminal.until("[q]uit?");
    assert!(terminal.seen.contains("[a]pply and leave the conflicts open"), "{}", terminal.seen);
    terminal.typed("A\n");
    let (seen, code) = terminal.end();
    assert_eq!(code, Some(1), "{seen}");
    assert_eq!((pair.read("b", "new").unwrap(), pair.read("b", "both").unwrap()), ("1".into(), "from b, later".into()));
}

#[test]
fn apply_without_the_conflicts_decides_none() {
    let pair = to_ask_about();
    let mut terminal = Terminal::sync(&pair, &["--conflicts", "newer"]);
    terminal.until("[q]uit?");
    assert!(terminal.seen.contains("apply [w]ithout the conflicts"), "{}", terminal.seen);
    terminal.typed("w\n");
    let (seen, code) = terminal.end();
    assert_eq!(code, Some(1), "{seen}");
    assert_eq!((pair.read("b", "new").unwrap(), pair.read("a", "both").unwrap()), ("1".into(), "from a".into()));
}

#[test]
fn the_newer_version_or_both_can_be_chosen() {
    for (key, names) in [("n", 5), ("b", 6)] {
        let pair = to_ask_about();
        let mut terminal = Terminal::sync(&pair, &[]);
        terminal.until("[q]uit?");
        terminal.typed(&format!("{key}\n"));
        let (seen, code) = terminal.end();
        assert_eq!(code, Some(0), "{seen}");
        pair.assert_equal();
        assert_eq!((pair.read("a", "both").unwrap(), pair.names("a").len()), ("from b, later".into(), names), "{key}");
    }
}

#[test]
fn the_plan_that_is_asked_about_tells_what_keeping_both_changes() {
    let pair = to_ask_about();
    let mut terminal = Terminal::sync(&pair, &["--conflicts", "keep-both"]);
    terminal.until("[q]uit?");
    assert!(terminal.seen.contains("A → B: 2 to create; B → A: 1 to create, 1 to update; "), "{}", terminal.seen);
    terminal.typed("q\n");
    assert_eq!(terminal.end().1, Some(1));
    assert_untouched(&pair);
}

#[test]
fn quit_changes_nothing() {
    let pair = to_ask_about();
    let mut terminal = Terminal::sync(&pair, &[]);
    terminal.until("[q]uit?");
    terminal.typed("q\n");
    let (seen, code) = terminal.end();
    assert_eq!(code, Some(1), "{seen}");
    assert!(seen.contains("nothing was changed"), "{seen}");
    assert_untouched(&pair);
}

#[test]
fn ctrl_c_at_the_question_ends_at_once_and_changes_nothing() {
    let pair = to_ask_about();
    let mut terminal = Terminal::sync(&pair, &[]);
    terminal.until("[q]uit?");
    terminal.typed("\x03");
    let (seen, code) = terminal.end();
    assert_eq!(code, Some(130), "{seen}");
    assert_untouched(&pair);
    pair.sync(&["--conflicts", "newer"]).code(0);
    pair.assert_equal();
}

#[test]
fn there_is_no_default_an_empty_line_or_another_word_asks_again_and_the_end_of_the_input_changes_nothing() {
    let pair = to_ask_about();
    let mut terminal = Terminal::sync(&pair, &[]);
    terminal.until("[q]uit?");
    for answer in ["\n", "yes\n"] {
        terminal.typed(answer);
        terminal.until("please answer with one of the letters in brackets");
        terminal.until("[q]uit?");
    }
    terminal.typed("\x04");
    let (seen, code) = terminal.end();
    assert_eq!(code, Some(1), "{seen}");
    assert!(seen.contains("nothing was changed"), "{seen}");
    assert_untouched(&pair);
}
