//! Days that move to a cold root: how long it takes beside `cp -a` with a flush, what memory it takes by the number of files, and
//! what it costs the engine to look through a link afterwards.

use crate::args::{self, Args};
use crate::cases::{FILE_ROOM, SEED, TINY_ROOM};
use crate::lab::{Image, Lab};
use crate::links::sheet::{Sheet, with_ratio};
use crate::measure::{self, Sample};
use crate::report::median;
use crate::walk;
use anyhow::{Context as _, Result, ensure};
use fixtures::dated::Dated;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sync_core::io::fs::{Claim, Cold, ColdId, Generation, Placement, Places, Root, init_cold};
use sync_core::path::RelPath;

/// The clock of the rule: all that the trees hold is old, and nothing that was kept beside a copy has to go yet.
const NOW: &str = "2026-01-20T00:00:00Z";
/// Room of a file of 4–64 KiB, directories and inode included.
const DAY_FILE_ROOM: u64 = 40 * 1024;
/// Days that are looked through in `placements`, and files of each.
const DAYS: u64 = 1_000;
const FILES_OF_A_DAY: u64 = 20;
/// Openings of a directory that are timed at a time.
const OPENINGS: u32 = 20_000;

/// A case with days that move; README.md tells what each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    Archive20k,
    Memory,
    Placements,
}

impl Case {
    pub(crate) const ALL: [Case; 3] = [Case::Archive20k, Case::Memory, Case::Placements];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Case::Archive20k => "archive-20k",
            Case::Memory => "archive-memory",
            Case::Placements => "placements",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Case> {
        args::by_name("case with days that move", &Case::ALL, Case::name, name)
    }
}

/// Bytes and inodes that the cases take.
fn needs(args: &Args) -> (u64, u64) {
    let (mut bytes, mut inodes) = (0, 0);
    for case in &args.archive {
        let (files, room) = match case {
            // The root, its replica, two more roots; copies by cp, and in both cold roots.
            Case::Archive20k => (8 * args.rounds as u64 * 20_000 / args.scale, DAY_FILE_ROOM),
            Case::Memory => (2 * 4 * 222_000 / args.scale, TINY_ROOM),
            Case::Placements => (2 * DAYS * FILES_OF_A_DAY, FILE_ROOM),
        };
        bytes += files * room;
        inodes += files * 102 / 100 + 10_000;
    }
    (bytes, inodes)
}

/// Runs the cases and prints a table for each.
pub(crate) fn run(args: &Args) -> Result<Vec<Sheet>> {
    let mut lab = Lab::open(args, needs(args))?;
    let mut sheets = Vec::new();
    for case in &args.archive {
        eprintln!("{}", case.name());
        let sheet = match case {
            Case::Archive20k => speed(&mut lab, args)?,
            Case::Memory => memory(&mut lab, args)?,
            Case::Placements => placements(&mut lab, args)?,
        };
        println!("{}", sheet.markdown());
        sheets.push(sheet);
    }
    lab.close()?;
    Ok(sheets)
}

/// A cold root on a disk of its own, until it is dropped.
struct ColdDisk {
    at: PathBuf,
    image: Image,
}

impl ColdDisk {
    fn mount(lab: &mut Lab, needs: (u64, u64)) -> Result<ColdDisk> {
        let at = lab.folder("cold-disk")?;
        let image = Image::mount(&at, needs)?;
        let cold = at.join("cold");
        fs::create_dir(&cold).with_context(|| format!("cannot create {}", cold.display()))?;
        init(&cold)?;
        Ok(ColdDisk { at, image })
    }

    fn cold(&self) -> PathBuf {
        self.at.join("cold")
    }
}

impl Drop for ColdDisk {
    fn drop(&mut self) {
        if let Err(error) = self.image.unmount() {
            eprintln!("{} stays mounted: {error:#}", self.at.display());
        }
    }
}

fn init(cold: &Path) -> Result<()> {
    init_cold(cold).with_context(|| format!("cannot make {} a cold root", cold.display()))?;
    Ok(())
}

/// One command of driftless, with the summary that it printed.
fn driftless(lab: &mut Lab, args: &Args, words: &[OsString]) -> Result<(Sample, Value)> {
    let command: Vec<OsString> = [args.driftless.clone().into()].into_iter().chain(words.iter().cloned()).collect();
    let home = lab.folder("home")?;
    let environment: [(OsString, OsString); 2] = [("DRIFTLESS_NOW".into(), NOW.into()), ("DRIFTLESS_HOME".into(), home.into())];
    let log = lab.log();
    rustix::fs::sync();
    let sample = measure::run(&command, &environment, &log)?;
    let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let summary = text.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
    let shown = words.iter().take(2).map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    eprintln!("  {shown:<20} {:7.2} s, CPU {:6.2} s, {:5} MiB", sample.wall_s, sample.cpu_s, sample.peak_kib >> 10);
    ensure!(sample.code == 0, "driftless {shown} ended with {}: {text}", sample.code);
    Ok((sample, summary.context("driftless printed no summary")?))
}

