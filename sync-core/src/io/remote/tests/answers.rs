//! What is asked besides listings.

use super::*;
use crate::io::scan::{Scan, scan};
use crate::io::source::SourceError;
use crate::io::state::{Decision, Pending};
use crate::io::there::Decided;
use crate::knowledge::{ReplicaId, Vector};
use crate::path::Name;
use crate::plan::Open;
use crate::report::{Monitor, Problem, Silent};
use crate::wire::Refusal;
use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[derive(Default)]
struct Told {
    files: AtomicU64,
    problems: Mutex<Vec<Problem>>,
    cancel: bool,
}

impl Monitor for Told {
    fn advance(&self, files: u64, _: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
    }

    fn problem(&self, problem: &Problem) {
        self.problems.lock().unwrap().push(problem.clone());
    }

    fn cancelled(&self) -> bool {
        self.cancel
    }
}

/// A root with so many files, scanned and not read.
fn with_files(dir: &Path, files: usize) -> (Site, Vec<RelPath>) {
    let site = Site::open(dir);
    let paths: Vec<_> = (0..files).map(|n| path(&format!("f{n:04}"))).collect();
    for path in &paths {
        fs::write(dir.join(path.to_string()), path.to_string()).unwrap();
    }
    let (root, state) = (&site.root, &site.state);
    let all = Scan {
        root,
        state,
        ignore: None,
        only: &[],
        checksum: false,
        skip_placed: false,
        watch: None,
        mask: MASK,
        granularity_ns: 0,
        monitor: &Silent,
    };
    scan(&all).unwrap();
    (site, paths)
}

fn hash_of(site: &Site, path: &RelPath) -> Option<Hash> {
    match site.state.entry(path).unwrap().unwrap().row.object.content {
        Content::File { hash, .. } => hash,
        _ => None,
    }
}

#[test]
fn files_are_read_there_and_what_cannot_be_is_told() {
    let home = tempfile::tempdir().unwrap();
    let (site, mut paths) = with_files(home.path(), 600);
    fs::remove_file(home.path().join("f0300")).unwrap();
    paths.push(path("never/was"));
    let told = Told::default();
    remotely(&site.here(), Limits::STANDARD, |there| {
        let before = walk(there);
        let questions = there.questions();
        there.rehash(&paths, &told).unwrap();
        assert_eq!(there.questions(), questions + 1);
        let after = walk(there);
        assert_ne!(after, before, "the rows have hashes now");
        assert_eq!(after, walk(&site.here()));
    });
    assert_eq!(told.files.into_inner(), 601);
    let problems = told.problems.into_inner().unwrap();
    assert_eq!(problems.iter().map(|problem| problem.path.to_string()).collect::<Vec<_>>(), ["f0300", "never/was"]);
    assert!(problems.iter().all(|problem| problem.step == "read" && !problem.error.is_empty()));
    assert_eq!(hash_of(&site, &path("f0007")), Some(Hash(*blake3::hash(b"f0007").as_bytes())));
    assert_eq!(hash_of(&site, &path("f0300")), None);
}

#[test]
fn more_paths_than_a_message_holds_are_asked_for_in_several() {
    let home = tempfile::tempdir().unwrap();
    let (site, _) = with_files(home.path(), 3);
    let long = "x".repeat(250);
    let paths: Vec<_> = (0..3000).map(|n| path(&format!("{long}/{long}/{n}"))).chain([path("f0002")]).collect();
    let told = Told::default();
    remotely(&site.here(), Limits::STANDARD, |there| {
        there.rehash(&paths, &told).unwrap();
        assert_eq!(there.questions(), 3);
    });
    assert_eq!((told.files.into_inner(), told.problems.into_inner().unwrap().len()), (3001, 3000));
    assert!(hash_of(&site, &path("f0002")).is_some());
}

#[test]
fn a_stopped_run_leaves_the_stream_and_can_go_on_with_another() {
    let home = tempfile::tempdir().unwrap();
    let (site, paths) = with_files(home.path(), 600);
    remotely(&site.here(), Limits::STANDARD, |there| {
        let stopped = there.rehash(&paths, &Told { cancel: true, ..Told::default() });
        assert!(matches!(stopped, Err(SourceError::Scan(crate::io::scan::ScanError::Cancelled))), "{stopped:?}");
        assert_eq!(walk(there), walk(&site.here()));
    });
}

