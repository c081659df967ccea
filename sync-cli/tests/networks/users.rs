//! Users who change a tree at random. Whatever they take away they keep beside the tree, so that it is known what it was.

use crate::ledger::{Content, Ledger};
use anyhow::{Context as _, Result, bail, ensure};
use blake3::Hash;
use fixtures::bytes::Stream;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder that everybody changes.
const SHARED: &str = "shared";
/// Files and folders of each name that are made.
const NAMES: u64 = 14;
const FOLDERS: u64 = 5;
const MODES: [u32; 3] = [0o644, 0o600, 0o755];

/// A user of one machine.
pub(crate) struct User {
    name: String,
    root: PathBuf,
    /// On the same file system, outside of the tree.
    aside: PathBuf,
    ledger: Arc<Ledger>,
    random: Stream,
    number: u64,
    /// What stands in the folder that nobody else changes.
    own: BTreeMap<String, Hash>,
    /// How often each kind of change was made.
    pub(crate) done: BTreeMap<&'static str, u64>,
}

impl User {
    pub(crate) fn new(name: &str, root: &Path, aside: &Path, ledger: &Arc<Ledger>, seed: u64) -> Result<User> {
        fs::create_dir_all(aside)?;
        Ok(User {
            name: name.to_owned(),
            root: root.to_owned(),
            aside: aside.to_owned(),
            ledger: Arc::clone(ledger),
            random: Stream::new(seed),
            number: 0,
            own: BTreeMap::new(),
            done: BTreeMap::new(),
        })
    }

