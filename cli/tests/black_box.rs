//! The `raftwerk` binary as a script sees it: streams, exit codes, JSON. No network beyond loopback.

mod home;

use home::{Home, assert_exit, json, stderr, stdout};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const NOOP: &str = "[input]\nrange = { count = 1000, tasks = 100 }\n\n[map]\nkernel = \"noop\"\n";

mod without_a_cluster {
    use super::*;

    #[test]
    fn bad_usage_is_2_and_help_is_0() {
        let home = Home::new();
        assert_exit(&home.run(&["--help"]), 0);
        assert_exit(&home.run(&["frobnicate"]), 2);
        let output = home.run(&["job", "show", "seven"]);
        assert_exit(&output, 2);
        assert!(stderr(&output).contains("a job is named by its number"), "{}", stderr(&output));
        assert_exit(&home.run(&["dev", "--schedulers", "2"]), 2);
        assert_exit(&home.run(&["executor"]), 2);
    }

    #[test]
    fn a_slip_of_the_finger_starts_no_hundred_thousand_threads() {
        let home = Home::new();
        home.write("job.toml", NOOP);
        for line in [
            &["run", "job.toml", "--cpus", "100000"][..],
            &["doctor", "--cpus", "1025"],
            &["dev", "--cpus-per-worker", "0"],
            &["run", "job.toml", "--cpus", "-1"],
        ] {
            let output = home.run(line);
            assert_exit(&output, 2);
            assert!(stderr(&output).contains("1024") && !stderr(&output).contains("-- -1"), "{}", stderr(&output));
        }
    }

    #[test]
    fn a_name_or_a_flag_of_a_start_that_cannot_be_meant_is_refused_before_anything_is_made() {
        let home = Home::new();
        let refused = |line: &[&str], words: &str| {
            let output = home.run(line);
            assert_exit(&output, 2);
            assert!(stderr(&output).contains(words), "{}", stderr(&output));
            assert!(!home.path().join("data").exists());
        };
        for name in ["", "a\nb"] {
            refused(&["scheduler", "start", "--bootstrap", "--data-dir", "data", "--name", name], "a name has");
            refused(&["worker", "start", "--join", "127.0.0.1:1", "--data-dir", "data", "--name", name], "a name has");
        }
        refused(&["worker", "start", "--join", "127.0.0.1:1", "--data-dir", "data", "--bring-results"], "fix: add --token-file FILE");
        refused(&["cluster", "remove", "s1"], "a replica is named by its number");
        for part in ["scheduler", "worker"] {
            std::fs::create_dir_all(home.path().join(part).join("identity")).unwrap();
            refused(&["dev", "--no-gpu", "--data-dir", part], "the data directory of a scheduler or worker");
            assert_eq!(std::fs::read_dir(home.path().join(part)).unwrap().count(), 1);
        }
        std::fs::create_dir(home.path().join("pictures")).unwrap();
        home.write("pictures/cat.png", "");
        refused(&["dev", "--no-gpu", "--data-dir", "pictures"], "pictures holds files that are no dev cluster's, such as cat.png\nfix: ");
        assert_eq!(std::fs::read_dir(home.path().join("pictures")).unwrap().count(), 1);
    }

    #[test]
    fn an_environment_that_is_wrong_is_named_with_its_variable() {
        let home = Home::new();
        let said = |name: &str, value: &str, code: i32| {
            let output = home.command(&["job", "list"]).env(name, value).output().unwrap();
            assert_exit(&output, code);
            stderr(&output)
        };
        let address = said("RAFTWERK_ADDRESS", "garbage", 2);
        assert!(address.contains("RAFTWERK_ADDRESS: an address is a host and a port"), "{address}");
        assert!(said("RAFTWERK_LOG", "garbage===", 2).starts_with("RAFTWERK_LOG is passed over: "));
        let mut homeless = home.command(&["job", "list"]);
        for name in ["RAFTWERK_CONFIG", "XDG_CONFIG_HOME", "HOME"] {
            homeless.env_remove(name);
        }
        let homeless = homeless.output().unwrap();
        assert_exit(&homeless, 2);
        assert!(stderr(&homeless).contains("fix: set HOME"), "{}", stderr(&homeless));
    }

    #[test]
    fn help_that_cannot_be_written_is_no_success() {
        let home = Home::new();
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(home.command(&["--help"]).stdout(full).status().unwrap().code(), Some(1));
    }

