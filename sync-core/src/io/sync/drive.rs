//! The order of a run: both roots scanned at once, both pulls looked at, then pulled one after the other until neither has
//! news for the other.

use super::end::{End, Pulled, RulesNow, ScanTerms, Surveyed};
use super::opened::Opened;
use super::pulls::Terms;
use super::{Options, Side, SyncError, Totals};
use crate::ignore::Rules;
use crate::io::scan::Scanned;
use crate::io::there::There;
use crate::plan::Item;
use crate::report::{Monitor, Problem};
use crate::session::{self, Poll, Pull};
use crate::store::Listing;
use crate::wire::Identity;
use std::sync::Arc;

/// Pulls into one root in a run, at the most: a pull that makes events needs one back.
const PULLS: u32 = 4;

/// Sees every item, with the side that would change.
pub(super) type Tell<'a> = &'a mut dyn FnMut(Side, &Item);

/// One side of a run.
pub(super) struct Half {
    /// What changes.
    pub(super) end: Box<dyn End>,
    /// The same root as the other one's source.
    pub(super) there: Arc<dyn There>,
    /// May it be read? Else the other root is not pulled into.
    pub(super) reads: bool,
    /// Is it on another machine?
    pub(super) remote: bool,
    /// The root itself, if it is not.
    pub(super) local: Option<Arc<Opened>>,
}

/// What the pulls of a run achieved.
#[derive(Default)]
pub(super) struct Achieved {
    pub(super) totals: [Totals; 2],
    pub(super) problems: Vec<(Side, Problem)>,
    pub(super) complete: bool,
    pub(super) cancelled: bool,
    /// Why no further pull was begun.
    pub(super) stopped: Option<SyncError>,
}

/// Scans both roots at the same time.
pub(super) fn scan(halves: &mut [Half; 2], terms: &ScanTerms<'_>, monitor: &dyn Monitor) -> Result<[Scanned; 2], SyncError> {
    let [a, b] = halves;
    let (first, second) = std::thread::scope(|scope| {
        let second = scope.spawn(|| b.end.scan(terms, monitor));
        let first = a.end.scan(terms, monitor);
        // A panic in a scan is a defect: it goes on in this thread.
        (first, second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    if monitor.cancelled() {
        return Err(SyncError::Cancelled);
    }
    Ok([first?, second?])
}

/// Is all that either root has known to the other? Their roots tell.
pub(super) fn quiet(halves: &[Half; 2], options: &Options) -> Result<bool, SyncError> {
    if !halves.iter().all(|half| half.reads) {
        return Ok(false);
    }
    let (Some(a), Some(b)) = (halves[0].end.root()?, halves[1].end.root()?) else { return Ok(false) };
    // Who claims changes that the other never made is not believed that it has no news: the pull refuses it.
    for (half, claims) in [(&halves[0], &b), (&halves[1], &a)] {
        let Identity { replica, counter, .. } = half.there.facts()?.identity;
        if claims.sub.get(replica).max(claims.bound.get(replica)) > counter {
            return Ok(false);
        }
    }
    Ok(is_covered(Side::B, &a, &b, options) && is_covered(Side::A, &b, &a, options))
}

/// Is nothing to be found out of the second of both pulls, across a link, since its root has known all that the other one does? Then no
/// question is asked. Only of the second: it is measured again before it is carried out, whatever was recorded meanwhile.
fn knows_all(halves: &[Half; 2], here: Side, options: &Options) -> Result<bool, SyncError> {
    if here == Side::B || !halves[0].reads || !halves.iter().any(|half| half.remote) {
        return Ok(false);
    }
    let (Some(ours), Some(theirs)) = (halves[0].end.root()?, halves[1].end.root()?) else { return Ok(false) };
    Ok(is_covered(here, &theirs, &ours, options))
}

/// Does a pull end where the roots are compared?
pub(super) fn is_covered(here: Side, theirs: &Listing, ours: &Listing, options: &Options) -> bool {
    let mut terms = session::Terms::everything(options.conflicts.naming(|side| side.end(here)), options.mask);
    terms.force = options.force.map(|side| side.end(here));
    let mut pull = Pull::new(terms);
    for listing in [theirs, ours] {
        let Poll::List { .. } = pull.poll() else { return false };
        pull.supply(listing.clone());
    }
    matches!(pull.poll(), Poll::Done(outcome) if outcome.complete)
}

/// Looks at both pulls. `each` sees every item with the side that would change.
pub(super) fn survey(
    halves: &mut [Half; 2],
    asked: &Terms<'_>,
    mut each: Option<Tell<'_>>,
    monitor: &dyn Monitor,
) -> Result<[Surveyed; 2], SyncError> {
    let mut surveyed = [Surveyed::default(), Surveyed::default()];
    for here in [Side::B, Side::A] {
        if !halves[here.other().index()].reads || knows_all(halves, here, asked.options)? {
            continue;
        }
        let there = halves[here.other().index()].there.clone();
        let mut tell = each.as_mut().map(|each| |item: &Item| each(here, item));
        let tell = tell.as_mut().map(|tell| tell as &mut dyn FnMut(&Item));
        surveyed[here.index()] = halves[here.index()].end.survey(&*there, asked, tell, monitor)?;
    }
    Ok(surveyed)
}

/// Pulls B from A, then A from B, and on while a pull made events that the other side must hear of.
pub(super) fn pull(halves: &mut [Half; 2], asked: &Terms<'_>, monitor: &dyn Monitor) -> Result<Achieved, SyncError> {
    let mut achieved = Achieved { complete: true, ..Achieved::default() };
    let mut due = [halves[1].reads, halves[0].reads];
    let mut whole = due.map(|due| !due);
    let mut pulls = [0, 0];
    while let Some(here) = [Side::B, Side::A].into_iter().find(|side| due[side.index()]) {
        let at = here.index();
        if pulls[at] == PULLS {
            break;
        }
        let there = halves[1 - at].there.clone();
        let pulled = halves[at].end.pull(&*there, asked, pulls[0] + pulls[1], monitor)?;
        pulls[at] += 1;
        let Pulled { totals, problems, cancelled, stopped, .. } = pulled;
        achieved.totals[at].add(&totals);
        achieved.problems.extend(problems.into_iter().map(|problem| (here, problem)));
        (achieved.cancelled, achieved.stopped) = (cancelled, stopped);
        if achieved.cancelled || achieved.stopped.is_some() {
            break;
        }
        whole[at] = pulled.whole;
        due[at] = pulled.again;
        due[1 - at] |= pulled.news && halves[at].reads;
    }
    achieved.complete = !achieved.cancelled && achieved.stopped.is_none() && whole == [true, true];
    Ok(achieved)
}

/// Remembers what is to be kept of the run, on both sides. The ignore rules of both as they stand at the end; `None` if any
/// cannot be used any more.
pub(super) fn finish(
    halves: &mut [Half; 2],
    rules: &[Rules; 2],
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Option<[Rules; 2]>, SyncError> {
    let mut now = rules.clone();
    let mut usable = true;
    for at in 0..2 {
        let there = halves[1 - at].there.clone();
        match halves[at].end.finish(&*there, options, monitor)? {
            RulesNow::Same => {}
            RulesNow::Other(rules) => now[at] = rules,
            RulesNow::Unusable => usable = false,
        }
    }
    Ok(usable.then_some(now))
}
