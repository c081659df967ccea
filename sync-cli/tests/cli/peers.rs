//! Identities, peers and pairing: every machine is a folder of its own.

use crate::agent::configure;
use crate::machine::Machine;
use crate::pair::{driftless, lines, stderr, stdout, summary};
use serde_json::json;
use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

#[test]
fn an_id_is_made_once_and_printed_alone() {
    let machine = Machine::new();
    let id = machine.id();
    assert_eq!((id.len(), id.split('-').count()), (41, 6), "{id}");
    assert_eq!(machine.id(), id);
    assert_ne!(Machine::new().id(), id);
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(machine.home()), mode(machine.home().join("identity.key"))), (0o700, 0o600));
    let lines = lines(&machine.run(&["id", "--json"]).code(0));
    assert_eq!(lines[0], json!({"event": "id", "id": id}));
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let machine = Machine::new();
    machine.id();
    fs::set_permissions(machine.home().join("identity.key"), Permissions::from_mode(0o644)).unwrap();
    let assert = machine.run(&["id"]).code(3);
    assert!(stdout(&assert).is_empty() && stderr(&assert).contains("has mode 0644"), "{}", stderr(&assert));
}

#[test]
fn without_a_home_folder_nothing_is_guessed() {
    let mut command = driftless();
    command.env_remove("HOME").env_remove("XDG_CONFIG_HOME").arg("id");
    assert!(stderr(&command.assert().code(3)).contains("DRIFTLESS_HOME"));
    let dir = tempfile::tempdir().unwrap();
    driftless().env("XDG_CONFIG_HOME", dir.path()).arg("id").assert().code(0);
    assert!(dir.path().join("driftless/identity.key").is_file());
}

