//! `driftless serve` itself: who is let in, what is said, how it ends.

use crate::machine::Machine;
use crate::pair::stderr;
use rustix::process::Signal;
use serde_json::Value;
use std::net::UdpSocket;

/// A server of folder `hot`, and a machine that knows it as `server`.
fn acquainted(grants: &[&str]) -> (Machine, Machine) {
    let (server, laptop) = (Machine::new(), Machine::new());
    laptop.knows("server", &server, &[]);
    server.knows("laptop", &laptop, grants);
    (server, laptop)
}

#[test]
fn a_server_says_where_it_listens_and_ends_with_a_signal() {
    for (signal, code) in [(Signal::TERM, 0), (Signal::INT, 130)] {
        let machine = Machine::new();
        let serving = machine.serve(&["hot"], &["--json"]);
        let address = serving.address.clone();
        assert!(UdpSocket::bind(&address).is_err());
        let ended = serving.end(signal);
        assert_eq!(ended.code, Some(code), "{}", ended.err);
        let last: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
        assert_eq!((&last["event"], &last["count"]), (&"summary".into(), &0.into()));
        UdpSocket::bind(&address).unwrap();
    }
}

#[test]
fn an_address_in_use_is_told() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let machine = Machine::new();
    let root = format!("hot={}", machine.folder("hot").display());
    let told = stderr(&machine.run(&["serve", "--listen", &address, "--root", &root]).code(3));
    assert!(told.contains(&format!("listen on {address}")), "{told}");
}

#[test]
fn a_stranger_is_refused_on_both_sides_and_told_of_once() {
    let (server, laptop) = (Machine::new(), Machine::new());
    laptop.knows("server", &server, &[]);
    laptop.write("hot", "x", "1");
    let serving = server.serve(&["hot"], &[]);
    for _ in 0..2 {
        let told = stderr(&laptop.sync("hot", &format!("quic://{}/hot", serving.address), &["--peer", "server"]).code(3));
        assert!(told.contains("that machine does not know this one"), "{told}");
    }
    let ended = serving.end(Signal::TERM);
    assert_eq!(ended.err.matches(&format!("no known peer has the id {}", laptop.id())).count(), 1, "{}", ended.err);
    assert!(server.read("hot", "x").is_none());
}

#[test]
fn another_key_at_the_address_is_refused() {
    let (impostor, laptop) = acquainted(&["--grant", "hot=two-way"]);
    let serving = impostor.serve(&["hot"], &[]);
    laptop.run(&["peer", "remove", "server"]).code(0);
    laptop.knows("server", &Machine::new(), &[&serving.address]);
    laptop.write("hot", "x", "1");
    let told = stderr(&laptop.sync("hot", &format!("quic://{}/hot", serving.address), &[]).code(3));
    assert!(told.contains(&format!("another machine answers there, with the id {}", impostor.id())), "{told}");
    assert!(impostor.read("hot", "x").is_none());
}

#[test]
fn a_peer_is_found_by_its_address_or_by_its_name() {
    let laptop = Machine::new();
    for (args, word) in
        [(&[][..], "no known peer has the address 127.0.0.1:4477"), (&["--peer", "server"], "no peer is named server")]
    {
        let told = stderr(&laptop.sync("hot", "quic://127.0.0.1/hot", args).code(3));
        assert!(told.contains(word), "{told}");
    }
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let laptop = Machine::new();
    laptop.knows("server", &Machine::new(), &[&address]);
    // That the wait which is asked for ends it, and no later one, the tests of the link show.
    let told = stderr(&laptop.sync("hot", &format!("quic://{address}/hot"), &[]).code(3));
    assert!(told.contains("cannot reach the peer server") && told.contains("no answer"), "{told}");
    assert!(!laptop.folder("hot").join(".driftless").exists());
}

#[test]
fn a_root_that_is_no_folder_is_noted_and_does_not_keep_the_others_from_being_served() {
    let machine = Machine::new();
    let missing = machine.dir.path().join("missing").display().to_string();
    let serving = machine.serve(&["hot"], &["--root", &format!("cold={missing}")]);
    let ended = serving.end(Signal::TERM);
    assert!(ended.code == Some(0) && ended.err.contains(&format!("{missing} is no folder")), "{}", ended.err);
}
