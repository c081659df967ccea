//! A folder as a whole.
#![allow(clippy::disallowed_methods, reason = "the clock from which all else is counted")]

use super::*;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, channel};
use sync_core::entry::Hash;
use sync_core::io::archive::{Damage, Scrub};
use sync_core::path::RelPath;

/// No wait here may take longer, on however busy a machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The name and the configuration of a folder, with more text for it.
fn configured(root: &Path, more: &str) -> (Name, config::Folder) {
    let text = format!("name = \"a\"\n[folders.hot]\npath = \"{}\"\n{more}\n", root.display());
    config::parse(&text, &sync_core::peer::Book::default()).unwrap().folders.into_iter().next().unwrap()
}

/// A folder that is started, and what it says in the log. `known` is asked before its root is opened.
fn started(root: &Path, known: impl Fn(bool) -> bool + Send + Sync + 'static) -> (Folder, Receiver<String>) {
    started_by(root, (None, Clock::default()), false, known)
}

/// The same with days that are archived, or one that is paused.
pub(super) fn started_by(
    root: &Path,
    archive: (Option<config::Archive>, Clock),
    paused: bool,
    known: impl Fn(bool) -> bool + Send + Sync + 'static,
) -> (Folder, Receiver<String>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let setting = Setting {
        own: sync_core::peer::PublicKey::from_bytes([1; 32]).id(),
        begun: Instant::now(),
        log: Arc::new(move |_, line| {
            // A test that has heard enough has gone.
            let _ = tell.lock().unwrap_or_else(PoisonError::into_inner).send(line.to_owned());
        }),
        permits: Arc::new(Permits::new(1)),
        watches: None,
        reserve: Reserve::STANDARD,
        archive,
        paused,
        known: Box::new(known),
    };
    let (name, config) = configured(root, "");
    (Folder::start(name, config, setting, Vec::new()), told)
}

pub(super) fn wait_until(folder: &Folder, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until && !folder.is_over(), "{:?}", folder.shared().state());
        thread::sleep(Duration::from_millis(10));
    }
}

pub(super) fn end(folder: Folder) {
    folder.stop();
    folder.join();
}

#[test]
fn a_panic_is_told_and_the_folder_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let opened = AtomicBool::new(false);
    let (folder, told) = started(dir.path(), move |_| {
        assert!(opened.swap(true, Ordering::Relaxed), "the first time");
        false
    });
    let line = told.recv_timeout(PATIENCE).unwrap();
    assert!(line.contains("ended its work: the first time"), "{line}");
    wait_until(&folder, || folder.shared().state() == status::FolderState::Watching);
    end(folder);
}

#[test]
fn what_a_reload_changes_while_a_root_is_being_opened_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let (tell, told) = channel::<Arc<Shared>>();
    let (told, opened) = (Mutex::new(told), Arc::new(AtomicUsize::new(0)));
    let (count, root) = (Arc::clone(&opened), dir.path().to_owned());
    let (folder, _) = started(dir.path(), move |open| {
        if !open && count.fetch_add(1, Ordering::Relaxed) == 0 {
            let shared = told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            shared.configure(configured(&root, "conflicts = \"newer\"").1);
        }
        false
    });
    tell.send(Arc::clone(folder.shared())).unwrap();
    wait_until(&folder, || opened.load(Ordering::Relaxed) > 1);
    wait_until(&folder, || folder.shared().state() == status::FolderState::Watching);
    end(folder);
}

#[test]
fn a_root_that_something_here_still_has_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, told) = started(dir.path(), |_| false);
    let watching = || folder.shared().live().is_some();
    wait_until(&folder, watching);
    // As somebody who answers a question about a large file.
    let held = folder.shared().live().unwrap();
    folder.shared().configure(configured(dir.path(), "conflicts = \"newer\"").1);
    wait_until(&folder, || folder.shared().live().is_none());
    let ended = thread::spawn(move || drop(held));
    wait_until(&folder, watching);
    ended.join().unwrap();
    let lines: Vec<String> = told.try_iter().filter(|line| line.contains("is held by")).collect();
    assert!(lines.is_empty(), "{lines:?}");
    end(folder);
}

#[test]
fn what_was_found_damaged_until_an_interruption_is_told_beside_what_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, _told) = started(dir.path(), |_| false);
    let shared = Arc::clone(folder.shared());
    wait_until(&folder, || shared.live().is_some());
    let (live, day) = (shared.live().unwrap(), RelPath::parse(b"2026/03/05").unwrap());
    let found = |names: &[&str], why: Option<&str>, (repaired, interrupted): (bool, bool)| {
        let damage = |name: &&str| Damage {
            path: RelPath::parse(format!("{day}/{name}").as_bytes()).unwrap(),
            hash: Hash([1; 32]),
            repaired,
            why: why.map(str::to_owned),
        };
        let found = Scrub { damaged: names.iter().map(damage).collect(), interrupted, ..Scrub::default() };
        shared.found(&live, (&day, &found), &|_| None);
        let mut known: Vec<_> = shared.desk.damaged().into_iter().map(|file| (file.path.to_string(), file.why)).collect();
        known.sort();
        known.into_iter().map(|(path, why)| (path.rsplit('/').next().unwrap().to_owned(), why)).collect::<Vec<_>>()
    };
    let told = |name: &str, why: Option<&str>| (name.to_owned(), why.map(str::to_owned));
    let no = Some("nobody has it");
    assert_eq!(found(&["a", "b"], no, (false, false)), [told("a", no), told("b", no)]);
    assert_eq!(found(&["a", "c"], None, (false, true)), [told("a", no), told("b", no), told("c", None)]);
    assert_eq!(found(&["b"], None, (true, true)), [told("a", no), told("c", None)]);
    assert_eq!(found(&["c"], None, (false, false)), [told("c", None)], "the day was read to its end");
    drop(live);
    end(folder);
}
