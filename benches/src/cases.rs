//! The cases: which trees, which tools, what happens between the rounds.

use crate::args::{self, Args};
use crate::edits::{PAST_THE_TICK, change_one_percent, write_noise};
use crate::lab::{Lab, Slot};
use crate::report::{Row, Table};
use crate::tool::Tool;
use crate::walk;
use anyhow::{Context as _, Result, ensure};
use fixtures::dated::Dated;
use std::fs;
use std::path::{Path, PathBuf};

/// What all trees are drawn from.
pub(crate) const SEED: u64 = 20_260_101;
/// Conflicts left open in `open-conflicts`.
const CONFLICTS: u64 = 10;
/// Average room of a file of 0.5–16 KiB and of a tiny one, directories and inode included.
pub(crate) const FILE_ROOM: u64 = 11 * 1024;
pub(crate) const TINY_ROOM: u64 = 4608;

/// A case; README.md tells what each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    First100k,
    Nothing100k,
    Changed1Pct,
    Rename10k,
    Big1g,
    Contact100k,
    OpenConflicts,
    First1m,
    Nothing1m,
}

impl Case {
    /// All cases, in the order in which they run.
    pub(crate) const ALL: [Case; 9] = [
        Case::First100k,
        Case::Nothing100k,
        Case::Contact100k,
        Case::OpenConflicts,
        Case::Changed1Pct,
        Case::Big1g,
        Case::First1m,
        Case::Nothing1m,
        Case::Rename10k,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Case::First100k => "first-100k",
            Case::Nothing100k => "nothing-100k",
            Case::Changed1Pct => "changed-1pct",
            Case::Rename10k => "rename-10k",
            Case::Big1g => "big-1g",
            Case::Contact100k => "contact-100k",
            Case::OpenConflicts => "open-conflicts",
            Case::First1m => "first-1m",
            Case::Nothing1m => "nothing-1m",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Case> {
        args::by_name("case", &Case::ALL, Case::name, name)
    }
}

/// Bytes and inodes that these cases take at most; what they share counts once.
pub(crate) fn needs(cases: &[Case], args: &Args) -> (u64, u64) {
    let rounds = args.rounds as u64;
    let any = |some: &[Case], trees: u64| if some.iter().any(|case| cases.contains(case)) { trees } else { 0 };
    let source = any(&[Case::First100k, Case::Nothing100k, Case::Contact100k, Case::OpenConflicts], 1);
    let copy = any(&[Case::Nothing100k, Case::Contact100k, Case::OpenConflicts], 1);
    let own = any(&[Case::First100k], 4 * rounds) + any(&[Case::OpenConflicts], 2) + any(&[Case::Changed1Pct], 5);
    let renamed = any(&[Case::Rename10k], 4 + 2 * rounds);
    let tiny = any(&[Case::First1m, Case::Nothing1m], 1) + any(&[Case::First1m], 4) + any(&[Case::Nothing1m], 1);
    let files = ((source + copy + own) * 100_000 + renamed * 20_000) / args.scale;
    let tiny_files = tiny * 1_000_000 / args.scale;
    let big_bytes = any(&[Case::Big1g], 5 * rounds) * ((1 << 30) / args.scale);
    (files * FILE_ROOM + tiny_files * TINY_ROOM + big_bytes, (files + tiny_files) * 102 / 100 + 10_000)
}

/// Runs a case in all its rounds.
pub(crate) fn run(case: Case, lab: &mut Lab, args: &Args) -> Result<Table> {
    eprintln!("{}", case.name());
    let small = Dated::new(100_000 / args.scale, SEED);
    let tiny = Dated::tiny(1_000_000 / args.scale, SEED);
    match case {
        Case::First100k => first(case, lab, args, &small, args.rounds),
        // A tree of a million for every tool and every round would fill the disk and the evening.
        Case::First1m => first(case, lab, args, &tiny, 1),
        Case::Nothing100k => nothing(case, lab, args, &small),
        Case::Nothing1m => nothing(case, lab, args, &tiny),
        Case::Changed1Pct => changed(case, lab, args, &Dated { seed: SEED + 1, ..small }),
        Case::Rename10k => rename(case, lab, args),
        Case::Big1g => big(case, lab, args),
        Case::Contact100k => contact(case, lab, args, &small),
        Case::OpenConflicts => open_conflicts(case, lab, args, &small),
    }
}

/// A tool in a case: its row, its target, what it remembers, and the exit code that it should have.
struct Entrant {
    row: Row,
    b: PathBuf,
    slot: Slot,
    code: i32,
}

impl Entrant {
    fn new(lab: &mut Lab, tool: Tool, b: PathBuf) -> Result<Entrant> {
        Ok(Entrant { row: Row::new(tool), b, slot: lab.slot()?, code: 0 })
    }

