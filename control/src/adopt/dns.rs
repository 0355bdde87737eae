//! Where the node asks for names, as far as that hangs on a device: systemd-resolved keeps servers for
//! each link, and the azure plugin gave the bridge those of the NIC.
//!
//! In: `resolvectl`, which speaks to systemd-resolved. Out: what two devices have ([`Dns`]), and the
//! same on the other device.
//! Never: waits for it beyond [`PATIENCE`], or touches `/etc/resolv.conf`: what stands there hangs on
//! no device.

use std::fmt;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::devices::name::DeviceName;

/// The program. Releases of systemd before 239 have it under another name, with other words.
const PROGRAM: &str = "resolvectl";
/// It asks over D-Bus, which is quick or broken.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(2);
/// Servers or domains that are believed of one device.
const WORDS_MAX: usize = 64;

/// What one device has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkDns {
    /// Servers, as they were printed.
    pub servers: Vec<String>,
    /// Search and routing domains.
    pub domains: Vec<String>,
}

/// What is to be done about names when a NIC leaves a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Dns {
    /// Nothing: it does not hang on the bridge, for this reason.
    Stays(String),
    /// What the bridge has goes to the NIC, and comes back.
    Moves {
        /// What the bridge has.
        bridge: LinkDns,
        /// What the NIC had before.
        nic: LinkDns,
    },
}

impl Default for Dns {
    fn default() -> Dns {
        Dns::Stays("nobody asked".to_owned())
    }
}

impl Dns {
    /// Asks what the two devices have. A node on which that cannot be asked is one whose names hang on
    /// no device.
    #[must_use]
    pub fn observe(bridge: &DeviceName, nic: &DeviceName) -> Dns {
        match (LinkDns::of(bridge), LinkDns::of(nic)) {
            (Err(why), _) | (_, Err(why)) => Dns::Stays(why),
            (Ok(of_bridge), _) if of_bridge == LinkDns::default() => {
                Dns::Stays(format!("{bridge} has no server of its own"))
            }
            (Ok(bridge), Ok(nic)) => Dns::Moves { bridge, nic },
        }
    }

    /// What the bridge has goes to the NIC.
    ///
    /// # Errors
    /// What `resolvectl` says.
    pub fn to_nic(&self, bridge: &DeviceName, nic: &DeviceName) -> Result<(), String> {
        match self {
            Dns::Stays(_) => Ok(()),
            Dns::Moves { bridge: had, .. } => {
                had.give(nic)?;
                LinkDns::default().give(bridge)
            }
        }
    }

    /// Both have again what they had.
    ///
    /// # Errors
    /// What `resolvectl` says.
    pub fn to_bridge(&self, bridge: &DeviceName, nic: &DeviceName) -> Result<(), String> {
        match self {
            Dns::Stays(_) => Ok(()),
            Dns::Moves {
                bridge: bridges,
                nic: nics,
            } => {
                bridges.give(bridge)?;
                nics.give(nic)
            }
        }
    }
}

impl LinkDns {
    fn of(device: &DeviceName) -> Result<LinkDns, String> {
        Ok(LinkDns {
            servers: words(&ask(&["dns", device.as_str()])?)?,
            domains: words(&ask(&["domain", device.as_str()])?)?,
        })
    }

    /// Sets what the device has; nothing takes away what was set.
    fn give(&self, device: &DeviceName) -> Result<(), String> {
        if *self == LinkDns::default() {
            return ask(&["revert", device.as_str()]).map(drop);
        }
        for (what, words) in [("dns", &self.servers), ("domain", &self.domains)] {
            // An empty word means none of them.
            let mut arguments = vec![what, device.as_str()];
            arguments.extend(words.iter().map(String::as_str));
            if words.is_empty() {
                arguments.push("");
            }
            ask(&arguments)?;
        }
        Ok(())
    }
}

impl fmt::Display for LinkDns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.servers.as_slice() {
            [] => f.write_str("no DNS server")?,
            servers => write!(f, "DNS server {}", servers.join(" and "))?,
        }
        match self.domains.as_slice() {
            [] => Ok(()),
            domains => write!(f, ", domain {}", domains.join(" and ")),
        }
    }
}

/// `Link 3 (azure0): 168.63.129.16 10.0.0.10`: the words after the device.
fn words(text: &str) -> Result<Vec<String>, String> {
    let strange = || format!("{PROGRAM} answers in a way not known: {text:?}");
    let line = text.trim_end();
    if line.is_empty() {
        return Ok(Vec::new());
    }
    let (_, listed) = line.split_once("):").ok_or_else(strange)?;
    let listed: Vec<String> = listed.split_whitespace().map(str::to_owned).collect();
    // They become arguments again: none may look like an option.
    let plain = |word: &String| {
        !word.starts_with('-') && word.bytes().all(|b| b.is_ascii_graphic()) && word.len() < 256
    };
    match listed.len() <= WORDS_MAX && listed.iter().all(plain) {
        true => Ok(listed),
        false => Err(strange()),
    }
}

/// Runs the program and gives what it prints.
fn ask(arguments: &[&str]) -> Result<String, String> {
    let called = || format!("{PROGRAM} {}", arguments.join(" "));
    let spawned = Command::new(PROGRAM)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => {
            return Err(format!("there is no {PROGRAM} on this node"));
        }
        Err(error) => return Err(format!("{}: {error}", called())),
    };
    let ended = wait(&mut child).map_err(|error| format!("{}: {error}", called()))?;
    let read = |from: Option<&mut dyn Read>| {
        let mut text = String::new();
        from.map(|from| from.take(1 << 16).read_to_string(&mut text));
        text
    };
    let said = read(child.stdout.as_mut().map(|out| out as &mut dyn Read));
    if ended {
        return Ok(said);
    }
    let why = read(child.stderr.as_mut().map(|out| out as &mut dyn Read));
    Err(format!("{}: {}", called(), why.trim()))
}

/// Whether it ended well, within the time it has.
fn wait(child: &mut Child) -> io::Result<bool> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            let why = format!("no answer within {} s", PATIENCE.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read() {
        let read = |text: &str| words(text).map(|words| words.join("|"));
        let servers = "Link 3 (azure0): 168.63.129.16 fd00::10\n";
        assert_eq!(read(servers).as_deref(), Ok("168.63.129.16|fd00::10"));
        let domains = "Link 3 (azure0): abc.bx.internal.cloudapp.net ~.\n";
        assert_eq!(
            read(domains).as_deref(),
            Ok("abc.bx.internal.cloudapp.net|~.")
        );
        assert_eq!(read("Link 3 (azure0):\n").as_deref(), Ok(""));
        assert_eq!(read("").as_deref(), Ok(""));
        for strange in ["168.63.129.16", "Link 3 (azure0): --help"] {
            assert!(read(strange).is_err(), "{strange}");
        }
        let many = format!("Link 3 (azure0): {}", "1.1.1.1 ".repeat(WORDS_MAX + 1));
        assert!(read(&many).is_err());
    }
}
