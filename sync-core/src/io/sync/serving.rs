//! A run under way in a root of this machine that another machine asked for: its wishes, one after the other.

use super::carried::Carried;
use super::end::{End, LocalEnd, Pulled, RulesNow, ScanTerms, Surveyed};
use super::going::Going;
use super::grant::Grant;
use super::lookout::Noticed;
use super::opened::Opened;
use super::pulls::Terms;
use super::teller::while_told;
use super::wishes::next;
use super::{Options, Side, SyncError};
use crate::entry::AttrMask;
use crate::ignore::Rules;
use crate::io::channel::{Channel, ChannelError};
use crate::io::link::Connection;
use crate::io::remote::{Gate, PATIENCE, RemoteThere, identity};
use crate::io::speaker::Speaker;
use crate::io::there::{Facts, There};
use crate::path::RelPath;
use crate::peer::Mode;
use crate::plan::Item;
use crate::report::{Done, Monitor};
use crate::store::Filter;
use crate::wire::{self, Applied, Finished, Introduction, Message, Problem, Refusal, Scanned};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a run may ask for nothing: somebody may be looking at its plan. Meanwhile others wait for the folder.
const IDLE_RUN: Duration = Duration::from_secs(15 * 60);

/// What a run was asked for, in the words of this side. A is the asker, B this side.
pub(super) struct Asked {
    pub(super) options: Options,
    /// The attributes that both sides can bear.
    pub(super) mask: AttrMask,
    /// The folder's rules as they stand at the asker.
    pub(super) rules: Rules,
    pub(super) run_rules: Rules,
    pub(super) mode: Mode,
    pub(super) introduction: Introduction,
}

/// A run under way.
pub(super) struct Serving<'a> {
    pub(super) connection: &'a Arc<Connection>,
    pub(super) control: &'a mut Channel,
    pub(super) peer: &'a str,
    pub(super) opened: &'a Arc<Opened>,
    pub(super) asked: &'a Asked,
    pub(super) grant: &'a Grant<'a>,
    pub(super) gate: &'a Gate<'a>,
    /// The other root is on a third machine, and the asker passes all that is said between the two on: only then it asks for
    /// introductions.
    pub(super) relayed: bool,
    pub(super) rules: [Rules; 2],
    pub(super) unavailable: [Vec<RelPath>; 2],
    pub(super) end: LocalEnd,
    pub(super) there: Option<Arc<RemoteThere>>,
    /// Asked for while something else was done.
    pub(super) early: Option<Message>,
    pub(super) tidied: bool,
    /// The run goes on: each scan begins a round.
    pub(super) going: Option<&'a Going>,
    pub(super) carried: Carried,
}

