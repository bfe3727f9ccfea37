//! A Vulkan adapter for the GPU tests: the machine's own, or lavapipe, Mesa's Vulkan on the CPU, from Debian's packages.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::command::Step;

const PACKAGES: [&str; 2] = ["mesa-vulkan-drivers", "libvulkan1"];
const INSTALL: &str =
    "apt-get update && apt-get install -y mesa-vulkan-drivers libvulkan1   (as root; other systems: a Vulkan driver and its loader)";
/// With one of these the loader looks nowhere else.
const VARIABLES: [&str; 2] = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];

#[derive(Debug, PartialEq, Eq)]
pub enum SoftwareVulkan {
    Present { driver: PathBuf },
    Missing { reason: String, fix: String },
}

impl fmt::Display for SoftwareVulkan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present { driver } => write!(formatter, "GPU tests: run, with the Vulkan driver {}", driver.display()),
            Self::Missing { reason, fix } => write!(formatter, "GPU tests: skipped, since {reason}\n  to run them: {fix}"),
        }
    }
}

/// Finds an adapter's driver, installing the software one where that is possible.
pub fn ensure() -> SoftwareVulkan {
    Machine::this().ensure()
}

/// Where to look and what to start: this machine, or one that a test has made up.
struct Machine {
    /// Before every path.
    root: PathBuf,
    home: Option<PathBuf>,
    /// The variable that restricts the loader to certain drivers, where one is set.
    restriction: Option<(&'static str, OsString)>,
    apt_get: String,
    sudo: String,
    is_root: bool,
}

impl Machine {
    fn this() -> Self {
        let set = |name: &'static str| std::env::var_os(name).filter(|files| !files.is_empty()).map(|files| (name, files));
        Self {
            root: "/".into(),
            home: std::env::var_os("HOME").map(PathBuf::from),
            restriction: VARIABLES.into_iter().find_map(set),
            apt_get: "apt-get".into(),
            sudo: "sudo".into(),
            is_root: is_root(),
        }
    }

    fn ensure(&self) -> SoftwareVulkan {
        if let Some(driver) = self.find() {
            return SoftwareVulkan::Present { driver };
        }
        let missing = |reason: String| SoftwareVulkan::Missing { reason, fix: INSTALL.to_owned() };
        // No package helps while the variable forbids its driver.
        if let Some((variable, files)) = &self.restriction
            && self.drivers().is_empty()
        {
            let reason = format!("{variable} names no file that exists: {}", files.to_string_lossy());
            return SoftwareVulkan::Missing { reason, fix: format!("unset {variable}, or let it name a driver's .json file") };
        }
        match self.install().map(|()| self.find()) {
            Ok(Some(driver)) => SoftwareVulkan::Present { driver },
            Ok(None) => missing("the installed packages brought no driver for this machine".to_owned()),
            Err(reason) => missing(reason),
        }
    }

    /// The description file of a driver that has a device here, and a loader to load it.
    fn find(&self) -> Option<PathBuf> {
        if !self.has_loader() {
            return None;
        }
        self.drivers().into_iter().find(|driver| is_software(driver) || self.has_hardware())
    }

