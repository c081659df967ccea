//! A rule as people write it, and as it is remembered beside the root: texts, and what they mean. Pure.

use super::{Layout, OutsideLinks, Rule, Under};
use crate::config::{self, LinkForm as Form, Timezone, link_form, outside_links, zone};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use sync_core::ignore::Rules;
use sync_core::io::archive::LinkForm;

const HOUR: u64 = 3_600_000;

/// What a user says of the days of a root. What is not said is as it was, or else as it is by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The cold root, absolute.
    pub cold: Option<PathBuf>,
    /// Where the days are.
    pub layout: Option<String>,
    /// Below which folders.
    pub under: Option<String>,
    /// What is left alone, gitignore syntax, a rule a line.
    pub exclude: Option<String>,
    /// Age, ms.
    pub older_than_ms: Option<u64>,
    /// Quiet time, ms.
    pub quiet_ms: Option<u64>,
    /// `local`, `UTC`, or a name.
    pub timezone: Option<String>,
    /// `absolute`, `relative` or `prefix=PATH`.
    pub link: Option<String>,
    /// `skip` or `rewrite`.
    pub outside_links: Option<String>,
    /// How long a day that moved is kept beside its copy, ms.
    pub keep_displaced_ms: Option<u64>,
    /// Most days of one run; 0 for all.
    pub most_days: Option<u64>,
}

/// A rule and how it is carried out.
#[derive(Debug, Clone)]
pub struct Order {
    /// Which days.
    pub rule: Rule,
    /// In which zone they are counted.
    pub zone: Timezone,
    /// Where they go.
    pub cold: PathBuf,
    /// How links in their place are written.
    pub form: LinkForm,
    /// How long they are kept beside their copies.
    pub keep: Duration,
}

impl Terms {
    /// What the configuration of an agent says.
    #[must_use]
    pub fn of(archive: &config::Archive) -> Terms {
        let ms = |time: Duration| Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let link = match &archive.link {
            Form::Absolute => "absolute".to_owned(),
            Form::Relative => "relative".to_owned(),
            Form::Prefix(path) => format!("prefix={}", path.display()),
        };
        let timezone = match &archive.timezone {
            Timezone::Local => "local",
            Timezone::Named(name) => name,
        };
        let outside_links = match archive.outside_links {
            OutsideLinks::Skip => "skip",
            OutsideLinks::Rewrite => "rewrite",
        };
        Terms {
            cold: Some(archive.cold.clone()),
            layout: Some(archive.layout.clone()),
            under: archive.under.clone(),
            exclude: None,
            older_than_ms: ms(archive.older_than),
            quiet_ms: ms(archive.quiet),
            timezone: Some(timezone.to_owned()),
            link: Some(link),
            outside_links: Some(outside_links.to_owned()),
            keep_displaced_ms: ms(archive.keep_displaced),
            most_days: None,
        }
    }

    /// These terms, and where they say nothing, the other ones.
    #[must_use]
    pub fn or(self, other: Terms) -> Terms {
        Terms {
            cold: self.cold.or(other.cold),
            layout: self.layout.or(other.layout),
            under: self.under.or(other.under),
            exclude: self.exclude.or(other.exclude),
            older_than_ms: self.older_than_ms.or(other.older_than_ms),
            quiet_ms: self.quiet_ms.or(other.quiet_ms),
            timezone: self.timezone.or(other.timezone),
            link: self.link.or(other.link),
            outside_links: self.outside_links.or(other.outside_links),
            keep_displaced_ms: self.keep_displaced_ms.or(other.keep_displaced_ms),
            most_days: self.most_days.or(other.most_days),
        }
    }

    /// How long nothing in a day must have changed.
    #[must_use]
    pub fn quiet(&self) -> Duration {
        Duration::from_millis(self.quiet_ms.unwrap_or(24 * HOUR))
    }

