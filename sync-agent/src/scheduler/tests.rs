//! What one folder does next: rows, and properties at random.

use super::*;
use proptest::prelude::*;

const HOUR: Duration = Duration::from_secs(3600);

fn at(seconds: f64) -> Moment {
    Duration::from_secs_f64(seconds)
}

fn looked_at() -> Scheduler<u8> {
    let mut scheduler = Scheduler::new(at(0.0), HOUR);
    scheduler.ended(Job::LookAtAll, Ended::Well, at(0.0), 0.0);
    scheduler
}

#[test]
fn everything_is_looked_at_first_and_then_once_in_a_while() {
    let mut scheduler = Scheduler::new(at(0.0), HOUR);
    scheduler.joined(1, at(0.0));
    assert_eq!(scheduler.next(at(0.0)), Next::Now(Job::LookAtAll));
    scheduler.ended(Job::LookAtAll, Ended::Well, at(1.0), 0.0);
    assert_eq!(scheduler.next(at(1.0)), Next::Now(Job::Pull(1)));
    scheduler.begin(Job::Pull(1));
    scheduler.ended(Job::Pull(1), Ended::Well, at(2.0), 0.0);
    assert_eq!(scheduler.next(at(2.0)), Next::At(TIDY));
    scheduler.ended(Job::Tidy, Ended::Well, at(3600.0), 0.0);
    assert_eq!(scheduler.next(at(3601.0)), Next::Now(Job::LookAtAll));
}

#[test]
fn a_look_at_everything_that_is_asked_for_during_one_comes_after_it_and_holds_no_pull_up() {
    for how in [Ended::Well, Ended::InPart] {
        let mut scheduler = Scheduler::new(at(0.0), HOUR);
        scheduler.joined(1, at(0.0));
        scheduler.look_at_all(at(0.0));
        scheduler.begin(Job::LookAtAll);
        scheduler.look_at_all(at(1.0));
        scheduler.ended(Job::LookAtAll, how, at(2.0), 0.0);
        assert!(!scheduler.is_looked_at(at(2.0)));
        assert_eq!(scheduler.next(at(2.0)), Next::Now(Job::Pull(1)));
        scheduler.begin(Job::Pull(1));
        scheduler.ended(Job::Pull(1), Ended::Well, at(3.0), 0.0);
        assert_eq!(scheduler.next(at(3.0)), Next::Now(Job::LookAtAll));
        scheduler.begin(Job::LookAtAll);
        scheduler.ended(Job::LookAtAll, how, at(4.0), 0.0);
        assert!(scheduler.is_looked_at(at(4.0)));
        assert_eq!(scheduler.next(at(4.0)), Next::At(TIDY));
    }
}

#[test]
fn local_changes_come_before_pulls_and_news_during_a_pull_are_not_forgotten() {
    let mut scheduler = looked_at();
    scheduler.joined(1, at(0.0));
    scheduler.ready_at(Some(at(0.5)));
    assert_eq!(scheduler.next(at(1.0)), Next::Now(Job::Look));
    scheduler.ready_at(None);
    scheduler.begin(Job::Pull(1));
    scheduler.heard(1, at(1.5));
    scheduler.ended(Job::Pull(1), Ended::Well, at(2.0), 0.0);
    assert_eq!(scheduler.next(at(2.0)), Next::Now(Job::Pull(1)));
}

#[test]
fn what_is_to_be_read_first_holds_no_news_up_and_is_not_asked_for_before_it_was_read() {
    let mut scheduler = looked_at();
    scheduler.joined(1, at(0.0));
    for (pulled, during) in [(1.0, None), (2.0, Some(2.5)), (3.0, None)] {
        assert_eq!(scheduler.next(at(pulled)), Next::Now(Job::Pull(1)));
        scheduler.begin(Job::Pull(1));
        during.into_iter().for_each(|news| scheduler.heard(1, at(news)));
        scheduler.ended(Job::Pull(1), Ended::Unread, at(pulled), 0.0);
        if during.is_none() {
            assert_eq!(scheduler.next(at(pulled)), Next::At(TIDY));
            scheduler.heard(1, at(pulled));
        }
    }
}

