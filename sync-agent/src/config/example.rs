//! The configuration that `driftless agent init` writes: every key, commented. Pure.

use sync_core::peer::Name;

/// A configuration for a machine of this name, which works as it stands and says how to go on.
#[must_use]
pub fn example(name: &Name) -> String {
    EXAMPLE.replace("NAME", name.as_str())
}

/// Lines that begin with `#` and a letter or a bracket are what could be written; all others with `# ` are explanations.
const EXAMPLE: &str = r#"# What the agent of driftless is to do on this machine.
#
# After a change: driftless agent reload (or a HUP signal). What makes no sense is refused, with its line, and the agent goes on as
# before. Durations: 200ms, 90s, 30m, 12h, 7d.

# What this machine is called where people look at it.
name = "NAME"

# Where other machines can call, over QUIC (UDP); empty for a machine that only ever calls itself.
listen = ["0.0.0.0:4477"]

# The status page and /metrics, on loopback only; "off" to do without.
#status = "127.0.0.1:4478"

# The machines to synchronise with. `driftless id` prints a machine's id there. Machines that `driftless pair` or `driftless peer add`
# made known need no table here: folders can name them as they are (after pairing: driftless agent reload), and addresses that stand
# in both places are all tried.
#[peers.web-2]
#id = "ID"
#addresses = ["web-2.example.net:4477", "203.0.113.9:4477"]

# The folders: as many as you like, each with a name that is the same on all machines.
#[folders.hot]
#path = "/srv/hot"

# With whom, and what each of them may do here: two-way, send-only (it gets what is here, and changes nothing), receive-only (it
# brings changes, and gets none), no-delete (both ways, but nothing here is deleted).
#peers = { web-2 = "two-way" }

# What to leave out, in gitignore syntax, beside the rules in .driftlessignore.
#ignore = ["*.tmp"]

# What becomes of paths that two machines changed: keep-both (one of them as a conflict copy), newer, or skip.
#conflicts = "keep-both"

# How long a path must stand still before it is sent.
#quiet = "200ms"

# How long replaced and deleted versions are kept; or "off".
#keep_versions = "7d"

# More deletions at a time than this stop the folder until you decide: a number of paths, or a share of them.
#max_delete = "50%"

# How often everything is looked at, whatever was noticed meanwhile.
#schedule = "1h"

# Where the state is kept instead of .driftless in the folder, for one that may only be read.
#state_dir = "/var/lib/driftless"

# May the folder's peers get to know each other by this machine, and this one others by them, so that all can connect directly? Where
# all three say so, a machine that a peer knows by its configuration becomes a peer here too, as what it is there, and as no more than
# that peer is here. Who is named above stays as it is.
#introduce = false

# Old days of the folder hot move to a cold root, and a link takes their place. The layout says where days are; `under` narrows it
# to folders that match a pattern.
#[archive.hot]
#cold = "/mnt/cold"
#layout = "%Y/%m/%d"
#under = "sites/*"
#older_than = "3d"
#quiet = "24h"

# In which days are counted: local, UTC, or a name such as Asia/Hong_Kong.
#timezone = "local"

# How the link is written: absolute, relative, or prefix=PATH where applications see the cold root elsewhere.
#link = "absolute"

# Days with links that lead out of them: skip, or rewrite.
#outside_links = "skip"

# How long the moved day is kept beside its copy, and when days are moved and the cold root is looked at.
#keep_displaced = "72h"
#cold_schedule = "daily 03:00"

# So many peers must be known to have all of a day before it is archived.
#min_peers = 1

# Archived days are read again once a month. Files whose bytes are not those that were written, although nobody wrote to them, are brought
# back from a connected peer that has them as they were.
#repair = true

# What the agent may use: watches of all folders together (without it, as many as the system gives), bytes a second each way (K, M, G;
# or "off"), exchanges with peers under way at a time. And what stays free on each disk to which files are brought (K, M, G, T, a share
# like "5%", or "off"); without it, 1 GiB or 2 % of the disk, whichever is less.
#[limits]
#watches = 100000
#bandwidth = "off"
#exchanges = 4
#reserve = "1G"
"#;

#[cfg(test)]
mod tests {
    use super::super::{parse, read};
    use super::*;
    use sync_core::peer::{Book, PublicKey};

    #[test]
    fn the_example_works_as_it_stands() {
        let config = parse(&example(&"web-1".parse().unwrap()), &Book::default()).unwrap();
        assert_eq!((config.name.as_str(), config.listen.len()), ("web-1", 1));
        assert!(config.folders.is_empty() && config.peers.is_empty());
    }

    #[test]
    fn every_commented_line_can_be_written_and_says_the_default() {
        let id = PublicKey::from_bytes([1; 32]).id().to_string();
        let text = example(&"web-1".parse().unwrap());
        let offered = |line: &str| {
            line.strip_prefix('#')
                .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
                .unwrap_or(line)
                .to_owned()
        };
        let text: Vec<String> = text.lines().map(|line| offered(line).replace("\"ID\"", &format!("\"{id}\""))).collect();
        let config = parse(&text.join("\n"), &Book::default()).unwrap();
        for key in [read::TOP, read::PEER, read::FOLDER, read::ARCHIVE, read::LIMITS].concat() {
            let there = text.iter().any(|line| line.starts_with(&format!("{key} = ")) || line.starts_with(&format!("[{key}")));
            assert!(there, "{key} is not in the example");
        }
        let least = format!(
            "name = \"web-1\"\nlisten = [\"0.0.0.0:4477\"]\n[peers.web-2]\nid = \"{id}\"\n\
             addresses = [\"web-2.example.net:4477\", \"203.0.113.9:4477\"]\n\
             [folders.hot]\npath = \"/srv/hot\"\npeers.web-2 = \"two-way\"\nignore = [\"*.tmp\"]\nstate_dir = \"/var/lib/driftless\"\n\
             [archive.hot]\ncold = \"/mnt/cold\"\nunder = \"sites/*\"\nmin_peers = 1\n[limits]\nwatches = 100000\nreserve = \"1G\"\n"
        );
        assert_eq!(config, parse(&least, &Book::default()).unwrap(), "the example states another default");
    }
}
