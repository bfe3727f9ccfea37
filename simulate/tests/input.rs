//! What is wrong with an input is said with its file, its key and the fix.

use raftwerk_simulate::read::{InputError, Sources, read};
use std::path::{Path, PathBuf};

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&dir).expect("a directory");
        Dir(dir)
    }

    fn file(&self, name: &str, text: &str) -> Option<PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file");
        Some(path)
    }
}

const CLUSTER: &str = "[[group]]\nname = \"cpu\"\n";
const JOBS: &str = "[kernels.k]\nseconds_per_unit = 1\n[[job]]\nkernel = \"k\"\ntasks = 3\n";

fn refusal(name: &str, cluster: &str, jobs: &str) -> (String, String) {
    let dir = Dir::new(name);
    let sources = Sources { cluster: dir.file("c.toml", cluster), jobs: dir.file("j.toml", jobs), ..Sources::default() };
    shown(&dir, read(&sources).expect_err("it is wrong"))
}

fn tables(name: &str, times: &str, tasks: &str, ending: &str) -> (String, String) {
    let dir = Dir::new(name);
    let sources = Sources {
        times: dir.file(&format!("times.{ending}"), times),
        tasks: dir.file(&format!("tasks.{ending}"), tasks),
        ..Sources::default()
    };
    shown(&dir, read(&sources).expect_err("it is wrong"))
}

fn shown(dir: &Dir, error: InputError) -> (String, String) {
    (error.to_string().replace(&format!("{}/", dir.0.display()), ""), error.fix.clone().unwrap_or_default())
}

#[test]
fn a_cluster_file_is_refused_with_its_key() {
    let of = |name: &str, cluster: &str| refusal(name, cluster, JOBS);
    let (text, fix) = of("c1", "[[group]]\nname = \"gpu\"\nclass = \"discreet\"\n");
    assert_eq!((text.as_str(), fix.as_str()), ("c.toml: [[group]] \"gpu\": class = \"discreet\" is unknown", "did you mean \"discrete\"?"));
    let (text, _) = of("c2", "[[group]]\nname = \"gpu\"\nsped = 3\n");
    assert!(text.starts_with("c.toml:3: unknown field `sped`, expected one of"), "{text}");
    let (text, fix) = of("c3", "[[group]]\nname = \"gpu\"\nspeed = 0\n");
    assert_eq!((text.as_str(), fix.as_str()), ("c.toml: [[group]] \"gpu\": speed = 0 is not possible", "give a number from 1e-6 to 1e12"));
    let (text, fix) = of("c4", &format!("{CLUSTER}[[event]]\ndevice = \"cpu/1\"\nat_s = 3\ndies = true\n"));
    assert_eq!((text.as_str(), fix.as_str()), ("c.toml: [[event]] of \"cpu/1\": the group has no device 1", "give \"cpu/0\" to \"cpu/0\""));
    let (text, fix) = of("c5", &format!("{CLUSTER}[[event]]\ndevice = \"cpus\"\nat_s = 3\n"));
    assert_eq!((text.as_str(), fix.as_str()), ("c.toml: [[event]] of \"cpus\": there is no group \"cpus\"", "did you mean \"cpu\"?"));
    let (text, _) = of("c6", "noise_percent = 5\n");
    assert_eq!(text, "c.toml: there is no device");
    let (text, fix) = of("c8", &format!("{CLUSTER}repair_s = 3\n"));
    assert_eq!(text, "c.toml: [[group]] \"cpu\": repair_s without mtbf_s says nothing");
    assert!(fix.contains("give mtbf_s"), "{fix}");
    let (text, _) = of("c7", &format!("{CLUSTER}{CLUSTER}"));
    assert_eq!(text, "c.toml: [[group]] \"cpu\" is there twice");
}

