//! What another machine asks of a root here is answered, on every stream that it opens; or it is passed on to the machine that can
//! answer.

use super::asking::SILENCE;
use super::news::News;
use super::opened::Opened;
use crate::io::link::{CloseCode, Connection, LinkError, Reader, Stream, WAIT, Writer};
use crate::io::remote::{Gate, Here, PATIENCE, Parked, Told, respond};
use crate::io::speaker::Speaker;
use crate::wire::{self, Message, Nothing};
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Answers the other side's questions, until the connection ends.
pub(super) struct Answering {
    connection: Arc<Connection>,
    thread: Option<JoinHandle<()>>,
}

impl Answering {
    /// About the root here. `news` rings when the other side tells of a change, and when the connection ends.
    pub(super) fn begin(connection: Arc<Connection>, opened: Arc<Opened>, asker: Speaker, news: Option<Arc<News>>) -> Answering {
        let link = connection.clone();
        let thread = std::thread::spawn(move || {
            answer_all(&link, &opened, &asker, None, news.as_deref());
            news.iter().for_each(|news| news.ring());
        });
        Answering { connection, thread: Some(thread) }
    }

    /// By passing them on to the machine that can answer.
    pub(super) fn relay(connection: Arc<Connection>, to: Arc<Connection>, news: Option<Arc<News>>) -> Answering {
        let link = connection.clone();
        let thread = std::thread::spawn(move || {
            accept_all(&link, &|stream| pass_on(stream, &to, news.as_deref()));
            news.iter().for_each(|news| news.ring());
        });
        Answering { connection, thread: Some(thread) }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.connection.close(CloseCode::Done);
        if let Some(thread) = self.thread.take() {
            // What became of the questions the side that asked them knows.
            let _ = thread.join();
        }
    }
}

/// Answers the questions of every stream that the other side opens.
pub(super) fn answer_all(
    connection: &Connection,
    opened: &Opened,
    asker: &Speaker,
    gate: Option<&Gate<'_>>,
    news: Option<&News>,
) {
    let parked = Parked::default();
    // What it is now the other side says elsewhere.
    let heard = |told: Told| {
        if let (Told::Changed, Some(news)) = (told, news) {
            news.ring();
        }
    };
    let heard = news.is_some().then_some(&heard as &(dyn Fn(Told) + Sync));
    accept_all(connection, &|stream| {
        // What goes wrong is told to the side that asks, and ends its run.
        let _ = respond(stream, &Here { heard, ..opened.here(asker.clone(), gate) }, &parked);
    });
}

/// Takes every stream, each in a thread of its own; there are no more than the link allows.
pub(super) fn accept_all(connection: &Connection, each: &(dyn Fn(Stream) + Sync)) {
    std::thread::scope(|scope| {
        loop {
            match connection.accept(SILENCE) {
                Ok(stream) => {
                    scope.spawn(move || each(stream));
                }
                Err(LinkError::TooLong(_)) => {}
                Err(_) => return,
            }
        }
    });
}

/// Carries a stream's bytes to another machine, and the answers back, until both ways have ended. That something changed is told to
/// this machine, and to no other.
fn pass_on(mut from: Stream, to: &Connection, news: Option<&News>) {
    let mut first = Vec::new();
    if let Some(news) = news {
        from.reader.set_wait(PATIENCE);
        let mut changed = Vec::new();
        // It has no fields: it cannot be too long for a frame.
        let Ok(()) = wire::put_frame(&Message::Changed(Nothing), &mut changed) else { return };
        loop {
            first = vec![0; changed.len()];
            // Every message is as long at the least.
            if from.reader.read_exact(&mut first).is_err() {
                return;
            }
            if first != changed {
                break;
            }
            news.ring();
        }
    }
    // Whoever asked finds out that its stream was given up.
    let Ok(mut to) = to.open(WAIT) else { return };
    if to.writer.write_all(&first).is_err() {
        return;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| copy(from.reader, to.writer));
        copy(to.reader, from.writer);
    });
}

/// The end that was made is made here too; a stream that was given up is given up.
fn copy(mut from: Reader, mut to: Writer) {
    from.set_wait(PATIENCE);
    to.set_wait(PATIENCE);
    if std::io::copy(&mut from, &mut to).is_ok() {
        let _ = to.finish();
    }
}
