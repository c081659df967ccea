//! What we staged stands at its path for a moment, before it is exchanged back because a user had changed what it was to
//! replace: what somebody writes to it then is a user's.

use super::*;

/// A user's edit makes the exchange be taken back; while ours stands at the path, `act` is done there.
fn with_ours_shown(world: &World, act: impl Fn(&Path) + 'static, later: impl FnMut() + 'static) {
    let (folder, mut later) = (world.folder.path().to_owned(), later);
    hook::set(move |name| match name {
        "exchange-before" => write_file(&folder.join("f"), "last moment"),
        "exchange-back" => act(&folder),
        "batch-swapped" => later(),
        _ => {}
    });
}

#[test]
fn a_write_to_ours_before_it_is_exchanged_back_is_kept() {
    use std::io::Write;
    let append = |path: &Path| fs::File::options().append(true).open(path).unwrap();
    for keep in [None, Some(Duration::from_secs(60))] {
        for handle in [false, true] {
            let mut world = World::new();
            world.keep = keep;
            let old = world.have("f", Some("old"));
            let row = world.theirs("f", Some("theirs"));
            let open = Arc::new(Mutex::new(None));
            let late = open.clone();
            let act = move |root: &Path| {
                let mut file = append(&root.join("f"));
                if handle {
                    *open.lock().unwrap() = Some(file);
                } else {
                    file.write_all(b" and mine").unwrap();
                }
            };
            with_ours_shown(&world, act, move || {
                if let Some(mut file) = late.lock().unwrap().take() {
                    file.write_all(b" and mine").unwrap();
                }
            });
            let applied = world.apply(vec![world.write("f", &row, Some(&old))]);
            hook::clear();
            assert_eq!(applied.totals.failed, 1);
            assert_eq!(world.read("f"), "last moment");
            assert!(world.disk().values().any(|bytes| bytes == "theirs and mine"), "{:?}", world.disk());
            world.assert_stage_is_empty();
            world.reopen();
            assert_eq!(world.recover(), Recovered::default());
        }
    }
}

#[test]
fn a_file_put_into_our_directory_before_it_is_exchanged_back_is_kept() {
    for keep in [None, Some(Duration::from_secs(60))] {
        let mut world = World::new();
        world.keep = keep;
        let old = world.have("f", Some("old"));
        let row = world.theirs("f", None);
        with_ours_shown(&world, |root| write_file(&root.join("f/new"), "mine"), || {});
        let applied = world.apply(vec![world.write("f", &row, Some(&old)), world.create("f/theirs", "theirs")]);
        hook::clear();
        assert!(applied.totals.failed >= 1);
        assert_eq!(world.read("f"), "last moment");
        assert!(world.disk().values().any(|bytes| bytes == "mine"), "{:?}", world.disk());
        world.assert_stage_is_empty();
    }
}

#[test]
fn a_crash_after_ours_was_exchanged_back_loses_no_write_to_it() {
    for place in ["exchange-shown-kept", "batch-swapped", "finish-synced", "finish-committed"] {
        let mut world = World::new();
        let old = world.have("f", Some("old"));
        let row = world.theirs("f", Some("theirs"));
        let steps = vec![world.write("f", &row, Some(&old))];
        let folder = world.folder.path().to_owned();
        hook::set(move |name| match name {
            "exchange-before" => write_file(&folder.join("f"), "last moment"),
            "exchange-back" => write_file(&folder.join("f"), "theirs and mine"),
            name if name == place => {
                hook::clear();
                std::panic::panic_any("crash");
            }
            _ => {}
        });
        assert!(catch_unwind(AssertUnwindSafe(|| drop(world.apply(steps)))).is_err());
        world.reopen();
        world.recover();
        check_late(&world.root, world.state(), 0).unwrap();
        assert_eq!(world.read("f"), "last moment", "{place}");
        assert!(world.disk().values().any(|bytes| bytes == "theirs and mine"), "{place}: {:?}", world.disk());
        assert_eq!(world.entry("f").unwrap().row.m, old.m);
        world.assert_stage_is_empty();
    }
}
