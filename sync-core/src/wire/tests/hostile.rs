//! What a peer might send to do harm.

use super::*;
use crate::wire::code::put_number;

fn refused(bytes: &[u8]) -> WireError {
    Message::decode(bytes).unwrap_err()
}

fn numbers(tag: u8, numbers: &[u64]) -> Vec<u8> {
    let mut bytes = vec![tag];
    numbers.iter().for_each(|number| put_number(&mut bytes, *number));
    bytes
}

/// A piece with this body after tables of two replicas and of vectors, given as bytes.
fn listing_bytes(vectors: &[u8], children: &[u8]) -> Vec<u8> {
    let mut bytes = vec![13, 2];
    bytes.extend([1; 16]);
    bytes.extend([2; 16]);
    bytes.extend(vectors);
    // Root, sub, bound, digest, seq, flags.
    bytes.extend([0, 0, 0]);
    bytes.extend([0; 16]);
    bytes.extend([0, 3]);
    bytes.extend(children);
    bytes
}

/// {1: 5}
const ONE_VECTOR: [u8; 4] = [1, 1, 0, 5];

#[test]
fn names_that_could_leave_the_root_or_confuse_are_refused() {
    let mut names: Vec<Vec<u8>> = [
        "",
        ".",
        "..",
        "/",
        "//",
        "a/",
        "/a",
        "a//b",
        "./a",
        "a/.",
        "../a",
        "a/..",
        "a/../b",
        "a/./b",
        "...//",
        "../../etc",
        ".driftless",
        ".driftless/state.db",
        "a/.driftless",
        "a/.driftless/b",
        "\0",
        "a\0",
        "\0a",
        "a\0b",
        "a/\0",
        "..\0",
        "/etc/passwd",
        "//etc",
        "/..",
        "/.",
        "../",
        "./",
        ".//",
        "..//",
        "a/b/",
        "a/b//c",
        "a/b/../c",
        "a/b/./c",
        "a/b/..",
        "a/b/.",
        "/a/b",
        "a/\0/b",
        ".driftless/",
        "/.driftless",
        "../.driftless",
        "b/.driftless/versions/x",
        "a/../../b",
        "./..",
        "../.",
        "../..",
        "./.",
        "a/../..",
        "a/././b",
        "/a/",
        "//a//",
        "a\0/b",
    ]
    .iter()
    .map(|name| name.as_bytes().to_vec())
    .collect();
    names.push(vec![b'x'; 256]);
    names.push([&b"a/"[..], &[b'x'; 256]].concat());
    names.push(vec![b'x'; 70_000]);
    names.push(b"d/".repeat(256).iter().copied().chain(*b"e").collect());
    names.push(b"../".repeat(20_000));
    names.push(vec![b"d".repeat(255); 257].join(&b'/'));
    names.push(b"/".repeat(1000));
    names.push(vec![0; 255]);
    assert_eq!(names.len(), 64);
    for name in &names {
        let mut body = Vec::new();
        put_number(&mut body, name.len() as u64);
        body.extend(name);
        let shown = crate::path::escape(&name[..name.len().min(40)]);
        // As a path, where the empty one is the root.
        let as_path = Message::decode(&[&[15][..], &body].concat());
        if name.is_empty() {
            assert_eq!(as_path, Ok(Message::DigestRequest(DigestRequest { path: RelPath::root() })));
        } else {
            assert!(matches!(as_path, Err(WireError { field: "DigestRequest.path", fault: Fault::Path(_), .. })), "{shown}");
        }
        // As a name of a request, and of a row.
        let request = [&[11, 0, 2, 1][..], &body, &[0]].concat();
        assert!(matches!(refused(&request).fault, Fault::Path(_)), "{shown}");
        let row = [&[1, 0][..], &body].concat();
        let error = refused(&listing_bytes(&ONE_VECTOR, &row));
        assert!(matches!(error, WireError { field: "Child.name", fault: Fault::Path(_), .. }), "{shown}: {error}");
    }
}

