//! Bytes of messages, as `docs/format.md` tells them. A change here is a change of the protocol.

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn golden(message: Message, expected: &str) {
    let found: String = bytes_of(&message).iter().map(|b| format!("{b:02x}")).collect();
    let expected = hex(expected);
    assert_eq!(found, expected.iter().map(|b| format!("{b:02x}")).collect::<String>(), "{}", message.name());
    assert_eq!(Message::decode(&expected), Ok(message));
}

#[test]
fn hello() {
    let hello = Hello {
        versions: Versions { oldest: 1, newest: 300 },
        program: "d 1".into(),
        capabilities: 5,
        nonce: [0xab; 32],
        token: vec![1, 2],
    };
    golden(Message::Hello(hello), &format!("01 01 ac02 03 642031 05 {} 02 0102", "ab".repeat(32)));
    golden(Message::Refused(Refused { code: Refusal::Busy, text: "no".into() }), "03 04 02 6e6f");
}

#[test]
fn open() {
    let open = Open {
        folder: "f".into(),
        sub: path("a/b"),
        introduction: Introduction {
            identity: Some(Identity { replica: ReplicaId([7; 16]), instance: 0x0102_0304, counter: 9, nonce: 1 }),
            knows: event(1, 2).into(),
            remembers: vec![Remembered { replica: ReplicaId([8; 16]), counter: 3, nonce: 2 }],
            location: b"/x".to_vec(),
            expects: true,
        },
        dry_run: true,
        rejoin: false,
        checksum: true,
        scope: vec![path("x")],
        policy: Policy::Newer,
        force: Some(Side::Asked),
        mask: crate::entry::AttrMask { perms: true, owner: false, times: true },
        run_rules: "*.o\n".into(),
        rules: String::new(),
        max_delete: MaxDelete::Percent(50.0),
        transfer: Transfer { packing: Packing::On, whole_files: true, limit: Some(300) },
        watched: Some(200),
    };
    let identity = format!("01 {} 0403020100000000 09 0100000000000000", "07".repeat(16));
    let knows = format!("01 {} 02", "01".repeat(16));
    let remembers = format!("01 {} 03 0200000000000000", "08".repeat(16));
    let introduction = format!("{identity} {knows} {remembers} 02 2f78 01");
    let expected = format!(
        "04 01 66 03 612f62 {introduction} 01 00 01 01 01 78 02 01 01 05 04 2a2e6f0a 00 02 0000000000004940 02 01 01ac02 01c801"
    );
    golden(Message::Open(open), &expected);
}

#[test]
fn listing_of_a_file_a_ghost_a_link_and_a_directory() {
    let mut ghost = leaf("gone", file(0, None, event(1, 1)));
    (ghost.row, ghost.own) = (None, Some(Arc::new(event(2, 9).into())));
    let mut dir = leaf("z", file(0, None, event(1, 50)));
    dir.tree = Some(crate::knowledge::Tree { s: Vector::new(), bound: Arc::new(event(1, 70).into()), digest: Digest(1) });
    if let Some(row) = &mut dir.row {
        row.object = Object { content: Content::Dir, attrs: Attrs { mode: 0o755, uid: 0, gid: 0, mtime_ns: 0 } };
        row.c = event(2, 9).into();
    }
    let mut file = file(300, Some(Hash([0xcc; 32])), event(1, 50));
    file.object.attrs.mtime_ns = 1000;
    let mut link = file.clone();
    link.object.content = Content::Symlink(b"t"[..].into());
    link.object.attrs.mtime_ns = 998;
    let children = vec![leaf("a", file), ghost, leaf("l", link), dir];
    let (one, two) = ("01".repeat(16), "02".repeat(16));
    let expected = [
        "0d",
        // Replicas; vectors: {1: 70, 2: 9}, {1: 50}, {2: 9}, {}, {1: 70}.
        &format!("02 {one} {two} 05 02 0046 0109 01 0032 01 0109 00 01 0046"),
        "07 323032362f3033 00 00 07000000000000000000000000000000 0c 03 04",
        // A file with a hash, c as m; mode, uid, gid; mtime.
        &format!("32 01 61 ac02 {} a403 e807 e807 d00f 01", "cc".repeat(32)),
        "04 04 676f6e65 02",
        // A link, its attributes like those before but for the time.
        "63 01 6c 01 74 03 01",
        "09 01 7a ed03 00 00 cb0f 01 02 03 04 01000000000000000000000000000000",
    ];
    golden(Message::Listing(Piece { listing: listing(children), last: true }), &expected.concat());
}

