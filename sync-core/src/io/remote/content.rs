//! Answers requests for content: only what the rows tell of, as they tell of it, is read, and only what stood still is vouched for.

use super::base::{receive_signatures, send_delta};
use super::lanes::Lanes;
use crate::delta::Signature;
use crate::entry::{Content, Hash};
use crate::io::channel::ChannelError;
use crate::io::fs::{Dir, FsError, Root};
use crate::io::source::{Fetched, Pass, Recorded, SourceError, read_again, read_steady, with_buffer};
use crate::io::state::{Entry, Learned, State};
use crate::path::RelPath;
use crate::wire::{
    Data, Encoding, Failure, FailureCode, FetchRequest, FileBegin, FileData, FileEnd, FileFailed, MAX_DATA, Message, Packer,
    Refusal, Refused, SmallFile, SmallFiles, Wanted, cut,
};
use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

/// While files are read and nothing of them is sent, the other side hears of it as often.
const ALIVE: Duration = Duration::from_secs(3);

/// Sends the files of a request in their order, then records the hashes of those that nobody had read before.
///
/// # Errors
/// The conversation is over. A file that cannot be sent is told, and the others go on.
pub(super) fn answer(root: &Root, state: &State, request: FetchRequest, lanes: &mut Lanes) -> Result<(), ChannelError> {
    // All of them before anything is answered, so that the two sides never wait for each other to read.
    let bases = receive_signatures(&request.files, lanes.main())?;
    let sending = Sending::new(lanes, Packer::of(request.packing), ALIVE);
    let mut answering = Answering { root, state, sending, bases, learned: Vec::new() };
    let mut first = 0;
    for files in request.files.chunk_by(|one, next| one.path.parent() == next.path.parent()) {
        answering.directory(first, files)?;
        first += files.len() as u32;
    }
    let Answering { mut sending, learned, .. } = answering;
    sending.flush()?;
    if let Err(error) = state.learn(&learned) {
        let text = cut(&error.to_string()).to_owned();
        sending.send(&Message::Refused(Refused { code: Refusal::Failed, text }))?;
        sending.flush()?;
    }
    Ok(())
}

struct Answering<'a> {
    root: &'a Root,
    state: &'a State,
    sending: Sending<'a>,
    /// What the other side has of each file.
    bases: Vec<Option<Signature>>,
    /// Hashes that nobody knew.
    learned: Vec<Learned>,
}

/// Why a file is not sent to its end.
pub(super) enum Stop {
    /// The file is to blame: the other side is told, and the next one follows.
    File(SourceError),
    /// Nothing more can be sent.
    Channel(ChannelError),
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Stop {
        Stop::File(error)
    }
}

impl From<ChannelError> for Stop {
    fn from(error: ChannelError) -> Stop {
        Stop::Channel(error)
    }
}

