//! Content from one root to the other over a connection, each with a real state, and from peers that break the rules.

use super::content::answer;
use super::fetch::RemoteSource;
use super::lanes::{Lanes, Parked};
use crate::entry::{AttrMask, Content, Hash};
use crate::io::channel::{Channel, ChannelError};
use crate::io::fs::{Root, ctime_granularity};
use crate::io::link::{CloseCode, Connection, local_pair};
use crate::io::scan::{Scan, scan};
use crate::io::source::{Feed, Fetched, Source, SourceError, Wanted};
use crate::io::state::State;
use crate::path::RelPath;
use crate::peer::PublicKey;
use crate::report::Silent;
use crate::wire::{
    Data, DigestAnswer, Encoding, Failure, FailureCode, FileBegin, FileData, FileEnd, FileFailed, Lane, MAX_DATA, Message,
    Nothing, Refusal, SmallFile, SmallFiles,
};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const MASK: AttrMask = AttrMask { perms: true, owner: false, times: true };
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(2);

/// A root with its state.
pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) root: Root,
    pub(super) state: State,
}

impl World {
    pub(super) fn new(files: &[(&str, &[u8])]) -> World {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        root.private(&[]).unwrap();
        let state = State::open(&folder.path().join(".driftless"), MASK).unwrap();
        let world = World { folder, root, state };
        files.iter().for_each(|(path, bytes)| world.write(path, bytes));
        world.scan();
        world
    }

    pub(super) fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(super) fn scan(&self) {
        self.scan_by(false);
    }

    /// From now on all hashes are known.
    pub(super) fn read_all(&self) {
        self.scan_by(true);
    }

    fn scan_by(&self, checksum: bool) {
        let granularity_ns = ctime_granularity(&self.root).unwrap();
        let (root, state) = (&self.root, &self.state);
        scan(&Scan {
            root,
            state,
            ignore: None,
            only: &[],
            checksum,
            skip_placed: false,
            watch: None,
            mask: MASK,
            granularity_ns,
            monitor: &Silent,
        })
        .unwrap();
    }

    pub(super) fn wanted(&self, path: &str) -> Wanted {
        let path = RelPath::parse(path.as_bytes()).unwrap();
        let row = self.state.entry(&path).unwrap().unwrap().row;
        let Content::File { size, hash } = row.object.content else { panic!("{path} is no file") };
        Wanted { path, size, hash, m: row.m, base: None, held: 0 }
    }

    fn hash(&self, path: &str) -> Option<Hash> {
        self.wanted(path).hash
    }
}

pub(super) fn ends() -> (Arc<Connection>, Connection) {
    let [near, far] = local_pair([1, 2].map(|byte| PublicKey::from_bytes([byte; 32])), [3; 32]);
    (Arc::new(near), far)
}