    #[test]
    fn a_job_file_comes_through_a_pipe_too_and_one_that_is_no_text_is_named_with_its_line() {
        let home = Home::new();
        let piped = |text: &[u8]| {
            let mut command = home.command(&["submit", "/dev/stdin"]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), text).unwrap();
            let output = child.wait_with_output().unwrap();
            assert_exit(&output, 2);
            stderr(&output)
        };
        let said = piped(NOOP.as_bytes());
        assert!(said.starts_with("error: no cluster is chosen"), "read, and then there is no cluster: {said}");
        let said = piped(b"[input]\n# caf\xe9\n");
        assert!(said.starts_with("error: /dev/stdin:2: ") && said.contains("\nfix: save it as UTF-8"), "{said}");
    }

    #[test]
    fn a_bad_job_file_is_2_with_its_line_and_starts_nothing() {
        let home = Home::new();
        home.write("job.toml", &NOOP.replace("noop", "nop"));
        let output = home.run(&["run", "job.toml"]);
        assert_exit(&output, 2);
        assert_eq!(
            stderr(&output),
            "error: job.toml:5: [map] kernel `nop` is unknown\nfix: did you mean `noop`? `raftwerk kernels list` shows all\n"
        );
        assert_eq!(stdout(&output), "");
    }

    #[test]
    fn simulate_says_the_same_twice_and_what_is_wrong_with_its_files() {
        let home = Home::new();
        home.write(
            "c.toml",
            "noise_percent = 15\n[[group]]\nname = \"cpu\"\ncount = 3\n[[group]]\nname = \"gpu\"\nclass = \"discrete\"\nspeed = 20\n",
        );
        home.write("j.toml", "[kernels.k]\nseconds_per_unit = 0.02\n[[job]]\nkernel = \"k\"\ntasks = 2000\n");
        let line = ["simulate", "--cluster", "c.toml", "--jobs", "j.toml", "--policy", "all", "--json", "--timeline", "out.png"];
        let (once, again) = (home.run(&line), home.run(&line));
        assert_exit(&once, 0);
        assert_eq!(stdout(&once), stdout(&again));
        let policies = json(&once)["policies"].as_array().expect("a list").len();
        assert_eq!(policies, 7);
        assert!(std::fs::read(home.path().join("out-model.png")).expect("the picture").starts_with(b"\x89PNG"));
        assert_eq!(json(&once)["policies"][0]["devices"], serde_json::Value::Null);
        let line = ["simulate", "--cluster", "c.toml", "--jobs", "j.toml", "--json", "--devices", "--timeline", "OUT.PNG"];
        let output = home.run(&line);
        assert_exit(&output, 0);
        let devices = json(&output)["policies"][0]["devices"].clone();
        assert_eq!((devices.as_array().map(Vec::len), &devices[3]["group"], &devices[2]["index"]), (Some(4), &"gpu".into(), &2.into()));
        assert!(std::fs::read(home.path().join("OUT.PNG")).expect("the picture").starts_with(b"\x89PNG"));
        let output = home.run(&["simulate", "--cluster", "c.toml", "--jobs", "j.toml", "--devices"]);
        assert_exit(&output, 2);
        assert!(stderr(&output).starts_with("error: --devices is of the JSON alone"), "{}", stderr(&output));
        home.write("dead.toml", "[[group]]\nname = \"cpu\"\n[[event]]\ndevice = \"cpu\"\nat_s = 10\ndies = true\n");
        let output = home.run(&["simulate", "--cluster", "dead.toml", "--jobs", "j.toml"]);
        assert_exit(&output, 3);
        let said = stdout(&output);
        assert!(said.contains("1 job, 2,000 tasks, seed 1\nlower bound: none: the work cannot end\n"), "{said}");
        assert!(said.contains(" of 2,000 tasks ran in the ") && !said.contains("model: 0 of"), "{said}");
        let cost = |model: &str| {
            format!(
                r#"{{"kernel":"k@1","footprint":"","size_class":0,"model":"{model}","fixed_ns":1,"per_unit_fs":20000000000000,"samples":40,"spread_permille":9}}"#
            )
        };
        home.write("costs.json", &format!("{{\"schema\":1,\"costs\":[{},{}]}}", cost("cpu"), cost("other")));
        let output = home.run(&["simulate", "--cluster", "c.toml", "--jobs", "j.toml", "--costs", "costs.json"]);
        assert_exit(&output, 0);
        assert!(stderr(&output).contains("1 of the 2 costs of costs.json"), "{}", stderr(&output));
        home.write("costs.json", "{}");
        let output = home.run(&["simulate", "--cluster", "c.toml", "--jobs", "j.toml", "--costs", "costs.json"]);
        assert_exit(&output, 2);
        assert!(stderr(&output).starts_with("error: costs.json: has no array `costs`\nfix: "), "{}", stderr(&output));
        let output = home.run(&["simulate", "--cluster", "c.toml", "--jobs", "j.toml", "--policy", "randm"]);
        assert_exit(&output, 2);
        assert_eq!(stderr(&output), "error: --policy: there is no policy \"randm\"\nfix: did you mean `random`?\n");
        home.write("j.toml", "[kernels.k]\nseconds_per_unit = 0.02\n[[job]]\nkernel = \"q\"\ntasks = 2000\n");
        let output = home.run(&["simulate", "--cluster", "c.toml", "--jobs", "j.toml"]);
        assert_exit(&output, 2);
        assert!(
            stderr(&output).starts_with("error: j.toml: [[job]] \"q-1\": nothing is said of kernel \"q\"\nfix: "),
            "{}",
            stderr(&output)
        );
    }

    #[test]
    fn costs_that_cannot_be_read_are_refused_before_a_cluster_is_asked() {
        let home = Home::new();
        let refusal = || {
            let output = home.run(&["costs", "import", "costs.json"]);
            assert_exit(&output, 2);
            stderr(&output)
        };
        let said = refusal();
        assert!(said.starts_with("error: cannot read costs.json\n") && said.contains("\nfix: give a file that `raftwerk costs"), "{said}");
        home.write("costs.json", r#"{"schema":2,"costs":[]}"#);
        let said = refusal();
        assert!(said.starts_with("error: costs.json: is of schema 2; this program reads schema 1\nfix: "), "{said}");
        home.write("costs.json", r#"{"costs":[]}"#);
        let said = refusal();
        assert!(said.starts_with("error: costs.json: does not say its schema; this program reads schema 1\nfix: "), "{said}");
        home.write("costs.json", r#"{"schema":1,"costs":[]}"#);
        assert!(refusal().starts_with("error: no cluster is chosen\n"));
    }

    #[test]
    fn a_policy_that_is_none_is_refused_in_a_job_file_and_as_a_flag() {
        let home = Home::new();
        home.write("job.toml", &format!("[job]\npolicy = \"least-load\"\n{NOOP}"));
        let output = home.run(&["run", "job.toml"]);
        assert_exit(&output, 2);
        assert!(stderr(&output).contains("job.toml:2: [job] policy must be one of \"model\""), "{}", stderr(&output));
        assert!(stderr(&output).contains("did you mean \"least-loaded\"?"), "{}", stderr(&output));
        let output = home.run(&["scheduler", "start", "--name", "s", "--data-dir", "d", "--bootstrap", "--policy", "wieghted"]);
        assert_exit(&output, 2);
        assert!(stderr(&output).contains("did you mean `weighted`?"), "{}", stderr(&output));
    }

    #[test]
    fn no_cluster_chosen_is_bad_usage_and_an_absent_one_is_contact_lost() {
        let home = Home::new();
        let output = home.run(&["job", "list"]);
        assert_exit(&output, 2);
        assert!(stderr(&output).starts_with("error: no cluster is chosen\nfix: "), "{}", stderr(&output));

        let (authority, _) = raftwerk_transport::Authority::create("gone").unwrap();
        let admin = authority.issue(raftwerk_transport::PeerKind::Client, 0, "admin").unwrap();
        let credential = home.write("admin.pem", &admin.to_pem_bundle());
        // Bound and dropped: nobody listens there.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let credential = credential.to_str().unwrap();
        let output = home.run(&["job", "list", "--address", &address, "--credential", credential, "--timeout", "300ms"]);
        assert_exit(&output, 5);
        home.write("job.toml", NOOP);
        assert_exit(
            &home.run(&["submit", "job.toml", "--wait", "--address", &address, "--credential", credential, "--timeout", "300ms"]),
            5,
        );
    }

    #[test]
    fn flags_that_say_nothing_are_bad_usage_and_not_passed_over() {
        let home = Home::new();
        home.write("job.toml", NOOP);
        for (line, said) in [
            (&["submit", "job.toml", "--address", ""][..], "an address is a host and a port"),
            (&["job", "list", "--address", "127.0.0.1:7300,foo"], "an address is a host and a port"),
            (&["context", "add", "a", "--address", "127.0.0.1:1,,", "--credential", "x"], "an address is a host and a port"),
            (&["context", "add", "", "--address", "127.0.0.1:1", "--credential", "x"], "a context's name"),
            (&["submit", "job.toml", "--idempotency-key", ""], "1 to 256 bytes"),
            (&["run", "job.toml", "--memory", "1B"], "32MiB at least"),
            (
                &["scheduler", "start", "--name", "s", "--data-dir", "s", "--bootstrap", "--advertise", "foo"],
                "an address is a host and a port",
            ),
            (
                &["scheduler", "start", "--name", "s", "--data-dir", "s", "--bootstrap", "--listen", "foo"],
                "an address is a host and a port",
            ),
            (&["scheduler", "start", "--name", "s", "--data-dir", "s", "--bootstrap", "--listen", "0.0.0.0:0"], "--advertise HOST:PORT"),
            (&["scheduler", "start", "--name", "s", "--data-dir", "s", "--bootstrap", "--lease-ttl", "0"], "a lease lasts 1s at least"),
            (&["scheduler", "start", "--name", "s", "--data-dir", "s", "--bootstrap", "--lease-ttl", "1ms"], "a lease lasts 1s at least"),
            (&["worker", "start", "--join", "127.0.0.1:1", "--data-dir", "w", "--advertise", "foo"], "an address is a host and a port"),
            (&["worker", "start", "--join", "127.0.0.1:1", "--data-dir", "w", "--listen", "foo"], "an address is a host and a port"),
            (&["job", "list", "--timeout", "soon"], "seconds when there is none"),
        ] {
            let output = home.run(line);
            assert_exit(&output, 2);
            assert!(stderr(&output).contains(said), "{line:?}: {}", stderr(&output));
        }
    }

    #[test]
    fn a_credential_that_is_none_is_bad_usage() {
        let home = Home::new();
        home.write("admin.pem", "not a key");
        let output = home.run(&["job", "list", "--address", "127.0.0.1:1", "--credential", "admin.pem"]);
        assert_exit(&output, 2);
        assert!(stderr(&output).contains("admin.pem is not a credential"), "{}", stderr(&output));
        std::fs::write(home.path().join("admin.pem"), b"\xff\xfe").unwrap();
        let output = home.run(&["job", "list", "--address", "127.0.0.1:1", "--credential", "admin.pem"]);
        assert_exit(&output, 2);
        let said = stderr(&output);
        assert!(said.contains("admin.pem is not a credential") && said.contains("fix: name a client's credential"), "{said}");
    }

    #[test]
    fn a_data_directory_that_cannot_be_made_is_bad_usage() {
        let home = Home::new();
        home.write("file", "");
        for role in [&["scheduler", "start", "--name", "x", "--bootstrap"][..], &["worker", "start", "--join", "127.0.0.1:1"]] {
            let output = home.run(&[role, &["--listen", "127.0.0.1:0", "--data-dir", "file/data"]].concat());
            assert_exit(&output, 2);
            assert!(stderr(&output).contains("file/data") && stderr(&output).contains("Not a directory"), "{}", stderr(&output));
        }
    }

    #[test]
    fn contexts_are_added_chosen_and_removed() {
        let home = Home::new();
        let (authority, _) = raftwerk_transport::Authority::create("c").unwrap();
        let admin = authority.issue(raftwerk_transport::PeerKind::Client, 0, "admin").unwrap();
        home.write("admin.pem", &admin.to_pem_bundle());
        for (name, address) in [("a", "127.0.0.1:1"), ("b", "127.0.0.1:2,127.0.0.1:3")] {
            assert_exit(&home.run(&["context", "add", name, "--address", address, "--credential", "admin.pem"]), 0);
        }
        assert_eq!(json(&home.run(&["context", "list", "-o", "json"]))["current"], "b");
        assert_exit(&home.run(&["context", "use", "a", "-q"]), 0);
        let shown = json(&home.run(&["context", "show", "-o", "json"]));
        assert_eq!((shown["context"].as_str(), shown["addresses"][0].as_str()), (Some("a"), Some("127.0.0.1:1")));
        assert_eq!(json(&home.run(&["context", "show", "-o", "json", "--context", "b"]))["addresses"][1], "127.0.0.1:3");
        assert_exit(&home.run(&["context", "use", "c"]), 7);
        assert_exit(&home.run(&["job", "list", "--context", "c"]), 7);
        assert_exit(&home.run(&["context", "remove", "a"]), 0);
        assert_eq!(json(&home.run(&["context", "list", "-o", "json"]))["current"], Value::Null);
    }

    #[test]
    fn kernels_are_listed_and_an_unknown_one_is_7() {
        let home = Home::new();
        let names = json(&home.run(&["kernels", "list", "-o", "json"]));
        assert!(names["kernels"].as_array().unwrap().iter().any(|kernel| kernel["name"] == "noop"), "{names}");
        let output = home.run(&["kernels", "describe", "nop"]);
        assert_exit(&output, 7);
        assert!(stderr(&output).contains("did you mean `noop`?"), "{}", stderr(&output));
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        let home = Home::new();
        let mut child = home.command(&["kernels", "list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
    }

    #[test]
    fn a_full_disk_behind_stdout_is_not_success() {
        let home = Home::new();
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = home.command(&["kernels", "list"]).stdout(full).output().unwrap();
        assert_exit(&output, 1);
        let said = stderr(&output);
        assert!(said.contains("cannot write to standard output") && said.contains("fix: make room where standard output goes"), "{said}");
        assert!(!said.contains("--data-dir"), "{said}");
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = home.command(&["--help"]).stdout(full).output().unwrap();
        assert_exit(&output, 1);
        assert!(stderr(&output).contains("cannot write to standard output"), "{}", stderr(&output));
    }
}

mod on_an_embedded_cluster {
    use super::*;

    #[test]
    fn flags_that_leave_no_device_are_answered_with_what_there_is() {
        let home = Home::new();
        home.write("job.toml", NOOP);
        let output = home.run(&["run", "job.toml", "--no-gpu", "--cpus", "0"]);
        assert_exit(&output, 6);
        let said = stderr(&output);
        assert!(said.contains("no device to offer: cpu") && said.contains("fix: `raftwerk doctor` shows the devices"), "{said}");
    }

    #[test]
    fn every_task_runs_once_and_the_sum_shows_it() {
        let home = Home::new();
        home.write("job.toml", NOOP);
        let output = home.run(&["run", "job.toml", "--no-gpu", "--cpus", "1", "-o", "json"]);
        assert_exit(&output, 0);
        let job = json(&output);
        assert_eq!((job["state"].as_str(), job["name"].as_str()), (Some("done"), Some("job")));
        assert_eq!(job["tallies"][0]["total"], "499500");
        let stage = &job["stages"][0];
        assert_eq!((stage["tasks"].as_u64(), stage["accepted"].as_u64()), (Some(100), Some(100)));
    }

    #[test]
    fn words_are_counted_into_a_table_and_files() {
        let home = Home::new();
        home.write("a.txt", "the cat and the dog\n");
        home.write("b.txt", "the \x1b[31mend");
        home.write("job.toml", "[input]\nfiles = \"nothing\"\n[map]\nkernel = \"word_count\"\n[reduce]\npartitions = 3\n");
        let output = home.run(&["run", "job.toml", "--no-gpu", "--input", "*.txt", "--output", "out"]);
        assert_exit(&output, 0);
        let text = stdout(&output);
        assert!(text.starts_with("WORD           COUNT\nthe                3\n"), "{text}");
        assert!(text.contains("\\u{1b}[31mend"), "what was counted must not reach the terminal raw: {text}");
        assert!(text.contains(&format!("full result: {}/out", home.path().canonicalize().unwrap().display())), "{text}");
        let parts = std::fs::read_dir(home.path().join("out")).unwrap().count();
        assert_eq!(parts, 4, "three parts and the manifest");
        let gone = home.run(&["run", "job.toml", "--no-gpu", "--input", "*.txt", "--output", "worker:"]);
        assert_exit(&gone, 2);
        assert!(stderr(&gone).contains("ends with its job"), "{}", stderr(&gone));
        // The second time, the output is in the way.
        assert_exit(&home.run(&["run", "job.toml", "--no-gpu", "--input", "*.txt", "--output", "out"]), 6);
        assert_exit(
            &home.run(&["run", "job.toml", "--no-gpu", "--input", "*.txt", "--output", "out", "--set", "output.if_exists=replace"]),
            0,
        );
    }

    #[test]
    fn rows_that_nobody_keeps_are_told_of() {
        let home = Home::new();
        home.write("in.txt", "a b a\n");
        home.write("job.toml", "[input]\nfiles = [\"in.txt\"]\n[map]\nkernel = \"word_count\"\n");
        let output = home.run(&["run", "job.toml", "--no-gpu"]);
        assert_exit(&output, 0);
        assert!(stderr(&output).contains("the rows of `word_count` go nowhere"), "{}", stderr(&output));
    }

    #[test]
    fn a_job_that_fails_is_3_and_says_why() {
        let home = Home::new();
        home.write("job.toml", NOOP);
        let output = home.run(&["run", "job.toml", "--no-gpu", "--set", "map.params.fail_task=7"]);
        assert_exit(&output, 3);
        assert!(stderr(&output).contains("task 7"), "{}", stderr(&output));
    }

    #[test]
    fn no_device_is_6() {
        let home = Home::new();
        home.write("job.toml", NOOP);
        assert_exit(&home.run(&["run", "job.toml", "--no-gpu", "--cpus", "0"]), 6);
        assert_exit(&home.run(&["run", "job.toml", "--no-gpu", "--device", "no such card"]), 6);
    }

    #[cfg(unix)]
    fn hangups_are_ignored() -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
    }

    #[cfg(unix)]
    #[test]
    fn a_signal_leaves_nothing_behind() {
        for signal in ["TERM", "HUP"] {
            // What whoever started the tests (`nohup`) ignores, the program is asked to ignore as well.
            if signal == "HUP" && hangups_are_ignored() {
                println!("SIGHUP: skipped, it is ignored here");
                continue;
            }
            let home = Home::new();
            home.write("job.toml", NOOP);
            let line = ["run", "job.toml", "--no-gpu", "--cpus", "1", "--set", "map.params.sleep_us=1000000"];
            let run = home.command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(1500));
            assert!(Command::new("sh").args(["-c", &format!("kill -{signal} {}", run.id())]).status().unwrap().success());
            let output = run.wait_with_output().unwrap();
            assert_exit(&output, 4);
            assert!(stderr(&output).contains(&format!("SIG{signal}")), "{}", stderr(&output));
            let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, ["job.toml"]);
        }
    }

    #[test]
    fn input_that_is_not_there_is_refused() {
        let home = Home::new();
        home.write("job.toml", "[input]\nfiles = \"missing-*.txt\"\n[map]\nkernel = \"word_count\"\n");
        let output = home.run(&["run", "job.toml", "--no-gpu"]);
        assert_exit(&output, 6);
        let said = stderr(&output);
        assert!(said.contains("missing-*.txt") && said.contains("fix: give a path that exists"), "{said}");
        // What is there but cannot be read is bad input, and says itself what to do.
        home.write("job.toml", "[input]\nfiles = \"/dev/null\"\n[map]\nkernel = \"word_count\"\n");
        let output = home.run(&["run", "job.toml", "--no-gpu"]);
        assert_exit(&output, 2);
        assert!(stderr(&output).contains("/dev/null") && !stderr(&output).contains("fix: give a path"), "{}", stderr(&output));
    }

    /// Found when the input is listed, not by tasks that fail four times.
    #[test]
    fn arrays_that_a_kernel_does_not_take_are_refused_with_a_fix() {
        let home = Home::new();
        let array = |name: &str, descr: &str, shape: &str, bytes: usize| {
            let head = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
            let mut file = b"\x93NUMPY\x01\x00".to_vec();
            file.extend((118u16).to_le_bytes());
            file.extend(format!("{head:<117}\n").as_bytes());
            file.resize(file.len() + bytes, 0);
            std::fs::write(home.path().join(name), file).unwrap();
        };
        array("u8.npy", "<u8", "(9,)", 72);
        array("f8.npy", "<f8", "(9,)", 72);
        array("a.npy", "<f4", "(2, 3)", 24);
        array("b.npy", "<f4", "(2, 2)", 16);
        let refusal = |job: &str| {
            home.write("job.toml", job);
            let output = home.run(&["run", "job.toml", "--no-gpu"]);
            assert_exit(&output, 2);
            let said = |line: &&str| ["error: ", "  caused by: ", "fix: "].iter().any(|start| line.starts_with(start));
            stderr(&output).lines().filter(said).collect::<Vec<_>>().join("\n")
        };
        for (file, found) in [("u8.npy", "u8"), ("f8.npy", "'<f8'")] {
            let said = refusal(&format!("[input]\nfiles = \"{file}\"\n[map]\nkernel = \"histogram\"\n"));
            let expected = format!("{file} has elements of type {found}, and kernel `histogram` takes u1, u4 or f4\nfix: convert it");
            assert!(said.contains(&expected), "{said}");
        }
        let said = refusal("[input]\nfiles = \"a.npy\"\n[map]\nkernel = \"matmul\"\n[map.side.b]\nfile = \"b.npy\"\n");
        assert!(
            said.contains("a.npy has rows of 3 elements") && said.contains("b.npy) has the shape (2, 2): a row must have 2\nfix: "),
            "{said}"
        );
    }

    #[test]
    fn nothing_is_left_behind() {
        let home = Home::new();
        home.write("job.toml", NOOP);
        assert_exit(&home.run(&["run", "job.toml", "--no-gpu", "-q"]), 0);
        let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["job.toml"]);
        let output = home.run(&["run", "job.toml", "--no-gpu", "--keep"]);
        assert!(stderr(&output).contains("is kept in"), "{}", stderr(&output));
    }
}