#[test]
fn requests_and_content() {
    let request = ListRequest { path: path("a"), filter: Filter::Since(5), ahead: 1000 };
    golden(Message::ListRequest(request), "0b 01 61 01 05 e807");
    golden(Message::DecidedRequest(DecidedRequest { with: ReplicaId([7; 16]) }), &format!("22 {}", "07".repeat(16)));
    let decided = DecidedPath { path: path("a"), decision: Decision::Newer, about: event(1, 3).into() };
    let expected = format!("23 01 01 61 02 01 {} 03 01", "01".repeat(16));
    golden(Message::Decided(Decided { paths: vec![decided], last: true }), &expected);
    let base = crate::delta::Shape::of(1 << 30).unwrap().announced();
    let wanted = Wanted { path: path("a"), size: 2, hash: None, m: event(1, 3).into(), offset: 0, base: Some(base) };
    let expected = format!("13 01 {} 01 01 0003 01 01 01 61 02 00 00 00 01 8080808004 808002 08", "01".repeat(16));
    golden(Message::FetchRequest(FetchRequest { packing: Packing::Auto, files: vec![wanted] }), &expected);
    golden(Message::Lane(Lane { number: 300 }), "27 ac02");
    golden(Message::Widen(Widen { lanes: vec![1, 300] }), "28 02 01 ac02");
    golden(Message::FileBegin(FileBegin { file: 3, size: 128, encoding: Encoding::Delta }), "15 03 8001 01");
    golden(Message::FileData(FileData { data: Data::Plain(b"abc"[..].into()) }), "16 00 616263");
    golden(Message::FileData(FileData { data: Data::Packed(b"abc"[..].into()) }), "16 01 616263");
    let files = vec![SmallFile { size: 3, hash: Hash([2; 32]) }, SmallFile { size: 0, hash: Hash([3; 32]) }];
    let small = SmallFiles { first: 7, files, data: Data::Plain(b"abc"[..].into()) };
    let hashes = ["02", "03"].map(|byte| byte.repeat(32));
    golden(Message::SmallFiles(small), &format!("18 07 02 03 {} 00 {} 00 616263", hashes[0], hashes[1]));
    golden(Message::FileEnd(FileEnd { hash: Hash([1; 32]) }), &format!("17 {}", "01".repeat(32)));
    golden(Message::Bye(Nothing), "21");
    golden(Message::Changed(Nothing), "2c");
    let report = Report { sent: 300, lost: 1, incorporated: 2, files: 3, bytes: 4, clock_ms: 1_772_668_800_000 };
    golden(Message::Report(report), "2a ac02 01 02 03 04 8098addacb33");
}

#[test]
fn frames_and_ops() {
    let mut frame = Vec::new();
    put_frame(&Message::ListingEnd(ListingEnd { directories: 7 }), &mut frame).unwrap();
    assert_eq!(frame, hex("02000000 0e 07"));
    let mut ops = Vec::new();
    [Op::Copy { offset: 128, len: 5 }, Op::Literal(b"xy"), Op::Zeros(65536)].iter().for_each(|op| put_op(op, &mut ops));
    assert_eq!(ops, hex("01 8001 05  02 02 7879  03 808004"));
}

#[test]
fn gossip() {
    let id = |byte| crate::peer::Id::from_bytes([byte; 20]);
    let way = Way { rtt_us: 300, lost: 5, goodput: Some(300) };
    let links = vec![
        Tie {
            to: id(1),
            mode: crate::peer::Mode::NoDelete,
            learnt: true,
            called: Some(Caller::Other),
            reaches: Some(Reaches::Answers("h:1".parse().unwrap())),
            way: Some(way),
        },
        Tie {
            to: id(2),
            mode: crate::peer::Mode::TwoWay,
            learnt: false,
            called: None,
            reaches: Some(Reaches::fails("no")),
            way: None,
        },
    ];
    let (name, addresses) = ("a".parse().unwrap(), vec!["h:2".parse().unwrap()]);
    let account = Account { origin: id(7), number: 300, age_s: 9, name, addresses, introduces: true, links };
    let links = format!(
        "02 {} 03 01 0101 01 00 03 683a31 01 ac02 05 01ac02 {} 00 00 00 01 01 02 6e6f 00",
        "01".repeat(20),
        "02".repeat(20)
    );
    let expected = format!("2b 01 {} ac02 09 01 61 01 03 683a32 01 {links}", "07".repeat(20));
    golden(Message::Gossip(Gossip { machines: vec![account] }), &expected);
}
