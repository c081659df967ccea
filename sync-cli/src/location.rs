//! Where a root is, as people write it: a local folder, a folder that another machine exports, or a path behind ssh. Pure.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use sync_core::path::{RelPath, escape};
use sync_core::peer::{Address, Name};

/// The port of a server whose address names none.
pub(crate) const PORT: u16 = 4477;

/// A root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// On this machine.
    Local(PathBuf),
    /// A folder that a server exports.
    Quic(Exported),
    /// A path on a machine with nothing but sshd and this program.
    Ssh(Behind),
}

/// `quic://host[:port]/FOLDER[/sub]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exported {
    /// Where the server is.
    pub(crate) address: Address,
    /// What it calls the folder.
    pub(crate) folder: Name,
    /// The part of the folder that is the root.
    pub(crate) sub: RelPath,
    written: OsString,
}

/// `ssh://[user@]host[:port]/abs/path`, or `[user@]host:path` with a path that may be relative to the home folder there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Behind {
    /// `[user@]host` for ssh, which may know the host by this name alone.
    pub(crate) destination: String,
    /// The host without brackets and user.
    pub(crate) host: String,
    /// The port of sshd, if it is not the usual one.
    pub(crate) port: Option<u16>,
    /// The path there.
    pub(crate) path: OsString,
    written: OsString,
}

impl Location {
    /// Reads what was written. Whoever has a colon before the first slash means another machine.
    pub(crate) fn parse(written: OsString) -> Result<Location, String> {
        let bytes = written.as_bytes();
        if bytes.is_empty() {
            return Err("a root cannot be empty; give . for the current folder".into());
        }
        match scheme(bytes) {
            Some((b"quic", rest)) => Exported::parse(rest, &written).map(Location::Quic),
            Some((b"ssh", rest)) => Behind::parse_url(rest, &written).map(Location::Ssh),
            Some(_) => Err(format!("{:?} is no root: quic:// and ssh:// are known, and nothing else", escape(bytes))),
            None => match colon_before_slash(bytes) {
                Some(at) => Behind::parse_short(bytes, at, &written).map(Location::Ssh),
                None => Ok(Location::Local(written.into())),
            },
        }
    }

    /// As it was written.
    pub(crate) fn written(&self) -> &OsStr {
        match self {
            Location::Local(path) => path.as_os_str(),
            Location::Quic(exported) => &exported.written,
            Location::Ssh(behind) => &behind.written,
        }
    }
}

/// As it was written, safe to print.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(self.written().as_bytes()))
    }
}

/// `quic://…`: the word before the `://`, and what is behind it.
fn scheme(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.windows(3).position(|three| three == b"://")?;
    let (word, rest) = (&bytes[..at], &bytes[at + 3..]);
    let is_word = !word.is_empty() && word.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b));
    is_word.then_some((word, rest))
}

/// The colon behind a host; those within the brackets of an IPv6 address are part of it.
fn colon_before_slash(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|b| *b == b'/').unwrap_or(bytes.len());
    let head = &bytes[..end];
    let host = head.iter().rposition(|b| *b == b'@').map_or(0, |at| at + 1);
    let behind_brackets = match head.get(host) {
        Some(b'[') => host + head[host..].iter().position(|b| *b == b']')?,
        _ => 0,
    };
    head[behind_brackets..].iter().position(|b| *b == b':').map(|at| behind_brackets + at)
}

/// The part before the first slash, and what begins with that slash.
fn split_host(rest: &[u8]) -> (&[u8], &[u8]) {
    rest.split_at(rest.iter().position(|b| *b == b'/').unwrap_or(rest.len()))
}

/// Host and port of `host`, `host:port`, `[v6]` and `[v6]:port`; the host with its brackets.
fn split_port(text: &str) -> (&str, Option<&str>) {
    let behind_brackets = text.rfind(']').map_or(0, |at| at + 1);
    match text[behind_brackets..].rfind(':') {
        Some(at) => (&text[..behind_brackets + at], Some(&text[behind_brackets + at + 1..])),
        None => (text, None),
    }
}

