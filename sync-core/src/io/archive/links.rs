//! Texts of links: of the one in the place of a day, and of those in a day that would lead elsewhere after the move. Pure.

use crate::path::RelPath;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// How a link to an archived day is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkForm {
    /// With the whole path of the cold root.
    Absolute,
    /// Relative to where the link stands.
    Relative,
    /// Below another path, under which applications see the cold root.
    Prefix(PathBuf),
}

/// Where a symbolic link in a day leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leads {
    /// To the same place from wherever the day lies.
    Same,
    /// Out of the day, by so many steps up and then this rest.
    Out { up: usize, rest: Vec<u8> },
    /// Out of the day, on a way that cannot be told without walking it.
    Winding,
}

/// The link that is written for a day: `path` below `hot`, which lies at `at` below `cold`. Both roots by their real paths.
pub(super) fn to_day(form: &LinkForm, (hot, path): (&Path, &RelPath), (cold, at): (&Path, &RelPath)) -> Box<[u8]> {
    let place = below(cold, at);
    let text = match form {
        LinkForm::Absolute => place,
        LinkForm::Relative => relative(&below(hot, &path.parent().unwrap_or_default()), &place),
        LinkForm::Prefix(prefix) => below(prefix, at),
    };
    text.into_os_string().into_vec().into()
}

/// Where a link with this text leads, which stands `depth` directories below the day.
pub(super) fn leads(text: &[u8], depth: usize) -> Leads {
    if text.first() == Some(&b'/') {
        return Leads::Same;
    }
    let parts = || text.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let mut level = depth as i64;
    let leaves = parts().any(|part| {
        level += if part == b".." { -1 } else { 1 };
        level < 0
    });
    if !leaves {
        return Leads::Same;
    }
    let up = parts().take_while(|part| *part == b"..").count();
    let rest: Vec<&[u8]> = parts().skip(up).collect();
    // Behind a name, which may be a link itself, a step up leads nobody knows where.
    match rest.contains(&&b".."[..]) {
        true => Leads::Winding,
        false => Leads::Out { up, rest: rest.join(&b'/') },
    }
}

/// The text for a link that leads out of its day, as it must read in the cold root. `dir` is the directory that it is in, below
/// the day. `None` where nobody can tell how applications see the rest of the tree.
pub(super) fn rewritten(
    form: &LinkForm,
    text: &[u8],
    dir: &RelPath,
    (hot, path): (&Path, &RelPath),
    (cold, at): (&Path, &RelPath),
) -> Option<Box<[u8]>> {
    let Leads::Out { up, rest } = leads(text, dir.depth()) else { return None };
    let mut base = below(&below(hot, path), dir);
    for _ in 0..up {
        // Above the top of all there is only itself.
        base.pop();
    }
    let target = base.join(OsStr::from_bytes(&rest));
    let text = match form {
        LinkForm::Absolute => target,
        LinkForm::Relative => relative(&below(&below(cold, at), dir), &target),
        LinkForm::Prefix(_) => return None,
    };
    Some(text.into_os_string().into_vec().into())
}

/// A path below a directory.
pub(super) fn below(base: &Path, path: &RelPath) -> PathBuf {
    if path.is_root() { base.to_owned() } else { base.join(OsStr::from_bytes(path.as_bytes())) }
}

/// The way from a directory to a path; both are real paths.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let (from, to): (Vec<Component<'_>>, Vec<Component<'_>>) = (from.components().collect(), to.components().collect());
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n(Component::ParentDir, from.len() - common);
    let way: PathBuf = up.chain(to[common..].iter().copied()).collect();
    if way.as_os_str().is_empty() { PathBuf::from(".") } else { way }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_link_to_a_day_is_written_as_the_rule_says() {
        let day = path("2026/03/05");
        for (form, expected) in [
            (LinkForm::Absolute, "/mnt/cold/2026/03/05"),
            (LinkForm::Relative, "../../../../mnt/cold/2026/03/05"),
            (LinkForm::Prefix("/app/old".into()), "/app/old/2026/03/05"),
        ] {
            let text = to_day(&form, (Path::new("/srv/hot"), &day), (Path::new("/mnt/cold"), &day));
            assert_eq!(&*text, expected.as_bytes());
        }
        let text = to_day(&LinkForm::Relative, (Path::new("/srv/hot"), &day), (Path::new("/srv/cold"), &day));
        assert_eq!(&*text, b"../../../cold/2026/03/05");
        let one = path("20260305");
        assert_eq!(&*to_day(&LinkForm::Relative, (Path::new("/hot"), &one), (Path::new("/cold"), &one)), b"../cold/20260305");
    }

    #[test]
    fn a_link_leads_out_of_its_day_or_not() {
        let out = |up, rest: &str| Leads::Out { up, rest: rest.into() };
        for (text, depth, expected) in [
            ("x", 0, Leads::Same),
            ("./x/../y", 0, Leads::Same),
            ("../x", 1, Leads::Same),
            ("../x", 0, out(1, "x")),
            ("../../x/y", 1, out(2, "x/y")),
            ("..", 0, out(1, "")),
            ("./../x", 0, out(1, "x")),
            ("a/../../x", 0, Leads::Winding),
            ("../a/../x", 0, Leads::Winding),
            ("/anywhere/../x", 0, Leads::Same),
        ] {
            assert_eq!(leads(text.as_bytes(), depth), expected, "{text} {depth}");
        }
    }

    #[test]
    fn what_leads_out_is_written_for_the_new_place() {
        let (hot, cold, day) = (Path::new("/srv/hot"), Path::new("/mnt/cold"), path("2026/03/05"));
        for (form, dir, text, expected) in [
            (LinkForm::Absolute, "", "../06/x", Some("/srv/hot/2026/03/06/x")),
            (LinkForm::Absolute, "a/b", "../../../../../shared", Some("/srv/hot/shared")),
            (LinkForm::Absolute, "", "../../../../../../etc/x", Some("/etc/x")),
            (LinkForm::Relative, "", "../06/x", Some("../../../../../srv/hot/2026/03/06/x")),
            (LinkForm::Relative, "a", "../../06", Some("../../../../../../srv/hot/2026/03/06")),
            (LinkForm::Prefix("/app".into()), "", "../06/x", None),
            (LinkForm::Absolute, "a", "../x", None),
            (LinkForm::Absolute, "", "a/../../x", None),
        ] {
            let found = rewritten(&form, text.as_bytes(), &path(dir), (hot, &day), (cold, &day));
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{form:?} {dir} {text}");
        }
    }
}
