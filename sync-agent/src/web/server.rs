//! The listener and its connections: each has its bounds in bytes and in time, and there are only so many.

use super::answer::{Content, Form, Page, answer, json, told, wanted};
use super::events::{Listener, News};
use super::{ANSWER, CONNECTIONS, EXCHANGE, HEAD, HEAD_BYTES, HEADERS, LISTENERS, PARTING, RETRY, Shared};
use crate::log::Level;
use crate::metrics;
use crate::status::Status;
use crate::works::now_ns;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as Bound};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// How long it is waited when the system has no room for a connection: whoever ends meanwhile gives some back.
const CROWDED: Duration = Duration::from_secs(1);

/// To whoever comes when there is no room.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 5\r\nconnection: close\r\n\r\n";

/// What all connections share.
pub(super) struct Desk {
    shared: Arc<Shared>,
    bound: SocketAddr,
    news: News,
    listeners: Arc<Semaphore>,
    /// The agent is asked by one at a time: however long it takes, no more than that one wait in a thread.
    asking: Arc<Semaphore>,
}

/// The thread of the page, until `over`.
pub(super) fn run(shared: &Arc<Shared>, wanted: SocketAddr, listener: Option<Bound>, over: oneshot::Receiver<()>) {
    let runtime = match Builder::new_current_thread().enable_io().enable_time().max_blocking_threads(1).build() {
        Ok(runtime) => runtime,
        Err(error) => return shared.fails(wanted, &format!("it cannot be served: {error}")),
    };
    runtime.block_on(async {
        tokio::select! {
            () = serve(shared, wanted, listener) => {}
            // The other end says so, or is gone.
            _ = over => {}
        }
    });
    runtime.shutdown_timeout(PARTING);
}

async fn serve(shared: &Arc<Shared>, wanted: SocketAddr, mut first: Option<Bound>) {
    let (listener, bound) = loop {
        let opened = first.take().or_else(|| shared.listen(wanted)).map(|bound| {
            let address = bound.local_addr()?;
            Ok::<_, std::io::Error>((TcpListener::from_std(bound)?, address))
        });
        match opened {
            Some(Ok(opened)) => break opened,
            Some(Err(error)) => shared.fails(wanted, &format!("{error}; it is tried again")),
            None => {}
        }
        sleep(RETRY).await;
    };
    let desk = Arc::new(Desk {
        shared: Arc::clone(shared),
        bound,
        news: News::new(),
        listeners: Arc::new(Semaphore::new(LISTENERS)),
        asking: Arc::new(Semaphore::new(1)),
    });
    tokio::join!(desk.news.look(&desk), accept(&desk, &listener));
}

async fn accept(desk: &Arc<Desk>, listener: &TcpListener) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match Arc::clone(&seats).try_acquire_owned() {
                Ok(seat) => drop(tokio::spawn(converse(Arc::clone(desk), stream, seat))),
                // A few bytes fit into the socket's buffer; who has gone meanwhile does not need them.
                Err(_) => drop(stream.try_write(FULL)),
            },
            Err(error) => {
                desk.shared.tell(Level::Warning, &format!("a client of the status page cannot be let in: {error}"));
                sleep(CROWDED).await;
            }
        }
    }
}

/// One request and its answer, by their deadline. Whoever listens for news has more time, as long as it takes what it is told.
async fn converse(desk: Arc<Desk>, stream: TcpStream, _seat: OwnedSemaphorePermit) {
    let alive = Arc::new(());
    let service = service_fn(|request: Request<Incoming>| {
        let (desk, alive) = (Arc::clone(&desk), Arc::clone(&alive));
        async move { Ok::<_, Infallible>(desk.answer(&request, alive).await) }
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(false);
    connection.max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    let mut connection = pin!(connection.serve_connection(TokioIo::new(stream), service));
    // A client that went away, or makes no sense, was told what there was to tell.
    while timeout(EXCHANGE, connection.as_mut()).await.is_err() {
        if Arc::strong_count(&alive) == 1 {
            return;
        }
    }
}

impl Desk {
    async fn answer(self: &Arc<Desk>, request: &Request<Incoming>, alive: Arc<()>) -> Response<Content> {
        match wanted(request, self.bound) {
            Err(refused) => *refused,
            Ok(Page::Fixed(kind, text)) => answer(StatusCode::OK, kind, Content::of(text)),
            Ok(Page::Events) => self.events(request.method() == Method::HEAD, alive),
            Ok(Page::Status(form)) => match self.status().await {
                Err(why) => told(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n")),
                Ok(status) => rendered(form, &status),
            },
        }
    }

    fn events(self: &Arc<Desk>, nothing: bool, alive: Arc<()>) -> Response<Content> {
        const KIND: &str = "text/event-stream";
        if nothing {
            return answer(StatusCode::OK, KIND, Content::of(""));
        }
        let Ok(seat) = Arc::clone(&self.listeners).try_acquire_owned() else {
            let text = format!("{LISTENERS} listen already: ask /api/status now and then\n");
            return told(StatusCode::SERVICE_UNAVAILABLE, &text);
        };
        let (out, coming) = mpsc::channel(1);
        let desk = Arc::clone(self);
        drop(tokio::spawn(async move { desk.news.tell(&desk, Listener { out, seat, alive }).await }));
        answer(StatusCode::OK, KIND, Content::Events(coming))
    }

    /// How the agent is, asked in another thread: it must not keep anybody waiting here.
    pub(super) async fn status(&self) -> Result<Status, String> {
        let late = || format!("the agent does not say within {} seconds how it is", ANSWER.as_secs());
        let asked = async {
            let turn = Arc::clone(&self.asking).acquire_owned().await.map_err(|_| late())?;
            let shared = Arc::clone(&self.shared);
            let asking = tokio::task::spawn_blocking(move || {
                let status = shared.status();
                drop(turn);
                status
            });
            asking.await.map_err(|_| "the agent cannot say how it is: its log tells why".to_owned())
        };
        timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(late()))
    }
}

fn rendered(form: Form, status: &Status) -> Response<Content> {
    let (kind, text) = match form {
        Form::Json => ("application/json", json(status, now_ns())),
        Form::Metrics => ("text/plain; version=0.0.4; charset=utf-8", metrics::text(status)),
        Form::Health => ("text/plain; charset=utf-8", "ok\n".to_owned()),
    };
    answer(StatusCode::OK, kind, Content::of(text))
}
