//! What goes wrong on a machine: the agent says so, keeps the rest going, and recovers by itself.

use crate::lab::{Lab, wait_until, write};
use anyhow::{Result, bail, ensure};
use fixtures::bytes::noise;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use sync_agent::status::FolderState;

const PAIR: [(usize, usize); 1] = [(0, 1)];
const QUICK: &str = "quiet = \"50ms\"";
/// Where Debian's package `faketime` puts it; the second word of the path is that of the machine.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Something mounted, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// Nothing, and a loud line, where that is not permitted.
    fn or_skip(words: &[&str], at: &Path) -> Option<Mounted> {
        match mount(words, at) {
            Ok(()) => Some(Mounted(at.to_owned())),
            Err(error) => {
                eprintln!("SKIPPED: nothing can be mounted here, so it was not tried how an agent does with it: {error:#}");
                None
            }
        }
    }

    /// Away at once, whoever uses it.
    fn away(&self) -> Result<()> {
        run(Command::new("umount").arg("--lazy").arg(&self.0))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A test that failed may have taken it away already.
        let _ = self.away();
    }
}

fn mount(words: &[&str], at: &Path) -> Result<()> {
    run(Command::new("mount").args(words).arg(at))
}

fn run(command: &mut Command) -> Result<()> {
    let told = command.output()?;
    ensure!(told.status.success(), "{command:?}: {}", String::from_utf8_lossy(&told.stderr).trim());
    Ok(())
}

fn state(lab: &Lab, at: usize) -> Result<FolderState> {
    match &lab.machines[at].status()?.folders[..] {
        [folder] => Ok(folder.state.clone()),
        other => bail!("{} folders", other.len()),
    }
}

/// Is a file everywhere?
fn everywhere(lab: &Lab, path: &str) -> bool {
    lab.machines.iter().all(|machine| machine.at(path).exists())
}

#[test]
fn too_few_watches_are_told_with_what_to_set_and_changes_are_found_all_the_same() -> Result<()> {
    let Some(mut lab) = Lab::new(2, &PAIR, &format!("{QUICK}\n[limits]\nwatches = 4"))? else { return Ok(()) };
    for number in 0..20 {
        write(&lab.machines[0].at(&format!("d{number}/file")), b"first")?;
    }
    lab.start_all()?;
    lab.wait_equal("all have all of it", |lab| everywhere(lab, "d19/file"))?;
    wait_until("it is told", || {
        let watches = lab.machines[0].status()?.folders[0].watches;
        Ok(watches.set <= 4 && watches.needed >= Some(21) && watches.limit == Some(4))
    })?;
    assert!(lab.says(0, "watches")?, "the log says nothing of watches");
    for number in 0..20 {
        write(&lab.machines[0].at(&format!("d{number}/file")), format!("second {number}").as_bytes())?;
    }
    lab.wait_equal("what changed without a watch is found", |lab| {
        fs::read(lab.machines[1].at("d19/file")).is_ok_and(|text| text == b"second 19")
    })?;
    lab.stop_all()
}

#[test]
fn events_that_the_kernel_drops_are_told_and_everything_is_looked_at() -> Result<()> {
    let Some(mut lab) = Lab::new(2, &PAIR, QUICK)? else { return Ok(()) };
    lab.start_all()?;
    write(&lab.machines[0].at("d/before"), b"x")?;
    lab.wait_equal("all have it", |lab| everywhere(lab, "d/before"))?;
    lab.wait_in_sync()?;
    let queue: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")?.trim().parse()?;
    // Whoever does not run does not read events: three of them for each of two files in turn, so that none is like the one before.
    lab.signal(0, Signal::STOP)?;
    for number in 0..queue / 3 + 1000 {
        fs::write(lab.machines[0].at(&format!("d/turn{}", number % 2)), number.to_string())?;
    }
    write(&lab.machines[0].at("late/after"), b"y")?;
    lab.signal(0, Signal::CONT)?;
    wait_until("it is told", || lab.says(0, "the kernel dropped events"))?;
    lab.wait_equal("all have all of it", |lab| everywhere(lab, "late/after"))?;
    lab.wait_in_sync()?;
    lab.stop_all()
}