#[test]
fn local_changes_that_never_end_and_pulls_take_turns() {
    let mut scheduler = looked_at();
    scheduler.joined(1, at(0.0));
    for turn in 0..6 {
        let now = at(f64::from(turn));
        scheduler.ready_at(Some(now));
        scheduler.heard(1, now);
        let job = if turn % 2 == 0 { Job::Look } else { Job::Pull(1) };
        assert_eq!(scheduler.next(now), Next::Now(job));
        scheduler.begin(job);
        scheduler.ended(job, Ended::Well, now, 0.0);
    }
}

#[test]
fn where_something_is_always_due_everything_is_looked_at_and_tidied_up_all_the_same() {
    let mut scheduler = looked_at();
    scheduler.set_every(Duration::from_secs(600), at(0.0));
    scheduler.joined(1, at(0.0));
    let (mut looks, mut tidied) = (0, 0);
    for second in 0..3600 {
        let now = at(f64::from(second));
        scheduler.ready_at(Some(now));
        scheduler.heard(1, now);
        let Next::Now(job) = scheduler.next(now) else { panic!("something is due") };
        looks += u32::from(job == Job::LookAtAll);
        tidied += u32::from(job == Job::Tidy);
        scheduler.begin(job);
        scheduler.ended(job, Ended::Well, now, 0.0);
    }
    assert!(looks >= 3 && tidied >= 10, "{looks} looks, tidied up {tidied} times");
}

#[test]
fn who_fails_is_asked_later_and_later_and_others_meanwhile() {
    let mut scheduler = looked_at();
    scheduler.joined(1, at(0.0));
    scheduler.joined(2, at(0.0));
    scheduler.measured([(1, 10.0), (2, 11.0)], at(0.0));
    let mut now = at(1.0);
    for failures in 1..12 {
        scheduler.ended(Job::Tidy, Ended::Well, now, 0.0);
        scheduler.heard(2, now);
        scheduler.begin(Job::Pull(1));
        scheduler.ended(Job::Pull(1), Ended::Badly, now, 0.0);
        assert_eq!(scheduler.next(now), Next::Now(Job::Pull(2)));
        scheduler.begin(Job::Pull(2));
        scheduler.ended(Job::Pull(2), Ended::Well, now, 0.0);
        now += wait_after(failures, 0.0);
        assert_eq!(scheduler.next(now), Next::Now(Job::Pull(1)));
    }
    assert_eq!(wait_after(12, 0.0), RETRY_MOST);
    assert_eq!(wait_after(1, 1.0), RETRY / 2);
}

#[test]
fn news_do_not_wait_for_paths_that_failed_and_these_are_left_alone_for_longer_and_longer() {
    let mut scheduler = looked_at();
    scheduler.joined(1, at(0.0));
    let mut now = at(0.0);
    for _ in 0..10 {
        let Next::Now(job @ Job::Pull(1)) = scheduler.next(now) else { panic!("{:?}", scheduler.next(now)) };
        scheduler.begin(job);
        scheduler.ended(job, Ended::InPart, now, 0.0);
        let again = scheduler.peers[&1].again;
        assert_eq!(again.at, now + wait_after(again.failures, 0.0));
        now = again.at;
    }
    scheduler.begin(Job::Pull(1));
    // They came while it was pulled, or later.
    scheduler.heard(1, now);
    scheduler.ended(Job::Pull(1), Ended::InPart, now, 0.0);
    assert!(matches!(scheduler.due(1, &scheduler.peers[&1]), Some(due) if due == now + RETRY));
    scheduler.begin(Job::Pull(1));
    scheduler.ended(Job::Pull(1), Ended::InPart, now, 0.0);
    scheduler.heard(1, now + at(5.0));
    assert_eq!(scheduler.due(1, &scheduler.peers[&1]), Some(now + at(5.0)));
    // Of a peer that fails as a whole, news wait with everything else.
    scheduler.begin(Job::Pull(1));
    scheduler.ended(Job::Pull(1), Ended::Badly, now, 0.0);
    scheduler.heard(1, now + at(5.0));
    assert_eq!(scheduler.due(1, &scheduler.peers[&1]), Some(now + RETRY_MOST));
}

