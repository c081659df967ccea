//! What an authenticated peer might send all the same.

use super::*;
use crate::entry::Digest;
use crate::io::channel::Channel;
use crate::io::source::SourceError;
use crate::knowledge::{ReplicaId, Vector};
use crate::path::Name;
use crate::report::Silent;
use crate::store::Child;
use crate::wire::{
    Also, Decided, DecidedPath, Decision, DigestAnswer, DigestRequest, HashResult, Hashed, ListingEnd, MAX_ALSO, MAX_LANES,
    Message, Nothing, Piece, Refusal, Widen,
};

fn ghost(name: &str) -> Child {
    Child { name: Name::parse(name.as_bytes()).unwrap(), row: None, own: Some(Arc::default()), tree: None }
}

fn listing(dir: &str, names: &[&str]) -> Listing {
    let path = if dir.is_empty() { RelPath::root() } else { path(dir) };
    let children = names.iter().map(|name| ghost(name)).collect();
    let (sub, bound): (Arc<Vector>, Arc<Vector>) = Default::default();
    Listing { path, sub, bound, digest: Digest(7), seq: 5, full: true, children }
}

fn piece(listing: Listing, last: bool) -> Message {
    Message::Listing(Piece { listing, last })
}

fn dir(dir: &str) -> Message {
    piece(listing(dir, &[]), true)
}

fn end(directories: u32) -> Message {
    Message::ListingEnd(ListingEnd { directories })
}

/// Answers the first question of every stream with these messages, over and over if `forever`.
fn answering<T>(answer: &[Message], forever: bool, test: impl FnOnce(&RemoteThere) -> T) -> T {
    let home = tempfile::tempdir().unwrap();
    let facts = facts(&Site::open(home.path()));
    let (near, far) = ends();
    thread::scope(|scope| {
        scope.spawn(|| {
            while let Ok(stream) = far.accept(PATIENCE) {
                let mut channel = Channel::new(stream);
                let Ok(_) = channel.receive() else { continue };
                let mut sent = answer.iter().try_for_each(|message| channel.send(message));
                while forever && sent.is_ok() {
                    sent = answer.iter().try_for_each(|message| channel.send(message));
                }
                let _ = channel.finish();
            }
        });
        let _closing = Closing(near.clone());
        test(&RemoteThere::new(near.clone(), facts, 0))
    })
}

/// What becomes of a walk that asks for `d` and then for `d/z`, which reads the answer to its end.
fn walked(answer: &[Message], forever: bool) -> String {
    answering(answer, forever, |there| {
        let first = there.listing(&path("d"), &Filter::All);
        let error = first.and_then(|_| there.listing(&path("d/z"), &Filter::All)).unwrap_err();
        assert!(matches!(error, SourceError::Remote(_)));
        error.to_string()
    })
}

