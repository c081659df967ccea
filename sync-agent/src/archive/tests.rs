use super::*;
use chrono::{NaiveDate, Utc};
use proptest::prelude::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn rule() -> Rule {
    Rule {
        layout: Layout::parse("%Y/%m/%d").unwrap(),
        under: None,
        exclude: Rules::parse("").unwrap(),
        older_than: 3 * DAY,
        quiet: DAY,
        outside_links: OutsideLinks::Skip,
        min_peers: 0,
        most_days: None,
        most_bytes: None,
    }
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn ns(text: &str) -> i64 {
    text.parse::<chrono::DateTime<Utc>>().unwrap().timestamp_nanos_opt().unwrap()
}

fn entry(rule: &Rule, text: &str) -> Entry {
    let path = path(text);
    let Look::Day(period) = rule.look(&path) else { panic!("{text} is no day") };
    Entry { path, period, archived: false, seen: Some(Seen { bytes: 10, ..Seen::default() }) }
}

fn reason(entry: Entry, rule: &Rule, now: &str) -> String {
    match &decide(&[entry], rule, &Utc, ns(now))[0].decision {
        Decision::Move => "move".into(),
        Decision::Stay(reason) => reason.to_string(),
    }
}

#[test]
fn age_counts_from_the_end_of_the_day() {
    let rule = rule();
    for (now, expected) in [
        ("2026-03-05T12:00:00Z", "too young until 2026-03-09T00:00:00Z"),
        ("2026-03-08T23:59:59Z", "too young until 2026-03-09T00:00:00Z"),
        ("2026-03-09T00:00:00Z", "move"),
    ] {
        assert_eq!(reason(entry(&rule, "2026/03/05"), &rule, now), expected);
    }
    let months = Rule { layout: Layout::parse("%Y/%m").unwrap(), ..rule };
    assert_eq!(reason(entry(&months, "2026/02"), &months, "2026-03-03T23:00:00Z"), "too young until 2026-03-04T00:00:00Z");
    assert_eq!(reason(entry(&months, "2026/02"), &months, "2026-03-04T00:00:00Z"), "move");
}

#[test]
fn every_day_that_stays_has_its_reason() {
    let now = "2026-04-01T00:00:00Z";
    let day = |change: &dyn Fn(&mut Entry, &mut Rule)| {
        let mut rule = rule();
        let mut entry = entry(&rule, "2026/03/05");
        change(&mut entry, &mut rule);
        reason(entry, &rule, now)
    };
    let seen = |change: &dyn Fn(&mut Seen)| day(&|entry, _| change(entry.seen.as_mut().unwrap()));
    let obstacle = |obstacle: Obstacle| seen(&|seen| seen.obstacle = Some(obstacle.clone()));
    assert_eq!(day(&|_, _| {}), "move");
    assert_eq!(day(&|entry, _| entry.archived = true), "archived already");
    assert_eq!(day(&|_, rule| rule.exclude = Rules::parse("/2026/03/").unwrap()), "excluded by the rule");
    assert_eq!(day(&|entry, _| entry.seen = None), "this run moves no more; the next one goes on");
    let told = seen(&|seen| seen.newest_ns = ns("2026-03-31T12:00:00Z"));
    assert_eq!(told, "changed lately: not quiet until 2026-04-01T12:00:00Z");
    assert_eq!(seen(&|seen| seen.newest_ns = ns("2026-03-31T00:00:00Z")), "move");
    assert_eq!(seen(&|seen| seen.open = 2), "2 conflicts or problems are open in it");
    assert_eq!(day(&|_, rule| rule.min_peers = 1), "0 peers are known to have it, and 1 must");
    assert!(obstacle(Obstacle::Special(path("2026/03/05/p"))).contains("2026/03/05/p is a device"));
    assert!(obstacle(Obstacle::LinkLeaves(path("l"))).contains("rewrite"));
    assert!(obstacle(Obstacle::HardLinkLeaves(path("h"))).contains("another name"));
    let rewritten = |obstacle: Obstacle| {
        day(&|entry, rule| {
            rule.outside_links = OutsideLinks::Rewrite;
            entry.seen.as_mut().unwrap().obstacle = Some(obstacle.clone());
        })
    };
    assert_eq!(rewritten(Obstacle::LinkLeaves(path("l"))), "move");
    assert!(rewritten(Obstacle::LinkFixed(path("l"))).contains("cannot be written"));
}

#[test]
fn what_changes_in_the_future_is_not_quiet_unless_nobody_asks() {
    let mut rule = rule();
    let mut day = entry(&rule, "2026/03/05");
    day.seen.as_mut().unwrap().newest_ns = ns("2027-01-01T00:00:00Z");
    assert!(reason(day.clone(), &rule, "2026-04-01T00:00:00Z").contains("not quiet until 2027-01-02"));
    rule.quiet = Duration::ZERO;
    assert_eq!(reason(day, &rule, "2026-04-01T00:00:00Z"), "move");
}

#[test]
fn a_rule_that_matches_today_is_refused() {
    let rule = Rule { older_than: Duration::from_secs(23 * 3600), ..rule() };
    let told = rule.check().unwrap_err().to_string();
    assert!(told.contains("23 h 0 min") && told.contains("--older-than 1d"), "{told}");
    assert!(Rule { older_than: DAY, ..rule.clone() }.check().is_ok());
    // Nor would it be followed.
    assert!(reason(entry(&rule, "2026/03/05"), &rule, "2026-03-06T23:30:00Z").starts_with("too young"));
}

#[test]
fn a_run_moves_the_oldest_first_and_no_more_than_it_may() {
    let days = ["2026/01/03", "2025/12/31", "2026/01/01", "2026/01/02"];
    let moved = |rule: &Rule| -> Vec<String> {
        let entries: Vec<Entry> = days.iter().map(|day| entry(rule, day)).collect();
        let verdicts = decide(&entries, rule, &Utc, ns("2026-04-01T00:00:00Z"));
        verdicts.iter().filter(|verdict| verdict.decision == Decision::Move).map(|verdict| verdict.path.to_string()).collect()
    };
    assert_eq!(moved(&rule()), ["2025/12/31", "2026/01/01", "2026/01/02", "2026/01/03"]);
    assert_eq!(moved(&Rule { most_days: Some(2), ..rule() }), ["2025/12/31", "2026/01/01"]);
    assert_eq!(moved(&Rule { most_bytes: Some(30), ..rule() }), ["2025/12/31", "2026/01/01", "2026/01/02"]);
    // One day goes in any case, or a large one would stay for ever.
    assert_eq!(moved(&Rule { most_bytes: Some(1), ..rule() }), ["2025/12/31"]);
}

#[test]
fn days_are_looked_for_where_the_rule_says() {
    let table = [
        (None, "", Look::Onward),
        (None, "2026/03", Look::Onward),
        (None, "shop", Look::No),
        (None, "shop/2026/03/05", Look::No),
        (Some("*/uploads/"), "", Look::Onward),
        (Some("*/uploads/"), "shop", Look::Onward),
        (Some("*/uploads/"), "shop/uploads", Look::Onward),
        (Some("*/uploads/"), "shop/uploads/2026", Look::Onward),
        (Some("*/uploads/"), "shop/uploads/x", Look::No),
        (Some("*/uploads/"), "shop/other", Look::No),
        (Some("*/uploads/"), "2026/03/05", Look::No),
        (Some("**/files"), "a/b", Look::Onward),
    ];
    for (under, at, expected) in table {
        let rule = Rule { under: under.map(|text| Under::parse(text).unwrap()), ..rule() };
        assert_eq!(rule.look(&path(at)), expected, "{under:?} {at}");
    }
    let day = NaiveDate::from_ymd_opt(2026, 3, 5).unwrap();
    for (under, at) in [("*/uploads", "shop/uploads/2026/03/05"), ("**", "2026/03/05"), ("**", "x/y/2026/03/05")] {
        let rule = Rule { under: Some(Under::parse(under).unwrap()), ..rule() };
        assert_eq!(rule.look(&path(at)), Look::Day(Period::day(day)), "{under} {at}");
    }
}

proptest! {
    #[test]
    fn no_day_moves_before_it_has_been_over_for_long_enough_in_its_zone(
        day in 0u64..20_000, hours in 0i64..400, age in 1u64..10, zone in 0..chrono_tz::TZ_VARIANTS.len(),
    ) {
        let zone = chrono_tz::TZ_VARIANTS[zone];
        let date = NaiveDate::from_ymd_opt(1971, 1, 1).unwrap() + chrono::Days::new(day);
        let rule = Rule { older_than: DAY * age as u32, ..rule() };
        let entry = entry(&rule, &date.format("%Y/%m/%d").to_string());
        let end = end_ns(entry.period, &zone).unwrap();
        let now = end + hours * 3_600_000_000_000;
        let moves = decide(&[entry], &rule, &zone, now)[0].decision == Decision::Move;
        prop_assert_eq!(moves, hours as u64 >= age * 24);
    }

    #[test]
    fn every_entry_has_one_verdict_and_the_order_of_finding_does_not_matter(seed in proptest::collection::vec(0u64..400, 0..20), turn in 0usize..20) {
        let rule = Rule { most_days: Some(3), ..rule() };
        let date = |day: &u64| (NaiveDate::from_ymd_opt(2025, 6, 1).unwrap() + chrono::Days::new(*day)).format("%Y/%m/%d").to_string();
        let mut days: Vec<String> = seed.iter().map(date).collect();
        days.sort();
        days.dedup();
        let mut entries: Vec<Entry> = days.iter().map(|day| entry(&rule, day)).collect();
        let now = ns("2026-04-01T00:00:00Z");
        let verdicts = decide(&entries, &rule, &Utc, now);
        prop_assert_eq!(verdicts.len(), entries.len());
        let middle = turn.min(entries.len());
        entries.rotate_left(middle);
        prop_assert_eq!(decide(&entries, &rule, &Utc, now), verdicts);
    }
}