#[test]
fn sizes_are_those_of_files() {
    for size in [1u64 << 63, (1 << 63) + 1, u64::MAX - 1, u64::MAX] {
        let large = Fault::Large { found: size, most: MAX_SIZE };
        assert_eq!(refused(&numbers(21, &[0, size, 0])).fault, large, "a file that begins");
        assert_eq!(refused(&numbers(28, &[size])).fault, large, "a number of paths");
        let mut row = vec![1, 2, 1, b'a'];
        put_number(&mut row, size);
        let error = refused(&listing_bytes(&ONE_VECTOR, &row));
        assert_eq!((error.field, error.fault), ("Row.content", large.clone()));
        let mut vectors = vec![1, 1, 0];
        put_number(&mut vectors, size);
        assert_eq!(refused(&listing_bytes(&vectors, &[0])).fault, large, "a counter");
    }
    assert!(Message::decode(&numbers(21, &[0, MAX_SIZE, 0])).is_ok());
}

#[test]
fn numbers_have_one_form() {
    for (bytes, fault) in [
        (&[14, 0x80, 0][..], Fault::Number),
        (&[14, 0x81, 0x80, 0], Fault::Number),
        (&[14, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], Fault::Number),
        (&[14, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 1], Fault::Number),
        (&[14, 0x80], Fault::Ends),
        (&[14, 0x80, 0x80, 0x80, 0x80, 0x10], Fault::Large { found: 1 << 32, most: u64::from(u32::MAX) }),
    ] {
        assert_eq!(refused(bytes).fault, fault, "{bytes:?}");
    }
}

#[test]
fn vectors_are_sorted_without_repetition_and_count_from_one() {
    let tables: [(&[u8], Fault); 6] = [
        (&[1, 2, 1, 5, 0, 5], Fault::Order),
        (&[1, 2, 0, 5, 0, 6], Fault::Order),
        (&[1, 1, 0, 0], Fault::Contradiction("a counter is 0")),
        (&[1, 1, 2, 5], Fault::Unknown(2)),
        (&[1, 3, 0, 1, 1, 1, 1, 1], Fault::Order),
        (&[1, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 1], Fault::Unknown(1 << 63)),
    ];
    for (vectors, fault) in tables {
        let error = refused(&listing_bytes(vectors, &[0]));
        assert_eq!((error.field, error.fault), ("table of vectors", fault), "{vectors:?}");
    }
    // On its own, as in what a replica has seen.
    let mut bytes = vec![5, 0, 0, 2];
    bytes.extend([2; 16]);
    bytes.push(1);
    bytes.extend([1; 16]);
    bytes.push(1);
    let error = refused(&bytes);
    assert_eq!((error.field, error.fault), ("Introduction.knows", Fault::Order));
}

#[test]
fn rows_ascend_and_have_no_name_twice() {
    let row = |name: u8| [0, 1, name];
    for (a, b, right) in [(b'a', b'b', true), (b'a', b'a', false), (b'b', b'a', false)] {
        let bytes = listing_bytes(&ONE_VECTOR, &[&[2][..], &row(a), &row(b)].concat());
        match Message::decode(&bytes) {
            Ok(_) => assert!(right),
            Err(error) => assert_eq!((right, error.field, error.fault), (false, "Listing.children", Fault::Order)),
        }
    }
    assert_eq!(refused(&[11, 0, 2, 2, 1, b'b', 1, b'a', 0]).fault, Fault::Order);
    assert_eq!(refused(&[12, 1, 2, 1, b'a', 1, b'a']).fault, Fault::Order);
}

#[test]
fn decisions_ascend_by_path_and_come_to_an_end() {
    assert_eq!(refused(&[35, 2, 1, b'b', 0, 0, 1, b'a', 0, 0, 1]).fault, Fault::Order);
    assert_eq!(refused(&[35, 1, 1, b'b', 4, 0, 1]).fault, Fault::Unknown(4));
    let decided = |name: &str, last| {
        let one = DecidedPath { path: path(name), decision: Decision::Local, about: Vector::new() };
        Decided { paths: vec![one], last }
    };
    let (mut all, mut bytes) = (Vec::new(), 0);
    assert_eq!(decided("b", false).add_to(&mut all, &mut bytes), Ok(false));
    assert_eq!(decided("b", true).add_to(&mut all, &mut bytes).unwrap_err().fault, Fault::Order);
    let none = Decided { paths: vec![], last: false };
    assert_eq!(none.add_to(&mut all, &mut bytes).unwrap_err().fault, Fault::Empty);
    assert_eq!(decided("c", true).add_to(&mut all, &mut bytes), Ok(true));
    all.clear();
    let long = "x".repeat(250);
    let most = loop {
        let next = decided(&format!("{:012}/{}", all.len(), [&long[..]; 200].join("/")), false);
        if let Err(error) = next.add_to(&mut all, &mut bytes) {
            break error;
        }
    };
    assert!(matches!(most.fault, Fault::Large { .. }) && all.len() < 10_000, "{most}, {}", all.len());
}

