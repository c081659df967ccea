//! Relative paths: validated bytes below a root, ordered with parents before children.
//!
//! A path is a list of components; this module knows nothing of any file system. The bytes are the
//! identity: no case folding, no Unicode normalisation.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

/// The one name that is never synchronised, at any level: it holds state, staging and kept versions.
pub const RESERVED: &[u8] = b".driftless";
/// Longest component, in bytes.
pub const MAX_NAME: usize = 255;
/// Largest number of components.
pub const MAX_DEPTH: usize = 256;

/// Why bytes are not a path below a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// An empty component, `.` or `..`.
    #[error("component {0:?} is not allowed in a relative path")]
    Component(String),
    /// A NUL byte or, in a name, a slash.
    #[error("a NUL byte or a slash stands in {0:?}")]
    Byte(String),
    /// A component longer than [`MAX_NAME`].
    #[error("a component of {0} bytes is longer than 255")]
    Long(usize),
    /// More than [`MAX_DEPTH`] components.
    #[error("the path is deeper than 256 components")]
    Deep,
    /// The reserved name.
    #[error("the name .driftless is reserved")]
    Reserved,
}

/// One validated component of a path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Validates one component.
    ///
    /// # Errors
    /// Everything [`PathError`] lists but depth.
    pub fn parse(bytes: &[u8]) -> Result<Name, PathError> {
        check_name(bytes)?;
        Ok(Name(bytes.into()))
    }

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", escape(&self.0))
    }
}

/// A path relative to a root; the root itself is the empty path.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// The root itself.
    #[must_use]
    pub fn root() -> RelPath {
        RelPath::default()
    }

    /// Validates `/`-separated bytes; the empty string is the root.
    ///
    /// # Errors
    /// What [`PathError`] lists; a leading, trailing or doubled slash is an empty component.
    pub fn parse(bytes: &[u8]) -> Result<RelPath, PathError> {
        if bytes.is_empty() {
            return Ok(RelPath::root());
        }
        let mut depth = 0;
        for part in bytes.split(|b| *b == b'/') {
            check_name(part)?;
            depth += 1;
        }
        if depth > MAX_DEPTH {
            return Err(PathError::Deep);
        }
        Ok(RelPath(bytes.into()))
    }

    /// The child `name` of this path. The depth is the caller's to bound ([`RelPath::depth`]).
    #[must_use]
    pub fn join(&self, name: &Name) -> RelPath {
        if self.is_root() {
            return RelPath(name.0.clone());
        }
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.0.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(&name.0);
        RelPath(bytes.into())
    }

    /// Is this the root?
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path's bytes, `/`-separated.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The containing directory; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<RelPath> {
        self.split().map(|(parent, _)| parent)
    }

    /// The last component; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        self.split().map(|(_, name)| name)
    }

    /// Parent and last component; `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(RelPath, Name)> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => (RelPath(self.0[..at].into()), Name(self.0[at + 1..].into())),
            None => (RelPath::root(), Name(self.0.clone())),
        })
    }

    /// The components, outermost first.
    pub fn components(&self) -> impl Iterator<Item = Name> + '_ {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty()).map(|part| Name(part.into()))
    }

    /// Number of components; 0 for the root.
    #[must_use]
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { 1 + self.0.iter().filter(|b| **b == b'/').count() }
    }

    /// Is `other` this path or below it?
    #[must_use]
    pub fn contains(&self, other: &RelPath) -> bool {
        self.is_root() || (other.0.starts_with(&self.0) && (other.0.len() == self.0.len() || other.0[self.0.len()] == b'/'))
    }

    /// This path and every ancestor up to and including the root, innermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = RelPath> {
        std::iter::successors(Some(self.clone()), RelPath::parent)
    }

    /// The path `self` with the prefix `from` replaced by `to`; `None` if it is not below `from`.
    #[must_use]
    pub fn rebase(&self, from: &RelPath, to: &RelPath) -> Option<RelPath> {
        if !from.contains(self) {
            return None;
        }
        let rest = if from.is_root() { &self.0[..] } else { self.0[from.0.len()..].strip_prefix(b"/").unwrap_or(b"") };
        if rest.is_empty() {
            return Some(to.clone());
        }
        let mut bytes = to.0.to_vec();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(rest);
        Some(RelPath(bytes.into()))
    }
}

impl Ord for RelPath {
    /// Component by component, so that a directory stands right before everything below it.
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |b: &u8| if *b == b'/' { 0u8 } else { *b };
        self.0.iter().map(key).cmp(other.0.iter().map(key))
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RelPath {
    /// The path with control characters and invalid UTF-8 escaped, safe for a terminal or a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&if self.is_root() { ".".into() } else { escape(&self.0) })
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Bytes as text with control characters, direction overrides and invalid UTF-8 as `\x..` escapes.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
                let _ = write!(out, "{}", c.escape_unicode());
            } else {
                out.push(c);
            }
        }
        for b in chunk.invalid() {
            let _ = write!(out, "\\x{b:02x}");
        }
    }
    out
}

fn check_name(bytes: &[u8]) -> Result<(), PathError> {
    match bytes {
        b"" | b"." | b".." => Err(PathError::Component(escape(bytes))),
        _ if bytes == RESERVED => Err(PathError::Reserved),
        _ if bytes.len() > MAX_NAME => Err(PathError::Long(bytes.len())),
        _ if bytes.iter().any(|b| matches!(b, 0 | b'/')) => Err(PathError::Byte(escape(bytes))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_directory_stands_right_before_everything_below_it() {
        let mut paths = [path("a.b"), path("a/b"), path("a"), path("a/b/c"), path(""), path("a-")];
        paths.sort();
        assert_eq!(paths.map(|p| String::from_utf8(p.as_bytes().to_vec()).unwrap()), ["", "a", "a/b", "a/b/c", "a-", "a.b"]);
    }

    #[test]
    fn what_could_leave_the_root_is_refused() {
        for bad in ["/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", ".driftless", "a/.driftless/b", "a\0b"] {
            assert!(RelPath::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(RelPath::parse(&[b'x'; 256]).is_err());
        assert!(RelPath::parse(&[b'x'; 255]).is_ok());
        assert!(RelPath::parse(b"d/".repeat(256).strip_suffix(b"/").unwrap()).is_ok());
        assert_eq!(RelPath::parse(b"d/".repeat(257).strip_suffix(b"/").unwrap()), Err(PathError::Deep));
    }

    #[test]
    fn rebase_moves_a_subtree() {
        assert_eq!(path("a/b/c").rebase(&path("a/b"), &path("x")), Some(path("x/c")));
        assert_eq!(path("a/b").rebase(&path("a/b"), &path("x")), Some(path("x")));
        assert_eq!(path("a/bc").rebase(&path("a/b"), &path("x")), None);
        assert_eq!(path("a").rebase(&path(""), &path("x")), Some(path("x/a")));
    }

    #[test]
    fn names_are_safe_to_print() {
        assert_eq!(escape(b"a\nb\xff\x1b[2J"), "a\\u{a}b\\xff\\u{1b}[2J");
    }
}
