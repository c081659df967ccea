//! Machines that mean harm against a server at its work: known and granted ones, and strangers. An honest machine beside them
//! must always succeed.

use crate::foe::{Foe, LINGER, Talk, event, hello, identity, nonsense};
use crate::lab::{FOLDER, Lab, PATIENCE, Running, setting};
use crate::serving::Serving;
use fixtures::bytes::{Stream as Random, noise};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use sync_core::delta::{Op, Shape};
use sync_core::entry::{Attrs, Content, Digest, Hash, Object};
use sync_core::io::link::{CloseCode, Connection};
use sync_core::knowledge::{Event, Row, Tree, Vector};
use sync_core::path::{Name, RelPath};
use sync_core::store::{Child, Listing};
use sync_core::wire::{
    Also, Apply, Data, DigestAnswer, DigestRequest, Encoding, FetchRequest, FileBegin, FileData, FileEnd, Filter, Introduce,
    ListRequest, ListingEnd, MAX_AHEAD, MAX_DATA, MAX_SIZE, Message, Nothing, Packing, Piece, Ready, Remembered, SmallFile,
    SmallFiles, Survey, Wanted, put_op,
};

/// Machines that are known, each granted a folder of its own.
const KNOWN: usize = 3;
/// What a server may hold at the most, with all of them at it.
const MOST_MEMORY: u64 = 512 << 20;
/// Handshakes that are begun at once, and not finished.
const HALF_OPEN: usize = 120;
/// Questions of one flood.
const FLOOD: usize = 50_000;

/// The server, and what was counted.
struct Scene {
    lab: Lab,
    serving: Serving,
    until: Instant,
    /// Messages that the server was sent in floods.
    messages: AtomicU64,
    /// What was done, and how often.
    done: Mutex<BTreeMap<&'static str, u64>>,
}

fn bait(number: usize) -> String {
    format!("bait{number}")
}

impl Scene {
    fn new(time: Duration) -> Scene {
        let lab = Lab::new();
        // The machine for which nobody has a name.
        lab.id("stranger");
        let mut args = lab.export().to_vec();
        lab.write("canary", "secret", b"nobody reads or changes this");
        for number in 0..KNOWN {
            let name = bait(number);
            lab.knows("b", &name, &lab.id(&name), &["--grant", &format!("{name}=two-way")]);
            for file in 0..50 {
                lab.write(&name, &format!("d{}/{file}", file % 5), &noise(file, 3_000));
            }
            lab.write(&name, "large", &noise(number as u64, 3 << 20));
            std::os::unix::fs::symlink(lab.root("canary"), lab.root(&name).join("out")).unwrap();
            args.extend(["--root".into(), format!("{name}={}", lab.root(&name).display())]);
        }
        let serving = Serving::start(&lab.home("b"), &args);
        Scene { lab, serving, until: Instant::now() + time, messages: AtomicU64::new(0), done: Mutex::default() }
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    fn count(&self, what: &'static str) {
        *self.done.lock().unwrap().entry(what).or_default() += 1;
    }

    /// An honest machine that has something new each time. How often it succeeded.
    fn honest(&self) -> usize {
        let mut runs = 0;
        loop {
            let last = !self.goes_on();
            self.lab.write("a", &format!("from-a/{runs}"), &noise(runs as u64, 2_000));
            self.lab.write("b", &format!("from-b/{runs}"), &noise(!runs as u64, 2_000));
            let ran = Running::start(self.lab.sync(&self.serving.address)).end();
            assert_eq!(ran.code, Some(0), "honest run {runs}: {}{}", ran.out, ran.err);
            runs += 1;
            if last {
                return runs;
            }
        }
    }

    /// One that is known, over and over, each time in another way.
    fn known(&self, number: usize, seed: u64) {
        let foe = Foe::new(&self.lab, &bait(number), &self.serving.address, &bait(number));
        let mut random = Random::new(seed);
        while self.goes_on() {
            let (what, act) = ACTS[random.below(ACTS.len() as u64) as usize];
            let got_there = act(self, &foe, &mut random).is_some();
            self.count(if got_there { what } else { "(turned away)" });
        }
    }

    /// Somebody without a key that counts.
    fn stranger(&self, seed: u64) {
        let foe = Foe::new(&self.lab, "stranger", &self.serving.address, FOLDER);
        let mut random = Random::new(seed);
        let from = Ipv4Addr::new(127, 0, 0, 2 + seed as u8);
        while self.goes_on() {
            match random.below(4) {
                0 => {
                    assert!(foe.connect().is_none(), "a stranger was let in");
                    self.count("stranger at the door");
                }
                1 => {
                    garbage(&self.serving.address, &mut random);
                    self.count("packets of garbage");
                }
                _ => {
                    foe.half_open(1 + random.below(4) as usize, random.below(3) > 0, from);
                    self.count("half-open handshake");
                }
            }
        }
    }
}

/// Packets that are none of QUIC's, or look like its first ones.
fn garbage(address: &str, random: &mut Random) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..500 {
        let mut packet = noise(random.word(), 1 + random.below(1_400) as usize);
        if random.below(2) == 0 {
            packet.resize(1_200, 0);
            packet[0] |= 0xc0;
            packet[1..5].copy_from_slice(&1u32.to_be_bytes());
        }
        // A full buffer drops it.
        let _ = socket.send_to(&packet, address);
    }
}

