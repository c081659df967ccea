//! Runs of zeros: holes of sparse files, which need neither sums nor bytes.

/// Shortest run that is told as one.
pub const ZERO_RUN: usize = 64 << 10;

/// Number of zeros that `data` begins with, in whole units of `unit` bytes.
#[must_use]
pub fn zero_prefix(data: &[u8], unit: usize) -> usize {
    data.chunks_exact(unit).take_while(|chunk| all_zero(chunk)).count() * unit
}

/// The first unit of zeros at or after `start`; positions are counted from `start`, in steps of `unit`.
pub(super) fn first_zero_unit(data: &[u8], start: usize, unit: usize) -> Option<usize> {
    let units = data.get(start..)?.chunks_exact(unit);
    units.into_iter().position(all_zero).map(|at| start + at * unit)
}

fn all_zero(bytes: &[u8]) -> bool {
    let (head, chunks, tail) = (bytes.first(), bytes.chunks_exact(64), bytes.chunks_exact(64).remainder());
    // Almost every chunk that is not zero ends here.
    head.is_none_or(|byte| *byte == 0)
        && chunks.into_iter().all(|chunk| chunk.iter().fold(0, |sum, byte| sum | byte) == 0)
        && tail.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_units_of_zeros_count() {
        let mut data = vec![0u8; 4096];
        assert_eq!(zero_prefix(&data, 1024), 4096);
        data[3000] = 1;
        assert_eq!(zero_prefix(&data, 1024), 2048);
        assert_eq!(first_zero_unit(&data, 0, 1024), Some(0));
        assert_eq!(first_zero_unit(&data, 2600, 512), Some(3112));
        data[0] = 1;
        assert_eq!(zero_prefix(&data, 1024), 0);
        assert_eq!(first_zero_unit(&data, 0, 1024), Some(1024));
        assert_eq!(first_zero_unit(&data, 5000, 1024), None);
    }
}
