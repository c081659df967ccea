//! A machine that means harm: it speaks the protocol as far as it likes.

use crate::lab::Lab;
use fixtures::bytes::Stream as Random;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use sync_core::entry::AttrMask;
use sync_core::io::home::Home;
use sync_core::io::link::{Connection, Identity, Network, Stream};
use sync_core::knowledge::{Event, ReplicaId, Vector};
use sync_core::path::RelPath;
use sync_core::peer::Id;
use sync_core::wire::{
    self, FrameReader, Hello, Introduction, MAX_FRAME, MaxDelete, Message, Open, Policy, Transfer, Versions, put_frame,
};

/// How long it waits for a server that is busy with others like it.
const WAIT: Duration = Duration::from_secs(20);
/// How long a conversation that leads nowhere is kept.
pub(crate) const LINGER: Duration = Duration::from_millis(700);

/// One such machine.
pub(crate) struct Foe {
    network: Network,
    server: Id,
    address: SocketAddr,
    /// What it was granted.
    folder: String,
}

/// A stream on which anything is said.
pub(crate) struct Talk {
    stream: Stream,
    frames: FrameReader,
}

impl Foe {
    /// With the identity of this machine of the lab, against the server of `b`.
    pub(crate) fn new(lab: &Lab, machine: &str, address: &str, folder: &str) -> Foe {
        let identity = Identity::open(&Home::open(&lab.home(machine)).unwrap()).unwrap();
        let (server, folder) = (lab.id("b").parse().unwrap(), folder.to_owned());
        Foe { network: Network::new(identity).unwrap(), server, address: address.parse().unwrap(), folder }
    }

    /// What it was granted.
    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    /// A connection; none where the server has had enough.
    pub(crate) fn connect(&self) -> Option<Connection> {
        self.network.dial(self.server, &[self.address.to_string().parse().unwrap()], WAIT).ok()
    }

    /// Begins a handshake from another address of this machine, and lets only so many packets pass before it falls silent.
    /// `answered`: what the server says arrives.
    pub(crate) fn half_open(&self, packets: usize, answered: bool, from: Ipv4Addr) {
        let (near, far) = (UdpSocket::bind((from, 0)).unwrap(), UdpSocket::bind((from, 0)).unwrap());
        let place = near.local_addr().unwrap().to_string();
        let over = AtomicBool::new(false);
        [&near, &far].iter().for_each(|socket| socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap());
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut packet, mut passed, mut caller) = ([0; 2000], 0, None);
                while !over.load(Ordering::Acquire) {
                    if let Ok((length, from)) = near.recv_from(&mut packet) {
                        caller = Some(from);
                        passed += 1;
                        if passed <= packets {
                            let _ = far.send_to(&packet[..length], self.address);
                        }
                    }
                    while let (Ok((length, _)), true, Some(caller)) = (far.recv_from(&mut packet), answered, caller) {
                        let _ = near.send_to(&packet[..length], caller);
                    }
                }
            });
            let _ = self.network.dial(self.server, &[place.parse().unwrap()], Duration::from_millis(250));
            over.store(true, Ordering::Release);
        });
    }

    /// A connection on which hello was said.
    pub(crate) fn greeted(&self) -> Option<(Connection, Talk)> {
        let connection = self.connect()?;
        let mut talk = Talk::on(&connection)?;
        talk.say(&hello())?;
        match talk.hear(WAIT)? {
            Message::HelloAnswer(_) => Some((connection, talk)),
            _ => None,
        }
    }

    /// A connection on which the folder was opened for this machine's run. `claim` may lie about anything.
    pub(crate) fn opened(&self, claim: impl FnOnce(&mut Open)) -> Option<(Connection, Talk)> {
        let (connection, mut talk) = self.greeted()?;
        let mut open = open(&self.folder);
        claim(&mut open);
        talk.say(&Message::Open(open))?;
        loop {
            match talk.hear(WAIT)? {
                Message::Opened(_) => return Some((connection, talk)),
                Message::Progress(_) | Message::Notice(_) => {}
                _ => return None,
            }
        }
    }
}