    /// How long the old copy of a day is kept.
    #[must_use]
    pub fn keep_displaced(&self) -> Duration {
        Duration::from_millis(self.keep_displaced_ms.unwrap_or(72 * HOUR))
    }

    /// What they mean.
    ///
    /// # Errors
    /// What makes no sense, and what can be written.
    pub fn order(&self) -> Result<Order, String> {
        let cold = self.cold.clone().ok_or("which cold root? Name it with --cold; it is remembered after the first run")?;
        let text = |value: &Option<String>, standard: &str| value.clone().unwrap_or_else(|| standard.to_owned());
        let time = |value: Option<u64>, hours: u64| Duration::from_millis(value.unwrap_or(hours * HOUR));
        let outside_links: OutsideLinks = outside_links(&text(&self.outside_links, "skip"))?;
        let rule = Rule {
            layout: Layout::parse(&text(&self.layout, "%Y/%m/%d"))?,
            under: self.under.as_deref().map(Under::parse).transpose()?,
            exclude: Rules::parse(&text(&self.exclude, "")).map_err(|error| error.to_string())?,
            older_than: time(self.older_than_ms, 72),
            quiet: self.quiet(),
            outside_links,
            min_peers: 0,
            most_days: self.most_days.filter(|most| *most > 0).map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
            most_bytes: None,
        };
        rule.check().map_err(|error| error.to_string())?;
        let form = match link_form(&text(&self.link, "absolute"))? {
            Form::Absolute => LinkForm::Absolute,
            Form::Relative => LinkForm::Relative,
            Form::Prefix(path) => LinkForm::Prefix(path),
        };
        let keep = self.keep_displaced();
        let zone = zone(&text(&self.timezone, "local"))?;
        if let Timezone::Named(name) = &zone
            && name.parse::<chrono_tz::Tz>().is_err()
        {
            return Err(format!("{name:?} is no time zone that is known: give local, UTC, or a name such as Asia/Hong_Kong"));
        }
        Ok(Order { rule, zone, cold, form, keep })
    }

    /// As they are remembered.
    #[must_use]
    pub fn remembered(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers")
    }

    /// Remembered ones.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn recall(bytes: &[u8]) -> Result<Terms, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("the remembered rule cannot be read ({error})"))
    }

    /// The cold root, for messages.
    #[must_use]
    pub fn cold(&self) -> Option<&Path> {
        self.cold.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_it_was_or_as_it_is_by_default() {
        let said = Terms { layout: Some("%Y-%m-%d".into()), cold: Some("/mnt/cold".into()), ..Terms::default() };
        let before = Terms { layout: Some("%Y/%m".into()), quiet_ms: Some(5), ..Terms::default() };
        let both = Terms::recall(&said.or(before).remembered()).unwrap();
        let order = both.order().unwrap();
        assert_eq!((order.rule.layout.text(), order.rule.quiet), ("%Y-%m-%d", Duration::from_millis(5)));
        assert_eq!((order.rule.older_than, order.keep), (Duration::from_millis(72 * HOUR), Duration::from_millis(72 * HOUR)));
        assert_eq!((order.form, order.zone), (LinkForm::Absolute, Timezone::Local));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let with = |change: fn(&mut Terms)| {
            let mut terms = Terms { cold: Some("/c".into()), ..Terms::default() };
            change(&mut terms);
            terms.order().unwrap_err()
        };
        assert!(Terms::default().order().unwrap_err().contains("--cold"));
        assert!(with(|terms| terms.older_than_ms = Some(HOUR)).contains("at least a day"));
        assert!(with(|terms| terms.layout = Some("%d".into())).contains("%Y/%m/%d"));
        assert!(with(|terms| terms.timezone = Some("Hong Kong".into())).contains("Asia/Hong_Kong"));
        assert!(with(|terms| terms.link = Some("soft".into())).contains("prefix="));
        assert!(with(|terms| terms.outside_links = Some("keep".into())).contains("rewrite"));
        assert!(Terms::recall(b"{").is_err());
    }
}
