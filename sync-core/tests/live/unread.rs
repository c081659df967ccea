//! Files that must be read before anything can be decided of them, and all else that goes on meanwhile.

use super::{Lab, PATIENCE, meet};
use anyhow::{Context as _, Result};
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use sync_core::io::apply::UNREAD;
use sync_core::io::sync::{Live, Member, Read};
use sync_core::path::RelPath;
use sync_core::peer::Mode;
use sync_core::report::{Monitor, Silent};

/// More than a pull reads itself.
const LARGE: u64 = 80 << 20;
/// More than pulls read themselves and remember by name: they read some two thousand each.
const FILES: usize = 6_000;

/// Stands still in the midst of the first file that is read, until it is told to go on.
struct Halting {
    begun: Mutex<Option<Sender<()>>>,
    go_on: Mutex<Receiver<()>>,
}

impl Monitor for Halting {
    fn advance(&self, _files: u64, bytes: u64) {
        let begun = self.begun.lock().expect("no panic while it is held").take();
        if let Some(begun) = begun.filter(|_| bytes > 0) {
            begun.send(()).expect("the test waits for it");
            self.go_on.lock().expect("no panic while it is held").recv_timeout(PATIENCE).expect("it is told to go on");
        }
    }
}

/// Reads what is undecided at `live`; does something else once that has begun, and before it ends.
fn read_while(live: &Live, from: &Member, meanwhile: impl FnOnce() -> Result<()>) -> Result<Read> {
    let (begun, has_begun) = channel();
    let (go, go_on) = channel();
    let halting = Halting { begun: Mutex::new(Some(begun)), go_on: Mutex::new(go_on) };
    thread::scope(|scope| {
        let reading = scope.spawn(|| live.read(from, &halting));
        let done = has_begun.recv_timeout(PATIENCE).context("nothing is read").and_then(|()| meanwhile());
        let _ = go.send(());
        let read = reading.join().expect("reading does not panic")?;
        done.map(|()| read)
    })
}

fn sparse(lab: &Lab, path: &str) -> Result<()> {
    Ok(fs::File::create(lab.root(path))?.set_len(LARGE)?)
}

#[test]
fn while_a_large_file_is_read_small_ones_come_and_go_and_it_is_decided_after_them() -> Result<()> {
    let lab = Lab::new(&["a", "b"])?;
    sparse(&lab, "a/large")?;
    sparse(&lab, "b/large")?;
    lab.write("a/first", "1")?;
    let (a, b) = (lab.open("a")?, lab.open("b")?);
    let [ab, ba] = meet(&a, &b, [Mode::TwoWay; 2], [1, 2])?;
    ba.hears_of(&a)?;
    let brought = b.pull(&ba.member, &Silent)?;
    assert_eq!((brought.unread, brought.whole, brought.totals.created), (1, false, 1), "{brought:?}");
    assert!(brought.problems.is_empty() && brought.totals.failed == 0 && brought.totals.conflicts == 0, "{brought:?}");
    assert_eq!(fs::read_to_string(lab.root("b/first"))?, "1");
    let read = read_while(&b, &ba.member, || {
        // A change there, and one here.
        lab.write("a/small", "2")?;
        a.scan(&[RelPath::parse(b"small")?], &Silent)?;
        ba.hears_of(&a)?;
        let brought = b.pull(&ba.member, &Silent)?;
        assert_eq!((brought.unread, brought.whole, brought.totals.created), (1, false, 1), "{brought:?}");
        assert_eq!(fs::read_to_string(lab.root("b/small"))?, "2");
        lab.write("b/own", "3")?;
        b.scan(&[RelPath::parse(b"own")?], &Silent)?;
        ab.hears_of(&b)?;
        a.pull(&ab.member, &Silent)?;
        assert_eq!(fs::read_to_string(lab.root("a/own"))?, "3");
        assert!(!b.covers(&ba.member)?, "the large file is not decided");
        Ok(())
    })?;
    assert!(read.files == 2 && read.problems.is_empty(), "here and there: {read:?}");
    for (here, end, there) in [(&b, &ba, &a), (&a, &ab, &b)] {
        end.hears_of(there)?;
        let brought = here.pull(&end.member, &Silent)?;
        assert!(brought.whole && brought.unread == 0, "{brought:?}");
        assert_eq!((brought.totals.conflicts, brought.totals.bytes), (0, 0), "{brought:?}");
        assert!(here.covers(&end.member)?);
    }
    assert_eq!(fs::read_dir(lab.root("b"))?.count(), 5, "no conflict copy beside four files and the private folder");
    Ok(())
}

