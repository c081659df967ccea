mod golden;
mod hostile;
mod values;

use super::*;
use crate::delta::{LITERAL_BYTES, OP_BYTES, Op};
use crate::entry::{Attrs, Content, Digest, Hash, Object};
use crate::knowledge::{Creation, Event, ReplicaId, Row, Vector};
use crate::path::{Name, RelPath};
use crate::store::{Child, Listing};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) fn bytes_of(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn event(replica: u8, counter: u64) -> Event {
    Event { replica: ReplicaId([replica; 16]), counter }
}

fn file(size: u64, hash: Option<Hash>, by: Event) -> Row {
    let attrs = Attrs { mode: 0o644, uid: 1000, gid: 1000, mtime_ns: 1_790_000_000_123_456_789 };
    Row { object: Object { content: Content::File { size, hash }, attrs }, m: by.into(), c: by.into() }
}

fn listing(children: Vec<Child>) -> Listing {
    let sub: Arc<Vector> = Arc::new([event(1, 70), event(2, 9)].into_iter().collect());
    Listing { path: path("2026/03"), bound: sub.clone(), sub, digest: Digest(7), seq: 12, full: true, children }
}

fn leaf(name: &str, row: Row) -> Child {
    Child { name: Name::parse(name.as_bytes()).unwrap(), row: Some(row), own: None, tree: None }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_message_comes_back_as_it_was(message in values::message()) {
        let bytes = bytes_of(&message);
        prop_assert_eq!(Message::decode(&bytes), Ok(message));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_cut_message_is_taken_for_a_whole_one(message in values::message()) {
        let bytes = bytes_of(&message);
        for cut in 0..bytes.len() {
            match Message::decode(&bytes[..cut]) {
                Err(_) => {}
                // Content goes on to the end of its message.
                Ok(Message::FileData(_) | Message::SmallFiles(_) | Message::SignaturePart(_)) => {}
                Ok(other) => prop_assert!(false, "{cut} of {} bytes: {other:?}", bytes.len()),
            }
        }
    }

    #[test]
    fn changed_bytes_are_refused_or_mean_something_valid(message in values::message(), at: prop::sample::Index, byte: u8) {
        let mut bytes = bytes_of(&message);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(other) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&bytes_of(&other)), Ok(other));
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Message::decode(&bytes);
        let mut ops = OpReader::default();
        ops.feed(&bytes);
        while let Ok(Some(_)) = ops.next_op() {}
    }

    #[test]
    fn a_stream_is_taken_apart_wherever_it_is_cut(
        messages in prop::collection::vec(values::message(), 1..6),
        step in 1..400usize,
    ) {
        let mut stream = Vec::new();
        messages.iter().for_each(|message| put_frame(message, &mut stream).unwrap());
        let mut reader = FrameReader::new(MAX_FRAME);
        let mut read = Vec::new();
        for part in stream.chunks(step) {
            reader.feed(part);
            while let Some(message) = reader.next_message().unwrap() {
                read.push(message);
            }
        }
        prop_assert!(!reader.is_inside());
        prop_assert_eq!(read, messages);
    }

    #[test]
    fn a_listing_in_pieces_is_put_together_again(listing in values::listing()) {
        let mut gather = Gather::default();
        let mut whole = None;
        for piece in Piece::of(listing.clone()) {
            prop_assert!(whole.is_none());
            whole = gather.add(piece).unwrap();
        }
        prop_assert_eq!(whole, Some(listing));
        prop_assert!(!gather.is_inside());
    }

    #[test]
    fn items_and_filters_of_the_engine_come_back(item in values::item()) {
        let inner = crate::plan::Item::from(item.clone());
        prop_assert_eq!(Item { done: item.done, ..Item::from(&inner) }, item);
    }
}

#[test]
fn a_row_of_a_directory_of_a_hundred_files_costs_its_hash_its_name_and_few_bytes() {
    let day = |n: u64| 1_790_000_000_123_456_789 + n as i64 * 37_123_456_789;
    let mut children = Vec::new();
    for n in 0..100u64 {
        let mut row = file(100_000 + n, Some(Hash([n as u8; 32])), event(1, 50 + n % 3));
        row.object.attrs.mtime_ns = day(n);
        children.push(leaf(&format!("{n:08}.jpg"), row));
    }
    let piece = Piece { listing: listing(children), last: true };
    let bytes = bytes_of(&Message::Listing(piece)).len();
    assert!(bytes <= 100 * (32 + 12 + 15) + 200, "{bytes} bytes, {} a row", bytes / 100);
}