type Act = fn(&Scene, &Foe, &mut Random) -> Option<()>;

const ACTS: [(&str, Act); 17] = [
    ("connections and nothing", connections),
    ("silence before hello", |_, foe, _| {
        let connection = foe.connect()?;
        thread::sleep(LINGER);
        drop(connection);
        Some(())
    }),
    ("hello byte by byte", |_, foe, _| {
        let connection = foe.connect()?;
        let mut talk = Talk::on(&connection)?;
        drip(&mut talk, &[10, 0, 0, 0, 1, 1, 1])
    }),
    ("nonsense before hello", |_, foe, random| {
        let connection = foe.connect()?;
        let mut talk = Talk::on(&connection)?;
        talk.raw(&nonsense(random))?;
        talk.linger();
        Some(())
    }),
    ("nonsense after hello", |_, foe, random| {
        let (_connection, mut talk) = foe.greeted()?;
        talk.raw(&nonsense(random))?;
        talk.linger();
        Some(())
    }),
    ("hello twice, and silence", |_, foe, _| {
        let (_connection, mut talk) = foe.greeted()?;
        talk.say(&hello())?;
        talk.linger();
        Some(())
    }),
    ("folders of others", others),
    ("open byte by byte", |_, foe, _| {
        let (_connection, mut talk) = foe.greeted()?;
        drip(&mut talk, &[200, 0, 0, 0, 4, 1])
    }),
    ("lies when opening", lies),
    ("nonsense after open", |_, foe, random| {
        let (_connection, mut talk) = foe.opened(|_| ())?;
        talk.raw(&nonsense(random))?;
        talk.linger();
        Some(())
    }),
    ("a flood of wishes", |scene, foe, _| {
        let (_connection, mut talk) = foe.opened(|_| ())?;
        let message = Message::Cancel(Nothing);
        for _ in 0..FLOOD {
            talk.say(&message)?;
            scene.messages.fetch_add(1, Ordering::Relaxed);
        }
        Some(())
    }),
    ("a flood of questions", questions),
    ("streams opened and left", streams),
    ("signatures that never come", signatures),
    ("answers to a survey", |scene, foe, random| pulled(scene, foe, random, false)),
    ("answers to a pull", |scene, foe, random| pulled(scene, foe, random, true)),
    ("answers to a pull, again", |scene, foe, random| pulled(scene, foe, random, true)),
];

fn connections(_: &Scene, foe: &Foe, _: &mut Random) -> Option<()> {
    let all: Vec<Connection> = (0..12).filter_map(|_| foe.connect()).collect();
    (!all.is_empty()).then_some(())
}

/// Slowly, as long as anybody listens.
fn drip(talk: &mut Talk, bytes: &[u8]) -> Option<()> {
    for byte in bytes {
        talk.raw(&[*byte])?;
        thread::sleep(Duration::from_millis(100));
    }
    Some(())
}

