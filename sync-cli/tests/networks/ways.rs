//! Which way content goes: around a lossy link, and back once it is healed.

use crate::lab::{Lab, PATIENCE, good, wait_until, write};
use anyhow::{Result, bail};
use fixtures::bytes::noise;
use std::time::Instant;

const ALL: [(usize, usize); 3] = [(0, 1), (1, 2), (0, 2)];
/// Of one file; nothing else comes to a half of it in the time that it takes.
const BYTES: usize = 200_000;
/// So many files of a row say which way content goes, if all but one agree.
const ROW: usize = 6;

/// How a file from the first machine came to the third.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Around,
}

struct Files {
    number: u64,
    ways: Vec<Way>,
}

impl Files {
    /// One more file, and the way that it took.
    fn send(&mut self, lab: &Lab) -> Result<()> {
        self.number += 1;
        let name = format!("{}", self.number);
        let before = (lab.bytes(0, 2), lab.bytes(1, 2));
        write(&lab.machines[0].at(&name), &noise(self.number, BYTES))?;
        wait_until("a file is everywhere", || Ok([1, 2].iter().all(|at| lab.machines[*at].at(&name).exists())))?;
        let direct = lab.bytes(0, 2) - before.0 > BYTES as u64 / 2;
        let around = lab.bytes(1, 2) - before.1 > BYTES as u64 / 2;
        // Both: it was begun one way, and came the other.
        let way = if around { Way::Around } else { Way::Direct };
        assert!(direct || around, "the file {name} came by no way");
        self.ways.push(way);
        Ok(())
    }

    fn settled(&self, way: Way) -> bool {
        let last = &self.ways[self.ways.len().saturating_sub(ROW)..];
        last.len() == ROW && last.iter().filter(|other| **other != way).count() <= 1
    }

    /// Files until they take that way.
    fn until(&mut self, lab: &Lab, way: Way) -> Result<()> {
        let begun = Instant::now();
        self.ways.clear();
        while !self.settled(way) {
            if begun.elapsed() > PATIENCE {
                bail!("content never goes {way:?}: {:?}\n{}", self.ways, lab.differences());
            }
            self.send(lab)?;
        }
        eprintln!("{way:?} after {:.0?} and {} files", begun.elapsed(), self.ways.len());
        Ok(())
    }

    /// Some files more, of which most take that way. On a machine that is busy elsewhere the better way may now and then be the slower
    /// one; then more files tell.
    fn stays(&mut self, lab: &Lab, way: Way) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.ways.clear();
            for _ in 0..2 * ROW {
                self.send(lab)?;
            }
            if self.ways.iter().filter(|other| **other == way).count() * 3 >= self.ways.len() * 2 {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("{way:?} no more: {:?}", self.ways);
            }
        }
    }
}

#[test]
fn content_goes_around_a_lossy_link_and_directly_again_once_it_is_healed() -> Result<()> {
    let Some(mut lab) = Lab::new(3, &ALL, "quiet = \"50ms\"")? else { return Ok(()) };
    lab.start_all()?;
    let mut files = Files { number: 0, ways: Vec::new() };
    files.send(&lab)?;
    lab.wait_in_sync()?;
    files.until(&lab, Way::Direct)?;
    lab.link(0, 2, good().losing(0.2));
    files.until(&lab, Way::Around)?;
    files.stays(&lab, Way::Around)?;
    lab.link(0, 2, good());
    files.until(&lab, Way::Direct)?;
    files.stays(&lab, Way::Direct)?;
    lab.wait_equal("all have all of it", |_| true)?;
    assert_eq!(lab.panics(), Vec::<String>::new());
    lab.stop_all()
}