#[test]
fn trees_that_are_made_and_renamed_at_once_arrive_as_they_are_in_the_end() -> Result<()> {
    let Some(mut lab) = Lab::new(2, &PAIR, QUICK)? else { return Ok(()) };
    lab.start_all()?;
    lab.wait_in_sync()?;
    for round in 0..20 {
        let a = &lab.machines[round % 2];
        for number in 0..30 {
            write(&a.at(&format!("t{round}/x/y/z{}/{number}", number % 3)), &noise(number, 100))?;
        }
        fs::rename(a.at(&format!("t{round}/x")), a.at(&format!("t{round}/moved")))?;
        fs::rename(a.at(&format!("t{round}")), a.at(&format!("s{round}")))?;
        write(&a.at(&format!("s{round}/moved/y/z0/later")), b"later")?;
        if round % 4 == 3 {
            fs::remove_dir_all(a.at(&format!("s{round}/moved/y/z1")))?;
        }
    }
    lab.wait_equal("all have what is there in the end", |lab| {
        let tree = lab.machines[0].tree().unwrap_or_default();
        let files = tree.iter().filter(|(path, _)| path.to_string().ends_with("/later")).count();
        files == 20 && !lab.machines[1].at("s3/moved/y/z1").exists() && !lab.machines[0].at("t0").exists()
    })?;
    lab.wait_in_sync()?;
    lab.stop_all()
}

#[test]
fn a_folder_that_is_unmounted_is_told_of_and_goes_on_when_it_is_back() -> Result<()> {
    let Some(mut lab) = Lab::new(2, &PAIR, QUICK)? else { return Ok(()) };
    let disk = lab.place().join("disk");
    fs::create_dir(&disk)?;
    let source = disk.to_string_lossy().into_owned();
    let root = lab.machines[1].root.clone();
    let Some(mounted) = Mounted::or_skip(&["--bind", &source], &root) else { return Ok(()) };
    lab.start_all()?;
    write(&lab.machines[0].at("d/one"), b"1")?;
    lab.wait_equal("all have it", |lab| everywhere(lab, "d/one"))?;
    mounted.away()?;
    wait_until("it is told", || Ok(matches!(state(&lab, 1)?, FolderState::Unavailable { .. })))?;
    write(&lab.machines[0].at("d/two"), b"2")?;
    fs::remove_file(lab.machines[0].at("d/one"))?;
    wait_until("the other goes on", || Ok(matches!(state(&lab, 0)?, FolderState::Watching)))?;
    assert_eq!(fs::read_dir(&root)?.count(), 0, "something was put where the disk belongs");
    mount(&["--bind", &source], &root)?;
    lab.wait_equal("all have all of it", |lab| everywhere(lab, "d/two") && !lab.machines[1].at("d/one").exists())?;
    lab.wait_in_sync()?;
    lab.stop_all()
}

#[test]
fn a_full_disk_is_told_of_what_has_room_goes_on_and_the_rest_follows() -> Result<()> {
    let Some(mut lab) = Lab::new(2, &PAIR, QUICK)? else { return Ok(()) };
    let root = lab.machines[1].root.clone();
    let Some(_mounted) = Mounted::or_skip(&["-t", "tmpfs", "-o", "size=16m", "tmpfs"], &root) else { return Ok(()) };
    lab.start_all()?;
    write(&lab.machines[0].at("small/0"), b"0")?;
    lab.wait_equal("all have it", |lab| everywhere(lab, "small/0"))?;
    write(&lab.machines[0].at("large"), &noise(1, 24 << 20))?;
    wait_until("it is told", || {
        let problems = &lab.machines[1].status()?.folders[0].problems;
        let told = |error: &str| error.contains("space") || error.contains("room");
        Ok(problems.listed.iter().any(|problem| problem.place.bytes() == b"large" && told(&problem.error)))
    })?;
    for number in 1..20 {
        write(&lab.machines[0].at(&format!("small/{number}")), &noise(number, 1000))?;
    }
    wait_until("what has room arrives", || Ok(everywhere(&lab, "small/19")))?;
    write(&lab.machines[1].at("back"), b"what is made there goes the other way")?;
    wait_until("the other way is free", || Ok(everywhere(&lab, "back")))?;
    mount(&["-o", "remount,size=128m"], &root)?;
    lab.wait_equal("the rest follows", |lab| everywhere(lab, "large"))?;
    lab.wait_in_sync()?;
    lab.stop_all()
}

