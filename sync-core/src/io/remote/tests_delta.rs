//! New versions made of files that stand here: what crosses, and what becomes of bases and deltas that do not fit.

use super::fetch::RemoteSource;
use super::lanes::Lanes;
use super::tests_content::{World, ends, fetched, noise, respond, take};
use crate::delta::{OP_BYTES, Op, Shape};
use crate::io::channel::{Channel, ChannelError};
use crate::io::link::CloseCode;
use crate::io::source::{Fetched, Source as _, SourceError, Wanted};
use crate::path::RelPath;
use crate::wire::{
    self, Data, Encoding, Failure, FailureCode, FetchRequest, FileBegin, FileData, FileEnd, FileFailed, Message, Packing,
    SignaturePart, put_op,
};
use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

fn based(world: &World, path: &str) -> Wanted {
    Wanted { base: Some(RelPath::parse(path.as_bytes()).unwrap()), ..world.wanted(path) }
}

/// Brings `f` to a root that has another version of it; returns the bytes that crossed, each way. `before` happens when it was
/// asked for.
fn crossed(old: &[u8], new: &[u8], packing: Packing, before: impl FnOnce(&World)) -> [u64; 2] {
    let (here, there) = (World::new(&[("f", old)]), World::new(&[("f", new), ("g", b"next")]));
    let (near, far) = ends();
    thread::scope(|scope| {
        scope.spawn(|| respond(&there, &far));
        let source = RemoteSource::new(near.clone()).unwrap().with_packing(packing);
        let mut feed = source.feed(&here.root, vec![based(&there, "f"), based(&there, "g")]);
        before(&here);
        let (found, bytes) = take(&mut *feed, 0);
        assert_eq!(found.unwrap(), fetched(new));
        assert!(bytes == new);
        assert_eq!(take(&mut *feed, 1).0.unwrap(), fetched(b"next"));
        source.settle().unwrap();
        let traffic = near.traffic();
        near.close(CloseCode::Done);
        [traffic.sent, traffic.received]
    })
}

#[test]
fn what_stands_here_does_not_cross() {
    let old = noise(1, 3 << 20);
    let signature = Shape::of(3 << 20).unwrap().signature_bytes();
    let [sent, received] = crossed(&old, &old, Packing::Off, |_| {});
    assert!(sent <= signature + 500 && received <= 1000, "{sent} {received}");
    // Inserted in front, edited in place, cut off, and all of it.
    let mut edited = old.clone();
    for at in (0..edited.len() - 100).step_by(300_000) {
        edited[at..at + 100].fill(7);
    }
    let cases = [([&noise(2, 10_000)[..], &old].concat(), 10_000), (edited.clone(), 11 * 2048), (old[1 << 20..].to_vec(), 0)];
    for (new, bytes) in cases {
        let [sent, received] = crossed(&old, &new, Packing::Off, |_| {});
        assert!(sent <= signature + 500 && received <= bytes + 8000, "{sent} {received} {bytes}");
    }
}

#[test]
fn deltas_are_packed_too() {
    let old = noise(1, 1 << 20);
    let text: Vec<u8> = (0..40_000u32).flat_map(|line| format!("line {line}\n").into_bytes()).collect();
    let new = [&old[..], &text].concat();
    let plain = crossed(&old, &new, Packing::Off, |_| {})[1];
    let packed = crossed(&old, &new, Packing::Auto, |_| {})[1];
    assert!(packed < plain / 3, "{packed} {plain}");
}

#[test]
fn a_base_that_changes_meanwhile_costs_the_whole_file_and_no_more() {
    let (old, new) = (noise(1, 1 << 20), noise(1, (1 << 20) + 1));
    for before in [
        |here: &World| {
            fs::File::options().write(true).open(here.folder.path().join("f")).unwrap().write_all_at(&[1; 9], 500_000).unwrap()
        },
        |here: &World| fs::File::options().write(true).open(here.folder.path().join("f")).unwrap().set_len(1000).unwrap(),
    ] {
        let [_, received] = crossed(&old, &new, Packing::Off, before);
        assert!((new.len() as u64..new.len() as u64 + 20_000).contains(&received), "{received}");
    }
    // One that is gone is open still.
    let [_, received] = crossed(&old, &new, Packing::Off, |here| fs::remove_file(here.folder.path().join("f")).unwrap());
    assert!(received < 20_000, "{received}");
}

