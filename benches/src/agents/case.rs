//! The cases with agents: their names, and the room that they need.

use crate::args::Args;
use crate::cases::{FILE_ROOM, TINY_ROOM};
use anyhow::{Context as _, Result};

/// A case with agents; README.md tells what each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    Latency,
    Burst,
    Idle1m,
}

impl Case {
    pub(crate) const ALL: [Case; 3] = [Case::Latency, Case::Burst, Case::Idle1m];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Case::Latency => "latency",
            Case::Burst => "burst",
            Case::Idle1m => "idle-1m",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Case> {
        let names = || Case::ALL.map(Case::name).join(", ");
        let found = Case::ALL.into_iter().find(|case| case.name() == name);
        found.with_context(|| format!("no case with agents is called {name}; there are {}", names()))
    }
}

/// Bytes and inodes that the cases take, all tools and both roots together.
pub(crate) fn needs(cases: &[Case], args: &Args) -> (u64, u64) {
    let files = |case: &Case| match case {
        Case::Latency => 4 * 2_000,
        Case::Burst => 4 * 2 * 2 * 60_000 / args.scale,
        Case::Idle1m => 2 * 1_000_000 / args.scale,
    };
    let room = |case: &Case| files(case) * if *case == Case::Idle1m { TINY_ROOM } else { FILE_ROOM };
    (cases.iter().map(room).sum(), cases.iter().map(files).sum())
}
