//! Results: medians, ratios to the best peer, Markdown tables, JSON.

use crate::args::Args;
use crate::links::sheet::Sheet;
use crate::measure::Sample;
use crate::tool::Tool;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The runs of one tool in a case.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) tool: Tool,
    /// One for each round.
    pub(crate) samples: Vec<Sample>,
    /// Does it do the whole job, so that it counts as the best peer?
    pub(crate) whole_job: bool,
    /// Further results, by name.
    pub(crate) facts: Vec<(String, f64)>,
    /// What went wrong.
    pub(crate) faults: Vec<String>,
}

/// A case and its rows.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) case: &'static str,
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
}

/// Mbit/s by sender and circumstances.
#[derive(Debug, Clone)]
pub(crate) struct Grid {
    pub(crate) case: &'static str,
    pub(crate) title: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<(String, Vec<f64>)>,
    pub(crate) faults: Vec<String>,
}

impl Grid {
    /// As Markdown; rows may be shorter than the heading.
    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("### {}\n\n{}\n\n| sender | {} |\n", self.case, self.title, self.columns.join(" | "));
        out.push_str(&format!("|---|{}\n", "---|".repeat(self.columns.len())));
        for (label, cells) in &self.rows {
            let mut texts = cells.iter().map(|cell| format!("{cell:.1}")).collect::<Vec<_>>();
            texts.resize(self.columns.len(), String::new());
            out.push_str(&format!("| {label} | {} |\n", texts.join(" | ")));
        }
        out
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|(label, cells)| json!({"sender": label, "mbit": cells})).collect::<Vec<_>>();
        json!({"case": self.case, "title": self.title, "columns": self.columns, "rows": rows, "faults": self.faults})
    }
}

impl Row {
    pub(crate) fn new(tool: Tool) -> Row {
        let (label, samples, facts, faults) = (tool.name().to_owned(), Vec::new(), Vec::new(), Vec::new());
        Row { label, tool, samples, whole_job: true, facts, faults }
    }

    pub(crate) fn median(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(value))
    }

    pub(crate) fn wall(&self) -> f64 {
        self.median(|sample| sample.wall_s)
    }

    fn cpu(&self) -> f64 {
        self.median(|sample| sample.cpu_s)
    }

    fn peak_mib(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "memory of processes in KiB is far below 2^52")]
        self.median(|sample| sample.peak_kib as f64 / 1024.0)
    }
}

/// The middle value, or the mean of the middle two; of nothing, no number.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(low), values.get(high)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => f64::NAN,
    }
}

impl Table {
    pub(crate) fn row(&self, label: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.label == label)
    }

    /// What went wrong, with case and tool.
    pub(crate) fn faults(&self) -> impl Iterator<Item = String> + '_ {
        let each =
            |row: &Row| row.faults.iter().map(|fault| format!("{}: {}: {fault}", self.case, row.label)).collect::<Vec<_>>();
        self.rows.iter().flat_map(each)
    }

    /// The smallest median among peers that do the whole job without faults.
    fn best_peer(&self, value: impl Fn(&Row) -> f64) -> Option<f64> {
        let peers = self.rows.iter().filter(|row| row.tool.is_peer() && row.whole_job && row.faults.is_empty());
        peers.map(value).filter(|value| value.is_finite()).min_by(f64::total_cmp)
    }
}

/// The table as Markdown; below it what no column holds.
pub(crate) fn markdown(table: &Table) -> String {
    let mut out = format!("### {}\n\n{}\n\n", table.case, table.title);
    out.push_str("| tool | wall s | ÷ best peer | CPU s | ÷ best peer | peak MiB | ÷ best peer | flush after, s | notes |\n");
    out.push_str("|---|---|---|---|---|---|---|---|---|\n");
    let best = [table.best_peer(Row::wall), table.best_peer(Row::cpu), table.best_peer(Row::peak_mib)];
    for row in &table.rows {
        let values = [row.wall(), row.cpu(), row.peak_mib()];
        write!(out, "| {} |", row.label).expect("writing to a string cannot fail");
        for ((value, best), digits) in values.into_iter().zip(best).zip([2, 2, 1]) {
            let ratio = best.filter(|best| *best > 0.0).map_or_else(|| "–".to_owned(), |best| format!("{:.2}", value / best));
            write!(out, " {value:.digits$} | {ratio} |").expect("writing to a string cannot fail");
        }
        let flush = row.median(|sample| sample.flush_s);
        writeln!(out, " {flush:.2} | {} |", notes(row)).expect("writing to a string cannot fail");
    }
    out
}

