//! Which directories are watched first where there are not enough watches for all: the newest days.
//!
//! Names tell, where they are dates (`2026`, `2026/03`, `2026/03/05`, `2026-03`, `2026-03-05`, below any prefix); a directory below
//! a day counts as the day, one that is named for a year or month as its last day, since the newest day may be in it. Directories
//! without a date down to [`WAY`] levels come before all, since the way to the days may lead through them; deeper ones count by
//! the time of their last change.

use crate::path::RelPath;
use chrono::{Days, Months, NaiveDate};

/// Directories without a date in their path come first down to this depth.
const WAY: usize = 4;
/// What comes first.
pub(super) const FIRST: i64 = i64::MAX;

/// The larger, the sooner: the second after the directory's day is over, [`FIRST`], or what `changed` says.
pub(super) fn rank(path: &RelPath, changed: impl FnOnce() -> i64) -> i64 {
    match last_day(path.as_bytes()) {
        Some(day) => day.and_hms_opt(23, 59, 59).map_or(FIRST, |end| end.and_utc().timestamp()),
        None if path.depth() <= WAY => FIRST,
        None => changed(),
    }
}

/// The last day of the first period that the path names, read as far as it goes.
fn last_day(path: &[u8]) -> Option<NaiveDate> {
    let mut names = path.split(|byte| *byte == b'/');
    while let Some(name) = names.next() {
        let mut parts = name.split(|byte| *byte == b'-');
        let Some(year) = parts.next().and_then(|part| number(part, 4)).filter(|year| (1900..2200).contains(year)) else {
            continue;
        };
        let (mut rest, whole) = (parts.clone().chain(names.clone()), parts.clone().count());
        if whole > 0 && parts.any(|part| number(part, 2).is_none()) {
            continue;
        }
        let month = rest.next().and_then(|part| number(part, 2)).filter(|month| (1..=12).contains(month));
        let day = month.and_then(|_| rest.next()).and_then(|part| number(part, 2));
        let first = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month.unwrap_or(1), 1)?;
        let end = first.checked_add_months(Months::new(if month.is_some() { 1 } else { 12 }))?.checked_sub_days(Days::new(1))?;
        let named = month.zip(day).and_then(|(month, day)| NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day));
        return Some(named.unwrap_or(end));
    }
    None
}

fn number(part: &[u8], digits: usize) -> Option<u32> {
    (part.len() == digits && part.iter().all(u8::is_ascii_digit)).then(|| std::str::from_utf8(part).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_dates_tell_the_last_day_they_can_hold() {
        for (path, day) in [
            ("2026", "2026-12-31"),
            ("2026/02", "2026-02-28"),
            ("2024/02", "2024-02-29"),
            ("app/uploads/2026/03/05", "2026-03-05"),
            ("2026/03/05/thumbs/large", "2026-03-05"),
            ("logs/2026-03-05", "2026-03-05"),
            ("2026-03/05", "2026-03-05"),
            ("2026-03", "2026-03-31"),
            ("2023/02/30", "2023-02-28"),
            ("2026/13/01", "2026-12-31"),
            ("2026/x", "2026-12-31"),
        ] {
            let found = last_day(path.as_bytes()).map(|day| day.to_string());
            assert_eq!(found.as_deref(), Some(day), "{path}");
        }
        for path in ["", "a/b", "20260305", "2026x", "1234", "2026-x", "03/05"] {
            assert_eq!(last_day(path.as_bytes()), None, "{path}");
        }
    }

    #[test]
    fn the_way_comes_first_then_days_the_newest_before_and_the_rest_by_its_last_change() {
        let rank = |path: &str| rank(&RelPath::parse(path.as_bytes()).unwrap(), || 5);
        assert_eq!([rank(""), rank("a/b/c/d")], [FIRST; 2]);
        assert_eq!(rank("a/b/c/d/e"), 5);
        assert!(rank("2026/03/05") > rank("2026/03/04/deep/below"));
        assert!(rank("2026/03") > rank("2026/03/30"));
        assert!(rank("2025") > rank("2025/12/30"));
        assert!(rank("2026") > rank("2025"));
    }
}
