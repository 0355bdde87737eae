//! What the lab needs of the machine, tried one by one.
//!
//! In: how leaving the machine's network went, and a way to open a TAP as the dataplane does.
//! Out: a list of [`Check`]s; one that failed names the exact next command.
//! Never: guesses from a version number what can be tried, or tries it in the machine's network.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use dataplane::addr::Mac;
use nix::libc;

use crate::devices::netlink::filter::{Deed, Match, Rule};
use crate::devices::netlink::link::VethEnd;
use crate::devices::tap::{self, TapSpec};
use crate::devices::{DeviceError, DeviceName, Netlink, Netns};
use crate::lab::privilege::{EnterError, PrivateNet};

/// The exit status of a lab whose prerequisites are not met.
pub const EXIT_STATUS: u8 = 3;

/// One prerequisite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is needed.
    pub name: &'static str,
    /// It is there.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// The exact next command, where it is missing.
    pub next: Option<String>,
}

impl Check {
    fn good(name: &'static str, detail: impl Into<String>) -> Check {
        Check {
            name,
            ok: true,
            detail: detail.into(),
            next: None,
        }
    }

    fn bad(name: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Check {
        Check {
            name,
            ok: false,
            detail: detail.into(),
            next: Some(next.into()),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok     " } else { "MISSING" };
        write!(f, "{verdict}  {:<18}  {}", self.name, self.detail)?;
        match &self.next {
            Some(next) => write!(f, "\n         {:<18}  next: {next}", ""),
            None => Ok(()),
        }
    }
}

/// Opens the TAP of that name in that namespace with the virtio-net header, and closes it.
pub type OpenTap<'a> = &'a dyn Fn(&Netns, &DeviceName) -> io::Result<()>;

/// Where the program runs, as far as that changes what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The kernel's release.
    pub kernel: String,
    /// In a container, whose kernel modules and device nodes come from outside.
    pub container: bool,
    /// Below Windows.
    pub wsl: Option<Wsl>,
}

/// The Windows Subsystem for Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wsl {
    /// The first, which has no Linux kernel.
    One,
    /// The second, a virtual machine.
    Two,
}

impl Surroundings {
    /// Looks around.
    #[must_use]
    pub fn look() -> Surroundings {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
        let cgroup = read("/proc/1/cgroup");
        let marks = [
            "/.dockerenv",
            "/run/.containerenv",
            "/var/run/secrets/kubernetes.io",
        ];
        let container = marks.iter().any(|mark| Path::new(mark).exists())
            || ["docker", "kubepods", "containerd", "lxc"]
                .iter()
                .any(|of| cgroup.contains(of));
        Surroundings {
            wsl: wsl_of(&kernel),
            kernel,
            container,
        }
    }

    /// The command that brings a kernel module, here or, from a container, on the machine below.
    fn module(&self, module: &str) -> String {
        match (self.wsl, self.container) {
            (Some(_), _) => {
                "wsl --update   (in PowerShell, then start the distribution again)".into()
            }
            (None, true) => {
                format!("sudo modprobe {module}   (on the machine, not in the container)")
            }
            (None, false) => format!("sudo modprobe {module}"),
        }
    }
}

fn wsl_of(kernel: &str) -> Option<Wsl> {
    // 4.4.0-19041-Microsoft is the first, 5.15.90.1-microsoft-standard-WSL2 the second.
    let lower = kernel.to_ascii_lowercase();
    if !lower.contains("microsoft") {
        return None;
    }
    Some(if lower.starts_with("4.4.") {
        Wsl::One
    } else {
        Wsl::Two
    })
}

/// Tries everything. `entered` is the answer of [`enter`](super::privilege::enter), which the
/// caller has asked at the start; where it is no, what needs a namespace is not tried.
#[must_use]
pub fn check(entered: &Result<PrivateNet, EnterError>, open_tap: OpenTap<'_>) -> Vec<Check> {
    let around = Surroundings::look();
    let mut checks = vec![linux(&around)];
    match entered {
        Ok(private) => {
            checks.push(Check::good(
                "namespaces",
                format!("entered as {:?}", private.means()),
            ));
            checks.push(tun_node(&around));
            checks.extend(devices(&around, open_tap));
        }
        Err(refused) => {
            checks.push(namespaces(&around, refused));
            checks.push(tun_node(&around));
        }
    }
    checks
}

