//! How much memory both sides take for one very large file, and for a million files. Takes long: runs only when named.

use crate::args::Args;
use crate::cases::SEED;
use crate::edits::{PAST_THE_TICK, scatter, write_noise};
use crate::lab::Lab;
use crate::links::plain::tools;
use crate::links::row::{self, Row};
use crate::links::sheet::Sheet;
use crate::links::tool::Tool;
use anyhow::Result;
use fixtures::dated::Dated;
use std::path::{Path, PathBuf};

/// A large file that is new, and then the same with 1 % of it written over.
pub(crate) fn large(lab: &mut Lab, args: &Args) -> Result<Vec<Sheet>> {
    let size = (10_u64 << 30) / args.scale;
    let a = lab.folder("source")?;
    let file = a.join("large");
    write_noise(&file, size, SEED + 800)?;
    let (mut new, mut edited) = (Vec::new(), Vec::new());
    for (seed, tool) in (SEED + 801..).zip(tools(args, false)) {
        let b = lab.folder("target")?;
        let (row, again) = twice(lab, tool, b, &a, || scatter(&file, seed))?;
        // Three targets at a time, with what they replace, would take more room than there is.
        row.pair.remove()?;
        new.push(row);
        edited.push(again);
    }
    let mib = size >> 20;
    let titles = [
        format!("A new file of {mib} MiB of noise; one run each."),
        format!("Then 1 % of those {mib} MiB written over, in edits of 4 KiB anywhere in it."),
    ];
    Ok(sheets("memory-10g", titles, [&new, &edited]))
}

/// The first sync of a million files, and one after which nothing changed.
pub(crate) fn many(lab: &mut Lab, args: &Args) -> Result<Vec<Sheet>> {
    let shape = Dated::tiny(1_000_000 / args.scale, SEED);
    let a = lab.own_source(&shape)?;
    let (mut first, mut nothing) = (Vec::new(), Vec::new());
    for tool in tools(args, true) {
        let b = lab.folder("target")?;
        let (row, again) = twice(lab, tool, b, &a, || Ok(()))?;
        first.push(row);
        nothing.push(again);
    }
    let titles =
        [format!("First sync of {} files of 1–64 bytes; one run each.", shape.files), "Then nothing changed.".to_owned()];
    Ok(sheets("memory-1m", titles, [&first, &nothing]))
}

fn sheets(case: &'static str, titles: [String; 2], rows: [&[Row]; 2]) -> Vec<Sheet> {
    titles.into_iter().zip(rows).map(|(title, rows)| row::sheet(case, title, rows)).collect()
}

/// A run to an empty root and, if that was done in time, one after a change.
fn twice(lab: &mut Lab, tool: Tool, b: PathBuf, a: &Path, change: impl FnOnce() -> Result<()>) -> Result<(Row, Row)> {
    let mut row = Row::new(lab, tool, b)?;
    row.measure(lab, a)?;
    let mut again = Row::of(row.pair.clone());
    if row.late().is_some() {
        again.notes.push("not measured, since the run before was not done".to_owned());
    } else {
        change()?;
        std::thread::sleep(PAST_THE_TICK);
        again.measure(lab, a)?;
    }
    Ok((row, again))
}
