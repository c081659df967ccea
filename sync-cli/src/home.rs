//! Where this machine's identity and peers are: the one place that reads the environment for it.

use anyhow::{Context, Result};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use sync_core::io::home::Home;

/// Opens the folder, made if it is not there: `DRIFTLESS_HOME`, or `driftless` in the user's configuration.
pub(crate) fn open() -> Result<Home> {
    let folder = folder(variable).context("cannot tell where this machine's identity is: set DRIFTLESS_HOME, or HOME")?;
    Ok(Home::open(&folder)?)
}

#[allow(clippy::disallowed_methods, reason = "the one place")]
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name)
}

/// A relative folder would be another one in every directory; of the two variables with a specification, it is to be ignored.
fn folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let absolute = |name: &str| given(name).filter(|path| path.is_absolute());
    let configuration = || absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    given("DRIFTLESS_HOME").or_else(|| Some(configuration()?.join(Path::new("driftless"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_particular_variable_wins() {
        for (set, expected) in [
            (&[("DRIFTLESS_HOME", "/d"), ("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")][..], Some("/d")),
            (&[("DRIFTLESS_HOME", ""), ("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")], Some("/x/driftless")),
            (&[("XDG_CONFIG_HOME", "x"), ("HOME", "/h")], Some("/h/.config/driftless")),
            (&[("HOME", "")], None),
            (&[], None),
        ] {
            let variable = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            assert_eq!(folder(variable), expected.map(PathBuf::from), "{set:?}");
        }
    }
}
