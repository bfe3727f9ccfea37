//! A Vulkan adapter for the GPU tests: the machine's own, or lavapipe, Mesa's Vulkan on the CPU, from Debian's packages.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::command::Step;

const PACKAGES: [&str; 2] = ["mesa-vulkan-drivers", "libvulkan1"];
const INSTALL: &str = "apt-get update && apt-get install -y mesa-vulkan-drivers libvulkan1";

#[derive(Debug, PartialEq, Eq)]
pub enum SoftwareVulkan {
    Present { driver: PathBuf },
    Missing { reason: String },
}

impl fmt::Display for SoftwareVulkan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present { driver } => write!(formatter, "GPU tests: run, with the Vulkan driver {}", driver.display()),
            Self::Missing { reason } => {
                write!(
                    formatter,
                    "GPU tests: skipped, since {reason}\n  to run them: {INSTALL}   (as root; other systems: a Vulkan driver and its loader)"
                )
            }
        }
    }
}

/// Finds an adapter's driver, installing the software one where that is possible.
pub fn ensure() -> SoftwareVulkan {
    if let Some(driver) = find() {
        return SoftwareVulkan::Present { driver };
    }
    let reason = match install() {
        Ok(()) => match find() {
            Some(driver) => return SoftwareVulkan::Present { driver },
            None => "the installed packages brought no driver for this machine".to_owned(),
        },
        Err(reason) => reason,
    };
    SoftwareVulkan::Missing { reason }
}

/// The description file of a driver that has a device here, and a loader to load it.
fn find() -> Option<PathBuf> {
    if !has_loader() {
        return None;
    }
    drivers().into_iter().find(|driver| is_software(driver) || has_hardware())
}

fn drivers() -> Vec<PathBuf> {
    for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        if let Some(files) = std::env::var_os(variable).filter(|files| !files.is_empty()) {
            return std::env::split_paths(&files).filter(|file| file.exists()).collect();
        }
    }
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share/vulkan/icd.d"));
    let system = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"].map(PathBuf::from);
    let files = system.into_iter().chain(home).flat_map(|dir| entries(&dir));
    let mut found: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|extension| extension == "json")).collect();
    // Real GPUs first in the message; packages of several drivers install descriptions for hardware that is not there.
    found.sort_by_key(|file| is_software(file));
    found
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Mesa calls lavapipe's description `lvp_icd.<architecture>.json`.
fn is_software(driver: &Path) -> bool {
    driver.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("lvp"))
}

fn has_hardware() -> bool {
    Path::new("/dev/nvidia0").exists() || entries(Path::new("/dev/dri")).iter().any(|node| node.to_string_lossy().contains("renderD"))
}

fn has_loader() -> bool {
    let dirs = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib"].map(PathBuf::from);
    let multiarch = dirs.iter().flat_map(|dir| entries(dir)).filter(|dir| dir.is_dir());
    dirs.iter().cloned().chain(multiarch).any(|dir| dir.join("libvulkan.so.1").exists())
}

fn install() -> Result<(), String> {
    if !Step::new("apt-get").args(["--version"]).succeeds() {
        return Err("there is no Vulkan driver here, and no apt-get to install one".to_owned());
    }
    let sudo = match (is_root(), Step::new("sudo").args(["-n", "true"]).succeeds()) {
        (true, _) => false,
        (false, true) => true,
        (false, false) => return Err("there is no Vulkan driver here, and this user may not install packages".to_owned()),
    };
    println!("no Vulkan driver found; installing lavapipe: {}", PACKAGES.join(" "));
    let apt = |args: &[&str]| {
        let step = if sudo { Step::new("sudo").args(["-n", "apt-get"]) } else { Step::new("apt-get") };
        step.args(args).env("DEBIAN_FRONTEND", "noninteractive").run()
    };
    let lines = |error: String| format!("its packages could not be installed ({})", error.trim_start_matches("error: "));
    apt(&["update"]).map_err(lines)?;
    apt(&[&["install", "-y", "--no-install-recommends"], PACKAGES.as_slice()].concat()).map_err(lines)
}

fn is_root() -> bool {
    // The owner of our own process directory; asking libc would need a dependency.
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
