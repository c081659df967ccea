//! SIGKILL at any moment of a run, for either of its two processes.

use crate::lab::{Lab, Running, setting};
use crate::serving::Serving;
use fixtures::bytes::{Stream, noise};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// A large file; it comes in many messages.
const LARGE: usize = 24 << 20;
/// And what another one may have besides.
const UNLIKE: usize = 5_000;
/// Small files of each side.
const SMALL: u64 = 60;
/// What a run may send besides content: rows, hashes, small files, what QUIC adds.
const BESIDES: u64 = 3 << 20;
/// Of so many servers that are killed, one is waited for by its caller until the silence is long enough.
const PATIENT: u64 = 25;

type Hashes = BTreeMap<String, [u8; 32]>;

/// Which process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Caller,
    Server,
}

struct Trial {
    lab: Lab,
    random: Stream,
    /// What both sides are to have in the end.
    expected: Hashes,
    serving: Option<Serving>,
    large: u64,
}

/// What came of it all.
#[derive(Debug, Default)]
struct Tally {
    callers: u64,
    servers: u64,
    /// Runs that were over before they were killed.
    missed: u64,
    /// Runs that found the beginning of a large file, and bytes that they did not bring again.
    resumed: u64,
    spared: u64,
}

impl Trial {
    fn new(seed: u64) -> Trial {
        let (lab, random) = (Lab::new(), Stream::new(seed));
        let mut trial = Trial { lab, random, expected: Hashes::new(), serving: None, large: 0 };
        for number in 0..SMALL {
            for root in ["a", "b"] {
                trial.put(root, &format!("{root}{}/{number}", number % 6), 2_000);
            }
        }
        trial
    }

    fn put(&mut self, root: &str, path: &str, size: usize) {
        let content = noise(self.random.word(), size);
        self.lab.write(root, path, &content);
        self.expected.insert(path.to_owned(), *blake3::hash(&content).as_bytes());
    }

    /// A new large file on one side, small edits, a deletion and a rename on both.
    fn edit(&mut self) {
        let root = ["a", "b"][self.random.below(2) as usize];
        let old = format!("large{}", self.large);
        self.large += 1;
        if self.expected.remove(&old).is_some() {
            fs::remove_file(self.lab.root(root).join(old)).unwrap();
        }
        // Of the size of the one before, which is then tried as its base, or not.
        let size = LARGE + self.random.below(2) as usize * UNLIKE;
        self.put(root, &format!("large{}", self.large), size);
        for root in ["a", "b"] {
            let own: Vec<String> = self.expected.keys().filter(|path| path.starts_with(root)).cloned().collect();
            let mut next = || own[self.random.below(own.len() as u64) as usize].clone();
            let (edited, gone, renamed) = (next(), next(), next());
            self.put(root, &edited, 3_000);
            let new = format!("{root}{}/{:x}", self.random.below(6), self.random.word());
            self.put(root, &new, 1_000);
            if gone != edited {
                self.expected.remove(&gone);
                fs::remove_file(self.lab.root(root).join(&gone)).unwrap();
            }
            if renamed != edited && renamed != gone {
                let to = format!("{root}{}/moved-{:x}", self.random.below(6), self.random.word());
                fs::rename(self.lab.root(root).join(&renamed), self.lab.root(root).join(&to)).unwrap();
                let hash = self.expected.remove(&renamed).unwrap();
                self.expected.insert(to, hash);
            }
        }
    }

    fn start(&mut self) -> Running {
        if self.serving.is_none() {
            self.serving = Some(self.lab.serve());
        }
        let address = self.serving.as_ref().unwrap().address.clone();
        Running::start(self.lab.sync(&address))
    }