fn others(_: &Scene, foe: &Foe, random: &mut Random) -> Option<()> {
    let (_connection, mut talk) = foe.greeted()?;
    let folder = [FOLDER, "none", "", "../canary", "\u{1b}[2J"][random.below(5) as usize].to_owned();
    let sub = RelPath::parse([&b"out"[..], b"d1", b"out/secret", b"none"][random.below(4) as usize]).unwrap();
    for _ in 0..6 {
        talk.say(&Message::Introduce(Introduce {
            folder: folder.clone(),
            sub: sub.clone(),
            location: b"x".to_vec(),
            rejoin: random.below(2) == 0,
        }))?;
    }
    while let Some(answer) = talk.hear(LINGER) {
        assert!(!matches!(answer, Message::Introduced(_)), "{folder:?} was shown to somebody else");
    }
    Some(())
}

/// Claims about who it is, what it has seen, and where.
fn lies(_: &Scene, foe: &Foe, random: &mut Random) -> Option<()> {
    let kind = random.below(6);
    let mut learned = None;
    if kind < 3 {
        // Who the server's replica is.
        let (_connection, mut talk) = foe.greeted()?;
        talk.say(&Message::Introduce(Introduce {
            folder: foe.folder().into(),
            sub: RelPath::root(),
            location: b"x".to_vec(),
            rejoin: false,
        }))?;
        if let Some(Message::Introduced(answer)) = talk.hear(LINGER) {
            learned = answer.introduction.identity;
        }
    }
    let (_connection, mut talk) = foe.opened(|open| {
        let introduction = &mut open.introduction;
        match (kind, learned) {
            (0, Some(theirs)) => introduction.identity = Some(theirs),
            (1, Some(theirs)) => {
                introduction.remembers =
                    vec![Remembered { replica: theirs.replica, counter: theirs.counter + 1_000_000, nonce: 1 }];
            }
            (2, Some(theirs)) => {
                introduction.knows = Vector::from(Event { replica: theirs.replica, counter: MAX_SIZE });
            }
            (3, _) => introduction.knows = (0..=255u8).map(|n| event(n, MAX_SIZE)).collect(),
            (4, _) => {
                open.sub = RelPath::parse(b"out").unwrap();
                introduction.expects = true;
            }
            _ => introduction.location = vec![b'x'; 8 << 10],
        }
    })?;
    talk.say(&Message::Scan(Nothing))?;
    talk.linger();
    Some(())
}

/// Questions about rows whose answers nobody reads for long.
fn questions(scene: &Scene, foe: &Foe, random: &mut Random) -> Option<()> {
    let (connection, _control) = foe.opened(|_| ())?;
    let question = match random.below(3) {
        0 => Message::DigestRequest(DigestRequest { path: RelPath::root() }),
        1 => Message::ListRequest(ListRequest { path: RelPath::root(), filter: Filter::All, ahead: MAX_AHEAD }),
        _ => Message::Also(Also { first: true, paths: vec![RelPath::parse(b"d1").unwrap()] }),
    };
    let mut talk = Talk::on(&connection)?;
    let mut heard = 0;
    for number in 0..FLOOD {
        if talk.say(&question).is_none() {
            // The answers are in the way.
            break;
        }
        scene.messages.fetch_add(1, Ordering::Relaxed);
        if number % 4 == 0 && !matches!(question, Message::Also(_)) && talk.hear(LINGER).is_some() {
            heard += 1;
        }
    }
    // A later run of the same machine ends an earlier one.
    let ended = connection.wait_closed(Duration::ZERO).is_ok();
    assert!(heard > 0 || ended || matches!(question, Message::Also(_)), "no answer at all");
    Some(())
}

/// As many as there can be, each left in the middle of something else.
fn streams(_: &Scene, foe: &Foe, random: &mut Random) -> Option<()> {
    let (connection, _control) = foe.opened(|_| ())?;
    let mut talks: Vec<Talk> = (0..14).map_while(|_| Talk::on(&connection)).collect();
    for talk in &mut talks {
        // The server's own limits may have ended it meanwhile.
        let _ = talk.raw(&nonsense(random));
    }
    thread::sleep(LINGER);
    Some(())
}

