//! `driftless archive run` and `restore` are ended by SIGKILL at any moment; beside some of them programs read and write.

use crate::cold::{FOR_YEARS, LATER, NOW, Server};
use crate::lab::{run, setting};
use crate::link::is_local;
use fixtures::bytes::{Stream, noise};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const DAYS: [&str; 5] = ["2026/03/01", "2026/03/02", "2026/03/03", "2026/03/04", "2026/03/05"];
const FILES: u64 = 25;
/// Kills before a run is let end: recovery is killed, too.
const IN_A_ROUND: u64 = 4;
/// Pace of the writer: a day that is written to all the time never moves.
const PACE: Duration = Duration::from_millis(20);

type Contents = BTreeMap<PathBuf, Vec<u8>>;

/// Days with files of several sizes, one file with two names, a hole, and links, one of which leads out of its day.
fn fill(server: &Server) -> Contents {
    let mut contents = Contents::new();
    for (number, day) in DAYS.iter().enumerate() {
        for file in 0..FILES {
            let path = if file % 5 == 0 { format!("{day}/sub/{file}") } else { format!("{day}/{file}") };
            let bytes = noise(number as u64 * 100 + file, if file % 7 == 0 { 200_000 } else { 3_000 });
            server.lab.write("a", &path, &bytes);
            contents.insert(path.into(), bytes);
        }
        let at = |name: &str| server.hot().join(day).join(name);
        fs::hard_link(at("1"), at("sub/again")).unwrap();
        contents.insert(format!("{day}/sub/again").into(), contents[Path::new(&format!("{day}/1"))].clone());
        File::create(at("hole")).unwrap().set_len(1 << 20).unwrap();
        contents.insert(format!("{day}/hole").into(), vec![0; 1 << 20]);
        symlink("../2", at("sub/pointer")).unwrap();
    }
    symlink("../../../shared", server.hot().join(DAYS[2]).join("out")).unwrap();
    server.lab.write("a", "shared", "beside the days");
    contents.insert("shared".into(), b"beside the days".to_vec());
    contents
}

/// Every file can be read through its hot path, and is whole.
#[track_caller]
fn assert_readable(server: &Server, contents: &Contents, what: &str) {
    for (path, bytes) in contents {
        let found = fs::read(server.hot().join(path)).unwrap_or_else(|error| panic!("{what}: {}: {error}", path.display()));
        assert!(found == *bytes, "{what}: {} holds other bytes", path.display());
    }
}

/// The commands that are killed, and how long each takes.
struct Work<'a> {
    server: &'a Server,
    random: Stream,
    keep: &'static str,
    took: [Duration; 2],
    killed: [u64; 2],
    missed: u64,
}

impl<'a> Work<'a> {
    fn new(server: &'a Server, keep: &'static str, seed: u64) -> Work<'a> {
        let took = [Duration::from_millis(1500); 2];
        Work { server, random: Stream::new(seed), keep, took, killed: [0; 2], missed: 0 }
    }

    /// 0: days go to the cold root, 1: all come back.
    fn command(&self, back: usize) -> Command {
        let rule = ["--outside-links", "rewrite", "--keep-displaced", self.keep];
        let mut command = match back {
            0 => self.server.command("run", self.server.cold(), &rule),
            _ => self.server.on_hot("restore", &["2026"]),
        };
        command.env("DRIFTLESS_NOW", NOW);
        command
    }

    /// Which of the two would do something.
    fn next(&mut self) -> usize {
        let linked = DAYS.iter().filter(|day| self.server.is_link(day)).count();
        match linked {
            0 => 0,
            count if count == DAYS.len() => 1,
            _ => self.random.below(2) as usize,
        }
    }

    /// Starts one and kills it at a random moment; the moment is not waited for by what it says, or it would only ever be one right
    /// after a line was flushed.
    fn kill_one(&mut self) {
        let back = self.next();
        let delay = self.took[back].mul_f64(self.random.below(1_000) as f64 / 1_000.0);
        let mut child = self.command(back).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(delay);
        let _ = child.kill();
        match child.wait().unwrap().signal() {
            Some(9) => self.killed[back] += 1,
            _ => self.missed += 1,
        }
    }

    /// Lets one end. Exit 1: somebody wrote to a day meanwhile.
    fn complete(&mut self, codes: &[i32]) {
        let back = self.next();
        let started = Instant::now();
        let ran = run(&mut self.command(back));
        assert!(codes.contains(&ran.0.status.code().unwrap()), "{}{}", ran.stdout(), ran.stderr());
        self.took[back] = (self.took[back] + started.elapsed()) / 2;
    }

    fn killed(&self) -> u64 {
        self.killed.iter().sum()
    }

    fn tell(&self, what: &str, began: Instant) {
        eprintln!(
            "{what}: {} runs and {} restores killed while they ran, {} had ended before; {:.0} s",
            self.killed[0],
            self.killed[1],
            self.missed,
            began.elapsed().as_secs_f64()
        );
    }
}