#[cfg(unix)]
mod on_a_dev_cluster {
    use super::*;

    /// SIGTERM to one process; `kill` is a shell's, so no crate is needed for it.
    fn terminate(pid: u32) {
        assert!(Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().unwrap().success());
    }

    #[test]
    fn submit_needs_no_address_and_sigterm_stops_everything() {
        let home = Home::new();
        home.write("job.toml", NOOP);
        let line = ["dev", "--schedulers", "1", "--workers", "1", "--no-gpu", "--cpus-per-worker", "1", "-o", "json"];
        let mut dev = home.command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(dev.stdout.as_mut().unwrap()), &mut ready).unwrap();
        let ready: Value = serde_json::from_str(&ready).unwrap();
        assert_eq!((ready["ready"].as_str(), ready["context"].as_str()), (Some("dev"), Some("dev")));
        let data_dir = PathBuf::from(ready["data_dir"].as_str().unwrap());

        let submitted = json(&home.run(&["submit", "job.toml", "--idempotency-key", "k", "-o", "json"]));
        assert_eq!(submitted["existing"], false);
        let job = submitted["job"].to_string();
        let again = json(&home.run(&["submit", "job.toml", "--idempotency-key", "k", "-o", "json"]));
        assert_eq!((&again["job"], again["existing"].as_bool()), (&submitted["job"], Some(true)));
        assert_exit(&home.run(&["submit", "job.toml", "--idempotency-key", "k", "--set", "map.params.sleep_us=1"]), 6);
        let waited = home.run(&["job", "wait", &job, "-o", "json"]);
        assert_exit(&waited, 0);
        assert_eq!(json(&waited)["tallies"][0]["total"], "499500");
        assert_exit(&home.run(&["job", "show", "999999"]), 7);
        assert_eq!(json(&home.run(&["worker", "list", "-o", "json"]))["workers"][0]["liveness"], "alive");
        assert_eq!(json(&home.run(&["cluster", "show", "-o", "json"]))["replicas"].as_array().unwrap().len(), 1);