#[test]
fn decisions_count_while_the_version_stands_that_they_were_made_at() {
    let home = tempfile::tempdir().unwrap();
    let site = Site::open(home.path());
    site.add(["a", "b", "c", "d"]);
    let other = ReplicaId([9; 16]);
    let theirs = |name: &str| site.state.entry(&path(name)).unwrap().map(|entry| entry.row);
    let pending = ["a", "b", "c", "d"].map(|name| Pending {
        path: path(name),
        why: Some(Open::Conflict),
        theirs: theirs(name).filter(|_| name != "b"),
        known: Vector::new(),
        decision: None,
    });
    site.state.put_pending(other, &pending).unwrap();
    let decisions = [("a", Decision::Newer), ("b", Decision::Remote), ("c", Decision::Both)];
    for (name, decision) in decisions {
        let version = crate::io::there::version(&site.state, &path(name)).unwrap();
        site.state.put_meta(&crate::io::there::decided_on(other, &path(name)), &version).unwrap();
        site.state.decide(other, &path(name), Some(decision)).unwrap();
    }
    // Edited since: what was decided was about another version.
    site.add(["c"]);
    let decided = |name: &str, decision, about| Decided { path: path(name), decision, about };
    let expected = [decided("a", Decision::Newer, theirs("a").unwrap().m), decided("b", Decision::Remote, Vector::new())];
    assert_eq!(site.here().decided(other).unwrap(), expected);
    remotely(&site.here(), Limits::STANDARD, |there| {
        assert_eq!(there.decided(other).unwrap(), expected);
        assert_eq!(there.decided(ReplicaId([8; 16])).unwrap(), []);
    });
}

#[test]
fn names_headers_and_digests_are_answered_as_locally() {
    let home = tempfile::tempdir().unwrap();
    let site = Site::open(home.path());
    site.add(["d/", "d/e/", "d/e/f", "g"]);
    let name = |name: &str| Name::parse(name.as_bytes()).unwrap();
    let header = Filter::header();
    let named = Filter::Since { after: u64::MAX, also: Arc::new(BTreeSet::from([path("d/e/x"), path("g")])) };
    let here = site.here();
    remotely(&here, Limits::STANDARD, |there| {
        for filter in [header.clone(), Filter::Only(Arc::new(vec![name("d"), name("x")])), named, header.clone()] {
            for dir in ["", "d", "d/e", "g", "x/y"] {
                let dir = if dir.is_empty() { RelPath::root() } else { path(dir) };
                assert_eq!(there.listing(&dir, &filter).unwrap(), here.listing(&dir, &filter).unwrap(), "{dir} {filter:?}");
                assert_eq!(there.digest(&dir).unwrap(), here.digest(&dir).unwrap());
            }
        }
        assert_eq!(there.facts().unwrap(), here.facts().unwrap());
        there.make_durable().unwrap();
    });
}

#[test]
fn who_may_not_read_is_told_nothing() {
    let home = tempfile::tempdir().unwrap();
    let site = Site::open(home.path());
    site.add(["a"]);
    let allowed = || Err("this machine may not read the folder".to_owned());
    let gate = Gate::new(&allowed);
    let here = Here { gate: Some(&gate), ..site.here() };
    let since = Filter::Since { after: 0, also: Arc::new(BTreeSet::from([path("a")])) };
    let (quic, _listener) = quic_ends();
    for ends in [ends(), quic] {
        serving_over(ends, &here, &Ended::default(), |near| {
            let there = RemoteThere::new(near.clone(), here.facts().unwrap(), 0);
            let all: [Result<(), SourceError>; 5] = [
                there.listing(&RelPath::root(), &Filter::All).map(|_| ()),
                there.listing(&RelPath::root(), &since).map(|_| ()),
                there.digest(&RelPath::root()).map(|_| ()),
                there.rehash(&[path("a")], &Silent),
                there.decided(ReplicaId([1; 16])).map(|_| ()),
            ];
            for refused in all {
                let Err(SourceError::Remote(ChannelError::Refused(refused))) = refused else { panic!("{refused:?}") };
                assert_eq!(refused.code, Refusal::NotGranted);
            }
        });
    }
}

#[test]
fn who_has_its_answer_and_asks_nothing_more_has_no_question_under_way() {
    let home = tempfile::tempdir().unwrap();
    let site = Site::open(home.path());
    site.add(["a"]);
    let allowed = || Ok(());
    let gate = Gate::new(&allowed);
    let here = Here { gate: Some(&gate), ..site.here() };
    serving(&here, &Ended::default(), |near| {
        let there = RemoteThere::new(near.clone(), here.facts().unwrap(), 0);
        for _ in 0..2 {
            there.digest(&RelPath::root()).unwrap();
            let answered = Instant::now();
            // The stream stays open, and waits. The answer may be here a moment before its question has ended.
            while gate.idle().is_zero() {
                assert!(answered.elapsed() < PATIENCE);
                thread::yield_now();
            }
        }
    });
}
