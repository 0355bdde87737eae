//! Open vSwitch with its userspace datapath, on the pods' veths.
//!
//! In: pods. Out: a [`Rig`] around an OVS of our own: its database, sockets and logs are in a
//! file system that only this process sees. Never: the machine's own OVS, should it have one.
//!
//! OVS reads veths by AF_PACKET. With `userspace-tso-enable` it takes super-frames and unfinished
//! checksums; where that carries no TCP, the pods' transmit offload is switched off instead, as
//! without it every checksum would be wrong. The row says which.

use std::fs;
use std::io;
use std::path::{Path as File, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use control::devices::{Netlink, Netns};

use super::{Env, Pod, Rig, Shape, Unbuilt, paths, pods, veth_ends};
use crate::cpu::Meter;
use crate::traffic::{Path, tcp};

/// Where Debian keeps the schema.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// How long a program of it may take to answer.
const WITHIN: Duration = Duration::from_secs(10);
/// Slower than this is not TCP but its retransmission timer.
const TCP_ALIVE_GBIT: f64 = 0.1;

/// Builds it, with its segmentation offload if that carries TCP.
///
/// # Errors
/// That it is not installed, or what failed.
pub fn build(env: &mut Env, shape: Shape) -> Result<Rig, Unbuilt> {
    if !File::new(SCHEMA).exists() {
        return Err("not installed (Debian: openvswitch-switch)".into());
    }
    let rig = with_offload(env, shape, true)?;
    if carries_tcp(&rig.path) {
        return Ok(rig);
    }
    drop(rig);
    let rig = with_offload(env, shape, false)?;
    match carries_tcp(&rig.path) {
        true => Ok(rig),
        false => Err("no TCP came through, with userspace-tso-enable or without".into()),
    }
}

fn carries_tcp(path: &Path) -> bool {
    let own = || Duration::ZERO;
    let time = Duration::from_millis(300);
    tcp::run(
        path,
        1,
        tcp::Ends::EventLoop,
        time,
        &mut Meter::new(&own, 0.0, false),
    )
    .is_ok_and(|outcome| outcome.gbit_per_second() > TCP_ALIVE_GBIT)
}

fn with_offload(env: &mut Env, shape: Shape, offload: bool) -> Result<Rig, Unbuilt> {
    let node = Netns::create("node")?;
    let net = Netlink::open(&node)?;
    let pods = pods(shape)?;
    for pod in &pods {
        pod.attach_veth(&net)?;
        if !offload && pod.active {
            switch_offload_off(pod)?;
        }
    }
    let ovs = Ovs::start(env, &node, offload)?;
    ovs.set(&[
        "add-br",
        "br0",
        "--",
        "set",
        "bridge",
        "br0",
        "datapath_type=netdev",
    ])?;
    for chunk in pods.chunks(32) {
        let mut words = Vec::new();
        for pod in chunk {
            words.extend(["--", "add-port", "br0", pod.host_end.as_str()]);
        }
        ovs.set(&words)?;
    }
    let (path, flood) = paths(&pods, shape);
    let with = if offload {
        "userspace-tso-enable"
    } else {
        "no userspace-tso-enable (it carries no TCP here), pods' transmit offload off"
    };
    Ok(Rig {
        path,
        flood,
        rps: veth_ends(&node, &pods),
        settings: vec![format!("OVS {}, {with}", ovs.version)],
        threads: Some((ovs.switch.0.id(), "")),
        pair_drops: None,
        hold: Box::new((ovs, node, pods)),
    })
}

/// By `ethtool`: the kernel has no other door for it that a safe program could use.
fn switch_offload_off(pod: &Pod) -> Result<(), Unbuilt> {
    let device = pod.device.as_str();
    let done = pod.netns.run(|| {
        Command::new("ethtool")
            .args(["-K", device, "tx", "off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    });
    match done {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("ethtool -K {device} tx off: {status}").into()),
        Err(error) => Err(format!("its pods need ethtool: {error}").into()),
    }
}

/// A child that does not outlive this.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running OVS. The switch goes before its database, and both before their folder.
struct Ovs {
    switch: Daemon,
    _database: Daemon,
    folder: PathBuf,
    node: Netns,
    version: String,
}

impl Ovs {
    fn start(env: &mut Env, node: &Netns, offload: bool) -> Result<Ovs, Unbuilt> {
        let scratch = env.scratch.as_ref();
        let scratch =
            scratch.ok_or("it needs a folder of its own, which this user cannot mount")?;
        let folder = scratch.join("ovs");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        run(node, &folder, "ovsdb-tool", &["create", "conf.db", SCHEMA])?;
        let database = &["conf.db", "--remote=punix:db.sock", "--unixctl=db.ctl"];
        let database = daemon(env, node, &folder, "ovsdb-server", database)?;
        appears(&folder.join("db.sock"))?;
        run(
            node,
            &folder,
            "ovs-vsctl",
            &["--db=unix:db.sock", "--no-wait", "init"],
        )?;
        let wish = format!("other_config:userspace-tso-enable={offload}");
        let words = [
            "--db=unix:db.sock",
            "--no-wait",
            "set",
            "Open_vSwitch",
            ".",
            &wish,
        ];
        run(node, &folder, "ovs-vsctl", &words)?;
        let words = &["unix:db.sock", "--unixctl=vs.ctl", "--pidfile=vs.pid"];
        let switch = daemon(env, node, &folder, "ovs-vswitchd", words)?;
        appears(&folder.join("vs.ctl"))?;
        let version = run(node, &folder, "ovs-vswitchd", &["--version"])?;
        let version = version
            .lines()
            .next()
            .and_then(|line| line.split(' ').next_back());
        Ok(Ovs {
            switch,
            _database: database,
            folder,
            node: node.clone(),
            version: version.unwrap_or_default().to_owned(),
        })
    }

    /// Changes the configuration, and waits until the switch has it.
    fn set(&self, words: &[&str]) -> Result<(), Unbuilt> {
        let timeout = format!("--timeout={}", WITHIN.as_secs());
        let words = [&["--db=unix:db.sock", &timeout], words].concat();
        run(&self.node, &self.folder, "ovs-vsctl", &words).map(drop)
    }
}

fn command(folder: &File, program: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(words)
        .current_dir(folder)
        .env("OVS_RUNDIR", folder)
        .env("OVS_LOGDIR", folder)
        .env("OVS_DBDIR", folder)
        .stdin(Stdio::null());
    command
}

/// Starts a program inside the namespace, to run until it is dropped.
fn daemon(
    env: &mut Env,
    node: &Netns,
    folder: &File,
    program: &str,
    words: &[&str],
) -> Result<Daemon, Unbuilt> {
    let log = fs::File::create(folder.join(format!("{program}.out")))?;
    let mut command = command(folder, program, words);
    command.stdout(log.try_clone()?).stderr(log);
    let child = node.run(|| command.spawn());
    let child = child.map_err(|error| format!("{program}: {error}"))?;
    let daemon = Daemon(child);
    env.reaper.will_end(daemon.0.id())?;
    Ok(daemon)
}

/// Runs a program inside the namespace to its end; its output, if it says that all went well.
fn run(node: &Netns, folder: &File, program: &str, words: &[&str]) -> Result<String, Unbuilt> {
    let done = node.run(|| command(folder, program, words).output());
    let done = done.map_err(|error| format!("{program}: {error}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let says = String::from_utf8_lossy(&done.stderr);
    let says = says
        .lines()
        .next_back()
        .unwrap_or("no reason given")
        .to_owned();
    Err(format!("{program} {}: {says}", words.join(" ")).into())
}

fn appears(file: &File) -> io::Result<()> {
    let began = Instant::now();
    while !file.exists() {
        if began.elapsed() > WITHIN {
            let why = format!("{} does not appear", file.display());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
