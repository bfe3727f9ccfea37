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
    assert_eq!((text.as_str(), fix.as_str()), ("c.toml: [[group]] \"gpu\": speed = 0 is not possible", "give a number above 0"));
    let (text, fix) = of("c4", &format!("{CLUSTER}[[event]]\ndevice = \"cpu/1\"\nat_s = 3\ndies = true\n"));
    assert_eq!((text.as_str(), fix.as_str()), ("c.toml: [[event]] of \"cpu/1\": the group has no device 1", "give \"cpu/0\" to \"cpu/0\""));
    let (text, fix) = of("c5", &format!("{CLUSTER}[[event]]\ndevice = \"cpus\"\nat_s = 3\n"));
    assert_eq!((text.as_str(), fix.as_str()), ("c.toml: [[event]] of \"cpus\": there is no group \"cpus\"", "did you mean \"cpu\"?"));
    let (text, _) = of("c6", "noise_percent = 5\n");
    assert_eq!(text, "c.toml: there is no device");
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
    let (text, _) = of("j5", &format!("{JOBS}units = [3, 1]\n"));
    assert_eq!(text, "j.toml: [[job]] \"k-1\": units = 1 is not possible");
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
    let (text, _) = of("t5", times, "task,kernel\nx,b\n");
    assert_eq!(text, "tasks.csv:2: nothing is said of kernel \"b\"");
    let (text, _) = tables("t6", "[{\"kernel\": \"a\"}]", "[]", "json");
    assert_eq!(text, "times.json: item 1: \"device\" is missing or of the wrong kind");
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