#[test]
fn every_row_of_its_own_version_still_costs_little() {
    let children = (0..100u64).map(|n| leaf(&format!("{n:03}"), file(n, Some(Hash([0; 32])), event(1, 5000 + n)))).collect();
    let bytes = bytes_of(&Message::Listing(Piece { listing: listing(children), last: true })).len();
    assert!(bytes <= 100 * (32 + 3 + 12) + 200, "{bytes}");
}

#[test]
fn a_huge_directory_is_cut_into_pieces_that_fit() {
    // Every row as large as rows get: all its vectors of the most replicas, all different.
    let wide = |seed: u64| -> Vector {
        let id = |n: u64| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(n * 1000 + seed).to_be_bytes());
            ReplicaId(id)
        };
        (0..MAX_REPLICAS as u64).map(|n| Event { replica: id(n), counter: MAX_SIZE }).collect()
    };
    let mut children = Vec::new();
    for n in 0..12u64 {
        let mut row = file(MAX_SIZE, Some(Hash([9; 32])), event(1, 1));
        row.m = wide(5 * n);
        row.c = wide(5 * n + 1).iter().collect::<Creation>();
        row.object.content = Content::Symlink(vec![b'x'; MAX_TARGET].into());
        let tree = crate::knowledge::Tree { s: wide(5 * n + 2), bound: Arc::new(wide(5 * n + 3)), digest: Digest(1) };
        let name = Name::parse(format!("{n:0255}").as_bytes()).unwrap();
        children.push(Child { name, row: Some(row), own: Some(Arc::new(wide(5 * n + 4))), tree: Some(tree) });
    }
    let mut whole = listing(children);
    whole.path = RelPath::parse(vec![b"d".repeat(255); 250].join(&b'/').as_slice()).unwrap();
    check_pieces(whole, 3);
    // And as small as they get.
    let children = (0..100_000u64).map(|n| leaf(&format!("{n:06}"), file(1, None, event(1, 1)))).collect();
    check_pieces(listing(children), 13);
}

fn check_pieces(whole: Listing, least: usize) {
    let mut gather = Gather::default();
    let pieces = Piece::of(whole.clone());
    assert!(pieces.len() >= least, "{}", pieces.len());
    let mut back = None;
    for piece in pieces {
        let estimate: usize = piece.listing.children.iter().map(rows::child_bytes).sum();
        let mut bytes = Vec::new();
        put_frame(&Message::Listing(piece), &mut bytes).unwrap();
        assert!(bytes.len() <= estimate + (128 << 10), "{} bytes, estimated {estimate}", bytes.len());
        let mut reader = FrameReader::new(MAX_FRAME);
        reader.feed(&bytes);
        let Ok(Some(Message::Listing(piece))) = reader.next_message() else { panic!("no listing") };
        back = gather.add(piece).unwrap();
    }
    assert!(back == Some(whole));
}

#[test]
fn pieces_of_two_listings_do_not_mix() {
    let one = |name: &str| listing(vec![leaf(name, file(1, None, event(1, 1)))]);
    let piece = |listing: Listing, last| Piece { listing, last };
    let add = |first: Listing, second: Listing| {
        let mut gather = Gather::default();
        assert_eq!(gather.add(piece(first, false)), Ok(None));
        assert!(gather.is_inside());
        gather.add(piece(second, true)).map(|listing| listing.map(|l| l.children.len()))
    };
    assert_eq!(add(one("a"), one("b")), Ok(Some(2)));
    assert_eq!(add(one("b"), one("b")).unwrap_err().fault, Fault::Order);
    assert_eq!(add(one("b"), one("a")).unwrap_err().fault, Fault::Order);
    for change in [
        |l: &mut Listing| l.path = path("other"),
        |l: &mut Listing| l.seq += 1,
        |l: &mut Listing| l.full = false,
        |l: &mut Listing| l.digest = Digest(8),
        |l: &mut Listing| l.sub = Arc::default(),
        |l: &mut Listing| l.bound = Arc::default(),
    ] {
        let mut second = one("b");
        change(&mut second);
        assert!(matches!(add(one("a"), second).unwrap_err().fault, Fault::Contradiction(_)));
    }
}