/// What a node needs of its machine: the same, tried where namespaces may be made.
#[must_use]
pub fn on_this_machine(open_tap: OpenTap<'_>) -> Vec<Check> {
    let around = Surroundings::look();
    let mut checks = vec![linux(&around), tun_node(&around)];
    checks.extend(devices(&around, open_tap));
    checks
}

/// True if all are met.
#[must_use]
pub fn all_met(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.ok)
}

fn linux(around: &Surroundings) -> Check {
    const NAME: &str = "Linux";
    match around.wsl {
        _ if around.kernel.is_empty() => Check::bad(
            NAME,
            "no Linux kernel answers; on macOS the lab runs in a Linux container",
            "docker run --rm -it --privileged -v \"$PWD\":/tapline -w /tapline rust:1.95 cargo run --release -- lab",
        ),
        Some(Wsl::One) => Check::bad(
            NAME,
            format!("{} is WSL 1, which has no Linux kernel", around.kernel),
            "wsl --set-version <distribution> 2   (in PowerShell)",
        ),
        Some(Wsl::Two) => Check::good(NAME, format!("{} (WSL 2)", around.kernel)),
        None if around.container => {
            Check::good(NAME, format!("{} (in a container)", around.kernel))
        }
        None => Check::good(NAME, &around.kernel),
    }
}

/// Why no namespace could be entered: the settings that distributions close them with, in the
/// order in which the kernel asks.
fn namespaces(around: &Surroundings, refused: &EnterError) -> Check {
    const NAME: &str = "namespaces";
    let setting = |file: &str| fs::read_to_string(format!("/proc/sys/{file}")).unwrap_or_default();
    let is = |file: &str, value: &str| setting(file).trim() == value;
    let (why, next) = if is("user/max_user_namespaces", "0") {
        (
            "user.max_user_namespaces is 0",
            "sudo sysctl -w user.max_user_namespaces=10000",
        )
    } else if is("user/max_net_namespaces", "0") {
        (
            "user.max_net_namespaces is 0",
            "sudo sysctl -w user.max_net_namespaces=10000",
        )
    } else if is("kernel/unprivileged_userns_clone", "0") {
        (
            "kernel.unprivileged_userns_clone is 0",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        )
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        (
            "AppArmor keeps rights from user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1, as Ubuntu sets it)",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0   (or run the lab with sudo)",
        )
    } else if around.container {
        (
            "the container forbids namespaces",
            "docker run --privileged --device /dev/net/tun ...   (or --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined)",
        )
    } else {
        ("no known setting forbids it", "sudo tapline lab")
    };
    Check::bad(NAME, format!("{refused}; {why}"), next)
}

/// `/dev/net/tun` is there and opens.
fn tun_node(around: &Surroundings) -> Check {
    const NAME: &str = "/dev/net/tun";
    let opened = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    let Err(refused) = opened else {
        return Check::good(NAME, "opens");
    };
    let next = match refused.raw_os_error() {
        Some(libc::ENOENT | libc::EPERM) if around.container => {
            "docker run --device /dev/net/tun ...".to_owned()
        }
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => around.module("tun"),
        Some(libc::EACCES) if around.container => {
            "docker run --device /dev/net/tun --user 0 ...".to_owned()
        }
        _ => "sudo chmod 0666 /dev/net/tun   (or run the lab with sudo)".to_owned(),
    };
    Check::bad(NAME, refused.to_string(), next)
}

/// Makes one of each device, filter and action, in two namespaces that die at the end.
fn devices(around: &Surroundings, open_tap: OpenTap<'_>) -> Vec<Check> {
    let made = Netns::create("check").and_then(|here| Ok((here, Netns::create("check-peer")?)));
    let (here, there) = match made {
        Ok(made) => made,
        Err(refused) => {
            let next = "sudo sysctl -w user.max_net_namespaces=10000";
            return vec![Check::bad("more namespaces", refused.to_string(), next)];
        }
    };
    let net = match Netlink::open(&here) {
        Ok(net) => net,
        Err(refused) => {
            return vec![Check::bad(
                "rtnetlink",
                refused.to_string(),
                "sudo tapline lab",
            )];
        }
    };
    let name = |text| DeviceName::new(text).expect("a short word is a device name");
    let (tap, end) = (name("check-tap"), name("check-end"));
    let peer = VethEnd {
        name: name("eth0"),
        mac: Some(Mac::new([2, 0, 0, 0, 0, 1])),
    };
    let veth = net.add_veth(
        &VethEnd {
            name: end.clone(),
            mac: None,
        },
        &peer,
        &there,
        1500,
    );
    let made = tap::ensure(&net, &TapSpec::new(tap.clone(), 1500));
    let opened = match made {
        Ok(()) => open_tap(&here, &tap).map_err(|refused| refused.to_string()),
        Err(refused) => Err(refused.to_string()),
    };
    let mut checks = vec![
        verdict(
            "TAP",
            opened,
            "a persistent one, opened with the virtio-net header",
            || around.module("tun"),
        ),
        verdict("veth", words(veth), "a pair across two namespaces", || {
            around.module("veth")
        }),
    ];
    checks.extend(classifier(around, &net, &tap));
    checks
}