#[test]
fn so_many_rows_ahead_are_not_asked_for() {
    let mut request = vec![11, 0, 0];
    put_number(&mut request, u64::from(MAX_AHEAD) + 1);
    assert_eq!(refused(&request).field, "ListRequest.ahead");
}

#[test]
fn a_directory_that_never_ends_is_refused() {
    let piece = |children, last| Piece { listing: listing(children), last };
    assert_eq!(Gather::default().add(piece(vec![], false)).unwrap_err().fault, Fault::Empty);
    assert!(Gather::default().add(piece(vec![], true)).is_ok());
    let mut gather = Gather::default();
    let wide: Vector = (0..MAX_REPLICAS as u32)
        .map(|n| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            Event { replica: ReplicaId(id), counter: 1 }
        })
        .collect();
    let wide = Arc::new(wide);
    let mut sent = 0;
    let error = loop {
        let children = (0..8u32).map(|n| {
            let name = Name::parse(format!("{:09}", sent * 8 + n).as_bytes()).unwrap();
            Child { name, row: None, own: Some(wide.clone()), tree: None }
        });
        match gather.add(piece(children.collect(), false)) {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error.fault, Fault::Large { .. }) && sent < 10_000, "{error}, {sent}");
}

#[test]
fn attributes_are_bounded() {
    // A file of 0 bytes without a hash: mode, uid, gid, time, m; c as m.
    let row = |attrs: &[u64]| {
        let mut row = vec![1, 2 | 1 << 5, 1, b'a', 0];
        attrs.iter().for_each(|value| put_number(&mut row, *value));
        row.extend([0, 0]);
        Message::decode(&listing_bytes(&ONE_VECTOR, &row)).map_err(|error| error.field)
    };
    assert!(row(&[0o7777, 0, 0]).is_ok());
    assert_eq!(row(&[0o10000, 0, 0]), Err("Attrs.mode"));
    assert_eq!(row(&[0o100_644, 0, 0]), Err("Attrs.mode"));
    // To the system this one means "leave the owner as it is".
    assert_eq!(row(&[0, u64::from(u32::MAX), 0]), Err("Attrs.uid"));
    assert_eq!(row(&[0, 0, u64::from(u32::MAX)]), Err("Attrs.gid"));
    assert_eq!(row(&[0, 1 << 32, 0]), Err("Attrs.uid"));
}

