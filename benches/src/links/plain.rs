//! Cases over a loopback of their own: what the tools cost where the link costs nothing. Then each once over an emulated
//! link, whose packets are counted.

use crate::args::Args;
use crate::cases::SEED;
use crate::edits::{PAST_THE_TICK, change_one_percent, insert_in_front, scatter, write_noise};
use crate::lab::Lab;
use crate::links::pair::remove_tree;
use crate::links::row::{self, Row, ensure_whole, one_round};
use crate::links::sheet::Sheet;
use crate::links::tool::Tool;
use anyhow::{Context as _, Result};
use fixtures::dated::Dated;
use std::fs;
use std::path::{Path, PathBuf};

/// What happens with a large file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Big {
    New,
    Scattered,
    Inserted,
    Equal,
}

/// driftless, rsync with or without deletions, unison.
pub(crate) fn tools(args: &Args, deleting: bool) -> [Tool; 3] {
    let rsync = if deleting { Tool::RsyncDelete } else { Tool::Rsync };
    [Tool::Driftless(args.driftless.clone()), rsync, Tool::Unison]
}

fn small(args: &Args) -> Dated {
    Dated::new(100_000 / args.scale, SEED)
}

pub(crate) fn first(lab: &mut Lab, args: &Args) -> Result<Sheet> {
    let shape = small(args);
    let a = lab.source(&shape)?;
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..args.rounds {
        for (index, tool) in tools(args, true).into_iter().enumerate() {
            let b = lab.folder("target")?;
            let new = Row::new(lab, tool, b)?;
            match rows.get_mut(index) {
                Some(row) => row.pair = new.pair,
                None => rows.push(new),
            }
        }
        one_round(lab, &a, &mut rows, round)?;
    }
    let title = format!("First sync of {} files of 512–16384 bytes to an empty root.", shape.files);
    Ok(finish("first-100k", title, rows))
}

pub(crate) fn nothing(lab: &mut Lab, args: &Args) -> Result<Sheet> {
    let shape = small(args);
    let a = lab.source(&shape)?;
    let b = lab.copy_of(&a)?;
    let mut rows = Vec::new();
    for tool in tools(args, true) {
        let mut row = Row::new(lab, tool, b.clone())?;
        row.warm_up(lab, &a)?;
        rows.push(row);
    }
    rounds(lab, args, &a, &mut rows, |_| Ok(()))?;
    Ok(finish("nothing-100k", format!("Nothing changed since the last sync of {} files.", shape.files), rows))
}

pub(crate) fn changed(lab: &mut Lab, args: &Args) -> Result<Sheet> {
    let shape = Dated { seed: SEED + 1, ..small(args) };
    let a = lab.own_source(&shape)?;
    let mut rows = known(lab, args, &a, true)?;
    rounds(lab, args, &a, &mut rows, |round| change_one_percent(&a, &shape, round))?;
    let title = format!("1 % of {} files changed: eight tenths rewritten, one tenth new, one tenth deleted.", shape.files);
    Ok(finish("changed-1pct", title, rows))
}

