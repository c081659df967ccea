//! Where days are in a tree: `%Y/%m/%d`, and the like. Pure.
//!
//! Only real dates are days: four, two and two digits, no sign, no blank, from the year 1000 on. Everything else in a tree is
//! none of ours.

use chrono::NaiveDate;
use std::fmt;
use sync_core::path::Name;

/// A day, or a month where a layout has no days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    first: NaiveDate,
    unit: Unit,
}

/// What the deepest directory of a layout stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// A day.
    Day,
    /// A month.
    Month,
}

/// A layout of days or months below some directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    text: String,
    /// One for each component of a path.
    parts: Vec<Vec<Piece>>,
    unit: Unit,
}

/// What a path below the base of a layout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The directory of a day or month.
    Period(Period),
    /// Days may lie below it.
    Onward,
    /// No part of the layout.
    No,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Year,
    Month,
    Day,
}

/// Fields read so far.
#[derive(Debug, Clone, Copy, Default)]
struct Read {
    year: Option<u32>,
    month: Option<u32>,
    day: Option<u32>,
}

impl Period {
    /// A day.
    #[must_use]
    pub fn day(first: NaiveDate) -> Period {
        Period { first, unit: Unit::Day }
    }

    /// The first day that is no part of it; `None` at the end of the calendar.
    #[must_use]
    pub fn next(self) -> Option<NaiveDate> {
        match self.unit {
            Unit::Day => self.first.succ_opt(),
            Unit::Month => self.first.checked_add_months(chrono::Months::new(1)),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::Day => write!(f, "{}", self.first.format("%Y-%m-%d")),
            Unit::Month => write!(f, "{}", self.first.format("%Y-%m")),
        }
    }
}

impl Layout {
    /// Reads a layout: components with `%Y`, `%m` and, for days, `%d`, once each and in this order, and other text around them
    /// (`%%` for a percent sign).
    ///
    /// # Errors
    /// Says what is wrong and what can be written.
    pub fn parse(text: &str) -> Result<Layout, String> {
        let wrong = |why: &str| {
            Err(format!(
                "{text:?} {why}; %Y, %m and, for days, %d are expected once each, in this order, such as %Y/%m/%d or %Y-%m-%d"
            ))
        };
        if text.split('/').any(|part| matches!(part, "" | "." | ".." | ".driftless")) || text.contains('\0') {
            return wrong("is no path below a root");
        }
        let Some(parts) = text.split('/').map(pieces).collect::<Option<Vec<_>>>() else {
            return wrong("is no layout of days");
        };
        let fields = parts.iter().flatten().filter_map(|piece| if let Piece::Field(field) = piece { Some(*field) } else { None });
        let unit = match fields.collect::<Vec<_>>()[..] {
            [Field::Year, Field::Month, Field::Day] => Unit::Day,
            [Field::Year, Field::Month] => Unit::Month,
            _ => return wrong("is no layout of days"),
        };
        Ok(Layout { text: text.to_owned(), parts, unit })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Number of components between the base and a day.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.parts.len()
    }

    /// What stands at `below`, the components below the base of the layout.
    #[must_use]
    pub fn step(&self, below: &[Name]) -> Step {
        if below.len() > self.parts.len() {
            return Step::No;
        }
        let mut read = Read::default();
        let fits = self.parts.iter().zip(below).all(|(part, name)| part_fits(part, name.as_bytes(), &mut read));
        if !fits || !read.is_possible() {
            return Step::No;
        }
        if below.len() < self.parts.len() {
            return Step::Onward;
        }
        read.date().map_or(Step::No, |first| Step::Period(Period { first, unit: self.unit }))
    }
}

impl Read {
    /// Can the fields that were read be a part of a date?
    fn is_possible(self) -> bool {
        self.year.is_none_or(|year| year >= 1000) && self.month.is_none_or(|month| (1..=12).contains(&month))
    }

    fn date(self) -> Option<NaiveDate> {
        NaiveDate::from_ymd_opt(i32::try_from(self.year?).ok()?, self.month?, self.day.unwrap_or(1))
    }
}

