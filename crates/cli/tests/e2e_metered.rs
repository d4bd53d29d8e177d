//! Who is on a line that is paid by the byte sends nothing, and is told so. What the network manager says is a stand-in's word: this
//! machine has none.

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use common::{Caudal, Folder, PATIENCE, link, number, publish_card, tracker, wait_until_playing};

/// A folder with a `busctl` that answers `answer`, before all others on the path.
fn manager(home: &Folder, answer: &str) -> String {
    let folder = home.join(&format!("manager-{}", answer.replace(' ', "-")));
    std::fs::create_dir(&folder).expect("a folder");
    let program = folder.join("busctl");
    let asked = "--system get-property org.freedesktop.NetworkManager /org/freedesktop/NetworkManager \
                 org.freedesktop.NetworkManager Metered";
    let script = format!("#!/bin/sh\n[ \"$*\" = \"{asked}\" ] && echo '{answer}'\n");
    std::fs::write(&program, script).expect("a script");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it may be run");
    format!("PATH={}:{}", folder.display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn who_pays_by_the_byte_sends_nothing() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish_card(&home, &tracker, &["--source-copies", "1"]);
    let link = link(&source);
    let (metered, free) = (manager(&home, "u 1"), manager(&home, "u 2"));
    let watch = |path: &str, more: &[&str]| {
        Caudal::start_within(
            &home,
            &["env", path],
            &[&["watch", &link, "--listen", "127.0.0.1:0"], more].concat(),
        )
    };
    let generous = watch(&free, &[]);
    let paying = watch(&metered, &[]);
    let careless = watch(&metered, &["--metered", "no"]);
    paying.wait_for_error("metered", PATIENCE);
    let viewers = [generous, paying, careless];
    viewers.iter().for_each(wait_until_playing);
    std::thread::sleep(Duration::from_secs(4));
    let [generous, paying, careless] = viewers.each_ref().map(Caudal::stats);
    assert_eq!(paying["metered"], true, "{paying}");
    assert_eq!(number(&paying, "/bytes_out"), 0.0, "{paying}");
    assert!(number(&paying, "/useful_bytes") > 300_000.0, "it watches all the same: {paying}");
    assert_eq!((&generous["metered"], &careless["metered"]), (&false.into(), &false.into()));
    assert!(number(&generous, "/bytes_out") + number(&careless, "/bytes_out") > 300_000.0, "others send");
    for viewer in viewers {
        viewer.end();
    }
}
