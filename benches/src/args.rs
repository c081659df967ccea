//! The command line of the benchmarks.

use crate::agents;
use crate::archive;
use crate::cases::Case;
use crate::links;
use anyhow::{Context as _, Result, bail, ensure};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Text of `--help`.
pub(crate) const HELP: &str = "\
Usage: cargo run --release -p benches -- [links|agents|archive] [OPTIONS]

  links            the second root behind a connection: driftless serve, unison -socket, rsync --daemon; needs root
  agents           what runs all the time: two agents, syncthing, unison -repeat, lsyncd; needs root
  archive          days that move to a cold root, beside cp -a and a flush; needs root
  --case NAME      one of the cases; may stand several times, or names joined by commas (default: all on trees;
                   of links all but those for memory)
                   goodput: one connection through an emulated bad network; needs root
  --quick          one round, trees ten times smaller
  --scale N        trees N times smaller
  --rounds N       rounds to take the median of (default 3)
  --settle SECONDS rest before the first run and after every mass deletion (default 45, with --quick 5)
  --dir DIR        where the trees are made (default: benches/out)
  --fresh          on a new ext4 of their own, in a file in DIR (as root): no old deletions slow it down
  --tool NAME      of agents: only tools whose names begin so
  --deadline SECONDS  what a run over a bad link of links has done by then is shown, and it is ended (60)
  --driftless PATH the binary (default: driftless beside this one)
  --keep           leave the trees behind
";

/// What a run of the benchmarks is to do.
#[derive(Debug)]
pub(crate) struct Args {
    /// Cases on trees.
    pub(crate) cases: Vec<Case>,
    /// The case on a network too?
    pub(crate) goodput: bool,
    /// Cases with the second root behind a connection.
    pub(crate) links: Vec<links::Case>,
    /// Cases with what runs all the time, and the tool to which they are limited.
    pub(crate) agents: Vec<agents::Case>,
    pub(crate) tool: Option<String>,
    /// Cases with days that move.
    pub(crate) archive: Vec<archive::Case>,
    /// How long a run over a bad link may take.
    pub(crate) deadline: Duration,
    pub(crate) scale: u64,
    pub(crate) rounds: usize,
    pub(crate) settle: Duration,
    pub(crate) dir: PathBuf,
    pub(crate) fresh: bool,
    pub(crate) out: PathBuf,
    pub(crate) driftless: PathBuf,
    pub(crate) keep: bool,
}

impl Args {
    pub(crate) fn parse(words: &[OsString]) -> Result<Args> {
        let (mut cases, mut links, mut dir, mut driftless) = (Vec::new(), Vec::new(), None, None);
        let (mut quick, mut keep, mut fresh, mut goodput) = (false, false, false, false);
        let (mut scale, mut rounds, mut settle, mut deadline) = (None, None, None, None);
        let over_links = words.first().is_some_and(|word| word == "links");
        let of_agents = words.first().is_some_and(|word| word == "agents");
        let (mut agents, mut tool) = (Vec::new(), None);
        let of_days = words.first().is_some_and(|word| word == "archive");
        let mut days = Vec::new();
        let mut words = words.iter().skip(usize::from(over_links || of_agents || of_days));
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{} wants a value", word.display()));
            match word.to_str() {
                Some("--quick") => quick = true,
                Some("--keep") => keep = true,
                Some("--fresh") => fresh = true,
                Some("--case") => {
                    for name in value()?.to_string_lossy().split(',') {
                        match name {
                            _ if of_agents => agents.push(agents::Case::parse(name)?),
                            _ if of_days => days.push(archive::Case::parse(name)?),
                            _ if over_links => links.push(links::Case::parse(name)?),
                            "goodput" => goodput = true,
                            _ => cases.push(Case::parse(name)?),
                        }
                    }
                }
                Some("--dir") => dir = Some(PathBuf::from(value()?)),
                Some("--driftless") => driftless = Some(PathBuf::from(value()?)),
                Some("--scale") => scale = Some(number(value()?)?),
                Some("--rounds") => rounds = Some(number(value()?)?),
                Some("--settle") => settle = Some(number(value()?)?),
                Some("--tool") if of_agents => tool = Some(value()?.to_string_lossy().into_owned()),
                Some("--deadline") if over_links => deadline = Some(number(value()?)?),
                _ => bail!("{} is not understood\n\n{HELP}", word.display()),
            }
        }
        let scale = scale.unwrap_or(if quick { 10 } else { 1 });
        let rounds = rounds.unwrap_or(if quick { 1 } else { 3 });
        ensure!(scale > 0 && rounds > 0, "--scale and --rounds want at least 1");
        if of_agents && agents.is_empty() {
            agents = agents::Case::ALL.to_vec();
        }
        if of_days && days.is_empty() {
            days = archive::Case::ALL.to_vec();
        }
        let on_trees = !over_links && !of_agents && !of_days && (!goodput || !cases.is_empty());
        if over_links && links.is_empty() {
            links = links::Case::DEFAULT.to_vec();
        }
        let out = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/out"));
        Ok(Args {
            goodput,
            links,
            agents,
            tool,
            archive: days,
            deadline: Duration::from_secs(deadline.unwrap_or(60).max(1)),
            driftless: driftless.map_or_else(
                || if on_trees || over_links || of_agents || of_days { beside_this() } else { Ok(PathBuf::new()) },
                Ok,
            )?,
            cases: if on_trees && cases.is_empty() { Case::ALL.to_vec() } else { cases },
            scale,
            rounds: usize::try_from(rounds)?,
            settle: Duration::from_secs(settle.unwrap_or(if quick { 5 } else { 45 })),
            dir: dir.unwrap_or_else(|| out.clone()),
            fresh,
            out,
            keep,
        })
    }
}

