//! A client that does exactly what it is told, byte by byte.

use crate::PATIENCE;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    /// Names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// A connection on which nothing was said yet.
pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Says this, and hears all that comes. Whoever is refused may be cut off while it still speaks.
pub(crate) fn say(to: SocketAddr, text: &str) -> Answer {
    let mut stream = connect(to);
    let _ = stream.write_all(text.as_bytes());
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    Answer::of(&String::from_utf8(heard).unwrap())
}

pub(crate) fn get(to: SocketAddr, path: &str) -> Answer {
    say(to, &format!("GET {path} HTTP/1.1\r\nhost: {to}\r\n\r\n"))
}

/// Asks for news, and hears the head of the answer.
pub(crate) fn listen(to: SocketAddr) -> (String, BufReader<TcpStream>) {
    let mut stream = connect(to);
    stream.write_all(format!("GET /events HTTP/1.1\r\nhost: {to}\r\n\r\n").as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
    (head, reader)
}

/// The next event of this kind.
pub(crate) fn event(reader: &mut BufReader<TcpStream>, kind: &str) -> serde_json::Value {
    let (mut line, mut ours) = (String::new(), false);
    loop {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "it ended before an event {kind}");
        if let Some(event) = line.trim_end().strip_prefix("event: ") {
            ours = event == kind;
        }
        if let Some(data) = line.trim_end().strip_prefix("data: ").filter(|_| ours) {
            return serde_json::from_str(data).unwrap();
        }
    }
}

impl Answer {
    fn of(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let code = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).unwrap_or(0);
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Answer { code, headers: headers.collect(), body: body.to_owned() }
    }
}