    fn drivers(&self) -> Vec<PathBuf> {
        if let Some((_, files)) = &self.restriction {
            return std::env::split_paths(files).filter(|file| file.exists()).collect();
        }
        let home = self.home.as_ref().map(|home| home.join(".local/share/vulkan/icd.d"));
        let system = ["usr/share/vulkan/icd.d", "usr/local/share/vulkan/icd.d", "etc/vulkan/icd.d"].map(|dir| self.root.join(dir));
        let files = system.into_iter().chain(home).flat_map(|dir| entries(&dir));
        let mut found: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|extension| extension == "json")).collect();
        // Real GPUs first in the message; packages of several drivers install descriptions for hardware that is not there.
        found.sort_by_key(|file| is_software(file));
        found
    }

    fn has_hardware(&self) -> bool {
        let nodes = entries(&self.root.join("dev/dri"));
        self.root.join("dev/nvidia0").exists() || nodes.iter().any(|node| node.to_string_lossy().contains("renderD"))
    }

    fn has_loader(&self) -> bool {
        let dirs = ["usr/lib", "usr/lib64", "usr/local/lib", "lib"].map(|dir| self.root.join(dir));
        let multiarch = dirs.iter().flat_map(|dir| entries(dir)).filter(|dir| dir.is_dir());
        dirs.iter().cloned().chain(multiarch).any(|dir| dir.join("libvulkan.so.1").exists())
    }

    fn install(&self) -> Result<(), String> {
        if !Step::new(&self.apt_get).args(["--version"]).succeeds() {
            return Err("there is no Vulkan driver here, and no apt-get to install one".to_owned());
        }
        let sudo = match (self.is_root, Step::new(&self.sudo).args(["-n", "true"]).succeeds()) {
            (true, _) => false,
            (false, true) => true,
            (false, false) => return Err("there is no Vulkan driver here, and this user may not install packages".to_owned()),
        };
        println!("no Vulkan driver found; installing lavapipe: {}", PACKAGES.join(" "));
        let apt = |args: &[&str]| {
            let step = if sudo { Step::new(&self.sudo).args(["-n", &self.apt_get]) } else { Step::new(&self.apt_get) };
            step.args(args).env("DEBIAN_FRONTEND", "noninteractive").run()
        };
        let lines = |error: String| {
            format!("there is no Vulkan driver here, and one could not be installed ({})", error.trim_start_matches("error: "))
        };
        apt(&["update"]).map_err(lines)?;
        apt(&[&["install", "-y", "--no-install-recommends"], PACKAGES.as_slice()].concat()).map_err(lines)
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Mesa calls lavapipe's description `lvp_icd.<architecture>.json`.
fn is_software(driver: &Path) -> bool {
    driver.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("lvp"))
}

