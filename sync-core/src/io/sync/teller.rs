//! A run's monitor at the side that works for another machine: what it is told goes there, and from there comes the wish to
//! stop.

use crate::io::channel::{Channel, ChannelError};
use crate::io::mutex::{EndOf, into_inner, lock};
use crate::plan::Item;
use crate::report::{Done, Monitor, Phase, Problem};
use crate::wire::{self, Message, Notice, Progress};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often progress is told, and the wish to stop looked for.
const BEAT: Duration = Duration::from_millis(200);
/// Progress is told so often even if there is none: who hears nothing for long takes this side for dead.
const ALIVE: Duration = Duration::from_secs(5);
/// How long the other side's message is waited for when it is looked for.
const GLANCE: Duration = Duration::from_millis(1);

/// Tells the other machine.
pub(super) struct Teller<'a> {
    link: Mutex<Link<'a>>,
    /// This machine's own: it may stop the run too.
    own: &'a dyn Monitor,
    items: bool,
    phase: Mutex<wire::Phase>,
    files: AtomicU64,
    bytes: AtomicU64,
    stop: AtomicBool,
}

struct Link<'a> {
    control: &'a mut Channel,
    /// The other side's next wish, said before this one was fulfilled.
    early: Option<Message>,
    failed: Option<ChannelError>,
}

/// Does some work while the other machine is told of it. What it asked for meanwhile, unless the connection failed.
pub(super) fn while_told<T>(
    control: &mut Channel,
    own: &dyn Monitor,
    items: bool,
    work: impl FnOnce(&dyn Monitor) -> T,
) -> (T, Result<Option<Message>, ChannelError>) {
    control.set_read_wait(GLANCE);
    let told = Teller {
        link: Mutex::new(Link { control, early: None, failed: None }),
        own,
        items,
        phase: Mutex::new(wire::Phase::Scan),
        files: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let over = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        let beat = scope.spawn(|| told.beat(&over));
        // Should the work panic, the beat must end all the same.
        let end = EndOf { over: &over, thread: beat.thread().clone() };
        let result = work(&told);
        drop(end);
        result
    });
    let Link { control, early, failed } = into_inner(told.link);
    control.set_read_wait(crate::io::link::WAIT);
    (result, failed.map_or(Ok(early), Err))
}

impl Teller<'_> {
    fn beat(&self, over: &AtomicBool) {
        let (mut told, mut at) = ((0, 0), Instant::now());
        while !over.load(Ordering::Acquire) {
            thread::park_timeout(BEAT);
            let now = (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
            if now != told || at.elapsed() >= ALIVE {
                let phase = *lock(&self.phase);
                let (files, bytes) = now;
                let progress = Progress { phase, files, files_total: None, bytes, bytes_total: None };
                self.tell(&Message::Progress(progress));
                (told, at) = (now, Instant::now());
            }
            self.listen();
        }
    }

    /// Sends, unless the connection has failed: whoever works finds that out by [`Monitor::cancelled`].
    fn tell(&self, message: &Message) {
        let mut link = lock(&self.link);
        if link.failed.is_none()
            && let Err(error) = link.control.send(message).and_then(|()| link.control.flush())
        {
            self.fail(&mut link, error);
        }
    }

    fn listen(&self) {
        let mut link = lock(&self.link);
        if link.failed.is_some() {
            return;
        }
        match link.control.poll() {
            // The other side works too.
            Ok(None | Some(Message::Progress(_))) => {}
            Ok(Some(Message::Cancel(_))) => self.stop.store(true, Ordering::Release),
            Ok(Some(Message::Bye(_))) => self.fail(&mut link, ChannelError::Ended),
            Ok(Some(other)) if link.early.is_none() => link.early = Some(other),
            Ok(Some(other)) => {
                let error = ChannelError::unexpected(other, "nothing but the wish to stop");
                self.fail(&mut link, error);
            }
            Err(error) => self.fail(&mut link, error),
        }
    }

    fn fail(&self, link: &mut Link<'_>, error: ChannelError) {
        link.failed = Some(error);
        self.stop.store(true, Ordering::Release);
    }
}

impl Monitor for Teller<'_> {
    fn phase(&self, phase: Phase, _: Option<u64>, _: Option<u64>) {
        *lock(&self.phase) = phase.into();
    }

    fn advance(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Problems are told with the result.
    fn problem(&self, problem: &Problem) {
        self.own.problem(problem);
    }

    fn item(&self, item: &Item, _: usize, done: Done) {
        if self.items || done != Done::Done || item.verb == crate::plan::Verb::Conflict {
            self.tell(&Message::Item(wire::Item { done: Some(done.into()), ..item.into() }));
        }
    }

    fn wants_items(&self) -> bool {
        self.items
    }

    fn notice(&self, text: &str) {
        self.own.notice(text);
        self.tell(&Message::Notice(Notice { text: text.to_owned() }));
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.own.cancelled()
    }
}