/// How often commands are killed, and with which seed.
struct Kills {
    wanted: u64,
    seed: u64,
    other_disk: bool,
    began: Instant,
}

/// A server whose days are not archived yet, with its cold root on another file system and on the same.
fn on_each_disk(test: impl Fn(&Server, &Contents, &Kills)) {
    if !is_local("archiving is killed, and that is done on one machine") {
        return;
    }
    let (wanted, seed) = (setting("DRIFTLESS_TEST_KILLS", 24), setting("DRIFTLESS_TEST_SEED", 1));
    for other_disk in [true, false] {
        let (server, began) = (Server::new(other_disk), Instant::now());
        server.init();
        let contents = fill(&server);
        server.lab.sync(&[]).code(0);
        test(&server, &contents, &Kills { wanted, seed, other_disk, began });
    }
}

#[test]
fn archiving_killed_at_any_moment_loses_nothing_and_is_no_event() {
    on_each_disk(|server, contents, &Kills { wanted, seed, other_disk, began }| {
        let mut work = Work::new(server, "0s", seed);
        while work.killed() < wanted.div_ceil(2) {
            for _ in 0..IN_A_ROUND {
                work.kill_one();
                let what = format!("seed {seed}, kill {}", work.killed());
                assert_readable(server, contents, &what);
            }
            work.complete(&[0]);
            let what = format!("other disk: {other_disk}, seed {seed}, after kill {}", work.killed());
            assert_readable(server, contents, &what);
            server.assert_one_copy(&DAYS, &what);
            server.assert_no_event();
            server.assert_equal();
        }
        let verified = run(&mut server.on_hot("verify", &[]));
        assert_eq!(verified.code(0).count("damaged"), 0);
        work.tell(&format!("other disk: {other_disk}"), began);
    });
}

/// What others do beside the commands.
#[derive(Default)]
struct Beside {
    done: AtomicBool,
    words: Mutex<BTreeSet<String>>,
    failed: Mutex<Option<String>>,
    reads: Mutex<u64>,
}

impl Beside {
    fn fail(&self, text: String) {
        self.failed.lock().unwrap().get_or_insert(text);
        self.done.store(true, Ordering::SeqCst);
    }

    fn goes_on(&self) -> bool {
        !self.done.load(Ordering::SeqCst)
    }

    fn read(&self, hot: &Path, contents: &Contents) {
        while self.goes_on() {
            for (path, bytes) in contents {
                match fs::read(hot.join(path)) {
                    Ok(found) if found == *bytes => {}
                    Ok(found) => self.fail(format!("{}: {} bytes, or other ones", path.display(), found.len())),
                    Err(error) => self.fail(format!("{}: {error}", path.display())),
                }
            }
            for day in DAYS {
                match fs::read_dir(hot.join(day)).map(Iterator::count) {
                    Ok(count) if count > FILES as usize * 4 / 5 => {}
                    answer => self.fail(format!("{day}: {answer:?}")),
                }
            }
            *self.reads.lock().unwrap() += 1;
        }
    }

