//! Tables of TOML with their lines: what is asked of a table, and every mistake with its key. Pure.

use super::{FAULTS, Fault};
use std::cell::RefCell;
use std::ops::Range;
use sync_core::path::escape;
use toml_edit::{Item, TableLike, Value};

/// Keys of one kind of table, in the order in which they are told.
pub(super) type Keys = &'static [&'static str];

/// The text, and what is wrong with it.
pub(super) struct Faults<'t> {
    text: &'t str,
    found: RefCell<Vec<Fault>>,
}

impl<'t> Faults<'t> {
    pub(super) fn new(text: &'t str) -> Faults<'t> {
        Faults { text, found: RefCell::default() }
    }

    /// Notes a mistake at a place of the text.
    pub(super) fn add(&self, span: Option<Range<usize>>, key: &str, text: impl Into<String>) {
        let before = span.and_then(|span| self.text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        // A key or a value may hold anything, and is shown on terminals.
        let fault = Fault { line, key: escape(key.as_bytes()), text: escape(text.into().as_bytes()) };
        let mut found = self.found.borrow_mut();
        if !found.contains(&fault) {
            found.push(fault);
        }
    }

    /// Those that were found, in the order of the text, the first [`FAULTS`] of them.
    pub(super) fn into_found(self) -> Vec<Fault> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|fault| fault.line);
        found.truncate(FAULTS);
        found
    }
}

/// One table, its key with those above it, and where it begins. Its unknown keys were noted when it was opened.
pub(super) struct Section<'a> {
    table: &'a dyn TableLike,
    faults: &'a Faults<'a>,
    key: String,
    span: Option<Range<usize>>,
}

impl<'a> Section<'a> {
    /// The table of the whole text.
    pub(super) fn top(table: &'a dyn TableLike, faults: &'a Faults<'a>, known: Keys) -> Section<'a> {
        Section { table, faults, key: String::new(), span: None }.checked(known)
    }

    fn checked(self, known: Keys) -> Section<'a> {
        for (key, _) in self.table.iter().filter(|(key, _)| !known.contains(key)) {
            self.wrong(key, unknown(key, known));
        }
        self
    }

    /// Notes a mistake of one key; of one that is not there, at the head of the table.
    pub(super) fn wrong(&self, key: &str, text: impl Into<String>) {
        self.faults.add(self.span_of(key).or_else(|| self.span.clone()), &self.path(key), text);
    }

    fn path(&self, key: &str) -> String {
        if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) }
    }

    fn span_of(&self, key: &str) -> Option<Range<usize>> {
        let (key, item) = self.table.get_key_value(key)?;
        key.span().or_else(|| item.span())
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        let item = self.table.get(key)?;
        if item.as_value().is_none() {
            self.wrong(key, "a table stands where a value is expected");
        }
        item.as_value()
    }

    /// A text, made into what it stands for.
    pub(super) fn parsed<T>(&self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.value(key)?;
        let Some(text) = value.as_str() else {
            self.wrong(key, format!("a text in quotes is expected, not {}", kind(value)));
            return None;
        };
        parse(text).map_err(|error| self.wrong(key, error)).ok()
    }

    /// As [`Section::parsed`], of a text that may also be a plain number.
    pub(super) fn parsed_or_number<T>(&self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match self.value(key)?.as_integer() {
            Some(number) => parse(&number.to_string()).map_err(|error| self.wrong(key, error)).ok(),
            None => self.parsed(key, parse),
        }
    }

    /// As [`Section::parsed`], of a key that must be there.
    pub(super) fn required<T>(&self, key: &str, what: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        if !self.has(key) {
            self.wrong(key, format!("is missing: {what}"));
        }
        self.parsed(key, parse)
    }

    /// Does the key stand there?
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        let value = self.value(key)?;
        if value.as_bool().is_none() {
            self.wrong(key, format!("true or false is expected, not {}", kind(value)));
        }
        value.as_bool()
    }

    /// A number between two others.
    pub(super) fn number(&self, key: &str, allowed: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let value = self.value(key)?;
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        let number = number.filter(|number| allowed.contains(number));
        if number.is_none() {
            self.wrong(key, format!("a number from {} to {} is expected", allowed.start(), allowed.end()));
        }
        number
    }

    /// A list of texts, each made into what it stands for.
    pub(super) fn list<T>(&self, key: &str, most: usize, mut parse: impl FnMut(&str) -> Result<T, String>) -> Vec<T> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.as_array() else {
            self.wrong(key, format!("a list of texts in brackets is expected, not {}", kind(value)));
            return Vec::new();
        };
        if array.len() > most {
            self.wrong(key, format!("has more than {most} entries"));
        }
        let mut values = Vec::new();
        for entry in array.iter().take(most) {
            let made = match entry.as_str() {
                Some(text) => parse(text),
                None => Err(format!("a text in quotes is expected, not {}", kind(entry))),
            };
            match made {
                Ok(value) => values.push(value),
                Err(error) => self.faults.add(entry.span().or_else(|| self.span_of(key)), &self.path(key), error),
            }
        }
        values
    }

    /// A table below this one, with the keys that it may have; without `known`, any.
    pub(super) fn table(&self, key: &str, known: Option<Keys>) -> Option<Section<'a>> {
        let item = self.table.get(key)?;
        let Some(table) = item.as_table_like() else {
            self.wrong(key, format!("a table is expected, not {}", item_kind(item)));
            return None;
        };
        let span = self.span_of(key).or_else(|| item.span());
        let opened = Section { table, faults: self.faults, key: self.path(key), span };
        Some(match known {
            Some(known) => opened.checked(known),
            None => opened,
        })
    }

    /// The keys of this table that stand for names, in the order of the text, up to so many.
    pub(super) fn names<N: std::str::FromStr<Err: ToString>>(&self, most: usize, what: &str) -> Vec<(N, &'a str)> {
        if self.table.len() > most {
            self.faults.add(self.span.clone(), &self.key, format!("has more than {most} {what}"));
        }
        let keys = self.table.iter().take(most).map(|(key, _)| key);
        let named = |key: &'a str| {
            let name = key.parse().map_err(|error: N::Err| self.wrong(key, error.to_string())).ok()?;
            Some((name, key))
        };
        keys.filter_map(named).collect()
    }
}

/// The message for a key that is not known here: the nearest known one, or all of them.
fn unknown(key: &str, known: Keys) -> String {
    let near = known.iter().map(|known| (strsim::damerau_levenshtein(key, known), *known)).min();
    match near {
        Some((distance, near)) if distance <= 1 + near.len() / 4 => format!("unknown key; did you mean {near}?"),
        _ => format!("unknown key; known here: {}", known.join(", ")),
    }
}

fn item_kind(item: &Item) -> &'static str {
    match item {
        Item::Value(value) => kind(value),
        Item::ArrayOfTables(_) => "a list of tables",
        Item::Table(_) | Item::None => "a table",
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::InlineTable(_) => "a table",
    }
}
