//! `tapline lab`: builds the planned cluster in namespaces, walks it, and says what it found.
//!
//! In: the arguments. Out: a report on standard output, a line for each stage on standard error.
//! Never: starts a thread before the process has left the machine's network.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::num::NonZeroU16;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use dataplane::port::tap::{Queues, TapPort};
use dataplane::tables::Policy;

use super::Exit;
use super::cluster::ClusterArgs;
use crate::devices::{DeviceName, Netns};
use crate::lab::cluster::{Cluster, Wishes};
use crate::lab::prereq::{self, Check};
use crate::lab::privilege::{self, EnterError, PrivateNet};
use crate::lab::reaper::Reaper;
use crate::lab::report::Report;
use crate::lab::{placement, print, registry, walk};
use crate::plan::{self, Plan, Plugin};

const EXAMPLES: &str = "Examples:
  tapline lab                                    # the seed's cluster, azure and then kubenet
  tapline lab --plugin kubenet --detach-route-table
  tapline lab --dual-stack                       # IPv4 and IPv6, on an example of its own
  tapline lab --model aks.json --vnet aks-vnet.json --json
  tapline lab --plugin azure --hold              # and in another terminal:
  tapline lab exec pod-a -- ip addr
  tapline lab --check                            # can this machine run it at all?

Exit status:
  0  every check held
  1  a check did not hold; the report says which
  2  the input is at fault; nothing was created
  3  this machine lacks something the lab needs; the message says what to do";

/// Arguments of `tapline lab`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct LabArgs {
    #[command(subcommand)]
    sub: Option<LabCommand>,

    #[command(flatten)]
    cluster: ClusterArgs,

    /// Workers of each node's switch.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,

    /// Keep the cluster up after the walk, until Ctrl-C.
    #[arg(long)]
    hold: bool,

    /// Print the reports as JSON, alone, on standard output.
    #[arg(long)]
    json: bool,

    /// Test whether this machine can run the lab, and build nothing.
    #[arg(long)]
    check: bool,
}

/// What can be done with a lab that is held.
#[derive(clap::Subcommand, Debug)]
enum LabCommand {
    /// Run a command in the network of a pod or node of a lab that is held.
    Exec(ExecArgs),
}

#[derive(clap::Args, Debug)]
struct ExecArgs {
    /// A pod or a node: pod-a, node-0.
    name: String,

    /// The process id of the lab, where several are held.
    #[arg(long, value_name = "PID")]
    lab: Option<u32>,

    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<std::ffi::OsString>,
}

/// Runs `tapline lab`.
#[must_use]
pub fn run(args: &LabArgs) -> Exit {
    match &args.sub {
        Some(LabCommand::Exec(exec)) => enter_and_exec(exec),
        None if args.check => check(),
        None => match plans(args) {
            Ok(plans) => build_and_walk(args, &plans),
            Err(text) => refuse(&text, Exit::BadInput),
        },
    }
}

fn refuse(text: &str, exit: Exit) -> Exit {
    eprintln!("{}", text.trim_end());
    exit
}

fn enter_and_exec(args: &ExecArgs) -> Exit {
    let entered = registry::enter(&args.name, args.lab);
    let Some((program, rest)) = args.command.split_first() else {
        return refuse("tapline lab exec: no command", Exit::BadInput);
    };
    match entered {
        Ok(()) => {
            let error = Command::new(program).args(rest).exec();
            refuse(
                &format!(
                    "tapline lab exec: {}: {error}",
                    Path::new(program).display()
                ),
                Exit::BadInput,
            )
        }
        Err(error) => refuse(&format!("tapline lab exec: {error}"), Exit::BadInput),
    }
}

fn check() -> Exit {
    let checks = prereq::check(&privilege::enter(), &open_tap);
    for check in &checks {
        put(&check.to_string());
    }
    if prereq::all_met(&checks) {
        Exit::Ok
    } else {
        Exit::Unsupported
    }
}

/// Opens a TAP as the switch does, to see whether it can.
fn open_tap(netns: &Netns, name: &DeviceName) -> io::Result<()> {
    netns
        .run(|| TapPort::open(name.as_str(), Queues::Single))
        .map(drop)
}

/// What this machine lacks, if the lab could not be built.
fn missing(entered: &Result<PrivateNet, EnterError>) -> Vec<Check> {
    let mut checks = prereq::check(entered, &open_tap);
    checks.retain(|check| !check.ok);
    checks
}

/// A node whose configuration says nothing sends every pod's packet through its kernel, since an agent
/// may come; and then the TTLs are not the seed's.
const POLICY_NONE: &str = "policy: none, said by this lab: no policy agent runs in it";

const NO_DUAL_STACK_UNDER_AZURE: &str = "tapline lab: --dual-stack walks both families under \
    kubenet only: under azure a node translates its pods' IPv6 (ipv6nat), which Tapline does not do. \
    Add --plugin kubenet, or leave --dual-stack out to walk IPv4";

/// The plans to walk: the model's, or the built-in example's in both modes.
fn plans(args: &LabArgs) -> Result<Vec<Plan>, String> {
    let cluster = &args.cluster;
    let modes = match (&cluster.model, cluster.plugin) {
        (_, Some(plugin)) => vec![Some(plugin)],
        (Some(_), None) => vec![None],
        (None, None) if cluster.dual_stack => vec![None],
        (None, None) if args.hold => vec![Some(Plugin::Azure)],
        (None, None) => vec![Some(Plugin::Azure), Some(Plugin::Kubenet)],
    };
    modes
        .into_iter()
        .map(|mode| {
            let plan = plan::load(&cluster.options(mode)).map_err(|f| f.to_string())?;
            match plan.plugin {
                Plugin::Azure if cluster.dual_stack => Err(NO_DUAL_STACK_UNDER_AZURE.to_owned()),
                _ => worth_a_walk(plan),
            }
        })
        .collect()
}

