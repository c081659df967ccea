//! What is refused between two machines: each refusal ends the command with 3, says what was attempted and what to do, and leaves both
//! roots as they are. And what looks like it and is none, since nothing is lost by going on.

use crate::machine::Machine;
use crate::machines::{PEER, acquainted, hot};
use crate::pair::{stderr, tree};
use assert_cmd::assert::Assert;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use sync_core::entry::{AttrMask, Attrs, Content, Digest, Object};
use sync_core::io::channel::{Channel, ChannelError};
use sync_core::io::home::Home;
use sync_core::io::link::{CloseCode, Connection, Identity as Key, Network};
use sync_core::io::state::{State, StateError};
use sync_core::knowledge::{Creation, Event, ReplicaId, Row, Tree, Vector};
use sync_core::path::{Name, RelPath};
use sync_core::peer::Mode;
use sync_core::store::{Child, Filter, Listing};
use sync_core::wire::{
    Applied, Decided, DigestAnswer, Finished, Hello, HelloAnswer, Identity, Introduction, ListingEnd, MaxDelete, Message,
    Nothing, Open, Opened, Piece, Policy, Ready, Refusal, Refused, Remembered, RulesNow, Scanned, Survey, Surveyed, Totals,
    Transfer, Versions,
};

/// No step of a conversation may take longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// More changes than any root here has made.
const BEYOND: u64 = 1_000_000;

/// A root, and what it held.
type Held = (PathBuf, BTreeMap<PathBuf, Vec<u8>>);

/// The roots hold what they held, and the command ended with 3 and these words.
#[track_caller]
fn assert_refused(ended: Assert, words: &[&str], before: &[Held]) -> String {
    let told = stderr(&ended.code(3));
    for word in words {
        assert!(told.contains(word), "{word:?} is missing: {told}");
    }
    for (root, held) in before {
        assert_eq!(&tree(root), held, "{}: {told}", root.display());
    }
    told
}

/// What roots hold.
fn held(roots: &[PathBuf]) -> Vec<Held> {
    roots.iter().map(|root| (root.clone(), tree(root))).collect()
}

/// The folder `hot` of both.
fn both(server: &Machine, laptop: &Machine) -> Vec<Held> {
    held(&[server.folder("hot"), laptop.folder("hot")])
}

#[test]
fn another_key_at_the_address_is_refused() {
    let (impostor, laptop) = acquainted("two-way");
    let serving = impostor.serve(&["hot"], &[]);
    laptop.run(&["peer", "remove", "server"]).code(0);
    laptop.knows("server", &Machine::new(), &[&serving.address]);
    laptop.write("hot", "x", "1");
    let before = both(&impostor, &laptop);
    let id = format!("another machine answers there, with the id {}", impostor.id());
    let words = ["cannot reach the peer server", &serving.address, &id, "pair with it anew"];
    assert_refused(laptop.sync("hot", &hot(&serving), &[]), &words, &before);
    assert!(!laptop.folder("hot").join(".driftless").exists() && !impostor.folder("hot").join(".driftless").exists());
}

#[test]
fn an_unknown_machine_is_refused_on_both_sides_and_told_of_once() {
    let (server, laptop) = (Machine::new(), Machine::new());
    laptop.knows("server", &server, &[]);
    laptop.write("hot", "x", "1");
    let serving = server.serve(&["hot"], &[]);
    let before = both(&server, &laptop);
    for _ in 0..2 {
        let words = ["cannot reach the peer server", "that machine does not know this one", "driftless pair"];
        assert_refused(laptop.sync("hot", &hot(&serving), &PEER), &words, &before);
    }
    let ended = serving.end(Signal::TERM);
    assert_eq!(ended.err.matches(&format!("no known peer has the id {}", laptop.id())).count(), 1, "{}", ended.err);
}

