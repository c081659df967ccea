//! A folder as a whole.

use super::*;
use std::sync::mpsc::channel;

#[test]
#[allow(clippy::disallowed_methods, reason = "the clock from which all else is counted")]
fn a_panic_is_told_and_the_folder_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("name = \"a\"\n[folders.hot]\npath = \"{}\"\n", dir.path().display());
    let config = config::parse(&text, &sync_core::peer::Book::default()).unwrap();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let opened = AtomicBool::new(false);
    let setting = Setting {
        own: sync_core::peer::PublicKey::from_bytes([1; 32]).id(),
        begun: Instant::now(),
        log: Arc::new(move |_, line| {
            // A test that has heard enough has gone.
            let _ = tell.lock().unwrap_or_else(PoisonError::into_inner).send(line.to_owned());
        }),
        permits: Arc::new(Permits::new(1)),
        watches: None,
        reserve: Reserve::STANDARD,
        archive: (None, Clock::default()),
        paused: false,
        known: Box::new(move |_| {
            assert!(opened.swap(true, Ordering::Relaxed), "the first time");
            false
        }),
    };
    let (name, config) = config.folders.into_iter().next().unwrap();
    let folder = Folder::start(name, config, setting, Vec::new());
    let line = told.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(line.contains("ended its work: the first time"), "{line}");
    let until = Instant::now() + Duration::from_secs(60);
    while folder.shared().state() != status::FolderState::Watching {
        assert!(Instant::now() < until && !folder.is_over(), "{:?}", folder.shared().state());
        thread::sleep(Duration::from_millis(10));
    }
    folder.stop();
    folder.join();
}
