//! `driftless doctor`: what is wrong with this machine, its folders and its links, and what to do about it.

use crate::cli::DoctorArgs;
use crate::exit::Exit;
use crate::home;
use crate::output::Output;
use crate::render::counted;
use anyhow::Result;
use serde::Serialize;
use sync_agent::doctor::{Finding, Severity, Terms, examine};
use sync_core::path::escape;

/// Characters of a line.
const WIDTH: usize = 80;

/// The lines of results.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line<'a> {
    /// One thing that was looked at.
    Finding(&'a Finding),
    /// The end.
    Summary(Numbers),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Numbers {
    broken: u64,
    warnings: u64,
    ok: u64,
}

/// Looks at everything and tells it: first what matters.
pub(super) fn run(args: &DoctorArgs, output: &Output) -> Result<Exit> {
    let home = home::place()?;
    let config = home::configuration(&home, args.config.as_deref()).map_err(|error| error.to_string());
    let terms = Terms { home, config, roots: args.roots.clone(), state_dir: args.state.state_dir.clone() };
    let found = examine(&terms);
    lines(&found, args.verbose).iter().for_each(|line| output.line(line));
    found.iter().for_each(|finding| output.event(&Line::Finding(finding)));
    let numbers = numbers(&found);
    output.event(&Line::Summary(numbers));
    Ok(match numbers {
        Numbers { broken: 1.., .. } => Exit::Failed,
        Numbers { warnings: 1.., .. } => Exit::Skipped,
        _ => Exit::InSync,
    })
}

fn numbers(found: &[Finding]) -> Numbers {
    let count = |severity| found.iter().filter(|finding| finding.severity == severity).count() as u64;
    Numbers { broken: count(Severity::Broken), warnings: count(Severity::Warning), ok: count(Severity::Ok) }
}

/// All of it for people, no line longer than a terminal is wide unless a single word is. Everything is escaped here.
fn lines(found: &[Finding], verbose: bool) -> Vec<String> {
    let Numbers { broken, warnings, ok } = numbers(found);
    let verdict = match (broken, warnings) {
        (0, 0) => "healthy".to_owned(),
        _ => {
            let parts = [(broken, format!("{broken} broken")), (warnings, counted(warnings, "warning", "warnings"))];
            let parts: Vec<String> = parts.into_iter().filter(|(number, _)| *number > 0).map(|(_, text)| text).collect();
            parts.join(", ")
        }
    };
    let mut lines = vec![format!("{verdict}; {}", counted(ok, "check is fine", "checks are fine"))];
    let mut kinds = vec![(Severity::Broken, "broken"), (Severity::Warning, "warnings")];
    if verbose {
        kinds.push((Severity::Ok, "fine"));
    }
    for (severity, title) in kinds {
        let groups = groups(found, severity);
        if groups.is_empty() {
            continue;
        }
        lines.extend([String::new(), title.to_owned()]);
        for (subject, findings) in groups {
            lines.extend(wrapped("  ", "  ", &subject));
            for finding in findings {
                lines.extend(finding.found.lines().flat_map(|text| wrapped("    ", "    ", &escape(text.as_bytes()))));
                let advice = finding.advice.iter().flat_map(|advice| advice.lines());
                lines.extend(advice.flat_map(|text| wrapped("    → ", "      ", &escape(text.as_bytes()))));
            }
        }
    }
    if !verbose && ok > 0 {
        lines.extend([String::new(), "fine (--verbose tells more)".to_owned()]);
        for (subject, findings) in groups(found, Severity::Ok) {
            let mut checks: Vec<&str> = findings.iter().map(|finding| finding.check).collect();
            checks.dedup();
            lines.extend(wrapped("  ", "    ", &format!("{subject}: {}", checks.join(", "))));
        }
    }
    lines
}

/// Findings of one weight by their subjects, in the order in which those first come.
fn groups(found: &[Finding], severity: Severity) -> Vec<(String, Vec<&Finding>)> {
    let mut groups: Vec<(String, Vec<&Finding>)> = Vec::new();
    for finding in found.iter().filter(|finding| finding.severity == severity) {
        let subject = escape(finding.subject.as_bytes());
        match groups.iter_mut().find(|(known, _)| *known == subject) {
            Some((_, findings)) => findings.push(finding),
            None => groups.push((subject, vec![finding])),
        }
    }
    groups
}

/// Breaks a text at its blanks.
fn wrapped(first: &str, rest: &str, text: &str) -> Vec<String> {
    let (mut lines, mut line, mut empty) = (Vec::new(), first.to_owned(), true);
    for word in text.split(' ') {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, rest.to_owned()));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, check: &'static str, subject: &str, found: &str, advice: Option<&str>) -> Finding {
        Finding { severity, check, subject: subject.into(), found: found.into(), advice: advice.map(Into::into) }
    }

    fn found() -> Vec<Finding> {
        let long = "one word after the other, ".repeat(6);
        vec![
            finding(Severity::Ok, "key", "this machine", "id X", None),
            finding(Severity::Warning, "link", "link a – b", long.trim_end(), Some("open UDP 4477\non b")),
            finding(Severity::Broken, "root", "folder hot", "it is \x1b[2J gone", Some("mount it")),
            finding(Severity::Ok, "clock", "this machine", "fine", None),
            finding(Severity::Ok, "space", "folder hot", "2 GiB", None),
        ]
    }

    #[test]
    fn what_is_broken_comes_first_and_what_is_fine_is_a_list() {
        let expected = [
            "1 broken, 1 warning; 3 checks are fine",
            "",
            "broken",
            "  folder hot",
            "    it is \\u{1b}[2J gone",
            "    → mount it",
            "",
            "warnings",
            "  link a – b",
            "    one word after the other, one word after the other, one word after the",
            "    other, one word after the other, one word after the other, one word after",
            "    the other,",
            "    → open UDP 4477",
            "    → on b",
            "",
            "fine (--verbose tells more)",
            "  this machine: key, clock",
            "  folder hot: space",
        ];
        assert_eq!(lines(&found(), false), expected);
        let verbose = lines(&found(), true).join("\n");
        assert!(verbose.contains("\nfine\n  this machine\n    id X\n    fine\n  folder hot\n    2 GiB"), "{verbose}");
        assert!(lines(&found(), true).iter().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn a_healthy_machine_is_told_so() {
        let fine = vec![finding(Severity::Ok, "key", "this machine", "id X", None)];
        assert_eq!(lines(&fine, false)[0], "healthy; 1 check is fine");
    }

    #[test]
    fn a_word_that_fits_nowhere_stands_alone() {
        let word = "x".repeat(100);
        assert_eq!(wrapped("  ", "    ", &format!("a {word} b")), ["  a".to_owned(), format!("    {word}"), "    b".to_owned()]);
    }
}