#[test]
fn more_files_than_are_remembered_by_name_are_found_again_and_decided_once_they_are_read() -> Result<()> {
    let lab = Lab::new(&["a", "b"])?;
    for root in ["a", "b"] {
        (0..12).try_for_each(|month| fs::create_dir_all(lab.root(&format!("{root}/2026/{month:02}"))))?;
        for number in 0..FILES {
            lab.write(&format!("{root}/2026/{:02}/{number}", number % 12), &format!("{}", number % 7))?;
        }
    }
    let (a, b) = (lab.open("a")?, lab.open("b")?);
    let [_ab, ba] = meet(&a, &b, [Mode::TwoWay; 2], [1, 2])?;
    ba.hears_of(&a)?;
    let brought = b.pull(&ba.member, &Silent)?;
    assert!(!brought.whole && brought.unread > UNREAD as u64, "{brought:?}");
    // What is new comes meanwhile.
    lab.write("a/2026/05/new", "1")?;
    a.scan(&[RelPath::parse(b"2026/05/new")?], &Silent)?;
    ba.hears_of(&a)?;
    assert_eq!(b.pull(&ba.member, &Silent)?.totals.created, 1);
    assert_eq!(fs::read_to_string(lab.root("b/2026/05/new"))?, "1");
    while b.read(&ba.member, &Silent)?.files > 0 {}
    ba.hears_of(&a)?;
    let brought = b.pull(&ba.member, &Silent)?;
    assert!(brought.whole && brought.unread == 0 && brought.totals.conflicts == 0, "{brought:?}");
    assert!(b.covers(&ba.member)?);
    Ok(())
}

#[test]
fn of_a_file_that_changes_while_it_is_read_nothing_is_decided_by_what_was_read() -> Result<()> {
    let lab = Lab::new(&["a", "b"])?;
    sparse(&lab, "a/large")?;
    sparse(&lab, "b/large")?;
    let (a, b) = (lab.open("a")?, lab.open("b")?);
    let [_ab, ba] = meet(&a, &b, [Mode::TwoWay; 2], [1, 2])?;
    ba.hears_of(&a)?;
    assert_eq!(b.pull(&ba.member, &Silent)?.unread, 1);
    let path = RelPath::parse(b"large")?;
    let edit = |at: u64| -> Result<()> {
        let mut file = fs::File::options().write(true).open(lab.root("b/large"))?;
        file.seek(SeekFrom::Start(at))?;
        Ok(file.write_all(b"edited")?)
    };
    // Where it was read already, once noticed by nobody before it was read, and once by a scan.
    for noticed in [false, true] {
        let read = read_while(&b, &ba.member, || {
            edit(0)?;
            if noticed {
                b.scan(std::slice::from_ref(&path), &Silent)?;
            }
            Ok(())
        })?;
        assert!(matches!(&read.problems[..], [problem] if problem.path == path), "{read:?}");
        b.scan(std::slice::from_ref(&path), &Silent)?;
        assert_eq!(b.pull(&ba.member, &Silent)?.unread, 1);
    }
    while !b.pull(&ba.member, &Silent)?.whole {
        assert!(b.read(&ba.member, &Silent)?.problems.is_empty());
    }
    let mut begins = Vec::new();
    for entry in fs::read_dir(lab.root("b"))? {
        let path = entry?.path();
        if path.is_file() {
            begins.push(fs::read(&path)?[..6].to_vec());
        }
    }
    begins.sort();
    assert_eq!(begins, [vec![0; 6], b"edited".to_vec()], "both versions stand here");
    Ok(())
}