/// Asks for a delta against what it never tells, and for what is not there.
fn signatures(_: &Scene, foe: &Foe, random: &mut Random) -> Option<()> {
    let (connection, _control) = foe.opened(|_| ())?;
    let mut talk = Talk::on(&connection)?;
    let size = 3 << 20;
    let base = Shape::of(1 << 30).map(|shape| shape.announced());
    let wanted = |path: &[u8], base| Wanted {
        path: RelPath::parse(path).unwrap(),
        size,
        hash: None,
        m: Vector::from(event(1, 1)),
        offset: 0,
        base,
    };
    let files = vec![wanted(b"large", base), wanted(b"out/secret", None), wanted(b"d1", None), wanted(b"d1/1/2", None)];
    talk.say(&Message::FetchRequest(FetchRequest { packing: Packing::On, files }))?;
    if random.below(2) == 0 {
        talk.raw(&nonsense(random))?;
    }
    while let Some(answer) = talk.hear(LINGER) {
        assert!(
            !matches!(answer, Message::FileBegin(_) | Message::SmallFiles(_)),
            "content of other versions was sent: {answer:?}"
        );
    }
    Some(())
}

/// Lets the server pull from this machine, and answers as it likes.
fn pulled(scene: &Scene, foe: &Foe, random: &mut Random, apply: bool) -> Option<()> {
    let (connection, mut talk) = foe.opened(|_| ())?;
    talk.say(&Message::Scan(Nothing))?;
    loop {
        match talk.hear(Duration::from_secs(30))? {
            Message::Scanned(_) => break,
            Message::Progress(_) | Message::Notice(_) => {}
            _ => return None,
        }
    }
    let seq = random.below(MAX_SIZE);
    talk.say(&Message::Ready(Ready { identity: identity(), seq, passing: false, unavailable: Vec::new(), decisions: false }))?;
    talk.say(&if apply { Message::Apply(Apply { number: 0, items: true }) } else { Message::Survey(Survey { items: true }) })?;
    thread::scope(|scope| {
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until && scene.goes_on() {
            let Ok(stream) = connection.accept(LINGER) else { break };
            let seed = random.word();
            scope.spawn(move || answers(Talk::of(stream), &mut Random::new(seed)));
        }
        talk.linger();
        connection.close(CloseCode::Done);
    });
    Some(())
}

/// One stream's questions, answered as nobody should; `None` once it is over.
fn answers(mut talk: Talk, random: &mut Random) -> Option<()> {
    let kind = random.below(6);
    loop {
        match (talk.hear(Duration::from_secs(2))?, kind) {
            (_, 0) => thread::sleep(LINGER),
            (_, 1) => talk.raw(&nonsense(random))?,
            (Message::ListRequest(request), 2) => many(&mut talk, &request.path)?,
            (Message::ListRequest(request), _) => few(&mut talk, &request.path, random)?,
            (Message::DigestRequest(_), _) => {
                talk.say(&Message::Digest(DigestAnswer { digest: Digest(random.word().into()) }))?
            }
            (Message::FetchRequest(request), _) => content(&mut talk, &request, random)?,
            _ => talk.raw(&nonsense(random))?,
        }
    }
}

fn row(content: Content, counter: u64) -> Row {
    let attrs = Attrs { mode: 0o7777, uid: 0, gid: 0, mtime_ns: i64::MAX };
    let event = event(0xee, counter);
    Row { object: Object { content, attrs }, m: event.into(), c: event.into() }
}

fn child(name: &str, content: Content, counter: u64) -> Child {
    let tree = (content == Content::Dir).then(|| Tree { s: Vector::new(), bound: Arc::default(), digest: Digest(1) });
    Child { name: Name::parse(name.as_bytes()).unwrap(), row: Some(row(content, counter)), own: None, tree }
}

