//! Values that people write the same way in a configuration and on the command line: durations, limits, rates. Pure.

use std::fmt;
use std::time::Duration;
use sync_core::io::sync::MaxDelete;
use sync_core::reserve::Reserve;

/// A hundred years: beyond it, date arithmetic in nanoseconds would overflow.
const LONGEST: Duration = Duration::from_secs(36_525 * 86_400);

/// How long replaced and deleted versions are kept: `7d`, `12h`, `30m`, `90s`, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention(pub Option<Duration>);

/// As it is written.
impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(kept) => write!(f, "{}s", kept.as_secs()),
            None => f.write_str("off"),
        }
    }
}

/// Parses a [`Retention`].
///
/// # Errors
/// A text that says what can be written.
pub fn retention(text: &str) -> Result<Retention, String> {
    if text == "off" {
        return Ok(Retention(None));
    }
    let wrong = || format!("{text:?} is no duration; give a number and d, h, m or s (7d), or off");
    if text.ends_with("ms") {
        return Err(wrong());
    }
    match parts(text).ok_or_else(wrong)? {
        (0, _) => Err("a duration of zero keeps nothing; say so with off".into()),
        (number, unit_ms) => in_bounds(text, number, unit_ms).map(|kept| Retention(Some(kept))),
    }
}

/// Parses a duration: `200ms`, `90s`, `30m`, `12h`, `7d`.
///
/// # Errors
/// A text that says what can be written.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; give a number and d, h, m, s or ms (90s)");
    let (number, unit_ms) = parts(text).ok_or_else(wrong)?;
    in_bounds(text, number, unit_ms)
}

fn in_bounds(text: &str, number: u64, unit_ms: u64) -> Result<Duration, String> {
    let duration = number.checked_mul(unit_ms).map(Duration::from_millis);
    duration.filter(|duration| *duration <= LONGEST).ok_or_else(|| format!("{text:?} is longer than a hundred years"))
}

/// The number, and the milliseconds of its unit.
fn parts(text: &str) -> Option<(u64, u64)> {
    const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let found = UNITS.iter().find_map(|(unit, ms)| Some((text.strip_suffix(unit)?, *ms)));
    let (number, unit_ms) = found?;
    Some((digits(number)?, unit_ms))
}

/// The deletion guard: `1000` paths, or `25%` of a root's.
///
/// # Errors
/// A text that says what can be written.
pub fn max_delete(text: &str) -> Result<MaxDelete, String> {
    let wrong = || format!("{text:?} is neither a number of paths nor a share like 25%");
    let Some(share) = text.strip_suffix('%') else {
        return digits(text).map(MaxDelete::Count).ok_or_else(wrong);
    };
    if !share.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(wrong());
    }
    match share.parse::<f64>() {
        Ok(share) if (0.0..=100.0).contains(&share) => Ok(MaxDelete::Percent(share)),
        Ok(_) => Err(format!("{text:?} is more than a whole root")),
        Err(_) => Err(wrong()),
    }
}

/// Bytes a second: `800K`, `1.5M`, `1G` (powers of 1,024), a number alone in KiB as rsync reads it, or `off`.
///
/// # Errors
/// A text that says what can be written.
pub fn rate(text: &str) -> Result<Option<u64>, String> {
    let wrong = || format!("{text:?} is no rate; give KiB a second (500), or a number with K, M or G (1.5M), or 0 for no limit");
    let (number, unit) = match text.as_bytes().last() {
        _ if text == "off" => return Ok(None),
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1u64 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1 << 10),
    };
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(wrong());
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    match number * unit as f64 {
        0.0 => Ok(None),
        bytes if bytes < 1_024.0 => Err(format!("{text:?} is less than the smallest limit, 1K; 0 is for no limit")),
        // Beyond a petabyte a second nothing is limited, and no sum of such numbers overflows.
        bytes if bytes > (1u64 << 50) as f64 => Err(format!("{text:?} is more than any link carries; 0 is for no limit")),
        bytes => Ok(Some(bytes as u64)),
    }
}

