//! A folder whose old days are archived.
#![allow(clippy::disallowed_methods, reason = "what users do in their roots")]

use super::tests::{end, started_by, wait_until};
use super::*;
use crate::status::{ArchiveRun, ArchiveStatus, PathProblem, PathText};
use std::fs::{self, File};
use std::sync::mpsc::Receiver;
use std::time::SystemTime;
use sync_core::io::fs::init_cold;
use sync_core::path::RelPath;
use tempfile::TempDir;

/// By this clock days are archived, s since 1970: 2026-04-03. [`DAY`] is old by then.
const NOW_S: i64 = 1_775_217_600;
const DAY: &str = "2026/03/01";
const DAY_S: u64 = 1_772_366_400;

/// A root with one old day, and where the cold root is; on another file system, so that old copies are kept.
struct Place {
    hot: TempDir,
    cold: TempDir,
}

impl Place {
    fn new() -> Place {
        let memory = Path::new("/dev/shm");
        let cold = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let place = Place { hot: tempfile::tempdir().unwrap(), cold };
        let day = place.hot.path().join(DAY);
        fs::create_dir_all(&day).unwrap();
        fs::write(day.join("file"), "content").unwrap();
        for path in [day.join("file"), day] {
            File::open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(DAY_S)).unwrap();
        }
        place
    }

    /// With a cold root that may be used.
    fn ready() -> Place {
        let place = Place::new();
        fs::create_dir(place.cold()).unwrap();
        init_cold(&place.cold()).unwrap();
        place
    }

    fn cold(&self) -> PathBuf {
        self.cold.path().join("cold")
    }

    fn rule(&self, more: &str) -> config::Archive {
        let (hot, cold) = (self.hot.path().display(), self.cold().display().to_string());
        let text = format!(
            "name = \"a\"\n[folders.hot]\npath = \"{hot}\"\n[archive.hot]\ncold = \"{cold}\"\ntimezone = \"UTC\"\n{more}\n"
        );
        config::parse(&text, &sync_core::peer::Book::default()).unwrap().archives.into_values().next().unwrap()
    }

    /// A folder that archives, once it has looked for days.
    fn start(&self) -> (Folder, Receiver<String>) {
        let started = started_by(self.hot.path(), (Some(self.rule("")), clock()), false, |_| false);
        wait_until(&started.0, || shown(&started.0).is_some_and(|shown| shown.days.is_some()));
        started
    }

    fn is_archived(&self) -> bool {
        self.hot.path().join(DAY).symlink_metadata().unwrap().is_symlink()
    }
}

fn clock() -> Clock {
    Clock::new(Some(NOW_S * 1_000_000_000))
}

fn shown(folder: &Folder) -> Option<ArchiveStatus> {
    folder.shared().desk.shown()
}

fn last(folder: &Folder) -> Option<ArchiveRun> {
    shown(folder)?.last
}

fn problems(folder: &Folder, source: Source) -> Vec<PathProblem> {
    folder.shared().inbox().facts.problems.get(&source).map_or(Vec::new(), |(_, listed)| listed.clone())
}

/// A run that is asked for, from its beginning to its end.
fn run(folder: &Folder) -> ArchiveRun {
    let before = last(folder).map(|last| last.at);
    folder.shared().desk.ask(false);
    wait_until(folder, || last(folder).is_some_and(|last| Some(last.at) != before));
    last(folder).unwrap()
}

/// As after something was done by hand: days are looked for, and those that moved looked after.
fn look_anew(folder: &Folder) {
    let desk = &folder.shared().desk;
    desk.show(|shown| shown.days = None);
    desk.done_by_hand();
    wait_until(folder, || shown(folder).is_some_and(|shown| shown.days.is_some()));
    // The step under way has ended.
    drop(desk.turn(&|| false));
}

#[test]
fn a_rule_that_was_changed_and_changed_back_archives_days() {
    let place = Place::ready();
    let (folder, _told) = place.start();
    let desk = &folder.shared().desk;
    {
        // As somebody who reads days again by hand, while the configuration is loaded twice.
        let _turn = desk.turn(&|| false).unwrap();
        desk.configure(Some(place.rule("older_than = \"5d\"")));
        desk.configure(Some(place.rule("")));
    }
    let run = run(&folder);
    assert!(run.moved == 1 && run.error.is_none() && place.is_archived(), "{run:?}");
    end(folder);
}

