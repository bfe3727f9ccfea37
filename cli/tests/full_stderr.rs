//! A stderr that takes nothing (a full disk under the log, a `| tee` that died) must end neither a command nor a scheduler.

mod home;

use home::{Home, assert_exit, json, stderr};
use std::fs::OpenOptions;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const NOOP: &str = "[input]\nrange = { count = 1000, tasks = 100 }\n\n[map]\nkernel = \"noop\"\n";

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn a_command_with_much_to_say_goes_on() {
    let home = Home::new();
    home.write("job.toml", NOOP);
    let output = home.command(&["run", "job.toml", "--no-gpu", "-vv", "-o", "json"]).stderr(full()).output().unwrap();
    assert_exit(&output, 0);
    assert_eq!(json(&output)["state"], "done");
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_scheduler_leads_and_takes_jobs() {
    let home = Home::new();
    home.write("job.toml", NOOP);
    let start = ["scheduler", "start", "--name", "s1", "--data-dir", "s1", "--listen", "127.0.0.1:0", "--bootstrap", "-vv"];
    let mut scheduler = Ended(home.command(&start).stdout(Stdio::null()).stderr(full()).spawn().unwrap());
    let begun = Instant::now();
    let address = loop {
        if let Ok(address) = std::fs::read_to_string(home.path().join("s1/address")) {
            break address.trim().to_owned();
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "no address");
        std::thread::sleep(Duration::from_millis(20));
    };
    let here = ["--address", &address, "--credential", "s1/admin.pem"];
    let output = home.run(&[&["submit", "job.toml"][..], &here].concat());
    assert_exit(&output, 6);
    assert!(stderr(&output).contains("the cluster has no worker"), "{}", stderr(&output));
    assert_eq!(json(&home.run(&[&["job", "list", "-o", "json"][..], &here].concat()))["jobs"], serde_json::json!([]));
    assert!(scheduler.0.try_wait().unwrap().is_none(), "the scheduler ended");
}