        // Its context must not go with another cluster of that name, and its directories are nobody else's.
        let second = home.run(&["dev", "--no-gpu", "--cpus-per-worker", "1"]);
        assert_exit(&second, 2);
        assert!(stderr(&second).contains("--context-name"), "{}", stderr(&second));
        let worker = data_dir.join("worker-1");
        let start = |dir: &Path| {
            home.run(&["scheduler", "start", "--name", "x", "--data-dir", dir.to_str().unwrap(), "--listen", "127.0.0.1:0", "--bootstrap"])
        };
        let output = start(&worker);
        assert_exit(&output, 2);
        assert!(stderr(&output).contains("belongs to worker"), "{}", stderr(&output));

        let slow = ["submit", "job.toml", "-q", "--set", "map.params.sleep_us=1000000"];
        let slow = stdout(&home.run(&slow)).trim().to_owned();
        assert_exit(&home.run(&["job", "result", &slow]), 6);
        assert_exit(&home.run(&["job", "cancel", &slow]), 0);
        assert_exit(&home.run(&["job", "wait", &slow]), 4);

        let stopped = Instant::now();
        terminate(dev.id());
        assert_eq!(dev.wait().unwrap().code(), Some(0));
        assert!(stopped.elapsed() < Duration::from_secs(15));
        assert!(!data_dir.exists(), "a temporary cluster leaves nothing");
        assert_exit(&home.run(&["job", "list"]), 2);
    }
}