#[test]
fn a_base_that_helps_nothing_is_not_used() {
    let new = noise(2, 1 << 20);
    for old in [&b"short"[..], b""] {
        let [sent, received] = crossed(old, &new, Packing::Off, |_| {});
        assert!(sent < 500 && received > new.len() as u64, "{sent}");
    }
    // A link is never followed.
    let (here, there) = (World::new(&[("other", &new)]), World::new(&[("f", &new)]));
    std::os::unix::fs::symlink("other", here.folder.path().join("f")).unwrap();
    let (near, far) = ends();
    thread::scope(|scope| {
        scope.spawn(|| respond(&there, &far));
        let source = RemoteSource::new(near.clone()).unwrap();
        assert_eq!(take(&mut *source.feed(&here.root, vec![based(&there, "f")]), 0).0.unwrap(), fetched(&new));
        assert!(near.traffic().received > new.len() as u64);
        near.close(CloseCode::Done);
    });
}

#[test]
fn runs_of_zeros_do_not_cross_and_are_holes() {
    let old = noise(1, 1 << 20);
    let new = [&old[..], &vec![0; 8 << 20]].concat();
    let [_, received] = crossed(&old, &new, Packing::Off, |_| {});
    assert!(received < 10_000, "{received}");
    let (here, there) = (World::new(&[("f", &old)]), World::new(&[("f", &new)]));
    let (near, far) = ends();
    thread::scope(|scope| {
        scope.spawn(|| respond(&there, &far));
        let source = RemoteSource::new(near.clone()).unwrap();
        let mut target = tempfile::tempfile_in(here.folder.path()).unwrap();
        source.feed(&here.root, vec![based(&there, "f")]).fetch(0, &mut target).unwrap();
        let metadata = target.metadata().unwrap();
        assert_eq!(metadata.len(), new.len() as u64);
        assert!(metadata.blocks() * 512 < 4 << 20, "{}", metadata.blocks());
        near.close(CloseCode::Done);
    });
}

/// What a source makes of a peer that answers like this to a request for 300,000 bytes with a base of as many.
fn told(answers: &[Message]) -> (Result<Fetched, SourceError>, Result<(), SourceError>) {
    let here = World::new(&[("f", &noise(1, 300_000))]);
    let (near, far) = ends();
    thread::scope(|scope| {
        scope.spawn(|| {
            while let Ok(stream) = far.accept(LONG) {
                let mut channel = Channel::new(stream);
                let Ok(Message::FetchRequest(request)) = channel.receive() else { panic!("no request") };
                let Some(announced) = request.files[0].base else {
                    // The second time the whole is wanted.
                    let failure = Failure { code: FailureCode::Unreadable, text: "whole".into() };
                    channel.send(&Message::FileFailed(FileFailed { file: 0, failure })).unwrap();
                    channel.flush().unwrap();
                    continue;
                };
                assert_eq!(announced, Shape::of(300_000).unwrap().announced());
                assert!(matches!(channel.receive(), Ok(Message::SignaturePart(part)) if part.file == 0));
                answers.iter().for_each(|answer| channel.send(answer).unwrap());
                channel.flush().unwrap();
            }
        });
        let source = RemoteSource::new(near.clone()).unwrap().with_wait(Duration::from_secs(2));
        let m = here.wanted("f").m;
        let path = RelPath::parse(b"f").unwrap();
        let wanted = Wanted { path: path.clone(), size: 300_000, hash: None, m, base: Some(path), held: 0 };
        let (found, _) = take(&mut *source.feed(&here.root, vec![wanted]), 0);
        let settled = source.settle();
        near.close(CloseCode::Done);
        (found, settled)
    })
}

fn begin() -> Message {
    Message::FileBegin(FileBegin { file: 0, size: 300_000, encoding: Encoding::Delta })
}

