#![allow(clippy::disallowed_methods, reason = "tests make, change and look at files as users do")]

use super::*;
use crate::log::Log;
use crate::status::Moment;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use sync_core::entry::Kind;
use sync_core::io::sync::{Keep, KeptVersion};
use sync_core::path::RelPath;
use sync_core::peer::PublicKey;
use tempfile::TempDir;

/// What an agent was asked; `hang` is not answered before the test lets go.
struct Puppet {
    told: Mutex<Sender<String>>,
    hang: Mutex<Receiver<()>>,
}

impl Puppet {
    fn tell(&self, text: String) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).send(text).unwrap();
    }

    fn folder(&self, what: &str, folder: Option<&Name>) -> Result<(), ControlError> {
        self.tell(format!("{what} {}", folder.map_or("all", Name::as_str)));
        match folder.map(Name::as_str) {
            Some("none") => Err(ControlError::new(Refused::NoSuchFolder, "no folder is named none")),
            Some("hang") => {
                self.hang.lock().unwrap_or_else(PoisonError::into_inner).recv().unwrap();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Control for Puppet {
    fn status(&self) -> Status {
        Status {
            name: "a".parse().unwrap(),
            id: PublicKey::from_bytes([7; 32]).id(),
            version: "0".into(),
            since: Moment(1),
            listen: Vec::new(),
            page: None,
            notices: vec!["x".repeat(1 << 20)],
            folders: Vec::new(),
            machines: Vec::new(),
            links: Vec::new(),
        }
    }
    fn pause(&self, folder: Option<&Name>) -> Result<(), ControlError> {
        self.folder("pause", folder)
    }
    fn resume(&self, folder: Option<&Name>) -> Result<(), ControlError> {
        self.folder("resume", folder)
    }
    fn sync(&self, folder: Option<&Name>) -> Result<(), ControlError> {
        self.folder("sync", folder)
    }
    fn allow_delete(&self, folder: &Name) -> Result<(), ControlError> {
        self.folder("allow-delete", Some(folder))
    }
    fn archive(&self, folder: Option<&Name>, accept_clock: bool) -> Result<(), ControlError> {
        self.folder(if accept_clock { "archive-by-this-clock" } else { "archive" }, folder)
    }
    fn reload(&self) -> Result<Changes, ControlError> {
        Ok(Changes { limits: true, ..Changes::default() })
    }
    fn probe(&self) -> Result<Moment, ControlError> {
        self.tell("probe".into());
        Ok(Moment(9))
    }
    fn ask(&self, folder: &Name, ask: &Ask, asker: &Asker<'_>) -> Result<(), ControlError> {
        self.folder(&format!("{ask:?}"), Some(folder))?;
        match ask {
            Ask::Versions { .. } => {
                let version = |id| KeptVersion {
                    id,
                    path: RelPath::parse(b"caf\xe9/a").unwrap(),
                    kind: Kind::Symlink,
                    size: 1,
                    mtime_ns: -1,
                    kept_at_ns: i64::MAX,
                    reason: "replaced".into(),
                };
                asker.tell_all((0..1000).map(|id| VersionText::from(&version(id))), Tell::Versions);
            }
            // Until whoever asked has gone.
            Ask::Conflicts => {
                let hang = self.hang.lock().unwrap_or_else(PoisonError::into_inner);
                while !asker.has_gone() {
                    let _ = hang.recv_timeout(Duration::from_millis(5));
                }
                self.tell("gone".into());
            }
            _ => panic!("a defect"),
        }
        Ok(())
    }
    fn stop(&self) {
        self.tell("stop".into());
    }
}

/// An agent's socket, and what its control was asked.
struct Lab {
    dir: TempDir,
    server: Server,
    asked: Receiver<String>,
    release: Sender<()>,
}

fn quiet() -> Log {
    Arc::new(|_, _| {})
}

impl Lab {
    fn new() -> Lab {
        Lab::at(tempfile::tempdir().unwrap())
    }

    fn at(dir: TempDir) -> Lab {
        let ((told, asked), (release, hang)) = (channel(), channel());
        let control = Arc::new(Puppet { told: Mutex::new(told), hang: Mutex::new(hang) });
        let server = Server::open(dir.path(), control, quiet()).unwrap();
        Lab { dir, server, asked, release }
    }

    fn client(&self) -> Client {
        Client::new(self.dir.path())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join(SOCKET_FILE)
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).unwrap()
    }
}

/// Sends bytes as they are, and reads the whole answer.
fn raw(mut stream: UnixStream, bytes: &[u8]) -> serde_json::Value {
    stream.write_all(bytes).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

fn name(text: &str) -> Option<Name> {
    Some(text.parse().unwrap())
}

#[test]
fn every_command_reaches_the_agent_and_its_answer_comes_back() {
    let lab = Lab::new();
    let client = lab.client();
    let status = client.status().unwrap().unwrap();
    assert_eq!((status.name.as_str(), status.notices[0].len()), ("a", 1 << 20));
    client.pause(name("hot")).unwrap().unwrap();
    client.resume(None).unwrap().unwrap();
    client.sync(name("hot")).unwrap().unwrap();
    client.allow_delete("hot".parse().unwrap()).unwrap().unwrap();
    assert_eq!(client.probe().unwrap().unwrap(), Moment(9));
    assert_eq!(client.reload().unwrap().unwrap().lines(), ["limits changed"]);
    let refused = client.pause(name("none")).unwrap().unwrap_err();
    assert_eq!((refused.kind, refused.text.as_str()), (Refused::NoSuchFolder, "no folder is named none"));
    let asked: Vec<String> = lab.asked.try_iter().collect();
    assert_eq!(asked, ["pause hot", "resume all", "sync hot", "allow-delete hot", "probe", "pause none"]);
}

#[test]
fn nobody_else_can_reach_the_socket_and_nothing_is_left_beside_it() {
    let lab = Lab::new();
    assert_eq!(lab.socket().symlink_metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let names = || fs::read_dir(lab.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(names(), [SOCKET_FILE]);
    let Lab { dir, server, .. } = lab;
    server.close().1.unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(matches!(Client::new(dir.path()).status(), Err(SocketError::NoAgent(_))));
}

#[test]
fn what_makes_no_sense_is_refused_and_harms_nobody() {
    let lab = Lab::new();
    for (bytes, word) in [
        (&b"\n"[..], "no request that this agent knows"),
        (b"{}\n", "missing field `version`"),
        (b"\xff\xfe\n", "no request that this agent knows"),
        (b"{\"version\":1,\"do\":\"dance\"}\n", "unknown variant `dance`"),
        (b"{\"version\":1,\"do\":\"pause\",\"folder\":\"a b\"}\n", "is no name"),
        (b"{\"version\":1,\"do\":\"pause\",\"older\":\"a\"}\n", "unknown field `older`"),
        (b"{\"version\":2,\"do\":\"status\"}\n", "speaks version 1, not 2"),
        (&vec![b'x'; REQUEST_BYTES + 2], "a line of more than 4194304 bytes"),
    ] {
        let answer = raw(lab.connect(), bytes);
        let text = answer["error"]["text"].as_str().unwrap_or_default();
        assert!(text.contains(word) && answer["error"]["kind"] == "request", "{answer}");
    }
    // One that ends in the middle gets no further, and one that takes no answer keeps nobody.
    drop(lab.connect());
    lab.connect().write_all(b"{\"version\":1,\"do\":\"status\"}\n").unwrap();
    assert!(lab.client().status().unwrap().is_ok());
    assert_eq!(lab.asked.try_iter().count(), 0);
}

#[test]
fn an_answer_in_pieces_comes_whole_and_in_order() {
    let lab = Lab::new();
    let (mut ids, mut pieces) = (Vec::new(), 0);
    let whole = lab.client().inquire(&"hot".parse().unwrap(), &Ask::Versions { at: text(&RelPath::root()) }, &mut |piece| {
        if let Tell::Versions(versions) = piece {
            pieces += 1;
            assert!(versions.len() <= PIECE);
            for version in versions {
                let version = KeptVersion::try_from(version).unwrap();
                assert_eq!((version.path.as_bytes(), version.kind, version.mtime_ns), (&b"caf\xe9/a"[..], Kind::Symlink, -1));
                ids.push(version.id);
            }
        }
        true
    });
    assert!(whole.unwrap().unwrap());
    assert_eq!((ids, pieces), ((0..1000).collect(), 1000 / PIECE));
}

#[test]
fn who_works_for_a_client_hears_that_it_has_gone() {
    let lab = Lab::new();
    let mut beats = 0;
    let heard = lab.client().inquire(&"hot".parse().unwrap(), &Ask::Conflicts, &mut |piece| {
        beats += u64::from(piece == Tell::Beat);
        beats < 2
    });
    assert!(!heard.unwrap().unwrap(), "it was told that nobody wants to hear more");
    assert_eq!(lab.asked.recv().unwrap(), "Conflicts hot");
    assert_eq!(lab.asked.recv_timeout(Duration::from_secs(60)).unwrap(), "gone");
}

#[test]
fn a_defect_in_what_was_asked_for_is_told_and_ends_nothing_else() {
    let lab = Lab::new();
    let ask = Ask::Resolve { paths: vec![text(&RelPath::root())], keep: Keep::Newer };
    let refused = lab.client().inquire(&"hot".parse().unwrap(), &ask, &mut |_| true).unwrap().unwrap_err();
    assert!(refused.text.contains("a defect of driftless"), "{refused}");
    let refused = lab.client().inquire(&"none".parse().unwrap(), &ask, &mut |_| true).unwrap().unwrap_err();
    assert_eq!(refused.kind, Refused::NoSuchFolder);
    assert!(lab.client().status().unwrap().is_ok());
}

#[test]
fn a_client_that_says_nothing_is_sent_away_and_keeps_nobody_waiting() {
    let lab = Lab::new();
    let silent = lab.connect();
    assert!(lab.client().status().unwrap().is_ok());
    let answer = raw(silent, b"");
    assert!(answer["error"]["text"].as_str().unwrap().contains("no request came within"), "{answer}");
}

#[test]
fn an_agent_that_is_busy_still_answers_others() {
    let lab = Lab::new();
    let client = lab.client();
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| client.sync(name("hang")));
        assert_eq!(lab.asked.recv().unwrap(), "sync hang");
        assert!(lab.client().status().unwrap().is_ok());
        lab.release.send(()).unwrap();
        hanging.join().unwrap().unwrap().unwrap();
    });
}

#[test]
fn of_too_many_clients_the_last_one_is_told() {
    let lab = Lab::new();
    let silent: Vec<UnixStream> = (0..CLIENTS).map(|_| lab.connect()).collect();
    // They are let in one after the other, in their order.
    let refused = lab.client().status().unwrap().unwrap_err();
    assert_eq!(refused.kind, Refused::Busy);
    drop(silent);
    lab.server.close().1.unwrap();
}

#[test]
fn whoever_stops_the_agent_waits_for_its_end() {
    let Lab { dir, server, asked, .. } = Lab::new();
    let client = Client::new(dir.path());
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| client.stop());
        assert_eq!(asked.recv().unwrap(), "stop");
        let (parting, closed) = server.close();
        closed.unwrap();
        assert!(!stopping.is_finished(), "the agent has not ended yet");
        drop(parting);
        stopping.join().unwrap().unwrap().unwrap();
    });
}

