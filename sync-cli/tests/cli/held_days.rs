//! Old days of a root that an agent has open: what is done with them by hand is done by the agent, and says the same.

use crate::agent::{Running, configure};
use crate::held::{Two, status, told, until};
use crate::machine::Machine;
use crate::pair::{lines, stdout};
use crate::repair::Disk;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// A machine whose folder `hot` has old days in a cold root; its agent archives by the rule by which they went there.
fn with_days(days: &[&str], cold: &Path) -> (Machine, String) {
    let machine = Machine::new();
    let hot = machine.folder("hot").display().to_string();
    configure(&machine, &rule(cold, "0s"));
    days.iter().for_each(|day| fill(&machine, day));
    let cold = cold.display().to_string();
    machine.run(&["archive", "init-cold", &cold]).code(0);
    archive(&machine, &hot, &cold);
    (machine, hot)
}

fn rule(cold: &Path, quiet: &str) -> String {
    format!("[archive.hot]\ncold = \"{}\"\ntimezone = \"UTC\"\nquiet = \"{quiet}\"\ncold_schedule = \"1000h\"\n", cold.display())
}

fn fill(machine: &Machine, day: &str) {
    for name in ["a.txt", "sub/b.txt"] {
        machine.write("hot", &format!("{day}/{name}"), &format!("only {name} of {day} has these very bytes"));
    }
}

fn archive(machine: &Machine, hot: &str, cold: &str) {
    machine.run(&["archive", "run", "--hot", hot, "--cold", cold, "--timezone", "UTC", "--quiet", "0s"]).code(0);
}

fn is_archived(machine: &Machine, day: &str) -> bool {
    fs::symlink_metadata(machine.folder("hot").join(day)).unwrap().is_symlink()
}

fn start(machine: &Machine) -> Running {
    let agent = Running::start(machine, &[]);
    until("the root is open", || stdout(&machine.run(&["agent", "status"])).contains("watching"));
    agent
}

/// How the agent says that the folder's archive is.
fn shown(machine: &Machine) -> Value {
    status(machine).into_iter().find(|line| line["event"] == "folder").unwrap()["archive"].clone()
}

/// When the last run of the agent was.
fn runs(machine: &Machine) -> Value {
    shown(machine)["last"]["at"].clone()
}

fn archived(machine: &Machine) -> u64 {
    shown(machine)["archived"].as_u64().unwrap()
}

fn scrubbed(machine: &Machine) -> Value {
    shown(machine)["scrub"].clone()
}

/// A run of the agent, from its beginning to its end: the command waits for that.
fn run_of_agent(machine: &Machine, hot: &str) {
    let before = runs(machine);
    machine.run(&["archive", "run", "--hot", hot]).code(0);
    assert_ne!(runs(machine), before);
}

#[test]
fn what_is_asked_of_old_days_says_the_same_with_an_agent_and_without() {
    let cold = tempfile::tempdir().unwrap();
    let (machine, hot) = with_days(&["2001/03/05", "2001/03/06"], cold.path());
    let hot = hot.as_str();
    fill(&machine, "2001/03/08");
    fill(&machine, "2001/02/30");
    let nowhere = machine.dir.path().join("nowhere").display().to_string();
    let asked: [&[&str]; 10] = [
        &["plan", "--hot", hot],
        &["plan", "--hot", hot, "--json"],
        &["plan", "--hot", hot, "--older-than", "20000d"],
        &["plan", "--hot", hot, "--timezone", "Nowhere/At_All"],
        &["plan", "--hot", hot, "--cold", &nowhere],
        &["restore", hot, "2001/03/08"],
        &["restore", hot, "nothing", "--json"],
        &["verify", hot],
        &["verify", hot, "--json"],
        &["verify", hot, "--repair-from", &nowhere],
    ];
    let run = |args: &[&str]| told(&machine.run(&[&["archive"], args].concat()));
    let alone: Vec<_> = asked.iter().map(|args| run(args)).collect();
    let codes: Vec<_> = alone.iter().map(|(code, ..)| code.unwrap()).collect();
    assert_eq!(codes, [0, 0, 0, 64, 3, 3, 3, 0, 0, 3], "{alone:?}");
    assert!(alone[0].1.contains("would move  2001/03/08"), "{alone:?}");

    let agent = start(&machine);
    for (args, alone) in asked.iter().zip(alone) {
        assert_eq!(run(args), alone, "{args:?}");
    }
    let restore = ["restore", hot, "2001/03/05", "--json"];
    let restored = run(&restore);
    assert_eq!(restored.0, Some(0), "{restored:?}");
    assert!(
        restored.2.contains("what came back counts as changed now: runs leave it until it was quiet for 0 h"),
        "{restored:?}"
    );
    assert!(!is_archived(&machine, "2001/03/05"));
    assert_eq!(machine.read("hot", "2001/03/05/sub/b.txt").unwrap(), "only sub/b.txt of 2001/03/05 has these very bytes");
    until("the agent shows it", || archived(&machine) == 1);
    run_of_agent(&machine, hot);
    assert!(is_archived(&machine, "2001/03/05"));

    // What it does not do is refused, and what the refusal says to do is all that it takes.
    let refused: [&[&str]; 3] =
        [&["claim", hot], &["forget", hot, "2001/03/06"], &["verify", hot, "--repair-from", "quic://127.0.0.1:9/hot"]];
    for args in refused {
        let (code, _, why) = run(args);
        assert!(code == Some(3) && why.contains("driftless agent stop"), "{args:?}: {why}");
    }
    machine.run(&["agent", "stop"]).code(0);
    agent.end();
    assert_eq!(run(&restore), restored);
    let (code, _, why) = run(refused[0]);
    assert_eq!(code, Some(0), "{why}");
    // A day that is there is not forgotten.
    let (code, _, why) = run(refused[1]);
    assert!(code == Some(2) && why.contains("2001/03/06 is there"), "{why}");
}

