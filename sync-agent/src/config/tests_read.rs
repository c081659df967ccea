use super::*;
use sync_core::peer::PublicKey;
use sync_core::reserve::Reserve;

fn id(key: u8) -> Id {
    PublicKey::from_bytes([key; 32]).id()
}

/// `ID1` to `ID3` stand for ids.
fn with_ids(text: &str) -> String {
    (1..=3).fold(text.to_owned(), |text, key| text.replace(&format!("ID{key}"), &id(key).to_string()))
}

fn book(text: &str) -> Book {
    Book::parse(&with_ids(text)).unwrap()
}

/// The mistakes as they are told, one a line.
fn faults(text: &str, known: &str) -> String {
    let faults = parse(&with_ids(text), &book(known)).expect_err(text);
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn config(text: &str, known: &str) -> Config {
    parse(&with_ids(text), &book(known)).unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
}

const FULL: &str = r#"
name = "web-hk-1"
listen = ["0.0.0.0:4477", "[::]:4477"]
status = "127.0.0.1:4479"
[peers.web-sg]
id = "ID1"
addresses = ["sg.example.net:4477", "203.0.113.9:4477"]
[folders.hot]
path = "/srv//app/./hot/"
peers = { web-sg = "two-way" }
ignore = ["*.tmp"]
conflicts = "newer"
quiet = "2s"
keep_versions = "off"
max_delete = 1000
schedule = "6h"
state_dir = "/var/lib/driftless"
introduce = true
[archive.hot]
cold = "/mnt/cold"
layout = "y%Y/%m-%d"
under = "sites/*"
older_than = "30d"
quiet = "12h"
timezone = "Asia/Hong_Kong"
link = "prefix=/data/cold"
outside_links = "rewrite"
keep_displaced = "1h"
cold_schedule = "12h"
min_peers = 1
repair = false
[limits]
watches = 5
bandwidth = "10M"
exchanges = 2
reserve = "5%"
"#;

#[test]
fn every_key_says_what_it_says() {
    let config = config(FULL, "");
    assert_eq!((config.name.as_str(), config.listen.len(), config.status.unwrap().port()), ("web-hk-1", 2, 4479));
    let sg: Name = "web-sg".parse().unwrap();
    assert_eq!((config.peers[&sg].id, config.peers[&sg].addresses.len()), (id(1), 2));
    let hot: Name = "hot".parse().unwrap();
    let folder = Folder {
        path: "/srv/app/hot".into(),
        peers: [(sg, Mode::TwoWay)].into(),
        ignore: vec!["*.tmp".into()],
        conflicts: Policy::Newer,
        quiet: Duration::from_secs(2),
        keep_versions: None,
        max_delete: MaxDelete::Count(1000),
        state_dir: Some("/var/lib/driftless".into()),
        introduce: true,
        schedule: Duration::from_secs(6 * 3_600),
    };
    assert_eq!(config.folders[&hot], folder);
    let archive = Archive {
        cold: "/mnt/cold".into(),
        layout: "y%Y/%m-%d".into(),
        under: Some("sites/*".into()),
        older_than: 30 * DAY,
        quiet: DAY / 2,
        timezone: Timezone::Named("Asia/Hong_Kong".into()),
        link: LinkForm::Prefix("/data/cold".into()),
        outside_links: OutsideLinks::Rewrite,
        keep_displaced: Duration::from_secs(3_600),
        cold_schedule: Schedule::Every(DAY / 2),
        min_peers: 1,
        repair: false,
    };
    assert_eq!(config.archives[&hot], archive);
    assert_eq!(
        config.limits,
        Limits { watches: Some(5), bandwidth: Some(10 << 20), exchanges: 2, reserve: Reserve { bytes: u64::MAX, percent: 5 } }
    );
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = config("name = \"a\"\n[folders.hot]\npath = \"/hot\"\n[archive.hot]\ncold = \"/cold\"\n", "");
    let folder = &config.folders[&"hot".parse().unwrap()];
    assert_eq!((folder.conflicts, folder.keep_versions), (Policy::KeepBoth, Some(7 * DAY)));
    assert_eq!((folder.quiet.as_millis(), folder.introduce, folder.max_delete), (200, false, MaxDelete::Percent(50.0)));
    assert_eq!((config.listen.len(), config.status.unwrap().to_string()), (0, "127.0.0.1:4478".into()));
    let archive = &config.archives[&"hot".parse().unwrap()];
    assert_eq!((archive.older_than, archive.cold_schedule), (3 * DAY, Schedule::Daily { hour: 3, minute: 0 }));
    assert_eq!((&archive.timezone, archive.min_peers, config.limits), (&Timezone::Local, 0, Limits::default()));
}

#[test]
fn a_machine_of_the_known_peers_needs_no_table() {
    let known = "[peers.lap]\nid = \"ID2\"\naddresses = [\"lap:1\"]\n[peers.other]\nid = \"ID3\"\n[peers.sg]\nid = \"ID1\"\naddresses = [\"new:1\"]\n";
    let text = "name = \"a\"\n[peers.sg]\nid = \"ID1\"\naddresses = [\"old:1\"]\n[folders.hot]\npath = \"/hot\"\n\
                peers = { lap = \"two-way\", sg = \"send-only\" }\n";
    let config = config(text, known);
    let names: Vec<&str> = config.peers.keys().map(Name::as_str).collect();
    assert_eq!(names, ["lap", "sg"], "whom nothing names is no peer of the agent");
    assert_eq!(config.peers[&"lap".parse().unwrap()].id, id(2));
    let addresses: Vec<&str> = config.peers[&"sg".parse().unwrap()].addresses.iter().map(|address| address.as_str()).collect();
    assert_eq!(addresses, ["old:1", "new:1"]);
}

#[test]
fn a_mistake_is_told_with_its_line_its_key_and_what_can_be_written() {
    let head = "name = \"a\"\n";
    let folder = "[folders.hot]\npath = \"/hot\"\n";
    let archive = "[folders.hot]\npath = \"/hot\"\n[archive.hot]\ncold = \"/cold\"\n";
    for (before, wrong, told) in [
        // Keys.
        (
            "",
            "nmae = \"a\"",
            "1: nmae: unknown key; did you mean name?\n1: name: is missing: what this machine is called, such as name = \"web-1\"",
        ),
        (head, "xyz = 1", "2: xyz: unknown key; known here: name, listen, status, peers, folders, archive, limits"),
        (folder, "conflict = \"skip\"", "3: folders.hot.conflict: unknown key; did you mean conflicts?"),
        (folder, "keep-versions = \"1d\"", "3: folders.hot.keep-versions: unknown key; did you mean keep_versions?"),
        (archive, "older-than = \"1d\"", "5: archive.hot.older-than: unknown key; did you mean older_than?"),
        (head, "[folder.hot]\npath = \"/x\"", "2: folder: unknown key; did you mean folders?"),
        (head, "[limits]\nwatchs = 1", "3: limits.watchs: unknown key; did you mean watches?"),
        // Kinds of values.
        (head, "listen = \"0.0.0.0:1\"", "2: listen: a list of texts in brackets is expected, not a text"),
        (head, "listen = [\n  \"0.0.0.0:1\",\n  5,\n]", "4: listen: a text in quotes is expected, not a number"),
        (head, "folders = 1", "2: folders: a table is expected, not a number"),
        (head, "[[folders]]\npath = \"/x\"", "2: folders: a table is expected, not a list of tables"),
        (head, "[folders.hot.path]\nx = 1", "2: folders.hot.path: a table stands where a value is expected"),
        (folder, "introduce = \"yes\"", "3: folders.hot.introduce: true or false is expected, not a text"),
        (folder, "quiet = 5", "3: folders.hot.quiet: a text in quotes is expected, not a number"),
        // Values.
        (
            head,
            "listen = [\"web:4477\"]",
            "2: listen: \"web:4477\" is no address to listen at: give IP:PORT (0.0.0.0:4477, [::]:4477)",
        ),
        (head, "listen = [\"[::1]:1\", \"[::1]:1\"]", "2: listen: [::1]:1 stands there twice"),
        (
            head,
            "status = \"0.0.0.0:1\"",
            "2: status: 0.0.0.0:1 is not on loopback, and the page asks nobody for a password; give 127.0.0.1:PORT",
        ),
        (
            head,
            "status = \"on\"",
            "2: status: \"on\" is no address to listen at: give IP:PORT (0.0.0.0:4477, [::]:4477), or \"off\"",
        ),
        (head, "[folders.hot]", "2: folders.hot.path: is missing: the folder on this machine, such as path = \"/srv/hot\""),
        (head, "[folders.hot]\npath = \"hot\"", "3: folders.hot.path: \"hot\" is relative: give the whole path, from / on"),
        (
            head,
            "[folders.hot]\npath = \"/a/../b\"",
            "3: folders.hot.path: \"/a/../b\" contains `..`, or a zero byte: give the whole path, from / on",
        ),
        (folder, "conflicts = \"older\"", "3: folders.hot.conflicts: \"older\" is no policy: skip, keep-both and newer are"),
        (folder, "quiet = \"2\"", "3: folders.hot.quiet: \"2\" is no duration; give a number and d, h, m, s or ms (90s)"),
        (
            folder,
            "quiet = \"2h\"",
            "3: folders.hot.quiet: 2h is longer than an hour: what is written to now and then would never be sent",
        ),
        (folder, "keep_versions = \"0d\"", "3: folders.hot.keep_versions: a duration of zero keeps nothing; say so with off"),
        (folder, "max_delete = \"x\"", "3: folders.hot.max_delete: \"x\" is neither a number of paths nor a share like 25%"),
        (
            folder,
            "schedule = \"1s\"",
            "3: folders.hot.schedule: 1s is shorter than ten seconds: the folder would be scanned all the time",
        ),
        (
            folder,
            "ignore = [\"[a\"]",
            "3: folders.hot.ignore: ignore rule \"[a\": error parsing glob '[a': unclosed character class; missing ']'",
        ),
        (
            archive,
            "layout = \"%Y/%d/%m\"",
            "5: archive.hot.layout: \"%Y/%d/%m\" is no layout of days; %Y, %m and, for days, %d are expected once each, in this order, such \
             as %Y/%m/%d or %Y-%m-%d",
        ),
        (archive, "older_than = \"1h\"", "5: archive.hot.older_than: 1h is less than a day: today's files stay hot"),
        (
            archive,
            "timezone = \"Hong Kong\"",
            "5: archive.hot.timezone: \"Hong Kong\" is no time zone: give local, UTC, or a name such as Asia/Hong_Kong",
        ),
        (
            archive,
            "link = \"hard\"",
            "5: archive.hot.link: \"hard\" is no form of a link: absolute, relative and prefix=/PATH are",
        ),
        (
            archive,
            "cold_schedule = \"daily 24:00\"",
            "5: archive.hot.cold_schedule: \"daily 24:00\" is no schedule: give daily HH:MM (daily 03:00), or a duration of ten seconds or more (12h)",
        ),
        (head, "[limits]\nexchanges = 0", "3: limits.exchanges: a number from 1 to 64 is expected"),
        (
            head,
            "[limits]\nbandwidth = \"fast\"",
            "3: limits.bandwidth: \"fast\" is no rate; give KiB a second (500), or a number with K, M or G (1.5M), or 0 for no limit",
        ),
        (
            head,
            "[limits]\nreserve = \"much\"",
            "3: limits.reserve: \"much\" is no room to be kept free; give a number with K, M, G or T (2G), a share like 5%, or off",
        ),
        // What does not fit together.
        (
            folder,
            "peers = { b = \"two-way\" }",
            "3: folders.hot.peers.b: no peer is named b: add [peers.b], or driftless peer add b ID, or driftless pair",
        ),
        (
            folder,
            "peers = { p = \"all\" }",
            "3: folders.hot.peers.p: \"all\" is no mode: two-way, send-only, receive-only and no-delete are",
        ),
        (
            folder,
            "[folders.b]\npath = \"/hot/\"",
            "4: folders.b.path: /hot is the path of folders.hot: each path belongs to one folder",
        ),
        (
            folder,
            "[folders.b]\npath = \"/hot/b\"",
            "4: folders.b.path: /hot/b is below folders.hot: each path belongs to one folder",
        ),
        (folder, "[folders.b]\npath = \"/\"", "4: folders.b.path: / is above folders.hot: each path belongs to one folder"),
        (
            folder,
            "state_dir = \"/hot/state\"",
            "3: folders.hot.state_dir: /hot/state is below folders.hot, and would be synchronised with it",
        ),
        (folder, "[archive.old]\ncold = \"/cold\"", "3: archive.old: there is no folders.old whose days could be archived"),
        (
            folder,
            "[archive.hot]",
            "3: archive.hot.cold: is missing: the folder to which old days go, such as cold = \"/mnt/cold\"",
        ),
        (
            folder,
            "[archive.hot]\ncold = \"/hot/cold\"",
            "4: archive.hot.cold: /hot/cold is below folders.hot: hot and cold lie apart",
        ),
        (
            archive,
            "min_peers = 1",
            "5: archive.hot.min_peers: 1 peers are to have a day, and folders.hot has 0: nothing would ever be archived",
        ),
        (head, "[peers.b]", "2: peers.b.id: is missing: as `driftless id` prints it on that machine"),
        (
            head,
            "[peers.b]\nid = \"ID1\"\n[peers.c]\nid = \"ID1\"",
            "5: peers.c.id: the same id as that of peers.b: one machine has one name",
        ),
        (
            head,
            "[peers.\"b c\"]\nid = \"ID1\"",
            "2: peers.b c: \"b c\" is no name: 1 to 64 letters, digits, `-`, `_` and `.` of ASCII are, the first of them a letter or a digit",
        ),
        (head, "name = \"b\"", "2: duplicate key"),
        (head, "listen = [", "2: unclosed array, expected `]`"),
    ] {
        // Where the case does not say the name itself, it stands in a line above.
        let above = if before.starts_with("name") || before.is_empty() { "" } else { "name = \"a\"\n" };
        let text = format!("{above}{before}{wrong}\n");
        let below = |line: &str| {
            let (number, rest) = line.split_once(':').unwrap();
            format!("{}:{rest}", number.parse::<usize>().unwrap() + above.lines().count())
        };
        let told: Vec<String> = told.lines().map(below).collect();
        assert_eq!(faults(&text, ""), told.join("\n"), "{text}");
    }
}

#[test]
fn one_machine_has_one_name_and_one_id_in_both_files() {
    let folder = "name = \"a\"\n[peers.b]\nid = \"ID1\"\n[folders.hot]\npath = \"/hot\"\npeers = { c = \"two-way\" }\n";
    assert_eq!(
        faults(folder, "[peers.c]\nid = \"ID1\"\n"),
        "6: folders.hot.peers.c: peers.toml knows the machine of peers.b as c: name it b here"
    );
    let told = faults("name = \"a\"\n[peers.b]\nid = \"ID1\"\n", "[peers.b]\nid = \"ID2\"\n");
    assert_eq!(
        told,
        format!("3: peers.b.id: peers.toml knows b with another id, {}; mend one, or driftless peer remove b", id(2))
    );
}

#[test]
fn all_mistakes_are_told_at_once_up_to_a_limit() {
    let text = format!("name = \"a\"\n{}", (0..30).map(|number| format!("x{number} = 1\n")).collect::<String>());
    let lines = faults(&text, "");
    assert_eq!((lines.lines().count(), lines.lines().next().unwrap().split(':').next()), (super::super::FAULTS, Some("2")));
}

#[test]
fn what_cannot_be_shown_is_escaped() {
    assert_eq!(faults("name = \"a\"\n\"\\u001b[2J\" = 1\n", "").split(" unknown").next(), Some("2: \\u{1b}[2J:"));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}a-z.\"=#\n ,0-9-]{0,120}") {
        let _ = parse(&text, &Book::default());
    }
}
