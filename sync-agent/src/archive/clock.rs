//! When a day has ended, and whether the clock can be believed. Pure: the time, the zone and what was remembered are arguments.

use super::layout::Period;
use chrono::{LocalResult, NaiveDate, NaiveTime, TimeDelta, TimeZone};
use std::time::Duration;
use sync_core::path::RelPath;

/// So far may the clock be behind the last run, or behind changes that the machine itself has stamped.
pub const BACK: Duration = Duration::from_secs(3600);
/// So much more than the machine ran may have passed on its clock since the last run.
pub const AHEAD: Duration = Duration::from_secs(24 * 3600);
/// Longest stretch of local time that a zone ever left out: a day, by a step over the date line, with its margin.
const LEFT_OUT_MINUTES: i64 = 2 * 24 * 60;

/// A moment, as the clock and the machine tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The clock, ns since 1970.
    pub now_ns: i64,
    /// How long the machine has been up, suspended times included, ns.
    pub up_ns: i64,
    /// Which start of the machine that counts from.
    pub boot: String,
}

/// Why the clock is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Jump {
    /// It was later before.
    #[error("the clock is {} behind the last archiving run", words(.0))]
    BehindLast(Duration),
    /// Something bears a change time that has not come yet, this the latest.
    #[error("the clock is {} behind the newest change in the tree, that of {}", words(.0), .1)]
    BehindChanges(Duration, RelPath),
    /// It went on faster than the machine ran.
    #[error("the clock went {} ahead since the last archiving run, beyond the time that the machine ran", words(.0))]
    Ahead(Duration),
}

/// Can the clock be believed? `newest` is the latest time by which the machine itself stamped a change in the tree, ns, and of what; the
/// modification times of files are whatever their writers say, and no evidence.
///
/// # Errors
/// What speaks against it.
pub fn check(now: &Moment, last: Option<&Moment>, newest: Option<(i64, &RelPath)>) -> Result<(), Jump> {
    if let Some(last) = last {
        let behind = between(now.now_ns, last.now_ns);
        if behind > BACK {
            return Err(Jump::BehindLast(behind));
        }
        if last.boot == now.boot && !now.boot.is_empty() {
            let ran = now.up_ns.saturating_sub(last.up_ns);
            let ahead = between(ran, now.now_ns.saturating_sub(last.now_ns));
            if ahead > AHEAD {
                return Err(Jump::Ahead(ahead));
            }
        }
    }
    let behind = newest.map(|(newest_ns, path)| (between(now.now_ns, newest_ns), path)).filter(|(behind, _)| *behind > BACK);
    behind.map_or(Ok(()), |(behind, path)| Err(Jump::BehindChanges(behind, path.clone())))
}

/// How much later the second time is; nothing if it is not.
fn between(first_ns: i64, second_ns: i64) -> Duration {
    Duration::from_nanos(u64::try_from(second_ns.saturating_sub(first_ns)).unwrap_or(0))
}

/// When a day or month ended in a zone, ns since 1970; `None` beyond what can be counted.
pub fn end_ns(period: Period, zone: &impl TimeZone) -> Option<i64> {
    midnight_ns(period.next()?, zone)
}

/// When a day began. Where the hour of midnight comes twice, it has begun with the later one: then the day before is over for
/// certain. Where it was left out, with the first moment after.
fn midnight_ns(date: NaiveDate, zone: &impl TimeZone) -> Option<i64> {
    let midnight = date.and_time(NaiveTime::MIN);
    let found = (0..=LEFT_OUT_MINUTES).find_map(|minutes| {
        match zone.from_local_datetime(&midnight.checked_add_signed(TimeDelta::minutes(minutes))?) {
            LocalResult::Single(moment) | LocalResult::Ambiguous(_, moment) => Some(moment),
            LocalResult::None => None,
        }
    })?;
    found.timestamp_nanos_opt()
}

