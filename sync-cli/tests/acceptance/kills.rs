//! SIGKILL at any moment of real runs.

use crate::lab::{Lab, kept, run, setting, snapshot};
use fixtures::bytes::Stream;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

const FOLDERS: u64 = 30;
const FILES: u64 = 40;
/// Kills of one round: recovery is killed, too.
const IN_A_ROUND: u64 = 4;

type Contents = BTreeMap<String, Vec<u8>>;

struct Round<'a> {
    lab: &'a Lab,
    random: &'a mut Stream,
    expected: &'a mut Contents,
}

impl Round<'_> {
    fn content(&mut self) -> Vec<u8> {
        // Small ones and some of many blocks; unique each, so that what is lost is known by its hash.
        let size = if self.random.below(40) == 0 { 300_000 } else { 20 + self.random.below(3_000) };
        fixtures::bytes::noise(self.random.word(), size as usize)
    }

    /// Files of one root: each side edits those whose number in the name is even or odd.
    fn pick(&mut self, side: usize) -> Option<String> {
        let mine: Vec<&String> = self.expected.keys().filter(|path| owner(path) == side).collect();
        let at = self.random.below(mine.len() as u64) as usize;
        mine.get(at).map(|path| (*path).clone())
    }

    fn new_path(&mut self, side: usize) -> String {
        format!("d{}/{}-{:x}-{side}", self.random.below(FOLDERS), ["s", "t"][side], self.random.word())
    }

    /// Edits, creations, deletions and renames of one side.
    fn edit(&mut self, root: &str, side: usize) {
        for _ in 0..60 {
            let Some(path) = self.pick(side) else { continue };
            match self.random.below(4) {
                0 => {
                    self.lab.remove(root, &path);
                    self.expected.remove(&path);
                }
                1 => {
                    let to = self.new_path(side);
                    fs::create_dir_all(self.lab.at(root, &to).parent().unwrap()).unwrap();
                    self.lab.rename(root, &path, &to);
                    let content = self.expected.remove(&path).unwrap();
                    self.expected.insert(to, content);
                }
                2 => {
                    let to = self.new_path(side);
                    let content = self.content();
                    self.lab.write(root, &to, &content);
                    self.expected.insert(to, content);
                }
                _ => {
                    let content = self.content();
                    self.lab.write(root, &path, &content);
                    self.expected.insert(path, content);
                }
            }
        }
        self.rename_folder(root, side);
    }

    /// A folder that only this side uses gets another name.
    fn rename_folder(&mut self, root: &str, side: usize) {
        let own: BTreeSet<String> = self
            .expected
            .keys()
            .filter_map(|path| path.split_once('/').map(|(dir, _)| dir.to_owned()))
            .filter(|dir| dir.starts_with(["own0", "own1"][side]))
            .collect();
        let Some(from) = own.into_iter().next() else { return };
        let to = format!("own{side}-{:x}", self.random.word());
        self.lab.rename(root, &from, &to);
        let moved: Vec<String> = self.expected.keys().filter(|path| path.starts_with(&format!("{from}/"))).cloned().collect();
        for path in moved {
            let content = self.expected.remove(&path).unwrap();
            self.expected.insert(path.replacen(&from, &to, 1), content);
        }
    }
}

fn owner(path: &str) -> usize {
    usize::from(path.ends_with('1'))
}

fn hashes(contents: &Contents) -> BTreeMap<PathBuf, Vec<u8>> {
    contents.iter().map(|(path, content)| (PathBuf::from(path), blake3::hash(content).as_bytes().to_vec())).collect()
}

fn files(lab: &Lab, root: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = snapshot(&lab.root(root)).into_iter();
    all.filter(|(_, held)| held.mode & 0o170_000 == 0o100_000).map(|(path, held)| (path, held.content)).collect()
}

/// Starts a run and kills it after the delay. Was it killed in time?
///
/// Nothing is waited for: the delay is the random moment itself, spread over the time that a whole run takes. A kill at
/// something that the run says would only ever come right after a line was flushed, never within a syncfs or a commit.
fn kill_after(lab: &Lab, delay: Duration) -> bool {
    let mut child = lab.command("a", "b").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(delay);
    let _ = child.kill();
    // If the other side is a process of its own, it goes as well, and nobody writes any more.
    lab.link.kill();
    child.wait().unwrap().signal() == Some(9)
}

