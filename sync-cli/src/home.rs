//! Where this machine's identity, peers and configuration are, and who started the agent: the one place that reads the environment
//! for it.

use crate::render::root;
use anyhow::{Context, Result, bail};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use sync_agent::Supervisor;
use sync_agent::config::CONFIG_FILE;
use sync_core::io::home::Home;

/// Where a configuration for the whole machine is.
const SYSTEM_FOLDER: &str = "/etc/driftless";
/// The folder of the agent that the machine's service runs: root means that one, where it is.
const SERVICE_FOLDER: &str = "/var/lib/driftless";

/// Opens the folder, made if it is not there: `DRIFTLESS_HOME`; for root that of the service, if there is one; or `driftless` in the
/// user's configuration.
pub(crate) fn open() -> Result<Home> {
    Ok(Home::open(&place()?)?)
}

/// Where the folder is, whether it is there or not.
pub(crate) fn place() -> Result<PathBuf> {
    let service = || Path::new(SERVICE_FOLDER).is_dir() && rustix::process::geteuid().is_root();
    folder(variable, service).context("cannot tell where this machine's identity is: set DRIFTLESS_HOME, or HOME")
}

/// Where an agent of this machine may have its folder: the one of this user's commands first, then the service's.
pub(crate) fn places() -> Result<Vec<PathBuf>> {
    let own = place()?;
    let service = PathBuf::from(SERVICE_FOLDER);
    let other = (own != service).then_some(service);
    Ok([own].into_iter().chain(other).collect())
}

/// The agent's configuration: what was asked for, or the first that is there. One that cannot be looked at counts as there, so that
/// it is told and not passed over.
pub(crate) fn configuration(home: &Path, asked: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = asked {
        return Ok(path.to_owned());
    }
    if let Some(path) = configuration_there(home) {
        return Ok(path);
    }
    let [own, system] = configurations(home).map(|path| root(&path));
    bail!("no configuration: neither {own} nor {system} is there; driftless agent init writes a first one")
}

/// The agent's configuration, if there is one.
pub(crate) fn configuration_there(home: &Path) -> Option<PathBuf> {
    configurations(home).into_iter().find(|path| path.try_exists().unwrap_or(true))
}

fn configurations(home: &Path) -> [PathBuf; 2] {
    [home.join(CONFIG_FILE), Path::new(SYSTEM_FOLDER).join(CONFIG_FILE)]
}

/// Whoever supervises this process, as systemd tells by the environment.
pub(crate) fn supervisor() -> Supervisor {
    let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
    let number = |name: &str| text(name).and_then(|value| value.parse::<u64>().ok());
    // The watchdog may be meant for the process that started this one.
    let mine = text("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
    let watchdog = number("WATCHDOG_USEC").filter(|us| mine && *us > 0).map(Duration::from_micros);
    Supervisor { socket: variable("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()), watchdog }
}

/// Does stderr go to the journal? `JOURNAL_STREAM` has the device and inode of what systemd connected; stderr may have been turned
/// elsewhere since.
pub(crate) fn talks_to_journal() -> bool {
    let told = variable("JOURNAL_STREAM").and_then(|value| value.into_string().ok());
    let told = told.as_deref().and_then(|value| value.split_once(':'));
    let Some((device, inode)) = told.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?))) else {
        return false;
    };
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|found| (found.st_dev, found.st_ino) == (device, inode))
}

/// The clock of archiving rules where `DRIFTLESS_NOW` sets it, ns since 1970: for trials and tests.
pub(crate) fn trial_time() -> Result<Option<i64>, String> {
    let Some(value) = variable("DRIFTLESS_NOW").filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = value.to_string_lossy();
    let wrong = || format!("DRIFTLESS_NOW: {text:?} is no time of RFC 3339, such as 2026-03-09T00:00:00Z");
    let parsed = chrono::DateTime::parse_from_rfc3339(&text).map_err(|_| wrong())?;
    parsed.timestamp_nanos_opt().map(Some).ok_or_else(wrong)
}

/// Is a variable set? One that this command sets for processes that it begins itself.
pub(crate) fn is_set(name: &str) -> bool {
    variable(name).is_some()
}

#[allow(clippy::disallowed_methods, reason = "the one place")]
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name)
}

/// A relative folder would be another one in every directory; of the two variables with a specification, it is to be ignored.
fn folder(variable: impl Fn(&str) -> Option<OsString>, is_service: impl Fn() -> bool) -> Option<PathBuf> {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let absolute = |name: &str| given(name).filter(|path| path.is_absolute());
    let configuration = || absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    let service = || is_service().then(|| PathBuf::from(SERVICE_FOLDER));
    given("DRIFTLESS_HOME").or_else(service).or_else(|| Some(configuration()?.join(Path::new("driftless"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_particular_place_wins() {
        for (set, service, expected) in [
            (&[("DRIFTLESS_HOME", "/d"), ("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")][..], true, Some("/d")),
            (&[("DRIFTLESS_HOME", ""), ("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")], false, Some("/x/driftless")),
            (&[("DRIFTLESS_HOME", ""), ("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")], true, Some(SERVICE_FOLDER)),
            (&[("XDG_CONFIG_HOME", "x"), ("HOME", "/h")], false, Some("/h/.config/driftless")),
            (&[("HOME", "")], false, None),
            (&[], true, Some(SERVICE_FOLDER)),
        ] {
            let variable = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            assert_eq!(folder(variable, || service), expected.map(PathBuf::from), "{set:?} {service}");
        }
    }
}
