//! Names of conflict copies and of kept versions. Pure.

use super::Stop;
use crate::entry::Hash;
use crate::io::stage::Failure;
use crate::path::{MAX_NAME, Name, RelPath};

/// Numbers tried for a conflict copy whose name is taken.
pub(super) const TRIES: u32 = 100;
/// Bytes of the old name that a kept version's name shows.
const SHOWN: usize = 60;

/// What stands at the path wished for a conflict copy.
pub(super) enum Taken {
    /// Nothing.
    Free,
    /// The very content.
    Equal,
    /// Something else.
    Other,
}

/// `wish` itself for 1, else with `-2`, `-3` … at the end of its stem.
pub(super) fn numbered(wish: &RelPath, number: u32) -> Result<RelPath, Stop> {
    if number == 1 {
        return Ok(wish.clone());
    }
    inserted(wish, &format!("-{number}"))
}

/// The path at which a late write to a displaced object is kept.
pub(super) fn late(path: &RelPath, now_ns: i64, hash: Option<&Hash>) -> Result<RelPath, Stop> {
    let date = chrono::DateTime::from_timestamp_nanos(now_ns).format("%Y%m%d-%H%M%S");
    let hash = hash.map_or_else(String::new, |hash| format!("-{hash:?}"));
    inserted(path, &format!(".conflict-late-{date}{hash}"))
}

/// Puts text between stem and extension of a path's name, and cuts the stem where the name grows too long.
fn inserted(path: &RelPath, text: &str) -> Result<RelPath, Stop> {
    let impossible = |what: String| Stop::from(Failure::new("keep both", what));
    let (parent, name) = path.split().ok_or_else(|| impossible("the root has no conflict copy".into()))?;
    let name = name.as_bytes();
    let dot = name.iter().rposition(|b| *b == b'.').filter(|at| *at > 0).unwrap_or(name.len());
    let (stem, mut end) = name.split_at(dot);
    if end.len() + text.len() >= MAX_NAME {
        end = b"";
    }
    let room = MAX_NAME.saturating_sub(end.len() + text.len());
    let stem = cut(stem, room);
    let bytes = [stem, text.as_bytes(), end].concat();
    let name = Name::parse(&bytes).map_err(|error| impossible(error.to_string()))?;
    Ok(parent.join(&name))
}

/// At most `room` bytes, never in the middle of a character.
fn cut(bytes: &[u8], room: usize) -> &[u8] {
    let mut end = room.min(bytes.len());
    while end > 0 && end < bytes.len() && bytes[end] & 0b1100_0000 == 0b1000_0000 {
        end -= 1;
    }
    &bytes[..end]
}

/// `<unix ns>-<counter>-<readable part of the name>`.
pub(super) fn version(now_ns: i64, counter: u64, path: &RelPath) -> Vec<u8> {
    let name = path.name().map(|name| name.as_bytes().to_vec()).unwrap_or_default();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let readable: Vec<u8> = name.iter().take(SHOWN).map(|b| if plain(b) { *b } else { b'_' }).collect();
    [format!("{now_ns}-{counter}-").as_bytes(), &readable].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_number_goes_between_stem_and_extension() {
        for (wish, second) in [("d/a.txt", "d/a-2.txt"), ("a", "a-2"), (".rc", ".rc-2")] {
            assert_eq!(numbered(&path(wish), 2).unwrap(), path(second));
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let long = "ä".repeat(127);
        let second = numbered(&path(&long), 2).unwrap();
        assert_eq!(second.as_bytes().len(), 254);
        assert!(std::str::from_utf8(second.as_bytes()).is_ok());
        let no_stem = format!("a.{}", "x".repeat(253));
        assert!(numbered(&path(&no_stem), 2).unwrap().as_bytes().len() <= 255);
    }

    #[test]
    fn a_kept_name_is_plain() {
        let name = version(5, 7, &path("d/\u{202e}a b\n.txt"));
        assert_eq!(name, b"5-7-___a_b_.txt".to_vec());
    }
}
