//! News for those that listen: the status once for all of them, when it has changed, and a sign of life in between.

use super::answer::json;
use super::server::Desk;
use super::{BEAT, EXCHANGE, LISTEN, LOOK};
use crate::status::Status;
use crate::works::now_ns;
use hyper::body::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{sleep, timeout};

/// The last thing that all listeners were told.
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
                let news = *last != told;
                if news {
                    *frame = told.frame();
                    *last = told;
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