impl Exported {
    fn parse(rest: &[u8], written: &OsStr) -> Result<Exported, String> {
        let shown = || escape(written.as_bytes());
        let form = "quic://HOST[:PORT]/FOLDER[/SUB]";
        let (host, path) = split_host(rest);
        let host = std::str::from_utf8(host).map_err(|_| format!("{:?}: a host is plain ASCII", shown()))?;
        if host.contains('@') {
            return Err(format!("{:?} names a user, and a server asks for none; give {form}", shown()));
        }
        let (host, port) = split_port(host);
        let address = match port {
            Some(port) => format!("{host}:{port}"),
            None => format!("{host}:{PORT}"),
        };
        let address = address.parse().map_err(|error| format!("{:?}: {error}", shown()))?;
        let mut parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty());
        let folder = parts.next().ok_or_else(|| format!("{:?} names no folder; give {form}", shown()))?;
        let folder = String::from_utf8_lossy(folder).parse().map_err(|error| format!("{:?}: {error}", shown()))?;
        let sub: Vec<&[u8]> = parts.filter(|part| *part != b".").collect();
        let sub = RelPath::parse(&sub.join(&b'/')).map_err(|error| format!("{:?}: {error}", shown()))?;
        Ok(Exported { address, folder, sub, written: written.to_owned() })
    }
}

impl Behind {
    fn parse_url(rest: &[u8], written: &OsStr) -> Result<Behind, String> {
        let shown = || escape(written.as_bytes());
        let (head, path) = split_host(rest);
        if path.len() < 2 {
            return Err(format!("{:?} names no path; give ssh://[USER@]HOST[:PORT]/PATH", shown()));
        }
        let head = std::str::from_utf8(head).map_err(|_| format!("{:?}: a host is plain ASCII", shown()))?;
        let (destination, port) = split_port(head);
        let digits = |port: &&str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = match port {
            None => None,
            Some(text) => match Some(text).filter(digits).and_then(|text| text.parse().ok()).filter(|port| *port != 0) {
                None => return Err(format!("{:?}: {text:?} is no port", shown())),
                port => port,
            },
        };
        Behind::new(destination, port, path, written)
    }

    fn parse_short(bytes: &[u8], colon: usize, written: &OsStr) -> Result<Behind, String> {
        let shown = || escape(bytes);
        let head = std::str::from_utf8(&bytes[..colon]).unwrap_or("");
        let local = "a local folder with a colon in its name can be given as ./";
        let path = &bytes[colon + 1..];
        if path.is_empty() {
            return Err(format!("{0:?} names no path; give {0}. for the home folder there ({local}{0})", shown()));
        }
        // What a shell would make of it; nobody expands it there.
        let path = path.strip_prefix(b"~/").filter(|rest| !rest.is_empty()).unwrap_or(path);
        if path.starts_with(b"~") {
            return Err(format!("{:?}: a path below the home folder is given without ~", shown()));
        }
        Behind::new(head, None, path, written).map_err(|error| format!("{error} ({local}{})", shown()))
    }