fn ops(ops: &[Op<'_>]) -> Message {
    let mut bytes = Vec::new();
    ops.iter().for_each(|op| put_op(op, &mut bytes));
    Message::FileData(FileData { data: Data::Plain(bytes.into()) })
}

fn end() -> Message {
    Message::FileEnd(FileEnd { hash: fetched(b"another").hash })
}

#[test]
fn a_delta_that_makes_another_file_is_followed_by_the_whole_once() {
    let base = FileFailed { file: 0, failure: Failure { code: FailureCode::Base, text: "no base".into() } };
    for answers in [
        vec![begin(), ops(&[Op::Copy { offset: 0, len: 300_000 }]), end()],
        vec![begin(), Message::FileFailed(base.clone())],
        vec![Message::FileFailed(base)],
    ] {
        let (found, settled) = told(&answers);
        assert!(matches!(&found, Err(SourceError::There { text, .. }) if text == "whole"), "{found:?}");
        settled.unwrap();
    }
}

#[test]
fn a_delta_against_the_rules_ends_the_run() {
    let copy = |offset, len| Op::Copy { offset, len };
    let raw = |bytes: &[u8]| Message::FileData(FileData { data: Data::Plain(bytes.into()) });
    for answers in [
        vec![begin(), ops(&[copy(1, 300_000)])],
        vec![begin(), ops(&[copy(u64::MAX, 1)])],
        vec![begin(), ops(&[copy(0, 300_000), Op::Literal(b"x")])],
        vec![begin(), ops(&[Op::Zeros(300_001)])],
        vec![begin(), ops(&[Op::Zeros(OP_BYTES)])],
        vec![begin(), ops(&[copy(0, 299_999)]), end()],
        vec![begin(), ops(&vec![copy(0, 1); 9000])],
        vec![begin(), raw(&[9, 9, 9])],
        vec![begin(), raw(&[1]), end()],
        vec![begin(), begin()],
        vec![begin(), end()],
    ] {
        let shown = format!("{answers:?}").chars().take(200).collect::<String>();
        let (found, settled) = told(&answers);
        assert!(matches!(found, Err(SourceError::Remote(_))), "{shown}: {found:?}");
        assert!(matches!(settled, Err(SourceError::Remote(_))), "{shown}");
    }
}

#[test]
fn a_signature_against_the_rules_ends_the_conversation() {
    let there = World::new(&[("f", &noise(1, 300_000))]);
    let whole = Shape::of(300_000).unwrap().signature_bytes() as usize;
    let part = |file, len: usize| Message::SignaturePart(SignaturePart { file, bytes: vec![7; len].into() });
    for parts in [vec![part(0, whole + 1)], vec![part(1, whole)], vec![part(0, whole - 1), part(0, 2)], vec![begin()]] {
        let (near, far) = ends();
        let wanted = there.wanted("f");
        let file = wire::Wanted {
            path: wanted.path,
            size: wanted.size,
            hash: None,
            m: wanted.m,
            offset: 0,
            base: Some(Shape::of(300_000).unwrap().announced()),
        };
        let request = FetchRequest { packing: Packing::Off, files: vec![file] };
        let mut answering = Channel::new(near.open(LONG).unwrap());
        let mut asking = Channel::new({
            answering.send(&Message::Bye(wire::Nothing)).unwrap();
            answering.flush().unwrap();
            far.accept(LONG).unwrap()
        });
        asking.receive().unwrap();
        parts.iter().for_each(|part| asking.send(part).unwrap());
        asking.flush().unwrap();
        let answered = super::content::answer(&there.root, &there.state, request, &mut Lanes::new(answering));
        assert!(matches!(answered, Err(ChannelError::Unexpected { .. })), "{answered:?}");
    }
}

/// Brings `f` to a root that has another version of it, and of which so much has come already; returns the bytes that crossed, each
/// way.
fn crossed_behind(old: &[u8], new: &[u8], held: &[u8], bases: bool) -> [u64; 2] {
    let (here, there) = (World::new(&[("f", old)]), World::new(&[("f", new)]));
    let (near, far) = ends();
    thread::scope(|scope| {
        scope.spawn(|| respond(&there, &far));
        let source = RemoteSource::new(near.clone()).unwrap().with_packing(Packing::Off);
        let source = if bases { source } else { source.without_bases() };
        let mut target = tempfile::tempfile().unwrap();
        target.write_all(held).unwrap();
        target.rewind().unwrap();
        let wanted = Wanted { held: held.len() as u64, ..based(&there, "f") };
        assert_eq!(source.feed(&here.root, vec![wanted]).fetch(0, &mut target).unwrap(), fetched(new));
        target.rewind().unwrap();
        let mut bytes = Vec::new();
        target.read_to_end(&mut bytes).unwrap();
        assert!(bytes == new);
        source.settle().unwrap();
        let traffic = near.traffic();
        near.close(CloseCode::Done);
        [traffic.sent, traffic.received]
    })
}

#[test]
fn a_delta_that_was_interrupted_comes_as_a_delta_again() {
    let old = noise(1, 6 << 20);
    let mut new = old.clone();
    new[5 << 20..(5 << 20) + 100].fill(7);
    let signature = Shape::of(6 << 20).unwrap().signature_bytes();
    // Be what had come right or wrong, short or long.
    for held in [&new[..100], &new[..5 << 20], &noise(2, 3 << 20)] {
        let [sent, received] = crossed_behind(&old, &new, held, true);
        assert!(sent > signature && sent < signature + 500 && received < 20_000, "{sent} {received}");
    }
    // Where no more is left than the signature takes, the rest comes as it is.
    for held in [&new[..], &new[..new.len() - signature as usize]] {
        let [sent, received] = crossed_behind(&old, &new, held, true);
        assert!(sent < 500 && received < signature + 5000, "{sent} {received}");
    }
    // Nor does anything else where no delta can be.
    for (old, bases) in [(&old[..], false), (b"short", true)] {
        let [sent, received] = crossed_behind(old, &new, &new[..5 << 20], bases);
        assert!(sent < 500 && received < (1 << 20) + 5000, "{sent} {received}");
    }
}
