//! The place where trees are made and tools are run: one new folder, deleted as a whole at the very end.
//!
//! ext4 makes new files slow for minutes after a mass deletion, so nothing big is deleted between rounds. Trees
//! are shared between tools instead: what a tool keeps inside or beside the roots is parked in a [`Slot`] while
//! another one runs, by renaming.

use crate::args::Args;
use crate::measure::{self, Sample};
use crate::tool::Tool;
use anyhow::{Context as _, Result, ensure};
use fixtures::dated::Dated;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a tool remembers of a pair of roots: `.driftless` of both, or the home of unison.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    dir: PathBuf,
}

/// The folder of one run of the benchmarks.
#[derive(Debug)]
pub(crate) struct Lab {
    dir: PathBuf,
    fresh: Option<Image>,
    keep: bool,
    settle: Duration,
    made: u64,
    sources: Vec<(Dated, PathBuf)>,
    copies: Vec<(PathBuf, PathBuf)>,
}

impl Lab {
    /// Makes the folder, checks that the disk has room for so many bytes and inodes, and rests.
    pub(crate) fn open(args: &Args, needs: (u64, u64)) -> Result<Lab> {
        fs::create_dir_all(&args.dir).with_context(|| format!("cannot create {}", args.dir.display()))?;
        let stamp = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs();
        let dir = fs::canonicalize(&args.dir)?.join(format!("trees-{stamp}-{}", std::process::id()));
        check_room(&args.dir, needs)?;
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let fresh = args.fresh.then(|| Image::mount(&dir, needs)).transpose()?;
        eprintln!("trees in {}", dir.display());
        let lab = Lab { dir, fresh, keep: args.keep, settle: args.settle, made: 0, sources: Vec::new(), copies: Vec::new() };
        lab.rest("before the first run");
        Ok(lab)
    }

    /// Deletes everything, unless it is to be kept.
    pub(crate) fn close(self) -> Result<()> {
        if self.keep {
            eprintln!("kept {}", self.dir.display());
            return Ok(());
        }
        eprintln!("deleting the trees");
        if let Some(image) = &self.fresh {
            image.unmount()?;
        }
        fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))
    }

    /// Waits until what a mass deletion left behind in ext4 has passed, and the disk is idle.
    pub(crate) fn rest(&self, why: &str) {
        eprintln!("resting {} s {why}", self.settle.as_secs());
        rustix::fs::sync();
        std::thread::sleep(self.settle);
    }

    /// A new empty folder.
    pub(crate) fn folder(&mut self, what: &str) -> Result<PathBuf> {
        self.made += 1;
        let path = self.dir.join(format!("{:03}-{what}", self.made));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }

    /// A name for a new log.
    pub(crate) fn log(&mut self) -> PathBuf {
        self.made += 1;
        self.dir.join(format!("{:03}.log", self.made))
    }

    /// A new slot in which nothing is remembered.
    pub(crate) fn slot(&mut self) -> Result<Slot> {
        Ok(Slot { dir: self.folder("slot")? })
    }

    /// A tree of this shape that nobody changes; made once.
    pub(crate) fn source(&mut self, shape: &Dated) -> Result<PathBuf> {
        if let Some((_, path)) = self.sources.iter().find(|(known, _)| known == shape) {
            return Ok(path.clone());
        }
        let path = self.own_source(shape)?;
        self.sources.push((shape.clone(), path.clone()));
        Ok(path)
    }

    /// A tree of this shape for one case alone.
    pub(crate) fn own_source(&mut self, shape: &Dated) -> Result<PathBuf> {
        let path = self.folder("source")?;
        let started = Instant::now();
        let bytes = shape.write(&path)?;
        eprintln!("made {} files, {} MiB, in {:.1} s", shape.files, bytes >> 20, started.elapsed().as_secs_f64());
        Ok(path)
    }

    /// An equal tree beside a source that nobody changes; made once.
    pub(crate) fn copy_of(&mut self, source: &Path) -> Result<PathBuf> {
        if let Some((_, copy)) = self.copies.iter().find(|(known, _)| known == source) {
            return Ok(copy.clone());
        }
        let copy = self.own_copy(source)?;
        self.copies.push((source.to_path_buf(), copy.clone()));
        Ok(copy)
    }

    /// An equal tree for one case alone, by `cp -a`.
    pub(crate) fn own_copy(&mut self, source: &Path) -> Result<PathBuf> {
        let copy = self.folder("copy")?;
        let slot = self.slot()?;
        let sample = self.measure(&Tool::Cp, source, &copy, &slot)?;
        ensure!(sample.code == 0, "cp -a of {} failed", source.display());
        Ok(copy)
    }

    /// Runs a tool on a pair of roots with what it remembers of them, and parks that again.
    pub(crate) fn measure(&mut self, tool: &Tool, a: &Path, b: &Path, slot: &Slot) -> Result<Sample> {
        let mut environment: Vec<(OsString, OsString)> = Vec::new();
        match tool {
            Tool::Driftless(_) => {
                slot.unpark(a, b)?;
                environment.push(("DRIFTLESS_HOME".into(), slot.dir.join("home").into()));
            }
            Tool::Unison => environment.push(("UNISON".into(), slot.dir.join("unison").into())),
            _ => {}
        }
        rustix::fs::sync();
        let log = self.log();
        let mut sample = measure::run(&tool.command(a, b), &environment, &log)?;
        sample.flush_s = flush_seconds(b)?;
        if matches!(tool, Tool::Driftless(_)) {
            slot.park(a, b)?;
        }
        eprintln!(
            "  {:<19} {:7.2} s, CPU {:6.2} s, {:5} MiB, exit {}",
            tool.name(),
            sample.wall_s,
            sample.cpu_s,
            sample.peak_kib >> 10,
            sample.code
        );
        if sample.code != 0 {
            show_tail(&log)?;
        }
        Ok(sample)
    }
}