#[test]
fn a_wrong_code_is_burnt_and_nothing_is_stored() {
    let (server, laptop) = (Machine::new(), Machine::new());
    let showing = server.show_code(&["--json"]);
    let (address, code) = (showing.address.clone(), showing.code.clone());
    let words = ["the code was wrong", "start again with `driftless pair --listen`"];
    assert_refused(laptop.run(&["pair", showing.wrong_code(), &address]), &words, &[]);
    let (ended, out, err) = showing.end();
    assert_eq!(ended, 3);
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert!(last["error"].as_str().unwrap().contains("the code was wrong") && err.contains("the code was wrong"), "{out}{err}");
    // The right one is of no use any more: nobody listens.
    let silent = UdpSocket::bind(&address).unwrap();
    assert_refused(laptop.run(&["pair", &code, &address]), &[&address, "no answer"], &[]);
    drop(silent);
    assert!(server.peers().is_empty() && laptop.peers().is_empty());
}

#[test]
fn a_folder_that_is_not_granted_or_not_there_is_refused() {
    let (server, laptop) = acquainted("two-way");
    server.knows("other", &Machine::new(), &["--grant", "cold=two-way"]);
    laptop.write("hot", "own", "1");
    for folder in ["cold", "hot"] {
        server.write(folder, "secret", "1");
    }
    let serving = server.serve(&["hot", "cold"], &[]);
    let before = held(&[server.folder("hot"), server.folder("cold"), laptop.folder("hot")]);
    for folder in ["cold", "none"] {
        let root = format!("quic://{}/{folder}", serving.address);
        let words = [&root, &format!("the folder {folder} is not granted to this machine"), &format!("--grant {folder}=MODE")];
        assert_refused(laptop.sync("hot", &root, &PEER), &words.map(|word| word.as_str()), &before);
    }
    laptop.sync("hot", &hot(&serving), &PEER).code(0);
}

#[test]
fn a_send_only_grant_gives_and_takes_nothing() {
    let (server, laptop) = acquainted("send-only");
    server.write("hot", "x", "from the server");
    let serving = server.serve(&["hot"], &[]);
    laptop.sync("hot", &hot(&serving), &PEER).code(0);
    assert_eq!(laptop.read("hot", "x").unwrap(), "from the server");
    laptop.write("hot", "x", "edited");
    let before = both(&server, &laptop);
    let words = ["1 paths would change on", "send-only", "Grant it another mode there"];
    assert_refused(laptop.sync("hot", &hot(&serving), &PEER), &words, &before);
}

/// Connects to a server, and says hello as a program that speaks these versions.
fn greeted(laptop: &Machine, server: &Machine, address: &str, versions: Versions) -> (Connection, Channel, Message) {
    let key = Key::open(&Home::open(&laptop.home()).unwrap()).unwrap();
    let network = Network::new(key).unwrap();
    let connection = network.dial(server.id().parse().unwrap(), &[address.parse().unwrap()], PATIENCE).unwrap();
    let mut control = Channel::for_hello(connection.open(PATIENCE).unwrap());
    control.set_wait(PATIENCE);
    let hello = Hello { versions, program: "another release".into(), capabilities: 0, nonce: [1; 32], token: Vec::new() };
    control.send(&Message::Hello(hello)).unwrap();
    let answer = control.receive().unwrap();
    control.trust();
    (connection, control, answer)
}

#[test]
fn another_version_of_the_protocol_is_refused_by_whoever_is_asked() {
    let (server, laptop) = acquainted("two-way");
    laptop.id();
    let serving = server.serve(&["hot"], &[]);
    let newest = Versions::OURS.newest;
    let versions = Versions { oldest: newest + 1, newest: newest + 3 };
    let (_connection, _control, answer) = greeted(&laptop, &server, &serving.address, versions);
    let Message::Refused(Refused { code: Refusal::Version, text }) = answer else { panic!("{answer:?}") };
    assert!(text.contains(&format!("versions {} to {newest}", Versions::OURS.oldest)) && text.contains("same release"), "{text}");
    assert!(!server.folder("hot").join(".driftless").exists());
    // Whoever speaks them all is answered in ours.
    let (_connection, _control, answer) =
        greeted(&laptop, &server, &serving.address, Versions { newest: newest + 3, ..Versions::OURS });
    assert!(matches!(&answer, Message::HelloAnswer(answer) if answer.version == newest), "{answer:?}");
}

/// What a server of this test's own says of itself. It has no files, and speaks the protocol to its end.
struct Claims {
    /// The answer to hello.
    hello: Message,
    introduction: Introduction,
    /// What it says after its scan that its root knows, and holds.
    scanned: (Vector, Vector, Digest),
    /// Its rows.
    root: Listing,
}

