//! `raftwerk doctor`: what this machine would offer as a worker, and why it would not offer the rest.

use clap::Args;
use raftwerk_worker::{ProbeOutcome, ProbedDevice, probe_devices};
use serde_json::{Value, json};

use super::calibrate::calibrate;
use super::executor;
use super::worker::DeviceFlags;
use crate::console::Console;
use crate::failure::{Exit, Failure, Outcome};
use crate::table::printable_lines;
use crate::views::{self, devices};

#[derive(Args, Debug)]
pub struct Doctor {
    #[command(flatten)]
    devices: DeviceFlags,
    /// Measure what the kernels cost on these devices: several minutes
    ///
    /// Runs small standard jobs on a cluster inside this process. With `-o json` the document can be given to `raftwerk costs import`, so
    /// that a cluster with such devices knows them before its first job.
    #[arg(long)]
    calibrate: bool,
}

pub async fn doctor(console: &Console, args: Doctor) -> Outcome {
    let probed = probe_devices(&args.devices.selection(), executor::program()?, executor::args_prefix()).await;
    let ready = probed.iter().any(|probed| probed.outcome == ProbeOutcome::Ready);
    if !console.is_json() {
        print(console, &probed, args.devices.no_gpu);
    }
    let costs = match args.calibrate && ready {
        true => Some(calibrate(console, &args.devices, &probed).await?),
        false => None,
    };
    if console.is_json() {
        let mut document = json!({"devices": probed.iter().map(to_json).collect::<Vec<_>>()});
        if let (Value::Object(fields), Some(Value::Object(costs))) = (&mut document, costs.as_ref().map(views::costs::to_json)) {
            fields.extend(costs);
        }
        console.json(document);
    } else if let Some(costs) = &costs {
        console.line("");
        views::costs::print(console, costs);
    }
    if ready {
        return Ok(());
    }
    Err(Failure::say(Exit::Refused, "a worker on this machine would have no device to offer")
        .fix("see why above; --cpus, --no-gpu and --device may leave out too much"))
}

fn print(console: &Console, probed: &[ProbedDevice], no_gpu: bool) {
    for (number, probed) in probed.iter().enumerate() {
        if number > 0 {
            console.line("");
        }
        devices::print(console, &probed.device);
        console.line(match &probed.outcome {
            ProbeOutcome::Ready => "  self-test: passed; a worker offers it".to_owned(),
            ProbeOutcome::NotSelected => "  not offered: the flags leave it out".to_owned(),
            ProbeOutcome::Failed(reason) => format!("  not offered: {}", printable_lines(reason)),
        });
    }
    if no_gpu {
        console.note("\nGPUs were not looked for (--no-gpu)");
    } else if probed.iter().all(|probed| probed.device.class == "cpu") {
        console.note(
            "\nno GPU found. For one, install its Vulkan driver; Mesa's software driver (Debian: mesa-vulkan-drivers) works everywhere",
        );
    }
}

fn to_json(probed: &ProbedDevice) -> Value {
    let mut document = devices::to_json(&probed.device);
    let (outcome, reason) = match &probed.outcome {
        ProbeOutcome::Ready => ("ready", Value::Null),
        ProbeOutcome::NotSelected => ("not_selected", Value::Null),
        ProbeOutcome::Failed(reason) => ("failed", reason.clone().into()),
    };
    if let Value::Object(fields) = &mut document {
        fields.insert("outcome".to_owned(), outcome.into());
        fields.insert("reason".to_owned(), reason);
    }
    document
}