/// clsact, u32 and mirred: one request needs the last two, and the kernel's words tell which of
/// them it lacks.
fn classifier(around: &Surroundings, net: &Netlink, device: &DeviceName) -> Vec<Check> {
    let clsact = words(net.ensure_clsact(device).map(|_| ()));
    let missing_clsact = clsact.is_err();
    let mut checks = vec![verdict("clsact", clsact, "a queueing discipline", || {
        around.module("sch_ingress")
    })];
    if missing_clsact {
        return checks;
    }
    let redirect = |index| Rule {
        frames: Match::Every,
        deed: Deed::Redirect(index),
    };
    let ruled = net
        .index(device)
        .and_then(|index| net.set_rules(device, &[redirect(index)]));
    let ruled = words(ruled);
    let says = ruled
        .as_ref()
        .err()
        .map(|text| text.to_ascii_lowercase())
        .unwrap_or_default();
    let no_classifier = says.contains("classifier not found");
    let (u32_verdict, mirred_verdict) = match (ruled, no_classifier) {
        (Ok(()), _) => (Ok(()), Ok(())),
        (Err(text), true) => (Err(text), Err("not tried without u32".to_owned())),
        (Err(text), false) => (Ok(()), Err(text)),
    };
    checks.push(verdict("u32", u32_verdict, "a classifier", || {
        around.module("cls_u32")
    }));
    checks.push(verdict(
        "mirred",
        mirred_verdict,
        "an action that redirects",
        || around.module("act_mirred"),
    ));
    checks
}

fn words(result: Result<(), DeviceError>) -> Result<(), String> {
    result.map_err(|refused| refused.to_string())
}

fn verdict(
    name: &'static str,
    result: Result<(), String>,
    what: &str,
    next: impl Fn() -> String,
) -> Check {
    match result {
        Ok(()) => Check::good(name, what),
        Err(refused) => Check::bad(name, refused, next()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(container: bool, wsl: Option<Wsl>) -> Surroundings {
        Surroundings {
            kernel: "6.8.0".into(),
            container,
            wsl,
        }
    }

    #[test]
    fn windows_kernels_are_told_apart() {
        assert_eq!(wsl_of("4.4.0-19041-Microsoft"), Some(Wsl::One));
        assert_eq!(wsl_of("5.15.90.1-microsoft-standard-WSL2"), Some(Wsl::Two));
        assert_eq!(wsl_of("6.8.0-45-generic"), None);
    }

    #[test]
    fn the_next_command_fits_the_surroundings() {
        assert_eq!(around(false, None).module("tun"), "sudo modprobe tun");
        assert!(around(true, None).module("tun").contains("on the machine"));
        assert!(
            around(false, Some(Wsl::Two))
                .module("tun")
                .starts_with("wsl --update")
        );
        let first = linux(&around(false, Some(Wsl::One)));
        assert!(
            !first.ok
                && first
                    .next
                    .is_some_and(|next| next.contains("--set-version"))
        );
        let nowhere = linux(&Surroundings {
            kernel: String::new(),
            container: false,
            wsl: None,
        });
        assert!(!nowhere.ok && nowhere.detail.contains("macOS"));
    }

    #[test]
    fn a_refusal_always_names_a_next_command() {
        let refused = Err(EnterError::UserNamespace(io::Error::from_raw_os_error(
            libc::EPERM,
        )));
        for check in check(&refused, &|_, _| Ok(())) {
            assert_eq!(check.ok, check.next.is_none(), "{check}");
        }
    }
}
