//! What is wrong with this machine, its folders and its links, and what to do about it. Findings are plain values, and judging is
//! pure; `look` and `dial` fetch what is judged.

mod dial;
mod graph;
mod links;
mod look;
mod machine;
mod mounts;
mod probe;
mod root;

#[cfg(test)]
pub(crate) use links::tests as told;
pub use look::{Terms, examine};

use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It works, and not as well or as safely as it could.
    Warning,
    /// Something does not work.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What was looked at, one word for programs.
    pub check: &'static str,
    /// On what: `folder hot`, `peer web-sg`, `this machine`.
    pub subject: String,
    /// What was found.
    pub found: String,
    /// What to do about it; none where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// The subject of what concerns the machine as a whole.
const MACHINE: &str = "this machine";

impl Finding {
    fn ok(check: &'static str, subject: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding { severity: Severity::Ok, check, subject: subject.into(), found: found.into(), advice: None }
    }

    fn warning(check: &'static str, subject: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        let advice = Some(advice.into());
        Finding { severity: Severity::Warning, check, subject: subject.into(), found: found.into(), advice }
    }

    fn broken(check: &'static str, subject: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { severity: Severity::Broken, ..Finding::warning(check, subject, found, advice) }
    }

    /// The same, where the text says already what to do.
    fn broken_as_told(check: &'static str, subject: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding { severity: Severity::Broken, ..Finding::ok(check, subject, found) }
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} {}", UNITS[0]) } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A number with what it counts.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        for (bytes, text) in
            [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB"), (u64::MAX, "16777216.0 TiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn what_is_broken_weighs_most() {
        assert!(Severity::Broken > Severity::Warning && Severity::Warning > Severity::Ok);
    }
}
