//! Has a running agent call its peers anew, so that what is said of its links is how they are now.
#![allow(clippy::disallowed_methods, reason = "an agent has a deadline")]

use super::{Finding, MACHINE};
use crate::control::Client;
use crate::status::{Moment, Status};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use sync_core::path::escape;
use sync_core::peer::Id;

/// How long the agent may take to call all of them.
const PATIENCE: Duration = Duration::from_secs(12);
/// How often it is asked what came of it.
const GLANCE: Duration = Duration::from_millis(250);
/// The subject's one word.
const CHECK: &str = "calls";

/// Calls under way.
pub(super) struct Probing {
    client: Client,
    deadline: Instant,
    /// What was tried at this moment or later is news; or why there is none.
    since: Result<Moment, String>,
}

impl Probing {
    /// Has them begun.
    pub(super) fn begin(home: &Path) -> Probing {
        let client = Client::new(home);
        let since = match client.probe() {
            Ok(asked) => asked.map_err(|refused| refused.to_string()),
            Err(error) => Err(error.to_string()),
        };
        Probing { client, deadline: Instant::now() + PATIENCE, since }
    }

    /// Waits until each link was tried, and brings `status` up to date; what is to be said where that did not come to be.
    pub(super) fn finish(self, status: &mut Status) -> Option<Finding> {
        let since = match self.since {
            Ok(since) => since,
            Err(why) => return Some(warning(&why)),
        };
        loop {
            match self.client.status() {
                Ok(Ok(fresh)) => *status = fresh,
                Ok(Err(refused)) => return Some(warning(&refused.to_string())),
                Err(error) => return Some(warning(&error.to_string())),
            }
            let left = untried(status, since);
            if left.is_empty() {
                return None;
            }
            if Instant::now() >= self.deadline {
                let seconds = PATIENCE.as_secs();
                return Some(warning(&format!("it did not call {} within {seconds} s", names(status, &left))));
            }
            thread::sleep(GLANCE);
        }
    }
}

/// Whom this machine has not called since. Of whom it knows no address, or none that could be called, it calls nobody.
fn untried(status: &Status, since: Moment) -> Vec<Id> {
    let known = |id: Id| status.machines.iter().any(|machine| machine.id == id && !machine.addresses.is_empty());
    let own = status.links.iter().filter(|link| link.from == status.id);
    let open = own.filter(|link| link.tried.map_or_else(|| known(link.to), |tried| tried < since));
    open.map(|link| link.to).collect()
}

fn names(status: &Status, ids: &[Id]) -> String {
    // As it is called here; else as it calls itself.
    let peers = || status.folders.iter().flat_map(|folder| &folder.peers);
    let called = |id: &Id| peers().find(|peer| peer.id == *id).map(|peer| peer.name.to_string());
    let machine = |id: &Id| status.machines.iter().find(|machine| machine.id == *id).and_then(|machine| machine.name.clone());
    let name = |id: &Id| called(id).or_else(|| machine(id).map(|name| escape(name.as_bytes())));
    let names: Vec<String> = ids.iter().map(|id| name(id).unwrap_or_else(|| id.to_string())).collect();
    names.join(", ")
}

fn warning(why: &str) -> Finding {
    let text = format!("the agent has not tried all links anew: {why}; what is said of them may be minutes old");
    Finding::warning(CHECK, MACHINE, text, "ask again in a minute; driftless agent status tells how the agent is")
}

#[cfg(test)]
mod tests {
    use super::super::links::tests::{id, link, status};
    use super::*;

    #[test]
    fn links_are_waited_for_that_this_machine_can_try_and_has_not() {
        let mut status = status(4, Vec::new(), vec![link(1, 2, None, None), link(1, 3, None, None), link(2, 3, None, None)]);
        let since = Moment(5);
        assert_eq!(untried(&status, since), [id(2), id(3)]);
        status.links[0].tried = Some(Moment(4));
        status.links[1].tried = Some(Moment(5));
        assert_eq!(untried(&status, since), [id(2)]);
        status.links[0].tried = Some(Moment(6));
        assert_eq!(untried(&status, since), []);
        status.links[0].tried = None;
        status.machines[1].addresses.clear();
        assert_eq!(untried(&status, since), [], "nobody knows where it could be called");
    }

    #[test]
    fn an_agent_that_does_not_answer_is_told() {
        let home = tempfile::tempdir().unwrap();
        let mut status = status(1, Vec::new(), Vec::new());
        let found = Probing::begin(home.path()).finish(&mut status).unwrap();
        assert!(found.found.starts_with("the agent has not tried all links anew: "), "{found:?}");
    }
}
