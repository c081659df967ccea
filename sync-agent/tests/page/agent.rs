//! The page of a real agent.

use crate::client::get;
use crate::wait_until;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use sync_agent::Supervisor;
use sync_agent::control::Client;
use sync_agent::service::Service;
use sync_agent::status::Status;
use sync_core::io::home::Home;

fn configure(config: &Path, root: &Path, status: &str) {
    let text = format!(
        "name = \"web-1\"\nlisten = [\"127.0.0.1:0\"]\nstatus = \"{status}\"\n[folders.hot]\npath = \"{}\"\nquiet = \"20ms\"\n",
        root.display()
    );
    fs::write(config, text).unwrap();
    fs::set_permissions(config, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn an_agents_page_shows_how_it_is_goes_where_a_reload_says_and_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("<script>alert(1)</script>".replace('/', "_"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), "12345").unwrap();
    let home = Home::open(&dir.path().join("home")).unwrap();
    let config = dir.path().join("agent.toml");
    configure(&config, &root, "127.0.0.1:0");
    let client = Client::new(home.folder());
    let service = Service::start(home, &config, Supervisor::default(), Arc::new(|_, line| eprintln!("{line}"))).unwrap();
    let (handle, at) = (service.handle(), service.status().page.unwrap());
    let running = thread::spawn(move || service.run().1);
    let shown = |at| {
        let told: serde_json::Value = serde_json::from_str(&get(at, "/api/status").body).unwrap();
        serde_json::from_value::<Status>(told["status"].clone()).unwrap()
    };
    wait_until("the page shows the folder", || shown(at).folders[0].paths == Some(1));
    assert_eq!(shown(at).page, Some(at));
    let metrics = get(at, "/metrics").body;
    assert!(metrics.contains("\ndriftless_folder_paths{folder=\"hot\"} 1\n"), "{metrics}");
    assert_eq!(client.status().unwrap().unwrap().page, Some(at));

    configure(&config, &root, "off");
    client.reload().unwrap().unwrap();
    assert!(TcpStream::connect(at).is_err(), "it is gone");
    assert_eq!(client.status().unwrap().unwrap().page, None);
    configure(&config, &root, "127.0.0.1:0");
    client.reload().unwrap().unwrap();
    let at = client.status().unwrap().unwrap().page.unwrap();
    assert_eq!(shown(at).name.as_str(), "web-1");
    handle.stop();
    running.join().unwrap().unwrap();
    assert!(TcpStream::connect(at).is_err(), "it ended with the agent");
}