#[test]
fn a_job_file_is_refused_with_its_key() {
    let of = |name: &str, jobs: &str| refusal(name, CLUSTER, jobs);
    let (text, fix) = of("j1", "[kernels.matmul]\nseconds_per_unit = 1\n[[job]]\nkernel = \"matmull\"\ntasks = 3\n");
    assert_eq!(text, "j.toml: [[job]] \"matmull-1\": nothing is said of kernel \"matmull\"");
    assert!(fix.starts_with("did you mean \"matmul\"?"), "{fix}");
    let (text, fix) = of("j2", &format!("{JOBS}class = \"gpu\"\n"));
    assert_eq!(text, "j.toml: [[job]] \"k-1\": no device runs kernel \"k\" with class \"gpu\"");
    assert!(fix.contains("another class"), "{fix}");
    let (text, _) = of("j3", "");
    assert_eq!(text, "j.toml: there is no job");
    let (text, fix) = of("j4", &format!("{JOBS}repeat = 4\n"));
    assert_eq!(
        (text.as_str(), fix.as_str()),
        ("j.toml: [[job]] \"k-1\" says not when it repeats", "give either every_s, or per_hour, for a job that repeats")
    );
    let (text, fix) = of("j5", &format!("{JOBS}units = [3, 1]\n"));
    assert_eq!(text, "j.toml: [[job]] \"k-1\": units = [3, 1] begins with the higher end");
    assert_eq!(fix, "give the lower end first: [1, 3]");
    let (text, _) = of("j8", &format!("{JOBS}units = [1, 2, 3]\n"));
    assert!(text.starts_with("j.toml:6: units = [1, 2, 3] is not possible: give one number"), "{text}");
    let (text, fix) = of("j9", &format!("{JOBS}repeat = 2\nevery_s = 1\nper_hour = 3\n"));
    assert_eq!(text, "j.toml: [[job]] \"k-1\" says twice when it repeats");
    assert_eq!(fix, "give either every_s or per_hour, and not both");
    let (text, fix) = of("j11", &format!("{JOBS}every_s = 1\n"));
    assert_eq!(text, "j.toml: [[job]] \"k-1\": every_s without repeat says nothing");
    assert!(fix.contains("repeat = 20"), "{fix}");
    let (text, _) = of("j10", &format!("{JOBS}by_day = true\n"));
    assert_eq!(text, "j.toml: [[job]] \"k-1\": by_day = true without per_hour says nothing");
    let (text, fix) = of("j7", &format!("{JOBS}policy = \"modle\"\n"));
    assert_eq!((text.as_str(), fix.as_str()), ("j.toml: [[job]] \"k-1\": policy = \"modle\" is unknown", "did you mean \"model\"?"));
    let (text, _) = of("j6", "[[job]]\nkernel = 3\n");
    assert!(text.starts_with("j.toml:2: invalid type"), "{text}");
}

#[test]
fn tables_are_refused_with_their_line() {
    let times = "kernel,device,seconds\na,cpu,1\n";
    let of = |name: &str, times: &str, tasks: &str| tables(name, times, tasks, "csv");
    let (text, _) = of("t1", "kernel,device,seconds\na,cpu,fast\n", "task,kernel\nx,a\n");
    assert_eq!(text, "times.csv:2: seconds = \"fast\" is no time");
    let (text, fix) = of("t2", "kernel,device,second\na,cpu,1\n", "task,kernel\nx,a\n");
    assert_eq!(
        (text.as_str(), fix.as_str()),
        ("times.csv:1: there is no column \"seconds\"", "begin with a line of titles: kernel,device,seconds")
    );
    let (text, fix) = of("t3", times, "task,kernel,after\nx,a,\ny,a,z\n");
    assert_eq!((text.as_str(), fix.as_str()), ("tasks.csv:3: task \"y\" waits for \"z\", which is no task", "known: x, y"));
    let (text, _) = of("t4", times, "task,kernel,after\nx,a,y\ny,a,x\n");
    assert_eq!(text, "tasks.csv:2: task \"x\" waits, over others, for itself");
    let (text, fix) = of("t8", times, "task,kernel\nx,a\n,a\n");
    assert_eq!((text.as_str(), fix.as_str()), ("tasks.csv:3: a task has no name", "fill its cell in the column `task`"));
    let (text, _) = of("t5", times, "task,kernel\nx,b\n");
    assert_eq!(text, "tasks.csv:2: nothing is said of kernel \"b\"");
    let (text, _) = tables("t6", "[{\"kernel\": \"a\"}]", "[]", "json");
    assert_eq!(text, "times.json:1: item 1: \"device\" is missing or of the wrong kind");
    let (text, _) = tables("t7", "[{\"kernel\": \"a\",\n]", "[]", "json");
    assert!(text.starts_with("times.json:2: that is no JSON"), "{text}");
}