/// The pieces of one component; `None` for a `%` that means nothing here.
fn pieces(part: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut text = Vec::new();
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        let field = match byte {
            b'%' => rest.next()?,
            byte => {
                text.push(byte);
                continue;
            }
        };
        let field = match field {
            b'Y' => Field::Year,
            b'm' => Field::Month,
            b'd' => Field::Day,
            b'%' => {
                text.push(b'%');
                continue;
            }
            _ => return None,
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(Piece::Field(field));
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Some(pieces)
}

fn part_fits(part: &[Piece], mut name: &[u8], read: &mut Read) -> bool {
    for piece in part {
        let rest = match piece {
            Piece::Text(text) => name.strip_prefix(&text[..]),
            Piece::Field(Field::Year) => digits(name, 4, &mut read.year),
            Piece::Field(Field::Month) => digits(name, 2, &mut read.month),
            Piece::Field(Field::Day) => digits(name, 2, &mut read.day),
        };
        let Some(rest) = rest else { return false };
        name = rest;
    }
    name.is_empty()
}

/// Takes exactly so many digits; the rest of the name.
fn digits<'a>(name: &'a [u8], count: usize, value: &mut Option<u32>) -> Option<&'a [u8]> {
    let (number, rest) = name.split_at_checked(count)?;
    if !number.iter().all(u8::is_ascii_digit) {
        return None;
    }
    *value = Some(number.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')));
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sync_core::path::RelPath;

    fn step(layout: &str, path: &str) -> Step {
        let names: Vec<Name> = RelPath::parse(path.as_bytes()).unwrap().components().collect();
        Layout::parse(layout).unwrap().step(&names)
    }

    fn shown(layout: &str, path: &str) -> String {
        match step(layout, path) {
            Step::Period(period) => period.to_string(),
            Step::Onward => "onward".into(),
            Step::No => "no".into(),
        }
    }

    #[test]
    fn only_real_dates_are_days() {
        for (layout, path, expected) in [
            ("%Y/%m/%d", "2026/03/05", "2026-03-05"),
            ("%Y/%m/%d", "2024/02/29", "2024-02-29"),
            ("%Y/%m/%d", "2000/02/29", "2000-02-29"),
            ("%Y/%m/%d", "1900/02/29", "no"),
            ("%Y/%m/%d", "2023/02/29", "no"),
            ("%Y/%m/%d", "2023/02/30", "no"),
            ("%Y/%m/%d", "2026/04/31", "no"),
            ("%Y/%m/%d", "2026/00/01", "no"),
            ("%Y/%m/%d", "2026/13/01", "no"),
            ("%Y/%m/%d", "2026/01/00", "no"),
            ("%Y/%m/%d", "2026/01/32", "no"),
            ("%Y/%m/%d", "0999/01/01", "no"),
            ("%Y/%m/%d", "1000/01/01", "1000-01-01"),
            ("%Y/%m/%d", "9999/12/31", "9999-12-31"),
            ("%Y/%m/%d", "+026/03/05", "no"),
            ("%Y/%m/%d", "2026/3/05", "no"),
            ("%Y/%m/%d", "2026/ 3/05", "no"),
            ("%Y/%m/%d", "2026/03/5 ", "no"),
            ("%Y/%m/%d", "2026/03/+5", "no"),
            ("%Y/%m/%d", "02026/03/05", "no"),
            ("%Y/%m/%d", "2026/03/05/x", "no"),
            ("%Y/%m/%d", "2026/03/\u{0660}5", "no"),
            ("%Y/%m/%d", "2026", "onward"),
            ("%Y/%m/%d", "2026/03", "onward"),
            ("%Y/%m/%d", "2026/13", "no"),
            ("%Y/%m/%d", "0026", "no"),
            ("%Y/%m/%d", "logs", "no"),
            ("%Y-%m-%d", "2026-03-05", "2026-03-05"),
            ("%Y-%m-%d", "2026-03-05x", "no"),
            ("%Y%m%d", "20260305", "2026-03-05"),
            ("%Y/%m", "2026/03", "2026-03"),
            ("%Y/%m", "2026/00", "no"),
            ("%Y/files/%m-%d", "2026/files/03-05", "2026-03-05"),
            ("%Y/files/%m-%d", "2026/file/03-05", "no"),
            ("%Y/files/%m-%d", "2026/files", "onward"),
            ("y%Y/m%m/d%d.dir", "y2026/m03/d05.dir", "2026-03-05"),
            ("100%%/%Y/%m/%d", "100%/2026/03/05", "2026-03-05"),
            ("%Y/%m/%d/media", "2026/03/05/media", "2026-03-05"),
            ("%Y/%m/%d/media", "2026/03/05", "onward"),
        ] {
            assert_eq!(shown(layout, path), expected, "{layout} {path}");
        }
    }

    #[test]
    fn what_is_no_layout_is_refused_with_what_can_be_written() {
        for text in [
            "",
            "/%Y/%m/%d",
            "%Y/%m/%d/",
            "%Y//%m/%d",
            "../%Y/%m/%d",
            "%Y/%d/%m",
            "%m/%d",
            "%Y",
            "%Y/%d",
            "%Y/%m/%d/%d",
            "%Y/%m/%x",
            "%Y/%m/%",
            ".driftless/%Y/%m/%d",
            "days",
        ] {
            let told = Layout::parse(text).unwrap_err();
            assert!(told.contains("such as %Y/%m/%d"), "{text}: {told}");
        }
    }

    proptest! {
        #[test]
        fn every_date_is_found_by_its_name_and_by_no_other(days in 0i32..3_287_000) {
            // From the year 1000 to 9999.
            let date = NaiveDate::from_ymd_opt(1000, 1, 1).unwrap() + chrono::Days::new(days as u64);
            for layout in ["%Y/%m/%d", "%Y-%m-%d", "a%Y/b/%m/%dz"] {
                let path = date.format(layout).to_string();
                prop_assert_eq!(step(layout, &path), Step::Period(Period::day(date)));
            }
        }

        #[test]
        fn three_numbers_are_a_day_if_and_only_if_the_calendar_has_it(y in 0u32..10_000, m in 0u32..100, d in 0u32..100) {
            let real = NaiveDate::from_ymd_opt(y as i32, m, d).filter(|_| y >= 1000);
            let expected = real.map_or(Step::No, |date| Step::Period(Period::day(date)));
            prop_assert_eq!(step("%Y/%m/%d", &format!("{y:04}/{m:02}/{d:02}")), expected);
        }

        #[test]
        fn any_names_are_looked_at_without_a_panic(names in proptest::collection::vec("[^/\\x00]{1,12}", 1..5)) {
            let names: Vec<Name> = names.iter().filter_map(|name| Name::parse(name.as_bytes()).ok()).collect();
            prop_assert!(matches!(Layout::parse("%Y/%m/%d").unwrap().step(&names), Step::No | Step::Onward | Step::Period(_)));
        }
    }
}