    /// Appends through a descriptor that it keeps, and makes files in a directory that it keeps as its own; looks anew now and then.
    fn write(&self, hot: &Path) {
        let mut random = Stream::new(77);
        let mut number = 0u64;
        while self.goes_on() {
            let day = hot.join(DAYS[random.below(2) as usize]);
            let opened =
                OpenOptions::new().append(true).create(true).open(day.join("log")).and_then(|log| Ok((log, File::open(&day)?)));
            let (mut log, inside) = match opened {
                Ok(opened) => opened,
                Err(error) => return self.fail(format!("{}: {error}", day.display())),
            };
            for _ in 0..8 {
                let word = format!("word-{number}");
                number += 1;
                let within = PathBuf::from(format!("/proc/self/fd/{}", inside.as_raw_fd()));
                let written = match random.below(3) {
                    0 => fs::write(within.join(&word), format!("{word}\n")),
                    1 => fs::write(day.join(format!("through-{word}")), format!("{word}\n")),
                    _ => log.write_all(format!("{word}\n").as_bytes()),
                };
                match written {
                    Ok(()) => {
                        self.words.lock().unwrap().insert(word);
                    }
                    Err(error) => self.fail(format!("{word}: {error}")),
                }
                std::thread::sleep(PACE);
            }
        }
    }
}

#[test]
fn readers_and_writers_beside_archiving_that_is_killed_miss_nothing_and_lose_nothing() {
    on_each_disk(|server, contents, &Kills { wanted, seed, other_disk, began }| {
        let (beside, hot) = (Beside::default(), server.hot());
        // Nothing is removed that somebody may still read or write in: for so long it is kept in practice.
        let mut work = Work::new(server, FOR_YEARS, seed);
        std::thread::scope(|scope| {
            scope.spawn(|| beside.read(&hot, contents));
            scope.spawn(|| beside.write(&hot));
            let kill = || {
                while work.killed() < wanted.div_ceil(4) && beside.goes_on() {
                    for _ in 0..IN_A_ROUND {
                        work.kill_one();
                    }
                    work.complete(&[0, 1, 2]);
                }
            };
            let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(kill));
            beside.done.store(true, Ordering::SeqCst);
            if let Err(panic) = killed {
                std::panic::resume_unwind(panic);
            }
        });
        assert_eq!(beside.failed.lock().unwrap().take(), None, "seed {seed}");
        // Nobody writes any more: what is late is brought over, and then what was kept goes.
        for _ in 0..3 {
            run(server.command("run", server.cold(), &["--outside-links", "rewrite"]).env("DRIFTLESS_NOW", LATER)).code(0);
        }
        server.assert_one_copy(&DAYS, "at the end");
        assert_readable(server, contents, "at the end");
        server.lab.sync(&[]).code(0).without_conflicts();
        server.assert_equal();
        server.assert_no_event();
        let written = beside.words.lock().unwrap();
        for root in ["a", "b"] {
            let found = words(&server.lab.root(root));
            let lost: Vec<_> = written.difference(&found).collect();
            assert!(lost.is_empty(), "seed {seed}: {} of {} words are lost in {root}: {lost:?}", lost.len(), written.len());
        }
        work.tell(
            &format!(
                "other disk: {other_disk}, beside {} rounds of a reader, {} words",
                beside.reads.lock().unwrap(),
                written.len()
            ),
            began,
        );
    });
}

/// Lines of all files in the days that are written to.
fn words(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for day in &DAYS[..2] {
        for entry in fs::read_dir(root.join(day)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().contains("word") || entry.file_name().to_string_lossy().starts_with("log") {
                found.extend(fs::read_to_string(entry.path()).unwrap().lines().map(str::to_owned));
            }
        }
    }
    found
}