#[test]
fn a_disk_is_filled_up_to_what_is_kept_free_and_what_waits_comes_once_there_is_room() -> Result<()> {
    let config = format!("{QUICK}\n[limits]\nreserve = \"8M\"");
    let Some(mut lab) = Lab::new(2, &PAIR, &config)? else { return Ok(()) };
    let root = lab.machines[1].root.clone();
    let Some(_mounted) = Mounted::or_skip(&["-t", "tmpfs", "-o", "size=32m", "tmpfs"], &root) else { return Ok(()) };
    lab.start_all()?;
    write(&lab.machines[0].at("first"), &noise(0, 12 << 20))?;
    lab.wait_equal("what has room arrives", |lab| everywhere(lab, "first"))?;
    // There would be room, if nothing were kept free.
    write(&lab.machines[0].at("second"), &noise(1, 14 << 20))?;
    wait_until("it is told", || {
        let problems = &lab.machines[1].status()?.folders[0].problems;
        let told = |error: &str| error.contains("it needs 14.0 MiB") && error.contains("8.0 MiB of them are kept free");
        Ok(problems.listed.iter().any(|problem| problem.place.bytes() == b"second" && told(&problem.error)))
    })?;
    for number in 0..20 {
        write(&lab.machines[0].at(&format!("small/{number}")), &noise(number, 1000))?;
    }
    wait_until("small files arrive", || Ok(everywhere(&lab, "small/19")))?;
    let free = rustix::fs::statvfs(&root)?;
    ensure!(free.f_bavail * free.f_frsize >= 8 << 20, "{} blocks are free", free.f_bavail);
    fs::remove_file(lab.machines[1].at("first"))?;
    lab.wait_equal("the rest follows", |lab| everywhere(lab, "second"))?;
    lab.wait_in_sync()?;
    lab.stop_all()
}

#[test]
fn a_clock_that_jumps_by_years_changes_nothing_of_what_is_exchanged() -> Result<()> {
    if !Path::new(FAKETIME).exists() {
        eprintln!("SKIPPED: {FAKETIME} is not there (package faketime), so no clock was moved");
        return Ok(());
    }
    let Some(mut lab) = Lab::new(2, &PAIR, QUICK)? else { return Ok(()) };
    let clock = lab.place().join("clock");
    fs::write(&clock, "+0")?;
    // The time of day only: what waits are measured by never jumps.
    lab.machines[1].environment = vec![
        ("LD_PRELOAD".into(), FAKETIME.into()),
        ("FAKETIME_TIMESTAMP_FILE".into(), clock.clone().into()),
        ("FAKETIME_NO_CACHE".into(), "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
        ("DONT_FAKE_MONOTONIC".into(), "1".into()),
        ("NO_FAKE_STAT".into(), "1".into()),
    ];
    lab.start_all()?;
    for machine in &lab.machines {
        write(&machine.at(&format!("d/{}", machine.name)), b"first")?;
    }
    lab.wait_equal("all have all of it", |lab| everywhere(lab, "d/a") && everywhere(lab, "d/b"))?;
    for (round, jump) in ["+1000d", "-3000d", "+0"].iter().enumerate() {
        fs::write(&clock, jump)?;
        for (machine, other) in [(0, "b"), (1, "a")] {
            let machine = &lab.machines[machine];
            write(&machine.at(&format!("d/{}{round}", machine.name)), b"new")?;
            fs::write(machine.at(&format!("d/{}", machine.name)), format!("again {round}"))?;
            ensure!(machine.at(&format!("d/{other}")).exists(), "what {other} made is gone from {}", machine.name);
        }
        lab.wait_equal("all have all of it", |lab| {
            everywhere(lab, &format!("d/a{round}"))
                && everywhere(lab, &format!("d/b{round}"))
                && fs::read_to_string(lab.machines[1].at("d/a")).is_ok_and(|text| text == format!("again {round}"))
                && fs::read_to_string(lab.machines[0].at("d/b")).is_ok_and(|text| text == format!("again {round}"))
        })?;
        let status = lab.machines[1].status()?;
        eprintln!("{jump}: the agent takes it for {}", String::from(status.folders[0].last_change.unwrap_or(status.since)));
    }
    lab.wait_in_sync()?;
    for machine in &lab.machines {
        let tree = machine.tree()?;
        ensure!(!tree.iter().any(|(path, _)| path.to_string().contains(".conflict")), "there is a conflict");
    }
    lab.stop_all()
}
