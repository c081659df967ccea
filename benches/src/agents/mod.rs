//! What runs all the time, on two roots of one machine: driftless as two agents, syncthing as two daemons, unison that looks again and
//! again, lsyncd. How long a change takes to the other side, what a stream of them takes, and what it costs to wait.

mod burst;
mod case;
mod idle;
mod latency;
mod pair;
mod tool;

pub(crate) use case::Case;
pub(crate) use tool::Tool;

use crate::args::Args;
use crate::lab::Lab;
use crate::links::sheet::Sheet;
use anyhow::Result;
use fixtures::linkemu::End;

/// Runs the cases and prints a table for each; nothing, and loudly, where there are no namespaces to be had.
pub(crate) fn run(args: &Args) -> Result<Vec<Sheet>> {
    let place = match End::alone() {
        Ok(place) => place,
        Err(error) => {
            eprintln!("SKIPPED: no network namespaces here, so no agents were measured: {error:#}");
            return Ok(Vec::new());
        }
    };
    let mut lab = Lab::open(args, case::needs(&args.agents, args))?;
    let mut sheets = Vec::new();
    for case in &args.agents {
        eprintln!("{}", case.name());
        let sheet = match case {
            Case::Latency => latency::run(&mut lab, args, &place)?,
            Case::Burst => burst::run(&mut lab, args, &place)?,
            Case::Idle1m => idle::run(&mut lab, args, &place)?,
        };
        println!("{}", sheet.markdown());
        sheets.push(sheet);
    }
    lab.close()?;
    Ok(sheets)
}

/// The value below which so many of a thousand values are; of nothing, no number.
fn per_mille(sorted: &[f64], share: usize) -> f64 {
    let at = (sorted.len() * share).div_ceil(1000).max(1) - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::per_mille;

    #[test]
    fn the_middle_and_the_tail_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=300).map(f64::from).collect();
        assert_eq!([500, 990, 1000].map(|share| per_mille(&values, share)), [150.0, 297.0, 300.0]);
        assert!(per_mille(&[], 500).is_nan());
    }
}