#[test]
fn paths_asked_for_by_name_are_told_once_in_as_many_messages_as_it_takes() {
    let long = "x".repeat(200);
    let paths: BTreeSet<RelPath> = (0..MAX_ALSO).map(|n| path(&format!("{long}/{n:05}"))).collect();
    let messages = Also::messages(&paths);
    assert!(messages.len() > 1);
    let mut all = BTreeSet::from([path("of the pull before")]);
    for also in messages {
        let mut bytes = Vec::new();
        put_frame(&Message::Also(also.clone()), &mut bytes).unwrap();
        also.add_to(&mut all).unwrap();
    }
    assert_eq!(all, paths);
    assert!(Also { first: false, paths: vec![path("one more")] }.add_to(&mut all).is_err());
    assert_eq!(Also::messages(&BTreeSet::new()), [Also { first: true, paths: vec![] }]);
}

#[test]
fn decisions_are_told_in_as_many_messages_as_it_takes() {
    let decided =
        |n: u64| DecidedPath { path: path(&format!("{n:06}")), decision: Decision::Both, about: event(1, n + 1).into() };
    let all: Vec<_> = (0..20_000).map(decided).collect();
    let messages = Decided::messages(all.clone());
    assert!(messages.len() > 1);
    let (mut back, mut bytes, mut last) = (Vec::new(), 0, false);
    for decided in messages {
        assert!(!last);
        put_frame(&Message::Decided(decided.clone()), &mut Vec::new()).unwrap();
        last = decided.add_to(&mut back, &mut bytes).unwrap();
    }
    assert!(last && back == all);
    assert_eq!(Decided::messages(vec![]), [Decided { paths: vec![], last: true }]);
}

#[test]
fn filters_become_those_of_the_store() {
    use crate::store;
    let also: Arc<BTreeSet<RelPath>> = Arc::new(BTreeSet::from([path("a/b")]));
    let names = Arc::new(vec![Name::parse(b"a").unwrap()]);
    for filter in [store::Filter::All, store::Filter::Since { after: 4, also: also.clone() }, store::Filter::Only(names)] {
        assert_eq!(Filter::from(&filter).to_store(&also), filter);
    }
    let header = Filter::from(&store::Filter::Since { after: u64::MAX, also });
    assert_eq!(header, Filter::Since(MAX_SIZE));
}

#[test]
fn the_newest_common_version_is_spoken() {
    let versions = |oldest, newest| Versions { oldest, newest };
    assert_eq!(versions(1, 3).common(versions(2, 9)), Some(3));
    assert_eq!(versions(2, 9).common(versions(1, 3)), Some(3));
    assert_eq!(versions(1, 1).common(versions(2, 9)), None);
    assert_eq!(Versions::OURS.common(Versions::OURS), Some(PROTOCOL));
}

#[test]
fn problems_come_back_and_those_that_do_not_fit_are_left_out() {
    use crate::report;
    let problem = |step, error: &str| report::Problem { path: path("a"), step, error: error.into() };
    let known = problem("read", "permission denied");
    assert_eq!(report::Problem::from(Problem::from(&known)), known);
    let foreign = Problem { path: path("a"), step: "juggle".into(), error: "dropped".into() };
    assert_eq!(report::Problem::from(foreign), problem("apply", "juggle: dropped"));
    let many = vec![problem("read", &"ä".repeat(5000)); 10_000];
    let some = Problem::some(&many);
    assert!(some.len() > 50 && some.len() < 100);
    assert_eq!(some[0].error.len(), MAX_TEXT);
}

#[test]
fn a_delta_comes_through_in_pieces_of_any_length() {
    let literal = vec![3; LITERAL_BYTES];
    let ops = [
        Op::Copy { offset: 1 << 36, len: OP_BYTES },
        Op::Literal(&literal),
        Op::Zeros(OP_BYTES),
        Op::Literal(b"x"),
        Op::Copy { offset: 0, len: 1 },
    ];
    let mut bytes = Vec::new();
    ops.iter().for_each(|op| put_op(op, &mut bytes));
    for step in [1, 7, 1000, bytes.len()] {
        let mut reader = OpReader::default();
        let mut read = Vec::new();
        for part in bytes.chunks(step) {
            reader.feed(part);
            while let Some(op) = reader.next_op().unwrap() {
                read.push(format!("{op:?}"));
            }
        }
        reader.finish().unwrap();
        assert_eq!(read, ops.map(|op| format!("{op:?}")));
    }
    for cut in [1, 5, 20, 1000, bytes.len() - 1] {
        let mut reader = OpReader::default();
        reader.feed(&bytes[..cut]);
        while reader.next_op().unwrap().is_some() {}
        assert!(reader.finish().is_err(), "{cut}");
    }
}