impl Claims {
    /// A root without anything, which has heard of nobody.
    fn honest() -> Claims {
        let own = Vector::from(theirs(1));
        let hello = HelloAnswer {
            version: Versions::OURS.newest,
            program: "another".into(),
            capabilities: 0,
            nonce: [2; 32],
            proof: Vec::new(),
        };
        Claims {
            hello: Message::HelloAnswer(hello),
            introduction: Introduction {
                identity: Some(identity()),
                knows: own.clone(),
                remembers: Vec::new(),
                location: Vec::new(),
                expects: false,
            },
            scanned: (own.clone(), own.clone(), Digest(0)),
            root: Listing {
                path: RelPath::root(),
                sub: Arc::new(own.clone()),
                bound: Arc::new(own),
                digest: Digest(0),
                seq: 1,
                full: true,
                children: Vec::new(),
            },
        }
    }
}

/// An event of the replica that a server of this test's own says to be.
fn theirs(counter: u64) -> Event {
    Event { replica: ReplicaId([0xee; 16]), counter }
}

fn identity() -> Identity {
    Identity { replica: theirs(1).replica, instance: 1, counter: 1, nonce: 1 }
}

/// Serves one run, as these claims are.
fn serve(connection: &Connection, claims: &Claims) -> Result<(), ChannelError> {
    let mut control = Channel::for_hello(connection.accept(PATIENCE)?);
    control.set_wait(PATIENCE);
    assert!(matches!(control.receive()?, Message::Hello(_)));
    control.send(&claims.hello)?;
    control.flush()?;
    control.trust();
    thread::scope(|scope| {
        scope.spawn(|| {
            while let Ok(stream) = connection.accept(PATIENCE) {
                // The run may end in the middle of it.
                scope.spawn(|| answer(Channel::new(stream), &claims.root));
            }
        });
        let ended = converse(&mut control, claims);
        let _ = connection.wait_closed(PATIENCE);
        connection.close(CloseCode::Done);
        ended
    })
}

fn converse(control: &mut Channel, claims: &Claims) -> Result<(), ChannelError> {
    let seq = claims.root.seq;
    while let Some(message) = control.next_or_end()? {
        let answer = match message {
            Message::Open(_) => Message::Opened(Opened {
                mode: Mode::TwoWay,
                introduction: claims.introduction.clone(),
                root: "/srv/hot".into(),
                rules: String::new(),
                sets_owner: true,
                passing: false,
            }),
            Message::Scan(_) => {
                let (sub, bound, digest) = claims.scanned.clone();
                Message::Scanned(Scanned {
                    entries: 0,
                    changed: 0,
                    vanished: 0,
                    failed: 0,
                    problems: Vec::new(),
                    unavailable: Vec::new(),
                    seq,
                    identity: identity(),
                    sub,
                    bound,
                    digest,
                    decisions: false,
                })
            }
            Message::Survey(_) => Message::Surveyed(Surveyed { totals: Totals::default(), stopped: None }),
            Message::Apply(_) => Message::Applied(Applied {
                totals: Totals::default(),
                problems: Vec::new(),
                whole: true,
                cancelled: false,
                again: false,
                news: false,
                stopped: None,
                identity: identity(),
                seq,
            }),
            Message::Finish(_) => Message::Finished(Finished { rules: RulesNow::Same }),
            Message::Bye(_) => return Ok(()),
            _ => continue,
        };
        control.send(&answer)?;
        control.flush()?;
    }
    Ok(())
}

/// Answers questions about rows.
fn answer(mut channel: Channel, root: &Listing) -> Result<(), ChannelError> {
    channel.set_wait(PATIENCE);
    while let Some(question) = channel.next_or_end()? {
        match question {
            Message::ListRequest(_) => {
                channel.send(&Message::Listing(Piece { listing: root.clone(), last: true }))?;
                channel.send(&Message::ListingEnd(ListingEnd { directories: 1 }))?;
            }
            Message::DigestRequest(_) => channel.send(&Message::Digest(DigestAnswer { digest: root.digest }))?,
            Message::DecidedRequest(_) => {
                Decided::messages(Vec::new()).into_iter().try_for_each(|next| channel.send(&Message::Decided(next)))?;
            }
            _ => return Ok(()),
        }
        channel.flush()?;
    }
    Ok(())
}

