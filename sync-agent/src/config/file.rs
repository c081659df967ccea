//! Fetches the text of a configuration, and writes the first one.
#![allow(clippy::disallowed_methods, reason = "the configuration is no path below a root")]

use super::{Config, Fault, parse};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, open, renameat_with};
use rustix::process::geteuid;
use std::fs::{File, remove_file};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use sync_core::io::home::{Home, HomeError};
use sync_core::path::escape;
use sync_core::peer::Book;

/// The configuration's name in the home folder.
pub const CONFIG_FILE: &str = "agent.toml";
/// Longest configuration that is read, bytes.
const FILE_BYTES: u64 = 1 << 20;
const OTHERS_WRITE: u32 = 0o022;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The system refused.
    #[error("cannot {what} the configuration {}: {source}", shown(path))]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not a file that can be taken.
    #[error("the configuration {} {why}", shown(path))]
    Unfit {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The text makes no sense.
    #[error("{}", listed(path, faults))]
    Text {
        /// Which file.
        path: PathBuf,
        /// All that is wrong with it.
        faults: Vec<Fault>,
    },
    /// The known peers cannot be read.
    #[error(transparent)]
    Home(#[from] HomeError),
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

fn listed(path: &Path, faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(|fault| format!("{}:{fault}", shown(path))).collect();
    lines.join("\n")
}

/// Reads a configuration, and the known peers beside it.
///
/// # Errors
/// A file that is not there, or that others could have written, or a text that makes no sense.
pub fn load(path: &Path, home: &Home) -> Result<Config, ConfigError> {
    load_with(path, &home.book()?)
}

/// As [`load`], with known peers that were read before.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, book: &Book) -> Result<Config, ConfigError> {
    let text = read(path)?;
    parse(&text, book).map_err(|faults| ConfigError::Text { path: path.to_owned(), faults })
}

/// The whole text. It says who may do what here: nobody else may be able to write it.
fn read(path: &Path) -> Result<String, ConfigError> {
    let unfit = |why: String| ConfigError::Unfit { path: path.to_owned(), why };
    // A pipe is not waited for.
    let opened = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    let mut file = File::from(opened.map_err(|error| failed("open", path)(error.into()))?);
    let found = file.metadata().map_err(failed("look at", path))?;
    if !found.is_file() || found.len() > FILE_BYTES {
        return Err(unfit(format!("is not a file of at most {FILE_BYTES} bytes")));
    }
    let own = geteuid().as_raw();
    if found.uid() != own && found.uid() != 0 {
        return Err(unfit(format!("belongs to the user {}, neither to {own} nor to root", found.uid())));
    }
    if found.mode() & OTHERS_WRITE != 0 {
        let mode = found.mode() & 0o777;
        return Err(unfit(format!(
            "has mode {mode:04o}, so that others may change what this machine lets others do; chmod 644 it"
        )));
    }
    let mut bytes = Vec::new();
    let taken = std::io::Read::by_ref(&mut file).take(FILE_BYTES).read_to_end(&mut bytes);
    taken.map_err(failed("read", path))?;
    String::from_utf8(bytes).map_err(|_| unfit("is not UTF-8".into()))
}

/// Writes a configuration where there is none: whole, or not at all.
///
/// # Errors
/// A file that is there already, and whatever the system refuses.
pub fn create(path: &Path, text: &str) -> Result<(), ConfigError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let opened = open(&new, flags, Mode::from_raw_mode(0o600)).map_err(|error| failed("make", &new)(error.into()))?;
    let mut file = File::from(opened);
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("write", &new));
    let done = written.and_then(|()| match renameat_with(CWD, &new, CWD, path, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::EXIST) => {
            let why = "is there already, and is left as it is; to begin anew, move it away first".into();
            Err(ConfigError::Unfit { path: path.to_owned(), why })
        }
        done => done.map_err(|error| failed("make", path)(error.into())),
    });
    if done.is_err() {
        // What is told is why it was not made; a left-over bothers nobody.
        let _ = remove_file(&new);
    }
    done
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ConfigError + use<> {
    let path = path.to_path_buf();
    move |source| ConfigError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn home() -> (tempfile::TempDir, Home, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let path = dir.path().join(CONFIG_FILE);
        (dir, home, path)
    }

    #[test]
    fn a_configuration_is_made_once_and_read_back() {
        let (_dir, home, path) = home();
        create(&path, "name = \"a\"\n").unwrap();
        assert_eq!(load(&path, &home).unwrap().name.as_str(), "a");
        assert!(create(&path, "name = \"b\"\n").unwrap_err().to_string().contains("is there already"));
        assert_eq!(load(&path, &home).unwrap().name.as_str(), "a");
        assert_eq!(fs::read_dir(home.folder()).unwrap().count(), 1);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn every_mistake_comes_with_its_file_and_line() {
        let (_dir, home, path) = home();
        fs::write(&path, "nam = \"a\"\nlisten = 1\n").unwrap();
        let told = load(&path, &home).unwrap_err().to_string();
        let shown = path.display();
        let expected = [
            format!("{shown}:1: nam: unknown key; did you mean name?"),
            format!("{shown}:1: name: is missing: what this machine is called, such as name = \"web-1\""),
            format!("{shown}:2: listen: a list of texts in brackets is expected, not a number"),
        ];
        assert_eq!(told, expected.join("\n"));
    }

    #[test]
    fn a_file_that_others_may_write_or_that_is_none_is_refused() {
        let (dir, home, path) = home();
        fs::write(&path, "name = \"a\"\n").unwrap();
        for (mode, refused) in [(0o664, true), (0o646, true), (0o644, false), (0o600, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(load(&path, &home).is_err(), refused, "{mode:o}");
        }
        for (bytes, word) in [(vec![b'#'; (1 << 20) + 1], "at most"), (vec![0xff], "not UTF-8")] {
            fs::write(&path, bytes).unwrap();
            assert!(load(&path, &home).unwrap_err().to_string().contains(word), "{word}");
        }
        assert!(load(dir.path(), &home).unwrap_err().to_string().contains("is not a file"));
        assert!(load(&dir.path().join("none"), &home).unwrap_err().to_string().contains("cannot open the configuration"));
    }
}
