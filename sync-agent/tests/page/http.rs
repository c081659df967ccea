//! What clients of all kinds get.

use crate::client::{connect, event, get, listen, say};
use crate::made_up::World;
use crate::wait_until;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use sync_agent::log::Log;
use sync_agent::status::Status;
use sync_agent::web::{CONNECTIONS, HEAD_BYTES, LISTENERS, Web};

const PAGES: [(&str, &str); 9] = [
    ("/", "text/html; charset=utf-8"),
    ("/style.css", "text/css; charset=utf-8"),
    ("/page.js", "text/javascript; charset=utf-8"),
    ("/map.js", "text/javascript; charset=utf-8"),
    ("/words.js", "text/javascript; charset=utf-8"),
    ("/icon.svg", "image/svg+xml"),
    ("/api/status", "application/json"),
    ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
    ("/healthz", "text/plain; charset=utf-8"),
];

fn quiet() -> Log {
    Arc::new(|_, line| eprintln!("{line}"))
}

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A page of this status, and where it is.
fn page(status: Status) -> (Web, SocketAddr) {
    page_from(move || status.clone())
}

fn page_from(source: impl Fn() -> Status + Send + Sync + 'static) -> (Web, SocketAddr) {
    let web = Web::new(Arc::new(source), quiet());
    web.place(Some(anywhere()));
    let address = web.address().unwrap();
    (web, address)
}

fn trouble() -> Status {
    World::at(1_795_000_000_000_000_000).trouble()
}

#[test]
fn every_page_can_be_read_and_nothing_can_be_done() {
    let (web, at) = page(trouble());
    for (path, kind) in PAGES {
        let answer = get(at, path);
        assert_eq!((answer.code, &*answer.headers["content-type"]), (200, kind), "{path}");
        assert_eq!(answer.headers["content-length"], answer.body.len().to_string(), "{path}");
        assert!(answer.headers["content-security-policy"].starts_with("default-src 'none'; script-src 'self'"), "{path}");
        assert_eq!((&*answer.headers["x-content-type-options"], &*answer.headers["cache-control"]), ("nosniff", "no-store"));
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        let head = say(at, &format!("HEAD {path} HTTP/1.1\r\nhost: {at}\r\n\r\n"));
        assert_eq!((head.code, &*head.body), (200, ""), "{path}");
        assert!(head.headers.contains_key("content-length"), "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "WHATEVER"] {
            let refused = say(at, &format!("{method} {path} HTTP/1.1\r\nhost: {at}\r\ncontent-length: 0\r\n\r\n"));
            assert_eq!((refused.code, &*refused.headers["allow"]), (405, "GET, HEAD"), "{method} {path}");
        }
    }
    for other in ["/favicon.ico", "//", "/../etc/passwd", "/style.css/", "/API/status", "*", "/events/../api/status"] {
        assert_eq!(get(at, other).code, 404, "{other}");
    }
    assert_eq!(get(at, "no path").code, 400);
    web.close();
    assert!(TcpStream::connect(at).is_err(), "it is closed");
}

#[test]
fn the_status_comes_as_it_is_with_the_few_numbers() {
    let (web, at) = page(trouble());
    let told: serde_json::Value = serde_json::from_str(&get(at, "/api/status").body).unwrap();
    let expected = Status { page: Some(at), ..trouble() };
    assert_eq!(serde_json::from_value::<Status>(told["status"].clone()).unwrap(), expected);
    assert_eq!(told["summary"], serde_json::to_value(expected.summary()).unwrap());
    assert!(told["now"].as_str().unwrap().ends_with('Z'));
    web.close();
}

#[test]
fn the_page_loads_nothing_from_elsewhere_and_has_no_script_in_it() {
    let (web, at) = page(trouble());
    let text: Vec<String> = PAGES[..6].iter().map(|(path, _)| get(at, path).body).collect();
    assert!(!text[0].contains("onclick") && !text[0].contains("style=") && text[0].matches("<script").count() == 1);
    for (text, (path, _)) in text.iter().zip(PAGES) {
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("http:") && !elsewhere.contains("https:") && !elsewhere.contains("url("), "{path}");
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
            assert!(!text.contains(word), "{path} has {word}: what others named could become a part of the page");
        }
    }
    web.close();
}

#[test]
fn a_name_that_is_not_this_machines_is_not_answered_to() {
    let (web, at) = page(trouble());
    let ask = |line: &str, hosts: &str| say(at, &format!("GET {line}\r\n{hosts}\r\n"));
    let port = at.port();
    for host in ["localhost", &format!("LOCALHOST:{port}"), "127.0.0.1", &format!("[::1]:{port}"), "localhost:8080"] {
        assert_eq!(ask("/api/status HTTP/1.1", &format!("host: {host}\r\n")).code, 200, "{host}");
    }
    for hosts in [
        "host: evil.example\r\n",
        "host: localhost.evil.example\r\n",
        "host: 192.0.2.1\r\n",
        "",
        "host: localhost\r\nhost: evil.example\r\n",
    ] {
        for path in ["/", "/api/status", "/metrics", "/nowhere"] {
            let refused = ask(&format!("{path} HTTP/1.1"), hosts);
            assert_eq!(refused.code, 421, "{hosts}{path}");
            assert!(!refused.body.contains("web-hk-1"));
        }
    }
    assert_eq!(ask("http://evil.example/api/status HTTP/1.1", "host: localhost\r\n").code, 421);
    assert_eq!(ask("http://localhost/api/status HTTP/1.1", "host: evil.example\r\n").code, 421);
    assert_eq!(ask("/healthz HTTP/1.0", "").code, 200, "programs of old name no host, browsers always do");
    web.close();
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let (web, at) = page(trouble());
    let long = "x".repeat(2 * HEAD_BYTES);
    assert_eq!(say(at, &format!("GET / HTTP/1.1\r\nhost: {at}\r\nx: {long}\r\n\r\n")).code, 431);
    let many: String = (0..200).map(|number| format!("x{number}: 1\r\n")).collect();
    assert_eq!(say(at, &format!("GET / HTTP/1.1\r\nhost: {at}\r\n{many}\r\n")).code, 431);
    assert!(matches!(get(at, &format!("/{long}")).code, 414 | 431));
    assert_eq!(say(at, "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n").code, 400, "TLS is not spoken here");
    assert_eq!(get(at, "/healthz").code, 200);
    web.close();
}