/// What stays free on a disk: `500M`, `2G`, `5%` of it, or `off`.
///
/// # Errors
/// A text that says what can be written.
pub fn reserve(text: &str) -> Result<Reserve, String> {
    if text == "off" {
        return Ok(Reserve::NONE);
    }
    let wrong = || format!("{text:?} is no room to be kept free; give a number with K, M, G or T (2G), a share like 5%, or off");
    if let Some(share) = text.strip_suffix('%') {
        return match digits(share).filter(|_| !share.is_empty()).ok_or_else(wrong)? {
            percent @ 0..=90 => Ok(Reserve { bytes: u64::MAX, percent }),
            _ => Err(format!("{text:?} leaves next to nothing of the disk: 90% is the most")),
        };
    }
    const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let found = UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(*unit)?, *shift)));
    let (number, shift) = found.ok_or_else(wrong)?;
    let bytes = digits(number).filter(|_| !number.is_empty()).ok_or_else(wrong)?.checked_mul(1 << shift).ok_or_else(wrong)?;
    Ok(Reserve { bytes, percent: 100 })
}

/// Digits alone: `str::parse` would take a sign.
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_is_a_number_and_a_unit_or_off() {
        for (given, seconds) in [("7d", 604_800), ("12h", 43_200), ("30m", 1_800), ("90s", 90)] {
            assert_eq!(retention(given), Ok(Retention(Some(Duration::from_secs(seconds)))));
        }
        assert_eq!(retention("off"), Ok(Retention(None)));
        for kept in ["7d", "90s", "off"].map(|text| retention(text).unwrap()) {
            assert_eq!(retention(&kept.to_string()), Ok(kept));
        }
        for wrong in ["", "7", "d", "-1d", "+1d", "1.5h", "7 d", "7w", "0s", "5ms", "99999999999999999999d", "40000d", "7é"] {
            assert!(retention(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_duration_may_be_as_short_as_a_millisecond() {
        for (given, ms) in [("0ms", 0), ("200ms", 200), ("2s", 2_000), ("3m", 180_000), ("1h", 3_600_000), ("1d", 86_400_000)] {
            assert_eq!(duration(given), Ok(Duration::from_millis(ms)));
        }
        for wrong in ["", "200", "ms", "-1s", "1.5s", "1 s", "off", "99999999999999999999d", "40000d"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_deletion_limit_is_a_number_or_a_share() {
        assert_eq!(max_delete("0"), Ok(MaxDelete::Count(0)));
        assert_eq!(max_delete("1000"), Ok(MaxDelete::Count(1000)));
        assert_eq!(max_delete("25%"), Ok(MaxDelete::Percent(25.0)));
        assert_eq!(max_delete("12.5%"), Ok(MaxDelete::Percent(12.5)));
        for wrong in ["", "%", "-1", "+1", "101%", "x", "1e3", "1e1%", "nan%", "inf%", "."] {
            assert!(max_delete(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_reserve_is_a_number_and_a_unit_a_share_or_off() {
        let bytes = |bytes| Ok(Reserve { bytes, percent: 100 });
        for (given, made) in
            [("512K", bytes(512 << 10)), ("500M", bytes(500 << 20)), ("2G", bytes(2 << 30)), ("1T", bytes(1 << 40))]
        {
            assert_eq!(reserve(given), made, "{given}");
        }
        assert_eq!(reserve("5%"), Ok(Reserve { bytes: u64::MAX, percent: 5 }));
        assert_eq!(reserve("off"), Ok(Reserve::NONE));
        for wrong in ["", "%", "G", "500", "-1G", "1.5G", "1GB", "95%", "2 G", "99999999999T", "x%"] {
            assert!(reserve(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_rate_is_a_number_and_a_unit_or_off() {
        for (given, bytes) in [("1K", 1 << 10), ("10M", 10 << 20), ("2g", 2 << 30), ("1.5M", 3 << 19), ("500", 500 << 10)] {
            assert_eq!(rate(given), Ok(Some(bytes)));
        }
        for none in ["off", "0", "0.0M"] {
            assert_eq!(rate(none), Ok(None), "{none}");
        }
        for wrong in ["", "M", ".", "-1M", "1e9", "10MB", "1.2.3", "0.5", "inf", "NaN", "99999999999999999999G"] {
            assert!(rate(wrong).is_err(), "{wrong:?}");
        }
    }
}