/// A run of the laptop's folder `hot` with a server that claims all that.
fn run_with(laptop: &Machine, server: &Machine, claims: &Claims) -> Assert {
    let network = Network::new(Key::open(&Home::open(&server.home()).unwrap()).unwrap()).unwrap();
    let listener = network.listen("127.0.0.1:0".parse().unwrap(), BTreeSet::from([laptop.id().parse().unwrap()])).unwrap();
    let root = format!("quic://{}/hot", listener.address());
    thread::scope(|scope| {
        scope.spawn(|| {
            let connection = listener.accept(PATIENCE).unwrap();
            // It ends as the command ends it.
            let _ = serve(&connection, claims);
        });
        laptop.sync("hot", &root, &PEER)
    })
}

/// A server's identity, and a laptop whose folder `hot` was synchronised with its folder `other`; and who that root is.
fn synced() -> (Machine, Machine, Identity) {
    let (server, laptop) = acquainted("two-way");
    server.id();
    laptop.write("hot", "d/x", "one");
    laptop.sync("hot", &laptop.folder("other").display().to_string(), &[]).code(0);
    let ours = replica(&laptop.folder("hot"));
    (server, laptop, ours)
}

fn state(root: &Path) -> State {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match State::open(&root.join(".driftless"), AttrMask::standard(rustix::process::geteuid().is_root())) {
            // The server closes the root after its peer has ended.
            Err(StateError::Locked { .. }) if Instant::now() < until => thread::sleep(Duration::from_millis(10)),
            opened => return opened.unwrap(),
        }
    }
}

/// Who a root is.
fn replica(root: &Path) -> Identity {
    let state = state(root);
    Identity { replica: state.id(), instance: state.instance(), counter: state.counter(), nonce: state.nonce().unwrap() }
}

#[test]
fn a_server_of_another_version_of_the_protocol_is_refused() {
    let (server, laptop, _) = synced();
    let refused = Refused {
        code: Refusal::Version,
        text: "this side speaks the versions 7 to 9 of the protocol: bring both sides to the same release".into(),
    };
    let other = HelloAnswer { version: 7, program: "later".into(), capabilities: 0, nonce: [2; 32], proof: Vec::new() };
    let before = held(&[laptop.folder("hot")]);
    for (hello, word) in [
        (Message::Refused(refused), "versions 7 to 9 of the protocol"),
        (Message::HelloAnswer(other), "version of the protocol that was not offered"),
    ] {
        let claims = Claims { hello, ..Claims::honest() };
        assert_refused(run_with(&laptop, &server, &claims), &["quic://127.0.0.1:", word, "same release"], &before);
    }
}

#[test]
fn a_server_without_files_that_tells_no_lies_is_synchronised_with() {
    let (server, laptop, ours) = synced();
    run_with(&laptop, &server, &Claims::honest()).code(0);
    assert_eq!((replica(&laptop.folder("hot")).replica, laptop.read("hot", "d/x").unwrap()), (ours.replica, "one".into()));
}

#[test]
fn who_introduces_itself_with_changes_of_this_root_that_it_never_made_is_refused() {
    let (server, laptop, ours) = synced();
    let before = held(&[laptop.folder("hot")]);
    let mut claims = Claims::honest();
    claims.introduction.knows.add(Event { replica: ours.replica, counter: BEYOND });
    let words = [&format!("knows {BEYOND} changes made in"), "Nothing was changed", "--rejoin"];
    assert_refused(run_with(&laptop, &server, &claims), &words.map(|word| word as &str), &before);
    assert_eq!(replica(&laptop.folder("hot")).replica, ours.replica);
}

#[test]
fn who_bears_the_identity_of_this_root_is_refused() {
    let (server, laptop, ours) = synced();
    let before = held(&[laptop.folder("hot")]);
    let mut claims = Claims::honest();
    claims.introduction.identity = Some(ours);
    assert_refused(run_with(&laptop, &server, &claims), &["bears the identity of", "--rejoin"], &before);
    assert_eq!(replica(&laptop.folder("hot")).replica, ours.replica);
}