#[test]
fn clients_that_do_not_go_on_are_cut_off_and_keep_nobody_waiting() {
    let big = World::at(0).trouble();
    let (web, at) = page_from(move || {
        let mut status = big.clone();
        // More than sockets hold.
        status.notices = vec!["x".repeat(32 << 20)];
        status
    });
    let mut silent = connect(at);
    let mut half = connect(at);
    half.write_all(b"GET / HTTP/1.1\r\nho").unwrap();
    let mut deaf = connect(at);
    deaf.write_all(format!("GET /api/status HTTP/1.1\r\nhost: {at}\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(get(at, "/style.css").code, 200);
    for slow in [&mut silent, &mut half] {
        let mut heard = Vec::new();
        // Cut off, with or without a word; and not only because this side lost its patience.
        if let Err(error) = slow.read_to_end(&mut heard) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
    // One that hears nothing notices only when it speaks.
    wait_until("the deaf one is cut off", || deaf.write_all(b"x").is_err());
    web.close();
}

#[test]
fn of_too_many_connections_the_last_one_is_told_and_others_come_in_later() {
    let (web, at) = page(trouble());
    let mut crowd = Vec::new();
    wait_until("there is no room", || {
        // On a machine so slow that the first have been cut off, more come.
        crowd.extend((0..CONNECTIONS).map(|_| connect(at)));
        let mut last = connect(at);
        last.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut heard = [0; 12];
        last.read_exact(&mut heard).is_ok() && &heard == b"HTTP/1.1 503"
    });
    drop(crowd);
    wait_until("there is room again", || {
        let mut stream = connect(at);
        let asked = stream.write_all(format!("GET /healthz HTTP/1.1\r\nhost: {at}\r\n\r\n").as_bytes());
        let mut heard = [0; 12];
        asked.is_ok() && stream.read_exact(&mut heard).is_ok() && &heard == b"HTTP/1.1 200"
    });
    web.close();
}

#[test]
fn who_listens_is_told_of_every_change_and_there_are_only_so_many() {
    let status = Arc::new(Mutex::new(trouble()));
    let shown = Arc::clone(&status);
    let (web, at) = page_from(move || shown.lock().unwrap().clone());
    let mut listeners: Vec<_> = (0..LISTENERS).map(|_| listen(at)).collect();
    for (head, listener) in &mut listeners {
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        assert_eq!(event(listener, "status")["status"]["notices"].as_array().unwrap().len(), 1);
    }
    assert!(listen(at).0.starts_with("HTTP/1.1 503"));
    status.lock().unwrap().notices = Vec::new();
    for (_, listener) in &mut listeners {
        assert_eq!(event(listener, "status")["status"]["notices"].as_array().unwrap().len(), 0);
    }
    assert!(event(&mut listeners[0].1, "beat").as_str().unwrap().ends_with('Z'), "a sign of life where nothing changes");
    listeners.truncate(1);
    wait_until("a seat is free", || listen(at).0.starts_with("HTTP/1.1 200"));
    web.close();
}

#[test]
fn an_agent_that_does_not_say_how_it_is_is_told_of_and_the_page_stands() {
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let (web, at) = page_from(move || {
        // Until the other end is gone.
        let _ = held.lock().unwrap().recv();
        trouble()
    });
    thread::scope(|scope| {
        let asking = scope.spawn(|| get(at, "/healthz"));
        assert_eq!(get(at, "/page.js").code, 200, "the page is not kept waiting");
        let told = asking.join().unwrap();
        assert_eq!(told.code, 503);
        assert!(told.body.contains("does not say within"), "{}", told.body);
    });
    let (_, mut listener) = listen(at);
    assert!(event(&mut listener, "silence").as_str().unwrap().contains("does not say within"));
    drop(release);
    assert_eq!(event(&mut listener, "status")["status"]["name"], "web-hk-1");
    wait_until("it answers again", || get(at, "/healthz").code == 200);
    web.close();
}

#[test]
fn an_address_that_cannot_be_had_is_told_and_tried_again() {
    let taken = TcpListener::bind(anywhere()).unwrap();
    let wanted = taken.local_addr().unwrap();
    let web = Web::new(Arc::new(trouble), quiet());
    web.place(Some(wanted));
    let notices = || web.told(trouble()).notices;
    assert_eq!(web.address(), None);
    assert!(notices()[0].contains(&format!("the status page cannot be at {wanted}: Address already in use")), "{:?}", notices());
    drop(taken);
    wait_until("the page is there", || web.address() == Some(wanted));
    assert_eq!(notices(), trouble().notices);
    assert_eq!(get(wanted, "/healthz").code, 200);
    // Taken elsewhere, it leaves the old place.
    web.place(Some(anywhere()));
    assert!(TcpStream::connect(wanted).is_err());
    assert_eq!(get(web.address().unwrap(), "/healthz").code, 200);
    web.close();
    assert_eq!(web.address(), None);
}
