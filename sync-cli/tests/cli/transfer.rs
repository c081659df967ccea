//! How content crosses a link: its rate, packing, deltas. Told by what crossed, and both ways.

use crate::machine::Machine;
use crate::pair::{stderr, summary};
use crate::serving::Serving;
use serde_json::Value;
use std::fs;

/// Two machines whose folder `hot` is in sync, and their server.
fn in_sync(path: &str, content: &[u8]) -> (Machine, Machine, Serving) {
    let (server, laptop) = (Machine::new(), Machine::new());
    laptop.knows("server", &server, &[]);
    server.knows("laptop", &laptop, &["--grant", "hot=two-way"]);
    fs::write(laptop.folder("hot").join(path), content).unwrap();
    let serving = server.serve(&["hot"], &[]);
    run(&laptop, &serving, &[]);
    (server, laptop, serving)
}

fn run(laptop: &Machine, serving: &Serving, args: &[&str]) -> Value {
    let root = format!("quic://{}/hot", serving.address);
    let args = [&["--peer", "server", "--json"], args].concat();
    let done = summary(&laptop.sync("hot", &root, &args).code(0));
    assert_eq!(done["in_sync"], true, "{done}");
    done
}

/// Bytes that crossed in a run after which the file is the same on both machines: from the one where it was written.
fn crossed(
    (from, to): (&Machine, &Machine),
    (path, content): (&str, &[u8]),
    (laptop, serving): (&Machine, &Serving),
    args: &[&str],
) -> u64 {
    fs::write(from.folder("hot").join(path), content).unwrap();
    let done = run(laptop, serving, args);
    assert!(fs::read(to.folder("hot").join(path)).unwrap() == content, "{path} {args:?}");
    let way = if std::ptr::eq(from, laptop) { "bytes_sent" } else { "bytes_received" };
    done[way].as_u64().unwrap()
}

#[test]
fn content_is_packed_as_it_is_wished_for_in_both_directions() {
    let (server, laptop, serving) = in_sync("x", b"1");
    let text: Vec<u8> = (0..100_000).flat_map(|line: u32| format!("line {line}\n").into_bytes()).collect();
    // A byte of seven bits: no tenth is gained by packing it at once, but an eighth or less.
    let dense: Vec<u8> = fixtures::bytes::noise(1, 1 << 20).into_iter().map(|byte| if byte < 250 { byte } else { 0 }).collect();
    for (number, (from, to)) in [(&laptop, &server), (&server, &laptop)].into_iter().enumerate() {
        let bytes = |name: &str, content: &[u8], args: &[&str]| {
            // Else it would be made of what came before.
            let args = [args, &["--whole-file"]].concat();
            crossed((from, to), (&format!("{name}{number}"), content), (&laptop, &serving), &args)
        };
        let whole = text.len() as u64;
        assert!(bytes("auto", &text, &[]) < whole / 2);
        assert!(bytes("on", &text, &["--compress", "on"]) < whole / 2);
        assert!(bytes("off", &text, &["--compress", "off"]) > whole);
        assert!(bytes("dense", &dense, &["--compress", "on"]) > dense.len() as u64 / 2);
    }
}

#[test]
fn files_come_whole_if_that_is_wished_for_in_both_directions() {
    let mut content = fixtures::bytes::noise(1, 1 << 20);
    let (server, laptop, serving) = in_sync("x", &content);
    for (from, to) in [(&laptop, &server), (&server, &laptop)] {
        content[1000] ^= 1;
        let delta = crossed((from, to), ("x", &content), (&laptop, &serving), &[]);
        assert!(delta < 200_000, "{delta}");
        content[2000] ^= 1;
        let whole = crossed((from, to), ("x", &content), (&laptop, &serving), &["--whole-file"]);
        assert!(whole > 1 << 20, "{whole}");
        // Nor is a new file made of another one of its size.
        let path = format!("copy{}", u8::from(std::ptr::eq(from, &laptop)));
        let whole = crossed((from, to), (&path, &content), (&laptop, &serving), &["--whole-file"]);
        assert!(whole > 1 << 20, "{whole}");
    }
}

#[test]
fn a_limited_run_takes_its_time_in_both_directions() {
    let (server, laptop, serving) = in_sync("x", b"1");
    for (from, to) in [(&laptop, &server), (&server, &laptop)] {
        let number = u8::from(std::ptr::eq(from, &laptop));
        let (path, content) = (format!("f{number}"), fixtures::bytes::noise(number.into(), 256 << 10));
        fs::write(from.folder("hot").join(&path), &content).unwrap();
        let done = run(&laptop, &serving, &["--bwlimit", "256"]);
        assert!(done["total_ms"].as_u64().unwrap() >= 600, "{done}");
        assert!(fs::read(to.folder("hot").join(&path)).unwrap() == content);
    }
    // The limit is the run's, and not the server's.
    fs::write(laptop.folder("hot").join("large"), fixtures::bytes::noise(2, 20 << 20)).unwrap();
    run(&laptop, &serving, &["--bwlimit", "0"]);
    assert_eq!(fs::metadata(server.folder("hot").join("large")).unwrap().len(), 20 << 20);
}

#[test]
fn a_limit_between_two_local_folders_is_said_to_limit_nothing() {
    let machine = Machine::new();
    machine.write("a", "x", "1");
    let other = machine.folder("b").display().to_string();
    let told = stderr(&machine.sync("a", &other, &["--bwlimit", "1M"]).code(0));
    assert!(told.contains("--bwlimit") && told.contains("nothing is limited"), "{told}");
    assert_eq!(machine.read("b", "x").unwrap(), "1");
    let told = stderr(&machine.sync("a", &other, &["--compress", "off", "--whole-file", "--bwlimit", "0"]).code(0));
    assert!(!told.contains("limited"), "{told}");
    for wrong in ["x", "0.5", "-1"] {
        machine.sync("a", &other, &[&format!("--bwlimit={wrong}")]).code(64);
    }
}