/// A row of the root, of a version and an origin.
fn child(m: Event, c: Event, own: Option<Event>, tree: Option<[Event; 2]>) -> Child {
    let content = if tree.is_some() { Content::Dir } else { Content::File { size: 1, hash: None } };
    let attrs = Attrs { mode: 0o644, uid: 0, gid: 0, mtime_ns: 1 };
    let row = Row { object: Object { content, attrs }, m: m.into(), c: Creation::from(c) };
    let tree = tree.map(|[s, bound]| Tree { s: s.into(), bound: Arc::new(bound.into()), digest: Digest(1) });
    Child { name: Name::parse(b"f").unwrap(), row: Some(row), own: own.map(|own| Arc::new(own.into())), tree }
}

/// Rows of every kind that name a change of this replica, each at another place of a row.
fn lying_rows(ours: ReplicaId) -> Vec<(&'static str, Listing)> {
    let (lie, t) = (Event { replica: ours, counter: BEYOND }, theirs(1));
    let honest = Claims::honest().root;
    let with = |child| Listing { children: vec![child], ..honest.clone() };
    let knows = || Arc::new([t, lie].into_iter().collect::<Vector>());
    vec![
        ("m of a row", with(child(lie, t, None, None))),
        ("c of a row", with(child(t, lie, None, None))),
        ("o of a row", with(child(t, t, Some(lie), None))),
        ("S of a directory", with(child(t, t, None, Some([lie, t])))),
        ("M of a directory", with(child(t, t, None, Some([t, lie])))),
        ("what the root knows", Listing { sub: knows(), ..honest.clone() }),
        ("the bound of the root", Listing { bound: knows(), ..honest.clone() }),
    ]
}

#[test]
fn rows_that_name_changes_of_this_root_which_it_never_made_are_refused() {
    let (server, laptop, ours) = synced();
    let before = held(&[laptop.folder("hot")]);
    for (place, root) in lying_rows(ours.replica) {
        let claims = Claims { root, scanned: (Vector::from(theirs(1)), Vector::from(theirs(2)), Digest(7)), ..Claims::honest() };
        let words = [&format!("claims to know {BEYOND} changes made in"), "Nothing of it was taken over", "--rejoin"];
        let told = assert_refused(run_with(&laptop, &server, &claims), &words.map(|word| word as &str), &before);
        assert_eq!(replica(&laptop.folder("hot")).replica, ours.replica, "{place}: {told}");
        assert!(
            !state(&laptop.folder("hot"))
                .listing(&RelPath::root(), &Filter::header())
                .unwrap()
                .sub
                .iter()
                .any(|event| { event.replica == ours.replica && event.counter >= BEYOND || event.replica == theirs(1).replica })
        );
    }
}

#[test]
fn a_root_that_seems_to_have_no_news_and_claims_changes_of_this_one_is_refused() {
    let (server, laptop, ours) = synced();
    let before = held(&[laptop.folder("hot")]);
    let honest = state(&laptop.folder("hot")).listing(&RelPath::root(), &Filter::header()).unwrap();
    // As far as both roots tell there is nothing to do.
    let mut sub = (*honest.sub).clone();
    sub.add(Event { replica: ours.replica, counter: BEYOND });
    let root =
        Listing { sub: Arc::new(sub.clone()), bound: honest.bound.clone(), digest: honest.digest, ..Claims::honest().root };
    let claims = Claims { scanned: (sub, (*honest.bound).clone(), honest.digest), root, ..Claims::honest() };
    let words = [&format!("claims to know {BEYOND} changes made in"), "Nothing of it was taken over"];
    assert_refused(run_with(&laptop, &server, &claims), &words.map(|word| word as &str), &before);
}