/// The plan, if some node of it can have pods here: a lab without any would check nothing, and say
/// that all of it held.
fn worth_a_walk(plan: Plan) -> Result<Plan, String> {
    let (chosen, left_out) = placement::choose(&plan);
    if !placement::place(&plan, &chosen, &BTreeMap::new()).is_empty() {
        return Ok(plan);
    }
    let mut text =
        "tapline lab: nothing to walk: no node of this model has IPv4 addresses for pods \
        that Tapline serves; `tapline plan` shows what each has"
            .to_owned();
    for reason in plan
        .warnings
        .iter()
        .map(ToString::to_string)
        .chain(left_out)
    {
        text = format!("{text}\nnote: {reason}");
    }
    Err(text)
}

fn wishes(args: &LabArgs, plan: &Plan) -> Wishes {
    Wishes {
        addresses: args.cluster.addresses(plan),
        workers: NonZeroU16::new(args.workers).unwrap_or(NonZeroU16::MIN),
        detach_route_table: args.cluster.detach_route_table,
        spin: None,
        policy: Policy::None,
    }
}

fn build_and_walk(args: &LabArgs, plans: &[Plan]) -> Exit {
    // The reaper stays outside, so it starts first; then this process leaves the machine's network
    // while it still has one thread.
    let reaper = match Reaper::spawn() {
        Ok(reaper) => reaper,
        Err(error) => {
            return refuse(
                &format!("cannot start the reaper: {error}"),
                Exit::Unsupported,
            );
        }
    };
    let entered = privilege::enter();
    let Ok(private) = &entered else {
        return unsupported(&missing(&entered));
    };
    let mut lab = Lab {
        args,
        private,
        reaper,
        reports: Vec::new(),
    };
    for plan in plans {
        if let Err(error) = lab.run(plan) {
            eprintln!("tapline lab: {error}");
            let missing = missing(&entered);
            return if missing.is_empty() {
                Exit::CheckFailed
            } else {
                unsupported(&missing)
            };
        }
    }
    if args.json && !args.hold {
        put_json(&lab.reports);
    }
    if lab.reports.iter().all(|report| report.ok) {
        Exit::Ok
    } else {
        Exit::CheckFailed
    }
}

fn unsupported(missing: &[Check]) -> Exit {
    for check in missing {
        eprintln!("{check}");
    }
    Exit::Unsupported
}

fn put_json(reports: &[Report]) {
    put(&serde_json::to_string_pretty(reports).expect("a report is always JSON"));
}

/// Writes to standard output; a reader that went away is no fault of ours.
fn put(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

struct Lab<'a> {
    args: &'a LabArgs,
    private: &'a PrivateNet,
    reaper: Reaper,
    reports: Vec<Report>,
}

impl Lab<'_> {
    fn run(&mut self, plan: &Plan) -> Result<(), Box<dyn std::error::Error>> {
        // What there is to say of the built-in example, the lab sees to: it attaches the table.
        for warning in plan
            .warnings
            .iter()
            .filter(|_| self.args.cluster.model.is_some())
        {
            eprintln!("warning: {warning}");
        }
        let mut say = |stage: &str| eprintln!("[{}] {stage}", plan.plugin);
        let wishes = wishes(self.args, plan);
        say(POLICY_NONE);
        let cluster = Cluster::build(self.private, plan, &wishes, &mut say)?;
        for left_out in &cluster.left_out {
            eprintln!("note: {left_out}");
        }
        let report = walk::walk(&cluster, &mut say)?;
        if !self.args.json {
            put(&print::to_text(&report, io::stdout().is_terminal()));
        }
        self.reports.push(report);
        if self.args.hold {
            if self.args.json {
                put_json(&self.reports);
            }
            self.hold(&cluster)?;
        }
        cluster.stop()?;
        Ok(())
    }

    /// Keeps the cluster up, and lets others in, until Ctrl-C.
    fn hold(&mut self, cluster: &Cluster) -> io::Result<()> {
        let path = registry::announce(&cluster.plan.plugin.to_string(), cluster.namespaces())?;
        self.reaper.will_remove_file(&path)?;
        let pinned = self.private.may_pin() && self.pin(cluster);
        eprintln!("held until Ctrl-C; in another terminal:");
        eprintln!("  tapline lab exec pod-a -- COMMAND");
        if pinned {
            let pid = std::process::id();
            eprintln!("  ip netns exec tapline-{pid}-pod-a COMMAND");
        }
        wait_for_signal()
    }

    /// Puts the namespaces where `ip netns` looks. Root of a container may not mount there, and
    /// `lab exec` works all the same, so a refusal is told and no more.
    fn pin(&mut self, cluster: &Cluster) -> bool {
        let pid = std::process::id();
        let pinned: io::Result<()> = cluster.namespaces().try_for_each(|(name, netns)| {
            let pin = netns.pin(&format!("tapline-{pid}-{name}"))?;
            self.reaper.will_unmount(&pin)
        });
        if let Err(error) = &pinned {
            eprintln!("note: `ip netns exec` cannot enter this lab: /run/netns: {error}");
        }
        pinned.is_ok()
    }
}

/// Until Ctrl-C, or until a service manager says so.
fn wait_for_signal() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hangup = signal(SignalKind::hangup())?;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            Ok(())
        })
}