pub(crate) fn big(lab: &mut Lab, args: &Args, what: Big) -> Result<Sheet> {
    let size = (1_u64 << 30) / args.scale;
    let a = lab.folder("source")?;
    fs::write(a.join("small"), "a root that is not empty\n").context("cannot write the small file")?;
    let base = a.join("base");
    if what != Big::New {
        write_noise(&base, size, SEED + 300)?;
    }
    let mut rows = known(lab, args, &a, false)?;
    let change = |round: u64| match what {
        Big::New => write_noise(&a.join(format!("big-{round}")), size, SEED + 200 + round),
        Big::Scattered => scatter(&base, SEED + 400 + round),
        Big::Inserted => insert_in_front(&base, SEED + 500 + round),
        Big::Equal => {
            let copy = a.join(format!("equal-{round}"));
            fs::copy(&base, &copy).map(drop).with_context(|| format!("cannot copy to {}", copy.display()))
        }
    };
    let mib = size >> 20;
    let (case, title) = match what {
        Big::New => ("new-1g", format!("One new file of {mib} MiB of noise.")),
        Big::Scattered => ("scattered-1g", format!("1 % of a file of {mib} MiB written over, in edits of 4 KiB anywhere in it.")),
        Big::Inserted => ("inserted-1g", format!("1 MiB inserted in front of a file of {mib} MiB.")),
        Big::Equal => ("equal-1g", format!("A new file of {mib} MiB, equal to one that is there already under another name.")),
    };
    if what == Big::New {
        // All of it crosses, whoever carries it: nothing to count.
        for round in 0..args.rounds {
            settled(|| change(round as u64))?;
            one_round(lab, &a, &mut rows, round)?;
        }
    } else {
        rounds(lab, args, &a, &mut rows, change)?;
    }
    // The cases together would fill a disk.
    remove_tree(&a)?;
    rows.iter().try_for_each(|row| row.pair.remove())?;
    Ok(finish(case, title, rows))
}

pub(crate) fn rename(lab: &mut Lab, args: &Args) -> Result<Sheet> {
    let shape = Dated::new(10_000 / args.scale, SEED + 2);
    let a = lab.own_source(&shape)?;
    let batch = Dated { per_day: u64::MAX, ..Dated::new(shape.files, SEED + 3) };
    batch.write(&a.join("batch-0"))?;
    let mut rows = known(lab, args, &a, true)?;
    let change = |round: u64| {
        let (from, to) = (a.join(format!("batch-{round}")), a.join(format!("batch-{}", round + 1)));
        fs::rename(&from, &to).with_context(|| format!("cannot rename {}", from.display()))
    };
    for round in 0..args.rounds {
        settled(|| change(round as u64))?;
        let count = rows.len();
        for turn in 0..count {
            let row = &mut rows[(turn + round) % count];
            row.measure(lab, &a)?;
            if row.pair.tool.is_peer() && (round, turn) != (args.rounds - 1, count - 1) {
                lab.rest("because a peer deleted the old directory");
            }
        }
    }
    count(lab, args, &a, &mut rows, change)?;
    let title = format!("A directory of {} files renamed, {} other files beside it.", batch.files, shape.files);
    Ok(finish("rename-10k", title, rows))
}

/// A row for each tool with an equal second root that it knows already.
fn known(lab: &mut Lab, args: &Args, a: &Path, deleting: bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for tool in tools(args, deleting) {
        let b: PathBuf = lab.own_copy(a)?;
        let mut row = Row::new(lab, tool, b)?;
        row.warm_up(lab, a)?;
        rows.push(row);
    }
    Ok(rows)
}

/// All rounds over loopback, each after a change, and the one that is counted.
fn rounds(lab: &mut Lab, args: &Args, a: &Path, rows: &mut [Row], change: impl Fn(u64) -> Result<()>) -> Result<()> {
    for round in 0..args.rounds {
        settled(|| change(round as u64))?;
        one_round(lab, a, rows, round)?;
    }
    count(lab, args, a, rows, change)
}

/// One more change, carried over an emulated link by each.
fn count(lab: &mut Lab, args: &Args, a: &Path, rows: &mut [Row], change: impl Fn(u64) -> Result<()>) -> Result<()> {
    settled(|| change(args.rounds as u64))?;
    eprintln!("  over an emulated link, for its counters:");
    rows.iter_mut().try_for_each(|row| row.count(lab, a))
}

/// A change, and the time that it needs to be older than the grain of the tools.
fn settled(change: impl FnOnce() -> Result<()>) -> Result<()> {
    change()?;
    std::thread::sleep(PAST_THE_TICK);
    Ok(())
}

fn finish(case: &'static str, title: String, mut rows: Vec<Row>) -> Sheet {
    ensure_whole(&mut rows);
    row::sheet(case, title, &rows)
}