#[test]
fn who_says_to_have_seen_this_root_further_ahead_costs_it_a_new_identity_and_nothing_else() {
    let (server, laptop, ours) = synced();
    let before = held(&[laptop.folder("hot")]);
    let mut claims = Claims::honest();
    claims.introduction.remembers = vec![Remembered { replica: ours.replica, counter: BEYOND, nonce: 1 }];
    let told = stderr(&run_with(&laptop, &server, &claims).code(0));
    assert!(told.contains("takes a new identity, because it was rolled back: others know more of it"), "{told}");
    assert_ne!(replica(&laptop.folder("hot")).replica, ours.replica);
    assert_eq!(held(&[laptop.folder("hot")]), before);
    // Changes of before and after cross as ever.
    laptop.write("hot", "d/x", "two");
    laptop.write("other", "y", "three");
    laptop.sync("hot", &laptop.folder("other").display().to_string(), &[]).code(0);
    assert_eq!((laptop.read("other", "d/x").unwrap(), laptop.read("hot", "y").unwrap()), ("two".into(), "three".into()));
}

/// What a folder held at a moment, its state included, to be brought back as the snapshot of a machine is: into the same inodes, with the
/// same times.
struct Snapshot(Vec<(PathBuf, Vec<u8>, SystemTime)>);

impl Snapshot {
    fn of(root: &Path) -> Snapshot {
        // Whoever had it open has closed it.
        drop(state(root));
        let own = fs::read_dir(root.join(".driftless")).unwrap().map(|entry| entry.unwrap().path());
        let tree = tree(root).into_keys().map(|path| root.join(path));
        let files = own.chain(tree).filter(|path| path.is_file());
        Snapshot(
            files
                .map(|path| (path.clone(), fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap()))
                .collect(),
        )
    }

    fn bring_back(&self, root: &Path) {
        drop(state(root));
        for (path, bytes, modified) in &self.0 {
            fs::write(path, bytes).unwrap();
            fs::File::options().write(true).open(path).unwrap().set_modified(*modified).unwrap();
        }
        for entry in fs::read_dir(root.join(".driftless")).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_file() && !self.0.iter().any(|(path, _, _)| *path == entry) {
                fs::remove_file(entry).unwrap();
            }
        }
    }
}

#[test]
fn a_root_that_was_rolled_back_takes_a_new_identity_from_who_remembers_it_and_loses_nothing() {
    let (server, laptop) = acquainted("two-way");
    server.write("hot", "x", "1");
    let serving = server.serve(&["hot"], &[]);
    laptop.sync("hot", &hot(&serving), &PEER).code(0);
    let id = replica(&server.folder("hot")).replica;
    let snapshot = Snapshot::of(&server.folder("hot"));
    server.write("hot", "x", "2");
    laptop.sync("hot", &hot(&serving), &PEER).code(0);
    snapshot.bring_back(&server.folder("hot"));
    assert_eq!((server.read("hot", "x").unwrap(), replica(&server.folder("hot")).replica), ("1".into(), id));
    // Under the old identity this change would have the number of the one that was lost, and look known.
    server.write("hot", "y", "after the roll-back");
    let told = stderr(&laptop.sync("hot", &hot(&serving), &PEER).code(0));
    assert!(told.contains("takes a new identity, because it was rolled back: others know more of it"), "{told}");
    assert_ne!(replica(&server.folder("hot")).replica, id);
    for machine in [&server, &laptop] {
        let found = (machine.read("hot", "x").unwrap(), machine.read("hot", "y").unwrap());
        assert_eq!(found, ("2".into(), "after the roll-back".into()));
    }
}

#[test]
fn a_rolled_back_root_is_refused_by_who_only_heard_of_it() {
    let (server, laptop) = acquainted("two-way");
    let serving = server.serve(&["hot"], &[]);
    laptop.write("hot", "x", "1");
    let between = laptop.folder("between").display().to_string();
    laptop.sync("hot", &between, &[]).code(0);
    let snapshot = Snapshot::of(&laptop.folder("hot"));
    laptop.write("hot", "x", "2");
    laptop.sync("hot", &between, &[]).code(0);
    // The server hears of it from the one in between.
    laptop.sync("between", &hot(&serving), &PEER).code(0);
    snapshot.bring_back(&laptop.folder("hot"));
    laptop.write("hot", "y", "after the roll-back");
    let before = both(&server, &laptop);
    let words = ["one of them was brought back from a backup", "Nothing was changed", "--rejoin", &hot(&serving)];
    assert_refused(laptop.sync("hot", &hot(&serving), &PEER), &words, &before);
    laptop.sync("hot", &hot(&serving), &[&PEER[..], &["--rejoin"]].concat()).code(0);
    for machine in [&server, &laptop] {
        let found = (machine.read("hot", "x").unwrap(), machine.read("hot", "y").unwrap());
        assert_eq!(found, ("2".into(), "after the roll-back".into()));
    }
}