#[test]
fn a_dead_agents_socket_is_replaced_and_a_live_ones_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join(SOCKET_FILE);
    // What a crash leaves: a socket that nobody listens at, and one that never came to its place.
    drop(UnixListener::bind(&socket).unwrap());
    fs::create_dir(dir.path().join("agent.sock.new")).unwrap();
    drop(UnixListener::bind(dir.path().join("agent.sock.new").join(SOCKET_FILE)).unwrap());
    assert!(matches!(Client::new(dir.path()).status(), Err(SocketError::NoAgent(_))));
    let lab = Lab::at(dir);
    assert!(lab.client().status().unwrap().is_ok());
    let told = |home: &Path| {
        let (told, _) = channel();
        let control = Arc::new(Puppet { told: Mutex::new(told), hang: Mutex::new(channel().1) });
        Server::open(home, control, quiet()).err().unwrap().to_string()
    };
    assert!(told(lab.dir.path()).contains("is answered by a process that does not hold the agent's lock"));
    assert!(lab.client().status().unwrap().is_ok());
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join(SOCKET_FILE), "mine").unwrap();
    assert!(told(other.path()).contains("is no socket"));
    assert_eq!(fs::read(other.path().join(SOCKET_FILE)).unwrap(), b"mine");
}

#[test]
fn a_home_whose_path_is_longer_than_a_sockets_may_be_works_too() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("long".repeat(40));
    fs::create_dir(&home).unwrap();
    let control = Arc::new(Puppet { told: Mutex::new(channel().0), hang: Mutex::new(channel().1) });
    let server = Server::open(&home, control, quiet()).unwrap();
    assert!(Client::new(&home).status().unwrap().is_ok());
    assert!(home.join(SOCKET_FILE).exists());
    server.close().1.unwrap();
}

