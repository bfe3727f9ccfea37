//! `raftwerk doctor --calibrate`: what the kernels cost on this machine's devices, measured before there is a job.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use raftwerk_kernels::{Kernel, Standard, StandardInput};
use raftwerk_proto::v1::{CostsView, JobState};
use raftwerk_worker::{DeviceSelection, ProbeOutcome, ProbedDevice};

use super::submit::random_key;
use super::worker::DeviceFlags;
use crate::client::{Cluster, Standstill};
use crate::console::Console;
use crate::embedded::Embedded;
use crate::failure::{Exit, Failure};
use crate::job_file::{self, Catalogue, Patches};

/// Tasks in the longest leases of each round. Leases of different lengths tell what it costs to begin one; the shortest come first, because
/// a first lease has to load and compile.
const LEASE_TASKS: [u64; 3] = [1, 4, 16];

/// Of kernels that go in rounds: the first is unlike the others.
const ROUNDS: u32 = 3;

/// Runs the standard job of every kernel that has one on every class of device that is ready here, on a cluster inside this process.
pub async fn calibrate(console: &Console, flags: &DeviceFlags, probed: &[ProbedDevice]) -> Result<CostsView, Failure> {
    let classes: BTreeSet<String> = probed
        .iter()
        .filter(|p| p.outcome == ProbeOutcome::Ready)
        .map(|p| p.device.class.clone())
        .filter(|class| !class.is_empty())
        .collect();
    let dir = tempfile::Builder::new().prefix("raftwerk-calibrate-").tempdir().map_err(|error| {
        Failure::new(Exit::Internal, error).context("cannot make a temporary directory").fix("set TMPDIR to a directory with room")
    })?;
    let cluster = Embedded::start(&dir.path().join("cluster"), with_a_cpu(flags.selection())).await?;
    let measured = match cluster.client() {
        Ok(mut client) => tokio::select! {
            measured = measure(console, &mut client, dir.path(), &classes) => measured,
            signal = super::signals::stop() => Err(Failure::say(Exit::JobCancelled, format!("{signal}: stopped before everything was measured"))),
        },
        Err(failure) => Err(failure),
    };
    cluster.stop().await;
    measured
}

/// What GPUs make has to be merged on a CPU. Only the classes that were asked for are measured.
fn with_a_cpu(mut selection: DeviceSelection) -> DeviceSelection {
    if selection.cpus == Some(0) {
        selection.cpus = Some(1);
    }
    if !selection.only.is_empty() {
        selection.only.push("cpu".to_owned());
    }
    selection
}

async fn measure(console: &Console, client: &mut Cluster, dir: &Path, classes: &BTreeSet<String>) -> Result<CostsView, Failure> {
    if !client.wait_for_workers(1, super::run::REGISTRATION).await? {
        return Err(Failure::say(Exit::Internal, "the embedded worker did not reach its scheduler"));
    }
    for kernel in raftwerk_kernels::registry() {
        let Some(standard) = kernel.standard() else { continue };
        for class in classes.iter().filter(|class| *class == "cpu" || kernel.descriptor().gpu) {
            console.note(format!("measuring {} on {class}", kernel.descriptor().name));
            for tasks in LEASE_TASKS {
                run(client, dir, *kernel, &standard, class, tasks).await?;
            }
        }
    }
    Ok(client.costs().await?)
}

async fn run(
    client: &mut Cluster,
    dir: &Path,
    kernel: &dyn Kernel,
    standard: &Standard,
    class: &str,
    lease_tasks: u64,
) -> Result<(), Failure> {
    let file = write_job(dir, kernel, standard, class, lease_tasks)
        .map_err(|error| Failure::new(Exit::Internal, error).context(format!("cannot write below {}", dir.display())))?;
    let spec = job_file::load(&file, &Patches::default(), &Catalogue::of_this_build())?.spec;
    let reply = client.submit(spec, random_key()?).await?;
    let view = client.follow(reply.job, super::run::CONTACT, |_| ()).await.map_err(|error| match error {
        Standstill::Refused(error) => error.into(),
        error @ Standstill::ContactLost(..) => Failure::new(Exit::ContactLost, error),
    })?;
    if view.state() == JobState::Done {
        return Ok(());
    }
    Err(Failure::say(
        Exit::JobFailed,
        format!("the standard job of kernel `{}` on {class} failed: {}", kernel.descriptor().name, view.cause),
    ))
}