    /// A number from 0 to `below - 1`.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.random.below(below)
    }

    /// The folder that nobody else changes.
    pub(crate) fn own_folder(&self) -> String {
        format!("own-{}", self.name)
    }

    /// Somewhere to put what is taken away.
    fn spare(&mut self) -> PathBuf {
        self.number += 1;
        self.aside.join(self.number.to_string())
    }

    fn content(&mut self) -> Content {
        let size = match self.below(40) {
            0 => 1_500_000 + self.below(2_000_000),
            1..4 => 20_000 + self.below(200_000),
            _ => 24 + self.below(3_000),
        };
        self.ledger.content(usize::try_from(size).unwrap())
    }

    /// One change.
    pub(crate) fn act(&mut self) -> Result<()> {
        let what = if self.below(3) == 0 { self.act_alone()? } else { self.act_with_others()? };
        *self.done.entry(what).or_default() += 1;
        Ok(())
    }

    /// In the shared folder whatever is there may go at any moment.
    fn act_with_others(&mut self) -> Result<&'static str> {
        let (files, folders) = self.shared();
        let new = |user: &mut User| {
            let folder = match user.below(4) {
                0 => format!("d{}/d{}", user.below(FOLDERS), user.below(FOLDERS)),
                _ => format!("d{}", user.below(FOLDERS)),
            };
            format!("{SHARED}/{folder}/f{}.txt", user.below(NAMES))
        };
        let fresh = new(self);
        let file = if files.is_empty() { fresh.clone() } else { files[self.index(files.len())].clone() };
        let folder = if folders.is_empty() { SHARED.to_owned() } else { folders[self.index(folders.len())].clone() };
        // There are never so many that everything takes long.
        let many = files.len() > 150;
        Ok(match self.below(100) {
            0..20 if !many => done(self.put(&fresh)?, "create"),
            20..40 => done(self.put(&file)?, "replace"),
            40..55 => done(self.write_into(&file)?.is_some(), "write"),
            55..65 => done(self.rename(&file, &fresh)?, "rename"),
            65..73 => done(self.chmod(&file)?, "chmod"),
            73..76 => done(self.make_folder(&fresh)?, "mkdir"),
            76..80 => {
                let to = format!("{SHARED}/d{}/d{}", self.below(FOLDERS), self.below(FOLDERS));
                done(!to.starts_with(&folder) && !folder.starts_with(&to) && self.rename(&folder, &to)?, "rename folder")
            }
            80..82 => done(folder != SHARED && self.take_away(&folder)?, "delete folder"),
            _ => done(self.take_away(&file)?, "delete"),
        })
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    /// Files and folders of the shared folder, as far as they stay while they are listed.
    fn shared(&self) -> (Vec<String>, Vec<String>) {
        let (mut files, mut folders, mut open) = (Vec::new(), Vec::new(), vec![SHARED.to_owned()]);
        while let Some(folder) = open.pop() {
            let Ok(entries) = fs::read_dir(self.root.join(&folder)) else { continue };
            for entry in entries.flatten() {
                let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        open.push(path.clone());
                        folders.push(path);
                    }
                    Ok(kind) if kind.is_file() => files.push(path),
                    _ => {}
                }
            }
        }
        files.sort();
        folders.sort();
        (files, folders)
    }

    /// In the own folder everything stands as this user left it.
    fn act_alone(&mut self) -> Result<&'static str> {
        let own = self.own_folder();
        let paths: Vec<String> = self.own.keys().cloned().collect();
        let fresh = format!("d{}/f{}", self.below(FOLDERS), self.below(3 * NAMES));
        let path = if paths.is_empty() { fresh.clone() } else { paths[self.index(paths.len())].clone() };
        let there = format!("{own}/{path}");
        match self.below(10) {
            0..3 => {
                let content = self.content();
                ensure!(self.put_content(&format!("{own}/{fresh}"), &content)?, "{own}/{fresh} cannot be written");
                self.own.insert(fresh, content.hash);
                Ok("own create")
            }
            3..6 if self.own.contains_key(&path) => {
                let written = self.write_into(&there)?.with_context(|| format!("{there} is gone"))?;
                self.own.insert(path, written);
                Ok("own write")
            }
            6..8 if self.own.contains_key(&path) && !self.own.contains_key(&fresh) => {
                ensure!(self.rename(&there, &format!("{own}/{fresh}"))?, "{there} cannot be renamed to {own}/{fresh}");
                let hash = self.own.remove(&path).context("it is there")?;
                self.own.insert(fresh, hash);
                Ok("own rename")
            }
            8 if self.own.contains_key(&path) => {
                ensure!(self.take_away(&there)?, "{there} is gone");
                self.own.remove(&path);
                Ok("own delete")
            }
            9 => {
                let (from, to) = (format!("d{}", self.below(FOLDERS)), format!("e{}", self.below(FOLDERS)));
                if !self.rename(&format!("{own}/{from}"), &format!("{own}/{to}"))? {
                    return Ok("own rename folder, not");
                }
                let moved: Vec<String> = self.own.keys().filter(|path| path.starts_with(&format!("{from}/"))).cloned().collect();
                for path in moved {
                    let hash = self.own.remove(&path).context("it is there")?;
                    self.own.insert(format!("{to}{}", &path[from.len()..]), hash);
                }
                Ok("own rename folder")
            }
            _ => Ok("own nothing"),
        }
    }

    /// Is the own folder as this user left it?
    pub(crate) fn check_own(&self, root: &Path) -> Result<()> {
        let folder = root.join(self.own_folder());
        let mut found = BTreeMap::new();
        let mut open = vec![folder.clone()];
        while let Some(next) = open.pop() {
            let entries = match fs::read_dir(&next) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let name = path.strip_prefix(&folder)?.to_string_lossy().into_owned();
                    found.insert(name, blake3::hash(&fs::read(&path)?));
                }
            }
        }
        if found != self.own {
            let paths = found.keys().chain(self.own.keys());
            let other: Vec<String> = paths
                .filter(|path| found.get(*path) != self.own.get(*path))
                .map(|path| format!("{path}: {:?}, and not {:?}", found.get(path), self.own.get(path)))
                .collect();
            bail!("{} was changed by nobody else, and is another:\n{}", folder.display(), other.join("\n"));
        }
        Ok(())
    }

    fn put(&mut self, path: &str) -> Result<bool> {
        let content = self.content();
        self.put_content(path, &content)
    }

    /// As editors do: a new file takes the name. What had it is kept.
    fn put_content(&mut self, path: &str, content: &Content) -> Result<bool> {
        let (at, spare) = (self.root.join(path), self.spare());
        if !self.make_folder(path)? {
            return Ok(false);
        }
        fs::write(&spare, &content.bytes)?;
        self.ledger.writes(content, &format!("{} {path}", self.name));
        for flags in [RenameFlags::EXCHANGE, RenameFlags::NOREPLACE] {
            match renameat_with(CWD, &spare, CWD, &at, flags) {
                // A folder that stands there is taken away with all that it holds.
                Ok(()) => return Ok(true),
                Err(Errno::NOENT | Errno::EXIST) => {}
                Err(Errno::NOTDIR) => break,
                Err(error) => return Err(error).with_context(|| format!("cannot put {path}")),
            }
        }
        self.ledger.not_written(content);
        fs::remove_file(&spare)?;
        Ok(false)
    }

    /// Writes into a file that is there: as long as it was, longer, or another length. What was written, if it is.
    fn write_into(&mut self, path: &str) -> Result<Option<Hash>> {
        let mut file = match OpenOptions::new().read(true).write(true).open(self.root.join(path)) {
            Ok(file) => file,
            Err(error) if is_other_tree(&error) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open {path}")),
        };
        let (modified, mut old) = (file.metadata()?.modified()?, Vec::new());
        file.read_to_end(&mut old)?;
        let content = match self.below(3) {
            0 => self.content(),
            1 => self.ledger.content(old.len().max(24)),
            _ => {
                let more = self.ledger.content(100);
                let bytes = [&old[..], &more.bytes].concat();
                Content { hash: blake3::hash(&bytes), bytes }
            }
        };
        // A user who sees the old content replaces it.
        self.ledger.replaced(&old, &format!("{} {path}", self.name));
        self.ledger.writes(&content, &format!("{} {path} in place", self.name));
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&content.bytes)?;
        file.set_len(content.bytes.len() as u64)?;
        if content.bytes.len() == old.len() && self.below(2) == 0 {
            file.set_modified(modified)?;
        }
        Ok(Some(content.hash))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<bool> {
        let (there, here) = (self.root.join(from), self.root.join(to));
        if !self.make_folder(to)? {
            return Ok(false);
        }
        self.ledger.note(&format!("{} renames {from} to {to}", self.name));
        match renameat_with(CWD, &there, CWD, &here, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            // A folder does not go below itself.
            Err(Errno::NOENT | Errno::EXIST | Errno::NOTDIR | Errno::INVAL) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot rename {from} to {to}")),
        }
    }

    fn take_away(&mut self, path: &str) -> Result<bool> {
        let spare = self.spare();
        self.ledger.note(&format!("{} deletes {path} to {}", self.name, spare.display()));
        match fs::rename(self.root.join(path), spare) {
            Ok(()) => Ok(true),
            Err(error) if is_other_tree(&error) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot take away {path}")),
        }
    }

    fn chmod(&mut self, path: &str) -> Result<bool> {
        let mode = MODES[self.index(MODES.len())];
        match fs::set_permissions(self.root.join(path), fs::Permissions::from_mode(mode)) {
            Ok(()) => Ok(true),
            Err(error) if is_other_tree(&error) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot change the mode of {path}")),
        }
    }

    /// The folder that a path is to stand in; false if something else is in the way, or it goes at the same moment.
    fn make_folder(&mut self, path: &str) -> Result<bool> {
        let at = self.root.join(path);
        match fs::create_dir_all(at.parent().context("no path is the root")?) {
            Ok(()) => Ok(true),
            Err(error) if is_other_tree(&error) || error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot make the folder of {path}")),
        }
    }
}

fn done(done: bool, what: &'static str) -> &'static str {
    if done { what } else { "came too late" }
}

/// Somebody else was quicker.
fn is_other_tree(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory)
}