#[test]
fn news_of_a_bad_path_wait_for_the_better_one_and_only_for_a_moment() {
    let mut scheduler = looked_at();
    scheduler.joined(1, at(0.0));
    scheduler.joined(2, at(0.0));
    for peer in [1, 2] {
        scheduler.begin(Job::Pull(peer));
        scheduler.ended(Job::Pull(peer), Ended::Well, at(0.0), 0.0);
    }
    scheduler.measured([(1, 10.0), (2, 100.0)], at(0.0));
    scheduler.heard(2, at(5.0));
    assert_eq!(scheduler.next(at(5.0)), Next::At(at(5.0) + HOLD));
    scheduler.heard(1, at(5.5));
    assert_eq!(scheduler.next(at(5.5)), Next::Now(Job::Pull(1)));
    scheduler.begin(Job::Pull(1));
    scheduler.ended(Job::Pull(1), Ended::Well, at(5.6), 0.0);
    assert_eq!(scheduler.next(at(6.0)), Next::Now(Job::Pull(2)));
}

#[test]
fn the_preferred_path_changes_only_if_another_was_clearly_better_for_long() {
    let mut scheduler = looked_at();
    scheduler.joined(1, at(0.0));
    scheduler.joined(2, at(0.0));
    scheduler.measured([(1, 10.0), (2, 20.0)], at(0.0));
    assert_eq!(scheduler.preferred(), Some(1));
    // Better, but not clearly.
    scheduler.measured([(1, 10.0), (2, 9.0)], at(100.0));
    scheduler.measured([(1, 10.0), (2, 9.0)], at(200.0));
    assert_eq!(scheduler.preferred(), Some(1));
    // Clearly, but not for long; and a moment of doubt begins anew.
    scheduler.measured([(2, 5.0)], at(210.0));
    scheduler.measured([(2, 9.0)], at(230.0));
    scheduler.measured([(2, 5.0)], at(235.0));
    scheduler.measured([(2, 5.0)], at(260.0));
    assert_eq!(scheduler.preferred(), Some(1));
    scheduler.measured([(2, 5.0)], at(265.0));
    assert_eq!(scheduler.preferred(), Some(2));
    scheduler.left(2);
    scheduler.measured([(1, 10.0)], at(266.0));
    assert_eq!(scheduler.preferred(), Some(1));
}

#[test]
fn who_holds_others_up_is_stopped_and_gets_more_time_the_next_time() {
    let mut scheduler = looked_at();
    scheduler.joined(1, at(0.0));
    scheduler.begin(Job::Pull(1));
    assert!(!scheduler.others_wait(Job::Pull(1), at(1.0)));
    scheduler.ready_at(Some(at(1.0)));
    assert!(scheduler.others_wait(Job::Pull(1), at(1.0)) && !scheduler.others_wait(Job::Pull(1), at(0.5)));
    assert_eq!(scheduler.slice(Job::Pull(1)), SLICE);
    scheduler.ended(Job::Pull(1), Ended::Stopped { further: false }, at(3.0), 0.0);
    assert_eq!(scheduler.slice(Job::Pull(1)), 2 * SLICE);
    scheduler.ready_at(None);
    assert_eq!(scheduler.next(at(3.0)), Next::Now(Job::Pull(1)));
    for _ in 0..20 {
        scheduler.ended(Job::Pull(1), Ended::Stopped { further: false }, at(3.0), 0.0);
    }
    assert_eq!(scheduler.slice(Job::Pull(1)), SLICE_MOST);
    // Whoever gets on needs no more than half a minute, however much there is.
    for _ in 0..20 {
        scheduler.ended(Job::Pull(1), Ended::Stopped { further: true }, at(3.0), 0.0);
    }
    assert_eq!(scheduler.slice(Job::Pull(1)), SLICE * 16);
    // Whoever makes room for a user was not too slow.
    scheduler.ended(Job::Pull(1), Ended::MadeRoom, at(3.0), 0.0);
    assert_eq!(scheduler.slice(Job::Pull(1)), SLICE * 16);
    assert_eq!(scheduler.next(at(3.0)), Next::Now(Job::Pull(1)));
}