fn is_root() -> bool {
    // The owner of our own process directory; asking libc would need a dependency.
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// Every machine here is a directory with programs of its own; nothing is installed.
#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// One at a time: a program that another thread's child still holds open for writing cannot be started.
    static TURN: Mutex<()> = Mutex::new(());

    struct Made {
        dir: PathBuf,
        machine: Machine,
        _turn: MutexGuard<'static, ()>,
    }

    impl Drop for Made {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }

    const LOADER: &str = "usr/lib/x86_64-linux-gnu/libvulkan.so.1";
    const LAVAPIPE: &str = "usr/share/vulkan/icd.d/lvp_icd.x86_64.json";

    impl Made {
        /// A bare machine of root's, without apt-get.
        fn new(name: &str) -> Self {
            let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
            let dir = std::env::temp_dir().join(format!("raftwerk-xtask-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            let program = |name: &str| dir.join("bin").join(name).display().to_string();
            let (apt_get, sudo) = (program("apt-get"), program("sudo"));
            let machine = Machine { root: dir.clone(), home: None, restriction: None, apt_get, sudo, is_root: true };
            Self { dir, machine, _turn: turn }
        }

        fn file(self, path: &str) -> Self {
            let path = self.dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
            self
        }

        /// A program of this shell text; `$ROOT` is the machine's root. What it is called with is kept.
        fn program(self, name: &str, text: &str) -> Self {
            let made = self.file(&format!("bin/{name}"));
            let path = made.dir.join("bin").join(name);
            let root = made.dir.display();
            std::fs::write(&path, format!("#!/bin/sh\nROOT='{root}'\necho \"{name} $*\" >>'{root}/calls'\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            made
        }

        fn calls(&self) -> String {
            std::fs::read_to_string(self.dir.join("calls")).unwrap_or_default()
        }

        fn said(&self) -> String {
            self.machine.ensure().to_string()
        }
    }

    const INSTALLS: &str = "case $1 in install) mkdir -p $ROOT/usr/lib/x86_64-linux-gnu $ROOT/usr/share/vulkan/icd.d; \
        touch $ROOT/usr/lib/x86_64-linux-gnu/libvulkan.so.1 $ROOT/usr/share/vulkan/icd.d/lvp_icd.x86_64.json;; esac";

    #[test]
    fn what_is_installed_is_used_and_nothing_else_is_touched() {
        let made = Made::new("installed").file(LOADER).file(LAVAPIPE).program("apt-get", "exit 0");
        assert_eq!(made.said(), format!("GPU tests: run, with the Vulkan driver {}", made.dir.join(LAVAPIPE).display()));
        assert_eq!(made.calls(), "");
    }

    #[test]
    fn a_card_is_preferred_and_a_card_that_is_not_there_is_not() {
        let card = "usr/share/vulkan/icd.d/radeon_icd.x86_64.json";
        let made = Made::new("card").file(LOADER).file(LAVAPIPE).file(card);
        assert!(made.said().ends_with(LAVAPIPE), "{}", made.said());
        let made = made.file("dev/dri/renderD128");
        assert!(made.said().ends_with(card), "{}", made.said());
    }

    #[test]
    fn root_installs_what_is_missing() {
        let made = Made::new("root").program("apt-get", INSTALLS);
        assert!(made.said().starts_with("GPU tests: run"), "{}", made.said());
        let calls = made.calls();
        assert_eq!(calls, "apt-get --version\napt-get update\napt-get install -y --no-install-recommends mesa-vulkan-drivers libvulkan1\n");
    }

    #[test]
    fn a_user_installs_through_sudo_where_that_asks_for_no_password() {
        let mut made = Made::new("sudo").program("apt-get", INSTALLS).program("sudo", "shift; exec \"$@\"");
        made.machine.is_root = false;
        assert!(made.said().starts_with("GPU tests: run"), "{}", made.said());
    }

    #[test]
    fn a_user_who_may_not_install_is_told_what_to_type() {
        let mut made = Made::new("user").program("apt-get", INSTALLS).program("sudo", "exit 1");
        made.machine.is_root = false;
        let said = made.said();
        assert_eq!(
            said,
            format!(
                "GPU tests: skipped, since there is no Vulkan driver here, and this user may not install packages\n  to run them: {INSTALL}"
            )
        );
        assert!(!made.calls().contains("update"), "{}", made.calls());
    }

    #[test]
    fn without_apt_get_the_message_says_so() {
        let said = Made::new("no-apt").said();
        assert!(said.contains("no apt-get to install one") && said.contains("other systems: a Vulkan driver"), "{said}");
    }

    #[test]
    fn packages_that_cannot_be_fetched_or_bring_nothing_are_named_as_that() {
        let offline = Made::new("offline").program("apt-get", "case $1 in update) exit 100;; esac");
        let said = offline.said();
        assert!(said.contains("one could not be installed") && said.contains("apt-get update` failed (exit status: 100)"), "{said}");
        assert!(!offline.calls().contains("install"), "{}", offline.calls());
        drop(offline);
        let useless = Made::new("useless").program("apt-get", "exit 0");
        assert!(useless.said().contains("the installed packages brought no driver"), "{}", useless.said());
    }

    /// The packages were installed all the same, and then blamed.
    #[test]
    fn a_variable_that_points_nowhere_is_named_and_nothing_is_installed() {
        let mut made = Made::new("variable").file(LOADER).file(LAVAPIPE).program("apt-get", INSTALLS);
        made.machine.restriction = Some(("VK_DRIVER_FILES", "/nowhere/icd.json".into()));
        let said = made.said();
        assert_eq!(
            said,
            "GPU tests: skipped, since VK_DRIVER_FILES names no file that exists: /nowhere/icd.json\n  to run them: unset VK_DRIVER_FILES, or \
             let it name a driver's .json file"
        );
        assert_eq!(made.calls(), "");
    }
}
