//! `driftless serve` itself: who is let in, what is said, how it ends.

use crate::machine::Machine;
use crate::pair::stderr;
use rustix::process::Signal;
use serde_json::Value;
use std::net::UdpSocket;

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
