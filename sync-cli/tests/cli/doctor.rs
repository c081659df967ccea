//! `driftless doctor` in real situations. What the machine of the tests itself is like (its clock, its limits) is left out.

use crate::agent::{Running, configure};
use crate::machine::Machine;
use crate::pair::{driftless, stdout};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// What an exit code and JSON lines tell, which have to agree.
fn findings(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(summary["event"], "summary");
    let count = |severity: &str| lines.iter().filter(|line| line["severity"] == severity).count();
    let numbers = [("broken", "broken"), ("warnings", "warning"), ("ok", "ok")];
    numbers.iter().for_each(|(key, severity)| assert_eq!(summary[*key], count(severity), "{key}"));
    let code = if count("broken") > 0 { 2 } else { i32::from(count("warning") > 0) };
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(lines.iter().all(|line| line["event"] == "finding"), "{text}");
    assert!(lines.iter().all(|line| line["severity"] == "ok" || line["found"].is_string()), "{text}");
    lines
}

fn doctor(machine: &Machine, args: &[&str]) -> Vec<Value> {
    let args = [&["doctor", "--json"], args].concat();
    findings(&driftless().env("DRIFTLESS_HOME", machine.home()).args(args).output().unwrap())
}

/// The findings of one check on one subject: their weights and texts, with what to do.
fn of<'a>(found: &'a [Value], check: &str, subject: &str) -> Vec<(&'a str, String)> {
    let text = |line: &Value| format!("{} → {}", line["found"].as_str().unwrap(), line["advice"].as_str().unwrap_or_default());
    let wanted = found.iter().filter(|line| line["check"] == check && line["subject"] == subject);
    wanted.map(|line| (line["severity"].as_str().unwrap(), text(line))).collect()
}

#[track_caller]
fn says(found: &[Value], check: &str, subject: &str, severity: &str, word: &str) {
    let told = of(found, check, subject);
    assert!(told.iter().any(|(is, text)| *is == severity && text.contains(word)), "{word}: {told:?} in {found:#?}");
}

const MACHINE: &str = "this machine";
const HOT: &str = "folder hot";

/// A machine whose folder `hot` was synchronised before, with three directories in it.
fn synchronised(more: &str) -> Machine {
    let machine = Machine::new();
    machine.write("hot", "a/b/file", "text");
    let other = machine.folder("other");
    machine.sync("hot", other.to_str().unwrap(), &[]).code(0);
    configure(&machine, more);
    machine
}

fn marker(machine: &Machine) -> std::path::PathBuf {
    machine.folder("hot").join(".driftless/marker")
}

#[test]
fn where_nothing_is_set_up_nothing_is_broken_and_nothing_is_made() {
    let machine = Machine::new();
    let root = machine.folder("root");
    let found = doctor(&machine, &[root.to_str().unwrap()]);
    assert!(found.iter().all(|line| line["severity"] != "broken"), "{found:#?}");
    says(&found, "configuration", MACHINE, "ok", "driftless agent init");
    says(&found, "state", &format!("root {}", root.display()), "ok", "never synchronised");
    assert!(!machine.home().exists());
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    let told = stdout(&machine.run(&["doctor", "--verbose"]));
    assert!(told.contains("no key yet"), "{told}");
}

#[test]
fn a_synchronised_folder_is_sound_and_stays_as_it_is() {
    let machine = synchronised("");
    let before = fs::read(machine.folder("hot").join(".driftless/state.db")).unwrap();
    let found = doctor(&machine, &[]);
    says(&found, "root", HOT, "ok", "is there");
    says(&found, "renames", HOT, "ok", "can be exchanged");
    says(&found, "state", HOT, "ok", "3 paths");
    says(&found, "watches", MACHINE, "ok", "3 needed");
    says(&found, "agent", MACHINE, "warning", "driftless agent run");
    says(&found, "peers", HOT, "warning", "peers");
    assert_eq!(fs::read(machine.folder("hot").join(".driftless/state.db")).unwrap(), before);
    machine.sync("hot", machine.folder("other").to_str().unwrap(), &[]).code(0);
}

#[test]
fn a_key_that_others_may_read_is_broken_until_its_mode_is_set() {
    let machine = Machine::new();
    machine.id();
    let key = machine.home().join("identity.key");
    says(&doctor(&machine, &[]), "permissions", MACHINE, "ok", "identity.key, has mode 0600");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let found = doctor(&machine, &[]);
    says(&found, "permissions", MACHINE, "broken", &format!("others may read it → chmod 600 {}", key.display()));
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    assert!(doctor(&machine, &[]).iter().all(|line| line["severity"] != "broken"));
    fs::set_permissions(machine.home(), Permissions::from_mode(0o777)).unwrap();
    says(&doctor(&machine, &[]), "permissions", MACHINE, "broken", "others may change it");
}