fn words<const N: usize>(words: [&dyn AsRef<std::ffi::OsStr>; N]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}

/// `archive run` of everything, with what reading back took of it, s.
fn archive(lab: &mut Lab, args: &Args, hot: &Path, cold: &Path, days: u64) -> Result<(Sample, f64)> {
    let line = words([&"archive", &"run", &"--json", &"--timezone", &"UTC", &"--hot", &hot, &"--cold", &cold]);
    let (sample, summary) = driftless(lab, args, &line)?;
    ensure!(summary["moved"] == days, "{} days were to move: {summary}", days);
    let verify_ms = summary["verify_ms"].as_f64().context("the summary does not tell how long reading back took")?;
    Ok((sample, verify_ms / 1000.0))
}

fn sync(lab: &mut Lab, args: &Args, a: &Path, b: &Path) -> Result<Sample> {
    Ok(driftless(lab, args, &words([&"sync", &"--batch", &"--json", &a, &b]))?.0)
}

/// `cp -a` of a day, and a flush of the file system that it went to.
fn copy(lab: &mut Lab, day: &Path, to: &Path) -> Result<Sample> {
    let script = "cp -a \"$1\" \"$2\" && sync -f \"$2\"";
    let line = words([&"sh", &"-c", &script, &"sh", &day, &to]);
    let log = lab.log();
    rustix::fs::sync();
    let sample = measure::run(&line, &[], &log)?;
    eprintln!("  {:<20} {:7.2} s, CPU {:6.2} s", "cp -a and sync -f", sample.wall_s, sample.cpu_s);
    ensure!(sample.code == 0, "cp -a and sync -f ended with {}", sample.code);
    Ok(sample)
}

/// The runs of one row.
#[derive(Default)]
struct Runs {
    label: String,
    samples: Vec<Sample>,
    verify_s: Vec<f64>,
}

impl Runs {
    fn wall(&self) -> f64 {
        median(self.samples.iter().map(|sample| sample.wall_s))
    }

    /// Wall time without reading back.
    fn bare(&self) -> f64 {
        median(self.samples.iter().zip(&self.verify_s).map(|(sample, verify)| sample.wall_s - verify))
    }

    fn row(&self, cp: f64) -> Vec<String> {
        let [wall, ratio] = with_ratio(self.wall(), Some(cp), 2);
        let [bare, bare_ratio] = with_ratio(self.bare(), Some(cp), 2);
        let cpu = median(self.samples.iter().map(|sample| sample.cpu_s));
        #[expect(clippy::cast_precision_loss, reason = "memory of processes in KiB is far below 2^52")]
        let peak = median(self.samples.iter().map(|sample| sample.peak_kib as f64 / 1024.0));
        vec![self.label.clone(), wall, ratio, bare, bare_ratio, format!("{cpu:.2}"), format!("{peak:.1}")]
    }

    fn json(&self) -> Value {
        let each = self.samples.iter().zip(&self.verify_s);
        let runs = each.map(|(sample, verify)| {
            json!({"wall_s": sample.wall_s, "verify_s": verify, "cpu_s": sample.cpu_s, "peak_kib": sample.peak_kib})
        });
        json!({"tool": self.label, "runs": runs.collect::<Vec<_>>()})
    }
}