impl Talk {
    pub(crate) fn on(connection: &Connection) -> Option<Talk> {
        Some(Talk::of(connection.open(LINGER).ok()?))
    }

    pub(crate) fn of(mut stream: Stream) -> Talk {
        stream.writer.set_wait(LINGER);
        Talk { stream, frames: FrameReader::new(MAX_FRAME) }
    }

    /// Any bytes; none where nobody takes them any more.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.writer.write_all(bytes).ok()
    }

    pub(crate) fn say(&mut self, message: &Message) -> Option<()> {
        let mut frame = Vec::new();
        put_frame(message, &mut frame).ok()?;
        self.raw(&frame)
    }

    /// The next message; none if there is none in time, or never.
    pub(crate) fn hear(&mut self, wait: Duration) -> Option<Message> {
        let until = Instant::now() + wait;
        let mut bytes = vec![0; 64 << 10];
        loop {
            if let Some(message) = self.frames.next_message().ok()? {
                return Some(message);
            }
            self.stream.reader.set_wait(until.saturating_duration_since(Instant::now()));
            match self.stream.reader.read(&mut bytes).ok()? {
                0 => return None,
                count => self.frames.feed(&bytes[..count]),
            }
        }
    }

    /// Reads whatever comes for a while.
    pub(crate) fn linger(&mut self) {
        let until = Instant::now() + LINGER;
        while self.hear(until.saturating_duration_since(Instant::now())).is_some() {}
    }
}

pub(crate) fn hello() -> Message {
    let (versions, program) = (Versions::OURS, "driftless".into());
    Message::Hello(Hello { versions, program, capabilities: 0, nonce: [1; 32], token: Vec::new() })
}

/// This machine's replica, as it says.
pub(crate) fn identity() -> wire::Identity {
    wire::Identity { replica: ReplicaId([0xee; 16]), instance: 1, counter: 1, nonce: 1 }
}

pub(crate) fn event(replica: u8, counter: u64) -> Event {
    Event { replica: ReplicaId([replica; 16]), counter }
}

fn open(folder: &str) -> Open {
    let introduction = Introduction {
        identity: Some(identity()),
        knows: Vector::from(event(0xee, 1)),
        remembers: Vec::new(),
        location: b"/anywhere".to_vec(),
        expects: false,
    };
    Open {
        folder: folder.into(),
        sub: RelPath::root(),
        introduction,
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
    }
}

/// A message of this number whose body begins with a path that no message may have.
fn with_path(tag: u8, path: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut bytes = (path.len() as u32 + 2 + rest.len() as u32).to_le_bytes().to_vec();
    bytes.extend([tag, path.len() as u8]);
    bytes.extend(path);
    bytes.extend(rest);
    bytes
}

/// Bytes that are no conversation, or none that belongs anywhere.
pub(crate) fn nonsense(random: &mut Random) -> Vec<u8> {
    const PATHS: [&[u8]; 9] =
        [b"../../etc/passwd", b"/etc/passwd", b"a/../../canary", b"a//b", b".", b"..", b"a\0b", b".driftless/state.db", b"a/./b"];
    let path = PATHS[random.below(9) as usize];
    match random.below(9) {
        0 => fixtures::bytes::noise(random.word(), 1 + random.below(5_000) as usize),
        1 => [&u32::MAX.to_le_bytes()[..], b"much"].concat(),
        2 => ((MAX_FRAME + 1) as u32).to_le_bytes().to_vec(),
        3 => vec![0; 4],
        // A long message that never ends.
        4 => [&(MAX_FRAME as u32).to_le_bytes()[..], &[19; 3_000]].concat(),
        // Rows, a digest, hashes of bad paths.
        5 => with_path(11, path, &[0, 0]),
        6 => with_path(15, path, &[]),
        7 => [&(path.len() as u32 + 3).to_le_bytes()[..], &[17, 1, path.len() as u8], path].concat(),
        // Every number there is, and some that there are not, with a body of anything.
        _ => {
            let body = fixtures::bytes::noise(random.word(), random.below(200) as usize);
            [&(body.len() as u32 + 1).to_le_bytes()[..], &[random.below(48) as u8], &body].concat()
        }
    }
}