/// A run of the laptop's, by this test, with the server's folder `hot`: what it was answered last.
fn asked(laptop: &Machine, server: &Machine, address: &str, knows: Vector, root: &Listing) -> Message {
    let (connection, mut control, answer_to_hello) = greeted(laptop, server, address, Versions::OURS);
    assert!(matches!(answer_to_hello, Message::HelloAnswer(_)), "{answer_to_hello:?}");
    let open = Open {
        folder: "hot".into(),
        sub: RelPath::root(),
        introduction: Introduction {
            identity: Some(identity()),
            knows,
            remembers: Vec::new(),
            location: b"/anywhere".to_vec(),
            expects: false,
        },
        dry_run: false,
        rejoin: false,
        checksum: false,
        scope: Vec::new(),
        policy: Policy::Skip,
        force: None,
        mask: AttrMask { perms: true, owner: false, times: true },
        run_rules: String::new(),
        rules: String::new(),
        max_delete: MaxDelete::Off,
        transfer: Transfer::default(),
        watched: None,
    };
    let ready = Ready { identity: identity(), seq: 1, passing: false, unavailable: Vec::new(), decisions: false };
    let wishes = [Message::Open(open), Message::Scan(Nothing), Message::Ready(ready), Message::Survey(Survey { items: false })];
    thread::scope(|scope| {
        scope.spawn(|| {
            while let Ok(stream) = connection.accept(PATIENCE) {
                scope.spawn(|| answer(Channel::new(stream), root));
            }
        });
        let mut last = None;
        for wish in wishes {
            control.send(&wish).and_then(|()| control.flush()).unwrap();
            if matches!(wish, Message::Ready(_)) {
                continue;
            }
            let answer = loop {
                match control.receive().unwrap() {
                    Message::Progress(_) | Message::Notice(_) => {}
                    answer => break answer,
                }
            };
            let refused = matches!(answer, Message::Refused(_));
            last = Some(answer);
            if refused {
                break;
            }
        }
        connection.close(CloseCode::Done);
        last.unwrap()
    })
}

#[test]
fn a_server_refuses_claims_about_its_own_changes_too() {
    let (server, laptop) = acquainted("two-way");
    server.write("hot", "d/x", "one");
    let serving = server.serve(&["hot"], &[]);
    laptop.sync("hot", &hot(&serving), &PEER).code(0);
    let (ours, before) = (replica(&server.folder("hot")), both(&server, &laptop));
    let honest = Claims::honest();
    let answer = asked(&laptop, &server, &serving.address, honest.introduction.knows.clone(), &honest.root);
    assert!(matches!(answer, Message::Surveyed(_)), "{answer:?}");
    let mut knows = honest.introduction.knows.clone();
    knows.add(Event { replica: ours.replica, counter: BEYOND });
    let answer = asked(&laptop, &server, &serving.address, knows, &honest.root);
    let Message::Refused(Refused { code: Refusal::Guard, text }) = answer else { panic!("{answer:?}") };
    assert!(text.contains(&format!("knows {BEYOND} changes made in")), "{text}");
    for (place, root) in lying_rows(ours.replica) {
        let answer = asked(&laptop, &server, &serving.address, honest.introduction.knows.clone(), &root);
        let Message::Refused(Refused { code: Refusal::Guard, text }) = answer else { panic!("{place}: {answer:?}") };
        assert!(text.contains(&format!("claims to know {BEYOND} changes made in")), "{place}: {text}");
    }
    assert_eq!((replica(&server.folder("hot")).replica, both(&server, &laptop)), (ours.replica, before));
    // And whoever is honest goes on being served.
    laptop.write("hot", "y", "two");
    laptop.sync("hot", &hot(&serving), &PEER).code(0);
    assert_eq!(server.read("hot", "y").unwrap(), "two");
}