fn speed(lab: &mut Lab, args: &Args) -> Result<Sheet> {
    let files = 20_000 / args.scale;
    let shape = Dated { files, seed: SEED, sizes: 4096..=65_536, per_day: files };
    let day = shape.path(0).parent().context("a file stands in a day")?.to_owned();
    let room = 3 * args.rounds as u64 * files;
    let disk = ColdDisk::mount(lab, (room * DAY_FILE_ROOM, room))?;
    let mut bytes = 0;
    let [mut cp, mut alone, mut known, mut same] =
        ["cp -a, sync -f", "another disk", "another disk, synchronised", "the same disk, synchronised"]
            .map(|label| Runs { label: label.to_owned(), ..Runs::default() });
    for round in 0..args.rounds {
        let hot = lab.own_source(&shape)?;
        bytes = walk::count(&hot)?.bytes;
        let to = disk.at.join(format!("by-cp-{round}"));
        fs::create_dir(&to).with_context(|| format!("cannot create {}", to.display()))?;
        cp.samples.push(copy(lab, &hot.join(&day), &to)?);
        cp.verify_s.push(0.0);
        for (runs, synchronised, other) in [(&mut alone, false, true), (&mut known, true, true), (&mut same, true, false)] {
            let hot = lab.own_source(&shape)?;
            if synchronised {
                let replica = lab.folder("replica")?;
                sync(lab, args, &hot, &replica)?;
            }
            // Every root has a cold root of its own: the days have one name.
            let cold = if other { disk.cold().join(format!("{round}-{synchronised}")) } else { lab.folder("cold")? };
            fs::create_dir_all(&cold).with_context(|| format!("cannot create {}", cold.display()))?;
            init(&cold)?;
            let before = walk::fingerprint(&hot.join(&day))?;
            let (sample, verify_s) = archive(lab, args, &hot, &cold, 1)?;
            runs.samples.push(sample);
            runs.verify_s.push(verify_s);
            ensure!(fs::symlink_metadata(hot.join(&day)).is_ok_and(|meta| meta.is_symlink()), "the day has not moved");
            ensure!(walk::fingerprint(&hot.join(&day))? == before, "the day reads otherwise than before");
        }
    }
    let wall = cp.wall();
    let rows = [cp, alone, known, same];
    let head = ["day goes to", "wall s", "÷ cp", "without reading back, s", "÷ cp", "CPU s", "peak MiB"];
    Ok(Sheet {
        case: Case::Archive20k.name(),
        title: format!("One day of {files} files of 4–64 KiB, {} MiB, that goes to a cold root.", bytes >> 20),
        head: head.map(str::to_owned).to_vec(),
        rows: rows.iter().map(|runs| runs.row(wall)).collect(),
        runs: rows.iter().map(Runs::json).collect(),
        faults: Vec::new(),
    })
}

fn memory(lab: &mut Lab, args: &Args) -> Result<Sheet> {
    let disk = ColdDisk::mount(lab, (2 * 222_000 / args.scale * TINY_ROOM, 2 * 222_000 / args.scale))?;
    let (mut rows, mut runs) = (Vec::new(), Vec::new());
    for (flat, what) in [(false, "100 in a directory"), (true, "all in one directory")] {
        for files in [2_000, 20_000, 200_000].map(|files| files / args.scale) {
            let hot = lab.folder("hot")?;
            let day = hot.join("2025/12/31");
            let shape = Dated::tiny(files, SEED);
            // The day's own tree is one of days again, which nobody looks for in it.
            match flat {
                true => drop(Dated { per_day: files, ..shape }.write(&hot)?),
                false => {
                    shape.write(&day)?;
                    age(&day)?;
                }
            }
            let (replica, cold) = (lab.folder("replica")?, disk.cold().join(format!("{flat}-{files}")));
            sync(lab, args, &hot, &replica)?;
            fs::create_dir(&cold).with_context(|| format!("cannot create {}", cold.display()))?;
            init(&cold)?;
            let (moved, _) = archive(lab, args, &hot, &cold, 1)?;
            let (verified, _) = driftless(lab, args, &words([&"archive", &"verify", &"--json", &hot]))?;
            let (restored, _) = driftless(lab, args, &words([&"archive", &"restore", &"--json", &hot, &"2025/12/31"]))?;
            let peaks = [moved, verified, restored].map(|sample| sample.peak_kib);
            #[expect(clippy::cast_precision_loss, reason = "memory of processes in KiB is far below 2^52")]
            let shown = peaks.map(|kib| format!("{:.1}", kib as f64 / 1024.0));
            rows.push([vec![files.to_string(), what.to_owned()], shown.to_vec()].concat());
            runs.push(json!({"files": files, "in": what, "run_kib": peaks[0], "verify_kib": peaks[1], "restore_kib": peaks[2]}));
        }
    }
    let head = ["files of the day", "where", "run, peak MiB", "verify, peak MiB", "restore, peak MiB"];
    Ok(Sheet {
        case: Case::Memory.name(),
        title: "Peak memory while one day of tiny files goes to a cold root on another disk, is verified, and comes back.".into(),
        head: head.map(str::to_owned).to_vec(),
        rows,
        runs,
        faults: Vec::new(),
    })
}

/// Makes directories as old as what is in them.
fn age(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            age(&entry.path())?;
        }
    }
    fixtures::disk::set_mtime(dir, 0).with_context(|| format!("cannot set the time of {}", dir.display()))
}

