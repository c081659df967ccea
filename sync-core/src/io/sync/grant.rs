//! What another machine may do with a folder, for as long as its run lasts: a grant that is taken back or changed ends the run.

use super::SyncError;
use crate::io::mutex::lock;
use crate::peer::{Mode, Name};
use crate::plan::Item;
use crate::report::{Done, Monitor, OnItsWay, Phase, Problem};
use crate::wire::Refusal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often it is looked again, while work goes on, whether the grant still stands.
const LOOK: Duration = Duration::from_secs(1);

/// What the other machine may do with a folder, at this moment.
pub type Grants<'a> = dyn Fn(&Name) -> Option<Mode> + Sync + 'a;

/// A grant, as it was when the run began.
pub(super) struct Grant<'a> {
    grants: &'a Grants<'a>,
    folder: Name,
    pub(super) mode: Mode,
    every: Duration,
    looked: Mutex<Looked>,
}

struct Looked {
    at: Instant,
    stands: bool,
}

impl<'a> Grant<'a> {
    /// The folder is granted in this mode.
    pub(super) fn new(grants: &'a Grants<'a>, folder: Name, mode: Mode) -> Grant<'a> {
        Grant { grants, folder, mode, every: LOOK, looked: Mutex::new(Looked { at: Instant::now(), stands: true }) }
    }

    /// Does it still stand? Once it did not, the run is over.
    pub(super) fn check(&self) -> Result<(), SyncError> {
        let now = (self.grants)(&self.folder);
        let mut looked = lock(&self.looked);
        looked.at = Instant::now();
        looked.stands &= now == Some(self.mode);
        if looked.stands {
            return Ok(());
        }
        drop(looked);
        let (folder, before) = (&self.folder, self.mode);
        let what = match now {
            None => format!("the grant of {folder} to this machine was taken back while its run was under way"),
            Some(_) => {
                format!("the grant of {folder} to this machine, which was {before}, was changed while its run was under way")
            }
        };
        let text = format!("{what}; what was done before is recorded. Run again if it may do what it is to do");
        Err(SyncError::Refuse { code: Refusal::NotGranted, text })
    }

    /// As [`Grant::check`], at most so often; for who asks all the time.
    fn stands(&self) -> bool {
        let Looked { at, stands } = *lock(&self.looked);
        if !stands || at.elapsed() < self.every { stands } else { self.check().is_ok() }
    }
}

/// The machine's own monitor, for work that ends with its grant.
pub(super) struct WhileGranted<'a> {
    pub(super) own: &'a dyn Monitor,
    pub(super) grant: &'a Grant<'a>,
    /// And with something else that must stand.
    pub(super) stands: &'a (dyn Fn() -> bool + Sync),
}

impl Monitor for WhileGranted<'_> {
    fn phase(&self, phase: Phase, files: Option<u64>, bytes: Option<u64>) {
        self.own.phase(phase, files, bytes);
    }

    fn advance(&self, files: u64, bytes: u64) {
        self.own.advance(files, bytes);
    }

    fn on_their_way(&self, files: &[OnItsWay]) {
        self.own.on_their_way(files);
    }

    fn problem(&self, problem: &Problem) {
        self.own.problem(problem);
    }

    fn item(&self, item: &Item, here: usize, done: Done) {
        self.own.item(item, here, done);
    }

    fn wants_items(&self) -> bool {
        self.own.wants_items()
    }

    fn notice(&self, text: &str) {
        self.own.notice(text);
    }

    fn cancelled(&self) -> bool {
        self.own.cancelled() || !self.grant.stands() || !(self.stands)()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Silent;

    #[test]
    fn work_goes_on_under_the_grant_that_it_began_with_and_no_other() {
        for (now, word) in [(None, "taken back"), (Some(Mode::ReceiveOnly), "changed")] {
            let granted = Mutex::new(Some(Mode::TwoWay));
            let grants = |_: &Name| *lock(&granted);
            let grant = Grant { every: Duration::ZERO, ..Grant::new(&grants, "folder".parse().unwrap(), Mode::TwoWay) };
            let monitor = WhileGranted { own: &Silent, grant: &grant, stands: &|| true };
            assert!(!monitor.cancelled() && grant.check().is_ok());
            *lock(&granted) = now;
            assert!(monitor.cancelled());
            *lock(&granted) = Some(Mode::TwoWay);
            assert!(monitor.cancelled(), "a run that was to end does not go on");
            *lock(&granted) = now;
            let told = grant.check().unwrap_err().to_string();
            assert!(told.contains(word), "{told}");
        }
    }
}
