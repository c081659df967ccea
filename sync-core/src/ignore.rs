//! Ignore rules: gitignore syntax, compiled from text, matched without touching a disk.

use crate::path::RelPath;
use ::ignore::Match;
use ::ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The file at a root that holds the folder's rules. It is synchronised like any other.
pub const FILE: &str = ".driftlessignore";
/// Longest file of rules that is taken, bytes; a longer one is refused, never cut.
pub const FILE_BYTES: u64 = 1 << 20;

/// A rule that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ignore rule {rule:?}: {reason}")]
pub struct RuleError {
    /// The rule.
    pub rule: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Compiled rules of one source.
#[derive(Debug, Clone)]
pub struct Rules {
    text: String,
    compiled: Gitignore,
}

impl Rules {
    /// Compiles rules, one a line; blank lines and lines that begin with `#` say nothing.
    ///
    /// # Errors
    /// The first rule that cannot be read.
    pub fn parse(text: &str) -> Result<Rules, RuleError> {
        let mut builder = GitignoreBuilder::new("");
        // Read as a plain bracket it would silently match something else than was meant.
        builder.allow_unclosed_class(false);
        let wrong = |rule: &str, reason: ::ignore::Error| RuleError { rule: rule.into(), reason: reason.to_string() };
        for rule in text.lines() {
            builder.add_line(None, rule).map_err(|error| wrong(rule, error))?;
        }
        let compiled = builder.build().map_err(|error| wrong(text, error))?;
        Ok(Rules { text: text.into(), compiled })
    }

    /// Do the rules ignore nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.compiled.num_ignores() == 0
    }

    /// The text that they were compiled from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Do the other rules surely ignore all that these do? `false` where the texts alone cannot tell.
    #[must_use]
    pub fn is_part_of(&self, other: &Rules) -> bool {
        // Without exceptions rules only add to each other, in any order.
        let plain = !other.text.lines().any(|rule| rule.starts_with('!'));
        let found = |rule: &str| rule.is_empty() || rule.starts_with('#') || other.text.lines().any(|other| other == rule);
        self.is_empty() || self.text == other.text || (plain && self.text.lines().all(found))
    }

    /// Is this path ignored, by a rule for itself or for a directory above it?
    #[must_use]
    pub fn ignores(&self, path: &RelPath, dir: bool) -> bool {
        if self.is_empty() || path.is_root() {
            return false;
        }
        let path = OsStr::from_bytes(path.as_bytes());
        matches!(self.compiled.matched_path_or_any_parents(path, dir), Match::Ignore(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_part_of_those_that_ignore_no_less() {
        for (rules, other, part) in [
            ("", "", true),
            ("# nothing\n", "", true),
            ("a\n", "", false),
            ("a\n", "b\n\na", true),
            ("a\nb\n", "a\n", false),
            ("a\n", "a\n!a\n", false),
            ("a\n!a\n", "a\n!a\n", true),
            ("a\n!a\n", "a\n", false),
        ] {
            let [rules, other] = [rules, other].map(|text| Rules::parse(text).unwrap());
            assert_eq!(rules.is_part_of(&other), part, "{rules:?} {other:?}");
        }
    }

    #[test]
    fn rules_follow_gitignore() {
        let rules = Rules::parse("*.tmp\n/top\ncache/\n!keep.tmp\n# a comment\n\n").unwrap();
        let table = [
            ("a.tmp", false, true),
            ("d/a.tmp", false, true),
            ("keep.tmp", false, false),
            ("top", false, true),
            ("d/top", false, false),
            ("cache", true, true),
            ("cache", false, false),
            ("cache/x", false, true),
            ("# a comment", false, false),
        ];
        for (path, dir, ignored) in table {
            assert_eq!(rules.ignores(&RelPath::parse(path.as_bytes()).unwrap(), dir), ignored, "{path}");
        }
        assert!(!rules.ignores(&RelPath::root(), true));
    }

    #[test]
    fn a_rule_that_cannot_be_read_is_named() {
        assert_eq!(Rules::parse("ok\na[").unwrap_err().rule, "a[");
    }
}