/// Seconds of CPU time of opening the directory of a path so often: nothing of it waits, and others may be at work.
fn opening_s(root: &Root, path: &RelPath) -> Result<f64> {
    let began = thread_s();
    for _ in 0..OPENINGS {
        root.dir(path).with_context(|| format!("cannot open {path}"))?;
    }
    Ok(thread_s() - began)
}

/// CPU time of this thread.
fn thread_s() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "seconds of a thread are far below 2^52")]
    let seconds = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    seconds
}

fn placements(lab: &mut Lab, args: &Args) -> Result<Sheet> {
    let [hot, placed] = one_directory(lab, args.rounds)?;
    let shape = Dated { per_day: FILES_OF_A_DAY, ..Dated::tiny(DAYS * FILES_OF_A_DAY, SEED) };
    let (a, b, cold) = (lab.own_source(&shape)?, lab.folder("replica")?, lab.folder("cold")?);
    init(&cold)?;
    sync(lab, args, &a, &b)?;
    let nothing = |lab: &mut Lab| -> Result<[f64; 2]> {
        let runs = (0..=args.rounds).map(|_| sync(lab, args, &a, &b)).collect::<Result<Vec<_>>>()?;
        // The first of them warms up.
        Ok([median(runs[1..].iter().map(|run| run.wall_s)), median(runs[1..].iter().map(|run| run.cpu_s))])
    };
    let before = nothing(lab)?;
    archive(lab, args, &a, &cold, DAYS)?;
    let after = nothing(lab)?;
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let each_us = (after[1] - before[1]) * 1e6 / DAYS as f64;
    let us = |seconds: f64| seconds * 1e6 / f64::from(OPENINGS);
    let row = [us(hot), us(placed), us(placed - hot)].map(|us| format!("{us:.1}"));
    let shown = |[wall, cpu]: [f64; 2]| format!("{wall:.3} ({cpu:.2} CPU)");
    let rest = [shown(before), shown(after), format!("{each_us:.0}")];
    Ok(Sheet {
        case: Case::Placements.name(),
        title: format!(
            "What it costs to look through a link of ours: a directory opened {OPENINGS} times, and a sync of nothing with {DAYS} days of {FILES_OF_A_DAY} files in the root, and all of them in a cold root."
        ),
        head: [
            "open in the root, CPU µs",
            "placed, µs",
            "more, µs",
            "sync of nothing, all hot, s",
            "all cold, s",
            "more CPU for each day, µs",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: vec![[row.to_vec(), rest.to_vec()].concat()],
        runs: vec![
            json!({"open_hot_s": hot, "open_placed_s": placed, "openings": OPENINGS, "nothing_hot_s": before, "nothing_cold_s": after}),
        ],
        faults: Vec::new(),
    })
}

/// Seconds of opening a directory that stands in a root, and one that lies in a cold root.
fn one_directory(lab: &mut Lab, rounds: usize) -> Result<[f64; 2]> {
    let (hot, cold) = (lab.folder("hot")?, lab.folder("cold")?);
    let day = RelPath::parse(b"2026/03/05").context("it is a path")?;
    for path in ["2026/03/04", "2026/03"] {
        let path = hot.join(path);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    let there = cold.join("2026/03/05");
    fs::create_dir_all(&there).with_context(|| format!("cannot create {}", there.display()))?;
    std::os::unix::fs::symlink(&there, hot.join("2026/03/05")).context("cannot make the link")?;
    let id = init_cold(&cold)?;
    let cold =
        Arc::new(Cold { id, path: cold, key: "bench".to_owned(), claim: Claim::default(), generation: Generation::default() });
    let link = there.into_os_string().into_encoded_bytes().into();
    let (stamp, path, at, job) = (ColdId([1; 16]), day.clone(), day.clone(), "bench".to_owned());
    let rewritten = std::collections::BTreeMap::new();
    let placement = Placement { path, cold: cold.clone(), at, job, stamp, link, other_link: None, settled: true, rewritten };
    placement.put_stamp()?;
    let root = Root::open(&hot)?;
    root.set_places(Places::new([placement], vec![cold]));
    ensure!(root.dir(&day)?.is_placed(), "{day} is not looked through");
    let beside = RelPath::parse(b"2026/03/04").context("it is a path")?;
    let times = |path: &RelPath| (0..rounds).map(|_| opening_s(&root, path)).collect::<Result<Vec<_>>>();
    Ok([median(times(&beside)?.into_iter()), median(times(&day)?.into_iter())])
}