#[cfg(unix)]
mod a_dev_that_was_killed {
    use super::*;

    fn start(home: &Home, more: &[&str]) -> (std::process::Child, Value) {
        let line = ["dev", "--schedulers", "1", "--workers", "1", "--no-gpu", "--cpus-per-worker", "1", "-o", "json"];
        let mut dev = home.command(&[&line[..], more].concat()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(dev.stdout.as_mut().unwrap()), &mut ready).unwrap();
        let ready = serde_json::from_str(&ready).unwrap_or_else(|error| panic!("{error}: {ready:?}"));
        (dev, ready)
    }

    fn left(home: &Home) -> usize {
        let entries = std::fs::read_dir(home.path()).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("raftwerk-dev-")).count()
    }

    /// It left a credential and the current context, and commands then waited for a cluster that nobody starts again.
    #[test]
    fn is_told_from_one_that_runs_and_tidied_up_by_the_next() {
        let home = Home::new();
        // The one that is current before.
        let contexts = "current = \"mine\"\n[contexts.mine]\naddresses = [\"127.0.0.1:1\"]\ncredential = \"/not/there.pem\"\n";
        home.write("contexts.toml", contexts);
        let (mut dev, ready) = start(&home, &[]);
        let dir = PathBuf::from(ready["data_dir"].as_str().unwrap());
        assert_exit(&home.run(&["worker", "list"]), 0);
        dev.kill().unwrap();
        dev.wait().unwrap();
        assert!(dir.exists());
        // Its processes end by themselves, and are waited for here as a person would.
        let until = Instant::now() + Duration::from_secs(60);
        let said = loop {
            let output = home.run(&["worker", "list", "--timeout", "200ms"]);
            let said = stderr(&output);
            if said.contains("that context `dev` leads to is gone") {
                assert_exit(&output, 5);
                break said;
            }
            assert!(Instant::now() < until, "{said}");
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(said.contains("fix: start one again with `raftwerk dev`") && said.contains("`raftwerk context use mine`"), "{said}");
        assert!(stderr(&home.run(&["context", "show"])).contains("is gone"));

        let (mut next, ready) = start(&home, &["--context-name", "other"]);
        assert!(!dir.exists() && left(&home) == 1);
        assert_exit(&home.run(&["worker", "list"]), 0);
        assert!(Command::new("kill").arg(next.id().to_string()).status().unwrap().success());
        let notes = std::io::read_to_string(next.stderr.take().unwrap()).unwrap();
        assert_eq!(next.wait().unwrap().code(), Some(0), "{notes}");
        assert!(notes.contains(&format!("removed {}", dir.display())) && notes.contains("removed its context dev"), "{notes}");
        assert_eq!((ready["context"].as_str(), left(&home)), (Some("other"), 0));
        assert_eq!(json(&home.run(&["context", "list", "-o", "json"]))["current"], "mine");
    }
}

