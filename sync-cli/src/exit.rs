//! The one mapping from results and errors to exit codes.

use std::process::ExitCode;
use sync_agent::config::ConfigError;
use sync_agent::control::{ControlError, Refused};
use sync_agent::service::ServiceError;
use sync_core::io::sync::SyncError;

/// How a command ended, as its caller sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The roots are in sync, or the command did what was asked.
    InSync = 0,
    /// Finished, and something was left as it is: open conflicts, or changes that were only looked at.
    Skipped = 1,
    /// Finished, and some paths failed.
    Failed = 2,
    /// Could not run or finish: a guard, a missing root, an unreachable output.
    CouldNotRun = 3,
    /// The command line, an ignore rule or a configuration makes no sense.
    Usage = 64,
    /// The user stopped the run.
    Interrupted = 130,
}

/// An error with its causes, each told once: many say their cause in their own words already.
pub(crate) fn words(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |told, cause| match cause.to_string() {
        cause if told.is_empty() => cause,
        cause if told.contains(&cause) => told,
        cause => format!("{told}: {cause}"),
    })
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// The command line makes no sense, as found after clap accepted it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

impl Exit {
    /// The code of an error.
    pub(crate) fn of_error(error: &anyhow::Error) -> Exit {
        if error.is::<Usage>() {
            return Exit::Usage;
        }
        if let Some(ServiceError::Config(ConfigError::Text { .. })) = error.downcast_ref() {
            return Exit::Usage;
        }
        match error.downcast_ref::<ControlError>().map(|error| error.kind) {
            Some(Refused::Configuration) => return Exit::Usage,
            Some(_) => return Exit::CouldNotRun,
            None => {}
        }
        match error.downcast_ref::<SyncError>() {
            Some(SyncError::Cancelled) => Exit::Interrupted,
            Some(SyncError::Rule(_) | SyncError::RuleFile { .. }) => Exit::Usage,
            _ => Exit::CouldNotRun,
        }
    }

    /// The code of a run that came to its end.
    pub(crate) fn of_run(in_sync: bool, failed: u64) -> Exit {
        match (failed, in_sync) {
            (1.., _) => Exit::Failed,
            (0, true) => Exit::InSync,
            (0, false) => Exit::Skipped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_was_told_already_is_not_told_again() {
        let cause = anyhow::anyhow!("no such file");
        assert_eq!(words(&cause.context("cannot open x: no such file")), "cannot open x: no such file");
        let cause = anyhow::anyhow!("no such file");
        assert_eq!(words(&cause.context("cannot open x").context("cannot run")), "cannot run: cannot open x: no such file");
    }

    #[test]
    fn every_error_has_its_code() {
        for (error, exit) in [
            (anyhow::Error::from(SyncError::Guard(String::new())), Exit::CouldNotRun),
            (SyncError::Root(String::new()).into(), Exit::CouldNotRun),
            (SyncError::Cancelled.into(), Exit::Interrupted),
            (Usage(String::new()).into(), Exit::Usage),
            (anyhow::anyhow!("anything else"), Exit::CouldNotRun),
            (ServiceError::Config(ConfigError::Text { path: "x".into(), faults: Vec::new() }).into(), Exit::Usage),
            (ServiceError::Config(ConfigError::Unfit { path: "x".into(), why: String::new() }).into(), Exit::CouldNotRun),
            (ControlError::new(Refused::Configuration, "").into(), Exit::Usage),
            (ControlError::new(Refused::NoSuchFolder, "").into(), Exit::CouldNotRun),
            (anyhow::Error::from(SyncError::Cancelled).context("while scanning"), Exit::Interrupted),
        ] {
            assert_eq!(Exit::of_error(&error), exit, "{error:?}");
        }
    }

    #[test]
    fn a_failed_path_weighs_more_than_an_open_conflict() {
        assert_eq!(Exit::of_run(false, 1), Exit::Failed);
        assert_eq!(Exit::of_run(true, 1), Exit::Failed);
        assert_eq!(Exit::of_run(false, 0), Exit::Skipped);
        assert_eq!(Exit::of_run(true, 0), Exit::InSync);
    }
}
