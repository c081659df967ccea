//! Judges the machine: its home folder, its agent, what the system grants, its clock. Pure.

use super::{Finding, MACHINE, Severity, counted, size};
use crate::config::Config;
use crate::status::Status;
use chrono::{DateTime, SecondsFormat};
use std::net::SocketAddr;
use std::path::PathBuf;
use sync_core::io::link::SOCKET_BYTES;
use sync_core::io::watch::enough;
use sync_core::path::escape;
use sync_core::peer::Id;

/// Socket buffers from which on nothing is said: with less, a burst of a fast link is dropped before anybody reads it.
const BUFFER_BYTES: u64 = 1 << 20;
/// Nobody else may do anything with it.
pub(super) const PRIVATE: u32 = 0o077;
/// Nobody else may change it.
pub(super) const OWN: u32 = 0o022;

/// One file of the home folder, as it lies there.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// Where.
    pub(super) path: PathBuf,
    /// What it is: "the home folder", "the key".
    pub(super) what: &'static str,
    /// Its permissions.
    pub(super) mode: u32,
    /// Whose it is.
    pub(super) owner: u32,
    /// Permissions that others must not have.
    pub(super) forbidden: u32,
    /// Permissions that others had better not have.
    pub(super) unwanted: u32,
    /// The mode that it should have.
    pub(super) proper: u32,
}

/// What was found of the configuration.
#[derive(Debug)]
pub(super) enum Configured {
    /// There is none, as the text says.
    Nowhere(String),
    /// It was not looked at: something else has to be mended first.
    Unread(String),
    /// It makes no sense, or may not be taken.
    Refused(String),
    /// Where it is, and what it says.
    Valid(PathBuf, Box<Config>),
}

/// Who answers at the control socket.
#[derive(Debug)]
pub(super) enum AgentFound {
    /// Nobody.
    Nobody,
    /// An agent.
    Answers(Box<Status>),
    /// Somebody, and not as an agent does.
    Trouble(String),
}

/// All that is known of the machine.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) home: PathBuf,
    /// The user that looks.
    pub(super) user: u32,
    pub(super) access: Vec<Access>,
    /// `None`: there is none yet.
    pub(super) key: Option<Result<Id, String>>,
    /// How many are known; `None`: there is no such file.
    pub(super) peers: Option<Result<usize, String>>,
    pub(super) configured: Configured,
    pub(super) agent: AgentFound,
    /// Addresses of the configuration at which nobody listens, and why nobody could.
    pub(super) deaf: Vec<(SocketAddr, String)>,
    /// Does anything go over a network here?
    pub(super) networked: bool,
    /// What the system grants a socket for what comes, and for what goes.
    pub(super) buffers: [Option<u64>; 2],
    /// Watches that the folders need together, as far as that is known, and those that the system grants.
    pub(super) watches: (u64, Option<u64>),
    /// Seconds since 1970: now, and when the program was built.
    pub(super) clock: (i64, i64),
    /// Does the system say that its clock is set by NTP?
    pub(super) synchronised: Option<bool>,
    /// SQLite's version, and whether it will do.
    pub(super) sqlite: (&'static str, bool),
    /// A unit of systemd.
    pub(super) unit: Option<PathBuf>,
}

impl Facts {
    /// Is what keeps a file from being read told by its permissions already?
    fn is_told(&self, what: &str) -> bool {
        self.access.iter().any(|access| access.what == what && accessible(access, self.user).severity == Severity::Broken)
    }
}