#[test]
fn an_agent_that_does_not_answer_as_it_should_is_told_of() {
    for (answer, word) in [
        (&b""[..], "it hung up"),
        (b"hello\n", "makes no sense"),
        (b"{\"version\":9,\"done\":[1]}\n", "speaks version 9"),
        (b"{\"version\":1,\"done\":5}\n", "makes no sense"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET_FILE)).unwrap();
        let told = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = String::new();
                BufReader::new(&stream).read_line(&mut request).unwrap();
                stream.write_all(answer).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                // Until the other side has gone.
                let _ = stream.read(&mut [0]);
            });
            Client::new(dir.path()).status().unwrap_err().to_string()
        });
        assert!(told.contains(word), "{told}");
    }
}

#[test]
fn an_agent_that_lets_nobody_in_is_not_waited_for_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SOCKET_FILE);
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    net::listen(&socket, 0).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    assert!(matches!(Client::new(dir.path()).status(), Err(SocketError::TooLong { what: "let anybody in", .. })));
}

#[test]
fn one_home_has_one_agent() {
    let dir = tempfile::tempdir().unwrap();
    let lock = AgentLock::take(dir.path()).unwrap();
    let told = AgentLock::take(dir.path()).unwrap_err().to_string();
    assert!(told.contains(&format!("as process {}", std::process::id())) && told.contains("agent stop"), "{told}");
    drop(lock);
    AgentLock::take(dir.path()).unwrap();
}