#[test]
fn nothing_is_pulled_before_everything_was_looked_at_once() {
    let mut scheduler = Scheduler::new(at(0.0), HOUR);
    scheduler.joined(1, at(0.0));
    scheduler.ended(Job::LookAtAll, Ended::Badly, at(0.0), 0.0);
    assert_eq!(scheduler.next(at(0.0)), Next::At(at(0.5)));
    scheduler.ended(Job::LookAtAll, Ended::InPart, at(1.0), 0.0);
    assert_eq!(scheduler.next(at(1.0)), Next::Now(Job::Pull(1)));
    scheduler.opened(at(2.0));
    assert_eq!(scheduler.next(at(2.0)), Next::Now(Job::LookAtAll));
}

#[test]
fn who_waits_while_another_is_stopped_again_and_again_has_its_turn() {
    let mut scheduler = looked_at();
    scheduler.joined(1, at(0.0));
    scheduler.joined(2, at(0.0));
    scheduler.measured([(1, 1.0), (2, 1.1)], at(0.0));
    assert_eq!(scheduler.next(at(1.0)), Next::Now(Job::Pull(1)));
    scheduler.begin(Job::Pull(1));
    scheduler.ended(Job::Pull(1), Ended::Stopped { further: false }, at(3.0), 0.0);
    assert_eq!(scheduler.next(at(3.0)), Next::Now(Job::Pull(2)));
}

#[test]
fn a_pull_that_waits_for_other_folders_holds_nothing_up_and_comes_once_they_are_done() {
    let mut scheduler = looked_at();
    scheduler.joined(1, at(0.0));
    scheduler.begin(Job::Pull(1));
    scheduler.waits(1, true);
    scheduler.ended(Job::Pull(1), Ended::Waits, at(1.0), 0.0);
    scheduler.heard(1, at(2.0));
    assert_eq!(scheduler.next(at(2.0)), Next::At(TIDY));
    scheduler.ready_at(Some(at(3.0)));
    assert_eq!(scheduler.next(at(3.0)), Next::Now(Job::Look));
    scheduler.ready_at(None);
    scheduler.freed();
    assert_eq!(scheduler.next(at(3.0)), Next::Now(Job::Pull(1)));
    // What was freed before the job knew that it waits is not missed.
    scheduler.begin(Job::Pull(1));
    scheduler.waits(1, true);
    scheduler.freed();
    scheduler.ended(Job::Pull(1), Ended::Waits, at(4.0), 0.0);
    assert_eq!(scheduler.next(at(4.0)), Next::Now(Job::Pull(1)));
}

#[test]
fn a_paused_folder_does_nothing_and_forgets_nothing() {
    let mut scheduler = looked_at();
    scheduler.joined(1, at(0.0));
    scheduler.pause(true);
    assert_eq!(scheduler.next(at(10.0)), Next::Never);
    scheduler.pause(false);
    assert_eq!(scheduler.next(at(10.0)), Next::Now(Job::Pull(1)));
}

#[derive(Debug, Clone)]
enum Event {
    Stop,
    Heard(u8),
    Left(u8),
    Joined(u8),
    Ready,
    Cost(u8, f64),
    Wait(u64),
    End(bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        Just(Event::Stop),
        (0u8..3).prop_map(Event::Heard),
        (0u8..3).prop_map(Event::Left),
        (0u8..3).prop_map(Event::Joined),
        Just(Event::Ready),
        (0u8..3, 1.0f64..100.0).prop_map(|(peer, cost)| Event::Cost(peer, cost)),
        (0u64..5000).prop_map(Event::Wait),
        any::<bool>().prop_map(Event::End),
    ];
    prop::collection::vec(event, 1..120)
}

