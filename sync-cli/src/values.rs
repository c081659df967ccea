//! Values of the command line that need more than a conversion: roots, paths below them, grants. Those that also stand in a
//! configuration are parsed by `sync_agent::values`.

use crate::location::Location;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
pub(crate) use sync_agent::values::{Retention, max_delete, retention};
use sync_core::path::{RelPath, escape};
use sync_core::peer::{Mode, Name};

/// A root on this machine, for the commands that look at one root alone.
pub(crate) fn local_root(text: OsString) -> Result<PathBuf, String> {
    let shown = escape(text.as_bytes());
    match Location::parse(text)? {
        Location::Local(path) => Ok(path),
        Location::Quic(_) | Location::Ssh(_) => Err(format!(
            "{shown:?} is on another machine, and this command looks at roots of this one alone: run it there \
             (a local folder with a colon in its name can be given as ./{shown})"
        )),
    }
}

/// A folder that is exported, and under which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedRoot {
    pub(crate) name: Name,
    pub(crate) path: PathBuf,
}

/// Parses a [`NamedRoot`]: `hot=/srv/hot`.
pub(crate) fn named_root(text: OsString) -> Result<NamedRoot, String> {
    let bytes = text.as_bytes();
    let form = || format!("{:?} is no exported root; give NAME=PATH (hot=/srv/hot)", escape(bytes));
    let at = bytes.iter().position(|b| *b == b'=').ok_or_else(form)?;
    let name = String::from_utf8_lossy(&bytes[..at]).parse().map_err(|error| format!("{error}"))?;
    match &bytes[at + 1..] {
        [] => Err(form()),
        path => Ok(NamedRoot { name, path: OsStr::from_bytes(path).into() }),
    }
}

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

/// Parses [`Words`], between spaces.
pub(crate) fn words(text: &str) -> Result<Words, String> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() { Err("give a program, such as 'ssh -i KEY'".into()) } else { Ok(Words(words)) }
}

/// A path below a root, as people type it: `./a`, `a/` and `a//b` are accepted; `.` is the root itself.
pub(crate) fn below(text: OsString) -> Result<RelPath, String> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Err("a path cannot be empty; give . for the whole root".into());
    }
    if bytes.starts_with(b"/") {
        return Err(format!("{:?} is absolute; give the path relative to the root", escape(bytes)));
    }
    let parts: Vec<&[u8]> = bytes.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err(format!("{:?} contains `..`; give the path relative to the root, without it", escape(bytes)));
    }
    RelPath::parse(&parts.join(&b'/')).map_err(|error| error.to_string())
}

/// Bytes a second at the most; `None` for as many as there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) Option<u64>);

/// Parses a [`Rate`]: `500` KiB a second, `1.5M`, `1G`, `0` for none; as rsync reads it.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    sync_agent::values::rate(text).map(Rate)
}

/// What a peer may do with one folder of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) folder: Name,
    pub(crate) mode: Mode,
}

/// Parses a [`Grant`]: `hot=two-way`.
pub(crate) fn grant(text: &str) -> Result<Grant, String> {
    let (folder, mode) = text.split_once('=').ok_or_else(|| format!("{text:?} is no grant; give FOLDER=MODE (hot=two-way)"))?;
    let folder = folder.parse().map_err(|error| format!("{error}"))?;
    Ok(Grant { folder, mode: mode.parse().map_err(|error| format!("{error}"))? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_command_for_one_root_takes_none_of_another_machine() {
        for remote in ["ssh://host/p", "quic://host/f", "host:path", "me@host:p"] {
            let error = local_root(remote.into()).unwrap_err();
            assert!(error.contains("on another machine") && error.contains(&format!("./{remote}")), "{remote}: {error}");
        }
        assert_eq!(local_root("./a:b".into()), Ok(PathBuf::from("./a:b")));
        assert!(local_root("".into()).is_err());
    }

    #[test]
    fn an_exported_root_is_a_name_and_a_path() {
        let path = OsString::from_vec(b"/srv/caf\xe9=x".to_vec());
        let given = OsString::from_vec([b"hot=", path.as_bytes()].concat());
        assert_eq!(named_root(given), Ok(NamedRoot { name: "hot".parse().unwrap(), path: path.into() }));
        for (wrong, word) in [("hot", "NAME=PATH"), ("hot=", "NAME=PATH"), ("=/x", "no name"), ("a b=/x", "no name")] {
            assert!(named_root(wrong.into()).unwrap_err().contains(word), "{wrong:?}");
        }
    }

    #[test]
    fn a_rate_is_read_as_rsync_reads_it() {
        let kept = [("500", 500 << 10), ("1", 1024), ("1.5M", 3 << 19), ("2k", 2048), ("1G", 1 << 30), ("0.5m", 1 << 19)];
        for (text, bytes) in kept {
            assert_eq!(rate(text), Ok(Rate(Some(bytes))), "{text}");
        }
        for none in ["0", "0M", "0.0"] {
            assert_eq!(rate(none), Ok(Rate(None)), "{none}");
        }
        for wrong in ["", "K", "-1", "1x", "1.2.3", ".", "1e9", "0.5", "0.1K", "inf", "NaN", "9999999999G", "1MB"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_program_is_split_at_spaces() {
        assert_eq!(words(" ssh  -p 2222 ").unwrap().0, ["ssh", "-p", "2222"]);
        assert!(words("  ").is_err());
    }

    #[test]
    fn a_path_below_a_root_is_taken_as_people_type_it() {
        for (given, bytes) in [
            (&b"a/b"[..], &b"a/b"[..]),
            (b"./a/b", b"a/b"),
            (b"a/b/", b"a/b"),
            (b"a//./b", b"a/b"),
            (b".", b""),
            (b"./", b""),
            (b"caf\xe9/x", b"caf\xe9/x"),
            (b"...", b"..."),
        ] {
            let path = below(OsString::from_vec(given.to_vec())).unwrap();
            assert_eq!(path.as_bytes(), bytes, "{given:?}");
        }
    }

    #[test]
    fn a_path_that_could_leave_the_root_is_refused() {
        for (given, word) in [("/a", "absolute"), ("..", "`..`"), ("a/../b", "`..`"), ("", "empty"), (".driftless/x", "reserved")]
        {
            let error = below(given.into()).unwrap_err();
            assert!(error.contains(word), "{given}: {error}");
        }
    }

    #[test]
    fn a_grant_is_a_folder_and_a_mode() {
        let grant = |text: &str| super::grant(text).map(|grant| (grant.folder.to_string(), grant.mode));
        assert_eq!(grant("hot=two-way"), Ok(("hot".into(), Mode::TwoWay)));
        assert_eq!(grant("a.b=no-delete"), Ok(("a.b".into(), Mode::NoDelete)));
        for (wrong, word) in
            [("hot", "FOLDER=MODE"), ("=two-way", "no name"), ("hot=", "no mode"), ("hot=all", "no mode"), ("", "no grant")]
        {
            assert!(grant(wrong).unwrap_err().contains(word), "{wrong:?}");
        }
    }
}