/// A duration as people say it.
pub(super) fn words(duration: &Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, 0, _) => format!("{days} d"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};
    use chrono_tz::Tz;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000_000_000;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn end(day: &str, zone: &str) -> String {
        let zone: Tz = zone.parse().unwrap();
        DateTime::<Utc>::from_timestamp_nanos(end_ns(Period::day(date(day)), &zone).unwrap()).format("%Y-%m-%dT%H:%M").to_string()
    }

    #[test]
    fn a_day_ends_at_midnight_of_its_zone() {
        for (day, zone, expected) in [
            ("2026-03-05", "UTC", "2026-03-06T00:00"),
            ("2026-03-05", "Asia/Hong_Kong", "2026-03-05T16:00"),
            ("2026-03-05", "Pacific/Kiritimati", "2026-03-05T10:00"),
            ("2026-03-05", "Etc/GMT+12", "2026-03-06T12:00"),
            ("2026-03-05", "Asia/Kathmandu", "2026-03-05T18:15"),
            // Clocks go on, and back, in the night after these days: the days are an hour shorter and longer.
            ("2026-03-28", "Europe/Berlin", "2026-03-28T23:00"),
            ("2026-03-29", "Europe/Berlin", "2026-03-29T22:00"),
            ("2026-10-25", "Europe/Berlin", "2026-10-25T23:00"),
            // Midnight itself was left out.
            ("2018-11-03", "America/Sao_Paulo", "2018-11-04T03:00"),
            // The hour before midnight came twice: the day has ended after the second one.
            ("2018-02-17", "America/Sao_Paulo", "2018-02-18T03:00"),
            // The hour of midnight came twice, in Havana: 2025-11-02 began twice.
            ("2025-11-01", "America/Havana", "2025-11-02T05:00"),
            // A whole day was left out, in Samoa.
            ("2011-12-29", "Pacific/Apia", "2011-12-30T10:00"),
            ("2024-02-28", "UTC", "2024-02-29T00:00"),
            ("2024-02-29", "UTC", "2024-03-01T00:00"),
        ] {
            assert_eq!(end(day, zone), expected, "{day} {zone}");
        }
    }

    fn moment(now: i64, up: i64, boot: &str) -> Moment {
        Moment { now_ns: now * HOUR, up_ns: up * HOUR, boot: boot.into() }
    }

    #[test]
    fn a_clock_that_jumped_is_not_believed() {
        let (last, path) = (moment(1000, 10, "a"), RelPath::parse(b"2026/03/05/x").unwrap());
        for (now, newest, fine) in [
            (moment(1000, 10, "a"), None, true),
            (moment(999, 10, "a"), None, true),
            (moment(998, 10, "a"), None, false),
            (moment(1024, 34, "a"), None, true),
            (moment(1048, 34, "a"), None, true),
            (moment(1060, 34, "a"), None, false),
            // After a restart the machine cannot tell how long it was off.
            (moment(9000, 1, "b"), None, true),
            (moment(998, 1, "b"), None, false),
            (moment(1000, 10, "a"), Some(1001), true),
            (moment(1000, 10, "a"), Some(1002), false),
            (moment(1000, 10, "a"), Some(5), true),
        ] {
            let newest = newest.map(|hours: i64| (hours * HOUR, &path));
            assert_eq!(check(&now, Some(&last), newest).is_ok(), fine, "{now:?} {newest:?}");
        }
        assert!(check(&moment(5, 1, "a"), None, None).is_ok());
        let told = check(&moment(990, 10, "a"), Some(&last), None).unwrap_err().to_string();
        assert_eq!(told, "the clock is 10 h 0 min behind the last archiving run");
        let told = check(&last, None, Some((1050 * HOUR, &path))).unwrap_err().to_string();
        assert_eq!(told, "the clock is 2 d 2 h behind the newest change in the tree, that of 2026/03/05/x");
    }

    proptest! {
        #[test]
        fn days_follow_each_other_without_a_gap_in_every_zone(zone in 0..chrono_tz::TZ_VARIANTS.len(), day in 0u64..40_000) {
            let zone = chrono_tz::TZ_VARIANTS[zone];
            let first = date("1970-01-02") + chrono::Days::new(day);
            let [a, b] = [first, first + chrono::Days::new(1)].map(|date| end_ns(Period::day(date), &zone).unwrap());
            // A day that a zone left out has no length; those around a change of the clock have an hour more or less.
            prop_assert!(a <= b && b - a <= 50 * HOUR, "{zone} {first}");
            let utc = end_ns(Period::day(first), &Utc).unwrap();
            prop_assert!((a - utc).abs() <= 26 * HOUR, "{zone} {first}");
        }

        #[test]
        fn whatever_the_times_the_check_answers(a in any::<i64>(), b in any::<i64>(), c in any::<i64>(), d in any::<i64>()) {
            let moment = |now_ns, up_ns| Moment { now_ns, up_ns, boot: "x".into() };
            let answer = check(&moment(a, b), Some(&moment(c, d)), Some((d, &RelPath::root())));
            prop_assert!(answer.is_err() || c.saturating_sub(a) <= HOUR);
        }
    }
}