/// A job file like one that a person writes, with its input beside it.
fn write_job(dir: &Path, kernel: &dyn Kernel, standard: &Standard, class: &str, lease_tasks: u64) -> std::io::Result<PathBuf> {
    let name = kernel.descriptor().name;
    let input = match standard.input {
        StandardInput::Range { count, tasks } => format!("range = {{ count = {count}, tasks = {tasks} }}"),
        StandardInput::Text { bytes, split } => {
            once(&dir.join(format!("{name}.txt")), |out| text(out, bytes))?;
            format!("files = [\"{name}.txt\"]\nsplit = {split}")
        }
        StandardInput::Npy { dtype, bytes, split } => {
            once(&dir.join(format!("{name}.npy")), |out| npy(out, dtype, &[bytes / element_bytes(dtype)]))?;
            format!("files = [\"{name}.npy\"]\nsplit = {split}")
        }
        StandardInput::Rows { dtype, columns, bytes, split, .. } => {
            let rows = bytes / (columns * element_bytes(dtype)).max(1);
            once(&dir.join(format!("{name}.npy")), |out| npy(out, dtype, &[rows, columns]))?;
            format!("files = [\"{name}.npy\"]\nsplit = {split}")
        }
    };
    let mut further = String::new();
    if let StandardInput::Rows { dtype, sides, .. } = standard.input {
        for (side, shape) in sides {
            once(&dir.join(format!("{name}-{side}.npy")), |out| npy(out, dtype, shape))?;
            further += &format!("[map.side.{side}]\nfile = \"{name}-{side}.npy\"\n");
        }
    }
    if kernel.rounds() {
        further += &format!("[rounds]\nmax = {ROUNDS}\nuntil = \"max\"\n");
    }
    let params: Vec<String> = standard.params.iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
    let job = format!(
        "[job]\nname = \"calibrate-{name}\"\n[input]\n{input}\n[map]\nkernel = \"{name}\"\ndevice = \"{class}\"\nmax_lease_tasks = {lease_tasks}\nparams = {{ {} }}\n{further}",
        params.join(", ")
    );
    let file = dir.join(format!("{name}-{class}-{lease_tasks}.toml"));
    std::fs::write(&file, job)?;
    Ok(file)
}

fn once(file: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> std::io::Result<()> {
    if file.exists() {
        return Ok(());
    }
    let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
    fill(&mut out)?;
    out.flush()
}

/// Numbers that look like chance and are the same every time.
fn numbers() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(0x9e37_79b9_7f4a_7c15u64), |n| {
        Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    })
}

/// Lines of words, some of which are frequent.
fn text(out: &mut dyn Write, bytes: u64) -> std::io::Result<()> {
    let mut written = 0;
    for (at, n) in numbers().enumerate() {
        if written >= bytes {
            break;
        }
        // A square makes small numbers the frequent ones.
        let rank = ((n >> 40) * (n >> 40)) >> 34;
        let word = format!("w{rank:x}{}", if at % 11 == 10 { '\n' } else { ' ' });
        written += word.len() as u64;
        out.write_all(word.as_bytes())?;
    }
    out.write_all(b"\n")
}

/// By the type's name: "f4".
fn element_bytes(dtype: &str) -> u64 {
    dtype.trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse::<u64>().unwrap_or(1).max(1)
}

fn npy(out: &mut dyn Write, dtype: &str, shape: &[u64]) -> std::io::Result<()> {
    let size = element_bytes(dtype);
    let order = if size == 1 { '|' } else { '<' };
    let lengths: String = shape.iter().map(|length| format!("{length},")).collect();
    let head = format!("{{'descr': '{order}{dtype}', 'fortran_order': False, 'shape': ({lengths}), }}");
    // Magic, version and length take 10 bytes; all together is a multiple of 64.
    let padded = (10 + head.len() + 1).next_multiple_of(64) - 10;
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(padded as u16).to_le_bytes())?;
    out.write_all(format!("{head:<width$}\n", width = padded - 1).as_bytes())?;
    let mut left = shape.iter().product::<u64>() * size;
    for n in numbers() {
        // The upper half: the lower bits of such a sequence repeat soon. Bits of chance as floating point would be of every size.
        let upper = (n >> 32) as u32;
        let bits = if dtype == "f4" { (upper as f32 / 4e6).to_bits() } else { upper };
        let part = &bits.to_le_bytes()[..left.min(4) as usize];
        out.write_all(part)?;
        left -= part.len() as u64;
        if left == 0 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_standard_job_is_a_job_that_reads() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut found = 0;
        for kernel in raftwerk_kernels::registry() {
            let Some(standard) = kernel.standard() else { continue };
            // The files need not be large to be named.
            let small = match standard.input {
                StandardInput::Text { split, .. } => StandardInput::Text { bytes: 1000, split },
                StandardInput::Npy { dtype, split, .. } => StandardInput::Npy { dtype, bytes: 1000, split },
                StandardInput::Rows { dtype, columns, split, sides, .. } => {
                    StandardInput::Rows { dtype, columns, bytes: 10_000, split, sides }
                }
                range => range,
            };
            let file = write_job(dir.path(), *kernel, &Standard { input: small, ..standard }, "cpu", 4).expect("a file");
            let spec =
                job_file::load(&file, &Patches::default(), &Catalogue::of_this_build()).unwrap_or_else(|error| panic!("{error:?}")).spec;
            assert_eq!(spec.stages[0].max_lease_tasks, 4);
            assert_eq!(spec.stages[0].inputs.len(), 1 + kernel.sides().iter().filter(|side| side.required).count());
            assert_eq!(spec.rounds.is_some(), kernel.rounds());
            found += 1;
        }
        assert!(found >= 9, "{found}");
    }

    #[test]
    fn an_array_is_as_numpy_writes_it() {
        let mut out = Vec::new();
        npy(&mut out, "f4", &[100]).expect("memory takes everything");
        let head = u16::from_le_bytes([out[8], out[9]]) as usize;
        assert!((10 + head).is_multiple_of(64) && out[9 + head] == b'\n');
        assert_eq!(out.len(), 10 + head + 400);
        assert!(String::from_utf8_lossy(&out[10..10 + head]).contains("'descr': '<f4', 'fortran_order': False, 'shape': (100,)"));
        let mut out = Vec::new();
        npy(&mut out, "u1", &[7, 3]).expect("memory takes everything");
        assert!(String::from_utf8_lossy(&out[10..128]).contains("'descr': '|u1', 'fortran_order': False, 'shape': (7,3,)"));
        assert_eq!(out.len(), 128 + 21);
    }
}