impl Args {
    /// Those of the tools that are to be measured.
    pub(crate) fn tools(&self, tools: Vec<agents::Tool>) -> Vec<agents::Tool> {
        let wanted = |tool: &agents::Tool| self.tool.as_ref().is_none_or(|name| tool.name().starts_with(name.as_str()));
        tools.into_iter().filter(wanted).collect()
    }
}

fn number(word: &OsString) -> Result<u64> {
    word.to_str().and_then(|text| text.parse().ok()).with_context(|| format!("{} is no number", word.display()))
}

fn beside_this() -> Result<PathBuf> {
    let path = std::env::current_exe().context("cannot find this program")?.with_file_name("driftless");
    ensure!(
        path.exists(),
        "{} is missing: build it with `cargo build --release -p sync-cli`, or name it with --driftless",
        path.display()
    );
    Ok(path)
}

/// The case of this name; `what` such a case is called.
pub(crate) fn by_name<C: Copy>(what: &str, all: &[C], name_of: fn(C) -> &'static str, name: &str) -> Result<C> {
    let names = || all.iter().map(|case| name_of(*case)).collect::<Vec<_>>().join(", ");
    let found = all.iter().copied().find(|case| name_of(*case) == name);
    found.with_context(|| format!("no {what} is called {name}; there are {}", names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_found_by_its_name() {
        for case in Case::ALL {
            assert_eq!(Case::parse(case.name()).unwrap(), case);
        }
        for case in archive::Case::ALL {
            assert_eq!(archive::Case::parse(case.name()).unwrap(), case);
        }
        assert!(Case::parse("first").unwrap_err().to_string().contains("first-100k"));
        assert!(archive::Case::parse("archive").unwrap_err().to_string().contains("archive-20k"));
    }

    fn parse(text: &str) -> Result<Args> {
        Args::parse(&format!("--driftless x {text}").split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn quick_means_one_round_of_smaller_trees_unless_said_otherwise() {
        let args = parse("--quick").unwrap();
        assert_eq!((args.rounds, args.scale, args.cases.len()), (1, 10, Case::ALL.len()));
        assert_eq!(parse("--quick --rounds 5").unwrap().rounds, 5);
    }

    #[test]
    fn cases_are_named_one_by_one_or_joined() {
        assert_eq!(
            parse("--case big-1g,first-1m --case rename-10k").unwrap().cases,
            [Case::Big1g, Case::First1m, Case::Rename10k]
        );
    }

    #[test]
    fn the_network_alone_needs_no_trees() {
        let args = parse("--case goodput").unwrap();
        assert!(args.goodput && args.cases.is_empty());
        let args = parse("--case goodput,big-1g").unwrap();
        assert!(args.goodput && args.cases == [Case::Big1g]);
    }

    #[test]
    fn links_have_cases_of_their_own() {
        let args = Args::parse(&["links", "--driftless", "x", "--case", "fairness,first-100k"].map(OsString::from)).unwrap();
        assert_eq!((args.links.len(), args.cases.len(), args.goodput), (2, 0, false));
        let args = Args::parse(&["links", "--driftless", "x"].map(OsString::from)).unwrap();
        assert_eq!(args.links, links::Case::DEFAULT);
        assert!(parse("--case fairness").is_err() && parse("--deadline 5").is_err());
        assert!(parse("").unwrap().links.is_empty());
    }

    #[test]
    fn agents_have_cases_of_their_own() {
        let args = Args::parse(&["agents", "--driftless", "x", "--case", "burst"].map(OsString::from)).unwrap();
        assert_eq!((args.agents, args.cases.len(), args.links.len()), (vec![agents::Case::Burst], 0, 0));
        let args = Args::parse(&["agents", "--driftless", "x", "--tool", "driftless"].map(OsString::from)).unwrap();
        assert_eq!(args.agents, agents::Case::ALL);
        assert_eq!(args.tools(vec![agents::Tool::Lsyncd, agents::Tool::Driftless("x".into())]).len(), 1);
        assert!(parse("--tool x").is_err());
    }

    #[test]
    fn days_that_move_have_cases_of_their_own() {
        let args = Args::parse(&["archive", "--driftless", "x", "--case", "placements"].map(OsString::from)).unwrap();
        assert_eq!((args.archive, args.cases.len(), args.agents.len()), (vec![archive::Case::Placements], 0, 0));
        let args = Args::parse(&["archive", "--driftless", "x"].map(OsString::from)).unwrap();
        assert_eq!(args.archive, archive::Case::ALL);
        assert!(parse("").unwrap().archive.is_empty());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in ["--case x", "--rounds", "--rounds 0", "--rounds x", "--fast", "first-1m"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