/// A start that knocks at a door where nobody lives: what it says, and when.
mod joining_nobody {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::Child;
    use std::sync::mpsc::{Receiver, channel};

    /// How long a line that comes "at once" may take on a busy machine; well below the patience of the start itself.
    const AT_ONCE: Duration = Duration::from_secs(20);

    struct Start {
        child: Child,
        lines: Receiver<String>,
        address: String,
    }

    impl Drop for Start {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn start(home: &Home, role: &str, more: &[&str]) -> Start {
        let (_, token) = raftwerk_transport::Authority::create("away").unwrap();
        let token = home.write("join-token", &token.to_string());
        // Bound and dropped: nobody listens there.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut command =
            home.command(&[role, "start", "--name", "new", "--join", &address, "--data-dir", "data", "--listen", "127.0.0.1:0"]);
        let mut child = command.arg("--token-file").arg(token).args(more).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Start { child, lines, address }
    }

    impl Start {
        fn expect_line(&self, words: &[&str]) {
            let until = Instant::now() + AT_ONCE;
            let mut seen = Vec::new();
            while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                if words.iter().all(|word| line.contains(word)) {
                    return;
                }
                seen.push(line);
            }
            panic!("no line with {words:?} in {seen:#?}");
        }

        fn terminate(&mut self) -> Option<i32> {
            assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
            self.child.wait().unwrap().code()
        }
    }

