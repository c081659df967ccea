//! Four servers whose users change everything at random, while agents are killed and links cut: in the end all agree, and nothing is
//! lost.

use crate::lab::{GLANCE, Lab, good, setting};
use crate::ledger::Ledger;
use crate::users::User;
use anyhow::{Context as _, Result, ensure};
use fixtures::bytes::Stream;
use fixtures::linkemu::Conditions;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MACHINES: usize = 4;
const PAIRS: [(usize, usize); 6] = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)];
/// Everything may be deleted at once here.
const FOLDER: &str = "quiet = \"50ms\"\nmax_delete = \"100%\"";
/// Longest rest of a user between two changes, milliseconds.
const REST_MS: u64 = 400;
/// How long the soak is by default, seconds.
const SHORT: u64 = 20;

/// What happens to machines and links, and how often it did.
struct Fate {
    random: Stream,
    /// Agents that are to be started again, and links that are to be healed, and when.
    down: BTreeMap<usize, Instant>,
    cut: BTreeMap<(usize, usize), Instant>,
    kills: u64,
    cuts: u64,
    changes: u64,
}

impl Fate {
    fn after(&mut self, most_ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(self.random.below(most_ms))
    }

    /// Something happens.
    fn strike(&mut self, lab: &mut Lab, ledger: &Ledger) -> Result<()> {
        let pair = PAIRS[usize::try_from(self.random.below(PAIRS.len() as u64))?];
        match self.random.below(10) {
            0..3 => {
                let at = usize::try_from(self.random.below(MACHINES as u64))?;
                if lab.machines[at].runs() {
                    ledger.note(&format!("kills {}", lab.machines[at].name));
                    lab.kill(at)?;
                    self.kills += 1;
                    let until = self.after(4_000);
                    self.down.insert(at, until);
                }
            }
            3..7 => {
                // Mostly shorter than a connection lives, now and then longer; one way, or both.
                let long = if self.random.below(5) == 0 { 60_000 } else { 8_000 };
                let until = self.after(long);
                self.cut.insert(pair, until);
                lab.mesh.set(pair.0, pair.1, good().cut());
                if self.random.below(3) > 0 {
                    lab.mesh.set(pair.1, pair.0, good().cut());
                }
                ledger.note(&format!("cuts {pair:?}"));
                self.cuts += 1;
            }
            _ if self.cut.contains_key(&pair) => {}
            _ => {
                let delay = Duration::from_millis(1 + self.random.below(40));
                let mbit = if self.random.below(4) == 0 { 8.0 } else { 100.0 };
                let loss = self.random.below(15) as f64 / 100.0;
                lab.link(pair.0, pair.1, Conditions::new(mbit, delay).losing(loss));
                self.changes += 1;
            }
        }
        Ok(())
    }

    /// What is over by `now` is mended.
    fn mend(&mut self, lab: &mut Lab, now: Option<Instant>) -> Result<()> {
        let over = |until: &Instant| now.is_none_or(|now| *until <= now);
        for (at, _) in self.down.extract_if(.., |_, until| over(until)) {
            lab.start(at)?;
        }
        for (pair, _) in self.cut.extract_if(.., |_, until| over(until)) {
            lab.link(pair.0, pair.1, good());
        }
        Ok(())
    }
}

/// Changes until it is told to stop, and at its own pace: users do not wait for anything.
fn work(user: &mut User, over: &AtomicBool) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        user.act()?;
        thread::sleep(Duration::from_millis(user.below(REST_MS)));
    }
    Ok(())
}

