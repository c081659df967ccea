//! News for those that listen: the status once for all of them, when it has changed, and a sign of life in between.

use super::answer::json;
use super::server::Desk;
use super::{BEAT, EXCHANGE, LISTEN, LOOK};
use crate::status::{Moment, Status};
use crate::works::now_ns;
use hyper::body::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{sleep, timeout};

/// When somebody was heard of, and a link was tried, is told anew in steps of so long.
const STEP_NS: i64 = 10_000_000_000;
/// How far clocks are apart is told anew when it changed by about so much: no measurement is like the one before.
const CLOCK_STEP_MS: f64 = 1_000.0;

/// What listeners are told; the last of it is kept [`Told::still`].
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Nothing,
    Status(Arc<Status>),
    /// The agent does not say how it is.
    Silence(String),
}

/// What listeners are told from.
pub(super) struct News(watch::Sender<(Told, Bytes)>);

/// One that listens, with its place among them.
pub(super) struct Listener {
    pub(super) out: mpsc::Sender<Bytes>,
    pub(super) seat: OwnedSemaphorePermit,
    /// Its connection lives as long as somebody has this.
    pub(super) alive: Arc<()>,
}

impl News {
    pub(super) fn new() -> News {
        News(watch::Sender::new((Told::Nothing, Bytes::new())))
    }

    /// Looks for news as long as somebody listens. Never ends.
    pub(super) async fn look(&self, desk: &Desk) {
        loop {
            sleep(LOOK).await;
            if self.0.receiver_count() == 0 {
                continue;
            }
            let told = Told::of(desk.status().await);
            self.0.send_if_modified(|(last, frame)| {
                let still = told.still();
                let news = *last != still;
                if news {
                    *frame = told.frame();
                    *last = still;
                }
                news
            });
        }
    }

    /// Tells one listener until it goes, stalls, or has listened for long enough.
    pub(super) async fn tell(&self, desk: &Desk, listener: Listener) {
        let mut news = self.0.subscribe();
        let first = Told::of(desk.status().await).frame();
        let telling = async {
            let mut frame = first;
            // One that does not take what it is told is gone.
            while matches!(timeout(EXCHANGE, listener.out.send(frame)).await, Ok(Ok(()))) {
                frame = match timeout(BEAT, news.changed()).await {
                    Ok(Ok(())) => news.borrow_and_update().1.clone(),
                    Ok(Err(_)) => return,
                    Err(_) => frame_of("beat", &format!("\"{}\"", String::from(now_ns()))),
                };
            }
        };
        tokio::select! {
            _ = timeout(LISTEN, telling) => {}
            () = listener.out.closed() => {}
        }
        drop((listener.seat, listener.alive));
    }
}

impl Told {
    fn of(status: Result<Status, String>) -> Told {
        status.map_or_else(Told::Silence, |status| Told::Status(Arc::new(status)))
    }

    /// The same, for comparison, without what goes on by itself while all stays as it is: an agent says of itself, and of whomever it is connected to,
    /// that it heard of them just now. To the next step of that it is no news.
    fn still(&self) -> Told {
        let Told::Status(status) = self else { return self.clone() };
        let mut still = Status::clone(status);
        let step = |moment: Moment| Moment(moment.0 - moment.0.rem_euclid(STEP_NS));
        for machine in &mut still.machines {
            machine.heard = machine.heard.map(step);
        }
        for link in &mut still.links {
            link.tried = link.tried.map(step);
        }
        for peer in still.folders.iter_mut().flat_map(|folder| &mut folder.peers) {
            peer.clock_offset_ms = peer.clock_offset_ms.map(|offset| (offset / CLOCK_STEP_MS).round());
        }
        Told::Status(Arc::new(still))
    }

    fn frame(&self) -> Bytes {
        match self {
            Told::Nothing => Bytes::new(),
            Told::Status(status) => frame_of("status", &json(status, now_ns())),
            Told::Silence(why) => frame_of("silence", &serde_json::Value::from(why.as_str()).to_string()),
        }
    }
}

/// JSON has no line ends outside of its escapes, so that one line holds it.
fn frame_of(event: &str, json: &str) -> Bytes {
    format!("event: {event}\ndata: {json}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::told::{link, status};

    #[test]
    fn that_somebody_was_heard_of_again_is_no_news_until_the_next_step() {
        let at = |ns| {
            let mut status = status(2, Vec::new(), vec![link(1, 2, None, None)]);
            (status.machines[1].heard, status.links[0].tried) = (Some(Moment(ns)), Some(Moment(ns)));
            status
        };
        let told = |status| Told::Status(Arc::new(status)).still();
        assert_eq!(told(at(3 * STEP_NS)), told(at(4 * STEP_NS - 1)));
        assert_ne!(told(at(3 * STEP_NS)), told(at(4 * STEP_NS)));
        let mut renamed = at(3 * STEP_NS);
        renamed.machines[1].name = Some("other".into());
        assert_ne!(told(at(3 * STEP_NS)), told(renamed));
        assert_ne!(told(at(3 * STEP_NS)), Told::Silence("gone".into()).still());
    }
}