#[test]
fn a_killed_run_loses_nothing_and_the_next_one_completes() {
    let wanted = setting("DRIFTLESS_TEST_KILLS", 40);
    let seed = setting("DRIFTLESS_TEST_SEED", 1);
    let lab = Lab::new();
    let mut random = Stream::new(seed);
    let mut expected = Contents::new();
    for folder in 0..FOLDERS {
        for file in 0..FILES {
            let side = file % 2;
            let path = if folder < 4 {
                format!("own{}-{folder}/{file}-{}", folder % 2, folder % 2)
            } else {
                format!("d{folder}/{file}-{side}")
            };
            let content = fixtures::bytes::noise(random.word(), 500);
            lab.write("a", &path, &content);
            expected.insert(path, content);
        }
    }
    // The first sync is killed as well.
    let (mut killed, mut took, mut first) = (0, Duration::from_millis(1500), true);
    while killed < wanted {
        let before = expected.clone();
        let contact = first;
        if !first {
            let mut round = Round { lab: &lab, random: &mut random, expected: &mut expected };
            round.edit("a", 0);
            round.edit("b", 1);
        }
        first = false;
        let (old, new) = (hashes(&before), hashes(&expected));
        for _ in 0..IN_A_ROUND {
            let delay = took.mul_f64(random.below(1_000) as f64 / 1_000.0);
            if !kill_after(&lab, delay) {
                break;
            }
            killed += 1;
            for root in ["a", "b"] {
                for (path, content) in files(&lab, root) {
                    let whole = old.get(&path) == Some(&content) || new.get(&path) == Some(&content);
                    assert!(whole, "seed {seed}, kill {killed}: {root}/{path:?} holds what nobody wrote");
                }
            }
        }
        if random.below(2) == 0 && !contact {
            // Nobody waits for a run to be repeated before going on. Only what was never brought cannot be edited yet.
            let mut round = Round { lab: &lab, random: &mut random, expected: &mut expected };
            round.edit("a", 0);
            round.edit("b", 1);
        }
        let new = hashes(&expected);
        let started = Instant::now();
        let ran = run(&mut lab.command("a", "b"));
        assert_eq!(ran.0.status.code(), Some(0), "seed {seed}, kill {killed}: {}{}", ran.stdout(), ran.stderr());
        ran.without_conflicts();
        took = (took + started.elapsed().max(Duration::from_millis(100))) / 2;
        assert!(
            files(&lab, "a") == new,
            "seed {seed}, kill {killed}: a is not as expected: {}",
            differing(&files(&lab, "a"), &new)
        );
        lab.assert_equal();
        lab.assert_quiet("a", "b", 0, &[]);
        let versions: BTreeSet<Vec<u8>> = kept(&lab.root("a")).into_iter().chain(kept(&lab.root("b"))).collect();
        let current: BTreeSet<&Vec<u8>> = new.values().collect();
        for (path, content) in &old {
            assert!(
                current.contains(content) || versions.contains(content),
                "seed {seed}, kill {killed}: the old {path:?} is lost"
            );
        }
        for root in ["a", "b"] {
            let stage = lab.at(root, ".driftless/stage");
            let left = fs::read_dir(&stage).map_or(0, Iterator::count);
            assert_eq!(left, 0, "seed {seed}, kill {killed}: {left} objects left in {stage:?}");
        }
    }
    eprintln!("{killed} runs killed, seed {seed}; a whole run takes {took:?}");
}

fn differing(found: &BTreeMap<PathBuf, Vec<u8>>, expected: &BTreeMap<PathBuf, Vec<u8>>) -> String {
    let missing: Vec<_> = expected.keys().filter(|path| !found.contains_key(*path)).take(5).collect();
    let extra: Vec<_> = found.keys().filter(|path| !expected.contains_key(*path)).take(5).collect();
    let other: Vec<_> = found.iter().filter(|(path, hash)| expected.get(*path).is_some_and(|e| e != *hash)).take(5).collect();
    format!("missing {missing:?}, too many {extra:?}, other content {other:?}")
}
