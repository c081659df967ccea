//! Named places at which a test ends the process, to prove that a crash there loses nothing.
//!
//! Without the feature `kill-points` and outside of unit tests a place compiles to nothing.

/// Every place at which a test can end the process.
pub const KILL_POINTS: &[&str] = &[
    "source-copied",
    "stage-file-created",
    "stage-file-written",
    "stage-file-ready",
    "stage-dir-created",
    "stage-dir-filled",
    "stage-symlink-created",
    "stage-renamed",
    "stage-done",
    "batch-staged",
    "batch-prepared",
    "batch-area-synced",
    "batch-synced",
    "batch-previous-committed",
    "batch-swapped",
    "batch-rubbish-removed",
    "finish-swapped",
    "finish-synced",
    "finish-committed",
    "finish-raised",
    "finish-settled",
    "finish-late-checked",
    "create-before",
    "create-after",
    "create-attributes",
    "exchange-before",
    "exchange-after",
    "exchange-checked",
    "exchange-back",
    "exchange-shown-kept",
    "displace-version-after",
    "displace-copy-after",
    "attributes-before",
    "attributes-after",
    "remove-before",
    "remove-after",
    "remove-put-back",
    "remove-dir-after",
    "place-before",
    "place-renamed",
    "place-synced",
    "place-linked",
    "unplace-before",
    "unplace-renamed",
    "unplace-put-back",
    "unplace-synced",
    "unplace-empty-before",
    "unplace-emptied",
    "unplace-unlinked",
    "remove-tree-before",
    "remove-tree-after",
    "move-before",
    "move-after",
    "move-attributes",
    "move-tree-before",
    "move-tree-after",
    "finish-dir-after",
    "recover-intent",
    "recover-displaced",
    "recover-return",
    "recover-bring-back",
    "recover-synced",
    "recover-committed",
    "recover-settled",
    "recover-swept",
    "restore-intended",
    "restore-recorded",
    "restore-exchanged",
    "restore-renamed",
    "restore-forgotten",
    "recover-restored",
    "prune-checked",
    "prune-removed",
    "late-before",
    "late-after",
    "late-copied",
    "late-copy-beside",
    "across-recorded",
    "across-kept",
    "across-forgotten",
    "rejoin-begun",
    "rejoin-aside",
    "rejoin-replaced",
    "cold-raised",
    "cold-raise-remembered",
    "claim-forgotten",
];

/// Every place of moving days between hot and cold at which a test can end the process.
pub const ARCHIVE_POINTS: &[&str] = &[
    "archive-job-recorded",
    "archive-stage-made",
    "archive-manifest-written",
    "archive-copy-durable",
    "archive-copy-ready",
    "archive-parents-made",
    "archive-published",
    "archive-published-durable",
    "archive-sealed",
    "archive-link-made",
    "archive-swap-recorded",
    "archive-announced",
    "archive-rename-parents-made",
    "archive-rename-link-made",
    "archive-rename-recorded",
    "archive-before-exchange",
    "archive-exchanged",
    "archive-exchange-checked",
    "archive-exchange-durable",
    "archive-settled",
    "archive-rename-forgotten",
    "archive-kept",
    "archive-relink-recorded",
    "archive-relink-announced",
    "archive-relink-exchanged",
    "archive-relink-cleared",
    "archive-relink-amended",
    "archive-anew-recorded",
    "archive-anew-brought",
    "archive-anew-link-made",
    "archive-anew-before-exchange",
    "archive-anew-exchanged",
    "archive-anew-exchange-durable",
    "archive-anew-kept",
    "archive-restore-recorded",
    "archive-restore-durable",
    "archive-restore-ready",
    "archive-restore-unsettled",
    "archive-restore-before-exchange",
    "archive-restore-exchanged",
    "archive-restore-exchange-durable",
    "archive-restore-withdrawn",
    "archive-restore-kept",
    "archive-adopt-compared",
    "archive-adopt-ready",
    "archive-adopt-dressed",
    "archive-repair-ready",
    "archive-repaired",
    "archive-recover-merge-looked",
    "archive-recover-looked",
    "archive-abandoned",
    "archive-abandon-swept",
    "archive-abandon-withdrawn",
    "archive-abandon-unpublished",
    "archive-going",
    "archive-gone",
    "archive-restored-taken-away",
    "archive-late-found",
    "archive-late-merged",
    "archive-late-recorded",
    "archive-late-removed",
    "archive-late-brought",
    "archive-late-dir-made",
    "archive-late-put",
    "archive-late-exchanged",
    "archive-late-beside",
    "archive-copied",
    "archive-file-created",
    "archive-file-written",
    "archive-reread",
];

/// Passes a named place.
#[inline(always)]
pub(crate) fn kill_point(name: &'static str) {
    #[cfg(test)]
    hook::reached(name);
    #[cfg(feature = "kill-points")]
    armed::reached(name);
    let _ = name;
}

#[cfg(feature = "kill-points")]
pub use armed::arm;

#[cfg(feature = "kill-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static ARMED: OnceLock<(String, AtomicU32)> = OnceLock::new();

    /// The process kills itself when it passes the place `name` for the `nth` time, counted from 1. Only the
    /// first call of a process counts.
    pub fn arm(name: &str, nth: u32) {
        ARMED.get_or_init(|| (name.to_owned(), AtomicU32::new(nth)));
    }

    pub(super) fn reached(name: &str) {
        let Some((armed, left)) = ARMED.get() else { return };
        if armed == name && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).expect("a process may kill itself");
        }
    }
}

/// Lets a unit test act, or panic, at a place passed by its own thread.
#[cfg(test)]
pub(crate) mod hook {
    use std::cell::RefCell;

    type Hook = Box<dyn FnMut(&'static str)>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    pub(crate) fn set(hook: impl FnMut(&'static str) + 'static) {
        HOOK.with(|slot| *slot.borrow_mut() = Some(Box::new(hook)));
    }

    pub(crate) fn clear() {
        HOOK.with(|slot| *slot.borrow_mut() = None);
    }

    pub(super) fn reached(name: &'static str) {
        // Taken out while it runs: what it does may pass places too.
        let Some(mut hook) = HOOK.with(|slot| slot.borrow_mut().take()) else { return };
        hook(name);
        HOOK.with(|slot| {
            slot.borrow_mut().get_or_insert(hook);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_place_stands_exactly_once_in_the_source_and_no_other_does() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/io");
        let mut found = Vec::new();
        for file in walkdir::WalkDir::new(folder) {
            let file = file.unwrap();
            if file.path().extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(file.path()).unwrap();
                for call in text.split(concat!("kill_point", "(\"")).skip(1) {
                    found.push(call.split('"').next().unwrap().to_owned());
                }
            }
        }
        found.sort();
        let mut listed: Vec<_> = KILL_POINTS.iter().chain(ARCHIVE_POINTS).map(|name| (*name).to_owned()).collect();
        listed.sort();
        assert!(listed.len() >= 40);
        assert_eq!(found, listed);
    }
}