/// Answers requests for content and digests until the connection ends.
pub(super) fn respond(world: &World, connection: &Connection) {
    let parked = Parked::default();
    let parked = &parked;
    thread::scope(|scope| {
        while let Ok(stream) = connection.accept(LONG) {
            scope.spawn(move || {
                let mut lanes = Lanes::new(Channel::new(stream));
                while let Ok(Some(message)) = lanes.main().next_or_end() {
                    let done = match message {
                        Message::FetchRequest(request) => answer(&world.root, &world.state, request, &mut lanes),
                        Message::Lane(Lane { number }) => return parked.put(number, lanes.into_main()).unwrap(),
                        Message::Widen(widen) => parked.take(&widen.lanes).map(|more| lanes.widen(more)),
                        Message::DigestRequest(_) => {
                            let digest = crate::entry::Digest(77);
                            let channel = lanes.main();
                            channel.send(&Message::Digest(DigestAnswer { digest })).and_then(|()| channel.flush())
                        }
                        other => panic!("{other:?}"),
                    };
                    if done.is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// What `work` gets of a source that reads `world`.
pub(super) fn with_source<T>(world: &World, work: impl FnOnce(&RemoteSource) -> T) -> T {
    let (near, far) = ends();
    thread::scope(|scope| {
        scope.spawn(|| respond(world, &far));
        let source = RemoteSource::new(near.clone()).unwrap();
        let done = work(&source);
        near.close(CloseCode::Done);
        done
    })
}

/// Takes a file; returns what was written as well.
pub(super) fn take(feed: &mut dyn Feed, number: usize) -> (Result<Fetched, SourceError>, Vec<u8>) {
    let mut target = tempfile::tempfile().unwrap();
    let fetched = feed.fetch(number, &mut target);
    let mut bytes = Vec::new();
    target.rewind().unwrap();
    target.read_to_end(&mut bytes).unwrap();
    (fetched, bytes)
}

pub(super) fn fetched(bytes: &[u8]) -> Fetched {
    Fetched { size: bytes.len() as u64, hash: Hash(*blake3::hash(bytes).as_bytes()) }
}

pub(super) fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

fn assert_brought(feed: &mut dyn Feed, number: usize, expected: &[u8]) {
    let (found, bytes) = take(feed, number);
    assert_eq!(found.unwrap(), fetched(expected));
    assert!(bytes == expected);
}

#[test]
fn files_of_all_sizes_come_as_they_are_and_their_hashes_are_recorded_there() {
    let (edge, beyond, large) = (noise(1, MAX_DATA), noise(2, MAX_DATA + 1), noise(3, 3_000_001));
    let files: [(&str, &[u8]); 6] =
        [("a", b"one"), ("d/empty", b""), ("d/edge", &edge), ("d/beyond", &beyond), ("e/large", &large), ("e/z", b"last")];
    let world = World::new(&files);
    with_source(&world, |source| {
        assert_eq!(source.digest(&RelPath::root()).unwrap().0, 77);
        let mut feed = source.feed(&world.root, files.iter().map(|(path, _)| world.wanted(path)).collect());
        for (number, (_, bytes)) in files.iter().enumerate() {
            assert_brought(&mut *feed, number, bytes);
        }
        source.settle().unwrap();
    });
    for (path, bytes) in files {
        assert_eq!(world.hash(path), Some(fetched(bytes).hash), "{path}");
    }
}

#[test]
fn files_may_be_passed_over_and_streams_are_used_again() {
    let names: Vec<String> = (0..40).map(|number| format!("d/{number:02}")).collect();
    let large = noise(1, 2 << 20);
    let files: Vec<(&str, &[u8])> =
        names.iter().map(|name| (&name[..], if name.ends_with('3') { &large[..] } else { name.as_bytes() })).collect();
    let world = World::new(&files);
    let (near, far) = ends();
    thread::scope(|scope| {
        scope.spawn(|| respond(&world, &far));
        let source = RemoteSource::new(near.clone()).unwrap();
        for step in [1, 2, 5, 7, 39] {
            let mut feed = source.feed(&world.root, files.iter().map(|(path, _)| world.wanted(path)).collect());
            for (number, (_, bytes)) in files.iter().enumerate().step_by(step) {
                assert_brought(&mut *feed, number, bytes);
            }
        }
        near.close(CloseCode::Done);
    });
}

#[test]
fn a_chunk_of_long_paths_takes_several_requests() {
    let deep = vec!["x".repeat(250); 12].join("/");
    let names: Vec<String> = (0..200).map(|number| format!("{deep}/{number}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (&name[..], name.as_bytes())).collect();
    // A path of so many bytes is beyond what the system takes at once.
    let world = World::new(&[]);
    let mut at = world.root.dir(&RelPath::root()).unwrap();
    for _ in 0..12 {
        at = at.create_dir("x".repeat(250).as_bytes()).unwrap();
    }
    for (number, (_, bytes)) in files.iter().enumerate() {
        at.create_file(number.to_string().as_bytes()).unwrap().write_all_at(bytes, 0).unwrap();
    }
    world.scan();
    with_source(&world, |source| {
        let mut feed = source.feed(&world.root, names.iter().map(|path| world.wanted(path)).collect());
        for (number, (_, bytes)) in files.iter().enumerate() {
            assert_brought(&mut *feed, number, bytes);
        }
    });
}

#[test]
fn what_is_not_as_it_was_listed_does_not_come_and_the_rest_does() {
    let large = noise(1, 1 << 20);
    let world = World::new(&[("a", b"1"), ("b", b"2"), ("c", b"3"), ("d/e", b"4"), ("f", b"5"), ("g", &large), ("h", b"7")]);
    let mut wanted: Vec<Wanted> = ["a", "b", "c", "d/e", "f", "g", "h"].map(|path| world.wanted(path)).into();
    // Edited since; gone since; another version; a directory that is gone; another hash.
    world.write("a", b"edited");
    fs::remove_file(world.folder.path().join("b")).unwrap();
    wanted[2].m = world.state.tick().unwrap().into();
    fs::remove_dir_all(world.folder.path().join("d")).unwrap();
    world.write("f", b"another");
    world.scan();
    wanted[6].path = RelPath::root();
    with_source(&world, |source| {
        let mut feed = source.feed(&world.root, wanted);
        for number in 0..5 {
            let (found, bytes) = take(&mut *feed, number);
            assert!(matches!(found, Err(SourceError::Stale(_))), "{number}: {found:?}");
            assert!(bytes.is_empty());
        }
        assert_brought(&mut *feed, 5, &large);
        assert!(matches!(take(&mut *feed, 6).0, Err(SourceError::Stale(_))));
        source.settle().unwrap();
    });
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let world = World::new(&[("a", b"1"), ("b", b"2")]);
    fs::set_permissions(world.folder.path().join("a"), fs::Permissions::from_mode(0o000)).unwrap();
    let readable = File::open(world.folder.path().join("a")).is_ok();
    world.scan();
    with_source(&world, |source| {
        let mut feed = source.feed(&world.root, vec![world.wanted("a"), world.wanted("b")]);
        let (found, _) = take(&mut *feed, 0);
        // Whoever is root reads everything.
        assert!(readable || found.unwrap_err().to_string().contains("denied"));
        assert_brought(&mut *feed, 1, b"2");
    });
}

/// Lets `edit` happen while the file is sent: the answer has begun, and waits for room. On several streams there is room for all of it.
fn edited_meanwhile(edit: impl FnOnce(&File)) -> Result<Fetched, SourceError> {
    let world = World::new(&[("f", &noise(1, 6 << 20)), ("g", b"next")]);
    let (near, far) = ends();
    thread::scope(|scope| {
        scope.spawn(|| respond(&world, &far));
        let source = RemoteSource::new(near.clone()).unwrap().without_lanes();
        let mut feed = source.feed(&world.root, vec![world.wanted("f"), world.wanted("g")]);
        while near.traffic().received < 1 << 20 {
            thread::yield_now();
        }
        edit(&File::options().write(true).open(world.folder.path().join("f")).unwrap());
        let (found, _) = take(&mut *feed, 0);
        assert_brought(&mut *feed, 1, b"next");
        source.settle().unwrap();
        near.close(CloseCode::Done);
        found
    })
}

#[test]
fn a_file_that_changes_while_it_is_sent_does_not_come() {
    for edit in [
        |file: &File| file.write_all_at(b"x", 5 << 20).unwrap(),
        |file: &File| file.set_len(1000).unwrap(),
        |file: &File| {
            file.set_len(7 << 20).unwrap();
        },
    ] {
        let found = edited_meanwhile(edit);
        assert!(matches!(found, Err(SourceError::Changes(_))), "{found:?}");
    }
}

#[test]
fn a_connection_that_ends_fails_everything_at_once_and_settling_tells_why() {
    let large = noise(1, 8 << 20);
    let world = World::new(&[("a", &large), ("b", b"2")]);
    let (near, far) = ends();
    thread::scope(|scope| {
        scope.spawn(|| respond(&world, &far));
        let source = RemoteSource::new(near.clone()).unwrap();
        let mut feed = source.feed(&world.root, vec![world.wanted("a"), world.wanted("b")]);
        assert!(near.traffic().sent > 0);
        near.close(CloseCode::Failed);
        for number in [0, 1] {
            assert!(matches!(take(&mut *feed, number).0, Err(SourceError::Remote(_))));
        }
        for _ in 0..2 {
            assert!(matches!(source.settle(), Err(SourceError::Remote(_))));
        }
        assert!(matches!(source.digest(&RelPath::root()), Err(SourceError::Remote(_))));
        assert!(matches!(take(&mut *source.feed(&world.root, vec![world.wanted("b")]), 0).0, Err(SourceError::Remote(_))));
    });
}

/// What a source makes of these answers to a request for files of 3 and 4 bytes.
fn told(wait: Duration, answers: Vec<Message>) -> (Vec<Result<Fetched, SourceError>>, u64, Result<(), SourceError>) {
    let (here, (near, far)) = (World::new(&[]), ends());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut channel = Channel::new(far.accept(LONG).unwrap());
            assert!(matches!(channel.receive().unwrap(), Message::FetchRequest(request) if request.files.len() == 2));
            answers.iter().for_each(|answer| channel.send(answer).unwrap());
            channel.flush().unwrap();
            let _ = far.wait_closed(LONG);
        });
        let source = RemoteSource::new(near.clone()).unwrap().with_wait(wait);
        let m: crate::knowledge::Vector =
            crate::knowledge::Event { replica: crate::knowledge::ReplicaId([1; 16]), counter: 1 }.into();
        let wanted = |path: &str, size| Wanted {
            path: RelPath::parse(path.as_bytes()).unwrap(),
            size,
            hash: None,
            m: m.clone(),
            base: None,
            held: 0,
        };
        let mut feed = source.feed(&here.root, vec![wanted("a", 3), wanted("b", 4)]);
        let (first, bytes) = take(&mut *feed, 0);
        let (second, _) = take(&mut *feed, 1);
        let settled = source.settle();
        near.close(CloseCode::Done);
        (vec![first, second], bytes.len() as u64, settled)
    })
}

fn small(file: u32, bytes: &[u8]) -> Message {
    let files = vec![SmallFile { size: bytes.len() as u64, hash: fetched(bytes).hash }];
    Message::SmallFiles(SmallFiles { first: file, files, data: Data::Plain(bytes.into()) })
}

/// Files of 3, 4, … bytes in one message.
fn both(count: u64, data: Data) -> Message {
    let hash = [b"one", &b"four"[..], b"more"].map(|bytes| fetched(bytes).hash);
    let files = (0..count).map(|number| SmallFile { size: (3 + number).min(4), hash: hash[number as usize] }).collect();
    Message::SmallFiles(SmallFiles { first: 0, files, data })
}

fn begin(file: u32, size: u64) -> Message {
    Message::FileBegin(FileBegin { file, size, encoding: Encoding::Raw })
}

fn data(bytes: &[u8]) -> Message {
    Message::FileData(FileData { data: Data::Plain(bytes.into()) })
}

fn end(bytes: &[u8]) -> Message {
    Message::FileEnd(FileEnd { hash: fetched(bytes).hash })
}

fn failed(file: u32) -> Message {
    Message::FileFailed(FileFailed { file, failure: Failure { code: FailureCode::Unreadable, text: "no\x1b[0m".into() } })
}

#[test]
fn answers_by_the_rules_are_taken_in_any_form() {
    let (files, _, settled) = told(LONG, vec![begin(0, 3), data(b"o"), data(b"ne"), end(b"one"), small(1, b"four")]);
    assert_eq!(files.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [fetched(b"one"), fetched(b"four")]);
    settled.unwrap();
    for data in [Data::Plain(b"onefour"[..].into()), Data::Packed(zstd::bulk::compress(b"onefour", 1).unwrap().into())] {
        let (files, _, settled) = told(LONG, vec![both(2, data)]);
        assert_eq!(files.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [fetched(b"one"), fetched(b"four")]);
        settled.unwrap();
    }
    let (files, _, settled) = told(LONG, vec![begin(0, 3), data(b"o"), failed(0), failed(1)]);
    assert!(files.iter().all(|file| matches!(file, Err(SourceError::There { .. }))), "{files:?}");
    assert!(!files[0].as_ref().unwrap_err().to_string().contains('\x1b'));
    settled.unwrap();
}

#[test]
fn other_bytes_than_were_announced_fail_the_file_alone() {
    let files = vec![SmallFile { size: 3, hash: fetched(b"two").hash }];
    let wrong = SmallFiles { first: 0, files, data: Data::Plain(b"one"[..].into()) };
    for first in [vec![Message::SmallFiles(wrong)], vec![begin(0, 3), data(b"one"), end(b"two")]] {
        let (files, _, settled) = told(LONG, first.into_iter().chain([small(1, b"four")]).collect());
        assert!(matches!(files[0], Err(SourceError::Damaged(_))), "{files:?}");
        assert_eq!(*files[1].as_ref().unwrap(), fetched(b"four"));
        settled.unwrap();
    }
}

#[test]
fn answers_against_the_rules_end_the_run_and_no_more_is_written_than_was_listed() {
    let refused = Message::Refused(crate::wire::Refused { code: Refusal::Failed, text: "no".into() });
    let cases = [
        vec![small(0, b"more than listed")],
        vec![small(0, b"on")],
        vec![small(1, b"four"), small(0, b"one")],
        vec![small(7, b"one")],
        vec![failed(1)],
        vec![begin(0, 4), data(b"four"), end(b"four")],
        vec![begin(0, u64::MAX >> 1)],
        vec![begin(1, 4)],
        vec![begin(0, 3), data(b"one"), data(b"!")],
        vec![begin(0, 3), data(&[7; MAX_DATA])],
        vec![begin(0, 3), data(b"on"), end(b"on")],
        vec![begin(0, 3), begin(0, 3)],
        vec![begin(0, 3), small(0, b"one")],
        vec![begin(0, 3), data(b"o"), failed(1)],
        vec![Message::FileBegin(FileBegin { file: 0, size: 3, encoding: Encoding::Delta })],
        vec![data(b"one")],
        vec![end(b"one")],
        vec![Message::Bye(Nothing)],
        vec![refused],
        // More files than were asked for; packed content that is none, that is too short, and that is too long.
        vec![both(3, Data::Plain(b"onefourmore"[..].into()))],
        vec![both(2, Data::Packed(b"onefour"[..].into()))],
        vec![both(2, Data::Packed(zstd::bulk::compress(b"onefou", 1).unwrap().into()))],
        vec![both(2, Data::Packed(zstd::bulk::compress(b"onefours", 1).unwrap().into()))],
        vec![
            begin(0, 3),
            Message::FileData(FileData { data: Data::Packed(zstd::bulk::compress(&[0; 5000], 1).unwrap().into()) }),
        ],
    ];
    // What breaks a rule is found at once, and silence by nothing but waiting.
    let silent = [vec![begin(0, 3), data(b"on")], vec![]].map(|answers| (SHORT, answers));
    for (wait, answers) in cases.map(|answers| (LONG, answers)).into_iter().chain(silent) {
        let shown = format!("{answers:?}").chars().take(200).collect::<String>();
        let (files, written, settled) = told(wait, answers);
        assert!(files.iter().all(|file| matches!(file, Err(SourceError::Remote(_)))), "{shown}: {files:?}");
        assert!(written <= 3, "{shown}: {written}");
        assert!(matches!(settled, Err(SourceError::Remote(_))), "{shown}");
    }
}

#[test]
fn a_file_that_cannot_be_written_gives_its_stream_up_and_the_next_one_comes() {
    let large = noise(1, 4 << 20);
    let world = World::new(&[("a", b"1"), ("b", &large), ("c", b"3"), ("d", &large)]);
    with_source(&world, |source| {
        let mut feed = source.feed(&world.root, ["a", "b", "c", "d"].map(|path| world.wanted(path)).into());
        for number in 0..2 {
            let mut closed = File::open("/dev/null").unwrap();
            assert!(matches!(feed.fetch(number, &mut closed), Err(SourceError::Copy { .. })));
        }
        assert_brought(&mut *feed, 2, b"3");
        assert_brought(&mut *feed, 3, &large);
        source.settle().unwrap();
    });
}

#[test]
fn the_error_of_the_first_is_told_once_and_in_words_ever_after() {
    let (_, _, settled) = told(LONG, vec![Message::Bye(Nothing)]);
    assert!(matches!(settled, Err(SourceError::Remote(ChannelError::Unexpected { found: "Bye", .. }))));
}
