//! Two roots that a tool keeps equal while the bench looks on.

use super::tool::{Call, Tool};
use crate::lab::Lab;
use crate::measure::{Running, Sample};
use anyhow::{Context as _, Result, bail};
use fixtures::linkemu::End;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often it is looked whether something has arrived. Short, for what is measured; a look is one `stat`.
pub(crate) const LOOK_EVERY: Duration = Duration::from_micros(500);

/// A tool at work.
pub(crate) struct Pair {
    pub(crate) roots: [PathBuf; 2],
    running: Vec<Running>,
}

/// What its processes took from their start to their end.
pub(crate) struct Taken {
    /// Of each process with all that it started.
    pub(crate) samples: Vec<Sample>,
}

impl Pair {
    /// Two empty roots and a tool that keeps them equal; it does by the time this returns.
    pub(crate) fn start(lab: &mut Lab, tool: &Tool, place: &End) -> Result<Pair> {
        let roots = [lab.folder("here")?, lab.folder("there")?];
        let dir = lab.folder("home")?;
        let pair = Pair::on(lab, &tool.prepare(&dir, &roots)?, place, roots)?;
        for way in 0..=usize::from(tool.both_ways()) {
            let name = format!("ready-{way}");
            fs::write(pair.roots[way].join(&name), "x")?;
            arrived(&pair.roots[1 - way].join(&name)).with_context(|| format!("{} does not begin", tool.name()))?;
        }
        Ok(pair)
    }

    /// The processes of a tool, on roots that are there.
    pub(crate) fn on(lab: &mut Lab, calls: &[Call], place: &End, roots: [PathBuf; 2]) -> Result<Pair> {
        let mut running = Vec::new();
        for (command, environment) in calls {
            let log = lab.log();
            running.push(place.run(|| Running::start(command, environment, &log, None))?);
        }
        Ok(Pair { roots, running })
    }

    /// Seconds of CPU time that each of its processes has taken so far, with those that it started and that run still.
    pub(crate) fn cpu_s(&self) -> Result<Vec<f64>> {
        self.running.iter().map(Running::cpu_s).collect()
    }

    /// Memory that each holds now, MiB.
    pub(crate) fn resident_mib(&self) -> Result<Vec<f64>> {
        self.running.iter().map(Running::resident_mib).collect()
    }

    /// Ends it.
    pub(crate) fn end(self) -> Result<Taken> {
        Ok(Taken { samples: self.running.into_iter().map(Running::end).collect::<Result<Vec<_>>>()? })
    }
}

impl Taken {
    /// The most memory of each, MiB.
    pub(crate) fn peaks(&self) -> Vec<u64> {
        self.samples.iter().map(|sample| sample.peak_kib >> 10).collect()
    }
}

/// Waits until a file is there and not empty.
pub(crate) fn arrived(path: &Path) -> Result<Instant> {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = Instant::now();
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.len() > 0) {
            return Ok(now);
        }
        if now > until {
            bail!("{} never arrived", path.display());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A list of numbers for a cell.
pub(crate) fn joined(values: impl IntoIterator<Item = impl ToString>) -> String {
    values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>().join(" + ")
}
