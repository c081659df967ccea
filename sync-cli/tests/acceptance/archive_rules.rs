//! A rule that is changed, and days that come back and go again: what readers find stays what it is.

use crate::cold::{FOR_YEARS, Server};
use crate::lab::run;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const DAYS: [&str; 4] = ["2026/03/01", "2026/03/02", "2026/03/03", "2026/03/04"];

fn fill(server: &Server) {
    for day in DAYS {
        for file in 0..6 {
            server.lab.write("a", format!("{day}/sub/{file}"), format!("{day} {file}"));
        }
    }
    let at = |name: &str| server.hot().join(DAYS[0]).join(name);
    fs::hard_link(at("sub/1"), at("again")).unwrap();
    symlink("sub/2", at("pointer")).unwrap();
    fs::set_permissions(at("sub/3"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::File::create(at("hole")).unwrap().set_len(8 << 20).unwrap();
    fixtures::disk::set_mtime(&at("sub/4"), 1_000_000_000_123_456_789).unwrap();
}

#[test]
fn links_get_another_form_when_the_rule_changes_and_readers_never_fail() {
    let server = Server::new(true);
    server.init();
    fill(&server);
    server.lab.sync(&[]).code(0);
    let before = server.seen();
    let cold = server.cold().canonicalize().unwrap();
    let views = tempfile::tempdir().unwrap();
    // As if applications saw the cold root elsewhere.
    let view = views.path().join("seen by applications");
    symlink(&cold, &view).unwrap();
    let (done, failed, reads) = (AtomicBool::new(false), Mutex::new(None::<String>), AtomicU64::new(0));
    server.rule("run", &["--keep-displaced", FOR_YEARS]).code(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    for day in DAYS {
                        let path = server.hot().join(day).join("sub/1");
                        match fs::read_to_string(&path) {
                            Ok(text) if text == format!("{day} 1") => {}
                            answer => {
                                failed.lock().unwrap().get_or_insert(format!("{}: {answer:?}", path.display()));
                            }
                        }
                    }
                    reads.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let change = || {
            let prefix = format!("prefix={}", view.display());
            for form in ["relative", &prefix, "absolute", "relative", "absolute", &prefix] {
                let ran = server.rule("run", &["--link", form]);
                assert_eq!(ran.code(0).count("relinked"), DAYS.len() as u64, "{form}");
                assert_eq!(server.rule("run", &["--link", form]).code(0).count("relinked"), 0, "{form}");
                for day in DAYS {
                    let path = server.hot().join(day);
                    let text = fs::read_link(&path).unwrap();
                    let right = match form {
                        "absolute" => text == cold.join(day),
                        "relative" => text.starts_with("../../.."),
                        _ => text == view.join(day),
                    };
                    assert!(right, "{form}: {}", text.display());
                    assert_eq!(path.canonicalize().unwrap(), cold.join(day), "{form}");
                }
                assert!(before == server.seen(), "{form}: readers find something else");
                server.assert_no_event();
            }
        };
        let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(change));
        done.store(true, Ordering::SeqCst);
        if let Err(panic) = changed {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(failed.into_inner().unwrap(), None);
    assert!(reads.into_inner() > 0);
}

/// What a copy keeps beyond what a synchronisation does: names of one file, and holes.
fn kept(server: &Server) -> (u64, bool, bool) {
    let meta = |name: &str| fs::metadata(server.hot().join(DAYS[0]).join(name)).unwrap();
    (meta("again").nlink(), meta("again").ino() == meta("sub/1").ino(), meta("hole").blocks() < 64)
}

#[test]
fn days_that_come_back_and_go_again_are_the_same() {
    for other_disk in [true, false] {
        let server = Server::new(other_disk);
        server.init();
        fill(&server);
        server.lab.sync(&[]).code(0);
        let (before, also) = (server.seen(), kept(&server));
        assert_eq!(also, (2, true, true));
        for round in 0..3 {
            let run_again = server.rule("run", &["--keep-displaced", "0s"]);
            assert_eq!(run_again.code(0).count("moved"), DAYS.len() as u64, "round {round}");
            assert!(before == server.seen() && also == kept(&server), "round {round}, other disk: {other_disk}: archived");
            server.assert_one_copy(&DAYS, "archived");
            server.assert_no_event();
            let restored = run(&mut server.on_hot("restore", &["2026"]));
            assert_eq!(restored.code(0).count("moved"), DAYS.len() as u64);
            assert!(before == server.seen() && also == kept(&server), "round {round}, other disk: {other_disk}: restored");
            server.assert_one_copy(&DAYS, "restored");
            server.assert_no_event();
        }
    }
}