fn notes(row: &Row) -> String {
    let facts = row.facts.iter().map(|(name, value)| format!("{name} {value:.2}"));
    let whole = (row.tool.is_peer() && !row.whole_job).then(|| "only part of the job".to_owned());
    let faults = row.faults.iter().map(|fault| format!("**{fault}**"));
    facts.chain(whole).chain(faults).collect::<Vec<_>>().join("; ")
}

/// Writes all tables with every single run to a new file.
pub(crate) fn write_json(args: &Args, tables: &[Table], grid: Option<&Grid>, sheets: &[Sheet]) -> Result<PathBuf> {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs();
    let uname = rustix::system::uname();
    let value = json!({
        "seconds_since_1970": stamp,
        "scale": args.scale,
        "rounds": args.rounds,
        "machine": {
            "kernel": uname.release().to_string_lossy(),
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "memory_kib": fs::read_to_string("/proc/meminfo").ok().and_then(|text| Some(text.lines().next()?.split_whitespace().nth(1)?.to_owned())),
        },
        "versions": [version("cp", "--version"), version("rsync", "--version"), version("unison", "-version"), version(&args.driftless.to_string_lossy(), "--version")],
        "cases": tables.iter().map(table_json).chain(grid.map(Grid::json)).chain(sheets.iter().map(Sheet::json)).collect::<Vec<_>>(),
    });
    fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let path = args.out.join(format!("bench-{stamp}.json"));
    fs::write(&path, format!("{value:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn version(program: &str, flag: &str) -> String {
    match Command::new(program).arg(flag).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("").to_owned(),
        Err(error) => format!("{program}: {error}"),
    }
}

fn table_json(table: &Table) -> Value {
    let best = [table.best_peer(Row::wall), table.best_peer(Row::cpu), table.best_peer(Row::peak_mib)];
    let rows = table.rows.iter().map(|row| row_json(row, best)).collect::<Vec<_>>();
    json!({"case": table.case, "title": table.title, "rows": rows})
}

fn row_json(row: &Row, best: [Option<f64>; 3]) -> Value {
    let ratio = |value: f64, best: Option<f64>| best.filter(|best| *best > 0.0).map(|best| value / best);
    let samples = row
        .samples
        .iter()
        .map(|s| json!({"wall_s": s.wall_s, "cpu_s": s.cpu_s, "peak_kib": s.peak_kib, "flush_s": s.flush_s, "exit": s.code}));
    json!({
        "tool": row.label,
        "whole_job": row.whole_job,
        "wall_s": row.wall(), "wall_to_best_peer": ratio(row.wall(), best[0]),
        "cpu_s": row.cpu(), "cpu_to_best_peer": ratio(row.cpu(), best[1]),
        "peak_mib": row.peak_mib(), "peak_to_best_peer": ratio(row.peak_mib(), best[2]),
        "facts": row.facts.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<serde_json::Map<_, _>>(),
        "faults": row.faults,
        "runs": samples.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tool: Tool, walls: &[f64]) -> Row {
        let sample = |wall_s: &f64| Sample { wall_s: *wall_s, cpu_s: 1.0, peak_kib: 2048, code: 0, flush_s: 0.0 };
        Row { samples: walls.iter().map(sample).collect(), ..Row::new(tool) }
    }

    fn table(rows: Vec<Row>) -> Table {
        Table { case: "case", title: "Title.".into(), rows }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert!((row(Tool::Cp, &[4.0, 1.0, 2.0, 9.0]).wall() - 3.0).abs() < 1e-9);
        assert!((row(Tool::Cp, &[4.0, 1.0, 2.0]).wall() - 2.0).abs() < 1e-9);
        assert!(row(Tool::Cp, &[]).wall().is_nan());
    }

    #[test]
    fn a_peer_that_failed_or_does_half_the_job_is_no_best_peer() {
        let mut half = row(Tool::CpUpdate, &[1.0]);
        half.whole_job = false;
        let mut broken = row(Tool::Cp, &[2.0]);
        broken.faults.push("exit 1".into());
        let table = table(vec![
            row(Tool::Driftless("d".into()), &[1.0]),
            half,
            broken,
            row(Tool::Unison, &[4.0]),
            row(Tool::Walk, &[0.1]),
        ]);
        let text = markdown(&table);
        assert!(text.contains("| driftless | 1.00 | 0.25 | 1.00 | 1.00 | 2.0 | 1.00 | 0.00 |  |"), "{text}");
        assert!(text.contains("only part of the job") && text.contains("**exit 1**"), "{text}");
        assert_eq!(table.faults().collect::<Vec<_>>(), ["case: cp -a: exit 1"]);
    }
}
