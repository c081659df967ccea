//! Servers with different cold roots, with none, and one that joins later: archiving is a matter of each alone.

use crate::lab::{Machine, day, files, setting, wait_until, write_day};
use std::fs;
use std::path::Path;
use std::time::Instant;
use sync_agent::status::BroughtStatus;

/// What archiving must not change: what pulls did, and open conflicts.
fn brought(machines: &[&Machine]) -> Vec<(BroughtStatus, Option<u64>)> {
    machines.iter().map(|machine| machine.folder()).map(|folder| (folder.brought, folder.conflicts)).collect()
}

#[test]
fn days_go_cold_on_each_server_by_itself_and_nothing_goes_over_the_wire() {
    let (days, count) = (setting("DRIFTLESS_TEST_DAYS", 6), setting("DRIFTLESS_TEST_DAY_FILES", 50));
    assert!((6..=30).contains(&days), "the last ones are old by the clock of these tests, and young enough to be watched");
    // On another file system, on the same one, and nowhere.
    let (mut a, mut b) = (Machine::with_cold("a", true), Machine::with_cold("b", false));
    let (mut c, mut d) = (Machine::hot("c"), Machine::with_cold("d", true));
    b.archive = "link = \"relative\"\nmin_peers = 1".into();
    (0..days).for_each(|number| write_day(&a.root(), number, count));
    [&b, &c, &d].iter().for_each(|other| a.knows(other));
    let begun = Instant::now();
    a.start();
    [&mut b, &mut c].into_iter().for_each(|other| {
        other.knows(&a);
        // What was there when it came is moved by a run: only so is there anything to move.
        let archive = other.cold.take();
        other.start();
        other.cold = archive;
    });
    let expected = files(&a.root());
    assert_eq!(expected.len() as u64, days * count);
    let has_all = |machine: &Machine| files(&machine.root()) == expected;
    wait_until("b and c have all days", || has_all(&b) && has_all(&c) && b.is_in_sync() && c.is_in_sync());
    eprintln!("{days} days of {count} files are on three machines after {:.1} s", begun.elapsed().as_secs_f64());
    b.configure();
    assert!(b.run(&["agent", "reload"]).status.success());

    let before = brought(&[&a, &b, &c]);
    for machine in [&a, &b] {
        let begun = Instant::now();
        // Of the peers' knowledge is told soon after a pull.
        wait_until("all days are cold", || machine.archive_now().archived == days);
        let archive = machine.archive();
        eprintln!("{}: {:.1} s, {:?}", machine.name, begun.elapsed().as_secs_f64(), archive.last);
        assert_eq!(archive.days.as_ref().map(|days| (days.waiting, days.oldest.clone())), Some((0, None)));
        assert!((0..days).all(|number| machine.is_link(&day(number))), "{}", machine.name);
        assert!(has_all(machine), "{}", machine.name);
    }
    // Whoever looks at all of it finds no change either.
    for machine in [&a, &b, &c] {
        assert!(machine.run(&["agent", "sync"]).status.success());
    }
    wait_until("the looks are over", || [&a, &b, &c].iter().all(|machine| machine.folder().state.word() == "watching"));
    assert_eq!(brought(&[&a, &b, &c]), before, "archiving brought, deleted or moved something elsewhere");
    assert!(!c.root().join(day(0)).symlink_metadata().unwrap().is_symlink() && c.folder().archive.is_none());
    assert!([&a, &b, &c].iter().all(|machine| has_all(machine)));

    // One that joins has its old days in the cold root at once.
    d.knows(&a);
    let begun = Instant::now();
    d.start();
    wait_until("d has all days", || has_all(&d));
    eprintln!("d has them after {:.1} s", begun.elapsed().as_secs_f64());
    assert!((0..days).all(|number| d.is_link(&day(number))), "d made days hot");
    assert!((0..days).all(|number| Path::new(&d.cold_path()).join(day(number)).is_dir()));
    let told = d.archive();
    assert!(told.last.is_none(), "a run moved them");
    assert_eq!(told.archived, days, "what came straight to the cold root is not counted");
    let [(_, conflicts)] = brought(&[&d])[..] else { panic!("one folder") };
    assert_eq!(conflicts, Some(0));

    // Late changes through a link go everywhere.
    let [one, two, three] = [days - 3, days - 2, days - 1].map(day);
    fs::write(a.root().join(&one).join("late.txt"), "late").unwrap();
    fs::remove_file(b.root().join(&two).join("part-0/00000.txt")).unwrap();
    fs::write(c.root().join(&three).join("part-1/00001.txt"), "changed").unwrap();
    wait_until("late changes are everywhere", || {
        let now = files(&a.root());
        let is = |path: String, text: Option<&str>| now.get(Path::new(&path)).map(|bytes| &bytes[..]) == text.map(str::as_bytes);
        is(format!("{one}/late.txt"), Some("late"))
            && is(format!("{two}/part-0/00000.txt"), None)
            && is(format!("{three}/part-1/00001.txt"), Some("changed"))
            && [&b, &c, &d].iter().all(|machine| files(&machine.root()) == now)
    });
    assert!([&a, &b, &c, &d].iter().all(|machine| machine.folder().conflicts == Some(0)));
    [&mut a, &mut b, &mut c, &mut d].into_iter().for_each(Machine::stop);
}