#[test]
fn peers_are_added_listed_and_removed() {
    let (machine, other) = (Machine::new(), Machine::new());
    assert_eq!(stdout(&machine.run(&["peer", "list"]).code(0)), "no known peers\n");
    let id = other.id();
    let add = ["peer", "add", "web2", &id.to_lowercase(), "web2.example.net:4477", "[::1]:1", "--grant", "hot=two-way"];
    assert!(stdout(&machine.run(&add).code(0)).starts_with(&format!("added web2  {id}")));
    let expected = json!({
        "event": "peer", "name": "web2", "id": id,
        "addresses": ["web2.example.net:4477", "[::1]:1"], "grants": {"hot": "two-way"},
    });
    assert_eq!(machine.peers(), [expected]);
    let listed = stdout(&machine.run(&["peer", "list"]).code(0));
    assert_eq!(listed, format!("web2  {id}  (web2.example.net:4477 [::1]:1; may do here: hot=two-way)\n"));
    for again in [["peer", "add", "web2", &Machine::new().id()], ["peer", "add", "other", &id]] {
        let text = stderr(&machine.run(&again).code(3));
        assert!(text.contains("known already") && text.contains("driftless peer remove web2"), "{text}");
    }
    // More about the same machine costs nothing of what was known.
    let more = ["peer", "add", "web2", &id, "[::1]:1", "[::1]:2", "--grant", "cold=no-delete"];
    assert!(stdout(&machine.run(&more).code(0)).starts_with(&format!("known already, now: web2  {id}")));
    let known = &machine.peers()[0];
    assert_eq!(known["addresses"], json!(["web2.example.net:4477", "[::1]:1", "[::1]:2"]));
    assert_eq!(known["grants"], json!({"hot": "two-way", "cold": "no-delete"}));
    assert_eq!(summary(&machine.run(&["peer", "remove", "web2", "--json"]).code(0))["count"], 1);
    assert!(machine.peers().is_empty());
    assert!(stderr(&machine.run(&["peer", "remove", "web2"]).code(3)).contains("no peer is named web2"));
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_done() {
    let machine = Machine::new();
    let id = Machine::new().id();
    let typo = format!("{}{}", if id.starts_with('A') { 'B' } else { 'A' }, &id[1..]);
    for (args, word) in [
        (&["peer", "add", "web2", &typo][..], "typing error"),
        (&["peer", "add", "web2", "web2"], "an id has"),
        (&["peer", "add", "a b", &id], "no name"),
        (&["peer", "add", "web2", &id, "web2"], "no address"),
        (&["peer", "add", "web2", &id, "--grant", "hot"], "FOLDER=MODE"),
        (&["peer", "add", "web2", &id, "--grant", "hot=all"], "no mode"),
        (&["pair", "1234-5678", "127.0.0.1:1"], "typing error"),
        (&["pair", "1234", "127.0.0.1:1"], "eight digits"),
        (&["pair", "1234-5671"], "ADDR"),
        (&["pair", "1234-5671", "127.0.0.1"], "no address"),
        (&["pair", "1234-5671", "127.0.0.1:1", "--listen", "127.0.0.1:1"], "--listen"),
        (&["pair", "--listen", "here"], "invalid"),
        (&["pair"], "CODE"),
        (&["peer"], "Usage"),
    ] {
        let text = stderr(&machine.run(args).code(64));
        assert!(text.contains(word), "{args:?}: {text}");
    }
    assert!(!machine.home().exists());
    let own = machine.id();
    assert!(stderr(&machine.run(&["peer", "add", "me", &own]).code(3)).contains("the id of this machine"));
}

#[test]
fn a_file_of_peers_with_an_unknown_key_is_refused_with_its_line() {
    let machine = Machine::new();
    let id = machine.id();
    let text = format!("[peers.web2]\nid = \"{id}\"\nadresses = []\n");
    fs::write(machine.home().join("peers.toml"), &text).unwrap();
    for args in [&["peer", "list"][..], &["peer", "remove", "web2"]] {
        let told = stderr(&machine.run(args).code(3));
        assert!(told.contains("peers.toml") && told.contains("line 3") && told.contains("addresses"), "{told}");
    }
    assert_eq!(fs::read_to_string(machine.home().join("peers.toml")).unwrap(), text);
}

#[test]
fn two_machines_pair_by_a_code() {
    let (server, laptop) = (Machine::new(), Machine::new());
    let showing = server.show_code(&["--name", "laptop", "--grant", "hot=send-only"]);
    let address = showing.address.clone();
    let args = ["pair", &showing.code, &address, "--name", "server", "--grant", "hot=two-way", "--json"];
    let told = lines(&laptop.run(&args).code(0));
    assert_eq!(told[0], json!({"event": "paired", "name": "server", "id": server.id()}));
    let (code, out, err) = showing.end();
    assert_eq!((code, out), (0, format!("paired with laptop  {}\n", laptop.id())), "{err}");
    assert!(err.contains("on the other machine: driftless pair") && !err.contains("note:"), "{err}");
    assert_eq!(
        server.peers(),
        [json!({"event": "peer", "name": "laptop", "id": laptop.id(), "addresses": [], "grants": {"hot": "send-only"}})]
    );
    assert_eq!(
        laptop.peers(),
        [json!({"event": "peer", "name": "server", "id": server.id(), "addresses": [address], "grants": {"hot": "two-way"}})]
    );
}

#[test]
fn where_an_agent_listens_elsewhere_that_is_the_address_which_is_stored() {
    let (server, laptop) = (Machine::new(), Machine::new());
    configure(&server, "");
    let config = server.home().join("agent.toml");
    let agent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let works_at = agent.local_addr().unwrap().to_string();
    fs::write(&config, format!("listen = [\"{works_at}\"]\n{}", fs::read_to_string(&config).unwrap())).unwrap();
    let refused = stderr(&server.run(&["pair", "--listen", &works_at]).code(3));
    let advice = ["pair --listen 127.0.0.1:0", &format!("--address {works_at}")];
    assert!(refused.contains("already in use") && advice.iter().all(|word| refused.contains(word)), "{refused}");
    let showing = server.show_code(&["--name", "laptop", "--address", "laptop.example.net:4477"]);
    let shown = showing.address.clone();
    laptop.run(&["pair", &showing.code, &shown, "--name", "server", "--address", &works_at]).code(0);
    let (code, _, err) = showing.end();
    assert!(code == 0 && err.contains(&format!("{shown} --address {works_at}")), "{err}");
    assert_eq!(laptop.peers()[0]["addresses"], json!([works_at]));
    assert_eq!(server.peers()[0]["addresses"], json!(["laptop.example.net:4477"]));
}

#[test]
fn nobody_at_the_address_is_told_in_time() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let machine = Machine::new();
    let told = stderr(&machine.run(&["pair", "1234-5671", &address]).code(3));
    assert!(told.contains(&format!("{address}: no answer")), "{told}");
    assert!(stderr(&machine.run(&["pair", "--listen", &address]).code(3)).contains(&format!("listen on {address}")));
}

#[test]
fn a_machine_does_not_pair_with_itself() {
    let machine = Machine::new();
    let showing = machine.show_code(&[]);
    machine.run(&["pair", &showing.code, &showing.address.clone()]).code(3);
    let (code, _, err) = showing.end();
    assert!(code == 3 && err.contains("this very machine"), "{err}");
    assert!(machine.peers().is_empty());
}

#[test]
fn machines_that_pair_again_keep_their_names() {
    let (server, laptop) = (Machine::new(), Machine::new());
    for name in ["first", "second"] {
        let showing = server.show_code(&["--name", name, "--grant", &format!("{name}=two-way")]);
        laptop.run(&["pair", &showing.code, &showing.address.clone(), "--name", name]).code(0);
        assert_eq!(showing.end().0, 0);
    }
    let peers = server.peers();
    assert_eq!((peers.len(), &peers[0]["name"]), (1, &"first".into()));
    assert_eq!(peers[0]["grants"], json!({"first": "two-way", "second": "two-way"}));
    assert_eq!(laptop.peers()[0]["addresses"].as_array().unwrap().len(), 2);
    // Another machine that wants the same name gets one with a number.
    let third = Machine::new();
    let showing = server.show_code(&["--name", "first"]);
    third.run(&["pair", &showing.code, &showing.address.clone()]).code(0);
    assert!(showing.end().1.starts_with("paired with first-2"));
}
