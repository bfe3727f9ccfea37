//! Real cuts: every process in a network namespace of its own, on one bridge. What is to be lost is sent to a hardware address that nobody
//! has, so TCP sends again, backs off and gives up as it does on a broken cable, one way if so wanted.
//!
//! All of it lies inside a network namespace of this program: [`enter`] starts the program again in a fresh one, so that the machine's own
//! network is never touched and nothing is left behind.

use super::proxy::{CLIENTS, NodeId};
use std::collections::BTreeSet;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Says that this process is inside already.
const INSIDE: &str = "RAFTWERK_CHAOS_NAMESPACE";
/// A hardware address of no device here.
const NOBODY: &str = "02:00:00:00:00:ff";
/// The bridge's end, where the command lines run.
const HERE: &str = "10.77.0.254";

pub struct Namespaces {
    /// One sleeping process holds each namespace open.
    holders: Vec<Child>,
    cuts: BTreeSet<(NodeId, NodeId)>,
}

/// Whether this process may make namespaces with devices in them, and what keeps it from that.
pub fn check() -> Result<(), String> {
    let script = "ip link set lo up && ip link add rw-check type veth peer name rw-check-peer && ip link add rw-bridge type bridge && nsenter --version";
    let tried = Command::new("unshare").args(["-n", "sh", "-c", script]).stdin(Stdio::null()).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("`unshare -n` with veth, bridge and nsenter: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("cannot run `unshare`: {error}")),
    }
}

/// Runs this program again, with these arguments, in a fresh network namespace; `None` when it is in one already.
pub fn enter(args: &[String]) -> Option<std::io::Result<ExitStatus>> {
    if std::env::var_os(INSIDE).is_some() {
        return None;
    }
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return Some(Err(error)),
    };
    Some(Command::new("unshare").arg("-n").arg(own).args(args).env(INSIDE, "1").status())
}

impl Namespaces {
    pub fn make(nodes: usize) -> Result<Namespaces, String> {
        if std::env::var_os(INSIDE).is_none() {
            return Err("not inside a network namespace of this program".into());
        }
        ip(&["link", "set", "lo", "up"])?;
        ip(&["link", "add", "rw-bridge", "type", "bridge"])?;
        ip(&["addr", "add", &format!("{HERE}/24"), "dev", "rw-bridge"])?;
        ip(&["link", "set", "rw-bridge", "up"])?;
        let mut namespaces = Namespaces { holders: Vec::new(), cuts: BTreeSet::new() };
        for node in 0..nodes {
            // `unshare` becomes `sleep`, so its process number is the namespace's.
            let holder = Command::new("unshare").args(["-n", "sleep", "infinity"]).stdin(Stdio::null()).spawn();
            let holder = holder.map_err(|e| format!("cannot run `unshare`: {e}"))?;
            let pid = holder.id().to_string();
            namespaces.holders.push(holder);
            wait_for_namespace(&pid)?;
            let (outer, inner) = (format!("rw{node}"), format!("rwi{node}"));
            ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner])?;
            ip(&["link", "set", &inner, "netns", &pid])?;
            ip(&["link", "set", &outer, "master", "rw-bridge"])?;
            ip(&["link", "set", &outer, "up"])?;
            namespaces.inside(node, &["link", "set", "lo", "up"])?;
            namespaces.inside(node, &["addr", "add", &format!("{}/24", namespaces.address(node)), "dev", &inner])?;
            namespaces.inside(node, &["link", "set", &inner, "up"])?;
        }
        Ok(namespaces)
    }

    pub fn address(&self, node: NodeId) -> String {
        if node == CLIENTS { HERE.to_owned() } else { format!("10.77.0.{}", node + 1) }
    }

    /// The words before a program's that start it in this node's namespace.
    pub fn entrance(&self, node: NodeId) -> Vec<String> {
        let pid = self.holders[node].id().to_string();
        ["nsenter", "-t", &pid, "-n", "--"].map(String::from).to_vec()
    }

    /// Packets from `from` to `to` are lost.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        if from != to && self.cuts.insert((from, to)) {
            let to = self.address(to);
            self.neighbour(from, &["replace", &to, "lladdr", NOBODY, "nud", "permanent"]).expect("a wrong hardware address");
        }
    }

    pub fn heal(&mut self) {
        for (from, to) in std::mem::take(&mut self.cuts) {
            let to = self.address(to);
            self.neighbour(from, &["del", &to]).expect("the wrong hardware address goes");
        }
    }

    fn neighbour(&self, from: NodeId, words: &[&str]) -> Result<(), String> {
        let device = if from == CLIENTS { "rw-bridge".to_owned() } else { format!("rwi{from}") };
        let all: Vec<&str> = ["neigh"].iter().chain(words).chain(&["dev", &device]).copied().collect();
        if from == CLIENTS { ip(&all) } else { self.inside(from, &all) }
    }

    fn inside(&self, node: NodeId, words: &[&str]) -> Result<(), String> {
        let entrance = self.entrance(node);
        let mut command = Command::new(&entrance[0]);
        command.args(&entrance[1..]).arg("ip").args(words);
        done(command, words)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// Until `unshare` has left this program's own namespace.
fn wait_for_namespace(pid: &str) -> Result<(), String> {
    let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let own = link("self");
    for _ in 0..500 {
        if link(pid).is_some_and(|theirs| Some(theirs) != own) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Err("`unshare -n sleep infinity` does not get a network namespace".into())
}

fn ip(words: &[&str]) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(words);
    done(command, words)
}

fn done(mut command: Command, words: &[&str]) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("cannot run `ip {}`: {e}", words.join(" ")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`ip {}`: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