/// What is to be said of it.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = facts.access.iter().map(|access| accessible(access, facts.user)).collect();
    found.extend(identity(facts));
    if !(matches!(facts.configured, Configured::Refused(_)) && facts.is_told("the configuration")) {
        found.push(configuration(&facts.configured));
    }
    found.extend(agent(facts));
    found.extend(listening(facts));
    found.extend(watches(facts));
    found.extend(buffers(facts));
    found.extend(clock(facts));
    let (version, will_do) = facts.sqlite;
    found.push(match will_do {
        true => Finding::ok("sqlite", MACHINE, format!("SQLite {version}")),
        false => {
            Finding::broken("sqlite", MACHINE, format!("SQLite {version} is too old"), "build driftless with its own SQLite")
        }
    });
    let unit = facts.unit.as_ref().map_or_else(|| "no unit of systemd".into(), |unit| format!("unit {}", shown(unit)));
    found.push(Finding::ok("service", MACHINE, unit));
    found
}

fn shown(path: &std::path::Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

fn accessible(access: &Access, user: u32) -> Finding {
    let Access { path, what, mode, owner, forbidden, unwanted, proper } = access;
    let name = shown(path);
    if *owner != user && *owner != 0 {
        let text = format!("{what}, {name}, belongs to the user {owner}, not to {user}");
        return Finding::broken("permissions", MACHINE, text, format!("run driftless as that user, or chown {user} {name}"));
    }
    let text = format!("{what}, {name}, has mode {:04o}", mode & 0o7777);
    let advice = format!("chmod {proper:o} {name}");
    match (mode & forbidden, mode & unwanted) {
        (0, 0) => Finding::ok("permissions", MACHINE, text),
        (0, _) => Finding::warning("permissions", MACHINE, format!("{text}: others may look into it"), advice),
        (bits, _) if bits & OWN != 0 => Finding::broken(
            "permissions",
            MACHINE,
            format!("{text}: others may change it"),
            format!("see what they did, then {advice}"),
        ),
        _ => {
            let advice = format!("{advice}; if somebody may have read it, move it away, and pair anew");
            Finding::broken("permissions", MACHINE, format!("{text}: others may read it"), advice)
        }
    }
}

fn identity(facts: &Facts) -> Vec<Finding> {
    let key = match &facts.key {
        Some(Err(_)) if facts.is_told("the key") => None,
        key => Some(of_key(key.as_ref())),
    };
    let peers = match &facts.peers {
        Some(Err(_)) if facts.is_told("the file of known peers") => None,
        peers => Some(of_peers(peers.as_ref())),
    };
    key.into_iter().chain(peers).collect()
}

fn of_key(key: Option<&Result<Id, String>>) -> Finding {
    match key {
        None => Finding::ok("key", MACHINE, "no key yet: it is made when it is first needed"),
        Some(Ok(id)) => Finding::ok("key", MACHINE, format!("id {id}")),
        Some(Err(why)) => Finding::broken_as_told("key", MACHINE, why),
    }
}

fn of_peers(peers: Option<&Result<usize, String>>) -> Finding {
    match peers {
        None => Finding::ok("peers", MACHINE, "no peers.toml: no machine is known by pairing"),
        Some(Ok(count)) => {
            Finding::ok("peers", MACHINE, format!("peers.toml is valid: {}", counted(*count as u64, "peer", "peers")))
        }
        Some(Err(why)) => Finding::broken("peers", MACHINE, why, "mend the file, or move it away and pair anew"),
    }
}

fn configuration(configured: &Configured) -> Finding {
    match configured {
        Configured::Nowhere(why) => Finding::ok("configuration", MACHINE, why),
        Configured::Unread(why) => {
            Finding::warning("configuration", MACHINE, format!("it was not looked at: {why}"), "mend that first")
        }
        Configured::Refused(why) => Finding::broken("configuration", MACHINE, why, "mend it, then driftless agent reload"),
        Configured::Valid(path, config) => {
            let (folders, peers) = (config.folders.len() as u64, config.peers.len() as u64);
            let what = format!("{}, {}", counted(folders, "folder", "folders"), counted(peers, "peer", "peers"));
            match folders {
                0 => Finding::warning(
                    "configuration",
                    MACHINE,
                    format!("{} is valid, and names no folder", shown(path)),
                    "name your folders there, then driftless agent reload",
                ),
                _ => Finding::ok("configuration", MACHINE, format!("{} is valid: {what}", shown(path))),
            }
        }
    }
}

fn agent(facts: &Facts) -> Vec<Finding> {
    let own = env!("CARGO_PKG_VERSION");
    let folders = matches!(&facts.configured, Configured::Valid(_, config) if !config.folders.is_empty());
    match &facts.agent {
        AgentFound::Nobody if folders => {
            let text = format!("no agent runs with the home {}: its folders are not kept in sync", shown(&facts.home));
            vec![Finding::warning("agent", MACHINE, text, "driftless agent run, or have systemd start it")]
        }
        AgentFound::Nobody => vec![Finding::ok("agent", MACHINE, "no agent runs")],
        AgentFound::Trouble(why) => {
            vec![Finding::broken("agent", MACHINE, why, "driftless agent stop, or end its process; then start it again")]
        }
        AgentFound::Answers(status) => {
            let version = escape(status.version.as_bytes());
            let text = format!("agent {} answers, driftless {version}", status.name);
            let mut found = vec![match version == own {
                true => Finding::ok("agent", MACHINE, text),
                false => Finding::warning("agent", MACHINE, format!("{text}; this program is {own}"), "restart the agent"),
            }];
            found.extend(status.notices.iter().map(|notice| Finding::warning("notice", MACHINE, notice, "see the agent's log")));
            found
        }
    }
}

fn listening(facts: &Facts) -> Vec<Finding> {
    let deaf = facts.deaf.iter().map(|(address, why)| {
        Finding::broken(
            "listen",
            MACHINE,
            format!("nobody can call at {address}: {why}"),
            "name an address of this machine and a free UDP port (listen), then driftless agent reload",
        )
    });
    let mut found: Vec<Finding> = deaf.collect();
    if let (true, AgentFound::Answers(status)) = (found.is_empty(), &facts.agent) {
        let at: Vec<String> = status.listen.iter().map(ToString::to_string).collect();
        let text =
            if at.is_empty() { "listens at no address: it only calls".into() } else { format!("listens at {}", at.join(", ")) };
        found.push(Finding::ok("listen", MACHINE, text));
    }
    found
}

fn watches(facts: &Facts) -> Option<Finding> {
    let (needed, granted) = facts.watches;
    let asked = match &facts.configured {
        Configured::Valid(_, config) => config.limits.watches,
        _ => None,
    };
    let has =
        |limit: u64, who: &str| format!("{} to be watched, and {who} {limit}", counted(needed, "folder has", "folders have"));
    let advice = |how: String| format!("{how}; until then old days are looked at now and then");
    if let Some(asked) = asked.filter(|asked| *asked < needed) {
        let text = has(asked, "the configuration allows");
        return Some(Finding::warning("watches", MACHINE, text, advice("raise limits.watches, or leave it out".into())));
    }
    if let Some(granted) = granted.filter(|granted| *granted < needed) {
        let text = has(granted, "the system grants");
        let line = format!("sysctl fs.inotify.max_user_watches={} (and the same in /etc/sysctl.d)", enough(needed));
        return Some(Finding::warning("watches", MACHINE, text, advice(line)));
    }
    let limit =
        granted.map_or_else(|| "the system does not tell its limit".to_owned(), |granted| format!("the system grants {granted}"));
    (needed > 0).then(|| Finding::ok("watches", MACHINE, format!("{needed} needed; {limit}")))
}

fn buffers(facts: &Facts) -> Vec<Finding> {
    let names = ["net.core.rmem_max", "net.core.wmem_max"];
    let small: Vec<(&str, u64)> = names
        .into_iter()
        .zip(facts.buffers)
        .filter_map(|(name, bytes)| Some((name, bytes.filter(|it| *it < BUFFER_BYTES)?)))
        .collect();
    if small.is_empty() || !facts.networked {
        let granted = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), size);
        let [receive, send] = facts.buffers;
        return vec![Finding::ok(
            "buffers",
            MACHINE,
            format!("socket buffers: receive {}, send {}", granted(receive), granted(send)),
        )];
    }
    let has: Vec<String> = small.iter().map(|(name, bytes)| format!("{name} is {bytes}")).collect();
    let set: Vec<String> = small.iter().map(|(name, _)| format!("{name}={SOCKET_BYTES}")).collect();
    let text = format!("small socket buffers: {}; fast links lose packets", has.join(", "));
    vec![Finding::warning("buffers", MACHINE, text, format!("sysctl {} (and the same in /etc/sysctl.d)", set.join(" ")))]
}

