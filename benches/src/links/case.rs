//! The cases over a link: their names, and the room that they need.

use crate::args::Args;
use crate::cases::{FILE_ROOM, TINY_ROOM};
use crate::lab::Lab;
use crate::links::plain::Big;
use crate::links::sheet::Sheet;
use crate::links::{bad, fairness, memory, plain};
use anyhow::{Context as _, Result};

/// A case over a link; README.md tells what each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    First100k,
    Nothing100k,
    Changed1Pct,
    New1g,
    Scattered1g,
    Inserted1g,
    Equal1g,
    Rename10k,
    BadSmall,
    BadLarge,
    Fairness,
    Memory10g,
    Memory1m,
}

impl Case {
    /// All, in the order in which they run; the last two take long, and run only when they are named.
    pub(crate) const ALL: [Case; 13] = [
        Case::First100k,
        Case::Nothing100k,
        Case::Changed1Pct,
        Case::New1g,
        Case::Scattered1g,
        Case::Inserted1g,
        Case::Equal1g,
        Case::Rename10k,
        Case::BadSmall,
        Case::BadLarge,
        Case::Fairness,
        Case::Memory10g,
        Case::Memory1m,
    ];

    /// Those that run when none is named.
    pub(crate) const DEFAULT: &[Case] = Case::ALL.split_at(11).0;

    pub(crate) fn name(self) -> &'static str {
        match self {
            Case::First100k => "first-100k",
            Case::Nothing100k => "nothing-100k",
            Case::Changed1Pct => "changed-1pct",
            Case::New1g => "new-1g",
            Case::Scattered1g => "scattered-1g",
            Case::Inserted1g => "inserted-1g",
            Case::Equal1g => "equal-1g",
            Case::Rename10k => "rename-10k",
            Case::BadSmall => "bad-small",
            Case::BadLarge => "bad-large",
            Case::Fairness => "fairness",
            Case::Memory10g => "memory-10g",
            Case::Memory1m => "memory-1m",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Case> {
        let names = || Case::ALL.map(Case::name).join(", ");
        let found = Case::ALL.into_iter().find(|case| case.name() == name);
        found.with_context(|| format!("no case over links is called {name}; there are {}", names()))
    }
}

/// Runs a case in all its rounds; a table for each of its parts.
pub(crate) fn run(case: Case, lab: &mut Lab, args: &Args) -> Result<Vec<Sheet>> {
    let sheet = match case {
        Case::First100k => plain::first(lab, args),
        Case::Nothing100k => plain::nothing(lab, args),
        Case::Changed1Pct => plain::changed(lab, args),
        Case::New1g => plain::big(lab, args, Big::New),
        Case::Scattered1g => plain::big(lab, args, Big::Scattered),
        Case::Inserted1g => plain::big(lab, args, Big::Inserted),
        Case::Equal1g => plain::big(lab, args, Big::Equal),
        Case::Rename10k => plain::rename(lab, args),
        Case::BadSmall => bad::small(lab, args),
        Case::BadLarge => bad::large(lab, args),
        Case::Fairness => fairness::run(lab, args),
        Case::Memory10g => return memory::large(lab, args),
        Case::Memory1m => return memory::many(lab, args),
    };
    Ok(vec![sheet?])
}

/// Bytes and inodes that these cases take at most.
pub(crate) fn needs(cases: &[Case], args: &Args) -> (u64, u64) {
    let rounds = args.rounds as u64;
    let any = |some: &[Case], number: u64| if some.iter().any(|case| cases.contains(case)) { number } else { 0 };
    let trees = any(&[Case::First100k, Case::Nothing100k], 1)
        + any(&[Case::First100k], 3 * rounds)
        + any(&[Case::Nothing100k], 1)
        + any(&[Case::Changed1Pct], 5);
    let renamed = any(&[Case::Rename10k], 4 + 2 * (rounds + 1));
    let files = (trees * 100_000 + renamed * 20_000) / args.scale;
    let tiny = any(&[Case::Memory1m], 4) * 1_000_000 / args.scale;
    let pages = any(&[Case::BadSmall], 1 + bad::RUNS * rounds) * bad::PAGES / args.scale;
    // A source and three targets; what is new in a round; versions that are kept, and a temporary one. Deleted after each case.
    let giga = [
        any(&[Case::New1g], 4 * rounds),
        any(&[Case::Scattered1g], 4 + 3 * (rounds + 1)),
        any(&[Case::Inserted1g], 5 + 3 * (rounds + 1)),
        any(&[Case::Equal1g], 4 * (rounds + 2)),
        any(&[Case::Memory10g], 30),
    ];
    let giga = giga.into_iter().max().unwrap_or(0);
    let large = any(&[Case::BadLarge], 3) * bad::LARGE + any(&[Case::Fairness], 3) * fairness::SIZE;
    let bytes = files * FILE_ROOM + (tiny + pages) * TINY_ROOM + (giga << 30) / args.scale + large;
    (bytes, (files + tiny + pages) * 103 / 100 + 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_found_by_its_name_and_the_long_ones_must_be_named() {
        for case in Case::ALL {
            assert_eq!(Case::parse(case.name()).unwrap(), case);
        }
        assert!(Case::parse("first").unwrap_err().to_string().contains("memory-1m"));
        assert!(!Case::DEFAULT.contains(&Case::Memory10g) && !Case::DEFAULT.contains(&Case::Memory1m));
        assert!(Case::DEFAULT.contains(&Case::Fairness));
    }

    #[test]
    fn the_room_for_everything_that_runs_unnamed_is_that_of_a_usual_disk() {
        let args = Args::parse(&["links", "--driftless", "x"].map(Into::into)).unwrap();
        let (bytes, inodes) = needs(Case::DEFAULT, &args);
        assert!(bytes > 30 << 30 && bytes < 50 << 30, "{} GiB", bytes >> 30);
        assert!(inodes > 1_000_000, "{inodes}");
    }
}
