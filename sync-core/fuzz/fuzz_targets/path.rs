//! Paths: what is accepted cannot leave the root, and comes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sync_core::path::{MAX_DEPTH, MAX_NAME, Name, RESERVED, RelPath, escape};

fuzz_target!(|data: &[u8]| {
    let shown = escape(data);
    assert!(!shown.chars().any(char::is_control));
    let _ = Name::parse(data);
    let Ok(path) = RelPath::parse(data) else { return };
    assert!(path.as_bytes() == data);
    assert!(path.depth() <= MAX_DEPTH);
    let mut back = RelPath::root();
    for name in path.components() {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty() && bytes.len() <= MAX_NAME && bytes != b"." && bytes != b".." && bytes != RESERVED);
        assert!(!bytes.iter().any(|byte| matches!(byte, 0 | b'/')));
        back = back.join(&name);
    }
    assert!(back == path);
    for above in path.ancestors() {
        assert!(above.contains(&path) && above <= path);
        assert!(path.rebase(&above, &RelPath::root()).is_some());
    }
});
