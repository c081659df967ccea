//! What the Debian package is made of.

use assert_cmd::Command as Driftless;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

fn unit() -> String {
    std::fs::read_to_string(packaging().join("driftless.service")).unwrap()
}

#[test]
fn the_service_says_what_the_command_understands() {
    let unit = unit();
    let lines: Vec<&str> =
        unit.lines().filter_map(|line| line.split_once("=/usr/bin/driftless ").map(|(_, rest)| rest)).collect();
    assert_eq!(lines.len(), 2, "how it starts, and how it reads its configuration anew");
    for line in lines {
        let asked = Driftless::cargo_bin("driftless").unwrap().args(line.split(' ')).arg("--help").output().unwrap();
        assert!(asked.status.success(), "driftless {line}: {}", String::from_utf8_lossy(&asked.stderr));
    }
}

/// systemd's own check, where there is one: unknown keys, wrong values, a command that is not there.
#[test]
fn systemd_accepts_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("driftless.service");
    let binary = assert_cmd::cargo::cargo_bin("driftless");
    let here = unit().replace("/usr/bin/driftless", binary.to_str().unwrap());
    let here: Vec<&str> = here.lines().filter(|line| !line.starts_with("Documentation=")).collect();
    std::fs::write(&path, here.join("\n")).unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg(&path).output();
    match verified {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: systemd-analyze is not here, the unit was not verified");
        }
        verified => {
            let verified = verified.unwrap();
            let told = String::from_utf8_lossy(&verified.stderr).into_owned();
            assert!(verified.status.success() && told.trim().is_empty(), "{told}");
        }
    }
}

/// cargo-deb takes files that `build-deb` makes: both must name the same.
#[test]
fn the_package_takes_what_its_script_makes() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let script = std::fs::read_to_string(packaging().join("build-deb")).unwrap();
    let taken: BTreeSet<&str> = manifest
        .match_indices("target/packaging/")
        .map(|(at, found)| {
            let rest = &manifest[at + found.len()..];
            rest.split(['/', '"']).next().unwrap()
        })
        .collect();
    assert_eq!(taken, BTreeSet::from(["agent.toml", "completions", "man"]));
    assert!(taken.iter().all(|name| script.contains(&format!("\"$made/{name}")) || script.contains(&format!("$made\"/{name}"))));
    for own in manifest.lines().filter_map(|line| line.trim().strip_prefix("[\"../")?.split('"').next()) {
        let made = own.starts_with("target/");
        assert!(made || packaging().join("../..").join(own).exists(), "{own} is not there");
    }
}
