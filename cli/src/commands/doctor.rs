//! `raftwerk doctor`: what this machine would offer as a worker, and why it would not offer the rest.

use clap::Args;
use raftwerk_worker::{ProbeOutcome, ProbedDevice, probe_devices};
use serde_json::{Value, json};

use super::executor;
use super::worker::DeviceFlags;
use crate::console::Console;
use crate::failure::{Exit, Failure, Outcome};
use crate::table::printable_lines;
use crate::views::devices;

#[derive(Args, Debug)]
pub struct Doctor {
    #[command(flatten)]
    devices: DeviceFlags,
}

pub async fn doctor(console: &Console, args: Doctor) -> Outcome {
    let probed = probe_devices(&args.devices.selection(), executor::program()?, executor::args_prefix()).await;
    if console.is_json() {
        console.json(json!({"devices": probed.iter().map(to_json).collect::<Vec<_>>()}));
    } else {
        print(console, &probed, args.devices.no_gpu);
    }
    if probed.iter().any(|probed| probed.outcome == ProbeOutcome::Ready) {
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