#[test]
fn a_folder_that_is_missing_and_one_that_lost_its_marker_are_broken() {
    let machine = synchronised("");
    fs::remove_file(marker(&machine)).unwrap();
    says(&doctor(&machine, &[]), "state", HOT, "broken", "is its disk mounted?");
    fs::rename(machine.folder("hot"), machine.dir.path().join("away")).unwrap();
    says(&doctor(&machine, &[]), "root", HOT, "broken", "create it, or mount its disk");
}

#[test]
fn a_damaged_state_is_told_and_left() {
    let machine = synchronised("");
    let file = machine.folder("hot").join(".driftless/state.db");
    fs::write(&file, vec![1; 8192]).unwrap();
    says(&doctor(&machine, &[]), "state", HOT, "broken", "is damaged");
    assert_eq!(fs::read(&file).unwrap(), vec![1; 8192]);
}

#[test]
fn a_configuration_that_makes_no_sense_is_told_with_its_lines() {
    let machine = synchronised("[limit]\nwatches = 1");
    let found = doctor(&machine, &[]);
    says(&found, "configuration", MACHINE, "broken", "agent.toml:5: limit: unknown key");
    fs::write(machine.home().join("peers.toml"), "[peers.x]\nid = 3\n").unwrap();
    let found = doctor(&machine, &[]);
    says(&found, "peers", MACHINE, "broken", "peers.toml");
}

#[test]
fn watches_that_do_not_suffice_are_told_with_what_to_set() {
    let machine = synchronised("[limits]\nwatches = 2");
    says(&doctor(&machine, &[]), "watches", MACHINE, "warning", "the configuration allows 2 → raise limits.watches");
    configure(&machine, "");
    let limited = "echo 2 > /proc/sys/user/max_inotify_watches || exit 99";
    if let Some(found) = in_namespace(&machine, limited, &[]) {
        says(&found, "watches", MACHINE, "warning", "the system grants 2 → sysctl fs.inotify.max_user_watches=65536");
    }
}

#[test]
fn a_root_on_a_disk_that_can_only_be_read_is_broken() {
    let machine = Machine::new();
    let root = machine.folder("root");
    let mount = format!("mount -t tmpfs -o ro none '{}' || exit 99", root.display());
    let Some(found) = in_namespace(&machine, &mount, &[root.to_str().unwrap()]) else { return };
    let subject = format!("root {}", root.display());
    let place = format!("lies on tmpfs, mounted at {}, which can only be read", root.display());
    says(&found, "mount", &subject, "broken", &place);
    let states = machine.folder("states");
    let args = [root.to_str().unwrap(), "--state-dir", states.to_str().unwrap()];
    let found = in_namespace(&machine, &mount, &args).unwrap();
    says(&found, "mount", &subject, "warning", "nothing can be brought here");
}

#[test]
fn a_full_disk_is_told() {
    let machine = Machine::new();
    let root = machine.folder("root");
    let mount = format!("mount -t tmpfs -o size=1m,nr_inodes=100 none '{}' || exit 99", root.display());
    let Some(found) = in_namespace(&machine, &mount, &[root.to_str().unwrap()]) else { return };
    let subject = format!("root {}", root.display());
    says(&found, "space", &subject, "broken", "of 1.0 MiB free → make room");
    says(&found, "inodes", &subject, "broken", "of 100 inodes free");
}