/// Ends whatever happens, so that nobody waits for users for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn nothing_is_lost_and_all_agree_after_random_changes_kills_and_cuts() -> Result<()> {
    let span = match setting("DRIFTLESS_TEST_SOAK", 0) {
        0 => Duration::from_secs(SHORT),
        minutes => Duration::from_secs(60 * minutes),
    };
    let seed = setting("DRIFTLESS_TEST_SEED", 1);
    let Some(mut lab) = Lab::new(MACHINES, &PAIRS, FOLDER)? else { return Ok(()) };
    eprintln!("soak of {span:.0?} with seed {seed} in {}", lab.place().display());
    let ledger = Arc::new(Ledger::new(&lab.place().join("ledger.log"))?);
    let aside = |lab: &Lab, at: usize| lab.place().join(format!("{}.aside", lab.machines[at].name));
    let mut users = (0..MACHINES)
        .map(|at| User::new(&lab.machines[at].name, &lab.machines[at].root, &aside(&lab, at), &ledger, seed * 10 + at as u64))
        .collect::<Result<Vec<_>>>()?;
    let mut fate = Fate { random: Stream::new(seed), down: BTreeMap::new(), cut: BTreeMap::new(), kills: 0, cuts: 0, changes: 0 };
    lab.start_all()?;
    let (over, until) = (AtomicBool::new(false), Instant::now() + span);
    thread::scope(|scope| {
        let ending = Over(&over);
        let at_work: Vec<_> = users.iter_mut().map(|user| scope.spawn(|| work(user, &over))).collect();
        let mut next = Instant::now();
        while Instant::now() < until && !at_work.iter().any(thread::ScopedJoinHandle::is_finished) {
            fate.mend(&mut lab, Some(Instant::now()))?;
            if Instant::now() >= next {
                fate.strike(&mut lab, &ledger)?;
                next = fate.after(5_000);
            }
            thread::sleep(GLANCE);
        }
        drop(ending);
        at_work.into_iter().try_for_each(|user| user.join().unwrap())
    })?;
    ledger.note("all is mended");
    fate.mend(&mut lab, None)?;
    PAIRS.iter().for_each(|pair| lab.link(pair.0, pair.1, good()));
    let mended = Instant::now();
    lab.wait_equal("all trees agree", |_| true)?;
    lab.wait_in_sync()?;
    lab.wait_equal("all trees agree still", |_| true)?;
    let took = mended.elapsed();
    let peaks: Vec<u64> = lab.machines.iter().map(|machine| machine.peak_mib()).collect();
    lab.stop_all()?;
    for (user, machine) in users.iter().flat_map(|user| lab.machines.iter().map(move |machine| (user, machine))) {
        user.check_own(&machine.root)?;
    }
    let folders: Vec<PathBuf> = (0..MACHINES).flat_map(|at| [lab.machines[at].root.clone(), aside(&lab, at)]).collect();
    let tree = lab.machines[0].tree()?;
    let copies = tree.iter().filter(|(path, _)| path.to_string().contains(".conflict")).count();
    let mut done: BTreeMap<&str, u64> = BTreeMap::new();
    users.iter().flat_map(|user| &user.done).for_each(|(what, count)| *done.entry(what).or_default() += count);
    let Fate { kills, cuts, changes, .. } = fate;
    eprintln!(
        "seed {seed}: {done:?}; {} contents written; {kills} kills, {cuts} cuts, {changes} other conditions; all agreed {took:.1?} \
         after the end, with {} paths, {copies} of them conflict copies; peaks {peaks:?} MiB",
        ledger.written(),
        tree.len()
    );
    let missing = ledger.missing(&folders.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    ensure!(missing.is_empty(), "{} contents are nowhere:\n{}", missing.len(), missing.join("\n"));
    ensure!(lab.panics().is_empty(), "{:?}", lab.panics());
    // What the agents left is whole: a single run finds nothing to do.
    lab.machines[1..].iter().try_for_each(|other| nothing_to_do(&lab.machines[0].root, &other.root))
}

fn nothing_to_do(one: &Path, other: &Path) -> Result<()> {
    let ran = Command::new(env!("CARGO_BIN_EXE_driftless")).args(["status", "--json"]).args([one, other]).output()?;
    let text = String::from_utf8_lossy(&ran.stdout);
    let told = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.code() == Some(0), "{} and {} are not in sync: {text}{told}", one.display(), other.display());
    text.lines().last().context("a run tells what it found")?;
    Ok(())
}
