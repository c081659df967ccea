//! What changes between two runs.

use crate::cases::SEED;
use anyhow::{Context as _, Result};
use fixtures::bytes::{Stream, Texture};
use fixtures::dated::Dated;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

/// Times on ext4 have the grain of a clock tick, and unison looks at whole seconds: an edit must be older than that.
pub(crate) const PAST_THE_TICK: Duration = Duration::from_millis(1100);
/// Bytes of one scattered edit, and of what is put in front.
const EDIT: usize = 4 << 10;
const FRONT: usize = 1 << 20;

/// Every hundredth file, others in each round.
pub(crate) fn change_one_percent(a: &Path, shape: &Dated, round: u64) -> Result<()> {
    let mut stream = Stream::new(SEED + 100 + round);
    let mut bytes = vec![0; 8192];
    for file in (round % 100..shape.files).step_by(100) {
        let old = a.join(shape.path(file));
        let len = usize::try_from(512 + stream.below(7680))?;
        stream.fill(&mut bytes[..len], Texture::Noise);
        let at = match (file / 100) % 10 {
            8 => {
                fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
                continue;
            }
            9 => old.with_extension(format!("new{round}")),
            _ => old,
        };
        fs::write(&at, &bytes[..len]).with_context(|| format!("cannot write {}", at.display()))?;
    }
    Ok(())
}

/// A new file of noise.
pub(crate) fn write_noise(at: &Path, size: u64, seed: u64) -> Result<()> {
    let mut file = File::create_new(at).with_context(|| format!("cannot create {}", at.display()))?;
    let mut stream = Stream::new(seed);
    let mut buffer = vec![0; 1 << 20];
    let mut left = usize::try_from(size)?;
    while left > 0 {
        let len = left.min(buffer.len());
        stream.fill(&mut buffer[..len], Texture::Noise);
        file.write_all(&buffer[..len]).with_context(|| format!("cannot write {}", at.display()))?;
        left -= len;
    }
    Ok(())
}

/// Every hundredth part of a file is written over in place, in edits of 4 KiB anywhere in it.
pub(crate) fn scatter(at: &Path, seed: u64) -> Result<()> {
    let doing = || format!("cannot write into {}", at.display());
    let file = OpenOptions::new().write(true).open(at).with_context(doing)?;
    let size = file.metadata().with_context(doing)?.len();
    let mut stream = Stream::new(seed);
    let mut bytes = [0; EDIT];
    for _ in 0..size / EDIT as u64 / 100 {
        let offset = stream.below(size - EDIT as u64);
        stream.fill(&mut bytes, Texture::Noise);
        file.write_all_at(&bytes, offset).with_context(doing)?;
    }
    Ok(())
}

/// A file begins with 1 MiB of noise from now on, and then goes on as it was: written anew, as an editor does it.
pub(crate) fn insert_in_front(at: &Path, seed: u64) -> Result<()> {
    let doing = || format!("cannot write {} anew", at.display());
    let beside = at.with_extension("new");
    let mut new = File::create_new(&beside).with_context(doing)?;
    let mut front = vec![0; FRONT];
    Stream::new(seed).fill(&mut front, Texture::Noise);
    new.write_all(&front).with_context(doing)?;
    io::copy(&mut File::open(at).with_context(doing)?, &mut new).with_context(doing)?;
    fs::rename(&beside, at).with_context(doing)
}

/// Files of 4 KiB of noise, a hundred in a directory. Returns their bytes.
pub(crate) fn write_pages(root: &Path, files: u64, seed: u64) -> Result<u64> {
    for file in 0..files {
        let dir = root.join(format!("{:04}", file / 100));
        if file % 100 == 0 {
            fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        write_noise(&dir.join(format!("{file:06}.bin")), EDIT as u64, seed ^ file.wrapping_mul(0x9e37_79b9_7f4a_7c15))?;
    }
    Ok(files * EDIT as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_percent_of_the_files_change_in_three_ways() {
        let root = tempfile::tempdir().unwrap();
        let shape = Dated { per_day: 1000, ..Dated::tiny(2000, 1) };
        shape.write(root.path()).unwrap();
        let before = fixtures::Tree::read(root.path()).unwrap();
        change_one_percent(root.path(), &shape, 3).unwrap();
        let lines = fixtures::Compare::CONTENT.diff(&before, &fixtures::Tree::read(root.path()).unwrap());
        let count = |sign: char| lines.lines().filter(|line| line.starts_with(sign)).count();
        assert_eq!((count('~'), count('+'), count('-')), (16, 2, 2), "{lines}");
    }

    #[test]
    fn scattered_edits_change_a_hundredth_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().join("file");
        write_noise(&at, 4 << 20, 1).unwrap();
        let before = fs::read(&at).unwrap();
        scatter(&at, 2).unwrap();
        let after = fs::read(&at).unwrap();
        assert_eq!(before.len(), after.len());
        let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!((9 * EDIT..=10 * EDIT).contains(&changed), "{changed}");
    }

    #[test]
    fn what_was_in_a_file_follows_what_is_put_in_front() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().join("file");
        write_noise(&at, 10_000, 1).unwrap();
        let before = fs::read(&at).unwrap();
        insert_in_front(&at, 2).unwrap();
        let after = fs::read(&at).unwrap();
        assert_eq!(after.len(), FRONT + before.len());
        assert_eq!(&after[FRONT..], &before[..]);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn pages_are_as_many_as_were_asked_for() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(write_pages(root.path(), 250, 1).unwrap(), 250 * 4096);
        let found = crate::walk::count(root.path()).unwrap();
        assert_eq!((found.entries, found.bytes), (253, 250 * 4096));
    }
}