    #[test]
    fn a_scheduler_says_at_once_whom_it_asks_why_they_fail_and_until_when_and_gives_up_with_5() {
        let home = Home::new();
        let mut start = start(&home, "scheduler", &[]);
        let address = start.address.clone();
        start.expect_line(&["joining the cluster through", &address, "giving up after 30 s"]);
        start.expect_line(&[&address, "nothing listens there (connection refused)", "trying on for"]);
        assert_eq!(start.child.wait().unwrap().code(), Some(5));
        let rest: Vec<String> = start.lines.iter().collect();
        assert!(rest.iter().any(|line| line.contains("within 30 s") && line.contains(&address)), "{rest:#?}");
        assert!(rest.iter().any(|line| line.starts_with("fix: ") && line.contains("--join")), "{rest:#?}");
    }

    #[test]
    fn a_worker_says_at_once_whom_it_asks_and_why_they_fail_and_heeds_sigterm_while_it_waits() {
        let home = Home::new();
        let mut start = start(&home, "worker", &["--no-gpu", "--cpus", "1"]);
        let address = start.address.clone();
        start.expect_line(&["joining the cluster through", &address]);
        start.expect_line(&[&address, "nothing listens there (connection refused)", "trying on until"]);
        assert_eq!(start.terminate(), Some(0));
    }
}