proptest! {
    /// However often single paths have failed: what a peer tells of is pulled within a second, and not more often than twice in one.
    #[test]
    fn news_of_a_peer_of_which_some_paths_always_fail_are_pulled_within_a_second(
        waits in prop::collection::vec((0u64..90_000, 0.0f64..1.0), 1..60)
    ) {
        let mut scheduler = looked_at();
        scheduler.joined(1, Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut pulls: Vec<Moment> = Vec::new();
        for (wait, jitter) in waits {
            let (heard, mut before) = (now + Duration::from_millis(wait), 0);
            // Up to the news, and for a second from then on: whatever is due is done, and some of it fails.
            for until in [heard, heard + Duration::from_secs(1)] {
                loop {
                    match scheduler.next(now) {
                        Next::Now(job) => {
                            scheduler.begin(job);
                            if matches!(job, Job::Pull(_)) {
                                pulls.push(now);
                            }
                            scheduler.ended(job, if matches!(job, Job::Pull(_)) { Ended::InPart } else { Ended::Well }, now, jitter);
                        }
                        Next::At(at) if at <= until => now = at,
                        _ => break,
                    }
                }
                now = until;
                if until == heard {
                    before = pulls.len();
                    scheduler.heard(1, now);
                }
            }
            prop_assert!(pulls.len() > before, "news of {heard:?} wait: {pulls:?}");
        }
        prop_assert!(pulls.windows(2).all(|two| two[1] - two[0] >= RETRY / 2), "{pulls:?}");
    }

    /// Whatever happens: once things are quiet and jobs end well, everything that was heard of is done in bounded time.
    #[test]
    fn all_news_are_pulled_in_the_end(events in events()) {
        let mut scheduler: Scheduler<u8> = Scheduler::new(Duration::ZERO, HOUR);
        let mut now = Duration::ZERO;
        let mut waiting = std::collections::BTreeSet::new();
        for event in events {
            match event {
                Event::Heard(peer) => {
                    if scheduler.peers.contains_key(&peer) {
                        waiting.insert(peer);
                    }
                    scheduler.heard(peer, now);
                }
                Event::Left(peer) => {
                    waiting.remove(&peer);
                    scheduler.left(peer);
                }
                Event::Joined(peer) => {
                    waiting.insert(peer);
                    scheduler.joined(peer, now);
                }
                Event::Ready => scheduler.ready_at(Some(now)),
                Event::Stop => {
                    if let Next::Now(job @ Job::Pull(_)) = scheduler.next(now) {
                        scheduler.begin(job);
                        scheduler.ended(job, Ended::Stopped { further: false }, now, 0.5);
                    }
                }
                Event::Cost(peer, cost) => scheduler.measured([(peer, cost)], now),
                Event::Wait(ms) => now += Duration::from_millis(ms),
                Event::End(well) => {
                    if let Next::Now(job) = scheduler.next(now) {
                        scheduler.begin(job);
                        if job == Job::Look {
                            scheduler.ready_at(None);
                        }
                        if let (Job::Pull(peer), true) = (job, well) {
                            waiting.remove(&peer);
                        }
                        scheduler.ended(job, if well { Ended::Well } else { Ended::Badly }, now, 0.5);
                    }
                }
            }
        }
        let limit = now + RETRY_MOST + HOLD + Duration::from_secs(1);
        for _ in 0..100 {
            match scheduler.next(now) {
                Next::Now(job) => {
                    scheduler.begin(job);
                    if job == Job::Look {
                        scheduler.ready_at(None);
                    }
                    if let Job::Pull(peer) = job {
                        waiting.remove(&peer);
                    }
                    scheduler.ended(job, Ended::Well, now, 0.0);
                }
                Next::At(at) if at <= limit => now = at,
                _ => break,
            }
        }
        prop_assert!(waiting.is_empty(), "{waiting:?} were never pulled from");
        prop_assert!(scheduler.ready.is_none());
    }
}
