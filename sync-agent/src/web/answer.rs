//! Which request gets which answer, and the headers that keep a browser from doing anything else with it.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};
use serde::Serialize;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

use super::host::is_ours;
use crate::status::{Moment, Status, Summary};

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// A part of the page, as it is.
    Fixed(&'static str, &'static str),
    /// The status.
    Status(Form),
    /// The status each time when it has changed.
    Events,
}

/// How the status is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// All of it.
    Json,
    /// As numbers for Prometheus.
    Metrics,
    /// Only that there is one: the agent answers.
    Health,
}

/// What is asked for, by its path.
const PAGES: [(&str, Page); 10] = [
    ("/", Page::Fixed("text/html; charset=utf-8", include_str!("page.html"))),
    ("/style.css", Page::Fixed("text/css; charset=utf-8", include_str!("style.css"))),
    ("/page.js", Page::Fixed("text/javascript; charset=utf-8", include_str!("page.js"))),
    ("/map.js", Page::Fixed("text/javascript; charset=utf-8", include_str!("map.js"))),
    ("/words.js", Page::Fixed("text/javascript; charset=utf-8", include_str!("words.js"))),
    ("/icon.svg", Page::Fixed("image/svg+xml", include_str!("icon.svg"))),
    ("/api/status", Page::Status(Form::Json)),
    ("/events", Page::Events),
    ("/metrics", Page::Status(Form::Metrics)),
    ("/healthz", Page::Status(Form::Health)),
];

/// With every answer. The page loads nothing but its own files, runs nothing that stands in it, and stands in no other one.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// What one request is for, or the answer that refuses it.
pub(super) fn wanted<B>(request: &Request<B>, bound: SocketAddr) -> Result<Page, Box<Response<Content>>> {
    if !is_for_us(request, bound) {
        let text = format!("this page answers to http://localhost:{0}/ and http://{bound}/ only\n", bound.port());
        return Err(Box::new(told(StatusCode::MISDIRECTED_REQUEST, &text)));
    }
    let page = PAGES.iter().find(|(path, _)| *path == request.uri().path()).map(|(_, page)| *page);
    let page = page.ok_or_else(|| Box::new(told(StatusCode::NOT_FOUND, "there is no such page; / is the one for people\n")))?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = told(StatusCode::METHOD_NOT_ALLOWED, "this page can only be read\n");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Err(Box::new(refused));
    }
    Ok(page)
}

fn is_for_us<B>(request: &Request<B>, bound: SocketAddr) -> bool {
    let named = request.uri().authority().is_none_or(|authority| is_ours(authority.as_str(), bound));
    named && host(request.headers(), request.version()).is_some_and(|host| host.is_none_or(|host| is_ours(host, bound)))
}

/// The one host that is named; inside `None` for the programs of old that name none, which no browser does.
fn host(headers: &HeaderMap, version: Version) -> Option<Option<&str>> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(Some(host.to_str().ok()?)),
        (None, None) if version == Version::HTTP_10 => Some(None),
        _ => None,
    }
}

/// An answer of a few words.
pub(super) fn told(code: StatusCode, text: &str) -> Response<Content> {
    answer(code, "text/plain; charset=utf-8", Content::of(text.to_owned()))
}

/// An answer.
pub(super) fn answer(code: StatusCode, kind: &'static str, content: Content) -> Response<Content> {
    let mut answer = Response::new(content);
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    answer
}

/// What the page is made from.
#[derive(Serialize)]
struct Told<'a> {
    /// The agent's time: a browser's may be another.
    now: Moment,
    summary: Summary,
    status: &'a Status,
}

/// The status as one line of JSON.
pub(super) fn json(status: &Status, now: Moment) -> String {
    let told = Told { now, summary: status.summary(), status };
    serde_json::to_string(&told).expect("a status has text keys and plain values")
}

/// What an answer consists of.
pub(super) enum Content {
    /// All of it; `None` once it was taken.
    Whole(Option<Bytes>),
    /// As it comes.
    Events(mpsc::Receiver<Bytes>),
}

impl Content {
    pub(super) fn of(text: impl Into<Bytes>) -> Content {
        Content::Whole(Some(text.into()))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Events(coming) => coming.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Events(_) => SizeHint::default(),
        }
    }
}