#[test]
fn what_was_not_asked_for_ends_the_conversation() {
    let older = piece(Listing { seq: 4, ..listing("d/a", &[]) }, true);
    let some = piece(Listing { full: false, ..listing("d", &["a"]) }, true);
    let many: Vec<String> = (0..1024).map(|n| format!("{n:05}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let cases: [(&[Message], &str); 18] = [
        (&[dir("e"), end(1)], "not the one asked for"),
        (&[dir(""), end(1)], "not the one asked for"),
        (&[dir("d/z"), end(1)], "not the one asked for"),
        (&[dir("d"), dir("c"), end(2)], "does not follow"),
        (&[dir("d"), dir(""), end(2)], "does not follow"),
        (&[dir("d"), dir("d"), end(2)], "does not follow"),
        (&[dir("d"), dir("d/b"), dir("d/a"), end(3)], "does not follow"),
        (&[dir("d"), dir("d/a/b"), end(2)], "does not follow"),
        (&[dir("d"), dir("d/a"), dir("e/f"), end(3)], "does not follow"),
        (&[dir("d"), older, end(2)], "older"),
        (&[some, end(1)], "left out"),
        (&[dir("d"), piece(listing("d/a", &many), true), end(2)], "more rows than were asked for"),
        (&[piece(listing("d", &["a"]), false), piece(listing("e", &["b"]), true), end(1)], "another listing"),
        (&[piece(listing("d", &["a"]), false), piece(listing("d", &["a"]), true), end(1)], "does not ascend"),
        (&[piece(listing("d", &["a"]), false), end(0)], "ends in the middle"),
        (&[dir("d"), end(2)], "ends in the middle"),
        (&[end(0)], "sent ListingEnd where Listing was to come"),
        (&[dir("d"), Message::Digest(DigestAnswer { digest: Digest(1) })], "sent Digest where rows"),
    ];
    for (answer, expected) in cases {
        let error = walked(answer, false);
        assert!(error.contains(expected), "{error}, not: {expected}");
    }
}

#[test]
fn answers_without_end_come_to_an_end() {
    let error = walked(&[piece(listing("d", &[]), false)], true);
    assert!(error.contains("it is empty"), "{error}");
    let directories: Vec<Message> = (0..5000).map(|n| dir(&format!("d/{n:05}"))).collect();
    let error = walked(&[&[dir("d")], &directories[..]].concat(), false);
    assert!(error.contains("more rows than were asked for"), "{error}");
    let nothing = Message::Hashed(Hashed { first: 0, results: vec![] });
    let error = answering(&[nothing], true, |there| there.rehash(&[path("a")], &Silent).unwrap_err().to_string());
    assert!(error.contains("nothing but signs of life"), "{error}");
    let nothing = Message::Decided(Decided { paths: vec![], last: false });
    let error = answering(&[nothing], true, |there| there.decided(ReplicaId([1; 16])).unwrap_err().to_string());
    assert!(error.contains("it is empty"), "{error}");
}

#[test]
fn hashes_and_decisions_are_those_that_were_asked_for() {
    let hashed = |first, count| Message::Hashed(Hashed { first, results: vec![HashResult::Hash(Hash([1; 32])); count] });
    for (answer, right) in [
        (vec![hashed(0, 2)], true),
        (vec![hashed(0, 1), hashed(1, 0), hashed(1, 1)], true),
        (vec![hashed(0, 3)], false),
        (vec![hashed(1, 1)], false),
        (vec![hashed(0, 1), hashed(0, 1)], false),
        (vec![hashed(0, 1), hashed(1, 2)], false),
        (vec![hashed(0, 1)], false),
        (vec![dir("a")], false),
    ] {
        let answered = answering(&answer, false, |there| there.rehash(&[path("a"), path("b")], &Silent));
        assert_eq!(answered.is_ok(), right, "{answer:?}: {answered:?}");
    }
    let decided = |name: &str, last| {
        let one = DecidedPath { path: path(name), decision: Decision::Local, about: Vector::new() };
        Message::Decided(Decided { paths: vec![one], last })
    };
    for (answer, right) in [
        (vec![decided("a", false), decided("b", true)], true),
        (vec![decided("b", false), decided("a", true)], false),
        (vec![decided("b", false)], false),
        (vec![dir("a")], false),
    ] {
        let answered = answering(&answer, false, |there| there.decided(ReplicaId([1; 16])));
        assert_eq!(answered.is_ok(), right, "{answer:?}: {answered:?}");
    }
}

#[test]
fn names_that_were_not_asked_for_are_no_answer() {
    let only = Filter::Only(Arc::new(vec![Name::parse(b"a").unwrap()]));
    let some = |names: &[&str]| [piece(Listing { full: false, ..listing("d", names) }, true), end(1)];
    assert!(answering(&some(&["a"]), false, |there| there.listing(&path("d"), &only)).is_ok());
    let error = answering(&some(&["a", "b"]), false, |there| there.listing(&path("d"), &only)).unwrap_err().to_string();
    assert!(error.contains("another name"), "{error}");
}

#[test]
fn a_directory_that_nobody_showed_is_never_handed_out_for_another() {
    // It follows, and nobody asks for it.
    answering(&[dir("d"), dir("d/unseen"), dir("d/z"), end(3)], false, |there| {
        assert_eq!(there.listing(&path("d"), &Filter::All).unwrap().path, path("d"));
        assert_eq!(there.listing(&path("d/z"), &Filter::All).unwrap().path, path("d/z"));
        assert_eq!(there.questions(), 1);
    });
}

/// Sends this to an honest root, and reads what comes.
fn asked(messages: &[Message]) -> (Vec<Message>, Result<(), ChannelError>) {
    let home = tempfile::tempdir().unwrap();
    let site = Site::open(home.path());
    site.add(["a"]);
    let ended = Ended::default();
    let answers = serving(&site.here(), &ended, |near| {
        let mut channel = Channel::new(near.open(PATIENCE).unwrap());
        messages.iter().for_each(|message| channel.send(message).unwrap());
        let mut answers = Vec::new();
        while let Ok(Some(answer)) = channel.next_or_end() {
            let refused = matches!(answer, Message::Refused(_));
            answers.push(answer);
            if refused {
                break;
            }
        }
        answers
    });
    let ended = ended.into_inner().unwrap().pop().unwrap();
    (answers, ended)
}

#[test]
fn what_is_no_question_is_refused() {
    let too_many = Also { first: true, paths: (0..=MAX_ALSO).map(|n| path(&format!("{n:06}"))).collect() };
    let lanes = Message::Widen(Widen { lanes: (0..=MAX_LANES as u64).collect() });
    for question in [Message::Bye(Nothing), end(1), dir("d"), Message::Also(too_many), lanes] {
        let (answers, ended) = asked(&[question]);
        let [Message::Refused(refused)] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(refused.code, Refusal::Request);
        assert!(matches!(ended, Err(ChannelError::Unexpected { .. } | ChannelError::Wire(_))), "{ended:?}");
    }
    let digest = Message::DigestRequest(DigestRequest { path: RelPath::root() });
    let (answers, _) = asked(&[digest.clone(), digest, Message::Bye(Nothing)]);
    assert!(matches!(answers[..], [Message::Digest(_), Message::Digest(_), Message::Refused(_)]), "{answers:?}");
}