#[test]
fn a_run_of_the_agent_is_waited_for_and_ends_as_one_without_it() {
    let place = tempfile::tempdir().unwrap();
    let cold = place.path().join("cold");
    fs::create_dir(&cold).unwrap();
    let (machine, hot) = with_days(&["2001/03/05"], &cold);
    let agent = start(&machine);
    let ran = |code: i32| lines(&machine.run(&["archive", "run", "--hot", &hot, "--json"]).code(code)).pop().unwrap();
    let status = |code: i32| lines(&machine.run(&["archive", "status", &hot, "--json"]).code(code));
    fill(&machine, "2001/03/06");
    assert_eq!((&ran(0)["moved"], is_archived(&machine, "2001/03/06")), (&1.into(), true));

    fill(&machine, "2001/03/07");
    let pipe = Path::new(&hot).join("2001/03/07/pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fill(&machine, "2001/03/08");
    // Days are told as they are, and not as they were seen an hour ago.
    let told = status(1);
    let summary = told.last().unwrap();
    assert_eq!((&summary["moved"], &summary["skipped"], &summary["in_sync"]), (&1.into(), &1.into(), &false.into()), "{told:?}");
    assert!(told.iter().any(|line| line["path"] == "2001/03/07" && line["result"] == "skipped"), "{told:?}");
    let summary = ran(1);
    assert_eq!((&summary["moved"], &summary["skipped"], &summary["in_sync"]), (&1.into(), &1.into(), &false.into()), "{summary}");
    fs::remove_file(&pipe).unwrap();

    // The disk goes: an empty mount point is left.
    let away = place.path().join("away");
    fs::rename(&cold, &away).unwrap();
    fs::create_dir(&cold).unwrap();
    let summary = ran(3);
    let error = summary["error"].as_str().unwrap();
    assert!(error.contains("no marker") && summary["in_sync"] == false, "{summary}");
    status(2);
    fs::remove_dir(&cold).unwrap();
    fs::rename(&away, &cold).unwrap();
    ran(0);
    assert!(is_archived(&machine, "2001/03/07"));
    drop(agent);
}

#[test]
fn what_an_agent_without_a_rule_is_asked_of_old_days_has_to_be_said_in_its_configuration() {
    let machine = Machine::new();
    configure(&machine, "");
    let hot = machine.folder("hot").display().to_string();
    let agent = start(&machine);
    let (code, _, why) = told(&machine.run(&["archive", "plan", "--hot", &hot]));
    assert!(code == Some(64) && why.contains("say it in [archive.hot]") && !why.contains("--cold"), "{code:?} {why}");
    drop(agent);
}

#[test]
fn a_day_that_came_back_by_hand_stays_until_it_was_quiet_as_the_rule_says() {
    let cold = tempfile::tempdir().unwrap();
    let (machine, hot) = with_days(&["2001/03/05"], cold.path());
    configure(&machine, &rule(cold.path(), "24h"));
    let agent = start(&machine);
    machine.run(&["archive", "restore", &hot, "2001/03/05"]).code(0);
    run_of_agent(&machine, &hot);
    let stays = |why: &str| why.contains("stays  2001/03/05: changed lately: not quiet until");
    let plan = ["archive", "plan", "--hot", &hot];
    let with = stdout(&machine.run(&plan).code(0));
    assert!(!is_archived(&machine, "2001/03/05") && stays(&with), "{with}");
    machine.run(&["agent", "stop"]).code(0);
    agent.end();
    let alone = stdout(&machine.run(&["archive", "run", "--hot", &hot]).code(0));
    assert!(!is_archived(&machine, "2001/03/05") && stays(&alone), "{alone}");
}

#[test]
fn damage_that_is_found_or_repaired_by_hand_is_told_the_same_and_is_in_the_agents_status() {
    let Some(disk) = Disk::mounted() else { return };
    let (machine, hot) = with_days(&["2001/03/05"], &disk.path());
    let copy = machine.folder("copy").display().to_string();
    let script = format!("cp -rL {hot}/2001 {copy}");
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let (verify, repair) = (["archive", "verify", &hot], ["archive", "verify", &hot, "--repair-from", &copy]);
    let damage = || assert_eq!(disk.damage(b"only sub/b.txt of 2001/03/05 has these very bytes"), 1);

    damage();
    let found = told(&machine.run(&verify));
    assert!(found.0 == Some(2) && found.1.contains("2001/03/05/sub/b.txt is damaged"), "{found:?}");
    let repaired = told(&machine.run(&repair));
    assert!(repaired.0 == Some(0) && repaired.1.contains("1 damaged, 1 repaired"), "{repaired:?}");
    damage();
    let agent = start(&machine);
    assert_eq!(told(&machine.run(&verify)), found);
    until("the status tells of it", || scrubbed(&machine)["damaged"] == 1);
    assert_eq!(told(&machine.run(&repair)), repaired);
    until("the status says that it is whole", || scrubbed(&machine)["damaged"] == 0 && scrubbed(&machine)["repaired"] == 1);
    assert_eq!(machine.read("hot", "2001/03/05/sub/b.txt").unwrap(), "only sub/b.txt of 2001/03/05 has these very bytes");
    machine.run(&verify).code(0);
    drop(agent);
}

#[test]
fn a_day_comes_back_while_a_peer_writes_to_it_and_while_others_are_archived() {
    let two = Two::new();
    let cold = tempfile::tempdir().unwrap();
    let (hot, cold_text) = (two.a.folder("hot").display().to_string(), cold.path().display().to_string());
    let days: Vec<String> = (1..=9).map(|day| format!("2001/03/0{day}")).collect();
    days.iter().for_each(|day| fill(&two.a, day));
    two.a.run(&["archive", "init-cold", &cold_text]).code(0);
    two.archive_on_a(&rule(cold.path(), "0s"));
    until("b has them", || two.are_equal());
    run_of_agent(&two.a, &hot);
    assert!(days.iter().all(|day| is_archived(&two.a, day)));

    let day = &days[4];
    // As long as it goes on, a day may never stand still for as long as it takes to copy it.
    let written = 200;
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for number in 0..written {
                two.b.write("hot", &format!("{day}/sub/of b {number}"), &format!("written by b: {number}"));
                two.b.write("hot", &format!("{day}/a.txt"), &format!("edited by b: {number}"));
                thread::sleep(Duration::from_millis(20));
            }
        });
        for (round, other) in days.iter().take(2).enumerate() {
            until("the peer's writes come", || two.a.read("hot", &format!("{day}/sub/of b {}", round * 5)).is_some());
            // A day that changes all the time while it is copied stays where it is, which is told.
            until("the day comes back", || {
                let (code, out, err) = told(&two.a.run(&["archive", "restore", &hot, day]));
                let changed = code == Some(2) && err.contains("changed while it was looked at");
                assert!(changed || code == Some(0) && out.contains(&format!("restored {day}")), "{code:?} {out} {err}");
                code == Some(0)
            });
            // The rule takes it again at once, and another one comes back while that goes on, or after it.
            let mut run = Command::new(env!("CARGO_BIN_EXE_driftless"));
            run.env("DRIFTLESS_HOME", two.a.home()).args(["archive", "run", "--hot", &hot]).stdout(Stdio::null());
            let mut run = run.stderr(Stdio::null()).spawn().unwrap();
            if is_archived(&two.a, other) {
                let (code, _, err) = told(&two.a.run(&["archive", "restore", &hot, other]));
                assert!(code == Some(0), "{code:?} {err}");
            }
            // A day that was written to while it was copied stays for later.
            assert!(run.wait().unwrap().code().is_some_and(|code| code < 3));
            until("the day is archived again", || {
                is_archived(&two.a, day) || {
                    two.a.run(&["archive", "run", "--hot", &hot]);
                    false
                }
            });
        }
        writing.join().unwrap();
    });
    until("both are equal", || two.are_equal());
    for number in 0..written {
        let text = two.a.read("hot", &format!("{day}/sub/of b {number}"));
        assert_eq!(text.unwrap(), format!("written by b: {number}"));
    }
    assert_eq!(two.a.read("hot", &format!("{day}/a.txt")).unwrap(), format!("edited by b: {}", written - 1));
    assert_eq!(lines(&two.a.run(&["conflicts", &hot, "--json"]).code(0)).len(), 1, "no conflict");

    // What is done in a day that came back is noticed like anything else.
    until("a day came back", || told(&two.a.run(&["archive", "restore", &hot, "2001/03/08"])).0 == Some(0));
    two.a.write("hot", "2001/03/08/sub/b.txt", "edited by a");
    until("the edit is on b", || two.b.read("hot", "2001/03/08/sub/b.txt").as_deref() == Some("edited by a"));
}
