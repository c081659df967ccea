//! What stays free on a file system that content is brought to. Pure.
//!
//! A disk that is full to its last byte fails everybody on it: the programs whose files are synchronised, and the state that has to
//! record what was done.

/// What stays free: so many bytes, or so many hundredths of the file system if that is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    /// At the most.
    pub bytes: u64,
    /// Of the whole file system, at the most 100.
    pub percent: u64,
}

impl Reserve {
    /// Nothing but what the state itself needs: who runs a command that is over in a moment sees what comes of it.
    pub const NONE: Reserve = Reserve { bytes: 0, percent: 0 };
    /// For whatever runs all the time. A gigabyte is enough for logs and databases to go on until somebody has read the warning; of a
    /// small disk it would be a large share, and 2 % is what nobody misses there.
    pub const STANDARD: Reserve = Reserve { bytes: 1 << 30, percent: 2 };

    /// Bytes of a file system of this size.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        let share = u128::from(total) * u128::from(self.percent.min(100)) / 100;
        self.bytes.min(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_large_disk_a_gigabyte_stays_free_and_of_a_small_one_a_share() {
        let (gib, mib) = (1 << 30, 1 << 20);
        for (reserve, total, bytes) in [
            (Reserve::STANDARD, 1 << 40, gib),
            (Reserve::STANDARD, 50 * gib, gib),
            (Reserve::STANDARD, 10 * gib, gib / 5),
            (Reserve::STANDARD, 100 * mib, 2 * mib),
            (Reserve::STANDARD, 0, 0),
            (Reserve::NONE, u64::MAX, 0),
            (Reserve { bytes: u64::MAX, percent: 5 }, u64::MAX, u64::MAX / 20),
            (Reserve { bytes: 10 * gib, percent: 100 }, 5 * gib, 5 * gib),
        ] {
            assert_eq!(reserve.of(total), bytes, "{reserve:?} of {total}");
        }
    }
}