#[test]
fn flags_of_a_row_fit_its_kind() {
    // Bit 7; a hash, a creation or attributes of a ghost; a hash of a link or a directory; a directory without a tree.
    for flags in [0x80, 0x82, 0x10, 0x20, 0x40, 0x13, 0x19, 0x01] {
        let error = refused(&listing_bytes(&ONE_VECTOR, &[1, flags, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(error.field, "Child.flags", "{flags:#x}");
    }
}

#[test]
fn enumerations_have_no_other_values() {
    let cases: [(&[u8], u64); 13] = [
        (&[0], 0),
        (&[45], 45),
        (&[19, 0, 0, 3], 3),
        (&[255], 255),
        (&[3, 0, 0], 0),
        (&[3, 11, 0], 11),
        (&[8, 4], 4),
        (&[26, 2], 2),
        (&[21, 0, 0, 4], 4),
        (&[11, 0, 3], 3),
        (&[27, 0, 3], 3),
        (&[27, 0, 0, 6], 6),
        (&[27, 0, 0, 0, 0, 0, 1, 4], 4),
    ];
    for (bytes, value) in cases {
        assert_eq!(refused(bytes).fault, Fault::Unknown(value), "{bytes:?}");
    }
}

#[test]
fn shares_of_deletions_are_shares() {
    let mut open = Vec::new();
    let message = |percent| {
        let mut bytes = vec![4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 2];
        bytes.extend(f64::to_le_bytes(percent));
        bytes.extend([0, 0, 0, 0]);
        bytes
    };
    for percent in [-0.5, 100.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = refused(&message(percent));
        assert_eq!(error.field, "Open.max_delete", "{percent}");
        open.push(error);
    }
    assert!(Message::decode(&message(0.0)).is_ok());
    assert!(Message::decode(&message(100.0)).is_ok());
}

#[test]
fn lists_of_a_million_are_refused_before_anything_is_held() {
    let most = Fault::Large { found: 1_000_000, most: MAX_LIST as u64 };
    for (start, field) in [
        (&[17][..], "HashRequest.paths"),
        (&[18, 0], "Hashed.results"),
        (&[12, 0], "Also.paths"),
        (&[11, 0, 2], "ListRequest.filter"),
        (&[13], "table of replicas"),
        (&[13, 0], "table of vectors"),
        (&[19, 0, 0, 0], "FetchRequest.files"),
        (&[24, 0], "SmallFiles.files"),
    ] {
        let mut bytes = start.to_vec();
        put_number(&mut bytes, 1_000_000);
        bytes.extend(vec![0; 1_000_000]);
        let error = refused(&bytes);
        assert_eq!((error.field, error.fault), (field, most.clone()));
        // Up to the limit the elements have to be there.
        let mut bytes = start.to_vec();
        put_number(&mut bytes, MAX_LIST as u64);
        bytes.extend([0; 100]);
        assert_eq!(refused(&bytes).fault, Fault::Ends, "{field}");
    }
    let mut children = Vec::new();
    put_number(&mut children, 1_000_000);
    assert_eq!(refused(&listing_bytes(&ONE_VECTOR, &children)).fault, most);
}

#[test]
fn small_messages_do_not_become_large_vectors() {
    // Two vectors of a thousand replicas, named by each of many rows as their own.
    let mut bytes = vec![13];
    put_number(&mut bytes, 1000);
    (0..1000u32).for_each(|n| bytes.extend([0; 12].into_iter().chain(n.to_be_bytes())));
    bytes.push(1);
    put_number(&mut bytes, 1000);
    for n in 0..1000 {
        put_number(&mut bytes, n);
        bytes.push(1);
    }
    bytes.extend([0, 0, 0]);
    bytes.extend([0; 16]);
    bytes.extend([0, 3]);
    put_number(&mut bytes, 60_000);
    for n in 0..60_000u32 {
        bytes.extend([2 | 1 << 5 | 1 << 6, 3]);
        bytes.extend([n >> 14, n >> 7, n].map(|digit| 0x80 | (digit & 0x7f) as u8));
        bytes.extend([0, 0, 0]);
    }
    let error = refused(&bytes);
    assert!(matches!(error.fault, Fault::Large { .. }), "{error}");
    assert!(error.field.starts_with("Row."), "{error}");
    // A vector has a limit of its own.
    let mut long = vec![13, 0, 1];
    put_number(&mut long, MAX_REPLICAS as u64 + 1);
    long.extend([0; 5000]);
    assert_eq!(refused(&long).fault, Fault::Large { found: MAX_REPLICAS as u64 + 1, most: MAX_REPLICAS as u64 });
}

#[test]
fn texts_are_text_and_short() {
    assert_eq!(refused(&[9, 2, 0xc3, 0x28]).fault, Fault::Text);
    let mut bytes = vec![9];
    put_number(&mut bytes, MAX_TEXT as u64 + 1);
    bytes.extend(vec![b'x'; MAX_TEXT + 1]);
    assert!(matches!(refused(&bytes).fault, Fault::Large { .. }));
    assert_eq!(cut(&"ä".repeat(3000)).len(), MAX_TEXT);
    let long = bytes_of(&Message::Notice(Notice { text: "ä".repeat(3000) }));
    assert_eq!(Message::decode(&long), Ok(Message::Notice(Notice { text: "ä".repeat(MAX_TEXT / 2) })));
    assert_eq!(cut(&format!("x{}", "ä".repeat(3000))).len(), MAX_TEXT - 1);
}

#[test]
fn rules_are_no_longer_than_what_compiles_in_no_time() {
    let open = |rules: usize| {
        let mut bytes = vec![4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0];
        put_number(&mut bytes, rules as u64);
        bytes.extend(vec![b'x'; rules]);
        bytes.extend([0, 0, 0, 0, 0]);
        Message::decode(&bytes)
    };
    assert!(open(MAX_RULES).is_ok());
    assert_eq!(open(MAX_RULES + 1).unwrap_err().field, "Open.rules");
}

#[test]
fn a_row_without_a_version_is_none() {
    // The second vector of the table is empty.
    let vectors = [2, 1, 0, 5, 0];
    let row = |m: u8, c: u8| [1, 2, 1, b'a', 0, 0, 0, 0, 0, m, c];
    assert!(Message::decode(&listing_bytes(&vectors, &row(0, 0))).is_ok());
    assert_eq!(refused(&listing_bytes(&vectors, &row(1, 0))).field, "Row.m");
    assert_eq!(refused(&listing_bytes(&vectors, &row(0, 1))).field, "Row.c");
    assert_eq!(refused(&listing_bytes(&vectors, &row(2, 0))).fault, Fault::Unknown(2));
}

#[test]
fn bases_are_cut_as_we_cut_them_and_signatures_are_bounded() {
    use crate::delta::{Announced, MAX_BASE, Shape};
    let m: Vector = event(1, 1).into();
    let request = |bases: &[Announced]| {
        let wanted = |base| Wanted { path: path("a"), size: 1, hash: None, m: m.clone(), offset: 0, base: Some(base) };
        let files = bases.iter().copied().map(wanted).collect();
        Message::decode(&bytes_of(&Message::FetchRequest(FetchRequest { packing: Packing::Off, files })))
    };
    let right = Shape::of(1 << 30).unwrap().announced();
    assert!(request(&[right]).is_ok());
    for wrong in [
        Announced { block: 0, ..right },
        Announced { hash: 0, ..right },
        Announced { block: right.block * 2, ..right },
        Announced { hash: 16, ..right },
        Announced { base: 0, ..right },
        Announced { base: MAX_BASE + 1, ..right },
        Announced { base: u64::MAX, ..right },
    ] {
        assert_eq!(request(&[wrong]).unwrap_err().field, "Wanted.base", "{wrong:?}");
    }
    let largest = Shape::of(MAX_BASE).unwrap().announced();
    assert!(request(&[largest; 2]).is_ok());
    assert!(matches!(request(&[largest; 3]).unwrap_err().fault, Fault::Large { most: MAX_SIGNATURES, .. }));
}

#[test]
fn resumption_stays_within_the_file() {
    let wanted = |offset, base| Wanted { path: path("a"), size: 10, hash: None, m: event(1, 1).into(), offset, base };
    let decoded =
        |wanted| Message::decode(&bytes_of(&Message::FetchRequest(FetchRequest { packing: Packing::Off, files: vec![wanted] })));
    assert!(decoded(wanted(10, None)).is_ok());
    assert_eq!(decoded(wanted(11, None)).unwrap_err().field, "Wanted.offset");
    let base = crate::delta::Shape::of(10).unwrap().announced();
    assert!(matches!(decoded(wanted(1, Some(base))).unwrap_err().fault, Fault::Contradiction(_)));
}

#[test]
fn small_files_have_the_bytes_that_their_sizes_tell_and_are_small() {
    let decoded = |sizes: &[u64], data: Data| {
        let files = sizes.iter().map(|size| SmallFile { size: *size, hash: Hash([1; 32]) }).collect();
        Message::decode(&bytes_of(&Message::SmallFiles(SmallFiles { first: 0, files, data })))
    };
    let plain = |len: usize| Data::Plain(vec![1; len].into());
    assert!(
        decoded(&[2, 0, 1], plain(3)).is_ok()
            && decoded(&[0], plain(0)).is_ok()
            && decoded(&[9], Data::Packed([1].into())).is_ok()
    );
    assert!(matches!(decoded(&[2, 1], plain(2)).unwrap_err().fault, Fault::Contradiction(_)));
    assert!(matches!(decoded(&[2, 1], plain(4)).unwrap_err().fault, Fault::Contradiction(_)));
    assert_eq!(decoded(&[], plain(0)).unwrap_err().fault, Fault::Empty);
    assert_eq!(decoded(&[1], Data::Packed([].into())).unwrap_err().fault, Fault::Empty);
    for sizes in [vec![MAX_DATA as u64 + 1], vec![MAX_SIZE; 5]] {
        assert!(matches!(decoded(&sizes, Data::Packed([1].into())).unwrap_err().fault, Fault::Large { .. }));
    }
    let data = |data| Message::decode(&bytes_of(&Message::FileData(FileData { data })));
    assert!(data(plain(MAX_DATA)).is_ok());
    assert!(data(plain(0)).is_ok());
    assert_eq!(data(Data::Packed([].into())).unwrap_err().fault, Fault::Empty);
    assert!(matches!(data(plain(MAX_DATA + 1)).unwrap_err().fault, Fault::Large { .. }));
}

#[test]
fn nothing_may_follow_a_message() {
    assert_eq!(refused(&[33, 0]).fault, Fault::Trailing(1));
    assert_eq!(refused(&[14, 1, 2, 3]).fault, Fault::Trailing(2));
    assert_eq!(refused(&[]).fault, Fault::Ends);
}

#[test]
fn frames_have_a_length_within_their_limit() {
    for (prefix, fault) in [
        (0u32, Fault::Empty),
        (MAX_FRAME as u32 + 1, Fault::Large { found: MAX_FRAME as u64 + 1, most: MAX_FRAME as u64 }),
        (u32::MAX, Fault::Large { found: u64::from(u32::MAX), most: MAX_FRAME as u64 }),
    ] {
        let mut reader = FrameReader::new(usize::MAX);
        reader.feed(&prefix.to_le_bytes());
        assert_eq!(reader.next_message().unwrap_err().fault, fault);
        // It does not find its way again.
        reader.feed(&[1, 0, 0, 0, 33]);
        assert_eq!(reader.next_message().unwrap_err().fault, fault);
    }
    let mut reader = FrameReader::new(MAX_HELLO);
    reader.feed(&5000u32.to_le_bytes());
    assert!(reader.next_message().is_err());
    let mut reader = FrameReader::new(MAX_HELLO);
    reader.set_limit(MAX_FRAME);
    reader.feed(&5000u32.to_le_bytes());
    assert_eq!(reader.next_message(), Ok(None));
    assert!(reader.is_inside());
    let mut out = vec![1, 2];
    let large = Message::SignaturePart(SignaturePart { file: 0, bytes: vec![0; MAX_FRAME - 1].into() });
    assert_eq!(put_frame(&large, &mut out), Err(Oversized(MAX_FRAME + 1)));
    assert_eq!(out, [1, 2]);
    let most = Message::SignaturePart(SignaturePart { file: 0, bytes: vec![0; MAX_FRAME - 2].into() });
    assert_eq!(put_frame(&most, &mut out), Ok(()));
}

#[test]
fn ops_are_bounded() {
    let first = |bytes: &[u8]| {
        let mut reader = OpReader::default();
        reader.feed(bytes);
        reader.next_op().map(|op| op.map(|op| op.output())).map_err(|error| error.fault)
    };
    let op = |tag, values: &[u64]| numbers(tag, values);
    assert_eq!(first(&op(1, &[0, 0])), Err(Fault::Empty));
    assert_eq!(first(&op(2, &[0])), Err(Fault::Empty));
    assert_eq!(first(&op(3, &[0])), Err(Fault::Empty));
    assert!(matches!(first(&op(1, &[0, OP_BYTES + 1])), Err(Fault::Large { .. })));
    assert!(matches!(first(&op(3, &[u64::MAX])), Err(Fault::Large { .. })));
    assert!(matches!(first(&op(2, &[LITERAL_BYTES as u64 + 1])), Err(Fault::Large { .. })));
    assert_eq!(first(&[4]), Err(Fault::Unknown(4)));
    assert_eq!(first(&[0]), Err(Fault::Unknown(0)));
    assert_eq!(first(&op(2, &[LITERAL_BYTES as u64])), Ok(None));
}

#[test]
fn gossip_is_bounded_in_every_part_and_ascends() {
    let id = |byte: u8| [byte; 20].to_vec();
    // Origin, number, age, name, no addresses, no introduction, and so many links.
    let account = |origin: u8, age: u64, name: &str, links: &[Vec<u8>]| {
        let mut bytes = id(origin);
        put_number(&mut bytes, 1);
        put_number(&mut bytes, age);
        put_number(&mut bytes, name.len() as u64);
        bytes.extend(name.as_bytes());
        bytes.extend([0, 0]);
        put_number(&mut bytes, links.len() as u64);
        bytes.extend(links.concat());
        bytes
    };
    let gossip = |accounts: &[Vec<u8>]| {
        let mut bytes = numbers(43, &[accounts.len() as u64]);
        bytes.extend(accounts.concat());
        Message::decode(&bytes).map_err(|error| error.fault)
    };
    let tie = |to: u8, rest: &[u8]| [&id(to)[..], rest].concat();
    let plain = [0u8, 0, 0, 0, 0];
    assert!(gossip(&[account(1, MAX_AGE_S, "a", &[tie(2, &plain), tie(3, &plain)]), account(2, 0, "b", &[])]).is_ok());
    let large = |most: usize| Fault::Large { found: most as u64 + 1, most: most as u64 };
    let many: Vec<Vec<u8>> = (0..=MAX_TOLD as u8).map(|origin| account(origin, 0, "a", &[])).collect();
    assert_eq!(gossip(&many), Err(large(MAX_TOLD)));
    let many: Vec<Vec<u8>> = (0..=MAX_TOLD_LINKS as u8).map(|to| tie(to, &plain)).collect();
    assert_eq!(gossip(&[account(1, 0, "a", &many)]), Err(large(MAX_TOLD_LINKS)));
    assert_eq!(gossip(&[account(1, MAX_AGE_S + 1, "a", &[])]), Err(large(MAX_AGE_S as usize)));
    assert_eq!(gossip(&[account(1, 0, "a", &[]), account(1, 0, "b", &[])]), Err(Fault::Order));
    assert_eq!(gossip(&[account(1, 0, "a", &[tie(3, &plain), tie(2, &plain)])]), Err(Fault::Order));
    for name in ["", "-a", "a b", "a\u{1b}[2J", "\u{e9}"] {
        assert_eq!(gossip(&[account(1, 0, name, &[])]), Err(Fault::Contradiction("no name of a machine")), "{name:?}");
    }
    assert!(matches!(gossip(&[account(1, 0, &"a".repeat(65), &[])]), Err(Fault::Large { .. })));
    // No such mode; an address that is none; a reason that is too long; more lost than sent.
    assert_eq!(gossip(&[account(1, 0, "a", &[tie(2, &[4, 0, 0, 0, 0])])]), Err(Fault::Unknown(4)));
    let address = tie(2, &[0, 0, 0, 1, 0, 3, b'h', b':', b'0', 0]);
    assert_eq!(gossip(&[account(1, 0, "a", &[address])]), Err(Fault::Contradiction("no address")));
    let mut why = tie(2, &[0, 0, 0, 1, 1]);
    put_number(&mut why, MAX_WHY as u64 + 1);
    why.extend([b'x'; MAX_WHY + 1]);
    assert_eq!(gossip(&[account(1, 0, "a", &[why])]), Err(large(MAX_WHY)));
    let mut lost = tie(2, &[0, 0, 0, 0, 1, 0]);
    put_number(&mut lost, 1_000_001);
    assert_eq!(gossip(&[account(1, 0, "a", &[lost])]), Err(large(1_000_000)));
    // A million machines are refused before anything is held.
    assert!(Message::decode(&numbers(43, &[1_000_000])).is_err());
}