impl Answering<'_> {
    /// Files of one directory, with the number of the first one.
    fn directory(&mut self, first: u32, files: &[Wanted]) -> Result<(), ChannelError> {
        let opened = self.open(files);
        for ((wanted, at), number) in files.iter().zip(0..).zip(first..) {
            let sent = match &opened {
                Ok((dir, entries)) => self.file(number, wanted, dir, entries.get(at).and_then(Option::as_ref)),
                Err(failure) => {
                    let failed = FileFailed { file: number, failure: failure.clone() };
                    self.sending.send(&Message::FileFailed(failed))?;
                    continue;
                }
            };
            match sent {
                Ok(learned) => self.learned.extend(learned),
                Err(Stop::File(error)) => {
                    let failed = FileFailed { file: number, failure: failure(&error) };
                    self.sending.send(&Message::FileFailed(failed))?;
                }
                Err(Stop::Channel(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Their directory, and what the rows tell of each.
    fn open(&self, files: &[Wanted]) -> Result<(Dir, Vec<Option<Entry>>), Failure> {
        // The root itself is no file.
        let Some(parent) = files.first().and_then(|wanted| wanted.path.parent()) else {
            return Err(failure(&SourceError::Stale(RelPath::root())));
        };
        let paths: Vec<RelPath> = files.iter().map(|wanted| wanted.path.clone()).collect();
        let opened = self.root.dir(&parent).map_err(|error| missing(error, &parent));
        let entries = self.state.entries(&paths).map_err(SourceError::from);
        opened.and_then(|dir| Ok((dir, entries?))).map_err(|error| failure(&error))
    }

    fn file(&mut self, number: u32, wanted: &Wanted, dir: &Dir, entry: Option<&Entry>) -> Result<Option<Learned>, Stop> {
        let path = &wanted.path;
        let stale = || SourceError::Stale(path.clone());
        let Entry { row, signature, .. } = entry.ok_or_else(stale)?;
        let Content::File { size, hash } = row.object.content else { return Err(stale().into()) };
        let other = wanted.hash.zip(hash).is_some_and(|(wanted, hash)| wanted != hash);
        if row.m != wanted.m || size != wanted.size || signature.size != size || other {
            return Err(stale().into());
        }
        let recorded = Recorded { path, signature, hash };
        // Dropped when it was used: one index at a time.
        let base = self.bases.get_mut(number as usize).and_then(Option::take);
        match base {
            None if size <= MAX_DATA as u64 && wanted.offset == 0 => self.small(number, dir, &recorded),
            base => self.large((number, wanted), dir, &recorded, base.as_ref()),
        }
    }

    /// Reads a file as a whole, to be sent together with its neighbours.
    fn small(&mut self, number: u32, dir: &Dir, recorded: &Recorded<'_>) -> Result<Option<Learned>, Stop> {
        let size = recorded.signature.size;
        let bytes = self.sending.room_for(number, size as usize)?;
        let held = bytes.len();
        let read = read_steady(dir, recorded, |file, pass| {
            if pass == Pass::Check {
                return Ok(read_again(file, recorded)?);
            }
            file.take(size).read_to_end(bytes).map_err(|source| unread(recorded.path, source))?;
            let read = &bytes[held..];
            Ok::<_, Stop>(Fetched { size: read.len() as u64, hash: Hash(*blake3::hash(read).as_bytes()) })
        });
        match read {
            Ok((Fetched { size, hash }, learned)) => {
                self.sending.small.files.push(SmallFile { size, hash });
                Ok(learned)
            }
            Err(stop) => {
                self.sending.bytes.truncate(held);
                Err(stop)
            }
        }
    }

    /// Sends a file while it is read: what becomes of it is told at its end.
    fn large(
        &mut self,
        (number, wanted): (u32, &Wanted),
        dir: &Dir,
        recorded: &Recorded<'_>,
        base: Option<&Signature>,
    ) -> Result<Option<Learned>, Stop> {
        let sending = &mut self.sending;
        let (Fetched { hash, .. }, learned) = read_steady(dir, recorded, |file, pass| {
            if pass == Pass::Check {
                return with_buffer(|buffer| send(file, (wanted, wanted.size), buffer, sending));
            }
            let encoding = if base.is_some() { Encoding::Delta } else { Encoding::Raw };
            sending.send(&Message::FileBegin(FileBegin { file: number, size: wanted.size, encoding }))?;
            sending.packer.iter_mut().for_each(Packer::begin);
            match base {
                Some(base) => send_delta(file, wanted, base, sending),
                None => with_buffer(|buffer| send(file, (wanted, wanted.offset), buffer, sending)),
            }
        })?;
        self.sending.send(&Message::FileEnd(FileEnd { hash }))?;
        Ok(learned)
    }
}

/// Messages on their way, in the order of the request.
pub(super) struct Sending<'a> {
    lanes: &'a mut Lanes,
    packer: Option<Packer>,
    /// Small files that wait for more.
    small: SmallFiles,
    /// Their bytes.
    bytes: Vec<u8>,
    /// When something was sent last.
    said: Instant,
    /// How often the other side hears of what goes on.
    every: Duration,
}

impl<'a> Sending<'a> {
    fn new(lanes: &'a mut Lanes, packer: Option<Packer>, every: Duration) -> Sending<'a> {
        Sending { lanes, packer, small: SmallFiles::default(), bytes: Vec::new(), said: Instant::now(), every }
    }
}

impl Sending<'_> {
    /// Where the bytes of the next small file go.
    fn room_for(&mut self, number: u32, size: usize) -> Result<&mut Vec<u8>, ChannelError> {
        if self.bytes.len() + size > MAX_DATA {
            self.send_small()?;
        }
        if self.small.files.is_empty() {
            self.small.first = number;
        }
        Ok(&mut self.bytes)
    }

    fn send_small(&mut self) -> Result<(), ChannelError> {
        let mut small = std::mem::take(&mut self.small);
        if small.files.is_empty() {
            return Ok(());
        }
        self.packer.iter_mut().for_each(Packer::begin_mixed);
        small.data = Data::of(&self.bytes, self.packer.as_mut());
        self.bytes.clear();
        self.lanes.send(&Message::SmallFiles(small))
    }

    /// Sends a message after the small files that wait.
    fn send(&mut self, message: &Message) -> Result<(), ChannelError> {
        self.send_small()?;
        self.said = Instant::now();
        self.lanes.send(message)
    }

    /// The file that began last is being read, and nothing of it is to be sent: the other side, which waits no longer than it would for a
    /// dead one, is told that this goes on.
    fn alive(&mut self) -> Result<(), ChannelError> {
        if self.said.elapsed() < self.every {
            return Ok(());
        }
        self.send(&Message::FileData(FileData { data: Data::Plain(Box::default()) }))?;
        self.flush()
    }

    /// Sends content of the file that began last.
    pub(super) fn data(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        let data = Data::of(bytes, self.packer.as_mut());
        self.send(&Message::FileData(FileData { data }))
    }

    /// Sends all that waits to be sent.
    pub(super) fn flush(&mut self) -> Result<(), ChannelError> {
        self.send_small()?;
        self.lanes.flush()
    }
}

/// Sends the bytes from the offset on; hashes all of them.
fn send(
    file: impl Read,
    (wanted, offset): (&Wanted, u64),
    buffer: &mut [u8],
    sending: &mut Sending<'_>,
) -> Result<Fetched, Stop> {
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    let mut rest = file.take(wanted.size);
    loop {
        let read = match rest.read(buffer) {
            Ok(0) => return Ok(Fetched { size, hash: Hash(*hasher.finalize().as_bytes()) }),
            Ok(count) => &buffer[..count],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(unread(&wanted.path, error).into()),
        };
        hasher.update(read);
        // What the other side has already is hashed and not sent.
        let known = offset.saturating_sub(size).min(read.len() as u64);
        size += read.len() as u64;
        match &read[known as usize..] {
            [] => sending.alive()?,
            news => sending.data(news)?,
        }
    }
}

pub(super) fn unread(path: &RelPath, source: io::Error) -> SourceError {
    SourceError::Copy { path: path.clone(), source }
}

/// A directory that is not there any more makes what was in it stale.
fn missing(error: FsError, path: &RelPath) -> SourceError {
    match error.source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => SourceError::Stale(path.clone()),
        _ => error.into(),
    }
}

fn failure(error: &SourceError) -> Failure {
    let code = match error {
        SourceError::Stale(_) => FailureCode::Stale,
        SourceError::Changes(_) => FailureCode::Changes,
        _ => FailureCode::Unreadable,
    };
    Failure { code, text: cut(&error.to_string()).to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::channel::Channel;
    use crate::io::link::{WAIT, local_pair};
    use crate::knowledge::{Event, ReplicaId};
    use crate::peer::PublicKey;
    use crate::wire::Nothing;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;

    /// A disk that gives a kibibyte at a time, and the first ones only once the other side has heard of the one before.
    struct Slow {
        left: usize,
        slow: usize,
        begun: bool,
        heard: Receiver<()>,
    }

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.begun && self.slow > 0 {
                self.slow -= 1;
                self.heard.recv_timeout(Duration::from_secs(60)).map_err(|_| io::Error::other("the other side heard nothing"))?;
            }
            self.begun = true;
            let count = buffer.len().min(1024).min(self.left);
            self.left -= count;
            buffer[..count].fill(7);
            Ok(count)
        }
    }

    #[test]
    fn while_a_beginning_is_read_that_the_other_side_has_it_hears_of_it() {
        const HELD: u64 = 4 * 1024;
        let [near, far] = local_pair([1, 2].map(|key| PublicKey::from_bytes([key; 32])), [3; 32]);
        let mut answering = Channel::new(near.open(WAIT).unwrap());
        answering.send(&Message::Cancel(Nothing)).and_then(|()| answering.flush()).unwrap();
        let mut asking = Channel::new(far.accept(WAIT).unwrap());
        assert!(matches!(asking.receive().unwrap(), Message::Cancel(_)));
        let (hear, heard) = channel();
        let size = HELD + 2 * 1024;
        let wanted = Wanted {
            path: RelPath::parse(b"f").unwrap(),
            size,
            hash: None,
            m: Event { replica: ReplicaId([1; 16]), counter: 1 }.into(),
            offset: HELD,
            base: None,
        };
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut came = Vec::new();
                while came.len() < 6 {
                    let Message::FileData(FileData { data }) = asking.receive().unwrap() else { panic!("no content") };
                    came.push(data.len());
                    // Nobody waits for it any more behind the beginning.
                    let _ = hear.send(());
                }
                assert_eq!(came, [0, 0, 0, 0, 1024, 1024]);
                // The stream stays until the other side has ended it.
                assert!(asking.next_or_end().unwrap().is_none());
            });
            let mut lanes = Lanes::new(answering);
            let mut sending = Sending::new(&mut lanes, None, Duration::ZERO);
            let file = Slow { left: size as usize, slow: 4, begun: false, heard };
            let sent = send(file, (&wanted, wanted.offset), &mut [0; 4096], &mut sending);
            let Ok(Fetched { size: sent, hash }) = sent else { panic!("it was not sent") };
            assert_eq!((sent, hash), (size, Hash(*blake3::hash(&vec![7; size as usize]).as_bytes())));
            sending.flush().unwrap();
            lanes.finish().unwrap();
        });
    }
}