fn listing(path: &RelPath, children: Vec<Child>) -> Listing {
    // It knows everything that anybody will ever do.
    let sub: Vector = [event(0xee, MAX_SIZE), event(0xef, MAX_SIZE)].into_iter().collect();
    let sub = Arc::new(sub);
    Listing { path: path.clone(), bound: sub.clone(), sub, digest: Digest(7), seq: MAX_SIZE, full: true, children }
}

/// A directory without an end; after a while it is left.
fn many(talk: &mut Talk, path: &RelPath) -> Option<()> {
    for piece in 0..40 {
        let rows = (0..2_000).map(|n| child(&format!("{piece:05}-{n:05}"), Content::File { size: 1, hash: None }, MAX_SIZE));
        talk.say(&Message::Listing(Piece { listing: listing(path, rows.collect()), last: false }))?;
    }
    thread::sleep(LINGER);
    None
}

/// Files as large as there can be, links and folders in the place of others, folders in folders without an end.
fn few(talk: &mut Talk, path: &RelPath, random: &mut Random) -> Option<()> {
    let hash = (random.below(2) == 0).then_some(Hash([7; 32]));
    let size = [0, 1, 5_000, 6 << 20, 1 << 62, MAX_SIZE][random.below(6) as usize];
    let mut rows = vec![
        child("bomb", Content::File { size: MAX_DATA as u64, hash: None }, 2),
        child("d1", Content::Symlink(b"/etc"[..].into()), 3),
        child("d2", Content::Dir, 4),
        child("out", Content::Dir, 5),
        child("z", Content::File { size, hash }, MAX_SIZE),
    ];
    if random.below(3) == 0 {
        rows.retain(|child| child.name.as_bytes() != b"d1");
    }
    talk.say(&Message::Listing(Piece { listing: listing(path, rows), last: true }))?;
    talk.say(&Message::ListingEnd(ListingEnd { directories: 1 }))
}

/// Another size, another hash, bombs, and deltas out of nothing.
fn content(talk: &mut Talk, request: &FetchRequest, random: &mut Random) -> Option<()> {
    for (wanted, number) in request.files.iter().zip(0..) {
        let begin = |encoding| Message::FileBegin(FileBegin { file: number, size: wanted.size, encoding });
        let data = |data| Message::FileData(FileData { data });
        match random.below(6) {
            0 => {
                let data = Data::Packed(noise(1, 3_000).into());
                let files = vec![SmallFile { size: MAX_DATA as u64, hash: Hash([1; 32]) }];
                talk.say(&Message::SmallFiles(SmallFiles { first: number, files, data }))?;
            }
            1 => {
                talk.say(&begin(Encoding::Raw))?;
                for _ in 0..20 {
                    talk.say(&data(Data::Plain(vec![0; MAX_DATA].into())))?;
                }
                talk.say(&Message::FileEnd(FileEnd { hash: Hash([1; 32]) }))?;
            }
            2 => {
                let mut ops = Vec::new();
                put_op(&Op::Copy { offset: MAX_SIZE, len: 1 << 20 }, &mut ops);
                talk.say(&begin(Encoding::Delta))?;
                talk.say(&data(Data::Plain(ops.into())))?;
            }
            3 => {
                talk.say(&begin(Encoding::Raw))?;
                return drip(talk, &[9, 0, 0, 0, 22]);
            }
            4 => {
                talk.say(&begin(Encoding::Raw))?;
                talk.say(&Message::FileEnd(FileEnd { hash: Hash([1; 32]) }))?;
            }
            _ => talk.raw(&nonsense(random))?,
        }
    }
    Some(())
}

