//! The rules of the house that a machine can check: the middle is pure, arrows go one way, the map is complete.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// What no pure module may name. Readers and writers (`std::io`) are handed in and therefore allowed.
const IMPURE: [&str; 38] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
    "std::path",
    "std::sync::mpsc",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "SystemTime",
    "Instant",
    "Utc::now",
    "Local::now",
    "stdin",
    "stdout",
    "stderr",
    "print!",
    "println!",
    "eprint!",
    "eprintln!",
    "dbg!",
    "async",
    "await",
    "rand::",
    "getrandom::",
    "rayon::",
    "rusqlite::",
    "rustix::",
    "crossbeam_channel::",
    "walkdir::",
    "tokio::",
    "quinn::",
    "quinn_proto::",
    "notify::",
    "rustls::",
    "rcgen::",
    "socket2::",
];

/// Named like an effect, and none: the view of a name as its bytes.
const VIEW: &str = "std::os::unix::ffi::OsStrExt";

/// A grouped import hides from this test, and from a search, what it names.
const GROUPED: [&str; 2] = ["std::{", "crate::{"];

#[test]
fn pure_modules_name_nothing_impure() {
    let mut found = Vec::new();
    for file in sources(&crate_dir("sync-core")).iter().filter(|file| top_module(file) != "io") {
        for (number, line) in code(file) {
            let line = line.replace(VIEW, "");
            for word in IMPURE.iter().chain(&GROUPED).filter(|word| has_word(&line, word)) {
                found.push(format!("{}:{number} names {word}: only modules below io/ may", shown(file)));
            }
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn a_module_uses_only_those_listed_before_it() {
    let order = listed_modules(&crate_dir("sync-core").join("src/lib.rs"));
    let mut found = Vec::new();
    for file in &sources(&crate_dir("sync-core")) {
        let own = top_module(file);
        let Some(place) = order.iter().position(|module| *module == own) else { continue };
        let direct = file.parent().is_some_and(|dir| dir.ends_with("src"));
        for (number, line) in code(file) {
            let up = if direct { names_after(&line, "super::") } else { Vec::new() };
            for used in names_after(&line, "crate::").into_iter().chain(up) {
                if order.iter().position(|module| *module == used).is_some_and(|at| at > place) {
                    found.push(format!("{}:{number} {own} uses {used}, which lib.rs lists after it", shown(file)));
                }
            }
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn an_effect_uses_only_those_listed_before_it() {
    let io = crate_dir("sync-core").join("src/io");
    let order = listed_modules(&io.join("mod.rs"));
    let mut found = Vec::new();
    for file in sources(&crate_dir("sync-core")).iter().filter(|file| file.starts_with(&io)) {
        let own = module_name(file).split('/').nth(1).unwrap_or_default().to_owned();
        let Some(place) = order.iter().position(|module| *module == own) else { continue };
        for (number, line) in code(file) {
            for used in names_after(&line, "crate::io::") {
                if order.iter().position(|module| *module == used).is_some_and(|at| at > place) {
                    found.push(format!("{}:{number} {own} uses {used}, which io/mod.rs lists after it", shown(file)));
                }
            }
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn every_module_stands_in_the_map_and_the_map_names_no_other() {
    let map = workspace().join("ARCHITECTURE.md");
    let text = fs::read_to_string(&map)
        .unwrap_or_else(|error| panic!("the map of all modules, ARCHITECTURE.md, cannot be read: {error}"));
    let mut found = Vec::new();
    for member in members() {
        let section = section(&text, &member);
        if section.is_empty() {
            found.push(format!("ARCHITECTURE.md has no heading that names {member}"));
            continue;
        }
        let modules: BTreeSet<_> =
            sources(&crate_dir(&member)).iter().map(|file| module_name(file)).filter(|name| !name.is_empty()).collect();
        for module in modules.iter().filter(|module| !section.contains(&format!("`{module}`"))) {
            found.push(format!("the section of {member} in ARCHITECTURE.md lacks `{module}`"));
        }
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
        for (module, _) in rows.filter(|(module, _)| !modules.contains(*module)) {
            found.push(format!("ARCHITECTURE.md lists `{module}` in {member}, which has no such module"));
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_search_for_words_sees_words_and_not_parts_of_them() {
    assert!(has_word("let t = Instant::now();", "Instant"));
    assert!(has_word("use rayon::prelude::*;", "rayon::"));
    assert!(!has_word("struct Instantly;", "Instant"));
    assert!(!has_word("crayon::draw()", "rayon::"));
    assert_eq!(names_after("use crate::plan::Item; use crate::path;", "crate::"), ["plan", "path"]);
    assert_eq!(section("# A\n## `x` one\nin\n### y\nin\n## z\nout\n", "x"), "in\n### y\nin");
}

fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("a crate lies in the workspace").to_path_buf()
}

fn crate_dir(name: &str) -> PathBuf {
    workspace().join(name)
}

fn shown(file: &Path) -> String {
    file.strip_prefix(workspace()).unwrap_or(file).display().to_string()
}

/// The crates of the workspace, as its manifest lists them.
fn members() -> Vec<String> {
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).expect("the workspace has a manifest");
    let (_, rest) = manifest.split_once("members = [").expect("the workspace lists its members");
    let (list, _) = rest.split_once(']').expect("the list of members ends");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Source files of a crate, those with nothing but tests left out.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let walk = WalkDir::new(dir.join("src")).sort_by_file_name().into_iter();
    let files = walk.map(|entry| entry.expect("sources can be read").into_path());
    files.filter(|file| file.extension().is_some_and(|ending| ending == "rs") && !only_tests(file)).collect()
}

/// `tests.rs`, `tests_open.rs`, and everything in a folder `tests`.
fn only_tests(file: &Path) -> bool {
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem == "tests" || stem.starts_with("tests_") || file.parent().is_some_and(|dir| dir.ends_with("tests"))
}

/// `io/state` for `src/io/state/mod.rs` and `src/io/state.rs`; empty for the root of a crate.
fn module_name(file: &Path) -> String {
    let text = shown(file);
    let below = text.split_once("/src/").map_or("", |(_, below)| below).trim_end_matches(".rs");
    if matches!(below, "lib" | "main") { String::new() } else { below.trim_end_matches("/mod").to_owned() }
}

fn top_module(file: &Path) -> String {
    module_name(file).split('/').next().unwrap_or_default().to_owned()
}

/// Lines of a file with their numbers, up to its tests, without comments.
fn code(file: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(file).expect("sources can be read");
    let lines = text.split("#[cfg(test)]\nmod ").next().unwrap_or("").lines().enumerate();
    lines.map(|(number, line)| (number + 1, line.split("//").next().unwrap_or("").to_owned())).collect()
}

/// `mod` lines of a file, in their order.
fn listed_modules(file: &Path) -> Vec<String> {
    let name = |line: &str| Some(line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')?.to_owned());
    code(file).into_iter().filter_map(|(_, line)| name(line.trim())).collect()
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (line[..at].chars().next_back(), line[at + word.len()..].chars().next());
        !before.is_some_and(part) && (!word.ends_with(part) || !after.is_some_and(part))
    })
}

fn names_after(line: &str, prefix: &str) -> Vec<String> {
    let rest = line.split(prefix).skip(1);
    rest.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

/// What stands below the first heading that names `name`, up to the next heading of its level or above.
fn section(text: &str, name: &str) -> String {
    let level = |line: &str| line.chars().take_while(|c| *c == '#').count();
    let mut lines = text.lines().skip_while(|line| level(line) == 0 || !line.contains(name));
    let Some(heading) = lines.next() else { return String::new() };
    let below = lines.take_while(|line| level(line) == 0 || level(line) > level(heading));
    below.collect::<Vec<_>>().join("\n")
}