fn clock(facts: &Facts) -> Vec<Finding> {
    let (now, built) = facts.clock;
    let day = |seconds: i64| {
        DateTime::from_timestamp(seconds, 0)
            .map_or_else(|| seconds.to_string(), |at| at.to_rfc3339_opts(SecondsFormat::Secs, true))
    };
    if now < built {
        let text = format!("the clock says {}, and the program was built {}", day(now), day(built));
        return vec![Finding::broken("clock", MACHINE, text, "set the clock, and have it set by NTP (timedatectl set-ntp true)")];
    }
    vec![match facts.synchronised {
        Some(true) => Finding::ok("clock", MACHINE, "the clock is set by NTP"),
        Some(false) if facts.networked => {
            let advice = "timedatectl set-ntp true: which of two versions is newer is told by clocks";
            Finding::warning("clock", MACHINE, "the clock is not set by NTP", advice)
        }
        Some(false) => Finding::ok("clock", MACHINE, "the clock is not set by NTP"),
        None => Finding::ok("clock", MACHINE, "the clock is plausible; whether NTP sets it cannot be asked here"),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::Severity::{Broken, Ok as Fine, Warning};
    use super::*;
    use crate::config::{example, parse};
    use sync_core::peer::Book;

    const BUILT: i64 = 1_772_668_800;

    fn config(more: &str) -> Configured {
        let text = format!("name = \"web-1\"\n{more}\n");
        Configured::Valid("/home/agent.toml".into(), Box::new(parse(&text, &Book::default()).unwrap()))
    }

    fn access(mode: u32, forbidden: u32, unwanted: u32) -> Access {
        Access { path: "/home/identity.key".into(), what: "the key", mode, owner: 1000, forbidden, unwanted, proper: 0o600 }
    }

    fn facts() -> Facts {
        Facts {
            home: "/home".into(),
            user: 1000,
            access: vec![access(0o100_600, PRIVATE, PRIVATE)],
            key: None,
            peers: None,
            configured: Configured::Nowhere("none".into()),
            agent: AgentFound::Nobody,
            deaf: Vec::new(),
            networked: true,
            buffers: [Some(4 << 20), None],
            watches: (0, Some(8_192)),
            clock: (BUILT, BUILT),
            synchronised: None,
            sqlite: ("3.53.0", true),
            unit: None,
        }
    }

    fn told(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Severity, String)> {
        let mut facts = facts();
        change(&mut facts);
        let matters = findings(&facts).into_iter().filter(|finding| finding.severity != Fine);
        matters
            .map(|finding| {
                (finding.check, finding.severity, format!("{} → {}", finding.found, finding.advice.unwrap_or_default()))
            })
            .collect()
    }

    #[test]
    fn a_machine_as_it_should_be_gives_no_cause_for_anything() {
        assert_eq!(told(|_| {}), []);
        assert_eq!(told(|facts| facts.access[0].owner = 0), []);
        assert_eq!(told(|facts| (facts.networked, facts.buffers) = (false, [Some(1), Some(1)])), []);
        assert_eq!(told(|facts| facts.watches = (8_192, Some(8_192))), []);
    }

    #[test]
    fn each_trouble_has_its_weight_and_says_what_to_do() {
        type Row = (fn(&mut Facts), &'static str, Severity, &'static str);
        let rows: [Row; 19] = [
            (
                |facts| facts.access[0].mode = 0o100_644,
                "permissions",
                Broken,
                "others may read it → chmod 600 /home/identity.key; if",
            ),
            (|facts| facts.access[0].mode = 0o100_620, "permissions", Broken, "others may change it → see what they did"),
            (|facts| facts.access[0].owner = 7, "permissions", Broken, "belongs to the user 7, not to 1000 → run driftless as"),
            (|facts| facts.access[0] = access(0o40_755, OWN, PRIVATE), "permissions", Warning, "others may look into it"),
            (|facts| facts.key = Some(Err("not a key".into())), "key", Broken, "not a key"),
            (|facts| facts.peers = Some(Err("line 3".into())), "peers", Broken, "line 3 → mend the file"),
            (|facts| facts.configured = Configured::Refused("agent.toml:3: x".into()), "configuration", Broken, "agent.toml:3"),
            (|facts| facts.configured = Configured::Unread("x".into()), "configuration", Warning, "mend that first"),
            (|facts| facts.configured = config(""), "configuration", Warning, "names no folder"),
            (|facts| facts.configured = config("[folders.hot]\npath = \"/hot\""), "agent", Warning, "driftless agent run"),
            (|facts| facts.agent = AgentFound::Trouble("it hangs".into()), "agent", Broken, "driftless agent stop"),
            (
                |facts| facts.deaf = vec![("0.0.0.0:4477".parse().unwrap(), "in use".into())],
                "listen",
                Broken,
                "at 0.0.0.0:4477: in use",
            ),
            (|facts| facts.watches = (8_193, Some(8_192)), "watches", Warning, "sysctl fs.inotify.max_user_watches=65536"),
            (|facts| facts.watches.0 = 100_000, "watches", Warning, "max_user_watches=131072"),
            (|facts| facts.buffers[0] = Some(212_992), "buffers", Warning, "sysctl net.core.rmem_max=4194304 (and"),
            (|facts| facts.clock.0 = BUILT - 1, "clock", Broken, "was built 2026-03-05T00:00:00Z → set the clock"),
            (|facts| facts.synchronised = Some(false), "clock", Warning, "timedatectl set-ntp true"),
            (|facts| facts.sqlite.1 = false, "sqlite", Broken, "too old"),
            (
                |facts| (facts.buffers, facts.networked) = ([Some(1), Some(2)], true),
                "buffers",
                Warning,
                "net.core.rmem_max=4194304 net.core.wmem_max=4194304",
            ),
        ];
        for (change, check, severity, word) in rows {
            let told = told(change);
            assert!(
                matches!(&told[..], [(is, weighs, text)] if *is == check && *weighs == severity && text.contains(word)),
                "{word}: {told:?}"
            );
        }
    }

    #[test]
    fn what_the_permissions_of_a_file_say_is_not_said_again() {
        let told = told(|facts| {
            facts.access[0].mode = 0o100_644;
            facts.key = Some(Err("has mode 0644".into()));
        });
        assert!(matches!(&told[..], [("permissions", Broken, _)]), "{told:?}");
    }

    #[test]
    fn the_limit_of_the_configuration_comes_before_the_systems() {
        let told = told(|facts| {
            facts.configured = config("[limits]\nwatches = 10");
            facts.watches = (11, Some(5));
        });
        assert!(
            told.iter().any(|(check, _, text)| *check == "watches" && text.contains("the configuration allows 10")),
            "{told:?}"
        );
    }

    #[test]
    fn the_example_is_a_configuration_that_can_be_judged() {
        let text = example(&"web-1".parse().unwrap());
        let config = parse(&text, &Book::default()).unwrap();
        assert_eq!(configuration(&Configured::Valid("/x".into(), Box::new(config))).severity, Warning);
    }
}
