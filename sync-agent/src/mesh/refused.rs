//! What is said in the log of those who called and were let down: each thing once, and of no machine more than some lines an hour,
//! whatever it asks for. Pure.

use crate::scheduler::Moment;
use std::collections::BTreeMap;
use std::time::Duration;
use sync_core::peer::{Id, Name};

/// Machines that are remembered, and things that were said of each.
const MACHINES: usize = 256;
const TEXTS: usize = 16;
/// So many lines of a machine in such a time; what else there would be to say is counted.
const LINES: usize = 8;
const HOUR: Duration = Duration::from_secs(3600);

/// Why callers were let down: who calls again and again is told of once, until that changes.
#[derive(Default)]
pub(super) struct Refused(BTreeMap<Id, Machine>);

/// What was said of one machine.
#[derive(Default)]
struct Machine {
    /// The last of each folder that it asked for.
    texts: BTreeMap<Option<Name>, String>,
    /// When the lines began that are counted.
    since: Moment,
    lines: usize,
    left_out: u64,
}

impl Refused {
    /// What is to be said of a machine that was let down, if it is to be said.
    pub(super) fn say(&mut self, id: Id, asked: Option<Name>, text: &str, now: Moment) -> Option<String> {
        if self.0.len() >= MACHINES && !self.0.contains_key(&id) {
            self.0.pop_first();
        }
        let machine = self.0.entry(id).or_insert_with(|| Machine { since: now, ..Machine::default() });
        if machine.texts.get(&asked).is_some_and(|said| said == text) {
            return None;
        }
        if now.saturating_sub(machine.since) >= HOUR {
            (machine.since, machine.lines) = (now, 0);
        }
        if machine.lines >= LINES {
            machine.left_out = machine.left_out.saturating_add(1);
            return None;
        }
        machine.lines += 1;
        if machine.texts.len() >= TEXTS && !machine.texts.contains_key(&asked) {
            machine.texts.pop_first();
        }
        machine.texts.insert(asked, text.to_owned());
        let before = match std::mem::take(&mut machine.left_out) {
            0 => String::new(),
            left_out => format!(" ({left_out} lines like this were left out before)"),
        };
        let after = if machine.lines == LINES { "; more of this is not told for an hour" } else { "" };
        Some(format!("{text}{before}{after}"))
    }

    /// It was served: what it is refused from now on is said again.
    pub(super) fn served(&mut self, id: &Id, asked: &Option<Name>) {
        if let Some(machine) = self.0.get_mut(id) {
            machine.texts.remove(asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_core::peer::PublicKey;

    fn id(number: u8) -> Id {
        PublicKey::from_bytes([number; 32]).id()
    }

    fn folder(number: usize) -> Option<Name> {
        Some(format!("a{number}").parse().unwrap())
    }

    #[test]
    fn who_asks_for_names_without_end_has_some_lines_an_hour() {
        let mut refused = Refused::default();
        let mut said = |hour: u32| -> Vec<String> {
            let ask = |number| refused.say(id(1), folder(number), &format!("no a{number}"), HOUR * hour);
            (0..1000).filter_map(ask).collect()
        };
        let first = said(0);
        assert_eq!((first.len(), first[0].as_str()), (LINES, "no a0"));
        assert_eq!(first[LINES - 1], "no a7; more of this is not told for an hour");
        // Of the same names none is said twice.
        let second = said(1);
        assert_eq!((second.len(), second[0].as_str()), (LINES, "no a8 (992 lines like this were left out before)"));
        assert!(refused.say(id(2), folder(1), "no a1", HOUR).is_some(), "others have lines of their own");
    }

    #[test]
    fn a_text_is_said_again_once_it_was_another_or_the_machine_was_served() {
        let mut refused = Refused::default();
        let say = |refused: &mut Refused, number: usize, text: &str| refused.say(id(1), folder(number), text, HOUR).is_some();
        assert!(say(&mut refused, 1, "x") && !say(&mut refused, 1, "x"));
        assert!(say(&mut refused, 2, "x") && !say(&mut refused, 2, "x") && !say(&mut refused, 1, "x"));
        assert!(say(&mut refused, 1, "y") && say(&mut refused, 1, "x"));
        refused.served(&id(1), &folder(1));
        assert!(say(&mut refused, 1, "x") && !say(&mut refused, 2, "x"));
        // One that is served between is bounded all the same.
        let again = (0..100).filter(|_| {
            refused.served(&id(1), &folder(1));
            say(&mut refused, 1, "x")
        });
        assert_eq!(again.count(), LINES - 5);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut refused = Refused::default();
        for hour in 0..100 {
            for machine in 0..=u8::MAX {
                for number in 0..LINES {
                    refused.say(id(machine), folder(usize::try_from(hour).unwrap() * LINES + number), "x", HOUR * hour);
                }
            }
        }
        assert!(refused.0.len() <= MACHINES && refused.0.values().all(|machine| machine.texts.len() == TEXTS));
    }
}
