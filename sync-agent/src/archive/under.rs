//! Below which folders of a root days are looked for: `*/uploads`, `**/files`. Pure.

use globset::{Glob, GlobMatcher};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use sync_core::path::Name;

/// A pattern of folders, component by component, so that only what can lead to one is looked into.
#[derive(Debug, Clone)]
pub struct Under {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    One(GlobMatcher),
    /// `**`: any number of components.
    Any,
}

/// How a path lies to the pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fit {
    /// It is such a folder.
    pub whole: bool,
    /// There may be such folders below it.
    pub beginning: bool,
}

impl Under {
    /// Reads a pattern: `*`, `?`, `[…]` and `{a,b}` within a component, `**` for any number of components.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(text: &str) -> Result<Under, String> {
        let plain = text.strip_suffix('/').unwrap_or(text);
        if plain.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(format!("{text:?} is no pattern of folders below a root, such as */uploads"));
        }
        let part = |part: &str| match part {
            "**" => Ok(Part::Any),
            _ if part.contains("**") => Err(format!("{text:?}: ** stands for whole components")),
            _ => Glob::new(part).map(|glob| Part::One(glob.compile_matcher())).map_err(|error| format!("{text:?}: {error}")),
        };
        let parts = plain.split('/').map(part).collect::<Result<_, _>>()?;
        Ok(Under { text: text.to_owned(), parts })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How the folder with these components lies to the pattern.
    #[must_use]
    pub fn fit(&self, path: &[Name]) -> Fit {
        let last = self.parts.len();
        let mut at = vec![false; last + 1];
        at[0] = true;
        self.skip(&mut at);
        for name in path {
            let mut next = vec![false; last + 1];
            for (place, part) in self.parts.iter().enumerate().filter(|(place, _)| at[*place]) {
                match part {
                    Part::Any => next[place] = true,
                    Part::One(glob) if glob.is_match(OsStr::from_bytes(name.as_bytes())) => next[place + 1] = true,
                    Part::One(_) => {}
                }
            }
            self.skip(&mut next);
            at = next;
        }
        Fit { whole: at[last], beginning: at[..last].contains(&true) }
    }

    /// `**` may stand for nothing.
    fn skip(&self, at: &mut [bool]) {
        for (place, part) in self.parts.iter().enumerate() {
            if at[place] && matches!(part, Part::Any) {
                at[place + 1] = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_core::path::RelPath;

    #[test]
    fn folders_fit_whole_or_lead_to_some_that_do() {
        for (pattern, path, whole, beginning) in [
            ("uploads", "", false, true),
            ("uploads", "uploads", true, false),
            ("uploads", "uploads/x", false, false),
            ("uploads", "x/uploads", false, false),
            ("uploads/", "uploads", true, false),
            ("*/uploads", "shop", false, true),
            ("*/uploads", "shop/uploads", true, false),
            ("*/uploads/", "a/b/uploads", false, false),
            ("sites/{a,b}/files", "sites/a", false, true),
            ("sites/{a,b}/files", "sites/c", false, false),
            ("sites/[ab]?", "sites/ax", true, false),
            ("**", "", true, true),
            ("**", "a/b", true, true),
            ("**/files", "files", true, true),
            ("**/files", "a/b/files", true, true),
            ("**/files", "a/b", false, true),
            ("a/**/files", "b", false, false),
            ("a/**/files", "a/files", true, true),
        ] {
            let names: Vec<Name> = RelPath::parse(path.as_bytes()).unwrap().components().collect();
            let fit = Under::parse(pattern).unwrap().fit(&names);
            assert_eq!(fit, Fit { whole, beginning }, "{pattern} {path}");
        }
    }

    #[test]
    fn patterns_that_lead_out_or_mean_nothing_are_refused() {
        for pattern in ["", "/", "/a", "a//b", "../a", "./a", "a/..", "a[", "{a/b,c}", "a**"] {
            assert!(Under::parse(pattern).is_err(), "{pattern}");
        }
    }
}