    /// One measured run; afterwards the target must look like the source, if this tool can bring that about.
    fn measure(&mut self, lab: &mut Lab, a: &Path) -> Result<()> {
        let sample = lab.measure(&self.row.tool, a, &self.b, &self.slot)?;
        self.row.samples.push(sample);
        if sample.code != self.code {
            self.row.faults.push(format!("exit {} instead of {}", sample.code, self.code));
        }
        if self.row.whole_job {
            self.row.faults.extend(walk::difference(a, &self.b)?);
        }
        Ok(())
    }

    /// A run that is not measured, after which the tool remembers the pair.
    fn warm_up(&mut self, lab: &mut Lab, a: &Path) -> Result<()> {
        let sample = lab.measure(&self.row.tool, a, &self.b, &self.slot)?;
        if sample.code != self.code {
            self.row.faults.push(format!("exit {} instead of {} when warming up", sample.code, self.code));
        }
        Ok(())
    }
}

/// Runs all entrants once, another one first in each round.
fn one_round(lab: &mut Lab, a: &Path, entrants: &mut [Entrant], round: usize) -> Result<()> {
    let count = entrants.len();
    (0..count).try_for_each(|turn| entrants[(turn + round) % count].measure(lab, a))
}

fn finish(case: Case, title: String, entrants: Vec<Entrant>) -> Table {
    Table { case: case.name(), title, rows: entrants.into_iter().map(|entrant| entrant.row).collect() }
}

fn driftless(args: &Args) -> Tool {
    Tool::Driftless(args.driftless.clone())
}

fn first(case: Case, lab: &mut Lab, args: &Args, shape: &Dated, rounds: usize) -> Result<Table> {
    let a = lab.source(shape)?;
    let tools = [driftless(args), Tool::Cp, Tool::Rsync, Tool::Unison];
    let mut entrants = tools.into_iter().map(|tool| Entrant::new(lab, tool, PathBuf::new())).collect::<Result<Vec<_>>>()?;
    for round in 0..rounds {
        for entrant in &mut entrants {
            entrant.b = lab.folder("target")?;
            entrant.slot = lab.slot()?;
        }
        one_round(lab, &a, &mut entrants, round)?;
    }
    let state = entrants[0].slot.state_bytes()?;
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    entrants[0].row.facts.push(("state of both roots, bytes per file".to_owned(), state as f64 / shape.files as f64));
    let title =
        format!("First sync of {} files of {}–{} bytes to an empty root.", shape.files, shape.sizes.start(), shape.sizes.end());
    Ok(finish(case, title, entrants))
}

fn nothing(case: Case, lab: &mut Lab, args: &Args, shape: &Dated) -> Result<Table> {
    let a = lab.source(shape)?;
    let b = lab.copy_of(&a)?;
    let tools = [driftless(args), Tool::CpUpdate, Tool::Rsync, Tool::RsyncDelete, Tool::Unison, Tool::Walk];
    let mut entrants = tools.into_iter().map(|tool| Entrant::new(lab, tool, b.clone())).collect::<Result<Vec<_>>>()?;
    for entrant in &mut entrants {
        entrant.row.whole_job = entrant.row.tool.deletes();
        entrant.warm_up(lab, &a)?;
    }
    for round in 0..args.rounds {
        one_round(lab, &a, &mut entrants, round)?;
    }
    let mut table = finish(
        case,
        format!("Nothing changed since the last sync of {} files; walk: both trees, every path stated once.", shape.files),
        entrants,
    );
    let walk = table.row("walk").map_or(f64::NAN, Row::wall);
    for row in table.rows.iter_mut().filter(|row| row.tool != Tool::Walk) {
        row.facts.push(("÷ walk".to_owned(), row.wall() / walk));
    }
    Ok(table)
}

fn changed(case: Case, lab: &mut Lab, args: &Args, shape: &Dated) -> Result<Table> {
    let a = lab.own_source(shape)?;
    let mut entrants = Vec::new();
    for tool in [driftless(args), Tool::CpUpdate, Tool::RsyncDelete, Tool::Unison] {
        let b = lab.own_copy(&a)?;
        let mut entrant = Entrant::new(lab, tool, b)?;
        entrant.row.whole_job = entrant.row.tool.deletes();
        entrant.warm_up(lab, &a)?;
        entrants.push(entrant);
    }
    for round in 0..args.rounds {
        change_one_percent(&a, shape, round as u64)?;
        std::thread::sleep(PAST_THE_TICK);
        one_round(lab, &a, &mut entrants, round)?;
    }
    Ok(finish(
        case,
        format!("1 % of {} files changed: eight tenths rewritten, one tenth new, one tenth deleted.", shape.files),
        entrants,
    ))
}

fn rename(case: Case, lab: &mut Lab, args: &Args) -> Result<Table> {
    let shape = Dated::new(10_000 / args.scale, SEED + 2);
    let a = lab.own_source(&shape)?;
    let batch = Dated { per_day: u64::MAX, ..Dated::new(shape.files, SEED + 3) };
    batch.write(&a.join("batch-0"))?;
    let mut entrants = Vec::new();
    for tool in [driftless(args), Tool::RsyncDelete, Tool::Unison] {
        let b = lab.own_copy(&a)?;
        let mut entrant = Entrant::new(lab, tool, b)?;
        entrant.warm_up(lab, &a)?;
        entrants.push(entrant);
    }
    for round in 0..args.rounds {
        let (from, to) = (a.join(format!("batch-{round}")), a.join(format!("batch-{}", round + 1)));
        fs::rename(&from, &to).with_context(|| format!("cannot rename {}", from.display()))?;
        std::thread::sleep(PAST_THE_TICK);
        let count = entrants.len();
        for turn in 0..count {
            let entrant = &mut entrants[(turn + round) % count];
            entrant.measure(lab, &a)?;
            if entrant.row.tool.is_peer() && (round, turn) != (args.rounds - 1, count - 1) {
                lab.rest("because a peer deleted the old directory");
            }
        }
    }
    Ok(finish(case, format!("A directory of {} files renamed, {} other files beside it.", batch.files, shape.files), entrants))
}

fn big(case: Case, lab: &mut Lab, args: &Args) -> Result<Table> {
    let size = (1_u64 << 30) / args.scale;
    let a = lab.folder("source")?;
    fs::write(a.join("small"), "a root that is not empty\n").context("cannot write the small file")?;
    let mut entrants = Vec::new();
    for tool in [driftless(args), Tool::CpUpdate, Tool::Rsync, Tool::Unison] {
        let b = lab.own_copy(&a)?;
        let mut entrant = Entrant::new(lab, tool, b)?;
        entrant.warm_up(lab, &a)?;
        entrants.push(entrant);
    }
    for round in 0..args.rounds {
        write_noise(&a.join(format!("big-{round}")), size, SEED + 200 + round as u64)?;
        std::thread::sleep(PAST_THE_TICK);
        one_round(lab, &a, &mut entrants, round)?;
    }
    Ok(finish(case, format!("One new file of {} MiB of noise.", size >> 20), entrants))
}

fn contact(case: Case, lab: &mut Lab, args: &Args, shape: &Dated) -> Result<Table> {
    let a = lab.source(shape)?;
    let b = lab.copy_of(&a)?;
    let tools = [driftless(args), Tool::Rsync, Tool::RsyncChecksum, Tool::Unison];
    let mut entrants = tools.into_iter().map(|tool| Entrant::new(lab, tool, b.clone())).collect::<Result<Vec<_>>>()?;
    for round in 0..args.rounds {
        for entrant in &mut entrants {
            // Times and sizes alone do not tell that two trees which never met are equal.
            entrant.row.whole_job = entrant.row.tool != Tool::Rsync;
            entrant.slot = lab.slot()?;
        }
        one_round(lab, &a, &mut entrants, round)?;
    }
    Ok(finish(case, format!("First contact of two equal trees of {} files.", shape.files), entrants))
}

fn open_conflicts(case: Case, lab: &mut Lab, args: &Args, shape: &Dated) -> Result<Table> {
    let plain_a = lab.source(shape)?;
    let plain_b = lab.copy_of(&plain_a)?;
    let (a, b) = (lab.own_copy(&plain_a)?, lab.own_copy(&plain_a)?);
    let (mut plain, mut open) = (Vec::new(), Vec::new());
    for tool in [driftless(args), Tool::Unison] {
        for (entrants, a, b) in [(&mut plain, &plain_a, &plain_b), (&mut open, &a, &b)] {
            let mut entrant = Entrant::new(lab, tool.clone(), b.clone())?;
            entrant.row.whole_job = false;
            entrant.warm_up(lab, a)?;
            entrants.push(entrant);
        }
    }
    make_conflicts(&a, &b, shape)?;
    for entrant in &mut open {
        entrant.row.label = format!("{}, {CONFLICTS} conflicts", entrant.row.label);
        entrant.code = 1;
        entrant.warm_up(lab, &a)?;
    }
    for round in 0..args.rounds {
        one_round(lab, &plain_a, &mut plain, round)?;
        one_round(lab, &a, &mut open, round)?;
    }
    for (plain, open) in plain.iter().zip(&mut open) {
        open.row.facts.push(("÷ without conflicts".to_owned(), open.row.wall() / plain.row.wall()));
    }
    let title = format!(
        "Nothing changed among {} files, with {CONFLICTS} conflicts left open by an earlier run (exit 1), and without.",
        shape.files
    );
    plain.extend(open);
    for entrant in &mut plain {
        entrant.row.whole_job = true;
    }
    Ok(finish(case, title, plain))
}

fn make_conflicts(a: &Path, b: &Path, shape: &Dated) -> Result<()> {
    ensure!(shape.files > CONFLICTS, "{} files are too few for {CONFLICTS} conflicts", shape.files);
    for conflict in 0..CONFLICTS {
        let path = shape.path(conflict * (shape.files / CONFLICTS));
        for (root, text) in [(a, "written here"), (b, "written there")] {
            let at = root.join(&path);
            fs::write(&at, format!("{text} {conflict}\n")).with_context(|| format!("cannot write {}", at.display()))?;
        }
    }
    std::thread::sleep(PAST_THE_TICK);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_that_share_trees_need_them_once() {
        let args = Args::parse(&["--driftless", "x"].map(Into::into)).unwrap();
        let one = needs(&[Case::Nothing100k], &args);
        assert_eq!(needs(&[Case::Nothing100k, Case::Contact100k], &args), one);
        assert_eq!(one.0, 200_000 * FILE_ROOM);
        let all = needs(&Case::ALL, &args);
        assert!(all.0 > 50 << 30 && all.0 < 72 << 30, "{} GiB", all.0 >> 30);
    }
}