impl Serving<'_> {
    pub(super) fn run(mut self, monitor: &dyn Monitor) -> Result<(), SyncError> {
        let mut wished = Instant::now();
        loop {
            let message = match self.early.take() {
                Some(message) => message,
                None => match next(self.control, self.peer, (IDLE_RUN, &|| self.gate.idle()), monitor)? {
                    Some(message) => message,
                    None => return Ok(()),
                },
            };
            self.grant.check()?;
            let wish = !matches!(message, Message::Progress(_));
            match message {
                Message::Scan(_) => self.scan(monitor)?,
                Message::Ready(ready) => self.learn(ready)?,
                Message::Survey(survey) => self.survey(survey.items, monitor)?,
                Message::Apply(apply) => self.apply(apply, monitor)?,
                Message::Finish(_) => self.finish(monitor)?,
                // It came when the work was over.
                Message::Cancel(_) => {}
                // It stays, and waits for changes.
                Message::Progress(_) if self.going.is_some() => {}
                // The other side works by itself.
                Message::Progress(_) => still_works(wished.elapsed().min(self.gate.idle()))?,
                Message::Bye(_) => {
                    if !self.tidied && self.asked.mode != Mode::SendOnly {
                        self.end.tidy(&self.asked.options, monitor)?;
                    }
                    return Ok(());
                }
                other => return Err(self.failed(ChannelError::unexpected(other, "something to do"))),
            }
            if wish {
                wished = Instant::now();
            }
        }
    }

    fn failed(&self, error: ChannelError) -> SyncError {
        SyncError::of_remote(self.peer, error)
    }

    fn send(&mut self, message: &Message) -> Result<(), SyncError> {
        let sent = self.control.send(message).and_then(|()| self.control.flush());
        sent.map_err(|error| self.failed(error))
    }

    fn scan(&mut self, monitor: &dyn Monitor) -> Result<(), SyncError> {
        let noticed = self.begin_round();
        let (opened, going): (&Opened, _) = (self.opened, self.going);
        let Serving { control, end, asked, rules, carried, .. } = self;
        let terms = ScanTerms { options: &asked.options, rules, run_rules: &asked.run_rules, skip_placed: false, watch: None };
        let (scanned, told) = while_told(control, monitor, false, |monitor| {
            going.into_iter().flat_map(Going::texts).for_each(|text| monitor.notice(&text));
            match &noticed {
                None => end.scan(&terms, monitor),
                Some(noticed) => carried.look((end, opened), noticed, &terms, monitor),
            }
        });
        self.early = told.map_err(|error| self.failed(error))?;
        let mut scanned = scanned?;
        if let Some(going) = going {
            scanned.unavailable.extend(going.missing()?);
            // Nobody may tell of them again.
            going.put_back(Noticed::Paths(scanned.problems.iter().map(|problem| problem.path.clone()).collect()));
        }
        let state = &self.opened.state;
        // What is told of this side must be true after a power cut too.
        state.settle()?;
        let root = state.listing(&RelPath::root(), &Filter::header())?;
        if scanned.unavailable.len() > wire::MAX_LIST {
            let most = wire::MAX_LIST;
            return Err(SyncError::Root(format!(
                "more than {most} paths below the root are unavailable: mount their file systems"
            )));
        }
        let message = Scanned {
            entries: scanned.entries,
            changed: scanned.changed,
            vanished: scanned.vanished,
            failed: scanned.failed,
            problems: Problem::some(&scanned.problems),
            unavailable: scanned.unavailable.clone(),
            seq: root.seq,
            identity: identity(state)?,
            sub: (*root.sub).clone(),
            bound: (*root.bound).clone(),
            digest: root.digest,
            decisions: state.has_decisions()?,
        };
        self.unavailable[1] = scanned.unavailable;
        self.send(&Message::Scanned(message))
    }

    /// In a run that goes on, what is to be looked at in the round that begins.
    fn begin_round(&mut self) -> Option<Noticed> {
        let going = self.going?;
        self.end = self.carried.next(self.end.spent(), self.opened, &self.rules[1], Side::B);
        Some(going.take())
    }

    /// The asker says what it is now.
    fn learn(&mut self, ready: wire::Ready) -> Result<(), SyncError> {
        let facts = Facts {
            identity: ready.identity,
            passing: ready.passing,
            location: self.asked.introduction.location.clone(),
            speaker: Speaker::Machine(self.connection.peer_id()),
            decisions: ready.decisions,
        };
        self.unavailable[0] = ready.unavailable;
        match &self.there {
            Some(there) => {
                let known = there.facts()?.identity;
                if (known.replica, known.instance) != (facts.identity.replica, facts.identity.instance) {
                    let error = ChannelError::Unexpected { found: "another replica", expected: "the one that opened the run" };
                    return Err(self.failed(error));
                }
                there.learn(facts, ready.seq);
            }
            None if facts.identity.replica == self.opened.state.id() => {
                let error = ChannelError::Unexpected { found: "the replica of this side", expected: "another one" };
                return Err(self.failed(error));
            }
            None => {
                // What it says of this replica changes nothing here.
                if self.asked.mode != Mode::SendOnly {
                    self.opened.follow(&facts)?;
                }
                let there = RemoteThere::new(self.connection.clone(), facts, ready.seq);
                let there = there.with_transfer(&self.asked.options.transfer);
                let there = if self.relayed { there.without_lanes() } else { there };
                self.there = Some(Arc::new(if self.may_hear() { there } else { there.without_bases() }));
            }
        }
        Ok(())
    }

    fn there(&self) -> Result<Arc<RemoteThere>, SyncError> {
        let found = ChannelError::Unexpected { found: "a wish for work", expected: "who asks for it" };
        self.there.clone().ok_or_else(|| self.failed(found))
    }

    /// May the asker hear of what is here?
    fn may_hear(&self) -> bool {
        self.asked.mode != Mode::ReceiveOnly
    }

    /// May the asker change anything here?
    fn check_writable(&self, what: &str) -> Result<(), SyncError> {
        if self.asked.mode != Mode::SendOnly {
            return Ok(());
        }
        let text = format!(
            "{what}, and this machine may only read the folder there (send-only). Grant it another mode there, or synchronise with \
             --force for the side that may not be changed"
        );
        Err(SyncError::Refuse { code: Refusal::NotGranted, text })
    }

    fn survey(&mut self, items: bool, monitor: &dyn Monitor) -> Result<(), SyncError> {
        let there = self.there()?;
        // Rows that claim to know and to have deleted everything would be answered by the names of all that is here.
        let items = items && self.may_hear();
        let unavailable = self.unavailable.concat();
        let Serving { control, end, asked, rules, .. } = self;
        let terms =
            Terms { options: &asked.options, mask: asked.mask, rules, run_rules: &asked.run_rules, unavailable: &unavailable };
        let (surveyed, told) = while_told(control, monitor, items, |monitor| {
            let mut each = |item: &Item| monitor.item(item, Side::B.index(), Done::Done);
            let each = items.then_some(&mut each as &mut dyn FnMut(&Item));
            end.survey(&*there, &terms, each, monitor)
        });
        self.early = told.map_err(|error| self.failed(error))?;
        let Surveyed { totals, stopped } = surveyed?;
        let changes = totals.created
            + totals.updated
            + totals.deleted
            + totals.moved
            + (totals.conflicts - totals.skipped.min(totals.conflicts));
        if changes > 0 && !self.asked.options.dry_run {
            self.check_writable(&format!("{changes} paths would change on {}", self.opened.root.path().display()))?;
        }
        let stopped = stopped.map(|stopped| stopped.to_string());
        self.send(&Message::Surveyed(wire::Surveyed { totals: totals.into(), stopped }))
    }

    fn apply(&mut self, apply: wire::Apply, monitor: &dyn Monitor) -> Result<(), SyncError> {
        self.check_writable("a change was asked for")?;
        if self.asked.options.dry_run {
            let error = ChannelError::Unexpected { found: "a wish for a change", expected: "nothing but looking" };
            return Err(self.failed(error));
        }
        let there = self.there()?;
        let unavailable = self.unavailable.concat();
        let items = apply.items && self.may_hear();
        let Serving { control, end, asked, rules, .. } = self;
        let terms =
            Terms { options: &asked.options, mask: asked.mask, rules, run_rules: &asked.run_rules, unavailable: &unavailable };
        let (pulled, told) = while_told(control, monitor, items, |monitor| end.pull(&*there, &terms, apply.number, monitor));
        self.early = told.map_err(|error| self.failed(error))?;
        let pulled = match pulled {
            // The next round finds out anew.
            Err(SyncError::Outrun(_)) if self.going.is_some() => Pulled::default(),
            pulled => pulled?,
        };
        self.carried.created(pulled.totals.created + pulled.totals.conflicts);
        let Pulled { totals, problems, whole, decided: _, cancelled, again, news, unread: _, stopped } = pulled;
        // What was done so far is recorded.
        self.grant.check()?;
        let state = &self.opened.state;
        state.settle()?;
        let applied = Applied {
            totals: totals.into(),
            problems: Problem::some(&problems),
            whole,
            cancelled,
            again,
            news,
            stopped: stopped.map(|stopped| stopped.to_string()),
            identity: identity(state)?,
            seq: state.seq(),
        };
        self.send(&Message::Applied(applied))
    }

    fn finish(&mut self, monitor: &dyn Monitor) -> Result<(), SyncError> {
        if self.asked.options.dry_run {
            let error = ChannelError::Unexpected { found: "the end of changes", expected: "nothing but looking" };
            return Err(self.failed(error));
        }
        if self.asked.mode == Mode::SendOnly {
            return self.send(&Message::Finished(Finished { rules: wire::RulesNow::Same }));
        }
        let there = self.there()?;
        self.tidied = true;
        let tidies = self.going.is_none() || self.carried.tidies();
        let Serving { control, end, asked, .. } = self;
        let (rules, told) = while_told(control, monitor, false, |monitor| match tidies {
            true => end.finish(&*there, &asked.options, monitor),
            false => Ok(end.rules_now(monitor)),
        });
        self.early = told.map_err(|error| self.failed(error))?;
        let rules = match rules? {
            RulesNow::Same => wire::RulesNow::Same,
            RulesNow::Other(rules) if rules.text().len() <= wire::MAX_RULES => wire::RulesNow::Other(rules.text().into()),
            RulesNow::Other(_) | RulesNow::Unusable => wire::RulesNow::Unusable,
        };
        self.send(&Message::Finished(Finished { rules }))
    }
}

/// A side that says that it works, and for so long neither wished for anything nor asked a question, hangs: others wait for the folder.
fn still_works(idle: Duration) -> Result<(), SyncError> {
    if idle < PATIENCE {
        return Ok(());
    }
    let text = format!("this run said for {} hours that it works, and asked for nothing: run again", PATIENCE.as_secs() / 3600);
    Err(SyncError::Refuse { code: Refusal::Busy, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_says_that_it_works_is_believed_for_a_day() {
        assert!(still_works(IDLE_RUN).is_ok() && still_works(PATIENCE - Duration::from_secs(1)).is_ok());
        let refused = still_works(PATIENCE);
        assert!(
            matches!(&refused, Err(SyncError::Refuse { code: Refusal::Busy, text }) if text.contains("24 hours")),
            "{refused:?}"
        );
    }
}
