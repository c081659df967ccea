//! When something is done again, by the rule's zone. Pure: the time is an argument.

use crate::config::{Schedule, Timezone};
use chrono::{DateTime, LocalResult, NaiveTime, TimeDelta, TimeZone};
use chrono_tz::Tz;

/// Days looked through for one on which the hour comes: no zone ever left out two in a row.
const DAYS: i64 = 4;
/// Longest stretch of local time that a zone leaves out when clocks go ahead, minutes; what it left out whole is the next day's.
const LEFT_OUT_MINUTES: i64 = 3 * 60;

/// The first moment after `since_ns` at which the schedule says so, both ns since 1970. A zone that is in no database is taken for UTC:
/// that it is in none is told by whoever decides about days.
#[must_use]
pub fn next_ns(schedule: Schedule, zone: &Timezone, since_ns: i64) -> i64 {
    match schedule {
        Schedule::Every(wait) => since_ns.saturating_add(i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX)),
        Schedule::Daily { hour, minute } => {
            let time = NaiveTime::from_hms_opt(hour, minute, 0).unwrap_or_default();
            match zone {
                Timezone::Local => daily(&chrono::Local, time, since_ns),
                Timezone::Named(name) => daily(&name.parse().unwrap_or(Tz::UTC), time, since_ns),
            }
        }
    }
}

/// Where the hour comes twice, the first one counts; where it is left out, the first moment after it.
fn daily(zone: &impl TimeZone, time: NaiveTime, since_ns: i64) -> i64 {
    let since = DateTime::from_timestamp_nanos(since_ns);
    let first = since.with_timezone(zone).date_naive();
    let moment = |days: i64| {
        let wanted = first.checked_add_signed(TimeDelta::days(days))?.and_time(time);
        let found = (0..=LEFT_OUT_MINUTES).find_map(|minutes| {
            match zone.from_local_datetime(&wanted.checked_add_signed(TimeDelta::minutes(minutes))?) {
                LocalResult::Single(moment) | LocalResult::Ambiguous(moment, _) => Some(moment),
                LocalResult::None => None,
            }
        })?;
        found.timestamp_nanos_opt().filter(|at| *at > since_ns)
    };
    (0..DAYS).find_map(moment).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn next(schedule: Schedule, zone: &str, since: &str) -> String {
        let since: DateTime<chrono::Utc> = since.parse().unwrap();
        let at = next_ns(schedule, &Timezone::Named(zone.into()), since.timestamp_nanos_opt().unwrap());
        DateTime::from_timestamp_nanos(at).format("%Y-%m-%dT%H:%M:%S").to_string()
    }

    #[test]
    fn the_next_moment_comes_after_the_last_one_by_the_clock_of_the_zone() {
        let three = Schedule::Daily { hour: 3, minute: 0 };
        for (schedule, zone, since, expected) in [
            (three, "UTC", "2026-03-20T02:59:59Z", "2026-03-20T03:00:00"),
            (three, "UTC", "2026-03-20T03:00:00Z", "2026-03-21T03:00:00"),
            (three, "Asia/Hong_Kong", "2026-03-20T12:00:00Z", "2026-03-20T19:00:00"),
            // The hour is left out, and comes twice.
            (Schedule::Daily { hour: 2, minute: 30 }, "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00"),
            (Schedule::Daily { hour: 2, minute: 30 }, "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00"),
            (Schedule::Daily { hour: 2, minute: 30 }, "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00"),
            // A whole day was left out by a step over the date line.
            (three, "Pacific/Apia", "2011-12-29T20:00:00Z", "2011-12-30T13:00:00"),
            (Schedule::Every(Duration::from_secs(90)), "UTC", "2026-03-20T12:00:00Z", "2026-03-20T12:01:30"),
        ] {
            assert_eq!(next(schedule, zone, since), expected, "{schedule:?} {zone} {since}");
        }
    }
}