#[test]
fn a_run_that_failed_is_made_up_when_the_root_is_opened_anew() {
    let place = Place::new();
    let (folder, _told) = place.start();
    let failed = run(&folder);
    assert!(failed.error.is_some() && !place.is_archived(), "{failed:?}");
    end(folder);
    fs::create_dir(place.cold()).unwrap();
    init_cold(&place.cold()).unwrap();
    let (folder, _told) = place.start();
    wait_until(&folder, || last(&folder).is_some_and(|last| last.error.is_none()));
    assert!(place.is_archived());
    end(folder);
}

#[test]
fn by_a_clock_that_jumped_before_the_root_was_opened_no_day_is_placed() {
    let place = Place::ready();
    // Nothing runs, and nothing is decided again.
    let (folder, _told) = started_by(place.hot.path(), (Some(place.rule("")), clock()), true, |_| false);
    wait_until(&folder, || folder.shared().live().is_some() && shown(&folder).is_some());
    let (shared, live) = (folder.shared(), folder.shared().live().unwrap());
    let is_placed = |last_s: i64| {
        let known = format!("{{\"now_ns\":{},\"up_ns\":0,\"boot\":\"\"}}", last_s * 1_000_000_000);
        live.put_archive_note("clock.trial", known.as_bytes()).unwrap();
        shared.place_at_once(&live, &AtomicBool::new(false));
        live.root().choose(&RelPath::parse(b"2026/03/02").unwrap()).is_some()
    };
    // The thread does the same once, at its beginning.
    wait_until(&folder, || is_placed(NOW_S - 3600));
    // Ten hours behind the last run.
    wait_until(&folder, || !is_placed(NOW_S + 36_000));
    drop(live);
    end(folder);
}

#[test]
fn what_stands_in_the_way_of_old_copies_is_told_once_and_shown_until_it_is_over() {
    let place = Place::ready();
    let (folder, told) = place.start();
    let moved = run(&folder);
    assert!(moved.moved == 1 && moved.error.is_none(), "{moved:?}");
    look_anew(&folder);
    if shown(&folder).unwrap().displaced == 0 {
        // On one file system no old copy is kept.
        return end(folder);
    }
    let lines = || told.try_iter().filter(|line| line.starts_with(&format!("hot: {DAY}: "))).count();
    assert_eq!(lines(), 0);
    let (day, aside) = (place.cold().join(DAY), place.cold().join("aside"));
    fs::rename(&day, &aside).unwrap();
    look_anew(&folder);
    wait_until(&folder, || !problems(&folder, Source::Settle).is_empty());
    (0..5).for_each(|_| look_anew(&folder));
    assert_eq!(lines(), 1);
    fs::rename(&aside, &day).unwrap();
    look_anew(&folder);
    wait_until(&folder, || problems(&folder, Source::Settle).is_empty());
    assert_eq!(lines(), 0);
    // Without its cold root nothing is tried there.
    fs::rename(place.cold(), place.cold.path().join("away")).unwrap();
    assert!(run(&folder).error.is_some());
    wait_until(&folder, || shown(&folder).is_some_and(|shown| shown.unavailable.is_some()));
    (0..5).for_each(|_| look_anew(&folder));
    assert!(lines() == 0 && problems(&folder, Source::Settle).is_empty());
    end(folder);
}

#[test]
fn problems_of_days_that_came_back_are_shown_no_longer() {
    let place = Place::ready();
    let (folder, _told) = place.start();
    let problem = PathProblem { place: PathText::new(b"2026/03/02/file"), step: "read".into(), error: "denied".into() };
    folder.shared().inbox().facts.problems.insert(Source::ColdLook, (1, vec![problem]));
    folder.shared().desk.done_by_hand();
    wait_until(&folder, || problems(&folder, Source::ColdLook).is_empty());
    end(folder);
}