/// A new ext4 in a file, mounted over the folder of the trees.
#[derive(Debug)]
pub(crate) struct Image {
    at: PathBuf,
    file: PathBuf,
}

impl Image {
    pub(crate) fn mount(at: &Path, (bytes, inodes): (u64, u64)) -> Result<Image> {
        let file = at.with_extension("ext4");
        let room = bytes + bytes / 8 + inodes * 256 + (2 << 30);
        fs::File::create_new(&file)
            .and_then(|image| image.set_len(room))
            .with_context(|| format!("cannot create {}", file.display()))?;
        let eager = "lazy_itable_init=0,lazy_journal_init=0";
        command(
            Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-E", eager, "-N"]).arg((inodes * 2).to_string()).arg(&file),
        )?;
        command(Command::new("mount").args(["-o", "loop"]).args([&file, at]))?;
        Ok(Image { at: at.to_owned(), file })
    }

    pub(crate) fn unmount(&self) -> Result<()> {
        command(Command::new("umount").arg(&self.at))?;
        fs::remove_file(&self.file).with_context(|| format!("cannot remove {}", self.file.display()))
    }
}

fn command(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    ensure!(status.success(), "{} failed: {status}", command.get_program().display());
    Ok(())
}

impl Slot {
    /// Where a tool may keep what it remembers elsewhere than in the roots.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes on the disk of the parked state of both roots, kept versions and staged content left out.
    pub(crate) fn state_bytes(&self) -> Result<u64> {
        let mut total = 0;
        for side in ["a", "b"].map(|side| self.dir.join(side)).into_iter().filter(|side| side.exists()) {
            total += crate::walk::count(&side)?.disk_bytes;
            for aside in ["versions", "stage"].map(|name| side.join(name)).into_iter().filter(|aside| aside.exists()) {
                total -= crate::walk::count(&aside)?.disk_bytes;
            }
        }
        Ok(total)
    }

    /// Takes what is remembered out of the roots.
    pub(crate) fn park(&self, a: &Path, b: &Path) -> Result<()> {
        move_if_there(&a.join(".driftless"), &self.dir.join("a"))?;
        move_if_there(&b.join(".driftless"), &self.dir.join("b"))
    }

    /// Puts it back.
    pub(crate) fn unpark(&self, a: &Path, b: &Path) -> Result<()> {
        move_if_there(&self.dir.join("a"), &a.join(".driftless"))?;
        move_if_there(&self.dir.join("b"), &b.join(".driftless"))
    }
}

fn move_if_there(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
        }
        _ => Ok(()),
    }
}

/// How long a flush of the file system takes that this root is on.
pub(crate) fn flush_seconds(root: &Path) -> Result<f64> {
    let root = fs::File::open(root).with_context(|| format!("cannot open {}", root.display()))?;
    let started = Instant::now();
    rustix::fs::syncfs(&root).context("cannot flush the file system")?;
    Ok(started.elapsed().as_secs_f64())
}

/// The last lines of a log, on stderr.
pub(crate) fn show_tail(log: &Path) -> Result<()> {
    let text = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(5)..] {
        eprintln!("    | {}", line.escape_debug());
    }
    Ok(())
}

fn check_room(dir: &Path, (bytes, inodes): (u64, u64)) -> Result<()> {
    let stat = rustix::fs::statvfs(dir).with_context(|| format!("cannot look at the disk below {}", dir.display()))?;
    let (free_bytes, free_inodes) = (stat.f_bavail * stat.f_frsize, stat.f_favail);
    eprintln!("needs up to {} GiB and {inodes} inodes; {} GiB and {free_inodes} are free", bytes >> 30, free_bytes >> 30);
    ensure!(
        bytes <= free_bytes && inodes <= free_inodes,
        "the disk has too little room: choose fewer cases with --case, fewer --rounds, a larger --scale, or another --dir"
    );
    Ok(())
}
