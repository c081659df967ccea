//! How far a run is: a line on a terminal, JSON lines in a pipe. Nothing on a stderr that is no terminal.

use crate::json::{self, Event, ProgressLine};
use crate::output::Output;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use sync_core::report::Phase;

/// At most two JSON lines per second.
const LINE_INTERVAL_MS: u64 = 500;
/// How often the line on a terminal is renewed while nothing is reported.
const REDRAW: Duration = Duration::from_millis(200);

/// Time since the command began: the only clock of the binary.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[allow(clippy::disallowed_methods, reason = "the binary measures its own run")]
    pub(crate) fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// The progress of one run, told from any thread.
pub(crate) struct Progress<'a> {
    output: &'a Output,
    bar: Option<ProgressBar>,
    watch: Stopwatch,
    part: Mutex<Part>,
    files: AtomicU64,
    bytes: AtomicU64,
    next_line_ms: AtomicU64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Part {
    phase: Option<Phase>,
    files: Option<u64>,
    bytes: Option<u64>,
    /// Entries that the scan saw.
    scanned: u64,
}

impl<'a> Progress<'a> {
    /// Begins; a line on stderr appears with the first part of the run.
    pub(crate) fn new(output: &'a Output, watch: Stopwatch) -> Progress<'a> {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            show_part(&bar, Part { phase: Some(Phase::Scan), ..Part::default() });
            bar.enable_steady_tick(REDRAW);
            output.share_terminal_with(bar.clone());
            bar
        });
        Progress {
            output,
            bar,
            watch,
            part: Mutex::default(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            next_line_ms: AtomicU64::new(0),
        }
    }

    /// A part begins. Both roots may tell the same part: their totals and counts add up.
    pub(crate) fn phase(&self, phase: Phase, files: Option<u64>, bytes: Option<u64>) {
        let part = {
            let mut part = self.part();
            let same = part.phase == Some(phase);
            if part.phase == Some(Phase::Scan) && !same {
                part.scanned = self.files.load(Ordering::Relaxed);
            }
            if !same {
                self.files.store(0, Ordering::Relaxed);
                self.bytes.store(0, Ordering::Relaxed);
                (part.files, part.bytes) = (None, None);
            }
            part.phase = Some(phase);
            part.files = sum(part.files, files);
            part.bytes = sum(part.bytes, bytes);
            *part
        };
        if let Some(bar) = &self.bar {
            show_part(bar, part);
        }
        self.tell();
    }

    /// So much more is done.
    pub(crate) fn advance(&self, files: u64, bytes: u64) {
        let files = self.files.fetch_add(files, Ordering::Relaxed) + files;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            bar.set_message(HumanCount(files).to_string());
        }
        self.tell();
    }

    /// Entries that the scan saw, on both roots together.
    pub(crate) fn scanned(&self) -> u64 {
        let part = self.part();
        match part.phase {
            Some(Phase::Scan) => self.files.load(Ordering::Relaxed),
            _ => part.scanned,
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Runs `question` with the line out of the way.
    pub(crate) fn hidden<T>(&self, question: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(question),
            None => question(),
        }
    }

    fn tell(&self) {
        if !self.output.is_json() {
            return;
        }
        let now_ms = u64::try_from(self.watch.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = self.next_line_ms.load(Ordering::Relaxed);
        let next = now_ms.saturating_add(LINE_INTERVAL_MS);
        // Of several threads that find the line due, one writes it.
        let mine = now_ms >= due && self.next_line_ms.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !mine {
            return;
        }
        let part = *self.part();
        let Some(phase) = part.phase else { return };
        self.output.event(&Event::Progress(ProgressLine {
            phase: json::phase(phase),
            files: self.files.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            files_total: part.files,
            bytes_total: part.bytes,
        }));
        self.output.flush();
    }

    fn part(&self) -> MutexGuard<'_, Part> {
        // Plain numbers: a panic elsewhere leaves them usable.
        self.part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    }
}

fn show_part(bar: &ProgressBar, part: Part) {
    let what = match part.phase {
        Some(Phase::Scan) => "scanning",
        Some(Phase::Compare) => "comparing",
        Some(Phase::Plan) => "planning",
        Some(Phase::Apply) => "applying",
        None => return,
    };
    let of = part.files.map_or(String::new(), |files| format!(" of {}", HumanCount(files)));
    let template = match part.bytes {
        Some(total) if total > 0 => {
            bar.set_length(total);
            format!("{what} {{msg}}{of} paths {{bar:20}} {{bytes}} of {{total_bytes}} {{bytes_per_sec}} eta {{eta}}")
        }
        _ => {
            bar.unset_length();
            format!("{{spinner}} {what} {{msg}}{of} paths {{bytes}} {{elapsed}}")
        }
    };
    bar.set_style(ProgressStyle::with_template(&template).expect("the template is well-formed"));
    bar.set_message("0");
    bar.reset_eta();
    bar.set_position(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_a_line_of_its_own() {
        let bar = ProgressBar::hidden();
        for phase in [Phase::Scan, Phase::Compare, Phase::Plan, Phase::Apply] {
            for bytes in [None, Some(0), Some(10)] {
                show_part(&bar, Part { phase: Some(phase), files: Some(1), bytes, scanned: 0 });
            }
        }
    }

    #[test]
    fn the_scan_of_two_roots_adds_up_and_is_remembered() {
        let output = Output::new(false);
        let progress = Progress::new(&output, Stopwatch::start());
        progress.phase(Phase::Scan, None, None);
        progress.advance(3, 0);
        progress.phase(Phase::Scan, None, None);
        progress.advance(4, 0);
        assert_eq!(progress.scanned(), 7);
        progress.phase(Phase::Plan, None, None);
        progress.advance(1, 0);
        assert_eq!(progress.scanned(), 7);
    }
}
