//! How many watches the system grants, and what to do when they do not suffice.

use std::fmt;

/// Where the system keeps its limits, and those of a container.
const SYSCTL: [&str; 2] = ["/proc/sys/fs/inotify/max_user_", "/proc/sys/user/max_inotify_"];
/// A proposed limit is a multiple of this.
const STEP: u64 = 65_536;

/// There are fewer watches than directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// Directories that have a watch.
    pub watched: u64,
    /// Directories that have none for want of more, as they were counted when that was found. What came below them since is not
    /// in it.
    pub missing: u64,
    /// The limit that was met.
    pub limit: Limit,
}

/// What limits the number of watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `fs.inotify.max_user_watches`, for all processes of the user together; `None` where the system does not tell it.
    System(Option<u64>),
    /// The number that was asked for.
    Asked(u64),
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage { watched, missing, limit } = self;
        let needed = watched + missing;
        write!(f, "{needed} directories need a watch, and {watched} have one: ")?;
        match limit {
            Limit::Asked(limit) => write!(f, "no more than {limit} are to be set")?,
            Limit::System(limit) => {
                // Other processes of the user have what of the limit is not ours.
                let short = limit.unwrap_or(0).max(*watched) + missing;
                let enough = enough(short);
                match limit {
                    Some(limit) => write!(f, "the system's limit is {limit} for all processes of a user; ")?,
                    None => write!(f, "the system grants no more; ")?,
                }
                write!(f, "set it with sysctl fs.inotify.max_user_watches={enough}")?;
            }
        }
        write!(f, "; until then the newest days have the watches, and the other directories are looked at now and then")
    }
}

/// A limit with which so many watches can be had, and some more: directories become more.
#[must_use]
pub fn enough(needed: u64) -> u64 {
    needed.saturating_add(needed / 4).div_ceil(STEP).saturating_mul(STEP)
}

/// `fs.inotify.max_user_watches`: watches that all processes of a user may have together; `None` where the system does not tell.
#[must_use]
pub fn granted() -> Option<u64> {
    watches()
}

/// `fs.inotify.max_user_watches`.
pub(super) fn watches() -> Option<u64> {
    read("watches")
}

/// `fs.inotify.max_user_instances`.
pub(super) fn instances() -> Option<u64> {
    read("instances")
}

fn read(name: &str) -> Option<u64> {
    SYSCTL.iter().filter_map(|place| std::fs::read_to_string(format!("{place}{name}")).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_tells_the_numbers_and_the_line_to_set() {
        let text = |limit| Shortage { watched: 8_192, missing: 100_000, limit }.to_string();
        let told = text(Limit::System(Some(10_000)));
        assert!(told.starts_with("108192 directories need a watch, and 8192 have one: the system's limit is 10000 "), "{told}");
        assert!(told.contains("; set it with sysctl fs.inotify.max_user_watches=196608; "), "{told}");
        assert!(text(Limit::System(None)).contains("max_user_watches=196608"));
        assert!(text(Limit::Asked(8_192)).contains("no more than 8192 are to be set; until then"));
    }
}