    /// Starts a run, and kills one of its processes after the delay. Was it still under way?
    ///
    /// Nothing is waited for: the delay is the random moment itself, spread over the time that a whole run takes.
    fn kill_after(&mut self, delay: Duration, victim: Victim, patient: bool) -> bool {
        let mut running = self.start();
        thread::sleep(delay);
        if running.is_over() {
            return false;
        }
        if victim == Victim::Caller {
            drop(running);
            return true;
        }
        self.serving = None;
        if !patient {
            // As its user would, who does not want to wait until silence tells that nobody is there any more, and insists.
            for signal in [Signal::INT, Signal::TERM] {
                kill_process(Pid::from_child(running.process()), signal).unwrap();
            }
        }
        let ran = running.end();
        match ran.code {
            // Its last word was said before.
            Some(0) => false,
            // None: it had not even taken its signals over.
            code => {
                assert!(code == Some(3) || !patient && matches!(code, Some(130) | None), "{ran:?}");
                true
            }
        }
    }

    /// Large content that one side has and the other one has not.
    fn missing(&self) -> u64 {
        let (a, b) = (self.lab.files("a"), self.lab.files("b"));
        let large = self.expected.iter().filter(|(path, _)| path.starts_with("large"));
        large.filter(|(path, hash)| [&a, &b].iter().any(|root| root.get(*path) != Some(*hash))).count() as u64
            * (LARGE + UNLIKE) as u64
    }

    /// The next run finishes, goes on where the last one was, and leaves both sides with everything, once.
    fn finish(&mut self, tally: &mut Tally) -> Duration {
        let (missing, held) = (self.missing(), self.lab.begun("a") + self.lab.begun("b"));
        let started = Instant::now();
        let ran = self.start().end();
        let took = started.elapsed();
        ran.code(0);
        assert_eq!(ran.count("conflicts"), 0, "{}", ran.out);
        // Beginnings of what has come meanwhile, or is wanted no more, spare nothing.
        let held = held.min(missing);
        assert!(
            ran.traffic() <= missing - held + BESIDES,
            "{} bytes, where {missing} were missing and {held} held",
            ran.traffic()
        );
        if held > 0 {
            tally.resumed += 1;
            tally.spared += held;
        }
        for root in ["a", "b"] {
            assert!(self.lab.files(root) == self.expected, "{root} is not as expected");
        }
        let quiet = self.start().end();
        quiet.code(0);
        assert_eq!(
            ["created", "updated", "deleted", "moved", "conflicts"].map(|field| quiet.count(field)),
            [0; 5],
            "{}",
            quiet.out
        );
        took
    }
}

#[test]
fn either_process_may_be_killed_and_the_next_run_goes_on_from_there() {
    let wanted = setting("DRIFTLESS_TEST_KILLS", 10);
    let seed = setting("DRIFTLESS_TEST_SEED", 1);
    let mut trial = Trial::new(seed);
    let mut tally = Tally::default();
    trial.edit();
    let mut took = trial.finish(&mut tally);
    while tally.callers + tally.servers < wanted {
        trial.edit();
        // Recovery is killed, too.
        for _ in 0..1 + trial.random.below(3) {
            let delay = took.mul_f64(trial.random.below(1_000) as f64 / 1_000.0);
            let victim = [Victim::Caller, Victim::Server][trial.random.below(2) as usize];
            let patient = tally.servers % PATIENT == PATIENT - 1;
            match (trial.kill_after(delay, victim, patient), victim) {
                (false, _) => tally.missed += 1,
                (true, Victim::Caller) => tally.callers += 1,
                (true, Victim::Server) => tally.servers += 1,
            }
            // What nobody wrote stands nowhere, at any time: a file is whole, or not there yet.
            for root in ["a", "b"] {
                for (path, hash) in trial.lab.files(root).iter().filter(|(path, _)| path.starts_with("large")) {
                    let is_ours = trial.expected.get(path).is_none_or(|expected| expected == hash);
                    assert!(is_ours, "seed {seed}, {tally:?}: {root}/{path} holds what nobody wrote");
                }
            }
        }
        took = (took + trial.finish(&mut tally).max(Duration::from_millis(100))) / 2;
    }
    eprintln!("seed {seed}: {tally:?}; a whole run takes {took:?}");
}
