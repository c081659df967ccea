//! A byte that flips on the disk of a cold root, without anybody having written to the file.

use crate::cold::Server;
use crate::disk::Disk;
use crate::lab::{driftless, run};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

const PATH: &str = "2026/03/01/sub/picture";

/// The number of the block in the image that holds the beginning of a file.
fn block(image: &Path, path: &str) -> Option<u64> {
    let told = Command::new("debugfs").arg("-R").arg(format!("bmap {path} 0")).arg(image).output().ok()?;
    String::from_utf8_lossy(&told.stdout).trim().parse().ok()
}

#[test]
fn a_byte_that_flips_on_the_cold_disk_is_found_and_brought_back() {
    let mounts = tempfile::tempdir().unwrap();
    let (server, at, image) = (Server::new(false), mounts.path().join("cold"), mounts.path().join("image"));
    let Some(disk) = Disk::ext4(&image, 64, at.clone()) else { return };
    run(driftless().args(["archive", "init-cold"]).arg(&at)).code(0);
    let bytes = fixtures::bytes::noise(1, 50_000);
    server.lab.write("a", PATH, &bytes);
    server.lab.write("a", "2026/03/01/other", "stays whole");
    server.lab.sync(&[]).code(0);
    server.rule_to("run", &at, &["--keep-displaced", "0s"]).code(0);
    assert_eq!(run(&mut server.on_hot("verify", &[])).code(0).count("files"), 2);
    // Below the file system: no time of the file changes, as when a disk forgets.
    disk.away();
    let Some(block) = block(&image, PATH) else { return eprintln!("SKIPPED: there is no debugfs here") };
    let device = File::options().read(true).write(true).open(&image).unwrap();
    let (mut byte, place) = ([0], block * 4096 + 1234);
    device.read_exact_at(&mut byte, place).unwrap();
    assert_eq!(byte[0], bytes[1234], "that is the place");
    device.write_all_at(&[byte[0] ^ 4], place).unwrap();
    device.sync_all().unwrap();
    let _disk = Disk::image(&image, at.clone()).unwrap();
    let hot = server.hot().join(PATH);
    assert!(fs::read(&hot).unwrap() != bytes, "the damage can be read");
    // Found, and told each time, as long as nothing brings the bytes back.
    for _ in 0..2 {
        let ran = run(&mut server.on_hot("verify", &[]));
        ran.code(2);
        assert_eq!((ran.count("damaged"), ran.count("repaired")), (1, 0));
        assert!(ran.lines().iter().any(|line| line["path"] == PATH && line["result"] == "failed"), "{}", ran.stdout());
    }
    // It is no edit: nobody else gets it.
    server.assert_no_event();
    assert!(fs::read(server.lab.at("b", PATH)).unwrap() == bytes);
    // Another copy that has other bytes, too, does not help.
    let wrong = tempfile::tempdir().unwrap();
    fs::create_dir_all(wrong.path().join("2026/03/01/sub")).unwrap();
    fs::write(wrong.path().join(PATH), fixtures::bytes::noise(2, 50_000)).unwrap();
    let from = |root: &Path| ["--repair-from".to_owned(), root.display().to_string()];
    let repair = |root: &Path| run(server.on_hot("verify", &[]).args(from(root)));
    assert_eq!(repair(wrong.path()).code(2).count("repaired"), 0);
    assert_eq!(repair(&server.lab.root("b")).code(0).count("repaired"), 1);
    assert!(fs::read(&hot).unwrap() == bytes);
    let whole = run(&mut server.on_hot("verify", &[]));
    assert_eq!((whole.code(0).count("damaged"), whole.count("files")), (0, 2));
    server.assert_no_event();
}