    /// Checks what will stand in the command line of ssh: nothing there may look like an option, or like anything to a shell.
    fn new(destination: &str, port: Option<u16>, path: &[u8], written: &OsStr) -> Result<Behind, String> {
        let shown = escape(written.as_bytes());
        let (user, host) = match destination.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, destination),
        };
        let plain = |text: &str, more: &[u8]| {
            let begins = text.bytes().next().is_some_and(|b| b != b'-');
            begins && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
        };
        if user.is_some_and(|user| !plain(user, b"-_.+@")) {
            return Err(format!("{shown:?}: there is no such user"));
        }
        let bare = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(bare) if plain(bare, b":.%") && bare.contains(':') => bare,
            None if plain(host, b"-_.") => host,
            _ => return Err(format!("{shown:?}: there is no such host")),
        };
        if path.contains(&0) {
            return Err(format!("{shown:?} contains a NUL byte"));
        }
        let destination = user.map_or_else(|| bare.to_owned(), |user| format!("{user}@{bare}"));
        let path = OsString::from_vec(path.to_vec());
        Ok(Behind { destination, host: bare.to_owned(), port, path, written: written.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Location, String> {
        Location::parse(text.into())
    }

    #[test]
    fn a_local_folder_is_what_has_no_colon_before_its_first_slash() {
        for local in ["/a", "a", "./a:b", "/srv/a:b", "a/b:c", ".", "-", "a@b/c", "./quic://x", "/[::1]:a", "[a]"] {
            assert_eq!(parse(local), Ok(Location::Local(PathBuf::from(local))), "{local}");
        }
        assert!(matches!(Location::parse(OsString::from_vec(b"caf\xe9".to_vec())), Ok(Location::Local(_))));
        assert!(parse("").unwrap_err().contains("give . for the current folder"));
    }

    #[test]
    fn an_exported_folder_has_a_host_a_port_a_name_and_perhaps_a_path() {
        for (text, address, folder, sub) in [
            ("quic://web2/hot", "web2:4477", "hot", ""),
            ("quic://web2:1/hot", "web2:1", "hot", ""),
            ("quic://web2/hot/", "web2:4477", "hot", ""),
            ("quic://203.0.113.9:4478/hot/2026/03", "203.0.113.9:4478", "hot", "2026/03"),
            ("quic://[2001:db8::9]/hot//./a:b", "[2001:db8::9]:4477", "hot", "a:b"),
            ("quic://[::1]:9/a.b", "[::1]:9", "a.b", ""),
        ] {
            let Ok(Location::Quic(found)) = parse(text) else { panic!("{text}: {:?}", parse(text)) };
            assert_eq!((found.address.as_str(), found.folder.as_str(), found.sub.as_bytes()), (address, folder, sub.as_bytes()));
        }
        let mut text = b"quic://web2/hot/caf".to_vec();
        text.push(0xe9);
        let Ok(Location::Quic(found)) = Location::parse(OsString::from_vec(text)) else { panic!("not UTF-8") };
        assert_eq!(found.sub.as_bytes(), b"caf\xe9");
    }

    #[test]
    fn a_path_behind_ssh_is_a_url_or_has_a_colon() {
        for (text, destination, host, port, path) in [
            ("ssh://web2/srv/hot", "web2", "web2", None, "/srv/hot"),
            ("ssh://me@web2:2222/srv/a b", "me@web2", "web2", Some(2222), "/srv/a b"),
            ("ssh://me@[::1]:22/srv", "me@::1", "::1", Some(22), "/srv"),
            ("web2:/srv", "web2", "web2", None, "/srv"),
            ("web2:srv/hot", "web2", "web2", None, "srv/hot"),
            ("web2:.", "web2", "web2", None, "."),
            ("web2:~/srv", "web2", "web2", None, "srv"),
            ("me@example.org@web2:srv:1", "me@example.org@web2", "web2", None, "srv:1"),
            ("[fe80::1%eth0]:/srv", "fe80::1%eth0", "fe80::1%eth0", None, "/srv"),
            ("c:x", "c", "c", None, "x"),
        ] {
            let Ok(Location::Ssh(found)) = parse(text) else { panic!("{text}: {:?}", parse(text)) };
            let Behind { destination: to, host: at, port: by, path: below, written } = found;
            assert_eq!((to.as_str(), at.as_str(), by, below.to_str().unwrap()), (destination, host, port, path), "{text}");
            assert_eq!(written, text);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (text, word) in [
            ("http://x/y", "quic:// and ssh://"),
            ("quic://web2", "names no folder"),
            ("quic://web2/", "names no folder"),
            ("quic:///hot", "no address"),
            ("quic://web2:0/hot", "no address"),
            ("quic://web2:x/hot", "no address"),
            ("quic://::1/hot", "no address"),
            ("quic://me@web2/hot", "names a user"),
            ("quic://web2/-hot", "no name"),
            ("quic://web2/hot/../x", "not allowed"),
            ("quic://web2/hot/.driftless", "reserved"),
            ("ssh://web2", "names no path"),
            ("ssh://web2/", "names no path"),
            ("ssh://web2:0/x", "no port"),
            ("ssh://web2:+1/x", "no port"),
            ("ssh://web2:/x", "no port"),
            ("ssh:///x", "no such host"),
            ("ssh://-oProxyCommand=x/x", "no such host"),
            ("ssh://a b/x", "no such host"),
            ("-oProxyCommand=x:/y", "no such host"),
            ("a;b:/y", "no such host"),
            ("-x@web2:/y", "no such user"),
            ("$(x)@web2:/y", "no such user"),
            ("web2:", "names no path"),
            (":x", "no such host"),
            ("web2:~other/x", "without ~"),
            ("web2:~", "without ~"),
            ("a:b\0", "NUL"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text:?}: {error}");
        }
        assert!(parse("web2:").unwrap_err().contains("./web2:"));
    }

    #[test]
    fn a_location_is_shown_as_it_was_written_and_safe_to_print() {
        for text in ["a/b", "quic://web2/hot//x/", "ssh://me@[::1]:22/srv", "web2:~/x"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("web2:a\x1b[2J").unwrap().to_string(), "web2:a\\u{1b}[2J");
    }
}
