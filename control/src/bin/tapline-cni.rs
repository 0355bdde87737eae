//! The program that a container runtime starts: wiring, and nothing else.

use std::io::{Write, stdin, stdout};
use std::process::ExitCode;

use control::cni;

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_none() {
        eprintln!(
            "tapline-cni {}: a CNI plugin, to be started by a container runtime.",
            env!("CARGO_PKG_VERSION")
        );
    }
    let outcome = cni::run(&|name| std::env::var_os(name), stdin().lock());
    let written = match outcome.printed.as_str() {
        "" => Ok(()),
        document => writeln!(stdout(), "{document}"),
    };
    if outcome.success && written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