#[test]
fn a_frozen_disk_holds_nobody_up() {
    let machine = Machine::new();
    let (root, image) = (machine.folder("root"), machine.dir.path().join("image"));
    // What is frozen is thawed however this ends, or the machine could not let go of it.
    let script = format!(
        "truncate -s 32M '{image}' && mkfs.ext4 -q '{image}' && mount -o loop '{image}' '{root}' && fsfreeze --freeze '{root}' || exit 99
         trap \"fsfreeze --unfreeze '{root}'\" EXIT
         \"$0\" doctor --json '{root}'; code=$?
         exit $code",
        image = image.display(),
        root = root.display()
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_driftless")])
        .env("DRIFTLESS_HOME", machine.home())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if !matches!(output.status.code(), Some(0..=2)) {
        eprintln!("SKIPPED: no disk can be frozen here, so that nothing is proved of one: {told}");
        return;
    }
    says(&findings(&output), "root", &format!("root {}", root.display()), "broken", "did not answer within");
    assert!(told.contains("waits for a disk that does not answer"), "{told}");
}

/// `doctor` where something else holds than on this machine; `None` where that cannot be arranged, and then it is said.
fn in_namespace(machine: &Machine, before: &str, args: &[&str]) -> Option<Vec<Value>> {
    let script = format!("{before}; exec \"$0\" doctor --json \"$@\"");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_driftless")])
        .args(args)
        .env("DRIFTLESS_HOME", machine.home())
        .output();
    match output {
        Ok(output) if output.status.code().is_some_and(|code| code <= 2) && !output.stdout.is_empty() => Some(findings(&output)),
        other => {
            let why = other.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
            eprintln!("no namespaces here: nothing is proved: {why:?}");
            None
        }
    }
}

#[test]
fn a_peer_is_called_at_each_of_its_addresses() {
    let (server, machine) = (Machine::new(), Machine::new());
    server.knows("laptop", &machine, &["--grant", "hot=two-way"]);
    let serving = server.serve(&["hot"], &[]);
    let address = serving.address.clone();
    // Nobody answers at an address that is kept busy by somebody who never reads.
    let mute = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = mute.local_addr().unwrap().to_string();
    machine.knows("web2", &server, &[&address, &silent]);
    let found = doctor(&machine, &[]);
    says(&found, "call", "peer web2", "ok", &format!("answers at {address}, round trip"));
    says(&found, "call", "peer web2", "warning", &format!("take the address {silent} away"));
    drop(serving);
    machine.run(&["peer", "remove", "web2"]).code(0);
    machine.knows("web2", &server, &[&silent]);
    let found = doctor(&machine, &[]);
    says(&found, "call", "peer web2", "warning", "cannot be called");
    says(&found, "call", MACHINE, "broken", "no peer can be called from here");
}

#[test]
fn a_running_agent_is_asked_and_not_disturbed() {
    let machine = synchronised("");
    let running = Running::start(&machine, &[]);
    machine.run(&["agent", "sync"]).code(0);
    // It opens the folder soon after it answers.
    let deadline = Instant::now() + Duration::from_secs(60);
    let found = loop {
        let found = doctor(&machine, &[]);
        assert!(Instant::now() < deadline, "{found:#?}");
        if of(&found, "folder", HOT).iter().any(|(_, text)| text.contains("watching")) {
            break found;
        }
    };
    says(&found, "agent", MACHINE, "ok", "agent web-1 answers, driftless");
    says(&found, "state", HOT, "ok", "in use by the agent, with its marker");
    says(&found, "permissions", MACHINE, "ok", "the control socket");
    machine.run(&["agent", "pause", "hot"]).code(0);
    says(&doctor(&machine, &[]), "folder", HOT, "warning", "driftless agent resume hot");
    drop(running);
    says(&doctor(&machine, &[]), "agent", MACHINE, "warning", "no agent runs");
}

#[test]
fn a_link_that_cannot_be_made_is_told_by_the_agent_that_wants_it() {
    let (other, machine) = (Machine::new(), Machine::new());
    let mute = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = mute.local_addr().unwrap();
    let peer = format!("peers = {{ web-2 = \"two-way\" }}\n[peers.web-2]\nid = \"{}\"\naddresses = [\"{silent}\"]", other.id());
    configure(&machine, &peer);
    let _running = Running::start(&machine, &[]);
    let found = doctor(&machine, &[]);
    says(&found, "cut off", HOT, "broken", "none of its peers is connected");
    says(&found, "link", "link web-1 – web-2", "warning", "");
    assert_eq!(of(&found, "call", "peer web-2"), [], "the agent tells of links: nobody is called beside it");
}

#[test]
fn people_read_what_is_broken_first_on_lines_that_fit() {
    let machine = synchronised("");
    fs::remove_file(marker(&machine)).unwrap();
    let told = stdout(&machine.run(&["doctor"]).code(2));
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("1 broken, ") && lines[0].contains("fine"), "{told}");
    assert_eq!(&lines[1..4], ["", "broken", "  folder hot"], "{told}");
    assert!(told.contains("\nwarnings\n") && told.contains("\nfine (--verbose tells more)\n"), "{told}");
    let long = |line: &&&str| line.chars().count() > 80 && !Path::new(line.trim()).is_absolute();
    assert_eq!(lines.iter().filter(long).count(), 0, "{told}");
}