#[test]
fn hostile_machines_neither_stop_nor_fill_a_server_nor_keep_others_out() {
    let seconds = setting("DRIFTLESS_TEST_HOSTILE", 6);
    let scene = Scene::new(Duration::from_secs(seconds));
    let seed = setting("DRIFTLESS_TEST_SEED", 1);
    let honest = thread::scope(|scope| {
        let scene = &scene;
        for number in 0..KNOWN {
            for worker in 0..4 {
                scope.spawn(move || scene.known(number, seed * 1_000 + (number * 10 + worker) as u64));
            }
        }
        (0..4).for_each(|worker| drop(scope.spawn(move || scene.stranger(seed % 30 + worker))));
        scene.honest()
    });
    let Scene { lab, serving, messages, done, .. } = scene;
    let (peak, done) = (serving.peak(), done.into_inner().unwrap());
    eprintln!("{honest} honest runs, {} messages in floods, at most {} MiB: {done:?}", messages.into_inner(), peak >> 20);
    lab.assert_same(2 * honest);
    let ended = serving.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
    assert!(!ended.err.contains('\u{1b}'), "control characters were shown: {}", ended.err);
    assert!(peak < MOST_MEMORY, "{peak} bytes were held");
    // Nothing outside of a root was touched, nor anything of a root that is not its machine's.
    assert_eq!(fs::read(lab.root("canary").join("secret")).unwrap(), b"nobody reads or changes this");
    assert_eq!(fs::read_dir(lab.root("canary")).unwrap().count(), 1);
}

#[test]
fn handshakes_that_are_never_finished_keep_nobody_out() {
    let lab = Lab::new();
    lab.id("stranger");
    lab.write("a", "x", b"1");
    let serving = lab.serve();
    let foe = Foe::new(&lab, "stranger", &serving.address, FOLDER);
    // More than are let in at a time, from addresses that prove to be their own.
    thread::scope(|scope| {
        for number in 0..HALF_OPEN {
            let (foe, from) = (&foe, Ipv4Addr::new(127, 0, 1, 1 + number as u8 % 4));
            scope.spawn(move || foe.half_open(2, true, from));
        }
    });
    let ran = Running::start(lab.sync(&serving.address)).end();
    ran.code(0);
    let ended = serving.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
}

/// Brings a conversation into a state.
type Begin<'a> = &'a dyn Fn(&Foe) -> Option<(Connection, Talk)>;

#[test]
fn whoever_falls_silent_or_trickles_is_cut_in_time_in_every_state() {
    if setting("DRIFTLESS_TEST_HOSTILE", 0) == 0 {
        eprintln!("SKIPPED: waits of half a minute; DRIFTLESS_TEST_HOSTILE=60 does them");
        return;
    }
    let scene = Scene::new(Duration::ZERO);
    let ready = Message::Ready(Ready { identity: identity(), seq: 1, passing: false, unavailable: Vec::new(), decisions: false });
    let states: [(&str, Begin<'_>); 4] = [
        ("before hello", &|foe| {
            let connection = foe.connect()?;
            let talk = Talk::on(&connection)?;
            Some((connection, talk))
        }),
        ("after hello", &|foe| foe.greeted()),
        ("in a survey", &|foe| {
            let (connection, mut talk) = foe.opened(|_| ())?;
            talk.say(&ready)?;
            talk.say(&Message::Survey(Survey { items: false }))?;
            Some((connection, talk))
        }),
        ("in a pull", &|foe| {
            let (connection, mut talk) = foe.opened(|_| ())?;
            talk.say(&ready)?;
            talk.say(&Message::Apply(Apply { number: 0, items: false }))?;
            Some((connection, talk))
        }),
    ];
    for trickles in [false, true] {
        for (number, (state, begin)) in states.iter().enumerate() {
            let foe = Foe::new(&scene.lab, &bait(number % KNOWN), &scene.serving.address, &bait(number % KNOWN));
            let (connection, mut talk) = begin(&foe).unwrap();
            let started = Instant::now();
            if trickles {
                // A message that is as long as it may be before hello, and comes for ten minutes.
                let bytes = [0, 0x10, 0, 0].into_iter().chain(std::iter::repeat(1));
                let sent = bytes.take_while(|_| started.elapsed() < PATIENCE).try_for_each(|byte| {
                    thread::sleep(Duration::from_millis(100));
                    talk.raw(&[byte])
                });
                assert!(sent.is_none(), "{state}: it was listened to for {PATIENCE:?}");
            }
            connection.wait_closed(PATIENCE).unwrap_or_else(|error| panic!("{state}, trickling {trickles}: {error}"));
            eprintln!("{state}, trickling {trickles}: cut after {:.1?}", started.elapsed());
        }
    }
    assert_eq!(scene.serving.end(Signal::TERM).code, Some(0));
}