#[test]
fn csv_and_json_say_the_same() {
    let dir = Dir::new("same");
    let csv = Sources {
        times: dir.file("a.csv", "kernel,device,seconds\nk,cpu,2\nk,\"gpu, old\",0.5\n"),
        tasks: dir.file("b.csv", "task,kernel,after\n1,k,\n2,k,1\n3,k,1;2\n"),
        ..Sources::default()
    };
    let json = Sources {
        times: dir.file("a.json", r#"[{"kernel":"k","device":"cpu","seconds":2},{"kernel":"k","device":"gpu, old","seconds":0.5}]"#),
        tasks: dir
            .file("b.json", r#"[{"task":1,"kernel":"k"},{"task":2,"kernel":"k","after":[1]},{"task":"3","kernel":"k","after":["1",2]}]"#),
        ..Sources::default()
    };
    let (csv, json) = (read(&csv).expect("csv"), read(&json).expect("json"));
    assert_eq!(format!("{csv:?}"), format!("{json:?}"));
    assert_eq!(
        csv.groups.iter().map(|g| (g.name.as_str(), g.unit_ns[0])).collect::<Vec<_>>(),
        [("cpu", Some(2e9)), ("gpu, old", Some(5e8))]
    );
}

#[test]
fn what_is_not_given_is_named() {
    let refusal = |sources: Sources| read(&sources).expect_err("it lacks something").to_string();
    assert_eq!(refusal(Sources::default()), "simulate: no devices are given");
    let dir = Dir::new("lacks");
    let cluster = dir.file("c.toml", CLUSTER);
    assert_eq!(refusal(Sources { cluster: cluster.clone(), ..Sources::default() }), "simulate: nothing to run is given");
    let missing = Some(dir.0.join("nothing.toml"));
    assert!(refusal(Sources { cluster, jobs: missing, ..Sources::default() }).contains("nothing.toml: cannot be read"));
}

#[test]
fn names_of_kernels_that_the_core_refuses_are_refused_here() {
    for name in ["a@b", ""] {
        let jobs = format!("[kernels.\"{name}\"]\nseconds_per_unit = 1\n[[job]]\nkernel = \"{name}\"\ntasks = 3\n");
        let (text, fix) = refusal(&format!("name-{}", name.len()), CLUSTER, &jobs);
        assert_eq!(text, format!("j.toml: [kernels.\"{name}\"]: that is no name of a kernel"));
        assert!(fix.contains("without @"), "{fix}");
    }
}

#[test]
fn json_tables_are_refused_with_the_line_of_their_item() {
    let of = |name: &str, times: &str, tasks: &str| tables(name, times, tasks, "json");
    let good = r#"[{"kernel":"a","device":"cpu","seconds":1}]"#;
    let second =
        "[\n {\"kernel\": \"a\", \"device\": \"{c\", \"seconds\": 1},\n\n\n {\"kernel\": \"a\", \"device\": \"d\", \"seconds\": -1}\n]";
    assert_eq!(of("json1", second, "[]").0, "times.json:5: seconds = \"-1\" is no time");
    let array = r#"[{"kernel":"a","device":"cpu","seconds":[0.1]}]"#;
    assert_eq!(of("json2", array, "[]").0, "times.json:1: item 1: \"seconds\" is missing or of the wrong kind");
    let twice = r#"[{"kernel":"a","device":"cpu","seconds":1,"seconds":2}]"#;
    assert_eq!(of("json3", twice, "[]").0, "times.json:1: item 1: \"seconds\" is there twice, the second time as 2");
    let (text, fix) = of("json4", good, r#"[{"task":"x","kernel":"a","afetr":["y"]}]"#);
    assert_eq!((text.as_str(), fix.as_str()), ("tasks.json:1: item 1: there is no key \"afetr\"", "did you mean \"after\"?"));
    let two = r#"[{"kernel":"a","device":"cpu","seconds":1},{"kernel":"a","device":"gpu","seconds":1}]"#;
    let (_, fix) = of("json5", two, r#"[{"task":"x","kernel":"zz"}]"#);
    assert_eq!(fix, "known: a; it needs rows in the table of times");
}

#[test]
fn tables_may_have_more_columns_and_names_may_have_spaces() {
    let dir = Dir::new("more");
    let sources = Sources {
        times: dir.file("t.json", r#"[{"kernel":"a","device":"cpu","seconds":1,"runs":[1,2],"host":{"os":"x"}}]"#),
        tasks: dir.file("k.json", r#"[{"task":"load it","kernel":"a"},{"task":"use it","kernel":"a","after":["load it"]}]"#),
        ..Sources::default()
    };
    let scenario = read(&sources).expect("a scenario");
    assert_eq!(scenario.graph[1].after, [0]);
    let sources = Sources {
        times: dir.file("t.csv", "host,kernel,device,seconds,runs\nx,a,cpu,1,7\n"),
        tasks: dir.file("k.csv", "task,kernel\n1,a\n"),
        ..Sources::default()
    };
    assert_eq!(read(&sources).expect("a scenario").groups[0].unit_ns, [Some(1e9)]);
    let of = |name: &str, times: &str| tables(name, times, "task,kernel\nx,a\n", "csv").0;
    assert_eq!(of("m1", "kernel,device,seconds,seconds\na,cpu,1,2\n"), "times.csv:1: column \"seconds\" is there twice");
    assert_eq!(of("m2", "kernel,device,seconds\n\"a,cpu,1\n"), "times.csv:2: a double quote is not closed");
}

#[test]
fn slips_of_the_finger_are_not_passed_over() {
    let dir = Dir::new("slips");
    let (cluster, jobs) = (dir.file("c.toml", CLUSTER), dir.file("j.toml", JOBS));
    let times = dir.file("t.csv", "kernel,device,seconds\nk,cpu,1\nk,cpus,1\n");
    let refused = read(&Sources { cluster: cluster.clone(), jobs, times, ..Sources::default() }).expect_err("no such group");
    let (text, fix) = shown(&dir, refused);
    assert_eq!(
        (text.as_str(), fix.as_str()),
        ("t.csv:3: device \"cpus\" is no group of the cluster", "did you mean \"cpu\"?; or take the row out")
    );
    let (text, _) = refusal("slip-speed", &format!("{CLUSTER}speeds = {{ kk = 2 }}\n"), JOBS);
    assert_eq!(text, "c.toml: [[group]] \"cpu\": speeds.kk: nothing is said of that kernel");
    let times = dir.file("good.csv", "kernel,device,seconds\nk,cpu,1\n");
    let tasks = dir.file("k.csv", "task,kernel\nx,k\n");
    let refused = read(&Sources { cluster, times, tasks, scale: Some(0.5), ..Sources::default() }).expect_err("it cannot be scaled");
    assert_eq!(refused.to_string(), "simulate: --scale says nothing of --tasks");
}

#[test]
fn numbers_that_would_run_for_ever_are_refused() {
    let cluster = |name: &str, line: &str| refusal(&format!("ever-{name}"), &format!("{CLUSTER}{line}\n"), JOBS).0;
    assert_eq!(cluster("speed", "speed = 1e-9"), "c.toml: [[group]] \"cpu\": speed = 0.000000001 is not possible");
    assert!(cluster("launch", "launch_ms = 1e300").contains("launch_ms = "));
    assert!(cluster("slow", "[[event]]\ndevice = \"cpu\"\nat_s = 1\nslow_down = 1e300").contains("slow_down = "));
    assert!(refusal("ever-commit", &format!("commit_ms = 1e12\n{CLUSTER}"), JOBS).0.contains("commit_ms = "));
    let job = |name: &str, line: &str| refusal(&format!("ever-{name}"), CLUSTER, &format!("{JOBS}{line}\n")).0;
    assert!(job("units", "units = 1e300").contains("units = "));
    assert!(job("rate", "per_hour = 5e-324\nby_day = true").contains("per_hour = "));
    assert!(job("late", "per_hour = 1e-6\nby_day = true\nrepeat = 1000").contains("after more than thirty years"));
    assert!(job("long", "units = 1e8").contains("a task would take 1e8 s on \"cpu\""));
    let (text, fix) = tables("ever-table", "kernel,device,seconds\na,cpu,1e300\n", "task,kernel\nx,a\n", "csv");
    assert_eq!(
        (text.as_str(), fix.as_str()),
        ("times.csv:2: seconds = \"1e300\" is no time", "give a number above 0 and up to 1000000, such as 0.012")
    );
}
