use super::*;
use std::fs;

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

#[test]
#[allow(clippy::print_stderr, reason = "says why nothing is proved")]
fn events_that_the_kernel_drops_are_everything_and_all_is_watched_afterwards() {
    let queue: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    if queue > 200_000 {
        return eprintln!("the kernel queues {queue} events: too many to make here; nothing is proved");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Watch::begin(&Root::open(folder.path()).unwrap(), Options::standard(), None).unwrap();
    let inbox = Arc::clone(&watch.inbox);
    {
        // The thread that reads the kernel's queue waits for this.
        let _held = inbox.batch();
        fs::create_dir(folder.path().join("made meanwhile")).unwrap();
        for _ in 0..queue / 2 {
            // Made, opened, closed, removed.
            fs::write(folder.path().join("f"), "").unwrap();
            fs::remove_file(folder.path().join("f")).unwrap();
        }
    }
    let all = Change::Everything { why: Why::KernelQueue };
    let mut told = Vec::new();
    while !told.contains(&all) {
        let more = watch.wait(Duration::from_secs(120)).unwrap();
        assert!(!more.is_empty(), "told: {told:?}");
        told.extend(more);
    }
    assert_eq!(watch.watched(), 2);
    fs::write(folder.path().join("made meanwhile/f"), "").unwrap();
    while !told.contains(&Change::Touched(path("made meanwhile/f"))) {
        let more = watch.wait(Duration::from_secs(120)).unwrap();
        assert!(!more.is_empty(), "told: {told:?}");
        told.extend(more);
    }
}

#[test]
fn a_directory_deeper_than_a_path_may_be_long_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::open(folder.path()).unwrap();
    let name = "n".repeat(200);
    let mut dir = root.dir(&RelPath::root()).unwrap();
    for _ in 0..40 {
        dir = dir.create_dir(name.as_bytes()).unwrap();
    }
    let mut watch = Watch::begin(&root, Options::standard(), None).unwrap();
    assert_eq!(watch.watched(), 41);
    dir.create_file(b"f").unwrap();
    let deep = path(&format!("{}f", format!("{name}/").repeat(40)));
    assert_eq!(watch.wait(Duration::from_secs(120)).unwrap(), [Change::Touched(deep)]);
}

#[test]
fn what_is_made_between_a_watch_and_the_listing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("d")).unwrap();
    let root = Root::open(folder.path()).unwrap();
    let beside = Watch::beside(&root, Options::standard(), None).unwrap();
    let pass = |at: &str| {
        let at = path(at);
        let dir = root.dir(&at).unwrap();
        beside.before_listing(&at, &dir);
        dir
    };
    pass("");
    let dir = pass("d");
    fs::write(folder.path().join("d/between"), "").unwrap();
    assert_eq!(dir.names().unwrap(), [Box::from(*b"between")]);
    fs::write(folder.path().join("d/after"), "").unwrap();
    let mut watch = beside.finish().unwrap();
    assert_eq!(watch.watched(), 2);
    let mut told = std::collections::BTreeSet::new();
    while told.len() < 2 {
        let more = watch.wait(Duration::from_secs(120)).unwrap();
        assert!(!more.is_empty(), "told: {told:?}");
        told.extend(more);
    }
    assert_eq!(told, std::collections::BTreeSet::from(["d/between", "d/after"].map(|at| Change::Touched(path(at)))));
}

#[test]
fn a_root_that_was_replaced_meanwhile_has_no_watch() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("root");
    fs::create_dir(&at).unwrap();
    let root = Root::open(&at).unwrap();
    let beside = Watch::beside(&root, Options::standard(), None).unwrap();
    beside.before_listing(&RelPath::root(), &root.dir(&RelPath::root()).unwrap());
    fs::rename(&at, folder.path().join("other")).unwrap();
    fs::create_dir(&at).unwrap();
    assert!(matches!(beside.finish(), Err(WatchError::RootChanged { .. })));
}

#[test]
fn what_is_left_out_is_watched_with_all_below_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("d/e/f")).unwrap();
    fs::create_dir_all(folder.path().join("g/h")).unwrap();
    let root = Root::open(folder.path()).unwrap();
    let beside = Watch::beside(&root, Options::standard(), None).unwrap();
    for at in ["", "d"] {
        beside.before_listing(&path(at), &root.dir(&path(at)).unwrap());
    }
    for at in ["d", "g", "missing"] {
        beside.left_out(&path(at));
    }
    let watch = beside.finish().unwrap();
    assert_eq!((watch.watched(), watch.unwatched().count()), (6, 0));
}
