//! Ignore rules from a peer, and paths against them: no panic, and nothing that takes for ever.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sync_core::ignore::Rules;
use sync_core::path::RelPath;

fuzz_target!(|data: &[u8]| {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let text = String::from_utf8_lossy(&data[..at]);
    let Ok(rules) = Rules::parse(&text) else { return };
    assert!(rules.text() == text);
    assert!(!rules.ignores(&RelPath::root(), true));
    if let Some(Ok(path)) = data.get(at + 1..).map(RelPath::parse) {
        let _ = (rules.ignores(&path, true), rules.ignores(&path, false));
    }
});
